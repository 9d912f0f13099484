//! The truth table: arrangements of real etcd clusters, and the verdict each must get on every etcd version.
//!
//! A checker that looks for flags in the process list is wrong about most of them.

use std::time::{Duration, Instant};

use seaworthy_lab::Declared;
use seaworthy_lab::{
    Authority, Cluster, ENVIRONMENT_FILE, EtcdBinary, Leaf, MANIFEST, MemberSpec, Node, PKI_DIR, Program,
    Ready, Source, Usage, Validity,
};
use serde_json::Value;

use crate::common::{Audit, check, cluster, newest, said, seaworthy_as, spec, start, versions};

const PEER_TLS: &str = "etcd-peer-tls";

/// Runs `judge` on every etcd version.
fn on_every_version(judge: impl Fn(&EtcdBinary)) {
    for binary in versions() {
        eprintln!("etcd {}", binary.version);
        judge(&binary);
    }
}

#[test]
fn plaintext_without_any_tls_setting_fails() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, MemberSpec::plain);
        let audit = Audit::of(cluster.node(0));
        audit.expect(
            PEER_TLS,
            "fail",
            &["http://10.77.0.1:2380 is plaintext", "serves requests without TLS"],
        );
        audit.expect("etcd-client-tls", "fail", &["http://"]);
        assert_eq!(audit.code, 1);
    });
}

#[test]
fn certificate_flags_on_http_urls_fail_with_the_wire_as_proof() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| m.peers("http"));
        let audit = Audit::of(cluster.node(0));
        let words = [
            "configured but not in effect",
            "on the wire, 10.77.0.1:2380 serves requests without TLS: 200 OK with the member list of cluster",
        ];
        audit.expect(PEER_TLS, "fail", &words);
    });
}

#[test]
fn tls_passes_from_every_source_and_says_from_which() {
    let sources = [
        (Source::Flags, "argv"),
        (Source::SingleDash, "argv"),
        (Source::Environment, "environment"),
        (Source::Yaml, "file"),
        (Source::Json, "file"),
    ];
    on_every_version(|binary| {
        for (source, kind) in sources.clone() {
            let chosen = source.clone();
            let cluster = cluster(binary, 3, move |m| m.source = chosen.clone());
            let audit = Audit::of(cluster.node(1));
            audit.expect(PEER_TLS, "pass", &["talks TLS with its peers"]);
            audit.expect("etcd-peer-authentication", "pass", &[]);
            let evidence = audit.finding(PEER_TLS)["evidence"].as_array().unwrap();
            let setting = evidence.iter().find(|e| e["path"] == "settings.peer-cert-file");
            assert_eq!(setting.expect("the setting")["origin"]["kind"], kind, "{source:?}");
        }
    });
}

#[test]
fn flags_beside_a_config_file_without_tls_are_ignored() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            m.plain();
            m.source = config_file(m, "");
            m.args =
                ["peer-cert-file=/x.crt", "peer-key-file=/x.key"].map(|a| format!("--{a}").into()).to_vec();
        });
        let audit = Audit::of(cluster.node(0));
        audit.expect(PEER_TLS, "fail", &["ignored", "configuration file", "is plaintext"]);
    });
}

#[test]
fn peer_auto_tls_is_encrypted_but_unauthenticated() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            m.no_peer_tls();
            m.set("peer-auto-tls", "true");
        });
        let audit = Audit::of(cluster.node(0));
        audit.expect(PEER_TLS, "fail", &["encrypted, but unauthenticated"]);
        audit.expect("etcd-peer-auto-tls", "fail", &[]);
        audit.expect("etcd-peer-authentication", "fail", &[]);
    });
}

#[test]
fn a_plaintext_listener_beside_a_tls_one_is_named() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            let urls = format!("{},http://{}:2390", m.peer_url("https"), m.address);
            m.set("listen-peer-urls", urls);
        });
        Audit::of(cluster.node(0)).expect(PEER_TLS, "fail", &["http://10.77.0.1:2390 is plaintext"]);
    });
}

