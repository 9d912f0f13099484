//! Conditions: what must hold before a step, and what must hold after it. One type for both, evaluated totally: there is no
//! condition that nobody looks at, and none that holds because it could not be seen.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::subject::Subject;
use schemars::JsonSchema;
use seaworthy_edit::FileEdit;
use seaworthy_evidence::{
    ClientCertificate, Connection, Direction, Listener, Member, MemberSource, Origin, Purpose, Setting,
    TransportSeen, Wire,
};
use seaworthy_journal::files::Root;
use seaworthy_journal::record::Process;
use seaworthy_pki::certificates_from_pem;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::input::{Options, called, is_encrypted, this};
use crate::issue::{self, Authority};
use crate::material::{self, Pair};
use crate::order::Scheme;
use crate::plan::Attributes;
use crate::planner::is_known;
use crate::rollouts::etcd::peer_tls::known_to_have_loaded;
use crate::world::{Observation, World, process_of};

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Condition {
    /// Nothing is at this path.
    Absent {
        /// The path.
        path: String,
    },
    /// Another member leads.
    AnotherLeads {
        /// Id of the member that does not.
        member_id: String,
    },
    /// The file or directory, which is no symbolic link, has this owner and mode.
    Attributes {
        /// The path.
        path: String,
        /// Owner and mode.
        attributes: Attributes,
    },
    /// The files hold an authority that may issue certificates now, and its key.
    AuthoritySound {
        /// The certificate file.
        certificate: String,
        /// The key file.
        key: String,
    },
    /// Nothing is wrong with the certificate for its use: its key, chain, names, usages and dates.
    CertificateSound {
        /// The certificate file.
        certificate: String,
        /// The key file.
        key: String,
        /// The certificate file of the authority that issued it.
        ca_certificate: String,
        /// Host names and addresses that it must name.
        hosts: Vec<String>,
        /// What it is for.
        purpose: issue::Purpose,
    },
    /// The client port answers over mutual TLS, and refuses connections without a certificate.
    ClientMutualTls,
    /// The client port does not answer in plaintext.
    ClientPlaintextRefused,
    /// It listens where it is configured to, and answers there.
    Answers,
    /// The client port answers over TLS.
    ClientTls,
    /// All members are healthy and no alarm is raised.
    ClusterHealthy,
    /// The file is as the edit of this step makes it, which parses to the old value plus exactly the change.
    Edited {
        /// The file.
        path: String,
        /// SHA-256 of its content.
        sha256: String,
    },
    /// The file has this content.
    File {
        /// The file.
        path: String,
        /// SHA-256 of its content.
        sha256: String,
    },
    /// The files hold this certificate and this key.
    Holds {
        /// The certificate file.
        certificate: String,
        /// SHA-256 of the first certificate in it.
        fingerprint: String,
        /// The key file.
        key: String,
        /// SHA-256 of the public half of the key in it; null when that could not be told.
        spki: Option<String>,
    },
    /// Every two members have dialled each other, both ways.
    LinksFull,
    /// The file has the content that it had before a fix.
    Restored {
        /// The file.
        path: String,
        /// SHA-256 of its content.
        sha256: String,
    },
    /// No link of this member with one that is healthy is down or half-open.
    LinksWhole,
    /// Every member has loaded a certificate for its peers.
    LoadedEverywhere,
    /// The file has the values that an edit gives it, whatever else is in it.
    Made {
        /// The file.
        path: String,
        /// The edit.
        change: FileEdit,
    },
    /// The membership of every member, by its own knowledge, has these peer URLs for a member.
    MembershipShows {
        /// Id of the member.
        member_id: String,
        /// The URLs.
        urls: Vec<String>,
    },
    /// The peer port answers over mutual TLS, and refuses connections without a certificate.
    MutualTls,
    /// No plaintext connection with a peer is left.
    NoPlaintextConnection,
    /// The other members are a quorum while this one restarts, or this one is not well anyway.
    OthersAreQuorum,
    /// The peer ports of all other members speak TLS, and no plaintext.
    OthersSpeakTls,
    /// The cluster lists a member with these peer URLs.
    PeerUrls {
        /// Id of the member.
        member_id: String,
        /// The URLs.
        urls: Vec<String>,
    },
    /// The peer port does not answer in plaintext.
    PlaintextRefused,
    /// The request is signed by the key, and asks for what the step says.
    RequestSound {
        /// Common name of the subject.
        common_name: String,
        /// The request file.
        request: String,
        /// The key file.
        key: String,
    },
    /// The member runs, and its process is not the one from when the fix began.
    Restarted,
    /// The rule passes in an audit of this node.
    RulePasses {
        /// The rule.
        rule: String,
    },
    /// The peer port serves the certificate that is in the file.
    Serves {
        /// The file.
        certificate: String,
    },
    /// The client port serves the certificate that is in the file.
    ServesClients {
        /// The file.
        certificate: String,
    },
    /// The member runs with these settings; an empty value says that one is not set.
    SettingsEffective {
        /// The settings.
        settings: BTreeMap<String, String>,
    },
    /// The peer port names the authorities that are in the file, and no others, when it asks for a certificate.
    Trusts {
        /// The file.
        authorities: String,
    },
}

