//! Changes a node safely.
//!

//! * [`issue`]: certificates and signing requests, checked before they are handed out.

//! * [`order`]: whether a sequence of changes keeps every two members able to dial each other.
//! * [`plan`] and [`planner`]: what would be done, as a document, made from what is known.
//! * [`note`]: what a member leaves word of in etcd, so that the others know how far it is.
//! * [`node`]: the member, its files and its cluster as they are now.
//! * [`supplied`]: certificates that come from elsewhere, as facts.
//! * [`lint`]: why a plan must not be carried out.
//!
//! Architecture invariant: an edit does exactly what it says or is refused; killed at any instant, no file is
//! half-written; no byte of a private key in any message, diff or `Debug` output.

pub mod apply;
pub mod issue;
pub mod lint;
pub mod node;
pub mod note;
pub mod order;
pub mod plan;
pub mod planner;
pub mod supplied;
pub mod way_back;
