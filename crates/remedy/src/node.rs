//! The node that a fix runs on, as the fix sees it: the member, the files that declare it, and how its cluster is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_collect::root::Root;
use seaworthy_collect::systemd::Unit;
use seaworthy_etcd_api::{AlarmKind, Client, Endpoint, Identity, Security, Timeouts};
use seaworthy_evidence::{DeclaredKind, Etcd, EvidenceError, Member, Snapshot, Wire};
use seaworthy_pki::Parsed;
use seaworthy_wire::{Question, Target};
use zeroize::Zeroizing;

use crate::note::{self, Note};
use crate::order::Scheme;
use crate::plan::{Objection, Refusal};
use crate::planner::{self, Declaration, Health, MemberHealth, Options, Situation};
use crate::supplied::{Asked, Supplied, SuppliedFile};
use seaworthy_journal::files;

/// Where kubeadm keeps the authority of its certificates for etcd.
const KUBEADM_CA: &str = "/etc/kubernetes/pki/etcd/ca.crt";
/// Where kubeadm keeps certificates for clients of etcd, without their ending.
const KUBEADM_CLIENTS: [&str; 2] =
    ["/etc/kubernetes/pki/etcd/healthcheck-client", "/etc/kubernetes/pki/apiserver-etcd-client"];
/// Most bytes of a file that is read.
const CAP: usize = 1 << 20;

/// A node, and which member on it is meant.
#[derive(Clone, Debug)]
pub struct Node {
    /// Folder below which the host's files are.
    pub root: PathBuf,
    /// How long a listener or a member may take to answer.
    pub timeout: Duration,
    /// Name of the member, where several run.
    pub member: Option<String>,
    /// Whether client ports are believed without a certificate that can be verified: while the self-made ones of the
    /// members are exchanged.
    pub self_made: bool,
}

/// What was observed at one moment.
#[derive(Debug)]
pub struct Observation {
    /// The node.
    pub snapshot: Snapshot,
    /// The member.
    pub etcd: Etcd,
    /// The files that declare it.
    pub declaration: Vec<Declaration>,
    /// How the members are, or why they could not be asked.
    pub health: Result<Health, String>,
    /// What the members have left word of, by id.
    pub notes: BTreeMap<String, Note>,
    /// What the peer ports of the other members speak, by id.
    pub listens: BTreeMap<String, BTreeSet<Scheme>>,
    /// By how many seconds the clocks of the other members are ahead of this node's, by id.
    pub clocks: BTreeMap<String, i64>,
    /// The certificates that the peer ports of the members serve, leaf first, by id.
    pub served: BTreeMap<String, Vec<Parsed>>,
    /// The content of the file that the member's peer-trusted-ca-file names, as its process sees it.
    pub trusted: Option<Vec<u8>>,
    /// What is there of the files by which the member asks for a certificate.
    pub asked: Asked,
}

/// Why there is no observation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotObserved {
    /// The root cannot be read.
    #[error("{0}")]
    Root(EvidenceError),
    /// There is no member to observe, or what declares it cannot be read.
    #[error("{}: {}", .0.what, .0.instead)]
    Refused(Refusal),
    /// There are several, with these ids.
    #[error("several members run on this node: {}", .0.join(", "))]
    Several(Vec<String>),
}

