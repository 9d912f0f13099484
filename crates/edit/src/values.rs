//! What is in a file, value by value: two texts with the same values say the same.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values by key. A key tells where a value is; items of a list are told by their name, path or content, so that one that
/// others add does not give the rest other keys.
pub(crate) type Values = BTreeMap<String, String>;

/// What identifies an item of a list in a manifest, tried in this order.
const NAMES: [&str; 4] = ["mountPath", "name", "containerPort", "key"];

/// Returns the key of a flag.
pub(crate) fn flag(name: &str) -> String {
    format!("flag:{name}")
}

/// Returns the key of a variable.
pub(crate) fn variable(name: &str) -> String {
    format!("variable:{name}")
}

/// Returns what a person calls the value with this key.
pub(crate) fn name(key: &str) -> &str {
    let key = key.split('#').next().unwrap_or(key);
    key.split_once(':').map_or(key, |(_, name)| name)
}

/// Adds a value; a second one of the same key gets a number.
pub(crate) fn add(values: &mut Values, key: &str, value: impl Into<String>) {
    let again = || (2..).map(|count| format!("{key}#{count}")).find(|key| !values.contains_key(key));
    let key = if values.contains_key(key) { again().unwrap_or_default() } else { key.to_owned() };
    values.insert(key, value.into());
}

/// Adds everything in a document. What `skip` says of a path is left out.
pub(crate) fn flatten(value: &Value, path: &str, skip: &dyn Fn(&str) -> bool, values: &mut Values) {
    if skip(path) {
        return;
    }
    match value {
        Value::Object(entries) => {
            add(values, path, "{}");
            for (key, value) in entries {
                flatten(value, &format!("{path}.{key}"), skip, values);
            }
        }
        Value::Array(items) => {
            add(values, path, "[]");
            for item in items {
                let named = NAMES.iter().find_map(|name| item.get(name));
                let named = named.map_or_else(String::new, ToString::to_string);
                flatten(item, &format!("{path}[{named}]"), skip, values);
            }
        }
        scalar => add(values, path, scalar.to_string()),
    }
}

/// Returns what leads from `now` back to `former`, by key: the former value, or that there was none.
pub(crate) fn changes(former: &Values, now: &Values) -> BTreeMap<String, Option<String>> {
    let keys = former.keys().chain(now.keys());
    let different = keys.filter(|key| former.get(*key) != now.get(*key));
    different.map(|key| (key.clone(), former.get(key).cloned())).collect()
}

/// Returns the values with these changes.
pub(crate) fn with(values: &Values, changes: &BTreeMap<String, Option<String>>) -> Values {
    let mut values = values.clone();
    for (key, value) in changes {
        match value {
            Some(value) => values.insert(key.clone(), value.clone()),
            None => values.remove(key),
        };
    }
    values
}
