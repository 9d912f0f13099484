//! Carries plans out: the only place where a fix changes something.
//!
//! A cluster has one member on each node, and this runs on each of them. What keeps the runs out of each other's way is a
//! lock in etcd itself: a member has its *turn* under it, made of one plan. With the lock in hand the node is observed and
//! planned anew, so a plan is never older than the last turn of anybody. Between turns a run waits for what its next plan
//! waits for. A turn leaves word in etcd when it begins and when it ends; one that was killed in between keeps the others
//! waiting until it is finished or taken back, which every run does first.
//!
//! Each step is written down before and after. What fails is taken back by the plan of [`way_back`](crate::way_back),
//! which goes through the same steps and verifications.

mod act;
mod verify;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seaworthy_catalogue::Catalogue;
use seaworthy_etcd_api::{Error, Lock};
use seaworthy_evidence::Etcd;

use crate::lint::lint;
use crate::node::{Node, NotObserved, Observation};
use crate::note::{self, Note};
use crate::plan::{Action, Objection, Plan, Refusal, Stage, Step, Until, Waiting};
use crate::planner::{self, Options};
use crate::way_back::{self, Facts, Process};
use seaworthy_journal::files::{FileError, Root};
use seaworthy_journal::record::{self as journal, Journal, JournalError, Record, Standing, State};

/// How long a lock outlives a run that was killed.
const LOCK_TTL: Duration = Duration::from_secs(15);
/// How long the lock may be held by another before that is worth a word.
const SOON: Duration = Duration::from_secs(1);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How long something may be against a turn that passes by itself, like an election.
const PATIENCE: Duration = Duration::from_secs(20);

/// A rule to fix on a node.
pub struct Fix<'a> {
    /// The node.
    pub node: &'a Node,
    /// The rule.
    pub rule: &'a str,
    /// What the operator wants, read anew before each plan: a turn may have made an authority that was not there.
    pub options: &'a dyn Fn() -> Options,
    /// Where it is written down.
    pub state: &'a State,
    /// The rules, by which the result is judged.
    pub catalogue: &'a Catalogue,
    /// How long to wait for other members.
    pub wait: Duration,
    /// How long a member may take to restart and to be connected and healthy again.
    pub settle: Duration,
    /// Is told what happens.
    pub tell: &'a dyn Fn(&Progress),
}

/// What happens while a fix is carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A fix is begun, gone on with or taken back.
    Turn {
        /// Its id.
        id: String,
        /// What it does.
        doing: &'static str,
        /// How many steps it has.
        steps: usize,
    },
    /// A step is begun.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What it does.
        title: String,
    },
    /// A step is done and verified.
    Verified {
        /// What was verified.
        what: Vec<String>,
        /// How long it took.
        took: Duration,
    },
    /// Something is waited for.
    Waiting {
        /// What.
        what: String,
    },
}

/// How a fix ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The rule passes. These fixes were made; none when it passed already.
    Done {
        /// Their ids.
        ids: Vec<String>,
        /// What was verified at the end.
        verified: Vec<String>,
    },
    /// Nothing is left to be done by this fix, and the rule does not pass all the same.
    NotProven {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
        /// What is missing.
        why: String,
    },
    /// Something is against it. What was done before stays, and is safe.
    Refused {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
        /// The plan, if there is one.
        plan: Option<Box<Plan>>,
        /// What is against it.
        refusals: Vec<Refusal>,
    },
    /// Something went wrong, and was taken back.
    RolledBack {
        /// Id of the fix.
        id: String,
        /// What went wrong.
        why: String,
    },
    /// Something went wrong, and could not be taken back either.
    Stopped {
        /// Id of the fix.
        id: String,
        /// What went wrong, and what kept it from being taken back.
        why: String,
    },
    /// Other members have not got so far yet. What was done before stays, and is safe.
    Waiting {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
        /// What is waited for.
        waits_for: Vec<Waiting>,
        /// What a person has to do.
        by_hand: Vec<String>,
    },
}

