//! `etcd gateway` and `etcd grpc-proxy`: what stands in front of a cluster.
//!
//! A gateway forwards TCP, so TLS ends at etcd. A grpc-proxy ends TLS itself and acts with its own client
//! certificate: one without TLS on its own listener shows every key of a perfect cluster in plaintext.
//! Neither reads the environment or a file. Flags as of etcd 3.4 to 3.7.

use seaworthy_evidence::{Origin, ProxyKind, Url, without_userinfo};
use seaworthy_settings::Argument;

use crate::Component;

/// Processes of the etcd program that are no members.
pub static COMPONENT: Component = Component {
    name: "etcd-proxy",
    of_control_plane: false,
    special: Some(("etcd_proxy", "EtcdProxy")),
    settings: &[],
    program: None,
};

/// Returns whether an etcd with these `arguments` is no server: `etcd grpc-proxy` and `etcd gateway` are not.
pub(crate) fn is_one(arguments: &[Argument]) -> bool {
    arguments.first().is_some_and(|first| matches!(&*first.text, b"gateway" | b"grpc-proxy"))
}

/// The settings of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    /// Which proxy.
    pub kind: ProxyKind,
    /// Where it listens; its scheme says whether with TLS (`tcp` for a gateway, which does not look).
    pub listen: Url,
    /// Where that is set.
    pub listen_origin: Origin,
    /// Where a grpc-proxy also serves metrics, if it does.
    pub metrics: Option<(Url, Origin)>,
    /// Endpoints it forwards to, as given.
    pub endpoints: Vec<String>,
    /// The domain whose SRV records name the endpoints instead.
    pub discovery_srv: Option<String>,
    /// Certificate, key and CA that it uses towards etcd (`--cert`, `--key`, `--cacert`).
    pub upstream: Files,
    /// Certificate, key and CA of its own listener (`--cert-file`, `--key-file`, `--trusted-ca-file`). A
    /// gateway uses its CA only to verify discovered endpoints.
    pub own: Files,
    /// Whether its own listener has TLS.
    pub tls: bool,
    /// Whether it makes the certificate of its own listener itself.
    pub auto_tls: bool,
}

/// The files of one side of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The certificate.
    pub cert: Option<String>,
    /// The key.
    pub key: Option<String>,
    /// The trusted CA.
    pub ca: Option<String>,
}

impl ProxySettings {
    /// Returns whether its own listener demands a client certificate: a trusted CA alone makes it.
    pub fn demands_client_certificate(&self) -> bool {
        self.tls && self.own.ca.is_some()
    }
}

/// Returns the settings of the proxy with the command line `arguments` (argv without the program), or `None`
/// when it does not begin with `gateway` or `grpc-proxy`.
pub fn resolve(arguments: &[Argument]) -> Option<ProxySettings> {
    let (first, rest) = arguments.split_first()?;
    let kind = match first.text.as_slice() {
        b"gateway" => ProxyKind::Gateway,
        b"grpc-proxy" => ProxyKind::GrpcProxy,
        _ => return None,
    };
    let flags = parse(rest);
    let last =
        |name: &str| flags.iter().rev().find(|(n, ..)| n == name).filter(|(_, value, _)| !value.is_empty());
    let text = |name: &str| last(name).map(|(_, value, _)| value.clone());
    let own = Files { cert: text("cert-file"), key: text("key-file"), ca: text("trusted-ca-file") };
    let auto = last("auto-tls")
        .is_some_and(|(_, value, _)| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"));
    let proxy = kind == ProxyKind::GrpcProxy;
    // Any of the three files makes the listener a TLS one; self-made certificates only stand in for all of
    // them.
    let given = own != Files::default();
    let (tls, auto_tls) = (proxy && (given || auto), proxy && auto && !given);
    let scheme = match (kind, tls) {
        (ProxyKind::Gateway, _) => "tcp",
        (_, true) => "https",
        (_, false) => "http",
    };
    let default = Origin::Default { component: "etcd".to_owned(), version: None };
    let (address, listen_origin) = last("listen-addr").map_or_else(
        || ("127.0.0.1:23790".to_owned(), default),
        |(_, v, origin)| (v.clone(), origin.clone()),
    );
    let metrics = last("metrics-addr").filter(|_| proxy);
    // Endpoints are a list flag: the first occurrence replaces the default, later ones add to it.
    let endpoints: Vec<String> = flags
        .iter()
        .filter(|(name, ..)| name == "endpoints")
        .flat_map(|(_, value, _)| {
            value.split(',').map(|e| without_userinfo(e.trim()).into_owned()).collect::<Vec<_>>()
        })
        .filter(|endpoint| !endpoint.is_empty())
        .collect();
    let discovery_srv = text("discovery-srv");
    let endpoints = match (endpoints.is_empty(), &discovery_srv) {
        (true, None) => vec!["127.0.0.1:2379".to_owned()],
        _ => endpoints,
    };
    Some(ProxySettings {
        kind,
        listen: crate::etcd::url(&format!("{scheme}://{address}")),
        listen_origin,
        metrics: metrics.map(|(_, value, origin)| (crate::etcd::url(value), origin.clone())),
        endpoints,
        discovery_srv,
        upstream: Files { cert: text("cert"), key: text("key"), ca: text("cacert") },
        own,
        tls,
        auto_tls,
    })
}

/// Returns the flags in `arguments` as the `pflag` package reads them, with value and origin: two dashes, in
/// between other arguments, booleans with a value only after `=`.
fn parse(arguments: &[Argument]) -> Vec<(String, String, Origin)> {
    let mut flags = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(Argument { text, origin }) = arguments.next() {
        let text = String::from_utf8_lossy(text);
        let Some(rest) = text.strip_prefix("--") else { continue };
        if rest.is_empty() {
            break;
        }
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if BOOLEANS.contains(&rest) => (rest, "true".to_owned()),
            None => match arguments.next() {
                Some(next) => (rest, String::from_utf8_lossy(&next.text).into_owned()),
                None => break,
            },
        };
        flags.push((name.to_owned(), value, origin.clone()));
    }
    flags
}

