//! Fixes in trouble: they stop before harm, say what is wrong, and go on or back.

use std::process::Output;
use std::thread;
use std::time::Duration;

use seaworthy_lab::{Authority, Cluster, MANIFEST, MemberSpec, Node, Supervisor, Validity};
use serde_json::Value;

use crate::common::{SEAWORTHY, newest, seaworthy, spec, start};
use crate::fix_apply::{PEER_TLS, PKI, apply, apply_everywhere, expect, with_authority};

/// Applies the fix on a node, with so little patience that it does not wait for the others.
fn apply_alone(node: &Node) -> Output {
    seaworthy(node, &["fix", PEER_TLS, "--apply", "-f", "json", "--settle", "20", "--wait", "1"])
}

/// Applies the fix on a node, and kills it where the journal has so many lines.
fn apply_killed(node: &Node, line: u32) {
    let kill = format!("SEAWORTHY_KILL=after:{line}");
    let words = [&kill, SEAWORTHY, "fix", PEER_TLS, "--apply", "--settle", "20", "--wait", "60"];
    let output = node.run("env", words).unwrap();
    assert!(!matches!(output.status.code(), Some(0..=5)), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a plaintext cluster of static pods.
fn pods(change: impl Fn(&mut MemberSpec) + 'static) -> Cluster {
    let binary = newest();
    let whole = spec(&binary, 3, move |m| {
        m.plain();
        with_authority(m);
        m.supervisor = Supervisor::Kubelet;
        change(m);
    });
    start(&binary, whole)
}

/// Lets every member load its certificate. The last one knows that all have, and goes on to TLS.
pub(crate) fn load_everywhere(cluster: &Cluster) {
    for node in cluster.nodes() {
        let document = expect(&apply_alone(node), 3);
        assert_eq!(document["outcome"], "waiting", "{document:#}");
    }
    expect_dialled(cluster, 0, "http");
    expect_dialled(cluster, 2, "https");
}

fn manifests(cluster: &Cluster) -> Vec<Vec<u8>> {
    cluster.nodes().iter().map(|node| node.read(MANIFEST).unwrap()).collect()
}

/// Asserts how a member's peers are told to dial it, as its neighbour knows it.
#[track_caller]
fn expect_dialled(cluster: &Cluster, index: usize, scheme: &str) {
    let list = cluster.node((index + 1) % cluster.nodes().len()).etcdctl(["member", "list"]).unwrap();
    let url = format!("{scheme}://{}:2380", cluster.node(index).address);
    assert!(list.contains(&url), "{url} is not in {list}");
}

#[track_caller]
fn expect_words(document: &Value, words: &[&str]) {
    let said = document.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {document:#}");
    }
}

#[test]
fn a_member_that_dies_between_turns_stops_the_others_before_harm() {
    let cluster = pods(|_| {});
    expect(&apply_alone(cluster.node(0)), 3);
    let before = manifests(&cluster);
    let follower = if cluster.leader().unwrap() == 2 { 1 } else { 2 };
    let (dead, alive) = (cluster.node(follower), cluster.node(3 - follower));
    dead.pause_supervisor().unwrap();
    dead.kill().unwrap();
    let document = expect(&apply_alone(alive), 3);
    expect_words(
        &document,
        &["refused", &format!("{} is not healthy", dead.name), "2 of 3 members are healthy"],
    );
    assert_eq!(manifests(&cluster), before);
    dead.resume_supervisor().unwrap();
    dead.wait_restarted(None).unwrap();
    dead.wait_ready().unwrap();
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
}

#[test]
fn a_member_that_dies_in_the_middle_of_a_turn_is_no_reason_to_go_on() {
    let cluster = pods(|_| {});
    load_everywhere(&cluster);
    let writer = cluster.writer().unwrap();
    // Its peers are told to dial it with TLS, and it does not listen so yet. It may lead, and hand over first.
    let node = cluster.node(0);
    let lines = if cluster.leader().unwrap() == 0 { 4 } else { 2 };
    apply_killed(node, lines);
    expect_dialled(&cluster, 0, "https");
    // Nobody else begins meanwhile.
    let document = expect(&apply_alone(cluster.node(1)), 3);
    expect_words(&document, &["waiting", "m1", "turn-ended"]);
    let dead = cluster.node(2);
    dead.pause_supervisor().unwrap();
    dead.kill().unwrap();
    let document = expect(&apply_alone(node), 5);
    expect_words(&document, &["rolled-back", "m3 is not healthy"]);
    expect_dialled(&cluster, 0, "http");
    dead.resume_supervisor().unwrap();
    dead.wait_restarted(None).unwrap();
    dead.wait_ready().unwrap();
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    let report = writer.finish().unwrap();
    assert!(report.clean() && report.lost == 0, "{report:#?}");
}

#[test]
fn a_full_disk_is_a_reason_to_go_back() {
    let cluster =
        pods(|m| m.disks = vec![("/etc/kubernetes".into(), 1 << 20), ("/var/lib/seaworthy".into(), 1 << 20)]);
    let node = cluster.node(0);
    let before = manifests(&cluster);
    node.fill("/etc/kubernetes").unwrap();
    let document = expect(&apply_alone(node), 5);
    expect_words(&document, &["rolled-back", "No space left on device"]);
    assert_eq!(manifests(&cluster), before);
    let left = node
        .run("sh", ["-c", &format!("ls -A {PKI}; ls -A /etc/kubernetes /etc/kubernetes/manifests")])
        .unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(!left.contains("seaworthy"), "{left}");
    node.empty("/etc/kubernetes").unwrap();

    // What cannot be written down is not done.
    node.fill("/var/lib/seaworthy").unwrap();
    let output = apply_alone(node);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(manifests(&cluster), before);
    node.empty("/var/lib/seaworthy").unwrap();
    expect(&apply_alone(node), 3);
}

#[test]
fn a_manifest_directory_that_is_read_only_is_refused() {
    let cluster = pods(|_| {});
    let before = manifests(&cluster);
    cluster.node(0).protect("/etc/kubernetes/manifests").unwrap();
    let document = expect(&apply_alone(cluster.node(0)), 3);
    expect_words(&document, &["refused", "cannot be changed", "read-only"]);
    assert_eq!(manifests(&cluster), before);
}

#[test]
fn an_authority_that_nobody_would_believe_is_refused() {
    for (validity, words) in [
        (Validity::Expired, "has expired"),
        // As one from a node whose clock is ahead.
        (Validity::Ahead(Duration::from_secs(7200)), "is not valid yet"),
    ] {
        let other = Authority::valid("other-ca", validity).unwrap();
        let cluster = pods(move |m| {
            m.file(format!("{PKI}/other.crt"), other.pem(), 0o644);
            m.file(format!("{PKI}/other.key"), other.key_pem(), 0o600);
        });
        let before = manifests(&cluster);
        let [certificate, key] = ["crt", "key"].map(|end| format!("{PKI}/other.{end}"));
        let arguments = [
            "fix",
            PEER_TLS,
            "--apply",
            "-f",
            "json",
            "--ca-cert",
            &certificate,
            "--ca-key",
            &key,
            "--wait",
            "1",
        ];
        let document = expect(&seaworthy(cluster.node(0), &arguments), 3);
        expect_words(&document, &["refused", words]);
        assert_eq!(manifests(&cluster), before);
    }
}

#[test]
fn a_peer_that_cannot_reach_the_port_stops_it_and_it_goes_back() {
    let cluster = pods(|_| {});
    load_everywhere(&cluster);
    let node = cluster.node(0);
    let lines = if cluster.leader().unwrap() == 0 { 4 } else { 2 };
    apply_killed(node, lines);
    // From now on one of its peers does not reach it, nor it that one.
    cluster.separate(0, 2).unwrap();
    thread::sleep(Duration::from_secs(7));
    let document = expect(&apply_alone(node), 5);
    expect_words(&document, &["rolled-back"]);
    expect_dialled(&cluster, 0, "http");
    cluster.reunite(0, 2).unwrap();
    thread::sleep(Duration::from_secs(3));
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
}

#[test]
fn a_kubelet_that_does_not_restart_the_member_is_a_reason_to_go_back() {
    let cluster = pods(|_| {});
    let node = cluster.node(0);
    let before = (node.read(MANIFEST).unwrap(), node.etcd_pid());
    node.pause_supervisor().unwrap();
    let output = seaworthy(node, &["fix", PEER_TLS, "--apply", "-f", "json", "--settle", "5", "--wait", "1"]);
    let document = expect(&output, 5);
    expect_words(&document, &["rolled-back", "the process is still the one from before"]);
    node.resume_supervisor().unwrap();
    thread::sleep(Duration::from_secs(2));
    assert_eq!((node.read(MANIFEST).unwrap(), node.etcd_pid()), before);
}

#[test]
fn two_runs_on_one_node_get_along() {
    let cluster = pods(|_| {});
    thread::scope(|scope| {
        let twice: Vec<_> = cluster
            .nodes()
            .iter()
            .chain(cluster.nodes())
            .map(|node| scope.spawn(move || apply(node)))
            .collect();
        for run in twice {
            expect(&run.join().unwrap(), 0);
        }
    });
}
