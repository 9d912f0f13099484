//! How a run goes and ends.

use std::time::Duration;

use seaworthy_journal::files::FileError;
use seaworthy_journal::record::JournalError;

use crate::plan::{Plan, Refusal, Waiting};
use crate::world::NotObserved;

/// What happens while a fix is carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A fix is begun, resumed or rolled back.
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
    /// Something that a person should know.
    Remark {
        /// What.
        what: String,
    },
}

/// How a run ended.
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
    /// The run was asked to end, and has ended where that is safe.
    Interrupted {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
    },
    /// Nothing is left to be done by this fix, and the rule does not pass all the same.
    NotProven {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
        /// What is missing.
        why: String,
    },
    /// A plan must not be carried out. What was done before stays, and is safe.
    Refused {
        /// Ids of the fixes that were made.
        ids: Vec<String>,
        /// The plan, if there is one.
        plan: Option<Box<Plan>>,
        /// Why.
        refusals: Vec<Refusal>,
    },
    /// A fix was rolled back: because something went wrong, or because the operator asked for it.
    RolledBack {
        /// Id of the fix.
        id: String,
        /// Why.
        why: String,
    },
    /// Something went wrong, and could not be rolled back either.
    Stopped {
        /// Id of the record that is not ended.
        id: String,
        /// What went wrong, and what kept it from being rolled back.
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
pub enum ExecutorError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The node.
    #[error(transparent)]
    NotObserved(#[from] NotObserved),
    /// There is no such record, or it cannot be used.
    #[error("{0}")]
    Record(String),
}
