//! What keeps a run from doing harm when it ends early: keys that are in memory reach no core dump, and a signal ends a run
//! where that is safe.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Switches core dumps off, because private keys are read to be compared: a file (setrlimit(2)), and what a program like systemd-coredump is handed, which the limit does
/// not concern (core(5), prctl(2)). What cannot be switched off is no reason not to run.
pub(crate) fn of_keys() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    let _ = setrlimit(Resource::Core, limit);
    // Another user than root could not read its own files in /proc any more.
    if rustix::process::geteuid().is_root() {
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Whether a signal has asked the run to end.
static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Whether that was answered.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C, a lost terminal, and a service manager's request: the first one lets the run end at the next safe boundary,
/// a second one ends it at once. What is ignored stays so: it is who uses nohup or a background job that wants that.
pub(crate) fn catch_interrupts() {
    let ignored = ignored();
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0) {
        // In this order: the second one finds what the first one has set.
        let _ = flag::register_conditional_default(signal, Arc::clone(&ASKED));
        let _ = flag::register(signal, Arc::clone(&ASKED));
    }
}

/// Returns the signals that this process was started to ignore: the first bit is that of signal 1 (proc_pid_status(5)).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Returns whether a signal has asked the run to end, and answers it.
pub(crate) fn is_interrupted() -> bool {
    let asked = ASKED.load(Ordering::Relaxed);
    if asked && !ANSWERED.swap(true, Ordering::Relaxed) {
        let text = "  ending as soon as this turn is over; the same command goes on from there. A second Ctrl-C ends it at once, \
                    which is safe too";
        let _ = writeln!(anstream::stderr(), "{text}");
    }
    asked
}
