//! Edits of a configuration file in YAML, whose reader finds keys whatever their case and lets the last of several win.
//!
//! A key that is there in another case is
//! edited as it is written; one that is there several times is refused, because somebody should decide which
//! one was meant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::DuplicateKeyPolicy;

use crate::values::{self, Values};
use crate::yaml::{self, New, Node, Step, Yaml};
use crate::{Refused, printable, text};

/// A change of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ConfigEdit")]
pub enum Edit {
    /// Takes the key away; its section too when nothing else is in it.
    Remove {
        /// The section; none for a key at the top.
        section: Option<String>,
        /// The key.
        key: String,
    },
    /// Gives the key this value, and creates key and section if need be.
    Set {
        /// The section; none for a key at the top.
        section: Option<String>,
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ConfigValue")]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A text.
    Text(String),
}

/// Returns the configuration `bytes` with the `edits` made, one after the other.
///
/// # Errors
///
/// When one of the edits cannot be made exactly: see [`edit`](super).
pub fn apply(bytes: &[u8], edits: &[Edit]) -> Result<Vec<u8>, Refused> {
    let mut current = text(bytes)?.to_owned();
    for edit in edits {
        let yaml = Yaml::parse(&current, DuplicateKeyPolicy::LastWins)?;
        if let Some(edited) = edit.apply(&yaml)? {
            current = edited;
        }
    }
    Ok(current.into_bytes())
}

/// Returns what is in a configuration file, value by value.
///
/// # Errors
///
/// When it is no YAML.
pub(crate) fn values(bytes: &[u8]) -> Result<Values, Refused> {
    let mut found = Values::new();
    for (index, document) in yaml::values(text(bytes)?, DuplicateKeyPolicy::LastWins)?.iter().enumerate() {
        values::flatten(document, &index.to_string(), &|_| false, &mut found);
    }
    // What is empty and what is not there is the same to a reader that starts from defaults.
    found.retain(|_, value| value != "{}" && value != "null");
    Ok(found.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect())
}

impl Edit {
    /// Returns the key that is changed.
    pub fn key(&self) -> &str {
        let (Self::Remove { key, .. } | Self::Set { key, .. }) = self;
        key
    }

    /// Returns the edit after which the key has the value that it `was` given.
    pub(crate) fn inverse(&self, was: &Values) -> Result<Self, Refused> {
        let (Self::Remove { section, key } | Self::Set { section, key, .. }) = self;
        let (section, key) = (section.clone(), key.clone());
        let path = section.iter().chain([&key]).map(|part| format!(".{}", part.to_ascii_lowercase()));
        let former = was.get(&format!("0{}", path.collect::<String>()));
        Ok(match former.map(|value| serde_json::from_str::<Value>(value)) {
            None => Self::Remove { section, key },
            Some(Ok(value)) => Self::Set { section, key, value },
            Some(Err(_)) => {
                return Err(Refused::because(format!("{key} was neither a text nor true or false")));
            }
        })
    }