/// What has to be looked at to tell whether a condition holds, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    /// Files of this node.
    Files,
    /// The member's process.
    Process,
    /// The cluster.
    Cluster,
}

/// One observation of the world, made as far as it is needed. Every condition that is evaluated over it sees the same.
pub(crate) struct Look<'a> {
    world: &'a dyn World,
    /// The process when the fix began.
    began_with: Option<&'a Process>,
    /// Client URLs of other members, for when this one does not say where its cluster is.
    via: &'a [String],
    running: OnceCell<Result<Option<Arc<Subject>>, String>>,
    seen: OnceCell<Result<Observation, String>>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(world: &'a dyn World, began_with: Option<&'a Process>, via: &'a [String]) -> Self {
        Self { world, began_with, via, running: OnceCell::new(), seen: OnceCell::new() }
    }

    /// Returns the first of the conditions that does not hold, and why, in one sentence; nothing when all hold.
    pub(crate) fn unmet(&self, conditions: &[&Condition]) -> Result<(), String> {
        let mut ordered = conditions.to_vec();
        ordered.sort_by_key(|condition| condition.needs());
        let failed = |condition: &&Condition| {
            let why = self.check(condition).err()?;
            Some(match why.is_empty() {
                true => format!("it does not hold that {condition}"),
                false => format!("it does not hold that {condition}: {why}"),
            })
        };
        ordered.iter().find_map(failed).map_or(Ok(()), Err)
    }

    /// Returns the member and its cluster.
    pub(crate) fn seen(&self) -> Result<&Observation, String> {
        let seen = self.seen.get_or_init(|| self.world.observe().map_err(|error| error.to_string()));
        seen.as_ref().map_err(Clone::clone)
    }

    /// Takes what was observed out.
    pub(crate) fn into_seen(self) -> Result<Observation, String> {
        match self.seen.into_inner() {
            Some(seen) => seen,
            None => self.world.observe().map_err(|error| error.to_string()),
        }
    }

    fn running(&self) -> Result<Option<&Subject>, String> {
        let running = self.running.get_or_init(|| self.world.running().map_err(|error| error.to_string()));
        running.as_ref().map(Option::as_deref).map_err(Clone::clone)
    }

    /// Returns why `condition` does not hold.
    fn check(&self, condition: &Condition) -> Result<(), String> {
        let root = || Root::open(self.world.root()).map_err(|error| error.to_string());
        let holds = |does: bool, otherwise: &str| if does { Ok(()) } else { Err(otherwise.to_owned()) };
        match condition {
            Condition::Absent { path } => {
                let found = root()?.read(Path::new(path)).map_err(|error| error.to_string())?;
                holds(found.is_none(), "something is there")
            }
            Condition::AnotherLeads { member_id } => {
                let leader = self.seen()?.health.as_ref()?.leader.as_ref().ok_or("nobody leads")?;
                holds(leader != member_id, "it still leads")
            }
            Condition::Attributes { path, attributes } => {
                let (mode, uid, gid) =
                    root()?.attributes(Path::new(path)).map_err(|error| error.to_string())?;
                let now = Attributes { mode, uid, gid };
                holds(now == *attributes, &format!("it has {now}"))
            }
            Condition::AuthoritySound { certificate, key } => {
                let key = Zeroizing::new(read(&root()?, key)?);
                let authority = Authority::load(&read(&root()?, certificate)?, &key, self.world.now());
                authority.map(drop).map_err(|error| error.to_string())
            }
            Condition::CertificateSound { certificate, key, ca_certificate, hosts, purpose } => {
                let root = root()?;
                let pair = Pair::read(&root, certificate, key)?;
                let usage = match purpose {
                    issue::Purpose::Client | issue::Purpose::Peer => material::peer(hosts),
                    issue::Purpose::Server => material::server(hosts),
                };
                let trusted = read(&root, ca_certificate)?;
                pair.judge((ca_certificate, &trusted), &usage, self.world.now(), 0)
            }
            Condition::ClientMutualTls => mutual(self.seen()?, Purpose::Client),
            Condition::ClientPlaintextRefused => refuses_plaintext(self.seen()?, Purpose::Client),
            Condition::Answers => answers(self.seen()?),
            Condition::ClientTls => every(self.seen()?, Purpose::Client, |wire| {
                holds(*wire.tls.as_result().map_err(|error| error.to_string())?, "it does not")
            }),
            Condition::ClusterHealthy => healthy(self.seen()?),
            Condition::Edited { path, sha256 }
            | Condition::File { path, sha256 }
            | Condition::Restored { path, sha256 } => {
                let content = root()?.read(Path::new(path)).map_err(|error| error.to_string())?;
                let content = content.ok_or("it is not there")?;
                holds(content.sha256() == *sha256, "it is another file by now")
            }
            Condition::Holds { certificate, fingerprint, key, spki } => {
                let root = root()?;
                let leaf = certificates(&root, certificate)?.into_iter().next();
                let leaf = leaf.map(|parsed| parsed.certificate.fingerprint);
                holds(
                    leaf.as_ref() == Some(fingerprint),
                    &format!("{certificate} holds another certificate"),
                )?;
                let same = spki.is_none() || material::public_half(&root, key).ok() == *spki;
                holds(same, &format!("{key} holds another key"))
            }
            Condition::LinksFull => links(self.seen()?, |_| true),
            Condition::LinksWhole => {
                let seen = self.seen()?;
                links(seen, |member| seen.answers(member))
            }
            Condition::LoadedEverywhere => loaded_everywhere(self.seen()?),
            Condition::Made { path, change } => {
                let made = change.is_made(path, &read(&root()?, path)?, &is_known);
                holds(made.map_err(|error| error.to_string())?, "they are others by now")
            }
            Condition::MembershipShows { member_id, urls } => {
                for (endpoint, listed) in self.world.memberships(self.seen()?)? {
                    let told = listed.get(member_id).map(Vec::as_slice).unwrap_or_default();
                    holds(
                        sorted(told) == sorted(urls),
                        &format!("{endpoint} lists it with {}", told.join(", ")),
                    )?;
                }
                Ok(())
            }
            Condition::MutualTls => mutual(self.seen()?, Purpose::Peer),
            Condition::NoPlaintextConnection => no_plaintext(self.seen()?),
            // One that does not run costs nothing.
            Condition::OthersAreQuorum => match self.running()? {
                Some(_) => others_are_quorum(self.seen()?),
                None => Ok(()),
            },
            Condition::OthersSpeakTls => others_speak_tls_only(self.seen()?),
            Condition::PeerUrls { member_id, urls } => {
                let listed = self.world.membership(self.running().ok().flatten(), self.via)?;
                let told = listed.get(member_id).ok_or("it is no member")?;
                holds(sorted(told) == sorted(urls), &format!("they are told to dial {}", told.join(", ")))
            }
            Condition::PlaintextRefused => refuses_plaintext(self.seen()?, Purpose::Peer),
            Condition::RequestSound { common_name, request, key } => {
                let root = root()?;
                let name = issue::requester(&read(&root, request)?).map_err(|error| error.to_string())?;
                holds(name == *common_name, &format!("it is by {name}"))?;
                let asks_for =
                    issue::requested_key(&read(&root, request)?).map_err(|error| error.to_string())?;
                holds(asks_for == material::public_half(&root, key)?, &format!("{key} is another key"))
            }
            Condition::Restarted => {
                let now = self.running()?.ok_or("the member does not run")?;
                holds(
                    self.began_with.is_none_or(|former| !is_same(process_of(now).as_ref(), former)),
                    "the process is still the one from before",
                )
            }
            Condition::RulePasses { rule } => self.world.judge(rule, self.seen()?),
            Condition::Serves { certificate } => serves(&root()?, self.seen()?, Purpose::Peer, certificate),
            Condition::ServesClients { certificate } => {
                serves(&root()?, self.seen()?, Purpose::Client, certificate)
            }
            Condition::SettingsEffective { settings } => {
                effective(self.running()?.ok_or("the member does not run")?, settings)
            }
            Condition::Trusts { authorities } => {
                let wanted: BTreeSet<String> = certificates(&root()?, authorities)?
                    .into_iter()
                    .map(|parsed| parsed.certificate.subject)
                    .collect();
                every(self.seen()?, Purpose::Peer, |wire| {
                    let named: BTreeSet<String> = wire.acceptable_cas.iter().flatten().cloned().collect();
                    let told = named.iter().cloned().collect::<Vec<_>>().join(", ");
                    holds(named == wanted, &format!("it names {told}"))
                })
            }
        }
    }
}

