//! What is declared to run: static pod manifests and systemd units, and which process each belongs to.

use std::collections::BTreeMap;

use seaworthy_etcd::settings::{self, ConfigText, Inputs};
use seaworthy_evidence::{
    Declared, DeclaredKind, ErrorKind, Etcd, EtcdFiles, EvidenceError, Observed, Origin, PredictedFailure,
    Setting,
};

use super::processes::Found;
use super::server::{Server, nothing_known};
use super::{Survey, not_running};
use crate::declared::{Argument, Variable};
use crate::kubelet::{Kubelet, static_pod_directories};
use crate::manifest::{Container, StaticPod, StaticPods};
use crate::root::Root;
use crate::systemd::Unit;

/// The unit that distributions install.
const UNIT: &str = "etcd.service";

/// Every declaration of an etcd on the node.
pub(crate) struct Declarations {
    found: Vec<Declared>,
}

impl Declarations {
    /// Returns the declarations in kubelet's manifest directories and in systemd's units. What could not be read is noted
    /// in `unreadable`.
    pub(crate) fn find(
        survey: &Survey<'_>,
        processes: Option<&Found>,
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let kubelets: Vec<Kubelet<'_>> = processes
            .into_iter()
            .flat_map(|found| &found.kubelets)
            .filter_map(|k| Some(Kubelet { argv: &k.argv, root: k.root.as_ref().ok()? }))
            .collect();
        let (directories, errors) = static_pod_directories(&kubelets);
        unreadable.extend(errors);
        let pods = StaticPods::read(survey.root, directories.iter().map(|d| d.path.as_str()));
        unreadable.extend(pods.errors.iter().cloned());
        let mut found: Vec<Declared> =
            pods.pods.iter().filter(|p| !p.ignored).flat_map(|pod| of_pod(survey.root, pod, &pods)).collect();

        let services = processes.into_iter().flat_map(|found| &found.servers);
        let mut names: Vec<String> =
            services.filter_map(|s| s.entry.cgroup().ok()?.service()).chain([UNIT.to_owned()]).collect();
        names.dedup();
        let host = super::node_name(survey.root);
        for name in names {
            match Unit::find(survey.root, &name, &host) {
                Ok(Some(unit)) if is_etcd_unit(&unit) => found.push(of_unit(survey.root, &unit)),
                Ok(_) => {}
                Err(error) => unreadable.push(error),
            }
        }
        found.dedup_by(|a, b| a.path == b.path && a.kind == b.kind && a.settings == b.settings);
        Self { found }
    }

    /// Returns the declaration that `server` was started from: the one whose settings are most like its own. A manifest
    /// that is the only declaration beside the `lone` server is its own whatever it says.
    pub(crate) fn of(&self, server: &Server<'_>, lone: bool) -> Option<&Declared> {
        let running = server.resolved.settings.value()?;
        let best =
            self.found.iter().map(|d| (likeness(d, running), d)).max_by_key(|(likeness, _)| *likeness)?;
        let pods = self.found.iter().filter(|d| d.kind == DeclaredKind::StaticPod).count();
        match best {
            (1.., declared) => Some(declared),
            (_, declared) if lone && pods == 1 && declared.kind == DeclaredKind::StaticPod => Some(declared),
            _ => None,
        }
    }

    /// Returns an etcd for each manifest that no running one was started from. A unit that is merely installed promises
    /// nothing; a manifest in kubelet's directory does.
    pub(crate) fn without_process(&self, survey: &Survey<'_>, running: &[Etcd]) -> Vec<Etcd> {
        let claimed: Vec<&str> =
            running.iter().filter_map(|e| e.declared.value()).flatten().map(|d| d.path.as_str()).collect();
        // An etcd whose settings could not be read may well be the declared one.
        if running.iter().any(|e| e.settings.value().is_none()) {
            return Vec::new();
        }
        let lost = self
            .found
            .iter()
            .filter(|d| d.kind == DeclaredKind::StaticPod && !claimed.contains(&d.path.as_str()));
        lost.map(|declared| absent(survey, declared)).collect()
    }
}

fn of_pod(root: &Root, pod: &StaticPod, pods: &StaticPods) -> Vec<Declared> {
    let declared = pod.containers.iter().filter_map(|container| {
        let program = container.program(is_etcd_path)?;
        let command = program.map(|argv| argv.into_iter().skip(1).collect::<Vec<Argument>>());
        // `etcd grpc-proxy` and `etcd gateway` are no servers.
        let is_proxy =
            command.as_ref().ok().and_then(|c| c.first()).is_some_and(|first| !first.text.starts_with(b"-"));
        (!is_proxy).then(|| of_container(root, pod, container, command))
    });
    let mut declared: Vec<Declared> = declared.collect();
    for rivals in pods.rivals.iter().filter(|r| r.files.contains(&pod.file)) {
        let others: Vec<_> = rivals.files.iter().filter(|f| **f != pod.file).map(String::as_str).collect();
        let message =
            format!("{} declares the same pod, and kubelet runs only one of them", others.join(", "));
        let failure =
            PredictedFailure { setting: "pod".to_owned(), message, origin: Origin::file(&pod.file) };
        declared.iter_mut().for_each(|d| d.fatal.push(failure.clone()));
    }
    declared
}

