//! Several releases in one table, and the table taken apart again.
//!
//! What is the same in all releases is said once. What differs is an object by the release from which on it holds. A release is named
//! by its line (`1.35`) where the change comes with the first release of the line that is in the table, else in full (`3.5.8`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// The flags, the keys of the configuration file, the feature gates, or the plugins of one release, by name.
pub(super) type Items = BTreeMap<String, Map<String, Value>>;

/// What a row says of its item, in this order, beside when it came and went and since when it is deprecated.
const ATTRIBUTES: [&str; 10] =
    ["kind", "default", "bare", "shorthand", "hidden", "values", "field", "file_wins", "stage", "locked"];

/// Returns a row for each item of `releases`, which are in order.
pub(super) fn merge(releases: &[(&str, Items)]) -> anyhow::Result<Vec<Map<String, Value>>> {
    let labels = labels(releases.iter().map(|(version, _)| *version));
    let names: BTreeSet<&String> = releases.iter().flat_map(|(_, items)| items.keys()).collect();
    let row = |name: &String| {
        let items: Vec<_> = releases.iter().map(|(_, items)| items.get(name)).collect();
        let mut row = Map::from_iter([("name".to_owned(), json!(name))]);
        for attribute in ATTRIBUTES {
            let of = |item: &Map<String, Value>| item.get(attribute).cloned().unwrap_or_default();
            let value =
                collapse(items.iter().zip(&labels).filter_map(|(item, label)| Some((label, of((*item)?)))));
            if !value.is_null() {
                row.insert(attribute.to_owned(), value);
            }
        }
        let (came, went) = changes(items.iter().map(Option::is_some), &labels);
        row.extend(came.map(|came| ("since".to_owned(), came)));
        row.extend(went.map(|went| ("removed".to_owned(), went)));
        if let Some(deprecated) = deprecated(&items, &labels).with_context(|| name.clone())? {
            row.insert("deprecated".to_owned(), deprecated);
        }
        if let Some(unknown) = items
            .iter()
            .flatten()
            .flat_map(|item| item.keys())
            .find(|key| !ATTRIBUTES.contains(&key.as_str()) && *key != "deprecated")
        {
            anyhow::bail!("{name} has a {unknown:?}, which no row has a place for");
        }
        Ok(row)
    };
    names.into_iter().map(row).collect()
}

/// Returns the items of each of `versions` from the rows that `merge` made of them.
pub(super) fn split<'a>(
    rows: &[Map<String, Value>],
    versions: &[&'a str],
) -> anyhow::Result<Vec<(&'a str, Items)>> {
    let labels = labels(versions.iter().copied());
    let place = |label: &Value| {
        let found = labels.iter().position(|known| label.as_str() == Some(known));
        found.with_context(|| format!("{label} is no release of the table"))
    };
    let mut releases: Vec<(&str, Items)> = versions.iter().map(|version| (*version, Items::new())).collect();
    for row in rows {
        let name = row.get("name").and_then(Value::as_str).context("a row has no name")?;
        let came = places(row.get("since"), place)?;
        let went = places(row.get("removed"), place)?;
        let mut here = came.first().is_none_or(|came| went.first().is_some_and(|went| went < came));
        for (index, (_, items)) in releases.iter_mut().enumerate() {
            here = (here || came.contains(&index)) && !went.contains(&index);
            if !here {
                continue;
            }
            let mut item = Map::new();
            for attribute in ATTRIBUTES {
                let value = row.get(attribute).map(|value| at(value, index, &labels)).unwrap_or_default();
                if !value.is_null() {
                    item.insert(attribute.to_owned(), value);
                }
            }
            if let Some(deprecated) = row.get("deprecated") {
                let since = deprecated.get("since").map(place).transpose()?;
                let until = deprecated.get("until").map(place).transpose()?;
                if since.is_none_or(|since| index >= since) && until.is_none_or(|until| index < until) {
                    let message = deprecated.get("message").map(|message| at(message, index, &labels));
                    item.insert("deprecated".to_owned(), message.unwrap_or_else(|| json!("")));
                }
            }
            items.insert(name.to_owned(), item);
        }
    }
    Ok(releases)
}

/// Returns the versions in order.
pub(super) fn in_order<'a>(versions: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    let mut versions: Vec<&str> = versions.into_iter().map(String::as_str).collect();
    versions.sort_by_key(|version| version.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>());
    versions
}

/// Returns how each of the versions is named in the table.
fn labels<'a>(versions: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut last = "";
    let label = |version: &'a str| {
        let line = version.rsplit_once('.').map_or(version, |(line, _)| line);
        let label = if line == last { version } else { line };
        last = line;
        label
    };
    versions.map(label).collect()
}

/// Returns the one value, or the values by the release from which on they hold.
fn collapse<'a>(values: impl Iterator<Item = (&'a &'a str, Value)>) -> Value {
    let mut changes: Vec<(&str, Value)> = Vec::new();
    for (label, value) in values {
        if changes.last().is_none_or(|(_, last)| *last != value) {
            changes.push((label, value));
        }
    }
    match changes.as_mut_slice() {
        [(_, only)] => only.take(),
        _ => {
            changes.into_iter().map(|(label, value)| (label.to_owned(), value)).collect::<Map<_, _>>().into()
        }
    }
}

/// Returns what `collapse` made of the value of the release at `index`.
fn at(value: &Value, index: usize, labels: &[&str]) -> Value {
    let by_release = |object: &&Map<String, Value>| object.keys().all(|key| labels.contains(&key.as_str()));
    let Some(object) = value.as_object().filter(by_release) else { return value.clone() };
    let until = labels.iter().take(index + 1).rev();
    until.filter_map(|label| object.get(*label)).next().cloned().unwrap_or_default()
}