/// Returns whether a process is the one that was written down. Where that was told by the clock, a second more or less counts
/// for nothing.
pub(crate) fn is_same(now: Option<&Process>, then: &Process) -> bool {
    match (now, then) {
        (Some(Process::Exact(now)), Process::Exact(then)) => now == then,
        (Some(Process::Exact(now)), Process::Dated { pid, .. }) => now.pid == *pid,
        (Some(now), then) => now == then,
        (None, _) => false,
    }
}

impl Condition {
    /// Returns what has to be looked at to tell whether it holds.
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Absent { .. }
            | Self::Attributes { .. }
            | Self::AuthoritySound { .. }
            | Self::CertificateSound { .. }
            | Self::Edited { .. }
            | Self::File { .. }
            | Self::Holds { .. }
            | Self::Made { .. }
            | Self::RequestSound { .. }
            | Self::Restored { .. } => Needs::Files,
            Self::Restarted | Self::SettingsEffective { .. } => Needs::Process,
            Self::AnotherLeads { .. }
            | Self::ClientMutualTls
            | Self::ClientPlaintextRefused
            | Self::Answers
            | Self::ClientTls
            | Self::ClusterHealthy
            | Self::LinksFull
            | Self::LinksWhole
            | Self::LoadedEverywhere
            | Self::MembershipShows { .. }
            | Self::MutualTls
            | Self::NoPlaintextConnection
            | Self::OthersAreQuorum
            | Self::OthersSpeakTls
            | Self::PeerUrls { .. }
            | Self::PlaintextRefused
            | Self::RulePasses { .. }
            | Self::Serves { .. }
            | Self::ServesClients { .. }
            | Self::Trusts { .. } => Needs::Cluster,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { path } => write!(f, "nothing is at {path}"),
            Self::AnotherLeads { .. } => f.write_str("another member leads"),
            Self::Attributes { path, attributes } => write!(f, "{path} has {attributes}"),
            Self::AuthoritySound { certificate, key } => {
                write!(f, "{certificate} and {key} hold an authority that may issue certificates")
            }
            Self::CertificateSound { certificate, .. } => {
                write!(f, "key, chain, names, usages and dates of {certificate} are right")
            }
            Self::ClientMutualTls => f.write_str(
                "the client port answers over mutual TLS, and refuses connections without a certificate",
            ),
            Self::ClientPlaintextRefused => f.write_str("the client port no longer answers in plaintext"),
            Self::Answers => f.write_str("it listens where it is configured to, and answers there"),
            Self::ClientTls => f.write_str("the client port answers over TLS"),
            Self::ClusterHealthy => f.write_str("all members are healthy, and no alarm is raised"),
            Self::Edited { path, .. } => {
                write!(f, "{path} parses to the old file plus this change")
            }
            Self::File { path, .. } => write!(f, "{path} is as it was when this plan was made"),
            Self::Holds { certificate, key, .. } => write!(
                f,
                "{certificate} and {key} hold the certificate and the key that this plan was made for"
            ),
            Self::LinksFull => f.write_str("all members are connected both ways"),
            Self::LinksWhole => f.write_str("no link with a healthy member is down or half-open"),
            Self::LoadedEverywhere => f.write_str("every member has loaded its certificate"),
            Self::Made { path, change } => {
                write!(f, "{path} has the values that were given to {}", change.settings().join(", "))
            }
            Self::MembershipShows { urls, .. } => write!(f, "every member lists it with {}", urls.join(", ")),
            Self::MutualTls => f.write_str(
                "the peer port answers over mutual TLS, and refuses connections without a certificate",
            ),
            Self::NoPlaintextConnection => f.write_str("no plaintext connection with a peer is left"),
            Self::OthersAreQuorum => f.write_str("the other members are a quorum while this one restarts"),
            Self::OthersSpeakTls => {
                f.write_str("the peer ports of the other members speak TLS, and no plaintext")
            }
            Self::PeerUrls { urls, .. } => write!(f, "its peers are told to dial {}", urls.join(", ")),
            Self::PlaintextRefused => f.write_str("the peer port no longer answers in plaintext"),
            Self::RequestSound { .. } => f.write_str("the request is signed by the key"),
            Self::Restarted => f.write_str("the process is a new one"),
            Self::Restored { path, .. } => write!(f, "{path} is as it was before the fix"),
            Self::RulePasses { rule } => write!(f, "{rule} passes in an audit"),
            Self::Serves { certificate } => {
                write!(f, "the peer port serves the certificate in {certificate}")
            }
            Self::ServesClients { certificate } => {
                write!(f, "the client port serves the certificate in {certificate}")
            }
            Self::SettingsEffective { .. } => f.write_str("the settings are in effect"),
            Self::Trusts { authorities } => write!(
                f,
                "the peer port demands a certificate of the authorities in {authorities}, and no others"
            ),
        }
    }
}

