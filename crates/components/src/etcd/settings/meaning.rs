//! What settled settings mean for the transport.

use std::collections::BTreeMap;

use crate::etcd::Version;
use crate::etcd::version::LISTS;
use seaworthy_evidence::{AutoTls, ClientAuth, Member, Origin, Purpose, Setting, Url};

/// Returns the URLs that etcd listens on for `purpose`, each with the origin of its setting.
///
/// Clients are listened for on `listen-client-urls` and `listen-client-http-urls`.
pub fn listen_urls(settings: &BTreeMap<String, Setting>, purpose: Purpose) -> Vec<(Url, Origin)> {
    let names: &[&str] = match purpose {
        Purpose::Client => &["listen-client-urls", "listen-client-http-urls"],
        Purpose::Metrics => &["listen-metrics-urls"],
        Purpose::Peer => &["listen-peer-urls"],
        _ => &[],
    };
    names.iter().flat_map(|name| urls(settings, name)).collect()
}

/// Returns the URLs that etcd's settings advertise to peers or clients; nothing is advertised for metrics.
///
/// Once a member has joined, the membership decides what peers dial, and not `initial-advertise-peer-urls`.
pub fn advertised(settings: &BTreeMap<String, Setting>, purpose: Purpose) -> Vec<(Url, Origin)> {
    match purpose {
        Purpose::Client => urls(settings, "advertise-client-urls"),
        Purpose::Peer => urls(settings, "initial-advertise-peer-urls"),
        _ => Vec::new(),
    }
}

/// Returns whether the TLS listeners for `purpose` demand client certificates.
///
/// etcd demands and verifies them when a trusted CA is configured or the flag is set: either is enough.
/// Without a CA it verifies against the roots of the system. Self-made certificates (auto-TLS) replace all of
/// it: then nothing is demanded, whatever the settings say. Metrics listeners share the settings of clients.
pub fn client_auth(settings: &BTreeMap<String, Setting>, purpose: Purpose) -> ClientAuth {
    let prefix = prefix(purpose);
    let (flag_name, ca_name) =
        (side(purpose, "peer-client-cert-auth", "client-cert-auth"), format!("{prefix}trusted-ca-file"));
    let flag = settings.on(flag_name);
    let ca = settings.text(&ca_name);
    let no_certificate = settings.text(&format!("{prefix}cert-file")).is_empty()
        && settings.text(&format!("{prefix}key-file")).is_empty();
    if no_certificate && settings.on(&format!("{prefix}auto-tls")) {
        let why = format!(
            "not demanded: {prefix}auto-tls replaces the TLS settings, {ca_name} and {flag_name} included"
        );
        return ClientAuth { enforced: false, flag, system_roots: false, why };
    }
    let why = match (flag, ca.is_empty()) {
        (true, false) => format!("demanded and verified against {ca}"),
        (false, false) => {
            let flag = match settings.get(flag_name) {
                Some(setting) if setting.set => format!("although {flag_name} is false"),
                _ => format!("even without {flag_name}"),
            };
            format!("demanded and verified against {ca}, because {ca_name} alone is enough {flag}")
        }
        (true, true) => {
            format!(
                "demanded, but verified against the system's public roots, because {ca_name} is {}",
                settings.why(&ca_name)
            )
        }
        (false, true) => {
            let off = if settings.set(flag_name) { "false, " } else { "" };
            format!(
                "not demanded: {flag_name} is {off}{}, and {ca_name} is {}",
                settings.why(flag_name),
                settings.why(&ca_name)
            )
        }
    };
    ClientAuth { enforced: flag || !ca.is_empty(), flag, system_roots: flag && ca.is_empty(), why }
}

