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
mod protection;
mod workers;

use std::process::ExitCode;

use clap::Parser as _;

/// That of musl is so slow that an audit takes twice as long.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    protection::of_keys();
    workers::start();
    // An audit needs it, and has it by the time the command line is read.
    rayon::spawn(|| drop(seaworthy_builtin::catalogue()));
    let cli = cli::Cli::parse();
    cli.color.apply();
    match commands::run(cli.command) {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error),
    }
}