fn sorted(urls: &[String]) -> Vec<&str> {
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    urls
}

/// Returns why not all members are known to be healthy.
pub(crate) fn healthy(seen: &Observation) -> Result<(), String> {
    let health = seen.health.as_ref()?;
    if let Some(alarm) = health.alarms.first() {
        return Err(format!("an alarm is raised: {alarm}"));
    }
    for member in seen.members() {
        let trouble = match health.members.get(&member.id) {
            None => "it did not answer",
            Some(health) => match &health.trouble {
                Some(trouble) => trouble,
                None => continue,
            },
        };
        return Err(format!("{} is not healthy: {trouble}", called(member)));
    }
    Ok(())
}

/// Returns why the other members are not known to be a quorum while this one, which is well, restarts. A cluster of two stops
/// whatever is done.
fn others_are_quorum(seen: &Observation) -> Result<(), String> {
    let health = seen.health.as_ref()?;
    let voters: Vec<&Member> = seen.members().iter().filter(|m| !m.learner).collect();
    let well = |m: &&&Member| health.members.get(&m.id).is_some_and(|member| member.trouble.is_none());
    let others = voters.iter().filter(|m| !m.this).filter(well).count();
    let (quorum, is_well) = (voters.len() / 2 + 1, voters.iter().filter(|m| m.this).any(|m| well(&m)));
    match voters.len() > 2 && is_well && others < quorum {
        true => Err(format!("{others} of them are healthy, and {quorum} are needed")),
        false => Ok(()),
    }
}