#[test]
fn an_advertised_http_url_says_what_peers_will_do() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            m.set("initial-advertise-peer-urls", m.peer_url("http"));
            m.ready = Ready::Listening;
        });
        let audit = Audit::of(cluster.node(0));
        audit.expect(PEER_TLS, "fail", &["peers are told to dial http://10.77.0.1:2380"]);
        audit.expect("etcd-advertised-peer-urls", "fail", &["http://10.77.0.1:2380"]);
    });
}

#[test]
fn one_member_has_no_peers() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 1, |m| m.peers("http"));
        let audit = Audit::of(cluster.node(0));
        audit.expect(PEER_TLS, "not-applicable", &["the only member", "answered GET /members"]);
        let offline = Audit::with(cluster.node(0), &["--no-wire"]);
        offline.expect(PEER_TLS, "not-applicable", &["read from the data directory"]);
    });
}

#[test]
fn a_learner_makes_peer_traffic() {
    on_every_version(|binary| {
        let cluster = start(binary, spec(binary, 1, |m| m.peers("http")).learners(1));
        Audit::of(cluster.node(0)).expect(PEER_TLS, "fail", &["is plaintext"]);
        let cluster = start(binary, spec(binary, 1, |_| {}).learners(1));
        Audit::of(cluster.node(1)).expect(PEER_TLS, "pass", &["one of 2, talks TLS with its peers"]);
    });
}

/// Starts three members, the third of which has the peer certificate that `issue` gives it, and audits it.
fn with_bad_certificate(binary: &EtcdBinary, issue: impl Fn(&mut MemberSpec) + 'static) -> (Cluster, Audit) {
    let cluster = cluster(binary, 3, move |m| {
        if m.index == 2 {
            issue(m);
            m.ready = Ready::Listening;
        }
    });
    let audit = Audit::of(cluster.node(2));
    (cluster, audit)
}

#[test]
fn a_certificate_that_cannot_work_fails_with_file_and_reason() {
    type Issue = fn(&mut MemberSpec);
    let cases: [(&str, Issue, &str); 6] = [
        (
            "expired",
            |m| m.issue("peer", &m.authority.clone(), m.leaf().validity(Validity::Expired)),
            "expired",
        ),
        (
            "future",
            |m| m.issue("peer", &m.authority.clone(), m.leaf().validity(Validity::Future)),
            "not valid before",
        ),
        (
            "wrong SAN",
            |m| m.issue("peer", &m.authority.clone(), m.leaf().no_sans().san("10.77.0.99")),
            "10.77.0.99",
        ),
        (
            "unknown CA",
            |m| m.issue("peer", &Authority::new("another-ca").unwrap(), m.leaf()),
            "does not chain to",
        ),
        (
            "no clientAuth",
            |m| m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Server)),
            "clientAuth",
        ),
        (
            "no serverAuth",
            |m| m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Client)),
            "serverAuth",
        ),
    ];
    on_every_version(|binary| {
        for (name, issue, reason) in cases {
            eprintln!("  {name}");
            let (_cluster, audit) = with_bad_certificate(binary, issue);
            audit.expect(PEER_TLS, "fail", &[&format!("{PKI_DIR}/peer.crt"), reason]);
            audit.expect("etcd-peer-certificate", "fail", &[reason]);
        }
    });
}

#[test]
fn the_key_of_another_certificate_fails() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |_| {});
        let node = cluster.node(2);
        let other = node.read(&format!("{PKI_DIR}/server.key")).unwrap();
        node.write(&format!("{PKI_DIR}/peer.key"), other, 0o600).unwrap();
        let audit = Audit::of(node);
        audit.expect(PEER_TLS, "fail", &[&format!("{PKI_DIR}/peer.key"), &format!("{PKI_DIR}/peer.crt")]);
    });
}

#[test]
fn without_client_authentication_the_wire_shows_that_nobody_is_asked() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            m.unset("peer-client-cert-auth");
            m.unset("peer-trusted-ca-file");
            m.env.insert("SSL_CERT_FILE".into(), format!("{PKI_DIR}/ca.crt").into());
        });
        let audit = Audit::of(cluster.node(0));
        audit.expect("etcd-peer-authentication", "fail", &[]);
        assert_eq!(client_certificate(cluster.node(0)), "not-requested");
    });
}

