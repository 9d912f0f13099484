//! The program under test, for the tests that run it without a lab.

use std::process::{Command, Stdio};

/// The catalogue that is compiled into it.
pub(crate) const CATALOGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../catalogue");
/// Its commands.
pub(crate) const COMMANDS: [&[&str]; 12] = [
    &[],
    &["audit"],
    &["snapshot"],
    &["certificates"],
    &["explain"],
    &["list"],
    &["probe"],
    &["fix"],
    &["catalogue"],
    &["catalogue", "check"],
    &["completions"],
    &["man"],
];

/// Returns the program under test, in an environment that decides nothing.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seaworthy"));
    command.env_clear().stdin(Stdio::null());
    command
}
