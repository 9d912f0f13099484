//! The operations, on real clusters of every etcd in the lab: `etcd-op` runs on a node, as a fix would.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::{
    env,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use seaworthy_lab::{Authority, Cluster, ClusterSpec, EtcdBinary, MemberSpec, PKI_DIR};
use serde_json::{Value, json};

/// Returns the folder of `etcd-op`, which is built first: cargo does not when it is given the name of a test.
fn examples() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "--example", "etcd-op", "-p", env!("CARGO_PKG_NAME"), "--target-dir"]);
        assert!(cargo.arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        target.join("debug/examples")
    });
    &FOLDER
}

/// A cluster, and whether its clients use TLS.
struct Lab {
    cluster: Cluster,
    tls: bool,
}

impl Lab {
    fn start(binary: &EtcdBinary, tls: bool, mut change: impl FnMut(&mut MemberSpec) + 'static) -> Self {
        let stranger = Authority::new("stranger").unwrap();
        let spec = ClusterSpec::new(binary).share(examples(), "/host-bin").each(move |m| {
            if !tls {
                m.plain();
            }
            m.file("/tmp/stranger.crt", stranger.pem(), 0o644);
            m.issue("stranger", &stranger, m.leaf());
            change(m);
        });
        let cluster = Cluster::start(spec).unwrap_or_else(|e| panic!("etcd {}: {e}", binary.version));
        Self { cluster, tls }
    }

    fn url(&self, index: usize) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://10.77.0.{}:2379", index + 1)
    }

    /// The node's own endpoint first, then the others.
    fn urls(&self, index: usize) -> String {
        let count = self.cluster.nodes().len();
        (index..index + count).map(|i| self.url(i % count)).collect::<Vec<_>>().join(",")
    }

    fn command(&self, index: usize, endpoints: &str, words: &[&str]) -> Command {
        let file = |name: &str| format!("{PKI_DIR}/{name}");
        let (ca, cert, key) =
            (file("ca.crt"), file("healthcheck-client.crt"), file("healthcheck-client.key"));
        let tls = ["--ca", &ca, "--cert", &cert, "--key", &key];
        self.command_as(index, if self.tls { &tls } else { &[] }, endpoints, words)
    }

    fn command_as(&self, index: usize, tls: &[&str], endpoints: &str, words: &[&str]) -> Command {
        let mut command = self.cluster.node(index).command("/host-bin/etcd-op");
        command.args(tls).args(["--endpoints", endpoints]).args(words);
        command
    }

    /// Runs an operation on a node, at all endpoints.
    fn op(&self, index: usize, words: &[&str]) -> Value {
        answer(&mut self.command(index, &self.urls(index), words))
    }

    /// Runs an operation on a node, at one endpoint.
    fn at(&self, index: usize, words: &[&str]) -> Value {
        answer(&mut self.command(index, &self.url(index), words))
    }

    fn leader(&self) -> usize {
        let status = self.op(0, &["status"]);
        let leader = status["leader"].as_u64().unwrap_or_else(|| panic!("{status}"));
        (0..3).find(|i| self.at(*i, &["status"])["id"].as_u64() == Some(leader)).unwrap()
    }
}

