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
    Advertised, AutoTls, CaUse, ClientAuth, Cluster, Connection, Declared, DeclaredKind, Direction, Drift,
    Etcd, EtcdFiles, Impostor, Link, Listener, Member, MemberSource, PredictedFailure, Proxy, ProxyKind,
    Purpose, SharedCa, Side, Transport, TransportSeen,
};
pub use file::{File, FileKind, PkiContent, PkiFile};
pub use observed::{ErrorKind, EvidenceError, Observed};
pub use origin::Origin;
pub use process::Process;
pub use schema::{SCHEMA_ID, json_schema};
pub use setting::{Candidate, ConfigFile, ConfigFormat, IgnoredKey, SETTINGS, Setting};
pub use snapshot::{Node, ReadError, Snapshot, Tool};
pub use wire::{ClientCertificate, PassiveView, Protocol, ProtocolSupport, Suite, Wire};

/// A URL as a component was given it, with the parts that rules look at.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Url {
    /// The URL as written.
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
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme.starts_with("unix") {
            return Some(Self { text: text.to_owned(), scheme, host: rest.to_owned(), port: None });
        }
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok()?;
        Some(Self { text: text.to_owned(), scheme, host: host.to_owned(), port: Some(port) })
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
}
