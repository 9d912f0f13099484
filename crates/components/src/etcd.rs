//! etcd: what its inputs mean.
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
pub mod settings;

mod version;

pub use version::Version;

use seaworthy_evidence::{Url, without_userinfo};

use crate::{Component, Program, etcd_proxy};

/// etcd servers.
pub static COMPONENT: Component = Component {
    name: "etcd",
    of_control_plane: true,
    special: Some(("etcd", "Etcd")),
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of etcd servers.
pub static PROGRAM: Program = Program {
    package: None,
    is_called: process::is_etcd,
    is_other: etcd_proxy::is_one,
    unit: "etcd.service",
    variable: Some(settings::variable_name),
    config: Some("config-file"),
    files: &READ_FILES,
    kubeconfigs: &[],
    folder: Some("/etc/kubernetes/pki/etcd"),
    data: &DATA_FILES,
    resolve: settings::of,
    listens: |_| Vec::new(),
    credentials: &[],
    special: None,
};

/// What etcd needs of its data directory: to read, write and search it.
const DATA: u32 = 7;
/// What etcd keeps in the directories of its data.
const DATA_FILES: [(&str, &str, u32); 6] = [
    ("data-dir", "", DATA),
    ("data-dir", "/member", DATA),
    ("data-dir", "/member/snap", DATA),
    ("data-dir", "/member/snap/db", 6),
    ("data-dir", "/member/wal", DATA),
    ("wal-dir", "", DATA),
];

/// The etcd settings that Seaworthy models, by flag name. All others are left out of a snapshot.
pub const SETTINGS: &[&str] = &[
    "advertise-client-urls",
    "auto-tls",
    "cert-file",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-cert-auth",
    "client-cert-file",
    "client-crl-file",
    "client-key-file",
    "data-dir",
    "discovery-srv",
    "experimental-peer-skip-client-san-verification",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "key-file",
    "listen-client-http-urls",
    "listen-client-urls",
    "listen-metrics-urls",
    "listen-peer-urls",
    "name",
    "peer-auto-tls",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-key-file",
    "peer-skip-client-san-verification",
    "peer-trusted-ca-file",
    "self-signed-cert-validity",
    "tls-max-version",
    "tls-min-version",
    "trusted-ca-file",
    "wal-dir",
];

/// The settings that name files which etcd reads, by flag name.
pub const READ_FILES: [&str; 12] = [
    "cert-file",
    "client-cert-file",
    "client-crl-file",
    "client-key-file",
    "key-file",
    "peer-cert-file",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "trusted-ca-file",
];

/// Returns the URL in `text`; one that cannot be taken apart keeps its text, its scheme and an empty host.
pub(crate) fn url(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|| Url {
        text: without_userinfo(text.trim()).into_owned(),
        scheme: text.trim().split_once("://").map_or_else(String::new, |(s, _)| s.to_ascii_lowercase()),
        host: String::new(),
        port: None,
    })
}