fn answer(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a test on each version, with plaintext clients and with mutual TLS.
fn everywhere(test: impl Fn(&Lab, &EtcdBinary)) {
    for binary in EtcdBinary::required().unwrap() {
        for tls in [false, true] {
            println!("etcd {} {}", binary.version, if tls { "mutual TLS" } else { "plaintext" });
            test(&Lab::start(&binary, tls, |_| {}), &binary);
        }
    }
}

fn newest() -> EtcdBinary {
    EtcdBinary::required().unwrap().pop().unwrap()
}

#[track_caller]
fn assert_error(answer: &Value, kind: &str, words: &[&str]) {
    assert_eq!(answer["kind"], kind, "{answer}");
    let text = answer["error"].as_str().unwrap();
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in: {text}"));
}

#[test]
fn every_operation_does_what_etcdctl_says_it_did() {
    everywhere(|lab, binary| {
        let etcdctl = |words: &[&str]| lab.cluster.etcdctl(words).unwrap();

        // Members, as etcdctl lists them, and as each member knows them.
        let mut members = lab.op(0, &["members"]);
        let listed = lab.cluster.members().unwrap();
        let names: Vec<_> = members.as_array().unwrap().iter().map(|m| m["name"].clone()).collect();
        assert_eq!(names.len(), 3, "{members}");
        for (member, listed) in members.as_array().unwrap().iter().zip(&listed) {
            assert_eq!(member["id"].as_u64(), Some(listed.id));
            assert_eq!(member["peer_urls"], json!(listed.peer_urls));
            assert_eq!(member["name"], json!(listed.name));
            assert_eq!(member["learner"], json!(false));
            let index = listed.name[1..].parse::<usize>().unwrap() - 1;
            assert_eq!(member["client_urls"], json!([lab.url(index)]));
        }
        let id = |name: &str| listed.iter().find(|m| m.name == name).unwrap().id;

        // Update: etcdctl sees it, and so does each member by itself; and back.
        let (id2, old) =
            (id("m2").to_string(), members.as_array().unwrap().iter().find(|m| m["name"] == "m2"));
        let old = old.unwrap()["peer_urls"][0].as_str().unwrap().to_string();
        let new = "http://10.77.0.2:12380";
        assert_eq!(lab.op(0, &["update", &id2, &old, new]), Value::Null);
        let updated = lab.cluster.members().unwrap();
        assert_eq!(updated.iter().find(|m| m.name == "m2").unwrap().peer_urls.len(), 2);
        assert!(etcdctl(&["member", "list"]).contains(new));
        assert_eq!(lab.op(1, &["update", &id2, &old]), Value::Null);
        members = lab.op(2, &["members"]); // read through a quorum, so at once
        assert!(!members.to_string().contains(new), "{members}");
        assert_eq!(lab.at(2, &["members-here"]), members);
        assert_error(&lab.op(0, &["update", "1", "http://10.77.0.2:1"]), "NotFound", &["member not found"]);
        let other = members.as_array().unwrap().iter().find(|m| m["name"] == "m1").unwrap();
        let taken = other["peer_urls"][0].as_str().unwrap();
        assert_error(
            &lab.op(0, &["update", &id2, taken]),
            "Refused",
            &["Peer URLs already exists", "MemberUpdate at"],
        );

        // Keys.
        let first = lab.op(0, &["put", "a/1", "one"]).as_i64().unwrap();
        let second = lab.op(1, &["put", "a/2", "two"]).as_i64().unwrap();
        lab.op(2, &["put", "b", "three"]);
        assert_eq!(second, first + 1);
        assert_eq!(etcdctl(&["get", "--print-value-only", "a/2"]).trim(), "two");
        let one = json!({ "key": "a/1", "value": "one", "created": first, "modified": first, "lease": 0 });
        assert_eq!(lab.op(1, &["get", "a/1"]), json!([one]));
        assert_eq!(lab.op(2, &["get-prefix", "a/"]).as_array().unwrap().len(), 2);
        assert_eq!(lab.op(2, &["get-prefix", ""]).as_array().unwrap().len(), 3);
        assert_eq!(lab.op(2, &["get", "a/"]), json!([]));
        assert_eq!(lab.op(1, &["put-if-created", "0", "a/1", "new"]), Value::Null);
        assert!(lab.op(1, &["put-if-created", "0", "c", "new"]).is_i64());
        assert!(lab.op(1, &["put-if-modified", &first.to_string(), "a/1", "uno"]).is_i64());
        assert_eq!(lab.op(1, &["put-if-modified", &first.to_string(), "a/1", "eins"]), Value::Null);
        assert_eq!(lab.op(0, &["get", "a/1"])[0]["value"], "uno");
        assert_eq!(lab.op(0, &["delete", "c"]), json!(true));
        assert_eq!(lab.op(0, &["delete", "c"]), json!(false));

        // Hashes agree, and follow what is written.
        let hashes = || {
            let revision = lab.op(0, &["revision"]).as_i64().unwrap();
            // A follower may be a moment behind.
            (0..3).for_each(|i| assert!(lab.at(i, &["revision"]).as_i64() >= Some(revision)));
            let hashes: Vec<_> = (0..3).map(|i| lab.at(i, &["hash", &revision.to_string()])).collect();
            assert!(hashes[0]["hash"].is_u64(), "{hashes:?}");
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
            assert_eq!(hashes[0]["revision"], json!(revision));
            hashes[0]["hash"].clone()
        };
        let before = hashes();
        lab.op(0, &["put", "b", "drei"]);
        assert_ne!(hashes(), before);
        assert_error(&lab.at(0, &["hash", "999999"]), "Refused", &["future revision", "status 11"]);

        // Status, and leadership: asked of a follower, it is the leader that hands over.
        let status = lab.at(0, &["status"]);
        assert_eq!(status["id"].as_u64(), Some(id("m1")));
        assert_eq!(status["version"], binary.version);
        assert_eq!((&status["errors"], &status["learner"]), (&json!([]), &json!(false)));
        assert!(status["applied"].as_u64() > Some(0) && status["size"].as_u64() > Some(4096), "{status}");
        let leader = lab.leader();
        let (follower, target) = ((leader + 1) % 3, (leader + 2) % 3);
        let target_id = id(&format!("m{}", target + 1)).to_string();
        assert_eq!(lab.at(follower, &["move-leader", &target_id]), Value::Null);
        let seen = lab.at(leader, &["status"])["leader"].clone();
        assert_eq!(seen.to_string(), target_id);
        assert_eq!(lab.op(0, &["move-leader", &target_id]), Value::Null);
        assert_error(&lab.op(0, &["move-leader", "1"]), "Refused", &["bad leader transferee"]);

        // A snapshot that etcd's own tool can read.
        let info = lab.at(1, &["snapshot", "/tmp/snapshot.db"]);
        let bytes = lab.cluster.node(1).read("/tmp/snapshot.db").unwrap();
        assert_eq!(info["bytes"].as_u64(), Some(bytes.len() as u64), "{info}");
        assert_eq!(bytes.len() % 4096, 32);
        let trailer: String = bytes[bytes.len() - 32..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(info["sha256"], trailer);
        let read = lab.cluster.node(1).run("etcdctl", ["snapshot", "status", "/tmp/snapshot.db"]).unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        assert_eq!(lab.op(0, &["alarms"]), json!([]));
    });
}

#[test]
fn without_a_quorum_every_call_ends_and_says_why() {
    everywhere(|lab, _| {
        let survivor = lab.at(0, &["status"])["id"].as_u64().unwrap();
        lab.cluster.node(1).kill().unwrap();
        lab.cluster.node(2).kill().unwrap();
        let timed = |words: &[&str], endpoints: &str| {
            let (words, start) = ([&["--timeout", "1"], words].concat(), Instant::now());
            let [timeout, limit, words @ ..] = words.as_slice() else { unreachable!() };
            let mut command = lab.cluster.node(0).command("/host-bin/etcd-op");
            let ca = format!("{PKI_DIR}/ca.crt");
            let (cert, key) = (ca.replace("ca.crt", "peer.crt"), ca.replace("ca.crt", "peer.key"));
            if lab.tls {
                command.args(["--ca", &ca, "--cert", &cert, "--key", &key]);
            }
            let answer = answer(command.args([timeout, limit, "--endpoints", endpoints]).args(words));
            assert!(start.elapsed() < Duration::from_secs(30), "{words:?} took {:?}", start.elapsed());
            answer
        };
        // Before the member has noticed it is the deadline, then etcd's own refusal.
        let id = survivor.to_string();
        for _ in 0..2 {
            for words in
                [&["put", "k", "v"][..], &["get", "k"], &["members"], &["update", &id, "http://10.77.0.1:1"]]
            {
                let answer = timed(words, &lab.url(0));
                let kind = answer["kind"].as_str().unwrap_or_default();
                assert!(["NoLeader", "Timeout"].contains(&kind), "{words:?}: {answer}");
                assert_eq!(answer["maybe"], json!(kind == "Timeout"), "{answer}");
            }
        }
        assert_error(
            &timed(&["put", "k", "v"], &lab.url(0)),
            "NoLeader",
            &["a quorum of members must be running"],
        );
        // The one that lives is what is told of, not those that are gone.
        assert_error(&timed(&["get", "k"], &lab.urls(1)), "NoLeader", &["Range at", "10.77.0.1"]);
        assert_error(&timed(&["acquire", "lock", "me", "5", "1"], &lab.urls(0)), "NoLeader", &[]);
        // What needs no quorum answers.
        assert_eq!(timed(&["status"], &lab.url(0))["leader"], Value::Null);
        assert_eq!(timed(&["members-here"], &lab.url(0)).as_array().unwrap().len(), 3);
        assert_error(&timed(&["status"], &lab.url(1)), "Unreachable", &["10.77.0.2:2379"]);
        let both = format!("{},{}", lab.url(1), lab.url(2));
        assert_error(&timed(&["put", "k", "v"], &both), "Unreachable", &["10.77.0.2:2379", "10.77.0.3:2379"]);
        // With a quorum again, everything does.
        lab.cluster.node(1).start().unwrap();
        lab.cluster.node(1).wait_ready().unwrap();
        assert!(lab.op(2, &["put", "k", "v"]).is_i64(), "goes past the member that is still gone");
    });
}

#[test]
fn a_member_that_hangs_costs_its_deadline_only() {
    let lab = Lab::start(&newest(), true, |_| {});
    let follower = (lab.leader() + 1) % 3;
    let pid = lab.cluster.node(follower).etcd_pid().unwrap().to_string();
    let signal = |name: &str| {
        let output =
            lab.cluster.node(follower).run("sh", ["-c", "kill -s \"$0\" \"$1\"", name, &pid]).unwrap();
        assert!(output.status.success());
    };
    signal("STOP");
    let start = Instant::now();
    let members = lab.op(follower, &["members"]);
    assert_eq!(members.as_array().map(Vec::len), Some(3), "{members}");
    assert!((1.9..20.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert!(lab.op(follower, &["put", "k", "v"]).is_i64(), "nothing was sent, so it may try another member");
    assert_error(&lab.at(follower, &["status"]), "Unreachable", &["no connection within 2.0s"]);
    signal("CONT");
}

#[test]
fn who_is_not_trusted_is_told_clearly() {
    for binary in EtcdBinary::required().unwrap() {
        let lab = Lab::start(&binary, true, |_| {});
        let file = |name: &str| format!("{PKI_DIR}/{name}");
        let (ca, cert, key) = (file("ca.crt"), file("peer.crt"), file("peer.key"));
        let (stranger, stranger_key) = (file("stranger.crt"), file("stranger.key"));
        let url = lab.url(0);
        for (tls, url, kind, words) in [
            (
                &["--ca", "/tmp/stranger.crt", "--cert", &cert, "--key", &key][..],
                &*url,
                "UntrustedServer",
                &["not issued by the given CA", "check the CA file", "https://10.77.0.1:2379"][..],
            ),
            (&["--ca", &ca], &url, "RefusedIdentity", &["refused the client certificate", "ertificate"]),
            (
                &["--ca", &ca, "--cert", &stranger, "--key", &stranger_key],
                &url,
                "RefusedIdentity",
                &["refused the client certificate"],
            ),
            (&["--ca", &ca], "https://m1:2379", "RefusedIdentity", &[]), // m1 is a name in its certificate
            (&["--ca", &ca], "https://m2:2379", "RefusedIdentity", &[]),
            (&["--ca", &ca], "https://127.0.0.1:2381", "Unreachable", &["does not speak TLS", "http://"]),
            (&[], "http://10.77.0.1:2379", "Unreachable", &["if it speaks TLS, write https://"]),
            (&[], "http://10.77.0.1:9", "Unreachable", &["refused"]),
            (&[], "http://nowhere.invalid:2379", "Unreachable", &[]),
            (&["--ca", &key], &url, "BadMaterial", &["the CA file", "no certificate"]),
            (
                &["--ca", &ca, "--cert", &cert, "--key", &stranger_key],
                &url,
                "BadMaterial",
                &["the client key"],
            ),
            (&[], &url, "BadEndpoint", &["no CA"]),
        ] {
            let answer = answer(&mut lab.command_as(0, tls, url, &["put", "k", "v"]));
            assert_error(&answer, kind, words);
            println!("etcd {}: {}", binary.version, answer["error"]);
            assert_eq!(answer["maybe"], json!(false), "{answer}");
        }
        assert_eq!(lab.op(0, &["get", "k"]), json!([]));
        // A certificate for another name.
        let lab = Lab::start(&binary, true, |m| {
            if m.index == 1 {
                m.issue("server", &m.authority.clone(), m.leaf().no_sans().san("127.0.0.1"));
                m.client = Some(vec![
                    "--endpoints=https://127.0.0.1:2379".into(),
                    format!("--cacert={PKI_DIR}/ca.crt"),
                    format!("--cert={PKI_DIR}/peer.crt"),
                    format!("--key={PKI_DIR}/peer.key"),
                ]);
            }
        });
        assert_error(&lab.at(1, &["status"]), "UntrustedServer", &["10.77.0.2", "valid"]);
        assert!(lab.op(1, &["put", "k", "v"]).is_i64(), "the next member is to be believed");
    }
}

#[test]
fn a_full_database_is_an_alarm() {
    let lab = Lab::start(&newest(), false, |m| m.set("quota-backend-bytes", "200000"));
    let value = "x".repeat(60_000);
    let refused = (0..20).map(|i| lab.op(0, &["put", &format!("k{i}"), &value])).find(|put| !put.is_i64());
    assert_error(&refused.unwrap(), "Refused", &["space exceeded"]);
    let alarms = lab.op(1, &["alarms"]).to_string();
    assert!(alarms.contains("NoSpace"), "{alarms}");
    let errors = lab.at(2, &["status"])["errors"].to_string();
    assert!(errors.contains("NOSPACE"), "{errors}");
}

/// A program on a node that holds the lock and says how it goes.
struct Holder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    fn start(lab: &Lab, index: usize, ttl: &str) -> Self {
        let owner = format!("m{}", index + 1);
        let mut command = lab.command(index, &lab.urls(index), &["hold", "lock", &owner, ttl, "60"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// Signals the program itself, not the one that entered the node.
    fn signal(lab: &Lab, index: usize, name: &str) {
        let script = "for p in /proc/[0-9]*; do
            case $(readlink $p/exe) in */etcd-op) kill -s \"$0\" ${p#/proc/};; esac
        done";
        assert!(lab.cluster.node(index).run("bash", ["-c", script, name]).unwrap().status.success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_node_at_a_time_has_the_lock() {
    everywhere(|lab, _| {
        let count = |index: usize| {
            let owner = format!("m{}", index + 1);
            let mut command = lab.command(index, &lab.urls(index), &["count", "lock", &owner, "8"]);
            command.stdout(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = (0..3).map(count).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        // Each read a number, waited, and wrote the next one: without the lock some would have written the
        // same.
        assert_eq!(lab.op(0, &["get", "lock/counter"])[0]["value"], "24");
        assert_eq!(lab.op(0, &["get", "lock"]), json!([]), "released");
    });
}

#[test]
fn a_lock_ends_with_its_holder() {
    everywhere(|lab, _| {
        let mut holder = Holder::start(lab, 0, "3");
        let fence = holder.next()["fence"].as_i64().unwrap();
        let refused = lab.op(1, &["acquire", "lock", "m2", "3", "0.5"]);
        assert_error(&refused, "Locked", &["held by \"m1\"", "lock"]);
        // It outlives its time to live as long as its holder lives.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(6) {
            let line = holder.next();
            assert!(line["believed"] == true && line["put"].is_i64(), "{line}");
        }
        let killed = Instant::now();
        Holder::signal(lab, 0, "KILL");
        let next = lab.op(1, &["acquire", "lock", "m2", "3", "20"]);
        let waited = killed.elapsed().as_secs_f64();
        assert!(next["fence"].as_i64() > Some(fence), "{next}");
        assert!((1.0..8.0).contains(&waited), "{waited} s");
        println!("free after {waited:.1} s");
    });
}

#[test]
fn a_holder_that_was_asleep_cannot_write_any_more() {
    everywhere(|lab, _| {
        let mut sleeper = Holder::start(lab, 0, "2");
        assert!(sleeper.next()["fence"].is_i64());
        assert!(sleeper.next()["put"].is_i64());
        Holder::signal(lab, 0, "STOP");
        let mut holder = {
            let start = Instant::now();
            loop {
                let mut holder = Holder::start(lab, 1, "20");
                if holder.next()["fence"].is_i64() {
                    break holder;
                }
                assert!(start.elapsed() < Duration::from_secs(20));
            }
        };
        Holder::signal(lab, 0, "CONT");
        let lost = (0..50).map(|_| sleeper.next()).find(|line| !line["put"].is_i64()).unwrap();
        assert_error(&lost["put"], "LockLost", &["lost"]);
        assert_eq!(sleeper.next()["believed"], false);
        assert!(holder.next()["put"].is_i64());
        let revision =
            |owner: &str| lab.op(2, &["get", &format!("lock/by-{owner}")])[0]["modified"].as_i64().unwrap();
        let created = lab.op(2, &["get", "lock"])[0]["created"].as_i64().unwrap();
        assert!(revision("m1") < created && created < revision("m2"));
    });
}

#[test]
fn a_holder_notices_that_its_key_or_the_cluster_is_gone() {
    let lab = Lab::start(&newest(), true, |_| {});
    let mut holder = Holder::start(&lab, 0, "3");
    assert!(holder.next()["fence"].is_i64());
    assert_eq!(lab.op(1, &["delete", "lock"]), json!(true));
    let lost = (0..50).map(|_| holder.next()).find(|line| !line["put"].is_i64()).unwrap();
    assert_error(&lost["put"], "LockLost", &[]);
    drop(holder);
    let mut holder = Holder::start(&lab, 0, "3");
    assert!(holder.next()["fence"].is_i64());
    assert_eq!(holder.next()["believed"], true);
    lab.cluster.node(1).kill().unwrap();
    lab.cluster.node(2).kill().unwrap();
    let start = Instant::now();
    let last = (0..100).map(|_| holder.next()).find(|line| line["believed"] == false).unwrap();
    assert!(!last["put"].is_i64(), "{last}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