const BOOLEANS: &[&str] = &[
    "auto-tls",
    "debug",
    "enable-pprof",
    "experimental-enable-grpc-logging",
    "experimental-serializable-ordering",
    "help",
    "insecure-discovery",
    "insecure-skip-tls-verify",
    "permit-without-stream",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(line: &str) -> Option<ProxySettings> {
        let arguments: Vec<Argument> = line
            .split_whitespace()
            .enumerate()
            .map(|(index, text)| Argument {
                text: text.as_bytes().to_vec(),
                origin: Origin::Argv { pid: 7, index: index as u32 + 1 },
            })
            .collect();
        resolve(&arguments)
    }

    #[test]
    fn the_own_listener_has_tls_when_it_is_given_files() {
        let cases = [
            ("grpc-proxy start", "http://127.0.0.1:23790", false, false),
            (
                "grpc-proxy start --listen-addr 0.0.0.0:2379 --cert /c --key /k --cacert /ca",
                "http://0.0.0.0:2379",
                false,
                false,
            ),
            (
                "grpc-proxy start --listen-addr=[::1]:2379 --cert-file=/c --key-file=/k",
                "https://[::1]:2379",
                true,
                false,
            ),
            ("grpc-proxy start --auto-tls", "https://127.0.0.1:23790", true, false),
            ("grpc-proxy start --auto-tls=false", "http://127.0.0.1:23790", false, false),
            ("grpc-proxy --debug start --trusted-ca-file /ca", "https://127.0.0.1:23790", true, true),
            ("gateway start --trusted-ca-file=/ca", "tcp://127.0.0.1:23790", false, false),
        ];
        for (line, url, tls, demands) in cases {
            let got = resolved(line).unwrap();
            let told = (got.listen.text.as_str(), got.tls, got.demands_client_certificate());
            assert_eq!(told, (url, tls, demands), "{line}");
        }
        assert_eq!(resolved("--name m1"), None);
        assert_eq!(resolved(""), None);
    }

    #[test]
    fn identity_and_endpoints_are_known() {
        let got = resolved(
            "grpc-proxy start --endpoints=https://a:2379,https://b:2379 --endpoints c:1 --cert /c --key=/k \
             --cacert /ca --metrics-addr http://127.0.0.1:9978",
        );
        let got = got.unwrap();
        assert_eq!(got.endpoints, ["https://a:2379", "https://b:2379", "c:1"]);
        let upstream = Files { cert: Some("/c".into()), key: Some("/k".into()), ca: Some("/ca".into()) };
        assert_eq!(got.upstream, upstream);
        assert_eq!(got.own, Files::default());
        assert_eq!(got.metrics.unwrap().0.port, Some(9978));
        assert_eq!(resolved("gateway start").unwrap().endpoints, ["127.0.0.1:2379"]);
    }
}
