//! What a cluster shall be: members, their settings, how etcd gets them, and what the node's files declare.

use std::{
    cell::OnceCell, collections::BTreeMap, ffi::OsString, fmt::Write, net::Ipv4Addr, path::PathBuf,
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    binary::EtcdBinary,
    error::Error,
    node::ETCD_LOG,
    pki::{Authority, Certificate, Leaf},
    program::Program,
    writer::{Identity, Target},
};

/// A cluster to start. The default is what kubeadm makes: three members, everything over mutual TLS by flags.
pub struct ClusterSpec {
    pub(crate) binary: EtcdBinary,
    pub(crate) members: usize,
    pub(crate) learners: usize,
    pub(crate) authority: Option<Authority>,
    pub(crate) shares: Vec<(PathBuf, String)>,
    pub(crate) user_namespace: bool,
    pub(crate) changes: Vec<Change>,
}

type Change = Box<dyn FnMut(&mut MemberSpec)>;

impl ClusterSpec {
    /// Returns the default cluster of this etcd.
    pub fn new(binary: &EtcdBinary) -> Self {
        Self {
            binary: binary.clone(),
            members: 3,
            learners: 0,
            authority: None,
            shares: Vec::new(),
            user_namespace: false,
            changes: Vec::new(),
        }
    }

    /// Sets the number of voting members.
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// Sets the number of learners, which join when the others are ready. They have the highest indices.
    pub fn learners(mut self, count: usize) -> Self {
        self.learners = count;
        self
    }

    /// Sets the authority that issues all certificates unless a member says otherwise.
    pub fn authority(mut self, authority: &Authority) -> Self {
        self.authority = Some(authority.clone());
        self
    }

    /// Makes a directory of the machine visible in every node, read-only.
    pub fn share(mut self, from: impl Into<PathBuf>, to: impl Into<String>) -> Self {
        self.shares.push((from.into(), to.into()));
        self
    }

    /// Makes the cluster in a user namespace although root would not need one.
    pub fn user_namespace(mut self) -> Self {
        self.user_namespace = true;
        self
    }

