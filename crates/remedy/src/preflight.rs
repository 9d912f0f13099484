//! What a plan must not do, wherever it comes from: cost the quorum, isolate a member, change what cannot be put back.
//!
//! Each refusal says what would come of it, as experiments on real clusters showed.

use std::collections::BTreeSet;

use crate::subject::Subject;
use seaworthy_components::etcd::Version;
use seaworthy_evidence::{Declared, Drift, Link, Member, Origin, PredictedFailure, Setting};
use seaworthy_pki::certificates_from_pem;

use crate::input::Lacking;
use crate::order::{self, Turn};
use crate::plan::{Action, Plan, Refusal, RefusalKind, Stage, Step};
use crate::planner::{Input, MARGIN_DAYS, called, edited, is_encrypted, refuse, state, this};
use crate::progress::record_for;
use crate::rollouts::etcd::peer_tls;
use crate::rollouts::{self, check, etcd::trust};
use seaworthy_edit::{ArgumentEdit, FileEdit, manifest};

/// Seconds by which clocks may differ: well within what certificates are backdated by.
const CLOCK_SECONDS: i64 = 60;
/// Release lines of etcd whose behaviour was tried.
const TRIED: std::ops::RangeInclusive<u32> = 4..=6;

/// Returns everything that is against carrying `plan` out in this `input`; nothing for a plan without steps.
pub fn preflight(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    if plan.steps.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    found.extend(changed(plan, input));
    if plan.disturbs() && input.subject.is_member() {
        found.extend(versions(input));
        found.extend(clocks(input));
        found.extend(health(plan, input));
        found.extend(links(plan, input));
        found.extend(size(plan, input));
    }
    if input.subject.is_member() {
        found.extend(rollouts::etcd::order(plan, input));
        found.extend(authorities(plan, input));
        found.extend(environment(plan, input));
        found.extend(authority(plan, input));
        found.extend(certificates(plan, input.subject));
        found.extend(rejoining(plan, input.subject));
        found.extend(trust::certificates(plan, input));
    }
    if plan.disturbs() || touches_manifest(plan, input.subject) {
        found.extend(rivals(input.subject));
    }
    found.extend(loosened(plan));
    found.extend(starting(plan, input.subject));
    found.extend(declared_otherwise(plan, input.subject));
    found.extend(edits(plan, input));
    found
}

/// Returns the settings with which the plan lets an instance restart.
fn given(plan: &Plan) -> BTreeSet<&str> {
    let restarts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Restart { settings, .. } => Some(settings.keys().map(String::as_str)),
        _ => None,
    });
    restarts.flatten().collect()
}

/// Refuses to restart a member with settings for its peers that are not those that it runs with, as which it was judged: a
/// certificate that it has loaded may not be declared any more. What the plan itself sets is none of it.
fn declared_otherwise(plan: &Plan, subject: &Subject) -> Vec<Refusal> {
    if plan.restarts() == 0 || !subject.is_member() {
        return Vec::new();
    }
    let given = given(plan);
    let settings = subject.settings.value();
    let drift = subject.drift.value().into_iter().flatten().filter(|drift| {
        let name = drift.subject.as_str();
        name.contains("peer") && !given.contains(name) && settings.is_some_and(|all| all.contains_key(name))
    });
    let refusal = |drift: &Drift| {
        refuse(
            RefusalKind::Evidence,
            drift.message.clone(),
            "what its peers could do after the restart was judged by what it runs with",
            "let kubelet or systemd restart it as it is declared, or put what declares it right, and plan again",
        )
    };
    drift.map(refusal).collect()
}

/// Refuses to restart an instance that would exit at once: somebody has changed what declares it since it was started. What the
/// plan itself changes is none of it.
pub(crate) fn starting(plan: &Plan, subject: &Subject) -> Vec<Refusal> {
    let changed = given(plan);
    let declared =
        subject.declared.value().and_then(|declared| declared.first()).filter(|_| plan.restarts() > 0);
    let refusal = |declared: &Declared| -> Vec<Refusal> {
        let fatal = declared.fatal.value().into_iter().flatten();
        let others = fatal.filter(|fault| !changed.contains(fault.setting.as_str()));
        let fault = |fault: &PredictedFailure| {
            refuse(
                RefusalKind::Unsupported,
                format!(
                    "{} would not start from {}: {}: {}",
                    subject.component, declared.path, fault.setting, fault.message
                ),
                "it restarts, and would stay away",
                "put it right, and run the same command again",
            )
        };
        others.map(fault).collect()
    };
    declared.map(refusal).unwrap_or_default()
}

