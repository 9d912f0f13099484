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
//! A cluster is one *switch*: a process that is PID 1 of a PID namespace and owns a network namespace with a
//! bridge. A node is another set of namespaces (PID, mount, network, UTS, IPC, cgroup) below it, with an
//! address on that bridge, its own `/proc`, and a host root on a tmpfs: the machine's `/usr` read-only and
//! without the units of its services, and an `/etc`, `/var` and `/run` of its own, laid out as kubeadm does.
//! What runs in a node sees that node alone. Two clusters use the same addresses and never meet; the machine's
//! own network is not touched. Data directories are in memory too: about 130 MB for each member, which is what
//! etcd preallocates for its log.
//!
//! As root nothing else is needed; otherwise everything happens in a user namespace, if the kernel grants
//! one. The namespaces are made by `unshare`, `nsenter`, `pivot_root` (util-linux), `ip` (iproute2),
//! `hostname` and `bash`, which every Debian has.
//!
//! # Who runs etcd
//!
//! By default the test itself does. With [`Supervisor::Kubelet`] or [`Supervisor::Units`] a stand-in for
//! kubelet or systemd runs inside the node, and etcd is whatever the manifest or unit on the node says, so
//! that a program under test can change it there as it would on a real machine:
//!
//! ```no_run
//! # fn main() -> Result<(), seaworthy_lab::Error> {
//! # use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, MANIFEST, Supervisor};
//! # let binary = EtcdBinary::required()?.remove(0);
//! let cluster = Cluster::start(ClusterSpec::new(&binary).each(|m| {
//!     m.plain();
//!     m.supervisor = Supervisor::Kubelet;
//! }))?;
//! let writer = cluster.writer()?; // writes and reads back through all members from now on
//! let node = cluster.node(cluster.leader()?);
//! let before = node.etcd_pid();
//! node.edit(MANIFEST, |text| text.replace("--snapshot-count=10000", "--snapshot-count=500"))?;
//! node.wait_restarted(before)?;
//! let report = writer.finish()?;
//! assert!(report.clean(), "{report:?}");
//! println!("{} writes, longest gap {} ms", report.acks, report.longest_gap_ms);
//! # Ok(()) }
//! ```
//!
//! However it is started, it shows who would have started it: in `/proc/PID/cgroup` it is in the group of a
//! pod or of a unit, whichever the files of the node declare, and a pod has its folder in `/var/log/pods`. What
//! a test starts by itself ([`Node::spawn`]) is in the root group, unless it says otherwise
//! ([`Program::group`]).
//!
//! # What can be broken
//!
//! A node's link can be cut, slowed down or made deaf to one other node, its disks can be full or read-only,
//! its etcd killed and its supervisor paused; see the methods of [`Node`] and [`Cluster::cut`]. Clocks cannot
//! be set: see [`Validity::Ahead`].
//!
//! # How it ends
//!
//! The switch reads from a pipe that only the test holds. Dropping the [`Cluster`], or the death of the test
//! in any way, closes it; the switch exits, and the kernel kills every process of its PID namespace and frees
//! its mounts. There is no temporary directory that could stay behind.

mod binary;
mod cluster;
mod error;
mod fault;
mod helper;
mod node;
mod pki;
mod program;
mod space;
mod spec;
mod trace;
mod watch;
mod writer;

pub use binary::{EtcdBinary, Installed, Package, apt, cache, embedder, install};
pub use cluster::{Cluster, Member};
pub use error::Error;
#[doc(hidden)]
pub use helper::helper;
pub use node::{Node, Process};
pub use pki::{Authority, Certificate, KeyKind, Leaf, Usage, Validity};
pub use program::Program;
pub use space::listens;
pub use spec::{
    ClusterSpec, Declared, ENVIRONMENT_FILE, MANIFEST, MemberSpec, PKI_DIR, Ready, Source, Supervisor, UNIT,
};
pub use watch::{Apart, Watched};
pub use writer::{Gap, MemberContent, Report, Status, Writer, WriterSpec};
