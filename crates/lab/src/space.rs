//! Namespaces: one switch for a cluster, one space for each node.
//!
//! Making and entering them is left to util-linux, because the system calls are unsafe in Rust and this
//! workspace has no unsafe code.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{self as rfs, AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};

use crate::{
    binary::{EtcdBinary, cache},
    error::{Error, cannot_start, succeed},
};

/// The program search path inside a node.
pub(crate) const PATH: &str =
    "/opt/lab/bin:/opt/etcd:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process that a cluster lives and dies with: PID 1 of the PID namespace above all its nodes.
pub(crate) struct Switch {
    init: Child,
    /// The write end of the pipe that PID 1 waits on. Its closing, by whatever, ends everything.
    lock: Option<ChildStdin>,
    space: Space,
}

impl Switch {
    /// Starts a switch without ports, in a user namespace of its own if asked to.
    pub(crate) fn start(user: bool) -> Result<Self, Error> {
        let mut command = Command::new("unshare");
        if user {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", SWITCH]);
        let (mut init, pid) = announced(command.stdin(Stdio::piped()))?;
        let lock = init.stdin.take();
        Ok(Self { init, lock, space: Space { pid, user } })
    }

    /// Starts a node that is not connected yet.
    pub(crate) fn node(
        &self,
        name: &str,
        etcd: &EtcdBinary,
        shares: &[(PathBuf, String)],
    ) -> Result<(Child, Space), Error> {
        let mount_point = cache().join("mnt");
        fs::create_dir_all(&mount_point).map_err(Error::io(format!("create {}", mount_point.display())))?;
        let mut command = self.space.enter(&["--mount", "--net", "--pid"]);
        command.args(["unshare", "--mount", "--net", "--uts", "--ipc", "--cgroup"]);
        command.args(["--pid", "--fork", "--kill-child"]);
        command.args(["bash", "-c", &format!("{ROOT}{NODE}"), "node", name]).arg(mount_point);
        command.args([&etcd.path, &etcd.etcdctl]);
        for (from, to) in shares {
            command.arg(from).arg(to);
        }
        let (init, pid) = announced(command.stdin(Stdio::null()))?;
        Ok((init, Space { pid, user: self.space.user }))
    }

    /// Returns the number of PID 1, as seen from outside.
    pub(crate) fn pid(&self) -> u32 {
        self.space.pid
    }

    /// Connects nodes to the bridge, each with its address.
    pub(crate) fn connect(&self, nodes: &[(u32, Ipv4Addr)]) -> Result<(), Error> {
        let mut command = self.space.enter(&["--mount", "--net", "--pid"]);
        command.args(["sh", "-c", CONNECT, "connect"]);
        for (pid, address) in nodes {
            command.args([pid.to_string(), address.to_string()]);
        }
        succeed(&mut command).map(drop)
    }

    /// Plugs the cable of a node in or out.
    pub(crate) fn link(&self, address: Ipv4Addr, up: bool) -> Result<(), Error> {
        let [.., host] = address.octets();
        let mut command = self.space.enter(&["--mount", "--net", "--pid"]);
        command.args(["ip", "link", "set", &format!("port{host}"), if up { "up" } else { "down" }]);
        succeed(&mut command).map(drop)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.lock.take());
        if wait(&mut self.init, Duration::from_secs(5)).is_none() {
            let _ = self.init.kill(); // `--kill-child` makes the kernel kill PID 1 along with it
            let _ = self.init.wait();
        }
    }
}

/// The namespaces of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    /// The process, as seen from here.
    pub(crate) pid: u32,
    /// Whether they belong to a user namespace of their own.
    user: bool,
}

impl Space {
    /// Returns a command that enters these namespaces and runs what is added as arguments, with a clean
    /// environment.
    pub(crate) fn enter(&self, kinds: &[&str]) -> Command {
        // Signals that whoever starts the tests ignores are not ignored in a node.
        let mut command = Command::new("env");
        command.args(["--default-signal", "nsenter", "--target"]).arg(self.pid.to_string()).args(kinds);
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").env_clear().env("PATH", PATH).env("HOME", "/root");
        command
    }

