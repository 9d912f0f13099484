//! Trust beyond etcd: the CAs that Kubernetes uses on this node, and the certificates it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rayon::prelude::*;
use seaworthy_components::etcd::settings;
use seaworthy_evidence::{
    CaUse, Certificate, Cluster, ErrorKind, EvidenceError, Impostor, Observed, Origin, Purpose, Setting,
    SharedCa, Url,
};
use seaworthy_host::root::Root;
use seaworthy_pki::{Parsed, Usage, acceptable_to, accepts_issuer, open_end};
use seaworthy_settings::Argument;

use super::super::material::{CLIENT, Content, Files, PEER, Reader};
use super::super::processes::{Found, Running};
use super::super::{Survey, tree};
use super::allowed::Restriction;
use super::server::Server;

/// The flags of kube-apiserver that name CAs (kube-apiserver reference, v1.34).
const CA_FLAGS: [&str; 3] =
    ["client-ca-file", "requestheader-client-ca-file", "kubelet-certificate-authority"];
/// The flags of kube-apiserver that name certificates which it presents, and to whom.
const IDENTITIES: [(&str, &str); 3] = [
    ("tls-cert-file", "the API server's own certificate"),
    ("kubelet-client-certificate", "the API server's certificate for kubelets"),
    ("proxy-client-cert-file", "the API server's certificate for its extensions"),
];
/// Files with the roots that the system trusts (Debian, Red Hat, SUSE): the end of many a way up.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// What Kubernetes trusts and holds on this node.
#[derive(Default)]
pub(crate) struct Trust {
    uses: Vec<CaUse>,
    authorities: Vec<Authority>,
    /// Certificates that Kubernetes presents, with their intermediate CAs: what issued them is an authority, too.
    presented: Vec<Presented>,
    held: Held,
    /// The first error that kept a CA or a certificate of Kubernetes from being read.
    error: Option<EvidenceError>,
}

/// A CA, and what it is used for.
#[derive(Clone)]
struct Authority {
    certificate: Parsed,
    other_use: String,
    origin: Origin,
}

/// A certificate that Kubernetes presents.
struct Presented {
    chain: Vec<Parsed>,
    what: &'static str,
    path: String,
    origin: Origin,
}

/// Certificates that lie on the node.
#[derive(Default)]
struct Held {
    /// The first certificate of each file, with the rest of the file behind it.
    chains: Vec<Vec<Parsed>>,
    /// SHA-256 of the certificates that another program is known to use as a client.
    of_clients: BTreeSet<String>,
    /// The folders whose files were all looked at.
    folders: BTreeSet<String>,
    /// The first error that may have hidden a certificate.
    error: Option<EvidenceError>,
}

impl Trust {
    /// Reads the CAs of the API servers that run here, or kubeadm's CA file where none runs, the certificates that API
    /// servers and kubelet present, and those in Kubernetes' folders and in the API server's `--etcd-certfile`.
    pub(crate) fn read(survey: &Survey<'_>, found: Option<&Found>) -> Self {
        let mut trust = Self::default();
        let mut servers = found.into_iter().flat_map(Found::api_servers).peekable();
        let none = servers.peek().is_none();
        for server in servers {
            trust.read_api_server(survey, server);
        }
        if none {
            for path in seaworthy_layouts::ALL.iter().flat_map(|layout| layout.authorities) {
                trust.read_ca(survey, survey.root, "Kubernetes' CA", path, true);
            }
        }
        for path in seaworthy_layouts::ALL.iter().filter_map(|layout| layout.kubelet_certificate) {
            trust.read_identity(survey, survey.root, "kubelet's certificate", path, true);
        }
        for folder in seaworthy_layouts::pki() {
            trust.held.folder(survey, survey.root, folder);
        }
        trust
    }

    /// Returns the CAs as evidence.
    pub(crate) fn uses(&self) -> Observed<Vec<CaUse>> {
        match &self.error {
            Some(error) => Observed::failed(error.clone()),
            None => Observed::seen(
                self.uses.clone(),
                Origin::derived("the API server's arguments and the PKI directory"),
            ),
        }
    }

    /// Returns the authorities that Kubernetes uses, and of which a CA that etcd trusts in `sides` accepts what they issue
    /// to clients: as Go decides it, when they send along any of the CA certificates on this node.
    pub(crate) fn shared(&self, survey: &Survey<'_>, sides: [&Files; 2]) -> Observed<Vec<SharedCa>> {
        let mut errors = sides.iter().filter_map(|files| files.trusted.as_ref()?.content.as_ref().err());
        if let Some(error) = errors.next().or(self.error.as_ref()) {
            return Observed::failed(error.clone());
        }
        let mut known = self.known(sides);
        let (mut shared, mut undecided) = self.shared_through(&known, sides, survey.options.now);
        if undecided.is_some() {
            known.extend(SYSTEM_ROOTS.iter().flat_map(|path| read_system_roots(survey, path)));
            (shared, undecided) = self.shared_through(&known, sides, survey.options.now);
        }
        let from = format!(
            "the CAs that etcd and Kubernetes use, and the {} CA certificates on this node that a client could send along",
            known.len()
        );
        match undecided.or_else(|| self.held.error.clone()) {
            Some(error) if shared.is_empty() => Observed::failed(error),
            _ => Observed::seen(shared, Origin::derived(from)),
        }
    }

