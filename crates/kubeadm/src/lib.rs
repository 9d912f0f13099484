//! A real Kubernetes node: kubeadm, kubelet, a control plane in static pods, containerd, all of them unmodified.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use seaworthy_kubeadm::{Node, Progress, RELEASE, down};
//!
//! let node = Node::up(RELEASE, &Progress::new())?;
//! let pods = node.command("kubectl").args(["get", "pods", "--all-namespaces"]).output()?;
//! println!("{}", String::from_utf8_lossy(&pods.stdout));
//! down(false, &Progress::new())?;
//! # Ok(()) }
//! ```
//!
//! # How a node is made
//!
//! It is a set of namespaces (mount, PID, network, UTS, IPC, control groups) with a root directory of its own and systemd as PID 1. Its
//! `/usr` is the machine's, below unpacked Debian packages and the programs of Kubernetes, without the units and the local
//! programs of the machine; everything else is its own. The network goes nowhere. The workspace's `target` is at `/mnt/target`.
//!
//! The programs are built from Go's module proxy, the images are made of them, and both are kept below `target/lab/kubernetes`. So is
//! the node's disk: what a node was is there again when it is brought up again, as after a power cut.
//!
//! # How it ends
//!
//! Everything is in one control group from its first process. [`down`] kills what is in there, however it came to be there, and with
//! the last process the kernel frees the namespaces and their mounts. Nothing of the machine is changed meanwhile.

mod files;
mod group;
mod image;
mod packages;
mod programs;
mod progress;
mod require;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use seaworthy_lab::{cache, listens};

use group::Group;
use programs::Programs;
pub use progress::Progress;

/// The release that is brought up unless another is asked for.
pub const RELEASE: &str = "1.35.4";

/// The node's name.
pub const NAME: &str = "cp1";

/// The node's address, in a network that no other machine is in.
pub const ADDRESS: &str = "10.88.0.10";

/// What listens on a node that is up.
pub const PORTS: [(&str, u16); 6] = [
    ("etcd", 2379),
    ("kube-apiserver", 6443),
    ("kube-controller-manager", 10257),
    ("kube-scheduler", 10259),
    ("kubelet", 10250),
    ("kube-proxy", 10249),
];

/// What starts the namespaces and becomes PID 1.
const NODE: &str = include_str!("../data/node.sh");

/// How long a node may take to be ready: half a minute, or many where the machine is so busy that kubelet's probes fail.
const READY: Duration = Duration::from_secs(900);

/// A node that runs.
pub struct Node {
    /// Its release of Kubernetes.
    pub release: String,
    folder: PathBuf,
    group: Group,
    pid: u32,
}

impl Node {
    /// Returns the node that runs, if one does.
    pub fn running() -> Result<Option<Self>> {
        let home = home()?;
        let group = Group::of(&home)?;
        let Some(pid) = group.init() else { return Ok(None) };
        let release = fs::read_to_string(home.join("running")).context("it is not known which node runs")?;
        Ok(Some(Self { folder: home.join(&release), release, group, pid }))
    }

