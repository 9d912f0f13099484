//! Bad input on a real node: whatever processes, files and listeners there are, an audit ends in time, with an exit code
//! that is documented, says what it could not see and why, and judges the rest.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use seaworthy_lab::{Declared, MANIFEST, MemberSpec, Node, PKI_DIR, Program, Source, Supervisor, UNIT};

use crate::common::{
    Audit, SEAWORTHY, check, cluster, fix_document, newest, said, seaworthy, seaworthy_as, spawn,
};

const PEER_TLS: &str = "etcd-peer-tls";
const CONFIG: &str = "/etc/etcd/etcd.conf.yaml";
/// Each level says the one before nine times.
const BOMB: &str = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
    g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\nkind: Pod\nspec: {containers: [{command: *h}]}\n";

/// Things that may be where a file should be: a name, and the shell commands that put it at `$1`.
const THINGS: [(&str, &str); 9] = [
    ("directory", "mkdir \"$1\""),
    ("FIFO", "mkfifo \"$1\""),
    ("endless device", "mknod \"$1\" c 1 5 || mkfifo \"$1\""),
    ("link loop", "ln -s \"$1.loop\" \"$1\"; ln -sf \"$1\" \"$1.loop\""),
    ("link out of the root", "ln -s ../../../../../../../../../../../../proc/1/root/outside \"$1\""),
    ("link to a magic link", "ln -s /proc/1/exe \"$1\""),
    ("empty file", ": >\"$1\""),
    ("2 GB", "truncate -s 2G \"$1\""),
    ("garbage", "printf -- '-----BEGIN CERTIFICATE-----\\n\\377\\376\\0{[\"\\n\\t- : *x &y' >\"$1\""),
];

/// How long any audit may take, unoptimised and on a machine that is busy with other tests; what has no bound takes
/// minutes.
const LIMIT: Duration = Duration::from_secs(20);

/// Audits `node` and asserts what holds whatever it finds there.
fn audit(node: &Node) -> Audit {
    let start = Instant::now();
    let output = seaworthy(node, &["audit", "--format", "json"]);
    let took = start.elapsed();
    let audit = Audit::read(&output);
    eprintln!("  {took:?}, exit code {}", audit.code);
    assert!(matches!(audit.code, 0 | 1 | 3), "exit code {}", audit.code);
    assert!(took < LIMIT, "the audit took {took:?}");
    for finding in audit.report["findings"].as_array().expect("findings") {
        assert!(
            finding["status"] != "unknown" || !said(finding).is_empty(),
            "unknown without a cause: {finding}"
        );
    }
    audit
}

/// Replaces the file at `path` with each of the [`THINGS`] that are `wanted` in turn, and then restores it.
fn replace(node: &Node, path: &str, wanted: impl Fn(&str) -> bool, judge: impl Fn(&str, &Audit)) {
    shell(node, "cp -a \"$1\" /tmp/original", path);
    for (name, command) in THINGS.into_iter().filter(|(name, _)| wanted(name)) {
        eprintln!("{path}: {name}");
        shell(node, &format!("rm -rf \"$1\"; {command}"), path);
        judge(name, &audit(node));
    }
    shell(node, "rm -rf \"$1\" \"$1.loop\"; cp -a /tmp/original \"$1\"", path);
}

