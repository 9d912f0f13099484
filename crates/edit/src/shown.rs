//! What of a file may be shown in a diff: what is known to hold no secret, written as it is meant and in one word. Everything else
//! is hidden, comments too, because nobody knows what people keep in them.

use std::ops::Range;

use seaworthy_components::{self as components, etcd};
use seaworthy_evidence::without_userinfo;

use crate::yaml::{Node, Shape, Yaml};
use crate::{Content, environment, manifest, unit};

const HIDDEN: &str = "<hidden>";

/// Keys of a pod whose values hold no secret, wherever they are.
const OF_A_POD: &[&str] = &[
    "apiVersion",
    "component",
    "containerPort",
    "cpu",
    "dnsPolicy",
    "failureThreshold",
    "fieldPath",
    "host",
    "hostNetwork",
    "hostPort",
    "image",
    "imagePullPolicy",
    "initialDelaySeconds",
    "kind",
    "memory",
    "mountPath",
    "mountPropagation",
    "name",
    "namespace",
    "path",
    "periodSeconds",
    "port",
    "priority",
    "priorityClassName",
    "protocol",
    "readOnly",
    "restartPolicy",
    "scheme",
    "subPath",
    "successThreshold",
    "terminationGracePeriodSeconds",
    "tier",
    "timeoutSeconds",
    "type",
];

/// Ends of the names of settings whose value does not follow as a word of its own: they are switched on by their name.
const SWITCHES: [&str; 3] = ["auto-tls", "cert-auth", "san-verification"];
/// What stands around words, and is shown wherever it is.
const AROUND: &[char] = &['-', '#', ';', ':', ',', '[', ']', '{', '}', '"', '\'', '\\'];

/// Returns a text of which only what may be shown is left, in as many lines as before; `None` when nothing can be told of it.
pub(crate) fn shown(text: &str, content: Content) -> Option<String> {
    let visible: Vec<Range<usize>> = match content {
        Content::Config => of_config(&Yaml::parse(text, serde_saphyr::DuplicateKeyPolicy::LastWins).ok()?),
        Content::Environment => of_environment(text),
        Content::Manifest => of_pod(&manifest::parse(text).ok()?),
        Content::Secret => return None,
        Content::Text => return Some(text.split_inclusive('\n').map(without_userinfo).collect()),
        Content::Unit => of_unit(text),
    };
    // Every line by itself: a URL ends with it.
    Some(masked(text, visible).split_inclusive('\n').map(without_userinfo).collect())
}

/// Returns whether the values of a setting are kept as evidence, so that they hold no secret, of whatever component it is.
fn is_setting(name: &str) -> bool {
    components::ALL.iter().any(|component| component.settings.contains(&name))
}

fn is_variable(name: &str) -> bool {
    let setting = || name.strip_prefix("ETCD_").map(|rest| rest.to_ascii_lowercase().replace('_', "-"));
    seaworthy_settings::may_be_shown(name.as_bytes())
        && (name.starts_with("SSL_CERT_") || setting().is_some_and(|name| is_setting(&name)))
}

/// Returns whether a text means what it says in every notation, and is one word.
fn is_word(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\'))
}

/// Returns the word that is written `raw`, between quotes or without, and where it begins there.
fn word(raw: &str) -> Option<(usize, &str)> {
    let inner = ['"', '\''].iter().find_map(|quote| raw.strip_prefix(*quote)?.strip_suffix(*quote));
    let text = inner.unwrap_or(raw);
    is_word(text).then_some((usize::from(inner.is_some()), text))
}

/// Returns where the word is that a scalar is, if it says in its own notation what it says in any.
fn scalar<'y>(yaml: &'y Yaml<'_>, node: &Node) -> Option<(usize, &'y str)> {
    let (from, text) = word(yaml.text().get(node.span.clone())?)?;
    (node.text() == Some(text)).then_some((node.span.start + from, text))
}

/// Adds a scalar that is one word to what is visible.
fn show(yaml: &Yaml<'_>, node: &Node, visible: &mut Vec<Range<usize>>) {
    visible.extend(scalar(yaml, node).map(|(from, text)| from..from + text.len()));
}