/// Returns why a link with one of the members that `counts` is not known to be whole.
pub(crate) fn links(seen: &Observation, counts: impl Fn(&str) -> bool) -> Result<(), String> {
    let links = seen.subject.own.links.as_result().map_err(|error| error.to_string())?;
    for link in links.iter().filter(|link| counts(&link.member)) {
        let unknown = link.inbound.error().or(link.outbound.error());
        match unknown {
            _ if link.down => return Err(format!("there is no connection with {}", link.member)),
            _ if link.half_open => return Err(format!("the link with {} is half-open", link.member)),
            Some(error) => return Err(format!("the link with {}: {error}", link.member)),
            None => {}
        }
    }
    Ok(())
}

fn loaded_everywhere(seen: &Observation) -> Result<(), String> {
    let options = Options::default();
    let input = seen.input(&options);
    let unloaded = |m: &&Member| !m.this && !is_encrypted(m) && known_to_have_loaded(&input, m) != Some(true);
    match seen.members().iter().find(unloaded) {
        None => Ok(()),
        Some(member) => Err(format!("{} is not known to have", called(member))),
    }
}

/// Returns why the settings are not in effect. The order of URLs in a list does not matter.
fn effective(subject: &Subject, settings: &BTreeMap<String, String>) -> Result<(), String> {
    agree(subject.settings.as_result().map_err(|error| error.to_string())?, settings)
}