#[test]
fn a_trusted_ca_enforces_whatever_the_flag_says() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| m.set("peer-client-cert-auth", "false"));
        let audit = Audit::of(cluster.node(0));
        audit.expect("etcd-peer-authentication", "pass", &["peer-client-cert-auth"]);
        assert_eq!(client_certificate(cluster.node(0)), "required");
        assert!(!audit.finding("etcd-peer-authentication")["notes"].as_array().unwrap().is_empty());
    });
}

/// Returns what the peer port of `node` wants from a client's certificate.
fn client_certificate(node: &Node) -> String {
    let address = format!("{}:2380", node.address);
    let output = crate::common::seaworthy(node, &["probe", "--format", "json", &address]);
    let probe: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    probe["probes"][0]["wire"]["client_certificate"].as_str().expect("an answer").to_owned()
}

#[test]
fn a_manifest_that_changed_after_the_start_is_drift() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| m.peers("http"));
        let node = cluster.node(0);
        let manifest = String::from_utf8(node.read(MANIFEST).unwrap()).unwrap();
        let promised = manifest.replace("http://10.77.0.1:2380", "https://10.77.0.1:2380");
        assert_ne!(manifest, promised);
        node.write(MANIFEST, promised, 0o600).unwrap();
        let audit = Audit::of(node);
        let words = ["https://10.77.0.1:2380", "http://10.77.0.1:2380", "listen-peer-urls"];
        audit.expect("drift", "fail", &words);
        audit.expect(PEER_TLS, "fail", &["is plaintext"]);
    });
}

#[test]
fn an_environment_file_of_a_unit_that_changed_after_the_start_is_drift() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            m.source = Source::Environment;
            m.declared = Declared::Unit;
        });
        let node = cluster.node(0);
        Audit::of(node).expect("drift", "pass", &[]);
        node.edit(ENVIRONMENT_FILE, |text| text.replace("https://10.77.0.1:2380", "http://10.77.0.1:2380"))
            .unwrap();
        let audit = Audit::of(node);
        let words = ["listen-peer-urls as http://10.77.0.1:2380", "runs with https://10.77.0.1:2380"];
        audit.expect("drift", "fail", &words);
        let evidence = audit.finding("drift").to_string();
        assert!(evidence.contains(&format!("{ENVIRONMENT_FILE}:")), "the line is named: {evidence}");
        audit.expect(PEER_TLS, "pass", &[]);
    });
}

#[test]
fn a_ca_file_that_changed_after_the_start_is_drift() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |_| {});
        let node = cluster.node(0);
        Audit::of(node).expect("drift", "pass", &[]);
        let next = Authority::new("the-next-ca").unwrap();
        node.write(&format!("{PKI_DIR}/ca.crt"), next.pem(), 0o644).unwrap();
        Audit::of(node).expect("drift", "fail", &["CN=the-next-ca", "CN=etcd-ca", "CA file"]);
    });
}

#[test]
fn connections_older_than_the_change_to_tls_are_counted() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            let urls = format!("{},https://{}:2385", m.peer_url("http"), m.address);
            m.set("listen-peer-urls", urls);
            m.set("initial-advertise-peer-urls", m.peer_url("http"));
        });
        for member in cluster.members().unwrap() {
            let host = member.peer_urls[0].trim_start_matches("http://").trim_end_matches(":2380").to_owned();
            cluster.member_update(member.id, &[&format!("https://{host}:2385")]).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
        let audit = Audit::with(cluster.node(0), &["--observe", "2"]);
        audit.expect(PEER_TLS, "fail", &["established peer connections are plaintext"]);
        let connections = audit.finding(PEER_TLS)["evidence"].to_string();
        assert!(connections.contains(":2380"), "{connections}");
    });
}

/// A member that has just started has not all of its links at once.
#[test]
fn links_are_given_time_before_they_are_said_to_be_missing() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| m.ready = Ready::Listening);
        let node = cluster.node(1);
        node.restart().unwrap();
        let started = Instant::now();
        loop {
            let begun = Instant::now();
            let audit = Audit::with(node, &["--no-wire", "--rule", "etcd-peer-links"]);
            let status = &audit.finding("etcd-peer-links")["status"];
            if status == "pass" {
                break;
            }
            assert!(status != "fail" || begun.elapsed() >= Duration::from_secs(1), "said in a hurry");
            assert!(started.elapsed() < Duration::from_secs(30), "the links were never seen");
        }
    });
}

