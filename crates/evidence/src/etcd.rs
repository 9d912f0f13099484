//! etcd as evidence: one [`Etcd`] per process (or per declaration without a process), and the proxies in front of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigFile, Credentials, File, FileAccess, IgnoredKey, Observed, Origin, PassiveView, PkiFile, Problem,
    Process, Settings, Url, Wire,
};

/// One etcd server on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Name of the resource in findings, unique on the node: `etcd m1 (pid 812)`.
    pub id: String,
    /// The member's name; null when it is not known.
    pub name: Option<String>,
    /// The running process.
    pub process: Observed<Process>,
    /// Version, for example `3.5.1`, or `3.5` when only the release line is known.
    pub version: Observed<String>,
    /// Effective settings by flag name.
    pub settings: Observed<Settings>,
    /// The configuration file that replaces flags and environment; null when none is in use.
    pub config_file: Option<Observed<ConfigFile>>,
    /// Variables `ETCD_*` of its environment that etcd does not know, by name.
    pub ignored_environment: Observed<Vec<IgnoredKey>>,
    /// What should be running according to manifests and units; empty when nothing on the node declares it.
    pub declared: Observed<Vec<Declared>>,
    /// Where declaration, disk and running process disagree.
    pub drift: Observed<Vec<Drift>>,
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
    /// Owners and modes of its files.
    pub files: EtcdFiles,
}

/// One side of etcd's transport: peer or client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transport {
    /// Every listener: those configured, joined with the sockets the process really listens on.
    pub listeners: Observed<Vec<Listener>>,
    /// URLs that others are told to use.
    pub advertised: Observed<Vec<Advertised>>,
    /// Whether the settings make a TLS listener demand client certificates.
    pub client_auth: Observed<ClientAuth>,
    /// Self-made certificates.
    pub auto_tls: Observed<AutoTls>,
    /// Key material as the files are now.
    pub credentials: Observed<Credentials>,
    /// What is wrong with the key material.
    pub problems: Observed<Vec<Problem>>,
}

/// One listener of an etcd process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The configured URL, or one made of the socket's address when it is not configured.
    pub url: Url,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether a listen URL names it.
    pub configured: bool,
    /// The socket's local address, `ip:port` or a path; null when the process has no such socket or its sockets could
    /// not be read.
    pub address: Option<String>,
    /// What it said on the wire; null when it was not asked.
    pub wire: Option<Observed<Wire>>,
    /// Of a UNIX socket: one clause that says who beside root and the user of the process may use or replace it; empty when nobody
    /// else may. Null for other sockets, and in a snapshot of a version that did not collect it.
    pub open_to: Option<Observed<String>>,
    /// Where the URL or the socket was found.
    pub origin: Origin,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The client API.
    Client,
    /// Metrics and health only.
    Metrics,
    /// The traffic between members.
    Peer,
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

/// What a manifest or unit declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The kind of declaration.
    pub kind: DeclaredKind,
    /// The file.
    pub path: String,
    /// The settings it would give an etcd that is started now.
    pub settings: Observed<Settings>,
    /// Why an etcd started from it would exit at once; empty when none of the known reasons applies, and an error where it is not
    /// known with what it would be started.
    pub fatal: Observed<Vec<PredictedFailure>>,
    /// The user that it names, as a number; null when it names none, and in a snapshot of a version that did not collect it.
    pub uid: Option<u32>,
    /// Files that it names and that the user who would run it may not use; an error where that could not be told. Null when that
    /// user is not known and none runs, and in a snapshot of a version that did not collect it.
    pub files: Option<Observed<Vec<PredictedFailure>>>,
    /// What ties the running process to it; null when none runs, and in a snapshot of a version that did not collect it.
    pub attributed_by: Option<AttributedBy>,
}

/// What ties a running process to the manifest or unit that declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttributedBy {
    /// The process is in the control group in which systemd keeps this unit.
    ControlGroup,
    /// The process is in the control group of a pod, and the manifest, or kubelet's folder of that pod's logs
    /// (`/var/log/pods/NAMESPACE_NAME_UID`), tells that the pod of this uid is the manifest's.
    PodUid,
    /// The process is in a container whose id kubelet's link to its log (`/var/log/containers`) has beside the name of the
    /// manifest's pod.
    ContainerId,
    /// The process is in a container of a static pod whose name is not known, and no other manifest declares an etcd.
    SoleManifest,
    /// Nothing contradicts it, and nothing proves it: of what declares an etcd its settings are the most like those that
    /// run, or it is all there is. A change of it may not reach the process.
    Likeness,
}

impl AttributedBy {
    /// Returns whether the process is known to have been started from the declaration.
    pub fn is_proof(self) -> bool {
        self != Self::Likeness
    }
}

/// The kind of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeclaredKind {
    /// A pod manifest that kubelet runs.
    StaticPod,
    /// A systemd unit.
    SystemdUnit,
}

/// A reason why etcd would refuse to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictedFailure {
    /// The setting concerned.
    pub setting: String,
    /// One clause: what etcd would say.
    pub message: String,
    /// Where it is declared.
    pub origin: Origin,
}

/// A disagreement between what is declared or on disk and what runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// What disagrees, for example `peer-cert-file` or `the peer CA file`.
    pub subject: String,
    /// The declared side.
    pub declared: Side,
    /// The running side.
    pub running: Side,
    /// One clause that explains the disagreement and what follows from it.
    pub message: String,
}

/// One side of a [`Drift`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The value there, as text.
    pub value: String,
    /// Where.
    pub origin: Origin,
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

/// Owners and modes of the files of one etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdFiles {
    /// Its static pod manifest; null when it is not run from one.
    pub manifest: Option<Observed<File>>,
    /// Other files in kubelet's manifest directory that declare the same pod.
    pub rival_manifests: Observed<Vec<RivalManifest>>,
    /// Its data directory.
    pub data_directory: Observed<File>,
    /// Files of its public key infrastructure: those its settings name, and all in and below the `etcd` folder of
    /// Kubernetes' PKI directory, with the folders they are in.
    pub pki: Observed<Vec<PkiFile>>,
    /// What the process may do with the files that its settings name and the folders they are in, and with its data directory.
    /// Null in a snapshot of a version that did not collect it.
    pub access: Option<Observed<Vec<FileAccess>>>,
}

/// A file that declares the same pod as the manifest of an etcd; kubelet runs only one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RivalManifest {
    /// The file.
    pub path: String,
    /// Whether it is the one that kubelet runs when it lists the directory: the last of them by name.
    pub wins: bool,
    /// Where it was found.
    pub origin: Origin,
}

/// A process of the etcd program that is not a member: `etcd gateway` or `etcd grpc-proxy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Name of the resource in findings: `etcd grpc-proxy (pid 815)`.
    pub id: String,
    /// Which proxy.
    pub kind: ProxyKind,
    /// The running process.
    pub process: Observed<Process>,
    /// Endpoints it forwards to.
    pub endpoints: Vec<String>,
    /// Whether it is itself given a client certificate for its endpoints, so that whoever reaches it acts with that
    /// identity.
    pub has_client_identity: bool,
    /// Whether its settings make its own TLS listener demand client certificates (grpc-proxy: a trusted CA does).
    pub demands_client_certificate: Observed<bool>,
    /// Its listeners.
    pub listeners: Observed<Vec<Listener>>,
}

/// The kind of a [`Proxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyKind {
    /// `etcd gateway`: forwards TCP; TLS ends at etcd.
    Gateway,
    /// `etcd grpc-proxy`: terminates TLS and serves the API itself.
    GrpcProxy,
}
