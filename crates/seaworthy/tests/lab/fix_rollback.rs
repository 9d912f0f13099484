//! Rollbacks on real clusters after what happens in months: later edits, later fixes, certificates that have expired since,
//! runs that were killed, records that were lost.
//!
//! Each is judged by other means than the program under test: what files, membership, processes and sockets say.

use std::process::Output;
use std::time::Duration;

use seaworthy_lab::{
    Authority, Cluster, ENVIRONMENT_FILE, EtcdBinary, MANIFEST, MemberSpec, Node, Source, Supervisor,
    Validity, Watched,
};
use serde_json::Value;

use crate::common::{Audit, SEAWORTHY, fix_document, seaworthy, spec, start, versions};
use crate::fix_apply::{
    PEER_TLS, PKI, apply, apply_everywhere, expect, plaintext, report, roll_back, roll_back_everywhere,
    with_authority,
};
use crate::fix_fault::load_everywhere;
use crate::oracle::{Still, eventually, expect_whole, sh, spoken, told};

/// The configuration file of members that have one.
const CONFIGURATION: &str = "/etc/etcd/etcd.conf.yaml";
/// How long two members that run may be without a connection, on a busy machine: until one that was started has been dialled.
const DIALLED: Duration = Duration::from_secs(15);

/// Returns a version of etcd, counted from the oldest one.
fn version(number: usize) -> EtcdBinary {
    let versions = versions();
    versions[number % versions.len()].clone()
}

/// Brings a cluster to peer TLS, and returns the ids of the fixes that each node made, in their order.
#[track_caller]
pub(crate) fn migrated(cluster: &Cluster) -> Vec<Vec<String>> {
    let ids = |output: Output| {
        let document = expect(&output, 0);
        let fixes = document["fixes"].as_array().unwrap();
        fixes.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    apply_everywhere(cluster).into_iter().map(ids).collect()
}

/// Runs `seaworthy fix` with a JSON document in the end, without waiting long for others.
pub(crate) fn fix(node: &Node, arguments: &[&str]) -> Output {
    seaworthy(node, &[&["fix"], arguments, &["-f", "json", "--settle", "30", "--wait", "1"]].concat())
}

/// Runs `seaworthy fix` on a node, and kills it where its journals have so many lines.
#[track_caller]
pub(crate) fn killed(node: &Node, line: u32, arguments: &[&str]) {
    let kill = format!("SEAWORTHY_KILL=after:{line}");
    let words = [&[kill.as_str(), SEAWORTHY, "fix"], arguments, &["--settle", "30", "--wait", "60"]].concat();
    let output = node.run("env", words).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!matches!(output.status.code(), Some(0..=5)), "it was not killed: {told}");
}

/// Asserts that a rollback is refused for these reasons, planned and applied, and that nothing moves.
#[track_caller]
fn expect_refused(cluster: &Cluster, node: &Node, id: &str, words: &[&str]) {
    let still = Still::of(cluster);
    for apply in [&[][..], &["--apply"]] {
        let output = fix(node, &[&["--rollback", id], apply].concat());
        let document = expect(&output, 3);
        assert!(!document["refusals"].as_array().unwrap().is_empty(), "{document:#}");
        expect_words(&document, words);
    }
    // For a person as well.
    let output = seaworthy(node, &["fix", "--rollback", id, "--apply", "--wait", "1"]);
    let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    still.expect(cluster);
}

#[track_caller]
pub(crate) fn expect_words(document: &Value, words: &[&str]) {
    let said = document.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {document:#}");
    }
}

/// Asserts that no member lost another one for longer than a restart takes.
#[track_caller]
fn expect_together(seen: &Watched) {
    assert!(seen.isolated.is_empty() && seen.one_way.time < DIALLED, "{seen:#?}");
}

/// Returns how a fix stands, by its id.
#[track_caller]
pub(crate) fn standing(node: &Node, id: &str) -> Value {
    let document = expect(&seaworthy(node, &["fix", "--status", "-f", "json"]), 0);
    let fixes = document["fixes"].as_array().unwrap();
    fixes.iter().find(|fix| fix["id"] == id).unwrap_or_else(|| panic!("{id} is not in {document:#}")).clone()
}

