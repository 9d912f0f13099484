//! The threads among which a command's work is shared, wherever a crate splits it with `rayon`.

use rayon::ThreadPoolBuilder;
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, sched_yield};

/// Makes this thread and another one share the work. An audit takes some milliseconds, so more would not be up in time.
pub(crate) fn start() {
    let here = sched_getcpu();
    let pool = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
        pool.start_handler(move |_| leave(here)).build()
    };
    // With one, this thread does everything itself: it takes none from a system that gives none.
    if let Ok(pool) = pool(2).or_else(|_| pool(1)) {
        // It lasts as long as the process.
        std::mem::forget(pool);
        sched_yield();
    }
}

/// Moves this thread to another processor than `taken`, if it may use one. In a virtual machine Linux often starts it on
/// the one of its parent and leaves it there, because it takes a processor that its host has put to sleep for a busy one.
fn leave(taken: usize) {
    if let Ok(mut set) = sched_getaffinity(None) {
        set.unset(taken);
        let _ = sched_setaffinity(None, &set);
    }
}
