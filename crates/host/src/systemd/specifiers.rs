//! Specifiers of units: `%i`, `%H` and the others (systemd.unit(5)).

use std::borrow::Cow;
use std::path::Path;

use super::parse_environment_file;
use crate::machine;
use crate::root::Root;

/// Most bytes of a file that a specifier is read from.
const CAP: usize = 64 << 10;

/// What the specifiers of a unit of the system's service manager stand for.
pub(super) struct Specifiers<'a> {
    root: &'a Root,
    unit: &'a str,
    hostname: &'a str,
    fragment: &'a Path,
}

/// What a specifier stands for, or why that is not known.
type Value<'a> = Result<Cow<'a, [u8]>, &'static str>;

impl<'a> Specifiers<'a> {
    /// Returns the specifiers of `unit`, whose main file is `fragment`, on the host of `root`, whose kernel calls itself
    /// `hostname`.
    pub(super) fn new(root: &'a Root, unit: &'a str, hostname: &'a str, fragment: &'a Path) -> Self {
        Self { root, unit, hostname, fragment }
    }

    /// Returns the unit's name.
    pub(super) fn unit(&self) -> &'a str {
        self.unit
    }

    /// Returns `text` with its specifiers replaced. One that is not known is left as it is, and `unknown` is told which it
    /// is and why. What no version of systemd takes for a specifier, because no letter follows the `%`, stands for itself.
    pub(super) fn expand(&self, text: &[u8], mut unknown: impl FnMut(char, &'static str)) -> Vec<u8> {
        let mut expanded = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let specifier = match rest.first() {
                Some(&b) if byte == b'%' && (b == b'%' || b.is_ascii_alphabetic()) => b,
                _ => {
                    expanded.push(byte);
                    continue;
                }
            };
            match self.value(specifier) {
                Ok(value) => {
                    expanded.extend_from_slice(&value);
                    rest = rest.get(1..).unwrap_or_default();
                }
                Err(why) => {
                    unknown(char::from(specifier), why);
                    expanded.push(byte);
                }
            }
        }
        expanded
    }

    fn value(&self, specifier: u8) -> Value<'a> {
        let (name, prefix, instance) = parts(self.unit);
        let component = prefix.rsplit('-').next().unwrap_or_default();
        let known = |text: &'a str| Ok(Cow::Borrowed(text.as_bytes()));
        let kernel = "no kernel runs this host, or its /proc is not there";
        match specifier {
            b'%' => known("%"),
            b'A' => self.os_release("IMAGE_VERSION"),
            b'B' => self.os_release("BUILD_ID"),
            b'C' => known("/var/cache"),
            b'D' => known("/usr/share"),
            b'E' => known("/etc"),
            b'G' | b'U' => known("0"),
            b'H' if self.hostname.is_empty() => Err("the host name could not be read"),
            b'H' => known(self.hostname),
            b'I' => unescape(instance),
            b'J' => unescape(component),
            b'L' => known("/var/log"),
            b'M' => self.os_release("IMAGE_ID"),
            b'N' => known(name),
            b'P' => unescape(prefix),
            b'S' => known("/var/lib"),
            b'T' => known("/tmp"),
            b'V' => known("/var/tmp"),
            b'W' => self.os_release("VARIANT_ID"),
            b'Y' => Ok(self.fragment_path(Path::parent)?.into()),
            b'a' => known(machine::kernel(self.root).and_then(|kernel| kernel.architecture()).ok_or(kernel)?),
            b'b' => {
                let id = machine::kernel(self.root).and_then(|kernel| kernel.boot_id()).ok_or(kernel)?;
                Ok(id.replace('-', "").into_bytes().into())
            }
            b'd' => Ok(format!("/run/credentials/{}", self.unit).into_bytes().into()),
            b'f' => path_unescape(if instance.is_empty() { prefix } else { instance }),
            b'g' | b'u' => known("root"),
            b'h' => known("/root"),
            b'i' => known(instance),
            b'j' => known(component),
            b'l' if self.hostname.is_empty() => Err("the host name could not be read"),
            b'l' => known(self.short_hostname()),
            b'm' => self.machine_id(),
            b'n' => known(self.unit),
            b'o' => self.os_release("ID"),
            b'p' => known(prefix),
            b'q' => self.pretty_hostname(),
            b's' => Err("which shell root has is compiled into systemd"),
            b't' => known("/run"),
            b'v' => Ok(machine::kernel(self.root).ok_or(kernel)?.release().into_bytes().into()),
            b'w' => self.os_release("VERSION_ID"),
            b'y' => Ok(self.fragment_path(Some)?.into()),
            _ => Err("systemd.unit(5) does not describe it"),
        }
    }

    fn short_hostname(&self) -> &'a str {
        self.hostname.split('.').next().unwrap_or_default()
    }

    /// Returns the name for people in `/etc/machine-info`, or the short host name where there is none.
    fn pretty_hostname(&self) -> Value<'a> {
        match self.variable(&["/etc/machine-info"], "PRETTY_HOSTNAME")? {
            Some(name) if !name.is_empty() => Ok(name.into()),
            _ if self.hostname.is_empty() => Err("the host name could not be read"),
            _ => Ok(self.short_hostname().as_bytes().into()),
        }
    }

    /// Returns a field of the description of the operating system; one that is not there is empty.
    fn os_release(&self, name: &str) -> Value<'a> {
        let files = ["/etc/os-release", "/usr/lib/os-release"];
        if !files.iter().any(|file| self.root.open(file).is_ok()) {
            return Err("the host has no os-release file that can be read");
        }
        Ok(self.variable(&files, name)?.unwrap_or_default().into())
    }

    /// Returns a variable of the first of the `files` that exists.
    fn variable(&self, files: &[&str], name: &str) -> Result<Option<Vec<u8>>, &'static str> {
        for file in files {
            match self.root.read(file, CAP) {
                Ok(bytes) => {
                    let variables = parse_environment_file(&bytes, &self.root.origin(file));
                    return Ok(variables.into_iter().rfind(|v| v.name == name).map(|v| v.value));
                }
                Err(error) if error.kind == seaworthy_evidence::ErrorKind::NotFound => {}
                Err(_) => return Err("the file that it is from could not be read"),
            }
        }
        Ok(None)
    }

    fn machine_id(&self) -> Value<'a> {
        let id = self.root.read("/etc/machine-id", CAP).map_err(|_| "/etc/machine-id could not be read")?;
        let id: Vec<u8> =
            id.trim_ascii().iter().filter(|b| **b != b'-').map(u8::to_ascii_lowercase).collect();
        let valid = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
        if valid { Ok(id.into()) } else { Err("/etc/machine-id does not hold an id") }
    }

    /// Returns a part of the path of the unit's main file.
    fn fragment_path(&self, part: fn(&'a Path) -> Option<&'a Path>) -> Result<Vec<u8>, &'static str> {
        if self.root.read_link(self.fragment).is_ok_and(|target| target.is_some()) {
            return Err("the unit's file is a symbolic link");
        }
        let path = part(self.fragment).unwrap_or(self.fragment);
        Ok(path.as_os_str().as_encoded_bytes().to_vec())
    }
}

