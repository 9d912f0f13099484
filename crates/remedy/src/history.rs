//! The fixes of this node, by their records: which stand, which are not ended, and what is damaged.
//!
//! A rollback is a fix of its own, with a record of its own, that says which fix it undoes.

use std::collections::BTreeSet;
use std::iter::successors;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use seaworthy_edit::memory::Memory;
use seaworthy_journal::record::{Damaged, FixStatus, JournalError, Record, State};
use serde::Serialize;

use crate::plan::Plan;

/// All records of a node.
#[derive(Debug, Default)]
pub struct History {
    /// Oldest first.
    fixes: Vec<Fix>,
    damaged: Vec<Damaged>,
}

/// A fix, by its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Fix {
    /// What was written down.
    pub record: Arc<Record>,
    /// The plan in it.
    pub plan: Arc<Plan>,
}

/// How a fix stands, by all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The operator has closed it.
    Closed,
    /// Complete and verified.
    Done,
    /// A step has failed, and it was not rolled back.
    Failed,
    /// Everything is as it was before.
    RolledBack,
    /// Its rollback is not ended.
    RollingBack,
    /// Under way, or killed.
    Unfinished,
}

impl Fix {
    /// Reads the plan in a record of `state`.
    pub(crate) fn of(state: &State, record: Arc<Record>) -> Result<Self, Box<Damaged>> {
        // The history is read before each step, and its plans stay as they are.
        static PLANS: Memory<Result<Arc<Plan>, String>> = Memory::new();
        let read = || Plan::from_value(&record.plan).map(Arc::new).map_err(|error| error.to_string());
        let plan = match record.plan_hash() {
            Some(hash) => PLANS.recall(hash.as_bytes(), read),
            None => read(),
        };
        match plan {
            Ok(plan) => Ok(Self { record, plan }),
            Err(error) => Err(Box::new(Damaged {
                why: format!("{}: {error}", state.plan(&record.id).display()),
                ended: Some(matches!(
                    record.status(),
                    FixStatus::Closed | FixStatus::Done | FixStatus::RolledBack
                )),
                plan: Some((*record.plan).clone()),
                id: record.id.clone(),
            })),
        }
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Returns the rule that it is for.
    pub fn rule(&self) -> &str {
        &self.plan.rule
    }

    /// Returns the name of a step in the journal.
    pub fn step_name(index: usize) -> String {
        (index + 1).to_string()
    }

    /// Returns when it was begun.
    pub fn begun_at(&self) -> Timestamp {
        self.record.begun_at()
    }
}

impl History {
    /// Reads all records. What cannot be used is kept as damaged.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn read(state: &State) -> Result<Self, JournalError> {
        let mut history = Self::default();
        for record in state.records()? {
            match record.and_then(|record| Fix::of(state, record)) {
                Ok(fix) => history.fixes.push(fix),
                Err(damaged) => history.damaged.push(*damaged),
            }
        }
        Ok(history)
    }

    /// Returns the fixes that can be read, oldest first, rollbacks among them.
    pub fn fixes(&self) -> &[Fix] {
        &self.fixes
    }

    /// Returns the records that cannot be used.
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Returns the records that cannot be used and may be of a fix that was begun and not ended.
    pub(crate) fn damaged_pending(&self) -> impl Iterator<Item = &Damaged> {
        self.damaged.iter().filter(|damaged| damaged.ended != Some(true))
    }

    /// Returns a fix by its id.
    pub fn fix(&self, id: &str) -> Option<&Fix> {
        self.fixes.iter().find(|fix| fix.id() == id)
    }

    /// Returns the rollback of a fix that counts: the last one that was not itself undone, or closed before a step of it was
    /// begun.
    pub fn rollback_of(&self, fix: &Fix) -> Option<&Fix> {
        let of = |other: &&Fix| other.plan.rollback_of.as_deref() == Some(fix.id()) && other.id() > fix.id();
        self.fixes.iter().rev().filter(of).find(|rollback| self.counts(rollback))
    }

    /// Returns whether anything of a rollback is left.
    fn counts(&self, rollback: &Fix) -> bool {
        match self.status(rollback) {
            Status::RolledBack => false,
            Status::Closed => rollback.record.is_begun(),
            _ => true,
        }
    }

    /// Returns how a fix stands.
    pub fn status(&self, fix: &Fix) -> Status {
        let own = match fix.record.status() {
            FixStatus::Closed => Status::Closed,
            FixStatus::Done => Status::Done,
            FixStatus::Failed => Status::Failed,
            FixStatus::RolledBack => Status::RolledBack,
            FixStatus::RollingBack => Status::RollingBack,
            FixStatus::Unfinished => Status::Unfinished,
        };
        match self.rollback_of(fix).map(|rollback| self.status(rollback)) {
            _ if own == Status::Closed || own != Status::Done && self.is_superseded(fix) => Status::Closed,
            None => own,
            Some(Status::Done) => Status::RolledBack,
            // Nobody knows any more how far it was undone.
            Some(Status::Closed) => Status::Closed,
            Some(_) => Status::RollingBack,
        }
    }

