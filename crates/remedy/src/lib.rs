//! Plans, checks, carries out and rolls back changes of a node.
//!
//! * [`plan`]: what would be done, as a document: typed steps, each with [`condition`]s before and after it.
//! * [`subject`]: the instance that is planned for, taken from a snapshot.
//! * [`input`]: what a plan is made from; [`planner`](self) makes its parts.
//! * [`fixes`]: the rules with a fix. Those that take several rounds through a cluster are in `rollouts`.
//! * [`order`]: whether a sequence of changes keeps every two members able to dial each other.
//! * [`preflight`](mod@preflight): why a plan must not be carried out.
//! * [`history`]: the fixes of this node, by their records.
//! * [`rollback`]: the plan that undoes a fix.
//! * [`executor`]: carries plans out, the only place where a fix changes something.
//! * [`manual`]: what a person types to do the same by hand.
//! * [`world`]: what all this needs of the world, and [`node`]: the real one.
//! * [`progress`]: what a member publishes in etcd, so that the others know how far it is.
//! * [`issue`] and [`supplied`]: certificates and signing requests, made here or elsewhere.
//!
//! Architecture invariant: `fixes`, `rollouts`, `preflight`, `order` and `rollback` change nothing; no byte of a private key
//! in any message, diff, plan or `Debug` output.

pub mod condition;
pub mod executor;
pub mod fixes;
pub mod history;
pub mod input;
pub mod issue;
pub mod manual;
pub mod node;
pub mod order;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod rollback;
pub mod subject;
pub mod supplied;
pub mod world;

mod material;
mod planner;
mod rollouts;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;

pub use rollouts::etcd::peers::bundled;
pub use rollouts::etcd::request::{RequestFiles, Signed, request_files, sign};
