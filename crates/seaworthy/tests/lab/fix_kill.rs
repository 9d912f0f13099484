//! Fixes and rollbacks that are killed, again and again, while members die, kubelet is away, other hands edit the same files and
//! another rule is fixed: each time a re-run finishes or rolls back, and the members stay together.
//!
//! One seed is one cluster. On all nodes at once the fix is made, and on odd seeds rolled back, while each node's runs are
//! killed: right before or right after a line of the journal, or at some instant. 36 seeds go through every boundary of a
//! journal on one node; `cargo xtask stress` runs more seeds than the tests do.
//!
//! What is judged is judged by other means than the program: the writers' record, the sockets of the members, the files.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seaworthy_lab::{Cluster, ENVIRONMENT_FILE, MANIFEST, Node, Source, Supervisor};
use serde_json::{Value, json};

use crate::common::{Audit, SEAWORTHY, fix_document, seaworthy, start, versions};
use crate::fix_apply::{PEER_TLS, PKI, plaintext};
use crate::oracle::{expect_whole, sh};

/// Lines that a run writes into its journals, at most, there or back.
const LINES: u64 = 18;
/// How often the runs of one node are killed, at most.
const KILLS: u64 = 4;
/// How often something else goes wrong while the nodes go there, or back.
const TROUBLES: u64 = 3;
/// How long the runs of one node may take altogether.
const PATIENCE: Duration = Duration::from_secs(420);
/// The comment that other hands write.
const BY_HAND: &str = "# by hand";

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

/// What happened to one seed.
#[derive(Default)]
struct Tally {
    kills: u64,
    rollbacks: u64,
    troubles: u64,
    /// One line for each thing that happened, for who looks into a failure.
    story: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.rollbacks += other.rollbacks;
        self.troubles += other.troubles;
        self.story.extend(other.story);
    }
}

/// Runs `seaworthy fix` on a node until it ends well, and returns what happened meanwhile. It is killed some times, the first
/// time at this boundary of the journal, if one is given: two for each line, right before and right after. While there is
/// trouble, it may be refused or roll back, and so may a run that resumes one of then; the next run goes on.
fn run(
    node: &Node,
    random: &mut Random,
    boundary: Option<u64>,
    arguments: &[&str],
    calm: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut kills = random.below(KILLS + 1).max(u64::from(boundary.is_some()));
    let mut boundary = boundary.map(|boundary| boundary % (2 * LINES));
    let begun = Instant::now();
    // Whether the run before was killed in times of trouble: then the next one ends what it had begun.
    let mut inherits = false;
    loop {
        let how = killer(random, kills, boundary.take());
        let words: Vec<&str> = how
            .iter()
            .map(String::as_str)
            .chain([SEAWORTHY, "fix"])
            .chain(arguments.iter().copied())
            .collect();
        let troubled = inherits || !calm.load(Ordering::Relaxed);
        let output = node.run(words[0], &words[1..]).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = told.lines().last().unwrap_or_default().trim();
        let code = output.status.code();
        if document.contains("\"rolled-back\"") {
            tally.rollbacks += 1;
        }
        let story = format!("{}: {:?} {:?}: {code:?} at {last:?}", node.name, &how, arguments[0]);
        assert!(!told.contains("panicked"), "{}\n{told}", tally.story.join("\n"));
        match code {
            Some(0) => return tally,
            // What else is on the way on this node has to end first, whichever of the two runs ends it.
            Some(3) if document.contains("other-fix") => inherits = troubled,
            Some(3..=5) if troubled => inherits = false,
            Some(0..=127) => {
                panic!("{}\n{story}\n{told}{document}", tally.story.join("\n"))
            }
            _ => {
                assert!(kills > 0, "{story}: nobody has killed it\n{told}");
                (kills, tally.kills) = (kills - 1, tally.kills + 1);
                inherits = troubled;
            }
        }
        tally.story.push(story);
        assert!(
            begun.elapsed() < PATIENCE,
            "it does not come to an end:\n{}\n{told}{document}",
            tally.story.join("\n")
        );
    }
}

/// Returns the words that come before a command that is to be killed; none where it is not.
fn killer(random: &mut Random, kills: u64, boundary: Option<u64>) -> Vec<String> {
    let at = |after: bool, line: u64| {
        let moment = if after { "after" } else { "before" };
        vec!["env".to_owned(), format!("SEAWORTHY_KILL={moment}:{line}")]
    };
    match (kills, boundary, random.below(3)) {
        (0, ..) => Vec::new(),
        (_, Some(boundary), _) => at(boundary % 2 == 1, 1 + boundary / 2),
        (_, None, 0) => {
            let seconds = format!("{:.3}", 0.05 + random.below(6000) as f64 / 1000.0);
            ["timeout", "-s", "KILL", &seconds].map(str::to_owned).to_vec()
        }
        (_, None, moment) => at(moment == 2, 1 + random.below(LINES)),
    }
}

