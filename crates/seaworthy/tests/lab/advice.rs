//! The advice of every rule, done to the letter where the rule fails: it passes then, and nothing else is worse.
//!
//! [`Follower`] is a person who knows etcd and does what the report says, and nothing else: commands are run as they are
//! printed, and a setting, a file or a member is the one that is named. What nobody could follow is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use seaworthy_lab::{
    Authority, Cluster, Leaf, MANIFEST, MemberSpec, Node, PKI_DIR, Process, Program, Ready, Source,
    Supervisor, UNIT, Usage, Validity,
};
use serde_json::{Value, json};

use crate::common::{Audit, newest, spawn, spec, start, versions};
use crate::fix_apply::with_authority;
use crate::oracle::{eventually, sh};

/// How long a verdict may take to be what it must after the last thing that was done.
const SETTLES: Duration = Duration::from_secs(20);

/// The rules whose advice nobody can follow here, and why.
const EXCEPTIONS: [(&str, &str); 22] = [
    ("client-ca-mode", "it is not about etcd, whose CA files etcd-pki-certificate-mode judges"),
    ("client-ca-owner", "as client-ca-mode"),
    ("config-mode", "it is not about etcd"),
    ("config-owner", "as config-mode"),
    ("kubeconfig-mode", "etcd has no kubeconfig; crates/kubeadm/tests/failures.rs follows it for others"),
    ("kubeconfig-owner", "as kubeconfig-mode"),
    ("loopback-only", "it is not about etcd; crates/kubeadm/tests/failures.rs follows it"),
    ("profiling", "as loopback-only"),
    (
        "admin-kubeconfig-mode",
        "it is about a node of Kubernetes; crates/kubeadm/tests/failures.rs follows it",
    ),
    ("admin-kubeconfig-owner", "as admin-kubeconfig-mode"),
    ("cni-mode", "as admin-kubeconfig-mode"),
    ("cni-owner", "as admin-kubeconfig-mode"),
    ("pki-certificate-mode", "as admin-kubeconfig-mode"),
    ("pki-key-mode", "as admin-kubeconfig-mode"),
    ("pki-owner", "as admin-kubeconfig-mode"),
    ("runtime-socket", "as admin-kubeconfig-mode"),
    ("system-masters-kubeconfig", "as admin-kubeconfig-mode"),
    ("node-certificate-expiry", "it is what a person does with the CA at hand"),
    ("node-certificate-soundness", "as node-certificate-expiry"),
    ("separate-trust-domains", "as node-certificate-expiry"),
    ("unit-mode", "it is not about etcd"),
    ("unit-owner", "as unit-mode"),
];

/// A rule that is made to fail on the first member.
struct Row {
    rule: &'static str,
    /// What is done to a cluster in which it passes; nothing where it fails by how the cluster was made.
    stage: fn(&Cluster),
}

const fn row(rule: &'static str, stage: fn(&Cluster)) -> Row {
    Row { rule, stage }
}

/// Rules that are staged one after another on one cluster.
struct Stage {
    name: &'static str,
    members: usize,
    spec: fn(&mut MemberSpec),
    rows: &'static [Row],
}

const fn none(_: &Cluster) {}

/// Returns a member that kubelet runs, and whose authority is at hand, as kubeadm leaves it.
fn pod(m: &mut MemberSpec) {
    m.supervisor = Supervisor::Kubelet;
    with_authority(m);
}

fn unit(m: &mut MemberSpec) {
    m.supervisor = Supervisor::Units;
    with_authority(m);
}

/// Names that a shell would take apart.
const ODD: [&str; 2] = ["an odd one", "$(touch odd);'"];

/// Copies a file of the PKI to files of odd names, and gives all of them this mode.
fn odd(cluster: &Cluster, from: &str, mode: &str) {
    let node = cluster.node(0);
    let bytes = node.read(&format!("{PKI_DIR}/{from}")).unwrap();
    for name in ODD {
        node.write(&format!("{PKI_DIR}/{name}"), &bytes, 0o600).unwrap();
    }
    sh(node, &format!("cd {PKI_DIR} && chmod {mode} {from} 'an odd one' '$(touch odd);'\\'"));
}

