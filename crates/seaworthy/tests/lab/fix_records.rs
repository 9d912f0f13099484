//! Records that are not as they were written, directories that cannot be used, and runs that meet: each is said with what it is,
//! where, and the way out, and nothing moves.

use std::process::Output;
use std::thread;

use seaworthy_lab::{Cluster, MANIFEST, Node, Source, Supervisor, Validity};
use serde_json::Value;

use crate::common::{Audit, cluster, newest, seaworthy, start};
use crate::fix_apply::{PEER_TLS, PKI, apply_everywhere, expect, plaintext, roll_back};
use crate::fix_fault::load_everywhere;
use crate::fix_rollback::{expect_words, fix, killed, last, migrated, standing};
use crate::oracle::{Still, expect_whole, sh, spoken, told};

const STATE: &str = "/var/lib/seaworthy";
const DATA: &str = "etcd-data-directory-mode";

/// Returns a member by itself, whose files can be fixed without a restart.
fn alone() -> Cluster {
    cluster(&newest(), 1, |m| m.supervisor = Supervisor::Kubelet)
}

/// Opens the data directory to everybody, and lets the program close it; returns the id of that fix.
#[track_caller]
fn fixed(node: &Node) -> String {
    sh(node, "chmod 755 /var/lib/etcd");
    let document = expect(&fix(node, &[DATA, "--apply"]), 0);
    document["fixes"][0].as_str().unwrap().to_owned()
}

fn mode(node: &Node) -> String {
    sh(node, "stat -c %a /var/lib/etcd")
}

