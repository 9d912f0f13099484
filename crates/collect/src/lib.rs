//! Reads a Linux node: the primitives from which a snapshot is put together.
//!
//! * [`root`]: the one safe way to open a file, below the host's root or as a process sees it.
//! * [`procfs`] and [`sockets`]: processes and what they listen on and talk to.
//! * [`cgroup`]: who runs a process.
//! * [`kubelet`], [`manifest`] and [`systemd`]: what is declared to run.
//! * [`machine`]: what the running kernel says of the host.
//! * [`program`]: what an executable is, by what it says of itself.
//! * [`users`]: names of owners, from the node's own passwd and group.
//!
//! Architecture invariant: nothing here runs a program or a shell. What is read is capped in size, never assumed
//! to be UTF-8, and an error is evidence ([`EvidenceError`](seaworthy_evidence::EvidenceError)), not an abort.

pub mod cgroup;
pub mod kubelet;
pub mod machine;
pub mod manifest;
pub mod procfs;
pub mod program;
pub mod root;
pub mod shell;
pub mod sockets;
pub mod systemd;
pub mod users;

mod access;
mod declared;
mod sock_diag;
mod survey;
mod yaml;

pub use declared::{Argument, Variable, may_be_shown};
pub use survey::{Options, PATIENCE, collect};