/// Returns whether kubelet would read the manifest anew: it does when owner or mode change.
fn touches_manifest(plan: &Plan, subject: &Subject) -> bool {
    let manifest = subject.files.manifest.as_ref().and_then(|file| file.value());
    plan.steps.iter().any(|step| match &step.action {
        Action::SetAttributes { path, .. } => manifest.is_some_and(|manifest| manifest.path == *path),
        _ => false,
    })
}

/// Objects to modes that allow more than before.
fn loosened(plan: &Plan) -> Vec<Refusal> {
    let more = |step: &Step| {
        let Action::SetAttributes { path, from, to } = &step.action else { return None };
        (plan.stage != Stage::Rollback && to.mode & !from.mode != 0).then(|| {
            refuse(
                RefusalKind::Access,
                format!("{path} would allow more with mode {:04o} than it does now", to.mode),
                "this is to close files, and nothing else",
                "plan again",
            )
        })
    };
    plan.steps.iter().filter_map(more).collect()
}

/// Returns why a rollback would part members: after it every two must be able to dial each other both ways, as after a fix.
pub(crate) fn rollback_order(plan: &Plan, input: &Input<'_>) -> Option<Refusal> {
    let members = input.subject.own.cluster.value()?.members.as_slice();
    if members.len() < 2 || !plan.disturbs() {
        return None;
    }
    let (me, cluster) = peer_tls::cluster(input)?;
    let turns = [Turn { member: me, changes: peer_tls::effects(plan) }];
    let instead = "put the membership (etcdctl member update) and the member's own peer URLs back together by hand, one \
                   member at a time, and close the record with --forget";
    check(&cluster, &turns, members, instead)
}

/// Returns the members with which this one cannot be connected both ways now, and can once the plan is carried out.
pub(crate) fn mended(plan: &Plan, input: &Input<'_>) -> BTreeSet<String> {
    let Some((me, cluster)) = peer_tls::cluster(input).filter(|_| plan.disturbs()) else {
        return BTreeSet::new();
    };
    let with = |cluster: &[order::Member]| -> BTreeSet<usize> {
        let of_mine = order::half_open(cluster).into_iter().filter(|(i, j)| *i == me || *j == me);
        of_mine.map(|(i, j)| if i == me { j } else { i }).collect()
    };
    let after = with(&order::after(&cluster, me, &peer_tls::effects(plan)));
    let names = with(&cluster).into_iter().filter(|index| !after.contains(index));
    names.filter_map(|index| cluster.get(index)).map(|member| member.name.clone()).collect()
}

/// Refuses to load, or to use, certificates of one authority while other members have loaded those of another: they would
/// not accept each other.
fn authorities(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    let Some(own) = plan.authority.as_ref().filter(|_| plan.rule == peer_tls::RULE) else {
        return Vec::new();
    };
    let members = input.subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let refusal = |member: &Member| {
        let record = record_for(input.progress, &member.id, &plan.rule);
        let other =
            record.filter(|record| record.reached.is_some()).and_then(|record| record.authority.as_ref())?;
        let subject =
            record.and_then(|record| record.authority_subject.clone()).unwrap_or_else(|| other.clone());
        (*other != own.spki).then(|| {
            refuse(
                RefusalKind::Authority,
                format!(
                    "{} has loaded a certificate of {subject}, and this member goes by {} (key {}, not {})",
                    called(member),
                    own.subject,
                    own.spki.get(..16).unwrap_or_default(),
                    other.get(..16).unwrap_or_default()
                ),
                "the two would not accept each other's certificates, and could not dial each other once their URLs are https",
                format!(
                    "name the same authority on every node (--ca-cert, --ca-key); roll back what was loaded of another one \
                     there first: seaworthy fix --rollback on {}",
                    called(member)
                ),
            )
        })
    };
    members.iter().filter(|m| !m.this).filter_map(refusal).collect()
}

