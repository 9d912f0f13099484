//! What each command does.

mod audit;
mod catalogue;
mod certificates;
mod fix;
mod probe;
mod snapshot;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, UsageError};
use crate::output;

/// Runs `command` and returns how it ended.
pub(crate) fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Audit(options) => audit::run(&options),
        Command::Snapshot(options) => snapshot::run(&options),
        Command::Certificates(options) => certificates::run(&options),
        Command::Explain { name, catalogue } => catalogue::explain(&name, &catalogue),
        Command::List { benchmark, catalogue } => catalogue::list(benchmark.as_deref(), &catalogue),
        Command::Probe(options) => probe::run(&options),
        Command::Fix(options) => fix::run(&options),
        Command::Catalogue(crate::cli::Catalogue::Check { dir }) => catalogue::check(&dir),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "seaworthy", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Clean)
        }
        Command::Man { command } => man(&command),
    }
}

fn man(names: &[String]) -> anyhow::Result<Exit> {
    let mut command = Cli::command();
    command.build();
    for name in names {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| {
            let message = format!("there is no command `{}`", names.join(" "));
            UsageError::new(message, "see `seaworthy --help` for the commands")
        })?;
    }
    let mut page = Vec::new();
    let release = concat!("seaworthy ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command)
        .source(release)
        .render(&mut page)
        .context("cannot make the manual page")?;
    output::print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Clean)
}
