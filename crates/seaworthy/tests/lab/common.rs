//! An audit on a node of the lab, and what it said.

use std::fs;
use std::path::Path;
use std::process::Output;

use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, MemberSpec, Node, Process, Program};
use serde_json::Value;

/// Where the nodes see the folder of the program under test.
pub(crate) const SEAWORTHY: &str = "/host-bin/seaworthy";

/// Returns every etcd version of the lab.
pub(crate) fn versions() -> Vec<EtcdBinary> {
    let versions = EtcdBinary::required().expect("run `cargo xtask lab` first");
    assert!(versions.len() >= 2, "the truth table needs two minor versions of etcd: run `cargo xtask lab`");
    versions
}

/// Returns the newest etcd version, for tests in which the version cannot matter.
pub(crate) fn newest() -> EtcdBinary {
    versions().pop().expect("a version")
}

/// Returns a cluster of `count` members in which the program under test can be run, mutual TLS everywhere but for what
/// `change` does to each member.
pub(crate) fn spec(
    binary: &EtcdBinary,
    count: usize,
    change: impl FnMut(&mut MemberSpec) + 'static,
) -> ClusterSpec {
    let program = Path::new(env!("CARGO_BIN_EXE_seaworthy"));
    let folder = program.parent().expect("a folder");
    ClusterSpec::new(binary).members(count).share(folder, "/host-bin").each(change)
}

/// Starts the cluster of [`spec`].
pub(crate) fn cluster(
    binary: &EtcdBinary,
    count: usize,
    change: impl FnMut(&mut MemberSpec) + 'static,
) -> Cluster {
    start(binary, spec(binary, count, change))
}

/// Starts a cluster.
pub(crate) fn start(binary: &EtcdBinary, spec: ClusterSpec) -> Cluster {
    Cluster::start(spec).unwrap_or_else(|error| panic!("etcd {}: {error}", binary.version))
}

/// Starts `program` on `node`, and waits until it is what the process runs.
pub(crate) fn spawn(node: &Node, program: &Program) -> Process {
    let process = node.spawn(program).expect("it starts");
    let until = "until [ \"$(readlink /proc/$0/exe)\" = \"$1\" ]; do sleep 0.02; done";
    let arguments = ["-c".into(), until.into(), process.pid.to_string().into(), program.path.clone()];
    let output = node.run("bash", arguments).expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    process
}

/// Runs the program under test on `node`.
pub(crate) fn seaworthy(node: &Node, arguments: &[&str]) -> Output {
    node.run(SEAWORTHY, arguments).expect("seaworthy runs")
}

/// Runs the program under test on `node` as another user.
pub(crate) fn seaworthy_as(node: &Node, uid: u32, arguments: &[&str]) -> Output {
    node.command_as(uid, SEAWORTHY).args(arguments).output().expect("seaworthy runs")
}

/// Returns what `seaworthy fix` printed, after making sure that it is of the published schema of its format.
#[track_caller]
pub(crate) fn fix_document(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let document: Value =
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("no document: {e}\n{printed}\n{told}"));
    let schema = match document["format"].as_str() {
        Some("seaworthy.dev/fix/v2") => "fix-v2.json",
        Some("seaworthy.dev/fix-outcome/v2") => "fix-outcome-v2.json",
        Some("seaworthy.dev/fix-status/v2") => "fix-status-v2.json",
        _ => panic!("a document of no known format: {document:#}"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(schema);
    let schema: Value = serde_json::from_slice(&fs::read(path).expect("a schema")).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> =
        validator.iter_errors(&document).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    document
}

/// What an audit said.
pub(crate) struct Audit {
    /// The JSON report.
    pub(crate) report: Value,
    /// The exit code.
    pub(crate) code: i32,
}

impl Audit {
    /// Audits `node` with all rules.
    pub(crate) fn of(node: &Node) -> Self {
        Self::with(node, &[])
    }

    /// Audits `node` with more arguments.
    pub(crate) fn with(node: &Node, arguments: &[&str]) -> Self {
        let all = [&["audit", "--format", "json"], arguments].concat();
        Self::read(&seaworthy(node, &all))
    }

    /// Reads what an audit printed.
    pub(crate) fn read(output: &Output) -> Self {
        let told = String::from_utf8_lossy(&output.stderr);
        let report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no report: {e}\n{told}"));
        assert!(!told.contains("panicked"), "{told}");
        Self { report, code: output.status.code().expect("an exit code") }
    }

    /// Returns the findings of `rule` about etcd or its proxies: nodes of the lab have no other component.
    pub(crate) fn findings(&self, rule: &str) -> Vec<&Value> {
        let all = self.report["findings"].as_array().expect("findings");
        let is_of_etcd = |f: &&Value| f["component"].as_str().is_some_and(|name| name.starts_with("etcd"));
        all.iter().filter(|f| f["rule"] == rule).filter(is_of_etcd).collect()
    }

    /// Returns the only finding of `rule`.
    pub(crate) fn finding(&self, rule: &str) -> &Value {
        match self.findings(rule).as_slice() {
            [one] => one,
            other => panic!("{} findings of {rule}: {other:#?}", other.len()),
        }
    }

    /// Asserts that the only finding of `rule` has `status` and says all of `words`.
    #[track_caller]
    pub(crate) fn expect(&self, rule: &str, status: &str, words: &[&str]) {
        check(self.finding(rule), status, words);
    }
}

/// Asserts that `finding` has `status` and says all of `words`.
#[track_caller]
pub(crate) fn check(finding: &Value, status: &str, words: &[&str]) {
    let said = said(finding);
    assert_eq!(finding["status"], status, "{} of {}: {said}", finding["rule"], finding["resource"]);
    for word in words {
        assert!(said.contains(word), "{} does not say {word:?}:\n{said}", finding["rule"]);
    }
}

/// Returns everything that a finding tells its reader.
pub(crate) fn said(finding: &Value) -> String {
    let reasons = finding["reasons"].as_array().into_iter().flatten().map(|r| &r["message"]);
    let notes = finding["notes"].as_array().into_iter().flatten();
    let texts = reasons.chain([&finding["summary"]]).chain(notes).filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join("\n")
}
