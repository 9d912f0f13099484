//! The components that Seaworthy knows: a folder for each, with what its inputs mean, and [`ALL`] of them.
//!
//! Architecture invariant: no I/O of its own. What must be read is read by the caller, through the closures that it passes in.

mod configuration;
pub mod etcd;
pub mod etcd_proxy;
pub mod kube_apiserver;
pub mod kube_controller_manager;
pub mod kube_proxy;
pub mod kube_scheduler;
pub mod kubelet;
pub mod purpose;
pub mod serving;
mod yaml;

use seaworthy_evidence::{EvidenceError, Instance, Origin, Purpose, Settings, Url};
use seaworthy_settings::{Argument, ConfigText, Given, Resolved};

/// A kind of program.
#[derive(Debug)]
pub struct Component {
    /// Its name, everywhere: `etcd`.
    pub name: &'static str,
    /// What only its instances have: the variable of rules, which is also the field of an instance, and the definition in the
    /// snapshot's schema.
    pub special: Option<(&'static str, &'static str)>,
    /// Whether it is a part of the control plane, and so on no other node.
    pub of_control_plane: bool,
    /// The settings that a snapshot keeps, by flag name. All others are left out.
    pub settings: &'static [&'static str],
    /// How it is started and what it makes of that; none where its processes are known by another component's program.
    pub program: Option<&'static Program>,
}

/// The program that an instance runs.
#[derive(Debug)]
pub struct Program {
    /// The package that it is built from, where that alone tells it.
    pub package: Option<&'static str>,
    /// Whether a program of this name is it, where the executable itself does not tell.
    pub is_called: fn(&str) -> bool,
    /// Whether it is something else than an instance with these arguments.
    pub is_other: fn(&[Argument]) -> bool,
    /// The unit with which distributions and installers start it: `etcd.service`.
    pub unit: &'static str,
    /// The environment variable of a setting, if it reads its environment.
    pub variable: Option<fn(&str) -> String>,
    /// The setting that names its configuration file, if it takes one.
    pub config: Option<&'static str>,
    /// The settings that name files which it reads, beside that.
    pub files: &'static [&'static str],
    /// Those of them that are kubeconfigs.
    pub kubeconfigs: &'static [&'static str],
    /// The folder of Kubernetes in which its own key material lies, if it has one.
    pub folder: Option<&'static str>,
    /// What it needs beside the files that it reads: the setting, what is below the path that this names, and the access
    /// (read 4, write 2, search 1).
    pub data: &'static [(&'static str, &'static str, u32)],
    /// What it makes of what it is given.
    pub resolve: fn(Given<'_>) -> Resolved,
    /// Where it listens with these settings.
    pub listens: fn(&Settings) -> Vec<(Url, Origin)>,
    /// The settings that name its key material.
    pub credentials: &'static [KeyFiles],
    /// Adds what only its instances have, if that follows from its settings and the files that they name.
    pub special: Option<fn(&mut Instance, &mut ReadFile<'_>)>,
}

/// Reads a file as an instance has it. Where it reads it only when it starts, which the second argument says, a file that was
/// changed since is an error.
pub type ReadFile<'a> = dyn FnMut(&str, Reads) -> Result<ConfigText, EvidenceError> + 'a;

/// When a component reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Whenever it changes.
    Again,
    /// Only when it starts.
    Once,
}

/// The settings that name the key material for one purpose.
#[derive(Debug)]
pub struct KeyFiles {
    /// What it is for.
    pub purpose: Purpose,
    /// The certificate.
    pub certificate: &'static str,
    /// Its private key.
    pub key: &'static str,
    /// The CAs of those who connect.
    pub trusted: &'static str,
}

impl Program {
    /// Returns whether the program at `path` is called as it is.
    pub fn is_at(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|b| *b == b'/').next().and_then(|name| std::str::from_utf8(name).ok());
        name.is_some_and(self.is_called)
    }
}

/// Every component.
pub static ALL: &[&Component] = &[
    &etcd::COMPONENT,
    &etcd_proxy::COMPONENT,
    &kube_apiserver::COMPONENT,
    &kube_controller_manager::COMPONENT,
    &kube_proxy::COMPONENT,
    &kube_scheduler::COMPONENT,
    &kubelet::COMPONENT,
];

/// Returns the component called `name`.
pub fn named(name: &str) -> Option<&'static Component> {
    ALL.iter().copied().find(|component| component.name == name)
}