fn changed(plan: &Plan, input: &Input<'_>) -> Option<Refusal> {
    let differences = plan.state.differences(&state(input));
    (!differences.is_empty()).then(|| {
        refuse(
            RefusalKind::Evidence,
            format!("since the plan was made: {}", differences.join("; ")),
            "what was safe then may not be safe now",
            "plan again",
        )
    })
}

fn versions(input: &Input<'_>) -> Vec<Refusal> {
    let own = input.subject.version.value().cloned();
    let told =
        input.health.ok().into_iter().flat_map(|h| h.members.values()).filter_map(|m| m.version.clone());
    let known = |text: &str| Version::parse(text).is_some_and(|v| v.major == 3 && TRIED.contains(&v.minor));
    let mut wrong: BTreeSet<String> = told.filter(|version| !known(version)).collect();
    match own {
        Some(version) if known(&version) => {}
        Some(version) => _ = wrong.insert(version),
        None => _ = wrong.insert("one that could not be told".to_owned()),
    }
    let refusal = |version| {
        refuse(
            RefusalKind::Version,
            format!("the version of etcd is {version}"),
            "how members of it treat certificates and URLs was tried with 3.4, 3.5 and 3.6 only",
            "use a version of these release lines",
        )
    };
    wrong.into_iter().map(refusal).collect()
}

/// Objects to members whose clocks differ by so much that one could find the other's certificates not valid yet.
fn clocks(input: &Input<'_>) -> Vec<Refusal> {
    let members = input.subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let object = |member: &Member| {
        let ahead = *input.clocks.get(&member.id)?;
        let (seconds, word) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
        (seconds > CLOCK_SECONDS).then(|| {
            refuse(
                RefusalKind::Clock,
                format!("the clock of {} is {seconds} s {word} this node's", called(member)),
                "a certificate that is valid here may not be valid there yet, or not any more",
                "set the clocks of all nodes (chronyc tracking, timedatectl), and plan again",
            )
        })
    };
    members.iter().filter_map(object).collect()
}

fn health(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    let health = match input.health {
        Ok(health) => health,
        Err(why) => {
            return vec![refuse(
                RefusalKind::Evidence,
                format!("the members could not be asked how they are: {why}"),
                "a restart while another member is down can cost the quorum",
                "let this node reach the client port of every member, with a client certificate if they demand one",
            )];
        }
    };
    let mut found = Vec::new();
    for alarm in &health.alarms {
        found.push(refuse(
            RefusalKind::Alarm,
            format!("an alarm is raised: {alarm}"),
            "a cluster in trouble may not survive a restart, and what is wrong now would look like the fix's fault",
            "find its cause, put it right, and disarm it (etcdctl alarm disarm)",
        ));
    }
    let members = input.subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let trouble = |m: &Member| match health.members.get(&m.id) {
        None => Some("it did not answer".to_owned()),
        Some(health) => health.trouble.clone(),
    };
    for (member, trouble) in members.iter().filter_map(|m| Some((m, trouble(m)?))) {
        found.push(refuse(
            RefusalKind::Health,
            format!("{} is not healthy: {trouble}", called(member)),
            "the member that restarts would be the second one missing",
            "make every member healthy first",
        ));
    }
    let voters: Vec<&Member> = members.iter().filter(|m| !m.learner).collect();
    let healthy = voters.iter().filter(|m| trouble(m).is_none()).count();
    let quorum = voters.len() / 2 + 1;
    if plan.restarts() > 0 && voters.len() > 2 && healthy < quorum + 1 {
        found.push(refuse(
            RefusalKind::Quorum,
            format!("{healthy} of {} members are healthy, and {} are needed", voters.len(), quorum + 1),
            format!("without the one that restarts they are no quorum of {quorum}: the cluster would stop"),
            "make every member healthy first",
        ));
    }
    found
}

