//! Two things that wait for a listener, at the same time.

use std::panic::resume_unwind;
use std::thread;

/// Runs `a` in a thread of its own beside `b`, or after it if the system gives no thread, and returns what both return.
///
/// # Panics
/// When one of them does.
pub(crate) fn join<A: Send, B>(a: impl Fn() -> A + Sync, b: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let beside = thread::Builder::new().spawn_scoped(scope, &a);
        let b = b();
        let a = match beside {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => a(),
        };
        (a, b)
    })
}
