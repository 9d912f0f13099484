//! Arguments and variables with the place they were written at, and which variables may leave the node.

pub use seaworthy_etcd::settings::{Argument, Variable};

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