    /// Changes every member, one after another. Calls add up.
    pub fn each(mut self, change: impl FnMut(&mut MemberSpec) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Returns all members, voters first, with the changes applied and `initial-cluster` filled in.
    pub(crate) fn build(&mut self) -> Result<Vec<MemberSpec>, Error> {
        let authority = match &self.authority {
            Some(authority) => authority.clone(),
            None => Authority::new("etcd-ca")?,
        };
        let mut members: Vec<MemberSpec> = Vec::new();
        for index in 0..self.members + self.learners {
            let mut member = MemberSpec::new(index, &self.binary, &authority);
            if index >= self.members {
                member.learner = true;
                member.ready = Ready::Serving; // a learner refuses the read that a health check makes
                member.set("initial-cluster-state", "existing");
            }
            self.changes.iter_mut().for_each(|change| change(&mut member));
            match member.supervisor {
                Supervisor::Kubelet => member.declared = Declared::Manifest,
                Supervisor::None => {}
                Supervisor::Units => member.declared = Declared::Unit,
            }
            members.push(member);
        }
        let urls: Vec<String> = members.iter().flat_map(MemberSpec::initial).collect();
        let voters: usize = members.iter().take(self.members).map(|member| member.initial().len()).sum();
        for member in members.iter_mut().filter(|member| member.get("initial-cluster").is_none()) {
            let known = if member.learner { urls.len() } else { voters };
            member.set("initial-cluster", urls.iter().take(known).cloned().collect::<Vec<_>>().join(","));
        }
        Ok(members)
    }
}

/// One member and its node. Everything may be changed before the cluster starts.
pub struct MemberSpec {
    /// Counts the members from 0.
    pub index: usize,
    /// The member's name and the node's host name: `m1` for index 0.
    pub name: String,
    /// The node's address: `10.77.0.1` for index 0.
    pub address: Ipv4Addr,
    /// The etcd to run. Only its version may differ between members of one cluster.
    pub binary: EtcdBinary,
    /// The authority that issued the member's certificates, to issue others.
    pub authority: Authority,
    /// etcd's settings, by flag name without dashes.
    pub settings: BTreeMap<String, String>,
    /// How etcd gets its settings.
    pub source: Source,
    /// What the node's files say about etcd.
    pub declared: Declared,
    /// Who starts etcd and keeps it running. Other than [`Supervisor::None`] it decides what is declared.
    pub supervisor: Supervisor,
    /// Directories of the node with a small disk (tmpfs) of their own, and its size in bytes.
    pub disks: Vec<(String, u64)>,
    /// Arguments added to the command line as they are.
    pub args: Vec<OsString>,
    /// Environment variables added to the process.
    pub env: BTreeMap<OsString, OsString>,
    /// More files of the node, with their mode. They replace those that the lab writes.
    pub files: BTreeMap<String, (Vec<u8>, u32)>,
    /// The user that etcd runs as, who owns data and keys. Other than 0 needs real root.
    pub uid: u32,
    /// Directories of the node and where etcd's container has them; empty: etcd runs on the node itself.
    pub mounts: Vec<(String, String)>,
    /// Whether the cluster starts this member.
    pub autostart: bool,
    /// What [`Cluster::start`](crate::Cluster::start) waits for.
    pub ready: Ready,
    /// How long it waits.
    pub timeout: Duration,
    /// The arguments with which etcdctl reaches this member, if the lab's own guess from the settings is
    /// wrong.
    pub client: Option<Vec<String>>,
    pub(crate) learner: bool,
    certificates: BTreeMap<String, Issue>,
}

impl MemberSpec {
    fn new(index: usize, binary: &EtcdBinary, authority: &Authority) -> Self {
        let mut member = Self {
            index,
            name: format!("m{}", index + 1),
            address: Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1).unwrap_or(u8::MAX)),
            binary: binary.clone(),
            authority: authority.clone(),
            settings: BTreeMap::new(),
            source: Source::Flags,
            declared: Declared::Manifest,
            supervisor: Supervisor::None,
            disks: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            files: BTreeMap::new(),
            uid: 0,
            mounts: Vec::new(),
            autostart: true,
            ready: Ready::Healthy,
            timeout: Duration::from_secs(30),
            client: None,
            learner: false,
            certificates: BTreeMap::new(),
        };
        member.set("name", member.name.clone());
        member.set("data-dir", "/var/lib/etcd");
        member.set("snapshot-count", "10000");
        member.set("listen-metrics-urls", "http://127.0.0.1:2381");
        member.peers("https");
        member.clients("https");
        for (prefix, pair) in [("", "server"), ("peer-", "peer")] {
            member.set(format!("{prefix}cert-file"), format!("{PKI_DIR}/{pair}.crt"));
            member.set(format!("{prefix}key-file"), format!("{PKI_DIR}/{pair}.key"));
            member.set(format!("{prefix}trusted-ca-file"), format!("{PKI_DIR}/ca.crt"));
            member.set(format!("{prefix}client-cert-auth"), "true");
            member.issue(pair, authority, member.leaf());
        }
        let client = Leaf::new("kube-etcd-healthcheck-client").usage(crate::Usage::Client);
        member.issue(CLIENT, authority, client);
        member
    }

    /// Sets a setting of etcd.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.settings.insert(name.into(), value.into());
    }

    /// Removes a setting of etcd.
    pub fn unset(&mut self, name: &str) {
        self.settings.remove(name);
    }

    /// Returns a setting of etcd.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Returns the URL of the peer port on the node's address.
    pub fn peer_url(&self, scheme: &str) -> String {
        format!("{scheme}://{}:2380", self.address)
    }

    /// Returns the URL of the client port on the node's address.
    pub fn client_url(&self, scheme: &str) -> String {
        format!("{scheme}://{}:2379", self.address)
    }

    /// Gives the peer URLs, listening and advertised, this scheme. Certificate settings stay as they are.
    pub fn peers(&mut self, scheme: &str) {
        self.set("listen-peer-urls", self.peer_url(scheme));
        self.set("initial-advertise-peer-urls", self.peer_url(scheme));
    }

    /// Gives the client URLs, listening and advertised, this scheme. Certificate settings stay as they are.
    pub fn clients(&mut self, scheme: &str) {
        self.set("listen-client-urls", format!("{scheme}://127.0.0.1:2379,{}", self.client_url(scheme)));
        self.set("advertise-client-urls", self.client_url(scheme));
    }

    /// Removes every TLS setting of the peer side, without touching its URLs.
    pub fn no_peer_tls(&mut self) {
        TLS.iter().for_each(|name| self.unset(&format!("peer-{name}")));
    }

    /// Removes every TLS setting of the client side, without touching its URLs.
    pub fn no_client_tls(&mut self) {
        TLS.iter().for_each(|name| self.unset(name));
    }

    /// Makes everything plaintext: `http://` URLs and no TLS setting at all.
    pub fn plain(&mut self) {
        self.peers("http");
        self.clients("http");
        self.no_peer_tls();
        self.no_client_tls();
    }

    /// Returns what the member's good certificates say, to change one thing in it.
    pub fn leaf(&self) -> Leaf {
        Leaf::new(&self.name)
            .san(&self.name)
            .san("localhost")
            .san(self.address.to_string())
            .san("127.0.0.1")
            .san("::1")
    }

    /// Replaces the certificate and key `NAME.crt` and `NAME.key` in the PKI directory.
    ///
    /// The names in use are `server`, `peer` and `healthcheck-client`; any other adds a pair.
    pub fn issue(&mut self, name: &str, authority: &Authority, leaf: Leaf) {
        let issue = Issue { authority: authority.clone(), leaf, done: OnceCell::new() };
        self.certificates.insert(name.into(), issue);
    }

    /// Adds or replaces a file of the node.
    pub fn file(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.files.insert(path.into(), (bytes.into(), mode));
    }

    /// Runs etcd in a container that has the PKI directory at another path, which does not exist on the node.
    ///
    /// Settings that name the PKI directory are changed to the new path.
    pub fn in_container(&mut self, pki: &str) {
        let same = |path: &str| (path.to_string(), path.to_string());
        self.mounts = vec![(PKI_DIR.into(), pki.into()), same(self.data_dir()), same(CONFIG_DIR)];
        self.settings.values_mut().for_each(|value| *value = value.replace(PKI_DIR, pki));
    }

    /// Returns the settings as etcd's configuration file has them, to be changed and given to
    /// [`Source::File`].
    pub fn config(&self) -> Value {
        let mut top = Map::new();
        for (name, value) in &self.settings {
            let typed = match value.as_str() {
                "true" => json!(true),
                "false" => json!(false),
                value if name == "cipher-suites" => json!(value.split(',').collect::<Vec<_>>()),
                value => value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number)),
            };
            let peer = name.strip_prefix("peer-");
            let key = peer.unwrap_or(name).strip_prefix("cert-").map_or(peer.unwrap_or(name), |key| {
                if key == "file" { "cert-file" } else { key } // `peer-cert-allowed-cn` is `allowed-cn`
            });
            if peer.is_some() || TLS.contains(&key) {
                let side = if peer.is_some() { "peer" } else { "client" };
                let section = top.entry(format!("{side}-transport-security")).or_insert_with(|| json!({}));
                if let Value::Object(section) = section {
                    section.insert(key.to_string(), typed);
                }
            } else {
                top.insert(name.clone(), typed);
            }
        }
        Value::Object(top)
    }

    /// Returns a node without etcd, for the clients of a cluster, with their certificate.
    pub(crate) fn client(binary: &EtcdBinary, authority: &Authority) -> Self {
        let mut client = Self::new(99, binary, authority);
        (client.name, client.autostart, client.declared) = ("client".into(), false, Declared::Nothing);
        client.certificates.retain(|name, _| name == CLIENT);
        client
    }

    /// Returns the member as a client reaches it.
    pub(crate) fn target(&self) -> Target {
        let urls = self.get("advertise-client-urls").unwrap_or_default();
        let url = urls.split(',').next().unwrap_or_default();
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(2379);
        Target {
            name: self.name.clone(),
            address: (self.address, port).into(),
            tls: url.starts_with("https"),
            learner: self.learner,
        }
    }

    /// Returns etcd's command line and environment, as its source puts the settings there.
    pub(crate) fn program(&self) -> Program {
        let (args, env) = self.start();
        let env = env.into_iter().chain(self.env.clone()).collect();
        let program = Program { env, mounts: self.mounts.clone(), ..Program::new("etcd") };
        program.args(args).uid(self.uid).log(ETCD_LOG)
    }

    /// Returns every file of the node that the lab writes: by path.
    pub(crate) fn render(&self) -> Result<BTreeMap<String, NodeFile>, Error> {
        let mut files = BTreeMap::new();
        let mut put = |path: String, text: String, mode, uid| {
            files.insert(path, NodeFile { bytes: text.into_bytes(), mode, uid });
        };
        put(format!("{PKI_DIR}/ca.crt"), self.authority.pem(), 0o644, 0);
        for (name, issue) in &self.certificates {
            let certificate = issue.certificate()?;
            put(format!("{PKI_DIR}/{name}.crt"), certificate.bundle(), 0o644, 0);
            put(format!("{PKI_DIR}/{name}.key"), certificate.key.clone(), 0o600, self.uid);
        }
        match &self.source {
            Source::Yaml => put(YAML_PATH.into(), yaml(&self.config()), 0o644, 0),
            Source::Json => put(JSON_PATH.into(), format!("{:#}\n", self.config()), 0o644, 0),
            Source::File { path, text } => put(path.clone(), text.clone(), 0o644, 0),
            Source::Environment | Source::Flags | Source::SingleDash => {
                put(
                    format!("{CONFIG_DIR}/README"),
                    "This etcd has no configuration file.\n".into(),
                    0o644,
                    0,
                );
            }
        }
        match self.declared {
            Declared::Manifest => put(MANIFEST.into(), self.manifest(), 0o600, 0),
            Declared::Unit => {
                let (unit, environment) = self.unit();
                put(UNIT.into(), unit, 0o644, 0);
                put(ENVIRONMENT_FILE.into(), environment, 0o600, 0);
            }
            Declared::Nothing => {}
        }
        for (path, (bytes, mode)) in &self.files {
            files.insert(path.clone(), NodeFile { bytes: bytes.clone(), mode: *mode, uid: 0 });
        }
        Ok(files)
    }

    pub(crate) fn client_args(&self) -> Vec<String> {
        if let Some(client) = &self.client {
            return client.clone();
        }
        let urls = self.get("listen-client-urls").unwrap_or("http://127.0.0.1:2379");
        let mut args = vec![format!("--endpoints={}", urls.split(',').next().unwrap_or_default())];
        if urls.starts_with("https") {
            let Identity { ca, certificate, key } = Self::identity();
            args.extend([format!("--cacert={ca}"), format!("--cert={certificate}"), format!("--key={key}")]);
        }
        args
    }

    /// Returns the files with which clients prove who they are.
    pub(crate) fn identity() -> Identity {
        Identity {
            ca: format!("{PKI_DIR}/ca.crt"),
            certificate: format!("{PKI_DIR}/{CLIENT}.crt"),
            key: format!("{PKI_DIR}/{CLIENT}.key"),
        }
    }

    pub(crate) fn peer_port(&self) -> u16 {
        let urls = self.get("listen-peer-urls").unwrap_or_default();
        let port = urls.split(',').next().and_then(|url| url.rsplit_once(':'));
        port.and_then(|(_, port)| port.parse().ok()).unwrap_or(2380)
    }

    pub(crate) fn data_dir(&self) -> &str {
        self.get("data-dir").unwrap_or("/var/lib/etcd")
    }

    pub(crate) fn peer_urls(&self) -> Vec<&str> {
        self.get("initial-advertise-peer-urls").unwrap_or_default().split(',').collect()
    }

    /// Returns this member's part of `initial-cluster`.
    fn initial(&self) -> Vec<String> {
        self.peer_urls().iter().map(|url| format!("{}={url}", self.name)).collect()
    }

    fn start(&self) -> (Vec<OsString>, BTreeMap<OsString, OsString>) {
        let mut args: Vec<OsString> = Vec::new();
        let mut env = BTreeMap::new();
        match &self.source {
            Source::Environment => {
                let variable = |name: &str| format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
                env = self.settings.iter().map(|(k, v)| (variable(k).into(), v.into())).collect();
            }
            Source::File { path, .. } => args.push(format!("--config-file={path}").into()),
            Source::Flags => args.extend(self.settings.iter().map(|(k, v)| format!("--{k}={v}").into())),
            Source::Json => args.push(format!("--config-file={JSON_PATH}").into()),
            Source::SingleDash => {
                for (name, value) in &self.settings {
                    match value.as_str() {
                        // A boolean flag cannot have its value in the next argument.
                        "true" => args.push(format!("-{name}").into()),
                        "false" => args.push(format!("-{name}=false").into()),
                        value => args.extend([format!("-{name}").into(), value.into()]),
                    }
                }
            }
            Source::Yaml => args.push(format!("--config-file={YAML_PATH}").into()),
        }
        args.extend(self.args.iter().cloned());
        (args, env)
    }

    /// Returns the static pod that declares exactly this process, in kubeadm's form.
    fn manifest(&self) -> String {
        let (args, mut env) = self.start();
        env.extend(self.env.clone());
        let mut text = format!(
            "apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: {}
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
",
            scalar(self.get("advertise-client-urls").unwrap_or_default())
        );
        for arg in args {
            let _ = writeln!(text, "    - {}", scalar(&arg.to_string_lossy()));
        }
        if !env.is_empty() {
            text.push_str("    env:\n");
        }
        for (name, value) in env {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            let _ = write!(text, "    - name: {}\n      value: {}\n", scalar(&name), json!(value));
        }
        let same = |path: &str| (path.to_string(), path.to_string());
        let volumes = match self.mounts.as_slice() {
            [] => vec![same(self.data_dir()), same(PKI_DIR), same(CONFIG_DIR)],
            mounts => mounts.to_vec(),
        };
        let _ = write!(
            text,
            "    image: registry.k8s.io/etcd:{}-0
    imagePullPolicy: IfNotPresent
    livenessProbe:
      httpGet:
        host: 127.0.0.1
        path: /health?exclude=NOSPACE&serializable=true
        port: 2381
        scheme: HTTP
    name: etcd
    volumeMounts:
",
            self.binary.version
        );
        for (index, (_, container)) in volumes.iter().enumerate() {
            let _ = write!(text, "    - mountPath: {container}\n      name: volume-{index}\n");
        }
        text.push_str(
            "  hostNetwork: true
  priorityClassName: system-node-critical
  securityContext:
    seccompProfile:
      type: RuntimeDefault
",
        );
        if self.uid != 0 {
            let _ = write!(text, "    runAsGroup: {0}\n    runAsUser: {0}\n", self.uid);
        }
        text.push_str("  volumes:\n");
        for (index, (host, _)) in volumes.iter().enumerate() {
            let _ = write!(
                text,
                "  - hostPath:\n      path: {host}\n      type: DirectoryOrCreate\n    name: volume-{index}\n"
            );
        }
        text
    }

    /// Returns a systemd unit and its environment file, as Debian's package has them.
    fn unit(&self) -> (String, String) {
        let (args, mut env) = self.start();
        env.extend(self.env.clone());
        let quoted = |word: &OsString| json!(word.to_string_lossy()).to_string();
        let args: Vec<String> = args.iter().map(quoted).collect();
        let user = if self.uid == 0 { String::new() } else { format!("User={}\n", self.uid) };
        let unit = format!(
            "[Unit]\nDescription=etcd\n\n[Service]\nType=notify\n{user}EnvironmentFile=-/etc/default/etcd\n\
             ExecStart=/opt/etcd/etcd {}\nRestart=always\nRestartSec=500ms\n\n[Install]\nWantedBy=multi-user.target\n",
            args.join(" ")
        );
        let lines = env.iter().map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), quoted(value)));
        (unit, lines.collect())
    }
}

