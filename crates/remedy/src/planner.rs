//! Plans, made from what is known of a node and of its cluster. Pure: no I/O, no clock.
//!
//! [`plan`] is the way in; each rule that can be fixed has a module of its own, and they share the `Planner` of this one,
//! which knows where a member's settings are declared, what its container sees of the host, and how a step looks.

pub(crate) mod attributes;
mod client_auth;
mod client_auto_tls;
pub(crate) mod client_tls;
mod clients;
pub(crate) mod peer_auth;
pub(crate) mod peer_auto_tls;
pub(crate) mod peer_ca;
pub(crate) mod peer_tls;
pub(crate) mod peers;
pub(crate) mod renewal;
mod request;

#[cfg(test)]
pub(crate) mod fixture;

pub use peers::bundled;
pub use request::{RequestFiles, Signed, request_files, sign};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use seaworthy_collect::manifest::StaticPod;
use seaworthy_evidence::{
    DeclaredKind, Direction, Etcd, EtcdClient, Member, MemberSource, Origin, Setting, Url,
};

use seaworthy_pki::Parsed;

use crate::issue::Purpose;
use seaworthy_edit::{ArgumentEdit, Change, Content, Refused, config, environment, manifest, unit};
use seaworthy_journal::files::sha256;

use crate::lint;
use crate::note::Note;
use crate::order::Scheme;
use crate::plan::{
    Action, FileEdit, Objection, Plan, Precondition, Refusal, RestartedBy, Stage, State, Step, Undo, Until,
    Verification, Waiting,
};
use crate::supplied::{Asked, Supplied};

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Host name of the node.
    pub node: &'a str,
    /// When the evidence was taken.
    pub taken_at: Timestamp,
    /// The member on this node.
    pub etcd: &'a Etcd,
    /// The files that declare it, those of [`declared_in`] first.
    pub declaration: &'a [Declaration],
    /// What the members say of themselves, or why they could not be asked.
    pub health: Result<&'a Health, &'a str>,
    /// What members have left word of in etcd, by id. Of those that are not in it nothing is known.
    pub notes: &'a BTreeMap<String, Note>,
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
    /// What is there of the files by which this member asks for a certificate: those of [`request_files`].
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether the clients of which nothing is known are ready, by the operator's word: they use TLS, believe the
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

/// Where a setting of a member is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// In etcd's own configuration file.
    Config(String),
    /// In an environment file.
    Environment(String),
    /// In the arguments of a static pod.
    Manifest(String),
    /// In the command line of a systemd unit.
    Unit(String),
}

/// The rules that there are plans for.
pub const RULES: [&str; 17] = [
    renewal::EXPIRY,
    client_auth::RULE,
    client_auto_tls::RULE,
    client_tls::RULE,
    attributes::DATA_MODE,
    attributes::DATA_OWNER,
    attributes::MANIFEST_MODE,
    attributes::MANIFEST_OWNER,
    peer_auth::RULE,
    peer_auto_tls::RULE,
    peer_ca::RULE,
    renewal::PEER,
    peer_tls::RULE,
    attributes::CERTIFICATE_MODE,
    attributes::KEY_MODE,
    attributes::PKI_OWNER,
    peer_ca::UNIQUE,
];
/// Days that a certificate must still be valid when a plan begins.
pub(crate) const MARGIN_DAYS: i64 = 1;
/// Seconds within which all members dial each other again after a restart.
const LINKS_SECONDS: u32 = 30;
/// Where files go when nothing else tells.
const POD_DIRECTORY: &str = "/etc/kubernetes/pki/etcd";
const UNIT_DIRECTORY: &str = "/etc/etcd/pki";

/// Returns the files that declare `etcd`: first the one to edit, then those that say what its paths mean. A unit is named
/// without its drop-ins, which come behind it.
///
/// # Errors
///
/// When its settings come from where no edit reaches.
pub fn declared_in(etcd: &Etcd) -> Result<Vec<String>, Refusal> {
    let (Source::Config(path) | Source::Environment(path) | Source::Manifest(path) | Source::Unit(path)) =
        source(etcd)?;
    let manifest = declared(etcd)?;
    let also =
        (manifest.kind == DeclaredKind::StaticPod && manifest.path != path).then(|| manifest.path.clone());
    Ok([path].into_iter().chain(also).collect())
}