/// Finds what may be seen of a pod.
fn of_pod(yaml: &Yaml<'_>) -> Vec<Range<usize>> {
    fn visit(yaml: &Yaml<'_>, node: &Node, key: &str, visible: &mut Vec<Range<usize>>) {
        match &node.shape {
            Shape::Mapping { entries, .. } => {
                let is_shown = node.get("name").and_then(Node::text).is_some_and(is_variable);
                for (name, value) in entries {
                    show(yaml, name, visible);
                    match name.text() {
                        Some("value") if is_shown => show(yaml, value, visible),
                        Some("command") => of_arguments(yaml, value, Words::default(), visible),
                        Some("args") => of_arguments(yaml, value, Words::Flag, visible),
                        name => visit(yaml, value, name.unwrap_or_default(), visible),
                    }
                }
            }
            Shape::Sequence { items, .. } => items.iter().for_each(|item| visit(yaml, item, key, visible)),
            // What follows the path of a URL may be a token.
            Shape::Scalar { .. } if OF_A_POD.contains(&key) => visible.extend(
                scalar(yaml, node)
                    .map(|(from, text)| from..from + text.find('?').map_or(text.len(), |mark| mark + 1)),
            ),
            Shape::Alias | Shape::Scalar { .. } => {}
        }
    }
    let mut visible = Vec::new();
    visit(yaml, yaml.root(), "", &mut visible);
    visible
}

/// Finds what may be seen of a command line that is a sequence.
fn of_arguments(yaml: &Yaml<'_>, node: &Node, mut words: Words, visible: &mut Vec<Range<usize>>) {
    node.items().iter().for_each(|item| words.see(scalar(yaml, item), visible));
}

/// Finds what may be seen of a configuration file.
fn of_config(yaml: &Yaml<'_>) -> Vec<Range<usize>> {
    let mut visible = Vec::new();
    for (name, value) in yaml.root().entries() {
        show(yaml, name, &mut visible);
        let prefix = match name.text() {
            Some("client-transport-security") => "",
            Some("peer-transport-security") => "peer-",
            Some(name) if is_setting(name) => {
                show(yaml, value, &mut visible);
                continue;
            }
            _ => continue,
        };
        for (name, value) in value.entries() {
            show(yaml, name, &mut visible);
            if name.text().is_some_and(|name| is_setting(&format!("{prefix}{name}"))) {
                show(yaml, value, &mut visible);
            }
        }
    }
    visible
}

/// Finds what may be seen of variables: their names, and the values of some.
fn of_environment(text: &str) -> Vec<Range<usize>> {
    let mut visible = Vec::new();
    for variable in environment::assignments(text) {
        visible.push(variable.lines.start..variable.raw.start);
        let raw = text.get(variable.raw.clone()).unwrap_or_default();
        if let Some((from, word)) = word(raw.trim()).filter(|_| is_variable(&variable.name)) {
            let from = variable.raw.start + raw.len() - raw.trim_start().len() + from;
            visible.push(from..from + word.len());
        }
    }
    visible
}

/// Finds what may be seen of a unit: its sections, its keys, and of its command lines what may be seen of those.
fn of_unit(text: &str) -> Vec<Range<usize>> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let mut visible = Vec::new();
    for (start, line) in unit::logical_lines(text) {
        let section = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(section) = section.filter(|section| is_name(section)) {
            visible.push(start + 1..start + 1 + section.len());
        }
        let Some((key, value)) = line.split_once('=').filter(|(key, _)| is_name(key.trim())) else {
            continue;
        };
        let value_at = start + key.len() + 1;
        visible.push(start..value_at);
        if !key.starts_with("Exec") {
            continue;
        }
        let mut words = Words::default();
        for range in unit::words(value) {
            let word = value.get(range.clone()).and_then(word);
            words.see(word.map(|(from, text)| (value_at + range.start + from, text)), &mut visible);
        }
    }
    visible
}

/// What a word of a command line is, by the one before it.
#[derive(Clone, Copy, Default)]
enum Words {
    /// The program.
    #[default]
    Program,
    /// A flag, or something unknown.
    Flag,
    /// The value of a setting that may be shown, unless it is a flag.
    Value,
    /// The value of a flag that is not known, or another flag.
    Unknown,
}