    /// Brings a node of a release up and waits until it is ready. What is there already is used.
    pub fn up(release: &str, progress: &Progress) -> Result<Self> {
        let release = release.trim_start_matches('v');
        let numbers: Vec<_> = release.split('.').map(str::parse::<u32>).collect();
        anyhow::ensure!(
            matches!(&numbers[..], [Ok(1), Ok(_), Ok(_)]),
            "{release} is no release of Kubernetes: give one such as {RELEASE}"
        );
        let home = home()?;
        let _lock = lock(&home, progress)?;
        let finished = home.join(release).join("node/complete");
        if let Some(node) = Self::running()? {
            anyhow::ensure!(
                node.release == release,
                "a node with Kubernetes {} is up: `cargo xtask cluster down` first",
                node.release
            );
            if finished.exists() {
                let since = Timestamp::try_from(fs::metadata(home.join("running"))?.modified()?)?;
                if !node.missing(since).is_empty() {
                    progress.say("a node runs already, and is not ready");
                    let waited = node.wait_ready(since, progress);
                    waited.map_err(|error| node.failed(&error))?;
                }
                progress.say(&format!("the node with Kubernetes {release} is up already"));
                return Ok(node);
            }
        }
        let folder = home.join(release);
        let programs = Programs::of(&home, release);
        progress.say(&format!("Kubernetes {release}, kept in {}", folder.display()));
        require::check(&home, !packages::folder(&home).is_dir(), !programs.missing().is_empty())?;
        packages::install(&home, progress)?;
        programs.build(progress)?;

        let group = Group::of(&home)?;
        if group.end()? {
            progress.say("what was left of an earlier node is ended");
        }
        let fresh = !finished.exists();
        let images = images(&programs, release, &packages::folder(&home))?;
        if fresh {
            let node = folder.join("node");
            if node.exists() {
                progress.say("an earlier `up` did not come to its end: its node is thrown away");
                fs::remove_dir_all(&node).with_context(|| format!("cannot remove {}", node.display()))?;
            }
            let pause = images.iter().find(|image| image.name.contains("/pause:"));
            let pause = &pause.context("kubeadm names no pause image")?.name;
            files::root(&node.join("root"), release, pause, &packages::folder(&home))?;
        }
        files::usr(&folder.join("usr"), &programs)?;
        let since = Timestamp::now();
        let node = Self::start(&home, release, group, progress)?;
        let outcome = node.finish(fresh, &images, since, progress);
        outcome.map_err(|error| node.failed(&error))?;
        fs::write(finished, "")?;
        progress.say(
            "the node is up; `cargo xtask cluster exec -- COMMAND` runs something on it, such as `kubectl get pods -A`, or \
             `seaworthy audit` once `cargo build -p seaworthy` has built it",
        );
        Ok(node)
    }

