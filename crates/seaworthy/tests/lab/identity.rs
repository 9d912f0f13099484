//! What a process is: told by what its executable was made of and by what it has open, not by what it is called.

use std::time::{Duration, Instant};

use seaworthy_lab::{
    Cluster, Declared, EtcdBinary, Leaf, MemberSpec, Node, PKI_DIR, Process, Program, Source, Usage, embedder,
};
use serde_json::Value;

use crate::common::{Audit, check, cluster, newest, seaworthy, seaworthy_as, spawn, spec, start, versions};

const CLIENT_TLS: &str = "etcd-client-tls";
const CONFIG: &str = "/etc/etcd/etcd.conf.yaml";

/// Runs the program whose file is the first argument from memory, called like the second, with the others.
const FROM_MEMORY: &str = "import os, sys\nfd = os.memfd_create('x')\nos.write(fd, open(sys.argv[1], 'rb').read())\n\
    os.execv(f'/proc/self/fd/{fd}', sys.argv[2:])";

/// Returns a node of one member whose etcd is not started, with its settings in [`CONFIG`].
fn idle(binary: &EtcdBinary, mut change: impl FnMut(&mut MemberSpec) + 'static) -> Cluster {
    cluster(binary, 1, move |m| {
        m.autostart = false;
        m.source = Source::Yaml;
        change(m);
    })
}