/// Runs two fixes on all nodes at once, each node's in two threads, while something goes wrong with the cluster.
fn everywhere(
    cluster: &Cluster,
    seed: u64,
    file: Option<&str>,
    runs: impl Fn(usize) -> [Vec<String>; 2] + Sync,
) -> Tally {
    let calm = AtomicBool::new(false);
    let (calm, runs) = (&calm, &runs);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, node) in cluster.nodes().iter().enumerate() {
            for (which, arguments) in runs(index).into_iter().enumerate() {
                let number = seed.wrapping_mul(31).wrapping_add(index as u64 + 7 * which as u64);
                // One node goes through the boundaries, seed by seed.
                let boundary = (index == 0 && which == 0).then_some(seed);
                threads.push(scope.spawn(move || {
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    run(node, &mut Random(number), boundary, &arguments, calm)
                }));
            }
        }
        let mut tally = trouble(cluster, &mut Random(seed ^ 0x5eed), file);
        calm.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| tally.add(thread.join().unwrap()));
        tally
    })
}

/// Kills members, keeps kubelet or systemd away for a while, and writes into a file, at random moments.
fn trouble(cluster: &Cluster, random: &mut Random, file: Option<&str>) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..random.below(TROUBLES + 1) {
        thread::sleep(Duration::from_millis(500 + random.below(6000)));
        let node = cluster.node(random.below(cluster.nodes().len() as u64) as usize);
        tally.troubles += 1;
        tally.story.push(match (random.below(4), file) {
            (0, Some(file)) => {
                sh(node, &format!("echo '{BY_HAND}' >>{file}"));
                format!("{}: somebody wrote into {file}", node.name)
            }
            (1, _) => {
                node.pause_supervisor().unwrap();
                thread::sleep(Duration::from_millis(500 + random.below(4000)));
                node.resume_supervisor().unwrap();
                format!("{}: its supervisor was away", node.name)
            }
            _ => {
                node.kill().unwrap();
                format!("{}: etcd was killed", node.name)
            }
        });
    }
    for node in cluster.nodes() {
        node.wait_restarted(None).unwrap();
    }
    tally
}

/// Asserts that nothing half-made is left on a node.
#[track_caller]
fn expect_tidy(node: &Node) {
    let find = "find /etc /var/lib/seaworthy -name '.*seaworthy*' -o -name '.beginning' -o -name '*.tmp' | grep -v /proc || :";
    assert_eq!(sh(node, find), "", "left on {}", node.name);
    let status = fix_document(&seaworthy(node, &["fix", "--status", "-f", "json"]));
    for fix in status["fixes"].as_array().unwrap() {
        assert!(matches!(fix["status"].as_str(), Some("done" | "rolled-back" | "closed")), "{fix:#}");
    }
    assert_eq!(status["damaged"], json!([]), "{status:#}");
    for member in status["members"].as_array().unwrap() {
        assert_eq!(member["progress"]["under_way"], Value::Null, "{member:#}");
    }
}

/// How a seed's members are run, and what else is fixed and edited there.
struct Scene {
    supervisor: Supervisor,
    source: Source,
    /// Where their settings are.
    file: &'static str,
    /// What somebody else changes in it between there and back.
    edit: fn(&str) -> String,
    /// Whether the members restart for that.
    restarts: bool,
    /// The rule that is fixed at the same time, and what makes it fail.
    second: (&'static str, &'static str),
}

fn scene(seed: u64) -> Scene {
    let manifest = ("manifest-mode", "chmod 644 /etc/kubernetes/manifests/etcd.yaml");
    let data = ("etcd-data-directory-mode", "chmod 755 /var/lib/etcd");
    let scene = |supervisor, source, file, edit, restarts, second| Scene {
        supervisor,
        source,
        file,
        edit,
        restarts,
        second,
    };
    match seed % 4 {
        2 => scene(
            Supervisor::Kubelet,
            Source::Yaml,
            "/etc/etcd/etcd.conf.yaml",
            |text| text.replace("snapshot-count: 10000", "snapshot-count: 20000"),
            false,
            manifest,
        ),
        3 => scene(
            Supervisor::Units,
            Source::Environment,
            ENVIRONMENT_FILE,
            |text| text.replace("ETCD_SNAPSHOT_COUNT=\"10000\"", "ETCD_SNAPSHOT_COUNT=\"20000\""),
            false,
            data,
        ),
        // What `kubeadm upgrade` does.
        _ => scene(
            Supervisor::Kubelet,
            Source::Flags,
            MANIFEST,
            |text| text.replace("-0\n    imagePullPolicy", "-1\n    imagePullPolicy"),
            true,
            manifest,
        ),
    }
}

fn text(node: &Node, path: &str) -> String {
    String::from_utf8(node.read(path).unwrap()).unwrap()
}

/// Returns the files of a node that a fix may write, but for their content.
fn files(node: &Node) -> BTreeSet<String> {
    let find = "find /etc/kubernetes /etc/etcd /etc/default /etc/systemd -type f 2>/dev/null || :";
    sh(node, find).lines().map(str::to_owned).collect()
}

/// Returns the words of a run.
fn words(words: &[&str]) -> Vec<String> {
    let limits = ["--settle", "60", "--wait", "300", "-f", "json"];
    words.iter().chain(&limits).map(|word| (*word).to_owned()).collect()
}

