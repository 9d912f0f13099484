//! The files of a node: a static pod as kubeadm writes it, and the key material that is there before a fix. Keys cost time, so
//! they are made once for all seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use seaworthy_collect::manifest::StaticPod;
use seaworthy_components::etcd::Version;
use seaworthy_components::etcd::settings::{Inputs, resolve};
use seaworthy_evidence::{ErrorKind, EvidenceError, Observed, Origin, PredictedFailure, Settings};
use seaworthy_remedy::issue::{Authority, Host, KeyKind, Profile};
use seaworthy_settings::Argument;

pub(crate) const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
pub(crate) const PKI: &str = "/etc/kubernetes/pki/etcd";
/// The release of etcd that is simulated.
pub(crate) const VERSION: &str = "3.6.13";
/// Most members of a cluster.
pub(crate) const MOST: usize = 5;

/// Ids of members, as etcd makes them: no order of names.
pub(crate) const IDS: [&str; MOST] =
    ["69d88a3f5ae88b6f", "79c4fb063b06262a", "69613aab7e17b22b", "8e9e05c52164694d", "1f3a6b0c44d2e571"];

/// Returns the time at which simulations begin, by the clocks of all nodes.
pub(crate) fn beginning() -> Timestamp {
    Timestamp::from_second(1_780_000_000).unwrap()
}

pub(crate) fn address(index: usize) -> String {
    format!("10.77.0.{}", index + 1)
}

pub(crate) fn name(index: usize) -> String {
    format!("m{}", index + 1)
}

/// Key material that is there from the beginning.
struct Made {
    /// Certificate and key of the authority that kubeadm made.
    authority: [String; 2],
    /// Certificate and key of each member, for clients.
    servers: Vec<[String; 2]>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let now = beginning();
        let (authority, secret) = Authority::create("etcd-ca", KeyKind::EcP256, now).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let server = |index: usize| {
            let hosts = [address(index), "127.0.0.1".to_owned(), name(index)];
            let hosts = hosts.map(|host| Host::parse(&host).unwrap());
            let profile = Profile::peer(&name(index), hosts);
            let (key, issued) = authority.issue(&profile, KeyKind::EcP256, now).unwrap();
            [issued.pem, text(key.as_bytes())]
        };
        Made {
            servers: (0..MOST).map(server).collect(),
            authority: [authority.pem().to_owned(), text(secret.as_bytes())],
        }
    })
}

