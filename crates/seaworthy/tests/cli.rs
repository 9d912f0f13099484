//! The command line without a lab: the real binary, and a snapshot of a node whose peers talk plaintext although their
//! certificate flags are set.
//!
//! The snapshot, `tests/cli/node.json`, is of a lab node. When the evidence model changes, take it again:
//! `cargo test -p seaworthy --test lab write_the_snapshots -- --ignored`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use program::{CATALOGUE, COMMANDS, command};
use seaworthy_audit::{Options, audit};
use seaworthy_evidence::{ReadError, Snapshot};
use seaworthy_journal::record::{Damaged, Entry, Event, Facts, Record, Written};
use seaworthy_remedy::executor::Outcome;
use seaworthy_remedy::history::{Fix, Status};
use seaworthy_remedy::plan::{Plan, Refusal, Stage};
use seaworthy_remedy::progress::ProgressRecord;
use seaworthy_report::fix;
use serde_json::{Value, json};
use tempfile::TempDir;

const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/node.json");
/// What a command did.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

#[track_caller]
fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("seaworthy runs");
    let run = Run {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    };
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

#[track_caller]
fn run(arguments: &[&str]) -> Run {
    finish(command().args(arguments))
}

/// Asserts that a command is refused as wrong usage, with all of `words`.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let run = run(arguments);
    assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{arguments:?}");
    assert!(run.stderr.starts_with("error: "), "{arguments:?}: {}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{arguments:?} does not say {word:?}: {}", run.stderr);
    }
}

/// A folder for the files of one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file and returns its path.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    /// Writes the snapshot as `change` makes it and returns its path.
    fn snapshot(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut snapshot = node();
        change(&mut snapshot);
        self.file(name, snapshot.to_string())
    }
}

fn node() -> Value {
    serde_json::from_slice(&fs::read(NODE).expect("the snapshot")).expect("JSON")
}

fn report(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("no report: {e}\n{}", run.stderr))
}

fn forget_settings(snapshot: &mut Value) {
    let error =
        json!({"error": {"kind": "permission-denied", "message": "/proc/7/environ: permission denied"}});
    snapshot["components"]["etcd"]["value"][0]["settings"] = error;
}

