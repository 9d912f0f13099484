//! Real clusters on every etcd in the cache.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use seaworthy_lab::{
    Authority, Cluster, ClusterSpec, Declared, Error, EtcdBinary, Leaf, MANIFEST, MemberSpec, Package,
    Program, Ready, Source, Usage, Validity,
};

fn each_version(test: impl Fn(&EtcdBinary)) {
    for binary in EtcdBinary::required().unwrap() {
        test(&binary);
    }
}

fn newest() -> EtcdBinary {
    EtcdBinary::required().unwrap().pop().unwrap()
}

fn stdout(cluster: &Cluster, index: usize, script: &str) -> String {
    let output = cluster.node(index).run("sh", ["-c", script]).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

/// The command lines of all processes that the node's `/proc` shows, but the shell that looks.
fn processes(cluster: &Cluster, index: usize) -> Vec<String> {
    let script = "for p in /proc/[0-9]*; do
        [ $p = /proc/$$ ] || { tr '\\0' ' ' <$p/cmdline; echo; }
    done 2>/dev/null";
    let mut found: Vec<String> =
        stdout(cluster, index, script).lines().map(|l| l.trim().to_string()).collect();
    found.retain(|line| !line.is_empty() && !line.starts_with("tr "));
    found.sort();
    found
}

fn tail(log: &str) -> &str {
    log.get(log.len().saturating_sub(2000)..).unwrap_or(log)
}

fn pid_namespace(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/pid")).unwrap().ino()
}

/// How many processes of this machine are in one of these PID namespaces.
fn inhabitants(namespaces: &[u64]) -> usize {
    let inside = |path: std::path::PathBuf| {
        fs::metadata(path.join("ns/pid")).is_ok_and(|metadata| namespaces.contains(&metadata.ino()))
    };
    fs::read_dir("/proc").unwrap().flatten().filter(|entry| inside(entry.path())).count()
}

fn eventually(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if check() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn two_minor_versions_are_there() {
    let found = EtcdBinary::required().unwrap();
    let mut minors: Vec<_> = found.iter().map(EtcdBinary::minor).collect();
    minors.dedup();
    assert!(minors.len() >= 2, "only {minors:?}: fetch the others with `cargo xtask lab`");
    assert!(found.iter().all(|binary| binary.path.is_file() && binary.etcdctl.is_file()));
}

#[test]
fn installing_again_changes_nothing() {
    let installed = |package: &Package| {
        EtcdBinary::required().unwrap();
        package.install()
    };
    for package in [Package::Apt, Package::Pip] {
        let [one, two] = thread::scope(|scope| {
            [scope.spawn(|| installed(&package)), scope.spawn(|| installed(&package))]
                .map(|t| t.join().unwrap())
        });
        assert_eq!(one.unwrap(), two.unwrap());
    }
}

#[test]
fn three_members_write_and_read_in_every_arrangement() {
    type Arrange = fn(&mut MemberSpec);
    let arrangements: [(&str, Arrange); 8] = [
        ("plain", MemberSpec::plain),
        ("mutual TLS by flags", |_| {}),
        ("by flags with one dash", |m| m.source = Source::SingleDash),
        ("by environment, from a unit", |m| {
            (m.source, m.declared) = (Source::Environment, Declared::Unit);
        }),
        ("by YAML", |m| m.source = Source::Yaml),
        ("by JSON, in a container", |m| {
            m.source = Source::Json;
            m.in_container("/certs");
        }),
        ("certificates set, peers plaintext", |m| m.peers("http")),
        ("peer auto TLS", |m| {
            m.no_peer_tls();
            m.set("peer-auto-tls", "true");
        }),
    ];
    each_version(|binary| {
        for (what, arrange) in arrangements {
            let start = Instant::now();
            let cluster = Cluster::start(ClusterSpec::new(binary).each(arrange))
                .unwrap_or_else(|error| panic!("{} {what}: {error}", binary.version));
            println!("etcd {} {what}: ready in {:.2?}", binary.version, start.elapsed());
            cluster.put("key", what).unwrap();
            for node in cluster.nodes() {
                assert_eq!(node.etcdctl(["get", "--print-value-only", "key"]).unwrap().trim_end(), what);
            }
            let members = cluster.members().unwrap();
            assert_eq!(members.len(), 3);
            let plain = what.contains("plain");
            let scheme = if plain { "http://" } else { "https://" };
            assert!(members.iter().all(|member| member.peer_urls[0].starts_with(scheme)), "{members:?}");
        }
    });
}

#[test]
fn a_node_sees_itself_alone() {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let cluster = Cluster::start(ClusterSpec::new(&newest()).share(target, "/host-bin")).unwrap();
    for index in 0..3 {
        let found = processes(&cluster, index);
        let [init, etcd] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(init, "/sbin/init infinity");
        assert!(etcd.starts_with("etcd --advertise-client-urls=https://10.77.0."), "{etcd}");
        assert_eq!(
            stdout(&cluster, index, "cat /etc/hostname /proc/sys/kernel/hostname | uniq"),
            format!("m{}", index + 1)
        );
        let addresses = stdout(&cluster, index, "ip -4 -o address | tr -s ' ' | cut -d' ' -f2,4");
        assert_eq!(addresses, format!("lo 127.0.0.1/8\neth0 10.77.0.{}/24", index + 1));
        let pid = cluster.node(index).etcd_pid().unwrap();
        assert_eq!(stdout(&cluster, index, &format!("readlink /proc/{pid}/exe")), "/opt/etcd/etcd");
        assert_eq!(
            stdout(&cluster, index, &format!("cat /proc/{pid}/root/etc/hostname")),
            format!("m{}", index + 1)
        );
        assert!(!stdout(&cluster, index, "cut -d' ' -f2 /proc/mounts").contains("/work"));
    }
    let modes = "stat -c '%n %a %U' /var/lib/etcd /etc/kubernetes/pki/etcd/peer.key \
                 /etc/kubernetes/pki/etcd/peer.crt /etc/kubernetes/manifests/etcd.yaml";
    let expected = "/var/lib/etcd 700 root\n/etc/kubernetes/pki/etcd/peer.key 600 root\n\
                    /etc/kubernetes/pki/etcd/peer.crt 644 root\n/etc/kubernetes/manifests/etcd.yaml 600 root";
    assert_eq!(stdout(&cluster, 0, modes), expected);
    assert_eq!(
        stdout(&cluster, 0, "ls /host-bin/lib.rs; touch /host-bin/x 2>/dev/null || echo read-only"),
        "/host-bin/lib.rs\nread-only"
    );

    // The manifest declares the process that runs.
    let manifest = String::from_utf8(cluster.node(0).read(MANIFEST).unwrap()).unwrap();
    let declared: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("    - --")).collect();
    let pid = cluster.node(0).etcd_pid().unwrap();
    let running = stdout(&cluster, 0, &format!("tr '\\0' '\\n' </proc/{pid}/cmdline"));
    assert_eq!(declared, running.lines().skip(1).map(|arg| arg.trim_start_matches('-')).collect::<Vec<_>>());
}

#[test]
fn a_container_has_a_root_of_its_own() {
    let cluster =
        Cluster::start(ClusterSpec::new(&newest()).members(1).each(|m| m.in_container("/certs"))).unwrap();
    let pid = cluster.node(0).etcd_pid().unwrap();
    assert_eq!(stdout(&cluster, 0, "ls -d /certs 2>/dev/null || echo absent"), "absent");
    assert_eq!(stdout(&cluster, 0, &format!("ls -d /proc/{pid}/root/certs/peer.crt | wc -l")), "1");
    assert_eq!(
        stdout(&cluster, 0, &format!("grep NSpid /proc/{pid}/status | tr '\\t' ' '")),
        format!("NSpid: {pid} 1")
    );
    let same = "stat -c %d:%i /etc/kubernetes/pki/etcd/peer.key /proc/PID/root/certs/peer.key | uniq | wc -l";
    assert_eq!(stdout(&cluster, 0, &same.replace("PID", &pid.to_string())), "1");
}

#[test]
fn etcd_shows_who_would_have_started_it() {
    for user_namespace in [false, true] {
        let spec = ClusterSpec::new(&newest()).each(|m| {
            m.declared = [Declared::Manifest, Declared::Unit, Declared::Nothing][m.index];
            if m.index == 0 {
                m.in_container("/certs");
            }
        });
        let spec = if user_namespace { spec.user_namespace() } else { spec };
        let cluster = Cluster::start(spec).unwrap();
        let group = |index: usize, pid: u32| stdout(&cluster, index, &format!("cat /proc/{pid}/cgroup"));
        let of_etcd = |index: usize| group(index, cluster.node(index).etcd_pid().unwrap());

        let pod = of_etcd(0);
        let begin = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod";
        let (uid, container) = pod.strip_prefix(begin).and_then(|rest| rest.split_once(".slice/")).unwrap();
        let container = container.strip_prefix("cri-containerd-").and_then(|c| c.strip_suffix(".scope"));
        assert_eq!((uid.len(), container.map(str::len)), (32, Some(64)), "{pod}");
        assert_eq!(stdout(&cluster, 0, "ls /var/log/pods"), format!("kube-system_etcd-m1_{uid}"));
        assert_eq!(of_etcd(1), "0::/system.slice/etcd.service");
        // Whatever group this test is in, the node is the root of all.
        assert!(of_etcd(2).lines().all(|line| line.ends_with(":/")), "{}", of_etcd(2));
        let other = cluster.node(1).spawn(&Program::new("sleep").args(["600"])).unwrap();
        assert_eq!(group(1, other.pid), of_etcd(2));

        cluster.node(0).kill().unwrap();
        assert_eq!(stdout(&cluster, 0, "grep -c cgroup /proc/mounts || :"), "0", "it goes with the process");
        cluster.node(0).start().unwrap();
        cluster.node(0).wait_ready().unwrap();
        let again = of_etcd(0);
        assert!(again.starts_with(&format!("{begin}{uid}.slice/")) && again != pod, "{pod} {again}");
    }
}

#[test]
fn the_machines_services_are_none_of_the_nodes() {
    let cluster = Cluster::start(ClusterSpec::new(&newest()).members(1)).unwrap();
    let units = "ls /usr/lib/systemd/system /lib/systemd/system /usr/local/lib/systemd/system 2>/dev/null | \
                 grep -v : || :";
    assert_eq!(stdout(&cluster, 0, units), "");
}

#[test]
fn a_learner_joins() {
    each_version(|binary| {
        let cluster = Cluster::start(ClusterSpec::new(binary).members(1).learners(1)).unwrap();
        let members = cluster.members().unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(members.iter().map(|m| m.learner).filter(|learner| *learner).count(), 1, "{members:?}");
        let learner = members.iter().find(|member| member.learner).unwrap();
        assert_eq!((learner.name.as_str(), learner.peer_urls[0].as_str()), ("m2", "https://10.77.0.2:2380"));
    });
}

#[test]
fn five_members_survive_the_loss_of_two() {
    let cluster = Cluster::start(ClusterSpec::new(&newest()).members(5)).unwrap();
    cluster.put("key", "before").unwrap();
    cluster.node(0).kill().unwrap();
    cluster.node(1).stop().unwrap();
    assert_eq!(cluster.node(0).etcd_pid(), None);
    assert_eq!(processes(&cluster, 0), ["/sbin/init infinity"]);
    assert!(eventually(Duration::from_secs(10), || cluster.put("key", "after").is_ok()));
    for index in [0, 1] {
        cluster.node(index).start().unwrap();
        cluster.node(index).wait_ready().unwrap();
    }
    let value = cluster.node(0).etcdctl(["get", "--print-value-only", "key"]).unwrap();
    assert_eq!(value, "after\n");
}

#[test]
fn membership_changes_without_a_restart() {
    each_version(|binary| {
        let cluster = Cluster::start(ClusterSpec::new(binary).each(|m| m.peers("http"))).unwrap();
        let before = [0, 1, 2].map(|index| cluster.node(index).etcd_pid());
        for member in cluster.members().unwrap() {
            let https = member.peer_urls[0].replace("http:", "https:");
            cluster.member_update(member.id, &[&https]).unwrap();
        }
        assert!(cluster.members().unwrap().iter().all(|m| m.peer_urls[0].starts_with("https:")));
        assert_eq!(before, [0, 1, 2].map(|index| cluster.node(index).etcd_pid()));
        // With configuration and processes following, the cluster works again.
        for node in cluster.nodes() {
            node.reconfigure(|m| m.peers("https")).unwrap();
            node.stop().unwrap();
        }
        cluster.nodes().iter().for_each(|node| node.start().unwrap());
        cluster.nodes().iter().for_each(|node| node.wait_ready().unwrap());
        cluster.put("key", "value").unwrap();
        assert_eq!(cluster.get("key").unwrap(), "value");
        assert_eq!(cluster.get("missing").unwrap(), "");
    });
}

#[test]
fn bad_certificates_are_what_they_say() {
    let other = Authority::new("etcd-ca").unwrap();
    type Issue = fn(&MemberSpec) -> Leaf;
    let cases: [(&str, Issue, bool, &str); 4] = [
        (
            "expired",
            |m| m.leaf().validity(Validity::Expired),
            false,
            "certificate has expired or is not yet valid",
        ),
        (
            "future",
            |m| m.leaf().validity(Validity::Future),
            false,
            "certificate has expired or is not yet valid",
        ),
        ("wrong name", |_| Leaf::new("x").san("elsewhere.example"), false, "doesn't contain any IP SANs"),
        ("unknown authority", |m| m.leaf(), true, "signed by unknown authority"),
    ];
    for (what, leaf, foreign, logged) in cases {
        let other = other.clone();
        let spec = ClusterSpec::new(&newest()).each(move |m| {
            m.ready = Ready::Listening;
            let authority = if foreign && m.index == 0 { other.clone() } else { m.authority.clone() };
            m.issue("peer", &authority, leaf(m));
        });
        let cluster = Cluster::start(spec).unwrap();
        let said = || cluster.nodes().iter().any(|node| node.log().contains(logged));
        assert!(eventually(Duration::from_secs(10), said), "{what}: {}", tail(&cluster.node(1).log()));
    }
}

#[test]
fn a_server_only_certificate_leaves_the_cluster_healthy() {
    let spec = ClusterSpec::new(&newest()).each(|m| {
        if m.index == 2 {
            let authority = m.authority.clone();
            m.issue("peer", &authority, m.leaf().usage(Usage::Server));
        }
    });
    let cluster = Cluster::start(spec).unwrap();
    cluster.put("key", "value").unwrap();
    let said = || cluster.nodes().iter().any(|node| node.log().contains("incompatible key usage"));
    assert!(eventually(Duration::from_secs(10), said), "{}", tail(&cluster.node(2).log()));
}

#[test]
fn an_intermediate_authority_works() {
    let root = Authority::new("root").unwrap();
    let intermediate = root.intermediate("intermediate").unwrap();
    let spec =
        ClusterSpec::new(&newest()).authority(&root).each(move |m| m.issue("peer", &intermediate, m.leaf()));
    Cluster::start(spec).unwrap().put("key", "value").unwrap();
}

#[test]
fn a_revoked_peer_is_refused() {
    // etcd 3.6 takes a revocation list in DER alone.
    let authority = Authority::new("etcd-ca").unwrap();
    let issued = authority.issue(&Leaf::new("gone")).unwrap();
    let list = authority.revoke(&[&issued]).unwrap();
    let spec = ClusterSpec::new(&newest()).authority(&authority).members(1).each(move |m| {
        m.set("client-crl-file", "/etc/kubernetes/pki/etcd/ca.crl");
        m.file("/etc/kubernetes/pki/etcd/ca.crl", list.clone(), 0o644);
        m.file("/root/gone.crt", issued.bundle(), 0o644);
        m.file("/root/gone.key", issued.key.clone(), 0o600);
    });
    let cluster = Cluster::start(spec).unwrap();
    let health = ["--cert=/root/gone.crt", "--key=/root/gone.key", "--command-timeout=1s", "get", "x"];
    assert!(cluster.node(0).etcdctl(health).is_err());
    cluster.put("key", "value").unwrap();
}

#[test]
fn a_member_that_cannot_start_says_why() {
    let spec = ClusterSpec::new(&newest()).members(1).each(|m| m.args.push("--peer-client-file=x".into()));
    let start = Instant::now();
    let Err(Error::NotReady { node, log, .. }) = Cluster::start(spec) else { panic!("it started") };
    assert_eq!(node, "m1");
    assert!(log.contains("flag provided but not defined"), "{log}");
    assert!(start.elapsed() < Duration::from_secs(25));
}

#[test]
fn a_node_holds_other_processes() {
    let cluster =
        Cluster::start(ClusterSpec::new(&newest()).members(1).each(|m| m.autostart = false)).unwrap();
    let node = cluster.node(0);
    assert_eq!(node.etcd_pid(), None);
    node.sleeper("/opt/bin/kube-apiserver").unwrap();
    let odd = OsString::from_vec(b"--etcd\n--peer-cert-file=\xff\xfe".to_vec());
    let server =
        Program::new("/opt/bin/kube-apiserver").argv0("kube-apiserver").args([odd.clone()]).env("A", "b");
    let mut server = node.spawn(&server).unwrap();
    let sleep = node.spawn(&Program::new("sleep").argv0("etcd").args(["999"])).unwrap();

    let root = format!("{}/proc/{}", node.root().display(), server.pid);
    let cmdline = || fs::read(format!("{root}/cmdline")).unwrap();
    let expected = [b"kube-apiserver\0".to_vec(), odd.into_vec(), b"\0".to_vec()].concat();
    assert!(eventually(Duration::from_secs(2), || cmdline() == expected), "{:?}", cmdline());
    assert!(fs::read(format!("{root}/environ")).unwrap().split(|b| *b == 0).any(|v| v == b"A=b"));
    assert_eq!(stdout(&cluster, 0, &format!("readlink /proc/{}/exe", server.pid)), "/opt/bin/kube-apiserver");
    assert!(eventually(Duration::from_secs(2), || processes(&cluster, 0).contains(&"etcd 999".to_string())));

    assert!(server.running());
    server.signal("TERM").unwrap();
    assert!(server.wait(Duration::from_secs(2)).is_some());
    drop(sleep);
    assert_eq!(processes(&cluster, 0), ["/sbin/init infinity"]);
}

#[test]
fn files_stay_in_the_node() {
    let cluster =
        Cluster::start(ClusterSpec::new(&newest()).members(1).each(|m| m.autostart = false)).unwrap();
    let node = cluster.node(0);
    stdout(&cluster, 0, "mkdir /root/inside && ln -s /root/inside /root/link");
    node.write("/root/link/deep/file", "text", 0o640).unwrap();
    assert_eq!(
        stdout(&cluster, 0, "stat -c %a /root/inside/deep/file; cat /root/inside/deep/file"),
        "640\ntext"
    );
    assert_eq!(node.read("/root/link/deep/file").unwrap(), b"text");
    node.remove("/root/link/deep/file").unwrap();
    assert!(node.read("/root/link/deep/file").is_err());
    assert!(!fs::exists("/root/inside").unwrap_or(false));
}

#[test]
fn etcd_runs_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        return; // a user namespace has one user only
    }
    let cluster = Cluster::start(ClusterSpec::new(&newest()).members(1).each(|m| m.uid = 997)).unwrap();
    let pid = cluster.node(0).etcd_pid().unwrap();
    assert_eq!(stdout(&cluster, 0, &format!("stat -c %U /proc/{pid} /var/lib/etcd | uniq")), "etcd");
    let output = cluster.node(0).command_as(65534, "cat").arg("/var/lib/etcd/member").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
}

