//! The threads among which a command's work is shared, wherever a crate splits it with `rayon`.

use std::thread;

use rayon::ThreadPoolBuilder;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity, sched_yield};

/// Makes this thread and another one share the work. An audit takes some milliseconds, so more would not be up in time.
/// Where the system gives no other, this one does everything itself.
pub(crate) fn start() {
    let here = sched_getcpu();
    let pool = ThreadPoolBuilder::new().num_threads(2).use_current_thread();
    let pool = pool.start_handler(move |_| leave(here)).spawn_handler(|helper| {
        // A pool without its helper works, one that could not be built does not.
        let _ = thread::Builder::new().spawn(move || helper.run());
        Ok(())
    });
    if let Ok(pool) = pool.build() {
        // It lasts as long as the process.
        std::mem::forget(pool);
        // The helper may have to begin on this processor before it can leave it.
        sched_yield();
    }
}

/// Moves this thread to another processor than `taken`, if it may use one. In a virtual machine Linux often starts it on
/// the one of its parent and leaves it there, because it takes a processor that its host has put to sleep for a busy one.
fn leave(taken: usize) {
    if let Ok(allowed) = sched_getaffinity(None)
        && taken < CpuSet::MAX_CPU
    {
        let mut others = allowed;
        others.unset(taken);
        // From there it may be moved on, as any other.
        if sched_setaffinity(None, &others).is_ok() {
            let _ = sched_setaffinity(None, &allowed);
        }
    }
}
