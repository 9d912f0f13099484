//! Everything that is printed, word for word, from stored snapshots and plans: a change of a word is a visible diff of the files
//! in `tests/golden`, and a change of the code that changes no word leaves them alone.
//!
//! `SNAPSHOTS=overwrite cargo test -p seaworthy --test golden` writes them anew; what has changed is for a person to read.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use program::{CATALOGUE, COMMANDS};
use seaworthy_evidence::{ErrorKind, EvidenceError, Snapshot, Wire};
use seaworthy_journal::record::{Damaged, Entry, Event, Facts, Record};
use seaworthy_remedy::executor::{Outcome, Progress};
use seaworthy_remedy::history::{Fix, Status};
use seaworthy_remedy::plan::{Plan, Refusal, Stage, Until, Waiting};
use seaworthy_remedy::progress::ProgressRecord;
use seaworthy_report::{fix, plan, probe};
use serde_json::Value;
use snapbox::data::DataFormat;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
/// The plans of the fixes, as the tests of the planner check them.
const PLANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../remedy/testdata/plans");
/// A narrow terminal, the usual one, and a wide one.
const WIDTHS: [usize; 3] = [60, 80, 140];

/// A folder of files that hold what is expected.
struct Golden {
    folder: PathBuf,
    checked: BTreeSet<PathBuf>,
}

impl Golden {
    fn new(folder: &str) -> Self {
        Self { folder: Path::new(TESTS).join("golden").join(folder), checked: BTreeSet::new() }
    }

    #[track_caller]
    fn expect(&mut self, name: &str, printed: &str) {
        let path = self.folder.join(name);
        assert!(self.checked.insert(path.clone()), "{name} is checked twice");
        let expected = snapbox::Data::read_from(&path, Some(DataFormat::Text)).raw();
        snapbox::Assert::new().action_env("SNAPSHOTS").eq(printed, expected);
    }

    /// Expects what a command does, at a width.
    #[track_caller]
    fn expect_run(&mut self, name: &str, arguments: &[&str], width: usize) {
        let mut command = program::command();
        command.env("COLUMNS", width.to_string()).args(arguments).current_dir(TESTS);
        let output = command.output().expect("seaworthy runs");
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        if name.ends_with(".json") {
            return self.expect(name, &stdout);
        }
        let mut said = format!("$ COLUMNS={width} seaworthy {}\n{stdout}", arguments.join(" "));
        for (what, text) in
            [("stderr", stderr), ("exit code", format!("{}\n", output.status.code().unwrap()))]
        {
            if !text.is_empty() {
                said += &format!("--- {what}\n{text}");
            }
        }
        // A file shows an escape for what it is.
        self.expect(name, &said.replace('\u{1b}', "␛"));
    }

    /// Expects a text at each width.
    #[track_caller]
    fn expect_text(&mut self, name: &str, text: impl Fn(usize) -> String) {
        for width in WIDTHS {
            let text = anstream::adapter::strip_str(&text(width)).to_string();
            self.expect(&format!("{name}-{width}.txt"), &text);
        }
    }
}

impl Drop for Golden {
    /// A file that nothing is compared with says nothing.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let there: BTreeSet<PathBuf> =
            fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let left: Vec<_> = there.difference(&self.checked).collect();
        assert!(left.is_empty(), "nothing is compared with {left:?}: remove them");
    }
}

/// The stored snapshots, by name.
fn snapshots() -> Vec<(String, String)> {
    let named = |name: &str| ((*name).to_owned(), format!("golden/snapshots/{name}.json"));
    let mut all = vec![("plaintext".to_owned(), "cli/node.json".to_owned())];
    all.extend(["blind", "encrypted", "kubeadm", "none", "silent", "unit"].iter().map(|name| named(name)));
    all
}

#[test]
fn help() {
    let mut golden = Golden::new("help");
    for command in COMMANDS {
        let name = if command.is_empty() { "seaworthy".to_owned() } else { command.join("-") };
        for (end, option) in [("", "-h"), ("-long", "--help")] {
            let arguments = [command, &[option]].concat();
            golden.expect_run(&format!("{name}{end}.txt"), &arguments, 80);
        }
    }
}

