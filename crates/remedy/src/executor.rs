//! Carries plans out: the only place where a fix changes something.
//!
//! A cluster has one member on each node, and this runs on each of them. What keeps the runs out of each other's way is a
//! lock in etcd itself: a member has its *turn* under it, made of one plan. With the lock in hand the node is observed and
//! planned anew, so a plan is never older than the last turn of anybody. Between turns a run waits for what its next plan
//! waits for. A member publishes its progress when a turn begins and when it ends; a turn that was killed in between keeps the
//! others waiting until it is finished or rolled back.
//!
//! Each step is written down before and after. What fails is rolled back by the plan of [`rollback`](crate::rollback), which is
//! a plan like any other: it has a record of its own, and goes through the same steps and conditions.

mod act;
mod back;
mod outcome;
mod turns;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::subject::Subject;
use seaworthy_journal::files::Root;
use seaworthy_journal::record::{self, Facts, FixStatus, Journal, JournalError, Process, State};

pub use back::RollbackPlan;
pub use outcome::{ExecutorError, Outcome, Progress};
use turns::{before, rank, touches_cluster};

use crate::condition::{Condition, Look, Needs};
use crate::fixes::{self, Task};
use crate::history::{Fix, History, Status, may_be_of, paths_of};
use crate::input::{Options, refuse};
use crate::plan::{Action, Plan, Refusal, RefusalKind, Stage, Step, Until, Waiting};
use crate::preflight::preflight;
use crate::progress::ProgressRecord;
use crate::rollouts::etcd::peer_tls;
use crate::world::{Lease, NoLock, NotObserved, World, process_of, until};

/// How long a lock outlives a run that was killed, at least.
const LOCK_TTL: Duration = Duration::from_secs(15);
/// How often others are looked at while they have their turns: a look asks each member, and a turn takes longer.
const TURN_POLL: Duration = Duration::from_secs(1);
/// How long the lock may be held by another before the run says so.
const SOON: Duration = Duration::from_secs(1);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How often the process is looked at while it restarts.
const PROCESS_POLL: Duration = Duration::from_millis(50);
/// How long something may be against a turn that passes by itself, like an election.
const PASSING: Duration = Duration::from_secs(20);
/// How long something that must hold before a step may take to hold.
const BEFORE: Duration = Duration::from_secs(15);
/// How long something that does not need a restart may take to be seen.
const SEEN: Duration = Duration::from_secs(30);

/// What carries the fix of a rule out on a node.
pub struct Executor<'a> {
    /// The node and its cluster.
    pub world: &'a dyn World,
    /// What is to be fixed.
    pub task: Task<'a>,
    /// What the operator wants, read anew before each plan: a turn may have made an authority that was not there.
    pub options: &'a dyn Fn() -> Options,
    /// Where it is written down.
    pub state: &'a State,
    /// How long to wait for other members.
    pub wait: Duration,
    /// How long a member may take to restart and to be connected and healthy again.
    pub settle: Duration,
    /// Is told what happens.
    pub tell: &'a dyn Fn(&Progress),
    /// Says whether the run is to end at the next safe boundary.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// Why a step was not carried out or not verified.
pub(crate) struct Stop(pub(crate) String);

impl<E: fmt::Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The lock of the cluster, where the plan needs it and it could be had.
type Held<'a> = Option<Box<dyn Lease + 'a>>;

/// How a turn ended.
enum Turn {
    /// It is done and verified.
    Done(String),
    /// There was nothing to do, or it must wait.
    NotNow,
    /// It is over for this run.
    Over(Outcome),
}

impl Turn {
    fn of(ended: Option<Outcome>, id: String) -> Self {
        ended.map_or(Self::Done(id), Self::Over)
    }
}

