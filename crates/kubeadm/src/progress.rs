//! What is going on, told to the person who started it, with the time since the start.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often something that takes long says that it still does.
pub(crate) const AGAIN: Duration = Duration::from_secs(10);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Tells on standard error what is going on.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    #[expect(clippy::new_without_default, reason = "a clock that starts is no default value")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Says one line.
    pub fn say(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        // Nobody may be listening, and the work goes on.
        let _ = writeln!(io::stderr(), "[{:2}:{:02}] {text}", seconds / 60, seconds % 60);
    }

    /// Waits until `look` finds nothing missing, and says now and then what still is.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Vec<String>>,
    ) -> Result<()> {
        let (start, mut told) = (Instant::now(), Instant::now());
        self.say(&format!("waiting for {what}"));
        loop {
            let missing = look()?;
            if missing.is_empty() {
                return Ok(());
            }
            let missing = missing.join(", ");
            anyhow::ensure!(
                start.elapsed() < limit,
                "{what}: still missing after {} s: {missing}",
                limit.as_secs()
            );
            if told.elapsed() >= AGAIN {
                self.say(&format!("  still missing: {missing}"));
                told = Instant::now();
            }
            thread::sleep(LOOK);
        }
    }
}
