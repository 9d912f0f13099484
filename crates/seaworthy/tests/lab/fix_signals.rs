//! Runs that are asked to end: where that is safe, they do; and what they leave in no core dump.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use seaworthy_lab::{Cluster, MANIFEST, Node, Source, Supervisor};
use serde_json::Value;

use crate::common::{SEAWORTHY, newest, seaworthy, start};
use crate::fix_apply::{PEER_TLS, apply_everywhere, expect, plaintext};
use crate::oracle::{eventually, expect_whole, sh};

/// A run that goes on while the test does.
struct Run<'a> {
    node: &'a Node,
    child: Child,
    stderr: BufReader<ChildStderr>,
    told: String,
}

impl<'a> Run<'a> {
    fn start(node: &'a Node, arguments: &[&str]) -> Self {
        let mut command = node.command(SEAWORTHY);
        command.args(arguments);
        Self::of(node, command)
    }

    /// As from `nohup`, which lets a run outlive its terminal.
    fn start_without_terminal(node: &'a Node, arguments: &[&str]) -> Self {
        let mut command = node.command("sh");
        command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", SEAWORTHY]).args(arguments);
        Self::of(node, command)
    }

    fn of(node: &'a Node, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { node, child, stderr, told: String::new() }
    }

    /// Waits until it has said `words`.
    #[track_caller]
    fn until(&mut self, words: &str) {
        while !self.told.contains(words) {
            assert!(self.stderr.read_line(&mut self.told).unwrap() > 0, "it ended: {}", self.told);
        }
    }

    /// Returns its process number on the node.
    fn pid(&self) -> u32 {
        let named = |entry: fs::DirEntry| {
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (name == "seaworthy\n").then(|| entry.file_name().to_str()?.parse().ok())?
        };
        let processes = fs::read_dir(self.node.root().join("proc")).unwrap();
        processes.flatten().find_map(named).expect("it runs")
    }

    fn signal(&self, name: &str) {
        sh(self.node, &format!("kill -s {name} {}", self.pid()));
    }

    /// Waits for its end, and returns what it printed.
    fn end(mut self) -> (Output, String) {
        while self.stderr.read_line(&mut self.told).unwrap() > 0 {}
        (self.child.wait_with_output().unwrap(), self.told)
    }
}

const APPLY: [&str; 9] = ["fix", PEER_TLS, "--apply", "-f", "json", "--settle", "120", "--wait", "300"];

/// Asserts that a run has ended because it was asked to, with nothing half-done.
#[track_caller]
fn expect_interrupted(run: Run<'_>) -> Value {
    let node = run.node;
    let (output, told) = run.end();
    assert!(told.contains("the same command goes on from there"), "{told}");
    let document = expect(&output, 3);
    assert_eq!(document["outcome"], "interrupted", "{told}{document:#}");
    let status = expect(&seaworthy(node, &["fix", "--status", "-f", "json"]), 0);
    for fix in status["fixes"].as_array().unwrap() {
        assert_eq!(fix["status"], "done", "{fix:#}");
    }
    for member in status["members"].as_array().unwrap() {
        assert_eq!(member["progress"]["under_way"], Value::Null, "{member:#}");
    }
    document
}

fn pods() -> Cluster {
    start(&newest(), plaintext(&newest(), 3, Supervisor::Kubelet, Source::Flags))
}

