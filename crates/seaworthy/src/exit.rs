//! Exit codes, in one place, and how errors are told.

use std::process::ExitCode;

/// What the exit code of `seaworthy` means. Documented in `--help`, the README and the manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing at or above `--fail-on` failed, and enough could be seen.
    Clean = 0,
    /// At least one finding at or above `--fail-on` failed.
    Findings = 1,
    /// The command line, a name in it, or a file it names is wrong.
    Usage = 2,
    /// Nothing failed, but less could be seen than `--min-coverage` asks for.
    Incomplete = 3,
    /// An operation failed.
    Failure = 4,
    /// A fix failed, and was rolled back.
    RolledBack = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that is the user's to correct, with advice.
#[derive(Debug)]
pub(crate) struct UsageError {
    message: String,
    help: String,
}

impl UsageError {
    /// Returns the error `message` with what to do about it.
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// Tells `error` on stderr and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error:{red:#} {error:#}");
    match error.downcast_ref::<UsageError>() {
        Some(usage) => {
            if !usage.help.is_empty() {
                anstream::eprintln!("{}", usage.help);
            }
            Exit::Usage.into()
        }
        None => Exit::Failure.into(),
    }
}