/// Returns the id of the last record of a node.
#[track_caller]
pub(crate) fn last(node: &Node) -> String {
    let document = expect(&seaworthy(node, &["fix", "--status", "-f", "json"]), 0);
    document["fixes"].as_array().unwrap().last().expect("a record")["id"].as_str().unwrap().to_owned()
}

fn text(node: &Node, path: &str) -> String {
    String::from_utf8(node.read(path).unwrap()).unwrap()
}

/// What somebody else does between a fix and its rollback: which file, and how it changes.
struct Edited {
    path: &'static str,
    change: fn(&str) -> String,
    /// Whether kubelet restarts the member for it.
    restarts: bool,
}

/// Migrates a cluster, edits a file on every node, rolls one turn back and then all, under writers, and asserts that each file
/// is as it was before but for the edit, and that the members are whole at every stop.
fn rolled_back_after_an_edit(binary: &EtcdBinary, supervisor: Supervisor, source: Source, edited: &Edited) {
    let what = format!("etcd {}, {supervisor:?}, {source:?}", binary.version);
    let cluster = start(binary, plaintext(binary, 3, supervisor, source));
    let files = |cluster: &Cluster| -> Vec<String> {
        cluster.nodes().iter().map(|node| text(node, edited.path)).collect()
    };
    let original = files(&cluster);
    let ids = migrated(&cluster);
    for node in cluster.nodes() {
        let before = node.etcd_pid();
        node.edit(edited.path, edited.change).unwrap();
        if edited.restarts {
            node.wait_restarted(before).unwrap();
        }
    }
    expect_whole(&cluster);
    let first: Vec<String> = ids.iter().map(|ids| ids[0].clone()).collect();

    let writer = cluster.writer().unwrap();
    let ((), seen) = cluster.watched(|| {
        // The plan of the last turn says what it leaves alone, and moves nothing.
        let (node, last) = (cluster.node(0), ids[0].last().unwrap());
        let still = Still::of(&cluster);
        let document = expect(&fix(node, &["--rollback", last]), 1);
        expect_words(&document["plan"], &[edited.path, "the rest stays", "former values"]);
        still.expect(&cluster);
        let starts = node.starts();
        let document = expect(&fix(node, &["--rollback", last, "--apply"]), 0);
        assert_eq!(document["outcome"], "rolled-back", "{document:#}");
        assert_eq!((told(&cluster, 0).as_str(), spoken(&cluster, 0)), ("http", "http"), "{what}");
        assert_eq!(node.starts(), starts + 1, "{what}");
        expect_whole(&cluster);
        roll_back_everywhere(&cluster, &first);
        expect_whole(&cluster);
    });
    let written = writer.finish().unwrap();
    report(&what, &written);
    assert!(written.clean() && written.lost == 0, "{written:#?}");
    expect_together(&seen);
    for (now, before) in files(&cluster).iter().zip(&original) {
        assert_eq!(*now, (edited.change)(before), "{what}");
    }
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
        let left = sh(
            node,
            &format!("ls {PKI}/seaworthy-peer.* /etc/systemd/system/etcd.service.d/50* 2>/dev/null || :"),
        );
        assert_eq!(left, "", "{what}");
    }
}

#[test]
fn an_image_that_was_upgraded_since_stays() {
    rolled_back_after_an_edit(
        &version(0),
        Supervisor::Kubelet,
        Source::Flags,
        &Edited {
            path: MANIFEST,
            // What `kubeadm upgrade` does.
            change: |text| text.replace("-0\n    imagePullPolicy", "-1\n    imagePullPolicy"),
            restarts: true,
        },
    );
}

#[test]
fn a_setting_of_a_configuration_file_that_was_changed_since_stays() {
    rolled_back_after_an_edit(
        &version(1),
        Supervisor::Kubelet,
        Source::Yaml,
        &Edited {
            path: CONFIGURATION,
            change: |text| {
                format!("# more memory\n{}", text.replace("snapshot-count: 10000", "snapshot-count: 20000"))
            },
            restarts: false,
        },
    );
}

