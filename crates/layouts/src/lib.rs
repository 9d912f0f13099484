//! How distributions arrange a node: where things are, and which of their programs have others inside. The facts are the files of
//! `layouts/`.
//!
//! Architecture invariant: no I/O, and no more than the files say.

use std::collections::BTreeSet;

/// How one distribution arranges a node. What is empty is not known.
#[derive(Debug)]
pub struct Layout {
    /// Its name: `kubeadm`.
    pub name: &'static str,
    /// Files and folders that its nodes have, all of them, and others have not.
    pub signs: &'static [&'static str],
    /// Who runs the control plane elsewhere, where no node shows it.
    pub control_plane: Option<&'static str>,
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
    /// Programs that may run components inside themselves.
    pub embeds: &'static [Embedding],
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

/// A program that may run components inside itself.
#[derive(Debug)]
pub struct Embedding {
    /// Its name.
    pub program: &'static str,
    /// The word of its command line with which it does; `None` where it always does.
    pub word: Option<&'static str>,
    /// The names of these components.
    pub components: &'static [&'static str],
}

/// Every layout, by name.
pub static ALL: &[Layout] = include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

/// Returns the layout called `name`.
pub fn named(name: &str) -> Option<&'static Layout> {
    ALL.iter().find(|layout| layout.name == name)
}

/// Returns the layout that writes the file at `path` anew at each start, if one does: that of the node where it is `known`, or one
/// whose signs are the folders above the file.
pub fn writing(path: &str, known: Option<&str>) -> Option<&'static Layout> {
    let is_below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let is_meant =
        |layout: &&Layout| known == Some(layout.name) || layout.signs.iter().any(|sign| is_below(sign));
    ALL.iter().filter(is_meant).find(|layout| layout.writes.iter().any(|folder| is_below(folder)))
}

/// Returns the folders of all layouts from which kubelet takes static pods, each once.
pub fn static_pods() -> impl Iterator<Item = &'static str> {
    distinct(ALL.iter().flat_map(|layout| layout.static_pods))
}

/// Returns the folders of all layouts in which certificates and keys are, each once.
pub fn pki() -> impl Iterator<Item = &'static str> {
    distinct(ALL.iter().flat_map(|layout| layout.pki))
}

fn distinct(all: impl Iterator<Item = &'static &'static str>) -> impl Iterator<Item = &'static str> {
    let mut seen = BTreeSet::new();
    all.copied().filter(move |one| seen.insert(*one))
}

/// Returns whether a program called `name` is one of those that may run components inside themselves, or a part of one.
pub fn may_embed(name: &[u8]) -> bool {
    embeddings().any(|e| name.starts_with(e.program.as_bytes()))
}

/// Returns the components that the program `name` with these `words` in its command line is known to run inside itself.
pub fn embedded<'w>(name: &str, words: impl Iterator<Item = &'w [u8]> + Clone) -> Vec<&'static str> {
    let does = |e: &&Embedding| {
        e.program == name && e.word.is_none_or(|word| words.clone().any(|given| given == word.as_bytes()))
    };
    embeddings().filter(does).flat_map(|e| e.components).copied().collect()
}

fn embeddings() -> impl Iterator<Item = &'static Embedding> {
    ALL.iter().flat_map(|layout| layout.embeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_a_folder_anew_depends_on_the_layout_where_several_have_it() {
        let name = |path: &str, known| writing(path, known).map(|layout| layout.name);
        let (shared, own) =
            ("/etc/kubernetes/manifests/etcd.yaml", "/var/lib/rancher/rke2/agent/pod-manifests/etcd.yaml");
        let cases = [
            (shared, None, None),
            (shared, Some("kubeadm"), None),
            (shared, Some("kops"), Some("kops")),
            (own, None, Some("rke2")),
            (own, Some("rke2"), Some("rke2")),
        ];
        for (path, known, want) in cases {
            assert_eq!(name(path, known), want, "{path} {known:?}");
        }
    }

    #[test]
    fn a_folder_that_several_have_is_told_once() {
        assert_eq!(static_pods().filter(|folder| *folder == "/etc/kubernetes/manifests").count(), 1);
    }
}
