//! The way back: a plan made from a record and the world as it is, carried out as any other.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::subject::Subject;
use seaworthy_journal::files::Root;
use seaworthy_journal::record::{self, FixStatus};

use super::{
    Executor, ExecutorError, Held, Outcome, PASSING, POLL, Progress, Stop, TURN_POLL, Turn, document, joined,
    obstacles, passes_by_itself, via,
};
use crate::condition::Condition;
use crate::history::{Fix, History};
use crate::input::refuse;
use crate::plan::{Plan, Refusal, RefusalKind};
use crate::rollback::{Files, Undo};
use crate::world::{Lease, Membership, NoLock, NotObserved, Observation};

/// Why a fix is rolled back that did not fail.
const ASKED: &str = "the operator asked for it; what it changed is as before, and was verified";
/// Rules that tell whether a member is well, whichever rule was fixed: those that pass before a rollback pass after it.
const WELL: [&str; 4] = ["certificate-soundness", "declaration-starts", "drift", "etcd-peer-certificate"];

/// What there is of a rollback: its plan, why there is none, and the ids of what is rolled back after it.
pub type RollbackPlan = (Option<Plan>, Vec<Refusal>, Vec<String>);

/// The plan of a rollback, or what keeps it.
enum Back {
    Planned(Box<Plan>),
    Refused(Vec<Refusal>),
}

/// What a rollback is planned from.
pub(super) struct Looked {
    seen: Option<Observation>,
    running: Option<Arc<Subject>>,
    membership: Result<Membership, String>,
}

