//! What etcd's inputs mean.
//!
//! Bytes in, evidence out: arguments, environment and configuration file become
//! [`settings`](settings::resolve) by etcd's own precedence, release by release; a process becomes a [server
//! or a proxy](process::recognise); the data directory becomes a [membership](bbolt::membership), and so does
//! [what a listener answers](members::members). etcd is modelled as it behaves, also where that surprises:
//! each surprise was tried on real releases.
//!
//! Architecture invariant: no I/O of its own. What must be read is read by the caller, through the closures
//! that it passes in.

pub mod bbolt;
pub mod members;
pub mod process;
pub mod proxy;
pub mod settings;

mod version;

pub use version::Version;

use seaworthy_evidence::{Url, without_userinfo};

/// Returns the URL in `text`; one that cannot be taken apart keeps its text, its scheme and an empty host.
fn url(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|| Url {
        text: without_userinfo(text.trim()).into_owned(),
        scheme: text.trim().split_once("://").map_or_else(String::new, |(s, _)| s.to_ascii_lowercase()),
        host: String::new(),
        port: None,
    })
}
