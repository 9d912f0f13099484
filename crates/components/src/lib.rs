//! The components that Seaworthy knows: a folder for each, with what its inputs mean, and [`ALL`] of them.
//!
//! Architecture invariant: no I/O of its own. What must be read is read by the caller, through the closures that it passes in.

pub mod etcd;
pub mod etcd_proxy;

/// A kind of program.
#[derive(Debug)]
pub struct Component {
    /// Its name, everywhere: `etcd`.
    pub name: &'static str,
    /// What only its instances have: the variable of rules, which is also the field of an instance, and the definition in the
    /// snapshot's schema.
    pub special: Option<(&'static str, &'static str)>,
    /// The settings that a snapshot keeps, by flag name. All others are left out.
    pub settings: &'static [&'static str],
    /// Those of them that name files which it reads.
    pub files: &'static [&'static str],
}

/// Every component.
pub const ALL: &[&Component] = &[&etcd::COMPONENT, &etcd_proxy::COMPONENT];

/// Returns the component called `name`.
pub fn named(name: &str) -> Option<&'static Component> {
    ALL.iter().copied().find(|component| component.name == name)
}
