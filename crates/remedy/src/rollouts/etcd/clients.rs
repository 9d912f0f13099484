//! What the clients of a member need, and whether they would still have it after a change.
//!
//! A client that is known and would be cut off is a reason not to make the change, whatever the operator says. One of
//! which nothing is known, because it is on another node or could not be looked at, is the operator's to vouch for.

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_evidence::{Certificate, EtcdClient, Observed, Origin, Url};
use seaworthy_pki::{certificates_from_pem, names};

use super::client_tls;
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Stage, Step};
use crate::planner::{
    AuthorityFiles, MARGIN_DAYS, POD_DIRECTORY, Planner, Source, known_host, missing, refuse,
};
use seaworthy_edit::manifest::{self, Asks};

/// The certificate that kubeadm makes for health checks of etcd; this tool uses it too.
const OWN_IDENTITY: &str = "healthcheck-client.crt";

/// What clients meet after a change.
pub(crate) struct Terms<'c> {
    /// Whether plaintext is no longer served.
    pub(crate) tls_only: bool,
    /// The certificate that the member serves with.
    pub(crate) served: Served<'c>,
    /// The CAs of one of which a client must have a certificate, each by its key; `None` when none is demanded.
    pub(crate) demanded: Option<BTreeSet<String>>,
}

/// A certificate that a member serves with.
#[derive(Clone, Copy)]
pub(crate) enum Served<'c> {
    /// One that is still to be issued by the authority with these certificates. It will name every host that is dialled.
    ByAuthority(&'c [Certificate]),
    /// One that is there.
    Present(&'c Certificate),
}

/// The certificate that a member is to serve with, and the steps that make it.
pub(crate) struct Material {
    pub(crate) steps: Vec<Step>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) mounts: Vec<manifest::Mount>,
}

/// To whom a URL leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    /// To this member, or it may.
    Here,
    /// To another member of its cluster.
    ToAnother,
    /// To another cluster.
    Elsewhere,
}

