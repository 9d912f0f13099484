//! The node is as kubeadm makes one, and Seaworthy judges it. `cargo xtask cluster test` runs this.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use seaworthy_kubeadm::{ADDRESS, NAME, Node, PORTS, Progress, RELEASE};
use serde_json::Value;

/// The node that all tests look at and none changes. It stays up, for the next run takes seconds then.
static NODE: LazyLock<Node> = LazyLock::new(|| Node::up(RELEASE, &Progress::new()).expect("a node"));

/// kubeadm's files, with the modes that it gives them. Everything is root's.
const MODES: &[(&str, &str)] = &[
    ("/etc/kubernetes", "755"),
    ("/etc/kubernetes/admin.conf", "600"),
    ("/etc/kubernetes/controller-manager.conf", "600"),
    ("/etc/kubernetes/kubelet.conf", "600"),
    ("/etc/kubernetes/scheduler.conf", "600"),
    ("/etc/kubernetes/super-admin.conf", "600"),
    ("/etc/kubernetes/manifests", "700"),
    ("/etc/kubernetes/manifests/etcd.yaml", "600"),
    ("/etc/kubernetes/manifests/kube-apiserver.yaml", "600"),
    ("/etc/kubernetes/manifests/kube-controller-manager.yaml", "600"),
    ("/etc/kubernetes/manifests/kube-scheduler.yaml", "600"),
    ("/etc/kubernetes/pki", "755"),
    ("/etc/kubernetes/pki/apiserver-etcd-client.crt", "644"),
    ("/etc/kubernetes/pki/apiserver-etcd-client.key", "600"),
    ("/etc/kubernetes/pki/ca.crt", "644"),
    ("/etc/kubernetes/pki/ca.key", "600"),
    ("/etc/kubernetes/pki/etcd", "755"),
    ("/etc/kubernetes/pki/etcd/ca.crt", "644"),
    ("/etc/kubernetes/pki/etcd/ca.key", "600"),
    ("/etc/kubernetes/pki/etcd/peer.crt", "644"),
    ("/etc/kubernetes/pki/etcd/peer.key", "600"),
    ("/etc/kubernetes/pki/etcd/server.crt", "644"),
    ("/etc/kubernetes/pki/etcd/server.key", "600"),
    ("/etc/kubernetes/pki/sa.key", "600"),
    ("/etc/kubernetes/pki/sa.pub", "600"),
    ("/etc/cni/net.d/10-bridge.conflist", "644"),
    ("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", "644"),
    ("/var/lib/etcd", "700"),
    ("/var/lib/kubelet", "700"),
    ("/var/lib/kubelet/config.yaml", "644"),
    ("/var/lib/kubelet/instance-config.yaml", "644"),
    ("/var/lib/kubelet/kubeadm-flags.env", "644"),
    ("/var/lib/kubelet/pki", "755"),
    ("/var/lib/kubelet/pki/kubelet.crt", "644"),
    ("/var/lib/kubelet/pki/kubelet.key", "600"),
];

#[test]
fn files_have_the_modes_that_kubeadm_gives_them() {
    let paths = MODES.iter().map(|(path, _)| *path);
    let printed = NODE.run("stat", ["-c", "%n %a %U:%G"].into_iter().chain(paths)).unwrap();
    let expected: String = MODES.iter().map(|(path, mode)| format!("{path} {mode} root:root\n")).collect();
    assert_eq!(printed, expected);
}

#[test]
fn processes_run_with_the_arguments_of_their_manifests_and_in_pods() {
    for program in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let manifest = NODE.run("cat", [format!("/etc/kubernetes/manifests/{program}.yaml")]).unwrap();
        let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
        let container = &manifest["spec"]["containers"][0];
        let declared: Vec<&str> =
            container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(container["args"], Value::Null, "{program}");
        assert!(
            declared[1..].iter().all(|word| word.starts_with("--") && word.contains('=')),
            "{declared:?}"
        );
        let (pid, running) = process(program);
        assert_eq!(running, declared, "{program}");
        let group = NODE.run("cat", [format!("/proc/{pid}/cgroup")]).unwrap();
        assert!(group.contains("kubepods"), "{program}: {group}");
    }
}

#[test]
fn kubelet_is_a_unit_with_the_command_line_of_its_package() {
    let (pid, words) = process("kubelet");
    let flags = ["--bootstrap-kubeconfig=", "--kubeconfig=", "--config="];
    assert!(flags.iter().all(|flag| words.iter().any(|word| word.starts_with(flag))), "{words:?}");
    assert_eq!(words.len(), 1 + flags.len(), "{words:?}");
    let group = NODE.run("cat", [format!("/proc/{pid}/cgroup")]).unwrap();
    assert!(group.contains("/system.slice/kubelet.service"), "{group}");
    assert_eq!(NODE.run("systemctl", ["is-active", "kubelet"]).unwrap(), "active\n");
    assert_eq!(NODE.run("cat", ["/proc/1/comm"]).unwrap(), "systemd\n");
}

#[test]
fn every_component_listens() {
    let silent: Vec<_> = PORTS.iter().filter(|(_, port)| !NODE.listens(*port)).collect();
    assert!(silent.is_empty(), "{silent:?}");
    for port in [2380, 2381, 10248, 10256] {
        assert!(NODE.listens(port), "{port}");
    }
}