#[test]
fn the_snapshot_is_of_this_version() {
    if let Err(error) = Snapshot::from_json(&fs::read(NODE).unwrap()) {
        panic!(
            "{error}\nThe evidence model has changed: take the snapshot again with\n  \
             cargo test -p seaworthy --test lab write_the_snapshots -- --ignored"
        );
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let folder = Folder::new();
    let blind = folder.snapshot("blind.json", forget_settings);
    let nothing = folder.snapshot("nothing.json", |s| s["components"]["etcd"]["value"] = json!([]));
    let (waived, expired) = (
        folder.file("waivers.yaml", WAIVER.replace("DATE", "9999-12-31")),
        folder.file("expired.yaml", WAIVER.replace("DATE", "2020-01-01")),
    );
    let peer: &[&str] = &["--rule", "etcd-peer-tls"];
    let silent = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshots/silent.json");
    let cases: [(i32, &str, Vec<&str>); 14] = [
        (0, NODE, vec!["--rule", "manifest-mode"]),
        (0, silent, peer.to_vec()),
        (3, silent, [peer, &["--require-corroboration"]].concat()),
        (0, &nothing, peer.to_vec()),
        (0, NODE, [peer, &["--fail-on", "critical"]].concat()),
        (0, NODE, [peer, &["--waivers", &waived]].concat()),
        (0, &blind, vec!["--rule", "etcd-client-tls", "--min-coverage", "0"]),
        (1, NODE, vec![]),
        (1, NODE, peer.to_vec()),
        (1, NODE, [peer, &["--fail-on", "high"]].concat()),
        (1, NODE, [peer, &["--waivers", &expired]].concat()),
        (1, NODE, vec!["--benchmark", "cis-kubernetes-1.12", "--rule", "2.4"]),
        (3, &blind, vec!["--rule", "etcd-client-tls"]),
        (3, &blind, vec!["--rule", "etcd-client-tls", "--min-coverage", "0.1"]),
    ];
    let kept = folder.0.path().join("kept.json");
    let both = format!("json={}", kept.display());
    let lost = run(&["audit", "--snapshot", NODE, "--format", "text=/dev/full", "--format", &both]);
    assert_eq!(lost.code, 4, "{}", lost.stderr);
    assert!(kept.exists(), "what could be written is written");
    for (code, snapshot, more) in cases {
        let arguments = [&["audit", "--snapshot", snapshot], &more[..]].concat();
        let run = run(&arguments);
        assert_eq!(run.code, code, "{more:?} on {snapshot}: {}{}", run.stdout, run.stderr);
        assert!(!run.stdout.is_empty(), "there is a report whatever it says");
    }
    for arguments in [
        &["audit", "--snapshot", NODE, "--format", "json=/proc/report.json"][..],
        &["snapshot", "--no-wire", "--output", "/proc/snapshot.json"],
        &["snapshot", "--no-wire", "--output", folder.0.path().to_str().unwrap()],
    ] {
        let run = run(arguments);
        assert_eq!(run.code, 4, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: cannot write "), "{}", run.stderr);
        assert!(!run.stderr.contains("at path"), "an error names what the user named: {}", run.stderr);
    }
    let full = command().arg("list").stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(full.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write to standard output"));
}

#[test]
fn wrong_usage_says_what_where_and_what_to_do() {
    let folder = Folder::new();
    let latin = folder.file("latin.json", b"{\"format\": \"\xe4\"}");
    let here = folder.0.path().to_str().unwrap();
    let audit = |more: &[&'static str]| [&["audit", "--snapshot", NODE], more].concat();
    let cases: [(Vec<&str>, &[&str]); 36] = [
        (vec![], &["COMMAND"]),
        (vec!["aduit"], &["aduit", "similar", "audit"]),
        (vec!["audit", "--frobnicate"], &["--frobnicate", "--help"]),
        (audit(&["--rule", "nonsense"]), &["`nonsense`", "seaworthy list"]),
        (audit(&["--rule", "etcd-peer-tls,nonsense"]), &["`nonsense`"]),
        (audit(&["--rule", "5.6.4"]), &["`5.6.4`"]),
        (audit(&["--rule", "2"]), &["`2`", "--rule '2.*'"]),
        (audit(&["-b", "cis-kubernetes", "-r", "drift"]), &["in cis-kubernetes-2.0.1 matches `drift`"]),
        (audit(&["--benchmark", ""]), &["there is no benchmark ``"]),
        (vec!["list", "--catalogue", here], &["neither rules/", "give the folder"]),
        (audit(&["-f", "json=/tmp/x", "-f", "text=/tmp/x"]), &["two formats go to /tmp/x"]),
        (vec!["fix", "nonsense"], &["no rule and no control `nonsense`", "etcd-peer-tls"]),
        (vec!["fix", "1.2.1"], &["there is no fix for `1.2.1`", "etcd-peer-tls"]),
        (
            audit(&["--benchmark", "cis-docker"]),
            &["`cis-docker`", "cis-kubernetes-2.0.1, cis-kubernetes-1.12"],
        ),
        (audit(&["--format", "yaml"]), &["`yaml`", "text and json"]),
        (audit(&["--format", "json="]), &["the path after `=` is empty"]),
        (audit(&["--fail-on", "severe"]), &["severe", "critical"]),
        (audit(&["--min-coverage", "101"]), &["from 0 to 100"]),
        (audit(&["--min-coverage", "NaN"]), &["from 0 to 100"]),
        (audit(&["--no-wire"]), &["--no-wire", "--snapshot"]),
        (audit(&["--waivers", "/nonexistent"]), &["/nonexistent"]),
        (audit(&["--catalogue", "/nonexistent"]), &["/nonexistent", "rules/"]),
        (vec!["audit", "--snapshot", "/nonexistent"], &["cannot read /nonexistent: No such file"]),
        (vec!["audit", "--snapshot", here], &[here, "directory"]),
        (vec!["audit", "--snapshot", &latin], &["latin.json", "UTF-8"]),
        (vec!["audit", "--root", "/nonexistent"], &["/nonexistent", "--root"]),
        (vec!["audit", "--root", here], &[here, "no /etc", "--root"]),
        (audit(&["--format", "json=/nonexistent/report"]), &["/nonexistent is no folder", "another path"]),
        (vec!["snapshot", "--output", "/nonexistent/node.json"], &["/nonexistent is no folder"]),
        (vec!["audit", "--timeout", "0"], &["more than 0"]),
        (vec!["audit", "--observe", "1e999"], &["at most 3600"]),
        (vec!["probe", "localhost"], &["`localhost` has no port", "127.0.0.1:2380"]),
        (vec!["probe", "127.0.0.1:1", "1:99999"], &["`1:99999` has no port from 1 to 65535"]),
        (vec!["probe", "https://127.0.0.1:2380"], &["`https://127.0.0.1:2380` is a URL", "HOST:PORT"]),
        (vec!["catalogue", "check", here], &["neither rules/", "give the folder"]),
        (vec!["explain", "nonsense"], &["`nonsense`", "seaworthy list"]),
    ];
    for (arguments, words) in cases {
        if arguments.is_empty() {
            let run = run(&arguments);
            assert!(run.code == 2 && run.stderr.contains("Usage: seaworthy"), "{}", run.stderr);
        } else {
            refused(&arguments, words);
        }
    }
    refused(&["man", "nonsense"], &["`nonsense`", "--help"]);
    refused(&["man", "catalogue", "nonsense"], &["`catalogue nonsense`"]);
    refused(&["list", "--benchmark", "nonsense"], &["`nonsense`", "cis-kubernetes-2.0.1"]);
    refused(&["completions", "tcsh"], &["tcsh", "bash"]);
}

#[test]
fn every_command_has_help_at_every_width() {
    for arguments in COMMANDS {
        for columns in ["1", "20", "1000"] {
            let run = finish(command().args(arguments).arg("--help").env("COLUMNS", columns));
            assert_eq!(run.code, 0, "{arguments:?}");
            assert!(
                run.stdout.contains("Usage: seaworthy") || arguments == ["help"],
                "{arguments:?}: {}",
                run.stdout
            );
            let leaf = !matches!(arguments, ["catalogue"]);
            let words: Vec<_> = run.stdout.split_whitespace().collect();
            let documented = words.windows(2).any(|w| w == ["Exit", "codes:"]);
            assert!(documented || !leaf, "{arguments:?} documents its exit codes: {}", run.stdout);
            let widest = run.stdout.lines().map(|l| l.chars().count()).max().unwrap_or(0);
            assert!(widest <= 120, "{arguments:?} at {columns}: {widest} columns");
        }
    }
    for columns in ["0", "20", "65535", "nonsense"] {
        for arguments in [&["audit", "--snapshot", NODE, "--verbose"][..], &["explain", "2.4"], &["list"]] {
            let run = finish(command().args(arguments).env("COLUMNS", columns));
            assert!(run.code <= 1, "{arguments:?} at {columns}: {}", run.stderr);
        }
    }
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let folder = Folder::new();
    let file = folder.path("report.txt");
    for arguments in
        [&["audit", "--snapshot", NODE][..], &["explain", "2.4"], &["audit", "--rule", "nonsense"]]
    {
        let run = |colour: &[&str], variables: &[(&str, &str)]| {
            let run = finish(command().args(arguments).args(colour).envs(variables.iter().copied()));
            run.stdout + &run.stderr
        };
        let plain = run(&[], &[]);
        assert!(!plain.contains('\x1b'), "{arguments:?} in a pipe: {plain}");
        assert_eq!(run(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]), plain);
        assert_eq!(run(&[], &[("NO_COLOR", "1"), ("TERM", "xterm-256color")]), plain);
        let coloured = run(&["--color", "always"], &[]);
        assert!(coloured.contains('\x1b'), "{arguments:?} --color always");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain, "colour changes nothing else");
    }
    run(&["audit", "--snapshot", NODE, "--color", "always", "--format", &format!("text={file}")]);
    assert!(!fs::read_to_string(file).unwrap().contains('\x1b'), "a file is no terminal");
}

#[test]
fn a_reader_that_goes_away_changes_no_verdict() {
    let script = "\"$0\" audit --verbose --snapshot \"$1\" | head -1; echo \"${PIPESTATUS[0]}\"; \
                  \"$0\" list | head -1; echo \"${PIPESTATUS[0]}\"; \"$0\" explain 2.4 | true; echo \"${PIPESTATUS[0]}\"";
    let output =
        Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_seaworthy"), NODE]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let told = String::from_utf8(output.stdout).unwrap();
    let codes: Vec<_> = told.lines().filter(|l| l.parse::<u32>().is_ok()).collect();
    assert_eq!(codes, ["1", "0", "0"], "{told}");
}

#[test]
fn several_formats_go_to_several_places() {
    let folder = Folder::new();
    let (json, text) = (folder.path("report.json"), folder.path("report.txt"));
    let in_json = run(&["audit", "--snapshot", NODE, "--format", "json"]).stdout;
    let in_text = run(&["audit", "--snapshot", NODE]).stdout;
    let both =
        run(&["audit", "--snapshot", NODE, "-f", &format!("json={json}"), "-f", &format!("text={text}")]);
    assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (1, "", ""));
    assert_eq!(fs::read_to_string(&json).unwrap(), in_json);
    assert_eq!(fs::read_to_string(&text).unwrap(), in_text);
    assert_eq!(fs::metadata(&json).unwrap().permissions().mode() & 0o777, 0o600, "for its owner only");
    let both = run(&["audit", "--snapshot", NODE, "-f", "text", "-f", &format!("json={json}")]);
    assert_eq!(both.stdout, in_text);
    let piped = run(&["audit", "--snapshot", NODE, "-f", "json=-"]);
    assert_eq!(piped.stdout, in_json);
}

#[test]
fn files_are_replaced_but_links_and_devices_stay() {
    let folder = Folder::new();
    let (target, link) = (folder.file("target", "old"), folder.path("link"));
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    let done = run(&["audit", "--snapshot", NODE, "-f", &format!("json={link}")]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().starts_with('{'));
    let device = folder.path("null");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    let done = run(&["audit", "--snapshot", NODE, "-f", &format!("json={device}")]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let left: Vec<_> = fs::read_dir(folder.0.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "nothing temporary is left: {left:?}");
}

#[test]
fn the_same_snapshot_gives_the_same_report_to_the_byte() {
    let snapshot = Snapshot::from_json(&fs::read(NODE).unwrap()).unwrap();
    let catalogue = seaworthy_builtin::catalogue().expect("the catalogue");
    let direct = audit(catalogue, &snapshot, &Options::default());
    let folder = Folder::new();
    // Written again by this version, with other white space, it is still the same snapshot.
    let again = folder.file("again.json", serde_json::to_string(&snapshot).unwrap());
    assert_eq!(Snapshot::from_json(&fs::read(&again).unwrap()).unwrap(), snapshot);
    let layout =
        seaworthy_report::text::Layout { width: seaworthy_report::MAX_WIDTH, verbose: true, full: true };
    let json = seaworthy_report::json::render(&direct);
    let text = anstream::adapter::strip_str(&seaworthy_report::text::render(&direct, layout)).to_string();
    for path in [NODE, &again, NODE] {
        assert_eq!(run(&["audit", "--snapshot", path, "--format", "json"]).stdout, json);
        assert_eq!(run(&["audit", "--snapshot", path, "--verbose"]).stdout, text);
    }
    let mut from_stdin = command()
        .args(["audit", "--snapshot", "-", "-f", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    from_stdin.stdin.take().unwrap().write_all(&fs::read(NODE).unwrap()).unwrap();
    assert_eq!(String::from_utf8(from_stdin.wait_with_output().unwrap().stdout).unwrap(), json);
    let two = run(&["audit", "--snapshot", NODE, "--snapshot", &again, "--format", "json"]);
    let one: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report(&two), json!([one, one]));
}

#[test]
fn a_snapshot_of_this_machine_can_be_audited() {
    let folder = Folder::new();
    let path = folder.path("snapshot.json");
    let taken = run(&["snapshot", "--no-wire", "--output", &path]);
    assert_eq!((taken.code, taken.stdout.as_str()), (0, ""), "{}", taken.stderr);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let snapshot: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_valid(&seaworthy_evidence::json_schema(), &snapshot);
    let audited = run(&["audit", "--snapshot", &path, "--format", "json"]);
    assert!(matches!(audited.code, 0 | 1 | 3), "{}", audited.stderr);
    assert_valid(&seaworthy_report::json::json_schema(), &report(&audited));
}

#[track_caller]
fn assert_valid(schema: &Value, document: &Value) {
    let schema = jsonschema::validator_for(schema).expect("a schema");
    let errors: Vec<_> =
        schema.iter_errors(document).take(3).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn documents_are_of_their_published_schemas() {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let schema =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(schemas.join(name)).unwrap()).unwrap() };
    assert_eq!(schema("snapshot-v2.json"), seaworthy_evidence::json_schema(), "run `cargo xtask generate`");
    assert_eq!(schema("report-v1.json"), seaworthy_report::json::json_schema(), "run `cargo xtask generate`");
    assert_eq!(schema("fix-v2.json"), seaworthy_report::plan::json_schema(), "run `cargo xtask generate`");
    assert_eq!(schema("fix-outcome-v2.json"), fix::outcome_json_schema(), "run `cargo xtask generate`");
    assert_eq!(schema("fix-status-v2.json"), fix::status_json_schema(), "run `cargo xtask generate`");
    assert_valid(&schema("snapshot-v2.json"), &node());
    let audited = run(&["audit", "--snapshot", NODE, "--benchmark", "cis-kubernetes", "--format", "json"]);
    let report = report(&audited);
    assert_valid(&schema("report-v1.json"), &report);
    // The schemas do refuse something.
    let refuses =
        |schema: &Value, document: &Value| !jsonschema::validator_for(schema).unwrap().is_valid(document);
    let mut changed = node();
    changed["node"]["name"] = json!(7);
    assert!(refuses(&schema("snapshot-v2.json"), &changed));
    let mut changed = report;
    changed["summary"].as_object_mut().unwrap().remove("fail");
    assert!(refuses(&schema("report-v1.json"), &changed));
}

#[test]
fn certificates_are_listed_with_what_could_not_be_looked_at() {
    const OF_NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshots/certificates.json");
    let listed = |path: &str, more: &[&str]| run(&[&["certificates", "--snapshot", path], more].concat());
    let schema = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/certificates-v1.json"));
    let schema: Value = serde_json::from_slice(&schema.unwrap()).unwrap();
    assert_eq!(schema, seaworthy_report::certificates::json_schema(), "run `cargo xtask generate`");
    let all = listed(OF_NODE, &["--format", "json"]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    let mut document = report(&all);
    assert_valid(&schema, &document);
    let ends: Vec<&str> = document["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["not_after"].as_str().unwrap())
        .collect();
    assert!(ends.len() > 10 && ends.is_sorted(), "{ends:?}");
    document["certificates"][0].as_object_mut().unwrap().remove("problems");
    assert!(!jsonschema::validator_for(&schema).unwrap().is_valid(&document), "the schema refuses something");
    for (days, code) in [("0", 1), ("30", 1), ("36500", 1)] {
        assert_eq!(listed(OF_NODE, &["--within", days]).code, code, "{days}");
    }
    refused(&["certificates", "--within", "soon"], &["--within", "soon"]);
    refused(&["certificates", "--snapshot", "/nowhere"], &["/nowhere"]);

    // Another version did not look, and that is not the same as that there is nothing.
    let folder = Folder::new();
    let older = folder.snapshot("older.json", |snapshot| {
        let node = snapshot["node"].as_object_mut().unwrap();
        for name in ["pki", "pki_complete", "shared_domains", "kubeconfigs", "runtimes", "cni"] {
            assert!(node.remove(name).is_some(), "{name} is in the snapshot");
        }
    });
    let run = listed(&older, &["--within", "30"]);
    assert_eq!(run.code, 3, "{}", run.stdout);
    assert!(run.stdout.contains("did not collect it"), "{}", run.stdout);

    let hostile = "\x1b[2J\u{202e}\r\nCN=fine";
    let mut snapshot: Value = serde_json::from_slice(&fs::read(OF_NODE).unwrap()).unwrap();
    for file in snapshot["node"]["pki"]["value"].as_array_mut().unwrap() {
        for certificate in file["certificates"]["value"].as_array_mut().unwrap() {
            certificate["subject"] = json!(format!("CN={hostile}"));
            certificate["sans"]["dns"] = json!([hostile]);
        }
    }
    let path = folder.file("hostile.json", snapshot.to_string());
    let run = finish(command().args(["certificates", "--verbose", "--color", "always", "--snapshot", &path]));
    assert!(run.stdout.contains("CN=fine"), "it is shown, though: {}", run.stdout);
    for foreign in ["\x1b[2J", "\u{202e}", "\r", "\nCN=fine"] {
        assert!(!run.stdout.contains(foreign), "{foreign:?} in {}", run.stdout);
    }
}

/// Returns a plan with one step, which has most that a plan can have.
fn some_plan() -> Plan {
    let hash = "0".repeat(64);
    Plan::from_value(&json!({
        "format": Plan::FORMAT, "rule": "etcd-peer-tls", "made_at": "2026-01-01T00:00:00Z",
        "state": {
            "node": "n1", "member": "m1", "member_id": "a", "peer_urls": { "a": ["http://10.0.0.1:2380"] },
            "settings": hash, "files": { "/m.yaml": hash, "/new": null },
        },
        "stage": "load", "rollback_of": null, "authority": { "spki": hash, "subject": "CN=etcd-ca" },
        "waits_for": [{ "member": "m2", "until": "known-to-have-loaded" }],
        "steps": [{
            "title": "Set the owner", "why": "It is another's.",
            "action": {
                "kind": "set-attributes", "path": "/m.yaml",
                "from": { "mode": "0644", "uid": 0, "gid": 0 }, "to": { "mode": "0600", "uid": 0, "gid": 0 },
            },
            "diff": null, "preconditions": [{ "kind": "cluster-healthy" }],
            "verify": [
                { "kind": "attributes", "path": "/m.yaml", "attributes": { "mode": "0600", "uid": 0, "gid": 0 } },
                { "kind": "links-full" },
            ],
            "restarts": false,
        }],
        "then_waits_for": [], "by_hand": ["do it"], "remarks": ["know it"],
    }))
    .unwrap()
}

/// Returns the same plan as the first version wrote it into journals.
fn first_version_of_some_plan() -> Value {
    let hash = "0".repeat(64);
    let attributes =
        |mode: &str| json!({ "kind": "attributes", "path": "/m.yaml", "mode": mode, "uid": 0, "gid": 0 });
    json!({
        "format": "seaworthy.dev/plan/v1", "rule": "etcd-peer-tls", "made_at": "2026-01-01T00:00:00Z",
        "state": {
            "node": "n1", "member": "m1", "member_id": "a", "peer_urls": { "a": ["http://10.0.0.1:2380"] },
            "settings": hash, "files": { "/m.yaml": hash, "/new": null },
        },
        "stage": "load", "authority": hash,
        "waits_for": [{ "member": "m2", "until": "known-to-have-loaded" }],
        "steps": [
            {
                "title": "Set the owner", "why": "It is another's.",
                "action": { "kind": "set-attributes", "path": "/m.yaml", "mode": "0600", "uid": 0, "gid": 0 },
                "diff": null, "preconditions": [attributes("0644"), { "kind": "cluster-healthy" }],
                "verify": [{ "kind": "attributes" }, { "kind": "links-full", "seconds": 15 }, { "kind": "rule-passes" }],
                "undo": attributes("0644"), "restarts": false,
            },
            {
                "title": "Tell", "why": "So.",
                "action": {
                    "kind": "update-member", "member_id": "a", "peer_urls": ["https://10.0.0.1:2380"], "via": [],
                },
                "diff": null, "preconditions": [{ "kind": "peer-urls", "member_id": "a", "urls": ["http://10.0.0.1:2380"] }],
                "verify": [{ "kind": "membership-shows", "urls": ["https://10.0.0.1:2380"] }, { "kind": "followed" }],
                "undo": { "kind": "peer-urls", "urls": ["http://10.0.0.1:2380"] }, "restarts": false,
            },
            {
                "title": "Wait", "why": "So.",
                "action": { "kind": "restart", "by": { "kind": "kubelet" }, "settings": { "name": "m1" } },
                "diff": null, "preconditions": [],
                "verify": [{ "kind": "restarted" }, { "kind": "settings-effective" }, { "kind": "certificate-sound" }],
                "undo": { "kind": "restart" }, "restarts": true,
            },
        ],
        "then_waits_for": [], "by_hand": [],
    })
}

#[test]
fn a_plan_of_the_first_version_is_read() {
    // The last condition is of no step that it was made for, and takes what it can get: an authority's.
    let mut first = first_version_of_some_plan();
    first["steps"][2]["verify"].as_array_mut().unwrap().pop();
    let plan = Plan::from_value(&first).unwrap();
    let written = serde_json::to_value(&plan).unwrap();
    assert_eq!(written["steps"][0]["action"]["from"]["mode"], "0644");
    assert_eq!(written["steps"][0]["verify"][0]["attributes"]["mode"], "0600");
    assert_eq!(written["steps"][0]["verify"][2]["rule"], "etcd-peer-tls");
    assert_eq!(written["steps"][1]["action"]["from"], json!(["http://10.0.0.1:2380"]));
    assert_eq!(written["steps"][1]["verify"][1], json!({ "kind": "another-leads", "member_id": "a" }));
    assert_eq!(written["steps"][2]["verify"][1]["settings"]["name"], "m1");
    assert_eq!(plan.authority.unwrap().spki, "0".repeat(64));
    // What the first version did not write either is refused, and named.
    first["steps"][1]["undo"] = Value::Null;
    assert!(Plan::from_value(&first).is_err());
}

#[test]
fn every_plan_outcome_and_status_is_of_its_schema() {
    let read = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    let [one, why] = ["20260101T000000Z-0a0b0c", "it failed"].map(str::to_owned);
    let ids = vec![one.clone()];
    let plan = some_plan();
    let refusals: Vec<Refusal> = serde_json::from_value(json!([
        { "kind": "two-members", "what": "a", "why": "b", "instead": "c" },
    ]))
    .unwrap();
    for plan in [None, Some(&plan)] {
        let document = read(seaworthy_report::plan::json(plan, &refusals));
        assert_valid(&seaworthy_report::plan::json_schema(), &document);
    }
    let boxed = Some(Box::new(plan.clone()));
    let outcomes = [
        (Outcome::Done { ids: Vec::new(), verified: vec![why.clone()] }, "done", json!([])),
        (Outcome::Interrupted { ids: ids.clone() }, "interrupted", json!([one])),
        (Outcome::NotProven { ids: ids.clone(), why: why.clone() }, "not-proven", json!([one])),
        (
            Outcome::Refused { ids: ids.clone(), plan: None, refusals: refusals.clone() },
            "refused",
            json!([one]),
        ),
        (Outcome::Refused { ids: Vec::new(), plan: boxed, refusals: refusals.clone() }, "refused", json!([])),
        (Outcome::RolledBack { id: one.clone(), why: why.clone() }, "rolled-back", json!([one])),
        (Outcome::Stopped { id: one.clone(), why: why.clone() }, "stopped", json!([one])),
        (
            Outcome::Waiting { ids, waits_for: plan.waits_for.clone(), by_hand: Vec::new() },
            "waiting",
            json!([one]),
        ),
    ];
    for (outcome, word, fixes) in outcomes {
        let document = read(fix::outcome_json("etcd-peer-tls", &outcome));
        assert_valid(&fix::outcome_json_schema(), &document);
        assert_eq!((&document["outcome"], &document["fixes"]), (&json!(word), &fixes), "{document:#}");
    }
    for aside in [None, Some(Path::new("/var/lib/seaworthy/aside-x"))] {
        assert_valid(&fix::outcome_json_schema(), &read(fix::forgotten_json("etcd-peer-tls", &one, aside)));
    }

    let begun = Event::Begun { plan: "0".repeat(64) };
    let step = "1".to_owned();
    let events = vec![
        begun.clone(),
        Event::Before { step: step.clone(), facts: Facts::default() },
        Event::After { step: step.clone(), facts: Written::default() },
        Event::Failed { step, why: why.clone() },
        Event::RollingBack { why: why.clone() },
    ];
    let some_fix = |events: Vec<Event>| {
        let entry = |(number, event)| Entry { number, at: Timestamp::UNIX_EPOCH, event };
        let entries = (0..).zip(events).map(entry).collect();
        let record = Record { id: one.clone(), plan: serde_json::to_value(&plan).unwrap().into(), entries };
        Fix { record: record.into(), plan: plan.clone().into() }
    };
    let mut fixes = vec![some_fix(events), some_fix(vec![begun.clone()])];
    for last in [Event::Done, Event::RolledBack, Event::Closed] {
        fixes.push(some_fix(vec![begun.clone(), last]));
    }
    let all = [Status::RollingBack, Status::Unfinished, Status::Done, Status::RolledBack, Status::Closed];
    let way =
        fix::WayOut { to: "to finish it".to_owned(), commands: vec!["seaworthy fix --resume".to_owned()] };
    let standing = |(fix, status)| fix::FixStanding {
        fix,
        status,
        rollback: match status {
            Status::Done => Some(Vec::new()),
            Status::Unfinished => Some(refusals.clone()),
            _ => None,
        },
        way_out: if status == Status::Unfinished { vec![way.clone()] } else { Vec::new() },
    };
    let mut record = ProgressRecord::new("etcd-peer-tls", "m1", "n1", Timestamp::UNIX_EPOCH);
    record.reached = Some(Stage::Load);
    let members = [None, Some(record)].map(|progress| fix::MemberStanding {
        name: "m1".to_owned(),
        peer_urls: vec!["http://10.0.0.1:2380".to_owned()],
        progress,
    });
    let damaged = [Damaged { id: one.clone(), why: "line 1".to_owned(), plan: None, ended: None }];
    for members in [Ok(members.to_vec()), Err("nobody answers".to_owned())] {
        let standing = fix::Standing {
            fixes: fixes.iter().zip(all).map(standing).collect(),
            damaged: &damaged,
            members,
        };
        let document = read(fix::status_json(&standing));
        assert_valid(&fix::status_json_schema(), &document);
        let words: Vec<_> = document["fixes"].as_array().unwrap().iter().map(|f| &f["status"]).collect();
        assert_eq!(words, ["rolling-back", "unfinished", "done", "rolled-back", "closed"]);
        assert_eq!(document["fixes"][2]["can_be_rolled_back"], true);
        // What is in the journal is what is shown of it.
        assert_eq!(document["fixes"][0]["entries"], serde_json::to_value(&fixes[0].record.entries).unwrap());
        let text = fix::status_text(&standing, 80);
        for words in
            ["it can be rolled back", "it cannot be rolled back: a; do: c", "to finish it:", "--forget"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

/// Fields that were added to the format later are missing in a snapshot that an older version took.
#[test]
fn an_older_snapshot_is_judged_the_same() {
    let folder = Folder::new();
    let whole = folder.snapshot("whole.json", |_| {});
    let older = folder.snapshot("older.json", |snapshot| {
        let etcd = &mut snapshot["components"]["etcd"]["value"][0];
        for (place, name) in [
            ("/process/value", "identity"),
            ("/process/value", "started_before"),
            ("/declared/value/0", "attributed_by"),
        ] {
            let object = etcd.pointer_mut(place).and_then(Value::as_object_mut).expect("an object");
            assert!(object.remove(name).is_some(), "{name} is in the snapshot");
        }
    });
    let [whole, older] = [whole, older].map(|path| {
        let run = run(&["audit", "--snapshot", &path, "--format", "json"]);
        let findings = report(&run)["findings"].as_array().expect("findings").clone();
        let judged = |f: &Value| (f["rule"].clone(), f["resource"].clone(), f["status"].clone());
        (run.code, findings.iter().map(judged).collect::<Vec<_>>())
    });
    assert_eq!(whole, older);
}

#[test]
fn a_snapshot_that_is_none_is_refused() {
    let folder = Folder::new();
    let text = fs::read_to_string(NODE).unwrap();
    let format = Snapshot::FORMAT;
    let head = format!("{{\"format\": \"{format}\"");
    let tampered = |pointer: &str, value: Value| {
        let mut snapshot = node();
        *snapshot.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        snapshot.to_string()
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("empty", String::new(), "truncated"),
        ("not JSON", "kind: Pod".to_owned(), "not a snapshot"),
        ("another document", "{}".to_owned(), "no \"format\" field"),
        ("a report", json!({"format": "seaworthy.dev/report/v1"}).to_string(), "seaworthy.dev/report/v1"),
        (
            "newer",
            text.replace(format, "seaworthy.dev/snapshot/v3"),
            "this version reads \"seaworthy.dev/snapshot/v2\"",
        ),
        ("unknown field", tampered("/tool", json!({"name": "x", "version": "1", "extra": 1})), "extra"),
        ("wrong type", tampered("/components/etcd/value/0/id", json!(["a"])), "expected a string"),
        ("huge number", tampered("/node/processes/value", json!(1e300)), "u32"),
        ("negative number", tampered("/node/processes/value", json!(-1)), "u32"),
        ("NaN", text.replacen("\"mode\": 384", "\"mode\": NaN", 1), "not a snapshot"),
        ("no time", tampered("/taken_at", json!("yesterday")), "not a snapshot"),
        (
            "a value beside an error",
            tampered("/components/etcd", json!({"value": [], "error": {"kind": "io", "message": ""}})),
            "either",
        ),
        ("deep, first", "[".repeat(100_000), "not a snapshot"),
        ("deep, unknown", format!("{head}, \"x\": {}", "[".repeat(100_000)), "not a snapshot"),
        ("deep, known", format!("{head}, \"node\": {}", "{\"name\":".repeat(100_000)), "not a snapshot"),
        (
            "deep, in evidence",
            tampered("/components/etcd", json!(0)).replace(
                "\"etcd\":0",
                &format!(
                    "\"etcd\": {{\"origin\": {{\"kind\": \"derived\", \"from\": \"\"}}, \"value\": {}{}}}",
                    "[".repeat(100_000),
                    "]".repeat(100_000)
                ),
            ),
            "not a snapshot",
        ),
        ("twice", format!("{text}{text}"), "trailing"),
        ("NUL", format!("{text}\0"), "trailing"),
        ("the same field twice", text.replacen('{', &format!("{head},"), 1), "duplicate field"),
    ];
    for (name, text, words) in cases {
        let path = folder.file("tampered.json", text);
        let run = run(&["audit", "--snapshot", &path]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{name}: {}", run.stderr);
        for word in ["tampered.json", words, "take one with `seaworthy snapshot"] {
            assert!(run.stderr.contains(word), "{name} does not say {word:?}: {}", run.stderr);
        }
        assert!(run.stderr.len() < 2000, "{name}: an error is short: {} bytes", run.stderr.len());
    }
    let bytes = text.trim_end().as_bytes();
    for cut in (0..bytes.len()).step_by(211).chain([bytes.len() - 1]) {
        match Snapshot::from_json(&bytes[..cut]) {
            Err(ReadError::Json(error)) => assert!(error.is_eof(), "cut at {cut}: {error}"),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    let cut = folder.file("cut.json", &bytes[..bytes.len() / 2]);
    refused(&["audit", "--snapshot", &cut], &["truncated", "line"]);
}

#[test]
fn what_a_node_says_cannot_take_over_a_terminal() {
    let folder = Folder::new();
    let hostile = "\x1b]0;owned\x07\x1b[2J\u{202e}\u{9b}31m\r\nPASS everything";
    let path = folder.snapshot("hostile.json", |snapshot| {
        snapshot["node"]["name"] = json!(format!("node{hostile}"));
        snapshot["node"]["unreadable"] = json!([{"kind": "io", "message": hostile}]);
        let etcd = &mut snapshot["components"]["etcd"]["value"][0];
        etcd["id"] = json!(format!("etcd {hostile}"));
        etcd["etcd"]["name"] = json!(hostile);
        etcd["listeners"]["value"][0]["url"]["text"] = json!(format!("http://{hostile}"));
        etcd["listeners"]["value"][0]["wire"]["value"]["spoke"] = json!(hostile);
        let settings = etcd["settings"]["value"].as_object_mut().unwrap();
        for setting in settings.values_mut() {
            setting["why"] = json!(hostile);
            setting["origin"] = json!({"kind": "file", "path": hostile, "pid": 1, "line": 1, "column": 1});
        }
    });
    for arguments in [&["--verbose"][..], &["--benchmark", "cis-kubernetes"], &["--format", "json"]] {
        let run = finish(command().args(["audit", "--color", "always", "--snapshot", &path]).args(arguments));
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stdout.contains("owned"), "it is shown, though");
        for foreign in ["\x1b]", "\x1b[2J", "\x07", "\u{202e}", "\u{9b}", "\r"] {
            let json = arguments.contains(&"json") && matches!(foreign, "\u{202e}" | "\u{9b}");
            assert!(json || !run.stdout.contains(foreign), "{foreign:?} in {}", run.stdout);
        }
        assert!(
            !run.stdout.lines().any(|line| line.trim_start().starts_with("PASS everything")),
            "{}",
            run.stdout
        );
    }
}

const WAIVER: &str = "waivers:\n- rule: etcd-peer-tls\n  resource: 'etcd m1 *'\n  reason: replaced in March\n  owner: \
    platform team\n  expires: DATE\n";

#[test]
fn waivers_cover_what_they_say_for_as_long_as_they_say() {
    let folder = Folder::new();
    let audit = |waivers: &str| {
        let path = folder.file("waivers.yaml", waivers);
        run(&["audit", "--snapshot", NODE, "--rule", "etcd-peer-tls", "--waivers", &path, "--format", "json"])
    };
    let finding = |run: &Run| report(run)["findings"][0].clone();
    let valid = WAIVER.replace("DATE", "9999-12-31");
    let run = audit(&valid);
    assert_eq!((run.code, finding(&run)["status"].as_str()), (0, Some("fail")), "it keeps its status");
    let waived = finding(&run)["waived"].as_str().unwrap().to_owned();
    assert_eq!(waived, "replaced in March (platform team, until 9999-12-31)");
    assert_eq!(report(&run)["summary"]["waived"], 1);

    // It counts until the end of its last day, by the snapshot's clock.
    let today = node()["taken_at"].as_str().unwrap()[..10].to_owned();
    assert_eq!(audit(&WAIVER.replace("DATE", &today)).code, 0);
    let notices = [
        (WAIVER.replace("DATE", "2020-01-01"), "expired on 2020-01-01"),
        (valid.replace("etcd m1 *", "etcd m9 *"), "matches no failed finding"),
        (
            valid.replace("etcd-peer-tls", "etcd-peer-tsl"),
            "etcd-peer-tsl of etcd m1 * names no rule that was judged",
        ),
    ];
    for (waivers, words) in notices {
        let run = audit(&waivers);
        assert_eq!((run.code, &finding(&run)["waived"]), (1, &Value::Null), "{words}");
        assert!(report(&run)["waiver_notices"][0].as_str().unwrap().contains(words), "{}", run.stdout);
    }
    assert_eq!(audit(&valid.replace("etcd-peer-tls", "2.*")).code, 0, "control numbers are names, too");

    for (waivers, words) in [
        (valid.replace("  reason: replaced in March\n", ""), "reason"),
        (valid.replace("replaced in March", "' '"), "reason"),
        (valid.replace("  owner: platform team\n", ""), "owner"),
        (valid.replace("9999-12-31", "next week"), "expires"),
        (valid.replace("9999-12-31", "2026-02-30"), "2026-02"),
        (valid.replace("reason:", "raeson:"), "raeson"),
        ("waivers: [".to_owned(), "waivers.yaml"),
        ("[".repeat(100_000), "waivers.yaml"),
    ] {
        let path = folder.file("waivers.yaml", waivers);
        refused(
            &["audit", "--snapshot", NODE, "--waivers", &path],
            &["waivers.yaml", words, "expires: 2027-01-31"],
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Returns a copy of the catalogue in `folder`.
fn catalogue(folder: &Folder) -> PathBuf {
    let copied = folder.0.path().join("catalogue");
    copy(Path::new(CATALOGUE), &copied);
    copied
}

#[test]
fn a_catalogue_in_order_is_said_to_be() {
    let folder = Folder::new();
    let run = run(&["catalogue", "check", catalogue(&folder).to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("In order: ") && run.stdout.ends_with(" benchmarks.\n"), "{}", run.stdout);
}

#[test]
fn a_broken_catalogue_is_diagnosed_as_a_compiler_would() {
    let folder = Folder::new();
    let catalogue = catalogue(&folder);
    let rule = "rules/etcd/etcd-peer-tls/rule.md";
    // File, what is replaced, by what; the message, the place, the line shown, what is marked in it, further words.
    let cases: [(&str, &str, &str, [&str; 4]); 8] = [
        (
            rule,
            "that: self.listeners.exists(l, l.purpose == \"peer\" && l.address != null)",
            "that: size(self.listners) > 0",
            [
                "error: unknown field of Instance `listners`",
                "size(self.listners) > 0",
                "^^^^^^^^",
                "did you mean `listeners`?",
            ],
        ),
        (
            rule,
            "that: self.listeners.exists(l, l.purpose == \"peer\" && l.address != null)",
            "that: size(self.listeners) > \"0\"",
            ["error: `>` compares int with string", "> \"0\"", "^^^^^^", ""],
        ),
        (
            rule,
            "that: self.listeners.exists(l, l.purpose == \"peer\" && l.address != null)",
            "that: size(self.listeners > 0",
            ["error: this bracket is not closed by `)`", "size(self", "^", ""],
        ),
        (
            rule,
            "that: self.listeners.exists(l, l.purpose == \"peer\" && l.address != null)",
            "that: frobnicate(self.listeners)",
            ["error: ", "frobnicate(", "^", ""],
        ),
        (
            rule,
            "severity: high",
            "severity: hgih",
            ["error: unknown variant `hgih`", "severity: hgih", "^", "critical"],
        ),
        (
            rule,
            "## Rationale",
            "## Reason",
            [
                "error: the heading is `Reason` where `Rationale` is expected",
                "## Reason",
                "^^^^^^^^^",
                "in order: Description",
            ],
        ),
        (
            rule,
            "\"{l.url} is plaintext\"",
            "\"{l.url is plaintext\"",
            ["error: this `{` is not closed by `}`", "{l.url is plaintext", "^^^", ""],
        ),
        (
            "benchmarks/cis-kubernetes-2.0.1.yaml",
            "rule: etcd-peer-tls",
            "rule: etcd-peer-tsl",
            [
                "error: there is no rule `etcd-peer-tsl`",
                "rule: etcd-peer-tsl",
                "^^^^^^^^^^^^^",
                "seaworthy list",
            ],
        ),
    ];
    for (file, good, bad, words) in cases {
        let path = catalogue.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let broken = text.replacen(good, bad, 1);
        assert_ne!(broken, text, "{good:?} is not in {file}");
        fs::write(&path, &broken).unwrap();
        let run = run(&["catalogue", "check", catalogue.to_str().unwrap()]);
        fs::write(&path, text).unwrap();
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{bad:?} does not say {word:?}:\n{}", run.stderr);
        }
        // The place that is told is that of the mark.
        let (_, place) = run.stderr.split_once("--> ").expect("a place");
        let place: Vec<_> = place.lines().next().unwrap().rsplitn(3, ':').collect();
        let [column, line, named] = place[..] else { panic!("{}", run.stderr) };
        assert_eq!(named, file);
        let shown = broken.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
        assert!(run.stderr.contains(shown.trim_end()), "{shown}");
        assert!(column.parse::<usize>().unwrap() <= shown.chars().count() + 1);
    }
    let fixture = catalogue.join("rules/etcd/etcd-peer-tls/tests/pass.yaml");
    let text = fs::read_to_string(&fixture).unwrap().replace("expect: pass", "expect: fail");
    fs::write(fixture, text).unwrap();
    refused(
        &["catalogue", "check", catalogue.to_str().unwrap()],
        &["expected fail, got pass", "tests/pass.yaml", "the catalogue has 1 error"],
    );
}

#[test]
fn a_catalogue_may_replace_and_add_rules() {
    let folder = Folder::new();
    let own = folder.0.path().join("own/rules/etcd/etcd-peer-tls");
    copy(&Path::new(CATALOGUE).join("rules/etcd/etcd-peer-tls"), &own);
    let path = own.join("rule.md");
    let text = fs::read_to_string(&path).unwrap().replace("title: etcd encrypts", "title: OUR etcd encrypts");
    fs::write(&path, text).unwrap();
    let own = folder.path("own");
    let audited = run(&["audit", "--snapshot", NODE, "--catalogue", &own, "--rule", "2.4"]);
    assert_eq!(audited.code, 1, "{}", audited.stderr);
    assert!(audited.stdout.contains("OUR etcd encrypts"), "{}", audited.stdout);
    assert!(
        run(&["list", "--catalogue", &own]).stdout.contains("etcd-client-tls"),
        "the others are still there"
    );
    fs::write(&path, "nonsense").unwrap();
    refused(
        &["audit", "--snapshot", NODE, "--catalogue", &own],
        &["rules/etcd/etcd-peer-tls/rule.md", "error"],
    );
}

#[test]
fn rules_are_explained_by_name_and_by_number() {
    let by_name = run(&["explain", "etcd-peer-tls"]);
    assert_eq!(by_name.code, 0);
    assert_eq!(run(&["explain", "2.4"]).stdout, by_name.stdout);
    for words in [
        "Description",
        "Rationale",
        "Remediation",
        "Default value",
        "2.4",
        "CIS Controls v6: 14.2",
        "v7: 14.4",
    ] {
        assert!(by_name.stdout.contains(words), "{words}");
    }
    assert!(by_name.stdout.lines().all(|line| line.chars().count() <= 110 || line.contains("http")));
    let missing = run(&["explain", "5.6.4"]);
    assert_eq!(missing.code, 0);
    assert!(
        missing.stdout.contains("5.6.4") && missing.stdout.contains("No rule implements it yet"),
        "{}",
        missing.stdout
    );
    for (section, first, others) in [("2", "2.1", "1.1.1"), ("1", "1.1.1", "2.1")] {
        let listed = run(&["explain", section]);
        let has = |id: &str| listed.stdout.lines().any(|l| l.split_whitespace().next() == Some(id));
        assert!(listed.code == 0 && has(first) && !has(others), "{}", listed.stdout);
    }
}

#[test]
fn rules_and_controls_are_listed() {
    let rules = run(&["list"]);
    assert_eq!(rules.code, 0);
    let listed = rules.stdout.lines().take_while(|line| *line != "Benchmarks");
    let explained = listed.filter_map(|l| l.split_whitespace().next()).filter(|w| w.contains('-'));
    let explained: Vec<_> = explained.collect();
    assert!(explained.len() > 20);
    for rule in explained.iter().step_by(5) {
        assert_eq!(run(&["explain", rule]).code, 0, "{rule}");
    }
    for (benchmark, controls) in
        [("cis-kubernetes-2.0.1", "2.4"), ("cis-kubernetes-1.12", "2.4"), ("cis-kubernetes", "1.1.12")]
    {
        let list = run(&["list", "--benchmark", benchmark]);
        assert_eq!(list.code, 0, "{}", list.stderr);
        assert!(list.stdout.lines().any(|l| l.trim_start().starts_with(controls)), "{}", list.stdout);
        assert!(list.stdout.contains("not implemented yet"));
    }
}

#[test]
fn completions_parse_and_manual_pages_are_manual_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.code == 0 && script.stdout.contains("seaworthy"), "{shell}");
        if shell == "bash" {
            let folder = Folder::new();
            let path = folder.file("completions", &script.stdout);
            assert!(Command::new("bash").args(["-n", &path]).status().unwrap().success());
        }
    }
    for name in [
        None,
        Some("audit"),
        Some("snapshot"),
        Some("explain"),
        Some("list"),
        Some("probe"),
        Some("catalogue"),
        Some("catalogue check"),
    ] {
        let words = name.into_iter().flat_map(|name| name.split(' '));
        let page = run(&["man"].into_iter().chain(words).collect::<Vec<_>>());
        assert_eq!(page.code, 0, "{}", page.stderr);
        let title = page.stdout.lines().find(|line| line.starts_with(".TH")).expect("a title");
        assert!(title.contains(&name.unwrap_or("seaworthy").replace(' ', "-")), "{title}");
        assert!(title.contains(concat!("seaworthy ", env!("CARGO_PKG_VERSION"))), "{title}");
        for section in [".SH NAME", ".SH SYNOPSIS"] {
            assert!(page.stdout.contains(section), "{name:?}: {section}");
        }
    }
}

/// Serves on a port of this machine, until it is dropped, whoever connects with `serve`.
struct Server {
    address: String,
    stop: std::sync::Arc<AtomicBool>,
}

impl Server {
    fn start(serve: fn(&mut std::net::TcpStream, &AtomicBool)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let stopped = stopped.clone();
                std::thread::spawn(move || serve(&mut stream, &stopped));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_probe_ends_whatever_the_listener_does() {
    type Serve = fn(&mut std::net::TcpStream, &AtomicBool);
    let cases: [(&str, Serve); 6] =
        [
            ("never answers", |_, stop| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }),
            ("hangs up", |_, _| {}),
            ("zeros without end", |stream, stop| {
                while !stop.load(Ordering::Relaxed) && stream.write_all(&[0; 4096]).is_ok() {}
            }),
            ("headers without end", |stream, stop| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while !stop.load(Ordering::Relaxed) && stream.write_all(b"X-Header: value\r\n").is_ok() {}
            }),
            ("handshake records without end", |stream, stop| {
                while !stop.load(Ordering::Relaxed)
                    && stream.write_all(&[22, 3, 3, 0, 4, 2, 0xff, 0xff, 0xff]).is_ok()
                {}
            }),
            ("one byte at a time", |stream, stop| {
                let mut request = [0; 64];
                let _ = stream.read(&mut request);
                for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle() {
                    if stop.load(Ordering::Relaxed) || stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }),
        ];
    for (name, serve) in cases {
        let server = Server::start(serve);
        for format in ["text", "json"] {
            let start = Instant::now();
            let run = run(&["probe", "--timeout", "0.3", "--format", format, &server.address]);
            let took = start.elapsed();
            assert!(matches!(run.code, 0 | 3), "{name}: {}", run.stderr);
            assert!(took < Duration::from_secs(3), "{name} took {took:?}");
            assert!(run.stdout.contains(&server.address), "{name}: {}", run.stdout);
            assert!(run.stdout.len() < 10_000, "{name}: {} bytes", run.stdout.len());
            assert!(
                !run.stdout.contains("PLAINTEXT") || run.stdout.contains("NEITHER"),
                "{name}: {}",
                run.stdout
            );
        }
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = run(&["probe", &closed, "unix:/nonexistent", "nonexistent.invalid:1"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert_eq!(refused.stdout.matches("UNKNOWN").count(), 3, "{}", refused.stdout);
}

#[test]
fn a_unix_socket_is_probed_by_its_path() {
    let folder = Folder::new();
    let path = folder.path("etcd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    for target in [format!("unix:{path}"), format!("unix://{path}"), path] {
        let run = run(&["probe", "--timeout", "0.3", &target]);
        assert!(run.code == 0 && run.stdout.contains("PLAINTEXT"), "{target}: {}{}", run.stdout, run.stderr);
    }
}