    /// Returns the authorities of [`shared`](Self::shared) when the `known` can be sent along, and why that cannot be told of
    /// one of the others.
    fn shared_through(
        &self,
        known: &[Parsed],
        sides: [&Files; 2],
        now: jiff::Timestamp,
    ) -> (Vec<SharedCa>, Option<EvidenceError>) {
        let (mut shared, mut undecided): (Vec<SharedCa>, _) = (Vec::new(), None);
        let authorities = self.authorities(known);
        let trusted = sides.into_iter().filter_map(|files| Some((files.trusted.as_ref()?, files.roots())));
        for (trusted, roots) in trusted {
            for authority in &authorities {
                match accepts_issuer(&authority.certificate, known, roots, Usage::Client, now) {
                    Ok((way, from)) => {
                        let new = share(trusted, authority, &way, (from > now).then_some(from));
                        let told = |old: &SharedCa| old.spki == new.spki && old.other_use == new.other_use;
                        if !shared.iter().any(told) {
                            shared.push(new);
                        }
                    }
                    Err(_) => {
                        let end = open_end(&authority.certificate, known, roots);
                        let error = end.map(|end| open(trusted, authority, &end.certificate));
                        undecided = undecided.or(error);
                    }
                }
            }
            undecided = undecided.or_else(|| self.orphan(trusted, known));
        }
        (shared, undecided)
    }

    /// Returns the error for a certificate that Kubernetes presents and whose issuer is not among `known`.
    fn orphan(&self, trusted: &Content<Vec<Parsed>>, known: &[Parsed]) -> Option<EvidenceError> {
        self.presented.iter().find_map(|Presented { chain, what, path, origin }| {
            let leaf = chain.first()?;
            if leaf.certificate.self_signed || !seaworthy_pki::issuers(leaf, known).is_empty() {
                return None;
            }
            let other_use = format!("{what} {path}");
            let authority = Authority { certificate: leaf.clone(), other_use, origin: origin.clone() };
            Some(open(trusted, &authority, &leaf.certificate))
        })
    }

    /// Returns the CA certificates on this node, which whoever has a certificate can send along with it.
    fn known(&self, sides: [&Files; 2]) -> Vec<Parsed> {
        let of_etcd = sides.into_iter().flat_map(Files::certificates);
        let of_kubernetes = self.authorities.iter().map(|authority| &authority.certificate);
        let presented = self.presented.iter().flat_map(|presented| &presented.chain);
        let held = self.held.chains.iter().flatten();
        let mut seen = BTreeSet::new();
        let all = of_etcd.chain(of_kubernetes).chain(presented).chain(held);
        let cas = all.filter(|p| {
            (p.certificate.ca || p.certificate.self_signed) && seen.insert(p.certificate.fingerprint.clone())
        });
        cas.cloned().collect()
    }

    /// Returns the authorities that Kubernetes uses, each once with all its uses: those that it trusts, and those that
    /// issued what it presents.
    fn authorities(&self, known: &[Parsed]) -> Vec<Authority> {
        let issuers = self.presented.iter().flat_map(|Presented { chain, what, path, origin }| {
            let issuers = chain.first().into_iter().flat_map(|leaf| seaworthy_pki::issuers(leaf, known));
            issuers.map(move |issuer| Authority {
                certificate: issuer.clone(),
                other_use: format!("issuing {what} {path}"),
                origin: origin.clone(),
            })
        });
        let mut authorities: Vec<Authority> = Vec::new();
        for new in self.authorities.iter().cloned().chain(issuers) {
            let (subject, key) = (&new.certificate.certificate.subject, &new.certificate.certificate.key);
            let same = |old: &&mut Authority| {
                old.certificate.certificate.subject == *subject && old.certificate.certificate.key == *key
            };
            match authorities.iter_mut().find(same) {
                Some(old) => old.other_use = format!("{}, {}", old.other_use, new.other_use),
                None => authorities.push(new),
            }
        }
        authorities
    }

