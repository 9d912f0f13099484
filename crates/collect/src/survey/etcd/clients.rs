//! The clients of etcd on this node: the API servers, with what they connect with.

use std::collections::BTreeSet;

use seaworthy_evidence::{ErrorKind, EtcdClient, EvidenceError, Observed, Origin, Settings, Url};
use seaworthy_pki::{Parsed, Usage, chains_to};

use super::super::Survey;
use super::super::material::{CLIENT, Content, Files, Names, PEER, Reader};
use super::super::processes::Running;
use super::server::Server;
use super::trust::{flag_value, flag_values};

/// The flags of kube-apiserver that name what it connects to etcd with (kube-apiserver reference, v1.34). It has none for
/// a second identity, nor for revoked certificates.
const API_SERVER: Names = Names {
    certificate: "etcd-certfile",
    key: "etcd-keyfile",
    client_certificate: "",
    client_key: "",
    trusted: "etcd-cafile",
    revocations: "",
};

/// Returns the clients among `api_servers`. Whom they accept, and who accepts them, is told of the etcd `servers` on this
/// node and of the CAs in Kubernetes' folders.
pub(crate) fn read<'r>(
    survey: &Survey<'_>,
    api_servers: impl Iterator<Item = &'r Running>,
    servers: &[Server<'_>],
) -> Vec<EtcdClient> {
    let mut api_servers = api_servers.peekable();
    if api_servers.peek().is_none() {
        return Vec::new();
    }
    let known = Known::read(survey, servers);
    api_servers.map(|running| client(survey, running, &known)).collect()
}

/// Certificates on this node that matter to a client.
#[derive(Default)]
struct Known {
    /// CAs that may have to accept it.
    cas: Vec<Parsed>,
    /// Server certificates that it may have to accept, each with the rest of its chain behind it.
    served: Vec<Vec<Parsed>>,
    /// The first error that may have hidden one of them.
    error: Option<EvidenceError>,
}