/// Returns which of the `wanted` values settings do not have; an empty one is not set.
pub(crate) fn agree(
    now: &BTreeMap<String, Setting>,
    wanted: &BTreeMap<String, String>,
) -> Result<(), String> {
    for (name, value) in wanted {
        let setting = now.get(name);
        let holds = match (value.is_empty(), setting) {
            (true, setting) => setting.is_none_or(|s| !s.set),
            (false, Some(setting)) => setting.value == *value,
            (false, None) => false,
        };
        if !holds {
            let has = setting.map(|s| s.value.as_str()).unwrap_or_default();
            return Err(format!("{name} is {has:?}, not {value:?}"));
        }
    }
    Ok(())
}

/// Checks what every listener for `purpose` said on the wire; that there is one, too.
fn every(
    seen: &Observation,
    purpose: Purpose,
    check: impl Fn(&Wire) -> Result<(), String>,
) -> Result<(), String> {
    let listeners = seen.subject.listeners_for(purpose).map_err(|error| error.to_string())?;
    // What a socket in the file system speaks does not cross a network.
    let meant: Vec<&Listener> = listeners.filter(|l| l.url.port.is_some()).collect();
    if meant.is_empty() {
        return Err("it does not listen".to_owned());
    }
    for listener in meant {
        let wire = listener.wire.as_ref().ok_or("it was not asked")?;
        let wire = wire.as_result().map_err(|error| error.to_string())?;
        check(wire).map_err(|why| format!("{}: {why}", wire.address))?;
    }
    Ok(())
}

/// Returns where it does not answer, though it is configured to listen there.
fn answers(seen: &Observation) -> Result<(), String> {
    let listeners = seen.subject.listeners.as_result().map_err(|error| error.to_string())?;
    for listener in listeners.iter().filter(|listener| listener.configured) {
        let url = &listener.url.text;
        let wire = match (&listener.address, &listener.wire) {
            (None, _) => return Err(format!("it does not listen on {url}")),
            (Some(_), None) => continue,
            (Some(_), Some(wire)) => wire.as_result().map_err(|error| format!("{url}: {error}"))?,
        };
        match (wire.tls.as_result(), wire.plaintext.as_result()) {
            (Ok(true), _) | (_, Ok(true)) => {}
            (Err(error), _) | (_, Err(error)) => return Err(format!("{url}: {error}")),
            (Ok(false), Ok(false)) => return Err(format!("nothing that is known answers on {url}")),
        }
    }
    Ok(())
}

