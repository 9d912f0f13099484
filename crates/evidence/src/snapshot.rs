//! The snapshot: all evidence of one node at one moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node::not_collected;
use crate::{
    CaUse, CniFile, ContainerRuntime, ErrorKind, EtcdClient, EvidenceError, Instance, KeyFile, Kubeconfig,
    NodeLayout, Observed, SharedDomain,
};

/// All evidence of one node at one moment. Immutable, and free of secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Identifies the format: [`Snapshot::FORMAT`].
    pub format: String,
    /// The program that took it.
    pub tool: Tool,
    /// When it was taken. The only clock that an audit knows.
    pub taken_at: Timestamp,
    /// The node.
    pub node: Node,
    /// The instances of each component that was looked for, by its name; an empty list says that there is none.
    pub components: BTreeMap<String, Observed<Vec<Instance>>>,
    /// Programs on this node that are clients of etcd, as far as they are known: API servers. That there is none here says
    /// nothing of the other nodes.
    pub etcd_clients: Observed<Vec<EtcdClient>>,
}

/// The program that took a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Host name.
    pub name: String,
    /// Root directory below which host files were read; `/` unless `--root` was given.
    pub root: String,
    /// The user id that the audit ran as; null in a snapshot of a version that did not collect it.
    pub user: Option<u32>,
    /// How it is arranged; an error where that is not known.
    #[serde(default = "not_collected::<NodeLayout>")]
    pub layout: Observed<NodeLayout>,
    /// Number of processes seen; an error when `/proc` could not be read.
    pub processes: Observed<u32>,
    /// CAs that Kubernetes uses on this node.
    pub kubernetes_cas: Observed<Vec<CaUse>>,
    /// Certificates, keys and the folders they are in: in and below the folders that layouts have for them, and what settings name.
    #[serde(default = "not_collected::<Vec<KeyFile>>")]
    pub pki: Observed<Vec<KeyFile>>,
    /// True where all of them, and all kubeconfigs of components, could be looked at; an error says what could not.
    #[serde(default = "not_collected::<bool>")]
    pub pki_complete: Observed<bool>,
    /// Authorities that are trusted in two of the domains etcd, Kubernetes and front proxy.
    #[serde(default = "not_collected::<Vec<SharedDomain>>")]
    pub shared_domains: Observed<Vec<SharedDomain>>,
    /// The kubeconfigs of administrators and of components.
    #[serde(default = "not_collected::<Vec<Kubeconfig>>")]
    pub kubeconfigs: Observed<Vec<Kubeconfig>>,
    /// Container runtimes that run.
    #[serde(default = "not_collected::<Vec<ContainerRuntime>>")]
    pub runtimes: Observed<Vec<ContainerRuntime>>,
    /// The CNI configuration: the folders and what is in them.
    #[serde(default = "not_collected::<Vec<CniFile>>")]
    pub cni: Observed<Vec<CniFile>>,
    /// What could not be read while looking for components.
    pub unreadable: Vec<EvidenceError>,
}

impl Snapshot {
    /// The format that this version reads and writes.
    pub const FORMAT: &str = "seaworthy.dev/snapshot/v2";

    /// Returns the instances of the component `name`.
    ///
    /// # Errors
    ///
    /// When it could not be seen which there are, or was not looked for.
    pub fn instances(&self, name: &str) -> Result<&[Instance], EvidenceError> {
        match self.components.get(name) {
            Some(instances) => instances.as_result().map(Vec::as_slice),
            None => Err(EvidenceError::new(ErrorKind::NotFound, format!("{name} was not looked for"))),
        }
    }

    /// Returns the snapshot in `json`, or why it is not one: another format, a newer version, truncated, or not of the
    /// published schema.
    pub fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Head {
            format: Option<String>,
        }
        let head: Head = serde_json::from_slice(json)?;
        match head.format.as_deref() {
            Some(Self::FORMAT) => Ok(serde_json::from_slice(json)?),
            Some(other) => Err(ReadError::Format(other.to_owned())),
            None => Err(ReadError::NotASnapshot),
        }
    }
}

/// Why a snapshot cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// It is of a format that this version does not read.
    Format(String),
    /// It is not JSON of the published schema.
    Json(serde_json::Error),
    /// It is JSON, but names no format.
    NotASnapshot,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Format(format) => {
                write!(f, "its format is {format:?}, and this version reads {:?}", Snapshot::FORMAT)
            }
            Self::Json(error) if error.is_eof() => write!(f, "it is truncated: {error}"),
            Self::Json(error) => error.fmt(f),
            Self::NotASnapshot => f.write_str("it has no \"format\" field, so it is not a snapshot"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
