//! What a look at a node of the cluster in memory shows: evidence as collection makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use seaworthy_components::etcd::settings;
use seaworthy_evidence::AttributedBy;
use seaworthy_evidence::{
    Advertised, ClientCertificate, Cluster as Membership, Connection, Credentials, Declared, DeclaredKind,
    Direction, Drift, ErrorKind, EvidenceError, File, FileKind, Link, Listener, Member, MemberSource,
    Observed, Origin, PkiContent, PkiFile, PrivateKey, Problem, PublicKey, Purpose, Settings, Side, Snapshot,
    TransportSeen, Url, Wire,
};
use seaworthy_pki::{Material, Parsed, Source, Use, problems};
use seaworthy_remedy::input::{Declaration, Health, MemberHealth};
use seaworthy_remedy::order::Scheme;
use seaworthy_remedy::subject::Subject;
use seaworthy_remedy::supplied::Asked;
use seaworthy_remedy::world::Observation;

use crate::cluster::Cluster;
use crate::node::{Entry, MANIFEST, PKI, VERSION, address, name};

fn derived() -> Origin {
    Origin::derived("the simulation")
}

fn seen<T>(value: T) -> Observed<T> {
    Observed::seen(value, derived())
}

fn not_running() -> EvidenceError {
    EvidenceError::new(ErrorKind::NotRunning, format!("the etcd that {MANIFEST} declares does not run"))
}

/// Returns the host name of a node.
pub(crate) fn node_name(index: usize) -> String {
    format!("node-{}", name(index))
}

/// Returns a snapshot of a real node and its etcd, without what is told anew each time.
fn base() -> &'static (Snapshot, Subject) {
    static BASE: OnceLock<(Snapshot, Subject)> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut snapshot =
            Snapshot::from_json(include_bytes!("../../../seaworthy/tests/cli/node.json")).unwrap();
        let mut etcd = Subject::of(snapshot.instances("etcd").unwrap()[0].clone());
        snapshot.components.insert("etcd".to_owned(), seen(Vec::new()));
        etcd.settings = seen(Settings::default());
        etcd.declared = seen(Vec::new());
        etcd.drift = seen(Vec::new());
        etcd.listeners = seen(Vec::new());
        etcd.files.manifest = None;
        etcd.files.pki = seen(Vec::new());
        etcd.peer.files = Observed::failed(not_running());
        etcd.peer.problems = seen(Vec::new());
        etcd.own.cluster = Observed::failed(not_running());
        etcd.own.connections = seen(Vec::new());
        etcd.own.links = seen(Vec::new());
        etcd.own.impostors = seen(Vec::new());
        (snapshot, etcd)
    })
}

fn file(path: &str, entry: &Entry) -> File {
    File {
        path: path.to_owned(),
        on_node: Some(path.to_owned()),
        kind: FileKind::Regular,
        mode: entry.mode,
        mode_text: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        owner: entry.uid.to_string(),
        group: entry.gid.to_string(),
        size: entry.bytes.len() as u64,
        origin: Origin::file(path),
    }
}

impl Cluster {
    /// Returns the member of a node as its process shows it, without asking anybody; `None` while it does not run.
    pub(crate) fn running(&mut self, index: usize) -> Option<Arc<Subject>> {
        self.members[index].process.as_ref()?;
        Some(self.etcd(index, false))
    }