fn shell(node: &Node, script: &str, argument: &str) {
    let output = node.run("bash", ["-c", script, "shell", argument]).expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Puts a copy of `program` on the node that is taken for what it is called: it has no section headers and is as large as a
/// packed program.
fn disguise(node: &Node, program: &str, path: &str) {
    let mut elf = fs::read(program).expect("a program");
    elf[40..48].fill(0);
    elf[58..64].fill(0);
    elf.resize(elf.len().max(256 << 10), 0);
    shell(node, "mkdir -p \"${1%/*}\"", path);
    node.write(path, elf, 0o755).unwrap();
}

fn bytes(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[test]
fn decoys_are_not_taken_for_etcd() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let only = |audit: &Audit| {
        let resources: Vec<_> =
            audit.findings("etcd-client-tls").iter().map(|f| f["resource"].clone()).collect();
        assert_eq!(resources.len(), 1, "{resources:?}");
        assert!(resources[0].as_str().unwrap().starts_with("etcd m1 (pid "), "{resources:?}");
        assert_eq!(audit.finding("etcd-proxy-tls")["status"], "not-applicable");
    };
    let before = audit(node);
    only(&before);

    for program in
        ["etcdctl", "etcdutl", "vi", "grep", "etcd-backup", "etcd-manager", "kube-apiserver", "other"]
    {
        node.sleeper(&format!("/srv/{program}")).unwrap();
    }
    node.write("/srv/etcd", "#!/bin/sh\n# etcd --peer-cert-file=/x\nsleep 600\n", 0o755).unwrap();
    let decoys = [
        Program::new("/srv/etcdctl").args([
            "member",
            "list",
            "--cert=/x",
            "--endpoints=http://10.77.0.1:2380",
        ]),
        Program::new("/srv/etcdutl").args(["snapshot", "status", "etcd"]),
        Program::new("/srv/vi").argv0("vi").args(["etcd.yaml"]),
        Program::new("/srv/grep").argv0("grep").args(["etcd"]),
        Program::new("/srv/grep").argv0("grep").args(["-E", "etcd --peer-cert-file=/x --peer-key-file=/y"]),
        Program::new("/srv/etcd-backup").args(["--peer-cert-file=/x"]),
        Program::new("/srv/etcd-manager").args(["--etcd", "etcd"]),
        Program::new("/srv/kube-apiserver").args(["--etcd-servers=http://10.77.0.1:2379", "etcd"]),
        Program::new("/srv/other")
            .argv0("etcd")
            .args(["--peer-cert-file=/x", "--listen-peer-urls=http://0.0.0.0:2380"]),
        Program::new("/srv/other").argv0("/usr/bin/etcd").args([
            "grpc-proxy",
            "start",
            "--listen-addr=0.0.0.0:2379",
        ]),
        Program::new("/srv/other").argv0(bytes(b"\xff\xfe\netcd\n/etcd")).args([
            bytes(b"etcd\n--peer-cert-file=/x\n--peer-key-file=\xff\xfe"),
            bytes(b"root 1 0 0 etcd --peer-cert-file=/x --peer-key-file=/y"),
            bytes(b"\x1b[2J\x1b]0;etcd\x07"),
            bytes(b""),
        ]),
        Program::new("/srv/etcd").args(["--peer-cert-file=/x"]),
        Program::new("bash").argv0("etcd").args(["-c", "sleep 600", "etcd", "--name=m2"]),
    ];
    let running: Vec<_> = decoys.iter().map(|decoy| node.spawn(decoy).unwrap()).collect();
    let after = audit(node);
    only(&after);
    // An executable that tells nothing of itself is what it is called, so to rules about API servers that one is no decoy.
    let others = |finding: &&serde_json::Value| finding["component"] != "kube-apiserver";
    for finding in before.report["findings"].as_array().unwrap().iter().filter(others) {
        let same = |f: &&serde_json::Value| {
            ["rule", "component", "resource"].iter().all(|field| f[field] == finding[field])
        };
        let now = after.report["findings"].as_array().unwrap().iter().find(same);
        let now = now.unwrap_or_else(|| panic!("{finding} is not found any more"));
        assert_eq!(now["status"], finding["status"], "{}: {}", finding["rule"], said(now));
    }
    drop(running);
}

#[test]
fn arguments_of_etcd_may_be_any_bytes() {
    let cluster = cluster(&newest(), 3, |m| {
        m.issue("pe\ner --name=x", &m.authority.clone(), m.leaf());
        m.set("peer-cert-file", format!("{PKI_DIR}/pe\ner --name=x.crt"));
        m.set("peer-key-file", format!("{PKI_DIR}/pe\ner --name=x.key"));
        m.args = vec![bytes(b"--initial-cluster-token=a\n\xff\xfe\x1b[2J")];
    });
    let node = cluster.node(0);
    let audit_of_newline = audit(node);
    audit_of_newline.expect(PEER_TLS, "pass", &[]);
    let text = seaworthy(node, &["audit", "--verbose", "--color", "always", "--rule", PEER_TLS]);
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("pe\\ner --name=x.crt"), "{text}");
    assert!(!text.contains("\x1b[2J"), "{text}");
}

#[test]
fn a_file_whose_name_is_not_utf8_is_unknown_not_missing() {
    let cluster = cluster(&newest(), 1, |m| {
        m.autostart = false;
        m.unset("peer-cert-file");
        let mut flag = format!("--peer-cert-file={PKI_DIR}/").into_bytes();
        flag.extend(b"p\xff.crt");
        m.args = vec![bytes(&flag)];
    });
    let node = cluster.node(0);
    shell(node, "cp \"$1/peer.crt\" \"$1/p\"$'\\xff'.crt", PKI_DIR);
    node.start().unwrap();
    node.wait_ready().unwrap();
    audit(node).expect("etcd-peer-certificate", "unknown", &["not UTF-8"]);
}

