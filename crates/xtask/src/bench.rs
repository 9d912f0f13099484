//! `cargo xtask bench`: what an audit costs, beside the shell pipelines that check the same controls.
//!
//! Everything runs on a node of a real cluster. Times are medians: sides take turns on the same node, ratios are taken
//! pair by pair, and process starts are counted by the kernel.

pub(crate) mod evaluate;
pub(crate) mod measure;
mod reference;

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Context as _;
use clap::Args;
use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, Node, Program};
use serde_json::Value;

use crate::{release_binary, say, workspace};
use evaluate::Evaluation;
use measure::{Plan, Run};
use reference::Reference;

/// How many processes beside etcd the node has.
const PROCESSES: usize = 300;
/// How often each side is measured.
const ROUNDS: usize = 20;
/// The thread of an audit beside its first one. The kernel counts it like a process.
const HELPER: u64 = 1;
/// How many snapshots are audited offline.
const SNAPSHOTS: usize = 10_000;

/// Programs as the node sees them.
const SEAWORTHY: &str = "/bench/seaworthy";
const XTASK: &str = "/bench-tasks/xtask";

/// What to measure.
#[derive(Args)]
pub(crate) struct Bench {
    /// On a real control-plane node that kubeadm makes, with all components that are judged, instead of a member of etcd alone
    #[arg(long)]
    cluster: bool,
}

/// Runs a program on the node.
type Runs<'a> = &'a dyn Fn(&str, &[&str]) -> anyhow::Result<Output>;

pub(crate) fn run(wanted: &Bench) -> anyhow::Result<()> {
    let binary = release_binary()?;
    crate::run("cargo", &["build", "--quiet", "--release", "--locked", "--package", "xtask"])?;
    if wanted.cluster {
        return on_a_cluster(&binary);
    }
    crate::lab()?;
    let folder = binary.parent().context("no folder")?;
    let programs = &workspace().join("target/release");
    let etcd = &EtcdBinary::required()?.pop().context("no etcd in the lab")?;
    let mut table = Table::default();

    say(&format!(
        "\nA node of a cluster of three, etcd {}, with {PROCESSES} other processes:\n",
        etcd.version
    ));
    let spec = |members| {
        ClusterSpec::new(etcd).members(members).share(folder, "/bench").share(programs, "/bench-tasks")
    };
    let cluster = Cluster::start(spec(3))?;
    let node = cluster.node(0);
    let script = format!("for i in $(seq {PROCESSES}); do sleep 1000 & done; wait");
    let _others = node.spawn(&Program::new("sh").args(["-c", &script]))?;
    let ready = node.run(
        "sh",
        ["-c", "until [ $(pgrep -c sleep) -ge \"$0\" ]; do sleep 0.1; done", &PROCESSES.to_string()],
    );
    anyhow::ensure!(
        ready?.status.success() && node.run("sh", ["-c", "command -v ps"])?.status.success(),
        "the reference needs `ps` and `pgrep`: apt-get install procps"
    );
    audits(&inside(node), reference::OF_ETCD, &mut table)?;
    probe(node, "mTLS", &mut table)?;
    let snapshot = node.run(SEAWORTHY, ["snapshot"])?.stdout;
    drop(cluster);

    let plaintext = spec(2).each(|m| m.peers("http"));
    probe(Cluster::start(plaintext)?.node(0), "plaintext", &mut table)?;

    offline(programs, &snapshot, &mut table)?;
    anyhow::ensure!(table.missed == 0, "{} missed", table.missed);
    Ok(())
}

/// Returns what runs a program on a node of the lab.
fn inside(node: &Node) -> impl Fn(&str, &[&str]) -> anyhow::Result<Output> {
    |program, arguments| Ok(node.run(program, arguments.iter().map(|word| (*word).to_owned()))?)
}

/// Measures audits of a real control-plane node. Its programs are put where only this run looks.
fn on_a_cluster(binary: &Path) -> anyhow::Result<()> {
    let node = seaworthy_kubeadm::Node::up(seaworthy_kubeadm::RELEASE, &seaworthy_kubeadm::Progress::new())?;
    let on_node = |program: &str, arguments: &[&str]| Ok(node.command(program).args(arguments).output()?);
    let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", node.pid()));
    for (from, to) in [(binary, SEAWORTHY), (&workspace().join("target/release/xtask"), XTASK)] {
        let to = inside(to);
        std::fs::create_dir_all(to.parent().context("no folder")?)?;
        std::fs::copy(from, to)?;
    }
    say(&format!(
        "\nA control-plane node of kubeadm, Kubernetes {}, with {PROCESSES} other processes:\n",
        seaworthy_kubeadm::RELEASE
    ));
    let script = format!("for i in $(seq {PROCESSES}); do sleep 1000 & done; wait");
    let mut others = node.command("sh").args(["-c", &script]).spawn()?;
    let mut table = Table::default();
    let all = [reference::OF_ETCD, reference::OF_KUBERNETES].concat();
    let measured = audits(&on_node, &all, &mut table);
    on_node("pkill", &["-x", "sleep"])?;
    others.wait()?;
    for path in [SEAWORTHY, XTASK].map(inside) {
        std::fs::remove_dir_all(path.parent().context("no folder")?)?;
    }
    measured?;
    anyhow::ensure!(table.missed == 0, "{} missed", table.missed);
    Ok(())
}

