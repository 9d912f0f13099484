//! What can go wrong in the lab, and the helpers that turn a failed program or system call into it.

use std::{
    io,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

/// An error of the lab. Each says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program ran and failed.
    #[error("{what} failed ({status}): {output}")]
    Failed {
        /// What was run.
        what: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that the lab needs is not installed.
    #[error("`{program}` is not installed; install it with `{hint}`")]
    MissingTool {
        /// The program.
        program: String,
        /// The command that installs it on Debian and Ubuntu.
        hint: &'static str,
    },
    /// There is no etcd in the cache.
    #[error("there is no etcd in {}: fetch it with `cargo xtask lab`", dir.display())]
    NoEtcd {
        /// The cache directory that was searched.
        dir: PathBuf,
    },
    /// A node could not be made.
    #[error(
        "cannot make a node's namespaces: {output}\nthe lab needs root, or a kernel that lets users make namespaces \
         (on Ubuntu 24.04 and later: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)"
    )]
    NoNode {
        /// What the failing program printed.
        output: String,
    },
    /// etcd exited, or was not ready in time.
    #[error("etcd on node {node} is not ready after {waited:.1?}: {why}; its log:\n{log}")]
    NotReady {
        /// The node's name.
        node: String,
        /// How long the lab waited.
        waited: Duration,
        /// What was still missing.
        why: String,
        /// The first and last lines of etcd's log.
        log: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot issue a certificate: {0}")]
    Pki(#[from] rcgen::Error),
    /// A program answered something that the lab does not understand.
    #[error("{what} answered what the lab does not understand: {answer}")]
    Unexpected {
        /// Who answered.
        what: String,
        /// What it said.
        answer: String,
    },
}

impl Error {
    /// Returns a closure that names the action in which a system call failed.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self::Io { what: what.into(), source: source.into() }
    }
}

/// Runs a program to its end and returns what it printed, or an error unless it succeeded.
pub(crate) fn succeed(command: &mut Command) -> Result<Output, Error> {
    let output = command.output().map_err(|error| cannot_start(command, error))?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = [output.stdout, output.stderr].concat();
    Err(Error::Failed {
        what: what(command),
        status: output.status.to_string(),
        output: tail(&String::from_utf8_lossy(&printed), 30),
    })
}

/// Returns the error for a program that could not be started, with the package that has it.
pub(crate) fn cannot_start(command: &Command, error: io::Error) -> Error {
    let program = command.get_program().to_string_lossy();
    if error.kind() != io::ErrorKind::NotFound {
        return Error::io(format!("start {program}"))(error);
    }
    let hint = match &*program {
        "apt-get" | "dpkg-deb" => "a Debian or Ubuntu system",
        "go" => "apt-get install golang-go (1.24 or later), or from https://go.dev/dl",
        "ip" => "apt-get install iproute2",
        "python3" => "apt-get install python3-pip",
        _ => "apt-get install util-linux bash hostname",
    };
    Error::MissingTool { program: program.into_owned(), hint }
}

/// Returns the last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let mut last: Vec<&str> = text.trim_end().lines().rev().take(lines).collect();
    last.reverse();
    last.join("\n")
}

/// Returns the first lines and the last `lines` lines of a log: the reason of a failure is in either.
pub(crate) fn excerpt(text: &str, lines: usize) -> String {
    const HEAD: usize = 5;
    let count = text.trim_end().lines().count();
    if count <= HEAD + lines {
        return text.trim_end().to_string();
    }
    let head: Vec<&str> = text.lines().take(HEAD).collect();
    format!("{}\n[{} lines left out]\n{}", head.join("\n"), count - HEAD - lines, tail(text, lines))
}

/// Names a command by its program and first arguments: scripts in arguments would drown the message.
fn what(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy()).filter(|word| !word.contains('\n'));
    let mut what = command.get_program().to_string_lossy().into_owned();
    for word in words.take(12) {
        what = format!("{what} {word}");
    }
    format!("`{what}`")
}