/// A certificate to issue, once.
struct Issue {
    authority: Authority,
    leaf: Leaf,
    done: OnceCell<Certificate>,
}

impl Issue {
    fn certificate(&self) -> Result<&Certificate, Error> {
        if let Some(certificate) = self.done.get() {
            return Ok(certificate);
        }
        let certificate = self.authority.issue(&self.leaf)?;
        Ok(self.done.get_or_init(|| certificate))
    }
}

/// A file that the lab writes on a node.
pub(crate) struct NodeFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
}

/// How etcd gets its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// By `ETCD_*` variables.
    Environment,
    /// By `--config-file` with this text, whatever the settings say.
    File {
        /// Where the file is, on the node and in the container.
        path: String,
        /// What it says.
        text: String,
    },
    /// By flags as kubeadm writes them: `--name=value`.
    Flags,
    /// By `--config-file /etc/etcd/etcd.conf.json`.
    Json,
    /// By flags with one dash and the value in the next argument: `-name value`.
    SingleDash,
    /// By `--config-file /etc/etcd/etcd.conf.yaml`.
    Yaml,
}

/// What the files of a node say about its etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// The static pod manifest [`MANIFEST`].
    Manifest,
    /// Nothing.
    Nothing,
    /// `/etc/systemd/system/etcd.service` with `/etc/default/etcd`.
    Unit,
}

