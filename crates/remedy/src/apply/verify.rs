//! Whether what must hold holds: before a step, after it, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use seaworthy_catalogue::Status;
use seaworthy_evidence::{
    ClientCertificate, Connection, Direction, Etcd, Listener, Member, MemberSource, Origin, Purpose,
    TransportSeen, Wire,
};
use seaworthy_pki::certificates_from_pem;
use zeroize::Zeroizing;

use super::{Fix, POLL, Stop, process};
use crate::node::Observation;
use crate::order::Scheme;
use crate::plan::{Action, Plan, Precondition, Stage, Step, Verification};
use crate::planner::peer_tls::{self, known_to_have_loaded};
use crate::planner::{called, is_encrypted, this};
use crate::way_back::Facts;
use seaworthy_journal::files::Root;

/// How long something that must hold before a step may take to hold.
const BEFORE: Duration = Duration::from_secs(15);
/// How long something that does not need a restart may take to be seen.
const SEEN: Duration = Duration::from_secs(30);
/// How often the process is looked at while it restarts.
const GLANCE: Duration = Duration::from_millis(50);

impl Fix<'_> {
    /// Makes sure that `preconditions` hold.
    pub(super) fn holds(&self, root: &Root, preconditions: &[Precondition]) -> Result<(), Stop> {
        for precondition in preconditions {
            let found = match precondition {
                Precondition::Absent { path } => root.read(Path::new(path))?.is_none(),
                Precondition::Attributes { path, mode, uid, gid } => has(root, path, (*mode, *uid, *gid))?,
                Precondition::Holds { certificate, fingerprint, key, spki } => {
                    let leaf = certificates(root, certificate).map_err(Stop)?.into_iter().next();
                    let leaf = leaf.map(|parsed| parsed.certificate.fingerprint);
                    leaf.as_ref() == Some(fingerprint)
                        && (spki.is_none() || public_half(root, key).ok() == *spki)
                }
                Precondition::File { path, sha256 } => {
                    root.read(Path::new(path))?.is_some_and(|content| content.sha256() == *sha256)
                }
                _ => continue,
            };
            if !found {
                return Err(Stop(format!("before this step it does not hold that {precondition}")));
            }
        }
        let of_cluster: Vec<_> = preconditions
            .iter()
            .filter(|p| {
                matches!(
                    p,
                    Precondition::ClusterHealthy
                        | Precondition::LinksFull
                        | Precondition::LoadedEverywhere
                        | Precondition::PeerUrls { .. }
                )
            })
            .collect();
        if of_cluster.is_empty() {
            return Ok(());
        }
        self.until(BEFORE, |seen| {
            let failed = of_cluster.iter().find_map(|precondition| {
                let holds = match precondition {
                    Precondition::ClusterHealthy => healthy(seen),
                    Precondition::LinksFull => links(seen),
                    Precondition::LoadedEverywhere => loaded_everywhere(seen),
                    Precondition::PeerUrls { member_id, urls } => lists(seen, member_id, urls),
                    _ => Ok(()),
                };
                holds.err().map(|why| format!("before this step it does not hold that {precondition}: {why}"))
            });
            failed.map_or(Ok(()), Err)
        })
        .map(drop)
    }

    /// Makes sure that a step has had its effect.
    pub(super) fn verify(&self, root: &Root, plan: &Plan, step: &Step, facts: &Facts) -> Result<(), Stop> {
        if let Action::Restart { settings, .. } = &step.action {
            self.restarted(plan, settings, facts)?;
        }
        for verification in &step.verify {
            self.local(root, step, verification)?;
        }
        let of_cluster: Vec<_> = step.verify.iter().filter(|v| !is_local(v)).collect();
        if of_cluster.is_empty() {
            return Ok(());
        }
        let limit = if step.restarts { self.settle } else { SEEN };
        self.until(limit, |seen| {
            let failed = of_cluster.iter().find_map(|verification| {
                let why = self.seen(root, plan, step, verification, seen).err()?;
                Some(format!("it could not be verified that {verification}: {why}"))
            });
            failed.map_or(Ok(()), Err)
        })
        .map(drop)
    }

    /// Returns what was verified of the whole cluster, once every member is where the fix leads.
    pub(super) fn proven(&self) -> Result<Vec<String>, Stop> {
        let mut verified = vec![format!("{} passes in an audit of this node", self.rule)];
        let seen = self.until(self.settle, |seen| {
            self.passes(self.rule, seen)?;
            if self.rule == peer_tls::RULE && members(seen).len() > 1 {
                healthy(seen)?;
                links(seen)?;
                no_plaintext(seen)?;
                others_speak_tls_only(seen)?;
            }
            Ok(())
        })?;
        let count = members(&seen).len();
        if self.rule == peer_tls::RULE && count > 1 {
            verified.push(format!("the peer ports of all {count} members speak TLS, and no plaintext"));
            verified.push("no plaintext connection with a peer is left".to_owned());
            verified.push("all members are healthy, and connected both ways".to_owned());
            let revision = self.same_data(&seen)?;
            verified.push(format!("all members have the same data at revision {revision}"));
        }
        Ok(verified)
    }

    /// Returns what is not well with the cluster once a fix was taken back, after a while.
    pub(super) fn trouble(&self, plan: &Plan) -> Option<String> {
        if plan.state.peer_urls.len() < 2 || plan.restarts() == 0 {
            return None;
        }
        let well = |seen: &Observation| healthy(seen).and_then(|()| links(seen));
        self.until(self.settle.min(SEEN), well).err().map(|Stop(why)| why)
    }

    /// Observes until `check` is content, or says why it is not in the end.
    fn until(
        &self,
        limit: Duration,
        check: impl Fn(&Observation) -> Result<(), String>,
    ) -> Result<Observation, Stop> {
        let deadline = Instant::now() + limit;
        loop {
            let why = match self.observe() {
                Ok(seen) => match check(&seen) {
                    Ok(()) => return Ok(seen),
                    Err(why) => why,
                },
                Err(Stop(why)) => why,
            };
            if Instant::now() > deadline {
                return Err(Stop(format!("{why} (after {} s)", limit.as_secs())));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the process that the step leads to.
    fn restarted(&self, plan: &Plan, settings: &BTreeMap<String, String>, facts: &Facts) -> Result<(), Stop> {
        let deadline = Instant::now() + self.settle;
        loop {
            let now = self.node.glance()?;
            let new = now.as_ref().and_then(process) != facts.process || plan.stage == Stage::Return;
            let why = match now {
                None => "the member does not run".to_owned(),
                Some(_) if !new => "the process is still the one from before".to_owned(),
                Some(etcd) => match effective(&etcd, settings) {
                    Ok(()) => return Ok(()),
                    Err(why) => why,
                },
            };
            if Instant::now() > deadline {
                let seconds = self.settle.as_secs();
                return Err(Stop(format!(
                    "the member did not restart as it should within {seconds} s: {why}"
                )));
            }
            thread::sleep(GLANCE);
        }
    }

    /// Verifies what concerns the files of this node alone.
    fn local(&self, root: &Root, step: &Step, verification: &Verification) -> Result<(), Stop> {
        let failed = |why: &str| Err(Stop(format!("it could not be verified that {verification}: {why}")));
        match (verification, &step.action) {
            (Verification::ExactlyThisChange, Action::Edit { path, after, .. }) => {
                match root.read(Path::new(path))? {
                    Some(content) if content.sha256() == *after => Ok(()),
                    _ => failed(&format!("{path} is another file by now")),
                }
            }
            (Verification::CertificateSound, Action::Issue { certificate, key, .. })
            | (Verification::CertificateSound, Action::CreateAuthority { certificate, key }) => {
                match fingerprints(root, certificate, Some(key)) {
                    Ok(_) => Ok(()),
                    Err(why) => failed(&why),
                }
            }
            (Verification::RequestSound, Action::Request { common_name, request, key, .. }) => {
                let content = root.read(Path::new(request))?.map(|content| content.bytes).unwrap_or_default();
                match (crate::issue::requester(&content), public_half(root, key)) {
                    (Ok(name), Ok(_)) if name == *common_name => Ok(()),
                    (Ok(name), Ok(_)) => failed(&format!("it is by {name}")),
                    (Err(error), _) => failed(&error.to_string()),
                    (_, Err(why)) => failed(&why),
                }
            }
            (Verification::Attributes, Action::SetAttributes { path, mode, uid, gid }) => {
                match has(root, path, (*mode, *uid, *gid))? {
                    true => Ok(()),
                    false => failed(&format!("{path} has others")),
                }
            }
            _ => Ok(()),
        }
    }

    /// Returns why something is not seen to be so.
    fn seen(
        &self,
        root: &Root,
        plan: &Plan,
        step: &Step,
        verification: &Verification,
        seen: &Observation,
    ) -> Result<(), String> {
        match verification {
            Verification::ClusterHealthy => healthy(seen),
            Verification::LinksFull { .. } => links(seen),
            Verification::Followed => {
                let leader = seen.health.as_ref()?.leader.as_ref().ok_or("nobody leads")?;
                (*leader != plan.state.member_id).then_some(()).ok_or_else(|| "it still leads".to_owned())
            }
            Verification::MembershipShows { urls } => self.membership_shows(plan, urls, seen),
            Verification::MutualTls => mutual(seen, Purpose::Peer),
            Verification::PlaintextRefused => refuses_plaintext(seen, Purpose::Peer),
            Verification::NoPlaintextConnection => no_plaintext(seen),
            Verification::SettingsEffective => match &step.action {
                Action::Restart { settings, .. } => effective(&seen.etcd, settings),
                _ => Ok(()),
            },
            Verification::ClientMutualTls => mutual(seen, Purpose::Client),
            Verification::ClientPlaintextRefused => refuses_plaintext(seen, Purpose::Client),
            Verification::ClientTls => every(seen, Purpose::Client, |wire| {
                wire.tls.then_some(()).ok_or_else(|| "it does not".to_owned())
            }),
            Verification::RulePasses => self.passes(&plan.rule, seen),
            Verification::Serves { certificate } | Verification::ServesClients { certificate } => {
                let wanted = fingerprints(root, certificate, None)?;
                let purpose = match verification {
                    Verification::Serves { .. } => Purpose::Peer,
                    _ => Purpose::Client,
                };
                every(seen, purpose, |wire| {
                    let served = wire.chain.first().map(|leaf| leaf.fingerprint.clone());
                    (served == wanted.first().cloned())
                        .then_some(())
                        .ok_or_else(|| "it serves another".to_owned())
                })
            }
            Verification::Trusts { authorities } => {
                let wanted = subjects(root, authorities)?;
                every(seen, Purpose::Peer, |wire| {
                    let named: BTreeSet<String> = wire.acceptable_cas.iter().flatten().cloned().collect();
                    let told =
                        || format!("it names {}", named.iter().cloned().collect::<Vec<_>>().join(", "));
                    (named == wanted).then_some(()).ok_or_else(told)
                })
            }
            Verification::Attributes
            | Verification::CertificateSound
            | Verification::ExactlyThisChange
            | Verification::RequestSound
            | Verification::Restarted => Ok(()),
        }
    }

    /// Returns why the rule does not pass in an audit.
    fn passes(&self, rule: &str, seen: &Observation) -> Result<(), String> {
        let options = seaworthy_audit::Options { rules: vec![rule.to_owned()], ..Default::default() };
        let report = seaworthy_audit::audit(self.catalogue, &seen.snapshot, &options);
        let findings: Vec<_> = report.findings.iter().filter(|f| f.resource == seen.etcd.id).collect();
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

    /// Returns why not every member lists this one with these URLs, each by its own knowledge.
    fn membership_shows(&self, plan: &Plan, urls: &[String], seen: &Observation) -> Result<(), String> {
        let client = self.node.client(&seen.etcd)?;
        let id = u64::from_str_radix(&plan.state.member_id, 16).map_err(|error| error.to_string())?;
        // On the way back a member that cannot be reached must not keep the others from it: what a quorum knows will do.
        let asked = if plan.stage == Stage::Return { 1 } else { usize::MAX };
        for endpoint in client.endpoints().iter().take(asked) {
            let members = match plan.stage {
                Stage::Return => client.members(),
                _ => client.members_known_at(endpoint),
            };
            let members = members.map_err(|error| error.to_string())?;
            let listed = members.iter().find(|m| m.id == id).map(|m| m.peer_urls.clone()).unwrap_or_default();
            if sorted(&listed) != sorted(urls) {
                return Err(format!("{endpoint} lists it with {}", listed.join(", ")));
            }
        }
        Ok(())
    }

    /// Returns the revision at which all members were seen to have the same data.
    fn same_data(&self, seen: &Observation) -> Result<i64, Stop> {
        let client = self.node.client(&seen.etcd).map_err(Stop)?;
        let deadline = Instant::now() + SEEN;
        loop {
            let compare = || -> Result<i64, Stop> {
                let mut first: Option<(i64, (u32, i64))> = None;
                for member in members(seen) {
                    let endpoint = member.client_urls.iter().find_map(|url| url.text.parse().ok());
                    let endpoint =
                        endpoint.ok_or_else(|| Stop(format!("{} has no client URL", called(member))))?;
                    let revision = match &first {
                        None => client.revision(&endpoint)?,
                        Some((revision, ..)) => *revision,
                    };
                    let hash = client.hash_kv(&endpoint, revision)?;
                    let key = (hash.hash, hash.compact_revision);
                    match &first {
                        None => first = Some((revision, key)),
                        Some((_, other)) if *other == key => {}
                        Some(_) => {
                            return Err(Stop(format!(
                                "{} has other data at revision {revision}",
                                called(member)
                            )));
                        }
                    }
                }
                Ok(first.map_or(0, |(revision, _)| revision))
            };
            match compare() {
                Ok(revision) => return Ok(revision),
                Err(_) if Instant::now() < deadline => thread::sleep(POLL),
                Err(stop) => return Err(stop),
            }
        }
    }
}

fn is_local(verification: &Verification) -> bool {
    matches!(
        verification,
        Verification::Attributes
            | Verification::CertificateSound
            | Verification::ExactlyThisChange
            | Verification::RequestSound
            | Verification::Restarted
    )
}

fn members(seen: &Observation) -> &[Member] {
    seen.etcd.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default()
}

fn sorted(urls: &[String]) -> Vec<&str> {
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    urls
}

fn healthy(seen: &Observation) -> Result<(), String> {
    let health = seen.health.as_ref()?;
    if let Some(alarm) = health.alarms.first() {
        return Err(format!("an alarm is raised: {alarm}"));
    }
    for member in members(seen) {
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

fn links(seen: &Observation) -> Result<(), String> {
    let links = seen.etcd.links.as_result().map_err(|error| error.to_string())?;
    for link in links {
        let untold = link.inbound.error().or(link.outbound.error());
        match untold {
            _ if link.down => return Err(format!("there is no connection with {}", link.member)),
            _ if link.half_open => return Err(format!("the link with {} is half-open", link.member)),
            Some(error) => return Err(format!("the link with {}: {error}", link.member)),
            None => {}
        }
    }
    Ok(())
}

fn loaded_everywhere(seen: &Observation) -> Result<(), String> {
    let options = crate::planner::Options::default();
    let situation = seen.situation(&options);
    let unloaded =
        |m: &&Member| !m.this && !is_encrypted(m) && known_to_have_loaded(&situation, m) != Some(true);
    match members(seen).iter().find(unloaded) {
        None => Ok(()),
        Some(member) => Err(format!("{} is not known to have", called(member))),
    }
}

fn lists(seen: &Observation, member_id: &str, urls: &[String]) -> Result<(), String> {
    let member = members(seen).iter().find(|m| m.id == member_id).ok_or("it is no member")?;
    let listed: Vec<String> = member.peer_urls.iter().map(|url| url.text.clone()).collect();
    match sorted(&listed) == sorted(urls) {
        true => Ok(()),
        false => Err(format!("they are told to dial {}", listed.join(", "))),
    }
}

/// Returns why the settings are not in effect. The order of URLs in a list does not matter.
fn effective(etcd: &Etcd, settings: &BTreeMap<String, String>) -> Result<(), String> {
    let now = etcd.settings.as_result().map_err(|error| error.to_string())?;
    for (name, value) in settings {
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
    let side = match purpose {
        Purpose::Peer => &seen.etcd.peer,
        Purpose::Client | Purpose::Metrics => &seen.etcd.client,
    };
    let listeners = side.listeners.as_result().map_err(|error| error.to_string())?;
    // What a socket in the file system speaks does not cross a network.
    let meant: Vec<&Listener> =
        listeners.iter().filter(|l| l.purpose == purpose && l.url.port.is_some()).collect();
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

fn refuses_plaintext(seen: &Observation, purpose: Purpose) -> Result<(), String> {
    every(seen, purpose, |wire| match wire.plaintext {
        true => Err(format!("it answers in plaintext: {}", wire.spoke)),
        false => Ok(()),
    })
}

/// Returns why a port does not speak mutual TLS. That it accepts who has a certificate shows in the member list, which this
/// node asked for there.
fn mutual(seen: &Observation, purpose: Purpose) -> Result<(), String> {
    every(seen, purpose, |wire| match (wire.tls, wire.client_certificate) {
        (true, Some(ClientCertificate::Required)) => Ok(()),
        (true, _) => Err("it does not demand a certificate".to_owned()),
        (false, _) => Err("it does not speak TLS".to_owned()),
    })?;
    let cluster = seen.etcd.cluster.as_result().map_err(|error| error.to_string())?;
    match cluster.source {
        MemberSource::Live => Ok(()),
        _ => Err(format!("it does not answer the member's own certificate; {}", cluster.established)),
    }
}

/// Returns which connection with a peer is plaintext though the one that was dialled speaks TLS.
fn no_plaintext(seen: &Observation) -> Result<(), String> {
    let connections = seen.etcd.connections.as_result().map_err(|error| error.to_string())?;
    let me = this(&seen.etcd).is_some_and(is_encrypted);
    let dialled_tls = |connection: &Connection| match connection.direction {
        Direction::Inbound => me,
        Direction::Outbound => {
            members(seen).iter().any(|m| connection.member.as_deref() == Some(called(m)) && is_encrypted(m))
        }
    };
    let plaintext = |c: &&Connection| c.transport == TransportSeen::Plaintext && dialled_tls(c);
    match connections.iter().find(plaintext) {
        None => Ok(()),
        Some(connection) => Err(format!("{} with {} is one", connection.local, connection.remote)),
    }
}

fn others_speak_tls_only(seen: &Observation) -> Result<(), String> {
    for member in members(seen).iter().filter(|m| !m.this) {
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

/// Returns whether a file or directory has this mode and owner.
fn has(root: &Root, path: &str, wanted: (u32, u32, u32)) -> Result<bool, Stop> {
    Ok(root.attributes(Path::new(path))? == wanted)
}

/// Returns the fingerprints of the certificates in a file; with the path of a key, that it is the first one's is verified.
fn fingerprints(root: &Root, path: &str, key: Option<&String>) -> Result<Vec<String>, String> {
    let found = certificates(root, path)?;
    if let Some(key) = key {
        let spki = public_half(root, key)?;
        if found.first().is_none_or(|leaf| leaf.certificate.key.spki != spki) {
            return Err(format!("{key} is not the key of {path}"));
        }
    }
    Ok(found.into_iter().map(|parsed| parsed.certificate.fingerprint).collect())
}

/// Returns the SHA-256 of the public half of a private key.
fn public_half(root: &Root, key: &str) -> Result<String, String> {
    let content = root.read(Path::new(key)).map_err(|error| error.to_string())?;
    let bytes = Zeroizing::new(content.ok_or_else(|| format!("{key} is not there"))?.bytes);
    let facts = seaworthy_pki::private_key_from_pem(&bytes, key).map_err(|error| error.to_string())?;
    Ok(facts.key.spki)
}

fn subjects(root: &Root, path: &str) -> Result<BTreeSet<String>, String> {
    Ok(certificates(root, path)?.into_iter().map(|parsed| parsed.certificate.subject).collect())
}

fn certificates(root: &Root, path: &str) -> Result<Vec<seaworthy_pki::Parsed>, String> {
    let content = root
        .read(Path::new(path))
        .map_err(|e| e.to_string())?
        .ok_or_else(|| format!("{path} is not there"))?;
    certificates_from_pem(&content.bytes, Origin::file(path), jiff::Timestamp::now())
        .map_err(|error| error.to_string())
}
