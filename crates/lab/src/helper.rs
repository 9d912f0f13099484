//! The program that the lab runs inside nodes. It plays a part by the name under which it is started.
//!
//! It is a separate program and not a thread of the test, so that it sees the node as any program there does,
//! and ends with the node.

mod http;
mod kubelet;
mod systemd;
mod task;
mod unit;
mod writer;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::error::{Error, succeed};

/// The folder of a node that has the program under each of its [`NAMES`]. It is the first of the search path.
pub(crate) const HELPERS: &str = "/opt/lab/bin";

/// Where supervisors say which process is which: a file `NAME.json` for each.
pub(crate) const STATUS: &str = "/run/lab";

/// Where the writer says how it is doing.
pub(crate) const WRITER_STATUS: &str = "/run/lab/writer.json";

/// Where the writer leaves its record: one line for each write.
pub(crate) const WRITER_LOG: &str = "/var/log/writer.csv";

/// Plays the part that the program's own name says. For the lab's helper program only.
#[doc(hidden)]
pub fn helper() -> ExitCode {
    let mut words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let name = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    let played = match name.rsplit('/').next() {
        Some("kubelet") => kubelet::run(&args),
        Some("systemctl") => return systemd::control(&args),
        Some("systemd") => systemd::run(),
        Some("writer") => writer::run(&args),
        _ => Err(format!("{name} is none of the parts that this program can play")),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// Returns the helper program, after building it if that is necessary.
///
/// Cargo does not build the programs of a dependency, so the lab asks it to. `SEAWORTHY_LAB_HELPER` names a
/// program that is there already.
pub(crate) fn program() -> Result<PathBuf, Error> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = env::var_os("SEAWORTHY_LAB_HELPER") {
        return Ok(program.into());
    }
    if let Some(program) = PROGRAM.get() {
        return Ok(program.clone());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bin", "lab-helper"]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(env!("CARGO_MANIFEST_DIR"));
    let printed = String::from_utf8_lossy(&succeed(&mut cargo)?.stdout).into_owned();
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    match printed.lines().filter_map(executable).next_back() {
        Some(program) => Ok(PROGRAM.get_or_init(|| program).clone()),
        None => Err(Error::Unexpected { what: "cargo build".into(), answer: printed }),
    }
}

/// Prints a line to the log, which is the standard error stream.
fn say(text: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let _ = writeln!(io::stderr(), "{}.{:03} {text}", now.as_secs(), now.subsec_millis());
}

/// Replaces a file at once, so that nobody reads half of it.
fn replace(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let path = path.as_ref();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

/// Reads a small text file; a larger one is an error.
fn read(path: impl AsRef<Path>) -> io::Result<String> {
    const MAX: u64 = 10 << 20;
    let mut text = String::new();
    let file = fs::File::open(path)?;
    if io::Read::read_to_string(&mut io::Read::take(file, MAX), &mut text)? as u64 == MAX {
        return Err(io::Error::other("larger than 10 MiB"));
    }
    Ok(text)
}

/// Reads a time span as Go and systemd write it: `500ms`, `1m30s`, `1min 30s`; a bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(number_end)?;
        let after = after.trim_start();
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let seconds = match unit {
            "" | "s" | "sec" | "seconds" => 1.0,
            "ms" | "msec" => 0.001,
            "m" | "min" | "minutes" => 60.0,
            "h" | "hr" | "hours" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = after.trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_and_systemd_write_them() {
        for (text, milliseconds) in [
            ("20s", Some(20_000)),
            ("500ms", Some(500)),
            ("0.5s", Some(500)),
            ("1m30s", Some(90_000)),
            ("1min 30s", Some(90_000)),
            ("5", Some(5_000)),
            ("soon", None),
            ("5 parsecs", None),
        ] {
            assert_eq!(span(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }
}