/// Measures audits without and with the wire, and the reference, in turn.
fn audits(on_node: Runs<'_>, controls: &[Reference], table: &mut Table) -> anyhow::Result<()> {
    let audit = |more: &[&str]| {
        let all = [&[SEAWORTHY, "audit", "--benchmark", "cis-kubernetes", "--format", "json"], more].concat();
        vec![all.iter().map(|word| (*word).to_owned()).collect()]
    };
    judges_all_controls(on_node, controls)?;
    let commands = reference::commands(controls);
    let pipelines = commands.len();
    let sides = vec![audit(&["--no-wire"]), audit(&[]), commands];
    let sides = measured(on_node, &Plan { warm_up: 2, rounds: ROUNDS, sides })?;
    let [quiet, wire, reference] = sides.as_slice() else { anyhow::bail!("three sides were asked for") };

    let extra = quiet.pairs(wire, |quiet, wire| wire.wall - quiet.wall);
    let ratio = quiet.pairs(reference, |audit, reference| reference.wall / audit.wall);
    let wire_ratio = wire.pairs(reference, |audit, reference| reference.wall / audit.wall);
    table.row("audit without the wire", &quiet.times(), at_most(quiet.median(), 10.0, "ms"));
    table.row("  its peak memory", &quiet.mebibytes(), at_most(quiet.memory(), 20.0, "MB"));
    let others = quiet.starts().saturating_sub(1);
    table.row(
        "  processes it starts",
        &format!("{} beside {HELPER} thread (kernel's count)", others.saturating_sub(HELPER)),
        at_most(others.saturating_sub(HELPER) as f64, 0.0, ""),
    );
    table.row("audit with the wire", &wire.times(), None);
    table.row("  more than without", &format!("{extra:.1} ms"), at_most(extra, 50.0, "ms"));
    table.row("  its peak memory", &wire.mebibytes(), at_most(wire.memory(), 20.0, "MB"));
    table.row("  threads it starts", &format!("{} (kernel's count)", wire.starts().saturating_sub(1)), None);
    let what = format!("reference: {pipelines} pipelines, {} controls", controls.len());
    table.row(&what, &reference.times(), None);
    table.row("  processes it starts", &format!("{} (kernel's count)", reference.starts()), None);
    table.row("  times an audit without the wire", &format!("{ratio:.0} ×"), at_least(ratio, 50.0, "×"));
    table.row("  times an audit with the wire", &format!("{wire_ratio:.0} ×"), None);
    Ok(())
}

