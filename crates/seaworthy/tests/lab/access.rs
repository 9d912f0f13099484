//! What etcd's own user may do with its files, and who else may use what is etcd's: judged for the process, not for the
//! auditor, who is root.

use std::collections::BTreeSet;

use seaworthy_lab::{Declared, MemberSpec, Node, PKI_DIR, Ready};
use serde_json::Value;

use crate::common::{Audit, cluster, newest};

/// The account that the nodes have for etcd.
const ACCOUNT: u32 = 997;

fn as_its_own_user(member: &mut MemberSpec) {
    member.uid = ACCOUNT;
}

fn sh(node: &Node, script: &str) -> String {
    let output = node.run("sh", ["-c", script]).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns whether etcd completes a handshake and serves.
fn serves(node: &Node) -> bool {
    node.etcdctl(["endpoint", "health"]).is_ok()
}

/// Returns the rules that do not pass, nor do not apply. How strong TLS is may stay unknown on a machine with much to do.
fn open(audit: &Audit) -> BTreeSet<String> {
    let findings = audit.report["findings"].as_array().unwrap().iter();
    let slow = |f: &Value| f["status"] == "unknown" && f["rule"] == "tls-strength";
    let open = findings.filter(|f| (f["status"] == "fail" || f["status"] == "unknown") && !slow(f));
    open.map(|f| f["rule"].as_str().unwrap().to_owned()).collect()
}

/// Does to the letter what the advice of a rule that fails says, and returns the audit after it.
#[track_caller]
fn follow(node: &Node, rule: &str) -> Audit {
    let before = Audit::of(node);
    let finding = before.finding(rule);
    let advice = finding["remedy"].as_str().unwrap_or_else(|| panic!("{rule} does not fail: {finding:#}"));
    let command = advice.split('`').nth(1).unwrap_or_else(|| panic!("no command in {advice}"));
    sh(node, command);
    let after = Audit::of(node);
    assert!(!open(&after).contains(rule), "{command}: {:#}", after.finding(rule));
    assert!(open(&after).is_subset(&open(&before)), "{command}: {:?}", open(&after));
    assert!(serves(node), "{command} keeps etcd from its files");
    after
}

#[test]
fn a_key_that_root_can_read_and_etcd_cannot_fails() {
    let cluster = cluster(&newest(), 1, as_its_own_user);
    let node = cluster.node(0);
    let audit = Audit::of(node);
    for rule in ["certificate-soundness", "etcd-client-tls", "declaration-starts"] {
        audit.expect(rule, "pass", &[]);
    }
    let key = format!("{PKI_DIR}/server.key");
    let group = format!("chown root:daemon {key} && chmod 640 {key}");
    for (script, words) in [
        (format!("chown root:root {key}"), "it belongs to root:root with mode 0600"),
        (group, "it belongs to root:daemon with mode 0640"),
        (format!("chown {ACCOUNT} {key} && chmod 0 {key}"), "with mode 0000"),
        (format!("chmod 600 {key} && chmod 700 {PKI_DIR}"), "etcd belongs to root:root with mode 0700"),
    ] {
        sh(node, &script);
        let said = format!("uid {ACCOUNT} (etcd) may not read {key}: ");
        let audit = Audit::of(node);
        for rule in ["certificate-soundness", "etcd-client-tls"] {
            audit.expect(rule, "fail", &[&said, words]);
        }
        let declared = [&format!("key-file: {said}"), words];
        audit.expect("declaration-starts", "fail", &declared.map(|word| word));
        assert!(!serves(node), "etcd reads its key at each handshake: {script}");
    }
    sh(node, &format!("chmod 755 {PKI_DIR}"));
    assert!(serves(node));
    assert!(!open(&Audit::of(node)).contains("certificate-soundness"));
}

#[test]
fn a_group_or_an_access_control_list_lets_etcd_read_its_key() {
    let cluster = cluster(&newest(), 1, as_its_own_user);
    let node = cluster.node(0);
    let key = format!("{PKI_DIR}/server.key");
    sh(node, &format!("chown root:{ACCOUNT} {key} && chmod 640 {key}"));
    assert!(serves(node));
    Audit::of(node).expect("certificate-soundness", "pass", &[]);
    // Written as setfacl(1) would: the owner and uid 997 may read, and nobody else.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, ACCOUNT), (4, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    sh(node, &format!("chown root:root {key}"));
    assert!(!serves(node));
    let path = node.root().join(key.trim_start_matches('/'));
    let written =
        rustix::fs::setxattr(&path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty());
    if written == Err(rustix::io::Errno::OPNOTSUPP) {
        return;
    }
    written.unwrap();
    assert!(serves(node));
    Audit::of(node).expect("certificate-soundness", "pass", &[]);
    // The bits of the group are the mask of the list.
    sh(node, &format!("chmod 600 {key}"));
    assert!(!serves(node));
    let words = ["may not read", "with mode 0600 and an access control list"];
    Audit::of(node).expect("certificate-soundness", "fail", &words);
}

#[test]
fn advice_about_owners_and_modes_leaves_etcd_its_files() {
    let cluster = cluster(&newest(), 1, |m| {
        as_its_own_user(m);
        m.declared = Declared::Unit;
    });
    let node = cluster.node(0);
    let data = "/var/lib/etcd";
    for (rule, script) in [
        // Everything is etcd's, also the key of a client, and nobody else can read anything.
        ("etcd-pki-owner", format!("chown -R {ACCOUNT}:{ACCOUNT} {PKI_DIR} && chmod -R go-rwx {PKI_DIR}")),
        // Keys are root's, and etcd reads them by its group.
        ("etcd-pki-owner", format!("chown root:{ACCOUNT} {PKI_DIR}/*.key && chmod 640 {PKI_DIR}/*.key")),
        ("etcd-pki-key-mode", format!("chown root:{ACCOUNT} {PKI_DIR}/*.key && chmod 640 {PKI_DIR}/*.key")),
        ("etcd-pki-certificate-mode", format!("chmod 666 {PKI_DIR}/*.crt")),
        ("etcd-data-directory-mode", format!("chown root:{ACCOUNT} {data} && chmod 770 {data}")),
        ("etcd-data-directory-owner", format!("chown 1:{ACCOUNT} {data} && chmod 770 {data}")),
    ] {
        eprintln!("{rule}: {script}");
        sh(node, &script);
        assert!(serves(node), "{script}");
        follow(node, rule);
    }
    // What one rule advises, another finds in order in the end.
    for rule in ["etcd-pki-owner", "etcd-data-directory-mode", "etcd-data-directory-owner"] {
        if open(&Audit::of(node)).contains(rule) {
            follow(node, rule);
        }
    }
    let left = open(&Audit::of(node));
    assert!(!left.iter().any(|rule| rule.contains("pki") || rule.contains("data")), "{left:?}");
    let before = node.etcd_pid();
    node.restart().unwrap();
    node.wait_ready().unwrap();
    assert!(node.etcd_pid() != before && serves(node), "etcd starts again as its own user");
}

#[test]
fn every_key_is_one_in_a_folder_below_and_behind_a_link() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    let rule = "etcd-pki-key-mode";
    Audit::of(node).expect(rule, "pass", &[]);
    let server = format!("{PKI_DIR}/server.key");
    for (script, name) in [
        (
            format!("mkdir -p {PKI_DIR}/old/2025 && install -m 644 {server} {PKI_DIR}/old/2025/x"),
            "old/2025/x",
        ),
        (
            format!(
                "mkdir -p /srv/keys && install -m 644 {server} /srv/keys/x && ln -s /srv/keys/x {PKI_DIR}/x"
            ),
            "x",
        ),
        (
            format!("chmod 644 /srv/keys/x && ln -s /srv/keys {PKI_DIR}/elsewhere && rm {PKI_DIR}/x"),
            "elsewhere/x",
        ),
    ] {
        sh(node, &script);
        let words = format!("{PKI_DIR}/{name} holds a private key and has mode 0644");
        Audit::of(node).expect(rule, "fail", &[&words]);
        follow(node, rule);
    }
    let deep = ["d"; 12].join("/");
    sh(node, &format!("mkdir -p {PKI_DIR}/{deep}"));
    Audit::of(node).expect(rule, "unknown", &["folders are more than 8 deep"]);
    // A key that is too open is one, whatever else was not looked at, once that is gone.
    sh(node, &format!("rm -r {PKI_DIR}/d && for i in $(seq 1100); do : >{PKI_DIR}/$i; done"));
    Audit::of(node).expect(rule, "unknown", &["more than 1000"]);
}