/// Returns what is to be done on this member so that `rule` passes, as far as it can go by now.
///
/// # Errors
///
/// When something that must be known is not, or the way on is not supported: each with what to do instead.
pub fn plan(rule: &str, situation: &Situation<'_>) -> Result<Plan, Vec<Refusal>> {
    let plan = match rule {
        attributes::CERTIFICATE_MODE
        | attributes::DATA_MODE
        | attributes::DATA_OWNER
        | attributes::KEY_MODE
        | attributes::MANIFEST_MODE
        | attributes::MANIFEST_OWNER
        | attributes::PKI_OWNER => attributes::plan(rule, situation)?,
        renewal::EXPIRY | renewal::PEER => renewal::plan(rule, situation)?,
        client_auth::RULE => client_auth::plan(situation)?,
        client_auto_tls::RULE => client_auto_tls::plan(situation)?,
        client_tls::RULE => client_tls::plan(situation)?,
        peer_auth::RULE => peer_auth::plan(situation)?,
        peer_auto_tls::RULE => peer_auto_tls::plan(situation)?,
        peer_ca::RULE => peer_ca::plan(peer_ca::RULE, situation)?,
        peer_ca::UNIQUE => peer_ca::plan(peer_ca::UNIQUE, situation)?,
        peer_tls::RULE => peer_tls::plan(situation)?,
        other => {
            return Err(refuse(
                Objection::Unsupported,
                format!("there is no fix for {other}"),
                "what to change for it, and in which order, is not known to this version",
                format!("the rules with a fix are {}", RULES.join(", ")),
            )
            .into());
        }
    };
    // While another member's turn is under way, what the wires say is half of it.
    if plan.waits_for.iter().any(|waiting| waiting.until == Until::TurnEnded) {
        return Ok(plan);
    }
    match lint::order(&plan, situation) {
        Some(refusal) => Err(vec![refusal]),
        None => Ok(plan),
    }
}

/// Returns `declaration` with the `change` made: the new content of the file at `path`.
///
/// # Errors
///
/// When the edit cannot be made exactly.
pub fn edited(change: &FileEdit, path: &str, declaration: &[Declaration]) -> Result<Vec<u8>, Refused> {
    let bytes = |path: &str| declaration.iter().find(|d| d.path == path).map(|d| d.bytes.as_slice());
    let content = || bytes(path).ok_or_else(|| Refused { why: format!("{path} was not read") });
    match change {
        FileEdit::Config { edits } => config::apply(content()?, edits),
        FileEdit::DropIn { unit: files, edits } => {
            let files: Vec<&[u8]> = files.iter().filter_map(|file| bytes(file)).collect();
            let text = unit::drop_in(&unit::exec_start(&files)?, is_etcd, edits)?;
            Ok(text.into_bytes())
        }
        FileEdit::Environment { edits } => environment::apply(content()?, edits),
        FileEdit::Manifest { container, edits } => manifest::apply(content()?, container, is_etcd, edits),
    }
}

/// Returns whether the running member has loaded a certificate, a key and a CA for its peers.
pub(crate) fn has_loaded(settings: &BTreeMap<String, Setting>) -> bool {
    ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"]
        .iter()
        .all(|name| settings.get(*name).is_some_and(|s| s.set))
}

/// Returns the member of the membership that runs on this node.
pub(crate) fn this(etcd: &Etcd) -> Option<&Member> {
    etcd.cluster.value()?.members.iter().find(|m| m.this)
}

/// Returns how a member is called in sentences.
pub(crate) fn called(member: &Member) -> &str {
    if member.name.is_empty() { &member.id } else { &member.name }
}

/// Returns whether others dial the member with TLS.
pub(crate) fn is_encrypted(member: &Member) -> bool {
    !member.peer_urls.is_empty() && member.peer_urls.iter().all(Url::is_tls)
}

/// Returns where the process sees a file of the host, or will once its folder is mounted.
pub(crate) fn seen_at(situation: &Situation<'_>, path: &str) -> Option<String> {
    let view = View::of(situation).ok()?;
    Some(view.inside(path).unwrap_or_else(|| path.to_owned()))
}

fn is_etcd(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next() == Some(b"etcd")
}

pub(crate) fn refuse(
    objection: Objection,
    what: impl Into<String>,
    why: impl Into<String>,
    instead: impl Into<String>,
) -> Refusal {
    Refusal { objection, what: what.into(), why: why.into(), instead: instead.into() }
}

fn unseen(what: impl std::fmt::Display) -> Refusal {
    refuse(
        Objection::Evidence,
        format!("evidence is missing: {what}"),
        "a plan is only as good as what it is made from",
        "run it as root on the node, where the member runs",
    )
}

fn declared(etcd: &Etcd) -> Result<&seaworthy_evidence::Declared, Refusal> {
    let all = etcd.declared.as_result().map_err(unseen)?;
    all.first().ok_or_else(|| {
        refuse(
            Objection::Unsupported,
            "no static pod manifest and no systemd unit declares this etcd",
            "what starts it would start it without the change",
            "change it where it is configured: k3s, MicroShift, Talos and managed services do that by \
             themselves",
        )
    })
}

