//! The configuration file as etcd reads it.
//!
//! etcd turns YAML 1.1 (or JSON) into JSON and that into its structures with Go's `encoding/json`, not
//! strictly. So keys match whatever their case, the last of several wins, keys that nothing answers to are
//! ignored without a word, and a value of the wrong type is fatal. What the file does not say is said here,
//! with line and column.

use std::collections::BTreeMap;

use crate::etcd::SETTINGS;
use seaworthy_evidence::{
    Candidate, ConfigFile, ConfigFormat, ErrorKind, EvidenceError, IgnoredKey, Origin, PredictedFailure,
    Purpose,
};
use seaworthy_settings::ConfigText;

use super::flags::shown;
use super::names::{self, Shape};
use super::{Chosen, failure, values};
use crate::etcd::Version;
use crate::etcd::version::LISTS;
use crate::yaml::{Node, Value};

/// A configuration file bound to etcd's settings.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) origin: Origin,
    pub(super) file: ConfigFile,
    pub(super) values: BTreeMap<&'static str, Chosen>,
    /// Values of settings that a later key of the file replaced.
    pub(super) lost: BTreeMap<&'static str, Vec<Candidate>>,
    pub(super) ignored: Vec<Ignored>,
    /// Why etcd would exit at once with these values.
    pub(super) fatal: Vec<PredictedFailure>,
}

/// A key without effect, and the settings that somebody wanted to set with it.
#[derive(Clone, Debug)]
pub(super) struct Ignored {
    pub(super) key: IgnoredKey,
    pub(super) meant: Vec<&'static str>,
}

/// Reads `text`, the configuration file at `path`, as etcd `version` does.
pub(super) fn bind(text: &ConfigText, path: &str, version: Option<Version>) -> Result<Bound, EvidenceError> {
    let document = Document { path, origin: &text.origin };
    let content = document.text(&text.bytes)?;
    let root = document.parse(content)?;
    let mut binder = Binder {
        document,
        version,
        values: BTreeMap::new(),
        lost: BTreeMap::new(),
        ignored: vec![],
        fatal: vec![],
    };
    binder.top(root)?;
    let Binder { values, lost, ignored, fatal, .. } = binder;
    let json = path.ends_with(".json") || content.trim_start().starts_with('{');
    let file = ConfigFile {
        path: path.to_owned(),
        format: if json { ConfigFormat::Json } else { ConfigFormat::Yaml },
        changed_at: text.changed_at,
        ignored: ignored.iter().map(|ignored| ignored.key.clone()).collect(),
    };
    Ok(Bound { origin: text.origin.clone(), file, values, lost, ignored, fatal })
}

struct Document<'a> {
    path: &'a str,
    origin: &'a Origin,
}

impl Document<'_> {
    /// Returns the first YAML document in `bytes`, the only one that etcd looks at.
    fn text<'b>(&self, bytes: &'b [u8]) -> Result<&'b str, EvidenceError> {
        if bytes.len() > ConfigText::MAX {
            let message = format!("{}: larger than {} KiB", self.path, ConfigText::MAX >> 10);
            return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(self.origin.clone()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
            self.error((line, column), "a byte that is not UTF-8, so etcd cannot read the file")
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut offset = 0;
        let mut begun = false;
        for line in text.split_inclusive('\n') {
            let marker = |m: &str| {
                line.strip_prefix(m)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
            };
            if begun && (marker("---") || marker("...")) {
                return Ok(text.get(..offset).unwrap_or(text));
            }
            let blank = line.trim().is_empty() || line.trim_start().starts_with(['#', '%']);
            begun |= !blank;
            offset += line.len();
        }
        Ok(text)
    }

    fn parse(&self, text: &str) -> Result<Node, EvidenceError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Node { value: Value::Null, at: (1, 1) });
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: 50_000,
                // Three are enough for etcd, and each costs stack.
                max_depth: 16,
                max_events: 200_000,
                max_documents: 2,
            },
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
            legacy_octal_numbers: true,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
            with_snippet: false,
        };
        let root: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let at = error.location().map_or((1, 1), |l| (l.line() as usize, l.column() as usize));
            // The library's message may quote the file, which may hold a password.
            let text = error.to_string();
            let message = match ["budget", "limit", "depth"].iter().any(|word| text.contains(word)) {
                true => "too many or too deeply nested nodes",
                false => "a syntax error, so etcd cannot read the file",
            };
            self.error(at, message)
        })?;
        match root.unusable_key() {
            Some(at) => Err(self.error(at, "a key that is no text, so etcd cannot read the file")),
            None => Ok(root),
        }
    }

    fn error(&self, at: (usize, usize), message: &str) -> EvidenceError {
        let (line, column) = (number(at.0), number(at.1));
        let message = format!("{}:{line}:{column}: {message}", self.path);
        EvidenceError::new(ErrorKind::Malformed, message).at(self.origin.clone().at(line, column))
    }

    /// Returns the error for a value that etcd refuses to start with.
    fn refused(&self, node: &Node, key: &str, wanted: &str) -> EvidenceError {
        let message = format!(
            "{} is {} where etcd wants {wanted}; it refuses to start with this file",
            shown(key),
            node.value.kind()
        );
        self.error(node.at, &message)
    }
}