    /// Returns the new text; `None` when nothing is to be done.
    fn apply(&self, yaml: &Yaml<'_>) -> Result<Option<String>, Refused> {
        let (Self::Remove { section, key } | Self::Set { section, key, .. }) = self;
        let root = yaml.find(&[])?;
        let section_key = match (section, root) {
            (Some(section), Some(root)) => spelled(root, section)?,
            _ => None,
        };
        let section_path: Vec<_> = section_key.iter().map(|key| Step::Key(key)).collect();
        // Where the key is to be, if its section is there.
        let parent = match (section, &section_key) {
            (Some(_), None) => None,
            _ => yaml.find(&section_path)?,
        };
        let key_there = parent.map(|parent| spelled(parent, key)).transpose()?.flatten();
        let mut path = section_path.clone();
        path.extend(key_there.iter().map(|key| Step::Key(key)));
        match self {
            Self::Remove { .. } => match (&key_there, parent) {
                (Some(_), Some(parent)) if section.is_some() && parent.entries().len() == 1 => {
                    yaml.remove(&section_path).map(Some)
                }
                (Some(_), _) => yaml.remove(&path).map(Some),
                _ => Ok(None),
            },
            Self::Set { value, section, .. } => {
                let new = match value {
                    Value::Boolean(value) => New::Boolean(*value),
                    Value::Text(text) => {
                        printable(text)?;
                        New::Text(text.clone())
                    }
                };
                match (&key_there, parent) {
                    (Some(_), _) if yaml.is(&path, &new)? => Ok(None),
                    (Some(_), _) => yaml.replace(&path, &new).map(Some),
                    (None, Some(_)) => yaml.insert_entry(&section_path, key, &new).map(Some),
                    (None, None) => {
                        let name = section.as_deref().unwrap_or_default().to_owned();
                        let section = New::Mapping(vec![(key.clone().into(), new)]);
                        yaml.insert_entry(&[], &name, &section).map(Some)
                    }
                }
            }
        }
    }
}

/// Returns `key` as it is spelled in `mapping`, if it is there.
fn spelled<'n>(mapping: &'n Node, key: &str) -> Result<Option<&'n str>, Refused> {
    let names = mapping.entries().iter().filter_map(|(name, _)| name.text());
    let mut found = names.filter(|name| name.eq_ignore_ascii_case(key));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Refused::because(format!("the key {key} is there more than once"))),
        (found, None) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(section: Option<String>, key: &str, value: Value) -> Edit {
        Edit::Set { section, key: key.into(), value }
    }

    fn edit(text: &str, edits: &[Edit]) -> Result<String, Refused> {
        apply(text.as_bytes(), edits).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn keys_are_set_where_etcd_finds_them() {
        let peer = Some("peer-transport-security".to_owned());
        let file = || set(peer.clone(), "cert-file", Value::Text("/p.crt".into()));
        let auth = || set(peer.clone(), "client-cert-auth", Value::Boolean(true));
        let cases = [
            ("name: n1\n", file(), "name: n1\npeer-transport-security:\n  cert-file: /p.crt\n"),
            ("", auth(), "peer-transport-security:\n  client-cert-auth: true\n"),
            (
                "# top\npeer-transport-security: # c\n    cert-file: ''  # d\n\nname: x\n",
                file(),
                "# top\npeer-transport-security: # c\n    cert-file: '/p.crt'  # d\n\nname: x\n",
            ),
            (
                "Peer-Transport-Security:\r\n  Client-Cert-Auth: false\r\n",
                auth(),
                "Peer-Transport-Security:\r\n  Client-Cert-Auth: true\r\n",
            ),
            (
                "peer-transport-security:\nname: x",
                auth(),
                "peer-transport-security:\n  client-cert-auth: true\nname: x",
            ),
            ("peer-transport-security: {}\n", auth(), "peer-transport-security: {client-cert-auth: true}\n"),
            (
                "peer-transport-security: {client-cert-auth: true}\n",
                auth(),
                "peer-transport-security: {client-cert-auth: true}\n",
            ),
            (
                "listen-peer-urls: http://a:2380\n",
                set(None, "listen-peer-urls", Value::Text("https://a:2380,https://b:2380".into())),
                "listen-peer-urls: \"https://a:2380,https://b:2380\"\n",
            ),
            ("a: 1\na: 2\n", auth(), "a: 1\na: 2\npeer-transport-security:\n  client-cert-auth: true\n"),
            (
                "{\"name\": \"x\"}",
                auth(),
                "{\"name\": \"x\", \"peer-transport-security\": {\"client-cert-auth\": true}}",
            ),
        ];
        for (before, change, after) in cases {
            assert_eq!(edit(before, &[change]).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn keys_are_removed_with_an_empty_section() {
        let peer = Some("peer-transport-security".to_owned());
        let remove = |key: &str| Edit::Remove { section: peer.clone(), key: key.into() };
        let cases = [
            ("name: x\npeer-transport-security:\n  auto-tls: true\n", "name: x\n"),
            (
                "peer-transport-security:\n  cert-file: x\n  AUTO-TLS: true # c\n",
                "peer-transport-security:\n  cert-file: x\n  # c\n",
            ),
            ("name: x\n", "name: x\n"),
            ("peer-transport-security:\n", "peer-transport-security:\n"),
        ];
        for (before, after) in cases {
            assert_eq!(edit(before, &[remove("auto-tls")]).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn doubtful_files_are_refused() {
        let auth = set(Some("peer-transport-security".to_owned()), "client-cert-auth", Value::Boolean(true));
        for text in [
            "peer-transport-security:\n  client-cert-auth: false\n  Client-Cert-Auth: true\n",
            "peer-transport-security: {}\nPeer-transport-security: {}\n",
            "peer-transport-security: [1]\n",
            "x: &a {b: 1}\npeer-transport-security: *a\n",
            "a: [\n",
            "- a\n",
        ] {
            assert!(edit(text, std::slice::from_ref(&auth)).is_err(), "{text}");
        }
    }
}
