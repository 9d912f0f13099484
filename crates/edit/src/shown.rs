//! What of a file may be shown in a diff: values that are known to hold no secret. Others are hidden, comments too, because nobody
//! knows what people keep in them. A secret in a form that is not known here, such as a word like `-pSECRET`, is not recognised.

use std::ops::Range;

use seaworthy_evidence::{SETTINGS, without_userinfo};

use crate::yaml::{Node, Shape, Yaml};
use crate::{Content, environment, manifest};

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

/// Returns a text of which only what may be shown is left, in as many lines as before; `None` when nothing can be told of it.
pub(crate) fn shown(text: &str, content: Content) -> Option<String> {
    let hidden = match content {
        Content::Config => {
            of_yaml(&Yaml::parse(text, serde_saphyr::DuplicateKeyPolicy::LastWins).ok()?, of_config)
        }
        Content::Environment => of_environment(text),
        Content::Manifest => of_yaml(&manifest::parse(text).ok()?, of_pod),
        Content::Secret => return None,
        Content::Text => Vec::new(),
        Content::Unit => of_unit(text),
    };
    // Every line by itself: a URL ends with it.
    Some(hide(text, hidden).split_inclusive('\n').map(without_userinfo).collect())
}

/// Returns whether the values of a setting are kept as evidence, so that they hold no secret.
fn is_setting(name: &str) -> bool {
    SETTINGS.contains(&name)
}

fn is_variable(name: &str) -> bool {
    let setting = || name.strip_prefix("ETCD_").map(|rest| rest.to_ascii_lowercase().replace('_', "-"));
    seaworthy_collect::may_be_shown(name.as_bytes())
        && (name.starts_with("SSL_CERT_") || setting().is_some_and(|name| is_setting(&name)))
}

/// Returns where the comments of a YAML text are, what `look` finds in its first document, and what follows that.
fn of_yaml(yaml: &Yaml<'_>, look: impl Fn(&Yaml<'_>, &mut Vec<Range<usize>>)) -> Vec<Range<usize>> {
    let mut hidden: Vec<Range<usize>> = yaml.comments().to_vec();
    look(yaml, &mut hidden);
    let (end, all) = (yaml.root().extent().end, yaml.text().trim_end().len());
    hidden.extend((end < all).then_some(end..all));
    hidden
}

/// Finds the values in a pod that may be secrets.
fn of_pod(yaml: &Yaml<'_>, hidden: &mut Vec<Range<usize>>) {
    fn visit(yaml: &Yaml<'_>, node: &Node, key: &str, hidden: &mut Vec<Range<usize>>) {
        match &node.shape {
            Shape::Mapping { entries, .. } => {
                let is_shown = |node: &Node| node.get("name").and_then(Node::text).is_some_and(is_variable);
                for (name, value) in entries {
                    match name.text() {
                        Some("value") if is_shown(node) => {}
                        Some("args" | "command") => of_arguments(yaml.text(), value, hidden),
                        name => visit(yaml, value, name.unwrap_or_default(), hidden),
                    }
                }
            }
            Shape::Sequence { items, .. } => items.iter().for_each(|item| visit(yaml, item, key, hidden)),
            Shape::Alias => {}
            Shape::Scalar { .. } if OF_A_POD.contains(&key) => {}
            Shape::Scalar { .. } => hidden.push(node.span.clone()),
        }
    }
    visit(yaml, yaml.root(), "", hidden);
}

/// Finds the arguments that may be secrets, in a command line that is a sequence.
fn of_arguments(text: &str, node: &Node, hidden: &mut Vec<Range<usize>>) {
    let mut words = Words::default();
    for item in node.items() {
        let raw = text.get(item.span.clone()).unwrap_or_default();
        hidden.extend(words.next(raw).map(|from| item.span.start + from..item.span.end));
    }
    if node.items().is_empty() {
        hidden.push(node.span.clone());
    }
}

/// Finds the values in a configuration file that may be secrets.
fn of_config(yaml: &Yaml<'_>, hidden: &mut Vec<Range<usize>>) {
    let section = |name: Option<&str>| match name {
        Some("client-transport-security") => Some(""),
        Some("peer-transport-security") => Some("peer-"),
        _ => None,
    };
    for (name, value) in yaml.root().entries() {
        match (section(name.text()), &value.shape) {
            (Some(prefix), Shape::Mapping { entries, .. }) => {
                let is_secret =
                    |name: &Node| !name.text().is_some_and(|name| is_setting(&format!("{prefix}{name}")));
                hidden.extend(
                    entries.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.extent()),
                );
            }
            _ if name.text().is_some_and(is_setting) => {}
            _ => hidden.push(value.extent()),
        }
    }
    if yaml.root().entries().is_empty() {
        hidden.push(yaml.root().extent());
    }
}