impl Words {
    /// Adds what may be shown of the next word, which begins there, to what is visible; nothing of one that is no plain word.
    fn see(&mut self, word: Option<(usize, &str)>, visible: &mut Vec<Range<usize>>) {
        match word {
            Some((at, text)) => visible.push(at..at + self.next(text)),
            None => *self = Self::Flag,
        }
    }

    /// Returns how much of the next word may be shown.
    fn next(&mut self, word: &str) -> usize {
        let before = std::mem::replace(self, Self::Flag);
        if matches!(before, Self::Program) {
            let path = word.trim_start_matches(unit::PREFIXES);
            return if path.contains(['=', ':', '?']) { 0 } else { word.len() };
        }
        let Some(flag) = word.strip_prefix('-') else {
            return if matches!(before, Self::Value) { word.len() } else { 0 };
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if is_setting(name) {
            // Of other components many are switched on by their name.
            let takes_a_word =
                etcd::SETTINGS.contains(&name) && !SWITCHES.iter().any(|end| name.ends_with(end));
            if value.is_none() && takes_a_word {
                *self = Self::Value;
            }
            return word.len();
        }
        // A word with one dash may be a flag and its value in one, and behind an unknown flag any word may be its value.
        let is_name =
            |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if matches!(before, Self::Unknown) || !word.starts_with("--") || !is_name(name) {
            return 0;
        }
        match value {
            Some(value) => word.len() - value.len(),
            None => {
                *self = Self::Unknown;
                word.len()
            }
        }
    }
}

/// Returns `text` with everything hidden, line by line, but what is `visible` and what stands around it.
fn masked(text: &str, mut visible: Vec<Range<usize>>) -> String {
    visible.sort_by_key(|range| range.start);
    visible.push(text.len()..text.len());
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    for range in visible {
        if range.start < at {
            continue;
        }
        for line in text.get(at..range.start).unwrap_or_default().split_inclusive('\n') {
            let around = |c: char| c.is_whitespace() || AROUND.contains(&c);
            let secret = line.trim_matches(around);
            match secret.is_empty() {
                true => masked.push_str(line),
                false => {
                    let (before, after) = line.split_once(secret).unwrap_or_default();
                    masked.extend([before, HIDDEN, after]);
                }
            }
        }
        masked.push_str(text.get(range.clone()).unwrap_or_default());
        at = range.end;
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod whose container has these lines.
    fn pod(lines: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: etcd}}\nspec:\n  containers:\n  - name: etcd\n{lines}"
        )
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let pods = [
            "    command: [etcd, -phunter2, --name=m1]\n",
            "    command: [etcd, -uroot:hunter2]\n",
            "    command: [etcd, --password, -hunter2=]\n",
            "    command: [etcd, --password, --hunter2]\n",
            "    command: [etcd, --password, hunter2]\n",
            "    command: [etcd, --client-cert-auth, hunter2]\n",
            "    command: [etcd, \"--name=m1 --password=hunter2\"]\n",
            "    command: [etcd, \"--password\\u003dhunter2\"]\n",
            "    command: [etcd, \"--password=hun\\\n      ter2 hunter2\"]\n",
            "    command: [etcd, '--cert-file=/a\n      hunter2']\n",
            "    command: [PASSWORD=hunter2, etcd]\n",
            "    command: [sh, -c, etcd --password hunter2]\n",
            "    command:\n    - etcd\n    - --token: hunter2\n    - [hunter2]\n    - {a: hunter2}\n",
            "    command:\n    - etcd\n    - |\n      --name=m1\n      hunter2\n",
            "    args: [hunter2]\n    command: [etcd]\n",
            "    command: hunter2\n",
            "    livenessProbe:\n      httpGet: {path: /health?token=hunter2, port: 1}\n",
            "    livenessProbe:\n      exec: {command: [etcdctl, --user, root:hunter2]}\n",
            "    env:\n    - name: ETCD_NAME\n      value: |\n        m1\n        hunter2\n",
            "    env:\n    - name: ETCD_NAME\n      value: m1 hunter2\n",
            "    env:\n    - {name: TOKEN, value: hunter2}\n",
            "    image: &hunter2 x\n",
            "    image: !hunter2 x\n",
            "    image: x # hunter2\n",
            "    image: x\n--- {a: hunter2}\n",
        ];
        let units = [
            "[Service]\nExecStart=/etcd -phunter2 --name=m1\n",
            "[Service]\nExecStart=/etcd \"--name=m1 hunter2\"\n",
            "[Service]\nExecStart=/etcd --name=\"m1 hunter2\"\n",
            "[Service]\nExecStart=/etcd --name=m1\\x20hunter2\n",
            "[Service]\nExecStart=/etcd --name \"m1\nhunter2\n",
            "[Service]\nExecStart=/etcd \\\n  --name=m1 \\\n# hunter2\n  ; hunter2\n  --password=hunter2\n",
            "[Service]\nExecStart=PASSWORD=hunter2 etcd\n",
            "[Service]\nEnvironment=A=hunter2 \\\n[hunter2] \\\nhunter2=1\n",
            "[hunter2\n",
            "hunter2\n",
            "[Service] hunter2\n",
            "[Service]\nX=hunter2\n hunter2 hunter2 = 1\n",
        ];
        let environments = [
            "ETCD_NAME=m1 hunter2\n",
            "ETCD_NAME=m1 TOKEN=hunter2\n",
            "ETCD_NAME=\"m1\nhunter2\"\n",
            "ETCD_NAME=\"m1 hunter2\n",
            "ETCD_NAME='m1'\\\nhunter2\n",
            "ETCD_NAME=m1\\\n hunter2\n",
            "ETCD_ROOT_PASSWORD=hunter2\n",
            "export TOKEN=hunter2\n",
            "; hunter2\n# ETCD_NAME=hunter2\nhunter2\n",
        ];
        let configs = [
            "name: m1 hunter2\n",
            "name: \"m1\\u0020hunter2\"\n",
            "name: [hunter2]\n",
            "name: {cert-file: hunter2}\n",
            "peer-transport-security: hunter2\n",
            "peer-transport-security: {password: hunter2, cert-file: a}\n",
            "{\"name\": \"m1\", \"token\": \"hunter2\"}\n",
            "name: m1\n# hunter2\n",
            "- hunter2\n",
            "hunter2",
        ];
        let all = pods
            .iter()
            .map(|lines| (pod(lines), Content::Manifest))
            .chain(units.iter().map(|text| ((*text).to_owned(), Content::Unit)))
            .chain(environments.iter().map(|text| ((*text).to_owned(), Content::Environment)))
            .chain(configs.iter().map(|text| ((*text).to_owned(), Content::Config)));
        for (text, content) in all {
            let Some(shown) = shown(&text, content) else { continue };
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
            assert_eq!(shown.matches('\n').count(), text.matches('\n').count(), "{text}\n{shown}");
        }
    }

    #[test]
    fn what_holds_no_secret_is_shown() {
        let whole = [
            (pod("    command: [etcd, --name=m1, '--data-dir', /a, --client-cert-auth, --snapshot-count=<hidden>]\n"), Content::Manifest),
            (pod("    env:\n    - {name: ETCD_NAME, value: \"m1\"}\n    image: a/b:1@sha256:c\n"), Content::Manifest),
            ("[Service]\nExecStart=-/usr/bin/etcd \\\n  --name m1 '--data-dir=/a' \\\n  --logger <hidden>\n".to_owned(), Content::Unit),
            ("ETCD_NAME=m1\nexport ETCD_DATA_DIR=\"/a\"\nX=<hidden>\n".to_owned(), Content::Environment),
            ("name: m1\ndata-dir: \"/a\"\npeer-transport-security:\n  cert-file: /b\n".to_owned(), Content::Config),
            ("{\"name\": \"m1\", \"listen-peer-urls\": \"https://[::1]:2380\"}\n".to_owned(), Content::Config),
        ];
        for (text, content) in whole {
            assert_eq!(shown(&text, content).as_deref(), Some(&*text));
        }
    }
}
