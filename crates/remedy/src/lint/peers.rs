//! Plans that change whom members trust, replayed: who accepts whose certificate, after each turn of each member.

use std::collections::BTreeSet;

use seaworthy_evidence::Member;
use seaworthy_pki::Parsed;

use super::{parts, refuse};
use crate::order::{self, Authority, Scheme, Turn};
use crate::plan::{Action, Objection, Plan, Refusal, Stage};
use crate::planner::peers::{accepted, against, roots};
use crate::planner::{Situation, called, peer_auth, seen_at};

/// The authority that all are to trust in the end.
const NEW: Authority = "the authority of this plan";
/// Whatever else members present and trust.
const OTHER: Authority = "what is in use now";

/// Returns why the order is refused in which this plan, and those that follow it on the other members, would change whom
/// they trust. What is not known of another member is taken for the worst: that nothing is changed there.
pub(super) fn order(plan: &Plan, situation: &Situation<'_>) -> Option<Refusal> {
    let members = situation.etcd.cluster.value()?.members.as_slice();
    let trial = match plan.rule.as_str() {
        peer_auth::RULE => Trial::of(plan, situation, members)?,
        _ => return None,
    };
    let turns = trial.demand();
    let check = if members.len() == 2 { order::check_links } else { order::check };
    let refusal = check(&trial.cluster, &turns).err()?;
    let instead = "let every member present a certificate that all accept, before one of them trusts less";
    Some(parts(refusal, &turns, members, instead))
}

/// Objects to certificates with which members could not talk to each other any more after the plan.
pub(super) fn certificates(plan: &Plan, situation: &Situation<'_>) -> Vec<Refusal> {
    if plan.rule != peer_auth::RULE {
        return Vec::new();
    }
    let mut found = Vec::new();
    match situation.etcd.peer.problems.as_result() {
        Err(error) => found.push(refuse(
            Objection::Certificate,
            format!("the member's certificate could not be read: {error}"),
            "it may be cut off with its restart",
            "run it as root on the node",
        )),
        Ok(problems) => {
            let breaking = problems.iter().filter(|p| p.breaks);
            found.extend(breaking.map(|problem| {
                refuse(
                    Objection::Certificate,
                    problem.message.clone(),
                    "it would be cut off with its restart, which makes all its connections anew",
                    "replace the certificate first: etcd reads it anew at each handshake, without a restart",
                )
            }));
        }
    }
    let members = situation.etcd.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    found.extend(members.iter().flat_map(|m| against(situation, &new_roots(situation), m)));
    found
}

fn new_roots(situation: &Situation<'_>) -> Vec<Parsed> {
    let authority = situation.options.authority.as_ref();
    authority.and_then(|authority| roots(situation, authority).ok()).unwrap_or_default()
}

/// A plan in a model of the cluster.
struct Trial {
    me: usize,
    cluster: Vec<order::Member>,
    /// What the plan does.
    own: Vec<order::Change>,
    /// Indexes of the members that trust nothing but the new authority.
    done: BTreeSet<usize>,
}

impl Trial {
    fn of(plan: &Plan, situation: &Situation<'_>, members: &[Member]) -> Option<Self> {
        let me = members.iter().position(|m| m.this)?;
        let roots = new_roots(situation);
        let note = |m: &Member| {
            situation.notes.get(&m.id).filter(|note| note.rule == plan.rule).and_then(|note| note.reached)
        };
        let settings = situation.etcd.settings.value()?;
        let is_done = |m: &Member| match m.this {
            true => settings.get("peer-trusted-ca-file").is_some_and(|s| s.set),
            false => matches!(note(m), Some(Stage::Change | Stage::Distrust | Stage::Done)),
        };
        let waits: BTreeSet<&str> = plan.waits_for.iter().map(|w| w.member.as_str()).collect();
        let model = |m: &Member| {
            let fits = accepted(situation, &roots, m) == Some(true) || waits.contains(called(m));
            order::Member {
                name: called(m).to_owned(),
                advertised: Scheme::Https,
                listens: BTreeSet::from([Scheme::Https]),
                leaf: Some(if fits { NEW } else { OTHER }),
                trusts: if is_done(m) { BTreeSet::from([NEW]) } else { BTreeSet::from([NEW, OTHER]) },
                demands: is_done(m),
            }
        };
        Some(Self {
            me,
            cluster: members.iter().map(model).collect(),
            own: effects(plan, situation),
            done: members.iter().enumerate().filter(|(_, m)| is_done(m)).map(|(index, _)| index).collect(),
        })
    }

    /// Returns this plan's turn, and those in which the others come to demand certificates.
    fn demand(&self) -> Vec<Turn> {
        let mut turns = vec![Turn { member: self.me, changes: self.own.clone() }];
        let others = (0..self.cluster.len()).filter(|index| *index != self.me && !self.done.contains(index));
        turns.extend(
            others.map(|member| Turn { member, changes: vec![restart(None, Some(&[NEW]), Some(true))] }),
        );
        turns
    }
}

fn restart(leaf: Option<Authority>, trusts: Option<&[Authority]>, demands: Option<bool>) -> order::Change {
    let trusts = trusts.map(|all| all.iter().copied().collect());
    order::Change::Restart { listens: None, leaf, trusts, demands }
}

/// Returns what the steps of `plan` do to who can dial whom.
fn effects(plan: &Plan, situation: &Situation<'_>) -> Vec<order::Change> {
    let authority = situation.options.authority.as_ref();
    let is_new =
        |path: &str| authority.is_some_and(|a| seen_at(situation, &a.certificate).as_deref() == Some(path));
    let change = |action: &Action| {
        let Action::Restart { settings, .. } = action else { return None };
        let trusts = settings.get("peer-trusted-ca-file").map(|path| match is_new(path) {
            true => [NEW].as_slice(),
            // Whoever that is, the plan does not say it.
            false => &[],
        });
        Some(restart(None, trusts, trusts.map(|_| true)))
    };
    plan.steps.iter().filter_map(|step| change(&step.action)).collect()
}
