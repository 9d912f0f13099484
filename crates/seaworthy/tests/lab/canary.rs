//! Nothing secret leaves: unique words are planted wherever a node may hold a secret, and no output may have one.
//!
//! A word that is listed as not secret (a name, a path) proves that the place it stands in is read at all.

use std::cell::RefCell;
use std::process::Output;

use seaworthy_lab::{Cluster, MANIFEST, MemberSpec, Node, PKI_DIR, Program};

use crate::common::{cluster, newest, seaworthy, seaworthy_as};

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

    /// Makes every line of a private key a secret.
    fn add_key(&self, path: &str, pem: &str) {
        let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 16);
        self.0.borrow_mut().extend(lines.map(|line| (path.to_owned(), line.to_owned())));
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
    let commands: [&[&str]; 13] = [
        &["snapshot"],
        &["snapshot", "--no-wire"],
        &["snapshot", "--observe", "0.2"],
        &["snapshot", "-o", snapshot],
        &["audit"],
        &["audit", "--verbose", "--color", "always"],
        &["audit", "--format", "json"],
        &["audit", "--benchmark", "cis-kubernetes", "--verbose"],
        &["audit", "--snapshot", snapshot, "--verbose"],
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
            &["audit", "--snapshot", &format!("{PKI_DIR}/ca.crt")],
        ] {
            let leaks = secrets.leaks(&arguments.join(" "), &seaworthy(node, arguments));
            assert!(leaks.is_empty(), "{}", leaks.join("\n"));
        }
    }
}