#[test]
fn processes_that_exit_meanwhile_do_not_disturb_the_rest() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    disguise(node, "/bin/sleep", "/srv/storm/etcd");
    let storm = "while :; do for i in 1 2 3 4 5 6; do /srv/storm/etcd 0.0$i & done; wait; done";
    let storm = node.spawn(&Program::new("bash").args(["-c", storm])).unwrap();
    let mut seen = 0;
    for _ in 0..15 {
        let audit = audit(node);
        for finding in audit.findings("etcd-client-tls") {
            if finding["resource"].as_str().unwrap().starts_with("etcd m1 (") {
                check(finding, "pass", &[]);
                seen += 1;
            }
        }
        let strange = |f: &&serde_json::Value| {
            let resource = f["resource"].as_str().unwrap();
            f["status"] == "unknown" && resource.starts_with("etcd m1 (")
        };
        let strange: Vec<_> =
            audit.report["findings"].as_array().unwrap().iter().filter(strange).map(said).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
    assert_eq!(seen, 15, "the real one is judged every time");
    drop(storm);
}

#[test]
fn anything_may_be_where_key_material_should_be() {
    let cluster = cluster(&newest(), 3, |m| {
        m.file(format!("{PKI_DIR}/peer-ca.crt"), m.authority.pem(), 0o644);
        m.set("peer-trusted-ca-file", format!("{PKI_DIR}/peer-ca.crt"));
    });
    let node = cluster.node(0);
    audit(node).expect(PEER_TLS, "pass", &[]);
    for file in ["peer.crt", "peer.key", "peer-ca.crt"] {
        let path = format!("{PKI_DIR}/{file}");
        // etcd itself reads certificate and key with every handshake, without a limit.
        let harmless =
            |name: &str| file == "peer-ca.crt" || !matches!(name, "FIFO" | "endless device" | "2 GB");
        replace(node, &path, harmless, |name, audit| {
            assert_blamed(audit, &path, name);
            audit.expect("etcd-client-tls", "pass", &[]);
            audit.expect("certificate-soundness", "pass", &[]);
            audit.expect("etcd-data-directory-mode", "pass", &[]);
            audit.expect("manifest-mode", "pass", &[]);
        });
        audit(node).expect(PEER_TLS, "pass", &[]);
    }
}

#[test]
fn anything_may_be_where_key_material_of_a_silent_process_should_be() {
    let cluster = cluster(&newest(), 1, |m| m.autostart = false);
    let node = cluster.node(0);
    node.sleeper("/srv/etcd").unwrap();
    let _etcd = node
        .spawn(&Program::new("/srv/etcd").args([
            "--name=m1".to_owned(),
            "--data-dir=/var/lib/etcd".to_owned(),
            "--initial-cluster=m1=https://10.77.0.1:2380,m2=https://10.77.0.2:2380".to_owned(),
            "--initial-advertise-peer-urls=https://10.77.0.1:2380".to_owned(),
            "--listen-peer-urls=https://10.77.0.1:2380".to_owned(),
            format!("--peer-cert-file={PKI_DIR}/peer.crt"),
            format!("--peer-key-file={PKI_DIR}/peer.key"),
            format!("--peer-trusted-ca-file={PKI_DIR}/ca.crt"),
        ]))
        .unwrap();
    audit(node).expect("etcd-peer-certificate", "pass", &[]);
    for file in ["peer.crt", "peer.key", "ca.crt"] {
        let path = format!("{PKI_DIR}/{file}");
        replace(node, &path, |_| true, |name, audit| assert_blamed(audit, &path, name));
    }
    audit(node).expect("etcd-peer-certificate", "pass", &[]);
}

/// Asserts that `audit` blames the file at `path`, where `what` is.
fn assert_blamed(audit: &Audit, path: &str, what: &str) {
    for rule in [PEER_TLS, "etcd-peer-certificate"] {
        let finding = audit.finding(rule);
        let status = finding["status"].as_str().unwrap();
        assert!(matches!(status, "fail" | "unknown"), "{rule} with {what} at {path}: {status}");
        assert!(said(finding).contains(path), "{rule} with {what} does not name {path}: {}", said(finding));
    }
}