fn refuses_plaintext(seen: &Observation, purpose: Purpose) -> Result<(), String> {
    every(seen, purpose, |wire| match wire.plaintext.as_result() {
        Ok(true) => Err(format!("it answers in plaintext: {}", wire.spoke)),
        Ok(false) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
}

/// Returns why a port does not speak mutual TLS. That it accepts connections with a certificate shows in the member list, which
/// this node asked for there.
fn mutual(seen: &Observation, purpose: Purpose) -> Result<(), String> {
    every(seen, purpose, |wire| match (wire.tls.as_result(), wire.client_certificate) {
        (Ok(true), Some(ClientCertificate::Required)) => Ok(()),
        (Ok(true), _) => Err("it does not demand a certificate".to_owned()),
        (Ok(false), _) => Err("it does not speak TLS".to_owned()),
        (Err(error), _) => Err(error.to_string()),
    })?;
    let cluster = seen.subject.own.cluster.as_result().map_err(|error| error.to_string())?;
    match cluster.source {
        MemberSource::Live => Ok(()),
        _ => Err(format!("it does not answer the member's own certificate; {}", cluster.established)),
    }
}

fn serves(root: &Root, seen: &Observation, purpose: Purpose, certificate: &str) -> Result<(), String> {
    let wanted = certificates(root, certificate)?.into_iter().next().map(|leaf| leaf.certificate.fingerprint);
    every(seen, purpose, |wire| {
        let served = wire.chain.first().map(|leaf| leaf.fingerprint.clone());
        if served == wanted { Ok(()) } else { Err("it serves another".to_owned()) }
    })
}

/// Returns which connection with a peer is plaintext though the one that was dialled speaks TLS.
fn no_plaintext(seen: &Observation) -> Result<(), String> {
    let connections = seen.subject.own.connections.as_result().map_err(|error| error.to_string())?;
    let me = this(&seen.subject).is_some_and(is_encrypted);
    let dialled_tls = |connection: &Connection| match connection.direction {
        Direction::Inbound => me,
        Direction::Outbound => {
            let dialled = |m: &Member| connection.member.as_deref() == Some(called(m));
            seen.members().iter().any(|m| dialled(m) && is_encrypted(m))
        }
    };
    let plaintext = |c: &&Connection| c.transport == TransportSeen::Plaintext && dialled_tls(c);
    match connections.iter().find(plaintext) {
        None => Ok(()),
        Some(connection) => Err(format!("{} with {} is one", connection.local, connection.remote)),
    }
}

fn others_speak_tls_only(seen: &Observation) -> Result<(), String> {
    for member in seen.members().iter().filter(|m| !m.this) {
        match seen.listens.get(&member.id) {
            Some(schemes) if *schemes == BTreeSet::from([Scheme::Https]) => {}
            Some(schemes) if schemes.contains(&Scheme::Http) => {
                return Err(format!("{} answers its peers in plaintext", called(member)));
            }
            _ => return Err(format!("the peer port of {} does not answer", called(member))),
        }
    }
    Ok(())
}

fn read(root: &Root, path: &str) -> Result<Vec<u8>, String> {
    let content = root.read(Path::new(path)).map_err(|error| error.to_string())?;
    Ok(content.ok_or_else(|| format!("{path} is not there"))?.bytes)
}

fn certificates(root: &Root, path: &str) -> Result<Vec<seaworthy_pki::Parsed>, String> {
    certificates_from_pem(&read(root, path)?, Origin::file(path), jiff::Timestamp::UNIX_EPOCH)
        .map_err(|error| error.to_string())
}
