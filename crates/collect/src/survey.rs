//! The survey of a node: the primitives put together into a [`Snapshot`].
//!
//! It goes in three passes. First everything that is on the node is read: processes, declarations, settings, sockets,
//! files. Then the node's own listeners are asked, all at once. Last the two are joined: which listener spoke what, who
//! the members are, which links exist (looked at again where some seem to be missing), what has drifted.

mod allowed;
mod attribution;
mod clients;
mod declarations;
mod drift;
mod embedded;
mod files;
mod instance;
mod links;
mod listeners;
mod material;
mod membership;
mod places;
mod pods;
mod processes;
mod proxy;
mod server;
mod tree;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rayon::join;
use seaworthy_components::{Component, Program, etcd, etcd_proxy};
use seaworthy_evidence::{ErrorKind, EvidenceError, Instance, Node, Observed, Origin, Snapshot, Tool};
use seaworthy_host::machine;
use seaworthy_host::procfs::Proc;
use seaworthy_host::root::Root;
use seaworthy_host::users::Users;
use seaworthy_settings::ConfigText;

use attribution::Attributions;
use declarations::{Declarations, Manifests};
use processes::Found;
use server::Server;
use trust::Trust;

/// How long to wait for links that seem to be missing. The peers of a member that has just started, or was cut off, find it
/// again in a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How to look at a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder below which the host's files are read.
    pub root: PathBuf,
    /// Whether to connect to the node's own listeners.
    pub wire: bool,
    /// How long to watch the peer ports passively; not at all without it.
    pub observe: Option<Duration>,
    /// How long a listener may take to answer.
    pub timeout: Duration,
    /// How long links between members that seem to be missing are waited for: [`PATIENCE`], or not at all.
    pub patience: Duration,
    /// The snapshot's time.
    pub now: Timestamp,
}

/// A component whose instances run a program of its own.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) component: &'static Component,
    pub(crate) program: &'static Program,
}

impl Kind {
    /// Returns the kinds whose instances are known by the package of their program, and put together alike.
    pub(crate) fn like_the_others() -> impl Iterator<Item = Self> {
        let of = |component: &&'static Component| Some(Self { component, program: component.program? });
        seaworthy_components::ALL.iter().filter_map(of).filter(|kind| kind.program.package.is_some())
    }

    /// etcd servers.
    pub(crate) const ETCD: Self = Self { component: &etcd::COMPONENT, program: &etcd::PROGRAM };
}

/// What every part of a survey needs: where to look, and how.
pub(crate) struct Survey<'a> {
    pub(crate) options: &'a Options,
    pub(crate) root: &'a Root,
    pub(crate) users: &'a Users,
}