#[test]
fn anything_may_be_where_the_manifest_should_be() {
    let cluster = cluster(&newest(), 3, |m| m.file(UNIT, DEBIANS_UNIT, 0o644));
    let node = cluster.node(0);
    let judge = |name: &str, audit: &Audit| {
        audit.expect(PEER_TLS, "pass", &[]);
        audit.expect("etcd-client-tls", "pass", &[]);
        // kubelet skips what is no file; what is one, and cannot be read, may be the manifest of this etcd.
        let skipped = matches!(name, "directory" | "FIFO" | "endless device" | "empty file");
        let status = if skipped { "not-applicable" } else { "unknown" };
        for rule in ["manifest-mode", "manifest-owner"] {
            let finding = audit.finding(rule);
            assert_eq!(finding["status"], status, "{rule} with {name}: {}", said(finding));
        }
        if !skipped {
            audit.expect("manifest-mode", "unknown", &[MANIFEST]);
            let spots = audit.report["blind_spots"].to_string();
            assert!(spots.contains(MANIFEST), "{name}: {spots}");
        }
    };
    replace(node, MANIFEST, |_| true, judge);
    let deep = "[".repeat(100_000);
    for (name, text) in [("YAML bomb", BOMB), ("deeply nested", &deep), ("tab", "kind: Pod\n\tspec: x\n")] {
        eprintln!("{name}");
        node.write(MANIFEST, text, 0o600).unwrap();
        judge(name, &audit(node));
    }
}

/// Returns what `seaworthy fix` printed for peer TLS on `node`.
fn planned(node: &Node) -> (serde_json::Value, i32) {
    let output = seaworthy(node, &["fix", PEER_TLS, "--format", "json"]);
    (fix_document(&output), output.status.code().expect("an exit code"))
}

/// Returns what ties the only etcd of `node` to a declaration, and that declaration's path.
fn attribution(node: &Node) -> (String, String) {
    let output = seaworthy(node, &["snapshot"]);
    let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a snapshot");
    let declared = &snapshot["components"]["etcd"]["value"][0]["declared"];
    let text = |name: &str| declared["value"][0][name].as_str().unwrap_or_default().to_owned();
    (text("attributed_by"), text("path"))
}

/// Debian's package installs a unit that runs etcd with the node's name, and starts it only when it is told to.
const DEBIANS_UNIT: &str = "[Service]\nEnvironment=ETCD_NAME=%H\nEnvironment=ETCD_DATA_DIR=/var/lib/etcd\n\
                            EnvironmentFile=-/etc/default/%p\nType=notify\nExecStart=/opt/etcd/etcd $DAEMON_ARGS\n";

#[test]
fn a_pods_etcd_is_never_taken_for_that_of_an_unused_unit() {
    let cluster = cluster(&newest(), 3, |m| {
        m.plain();
        m.file(format!("{PKI_DIR}/ca.key"), m.authority.key_pem().to_owned(), 0o600);
        m.supervisor = Supervisor::Kubelet;
        m.in_container("/certs");
    });
    let node = cluster.node(0);
    let manifest = node.read(MANIFEST).unwrap();
    assert_eq!(attribution(node), ("pod-uid".to_owned(), MANIFEST.to_owned()));

    // kubelet ends the pod at its next look at a manifest that it cannot parse.
    node.pause_supervisor().unwrap();
    let broken = String::from_utf8(manifest.clone()).unwrap().replacen("  - command:", "\t- command:", 1);
    assert!(broken.contains('\t'), "{broken}");
    for unit in [None, Some(UNIT), Some("/usr/lib/systemd/system/etcd.service")] {
        eprintln!("unit: {unit:?}");
        if let Some(unit) = unit {
            shell(node, "mkdir -p \"${1%/*}\"", unit);
            node.write(unit, DEBIANS_UNIT, 0o644).unwrap();
        }
        node.write(MANIFEST, &broken, 0o600).unwrap();
        let unread = audit(node);
        for rule in ["drift", "declaration-starts", "manifest-mode", "manifest-owner"] {
            unread.expect(rule, "unknown", &[MANIFEST]);
        }
        unread.expect(PEER_TLS, "fail", &["is plaintext"]);
        let (document, code) = planned(node);
        assert_eq!((code, &document["plan"]), (3, &serde_json::Value::Null), "{document:#}");
        let refusals = document["refusals"].to_string();
        assert!(refusals.contains(MANIFEST), "it says what is in the way: {refusals}");
        assert!(!document.to_string().contains("etcd.service"), "{document:#}");

        // The manifest as it was declares the process, however much the unit is like it.
        node.write(MANIFEST, &manifest, 0o600).unwrap();
        assert_eq!(attribution(node), ("pod-uid".to_owned(), MANIFEST.to_owned()));
        audit(node).expect("drift", "pass", &[]);
        let (document, _) = planned(node);
        assert!(document["plan"]["steps"].to_string().contains(MANIFEST), "{document:#}");
        assert!(!document.to_string().contains("etcd.service"), "{document:#}");
        if let Some(unit) = unit {
            node.remove(unit).unwrap();
        }
    }

    // Once it is gone, nothing declares what still runs; nor does the unit.
    node.write(UNIT, DEBIANS_UNIT, 0o644).unwrap();
    node.remove(MANIFEST).unwrap();
    assert_eq!(attribution(node), (String::new(), String::new()));
    audit(node).expect("manifest-mode", "not-applicable", &[]);
    let (document, code) = planned(node);
    assert_eq!((code, &document["plan"]), (3, &serde_json::Value::Null), "{document:#}");
    assert!(!document.to_string().contains("etcd.service"), "{document:#}");
}