/// One key of a mapping, with its value.
struct Entry {
    key: String,
    at: (usize, usize),
    node: Node,
}

struct Binder<'a> {
    document: Document<'a>,
    version: Option<Version>,
    values: BTreeMap<&'static str, Chosen>,
    lost: BTreeMap<&'static str, Vec<Candidate>>,
    ignored: Vec<Ignored>,
    fatal: Vec<PredictedFailure>,
}

impl Binder<'_> {
    fn top(&mut self, root: Node) -> Result<(), EvidenceError> {
        for entry in self.entries(root, "", "a mapping")? {
            let key = fold(&entry.key);
            match key.as_str() {
                "peer-transport-security" => self.section(Purpose::Peer, entry)?,
                "client-transport-security" => self.section(Purpose::Client, entry)?,
                "peertlsinfo" => self.structure(Purpose::Peer, entry)?,
                "clienttlsinfo" => self.structure(Purpose::Client, entry)?,
                "peerautotls" => self.overwritten(entry, "", "peer-auto-tls"),
                "clientautotls" => self.overwritten(entry, "", "auto-tls"),
                _ if URL_FIELDS.contains(&key.as_str()) => {
                    if matches!(&entry.node.value, Value::List(items) if !items.is_empty()) {
                        let name = shown(&entry.key);
                        let message =
                            format!("{name} sets URLs by the name of etcd's Go field, which is not read");
                        let mut error = self.document.error(entry.at, &message);
                        error.kind = ErrorKind::Unsupported;
                        return Err(error);
                    }
                }
                _ if names::defines_key(&key, self.version) => {
                    let shape = names::shapes(&key, self.version).first().copied().unwrap_or(Shape::Any);
                    let value = self.value(&entry.node, &entry.key, shape)?;
                    if let (Shape::Text, Some(value)) = (shape, &value)
                        && let Some(message) = values::refusal(&key, value, self.version)
                    {
                        let origin = self.document.origin.clone();
                        let origin = origin.at(number(entry.at.0), number(entry.at.1));
                        self.fatal.push(failure(&key, message, &origin));
                    }
                    if let (Some(value), Some(name)) = (value, SETTINGS.iter().find(|name| **name == key)) {
                        self.set(name, value, entry.at);
                    }
                }
                _ => self.ignore(None, entry),
            }
        }
        Ok(())
    }

    /// Binds `peer-transport-security` or `client-transport-security`.
    fn section(&mut self, side: Purpose, entry: Entry) -> Result<(), EvidenceError> {
        // From 3.6 on a second look at the file wants the section to be a mapping, when it is spelt exactly
        // so.
        let strict = self.version.is_some_and(|v| v.line() >= 6);
        if strict && entry.key == "peer-transport-security" && matches!(entry.node.value, Value::Null) {
            return Err(self.document.refused(&entry.node, &entry.key, "a mapping"));
        }
        for entry in self.entries(entry.node, &entry.key, "a mapping")? {
            let key = fold(&entry.key);
            let shapes = names::shapes(&join(section_name(side), &key), self.version);
            let shape = match (shapes.as_slice(), &entry.node.value) {
                ([_, Shape::Text], Value::Text(_)) => Shape::Text,
                ([shape, ..], _) => *shape,
                ([], _) => {
                    self.ignore(Some(side), entry);
                    continue;
                }
            };
            let value = self.value(&entry.node, &entry.key, shape)?;
            if let (Some(value), Some(name)) = (value, section_setting(side, &key)) {
                self.set(name, value, entry.at);
            }
        }
        Ok(())
    }

    /// Binds `PeerTLSInfo` or `ClientTLSInfo`, Go structures that are no documented part of the file but
    /// answer to their names. etcd then overwrites most of their fields with the sections, be they there or
    /// not.
    fn structure(&mut self, side: Purpose, entry: Entry) -> Result<(), EvidenceError> {
        let structure = entry.key.clone();
        let since = |release: &[(u32, u32)]| self.version.is_some_and(|v| v.reached(release));
        let (lists, skip) = (since(LISTS), since(&[(6, 0)]));
        for entry in self.entries(entry.node, &structure, "a mapping")? {
            let side_is_peer = side == Purpose::Peer;
            let pick = |peer, client| Some(if side_is_peer { peer } else { client });
            let (setting, shape) = match fold(&entry.key).as_str() {
                "crlfile" => (pick("peer-crl-file", "client-crl-file"), Shape::Text),
                "allowedcn" => (side_is_peer.then_some("peer-cert-allowed-cn"), Shape::Text),
                "allowedhostname" => {
                    (pick("peer-cert-allowed-hostname", "client-cert-allowed-hostname"), Shape::Text)
                }
                "skipclientsanverify" if !skip => {
                    let name = "experimental-peer-skip-client-san-verification";
                    (side_is_peer.then_some(name), Shape::Bool)
                }
                "emptycn" | "insecureskipverify" => (None, Shape::Bool),
                "localaddr" | "servername" => (None, Shape::Text),
                "ciphersuites" | "handshakefailure" | "logger" | "maxversion" | "minversion" => {
                    (None, Shape::Any)
                }
                "allowedcns" if lists && side_is_peer => {
                    self.overwritten(entry, &structure, "peer-cert-allowed-cn");
                    continue;
                }
                "allowedhostnames" if lists => {
                    let name = pick("peer-cert-allowed-hostname", "client-cert-allowed-hostname");
                    self.overwritten(entry, &structure, name.unwrap_or_default());
                    continue;
                }
                "skipclientsanverify" if side_is_peer => {
                    self.overwritten(entry, &structure, "peer-skip-client-san-verification");
                    continue;
                }
                key => {
                    // A field that a key of the section is copied to has its name but for dashes.
                    let leaf = names::keys_of(section_name(side)).find(|leaf| leaf.replace('-', "") == key);
                    let is_field = !names::shapes(&join(&fold(&structure), key), self.version).is_empty();
                    match leaf.filter(|_| is_field).and_then(|leaf| section_setting(side, leaf)) {
                        Some(name) => self.overwritten(entry, &structure, name),
                        None => self.ignore_at(&structure, entry, None, Vec::new()),
                    }
                    continue;
                }
            };
            let value = self.value(&entry.node, &entry.key, shape)?;
            if let (Some(value), Some(name)) = (value, setting) {
                self.set(name, value, entry.at);
            }
        }
        Ok(())
    }

    /// Returns the entries of the mapping `node` in the order in which etcd binds them: the last of those
    /// with the same key, sorted by key, for they pass through a Go map and `encoding/json`.
    fn entries(&mut self, node: Node, key: &str, wanted: &str) -> Result<Vec<Entry>, EvidenceError> {
        let map = match node.value {
            Value::Null => return Ok(Vec::new()),
            Value::Map(map) => map,
            _ => {
                return Err(self.document.refused(
                    &node,
                    if key.is_empty() { "the file" } else { key },
                    wanted,
                ));
            }
        };
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, node) in map {
            let at = name.at;
            let Some(text) = name.value.key() else { continue };
            if let Some(before) = entries.insert(text.clone(), Entry { key: text, at, node }) {
                let reason = format!("the same key stands again at line {}, and the last one wins", at.0);
                let path = join(key, &before.key);
                self.push(path, reason, None, before.at, Vec::new());
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Returns the value of `node` as text; `None` for null, which changes nothing.
    fn value(&self, node: &Node, key: &str, shape: Shape) -> Result<Option<String>, EvidenceError> {
        let refused = |wanted| Err(self.document.refused(node, key, wanted));
        Ok(match (shape, &node.value) {
            (Shape::Any, _) | (_, Value::Null) => None,
            (Shape::Bool, Value::Bool(on)) => Some(on.to_string()),
            (Shape::Bool, _) => return refused("true or false without quotes"),
            (Shape::Int, Value::Integer(n)) => Some(n.to_string()),
            (Shape::Int, _) => return refused("an integer"),
            (Shape::Uint, Value::Integer(n)) if *n >= 0 => Some(n.to_string()),
            (Shape::Uint, _) => return refused("a positive integer"),
            (Shape::Text, Value::Text(text)) => Some(text.clone()),
            (Shape::Text, _) => return refused("a string"),
            (Shape::List, Value::List(items)) => {
                let mut texts = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Text(text) => texts.push(text.as_str()),
                        Value::Null => texts.push(""),
                        _ => return Err(self.document.refused(item, key, "a list of strings")),
                    }
                }
                Some(texts.join(","))
            }
            (Shape::List, _) => return refused("a list of strings"),
        })
    }

    fn set(&mut self, name: &'static str, value: String, at: (usize, usize)) {
        let origin = self.document.origin.clone().at(number(at.0), number(at.1));
        let why = "set in the configuration file".to_owned();
        if let Some(before) = self.values.insert(name, Chosen { value, origin, why }) {
            let reason = format!("the key at line {} is bound after it", at.0);
            let candidate = Candidate { value: before.value, origin: before.origin, reason };
            self.lost.entry(name).or_default().insert(0, candidate);
        }
    }

    /// Reports a field that etcd overwrites with the section that sets `name`.
    fn overwritten(&mut self, entry: Entry, structure: &str, name: &'static str) {
        let suggestion = place(name, self.version);
        let reason = "etcd overwrites it with the transport security section".to_owned();
        self.push(join(structure, &entry.key), reason, suggestion, entry.at, vec![name]);
    }

    /// Reports a key that nothing answers to.
    fn ignore(&mut self, side: Option<Purpose>, entry: Entry) {
        if self.ignored.len() >= MAX_IGNORED {
            return; // before looking for what was meant, which takes time
        }
        let (suggestion, meant) = suggest(side, &fold(&entry.key), self.version);
        let section = side.map_or("", section_name);
        self.ignore_at(section, entry, suggestion, meant);
    }

    fn ignore_at(
        &mut self,
        section: &str,
        entry: Entry,
        suggestion: Option<String>,
        meant: Vec<&'static str>,
    ) {
        let release = Version::name(self.version);
        let reason = match section.is_empty() && names::defines_key(&fold(&entry.key), None) {
            true => format!("{release} does not know it"),
            false => format!("{release} does not know it there"),
        };
        self.push(join(section, &entry.key), reason, suggestion, entry.at, meant);
    }

    fn push(
        &mut self,
        key: String,
        reason: String,
        suggestion: Option<String>,
        at: (usize, usize),
        meant: Vec<&'static str>,
    ) {
        if self.ignored.len() >= MAX_IGNORED {
            return;
        }
        let about_security = about_security(&key) || suggestion.as_deref().is_some_and(about_security);
        let origin = self.document.origin.clone().at(number(at.0), number(at.1));
        let key = IgnoredKey { key: shown(&key), reason, suggestion, about_security, origin };
        self.ignored.push(Ignored { key, meant });
    }
}

