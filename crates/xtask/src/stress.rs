//! `cargo xtask stress`: fixes and rollbacks that are killed, on real clusters and on clusters in memory, and what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{say, workspace};

/// How much is tried.
#[derive(Args)]
pub(crate) struct Stress {
    /// How many real clusters are migrated, every second one of them also back, while runs, members and kubelet are killed
    #[arg(long, default_value_t = 60)]
    seeds: u64,
    /// The first seed: where a run was ended, or which one failed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How often the longest gap between two writes is compared with that of the same change scripted by hand
    #[arg(long, default_value_t = 3)]
    compare: u64,
    /// How many clusters in memory are tried
    #[arg(long, default_value_t = 100_000)]
    in_memory: u64,
    /// The first seed of these
    #[arg(long, default_value_t = 0)]
    in_memory_from: u64,
}

/// What one real cluster came to, as its test prints it.
#[derive(Clone, Debug, Deserialize)]
struct Seed {
    seed: u64,
    version: String,
    acknowledged: u64,
    lost: u64,
    longest_gap_ms: f64,
    kills: u64,
    rollbacks: u64,
    troubles: u64,
    isolated: u64,
}

/// The longest gaps of one version of etcd, as their test prints them.
#[derive(Clone, Debug, Deserialize)]
struct Compared {
    version: String,
    program_ms: f64,
    by_hand_ms: f64,
}

pub(crate) fn run(wanted: &Stress) -> anyhow::Result<()> {
    crate::lab()?;
    if wanted.seeds > 0 {
        // Only a build for tests can be killed where a seed says.
        real(&tests("test")?, wanted)?;
    }
    if wanted.compare > 0 {
        // Beside programs that are optimised, as it is released.
        compare(&tests("stress")?, wanted.compare)?;
    }
    in_memory(wanted.in_memory_from, wanted.in_memory)
}

/// Goes through the seeds on real clusters, one after the other, and sums them up.
fn real(tests: &Path, wanted: &Stress) -> anyhow::Result<()> {
    let mut all: Vec<Seed> = Vec::new();
    for seed in wanted.from..wanted.from + wanted.seeds {
        let start = Instant::now();
        let range = format!("{seed}..{}", seed + 1);
        let told = told::<Seed>(tests, "fix_kill::more_seeds", "SEED ", &[("SEAWORTHY_SEEDS", &range)])
            .with_context(|| {
                format!("seed {seed} did not survive; it is run again, and the others after it, with --from {seed}")
            })?;
        for one in told {
            say(&format!(
                "seed {}: etcd {}, {} writes, {} lost, longest gap {:.0} ms, {} kills, {} rollbacks, {} other troubles, {} members \
                 isolated ({} s)",
                one.seed,
                one.version,
                one.acknowledged,
                one.lost,
                one.longest_gap_ms,
                one.kills,
                one.rollbacks,
                one.troubles,
                one.isolated,
                start.elapsed().as_secs()
            ));
            all.push(one);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let sum = |of: fn(&Seed) -> u64| all.iter().map(of).sum::<u64>();
    let gap = all.iter().map(|seed| seed.longest_gap_ms).fold(0.0, f64::max);
    say(&format!(
        "\n{} real clusters: {} writes, {} lost, longest gap {gap:.0} ms, {} kills, {} rollbacks, {} other troubles, {} members \
         isolated\n",
        all.len(),
        sum(|seed| seed.acknowledged),
        sum(|seed| seed.lost),
        sum(|seed| seed.kills),
        sum(|seed| seed.rollbacks),
        sum(|seed| seed.troubles),
        sum(|seed| seed.isolated),
    ));
    Ok(())
}

/// Measures the longest gap between two writes beside that of the same change scripted by hand.
fn compare(tests: &Path, rounds: u64) -> anyhow::Result<()> {
    let mut all: Vec<Compared> = Vec::new();
    for round in 1..=rounds {
        for one in told::<Compared>(tests, "fix_by_hand::compare", "COMPARED ", &[])? {
            say(&format!(
                "round {round} of {rounds}: etcd {}, longest gap {:.0} ms by the program, {:.0} ms by hand",
                one.version, one.program_ms, one.by_hand_ms
            ));
            all.push(one);
        }
    }
    let mut versions: Vec<&str> = all.iter().map(|one| one.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    for version in versions {
        let longest = |of: fn(&Compared) -> f64| {
            all.iter().filter(|one| one.version == version).map(of).fold(0.0, f64::max)
        };
        let (program, by_hand) = (longest(|one| one.program_ms), longest(|one| one.by_hand_ms));
        say(&format!(
            "etcd {version}, longest gap of {rounds}: {program:.0} ms by the program, {by_hand:.0} ms by hand, ratio {:.2}",
            program / by_hand
        ));
    }
    Ok(())
}

/// Runs the seeds in memory, which sum themselves up.
fn in_memory(from: u64, seeds: u64) -> anyhow::Result<()> {
    if seeds == 0 {
        return Ok(());
    }
    say(&format!("\n{seeds} clusters in memory, from seed {from}:"));
    let test = [
        "test",
        "--quiet",
        "--locked",
        "--profile",
        "stress",
        "-p",
        "seaworthy-remedy",
        "--test",
        "simulation",
        "--",
        "--nocapture",
    ];
    let status = Command::new("cargo")
        .args(test)
        .env("SEAWORTHY_SEEDS", format!("{from}..{}", from + seeds))
        .current_dir(workspace())
        .status()
        .context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "a cluster in memory did not survive");
    Ok(())
}

/// Builds the tests on real clusters, and returns their program.
fn tests(profile: &str) -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let build = [
        "test",
        "--locked",
        "--profile",
        profile,
        "-p",
        "seaworthy",
        "--test",
        "lab",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    let output = Command::new("cargo")
        .args(build)
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    anyhow::ensure!(output.status.success(), "the tests could not be built");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let of_lab =
        |message: Message| message.executable.filter(|_| message.target.is_some_and(|t| t.name == "lab"));
    messages.find_map(of_lab).context("cargo has not said where the tests are")
}

/// Runs a test that others do not run, and returns what it prints after `word`.
fn told<T: DeserializeOwned>(
    tests: &Path,
    test: &str,
    word: &str,
    environment: &[(&str, &str)],
) -> anyhow::Result<Vec<T>> {
    let output = Command::new(tests)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .current_dir(workspace())
        .output()
        .with_context(|| format!("cannot start {}", tests.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        say(&text);
        anyhow::bail!("{test} failed");
    }
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("{test} said {line:?}"))).collect()
}