#[test]
fn half_the_links_missing_is_seen_while_health_is_green() {
    type Issue = fn(&mut MemberSpec);
    let cases: [Issue; 2] = [
        |m| m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Server)),
        |m| m.issue("peer", &m.authority.clone(), m.leaf().no_sans()),
    ];
    on_every_version(|binary| {
        for issue in cases {
            let cluster = cluster(binary, 3, move |m| {
                if m.index == 2 {
                    issue(m);
                }
            });
            for node in cluster.nodes() {
                node.etcdctl(["endpoint", "health"]).expect("every health endpoint is green");
            }
            let audit = Audit::of(cluster.node(0));
            audit.expect(PEER_TLS, "fail", &["the link with m3 is half open", "snapshot"]);
            audit.expect("etcd-peer-links", "fail", &["m3"]);
            let audit = Audit::of(cluster.node(2));
            audit.expect(PEER_TLS, "fail", &["peer.crt", "m1", "m2"]);
        }
    });
}

#[test]
fn one_ca_for_peers_and_clients_names_the_certificate_that_could_act_as_a_peer() {
    on_every_version(|binary| {
        let shared = cluster(binary, 3, |_| {});
        let audit = Audit::of(shared.node(0));
        audit.expect("etcd-peer-ca", "fail", &[&format!("{PKI_DIR}/healthcheck-client.crt")]);
        drop(shared);
        let peers = Authority::new("peer-ca").unwrap();
        let separate = cluster(binary, 3, move |m| {
            m.issue("peer", &peers, m.leaf());
            m.file(format!("{PKI_DIR}/peer-ca.crt"), peers.pem(), 0o644);
            m.set("peer-trusted-ca-file", format!("{PKI_DIR}/peer-ca.crt"));
        });
        Audit::of(separate.node(0)).expect("etcd-peer-ca", "pass", &[]);
    });
}

#[test]
fn the_kubernetes_ca_is_not_for_etcd() {
    on_every_version(|binary| {
        let authority = Authority::new("kubernetes").unwrap();
        let pem = authority.pem();
        let spec = spec(binary, 1, move |m| m.file("/etc/kubernetes/pki/ca.crt", pem.clone(), 0o644));
        let cluster = start(binary, spec.authority(&authority));
        Audit::of(cluster.node(0)).expect("etcd-unique-ca", "fail", &["/etc/kubernetes/pki/ca.crt"]);
    });
}

#[test]
fn a_client_port_that_speaks_both_fails() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 1, |m| {
            let urls = format!("{},{}", m.client_url("https"), m.client_url("http"));
            m.set("listen-client-urls", urls);
        });
        let audit = Audit::of(cluster.node(0));
        audit.expect("etcd-client-tls", "fail", &["http://10.77.0.1:2379"]);
    });
}

#[test]
fn a_plaintext_proxy_in_front_of_a_perfect_cluster_fails() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |m| {
            // A grpc-proxy refuses a client certificate that has a common name.
            m.issue("proxy", &m.authority.clone(), Leaf::new("").usage(Usage::Client));
        });
        let node = cluster.node(0);
        let identity = format!("{PKI_DIR}/proxy");
        let proxy = Program::new("/opt/etcd/etcd").args([
            "grpc-proxy".to_owned(),
            "start".to_owned(),
            "--endpoints=https://10.77.0.1:2379".to_owned(),
            format!("--cert={identity}.crt"),
            format!("--key={identity}.key"),
            format!("--cacert={PKI_DIR}/ca.crt"),
            "--listen-addr=127.0.0.1:23790".to_owned(),
        ]);
        let _proxy = node.spawn(&proxy).unwrap();
        wait_for(|| node.listens(23790), "the proxy listens");
        let audit = Audit::of(node);
        audit.expect(PEER_TLS, "pass", &[]);
        audit.expect("etcd-proxy-tls", "fail", &["127.0.0.1:23790"]);
        assert_eq!(audit.findings("etcd-client-tls").len(), 1, "the proxy is not taken for a member");
    });
}

