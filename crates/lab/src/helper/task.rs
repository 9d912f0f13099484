//! A supervised process: started, watched, told to stop, and killed if it will not.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{STATUS, replace};
use crate::program::Program;

/// A process that runs, or whose end has not been seen yet.
pub(super) struct Task {
    pub(super) started: Instant,
    pub(super) pid: u32,
    child: Child,
    status: PathBuf,
    /// When it was told to stop.
    stopping: Option<Instant>,
    killed: bool,
}

impl Task {
    /// Starts a program, and says so under this name.
    pub(super) fn start(program: &Program, name: &str, starts: u64) -> io::Result<Self> {
        let status = PathBuf::from(format!("{STATUS}/{name}.json"));
        let log_start = fs::metadata(&program.log).map_or(0, |log| log.len());
        let words = program.words();
        let [first, rest @ ..] = words.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(first);
        command.args(rest).env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("HOME", "/root").envs(&program.env).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout.take(64)).read_line(&mut line)?;
        }
        let Ok(pid) = line.trim().parse() else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other("its container could not be made"));
        };
        replace(&status, &json!({ "pid": pid, "starts": starts, "log_start": log_start }).to_string())?;
        Ok(Self { started: Instant::now(), pid, child, status, stopping: None, killed: false })
    }

    /// Returns how it ended, once it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        let _ = fs::remove_file(&self.status);
        Some(status)
    }

    /// Tells it to stop, unless it was told already; kills it once it had so long for that.
    pub(super) fn stop(&mut self, grace: Duration) {
        match self.stopping {
            None => {
                self.stopping = Some(Instant::now());
                self.signal(Signal::TERM);
            }
            Some(since) if since.elapsed() > grace && !self.killed => {
                self.killed = true;
                self.signal(Signal::KILL);
            }
            Some(_) => {}
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}