#[test]
fn configz_is_for_admins_and_that_of_kube_proxy_for_all() {
    for (component, url, anonymous, admin) in [
        ("kube-apiserver", format!("https://{ADDRESS}:6443"), 403, 404),
        ("kube-controller-manager", "https://127.0.0.1:10257".into(), 403, 200),
        ("kube-scheduler", "https://127.0.0.1:10259".into(), 403, 200),
        ("kubelet", format!("https://{ADDRESS}:10250"), 401, 200),
        ("kube-proxy", "http://127.0.0.1:10249".into(), 200, 200),
    ] {
        let url = format!("{url}/configz");
        assert_eq!((get(&url, false).0, get(&url, true).0), (anonymous, admin), "{component}");
    }
    for path in ["healthz", "livez", "readyz", "version"] {
        assert_eq!(get(&format!("https://{ADDRESS}:6443/{path}"), false).0, 200, "{path}");
    }
}

#[test]
fn what_is_not_set_is_in_effect_all_the_same() {
    let file = NODE.run("cat", ["/var/lib/kubelet/config.yaml"]).unwrap();
    assert!(file.contains("streamingConnectionIdleTimeout: 0s"), "{file}");
    let (_, text) = get(&format!("https://{ADDRESS}:10250/configz"), true);
    let effective: Value = serde_json::from_str(&text).unwrap();
    let kubelet = &effective["kubeletconfig"];
    assert_eq!(kubelet["streamingConnectionIdleTimeout"], "4h0m0s");
    assert_eq!(kubelet["eventRecordQPS"], 50);
    assert_eq!(kubelet["makeIPTablesUtilChains"], true);
    assert_eq!(kubelet["port"], 10250);
    assert_eq!(kubelet["cgroupDriver"], "systemd");
}

#[test]
fn programs_say_that_they_are_of_the_release() {
    let release = format!("v{RELEASE}");
    assert_eq!(NODE.run("kubelet", ["--version"]).unwrap(), format!("Kubernetes {release}\n"));
    assert_eq!(NODE.run("kubeadm", ["version", "-o", "short"]).unwrap(), format!("{release}\n"));
    let node = NODE.run("kubectl", ["get", "node", NAME, "-o", "json"]).unwrap();
    let node: Value = serde_json::from_str(&node).unwrap();
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], release);
    let server = NODE.run("kubectl", ["get", "--raw", "/version"]).unwrap();
    let server: Value = serde_json::from_str(&server).unwrap();
    assert_eq!(server["gitVersion"], release);
}

#[test]
fn seaworthy_judges_its_etcd() {
    let output = NODE.command("seaworthy").args(["audit", "--format", "json"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?} {errors}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["node"], NAME);
    // The worst status of a control's findings, as far as they are about something.
    let mut statuses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        for control in finding["controls"].as_array().unwrap() {
            let id = control["id"].as_str().unwrap();
            statuses.entry(id).or_default().push(finding["status"].as_str().unwrap());
        }
    }
    for control in ["1.1.7", "1.1.8", "1.1.11", "2.1", "2.2", "2.3", "2.7"] {
        let all = statuses.get(control).unwrap_or_else(|| panic!("{control} is not judged: {statuses:?}"));
        assert!(all.contains(&"pass"), "{control}: {all:?}");
        assert!(!all.contains(&"fail") && !all.contains(&"unknown"), "{control}: {all:?}");
    }
    let about_etcd = report["findings"].as_array().unwrap().iter().filter(|f| f["status"] == "unknown");
    let unknown: Vec<_> = about_etcd.map(|f| (&f["rule"], &f["reasons"])).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// Returns the only process that runs a program, and its words.
fn process(program: &str) -> (u32, Vec<String>) {
    const LIST: &str = r#"
for p in /proc/[0-9]*; do
    exe=$(readlink "$p/exe") || continue
    if [ "${exe##*/}" = "$0" ]; then
        echo "${p#/proc/}"
        tr '\0' '\n' <"$p/cmdline"
    fi
done"#;
    let printed = NODE.run("sh", ["-c", LIST, program]).unwrap();
    let mut lines = printed.lines();
    let pid = lines.next().unwrap_or_else(|| panic!("{program} does not run")).parse().unwrap();
    (pid, lines.map(str::to_owned).collect())
}

/// Asks a server of the node, with no identity or with that of the administrator, and returns the status and the body.
fn get(url: &str, admin: bool) -> (u16, String) {
    const ASK: &str = r#"
command -v curl >/dev/null || { echo "this test needs curl: apt-get install curl" >&2; exit 1; }
umask 077
cd /run
if [ "$1" = true ]; then
    kubectl config view --raw -o 'jsonpath={.users[0].user.client-certificate-data}' | base64 -d >admin.crt
    kubectl config view --raw -o 'jsonpath={.users[0].user.client-key-data}' | base64 -d >admin.key
    identity="--cert admin.crt --key admin.key"
fi
curl --silent --insecure --max-time 10 --write-out '\n%{http_code}' $identity "$0""#;
    let printed = NODE.run("sh", ["-ec", ASK, url, &admin.to_string()]).unwrap();
    let (body, status) = printed.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}