    /// Returns the certificates on this node that are no member's and that peers would accept nevertheless: those in
    /// Kubernetes' folders, those that Kubernetes presents, and, as the process sees them, in the folders of the files that the
    /// settings name. Any CA
    /// certificate on the node may be sent along with them. The names that peers must carry keep the others out.
    ///
    /// A member's are those of this etcd and of its `neighbours` in the cluster, and those that name a member.
    pub(crate) fn impostors(
        &self,
        survey: &Survey<'_>,
        running: &Running,
        settings: &BTreeMap<String, Setting>,
        restriction: Option<&Restriction>,
        sides: [&Files; 2],
        (cluster, neighbours): (&Observed<Cluster>, &[Neighbour]),
    ) -> Observed<Vec<Impostor>> {
        let [peer, client] = sides;
        let origin = Origin::derived("the certificates on this node and the peer CA");
        if let Some(Err(error)) = peer.trusted.as_ref().map(|t| &t.content) {
            return Observed::failed(error.clone());
        }
        let mut beside = Held::default();
        let mut folders: BTreeSet<String> = BTreeSet::new();
        let named = PEER.all().into_iter().chain(CLIENT.all()).filter_map(|name| settings.get(name));
        for path in named.filter(|s| s.set).map(|s| running.absolute(&s.value)) {
            match path {
                Ok(path) => folders.extend(path.rsplit_once('/').map(|(folder, _)| folder.to_owned())),
                Err(error) => {
                    beside.error.get_or_insert(error);
                }
            }
        }
        match &running.root {
            Ok(root) => {
                for folder in folders.difference(&self.held.folders) {
                    beside.folder(survey, root, folder);
                }
            }
            Err(error) => {
                beside.error.get_or_insert_with(|| error.clone());
            }
        }
        let mut seen: BTreeSet<&str> =
            peer.leaves().chain(client.leaves()).map(|p| p.certificate.fingerprint.as_str()).collect();
        let mut known = self.known(sides);
        known.extend(beside.chains.iter().flatten().filter(|p| p.certificate.ca).cloned());
        let mut impostors: Vec<Impostor> = Vec::new();
        let mut doubtful = None;
        let presented = self.presented.iter().map(|presented| &presented.chain);
        let candidates = self.held.chains.iter().chain(&beside.chains).chain(presented);
        for candidate in candidates.filter_map(|chain| chain.first()) {
            let certificate = &candidate.certificate;
            let Origin::File { path, .. } = &certificate.origin else { continue };
            if !seen.insert(&certificate.fingerprint) {
                continue;
            }
            let presenting = neighbours
                .iter()
                .find(|n| n.pid != running.pid() && n.presents.contains(&certificate.fingerprint));
            match cluster {
                Observed::Seen { value: cluster, .. }
                    if presenting.is_some_and(|neighbour| neighbour.is_in(cluster))
                        || !self.held.of_clients.contains(&certificate.fingerprint)
                            && names_a_member(certificate, cluster) =>
                {
                    continue;
                }
                Observed::Failed { error } if presenting.is_some() => {
                    doubtful.get_or_insert(error);
                    continue;
                }
                _ => {}
            }
            let way = acceptable_to(candidate, &known, peer.roots(), survey.options.now);
            let Some(way) = way else { continue };
            match restriction.map_or(Ok(true), |restriction| restriction.admits(certificate)) {
                Ok(true) => impostors.push(impostor(path, certificate, &way, restriction)),
                Ok(false) => {}
                Err(error) => {
                    beside.error.get_or_insert(error);
                }
            }
        }
        // One that was found is proof enough; that there is none is proved only by what could all be read.
        match self.held.error.as_ref().or(beside.error.as_ref()).or(doubtful) {
            Some(error) if impostors.is_empty() => Observed::failed(error.clone()),
            _ => Observed::seen(impostors, origin),
        }
    }

    fn read_api_server(&mut self, survey: &Survey<'_>, server: &Running) {
        let root = match &server.root {
            Ok(root) => root,
            Err(error) => {
                self.error.get_or_insert_with(|| error.clone());
                return;
            }
        };
        // What a flag names is below the working directory of the API server, unless it is absolute.
        let mut named = |flag: &str| match flag_value(&server.argv, flag).map(|path| server.absolute(&path)) {
            Some(Ok(path)) => Some(path),
            Some(Err(error)) => {
                self.error.get_or_insert(error);
                None
            }
            None => None,
        };
        let identities = IDENTITIES.map(|(flag, what)| (what, named(flag)));
        let client = named("etcd-certfile");
        let cas: Vec<_> = CA_FLAGS.into_iter().filter_map(|flag| Some((flag, named(flag)?))).collect();
        for (flag, path) in cas {
            self.read_ca(survey, root, &format!("kube-apiserver --{flag}"), &path, false);
        }
        for (what, path) in identities.into_iter().filter_map(|(what, path)| Some((what, path?))) {
            self.read_identity(survey, root, what, &path, false);
        }
        if let Some(path) = client {
            let before = self.held.chains.len();
            self.held.file(survey, root, &path);
            let read = self.held.chains.iter().skip(before).filter_map(|chain| chain.first());
            self.held.of_clients.extend(read.map(|leaf| leaf.certificate.fingerprint.clone()));
        }
    }