    /// Returns a command that runs a program on the node as root, with a clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let pid = self.pid.to_string();
        // Signals that are ignored here are not ignored there.
        let enter = ["env", "--default-signal", "nsenter", "--target", &pid];
        let kinds = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"];
        let words = enter.into_iter().chain(kinds).map(OsStr::new);
        let mut command = self.group.join("exec", words.chain([program.as_ref()]));
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().env("PATH", path).env("HOME", "/root");
        command.env("KUBECONFIG", "/etc/kubernetes/admin.conf").stdin(Stdio::null());
        command
    }

    /// Runs a program on the node to its end, and returns what it printed unless it failed.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Returns the number of the node's PID 1, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns whether a TCP socket of the node listens on the port.
    pub fn listens(&self, port: u16) -> bool {
        listens(self.pid, port)
    }

    /// Starts the namespaces, and waits for containerd.
    fn start(home: &Path, release: &str, group: Group, progress: &Progress) -> Result<Self> {
        progress.say("starting the node's namespaces");
        let folder = home.join(release);
        let node = folder.join("node");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        for folder in [&node.join("usr"), &node.join("work"), &target] {
            fs::create_dir_all(folder)?;
        }
        fs::write(home.join("running"), release)?;
        group.create()?;
        let console = File::create(node.join("console.log"))?;
        let mut words: Vec<_> =
            "setsid unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child bash -c"
                .split(' ')
                .map(PathBuf::from)
                .collect();
        let layers = format!("{}:{}:/usr", folder.join("usr").display(), packages::folder(home).display());
        words.extend([NODE, "node"].map(PathBuf::from));
        words.extend([node.join("root"), NAME.into(), ADDRESS.into(), layers.into()]);
        words.extend([node.join("usr"), node.join("work"), target]);
        words.extend(group.mounts().into_iter().map(PathBuf::from));
        let mut child = group
            .join("", words)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("cannot start the node's namespaces")?;
        let ready = |node: &Self| {
            node.command("ctr").arg("version").output().is_ok_and(|output| output.status.success())
        };
        let mut started = Self { release: release.to_owned(), folder, group, pid: 0 };
        let waited = progress.wait("systemd and containerd", Duration::from_secs(120), || {
            still_runs(&mut child)?;
            started.pid = started.group.init().unwrap_or_default();
            let up = started.pid != 0 && ready(&started);
            Ok(if up { Vec::new() } else { vec!["an answer of containerd".to_owned()] })
        });
        waited.map_err(|error| started.failed(&error))?;
        Ok(started)
    }

    /// Does what is left to do on a node whose containerd runs.
    fn finish(
        &self,
        fresh: bool,
        images: &[image::Image],
        since: Timestamp,
        progress: &Progress,
    ) -> Result<()> {
        if fresh {
            for (index, image) in images.iter().enumerate() {
                progress.say(&format!("loading image {} ({} of {})", image.name, index + 1, images.len()));
                self.load(image)?;
            }
            self.init(progress)?;
        }
        self.wait_ready(since, progress)
    }

    /// Gives containerd an image.
    fn load(&self, image: &image::Image) -> Result<()> {
        let mut import = self.command("ctr");
        import.args(["--namespace", "k8s.io", "images", "import", "-"]);
        let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let written = import.stdin.take().map(|stdin| image.archive(stdin));
        let output = import.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "containerd does not take {}: {errors}", image.name);
        written.context("no standard input")?
    }

    /// Runs `kubeadm init`.
    fn init(&self, progress: &Progress) -> Result<()> {
        let start = Instant::now();
        let words =
            ["init", "--config", files::KUBEADM_CONFIG, "--ignore-preflight-errors=SystemVerification"];
        progress.say(&format!("kubeadm {}", words.join(" ")));
        let log = self.folder.join("node/kubeadm-init.log");
        let mut copy = File::create(&log)?;
        let mut kubeadm = self.command("kubeadm");
        kubeadm.args(words).stdout(Stdio::piped()).stderr(copy.try_clone()?);
        let mut kubeadm = kubeadm.spawn().context("cannot start kubeadm")?;
        for line in BufReader::new(kubeadm.stdout.take().context("no standard output")?).lines() {
            let line = line?;
            writeln!(copy, "{line}")?;
            if line.starts_with('[') {
                progress.say(&format!("  {line}"));
            }
        }
        let status = kubeadm.wait()?;
        let text = fs::read_to_string(&log).unwrap_or_default();
        anyhow::ensure!(
            status.success(),
            "kubeadm init failed ({status}); the end of {}:\n{}",
            log.display(),
            end(&text, 30)
        );
        progress.say(&format!("kubeadm init is done ({} s)", start.elapsed().as_secs()));
        Ok(())
    }

    fn wait_ready(&self, since: Timestamp, progress: &Progress) -> Result<()> {
        progress.wait("a node that is ready", READY, || {
            anyhow::ensure!(self.group.init() == Some(self.pid), "the node's PID 1 has ended");
            Ok(self.missing(since))
        })
    }

    /// Returns what the node lacks to be ready, as of a moment after `since`: before it comes up, the API tells how it was.
    fn missing(&self, since: Timestamp) -> Vec<String> {
        let silent = PORTS.iter().filter(|(_, port)| !self.listens(*port));
        let mut missing: Vec<_> = silent.map(|(name, port)| format!("{name} on port {port}")).collect();
        if missing.is_empty() {
            let condition =
                r#"{range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}"#;
            let words = ["get", "node", NAME, "--request-timeout=5s", "-o", &format!("jsonpath={condition}")];
            let printed = self.run("kubectl", words).unwrap_or_default();
            let heard = printed.strip_prefix("True ").and_then(|time| time.trim().parse::<Timestamp>().ok());
            if heard.is_none_or(|time| time.as_second() < since.as_second()) {
                missing
                    .push(format!("the node's condition Ready (the API server says `{}`)", printed.trim()));
            }
        }
        missing
    }

    /// Returns an error that tells how the logs end, and where they are.
    fn failed(&self, error: &anyhow::Error) -> anyhow::Error {
        let node = self.folder.join("node");
        let journal = ["--no-pager", "--lines=15", "--output=cat", "--unit=kubelet", "--unit=containerd"];
        let journal = self.run("journalctl", journal).unwrap_or_default();
        let console = fs::read_to_string(node.join("console.log")).unwrap_or_default();
        let logs: Vec<_> = ["console.log", "kubeadm-init.log", "root/var/log/pods"]
            .iter()
            .map(|log| node.join(log))
            .filter(|log| log.exists())
            .map(|log| format!("\n  {}", log.display()))
            .collect();
        anyhow::anyhow!(
            "the node did not come up: {error:#}\n{}{journal}\nIts logs, beside `cargo xtask cluster exec -- journalctl` while it runs:{}\n\
             `cargo xtask cluster down` ends what is left of it.",
            end(&console, 15),
            logs.concat(),
        )
    }
}

