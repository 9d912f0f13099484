//! Whom etcd lets in: what decides is what it would verify, and what it has loaded, not what looks alike.

use seaworthy_lab::{Authority, Certificate, EtcdBinary, Leaf, Node, PKI_DIR, Ready, Usage};

use crate::common::{Audit, cluster, spec, start, versions};
use crate::oracle::{expect_whole, sh};

/// Runs `judge` on every etcd version.
fn on_every_version(judge: impl Fn(&EtcdBinary)) {
    for binary in versions() {
        eprintln!("etcd {}", binary.version);
        judge(&binary);
    }
}

/// Returns what the first member's certificates say.
fn leaf(name: &str) -> Leaf {
    Leaf::new(name).san("localhost").san("10.77.0.1").san("127.0.0.1")
}

#[test]
fn a_root_above_the_kubernetes_ca_lets_a_kubelet_in() {
    const CA: &str = "/etc/kubernetes/pki/ca.crt";
    const KUBELET: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    on_every_version(|binary| {
        let root = Authority::new("corp-root").unwrap();
        let kubernetes = root.intermediate("kubernetes").unwrap();
        let subject = Leaf::new("system:node:m1").organization("system:nodes").usage(Usage::Client);
        let kubelet = kubernetes.issue(&subject).unwrap();
        let (ca, bundle) = (kubernetes.pem(), kubelet.bundle());
        let key = kubelet.key.clone();
        let spec = spec(binary, 1, move |m| {
            m.file(CA, ca.clone(), 0o644);
            m.file(KUBELET, bundle.clone(), 0o644);
            m.file("/srv/kubelet.key", key.clone(), 0o600);
        });
        let cluster = start(binary, spec.authority(&root));
        let node = cluster.node(0);
        node.set_client(&[
            "--endpoints=https://127.0.0.1:2379",
            &format!("--cacert={PKI_DIR}/ca.crt"),
            &format!("--cert={KUBELET}"),
            "--key=/srv/kubelet.key",
        ]);
        node.etcdctl(["get", "/registry", "--prefix"]).expect("the kubelet reads every Secret");
        let words = [
            "CN=corp-root in /etc/kubernetes/pki/etcd/ca.crt accepts what CN=kubernetes issues",
            "through CN=kubernetes in /etc/kubernetes/pki/ca.crt",
        ];
        Audit::of(node).expect("etcd-unique-ca", "fail", &words);

        // One that has nothing to do with etcd's, and one of which nobody knows what is above it.
        let other = Authority::new("kubernetes").unwrap();
        node.remove(KUBELET).unwrap();
        node.write(CA, other.pem(), 0o644).unwrap();
        Audit::of(node).expect("etcd-unique-ca", "pass", &[]);
        let deep = other.intermediate("middle").unwrap().intermediate("kubernetes").unwrap();
        node.write(CA, deep.pem(), 0o644).unwrap();
        Audit::of(node).expect(
            "etcd-unique-ca",
            "unknown",
            &["was issued by CN=middle, whose certificate is nowhere"],
        );
    });
}

/// Moves files to where they replace those of the member. They are years old.
fn replace(node: &Node, files: &[(&str, &str)]) {
    for (name, text) in files {
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        node.write(&format!("{PKI_DIR}/{name}.old"), text, mode).unwrap();
        sh(node, &format!("cd {PKI_DIR} && touch -d 2020-01-01 {name}.old && mv {name}.old {name}"));
    }
}