/// Who starts etcd on a node and keeps it running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervisor {
    /// A stand-in for kubelet inside the node, which runs the static pods of `/etc/kubernetes/manifests` by
    /// kubelet's rules: every file whose name does not start with a dot is a pod; a pod whose document or
    /// path changes is ended and started anew. It looks at a change at once (inotify) and at the whole
    /// directory every 500 ms, as `fileCheckFrequency` in `/var/lib/kubelet/config.yaml` says (kubelet's
    /// default is 20 s).
    Kubelet,
    /// The test, directly.
    None,
    /// A stand-in for systemd inside the node, which runs the units of `/etc/systemd/system`, with a
    /// `systemctl` that knows `daemon-reload`, `start`, `stop`, `restart`, `try-restart`, `reset-failed`,
    /// `is-active`, `show`, `status` and `cat`.
    Units,
}

/// When a member counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// When a read through consensus succeeds.
    Healthy,
    /// When something listens on the peer port: for members that will find no quorum.
    Listening,
    /// When it says that it serves clients, which takes a quorum but no client certificate.
    Serving,
    /// At once, even if it exits.
    Started,
}

/// The static pod manifest of etcd on every node.
pub const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// The unit of etcd on nodes that declare it as one.
pub const UNIT: &str = "/etc/systemd/system/etcd.service";

