//! A stand-in for kubelet: it runs what the static pod manifests of a directory say, and nothing else.
//!
//! It follows kubelet's own rules (`pkg/kubelet/config/file.go`, `file_linux.go`, `common.go`):
//!
//! * Every regular file whose name does not start with a dot is a manifest, whatever its extension.
//! * The directory is listed every `fileCheckFrequency`. Of two files that name the same pod, the
//!   lexicographically last is in force; a file that does not parse is left out of the list, so its pod
//!   **ends** at the next listing.
//! * Between listings inotify reports single files. There the last event wins, a file that does not parse
//!   changes nothing, and a removed file takes its pod along even if another file names the same pod (until
//!   the next listing brings that one up).
//! * A pod is another pod when its document or its path differs. Comments and spaces are no part of the
//!   document. The old one is ended first, with its grace period; only then is the new one started.
//! * What runs in a pod is in a control group with the pod's uid, which is another one for each such pod, and
//!   `/var/log/pods` has a folder with the pod's name and that uid.
//!
//! What it leaves out: probes, images, resources, `$(VAR)` in commands, volumes other than `hostPath`, and
//! sleeping for minutes: a container that crashes is started again after 0.2 s at first, growing to 5 s.

use std::{
    collections::BTreeMap,
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use serde::Deserialize;
use serde_json::Value;

use super::{read, say, span, task::Task};
use crate::{program::Program, trace};

/// Runs for ever, as `--config FILE` says.
pub(super) fn run(args: &[String]) -> Result<(), String> {
    let path = args.iter().find_map(|arg| arg.strip_prefix("--config=")).ok_or("--config is missing")?;
    let text = read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let config: Config = serde_saphyr::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let period = span(&config.file_check_frequency).ok_or("fileCheckFrequency is not a time span")?;
    let mut kubelet = Kubelet::new(config.static_pod_path);
    let mut listed: Option<Instant> = None;
    loop {
        if listed.is_none_or(|at| at.elapsed() >= period) {
            kubelet.manifests.list();
            listed = Some(Instant::now());
        }
        kubelet.manifests.events();
        kubelet.reconcile();
        thread::sleep(TICK);
    }
}

/// Kubelet's configuration file, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    static_pod_path: String,
    #[serde(default = "twenty_seconds")]
    file_check_frequency: String,
}

struct Kubelet {
    manifests: Manifests,
    pods: BTreeMap<String, Pod>,
}

impl Kubelet {
    fn new(folder: String) -> Self {
        let manifests = Manifests { folder, ..Manifests::default() };
        Self { manifests, pods: BTreeMap::new() }
    }

    /// Brings what runs closer to what the manifests say.
    fn reconcile(&mut self) {
        for (key, pod) in &mut self.pods {
            if !pod.ending && self.manifests.pods.get(key) != Some(&pod.manifest) {
                say(&format!("{key}: ending the pod of {}", pod.manifest.path));
                pod.ending = true;
            }
            pod.advance();
        }
        self.pods.retain(|key, pod| {
            let gone = pod.ending && pod.containers.iter().all(|container| container.task.is_none());
            if gone {
                say(&format!("{key}: gone"));
                pod.manifest.forget();
            }
            !gone
        });
        for (key, manifest) in &self.manifests.pods {
            if !self.pods.contains_key(key) {
                say(&format!("{key}: starting the pod of {}", manifest.path));
                self.pods.insert(key.clone(), Pod::new(key, manifest));
            }
        }
    }
}

/// The manifests in force, as kubelet's file source keeps them.
#[derive(Default)]
struct Manifests {
    folder: String,
    /// By namespace and name.
    pods: BTreeMap<String, Rc<Manifest>>,
    /// Which pod each file named when it was last read.
    files: BTreeMap<String, String>,
    watch: Option<OwnedFd>,
    /// What was said about each file that could not be read, to say it once.
    complaints: BTreeMap<String, String>,
}