#[test]
fn a_variable_of_an_environment_file_that_was_changed_since_stays() {
    rolled_back_after_an_edit(
        &version(2),
        Supervisor::Units,
        Source::Environment,
        &Edited {
            path: ENVIRONMENT_FILE,
            change: |text| {
                let text = text.replace("ETCD_SNAPSHOT_COUNT=\"10000\"", "ETCD_SNAPSHOT_COUNT=20000");
                format!("{text}\n# by hand\nETCD_HEARTBEAT_INTERVAL=200\n")
            },
            restarts: false,
        },
    );
}

#[test]
fn a_drop_in_that_others_have_added_to_keeps_what_they_added() {
    const DROP_IN: &str = "/etc/systemd/system/etcd.service.d/50-seaworthy.conf";
    let binary = version(1);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Units, Source::Flags));
    let ids = migrated(&cluster);
    let node = cluster.node(0);
    // One line in the drop-in of the fix, and one in a drop-in of their own.
    node.edit(DROP_IN, |text| format!("{text}LimitNOFILE=65536\n")).unwrap();
    node.write("/etc/systemd/system/etcd.service.d/60-local.conf", "[Service]\nNice=-5\n", 0o644).unwrap();
    // Something that the next start would not survive, whoever makes it.
    let environment = node.read(ENVIRONMENT_FILE).unwrap();
    node.edit(ENVIRONMENT_FILE, |text| format!("{text}ETCD_INITIAL_CLUSTER_STATE=joining\n")).unwrap();
    let words = ["would not start", "initial-cluster-state", "joining"];
    expect_refused(&cluster, node, ids[0].last().unwrap(), &words);
    node.write(ENVIRONMENT_FILE, environment, 0o600).unwrap();
    let writer = cluster.writer().unwrap();
    let ((), seen) = cluster.watched(|| {
        let first: Vec<String> = ids.iter().map(|ids| ids[0].clone()).collect();
        roll_back_everywhere(&cluster, &first);
        expect_whole(&cluster);
    });
    let written = writer.finish().unwrap();
    report("drop-ins", &written);
    assert!(written.clean() && written.lost == 0, "{written:#?}");
    expect_together(&seen);
    let left = text(node, DROP_IN);
    assert!(left.contains("LimitNOFILE=65536") && !left.contains("peer-cert-file"), "{left}");
    assert_eq!(text(node, "/etc/systemd/system/etcd.service.d/60-local.conf"), "[Service]\nNice=-5\n");
    for node in &cluster.nodes()[1..] {
        assert_eq!(sh(node, "ls -A /etc/systemd/system/etcd.service.d 2>/dev/null || :"), "");
    }
    for node in cluster.nodes() {
        Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
    }
}

#[test]
fn what_cannot_be_undone_is_refused_before_anything_moves() {
    let binary = version(2);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    let ids = migrated(&cluster);
    let node = cluster.node(0);
    let (first, last) = (ids[0][0].clone(), ids[0].last().unwrap().clone());
    let made = node.read(MANIFEST).unwrap();

    // A setting of the first turn has another value: neither it nor the turn after it can be undone in one go.
    sh(node, &format!("cp -p {PKI}/seaworthy-peer.crt {PKI}/by-hand.crt"));
    let before = node.etcd_pid();
    node.edit(MANIFEST, |text| {
        text.replace(
            "--peer-cert-file=/etc/kubernetes/pki/etcd/seaworthy-peer.crt",
            &format!("--peer-cert-file={PKI}/by-hand.crt"),
        )
    })
    .unwrap();
    node.wait_restarted(before).unwrap();
    expect_whole(&cluster);
    expect_refused(
        &cluster,
        node,
        &first,
        &[MANIFEST, "peer-cert-file", "changed since by somebody else", &format!("--forget {first}")],
    );
    let before = node.etcd_pid();
    node.write(MANIFEST, &made, 0o600).unwrap();
    node.wait_restarted(before).unwrap();
    expect_whole(&cluster);

    // The file itself cannot be used. kubelet looks away meanwhile, for it would end the pod.
    node.pause_supervisor().unwrap();
    node.remove(MANIFEST).unwrap();
    expect_refused(&cluster, node, &last, &[MANIFEST, "gone"]);
    node.write(MANIFEST, String::from_utf8_lossy(&made).replace("spec:\n", "spec:\n\t"), 0o600).unwrap();
    expect_refused(&cluster, node, &last, &[MANIFEST, "cannot be undone in it", &format!("--forget {last}")]);
    node.write(MANIFEST, &made, 0o600).unwrap();
    node.resume_supervisor().unwrap();
    for (close, open) in [
        // Not every file system has the attribute: then nothing keeps the file from being changed, and nothing is to be seen.
        (format!("chattr +i {MANIFEST}"), format!("chattr -i {MANIFEST}")),
        (
            format!("mount --bind {MANIFEST} {MANIFEST} && mount -o remount,bind,ro {MANIFEST}"),
            format!("umount {MANIFEST}"),
        ),
        (
            "mount --bind /etc/kubernetes/manifests /etc/kubernetes/manifests && mount -o remount,bind,ro /etc/kubernetes/manifests"
                .to_owned(),
            "umount /etc/kubernetes/manifests".to_owned(),
        ),
    ] {
        if node.run("bash", ["-c", &close]).unwrap().status.success() {
            expect_refused(&cluster, node, &last, &[MANIFEST, "cannot be changed"]);
            sh(node, &open);
        }
    }
    // All is as it was, and so the way back is open again.
    expect_whole(&cluster);
    for (node, ids) in cluster.nodes().iter().zip(&ids) {
        let document = expect(&roll_back(node, ids.last().unwrap()), 0);
        assert_eq!(document["outcome"], "rolled-back", "{document:#}");
        expect_whole(&cluster);
    }
}