#[test]
fn a_units_etcd_is_never_taken_for_that_of_an_unused_manifest() {
    let cluster = cluster(&newest(), 1, |m| {
        m.supervisor = Supervisor::Units;
        m.source = Source::Environment;
        let manifest = "kind: Pod\nmetadata: {name: etcd, namespace: kube-system}\nspec:\n  containers:\n  \
                        - command: [etcd, --name=m1, --data-dir=/var/lib/etcd]\n";
        m.file(MANIFEST, manifest, 0o600);
    });
    let node = cluster.node(0);
    assert_eq!(attribution(node), ("control-group".to_owned(), UNIT.to_owned()));
    node.write(MANIFEST, "kind: Pod\n\tspec: x\n", 0o600).unwrap();
    assert_eq!(attribution(node), ("control-group".to_owned(), UNIT.to_owned()));
    let known = audit(node);
    known.expect("drift", "pass", &[]);
    known.expect("manifest-mode", "not-applicable", &[]);
}

#[test]
fn a_process_that_nothing_is_known_of_is_attributed_by_likeness_and_says_so() {
    let cluster = cluster(&newest(), 1, |m| m.autostart = false);
    let node = cluster.node(0);
    node.sleeper("/srv/etcd").unwrap();
    let etcd = |group: Option<String>| {
        let program = Program::new("/srv/etcd").args(["--name=m1", "--data-dir=/var/lib/etcd"]);
        spawn(node, &Program { group, ..program })
    };
    let likeness = ("likeness".to_owned(), MANIFEST.to_owned());
    let nothing = (String::new(), String::new());
    let alone = etcd(None);
    assert_eq!(attribution(node), likeness);
    let drift = audit(node);
    assert!(said(drift.finding("drift")).contains("nothing proves that it was started from"));
    drop(alone);
    node.write(UNIT, DEBIANS_UNIT, 0o644).unwrap();
    let id = "0123456789abcdef".repeat(4);
    for (group, want) in [
        ("/user.slice/user-0.slice/session-1.scope".to_owned(), ("likeness".to_owned(), UNIT.to_owned())),
        (format!("/system.slice/docker-{id}.scope"), likeness),
        ("/system.slice/other.service".to_owned(), nothing.clone()),
        ("/system.slice/etcd.service".to_owned(), ("control-group".to_owned(), UNIT.to_owned())),
        (format!("/kubepods/burstable/pod0a1b2c3d-0000-4000-8000-0123456789ab/{id}"), nothing.clone()),
        (
            format!("/kubepods/burstable/pod0a1b2c3d000040008000000123456789/{id}"),
            ("sole-manifest".to_owned(), MANIFEST.to_owned()),
        ),
        ("/user.slice/user-7.slice/user@7.service/app.slice/etcd.service".to_owned(), nothing.clone()),
    ] {
        let running = etcd(Some(group.clone()));
        assert_eq!(attribution(node), want, "{group}");
        drop(running);
    }
    // Where systemd runs the node, what it starts is in a group of its own.
    shell(node, "mkdir -p \"$1\"", "/run/systemd/system");
    let _running = etcd(Some("/user.slice/user-0.slice/session-1.scope".to_owned()));
    assert_eq!(attribution(node), ("likeness".to_owned(), MANIFEST.to_owned()));
}