/// Refuses to restart a member that is not connected both ways with every other one, unless that is what the plan mends.
pub(crate) fn links(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    // What closes a half-open link is no danger to it.
    if plan.restarts() == 0 {
        return Vec::new();
    }
    let mended = mended(plan, input);
    match input.subject.own.links.as_result() {
        Err(error) => vec![refuse(
            RefusalKind::Evidence,
            format!("the connections with other members could not be seen: {error}"),
            "health checks stay green while members cannot dial each other",
            error.advice(),
        )],
        Ok(links) => {
            let refusal = |link: &Link| {
                let member = &link.member;
                let untold = link.inbound.error().or(link.outbound.error());
                let what = match untold {
                    _ if link.down => format!("there is no connection with {member}"),
                    _ if link.half_open => format!("the link with {member} is half-open"),
                    Some(error) => {
                        format!("whether {member} and this member dial each other is not known: {error}")
                    }
                    None => return None,
                };
                Some(refuse(
                    if link.down || link.half_open { RefusalKind::Health } else { RefusalKind::Evidence },
                    what,
                    "one restart or broken connection more could part the members, while health is green",
                    "find out why it cannot dial, or be dialled, and put that right first",
                ))
            };
            let others = links.iter().filter(|link| !mended.contains(&link.member));
            others.filter_map(refusal).collect()
        }
    }
}

fn size(plan: &Plan, input: &Input<'_>) -> Option<Refusal> {
    let voters = input.subject.own.cluster.value()?.members.iter().filter(|m| !m.learner).count();
    (voters == 2 && plan.restarts() > 0 && !input.options.two_members_stop).then(|| {
        refuse(
            RefusalKind::TwoMembers,
            "the cluster has two members",
            "one of two is no quorum: while one restarts, nothing can be written, and if it does not come back, \
             nothing ever again without a recovery",
            "add a third member first, or say --two-members-stop",
        )
    })
}

/// Objects to flags whose variables are set: etcd stops at once when it finds both.
fn environment(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    let Some(settings) = input.subject.settings.value() else { return Vec::new() };
    let by_variable = |s: &Setting| {
        let lost = s.overridden.iter().map(|c| &c.origin);
        let mut origins = std::iter::once(&s.origin).chain(lost);
        origins.any(|origin| matches!(origin, Origin::Environment { .. }))
    };
    let texts: Vec<_> = input.declaration.iter().map(|d| String::from_utf8_lossy(&d.bytes)).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let lines = lines.filter(|line| !line.trim_start().starts_with(['#', ';']));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = lines.flat_map(|line| line.split(|c| !is_name(c)));
    let declared: BTreeSet<&str> = words.filter(|word| word.starts_with("ETCD_")).collect();
    let conflicts = flags(plan).into_iter().filter_map(|flag| {
        let variable = format!("ETCD_{}", flag.to_uppercase().replace('-', "_"));
        let conflict = settings.get(flag).is_some_and(by_variable) || declared.contains(variable.as_str());
        conflict.then(|| {
            refuse(
                RefusalKind::Environment,
                format!("the flag {flag} would be added where {variable} is set"),
                "etcd exits at once when a setting is given by a flag and by a variable",
                format!("remove {variable}, or set it where it is, and plan again"),
            )
        })
    });
    conflicts.collect()
}

/// Returns the flags that the plan sets.
fn flags(plan: &Plan) -> BTreeSet<&str> {
    let mut flags = BTreeSet::new();
    for step in &plan.steps {
        let edits: Vec<&ArgumentEdit> = match &step.action {
            Action::Edit { change: FileEdit::DropIn { edits, .. }, .. } => edits.iter().collect(),
            Action::Edit { change: FileEdit::Manifest { edits, .. }, .. } => {
                let mut arguments = Vec::new();
                for edit in edits {
                    if let manifest::Edit::Argument(argument) = edit {
                        arguments.push(argument);
                    }
                }
                arguments
            }
            _ => Vec::new(),
        };
        flags.extend(
            edits.into_iter().filter(|e| matches!(e, ArgumentEdit::Set { .. })).map(ArgumentEdit::flag),
        );
    }
    flags
}