/// Returns where the settings of the running member come from.
fn source(etcd: &Etcd) -> Result<Source, Refusal> {
    let declared = declared(etcd)?;
    let running = etcd.settings.as_result().map_err(unseen)?;
    let promised = declared.settings.as_result().map_err(unseen)?;
    let given = ["listen-peer-urls", "name", "data-dir"].into_iter().find_map(|name| {
        let origin = |s: &Setting| (!matches!(s.origin, Origin::Default { .. })).then(|| s.origin.clone());
        Some((origin(running.get(name)?)?, origin(promised.get(name)?)?))
    });
    let (running, promised) = given.ok_or_else(|| unseen("where its settings are declared"))?;
    let Origin::File { path, .. } = promised else {
        return Err(unseen("the file in which its settings are declared"));
    };
    let unsupported = |what: String, instead: &str| {
        let why = "it cannot be edited so that nothing else changes";
        Err(refuse(Objection::Unsupported, what, why, instead))
    };
    match (running, declared.kind) {
        (Origin::File { .. }, _) if path.starts_with("/var/lib/rancher/") => unsupported(
            format!("{path} is written anew at each start"),
            "give RKE2 the settings as etcd-arg in /etc/rancher/rke2/config.yaml",
        ),
        (Origin::File { .. }, _) if path != declared.path => Ok(Source::Config(path)),
        (Origin::Argv { .. }, DeclaredKind::StaticPod) if path == declared.path => Ok(Source::Manifest(path)),
        (Origin::Argv { .. }, DeclaredKind::SystemdUnit) => Ok(Source::Unit(declared.path.clone())),
        (Origin::Environment { .. }, DeclaredKind::SystemdUnit)
            if path != declared.path && !path.ends_with(".conf") =>
        {
            Ok(Source::Environment(path))
        }
        (Origin::Environment { .. }, _) => unsupported(
            format!("{path} itself sets etcd's variables"),
            "turn them into arguments of etcd, or move them into an environment file, and plan again",
        ),
        (origin, _) => unsupported(
            format!("etcd runs with settings from {origin}, while {path} declares them"),
            "restart the member from its declaration, and plan again",
        ),
    }
}

/// What a container sees of the host; everything for a unit.
struct View {
    container: Option<String>,
    mounts: Vec<(String, String)>,
}

impl View {
    fn of(situation: &Situation<'_>) -> Result<Self, Refusal> {
        let declared = declared(situation.etcd)?;
        if declared.kind == DeclaredKind::SystemdUnit {
            return Ok(Self { container: None, mounts: vec![("/".to_owned(), "/".to_owned())] });
        }
        let file = situation.declaration.iter().find(|d| d.path == declared.path);
        let file = file.ok_or_else(|| unseen(format!("{} was not read", declared.path)))?;
        let pods = StaticPod::parse(&file.bytes, &Origin::file(&file.path)).map_err(unseen)?;
        let containers = pods.into_iter().filter(|p| !p.ignored).flat_map(|p| p.containers);
        let mut found = containers.filter(|c| matches!(c.program(is_etcd), Some(Ok(_))));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(Self {
                container: Some(one.name),
                mounts: one.mounts.into_iter().map(|m| (m.host, m.container)).collect(),
            }),
            _ => Err(unseen(format!("which container of {} runs etcd", file.path))),
        }
    }

    /// Returns the path at which the process sees the host's `path`.
    fn inside(&self, path: &str) -> Option<String> {
        moved(path, self.mounts.iter().map(|(host, inside)| (host.as_str(), inside.as_str())))
    }

    /// Returns the path on the host of what the process sees at `path`.
    fn outside(&self, path: &str) -> Option<String> {
        moved(path, self.mounts.iter().map(|(host, inside)| (inside.as_str(), host.as_str())))
    }
}

/// Returns `path` moved by the longest of the mounts it is in.
fn moved<'a>(path: &str, mounts: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let below = |from: &str| {
        let rest = path.strip_prefix(from.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    let inside = mounts.filter_map(|(from, to)| Some((from.len(), to, below(from)?)));
    let (_, to, rest) = inside.max_by_key(|(length, ..)| *length)?;
    Some(format!("{}{rest}", to.trim_end_matches('/')))
}

/// Returns the address that a host is, if it is one.
fn known_host(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// What a step changes in a member's configuration.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// Settings with their new values.
    set: BTreeMap<String, String>,
    /// Settings that are not given any more.
    removed: BTreeSet<&'static str>,
    /// Variables of the process that are none of etcd's, with their new values; `None` for one that is not set any more.
    variables: BTreeMap<&'static str, Option<String>>,
}

impl Changes {
    /// Returns the changes that give these settings their values.
    fn setting<const N: usize>(settings: [(&str, String); N]) -> Self {
        let set = settings.map(|(name, value)| (name.to_owned(), value));
        Self { set: BTreeMap::from(set), ..Self::default() }
    }

