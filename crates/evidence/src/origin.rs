//! Where a fact was observed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The place a fact comes from, precise enough to look at it again by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("x-opaque" = true))]
pub enum Origin {
    /// One argument of a process.
    Argv {
        /// Process id, in the process namespace of the audit.
        pid: u32,
        /// Index into argv, 0 being the program itself.
        index: u32,
    },
    /// One environment variable of a process.
    Environment {
        /// Process id.
        pid: u32,
        /// Name of the variable.
        name: String,
    },
    /// A file, or a place in it.
    File {
        /// The path: below the audited root, or, with `pid`, as that process sees it.
        path: String,
        /// The process whose root the path is relative to; null for the host.
        #[serde(default)]
        pid: Option<u32>,
        /// 1-based line.
        #[serde(default)]
        line: Option<u32>,
        /// 1-based column.
        #[serde(default)]
        column: Option<u32>,
    },
    /// A value compiled into the component.
    Default {
        /// The component, for example `etcd`.
        component: String,
        /// Its version, when the default depends on it.
        #[serde(default)]
        version: Option<String>,
    },
    /// What the executable of a process says that it was built from.
    Build {
        /// Process id.
        pid: u32,
    },
    /// The kernel's view under `/proc`.
    Proc {
        /// The path, for example `/proc/812/net/tcp`.
        path: String,
    },
    /// An answer on a network socket.
    Wire {
        /// The address that was asked, `host:port`.
        address: String,
        /// What was asked, for example `GET /members` or `TLS handshake`.
        asked: String,
    },
    /// A conclusion that Seaworthy drew from other evidence.
    Derived {
        /// What it was drawn from, in words.
        from: String,
    },
}

impl Origin {
    /// Returns the origin of a whole file on the host.
    pub fn file(path: impl Into<String>) -> Self {
        Self::File { path: path.into(), pid: None, line: None, column: None }
    }

    /// Returns the origin of a whole file as process `pid` sees it.
    pub fn process_file(pid: u32, path: impl Into<String>) -> Self {
        Self::File { path: path.into(), pid: Some(pid), line: None, column: None }
    }

    /// Returns the origin at `line` and `column` (1-based) of the same file; other origins are unchanged.
    pub fn at(self, line: u32, column: u32) -> Self {
        match self {
            Self::File { path, pid, .. } => Self::File { path, pid, line: Some(line), column: Some(column) },
            other => other,
        }
    }

    /// Returns the origin of something under `/proc`.
    pub fn proc(path: impl Into<String>) -> Self {
        Self::Proc { path: path.into() }
    }

    /// Returns the origin of an answer from `address` to the question `asked`.
    pub fn wire(address: impl Into<String>, asked: impl Into<String>) -> Self {
        Self::Wire { address: address.into(), asked: asked.into() }
    }

    /// Returns the origin of a conclusion drawn `from` other evidence.
    pub fn derived(from: impl Into<String>) -> Self {
        Self::Derived { from: from.into() }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argv { pid, index } => write!(f, "argv[{index}] of pid {pid}"),
            Self::Environment { pid, name } => write!(f, "variable {name} of pid {pid}"),
            Self::File { path, pid, line, column } => {
                f.write_str(path)?;
                if let (Some(line), Some(column)) = (line, column) {
                    write!(f, ":{line}:{column}")?;
                }
                match pid {
                    Some(pid) => write!(f, " as pid {pid} sees it"),
                    None => Ok(()),
                }
            }
            Self::Default { component, version: None } => write!(f, "the default of {component}"),
            Self::Default { component, version: Some(version) } => {
                write!(f, "the default of {component} {version}")
            }
            Self::Build { pid } => write!(f, "the build information of /proc/{pid}/exe"),
            Self::Proc { path } => f.write_str(path),
            Self::Wire { address, asked } => write!(f, "the wire ({asked} to {address})"),
            Self::Derived { from } => f.write_str(from),
        }
    }
}