#[test]
fn a_unix_socket_is_guarded_by_modes_or_not_at_all() {
    let socket = "/run/etcd-clients/etcd.sock";
    let cluster = cluster(&newest(), 1, move |m| {
        as_its_own_user(m);
        let urls = format!("{},unix://{socket}", m.get("listen-client-urls").unwrap());
        m.set("listen-client-urls", urls);
        m.disks.push(("/run/etcd-clients".to_owned(), 1 << 20));
        m.autostart = false;
        m.ready = Ready::Serving;
    });
    let node = cluster.node(0);
    sh(node, &format!("chown {ACCOUNT}:{ACCOUNT} /run/etcd-clients && chmod 750 /run/etcd-clients"));
    node.start().unwrap();
    node.wait_ready().unwrap();
    let rules = ["etcd-client-tls", "etcd-client-authentication"];
    let reached = |uid: u32| {
        let mut command = node.command_as(uid, "curl");
        command.args(["-s", "--max-time", "5", "--unix-socket", socket, "http://x/version"]);
        command.output().unwrap().status.success()
    };
    for (script, open_to) in [
        ("true".to_owned(), None),
        (format!("chmod 777 {socket}"), None),
        ("chmod 755 /run/etcd-clients".to_owned(), Some("with mode 0777")),
        (format!("chmod 755 {socket}"), None),
        ("chmod 777 /run/etcd-clients".to_owned(), Some("put another socket in the place of")),
        ("chmod 1777 /run/etcd-clients".to_owned(), None),
    ] {
        sh(node, &script);
        let audit = Audit::of(node);
        for rule in rules {
            match open_to {
                None => audit.expect(rule, "pass", &["its mode and those of the folders above it"]),
                Some(words) => audit.expect(rule, "fail", &["anybody on this node may", socket, words]),
            }
        }
        assert_eq!(reached(65534), open_to == Some("with mode 0777"), "{script}");
    }
}