    /// Returns what is in effect afterwards; an empty value says that a setting is not given any more.
    fn effective(&self) -> BTreeMap<String, String> {
        let removed = self.removed.iter().map(|name| ((*name).to_owned(), String::new()));
        self.set.clone().into_iter().chain(removed).collect()
    }
}

/// Everything a step may need, once it is known to be there.
struct Planner<'a> {
    rule: &'static str,
    s: Situation<'a>,
    settings: &'a BTreeMap<String, Setting>,
    members: &'a [Member],
    me: &'a Member,
    source: Source,
    view: View,
}

impl<'a> Planner<'a> {
    fn new(rule: &'static str, s: Situation<'a>) -> Result<Self, Refusal> {
        s.etcd.process.as_result().map_err(unseen)?;
        let settings = s.etcd.settings.as_result().map_err(unseen)?;
        let cluster = s.etcd.cluster.as_result().map_err(unseen)?;
        if cluster.source != MemberSource::Live {
            return Err(unseen(format!("the live membership; it was {}", cluster.established)));
        }
        let me = this(s.etcd).ok_or_else(|| unseen("which member of the membership this etcd is"))?;
        Ok(Self {
            rule,
            s,
            settings,
            members: &cluster.members,
            me,
            source: source(s.etcd)?,
            view: View::of(&s)?,
        })
    }

    /// Returns the plan with these steps.
    fn document(
        &self,
        stage: Stage,
        mut waits_for: Vec<Waiting>,
        steps: Vec<Step>,
        then_waits_for: Vec<Waiting>,
    ) -> Plan {
        let restarts = steps.iter().any(|step| step.restarts);
        for member in self.others().into_iter().filter(|_| restarts) {
            // One turn at a time, also when who had it was killed: its change may be half made.
            if self.s.notes.get(&member.id).is_some_and(|note| note.under_way.is_some()) {
                waits_for.retain(|waiting| waiting.member != called(member));
                waits_for.push(Waiting { member: called(member).to_owned(), until: Until::TurnEnded });
            }
        }
        Plan {
            format: Plan::FORMAT.to_owned(),
            rule: self.rule.to_owned(),
            made_at: self.s.taken_at,
            state: state(&self.s),
            stage,
            authority: None,
            waits_for,
            by_hand: if steps.is_empty() { Vec::new() } else { self.by_hand(stage, &steps) },
            steps,
            then_waits_for,
        }
    }

