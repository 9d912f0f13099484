//! Nothing secret leaves: unique words are planted wherever a node may hold a secret, and no output may have one.
//!
//! A word that is listed as not secret (a name, a path) proves that the place it stands in is read at all.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Output;
use std::thread;

use seaworthy_lab::{Cluster, MANIFEST, MemberSpec, Node, PKI_DIR, Program, Supervisor};

use crate::common::{SEAWORTHY, cluster, fix_document, newest, seaworthy, seaworthy_as, spec, start};
use crate::fix_apply::{PEER_TLS, with_authority};
use crate::oracle::sh;

/// The secrets of a node: what each is called here, and the text that must not leave.
#[derive(Default)]
struct Secrets(RefCell<Vec<(String, String)>>);

impl Secrets {
    /// Returns a new secret.
    fn plant(&self, place: &str) -> String {
        let secret = format!(
            "CANARY{:04}x{}",
            self.0.borrow().len(),
            place.replace(|c: char| !c.is_alphanumeric(), "")
        );
        self.0.borrow_mut().push((place.to_owned(), secret.clone()));
        secret
    }

    /// Makes every line of a private key a secret. The last lines of a short one are its public half, which certificates have too.
    fn add_key(&self, path: &str, pem: &str) {
        let lines: Vec<&str> =
            pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 16).collect();
        let private = if lines.len() > 4 { lines.len() } else { 2 };
        self.0
            .borrow_mut()
            .extend(lines.iter().take(private).map(|line| (path.to_owned(), (*line).to_owned())));
    }

    /// Returns where in what a command printed a secret is, with what surrounds it.
    fn leaks(&self, command: &str, output: &Output) -> Vec<String> {
        let mut found = Vec::new();
        for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            // Text is wrapped for people: a secret must not hide behind a line end.
            let joined: String = text.split_whitespace().collect();
            for (place, secret) in self.0.borrow().iter() {
                if let Some(at) = text.find(secret.as_str()).or_else(|| joined.find(secret.as_str())) {
                    let from = text.floor_char_boundary(at.saturating_sub(150));
                    let around = text.get(from..text.ceil_char_boundary(at + 60)).unwrap_or_default();
                    found.push(format!("{command}, {stream}: {place}\n{around}"));
                }
            }
        }
        found
    }
}

