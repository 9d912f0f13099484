//! A running process.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Observed;

/// One process, as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Process id in the process namespace of the audit.
    pub pid: u32,
    /// What `/proc/PID/exe` points at.
    pub exe: Observed<String>,
    /// What the executable says that it was built from; null where it does not say, and in a snapshot of a version that did
    /// not collect it.
    pub build: Option<Build>,
    /// argv[0], lossily decoded.
    pub argv0: String,
    /// Which process it is, whatever the clock says; null in a snapshot of a version that did not collect it.
    pub identity: Option<ProcessId>,
    /// When it was started (proc(5): field 22 of stat, plus the boot time), for display. It moves when the clock is set,
    /// so [`Process::identity`] tells whether two looks saw the same process.
    pub started_at: Timestamp,
    /// A file whose time is later than this was changed after the start. It is later than `started_at` by what the clock
    /// of the node may have been set back since it was booted. Null in a snapshot of a version that did not collect it.
    pub started_before: Option<Timestamp>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Name of the user in the host's passwd; null when it has none.
    pub user: Option<String>,
    /// Container id from its control group; null outside containers.
    pub container: Option<String>,
    /// Whether its mount namespace is not the one of the audit; null when it could not be compared.
    pub own_mounts: Option<bool>,
    /// Whether its network namespace is not the one of the audit; null when it could not be compared.
    pub own_network: Option<bool>,
}

/// What a Go program was built from, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The package, which tells which program it is whatever it is called: `go.etcd.io/etcd/server/v3`.
    pub package: String,
    /// The version of that package's module; `(devel)` where the build did not know it, null where it names no module.
    pub version: Option<String>,
}

/// What tells one process from every other that ever ran on the node, as one reader of `/proc` sees it.
///
/// No wall clock is in it. A process id and a start time belong together in one process namespace and one time namespace
/// (pid_namespaces(7), time_namespaces(7)): readers in other namespaces see other numbers for the same process, and each of
/// them always the same. So identities are compared only with those that were read from the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The boot of the kernel it runs under (proc(5): `/proc/sys/kernel/random/boot_id`). Empty when it could not be read,
    /// as in a container that hides `/proc/sys`; then the other two tell processes of one boot apart, and two boots are not
    /// told apart.
    pub boot_id: String,
    /// Process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot as the kernel prints it (proc(5): field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_an_older_snapshot_has_no_identity() {
        let older = r#"{"pid": 7, "exe": {"value": "/etcd", "origin": {"kind": "proc", "path": "/proc/7/exe"}},
            "argv0": "etcd", "started_at": "2026-01-01T00:00:00Z", "uid": 0, "gid": 0, "user": null, "container": null,
            "own_mounts": false, "own_network": false}"#;
        let process: Process = serde_json::from_str(older).unwrap();
        assert_eq!((process.pid, process.identity, process.started_before), (7, None, None));

        let newer = older.replace(
            r#""uid""#,
            r#""identity": {"boot_id": "", "pid": 7, "start_ticks": 9}, "started_before": null, "uid""#,
        );
        let identity = serde_json::from_str::<Process>(&newer).unwrap().identity;
        assert_eq!(identity, Some(ProcessId { boot_id: String::new(), pid: 7, start_ticks: 9 }));
    }
}