/// Returns the releases in which what was not there is, and those in which what was there is not.
fn changes(here: impl Iterator<Item = bool>, labels: &[&str]) -> (Option<Value>, Option<Value>) {
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let mut before = None;
    for (here, label) in here.zip(labels) {
        match (before, here) {
            (Some(false), true) => came.push(*label),
            (Some(true), false) => went.push(*label),
            (None, _) | (Some(true), true) | (Some(false), false) => {}
        }
        before = Some(here);
    }
    let said = |labels: Vec<&str>| match labels.as_slice() {
        [] => None,
        [label] => Some(json!(label)),
        labels => Some(json!(labels)),
    };
    (said(came), said(went))
}

/// Returns the places of the release or releases that a row names.
fn places(
    said: Option<&Value>,
    place: impl Fn(&Value) -> anyhow::Result<usize>,
) -> anyhow::Result<Vec<usize>> {
    match said {
        None => Ok(Vec::new()),
        Some(Value::Array(labels)) => labels.iter().map(place).collect(),
        Some(label) => Ok(vec![place(label)?]),
    }
}

/// Returns since when an item is deprecated, until when, and what the program says of it.
fn deprecated(items: &[Option<&Map<String, Value>>], labels: &[&str]) -> anyhow::Result<Option<Value>> {
    let present =
        items.iter().zip(labels).filter_map(|(item, label)| Some((label, (*item)?.get("deprecated"))));
    let present: Vec<_> = present.collect();
    let (since, until) = changes(present.iter().map(|(_, message)| message.is_some()), &{
        present.iter().map(|(label, _)| **label).collect::<Vec<_>>()
    });
    let message = collapse(present.iter().filter_map(|(label, message)| Some((*label, (*message)?.clone()))));
    if present.iter().all(|(_, message)| message.is_none()) {
        return Ok(None);
    }
    let mut said = Map::new();
    for (name, value) in [("since", since), ("until", until)] {
        anyhow::ensure!(!matches!(value, Some(Value::Array(_))), "deprecated more than once");
        said.extend(value.map(|value| (name.to_owned(), value)));
    }
    if message != json!("") {
        said.insert("message".to_owned(), message);
    }
    Ok(Some(said.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(value: Value) -> Items {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn releases_are_one_table_and_come_out_of_it_again() {
        let releases = [
            (
                "1.34.4",
                items(json!({
                    "bind-address": {"kind": "ip", "default": "0.0.0.0"},
                    "gone": {"kind": "bool", "default": "false"},
                    "host": {"kind": "string", "default": {"machine": "host name"}},
                    "old": {"kind": "int", "default": "5"},
                    "profiling": {"kind": "bool", "default": "true"},
                })),
            ),
            (
                "1.35.1",
                items(json!({
                    "bind-address": {"kind": "ip", "default": "0.0.0.0"},
                    "host": {"kind": "string", "default": {"machine": "host name"}},
                    "new": {"kind": "string", "default": "", "deprecated": "from the start"},
                    "old": {"kind": "int", "default": "5", "deprecated": "do not"},
                    "profiling": {"kind": "bool", "default": "true", "hidden": true},
                })),
            ),
            (
                "1.35.4",
                items(json!({
                    "bind-address": {"kind": "ip", "default": "0.0.0.0"},
                    "gone": {"kind": "bool", "default": "false"},
                    "host": {"kind": "string", "default": "here"},
                    "new": {"kind": "string", "default": "", "deprecated": ""},
                    "old": {"kind": "int32", "default": "5"},
                    "profiling": {"kind": "bool", "default": "false"},
                })),
            ),
        ];
        let rows = merge(&releases).unwrap();
        assert_eq!(
            json!(rows),
            json!([
                {"name": "bind-address", "kind": "ip", "default": "0.0.0.0"},
                {"name": "gone", "kind": "bool", "default": "false", "since": "1.35.4", "removed": "1.35"},
                {"name": "host", "kind": "string", "default": {"1.34": {"machine": "host name"}, "1.35.4": "here"}},
                {"name": "new", "kind": "string", "default": "", "since": "1.35",
                 "deprecated": {"message": {"1.35": "from the start", "1.35.4": ""}}},
                {"name": "old", "kind": {"1.34": "int", "1.35.4": "int32"}, "default": "5",
                 "deprecated": {"since": "1.35", "until": "1.35.4", "message": "do not"}},
                {"name": "profiling", "kind": "bool", "default": {"1.34": "true", "1.35.4": "false"},
                 "hidden": {"1.34": null, "1.35": true, "1.35.4": null}},
            ])
        );
        assert_eq!(split(&rows, &["1.34.4", "1.35.1", "1.35.4"]).unwrap(), releases);
    }

    #[test]
    fn what_comes_twice_is_said_twice() {
        let has = |has: bool| if has { items(json!({"x": {"kind": "bool"}})) } else { Items::new() };
        let versions = ["3.4.23", "3.4.25", "3.5.0", "3.5.8"];
        let releases: Vec<_> = versions.into_iter().zip([false, true, false, true].map(has)).collect();
        let rows = merge(&releases).unwrap();
        assert_eq!(
            json!(rows),
            json!([{"name": "x", "kind": "bool", "since": ["3.4.25", "3.5.8"], "removed": "3.5"}])
        );
        assert_eq!(split(&rows, &versions).unwrap(), releases);
    }

    #[test]
    fn nothing_is_lost_without_a_word() {
        let releases = [("1.34.4", items(json!({"x": {"kind": "bool", "colour": "red"}})))];
        assert!(merge(&releases).unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let versions = ["3.5.10", "3.10.0", "3.5.9"].map(str::to_owned);
        assert_eq!(in_order(&versions), ["3.5.9", "3.5.10", "3.10.0"]);
    }
}
