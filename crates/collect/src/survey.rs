//! The survey of a node: the primitives put together into a [`Snapshot`].
//!
//! It goes in three passes. First everything that is on the node is read: processes, declarations, settings, sockets,
//! files. Then the node's own listeners are asked, all at once. Last the two are joined: which listener spoke what, who
//! the members are, which links exist (looked at again where some seem to be missing), what has drifted.

mod attribution;
mod declarations;
mod drift;
mod etcd;
mod files;
mod instance;
mod layout;
mod listeners;
mod material;
mod node;
mod places;
mod pods;
mod processes;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rayon::join;
use rayon::prelude::*;
use seaworthy_components::{Component, Program};
use seaworthy_evidence::{
    ErrorKind, EtcdClient, EvidenceError, Instance, Node, Observed, Origin, Snapshot, Tool,
};
use seaworthy_host::machine;
use seaworthy_host::procfs::Proc;
use seaworthy_host::root::Root;
use seaworthy_host::users::Users;
use seaworthy_layouts::Layout;
use seaworthy_settings::ConfigText;

use attribution::Attributions;
use declarations::{Declarations, Supervisors};
use etcd::Etcds;
use etcd::trust::Trust;
use instance::Reading;
use processes::Found;
pub(crate) use processes::Running;

/// How long to wait for links that seem to be missing. The peers of a member that has just started, or was cut off, find it
/// again in a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How to look at a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder below which the host's files are read.
    pub root: PathBuf,
    /// How the node is arranged, where somebody says so.
    pub layout: Option<&'static Layout>,
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

    /// kubelets.
    pub(crate) const KUBELET: Self = Self {
        component: &seaworthy_components::kubelet::COMPONENT,
        program: &seaworthy_components::kubelet::PROGRAM,
    };

    /// etcd servers.
    pub(crate) const ETCD: Self = Self {
        component: &seaworthy_components::etcd::COMPONENT,
        program: &seaworthy_components::etcd::PROGRAM,
    };
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
    let declared = || Declared::find(&survey, found.as_ref().ok());
    let read = || found.as_ref().map(|found| Read::of(&survey, found));
    let trust = || Trust::read(&survey, found.as_ref().ok());
    let (declared, (read, trust)) = join(declared, || join(read, trust));
    unreadable.extend(declared.unreadable.iter().cloned());
    let gathered = match (&found, read) {
        (Ok(found), Ok(read)) => {
            let blind = proc.as_ref().ok().and_then(Proc::hides_processes);
            unreadable.extend(blind.clone());
            gather(&survey, found, read, &declared, &trust, blind, &mut unreadable)
        }
        (Err(error), _) | (_, Err(error)) => Gathered::nothing(error),
    };
    let mut snapshot = Snapshot {
        format: Snapshot::FORMAT.to_owned(),
        tool: Tool { name: "seaworthy".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        taken_at: options.now,
        node: Node {
            name: machine::hostname(&root),
            root: options.root.display().to_string(),
            user: Some(rustix::process::geteuid().as_raw()),
            layout: layout::of(&survey),
            processes: gathered.processes,
            kubernetes_cas: trust.uses(),
            unreadable,
            ..node::not_looked_at()
        },
        components: gathered.components,
        etcd_clients: gathered.etcd_clients,
    };
    if let Ok(proc) = &proc {
        places::fill(&mut snapshot, &root, &users, proc);
    }
    let runtimes = found.as_ref().ok().map(|found| found.runtimes.as_slice());
    node::fill(&mut snapshot, &survey, proc.as_ref().ok(), runtimes);
    Ok(snapshot)
}

/// What manifests and units declare, of every kind.
struct Declared {
    etcd: Declarations,
    /// In the order of [`Kind::like_the_others`].
    others: Vec<Declarations>,
    unreadable: Vec<EvidenceError>,
}

impl Declared {
    fn find(survey: &Survey<'_>, found: Option<&Found>) -> Self {
        let mut unreadable = Vec::new();
        let supervisors = Arc::new(Supervisors::find(survey, found, &mut unreadable));
        let mut of = |kind: Kind| {
            let running = found.map_or(&[][..], |found| found.of(kind));
            Declarations::find(survey, kind, &supervisors, running, &mut unreadable)
        };
        let etcd = of(Kind::ETCD);
        let others = Kind::like_the_others().map(of).collect();
        Self { etcd, others, unreadable }
    }
}

