//! Plans, made from what is known of a node and of its cluster. Pure: no I/O, no clock.
//!
//! A live cluster goes from plaintext to mutual TLS in two rounds, because a certificate that a member loads changes
//! nothing while every URL is still `http`, and because two members can talk as long as one of them can dial the other:
//! first every member loads its certificate, one after the other, and then each one's URL becomes `https`, first in the
//! membership, which is how the others dial it, and at once in its own configuration. Other orders were tried, and end
//! in members that cannot reach each other while every health check is green (see [`order`](crate::order)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use seaworthy_collect::manifest::StaticPod;
use seaworthy_evidence::{
    DeclaredKind, Direction, Etcd, Member, MemberSource, Origin, Setting, TransportSeen, Url,
};

use crate::edit::{ArgumentEdit, Change, Content, Refused, config, environment, manifest, unit};
use crate::files::sha256;
use crate::lint;
use crate::plan::{
    Action, FileEdit, Objection, Plan, Precondition, Refusal, RestartedBy, Stage, State, Step, Undo, Until,
    Verification, Waiting,
};

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
    /// Whether members have loaded a certificate for their peers, by id. Those that are not in it may or may not have.
    pub loaded: &'a BTreeMap<String, bool>,
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
    /// Days that an issued certificate is valid.
    pub days: u32,
    /// Whether a cluster of two may stop, because one of them is no quorum while the other restarts.
    pub two_members_stop: bool,
}

/// Files of a certificate authority, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// Its certificate.
    pub certificate: String,
    /// The certificate's content; `None` when the authority is still to be made, for members only.
    pub pem: Option<Vec<u8>>,
    /// Its private key.
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

/// The rule that the plan is for.
const RULE: &str = "etcd-peer-tls";
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