impl<'a> Executor<'a> {
    /// Returns the plan that rolls back each of these fixes, or first the last later one of its rule, or why there is none; and
    /// the ids of those that are rolled back after that one. The world is looked at once.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn rollback_plans(&self, ids: &[&str]) -> Result<Vec<RollbackPlan>, ExecutorError> {
        let history = History::read(self.state)?;
        let mut looked = None;
        let mut plans = Vec::new();
        for id in ids {
            let chain = Self::chain(&history, id)?;
            let Some(first) = chain.first() else {
                plans.push((None, Vec::new(), Vec::new()));
                continue;
            };
            let then = chain.iter().skip(1).map(|fix| fix.id().to_owned()).collect();
            let looked = match &looked {
                Some(looked) => looked,
                None => looked.insert(self.look(first)?),
            };
            plans.push(match self.back_plan(looked, &history, first, &chain, false)? {
                Back::Planned(plan) => (Some(*plan), Vec::new(), then),
                Back::Refused(refusals) => (None, refusals, then),
            });
        }
        Ok(plans)
    }

    /// Rolls back the fix `id`, and before it every later one of its rule that stands. Where the outcome is that something else
    /// was rolled back, it is a rollback that has failed, and the fix stands.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn roll_back(&self, id: &str) -> Result<Outcome, ExecutorError> {
        let start = self.world.elapsed();
        let mut last = "it was rolled back before".to_owned();
        loop {
            if (self.interrupted)() {
                return Ok(Outcome::Interrupted { ids: Vec::new() });
            }
            let history = History::read(self.state)?;
            let wanted = history.fix(id).map(|fix| &*fix.plan);
            let mine = |fix: &&Fix| {
                let target = fix.plan.rollback_of.as_deref().unwrap_or(fix.id());
                target >= id && wanted.is_some_and(|plan| fix.plan.is_of(&plan.rule, &plan.state.component))
            };
            // A rollback that was begun is finished first.
            let pending =
                history.pending().find(mine).and_then(|fix| Some((fix, fix.plan.rollback_of.as_ref()?)));
            let (undone, outcome) = match pending {
                Some((pending, undone)) => match self.resume_record(pending.id(), true)? {
                    // Another run on this node has ended it meanwhile.
                    Turn::Done(_) | Turn::NotNow => continue,
                    Turn::Over(outcome) => (undone.as_str(), outcome),
                },
                None => {
                    let chain = Self::chain(&history, id)?;
                    let Some(next) = chain.first() else {
                        // One that ended while nobody answered could not say so.
                        if let (Some(fix), Ok(seen)) = (history.fix(id), self.world.observe()) {
                            self.end_stale_turn(&fix.plan, &seen, Some(&format!("--rollback {id}")))?;
                        }
                        return Ok(Outcome::RolledBack { id: id.to_owned(), why: last });
                    };
                    match self.roll_back_one(next.id(), id, start)? {
                        None => continue,
                        Some(outcome) => (next.id(), outcome),
                    }
                }
            };
            match outcome {
                // That of a fix whose rollback had failed as well is planned anew.
                Outcome::RolledBack { id, why }
                    if id == undone || history.fix(&id).is_some_and(|fix| fix.plan.rollback_of.is_none()) =>
                {
                    last = why;
                }
                // The rollback has failed, and would fail again.
                Outcome::RolledBack { id, why } => {
                    let why =
                        format!("{why}; what it had changed is undone, and fix {undone} stands as before");
                    return Ok(Outcome::RolledBack { id, why });
                }
                other => return Ok(other),
            }
        }
    }

    /// Rolls one fix back once others allow it; `None` when it is not the next one any more, because another run on this node
    /// has rolled it back meanwhile.
    fn roll_back_one(&self, id: &str, last: &str, start: Duration) -> Result<Option<Outcome>, ExecutorError> {
        let waited = RefCell::new(String::new());
        let mut against: Option<Duration> = None;
        loop {
            if (self.interrupted)() {
                return Ok(Some(Outcome::Interrupted { ids: Vec::new() }));
            }
            let local = match self.local_lock()? {
                Ok(lock) => lock,
                Err(outcome) => return Ok(Some(outcome)),
            };
            let plan_now = || -> Result<Option<(Fix, Back, Looked)>, ExecutorError> {
                let history = History::read(self.state)?;
                let chain = Self::chain(&history, last)?;
                let Some(fix) = chain.first().filter(|fix| fix.id() == id).copied() else { return Ok(None) };
                let looked = self.look(fix)?;
                let back = self.back_plan(&looked, &history, fix, &chain, false)?;
                Ok(Some((fix.clone(), back, looked)))
            };
            let Some((fix, mut back, looked)) = plan_now()? else { return Ok(None) };
            let mut held: Held<'_> = None;
            if matches!(&back, Back::Planned(plan) if plan.waits_for.is_empty()) {
                held = match self.cluster_lock(&fix.plan, self.wait) {
                    Ok(held) => held,
                    Err(NoLock::Held { owner }) => {
                        return Ok(Some(self.refused(
                            RefusalKind::OtherFix,
                            &format!("the lock of the cluster could not be taken: {owner} has it"),
                            "two members that restart at once can cost the cluster its quorum",
                            "try again later",
                        )));
                    }
                    // Where nobody answers, nobody has a turn, and the rollback may be what brings the quorum back.
                    Err(NoLock::Unknown(_)) => None,
                };
                // Somebody may have had a turn before the lock was taken.
                let Some((_, again, _)) = plan_now()? else { return Ok(None) };
                back = again;
            }
            let waits_for = match back {
                Back::Planned(plan) if plan.waits_for.is_empty() => {
                    return self.carry_out_back(local, &plan, held.as_deref(), None).map(Some);
                }
                Back::Planned(plan) => plan.waits_for,
                // What is against it may be the turn of another member.
                Back::Refused(refusals) => {
                    let since = *against.get_or_insert_with(|| self.world.elapsed());
                    let lasting = refusals.iter().any(|refusal| !passes_by_itself(refusal.kind));
                    if lasting || self.world.elapsed().saturating_sub(since) > PASSING {
                        return Ok(Some(Outcome::Refused { ids: Vec::new(), plan: None, refusals }));
                    }
                    drop((held, local));
                    self.tell_hoping(&refusals, &waited);
                    self.world.pause(POLL);
                    continue;
                }
            };
            against = None;
            if self.world.elapsed().saturating_sub(start) >= self.wait {
                return Ok(Some(Outcome::Waiting { ids: Vec::new(), waits_for, by_hand: Vec::new() }));
            }
            self.tell_waiting(&waits_for, &waited);
            drop((held, local));
            if let Some(seen) = &looked.seen {
                self.end_stale_turn(&fix.plan, seen, None)?;
            }
            self.world.pause(TURN_POLL);
        }
    }

    /// Returns the fix `id` and every later one of its rule that stands, the last one first.
    fn chain<'h>(history: &'h History, id: &str) -> Result<Vec<&'h Fix>, ExecutorError> {
        let wanted = &Self::fix_of(history, id)?.plan;
        let same = |fix: &&Fix| fix.plan.is_of(&wanted.rule, &wanted.state.component) && fix.id() >= id;
        Ok(history.standing().rev().filter(same).collect())
    }

    /// Looks at what a rollback is planned from.
    pub(super) fn look(&self, fix: &Fix) -> Result<Looked, ExecutorError> {
        let seen = match self.world.observe() {
            Err(NotObserved::Refused(_)) => None,
            other => Some(other?),
        };
        let running = match &seen {
            Some(seen) => Some(seen.subject.clone()),
            None => self.world.running()?,
        };
        let membership = self.world.membership(running.as_deref(), &via(&fix.plan));
        Ok(Looked { seen, running, membership })
    }

    /// Refuses a record of another node: its files and its member are elsewhere.
    pub(super) fn elsewhere(&self, fix: &Fix, looked: &Looked) -> Option<Refusal> {
        let state = &fix.plan.state;
        let node = self.world.name();
        // A node that was renamed since is known by its member.
        let same = |seen: &Observation| seen.members().iter().any(|m| m.this && m.id == state.member_id);
        if node == state.node || looked.seen.as_ref().is_some_and(same) {
            return None;
        }
        Some(refuse(
            RefusalKind::Unrestorable,
            format!(
                "fix {} was made to {} ({}) on node {}, and this is node {node}",
                fix.id(),
                state.member,
                state.member_id,
                state.node
            ),
            "what it says of files is not about those here",
            format!(
                "do it on the node of that member; here, close the record: seaworthy fix --forget {}",
                fix.id()
            ),
        ))
    }

    /// Plans the rollback of a fix, and checks that the earlier ones of the chain can be undone after it as well.
    fn back_plan(
        &self,
        looked: &Looked,
        history: &History,
        fix: &Fix,
        chain: &[&Fix],
        automatic: bool,
    ) -> Result<Back, ExecutorError> {
        let Looked { seen, running, membership } = looked;
        if let Some(refusal) = self.elsewhere(fix, looked) {
            return Ok(Back::Refused(vec![refusal]));
        }
        let progress = match seen {
            Some(seen) => seen.progress.as_ref().map_err(String::as_str),
            None => Err("the member does not run"),
        };
        let undo = Undo {
            fix,
            history,
            seen: seen.as_ref(),
            running: running.as_deref(),
            membership: membership.as_ref().map_err(String::as_str),
            progress,
            now: self.world.now(),
            automatic,
        };
        let root = Root::open(self.world.root())?;
        let files = Files::new(&root, self.state);
        let mut plan = match undo.plan(&files) {
            Ok(plan) => plan,
            Err(refusals) => return Ok(Back::Refused(refusals)),
        };
        let mut refusals = undo.chain(chain, &files);
        refusals.extend(obstacles(&root, &plan));
        if !refusals.is_empty() {
            return Ok(Back::Refused(refusals));
        }
        // What an audit says of the member now it says afterwards.
        if let (Some(seen), Some(last)) = (seen, plan.steps.last_mut())
            && !automatic
        {
            let passing = WELL.iter().filter(|rule| self.world.judge(rule, seen).is_ok());
            last.verify.extend(passing.map(|rule| Condition::RulePasses { rule: (*rule).to_owned() }));
        }
        Ok(Back::Planned(Box::new(plan)))
    }

    /// Carries the plan of a rollback out, under a record of its own. `why` it is rolled back is what failed; nothing when the
    /// operator asks for it.
    pub(super) fn carry_out_back(
        &self,
        local: record::Lock,
        plan: &Plan,
        held: Option<&(dyn Lease + 'a)>,
        why: Option<&str>,
    ) -> Result<Outcome, ExecutorError> {
        let undone = plan.rollback_of.clone().unwrap_or_default();
        let document = document(plan)?;
        let mut journal = match (local.create(&document), why) {
            (Ok(id), _) => local.open(&id)?,
            // On a full disk going back is still right; the record of what is undone says what is left to do.
            (Err(_), Some(_)) => local.without_record(&document),
            (Err(error), None) => return Err(error.into()),
        };
        let id = match journal.is_written() {
            true => journal.record().id.clone(),
            false => undone.clone(),
        };
        (self.tell)(&Progress::Turn { id: undone.clone(), doing: "rolled back", steps: plan.steps.len() });
        for what in &plan.remarks {
            (self.tell)(&Progress::Remark { what: what.clone() });
        }
        let etcd = self.world.running().ok().flatten();
        match self.carry_out(&mut journal, plan, held, etcd.as_deref()) {
            Ok(()) => {
                let why = why.unwrap_or(ASKED).to_owned();
                Ok(Outcome::RolledBack { id: undone, why })
            }
            Err(Stop(obstacle)) => {
                let failed = self.fail(&mut journal, &obstacle);
                match why {
                    // What failed there and back is for a person to look at.
                    Some(why) => {
                        let why = format!("{why}; rolling it back failed: {obstacle}{failed}");
                        Ok(Outcome::Stopped { id, why })
                    }
                    None => {
                        let why = format!("the rollback failed: {obstacle}{failed}");
                        self.undo_failed(journal.into_lock(), &id, held, &why)
                    }
                }
            }
        }
    }

    /// Rolls back what has just failed, in the same turn.
    pub(super) fn undo_failed(
        &self,
        local: record::Lock,
        id: &str,
        held: Option<&(dyn Lease + 'a)>,
        why: &str,
    ) -> Result<Outcome, ExecutorError> {
        let history = History::read(self.state)?;
        let Some(fix) = history.fix(id) else {
            return Ok(Outcome::Stopped { id: id.to_owned(), why: why.to_owned() });
        };
        match self.planned_back(&history, fix, true)? {
            Ok(plan) => self.carry_out_back(local, &plan, held, Some(why)),
            Err(against) => {
                let why = format!("{why}; it is not rolled back now: {against}");
                Ok(Outcome::Stopped { id: id.to_owned(), why })
            }
        }
    }

    /// Plans a rollback that follows from what this run did, or says what is against it, also once an election would be over.
    /// That of a fix whose steps have all had their effect is not `automatic`, and goes only where nobody else has a turn. A
    /// rollback that cannot be undone, because others have changed meanwhile what it was about, is planned anew from the world as
    /// it is now.
    pub(super) fn planned_back(
        &self,
        history: &History,
        fix: &Fix,
        automatic: bool,
    ) -> Result<Result<Box<Plan>, String>, ExecutorError> {
        let start = self.world.elapsed();
        let undone = fix.plan.rollback_of.as_deref().and_then(|id| history.fix(id));
        loop {
            let looked = self.look(fix)?;
            let mut back = self.back_plan(&looked, history, fix, &[], automatic)?;
            if let (Back::Refused(refusals), Some(undone)) = (&back, undone)
                && refusals.iter().any(|refusal| !passes_by_itself(refusal.kind))
                && let planned @ Back::Planned(_) =
                    self.back_plan(&looked, history, undone, &[], automatic)?
            {
                back = planned;
            }
            let refusals = match back {
                Back::Planned(plan) if plan.waits_for.is_empty() => return Ok(Ok(plan)),
                Back::Planned(plan) => return Ok(Err(joined(&plan.waits_for))),
                Back::Refused(refusals) => refusals,
            };
            let passes = refusals.iter().all(|refusal| passes_by_itself(refusal.kind));
            if !passes || self.world.elapsed().saturating_sub(start) >= PASSING {
                let against = refusals.iter().map(|r| format!("{} ({})", r.what, r.why));
                return Ok(Err(against.collect::<Vec<_>>().join("; ")));
            }
            self.world.pause(POLL);
        }
    }

    /// Goes on where a step has failed: a fix is rolled back, a rollback that the operator asked for is undone, and that of a
    /// fix that failed is planned anew.
    pub(super) fn resume_failed(
        &self,
        local: record::Lock,
        history: &History,
        fix: &Fix,
        held: Option<&(dyn Lease + 'a)>,
        why: &str,
    ) -> Result<Outcome, ExecutorError> {
        let undone = fix.plan.rollback_of.as_deref().and_then(|id| history.fix(id));
        match undone {
            // The rollback of what failed, which failed as well: it is planned anew from the world as it is now.
            Some(undone) if undone.record.status() != FixStatus::Done => {
                let why = undone.record.failure().unwrap_or(why);
                self.undo_failed(local, undone.id(), held, why)
            }
            _ => self.undo_failed(local, fix.id(), held, why),
        }
    }

    /// Returns why a fix is rolled back, for the one who reads how that ended.
    pub(super) fn why_rolled_back(&self, history: &History, id: &str) -> String {
        let fix = history.fix(id);
        fix.and_then(|fix| fix.record.failure()).unwrap_or(ASKED).to_owned()
    }
}
