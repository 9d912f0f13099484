//! What only a kube-apiserver has: who gets in, what is admitted, what is encrypted, and what is recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Observed;

/// What only an API server has, as its settings and the files that they name say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubeApiserver {
    /// What happens to requests that say nothing of who makes them.
    pub anonymous: Observed<Anonymous>,
    /// Who decides what a caller may do.
    pub authorization: Observed<Authorization>,
    /// The admission plugins that are on: those that are by default, with those enabled and without those disabled.
    pub admission_plugins: Observed<Vec<String>>,
    /// The limits that the plugin EventRateLimit is given; empty where it is given none.
    pub event_limits: Observed<Vec<String>>,
    /// How resources are stored: secrets first, then what the encryption configuration names besides.
    pub at_rest: Observed<Vec<AtRest>>,
    /// What is recorded of requests.
    pub audit: Observed<Audit>,
    /// The files with which tokens of service accounts are verified.
    pub token_keys: Observed<Vec<TokenKey>>,
    /// Seconds after which a request is given up.
    pub request_timeout: Observed<f64>,
}

/// What happens to requests without credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Whether they are taken as those of `system:anonymous`, at least on some paths.
    pub enabled: bool,
    /// The only paths on which they are; null where there is no such restriction.
    pub paths: Option<Vec<String>>,
    /// One clause that says why.
    pub why: String,
}

/// Who decides what a caller may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// The authorizers by their type, in the order in which they are asked: `Node`, `RBAC`, `Webhook`.
    pub modes: Vec<String>,
    /// The file that names them; null where a flag or a default does.
    pub file: Option<String>,
    /// One clause that says where they come from.
    pub why: String,
}

/// How the objects of a resource are stored in etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtRest {
    /// The resource as the configuration has it: `secrets`, `deployments.apps`, `*.*`.
    pub resource: String,
    /// The entry of the configuration that decides; null where none does.
    pub by: Option<String>,
    /// The providers: the first encrypts what is written, and all decrypt what is read. `identity` does not encrypt. Keys are not
    /// kept.
    pub providers: Vec<String>,
}

/// What is recorded of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The log; null where none is written.
    pub log: Option<AuditLog>,
    /// Whether events are sent to a webhook.
    pub webhook: bool,
    /// What the policy says of the requests that matter; null without a policy, with which nothing is recorded.
    pub policy: Option<Observed<Vec<AuditLevel>>>,
}

/// Where the audit log goes, and how long it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditLog {
    /// The file, or `-` for standard output.
    pub path: String,
    /// Days for which old files are kept; 0 where none is deleted for its age.
    pub days: Observed<i64>,
    /// Old files that are kept; 0 where their number has no limit.
    pub files: Observed<i64>,
    /// Megabytes at which a new file is begun; 0 for 100.
    pub megabytes: Observed<i64>,
}

/// What is recorded of one kind of request of a caller whom the policy does not name, in a namespace that it does not name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditLevel {
    /// The request: a verb, and a resource or a path.
    pub request: String,
    /// The least that has to be recorded of it; `None` where that is not this rule's business.
    pub least: Level,
    /// The most that should be, because more would put secrets into the log.
    pub most: Level,
    /// What is recorded.
    pub level: Level,
    /// Namespaces, users and groups that the policy names and of which less than the least is recorded.
    pub except: Vec<String>,
    /// Whether `level` is at least `least`.
    pub enough: bool,
    /// Whether `level` is above `most`.
    pub too_much: bool,
}

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what and when.
    Metadata,
    /// What was sent as well.
    Request,
    /// What was answered as well.
    RequestResponse,
}

/// A file with keys that verify tokens of service accounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// The file.
    pub path: String,
    /// What it holds, by its first PEM header: `public key`, `private key`, `certificate`, or `nothing`.
    pub holds: Observed<String>,
    /// Whether it is a file that the settings also name for serving TLS.
    pub serves: bool,
}