#[test]
fn a_user_namespace_does_as_well() {
    let spec = ClusterSpec::new(&newest()).user_namespace();
    let cluster = Cluster::start(spec).unwrap();
    cluster.put("key", "value").unwrap();
    assert_eq!(processes(&cluster, 1).len(), 2);
    assert_eq!(stdout(&cluster, 0, "touch /usr/x 2>/dev/null || echo read-only"), "read-only");
}

#[test]
fn dropping_a_cluster_ends_it() {
    let cluster = Cluster::start(ClusterSpec::new(&newest())).unwrap();
    let mut namespaces: Vec<u64> = cluster.nodes().iter().map(|node| pid_namespace(node.pid())).collect();
    namespaces.push(pid_namespace(cluster.pid()));
    assert!(inhabitants(&namespaces) >= 7);
    drop(cluster);
    assert_eq!(inhabitants(&namespaces), 0);
}

/// Not a test: what the next test runs in another process and kills.
#[test]
#[ignore = "runs until it is killed"]
fn cluster_to_be_killed() {
    let mark = format!("/certs-{}", std::process::id());
    let cluster = Cluster::start(ClusterSpec::new(&newest()).each(move |m| m.in_container(&mark))).unwrap();
    let pids: Vec<String> = cluster.nodes().iter().map(|node| node.pid().to_string()).collect();
    println!("\npids {} {}", cluster.pid(), pids.join(" "));
    thread::sleep(Duration::from_secs(600));
}

#[test]
fn killing_the_test_ends_its_cluster() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pids = lines.filter_map(|line| line.strip_prefix("pids ").map(str::to_string)).next().unwrap();
    let namespaces: Vec<u64> = pids.split(' ').map(|pid| pid_namespace(pid.parse().unwrap())).collect();
    // The containers' own PID namespaces lie below the nodes', so look for them by what they run.
    let mark = format!("/certs-{}/", child.id());
    let marked = |entry: &fs::DirEntry| {
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains(&mark)
    };
    let etcds = || fs::read_dir("/proc").unwrap().flatten().filter(marked).count();
    assert!(etcds() >= 3, "{}", etcds());
    assert!(inhabitants(&namespaces) >= 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    assert!(eventually(Duration::from_secs(5), || etcds() == 0 && inhabitants(&namespaces) == 0));
    println!("gone in {:.0?}", start.elapsed());
}
