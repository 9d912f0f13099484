//! What the certificates are for that settings name, of every component: one line a setting.

/// What the file is for that a setting names.
#[derive(Debug)]
pub struct Named {
    /// The setting.
    pub setting: &'static str,
    /// What is done with it.
    pub role: Role,
    /// The setting that names the private key beside it.
    pub key: Option<&'static str>,
    /// Whose callers it tells apart, if it is a CA for that.
    pub domain: Option<Domain>,
}

/// What a program does with certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It presents them as a client.
    Dials,
    /// It presents them as a server.
    Serves,
    /// It presents them as both.
    ServesAndDials,
    /// It knows others by what these CAs issue, or issues by them.
    Trusts,
}

/// Those whose certificates have to be told apart from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// Members and clients of etcd.
    Etcd,
    /// Users and components of Kubernetes.
    Kubernetes,
    /// The front proxy, which says who a caller is.
    FrontProxy,
}

impl Domain {
    /// Returns its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kubernetes => "Kubernetes",
            Self::FrontProxy => "the front proxy",
        }
    }
}

/// The settings, as the references of etcd 3.6 and of Kubernetes 1.35 describe them; what kubelet serves is named by
/// [`kubelet`](crate::kubelet) alone.
const ALL: &[Named] = &[
    own("cert-file", Role::Serves, "key-file"),
    own("client-cert-file", Role::Dials, "client-key-file"),
    own("cluster-signing-cert-file", Role::Trusts, "cluster-signing-key-file"),
    own("etcd-certfile", Role::Dials, "etcd-keyfile"),
    own("kubelet-client-certificate", Role::Dials, "kubelet-client-key"),
    own("peer-cert-file", Role::ServesAndDials, "peer-key-file"),
    own("peer-client-cert-file", Role::Dials, "peer-client-key-file"),
    own("proxy-client-cert-file", Role::Dials, "proxy-client-key-file"),
    own("served-cert-file", Role::Serves, "served-private-key-file"),
    own("tls-cert-file", Role::Serves, "tls-private-key-file"),
    ca("client-ca-file", Some(Domain::Kubernetes)),
    ca("etcd-cafile", Some(Domain::Etcd)),
    ca("kubelet-certificate-authority", None),
    ca("oidc-ca-file", None),
    ca("peer-trusted-ca-file", Some(Domain::Etcd)),
    ca("requestheader-client-ca-file", Some(Domain::FrontProxy)),
    ca("root-ca-file", None),
    ca("trusted-ca-file", Some(Domain::Etcd)),
];

const fn own(setting: &'static str, role: Role, key: &'static str) -> Named {
    Named { setting, role, key: Some(key), domain: None }
}

const fn ca(setting: &'static str, domain: Option<Domain>) -> Named {
    Named { setting, role: Role::Trusts, key: None, domain }
}

/// Returns what the file is for that `setting` names, if it holds certificates.
pub fn of(setting: &str) -> Option<&'static Named> {
    ALL.iter().find(|named| named.setting == setting)
}

/// Returns whether `setting` names a private key that belongs to a certificate.
pub fn is_key(setting: &str) -> bool {
    ALL.iter().any(|named| named.key == Some(setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_with_an_instance_is_known_here_too() {
        for component in crate::ALL {
            for files in component.program.into_iter().flat_map(|program| program.credentials) {
                assert_eq!(of(files.certificate).and_then(|named| named.key), Some(files.key));
                assert_eq!(of(files.trusted).map(|named| named.role), Some(Role::Trusts));
            }
        }
    }
}
