//! Surveys a node: who runs, what declares it, what it is set to, what its listeners say, put together into a snapshot.
//!
//! * [`kubelet`] and [`manifest`]: what static pods declare.
//! * [`collect`]: the survey.
//!
//! Architecture invariant: nothing here runs a program or a shell. What is read is capped in size, never assumed
//! to be UTF-8, and an error is evidence ([`EvidenceError`](seaworthy_evidence::EvidenceError)), not an abort.

pub mod kubelet;
pub mod manifest;

mod places;
mod survey;
mod yaml;

use seaworthy_evidence::{EvidenceError, Snapshot};
use seaworthy_host::procfs::Proc;
use seaworthy_host::root::Root;

pub use survey::{Options, PATIENCE};

/// Returns all the evidence of this node. What cannot be observed becomes part of it.
///
/// # Errors
///
/// When the root folder itself cannot be opened, or is that of no host because it has no `/etc`.
pub fn collect(options: &Options) -> Result<Snapshot, EvidenceError> {
    let mut snapshot = survey::collect(options)?;
    if let Ok(root) = Root::host(&options.root)
        && let Ok(proc) = Proc::of_host(&root)
    {
        places::fill(&mut snapshot, &root, &proc);
    }
    Ok(snapshot)
}
