//! An audit policy, tried with the requests that matter (`k8s.io/apiserver/pkg/audit/policy`, read in 1.35.4).

use std::collections::BTreeSet;

use seaworthy_evidence::{AuditLevel, ErrorKind, EvidenceError, Level};
use seaworthy_settings::ConfigText;
use serde::Deserialize;

use crate::configuration::parse_object;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Option<Vec<String>>,
    #[serde(default)]
    user_groups: Option<Vec<String>>,
    #[serde(default)]
    verbs: Option<Vec<String>>,
    #[serde(default)]
    resources: Option<Vec<Resources>>,
    #[serde(default)]
    namespaces: Option<Vec<String>>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Option<Vec<String>>,
    #[serde(default)]
    omit_stages: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    resources: Option<Vec<String>>,
    #[serde(default)]
    resource_names: Option<Vec<String>>,
}

/// A request that matters: verb, API group, resource with subresource, whether it is in a namespace, and the most that should be
/// recorded.
struct Request(&'static str, &'static str, &'static str, bool, Level);

/// The requests. What reads secrets is answered with them, and what writes them brings them along; a request for a token is answered with
/// it, and a review of one brings it along.
const REQUESTS: &[Request] = &[
    Request("get", "", "secrets", true, Level::Request),
    Request("list", "", "secrets", true, Level::Request),
    Request("watch", "", "secrets", true, Level::Request),
    Request("create", "", "secrets", true, Level::Metadata),
    Request("update", "", "secrets", true, Level::Metadata),
    Request("patch", "", "secrets", true, Level::Metadata),
    Request("delete", "", "secrets", true, Level::Request),
    Request("get", "", "configmaps", true, Level::Request),
    Request("create", "", "configmaps", true, Level::Metadata),
    Request("update", "", "configmaps", true, Level::Metadata),
    Request("create", "authentication.k8s.io", "tokenreviews", false, Level::Metadata),
    Request("create", "", "serviceaccounts/token", true, Level::Request),
    Request("get", "", "pods/exec", true, Level::RequestResponse),
    Request("create", "", "pods/exec", true, Level::RequestResponse),
    Request("get", "", "pods/attach", true, Level::RequestResponse),
    Request("create", "", "pods/attach", true, Level::RequestResponse),
    Request("get", "", "pods/portforward", true, Level::RequestResponse),
    Request("create", "", "pods/portforward", true, Level::RequestResponse),
    Request("get", "", "pods/proxy", true, Level::RequestResponse),
    Request("create", "", "pods/proxy", true, Level::RequestResponse),
    Request("get", "", "services/proxy", true, Level::RequestResponse),
    Request("create", "", "services/proxy", true, Level::RequestResponse),
    Request("get", "", "nodes/proxy", false, Level::RequestResponse),
    Request("create", "", "pods", true, Level::RequestResponse),
    Request("update", "", "pods", true, Level::RequestResponse),
    Request("patch", "apps", "deployments", true, Level::RequestResponse),
    Request("delete", "", "namespaces", false, Level::RequestResponse),
    Request("create", "rbac.authorization.k8s.io", "clusterrolebindings", false, Level::RequestResponse),
];

/// Who makes a request, and where.
#[derive(Clone, Copy)]
struct Caller<'a> {
    user: &'a str,
    group: &'a str,
    namespace: &'a str,
}

/// A name that nothing has.
const NOBODY: &str = "\0";
/// Most names of one kind that are looked at one by one, and most rules.
const MOST: usize = 64;
const MOST_RULES: usize = 2000;

