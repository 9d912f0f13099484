//! Files and certificates of the node itself, whichever component uses them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Certificate, ErrorKind, EvidenceError, File, Observed, PkiContent, Problem};

/// How a distribution arranges the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLayout {
    /// Its name: `kubeadm`.
    pub name: String,
    /// Who runs the control plane elsewhere, where no node shows it; null where nodes of it run it.
    pub control_plane: Option<String>,
    /// One clause that says how it is known.
    pub why: String,
}

/// A file or folder of the node's public key infrastructure: in or below a folder that a layout has for it, or named by a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Owner and mode of what the path leads to, links followed.
    pub file: File,
    /// What it holds, judged by its content and not by its name.
    pub holds: PkiContent,
    /// The settings that name it.
    pub uses: Vec<FileUse>,
    /// Whether it is among the files of an etcd, whose own rules judge owner and mode.
    pub of_etcd: bool,
    /// Whether it belongs to root, or to the account that uses it where that has to own it: a private key that the account could not
    /// read as root's, or a file outside of Kubernetes' folders.
    pub owner_fits: Observed<bool>,
    /// User and group, as chown(1) takes them, of a process that uses it and could not if it were root's, or closed to all but root;
    /// empty where there is none.
    pub account: String,
    /// One clause that says who beside root may put other files into a folder on the way, links followed; empty when nobody may.
    pub open_to: Observed<String>,
    /// The certificates in it; empty where it holds none.
    pub certificates: Observed<Vec<Certificate>>,
    /// Whether the rules about the instance that uses it judge its certificates.
    pub judged_with_instance: bool,
    /// What is wrong with what it holds, for what it is used for.
    pub problems: Observed<Vec<Problem>>,
}

/// A setting that names a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileUse {
    /// The component.
    pub component: String,
    /// The setting.
    pub setting: String,
}

/// A kubeconfig: who it makes somebody who has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubeconfig {
    /// The path.
    pub path: String,
    /// Whether it is for people who administer the cluster, and not for a component.
    pub administrator: bool,
    /// The settings that name it.
    pub uses: Vec<FileUse>,
    /// Owner and mode.
    pub file: Observed<File>,
    /// One clause that says who beside root may put other files into a folder on the way, links followed; empty when nobody may.
    pub open_to: Observed<String>,
    /// The identities in it.
    pub users: Observed<Vec<KubeconfigUser>>,
    /// The CAs by which it knows API servers.
    pub authorities: Observed<Vec<Certificate>>,
}

/// An identity in a kubeconfig. No token, password or key of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubeconfigUser {
    /// Its name in the file.
    pub name: String,
    /// By what it proves who it is, all that are given.
    pub credentials: Vec<CredentialKind>,
    /// Its client certificate with those that follow it; null when it has none.
    pub certificate: Option<Observed<Vec<Certificate>>>,
    /// Organizations in the certificate's subject: to Kubernetes, the groups of the user.
    pub groups: Vec<String>,
    /// What is wrong with certificate and key.
    pub problems: Observed<Vec<Problem>>,
}

/// By what a user of a kubeconfig proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// A plug-in of old releases.
    AuthProvider,
    /// A certificate and its key, in the file or named by it.
    ClientCertificate,
    /// A program that is run for it.
    Exec,
    /// Name and password.
    Password,
    /// A token in the file.
    Token,
    /// A token in a file that it names.
    TokenFile,
}

/// The container runtime: where it has the configuration of pod networks, and who may use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerRuntime {
    /// Its name: `containerd`, `cri-o`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// The folders in which it looks for CNI configuration.
    pub cni_folders: Observed<Vec<String>>,
    /// The path of its socket.
    pub socket: Observed<String>,
    /// One clause that says who beside root may use or replace its socket; empty when nobody may.
    pub socket_open_to: Observed<String>,
}

/// A file or folder of CNI configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CniFile {
    /// Owner and mode.
    pub file: File,
    /// One clause that says who beside root may put other files into a folder on the way, links followed; empty when nobody may.
    pub open_to: Observed<String>,
}

/// An authority that two trust domains have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedDomain {
    /// Subject of the authority.
    pub subject: String,
    /// One clause: which settings of which domains trust it, and what follows.
    pub message: String,
}

/// Returns what stands for evidence in a snapshot of a version that did not collect it.
pub(crate) fn not_collected<T>() -> Observed<T> {
    let message = "the version that took this snapshot did not collect it";
    Observed::failed(EvidenceError::new(ErrorKind::NotFound, message))
}
