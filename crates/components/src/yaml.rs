//! YAML of any shape, each node with its place, and the configuration files of Kubernetes' components that are written in it.

use std::fmt;

use seaworthy_evidence::{ErrorKind, EvidenceError, IgnoredKey, Origin};
use seaworthy_settings::ConfigText;
use seaworthy_settings::pflag::Table;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::configuration::{first_document, utf8};

/// A YAML node and where it stands: 1-based line and column.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: (usize, usize),
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    Bool(bool),
    Float(f64),
    Integer(i128),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Null,
    Text(String),
}

impl Node {
    /// Returns where a key stands, here or below, that Go cannot turn into text.
    pub(crate) fn unusable_key(&self) -> Option<(usize, usize)> {
        match &self.value {
            Value::List(items) => items.iter().find_map(Self::unusable_key),
            Value::Map(entries) => entries.iter().find_map(|(key, value)| match key.value {
                Value::List(_) | Value::Map(_) | Value::Null => Some(key.at),
                _ => value.unusable_key(),
            }),
            _ => None,
        }
    }
}

impl Value {
    /// Returns what it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Float(_) | Self::Integer(_) => "a number",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Null => "nothing",
            Self::Text(_) => "a string",
        }
    }

    /// Returns the value as the key of a mapping; Go refuses those that have no text.
    pub(crate) fn key(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bool(on) => Some(on.to_string()),
            Self::Integer(n) => Some(n.to_string()),
            Self::Float(n) => Some(n.to_string()),
            Self::List(_) | Self::Map(_) | Self::Null => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        let at = (referenced.line() as usize, referenced.column() as usize);
        Ok(Self { value, at })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
                Ok(Value::Bool(on))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
                Ok(Value::Integer(n.into()))
            }

            fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
                Ok(Value::Integer(n.into()))
            }

            fn visit_i128<E>(self, n: i128) -> Result<Value, E> {
                Ok(Value::Integer(n))
            }

            fn visit_u128<E>(self, n: u128) -> Result<Value, E> {
                Ok(i128::try_from(n).map_or(Value::Float(n as f64), Value::Integer))
            }

            fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
                // Go writes a whole float as an integer, which then fits an integer field.
                let whole = n.fract() == 0.0 && n.abs() < 1e18;
                Ok(if whole { Value::Integer(n as i128) } else { Value::Float(n) })
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries: Vec<(Node, Node)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<Node, Node>()? {
                    entries.push((key, value));
                }
                Ok(Value::Map(entries))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

/// How many keys without effect are reported at most.
const MAX_IGNORED: usize = 200;

/// Words that make somebody who wrote a key believe in a protection.
const SECURITY: [&str; 11] =
    ["anonym", "auth", "bind", "cert", "cipher", "clientca", "port", "profil", "rotate", "seccomp", "tls"];

/// A configuration file of a component of Kubernetes.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its path as the process sees it.
    pub(crate) path: String,
    /// The file.
    pub(crate) origin: Origin,
    root: Node,
}

/// What a file says of a field.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// The value as text; `None` where it is null.
    pub(crate) value: Option<String>,
    /// Where it stands.
    pub(crate) origin: Origin,
}

impl Document {
    /// Returns the first document of the file at `path`, which is a `kind`. Of a key that is there twice the last counts.
    ///
    /// # Errors
    ///
    /// When it is no YAML, too large, or another kind.
    pub(crate) fn parse(path: &str, text: &ConfigText, kind: &str) -> Result<Self, EvidenceError> {
        let content = first_document(utf8(path, text)?);
        let options = serde_saphyr::options! {
            // Six are enough for any of them, and each costs stack.
            budget: serde_saphyr::budget! { max_nodes: 50_000, max_depth: 16, max_events: 200_000 },
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
            legacy_octal_numbers: true,
            with_snippet: false,
        };
        let wrong = |at: (u64, u64), what: &str| {
            let [line, column] = [at.0, at.1].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
            let message = format!("{path}:{line}:{column}: {what}");
            EvidenceError::new(ErrorKind::Malformed, message).at(text.origin.clone().at(line, column))
        };
        // The library's message may quote the file.
        let root: Node = serde_saphyr::from_str_with_options(content, options).map_err(|error| {
            let at = error.location().map_or((1, 1), |place| (place.line(), place.column()));
            wrong(at, &format!("this is no {kind} that could be read"))
        })?;
        let document = Self { path: path.to_owned(), origin: text.origin.clone(), root };
        if !matches!(document.root.value, Value::Map(_)) {
            return Err(wrong((1, 1), &format!("this is no {kind}")));
        }
        match document.get("kind", "string")? {
            Some(Said { value: Some(other), .. }) if other != kind => {
                Err(wrong((1, 1), &format!("this is another kind than {kind}")))
            }
            _ => Ok(document),
        }
    }