fn pair<'a>(name: &str, certificate: &'a Certificate) -> [(String, &'a str); 2] {
    [(format!("{name}.crt"), certificate.pem.as_str()), (format!("{name}.key"), certificate.key.as_str())]
}

#[test]
fn older_files_of_the_same_names_are_not_what_is_loaded() {
    on_every_version(|binary| {
        let cluster = cluster(binary, 1, |_| {});
        let node = cluster.node(0);
        let ca = format!("{PKI_DIR}/ca.crt");
        let own = String::from_utf8(node.read(&ca).unwrap()).unwrap();
        Audit::of(node).expect("drift", "pass", &[]);
        // The same content is no drift, whatever its times say.
        replace(node, &[("ca.crt", &own)]);
        Audit::of(node).expect("drift", "pass", &[]);

        let other = Authority::new("etcd-ca").unwrap();
        replace(node, &[("ca.crt", &other.pem())]);
        let words = [&*ca, "was changed or replaced at", "which the running etcd at", "accepts"];
        Audit::of(node).expect("drift", "fail", &words);
        let (peer, server) = (other.issue(&leaf("m1")).unwrap(), other.issue(&leaf("m1")).unwrap());
        let issued = [pair("peer", &peer), pair("server", &server)].concat();
        let issued: Vec<(&str, &str)> = issued.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        replace(node, &issued);
        let audit = Audit::of(node);
        audit.expect("etcd-peer-certificate", "pass", &[]);
        audit.expect("drift", "fail", &["which the running etcd at", "refuses", "another key"]);
        // Whom the CA that is loaded lets in is another question.
        let _ = node.remove(&format!("{PKI_DIR}/healthcheck-client.crt"));
        node.write("/etc/kubernetes/pki/ca.crt", Authority::new("kubernetes").unwrap().pem(), 0o644).unwrap();
        let audit = Audit::of(node);
        audit.expect("etcd-unique-ca", "unknown", &["the CAs that are loaded are not known"]);
        audit.expect("etcd-peer-ca", "unknown", &["the CAs that are loaded are not known"]);

        // Certificates of neither prove nothing.
        replace(node, &[("ca.crt", &own)]);
        let words = ["is unknown since the file was changed or replaced"];
        Audit::of(node).expect("drift", "unknown", &words);
        Audit::with(node, &["--no-wire"]).expect("drift", "unknown", &words);
    });
}

#[test]
fn a_name_that_its_own_certificate_does_not_carry_isolates_a_member() {
    const RULE: &str = "etcd-peer-certificate";
    on_every_version(|binary| {
        let fits = cluster(binary, 3, |m| {
            m.set("peer-cert-allowed-cn", "etcd-peer");
            m.issue("peer", &m.authority.clone(), m.leaf().common_name("etcd-peer"));
        });
        expect_whole(&fits);
        Audit::of(fits.node(0)).expect(RULE, "pass", &[]);
        drop(fits);
        let apart = cluster(binary, 3, |m| {
            m.set("peer-cert-allowed-cn", "etcd-peer");
            m.ready = Ready::Listening;
        });
        let health = apart.node(0).etcdctl(["endpoint", "health", "--command-timeout=2s"]);
        assert!(health.is_err(), "no member connects with another: {health:?}");
        let words = ["has the common name m1, and peer-cert-allowed-cn admits only etcd-peer", "no member"];
        Audit::of(apart.node(0)).expect(RULE, "fail", &words);
        drop(apart);
        // A list for those that know lists, one name for the others.
        let lists = binary.minor() >= (3, 6);
        let several = cluster(binary, 3, |m| {
            m.set("peer-cert-allowed-cn", "etcd-peer,m1,m2,m3");
            m.ready = Ready::Listening;
        });
        if lists {
            expect_whole(&several);
        }
        // Before members have met, nothing tells their release.
        let (status, words) =
            if lists { ("pass", "") } else { ("unknown", "depends on the release of etcd") };
        Audit::of(several.node(0)).expect(RULE, status, &[words]);
    });
}

#[test]
fn a_name_that_a_client_carries_as_well_keeps_nobody_out() {
    const CLIENT: &str = "/etc/kubernetes/pki/apiserver-etcd-client";
    on_every_version(|binary| {
        let authority = Authority::new("etcd-ca").unwrap();
        let client = authority.issue(&Leaf::new("kube-etcd").usage(Usage::Client)).unwrap();
        let (pem, key) = (client.pem.clone(), client.key.clone());
        let spec = spec(binary, 1, move |m| {
            m.set("peer-cert-allowed-cn", "kube-etcd");
            m.issue("peer", &m.authority.clone(), m.leaf().common_name("kube-etcd"));
            m.file(format!("{CLIENT}.crt"), pem.clone(), 0o644);
            m.file(format!("{CLIENT}.key"), key.clone(), 0o600);
        });
        let cluster = start(binary, spec.authority(&authority));
        let node = cluster.node(0);
        let audit = Audit::of(node);
        let words = [&format!("{CLIENT}.crt"), "carries a name that peer-cert-allowed-cn admits"];
        audit.expect("etcd-peer-ca", "fail", &words);
        let said = audit.finding("etcd-peer-ca").to_string();
        assert!(!said.contains("healthcheck-client.crt"), "it has another name: {said}");
        let other = authority.issue(&Leaf::new("kube-apiserver-etcd-client").usage(Usage::Client)).unwrap();
        node.write(&format!("{CLIENT}.crt"), &other.pem, 0o644).unwrap();
        Audit::of(node).expect("etcd-peer-ca", "pass", &["peers must carry a name"]);
    });
}