impl<'a> Executor<'a> {
    /// Carries out what is to be done on this node, turn by turn, waiting for other members in between.
    ///
    /// # Errors
    ///
    /// When nothing can be said or done at all. Whatever happens to a fix that was begun is an [`Outcome`].
    pub fn apply(&self) -> Result<Outcome, ExecutorError> {
        let mut ids = Vec::new();
        let start = self.world.elapsed();
        let mut against: Option<Duration> = None;
        let waited = RefCell::new(String::new());
        let since = |then: Duration| self.world.elapsed().saturating_sub(then);
        loop {
            if (self.interrupted)() {
                return Ok(Outcome::Interrupted { ids });
            }
            let history = History::read(self.state)?;
            if let Some(mine) =
                history.pending().find(|fix| fix.plan.is_of(self.task.rule, self.task.component))
            {
                match self.resume_record(mine.id(), false)? {
                    Turn::Done(id) => ids.push(id),
                    Turn::Over(outcome) => return Ok(outcome),
                    Turn::NotNow => self.world.pause(POLL),
                }
                continue;
            }
            let seen = match self.world.observe() {
                Err(NotObserved::Refused(refusal)) => Err(vec![refusal]),
                other => Ok(other?),
            };
            let options = (self.options)();
            let planned = seen.and_then(|seen| {
                let plan = fixes::plan(self.task, &seen.input(&options))?;
                Ok((plan, seen))
            });
            let (plan, seen) = match planned {
                Ok(planned) => planned,
                // What is against it may be the turn of another member.
                Err(refusals)
                    if !refusals.iter().any(|refusal| lasts(refusal.kind))
                        && since(*against.get_or_insert_with(|| self.world.elapsed())) < PASSING =>
                {
                    self.tell_hoping(&refusals, &waited);
                    self.world.pause(POLL);
                    continue;
                }
                Err(refusals) => return Ok(Outcome::Refused { ids, plan: None, refusals }),
            };
            against = None;
            if let Some(refusal) = self.turn_elsewhere(&plan, &seen) {
                return Ok(Outcome::Refused { ids, plan: Some(Box::new(plan)), refusals: vec![refusal] });
            }
            let again = plan.steps.is_empty().then_some(self.task.rule);
            self.end_stale_turn(&plan, &seen, again)?;
            let waits_for = match plan.steps.is_empty() {
                true if plan.then_waits_for.is_empty() => return self.conclude(ids),
                true => plan.then_waits_for.clone(),
                false => plan.waits_for.clone(),
            };
            if !waits_for.is_empty() {
                // Members whose certificates would not fit do not come to do so by waiting.
                let mut refusals = preflight(&plan, &seen.input(&options));
                refusals.retain(|refusal| refusal.kind == RefusalKind::Authority);
                if !refusals.is_empty() {
                    return Ok(Outcome::Refused { ids, plan: Some(Box::new(plan)), refusals });
                }
                // Nobody carries a certificate from node to node while this waits.
                let person = waits_for.iter().any(|waiting| waiting.until == Until::Certified);
                if person || since(start) >= self.wait {
                    let by_hand = if person { plan.by_hand } else { Vec::new() };
                    return Ok(Outcome::Waiting { ids, waits_for, by_hand });
                }
                self.tell_waiting(&waits_for, &waited);
                self.publish_evident(&plan, &seen, &options);
                self.world.pause(TURN_POLL);
                continue;
            }
            match self.turn(&ids, start, &waited)? {
                Turn::Done(id) => ids.push(id),
                Turn::NotNow => self.world.pause(POLL),
                Turn::Over(outcome) => return Ok(outcome),
            }
        }
    }

