//! The fixes beside that of peer TLS, on real clusters: the rule fails before, passes after, and nothing is lost meanwhile.

use std::thread;

use seaworthy_lab::{Authority, Cluster, MemberSpec, Node, Ready, Supervisor, Usage, Validity};
use serde_json::Value;

use crate::common::{Audit, cluster, newest, seaworthy, spec, start, versions};
use crate::fix_apply::{PEER_TLS, PKI, expect, report, roll_back, roll_back_everywhere, with_authority};

/// Applies the fix of a rule on a node, and returns what it said.
#[track_caller]
fn fixed(node: &Node, rule: &str, arguments: &[&str], code: i32) -> Value {
    let wait: &[&str] = if arguments.contains(&"--wait") { &[] } else { &["--wait", "120"] };
    let all = [&["fix", rule, "--apply", "-f", "json", "--settle", "60"], wait, arguments].concat();
    expect(&seaworthy(node, &all), code)
}

/// Applies the fix of a rule on all nodes at once, under writers, and asserts that nothing was lost.
fn fixed_everywhere(what: &str, cluster: &Cluster, rule: &'static str, arguments: &[&str]) -> Vec<Value> {
    let writer = cluster.writer().unwrap();
    let ended = thread::scope(|scope| {
        let run = |node| scope.spawn(move || fixed(node, rule, arguments, 0));
        let runs: Vec<_> = cluster.nodes().iter().map(run).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let told = writer.finish().unwrap();
    report(what, &told);
    assert!(told.clean() && told.lost == 0 && told.longest_gap_ms < 3000.0, "{told:#?}");
    ended
}

fn pods(change: impl Fn(&mut MemberSpec) + 'static) -> Cluster {
    let binary = newest();
    let whole = spec(&binary, 3, move |m| {
        m.supervisor = Supervisor::Kubelet;
        with_authority(m);
        change(m);
    });
    start(&binary, whole)
}

fn sh(node: &Node, script: &str) -> String {
    let output = node.run("sh", ["-c", script]).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn owners_and_modes_are_set_and_given_back() {
    let cluster = cluster(&newest(), 1, |m| m.supervisor = Supervisor::Kubelet);
    let node = cluster.node(0);
    let pid = node.etcd_pid();
    let manifest = "/etc/kubernetes/manifests/etcd.yaml";
    for (rule, script, look, loose, tight) in [
        ("manifest-mode", format!("chmod 644 {manifest}"), format!("stat -c %a {manifest}"), "644", "600"),
        (
            "manifest-owner",
            format!("chown 1000:1000 {manifest}"),
            format!("stat -c %u:%g {manifest}"),
            "1000:1000",
            "0:0",
        ),
        (
            "etcd-data-directory-mode",
            "chmod 755 /var/lib/etcd".to_owned(),
            "stat -c %a /var/lib/etcd".to_owned(),
            "755",
            "700",
        ),
        (
            "etcd-pki-key-mode",
            format!("chmod 644 {PKI}/peer.key"),
            format!("stat -c %a {PKI}/peer.key"),
            "644",
            "600",
        ),
        (
            "etcd-pki-owner",
            format!("chown 1000:1000 {PKI}/peer.crt"),
            format!("stat -c %u:%g {PKI}/peer.crt"),
            "1000:1000",
            "0:0",
        ),
    ] {
        sh(node, &script);
        Audit::of(node).expect(rule, "fail", &[]);
        let document = fixed(node, rule, &[], 0);
        Audit::of(node).expect(rule, "pass", &[]);
        assert_eq!(sh(node, &look), tight, "{rule}");
        let id = document["fixes"][0].as_str().unwrap();
        expect(&roll_back(node, id), 0);
        assert_eq!(sh(node, &look), loose, "{rule}");
        fixed(node, rule, &[], 0);
    }
    assert_eq!(node.etcd_pid(), pid, "nothing of it restarts etcd");
}

#[test]
fn a_certificate_that_expires_is_renewed_without_a_restart() {
    for binary in versions() {
        let cluster = cluster(&binary, 3, |m| {
            with_authority(m);
            if m.index == 0 {
                let authority = m.authority.clone();
                m.issue("peer", &authority, m.leaf().validity(Validity::Days(10)));
            }
        });
        let node = cluster.node(0);
        Audit::of(node).expect("certificate-expiry", "fail", &["peer.crt"]);
        let pid = node.etcd_pid();
        let writer = cluster.writer().unwrap();
        fixed(node, "certificate-expiry", &[], 0);
        let told = writer.finish().unwrap();
        assert!(told.clean() && told.lost == 0, "{told:#?}");
        Audit::of(node).expect("certificate-expiry", "pass", &[]);
        Audit::of(node).expect(PEER_TLS, "pass", &[]);
        assert_eq!(node.etcd_pid(), pid);
    }
}

#[test]
fn a_member_that_half_the_cluster_cannot_dial_gets_a_certificate_that_works() {
    let cluster = cluster(&newest(), 3, |m| {
        with_authority(m);
        if m.index == 0 {
            let authority = m.authority.clone();
            m.issue("peer", &authority, m.leaf().usage(Usage::Client));
        }
    });
    let node = cluster.node(0);
    Audit::of(node).expect("etcd-peer-certificate", "fail", &[]);
    fixed(node, "etcd-peer-certificate", &[], 0);
    Audit::of(node).expect("etcd-peer-certificate", "pass", &[]);
}

#[test]
fn self_made_certificates_are_exchanged_for_those_of_an_authority() {
    let cluster = pods(|m| {
        m.no_peer_tls();
        m.set("peer-auto-tls", "true");
    });
    Audit::of(cluster.node(0)).expect("etcd-peer-auto-tls", "fail", &[]);
    fixed_everywhere("auto-TLS to an authority", &cluster, "etcd-peer-auto-tls", &[]);
    for node in cluster.nodes() {
        let audit = Audit::of(node);
        for rule in ["etcd-peer-auto-tls", "etcd-peer-authentication", PEER_TLS] {
            audit.expect(rule, "pass", &[]);
        }
    }
}

#[test]
fn peers_come_to_demand_certificates() {
    let cluster = pods(|m| {
        m.unset("peer-trusted-ca-file");
        m.unset("peer-client-cert-auth");
        m.env.insert("SSL_CERT_FILE".into(), format!("{PKI}/ca.crt").into());
    });
    Audit::of(cluster.node(0)).expect("etcd-peer-authentication", "fail", &[]);
    fixed_everywhere("client authentication of peers", &cluster, "etcd-peer-authentication", &[]);
    for node in cluster.nodes() {
        Audit::of(node).expect("etcd-peer-authentication", "pass", &[]);
    }
}

#[test]
fn the_authority_of_the_peers_is_exchanged_for_one_of_their_own_and_back() {
    let authority = Authority::new("etcd-peer-ca").unwrap();
    let cluster = pods(move |m| {
        m.file(format!("{PKI}/peer-ca.crt"), authority.pem(), 0o644);
        m.file(format!("{PKI}/peer-ca.key"), authority.key_pem(), 0o600);
    });
    Audit::of(cluster.node(0)).expect("etcd-peer-ca", "fail", &[]);
    let [certificate, key] = ["crt", "key"].map(|end| format!("{PKI}/peer-ca.{end}"));
    let arguments = ["--ca-cert", &certificate, "--ca-key", &key];
    let ended = fixed_everywhere("exchange of the authority", &cluster, "etcd-peer-ca", &arguments);
    for node in cluster.nodes() {
        let audit = Audit::of(node);
        audit.expect("etcd-peer-ca", "pass", &[]);
        audit.expect(PEER_TLS, "pass", &[]);
    }
    let writer = cluster.writer().unwrap();
    let ids: Vec<String> =
        ended.iter().map(|document| document["fixes"][0].as_str().unwrap().to_owned()).collect();
    roll_back_everywhere(&cluster, &ids);
    let told = writer.finish().unwrap();
    report("exchange of the authority, back", &told);
    assert!(told.clean() && told.lost == 0, "{told:#?}");
    for node in cluster.nodes() {
        Audit::of(node).expect("etcd-peer-ca", "fail", &[]);
    }
}

#[test]
fn a_supplied_certificate_is_checked_and_then_used() {
    let cluster = pods(|m| {
        m.plain();
        let authority = m.authority.clone();
        m.issue("good", &authority, m.leaf());
        m.issue("bad", &authority, m.leaf().no_sans().san("10.99.0.1"));
    });
    let node = cluster.node(0);
    let [bad, bad_key, good, good_key] =
        ["bad.crt", "bad.key", "good.crt", "good.key"].map(|f| format!("{PKI}/{f}"));
    let ca = format!("{PKI}/ca.crt");
    let document =
        fixed(node, PEER_TLS, &["--cert", &bad, "--key", &bad_key, "--ca-cert", &ca, "--wait", "1"], 3);
    let said = document.to_string();
    assert!(said.contains("bad.crt") && said.contains("10.77.0.1"), "{document:#}");
    fixed_everywhere(
        "supplied certificates",
        &cluster,
        PEER_TLS,
        &["--cert", &good, "--key", &good_key, "--ca-cert", &ca],
    );
    Audit::of(node).expect(PEER_TLS, "pass", &["good.crt"]);
}

#[test]
fn a_certificate_is_asked_for_where_the_key_of_the_authority_is_not() {
    let cluster = pods(|m| {
        m.plain();
        if m.index > 0 {
            m.files.remove(&format!("{PKI}/ca.key"));
        }
    });
    let asks = cluster.nodes().get(1..).unwrap();
    for node in asks {
        let document = fixed(node, PEER_TLS, &["--request"], 3);
        assert!(document.to_string().contains("--sign"), "{document:#}");
        let request = node.read(&format!("{PKI}/seaworthy-peer.csr")).unwrap();
        assert_eq!(sh(node, &format!("stat -c %a {PKI}/seaworthy-peer.key")), "600");
        cluster.node(0).write("/tmp/request.csr", &request, 0o644).unwrap();
        let signed = seaworthy(cluster.node(0), &["fix", PEER_TLS, "--sign", "/tmp/request.csr"]);
        assert_eq!(signed.status.code(), Some(0), "{}", String::from_utf8_lossy(&signed.stderr));
        node.write(&format!("{PKI}/seaworthy-peer.crt"), &signed.stdout, 0o644).unwrap();
    }
    // A request by nobody in the membership is not signed.
    let forged = String::from_utf8(asks[0].read(&format!("{PKI}/seaworthy-peer.csr")).unwrap()).unwrap();
    cluster.node(0).write("/tmp/forged.csr", forged.replace('A', "B"), 0o644).unwrap();
    let refused = seaworthy(cluster.node(0), &["fix", PEER_TLS, "--sign", "/tmp/forged.csr"]);
    assert_eq!(refused.status.code(), Some(3));
    thread::scope(|scope| {
        scope.spawn(|| fixed(cluster.node(0), PEER_TLS, &[], 0));
        for node in asks {
            scope.spawn(|| fixed(node, PEER_TLS, &["--request"], 0));
        }
    });
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "pass", &[]);
    }
}

#[test]
fn clients_come_to_use_tls_once_the_operator_has_given_word() {
    let cluster = pods(|m| {
        m.clients("http");
        m.no_client_tls();
    });
    Audit::of(cluster.node(0)).expect("etcd-client-tls", "fail", &[]);
    // Nobody knows here who else is a client.
    thread::scope(|scope| {
        for node in cluster.nodes() {
            scope.spawn(|| {
                let document = fixed(node, "etcd-client-tls", &["--wait", "60"], 3);
                assert!(document.to_string().contains("--clients-are-ready"), "{document:#}");
            });
        }
    });
    assert!(cluster.members().is_ok(), "plaintext is still served");
    thread::scope(|scope| {
        for node in cluster.nodes() {
            scope.spawn(|| fixed(node, "etcd-client-tls", &["--clients-are-ready"], 0));
        }
    });
    for node in cluster.nodes() {
        let audit = Audit::of(node);
        audit.expect("etcd-client-tls", "pass", &[]);
        audit.expect("etcd-client-authentication", "pass", &[]);
    }
}

#[test]
fn clients_come_to_need_a_certificate() {
    let cluster = pods(|m| {
        m.unset("trusted-ca-file");
        m.unset("client-cert-auth");
    });
    Audit::of(cluster.node(0)).expect("etcd-client-authentication", "fail", &[]);
    thread::scope(|scope| {
        for node in cluster.nodes() {
            scope.spawn(|| fixed(node, "etcd-client-authentication", &["--clients-are-ready"], 0));
        }
    });
    for node in cluster.nodes() {
        Audit::of(node).expect("etcd-client-authentication", "pass", &[]);
    }
}

#[test]
fn a_self_made_certificate_for_clients_is_exchanged_for_a_real_one() {
    let cluster = pods(|m| {
        m.no_client_tls();
        m.set("auto-tls", "true");
        // etcdctl cannot verify what it serves with.
        m.ready = Ready::Serving;
    });
    Audit::of(cluster.node(0)).expect("etcd-client-auto-tls", "fail", &[]);
    thread::scope(|scope| {
        for node in cluster.nodes() {
            scope.spawn(|| fixed(node, "etcd-client-auto-tls", &["--clients-are-ready"], 0));
        }
    });
    for node in cluster.nodes() {
        Audit::of(node).expect("etcd-client-auto-tls", "pass", &[]);
    }
}
