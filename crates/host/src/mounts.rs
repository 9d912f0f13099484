//! Where the host has what a process sees, by the mounts of both (proc(5): `/proc/PID/mountinfo`).

/// The mounts of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// A part of a file system that is visible at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor` of the file system.
    device: String,
    /// The part of it: a path from its root.
    part: String,
    /// The place, from the root of the process.
    place: String,
}

impl Mounts {
    /// Reads `mountinfo`. What is not of its form, or not UTF-8, is left out.
    pub(crate) fn parse(mountinfo: &[u8]) -> Self {
        let mount = |line: &[u8]| {
            let mut words = std::str::from_utf8(line).ok()?.split(' ').skip(2);
            let (device, part, place) = (words.next()?, words.next()?, words.next()?);
            Some(Mount { device: device.to_owned(), part: unescaped(part)?, place: unescaped(place)? })
        };
        Self(mountinfo.split(|&b| b == b'\n').filter_map(mount).collect())
    }

    /// Returns the paths at which a process with these mounts may see what one with `other` mounts sees at `path`, likely ones
    /// first. Another mount may hide it there, and links are not followed.
    pub fn seen_as<'a>(&'a self, path: &str, other: &Self) -> impl Iterator<Item = String> + use<'a> {
        // Of several mounts at one place the last is on top.
        let over = other.0.iter().filter_map(|mount| Some((mount, below(path, &mount.place)?)));
        let found = over.max_by_key(|(mount, _)| mount.place.len());
        let found = found.map(|(mount, rest)| (mount.device.clone(), joined(&mount.part, rest)));
        self.0.iter().rev().filter_map(move |mount| {
            let (device, path) = found.as_ref()?;
            let rest = below(path, &mount.part).filter(|_| mount.device == *device)?;
            Some(joined(&mount.place, rest))
        })
    }
}

/// Returns the rest of `path` below `folder`: empty for the folder itself, else with a slash in front.
fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    path.strip_prefix(folder.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn joined(folder: &str, rest: &str) -> String {
    format!("{}{rest}", folder.trim_end_matches('/'))
}

/// Returns a field in which the kernel writes blanks, line ends and backslashes as three octal digits.
fn unescaped(field: &str) -> Option<String> {
    let mut parts = field.split('\\');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..3)?, 8).ok()?);
        bytes.extend(part.get(3..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /var/lib/etcd rw - tmpfs tmpfs rw
31 22 8:2 / /srv/a\\040b rw - ext4 /dev/sda2 rw
";
    const CONTAINER: &[u8] = b"90 80 0:60 / / rw - overlay overlay rw
91 90 8:1 /etc/kubernetes/pki/etcd /certs ro - ext4 /dev/sda1 rw
92 90 0:25 / /data rw - tmpfs tmpfs rw
93 90 8:2 /keys /keys rw - ext4 /dev/sda2 rw
";

    #[test]
    fn a_bind_mount_is_found_on_the_host() {
        let (host, container) = (Mounts::parse(HOST), Mounts::parse(CONTAINER));
        let first = |path: &str| host.seen_as(path, &container).next();
        for (inside, outside) in [
            ("/certs/peer.key", Some("/etc/kubernetes/pki/etcd/peer.key")),
            ("/certs", Some("/etc/kubernetes/pki/etcd")),
            ("/certsx", None),
            ("/data/member", Some("/var/lib/etcd/member")),
            ("/keys/x", Some("/srv/a b/keys/x")),
            ("/etc/passwd", None),
        ] {
            assert_eq!(first(inside).as_deref(), outside, "{inside}");
        }
        assert_eq!(host.seen_as("/etc/x", &host).next().as_deref(), Some("/etc/x"));
    }

    #[test]
    fn what_is_no_line_of_it_is_left_out() {
        let odd = b"\nx\n1 2 3\n1 2 8:1 / /a\\9 rw\n1 2 8:1 /\xff / rw\n1 2 8:1 / /b rw\n";
        assert_eq!(Mounts::parse(odd).0.len(), 1);
    }
}