impl Node {
    /// Returns the node and its cluster as they are now. Members and peer ports are asked at the same time.
    ///
    /// # Errors
    ///
    /// When no member that runs on this node is meant, or several are, or what declares it cannot be read. Whatever else
    /// cannot be observed is part of the observation.
    pub fn observe(&self) -> Result<Observation, NotObserved> {
        let snapshot = self.survey(true, seaworthy_collect::PATIENCE)?;
        let etcd = self.member_of(&snapshot)?.clone();
        let root = Root::host(&self.root).map_err(NotObserved::Root)?;
        // What cannot be read is refused by the plans that need it.
        let declaration = declaration(&etcd, &snapshot, &root).unwrap_or_default();
        let members = etcd.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
        let (health, notes, ports) = thread::scope(|scope| {
            let ports = scope.spawn(|| self.peers(members, snapshot.taken_at));
            let client = self.client(&etcd);
            let health = client.as_ref().map_err(Clone::clone).and_then(|client| health(client, members));
            let notes = client.and_then(|client| note::read_all(&client).map_err(|error| error.to_string()));
            let (health, notes) = believed(health, notes);
            (health, notes, ports.join().unwrap_or_default())
        });
        let schemes = |wire: &Wire| {
            let spoken = [(wire.plaintext, Scheme::Http), (wire.tls, Scheme::Https)];
            spoken.into_iter().filter(|(speaks, _)| *speaks).map(|(_, scheme)| scheme).collect()
        };
        let (mut listens, mut served, mut clocks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (id, port) in ports {
            clocks.extend(port.ahead.map(|seconds| (id.clone(), seconds)));
            listens.extend(port.wire.as_ref().map(|wire| (id.clone(), schemes(wire))));
            served.extend(port.served.map(|chain| (id, chain)));
        }
        let trusted = trusted(&etcd, &root);
        let asked = Asked::default();
        let mut seen = Observation {
            etcd,
            declaration,
            health,
            notes,
            listens,
            clocks,
            served,
            trusted,
            asked,
            snapshot,
        };
        seen.asked = self.asked(&seen);
        Ok(seen)
    }

    /// Returns what is there of the files by which the member asks for a certificate.
    fn asked(&self, seen: &Observation) -> Asked {
        let options = Options::default();
        let Ok(files) = planner::request_files(&seen.situation(&options)) else { return Asked::default() };
        let is_there = |path: &str| {
            let root = files::Root::open(&self.root).ok()?;
            root.read(Path::new(path)).ok().flatten()
        };
        Asked {
            key: is_there(&files.key).is_some(),
            request: is_there(&files.request).is_some(),
            returned: self.supplied(&files.certificate, &files.key).ok(),
        }
    }

    /// Returns what is to be known of a certificate and a key that come from elsewhere.
    ///
    /// # Errors
    ///
    /// When one of the files cannot be read, or is not what it should be; in words.
    pub fn supplied(&self, certificate: &str, key: &str) -> Result<Supplied, String> {
        let root = files::Root::open(&self.root).map_err(|error| error.to_string())?;
        let read = |path: &str| -> Result<files::Content, String> {
            let content = root.read(Path::new(path)).map_err(|error| error.to_string())?;
            content.ok_or_else(|| format!("{path} is not there"))
        };
        let (certificate_file, key_file) = (read(certificate)?, read(key)?);
        let key_bytes = Zeroizing::new(key_file.bytes);
        let file = |path, bytes, mode, uid, gid| SuppliedFile { path, bytes, mode, uid, gid };
        let (c, k) = (&certificate_file, (key_file.mode, key_file.uid, key_file.gid));
        Supplied::read(
            file(certificate, &c.bytes, c.mode, c.uid, c.gid),
            file(key, &key_bytes, k.0, k.1, k.2),
        )
        .map_err(|refusal| refusal.what)
    }

    /// Returns the member's process and settings alone, without asking anybody; `None` while it does not run.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`], but for a member that is not there.
    pub fn glance(&self) -> Result<Option<Etcd>, NotObserved> {
        let snapshot = self.survey(false, Duration::ZERO)?;
        match self.member_of(&snapshot) {
            Ok(etcd) => Ok(etcd.process.value().is_some().then(|| etcd.clone())),
            Err(NotObserved::Refused(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Returns a client of the cluster, this member's endpoints first.
    ///
    /// # Errors
    ///
    /// When there is no client URL, or no usable certificate for it; in words.
    pub fn client(&self, etcd: &Etcd) -> Result<Client, String> {
        let cluster = etcd.cluster.as_result().map_err(|error| error.to_string())?;
        let mut members: Vec<&Member> = cluster.members.iter().collect();
        members.sort_by_key(|m| !m.this);
        self.client_at(Some(etcd), members.iter().flat_map(|m| &m.client_urls).map(|url| url.text.as_str()))
    }

    /// Returns a client of the cluster that asks at these URLs, in their order. Without the member it has no certificates
    /// but those that kubeadm made.
    ///
    /// # Errors
    ///
    /// When there is no URL, or no usable certificate for it; in words.
    pub fn client_at<'a>(
        &self,
        etcd: Option<&Etcd>,
        urls: impl Iterator<Item = &'a str>,
    ) -> Result<Client, String> {
        let endpoints: Vec<Endpoint> = urls.filter_map(|url| url.parse().ok()).collect();
        if endpoints.is_empty() {
            return Err("no client URL of a member is known".to_owned());
        }
        let root = Root::host(&self.root).map_err(|error| error.to_string())?;
        let tls = endpoints.iter().any(Endpoint::is_tls);
        let security = match tls {
            true => security(etcd, &root, self.self_made)?,
            false => Security::plaintext(),
        };
        let call = self.timeout.max(Timeouts::default().call);
        let timeouts = Timeouts { connect: self.timeout, call };
        Client::new(endpoints, security, timeouts).map_err(|error| error.to_string())
    }

    fn survey(&self, wire: bool, patience: Duration) -> Result<Snapshot, NotObserved> {
        let options = seaworthy_collect::Options {
            root: self.root.clone(),
            wire,
            observe: None,
            timeout: self.timeout,
            patience,
            now: Timestamp::now(),
        };
        seaworthy_collect::collect(&options).map_err(NotObserved::Root)
    }

    /// Returns the member that is meant.
    fn member_of<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a Etcd, NotObserved> {
        let refuse = |what: String| {
            NotObserved::Refused(Refusal {
                objection: Objection::Evidence,
                what,
                why: "a plan is made from a running member".to_owned(),
                instead: "run it as root on a node where the member runs".to_owned(),
            })
        };
        let all = snapshot.etcd.as_result().map_err(|error| refuse(error.to_string()))?;
        let meant = |etcd: &&Etcd| self.member.is_none() || etcd.name == self.member;
        let found: Vec<&Etcd> = all.iter().filter(meant).collect();
        match (found.as_slice(), &self.member) {
            ([one], _) => Ok(one),
            ([], Some(name)) => Err(refuse(format!("no member called {name} runs on this node"))),
            ([], None) => Err(refuse("no etcd runs on this node".to_owned())),
            (several, _) => Err(NotObserved::Several(several.iter().map(|e| e.id.clone()).collect())),
        }
    }

    /// Returns what the peer ports of the members say, by id.
    fn peers(&self, members: &[Member], now: Timestamp) -> BTreeMap<String, Port> {
        let options = seaworthy_wire::Options {
            timeout: self.timeout,
            enumerate: false,
            ..seaworthy_wire::Options::new(now)
        };
        let ask = |member: &Member| {
            let url = member.peer_urls.first()?;
            let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
            let target = Target::resolve(&format!("{host}:{}", url.port?)).ok()?;
            // Of this member's own port there is evidence already.
            let wire = if member.this { None } else { seaworthy_wire::probe(&target, &options).ok() };
            let tls = url.is_tls() || wire.as_ref().is_some_and(|wire| wire.tls);
            let served = if tls { seaworthy_wire::served(&target, &options).ok() } else { None };
            // Others' certificates would be needed to ask a TLS port; while it matters most, ports are plaintext.
            let ahead = if tls || member.this { None } else { ahead(&target, &options) };
            Some(Port { wire, served, ahead })
        };
        thread::scope(|scope| {
            let asked: Vec<_> = members.iter().map(|m| (m, scope.spawn(move || ask(m)))).collect();
            let answers =
                asked.into_iter().map(|(m, thread)| Some((m.id.clone(), thread.join().ok().flatten()?)));
            answers.flatten().collect()
        })
    }
}

/// What a peer port said.
struct Port {
    wire: Option<Wire>,
    served: Option<Vec<Parsed>>,
    ahead: Option<i64>,
}

/// Returns by how many seconds the clock of the member behind a plaintext peer port is ahead of this node's.
fn ahead(target: &Target, options: &seaworthy_wire::Options) -> Option<i64> {
    let security = seaworthy_wire::Security::Plaintext;
    let asked = Timestamp::now();
    let answer = seaworthy_wire::get(target, security, Question::Probing, options).ok()?;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let theirs: Timestamp = told.get("Now")?.as_str()?.parse().ok()?;
    Some(theirs.as_second() - asked.as_second())
}

/// Returns the content of the file whose authorities the member trusts as a peer.
fn trusted(etcd: &Etcd, root: &Root) -> Option<Vec<u8>> {
    let setting = etcd.settings.value()?.get("peer-trusted-ca-file").filter(|s| s.set)?;
    let pid = etcd.process.value()?.pid;
    let of_process = Root::host(format!("/proc/{pid}/root")).and_then(|own| own.read(&setting.value, CAP));
    of_process.or_else(|_| root.read(&setting.value, CAP)).ok()
}

impl Observation {
    /// Returns what a plan is made from.
    pub fn situation<'a>(&'a self, options: &'a Options) -> Situation<'a> {
        let clients = &self.snapshot.etcd_clients;
        let unseen = || clients.error().map_or("they were not looked for", |error| error.message.as_str());
        Situation {
            node: &self.snapshot.node.name,
            taken_at: self.snapshot.taken_at,
            etcd: &self.etcd,
            declaration: &self.declaration,
            health: self.health.as_ref().map_err(String::as_str),
            notes: &self.notes,
            listens: &self.listens,
            clocks: &self.clocks,
            served: &self.served,
            trusted: self.trusted.as_deref(),
            asked: &self.asked,
            clients: clients.value().map(Vec::as_slice).ok_or_else(unseen),
            options,
        }
    }
}

/// Returns the files that declare the member.
fn declaration(etcd: &Etcd, snapshot: &Snapshot, root: &Root) -> Result<Vec<Declaration>, Refusal> {
    let mut paths = planner::declared_in(etcd)?;
    let declared = etcd.declared.value().and_then(|d| d.first());
    let unit = declared.filter(|d| d.kind == DeclaredKind::SystemdUnit).map(|d| d.path.as_str());
    let name = unit.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if !name.is_empty()
        && let Ok(Some(unit)) = Unit::find(root, name, &snapshot.node.name)
        && paths.first() == Some(&unit.path)
    {
        paths.extend(unit.drop_ins);
    }
    let refuse = |error: EvidenceError| Refusal {
        objection: Objection::Evidence,
        what: format!("a file that declares the member could not be read: {error}"),
        why: "what cannot be read cannot be edited".to_owned(),
        instead: "run it as root on the node".to_owned(),
    };
    let read = |path: String| {
        let bytes = root.read(&path, CAP).map_err(refuse)?;
        Ok(Declaration { unrestorable: unrestorable(root, &snapshot.node.root, &path), path, bytes })
    };
    paths.into_iter().map(read).collect()
}

/// Returns why the file could not be put back; `None` when nothing is known to be against it.
fn unrestorable(root: &Root, host: &str, path: &str) -> Option<String> {
    if let Ok(Some(target)) = root.read_link(path) {
        return Some(format!("it is a symbolic link to {}", target.to_string_lossy()));
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directory = format!("{}{directory}", host.trim_end_matches('/'));
    let stat = rustix::fs::statvfs(directory.as_str()).ok()?;
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    read_only.then(|| "its file system is read-only".to_owned())
}

/// Returns how the members are, as they say themselves.
fn health(client: &Client, members: &[Member]) -> Result<Health, String> {
    // The members are asked at the same time, so that one that is silent costs its own time only.
    let asked: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = members.iter().map(|m| (m, scope.spawn(move || ask(client, m)))).collect();
        let lost = || (silent("the question did not end".to_owned()), None);
        asked.into_iter().map(|(m, thread)| (m, thread.join().unwrap_or_else(|_| lost()))).collect()
    });
    let mut health = Health::default();
    for (member, (answer, leader)) in asked {
        health.leader = health.leader.or(leader);
        health.members.insert(member.id.clone(), answer);
    }
    let name = |id: u64| members.iter().find(|m| number(m) == Some(id)).map_or("?", |m| m.name.as_str());
    for alarm in client.alarms().map_err(|error| error.to_string())? {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE".to_owned(),
            AlarmKind::Corrupt => "CORRUPT".to_owned(),
            other => format!("{other:?}"),
        };
        health.alarms.push(format!("{kind} at {}", name(alarm.member_id)));
    }
    let leader = health.leader.take().and_then(|id| id.parse().ok());
    health.leader = members.iter().find(|m| leader.is_some() && number(m) == leader).map(|m| m.id.clone());
    Ok(health)
}

/// Returns the health of the cluster and what the members left word of. A cluster whose words cannot be read is not known to
/// be well: taken for silence, they would hide a turn that was begun and not ended.
fn believed(
    health: Result<Health, String>,
    notes: Result<BTreeMap<String, Note>, String>,
) -> (Result<Health, String>, BTreeMap<String, Note>) {
    match notes {
        Ok(notes) => (health, notes),
        Err(why) => {
            let unread = || format!("what the members left word of could not be read: {why}");
            (health.and_then(|_| Err(unread())), BTreeMap::new())
        }
    }
}

fn silent(why: String) -> MemberHealth {
    MemberHealth { version: None, trouble: Some(why) }
}

/// Returns how a member is, and whom it takes for the leader.
fn ask(client: &Client, member: &Member) -> (MemberHealth, Option<String>) {
    let mut health = silent("it has no client URL".to_owned());
    let endpoints = member.client_urls.iter().filter_map(|url| url.text.parse::<Endpoint>().ok());
    for endpoint in endpoints {
        let status = match client.status(&endpoint) {
            Ok(status) => status,
            Err(error) => {
                health.trouble = Some(error.to_string());
                continue;
            }
        };
        // A learner refuses the read; what it lacks is said by the others.
        let read = if member.learner { Ok(0) } else { client.revision(&endpoint) };
        let complaint = status.errors.first().cloned().or_else(|| read.err().map(|error| error.to_string()));
        let foreign = (number(member) != Some(status.member_id))
            .then(|| format!("member {:x} answers in its place", status.member_id));
        let health = MemberHealth { version: Some(status.version), trouble: foreign.or(complaint) };
        return (health, status.leader.map(|id| id.to_string()));
    }
    (health, None)
}

/// Returns the id of a member as a number.
pub(crate) fn number(member: &Member) -> Option<u64> {
    u64::from_str_radix(&member.id, 16).ok()
}

/// Returns whom to believe and whom to be at client ports: what kubeadm made for that, else the member itself.
fn security(etcd: Option<&Etcd>, root: &Root, self_made: bool) -> Result<Security, String> {
    let settings = etcd.and_then(|etcd| etcd.settings.value());
    let given = |name: &str| settings?.get(name).filter(|s| s.set).map(|s| s.value.clone());
    let as_text = |error: EvidenceError| error.to_string();
    let own = given("cert-file").zip(given("key-file"));
    let pairs = KUBEADM_CLIENTS.map(|stem| (format!("{stem}.crt"), format!("{stem}.key")));
    let mut identity = None;
    for (certificate, key) in pairs.into_iter().chain(own) {
        if let (Ok(certificate), Ok(key)) = (root.read(&certificate, CAP), root.read(&key, CAP)) {
            identity = Some((certificate, key));
            break;
        }
    }
    let identity = identity.as_ref().map(|(certificates, key)| Identity { certificates, key });
    if self_made {
        return Security::self_made(identity).map_err(|error| error.to_string());
    }
    let ca = given("trusted-ca-file").unwrap_or_else(|| KUBEADM_CA.to_owned());
    let ca = root.read(&ca, CAP).or_else(|error| root.read(KUBEADM_CA, CAP).map_err(|_| error));
    Security::tls(&ca.map_err(as_text)?, identity).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_whose_words_cannot_be_read_is_not_known_to_be_well() {
        let nobody = || Err("nobody answers".to_owned());
        assert!(believed(Ok(Health::default()), Ok(BTreeMap::new())).0.is_ok());
        let (health, notes) = believed(Ok(Health::default()), nobody());
        assert!(health.unwrap_err().contains("nobody answers") && notes.is_empty());
        assert_eq!(believed(Err("no quorum".to_owned()), nobody()).0.unwrap_err(), "no quorum");
    }
}
