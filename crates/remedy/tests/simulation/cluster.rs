//! A cluster of etcd in memory: processes, kubelets, membership, connections, the leader, writers, and the store with lock and
//! progress records. Files are real; time is not.
//!
//! Who can dial whom follows what experiments with real clusters showed, as `seaworthy_remedy::order` documents it: a member is
//! dialled as the membership says, by each member's own knowledge; its listener speaks what its settings said when it started;
//! certificates are read at each handshake, and authorities when a process starts; connections outlive changes and end with a
//! process; and Raft needs one working direction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_evidence::{Origin, ProcessId, Settings, Url};
use seaworthy_pki::{Parsed, Usage, certificates_from_pem, chains_to, names, private_key_from_pem};
use seaworthy_remedy::order::Scheme;
use seaworthy_remedy::progress::ProgressRecord;
use seaworthy_remedy::subject::Subject;
use seaworthy_remedy::world::Membership;

use crate::faults::{Edit, Fault};
use crate::node::{self, Files, MANIFEST, Manifest, Watch};
use crate::random::Random;

/// How long a lock outlives a run that was killed.
const LOCK_TTL: Duration = Duration::from_secs(15);
/// How many writes are acknowledged in a second.
const WRITES: u64 = 100;

/// One node with its member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) root: PathBuf,
    pub(crate) process: Option<Process>,
    pub(crate) files: Files,
    /// What was changed in them last, with what was there before.
    changed: BTreeMap<String, Option<Arc<[u8]>>>,
    /// Peer URLs of all members, as this one knows them.
    pub(crate) known: Membership,
    /// The last write that it has.
    log: u64,
    kubelet: Kubelet,
    /// Why its process is not there, or not ready.
    away: Option<Cause>,
    /// By how many seconds its clock is wrong.
    pub(crate) clock: i64,
    /// What others did to its manifest, in order.
    pub(crate) edits: Vec<Edit>,
    starts: u64,
    /// What it was seen as last, without a question to anybody and with one, and how often something had changed by then.
    pub(crate) shown: [Option<Shown>; 2],
}

/// A process of etcd.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) identity: ProcessId,
    pub(crate) started: Duration,
    /// When it answers; `None` once it does.
    ready_at: Option<Duration>,
    pub(crate) manifest: Arc<Manifest>,
    /// The authorities that it believes: loaded when it started.
    pub(crate) trusts: Arc<[u8]>,
}

impl Process {
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.manifest.settings.get(name).filter(|s| s.set).map(|s| s.value.as_str())
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.manifest.settings
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_none()
    }

    /// Returns what its peer listener speaks.
    pub(crate) fn listens(&self) -> Scheme {
        match self.setting("listen-peer-urls").is_some_and(|urls| urls.starts_with("https")) {
            true => Scheme::Https,
            false => Scheme::Http,
        }
    }

    /// Returns whether its peer listener demands certificates.
    pub(crate) fn demands(&self) -> bool {
        let on = |name: &str| self.settings().get(name).is_some_and(|s| s.on == Some(true));
        self.setting("peer-trusted-ca-file").is_some() || on("peer-client-cert-auth")
    }
}

#[derive(Debug, Default)]
struct Kubelet {
    /// When it does its next thing: ends the process when there is one, else starts one.
    at: Option<Duration>,
    /// Until when it does nothing.
    down: Duration,
    /// How much slower it is than usual.
    slow: u32,
    /// Why it is going to end the process.
    because: Option<Cause>,
}

/// Why a member is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A fix, whose run had looked at the cluster then for the last time.
    Fix { looked: Duration },
    /// Something else, since then.
    Fault { since: Duration },
}

/// The lock of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) owner: String,
    pub(crate) fence: u64,
    /// When its lease ends; `None` while its holder keeps it alive.
    pub(crate) ends: Option<Duration>,
}

/// What is told at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: u64,
    pub(crate) rollbacks: u64,
    pub(crate) isolated: u64,
    pub(crate) without_quorum: u64,
    pub(crate) lost: u64,
    pub(crate) longest_gap: Duration,
    pub(crate) ways_out: u64,
    pub(crate) looks: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.rollbacks += other.rollbacks;
        self.isolated += other.isolated;
        self.without_quorum += other.without_quorum;
        self.lost += other.lost;
        self.ways_out += other.ways_out;
        self.looks += other.looks;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