/// Goes through one seed, and prints what happened for who sums it up.
fn one(seed: u64) {
    let versions = versions();
    let binary = &versions[seed as usize % versions.len()];
    let scene = scene(seed);
    let (rule, loosen) = scene.second;
    let cluster = start(binary, plaintext(binary, 3, scene.supervisor, scene.source.clone()));
    let original: Vec<_> = cluster.nodes().iter().map(|node| (text(node, scene.file), files(node))).collect();
    cluster.nodes().iter().for_each(|node| _ = sh(node, loosen));
    let writer = cluster.writer().unwrap();
    let (tally, seen) = cluster.watched(|| {
        let mut tally = everywhere(&cluster, seed, Some(scene.file), |_| {
            [words(&[PEER_TLS, "--apply"]), words(&[rule, "--apply"])]
        });
        for node in cluster.nodes() {
            Audit::of(node).expect(PEER_TLS, "pass", &[]);
            Audit::of(node).expect(rule, "pass", &[]);
            expect_tidy(node);
        }
        expect_whole(&cluster);
        if seed % 2 == 1 {
            tally.add(back(&cluster, seed, &scene, &original));
        }
        tally
    });
    let written = writer.finish().unwrap();
    let story = tally.story.join("\n");
    let line = json!({
        "seed": seed,
        "version": binary.version,
        "acknowledged": written.acks,
        "lost": written.lost,
        "longest_gap_ms": written.longest_gap_ms,
        "kills": tally.kills,
        "rollbacks": tally.rollbacks,
        "troubles": tally.troubles,
        "isolated": seen.isolated.len(),
        "parted_ms": u64::try_from(seen.parted.time.as_millis()).unwrap_or(u64::MAX),
    });
    eprintln!("SEED {line}");
    assert!(written.clean() && written.lost == 0, "seed {seed}: {written:#?}\n{story}");
    assert!(seen.isolated.is_empty(), "seed {seed}: {seen:#?}\n{story}");
    // Without a quorum no write is acknowledged: two members that were killed one right after the other are back in seconds.
    assert!(written.longest_gap_ms < 30_000.0, "seed {seed}: {written:#?}\n{story}");
}

/// Edits the files by other hands, rolls all nodes back, and asserts that only what others have changed is not as before.
fn back(cluster: &Cluster, seed: u64, scene: &Scene, original: &[(String, BTreeSet<String>)]) -> Tally {
    for node in cluster.nodes() {
        let before = node.etcd_pid();
        node.edit(scene.file, scene.edit).unwrap();
        if scene.restarts {
            node.wait_restarted(before).unwrap();
        }
    }
    let comments: Vec<usize> =
        cluster.nodes().iter().map(|node| text(node, scene.file).matches(BY_HAND).count()).collect();
    let (rule, _) = scene.second;
    let tally = everywhere(cluster, seed + 1_000_000, None, |index| {
        let status = fix_document(&seaworthy(cluster.node(index), &["fix", "--status", "-f", "json"]));
        let of = |rule: &str| {
            let fixes = status["fixes"].as_array().unwrap();
            let first = fixes.iter().find(|fix| {
                fix["rule"] == rule && fix["rollback_of"] == Value::Null && fix["status"] == "done"
            });
            first.unwrap_or_else(|| panic!("no fix of {rule}: {status:#}"))["id"].as_str().unwrap().to_owned()
        };
        [PEER_TLS, rule].map(|rule| words(&["--rollback", &of(rule), "--apply"]))
    });
    for ((node, (before, there)), comments) in cluster.nodes().iter().zip(original).zip(comments) {
        Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
        Audit::of(node).expect(rule, "fail", &[]);
        expect_tidy(node);
        let expected = format!("{}{}", (scene.edit)(before), format!("{BY_HAND}\n").repeat(comments));
        assert_eq!(text(node, scene.file), expected, "{}: {}", node.name, tally.story.join("\n"));
        assert_eq!(files(node), *there, "{}", node.name);
        assert_eq!(sh(node, &format!("ls {PKI}/seaworthy-peer.* 2>/dev/null || :")), "");
    }
    expect_whole(cluster);
    tally
}

/// The seeds that the tests run, each by itself, so that they run beside each other.
macro_rules! seeds {
    ($($name:ident: $seed:expr,)*) => {$(
        #[test]
        fn $name() {
            one($seed);
        }
    )*};
}

seeds! {
    seed_1: 1,
    seed_2: 2,
    seed_3: 3,
    seed_5: 5,
    seed_7: 7,
    seed_10: 10,
    seed_12: 12,
    seed_15: 15,
}

#[test]
#[ignore = "cargo xtask stress says which seeds"]
fn more_seeds() {
    let range = std::env::var("SEAWORTHY_SEEDS").expect("SEAWORTHY_SEEDS=FROM..TO");
    let (from, to) = range.split_once("..").expect("SEAWORTHY_SEEDS=FROM..TO");
    let (from, to): (u64, u64) = (from.parse().expect("a number"), to.parse().expect("a number"));
    (from..to).for_each(one);
}