    /// Returns a command that enters all namespaces of a node.
    pub(crate) fn enter_node(&self) -> Command {
        self.enter(&["--mount", "--net", "--uts", "--ipc", "--cgroup", "--pid"])
    }

    /// Returns where the root directory can be read from here.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// Returns whether a TCP socket listens on the port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        listens(self.pid, port)
    }

    /// Creates or atomically replaces a file, and the directories it needs.
    ///
    /// Symbolic links are followed as the node would: none leads out of its root.
    pub(crate) fn write(&self, path: &str, bytes: &[u8], mode: u32, uid: u32) -> Result<(), Error> {
        let what = || format!("write {path} in the node");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.folder(folder).map_err(Error::io(what()))?;
        let temporary = format!(".{name}.new");
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rfs::openat(&folder, &temporary, create, Mode::RUSR).map_err(Error::io(what()))?;
        let mut file = File::from(file);
        file.write_all(bytes).map_err(Error::io(what()))?;
        own(&file, uid).map_err(Error::io(what()))?;
        rfs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::io(what()))?;
        rfs::renameat(&folder, &temporary, &folder, name).map_err(Error::io(what()))
    }

    /// Reads a file, following symbolic links as the node would.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let what = || format!("read {path} in the node");
        let file = self.open(path, OFlags::RDONLY).map_err(Error::io(what()))?;
        let mut bytes = Vec::new();
        File::from(file).take(MAX_READ).read_to_end(&mut bytes).map_err(Error::io(what()))?;
        Ok(bytes)
    }

    /// Returns the mode of a file, and who owns it.
    pub(crate) fn mode(&self, path: &str) -> Result<(u32, u32), Error> {
        let file = self.open(path, OFlags::PATH).and_then(rfs::fstat);
        let stat = file.map_err(Error::io(format!("look at {path} in the node")))?;
        Ok((stat.st_mode & 0o7777, stat.st_uid))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) -> Result<(), Error> {
        let what = || format!("remove {path} in the node");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.open(folder, OFlags::DIRECTORY).map_err(Error::io(what()))?;
        rfs::unlinkat(&folder, name, AtFlags::empty()).map_err(Error::io(what()))
    }

    /// Makes the owner of a directory and sets its mode, after creating it where it is missing.
    pub(crate) fn directory(&self, path: &str, mode: u32, uid: u32) -> Result<(), Error> {
        let what = || format!("create {path} in the node");
        let folder = self.folder(path).map_err(Error::io(what()))?;
        own(&folder, uid).map_err(Error::io(what()))?;
        rfs::fchmod(&folder, Mode::from_raw_mode(mode)).map_err(Error::io(what()))
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = rfs::open(self.root(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = if path.is_empty() { "/" } else { path };
        rfs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Opens a directory after creating what is missing of it.
    fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = self.folder(parent)?;
                match rfs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => self.open(path, OFlags::DIRECTORY),
                    Err(error) => Err(error),
                }
            }
            other => other,
        }
    }
}

/// Returns whether a TCP socket listens on the port, in the network namespace of a process.
pub fn listens(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut columns = line.split_ascii_whitespace().skip(1);
            let local = columns.next().and_then(|local| local.rsplit_once(':'));
            let local = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            local == Some(port) && columns.nth(1) == Some("0A")
        })
    })
}

/// Waits for a child to exit, at most so long.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