    /// Returns the other members, by name.
    fn others(&self) -> Vec<&'a Member> {
        let mut others: Vec<&Member> = self.members.iter().filter(|m| !m.this).collect();
        others.sort_by_key(|m| called(m));
        others
    }

    /// Returns what has to be changed where the declaration is generated from.
    fn by_hand(&self, stage: Stage, steps: &[Step]) -> Vec<String> {
        let generated = matches!(self.source, Source::Manifest(_));
        if [client_auth::RULE, client_auto_tls::RULE, client_tls::RULE].contains(&self.rule) {
            return self.by_hand_for_clients(generated, stage);
        }
        if !generated {
            return Vec::new();
        }
        match (self.rule, stage) {
            (peer_tls::RULE, Stage::Load | Stage::Encrypt) => vec![kubeadm(steps)],
            (peer_auth::RULE, Stage::Change)
            | (peer_auto_tls::RULE, Stage::Change | Stage::Present | Stage::Distrust)
            | (peer_ca::RULE | peer_ca::UNIQUE, Stage::Trust | Stage::Present | Stage::Distrust) => {
                let manifest = kubeadm(steps);
                let renewal =
                    "`kubeadm certs renew` knows nothing of this certificate: renew it before it expires.";
                let renewal = (stage == Stage::Present).then(|| renewal.to_owned());
                [manifest].into_iter().chain(renewal).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the step that gives the member these settings where it is declared.
    fn edit(
        &self,
        title: &str,
        why: &str,
        settings: &BTreeMap<String, String>,
        mounts: Vec<manifest::Mount>,
    ) -> Result<Step, Refusal> {
        let changes = Changes { set: settings.clone(), ..Changes::default() };
        self.change(title, why, &changes, mounts)
    }

    /// Returns the step that makes these changes where the member is declared.
    fn change(
        &self,
        title: &str,
        why: &str,
        changes: &Changes,
        mounts: Vec<manifest::Mount>,
    ) -> Result<Step, Refusal> {
        let arguments = || {
            let set = changes
                .set
                .iter()
                .map(|(flag, value)| ArgumentEdit::Set { flag: flag.clone(), value: value.clone() });
            let removed =
                changes.removed.iter().map(|flag| ArgumentEdit::Remove { flag: (*flag).to_owned() });
            removed.chain(set)
        };
        let variables = || {
            changes.variables.iter().map(|(name, value)| match value.clone() {
                Some(value) => environment::Edit::Set { name: (*name).to_owned(), value },
                None => environment::Edit::Remove { name: (*name).to_owned() },
            })
        };
        if let (Source::Config(path) | Source::Unit(path), Some(name)) =
            (&self.source, changes.variables.keys().next())
        {
            return Err(refuse(
                Objection::Unsupported,
                format!("{path} cannot give etcd the variable {name}"),
                "without it members with and without self-made certificates could not dial each other",
                format!(
                    "by hand, one member at a time: {}, and {}; then plan again",
                    listed(&changes.effective()),
                    changes.variables.iter().map(|(n, v)| variable(n, v.as_deref())).collect::<String>()
                ),
            ));
        }
        let (path, change, content) = match &self.source {
            Source::Config(path) => {
                let removed = changes.removed.iter().map(|name| {
                    let (section, key) = config_key(name);
                    config::Edit::Remove { section, key: key.to_owned() }
                });
                let set = changes.set.iter().map(|(name, value)| config_edit(name, value));
                let edits = removed.chain(set).collect();
                (path.clone(), FileEdit::Config { edits }, Content::Text)
            }
            Source::Environment(path) => {
                let name = |name: &str| format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
                let removed = changes.removed.iter().map(|n| environment::Edit::Remove { name: name(n) });
                let set = changes
                    .set
                    .iter()
                    .map(|(n, value)| environment::Edit::Set { name: name(n), value: value.clone() });
                let edits = removed.chain(set).chain(variables()).collect();
                (path.clone(), FileEdit::Environment { edits }, Content::Environment)
            }
            Source::Manifest(path) => {
                let edits = arguments().map(manifest::Edit::Argument);
                let edits = edits.chain(variables().map(manifest::Edit::Variable));
                let edits = edits.chain(mounts.iter().cloned().map(manifest::Edit::Mount)).collect();
                let container = self.view.container.clone().unwrap_or_default();
                (path.clone(), FileEdit::Manifest { container, edits }, Content::Manifest)
            }
            Source::Unit(unit_file) => {
                let unit = unit_file.rsplit('/').next().unwrap_or_default();
                let path = format!("/etc/systemd/system/{unit}.d/{}", unit::FILE_NAME);
                let files = self.s.declaration.iter().map(|d| d.path.clone()).collect();
                (path, FileEdit::DropIn { unit: files, edits: arguments().collect() }, Content::Text)
            }
        };
        if !mounts.is_empty() && !matches!(self.source, Source::Manifest(_)) {
            return Err(refuse(
                Objection::Edit,
                format!(
                    "{} is not visible in etcd's container",
                    mounts.iter().map(|m| &*m.host_path).collect::<Vec<_>>().join(", ")
                ),
                "etcd would not find its certificate, and not start",
                "mount it there, and plan again",
            ));
        }
        let refused = |refused: Refused| {
            refuse(
                Objection::Edit,
                format!("{path} cannot be edited: {refused}"),
                "an edit that is not exactly the intended change may keep etcd from starting",
                format!("set by hand, one member at a time: {}", listed(&changes.effective())),
            )
        };
        let after = edited(&change, &path, self.s.declaration).map_err(refused)?;
        let before = self.s.declaration.iter().find(|d| d.path == path).map(|d| d.bytes.clone());
        let precondition = match &before {
            Some(bytes) => Precondition::File { path: path.clone(), sha256: sha256(bytes) },
            None => Precondition::Absent { path: path.clone() },
        };
        let undo = match &before {
            Some(_) => Undo::Restore { path: path.clone() },
            None => Undo::Remove { paths: vec![path.clone()] },
        };
        let hash = sha256(&after);
        let diff = Change { path: path.clone(), before, after, content }.diff();
        Ok(Step {
            title: format!("{title}: {path}"),
            why: why.to_owned(),
            action: Action::Edit { path, change, after: hash },
            diff: Some(diff),
            preconditions: vec![precondition, Precondition::ClusterHealthy, Precondition::LinksFull],
            verify: vec![Verification::ExactlyThisChange],
            undo,
            restarts: false,
        })
    }

    /// Returns the step that makes the member run with these settings.
    fn restart(&self, settings: BTreeMap<String, String>, verify: Vec<Verification>) -> Step {
        let pid = self.s.etcd.process.value().map_or(0, |p| p.pid);
        let declared = self.s.etcd.declared.value().and_then(|d| d.first());
        let unit = declared.map(|d| d.path.rsplit('/').next().unwrap_or_default().to_owned());
        let (title, by) = match (&self.source, declared.map(|d| d.kind)) {
            (Source::Manifest(_), _) => {
                (format!("Wait until kubelet has restarted {}", called(self.me)), RestartedBy::Kubelet)
            }
            (_, Some(DeclaredKind::StaticPod)) => {
                let title =
                    format!("End the process of {}, so that kubelet starts it again", called(self.me));
                (title, RestartedBy::KubeletAfterEnd { pid })
            }
            _ => {
                let unit = unit.unwrap_or_default();
                (format!("Restart {unit}"), RestartedBy::Systemd { unit })
            }
        };
        Step {
            title,
            why: "etcd reads its settings when it starts.".to_owned(),
            action: Action::Restart { by, settings },
            diff: None,
            preconditions: vec![],
            verify,
            undo: Undo::Restart,
            restarts: true,
        }
    }

    /// Returns whether a member left word that it has reached one of these stages of this rule.
    fn reached(&self, member: &Member, stages: &[Stage]) -> bool {
        let note = self.s.notes.get(&member.id).filter(|note| note.rule == self.rule);
        note.and_then(|note| note.reached).is_some_and(|reached| stages.contains(&reached))
    }

    /// Returns the step in which a leader hands over, to one of those that are to come first if it can; `None` when
    /// another member leads.
    fn hand_over(&self, to_first: impl Fn(&Member) -> bool) -> Option<Step> {
        let leads = self.s.health.is_ok_and(|h| h.leader.as_deref() == Some(self.me.id.as_str()));
        let others = self.members.iter().filter(|m| !m.this && !m.learner && !m.id.is_empty());
        let mut to: Vec<&Member> = others.collect();
        to.sort_by_key(|m| !to_first(m));
        (leads && !to.is_empty()).then(|| Step {
            title: "Hand leadership over".to_owned(),
            why: "A leader that restarts costs the cluster an election; one that hands over does not."
                .to_owned(),
            action: Action::MoveLeader { to: to.into_iter().map(|m| m.id.clone()).collect() },
            diff: None,
            preconditions: vec![Precondition::ClusterHealthy],
            verify: vec![Verification::Followed],
            undo: Undo::Nothing,
            restarts: false,
        })
    }

    /// Returns the step that makes an authority which issues certificates for members only.
    fn create_authority(&self, authority: &AuthorityFiles) -> Step {
        let paths = vec![authority.certificate.clone(), authority.key.clone()];
        Step {
            title: "Make a certificate authority for the members only".to_owned(),
            why: "Its certificates open no other door, and no other certificate opens this one.".to_owned(),
            action: Action::CreateAuthority {
                certificate: authority.certificate.clone(),
                key: authority.key.clone(),
            },
            diff: None,
            preconditions: paths.iter().map(|p| Precondition::Absent { path: p.clone() }).collect(),
            verify: vec![Verification::CertificateSound],
            undo: Undo::Remove { paths },
            restarts: false,
        }
    }

    /// Returns the step that makes a key and a certificate of this authority for the member.
    fn issue(&self, authority: &AuthorityFiles, files: [String; 2]) -> Result<Step, Refusal> {
        let hosts = self.hosts();
        let why = format!(
            "Its peers dial it at, and see it come from, {}; it serves and dials with the same certificate.",
            hosts.join(", ")
        );
        self.issue_for("certificate", authority, files, hosts, why)
    }

    /// Returns the step that issues a certificate of this kind, which names these hosts.
    fn issue_for(
        &self,
        kind: &str,
        authority: &AuthorityFiles,
        [certificate, key]: [String; 2],
        hosts: Vec<String>,
        why: String,
    ) -> Result<Step, Refusal> {
        let process = self.s.etcd.process.as_result().map_err(unseen)?;
        Ok(Step {
            title: format!("Issue a {kind} for {}", called(self.me)),
            why,
            action: Action::Issue {
                common_name: called(self.me).to_owned(),
                hosts,
                purpose: Purpose::Peer,
                days: self.s.options.days,
                certificate: certificate.clone(),
                key: key.clone(),
                ca_certificate: authority.certificate.clone(),
                ca_key: authority.key.clone(),
                uid: process.uid,
                gid: process.gid,
                replaces: false,
            },
            diff: None,
            preconditions: [&certificate, &key].map(|p| Precondition::Absent { path: p.clone() }).to_vec(),
            verify: vec![Verification::CertificateSound],
            undo: Undo::Remove { paths: vec![certificate, key] },
            restarts: false,
        })
    }

    /// Returns the first of the names with which no file of these endings is known to be in the folder.
    fn free(&self, directory: &str, stems: &[&str], ends: &[&str]) -> Result<String, Refusal> {
        let taken: BTreeSet<&str> =
            self.s.etcd.files.pki.value().into_iter().flatten().map(|f| f.file.path.as_str()).collect();
        let names = |stem: &str| -> Vec<String> {
            ends.iter().map(|end| format!("{directory}/{stem}.{end}")).collect()
        };
        let free = |stem: &&&str| names(stem).iter().all(|path| !taken.contains(path.as_str()));
        stems.iter().find(free).map(|stem| (*stem).to_owned()).ok_or_else(|| {
            let last = stems.last().copied().unwrap_or_default();
            refuse(
                Objection::Unrestorable,
                format!("{} exist already", names(last).join(" and ")),
                "another certificate may be in use, and would be lost",
                "move them away if nothing uses them, and plan again",
            )
        })
    }

    /// Returns the value of a setting that is given, not by default.
    fn given(&self, name: &str) -> Option<&str> {
        given(self.settings, name)
    }

    fn urls(&self, name: &str) -> Result<Vec<Url>, Refusal> {
        let value = self.settings.get(name).map(|s| s.value.as_str()).unwrap_or_default();
        let urls = value
            .split(',')
            .map(|text| Url::parse(text).ok_or_else(|| unseen(format!("{name} is {value:?}"))));
        urls.collect()
    }

    /// Returns the hosts that the certificate must name: those that peers dial, and the addresses from which they see it
    /// come.
    fn hosts(&self) -> Vec<String> {
        let advertised = self.given("initial-advertise-peer-urls").unwrap_or_default();
        let advertised = advertised.split(',').filter_map(Url::parse);
        let dialled = self.me.peer_urls.iter().cloned().chain(advertised).map(|url| url.host);
        let connections = self.s.etcd.connections.value();
        let outbound = connections.into_iter().flatten().filter(|c| c.direction == Direction::Outbound);
        let local = outbound.filter_map(|c| {
            let host = c.local.rsplit_once(':')?.0.trim_matches(['[', ']']);
            host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical().to_string())
        });
        let hosts: BTreeSet<String> = dialled.chain(local).filter(|h| !h.is_empty()).collect();
        hosts.into_iter().collect()
    }

    /// Returns the folder on the host that certificate and key go to.
    fn material_directory(&self) -> String {
        material_directory(self.settings, &self.view)
    }

    /// Returns the folder on the host that holds what the first of these settings names that is given; the usual one for
    /// such files when none is.
    fn directory_beside(&self, settings: &[&str]) -> String {
        let other = settings.iter().find_map(|name| self.given(name));
        let beside = other.and_then(|path| self.view.outside(path)).map(|path| directory(&path).to_owned());
        let usual = if self.view.container.is_some() { POD_DIRECTORY } else { UNIT_DIRECTORY };
        beside.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned())
    }

    /// Returns where the process sees a file of the host, and the mount of its folder that it needs for it.
    fn seen_file(&self, path: &str) -> (String, Option<manifest::Mount>) {
        match self.view.inside(path) {
            Some(path) => (path, None),
            None => {
                let (seen, mount) = self.seen(directory(path));
                (format!("{seen}/{}", path.rsplit('/').next().unwrap_or_default()), mount)
            }
        }
    }

    /// Returns where the process sees a folder of the host, and the mount that it needs for it.
    fn seen(&self, directory: &str) -> (String, Option<manifest::Mount>) {
        match self.view.inside(directory) {
            Some(path) => (path, None),
            None => {
                let mount = manifest::Mount {
                    name: format!(
                        "etcd-{}-pki",
                        if self.rule.starts_with("etcd-client-") { "client" } else { "peer" }
                    ),
                    host_path: directory.to_owned(),
                    mount_path: directory.to_owned(),
                    kind: "Directory".to_owned(),
                    read_only: true,
                };
                (directory.to_owned(), Some(mount))
            }
        }
    }

    /// Returns where the process sees these files of the host, and the mounts that it needs for them.
    fn visible<const N: usize>(&self, paths: [&str; N]) -> ([String; N], Vec<manifest::Mount>) {
        let mut mounts: Vec<manifest::Mount> = Vec::new();
        let seen = paths.map(|path| {
            // A file may be mounted by itself.
            if let Some(inside) = self.view.inside(path) {
                return inside;
            }
            let (folder, mount) = self.seen(directory(path));
            let new = mount.filter(|new| mounts.iter().all(|known| known.host_path != new.host_path));
            if let Some(mut new) = new {
                if !mounts.is_empty() {
                    new.name = format!("{}-{}", new.name, mounts.len() + 1);
                }
                mounts.push(new);
            }
            format!("{folder}/{}", path.rsplit('/').next().unwrap_or_default())
        });
        (seen, mounts)
    }
}

