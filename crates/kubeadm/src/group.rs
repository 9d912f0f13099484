//! The control group that everything of a node is in, from the first process to the last container.
//!
//! It is how the node is found again by whoever did not start it, and how all of it is ended. No file says so that could be stale.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to go, and their groups after them.
const END: Duration = Duration::from_secs(30);

/// Makes a shell a member of groups, and then another program. Arguments: the number of folders, the folders, the program and its
/// arguments. systemd removes groups that it does not know while they are empty, so they are made each time.
const JOIN: &str = r#"
n=$1
shift
while [ "$n" -gt 0 ]; do
    mkdir -p "$1" && echo $$ >"$1/cgroup.procs" || exit 1
    shift
    n=$((n - 1))
done
exec "$@"
"#;

/// A control group, in every hierarchy that the machine has.
pub(crate) struct Group {
    hierarchies: Vec<Hierarchy>,
    name: String,
}

/// One mounted hierarchy of control groups.
struct Hierarchy {
    path: PathBuf,
    /// What mounts it, or nothing for the one of version 2.
    options: Option<String>,
}

impl Group {
    /// Returns the group of the node that has its files in `home`, whether there is one or not.
    pub(crate) fn of(home: &Path) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        let hierarchies = hierarchies(&mounts);
        anyhow::ensure!(
            !hierarchies.is_empty(),
            "no control groups with the controllers cpu, memory and pids are mounted below /sys/fs/cgroup: the node needs a machine, \
             or a privileged container, that has them"
        );
        let home = home.to_string_lossy();
        Ok(Self { hierarchies, name: format!("seaworthy-{}", home.trim_matches('/').replace('/', "-")) })
    }

    /// Returns for each hierarchy what mounts it in the node: a folder's name, and options.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let words = |hierarchy: &Hierarchy| {
            let name = hierarchy.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            hierarchy.options.clone().map_or(vec!["unified".to_owned()], |options| vec![name, options])
        };
        self.hierarchies.iter().flat_map(words).collect()
    }

    /// Makes the group.
    pub(crate) fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            if hierarchy.options.is_none() {
                let all = "+cpu +cpuset +io +memory +pids";
                fs::write(hierarchy.path.join("cgroup.subtree_control"), all)
                    .context("cannot pass the controllers of control groups on to the node's group")?;
            }
            let group = hierarchy.path.join(&self.name);
            fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // A group of version 1 has neither CPUs nor memory until somebody says so.
                if hierarchy.options.is_some() && group.join(file).exists() {
                    fs::write(group.join(file), fs::read(hierarchy.path.join(file))?)?;
                    fs::write(group.join("cgroup.clone_children"), "1")?;
                }
            }
        }
        Ok(())
    }

    /// Returns a command that runs a program as a member of the group, or of a group below it.
    pub(crate) fn join<S: AsRef<OsStr>>(&self, below: &str, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "join"]).arg(self.hierarchies.len().to_string());
        command.args(self.folders().map(|folder| folder.join(below)));
        command.args(words);
        command
    }

    /// Returns the number of the node's PID 1, if the node runs.
    pub(crate) fn init(&self) -> Option<u32> {
        self.pids().into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            // A container's own PID 1 has a third number, between the machine's and its own.
            numbers.split_ascii_whitespace().skip(1).eq(["1"])
        })
    }

    /// Returns every process of the group and of those below it.
    pub(crate) fn pids(&self) -> BTreeSet<u32> {
        let mut pids = BTreeSet::new();
        for folder in self.folders() {
            walk(&folder, &mut |folder| {
                let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                pids.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
            });
        }
        pids.remove(&0); // what another PID namespace has here
        pids
    }

    /// Kills every process of the group, PID 1 first, because the kernel ends its namespace with it; then removes the group.
    /// Returns whether there was anything.
    pub(crate) fn end(&self) -> Result<bool> {
        let was = self.folders().any(|folder| folder.exists());
        let start = Instant::now();
        while self.folders().any(|folder| folder.exists()) {
            for pid in self.init().into_iter().chain(self.pids()) {
                if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                    let _ = kill_process(pid, Signal::KILL); // it may have gone by itself
                }
            }
            for folder in self.folders() {
                walk(&folder, &mut |folder| drop(fs::remove_dir(folder)));
            }
            anyhow::ensure!(
                start.elapsed() < END,
                "processes {:?} of the node do not end, or its control group {} cannot be removed",
                self.pids(),
                self.name
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(was)
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.path.join(&self.name))
    }
}

/// Visits the folders below one, deepest first, and it.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
    visit(folder);
}

/// Reads from `/proc/PID/mountinfo` where the hierarchies of control groups are. Version 2 counts only without those of version 1:
/// beside them it has no controllers.
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str, wanted: &str| {
        let (front, back) = line.split_once(" - ")?;
        let path = PathBuf::from(front.split(' ').nth(4)?);
        let kind = back.split(' ').next()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        let options = match name.as_str() {
            "systemd" => "none,name=systemd".to_owned(),
            _ => name,
        };
        let options = (kind == "cgroup").then_some(options);
        (kind == wanted && path.starts_with("/sys/fs/cgroup")).then_some(Hierarchy { path, options })
    };
    let all = |wanted: &str| -> Vec<Hierarchy> {
        mounts.lines().filter_map(|line| hierarchy(line, wanted)).collect()
    };
    let has = |all: &[Hierarchy], controller: &str| {
        let of = |h: &Hierarchy| {
            let options = h.options.clone();
            options.or_else(|| fs::read_to_string(h.path.join("cgroup.controllers")).ok()).unwrap_or_default()
        };
        all.iter().any(|h| of(h).split([',', ' ', '\n']).any(|word| word == controller))
    };
    let complete = |all: &Vec<Hierarchy>| ["cpu", "memory", "pids"].iter().all(|one| has(all, one));
    [all("cgroup"), all("cgroup2")].into_iter().find(complete).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_version_1_are_mounted_again_as_they_are() {
        let mounts = "\
30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 29 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 29 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 29 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 29 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 29 0:31 / /mnt/other rw,relatime - cgroup cgroup rw,devices
";
        let group = Group { hierarchies: hierarchies(mounts), name: "x".into() };
        assert_eq!(
            group.mounts(),
            [
                "cpu,cpuacct",
                "cpu,cpuacct",
                "memory",
                "memory",
                "pids",
                "pids",
                "systemd",
                "none,name=systemd"
            ]
        );
    }

    #[test]
    fn a_machine_without_controllers_has_no_hierarchies() {
        assert!(hierarchies("34 29 0:30 / /sys/fs/cgroup/nowhere rw - cgroup2 cgroup2 rw\n").is_empty());
        assert!(hierarchies("").is_empty());
    }
}