const FILES: &[Row] = &[
    row("etcd-data-directory-mode", |c| drop(sh(c.node(0), "chmod 755 /var/lib/etcd"))),
    row("etcd-data-directory-owner", |c| drop(sh(c.node(0), "chown 1000:1000 /var/lib/etcd"))),
    row("etcd-pki-certificate-mode", |c| odd(c, "peer.crt", "666")),
    row("etcd-pki-key-mode", |c| odd(c, "peer.key", "644")),
    row("etcd-pki-owner", |c| drop(sh(c.node(0), &format!("chown 1000:1000 {PKI_DIR}/*")))),
    row("manifest-mode", |c| drop(sh(c.node(0), &format!("chmod 644 {MANIFEST}")))),
    row("manifest-owner", |c| drop(sh(c.node(0), &format!("chown 1000:1000 {MANIFEST}")))),
];

const DECLARATIONS: &[Row] = &[
    row("rival-manifests", |c| {
        drop(sh(c.node(0), &format!("cp {MANIFEST} '/etc/kubernetes/manifests/0 old.yaml'")))
    }),
    row("declaration-starts", |c| {
        let node = c.node(0);
        node.pause_supervisor().unwrap();
        let flags = "    - etcd\n    - --peer-client-file=/x\n    - --no-such-flag=1\n";
        node.edit(MANIFEST, |text| text.replace("    - etcd\n", flags)).unwrap();
    }),
    row("tls-strength", none),
];

/// An account of its own is to run what root ran.
fn another_user(cluster: &Cluster) {
    let drop_in = "/etc/systemd/system/etcd.service.d/user.conf";
    cluster.node(0).write(drop_in, "[Service]\nUser=etcd\n", 0o644).unwrap();
}

const UNITS: &[Row] = &[
    row("declaration-starts", another_user),
    row("drift", |c| {
        let metrics = |text: &str| text.replace("http://127.0.0.1:2381", "http://127.0.0.1:2382");
        c.node(0).edit(UNIT, metrics).unwrap();
    }),
    row("tls-strength", none),
];

