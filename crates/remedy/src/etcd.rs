//! The etcd that is planned for.

use std::ops::{Deref, DerefMut};

use seaworthy_evidence::{Instance, KeyMaterial, Listener, Purpose};

/// An etcd of a snapshot: what it shares with every instance, to which it derefs, and what only an etcd has.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    shared: Instance,
    /// What only an etcd has.
    pub own: seaworthy_evidence::Etcd,
    /// The key material for its peers.
    pub peer: KeyMaterial,
    /// The key material for its clients.
    pub client: KeyMaterial,
}

impl Etcd {
    /// Returns the etcd that `instance` is, if it is one. What it takes out of the instance is there once.
    pub fn of(mut instance: Instance) -> Option<Self> {
        let own = *instance.etcd.take()?;
        let mut material = |purpose| {
            let at = instance.credentials.iter().position(|material| material.purpose == purpose)?;
            Some(instance.credentials.swap_remove(at))
        };
        let (peer, client) = (material(Purpose::Peer)?, material(Purpose::Client)?);
        Some(Self { shared: instance, own, peer, client })
    }

    /// Returns the listeners for peers, or all the others; none where they are not known.
    pub(crate) fn listening(&self, for_peers: bool) -> impl Iterator<Item = &Listener> {
        let listeners = self.listeners.value().into_iter().flatten();
        listeners.filter(move |listener| (listener.purpose == Purpose::Peer) == for_peers)
    }
}

impl Deref for Etcd {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.shared
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.shared
    }
}