#[test]
fn relative_paths_in_a_chroot_are_those_of_the_process() {
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    Audit::of(node).expect("certificate-soundness", "pass", &[]);
    // The same etcd in a root of its own, which it has entered from a folder inside, with relative names.
    sh(
        node,
        &format!(
            "mkdir -p /srv/root/etc/etcd && mkdir -m 700 /srv/root/data && cp {PKI_DIR}/server.crt {PKI_DIR}/server.key {PKI_DIR}/ca.crt \
             /srv/root/etc/etcd && cp $(command -v etcd) /srv/root/etcd && \
             for f in $(ldd /srv/root/etcd | grep -o '/[^ ]*'); do install -D $f /srv/root$f; done; mkdir -p /etc/etcd && echo broken >/etc/etcd/server.crt"
        ),
    );
    let arguments = "--name m9 --data-dir ../../data --cert-file server.crt --key-file server.key --trusted-ca-file ca.crt \
        --client-cert-auth --listen-client-urls https://127.0.0.1:3379 --advertise-client-urls https://127.0.0.1:3379 \
        --listen-peer-urls http://127.0.0.1:3380 --initial-advertise-peer-urls http://127.0.0.1:3380 \
        --initial-cluster m9=http://127.0.0.1:3380";
    let start =
        format!("setsid unshare --root=/srv/root --wd=/etc/etcd /etcd {arguments} >/tmp/m9.log 2>&1 &");
    sh(node, &start);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !node.listens(3379) {
        assert!(std::time::Instant::now() < until, "{}", sh(node, "cat /tmp/m9.log"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let audit = Audit::of(node);
    let findings = audit.findings("certificate-soundness");
    let of = |name: &str| {
        let is = |f: &&&Value| f["resource"].as_str().unwrap().contains(name);
        *findings.iter().find(is).unwrap_or_else(|| panic!("{findings:#?}"))
    };
    crate::common::check(of("m9"), "pass", &["nothing is wrong"]);
    let data: Vec<_> = audit.findings("etcd-data-directory-mode");
    let data = data.iter().find(|f| f["resource"].as_str().unwrap().contains("m9")).unwrap();
    crate::common::check(data, "pass", &["/data"]);
}

#[test]
fn a_unit_that_names_another_user_is_judged_by_what_that_may() {
    let cluster = cluster(&newest(), 1, |m| m.declared = Declared::Unit);
    let node = cluster.node(0);
    Audit::of(node).expect("declaration-starts", "pass", &[]);
    let drop_in = "/etc/systemd/system/etcd.service.d/user.conf";
    node.write(drop_in, "[Service]\nUser=etcd\n", 0o644).unwrap();
    let words = [
        "key-file: uid 997 (etcd) may not read",
        "data-dir: uid 997 (etcd) may not read and write /var/lib/etcd",
    ];
    Audit::of(node).expect("declaration-starts", "fail", &words);
    sh(node, &format!("chown -R etcd: {PKI_DIR} /var/lib/etcd"));
    Audit::of(node).expect("declaration-starts", "pass", &[]);
    node.write(drop_in, "[Service]\nUser=of-the-directory-service\n", 0o644).unwrap();
    Audit::of(node).expect("declaration-starts", "unknown", &["of-the-directory-service"]);
}
