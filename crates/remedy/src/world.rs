//! What a fix needs of the world: to look at a member and its cluster, and to act on them. Files are not part of it, they are
//! read and written below a root.
//!
//! [`Node`](crate::node::Node) is the real one. Another one, in memory, is what thousands of fixes are tried on in seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::subject::Subject;
use jiff::Timestamp;
use seaworthy_evidence::{EvidenceError, Member, Snapshot};
use seaworthy_journal::record::Process;
use seaworthy_pki::Parsed;

use crate::input::{Declaration, Health, Input, Options, called};
use crate::order::Scheme;
use crate::plan::Refusal;
use crate::progress::ProgressRecord;
use crate::supplied::Asked;

/// Peer URLs of members, by id.
pub type Membership = BTreeMap<String, Vec<String>>;

/// What a fix needs of the world.
pub trait World {
    /// Returns the folder below which the host's files are.
    fn root(&self) -> &Path;

    /// Returns the host name of the node.
    fn name(&self) -> String;

    /// Returns the time, for dates.
    fn now(&self) -> Timestamp;

    /// Returns how long the world has been there, by a clock that nobody sets.
    fn elapsed(&self) -> Duration;

    /// Lets time pass.
    fn pause(&self, time: Duration);

    /// Returns the member and its cluster as they are now.
    ///
    /// # Errors
    ///
    /// When no member that runs on this node is meant, or several are, or what declares it cannot be read. What else cannot be
    /// observed is part of the observation.
    fn observe(&self) -> Result<Observation, NotObserved>;

    /// Returns the member's process and settings alone, without asking anybody; `None` while it does not run.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`], but for a member that is not there.
    fn running(&self) -> Result<Option<Arc<Subject>>, NotObserved>;

    /// Returns the membership as a quorum knows it, asked at `via` where the member does not say where its cluster is.
    ///
    /// # Errors
    ///
    /// When nobody answers; in words.
    fn membership(&self, etcd: Option<&Subject>, via: &[String]) -> Result<Membership, String>;

    /// Returns the membership as each member knows it, by its endpoint.
    ///
    /// # Errors
    ///
    /// When one of them does not answer; in words.
    fn memberships(&self, seen: &Observation) -> Result<Vec<(String, Membership)>, String>;

    /// Judges whether the rule passes for the member.
    ///
    /// # Errors
    ///
    /// Why it does not; in words.
    fn judge(&self, rule: &str, seen: &Observation) -> Result<(), String>;

    /// Returns the revision at which all members were seen to have the same data.
    ///
    /// # Errors
    ///
    /// When they have not, or one does not answer; in words.
    fn same_data(&self, seen: &Observation) -> Result<i64, String>;

    /// Hands leadership over to the member `to`.
    ///
    /// # Errors
    ///
    /// When that did not happen; in words.
    fn move_leader(&self, seen: &Observation, to: &str) -> Result<(), String>;

    /// Gives a member these peer URLs in the membership, asked at `via`. To do so twice is as to do so once.
    ///
    /// # Errors
    ///
    /// When it does not have them afterwards; in words.
    fn update_member(&self, id: &str, urls: &[String], via: &[String]) -> Result<(), String>;

    /// Ends the process, if it is still that one; kubelet starts another one.
    ///
    /// # Errors
    ///
    /// When it cannot be asked to end; in words.
    fn end(&self, process: &Process) -> Result<(), String>;

    /// Lets systemd read its units anew, and restarts a unit where `restart` says so.
    ///
    /// # Errors
    ///
    /// What systemd says.
    fn systemd(&self, unit: &str, restart: bool, limit: Duration) -> Result<(), String>;

    /// Takes the lock of the cluster for `owner`, waiting so long for others.
    ///
    /// # Errors
    ///
    /// [`NoLock`].
    fn lock(&self, owner: &str, wait: Duration) -> Result<Box<dyn Lease + '_>, NoLock>;

    /// Reads a certificate and a key that come from elsewhere.
    ///
    /// # Errors
    ///
    /// When one of the files cannot be read, or is not what it should be; in words.
    fn supplied(&self, certificate: &str, key: &str) -> Result<crate::supplied::Supplied, String>;
}

/// The lock of the cluster, held until it is dropped.
pub trait Lease {
    /// Makes sure that it is still held.
    ///
    /// # Errors
    ///
    /// When it is not, or nobody can tell; in words.
    fn confirm(&self) -> Result<(), String>;

