//! The node that a fix runs on: the instance, the files that declare it, and its cluster, as they really are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::subject::Subject;
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use seaworthy_catalogue::{Catalogue, Status};
use seaworthy_etcd_api::{AlarmKind, Client, Endpoint, Error, Identity, Lock, Security, Timeouts};
use seaworthy_evidence::{DeclaredKind, EvidenceError, Instance, Member, Snapshot, Wire};
use seaworthy_host::root::Root;
use seaworthy_host::systemd::Unit;
use seaworthy_journal::files;
use seaworthy_journal::record::Process;
use seaworthy_pki::Parsed;
use seaworthy_wire::{Question, Target};
use zeroize::Zeroizing;

use crate::input::{Declaration, Health, Lacking, MemberHealth, Options, called};
use crate::order::Scheme;
use crate::plan::{Refusal, RefusalKind};
use crate::planner;
use crate::progress::{self, ProgressRecord};
use crate::rollouts::etcd::request::request_files;
use crate::supplied::{Asked, Supplied, SuppliedFile};
use crate::world::{
    Lease, Membership, NoLock, NotObserved, NotPublished, Observation, World, process_of, until,
};

/// How long a lock outlives a run that was killed.
const LOCK_TTL: Duration = Duration::from_secs(15);
/// How often data of members are compared until they are the same.
const POLL: Duration = Duration::from_millis(250);
/// How long members may take to have the same data.
const SAME_DATA: Duration = Duration::from_secs(30);
/// How often the members are asked again because one of them has published something meanwhile.
const CHANGES: u8 = 2;
/// Where kubeadm keeps the authority of its certificates for etcd.
const KUBEADM_CA: &str = "/etc/kubernetes/pki/etcd/ca.crt";
/// Where kubeadm keeps certificates for clients of etcd, without their ending.
const KUBEADM_CLIENTS: [&str; 2] =
    ["/etc/kubernetes/pki/etcd/healthcheck-client", "/etc/kubernetes/pki/apiserver-etcd-client"];
/// Most bytes of a file that is read.
const CAP: usize = 1 << 20;

/// The progress records of the members, or why they could not be read.
type Published = Result<BTreeMap<String, ProgressRecord>, String>;

