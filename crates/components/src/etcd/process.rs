//! Which processes are etcd: told by the program that runs, never by a word in a command line.
//!
//! What it is called decides only where its executable does not say what it was made of.

use std::borrow::Cow;

use crate::etcd::settings::takes_value;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// `etcd gateway`, which forwards TCP.
    Gateway,
    /// `etcd grpc-proxy`, which serves the API itself.
    GrpcProxy,
    /// Something else, or an etcd that only prints its version or help.
    NotEtcd,
    /// An etcd server.
    Server,
}

/// What an executable says that it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// etcd, whatever it is called.
    Etcd,
    /// Another program, also where it is called etcd.
    Other,
    /// Nothing, or it could not be read.
    Unknown,
}

/// The packages that are etcd: of 3.5 and later, 3.4, and 3.3 and earlier, whose build script names the last two.
const PACKAGES: [&str; 5] = [
    "go.etcd.io/etcd/server",
    "go.etcd.io/etcd",
    "github.com/coreos/etcd",
    "go.etcd.io/etcd/cmd/etcd",
    "github.com/coreos/etcd/cmd/etcd",
];
/// What Go calls a program that it was given as files, and not as a package.
const FILES: &str = "command-line-arguments";

impl Built {
    /// Returns what an executable is that was built from `package`.
    pub fn of(package: &str) -> Self {
        match package {
            FILES => Self::Unknown,
            package if PACKAGES.contains(&without_major(package)) => Self::Etcd,
            _ => Self::Other,
        }
    }
}

/// The module that holds the version which etcd tells, since 3.5.
pub const VERSION_MODULE: &str = "go.etcd.io/etcd/api/v3";
/// The module of the server, since 3.5.
const SERVER: &str = "go.etcd.io/etcd/server";
/// The modules of all of etcd, before.
const WHOLE: [&str; 2] = ["go.etcd.io/etcd", "github.com/coreos/etcd"];
/// The programs that are no server although they are made of its module.
const TOOLS: [&str; 2] = ["etcdctl", "etcdutl"];

/// Returns whether a program that is built from `package` and has `module` in it may run an etcd inside itself.
pub fn may_embed(package: &str, module: &str) -> bool {
    let module = without_major(module);
    let tool = without_major(package).rsplit('/').next().is_some_and(|name| TOOLS.contains(&name));
    !tool && (module == SERVER || WHOLE.contains(&module))
}

/// Returns the path of a module or package without its major version: `/v3`.
fn without_major(path: &str) -> &str {
    match path.rsplit_once("/v") {
        Some((path, major)) if !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()) => path,
        _ => path,
    }
}

/// Returns what the process with command line `argv` is. `exe` is what `/proc/PID/exe` points at, if it can
/// be read, and `built` what that executable says of itself.
///
/// The executable decides, for argv is what a process says of itself, and so is the name of a file. Only a dynamic
/// linker that was started as a program (`/lib64/ld-linux-x86-64.so.2 /usr/bin/etcd …`) hides it, and only an
/// executable that cannot be read leaves nothing but `argv[0]`.
pub fn recognise(argv: &[Vec<u8>], exe: Option<&str>, built: Built) -> Recognised {
    let Some(program) = program(argv, exe, built) else { return Recognised::NotEtcd };
    let mut arguments = argv.iter().skip(program + 1).map(|text| String::from_utf8_lossy(text));
    match arguments.clone().next().as_deref() {
        Some("gateway") => Recognised::Gateway,
        Some("grpc-proxy") => Recognised::GrpcProxy,
        _ => {
            while let Some(text) = arguments.next() {
                if brief(&text) {
                    return Recognised::NotEtcd;
                }
                // `--name -h` is a name.
                if takes_value(text.trim_start_matches('-')) {
                    arguments.next();
                }
            }
            Recognised::Server
        }
    }
}

/// Returns whether a program called `name` is a dynamic linker, which runs the program that its arguments name.
pub fn is_dynamic_linker(name: &[u8]) -> bool {
    [&b"ld-"[..], b"ld.so", b"ld64.so"].iter().any(|beginning| name.starts_with(beginning))
}

