//! What a node has of Debian: packages that are unpacked into a folder and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::fs::{XattrFlags, setxattr};

use crate::progress::Progress;
use crate::run;

/// The packages: the container runtime, what kube-proxy and CNI plugins call, systemd, and libraries that not every Debian has.
const PACKAGES: [&str; 19] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libnftnl11",
    "libnfnetlink0",
    "libnetfilter-conntrack3",
    "libxtables12",
    "libmnl0",
    "conntrack",
    "systemd",
    "libsystemd-shared",
    "libsystemd0",
    "libapparmor1",
    "libkmod2",
    "libseccomp2",
    "libpam0g",
];

/// The folder of unpacked packages below `home`, whether they are there or not. It has what belongs to `/usr`.
pub(crate) fn folder(home: &Path) -> PathBuf {
    home.join("debian")
}

/// Gets the packages if they are not there.
pub(crate) fn install(home: &Path, progress: &Progress) -> Result<()> {
    if folder(home).is_dir() {
        return Ok(());
    }
    progress.say(&format!("downloading {} Debian packages", PACKAGES.len()));
    let work = tempfile::tempdir_in(crate::work(home))?;
    seaworthy_lab::apt(work.path(), &PACKAGES).context("cannot get the node's Debian packages")?;
    let unpacked = work.path().join("unpacked");
    let usr = unpacked.join("usr");
    // Packages of Debian 12 still have files in /bin, /sbin and /lib, which are links to folders of /usr.
    for name in ["bin", "sbin", "lib", "lib64"] {
        let from = unpacked.join(name);
        if from.is_dir() {
            fs::create_dir_all(usr.join(name))?;
            run(Command::new("cp").arg("-a").arg(from.join(".")).arg(usr.join(name)))?;
        }
    }
    // The services of the machine are none of the node's.
    opaque(&usr.join("lib/systemd/system"))?;
    fs::rename(&usr, folder(home))?;
    Ok(())
}

/// Makes an overlay show nothing of the folders below this one.
pub(crate) fn opaque(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    setxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .with_context(|| format!("cannot mark {} for an overlay", folder.display()))
}
