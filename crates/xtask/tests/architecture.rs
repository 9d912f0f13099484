//! The shape of the workspace, as ARCHITECTURE.md draws it, read from `cargo metadata`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The crates of the product, left to right: each may depend only on crates before it.
const ORDER: [&str; 18] = [
    "seaworthy-evidence",
    "seaworthy-settings",
    "seaworthy-components",
    "seaworthy-expr",
    "seaworthy-catalogue",
    "seaworthy-builtin",
    "seaworthy-audit",
    "seaworthy-pki",
    "seaworthy-wire",
    "seaworthy-host",
    "seaworthy-layouts",
    "seaworthy-collect",
    "seaworthy-edit",
    "seaworthy-journal",
    "seaworthy-etcd-api",
    "seaworthy-remedy",
    "seaworthy-report",
    "seaworthy",
];

/// Beside the product: they may depend on anything, and nothing of the product on them.
const BESIDE: [&str; 3] = ["seaworthy-lab", "seaworthy-kubeadm", "xtask"];

/// What no crate of the evaluation path may reach: it neither talks to a network nor waits.
const NEVER_IN_EVALUATION: [&str; 10] = [
    "tokio",
    "async-std",
    "mio",
    "hyper",
    "rustls",
    "socket2",
    "rustix",
    "seaworthy-host",
    "seaworthy-wire",
    "seaworthy-collect",
];

#[test]
fn crates_depend_only_to_the_left() {
    let graph = Graph::read();
    let place = |name: &str| ORDER.iter().position(|c| *c == name);
    let mut wrong = Vec::new();
    for name in ORDER {
        for dependency in graph.direct(name) {
            if BESIDE.contains(&dependency.as_str())
                || place(&dependency) >= place(name) && place(&dependency).is_some()
            {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_has_a_place() {
    let known: BTreeSet<&str> = ORDER.into_iter().chain(BESIDE).collect();
    let graph = Graph::read();
    let unknown: Vec<_> = graph.members.iter().filter(|m| !known.contains(m.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?} have no place in ORDER, and so none in ARCHITECTURE.md");
    assert_eq!(graph.members.len(), known.len());
}

#[test]
fn evaluation_reaches_no_network_and_no_runtime() {
    let graph = Graph::read();
    for name in ORDER.into_iter().take_while(|name| *name != "seaworthy-pki") {
        let reached = graph.reachable(name);
        let forbidden: Vec<_> = NEVER_IN_EVALUATION.iter().filter(|c| reached.contains(**c)).collect();
        assert!(forbidden.is_empty(), "{name} reaches {forbidden:?}");
    }
}

/// The dependency graph of normal dependencies: what is built into a crate, tests and build scripts aside.
struct Graph {
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo metadata");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let names: BTreeMap<&str, &str> = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?)))
            .collect();
        let name = |id: &Value| id.as_str().and_then(|id| names.get(id)).map(|n| (*n).to_owned());
        let members =
            metadata["workspace_members"].as_array().expect("members").iter().filter_map(name).collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().expect("nodes") {
            let normal = |dependency: &&Value| {
                dependency["dep_kinds"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|k| k["kind"].is_null()))
            };
            let dependencies = node["deps"].as_array().expect("deps").iter().filter(normal);
            edges
                .entry(name(&node["id"]).expect("a name"))
                .or_default()
                .extend(dependencies.filter_map(|d| name(&d["pkg"])));
        }
        Self { members, edges }
    }

    fn direct(&self, name: &str) -> BTreeSet<String> {
        self.edges.get(name).cloned().unwrap_or_default()
    }

    fn reachable(&self, name: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![name.to_owned()];
        while let Some(name) = next.pop() {
            next.extend(self.direct(&name).into_iter().filter(|d| reached.insert(d.clone())));
        }
        reached
    }
}
