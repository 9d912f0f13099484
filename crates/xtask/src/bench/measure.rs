//! Runs inside a node and measures commands there, so that the cost of entering the node is not counted.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// What to measure: sides that take turns, so that whatever else the machine does disturbs all of them alike.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Rounds that are not counted.
    pub(crate) warm_up: usize,
    /// Rounds that are.
    pub(crate) rounds: usize,
    /// Each side is a series of commands, which run one after the other.
    pub(crate) sides: Vec<Vec<Vec<String>>>,
}

/// One run of one side.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Milliseconds from before the first start to after the last exit.
    pub(crate) wall: f64,
    /// Milliseconds of CPU, user and system.
    pub(crate) cpu: f64,
    /// The most memory, in KiB, that any child had resident up to the end of this run. The sides therefore stand in the
    /// order of their appetite in a plan. The kernel counts a child before its `execve` as large as this program.
    pub(crate) memory: i64,
    /// Processes and threads that the kernel started in this PID namespace meanwhile; none when its numbers wrapped.
    pub(crate) starts: Option<u64>,
}

/// Carries out `plan`, which is JSON, and prints the runs of each side.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(plan: &str) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("the plan")?;
    let mut runs = vec![Vec::new(); plan.sides.len()];
    for round in 0..plan.warm_up + plan.rounds {
        for (side, runs) in plan.sides.iter().zip(&mut runs) {
            let run = series(side)?;
            // The first round has the memory of each side before the larger ones come.
            if round == 0 || round >= plan.warm_up {
                runs.push(run);
            }
        }
    }
    println!("{}", serde_json::to_string(&runs)?);
    Ok(())
}

/// Runs `commands` in series.
fn series(commands: &[Vec<String>]) -> anyhow::Result<Run> {
    let (cpu, pid, start) = (usage()?.0, last_pid()?, Instant::now());
    for command in commands {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {program}"))?;
        // 0 and 1 are verdicts, of an audit as of grep.
        anyhow::ensure!(matches!(status.code(), Some(0 | 1)), "{command:?} failed ({status})");
    }
    let wall = start.elapsed().as_secs_f64() * 1e3;
    let (cpu_after, memory) = usage()?;
    Ok(Run { wall, cpu: cpu_after - cpu, memory, starts: last_pid()?.checked_sub(pid) })
}

/// Returns the CPU time of all children so far, in milliseconds, and the largest of them, in KiB.
fn usage() -> anyhow::Result<(f64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let milliseconds = [usage.user_time(), usage.system_time()]
        .map(|t| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3)
        .iter()
        .sum();
    Ok((milliseconds, usage.max_rss()))
}

/// Returns the number that the kernel gave to the last process or thread of this PID namespace.
fn last_pid() -> anyhow::Result<u64> {
    const PATH: &str = "/proc/sys/kernel/ns_last_pid";
    let text = std::fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    text.trim().parse().context(PATH)
}