    /// Returns whether what a rollback was to do has been planned anew since: its own part, or that of the one that it undoes.
    fn is_superseded(&self, rollback: &Fix) -> bool {
        fn undone_by(fix: &Fix) -> Option<&str> {
            fix.plan.rollback_of.as_deref()
        }
        let undone: Vec<&str> = successors(undone_by(rollback), |id| {
            self.fix(id).filter(|fix| fix.id() < rollback.id()).and_then(undone_by)
        })
        .collect();
        let anew = |other: &Fix| {
            other.id() > rollback.id()
                && undone_by(other).is_some_and(|id| undone.contains(&id))
                && self.counts(other)
        };
        self.fixes.iter().any(anew)
    }

    /// Returns what is begun and not ended, newest first: of a fix that is being rolled back, the rollback.
    pub fn pending(&self) -> impl Iterator<Item = &Fix> {
        self.fixes.iter().rev().filter(|fix| match self.status(fix) {
            Status::Failed | Status::Unfinished => true,
            // A journal of the first version has no record of the rollback.
            Status::RollingBack => self.rollback_of(fix).is_none(),
            Status::Closed | Status::Done | Status::RolledBack => false,
        })
    }

    /// Returns the fixes, rollbacks aside, whose changes are there, wholly or in part.
    pub fn standing(&self) -> impl DoubleEndedIterator<Item = &Fix> {
        self.fixes.iter().filter(|fix| {
            fix.plan.rollback_of.is_none() && !matches!(self.status(fix), Status::Closed | Status::RolledBack)
        })
    }

    /// Returns the standing fixes that were begun after this one.
    pub fn later<'a>(&'a self, fix: &'a Fix) -> impl Iterator<Item = &'a Fix> {
        let undone = fix.plan.rollback_of.as_deref();
        self.standing().filter(move |other| other.id() > fix.id() && Some(other.id()) != undone)
    }
}

/// Returns the rule of a damaged record, as far as it can be told.
pub fn rule_of(damaged: &Damaged) -> Option<&str> {
    damaged.plan.as_ref()?.get("rule")?.as_str()
}

/// Returns whether a damaged record may be of this rule.
pub(crate) fn may_be_of(damaged: &Damaged, rule: &str) -> bool {
    rule_of(damaged).is_none_or(|other| other == rule)
}

/// Returns the files that a damaged record is about; `None` when that cannot be told.
pub(crate) fn paths_of(damaged: &Damaged) -> Option<BTreeSet<String>> {
    let steps = damaged.plan.as_ref()?.get("steps")?.as_array()?;
    let mut paths = BTreeSet::new();
    for action in steps.iter().filter_map(|step| step.get("action")) {
        for name in ["path", "certificate", "key", "request"] {
            paths.extend(action.get(name).and_then(|path| path.as_str()).map(str::to_owned));
        }
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use seaworthy_journal::record::{Facts, Journal};

    use super::*;
    use crate::fixture::World;

    fn begin(state: &State, rollback_of: Option<&str>) -> Journal {
        let plan = Plan { rollback_of: rollback_of.map(str::to_owned), ..World::loaded().plan() };
        state.lock().unwrap().begin(&serde_json::to_value(&plan).unwrap()).unwrap()
    }

    fn id(journal: &Journal) -> String {
        journal.record().id.clone()
    }

    #[test]
    fn a_rollback_that_was_closed_before_its_first_step_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let statuses = || {
            let history = History::read(&state).unwrap();
            history.fixes().iter().map(|fix| history.status(fix)).collect::<Vec<_>>()
        };
        let mut fix = begin(&state, None);
        fix.done().unwrap();
        let undone = id(&fix);
        drop(fix);
        let mut failed = begin(&state, Some(&undone));
        failed.before("1", Facts::default()).unwrap();
        failed.failed("1", "full").unwrap();
        let pending = id(&failed);
        drop(failed);
        assert_eq!(statuses(), [Status::RollingBack, Status::Failed]);

        begin(&state, Some(&undone)).closed().unwrap();
        assert_eq!(statuses(), [Status::RollingBack, Status::Failed, Status::Closed]);
        let history = History::read(&state).unwrap();
        assert_eq!(history.pending().map(Fix::id).collect::<Vec<_>>(), [pending]);

        // One that was begun, and then closed, leaves nobody to say how far the fix was undone.
        let mut again = begin(&state, Some(&undone));
        again.before("1", Facts::default()).unwrap();
        again.closed().unwrap();
        drop(again);
        assert_eq!(statuses(), [Status::Closed; 4]);
    }

    #[test]
    fn a_rollback_that_was_planned_anew_ends_the_failed_one_and_whatever_was_to_undo_that() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let fail = |rollback_of: Option<&str>| {
            let mut journal = begin(&state, rollback_of);
            journal.before("1", Facts::default()).unwrap();
            journal.failed("1", "full").unwrap();
            id(&journal)
        };
        let fix = fail(None);
        let rollback = fail(Some(&fix));
        let undoing = fail(Some(&rollback));
        let pending = || {
            let history = History::read(&state).unwrap();
            history.pending().map(|fix| fix.id().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(pending(), [undoing]);

        let mut anew = begin(&state, Some(&fix));
        anew.before("1", Facts::default()).unwrap();
        assert_eq!(pending(), [id(&anew)]);
        anew.done().unwrap();
        drop(anew);
        assert_eq!(pending(), [""; 0]);
        let history = History::read(&state).unwrap();
        assert_eq!(history.status(history.fix(&fix).unwrap()), Status::RolledBack);
    }
}
