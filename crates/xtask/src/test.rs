//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.

use std::process::Command;
use std::time::Instant;

use crate::tables::{self, Tables};
use crate::{generate, say};

/// The version of cargo-deny that is installed when there is none.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> anyhow::Result<()> {
    let start = Instant::now();
    crate::run("cargo", &["fmt", "--all", "--check"])?;
    crate::run(
        "cargo",
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            "seaworthy-kubeadm/cluster",
            "--locked",
            "--",
            "--deny",
            "warnings",
        ],
    )?;
    generate::run(true)?;
    tables::run(&Tables::CHECK)?;
    licences()?;
    crate::lab()?;
    match seaworthy_lab::embedder() {
        Ok(_) => say("a program with an etcd inside is in the lab"),
        Err(error) => {
            say(&format!("without a program that has an etcd inside, so its tests will fail: {error}"))
        }
    }
    crate::run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])?;
    say(&format!("\nEverything holds ({} s).", start.elapsed().as_secs()));
    Ok(())
}

/// Checks licences, bans and sources of every dependency.
fn licences() -> anyhow::Result<()> {
    let installed =
        Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        crate::run("cargo", &["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY])?;
    }
    // Advisories need a database from outside the package registries, so they are checked at release.
    crate::run("cargo", &["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])
}
