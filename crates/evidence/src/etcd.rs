//! What only an etcd has, and what only the proxies in front of it have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Credentials, File, Observed, Origin, PassiveView, Url};

/// What only an etcd has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// The member's name; null when it is not known.
    pub name: Option<String>,
    /// The cluster it is a member of.
    pub cluster: Observed<Cluster>,
    /// Traffic between members.
    pub peer: Transport,
    /// Traffic of clients.
    pub client: Transport,
    /// Established connections on peer ports, both directions.
    pub connections: Observed<Vec<Connection>>,
    /// The dial matrix's row of this member: its connections with every other member.
    pub links: Observed<Vec<Link>>,
    /// Certificates on this node that are no member's, yet would be accepted as a peer's.
    pub impostors: Observed<Vec<Impostor>>,
    /// Authorities that Kubernetes uses for something else, and of which etcd accepts what they issue.
    pub shared_cas: Observed<Vec<SharedCa>>,
    /// Its data directory.
    pub data_directory: Observed<File>,
}

/// One side of etcd's transport, peer or client, by its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transport {
    /// URLs that others are told to use.
    pub advertised: Observed<Vec<Advertised>>,
    /// Whether the settings make a TLS listener demand client certificates.
    pub client_auth: Observed<ClientAuth>,
    /// Self-made certificates.
    pub auto_tls: Observed<AutoTls>,
}

/// A URL that other members or clients are told to use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Advertised {
    /// The URL.
    pub url: Url,
    /// Where it is told: the membership once a member has joined, else the setting.
    pub origin: Origin,
}

/// Whether a TLS listener of one side verifies client certificates, by its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Whether a client certificate is demanded (etcd: a trusted CA or the flag, either is enough).
    pub enforced: bool,
    /// Whether the flag that the benchmark names is true.
    pub flag: bool,
    /// Whether certificates are verified against the system's public roots, because no CA is configured.
    pub system_roots: bool,
    /// One clause that explains it.
    pub why: String,
}

/// Self-made certificates (`--auto-tls`, `--peer-auto-tls`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoTls {
    /// Whether the flag is true.
    pub requested: bool,
    /// Whether it takes effect: etcd ignores it when certificates are given, and on a plaintext listener.
    pub in_effect: bool,
    /// One clause that explains it.
    pub why: String,
}

/// The cluster an etcd belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// All members, learners and unstarted ones included.
    pub members: Vec<Member>,
    /// How the membership was established.
    pub source: MemberSource,
    /// One clause that says how the membership was established, and what was tried in vain before.
    pub established: String,
}

/// Where the list of members comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberSource {
    /// The running etcd answered.
    Live,
    /// Read from the data directory.
    DataDirectory,
    /// The `initial-cluster` setting, which is only used when a cluster is first made and may be stale.
    InitialCluster,
}

/// One member of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Member id, hexadecimal; empty when only `initial-cluster` is known.
    pub id: String,
    /// Name; empty for a member that was added but has not started.
    pub name: String,
    /// URLs its peers dial.
    pub peer_urls: Vec<Url>,
    /// URLs its clients dial.
    pub client_urls: Vec<Url>,
    /// Whether it is a learner, which has no vote but receives all data.
    pub learner: bool,
    /// Whether it is the etcd that this evidence is about.
    pub this: bool,
}

/// One established TCP connection of etcd with another member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Local address, `ip:port`.
    pub local: String,
    /// Remote address, `ip:port`.
    pub remote: String,
    /// Who dialled.
    pub direction: Direction,
    /// The member at the other end, by name or id; null when it could not be told.
    pub member: Option<String>,
    /// What it carries.
    pub transport: TransportSeen,
    /// What a passive look at its segments showed; null when nobody looked (`--observe`) or nothing was sent.
    pub observed: Option<PassiveView>,
    /// Where the socket was found.
    pub origin: Origin,
}

/// Who dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The other member dialled this one.
    Inbound,
    /// This member dialled.
    Outbound,
}