fn of_container(
    root: &Root,
    pod: &StaticPod,
    container: &Container,
    command: Result<Vec<Argument>, EvidenceError>,
) -> Declared {
    let known = |v: &crate::manifest::DeclaredVariable| {
        let value = v.value.clone()?.into_bytes();
        Some(Variable { name: v.name.clone(), value, origin: v.origin.clone() })
    };
    let environment: Vec<Variable> = container.environment.iter().filter_map(known).collect();
    // What a path in the container is on the host.
    let on_host = |path: &str| {
        let mount = container
            .mounts
            .iter()
            .filter(|m| path.starts_with(m.container.trim_end_matches('/')))
            .max_by_key(|m| m.container.len());
        match mount {
            Some(mount) => {
                let below = path.get(mount.container.trim_end_matches('/').len()..).unwrap_or_default();
                Ok(format!("{}{below}", mount.host.trim_end_matches('/')))
            }
            None => {
                let message = format!("{path} is in the container's image, not on the host");
                Err(EvidenceError::new(ErrorKind::NotFound, message))
            }
        }
    };
    declared(root, DeclaredKind::StaticPod, &pod.file, command, &environment, on_host)
}

fn of_unit(root: &Root, unit: &Unit) -> Declared {
    let command = match unit.errors.first() {
        Some(error) => Err(error.clone()),
        None => Ok(unit.arguments.iter().skip(1).cloned().collect()),
    };
    let same = |path: &str| Ok(path.to_owned());
    declared(root, DeclaredKind::SystemdUnit, &unit.path, command, &unit.environment, same)
}

fn declared(
    root: &Root,
    kind: DeclaredKind,
    path: &str,
    command: Result<Vec<Argument>, EvidenceError>,
    environment: &[Variable],
    on_host: impl Fn(&str) -> Result<String, EvidenceError>,
) -> Declared {
    let (settings, fatal) = match command {
        Err(error) => (Observed::failed(error), Vec::new()),
        Ok(arguments) => {
            let mut read = |path: &str| {
                let file = root.open(on_host(path)?)?;
                let origin = file.origin().clone();
                Ok(ConfigText { bytes: file.read(ConfigText::MAX)?, modified_at: file.modified(), origin })
            };
            let inputs = Inputs {
                arguments: &arguments,
                environment: Ok(environment),
                version: None,
                read: &mut read,
            };
            let resolved = settings::resolve(inputs);
            (resolved.settings, resolved.fatal)
        }
    };
    Declared { kind, path: path.to_owned(), settings, fatal }
}

/// Returns how much a declaration looks like the running settings; 0 when nothing ties them together.
fn likeness(declared: &Declared, running: &BTreeMap<String, Setting>) -> u32 {
    let Some(promised) = declared.settings.value() else { return 0 };
    let same = |name: &str| match (promised.get(name), running.get(name)) {
        (Some(a), Some(b)) => {
            let by_default = |s: &Setting| matches!(s.origin, Origin::Default { .. });
            u32::from(a.value == b.value && !(by_default(a) && by_default(b)))
        }
        _ => 0,
    };
    4 * same("name") + 4 * same("data-dir") + same("listen-peer-urls") + same("listen-client-urls")
}

/// Returns the etcd that `declared` promises and that does not run.
fn absent(survey: &Survey<'_>, declared: &Declared) -> Etcd {
    let error = not_running(&declared.path);
    let name = declared.settings.value().and_then(|s| s.get("name")).map(|s| s.value.clone());
    let manifest = survey.root.stat(&declared.path, survey.users);
    Etcd {
        id: format!("etcd {} (not running)", name.as_deref().unwrap_or("?")),
        name,
        process: Observed::failed(error.clone()),
        version: Observed::failed(error.clone()),
        settings: Observed::failed(error.clone()),
        config_file: None,
        declared: Observed::seen(vec![declared.clone()], Origin::file(&declared.path)),
        drift: Observed::failed(error.clone()),
        cluster: Observed::failed(error.clone()),
        peer: nothing_known(Observed::failed(error.clone()), error.clone()),
        client: nothing_known(Observed::failed(error.clone()), error.clone()),
        connections: Observed::failed(error.clone()),
        links: Observed::failed(error.clone()),
        impostors: Observed::failed(error.clone()),
        shared_cas: Observed::failed(error.clone()),
        files: EtcdFiles {
            manifest: Some(Observed::from_result(manifest, Origin::file(&declared.path))),
            data_directory: Observed::failed(error.clone()),
            pki: Observed::failed(error),
        },
    }
}

fn is_etcd_unit(unit: &Unit) -> bool {
    unit.arguments.first().is_some_and(|program| is_etcd_path(&program.text))
}

fn is_etcd_path(path: &[u8]) -> bool {
    path.rsplit(|b| *b == b'/').next() == Some(b"etcd")
}