    /// Publishes the progress record of a member, if the lock is held.
    ///
    /// # Errors
    ///
    /// [`NotPublished`].
    fn publish(&self, member_id: &str, record: &ProgressRecord) -> Result<(), NotPublished>;
}

/// Why a progress record was not published.
#[derive(Clone, Debug)]
pub enum NotPublished {
    /// The lock is lost.
    LockLost(String),
    /// The cluster does not answer; it may later.
    Unanswered(String),
}

/// Why the lock of the cluster was not taken.
#[derive(Clone, Debug)]
pub enum NoLock {
    /// Another run has it.
    Held {
        /// Who.
        owner: String,
    },
    /// The cluster could not be asked for it.
    Unknown(String),
}

impl fmt::Display for NoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { owner } => write!(f, "{owner} has it"),
            Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// What was observed at one moment.
#[derive(Debug)]
pub struct Observation {
    /// The node.
    pub snapshot: Snapshot,
    /// The instance.
    pub subject: Arc<Subject>,
    /// The files that declare it.
    pub declaration: Vec<Declaration>,
    /// How the members are, or why they could not be asked.
    pub health: Result<Health, String>,
    /// What the members have published, by id, or why it could not be read. Not read is not the same as nothing published.
    pub progress: Result<BTreeMap<String, ProgressRecord>, String>,
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

/// Nothing that anybody has published.
static NOTHING: BTreeMap<String, ProgressRecord> = BTreeMap::new();

impl Observation {
    /// Returns what was observed of an instance that belongs to no cluster of its own.
    pub fn alone(snapshot: Snapshot, subject: Subject, declaration: Vec<Declaration>) -> Self {
        Self {
            health: Err(format!("{} is no member of a cluster", subject.id)),
            subject: Arc::new(subject),
            declaration,
            progress: Ok(BTreeMap::new()),
            listens: BTreeMap::new(),
            clocks: BTreeMap::new(),
            served: BTreeMap::new(),
            trusted: None,
            asked: Asked::default(),
            snapshot,
        }
    }

    /// Returns the members of the cluster; none when the membership is not known.
    pub fn members(&self) -> &[Member] {
        self.subject.own.cluster.value().map(|cluster| cluster.members.as_slice()).unwrap_or_default()
    }

    /// Returns whether the member of this name is known to be healthy.
    pub(crate) fn answers(&self, name: &str) -> bool {
        let Ok(health) = &self.health else { return false };
        let mut named = self.members().iter().filter(|m| called(m) == name);
        named.any(|m| health.members.get(&m.id).is_some_and(|health| health.trouble.is_none()))
    }

    /// Returns what a plan is made from.
    pub fn input<'a>(&'a self, options: &'a Options) -> Input<'a> {
        let clients = &self.snapshot.etcd_clients;
        let unknown = || clients.error().map_or("they were not looked for", |error| error.message.as_str());
        Input {
            node: &self.snapshot.node.name,
            taken_at: self.snapshot.taken_at,
            subject: &self.subject,
            declaration: &self.declaration,
            // Progress that could not be read may hide a turn that was begun and not ended.
            health: match (&self.health, &self.progress) {
                (Ok(health), Ok(_)) => Ok(health),
                (Err(why), _) | (Ok(_), Err(why)) => Err(why),
            },
            progress: self.progress.as_ref().unwrap_or(&NOTHING),
            listens: &self.listens,
            clocks: &self.clocks,
            served: &self.served,
            trusted: self.trusted.as_deref(),
            asked: &self.asked,
            clients: clients.value().map(Vec::as_slice).ok_or_else(unknown),
            options,
        }
    }
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

/// Returns which process a member is; `None` while it does not run.
pub fn process_of(subject: &Subject) -> Option<Process> {
    subject.process.value()?.identity.clone().map(Process::Exact)
}

/// Does something again until it succeeds, or says why it did not in the end: the one way in which anything is waited for.
///
/// # Errors
///
/// The last reason, with how long it was tried.
pub(crate) fn until<T>(
    world: &dyn World,
    limit: Duration,
    poll: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let start = world.elapsed();
    loop {
        let why = match attempt() {
            Ok(done) => return Ok(done),
            Err(why) => why,
        };
        if world.elapsed().saturating_sub(start) >= limit {
            return Err(format!("{why} (after {} s)", limit.as_secs()));
        }
        world.pause(poll);
    }
}