impl Manifests {
    /// Reads the whole directory.
    fn list(&mut self) {
        let mut names: Vec<String> = match fs::read_dir(&self.folder) {
            Ok(entries) => {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return self.complain("", &error.to_string()),
        };
        names.retain(|name| !name.starts_with('.') && Path::new(&self.folder).join(name).is_file());
        names.sort();
        let mut pods = BTreeMap::new();
        for name in names {
            if let Some((key, manifest)) = self.read(&name) {
                pods.insert(key, manifest);
            }
        }
        self.pods = pods;
        if self.watch.is_none() {
            self.watch = watch(&self.folder).ok();
        }
    }

    /// Takes in what inotify has to report.
    fn events(&mut self) {
        let Some(watch) = self.watch.take() else { return };
        let mut reports = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&watch, &mut buffer);
        let mut lost = false;
        while let Ok(event) = reader.next() {
            lost |= event.events().intersects(ReadFlags::IGNORED | ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
            if !name.is_empty() && !name.starts_with('.') {
                let removed = event.events().intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
                reports.push((name.to_string(), removed));
            }
        }
        if !lost {
            self.watch = Some(watch);
        }
        for (name, removed) in reports {
            if removed {
                if let Some(key) = self.files.remove(&name) {
                    self.pods.remove(&key);
                }
            } else if let Some((key, manifest)) = self.read(&name) {
                self.pods.insert(key, manifest);
            }
        }
    }

    fn read(&mut self, name: &str) -> Option<(String, Rc<Manifest>)> {
        let path = format!("{}/{name}", self.folder);
        let read = read(&path).map_err(|error| error.to_string());
        match read.and_then(|text| Manifest::parse(&path, &text)) {
            Ok(manifest) => {
                self.complaints.remove(name);
                let key = manifest.key();
                self.files.insert(name.to_string(), key.clone());
                Some((key, Rc::new(manifest)))
            }
            Err(error) => {
                self.complain(name, &error);
                None
            }
        }
    }

    fn complain(&mut self, name: &str, error: &str) {
        if self.complaints.insert(name.to_string(), error.to_string()).as_deref() != Some(error) {
            say(&format!("cannot use {}/{name}: {error}", self.folder));
        }
    }
}

/// A manifest that parsed.
#[derive(PartialEq)]
struct Manifest {
    path: String,
    document: Value,
    object: Object,
}

impl Manifest {
    fn parse(path: &str, text: &str) -> Result<Self, String> {
        let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let object: Object = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
        if object.kind != "Pod" || object.metadata.name.is_empty() || object.spec.containers.is_empty() {
            return Err("it is not a pod with a name and containers".into());
        }
        Ok(Self { path: path.into(), document, object })
    }

    fn key(&self) -> String {
        let metadata = &self.object.metadata;
        format!("{}/{}", metadata.namespace.as_deref().unwrap_or("default"), metadata.name)
    }

    /// Returns the program as that of a container of this pod, after making the folder of its logs.
    fn traced(&self, program: Program, container: &str) -> Result<Program, String> {
        let run = trace::Container::new(&self.path, &self.document.to_string());
        let logs = format!("{}/{container}", self.logs(&run));
        fs::create_dir_all(&logs).map_err(|error| format!("{logs}: {error}"))?;
        Ok(program.group(run.group()))
    }

    /// Removes the folder of the pod's logs, as kubelet does when the pod has gone.
    fn forget(&self) {
        let run = trace::Container::new(&self.path, &self.document.to_string());
        let _ = fs::remove_dir_all(self.logs(&run));
    }

    /// Returns the folder of the pod's logs.
    fn logs(&self, run: &trace::Container) -> String {
        let metadata = &self.object.metadata;
        let node = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        run.logs(metadata.namespace.as_deref().unwrap_or("default"), &metadata.name, &node)
    }