#[test]
fn a_run_that_is_asked_to_end_does_so_where_it_is_safe() {
    let cluster = pods();
    let node = cluster.node(0);
    // In the middle of a turn: kubelet does not look, so it waits for the restart.
    node.pause_supervisor().unwrap();
    let mut run = Run::start(node, &APPLY);
    run.until("Wait until kubelet");
    run.signal("INT");
    run.until("ending as soon as");
    let before = node.etcd_pid();
    node.resume_supervisor().unwrap();
    node.wait_restarted(before).unwrap();
    let document = expect_interrupted(run);
    assert_eq!(document["fixes"].as_array().unwrap().len(), 1, "the turn was completed: {document:#}");
    expect_whole(&cluster);
    // Between turns, while it waits for others: a service that is stopped, a terminal that is lost.
    for signal in ["TERM", "HUP", "INT"] {
        let mut run = Run::start(node, &APPLY);
        run.until("waiting:");
        run.signal(signal);
        expect_interrupted(run);
    }
    // Of these two, the first is not heard, and the second is the first.
    let mut run = Run::start_without_terminal(node, &APPLY);
    run.until("waiting:");
    run.signal("HUP");
    run.signal("INT");
    expect_interrupted(run);
    // For a person, with the command that goes on.
    let mut run = Run::start(node, &["fix", PEER_TLS, "--apply", "--wait", "300"]);
    run.until("waiting:");
    run.signal("INT");
    let (output, _) = run.end();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("INTERRUPTED") && text.contains("seaworthy fix etcd-peer-tls --apply"), "{text}");
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_the_next_one_finishes() {
    let cluster = pods();
    let node = cluster.node(0);
    let writer = cluster.writer().unwrap();
    node.pause_supervisor().unwrap();
    let mut run = Run::start(node, &APPLY);
    run.until("Wait until kubelet");
    run.signal("INT");
    run.until("ending as soon as");
    run.signal("INT");
    let (output, told) = run.end();
    assert!(!matches!(output.status.code(), Some(0..=5)), "{:?}: {told}", output.status);
    let manifest = String::from_utf8(node.read(MANIFEST).unwrap()).unwrap();
    assert!(manifest.contains("peer-cert-file"), "the step was begun: {manifest}");
    let before = node.etcd_pid();
    node.resume_supervisor().unwrap();
    node.wait_restarted(before).unwrap();
    let status = expect(&seaworthy(node, &["fix", "--status", "-f", "json"]), 0);
    assert_eq!(status["fixes"][0]["status"], "unfinished", "{status:#}");
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);
    // A rollback is asked to end as well: it completes its turn, and the next run goes on.
    let first = status["fixes"][0]["id"].as_str().unwrap();
    node.pause_supervisor().unwrap();
    let back = ["fix", "--rollback", first, "--apply", "-f", "json", "--settle", "120", "--wait", "300"];
    let mut run = Run::start(node, &back);
    run.until("Wait until kubelet");
    run.signal("TERM");
    run.until("ending as soon as");
    let before = node.etcd_pid();
    node.resume_supervisor().unwrap();
    node.wait_restarted(before).unwrap();
    let (output, told) = run.end();
    let document = expect(&output, 3);
    assert_eq!(document["outcome"], "interrupted", "{told}{document:#}");
    expect_whole(&cluster);
    let written = writer.finish().unwrap();
    assert!(written.clean() && written.lost == 0, "{written:#?}");
}

#[test]
fn keys_in_memory_reach_no_core_dump() {
    let cluster = pods();
    let node = cluster.node(0);
    sh(node, "mkfifo /tmp/request.csr");
    // As root without any capability, which may look into processes that are its own like any other user.
    let unprivileged = ["--inh-caps=-all", "--bounding-set=-all", "--"];
    let mut command = node.command("bash");
    let fix = format!(
        "ulimit -c unlimited; exec setpriv {} {SEAWORTHY} fix {PEER_TLS} --sign /tmp/request.csr",
        unprivileged.join(" ")
    );
    let mut child = command.args(["-c", &fix]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = || {
        let found =
            node.run("bash", ["-c", "grep -lx seaworthy /proc/[0-9]*/comm | grep -o '[0-9]*'"]).unwrap();
        String::from_utf8_lossy(&found.stdout).trim().to_owned()
    };
    let limits = || {
        String::from_utf8_lossy(&node.read(&format!("/proc/{}/limits", pid())).unwrap_or_default())
            .into_owned()
    };
    // No core file, whatever the shell allowed.
    eventually(Duration::from_secs(20), || {
        let limits = limits();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        let soft = line.split_whitespace().nth(4).unwrap_or_default();
        if soft == "0" { Ok(()) } else { Err(format!("{line:?} of process {}", pid())) }
    });
    // And none of its memory to whom the kernel hands a dump: a process that is not dumpable cannot be looked into, not even
    // by its own user.
    let look = |pid: &str| {
        let words = ["setpriv"].into_iter().chain(unprivileged);
        let script = format!("{} head -c 1 /proc/{pid}/environ", words.collect::<Vec<_>>().join(" "));
        node.run("bash", ["-c", &script]).unwrap()
    };
    let of_seaworthy = look(&pid());
    let told = String::from_utf8_lossy(&of_seaworthy.stderr).into_owned();
    assert!(!of_seaworthy.status.success() && told.contains("Permission denied"), "{told}");
    let script = format!(
        "setpriv {0} sleep 60 & sleep=$!; until [ $(cat /proc/$sleep/comm) = sleep ]; do :; done; \
         setpriv {0} head -c 1 /proc/$sleep/environ >/dev/null; code=$?; kill $sleep; exit $code",
        unprivileged.join(" ")
    );
    assert!(
        node.run("bash", ["-c", &script]).unwrap().status.success(),
        "that can be seen of other processes"
    );
    sh(node, "echo >/tmp/request.csr");
    let ended = child.wait().unwrap();
    assert!(matches!(ended.code(), Some(2..=4)), "{ended:?}");
}
