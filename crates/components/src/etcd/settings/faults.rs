//! Why an etcd with these settings would refuse to start.

use std::collections::BTreeMap;
use std::net::IpAddr;

use seaworthy_evidence::{PredictedFailure, Purpose, Setting, Url};

use super::flags::{Parsed, shown};
use super::meaning::{self, Settings};
use super::{failure, is_url_list, too_long, values};
use crate::etcd::Version;

/// Returns why etcd `version` would exit at once with `settings`. `flags` are given when they and the
/// environment decided, and no configuration file did.
pub(super) fn find(
    settings: &BTreeMap<String, Setting>,
    flags: Option<&Parsed>,
    version: Option<Version>,
) -> Vec<PredictedFailure> {
    if too_long(settings).is_some() {
        return Vec::new(); // and the settings fail as a whole
    }
    let mut faults = Faults { settings, fatal: Vec::new() };
    faults.urls();
    faults.peers(version);
    faults.clients();
    faults.protocols();
    faults.state(flags);
    if let Some(flags) = flags {
        faults.advertised(flags);
    }
    faults.fatal
}

struct Faults<'a> {
    settings: &'a BTreeMap<String, Setting>,
    fatal: Vec<PredictedFailure>,
}

impl Faults<'_> {
    fn text(&self, name: &str) -> &str {
        self.settings.text(name)
    }

    fn add(&mut self, name: &str, message: impl Into<String>) {
        if let Some(setting) = self.settings.get(name) {
            self.fatal.push(failure(name, message, &setting.origin));
        }
    }

    fn urls(&mut self) {
        for (name, setting) in self.settings.iter().filter(|(name, s)| is_url_list(name) && s.set) {
            for text in setting.value.split(',') {
                let wrong = match Url::parse(text) {
                    Some(url) if !matches!(url.scheme.as_str(), "http" | "https" | "unix" | "unixs") => {
                        "URL scheme must be http, https, unix, or unixs"
                    }
                    Some(url) if url.port.is_some() && text.trim().matches('/').count() > 2 => {
                        "URL must not contain a path"
                    }
                    Some(url)
                        if name.starts_with("listen-")
                            && url.port.is_some()
                            && url.host != "localhost"
                            && url.host.parse::<IpAddr>().is_err() =>
                    {
                        "expected IP in URL for binding"
                    }
                    Some(_) => continue,
                    None => "URL address does not have the form \"host:port\"",
                };
                let message = format!("{wrong}: {}", text.trim());
                self.fatal.push(failure(name, message, &setting.origin));
            }
        }
        let mut seen: Vec<(String, u16)> = Vec::new();
        for (url, _) in meaning::listen_urls(self.settings, Purpose::Peer) {
            let Some(port) = url.port else { continue };
            if seen.iter().any(|(host, p)| (host, *p) == (&url.host, port)) {
                self.add("listen-peer-urls", format!("address already in use: {} is listed twice", url.text));
            }
            seen.push((url.host, port));
        }
    }

    /// The peer side loads its certificate whatever its listeners are.
    fn peers(&mut self, version: Option<Version>) {
        self.pair("peer-cert-file", "peer-key-file");
        let given = !self.text("peer-cert-file").is_empty() && !self.text("peer-key-file").is_empty();
        if given && version.is_none_or(|v| v.line() >= 5) {
            self.pair("peer-client-cert-file", "peer-client-key-file");
        }
        let (cn, host) = (self.text("peer-cert-allowed-cn"), self.text("peer-cert-allowed-hostname"));
        if given && !cn.is_empty() && !host.is_empty() {
            self.add("peer-cert-allowed-hostname", "AllowedCN and AllowedHostname are mutually exclusive");
        }
        let none = self.text("peer-cert-file").is_empty() && self.text("peer-key-file").is_empty();
        if none && !self.settings.on("peer-auto-tls") {
            let urls = meaning::listen_urls(self.settings, Purpose::Peer);
            if let Some((url, _)) = urls.iter().find(|(url, _)| url.is_tls()) {
                let message =
                    format!("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.text);
                self.add("listen-peer-urls", message);
            }
        }
    }

    /// The client side loads its certificate only for a listener with TLS.
    fn clients(&mut self) {
        let none = self.text("cert-file").is_empty() && self.text("key-file").is_empty();
        for purpose in [Purpose::Client, Purpose::Metrics] {
            let urls = meaning::listen_urls(self.settings, purpose);
            let Some((url, _)) = urls.iter().find(|(url, _)| url.is_tls()) else { continue };
            if !none {
                self.pair("cert-file", "key-file");
                return;
            }
            if !self.settings.on("auto-tls") {
                let message = format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for {} with HTTPS scheme",
                    url.text
                );
                let name =
                    if purpose == Purpose::Metrics { "listen-metrics-urls" } else { "listen-client-urls" };
                self.add(name, message);
            }
        }
    }

    fn pair(&mut self, cert: &str, key: &str) {
        let names = match (self.text(cert).is_empty(), self.text(key).is_empty()) {
            (true, false) => (cert, key),
            (false, true) => (key, cert),
            _ => return,
        };
        let (missing, given) = names;
        self.add(given, format!("KeyFile and CertFile must both be present: {missing} is not set"));
    }

    fn protocols(&mut self) {
        for name in ["tls-min-version", "tls-max-version"] {
            let value = shown(self.text(name));
            if !matches!(value.as_str(), "" | "TLS1.2" | "TLS1.3") {
                self.add(name, format!("unexpected TLS version {value:?} (must be one of: TLS1.2, TLS1.3)"));
            }
        }
        if self.text("tls-min-version") == "TLS1.3" {
            if self.text("tls-max-version") == "TLS1.2" {
                self.add("tls-max-version", "min version (TLS1.3) is greater than max version (TLS1.2)");
            }
            if !self.text("cipher-suites").is_empty() {
                let message = "cipher suites cannot be configured when only TLS1.3 is enabled";
                self.add("cipher-suites", message);
            }
        }
        let serves = meaning::listen_urls(self.settings, Purpose::Client).iter().any(|(url, _)| url.is_tls());
        if let Some(message) = values::refused_suites(self.text("cipher-suites"), serves) {
            self.add("cipher-suites", message);
        }
        let old = "experimental-peer-skip-client-san-verification";
        let new = "peer-skip-client-san-verification";
        if self.settings.get(old).is_some_and(|s| s.set) && self.settings.get(new).is_some_and(|s| s.set) {
            self.add(old, format!("cannot set --{old} and --{new} at the same time"));
        }
    }

    /// A file may say nothing, which counts as `existing`; a flag may not.
    fn state(&mut self, flags: Option<&Parsed>) {
        let name = "initial-cluster-state";
        let state = shown(self.text(name));
        if flags.and_then(|flags| flags.last(name)).is_some_and(|flag| flag.value.is_empty()) {
            self.add(name, "invalid value \"\": it is new or existing");
        } else if !matches!(state.as_str(), "" | "existing" | "new") {
            self.add(name, format!("unexpected clusterState {state:?}"));
        }
    }

    fn advertised(&mut self, flags: &Parsed) {
        let proxied = ["proxy", "discovery"].iter().any(|name| flags.last(name).is_some());
        let listens = self.settings.get("listen-client-urls").is_some_and(|s| !s.why.starts_with("not set"));
        if listens && !proxied && self.text("advertise-client-urls").is_empty() {
            let message = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
            self.add("listen-client-urls", message);
        }
    }
}