/// Returns the value of a setting that is given, not by default.
fn given<'a>(settings: &'a BTreeMap<String, Setting>, name: &str) -> Option<&'a str> {
    let setting = settings.get(name)?;
    let given = setting.set && !matches!(setting.origin, Origin::Default { .. });
    given.then_some(setting.value.as_str())
}

/// Returns the folder on the host that certificate and key go to: the one that holds those for clients.
fn material_directory(settings: &BTreeMap<String, Setting>, view: &View) -> String {
    let client = ["cert-file", "trusted-ca-file"].into_iter().find_map(|name| given(settings, name));
    let beside = client.and_then(|path| view.outside(path)).map(|path| directory(&path).to_owned());
    let usual = if view.container.is_some() { POD_DIRECTORY } else { UNIT_DIRECTORY };
    beside.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned())
}

/// Returns the exact edit of kubeadm's own records that keeps its next upgrade from undoing what the steps set.
fn kubeadm(steps: &[Step]) -> String {
    let settings = steps.iter().filter_map(|step| match &step.action {
        Action::Restart { settings, .. } => Some(settings),
        _ => None,
    });
    // What kubeadm writes into the manifest by itself; URLs are each node's own, and https in its templates.
    let own = |name: &str, value: &str| match name {
        "listen-peer-urls" | "initial-advertise-peer-urls" => true,
        "peer-cert-file" => value == "/etc/kubernetes/pki/etcd/peer.crt",
        "peer-key-file" => value == "/etc/kubernetes/pki/etcd/peer.key",
        "peer-trusted-ca-file" => value == "/etc/kubernetes/pki/etcd/ca.crt",
        "peer-client-cert-auth" => value == "true",
        _ => value.is_empty(),
    };
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (name, value) in settings.flatten() {
        match own(name, value) {
            true => removed.push(name.as_str()),
            false => set.push(format!("{name} to {value}")),
        }
    }
    let mut edits = Vec::new();
    edits.extend((!set.is_empty()).then(|| format!("set {}", set.join(", "))));
    edits.extend(
        (!removed.is_empty())
            .then(|| format!("remove {}, which kubeadm then sets by itself", removed.join(", "))),
    );
    format!(
        "`kubeadm upgrade` writes this manifest anew. So that it keeps the change, run `kubectl -n kube-system edit \
         configmap kubeadm-config` once, and in its ClusterConfiguration, under etcd.local.extraArgs (names and values; a \
         list of both since v1beta4): {}. Do the same in a directory of patches, if you use one.",
        edits.join("; ")
    )
}