    /// Finishes the fix or rollback that was begun and not ended.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn resume(&self, id: &str) -> Result<Outcome, ExecutorError> {
        match self.resume_record(id, false)? {
            Turn::Done(id) => match self.fix(&id)?.plan.rollback_of.clone() {
                Some(undone) => {
                    Ok(Outcome::RolledBack { id: undone, why: "its rollback is finished".to_owned() })
                }
                None => Ok(Outcome::Done { ids: vec![id], verified: Vec::new() }),
            },
            Turn::Over(outcome) => Ok(outcome),
            Turn::NotNow => Ok(self.refused(
                RefusalKind::OtherFix,
                "it is ended: another run on this node has done so meanwhile, or no step of it had been begun",
                "there is nothing left to resume",
                "see `seaworthy fix --status`, and plan anew what is still wanted",
            )),
        }
    }

    /// Closes a record: the fix is neither finished nor rolled back any more. A damaged record is set aside, and where it is
    /// then is returned.
    ///
    /// # Errors
    ///
    /// When there is no such record, or it could not be closed.
    pub fn forget(&self, id: &str) -> Result<Option<PathBuf>, ExecutorError> {
        let history = History::read(self.state)?;
        let lock = self.state.lock()?;
        let Some(fix) = history.fix(id) else {
            return Ok(Some(lock.set_aside(id)?));
        };
        // The turn of a member on another node is not ended from here.
        match self.look(fix).is_ok_and(|looked| self.elsewhere(fix, &looked).is_some()) {
            true => lock.open(id)?.closed()?,
            false => self.close(lock, fix)?,
        }
        Ok(None)
    }

    /// Closes the record of a fix, and says that its turn is over: the others would wait for an end that nobody brings about.
    fn close(&self, lock: record::Lock, fix: &Fix) -> Result<(), ExecutorError> {
        let mut journal = lock.open(fix.id())?;
        journal.closed()?;
        let ended = self
            .cluster_lock(&fix.plan, SOON)
            .map_err(Stop::from)
            .and_then(|held| held.map_or(Ok(()), |lease| self.end_turn(&*lease, &fix.plan)));
        if let Err(Stop(why)) = ended {
            self.tell_untold(&why, fix.rule());
        }
        Ok(())
    }

    /// Returns a fix by its id.
    fn fix(&self, id: &str) -> Result<Fix, ExecutorError> {
        let record = match self.state.read(id) {
            Err(absent @ JournalError::NoSuchFix(_)) => return Err(absent.into()),
            record => record.map_err(|error| unusable(id, &error.to_string()))?,
        };
        Fix::of(self.state, record).map_err(|damaged| unusable(id, &damaged.why))
    }

    /// Returns a fix of those that were read, by its id.
    fn fix_of<'h>(history: &'h History, id: &str) -> Result<&'h Fix, ExecutorError> {
        match history.damaged().iter().find(|damaged| damaged.id == id) {
            Some(damaged) => Err(unusable(id, &damaged.why)),
            None => history.fix(id).ok_or_else(|| JournalError::NoSuchFix(id.to_owned()).into()),
        }
    }

    /// Says what is waited for, when that is news.
    fn tell_waiting(&self, waits_for: &[Waiting], told: &RefCell<String>) {
        self.tell_news(joined(waits_for), told);
    }

    /// Says what is against it and may be over soon, when that is news.
    fn tell_hoping(&self, refusals: &[Refusal], told: &RefCell<String>) {
        let against = refusals.iter().map(|r| r.what.as_str()).collect::<Vec<_>>().join("; ");
        self.tell_news(format!("{against}; this may pass within {} s", PASSING.as_secs()), told);
    }

    fn tell_news(&self, what: String, told: &RefCell<String>) {
        if told.replace(what.clone()) != what {
            (self.tell)(&Progress::Waiting { what });
        }
    }

    fn refused(&self, kind: RefusalKind, what: &str, why: &str, instead: &str) -> Outcome {
        Outcome::Refused { ids: Vec::new(), plan: None, refusals: vec![refuse(kind, what, why, instead)] }
    }

    /// Has one turn of this member, under the lock of the cluster.
    fn turn(&self, ids: &[String], start: Duration, told: &RefCell<String>) -> Result<Turn, ExecutorError> {
        let refused = |plan: Option<Plan>, refusals| {
            Turn::Over(Outcome::Refused { ids: ids.to_vec(), plan: plan.map(Box::new), refusals })
        };
        let local = match self.local_lock()? {
            Ok(lock) => lock,
            Err(outcome) => return Ok(Turn::Over(outcome)),
        };
        let root = Root::open(self.world.root())?;
        let mut held: Option<Held<'_>> = None;
        let begun = self.world.elapsed();
        let (seen, plan) = loop {
            if (self.interrupted)() {
                return Ok(Turn::Over(Outcome::Interrupted { ids: ids.to_vec() }));
            }
            let options = (self.options)();
            let planned = match self.world.observe() {
                Err(NotObserved::Refused(refusal)) => Err((None, vec![refusal])),
                other => {
                    let seen = other?;
                    let input = seen.input(&options);
                    match fixes::plan(self.task, &input) {
                        Err(refusals) => Err((None, refusals)),
                        Ok(plan) => {
                            if plan.steps.is_empty() || !plan.waits_for.is_empty() {
                                return Ok(Turn::NotNow);
                            }
                            let mut refusals = preflight(&plan, &input);
                            refusals.extend(obstacles(&root, &plan));
                            refusals.extend(self.blocked(&plan)?);
                            if refusals.is_empty() { Ok((seen, plan)) } else { Err((Some(plan), refusals)) }
                        }
                    }
                }
            };
            match planned {
                // Only with the lock in hand is what was seen still so.
                Ok((seen, plan)) if held.is_some() || !touches_cluster(&plan) => break (seen, plan),
                Ok((_, plan)) => {
                    let waited = self.world.elapsed().saturating_sub(start);
                    let left = self.wait.saturating_sub(waited).max(LOCK_TTL * 2);
                    match self.cluster_lock(&plan, left) {
                        Ok(taken) => held = Some(taken),
                        Err(why) => {
                            let refusal = refuse(
                                RefusalKind::Evidence,
                                format!("the lock of the cluster could not be taken: {why}"),
                                "two members that restart at once can cost the cluster its quorum",
                                "look at `seaworthy fix --status`, and try again",
                            );
                            return Ok(refused(Some(plan), vec![refusal]));
                        }
                    }
                }
                Err((plan, refusals)) => {
                    let lasting = refusals.iter().any(|r| !passes_by_itself(r.kind));
                    if lasting || self.world.elapsed().saturating_sub(begun) > PASSING {
                        return Ok(refused(plan, refusals));
                    }
                    self.tell_hoping(&refusals, told);
                    self.world.pause(POLL);
                }
            }
        };
        let held = held.flatten();
        self.remark_others(&plan)?;
        let mut journal = local.begin(&document(&plan)?)?;
        let id = journal.record().id.clone();
        (self.tell)(&Progress::Turn { id: id.clone(), doing: "begun", steps: plan.steps.len() });
        let done = self.carry_out(&mut journal, &plan, held.as_deref(), Some(&seen.subject));
        self.end_forth(journal, done, held.as_deref()).map(|ended| Turn::of(ended, id))
    }

    /// Ends a turn that makes a fix: what failed is rolled back.
    fn end_forth(
        &self,
        mut journal: Journal,
        done: Result<(), Stop>,
        held: Option<&(dyn Lease + 'a)>,
    ) -> Result<Option<Outcome>, ExecutorError> {
        let Err(Stop(why)) = done else { return Ok(None) };
        let id = journal.record().id.clone();
        let failed = self.fail(&mut journal, &why);
        self.undo_failed(journal.into_lock(), &id, held, &format!("{why}{failed}")).map(Some)
    }

    /// Writes down that a step has failed. If that is not possible (a full disk), going back is still right, and a re-run finds
    /// the way.
    fn fail(&self, journal: &mut Journal, why: &str) -> String {
        let step = journal.record().entries.iter().rev().find_map(|entry| match &entry.event {
            record::Event::Before { step, .. } => Some(step.clone()),
            _ => None,
        });
        match journal.failed(&step.unwrap_or_default(), why) {
            Ok(()) => String::new(),
            Err(error) => format!(" (and that could not be written down: {error})"),
        }
    }

    /// Refuses a plan while another fix on this node is not ended that may be about the same, or a damaged record may be.
    fn blocked(&self, plan: &Plan) -> Result<Vec<Refusal>, ExecutorError> {
        let history = History::read(self.state)?;
        let paths = plan.paths();
        let pending = history
            .pending()
            .filter(|other| !other.plan.is_of(self.task.rule, self.task.component))
            .filter(|other| {
                let same = plan.state.component == other.plan.state.component;
                same && plan.disturbs() && other.plan.disturbs() || !other.plan.paths().is_disjoint(&paths)
            });
        let mut refusals: Vec<Refusal> =
            pending.map(|other| pending_refusal(other, history.status(other))).collect();
        for damaged in history.damaged_pending() {
            let same = may_be_of(damaged, self.task.rule);
            let touches =
                paths_of(damaged).is_none_or(|others| paths.iter().any(|path| others.contains(*path)));
            if same || touches || plan.disturbs() {
                refusals.push(refuse(
                    RefusalKind::OtherFix,
                    format!("the record of fix {} cannot be read: {}", damaged.id, damaged.why),
                    "it may be of a fix that was begun and not ended, on the same files",
                    format!("look what it did, and set it aside: seaworthy fix --forget {}", damaged.id),
                ));
            }
        }
        Ok(refusals)
    }

    /// Says which other records are there and not in the way.
    fn remark_others(&self, plan: &Plan) -> Result<(), ExecutorError> {
        let history = History::read(self.state)?;
        for other in history.pending().filter(|other| !other.plan.is_of(&plan.rule, &plan.state.component)) {
            let refusal = pending_refusal(other, history.status(other));
            (self.tell)(&Progress::Remark { what: format!("{}: {}", refusal.what, refusal.instead) });
        }
        for damaged in history.damaged() {
            let what = format!(
                "the record of fix {} cannot be read, and is left alone: {}; set it aside with seaworthy fix --forget {}",
                damaged.id, damaged.why, damaged.id
            );
            (self.tell)(&Progress::Remark { what });
        }
        Ok(())
    }

    /// Resumes a fix or rollback that was begun. A rollback that the operator asks for again is planned `anew` where others have
    /// edited its files since.
    fn resume_record(&self, id: &str, anew: bool) -> Result<Turn, ExecutorError> {
        let local = match self.local_lock()? {
            Ok(lock) => lock,
            Err(outcome) => return Ok(Turn::Over(outcome)),
        };
        let history = History::read(self.state)?;
        let fix = Self::fix_of(&history, id)?.clone();
        // While the node's lock was waited for, its holder may have ended it.
        if !history.pending().any(|pending| pending.id() == id) {
            return Ok(Turn::NotNow);
        }
        if let Some(refusal) = self.elsewhere(&fix, &self.look(&fix)?) {
            let Refusal { what, instead, .. } = refusal;
            return Ok(Turn::Over(Outcome::Stopped { id: id.to_owned(), why: format!("{what}; {instead}") }));
        }
        if !fix.record.is_begun() {
            // Nothing was done yet, and the world may be another one by now: whoever still wants it plans it anew.
            self.close(local, &fix)?;
            return Ok(Turn::NotNow);
        }
        let plan = &fix.plan;
        let held = match self.cluster_lock(plan, LOCK_TTL * 3) {
            Ok(held) => held,
            // A rollback may be what brings the quorum back.
            Err(NoLock::Unknown(_)) if plan.rollback_of.is_some() => None,
            Err(no_lock) => {
                let mut why = format!(
                    "it is begun and not ended, and the lock of the cluster could not be taken: {no_lock}"
                );
                if matches!(no_lock, NoLock::Unknown(_)) {
                    why += &format!("; seaworthy fix --rollback {id} --apply rolls it back without the lock");
                }
                return Ok(Turn::Over(Outcome::Stopped { id: id.to_owned(), why }));
            }
        };
        let own = fix.record.status();
        let why = fix.record.failure().unwrap_or("it was interrupted").to_owned();
        if matches!(own, FixStatus::Failed | FixStatus::RollingBack) {
            return self.resume_failed(local, &history, &fix, held.as_deref(), &why).map(Turn::Over);
        }
        let stopped = |changed: &str| {
            let why = format!(
                "since it was interrupted, others have changed what it did: {changed}. Nothing was changed now"
            );
            Turn::Over(Outcome::Stopped { id: id.to_owned(), why })
        };
        // The membership and the process are what somebody puts right who has seen the half-made change.
        if let Err(Stop(changed)) = self.still_done(&fix, |needs| needs != Needs::Files) {
            return Ok(stopped(&changed));
        }
        if let Err(Stop(changed)) = self.still_done(&fix, |needs| needs == Needs::Files) {
            if let (true, Some(undone)) = (anew, &plan.rollback_of) {
                // What others have changed since stays, and the rest is rolled back by a plan that knows of it.
                let why =
                    format!("since its rollback was interrupted, others have changed what it did: {changed}");
                return self.undo_failed(local, undone, held.as_deref(), &why).map(Turn::Over);
            }
            return Ok(stopped(&changed));
        }
        let mut journal = local.open(id)?;
        (self.tell)(&Progress::Turn { id: id.to_owned(), doing: "resumed", steps: plan.steps.len() });
        let etcd = self.world.running()?;
        let done = self.carry_out(&mut journal, plan, held.as_deref(), etcd.as_deref());
        if plan.rollback_of.is_none() {
            return self
                .end_forth(journal, done, held.as_deref())
                .map(|ended| Turn::of(ended, id.to_owned()));
        }
        match done {
            Ok(()) => {
                let undone = plan.rollback_of.clone().unwrap_or_default();
                let why = self.why_rolled_back(&history, &undone);
                Ok(Turn::Over(Outcome::RolledBack { id: undone, why }))
            }
            Err(Stop(why)) => {
                let failed = self.fail(&mut journal, &why);
                let why = format!("the rollback failed: {why}{failed}");
                let local = journal.into_lock();
                self.resume_failed(local, &History::read(self.state)?, &fix, held.as_deref(), &why)
                    .map(Turn::Over)
            }
        }
    }

    /// Makes sure that what the steps of a fix did is still so, as far as it is about this.
    fn still_done(&self, fix: &Fix, about: impl Fn(Needs) -> bool) -> Result<(), Stop> {
        let mut effects = Vec::new();
        for (index, step) in fix.plan.steps.iter().enumerate() {
            if fix.record.is_after(&Fix::step_name(index)) {
                effects.extend(effects_of(fix, index, step));
            }
        }
        // A later step changes what an earlier one did: the last one counts.
        let via = via(&fix.plan);
        let effects: Vec<&Condition> = effects.iter().filter(|effect| about(effect.needs())).collect();
        self.hold(&effects, self.settle, None, &via)
    }

    /// Carries out the steps of `plan` that are not done yet, and publishes how far the member is.
    fn carry_out(
        &self,
        journal: &mut Journal,
        plan: &Plan,
        held: Option<&(dyn Lease + 'a)>,
        etcd: Option<&Subject>,
    ) -> Result<(), Stop> {
        let begun = self.publish(held, plan, |record| record.under_way = Some(plan.stage));
        let forth = plan.rollback_of.is_none();
        match begun {
            // A rollback is not kept from its end by a cluster that does not answer.
            Err(_) if !forth => {}
            begun => begun?,
        }
        self.steps(journal, plan, held, etcd)?;
        // A member has one record: where nothing of this fix is left, it says again how far the one before is.
        let reached = self.reached(plan);
        let before = if reached.is_none() { self.rollout_before(plan) } else { None };
        let (told, reached) = match &before {
            Some(fix) => (&*fix.plan, Some(fix.plan.stage)),
            None => (plan, reached),
        };
        let ended = |record: &mut ProgressRecord| {
            record.reached = reached;
            record.under_way = None;
        };
        if forth {
            self.publish(held, told, ended)?;
        } else {
            // A rollback without the lock, or one that has lost it meanwhile, may be able to take it by now. Without a last
            // record the others wait for the end of this turn.
            let late = match held.map(Lease::confirm) {
                Some(Ok(())) => None,
                _ => self.cluster_lock(plan, LOCK_TTL * 2).unwrap_or_else(|why| {
                    self.tell_untold(&why.to_string(), &self.again(plan));
                    None
                }),
            };
            self.publish(late.as_deref().or(held), told, ended)?;
        }
        journal.done()?;
        Ok(())
    }

    /// Returns the command that comes back to a rollback that is done: where it is that of a rollback, the fix stands.
    fn again(&self, plan: &Plan) -> String {
        let undone = plan.rollback_of.as_deref().unwrap_or_default();
        match self.fix(undone).is_ok_and(|fix| fix.plan.rollback_of.is_none()) {
            true => format!("--rollback {undone}"),
            false => plan.rule.clone(),
        }
    }

    /// Returns the plan of the fix that a rollback, or the rollback of one, goes back to; `None` for another plan.
    fn origin_of(&self, plan: &Plan) -> Option<Arc<Plan>> {
        let mut origin = self.fix(plan.rollback_of.as_deref()?).ok()?.plan;
        while let Some(fix) = origin.rollback_of.as_deref().and_then(|id| self.fix(id).ok()) {
            origin = fix.plan;
        }
        Some(origin)
    }

    /// Returns the last fix of another rule that stands and is a round of its own through the cluster.
    fn rollout_before(&self, plan: &Plan) -> Option<Fix> {
        let history = History::read(self.state).ok()?;
        let round = |fix: &&Fix| {
            fix.rule() != plan.rule && rank(fix.plan.stage) > 0 && history.status(fix) == Status::Done
        };
        history.standing().rev().find(round).cloned()
    }

    /// Returns how far the member is once the plan is carried out.
    fn reached(&self, plan: &Plan) -> Option<Stage> {
        let Some(undone) = &plan.rollback_of else { return Some(plan.stage) };
        let undone = self.fix(undone).ok()?;
        match &undone.plan.rollback_of {
            None => before(undone.plan.stage),
            Some(first) => Some(self.fix(first).ok()?.plan.stage),
        }
    }

    /// Carries out the steps of a plan, one after the other, and verifies each.
    fn steps(
        &self,
        journal: &mut Journal,
        plan: &Plan,
        held: Option<&(dyn Lease + 'a)>,
        etcd: Option<&Subject>,
    ) -> Result<(), Stop> {
        let root = Root::open(self.world.root())?;
        let forth = plan.rollback_of.is_none();
        let via = via(plan);
        // What the member is by now may be what the steps before have made of it: kubelet restarts it by itself.
        let (process, settings) = match journal.record().before(&Fix::step_name(0)) {
            Some(facts) => (facts.process.clone(), facts.settings.clone()),
            None => (etcd.and_then(process_of), former(plan, etcd)),
        };
        for (index, step) in plan.steps.iter().enumerate() {
            let name = Fix::step_name(index);
            if journal.record().is_after(&name) {
                continue;
            }
            let (number, of) = (index + 1, plan.steps.len());
            // A turn is not ended in the middle, but who asks for its end is answered.
            let _ = (self.interrupted)();
            (self.tell)(&Progress::Step { number, of, title: step.title.clone() });
            let start = self.world.elapsed();
            let half_made = !forth && (Self::is_half_made(journal, plan) || !self.was_asked_for(plan));
            // What was written down is used again: a second pre-image would be of what the step has made.
            let facts = match journal.record().before(&name) {
                Some(facts) => {
                    // What was so when it was begun may not be so any more, and it may not be done yet.
                    if step.disturbs() && !self.is_done(step, process.as_ref(), &via) {
                        let of_cluster = |condition: &&Condition| condition.needs() == Needs::Cluster;
                        let preconditions: Vec<&Condition> =
                            step.preconditions.iter().filter(of_cluster).collect();
                        self.hold(&preconditions, BEFORE, process.as_ref(), &via)?;
                    }
                    facts.clone()
                }
                None => {
                    let preconditions: Vec<&Condition> = step.preconditions.iter().collect();
                    self.hold(&preconditions, BEFORE, process.as_ref(), &via)?;
                    let preimages = match journal.is_written() {
                        true => act::preimages(&root, journal, step)?,
                        false => BTreeMap::new(),
                    };
                    let facts = Facts { process: process.clone(), preimages, settings: settings.clone() };
                    match journal.before(&name, facts.clone()) {
                        // A full disk must not keep a rollback that follows from it from its end.
                        Err(_) if !forth && !self.was_asked_for(plan) => {}
                        written => written?,
                    }
                    facts
                }
            };
            if let Some(lease) = held.filter(|_| step.disturbs()) {
                match lease.confirm() {
                    // Who has the lock by now relies on a member that is whole, before or after.
                    Err(_) if half_made => {}
                    confirmed => confirmed?,
                }
            }
            self.act_patiently(&root, plan, step, &facts)?;
            self.verify(step, process.as_ref(), &via)?;
            let written = act::written(&root, step)?;
            match journal.after(&name, written) {
                Err(_) if !forth && !self.was_asked_for(plan) => {}
                written => written?,
            }
            let what = step.verify.iter().map(ToString::to_string).collect();
            let took = self.world.elapsed().saturating_sub(start);
            (self.tell)(&Progress::Verified { what, took });
        }
        Ok(())
    }

    /// Does something again until it succeeds, as [`until`] does. It is not given up because the run is asked to end, but who
    /// asks is answered meanwhile.
    fn until<T>(
        &self,
        limit: Duration,
        poll: Duration,
        mut attempt: impl FnMut() -> Result<T, String>,
    ) -> Result<T, String> {
        until(self.world, limit, poll, || {
            let _ = (self.interrupted)();
            attempt()
        })
    }

    /// Returns whether a step that was begun is done, as far as this node alone can tell.
    fn is_done(&self, step: &Step, began_with: Option<&Process>, via: &[String]) -> bool {
        let told = match &step.action {
            Action::UpdateMember { member_id, to, .. } => {
                vec![Condition::PeerUrls { member_id: member_id.clone(), urls: to.clone() }]
            }
            _ => {
                step.verify.iter().filter(|condition| condition.needs() != Needs::Cluster).cloned().collect()
            }
        };
        !told.is_empty()
            && Look::new(self.world, began_with, via).unmet(&told.iter().collect::<Vec<_>>()).is_ok()
    }

    /// Returns whether a step of the plan was begun that has to be finished or undone.
    fn is_half_made(journal: &Journal, plan: &Plan) -> bool {
        let changes = |step: &Step| !matches!(step.action, Action::MoveLeader { .. });
        let begun = |index| journal.record().before(&Fix::step_name(index)).is_some();
        plan.steps.iter().enumerate().any(|(index, step)| changes(step) && begun(index))
    }

    /// Returns whether the operator asked for a rollback; else it follows from a step that failed.
    fn was_asked_for(&self, plan: &Plan) -> bool {
        let undone = plan.rollback_of.as_deref().and_then(|id| self.fix(id).ok());
        undone.is_some_and(|undone| undone.record.status() == FixStatus::Done)
    }

    /// Makes sure that conditions hold, those of files at once and the others within `limit`.
    fn hold(
        &self,
        conditions: &[&Condition],
        limit: Duration,
        began_with: Option<&Process>,
        via: &[String],
    ) -> Result<(), Stop> {
        let of_files: Vec<&Condition> =
            conditions.iter().copied().filter(|condition| condition.needs() == Needs::Files).collect();
        Look::new(self.world, began_with, via).unmet(&of_files)?;
        let others: Vec<&Condition> =
            conditions.iter().copied().filter(|condition| condition.needs() != Needs::Files).collect();
        if others.is_empty() {
            return Ok(());
        }
        self.until(limit, POLL, || Look::new(self.world, began_with, via).unmet(&others)).map_err(Stop)
    }

    /// Makes sure that a step has had its effect.
    fn verify(&self, step: &Step, began_with: Option<&Process>, via: &[String]) -> Result<(), Stop> {
        let limit = if step.restarts { self.settle } else { SEEN };
        // A process that has just restarted is seen sooner than what it says.
        let of_process: Vec<&Condition> =
            step.verify.iter().filter(|condition| condition.needs() == Needs::Process).collect();
        if !of_process.is_empty() {
            self.until(limit, PROCESS_POLL, || Look::new(self.world, began_with, via).unmet(&of_process))
                .map_err(|why| Stop(format!("it does not run as it should: {why}")))?;
        }
        let all: Vec<&Condition> = step.verify.iter().collect();
        self.hold(&all, limit, began_with, via)
            .map_err(|Stop(why)| Stop(format!("it could not be verified: {why}")))
    }

    /// Does what the step says. What asks the cluster is tried again for a while: it may be between two leaders. In a rollback
    /// a leader that cannot hand over restarts all the same: an election costs less than a rollback without an end.
    fn act_patiently(&self, root: &Root, plan: &Plan, step: &Step, facts: &Facts) -> Result<(), Stop> {
        let moves = matches!(step.action, Action::MoveLeader { .. });
        let asks = moves || matches!(step.action, Action::UpdateMember { .. });
        let limit = if asks { PASSING } else { Duration::ZERO };
        let act = || self.act(root, plan, step, facts).map_err(|Stop(why)| why);
        if !asks {
            return act().map_err(Stop);
        }
        match self.until(limit, POLL, act) {
            Err(_) if plan.rollback_of.is_some() && moves => Ok(()),
            done => done.map_err(Stop),
        }
    }

    /// Judges the result, once every member is where the fix leads.
    fn conclude(&self, ids: Vec<String>) -> Result<Outcome, ExecutorError> {
        let why = match self.proven() {
            Ok(verified) => return Ok(Outcome::Done { ids, verified }),
            Err(Stop(why)) => why,
        };
        let Some(id) = ids.last().cloned() else { return Ok(Outcome::NotProven { ids, why }) };
        let local = match self.local_lock()? {
            Ok(lock) => lock,
            Err(outcome) => return Ok(outcome),
        };
        let history = History::read(self.state)?;
        let fix = Self::fix_of(&history, &id)?;
        // What was done is verified and safe. To restart in the turn of another would not be.
        let against = match self.cluster_lock(&fix.plan, self.wait) {
            Ok(held) => match self.planned_back(&history, fix, false)? {
                Ok(plan) => return self.carry_out_back(local, &plan, held.as_deref(), Some(&why)),
                Err(against) => against,
            },
            Err(no_lock) => format!("the lock of the cluster could not be taken: {no_lock}"),
        };
        Ok(Outcome::NotProven { ids, why: format!("{why}; it was not rolled back: {against}") })
    }

    /// Returns what was verified of the whole cluster, once every member is where the fix leads.
    fn proven(&self) -> Result<Vec<String>, Stop> {
        let passes = Condition::RulePasses { rule: self.task.rule.to_owned() };
        let encrypted = [
            Condition::ClusterHealthy,
            Condition::LinksFull,
            Condition::NoPlaintextConnection,
            Condition::OthersSpeakTls,
        ];
        let seen = self
            .until(self.settle, POLL, || {
                let look = Look::new(self.world, None, &[]);
                look.unmet(&[&passes])?;
                if self.task.rule == peer_tls::RULE && look.seen()?.members().len() > 1 {
                    look.unmet(&encrypted.iter().collect::<Vec<_>>())?;
                }
                look.into_seen()
            })
            .map_err(Stop)?;
        let mut verified = vec![format!("{} passes in an audit of this node", self.task.rule)];
        let count = seen.members().len();
        if self.task.rule == peer_tls::RULE && count > 1 {
            verified.push(format!("the peer ports of all {count} members speak TLS, and no plaintext"));
            verified.push("no plaintext connection with a peer is left".to_owned());
            verified.push("all members are healthy, and connected both ways".to_owned());
            let revision = self.world.same_data(&seen)?;
            verified.push(format!("all members have the same data at revision {revision}"));
        }
        Ok(verified)
    }
}

fn document(plan: &Plan) -> Result<serde_json::Value, ExecutorError> {
    serde_json::to_value(plan).map_err(|error| ExecutorError::Record(error.to_string()))
}

/// Returns what says that a fix or rollback of another rule is not ended, and how to end it.
pub(crate) fn pending_refusal(fix: &Fix, status: Status) -> Refusal {
    let (id, rule) = (fix.id(), fix.rule());
    let how = match (status, &fix.plan.rollback_of) {
        (Status::Failed, None) => "has failed and is not rolled back",
        (_, None) => "is begun and not ended",
        (Status::Failed, Some(_)) => "is a rollback that has failed",
        (_, Some(_)) => "is a rollback that is not ended",
    };
    let back = match &fix.plan.rollback_of {
        None => format!("roll it back (seaworthy fix --rollback {id}), "),
        Some(_) => String::new(),
    };
    refuse(
        RefusalKind::OtherFix,
        format!("fix {id} of {rule} {how}"),
        "what it has half changed must be known before something else is changed",
        format!(
            "finish it (seaworthy fix --resume {id}), {back}or close it as it is (seaworthy fix --forget {id}); see \
             seaworthy fix --status"
        ),
    )
}

/// Refuses to change files that could not be changed, before anything is.
pub fn obstacles(root: &Root, plan: &Plan) -> Vec<Refusal> {
    let written: Vec<&str> = plan.steps.iter().flat_map(|step| step.action.written()).collect();
    let refusal = |path: &str| {
        let why = root.obstacle(std::path::Path::new(path), written.contains(&path))?;
        Some(refuse(
            RefusalKind::Unrestorable,
            format!("{path} cannot be changed: {why}"),
            "the plan would stop in the middle, and could not be undone there",
            "make it a file, on a file system, that can be written to",
        ))
    };
    plan.paths().into_iter().filter_map(refusal).collect()
}

/// Returns what holds once a step was done, as long as nobody has changed it.
fn effects_of(fix: &Fix, index: usize, step: &Step) -> Vec<Condition> {
    let written = |path: &str| {
        let hash = fix.record.written(&Fix::step_name(index), path)?;
        Some(Condition::File { path: path.to_owned(), sha256: hash.to_owned() })
    };
    match &step.action {
        Action::Edit { path, change, .. } => {
            vec![Condition::Made { path: path.clone(), change: change.clone() }]
        }
        Action::SetAttributes { path, to, .. } => {
            vec![Condition::Attributes { path: path.clone(), attributes: *to }]
        }
        Action::UpdateMember { member_id, to, .. } => {
            vec![Condition::PeerUrls { member_id: member_id.clone(), urls: to.clone() }]
        }
        Action::Restart { settings, .. } => {
            vec![Condition::SettingsEffective { settings: settings.clone() }]
        }
        Action::Restore { path, after: None, .. } => vec![Condition::Absent { path: path.clone() }],
        Action::MoveLeader { .. } => Vec::new(),
        action => action.written().into_iter().filter_map(written).collect(),
    }
}

/// Returns what is waited for, in one clause.
fn joined(waits_for: &[Waiting]) -> String {
    waits_for.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn unusable(id: &str, why: &str) -> ExecutorError {
    ExecutorError::Record(format!("the record of fix {id} cannot be used: {why}"))
}

/// Returns the client URLs of others that the plan knows.
fn via(plan: &Plan) -> Vec<String> {
    let known = plan.steps.iter().filter_map(|step| match &step.action {
        Action::UpdateMember { via, .. } => Some(via.clone()),
        _ => None,
    });
    known.flatten().collect()
}

/// Returns whether a refusal can be the passing effect of another member's turn.
fn passes_by_itself(kind: RefusalKind) -> bool {
    matches!(kind, RefusalKind::Evidence | RefusalKind::Health | RefusalKind::Quorum | RefusalKind::Order)
}

/// Returns whether a refusal is about this node alone, and only a person can do something about it.
fn lasts(kind: RefusalKind) -> bool {
    use RefusalKind::{Edit, Environment, Rival, TwoMembers, Unrestorable, Unsupported, Version};
    matches!(kind, Edit | Environment | Rival | TwoMembers | Unrestorable | Unsupported | Version)
}

/// Returns the values that the settings of the plan have now.
fn former(plan: &Plan, etcd: Option<&Subject>) -> BTreeMap<String, Option<String>> {
    let settings = etcd.and_then(|etcd| etcd.settings.value());
    let now = |name: &String| {
        let setting = settings?.get(name)?;
        setting.set.then(|| setting.value.clone())
    };
    let restarts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Restart { settings, .. } => Some(settings),
        _ => None,
    });
    restarts.flat_map(BTreeMap::keys).map(|name| (name.clone(), now(name))).collect()
}
