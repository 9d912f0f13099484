//! How distributions arrange a node: where things are, and which of their programs have others inside. The facts are the files of
//! `layouts/`.
//!
//! Architecture invariant: no I/O, and no more than the files say.

/// How one distribution arranges a node. What is empty is not known.
#[derive(Debug)]
pub struct Layout {
    /// Its name: `kubeadm`.
    pub name: &'static str,
    /// The folders from which kubelet takes static pods.
    pub static_pods: &'static [&'static str],
    /// Folders of certificates and keys, that of etcd first.
    pub pki: &'static [&'static str],
    /// Files of the CAs by which the API server knows its callers.
    pub authorities: &'static [&'static str],
    /// The certificate with which kubelet is a client of the API server.
    pub kubelet_certificate: Option<&'static str>,
    /// Kubeconfigs that it makes for people who administer the cluster.
    pub administrators: &'static [&'static str],
    /// Programs that may run an etcd inside themselves.
    pub embeds_etcd: &'static [Embedding],
    /// The file by which it is configured itself.
    pub configuration: Option<&'static str>,
    /// Where its configuration has the arguments of a component, by the component's name.
    pub arguments: &'static [(&'static str, &'static str)],
    /// The folders whose files it writes anew at each start.
    pub writes: &'static [&'static str],
}

impl Layout {
    /// Returns where its configuration has the arguments of a component.
    pub fn arguments_of(&self, component: &str) -> Option<&'static str> {
        self.arguments.iter().find(|(name, _)| *name == component).map(|(_, key)| *key)
    }
}

/// A program that may run another one inside itself.
#[derive(Debug)]
pub struct Embedding {
    /// Its name.
    pub program: &'static str,
    /// The word of its command line with which it does; `None` where it always does.
    pub word: Option<&'static str>,
}

/// Every layout, by name.
pub static ALL: &[Layout] = include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

/// Returns the layout called `name`.
pub fn named(name: &str) -> Option<&'static Layout> {
    ALL.iter().find(|layout| layout.name == name)
}

/// Returns the layout that writes the file at `path` anew at each start, if one does.
pub fn writing(path: &str) -> Option<&'static Layout> {
    let within = |folder: &&str| path.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/'));
    ALL.iter().find(|layout| layout.writes.iter().any(within))
}

/// Returns the folders of all layouts from which kubelet takes static pods.
pub fn static_pods() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|layout| layout.static_pods).copied()
}

/// Returns the folders of all layouts in which certificates and keys are.
pub fn pki() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|layout| layout.pki).copied()
}

/// Returns whether a program called `name` is one of those that may run an etcd inside themselves, or a part of one.
pub fn may_embed_etcd(name: &[u8]) -> bool {
    ALL.iter().flat_map(|layout| layout.embeds_etcd).any(|e| name.starts_with(e.program.as_bytes()))
}

/// Returns whether the program `name` with these `words` in its command line is known to run an etcd inside itself.
pub fn embeds_etcd<'w>(name: &str, words: impl Iterator<Item = &'w [u8]> + Clone) -> bool {
    let does = |e: &Embedding| {
        e.program == name && e.word.is_none_or(|word| words.clone().any(|given| given == word.as_bytes()))
    };
    ALL.iter().flat_map(|layout| layout.embeds_etcd).any(does)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_absolute() {
        for layout in ALL {
            let files =
                layout.authorities.iter().chain(&layout.kubelet_certificate).chain(&layout.configuration);
            let files = files.chain(layout.administrators);
            let all = layout.static_pods.iter().chain(layout.pki).chain(layout.writes).chain(files);
            for path in all {
                assert!(path.starts_with('/') && !path.ends_with('/'), "{}: {path}", layout.name);
            }
        }
    }
}
