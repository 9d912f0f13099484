//! Files: kind, owner and mode of an inode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Observed, Origin};

/// One file system object, as stat(2) shows it after following symbolic links inside the root it was found in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The path that was asked for.
    pub path: String,
    /// Where programs of the host find it, which is not `path` where that is of a process in a container. Null when the process
    /// has ended since, and in a snapshot of a version that did not collect it.
    pub on_node: Option<String>,
    /// What it is.
    pub kind: FileKind,
    /// The low twelve bits of the mode, as a number.
    pub mode: u32,
    /// The same in octal, for example `0644`.
    pub mode_text: String,
    /// Owner's user id.
    pub uid: u32,
    /// Owner's group id.
    pub gid: u32,
    /// Owner's name in the host's passwd, or the number when it has none.
    pub owner: String,
    /// Group's name in the host's group file, or the number when it has none.
    pub group: String,
    /// Size in bytes.
    pub size: u64,
    /// Where it was found.
    pub origin: Origin,
}

/// The kind of a file system object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A device, FIFO or socket.
    Other,
    /// A regular file.
    Regular,
}

/// A file of the public key infrastructure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PkiFile {
    /// Owner and mode.
    pub file: File,
    /// What it holds, judged by its content and not by its name.
    pub holds: PkiContent,
}

/// What a file of the public key infrastructure holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PkiContent {
    /// One or more certificates and no private key.
    Certificate,
    /// Nothing: it is a directory.
    Directory,
    /// Neither certificate nor key, or content that was not looked at.
    Other,
    /// A private key, with or without certificates beside it.
    PrivateKey,
}

/// A file or directory that a process uses, and whether it may: by its user, its groups and its capabilities, and by owner, mode
/// and access control list of each directory on the way and of the file itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAccess {
    /// The setting that names it, or a file in it.
    pub setting: String,
    /// Where it is, as the process sees it.
    pub path: String,
    /// User and group by whom the process uses files, as chown(1) takes them: `998:997`. Empty when they are not known.
    pub account: String,
    /// Whether the process may use it: read a file, search a folder of key material, read and write a data directory.
    pub granted: Observed<bool>,
    /// Whether it still might if it belonged to root:root, with the mode that it has.
    pub as_roots: Observed<bool>,
    /// Whether it still might if nobody but its owner could use it.
    pub closed: Observed<bool>,
    /// One clause: which user is kept out, by what; empty unless it is known that the process may not use it.
    pub message: String,
}
