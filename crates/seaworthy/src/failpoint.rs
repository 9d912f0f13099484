//! Where tests kill the process: only in builds with debug assertions.
//!
//! `SEAWORTHY_KILL=before:3` ends the process with SIGKILL right before it writes its third line into the journals of
//! fixes, `after:3` once that line is durable.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use seaworthy_journal::record::Moment;

static LINES: AtomicU64 = AtomicU64::new(0);

/// Ends the process if it is to end here.
pub(crate) fn hook(moment: Moment) {
    let (word, line) = match moment {
        Moment::Before => ("before", LINES.fetch_add(1, Ordering::Relaxed) + 1),
        Moment::After => ("after", LINES.load(Ordering::Relaxed)),
    };
    if std::env::var("SEAWORTHY_KILL").is_ok_and(|wanted| wanted == format!("{word}:{line}")) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