#[test]
fn keys_that_etcd_ignores_are_named() {
    let cases = [
        (
            "top level",
            "peer-cert-file: /etc/kubernetes/pki/etcd/peer.crt\npeer-key-file: /etc/kubernetes/pki/etcd/peer.key\n",
        ),
        ("misspelt", "peer-transport-security:\n  cert-fil: /etc/kubernetes/pki/etcd/peer.crt\n"),
    ];
    on_every_version(|binary| {
        for (name, lines) in cases {
            let cluster = cluster(binary, 3, move |m| {
                m.plain();
                m.source = config_file(m, lines);
            });
            let audit = Audit::of(cluster.node(0));
            let key = lines.split(':').next().unwrap();
            let key = if name == "misspelt" { "cert-fil" } else { key };
            audit.expect(PEER_TLS, "fail", &[key]);
            audit.expect("ignored-settings", "fail", &[key]);
        }
    });
}

#[test]
fn a_file_that_the_running_release_has_read_is_not_refused_for_want_of_its_patch_number() {
    // Before 3.5.14 the key is ignored, and from 3.5.15 on etcd refuses a text there.
    let binary = versions().into_iter().find(|binary| binary.version.starts_with("3.5.")).expect("etcd 3.5");
    let cluster = cluster(&binary, 3, |m| {
        m.plain();
        m.source = config_file(m, "peer-transport-security:\n  allowed-cn: m1\n");
    });
    // Nobody tells the version but the database, and that only its line.
    let audit = Audit::with(cluster.node(0), &["--no-wire"]);
    audit.expect("etcd-client-tls", "fail", &["http://10.77.0.1:2379 is plaintext"]);
    let words =
        ["the patch release of etcd 3.5 is not known", "which keys of the configuration file they ignore"];
    audit.expect("ignored-settings", "unknown", &words);
}

#[test]
fn a_witness_that_is_silent_is_mentioned() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let rule = ["--rule", "etcd-client-tls"];
    let corroborated = [&rule[..], &["--require-corroboration"]].concat();
    // A machine with much to do answers late.
    wait_for(|| Audit::with(node, &corroborated).code == 0, "the wire corroborates it");
    let pid = node.etcd_pid().expect("it runs");
    let signal = |name: &str| {
        assert!(node.run("kill", ["-s", name, &pid.to_string()]).unwrap().status.success());
    };
    signal("STOP");
    let silent = [&corroborated[..], &["--timeout", "1"]].concat();
    let audit = Audit::with(node, &silent);
    signal("CONT");
    audit.expect("etcd-client-tls", "pass", &[]);
    assert!(!audit.finding("etcd-client-tls")["uncorroborated"].as_array().unwrap().is_empty());
    assert_eq!((audit.report["summary"]["uncorroborated"].as_u64(), audit.code), (Some(1), 3));
}

#[test]
fn a_unit_that_is_to_run_and_does_not_is_something_to_audit() {
    let cluster = cluster(&newest(), 1, |m| {
        m.source = Source::Environment;
        m.declared = Declared::Unit;
        m.autostart = false;
    });
    let node = cluster.node(0);
    let link = "mkdir -p /run/systemd/system /etc/systemd/system/multi-user.target.wants && \
                ln -s ../etcd.service /etc/systemd/system/multi-user.target.wants/etcd.service";
    assert!(node.run("bash", ["-c", link]).unwrap().status.success());
    let audit = Audit::of(node);
    audit.expect(PEER_TLS, "unknown", &["etcd.service declares etcd, but no such process is running"]);
    assert_eq!(audit.code, 3);
}

