//! The evidence trail: from what an expression touched to facts a reader can look up.

use seaworthy_evidence::{EvidenceError, Origin};
use serde::Deserialize as _;
use serde_json::Value;

use crate::Binding;

/// One fact that a verdict rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The fact's name in the evidence, relative to the resource: `settings.peer-cert-file`, `peer.listeners[0].wire`.
    pub path: String,
    /// The fact, in a few words; empty when it could not be observed.
    pub value: String,
    /// Where it was observed.
    pub origin: Option<Origin>,
    /// Why it could not be observed.
    pub error: Option<EvidenceError>,
}

impl Evidence {
    /// Returns the evidence at `path` that could not be had because of `error`.
    pub(crate) fn failed(path: &str, error: &EvidenceError) -> Self {
        Self {
            path: path.to_owned(),
            value: String::new(),
            origin: error.origin.clone(),
            error: Some(error.clone()),
        }
    }
}

/// Collects the facts that the expressions of one rule touched, each once and in the order they were read.
pub(crate) struct Trail<'a> {
    bases: Vec<Base<'a>>,
    seen: Vec<(String, Evidence)>,
}

/// A variable of the rule: where its evidence is, and the evidence.
struct Base<'a> {
    pointer: String,
    name: String,
    value: &'a Value,
}

impl<'a> Trail<'a> {
    pub(crate) fn new(snapshot: &'a Value, bindings: &[Binding<'_>]) -> Self {
        let base = |b: &Binding<'_>| Base {
            pointer: b.pointer.clone(),
            name: b.name.to_owned(),
            value: snapshot.pointer(&b.pointer).unwrap_or(&Value::Null),
        };
        Self { bases: bindings.iter().map(base).collect(), seen: Vec::new() }
    }

    /// Returns the facts behind the touched `pointers`, and remembers them.
    pub(crate) fn follow(&mut self, pointers: &[String]) -> Vec<Evidence> {
        let mut facts: Vec<(String, Evidence)> = Vec::new();
        // What a thing is for tells which one it is, and is no fact about it.
        for pointer in pointers.iter().filter(|pointer| !pointer.ends_with("/purpose")) {
            let Some((base, place, value)) = self.place(pointer) else { continue };
            if facts.iter().any(|(p, _)| p == place) {
                continue;
            }
            let seen = self.seen.iter().find(|(p, _)| p == place);
            let fact = match seen {
                Some((_, fact)) => fact.clone(),
                None => {
                    let path =
                        readable(&base.name, base.value, place.get(base.pointer.len()..).unwrap_or_default());
                    let fact = Evidence::read(path, value);
                    self.seen.push((place.to_owned(), fact.clone()));
                    fact
                }
            };
            facts.push((place.to_owned(), fact));
        }
        without_ancestors(facts)
    }

    pub(crate) fn into_evidence(self) -> Vec<Evidence> {
        without_ancestors(self.seen)
    }

    /// Returns the innermost thing with an origin (or an error) that holds `pointer`: its variable, its place, itself.
    fn place<'p>(&self, pointer: &'p str) -> Option<(&Base<'a>, &'p str, &'a Value)> {
        let base = self.bases.iter().find(|base| pointer.starts_with(&base.pointer))?;
        let (mut value, mut end, mut innermost) = (base.value, base.pointer.len(), None);
        for token in pointer.get(end..)?.split('/').skip(1) {
            end += 1 + token.len();
            let next = match value {
                Value::Object(object) if token.contains('~') => object.get(&unescaped(token)),
                Value::Object(object) => object.get(token),
                Value::Array(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(next) = next else { break };
            value = next;
            if let Some(object) = value.as_object()
                && (object.contains_key("origin") || is_failure(object))
            {
                innermost = Some((base, pointer.get(..end)?, value));
            }
        }
        innermost
    }
}

impl Evidence {
    /// Returns the fact `value`, which has an origin or an error.
    fn read(path: String, value: &Value) -> Self {
        let object = value.as_object();
        let field = |name: &str| object.and_then(|object| object.get(name));
        if object.is_some_and(is_failure)
            && let Some(Ok(error)) = field("error").map(EvidenceError::deserialize)
        {
            return Self::failed(&path, &error);
        }
        let origin = field("origin").and_then(|origin| Origin::deserialize(origin).ok());
        Self { path, value: in_words(value), origin, error: None }
    }
}

/// Returns whether evidence is an error that stands in a value's place.
fn is_failure(object: &serde_json::Map<String, Value>) -> bool {
    object.contains_key("error") && !object.contains_key("value")
}

/// Returns a token of a JSON pointer (RFC 6901) as the key it stands for.
fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Leaves out facts that merely contain another one: the list of listeners beside one of its listeners.
fn without_ancestors(facts: Vec<(String, Evidence)>) -> Vec<Evidence> {
    let places: Vec<String> = facts.iter().map(|(place, _)| place.clone()).collect();
    let below =
        |place: &str, other: &String| other.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    facts
        .into_iter()
        .filter(|(place, _)| !places.iter().any(|other| below(place, other)))
        .map(|(_, fact)| fact)
        .collect()
}

/// Returns a pointer below the variable `name`, whose evidence is `value`, as a path to read: `settings.peer-cert-file`,
/// `listeners[0].wire`, `credentials[peer].problems`.
fn readable(name: &str, value: &Value, pointer: &str) -> String {
    let mut path = String::new();
    let mut value = Some(value);
    for segment in pointer.split('/').skip(1) {
        let list = value.and_then(Value::as_array);
        let index = segment.parse::<usize>().ok().filter(|_| list.is_some());
        let key = unescaped(segment);
        value = value.and_then(|value| match index {
            Some(index) => value.get(index),
            None => value.get(&key),
        });
        match index {
            Some(index) => {
                let purpose = list.and_then(|list| purpose_of(list, index));
                path.push_str(&purpose.map_or(format!("[{segment}]"), |purpose| format!("[{purpose}]")));
            }
            None if key == "value" => {}
            None => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            }
        }
    }
    if path.is_empty() { name.to_owned() } else { path }
}