    fn read_ca(&mut self, survey: &Survey<'_>, root: &Root, purpose: &str, path: &str, optional: bool) {
        let Some(list) = self.certificates(survey, root, path, optional) else { return };
        let spkis = list.iter().map(|p| p.certificate.key.spki.clone()).collect();
        self.uses.push(CaUse { purpose: purpose.to_owned(), path: path.to_owned(), spkis });
        self.authorities.extend(list.into_iter().map(|certificate| Authority {
            certificate,
            other_use: format!("{purpose} {path}"),
            origin: root.origin(path),
        }));
    }

    fn read_identity(
        &mut self,
        survey: &Survey<'_>,
        root: &Root,
        what: &'static str,
        path: &str,
        optional: bool,
    ) {
        let Some(chain) = self.certificates(survey, root, path, optional) else { return };
        self.presented.push(Presented { chain, what, path: path.to_owned(), origin: root.origin(path) });
    }

    /// Returns the certificates in a file. The first error is remembered; that an optional file is not there is none.
    fn certificates(
        &mut self,
        survey: &Survey<'_>,
        root: &Root,
        path: &str,
        optional: bool,
    ) -> Option<Vec<Parsed>> {
        let read = root
            .read(path, 1 << 20)
            .and_then(|b| seaworthy_pki::certificates_from_pem(&b, root.origin(path), survey.options.now));
        match read {
            Ok(list) => Some(list),
            Err(error) if optional && error.kind == ErrorKind::NotFound => None,
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

/// Returns what it means that `trusted` accepts what `authority` issues, by the `way` from the one to the other.
fn share(
    trusted: &Content<Vec<Parsed>>,
    authority: &Authority,
    way: &[&Parsed],
    from: Option<jiff::Timestamp>,
) -> SharedCa {
    let root = way.last().map_or(&authority.certificate.certificate, |root| &root.certificate);
    let (subject, path, other_use) = (&root.subject, &trusted.path, &authority.other_use);
    let own = &authority.certificate.certificate.subject;
    let cost = match from {
        Some(from) => format!("so from {from} on certificates that were not meant for etcd open it"),
        None => "so certificates that were not meant for etcd open it".to_owned(),
    };
    let message = match through(way) {
        None => format!("{subject} in {path} is also used for {other_use}, {cost}"),
        Some(through) => format!(
            "{subject} in {path} accepts what {own} issues, which is used for {other_use} (through {through}), {cost}"
        ),
    };
    SharedCa {
        path: path.clone(),
        subject: subject.clone(),
        spki: root.key.spki.clone(),
        through: way.iter().map(|p| p.certificate.subject.clone()).collect(),
        message,
        other_use: other_use.clone(),
        origin: authority.origin.clone(),
    }
}

/// Returns the error for an authority of which it cannot be told whether etcd accepts what it issues: the issuer of `end`
/// is not known.
fn open(trusted: &Content<Vec<Parsed>>, authority: &Authority, end: &Certificate) -> EvidenceError {
    let message = format!(
        "{} ({}) was issued by {}, whose certificate is nowhere that was looked, so whether {} accepts what is issued there \
         cannot be told: looked at were the files of etcd, kubelet and the API servers, the folders of the PKI, and the roots of the \
         system",
        end.subject, authority.other_use, end.issuer, trusted.path,
    );
    EvidenceError::new(ErrorKind::NotFound, message).at(authority.origin.clone())
}

/// Returns the certificates of `way` but its last in words: each by its subject and its file. `None` where there is none.
fn through(way: &[&Parsed]) -> Option<String> {
    let words = way.split_last()?.1.iter().map(|p| match &p.certificate.origin {
        Origin::File { path, .. } => format!("{} in {path}", p.certificate.subject),
        _ => p.certificate.subject.clone(),
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(", then "))
}

/// Returns the certificates in a file of the system's roots, if it is there.
fn read_system_roots(survey: &Survey<'_>, path: &str) -> Vec<Parsed> {
    let root = survey.root;
    let bytes = root.read(path, 1 << 20);
    let read =
        |bytes: Vec<u8>| seaworthy_pki::certificates_from_pem(&bytes, root.origin(path), survey.options.now);
    bytes.and_then(read).unwrap_or_default()
}

fn impostor(
    path: &str,
    certificate: &Certificate,
    way: &[&Parsed],
    restriction: Option<&Restriction>,
) -> Impostor {
    let subject = &certificate.subject;
    let issued = match through(way.get(1..).unwrap_or_default()) {
        None => "is issued by the peer CA for client authentication".to_owned(),
        Some(through) => format!("is accepted by the peer CA for client authentication (through {through})"),
    };
    let named = restriction.map(|r| format!(", and carries a name that {} admits", r.setting));
    let anywhere = certificate.sans.ip.is_empty() && certificate.sans.dns.is_empty();
    let from = if anywhere { ", from any address" } else { "" };
    let message = format!(
        "{path} ({subject}) {issued}{}, so whoever holds its key can act as a member{from}",
        named.unwrap_or_default()
    );
    let (path, subject) = (path.to_owned(), subject.clone());
    Impostor { path, subject, message, origin: certificate.origin.clone() }
}

impl Held {
    /// Remembers the certificates in the files in and below a folder.
    fn folder(&mut self, survey: &Survey<'_>, root: &Root, folder: &str) {
        match tree::walk(root, folder) {
            Ok(paths) if paths.is_empty() => return,
            Ok(paths) => {
                let named = |path: &&String| path.ends_with(".crt") || path.ends_with(".pem");
                let read = |path: &String| certificates(survey, root, path);
                for list in paths.par_iter().filter(named).map(read).collect::<Vec<_>>() {
                    self.keep(list);
                }
            }
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        }
        self.folders.insert(folder.to_owned());
    }

    /// Remembers the certificates in the file `path`, if it holds any.
    fn file(&mut self, survey: &Survey<'_>, root: &Root, path: &str) {
        self.keep(certificates(survey, root, path));
    }

    fn keep(&mut self, read: Result<Vec<Parsed>, EvidenceError>) {
        match read {
            Ok(list) => self.chains.push(list),
            Err(error) if matches!(error.kind, ErrorKind::PermissionDenied | ErrorKind::Io) => {
                self.error.get_or_insert(error);
            }
            Err(_) => {}
        }
    }
}

fn certificates(survey: &Survey<'_>, root: &Root, path: &str) -> Result<Vec<Parsed>, EvidenceError> {
    seaworthy_pki::certificates_from_pem(&root.read(path, 1 << 20)?, root.origin(path), survey.options.now)
}

/// Another etcd of this node.
pub(crate) struct Neighbour {
    pid: u32,
    /// SHA-256 of the certificates that it presents.
    presents: BTreeSet<String>,
    /// Where its peers are told to dial it.
    urls: Vec<Url>,
}

impl Neighbour {
    /// Returns what the others of its node need to know of `server`; `None` where its settings are not known.
    pub(crate) fn of(survey: &Survey<'_>, server: &Server<'_>) -> Option<Self> {
        let settings = server.resolved.settings.value()?;
        let reader = Reader::of_process(server.running);
        let sides = [&PEER, &CLIENT].map(|names| Files::without_keys(survey, &reader, settings, names));
        let leaves = sides.iter().flat_map(Files::leaves);
        Some(Self {
            pid: server.running.pid(),
            presents: leaves.map(|leaf| leaf.certificate.fingerprint.clone()).collect(),
            urls: settings::advertised(settings, Purpose::Peer).into_iter().map(|(url, _)| url).collect(),
        })
    }

    /// Returns whether it is a member of `cluster`: one of them is dialled where it is.
    fn is_in(&self, cluster: &Cluster) -> bool {
        let dialled = cluster.members.iter().flat_map(|member| &member.peer_urls);
        dialled
            .into_iter()
            .any(|url| self.urls.iter().any(|own| (&own.host, own.port) == (&url.host, url.port)))
    }
}

/// Returns whether `certificate` is made for a member of `cluster`: it names the host at which one is dialled, and is good
/// for serving and for dialling, both of which members do.
fn names_a_member(certificate: &Certificate, cluster: &Cluster) -> bool {
    let sans = &certificate.sans;
    let good_for = |usage: &str| {
        certificate.usages.as_ref().is_none_or(|all| all.iter().any(|u| u == usage || u == "any"))
    };
    let hosts = cluster.members.iter().flat_map(|member| &member.peer_urls).map(|url| &url.host);
    let here = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    good_for("serverAuth")
        && good_for("clientAuth")
        && hosts.filter(|host| !here(host)).any(|host| sans.ip.contains(host) || sans.dns.contains(host))
}

/// Returns the last value of a flag of a Kubernetes component (spf13/pflag): `--flag=value` or `--flag value`. Kubernetes
/// takes underscores in the name of a flag for hyphens.
pub(crate) fn flag_value(argv: &[Argument], flag: &str) -> Option<String> {
    flag_values(argv, flag).pop()
}

/// Returns every value of a flag, in order.
pub(crate) fn flag_values(argv: &[Argument], flag: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut arguments = argv.iter().skip(1).map(|a| &a.text);
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.strip_prefix(b"--") else { continue };
        let (name, given) = match rest.iter().position(|b| *b == b'=') {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
            None => (rest, None),
        };
        if name.iter().map(|b| if *b == b'_' { b'-' } else { *b }).eq(flag.bytes()) {
            values.extend(given.map(<[u8]>::to_vec).or_else(|| arguments.next().cloned()));
        }
    }
    values.into_iter().map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::super::super::Options;
    use super::super::super::material::Content;
    use super::*;
    use seaworthy_host::users::Users;

    fn options(root: &Path) -> Options {
        Options {
            root: root.to_owned(),
            wire: false,
            observe: None,
            timeout: std::time::Duration::ZERO,
            layout: None,
            patience: std::time::Duration::ZERO,
            now: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn held(root: &Path, folder: &str) -> Held {
        let (options, host, users) = (options(root), Root::host(root).unwrap(), Users::default());
        let survey = Survey { options: &options, root: &host, users: &users };
        let mut held = Held::default();
        held.folder(&survey, &host, folder);
        held
    }

    #[test]
    fn what_could_not_be_read_is_remembered_and_what_is_no_certificate_is_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pki")).unwrap();
        let file = directory.path().join("pki/a.crt");
        std::fs::write(&file, "no certificate").unwrap();
        let read = held(directory.path(), "/pki");
        assert!(read.error.is_none() && read.folders.contains("/pki"));
        assert!(held(directory.path(), "/missing").error.is_none());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
        if !rustix::process::geteuid().is_root() {
            let error = held(directory.path(), "/pki").error.unwrap();
            assert_eq!(error.kind, ErrorKind::PermissionDenied);
        }
    }

    fn shared(trust: &Trust, sides: [&Files; 2], now: jiff::Timestamp) -> Observed<Vec<SharedCa>> {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { now, ..options(directory.path()) };
        let (host, users) = (Root::host(directory.path()).unwrap(), Users::default());
        trust.shared(&Survey { options: &options, root: &host, users: &users }, sides)
    }

    /// Returns what is known of CAs when these API servers run.
    fn with_api_servers(argvs: &[&[&str]]) -> Trust {
        let (options, host, users) = (options(Path::new("/")), Root::host("/").unwrap(), Users::default());
        let survey = Survey { options: &options, root: &host, users: &users };
        let mut trust = Trust::default();
        for argv in argvs {
            trust.read_api_server(&survey, &Running::ourselves(argv));
        }
        trust
    }

    #[test]
    fn what_an_api_server_names_relatively_is_below_its_working_directory() {
        let ca = "../pki/testdata/v1-ca.crt";
        let absolute = format!("{}/{ca}", std::env::current_dir().unwrap().display());
        let trust = with_api_servers(&[&[
            "kube-apiserver",
            &format!("--client_ca_file={ca}"),
            "--tls-cert-file",
            "../pki/testdata/v1-leaf.crt",
            "--etcd-certfile=../pki/testdata/md5-leaf.crt",
        ]]);
        let uses = trust.uses();
        let uses: Vec<_> = uses.value().expect("all could be read").iter().collect();
        assert_eq!((uses.len(), uses[0].path.as_str(), uses[0].spkis.len()), (1, absolute.as_str(), 1));
        assert_eq!((trust.presented.len(), trust.held.chains.len()), (1, 1));
    }

    #[test]
    fn the_certificate_of_every_api_server_counts_and_one_that_cannot_be_read_is_not_none() {
        let serving = |path: &str| format!("--tls-cert-file=../pki/testdata/{path}");
        let (good, missing) = (serving("v1-leaf.crt"), serving("missing.crt"));
        let argvs: [&[&str]; 2] = [&["kube-apiserver", &good], &["kube-apiserver", &missing]];
        let trust = with_api_servers(&argvs);
        assert_eq!(trust.presented.len(), 1);
        assert_eq!(trust.uses().error().map(|e| e.kind), Some(ErrorKind::NotFound));
        let trusted = || Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: None,
            revocations: None,
        };
        let shared = shared(&trust, [&trusted(), &trusted()], jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(shared.error().map(|e| e.kind), Some(ErrorKind::NotFound));
        assert_eq!(with_api_servers(&[argvs[0], argvs[0]]).presented.len(), 2);
    }

    #[test]
    fn an_expired_certificate_of_an_api_server_tells_its_ca_too() {
        use rcgen::{
            BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
            date_time_ymd,
        };
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&key).unwrap().pem();
        let mut leaf = CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca, key)).unwrap().pem();
        let now = "2027-06-01T12:00:00Z".parse().unwrap();
        let origin = || Origin::file("/x");
        let parsed = |pem: &str| seaworthy_pki::certificates_from_pem(pem.as_bytes(), origin(), now);
        let serving = Presented {
            chain: parsed(&leaf).unwrap(),
            what: "its certificate",
            path: "/apiserver.crt".to_owned(),
            origin: origin(),
        };
        let trust = Trust { presented: vec![serving], ..Trust::default() };
        let etcd = || Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: Some(Content {
                path: "/ca.crt".to_owned(),
                origin: origin(),
                content: parsed(&root),
                refusal: Ok(None),
            }),
            revocations: None,
        };
        let shared = shared(&trust, [&etcd(), &etcd()], now);
        let [one] = &shared.value().unwrap()[..] else { panic!("{shared:?}") };
        assert!(one.other_use.contains("/apiserver.crt"), "{}", one.other_use);
    }

