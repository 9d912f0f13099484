//! What a component is given: arguments, variables and files, each with the place it was written at, and which variables may
//! leave the node.

use jiff::Timestamp;
use seaworthy_evidence::Origin;

/// One command-line argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its bytes.
    pub text: Vec<u8>,
    /// Where it stands.
    pub origin: Origin,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// Where it is set.
    pub origin: Origin,
}

/// A configuration file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// Its content. More than [`ConfigText::MAX`] bytes are refused, so one byte more is enough to read.
    pub bytes: Vec<u8>,
    /// When it was last changed or replaced, if that is known.
    pub changed_at: Option<Timestamp>,
    /// The file.
    pub origin: Origin,
}

impl ConfigText {
    /// Size in bytes up to which a configuration file is read.
    pub const MAX: usize = 1 << 20;
}

/// Returns whether the environment variable `name` may be kept: etcd's own (`ETCD_*`) and the two with which
/// the system's trusted certificates are replaced.
///
/// Everything else may be a secret and is dropped where it is read. So are the `ETCD_*` variables that are no
/// settings of etcd but credentials, as some container images take them (`ETCD_ROOT_PASSWORD`).
pub fn may_be_shown(name: &[u8]) -> bool {
    const CREDENTIALS: [&[u8]; 4] = [b"PASSWORD", b"PASSWD", b"SECRET", b"TOKEN"];
    matches!(name, b"SSL_CERT_FILE" | b"SSL_CERT_DIR")
        || name.starts_with(b"ETCD_")
            && !CREDENTIALS.iter().any(|word| name.windows(word.len()).any(|part| part == *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let cases = [
            ("ETCD_PEER_CERT_FILE", true),
            ("SSL_CERT_DIR", true),
            ("ETCD_ROOT_PASSWORD", false),
            ("ETCD_INITIAL_CLUSTER_TOKEN", false),
            ("ETCDCTL_USER", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("PATH", false),
            ("", false),
        ];
        for (name, want) in cases {
            assert_eq!(may_be_shown(name.as_bytes()), want, "{name}");
        }
    }
}