/// Returns the file's path of the setting `name` in `version`; `None` when the file cannot set it.
fn place(name: &str, version: Option<Version>) -> Option<String> {
    let lists = version.is_none_or(|v| v.reached(LISTS));
    match name {
        "peer-crl-file" => return Some("PeerTLSInfo.CRLFile".to_owned()),
        "client-crl-file" => return Some("ClientTLSInfo.CRLFile".to_owned()),
        "peer-cert-allowed-cn" if !lists => return Some("PeerTLSInfo.AllowedCN".to_owned()),
        "peer-cert-allowed-hostname" if !lists => return Some("PeerTLSInfo.AllowedHostname".to_owned()),
        "client-cert-allowed-hostname" if !lists => return Some("ClientTLSInfo.AllowedHostname".to_owned()),
        _ => {}
    }
    for side in [Purpose::Peer, Purpose::Client] {
        let section = section_name(side);
        let leaf = names::keys_of(section).find(|leaf| section_setting(side, leaf) == Some(name));
        let key = leaf.map(|leaf| join(section, leaf));
        if key.as_ref().is_some_and(|key| !names::shapes(key, version).is_empty()) {
            return key;
        }
    }
    names::defines_key(name, version).then(|| name.to_owned())
}

/// Returns whether a name looks like one about transport security.
pub(super) fn about_security(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SECURITY_WORDS.iter().any(|word| name.contains(word))
}