/// Why nothing could be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The node.
    #[error(transparent)]
    NotObserved(#[from] NotObserved),
    /// A plan that was written down is not one of this version.
    #[error(
        "the plan of fix {id} cannot be read: {why}; finish it with the version of seaworthy that began it"
    )]
    Plan {
        /// Id of the fix.
        id: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a step was not carried out or not verified.
struct Stop(String);

impl<E: fmt::Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Why the lock of the cluster was not taken.
enum NoLock {
    /// Another has it.
    Held(String),
    /// The cluster could not be asked for it.
    Unknown(String),
}

impl fmt::Display for NoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(why) | Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// How a turn ended.
enum Turn {
    /// It is done and verified.
    Done(String),
    /// There was nothing to do, or it must wait.
    NotNow,
    /// It is over for this run.
    Over(Outcome),
}

impl Fix<'_> {
    /// Carries out what is to be done on this node, turn by turn, waiting for other members in between.
    ///
    /// # Errors
    ///
    /// When nothing can be said or done at all. Whatever happens to a fix that was begun is an [`Outcome`].
    pub fn apply(&self) -> Result<Outcome, ApplyError> {
        let mut ids = Vec::new();
        let start = Instant::now();
        let mut against: Option<Instant> = None;
        let waited = RefCell::new(String::new());
        loop {
            if let Some(record) = self.state.current()? {
                let mine = record.plan.get("rule").and_then(|rule| rule.as_str()) == Some(self.rule);
                match self.resume(&record)? {
                    // What another rule's fix did is not this one's to take back.
                    Turn::Done(id) => ids.extend(mine.then_some(id)),
                    Turn::Over(outcome) => return Ok(outcome),
                    Turn::NotNow => thread::sleep(POLL),
                }
                continue;
            }
            let seen = match self.node.observe() {
                Err(NotObserved::Refused(refusal)) => Err(vec![refusal]),
                other => Ok(other?),
            };
            let options = (self.options)();
            let planned = seen.and_then(|seen| {
                let plan = planner::plan(self.rule, &seen.situation(&options))?;
                Ok((plan, seen))
            });
            let (plan, seen) = match planned {
                Ok(planned) => planned,
                // What is against it may be the turn of another member.
                Err(refusals) if against.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                    self.tell_hoping(&refusals, &waited);
                    thread::sleep(POLL);
                    continue;
                }
                Err(refusals) => return Ok(Outcome::Refused { ids, plan: None, refusals }),
            };
            against = None;
            let waits_for = match plan.steps.is_empty() {
                true if plan.then_waits_for.is_empty() => return self.conclude(ids),
                true => plan.then_waits_for.clone(),
                false => plan.waits_for.clone(),
            };
            if !waits_for.is_empty() {
                // Nobody carries a certificate from node to node while this waits.
                let person = waits_for.iter().any(|waiting| waiting.until == Until::Certified);
                if person || start.elapsed() >= self.wait {
                    let by_hand = if person { plan.by_hand } else { Vec::new() };
                    return Ok(Outcome::Waiting { ids, waits_for, by_hand });
                }
                self.tell_waiting(&waits_for, &waited);
                self.own_up(&plan, &seen, &options);
                thread::sleep(POLL);
                continue;
            }
            match self.turn(&ids, start, &waited)? {
                Turn::Done(id) => ids.push(id),
                Turn::NotNow => thread::sleep(POLL),
                Turn::Over(outcome) => return Ok(outcome),
            }
        }
    }

    /// Finishes the fix that was begun and not ended, or takes it back when that was begun, and then goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn go_on(&self, id: &str) -> Result<Outcome, ApplyError> {
        let record = self.state.read(id)?;
        match self.resume(&record)? {
            Turn::Done(id) => Ok(Outcome::Done { ids: vec![id], verified: Vec::new() }),
            Turn::Over(outcome) => Ok(outcome),
            Turn::NotNow => Ok(Outcome::Refused {
                ids: Vec::new(),
                plan: None,
                refusals: vec![refusal(
                    "another run on this node has ended it meanwhile",
                    "there is nothing left to go on with",
                )],
            }),
        }
    }

    /// Takes back the fix `id`, and before it every later one of its rule that stands.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn roll_back(&self, id: &str) -> Result<Outcome, ApplyError> {
        let rule = |record: &Record| record.plan.get("rule").cloned();
        let meant = self.state.read(id)?;
        let start = Instant::now();
        let mut last = Outcome::RolledBack { id: id.to_owned(), why: "it was taken back before".to_owned() };
        for later in self.state.list()?.into_iter().rev().filter(|other| other.as_str() >= id) {
            let record = self.state.read(&later)?;
            if rule(&record) != rule(&meant) || record.standing() == Standing::RolledBack {
                continue;
            }
            last = match self.take_back(&later, start)? {
                Ok(outcome) => outcome,
                Err(waits_for) => {
                    return Ok(Outcome::Waiting { ids: Vec::new(), waits_for, by_hand: Vec::new() });
                }
            };
            match &last {
                Outcome::RolledBack { .. } => {}
                other => return Ok(other.clone()),
            }
        }
        Ok(last)
    }

    /// Takes one fix back once others allow it, or says for whom it still waits in the end.
    fn take_back(&self, id: &str, start: Instant) -> Result<Result<Outcome, Vec<Waiting>>, ApplyError> {
        let waited = RefCell::new(String::new());
        loop {
            let lock = match self.local_lock()? {
                Ok(lock) => lock,
                Err(outcome) => return Ok(Ok(outcome)),
            };
            let mut journal = lock.open(id)?;
            let plan = plan_of(journal.record())?;
            let mut waits_for = self.back_waits_for(journal.record(), &plan);
            if waits_for.is_empty() {
                let lock = match self.cluster_lock(&plan, self.wait) {
                    Ok(lock) => lock,
                    Err(NoLock::Held(why)) => {
                        let refusal = refusal(
                            &format!("the lock of the cluster could not be taken: {why}"),
                            "two members that restart at once can cost the cluster its quorum",
                        );
                        let refusals = vec![refusal];
                        return Ok(Ok(Outcome::Refused { ids: Vec::new(), plan: None, refusals }));
                    }
                    // Where nobody answers, nobody has a turn, and the way back may be what brings the quorum back.
                    Err(NoLock::Unknown(_)) => None,
                };
                // Somebody may have had a turn before the lock was taken.
                waits_for = self.back_waits_for(journal.record(), &plan);
                if waits_for.is_empty() {
                    let wanted = "the operator wants it back as it was";
                    let why = journal.record().rolling_back().unwrap_or(wanted).to_owned();
                    return self.back(&mut journal, &plan, lock.as_ref(), &why).map(Ok);
                }
            }
            if start.elapsed() >= self.wait {
                return Ok(Err(waits_for));
            }
            self.tell_waiting(&waits_for, &waited);
            drop(journal);
            thread::sleep(POLL);
        }
    }

    /// Says what is waited for, when that is news.
    fn tell_waiting(&self, waits_for: &[Waiting], told: &RefCell<String>) {
        self.tell_news(waits_for.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), told);
    }

    /// Says what is against it and may be over soon, when that is news.
    fn tell_hoping(&self, refusals: &[Refusal], told: &RefCell<String>) {
        let against = refusals.iter().map(|r| r.what.as_str()).collect::<Vec<_>>().join("; ");
        self.tell_news(format!("{against}; this may pass within {} s", PATIENCE.as_secs()), told);
    }

    fn tell_news(&self, what: String, told: &RefCell<String>) {
        if told.replace(what.clone()) != what {
            (self.tell)(&Progress::Waiting { what });
        }
    }

    /// Returns whom the way back of the fix waits for.
    fn back_waits_for(&self, record: &Record, plan: &Plan) -> Vec<Waiting> {
        let Ok(seen) = self.node.observe() else { return Vec::new() };
        let members = seen.etcd.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
        let begun = record.entries.first().map_or(Timestamp::MIN, |entry| entry.at);
        way_back::waits_for(plan, begun, members, &seen.notes)
    }

    /// Has one turn of this member, under the lock of the cluster.
    fn turn(&self, ids: &[String], start: Instant, told: &RefCell<String>) -> Result<Turn, ApplyError> {
        let refused = |plan: Option<Plan>, refusals| {
            Turn::Over(Outcome::Refused { ids: ids.to_vec(), plan: plan.map(Box::new), refusals })
        };
        let local = match self.local_lock()? {
            Ok(lock) => lock,
            Err(outcome) => return Ok(Turn::Over(outcome)),
        };
        let mut lock: Option<Lock> = None;
        let begun = Instant::now();
        let (seen, plan) = loop {
            let options = (self.options)();
            let unseen = |refusal| (None, vec![refusal]);
            let planned = match self.node.observe() {
                Err(NotObserved::Refused(refusal)) => Err(unseen(refusal)),
                other => {
                    let seen = other?;
                    let situation = seen.situation(&options);
                    match planner::plan(self.rule, &situation) {
                        Err(refusals) => Err((None, refusals)),
                        Ok(plan) => {
                            if plan.steps.is_empty() || !plan.waits_for.is_empty() {
                                return Ok(Turn::NotNow);
                            }
                            match lint(&plan, &situation) {
                                refusals if refusals.is_empty() => Ok((seen, plan)),
                                refusals => Err((Some(plan), refusals)),
                            }
                        }
                    }
                }
            };
            match planned {
                // Only with the lock in hand is what was seen still so.
                Ok((seen, plan)) if lock.is_some() || !touches_cluster(&plan) => break (seen, plan),
                Ok((_, plan)) => {
                    let left = self.wait.saturating_sub(start.elapsed()).max(LOCK_TTL * 2);
                    match self.cluster_lock(&plan, left) {
                        Ok(taken) => lock = taken,
                        Err(why) => {
                            let refusal =
                                refusal("the lock of the cluster could not be taken", &why.to_string());
                            return Ok(refused(Some(plan), vec![refusal]));
                        }
                    }
                }
                Err((plan, refusals)) => {
                    let lasting = refusals.iter().any(|r| !passes_by_itself(r.objection));
                    if lasting || begun.elapsed() > PATIENCE {
                        return Ok(refused(plan, refusals));
                    }
                    self.tell_hoping(&refusals, told);
                    thread::sleep(POLL);
                }
            }
        };
        let document = serde_json::to_value(&plan)
            .map_err(|error| ApplyError::Plan { id: "to be begun".to_owned(), why: error.to_string() })?;
        let mut journal = local.begin(&document)?;
        let id = journal.record().id.clone();
        (self.tell)(&Progress::Turn { id: id.clone(), doing: "begun", steps: plan.steps.len() });
        self.carry_out(&mut journal, &plan, lock.as_ref(), Some(&seen.etcd))
            .map(|ended| ended_turn(ended, id))
    }

    /// Goes on with a fix that was begun.
    fn resume(&self, record: &Record) -> Result<Turn, ApplyError> {
        let local = match self.local_lock()? {
            Ok(lock) => lock,
            Err(outcome) => return Ok(Turn::Over(outcome)),
        };
        let mut journal = local.open(&record.id)?;
        // While the node's lock was waited for, its holder may have ended it.
        if matches!(journal.record().standing(), Standing::Done | Standing::RolledBack) {
            return Ok(Turn::NotNow);
        }
        let id = journal.record().id.clone();
        let plan = plan_of(journal.record())?;
        let lock = match self.cluster_lock(&plan, LOCK_TTL * 3) {
            Ok(lock) => lock,
            Err(no_lock) => {
                let mut why = format!(
                    "it is begun and not ended, and the lock of the cluster could not be taken: {no_lock}"
                );
                if matches!(no_lock, NoLock::Unknown(_)) {
                    why += &format!("; seaworthy fix --rollback {id} takes it back without the lock");
                }
                return Ok(Turn::Over(Outcome::Stopped { id, why }));
            }
        };
        if let Some(why) = journal.record().rolling_back().map(str::to_owned) {
            return self.back(&mut journal, &plan, lock.as_ref(), &why).map(Turn::Over);
        }
        (self.tell)(&Progress::Turn { id: id.clone(), doing: "gone on with", steps: plan.steps.len() });
        let etcd = self.node.glance()?;
        self.carry_out(&mut journal, &plan, lock.as_ref(), etcd.as_ref()).map(|ended| ended_turn(ended, id))
    }

    /// Carries out the steps of `plan` that are not done yet, and takes all of them back when one fails.
    fn carry_out(
        &self,
        journal: &mut Journal,
        plan: &Plan,
        lock: Option<&Lock>,
        etcd: Option<&Etcd>,
    ) -> Result<Option<Outcome>, ApplyError> {
        let done = self
            .leave_word(lock, plan, |note| note.under_way = Some(plan.stage))
            .and_then(|()| self.steps(journal, plan, "", lock, etcd))
            .and_then(|()| {
                self.leave_word(lock, plan, |note| {
                    note.reached = Some(plan.stage);
                    note.under_way = None;
                })
            });
        match done {
            Ok(()) => {
                journal.done()?;
                Ok(None)
            }
            Err(Stop(why)) => self.back(journal, plan, lock, &why).map(Some),
        }
    }

    /// Takes back what was begun of `plan`, whatever was `why`.
    fn back(
        &self,
        journal: &mut Journal,
        plan: &Plan,
        lock: Option<&Lock>,
        why: &str,
    ) -> Result<Outcome, ApplyError> {
        let id = journal.record().id.clone();
        let begun = match begun(journal.record(), plan) {
            Ok(begun) => begun,
            Err(error) => {
                let why =
                    format!("{why}; it cannot be taken back, because its journal cannot be read: {error}");
                return Ok(Outcome::Stopped { id, why });
            }
        };
        if journal.record().rolling_back().is_none() {
            // If it cannot be written down (a full disk), going back is still right, and a re-run finds the way.
            let _ = journal.rolling_back(why);
        }
        let waits_for = self.back_waits_for(journal.record(), plan);
        let back = way_back::way_back(plan, &begun, waits_for, self.has_quorum());
        if !back.waits_for.is_empty() {
            let waits = back.waits_for.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let why = format!("{why}; it cannot be taken back yet: {waits}");
            return Ok(Outcome::Stopped { id, why });
        }
        if let Some(cost) = self.cost_of_restart(journal.record(), &back) {
            return Ok(Outcome::Stopped { id, why: format!("{why}; it is not taken back now: {cost}") });
        }
        (self.tell)(&Progress::Turn { id: id.clone(), doing: "taken back", steps: back.steps.len() });
        let etcd = self.node.glance().ok().flatten();
        let done = self.steps(journal, &back, "back-", lock, etcd.as_ref()).and_then(|()| {
            // Who went back without the lock, or has lost it meanwhile, may be able to take it by now. Without a last
            // word the others wait for the end of this turn.
            let late = match lock.map(Lock::confirm) {
                Some(Ok(())) => None,
                _ => self.cluster_lock(plan, LOCK_TTL * 2).ok().flatten(),
            };
            self.leave_word(late.as_ref().or(lock), plan, |note| {
                note.reached = before(plan.stage);
                note.under_way = None;
            })
        });
        match done {
            Ok(()) => {
                journal.rolled_back()?;
                let trouble =
                    self.trouble(plan).map(|trouble| format!("; it is as it was before, and yet {trouble}"));
                Ok(Outcome::RolledBack { id, why: format!("{why}{}", trouble.unwrap_or_default()) })
            }
            Err(Stop(obstacle)) => {
                let why = format!("{why}; taking it back failed: {obstacle}");
                let _ = journal.failed("back", &why);
                Ok(Outcome::Stopped { id, why })
            }
        }
    }

    /// Returns whether the cluster can change something, as far as it can be asked.
    fn has_quorum(&self) -> bool {
        let client = || self.node.client(&self.node.observe().ok()?.etcd).ok();
        client().is_none_or(|client| client.members().is_ok())
    }

    /// Returns why this member, which is well, must not restart on the way back: the others alone are no quorum.
    fn cost_of_restart(&self, record: &Record, back: &Plan) -> Option<String> {
        let seen = self.node.observe().ok()?;
        let health = seen.health.as_ref().ok()?;
        let members = seen.etcd.cluster.value()?.members.as_slice();
        let voters: Vec<_> = members.iter().filter(|m| !m.learner).collect();
        let well = |id: &str| health.members.get(id).is_some_and(|member| member.trouble.is_none());
        let others = voters.iter().filter(|m| !m.this && well(&m.id)).count();
        let quorum = voters.len() / 2 + 1;
        // The process from before the fix has not read what is taken back.
        let began_with = began_with(record).map(|facts| facts.process);
        let restarts = back.restarts() > 0 && began_with != Some(process(&seen.etcd));
        (restarts && voters.len() > 2 && well(&back.state.member_id) && others < quorum).then(|| {
            format!(
                "{others} other members are healthy, which is no quorum of {quorum} while {} restarts; make them \
                 healthy, and run `seaworthy fix --resume`",
                back.state.member
            )
        })
    }

    /// Carries out the steps of a plan, one after the other, and verifies each.
    fn steps(
        &self,
        journal: &mut Journal,
        plan: &Plan,
        prefix: &str,
        lock: Option<&Lock>,
        etcd: Option<&Etcd>,
    ) -> Result<(), Stop> {
        let root = Root::open(&self.node.root)?;
        let forth = prefix.is_empty();
        // What the member is by now may be what the steps before have made of it: kubelet needs no word to restart it.
        let (process, settings) = match began_with(journal.record()) {
            Some(facts) => (facts.process, facts.settings),
            None => (etcd.and_then(process), former(plan, etcd)),
        };
        for (index, step) in plan.steps.iter().enumerate() {
            let name = format!("{prefix}{}", index + 1);
            if forth && journal.record().is_after(&name) {
                continue;
            }
            let (number, of) = (index + 1, plan.steps.len());
            (self.tell)(&Progress::Step { number, of, title: step.title.clone() });
            let start = Instant::now();
            // What was written down is never done without: a second pre-image would be of what the step has made.
            let facts = match journal.record().before(&name) {
                Some(facts) => serde_json::from_value(facts.clone()).map_err(|error| {
                    Stop(format!("what was written down before it cannot be read: {error}"))
                })?,
                None => {
                    self.holds(&root, &step.preconditions)?;
                    let preimages = act::preimages(&root, journal, step)?;
                    let facts = Facts { process, preimages, settings: settings.clone() };
                    let value = serde_json::to_value(&facts)?;
                    match journal.before(&name, value) {
                        // On the way back nothing new is learnt from it.
                        Err(_) if !forth => {}
                        written => written?,
                    }
                    facts
                }
            };
            if let Some(lock) = lock.filter(|_| forth && step.disturbs()) {
                lock.confirm()?;
            }
            self.act_patiently(&root, journal, plan, step, &facts)?;
            self.verify(&root, plan, step, &facts)?;
            let written = act::written(&root, &facts)?;
            match journal.after(&name, serde_json::to_value(written)?) {
                Err(_) if !forth => {}
                written => written?,
            }
            let what = step.verify.iter().map(ToString::to_string).collect();
            (self.tell)(&Progress::Verified { what, took: start.elapsed() });
        }
        Ok(())
    }

    /// Does what the step says. What asks the cluster is tried again for a while: it may be between two leaders. On the way
    /// back a leader that cannot hand over restarts all the same: an election costs less than a way back without an end.
    fn act_patiently(
        &self,
        root: &Root,
        journal: &Journal,
        plan: &Plan,
        step: &Step,
        facts: &Facts,
    ) -> Result<(), Stop> {
        let moves = matches!(step.action, Action::MoveLeader { .. });
        let asks = moves || matches!(step.action, Action::UpdateMember { .. });
        let start = Instant::now();
        loop {
            match self.act(root, journal, plan, step, facts) {
                Err(_) if asks && start.elapsed() < PATIENCE => thread::sleep(POLL),
                Err(_) if plan.stage == Stage::Return && moves => return Ok(()),
                done => return done,
            }
        }
    }

    /// Judges the result, once every member is where the fix leads.
    fn conclude(&self, mut ids: Vec<String>) -> Result<Outcome, ApplyError> {
        match self.proven() {
            Ok(verified) => Ok(Outcome::Done { ids, verified }),
            Err(Stop(why)) => match ids.pop() {
                None => Ok(Outcome::NotProven { ids, why }),
                Some(id) => {
                    let lock = match self.local_lock()? {
                        Ok(lock) => lock,
                        Err(outcome) => return Ok(outcome),
                    };
                    let mut journal = lock.open(&id)?;
                    let plan = plan_of(journal.record())?;
                    match self.cluster_lock(&plan, self.wait) {
                        Ok(lock) => self.back(&mut journal, &plan, lock.as_ref(), &why),
                        // What was done is verified and safe. To restart in the turn of another would not be.
                        Err(no_lock) => {
                            ids.push(id);
                            let why = format!(
                                "{why}; it was not taken back, because the lock of the cluster could not be taken: \
                                 {no_lock}"
                            );
                            Ok(Outcome::NotProven { ids, why })
                        }
                    }
                }
            },
        }
    }

    /// Returns the right to change this node, or the outcome when another run has it.
    fn local_lock(&self) -> Result<Result<journal::Lock, Outcome>, ApplyError> {
        let start = Instant::now();
        let mut told = false;
        loop {
            let process = match self.state.lock() {
                Err(JournalError::Busy(process)) => process,
                taken => return Ok(Ok(taken?)),
            };
            let what = format!("the run that is under way on this node (process {process})");
            if start.elapsed() >= self.wait {
                let why = "two at once would undo each other";
                let refusals = vec![refusal(&format!("{what} has not ended"), why)];
                return Ok(Err(Outcome::Refused { ids: Vec::new(), plan: None, refusals }));
            }
            if !std::mem::replace(&mut told, true) {
                (self.tell)(&Progress::Waiting { what });
            }
            thread::sleep(POLL);
        }
    }

    /// Returns the lock of the cluster, if the plan needs it.
    fn cluster_lock(&self, plan: &Plan, wait: Duration) -> Result<Option<Lock>, NoLock> {
        if !touches_cluster(plan) {
            return Ok(None);
        }
        // Names may be the same on two nodes, and who says that it is the owner breaks the lock.
        let (member, id, node) = (&plan.state.member, &plan.state.member_id, &plan.state.node);
        let owner = format!("{member} ({id}) on node {node}, with {}", self.state.directory().display());
        let start = Instant::now();
        let mut told = false;
        loop {
            let taken = self.observe().and_then(|seen| {
                let client = self.node.client(&seen.etcd).map_err(Stop)?;
                // This run has the node's own lock, so who else of this owner held it was killed.
                Lock::break_own(&client, note::LOCK, &owner)?;
                // Whoever waits longer is told for whom.
                let patience = if told { wait.saturating_sub(start.elapsed()) } else { SOON.min(wait) };
                Ok(Lock::acquire(&client, note::LOCK, &owner, LOCK_TTL, patience))
            });
            let why = match taken {
                Ok(Ok(lock)) => return Ok(Some(lock)),
                Ok(Err(Error::Locked { owner, .. })) if !told && SOON < wait => {
                    (self.tell)(&Progress::Waiting { what: format!("the turn of {owner}") });
                    told = true;
                    continue;
                }
                Ok(Err(error @ Error::Locked { .. })) => NoLock::Held(error.to_string()),
                Ok(Err(error)) => NoLock::Unknown(error.to_string()),
                Err(Stop(why)) => NoLock::Unknown(why),
            };
            if wait.is_zero() || start.elapsed() > PATIENCE.max(wait) {
                return Err(why);
            }
            thread::sleep(POLL);
        }
    }

    /// Leaves word of the stage before that of the plan where there is none: that a plan has got so far shows that this
    /// member has, by whatever way, and the others wait for its word as it waits for theirs.
    fn own_up(&self, plan: &Plan, seen: &Observation, options: &Options) {
        let Some(evident) = before(plan.stage) else { return };
        let known = seen.notes.get(&plan.state.member_id).filter(|note| note.rule == plan.rule);
        let said = known.is_some_and(|note| {
            note.authority == plan.authority
                && note.reached.is_some_and(|reached| rank(reached) >= rank(evident))
        });
        let sound =
            || !lint(plan, &seen.situation(options)).iter().any(|r| r.objection == Objection::Certificate);
        if !said
            && sound()
            && let Ok(_local) = self.state.lock()
        {
            let lock = self.cluster_lock(plan, Duration::ZERO).ok().flatten();
            let _ = self.leave_word(lock.as_ref(), plan, |note| note.reached = Some(evident));
        }
    }

    /// Leaves word of how far this member is.
    fn leave_word(&self, lock: Option<&Lock>, plan: &Plan, change: impl Fn(&mut Note)) -> Result<(), Stop> {
        let Some(lock) = lock else { return Ok(()) };
        let state = &plan.state;
        let seen = self.node.observe().map(|seen| seen.notes).unwrap_or_default();
        let known = seen.get(&state.member_id).filter(|note| note.rule == plan.rule).cloned();
        let mut note =
            known.unwrap_or_else(|| Note::new(&plan.rule, &state.member, &state.node, Timestamp::now()));
        note.at = Timestamp::now();
        note.authority.clone_from(&plan.authority);
        change(&mut note);
        let start = Instant::now();
        loop {
            match note::leave(lock, &state.member_id, &note) {
                // The cluster may be between two leaders: no reason to take back what is done and verified.
                Err(error) if !matches!(error, Error::LockLost { .. }) && start.elapsed() < PATIENCE => {
                    thread::sleep(POLL);
                }
                left => return Ok(left?),
            }
        }
    }

    /// Returns an observation of the running member.
    fn observe(&self) -> Result<Observation, Stop> {
        Ok(self.node.observe()?)
    }
}