#[test]
fn a_specifier_that_only_the_service_manager_knows_is_named() {
    let cluster = cluster(&newest(), 1, |m| m.supervisor = Supervisor::Units);
    let node = cluster.node(0);
    // The name in the file is not yet, or no more, that of the kernel.
    node.write("/etc/hostname", "renamed\n", 0o644).unwrap();
    node.edit(UNIT, |unit| unit.replace("--name=m1", "--name=%H")).unwrap();
    audit(node).expect("drift", "pass", &[]);
    // As in a container that has a name of its own.
    let script = format!("hostname other && exec {SEAWORTHY} snapshot");
    let output = node.run("unshare", ["--uts", "sh", "-c", &script]).unwrap();
    let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a snapshot");
    assert_eq!(snapshot["node"]["name"], "m1");
    assert_eq!(
        snapshot["components"]["etcd"]["value"][0]["declared"]["value"][0]["settings"]["value"]["name"]["value"],
        "m1"
    );
    node.edit(UNIT, |unit| unit.replace("--name=%H", "--name=%s")).unwrap();
    audit(node).expect("drift", "unknown", &[UNIT, "%s is not known"]);
}

#[test]
fn a_process_has_one_identity_also_where_the_boot_has_none() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let identity = || {
        let output = seaworthy(node, &["snapshot"]);
        let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a snapshot");
        snapshot["components"]["etcd"]["value"][0]["process"]["value"]["identity"].clone()
    };
    let known = identity();
    assert_eq!(known, identity());
    assert_eq!(known["boot_id"].as_str().map(str::len), Some(36), "{known}");
    shell(node, "mount -t tmpfs none \"$1\"", "/proc/sys");
    let mut unknown = identity();
    assert_eq!(unknown["boot_id"], "");
    assert_eq!(unknown, identity());
    unknown["boot_id"] = known["boot_id"].clone();
    assert_eq!(unknown, known);
    node.restart().unwrap();
    assert_ne!(identity()["start_ticks"], known["start_ticks"]);
}

#[test]
fn a_ca_file_with_the_content_that_is_loaded_is_no_drift_whatever_its_times() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let ca = format!("{PKI_DIR}/ca.crt");
    for change in ["touch", "touch -d 'last hour'", "touch -d 'next hour'", "chmod 600"] {
        shell(node, &format!("{change} \"$1\""), &ca);
        audit(node).expect("drift", "pass", &[]);
    }
    // Nobody was asked what is loaded.
    let offline = Audit::with(node, &["--no-wire"]);
    offline.expect("drift", "unknown", &[&ca, "is unknown since the file was changed or replaced"]);
}

#[test]
fn a_configuration_file_that_was_replaced_is_not_known_to_be_in_effect() {
    let cluster = cluster(&newest(), 1, |m| m.source = Source::Yaml);
    let node = cluster.node(0);
    audit(node).expect("drift", "pass", &[]);
    shell(node, "cp \"$1\" \"$1.old\" && touch -d 'last year' \"$1.old\" && mv \"$1.old\" \"$1\"", CONFIG);
    let words = [CONFIG, "is unknown since the file was changed or replaced"];
    audit(node).expect("drift", "unknown", &words);
}

#[test]
fn anything_may_be_where_the_configuration_file_should_be() {
    let cluster = cluster(&newest(), 3, |m| {
        m.source = Source::Yaml;
        m.file(UNIT, DEBIANS_UNIT, 0o644);
    });
    let node = cluster.node(0);
    audit(node).expect(PEER_TLS, "pass", &[]);
    let judge = |name: &str, audit: &Audit| {
        if name == "empty file" {
            // Settings all unset: what would be in effect after a restart, while the members are another matter.
            audit.expect("etcd-client-tls", "fail", &[]);
            audit.expect("drift", "fail", &[CONFIG]);
            audit.expect(PEER_TLS, "unknown", &["members are not known"]);
        } else {
            audit.expect(PEER_TLS, "unknown", &[CONFIG]);
            audit.expect("etcd-client-tls", "unknown", &[CONFIG]);
        }
        // The file that was fine when etcd started would stop it now, which is a fact, whatever runs.
        if matches!(name, "not UTF-8" | "NUL" | "another type") {
            audit.expect("declaration-starts", "fail", &[CONFIG, "would exit at once"]);
            audit.expect("manifest-mode", "pass", &[]);
        }
        audit.expect("etcd-proxy-tls", "not-applicable", &[]);
    };
    replace(node, CONFIG, |_| true, judge);
    let deep = format!("name: {}", "[".repeat(100_000));
    let large = format!("name: {}\n", "x".repeat(100 << 20));
    for (name, text) in [
        ("YAML bomb", BOMB.as_bytes()),
        ("deeply nested", deep.as_bytes()),
        ("not UTF-8", b"name: \xff\n"),
        ("NUL", b"name: \0\n"),
        ("another type", b"listen-peer-urls: {a: 1}\n"),
        ("100 MB", large.as_bytes()),
    ] {
        eprintln!("{name}");
        node.write(CONFIG, text, 0o600).unwrap();
        judge(name, &audit(node));
    }
}

