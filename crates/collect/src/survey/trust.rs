//! Trust beyond etcd: the CAs that Kubernetes uses on this node, and the certificates it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seaworthy_etcd::settings;
use seaworthy_evidence::{
    CaUse, Certificate, Cluster, ErrorKind, EvidenceError, Impostor, Observed, Origin, Purpose, Setting,
    SharedCa, Url,
};
use seaworthy_pki::{Parsed, acceptable_to};

use super::Survey;
use super::material::{CLIENT, Files, PEER, Reader};
use super::processes::{Found, Running};
use super::server::Server;
use crate::declared::Argument;
use crate::root::Root;

/// kubeadm's CA for everything but etcd.
const KUBERNETES_CA: &str = "/etc/kubernetes/pki/ca.crt";
/// The flags of kube-apiserver that name CAs (kube-apiserver reference, v1.34).
const CA_FLAGS: [&str; 3] =
    ["client-ca-file", "requestheader-client-ca-file", "kubelet-certificate-authority"];
/// Folders in which certificates lie that etcd's peers might accept.
pub(crate) const PKI_FOLDERS: [&str; 2] = ["/etc/kubernetes/pki/etcd", "/etc/kubernetes/pki"];

/// What Kubernetes trusts and holds on this node.
pub(crate) struct Trust {
    uses: Vec<(CaUse, Origin)>,
    /// The certificates that API servers present, with their intermediate CAs.
    serving: Vec<Serving>,
    held: Held,
    /// The first error that kept a CA or a certificate of an API server from being read.
    error: Option<EvidenceError>,
}

/// The certificate of an API server.
struct Serving {
    chain: Vec<Parsed>,
    path: String,
    origin: Origin,
}

/// Certificates that lie on the node.
#[derive(Default)]
struct Held {
    leaves: Vec<Parsed>,
    /// SHA-256 of the certificates that another program is known to use as a client.
    of_clients: BTreeSet<String>,
    /// The folders whose files were all looked at.
    folders: BTreeSet<String>,
    /// The first error that may have hidden a certificate.
    error: Option<EvidenceError>,
}

impl Trust {
    /// Reads the CAs of the API servers that run here, or kubeadm's CA file where none runs, and the certificates in
    /// Kubernetes' folders and in the API server's `--etcd-certfile`.
    pub(crate) fn read(survey: &Survey<'_>, found: Option<&Found>) -> Self {
        let mut trust = Self { uses: Vec::new(), serving: Vec::new(), held: Held::default(), error: None };
        let servers = found.map_or(&[][..], |f| &f.api_servers);
        for server in servers {
            trust.read_api_server(survey, server);
        }
        if servers.is_empty() {
            trust.read_ca(survey, survey.root, "Kubernetes' CA", KUBERNETES_CA, true);
        }
        for folder in PKI_FOLDERS {
            trust.held.folder(survey, survey.root, folder);
        }
        trust
    }

    /// Returns the CAs as evidence.
    pub(crate) fn uses(&self) -> Observed<Vec<CaUse>> {
        match &self.error {
            Some(error) => Observed::failed(error.clone()),
            None => {
                let uses = self.uses.iter().map(|(u, _)| u.clone()).collect();
                Observed::seen(uses, Origin::derived("the API server's arguments and the PKI directory"))
            }
        }
    }

    /// Returns the CAs that etcd trusts in `files` and Kubernetes uses for something else, compared by their keys.
    pub(crate) fn shared(&self, sides: [&Files; 2], now: jiff::Timestamp) -> Observed<Vec<SharedCa>> {
        let mut errors = sides.iter().filter_map(|files| files.trusted.as_ref()?.content.as_ref().err());
        if let Some(error) = errors.next().or(self.error.as_ref()) {
            return Observed::failed(error.clone());
        }
        let mut shared: Vec<SharedCa> = Vec::new();
        for files in sides {
            let Some(trusted) = &files.trusted else { continue };
            for root in files.roots() {
                let certificate = &root.certificate;
                let of = |other_use: String, origin: &Origin| SharedCa {
                    path: trusted.path.clone(),
                    subject: certificate.subject.clone(),
                    spki: certificate.key.spki.clone(),
                    other_use,
                    origin: origin.clone(),
                };
                let same = self.uses.iter().filter(|(u, _)| u.spkis.contains(&certificate.key.spki));
                let mut found: Vec<_> =
                    same.map(|(u, origin)| of(format!("{} {}", u.purpose, u.path), origin)).collect();
                for Serving { chain, path, origin } in &self.serving {
                    let Some((leaf, intermediates)) = chain.split_first() else { continue };
                    let root = std::slice::from_ref(root);
                    let usage = seaworthy_pki::Usage::Server;
                    // One that has expired was issued by the same CA as the one that follows it.
                    let valid = (leaf.certificate.not_before, leaf.certificate.not_after);
                    let then = now.min(valid.1).max(valid.0);
                    if seaworthy_pki::chains_to(leaf, intermediates, root, usage, then).is_ok() {
                        found.push(of(format!("issuing the API server's own certificate {path}"), origin));
                    }
                }
                for new in found {
                    if !shared.iter().any(|known| known.spki == new.spki && known.other_use == new.other_use)
                    {
                        shared.push(new);
                    }
                }
            }
        }
        Observed::seen(shared, Origin::derived("the keys of the CAs that etcd and Kubernetes use"))
    }