/// Returns everything that a run told a person, in one line.
fn told_by(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Asserts that a run ended with one of these exit codes, said all of `words`, and did not crash.
#[track_caller]
fn expect_told(output: &Output, codes: &[i32], words: &[&str]) {
    let told = told_by(output);
    assert!(codes.iter().any(|code| output.status.code() == Some(*code)), "{:?}: {told}", output.status);
    assert!(!told.contains("panicked"), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
}

/// Returns the documents of `--status`.
#[track_caller]
fn status(node: &Node) -> Value {
    expect(&seaworthy(node, &["fix", "--status", "-f", "json"]), 0)
}

#[test]
fn a_damaged_record_of_a_finished_fix_is_in_nobodys_way() {
    let cluster = alone();
    let node = cluster.node(0);
    let (earlier, damaged) = (fixed(node), fixed(node));
    // One byte, as a disk would have it.
    let journal = format!("{STATE}/fix-{damaged}/journal.jsonl");
    node.edit(&journal, |text| text.replacen("\"event\":\"before\"", "\"event\":\"befare\"", 1)).unwrap();

    let document = status(node);
    assert_eq!(document["damaged"][0]["id"], damaged.as_str(), "{document:#}");
    assert!(document["damaged"][0]["why"].as_str().unwrap().contains(&journal), "{document:#}");
    assert_eq!(document["fixes"][0]["id"], earlier.as_str(), "{document:#}");
    let text = seaworthy(node, &["fix", "--status"]);
    expect_told(&text, &[0], &["damaged", &damaged, &journal, &format!("--forget {damaged}")]);
    // Fixes of every rule go on, and name it.
    sh(node, &format!("chmod 644 {MANIFEST}"));
    let output = fix(node, &["manifest-mode", "--apply"]);
    expect(&output, 0);
    expect_told(&output, &[0], &[&damaged, &format!("--forget {damaged}")]);
    let later = fixed(node);
    expect(&fix(node, &["--rollback", &later, "--apply"]), 0);
    assert_eq!(mode(node), "755");
    // Only what depends on it does not: what came before it, in the same place, and it itself.
    let still = Still::of(&cluster);
    let document = expect(&fix(node, &["--rollback", &earlier, "--apply"]), 3);
    expect_words(&document, &[&damaged, &format!("--forget {damaged}")]);
    for arguments in
        [&["--rollback", &damaged][..], &["--rollback", &damaged, "--apply"], &["--resume", &damaged]]
    {
        expect_told(&fix(node, arguments), &[2], &[&journal, "line 2", &format!("--forget {damaged}")]);
    }
    still.expect(&cluster);
    // Set aside, it is as if it had never been; and it is still there.
    let output = fix(node, &["--forget", &damaged]);
    let document = expect(&output, 0);
    let aside = document["aside"].as_str().unwrap().to_owned();
    assert_eq!(aside, format!("{STATE}/aside-{damaged}"));
    sh(node, &format!("test -f {aside}/plan.json"));
    assert_eq!(status(node)["damaged"], serde_json::json!([]));
    sh(node, "chmod 700 /var/lib/etcd");
    expect(&fix(node, &["--rollback", &earlier, "--apply"]), 0);
    assert_eq!(mode(node), "755");
}

#[test]
fn a_record_that_cannot_be_used_is_named_with_the_way_out() {
    let cluster = alone();
    let node = cluster.node(0);
    let id = fixed(node);
    let record = format!("{STATE}/fix-{id}");
    let plan = format!("{record}/plan.json");
    let journal = format!("{record}/journal.jsonl");
    // A plan that was changed together with its hash, so that only its meaning is wrong.
    let with_hash = |change: &str| {
        format!(
            "cd {record} && old=$(sha256sum <plan.json | cut -c-64) && {change} && new=$(sha256sum <plan.json | cut -c-64) && \
             sed -i s/$old/$new/ journal.jsonl"
        )
    };
    let cases: Vec<(&str, String, &str, &str)> = vec![
        ("truncated plan", format!("truncate -s 100 {plan}"), &plan, "EOF"),
        ("empty plan", format!("truncate -s 0 {plan}"), &plan, "EOF"),
        ("no plan", format!("rm {plan}"), &plan, "No such file"),
        (
            "tampered plan",
            format!("sed -i s:/var/lib/etcd:/etc/shadow:g {plan}"),
            &journal,
            "does not begin with the plan",
        ),
        ("empty journal", format!("truncate -s 0 {journal}"), &journal, "does not begin with the plan"),
        ("no journal", format!("rm {journal}"), &journal, "No such file"),
        ("line lost", format!("sed -i 2d {journal}"), &journal, "line 2"),
        ("foreign line", format!("sed -i '2s/.*/hello/' {journal}"), &journal, "line 2"),
        (
            "newer plan",
            with_hash("sed -i s:dev/plan/v2:dev/plan/v9: plan.json"),
            &record,
            "seaworthy.dev/plan/v9",
        ),
        ("foreign plan", with_hash("echo '{}' >plan.json"), &record, "of which format"),
        ("unknown step", with_hash("sed -i s/set-attributes/run-program/ plan.json"), &record, "run-program"),
        (
            "plan that is a link",
            format!("mv {plan} /tmp/plan && ln -s /tmp/plan {plan}"),
            &plan,
            "symbolic link",
        ),
        ("plan that is a directory", format!("rm {plan} && mkdir {plan}"), &plan, "no regular file"),
        ("huge journal", format!("truncate -s 1G {journal}"), &journal, "more than 64 MiB"),
    ];
    sh(node, &format!("cp -a {record} /tmp/good"));
    for (what, damage, place, word) in cases {
        sh(node, &damage);
        let still = Still::of(&cluster);
        for arguments in [
            &["--rollback", &id][..],
            &["--rollback", &id, "--apply"],
            &["--rollback", "--apply"],
            &["--resume", &id],
            &["--status"],
        ] {
            let output = seaworthy(node, &[&["fix"], arguments].concat());
            let of_this = arguments.contains(&id.as_str()) || arguments.contains(&"--status");
            let (word, place) = if of_this { (word, place) } else { ("", "") };
            let way = if of_this { format!("--forget {id}") } else { String::new() };
            let codes: &[i32] = if arguments.contains(&"--status") { &[0] } else { &[2] };
            eprintln!("{what}: {}", told_by(&output));
            expect_told(&output, codes, &[place, word, &way]);
        }
        still.expect(&cluster);
        sh(node, &format!("rm -r {record} && cp -a /tmp/good {record}"));
    }
    // A torn last line has never been written: this fix is not ended then, and can be.
    let before = text(node, &journal);
    node.write(&journal, &before.as_bytes()[..before.len() - 20], 0o600).unwrap();
    assert_eq!(standing(node, &id)["status"], "unfinished");
    expect(&fix(node, &["--resume", &id]), 0);
    assert_eq!(standing(node, &id)["status"], "done");
    expect(&fix(node, &["--rollback", &id, "--apply"]), 0);
    assert_eq!(mode(node), "755");
}

fn text(node: &Node, path: &str) -> String {
    String::from_utf8(node.read(path).unwrap()).unwrap()
}

#[test]
fn what_a_fix_was_before_it_is_tampered_with_is_not_brought_back() {
    let binary = newest();
    let cluster = start(
        &binary,
        crate::common::spec(&binary, 3, |m| {
            crate::fix_apply::with_authority(m);
            if m.index == 0 {
                let authority = m.authority.clone();
                m.issue("peer", &authority, m.leaf().validity(Validity::Days(10)));
            }
        }),
    );
    let node = cluster.node(0);
    let document = expect(&fix(node, &["certificate-expiry", "--apply"]), 0);
    let id = document["fixes"][0].as_str().unwrap();
    let images = format!("{STATE}/fix-{id}/preimages");
    sh(node, &format!("cp -a {images} /tmp/images"));
    for (damage, word) in [
        (format!("for f in {images}/*.bytes; do echo other >$f; done"), "is not what was written there"),
        (format!("rm {images}/*.bytes"), "is gone"),
        (format!("rm -r {images}"), "No such file"),
    ] {
        sh(node, &damage);
        let still = Still::of(&cluster);
        for arguments in [&["--rollback", id][..], &["--rollback", id, "--apply"]] {
            let output = fix(node, arguments);
            eprintln!("{damage}: {}", told_by(&output));
            expect_told(&output, &[3], &[&images, word, "--forget"]);
        }
        still.expect(&cluster);
        sh(node, &format!("rm -rf {images} && cp -a /tmp/images {images}"));
    }
    // The record of another node is no record of this one.
    sh(node, &format!("tar -C {STATE} -cf /tmp/record.tar fix-{id}"));
    let other = cluster.node(1);
    other.write("/tmp/record.tar", node.read("/tmp/record.tar").unwrap(), 0o600).unwrap();
    sh(other, &format!("mkdir -m 700 {STATE} && tar -C {STATE} -xf /tmp/record.tar"));
    let still = Still::of(&cluster);
    for arguments in [&["--rollback", id][..], &["--rollback", id, "--apply"]] {
        let output = fix(other, arguments);
        eprintln!("foreign: {}", told_by(&output));
        expect_told(&output, &[3], &["m1", "m2", &format!("--forget {id}")]);
    }
    still.expect(&cluster);
    expect(&roll_back(node, id), 0);
    expect_whole(&cluster);
}

#[test]
fn a_directory_of_records_that_cannot_be_used_stops_everything_before_it_begins() {
    let cluster = cluster(&newest(), 1, |m| {
        m.supervisor = Supervisor::Kubelet;
        m.disks = vec![("/var/lib/seaworthy".into(), 1 << 20)];
    });
    let node = cluster.node(0);
    sh(node, &format!("chmod 700 {STATE}"));
    let id = fixed(node);
    sh(node, "chmod 755 /var/lib/etcd");
    let begins: [&[&str]; 2] = [&[DATA, "--apply"], &["--rollback", &id, "--apply"]];
    let reads: [&[&str]; 2] = [&["--status"], &["--rollback", &id]];
    let expect_all = |runs: &[&[&str]], words: &[&str]| {
        let still = Still::of(&cluster);
        for arguments in runs {
            let output = fix(node, arguments);
            eprintln!("{arguments:?}: {}", told_by(&output));
            expect_told(&output, &[4], &[&[STATE], words].concat());
        }
        still.expect(&cluster);
    };
    // What the record would undo is there to be undone.
    sh(node, "chmod 700 /var/lib/etcd");
    node.fill(STATE).unwrap();
    expect_all(&begins[1..], &["No space left on device", "make room there"]);
    sh(node, "chmod 755 /var/lib/etcd");
    expect_all(&begins[..1], &["No space left on device", "make room there"]);
    sh(node, "chmod 700 /var/lib/etcd");
    // To read takes no space.
    expect(&fix(node, &["--status"]), 0);
    expect(&fix(node, &["--rollback", &id]), 1);
    node.empty(STATE).unwrap();

    node.protect(STATE).unwrap();
    expect_all(&begins[1..], &["Read-only file system", "make it writable"]);
    expect(&fix(node, &["--status"]), 0);
    node.unprotect(STATE).unwrap();

    let all = [&begins[1..], &reads[..]].concat();
    sh(node, &format!("chown 1000 {STATE}"));
    expect_all(&all, &["belongs to the user with id 1000", "nobody else can write to"]);
    sh(node, &format!("chown 0 {STATE} && chmod 777 {STATE}"));
    expect_all(&all, &["has mode 0777", "nobody else can write to"]);
    sh(node, &format!("chmod 700 {STATE}"));
    let elsewhere = [&["--state-dir", "/tmp/link"], &["--rollback", id.as_str(), "--apply"][..]].concat();
    sh(node, &format!("ln -s {STATE} /tmp/link"));
    let still = Still::of(&cluster);
    expect_told(&fix(node, &elsewhere), &[4], &["/tmp/link", "is a symbolic link"]);
    still.expect(&cluster);
    expect(&fix(node, &["--rollback", &id, "--apply"]), 0);
    assert_eq!(mode(node), "755");
}

#[test]
fn a_rollback_meets_a_node_that_goes_forward() {
    let binary = newest();
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    load_everywhere(&cluster);
    let (one, two) = (cluster.node(0), cluster.node(1));
    let id = last(one);
    // m2 has begun its turn: its peers are told https, and it listens for http.
    let lines = if cluster.leader().unwrap() == 1 { 4 } else { 2 };
    killed(two, lines, &[PEER_TLS, "--apply"]);
    assert_eq!((told(&cluster, 1).as_str(), spoken(&cluster, 1)), ("https", "http"));
    let still = Still::of(&cluster);
    let output = fix(one, &["--rollback", &id, "--apply"]);
    expect_told(&output, &[3], &["m2"]);
    still.expect(&cluster);
    // Both at once, each in the other's way: nobody is parted, whoever comes first.
    let writer = cluster.writer().unwrap();
    let ((), seen) = cluster.watched(|| {
        thread::scope(|scope| {
            let back = scope.spawn(|| {
                seaworthy(one, &["fix", "--rollback", &id, "--apply", "-f", "json", "--wait", "10"])
            });
            let forth =
                scope.spawn(|| seaworthy(two, &["fix", PEER_TLS, "--apply", "-f", "json", "--wait", "10"]));
            let (back, forth) = (expect(&back.join().unwrap(), 3), expect(&forth.join().unwrap(), 3));
            assert_eq!(forth["outcome"], "waiting", "{forth:#}");
            expect_words(&back, &["m2", "m3"]);
        });
        expect_whole(&cluster);
    });
    let written = writer.finish().unwrap();
    assert!(written.clean() && written.lost == 0, "{written:#?}");
    assert!(seen.isolated.is_empty(), "{seen:#?}");
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);
}

#[test]
fn the_same_rollback_twice_at_once_is_one_rollback() {
    let binary = crate::common::versions().remove(0);
    let cluster = start(&binary, plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags));
    let before: Vec<_> = cluster.nodes().iter().map(|node| node.read(MANIFEST).unwrap()).collect();
    let ids = migrated(&cluster);
    let starts: Vec<u64> = cluster.nodes().iter().map(Node::starts).collect();
    thread::scope(|scope| {
        let twice = cluster.nodes().iter().zip(&ids).chain(cluster.nodes().iter().zip(&ids));
        let runs: Vec<_> = twice.map(|(node, ids)| scope.spawn(move || roll_back(node, &ids[0]))).collect();
        for run in runs {
            let document = expect(&run.join().unwrap(), 0);
            assert_eq!(document["outcome"], "rolled-back", "{document:#}");
        }
    });
    for ((node, before), starts) in cluster.nodes().iter().zip(before).zip(starts) {
        assert_eq!(node.read(MANIFEST).unwrap(), before);
        assert_eq!(node.starts(), starts + 2, "each turn was undone once");
        Audit::of(node).expect(PEER_TLS, "fail", &["is plaintext"]);
    }
    expect_whole(&cluster);
}

