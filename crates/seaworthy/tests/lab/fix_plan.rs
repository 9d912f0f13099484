//! Plans for peer TLS on real clusters: nothing is changed, and the plan is the one that the cluster needs.

use std::process::Output;

use seaworthy_lab::{Cluster, MANIFEST, MemberSpec, Node, Source};
use serde_json::Value;

use crate::common::{Audit, cluster, fix_document, newest, seaworthy};

const PEER_TLS: &str = "etcd-peer-tls";
const PKI: &str = "/etc/kubernetes/pki/etcd";

struct Planned {
    document: Value,
    code: i32,
}

impl Planned {
    /// Plans on `node`, with the authority whose key the test puts there.
    fn on(cluster: &Cluster, index: usize) -> Self {
        let node = cluster.node(index);
        let before = node.read(MANIFEST).expect("a manifest");
        let planned = Self::read(&fix(node, &["--format", "json"]));
        assert_eq!(node.read(MANIFEST).expect("a manifest"), before, "a plan changes nothing");
        planned
    }

    fn read(output: &Output) -> Self {
        Self { document: fix_document(output), code: output.status.code().expect("an exit code") }
    }

    fn kinds(&self) -> Vec<&str> {
        let steps =
            self.document["plan"]["steps"].as_array().unwrap_or_else(|| panic!("{:#}", self.document));
        steps.iter().map(|s| s["action"]["kind"].as_str().unwrap()).collect()
    }

    /// As [`Self::kinds`], but for the leader's first step.
    fn kinds_of_any(&self) -> Vec<&str> {
        self.kinds().into_iter().filter(|kind| *kind != "move-leader").collect()
    }

    fn diff(&self) -> &str {
        let steps = self.document["plan"]["steps"].as_array().unwrap();
        steps.iter().find_map(|s| s["diff"].as_str()).expect("a diff")
    }

    fn members(&self, list: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.document["plan"][list]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w["member"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[track_caller]
    fn expect_no_refusal(&self) {
        assert_eq!(self.document["refusals"].as_array().map(Vec::len), Some(0), "{:#}", self.document);
    }
}

fn fix(node: &Node, arguments: &[&str]) -> Output {
    seaworthy(node, &[&["fix", PEER_TLS], arguments].concat())
}

/// Puts the authority's key where kubeadm has it.
fn with_authority(m: &mut MemberSpec) {
    let key = m.authority.key_pem().to_owned();
    m.file(format!("{PKI}/ca.key"), key, 0o600);
}

/// Returns `text` with every added line of the diff put in, and every removed one taken out.
fn patched(text: &str, diff: &str) -> Vec<String> {
    let changes = |sign| diff.lines().skip(2).filter_map(move |l| l.strip_prefix(sign)).map(str::to_owned);
    let removed: Vec<String> = changes('-').collect();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &removed {
        let at =
            lines.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line:?} is not in the manifest"));
        lines.remove(at);
    }
    lines.extend(changes('+'));
    lines
}

#[test]
fn a_plaintext_cluster_loads_certificates_first_and_then_encrypts() {
    let cluster = cluster(&newest(), 3, |m| {
        m.plain();
        with_authority(m);
    });
    Audit::of(cluster.node(0)).expect(PEER_TLS, "fail", &["is plaintext"]);
    let planned = Planned::on(&cluster, 0);
    planned.expect_no_refusal();
    assert_eq!((planned.code, planned.kinds_of_any()), (1, vec!["issue", "edit", "restart"]));
    assert_eq!(planned.document["plan"]["stage"], "load");
    assert_eq!(planned.members("then_waits_for"), ["m2", "m3"]);
    let manifest = String::from_utf8(cluster.node(0).read(MANIFEST).unwrap()).unwrap();
    let after = patched(&manifest, planned.diff());
    for flag in ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth"] {
        assert!(after.iter().any(|l| l.contains(&format!("--{flag}="))), "{flag} is not in {after:#?}");
    }
    assert!(after.iter().any(|l| l.contains("--listen-peer-urls=http://10.77.0.1:2380")), "{after:#?}");