/// Returns all the evidence of this node. What cannot be observed becomes part of it.
///
/// # Errors
///
/// When the root folder itself cannot be opened, or is that of no host because it has no `/etc`.
pub fn collect(options: &Options) -> Result<Snapshot, EvidenceError> {
    let root = Root::host(&options.root)?;
    if root.directory("/etc").is_err_and(|error| error.kind == ErrorKind::NotFound) {
        let message = format!("{} has no /etc, so it is not the root of a host", options.root.display());
        return Err(EvidenceError::new(ErrorKind::NotFound, message));
    }
    let (users, mut unreadable) = Users::read(&root);
    let survey = Survey { options, root: &root, users: &users };
    let proc = Proc::of_host(&root);
    let found = proc.as_ref().map_err(Clone::clone).and_then(|proc| Found::look(proc, &mut unreadable));
    let running = found.as_ref().map_or(&[][..], |found| &found.servers);
    let others: Vec<Kind> = Kind::like_the_others().collect();
    let instances = |kind: &Kind| found.as_ref().map_or(&[][..], |found| found.of(*kind));
    let declarations = || {
        let mut unreadable = Vec::new();
        let manifests = Arc::new(Manifests::find(&survey, found.as_ref().ok(), &mut unreadable));
        let etcd = Declarations::find(&survey, Kind::ETCD, &manifests, running, &mut unreadable);
        let of =
            |kind: &Kind| Declarations::find(&survey, *kind, &manifests, instances(kind), &mut unreadable);
        let others: Vec<Declarations> = others.iter().map(of).collect();
        ((etcd, others), unreadable)
    };
    let servers =
        || found.iter().flat_map(|found| &found.servers).map(Server::read).collect::<Vec<Server<'_>>>();
    let trust = || Trust::read(&survey, found.as_ref().ok());
    let (((declarations, of_others), undeclared), (servers, trust)) =
        join(declarations, || join(servers, trust));
    unreadable.extend(undeclared);
    let attributions = Attributions::find(&root, &declarations, running, &mut unreadable);

    let mut components: BTreeMap<String, Observed<Vec<Instance>>> = BTreeMap::new();
    let (etcd, etcd_proxies, etcd_clients, processes) = match &found {
        Err(error) => (
            Observed::failed(error.clone()),
            Observed::failed(error.clone()),
            Observed::failed(error.clone()),
            Observed::failed(error.clone()),
        ),
        Ok(found) => {
            let origin = Origin::proc("/proc");
            let blind = proc.as_ref().ok().and_then(Proc::hides_processes);
            unreadable.extend(blind.clone());
            let proxies: Vec<_> = found.proxies.iter().map(proxy::Reading::read).collect();
            let clients = clients::read(&survey, &found.api_servers, &servers);
            let mut servers = servers;
            let mut doubts = embedded::find(&found.embedding, &mut servers);
            let read = |kind: &Kind| {
                let kind = *kind;
                instances(&kind).iter().map(move |running| instance::Reading::read(kind, running))
            };
            let mut readings: Vec<_> = others.iter().flat_map(read).collect();
            let answers = listeners::ask_all(&survey, &servers, &proxies, &readings);
            doubts.extend(embedded::retain(&mut servers, &answers));
            let mut etcd =
                server::finish_all(&survey, servers, &declarations, &attributions, &trust, &answers);
            etcd.extend(declarations.without_process(&survey, &etcd));
            let proxies: Vec<_> = proxies.into_iter().map(|p| p.finish(&survey, &answers)).collect();
            let processes = Observed::seen(found.total, origin.clone());
            // An empty list claims that there is none, which somebody who may not see every process cannot, nor every
            // executable where one may be an etcd by another name.
            let hidden = blind.clone().or_else(|| found.unseen.clone());
            for declared in &of_others {
                let kind = declared.kind;
                let attributions = Attributions::find(&root, declared, instances(&kind), &mut unreadable);
                let (mine, rest) = readings.into_iter().partition(|reading| reading.is_of(kind));
                readings = rest;
                let finish = |reading: instance::Reading<'_>| {
                    reading.finish(&survey, declared, &attributions, &answers)
                };
                let mut all: Vec<Instance> = Vec::into_iter(mine).map(finish).collect();
                all.extend(declared.without_process(&survey, &all));
                let all = match hidden.clone().filter(|_| all.is_empty()) {
                    Some(error) => Observed::failed(error),
                    None => Observed::seen(all, origin.clone()),
                };
                components.insert(kind.component.name.to_owned(), all);
            }
            let etcd = match doubts.first().cloned().or_else(|| hidden.clone()).filter(|_| etcd.is_empty()) {
                Some(error) => Observed::failed(error),
                None => {
                    unreadable.extend(doubts);
                    Observed::seen(etcd, origin.clone())
                }
            };
            let proxies = match hidden.filter(|_| proxies.is_empty()) {
                Some(error) => Observed::failed(error),
                None => Observed::seen(proxies, origin.clone()),
            };
            let clients = match blind.filter(|_| clients.is_empty()) {
                Some(error) => Observed::failed(error),
                None => Observed::seen(clients, origin),
            };
            (etcd, proxies, clients, processes)
        }
    };
    if let Err(error) = &found {
        components.extend(
            others.iter().map(|kind| (kind.component.name.to_owned(), Observed::failed(error.clone()))),
        );
    }
    components.insert(etcd::COMPONENT.name.to_owned(), etcd);
    components.insert(etcd_proxy::COMPONENT.name.to_owned(), etcd_proxies);
    let mut snapshot = Snapshot {
        format: Snapshot::FORMAT.to_owned(),
        tool: Tool { name: "seaworthy".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        taken_at: options.now,
        node: Node {
            name: machine::hostname(&root),
            root: options.root.display().to_string(),
            user: Some(rustix::process::geteuid().as_raw()),
            processes,
            kubernetes_cas: trust.uses(),
            unreadable,
        },
        components,
        etcd_clients,
    };
    if let Ok(proc) = &proc {
        places::fill(&mut snapshot, &root, proc);
    }
    Ok(snapshot)
}

/// Returns the configuration file at `path`, which is absolute, below `root`.
fn config_text(root: &Root, path: String) -> Result<ConfigText, EvidenceError> {
    let file = root.open(path)?;
    let origin = file.origin().clone();
    Ok(ConfigText { bytes: file.read(ConfigText::MAX)?, changed_at: file.changed(), origin })
}

/// Returns the error that stands for all evidence of a process that is only declared.
fn not_running(component: &str, what: &str) -> EvidenceError {
    let message = format!("{what} declares {component}, but no such process is running");
    EvidenceError::new(ErrorKind::NotRunning, message)
}