    /// Returns what it says of `field`, the path of which is separated by dots, and which holds a value of this `kind`. A part of
    /// the path that is null says null of what is below it.
    ///
    /// # Errors
    ///
    /// When another kind of value stands there.
    pub(crate) fn get(&self, field: &str, kind: &str) -> Result<Option<Said>, EvidenceError> {
        let mut node = &self.root;
        for part in field.split('.') {
            let entries = match &node.value {
                Value::Map(entries) => entries,
                Value::Null => break,
                _ => return Err(self.refused(node, field)),
            };
            let of_part = |(key, _): &&(Node, Node)| matches!(&key.value, Value::Text(text) if text == part);
            match entries.iter().rev().find(of_part) {
                Some((_, value)) => node = value,
                None => return Ok(None),
            }
        }
        let scalar = |value: &Value| match (kind, value) {
            ("bool" | "list" | "other", Value::Bool(on)) => Some(on.to_string()),
            // As YAML 1.1 has it.
            ("bool", Value::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => Some("true".to_owned()),
                "no" | "off" | "n" => Some("false".to_owned()),
                _ => None,
            },
            ("int", Value::Integer(number)) => Some(number.to_string()),
            ("string" | "duration" | "list", Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let value = match &node.value {
            Value::Null => None,
            Value::List(items) if kind == "list" => {
                let items = items.iter().map(|item| scalar(&item.value)).collect::<Option<Vec<_>>>();
                Some(items.ok_or_else(|| self.refused(node, field))?.join(","))
            }
            Value::Map(entries) if kind == "other" => {
                let entry = |(key, value): &(Node, Node)| match &key.value {
                    Value::Text(key) => Some(format!("{key}={}", scalar(&value.value)?)),
                    _ => None,
                };
                let entries = entries.iter().map(entry).collect::<Option<Vec<_>>>();
                Some(entries.ok_or_else(|| self.refused(node, field))?.join(","))
            }
            _ if kind == "list" => return Err(self.refused(node, field)),
            value => Some(scalar(value).ok_or_else(|| self.refused(node, field))?),
        };
        Ok(Some(Said { value, origin: self.at(node) }))
    }

    /// Returns the keys that `table` knows no field for. A file that is no good strictly is read leniently, so they have no effect.
    pub(crate) fn ignored(&self, table: &Table) -> Vec<IgnoredKey> {
        let mut found = Vec::new();
        self.look_for_ignored(&self.root, "", table, &mut found);
        found
    }

    fn look_for_ignored(&self, node: &Node, prefix: &str, table: &Table, found: &mut Vec<IgnoredKey>) {
        let Value::Map(entries) = &node.value else { return };
        for (key, value) in entries {
            let Value::Text(name) = &key.value else { continue };
            let path = format!("{prefix}{name}");
            match table.fields.iter().find(|field| field.name == path) {
                Some(field) if field.kind == "section" => {
                    self.look_for_ignored(value, &format!("{path}."), table, found);
                }
                Some(_) => {}
                None if matches!(path.as_str(), "apiVersion" | "kind") || found.len() >= MAX_IGNORED => {}
                None => {
                    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
                    let mut fields = table.fields.iter().filter(|field| field.kind != "section");
                    let meant = fields.find(|field| last(field.name) == last(&path));
                    let lower = path.to_ascii_lowercase();
                    let shown: String = path.chars().take(64).collect();
                    found.push(IgnoredKey {
                        key: shown,
                        reason: format!("{} knows no such field, and reads on", table.component),
                        suggestion: meant.map(|field| field.name.to_owned()),
                        about_security: meant.is_some() || SECURITY.iter().any(|word| lower.contains(word)),
                        origin: self.at(key),
                    });
                }
            }
        }
    }

    fn at(&self, node: &Node) -> Origin {
        let [line, column] = [node.at.0, node.at.1].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        // Line 0 means that it is not known.
        if line == 0 { self.origin.clone() } else { self.origin.clone().at(line, column) }
    }

    /// Returns the error for a value that the component cannot take. The value is not told.
    fn refused(&self, node: &Node, field: &str) -> EvidenceError {
        let origin = self.at(node);
        let message = format!("{origin}: {} where {field} takes something else", node.value.kind());
        EvidenceError::new(ErrorKind::Malformed, message).at(origin)
    }
}