/// Returns the index in `argv` of the first argument to etcd: 1, unless a dynamic linker was started with the
/// program as an argument. `None` when it is not etcd.
pub fn first_argument(argv: &[Vec<u8>], exe: Option<&str>, built: Built) -> Option<usize> {
    program(argv, exe, built).map(|program| program + 1)
}

/// Returns the index in `argv` of the name of the etcd program.
fn program(argv: &[Vec<u8>], exe: Option<&str>, built: Built) -> Option<usize> {
    let name = |index: usize| argv.get(index).map(|text| String::from_utf8_lossy(text));
    let exe = exe.map(|exe| Cow::from(exe.strip_suffix(" (deleted)").unwrap_or(exe)));
    let running = exe.or_else(|| name(0))?;
    let running = base(&running);
    if built == Built::Etcd || built == Built::Unknown && is_etcd(running) {
        return (!argv.is_empty()).then_some(0);
    }
    if !is_dynamic_linker(running.as_bytes()) {
        return None;
    }
    let mut index = 1;
    loop {
        let argument = name(index)?;
        let with_value = [
            "--argv0",
            "--audit",
            "--glibc-hwcaps-mask",
            "--glibc-hwcaps-prepend",
            "--inhibit-rpath",
            "--library-path",
            "--preload",
        ];
        if with_value.contains(&argument.as_ref()) {
            index += 2;
        } else if argument.starts_with("--") {
            index += 1;
        } else {
            return is_etcd(base(&argument)).then_some(index);
        }
    }
}