#[test]
fn certificates() {
    let mut golden = Golden::new("certificates");
    let arguments = ["certificates", "--snapshot", "golden/snapshots/certificates.json"];
    let with = |more: &[&'static str]| [&arguments[..], more].concat();
    for width in WIDTHS {
        golden.expect_run(&format!("node-{width}.txt"), &arguments, width);
    }
    golden.expect_run("colour.txt", &with(&["--color", "always"]), 80);
    golden.expect_run("verbose.txt", &with(&["--verbose"]), 80);
    golden.expect_run("within.txt", &with(&["--within", "30"]), 80);
    golden.expect_run(
        "within-none.txt",
        &["certificates", "--snapshot", "golden/snapshots/none.json", "--within", "30"],
        80,
    );
    golden.expect_run(
        "blind.txt",
        &["certificates", "--snapshot", "golden/snapshots/blind.json", "--within", "30"],
        80,
    );
    golden.expect_run("within.json", &with(&["--within", "30", "--format", "json"]), 80);
}

#[test]
fn audit() {
    let mut golden = Golden::new("audit");
    for (name, path) in snapshots() {
        let arguments = ["audit", "--snapshot", &path];
        for width in WIDTHS {
            golden.expect_run(&format!("{name}-{width}.txt"), &arguments, width);
        }
        let with = |more: &[&'static str]| [&arguments[..], more].concat();
        golden.expect_run(&format!("{name}-verbose.txt"), &with(&["--verbose"]), 80);
        golden.expect_run(&format!("{name}-verbose-wide.txt"), &with(&["--verbose"]), 140);
        golden.expect_run(&format!("{name}.json"), &with(&["--format", "json"]), 80);
    }
    let plaintext = ["audit", "--snapshot", "cli/node.json"];
    let with = |more: &[&'static str]| [&plaintext[..], more].concat();
    golden.expect_run("colour.txt", &with(&["--color", "always"]), 80);
    golden.expect_run("benchmark.txt", &with(&["--benchmark", "cis-kubernetes"]), 80);
    golden.expect_run("one-rule.txt", &with(&["--rule", "2.4"]), 80);
    golden.expect_run("no-rule.txt", &with(&["--rule", "etcd-peer-tsl"]), 80);
    let two = ["audit", "--snapshot", "cli/node.json", "--snapshot", "golden/snapshots/encrypted.json"];
    golden.expect_run("two.txt", &two, 80);
}

#[test]
fn explain() {
    let mut golden = Golden::new("explain");
    let folders = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    for component in folders(Path::new(CATALOGUE).join("rules")).filter(|path| path.is_dir()) {
        for rule in folders(component) {
            let name = rule.file_name().unwrap().to_str().unwrap().to_owned();
            golden.expect_run(&format!("{name}.txt"), &["explain", &name], 80);
        }
    }
    golden.expect_run("control.txt", &["explain", "2.4"], 60);
    golden.expect_run("section.txt", &["explain", "2"], 80);
    golden.expect_run("none.txt", &["explain", "etcd-peer-tsl"], 80);
}

#[test]
fn list() {
    let mut golden = Golden::new("list");
    for width in WIDTHS {
        golden.expect_run(&format!("rules-{width}.txt"), &["list"], width);
        for benchmark in ["cis-kubernetes-1.12", "cis-kubernetes-2.0.1"] {
            golden.expect_run(&format!("{benchmark}-{width}.txt"), &["list", "-b", benchmark], width);
        }
    }
    golden.expect_run("no-benchmark.txt", &["list", "-b", "cis-3"], 80);
}

/// The snapshots are read back as they were written. Those of before a change of the model are written anew with it.
#[test]
fn snapshot() {
    for (name, path) in snapshots() {
        let path = Path::new(TESTS).join(path);
        let bytes = fs::read(&path).unwrap();
        let snapshot = Snapshot::from_json(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        if std::env::var("SNAPSHOTS").is_ok_and(|wanted| wanted == "overwrite") {
            fs::write(path, serde_json::to_string_pretty(&snapshot).unwrap() + "\n").unwrap();
            continue;
        }
        let [read, written] = [serde_json::from_slice::<Value>(&bytes), serde_json::to_value(&snapshot)];
        assert!(
            read.unwrap() == written.unwrap(),
            "{name}: SNAPSHOTS=overwrite writes it in the form of now"
        );
    }
}

#[test]
fn probes() {
    let mut golden = Golden::new("probe");
    let of_snapshot = |name: &str, side: &str| -> Wire {
        let snapshots = snapshots();
        let (_, path) = snapshots.iter().find(|(other, _)| other == name).unwrap();
        let snapshot: Value =
            serde_json::from_slice(&fs::read(Path::new(TESTS).join(path)).unwrap()).unwrap();
        let listeners = snapshot["components"]["etcd"]["value"][0]["listeners"]["value"].as_array().unwrap();
        let listener = listeners.iter().find(|listener| listener["purpose"] == side).unwrap();
        serde_json::from_value(listener["wire"]["value"].clone()).unwrap()
    };
    let refused = EvidenceError::new(ErrorKind::Io, "127.0.0.1:1: connection refused");
    let cases = [
        ("plaintext", Ok(of_snapshot("plaintext", "peer"))),
        ("tls", Ok(of_snapshot("encrypted", "peer"))),
        ("client", Ok(of_snapshot("encrypted", "client"))),
        ("refused", Err(refused)),
    ];
    for (name, result) in cases {
        golden.expect_text(name, |width| probe::text("127.0.0.1:2380", &result, width));
        golden.expect(&format!("{name}.json"), &probe::json(&[("127.0.0.1:2380".to_owned(), result)]));
    }
}

/// Returns the stored plans, by name.
fn plans() -> Vec<(String, Option<Plan>, Vec<Refusal>)> {
    let mut plans = Vec::new();
    for entry in fs::read_dir(PLANS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let plan = document.get("plan").filter(|plan| !plan.is_null());
        let plan = plan.map(|plan| Plan::from_value(plan).unwrap());
        plans.push((name, plan, serde_json::from_value(document["refusals"].clone()).unwrap()));
    }
    plans.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    plans
}

fn some_plan() -> Plan {
    plans().into_iter().find(|(name, ..)| name == "etcd-peer-tls-plaintext").unwrap().1.unwrap()
}

fn some_refusals() -> Vec<Refusal> {
    plans().into_iter().find(|(.., refusals)| !refusals.is_empty()).unwrap().2
}

#[test]
fn fix_plans() {
    let mut golden = Golden::new("fix-plan");
    for (name, made, refusals) in plans() {
        let command = "seaworthy fix RULE";
        golden.expect_text(&name, |width| plan::text(made.as_ref(), &refusals, command, width));
    }
    let (made, refusals) = (some_plan(), some_refusals());
    golden.expect("plan.json", &plan::json(Some(&made), &[]));
    golden.expect("blocked.json", &plan::json(Some(&made), &refusals));
    golden.expect("no-plan.json", &plan::json(None, &refusals));
}

const ID: &str = "20260101T000000Z-0a0b0c";

#[test]
fn fix_outcomes() {
    let mut golden = Golden::new("fix-outcome");
    let ids = vec![ID.to_owned()];
    let (id, why) = (ID.to_owned(), "it could not be verified: no leader (after 60 s)".to_owned());
    let waits_for = vec![
        Waiting { member: "m2".to_owned(), until: Until::Loaded },
        Waiting { member: "m3".to_owned(), until: Until::TurnEnded },
    ];
    let (plan, refusals) = (Some(Box::new(some_plan())), some_refusals());
    let verified = vec!["etcd-peer-tls passes in an audit of this node".to_owned()];
    let outcomes = [
        ("nothing-to-do", Outcome::Done { ids: Vec::new(), verified: verified.clone() }),
        ("done", Outcome::Done { ids: ids.clone(), verified }),
        ("interrupted", Outcome::Interrupted { ids: ids.clone() }),
        ("not-proven", Outcome::NotProven { ids: ids.clone(), why: why.clone() }),
        ("no-plan", Outcome::Refused { ids: Vec::new(), plan: None, refusals: refusals.clone() }),
        ("blocked", Outcome::Refused { ids: ids.clone(), plan, refusals }),
        ("rolled-back", Outcome::RolledBack { id: id.clone(), why: why.clone() }),
        ("stopped", Outcome::Stopped { id, why }),
        (
            "waiting",
            Outcome::Waiting { ids, waits_for, by_hand: vec!["carry the certificate over".to_owned()] },
        ),
    ];
    for (name, outcome) in outcomes {
        let command = "seaworthy fix etcd-peer-tls";
        golden.expect_text(name, |width| fix::outcome_text("etcd-peer-tls", &outcome, command, width));
        golden.expect(&format!("{name}.json"), &fix::outcome_json("etcd-peer-tls", &outcome));
    }
    let aside = Path::new("/var/lib/seaworthy/aside-x");
    for (name, aside) in [("closed", None), ("set-aside", Some(aside))] {
        golden.expect_text(name, |width| fix::forgotten_text(ID, aside, width));
        golden.expect(&format!("{name}.json"), &fix::forgotten_json("etcd-peer-tls", ID, aside));
    }
}

#[test]
fn fix_progress() {
    let mut golden = Golden::new("fix-progress");
    let happens = [
        Progress::Waiting { what: "m2 must have loaded its certificate".to_owned() },
        Progress::Turn { id: ID.to_owned(), doing: "begun", steps: 4 },
        Progress::Remark { what: "fix 1 of manifest-mode is not ended".to_owned() },
        Progress::Step { number: 1, of: 4, title: "Issue a certificate for m1".to_owned() },
        Progress::Verified { what: vec!["it is right".to_owned()], took: Duration::from_millis(1_250) },
        Progress::Verified { what: Vec::new(), took: Duration::ZERO },
    ];
    golden.expect_text("all", |width| happens.iter().map(|p| fix::progress_text(p, width)).collect());
}

#[test]
fn fix_status() {
    let mut golden = Golden::new("fix-status");
    let fixes: Vec<Fix> = [
        vec![],
        vec![Event::Before { step: "1".to_owned(), facts: Facts::default() }],
        vec![Event::Failed { step: "1".to_owned(), why: "no leader".to_owned() }],
        vec![Event::Done],
        vec![Event::Done],
        vec![Event::Done],
        vec![Event::Closed],
    ]
    .into_iter()
    .map(|more| {
        let entry = |(number, event)| Entry { number, at: Timestamp::UNIX_EPOCH, event };
        let begun = Event::Begun { plan: "0".repeat(64) };
        let entries = (0..).zip([begun].into_iter().chain(more)).map(entry).collect();
        let plan = some_plan();
        let record = Record { id: ID.to_owned(), plan: serde_json::to_value(&plan).unwrap().into(), entries };
        Fix { record: record.into(), plan: plan.into() }
    })
    .collect();
    let statuses = [
        Status::Unfinished,
        Status::RollingBack,
        Status::Failed,
        Status::Done,
        Status::Done,
        Status::RolledBack,
        Status::Closed,
    ];
    let refusals = some_refusals();
    let commands =
        [format!("seaworthy fix --resume {ID}"), "chmod 600 /etc/kubernetes/manifests/etcd.yaml".into()];
    let way_out = fix::WayOut { to: "to finish it".to_owned(), commands: commands.into() };
    let standing = |(at, (fix, status))| fix::FixStanding {
        fix,
        status,
        rollback: match (status, at) {
            (Status::Done, 3) => Some(Vec::new()),
            (Status::Done | Status::Unfinished, _) => Some(refusals.clone()),
            _ => None,
        },
        way_out: match status {
            Status::Failed | Status::RollingBack | Status::Unfinished => vec![way_out.clone()],
            _ => Vec::new(),
        },
    };
    let mut record = ProgressRecord::new("etcd-peer-tls", "m1", "n1", Timestamp::UNIX_EPOCH);
    (record.reached, record.under_way) = (Some(Stage::Load), Some(Stage::Encrypt));
    let members = [None, Some(record)].map(|progress| fix::MemberStanding {
        name: "m1".to_owned(),
        peer_urls: vec!["http://10.0.0.1:2380".to_owned()],
        progress,
    });
    let damaged =
        [Damaged { id: ID.to_owned(), why: "line 1 is cut off".to_owned(), plan: None, ended: None }];
    let all = fix::Standing {
        fixes: fixes.iter().zip(statuses).enumerate().map(standing).collect(),
        damaged: &damaged,
        members: Ok(members.into()),
    };
    let none = fix::Standing { fixes: Vec::new(), damaged: &[], members: Err("nobody answers".to_owned()) };
    for (name, standing) in [("all", &all), ("none", &none)] {
        golden.expect_text(name, |width| fix::status_text(standing, width));
        golden.expect(&format!("{name}.json"), &fix::status_json(standing));
    }
    let forget = |width| {
        let each = fixes.iter().zip(statuses);
        each.map(|(fix, status)| fix::forget_text(fix, status, width)).collect::<Vec<_>>().join("\n")
    };
    golden.expect_text("forget", forget);
}

#[test]
fn wrong_usage() {
    let mut golden = Golden::new("usage");
    let cases: [(&str, &[&str]); 9] = [
        ("no-command", &["adit"]),
        ("no-file", &["audit", "--snapshot", "missing.json"]),
        ("no-snapshot", &["audit", "--snapshot", "golden.rs"]),
        ("newer", &["audit", "--snapshot", "golden/snapshots/newer.json"]),
        ("no-target", &["probe", "localhost"]),
        ("no-fix", &["fix", "drift", "--state-dir", "/nonexistent"]),
        ("fixes", &["fix", "--state-dir", "/nonexistent"]),
        ("no-record", &["fix", "--rollback", ID, "--state-dir", "/nonexistent"]),
        ("no-catalogue", &["catalogue", "check", "missing"]),
    ];
    for (name, arguments) in cases {
        golden.expect_run(&format!("{name}.txt"), arguments, 80);
    }
}