    /// Returns the parsed certificate of a CA below another one, or below none.
    fn authority(name: &str, below: Option<&(rcgen::CertificateParams, rcgen::KeyPair)>) -> Made {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = match below {
            None => params.self_signed(&key),
            Some((above, signer)) => params.signed_by(&key, &rcgen::Issuer::from_params(above, signer)),
        };
        let origin = Origin::file(format!("/{name}.crt"));
        let parsed =
            Parsed::from_der(certificate.unwrap().der(), origin, jiff::Timestamp::UNIX_EPOCH).unwrap();
        (parsed, (params, key))
    }

    type Made = (Parsed, (rcgen::CertificateParams, rcgen::KeyPair));

    #[test]
    fn an_authority_is_shared_where_etcd_accepts_what_it_issues_whoever_signed_it() {
        let (root, root_key) = authority("root", None);
        let (middle, middle_key) = authority("middle", Some(&root_key));
        let (kube, _) = authority("kube", Some(&middle_key));
        let (etcd, _) = authority("etcd", None);
        let (alone, _) = authority("kube", None);
        let trusted = |ca: &Parsed| Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: Some(Content {
                path: "/etcd.crt".to_owned(),
                origin: Origin::file("/etcd.crt"),
                content: Ok(vec![ca.clone()]),
                refusal: Ok(None),
            }),
            revocations: None,
        };
        // What etcd trusts, what the API server does, which other CAs lie there, and what that must say.
        let cases = [
            (&etcd, &alone, &root, Ok("")),
            (
                &root,
                &kube,
                &middle,
                Ok(
                    "CN=root in /etcd.crt accepts what CN=kube issues, which is used for clients /kube.crt (through \
                    CN=kube in /kube.crt, then CN=middle in /middle.crt), so certificates",
                ),
            ),
            (&middle, &kube, &etcd, Ok("CN=middle in /etcd.crt accepts what CN=kube issues")),
            (&kube, &kube, &etcd, Ok("CN=kube in /etcd.crt is also used for clients /kube.crt, so")),
            (&kube, &middle, &root, Ok("")),
            (&root, &kube, &etcd, Err("CN=kube (clients /kube.crt) was issued by CN=middle, whose")),
        ];
        for (of_etcd, of_kubernetes, other, want) in cases {
            let authority = Authority {
                certificate: of_kubernetes.clone(),
                other_use: "clients /kube.crt".to_owned(),
                origin: Origin::file("/kube.crt"),
            };
            let held = Held { chains: vec![vec![other.clone()]], ..Held::default() };
            let trust = Trust { authorities: vec![authority], held, ..Trust::default() };
            let now = "2027-06-01T12:00:00Z".parse().unwrap();
            let shared = shared(&trust, [&trusted(of_etcd), &trusted(of_etcd)], now);
            let said = |shared: &Vec<SharedCa>| {
                assert!(shared.len() < 2, "{shared:?}");
                shared.first().map(|s| s.message.clone()).unwrap_or_default()
            };
            let got = shared.as_result().map(said).map_err(|e| e.message);
            let names = [of_etcd, of_kubernetes].map(|p| &p.certificate.subject);
            match (got, want) {
                (Ok(got), Ok("")) => assert_eq!(got, "", "{names:?}"),
                (Ok(got), Ok(want)) | (Err(got), Err(want)) => {
                    assert!(got.starts_with(want), "{names:?}: {got}")
                }
                (got, want) => panic!("{names:?}: {got:?} and not {want:?}"),
            }
        }
    }

    #[test]
    fn a_certificate_that_is_made_for_a_member_names_it() {
        let url = |text: &str| Url::parse(text).unwrap();
        let member = |name: &str, peer: &str| seaworthy_evidence::Member {
            id: String::new(),
            name: name.to_owned(),
            peer_urls: vec![url(peer)],
            client_urls: Vec::new(),
            learner: false,
            this: false,
        };
        let cluster = Cluster {
            members: vec![
                member("m1", "https://127.0.0.1:2380"),
                member("m2", "https://10.0.0.2:2380"),
                member("m3", "https://node-3:2380"),
            ],
            source: seaworthy_evidence::MemberSource::Live,
            established: String::new(),
        };
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let cases: [(&[&str], &[rcgen::ExtendedKeyUsagePurpose], bool); 8] = [
            (&["10.0.0.2"], &[ServerAuth, ClientAuth], true),
            (&["node-3", "10.0.0.9"], &[ServerAuth, ClientAuth], true),
            (&["10.0.0.2"], &[], true),
            (&["10.0.0.2"], &[ClientAuth], false),
            (&["10.0.0.2"], &[ServerAuth], false),
            (&["127.0.0.1", "localhost"], &[ServerAuth, ClientAuth], false),
            (&["10.0.0.22"], &[ServerAuth, ClientAuth], false),
            (&[], &[ServerAuth, ClientAuth], false),
        ];
        for (names, usages, want) in cases {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.extended_key_usages = usages.to_vec();
            let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
            let now = jiff::Timestamp::UNIX_EPOCH;
            let parsed =
                seaworthy_pki::certificates_from_pem(pem.as_bytes(), Origin::file("/x"), now).unwrap();
            assert_eq!(names_a_member(&parsed[0].certificate, &cluster), want, "{:?}", parsed[0].certificate);
        }
        let neighbour = |peer: &str| Neighbour { pid: 1, presents: BTreeSet::new(), urls: vec![url(peer)] };
        assert!(neighbour("https://10.0.0.2:2380").is_in(&cluster));
        assert!(!neighbour("https://10.0.0.2:3380").is_in(&cluster), "it is of another cluster");
    }

    #[test]
    fn what_issued_a_certificate_that_kubernetes_presents_is_an_authority_or_unknown() {
        let (root, root_key) = authority("root", None);
        let (middle, middle_key) = authority("middle", Some(&root_key));
        let (leaf, _) = authority("apiserver", Some(&middle_key));
        let (etcd, _) = authority("etcd", None);
        let files = Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: Some(Content {
                path: "/etcd.crt".to_owned(),
                origin: Origin::file("/etcd.crt"),
                content: Ok(vec![etcd]),
                refusal: Ok(None),
            }),
            revocations: None,
        };
        let directory = tempfile::tempdir().unwrap();
        let told = |chain: &[&Parsed]| {
            let presented = Presented {
                chain: chain.iter().map(|p| (*p).clone()).collect(),
                what: "the certificate",
                path: "/apiserver.crt".to_owned(),
                origin: Origin::file("/apiserver.crt"),
            };
            let trust = Trust { presented: vec![presented], ..Trust::default() };
            let (host, users) = (Root::host(directory.path()).unwrap(), Users::default());
            let options =
                Options { now: "2027-06-01T12:00:00Z".parse().unwrap(), ..options(directory.path()) };
            let survey = Survey { options: &options, root: &host, users: &users };
            let shared = trust.shared(&survey, [&files, &files]);
            shared.as_result().map(Vec::len).map_err(|error| error.message)
        };
        let issued_by = |got: Result<usize, String>, issuer: &str| {
            let message = got.expect_err(issuer);
            assert!(
                message.contains(&format!("was issued by {issuer}, whose certificate is nowhere")),
                "{message}"
            );
        };
        issued_by(told(&[&leaf]), "CN=middle");
        issued_by(told(&[&leaf, &middle]), "CN=root");
        assert_eq!(told(&[&leaf, &middle, &root]), Ok(0));
        // The way up may end among the roots of the system.
        let pem = root_key.0.self_signed(&root_key.1).unwrap().pem();
        std::fs::create_dir_all(directory.path().join("etc/ssl/certs")).unwrap();
        std::fs::write(directory.path().join("etc/ssl/certs/ca-certificates.crt"), pem).unwrap();
        assert_eq!(told(&[&leaf, &middle]), Ok(0));
        issued_by(told(&[&leaf]), "CN=middle");
    }

    #[test]
    fn flags_of_kubernetes_are_read_as_it_reads_them() {
        let cases: [(&[&str], Option<&str>); 7] = [
            (&["--client-ca-file=/a"], Some("/a")),
            (&["--client-ca-file", "/a"], Some("/a")),
            (&["--client_ca-file=/a=b"], Some("/a=b")),
            (&["--client-ca-file=/a", "--client-ca-file=/b"], Some("/b")),
            (&["--client-ca-file-x=/a", "-client-ca-file=/a", "client-ca-file=/a"], None),
            (&["--requestheader-client-ca-file=/a"], None),
            (&["--client-ca-file"], None),
        ];
        for (arguments, want) in cases {
            let running = Running::ourselves(&[&["kube-apiserver"], arguments].concat());
            assert_eq!(flag_value(&running.argv, "client-ca-file").as_deref(), want, "{arguments:?}");
        }
    }

    #[test]
    fn a_ca_that_cannot_be_read_is_not_known_to_be_unshared() {
        let trusted = |content| Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: Some(Content {
                path: "/ca.crt".to_owned(),
                origin: Origin::file("/ca.crt"),
                content,
                refusal: Ok(None),
            }),
            revocations: None,
        };
        let error = |message: &str| EvidenceError::new(ErrorKind::Malformed, message);
        let blind = Trust { error: Some(error("the API server's")), ..Trust::default() };
        let cases = [
            (Trust::default(), Ok(Vec::new()), None),
            (Trust::default(), Err(error("etcd's")), Some("etcd's")),
            (blind, Ok(Vec::new()), Some("the API server's")),
        ];
        for (trust, content, want) in cases {
            let sides = [&trusted(content), &trusted(Ok(Vec::new()))];
            let shared = shared(&trust, sides, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(shared.error().map(|e| e.message.as_str()), want);
        }
    }
}
