//! A node ends without a trace, however it was interrupted, and comes up again. `cargo xtask cluster test` runs this.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use seaworthy_kubeadm::{Node, Progress, RELEASE, down};

/// Says to the process that is to be killed that it is the one.
const VICTIM: &str = "SEAWORTHY_CLUSTER_VICTIM";

#[test]
fn a_killed_up_leaves_nothing_that_down_does_not_end() {
    if env::var_os(VICTIM).is_some() {
        Node::up(RELEASE, &Progress::new()).expect("a node");
        return;
    }
    let progress = Progress::new();
    Node::up(RELEASE, &progress).expect("a node, with programs that are built");
    down(false, &progress).unwrap();
    assert!(Node::running().unwrap().is_none());

    let mut victim = Command::new(env::current_exe().unwrap());
    let mut victim = victim.args(["--nocapture", "--test-threads", "1"]).env(VICTIM, "1").spawn().unwrap();
    let start = Instant::now();
    let namespace = loop {
        if let Some(node) = Node::running().unwrap()
            && let Ok(namespace) = fs::read_link(format!("/proc/{}/ns/pid", node.pid()))
            && node.listens(10250)
        {
            break namespace;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "the node does not start");
        thread::sleep(Duration::from_millis(20));
    };
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(Node::running().unwrap().is_some(), "the node does not depend on who started it");
    assert!(inside(&namespace) > 0);

    for _ in 0..2 {
        down(false, &progress).unwrap();
        assert!(Node::running().unwrap().is_none());
        // The last of them is the machine's own PID 1 to reap.
        let start = Instant::now();
        while inside(&namespace) > 0 {
            assert!(start.elapsed() < Duration::from_secs(5), "processes are left");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(groups(), Vec::<PathBuf>::new());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("lab/kubernetes"), "{mounts}");

    let node = Node::up(RELEASE, &progress).expect("a node on the disk of the one that was killed");
    assert_eq!(node.run("kubectl", ["get", "--raw", "/readyz"]).unwrap(), "ok");
}

/// Returns how many processes are in a PID namespace.
fn inside(namespace: &PathBuf) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == *namespace))
        .count()
}

/// Returns the control groups of this workspace's node.
fn groups() -> Vec<PathBuf> {
    let workspace = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).unwrap();
    let name = format!("seaworthy{}", workspace.display()).replace('/', "-");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let children = hierarchies.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    children.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&name)).collect()
}