    /// Returns the certificates on this node that are no member's and that peers would accept nevertheless: those
    /// in Kubernetes' folders, and, as the process sees them, in the folders of the files that the settings name. A name
    /// that peers must carry (`--peer-cert-allowed-cn`, `--peer-cert-allowed-hostname`) keeps the others out.
    ///
    /// A member's are those of this etcd and of its `neighbours` in the cluster, and those that name a member.
    pub(crate) fn impostors(
        &self,
        survey: &Survey<'_>,
        running: &Running,
        settings: &BTreeMap<String, Setting>,
        (peer, client): (&Files, &Files),
        cluster: &Observed<Cluster>,
        neighbours: &[Neighbour],
    ) -> Observed<Vec<Impostor>> {
        let origin = Origin::derived("the certificates on this node and the peer CA");
        if let Some(Err(error)) = peer.trusted.as_ref().map(|t| &t.content) {
            return Observed::failed(error.clone());
        }
        let restricted = |name: &str| settings.get(name).is_some_and(|s| s.set);
        if restricted("peer-cert-allowed-cn") || restricted("peer-cert-allowed-hostname") {
            return Observed::seen(Vec::new(), origin);
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
        let mut impostors: Vec<Impostor> = Vec::new();
        let mut doubtful = None;
        for candidate in self.held.leaves.iter().chain(&beside.leaves) {
            let certificate = &candidate.certificate;
            let Origin::File { path, .. } = &certificate.origin else { continue };
            if !seen.insert(&certificate.fingerprint)
                || !acceptable_to(candidate, peer.roots(), survey.options.now)
            {
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
            let anywhere = certificate.sans.ip.is_empty() && certificate.sans.dns.is_empty();
            let from = if anywhere { ", from any address" } else { "" };
            impostors.push(Impostor {
                path: path.clone(),
                subject: certificate.subject.clone(),
                message: format!(
                    "{path} ({}) is issued by the peer CA for client authentication, so whoever holds its key can act \
                     as a member{from}",
                    certificate.subject
                ),
                origin: certificate.origin.clone(),
            });
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
        let (serving, client) = (named("tls-cert-file"), named("etcd-certfile"));
        let cas: Vec<_> = CA_FLAGS.into_iter().filter_map(|flag| Some((flag, named(flag)?))).collect();
        for (flag, path) in cas {
            self.read_ca(survey, root, &format!("kube-apiserver --{flag}"), &path, false);
        }
        if let Some(path) = serving {
            let origin = root.origin(&path);
            let chain = Reader::new(Ok(root))
                .bytes(&path)
                .and_then(|b| seaworthy_pki::certificates_from_pem(&b, origin.clone(), survey.options.now));
            match chain {
                Ok(chain) => self.serving.push(Serving { chain, path, origin }),
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
        if let Some(path) = client {
            let before = self.held.leaves.len();
            self.held.file(survey, root, &path);
            let read = self.held.leaves.iter().skip(before);
            self.held.of_clients.extend(read.map(|leaf| leaf.certificate.fingerprint.clone()));
        }
    }

    fn read_ca(&mut self, survey: &Survey<'_>, root: &Root, purpose: &str, path: &str, optional: bool) {
        let origin = root.origin(path);
        let read = root
            .read(path, 1 << 20)
            .and_then(|b| seaworthy_pki::certificates_from_pem(&b, origin.clone(), survey.options.now));
        match read {
            Ok(list) => {
                let spkis = list.iter().map(|p| p.certificate.key.spki.clone()).collect();
                let use_ = CaUse { purpose: purpose.to_owned(), path: path.to_owned(), spkis };
                self.uses.push((use_, origin));
            }
            Err(error) if optional && error.kind == ErrorKind::NotFound => {}
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }
}

impl Held {
    /// Remembers the leaf certificates in the files of a folder.
    fn folder(&mut self, survey: &Survey<'_>, root: &Root, folder: &str) {
        let names = match root.list(folder, 1000) {
            Ok(names) => names,
            Err(error) if error.kind == ErrorKind::NotFound => return,
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        };
        self.folders.insert(folder.to_owned());
        for name in names {
            let path = format!("{folder}/{}", name.to_string_lossy());
            if path.ends_with(".crt") || path.ends_with(".pem") {
                self.file(survey, root, &path);
            }
        }
    }

    /// Remembers the leaf certificate in the file `path`, if it holds one.
    fn file(&mut self, survey: &Survey<'_>, root: &Root, path: &str) {
        let read = root
            .read(path, 1 << 20)
            .and_then(|b| seaworthy_pki::certificates_from_pem(&b, root.origin(path), survey.options.now));
        match read {
            Ok(list) => self.leaves.extend(list.into_iter().next()),
            Err(error) if matches!(error.kind, ErrorKind::PermissionDenied | ErrorKind::Io) => {
                self.error.get_or_insert(error);
            }
            Err(_) => {}
        }
    }
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
        let sides = [&PEER, &CLIENT].map(|names| Files::read(survey, &reader, settings, names));
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

    use super::super::Options;
    use super::super::material::Content;
    use super::*;
    use crate::users::Users;

    fn options(root: &Path) -> Options {
        Options {
            root: root.to_owned(),
            wire: false,
            observe: None,
            timeout: std::time::Duration::ZERO,
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

    /// Returns what is known of CAs when these API servers run.
    fn with_api_servers(argvs: &[&[&str]]) -> Trust {
        let (options, host, users) = (options(Path::new("/")), Root::host("/").unwrap(), Users::default());
        let survey = Survey { options: &options, root: &host, users: &users };
        let mut trust = nothing();
        for argv in argvs {
            trust.read_api_server(&survey, &Running::ourselves(argv));
        }
        trust
    }

    fn nothing() -> Trust {
        Trust { uses: Vec::new(), serving: Vec::new(), held: Held::default(), error: None }
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
        assert_eq!((trust.serving.len(), trust.held.leaves.len()), (1, 1));
    }

    #[test]
    fn the_certificate_of_every_api_server_counts_and_one_that_cannot_be_read_is_not_none() {
        let serving = |path: &str| format!("--tls-cert-file=../pki/testdata/{path}");
        let (good, missing) = (serving("v1-leaf.crt"), serving("missing.crt"));
        let argvs: [&[&str]; 2] = [&["kube-apiserver", &good], &["kube-apiserver", &missing]];
        let trust = with_api_servers(&argvs);
        assert_eq!(trust.serving.len(), 1);
        assert_eq!(trust.uses().error().map(|e| e.kind), Some(ErrorKind::NotFound));
        let trusted = || Files {
            certificate: None,
            key: None,
            client_certificate: None,
            trusted: None,
            revocations: None,
        };
        let shared = trust.shared([&trusted(), &trusted()], jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(shared.error().map(|e| e.kind), Some(ErrorKind::NotFound));
        assert_eq!(with_api_servers(&[argvs[0], argvs[0]]).serving.len(), 2);
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
        let serving =
            Serving { chain: parsed(&leaf).unwrap(), path: "/apiserver.crt".to_owned(), origin: origin() };
        let trust = Trust { serving: vec![serving], ..nothing() };
        let etcd = || Files {
            certificate: None,
            key: None,
            client_certificate: None,
            trusted: Some(Content { path: "/ca.crt".to_owned(), origin: origin(), content: parsed(&root) }),
            revocations: None,
        };
        let shared = trust.shared([&etcd(), &etcd()], now);
        let [one] = &shared.value().unwrap()[..] else { panic!("{shared:?}") };
        assert!(one.other_use.contains("/apiserver.crt"), "{}", one.other_use);
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
            trusted: Some(Content { path: "/ca.crt".to_owned(), origin: Origin::file("/ca.crt"), content }),
            revocations: None,
        };
        let error = |message: &str| EvidenceError::new(ErrorKind::Malformed, message);
        let blind = Trust { error: Some(error("the API server's")), ..nothing() };
        let cases = [
            (nothing(), Ok(Vec::new()), None),
            (nothing(), Err(error("etcd's")), Some("etcd's")),
            (blind, Ok(Vec::new()), Some("the API server's")),
        ];
        for (trust, content, want) in cases {
            let sides = [&trusted(content), &trusted(Ok(Vec::new()))];
            let shared = trust.shared(sides, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(shared.error().map(|e| e.message.as_str()), want);
        }
    }
}