/// Returns what an element of `list` is for, if that tells it from all the others.
fn purpose_of(list: &[Value], index: usize) -> Option<&str> {
    let purposes = list.iter().map(|element| element.get("purpose").and_then(Value::as_str));
    let purpose = purposes.clone().nth(index)??;
    (purposes.filter(|other| *other == Some(purpose)).count() == 1).then_some(purpose)
}

/// Returns the essence of a piece of evidence in a few words.
fn in_words(value: &Value) -> String {
    const TELLING: [&str; 8] =
        ["spoke", "message", "established", "text", "mode_text", "subject", "name", "path"];
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => match items.len() {
            0 => "none".to_owned(),
            1..=4 => items.iter().map(in_words).collect::<Vec<_>>().join(", "),
            many => format!("{many} entries"),
        },
        Value::Object(object) => {
            if object.contains_key("overridden") {
                return setting_in_words(object);
            }
            if let (Some(mode), Some(owner), Some(group)) =
                (text(object, "mode_text"), text(object, "owner"), text(object, "group"))
            {
                return format!("{mode} {owner}:{group} {}", text(object, "path").unwrap_or_default());
            }
            if let Some(inner) = object.get("value").filter(|_| object.contains_key("origin")) {
                return in_words(inner);
            }
            if let Some(url) = object.get("url") {
                return in_words(url);
            }
            if let Some(file) = object.get("file") {
                return in_words(file);
            }
            if let (Some(local), Some(remote)) = (text(object, "local"), text(object, "remote")) {
                return format!("{local} – {remote}");
            }
            let told = TELLING.iter().find_map(|key| text(object, key).filter(|t| !t.is_empty()));
            told.or_else(|| text(object, "why")).unwrap_or_default().to_owned()
        }
    }
}

fn setting_in_words(setting: &serde_json::Map<String, Value>) -> String {
    match text(setting, "value") {
        Some(value) if !value.is_empty() => value.to_owned(),
        _ => text(setting, "why").unwrap_or("not set").to_owned(),
    }
}

fn text<'a>(object: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_read_like_paths() {
        let value = serde_json::json!({
            "listeners": {"value": [{"purpose": "peer"}, {"purpose": "client"}, {"purpose": "client"}, {}]},
        });
        let cases = [
            ("/settings/value/peer-cert-file", "settings.peer-cert-file"),
            ("/listeners/value/0/wire/value", "listeners[peer].wire"),
            ("/listeners/value/1/wire", "listeners[1].wire"),
            ("/listeners/value/3", "listeners[3]"),
            ("/files/manifest", "files.manifest"),
            ("", "self"),
        ];
        for (pointer, want) in cases {
            assert_eq!(readable("self", &value, pointer), want);
        }
    }

    #[test]
    fn the_innermost_origin_is_the_fact() {
        let snapshot = serde_json::json!({"etcd": {"value": [{"peer": {"listeners": {
            "value": [{"url": {"text": "http://10.0.0.1:2380", "scheme": "http"}, "origin": {"kind": "argv", "pid": 7, "index": 3}}],
            "origin": {"kind": "proc", "path": "/proc/7/net/tcp"}
        }}}]}});
        let base = Binding { name: "etcd", value: &Value::Null, pointer: "/etcd/value/0".into() };
        let mut trail = Trail::new(&snapshot, &[base]);
        let touched = [
            "/etcd/value/0/peer/listeners".to_owned(),
            "/etcd/value/0/peer/listeners/value/0/url/scheme".to_owned(),
        ];
        let facts = trail.follow(&touched);
        assert_eq!(facts.len(), 1, "{facts:?}");
        assert_eq!(facts[0].value, "http://10.0.0.1:2380");
        assert_eq!(facts[0].origin, Some(Origin::Argv { pid: 7, index: 3 }));
    }
}