#[test]
fn two_etcd_processes_are_judged_separately() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |_| {});
        let node = cluster.node(0);
        let events = Program::new("/opt/etcd/etcd").args([
            "--name=events1",
            "--data-dir=/var/lib/etcd-events",
            "--listen-peer-urls=http://10.77.0.1:2480",
            "--initial-advertise-peer-urls=http://10.77.0.1:2480",
            "--listen-client-urls=http://127.0.0.1:2479",
            "--advertise-client-urls=http://127.0.0.1:2479",
            "--initial-cluster=events1=http://10.77.0.1:2480,events2=http://10.77.0.2:2480",
        ]);
        let _events = node.spawn(&events).unwrap();
        wait_for(|| node.listens(2480), "the second etcd listens");
        let audit = Audit::with(node, &["--benchmark", "cis-kubernetes-2.0.1"]);
        let findings = audit.findings(PEER_TLS);
        assert_eq!(findings.len(), 2);
        let of = |name: &str| {
            *findings.iter().find(|f| f["resource"].as_str().unwrap().contains(name)).expect(name)
        };
        check(of("events1"), "fail", &["http://10.77.0.1:2480 is plaintext"]);
        check(of("m1"), "pass", &[]);
        let controls = audit.report["controls"].as_array().unwrap();
        assert_eq!(
            controls.iter().find(|c| c["id"] == "2.4").unwrap()["status"],
            "fail",
            "the worst decides"
        );
    });
}

#[test]
fn a_container_is_seen_as_its_process_sees_it() {
    on_every_version(|binary| {
        let good = cluster(binary, 3, |m| m.in_container("/container/pki"));
        let audit = Audit::of(good.node(0));
        audit.expect(PEER_TLS, "pass", &["/container/pki/peer.crt"]);
        drop(good);
        let bad = cluster(binary, 3, |m| {
            m.in_container("/container/pki");
            if m.index == 2 {
                m.issue("peer", &m.authority.clone(), m.leaf().validity(Validity::Expired));
                m.ready = Ready::Listening;
            }
        });
        Audit::of(bad.node(2)).expect(PEER_TLS, "fail", &["/container/pki/peer.crt", "expired"]);
    });
}

#[test]
fn without_permission_nothing_is_claimed() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 3, |_| {});
        let output = seaworthy_as(cluster.node(0), 1000, &["audit", "--format", "json"]);
        let audit = Audit::read(&output);
        audit.expect(PEER_TLS, "unknown", &["permission denied"]);
        assert_eq!(audit.code, 3, "{}", audit.report["summary"]);
        let claimed: Vec<_> = audit.report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| f["resource"].as_str().unwrap().contains("pid") && f["status"] == "pass")
            .filter(|f| !f["rule"].as_str().unwrap().starts_with("etcd-manifest"))
            .map(|f| format!("{}: {}", f["rule"], said(f)))
            .collect();
        assert!(claimed.is_empty(), "{claimed:#?}");
    });
}

#[test]
fn a_node_without_etcd_has_nothing_to_judge() {
    let binary = newest();
    let cluster = cluster(&binary, 1, |m| {
        m.autostart = false;
        m.declared = Declared::Nothing;
    });
    let audit = Audit::of(cluster.node(0));
    audit.expect(PEER_TLS, "not-applicable", &["no etcd runs on this node"]);
    assert_eq!(audit.code, 0);
}

#[test]
fn an_etcd_that_is_declared_but_down_is_unknown() {
    let binary = newest();
    let cluster = cluster(&binary, 1, |m| m.autostart = false);
    let audit = Audit::of(cluster.node(0));
    audit.expect(PEER_TLS, "unknown", &["no such process is running"]);
    audit.expect("manifest-mode", "pass", &[]);
    assert_eq!(audit.code, 3);
}

/// Returns the settings of a member of three as a configuration file, with more `lines`.
fn config_file(member: &mut MemberSpec, lines: &str) -> Source {
    let members = (1..=3).map(|i| format!("m{i}=http://10.77.0.{i}:2380")).collect::<Vec<_>>().join(",");
    member.set("initial-cluster", members);
    let mut text = String::new();
    for (key, value) in member.config().as_object().expect("an object") {
        text.push_str(&format!("{key}: {value}\n"));
    }
    text.push_str(lines);
    Source::File { path: "/etc/etcd/etcd.conf".to_owned(), text }
}

fn wait_for(condition: impl Fn() -> bool, what: &str) {
    for _ in 0..100 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 5 seconds: {what}");
}
