//! What keeps the runs of a cluster out of each other's way: the lock of the node, that of the cluster, and what a member
//! publishes in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use seaworthy_journal::record::{self, JournalError};

use super::{Executor, ExecutorError, Held, Outcome, PASSING, POLL, Progress, SOON, Stop};
use crate::history::{Fix, History};
use crate::input::Options;
use crate::plan::{Plan, RefusalKind, Stage};
use crate::preflight::preflight;
use crate::progress::{ProgressRecord, record_for};
use crate::world::{Lease, NoLock, NotObserved, NotPublished, Observation};

impl<'a> Executor<'a> {
    /// Returns the right to change this node, or the outcome when another run has it.
    pub(super) fn local_lock(&self) -> Result<Result<record::Lock, Outcome>, ExecutorError> {
        let start = self.world.elapsed();
        let mut told = false;
        loop {
            let process = match self.state.lock() {
                Err(JournalError::Busy(process)) => process,
                taken => return Ok(Ok(taken?)),
            };
            let what = format!("the run that is under way on this node (process {process})");
            if self.world.elapsed().saturating_sub(start) >= self.wait || (self.interrupted)() {
                return Ok(Err(self.refused(
                    RefusalKind::OtherFix,
                    &format!("{what} has not ended"),
                    "two at once would undo each other",
                    "wait for it, or end it, and try again",
                )));
            }
            if !std::mem::replace(&mut told, true) {
                (self.tell)(&Progress::Waiting { what });
            }
            self.world.pause(POLL);
        }
    }

