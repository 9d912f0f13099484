//! A fix that is killed, again and again: each time a re-run finishes it, or takes it back.
//!
//! One seed is one cluster, migrated and taken back on all nodes at once, while each node's runs are killed: right before
//! or right after a line of the journal, or at some instant. 36 seeds go through every boundary of a journal on one node;
//! `cargo xtask stress` runs more seeds than the tests do.

use std::fmt::Write as _;
use std::thread;

use seaworthy_lab::{Cluster, Node, Source, Supervisor};

use crate::common::{Audit, SEAWORTHY, fix_document, seaworthy, start, versions};
use crate::fix_apply::{PEER_TLS, plaintext};

/// Seeds that the tests run.
const SEEDS: std::ops::Range<u64> = 0..12;
/// Lines that a run writes into its journals, at most, there or back.
const LINES: u64 = 18;
/// How often the runs of one node are killed, at most.
const KILLS: u64 = 4;

/// A generator of random numbers (SplitMix64), so that a seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Runs `seaworthy fix` on a node until it ends by itself, after it was killed some times, and returns how it was killed.
/// The first kill is at this boundary of the journal, if one is given: two for each line, right before and right after.
fn run(node: &Node, random: &mut Random, boundary: Option<u64>, arguments: &[&str]) -> String {
    let mut killed = String::new();
    let kills = random.below(KILLS + 1).max(u64::from(boundary.is_some()));
    for attempt in 0..=kills {
        let at = |after: bool, line: u64| {
            let moment = if after { "after" } else { "before" };
            vec!["env".to_owned(), format!("SEAWORTHY_KILL={moment}:{line}")]
        };
        let how = match (attempt < kills, random.below(3)) {
            (false, _) => Vec::new(),
            (true, _) if attempt == 0 && boundary.is_some() => {
                let boundary = boundary.unwrap_or_default() % (2 * LINES);
                at(boundary % 2 == 1, 1 + boundary / 2)
            }
            (true, 0) => vec![
                "timeout".to_owned(),
                "-s".to_owned(),
                "KILL".to_owned(),
                format!("{:.3}", 0.05 + random.below(6000) as f64 / 1000.0),
            ],
            (true, moment) => at(moment == 2, 1 + random.below(LINES)),
        };
        let words: Vec<&str> = how
            .iter()
            .map(String::as_str)
            .chain([SEAWORTHY, "fix"])
            .chain(arguments.iter().copied())
            .collect();
        let output = node.run(words[0], &words[1..]).unwrap();
        if output.status.success() {
            break;
        }
        let was_killed = !matches!(output.status.code(), Some(0..=127));
        let told = String::from_utf8_lossy(&output.stderr);
        let document = String::from_utf8_lossy(&output.stdout);
        assert!(
            was_killed && attempt < kills,
            "{}: {words:?}: {:?}\n{killed}{told}{document}",
            node.name,
            output.status
        );
        let last = told.lines().last().unwrap_or_default().trim();
        let _ = writeln!(
            killed,
            "{} was killed by {:?} at {last:?}",
            node.name,
            &words[..words.len() - arguments.len() - 2]
        );
    }
    killed
}

/// Runs it on all nodes at once.
fn everywhere(cluster: &Cluster, seed: u64, arguments: impl Fn(usize) -> Vec<String> + Sync) -> String {
    thread::scope(|scope| {
        let arguments = &arguments;
        let runs: Vec<_> = cluster
            .nodes()
            .iter()
            .enumerate()
            .map(|(index, node)| {
                scope.spawn(move || {
                    let mut random = Random(seed.wrapping_mul(31).wrapping_add(index as u64));
                    let arguments = arguments(index);
                    // One node goes through the boundaries, seed by seed.
                    let boundary = (index == 0).then_some(seed);
                    run(
                        node,
                        &mut random,
                        boundary,
                        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
                    )
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// Asserts that nothing half-made is left on a node.
fn expect_tidy(node: &Node) {
    let find = "find /etc /var/lib/seaworthy -name '.*seaworthy*' -o -name '.beginning' -o -name '*.tmp' | grep -v /proc";
    let left = node.run("sh", ["-c", find]).unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "left on {}", node.name);
    let status = fix_document(&seaworthy(node, &["fix", "--status", "-f", "json"]));
    for fix in status["fixes"].as_array().unwrap() {
        assert!(matches!(fix["standing"].as_str(), Some("done" | "taken-back")), "{fix:#}");
    }
    for member in status["members"].as_array().unwrap() {
        assert_eq!(member["note"]["under_way"], serde_json::Value::Null, "{member:#}");
    }
}

fn one(seed: u64) {
    let versions = versions();
    let binary = &versions[seed as usize % versions.len()];
    let (supervisor, source) = match seed % 4 {
        3 => (Supervisor::Units, Source::Environment),
        _ => (Supervisor::Kubelet, Source::Flags),
    };
    let cluster = start(binary, plaintext(binary, 3, supervisor, source));
    let writer = cluster.writer().unwrap();
    let there = everywhere(&cluster, seed, |_| {
        [PEER_TLS, "--apply", "--settle", "60", "--wait", "300"].map(str::to_owned).to_vec()
    });
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "pass", &[]);
        expect_tidy(node);
    }
    let mut back = String::new();
    if seed % 2 == 1 {
        back = everywhere(&cluster, seed + 1_000_000, |index| {
            let status = fix_document(&seaworthy(cluster.node(index), &["fix", "--status", "-f", "json"]));
            let first = status["fixes"][0]["id"].as_str().unwrap().to_owned();
            vec![
                "--rollback".to_owned(),
                first,
                "--settle".to_owned(),
                "60".to_owned(),
                "--wait".to_owned(),
                "300".to_owned(),
            ]
        });
        for node in cluster.nodes() {
            Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
            expect_tidy(node);
        }
    }
    let report = writer.finish().unwrap();
    let killed = there.lines().count() + back.lines().count();
    eprintln!(
        "seed {seed}: etcd {}, killed {killed} times, {} acknowledged, {} lost, longest gap {:.0} ms",
        binary.version, report.acks, report.lost, report.longest_gap_ms
    );
    assert!(report.clean() && report.lost == 0, "seed {seed}: {report:#?}\n{there}{back}");
    // Without a quorum no write is acknowledged: a member that is elected anew takes a second or two.
    assert!(report.longest_gap_ms < 5000.0, "seed {seed}: {report:#?}\n{there}{back}");
}

#[test]
fn a_killed_fix_is_finished_or_taken_back() {
    let seeds = match std::env::var("SEAWORTHY_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("SEAWORTHY_SEEDS=FROM..TO");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => SEEDS,
    };
    seeds.for_each(one);
}