    /// Returns what a look at the node and its cluster shows.
    pub(crate) fn observe(&mut self, index: usize) -> Observation {
        let runs = self.members[index].process.is_some();
        let mut snapshot = base().0.clone();
        snapshot.taken_at = self.wall(index);
        snapshot.node.name = node_name(index);
        let etcd = self.etcd(index, true);
        let manifest = self.members[index].files.bytes(MANIFEST).cloned();
        let declaration = manifest.map(|bytes| Declaration {
            path: MANIFEST.to_owned(),
            bytes: bytes.to_vec(),
            unrestorable: None,
        });
        let unasked = "the member does not run".to_owned();
        let (health, progress) = match runs {
            true => (self.health(), self.answers().map(|()| self.records.clone())),
            false => (Err(unasked.clone()), Err(unasked)),
        };
        let trusted = self.members[index].process.as_ref().and_then(|p| p.setting("peer-trusted-ca-file"));
        let trusted =
            trusted.and_then(|path| self.members[index].files.bytes(path)).map(|bytes| bytes.to_vec());
        let (mut listens, mut served, mut clocks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        if etcd.own.cluster.value().is_some() {
            for other in 0..self.members.len() {
                let id = self.members[other].id.clone();
                let Some(process) = self.members[other].process.as_ref().filter(|p| p.is_ready()) else {
                    continue;
                };
                let speaks = process.listens();
                if other != index {
                    listens.insert(id.clone(), BTreeSet::from([speaks]));
                    let told = self.members[index].known.get(&id).into_iter().flatten();
                    if speaks == Scheme::Http && told.into_iter().all(|url| url.starts_with("http:")) {
                        let ahead = self.members[other].clock - self.members[index].clock;
                        clocks.insert(id.clone(), ahead);
                    }
                }
                if speaks == Scheme::Https
                    && let Some(chain) = self.presents(other)
                {
                    served.insert(id, chain.to_vec());
                }
            }
        }
        Observation {
            snapshot,
            subject: etcd,
            declaration: declaration.into_iter().collect(),
            health,
            progress,
            listens,
            clocks,
            served,
            trusted,
            asked: Asked::default(),
        }
    }

    fn health(&self) -> Result<Health, String> {
        self.answers()?;
        let of_member = |index: usize| {
            let ready = self.is_ready(index);
            let trouble = match (ready, self.is_healthy(index)) {
                (_, true) => None,
                (true, false) => Some("etcdserver: no leader".to_owned()),
                (false, _) => Some("connection refused".to_owned()),
            };
            let version = ready.then(|| VERSION.to_owned());
            (self.members[index].id.clone(), MemberHealth { version, trouble })
        };
        Ok(Health {
            members: (0..self.members.len()).map(of_member).collect(),
            alarms: Vec::new(),
            leader: self.leader.map(|leader| self.members[leader].id.clone()),
        })
    }

    /// Returns the member of a node, with what others say of it where it `asks` them. It is made anew once something has changed.
    fn etcd(&mut self, index: usize, asks: bool) -> Arc<Subject> {
        let now = (self.changes, self.members[index].clock);
        if let Some((then, etcd)) = &self.members[index].shown[usize::from(asks)]
            && *then == now
        {
            return Arc::clone(etcd);
        }
        let etcd = Arc::new(self.evidence(index, asks));
        // What is wrong with a certificate may be over a moment later.
        let lasts = etcd.peer.problems.value().is_none_or(Vec::is_empty);
        self.members[index].shown[usize::from(asks)] = lasts.then(|| (now, Arc::clone(&etcd)));
        etcd
    }

    fn evidence(&mut self, index: usize, asks: bool) -> Subject {
        let mut etcd = base().1.clone();
        self.declare(index, &mut etcd);
        let Some(process) = &self.members[index].process else {
            return absent(etcd, index);
        };
        let pid = process.identity.pid;
        (etcd.id, etcd.own.name) = (format!("etcd {} (pid {pid})", name(index)), Some(name(index)));
        if let Observed::Seen { value, .. } = &mut etcd.process {
            value.pid = pid;
            value.identity = Some(process.identity.clone());
            value.started_at = self.wall(index) - (self.now - process.started);
            (value.uid, value.gid) =
                (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        }
        etcd.settings = seen(process.settings().clone());
        etcd.version = seen(VERSION.to_owned());
        etcd.drift = seen(self.drift(index));
        let listens = process.listens();
        let auth = settings::client_auth(process.settings(), Purpose::Peer);
        let auto = settings::auto_tls(process.settings(), Purpose::Peer);
        (etcd.own.peer.client_auth, etcd.own.peer.auto_tls) = (seen(auth), seen(auto));
        etcd.peer.files = seen(self.credentials(index));
        etcd.peer.problems = seen(self.problems(index));
        if !asks {
            // Without a question to its peer port the membership is what the data directory says.
            etcd.own.cluster = seen(self.membership_of(index, MemberSource::DataDirectory));
            return etcd;
        }
        let ready = self.is_ready(index);
        let answers = ready && (listens == Scheme::Http || self.accepts_itself(index));
        let source = if answers { MemberSource::Live } else { MemberSource::DataDirectory };
        let cluster = self.membership_of(index, source);
        let me = cluster.members.iter().find(|m| m.this);
        let urls = me.map(|m| m.peer_urls.clone()).unwrap_or_default();
        etcd.own.peer.advertised =
            seen(urls.into_iter().map(|url| Advertised { url, origin: derived() }).collect());
        etcd.own.cluster = seen(cluster);
        etcd.listeners = seen(self.listeners(index));
        etcd.own.connections = seen(self.connections_of(index));
        etcd.own.links = seen(self.links(index));
        etcd
    }

    fn declare(&mut self, index: usize, etcd: &mut Subject) {
        let files = &self.members[index].files;
        let entry = files.0.get(MANIFEST);
        let missing = || EvidenceError::new(ErrorKind::NotFound, MANIFEST);
        etcd.files.manifest = Some(match entry {
            Some(entry) => seen(file(MANIFEST, entry)),
            None => Observed::failed(missing()),
        });
        let manifest = files.manifest();
        etcd.declared = seen(
            manifest
                .map(|manifest| Declared {
                    attributed_by: Some(AttributedBy::PodUid),
                    kind: DeclaredKind::StaticPod,
                    path: MANIFEST.to_owned(),
                    settings: seen(manifest.declared.clone()),
                    fatal: seen(manifest.fatal.clone()),
                    uid: None,
                    files: None,
                })
                .into_iter()
                .collect(),
        );
        let pki = files.0.iter().filter(|(path, _)| path.starts_with(PKI)).map(|(path, entry)| PkiFile {
            file: file(path, entry),
            holds: if path.ends_with(".key") { PkiContent::PrivateKey } else { PkiContent::Certificate },
        });
        etcd.files.pki = seen(pki.collect());
    }

    /// Returns the settings that a start from the manifest would give, and the process does not have.
    fn drift(&self, index: usize) -> Vec<Drift> {
        let member = &self.members[index];
        let manifest = member.files.manifest();
        let (Some(manifest), Some(process)) = (manifest, &member.process) else { return Vec::new() };
        let mut drift = Vec::new();
        for (name, promised) in manifest.declared.iter() {
            let Some(running) = process.settings().get(name) else { continue };
            let default = |origin: &Origin| matches!(origin, Origin::Default { .. });
            let same = promised.value == running.value && promised.on == running.on;
            if !(same || default(&promised.origin) && default(&running.origin)) {
                drift.push(Drift {
                    subject: name.clone(),
                    declared: Side { value: promised.value.clone(), origin: promised.origin.clone() },
                    running: Side { value: running.value.clone(), origin: running.origin.clone() },
                    message: format!("{MANIFEST} declares {name} otherwise than it runs"),
                });
            }
        }
        let ca = process.setting("peer-trusted-ca-file").and_then(|path| member.files.bytes(path));
        if ca.is_some_and(|bytes| *bytes != process.trusts) {
            drift.push(Drift {
                subject: "the peer CA file".to_owned(),
                declared: Side { value: "changed".to_owned(), origin: derived() },
                running: Side { value: "as it was".to_owned(), origin: derived() },
                message: "the peer CA file was changed after etcd had read it".to_owned(),
            });
        }
        drift
    }

    fn membership_of(&self, index: usize, source: MemberSource) -> Membership {
        let member = |(id, urls): (&String, &Vec<String>)| {
            let at = self.members.iter().position(|m| m.id == *id)?;
            Some(Member {
                id: id.clone(),
                name: name(at),
                peer_urls: urls.iter().filter_map(|url| Url::parse(url)).collect(),
                client_urls: Url::parse(&format!("https://{}:2379", address(at))).into_iter().collect(),
                learner: false,
                this: at == index,
            })
        };
        let members = self.members[index].known.iter().filter_map(member).collect();
        Membership { members, source, established: "the simulation knows it".to_owned() }
    }

    /// Returns whether a member can ask its own peer port with its own certificate.
    fn accepts_itself(&mut self, index: usize) -> bool {
        let Some(chain) = self.presents(index) else { return false };
        let Some(trusts) = self.members[index].process.as_ref().map(|process| process.trusts.clone()) else {
            return false;
        };
        trusts.is_empty() || self.accepts(&trusts, &chain, seaworthy_pki::Usage::Client)
    }

    fn listeners(&mut self, index: usize) -> Vec<Listener> {
        let Some(process) = &self.members[index].process else { return Vec::new() };
        let url = process.setting("listen-peer-urls").and_then(Url::parse);
        let (tls, ready, demands) =
            (process.listens() == Scheme::Https, process.is_ready(), process.demands());
        let trusts = process.trusts.clone();
        let Some(url) = url else { return Vec::new() };
        let at = format!("{}:2380", address(index));
        let facts = |chain: &[Parsed]| chain.iter().map(|parsed| parsed.certificate.clone()).collect();
        let chain = if tls { self.presents(index).map(|chain| facts(&chain)) } else { None };
        let acceptable = self.parsed(&trusts).filter(|_| tls && demands);
        let acceptable =
            acceptable.map(|roots| roots.iter().map(|r| r.certificate.subject.clone()).collect());
        let wire = Wire {
            address: at.clone(),
            tls: seen(tls),
            plaintext: seen(!tls),
            complete: seen(true),
            spoke: "the simulation".to_owned(),
            raft: Some(true),
            etcd_version: Some(VERSION.to_owned()),
            protocols: Vec::new(),
            suites: Vec::new(),
            groups: Vec::new(),
            client_certificate: tls.then_some(match demands {
                true => ClientCertificate::Required,
                false => ClientCertificate::NotRequested,
            }),
            acceptable_cas: acceptable,
            chain: chain.unwrap_or_default(),
            milliseconds: 1,
            connections: 1,
        };
        let refused = || Observed::failed(EvidenceError::new(ErrorKind::Io, "connection refused"));
        let wire = Some(if ready { seen(wire) } else { refused() });
        let purpose = Purpose::Peer;
        vec![Listener {
            url,
            purpose,
            configured: true,
            address: Some(at),
            wire,
            open_to: None,
            origin: derived(),
        }]
    }

    fn connections_of(&self, index: usize) -> Vec<Connection> {
        let mut found = Vec::new();
        for other in (0..self.members.len()).filter(|other| *other != index) {
            let (own, theirs) = (address(index), address(other));
            let connection = |local: String, remote: String, direction, transport| Connection {
                local,
                remote,
                direction,
                member: Some(name(other)),
                transport,
                observed: None,
                origin: derived(),
            };
            if let Some(carries) = self.connections[other][index] {
                let transport = match carries {
                    Scheme::Http => TransportSeen::Plaintext,
                    Scheme::Https => TransportSeen::Tls,
                };
                let (local, remote) = (format!("{own}:2380"), format!("{theirs}:40410"));
                found.push(connection(local, remote, Direction::Inbound, transport));
            }
            if self.connections[index][other].is_some() {
                let (local, remote) = (format!("{own}:45880"), format!("{theirs}:2380"));
                found.push(connection(local, remote, Direction::Outbound, TransportSeen::Undetermined));
            }
        }
        found
    }

    fn links(&self, index: usize) -> Vec<Link> {
        let link = |other: usize| {
            let inbound = u32::from(self.connections[other][index].is_some());
            let outbound = u32::from(self.connections[index][other].is_some());
            Link {
                member: name(other),
                inbound: seen(inbound),
                outbound: seen(outbound),
                half_open: inbound != outbound,
                down: inbound + outbound == 0,
                message: String::new(),
                origin: derived(),
            }
        };
        (0..self.members.len()).filter(|other| *other != index).map(link).collect()
    }

    /// Returns a path that a setting of the process names.
    fn named(&self, index: usize, setting: &str) -> Option<String> {
        self.members[index].process.as_ref()?.setting(setting).map(str::to_owned)
    }

    fn credentials(&mut self, index: usize) -> Credentials {
        let [certificate, key, ca] =
            ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"].map(|name| self.named(index, name));
        let missing = |path: &str| EvidenceError::new(ErrorKind::NotFound, path);
        let mut chain = |path: &String| {
            let found = self.certificates(index, path);
            let facts = found.map(|all| all.iter().map(|parsed| parsed.certificate.clone()).collect());
            Observed::from_result(facts.ok_or_else(|| missing(path)), Origin::file(path))
        };
        let (presented, trusted) = (certificate.as_ref().map(&mut chain), ca.as_ref().map(&mut chain));
        Credentials {
            chain: presented,
            key: None,
            key_matches: certificate.zip(key).map(|_| seen(self.presents(index).is_some())),
            client_chain: None,
            trusted,
            revocations: None,
        }
    }

    /// Returns what is wrong with the key material for peers.
    fn problems(&mut self, index: usize) -> Vec<Problem> {
        let names = ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"];
        let [certificate, key, ca] = names.map(|name| self.named(index, name));
        let now = self.wall(index);
        let (Some(certificate), Some(key), Some(ca)) = (certificate, key, ca) else { return Vec::new() };
        let bytes = |path: &str| self.members[index].files.bytes(path).cloned();
        let fingerprint = [bytes(&certificate), bytes(&key), bytes(&ca)];
        if self.sound.contains(&fingerprint) {
            return Vec::new();
        }
        let (chain, roots) = (self.certificates(index, &certificate), self.certificates(index, &ca));
        let public = self.public_half(index, &key);
        let of_leaf = chain.as_ref().and_then(|chain| chain.first()).map(|leaf| leaf.certificate.key.clone());
        let private =
            public.zip(of_leaf).map(|(spki, leaf)| PrivateKey { path: key, key: PublicKey { spki, ..leaf } });
        let missing = EvidenceError::new(ErrorKind::NotFound, "it is not there");
        let origin = derived();
        let dialled = [address(index)];
        let source = |path: &'static str, content| Source { path, origin: &origin, content, refusal: None };
        let content = |all: &Option<Arc<[Parsed]>>| all.clone().ok_or(());
        let (chain, roots) = (content(&chain), content(&roots));
        let material = Material {
            certificate: Some(source("peer-cert-file", chain.as_deref().map_err(|()| &missing))),
            key: Some(Source {
                path: "peer-key-file",
                origin: &origin,
                content: private.as_ref().ok_or(&missing),
                refusal: None,
            }),
            trusted: Some(source("peer-trusted-ca-file", roots.as_deref().map_err(|()| &missing))),
            ..Material::default()
        };
        let usage = Use {
            side: seaworthy_pki::Side::Peer,
            dialled: &dialled,
            dials_from: &[],
            client_auth: true,
            checks_client_names: true,
            allowed: None,
            user: seaworthy_pki::User::Etcd(Some(VERSION)),
        };
        let found = problems(&material, &usage, now);
        if found.is_empty() {
            self.sound.insert(fingerprint);
        }
        found
    }

    /// Judges a rule for the member of a node, as the catalogue would.
    pub(crate) fn judge(&self, rule: &str, seen: &Observation) -> Result<(), String> {
        let etcd = &seen.subject;
        let settings = etcd.settings.as_result().map_err(|error| error.to_string())?;
        let holds = |does: bool, otherwise: &str| match does {
            true => Ok(()),
            false => Err(format!("{rule} does not pass: {otherwise}")),
        };
        let set = |name: &str| settings.get(name).is_some_and(|s| s.set);
        let problems = etcd.peer.problems.value().map(Vec::as_slice).unwrap_or_default();
        match rule {
            "certificate-soundness" => Ok(()),
            "declaration-starts" => {
                let declared = etcd.declared.as_result().map_err(|error| error.to_string())?;
                holds(
                    declared.iter().all(|d| d.fatal.value().is_some_and(Vec::is_empty)),
                    "it would not start",
                )
            }
            "drift" => {
                let drift = etcd.drift.as_result().map_err(|error| error.to_string())?;
                holds(drift.is_empty(), "what is declared is not what runs")
            }
            "manifest-mode" => {
                let manifest = etcd.files.manifest.as_ref().ok_or("there is no manifest")?;
                let manifest = manifest.as_result().map_err(|error| error.to_string())?;
                holds(manifest.mode & !0o600 == 0, &manifest.mode_text)
            }
            "etcd-peer-certificate" => holds(
                !set("peer-cert-file") && !set("peer-trusted-ca-file") || problems.is_empty(),
                "the certificate is not sound",
            ),
            "etcd-peer-tls" => {
                holds(set("peer-cert-file") && set("peer-key-file"), "there is no certificate")?;
                let listeners = etcd.listeners_for(Purpose::Peer).map_err(|error| error.to_string())?;
                let listeners: Vec<&Listener> = listeners.collect();
                let tls = |l: &Listener| {
                    let wire = l.wire.as_ref().and_then(|wire| wire.value());
                    l.url.is_tls() && wire.is_some_and(|wire| wire.speaks_only_tls() == Some(true))
                };
                holds(!listeners.is_empty() && listeners.iter().all(|l| tls(l)), "it listens in plaintext")?;
                let dialled = seen.members().iter().flat_map(|m| &m.peer_urls).all(Url::is_tls);
                holds(dialled, "members are dialled in plaintext")?;
                holds(problems.iter().all(|p| !p.breaks), "the certificate is not sound")?;
                let connections = etcd.own.connections.as_result().map_err(|error| error.to_string())?;
                let plain = connections.iter().any(|c| c.transport == TransportSeen::Plaintext);
                holds(!plain, "a connection is plaintext")?;
                let links = etcd.own.links.as_result().map_err(|error| error.to_string())?;
                holds(links.iter().all(|link| !link.half_open), "a link is half open")
            }
            other => Err(format!("{other} was not judged")),
        }
    }
}

/// Returns the member that is declared and does not run.
fn absent(mut etcd: Subject, index: usize) -> Subject {
    let error = not_running();
    fn nothing<T>(error: &EvidenceError) -> Observed<T> {
        Observed::failed(error.clone())
    }
    etcd.id = format!("etcd {} (not running)", name(index));
    etcd.own.name = Some(name(index));
    etcd.process = nothing(&error);
    etcd.version = nothing(&error);
    etcd.settings = nothing(&error);
    etcd.config_file = None;
    etcd.ignored_environment = Some(nothing(&error));
    etcd.drift = nothing(&error);
    etcd.listeners = nothing(&error);
    etcd.files.pki = nothing(&error);
    for material in [&mut etcd.peer, &mut etcd.client] {
        (material.files, material.problems) = (nothing(&error), nothing(&error));
    }
    let own = &mut etcd.own;
    for side in [&mut own.peer, &mut own.client] {
        side.advertised = nothing(&error);
        (side.client_auth, side.auto_tls) = (nothing(&error), nothing(&error));
    }
    own.cluster = nothing(&error);
    (own.connections, own.links) = (nothing(&error), nothing(&error));
    (own.impostors, own.shared_cas) = (nothing(&error), nothing(&error));
    own.data_directory = nothing(&error);
    etcd
}