fn authority(plan: &Plan, input: &Input<'_>) -> Option<Refusal> {
    let authority = input.options.authority.as_ref()?;
    let issues =
        plan.steps.iter().any(|step| matches!(step.action, Action::Issue { .. } | Action::Request { .. }));
    let pem = authority.pem.as_ref().filter(|_| issues)?;
    let path = &authority.certificate;
    let wrong = match certificates_from_pem(pem, Origin::file(path), input.taken_at) {
        Err(error) => Some(error.to_string()),
        Ok(certificates) => match certificates.first() {
            None => Some(format!("{path} holds no certificate")),
            Some(ca) if !ca.certificate.ca => Some(format!("{path} is no CA certificate")),
            Some(ca) if ca.certificate.days_left < MARGIN_DAYS => {
                Some(format!("{path} has expired, or does today"))
            }
            Some(ca) if ca.certificate.not_before > input.taken_at => {
                Some(format!("{path} is not valid yet"))
            }
            Some(_) => None,
        },
    };
    wrong.map(|what| {
        refuse(
            RefusalKind::Certificate,
            what,
            "no member would accept a certificate that it issues",
            "name another authority with --ca-cert and --ca-key",
        )
    })
}

/// Objects to certificates that this member has loaded, and with which its peers could not talk to it.
fn certificates(plan: &Plan, etcd: &Subject) -> Vec<Refusal> {
    if plan.rule != peer_tls::RULE || plan.stage != Stage::Encrypt {
        return Vec::new();
    }
    let object = |what: String| {
        refuse(
            RefusalKind::Certificate,
            what,
            "it would be isolated as soon as its peers talk TLS with it",
            "replace the certificate, restart the member while its URLs are http, and plan again; where it is only not valid \
             yet, because it was issued while the clock was ahead, wait until then",
        )
    };
    let missing = |what: &str| object(format!("{what} could not be read"));
    let Ok(problems) = etcd.peer.problems.as_result() else {
        return vec![missing("the member's certificate")];
    };
    let mut found: Vec<_> = problems.iter().filter(|p| p.breaks).map(|p| object(p.message.clone())).collect();
    let chain = etcd.peer.files.value().and_then(|c| c.chain.as_ref()).and_then(|c| c.value());
    let Some(leaf) = chain.and_then(|chain| chain.first()) else {
        found.push(missing("the member's certificate"));
        return found;
    };
    if leaf.days_left < MARGIN_DAYS {
        found.push(object("its certificate expires today".to_owned()));
    }
    // While its URLs are http nobody dials it with TLS, so this is no problem yet.
    let members = etcd.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    for url in members.iter().filter(|m| m.this).flat_map(|m| &m.peer_urls) {
        if !seaworthy_pki::names(leaf, &url.host) {
            found
                .push(object(format!("its certificate does not name {}, where its peers dial it", url.host)));
        }
    }
    found
}

/// Objects to a restart for the sake of clients after which the member could not talk with its peers: connections outlive
/// the dates of a certificate, and end with the process.
fn rejoining(plan: &Plan, etcd: &Subject) -> Vec<Refusal> {
    let encrypted = this(etcd).is_some_and(is_encrypted);
    if plan.restarts() == 0 || !encrypted || !plan.rule.starts_with("etcd-client-") {
        return Vec::new();
    }
    let object = |kind: RefusalKind, what: String| {
        refuse(
            kind,
            what,
            "its connections with its peers are there still, and could not be made again after a restart",
            "put its certificate for peers right first",
        )
    };
    match etcd.peer.problems.as_result() {
        Err(error) => vec![object(
            RefusalKind::Evidence,
            format!("the member's certificate for peers could not be read: {error}"),
        )],
        Ok(problems) => {
            let broken = problems.iter().filter(|p| p.breaks);
            broken.map(|p| object(RefusalKind::Certificate, p.message.clone())).collect()
        }
    }
}

