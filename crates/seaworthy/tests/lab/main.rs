//! Seaworthy on real etcd clusters, each member on a node of its own.
//!
//! `cargo xtask lab` gets the etcd versions that these tests need; a missing one is an error, never a skip.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod access;
mod advice;
mod canary;
mod common;
mod fix_apply;
mod fix_by_hand;
mod fix_fault;
mod fix_kill;
mod fix_plan;
mod fix_records;
mod fix_rollback;
mod fix_rules;
mod fix_signals;
mod hostile;
mod identity;
mod oracle;
mod trust;
mod truth_table;
