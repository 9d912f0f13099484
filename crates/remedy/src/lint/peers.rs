//! Plans that change whom members trust, replayed: who accepts whose certificate, after each turn of each member.

use std::collections::BTreeSet;

use seaworthy_evidence::Member;
use seaworthy_pki::Parsed;

use super::{parts, refuse};
use crate::issue::pem;
use crate::order::{self, Authority, Scheme, Turn};
use crate::plan::{Action, Objection, Plan, Refusal, Stage, Until};
use crate::planner::peers::{accepted, against, roots, served};
use crate::planner::{Situation, bundled, called, peer_auth, peer_auto_tls, peer_ca, seen_at};
use seaworthy_journal::files::sha256;

/// The authority that all are to trust in the end.
const NEW: Authority = "the authority of this plan";
/// Whatever else members present and trust.
const OTHER: Authority = "what is in use now";

/// Returns why the order is refused in which this plan, and those that follow it on the other members, would change whom
/// they trust. What is not known of another member is taken for the worst: that nothing is changed there.
pub(super) fn order(plan: &Plan, situation: &Situation<'_>) -> Option<Refusal> {
    let members = situation.etcd.cluster.value()?.members.as_slice();
    let trial = match plan.rule.as_str() {
        peer_auth::RULE => demand(plan, situation, members)?,
        peer_auto_tls::RULE if plan.stage != Stage::Change => demand(plan, situation, members)?,
        peer_ca::RULE | peer_ca::UNIQUE => exchange(plan, situation, members)?,
        _ => return None,
    };
    let turns = trial.turns();
    let check = if members.len() <= 2 { order::check_links } else { order::check };
    let refusal = check(&trial.cluster, &turns).err()?;
    let instead = "let every member present a certificate that all accept, before one of them trusts less";
    Some(parts(refusal, &turns, members, instead))
}

/// Objects to certificates with which members could not talk to each other any more after the plan.
pub(super) fn certificates(plan: &Plan, situation: &Situation<'_>) -> Vec<Refusal> {
    let new = new_roots(situation);
    let accepted = match (plan.rule.as_str(), plan.stage) {
        (peer_auth::RULE, _) | (peer_auto_tls::RULE | peer_ca::RULE | peer_ca::UNIQUE, Stage::Distrust) => {
            new
        }
        (peer_ca::RULE | peer_ca::UNIQUE, Stage::Trust | Stage::Present) => {
            peer_ca::trusted(situation).unwrap_or_default().into_iter().chain(new).collect()
        }
        _ => return Vec::new(),
    };
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
    // What others serve must be known before they are held to it; while all trust both authorities nothing hangs on it.
    let judged = |m: &&Member| {
        !plan.waits_for.iter().any(|w| w.member == called(m))
            && (plan.rule == peer_auth::RULE || served(situation, m).is_some())
    };
    found.extend(members.iter().filter(judged).flat_map(|m| against(situation, &accepted, m)));
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
    /// The rounds that follow, each with the members that have it behind them, or in this plan.
    rounds: Vec<(order::Change, BTreeSet<usize>)>,
}

impl Trial {
    /// Returns this plan's turn, and those of all members that follow.
    fn turns(&self) -> Vec<Turn> {
        let mut turns = vec![Turn { member: self.me, changes: self.own.clone() }];
        for (change, behind) in &self.rounds {
            let members = (0..self.cluster.len()).filter(|index| !behind.contains(index));
            turns.extend(members.map(|member| Turn { member, changes: vec![change.clone()] }));
        }
        turns
    }
}

/// Returns the trial of a plan after which a member demands certificates of the authority.
fn demand(plan: &Plan, situation: &Situation<'_>, members: &[Member]) -> Option<Trial> {
    let me = members.iter().position(|m| m.this)?;
    let roots = new_roots(situation);
    let note = |m: &Member| situation.notes.get(&m.id).filter(|note| note.rule == plan.rule)?.reached;
    let settings = situation.etcd.settings.value()?;
    let is_done = |m: &Member| match m.this {
        true => settings.get("peer-trusted-ca-file").is_some_and(|s| s.set),
        false => matches!(note(m), Some(Stage::Change | Stage::Distrust | Stage::Done)),
    };
    let waits = |m: &Member| plan.waits_for.iter().any(|w| w.member == called(m));
    let presents = |m: &Member| {
        let heard = accepted(situation, &roots, m) == Some(true);
        heard || waits(m) && plan.rule == peer_auto_tls::RULE
    };
    let model = |m: &Member| {
        let fits = presents(m);
        let trusts = if is_done(m) { [NEW].as_slice() } else { &[NEW, OTHER] };
        member(m, if fits { NEW } else { OTHER }, trusts, is_done(m))
    };
    let indexes = |wanted: &dyn Fn(&Member) -> bool| {
        members.iter().enumerate().filter(|(_, m)| wanted(m)).map(|(index, _)| index).collect()
    };
    let present = restart(Some(NEW), Some(&[NEW, OTHER]), None);
    // Without self-made certificates there is one round only, and who does not fit will not fit after it.
    let one_round = plan.rule == peer_auth::RULE;
    let last = |m: &Member| is_done(m) || m.this && plan.stage != Stage::Present;
    Some(Trial {
        me,
        cluster: members.iter().map(model).collect(),
        own: effects(plan, situation),
        rounds: vec![
            (present, indexes(&|m| one_round || m.this || presents(m))),
            (restart(None, Some(&[NEW]), Some(true)), indexes(&last)),
        ],
    })
}

