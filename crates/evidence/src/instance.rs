//! One running (or only declared) component on a node: what every component has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigFile, Credentials, Etcd, EtcdProxy, EvidenceError, File, FileAccess, IgnoredKey, KubeApiserver,
    Observed, Origin, PkiFile, Problem, Process, Settings, Url, Wire,
};

/// One running component on a node, or one that is only declared.
///
/// A rule sees it as `self`, and what only its component has by the name of that: `etcd`, `kube_apiserver`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Name of the resource in findings, unique on the node: `etcd m1 (pid 812)`.
    pub id: String,
    /// Name of the component: `etcd`.
    pub component: String,
    /// The running process.
    pub process: Observed<Process>,
    /// Version, for example `3.5.1`, or `3.5` when only the release line is known.
    pub version: Observed<String>,
    /// Effective settings by flag name.
    pub settings: Observed<Settings>,
    /// The configuration file in use; null when none is.
    pub config_file: Option<Observed<ConfigFile>>,
    /// Variables of its environment that look like its own, and that it does not know, by name. Null where it reads no settings from
    /// its environment.
    pub ignored_environment: Option<Observed<Vec<IgnoredKey>>>,
    /// What should be running according to manifests and units; empty when nothing on the node declares it.
    pub declared: Observed<Vec<Declared>>,
    /// Where declaration, disk and running process disagree.
    pub drift: Observed<Vec<Drift>>,
    /// Every listener: those configured, joined with the sockets the process really listens on.
    pub listeners: Observed<Vec<Listener>>,
    /// The certificates, keys and CAs that it is given, by what they are for.
    pub credentials: Vec<KeyMaterial>,
    /// Owners and modes of its files.
    pub files: InstanceFiles,
    /// What only an etcd has; null for every other component.
    pub etcd: Option<Box<Etcd>>,
    /// What only a proxy of etcd has; null for every other component.
    pub etcd_proxy: Option<EtcdProxy>,
    /// What only a kube-apiserver has; null for every other component.
    pub kube_apiserver: Option<Box<KubeApiserver>>,
}

impl Instance {
    /// Returns the listeners for `purpose`.
    ///
    /// # Errors
    ///
    /// When the listeners are not known.
    pub fn listeners_for(&self, purpose: Purpose) -> Result<impl Iterator<Item = &Listener>, EvidenceError> {
        Ok(self.listeners.as_result()?.iter().filter(move |listener| listener.purpose == purpose))
    }
}

/// The key material that an instance is given for one purpose, as the files are now, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyMaterial {
    /// What it is for.
    pub purpose: Purpose,
    /// Its files.
    pub files: Observed<Credentials>,
    /// What is wrong with them.
    pub problems: Observed<Vec<Problem>>,
}

/// One listener of a process.
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

/// What a listener serves, or what key material is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Requests that an API server passes on to extensions of the API.
    Aggregation,
    /// The API of clients.
    Client,
    /// Requests to etcd.
    Etcd,
    /// Requests to kubelets.
    Kubelet,
    /// Metrics and health only.
    Metrics,
    /// The traffic between members.
    Peer,
}

/// What a manifest or unit declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The kind of declaration.
    pub kind: DeclaredKind,
    /// The file.
    pub path: String,
    /// The settings it would give an instance that is started now.
    pub settings: Observed<Settings>,
    /// Why an instance started from it would exit at once; empty when none of the known reasons applies, and an error where it is not
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
    /// The process is in a container of a static pod whose name is not known, and no other manifest declares its component.
    SoleManifest,
    /// Nothing contradicts it, and nothing proves it: of what declares its component its settings are the most like those that
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

/// A reason why an instance would refuse to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictedFailure {
    /// The setting concerned.
    pub setting: String,
    /// One clause: what it would say.
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

/// A file that declares the same pod as the manifest of an instance; kubelet runs only one of them.
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

/// Owners and modes of the files of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceFiles {
    /// Its static pod manifest; null when it is not run from one.
    pub manifest: Option<Observed<File>>,
    /// One clause that says who beside root may put other manifests into the folder of it, or that folder in the place of another;
    /// empty when nobody may, or there is no manifest.
    #[serde(default = "crate::node::not_collected::<String>")]
    pub manifest_open_to: Observed<String>,
    /// Other files in kubelet's manifest directory that declare the same pod.
    pub rival_manifests: Observed<Vec<RivalManifest>>,
    /// Files of its public key infrastructure: those its settings name, and all in and below its own folder of Kubernetes'
    /// PKI directory, with the folders they are in.
    pub pki: Observed<Vec<PkiFile>>,
    /// The kubeconfigs that its settings name, with which it identifies itself to the API server.
    pub kubeconfigs: Observed<Vec<NamedFile>>,
    /// The files of the CAs whose certificates it accepts from those who connect. Null in a snapshot of a version that did not collect
    /// it.
    pub authorities: Option<Observed<Vec<NamedFile>>>,
    /// Its configuration files, in the order in which they apply. Null in a snapshot of a version that did not collect it.
    pub config: Option<Observed<Vec<NamedFile>>>,
    /// The files of the systemd unit that declares it: the unit itself (`unit`), and its drop-ins (`drop-in`). Empty when no unit
    /// declares it. Null in a snapshot of a version that did not collect it.
    pub unit: Option<Observed<Vec<NamedFile>>>,
    /// What the process may do with the files that its settings name and the folders they are in, and with its data directory.
    /// Null in a snapshot of a version that did not collect it.
    pub access: Option<Observed<Vec<FileAccess>>>,
}

/// A file that a setting names, or one of a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// The setting, or what it is to the unit.
    pub setting: String,
    /// The file, as the process sees it.
    pub file: Observed<File>,
    /// One clause that says who beside root and the user of the process may put another file in its place, because a folder above it
    /// lets them; empty when nobody may.
    pub replaceable_by: Observed<String>,
}