impl Known {
    fn read(survey: &Survey<'_>, servers: &[Server<'_>]) -> Self {
        let mut known = Self::default();
        for server in servers {
            let none = Settings::default();
            let settings = server.resolved.settings.value().unwrap_or(&none);
            let reader = Reader::of_process(server.running);
            let [client, peer] =
                [&CLIENT, &PEER].map(|names| Files::without_keys(survey, &reader, settings, names));
            for trusted in [client.trusted, peer.trusted] {
                let cas = known.of(trusted);
                known.cas.extend(cas);
            }
            let served = known.of(client.certificate);
            known.served.push(served);
        }
        let reader = Reader::new(Ok(survey.root));
        for folder in seaworthy_layouts::pki() {
            let path = format!("{folder}/ca.crt");
            let flag = |name: &str| (name == CLIENT.trusted).then(|| path.clone());
            let files = Files::named(survey, &reader, &CLIENT, flag);
            // That it is not there is no error.
            known.cas.extend(files.trusted.and_then(|file| file.content.ok()).unwrap_or_default());
        }
        known
    }

    fn of(&mut self, file: Option<Content<Vec<Parsed>>>) -> Vec<Parsed> {
        match file.map(|file| file.content) {
            Some(Ok(certificates)) => certificates,
            Some(Err(error)) => {
                self.error.get_or_insert(error);
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}

fn client(survey: &Survey<'_>, running: &Running, known: &Known) -> EtcdClient {
    let reader = Reader::of_process(running);
    let given = |flag: &str| flag_value(&running.argv, flag).filter(|path| !path.is_empty());
    let files = Files::named(survey, &reader, &API_SERVER, given);
    let origin = running.entry.origin("cmdline");
    EtcdClient {
        id: format!("kube-apiserver (pid {})", running.pid()),
        component: "kube-apiserver".to_owned(),
        endpoints: Observed::from_result(endpoints(running), origin.clone()),
        accepted_by: files.certificate.as_ref().map(|own| accepted_by(survey, own, &files, known)),
        accepts: files.trusted.as_ref().map(|trusted| accepts(survey, trusted, known)),
        credentials: files.credentials(),
        origin,
    }
}

/// Returns the URLs in `--etcd-servers`, and those in `--etcd-servers-overrides`, which are like
/// `/events#https://h:1;https://h:2,apps/deployments#https://h:3`.
fn endpoints(running: &Running) -> Result<Vec<Url>, EvidenceError> {
    let all = flag_values(&running.argv, "etcd-servers");
    let overrides = flag_values(&running.argv, "etcd-servers-overrides");
    let servers = all.iter().flat_map(|list| list.split(','));
    let others = overrides.iter().flat_map(|list| list.split(','));
    let others = others.filter_map(|one| one.split_once('#')).flat_map(|(_, servers)| servers.split(';'));
    let text = |text: &str| text.trim().trim_matches('"').to_owned();
    let texts: BTreeSet<String> = servers.chain(others).map(text).filter(|t| !t.is_empty()).collect();
    if texts.is_empty() {
        let message = format!("pid {} is given no --etcd-servers", running.pid());
        return Err(EvidenceError::new(ErrorKind::NotFound, message));
    }
    let url = |text: &String| {
        Url::parse(text).ok_or_else(|| {
            let message = format!("pid {} is given an --etcd-servers that is no URL", running.pid());
            EvidenceError::new(ErrorKind::Malformed, message)
        })
    };
    texts.iter().map(url).collect()
}

fn accepted_by(
    survey: &Survey<'_>,
    own: &Content<Vec<Parsed>>,
    files: &Files,
    known: &Known,
) -> Observed<Vec<String>> {
    let judge = || -> Result<Vec<String>, EvidenceError> {
        let Some((leaf, rest)) = own.content.as_ref().map_err(Clone::clone)?.split_first() else {
            return Ok(Vec::new());
        };
        let accepts = |ca: &&Parsed| {
            let cas = std::slice::from_ref(*ca);
            ca.der() != leaf.der() && chains_to(leaf, rest, cas, Usage::Client, survey.options.now).is_ok()
        };
        let cas = files.roots().iter().chain(&known.cas).filter(accepts);
        let found: BTreeSet<String> = cas.map(|ca| ca.certificate.key.spki.clone()).collect();
        Ok(found.into_iter().collect())
    };
    let origin = Origin::derived(format!("{} and the CAs on this node", own.path));
    known.unless_hidden(judge(), origin)
}

fn accepts(survey: &Survey<'_>, trusted: &Content<Vec<Parsed>>, known: &Known) -> Observed<Vec<String>> {
    let judge = || -> Result<Vec<String>, EvidenceError> {
        let roots = trusted.content.as_ref().map_err(Clone::clone)?;
        let accepted = known.served.iter().filter_map(|chain| {
            let (leaf, rest) = chain.split_first()?;
            let sound = chains_to(leaf, rest, roots, Usage::Server, survey.options.now).is_ok();
            sound.then(|| leaf.certificate.fingerprint.clone())
        });
        Ok(accepted.collect())
    };
    let origin = Origin::derived(format!("{} and the certificates that etcd serves with", trusted.path));
    known.unless_hidden(judge(), origin)
}

impl Known {
    /// Returns what was found; an error when nothing was, and something could not be read that might have been it.
    fn unless_hidden(
        &self,
        found: Result<Vec<String>, EvidenceError>,
        origin: Origin,
    ) -> Observed<Vec<String>> {
        match (&self.error, found) {
            (Some(error), Ok(found)) if found.is_empty() => Observed::failed(error.clone()),
            (_, found) => Observed::from_result(found, origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::super::super::Options;
    use super::*;
    use seaworthy_host::root::Root;
    use seaworthy_host::users::Users;

    /// Returns the certificate and the key of a CA and of a leaf that it issued, as PEM.
    fn issued(name: &str) -> [String; 3] {
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.clone().self_signed(&ca_key).unwrap().pem();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        [ca_pem, leaf.pem(), key.serialize_pem()]
    }

    #[test]
    fn a_client_is_told_with_whom_it_can_talk() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [[ca, leaf, key], [other_ca, other_leaf, _]] = ["one", "other"].map(issued);
        let (ca, leaf, key) = (file("ca.crt", &ca), file("a.crt", &leaf), file("a.key", &key));
        let (other_ca, other_leaf) = (file("other-ca.crt", &other_ca), file("other.crt", &other_leaf));
        let root = Root::host(directory.path()).unwrap();
        let users = Users::default();
        let options = Options {
            root: directory.path().to_owned(),
            wire: false,
            observe: None,
            timeout: std::time::Duration::ZERO,
            layout: None,
            patience: std::time::Duration::ZERO,
            now: jiff::Timestamp::from_second(1_800_000_000).unwrap(),
        };
        let survey = Survey { options: &options, root: &root, users: &users };
        let server = Running::ourselves(&[
            &format!("--cert-file={leaf}"),
            &format!("--key-file={key}"),
            &format!("--trusted-ca-file={other_ca}"),
        ]);
        let servers = [Server::read(&crate::survey::processes::Found::default(), &server)];
        let read = |arguments: &[String]| {
            let arguments: Vec<&str> =
                std::iter::once("kube-apiserver").chain(arguments.iter().map(String::as_str)).collect();
            read(&survey, [Running::ourselves(&arguments)].iter(), &servers).pop().unwrap()
        };
        let client = read(&[
            "--etcd-servers=https://10.0.0.1:2379,https://10.0.0.2:2379".to_owned(),
            "--etcd-servers-overrides=/events#http://u:secret@10.0.0.1:4001;http://10.0.0.2:4001".to_owned(),
            format!("--etcd-cafile={ca}"),
            "--etcd-certfile".to_owned(),
            other_leaf.clone(),
            format!("--etcd-keyfile={key}"),
        ]);
        let urls: Vec<&str> = client.endpoints.value().unwrap().iter().map(|url| url.text.as_str()).collect();
        assert_eq!(
            urls,
            [
                "http://10.0.0.2:4001",
                "http://***@10.0.0.1:4001",
                "https://10.0.0.1:2379",
                "https://10.0.0.2:2379"
            ]
        );
        let ca_of = |path: &str| {
            let bytes = std::fs::read(path).unwrap();
            let certificates = seaworthy_pki::certificates_from_pem(&bytes, Origin::file(path), options.now);
            certificates.unwrap()[0].certificate.clone()
        };
        let told = |told: &Option<Observed<Vec<String>>>| told.as_ref().unwrap().value().unwrap().clone();
        assert_eq!(told(&client.accepted_by), [ca_of(&other_ca).key.spki], "by etcd, not by its own CA");
        assert_eq!(told(&client.accepts), [ca_of(&leaf).fingerprint]);
        assert_eq!(client.credentials.key_matches.unwrap().value(), Some(&false));

        let client = read(&[format!("--etcd-cafile={other_ca}"), "--etcd-certfile=/missing".to_owned()]);
        assert!(client.endpoints.error().is_some() && client.credentials.key.is_none());
        assert_eq!(told(&client.accepts), Vec::<String>::new());
        assert_eq!(client.accepted_by.unwrap().error().unwrap().kind, ErrorKind::NotFound);
        let bare = read(&[]);
        assert!(bare.accepts.is_none() && bare.accepted_by.is_none() && bare.credentials.trusted.is_none());
    }

    #[test]
    fn what_could_not_be_read_is_not_known_to_be_refused() {
        let error = EvidenceError::new(ErrorKind::PermissionDenied, "permission denied");
        let known = Known { error: Some(error), ..Known::default() };
        let origin = || Origin::derived("the test");
        assert!(known.unless_hidden(Ok(Vec::new()), origin()).error().is_some());
        assert!(known.unless_hidden(Ok(vec!["a".to_owned()]), origin()).value().is_some());
        assert!(Known::default().unless_hidden(Ok(Vec::new()), origin()).value().is_some());
    }
}
