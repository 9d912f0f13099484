//! Surveys a node: who runs, what declares it, what it is set to, what its listeners say, put together into a snapshot.
//!
//! * [`kubelet`] and [`manifest`]: what static pods declare.
//! * [`kubeconfig`]: who somebody is with one. [`runtime`]: where CNI configuration is.
//! * [`collect`]: the survey.
//!
//! Architecture invariant: nothing here runs a program or a shell. What is read is capped in size, never assumed
//! to be UTF-8, and an error is evidence ([`EvidenceError`](seaworthy_evidence::EvidenceError)), not an abort.

pub mod kubeconfig;
pub mod kubelet;
pub mod manifest;

pub mod runtime;
mod survey;
mod yaml;

pub use survey::{Options, PATIENCE, collect};