#[test]
fn a_listener_that_never_answers_costs_seconds_not_minutes() {
    let cluster = cluster(&newest(), 3, |_| {});
    let node = cluster.node(0);
    let signal = |name: &str| {
        let pid = node.etcd_pid().expect("a running etcd").to_string();
        shell(node, "kill -s \"${1% *}\" \"${1#* }\"", &format!("{name} {pid}"));
    };
    signal("STOP");
    let start = Instant::now();
    let frozen = audit(node);
    let took = start.elapsed();
    signal("CONT");
    assert!(took < Duration::from_secs(8), "all listeners are asked at once, for 3 s at most: {took:?}");
    let finding = frozen.finding(PEER_TLS);
    // The settings say https, the data directory knows the members; silence on the wire contradicts neither.
    check(finding, "pass", &[]);
    assert!(finding.to_string().contains("in time"), "the silence is evidence: {finding:#}");
    frozen.expect("tls-strength", "unknown", &["in time"]);
    frozen.expect("etcd-peer-certificate", "pass", &[]);
    audit(node).expect("tls-strength", "fail", &["CBC"]);
}

/// Whoever may start a process on a node may call it etcd.
#[test]
fn an_etcd_that_is_none_costs_seconds_not_minutes() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    node.sleeper("/srv/etcd").unwrap();
    disguise(node, "/usr/bin/perl", "/srv/perl/etcd");
    let many = |count: u32, text: fn(u32) -> String| (0..count).map(text).collect::<Vec<_>>();
    let keys = many(24_000, |i| format!("peer-cert-fil-{i:020}: 1")).join("\n");
    node.write("/srv/keys.yaml", keys, 0o644).unwrap();
    let urls = many(60_000, |i| format!("http://h{i}:1")).join(",");
    node.write("/srv/urls.yaml", format!("name: urls\nlisten-peer-urls: \"{urls}\"\n"), 0o644).unwrap();
    let perl = |script: &str| {
        let listen = "use Socket; sub l { my $s; socket($s, PF_INET, SOCK_STREAM, 0); \
                      bind($s, sockaddr_in($_[0], INADDR_LOOPBACK)) && listen($s, 99) or die $!; return $s }";
        Program::new("/srv/perl/etcd").args(["-e".to_owned(), format!("{listen} {script}")])
    };
    let fakes = [
        ("unknown keys", Program::new("/srv/etcd").args(["--config-file=/srv/keys.yaml"])),
        ("URLs", Program::new("/srv/etcd").args(["--config-file=/srv/urls.yaml"])),
        ("repeated flags", Program::new("/srv/etcd").args(many(40_000, |i| format!("--name=fake{i}")))),
        ("unknown flags", Program::new("/srv/etcd").args(many(40_000, |i| format!("--flag{i}=x")))),
        ("listeners", perl("push @s, l(20000 + $_) for 0..299; sleep 600")),
        ("silence", perl("$s = l(20400); sleep 600")),
        (
            "endless bytes",
            perl(
                "$s = l(20401); while (accept($c, $s)) { fork or do { 1 while syswrite($c, 'x' x 65536); exit } }",
            ),
        ),
    ];
    for (name, fake) in fakes {
        eprintln!("{name}");
        let fake = node.spawn(&fake).unwrap();
        // It becomes what it is named as once it runs.
        let is_seen = |audit: &Audit| audit.findings("etcd-client-tls").len() > 1;
        let mut audits = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(300));
            audit(node)
        });
        let audit = audits.find(is_seen).unwrap_or_else(|| panic!("{name} is taken for an etcd"));
        let real = |f: &&&serde_json::Value| f["resource"].as_str().unwrap().starts_with("etcd m1 (");
        let findings = audit.findings("etcd-client-tls");
        check(findings.iter().find(real).expect("the real one"), "pass", &[]);
        assert!(audit.report.to_string().len() < 4 << 20, "{name}: {} bytes", audit.report.to_string().len());
        drop(fake);
    }
}

