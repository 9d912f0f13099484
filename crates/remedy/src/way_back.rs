//! The way back: a plan that takes a fix back, made from its plan and from what the journal says was begun. Pure.
//!
//! It is not the plan read backwards. What made the way there safe makes the way back safe: the membership is told first,
//! and the member listens so at once afterwards; what a process still uses is taken away last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use seaworthy_evidence::Member;
use serde::{Deserialize, Serialize};

use crate::note::Note;
use crate::plan::{Action, Plan, Precondition, RestartedBy, Stage, Step, Undo, Until, Verification, Waiting};

use crate::planner::{called, is_encrypted, peer_auto_tls};

/// What is written down before a step is carried out, so that it can be finished or taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The member's process when the fix began; null when it did not run.
    pub process: Option<Process>,
    /// Ids of the pre-images of the files that the step touches, by path.
    pub preimages: BTreeMap<String, String>,
    /// Values that the settings of a restart had when the fix began; null for one that was not set.
    pub settings: BTreeMap<String, Option<String>>,
}

/// Which process a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: i64,
}

/// Returns the plan that takes back what was `begun` of `plan`: the facts of each step, by its index.
///
/// `waits_for` are members that must be taken back before. Without a `quorum` nothing can be changed in the membership, and
/// that this member listens as before may be what brings the quorum back: then that comes first.
pub fn way_back(plan: &Plan, begun: &BTreeMap<usize, Facts>, waits_for: Vec<Waiting>, quorum: bool) -> Plan {
    let undone = || begun.iter().rev().filter_map(|(at, facts)| Some((plan.steps.get(*at)?, facts)));
    let mut steps = Vec::new();
    let restarts = undone()
        .any(|(step, _)| matches!(step.action, Action::Edit { .. } | Action::Restart { .. }))
        && plan.restarts() > 0;
    let others: Vec<String> =
        plan.state.peer_urls.keys().filter(|id| **id != plan.state.member_id).cloned().collect();
    if restarts && !others.is_empty() {
        steps.push(step(
            "Hand leadership over, if it leads",
            "A leader that restarts costs the cluster an election; one that hands over does not.",
            Action::MoveLeader { to: others },
            Vec::new(),
        ));
    }
    let mut membership = Vec::new();
    for (forth, _) in undone() {
        if let (Action::UpdateMember { member_id, via, .. }, Undo::PeerUrls { urls }) =
            (&forth.action, &forth.undo)
        {
            membership.push(step(
                &format!("Tell its peers to dial {} as before", plan.state.member),
                "New connections to it are made as the membership says, so this comes before it listens as before.",
                Action::UpdateMember { member_id: member_id.clone(), peer_urls: urls.clone(), via: via.clone() },
                vec![Verification::MembershipShows { urls: urls.clone() }],
            ));
        }
    }
    if quorum {
        steps.append(&mut membership);
    }
    // First what configures the process, then the process, and then what only its other self has used.
    let configures = |action: &Action| matches!(action, Action::Edit { .. });
    for (forth, facts) in undone().filter(|(step, _)| configures(&step.action)) {
        steps.extend(restored(forth, facts));
    }
    if restarts {
        steps.extend(restarted(plan, begun));
    }
    steps.append(&mut membership);
    for (forth, facts) in undone().filter(|(step, _)| !configures(&step.action)) {
        steps.extend(restored(forth, facts));
        if let (Action::SetAttributes { path, .. }, Undo::Attributes { mode, uid, gid, .. }) =
            (&forth.action, &forth.undo)
        {
            let (path, mode, uid, gid) = (path.clone(), *mode, *uid, *gid);
            steps.push(step(
                &format!("Give {path} its former owner and mode"),
                "It had them before the fix.",
                Action::SetAttributes { path, mode, uid, gid },
                vec![Verification::Attributes],
            ));
        }
    }
    Plan {
        stage: Stage::Return,
        waits_for,
        steps,
        then_waits_for: Vec::new(),
        by_hand: Vec::new(),
        ..plan.clone()
    }
}