/// What a node was shown, with the change and the second of the clock that it was made after.
pub(crate) type Shown = ((u64, i64), Arc<Subject>);

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now: Duration,
    random: Random,
    pub(crate) members: Vec<Member>,
    watch: Watch,
    /// Peer URLs of all members, as a quorum knows them.
    pub(crate) membership: Membership,
    pub(crate) leader: Option<usize>,
    election: Option<Duration>,
    /// What a connection carries that the first one dialled to the second one.
    pub(crate) connections: Vec<Vec<Option<Scheme>>>,
    pub(crate) lock: Option<Held>,
    fences: u64,
    pub(crate) records: BTreeMap<String, ProgressRecord>,
    /// The last write that was acknowledged.
    pub(crate) revision: u64,
    gap: Option<Duration>,
    /// Whether members enough to be a quorum are gone or parted.
    stopped: bool,
    /// How often something has changed that somebody may wait for.
    pub(crate) changes: u64,
    pub(crate) faults: VecDeque<(Duration, Fault)>,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) counts: Counts,
    certificates: BTreeMap<Arc<[u8]>, Arc<[Parsed]>>,
    keys: BTreeMap<Arc<[u8]>, String>,
    accepted: BTreeMap<(String, Arc<[u8]>, bool), bool>,
    /// Certificates, keys and authorities that fit together.
    pub(crate) sound: BTreeSet<[Option<Arc<[u8]>>; 3]>,
}

