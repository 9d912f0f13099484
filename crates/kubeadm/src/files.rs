//! The files of a node before kubeadm: what packages and an administrator lay down.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::packages::opaque;
use crate::programs::{ETCD, Programs};
use crate::{ADDRESS, NAME};

/// The users of the node and of its images.
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

/// The groups of the node and of its images.
pub(crate) const GROUP: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:\ntty:x:5:\nnogroup:x:65534:\n";

/// The names of iptables, all of one program.
pub(crate) const IPTABLES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Where kubeadm's configuration is on the node.
pub(crate) const KUBEADM_CONFIG: &str = "/root/kubeadm.yaml";

/// Units of systemd that would set up the machine, which is not the node's to set up.
const MASKED: [&str; 11] = [
    "systemd-sysctl.service",
    "systemd-logind.service",
    "systemd-remount-fs.service",
    "systemd-update-utmp.service",
    "systemd-tmpfiles-clean.timer",
    "dev-hugepages.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "getty.target",
];

/// Returns kubeadm's configuration for a release.
pub(crate) fn kubeadm_config(release: &str) -> String {
    let config = include_str!("../data/kubeadm.yaml");
    [("@RELEASE@", release), ("@NAME@", NAME), ("@ADDRESS@", ADDRESS), ("@ETCD@", ETCD)]
        .iter()
        .fold(config.to_owned(), |text, (mark, value)| text.replace(mark, value))
}

/// Lays down the root directory of a fresh node, without `/usr`.
pub(crate) fn root(root: &Path, release: &str, pause: &str, debian: &Path) -> Result<()> {
    let links = ["bin", "sbin", "lib", "lib64"].map(|name| (name.to_owned(), format!("usr/{name}")));
    let masked = MASKED.map(|unit| (format!("etc/systemd/system/{unit}"), "/dev/null".to_owned()));
    let enabled = ["containerd.service", "kubelet.service"].map(|unit| {
        let wanted = format!("etc/systemd/system/multi-user.target.wants/{unit}");
        (wanted, format!("/usr/lib/systemd/system/{unit}"))
    });
    let target = ("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target");
    let run = [("var/run".to_owned(), "/run".to_owned()), (target.0.to_owned(), target.1.to_owned())];

    for folder in ["dev", "proc", "run", "sys", "usr", "mnt/target", "home", "srv", ".old", "var/log/journal"]
    {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot create {folder}"))?;
    }
    for (folder, mode) in
        [("", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("var/lib", 0o755)]
    {
        fs::create_dir_all(root.join(folder))?;
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(mode))?;
    }
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hostname", &format!("{NAME}\n")),
        ("etc/hosts", &format!("127.0.0.1 localhost\n{ADDRESS} {NAME}\n")),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("etc/resolv.conf", "# nobody answers here\n"),
        // Without a number of the machine systemd takes this for its first start, and enables every unit.
        ("etc/machine-id", &fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "")),
        ("etc/containerd/config.toml", &include_str!("../data/containerd.toml").replace("@PAUSE@", pause)),
        ("etc/cni/net.d/10-bridge.conflist", include_str!("../data/10-bridge.conflist")),
        // kubelet gives up without containerd, and is started anew only after ten seconds.
        ("etc/systemd/system/containerd.service.d/order.conf", "[Unit]\nBefore=kubelet.service\n"),
        (KUBEADM_CONFIG.trim_start_matches('/'), &kubeadm_config(release)),
    ] {
        write(&root.join(path), text.as_bytes(), 0o644)?;
    }
    for file in ["etc/os-release", "etc/ssl/certs/ca-certificates.crt"] {
        if let Ok(bytes) = fs::read(Path::new("/").join(file)) {
            write(&root.join(file), &bytes, 0o644)?;
        }
    }
    for plugin in ["bridge", "host-local", "loopback", "portmap", "ptp"] {
        let from = debian.join("lib/cni").join(plugin);
        let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        write(&root.join("opt/cni/bin").join(plugin), &bytes, 0o755)?;
    }
    for (path, to) in links.into_iter().chain(masked).chain(enabled).chain(run) {
        link(&root.join(path), &to)?;
    }
    Ok(())
}

/// Lays down what the packages of Kubernetes add to `/usr`.
pub(crate) fn usr(folder: &Path, programs: &Programs) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    opaque(&folder.join("local"))?;
    for name in ["kubeadm", "kubectl", "kubelet"] {
        fs::create_dir_all(folder.join("bin"))?;
        fs::hard_link(programs.path(name), folder.join("bin").join(name))?;
    }
    for name in IPTABLES {
        link(&folder.join("sbin").join(name), "xtables-nft-multi")?;
    }
    link(&folder.join("local/bin/seaworthy"), "/mnt/target/debug/seaworthy")?;
    let units = folder.join("lib/systemd/system");
    write(&units.join("kubelet.service"), include_bytes!("../data/kubelet.service"), 0o644)?;
    write(&units.join("kubelet.service.d/10-kubeadm.conf"), include_bytes!("../data/10-kubeadm.conf"), 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let create = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(path, bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    create().with_context(|| format!("cannot write {}", path.display()))
}

fn link(path: &Path, to: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    symlink(to, path).with_context(|| format!("cannot link {}", path.display()))
}