/// A node, and which instance on it is meant.
#[derive(Clone, Debug)]
pub struct Node {
    /// Folder below which the host's files are.
    pub root: PathBuf,
    /// The component that is meant.
    pub component: String,
    /// How long a listener or a member may take to answer.
    pub timeout: Duration,
    /// Name of the member of etcd, where several run.
    pub member: Option<String>,
    /// Whether client ports are trusted without a certificate that can be verified: while the self-made ones of the members are
    /// exchanged.
    pub self_made: bool,
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
        let subject = self.subject_of(&snapshot)?;
        let root = Root::host(&self.root).map_err(NotObserved::Root)?;
        // What cannot be read is refused by the plans that need it.
        let declaration = declaration(&subject, &snapshot, &root).unwrap_or_default();
        if !subject.is_member() {
            return Ok(Observation::alone(snapshot, subject, declaration));
        }
        let members = subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
        let client = self.client(&subject);
        let client = client.as_ref().map_err(Clone::clone);
        let (health, progress, ports) = self.of_one_moment(client, members, snapshot.taken_at);
        let schemes = |wire: &Wire| {
            let spoken = [(wire.plaintext.value()?, Scheme::Http), (wire.tls.value()?, Scheme::Https)];
            Some(spoken.into_iter().filter(|(speaks, _)| **speaks).map(|(_, scheme)| scheme).collect())
        };
        let (mut listens, mut served, mut clocks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (id, port) in ports {
            clocks.extend(port.ahead.map(|seconds| (id.clone(), seconds)));
            listens.extend(port.wire.as_ref().and_then(schemes).map(|schemes| (id.clone(), schemes)));
            served.extend(port.served.map(|chain| (id, chain)));
        }
        let trusted = trusted(&subject, &root);
        let asked = Asked::default();
        let mut seen = Observation {
            subject: Arc::new(subject),
            declaration,
            health,
            progress,
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

    /// Returns how the members are, what they have published, and what their peer ports say, as nearly of one moment as can be:
    /// no record is newer than what the ports say, and where one was published meanwhile all is asked again. With a record that
    /// is newer a member that has ended its turn would be judged by the certificate that it had before.
    fn of_one_moment(
        &self,
        client: Result<&Client, String>,
        members: &[Member],
        taken_at: Timestamp,
    ) -> (Result<Health, String>, Published, BTreeMap<String, Port>) {
        let unread = |error: Error| format!("what the members have published could not be read: {error}");
        let published = || client.clone().and_then(|client| progress::read_all(client).map_err(unread));
        let mut records = published();
        let mut tries = 0..CHANGES;
        loop {
            let (health, ports) = thread::scope(|scope| {
                let ports = scope.spawn(|| self.peers(members, taken_at));
                let health = client.clone().and_then(|client| health(client, members));
                (health, ports.join().unwrap_or_default())
            });
            if records.is_err() || tries.next().is_none() {
                return (health, records, ports);
            }
            let then = published();
            if then == records {
                return (health, records, ports);
            }
            records = then;
        }
    }

    /// Returns what is there of the files by which the member asks for a certificate.
    fn asked(&self, seen: &Observation) -> Asked {
        let options = Options::default();
        let Ok(files) = request_files(&seen.input(&options)) else { return Asked::default() };
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
    pub fn running(&self) -> Result<Option<Subject>, NotObserved> {
        let snapshot = self.survey(false, Duration::ZERO)?;
        match self.subject_of(&snapshot) {
            Ok(subject) => Ok(subject.process.value().is_some().then(|| subject.clone())),
            Err(NotObserved::Refused(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Returns a client of the cluster, this member's endpoints first.
    ///
    /// # Errors
    ///
    /// When there is no client URL, or no usable certificate for it; in words.
    pub fn client(&self, etcd: &Subject) -> Result<Client, String> {
        let cluster = etcd.own.cluster.as_result().map_err(|error| error.to_string())?;
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
        etcd: Option<&Subject>,
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

    /// Returns the etcdctl(1) command with the endpoints and certificates by which the cluster is reached from this node.
    pub fn etcdctl(&self, etcd: Option<&Subject>) -> String {
        let members =
            etcd.and_then(|etcd| etcd.own.cluster.value()).map(|c| c.members.as_slice()).unwrap_or_default();
        let urls: Vec<&str> =
            members.iter().flat_map(|m| &m.client_urls).map(|url| url.text.as_str()).collect();
        let endpoints = if urls.is_empty() { "URL".to_owned() } else { urls.join(",") };
        let mut command = format!("ETCDCTL_API=3 etcdctl --endpoints={endpoints}");
        if endpoints.contains("https://") {
            let settings = etcd.and_then(|etcd| etcd.settings.value());
            let given = |name: &str| settings?.get(name).filter(|s| s.set).map(|s| s.value.clone());
            let there = |path: &String| self.root.join(path.trim_start_matches('/')).exists();
            let ca = given("trusted-ca-file").unwrap_or_else(|| KUBEADM_CA.to_owned());
            let pairs = KUBEADM_CLIENTS.map(|stem| (format!("{stem}.crt"), format!("{stem}.key")));
            let own = given("cert-file").zip(given("key-file"));
            let pair = pairs.into_iter().find(|(certificate, _)| there(certificate)).or(own);
            command += &format!(" --cacert={ca}");
            command.extend(pair.map(|(certificate, key)| format!(" --cert={certificate} --key={key}")));
        }
        command
    }

    /// Returns the evidence of the node.
    ///
    /// # Errors
    ///
    /// When its root cannot be read.
    pub fn survey(&self, wire: bool, patience: Duration) -> Result<Snapshot, NotObserved> {
        let options = seaworthy_collect::Options {
            root: self.root.clone(),
            wire,
            observe: None,
            timeout: self.timeout,
            layout: None,
            patience,
            now: Timestamp::now(),
        };
        seaworthy_collect::collect(&options).map_err(NotObserved::Root)
    }

    /// Returns the instance that is meant.
    fn subject_of(&self, snapshot: &Snapshot) -> Result<Subject, NotObserved> {
        let refuse = |what: String, instead: &str| {
            NotObserved::Refused(Refusal {
                kind: RefusalKind::Evidence,
                what,
                why: "a plan is made from what runs".to_owned(),
                instead: instead.to_owned(),
            })
        };
        let component = &self.component;
        let elsewhere = format!("run it as root on a node where {component} runs");
        let all = snapshot.instances(component).map_err(|error| refuse(error.to_string(), error.advice()))?;
        let name = |instance: &Instance| instance.etcd.as_ref().and_then(|etcd| etcd.name.clone());
        let meant = |instance: &&Instance| self.member.is_none() || name(instance) == self.member;
        let layout = snapshot.node.layout.value().map(|layout| layout.name.clone());
        let subject = |instance: Instance| {
            let mut subject = Subject::of(instance);
            subject.layout.clone_from(&layout);
            subject
        };
        let mut found: Vec<Subject> = all.iter().filter(meant).cloned().map(subject).collect();
        match (found.as_mut_slice(), &self.member) {
            ([_], _) => {
                found.pop().ok_or_else(|| refuse(format!("no {component} runs on this node"), &elsewhere))
            }
            ([], Some(name)) => Err(refuse(format!("no member called {name} runs on this node"), &elsewhere)),
            ([], None) => Err(refuse(format!("no {component} runs on this node"), &elsewhere)),
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
            let tls = url.is_tls() || wire.as_ref().is_some_and(Wire::speaks_tls);
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
fn trusted(etcd: &Subject, root: &Root) -> Option<Vec<u8>> {
    let setting = etcd.settings.value()?.get("peer-trusted-ca-file").filter(|s| s.set)?;
    let pid = etcd.process.value()?.pid;
    let of_process = Root::host(format!("/proc/{pid}/root")).and_then(|own| own.read(&setting.value, CAP));
    of_process.or_else(|_| root.read(&setting.value, CAP)).ok()
}

/// Returns the files that declare the instance.
fn declaration(subject: &Subject, snapshot: &Snapshot, root: &Root) -> Result<Vec<Declaration>, Refusal> {
    let mut paths = planner::declared_in(subject)?;
    let declared = subject.declared.value().and_then(|d| d.first());
    let unit = declared.filter(|d| d.kind == DeclaredKind::SystemdUnit).map(|d| d.path.as_str());
    let name = unit.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if !name.is_empty()
        && let Ok(Some(unit)) = Unit::find(root, name, &snapshot.node.name)
        && paths.first() == Some(&unit.path)
    {
        paths.extend(unit.drop_ins);
    }
    let refuse = |error: EvidenceError| Refusal {
        kind: RefusalKind::Evidence,
        instead: error.advice().to_owned(),
        what: format!("a file that declares it could not be read: {error}"),
        why: "what cannot be read cannot be edited".to_owned(),
    };
    let read = |path: String| {
        let bytes = root.read(&path, CAP).map_err(refuse)?;
        Ok(Declaration { unrestorable: unrestorable(root, &path), path, bytes })
    };
    paths.into_iter().map(read).collect()
}

/// Returns why the file could not be put back; `None` when nothing is known to be against it.
fn unrestorable(root: &Root, path: &str) -> Option<String> {
    let target = root.read_link(path).ok().flatten()?;
    Some(format!("it is a symbolic link to {}", target.to_string_lossy()))
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

/// Returns which authorities to trust and which certificate to show at client ports: what kubeadm made for that, else the
/// member's own.
fn security(etcd: Option<&Subject>, root: &Root, self_made: bool) -> Result<Security, String> {
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

/// The real world of a fix: a node, and the rules by which the result is judged.
#[derive(Debug)]
pub struct Live<'a> {
    node: &'a Node,
    catalogue: &'a Catalogue,
    start: Instant,
}

impl<'a> Live<'a> {
    /// Returns the world of a node.
    pub fn new(node: &'a Node, catalogue: &'a Catalogue) -> Self {
        Self { node, catalogue, start: Instant::now() }
    }

    /// Runs systemctl(1), which has no library that does without D-Bus.
    fn systemctl(&self, arguments: &[&str], limit: Duration) -> Result<(), String> {
        let told = format!("systemctl {}", arguments.join(" "));
        if self.node.root != Path::new("/") {
            return Err(format!(
                "{told} can only be run on the node itself: run seaworthy there, without --root"
            ));
        }
        let mut command = Command::new("systemctl");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{told}: {error}"))?;
        let deadline = Instant::now() + limit;
        let status = loop {
            match child.try_wait().map_err(|error| format!("{told}: {error}"))? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    return Err(format!("{told} did not end within {} s", limit.as_secs()));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        if status.success() { Ok(()) } else { Err(format!("{told}: {status}: {}", said.trim())) }
    }
}

fn membership(members: &[seaworthy_etcd_api::Member]) -> Membership {
    members.iter().map(|m| (format!("{:x}", m.id), m.peer_urls.clone())).collect()
}

impl World for Live<'_> {
    fn root(&self) -> &Path {
        &self.node.root
    }

    fn name(&self) -> String {
        Root::host(&self.node.root).map(|root| seaworthy_host::machine::hostname(&root)).unwrap_or_default()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn pause(&self, time: Duration) {
        thread::sleep(time);
    }

    fn observe(&self) -> Result<Observation, NotObserved> {
        self.node.observe()
    }

    fn running(&self) -> Result<Option<Arc<Subject>>, NotObserved> {
        Ok(self.node.running()?.map(Arc::new))
    }

    fn membership(&self, etcd: Option<&Subject>, via: &[String]) -> Result<Membership, String> {
        let own = etcd.map(|etcd| self.node.client(etcd));
        let client = match own {
            Some(Ok(client)) => client,
            _ => self.node.client_at(etcd, via.iter().map(String::as_str))?,
        };
        client.members().map(|members| membership(&members)).map_err(|error| error.to_string())
    }

    fn memberships(&self, seen: &Observation) -> Result<Vec<(String, Membership)>, String> {
        let client = self.node.client(&seen.subject)?;
        let known = |endpoint: &Endpoint| {
            let members = client.members_known_at(endpoint).map_err(|error| error.to_string())?;
            Ok((endpoint.to_string(), membership(&members)))
        };
        client.endpoints().iter().map(known).collect()
    }

    fn judge(&self, rule: &str, seen: &Observation) -> Result<(), String> {
        let options = seaworthy_audit::Options { rules: vec![rule.to_owned()], ..Default::default() };
        let report = seaworthy_audit::audit(self.catalogue, &seen.snapshot, &options);
        let findings: Vec<_> = report.findings.iter().filter(|f| f.resource == seen.subject.id).collect();
        if findings.is_empty() {
            return Err(format!("{rule} was not judged"));
        }
        match findings.iter().find(|f| !matches!(f.status, Status::Pass | Status::NotApplicable)) {
            None => Ok(()),
            Some(finding) => {
                let reasons: Vec<&str> = finding.reasons.iter().map(|r| r.message.as_str()).collect();
                Err(format!("{rule} does not pass: {}", reasons.join("; ")))
            }
        }
    }

    fn same_data(&self, seen: &Observation) -> Result<i64, String> {
        let client = self.node.client(&seen.subject)?;
        let compare = || -> Result<i64, String> {
            let mut first: Option<(i64, (u32, i64))> = None;
            for member in seen.members() {
                let endpoint = member.client_urls.iter().find_map(|url| url.text.parse().ok());
                let endpoint = endpoint.ok_or_else(|| format!("{} has no client URL", called(member)))?;
                let revision = match &first {
                    None => client.revision(&endpoint).map_err(|error| error.to_string())?,
                    Some((revision, ..)) => *revision,
                };
                let hash = client.hash_kv(&endpoint, revision).map_err(|error| error.to_string())?;
                let key = (hash.hash, hash.compact_revision);
                match &first {
                    None => first = Some((revision, key)),
                    Some((_, other)) if *other == key => {}
                    Some(_) => {
                        return Err(format!("{} has other data at revision {revision}", called(member)));
                    }
                }
            }
            Ok(first.map_or(0, |(revision, _)| revision))
        };
        until(self, SAME_DATA, POLL, compare)
    }

    fn move_leader(&self, seen: &Observation, to: &str) -> Result<(), String> {
        let id = u64::from_str_radix(to, 16).map_err(|error| error.to_string())?;
        self.node.client(&seen.subject)?.move_leader(id).map_err(|error| error.to_string())
    }

    fn update_member(&self, id: &str, urls: &[String], via: &[String]) -> Result<(), String> {
        // It may not run at all: then a rollback needs this the most.
        let etcd = self.running().map_err(|error| error.to_string())?;
        let client = self.node.client_at(etcd.as_deref(), via.iter().map(String::as_str))?;
        let number = u64::from_str_radix(id, 16).map_err(|error| error.to_string())?;
        let shows = || -> Result<bool, String> {
            let members = membership(&client.members().map_err(|error| error.to_string())?);
            let set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
            Ok(members.get(id).is_some_and(|listed| set(listed) == set(urls)))
        };
        if shows()? {
            return Ok(());
        }
        match client.update_member(number, urls) {
            Err(error) if !error.may_have_happened() || !shows()? => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn end(&self, process: &Process) -> Result<(), String> {
        let (Process::Exact(seaworthy_evidence::ProcessId { pid, .. }) | Process::Dated { pid, .. }) =
            process;
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            opened => opened.map_err(|error| error.to_string())?,
        };
        // The handle is of the process that has this id now; it must be the one that was meant.
        let now = self.running().map_err(|error| error.to_string())?;
        match now.as_deref().and_then(process_of).as_ref() == Some(process) {
            true => pidfd_send_signal(&fd, Signal::TERM).map_err(|error| error.to_string()),
            false => Ok(()),
        }
    }

    fn systemd(&self, unit: &str, restart: bool, limit: Duration) -> Result<(), String> {
        self.systemctl(&["daemon-reload"], limit)?;
        if restart { self.systemctl(&["restart", unit], limit) } else { Ok(()) }
    }

    fn lock(&self, owner: &str, wait: Duration) -> Result<Box<dyn Lease + '_>, NoLock> {
        let unknown = |why: String| NoLock::Unknown(why);
        let seen = self.node.observe().map_err(|error| unknown(error.to_string()))?;
        let client = self.node.client(&seen.subject).map_err(unknown)?;
        // This run has the node's own lock, so another holder of the same name was killed.
        Lock::break_own(&client, progress::LOCK, owner).map_err(|error| unknown(error.to_string()))?;
        match Lock::acquire(&client, progress::LOCK, owner, LOCK_TTL, wait) {
            Ok(lock) => Ok(Box::new(LiveLease(lock))),
            Err(Error::Locked { owner, .. }) => Err(NoLock::Held { owner }),
            Err(error) => Err(unknown(error.to_string())),
        }
    }

    fn supplied(&self, certificate: &str, key: &str) -> Result<Supplied, String> {
        self.node.supplied(certificate, key)
    }
}

struct LiveLease(Lock);

impl Lease for LiveLease {
    fn confirm(&self) -> Result<(), String> {
        self.0.confirm().map_err(|error| error.to_string())
    }

    fn publish(&self, member_id: &str, record: &ProgressRecord) -> Result<(), NotPublished> {
        progress::publish(&self.0, member_id, record).map_err(|error| match error {
            Error::LockLost { .. } => NotPublished::LockLost(error.to_string()),
            _ => NotPublished::Unanswered(error.to_string()),
        })
    }
}