    /// Returns the lock of the cluster, if the plan needs it.
    pub(super) fn cluster_lock(&self, plan: &Plan, wait: Duration) -> Result<Held<'a>, NoLock> {
        match touches_cluster(plan) || touches_cluster(&self.origin_of(plan)) {
            true => self.lock_for(plan, wait).map(Some),
            false => Ok(None),
        }
    }

    /// Returns the lock of the cluster.
    fn lock_for(&self, plan: &Plan, wait: Duration) -> Result<Box<dyn Lease + 'a>, NoLock> {
        // Names may be the same on two nodes, and a run breaks the lock of an owner of its own name.
        let (member, id, node) = (&plan.state.member, &plan.state.member_id, &plan.state.node);
        let owner = format!("{member} ({id}) on node {node}, with {}", self.state.directory().display());
        let start = self.world.elapsed();
        let mut told = false;
        loop {
            let why = match self.world.lock(&owner, SOON.min(wait)) {
                Ok(lease) => return Ok(lease),
                Err(why) => why,
            };
            if let NoLock::Held { owner } = &why
                && !std::mem::replace(&mut told, true)
                && !wait.is_zero()
            {
                (self.tell)(&Progress::Waiting { what: format!("the turn of {owner}") });
            }
            let limit = match why {
                NoLock::Held { .. } => wait,
                NoLock::Unknown(_) if wait.is_zero() => wait,
                NoLock::Unknown(_) => PASSING,
            };
            if self.world.elapsed().saturating_sub(start) >= limit || (self.interrupted)() {
                return Err(why);
            }
            self.world.pause(POLL);
        }
    }

    /// Publishes the stage before that of the plan where it is not known: that a plan has got so far shows that this member has,
    /// by whatever way, and the others wait for its record as it waits for theirs.
    pub(super) fn publish_evident(&self, plan: &Plan, seen: &Observation, options: &Options) {
        let Some(evident) = before(plan.stage) else { return };
        let Ok(progress) = &seen.progress else { return };
        let known = record_for(progress, &plan.state.member_id, &plan.rule);
        let authority = plan.authority.as_ref().map(|authority| &authority.spki);
        let published = known.is_some_and(|record| {
            record.authority.as_ref() == authority
                && record.reached.is_some_and(|reached| rank(reached) >= rank(evident))
        });
        let sound =
            || !preflight(plan, &seen.input(options)).iter().any(|r| r.kind == RefusalKind::Certificate);
        if !published
            && sound()
            && let Ok(_local) = self.state.lock()
            && let Ok(held) = self.cluster_lock(plan, Duration::ZERO)
        {
            let _ = self.publish(held.as_deref(), plan, |record| record.reached = Some(evident));
        }
    }

    /// Says that this member has no turn, where its progress record says that it has one and no record of this node does: the
    /// record was closed while nobody answered, or is lost. The others would wait for the end of that turn for ever.
    pub(super) fn end_stale_turn(&self, plan: &Plan, seen: &Observation) -> Result<(), ExecutorError> {
        let Ok(progress) = &seen.progress else { return Ok(()) };
        let known = record_for(progress, &plan.state.member_id, &plan.rule);
        let Some(known) = known.filter(|record| record.under_way.is_some()) else { return Ok(()) };
        let Ok(_local) = self.state.lock() else { return Ok(()) };
        let is_of_rule = |fix: &Fix| fix.rule() == plan.rule;
        if !History::read(self.state)?.pending().any(is_of_rule)
            && let Ok(held) = self.lock_for(plan, Duration::ZERO)
        {
            let ended = ProgressRecord { under_way: None, ..known.clone() };
            // The next look shows whether it was published.
            let _ = self.publish(Some(&*held), plan, |record| {
                *record = ProgressRecord { at: record.at, ..ended.clone() }
            });
        }
        Ok(())
    }

    /// Publishes how far this member is. What was published before is read first, and what cannot be read is not taken for
    /// nothing: it would be erased.
    pub(super) fn publish(
        &self,
        held: Option<&(dyn Lease + 'a)>,
        plan: &Plan,
        change: impl Fn(&mut ProgressRecord),
    ) -> Result<(), Stop> {
        let Some(lease) = held else { return Ok(()) };
        let state = &plan.state;
        let lost = RefCell::new(None);
        let attempt = || -> Result<(), String> {
            let known = match self.world.observe() {
                Ok(seen) => seen.progress?,
                // A member that does not run says nothing of the others' records, and is about to say its own.
                Err(NotObserved::Refused(_)) => BTreeMap::new(),
                Err(error) => return Err(error.to_string()),
            };
            let known = record_for(&known, &state.member_id, &plan.rule).cloned();
            let now = self.world.now();
            let mut record =
                known.unwrap_or_else(|| ProgressRecord::new(&plan.rule, &state.member, &state.node, now));
            record.at = now;
            record.authority = plan.authority.as_ref().map(|authority| authority.spki.clone());
            record.authority_subject = plan.authority.as_ref().map(|authority| authority.subject.clone());
            change(&mut record);
            match lease.publish(&state.member_id, &record) {
                Ok(()) => Ok(()),
                Err(NotPublished::LockLost(why)) => {
                    lost.replace(Some(why));
                    Ok(())
                }
                // The cluster may be between two leaders: no reason to roll back what is done and verified.
                Err(NotPublished::Unanswered(why)) => Err(why),
            }
        };
        self.until(PASSING, POLL, attempt)?;
        match lost.into_inner() {
            None => Ok(()),
            Some(why) => Err(Stop(why)),
        }
    }
}

/// Returns the stage that a member has reached when its next one is this.
pub(super) fn before(stage: Stage) -> Option<Stage> {
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
        | Stage::Rollback
        | Stage::Serve
        | Stage::Trust => None,
    }
}

/// Returns how far a stage is among those of its rule.
pub(super) fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Change | Stage::Create | Stage::Done | Stage::Request | Stage::Rollback => 0,
        Stage::Load | Stage::Serve | Stage::Trust => 1,
        Stage::Announce | Stage::Encrypt | Stage::Present => 2,
        Stage::Close | Stage::Distrust => 3,
    }
}

/// Returns whether one member at a time may carry such a plan out.
pub(super) fn touches_cluster(plan: &Plan) -> bool {
    plan.state.peer_urls.len() > 1 && (plan.stage == Stage::Create || plan.disturbs())
}