/// Makes sure that an audit judges every control of the reference, so that equal work is compared.
fn judges_all_controls(on_node: Runs<'_>, wanted: &[Reference]) -> anyhow::Result<()> {
    let output = on_node(SEAWORTHY, &["audit", "--no-wire", "-b", "cis-kubernetes", "-f", "json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let controls =
        report.pointer("/controls").and_then(Value::as_array).context("no controls in the report")?;
    for (wanted, _) in wanted {
        let status = controls.iter().find(|c| c["id"] == *wanted).and_then(|c| c["status"].as_str());
        anyhow::ensure!(status.is_some(), "the audit says nothing about control {wanted}");
    }
    Ok(())
}

fn probe(node: &Node, what: &str, table: &mut Table) -> anyhow::Result<()> {
    let target = format!("{}:2380", node.address);
    let command = [SEAWORTHY, "probe", "--format", "json", &target].map(str::to_owned).to_vec();
    let answer: Value =
        serde_json::from_slice(&node.run(SEAWORTHY, ["probe", "-f", "json", &target])?.stdout)?;
    let connections = answer.pointer("/probes/0/wire/connections").and_then(Value::as_u64);
    let connections = connections.with_context(|| format!("the probe failed: {answer}"))?;
    let sides = measured(&inside(node), &Plan { warm_up: 1, rounds: ROUNDS, sides: vec![vec![command]] })?;
    let side = sides.first().context("a side")?;
    let measured = format!("{}, {connections} connections", side.times());
    table.row(&format!("probe of a peer port, {what}"), &measured, at_most(side.median(), 100.0, "ms"));
    Ok(())
}

fn offline(programs: &Path, snapshot: &[u8], table: &mut Table) -> anyhow::Result<()> {
    let path = workspace().join("target/bench-snapshot.json");
    std::fs::write(&path, snapshot)?;
    let output = std::process::Command::new(programs.join("xtask"))
        .args(["evaluate".as_ref(), path.as_os_str(), SNAPSHOTS.to_string().as_ref()])
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for e in serde_json::from_slice::<Vec<Evaluation>>(&output.stdout)? {
        let cores = if e.threads == 1 { "one core".to_owned() } else { format!("{} cores", e.threads) };
        let speed = format!("{:.1} s, {:.0} findings/s", e.seconds, e.findings as f64 / e.seconds);
        let limit = (e.threads > 1).then(|| at_most(e.seconds, 10.0, "s")).flatten();
        let size = e.bytes / e.snapshots.max(1) / 1024;
        table.row(&format!("{} snapshots of {size} KiB, {cores}", e.snapshots), &speed, limit);
    }
    Ok(())
}

/// Carries out `plan` on a node.
fn measured(on_node: Runs<'_>, plan: &Plan) -> anyhow::Result<Vec<Side>> {
    let output = on_node(XTASK, &["measure", &serde_json::to_string(plan)?])?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sides: Vec<Vec<Run>> = serde_json::from_slice(&output.stdout)?;
    sides
        .into_iter()
        .map(|runs| {
            let (first, counted) = runs.split_first().context("no run")?;
            Ok(Side { first: *first, counted: counted.to_vec() })
        })
        .collect()
}

/// The runs of one side.
struct Side {
    /// The very first, which is not counted but for its memory.
    first: Run,
    counted: Vec<Run>,
}

impl Side {
    fn median(&self) -> f64 {
        median(self.counted.iter().map(|run| run.wall))
    }

    /// Returns wall time and CPU time in words.
    fn times(&self) -> String {
        let least = self.counted.iter().map(|run| run.wall).fold(f64::INFINITY, f64::min);
        let cpu = median(self.counted.iter().map(|run| run.cpu));
        format!("{:.1} ms (min {least:.1}, CPU {cpu:.1})", self.median())
    }

    /// Returns the peak memory in MB.
    fn memory(&self) -> f64 {
        self.first.memory as f64 * 1024.0 / 1e6
    }

    fn mebibytes(&self) -> String {
        format!("{:.1} MB", self.memory())
    }

    /// Returns how many processes and threads a run starts. Others on the node can only add to that.
    fn starts(&self) -> u64 {
        self.counted.iter().filter_map(|run| run.starts).min().unwrap_or_default()
    }

    /// Returns the median of what `compare` says of each pair of neighbouring runs.
    fn pairs(&self, other: &Self, compare: impl Fn(&Run, &Run) -> f64) -> f64 {
        median(self.counted.iter().zip(&other.counted).map(|(a, b)| compare(a, b)))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A target in words, and whether it is met.
type Target = Option<(String, bool)>;

fn at_most(value: f64, limit: f64, unit: &str) -> Target {
    Some((format!("≤ {limit} {unit}").trim_end().to_owned(), value <= limit))
}

fn at_least(value: f64, limit: f64, unit: &str) -> Target {
    Some((format!("≥ {limit} {unit}"), value >= limit))
}

/// Prints rows as they become known, and counts what was missed.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    #[expect(clippy::print_stdout, reason = "the result")]
    fn row(&mut self, what: &str, measured: &str, target: Target) {
        let (target, verdict) = match target {
            None => (String::new(), ""),
            Some((target, true)) => (target, "met"),
            Some((target, false)) => {
                self.missed += 1;
                (target, "MISSED")
            }
        };
        println!("{}", format!("  {what:<40} {measured:<48} {target:<9} {verdict}").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![5.0], 5.0), (vec![1.0, 9.0], 9.0)] {
            assert_eq!(median(values.into_iter()), expected);
        }
    }

    #[test]
    fn pairs_are_neighbours() {
        let run = |wall| Run { wall, cpu: 0.0, memory: 0, starts: Some(1) };
        let side = |walls: &[f64]| Side { first: run(0.0), counted: walls.iter().map(|w| run(*w)).collect() };
        let ratio = side(&[1.0, 2.0, 4.0]).pairs(&side(&[10.0, 40.0, 40.0]), |a, b| b.wall / a.wall);
        assert_eq!(ratio, 10.0);
    }
}