fn ended_turn(ended: Option<Outcome>, id: String) -> Turn {
    ended.map_or(Turn::Done(id), Turn::Over)
}

fn refusal(what: &str, why: &str) -> Refusal {
    Refusal {
        objection: Objection::Evidence,
        what: what.to_owned(),
        why: why.to_owned(),
        instead: "look at `seaworthy fix --status`, and try again".to_owned(),
    }
}

/// Returns whether an objection can be the passing effect of another member's turn.
fn passes_by_itself(objection: Objection) -> bool {
    matches!(objection, Objection::Evidence | Objection::Health | Objection::Quorum | Objection::Order)
}

/// Returns whether one member at a time may carry such a plan out.
fn touches_cluster(plan: &Plan) -> bool {
    plan.state.peer_urls.len() > 1 && (plan.stage == Stage::Create || plan.disturbs())
}

fn plan_of(record: &Record) -> Result<Plan, ApplyError> {
    let error = |error: serde_json::Error| ApplyError::Plan { id: record.id.clone(), why: error.to_string() };
    Plan::from_json(&serde_json::to_vec(&record.plan).map_err(error)?).map_err(error)
}

/// Returns the steps of `plan` that were begun, with what was written down before them. One that cannot be read is an error:
/// left out, it would stay as it is, and the fix would be said to be taken back.
fn begun(record: &Record, plan: &Plan) -> Result<BTreeMap<usize, Facts>, serde_json::Error> {
    let facts = |index: usize| {
        let facts = record.before(&(index + 1).to_string())?.clone();
        Some(serde_json::from_value(facts).map(|facts| (index, facts)))
    };
    (0..plan.steps.len()).filter_map(facts).collect()
}

