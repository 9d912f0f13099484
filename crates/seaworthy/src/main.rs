//! `seaworthy`: proves whether etcd and Kubernetes are configured securely.
//!
//! The binary only parses the command line ([`cli`]), runs one of the [`commands`], and turns its outcome into output
//! and an exit code ([`exit`]). Data goes to stdout, everything else to stderr.

mod cli;
mod commands;
mod exit;
#[cfg(debug_assertions)]
mod failpoint;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.color.apply();
    match commands::run(cli.command) {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error),
    }
}