/// Runs every command on `node` and asserts that none prints a secret.
fn assert_silent(node: &Node, secrets: &Secrets) -> String {
    let peer = format!("{}:2380", node.address);
    let client = format!("{}:2379", node.address);
    let snapshot = "/tmp/snapshot.json";
    let commands: [&[&str]; 16] = [
        &["snapshot"],
        &["snapshot", "--no-wire"],
        &["snapshot", "--observe", "0.2"],
        &["snapshot", "-o", snapshot],
        &["audit"],
        &["audit", "--verbose", "--color", "always"],
        &["audit", "--format", "json"],
        &["audit", "--benchmark", "cis-kubernetes", "--verbose"],
        &["audit", "--snapshot", snapshot, "--verbose"],
        &["certificates"],
        &["certificates", "--verbose"],
        &["certificates", "--snapshot", snapshot, "--format", "json"],
        &["probe", &peer, &client],
        &["probe", "--format", "json", &peer, &client],
        &["explain", "etcd-peer-tls"],
        &["audit", "--snapshot", MANIFEST],
    ];
    let mut leaks = Vec::new();
    let mut everything = String::new();
    for arguments in commands {
        for output in [seaworthy(node, arguments), seaworthy_as(node, 1000, arguments)] {
            leaks.extend(secrets.leaks(&arguments.join(" "), &output));
            everything.push_str(&String::from_utf8_lossy(&output.stdout));
            everything.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    let file = Output {
        status: std::process::ExitStatus::default(),
        stdout: node.read(snapshot).expect("the snapshot"),
        stderr: Vec::new(),
    };
    leaks.extend(secrets.leaks("the snapshot file", &file));
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n\n"));
    everything
}

/// Makes every private key of the node a secret.
fn add_keys(node: &Node, secrets: &Secrets) {
    for name in ["server", "peer", "healthcheck-client"] {
        let path = format!("{PKI_DIR}/{name}.key");
        secrets.add_key(&path, &String::from_utf8(node.read(&path).unwrap()).unwrap());
    }
}

#[test]
fn secrets_of_a_healthy_node_do_not_leave() {
    let secrets = Secrets::default();
    let environment = [
        ("ETCD_ROOT_PASSWORD", secrets.plant("environment of etcd")),
        ("ETCD_INITIAL_CLUSTER_TOKEN", secrets.plant("token in the environment")),
        ("AWS_SECRET_ACCESS_KEY", secrets.plant("cloud credentials")),
        ("ETCDCTL_USER", format!("root:{}", secrets.plant("user of etcdctl"))),
        ("ETCD_UNKNOWN_SETTING", secrets.plant("unknown variable of etcd")),
    ];
    let (user, annotation) = (secrets.plant("password in a URL"), secrets.plant("annotation"));
    let cluster = cluster(&newest(), 3, move |m: &mut MemberSpec| {
        for (name, value) in &environment {
            // Only the members of one cluster share its token.
            m.env.insert(name.into(), value.into());
        }
        m.set("advertise-client-urls", format!("https://user:{user}@{}:2379", m.address));
        m.set("initial-advertise-peer-urls", format!("https://user:{user}@{}:2380", m.address));
        m.file("/etc/kubernetes/admin.conf", format!("users: [{{token: {annotation}}}]"), 0o600);
    });
    let node = cluster.node(0);
    cluster.put(&secrets.plant("key in etcd"), &secrets.plant("value in etcd")).unwrap();
    add_keys(node, &secrets);
    let key = node.read(&format!("{PKI_DIR}/server.key")).unwrap();
    let certificate = node.read(&format!("{PKI_DIR}/server.crt")).unwrap();
    for (name, bytes) in [
        ("key-as.crt", key.clone()),
        ("both.pem", [certificate, key].concat()),
        ("notes.txt", secrets.plant("notes beside the keys").into_bytes()),
        ("password.pem", secrets.plant("password in a .pem").into_bytes()),
        (
            "broken.crt",
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                secrets.plant("broken PEM")
            )
            .into_bytes(),
        ),
        (
            "labelled.key",
            format!("-----BEGIN {} PRIVATE KEY-----\nAAAA\n", secrets.plant("label of a key")).into_bytes(),
        ),
    ] {
        node.write(&format!("{PKI_DIR}/{name}"), bytes, 0o600).unwrap();
    }
    let manifest = String::from_utf8(node.read(MANIFEST).unwrap()).unwrap();
    let manifest = manifest.replace(
        "  labels:\n",
        &format!("    secret: {}\n  labels:\n", secrets.plant("annotation of the manifest")),
    );
    node.write(MANIFEST, format!("# {}\n{manifest}", secrets.plant("comment of the manifest")), 0o600)
        .unwrap();
    let passwd = format!("root:{}:0:0:{}:/root:/bin/sh\n", secrets.plant("passwd"), secrets.plant("gecos"));
    node.write("/etc/passwd", passwd, 0o644).unwrap();
    node.sleeper("/srv/backup").unwrap();
    node.sleeper("/srv/kube-apiserver").unwrap();
    let decoys = [
        Program::new("/srv/backup")
            .args([format!("--password={}", secrets.plant("argument of another program"))])
            .env("TOKEN", secrets.plant("environment of another program")),
        Program::new("/srv/kube-apiserver").args([
            format!("--etcd-servers=https://u:{}@10.77.0.1:2379", secrets.plant("API server's etcd URL")),
            format!("--service-account-signing-key={}", secrets.plant("API server's argument")),
        ]),
    ];
    let _running: Vec<_> = decoys.iter().map(|d| node.spawn(d).unwrap()).collect();
    let told = assert_silent(node, &secrets);
    assert!(told.contains("https://***@10.77.0.1:2380"), "the URL itself is told");
}

#[test]
fn secrets_in_what_cannot_be_understood_do_not_leave() {
    let secrets = Secrets::default();
    let cluster: Cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    add_keys(node, &secrets);
    node.sleeper("/srv/etcd").unwrap();
    let files = [
        (
            "/etc/etcd/good.yaml",
            format!(
                "# {}\nname: good\ninitial-cluster-token: {}\ndiscovery: https://d/{}\npassword: {}\npeer-cert-fil: {}\n\
             listen-peer-urls: https://u:{}@10.77.0.1:3380\n",
                secrets.plant("comment"),
                secrets.plant("token in a file"),
                secrets.plant("discovery in a file"),
                secrets.plant("unknown key"),
                secrets.plant("misspelt key"),
                secrets.plant("URL in a file"),
            ),
        ),
        ("/etc/etcd/syntax.yaml", format!("name: \"{}\n\t- [", secrets.plant("syntax error"))),
        (
            "/etc/etcd/type.yaml",
            format!("listen-peer-urls: {{a: {}}}\n", secrets.plant("value of the wrong type")),
        ),
        ("/etc/etcd/boolean.yaml", format!("peer-auto-tls: {}\n", secrets.plant("no boolean"))),
        ("/etc/etcd/number.yaml", format!("snapshot-count: {}\n", secrets.plant("no number"))),
        ("/etc/etcd/scalar.yaml", format!("{}\n", secrets.plant("no mapping"))),
        ("/etc/etcd/json.json", format!("{{\"name\": \"{}", secrets.plant("truncated JSON"))),
    ];
    let mut fakes: Vec<Program> = Vec::new();
    for (path, text) in &files {
        node.write(path, text, 0o600).unwrap();
        fakes.push(Program::new("/srv/etcd").args(["--config-file", path]));
    }
    fakes.push(
        Program::new("/srv/etcd")
            .args([
                "--name=fake".to_owned(),
                format!("--initial-cluster-token={}", secrets.plant("token argument")),
                format!("--discovery=https://discovery.example/{}", secrets.plant("discovery argument")),
                format!("--discovery-proxy=http://u:{}@proxy:1", secrets.plant("proxy argument")),
                format!("--listen-peer-urls=https://u:{}@10.77.0.1:4380", secrets.plant("URL argument")),
                format!(
                    "--listen-peer-urls=http://u:{}@10.77.0.1:4381",
                    secrets.plant("repeated URL argument")
                ),
                format!(
                    "--initial-cluster=fake=https://u:{}@10.77.0.1:4380",
                    secrets.plant("URL of a member")
                ),
                format!("--auth-token=jwt,pub-key=x,priv-key={}", secrets.plant("auth-token argument")),
                "--password".to_owned(),
                secrets.plant("argument of an unknown flag"),
                format!("--unknown={}", secrets.plant("value of an unknown flag")),
                secrets.plant("argument that is no flag"),
            ])
            .env(
                "ETCD_LISTEN_CLIENT_URLS",
                format!("http://u:{}@10.77.0.1:4379", secrets.plant("URL variable")),
            )
            .env("ETCD_JWT_SECRET", secrets.plant("secret variable")),
    );
    fakes.push(Program::new("/srv/etcd").args([
        "grpc-proxy".to_owned(),
        "start".to_owned(),
        format!("--endpoints=https://u:{}@10.77.0.1:2379", secrets.plant("endpoint of a proxy")),
        format!("--metrics-addr=http://u:{}@127.0.0.1:1", secrets.plant("metrics of a proxy")),
    ]));
    let manifests = [
        ("syntax", format!("kind: Pod\nspec: {{a: \"{}\n", secrets.plant("syntax error of a manifest"))),
        ("type", format!("kind: Pod\nspec:\n  containers: {}\n", secrets.plant("wrong type in a manifest"))),
        (
            "env",
            format!("kind: Pod\nspec:\n  containers:\n  - env: [{}]\n", secrets.plant("wrong environment")),
        ),
        (
            "value",
            format!(
                "kind: Pod\nspec:\n  containers:\n  - command: [etcd, --name=x]\n    env:\n    - name: ETCD_X\n      \
             value: {{a: {}}}\n",
                secrets.plant("wrong value")
            ),
        ),
        ("alias", format!("kind: Pod\nmetadata: *{}\n", secrets.plant("unknown anchor"))),
        ("tag", format!("kind: Pod\nmetadata: !{} x\nspec: 3\n", secrets.plant("unknown tag"))),
        (
            "good",
            format!(
                "kind: Pod\nspec:\n  containers:\n  - command: [etcd, --name=declared, '--initial-cluster-token={}', \
             '--advertise-client-urls=https://u:{}@h:1', '--x=$(SECRET)', '--password=$(ETCD_ROOT_PASSWORD)']\n    env:\n    \
             - {{name: SECRET, value: {}}}\n    - {{name: ETCD_ROOT_PASSWORD, value: {}}}\n",
                secrets.plant("declared token"),
                secrets.plant("declared URL"),
                secrets.plant("declared variable"),
                secrets.plant("declared password"),
            ),
        ),
        (
            "script",
            format!(
                "kind: Pod\nspec:\n  containers:\n  - command: [sh, -c, 'PASSWORD={} etcd --name=$(hostname) | tee {}']\n",
                secrets.plant("script"),
                secrets.plant("end of a script"),
            ),
        ),
    ];
    for (name, text) in manifests {
        node.write(&format!("/etc/kubernetes/manifests/{name}.yaml"), text, 0o600).unwrap();
    }
    let unit = format!(
        "[Service]\nEnvironment=ETCD_ROOT_PASSWORD={} AWS_SECRET={}\nEnvironmentFile=/etc/default/etcd\n\
         ExecStart=/srv/etcd --name=unit --initial-cluster-token={}\n",
        secrets.plant("environment of a unit"),
        secrets.plant("other environment of a unit"),
        secrets.plant("token of a unit"),
    );
    node.write("/etc/systemd/system/etcd.service", unit, 0o644).unwrap();
    let environment = format!(
        "ETCD_INITIAL_CLUSTER_TOKEN={}\nETCD_NAME='{}\nbroken {}\n",
        secrets.plant("token of an environment file"),
        secrets.plant("unbalanced quote"),
        secrets.plant("line that is no assignment"),
    );
    node.write("/etc/default/etcd", environment, 0o600).unwrap();
    let _running: Vec<_> = fakes.iter().map(|fake| node.spawn(fake).unwrap()).collect();
    let told = assert_silent(node, &secrets);
    for known in ["etcd fake (pid", "etcd good (pid", "syntax.yaml:", "peer-cert-fil", "etcd grpc-proxy (pid"]
    {
        assert!(told.contains(known), "{known} is not told");
    }
}

#[test]
fn a_key_where_a_certificate_should_be_does_not_leave() {
    let secrets = Secrets::default();
    let cluster = cluster(&newest(), 1, |_| {});
    let node = cluster.node(0);
    add_keys(node, &secrets);
    let key = String::from_utf8(node.read(&format!("{PKI_DIR}/peer.key")).unwrap()).unwrap();
    let wrong = [
        key.clone(),
        key.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----")
            .replace("-----END PRIVATE KEY-----", "-----END CERTIFICATE-----"),
        key.replace("PRIVATE KEY", "X509 CRL"),
        key.replace("-----END PRIVATE KEY-----", ""),
        key.lines().filter(|l| !l.starts_with("-----")).collect(),
        key.replace('\n', " "),
        key.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"),
    ];
    for text in wrong {
        for file in ["peer.crt", "peer.key", "ca.crt"] {
            node.write(&format!("{PKI_DIR}/{file}"), &text, 0o600).unwrap();
        }
        for arguments in [
            &["snapshot"][..],
            &["audit", "--verbose"],
            &["certificates", "--verbose"],
            &["audit", "--snapshot", &format!("{PKI_DIR}/ca.crt")],
        ] {
            let leaks = secrets.leaks(&arguments.join(" "), &seaworthy(node, arguments));
            assert!(leaks.is_empty(), "{}", leaks.join("\n"));
        }
    }
}

/// What runs of `fix` printed, and what they left in files.
#[derive(Default)]
struct Traces {
    printed: Vec<(String, Output)>,
    written: Vec<Written>,
}

/// A file that a run has written.
struct Written {
    /// The node and the run.
    by: String,
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Written {
    /// Returns whether this is where a secret belongs: a private key, or what was there before a change, for root alone.
    fn may_hold_secrets(&self) -> bool {
        let kept = self.path.ends_with(".key") || self.path.contains("/preimages/");
        kept && self.mode & 0o077 == 0
    }
}

/// Returns the files of a node that are not etcd's own, each with its path and what changes when it is written.
fn all_files(node: &Node) -> BTreeSet<(String, String)> {
    let find = "find /etc /root /run /srv /tmp /var -xdev -type f -not -path '/var/lib/etcd/*' -not -path '/var/log/*' \
                -printf '%p\\t%i %s %T@ %m\\n' 2>/dev/null || :";
    let pair = |line: &str| {
        let (path, state) = line.split_once('\t').unwrap();
        (path.to_owned(), state.to_owned())
    };
    sh(node, find).lines().map(pair).collect()
}

impl Traces {
    /// Runs `seaworthy fix`, perhaps below other words, and a plan also without rights, and keeps what came of it.
    fn run(&mut self, node: &Node, before: &[&str], arguments: &[&str]) -> Output {
        let limits = ["--settle", "60", "--wait", "120"];
        let words = [before, &[SEAWORTHY, "fix"], arguments, &limits].concat();
        let what = format!("{}: {}", node.name, words.join(" "));
        let files = all_files(node);
        let output = node.run(words[0], &words[1..]).unwrap();
        for (path, _) in all_files(node).difference(&files) {
            let mode = u32::from_str_radix(&sh(node, &format!("stat -c %a '{path}'")), 8).unwrap();
            let bytes = node.read(path).unwrap();
            self.written.push(Written { by: what.clone(), path: path.clone(), mode, bytes });
        }
        if !arguments.contains(&"--apply") {
            let unprivileged = seaworthy_as(node, 1000, &[&["fix"], arguments, &limits].concat());
            self.printed.push((format!("{what}, without rights"), unprivileged));
        }
        self.printed.push((what, output.clone()));
        output
    }

    /// Runs `seaworthy fix` on all nodes at once.
    fn everywhere(&mut self, cluster: &Cluster, arguments: impl Fn(usize) -> Vec<String> + Sync) {
        let all: Vec<Self> = thread::scope(|scope| {
            let one = |(index, node)| {
                let arguments = arguments(index);
                scope.spawn(move || {
                    let mut own = Self::default();
                    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    let output = own.run(node, &[], &words);
                    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
                    own
                })
            };
            let runs: Vec<_> = cluster.nodes().iter().enumerate().map(one).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for own in all {
            self.printed.extend(own.printed);
            self.written.extend(own.written);
        }
    }

    /// Asserts that no secret was printed, or written where it does not belong.
    fn assert_silent(&self, secrets: &Secrets) {
        for file in &self.written {
            if file.path.ends_with(".key") {
                assert!(file.may_hold_secrets(), "{}: {} has mode {:o}", file.by, file.path, file.mode);
                secrets.add_key(&file.path, &String::from_utf8_lossy(&file.bytes));
            }
        }
        let mut leaks: Vec<String> =
            self.printed.iter().flat_map(|(what, output)| secrets.leaks(what, output)).collect();
        // What a change keeps of a file is what was in it.
        for file in self.written.iter().filter(|file| !file.may_hold_secrets() && file.path != MANIFEST) {
            let content =
                Output { status: Default::default(), stdout: file.bytes.clone(), stderr: Vec::new() };
            leaks.extend(secrets.leaks(&format!("{} wrote {}", file.by, file.path), &content));
        }
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n\n"));
    }

    /// Returns the ends of the paths of everything that was written.
    fn names(&self) -> BTreeSet<&str> {
        self.written.iter().filter_map(|file| file.path.rsplit('/').next()).collect()
    }
}

/// Plants secrets before, between and after the lines that a fix changes.
fn plant_in_manifest(node: &Node, secrets: &Secrets) {
    let before = node.etcd_pid();
    let above = secrets.plant("comment above a changed line");
    let token = secrets.plant("token beside a changed line");
    let annotation = secrets.plant("annotation of a manifest that is changed");
    let password = secrets.plant("password in a manifest that is changed");
    node.edit(MANIFEST, |text| {
        text.replacen("metadata:\n", &format!("metadata:\n  # {annotation}\n"), 1)
            .replacen(
                "    - --listen-peer-urls",
                &format!("    # {above}\n    - --initial-cluster-token={token}\n    - --listen-peer-urls"),
                1,
            )
            .replacen("    name: etcd\n", &format!("    # {password}\n    name: etcd\n"), 1)
    })
    .unwrap();
    node.wait_restarted(before).unwrap();
}

#[test]
fn secrets_that_a_fix_meets_do_not_leave_in_any_mode() {
    let secrets = Secrets::default();
    let binary = newest();
    let environment = secrets.plant("environment of a member that is fixed");
    let whole = spec(&binary, 3, move |m| {
        m.plain();
        with_authority(m);
        m.supervisor = Supervisor::Kubelet;
        m.env.insert("ETCD_ROOT_PASSWORD".into(), environment.clone().into());
    });
    let cluster = start(&binary, whole);
    cluster.put(&secrets.plant("key in etcd"), &secrets.plant("value in etcd")).unwrap();
    for node in cluster.nodes() {
        plant_in_manifest(node, &secrets);
        for path in [format!("{PKI_DIR}/ca.key"), format!("{PKI_DIR}/server.key")] {
            secrets.add_key(&path, &String::from_utf8(node.read(&path).unwrap()).unwrap());
        }
    }
    let node = cluster.node(0);
    let mut traces = Traces::default();
    let ca_key = format!("{PKI_DIR}/ca.key");
    // Planned, in each form, with advice and with wrong input.
    traces.run(node, &[], &[]);
    traces.run(node, &[], &[PEER_TLS]);
    traces.run(node, &[], &["2.4", "-f", "json"]);
    traces.run(node, &[], &[PEER_TLS, "--ca-cert", &ca_key, "--ca-key", &ca_key]);
    traces.run(node, &[], &[PEER_TLS, "--cert", &ca_key, "--key", &ca_key]);
    traces.run(node, &[], &[PEER_TLS, "--sign", &ca_key]);
    // Asked for, and signed elsewhere.
    let asks = cluster.node(2);
    asks.run("mv", [&ca_key, "/srv/away"]).unwrap();
    traces.run(asks, &[], &[PEER_TLS, "--request", "--apply"]);
    node.write("/tmp/request.csr", asks.read(&format!("{PKI_DIR}/seaworthy-peer.csr")).unwrap(), 0o644)
        .unwrap();
    let signed = traces.run(node, &[], &[PEER_TLS, "--sign", "/tmp/request.csr"]);
    assert_eq!(signed.status.code(), Some(0), "{}", String::from_utf8_lossy(&signed.stderr));
    asks.write(&format!("{PKI_DIR}/seaworthy-peer.crt"), &signed.stdout, 0o644).unwrap();
    // Killed, looked at, closed, begun anew, killed, resumed.
    let killed = |traces: &mut Traces, line: u32, arguments: &[&str]| {
        let output = traces.run(node, &["env", &format!("SEAWORTHY_KILL=after:{line}")], arguments);
        assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
    };
    killed(&mut traces, 3, &[PEER_TLS, "--apply"]);
    traces.run(node, &[], &["--status"]);
    let pending = traces.run(node, &[], &["--status", "-f", "json"]);
    let pending = fix_document(&pending)["fixes"][0]["id"].as_str().unwrap().to_owned();
    traces.run(node, &[], &["--forget", &pending]);
    // What it had made stays, and is in the way of the next one.
    sh(node, &format!("rm {PKI_DIR}/seaworthy-peer.*"));
    killed(&mut traces, 3, &[PEER_TLS, "--apply"]);
    traces.run(node, &[], &["--resume"]);
    // Carried out, looked at, and rolled back.
    traces.everywhere(&cluster, |index| {
        let request: &[&str] = if index == 2 { &["--request"] } else { &[] };
        [&[PEER_TLS, "--apply"], request].concat().into_iter().map(str::to_owned).collect()
    });
    let status = fix_document(&traces.run(node, &[], &["--status", "-f", "json"]));
    traces.run(node, &[], &["--status"]);
    traces.run(node, &[], &["--rollback"]);
    traces.run(node, &[], &["--rollback", "-f", "json"]);
    let firsts: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| {
            let status = fix_document(&seaworthy(node, &["fix", "--status", "-f", "json"]));
            let fixes = status["fixes"].as_array().unwrap().clone();
            let first =
                fixes.iter().find(|fix| fix["status"] == "done").unwrap_or_else(|| panic!("{status:#}"));
            first["id"].as_str().unwrap().to_owned()
        })
        .collect();
    traces.everywhere(&cluster, |index| {
        ["--rollback", &firsts[index], "--apply", "-f", "json"].map(str::to_owned).to_vec()
    });
    traces.assert_silent(&secrets);
    // All of it happened, and was looked at.
    let names = traces.names();
    for name in [
        "journal.jsonl",
        "plan.json",
        "seaworthy-peer.key",
        "seaworthy-peer.crt",
        "seaworthy-peer.csr",
        "etcd.yaml",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}; {status:#}");
    }
    let is_printed = |words: &str| {
        traces.printed.iter().any(|(_, output)| String::from_utf8_lossy(&output.stdout).contains(words))
    };
    assert!(is_printed("--peer-cert-file"), "the diff is printed");
    assert!(is_printed("\"rolled-back\""), "it was rolled back");
}