/// Returns what the member was when the fix began; `None` when nothing was written down yet.
fn began_with(record: &Record) -> Option<Facts> {
    serde_json::from_value(record.before("1")?.clone()).ok()
}

/// Returns which process a member is.
fn process(etcd: &Etcd) -> Option<Process> {
    let process = etcd.process.value()?;
    Some(Process { pid: process.pid, started_ms: process.started_at.as_millisecond() })
}

/// Returns the values that the settings of the plan have now.
fn former(plan: &Plan, etcd: Option<&Etcd>) -> BTreeMap<String, Option<String>> {
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

/// Returns the stage that a member has reached when its next one is this.
fn before(stage: Stage) -> Option<Stage> {
    match stage {
        Stage::Encrypt => Some(Stage::Load),
        Stage::Present => Some(Stage::Trust),
        Stage::Distrust => Some(Stage::Present),
        Stage::Announce => Some(Stage::Serve),
        Stage::Close => Some(Stage::Announce),
        Stage::Change
        | Stage::Create
        | Stage::Done
        | Stage::Load
        | Stage::Request
        | Stage::Return
        | Stage::Serve
        | Stage::Trust => None,
    }
}

/// Returns how far a stage is among those of its rule.
fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Change | Stage::Create | Stage::Done | Stage::Request | Stage::Return => 0,
        Stage::Load | Stage::Serve | Stage::Trust => 1,
        Stage::Announce | Stage::Encrypt | Stage::Present => 2,
        Stage::Close | Stage::Distrust => 3,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use seaworthy_journal::record::{Entry, Event};

    #[test]
    fn a_step_whose_facts_cannot_be_read_is_not_taken_for_one_that_was_not_begun() {
        let step = json!({
            "title": "", "why": "", "action": { "kind": "move-leader", "to": [] }, "diff": null,
            "preconditions": [], "verify": [], "undo": { "kind": "nothing" }, "restarts": false,
        });
        let plan: Plan = serde_json::from_value(json!({
            "format": Plan::FORMAT, "rule": "etcd-peer-tls", "made_at": "2026-01-01T00:00:00Z",
            "state": {
                "node": "", "member": "", "member_id": "a", "peer_urls": {}, "settings": "", "files": {},
            },
            "stage": "load", "authority": null, "waits_for": [], "steps": [step, step],
            "then_waits_for": [], "by_hand": [],
        }))
        .unwrap();
        let record = |facts: Value| Record {
            id: String::new(),
            plan: Value::Null,
            entries: vec![Entry {
                number: 0,
                at: Timestamp::UNIX_EPOCH,
                event: Event::Before { step: "1".to_owned(), facts },
            }],
        };
        let good = json!({ "process": null, "preimages": { "/m.yaml": "id" }, "settings": {} });
        let begun_then = begun(&record(good), &plan).unwrap();
        assert_eq!(begun_then.keys().collect::<Vec<_>>(), [&0]);
        assert!(begun(&record(json!({ "of": "another version" })), &plan).is_err());
    }
}
