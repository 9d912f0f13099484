//! What runs in a node, and how it is started: on the node itself or in a container.

use std::{collections::BTreeMap, ffi::OsString};

use crate::space::ROOT;

/// A program to start in a node.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program, looked up in the node.
    pub path: OsString,
    /// What it is told to be called, if not its path. Any bytes but NUL, as in the arguments.
    pub argv0: Option<OsString>,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment, beside `PATH`, `HOME` and what bash adds (`PWD`, `SHLVL`, `_`).
    pub env: BTreeMap<OsString, OsString>,
    /// The user it runs as. Other than 0 needs real root.
    pub uid: u32,
    /// The file in the node to which it prints.
    pub log: String,
    /// The control group that `/proc` shows it in; the root group without one. The lab makes no groups.
    pub group: Option<String>,
    /// Directories of the node, and where a container has them. If there are any, the program runs in mount
    /// and PID namespaces of its own with a root directory that has only these, as kubelet would start it.
    pub mounts: Vec<(String, String)>,
    /// Those of the mounts, by their place in the container, that it cannot write to.
    pub read_only: Vec<String>,
}

impl Program {
    /// Returns a program without arguments that runs as root, on the node itself.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self {
            path: path.into(),
            argv0: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            uid: 0,
            log: "/dev/null".into(),
            group: None,
            mounts: Vec::new(),
            read_only: Vec::new(),
        }
    }

    /// Sets `argv[0]`.
    pub fn argv0(mut self, name: impl Into<OsString>) -> Self {
        self.argv0 = Some(name.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the user and group number.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    /// Sets the file to which it prints.
    pub fn log(mut self, path: impl Into<String>) -> Self {
        self.log = path.into();
        self
    }

    /// Sets the control group that `/proc` shows it in.
    pub fn group(mut self, path: impl Into<String>) -> Self {
        self.group = Some(path.into());
        self
    }

    /// Returns the command line that makes the container, if there is one, prints the program's process
    /// number on a line, and becomes the program. It is to be run on the node with this program's
    /// environment.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if !self.mounts.is_empty() {
            words.extend(["unshare", "--mount", "--pid", "--fork", "--kill-child"].map(Into::into));
        }
        words.extend(["bash", "-c", &format!("{ROOT}{SPAWN}"), "spawn", &self.log].map(Into::into));
        words.push(self.group.clone().unwrap_or_default().into());
        words.extend([self.uid.to_string().into(), self.mounts.len().to_string().into()]);
        for (from, to) in &self.mounts {
            let access = if self.read_only.contains(to) { "ro" } else { "rw" };
            words.extend([from, to, access].map(Into::into));
        }
        words.push(self.argv0.as_ref().unwrap_or(&self.path).clone());
        words.push(self.path.clone());
        words.extend(self.args.iter().cloned());
        words
    }
}

/// Starts a program. Arguments: log, control group, user, number of mounts, triples of mounts (from, to, `ro` or
/// `rw`), `argv[0]`, program, its arguments. The group is shown on the node, whose `/proc` this still is, before
/// anybody is told that the process exists; it goes with the process.
const SPAWN: &str = r#"
read -r pid _ </proc/self/stat
if [ -n "$2" ]; then
    mkdir -p /run/lab/groups
    echo "0::$2" >"/run/lab/groups/$pid"
    nsenter --target 1 --mount mount --bind "/run/lab/groups/$pid" "/proc/$pid/cgroup"
fi
echo "$pid"
exec >>"$1" 2>&1
uid=$3 mounts=$4
shift 4
if [ "$mounts" -gt 0 ]; then
    root=/run/container
    mkdir -p $root
    mount -t tmpfs -o mode=755 container $root
    cd $root
    assemble
    cp -P /etc/passwd /etc/group /etc/hosts /etc/nsswitch.conf etc/
    cp -P /etc/ld.so.cache etc/ 2>/dev/null || :
    bind /opt/etcd/etcd opt/etcd/etcd
    bind /opt/etcd/etcdctl opt/etcd/etcdctl
    while [ "$mounts" -gt 0 ]; do
        if [ -d "$1" ]; then mkdir -p ".$2"; else mkdir -p ".${2%/*}"; : >>".$2"; fi
        mount --bind "$1" ".$2"
        if [ "$3" = ro ]; then mount -o remount,bind,ro ".$2"; fi
        shift 3
        mounts=$((mounts - 1))
    done
    move_in
fi
start='exec -a "$0" "$@"'
if [ "$uid" -ne 0 ]; then
    exec setpriv --reuid="$uid" --regid="$uid" --clear-groups bash -c "$start" "$@"
fi
exec bash -c "$start" "$@"
"#;
