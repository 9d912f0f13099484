//! Clusters whose etcd is run by the files of its node, under writers, and in trouble.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    thread,
    time::{Duration, Instant},
};

use seaworthy_lab::{
    Cluster, ClusterSpec, ENVIRONMENT_FILE, EtcdBinary, Leaf, MANIFEST, MemberSpec, Node, PKI_DIR, Report,
    Source, Supervisor, UNIT, Usage, Validity, Writer, WriterSpec,
};

fn version(minor: u32) -> EtcdBinary {
    EtcdBinary::required().unwrap().into_iter().find(|binary| binary.minor() == (3, minor)).unwrap()
}

/// A plaintext cluster whose members are static pods.
fn pods(binary: &EtcdBinary, members: usize) -> Cluster {
    let plain = |m: &mut MemberSpec| {
        m.plain();
        m.supervisor = Supervisor::Kubelet;
    };
    Cluster::start(ClusterSpec::new(binary).members(members).each(plain)).unwrap()
}

fn sh(node: &Node, script: &str) -> String {
    let output = node.run("bash", ["-c", script]).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

fn command_line(node: &Node) -> String {
    sh(node, &format!("tr '\\0' ' ' </proc/{}/cmdline", node.etcd_pid().unwrap()))
}

fn pids(cluster: &Cluster) -> Vec<Option<u32>> {
    cluster.nodes().iter().map(Node::etcd_pid).collect()
}

#[track_caller]
fn eventually(what: &str, limit: u64, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(limit), "not within {limit} s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[expect(clippy::print_stdout, reason = "the measured gaps are of interest")]
fn print(what: &str, report: &Report) {
    println!(
        "{what}: {} acks, {} errors, {} lost, longest gap {:.0} ms, equal {}, by member {:?}, errors {:#?}",
        report.acks,
        report.errors,
        report.lost,
        report.longest_gap_ms,
        report.equal,
        report.acks_by_member,
        report.error_kinds
    );
}

#[track_caller]
fn assert_clean(report: &Report, members: usize) {
    assert!(report.clean(), "{report:#?}");
    assert_eq!(report.members.len(), members);
    assert!(report.acks > 0 && report.reads > 0, "{report:#?}");
    assert!(report.members.iter().all(|member| member.keys >= report.acks), "{report:#?}");
}

#[test]
fn a_manifest_is_what_runs() {
    let cluster = pods(&version(5), 3);
    let before = pids(&cluster);
    let node = cluster.node(1);
    assert!(command_line(node).starts_with("etcd --advertise-client-urls=http://10.77.0.2:2379"));
    assert_eq!(
        sh(node, &format!("ls /proc/{}/root/home 2>&1 | wc -l", before[1].unwrap())),
        "1",
        "a container"
    );

    let pods = || sh(node, "ls /var/log/pods");
    let uid = pods().strip_prefix("kube-system_etcd-m2_").unwrap().to_owned();
    let group = || sh(node, &format!("cat /proc/{}/cgroup", node.etcd_pid().unwrap()));
    assert!(group().contains(&format!("-pod{uid}.slice/")), "{}", group());

    // A comment changes nothing; a flag restarts this member alone.
    node.edit(MANIFEST, |text| format!("# a comment\n{text}")).unwrap();
    thread::sleep(Duration::from_millis(800));
    assert_eq!(pids(&cluster), before);
    node.edit(MANIFEST, |text| text.replace("snapshot-count=10000", "snapshot-count=500")).unwrap();
    node.wait_restarted(before[1]).unwrap();
    assert!(command_line(node).contains("--snapshot-count=500"));
    let other = pods().strip_prefix("kube-system_etcd-m2_").unwrap().to_owned();
    assert!(other != uid && group().contains(&other), "another pod, and the former one is gone: {}", group());
    assert_eq!((pids(&cluster)[0], pids(&cluster)[2], node.starts()), (before[0], before[2], 2));
    assert_eq!(sh(node, &format!("stat -c %a {MANIFEST}")), "600");

    // A backup in the directory is a manifest too, and wins by its name.
    let stray = format!("{MANIFEST}.bak");
    let (pid, manifest) = (node.etcd_pid(), node.read(MANIFEST).unwrap());
    let backup = String::from_utf8(manifest).unwrap().replace("snapshot-count=500", "snapshot-count=777");
    node.write(&stray, &backup, 0o600).unwrap();
    node.wait_restarted(pid).unwrap();
    assert!(command_line(node).contains("--snapshot-count=777"));
    thread::sleep(Duration::from_millis(600));
    assert!(command_line(node).contains("--snapshot-count=777"), "{}", node.supervisor_log());
    let pid = node.etcd_pid();
    node.remove(&stray).unwrap();
    node.wait_restarted(pid).unwrap();
    assert!(command_line(node).contains("--snapshot-count=500"));

    // A crash, a paused kubelet, a manifest that is removed, and one that does not parse.
    let pid = node.etcd_pid();
    node.kill().unwrap();
    node.wait_restarted(pid).unwrap();
    let pid = node.etcd_pid();
    node.pause_supervisor().unwrap();
    node.edit(MANIFEST, |text| text.replace("snapshot-count=500", "snapshot-count=600")).unwrap();
    thread::sleep(Duration::from_millis(800));
    assert_eq!(node.etcd_pid(), pid);
    node.resume_supervisor().unwrap();
    node.wait_restarted(pid).unwrap();
    assert!(command_line(node).contains("--snapshot-count=600"));
    node.stop().unwrap();
    assert_eq!(node.etcd_pid(), None);
    node.start().unwrap();
    node.wait_ready().unwrap();
    node.edit(MANIFEST, |text| format!("{text}\n  : [")).unwrap();
    eventually("a manifest that does not parse ends its pod at the next listing", 10, || {
        node.etcd_pid().is_none()
    });
    node.edit(MANIFEST, |text| text.replace("\n  : [", "")).unwrap();
    node.wait_restarted(None).unwrap();
    assert_eq!((pids(&cluster)[0], pids(&cluster)[2]), (before[0], before[2]));
}

#[test]
fn a_unit_is_what_runs() {
    let cluster = Cluster::start(ClusterSpec::new(&version(4)).members(1).each(|m| {
        m.supervisor = Supervisor::Units;
        m.source = Source::Environment;
    }))
    .unwrap();
    let node = cluster.node(0);
    let environment = || sh(node, &format!("tr '\\0' '\\n' </proc/{}/environ", node.etcd_pid().unwrap()));
    let show = |property: &str| sh(node, &format!("systemctl show etcd -p {property} --value"));
    assert_eq!(show("MainPID"), node.etcd_pid().unwrap().to_string());
    let group = sh(node, &format!("cat /proc/{}/cgroup", node.etcd_pid().unwrap()));
    assert_eq!(group, "0::/system.slice/etcd.service");
    eventually("it says that it is ready", 5, || sh(node, "systemctl is-active etcd || :") == "active");

    // An environment file counts at the next start, a unit after it was loaded again.
    let before = node.etcd_pid();
    node.edit(ENVIRONMENT_FILE, |text| text.replace("10000", "500")).unwrap();
    node.edit(UNIT, |text| text.replace("[Install]", "Environment=NEW=1\n[Install]")).unwrap();
    assert_eq!(show("NeedDaemonReload"), "yes");
    sh(node, "systemctl restart etcd");
    assert_ne!(node.etcd_pid(), before);
    node.etcdctl(["get", "x"]).unwrap(); // `restart` returned when it was ready
    assert!(environment().contains("ETCD_SNAPSHOT_COUNT=500"));
    assert!(!environment().contains("NEW=1"));
    sh(node, "systemctl daemon-reload && systemctl restart etcd.service");
    assert!(environment().contains("NEW=1"));
    node.write(format!("{UNIT}.d/10.conf").as_str(), "[Service]\nEnvironment=NEW=2\n", 0o644).unwrap();
    sh(node, "systemctl daemon-reload && systemctl restart etcd.service");
    assert!(environment().contains("NEW=2"));

    let before = node.etcd_pid();
    node.kill().unwrap();
    node.wait_restarted(before).unwrap();
    assert_eq!(show("NRestarts"), "1");
    node.stop().unwrap();
    assert_eq!((node.etcd_pid(), sh(node, "systemctl is-active etcd || :").as_str()), (None, "inactive"));

    // One that cannot start fails the command, and is given up in the end.
    let broken =
        node.run("sh", ["-c", "echo ETCD_LISTEN_PEER_URLS=x >>/etc/default/etcd && systemctl start etcd"]);
    let broken = broken.unwrap();
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("Job for etcd.service failed: exit-code"));
    eventually("it is given up", 15, || show("Result") == "start-limit-hit");
    node.edit(ENVIRONMENT_FILE, |text| text.replace("ETCD_LISTEN_PEER_URLS=x\n", "")).unwrap();
    node.start().unwrap();
    node.wait_ready().unwrap();
}

#[test]
fn a_writer_gives_account_of_a_crash_on_every_version() {
    for binary in EtcdBinary::required().unwrap() {
        let cluster = Cluster::start(ClusterSpec::new(&binary)).unwrap(); // mutual TLS
        let follower = (cluster.leader().unwrap() + 1) % 3;
        let writer = cluster.writer().unwrap();
        thread::sleep(Duration::from_millis(500));
        cluster.node(follower).kill().unwrap();
        thread::sleep(Duration::from_millis(500));
        cluster.node(follower).start().unwrap();
        let report = writer.finish().unwrap();
        print(&format!("etcd {}, one member killed", binary.version), &report);
        assert_clean(&report, 3);
        assert!(report.errors > 0 && report.longest_gap_ms < 1000.0, "{report:#?}");
        assert_eq!(report.acks_by_member.len(), 3);
        let record = Writer::record(cluster.client_node().unwrap()).unwrap();
        assert_eq!(record.lines().filter(|line| line.ends_with(",ok")).count() as u64, report.acks);
    }
}

#[test]
fn a_writer_sees_what_is_lost() {
    let cluster = Cluster::start(ClusterSpec::new(&version(5)).each(MemberSpec::plain)).unwrap();
    let writer = cluster.writer().unwrap();
    thread::sleep(Duration::from_millis(300));
    cluster.etcdctl(&["del", "--prefix", "/seaworthy-lab/"]).unwrap();
    cluster.cut(2).unwrap();
    thread::sleep(Duration::from_millis(300));
    cluster.mend(2).unwrap();
    let report = writer.finish().unwrap();
    assert!(report.lost > 0 && !report.clean() && report.equal, "{report:#?}");
    assert_eq!(report.members.iter().map(|member| member.missing).max(), Some(report.lost));
}

/// Gives each member what it needs to speak TLS, while it goes on in plaintext; followers first.
fn preload(cluster: &Cluster) {
    let flags = ["cert-file=peer.crt", "key-file=peer.key", "trusted-ca-file=ca.crt"]
        .map(|flag| format!("    - --peer-{}\n", flag.replace('=', &format!("={PKI_DIR}/"))));
    for index in leader_last(cluster) {
        change(cluster, index, |text| {
            let last = "    - --snapshot-count";
            text.replace(last, &format!("    - --peer-client-cert-auth=true\n{}{last}", flags.concat()))
        });
    }
}

/// Changes a manifest, and waits for the member to be back. A leader hands over first.
fn change(cluster: &Cluster, index: usize, edit: impl FnOnce(&str) -> String) {
    let node = cluster.node(index);
    if cluster.leader().unwrap() == index {
        cluster.move_leader((index + 1) % cluster.nodes().len()).unwrap();
    }
    let before = node.etcd_pid();
    node.edit(MANIFEST, edit).unwrap();
    node.wait_restarted(before).unwrap();
}

fn leader_last(cluster: &Cluster) -> Vec<usize> {
    let leader = cluster.leader().unwrap();
    let mut order: Vec<usize> = (0..cluster.nodes().len()).filter(|index| *index != leader).collect();
    order.push(leader);
    order
}

/// Returns the URL of a member's peer port as its manifest has it, in plaintext and in TLS.
fn urls(node: &Node) -> (String, String) {
    let url = |scheme: &str| format!("peer-urls={scheme}://{}:2380", node.address);
    (url("http"), url("https"))
}

/// The by-hand migration that costs nothing (V1): certificates everywhere first, then one member at a time.
fn migrate(cluster: &Cluster) {
    preload(cluster);
    for index in leader_last(cluster) {
        let node = cluster.node(index);
        if cluster.leader().unwrap() == index {
            cluster.move_leader((index + 1) % cluster.nodes().len()).unwrap();
        }
        let (http, https) = urls(node);
        let id = cluster.members().unwrap().into_iter().find(|member| member.name == node.name).unwrap().id;
        cluster.member_update(id, &[https.trim_start_matches("peer-urls=")]).unwrap();
        change(cluster, index, |text| text.replace(&http, &https));
    }
}

#[test]
fn a_plaintext_cluster_moves_to_tls_under_load() {
    for minor in [4, 5] {
        let cluster = pods(&version(minor), 3);
        let writer = cluster.writer().unwrap();
        let start = Instant::now();
        migrate(&cluster);
        let took = start.elapsed();
        assert!(writer.status().unwrap().since_last_ack_ms < 500.0);
        let report = writer.finish().unwrap();
        print(&format!("etcd 3.{minor}, migrated by hand in {took:.1?}"), &report);
        assert_clean(&report, 3);
        // By hand 60 to 130 ms was reached on an idle machine; here other tests run beside it.
        assert!(report.longest_gap_ms < 1500.0, "{report:#?}");
        assert!(cluster.members().unwrap().iter().all(|member| member.peer_urls[0].starts_with("https:")));
        for node in cluster.nodes() {
            let ask = format!(
                "exec 3<>/dev/tcp/{}/2380; printf 'GET /members HTTP/1.0\\r\\n\\r\\n' >&3; timeout 2 cat <&3 | wc -c",
                node.address
            );
            assert_eq!(sh(cluster.client_node().unwrap(), &ask), "0", "{} answers plaintext", node.name);
        }
    }
}

#[test]
fn switching_the_listeners_alone_costs_the_quorum() {
    // Every certificate is in place, and its flags are set.
    let cluster = Cluster::start(ClusterSpec::new(&version(5)).each(|m| {
        m.peers("http");
        m.supervisor = Supervisor::Kubelet;
    }))
    .unwrap();
    let writer = cluster.writer().unwrap();
    let switch = |index: usize, back: bool| {
        let node = cluster.node(index);
        let ((http, https), before) = (urls(node), node.etcd_pid());
        let edit = |text: &str| if back { text.replace(&https, &http) } else { text.replace(&http, &https) };
        node.edit(MANIFEST, edit).unwrap();
        eventually("it is restarted", 20, || {
            node.etcd_pid().is_some_and(|pid| Some(pid) != before) && node.listens(2380)
        });
    };
    let order = leader_last(&cluster);
    for index in &order[..2] {
        switch(*index, false);
        cluster.node(*index).wait_ready().unwrap(); // still healthy, each of them
    }
    switch(order[2], false);
    eventually("no write is acknowledged for 3 s", 30, || {
        writer.status().unwrap().since_last_ack_ms > 3000.0
    });
    assert!(cluster.etcdctl(&["--command-timeout=1s", "put", "x", "y"]).is_err());
    for index in &order[..2] {
        switch(*index, true);
    }
    eventually("writes are acknowledged again", 30, || writer.status().unwrap().since_last_ack_ms < 1000.0);
    let report = writer.finish().unwrap();
    print("etcd 3.5, listeners switched alone", &report);
    assert!(report.longest_gap_ms > 3000.0);
    assert_clean(&report, 3);
}

#[test]
fn links_disks_and_directories_can_be_broken_and_mended() {
    let cluster = Cluster::start(ClusterSpec::new(&version(5)).each(|m| {
        m.plain();
        m.disks = vec![("/etc/kubernetes".into(), 1 << 20)];
    }))
    .unwrap();
    let (node, other) = (cluster.node(0), cluster.node(1));
    let reaches = |from: &Node, to: &Node| {
        let connect = format!("timeout 0.3 bash -c ': </dev/tcp/{}/2380'", to.address);
        from.run("sh", ["-c", &connect]).unwrap().status.success()
    };
    // A machine with much to do answers late, and a neighbour that was gone is looked for anew.
    let expect = |from: &Node, to: &Node| {
        eventually(&format!("{} reaches {}", from.name, to.name), 10, || reaches(from, to));
    };
    expect(node, other);
    cluster.cut(0).unwrap();
    assert!(!reaches(node, other) && !reaches(other, node));
    expect(other, cluster.node(2));
    cluster.mend(0).unwrap();
    expect(node, other);
    cluster.separate(0, 1).unwrap();
    assert!(!reaches(node, other) && !reaches(other, node));
    expect(node, cluster.node(2));
    expect(other, cluster.node(2));
    cluster.reunite(0, 1).unwrap();
    expect(node, other);
    node.shape("tbf rate 1mbit burst 16k latency 400ms").unwrap();
    assert!(sh(node, "tc qdisc show dev eth0").contains("rate 1Mbit"));
    node.unshape().unwrap();
    assert!(node.shape("no-such-discipline").is_err());

    node.fill("/etc/kubernetes").unwrap();
    let write = "echo x >/etc/kubernetes/manifests/.x";
    let refused = || node.run("bash", ["-c", write]).unwrap();
    assert!(String::from_utf8_lossy(&refused().stderr).contains("No space left"), "{:?}", refused());
    node.empty("/etc/kubernetes").unwrap();
    sh(node, write);
    node.protect("/etc/kubernetes/manifests").unwrap();
    assert!(String::from_utf8_lossy(&refused().stderr).contains("Read-only"), "{:?}", refused());
    node.unprotect("/etc/kubernetes/manifests").unwrap();
    sh(node, write);
    assert!(node.fill("/var/lib").is_err(), "a disk without a limit is not filled");
}

#[test]
fn a_certificate_of_a_clock_that_is_ahead_is_not_valid_yet() {
    let cluster = Cluster::start(ClusterSpec::new(&version(5)).members(1).each(|m| {
        let ahead = Leaf::new("x").usage(Usage::Client).validity(Validity::Ahead(Duration::from_secs(7200)));
        let authority = m.authority.clone();
        m.issue("ahead", &authority, ahead);
    }))
    .unwrap();
    let certificate = [format!("--cert={PKI_DIR}/ahead.crt"), format!("--key={PKI_DIR}/ahead.key")];
    let get = ["--command-timeout=1s", "get", "x"].map(str::to_string);
    assert!(cluster.node(0).etcdctl(certificate.iter().chain(&get)).is_err());
    let said = || cluster.node(0).log().contains("certificate has expired or is not yet valid");
    eventually("etcd says so", 5, said);
}

#[test]
fn supervisors_and_writers_do_without_root() {
    let cluster = Cluster::start(ClusterSpec::new(&version(5)).members(1).user_namespace().each(|m| {
        m.supervisor = Supervisor::Kubelet;
    }))
    .unwrap();
    let spec = WriterSpec { clients: 2, ..WriterSpec::default() };
    let writer = cluster.writer_with(&spec).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert_clean(&writer.finish().unwrap(), 1);
}