const STAGES: &[Stage] = &[
    Stage { name: "files", members: 1, spec: pod, rows: FILES },
    Stage {
        name: "files of a container",
        members: 1,
        spec: |m| {
            pod(m);
            m.in_container("/certs");
        },
        rows: FILES,
    },
    Stage { name: "declarations", members: 1, spec: pod, rows: DECLARATIONS },
    Stage { name: "units", members: 1, spec: unit, rows: UNITS },
    Stage {
        name: "an environment",
        members: 1,
        spec: |m| {
            unit(m);
            m.source = Source::Environment;
            m.set(
                "cipher-suites",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
            );
            m.env.insert("ETCD_CA_FILE".into(), format!("{PKI_DIR}/ca.crt").into());
            m.env.insert("ETCD_PEER_CA_FILE".into(), format!("{PKI_DIR}/ca.crt").into());
        },
        rows: &[row("ignored-settings", none), row("tls-strength", none)],
    },
    Stage {
        name: "a configuration file",
        members: 1,
        spec: |m| {
            pod(m);
            let mut config = m.config();
            config["initial-cluster"] = json!(format!("{}={}", m.name, m.peer_url("https")));
            // Two keys that have no effect where they are: one is set elsewhere already.
            config["peer-trusted-ca-file"] = config["peer-transport-security"]["trusted-ca-file"].clone();
            config["client-cert-auth"] = json!(true);
            m.source = Source::File { path: "/etc/etcd/etcd.conf.yaml".into(), text: yaml(&config) };
        },
        rows: &[row("ignored-settings", none), row("tls-strength", none)],
    },
    Stage {
        name: "plaintext for clients",
        members: 1,
        spec: |m| {
            pod(m);
            m.clients("http");
            m.no_client_tls();
        },
        rows: &[row("etcd-client-tls", none)],
    },
    Stage {
        name: "plaintext for clients that need no certificate",
        members: 1,
        spec: |m| {
            pod(m);
            m.clients("http");
        },
        rows: &[row("etcd-client-authentication", none)],
    },
    Stage {
        name: "clients without certificates",
        members: 1,
        spec: |m| {
            pod(m);
            m.unset("trusted-ca-file");
            m.unset("client-cert-auth");
        },
        rows: &[row("etcd-client-authentication", none)],
    },
    Stage {
        name: "self-made certificates for clients",
        members: 1,
        spec: |m| {
            pod(m);
            m.no_client_tls();
            m.set("auto-tls", "true");
            m.ready = Ready::Serving;
        },
        rows: &[row("etcd-client-auto-tls", none)],
    },
    Stage {
        name: "certificates for clients",
        members: 1,
        spec: |m| {
            pod(m);
            m.uid = 997;
        },
        rows: &[
            row("certificate-soundness", |c| {
                let script = "chown root:root server.key peer.key && chmod 640 peer.crt && chmod 700 .";
                drop(sh(c.node(0), &format!("cd {PKI_DIR} && {script}")))
            }),
            row("certificate-soundness", |c| {
                let node = c.node(0);
                let other =
                    Authority::new("another").unwrap().issue(&Leaf::new("x").san("10.77.0.99")).unwrap();
                for (name, text, mode) in [("crt", other.pem, 0o644), ("key", other.key, 0o600)] {
                    node.write(&format!("{PKI_DIR}/server.{name}"), text, mode).unwrap();
                }
                sh(node, &format!("chown 997 {PKI_DIR}/server.key"));
            }),
        ],
    },
    Stage {
        name: "the end of certificates",
        members: 1,
        spec: |m| {
            pod(m);
            let authority = m.authority.clone();
            for name in ["peer", "server"] {
                m.issue(name, &authority, m.leaf().validity(Validity::Days(10)));
            }
        },
        rows: &[row("certificate-expiry", none)],
    },
    Stage {
        name: "plaintext",
        members: 3,
        spec: |m| {
            pod(m);
            m.peers("http");
            m.no_peer_tls();
        },
        rows: &[row("etcd-peer-tls", none)],
    },
    Stage {
        name: "plaintext without authentication",
        members: 3,
        spec: |m| {
            pod(m);
            m.peers("http");
            m.no_peer_tls();
        },
        rows: &[row("etcd-peer-authentication", none)],
    },
    Stage {
        name: "self-made certificates",
        members: 3,
        spec: |m| {
            pod(m);
            m.no_peer_tls();
            m.set("peer-auto-tls", "true");
        },
        rows: &[row("etcd-peer-auto-tls", none)],
    },
    Stage {
        name: "peers without certificates",
        members: 3,
        spec: |m| {
            pod(m);
            m.unset("peer-trusted-ca-file");
            m.unset("peer-client-cert-auth");
            m.env.insert("SSL_CERT_FILE".into(), format!("{PKI_DIR}/ca.crt").into());
        },
        rows: &[row("etcd-peer-authentication", none)],
    },
    Stage {
        name: "an advertised http URL",
        members: 3,
        spec: |m| {
            pod(m);
            if m.index == 0 {
                m.set("initial-advertise-peer-urls", m.peer_url("http"));
                m.ready = Ready::Listening;
            }
        },
        rows: &[row("etcd-advertised-peer-urls", none)],
    },
    Stage {
        name: "a certificate that half the cluster refuses",
        members: 3,
        spec: |m| {
            pod(m);
            if m.index == 0 {
                m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Client));
            }
        },
        rows: &[row("etcd-peer-certificate", none)],
    },
    Stage {
        name: "half a link",
        members: 3,
        spec: |m| {
            pod(m);
            if m.index == 2 {
                m.issue("peer", &m.authority.clone(), m.leaf().usage(Usage::Server));
            }
        },
        rows: &[row("etcd-peer-links", none), row("etcd-peer-links", |c| c.node(1).stop().unwrap())],
    },
    Stage { name: "one authority", members: 3, spec: pod, rows: &[row("etcd-peer-ca", none)] },
    Stage {
        name: "the authority of Kubernetes for peers",
        members: 3,
        spec: |m| {
            pod(m);
            let clients = clients();
            m.file(format!("{PKI_DIR}/clients.crt"), clients.pem(), 0o644);
            m.set("trusted-ca-file", format!("{PKI_DIR}/clients.crt"));
            m.issue("server", &clients, m.leaf());
            m.issue("healthcheck-client", &clients, Leaf::new("client").usage(Usage::Client));
            let own = m.authority.pem();
            m.file("/etc/kubernetes/pki/ca.crt", own, 0o644);
            m.client = Some(
                [
                    "--endpoints=https://127.0.0.1:2379".to_owned(),
                    format!("--cacert={PKI_DIR}/clients.crt"),
                    format!("--cert={PKI_DIR}/healthcheck-client.crt"),
                    format!("--key={PKI_DIR}/healthcheck-client.key"),
                ]
                .to_vec(),
            );
        },
        rows: &[row("etcd-unique-ca", none)],
    },
];

