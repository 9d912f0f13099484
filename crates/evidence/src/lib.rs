//! The evidence model: everything Seaworthy has observed about one node at one moment.
//!
//! A [`Snapshot`] is immutable, versioned JSON that holds no secret. Every fact in it carries its [`Origin`]
//! (argv index, environment variable, file and line, compiled-in default, wire) or, through [`Observed`],
//! the [`EvidenceError`] that kept it from being observed.
//!
//! Two conventions make partial evidence honest, and rule expressions rely on both:
//! a *missing* field was not collected, and an explicit `null` is known to be absent.
//!
//! Architecture invariant: this crate does no I/O and knows no rule.

mod certificate;
mod etcd;
mod file;
mod instance;
mod kube_apiserver;
mod node;
mod observed;
mod origin;
mod process;
mod schema;
mod setting;
mod snapshot;
mod wire;

pub use certificate::{
    Certificate, Credentials, PrivateKey, Problem, ProblemKind, PublicKey, RevocationList, SubjectAltNames,
};
pub use etcd::{
    Advertised, AutoTls, CaUse, ClientAuth, Cluster, Connection, Direction, Etcd, EtcdClient, EtcdProxy,
    Impostor, Link, Member, MemberSource, ProxyKind, SharedCa, Transport, TransportSeen,
};
pub use file::{File, FileAccess, FileKind, PkiContent, PkiFile};
pub use instance::{
    AttributedBy, Declared, DeclaredKind, Drift, Instance, InstanceFiles, KeyMaterial, Listener, NamedFile,
    PredictedFailure, Purpose, RivalManifest, Side,
};
pub use kube_apiserver::{
    Anonymous, AtRest, Audit, AuditLevel, AuditLog, Authorization, KubeApiserver, Level, TokenKey,
};
pub use node::{
    CniFile, ContainerRuntime, CredentialKind, FileUse, KeyFile, Kubeconfig, KubeconfigUser, NodeLayout,
    SharedDomain,
};
pub use observed::{ErrorKind, EvidenceError, Observed};
pub use origin::Origin;
pub use process::{Build, Process, ProcessId};
pub use schema::{SCHEMA_ID, json_schema};
pub use setting::{Candidate, ConfigFile, ConfigFormat, IgnoredKey, Setting, Settings};
pub use snapshot::{Node, ReadError, Snapshot, Tool};
pub use wire::{ClientCertificate, PassiveView, Protocol, ProtocolSupport, Suite, Wire};

use std::borrow::Cow;

/// Returns `text` with the user and the password of every URL in it replaced by `***`.
///
/// etcd takes `https://user:password@host:2380` without complaint and tells it to all its members. Everything up to the
/// last `@` before a comma or a blank counts, also where it is no proper URL.
pub fn without_userinfo(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut rest = text;
    while let Some((scheme, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        // The path of a unix URL may begin with an `@`, and has no user.
        let is_path = scheme.ends_with("unix") || scheme.ends_with("unixs");
        let url = url
            .rsplit_once('@')
            .filter(|_| !is_path)
            .map_or(Cow::Borrowed(url), |(_, host)| format!("***@{host}").into());
        clean.extend([scheme, "://", &url]);
        rest = tail;
    }
    if clean.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(clean + rest) }
}

/// A URL as a component was given it, with the parts that rules look at.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Url {
    /// The URL as written, but for user and password ([`without_userinfo`]).
    pub text: String,
    /// Lower-case scheme: `http`, `https`, `unix`, `unixs`.
    pub scheme: String,
    /// Host without brackets; the socket path for `unix` and `unixs`.
    pub host: String,
    /// Port; null for `unix` and `unixs`.
    pub port: Option<u16>,
}

impl Url {
    /// Returns the URL in `text`, split as etcd splits its comma-separated URL lists (`scheme://host:port`, where
    /// the host of a `unix` URL is a path). `None` when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let text = without_userinfo(text.trim()).into_owned();
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme.starts_with("unix") {
            let host = rest.to_owned();
            return Some(Self { text, scheme, host, port: None });
        }
        let authority = rest.split(['/', '?', '#']).next()?;
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (host, port) = address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = port.parse().ok()?;
        Some(Self { text, scheme, host, port: Some(port) })
    }

    /// Returns whether a listener on this URL, or a dial to it, uses TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "unixs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_as_etcd_splits_them() {
        let cases = [
            ("https://10.0.0.1:2380", Some(("https", "10.0.0.1", Some(2380)))),
            ("HTTPS://Node-1:2380/", Some(("https", "Node-1", Some(2380)))),
            ("https://user:pass@10.0.0.1:2380", Some(("https", "10.0.0.1", Some(2380)))),
            ("http://[::1]:2380", Some(("http", "::1", Some(2380)))),
            ("unixs:///run/etcd.sock", Some(("unixs", "/run/etcd.sock", None))),
            ("localhost:2380", None),
            ("http://host", None),
            ("http://host:99999", None),
        ];
        for (text, want) in cases {
            let got = Url::parse(text);
            let got = got.as_ref().map(|u| (u.scheme.as_str(), u.host.as_str(), u.port));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn users_and_passwords_of_urls_are_not_kept() {
        let cases = [
            ("", ""),
            ("https://10.0.0.1:2380", "https://10.0.0.1:2380"),
            ("https://u:p@h:1", "https://***@h:1"),
            (
                "m1=https://u:p@h:1,m2=http://h:2,m3=http://q@h:3",
                "m1=https://***@h:1,m2=http://h:2,m3=http://***@h:3",
            ),
            ("default https://u:p/@x@h:1; else", "default https://***@h:1; else"),
            ("unix://@socket", "unix://@socket"),
            ("user@host", "user@host"),
        ];
        for (text, want) in cases {
            assert_eq!(without_userinfo(text), want);
        }
        assert_eq!(Url::parse("https://u:p@h:1").unwrap().text, "https://***@h:1");
    }
}
