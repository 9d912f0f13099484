//! Real etcd clusters for tests and the demo: each member on a Linux node of its own, in any TLS arrangement.
//!
//! ```no_run
//! # fn main() -> Result<(), seaworthy_lab::Error> {
//! use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, Leaf, Source, Usage};
//!
//! let binary = EtcdBinary::required()?.remove(0);
//! let spec = ClusterSpec::new(&binary).members(3).share("target/debug", "/host-bin").each(|m| {
//!     m.source = Source::Yaml; // the settings go into a file instead of onto the command line
//!     if m.index == 2 {
//!         m.set("listen-peer-urls", m.peer_url("http"));
//!         m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Server));
//!     }
//! });
//! let cluster = Cluster::start(spec)?;
//! cluster.put("key", "value")?;
//! let report = cluster.node(0).run("/host-bin/seaworthy", ["audit", "-f", "json"])?;
//! # Ok(()) }
//! ```
//!
//! # How a node is made
//!
//! A cluster is one *switch*: a process that is PID 1 of a PID namespace and owns a network namespace with a bridge.
//! A node is another set of namespaces (PID, mount, network, UTS, IPC) below it, with an address on that bridge, its
//! own `/proc`, and a host root on a tmpfs: the machine's `/usr` read-only, and an `/etc`, `/var` and `/run` of its
//! own, laid out as kubeadm does. What runs in a node sees that node alone. Two clusters use the same addresses and
//! never meet; the machine's own network is not touched. Data directories are in memory too: about 130 MB for each
//! member, which is what etcd preallocates for its log.
//!
//! As root nothing else is needed; otherwise everything happens in a user namespace, if the kernel grants one. The
//! namespaces are made by `unshare`, `nsenter`, `pivot_root` (util-linux), `ip` (iproute2), `hostname` and `bash`,
//! which every Debian has.
//!
//! # How it ends
//!
//! The switch reads from a pipe that only the test holds. Dropping the [`Cluster`], or the death of the test in any
//! way, closes it; the switch exits, and the kernel kills every process of its PID namespace and frees its mounts.
//! There is no temporary directory that could stay behind.

mod binary;
mod cluster;
mod error;
mod node;
mod pki;
mod space;
mod spec;

pub use binary::{EtcdBinary, Installed, Package, install};
pub use cluster::{Cluster, Member};
pub use error::Error;
pub use node::{Node, Process, Program};
pub use pki::{Authority, Certificate, KeyKind, Leaf, Usage, Validity};
pub use spec::{ClusterSpec, Declared, MANIFEST, MemberSpec, PKI_DIR, Ready, Source};
