//! The same change twice: by the program, and scripted by hand in the order in which it is right, with writers on each.
//!
//! By hand means what a careful operator would script: certificates everywhere first, then for one member at a time, the leader
//! last, `etcdctl member update` and at once the manifest; each time waiting until the member is healthy again.

use std::fmt::Write as _;

use seaworthy_lab::{Cluster, EtcdBinary, MANIFEST, Node, Report, Source, Supervisor};
use serde_json::json;

use crate::common::{Audit, start, versions};
use crate::fix_apply::{PEER_TLS, PKI, apply_everywhere, expect, plaintext};
use crate::oracle::expect_whole;

/// Returns a cluster that is still in plaintext.
fn cluster(binary: &EtcdBinary) -> Cluster {
    start(binary, plaintext(binary, 3, Supervisor::Kubelet, Source::Flags))
}

/// Does `change` to a cluster under writers, and returns what they found.
fn under_writers(cluster: &Cluster, change: impl FnOnce(&Cluster)) -> Report {
    let writer = cluster.writer().unwrap();
    change(cluster);
    let written = writer.finish().unwrap();
    assert!(written.clean() && written.lost == 0, "{written:#?}");
    expect_whole(cluster);
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "pass", &[]);
    }
    written
}

/// Edits the manifest of a member, and waits until kubelet has restarted it and it is healthy.
fn edit(node: &Node, change: impl FnOnce(&str) -> String) {
    let before = node.etcd_pid();
    node.edit(MANIFEST, change).unwrap();
    node.wait_restarted(before).unwrap();
}

/// Returns the members, the leader last.
fn leader_last(cluster: &Cluster) -> Vec<usize> {
    let leader = cluster.leader().unwrap();
    (0..cluster.nodes().len()).filter(|index| *index != leader).chain([leader]).collect()
}

fn by_hand(cluster: &Cluster) {
    for index in leader_last(cluster) {
        edit(cluster.node(index), |text| {
            let mut flags = String::new();
            for (flag, value) in
                [("cert-file", "/peer.crt"), ("key-file", "/peer.key"), ("trusted-ca-file", "/ca.crt")]
            {
                let _ = writeln!(flags, "    - --peer-{flag}={PKI}{value}");
            }
            text.replace("    - etcd\n", &format!("    - etcd\n{flags}    - --peer-client-cert-auth=true\n"))
        });
    }
    let members = cluster.members().unwrap();
    for index in leader_last(cluster) {
        let node = cluster.node(index);
        if cluster.leader().unwrap() == index {
            cluster.move_leader((index + 1) % cluster.nodes().len()).unwrap();
        }
        let url = format!("http://{}:2380", node.address);
        let encrypted = url.replace("http:", "https:");
        let id = members.iter().find(|member| member.name == node.name).unwrap().id;
        cluster.member_update(id, &[&encrypted]).unwrap();
        edit(node, |text| text.replace(&url, &encrypted));
    }
}

fn by_program(cluster: &Cluster) {
    for output in apply_everywhere(cluster) {
        expect(&output, 0);
    }
}

#[test]
#[ignore = "cargo xtask stress prints how long the gaps are"]
fn compare() {
    for binary in versions() {
        let program = under_writers(&cluster(&binary), by_program);
        let hand = under_writers(&cluster(&binary), by_hand);
        let line = json!({
            "version": binary.version,
            "program_ms": program.longest_gap_ms,
            "by_hand_ms": hand.longest_gap_ms,
        });
        eprintln!("COMPARED {line}");
    }
}