#[test]
fn nothing_outside_of_the_root_is_read() {
    let cluster = cluster(&newest(), 1, |m| {
        m.autostart = false;
        m.declared = Declared::Nothing;
    });
    let node = cluster.node(0);
    let manifest = |name: &str, config: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: {name}}}\nspec:\n  volumes: [{{name: v, hostPath: {{path: /etc/etcd}}}}]\n  \
             containers:\n  - command: [etcd, --name={name}{config}, --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt]\n    \
             volumeMounts: [{{name: v, mountPath: /etc/etcd}}]\n"
        )
    };
    let outside = [
        ("manifest.yaml", manifest("CANARY-manifest", "")),
        ("hostname", "CANARY-hostname\n".to_owned()),
        ("passwd", "CANARY-user:x:0:0::/:/bin/sh\n".to_owned()),
        ("config.yaml", "name: CANARY-config\n".to_owned()),
    ];
    for (name, text) in &outside {
        node.write(&format!("/outside/{name}"), text, 0o644).unwrap();
    }
    let links = [
        ("/etc/hostname", "/outside/hostname"),
        ("/etc/passwd", "../../../../../../outside/passwd"),
        ("/etc/kubernetes/manifests/absolute.yaml", "/outside/manifest.yaml"),
        ("/etc/kubernetes/manifests/relative.yaml", "../../../../../../../../outside/manifest.yaml"),
        ("/etc/kubernetes/manifests/magic.yaml", "/proc/self/root/outside/manifest.yaml"),
        ("/etc/kubernetes/manifests/proc.yaml", "../../proc/1/root/outside/manifest.yaml"),
        ("/etc/kubernetes/manifests/nested.yaml", "step/manifest.yaml"),
        ("/etc/kubernetes/manifests/step", "../../../../../../outside"),
        ("/etc/kubernetes/pki", "/outside"),
        ("/etc/etcd", "/outside"),
    ];
    let root = "/srv/host";
    for (path, target) in links {
        shell(
            node,
            &format!("mkdir -p \"$(dirname \"$1\")\"; ln -s {target} \"$1\""),
            &format!("{root}{path}"),
        );
    }
    node.write(&format!("{root}/etc/kubernetes/manifests/etcd.yaml"), manifest("inside", ""), 0o644).unwrap();
    let snapshot = || {
        let output = seaworthy(node, &["snapshot", "--root", root]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let with_config = manifest("configured", ", --config-file=/etc/etcd/config.yaml");
    node.write(&format!("{root}/etc/kubernetes/manifests/configured.yaml"), with_config, 0o644).unwrap();
    let taken = snapshot();
    assert!(taken.contains("inside"), "what is inside is read");
    assert!(!taken.contains("CANARY"), "{taken}");

    // The same links lead to the same paths inside, as they would after chroot(2).
    for (name, text) in outside {
        node.write(&format!("{root}/outside/{name}"), text.replace("CANARY", "WITHIN"), 0o644).unwrap();
    }
    let taken = snapshot();
    assert!(!taken.contains("CANARY"), "{taken}");
    for name in ["WITHIN-hostname", "WITHIN-manifest", "WITHIN-config"] {
        assert!(taken.contains(name), "{name} is not in {taken}");
    }
    let audit = Audit::with(node, &["--root", root]);
    assert!(matches!(audit.code, 1 | 3), "{}", audit.code);
}

/// Writes the snapshots that `tests/cli.rs`, `tests/fuzz.rs` and `tests/golden.rs` start from, after a change of the evidence
/// model: `cargo test -p seaworthy --test lab write_the_snapshots -- --ignored`
#[test]
#[ignore = "writes tests/cli/node.json and tests/golden/snapshots"]
fn write_the_snapshots() {
    let write = |output: Output, path: &str| {
        assert!(output.status.success());
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).join(path);
        fs::write(path, output.stdout).expect("written");
    };
    let plaintext = cluster(&newest(), 3, |m: &mut MemberSpec| m.peers("http"));
    write(seaworthy(plaintext.node(0), &["snapshot"]), "cli/node.json");
    write(seaworthy_as(plaintext.node(0), 1000, &["snapshot"]), "golden/snapshots/blind.json");
    drop(plaintext);
    let encrypted = cluster(&newest(), 3, |_| {});
    write(seaworthy(encrypted.node(0), &["snapshot"]), "golden/snapshots/encrypted.json");
    drop(encrypted);
    let unit = cluster(&newest(), 1, |m: &mut MemberSpec| {
        m.plain();
        (m.supervisor, m.source) = (Supervisor::Units, Source::Yaml);
    });
    write(seaworthy(unit.node(0), &["snapshot"]), "golden/snapshots/unit.json");
    drop(unit);
    let none = cluster(&newest(), 1, |m: &mut MemberSpec| {
        (m.autostart, m.declared) = (false, Declared::Nothing);
    });
    write(seaworthy(none.node(0), &["snapshot"]), "golden/snapshots/none.json");
}