/// Returns what the policy in the file at `path` says of the requests that matter.
///
/// # Errors
///
/// When it could not be read, or when no API server would take it.
pub(super) fn levels(path: &str, text: &ConfigText) -> Result<Vec<AuditLevel>, EvidenceError> {
    let policy: Policy = parse_object(path, text, "Policy", "audit.k8s.io")?;
    let fail = |kind, message: String| EvidenceError::new(kind, message).at(text.origin.clone());
    match policy.rules.len() {
        0 => return Err(fail(ErrorKind::Malformed, format!("{path} has no rules"))),
        1..=MOST_RULES => {}
        _ => return Err(fail(ErrorKind::TooLarge, format!("{path} has more than {MOST_RULES} rules"))),
    }
    let names = |of: fn(&Rule) -> &Option<Vec<String>>| {
        let all = policy.rules.iter().flat_map(|rule| of(rule).iter().flatten().map(String::as_str));
        all.collect::<BTreeSet<_>>().into_iter().take(MOST).collect::<Vec<_>>()
    };
    let (users, groups, namespaces) =
        (names(|rule| &rule.users), names(|rule| &rule.user_groups), names(|rule| &rule.namespaces));
    let anybody = Caller { user: NOBODY, group: NOBODY, namespace: NOBODY };
    let judge = |request: &Request| {
        let Request(verb, group, resource, namespaced, most) = *request;
        let level = policy.level(request, anybody);
        let least = Level::Metadata;
        let less = |caller: Caller<'_>| level >= least && policy.level(request, caller) < least;
        let mut except = Vec::new();
        for name in namespaces.iter().filter(|name| namespaced && !name.is_empty()) {
            except.extend(less(Caller { namespace: name, ..anybody }).then(|| format!("namespace {name}")));
        }
        except.extend(
            users
                .iter()
                .filter(|name| less(Caller { user: name, ..anybody }))
                .map(|name| format!("user {name}")),
        );
        except.extend(
            groups
                .iter()
                .filter(|name| less(Caller { group: name, ..anybody }))
                .map(|name| format!("group {name}")),
        );
        let of = if group.is_empty() { String::new() } else { format!(".{group}") };
        AuditLevel {
            request: format!("{verb} {resource}{of}"),
            least,
            most,
            level,
            except,
            enough: level >= least,
            too_much: level > most,
        }
    };
    Ok(REQUESTS.iter().map(judge).collect())
}

impl Policy {
    /// Returns how much is recorded of a request: the first rule that matches decides, and without one nothing is.
    fn level(&self, request: &Request, caller: Caller<'_>) -> Level {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(request, caller)) else {
            return Level::None;
        };
        let omitted = |stage: &str| {
            let all = self.omit_stages.iter().chain(&rule.omit_stages).flatten();
            all.into_iter().any(|omitted| omitted == stage)
        };
        let subresources = ["exec", "attach", "portforward", "proxy"];
        let runs_long = request.0 == "watch"
            || request.2.split_once('/').is_some_and(|(_, subresource)| subresources.contains(&subresource));
        let silent = omitted("RequestReceived")
            && omitted("ResponseComplete")
            && (!runs_long || omitted("ResponseStarted"));
        if silent { Level::None } else { rule.level }
    }
}

/// Returns what a list demands; an empty one demands nothing.
fn demanded<T>(list: &Option<Vec<T>>) -> Option<&[T]> {
    list.as_deref().filter(|list| !list.is_empty())
}

fn has(list: &[String], name: &str) -> bool {
    list.iter().any(|one| one == name)
}

impl Rule {
    fn matches(&self, &Request(verb, group, resource, namespaced, _): &Request, caller: Caller<'_>) -> bool {
        let names =
            |list: &Option<Vec<String>>, name: &str| demanded(list).is_none_or(|list| has(list, name));
        // Whoever is somebody is authenticated.
        let of_group =
            names(&self.user_groups, caller.group) || names(&self.user_groups, "system:authenticated");
        if !names(&self.users, caller.user) || !of_group || !names(&self.verbs, verb) {
            return false;
        }
        let (resources, namespaces) = (demanded(&self.resources), demanded(&self.namespaces));
        if resources.is_none() && namespaces.is_none() {
            return demanded(&self.non_resource_urls).is_none();
        }
        let namespace = if namespaced { caller.namespace } else { "" };
        namespaces.is_none_or(|list| has(list, namespace))
            && resources.is_none_or(|list| list.iter().any(|one| one.matches(group, resource)))
    }
}