/// Returns what takes the member from plaintext to mutual TLS with its peers, as far as it can go by now.
///
/// # Errors
///
/// When something that must be known is not, or the way on is not supported: each with what to do instead.
pub fn etcd_peer_tls(situation: Situation<'_>) -> Result<Plan, Vec<Refusal>> {
    let planner = Planner::new(situation).map_err(|refusal| vec![refusal])?;
    let plan = planner.plan().map_err(|refusal| vec![refusal])?;
    match lint::order(&plan, &situation) {
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

fn is_etcd(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next() == Some(b"etcd")
}

fn refuse(
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

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Everything a step may need, once it is known to be there.
struct Planner<'a> {
    s: Situation<'a>,
    settings: &'a BTreeMap<String, Setting>,
    members: &'a [Member],
    me: &'a Member,
    source: Source,
    view: View,
}

impl<'a> Planner<'a> {
    fn new(s: Situation<'a>) -> Result<Self, Refusal> {
        s.etcd.process.as_result().map_err(unseen)?;
        let settings = s.etcd.settings.as_result().map_err(unseen)?;
        let cluster = s.etcd.cluster.as_result().map_err(unseen)?;
        if cluster.source != MemberSource::Live {
            return Err(unseen(format!("the live membership; it was {}", cluster.established)));
        }
        let me = this(s.etcd).ok_or_else(|| unseen("which member of the membership this etcd is"))?;
        Ok(Self { s, settings, members: &cluster.members, me, source: source(s.etcd)?, view: View::of(&s)? })
    }

    fn plan(&self) -> Result<Plan, Refusal> {
        let unsupported =
            |what: &str, why: &str, instead: &str| Err(refuse(Objection::Unsupported, what, why, instead));
        if self.members.len() == 1 {
            return Ok(self.document(Stage::Done, Vec::new()));
        }
        if self.s.etcd.peer.auto_tls.value().is_some_and(|auto| auto.in_effect) {
            return unsupported(
                "the members use self-made certificates (peer-auto-tls)",
                "a member that demands real ones would be isolated: theirs cannot be verified, in either direction",
                "let each member trust the others' self-made certificates first: load a certificate without a CA \
                 and with SSL_CERT_FILE naming all of them, everywhere; then the CA, everywhere",
            );
        }
        let listens = self.urls("listen-peer-urls")?;
        let advertised: Vec<Url> = self.me.peer_urls.clone();
        for urls in [&listens, &advertised] {
            let plain = urls.iter().filter(|url| url.scheme == "http").count();
            let tls = urls.iter().filter(|url| url.scheme == "https").count();
            if plain + tls < urls.len() || urls.iter().any(|url| url.text.contains("***@")) || urls.is_empty()
            {
                return unsupported(
                    "its peer URLs are neither http nor https, or have a password",
                    "what they mean to its peers is not known well enough",
                    "give it http URLs with host and port, and plan again",
                );
            }
            if plain > 0 && tls > 0 {
                return unsupported(
                    "it has http and https peer URLs beside each other",
                    "a port that is taken away may be the one that its peers dial",
                    "let its peers dial the https ones only (etcdctl member update), and then drop the others",
                );
            }
        }
        let tls = |urls: &[Url]| urls.iter().all(Url::is_tls);
        match (tls(&advertised), tls(&listens), has_loaded(self.settings)) {
            (true, true, _) => Ok(self.document(Stage::Done, self.reconnect())),
            (_, _, true) => self.encrypt(!tls(&advertised), (!tls(&listens)).then_some(&listens)),
            (false, false, false) => self.load(),
            _ => Err(refuse(
                Objection::Order,
                "its peers are told to dial it with TLS, or it listens so, without a certificate of its own",
                "it could not be dialled, and its next restart would isolate it",
                "put its peer URLs back to http first: in the membership with etcdctl member update, and in \
                 its configuration",
            )),
        }
    }

    /// Returns the steps after which the member has loaded a certificate, and still talks plaintext.
    fn load(&self) -> Result<Plan, Refusal> {
        let authority = self.s.options.authority.as_ref().ok_or_else(|| {
            refuse(
                Objection::Authority,
                "there is no certificate authority with its key on this node",
                "peers accept only certificates of an authority that they trust",
                "name one with --ca-cert and --ca-key; on kubeadm nodes it is /etc/kubernetes/pki/etcd/ca.crt",
            )
        })?;
        let directory = self.material_directory();
        let taken: BTreeSet<&str> =
            self.s.etcd.files.pki.value().into_iter().flatten().map(|f| f.file.path.as_str()).collect();
        let names = |stem: &str| ["crt", "key"].map(|end| format!("{directory}/{stem}.{end}"));
        let free = |stem: &&&str| names(stem).iter().all(|path| !taken.contains(path.as_str()));
        let stem = ["peer", "seaworthy-peer"].iter().find(free);
        let stem = stem.ok_or_else(|| {
            refuse(
                Objection::Unrestorable,
                format!("{} exist already", names("seaworthy-peer").join(" and ")),
                "another certificate may be in use, and would be lost",
                "move them away if nothing uses them, and plan again",
            )
        })?;
        let [certificate, key] = names(stem);
        let (inside, mount) = self.seen(&directory);
        let (ca, ca_mount) = match self.view.inside(&authority.certificate) {
            Some(path) => (path, None),
            None => {
                let (seen, mount) = self.seen(self::directory(&authority.certificate));
                let name = authority.certificate.rsplit('/').next().unwrap_or_default();
                (format!("{seen}/{name}"), mount)
            }
        };
        let settings = BTreeMap::from(
            [
                ("peer-cert-file", format!("{inside}/{stem}.crt")),
                ("peer-key-file", format!("{inside}/{stem}.key")),
                ("peer-trusted-ca-file", ca),
                ("peer-client-cert-auth", "true".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let process = self.s.etcd.process.as_result().map_err(unseen)?;
        let hosts = self.hosts();
        let mut steps = Vec::new();
        if authority.pem.is_none() {
            let paths = vec![authority.certificate.clone(), authority.key.clone()];
            steps.push(Step {
                title: "Make a certificate authority for the members only".to_owned(),
                why: "Its certificates open no other door, and no other certificate opens this one."
                    .to_owned(),
                action: Action::CreateAuthority {
                    certificate: authority.certificate.clone(),
                    key: authority.key.clone(),
                },
                diff: None,
                preconditions: paths.iter().map(|p| Precondition::Absent { path: p.clone() }).collect(),
                verify: vec![Verification::CertificateSound],
                undo: Undo::Remove { paths },
                restarts: false,
            });
        }
        steps.push(Step {
            title: format!("Issue a certificate for {}", called(self.me)),
            why: format!(
                "Its peers dial it at, and see it come from, {}; it serves and dials with the same certificate.",
                hosts.join(", ")
            ),
            action: Action::Issue {
                common_name: called(self.me).to_owned(),
                hosts,
                days: self.s.options.days,
                certificate: certificate.clone(),
                key: key.clone(),
                ca_certificate: authority.certificate.clone(),
                ca_key: authority.key.clone(),
                uid: process.uid,
                gid: process.gid,
            },
            diff: None,
            preconditions: [&certificate, &key].map(|p| Precondition::Absent { path: p.clone() }).to_vec(),
            verify: vec![Verification::CertificateSound],
            undo: Undo::Remove { paths: vec![certificate, key] },
            restarts: false,
        });
        steps.push(self.edit(
            "Let it load the certificate, with its URLs as they are",
            "While every URL is http, etcd keeps talking plaintext, so members with and without certificates get \
             along. Without this round, members that have them and members that have not could not dial each other.",
            &settings,
            [mount, ca_mount].into_iter().flatten().collect(),
        )?);
        steps.push(self.restart(
            settings,
            vec![
                Verification::Restarted,
                Verification::SettingsEffective,
                Verification::ClusterHealthy,
                Verification::LinksFull { seconds: LINKS_SECONDS },
            ],
        ));
        Ok(self.document(Stage::Load, steps))
    }

    /// Returns the steps after which the member talks TLS with its peers.
    fn encrypt(&self, update: bool, listens: Option<&Vec<Url>>) -> Result<Plan, Refusal> {
        let mut steps = Vec::new();
        let secure = |urls: &[Url]| -> Vec<String> {
            urls.iter().map(|url| url.text.replacen("http://", "https://", 1)).collect()
        };
        let urls = secure(&self.me.peer_urls);
        let former: Vec<String> = self.me.peer_urls.iter().map(|url| url.text.clone()).collect();
        let others = || self.members.iter().filter(|m| !m.this);
        let leads = self.s.health.is_ok_and(|h| h.leader.as_deref() == Some(self.me.id.as_str()));
        if leads && listens.is_some() {
            let mut to: Vec<&Member> = others().filter(|m| !m.learner && !m.id.is_empty()).collect();
            to.sort_by_key(|m| !is_encrypted(m));
            steps.push(Step {
                title: "Hand leadership over".to_owned(),
                why: "A leader that restarts costs the cluster an election; one that hands over does not."
                    .to_owned(),
                action: Action::MoveLeader { to: to.into_iter().map(|m| m.id.clone()).collect() },
                diff: None,
                preconditions: vec![Precondition::ClusterHealthy],
                verify: vec![Verification::Followed],
                undo: Undo::Nothing,
                restarts: false,
            });
        }
        if update {
            steps.push(Step {
                title: format!("Tell its peers to dial {} with TLS", called(self.me)),
                why: "New connections to it are made as the membership says, from now on; the ones there are stay. \
                      So the next step follows at once."
                    .to_owned(),
                action: Action::UpdateMember {
                    member_id: self.me.id.clone(),
                    peer_urls: urls.clone(),
                    via: others().flat_map(|m| &m.client_urls).map(|url| url.text.clone()).collect(),
                },
                diff: None,
                preconditions: vec![
                    Precondition::ClusterHealthy,
                    Precondition::LinksFull,
                    Precondition::LoadedEverywhere,
                    Precondition::PeerUrls { member_id: self.me.id.clone(), urls: former.clone() },
                ],
                verify: vec![Verification::MembershipShows { urls: urls.clone() }],
                undo: Undo::PeerUrls { urls: former },
                restarts: false,
            });
        }
        if let Some(listens) = listens {
            let mut settings = BTreeMap::from([("listen-peer-urls".to_owned(), secure(listens).join(","))]);
            if let Some(advertised) = self.given("initial-advertise-peer-urls") {
                let advertised = advertised.replace("http://", "https://");
                settings.insert("initial-advertise-peer-urls".to_owned(), advertised);
            }
            let effective = settings.clone();
            if let Some(initial) = self.given("initial-cluster") {
                let own = format!("{}=http://", self.me.name);
                let entries = initial.split(',').map(|entry| match entry.trim().strip_prefix(&own) {
                    Some(rest) => format!("{}=https://{rest}", self.me.name),
                    None => entry.to_owned(),
                });
                settings.insert("initial-cluster".to_owned(), entries.collect::<Vec<_>>().join(","));
            }
            steps.push(self.edit(
                "Let it listen with TLS",
                "It demands a certificate from whoever dials it, and every member has one by now.",
                &settings,
                Vec::new(),
            )?);
            steps.push(self.restart(
                effective,
                vec![
                    Verification::Restarted,
                    Verification::SettingsEffective,
                    Verification::PlaintextRefused,
                    Verification::MutualTls,
                    Verification::NoPlaintextConnection,
                    Verification::LinksFull { seconds: LINKS_SECONDS },
                    Verification::ClusterHealthy,
                ],
            ));
        }
        Ok(self.document(Stage::Encrypt, steps))
    }

    /// Returns the restart that ends plaintext connections which have outlived the change of all members.
    fn reconnect(&self) -> Vec<Step> {
        let connections = self.s.etcd.connections.value();
        let plaintext = connections.into_iter().flatten().any(|c| c.transport == TransportSeen::Plaintext);
        // To a member that still listens in plaintext they would only be made again.
        let everybody = self.members.iter().all(is_encrypted);
        let verify = vec![
            Verification::Restarted,
            Verification::NoPlaintextConnection,
            Verification::LinksFull { seconds: LINKS_SECONDS },
            Verification::ClusterHealthy,
        ];
        let mut step = self.restart(BTreeMap::new(), verify);
        step.why = "Connections from before the change are still plaintext, and end only with the process."
            .to_owned();
        if let (Action::Restart { by, .. }, Some(process)) = (&mut step.action, self.s.etcd.process.value())
            && *by == RestartedBy::Kubelet
        {
            // Its manifest stays as it is, so kubelet has no reason of its own.
            *by = RestartedBy::KubeletAfterEnd { pid: process.pid };
        }
        if plaintext && everybody { vec![step] } else { Vec::new() }
    }

    fn document(&self, stage: Stage, steps: Vec<Step>) -> Plan {
        let mut others: Vec<&Member> = self.members.iter().filter(|m| !m.this).collect();
        others.sort_by_key(|m| called(m));
        let waiting = |member: &Member, until: Until| Waiting { member: called(member).to_owned(), until };
        // Whom others dial with TLS has a certificate: etcd does not start to listen so without one.
        let plaintext = || others.iter().filter(|m| !is_encrypted(m));
        let unloaded = plaintext().filter_map(|m| match self.s.loaded.get(&m.id) {
            Some(true) => None,
            Some(false) => Some(waiting(m, Until::Loaded)),
            None => Some(waiting(m, Until::KnownToHaveLoaded)),
        });
        let unencrypted = plaintext().map(|m| waiting(m, Until::Encrypted));
        let (waits_for, then_waits_for) = match stage {
            Stage::Load => (Vec::new(), unloaded.collect()),
            Stage::Encrypt => (unloaded.collect(), unencrypted.collect()),
            Stage::Done => (Vec::new(), unencrypted.collect()),
        };
        Plan {
            format: Plan::FORMAT.to_owned(),
            rule: RULE.to_owned(),
            made_at: self.s.taken_at,
            state: state(&self.s),
            stage,
            waits_for,
            by_hand: if steps.is_empty() { Vec::new() } else { self.by_hand(stage) },
            steps,
            then_waits_for,
        }
    }

    /// Returns what has to be changed where the declaration is generated from.
    fn by_hand(&self, stage: Stage) -> Vec<String> {
        match (&self.source, stage) {
            (Source::Manifest(_), Stage::Load | Stage::Encrypt) => vec![
                "`kubeadm upgrade` writes this manifest anew from the ConfigMap kube-system/kubeadm-config: \
                 under etcd.local.extraArgs there, and in a directory of patches if one is used, remove what \
                 sets peer URLs to http, and add what this plan sets and kubeadm does not."
                    .to_owned(),
            ],
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
        let arguments = || {
            let set = |(flag, value): (&String, &String)| ArgumentEdit::Set {
                flag: flag.clone(),
                value: value.clone(),
            };
            settings.iter().map(set)
        };
        let (path, change, content) = match &self.source {
            Source::Config(path) => {
                let edits = settings.iter().map(|(name, value)| config_edit(name, value)).collect();
                (path.clone(), FileEdit::Config { edits }, Content::Text)
            }
            Source::Environment(path) => {
                let name = |name: &str| format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
                let set = |(n, value): (&String, &String)| environment::Edit::Set {
                    name: name(n),
                    value: value.clone(),
                };
                let edits = settings.iter().map(set).collect();
                (path.clone(), FileEdit::Environment { edits }, Content::Environment)
            }
            Source::Manifest(path) => {
                let edits = arguments().map(manifest::Edit::Argument);
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
                format!("set by hand, one member at a time: {}", listed(settings)),
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

    /// Returns the value of a setting that is given, not by default.
    fn given(&self, name: &str) -> Option<&str> {
        let setting = self.settings.get(name)?;
        let given = setting.set && !matches!(setting.origin, Origin::Default { .. });
        given.then_some(setting.value.as_str())
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

    /// Returns the folder on the host that certificate and key go to: the one that holds those for clients.
    fn material_directory(&self) -> String {
        let client = ["cert-file", "trusted-ca-file"].into_iter().find_map(|name| self.given(name));
        let beside = client.and_then(|path| self.view.outside(path)).map(|path| directory(&path).to_owned());
        let usual = if self.view.container.is_some() { POD_DIRECTORY } else { UNIT_DIRECTORY };
        beside.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned())
    }

    /// Returns where the process sees a folder of the host, and the mount that it needs for it.
    fn seen(&self, directory: &str) -> (String, Option<manifest::Mount>) {
        match self.view.inside(directory) {
            Some(path) => (path, None),
            None => {
                let mount = manifest::Mount {
                    name: "etcd-peer-pki".to_owned(),
                    host_path: directory.to_owned(),
                    mount_path: directory.to_owned(),
                    kind: "Directory".to_owned(),
                    read_only: true,
                };
                (directory.to_owned(), Some(mount))
            }
        }
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
        member: this(etcd).map(called).unwrap_or_default().to_owned(),
        member_id: this(etcd).map(|m| m.id.clone()).unwrap_or_default(),
        peer_urls: members.iter().map(|m| (m.id.clone(), urls(m))).collect(),
        settings: sha256(settings.as_bytes()),
        files: files.collect(),
    }
}

/// Returns the edit of a configuration file that gives a setting, named as its flag, this value.
fn config_edit(name: &str, value: &str) -> config::Edit {
    let key = match name {
        "peer-cert-file" => "cert-file",
        "peer-key-file" => "key-file",
        "peer-trusted-ca-file" => "trusted-ca-file",
        "peer-client-cert-auth" => "client-cert-auth",
        other => {
            let value = config::Value::Text(value.to_owned());
            return config::Edit::Set { section: None, key: other.to_owned(), value };
        }
    };
    let value = match value {
        "true" => config::Value::Boolean(true),
        text => config::Value::Text(text.to_owned()),
    };
    config::Edit::Set { section: Some(config::Section::PeerTransportSecurity), key: key.to_owned(), value }
}

fn listed(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A member of the lab, in any state, and its cluster.

    use seaworthy_evidence::{Observed, Snapshot};

    use super::*;
    use crate::issue::{Authority, KeyKind};

    pub(crate) const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

    #[derive(Clone, Debug)]
    pub(crate) struct World {
        pub(crate) node: String,
        pub(crate) taken_at: Timestamp,
        pub(crate) etcd: Etcd,
        pub(crate) declaration: Vec<Declaration>,
        pub(crate) health: Result<Health, String>,
        pub(crate) loaded: BTreeMap<String, bool>,
        pub(crate) options: Options,
    }

    impl World {
        /// Returns the first of three members that have loaded their certificates and talk plaintext.
        pub(crate) fn loaded() -> Self {
            let snapshot = include_str!("../../seaworthy/tests/cli/node.json");
            let mut snapshot: serde_json::Value = serde_json::from_str(snapshot).unwrap();
            snapshot["etcd"]["value"][0]["links"]["value"] = serde_json::json!([]);
            let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
            let etcd = snapshot.etcd.value().unwrap()[0].clone();
            let (authority, _) = Authority::create("etcd-ca", KeyKind::EcP256, snapshot.taken_at).unwrap();
            let pem = authority.pem().as_bytes().to_vec();
            let [certificate, key] = ["crt", "key"].map(|end| format!("{POD_DIRECTORY}/ca.{end}"));
            let authority = Some(AuthorityFiles { certificate, pem: Some(pem), key });
            let members = etcd.cluster.value().unwrap().members.clone();
            let well = MemberHealth { version: Some("3.6.13".to_owned()), trouble: None };
            let mut world = Self {
                node: snapshot.node.name,
                taken_at: snapshot.taken_at,
                etcd,
                declaration: Vec::new(),
                health: Ok(Health {
                    members: members.iter().map(|m| (m.id.clone(), well.clone())).collect(),
                    ..Health::default()
                }),
                loaded: members.iter().map(|m| (m.id.clone(), true)).collect(),
                options: Options { authority, days: 365, two_members_stop: false },
            };
            world.declare();
            world
        }

        /// Returns the same without any certificate for peers.
        pub(crate) fn plaintext() -> Self {
            let mut world = Self::loaded();
            world.loaded.clear();
            for name in ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth"] {
                world.unset(name);
            }
            world.declare();
            world
        }

        /// Returns the same with TLS everywhere.
        pub(crate) fn encrypted() -> Self {
            let mut world = Self::loaded();
            world.listen("https");
            (0..3).for_each(|index| world.advertise(index, "https"));
            world.seen(&mut |etcd| {
                etcd.connections = Observed::seen(Vec::new(), Origin::derived("the fixture"));
            });
            world
        }

        pub(crate) fn seen(&mut self, change: &mut dyn FnMut(&mut Etcd)) {
            change(&mut self.etcd);
        }

        pub(crate) fn settings(&mut self) -> &mut BTreeMap<String, Setting> {
            match &mut self.etcd.settings {
                Observed::Seen { value, .. } => value,
                Observed::Failed { error } => panic!("{error}"),
            }
        }

        pub(crate) fn members(&mut self) -> &mut Vec<Member> {
            match &mut self.etcd.cluster {
                Observed::Seen { value, .. } => &mut value.members,
                Observed::Failed { error } => panic!("{error}"),
            }
        }

        fn unset(&mut self, name: &str) {
            let setting = self.settings().get_mut(name).unwrap();
            (setting.set, setting.on) = (false, None);
            setting.value.clear();
        }

        pub(crate) fn listen(&mut self, scheme: &str) {
            for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
                self.settings().get_mut(name).unwrap().value = format!("{scheme}://10.77.0.1:2380");
            }
            self.declare();
        }

        pub(crate) fn advertise(&mut self, index: usize, scheme: &str) {
            for url in &mut self.members()[index].peer_urls {
                *url = Url::parse(&format!("{scheme}://{}:2380", url.host)).unwrap();
            }
        }

        /// Writes the manifest that declares exactly the settings.
        pub(crate) fn declare(&mut self) {
            let mut text =
                "kind: Pod\nmetadata:\n  name: etcd\nspec:\n  containers:\n  - command:\n    - etcd\n"
                    .to_owned();
            for (name, setting) in self.settings() {
                if setting.set && !matches!(setting.origin, Origin::Default { .. }) {
                    text += &format!("    - --{name}={}\n", setting.value);
                }
            }
            text += "    name: etcd\n    volumeMounts:\n    - mountPath: /etc/kubernetes/pki/etcd\n      name: pki\n";
            text += "  volumes:\n  - hostPath:\n      path: /etc/kubernetes/pki/etcd\n    name: pki\n";
            self.declaration =
                vec![Declaration { path: MANIFEST.to_owned(), bytes: text.into_bytes(), unrestorable: None }];
        }

        pub(crate) fn situation(&self) -> Situation<'_> {
            Situation {
                node: &self.node,
                taken_at: self.taken_at,
                etcd: &self.etcd,
                declaration: &self.declaration,
                health: self.health.as_ref().map_err(String::as_str),
                loaded: &self.loaded,
                options: &self.options,
            }
        }

        #[track_caller]
        pub(crate) fn plan(&self) -> Plan {
            etcd_peer_tls(self.situation()).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seaworthy_evidence::{Connection, Observed};

    use super::fixture::{MANIFEST, World};
    use super::*;
    use crate::order::{self, Scheme, Turn};

    fn kinds(plan: &Plan) -> Vec<&'static str> {
        let kind = |action: &Action| match action {
            Action::CreateAuthority { .. } => "authority",
            Action::Edit { .. } => "edit",
            Action::Issue { .. } => "issue",
            Action::MoveLeader { .. } => "leader",
            Action::Restart { .. } => "restart",
            Action::UpdateMember { .. } => "update",
        };
        plan.steps.iter().map(|step| kind(&step.action)).collect()
    }

    fn changed_lines(plan: &Plan) -> Vec<String> {
        let diffs = plan.steps.iter().filter_map(|step| step.diff.as_ref());
        let lines = diffs.flat_map(|diff| diff.lines().skip(2));
        lines.filter(|l| l.starts_with(['+', '-'])).map(str::to_owned).collect()
    }

    #[track_caller]
    fn refused(world: &World) -> (Objection, String) {
        let refusals = etcd_peer_tls(world.situation()).expect_err("a refusal");
        (refusals[0].objection, format!("{} {}", refusals[0].what, refusals[0].why))
    }

    #[test]
    fn a_member_without_a_certificate_loads_one_and_stays_plaintext() {
        let mut world = World::plaintext();
        // Another certificate is in the folder already, and is not touched.
        world.loaded.insert(world.etcd.cluster.value().unwrap().members[0].id.clone(), false);
        let plan = world.plan();
        assert_eq!(
            (plan.stage, kinds(&plan), plan.restarts()),
            (Stage::Load, vec!["issue", "edit", "restart"], 1)
        );
        let pki = "/etc/kubernetes/pki/etcd";
        assert_eq!(
            changed_lines(&plan),
            [
                format!("+    - --peer-cert-file={pki}/seaworthy-peer.crt"),
                "+    - --peer-client-cert-auth=true".to_owned(),
                format!("+    - --peer-key-file={pki}/seaworthy-peer.key"),
                format!("+    - --peer-trusted-ca-file={pki}/ca.crt"),
            ]
        );
        let Action::Issue { hosts, certificate, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(
            (hosts.as_slice(), certificate.as_str()),
            (&["10.77.0.1".to_owned()][..], &*format!("{pki}/seaworthy-peer.crt"))
        );
        let waits: Vec<String> = plan.then_waits_for.iter().map(ToString::to_string).collect();
        assert_eq!(plan.waits_for, []);
        assert!(waits[1].starts_with("m3 must have loaded its certificate, and has not"), "{waits:?}");
        assert!(
            waits[0].starts_with("m2 must") && waits[0].ends_with("does not know whether it has"),
            "{waits:?}"
        );
    }

    #[test]
    fn a_member_with_a_certificate_waits_for_all_and_then_encrypts() {
        let mut world = World::loaded();
        let plan = world.plan();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Encrypt, vec!["update", "edit", "restart"]));
        assert_eq!(plan.waits_for, []);
        let lines = changed_lines(&plan);
        assert!(lines.contains(&"+    - --listen-peer-urls=https://10.77.0.1:2380".to_owned()), "{lines:?}");
        let initial =
            "--initial-cluster=m1=https://10.77.0.1:2380,m2=http://10.77.0.2:2380,m3=http://10.77.0.3:2380";
        assert!(lines.iter().any(|l| l.starts_with('+') && l.contains(initial)), "{lines:?}");
        let Action::UpdateMember { peer_urls, via, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(peer_urls, &["https://10.77.0.1:2380"]);
        assert_eq!(via, &["https://10.77.0.3:2379", "https://10.77.0.2:2379"]);

        world.loaded.clear();
        let waiting: Vec<String> = world.plan().waits_for.into_iter().map(|w| w.member).collect();
        assert_eq!(waiting, ["m2", "m3"]);
        // Whom peers dial with TLS has a certificate.
        world.advertise(0, "https");
        assert_eq!(world.plan().waits_for.len(), 1);
    }

    #[test]
    fn what_is_done_already_is_not_done_again() {
        let mut world = World::loaded();
        world.advertise(1, "https");
        assert_eq!(kinds(&world.plan()), ["edit", "restart"]);
        let mut world = World::loaded();
        world.listen("https");
        assert_eq!(kinds(&world.plan()), ["update"]);
    }

    #[test]
    fn a_leader_hands_over_first_to_a_member_that_is_done() {
        let mut world = World::loaded();
        world.advertise(2, "https");
        let members = world.members().clone();
        world.health.as_mut().unwrap().leader = Some(members[1].id.clone());
        let plan = world.plan();
        assert_eq!(kinds(&plan), ["leader", "update", "edit", "restart"]);
        let Action::MoveLeader { to } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(to, &[members[2].id.clone(), members[0].id.clone()]);
    }

    #[test]
    fn nothing_is_to_be_done_where_peers_talk_tls_or_are_not_there() {
        let mut alone = World::plaintext();
        alone.members().retain(|m| m.this);
        for world in [World::encrypted(), alone] {
            let plan = world.plan();
            assert_eq!((plan.stage, plan.steps, plan.then_waits_for), (Stage::Done, vec![], vec![]));
        }
        let mut first = World::encrypted();
        first.advertise(0, "http");
        assert_eq!(first.plan().then_waits_for.len(), 1);
    }

    #[test]
    fn connections_that_outlived_the_change_end_with_a_restart() {
        let mut world = World::encrypted();
        let connection = Connection {
            local: "10.77.0.1:2380".to_owned(),
            remote: "10.77.0.2:40000".to_owned(),
            direction: Direction::Inbound,
            member: None,
            transport: TransportSeen::Plaintext,
            observed: None,
            origin: Origin::derived("the fixture"),
        };
        world.etcd.connections = Observed::seen(vec![connection], Origin::derived("the fixture"));
        assert_eq!(kinds(&world.plan()), ["restart"]);
    }

    #[test]
    fn a_new_authority_outside_every_mount_is_made_and_mounted() {
        let mut world = World::plaintext();
        let [certificate, key] = ["crt", "key"].map(|end| format!("/etc/peer-ca/ca.{end}"));
        world.options.authority = Some(AuthorityFiles { certificate, pem: None, key });
        let plan = world.plan();
        assert_eq!(kinds(&plan), ["authority", "issue", "edit", "restart"]);
        let lines = changed_lines(&plan);
        assert!(lines.contains(&"+    - --peer-trusted-ca-file=/etc/peer-ca/ca.crt".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|l| l.contains("mountPath: /etc/peer-ca")), "{lines:?}");
    }

    #[test]
    fn each_source_is_edited_in_its_own_way() {
        let elsewhere = |world: &mut World, running: Origin, path: &str, kind, declared: &str, text: &str| {
            let Observed::Seen { value, .. } = &mut world.etcd.declared else { panic!() };
            value[0].kind = kind;
            value[0].path = declared.to_owned();
            let Observed::Seen { value: promised, .. } = &mut value[0].settings else { panic!() };
            promised.get_mut("listen-peer-urls").unwrap().origin = Origin::file(path);
            world.settings().get_mut("listen-peer-urls").unwrap().origin = running;
            world.declaration.insert(
                0,
                Declaration { path: path.to_owned(), bytes: text.as_bytes().to_vec(), unrestorable: None },
            );
        };
        let argv = Origin::Argv { pid: 33, index: 10 };
        let variable = Origin::Environment { pid: 33, name: "ETCD_LISTEN_PEER_URLS".to_owned() };
        let service = "/usr/lib/systemd/system/etcd.service";
        let (pod, unit) = (DeclaredKind::StaticPod, DeclaredKind::SystemdUnit);
        let cases = [
            (Origin::file("/c"), "/etc/etcd/c.yaml", pod, MANIFEST, "name: m1\n", "+  trusted-ca-file: "),
            (
                variable.clone(),
                "/etc/default/etcd",
                unit,
                service,
                "ETCD_NAME=m1\n",
                "+ETCD_PEER_TRUSTED_CA_FILE=",
            ),
            (
                argv,
                service,
                unit,
                service,
                "[Service]\nExecStart=/usr/bin/etcd --name=m1\n",
                "+    --peer-trusted-ca-file=",
            ),
        ];
        for (running, path, kind, declared, text, want) in cases {
            let mut world = World::plaintext();
            elsewhere(&mut world, running, path, kind, declared, text);
            assert_eq!(declared_in(&world.etcd).unwrap()[0], path);
            let plan = world.plan();
            let lines = changed_lines(&plan);
            assert!(lines.iter().any(|l| l.starts_with(want)), "{path}: {lines:#?}");
        }
        for (running, path, want) in [
            (variable, MANIFEST, "sets etcd's variables"),
            (Origin::file("/c"), "/var/lib/rancher/rke2/server/db/etcd/config", "written anew"),
        ] {
            let mut world = World::plaintext();
            elsewhere(&mut world, running, path, pod, MANIFEST, "");
            let (objection, said) = refused(&world);
            assert!(objection == Objection::Unsupported && said.contains(want), "{said}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_supported_is_refused_with_the_reason() {
        type Break = fn(&mut World);
        let cases: [(&str, Objection, Break); 7] = [
            ("no certificate authority", Objection::Authority, |w| w.options.authority = None),
            ("the live membership", Objection::Evidence, |w| {
                let Observed::Seen { value, .. } = &mut w.etcd.cluster else { panic!() };
                value.source = MemberSource::DataDirectory;
            }),
            ("which member", Objection::Evidence, |w| w.members().iter_mut().for_each(|m| m.this = false)),
            ("no static pod manifest and no systemd unit", Objection::Unsupported, |w| {
                w.etcd.declared = Observed::seen(Vec::new(), Origin::derived("the fixture"));
            }),
            ("self-made certificates", Objection::Unsupported, |w| {
                let Observed::Seen { value, .. } = &mut w.etcd.peer.auto_tls else { panic!() };
                value.in_effect = true;
            }),
            ("http and https peer URLs", Objection::Unsupported, |w| {
                let urls = "http://10.77.0.1:2380,https://10.77.0.1:2385";
                w.settings().get_mut("listen-peer-urls").unwrap().value = urls.to_owned();
            }),
            ("without a certificate of its own", Objection::Order, |w| w.advertise(1, "https")),
        ];
        for (words, objection, change) in cases {
            let mut world = World::plaintext();
            change(&mut world);
            let (found, said) = refused(&world);
            assert!(found == objection && said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn a_plan_is_bound_to_its_state() {
        let (before, mut after) = (World::loaded(), World::loaded());
        let state = before.plan().state;
        assert_eq!(state.differences(&after.plan().state), Vec::<String>::new());
        after.advertise(2, "https");
        after.declaration[0].bytes.extend(b"# a comment\n");
        let differences = state.differences(&after.plan().state).join("; ");
        assert!(
            differences.contains("peer URLs") && differences.contains("etcd.yaml has changed"),
            "{differences}"
        );
    }

    /// What another member really is, and what this node knows of it.
    #[derive(Clone, Debug)]
    struct Other {
        encrypted: bool,
        loaded: bool,
        known: bool,
    }

    fn world(own: (bool, bool, bool), others: &[Other]) -> World {
        let (has, advertises, listens) = own;
        let mut world = if has { World::loaded() } else { World::plaintext() };
        let template = world.members()[0].clone();
        world.members().retain(|m| m.this);
        world.loaded.clear();
        let scheme = |tls| if tls { "https" } else { "http" };
        world.advertise(0, scheme(advertises));
        world.listen(scheme(listens));
        for (index, other) in others.iter().enumerate() {
            let mut member = template.clone();
            (member.id, member.name) = (format!("{index:x}"), format!("n{index}"));
            world.members().push(member);
            world.advertise(index + 1, scheme(other.encrypted));
            if other.known {
                world.loaded.insert(format!("{index:x}"), other.loaded);
            }
        }
        world
    }

    /// Returns the cluster as it really is.
    fn truth(own: (bool, bool, bool), others: &[Other]) -> Vec<order::Member> {
        let scheme = |tls| if tls { Scheme::Https } else { Scheme::Http };
        let member = |name: String, has: bool, advertises, listens| order::Member {
            name,
            advertised: scheme(advertises),
            listens: BTreeSet::from([scheme(listens)]),
            leaf: has.then_some("CA"),
            trusts: has.then_some("CA").into_iter().collect(),
            demands: has,
        };
        let others = others.iter().enumerate().map(|(index, other)| {
            member(format!("n{index}"), other.loaded || other.encrypted, other.encrypted, other.encrypted)
        });
        [member("m1".to_owned(), own.0, own.1, own.2)].into_iter().chain(others).collect()
    }

    /// Returns what a plan really does.
    fn turn(plan: &Plan) -> Turn {
        let mut changes = Vec::new();
        for step in &plan.steps {
            match &step.action {
                Action::UpdateMember { .. } => changes.push(order::Change::Advertise(Scheme::Https)),
                Action::Restart { settings, .. } => {
                    let loads = settings.contains_key("peer-cert-file");
                    changes.push(order::Change::Restart {
                        listens: settings.get("listen-peer-urls").map(|_| BTreeSet::from([Scheme::Https])),
                        leaf: loads.then_some("CA"),
                        trusts: loads.then(|| BTreeSet::from(["CA"])),
                        demands: loads.then_some(true),
                    });
                }
                _ => {}
            }
        }
        Turn { member: 0, changes }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever the members are: a plan that waits for nobody parts no two of them, and where every member is
        /// somewhere on the way there is one.
        #[test]
        fn no_plan_parts_members(
            own in any::<(bool, bool, bool)>(),
            others in prop::collection::vec(
                any::<(bool, bool, bool)>().prop_map(|(encrypted, loaded, known)| Other { encrypted, loaded, known }),
                2..5,
            ),
        ) {
            let world = world(own, &others);
            let planned = etcd_peer_tls(world.situation());
            if let Ok(plan) = &planned && plan.waits_for.is_empty() && !plan.steps.is_empty() {
                prop_assert_eq!(order::check(&truth(own, &others), &[turn(plan)]), Ok(()));
            }
            let everybody_loaded = own.0 && others.iter().all(|o| o.loaded);
            let consistent = own.1 == own.2 && (own.0 || !own.1);
            let nobody_ahead = everybody_loaded || (!own.1 && others.iter().all(|o| !o.encrypted));
            if consistent && nobody_ahead {
                prop_assert!(planned.is_ok(), "{planned:?}");
            }
        }
    }
}
