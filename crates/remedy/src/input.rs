//! What a plan is made from: what is known of an instance, of its cluster and of what the operator wants, at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::subject::Subject;
use jiff::Timestamp;
use seaworthy_evidence::{ErrorKind, EtcdClient, EvidenceError, Member, Origin, Setting, Url};
use seaworthy_journal::files::sha256;
use seaworthy_pki::Parsed;

use crate::order::Scheme;
use crate::plan::{Refusal, RefusalKind, State};
use crate::progress::ProgressRecord;
use crate::supplied::{Asked, Supplied};

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Host name of the node.
    pub node: &'a str,
    /// When the evidence was taken.
    pub taken_at: Timestamp,
    /// The instance on this node.
    pub subject: &'a Subject,
    /// The files that declare it, the one to edit first.
    pub declaration: &'a [Declaration],
    /// What the members say of themselves, or why they could not be asked.
    pub health: Result<&'a Health, &'a str>,
    /// What members have published in etcd, by id. Of those that are not in it nothing is known.
    pub progress: &'a BTreeMap<String, ProgressRecord>,
    /// What the peer ports of other members speak, by id. Those that are not in it were not asked, or did not answer.
    pub listens: &'a BTreeMap<String, BTreeSet<Scheme>>,
    /// By how many seconds the clocks of other members are ahead of this node's, by id. Those that are not in it did not
    /// tell.
    pub clocks: &'a BTreeMap<String, i64>,
    /// The certificates that the peer ports of members serve, this one's included, by id: leaf first, as they came in the
    /// handshake. Those that are not in it were not asked, or did not answer with TLS.
    pub served: &'a BTreeMap<String, Vec<Parsed>>,
    /// The content of the file that the member's `peer-trusted-ca-file` names, as its process sees it; `None` when it
    /// names none, or it could not be read.
    pub trusted: Option<&'a [u8]>,
    /// What is there of the files by which this member asks for a certificate: those of [`request_files`](crate::planner::request_files).
    pub asked: &'a Asked,
    /// What the clients of etcd on this node connect with, or why that could not be seen.
    pub clients: Result<&'a [EtcdClient], &'a str>,
    /// What the operator wants.
    pub options: &'a Options,
}

/// A file that declares a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The path.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Why it could not be put back, once replaced; `None` when nothing is known to be against it.
    pub unrestorable: Option<String>,
}

/// How the members of a cluster are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Every member, by id.
    pub members: BTreeMap<String, MemberHealth>,
    /// Alarms that are raised, in words.
    pub alarms: Vec<String>,
    /// Id of the leader.
    pub leader: Option<String>,
}

/// How one member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHealth {
    /// Its version, as it says itself; `None` when it did not answer.
    pub version: Option<String>,
    /// What is wrong with it; `None` when it is healthy.
    pub trouble: Option<String>,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The authority that issues the certificates; `None` when there is none on this node.
    pub authority: Option<AuthorityFiles>,
    /// Whether the authority's key is on another node, so that this one has its certificate only, and asks for its own.
    pub request: bool,
    /// The certificate to use for peers, instead of a new one.
    pub supplied: Option<Supplied>,
    /// Days that an issued certificate is valid.
    pub days: u32,
    /// Whether a cluster of two may stop, because one of them is no quorum while the other restarts.
    pub two_members_stop: bool,
    /// Whether the clients of which nothing is known are ready, as the operator says: they use TLS, trust the
    /// certificate that etcd serves with, and have one that it accepts.
    pub clients_are_ready: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            authority: None,
            request: false,
            supplied: None,
            days: 365,
            two_members_stop: false,
            clients_are_ready: false,
        }
    }
}

/// Files of a certificate authority, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// Its certificate.
    pub certificate: String,
    /// The certificate's content; `None` when the authority is still to be made, for members only.
    pub pem: Option<Vec<u8>>,
    /// Its private key, which is not there where [`Options::request`] says so.
    pub key: String,
}

/// Returns whether the running member has loaded a certificate, a key and a CA for its peers.
pub(crate) fn has_loaded(settings: &BTreeMap<String, Setting>) -> bool {
    ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"]
        .iter()
        .all(|name| settings.get(*name).is_some_and(|s| s.set))
}

/// Returns the member of the membership that runs on this node.
pub(crate) fn this(subject: &Subject) -> Option<&Member> {
    subject.own.cluster.value()?.members.iter().find(|m| m.this)
}

/// Returns how a member is called in sentences.
pub(crate) fn called(member: &Member) -> &str {
    if member.name.is_empty() { &member.id } else { &member.name }
}

/// Returns whether others dial the member with TLS.
pub(crate) fn is_encrypted(member: &Member) -> bool {
    !member.peer_urls.is_empty() && member.peer_urls.iter().all(Url::is_tls)
}

pub(crate) fn refuse(
    kind: RefusalKind,
    what: impl Into<String>,
    why: impl Into<String>,
    instead: impl Into<String>,
) -> Refusal {
    Refusal { kind, what: what.into(), why: why.into(), instead: instead.into() }
}

pub(crate) fn missing(what: impl Lacking) -> Refusal {
    let instead = what.advice();
    refuse(
        RefusalKind::Evidence,
        format!("evidence is missing: {what}"),
        "a plan is only as good as what it is made from",
        instead,
    )
}

/// What a plan lacks, and what to do about it.
pub(crate) trait Lacking: fmt::Display {
    fn advice(&self) -> &'static str {
        "run it as root on the node, where the member runs"
    }
}

impl Lacking for &str {}

impl Lacking for String {}

impl Lacking for EvidenceError {
    fn advice(&self) -> &'static str {
        match self.kind {
            ErrorKind::PermissionDenied => "run it as root on the node, where the member runs",
            ErrorKind::NotRunning | ErrorKind::Vanished => "start the member, and run the same command again",
            ErrorKind::Io | ErrorKind::Timeout => "see that it answers, and run the same command again",
            ErrorKind::Malformed | ErrorKind::NotFound | ErrorKind::TooLarge => {
                "put right what could not be read, and run the same command again"
            }
            ErrorKind::Unsupported => "make the change by hand, as seaworthy explain says of the rule",
        }
    }
}

/// Returns the value of a setting that is given, not by default.
pub(crate) fn given<'a>(settings: &'a BTreeMap<String, Setting>, name: &str) -> Option<&'a str> {
    let setting = settings.get(name)?;
    let given = setting.set && !matches!(setting.origin, Origin::Default { .. });
    given.then_some(setting.value.as_str())
}

/// Returns the state that a plan made from `input` is bound to.
pub fn state(input: &Input<'_>) -> State {
    let subject = input.subject;
    let own = &subject.own;
    let members = own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let urls = |m: &Member| m.peer_urls.iter().map(|url| url.text.clone()).collect();
    let mut settings = String::new();
    for (name, setting) in subject.settings.value().into_iter().flat_map(|settings| settings.iter()) {
        settings.extend([name, "=", &setting.value, "\n"]);
    }
    let files = input.declaration.iter().map(|d| (d.path.clone(), Some(sha256(&d.bytes))));
    State {
        node: input.node.to_owned(),
        component: subject.component.clone(),
        member: match subject.is_member() {
            true => this(subject).map(called).or(own.name.as_deref()).unwrap_or_default().to_owned(),
            false => subject.component.clone(),
        },
        member_id: this(subject).map(|m| m.id.clone()).unwrap_or_default(),
        peer_urls: members.iter().map(|m| (m.id.clone(), urls(m))).collect(),
        settings: sha256(settings.as_bytes()),
        files: files.collect(),
    }
}