/// Returns where the key `key` (lower case), found in the section of `side` or at the top, probably belongs,
/// and the settings that it was meant to set.
pub(super) fn suggest(
    side: Option<Purpose>,
    key: &str,
    version: Option<Version>,
) -> (Option<String>, Vec<&'static str>) {
    let section = side.map_or("", section_name);
    let here = join(section, key);
    let key: String =
        key.chars().take(64).map(|c| if matches!(c, '_' | ' ' | '.') { '-' } else { c }).collect();
    let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| (*name).to_owned());
    let named = |name: &str| SETTINGS.iter().find(|setting| **setting == name).copied();
    let setting = match side {
        Some(side) => section_setting(side, &key).or_else(|| named(&key)),
        None => named(&key),
    };
    if let Some(name) = setting {
        return (place(name, version).filter(|place| *place != here), vec![name]);
    }
    // Otherwise the nearest spelling: in the same section, or of a whole section, or of a flag.
    let mut best: Option<(usize, String, Vec<&'static str>)> = None;
    let mut offer = |spelling: &str, place: Option<String>, meant: Vec<&'static str>| {
        let distance = distance(&key, spelling);
        let near = distance <= 2 && distance * 3 < spelling.len();
        if let (true, Some(place)) = (near && best.as_ref().is_none_or(|(d, ..)| distance < *d), place) {
            best = Some((distance, place, meant));
        }
    };
    for name in SETTINGS {
        let place = place(name, version);
        if let Some(leaf) = place.as_ref().and_then(|p| p.strip_prefix(section)?.strip_prefix('.')) {
            offer(leaf, place.clone(), vec![*name]);
        }
        offer(name, place, vec![*name]);
    }
    if side.is_none() {
        for side in [Purpose::Peer, Purpose::Client] {
            let section = section_name(side);
            let meant = names::keys_of(section).filter_map(|leaf| section_setting(side, leaf)).collect();
            offer(section, Some(section.to_owned()), meant);
        }
        for name in names::keys(version) {
            offer(name, Some(name.to_owned()), Vec::new());
        }
    }
    best.map_or((None, Vec::new()), |(_, place, meant)| (Some(place), meant))
}

