//! Each rule is made to fail on a real node. What the report advises is done to the letter, and the rule passes then and no other gets
//! worse; the same with the fix, which is then rolled back. `cargo xtask cluster test` runs this.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use seaworthy_kubeadm::{Node, Progress, RELEASE};
use serde_json::Value;

/// How long kubelet may take to restart a pod, and the pod to be there.
const RESTART: Duration = Duration::from_secs(120);

/// The status and the advice of each finding, by rule and component.
type Report = BTreeMap<(String, String), (String, String)>;

/// What scripts begin with: `$m` is the manifest of the component, `$k` its kubeconfig, and `edit` replaces the manifest at once by what
/// sed makes of it, by way of a name that kubelet does not look at.
const PRELUDE: &str = r#"
m=/etc/kubernetes/manifests/$0.yaml k=/etc/kubernetes/${0#kube-}.conf
edit() {
    sed "$@" "$m" >"${m%/*}/.new"
    chmod --reference="$m" "${m%/*}/.new"
    mv "${m%/*}/.new" "$m"
}
"#;

/// A rule, and what makes it fail on a node of kubeadm: a script, or nothing where it fails on such a node by itself.
const STAGED: &[(&str, &str)] = &[
    ("manifest-mode", "chmod 644 $m"),
    ("manifest-owner", "chown 1:1 $m"),
    ("kubeconfig-mode", "chmod 644 $k"),
    ("kubeconfig-owner", "chown 1:1 $k"),
    ("loopback-only", "edit s/--bind-address=127.0.0.1/--bind-address=0.0.0.0/"),
    ("profiling", ""),
    ("tls-strength", ""),
];

/// The same for rules of kube-controller-manager alone.
const OF_CONTROLLER_MANAGER: &[(&str, &str)] = &[
    (
        "kube-controller-manager-pod-garbage-collection",
        r"edit 's/^    - --kubeconfig=.*/&\n    - --terminated-pod-gc-threshold=0/'",
    ),
    (
        "kube-controller-manager-service-accounts",
        "edit s/--use-service-account-credentials=true/--use-service-account-credentials=false/",
    ),
    (
        "kube-controller-manager-kubelet-serving",
        r"edit 's/^    - --kubeconfig=.*/&\n    - --feature-gates=RotateKubeletServerCertificate=false/'",
    ),
];

/// The same for rules of the node itself.
const OF_NODE: &[(&str, &str)] = &[
    ("cni-mode", ""),
    ("cni-owner", "chown 1:1 /etc/cni/net.d/*"),
    ("pki-owner", "chown 1:1 /etc/kubernetes/pki/ca.key"),
    ("pki-owner", "chmod 777 /etc/kubernetes/pki"),
    ("pki-certificate-mode", "chmod 666 /etc/kubernetes/pki/apiserver.crt"),
    ("pki-key-mode", "chmod 644 /etc/kubernetes/pki/ca.key"),
    ("admin-kubeconfig-mode", "chmod 644 /etc/kubernetes/admin.conf"),
    ("admin-kubeconfig-owner", "chown 1:1 /etc/kubernetes/super-admin.conf"),
    ("runtime-socket", "chmod 666 /run/containerd/containerd.sock"),
    ("system-masters-kubeconfig", ""),
];

#[test]
fn advice_for_the_node_is_right_where_it_is_followed() {
    let node = Node::up(RELEASE, &Progress::new()).expect("a node");
    let name = node.run("hostname", [""; 0]).expect("its name").trim().to_owned();
    let status = |report: &Report, rule: &str| report[&(rule.to_owned(), name.clone())].0.clone();
    for (rule, staging) in OF_NODE {
        shell(&node, "node", staging);
        let before = settled(&node, &name, |report| status(report, rule) == "fail");
        let (_, advice) = &before[&((*rule).to_owned(), name.clone())];
        let is_command = |text: &&str| ["chmod", "chown", "rm"].iter().any(|word| text.starts_with(word));
        let commands: Vec<&str> = advice.split('`').skip(1).step_by(2).filter(is_command).collect();
        assert!(!commands.is_empty(), "{rule}: {advice}");
        // The file is wanted again by the next run.
        let kept = "cp -p /etc/kubernetes/super-admin.conf /run/kept.conf";
        shell(&node, "node", &format!("{kept}; {}", commands.join("; ")));
        let after = settled(&node, &name, |report| status(report, rule) == "pass");
        let worse = worse(&before, &after);
        assert!(worse.is_empty(), "{rule}: {advice}: {worse:?}");
        shell(&node, "node", "cp -p /run/kept.conf /etc/kubernetes/super-admin.conf");
    }
    shell(&node, "node", "chmod 644 /etc/cni/net.d/*");
}

#[test]
fn advice_is_right_where_it_is_followed() {
    let node = Node::up(RELEASE, &Progress::new()).expect("a node");
    for component in ["kube-scheduler", "kube-controller-manager"] {
        let status = |report: &Report, rule: &str| report[&(rule.to_owned(), component.to_owned())].0.clone();
        shell(&node, component, "cp $m /run/kept.yaml");
        for (rule, staging) in staged(component) {
            shell(&node, component, staging);
            let before = settled(&node, component, |report| status(report, rule) == "fail");
            let (_, advice) = &before[&((*rule).to_owned(), component.to_owned())];
            follow(&node, component, rule, advice);
            let after = settled(&node, component, |report| status(report, rule) == "pass");
            let worse = worse(&before, &after);
            assert!(worse.is_empty(), "{rule} of {component}: {advice}: {worse:?}");
        }
        // As kubeadm has it, for what comes next.
        shell(&node, component, "edit -n -e '1{r /run/kept.yaml' -e '}'");
        settled(&node, component, |report| status(report, "profiling") == "fail");
    }
}

#[test]
fn a_fix_makes_its_rule_pass_and_its_rollback_leaves_no_trace() {
    let node = Node::up(RELEASE, &Progress::new()).expect("a node");
    for component in ["kube-scheduler", "kube-controller-manager"] {
        let status = |report: &Report, rule: &str| report[&(rule.to_owned(), component.to_owned())].0.clone();
        shell(&node, component, "cp $m /run/kept.yaml");
        let mut fixed = Vec::new();
        for (rule, staging) in staged(component) {
            shell(&node, component, staging);
            let before = settled(&node, component, |report| status(report, rule) == "fail");
            let files = state(&node, component);
            let (code, said) = fix(&node, &[rule, "--component", component]);
            if code == 2 && said.contains("there is no fix") {
                // As kubeadm has it, and nothing else was staged.
                shell(&node, component, "edit -n -e '1{r /run/kept.yaml' -e '}'");
                continue;
            }
            assert_eq!(code, 1, "the plan of {rule}: {said}");
            assert_eq!(state(&node, component), files, "a plan changes nothing");
            let (code, said) = fix(&node, &[rule, "--component", component, "--apply"]);
            assert_eq!(code, 0, "{rule} of {component}: {said}");
            let after = settled(&node, component, |report| status(report, rule) == "pass");
            let worse = worse(&before, &after);
            assert!(worse.is_empty(), "{rule} of {component}: {worse:?}");
            node.run("kubectl", ["get", "--raw", "/readyz"]).expect("the API answers");
            let (code, said) = fix(&node, &[rule, "--component", component, "--apply"]);
            assert_eq!(code, 0, "nothing is left to do for {rule}: {said}");
            let (code, said) = fix(&node, &["--rollback", "--apply"]);
            assert_eq!(code, 0, "the rollback of {rule}: {said}");
            assert_eq!(state(&node, component), files, "{rule} leaves no trace");
            settled(&node, component, |report| status(report, rule) == "fail");
            fixed.push(*rule);
            shell(
                &node,
                component,
                "chmod 600 $m $k; chown 0:0 $m $k; edit -n -e '1{r /run/kept.yaml' -e '}'",
            );
            settled(&node, component, |report| status(report, "profiling") == "fail");
        }
        assert!(fixed.len() >= 6, "{fixed:?}");
    }
}

/// Returns the rules that are about a component, each with what makes it fail.
fn staged(component: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let more: &[_] = if component == "kube-controller-manager" { OF_CONTROLLER_MANAGER } else { &[] };
    STAGED.iter().chain(more)
}

/// Returns what was good before and is not afterwards, by rule and component.
fn worse<'r>(before: &'r Report, after: &Report) -> Vec<&'r (String, String)> {
    let good = |status: &str| matches!(status, "pass" | "not-applicable");
    let was_good = before.iter().filter(|(_, (status, _))| good(status)).map(|(key, _)| key);
    was_good.filter(|key| !good(&after[*key].0)).collect()
}

