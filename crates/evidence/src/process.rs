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
    /// argv[0], lossily decoded.
    pub argv0: String,
    /// When it was started (proc(5): field 22 of stat, plus the boot time).
    pub started_at: Timestamp,
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