impl Cluster {
    /// Returns a cluster whose members run and talk plaintext with each other, with files below `directory`.
    pub(crate) fn new(random: Random, count: usize, directory: &std::path::Path, traced: bool) -> Self {
        let url = |index: usize| vec![format!("http://{}:2380", node::address(index))];
        let membership: Membership = (0..count).map(|m| (node::IDS[m].to_owned(), url(m))).collect();
        let member = |index: usize| {
            let root = directory.join(node::name(index));
            node::furnish(&root, index, count);
            Member {
                id: node::IDS[index].to_owned(),
                files: Files::of(&root),
                root,
                process: None,
                changed: BTreeMap::new(),
                known: membership.clone(),
                log: 0,
                kubelet: Kubelet { slow: 1, ..Kubelet::default() },
                away: None,
                clock: 0,
                edits: Vec::new(),
                starts: 0,
                shown: [None, None],
            }
        };
        let members: Vec<Member> = (0..count).map(member).collect();
        let mut cluster = Self {
            now: Duration::ZERO,
            random,
            watch: Watch::new(members.iter().map(|member| member.root.as_path())),
            members,
            membership: membership.clone(),
            leader: None,
            election: None,
            connections: vec![vec![None; count]; count],
            lock: None,
            fences: 0,
            records: BTreeMap::new(),
            revision: 0,
            gap: None,
            stopped: false,
            changes: 0,
            faults: VecDeque::new(),
            violations: Vec::new(),
            trace: traced.then(Vec::new),
            counts: Counts::default(),
            certificates: BTreeMap::new(),
            keys: BTreeMap::new(),
            accepted: BTreeMap::new(),
            sound: BTreeSet::new(),
        };
        for index in 0..count {
            cluster.start(index);
            if let Some(process) = &mut cluster.members[index].process {
                process.ready_at = None;
            }
        }
        cluster.connect();
        cluster.leader = Some(cluster.random.index(count));
        cluster
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", self.now.as_secs_f64(), what()));
        }
    }

    pub(crate) fn violated(&mut self, what: String) {
        self.tell(|| format!("VIOLATED: {what}"));
        self.violations.push(what);
    }

    /// Returns the time by the clock of a node.
    pub(crate) fn wall(&self, index: usize) -> Timestamp {
        let clock = self.members.get(index).map_or(0, |member| member.clock);
        node::beginning() + self.now + jiff::SignedDuration::from_secs(clock)
    }

    fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.members[index].process.as_ref().is_some_and(Process::is_ready)
    }

    /// Returns whether two members are connected, whoever dialled.
    fn connected(&self, one: usize, other: usize) -> bool {
        one == other || self.connections[one][other].is_some() || self.connections[other][one].is_some()
    }

    /// Returns how many members a member would have the votes of.
    fn votes(&self, index: usize) -> usize {
        let with = |other: usize| self.is_ready(other) && self.connected(index, other);
        if self.is_ready(index) { (0..self.members.len()).filter(|other| with(*other)).count() } else { 0 }
    }

    /// Returns whether a member answers reads and writes.
    pub(crate) fn is_healthy(&self, index: usize) -> bool {
        self.is_ready(index) && self.leader.is_some_and(|leader| self.connected(index, leader))
    }

    // Time.

    /// Lets time pass until `to`, or until something happens; returns whether something did.
    pub(crate) fn advance(&mut self, to: Duration) -> bool {
        match self.next_event().filter(|at| *at <= to) {
            Some(at) => {
                self.elapse(at);
                self.happen();
                self.settle();
                true
            }
            None => {
                self.elapse(to);
                false
            }
        }
    }

    fn next_event(&self) -> Option<Duration> {
        let of_members = self.members.iter().flat_map(|member| {
            let ready = member.process.as_ref().and_then(|process| process.ready_at);
            [member.kubelet.at.map(|at| at.max(member.kubelet.down)), ready]
        });
        let lock = self.lock.as_ref().and_then(|held| held.ends);
        let fault = self.faults.front().map(|(at, _)| *at);
        of_members.chain([self.election, lock, fault]).flatten().min()
    }

    /// Lets writers write until then.
    fn elapse(&mut self, to: Duration) {
        let to = to.max(self.now);
        if self.leader.is_some() {
            let writes = |time: Duration| u64::try_from(time.as_millis()).unwrap_or_default() * WRITES / 1000;
            self.revision += writes(to) - writes(self.now);
            self.replicate();
        }
        self.now = to;
    }

    /// Brings the log to the members that the leader is connected with.
    fn replicate(&mut self) {
        let Some(leader) = self.leader else { return };
        for index in 0..self.members.len() {
            if self.is_ready(index) && self.connected(index, leader) {
                self.members[index].log = self.revision;
                if self.members[index].known != self.membership {
                    self.members[index].known.clone_from(&self.membership);
                }
            }
        }
    }

    /// Does what is due.
    fn happen(&mut self) {
        let now = self.now;
        while let Some((_, fault)) = self.faults.pop_front_if(|(at, _)| *at <= now) {
            self.inflict(fault);
        }
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.process.as_ref().is_some_and(|process| process.ready_at.is_some_and(|at| at <= now)) {
                if let Some(process) = &mut member.process {
                    process.ready_at = None;
                }
                member.away = None;
                self.tell(|| format!("{} is ready", node::name(index)));
            }
            let kubelet = &mut self.members[index].kubelet;
            if kubelet.at.is_some_and(|at| at.max(kubelet.down) <= now) {
                kubelet.at = None;
                match self.members[index].process.is_some() {
                    true => self.end(index),
                    false => self.start(index),
                }
            }
        }
        if self.election.is_some_and(|at| at <= now) {
            self.election = None;
            self.elect();
        }
        if let Some(held) = &mut self.lock
            && held.ends.is_some_and(|at| at <= now)
        {
            match self.leader {
                Some(_) => {
                    let owner = held.owner.clone();
                    self.lock = None;
                    self.tell(|| format!("the lease of {owner} has ended"));
                }
                // Nobody ends leases without a leader.
                None => held.ends = Some(now + Duration::from_secs(1)),
            }
        }
    }

    // Processes.

    /// Kubelet ends a process because its manifest has changed.
    fn end(&mut self, index: usize) {
        // What others have done to a manifest is seen by nobody before the process ends.
        let fault = Cause::Fault { since: self.now };
        let fix =
            self.members[index].kubelet.because.take().filter(|cause| matches!(cause, Cause::Fix { .. }));
        self.lose(index, fix.unwrap_or(fault), true);
    }

    /// Takes a process away. One that ends in an orderly way hands leadership over, mostly.
    fn lose(&mut self, index: usize, cause: Cause, orderly: bool) {
        if self.members[index].process.take().is_none() {
            return;
        }
        self.tell(|| format!("the process of {} ends: {cause:?}", node::name(index)));
        if let (Cause::Fix { .. }, Some(other)) = (cause, self.taken_by_fix(index)) {
            let (one, other) = (node::name(index), node::name(other));
            self.violated(format!("{one} is restarted by a fix while {other} is not back yet"));
        }
        let member = &mut self.members[index];
        // What made it restart the first time is why it is away until it is back.
        member.away = Some(member.away.unwrap_or(cause));
        member.kubelet.because = None;
        for other in 0..self.members.len() {
            self.connections[index][other] = None;
            self.connections[other][index] = None;
        }
        if self.leader == Some(index) {
            self.leader = None;
            if orderly && !self.random.once_in(3) {
                self.elect();
            }
        }
        let delay = self.random.millis(200, 2_000);
        self.plan(index, delay);
    }

    /// Returns another member that is away because of a fix.
    fn taken_by_fix(&self, index: usize) -> Option<usize> {
        let mut others = (0..self.members.len()).filter(|other| *other != index);
        others.find(|other| matches!(self.members[*other].away, Some(Cause::Fix { .. })))
    }

    /// Lets kubelet do its next thing after a while.
    fn plan(&mut self, index: usize, delay: Duration) {
        let kubelet = &mut self.members[index].kubelet;
        kubelet.at = Some(self.now + delay * kubelet.slow);
    }

    /// Starts a process from the manifest as it is now.
    fn start(&mut self, index: usize) {
        let member = &self.members[index];
        let manifest = member.files.manifest().cloned();
        let startable = manifest.ok_or_else(|| "there is no manifest".to_owned()).and_then(|manifest| {
            match manifest.fatal.first() {
                Some(fatal) => Err(format!("{}: {}", fatal.setting, fatal.message)),
                None => Ok(manifest),
            }
        });
        let started = startable.and_then(|manifest| {
            let trusts = self.loadable(index, &manifest)?;
            Ok((manifest, trusts))
        });
        match started {
            Ok((manifest, trusts)) => {
                let ready_at = Some(self.now + self.random.millis(200, 1_500));
                let member = &mut self.members[index];
                member.starts += 1;
                let identity = ProcessId {
                    boot_id: "b4c2d9a1-0000-4000-8000-000000000000".to_owned(),
                    pid: u32::try_from(100 + member.starts).unwrap_or_default(),
                    start_ticks: u64::try_from(self.now.as_millis()).unwrap_or_default() / 10 + member.starts,
                };
                member.process = Some(Process { identity, started: self.now, ready_at, manifest, trusts });
                self.tell(|| format!("{} starts", node::name(index)));
            }
            Err(why) => {
                self.tell(|| format!("{} does not start: {why}", node::name(index)));
                self.plan(index, Duration::from_secs(5));
            }
        }
    }

    /// Returns the authorities that a process started from this manifest trusts as a peer, or why it would exit.
    fn loadable(&mut self, index: usize, manifest: &Manifest) -> Result<Arc<[u8]>, String> {
        let value = |name: &str| manifest.settings.get(name).filter(|s| s.set).map(|s| s.value.clone());
        for prefix in ["", "peer-"] {
            let names = [format!("{prefix}cert-file"), format!("{prefix}key-file")];
            let [certificate, key] = names.map(|name| value(&name));
            if let (Some(certificate), Some(key)) = (certificate, key)
                && !self.is_pair(index, &certificate, &key)
            {
                return Err(format!("{certificate} and {key} are no pair"));
            }
            if let Some(ca) = value(&format!("{prefix}trusted-ca-file"))
                && self.certificates(index, &ca).is_none()
            {
                return Err(format!("{ca} holds no certificate"));
            }
        }
        let ca =
            value("peer-trusted-ca-file").and_then(|path| self.members[index].files.bytes(&path).cloned());
        Ok(ca.unwrap_or_else(|| Arc::from([])))
    }

    /// Ends a process on request, if it is that one.
    pub(crate) fn terminate(&mut self, index: usize, identity: &ProcessId, looked: Duration) {
        let member = &mut self.members[index];
        if member.process.as_ref().is_some_and(|process| process.identity == *identity) {
            self.lose(index, Cause::Fix { looked }, true);
            self.settle();
        }
    }

    /// Looks at the files of a node, which a run may have changed that had looked at the cluster then for the last time.
    pub(crate) fn look(&mut self, index: usize, looked: Duration) {
        self.look_for(index, Cause::Fix { looked });
    }

    fn look_for(&mut self, index: usize, cause: Cause) {
        let member = &mut self.members[index];
        member.changed = member.files.look(&member.root, self.watch.touched(index));
        if member.changed.is_empty() {
            return;
        }
        let manifest = member.files.manifest().cloned();
        let same = match (&manifest, &member.process) {
            (Some(manifest), Some(process)) => process.manifest.document == manifest.document,
            // What does not parse changes nothing; what does not run is started from what is there then.
            _ => true,
        };
        if member.process.is_some() {
            match (same, member.kubelet.because) {
                (true, _) => (member.kubelet.at, member.kubelet.because) = (None, None),
                // What others have changed restarts it anyway.
                (false, Some(Cause::Fault { .. })) => {}
                (false, before) => {
                    member.kubelet.because = Some(cause);
                    if before.is_none() {
                        let delay = self.random.millis(50, 1_200);
                        self.plan(index, delay);
                    }
                }
            }
        }
        self.tell(|| format!("files of {} have changed ({cause:?}), restart: {}", node::name(index), !same));
        self.settle();
    }

    // Faults.

    pub(crate) fn inflict(&mut self, fault: Fault) {
        self.tell(|| format!("FAULT: {fault:?}"));
        let since = self.now;
        match fault {
            Fault::Crash(index) => {
                if self.members[index].process.is_some() {
                    self.lose(index, Cause::Fault { since }, false);
                }
            }
            Fault::Outage(index, time) => {
                self.members[index].kubelet.down = self.now + time;
                self.lose(index, Cause::Fault { since }, false);
            }
            Fault::Reset(index) => {
                for other in 0..self.members.len() {
                    self.connections[index][other] = None;
                    self.connections[other][index] = None;
                }
            }
            Fault::KubeletDown(index, time) => self.members[index].kubelet.down = self.now + time,
            Fault::KubeletSlow(index, factor) => self.members[index].kubelet.slow = factor,
            Fault::Clock(index, seconds) => {
                for (other, member) in self.members.iter_mut().enumerate() {
                    if index.is_none_or(|index| index == other) {
                        member.clock += seconds;
                    }
                }
            }
            Fault::Edit(index, edit) => self.edit(index, edit),
        }
    }

    /// Undoes half of what was done last to the files of a node, as if the run had been killed between two files.
    pub(crate) fn halve(&mut self, index: usize) {
        let member = &mut self.members[index];
        let certificate = member.changed.iter().find(|(path, _)| path.ends_with(".crt"));
        let (Some((path, former)), true) = (certificate, member.changed.len() > 1) else { return };
        let (path, former) = (path.clone(), former.clone());
        let host = node::below(&member.root, &path);
        match &former {
            Some(bytes) => std::fs::write(host, bytes).unwrap(),
            None => std::fs::remove_file(host).unwrap(),
        }
        self.tell(|| format!("{path} was not written yet"));
        let since = self.now;
        self.look_for(index, Cause::Fault { since });
    }

    /// Notes that nobody answers any more for what a fix has done to a node.
    pub(crate) fn disown(&mut self, index: usize) {
        let since = self.now;
        let member = &mut self.members[index];
        for cause in [&mut member.kubelet.because, &mut member.away].into_iter().flatten() {
            *cause = Cause::Fault { since };
        }
    }

    /// Checks what must hold when a fix begins a turn in which its member restarts: the preflight has just looked.
    pub(crate) fn check_beginning(&mut self, index: usize) {
        let ill = (0..self.members.len()).find(|other| !self.is_healthy(*other));
        if let Some(ill) = ill {
            let what = format!("{} begins a turn while {} is ill", node::name(index), node::name(ill));
            self.violated(what);
        }
    }

    /// Lets somebody else edit the manifest.
    pub(crate) fn edit(&mut self, index: usize, edit: Edit) {
        let member = &mut self.members[index];
        if edit.make(&member.root) {
            member.edits.push(edit);
            let since = self.now;
            self.look_for(index, Cause::Fault { since });
        }
    }

    /// Undoes what somebody else has done to what a fix made; `mode` is that of the manifest by the fixes that stand, which a fix
    /// has given it where it is `closed`. What that fix has found is brought back by its rollback, and stays noted.
    pub(crate) fn unedit(&mut self, index: usize, mode: u32, closed: bool) {
        let member = &mut self.members[index];
        let found = closed && Files::of(&member.root).0.get(MANIFEST).is_some_and(|f| f.mode == mode);
        let is_of_fix = |edit: &Edit| match edit {
            Edit::Certificate => true,
            Edit::Mode(_) => !found,
            _ => false,
        };
        if let Some(at) = member.edits.iter().rposition(is_of_fix) {
            member.edits.remove(at).unmake(&member.root, mode);
        }
        let since = self.now;
        self.look_for(index, Cause::Fault { since });
    }

    /// Ends all faults, and those that were to come.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
        for member in &mut self.members {
            member.kubelet.down = Duration::ZERO;
            member.kubelet.slow = 1;
            member.clock = 0;
        }
        self.tell(|| "all faults are over".to_owned());
    }

    // Connections and leadership.

    /// Draws the consequences of what has just happened, and checks what must always hold.
    pub(crate) fn settle(&mut self) {
        self.changes += 1;
        self.connect();
        if let Some(leader) = self.leader
            && self.votes(leader) < self.quorum()
        {
            self.leader = None;
        }
        self.replicate();
        // Who has learned of other URLs dials anew.
        self.connect();
        if self.leader.is_some() {
            self.election = None;
            if let Some(since) = self.gap.take() {
                self.counts.longest_gap = self.counts.longest_gap.max(self.now - since);
            }
        } else {
            self.gap.get_or_insert(self.now);
            if self.electable().is_empty() {
                self.election = None;
            } else if self.election.is_none() {
                self.election = Some(self.now + self.random.millis(1_000, 2_000));
            }
        }
        self.check();
    }

    /// Lets members dial each other where they can and have not.
    fn connect(&mut self) {
        for one in 0..self.members.len() {
            for other in 0..self.members.len() {
                if one != other
                    && self.connections[one][other].is_none()
                    && self.obstacle(one, other).is_none()
                {
                    let carries = self.members[other].process.as_ref().map(Process::listens);
                    self.connections[one][other] = carries;
                }
            }
        }
    }

    fn electable(&self) -> Vec<usize> {
        let fresh = |index: &usize| {
            let voters = (0..self.members.len()).filter(|other| {
                self.is_ready(*other)
                    && self.connected(*index, *other)
                    && self.members[*other].log <= self.members[*index].log
            });
            self.is_ready(*index) && voters.count() >= self.quorum()
        };
        (0..self.members.len()).filter(fresh).collect()
    }

    fn elect(&mut self) {
        let candidates = self.electable();
        if candidates.is_empty() {
            return;
        }
        let leader = candidates[self.random.index(candidates.len())];
        if self.members[leader].log < self.revision {
            self.counts.lost += self.revision - self.members[leader].log;
            self.violated(format!("{} leads without writes that were acknowledged", node::name(leader)));
        }
        self.leader = Some(leader);
        self.tell(|| format!("{} leads", node::name(leader)));
        // A new leader gives every lease its whole time again.
        if let Some(ends) = self.lock.as_mut().and_then(|held| held.ends.as_mut()) {
            *ends = (*ends).max(self.now + LOCK_TTL);
        }
    }

    pub(crate) fn move_leader(&mut self, to: &str) -> Result<(), String> {
        let leader = self.leader.ok_or("there is no leader")?;
        let to = self.members.iter().position(|m| m.id == to).ok_or("it is no member")?;
        if !self.is_ready(to) || !self.connected(leader, to) || self.votes(to) < self.quorum() {
            return Err(format!("{} cannot lead", node::name(to)));
        }
        self.leader = Some(to);
        self.tell(|| format!("{} leads, as it was asked", node::name(to)));
        self.settle();
        Ok(())
    }

    /// Returns whether anybody answers what needs a quorum.
    pub(crate) fn answers(&self) -> Result<(), String> {
        self.leader.map(drop).ok_or_else(|| "etcdserver: no leader".to_owned())
    }

    pub(crate) fn update_member(&mut self, id: &str, urls: &[String]) -> Result<(), String> {
        self.answers()?;
        if self.membership.get(id).is_some_and(|now| now != urls) {
            self.membership.insert(id.to_owned(), urls.to_vec());
            self.tell(|| format!("the membership has {id} at {}", urls.join(", ")));
            self.settle();
        }
        Ok(())
    }

    pub(crate) fn take_lock(&mut self, owner: &str) -> Result<u64, String> {
        // A former self of this owner was killed.
        if self.lock.as_ref().is_some_and(|held| held.owner == owner) {
            self.lock = None;
        }
        if let Some(held) = &self.lock {
            return Err(held.owner.clone());
        }
        self.fences += 1;
        self.lock = Some(Held { owner: owner.to_owned(), fence: self.fences, ends: None });
        self.tell(|| format!("{owner} has the lock"));
        Ok(self.fences)
    }

    pub(crate) fn has_lock(&self, fence: u64) -> bool {
        self.lock.as_ref().is_some_and(|held| held.fence == fence)
    }

    /// Lets go of a lock.
    pub(crate) fn release(&mut self, fence: u64) {
        if self.has_lock(fence) {
            self.lock = None;
            self.changes += 1;
        }
    }

    /// Publishes the progress record of a member.
    pub(crate) fn publish(&mut self, id: &str, record: &ProgressRecord) {
        self.records.insert(id.to_owned(), record.clone());
        self.changes += 1;
    }

    /// Lets a lock end with its lease, because its holder does not keep it alive any more.
    pub(crate) fn orphan(&mut self, fence: u64) {
        let ends = self.now + LOCK_TTL;
        if let Some(held) = self.lock.as_mut().filter(|held| held.fence == fence) {
            held.ends = Some(ends);
        }
    }

    /// Lets a holder that was stopped for a while keep its lock alive again, if it still has it.
    pub(crate) fn revive(&mut self, fence: u64) {
        if let Some(held) = self.lock.as_mut().filter(|held| held.fence == fence) {
            held.ends = None;
        }
    }

    // Certificates.

    /// Returns the certificates in a file of a node.
    pub(crate) fn certificates(&mut self, index: usize, path: &str) -> Option<Arc<[Parsed]>> {
        let bytes = self.members[index].files.bytes(path)?.clone();
        self.parsed(&bytes)
    }

    pub(crate) fn parsed(&mut self, bytes: &Arc<[u8]>) -> Option<Arc<[Parsed]>> {
        if let Some(known) = self.certificates.get(bytes) {
            return Some(known.clone());
        }
        let parsed = certificates_from_pem(bytes, Origin::derived("a file"), node::beginning()).ok()?;
        let parsed: Arc<[Parsed]> = parsed.into();
        self.certificates.insert(bytes.clone(), parsed.clone());
        Some(parsed)
    }

    /// Returns the SHA-256 of the public half of the key in a file.
    pub(crate) fn public_half(&mut self, index: usize, path: &str) -> Option<String> {
        let bytes = self.members[index].files.bytes(path)?.clone();
        if let Some(known) = self.keys.get(&bytes) {
            return Some(known.clone());
        }
        let spki = private_key_from_pem(&bytes, path).ok()?.key.spki;
        self.keys.insert(bytes, spki.clone());
        Some(spki)
    }

    fn is_pair(&mut self, index: usize, certificate: &str, key: &str) -> bool {
        let Some(chain) = self.certificates(index, certificate) else { return false };
        let spki = self.public_half(index, key);
        chain.first().map(|leaf| &leaf.certificate.key.spki) == spki.as_ref()
    }

    /// Returns whether who trusts these authorities accepts a chain.
    pub(crate) fn accepts(&mut self, trusts: &Arc<[u8]>, chain: &Arc<[Parsed]>, usage: Usage) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        let key = (leaf.certificate.fingerprint.clone(), trusts.clone(), usage == Usage::Server);
        if let Some(known) = self.accepted.get(&key) {
            return *known;
        }
        let roots = self.parsed(trusts);
        let time = node::beginning() + Duration::from_secs(3_600);
        let accepted = roots.is_some_and(|roots| chains_to(leaf, rest, &roots, usage, time).is_ok());
        self.accepted.insert(key, accepted);
        accepted
    }

    /// Returns the certificate that the process of a member presents at a handshake now.
    pub(crate) fn presents(&mut self, index: usize) -> Option<Arc<[Parsed]>> {
        let process = self.members[index].process.as_ref()?;
        let [certificate, key] =
            ["peer-cert-file", "peer-key-file"].map(|name| process.setting(name).map(str::to_owned));
        let (certificate, key) = (certificate?, key?);
        if self.is_pair(index, &certificate, &key) { self.certificates(index, &certificate) } else { None }
    }

    /// Returns what keeps the first member from dialling the second one.
    pub(crate) fn obstacle(&mut self, one: usize, other: usize) -> Option<String> {
        let (me, it) = (node::name(one), node::name(other));
        let (Some(dialler), Some(dialled)) = (&self.members[one].process, &self.members[other].process)
        else {
            return Some("one of them does not run".to_owned());
        };
        if !dialler.is_ready() || !dialled.is_ready() {
            return Some("one of them is not ready".to_owned());
        }
        let urls = self.members[one].known.get(&self.members[other].id);
        let url = urls.and_then(|urls| urls.first()).and_then(|url| Url::parse(url));
        let Some(url) = url else { return Some(format!("{me} knows no URL of {it}")) };
        let told = if url.is_tls() { Scheme::Https } else { Scheme::Http };
        if told != dialled.listens() {
            return Some(format!("{me} is told to dial {it} by {told:?}, and {it} listens otherwise"));
        }
        if told == Scheme::Http {
            return None;
        }
        let (own, theirs) = (dialler.trusts.clone(), dialled.trusts.clone());
        let demands = dialled.demands();
        let Some(served) = self.presents(other) else { return Some(format!("{it} has no certificate")) };
        if !self.accepts(&own, &served, Usage::Server) {
            return Some(format!("{me} does not trust the certificate of {it}"));
        }
        if !served.first().is_some_and(|leaf| names(&leaf.certificate, &url.host)) {
            return Some(format!("the certificate of {it} does not name it"));
        }
        if !demands {
            return None;
        }
        match self.presents(one) {
            None => Some(format!("{it} demands a certificate, and {me} has none")),
            Some(chain) if !self.accepts(&theirs, &chain, Usage::Client) => {
                Some(format!("{it} does not trust the certificate of {me}"))
            }
            Some(_) => None,
        }
    }

    // Invariants.

    /// Checks what must hold at every moment.
    fn check(&mut self) {
        let count = self.members.len();
        for one in 0..count {
            for other in one + 1..count {
                if !self.is_ready(one) || !self.is_ready(other) {
                    continue;
                }
                if let (Some(there), Some(back)) = (self.obstacle(one, other), self.obstacle(other, one)) {
                    self.counts.isolated += 1;
                    self.violated(format!("two members cannot dial each other: {there}; {back}"));
                }
            }
        }
        let stopped = (0..count).all(|index| self.votes(index) < self.quorum());
        if stopped && !self.stopped {
            let gone: Vec<(usize, Cause)> = self
                .members
                .iter()
                .enumerate()
                .filter_map(|(index, member)| Some((index, member.away?)))
                .collect();
            let fixes = gone.iter().filter_map(|(_, cause)| match cause {
                Cause::Fix { looked } => Some(*looked),
                Cause::Fault { .. } => None,
            });
            let looked: Vec<Duration> = fixes.collect();
            let before = |looked: Duration| {
                let seen =
                    |(_, cause): &&(usize, Cause)| matches!(cause, Cause::Fault { since } if *since < looked);
                gone.iter().filter(seen).count()
            };
            let (faults, spare) = (gone.len() - looked.len(), count - self.quorum());
            // Faults that came after the fix had looked are bad luck.
            let excused = faults > spare || matches!(looked[..], [looked] if before(looked) < spare);
            self.tell(|| format!("no quorum (excused: {excused}): {gone:?}"));
            if !excused {
                self.counts.without_quorum += 1;
                self.violated(format!("the cluster has no quorum: {gone:?}"));
            }
        }
        self.stopped = stopped;
    }

    /// Checks what must hold once everything is over.
    pub(crate) fn check_end(&mut self) {
        let count = self.members.len();
        for index in 0..count {
            let name = node::name(index);
            if !self.is_healthy(index) {
                self.violated(format!("{name} is not healthy in the end"));
            }
            if self.members[index].log != self.revision {
                self.counts.lost += self.revision - self.members[index].log;
                self.violated(format!("{name} does not have all writes in the end"));
            }
            for other in (0..count).filter(|other| *other != index) {
                if let Some(why) = self.obstacle(index, other) {
                    self.violated(format!("{name} cannot dial {} in the end: {why}", node::name(other)));
                }
            }
        }
        for index in 0..count {
            let files = &self.members[index].files.0;
            let mut torn = files.iter().filter(|(path, entry)| match path.as_str() {
                MANIFEST => entry.manifest.is_none(),
                path => path.contains("/.") || !entry.bytes.ends_with(b"\n"),
            });
            if let Some(path) = torn.next().map(|(path, _)| path.clone()) {
                self.violated(format!("{path} of {} is half-written, or left over", node::name(index)));
            }
        }
        let under_way = self.records.iter().find(|(_, record)| record.under_way.is_some());
        if let Some(why) = under_way.map(|(id, record)| format!("{id} has begun and not ended: {record:?}")) {
            self.violated(why);
        }
    }

    /// Returns whether everything has settled: processes are ready and run what their manifests say.
    pub(crate) fn is_calm(&self) -> bool {
        (0..self.members.len())
            .all(|index| self.is_healthy(index) && self.members[index].kubelet.at.is_none())
    }
}