impl Planner<'_> {
    /// Returns the URLs on which it listens for clients.
    pub(crate) fn client_listeners(&self) -> Result<Vec<Url>, Refusal> {
        let urls = self.urls("listen-client-urls")?;
        let known = |url: &Url| matches!(url.scheme.as_str(), "http" | "https" | "unix" | "unixs");
        let http = self.given("listen-client-http-urls").is_some_and(|urls| urls.contains("http://"));
        if http || urls.iter().any(|url| !known(url) || url.text.contains("***@")) {
            return Err(refuse(
                RefusalKind::Unsupported,
                "a client URL has a password or another scheme than http and https, or listen-client-http-urls has a \
                 plaintext one",
                "what it means to its clients is not known well enough",
                "give it http and https URLs with host and port in listen-client-urls only, and plan again",
            ));
        }
        Ok(urls)
    }

    /// Returns whether a certificate of etcd's own making is in effect for clients.
    pub(crate) fn self_made(&self) -> Result<bool, Refusal> {
        Ok(self.s.subject.own.client.auto_tls.as_result().map_err(missing)?.in_effect)
    }

    /// Returns the authority that is there already, with its certificates. One that is made for the purpose would be
    /// trusted by no client.
    pub(crate) fn authority_for_clients(&self) -> Result<(&AuthorityFiles, Vec<Certificate>), Refusal> {
        let lacking = |what: &str| {
            refuse(
                RefusalKind::Authority,
                what,
                "clients accept only certificates of an authority that they trust, and have theirs from one that etcd \
                 trusts",
                "name one with --ca-cert and --ca-key; on kubeadm nodes it is /etc/kubernetes/pki/etcd/ca.crt",
            )
        };
        let authority = self.s.options.authority.as_ref();
        let authority = authority
            .ok_or_else(|| lacking("there is no certificate authority with its key on this node"))?;
        let pem = authority.pem.as_ref();
        let pem = pem.ok_or_else(|| lacking("the authority is still to be made, and for members only"))?;
        let unusable = |why: String| {
            refuse(
                RefusalKind::Certificate,
                why,
                "nobody would accept a certificate that it issues",
                "name another authority with --ca-cert and --ca-key",
            )
        };
        let found = certificates_from_pem(pem, Origin::file(&authority.certificate), self.s.taken_at);
        let found = found.map_err(|error| unusable(error.to_string()))?;
        if found.is_empty() {
            return Err(unusable(format!("{} holds no certificate", authority.certificate)));
        }
        Ok((authority, found.into_iter().map(|parsed| parsed.certificate).collect()))
    }

    /// Returns the certificate that it is set to serve with.
    pub(crate) fn served(&self) -> Result<&Certificate, Refusal> {
        let credentials = self.s.subject.client.files.as_result().map_err(missing)?;
        let chain = credentials.chain.as_ref().ok_or_else(|| missing("the certificate it serves with"))?;
        chain.as_result().map_err(missing)?.first().ok_or_else(|| missing("the certificate it serves with"))
    }

    /// Returns the certificate that it serves with, when nothing is wrong with it.
    pub(crate) fn sound(&self) -> Result<&Certificate, Refusal> {
        let unsound = |what: String| {
            refuse(
                RefusalKind::Certificate,
                what,
                "clients that use TLS could not connect",
                "replace the certificate first; etcd reads it anew at every handshake",
            )
        };
        let problems = self.s.subject.client.problems.as_result().map_err(missing)?;
        match problems.iter().find(|problem| problem.breaks) {
            Some(problem) => Err(unsound(problem.message.clone())),
            None => self.served(),
        }
    }

    /// Returns the keys of the CAs of one of which it demands a certificate from clients; `None` when it demands none.
    pub(crate) fn demands(&self) -> Result<Option<BTreeSet<String>>, Refusal> {
        let auth = self.s.subject.own.client.client_auth.as_result().map_err(missing)?;
        let credentials = self.s.subject.client.files.as_result().map_err(missing)?;
        match &credentials.trusted {
            _ if !auth.enforced => Ok(None),
            Some(trusted) => Ok(Some(keys(trusted.as_result().map_err(missing)?))),
            None => Ok(Some(BTreeSet::new())),
        }
    }

    /// Returns the hosts at which clients reach the member, and those that others see it come from: it is a client of the
    /// other members too when this tool acts for it.
    pub(crate) fn client_hosts(&self) -> Result<Vec<String>, Refusal> {
        let listens = self.client_listeners()?;
        let wildcard = |url: &Url| known_host(&url.host).is_some_and(|ip| ip.is_unspecified());
        let advertised = self.given("advertise-client-urls").unwrap_or_default();
        let advertised = advertised.split(',').filter_map(Url::parse);
        let known = self.s.clients.unwrap_or_default().iter().filter_map(|client| client.endpoints.value());
        let dialled = known.flatten().filter(|url| self.leads(url, &listens) == Leads::Here).cloned();
        let own = listens.iter().chain(&self.me.client_urls).cloned().chain(advertised).chain(dialled);
        let own = own.filter(|url| !url.scheme.starts_with("unix") && !wildcard(url));
        let mut hosts: BTreeSet<String> = own.map(|url| url.host).chain(self.hosts()).collect();
        if hosts.iter().any(|host| is_loopback(host)) || listens.iter().any(wildcard) {
            hosts.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
        }
        Ok(hosts.into_iter().filter(|host| !host.is_empty()).collect())
    }

    /// Returns what it takes to give the member a certificate of the authority to serve with.
    pub(crate) fn new_material(&self, authority: &AuthorityFiles) -> Result<Material, Refusal> {
        let beside = ["trusted-ca-file", "cert-file", "peer-trusted-ca-file", "peer-cert-file"];
        let folder = self.directory_beside(&beside);
        let hosts = self.client_hosts()?;
        let why = format!(
            "Its clients dial it at {}; it is also what this node presents to the other members' client ports.",
            hosts.join(", ")
        );
        let stem = self.free(&folder, &["server", "seaworthy-server"], &["crt", "key"])?;
        let files = ["crt", "key"].map(|end| format!("{folder}/{stem}.{end}"));
        let step = self.issue_for("server certificate", authority, files, hosts, why)?;
        let (inside, mount) = self.seen(&folder);
        let settings = [("cert-file", "crt"), ("key-file", "key")]
            .map(|(name, end)| (name.to_owned(), format!("{inside}/{stem}.{end}")));
        Ok(Material {
            steps: vec![step],
            settings: BTreeMap::from(settings),
            mounts: mount.into_iter().collect(),
        })
    }

    /// Returns why its certificate does not do for all who will dial it; `None` when it does.
    pub(crate) fn unfit(&self, cas: &[Certificate]) -> Option<String> {
        let credentials = self.s.subject.client.files.value()?;
        let Ok(leaf) = self.served() else { return Some("its certificate could not be read".to_owned()) };
        let matches = credentials.key_matches.as_ref().and_then(Observed::value);
        let missing = |host: &String| !names(leaf, host);
        let hosts = self.client_hosts().unwrap_or_default();
        if matches != Some(&true) {
            Some("its key is not the certificate's".to_owned())
        } else if leaf.days_left < MARGIN_DAYS || leaf.not_before > self.s.taken_at {
            Some("its certificate is not valid, or not after today".to_owned())
        } else if !may(leaf, "serverAuth") || !may(leaf, "clientAuth") {
            Some("its certificate is not for serverAuth and clientAuth".to_owned())
        } else if !issued_by(leaf, cas) {
            Some("its certificate is not of the authority that its clients are to trust".to_owned())
        } else {
            let host = hosts.iter().find(|host| missing(host))?;
            Some(format!("its certificate does not name {host}"))
        }
    }

    /// Returns why a change to these `terms` must not be made: a client could not connect after it, or may not.
    pub(crate) fn cuts_off(&self, terms: &Terms<'_>) -> Result<(), Refusal> {
        let listens = self.client_listeners()?;
        let mut unknown = Vec::new();
        let mut seen = 0;
        match self.s.clients {
            Err(why) => unknown.push(why.to_owned()),
            Ok(clients) => {
                for client in clients {
                    let urls = match client.endpoints.as_result() {
                        Ok(urls) => urls,
                        Err(error) => {
                            unknown.push(error.to_string());
                            continue;
                        }
                    };
                    let ours = urls.iter().filter(|url| self.leads(url, &listens) != Leads::Elsewhere);
                    let ours: Vec<&Url> = ours.collect();
                    if !ours.is_empty() {
                        seen += 1;
                        self.one_cut_off(client, &ours, &listens, terms, &mut unknown)?;
                    }
                }
            }
        }
        self.probes_cut_off(terms, &listens)?;
        self.tool_cut_off(terms)?;
        if seen == 0 && unknown.is_empty() {
            unknown.push("no API server that uses it runs on this node".to_owned());
        }
        // Who did not verify a certificate that nobody could verify goes on as before.
        let harmless = !terms.tls_only && terms.demanded.is_none();
        if unknown.is_empty() || harmless || self.s.options.clients_are_ready {
            return Ok(());
        }
        let consequence = match (terms.tls_only, &terms.demanded) {
            (true, Some(_)) => {
                "an API server, a backup job or a monitor that still uses plaintext, or has no certificate that etcd \
                 accepts, loses it at once; a cluster whose API servers do is dead"
            }
            (true, None) => {
                "an API server, a backup job or a monitor that still uses plaintext loses it at once; a cluster whose API \
                 servers do is dead"
            }
            (false, _) => {
                "an API server, a backup job or a monitor that has no certificate which etcd accepts loses it at once; a \
                 cluster whose API servers do is dead"
            }
        };
        Err(refuse(
            RefusalKind::Client,
            format!("what its clients connect with is not known: {}", unknown.join("; ")),
            consequence,
            "look at every client of this etcd, on this node and elsewhere, and say --clients-are-ready when all of them \
             use https, trust its CA, and have a certificate that it accepts",
        ))
    }

    /// Refuses when this client would be cut off. What is not known of it is added to `unknown`.
    fn one_cut_off(
        &self,
        client: &EtcdClient,
        ours: &[&Url],
        listens: &[Url],
        terms: &Terms<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let cut_off = |what: String, instead: String| {
            let why = format!("{} could not reach etcd any more, and with it the cluster its API", client.id);
            Err(refuse(RefusalKind::Client, what, why, instead))
        };
        let id = &client.id;
        let plain = ours.iter().find(|url| !url.is_tls());
        if let Some(url) = plain.filter(|_| terms.tls_only) {
            let servers: Vec<String> =
                ours.iter().map(|url| url.text.replacen("http://", "https://", 1)).collect();
            return cut_off(
                format!("{id} dials etcd without TLS, at {}", url.text),
                format!(
                    "give it --etcd-servers={}, with --etcd-cafile, --etcd-certfile and --etcd-keyfile of etcd's CA, \
                     restart it, and plan again",
                    servers.join(",")
                ),
            );
        }
        // Whom it dials in plaintext it does not have to believe, and is not asked who it is.
        let tls = |url: &&&Url| url.is_tls();
        if !ours.iter().any(|url| tls(&url)) {
            return Ok(());
        }
        let here = ours.iter().filter(tls).filter(|url| self.leads(url, listens) == Leads::Here);
        let trusts = match (&terms.served, &client.accepts, &client.credentials.trusted) {
            (_, None, _) | (_, _, None) => Ok(false),
            (Served::Present(leaf), Some(accepts), _) => {
                accepts.as_result().map(|all| all.contains(&leaf.fingerprint))
            }
            (Served::ByAuthority(cas), _, Some(trusted)) => {
                trusted.as_result().map(|trusted| keys(cas).is_subset(&keys(trusted)))
            }
        };
        match trusts {
            Ok(true) => {}
            Ok(false) => {
                return cut_off(
                    format!("{id} does not trust the CA of the certificate that etcd serves with"),
                    "add that CA to the file of its --etcd-cafile, restart it, and plan again".to_owned(),
                );
            }
            Err(error) => unknown.push(format!("whom {id} trusts: {error}")),
        }
        for url in here {
            if let Served::Present(leaf) = &terms.served
                && !names(leaf, &url.host)
            {
                return cut_off(
                    format!("{id} dials {}, and etcd's certificate does not name {}", url.text, url.host),
                    "let it dial a host that the certificate names, or replace the certificate".to_owned(),
                );
            }
        }
        let Some(demanded) = &terms.demanded else { return Ok(()) };
        let credentials = &client.credentials;
        let wrong = match (&credentials.chain, &credentials.key) {
            (None, _) => {
                Some("has no --etcd-certfile, so it has no certificate that etcd could accept".to_owned())
            }
            (_, None) => Some("has no --etcd-keyfile, so it cannot use its certificate".to_owned()),
            (Some(chain), Some(_)) => match chain.as_result() {
                Ok(chain) => chain.first().map_or_else(
                    || Some("has a certificate file without a certificate".to_owned()),
                    |leaf| self.refused(client, leaf, demanded, unknown),
                ),
                Err(error) => {
                    unknown.push(format!("the certificate of {id}: {error}"));
                    None
                }
            },
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => cut_off(
                format!("{id} {wrong}"),
                "give it a certificate of a CA that etcd trusts, with the usage clientAuth, in --etcd-certfile and \
                 --etcd-keyfile, restart it, and plan again"
                    .to_owned(),
            ),
        }
    }

    /// Returns why etcd would refuse the certificate of a client when it demands one of these CAs.
    fn refused(
        &self,
        client: &EtcdClient,
        leaf: &Certificate,
        demanded: &BTreeSet<String>,
        unknown: &mut Vec<String>,
    ) -> Option<String> {
        let mut untold = |what: &str, error: &dyn std::fmt::Display| {
            unknown.push(format!("{what} of {}: {error}", client.id));
            None
        };
        if leaf.not_after < self.s.taken_at {
            return Some(format!("has a certificate ({}) that has expired", leaf.subject));
        }
        if leaf.not_before > self.s.taken_at {
            return Some(format!("has a certificate ({}) that is not valid yet", leaf.subject));
        }
        if !may(leaf, "clientAuth") {
            return Some(format!("has a certificate ({}) that is not for clientAuth", leaf.subject));
        }
        match client.credentials.key_matches.as_ref().map(Observed::as_result) {
            Some(Ok(false)) => return Some("has a key that is not its certificate's".to_owned()),
            Some(Err(error)) => return untold("the key", &error),
            Some(Ok(true)) | None => {}
        }
        match client.accepted_by.as_ref().map(Observed::as_result) {
            Some(Ok(by)) if by.iter().any(|ca| demanded.contains(ca)) => None,
            Some(Err(error)) => untold("the certificate", &error),
            Some(Ok(_)) | None => {
                Some(format!("has a certificate ({}) of another CA than etcd trusts", leaf.subject))
            }
        }
    }

    /// Refuses when kubelet could not ask any more how the container is: it would end it, over and over.
    fn probes_cut_off(&self, terms: &Terms<'_>, listens: &[Url]) -> Result<(), Refusal> {
        let (Some(container), Some(declared)) =
            (&self.view.container, self.s.subject.declared.value().and_then(|all| all.first()))
        else {
            return Ok(());
        };
        let Some(file) = self.s.declaration.iter().find(|d| d.path == declared.path) else { return Ok(()) };
        let probes =
            manifest::probes(&file.bytes, container).map_err(|refused| missing(refused.to_string()))?;
        let ports: BTreeSet<u16> = listens.iter().filter_map(|url| url.port).collect();
        // Variables can give etcdctl all that it needs.
        let told = String::from_utf8_lossy(&file.bytes).contains("ETCDCTL_");
        for probe in probes {
            let fails = match &probe.asks {
                Asks::Http { port: Some(port), .. } if !ports.contains(port) => false,
                Asks::Http { tls: false, .. } => terms.tls_only,
                Asks::Http { tls: true, .. } => terms.demanded.is_some(),
                Asks::Command(words) => {
                    let has = |part: &str| words.iter().any(|word| word.contains(part));
                    let talks = has("etcdctl") && !told;
                    talks
                        && (terms.tls_only && !has("https://")
                            || terms.demanded.is_some() && has("https://") && !has("--cert"))
                }
            };
            if fails {
                return Err(refuse(
                    RefusalKind::Client,
                    format!("the {} in {} asks at the client port, and would fail", probe.kind, file.path),
                    "kubelet would end the member again and again",
                    "let it ask at a URL of --listen-metrics-urls, such as http://127.0.0.1:2381/health, and plan again",
                ));
            }
        }
        Ok(())
    }

    /// Refuses when this tool itself could not ask the members any more: it could neither verify nor go on.
    fn tool_cut_off(&self, terms: &Terms<'_>) -> Result<(), Refusal> {
        let Some(demanded) = &terms.demanded else { return Ok(()) };
        let own = format!("{POD_DIRECTORY}/{OWN_IDENTITY}");
        let files = self.s.subject.files.pki.value().into_iter().flatten();
        let trusted = self.s.subject.client.files.value().and_then(|c| c.trusted.as_ref());
        let trusted = trusted.and_then(Observed::value).map(Vec::as_slice).unwrap_or_default();
        let authority = self.authority_for_clients().map(|(_, cas)| cas).unwrap_or_default();
        let fits = match &terms.served {
            Served::ByAuthority(cas) => keys(cas).is_subset(demanded),
            Served::Present(leaf) => {
                let all = trusted.iter().chain(&authority).filter(|ca| demanded.contains(&ca.key.spki));
                may(leaf, "clientAuth") && issued_by(leaf, &all.cloned().collect::<Vec<_>>())
            }
        };
        if fits || files.map(|f| &f.file.path).any(|path| *path == own) {
            return Ok(());
        }
        Err(refuse(
            RefusalKind::Client,
            "this node has no certificate that the members' client ports would accept",
            "this tool could not ask any more how the members are, and neither verify the change nor go on with it",
            format!(
                "replace etcd's certificate by one of the CA that clients are to have theirs from, with the usages \
                 serverAuth and clientAuth, or put one for clients at {own}"
            ),
        ))
    }

    /// Returns to whom a URL leads that a client dials.
    fn leads(&self, url: &Url, listens: &[Url]) -> Leads {
        let same = |other: &Url| url.port == other.port && url.host.eq_ignore_ascii_case(&other.host);
        let others = || self.members.iter().filter(|m| !m.this).flat_map(|m| &m.client_urls);
        if others().any(same) {
            return Leads::ToAnother;
        }
        let here = |own: &Url| {
            let unspecified = known_host(&own.host).is_some_and(|ip| ip.is_unspecified());
            let loopback = is_loopback(&own.host) && is_loopback(&url.host);
            // What a name stands for is not known.
            let name = known_host(&url.host).is_none() && !is_loopback(&url.host);
            url.port == own.port && (same(own) || unspecified || loopback || name)
        };
        match listens.iter().chain(&self.me.client_urls).any(here) {
            true => Leads::Here,
            false => Leads::Elsewhere,
        }
    }

    /// Returns what a person has to do for the clients, so that the change lasts and the next turn can follow.
    pub(crate) fn for_clients(&self, mut plan: Plan) -> Plan {
        if !plan.steps.is_empty() {
            plan.by_hand = self.by_hand_for_clients(plan.stage);
        }
        plan
    }

    fn by_hand_for_clients(&self, stage: Stage) -> Vec<String> {
        let generated = matches!(self.source, Source::Manifest(_));
        let mut found = Vec::new();
        if self.rule == client_tls::RULE && stage == Stage::Serve {
            let urls = self.members.iter().flat_map(|m| &m.client_urls);
            let urls: Vec<String> = urls.map(|url| url.text.replacen("http://", "https://", 1)).collect();
            found.push(format!(
                "When every member serves both, move every client to https: each API server (--etcd-servers with https, \
                 --etcd-cafile, --etcd-certfile, --etcd-keyfile), backup jobs, monitoring, probes. The members are then at \
                 {}.",
                urls.join(", ")
            ));
        }
        if generated {
            let annotated = self.s.declaration.iter().any(|d| {
                String::from_utf8_lossy(&d.bytes).lines().any(|line| {
                    line.contains("kubeadm.kubernetes.io/etcd.advertise-client-urls")
                        && line.contains("http://")
                })
            });
            if annotated && stage == Stage::Announce {
                found.push(
                    "The annotation `kubeadm.kubernetes.io/etcd.advertise-client-urls` in the manifest still says http; \
                     kubeadm dials etcd as it says: put it to https."
                        .to_owned(),
                );
            }
            found.push(
                "`kubeadm upgrade` writes this manifest anew from the ConfigMap kube-system/kubeadm-config: under \
                 etcd.local.extraArgs there, and in a directory of patches if one is used, remove what sets client URLs to \
                 http or auto-tls, and add what this plan sets and kubeadm does not."
                    .to_owned(),
            );
        }
        found
    }

    /// Returns what is verified after a restart that makes clients meet these `terms`.
    pub(crate) fn verify_clients(&self, demands: bool) -> Vec<Condition> {
        vec![
            if demands { Condition::ClientMutualTls } else { Condition::ClientTls },
            Condition::ClusterHealthy,
            Condition::LinksFull,
        ]
    }
}

/// Returns the keys of certificates.
pub(crate) fn keys(certificates: &[Certificate]) -> BTreeSet<String> {
    certificates.iter().map(|certificate| certificate.key.spki.clone()).collect()
}

/// Returns whether a certificate may be used so.
fn may(certificate: &Certificate, usage: &str) -> bool {
    certificate.usages.as_ref().is_none_or(|all| all.iter().any(|one| one == usage || one == "any"))
}

/// Returns whether a certificate says that it is of one of these CAs.
fn issued_by(certificate: &Certificate, cas: &[Certificate]) -> bool {
    cas.iter().any(|ca| ca.subject == certificate.issuer)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || known_host(host).is_some_and(|ip| ip.is_loopback())
}
