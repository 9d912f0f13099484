//! A stand-in for systemd that runs services, and for the `systemctl` that talks to it.
//!
//! As with systemd, a unit is what it was when it was loaded: after a change on disk, `restart` starts the
//! old command until `daemon-reload`, while an environment file is read at each start. `Type=notify` is
//! honoured: `systemctl restart etcd` returns when etcd has said that it is ready, or fails after
//! `TimeoutStartSec`. `Restart=`, `RestartSec=` and the start limit (5 starts in 10 s, then the unit has
//! failed) are systemd's.
//!
//! What it leaves out: dependencies, `[Install]`, control groups other than in `/proc`, sandboxing, templates,
//! timers.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{say, task::Task, unit::Unit};
use crate::trace;

/// Runs for ever.
pub(super) fn run() -> Result<(), String> {
    // libsystemd takes this directory's presence as proof that systemd runs the system.
    for folder in ["/run/systemd/system", NOTIFY] {
        fs::create_dir_all(folder).map_err(|error| format!("cannot create {folder}: {error}"))?;
    }
    let _ = fs::remove_file(SOCKET);
    let listener =
        UnixListener::bind(SOCKET).map_err(|error| format!("cannot listen on {SOCKET}: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let mut manager = Manager::default();
    loop {
        while let Ok((stream, _)) = listener.accept() {
            if let Err(error) = manager.serve(stream) {
                say(&format!("a request failed: {error}"));
            }
        }
        manager.services.iter_mut().for_each(|(name, service)| service.advance(name));
        manager.answer();
        thread::sleep(TICK);
    }
}

/// Is `systemctl`: passes its arguments on, prints the answer, and exits as the answer says.
pub(super) fn control(args: &[String]) -> ExitCode {
    let ask = || -> io::Result<Answer> {
        let mut stream = connect()?;
        writeln!(stream, "{}", serde_json::to_string(args)?)?;
        Ok(serde_json::from_reader(stream)?)
    };
    let answer = ask().unwrap_or_else(|error| Answer {
        code: 1,
        errors: format!("Failed to connect to bus: {error}\n"),
        ..Answer::default()
    });
    let _ = io::stdout().write_all(answer.output.as_bytes());
    let _ = io::stderr().write_all(answer.errors.as_bytes());
    ExitCode::from(answer.code)
}

#[derive(Default, Deserialize, Serialize)]
struct Answer {
    code: u8,
    output: String,
    errors: String,
}

impl Answer {
    fn output(text: impl Into<String>) -> Self {
        Self { output: text.into(), ..Self::default() }
    }

    fn error(code: u8, text: impl Into<String>) -> Self {
        Self { code, errors: text.into(), ..Self::default() }
    }

    fn send(&self, mut stream: UnixStream) {
        // A client that has gone wants no answer.
        let _ = serde_json::to_writer(&mut stream, self);
    }
}

#[derive(Default)]
struct Manager {
    services: BTreeMap<String, Service>,
    /// Who waits for which unit to have started or stopped.
    waiting: Vec<(UnixStream, String, Wish)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Wish {
    Start,
    Stop,
}

impl Manager {
    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut line = String::new();
        BufReader::new((&stream).take(64 << 10)).read_line(&mut line)?;
        let args: Vec<String> = serde_json::from_str(&line)?;
        say(&format!("systemctl {}", args.join(" ")));
        let properties = properties(&args);
        let mut words = args.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
        let verb = words.next().unwrap_or("list-units");
        if verb == "daemon-reload" {
            self.reload();
            Answer::default().send(stream);
            return Ok(());
        }
        let Some(name) = words.find(|word| !properties.contains(word)).map(full) else {
            Answer::error(1, format!("Nothing to {verb}.\n")).send(stream);
            return Ok(());
        };
        let service = self.services.entry(name.clone()).or_insert_with(|| Service::load(&name));
        let has = |flags: &[&str]| args.iter().any(|arg| flags.contains(&arg.as_str()));
        let quiet = has(&["--quiet", "-q", "--value"]);
        match service.order(&name, verb) {
            Some(Ok(Some(wish))) if !has(&["--no-block"]) => self.waiting.push((stream, name, wish)),
            Some(Ok(_)) => Answer::default().send(stream),
            Some(Err(answer)) => answer.send(stream),
            None => service.query(&name, verb, &properties, quiet).send(stream),
        }
        Ok(())
    }

    fn reload(&mut self) {
        for (name, service) in &mut self.services {
            match Unit::load(Path::new("/"), name) {
                Ok(unit) => service.unit = unit,
                Err(error) => say(&format!("{name}: {error}")),
            }
        }
    }

    /// Answers those whose wish has come true, or cannot any more.
    fn answer(&mut self) {
        for (stream, name, wish) in std::mem::take(&mut self.waiting) {
            let state = self.services.get(&name).map_or(State::Inactive, |service| service.state);
            match (wish, state) {
                (Wish::Start, State::Starting(_) | State::Stopping { again: true })
                | (Wish::Stop, State::Stopping { .. }) => self.waiting.push((stream, name, wish)),
                (Wish::Start, State::Running) | (Wish::Stop, _) => Answer::default().send(stream),
                (Wish::Start, _) => {
                    let why = self.services.get(&name).map_or("it has gone", |service| service.result);
                    let text = format!(
                        "Job for {name} failed: {why}.\nSee \"systemctl status {name}\" for details.\n"
                    );
                    Answer::error(1, text).send(stream);
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Failed,
    Inactive,
    /// Waits until then to be started again.
    Restarting(Instant),
    Running,
    Starting(Instant),
    Stopping {
        /// Whether it is to be started again.
        again: bool,
    },
}

impl State {
    /// Returns `ActiveState` and `SubState`.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Failed => ("failed", "failed"),
            Self::Inactive => ("inactive", "dead"),
            Self::Restarting(_) => ("activating", "auto-restart"),
            Self::Running => ("active", "running"),
            Self::Starting(_) => ("activating", "start"),
            Self::Stopping { .. } => ("deactivating", "stop-sigterm"),
        }
    }
}

/// A service, and its process if it has one.
struct Service {
    /// As loaded; `None` if there was no such file.
    unit: Option<Unit>,
    state: State,
    task: Option<Task>,
    notify: Option<UnixDatagram>,
    /// The latest starts, for the start limit.
    starts: Vec<Instant>,
    started: u64,
    restarts: u64,
    /// Why it stopped last.
    result: &'static str,
}

impl Service {
    fn load(name: &str) -> Self {
        let unit = Unit::load(Path::new("/"), name).unwrap_or_else(|error| {
            say(&format!("{name}: {error}"));
            None
        });
        Self {
            unit,
            state: State::Inactive,
            task: None,
            notify: None,
            starts: Vec::new(),
            started: 0,
            restarts: 0,
            result: "success",
        }
    }

    /// Obeys a verb that changes something, and returns what is to be waited for; `None` if it is no such
    /// verb.
    fn order(&mut self, name: &str, verb: &str) -> Option<Result<Option<Wish>, Answer>> {
        let wish = match verb {
            "start" | "restart" if self.unit.is_none() => {
                let text = format!("Failed to {verb} {name}: Unit {name} not found.\n");
                return Some(Err(Answer::error(5, text)));
            }
            "start" | "try-restart" if self.active() != (verb == "try-restart") => None,
            "start" | "restart" | "try-restart" => {
                self.starts.clear();
                self.stop();
                match &mut self.state {
                    State::Stopping { again } => *again = true,
                    _ => self.start(name),
                }
                Some(Wish::Start)
            }
            "stop" => {
                self.stop();
                Some(Wish::Stop)
            }
            "reset-failed" => {
                self.starts.clear();
                if self.state == State::Failed {
                    self.state = State::Inactive;
                }
                None
            }
            _ => return None,
        };
        Some(Ok(wish))
    }

    /// Answers a verb that only asks.
    fn query(&self, name: &str, verb: &str, properties: &[&str], quiet: bool) -> Answer {
        match verb {
            "cat" => {
                let files = self.unit.iter().flat_map(|unit| &unit.files);
                let text = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
                let texts = files.map(|file| format!("# {}\n{}\n", file.display(), text(file)));
                Answer::output(texts.collect::<String>())
            }
            "is-active" => {
                let (active, _) = self.state.names();
                let code = if active == "active" { 0 } else { 3 };
                let output = if quiet { String::new() } else { format!("{active}\n") };
                Answer { code, output, errors: String::new() }
            }
            "show" | "status" => {
                let mut known = self.properties(name);
                known.retain(|(key, _)| properties.is_empty() || properties.contains(key));
                let line = |(key, value): &(&str, String)| {
                    if quiet { format!("{value}\n") } else { format!("{key}={value}\n") }
                };
                Answer::output(known.iter().map(line).collect::<String>())
            }
            _ => Answer::error(1, format!("Unknown command verb '{verb}'.\n")),
        }
    }

    fn active(&self) -> bool {
        matches!(self.state, State::Running | State::Starting(_) | State::Restarting(_))
    }

    fn start(&mut self, name: &str) {
        self.starts.retain(|start| start.elapsed() < LIMIT_INTERVAL);
        if self.starts.len() >= LIMIT_BURST {
            say(&format!("{name}: start request repeated too quickly"));
            (self.state, self.result) = (State::Failed, "start-limit-hit");
            return;
        }
        self.starts.push(Instant::now());
        self.started += 1;
        match self.launch(name) {
            Ok(task) => {
                say(&format!("{name}: started process {}", task.pid));
                self.task = Some(task);
                let notifies = self.unit.as_ref().is_some_and(|unit| unit.get("Type") == Some("notify"));
                self.state = if notifies { State::Starting(Instant::now()) } else { State::Running };
            }
            Err(error) => {
                say(&format!("{name}: cannot start: {error}"));
                self.result = "resources";
                self.again_or(State::Failed);
            }
        }
    }

    fn launch(&mut self, name: &str) -> Result<Task, String> {
        let unit = self.unit.as_ref().ok_or("it has no unit file")?;
        let mut program = unit.program(Path::new("/"))?;
        let path = format!("{NOTIFY}/{name}");
        let _ = fs::remove_file(&path);
        let bind = || {
            let socket = UnixDatagram::bind(&path)?;
            socket.set_nonblocking(true)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            io::Result::Ok(socket)
        };
        self.notify = Some(bind().map_err(|error| error.to_string())?);
        program = program.env("NOTIFY_SOCKET", path).group(trace::service(name));
        Task::start(&program, name, self.started).map_err(|error| error.to_string())
    }

    fn stop(&mut self) {
        self.state = if self.task.is_some() { State::Stopping { again: false } } else { State::Inactive };
    }

    /// Waits for another start if the unit wants that, else settles for `state`.
    fn again_or(&mut self, state: State) {
        let Some(unit) = &self.unit else { return self.state = state };
        let again = match unit.get("Restart") {
            Some("always") => true,
            Some("on-failure") => self.result != "success",
            Some("on-abnormal") => matches!(self.result, "signal" | "timeout"),
            _ => false,
        };
        self.state = if again {
            self.restarts += 1;
            State::Restarting(Instant::now() + unit.span("RestartSec", Duration::from_millis(100)))
        } else {
            state
        };
    }

    fn advance(&mut self, name: &str) {
        if let Some(status) = self.task.as_mut().and_then(Task::ended) {
            say(&format!("{name}: its process ended: {status}"));
            self.task = None;
            return self.ended(name, status);
        }
        let span = |key: &str| {
            let default = Duration::from_secs(90);
            self.unit.as_ref().map_or(default, |unit| unit.span(key, default))
        };
        match self.state {
            State::Starting(since) => {
                if self.ready() {
                    say(&format!("{name}: ready"));
                    self.state = State::Running;
                } else if since.elapsed() > span("TimeoutStartSec") {
                    say(&format!("{name}: start operation timed out"));
                    self.result = "timeout";
                    let grace = span("TimeoutStopSec");
                    if let Some(task) = &mut self.task {
                        task.stop(grace);
                    }
                }
            }
            State::Stopping { .. } => {
                let grace = span("TimeoutStopSec");
                if let Some(task) = &mut self.task {
                    task.stop(grace);
                }
            }
            State::Restarting(at) if Instant::now() >= at => self.start(name),
            _ => {}
        }
    }

    fn ended(&mut self, name: &str, status: ExitStatus) {
        use std::os::unix::process::ExitStatusExt;
        match self.state {
            State::Stopping { again: true } => self.start(name),
            State::Stopping { again: false } => (self.state, self.result) = (State::Inactive, "success"),
            state => {
                let timed_out = matches!(state, State::Starting(_)) && self.result == "timeout";
                // As with systemd, the signals by which one asks a program to stop are no failure.
                let clean = status.success() || matches!(status.signal(), Some(1 | 2 | 13 | 15));
                self.result = match status.signal() {
                    _ if timed_out => "timeout",
                    // A service that said it would notify, and went without doing so.
                    _ if clean && matches!(state, State::Starting(_)) => "protocol",
                    _ if clean => "success",
                    Some(_) => "signal",
                    None => "exit-code",
                };
                let settled = if self.result == "success" { State::Inactive } else { State::Failed };
                self.again_or(settled);
            }
        }
    }

    /// Returns whether the process has said that it is ready.
    fn ready(&self) -> bool {
        let mut message = [0; 4096];
        while let Some(length) = self.notify.as_ref().and_then(|socket| socket.recv(&mut message).ok()) {
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
            if text.lines().any(|line| line == "READY=1") {
                return true;
            }
        }
        false
    }

    fn properties(&self, name: &str) -> Vec<(&'static str, String)> {
        let (active, sub) = self.state.names();
        let on_disk = Unit::load(Path::new("/"), name).ok().flatten();
        let mut files = self.unit.iter().flat_map(|unit| &unit.files).map(|file| file.display().to_string());
        vec![
            ("Id", name.to_string()),
            ("LoadState", if self.unit.is_some() { "loaded" } else { "not-found" }.into()),
            ("ActiveState", active.into()),
            ("SubState", sub.into()),
            ("Result", self.result.into()),
            ("MainPID", self.task.as_ref().map_or(0, |task| task.pid).to_string()),
            ("NRestarts", self.restarts.to_string()),
            ("NeedDaemonReload", if on_disk == self.unit { "no" } else { "yes" }.into()),
            ("FragmentPath", files.next().unwrap_or_default()),
            ("DropInPaths", files.collect::<Vec<_>>().join(" ")),
        ]
    }
}

const SOCKET: &str = "/run/systemd/private";
const NOTIFY: &str = "/run/systemd/notify";
const TICK: Duration = Duration::from_millis(20);

/// systemd's defaults `DefaultStartLimitIntervalSec` and `DefaultStartLimitBurst`.
const LIMIT_INTERVAL: Duration = Duration::from_secs(10);
const LIMIT_BURST: usize = 5;

/// Connects to the manager, which may just be starting.
fn connect() -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(SOCKET) {
            Err(_) if start.elapsed() < Duration::from_secs(2) => thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

/// Returns the properties that `-p A,B`, `-pA` or `--property=A` ask for.
fn properties(args: &[String]) -> Vec<&str> {
    let mut properties = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let list = match arg {
            "-p" | "--property" => args.next(),
            arg => arg.strip_prefix("--property=").or(arg.strip_prefix("-p")),
        };
        properties.extend(list.into_iter().flat_map(|list| list.split(',')));
    }
    properties
}

/// Returns the unit's name with its suffix.
fn full(name: &str) -> String {
    if name.contains('.') { name.to_string() } else { format!("{name}.service") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_asked_for_in_four_ways() {
        for args in
            [&["-p", "A,B"][..], &["-pA", "-pB"], &["--property=A,B"], &["--property", "A", "-p", "B"]]
        {
            let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
            assert_eq!(properties(&args), ["A", "B"]);
        }
    }

    #[test]
    fn a_unit_that_says_so_is_started_again() {
        let exit = |code: i32| std::os::unix::process::ExitStatusExt::from_raw(code);
        const KILLED: i32 = 9;
        const FAILED: i32 = 1 << 8;
        for (restart, status, again) in [
            ("always", 0, true),
            ("always", KILLED, true),
            ("on-failure", 0, false),
            ("on-failure", FAILED, true),
            ("on-abnormal", FAILED, false),
            ("on-abnormal", KILLED, true),
            ("no", KILLED, false),
        ] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("etc/systemd/system");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("x.service"), format!("[Service]\nRestart={restart}\n")).unwrap();
            let mut service = Service::load("no-such.service");
            service.unit = Unit::load(root.path(), "x.service").unwrap();
            service.state = State::Running;
            service.ended("x.service", exit(status));
            assert_eq!(matches!(service.state, State::Restarting(_)), again, "{restart} after {status}");
        }
    }

    #[test]
    fn a_unit_that_keeps_failing_is_given_up() {
        let mut service = Service::load("no-such.service");
        (0..=LIMIT_BURST).for_each(|_| service.start("no-such.service"));
        assert_eq!(service.result, "start-limit-hit");
    }
}
