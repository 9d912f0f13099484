//! The programs of Kubernetes, as Go modules from Go's module proxy, built once for each release.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::progress::{AGAIN, Progress};
use crate::run;

/// The etcd of the node: the oldest that the module proxy has and this release of kubeadm would take.
pub(crate) const ETCD: &str = "3.6.13";

/// What is built of Kubernetes. Those that others need as well come first.
const KUBERNETES: [&str; 7] = [
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "kubelet",
    "kubeadm",
    "kubectl",
    "kube-proxy",
];

/// Every program of a release.
pub(crate) struct Programs {
    folder: PathBuf,
    release: String,
    /// Where Go builds. What a killed build leaves there goes with it.
    work: PathBuf,
}

impl Programs {
    /// Returns the programs of a release, whether they are there or not.
    pub(crate) fn of(home: &Path, release: &str) -> Self {
        Self { folder: home.join(release), release: release.to_owned(), work: crate::work(home) }
    }

    /// Returns where a program is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join("programs").join(name)
    }

    /// Returns the programs that have to be built.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KUBERNETES.into_iter().chain(["etcd", "pause"]).filter(|name| !self.path(name).is_file()).collect()
    }

    /// Builds what is missing. What is there is complete, because it is renamed to its name.
    pub(crate) fn build(&self, progress: &Progress) -> Result<()> {
        let missing = self.missing();
        for (index, name) in missing.iter().enumerate() {
            let nth = format!("building {name} ({} of {})", index + 1, missing.len());
            progress.say(&nth);
            let start = Instant::now();
            self.build_one(name, &nth, progress)?;
            progress.say(&format!("{name} is built ({} s)", start.elapsed().as_secs()));
        }
        Ok(())
    }

    fn build_one(&self, name: &str, nth: &str, progress: &Progress) -> Result<()> {
        let (module, package) = match name {
            "etcd" => (self.etcd_module()?, "go.etcd.io/etcd/server/v3".to_owned()),
            "pause" => {
                let module = self.folder.join("pause");
                fs::create_dir_all(&module)?;
                fs::write(module.join("pause.go"), include_str!("../data/pause.go"))?;
                (module, "pause.go".to_owned())
            }
            name => (self.kubernetes_module(progress)?, format!("k8s.io/kubernetes/cmd/{name}")),
        };
        let fresh = self.path(&format!(".{name}.new"));
        fs::create_dir_all(self.folder.join("programs"))?;
        // Whoever kills this also kills the build; compilers that run at that moment end by themselves.
        let mut go = Command::new("nice");
        go.args(["-n", "10", "setpriv", "--pdeathsig", "KILL", "go", "build", "-v", "-trimpath"]);
        go.arg("-ldflags").arg(self.link_flags()).arg("-o").arg(&fresh).arg(package);
        watched(settle(&mut go, &module).env("GOTMPDIR", &self.work), nth, progress)?;
        fs::rename(&fresh, self.path(name))?;
        Ok(())
    }

    /// Returns what makes the programs say that they are of this release.
    fn link_flags(&self) -> String {
        let minor = self.release.split('.').nth(1).unwrap_or_default();
        let mut flags = "-s -w".to_owned();
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            for (name, value) in [
                ("gitVersion", format!("v{}", self.release)),
                ("gitMajor", "1".to_owned()),
                ("gitMinor", minor.to_owned()),
                ("gitTreeState", "clean".to_owned()),
            ] {
                flags.push_str(&format!(" -X {package}.{name}={value}"));
            }
        }
        flags
    }

    /// Makes a module with what Kubernetes itself requires. Its own module cannot be used as it is, because it takes its parts from a
    /// folder that the module proxy does not have; each of them is a module of its own there.
    fn kubernetes_module(&self, progress: &Progress) -> Result<PathBuf> {
        let module = self.folder.join("module");
        if module.join("go.mod").is_file() {
            return Ok(module);
        }
        let kubernetes = format!("k8s.io/kubernetes@v{}", self.release);
        progress.say(&format!("downloading the module {kubernetes}"));
        let fresh = self.folder.join("module.new");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh)?;
        let mut download = Command::new("go");
        download.args(["mod", "download", "-json", &kubernetes]);
        let printed = run(download.current_dir(&fresh)).with_context(|| {
            format!("Go's module proxy does not give Kubernetes {}: is there such a release?", self.release)
        })?;
        let answer: Value = serde_json::from_str(&printed).context("`go mod download` printed no JSON")?;
        let source = answer.get("Dir").and_then(Value::as_str).map(PathBuf::from);
        let source = source.context("`go mod download` did not say where the module is")?;
        let requirements = requirements(&fs::read_to_string(source.join("go.mod"))?, &self.release);
        fs::write(fresh.join("go.mod"), requirements)?;
        fs::write(fresh.join("go.sum"), fs::read(source.join("go.sum"))?)?;
        let mut require = Command::new("go");
        run(settle(require.args(["mod", "edit", &format!("-require={kubernetes}")]), &fresh))?;
        fs::rename(&fresh, &module)?;
        Ok(module)
    }

    fn etcd_module(&self) -> Result<PathBuf> {
        let module = self.folder.join("etcd");
        let _ = fs::remove_dir_all(&module);
        fs::create_dir_all(&module)?;
        run(settle(Command::new("go").args(["mod", "init", "node"]), &module))?;
        let server = format!("go.etcd.io/etcd/server/v3@v{ETCD}");
        run(settle(Command::new("go").args(["get", &server]), &module))?;
        Ok(module)
    }
}

/// Returns Kubernetes' `go.mod`, with modules of the proxy in the place of folders.
fn requirements(go_mod: &str, release: &str) -> String {
    let parts = format!("v0.{}", release.split_once('.').map_or(release, |(_, rest)| rest));
    let line = |line: &str| match line.split_once("=> ./staging/src/") {
        Some((front, module)) => format!("{front}=> {} {parts}\n", module.trim()),
        None if line.starts_with("module ") => "module node\n".to_owned(),
        None => format!("{line}\n"),
    };
    go_mod.lines().map(line).collect()
}

/// Sets how Go builds here: static programs, in `module`.
fn settle<'a>(command: &'a mut Command, module: &Path) -> &'a mut Command {
    command.current_dir(module).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0").env("GOWORK", "off")
}

/// Runs a build, and says now and then how far it is.
fn watched(build: &mut Command, what: &str, progress: &Progress) -> Result<()> {
    let mut child = build.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot start go")?;
    let errors = BufReader::new(child.stderr.take().context("no standard error")?);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let (start, mut told, mut packages, mut downloads) = (Instant::now(), Instant::now(), 0_u32, 0_u32);
    let mut last = VecDeque::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) if line.starts_with("go: downloading ") => downloads += 1,
            // With `-v` each package is named once, when it is compiled; a program that is linked is not.
            Ok(line) if !line.contains([' ', '\t']) => packages += 1,
            Ok(line) => {
                last.push_back(line);
                if last.len() > 20 {
                    last.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if told.elapsed() >= AGAIN {
            progress.say(&format!(
                "  {what}: {packages} packages compiled, {downloads} modules downloaded, {} s",
                start.elapsed().as_secs()
            ));
            told = Instant::now();
        }
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{what} failed ({status}):\n{}", Vec::from(last).join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_kubernetes_come_from_the_proxy() {
        let go_mod = "module k8s.io/kubernetes\n\ngo 1.25.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        assert_eq!(
            requirements(go_mod, "1.35.4"),
            "module node\n\ngo 1.25.0\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.35.4\n)\n"
        );
    }
}
