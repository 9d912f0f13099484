//! The operations on a live etcd that a fix needs: members, health, leadership, hashes, snapshots, keys and a
//! lock.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use seaworthy_etcd_api::{Client, Lock, Security, Timeouts};
//!
//! let security = Security::tls(&std::fs::read("ca.crt")?, None)?;
//! let endpoints = ["https://10.0.0.1:2379".parse()?, "https://10.0.0.2:2379".parse()?];
//! let client = Client::new(endpoints, security, Timeouts::default())?;
//! let lock = Lock::acquire(&client, "fix", "node 1", Duration::from_secs(15), Duration::from_secs(60))?;
//! for member in client.members()? {
//!     lock.confirm()?;
//!     client.update_member(member.id, &["https://10.0.0.1:2380"])?;
//! }
//! # Ok(()) }
//! ```
//!
//! # How calls are made
//!
//! **Every call blocks, and makes a connection of its own.** A fix makes few calls, restarts the servers that
//! it talks to, and must not be told about them over a connection that outlived a change. So there is no
//! state to be stale: a [`Client`] is what to connect to and as whom, and can be cloned and shared. Inside,
//! one call runs on a current-thread runtime that ends with it; nothing of that shows outside. Do not call
//! from a thread that runs an async runtime itself.
//!
//! **What was not done is told from what may have been done.** A connection counts as made once the server
//! has answered an HTTP/2 ping, which it does only after it has accepted the client's certificate (in TLS 1.3
//! a refusal comes after the handshake). An error before that means that nothing was sent, and the next
//! endpoint is tried; after it a call that changes something is never repeated, and
//! [`Error::may_have_happened`] says so.
//!
//! **No leader is said at once**: calls that need one carry etcd's `hasleader` metadata, so a member without
//! a leader refuses ([`Error::NoLeader`]) instead of letting the deadline pass.
//!
//! The wire format is HTTP/2 and a handful of protobuf messages, written down here (`message.rs`) with the
//! tags of etcd's `rpc.proto`. A gRPC library would decode the server's trailers with code that can panic on
//! them, hide why a TLS handshake failed, and bring some 25 crates more.

mod client;
mod endpoint;
mod error;
mod grpc;
mod lock;
mod message;
mod snapshot;

pub use client::{Alarm, AlarmKind, Client, Condition, HashKv, KeyValue, Member, Status, Timeouts};
pub use endpoint::{Endpoint, Identity, Security};
pub use error::{Error, Place};
pub use lock::Lock;
pub use snapshot::SnapshotInfo;