fn run(node: &Node, script: &str) {
    let output = node.run("bash", ["-c", script]).expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the node listens on `port`.
fn wait_listening(node: &Node, port: u16) {
    let end = Instant::now() + Duration::from_secs(30);
    while !node.listens(port) {
        assert!(Instant::now() < end, "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the resource of the only finding of the rule about the client port, after making sure that it failed because the
/// port is plaintext.
#[track_caller]
fn fails(audit: &Audit) -> String {
    check(audit.finding(CLIENT_TLS), "fail", &[]);
    assert_eq!(audit.code, 1);
    audit.finding(CLIENT_TLS)["resource"].as_str().expect("a resource").to_owned()
}

fn snapshot(node: &Node, arguments: &[&str]) -> Value {
    let output = seaworthy(node, &[&["snapshot"], arguments].concat());
    serde_json::from_slice(&output.stdout).expect("a snapshot")
}

#[test]
fn etcd_by_any_other_name_is_etcd() {
    for binary in versions() {
        let cluster = idle(&binary, MemberSpec::plain);
        let node = cluster.node(0);
        run(node, "cp /opt/etcd/etcd /opt/mydb; cp /opt/etcd/etcd /opt/gone");
        let config = format!("--config-file={CONFIG}");
        let renamed = || Program::new("/opt/mydb").args([config.clone()]);
        let memory = ["-c", FROM_MEMORY, "/opt/etcd/etcd", "writer", &config].map(str::to_owned);
        let cases = [
            ("renamed", renamed()),
            ("another argv[0]", renamed().argv0("postgres: writer")),
            ("deleted", Program::new("/opt/gone").args([config.clone()])),
            ("in memory", Program::new("python3").args(memory)),
        ];
        for (name, program) in cases {
            let process = node.spawn(&program).expect("it starts");
            wait_listening(node, 2379);
            if name == "deleted" {
                node.remove("/opt/gone").unwrap();
            }
            let resource = fails(&Audit::of(node));
            assert!(resource.starts_with("etcd m1 (pid "), "{} {name}: {resource}", binary.version);
            drop(process);
        }
    }
}

#[test]
fn a_release_that_no_listener_tells_is_told_by_its_executable() {
    for binary in versions() {
        let cluster = cluster(&binary, 1, MemberSpec::plain);
        let node = cluster.node(0);
        let version = snapshot(node, &["--no-wire"])["components"]["etcd"]["value"][0]["version"].clone();
        let origin = version["origin"]["kind"].as_str().unwrap_or_default();
        match binary.minor() {
            // Debian's does not say which release it is.
            (3, 4) => assert_ne!(origin, "build", "{version}"),
            // That of 3.5 was built from a source tree, whose modules are numbered.
            (3, 5) => assert_eq!((version["value"].as_str(), origin), (Some("3.5"), "build"), "{version}"),
            _ => assert_eq!((version["value"].as_str(), origin), (Some(binary.version.as_str()), "build")),
        }
        let told = snapshot(node, &[])["components"]["etcd"]["value"][0]["version"].clone();
        assert_eq!(told["value"], binary.version.as_str(), "{told}");
        assert_eq!(told["origin"]["kind"], "wire", "{told}");
    }
}

#[test]
fn what_is_only_called_etcd_is_not() {
    let cluster = idle(&newest(), |m| {
        m.plain();
        m.declared = Declared::Nothing;
    });
    let node = cluster.node(0);
    run(node, "mkdir -p /srv/fake; cp /bin/sleep /srv/fake/etcd");
    let _fake = spawn(node, &Program::new("/srv/fake/etcd").args(["600"]));
    let audit = Audit::of(node);
    audit.expect(CLIENT_TLS, "not-applicable", &["no etcd runs on this node"]);
    assert_eq!(audit.code, 0);
}

/// Returns a node on which a program has an etcd inside, or may have one.
fn embedding(change: impl FnMut(&mut MemberSpec) + 'static) -> Cluster {
    let program = embedder().unwrap_or_else(|error| panic!("{error}"));
    let binary = newest();
    let mut change = change;
    let spec = spec(&binary, 1, move |m| {
        m.autostart = false;
        m.source = Source::Yaml;
        m.declared = Declared::Nothing;
        change(m);
    });
    let folder = program.parent().unwrap().to_owned();
    let cluster = start(&binary, spec.share(folder, "/embedders"));
    run(cluster.node(0), "mkdir /opt/fake; cp /embedders/embedder-* /opt/apps; cp /opt/apps /opt/fake/etcd");
    cluster
}

fn embed(node: &Node) -> Process {
    let process = node.spawn(&Program::new("/opt/apps").args([CONFIG])).expect("it starts");
    wait_listening(node, 2379);
    process
}

#[test]
fn an_etcd_inside_another_program_is_judged_by_what_its_sockets_say() {
    let cluster = embedding(MemberSpec::plain);
    let node = cluster.node(0);
    let _process = embed(node);
    let audit = Audit::of(node);
    let resource = fails(&audit);
    assert!(resource.starts_with("etcd m1 in apps (pid "), "{resource}");
    // Without the wire nothing is known, and nothing passes.
    let quiet = Audit::with(node, &["--no-wire"]);
    check(quiet.finding(CLIENT_TLS), "unknown", &["runs inside apps"]);
    assert_eq!(quiet.code, 3);
    // What is not known cannot be changed.
    let fix = seaworthy(node, &["fix", CLIENT_TLS]);
    let told = format!("{}{}", String::from_utf8_lossy(&fix.stdout), String::from_utf8_lossy(&fix.stderr));
    assert!(!fix.status.success() && told.contains("runs inside apps"), "{:?}: {told}", fix.status);
    let version = &snapshot(node, &["--no-wire"])["components"]["etcd"]["value"][0]["version"];
    assert_eq!((version["value"].as_str(), &version["origin"]["kind"]), (Some("3.6.13"), &"build".into()));
}

#[test]
fn an_etcd_inside_another_program_that_answers_members_only_is_known_by_its_ports() {
    let cluster = embedding(|_| {});
    let node = cluster.node(0);
    let _process = embed(node);
    // A member says where its clients find it once it has joined, and its database has that a moment later.
    let end = Instant::now() + Duration::from_secs(30);
    let published = || {
        let members = &snapshot(node, &["--no-wire"])["components"]["etcd"]["value"][0]["etcd"]["cluster"]["value"]
            ["members"];
        members[0]["client_urls"].as_array().is_some_and(|urls| !urls.is_empty())
    };
    while !published() {
        assert!(Instant::now() < end, "the database does not have the member's client URLs");
    }
    let audit = Audit::of(node);
    check(audit.finding(CLIENT_TLS), "unknown", &["runs inside apps"]);
    check(audit.finding("tls-strength"), "fail", &["https://10.77.0.1:2379", "https://10.77.0.1:2380"]);
    check(audit.finding("etcd-data-directory-mode"), "pass", &["/var/lib/etcd"]);
    let etcd = &snapshot(node, &[])["components"]["etcd"]["value"][0];
    let addresses = |side: &str| -> Vec<String> {
        let all = etcd["listeners"]["value"].as_array().unwrap();
        all.iter()
            .filter(|l| l["purpose"] == side)
            .map(|l| l["address"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(addresses("peer"), ["10.77.0.1:2380"]);
    assert_eq!(addresses("client"), ["10.77.0.1:2379", "127.0.0.1:2379"]);
}

#[test]
fn a_program_that_has_etcd_among_its_modules_and_runs_none_is_none() {
    let cluster = embedding(MemberSpec::plain);
    let node = cluster.node(0);
    for program in ["/opt/fake/etcd", "/opt/apps"] {
        let _process = spawn(node, &Program::new(program));
        let audit = Audit::of(node);
        audit.expect(CLIENT_TLS, "not-applicable", &["no etcd runs on this node"]);
        assert_eq!(audit.code, 0);
        // Who may not see what others run cannot say so.
        let blind = Audit::read(&seaworthy_as(node, 997, &["audit", "--format", "json"]));
        let why = if program.ends_with("etcd") { "permission denied" } else { "run as root" };
        blind.expect(CLIENT_TLS, "unknown", &[why]);
        assert_eq!(blind.code, 3);
    }
}

#[test]
fn the_certificate_of_a_neighbour_is_a_members() {
    let cluster = idle(&newest(), |m| {
        m.set("initial-cluster", "m1=https://10.77.0.1:2380,m2=https://10.77.0.1:3380");
        for name in ["m2-peer", "m2-server"] {
            m.issue(name, &m.authority.clone(), m.leaf());
        }
        // What it dials with names nobody.
        m.issue("m2-client", &m.authority.clone(), Leaf::new("m2").usage(Usage::Client));
    });
    let node = cluster.node(0);
    // That of a client is an impostor's.
    node.remove(&format!("{PKI_DIR}/healthcheck-client.crt")).unwrap();
    let config = String::from_utf8(node.read(CONFIG).unwrap()).unwrap();
    let settings = config
        .replace("name: \"m1\"", "name: \"m2\"")
        .replace("/var/lib/etcd", "/var/lib/etcd-m2")
        .replace("urls: \"https://10.77.0.1:2380", "urls: \"https://10.77.0.1:3380")
        .replace(":2379", ":3379")
        .replace(":2381", ":3381")
        .replace("/peer.", "/m2-peer.")
        .replace(
            "peer-transport-security:\n",
            &format!(
                "peer-transport-security:\n  client-cert-file: {PKI_DIR}/m2-client.crt\n  client-key-file: \
                 {PKI_DIR}/m2-client.key\n"
            ),
        )
        .replace("/server.", "/m2-server.");
    node.write("/etc/etcd/second.yaml", settings, 0o600).unwrap();
    let etcd =
        |config: &str| node.spawn(&Program::new("/opt/etcd/etcd").args([format!("--config-file={config}")]));
    let (_first, second) = (etcd(CONFIG).unwrap(), etcd("/etc/etcd/second.yaml").unwrap());
    wait_listening(node, 3379);
    let audit = Audit::of(node);
    assert_eq!(audit.findings("etcd-peer-ca").len(), 2);
    for finding in audit.findings("etcd-peer-ca") {
        check(finding, "pass", &[]);
    }
    // Once its member is gone, it is of nobody.
    drop(second);
    let audit = Audit::of(node);
    audit.expect("etcd-peer-ca", "fail", &["m2-client.crt"]);
}