/// Gives each member the files of an authority for peers only, `peer-ca.crt` and `peer-ca.key`.
fn with_peer_authority(m: &mut MemberSpec, authority: &Authority) {
    m.file(format!("{PKI}/peer-ca.crt"), authority.pem(), 0o644);
    m.file(format!("{PKI}/peer-ca.key"), authority.key_pem(), 0o600);
}

#[test]
fn a_later_fix_of_another_rule_is_named_and_kept() {
    let binary = version(1);
    let authority = Authority::new("etcd-peer-ca").unwrap();
    let cluster = start(
        &binary,
        plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags)
            .each(move |m| with_peer_authority(m, &authority)),
    );
    let ids = migrated(&cluster);
    let node = cluster.node(0);
    let [certificate, key] = ["crt", "key"].map(|end| format!("{PKI}/peer-ca.{end}"));
    // 2.7 begins: m1 comes to trust both authorities, and waits for the others.
    let exchange = ["etcd-peer-ca", "--apply", "--ca-cert", &certificate, "--ca-key", &key];
    let document = expect(&fix(node, &exchange), 3);
    assert_eq!(document["outcome"], "waiting", "{document:#}");
    let later = document["fixes"][0].as_str().unwrap().to_owned();
    let bundle =
        text(node, MANIFEST).lines().find(|l| l.contains("peer-trusted-ca-file")).unwrap().to_owned();
    assert!(!bundle.contains("ca.crt"), "{bundle}");

    // The last turn of 2.4 has changed other settings: it can go back, and says what it leaves alone.
    let writer = cluster.writer().unwrap();
    let ((), seen) = cluster.watched(|| {
        let last = ids[0].last().unwrap();
        let document = expect(&fix(node, &["--rollback", last]), 1);
        expect_words(&document["plan"]["remarks"], &[MANIFEST, &later, "etcd-peer-ca"]);
        let document = expect(&fix(node, &["--rollback", last, "--apply"]), 0);
        assert_eq!(document["outcome"], "rolled-back", "{document:#}");
        expect_whole(&cluster);
    });
    let written = writer.finish().unwrap();
    report("2.4 rolled back below 2.7", &written);
    assert!(written.clean() && written.lost == 0, "{written:#?}");
    expect_together(&seen);
    let manifest = text(node, MANIFEST);
    assert!(manifest.contains("--listen-peer-urls=http://") && manifest.contains(&bundle), "{manifest}");

    // The first turn gave the setting that 2.7 has changed since.
    let words = [later.as_str(), "etcd-peer-ca", "peer-trusted-ca-file", "roll that one back first"];
    expect_refused(&cluster, node, &ids[0][0], &words);
    // As it says.
    let document = expect(&roll_back(node, &later), 0);
    assert_eq!(document["outcome"], "rolled-back", "{document:#}");
    for (node, ids) in cluster.nodes().iter().zip(&ids).skip(1) {
        expect(&roll_back(node, ids.last().unwrap()), 0);
    }
    expect_whole(&cluster);
    let document = expect(&roll_back(node, &ids[0][0]), 0);
    assert_eq!(document["outcome"], "rolled-back", "{document:#}");
    expect_whole(&cluster);
}