/// Returns a plan that concerns no other member.
fn alone(
    rule: &str,
    situation: &Situation<'_>,
    stage: Stage,
    steps: Vec<Step>,
    by_hand: Vec<String>,
) -> Plan {
    Plan {
        format: Plan::FORMAT.to_owned(),
        rule: rule.to_owned(),
        made_at: situation.taken_at,
        state: state(situation),
        stage,
        waits_for: Vec::new(),
        steps,
        then_waits_for: Vec::new(),
        by_hand,
        authority: None,
    }
}

/// Returns the state that a plan made from `situation` is bound to.
pub fn state(situation: &Situation<'_>) -> State {
    let etcd = situation.etcd;
    let members = etcd.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let urls = |m: &Member| m.peer_urls.iter().map(|url| url.text.clone()).collect();
    let mut settings = String::new();
    for (name, setting) in etcd.settings.value().into_iter().flatten() {
        settings.extend([name, "=", &setting.value, "\n"]);
    }
    let files = situation.declaration.iter().map(|d| (d.path.clone(), Some(sha256(&d.bytes))));
    State {
        node: situation.node.to_owned(),
        member: this(etcd).map(called).or(etcd.name.as_deref()).unwrap_or_default().to_owned(),
        member_id: this(etcd).map(|m| m.id.clone()).unwrap_or_default(),
        peer_urls: members.iter().map(|m| (m.id.clone(), urls(m))).collect(),
        settings: sha256(settings.as_bytes()),
        files: files.collect(),
    }
}

/// Returns where a configuration file has the setting that is named as its flag.
fn config_key(name: &str) -> (Option<config::Section>, &str) {
    use config::Section::{ClientTransportSecurity, PeerTransportSecurity};
    let key = name.strip_prefix("peer-").unwrap_or(name);
    let section = if key.len() < name.len() { PeerTransportSecurity } else { ClientTransportSecurity };
    match key {
        "auto-tls" | "cert-file" | "key-file" | "trusted-ca-file" | "client-cert-auth" => {
            (Some(section), key)
        }
        _ => (None, name),
    }
}

/// Returns the edit of a configuration file that gives a setting, named as its flag, this value.
fn config_edit(name: &str, value: &str) -> config::Edit {
    let (section, key) = config_key(name);
    let value = match (section, value) {
        (Some(_), "true") => config::Value::Boolean(true),
        (_, text) => config::Value::Text(text.to_owned()),
    };
    config::Edit::Set { section, key: key.to_owned(), value }
}

/// Returns in words what a variable becomes.
fn variable(name: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("the variable {name}={value}"),
        None => format!("no variable {name}"),
    }
}

fn listed(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}
