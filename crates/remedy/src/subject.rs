//! The instance that is planned for.

use std::ops::{Deref, DerefMut};

use seaworthy_components::{self as components, etcd};
use seaworthy_evidence::{
    ErrorKind, EvidenceError, Instance, KeyMaterial, Listener, Observed, Purpose, Transport,
};

/// An instance of a snapshot: what it shares with every instance, to which it derefs, and what only an etcd has.
///
/// Of another component all that only an etcd has is unknown, with an error that says that it has none: so a question about its
/// cluster has an answer, and none that a step could be taken on.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    shared: Instance,
    /// The name of the node's layout, where it is known.
    pub layout: Option<String>,
    /// What only an etcd has.
    pub own: seaworthy_evidence::Etcd,
    /// The key material for the peers of an etcd.
    pub peer: KeyMaterial,
    /// The key material for its clients.
    pub client: KeyMaterial,
}

impl Subject {
    /// Returns the subject that `instance` is. What it takes out of the instance is there once.
    pub fn of(mut instance: Instance) -> Self {
        let own = instance.etcd.take();
        let lacks = EvidenceError::new(
            ErrorKind::Unsupported,
            format!("a {} is no member of a cluster of its own", instance.component),
        );
        let mut material = |purpose| {
            let at = instance.credentials.iter().position(|material| material.purpose == purpose);
            let of_etcd = at.filter(|_| own.is_some()).map(|at| instance.credentials.swap_remove(at));
            of_etcd.unwrap_or_else(|| KeyMaterial {
                purpose,
                files: Observed::failed(lacks.clone()),
                problems: Observed::failed(lacks.clone()),
            })
        };
        let (peer, client) = (material(Purpose::Peer), material(Purpose::Client));
        let own = own.map_or_else(|| nothing(&lacks), |own| *own);
        Self { shared: instance, layout: None, own, peer, client }
    }

    /// Returns whether it is a member of a cluster, of which the others have to be asked.
    pub fn is_member(&self) -> bool {
        self.component == etcd::COMPONENT.name
    }

    /// Returns the listeners for peers, or all the others; none where they are not known.
    pub(crate) fn listening(&self, for_peers: bool) -> impl Iterator<Item = &Listener> {
        let listeners = self.listeners.value().into_iter().flatten();
        listeners.filter(move |listener| (listener.purpose == Purpose::Peer) == for_peers)
    }
}

/// Returns whether the program at `path` is called as that of `component` is.
pub(crate) fn is_program(component: &str, path: &[u8]) -> bool {
    let program = components::named(component).and_then(|component| component.program);
    program.is_some_and(|program| program.is_at(path))
}

/// Returns what only an etcd has, where there is none of it.
fn nothing(lacks: &EvidenceError) -> seaworthy_evidence::Etcd {
    fn failed<T>(lacks: &EvidenceError) -> Observed<T> {
        Observed::failed(lacks.clone())
    }
    let transport =
        || Transport { advertised: failed(lacks), client_auth: failed(lacks), auto_tls: failed(lacks) };
    seaworthy_evidence::Etcd {
        name: None,
        cluster: failed(lacks),
        peer: transport(),
        client: transport(),
        connections: failed(lacks),
        links: failed(lacks),
        impostors: failed(lacks),
        shared_cas: failed(lacks),
        data_directory: failed(lacks),
    }
}

impl Deref for Subject {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.shared
    }
}

impl DerefMut for Subject {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.shared
    }
}