#[test]
fn a_record_that_is_not_ended_stays_with_its_rule() {
    let binary = version(0);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    let ids = migrated(&cluster);
    let node = cluster.node(0);
    let fix_id = ids[0].last().unwrap().clone();
    // The peers of m1 are told to dial it in plaintext, and it listens for TLS only: begun, handed over, told.
    killed(node, 4, &["--rollback", &fix_id, "--apply"]);
    assert_eq!((told(&cluster, 0).as_str(), spoken(&cluster, 0)), ("http", "https"));
    let pending = last(node);
    sh(node, &format!("chmod 644 {MANIFEST}; chmod 755 /var/lib/etcd"));

    // A rule that would touch the same files says that it is there, and the ways on; and resumes nothing.
    let still = Still::of(&cluster);
    let document = expect(&fix(node, &["manifest-mode", "--apply"]), 3);
    expect_words(
        &document,
        &["other-fix", &pending, PEER_TLS, &format!("--resume {pending}"), &format!("--forget {pending}")],
    );
    still.expect(&cluster);
    // One that touches others goes on, and says so as well.
    let output = fix(node, &["etcd-data-directory-mode", "--apply"]);
    expect(&output, 0);
    let remarks = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(remarks.contains(&pending), "{remarks}");
    assert_eq!((told(&cluster, 0).as_str(), spoken(&cluster, 0)), ("http", "https"));

    // How to get out is said in commands that can be typed: here those that finish it by hand.
    let fix_of = standing(node, &pending);
    assert_eq!(fix_of["status"], "unfinished", "{fix_of:#}");
    let by_hand =
        fix_of["way_out"].as_array().unwrap().iter().find(|way| way["to"].to_string().contains("by hand"));
    let commands: Vec<&str> =
        by_hand.unwrap()["commands"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let (update, edits): (Vec<&str>, Vec<&str>) = commands.iter().partition(|c| c.contains("etcdctl"));
    assert!(update.iter().all(|command| !command.contains("member update")), "that is done: {commands:?}");
    assert!(edits.iter().any(|command| command.contains(MANIFEST)), "{commands:?}");
    let before = node.etcd_pid();
    for command in edits {
        sh(node, command);
    }
    node.wait_restarted(before).unwrap();
    expect_whole(&cluster);

    // Closed, it is in nobody's way.
    let closed = seaworthy(node, &["fix", "--forget", &pending]);
    let warned = String::from_utf8_lossy(&closed.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(closed.status.success() && warned.contains("done, and stays as it is"), "{warned}");
    assert_eq!(standing(node, &pending)["status"], "closed");
    sh(node, &format!("chmod 644 {MANIFEST}"));
    let still = Still::of(&cluster).membership();
    expect(&fix(node, &["manifest-mode", "--apply"]), 0);
    assert_eq!(Still::of(&cluster).membership(), still);
    expect_whole(&cluster);
}

#[test]
fn what_is_resumed_is_compared_with_the_world_first() {
    let binary = version(2);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    let ids = migrated(&cluster);
    let node = cluster.node(1);
    let fix_id = ids[1].last().unwrap().clone();
    let list = cluster.members().unwrap();
    let id = list.iter().find(|member| member.name == node.name).unwrap().id;
    killed(node, 4, &["--rollback", &fix_id, "--apply"]);
    assert_eq!((told(&cluster, 1).as_str(), spoken(&cluster, 1)), ("http", "https"));
    // Somebody has seen it, and has put the membership right by hand.
    cluster.member_update(id, &[&format!("https://{}:2380", node.address)]).unwrap();
    expect_whole(&cluster);
    let pending = last(node);
    let still = Still::of(&cluster);
    for arguments in
        [&["--resume", &pending][..], &["--rollback", &fix_id, "--apply"], &[PEER_TLS, "--apply"]]
    {
        let document = expect(&fix(node, arguments), 4);
        assert_eq!(document["outcome"], "stopped", "{document:#}");
        expect_words(
            &document,
            &[&pending, "others have changed", "https://10.77.0.2:2380", "Nothing was changed"],
        );
        still.expect(&cluster);
    }
    // The way out is the one that is named.
    let fix_of = standing(node, &pending);
    expect_words(&fix_of["way_out"], &[&format!("--forget {pending}")]);
    assert!(seaworthy(node, &["fix", "--forget", &pending]).status.success());
    let document = expect(&fix(node, &[PEER_TLS, "--apply"]), 0);
    assert_eq!(document["fixes"], serde_json::json!([]), "{document:#}");
    expect_whole(&cluster);
}

#[test]
fn a_certificate_that_would_not_work_is_not_brought_back() {
    let binary = version(0);
    let cluster = start(
        &binary,
        spec(&binary, 3, |m| {
            with_authority(m);
            let authority = m.authority.clone();
            m.file(format!("{PKI}/expired-ca.crt"), authority.dated(Validity::Expired).unwrap().pem(), 0o644);
            for (name, validity) in
                [("good", Validity::Days(10)), ("soon", Validity::Days(3)), ("expired", Validity::Expired)]
            {
                m.issue(name, &authority, m.leaf().validity(validity));
            }
        }),
    );
    let node = cluster.node(0);
    let pids: Vec<_> = cluster.nodes().iter().map(Node::etcd_pid).collect();
    let writer = cluster.writer().unwrap();
    // etcd reads certificate and key at each handshake: to give it others is to let time pass.
    let stage = |name: &str| {
        sh(node, &format!("cd {PKI} && cp {name}.crt peer.crt && cp {name}.key peer.key"));
        let document = expect(&fix(node, &["certificate-expiry", "--apply"]), 0);
        document["fixes"][0].as_str().unwrap().to_owned()
    };
    let is = |name: &str| {
        node.read(&format!("{PKI}/{name}.crt")).unwrap() == node.read(&format!("{PKI}/peer.crt")).unwrap()
    };
    for (name, words) in [("soon", "within 7 days"), ("expired", "expired")] {
        let id = stage(name);
        expect_refused(&cluster, node, &id, &["peer.crt", words, &format!("--forget {id}")]);
        let of_status = standing(node, &id);
        assert_eq!(of_status["can_be_rolled_back"], false, "{of_status:#}");
        expect_words(&of_status["refusals"], &["peer.crt", words]);
        assert!(!is(name));
    }
    // It would work, if its authority still did.
    let id = stage("good");
    let authority = node.read(&format!("{PKI}/ca.crt")).unwrap();
    sh(node, &format!("cp {PKI}/expired-ca.crt {PKI}/ca.crt"));
    expect_refused(&cluster, node, &id, &["ca.crt", "expired"]);
    node.write(&format!("{PKI}/ca.crt"), authority, 0o644).unwrap();
    // It works again, and so it comes back; what is verified is what an audit says, though nothing has restarted.
    let planned = expect(&fix(node, &["--rollback", &id]), 1);
    expect_words(&planned["plan"]["steps"], &["links-whole", "cluster-healthy", "etcd-peer-certificate"]);
    let document = expect(&fix(node, &["--rollback", &id, "--apply"]), 0);
    assert_eq!(document["outcome"], "rolled-back", "{document:#}");
    assert!(is("good"));
    Audit::of(node).expect("etcd-peer-links", "pass", &[]);
    assert_eq!(cluster.nodes().iter().map(Node::etcd_pid).collect::<Vec<_>>(), pids);
    expect_whole(&cluster);
    let written = writer.finish().unwrap();
    assert!(written.clean() && written.lost == 0, "{written:#?}");
}

#[test]
fn a_half_open_link_is_mended_and_not_made_again() {
    let binary = version(0);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    load_everywhere(&cluster);
    let node = cluster.node(0);
    // The peers of m1 are told https, it listens for http, and nothing is left that says how that came.
    let lines = if cluster.leader().unwrap() == 0 { 4 } else { 2 };
    killed(node, lines, &[PEER_TLS, "--apply"]);
    sh(node, "rm -r /var/lib/seaworthy");
    let before = node.etcd_pid();
    node.kill().unwrap();
    node.wait_restarted(before).unwrap();
    assert_eq!((told(&cluster, 0).as_str(), spoken(&cluster, 0)), ("https", "http"));
    eventually(Duration::from_secs(20), || match cluster.connections()[1].contains(&0) {
        true => Err("m2 is still connected to m1".to_owned()),
        false => Ok(()),
    });
    // The plan that mends the link is allowed, and says so.
    let document = fix_document(&fix(node, &[PEER_TLS]));
    assert_eq!(document["refusals"], serde_json::json!([]), "{document:#}");
    expect_words(&document["plan"]["remarks"], &["m2", "m3", "not whole", "mends that"]);
    let writer = cluster.writer().unwrap();
    let document = expect(&fix(node, &[PEER_TLS, "--apply"]), 3);
    assert_eq!(document["outcome"], "waiting", "{document:#}");
    let id = document["fixes"][0].as_str().unwrap().to_owned();
    assert_eq!((told(&cluster, 0).as_str(), spoken(&cluster, 0)), ("https", "https"));
    expect_whole(&cluster);
    // That record knows nothing of the membership, which was changed before it: to undo it alone would part the link again.
    expect_refused(&cluster, node, &id, &["could not dial", "--forget"]);
    expect_whole(&cluster);
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);

    // The same the other way round: told http, listening https.
    let ids = last(cluster.node(1));
    killed(cluster.node(1), 4, &["--rollback", &ids, "--apply"]);
    sh(cluster.node(1), "rm -r /var/lib/seaworthy");
    assert_eq!((told(&cluster, 1).as_str(), spoken(&cluster, 1)), ("http", "https"));
    expect(&apply(cluster.node(1)), 0);
    expect_whole(&cluster);
    let written = writer.finish().unwrap();
    report("half-open links mended", &written);
    assert!(written.clean() && written.lost == 0, "{written:#?}");
}

#[test]
fn members_with_certificates_of_different_authorities_are_named() {
    let binary = version(2);
    let other = Authority::new("another-ca").unwrap();
    let cluster = start(
        &binary,
        plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags).each(move |m| {
            m.file(format!("{PKI}/other.crt"), other.pem(), 0o644);
            m.file(format!("{PKI}/other.key"), other.key_pem(), 0o600);
        }),
    );
    let [certificate, key] = ["crt", "key"].map(|end| format!("{PKI}/other.{end}"));
    let of_another = [PEER_TLS, "--apply", "--ca-cert", &certificate, "--ca-key", &key];
    expect(&fix(cluster.node(0), &[PEER_TLS, "--apply"]), 3);
    // The second member is about to load one of another authority.
    let refused = |index: usize, arguments: &[&str], loaded: &str| {
        let still = Still::of(&cluster);
        let document = expect(&fix(cluster.node(index), arguments), 3);
        assert_eq!(document["outcome"], "refused", "{document:#}");
        expect_words(&document, &[loaded, "etcd-ca", "another-ca", "--ca-cert"]);
        still.expect(&cluster);
    };
    refused(1, &of_another, "m1 has loaded a certificate");
    // It does all the same where it cannot know what the first one has loaded.
    let id = cluster.members().unwrap().into_iter().find(|m| m.name == "m1").unwrap().id;
    let path = format!("seaworthy.dev/fix/members/{id:x}");
    let record = cluster.get(&path).unwrap();
    expect_words(&serde_json::from_str(&record).unwrap(), &["etcd-ca", "authority"]);
    cluster.etcdctl(&["del", &path]).unwrap();
    expect(&fix(cluster.node(1), &of_another), 3);
    cluster.put(&path, &record).unwrap();
    // From now on nobody goes on: not the third, which loads, nor the others, which would encrypt.
    refused(2, &[PEER_TLS, "--apply"], "m2 has loaded a certificate");
    refused(2, &of_another, "m1 has loaded a certificate");
    refused(0, &[PEER_TLS, "--apply"], "m2 has loaded a certificate");
    refused(1, &of_another, "m1 has loaded a certificate");
    // As it says: what was loaded of the other authority goes back, and then it goes on.
    let document = expect(&roll_back(cluster.node(1), &last(cluster.node(1))), 0);
    assert_eq!(document["outcome"], "rolled-back", "{document:#}");
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);
}
