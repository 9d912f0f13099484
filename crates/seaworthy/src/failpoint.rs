//! Where tests kill the process: only in builds with debug assertions.
//!
//! `SEAWORTHY_KILL=before:3` ends the process with SIGKILL right before line 3 of a fix's journal is written, `after:3`
//! once that line is durable. Lines are counted from 0 in each journal.

use rustix::process::{Signal, getpid, kill_process};
use seaworthy_remedy::journal::Moment;

/// Ends the process if it is to end here.
pub(crate) fn hook(moment: Moment, line: u64) {
    let moment = match moment {
        Moment::Before => "before",
        Moment::After => "after",
    };
    if std::env::var("SEAWORTHY_KILL").is_ok_and(|wanted| wanted == format!("{moment}:{line}")) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
