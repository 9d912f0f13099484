//! A Linux node as it can be read, by whoever runs on it.
//!
//! * [`root`]: the one safe way to open a file, below the host's root or as a process sees it.
//! * [`access`]: what a process may do with a file.
//! * [`procfs`] and [`sockets`]: processes and what they listen on and talk to.
//! * [`cgroup`]: who runs a process.
//! * [`systemd`] and [`shell`]: what units start, and the words of a shell in them.
//! * [`mounts`]: where the host has what a process sees elsewhere.
//! * [`machine`]: what the running kernel says of the host.
//! * [`program`]: what an executable is, by what it says of itself.
//! * [`users`]: names of owners, from the node's own passwd and group.
//!
//! Architecture invariant: nothing here runs a program or a shell, and nothing here knows of any component. What is read is
//! capped in size, never assumed to be UTF-8, and an error is evidence
//! ([`EvidenceError`](seaworthy_evidence::EvidenceError)), not an abort.

pub mod access;
pub mod cgroup;
pub mod machine;
pub mod mounts;
pub mod procfs;
pub mod program;
pub mod root;
pub mod shell;
pub mod sockets;
pub mod systemd;
pub mod users;

mod sock_diag;