/// Starts a command that prints a process number on its first line when it is ready.
pub(crate) fn announced(command: &mut Command) -> Result<(Child, u32), Error> {
    let errors = tempfile::tempfile().map_err(Error::io("create a temporary file"))?;
    let mut copy = errors.try_clone().map_err(Error::io("create a temporary file"))?;
    command.stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().map_err(|error| cannot_start(command, error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = BufReader::new(stdout.take(64)).read_line(&mut line);
    }
    if let Ok(pid) = line.trim().parse() {
        return Ok((child, pid));
    }
    let _ = child.kill();
    let _ = child.wait();
    let mut output = String::new();
    let _ = std::io::Seek::rewind(&mut copy).and_then(|()| copy.read_to_string(&mut output));
    Err(Error::NoNode { output: format!("{line}{}", output.trim_end()) })
}

/// Returns an absolute, existing path.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(Error::io(format!("find {}", path.display())))
}

/// A node's files are small; a log that grew beyond this is cut.
const MAX_READ: u64 = 64 << 20;

fn own<Fd: std::os::fd::AsFd>(file: Fd, uid: u32) -> Result<(), Errno> {
    if uid == 0 { Ok(()) } else { rfs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))) }
}

/// PID 1 of the switch. Its `/proc` is still the machine's, so the number it announces is valid outside.
const SWITCH: &str = r#"
set -e
read -r pid _ </proc/self/stat
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
echo "$pid"
exec cat >/dev/null
"#;

/// Shell functions that build a root directory in the current one and move into it.
pub(crate) const ROOT: &str = r#"
set -e
bind() {
    mount --rbind "$1" "$2"
    # In a user namespace this may be refused; there the files' owners keep us from writing.
    mount -o remount,bind,ro "$2" 2>/dev/null || :
}
assemble() {
    mkdir -p dev etc opt/etcd proc root run sys tmp usr .old
    chmod 1777 tmp
    chmod 700 root
    bind /usr usr
    for d in bin sbin lib lib32 lib64 libx32; do
        if [ -L /$d ]; then cp -P /$d $d; elif [ -d /$d ]; then mkdir $d; bind /$d $d; fi
    done
    mount --rbind /dev dev
    mount -t proc proc proc
    : >opt/etcd/etcd
    : >opt/etcd/etcdctl
}
move_in() {
    pivot_root . .old
    cd /
    umount -l /.old
    rmdir /.old
}
"#;

/// PID 1 of a node. Arguments: name, mount point, etcd, etcdctl, then pairs of directories or files to share.
const NODE: &str = r#"
read -r pid _ </proc/self/stat
name=$1 etcd=$3 etcdctl=$4
mount -t tmpfs -o mode=755 "$name" "$2"
cd "$2"
shift 4
assemble
# The services of the machine are none of the node's.
for d in usr/lib usr/local/lib lib; do
    if [ ! -L $d ] && [ -d $d/systemd/system ]; then
        mount -t tmpfs -o mode=755 units $d/systemd/system
    fi
done
mkdir -p home var/lib/etcd var/log var/tmp
chmod 700 var/lib/etcd
bind "$etcd" opt/etcd/etcd
bind "$etcdctl" opt/etcd/etcdctl
while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p ".$2"; else mkdir -p ".${2%/*}"; : >".$2"; fi
    bind "$1" ".$2"
    shift 2
done
if [ -e opt/lab/bin/helper ]; then
    for part in kubelet systemctl systemd writer; do ln -s helper opt/lab/bin/$part; done
fi
for f in ld.so.cache os-release ssl/certs/ca-certificates.crt; do
    to=etc/$f
    if [ -f "/etc/$f" ]; then mkdir -p "${to%/*}"; cp -L "/etc/$f" "$to"; fi
done
hostname "$name"
move_in
echo "$pid"
exec -a /sbin/init sleep infinity
"#;

/// Plugs nodes into the bridge. Arguments: pairs of process number and address.
const CONNECT: &str = r#"
set -e
while [ $# -gt 0 ]; do
    net=/proc/$1/ns/net port=port${2##*.}
    ip link add "$port" type veth peer name eth0 netns "$net"
    ip link set "$port" master br0 up
    nsenter --net="$net" ip -batch - <<END
link set lo up
address add $2/24 dev eth0
link set eth0 up
END
    shift 2
done
"#;