/// Returns the name of the template that `unit` is an instance of.
pub(super) fn template(unit: &str) -> Option<String> {
    let (_, prefix, instance) = parts(unit);
    let suffix = unit.rsplit_once('.')?.1;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// Returns the unit's name without its type, and in it the parts before and behind `@`.
fn parts(unit: &str) -> (&str, &str, &str) {
    let name = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    (name, prefix, instance)
}

/// Returns what a part of a unit's name was made from: `-` stands for `/`, and `\xHH` for a byte.
fn unescape<'a>(part: &str) -> Value<'a> {
    const MALFORMED: &str = "the unit's name is not escaped as systemd escapes names";
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'-' => bytes.push(b'/'),
            b'\\' => {
                let digits = rest.strip_prefix(b"x").and_then(|rest| rest.split_at_checked(2));
                let (digits, after) = digits.ok_or(MALFORMED)?;
                let digits = std::str::from_utf8(digits).map_err(|_| MALFORMED)?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| MALFORMED)?);
                rest = after;
            }
            byte => bytes.push(byte),
        }
    }
    Ok(bytes.into())
}

/// Returns the absolute path that a part of a unit's name was made from.
fn path_unescape<'a>(part: &str) -> Value<'a> {
    let path = if part == "-" { Cow::Borrowed(&[][..]) } else { unescape(part)? };
    Ok([b"/", &*path].concat().into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn expand(files: &[(&str, &str)], unit: &str, text: &str) -> (String, Vec<char>) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::host(directory.path()).unwrap();
        let fragment = Path::new("/etc/systemd/system").join(unit);
        let mut unknown = Vec::new();
        let expanded = Specifiers::new(&root, unit, "m1.example", &fragment)
            .expand(text.as_bytes(), |specifier, _| unknown.push(specifier));
        (String::from_utf8(expanded).unwrap(), unknown)
    }

    #[test]
    fn what_names_and_files_tell_is_known() {
        let files = [
            ("etc/machine-id", "0123456789ABCDEF0123456789abcdef\n"),
            ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            ("etc/machine-info", "PRETTY_HOSTNAME=\"The First\"\n"),
        ];
        let cases = [
            ("etcd.service", "%n %N %p[%i]%j", "etcd.service etcd etcd[]etcd"),
            ("my-etcd@a-b\\x2dc.service", "%n %N", "my-etcd@a-b\\x2dc.service my-etcd@a-b\\x2dc"),
            ("my-etcd@a-b\\x2dc.service", "%p %P %i %I %j %J", "my-etcd my/etcd a-b\\x2dc a/b-c etcd etcd"),
            ("my-etcd@a-b\\x2dc.service", "%f", "/a/b-c"),
            ("my-etcd.service", "%f", "/my/etcd"),
            ("e@-.service", "%f", "/"),
            ("etcd.service", "%H %l %q", "m1.example m1 The First"),
            ("etcd.service", "%m", "0123456789abcdef0123456789abcdef"),
            ("etcd.service", "%o %w [%A%B%M%W]", "debian 12 []"),
            (
                "etcd.service",
                "%C %E %L %S %t %T %V %D %d",
                "/var/cache /etc /var/log /var/lib /run /tmp /var/tmp /usr/share \
                                                          /run/credentials/etcd.service",
            ),
            ("etcd.service", "%u %U %g %G %h", "root 0 root 0 /root"),
            ("etcd.service", "%y %Y", "/etc/systemd/system/etcd.service /etc/systemd/system"),
            ("etcd.service", "100%% %%H % %5 %", "100% %H % %5 %"),
        ];
        for (unit, text, want) in cases {
            assert_eq!(expand(&files, unit, text), (want.to_owned(), vec![]), "{unit}: {text}");
        }
        assert_eq!(expand(&[], "etcd.service", "%q").0, "m1");
    }

    #[test]
    fn what_is_not_known_is_said_and_left_as_it_is() {
        let cases = [
            ("etcd.service", "%s %c %z%n", "%s %c %zetcd.service", vec!['s', 'c', 'z']),
            // Another machine's kernel is not this one's.
            ("etcd.service", "%b %v %a", "%b %v %a", vec!['b', 'v', 'a']),
            ("etcd.service", "%m %o", "%m %o", vec!['m', 'o']),
            ("e@\\q.service", "%I %i", "%I \\q", vec!['I']),
        ];
        for (unit, text, want, unknown) in cases {
            assert_eq!(expand(&[], unit, text), (want.to_owned(), unknown), "{unit}: {text}");
        }
        assert_eq!(expand(&[("etc/machine-id", "uninitialized\n")], "etcd.service", "%m").1, ['m']);
    }

    #[test]
    fn the_kernel_of_this_host_is_known() {
        let root = Root::host("/").unwrap();
        let text = |text: &str| {
            let expanded = Specifiers::new(&root, "x.service", "", Path::new("/x"))
                .expand(text.as_bytes(), |specifier, why| panic!("%{specifier}: {why}"));
            String::from_utf8(expanded).unwrap()
        };
        assert_eq!(text("%v"), fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(text("%b"), id.trim().replace('-', ""));
        assert!(!text("%a").is_empty());
        let mut unknown = Vec::new();
        Specifiers::new(&root, "x.service", "", Path::new("/x")).expand(b"%H%l", |s, _| unknown.push(s));
        assert_eq!(unknown, ['H', 'l']);
    }
}