/// Finds the values of variables that may be secrets, and whatever is no assignment.
fn of_environment(text: &str) -> Vec<Range<usize>> {
    let assignments = environment::assignments(text);
    let mut hidden = Vec::new();
    for (range, content) in lines(text) {
        match assignments.iter().find(|a| a.raw.start <= range.end && range.start <= a.raw.end) {
            Some(a) if is_variable(&a.name) => {}
            Some(a) => hidden.push(a.raw.start.max(range.start)..a.raw.end.min(range.end)),
            None => hidden.push(behind_mark(&range, content)),
        }
    }
    hidden
}

/// Finds what may be a secret in a unit: everything but its sections and the settings on its command lines.
fn of_unit(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut words: Option<Words> = None;
    for (range, content) in lines(text) {
        let command = content.split_once('=').filter(|(key, _)| words.is_none() && key.starts_with("Exec"));
        let at = match (&words, command) {
            (Some(_), _) => Some(range.start),
            (None, Some((key, _))) => Some(range.start + key.len() + 1),
            _ => None,
        };
        match at {
            Some(at) => {
                let words = words.get_or_insert_default();
                let rest = text.get(at..range.end).unwrap_or_default();
                let mut from = at;
                for word in rest.split_inclusive(char::is_whitespace) {
                    let trimmed = word.trim_end();
                    if !trimmed.is_empty() && trimmed != "\\" {
                        hidden.extend(words.next(trimmed).map(|begin| from + begin..from + trimmed.len()));
                    }
                    from += word.len();
                }
            }
            None if content.trim_start().starts_with(['#', ';']) => hidden.push(behind_mark(&range, content)),
            None if content.starts_with('[') => {}
            None => {
                let key = content.split_once('=').map_or(0, |(key, _)| key.len() + 1);
                hidden.push(range.start + key..range.end);
            }
        }
        if !content.ends_with('\\') {
            words = None;
        }
    }
    hidden
}

/// The words of a command line, one after the other.
#[derive(Default)]
struct Words {
    /// Whether the program has been named.
    begun: bool,
    /// Whether the next word is the value of a setting that may be shown.
    value_follows: bool,
}

impl Words {
    /// Returns from where on the next word, as it is written, may be a secret.
    fn next(&mut self, word: &str) -> Option<usize> {
        let is_value = std::mem::take(&mut self.value_follows);
        let quotes = word.len() - word.trim_start_matches(['"', '\'']).len();
        let text = word.trim_matches(['"', '\'']);
        if !text.starts_with('-') {
            let is_program = !std::mem::replace(&mut self.begun, true) && !text.contains(char::is_whitespace);
            return (!is_value && !is_program).then_some(0);
        }
        self.begun = true;
        let name = text.trim_start_matches('-');
        match name.split_once('=') {
            Some((name, _)) if is_setting(name) => None,
            Some((_, value)) => Some(quotes + text.len() - value.len()),
            None => {
                self.value_follows = is_setting(name);
                name.contains(char::is_whitespace).then_some(0)
            }
        }
    }
}

/// Returns each line with its place, without its end.
fn lines(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let content = line.trim_end();
        let range = at..at + content.len();
        at += line.len();
        (range, content)
    })
}

/// Returns a line without the mark that makes it a comment.
fn behind_mark(range: &Range<usize>, content: &str) -> Range<usize> {
    let text = content.trim_start().trim_start_matches(['#', ';']).trim_start();
    range.end - text.len()..range.end
}

/// Returns `text` with the ranges hidden, line by line.
fn hide(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        let from = range.start.max(at);
        if range.end <= at {
            continue;
        }
        shown.push_str(text.get(at..from).unwrap_or_default());
        let secret = text.get(from..range.end).unwrap_or_default();
        // As many lines as before.
        shown.push_str(HIDDEN);
        shown.push_str(&"\n".repeat(secret.matches('\n').count()));
        at = range.end;
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}