/// Returns the names in the setting `name`, which was one name and is a list since 3.5.15 and 3.6. Nothing is trimmed.
/// Where the release is not known and the two differ, both readings are returned; an empty one restricts nothing.
pub fn allowed_names(
    settings: &BTreeMap<String, Setting>,
    name: &str,
    version: Option<Version>,
) -> Vec<Vec<String>> {
    let text = settings.text(name);
    let one: Vec<String> = (!text.is_empty()).then(|| text.to_owned()).into_iter().collect();
    // A flag with nothing behind it is a list with one name, which is empty.
    let flag = settings.get(name).is_some_and(|s| matches!(s.origin, Origin::Argv { .. }));
    let list = match text.is_empty() && !flag {
        true => Vec::new(),
        false => text.split(',').map(str::to_owned).collect(),
    };
    match version.and_then(|version| version.reached_for_certain(LISTS)) {
        Some(true) => vec![list],
        Some(false) => vec![one],
        None if one == list => vec![one],
        None => vec![one, list],
    }
}

/// Returns whether self-made certificates are asked for and in effect for `purpose`.
///
/// etcd ignores the flag when it is given a certificate or a key, and it changes nothing where no listener
/// has TLS.
pub fn auto_tls(settings: &BTreeMap<String, Setting>, purpose: Purpose) -> AutoTls {
    let prefix = prefix(purpose);
    let name = format!("{prefix}auto-tls");
    let requested = settings.on(&name);
    let given = ["cert-file", "key-file"].map(|leaf| format!("{prefix}{leaf}"));
    let given = given.iter().find(|name| !settings.text(name).is_empty());
    let tls = listen_urls(settings, purpose).iter().any(|(url, _)| url.is_tls());
    let why = match (requested, given, tls) {
        (false, ..) => {
            format!("{name} is {}", if settings.set(&name) { "false" } else { settings.why(&name) })
        }
        (true, Some(given), _) => format!("{name} is ignored because {given} is set"),
        (true, None, false) => format!("{name} changes nothing because no listener has TLS"),
        (true, None, true) => {
            format!("{name} is in effect: etcd serves a certificate that it made and signed itself")
        }
    };
    AutoTls { requested, in_effect: requested && given.is_none() && tls, why }
}

/// Returns the members that the `initial-cluster` setting names, in its order.
///
/// It counts only when a cluster is first made and is often stale. A name may come with several URLs.
pub fn initial_cluster(settings: &BTreeMap<String, Setting>) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    let own = settings.text("name");
    for pair in settings.text("initial-cluster").split(',') {
        let Some((name, url)) = pair.split_once('=') else { continue };
        let (name, url) = (name.trim(), crate::etcd::url(url));
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => members.push(Member {
                id: String::new(),
                name: name.to_owned(),
                peer_urls: vec![url],
                client_urls: Vec::new(),
                learner: false,
                this: name == own,
            }),
        }
    }
    members
}

/// Short ways into a map of settings.
pub(super) trait Settings {
    fn get(&self, name: &str) -> Option<&Setting>;

    fn text(&self, name: &str) -> &str {
        self.get(name).map_or("", |setting| &setting.value)
    }

    fn on(&self, name: &str) -> bool {
        self.get(name).and_then(|setting| setting.on).unwrap_or(false)
    }

    fn set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|setting| setting.set)
    }

    fn why(&self, name: &str) -> &str {
        self.get(name).map_or("not set", |setting| &setting.why)
    }
}

impl Settings for BTreeMap<String, Setting> {
    fn get(&self, name: &str) -> Option<&Setting> {
        self.get(name)
    }
}

fn urls(settings: &BTreeMap<String, Setting>, name: &str) -> Vec<(Url, Origin)> {
    let Some(setting) = settings.get(name) else { return Vec::new() };
    let texts = setting.value.split(',').filter(|text| !text.trim().is_empty());
    texts.map(|text| (crate::etcd::url(text), setting.origin.clone())).collect()
}

fn prefix(purpose: Purpose) -> &'static str {
    side(purpose, "peer-", "")
}

fn side<T>(purpose: Purpose, peer: T, client: T) -> T {
    if purpose == Purpose::Peer { peer } else { client }
}