/// What a node has of each component.
struct Gathered {
    components: BTreeMap<String, Observed<Vec<Instance>>>,
    etcd_clients: Observed<Vec<EtcdClient>>,
    processes: Observed<u32>,
}

impl Gathered {
    /// Returns what there is where the processes could not be read, because of `error`.
    fn nothing(error: &EvidenceError) -> Self {
        let failed = |component: &&Component| (component.name.to_owned(), Observed::failed(error.clone()));
        Self {
            components: seaworthy_components::ALL.iter().map(failed).collect(),
            etcd_clients: Observed::failed(error.clone()),
            processes: Observed::failed(error.clone()),
        }
    }
}

/// What was read of the processes, before anything is asked.
struct Read<'a> {
    etcds: Etcds<'a>,
    /// In the order of [`Kind::like_the_others`].
    others: Vec<Vec<Reading<'a>>>,
}

impl<'a> Read<'a> {
    fn of(survey: &Survey<'_>, found: &'a Found) -> Self {
        let read = |kind: Kind| {
            found.of(kind).par_iter().map(|running| Reading::read(found, kind, running)).collect()
        };
        let kinds: Vec<Kind> = Kind::like_the_others().collect();
        let (etcds, others) =
            join(|| Etcds::read(survey, found), || kinds.into_par_iter().map(read).collect());
        Self { etcds, others }
    }
}

/// Asks the listeners, and puts every instance together.
fn gather<'a>(
    survey: &Survey<'_>,
    found: &'a Found,
    read: Read<'a>,
    declared: &Declared,
    trust: &Trust,
    blind: Option<EvidenceError>,
    unreadable: &mut Vec<EvidenceError>,
) -> Gathered {
    let Read { mut etcds, others } = read;
    let answers = listeners::ask_all(survey, &etcds.servers, &etcds.proxies, others.iter().flatten());
    let doubts = etcds.settle(&answers);
    // An empty list claims that there is none, which somebody who may not see every process cannot, nor every executable where
    // one may be a component by another name.
    let hidden = blind.clone().or_else(|| found.unseen.clone());
    let clients = std::mem::take(&mut etcds.clients);
    let finish_etcds = || {
        let mut unread = Vec::new();
        let attributions = Attributions::find(survey.root, &declared.etcd, found.of(Kind::ETCD), &mut unread);
        (etcds.finish(survey, &declared.etcd, &attributions, trust, &answers), unread)
    };
    let finish = |(declared, readings): (&Declarations, Vec<Reading<'_>>)| {
        let mut unread = Vec::new();
        let attributions = Attributions::find(survey.root, declared, found.of(declared.kind), &mut unread);
        let finish = |reading: Reading<'_>| reading.finish(survey, declared, &attributions, &answers);
        let mut all: Vec<Instance> = readings.into_iter().map(finish).collect();
        all.extend(declared.without_process(survey, &all));
        (declared.kind.component, all, unread)
    };
    let finish_others = || declared.others.par_iter().zip(others).map(finish).collect::<Vec<_>>();
    let (((etcd, proxies), unread), others) = join(finish_etcds, finish_others);
    unreadable.extend(unread);
    if !etcd.is_empty() {
        unreadable.extend(doubts.iter().cloned());
    }
    let mut components = BTreeMap::new();
    let mut insert = |component: &Component, instances: Vec<Instance>, doubt: Option<EvidenceError>| {
        components.insert(component.name.to_owned(), listed(instances, doubt));
    };
    insert(Kind::ETCD.component, etcd, doubts.into_iter().next().or_else(|| hidden.clone()));
    insert(&seaworthy_components::etcd_proxy::COMPONENT, proxies, hidden.clone());
    for (component, instances, unread) in others {
        unreadable.extend(unread);
        insert(component, instances, found.inside(component).or_else(|| hidden.clone()));
    }
    Gathered {
        components,
        etcd_clients: listed(clients, blind),
        processes: Observed::seen(found.total, Origin::proc("/proc")),
    }
}

/// Returns what was found on the node; that it is nothing is not known where there is a doubt.
fn listed<T>(found: Vec<T>, doubt: Option<EvidenceError>) -> Observed<Vec<T>> {
    match doubt.filter(|_| found.is_empty()) {
        Some(error) => Observed::failed(error),
        None => Observed::seen(found, Origin::proc("/proc")),
    }
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
