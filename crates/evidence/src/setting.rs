//! Settings: configuration values after the component's own precedence rules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{EvidenceError, Origin};

/// The settings of an instance by flag name, as far as they are known; for each of the others, why it is not.
///
/// In JSON one object, in which `{"error": …}` stands for a setting that is not known. A rule that asks for it is *unknown* with
/// that error. A copy shares them until one of the two is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    known: Arc<BTreeMap<String, Setting>>,
    unknown: BTreeMap<String, EvidenceError>,
}

impl Settings {
    /// Takes back what is known of a setting, because of `error`.
    pub fn doubt(&mut self, name: &str, error: EvidenceError) {
        Arc::make_mut(&mut self.known).remove(name);
        self.unknown.insert(name.to_owned(), error);
    }

    /// Returns why a setting is not known, if that is known.
    pub fn why_unknown(&self, name: &str) -> Option<&EvidenceError> {
        self.unknown.get(name)
    }

    /// Returns why one of these settings is not known, if one is not. Who takes a setting that is not known for one that is not
    /// set claims too much.
    pub fn doubt_about<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<&EvidenceError> {
        names.into_iter().find_map(|name| self.why_unknown(name))
    }
}

impl From<BTreeMap<String, Setting>> for Settings {
    fn from(known: BTreeMap<String, Setting>) -> Self {
        Self { known: Arc::new(known), unknown: BTreeMap::new() }
    }
}

impl Deref for Settings {
    type Target = BTreeMap<String, Setting>;

    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl DerefMut for Settings {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.known)
    }
}

/// A setting in JSON.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Entry<S> {
    Known(S),
    Unknown { error: EvidenceError },
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = self.known.iter().map(|(name, setting)| (name, Entry::Known(setting)));
        let unknown =
            self.unknown.iter().map(|(name, error)| (name, Entry::Unknown { error: error.clone() }));
        known.chain(unknown).collect::<BTreeMap<_, _>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut known, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for (name, entry) in BTreeMap::<String, Entry<Setting>>::deserialize(deserializer)? {
            match entry {
                Entry::Known(setting) => drop(known.insert(name, setting)),
                Entry::Unknown { error } => drop(unknown.insert(name, error)),
            }
        }
        Ok(Self { known: Arc::new(known), unknown })
    }
}

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        "Settings".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<Entry<Setting>>(),
        })
    }
}

/// One configuration value: what is in effect, where it comes from, and what lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Whether it is in effect with a value other than the empty string (a default that is not empty counts).
    pub set: bool,
    /// The effective value as text; empty when unset. Lists are comma-separated.
    pub value: String,
    /// The effective value of a boolean setting; null for all others.
    pub on: Option<bool>,
    /// Where the effective value comes from.
    pub origin: Origin,
    /// One clause that explains the value: `set by flag`, `not set`, `not set: the flag --x=y is ignored because a
    /// configuration file is in use`.
    pub why: String,
    /// What was also given but lost, strongest first.
    pub overridden: Vec<Candidate>,
}

/// A value that lost against another source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The value as given.
    pub value: String,
    /// Where it was given.
    pub origin: Origin,
    /// Why it has no effect.
    pub reason: String,
}

/// The configuration file of an instance: etcd's replaces its flags and environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path as the process sees it.
    pub path: String,
    /// How it was written.
    pub format: ConfigFormat,
    /// When it was last changed or replaced, or its owner or mode was; null when unknown. Later than the process start
    /// means that the process may still run with other content.
    pub changed_at: Option<Timestamp>,
    /// Keys that etcd ignores without a word.
    pub ignored: Vec<IgnoredKey>,
}

/// The syntax of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigFormat {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A key of a configuration file, or an environment variable, that has no effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgnoredKey {
    /// The key with its section, for example `peer-transport-security.peer-cert-file`, or the variable's name.
    pub key: String,
    /// Why etcd ignores it.
    pub reason: String,
    /// The key or variable that was probably meant; null when there is no likely one.
    pub suggestion: Option<String>,
    /// Whether it looks like a transport security key, so that somebody believes in a protection that is not there.
    pub about_security: bool,
    /// Where it stands.
    pub origin: Origin,
}