/// What a connection carries, by the best evidence there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransportSeen {
    /// Not TLS: observed passively, or its listener speaks only plaintext.
    Plaintext,
    /// TLS: observed passively, or its listener speaks only TLS.
    Tls,
    /// Could be either.
    Undetermined,
}

/// The connections with one other member: one cell each way of the dial matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The other member, by name, or id when it has none.
    pub member: String,
    /// Established connections that it dialled, or why they cannot be told from another member's.
    pub inbound: Observed<u32>,
    /// Established connections that this member dialled, or why they cannot be told.
    pub outbound: Observed<u32>,
    /// Whether it is known that exactly one direction is missing: health endpoints stay green, but one of the two cannot
    /// dial.
    pub half_open: bool,
    /// Whether it is known that there is no connection at all.
    pub down: bool,
    /// One clause that says which direction is missing and what that costs, or what could not be told; empty for a full
    /// link.
    pub message: String,
    /// Where the sockets were found.
    pub origin: Origin,
}

/// A certificate on this node that no member uses, and that peers would accept nevertheless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Impostor {
    /// The certificate file.
    pub path: String,
    /// Its subject.
    pub subject: String,
    /// One clause: why peers would accept it.
    pub message: String,
    /// Where it was found.
    pub origin: Origin,
}

/// An authority of something else, of which etcd accepts what it issues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedCa {
    /// The file with the CA that etcd trusts.
    pub path: String,
    /// Subject of that CA.
    pub subject: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub spki: String,
    /// Subjects of the certificates through which etcd accepts what the other authority issues, from that authority to
    /// the CA that etcd trusts; one where the two are the same.
    pub through: Vec<String>,
    /// One clause: what etcd accepts, through which certificates, and what that costs.
    pub message: String,
    /// The other use, with its file: `kube-apiserver --client-ca-file /etc/kubernetes/pki/ca.crt`.
    pub other_use: String,
    /// Where the other use was found.
    pub origin: Origin,
}

/// A CA that Kubernetes uses on this node, for comparison with etcd's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaUse {
    /// What it is used for: `kube-apiserver --client-ca-file`.
    pub purpose: String,
    /// The file.
    pub path: String,
    /// SHA-256 of each CA's SubjectPublicKeyInfo in it, hexadecimal.
    pub spkis: Vec<String>,
}

/// A program on this node that is a client of etcd, and what it connects with.
///
/// Whether it and a server could talk is a question of keys, so the answers are here, and no certificate has to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdClient {
    /// How to call it, unique on the node: `kube-apiserver (pid 900)`.
    pub id: String,
    /// The component: `kube-apiserver`.
    pub component: String,
    /// The URLs that it dials, those for single resources included.
    pub endpoints: Observed<Vec<Url>>,
    /// Its certificate, its key, and the CAs that it trusts, as the files are now.
    pub credentials: Credentials,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal, of each CA that accepts its certificate as a client's now. Looked
    /// at are those that it trusts itself, those that etcd trusts, and those in Kubernetes' folders. Null when it has no
    /// certificate.
    pub accepted_by: Option<Observed<Vec<String>>>,
    /// SHA-256, hexadecimal, of each server certificate of an etcd on this node that is of a CA which it trusts; names are
    /// not looked at. Null when it is given no CA, so that it trusts the system's roots.
    pub accepts: Option<Observed<Vec<String>>>,
    /// Where it was found.
    pub origin: Origin,
}

/// What only a process of the etcd program has that is not a member: `etcd gateway` or `etcd grpc-proxy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdProxy {
    /// Which proxy.
    pub kind: ProxyKind,
    /// Endpoints it forwards to.
    pub endpoints: Vec<String>,
    /// Whether it is itself given a client certificate for its endpoints, so that whoever reaches it acts with that
    /// identity.
    pub has_client_identity: bool,
    /// Whether its settings make its own TLS listener demand client certificates (grpc-proxy: a trusted CA does).
    pub demands_client_certificate: Observed<bool>,
}

/// The kind of a [`EtcdProxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyKind {
    /// `etcd gateway`: forwards TCP; TLS ends at etcd.
    Gateway,
    /// `etcd grpc-proxy`: terminates TLS and serves the API itself.
    GrpcProxy,
}