    /// Returns what to run for a container, after making the directories that are to be made.
    fn program(&self, container: &ContainerSpec) -> Result<Program, String> {
        let spec = &self.object.spec;
        let mut words = container.command.iter().chain(&container.args);
        let Some(path) = words.next() else { return Err("a container without a command".into()) };
        let user = |context: &SecurityContext| context.run_as_user;
        let uid = user(&container.security_context).or(user(&spec.security_context)).unwrap_or(0);
        let mut program =
            Program::new(path).args(words).uid(uid).log(format!("/var/log/{}.log", container.name));
        for variable in &container.env {
            let value = variable.value.as_deref().unwrap_or_default();
            program = program.env(&variable.name, value);
        }
        for mount in &container.volume_mounts {
            let volume = spec.volumes.iter().find(|volume| volume.name == mount.name);
            let Some(host) = volume.and_then(|volume| volume.host_path.as_ref()) else {
                return Err(format!("volume {} is not there, or not a hostPath", mount.name));
            };
            host.prepare().map_err(|error| format!("hostPath {}: {error}", host.path))?;
            program.mounts.push((host.path.clone(), mount.mount_path.clone()));
            if mount.read_only {
                program.read_only.push(mount.mount_path.clone());
            }
        }
        Ok(program)
    }
}

/// A pod that runs, or is ending.
struct Pod {
    manifest: Rc<Manifest>,
    containers: Vec<Container>,
    ending: bool,
}

impl Pod {
    fn new(key: &str, manifest: &Rc<Manifest>) -> Self {
        let container = |spec: &ContainerSpec| Container {
            name: format!("{}.{}", key.replace('/', "."), spec.name),
            spec: spec.clone(),
            task: None,
            next: Instant::now(),
            pause: FIRST_PAUSE,
        };
        let containers = manifest.object.spec.containers.iter().map(container).collect();
        Self { manifest: Rc::clone(manifest), containers, ending: false }
    }

    fn advance(&mut self) {
        let grace = self.manifest.object.spec.termination_grace_period_seconds;
        for container in &mut self.containers {
            if let Some(task) = &mut container.task {
                if let Some(status) = task.ended() {
                    say(&format!("{}: process {} ended: {status}", container.name, task.pid));
                    if task.started.elapsed() > STABLE {
                        container.pause = FIRST_PAUSE;
                    }
                    container.task = None;
                    container.back_off();
                } else if self.ending {
                    task.stop(Duration::from_secs(grace));
                }
            } else if !self.ending && Instant::now() >= container.next {
                container.start(&self.manifest);
            }
        }
    }
}

struct Container {
    /// `NAMESPACE.POD.CONTAINER`.
    name: String,
    spec: ContainerSpec,
    task: Option<Task>,
    /// Not to be started before.
    next: Instant,
    pause: Duration,
}

impl Container {
    fn start(&mut self, manifest: &Manifest) {
        let program =
            manifest.program(&self.spec).and_then(|program| manifest.traced(program, &self.spec.name));
        let starts = STARTS.fetch_add(1, Ordering::Relaxed) + 1;
        match program
            .and_then(|program| Task::start(&program, &self.name, starts).map_err(|error| error.to_string()))
        {
            Ok(task) => {
                say(&format!("{}: started process {}", self.name, task.pid));
                self.task = Some(task);
            }
            Err(error) => {
                say(&format!("{}: cannot start: {error}", self.name));
                self.back_off();
            }
        }
    }

