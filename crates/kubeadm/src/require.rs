//! What the machine must have for a node, looked for before anything is begun.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::run;

/// Tries what the node will do, in namespaces that go at once. Argument: a folder of the disk that the node will be on.
const TRIAL: &str = r#"
set -e
fail() { echo "$1"; exit 1; }
cd "$1"
mkdir lower upper work both
mount --make-rprivate / || fail "mount is refused"
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay both || fail "no overlay file system on this disk"
ip link add trial type veth peer name other || fail "no veth devices in this kernel"
ip link add bridge0 type bridge || fail "no bridges in this kernel"
"#;

/// Fails unless this is root.
pub(crate) fn root() -> Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "a node needs root, for it has containers, mounts and control groups: run this with sudo, or in a privileged container"
    );
    Ok(())
}

/// Fails with everything that is missing, and what to do about it. `packages` and `programs` say whether these have to be made.
pub(crate) fn check(home: &Path, packages: bool, programs: bool) -> Result<()> {
    let mut missing = Vec::new();
    let util_linux = ["mount", "nice", "nsenter", "setpriv", "setsid", "unshare"];
    let mut tools: Vec<_> = util_linux.map(|tool| (tool, "apt-get install util-linux coreutils")).into();
    tools.extend([("ip", "apt-get install iproute2"), ("hostname", "apt-get install hostname")]);
    if packages {
        let hint = "containerd, runc and systemd come from Debian packages: use a Debian or Ubuntu machine";
        tools.extend([("apt-get", hint), ("dpkg-deb", hint)]);
    }
    if programs {
        tools.push(("go", "Kubernetes is built with the Go toolchain, which https://go.dev/dl has"));
    }
    let absent = tools.into_iter().filter(|(tool, _)| !on_path(tool));
    missing.extend(absent.map(|(tool, hint)| format!("`{tool}`: {hint}")));
    if home.to_string_lossy().contains([':', ',', '\\']) {
        missing.push(format!(
            "a path that an overlay can have, without colon, comma and backslash: set SEAWORTHY_LAB to another than {}",
            home.display()
        ));
    }
    if missing.is_empty() {
        let folder = tempfile::tempdir_in(crate::work(home))?;
        let mut trial = Command::new("unshare");
        trial.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]);
        trial.args(["sh", "-c", TRIAL, "trial"]).arg(folder.path());
        if let Err(error) = run(&mut trial) {
            missing.push(format!(
                "namespaces, overlays, veth and bridge devices (in a container they need --privileged, and a volume for {}): {error:#}",
                home.display()
            ));
        }
    }
    anyhow::ensure!(missing.is_empty(), "this machine lacks what a node needs\n  {}", missing.join("\n  "));
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| fs::metadata(folder.join(program)).is_ok_and(|file| file.is_file()))
}
