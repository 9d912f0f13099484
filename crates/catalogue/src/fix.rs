//! Fixes as data: what makes a rule pass where it fails.

use std::collections::BTreeMap;

use seaworthy_components::Component;
use serde::{Deserialize, Serialize};

/// What makes a rule pass on the node where it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// The change.
    pub change: Change,
    /// Why, in sentences that are true of every step; empty where code says it.
    pub why: String,
}

/// What a fix changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// What only code can say, of instances of this component: it takes several rounds through a cluster, or makes certificates.
    Code(String),
    /// These settings get these values where the instance is declared; those without a value are not given any more.
    Settings(BTreeMap<String, Option<String>>),
    /// Files of the instance lose what their mode allows beyond this one, or get an owner.
    Files {
        /// Which of its files.
        of: Files,
        /// The most that their mode may allow.
        mode: Option<u32>,
        /// To whom they belong.
        owner: Option<Owner>,
    },
}

/// Files of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Files {
    /// Those of the CAs whose certificates it accepts.
    Authorities,
    /// Those with a certificate among its key material.
    Certificates,
    /// Its configuration files.
    Config,
    /// Its data directory, and not what is in it.
    DataDirectory,
    /// The kubeconfigs that its settings name.
    Kubeconfigs,
    /// Its static pod manifest.
    Manifest,
    /// All of its key material, with the folders that it is in.
    Pki,
    /// Those with a private key among its key material.
    PrivateKeys,
    /// The systemd unit that declares it, and its drop-ins.
    Unit,
}

/// To whom files are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The account that the instance runs as.
    Process,
    /// User and group root; what the instance could not use then stays, or becomes, its account's.
    Root,
}

impl Fix {
    /// Returns whether it is one for instances of `component`.
    pub fn is_for(&self, component: &str) -> bool {
        match &self.change {
            Change::Code(of) => of == component,
            Change::Settings(settings) => {
                let known = seaworthy_components::named(component).map_or(&[][..], |known| known.settings);
                settings.keys().all(|name| known.contains(&name.as_str()))
            }
            Change::Files { .. } => true,
        }
    }
}

/// A fix as the front matter of a rule has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFix {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    set: BTreeMap<String, Option<String>>,
    #[serde(default)]
    files: Option<Files>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    owner: Option<Owner>,
    #[serde(default)]
    why: Option<String>,
}

impl RawFix {
    /// Returns the fix of a rule about these components.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn read(&self, components: &[&Component]) -> Result<Fix, String> {
        let of_files = (self.files, self.mode.as_deref(), self.owner);
        let change = match (&self.code, self.set.is_empty(), of_files) {
            (Some(component), true, (None, None, None)) => Change::Code(component.clone()),
            (None, false, (None, None, None)) => Change::Settings(self.set.clone()),
            (None, true, (Some(of), mode, owner)) if mode.is_some() != owner.is_some() => {
                let octal = |text| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
                let wrong = |text| format!("`{text}` is no octal mode such as `0600`");
                let mode = mode.map(|text| octal(text).ok_or_else(|| wrong(text))).transpose()?;
                Change::Files { of, mode, owner }
            }
            _ => {
                return Err(
                    "a fix has one of `code`, `set`, and `files` with either `mode` or `owner`".to_owned()
                );
            }
        };
        let why = self.why.clone().unwrap_or_default();
        if !matches!(change, Change::Code(_)) && !why.ends_with('.') {
            return Err("the `why` of a fix is a sentence".to_owned());
        }
        let fix = Fix { change, why };
        match components.iter().any(|component| fix.is_for(component.name)) {
            true => Ok(fix),
            false => Err("the fix is for no component that the rule is about, or sets what none of them has"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_components::{Component, etcd, kube_scheduler};

    use super::*;

    fn read(text: &str, components: &[&Component]) -> Result<Fix, String> {
        let raw: RawFix = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        raw.read(components)
    }

    #[test]
    fn what_a_fix_says_is_read() {
        let scheduler = [&kube_scheduler::COMPONENT];
        let fix = read("set: {profiling: 'false', bind-address: null}\nwhy: It is so.", &scheduler).unwrap();
        let values = [("profiling", Some("false")), ("bind-address", None)];
        let values = values.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(fix.change, Change::Settings(values.into()));
        assert!(fix.is_for("kube-scheduler") && !fix.is_for("etcd"), "etcd has no such setting");
        let fix = read("files: private-keys\nmode: '0600'\nwhy: It is so.", &scheduler).unwrap();
        let change = Change::Files { of: Files::PrivateKeys, mode: Some(0o600), owner: None };
        assert_eq!(fix.change, change);
        let fix = read("code: etcd", &[&etcd::COMPONENT, &kube_scheduler::COMPONENT]).unwrap();
        assert!(fix.is_for("etcd") && !fix.is_for("kube-scheduler"));
    }

    #[test]
    fn what_is_wrong_with_a_fix_is_told() {
        for (text, words) in [
            ("why: It is so.", "a fix has one of"),
            ("set: {profiling: 'false'}\nmode: '0600'\nwhy: It is so.", "a fix has one of"),
            ("files: manifest\nwhy: It is so.", "a fix has one of"),
            ("files: manifest\nmode: '0600'\nowner: root\nwhy: It is so.", "a fix has one of"),
            ("files: manifest\nmode: rw\nwhy: It is so.", "`rw` is no octal mode"),
            ("files: manifest\nmode: '70000'\nwhy: It is so.", "`70000` is no octal mode"),
            ("files: manifest\nmode: '0600'", "is a sentence"),
            ("set: {profilling: 'false'}\nwhy: It is so.", "sets what none of them has"),
            ("code: etcd", "for no component that the rule is about"),
            ("files: all\nmode: '0600'\nwhy: It is so.", "unknown variant"),
            ("command: rm\nwhy: It is so.", "unknown field"),
        ] {
            let error = read(text, &[&kube_scheduler::COMPONENT]).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