#[test]
fn an_authority_that_has_expired_since_issues_nothing_more() {
    let binary = newest();
    let cluster = start(
        &binary,
        plaintext(&binary, 3, Supervisor::Kubelet, Source::Flags).each(|m| {
            let expired = m.authority.dated(Validity::Expired).unwrap();
            m.file(format!("{PKI}/expired.crt"), expired.pem(), 0o644);
        }),
    );
    let node = cluster.node(0);
    let before = node.read(MANIFEST).unwrap();
    let (starts, valid) = (node.starts(), node.read(&format!("{PKI}/ca.crt")).unwrap());
    // Killed when it was about to issue a certificate, and resumed when the authority has expired.
    killed(node, 1, &[PEER_TLS, "--apply"]);
    sh(node, &format!("cp {PKI}/expired.crt {PKI}/ca.crt"));
    let id = last(node);
    let output = fix(node, &["--resume", &id]);
    eprintln!("{}", told_by(&output));
    expect_told(&output, &[5], &["rolled-back", "ca.crt", "expired"]);
    assert_eq!((node.read(MANIFEST).unwrap(), node.starts()), (before, starts));
    assert_eq!(sh(node, &format!("ls {PKI}/seaworthy-peer.* 2>/dev/null || :")), "");
    // A new try does not begin.
    let still = Still::of(&cluster);
    expect_told(&fix(node, &[PEER_TLS, "--apply"]), &[3], &["ca.crt", "expired"]);
    still.expect(&cluster);
    node.write(&format!("{PKI}/ca.crt"), valid, 0o644).unwrap();
    for output in apply_everywhere(&cluster) {
        expect(&output, 0);
    }
    expect_whole(&cluster);
}