impl Resources {
    fn matches(&self, group: &str, resource: &str) -> bool {
        let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let matches = |pattern: &String| {
            pattern == resource
                || pattern == "*"
                || pattern.strip_prefix("*/").is_some_and(|s| !subresource.is_empty() && s == subresource)
                || pattern.strip_suffix("/*").is_some_and(|r| r == name)
        };
        // A rule for objects of certain names is not about others.
        let any_name = demanded(&self.resource_names).is_none();
        self.group.as_deref().unwrap_or_default() == group
            && demanded(&self.resources).is_none_or(|list| any_name && list.iter().any(matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_evidence::Origin;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    fn tried(policy: &str) -> Result<Vec<AuditLevel>, EvidenceError> {
        let bytes = policy.as_bytes().to_vec();
        levels("/p", &ConfigText { bytes, changed_at: None, origin: Origin::file("/p") })
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        use Level::{Metadata, None, Request, RequestResponse};
        let get = |levels: &[AuditLevel], request: &str| {
            levels.iter().find(|level| level.request == request).unwrap().level
        };
        // The rules, a request, and what is recorded of it.
        let cases = [
            ("[{level: Metadata}]", "get secrets", Metadata),
            ("[{level: Metadata, nonResourceURLs: ['*']}]", "get secrets", None),
            ("[{level: None, resources: [{resources: [pods]}]}, {level: Request}]", "create pods", None),
            ("[{level: None, resources: [{resources: [pods]}]}, {level: Request}]", "get pods/exec", Request),
            ("[{level: Metadata, resources: [{resources: ['pods/*']}]}]", "get pods/exec", Metadata),
            ("[{level: Metadata, resources: [{resources: ['*/exec']}]}]", "get pods/attach", None),
            ("[{level: Metadata, resources: [{resources: ['*/proxy']}]}]", "get services/proxy", Metadata),
            ("[{level: Metadata, resources: [{resources: ['*']}]}]", "get pods/exec", Metadata),
            ("[{level: Metadata, resources: [{group: ''}]}]", "patch deployments.apps", None),
            ("[{level: Metadata, resources: [{group: apps}]}]", "patch deployments.apps", Metadata),
            (
                "[{level: Metadata, resources: [{resources: [secrets], resourceNames: [one]}]}]",
                "get secrets",
                None,
            ),
            ("[{level: None, verbs: [get]}, {level: Metadata}]", "list secrets", Metadata),
            ("[{level: None, users: ['system:kube-proxy']}, {level: Metadata}]", "get secrets", Metadata),
            ("[{level: None, userGroups: ['system:nodes']}, {level: Metadata}]", "get secrets", Metadata),
            ("[{level: None, userGroups: ['system:authenticated']}, {level: Metadata}]", "get secrets", None),
            ("[{level: None, namespaces: [kube-system]}, {level: Metadata}]", "get secrets", Metadata),
            ("[{level: None, namespaces: ['']}, {level: Metadata}]", "delete namespaces", None),
            ("[{level: RequestResponse, users: []}]", "get secrets", RequestResponse),
            ("[{level: Metadata, omitStages: [RequestReceived, ResponseComplete]}]", "get secrets", None),
            (
                "[{level: Metadata, omitStages: [RequestReceived, ResponseComplete]}]",
                "watch secrets",
                Metadata,
            ),
        ];
        for (rules, request, want) in cases {
            let levels = tried(&format!("{HEAD}rules: {rules}\n")).unwrap();
            assert_eq!(get(&levels, request), want, "{rules}: {request}");
        }
        let omitted = format!(
            "{HEAD}omitStages: [RequestReceived]\nrules: [{{level: Metadata, omitStages: [ResponseComplete]}}]\n"
        );
        assert_eq!(get(&tried(&omitted).unwrap(), "get secrets"), None, "the stages of both are omitted");
    }

    #[test]
    fn exceptions_are_told_and_secrets_in_the_log_are() {
        let rules = "[{level: None, namespaces: [quiet], users: []}, {level: None, users: [u]}, {level: None, userGroups: [g]}, {level: Request}]";
        let levels = tried(&format!("{HEAD}rules: {rules}\n")).unwrap();
        let secrets = levels.iter().find(|level| level.request == "create secrets").unwrap();
        assert_eq!(secrets.except, ["namespace quiet", "user u", "group g"]);
        assert!(secrets.enough && secrets.too_much, "{secrets:?}");
        let reading = levels.iter().find(|level| level.request == "get secrets").unwrap();
        assert!(!reading.too_much, "a request to read one brings nothing along");
    }

    #[test]
    fn what_no_api_server_would_take_is_an_error() {
        let deep = format!("{HEAD}rules: {}", "[".repeat(5000));
        let many = format!("{HEAD}rules:\n{}", "- level: None\n".repeat(MOST_RULES + 1));
        let huge = format!("{HEAD}rules: [{{level: None}}]\n#{}", "x".repeat(ConfigText::MAX));
        let cases = [
            String::new(),
            "hunter2".to_owned(),
            HEAD.to_owned(),
            format!("{HEAD}rules: []\n"),
            format!("{HEAD}rules: [{{level: hunter2}}]\n"),
            format!("{HEAD}rules: [{{level: Metadata}}]\nrules: [{{level: None}}]\n"),
            "apiVersion: audit.k8s.io/v1\nkind: Event\nrules: [{level: Metadata}]\n".to_owned(),
            "apiVersion: hunter2/v1\nkind: Policy\nrules: [{level: Metadata}]\n".to_owned(),
            "kind: Policy\nrules: [{level: Metadata}]\n".to_owned(),
            deep,
            many,
            huge,
        ];
        for policy in cases {
            let error = tried(&policy).unwrap_err();
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }
}
