//! What keeps the runs of a cluster out of each other's way: the lock of the node, that of the cluster, and what a member
//! publishes in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use seaworthy_journal::record::{self, JournalError};

use super::{Executor, ExecutorError, Held, LOCK_TTL, Outcome, PASSING, POLL, Progress, SOON, Stop};
use crate::history::{History, may_be_of};
use crate::input::{Options, refuse};
use crate::plan::{Plan, Refusal, RefusalKind, Stage};
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

    /// Returns where the records are, as the node itself sees it: from a container its root is somewhere else.
    fn journal(&self) -> String {
        let directory = self.state.directory();
        let below = directory.strip_prefix(self.world.root()).map(|below| Path::new("/").join(below));
        below.unwrap_or_else(|_| directory.to_owned()).display().to_string()
    }

    /// Returns the lock of the cluster, if the plan needs it.
    pub(super) fn cluster_lock(&self, plan: &Plan, wait: Duration) -> Result<Held<'a>, NoLock> {
        match touches_cluster(plan) || self.origin_of(plan).is_some_and(|origin| touches_cluster(&origin)) {
            true => self.lock_for(plan, wait).map(Some),
            false => Ok(None),
        }
    }

    /// Returns the lock of the cluster.
    fn lock_for(&self, plan: &Plan, wait: Duration) -> Result<Box<dyn Lease + 'a>, NoLock> {
        // Names may be the same on two nodes, and a run breaks the lock of an owner of its own name.
        let (member, id, node) = (&plan.state.member, &plan.state.member_id, &plan.state.node);
        let owner = format!("{member} ({id}) on node {node}, with {}", self.journal());
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
        // What is not declared any more it does not have after the next restart.
        let unsound = |r: &Refusal| matches!(r.kind, RefusalKind::Certificate | RefusalKind::Evidence);
        let sound = || !preflight(plan, &seen.input(options)).iter().any(unsound);
        if !published
            && sound()
            && let Ok(_local) = self.state.lock()
            && let Ok(held) = self.cluster_lock(plan, Duration::ZERO)
        {
            let _ = self.publish(held.as_deref(), plan, |record| record.reached = Some(evident));
        }
    }

    /// Refuses to go on beside a turn that was begun with another directory of records: they say how far it is, and how it is
    /// rolled back.
    pub(super) fn turn_elsewhere(&self, plan: &Plan, seen: &Observation) -> Option<Refusal> {
        let other = own_turn(plan, seen)?.journal.as_deref()?;
        let own = self.journal();
        (other != own).then(|| {
            refuse(
                RefusalKind::OtherFix,
                format!("a turn of this member was begun with the records in {other}, and has not ended"),
                format!("those in {own} do not say how far it is, nor how it is rolled back"),
                format!("go on with --state-dir {other}, also where that directory is lost"),
            )
        })
    }

    /// Says that this member has no turn, where its progress record says that it has one and no record of this node does: the
    /// record was closed while nobody answered, or is lost. The others would wait for the end of that turn for ever.
    /// A run that does not come back to it waits for the lock, and names the command that does where that was in vain.
    pub(super) fn end_stale_turn(
        &self,
        plan: &Plan,
        seen: &Observation,
        again: Option<&str>,
    ) -> Result<(), ExecutorError> {
        if own_turn(plan, seen).is_none() {
            return Ok(());
        }
        let Ok(_local) = self.state.lock() else { return Ok(()) };
        let history = History::read(self.state)?;
        // What cannot be read may be the record of this very turn.
        if history.pending().any(|fix| fix.plan.is_of(&plan.rule, &plan.state.component))
            || history.damaged_pending().any(|damaged| may_be_of(damaged, &plan.rule))
        {
            return Ok(());
        }
        let patience = if again.is_some() { LOCK_TTL * 2 } else { Duration::ZERO };
        let lease = self.lock_for(plan, patience).map_err(Stop::from);
        // For a run that comes back the next look shows whether it was published.
        if let (Err(Stop(why)), Some(again)) = (lease.and_then(|lease| self.end_turn(&*lease, plan)), again) {
            self.tell_untold(&why, again);
        }
        Ok(())
    }

    /// Tells the operator that the others do not know that a turn of this member is over, and which command lets them know.
    pub(super) fn tell_untold(&self, why: &str, command: &str) {
        let what = format!(
            "the other members could not be told that this turn is over ({why}); they wait for its end until `seaworthy fix \
             {command} --apply` runs here once the cluster answers"
        );
        (self.tell)(&Progress::Remark { what });
    }

    /// Says that this member has no turn of the plan's rule any more, where its progress record says that it has one.
    pub(super) fn end_turn(&self, lease: &(dyn Lease + 'a), plan: &Plan) -> Result<(), Stop> {
        self.publish_change(lease, plan, |known| {
            let under_way = known.filter(|record| record.under_way.is_some())?;
            Some(ProgressRecord { under_way: None, ..under_way.clone() })
        })
    }

    /// Publishes how far this member is with the authority of the plan. How far it was with another one says nothing of that.
    pub(super) fn publish(
        &self,
        held: Option<&(dyn Lease + 'a)>,
        plan: &Plan,
        change: impl Fn(&mut ProgressRecord),
    ) -> Result<(), Stop> {
        let Some(lease) = held else { return Ok(()) };
        let authority = plan.authority.as_ref();
        let spki = authority.map(|authority| &authority.spki);
        self.publish_change(lease, plan, |known| {
            let same = known.filter(|known| known.authority.as_ref() == spki);
            let mut record = ProgressRecord {
                reached: same.and_then(|known| known.reached),
                under_way: known.and_then(|known| known.under_way),
                authority: spki.cloned(),
                authority_subject: authority.map(|authority| authority.subject.clone()),
                journal: Some(self.journal()),
                ..ProgressRecord::new(&plan.rule, &plan.state.member, &plan.state.node, self.world.now())
            };
            change(&mut record);
            Some(record)
        })
    }

    /// Publishes what becomes of the progress record of this member. What was published before is read first, and what cannot be
    /// read is not taken for nothing: it would be erased.
    fn publish_change(
        &self,
        lease: &(dyn Lease + 'a),
        plan: &Plan,
        change: impl Fn(Option<&ProgressRecord>) -> Option<ProgressRecord>,
    ) -> Result<(), Stop> {
        let state = &plan.state;
        let lost = RefCell::new(None);
        let attempt = || -> Result<(), String> {
            let known = match self.world.observe() {
                Ok(seen) => seen.progress?,
                // A member that does not run says nothing of the others' records, and is about to say its own.
                Err(NotObserved::Refused(_)) => BTreeMap::new(),
                Err(error) => return Err(error.to_string()),
            };
            let known = record_for(&known, &state.member_id, &plan.rule);
            let Some(record) = change(known) else { return Ok(()) };
            let record = ProgressRecord { at: self.world.now(), ..record };
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

/// Returns the progress record of this member, if it says that it has a turn of the plan's rule.
fn own_turn<'s>(plan: &Plan, seen: &'s Observation) -> Option<&'s ProgressRecord> {
    let own = record_for(seen.progress.as_ref().ok()?, &plan.state.member_id, &plan.rule)?;
    own.under_way.is_some().then_some(own)
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