/// Writes the files of a node below `root`.
pub(crate) fn furnish(root: &Path, index: usize, count: usize) {
    let write = |path: &str, mode: u32, text: &str| {
        let path = below(root, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let [certificate, key] = &made().authority;
    write(&format!("{PKI}/ca.crt"), 0o644, certificate);
    write(&format!("{PKI}/ca.key"), 0o600, key);
    let [certificate, key] = &made().servers[index];
    write(&format!("{PKI}/server.crt"), 0o644, certificate);
    write(&format!("{PKI}/server.key"), 0o600, key);
    write(MANIFEST, 0o644, &manifest(index, count));
}

pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Returns a manifest as kubeadm would write it for a member that talks plaintext with its peers.
fn manifest(index: usize, count: usize) -> String {
    let (name, address) = (name(index), address(index));
    let initial: Vec<String> =
        (0..count).map(|m| format!("{}=http://{}:2380", self::name(m), self::address(m))).collect();
    let initial = initial.join(",");
    format!(
        "# Written by kubeadm.
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://{address}:2379
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://{address}:2379
    - --cert-file={PKI}/server.crt
    - --client-cert-auth=true
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=http://{address}:2380
    - --initial-cluster={initial}
    - --key-file={PKI}/server.key
    - --listen-client-urls=https://127.0.0.1:2379,https://{address}:2379
    - --listen-metrics-urls=http://127.0.0.1:2381
    - --listen-peer-urls=http://{address}:2380
    - --name={name}

    # do not go below 5000
    - --snapshot-count=10000
    - --trusted-ca-file={PKI}/ca.crt
    image: etcd:{VERSION}
    name: etcd
    resources:
      requests:
        cpu: 100m
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - mountPath: {PKI}
      name: etcd-certs
  hostNetwork: true
  volumes:
  - hostPath:
      path: {PKI}
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: /var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
"
    )
}

/// A manifest as kubelet and etcd understand it.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// What kubelet compares: comments and blank lines are no part of it.
    pub(crate) document: String,
    /// The settings of a process that is started from it.
    pub(crate) settings: Settings,
    /// The same, with their places in the manifest.
    pub(crate) declared: Settings,
    /// Why etcd would not start from it.
    pub(crate) fatal: Vec<PredictedFailure>,
}

impl Manifest {
    /// Returns the manifest in `bytes`; `None` when it is none. Many seeds have the same ones, so each is read once.
    pub(crate) fn of(bytes: &[u8]) -> Option<Arc<Self>> {
        type Known = BTreeMap<Vec<u8>, Option<Arc<Manifest>>>;
        static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
        if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(bytes) {
            return known.clone();
        }
        let parsed = Self::parse(bytes).map(Arc::new);
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(bytes.to_vec(), parsed.clone());
        parsed
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let is_etcd = |path: &[u8]| path == b"etcd";
        let pods = StaticPod::parse(bytes, &Origin::file(MANIFEST)).ok()?;
        let containers = pods.into_iter().filter(|pod| !pod.ignored).flat_map(|pod| pod.containers);
        let command = containers.into_iter().find_map(|container| container.program(is_etcd))?.ok()?;
        let declared: Vec<Argument> = command.into_iter().skip(1).collect();
        let running: Vec<Argument> = (1..)
            .zip(&declared)
            .map(|(index, argument)| Argument {
                text: argument.text.clone(),
                origin: Origin::Argv { pid: 1, index },
            })
            .collect();
        let resolved = |arguments: &[Argument], version: Option<&str>| {
            let mut read = |path: &str| Err(EvidenceError::new(ErrorKind::NotFound, path));
            let version = version.and_then(Version::parse);
            resolve(Inputs { arguments, environment: Ok(&[]), version, read: &mut read })
        };
        let value = |settings: Observed<Settings>| settings.value().cloned();
        let (declared, running) = (resolved(&declared, None), resolved(&running, Some(VERSION)));
        let lines = std::str::from_utf8(bytes).ok()?.lines();
        let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        Some(Self {
            document: lines.filter(counts).flat_map(|line| [line, "\n"]).collect(),
            fatal: declared.fatal,
            declared: value(declared.settings)?,
            settings: value(running.settings)?,
        })
    }
}

/// A file as it was last looked at.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) bytes: Arc<[u8]>,
    /// The manifest in it, if it is one.
    pub(crate) manifest: Option<Arc<Manifest>>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Entry {
    fn facts(&self) -> (&[u8], u32, u32, u32) {
        (&self.bytes, self.mode, self.uid, self.gid)
    }
}

/// The files of a node that matter to etcd, by their paths on the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Entry>);

impl Files {
    /// Returns those that are there.
    pub(crate) fn of(root: &Path) -> Self {
        let mut files = Self::default();
        let keys = fs::read_dir(below(root, PKI)).unwrap();
        let keys = keys.map(|entry| format!("{PKI}/{}", entry.unwrap().file_name().to_str().unwrap()));
        files.look(root, keys.chain([MANIFEST.to_owned()]));
        files
    }

    /// Looks again at those that were touched, and returns what has changed, with what was there before.
    pub(crate) fn look(
        &mut self,
        root: &Path,
        touched: impl IntoIterator<Item = String>,
    ) -> BTreeMap<String, Option<Arc<[u8]>>> {
        let mut changed = BTreeMap::new();
        for path in touched {
            let host = below(root, &path);
            let former = self.0.get(&path);
            let entry = fs::metadata(&host).ok().map(|stat| {
                let bytes = fs::read(&host).unwrap();
                let manifest = if path == MANIFEST { Manifest::of(&bytes) } else { None };
                let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
                Entry { bytes: bytes.into(), manifest, mode, uid, gid }
            });
            if former.map(Entry::facts) == entry.as_ref().map(Entry::facts) {
                continue;
            }
            changed.insert(path.clone(), former.map(|former| Arc::clone(&former.bytes)));
            match entry {
                Some(entry) => self.0.insert(path, entry),
                None => self.0.remove(&path),
            };
        }
        changed
    }

    /// Returns the manifest, if there is one that can be read.
    pub(crate) fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.0.get(MANIFEST)?.manifest.as_ref()
    }

    pub(crate) fn bytes(&self, path: &str) -> Option<&Arc<[u8]>> {
        self.0.get(path).map(|entry| &entry.bytes)
    }
}

/// Notices which files of nodes are touched. Their times would be too coarse to tell, and to read them all takes long.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` when it is put back.
    queue: Option<OwnedFd>,
    /// Nodes and their folders, by what the kernel calls them.
    folders: BTreeMap<i32, (usize, &'static str)>,
    touched: Vec<BTreeSet<String>>,
}

/// Queues that nobody uses: to close one takes the kernel longer than a seed.
static QUEUES: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

impl Watch {
    /// Returns what watches the nodes whose files are below these roots.
    pub(crate) fn new<'r>(roots: impl IntoIterator<Item = &'r Path>) -> Self {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let free = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let queue = free.unwrap_or_else(|| inotify::init(flags).unwrap());
        let (mut folders, mut touched) = (BTreeMap::new(), Vec::new());
        for (index, root) in roots.into_iter().enumerate() {
            for folder in [directory(MANIFEST), PKI] {
                let changes = WatchFlags::ATTRIB
                    | WatchFlags::CREATE
                    | WatchFlags::DELETE
                    | WatchFlags::MODIFY
                    | WatchFlags::MOVE;
                let handle = inotify::add_watch(&queue, below(root, folder), changes).unwrap();
                folders.insert(handle, (index, folder));
            }
            touched.push(BTreeSet::new());
        }
        Self { queue: Some(queue), folders, touched }
    }

    /// Returns the files of a node that were touched since this was asked for the last time.
    pub(crate) fn touched(&mut self, index: usize) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(self.queue.as_ref().unwrap(), &mut buffer);
        loop {
            match events.next() {
                Err(Errno::AGAIN) => break,
                event => {
                    let event = event.unwrap();
                    let name = event.file_name().map(|name| name.to_str().unwrap());
                    // Of an earlier cluster it may still say that its folders were removed.
                    if let (Some((index, folder)), Some(name)) = (self.folders.get(&event.wd()), name) {
                        let path = format!("{folder}/{name}");
                        if *folder == PKI || path == MANIFEST {
                            self.touched[*index].insert(path);
                        }
                    }
                }
            }
        }
        std::mem::take(&mut self.touched[index])
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        QUEUES.lock().unwrap_or_else(PoisonError::into_inner).extend(self.queue.take());
    }
}

fn directory(path: &'static str) -> &'static str {
    path.rsplit_once('/').unwrap().0
}