/// Returns whether an etcd with the argument `text` prints something and exits.
fn brief(text: &str) -> bool {
    matches!(
        text,
        "-h" | "--h" | "-help" | "--help" | "-version" | "--version" | "-version=true" | "--version=true"
    )
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns whether `name` is `etcd`, with or without a version: `etcd3`, `etcd-v3.5.1`, `etcd_3.4`.
pub fn is_etcd(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("etcd") else { return false };
    let rest = rest.strip_prefix(['-', '_']).unwrap_or(rest);
    let version = rest.strip_prefix('v').unwrap_or(rest);
    name == "etcd" || !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use Recognised::*;

    #[test]
    fn a_process_is_what_it_runs() {
        let cases: &[(&str, Option<&str>, Recognised)] = &[
            ("etcd", Some("/usr/bin/etcd"), Server),
            ("etcd --name m1", None, Server),
            ("/usr/local/bin/etcd --name m1", None, Server),
            ("anything --name m1", Some("/usr/bin/etcd"), Server),
            ("etcd", Some("/usr/bin/etcd (deleted)"), Server),
            ("/opt/etcd-v3.5.1 --name m1", Some("/opt/etcd-v3.5.1"), Server),
            ("etcd3", None, Server),
            ("etcd_3.4.23", None, Server),
            ("etcd grpc-proxy start --endpoints=x", Some("/usr/bin/etcd"), GrpcProxy),
            ("etcd gateway start", Some("/usr/bin/etcd"), Gateway),
            ("etcd --name gateway", Some("/usr/bin/etcd"), Server),
            (
                "/lib64/ld-linux-x86-64.so.2 /usr/bin/etcd --name m1",
                Some("/lib64/ld-linux-x86-64.so.2"),
                Server,
            ),
            (
                "/lib/ld-musl-x86_64.so.1 --library-path /x /usr/bin/etcd gateway",
                Some("/lib/ld-musl-x86_64.so.1"),
                Gateway,
            ),
            ("/lib64/ld-linux-x86-64.so.2 /bin/cat etcd", Some("/lib64/ld-linux-x86-64.so.2"), NotEtcd),
            ("etcd --version", Some("/usr/bin/etcd"), NotEtcd),
            ("etcd --help", Some("/usr/bin/etcd"), NotEtcd),
            ("etcd --name -h", Some("/usr/bin/etcd"), Server),
            ("etcd --name=m1 --debug -h", Some("/usr/bin/etcd"), NotEtcd),
            ("etcd --name --version --version", Some("/usr/bin/etcd"), NotEtcd),
            ("/lib64/ld64.so.2 /usr/bin/etcd", Some("/lib64/ld64.so.2"), Server),
            ("kube-apiserver --etcd-servers=https://10.0.0.1:2379", Some("/usr/bin/kube-apiserver"), NotEtcd),
            ("grep etcd", Some("/usr/bin/grep"), NotEtcd),
            ("vi etcd.yaml", Some("/usr/bin/vi"), NotEtcd),
            ("etcdctl member list", Some("/usr/bin/etcdctl"), NotEtcd),
            ("etcdutl snapshot status", None, NotEtcd),
            ("etcd-backup", Some("/usr/bin/etcd-backup"), NotEtcd),
            ("etcd-manager", None, NotEtcd),
            ("etcd-", None, NotEtcd),
            ("/bin/sh /usr/local/bin/etcd", Some("/usr/bin/dash"), NotEtcd),
            ("etcd --name m1", Some("/usr/bin/sleep"), NotEtcd),
            ("", Some("/usr/bin/etcd"), NotEtcd),
            ("", None, NotEtcd),
        ];
        for (argv, exe, want) in cases {
            let argv: Vec<Vec<u8>> = argv.split_whitespace().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(recognise(&argv, *exe, Built::Unknown), *want, "{argv:?} {exe:?}");
        }
    }

    #[test]
    fn what_a_program_was_made_of_decides_before_its_name() {
        let cases: &[(&str, &str, Built, Recognised)] = &[
            ("mydb --name m1", "/opt/mydb", Built::Etcd, Server),
            ("mydb gateway start", "/opt/mydb", Built::Etcd, Gateway),
            ("x --version", "/memfd:x (deleted)", Built::Etcd, NotEtcd),
            ("etcd --name m1", "/usr/bin/etcd", Built::Other, NotEtcd),
            ("/lib64/ld.so /usr/bin/etcd --name m1", "/lib64/ld.so", Built::Other, Server),
            ("ld-etcd --name m1", "/opt/ld-etcd", Built::Etcd, Server),
        ];
        for (argv, exe, built, want) in cases {
            let argv: Vec<Vec<u8>> = argv.split_whitespace().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(recognise(&argv, Some(exe), *built), *want, "{argv:?} {exe}");
        }
    }

    #[test]
    fn packages_and_modules_of_etcd_are_known() {
        let cases = [
            ("go.etcd.io/etcd/server/v3", Built::Etcd),
            ("go.etcd.io/etcd/server/v4", Built::Etcd),
            ("go.etcd.io/etcd", Built::Etcd),
            ("go.etcd.io/etcd/v3", Built::Etcd),
            ("github.com/coreos/etcd", Built::Etcd),
            ("github.com/coreos/etcd/cmd/etcd", Built::Etcd),
            ("command-line-arguments", Built::Unknown),
            ("go.etcd.io/etcd/etcdctl/v3", Built::Other),
            ("go.etcd.io/etcd/tools/etcd-dump-db", Built::Other),
            ("example.com/etcd", Built::Other),
        ];
        for (package, want) in cases {
            assert_eq!(Built::of(package), want, "{package}");
        }
        let cases = [
            ("github.com/k3s-io/k3s/cmd/server", "go.etcd.io/etcd/server/v3", true),
            ("example.com/x", "go.etcd.io/etcd", true),
            ("go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/server/v3", false),
            ("go.etcd.io/etcd/etcdutl/v3", "go.etcd.io/etcd/server/v3", false),
            ("k8s.io/kubernetes/cmd/kube-apiserver", "go.etcd.io/etcd/client/v3", false),
        ];
        for (package, module, want) in cases {
            assert_eq!(may_embed(package, module), want, "{package} {module}");
        }
    }

    #[test]
    fn a_dynamic_linker_shifts_the_arguments() {
        let argv = ["/lib64/ld-linux-x86-64.so.2", "--preload", "x", "/usr/bin/etcd", "--name"];
        let argv = argv.map(|text| text.as_bytes().to_vec());
        assert_eq!(first_argument(&argv, Some("/usr/lib64/ld-linux-x86-64.so.2"), Built::Unknown), Some(4));
        assert_eq!(first_argument(&argv, Some("/usr/bin/cat"), Built::Unknown), None);
    }
}