/// Returns the authority of the clients, which is the same for all members of all clusters.
fn clients() -> Authority {
    static CLIENTS: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
    CLIENTS.get_or_init(|| Authority::new("clients").unwrap()).clone()
}

fn yaml(config: &Value) -> String {
    serde_json::to_string_pretty(config).unwrap()
}

/// Somebody who does what the report of one member says.
struct Follower<'c> {
    cluster: &'c Cluster,
    /// The member.
    at: usize,
}

impl Follower<'_> {
    fn node(&self) -> &Node {
        self.cluster.node(self.at)
    }

    /// Does what `advice` says, one line after another.
    #[track_caller]
    fn obey(&self, advice: &str) {
        for line in advice.lines() {
            eprintln!("    {line}");
            self.obey_line(line);
        }
    }

    fn obey_line(&self, line: &str) {
        let mut done = false;
        let mut before = String::new();
        let mut changed = None;
        let pid = self.node().etcd_pid();
        let mut parts = line.split('`');
        while let Some(text) = parts.next() {
            before.push_str(text);
            let Some(said) = parts.next() else { break };
            match said.split(' ').next().unwrap() {
                "seaworthy" => {
                    self.seaworthy(said, &before, line.split('`').filter(|part| *part == said).count())
                }
                "chmod" | "chown" | "mv" | "systemctl" => drop(sh(self.node(), said)),
                _ if before.contains(" correct or remove ") => changed = Some(self.remove(&before, said)),
                _ if before.ends_with("` to `") || before.ends_with(" to ") => {}
                _ if before.contains(" rename ") => {
                    let to = line.split_once(&format!("`{said}` to ")).unwrap().1;
                    let to = to.strip_prefix('`').map(|to| to.split('`').next().unwrap());
                    changed = Some(self.rename(&before, said, to));
                }
                _ if before.contains(" set ") => {
                    let (name, value) = said.split_once('=').unwrap();
                    changed = Some(self.set(&before, name, value));
                }
                _ => panic!("what is to be done with {said:?}? {line}"),
            }
            done = true;
            before.push('`');
        }
        let restarts = line.contains("restart this member") || line.contains("restart one member at a time");
        if let Some(path) = changed.filter(|_| restarts) {
            self.restart(&path, pid);
        }
        if let Some(rest) = line.strip_prefix("Start ") {
            let name = rest.split(' ').next().unwrap();
            let node = self.cluster.nodes().iter().find(|node| node.name == name).unwrap();
            node.start().unwrap();
            node.wait_ready().unwrap();
            done = true;
        }
        if line.starts_with("Restart the members one at a time, leader last") {
            let leader = self.cluster.leader().unwrap();
            let others = (0..self.cluster.nodes().len()).filter(|at| *at != leader);
            others.chain([leader]).for_each(|at| self.cluster.node(at).restart().unwrap());
            done = true;
        }
        if let Some(rest) = line.strip_prefix("Have ") {
            self.issue(rest);
            done = true;
        }
        if let Some((_, rest)) = line.split_once("let uid ") {
            let (uid, rest) = rest.split_once(" use ").unwrap();
            for path in rest.split(": ").next().unwrap().split(", ") {
                let its_own = format!("[ -d {path} ] || grep -q 'PRIVATE KEY' {path}");
                sh(
                    self.node(),
                    &format!("if {its_own}; then chown -R {uid} {path}; else chmod o+r {path}; fi"),
                );
            }
            self.restart(UNIT, pid);
            done = true;
        }
        assert!(done, "nobody can follow this: {line}");
    }

    /// Runs `seaworthy fix` or follows `seaworthy audit`, on those members that the text before says.
    fn seaworthy(&self, command: &str, before: &str, times: usize) {
        let sentence = before.rsplit(". ").next().unwrap();
        if let Some(rules) = command.strip_prefix("seaworthy audit --rule ") {
            let name = before.split_once("this member and on ").unwrap().1.split(' ').next().unwrap();
            for (at, node) in self.cluster.nodes().iter().enumerate() {
                let named = at == self.at || node.name == name;
                for rule in rules.split(" --rule ").filter(|_| named) {
                    if let Some(advice) = Audit::of(node).finding(rule)["remedy"].as_str() {
                        Follower { cluster: self.cluster, at }.obey(advice);
                    }
                }
            }
            return;
        }
        assert!(command.starts_with("seaworthy fix ") && times == 1, "{command}");
        let command = format!("PATH=/host-bin:$PATH; {command} --format json --settle 60");
        let run = |node: &Node, wait: u32, options: &str| {
            let output =
                node.run("bash", ["-c", &format!("{} --wait {wait}", command.replace(options, ""))]).unwrap();
            let told = [output.stderr, output.stdout].concat();
            (output.status.code(), format!("{}: {}", node.name, String::from_utf8_lossy(&told)))
        };
        if sentence.contains("n every member") {
            // Where a word is asked for in the end, it is given next.
            let asks = command.contains("etcd-client-tls") && !command.contains("--clients-are-ready");
            let ended = thread::scope(|scope| {
                let run = |node| scope.spawn(move || run(node, if asks { 5 } else { 120 }, "no option"));
                let runs: Vec<_> = self.cluster.nodes().iter().map(run).collect();
                runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
            });
            for (code, told) in ended {
                let asked = asks && code == Some(3) && told.contains("--clients-are-ready");
                assert!(code == Some(0) || asked, "{command}: {code:?} {told}");
            }
        } else if sentence.contains("n one member") {
            let files: Vec<&str> = command.split(' ').filter(|word| word.starts_with(PKI_DIR)).collect();
            thread::scope(|scope| {
                let first = scope.spawn(|| run(self.node(), 120, "no option"));
                eventually(Duration::from_secs(60), || {
                    let missing = files.iter().find(|file| self.node().read(file).is_err());
                    missing.map_or(Ok(()), |file| Err(format!("no {file}")))
                });
                let others = self.cluster.nodes().iter().filter(|node| node.name != self.node().name);
                let runs: Vec<_> = others
                    .map(|node| {
                        for file in &files {
                            node.write(file, self.node().read(file).unwrap(), 0o600).unwrap();
                        }
                        scope.spawn(move || run(node, 120, " --new-ca"))
                    })
                    .collect();
                for ended in [first].into_iter().chain(runs).map(|run| run.join().unwrap()) {
                    assert_eq!(ended.0, Some(0), "{command}: {}", ended.1);
                }
            });
        } else {
            let (code, told) = run(self.node(), 120, "no option");
            assert_eq!(code, Some(0), "{command}: {told}");
        }
    }

    /// Returns the file that the text before a setting says to change.
    fn file(&self, before: &str) -> String {
        let (_, rest) = before.rsplit_once("n /").expect("a path");
        let path = format!("/{}", rest.split([' ', ',']).next().unwrap());
        // A unit's variables are where it reads them from.
        let variable = before.contains("or the file that it reads");
        let environment =
            sh(self.node(), &format!("grep -s '^EnvironmentFile=' {path} | cut -d- -f2 || true"));
        if variable && !environment.is_empty() { environment } else { path }
    }

    fn set(&self, before: &str, name: &str, value: &str) -> String {
        let path = self.file(before);
        self.edit(&path, |file| file.set(name, value));
        path
    }

    fn remove(&self, before: &str, name: &str) -> String {
        let path = self.file(before);
        self.edit(&path, |file| drop(file.remove(name)));
        path
    }

    fn rename(&self, before: &str, name: &str, to: Option<&str>) -> String {
        let path = self.file(before);
        self.edit(&path, |file| {
            let value = file.remove(name);
            if let Some(to) = to.filter(|to| !file.has(to)) {
                file.set(to, &value);
            }
        });
        path
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Settings)) {
        let node = self.node();
        let text = String::from_utf8(node.read(path).unwrap()).unwrap();
        let mut file = Settings::read(path, &text);
        change(&mut file);
        let changed = file.text();
        assert_ne!(changed, text, "{path}");
        node.edit(path, |_| changed).unwrap();
    }

    /// Restarts etcd after a change of `path`, which kubelet does by itself where that is its manifest.
    fn restart(&self, path: &str, pid: Option<u32>) {
        let node = self.node();
        match path {
            MANIFEST => {}
            _ if path.starts_with("/etc/etcd/") => {
                node.stop().unwrap();
                node.start().unwrap();
            }
            _ => drop(sh(node, "systemctl daemon-reload && systemctl restart etcd")),
        }
        node.wait_restarted(pid).unwrap();
    }

    /// Issues a certificate as `said`: `FILE issued anew by the CA in FILE, with USAGES and the names NAMES, and exchange it and
    /// FILE by renaming. …`
    fn issue(&self, said: &str) {
        let (certificate, rest) = said.split_once(" issued anew by the CA in ").unwrap();
        let (ca, rest) = rest.split_once(", with ").unwrap();
        let (usages, rest) = rest.split_once(" and the names ").unwrap();
        let (names, rest) = rest.split_once(", and exchange it and ").unwrap();
        let key = rest.split_once(" by renaming").unwrap().0;
        let name = |name: &str| match name.parse::<std::net::IpAddr>() {
            Ok(_) => format!("IP:{name}"),
            Err(_) => format!("DNS:{name}"),
        };
        let names: BTreeSet<String> = names.split(", ").map(name).collect();
        let names: Vec<String> = names.into_iter().collect();
        let (names, authority) = (names.join(","), ca.replace(".crt", ".key"));
        sh(
            self.node(),
            &format!(
                "openssl req -config <(echo [req]; echo distinguished_name=d; echo [d]) -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key}.new -subj /CN=x \
                 -CA {ca} -CAkey {authority} -days 300 -addext basicConstraints=critical,CA:false \
                 -addext extendedKeyUsage={} -addext subjectAltName={names} -out {certificate}.new && \
                 chown --reference={key} {key}.new && mv {certificate}.new {certificate} && mv {key}.new {key}",
                usages.replace(' ', "")
            ),
        );
    }
}

