//! Settings: configuration values after the component's own precedence rules.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Origin;

/// The etcd settings that Seaworthy models, by flag name. All others are left out of a snapshot.
pub const SETTINGS: &[&str] = &[
    "advertise-client-urls",
    "auto-tls",
    "cert-file",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-cert-auth",
    "client-cert-file",
    "client-crl-file",
    "client-key-file",
    "data-dir",
    "discovery-srv",
    "experimental-peer-skip-client-san-verification",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "key-file",
    "listen-client-http-urls",
    "listen-client-urls",
    "listen-metrics-urls",
    "listen-peer-urls",
    "name",
    "peer-auto-tls",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-key-file",
    "peer-skip-client-san-verification",
    "peer-trusted-ca-file",
    "self-signed-cert-validity",
    "tls-max-version",
    "tls-min-version",
    "trusted-ca-file",
    "wal-dir",
];

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

/// The configuration file that replaces an etcd's flags and environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path as the process sees it.
    pub path: String,
    /// How it was written.
    pub format: ConfigFormat,
    /// When it was last modified; null when unknown. Later than the process start means that the process may still
    /// run with older content.
    pub modified_at: Option<Timestamp>,
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