fn rivals(subject: &Subject) -> Vec<Refusal> {
    let why = "kubelet runs only one of the files that declare a pod, and after a change maybe the other one";
    match (&subject.files.manifest, subject.files.rival_manifests.as_result()) {
        (None, _) => Vec::new(),
        (Some(_), Err(error)) => vec![refuse(
            RefusalKind::Evidence,
            format!("kubelet's manifest directory could not be read: {error}"),
            why,
            error.advice(),
        )],
        (Some(_), Ok(rivals)) => {
            let refusal = |rival: &seaworthy_evidence::RivalManifest| {
                refuse(
                    RefusalKind::Rival,
                    format!("{} declares the same pod", rival.path),
                    why,
                    "move it out of the directory",
                )
            };
            rivals.iter().map(refusal).collect()
        }
    }
}

/// Objects to edits that no longer give what the plan says, and to files that could not be put back.
fn edits(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    let mut found = Vec::new();
    for step in &plan.steps {
        let Action::Edit { path, change, after } = &step.action else { continue };
        let why = "an edit that is not exactly the intended change may keep it from starting";
        match edited(change, path, input.declaration) {
            Ok(bytes) if seaworthy_journal::files::sha256(&bytes) == *after => {}
            Ok(_) => {
                let what = format!("the edit of {path} gives another file than the plan says");
                found.push(refuse(RefusalKind::Edit, what, why, "plan again"));
            }
            Err(refused) => {
                let what = format!("{path} cannot be edited: {refused}");
                found.push(refuse(RefusalKind::Edit, what, why, "make the change by hand"));
            }
        }
        let touched = input.declaration.iter().filter(|d| d.path == *path);
        for reason in touched.filter_map(|d| d.unrestorable.as_ref()) {
            found.push(refuse(
                RefusalKind::Unrestorable,
                format!("{path} could not be put back: {reason}"),
                "a change that cannot be undone is not made",
                "make it a regular file in a directory that can be written to",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::{
        Candidate, ErrorKind, EvidenceError, Observed, Problem, ProblemKind, RivalManifest, Side, Url,
    };

    use super::*;
    use crate::fixture::World;
    use crate::issue::{Authority as Issuer, Host, KeyKind, Profile};

    fn origin() -> Origin {
        Origin::derived("the fixture")
    }

    fn unseen<T>() -> Observed<T> {
        Observed::failed(EvidenceError::new(ErrorKind::PermissionDenied, "permission denied"))
    }

    fn link(inbound: Observed<u32>, half_open: bool) -> Link {
        Link {
            member: "m2".into(),
            inbound,
            outbound: Observed::seen(3, origin()),
            half_open,
            down: false,
            message: String::new(),
            origin: origin(),
        }
    }

    #[test]
    fn a_healthy_cluster_may_go_on() {
        for world in [World::plaintext(), World::loaded(), World::encrypted()] {
            assert_eq!(preflight(&world.plan(), &world.input()), []);
        }
    }

    #[test]
    fn what_could_do_harm_is_refused_with_the_reason() {
        type Make = fn() -> World;
        type Break = fn(&mut World);
        let cases: Vec<(RefusalKind, &str, Make, Break)> = vec![
            (RefusalKind::Evidence, "could not be asked", World::plaintext, |w| {
                w.health = Err("refused".into())
            }),
            (RefusalKind::Clock, "the clock of m3 is 3600 s behind", World::plaintext, |w| {
                let id = w.members()[0].id.clone();
                w.clocks.insert(id, -3600);
            }),
            (RefusalKind::Alarm, "NOSPACE at m2", World::plaintext, |w| {
                w.health.as_mut().unwrap().alarms.push("NOSPACE at m2".into());
            }),
            (RefusalKind::Health, "m3 is not healthy: no leader", World::plaintext, |w| {
                let id = w.members()[0].id.clone();
                w.health.as_mut().unwrap().members.get_mut(&id).unwrap().trouble = Some("no leader".into());
            }),
            (RefusalKind::Health, "m3 is not healthy: it did not answer", World::plaintext, |w| {
                let id = w.members()[0].id.clone();
                w.health.as_mut().unwrap().members.remove(&id);
            }),
            (RefusalKind::Quorum, "2 of 3 members are healthy, and 3", World::loaded, |w| {
                let id = w.members()[0].id.clone();
                w.health.as_mut().unwrap().members.get_mut(&id).unwrap().trouble = Some("no leader".into());
            }),
            (RefusalKind::Evidence, "connections with other members", World::plaintext, |w| {
                w.subject.own.links = unseen()
            }),
            (RefusalKind::Health, "the link with m2 is half-open", World::plaintext, |w| {
                w.subject.own.links = Observed::seen(vec![link(Observed::seen(0, origin()), true)], origin());
            }),
            (RefusalKind::Evidence, "dial each other is not known", World::plaintext, |w| {
                w.subject.own.links = Observed::seen(vec![link(unseen(), false)], origin());
            }),
            (RefusalKind::TwoMembers, "two members", World::loaded, |w| _ = w.members().pop()),
            (RefusalKind::Version, "could not be told", World::plaintext, |w| w.subject.version = unseen()),
            (RefusalKind::Version, "etcd is 3.7.1", World::plaintext, |w| {
                w.subject.version = Observed::seen("3.7.1".into(), origin());
            }),
            (RefusalKind::Version, "etcd is 3.3.27", World::plaintext, |w| {
                let id = w.members()[0].id.clone();
                w.health.as_mut().unwrap().members.get_mut(&id).unwrap().version = Some("3.3.27".into());
            }),
            (RefusalKind::Environment, "ETCD_PEER_CERT_FILE is set", World::plaintext, |w| {
                let lost = Candidate {
                    value: "/x".into(),
                    origin: Origin::Environment { pid: 33, name: "ETCD_PEER_CERT_FILE".into() },
                    reason: "a flag".into(),
                };
                w.settings().get_mut("peer-cert-file").unwrap().overridden.push(lost);
            }),
            (RefusalKind::Environment, "ETCD_PEER_CLIENT_CERT_AUTH is set", World::plaintext, |w| {
                let bytes = &mut w.declaration[0].bytes;
                let text = String::from_utf8(bytes.clone()).unwrap();
                let env =
                    "    env:\n    - name: ETCD_PEER_CLIENT_CERT_AUTH\n      value: 'true'\n    name: etcd\n";
                *bytes = text.replacen("    name: etcd\n", env, 1).into_bytes();
            }),
            (RefusalKind::Certificate, "holds no certificate", World::plaintext, |w| {
                w.options.authority.as_mut().unwrap().pem = Some(b"nothing".to_vec());
            }),
            (RefusalKind::Certificate, "is no CA certificate", World::plaintext, |w| {
                let (ca, _) = Issuer::create("ca", KeyKind::EcP256, w.taken_at).unwrap();
                let profile = Profile::peer("m1", [Host::Name("m1".into())]);
                let (_, issued) = ca.issue(&profile, KeyKind::EcP256, w.taken_at).unwrap();
                w.options.authority.as_mut().unwrap().pem = Some(issued.pem.into_bytes());
            }),
            (RefusalKind::Certificate, "has expired", World::plaintext, |w| {
                w.taken_at += jiff::SignedDuration::from_hours(24 * 3_660);
            }),
            (RefusalKind::Certificate, "peer.crt is no peer's", World::loaded, |w| {
                let problem = Problem {
                    kind: ProblemKind::UnknownCa,
                    breaks: true,
                    path: "peer.crt".into(),
                    message: "peer.crt is no peer's".into(),
                    origin: origin(),
                };
                w.subject.peer.problems = Observed::seen(vec![problem], origin());
            }),
            (RefusalKind::Certificate, "could not be read", World::loaded, |w| {
                w.subject.peer.problems = unseen()
            }),
            (RefusalKind::Certificate, "does not name 10.9.9.9", World::loaded, |w| {
                w.members()[1].peer_urls[0] = Url::parse("http://10.9.9.9:2380").unwrap();
            }),
            (RefusalKind::Evidence, "declares peer-cert-file otherwise", World::loaded, |w| {
                let side = || Side { value: String::new(), origin: origin() };
                let drift = Drift {
                    subject: "peer-cert-file".into(),
                    declared: side(),
                    running: side(),
                    message: "etcd.yaml declares peer-cert-file otherwise".into(),
                };
                w.subject.drift = Observed::seen(vec![drift], origin());
            }),
            (RefusalKind::Rival, "etcd.yaml.bak declares the same pod", World::plaintext, |w| {
                let rival = RivalManifest { path: "/m/etcd.yaml.bak".into(), wins: true, origin: origin() };
                w.subject.files.rival_manifests = Observed::seen(vec![rival], origin());
            }),
            (RefusalKind::Evidence, "manifest directory", World::plaintext, |w| {
                w.subject.files.rival_manifests = unseen()
            }),
            (RefusalKind::Unrestorable, "symbolic link", World::plaintext, |w| {
                w.declaration[0].unrestorable = Some("it is a symbolic link".into());
            }),
        ];
        for (kind, words, world, change) in cases {
            let mut world = world();
            change(&mut world);
            let plan = world.planned(peer_tls::RULE).unwrap_or_else(|e| panic!("{words}: {e:?}"));
            let found = preflight(&plan, &world.input());
            let hit = found.iter().any(|r| r.kind == kind && format!("{} {}", r.what, r.why).contains(words));
            assert!(hit, "{kind:?} {words:?} is not in {found:#?}");
        }
    }

    #[test]
    fn a_restart_for_clients_does_not_cost_the_peers() {
        let mut world = World::encrypted();
        world.clients_in_plaintext();
        let plan = world.plan_for("etcd-client-tls");
        assert_eq!(preflight(&plan, &world.input()), []);
        let problem = Problem {
            kind: ProblemKind::Expired,
            breaks: true,
            path: "peer.crt".into(),
            message: "peer.crt has expired".into(),
            origin: origin(),
        };
        world.subject.peer.problems = Observed::seen(vec![problem], origin());
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.what == "peer.crt has expired"), "{found:#?}");
        world.subject.peer.problems = unseen();
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Evidence), "{found:#?}");
        // While its peers dial it in plaintext nobody looks at the certificate.
        let mut world = World::plaintext();
        world.clients_in_plaintext();
        world.subject.peer.problems = unseen();
        assert_eq!(preflight(&world.plan_for("etcd-client-tls"), &world.input()), []);
    }

    #[test]
    fn two_members_go_on_when_that_is_accepted() {
        let mut world = World::loaded();
        world.members().pop();
        world.options.two_members_stop = true;
        assert_eq!(preflight(&world.plan(), &world.input()), []);
    }

    #[test]
    fn a_plan_for_another_state_is_refused() {
        let (plan, mut now) = (World::loaded().plan(), World::loaded());
        now.advertise(0, "https");
        let found = preflight(&plan, &now.input());
        assert!(found.iter().any(|r| r.what.contains("peer URLs have changed")), "{found:#?}");
    }

    #[test]
    fn an_edit_that_says_one_thing_and_does_another_is_refused() {
        let world = World::loaded();
        let mut plan = world.plan();
        for step in &mut plan.steps {
            if let Action::Edit { after, .. } = &mut step.action {
                after.replace_range(..4, "dead");
            }
        }
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Edit), "{found:#?}");
    }

    /// Each of these was tried on a real cluster, and ended without quorum or with an isolated member.
    #[test]
    fn the_wrong_orders_are_refused() {
        let drop = |plan: &mut Plan, update: bool| {
            plan.steps.retain(|s| matches!(s.action, Action::UpdateMember { .. }) != update);
        };
        // Listeners without membership.
        let world = World::loaded();
        let mut plan = world.plan();
        drop(&mut plan, true);
        let refusal = rollouts::etcd::order(&plan, &world.input()).expect("listeners without membership");
        assert!(refusal.why.contains("could not dial"), "{}", refusal.why);
        // Membership without listeners.
        let mut plan = world.plan();
        drop(&mut plan, false);
        let refusal = rollouts::etcd::order(&plan, &world.input()).expect("membership without listeners");
        assert!(refusal.why.contains("could not dial"), "{}", refusal.why);
        // No certificates in advance.
        let mut world = World::loaded();
        world.progress.clear();
        let mut plan = world.plan();
        assert_eq!(rollouts::etcd::order(&plan, &world.input()), None, "it waits");
        plan.waits_for.clear();
        let refusal = rollouts::etcd::order(&plan, &world.input()).expect("no certificates in advance");
        assert!(refusal.why.contains("does not trust"), "{}", refusal.why);
    }
}