    // For a person: the verdict first, the steps, and that nothing is carried out.
    let text = String::from_utf8(fix(cluster.node(0), &[]).stdout).unwrap();
    for words in
        ["on this node, 1 restart; then it waits for", "+    - --peer-cert-file", "Nothing was changed"]
    {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    eprintln!("{text}");

    // Every member loads the certificate that the lab made for it.
    for node in cluster.nodes() {
        node.reconfigure(|m| {
            for (name, value) in [
                ("cert-file", format!("{PKI}/peer.crt")),
                ("key-file", format!("{PKI}/peer.key")),
                ("trusted-ca-file", format!("{PKI}/ca.crt")),
                ("client-cert-auth", "true".to_owned()),
            ] {
                m.set(format!("peer-{name}"), value);
            }
        })
        .unwrap();
        node.restart().unwrap();
        node.wait_ready().unwrap();
    }
    let leader = cluster.leader().unwrap();
    for index in 0..3 {
        let planned = Planned::on(&cluster, index);
        planned.expect_no_refusal();
        let steps = ["update", "edit", "restart"].map(|s| if s == "update" { "update-member" } else { s });
        let hand_over = (index == leader).then_some("move-leader");
        assert_eq!(planned.kinds(), hand_over.into_iter().chain(steps).collect::<Vec<_>>());
        // Nothing on this node tells whether the others have.
        assert_eq!((planned.code, planned.members("waits_for").len()), (3, 2));
        let address = cluster.node(index).read(MANIFEST).unwrap();
        let after = patched(&String::from_utf8(address).unwrap(), planned.diff());
        let listens = format!("--listen-peer-urls=https://10.77.0.{}:2380", index + 1);
        assert!(after.iter().any(|l| l.contains(&listens)), "{after:#?}");
    }
}

#[test]
fn nothing_is_to_be_done_where_the_audit_passes() {
    for count in [3, 1] {
        let cluster = cluster(&newest(), count, with_authority);
        let status = if count == 1 { "not-applicable" } else { "pass" };
        Audit::of(cluster.node(0)).expect(PEER_TLS, status, &[]);
        let planned = Planned::on(&cluster, 0);
        assert_eq!((planned.code, planned.kinds()), (0, vec![]));
    }
}

#[test]
fn what_is_in_the_way_is_said() {
    let cluster = cluster(&newest(), 3, |m| {
        m.plain();
        with_authority(m);
        m.file(
            "/etc/kubernetes/manifests/etcd.yaml.bak",
            "kind: Pod\nmetadata: {name: etcd, namespace: kube-system}\n",
            0o600,
        );
    });
    // A follower, so that no election makes those that are left look unhealthy as well.
    let gone = if cluster.leader().unwrap() == 2 { 1 } else { 2 };
    cluster.node(gone).kill().unwrap();
    let planned = Planned::on(&cluster, 0);
    let said = planned.document["refusals"].to_string();
    assert_eq!(planned.code, 3, "{said}");
    let unhealthy = format!("{} is not healthy", cluster.node(gone).name);
    for words in [&unhealthy, "2 of 3 members are healthy", "etcd.yaml.bak declares the same pod"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[test]
fn settings_from_a_file_are_planned_there_and_variables_of_a_manifest_are_refused() {
    let configured = cluster(&newest(), 3, |m| {
        m.plain();
        with_authority(m);
        m.source = Source::Yaml;
    });
    let planned = Planned::on(&configured, 0);
    planned.expect_no_refusal();
    assert_eq!((planned.code, planned.kinds_of_any()), (1, vec!["issue", "edit", "restart"]));
    assert!(planned.diff().contains("+peer-transport-security:"), "{}", planned.diff());

    let varied = cluster(&newest(), 3, |m| {
        m.plain();
        with_authority(m);
        m.source = Source::Environment;
    });
    let planned = Planned::on(&varied, 0);
    assert_eq!((planned.code, &planned.document["plan"]), (3, &Value::Null));
    assert!(planned.document["refusals"].to_string().contains("itself sets the variables of etcd"));
}

#[test]
fn wrong_usage_says_what_to_do() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let refused = |arguments: &[&str], words: &str| {
        let output = seaworthy(node, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(words), "{told}");
    };
    for (arguments, words) in [
        (&["fix", "drift"][..], "there is no fix for"),
        (&["fix", PEER_TLS, "--ca-cert", "/no/ca.crt", "--ca-key", "/no/ca.key"], "/no/ca.crt"),
        (&["fix", PEER_TLS, "--ca-cert", "/etc/kubernetes/pki/etcd/ca.crt"], "--ca-key"),
        (&["fix", PEER_TLS, "--ca-cert", "ca.crt"], "not absolute"),
        (&["fix", PEER_TLS, "--cert", "/no/x.crt"], "--key"),
        (&["fix", PEER_TLS, "--cert", "/no/x.crt", "--key", "/no/x.key"], "/no/x.crt"),
        (&["fix", PEER_TLS, "--sign", "/no/x.csr"], "authority"),
        (&["fix"], "which rule"),
        (&["fix", "--apply"], "which rule"),
        (&["fix", PEER_TLS, "--apply", "--status"], "--status"),
        (&["fix", "--resume"], "no fix was begun on this node"),
        (&["fix", "--rollback"], "no fix was begun on this node"),
    ] {
        refused(arguments, words);
    }
    assert!(
        node.run("mkdir", ["-m", "700", "/var/lib/seaworthy"]).unwrap().status.success(),
        "it left nothing"
    );
    refused(&["fix", "--resume"], "no fix that was begun");
    refused(&["fix", "--rollback"], "no fix to roll back");
    refused(&["fix", "--rollback", "20260101T000000Z-000000"], "no fix 20260101T000000Z");
}