/// Returns the trial of a plan in the exchange of the peers' authority.
fn exchange(plan: &Plan, situation: &Situation<'_>, members: &[Member]) -> Option<Trial> {
    let me = members.iter().position(|m| m.this)?;
    let new = new_roots(situation);
    // Before it is made, nothing is changed that members make of each other.
    let authority = new.first()?;
    let own = peer_ca::trusted(situation).unwrap_or_default();
    let waits = |m: &Member, until: &[Until]| {
        plan.waits_for.iter().any(|w| w.member == called(m) && until.contains(&w.until))
    };
    let served = |m: &Member| accepted(situation, &new, m) == Some(true);
    let presents = |m: &Member| match m.this {
        true => served(m),
        false => peer_ca::presents(situation, m, authority) || served(m) || waits(m, &[Until::Presenting]),
    };
    let trusts_new = |m: &Member| match m.this {
        true => peer_ca::is_among(authority, &own),
        false => peer_ca::trusts(situation, m, authority) || waits(m, &[Until::Trusting, Until::Presenting]),
    };
    let over = |m: &Member| match m.this {
        true => own.iter().all(|root| peer_ca::is_among(root, &new)),
        false => {
            matches!(peer_ca::reached(situation, m, authority), Some(Stage::Distrust | Stage::Done))
        }
    };
    let model = |m: &Member| {
        let trusts = match (trusts_new(m), over(m)) {
            (true, true) => [NEW].as_slice(),
            (true, false) => &[NEW, OTHER],
            (false, _) => &[OTHER],
        };
        member(m, if presents(m) { NEW } else { OTHER }, trusts, true)
    };
    let behind = |stages: &[Stage], wanted: &dyn Fn(&Member) -> bool| {
        let has = |m: &Member| wanted(m) || m.this && stages.contains(&plan.stage);
        members.iter().enumerate().filter(|(_, m)| has(m)).map(|(index, _)| index).collect()
    };
    Some(Trial {
        me,
        cluster: members.iter().map(model).collect(),
        own: effects(plan, situation),
        rounds: vec![
            (restart(None, Some(&[NEW, OTHER]), None), behind(&[Stage::Trust], &trusts_new)),
            (restart(Some(NEW), None, None), behind(&[Stage::Present], &presents)),
            (restart(None, Some(&[NEW]), None), behind(&[Stage::Distrust], &over)),
        ],
    })
}

fn member(m: &Member, leaf: Authority, trusts: &[Authority], demands: bool) -> order::Member {
    order::Member {
        name: called(m).to_owned(),
        advertised: Scheme::Https,
        listens: BTreeSet::from([Scheme::Https]),
        leaf: Some(leaf),
        trusts: trusts.iter().copied().collect(),
        demands,
    }
}

fn restart(leaf: Option<Authority>, trusts: Option<&[Authority]>, demands: Option<bool>) -> order::Change {
    let trusts = trusts.map(|all| all.iter().copied().collect());
    order::Change::Restart { listens: None, leaf, trusts, demands }
}

/// Returns what the steps of `plan` do to who can dial whom.
fn effects(plan: &Plan, situation: &Situation<'_>) -> Vec<order::Change> {
    let authority = situation.options.authority.as_ref();
    let seen = |path: &str, here: &str| seen_at(situation, path).as_deref() == Some(here);
    let is_new = |here: &str| authority.is_some_and(|a| seen(&a.certificate, here));
    let actions = || plan.steps.iter().map(|step| &step.action);
    // Only what really holds both authorities counts for that.
    let both = || {
        let parts = [situation.trusted?, authority?.pem.as_deref()?];
        bundled(&parts, situation.taken_at).ok().map(|bytes| sha256(&bytes))
    };
    let is_both = |here: &str| {
        actions().any(|action| match action {
            Action::Bundle { path, after, .. } => seen(path, here) && both().as_ref() == Some(after),
            _ => false,
        })
    };
    let is_issued = |here: &str| {
        actions().any(|action| match action {
            Action::Issue { certificate, ca_certificate, .. } => {
                seen(certificate, here) && authority.is_some_and(|a| a.certificate == *ca_certificate)
            }
            _ => false,
        })
    };
    // So do the roots of the system, when all that others made themselves is among them.
    let all = || {
        let members = situation.etcd.cluster.value()?.members.as_slice();
        let new = new_roots(situation);
        let made = peer_auto_tls::self_made(situation, members, new.first()?).ok()?;
        let made: Vec<String> = made.iter().map(|leaf| pem(leaf.der())).collect();
        let authority = authority?.pem.as_deref()?;
        let parts: Vec<&[u8]> = [authority].into_iter().chain(made.iter().map(String::as_bytes)).collect();
        bundled(&parts, situation.taken_at).ok().map(|bytes| sha256(&bytes))
    };
    let has_all = || {
        actions().any(|action| match action {
            Action::Bundle { after, .. } => all().as_ref() == Some(after),
            _ => false,
        })
    };
    let change = |action: &Action| {
        let Action::Restart { settings, .. } = action else { return None };
        let file = settings.get("peer-trusted-ca-file");
        let trusts = file.map(|path| match path.as_str() {
            path if is_new(path) => [NEW].as_slice(),
            path if is_both(path) => &[NEW, OTHER],
            // Whoever that is, the plan does not say it.
            _ => &[],
        });
        let leaf = settings.get("peer-cert-file").map(|path| if is_issued(path) { NEW } else { OTHER });
        let verifies = settings.contains_key("peer-auto-tls") && leaf.is_some();
        let roots = verifies.then(|| if has_all() { [NEW, OTHER].as_slice() } else { &[] });
        Some(restart(leaf, trusts.or(roots), trusts.map(|_| true)))
    };
    actions().filter_map(change).collect()
}