/// A file with settings of etcd, as somebody edits it who knows its form.
enum Settings {
    Config(Value),
    Environment(Vec<String>),
    Manifest(Vec<String>),
    Unit(Vec<String>),
}

impl Settings {
    fn read(path: &str, text: &str) -> Self {
        let lines = || text.lines().map(str::to_owned).collect();
        match () {
            () if path.contains("/manifests/") => Self::Manifest(lines()),
            () if path.ends_with(".service") => Self::Unit(lines()),
            () if path.contains("/default/") => Self::Environment(lines()),
            () => Self::Config(serde_json::from_str(text).unwrap()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Config(config) => yaml(config),
            Self::Environment(lines) | Self::Manifest(lines) | Self::Unit(lines) => lines.join("\n") + "\n",
        }
    }

    /// Returns the section and the key of a dotted name in a configuration file.
    fn key(name: &str) -> (Option<&str>, &str) {
        name.split_once('.').map_or((None, name), |(section, key)| (Some(section), key))
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Config(config) => match Self::key(name) {
                (Some(section), key) => config[section].get(key).is_some(),
                (None, key) => config.get(key).is_some(),
            },
            Self::Environment(lines) => lines.iter().any(|line| line.starts_with(&format!("{name}="))),
            Self::Manifest(lines) | Self::Unit(lines) => {
                lines.iter().any(|line| line.contains(&format!("--{name}=")))
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        match self {
            Self::Config(config) => {
                let value = match value {
                    "true" => json!(true),
                    list if name == "cipher-suites" => json!(list.split(',').collect::<Vec<_>>()),
                    text => json!(text),
                };
                match Self::key(name) {
                    (Some(section), key) => config[section][key] = value,
                    (None, key) => config[key] = value,
                }
            }
            Self::Environment(lines) => {
                lines.retain(|line| !line.starts_with(&format!("{name}=")));
                lines.push(format!("{name}={value}"));
            }
            Self::Manifest(lines) => {
                lines.retain(|line| !line.contains(&format!("- --{name}=")));
                let at = lines.iter().position(|line| line.trim() == "- etcd").unwrap();
                lines.insert(at + 1, format!("    - --{name}={value}"));
            }
            Self::Unit(lines) => {
                let line = lines.iter_mut().find(|line| line.starts_with("ExecStart=")).unwrap();
                line.push_str(&format!(" --{name}={value}"));
            }
        }
    }

    /// Takes out what is called so, and returns its value.
    fn remove(&mut self, name: &str) -> String {
        let lines = match self {
            Self::Config(config) => {
                let (section, key) = Self::key(name);
                let section = match section {
                    Some(section) => &mut config[section],
                    None => config,
                };
                let value = section.as_object_mut().unwrap().remove(key).unwrap();
                return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            }
            Self::Environment(lines) | Self::Manifest(lines) | Self::Unit(lines) => lines,
        };
        let is = |line: &String| {
            let line = line.trim().trim_start_matches("- ").trim_start_matches("--");
            line.split_once('=').is_some_and(|(key, _)| key == name)
        };
        let at = lines.iter().position(is).unwrap_or_else(|| panic!("no {name} in {lines:#?}"));
        lines.remove(at).split_once('=').unwrap().1.trim_matches('"').to_owned()
    }
}

/// Returns the status of each rule on each member: the worst, where it is judged on several.
fn verdicts(cluster: &Cluster) -> BTreeMap<(String, String), String> {
    let mut verdicts = BTreeMap::new();
    for node in cluster.nodes().iter().filter(|node| node.etcd_pid().is_some()) {
        for finding in Audit::of(node).report["findings"].as_array().unwrap() {
            let [rule, status] = ["rule", "status"].map(|key| finding[key].as_str().unwrap().to_owned());
            let known: &mut String = verdicts.entry((node.name.clone(), rule)).or_default();
            if rank(&status) >= rank(known) {
                *known = status;
            }
        }
    }
    verdicts
}

/// Returns how bad a status is.
fn rank(status: &str) -> u8 {
    match status {
        "fail" => 3,
        "unknown" => 2,
        "pass" => 1,
        _ => 0,
    }
}

/// Returns whether `now` is worse than the status that a rule had before.
fn is_worse(rule: &str, before: &str, now: &str) -> bool {
    // Where peers come to need a certificate, it is asked for the first time whose certificates would do. How strong TLS is may
    // stay unknown on a machine with much to do.
    let of_its_own =
        rule == "etcd-peer-ca" && before == "not-applicable" || rule == "tls-strength" && now == "unknown";
    rank(now) > rank("pass").max(rank(before)) && !of_its_own
}

/// Stages a row, follows the advice, and asserts that the rule passes then and that no other is worse than before it was staged.
fn follow(cluster: &Cluster, row: &Row) {
    let node = cluster.node(0);
    eprintln!("  {}", row.rule);
    let finding = |node: &Node| {
        let audit = Audit::of(node);
        let found = audit.findings(row.rule);
        (*found.iter().max_by_key(|finding| rank(finding["status"].as_str().unwrap())).unwrap()).clone()
    };
    let healthy = verdicts(cluster);
    (row.stage)(cluster);
    // The audit that said so is the one whose advice is followed: the next one may not know, on a machine with much to do.
    let failed = std::cell::RefCell::new(Value::Null);
    eventually(SETTLES, || match finding(node) {
        found if found["status"] == "fail" => {
            failed.replace(found);
            Ok(())
        }
        other => Err(format!("{} does not fail: {other:#}", row.rule)),
    });
    let failed = failed.into_inner();
    Follower { cluster, at: 0 }.obey(failed["remedy"].as_str().unwrap());
    eventually(SETTLES, || {
        let after = verdicts(cluster);
        let worse = after.iter().filter(|(at, now)| {
            let before = healthy.get(*at).map_or("pass", String::as_str);
            is_worse(&at.1, before, now)
        });
        let worse: Vec<_> = worse.collect();
        match after.get(&(node.name.clone(), row.rule.to_owned())).map_or("not judged", String::as_str) {
            "pass" if worse.is_empty() => Ok(()),
            now => Err(format!("{} is {now}, and worse is {worse:?}\n{:#}", row.rule, finding(node))),
        }
    });
    for node in cluster.nodes() {
        node.resume_supervisor().unwrap();
    }
}

/// Follows the advice of every row of these stages.
fn follow_all(names: &[&str]) {
    for name in names {
        eprintln!("{name}");
        let stage = STAGES.iter().find(|stage| stage.name == *name).unwrap();
        let began = Instant::now();
        let binary = newest();
        let cluster = start(&binary, spec(&binary, stage.members, stage.spec));
        for row in stage.rows {
            follow(&cluster, row);
        }
        eprintln!("{name}: {:.1?}", began.elapsed());
    }
}

macro_rules! stages {
    ($($test:ident: $($name:literal),+;)+) => {
        $(
            #[test]
            fn $test() {
                follow_all(&[$($name),+]);
            }
        )+

        /// The stages that a test follows.
        const FOLLOWED: &[&str] = &[$($($name),+),+];
    };
}

stages! {
    owners_and_modes: "files", "files of a container";
    declarations: "declarations", "units";
    settings: "an environment", "a configuration file";
    clients_in_plaintext: "plaintext for clients";
    clients_in_plaintext_need_no_certificate: "plaintext for clients that need no certificate";
    certificates_of_clients: "clients without certificates", "self-made certificates for clients";
    certificates: "certificates for clients", "the end of certificates";
    peers_in_plaintext: "plaintext";
    peers_in_plaintext_need_no_certificate: "plaintext without authentication";
    peers_with_certificates_of_their_own: "self-made certificates";
    peers_need_no_certificate: "peers without certificates";
    advertised_urls: "an advertised http URL";
    certificates_of_peers: "a certificate that half the cluster refuses";
    links: "half a link";
    one_authority: "one authority";
    authorities_of_kubernetes: "the authority of Kubernetes for peers";
}

/// A plaintext peer port serves clients only up to etcd 3.5.
#[test]
fn peer_ports() {
    let Some(binary) = versions().into_iter().rfind(|binary| binary.version.starts_with("3.5.")) else {
        return;
    };
    for members in [1, 3] {
        let plain = |m: &mut MemberSpec| {
            pod(m);
            m.peers("http");
            m.no_peer_tls();
        };
        let cluster = start(&binary, spec(&binary, members, plain));
        follow(&cluster, &row("etcd-peer-port", none));
    }
}

#[test]
fn proxies() {
    let binary = newest();
    let cluster = start(
        &binary,
        spec(&binary, 1, |m| {
            // A proxy has no common name where it is a client.
            m.issue("proxy", &m.authority.clone(), Leaf::new("").usage(Usage::Client));
        }),
    );
    let node = cluster.node(0);
    let identity = ["cert", "key", "cacert"].map(|name| {
        let file = if name == "cacert" {
            "ca.crt".to_owned()
        } else {
            format!("proxy.{}", &name[..3].replace("cer", "crt"))
        };
        format!("--{name}={PKI_DIR}/{file}")
    });
    let run = |more: &[String]| -> Process {
        let first =
            ["grpc-proxy", "start", "--endpoints=https://10.77.0.1:2379", "--listen-addr=127.0.0.1:23790"];
        let program = Program::new("/opt/etcd/etcd").args(first).args(identity.clone());
        let process = spawn(node, &program.args(more.iter().cloned()));
        eventually(
            SETTLES,
            || if node.listens(23790) { Ok(()) } else { Err("it does not listen".to_owned()) },
        );
        process
    };
    let proxy = run(&[]);
    let audit = Audit::of(node);
    audit.expect("etcd-proxy-tls", "fail", &[]);
    let advice = audit.finding("etcd-proxy-tls")["remedy"].as_str().unwrap().to_owned();
    let (_, rest) = advice.split_once("Have a certificate issued for ").unwrap();
    let host = rest.split(',').next().unwrap();
    assert_eq!(host, "127.0.0.1");
    let file = |flag: &str| match flag {
        "--cert-file" => "server.crt",
        "--key-file" => "server.key",
        "--trusted-ca-file" => "ca.crt",
        other => panic!("what is {other}? {advice}"),
    };
    let said = advice.split('`').skip(1).step_by(2);
    let flags: Vec<String> = said.map(|flag| format!("{flag}={PKI_DIR}/{}", file(flag))).collect();
    assert_eq!(flags.len(), 3, "{advice}");
    drop(proxy);
    let _proxy = run(&flags);
    eventually(SETTLES, || match &Audit::of(node).finding("etcd-proxy-tls")["status"] {
        status if status == "pass" => Ok(()),
        status => Err(status.to_string()),
    });
}

/// No rule is forgotten, and no stage.
#[test]
fn every_rule_is_followed() {
    let mut rules = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalogue/rules");
    for component in ["common", "etcd", "etcd-proxy", "node"] {
        for entry in fs::read_dir(folder.join(component)).unwrap() {
            rules.insert(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    let mut known: BTreeSet<String> = ["etcd-peer-port", "etcd-proxy-tls"].map(str::to_owned).into();
    known.extend(STAGES.iter().flat_map(|stage| stage.rows).map(|row| row.rule.to_owned()));
    for (rule, why) in EXCEPTIONS {
        assert!(!why.is_empty() && known.insert(rule.to_owned()), "{rule} is followed: {why}");
    }
    assert_eq!(rules, known);
    let stages: BTreeSet<&str> = STAGES.iter().map(|stage| stage.name).collect();
    assert_eq!(stages, FOLLOWED.iter().copied().collect());
}