/// Returns the setting that the key `leaf` of the section of `side` sets, if it is a modelled one.
fn section_setting(side: Purpose, leaf: &str) -> Option<&'static str> {
    let name = match (side, leaf) {
        (Purpose::Peer, "allowed-cn") => "peer-cert-allowed-cn".to_owned(),
        (Purpose::Peer, "allowed-hostname") => "peer-cert-allowed-hostname".to_owned(),
        (Purpose::Peer, leaf) => format!("peer-{leaf}"),
        (_, "allowed-hostname") => "client-cert-allowed-hostname".to_owned(),
        (_, "allowed-cn" | "skip-client-san-verification") => return None,
        (_, leaf) => leaf.to_owned(),
    };
    SETTINGS.iter().find(|setting| **setting == name).copied()
}

fn section_name(side: Purpose) -> &'static str {
    match side {
        Purpose::Peer => "peer-transport-security",
        _ => "client-transport-security",
    }
}

/// Returns `key` as `encoding/json` compares keys: without case, and with the two letters outside ASCII that
/// fold into it.
fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns the Levenshtein distance of two short texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            left = cost;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// How many keys without effect are reported at most.
pub(super) const MAX_IGNORED: usize = 200;

/// Go fields of etcd's configuration that hold URLs as structures, in lower case.
const URL_FIELDS: &[&str] = &[
    "acurls",
    "advertiseclienturls",
    "advertisepeerurls",
    "apurls",
    "lcurls",
    "listenclienthttpurls",
    "listenclienturls",
    "listenmetricsurls",
    "listenpeerurls",
    "lpurls",
];

/// Names that no etcd since 3.4 has, and that its documentation and published remediations name all the same.
const ALIASES: &[(&str, &str)] = &[
    ("ca-file", "trusted-ca-file"),
    ("peer-ca-file", "peer-trusted-ca-file"),
    ("peer-client-file", "peer-cert-file"),
];

/// Words that make somebody who wrote a key believe in a protection.
const SECURITY_WORDS: &[&str] = &[
    "-urls",
    "allowed",
    "auth",
    "ca-file",
    "cafile",
    "cert",
    "cipher",
    "crl",
    "https",
    "key-file",
    "keyfile",
    "san-verif",
    "security",
    "tls",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        for (a, b, want) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