/// Returns whom the way back of a fix that was `begun` then waits for: who relies on what it would take away.
///
/// A certificate is not unloaded while somebody demands it, an authority not distrusted while somebody presents its
/// certificates, and a certificate of the former authority not presented to who no longer trusts that one.
pub fn waits_for(
    plan: &Plan,
    begun: Timestamp,
    members: &[Member],
    notes: &BTreeMap<String, Note>,
) -> Vec<Waiting> {
    let relies = |member: &&Member| {
        let note = notes.get(&member.id).filter(|note| note.rule == plan.rule);
        let reached =
            |stages: &[Stage]| note.and_then(|n| n.reached).is_some_and(|stage| stages.contains(&stage));
        match plan.stage {
            Stage::Load => is_encrypted(member),
            Stage::Trust => reached(&[Stage::Present, Stage::Distrust]),
            // Who went from its self-made certificate later does not know this member's any more.
            Stage::Present if plan.rule == peer_auto_tls::RULE => {
                reached(&[Stage::Present, Stage::Distrust]) && note.is_some_and(|note| note.at > begun)
            }
            Stage::Present => reached(&[Stage::Distrust]),
            _ => false,
        }
    };
    let others = members.iter().filter(|m| !m.this).filter(relies);
    others.map(|m| Waiting { member: called(m).to_owned(), until: Until::TakenBack }).collect()
}

fn step(title: &str, why: &str, action: Action, verify: Vec<Verification>) -> Step {
    Step {
        title: title.to_owned(),
        why: why.to_owned(),
        action,
        diff: None,
        preconditions: Vec::new(),
        verify,
        undo: Undo::Nothing,
        restarts: false,
    }
}

/// Returns the steps that bring back the files of a step.
fn restored(forth: &Step, facts: &Facts) -> Vec<Step> {
    let absent = |path: &str| {
        forth
            .preconditions
            .iter()
            .any(|p| matches!(p, Precondition::Absent { path: missing } if missing == path))
    };
    let back = |(path, preimage): (&String, &String)| {
        let title = match absent(path) {
            true => format!("Remove {path}"),
            false => format!("Put {path} back as it was"),
        };
        let action = Action::Restore { path: path.clone(), preimage: preimage.clone() };
        step(&title, "It was so before the fix.", action, Vec::new())
    };
    facts.preimages.iter().map(back).collect()
}

/// Returns the step that makes the member run as before.
fn restarted(plan: &Plan, begun: &BTreeMap<usize, Facts>) -> Option<Step> {
    let forth = plan.steps.iter().find(|step| step.restarts)?;
    let Action::Restart { by, .. } = &forth.action else { return None };
    // Those of the first step, before which nothing was changed.
    let former = begun.values().next().map(|facts| facts.settings.clone()).unwrap_or_default();
    let set = former.into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
    let title = match by {
        RestartedBy::Kubelet => format!("Wait until kubelet runs {} as before", plan.state.member),
        RestartedBy::KubeletAfterEnd { .. } => {
            format!("End the process of {}, so that kubelet starts it as before", plan.state.member)
        }
        RestartedBy::Systemd { unit } => format!("Restart {unit}"),
    };
    // That the cluster is well is not asked for here: what was not well before cannot keep the way back from its end.
    let verify = vec![Verification::SettingsEffective];
    let action = Action::Restart { by: by.clone(), settings: set.collect() };
    Some(Step { restarts: true, ..step(&title, "etcd reads its settings when it starts.", action, verify) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::fixture::World;
    use crate::planner::{self, peer_tls};

    #[test]
    fn a_member_is_to_run_as_it_did_before_the_first_step() {
        let plan = planner::plan(peer_tls::RULE, &World::plaintext().situation()).unwrap();
        let setting = "peer-cert-file".to_owned();
        // kubelet restarts a member as soon as its manifest has changed, whatever becomes of the fix meanwhile.
        let facts = |value: Option<&str>| Facts {
            settings: BTreeMap::from([(setting.clone(), value.map(str::to_owned))]),
            ..Facts::default()
        };
        let last = plan.steps.len() - 1;
        let begun = BTreeMap::from([(0, facts(None)), (last, facts(Some("/new.crt")))]);
        let back = way_back(&plan, &begun, Vec::new(), true);
        let restart = back.steps.iter().find_map(|step| match &step.action {
            Action::Restart { settings, .. } => Some(settings),
            _ => None,
        });
        assert_eq!(restart, Some(&BTreeMap::from([(setting, String::new())])));
    }
}
