//! Fixes carried out on real clusters: live, under writers, on all nodes at once.

use std::process::Output;
use std::thread;
use std::time::Instant;

use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, MemberSpec, Node, Report, Source, Supervisor};
use serde_json::Value;

use crate::common::{Audit, fix_document, newest, seaworthy, spec, start, versions};

pub(crate) const PEER_TLS: &str = "etcd-peer-tls";
pub(crate) const PKI: &str = "/etc/kubernetes/pki/etcd";

/// Puts the authority's key where kubeadm has it.
pub(crate) fn with_authority(m: &mut MemberSpec) {
    let key = m.authority.key_pem().to_owned();
    m.file(format!("{PKI}/ca.key"), key, 0o600);
}

/// Returns a plaintext cluster whose members are run by `supervisor`.
pub(crate) fn plaintext(
    binary: &EtcdBinary,
    members: usize,
    supervisor: Supervisor,
    source: Source,
) -> ClusterSpec {
    spec(binary, members, move |m| {
        m.plain();
        with_authority(m);
        m.supervisor = supervisor;
        m.source = source.clone();
        if m.source == Source::Yaml {
            // etcd 3.4 has the gateway, which writers use, switched off where it reads its settings from a file.
            m.set("enable-grpc-gateway", "true");
        }
    })
}

/// Applies the fix on a node.
pub(crate) fn apply(node: &Node) -> Output {
    seaworthy(node, &["fix", PEER_TLS, "--apply", "--format", "json", "--settle", "60", "--wait", "120"])
}

/// Rolls a fix back on a node.
pub(crate) fn roll_back(node: &Node, id: &str) -> Output {
    let limits = ["--format", "json", "--settle", "60", "--wait", "120"];
    seaworthy(node, &[&["fix", "--rollback", id, "--apply"], &limits[..]].concat())
}

/// Rolls a fix back on each node at once, and asserts that each says so.
#[track_caller]
pub(crate) fn roll_back_everywhere(cluster: &Cluster, ids: &[String]) {
    let outputs: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = cluster
            .nodes()
            .iter()
            .zip(ids)
            .map(|(node, id)| scope.spawn(move || roll_back(node, id)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for output in outputs {
        let document = expect(&output, 0);
        assert_eq!(document["outcome"], "rolled-back", "{document:#}");
    }
}

/// Applies the fix on all nodes at once, and returns what each said.
pub(crate) fn apply_everywhere(cluster: &Cluster) -> Vec<Output> {
    thread::scope(|scope| {
        let runs: Vec<_> = cluster.nodes().iter().map(|node| scope.spawn(move || apply(node))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

#[track_caller]
pub(crate) fn expect(output: &Output, code: i32) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    let document = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}\n{document}");
    fix_document(output)
}

pub(crate) fn report(what: &str, report: &Report) {
    eprintln!(
        "{what}: {} acknowledged, {} lost, longest gap {:.0} ms, {} errors, equal {}",
        report.acks, report.lost, report.longest_gap_ms, report.errors, report.equal
    );
}

/// Migrates a cluster under writers, and rolls that back.
fn there_and_back(binary: &EtcdBinary, members: usize, supervisor: Supervisor, source: Source) {
    let what = format!("etcd {}, {members} members, {supervisor:?}, {source:?}", binary.version);
    let cluster = start(binary, plaintext(binary, members, supervisor, source));
    let writer = cluster.writer().unwrap();
    let began = Instant::now();
    let outputs = apply_everywhere(&cluster);
    let took = began.elapsed();
    let mut first = Vec::new();
    for output in &outputs {
        let document = expect(output, 0);
        assert_eq!(document["outcome"], "done", "{document:#}");
        assert!(document["verified"].to_string().contains("same data"), "{document:#}");
        first.push(document["fixes"][0].as_str().unwrap().to_owned());
    }
    let there = writer.finish().unwrap();
    report(&format!("{what}, there in {took:.1?}"), &there);
    assert!(there.clean() && there.lost == 0, "{there:#?}");
    assert!(there.longest_gap_ms < 1500.0, "{there:#?}");
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "pass", &[]);
    }
    assert!(cluster.members().unwrap().iter().all(|m| m.peer_urls[0].starts_with("https:")));
    // Again it has nothing to do.
    let document = expect(&apply(cluster.node(0)), 0);
    assert_eq!(document["fixes"], serde_json::json!([]), "{document:#}");

    let writer = cluster.writer().unwrap();
    roll_back_everywhere(&cluster, &first);
    let back = writer.finish().unwrap();
    report(&format!("{what}, back"), &back);
    assert!(back.clean() && back.lost == 0, "{back:#?}");
    assert!(cluster.members().unwrap().iter().all(|m| m.peer_urls[0].starts_with("http:")));
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
        let left =
            node.run("sh", ["-c", &format!("ls {PKI}/seaworthy-peer.* /etc/etcd/pki/* 2>/dev/null | wc -l")]);
        assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout).trim(), "0");
    }
}

#[test]
fn a_live_cluster_of_static_pods_goes_there_and_back() {
    for binary in versions() {
        there_and_back(&binary, 3, Supervisor::Kubelet, Source::Flags);
    }
}

#[test]
fn a_live_cluster_of_units_goes_there_and_back() {
    there_and_back(&newest(), 3, Supervisor::Units, Source::Environment);
}

#[test]
fn a_live_cluster_of_five_goes_there_and_back() {
    there_and_back(&newest(), 5, Supervisor::Kubelet, Source::Flags);
}

#[test]
fn a_live_cluster_with_configuration_files_goes_there_and_back() {
    there_and_back(&newest(), 3, Supervisor::Kubelet, Source::Yaml);
}