    fn back_off(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

#[derive(Deserialize, PartialEq)]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Deserialize, PartialEq)]
struct Metadata {
    #[serde(default)]
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    containers: Vec<ContainerSpec>,
    #[serde(default)]
    security_context: SecurityContext,
    #[serde(default = "thirty")]
    termination_grace_period_seconds: u64,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    security_context: SecurityContext,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<u32>,
}

#[derive(Clone, Deserialize, PartialEq)]
struct Variable {
    name: String,
    value: Option<String>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Deserialize, PartialEq)]
struct HostPath {
    path: String,
    #[serde(rename = "type", default)]
    kind: String,
}

impl HostPath {
    /// Makes or demands what the volume's type says. Without a type, the container runtime makes a directory.
    fn prepare(&self) -> io::Result<()> {
        let path = Path::new(&self.path);
        match self.kind.as_str() {
            "" if path.exists() => Ok(()),
            "" | "DirectoryOrCreate" => fs::create_dir_all(path),
            "FileOrCreate" if !path.exists() => fs::write(path, ""),
            "Directory" if !path.is_dir() => Err(io::Error::other("not a directory")),
            "File" if !path.is_file() => Err(io::Error::other("not a file")),
            _ => Ok(()),
        }
    }
}

/// How often anything was started.
static STARTS: AtomicU64 = AtomicU64::new(0);

const TICK: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// How long a process must have run for its crash to count as the first one.
const STABLE: Duration = Duration::from_secs(10);

fn twenty_seconds() -> String {
    "20s".into()
}

fn thirty() -> u64 {
    30
}

fn watch(folder: &str) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, folder, flags)?;
    Ok(watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  containers:
  - name: etcd
    command: [etcd, --name=a]
";

    fn folder() -> (tempfile::TempDir, Manifests) {
        let folder = tempfile::tempdir().unwrap();
        let manifests = Manifests { folder: folder.path().to_str().unwrap().into(), ..Manifests::default() };
        (folder, manifests)
    }

    /// Returns the file in force for etcd.
    fn in_force(manifests: &Manifests) -> Option<&str> {
        let manifest = manifests.pods.get("kube-system/etcd")?;
        manifest.path.rsplit('/').next()
    }

    #[test]
    fn the_last_of_two_files_is_in_force_whatever_its_extension() {
        let (folder, mut manifests) = folder();
        for name in ["etcd.yaml", ".hidden", "etcd.yaml.bak", ".etcd.yaml.zzz"] {
            fs::write(folder.path().join(name), POD).unwrap();
        }
        fs::create_dir(folder.path().join("zzz")).unwrap();
        manifests.list();
        assert_eq!(in_force(&manifests), Some("etcd.yaml.bak"));
        assert_eq!(manifests.pods.len(), 1);
    }

    #[test]
    fn an_event_puts_its_file_in_force_until_the_next_listing() {
        let (folder, mut manifests) = folder();
        let (one, other) = (folder.path().join("etcd.yaml"), folder.path().join("etcd.yaml.bak"));
        fs::write(&other, POD).unwrap();
        manifests.list();
        fs::write(&one, POD).unwrap();
        manifests.events();
        assert_eq!(in_force(&manifests), Some("etcd.yaml"));
        manifests.list();
        assert_eq!(in_force(&manifests), Some("etcd.yaml.bak"));
        // Removing one takes the pod along although the other is there.
        fs::remove_file(&other).unwrap();
        manifests.events();
        assert_eq!(in_force(&manifests), None);
        manifests.list();
        assert_eq!(in_force(&manifests), Some("etcd.yaml"));
    }

    #[test]
    fn a_file_that_does_not_parse_ends_its_pod_at_the_next_listing() {
        let (folder, mut manifests) = folder();
        let path = folder.path().join("etcd.yaml");
        fs::write(&path, POD).unwrap();
        manifests.list();
        fs::write(&path, "kind: Pod\nspec: {").unwrap();
        manifests.events();
        assert_eq!(in_force(&manifests), Some("etcd.yaml"));
        manifests.list();
        assert_eq!(in_force(&manifests), None);
    }

    #[test]
    fn only_the_document_and_its_path_make_a_pod_another_one() {
        let pod = Manifest::parse("a", POD).unwrap();
        let commented = format!("# a comment\n{}\n\n", POD.replace("kind: Pod", "kind:   Pod # here"));
        assert!(Manifest::parse("a", &commented).unwrap() == pod);
        assert!(Manifest::parse("b", POD).unwrap() != pod);
        assert!(Manifest::parse("a", &POD.replace("--name=a", "--name=b")).unwrap() != pod);
        let annotated = POD.replace("{name: etcd,", "{name: etcd, annotations: {a: b},");
        assert!(Manifest::parse("a", &annotated).unwrap() != pod);
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for text in ["", "kind: Node\nmetadata: {name: a}\nspec: {containers: [{name: a}]}", "a: [", "[]"] {
            assert!(Manifest::parse("a", text).is_err(), "{text}");
        }
        let numbers = POD.replace("--name=a", "1");
        assert!(Manifest::parse("a", &numbers).is_err(), "a command has strings only");
    }
}