/// Ends the node that runs, and whatever is left of others. With `purge` their disks go as well; programs and packages stay.
pub fn down(purge: bool, progress: &Progress) -> Result<()> {
    let home = home()?;
    let _lock = lock(&home, progress)?;
    let ended = Group::of(&home)?.end()?;
    progress.say(if ended { "the node is down" } else { "no node is up" });
    if purge {
        for entry in fs::read_dir(&home)?.flatten() {
            let node = entry.path().join("node");
            if node.is_dir() {
                fs::remove_dir_all(&node).with_context(|| format!("cannot remove {}", node.display()))?;
                progress.say(&format!("removed {}", node.display()));
            }
        }
    }
    Ok(())
}

/// Returns the folder that everything of nodes is kept in, for root alone.
fn home() -> Result<PathBuf> {
    require::root()?;
    let home = cache().join("kubernetes");
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    Ok(home.canonicalize()?)
}

/// Keeps others from bringing nodes up or down meanwhile, until what is returned is dropped.
fn lock(home: &Path, progress: &Progress) -> Result<File> {
    let lock = File::create(home.join(".lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        progress.say("waiting for another `cargo xtask cluster` to end");
        flock(&lock, FlockOperation::LockExclusive)?;
    }
    // What another has left here was killed in the middle of something.
    let _ = fs::remove_dir_all(work(home));
    fs::create_dir_all(work(home))?;
    Ok(lock)
}

/// Returns the folder for what is not finished.
fn work(home: &Path) -> PathBuf {
    home.join("work")
}

/// Returns the images that this release of kubeadm names, each of the program that belongs in it.
fn images(programs: &Programs, release: &str, debian: &Path) -> Result<Vec<image::Image>> {
    let mut config = tempfile::NamedTempFile::new()?;
    config.write_all(files::kubeadm_config(release).as_bytes())?;
    let mut list = Command::new(programs.path("kubeadm"));
    let names = run(list.args(["config", "images", "list", "--config"]).arg(config.path()))?;
    let image = |name: &str| {
        let program = name.rsplit('/').next()?.split(':').next()?;
        let path = programs.path(program);
        path.is_file().then(|| match program {
            "kube-proxy" => image::of_proxy(name, &path, debian),
            _ => Ok(image::of_program(name, &path)),
        })
    };
    names.lines().filter_map(image).collect()
}

fn still_runs(child: &mut Child) -> Result<()> {
    match child.try_wait()? {
        None => Ok(()),
        Some(status) => anyhow::bail!("the node's PID 1 has ended ({status})"),
    }
}

/// Runs a program to its end and returns what it printed, or an error that says how it failed.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{program} failed ({}): {}",
        output.status,
        end(&format!("{printed}{errors}"), 20)
    );
    Ok(printed)
}

/// Returns the last lines of a text.
fn end(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