/// Runs `seaworthy fix`, and returns its exit code and what it says.
fn fix(node: &Node, arguments: &[&str]) -> (i32, String) {
    let output = node.command("seaworthy").arg("fix").args(arguments).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code().unwrap_or(-1), said)
}

/// Returns the content, the owner and the mode of the files of a component that a fix may change.
fn state(node: &Node, component: &str) -> String {
    let script = format!("{PRELUDE}sha256sum $m $k; stat -c '%n %a %u:%g' $m $k");
    node.run("sh", ["-ec", &script, component]).unwrap()
}

/// Does what `advice` says: commands are run, flags are set in the manifest that it names.
fn follow(node: &Node, component: &str, rule: &str, advice: &str) {
    let quoted: Vec<&str> = advice.split('`').skip(1).step_by(2).collect();
    if let Some(command) = quoted.iter().find(|text| text.starts_with("chmod") || text.starts_with("chown")) {
        return shell(node, component, command);
    }
    // Where several ways are offered, the last one has its value.
    let flag = quoted.iter().rev().find(|text| text.contains('=') || text.starts_with("--"));
    let flag = flag.unwrap_or_else(|| panic!("{rule}: {advice} names no flag"));
    let says_where = advice.contains(&format!("/etc/kubernetes/manifests/{component}.yaml"));
    assert!(says_where || rule == "tls-strength", "{rule}: {advice} does not say where");
    if advice.starts_with("Take ") {
        return shell(node, component, &format!("edit '/^    - --feature-gates={}$/d'", quoted[0]));
    }
    let example = || advice.split("such as ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let (name, value) = flag.split_once('=').unwrap_or_else(|| (flag, example()));
    let add = format!("edit -e '/^    - {name}=/d' -e 's/^    - --kubeconfig=.*/&\\n    - {name}={value}/'");
    shell(node, component, &format!("{add}; grep -q -e '- {name}={value}$' $m"));
}

fn shell(node: &Node, component: &str, script: &str) {
    node.run("sh", ["-ec", &format!("{PRELUDE}{script}"), component]).unwrap();
}

/// Waits until the component runs and all is known of it, and the report is as `is_so` says.
fn settled(node: &Node, component: &str, is_so: impl Fn(&Report) -> bool) -> Report {
    let start = Instant::now();
    loop {
        let report = audit(node);
        let mut own = report.iter().filter(|((_, of), _)| of == component).peekable();
        if own.peek().is_some() && own.all(|(_, (status, _))| status != "unknown") && is_so(&report) {
            return report;
        }
        assert!(start.elapsed() < RESTART, "{component} is not as it should be: {report:#?}");
        thread::sleep(Duration::from_millis(500));
    }
}

fn audit(node: &Node) -> Report {
    let output = node.command("seaworthy").args(["audit", "--format", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let of = |finding: &Value| {
        let component = text(finding, "resource").split(' ').next().unwrap_or_default().to_owned();
        ((text(finding, "rule"), component), (text(finding, "status"), text(finding, "remedy")))
    };
    report["findings"].as_array().unwrap().iter().map(of).collect()
}