/// The environment file of that unit.
pub const ENVIRONMENT_FILE: &str = "/etc/default/etcd";

/// The directory of etcd's certificates on every node.
pub const PKI_DIR: &str = "/etc/kubernetes/pki/etcd";

/// The client certificate's name.
const CLIENT: &str = "healthcheck-client";

const CONFIG_DIR: &str = "/etc/etcd";
const YAML_PATH: &str = "/etc/etcd/etcd.conf.yaml";
const JSON_PATH: &str = "/etc/etcd/etcd.conf.json";

/// The TLS settings of the client side; those of the peer side have `peer-` in front.
const TLS: [&str; 12] = [
    "allowed-cn",
    "allowed-hostname",
    "auto-tls",
    "cert-allowed-cn",
    "cert-allowed-hostname",
    "cert-file",
    "client-cert-auth",
    "client-cert-file",
    "client-key-file",
    "crl-file",
    "key-file",
    "trusted-ca-file",
];

/// Writes a configuration, which is two levels deep, as YAML.
fn yaml(config: &Value) -> String {
    let mut text = String::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        match value {
            Value::Object(section) => {
                let _ = writeln!(text, "{key}:");
                for (key, value) in section {
                    let _ = writeln!(text, "  {key}: {value}");
                }
            }
            value => {
                let _ = writeln!(text, "{key}: {value}");
            }
        }
    }
    text
}

