//! Trust beyond etcd: the CAs that Kubernetes uses on this node, and the certificates it holds.

use std::collections::BTreeMap;

use seaworthy_evidence::{CaUse, ErrorKind, EvidenceError, Impostor, Observed, Origin, Setting, SharedCa};
use seaworthy_pki::{Parsed, acceptable_to};

use super::Survey;
use super::material::{Files, Reader};
use super::processes::{Found, Running};
use crate::declared::Argument;
use crate::root::Root;

/// kubeadm's CA for everything but etcd.
const KUBERNETES_CA: &str = "/etc/kubernetes/pki/ca.crt";
/// The flags of kube-apiserver that name CAs (kube-apiserver reference, v1.34).
const CA_FLAGS: [&str; 3] =
    ["client-ca-file", "requestheader-client-ca-file", "kubelet-certificate-authority"];
/// Folders in which certificates lie that etcd's peers might accept.
const PKI_FOLDERS: [&str; 2] = ["/etc/kubernetes/pki/etcd", "/etc/kubernetes/pki"];

/// What Kubernetes trusts and holds on this node.
pub(crate) struct Trust {
    uses: Vec<(CaUse, Origin)>,
    serving: Option<(Parsed, String, Origin)>,
    held: Vec<Parsed>,
    error: Option<EvidenceError>,
}

impl Trust {
    /// Reads the CAs of the API servers that run here, or kubeadm's CA file where none runs, and the certificates in
    /// Kubernetes' folders and in the API server's `--etcd-certfile`.
    pub(crate) fn read(survey: &Survey<'_>, found: Option<&Found>) -> Self {
        let mut trust = Self { uses: Vec::new(), serving: None, held: Vec::new(), error: None };
        let servers = found.map_or(&[][..], |f| &f.api_servers);
        for server in servers {
            trust.read_api_server(survey, server);
        }
        if servers.is_empty() {
            trust.read_ca(survey, survey.root, "Kubernetes' CA", KUBERNETES_CA, true);
        }
        for folder in PKI_FOLDERS {
            for name in survey.root.list(folder, 1000).unwrap_or_default() {
                let path = format!("{folder}/{}", name.to_string_lossy());
                if path.ends_with(".crt") || path.ends_with(".pem") {
                    trust.hold(survey, survey.root, &path);
                }
            }
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
        let errors = sides.iter().filter_map(|files| files.trusted.as_ref()?.content.as_ref().err());
        if let Some(error) = errors.chain(&self.error).find(|e| e.kind == ErrorKind::PermissionDenied) {
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
                if let Some((leaf, path, origin)) = &self.serving {
                    let issued = seaworthy_pki::chains_to(
                        leaf,
                        &[],
                        std::slice::from_ref(root),
                        seaworthy_pki::Usage::Server,
                        now,
                    );
                    if issued.is_ok() {
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

    /// Returns the certificates on this node that are no member's and that peers would accept nevertheless. A name that
    /// peers must carry (`--peer-cert-allowed-cn`, `--peer-cert-allowed-hostname`) keeps the others out.
    pub(crate) fn impostors(
        &self,
        survey: &Survey<'_>,
        settings: &BTreeMap<String, Setting>,
        peer: &Files,
        client: &Files,
    ) -> Observed<Vec<Impostor>> {
        let origin = Origin::derived("the certificates on this node and the peer CA");
        if let Some(Err(error)) = peer.trusted.as_ref().map(|t| &t.content) {
            return Observed::failed(error.clone());
        }
        let restricted = |name: &str| settings.get(name).is_some_and(|s| s.set);
        if restricted("peer-cert-allowed-cn") || restricted("peer-cert-allowed-hostname") {
            return Observed::seen(Vec::new(), origin);
        }
        let own: Vec<&str> = peer.leaves().map(|p| p.certificate.fingerprint.as_str()).collect();
        let mut impostors: Vec<Impostor> = Vec::new();
        for candidate in client.leaves().chain(&self.held) {
            let certificate = &candidate.certificate;
            let Origin::File { path, .. } = &certificate.origin else { continue };
            let known =
                own.contains(&certificate.fingerprint.as_str()) || impostors.iter().any(|i| i.path == *path);
            if known || !acceptable_to(candidate, peer.roots(), survey.options.now) {
                continue;
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
        Observed::seen(impostors, origin)
    }

    fn read_api_server(&mut self, survey: &Survey<'_>, server: &Running) {
        let Ok(root) = &server.root else {
            self.error = server.root.as_ref().err().cloned();
            return;
        };
        for flag in CA_FLAGS {
            if let Some(path) = flag_value(&server.argv, flag) {
                self.read_ca(survey, root, &format!("kube-apiserver --{flag}"), &path, false);
            }
        }
        if let Some(path) = flag_value(&server.argv, "tls-cert-file") {
            let origin = root.origin(&path);
            let leaf = Reader::new(Ok(root))
                .bytes(&path)
                .and_then(|b| seaworthy_pki::certificates_from_pem(&b, origin.clone(), survey.options.now));
            self.serving = leaf.ok().and_then(|l| l.into_iter().next()).map(|leaf| (leaf, path, origin));
        }
        if let Some(path) = flag_value(&server.argv, "etcd-certfile") {
            self.hold(survey, root, &path);
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
            Err(error) => self.error = Some(error),
        }
    }

    /// Remembers the leaf certificate in the file `path`, if it holds one.
    fn hold(&mut self, survey: &Survey<'_>, root: &Root, path: &str) {
        let read = root
            .read(path, 1 << 20)
            .and_then(|b| seaworthy_pki::certificates_from_pem(&b, root.origin(path), survey.options.now));
        self.held.extend(read.ok().and_then(|list| list.into_iter().next()));
    }
}

/// Returns the last value of a flag of a Kubernetes component (spf13/pflag): `--flag=value` or `--flag value`.
fn flag_value(argv: &[Argument], flag: &str) -> Option<String> {
    let mut value = None;
    let mut arguments = argv.iter().skip(1).map(|a| &a.text);
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.strip_prefix(b"--").and_then(|a| a.strip_prefix(flag.as_bytes())) else {
            continue;
        };
        match rest.split_first() {
            None => value = arguments.next().cloned(),
            Some((b'=', text)) => value = Some(text.to_vec()),
            Some(_) => {}
        }
    }
    value.and_then(|v| String::from_utf8(v).ok())
}