/// Returns a YAML scalar: plain where nothing in it could be misread, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:".contains(c);
    let misread =
        text.is_empty() || text.ends_with(':') || text.starts_with([',', '=', ':', '.']) || text == "-";
    if text.chars().all(plain) && !misread { text.into() } else { json!(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> MemberSpec {
        let binary =
            EtcdBinary { version: "3.5.1".into(), path: "/opt/etcd".into(), etcdctl: "/opt/etcdctl".into() };
        let mut members = ClusterSpec::new(&binary).members(2).learners(1).build().unwrap();
        members.remove(1)
    }

    #[test]
    fn settings_become_a_configuration_file() {
        let mut member = member();
        member.set("peer-cert-allowed-cn", "m");
        let config = member.config();
        assert_eq!(config["listen-peer-urls"], "https://10.77.0.2:2380");
        assert_eq!(config["initial-cluster"], "m1=https://10.77.0.1:2380,m2=https://10.77.0.2:2380");
        assert_eq!(config["snapshot-count"], 10000);
        assert_eq!(config["peer-transport-security"]["cert-file"], "/etc/kubernetes/pki/etcd/peer.crt");
        assert_eq!(config["peer-transport-security"]["client-cert-auth"], true);
        assert_eq!(config["peer-transport-security"]["allowed-cn"], "m");
        assert_eq!(config["client-transport-security"]["trusted-ca-file"], "/etc/kubernetes/pki/etcd/ca.crt");
        assert!(yaml(&config).contains("peer-transport-security:\n"));
    }

    #[test]
    fn every_source_carries_every_setting() {
        let mut member = member();
        member.settings = [("peer-client-cert-auth", "true"), ("name", "a b"), ("auto-tls", "false")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into();
        for (source, args, env) in [
            (Source::Flags, vec!["--auto-tls=false", "--name=a b", "--peer-client-cert-auth=true"], vec![]),
            (Source::SingleDash, vec!["-auto-tls=false", "-name", "a b", "-peer-client-cert-auth"], vec![]),
            (
                Source::Environment,
                vec![],
                vec![
                    ("ETCD_AUTO_TLS", "false"),
                    ("ETCD_NAME", "a b"),
                    ("ETCD_PEER_CLIENT_CERT_AUTH", "true"),
                ],
            ),
            (Source::Yaml, vec!["--config-file=/etc/etcd/etcd.conf.yaml"], vec![]),
        ] {
            member.source = source;
            let (found_args, found_env) = member.start();
            assert_eq!(found_args, args);
            let env: BTreeMap<OsString, OsString> = env.iter().map(|(k, v)| (k.into(), v.into())).collect();
            assert_eq!(found_env, env);
        }
    }

    #[test]
    fn a_container_moves_the_pki_in_settings_and_manifest() {
        let mut member = member();
        member.in_container("/certs");
        assert_eq!(member.get("peer-cert-file"), Some("/certs/peer.crt"));
        let manifest = member.manifest();
        assert!(manifest.contains("    - --peer-cert-file=/certs/peer.crt\n"));
        assert!(manifest.contains("    - mountPath: /certs\n"));
        assert!(manifest.contains("      path: /etc/kubernetes/pki/etcd\n"));
    }

    #[test]
    fn scalars_are_quoted_when_yaml_would_misread_them() {
        for (text, expected) in [
            ("--a=b", "--a=b"),
            ("m1", "m1"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("x:", "\"x:\""),
            ("#", "\"#\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
