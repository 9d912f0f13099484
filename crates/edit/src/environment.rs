//! Edits of environment files: systemd's `EnvironmentFile=` (systemd.exec(5)), which shells and containers read
//! too when they are kept simple.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{self, Values};
use crate::{Refused, kinship, line_end, line_ending, line_start, printable, splice, text};

/// A change of an environment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "VariableEdit")]
pub enum Edit {
    /// Takes the variable away, however often it is set.
    Remove {
        /// Its name.
        name: String,
    },
    /// Gives the variable this value: where it is set now, else after the last variable that is akin to it.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Returns the file `bytes` with the `edits` made, one after the other.
///
/// # Errors
///
/// When one of the edits cannot be made exactly: see [`edit`](super).
pub fn apply(bytes: &[u8], edits: &[Edit]) -> Result<Vec<u8>, Refused> {
    let mut current = text(bytes)?.to_owned();
    for edit in edits {
        current = edit.apply(&current)?;
    }
    Ok(current.into_bytes())
}

/// Returns what is in an environment file, value by value.
///
/// # Errors
///
/// When it is no text.
pub(crate) fn values(bytes: &[u8]) -> Result<Values, Refused> {
    let mut found = Values::new();
    for assignment in assignments(text(bytes)?) {
        let key = if assignment.exported { format!("export {}", assignment.name) } else { assignment.name };
        values::add(&mut found, &values::variable(&key), assignment.value);
    }
    Ok(found)
}

/// A variable that is set in the file.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    value: String,
    /// `export ` before the name: shells see the variable, systemd does not.
    exported: bool,
    /// From the beginning of its first line to the end of its last one, before the line ending.
    pub(crate) lines: Range<usize>,
    /// Whether the last quote is closed. If not, the value is all the rest of the file.
    closed: bool,
    /// The value as it is written.
    pub(crate) raw: Range<usize>,
}

impl Edit {
    fn apply(&self, text: &str) -> Result<String, Refused> {
        let (Self::Remove { name } | Self::Set { name, .. }) = self;
        if !is_name(name) {
            return Err(Refused::because("that is no name of a variable"));
        }
        let before = assignments(text);
        if before.iter().any(|a| !a.closed) {
            return Err(Refused::because("a quote is not closed"));
        }
        // systemd reads no exported ones, so both kinds of one name are two variables.
        let mut named = before.iter().enumerate().filter(|(_, a)| a.name == *name);
        let mut want: Vec<_> = before.iter().map(Assignment::meaning).collect();
        let changes = match self {
            Self::Remove { .. } => {
                want.retain(|(_, other, _)| other != name);
                named.map(|(_, a)| (with_newline(text, &a.lines), String::new())).collect()
            }
            Self::Set { value, .. } => {
                printable(value)?;
                match (named.next_back(), named.next()) {
                    (Some((_, last)), Some((_, other))) if last.exported != other.exported => {
                        return Err(Refused::because(format!("{name} is set both with and without export")));
                    }
                    (Some((_, last)), _) if last.value == *value => return Ok(text.to_owned()),
                    (Some((index, last)), _) => {
                        let raw = text.get(last.raw.clone()).unwrap_or_default();
                        if !raw.starts_with(['"', '\'']) && raw.contains(" #") {
                            return Err(Refused::because(format!(
                                "{name} has a # in its value, a comment for some readers and not for others"
                            )));
                        }
                        if let Some(entry) = want.get_mut(index) {
                            entry.2 = value;
                        }
                        vec![(last.raw.clone(), written(value, raw.starts_with(['"', '\''])))]
                    }
                    (None, _) => {
                        let plain = before.iter().enumerate().filter(|(_, a)| !a.exported);
                        let kin = plain.max_by_key(|(_, a)| kinship(&a.name, name));
                        let style = kin.and_then(|(_, a)| text.get(a.raw.clone())).unwrap_or_default();
                        let line = format!("{name}={}", written(value, style.starts_with(['"', '\''])));
                        want.insert(kin.map_or(want.len(), |(index, _)| index + 1), (false, name, value));
                        let end = kin.map_or(text.len(), |(_, a)| a.lines.end);
                        let eol = line_ending(text);
                        let fresh = line_start(text, end) == end && kin.is_none();
                        vec![(end..end, if fresh { line + eol } else { format!("{eol}{line}") })]
                    }
                }
            }
        };
        let edited = splice(text, changes)?;
        let got = assignments(&edited);
        match got.iter().map(Assignment::meaning).eq(want) {
            true => Ok(edited),
            false => Err(Refused::because("the edit would change more than it should")),
        }
    }
}

impl Assignment {
    fn meaning(&self) -> (bool, &str, &str) {
        (self.exported, &self.name, &self.value)
    }
}

/// Returns the variables in `text`, by systemd's syntax.
pub(crate) fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some(&(start, first)) = rest.peek() {
        if first.is_ascii_whitespace() {
            rest.next();
            continue;
        }
        if matches!(first, '#' | ';') {
            while let Some((_, c)) = rest.next() {
                match c {
                    '\\' => drop(rest.next()),
                    '\n' => break,
                    _ => {}
                }
            }
            continue;
        }
        let Some((at, _)) = rest.by_ref().find(|(_, c)| matches!(c, '=' | '\n')).filter(|(_, c)| *c == '=')
        else {
            continue;
        };
        let (value, end, closed) = value(&mut rest, text);
        let name = text.get(start..at).unwrap_or_default().trim_end();
        let exported =
            name.strip_prefix("export").filter(|name| name.starts_with([' ', '\t'])).map(str::trim);
        let plain = exported.unwrap_or(name);
        if is_name(plain) {
            found.push(Assignment {
                name: plain.to_owned(),
                value,
                exported: exported.is_some(),
                closed,
                lines: line_start(text, start)..end,
                raw: at + 1..end,
            });
        }
    }
    found
}

/// Reads a value to the end of its line, and returns what it means, where the line ends, and whether its quotes
/// do.
fn value(rest: &mut std::iter::Peekable<std::str::CharIndices<'_>>, text: &str) -> (String, usize, bool) {
    let mut value = String::new();
    // Quotes count only before unquoted text, and white space after that not at all.
    let mut unquoted = false;
    let mut kept = 0;
    let mut end = text.len();
    let mut closed = true;
    while let Some((at, c)) = rest.next() {
        match c {
            '\n' => {
                end = at;
                break;
            }
            '\\' => {
                unquoted = true;
                match rest.next() {
                    Some((_, '\n')) | None => {}
                    Some((_, c)) => {
                        value.push(c);
                        kept = value.len();
                    }
                }
            }
            '\'' | '"' if !unquoted => {
                closed = false;
                while let Some((_, inner)) = rest.next() {
                    match inner {
                        inner if inner == c => {
                            closed = true;
                            break;
                        }
                        '\\' if c == '"' => match rest.next() {
                            Some((_, '\n')) | None => {}
                            Some((_, special @ ('"' | '\\' | '`' | '$'))) => value.push(special),
                            Some((_, other)) => value.extend(['\\', other]),
                        },
                        inner => value.push(inner),
                    }
                }
                kept = value.len();
            }
            c if c.is_ascii_whitespace() => {
                if unquoted {
                    value.push(c);
                }
            }
            c => {
                value.push(c);
                unquoted = true;
                kept = value.len();
            }
        }
    }
    value.truncate(kept);
    let before = text.get(..end).unwrap_or_default();
    let end = if end < text.len() { before.strip_suffix('\r').unwrap_or(before).len() } else { end };
    (value, end, closed)
}

/// Returns the range of whole lines with the line ending behind them, or else the one before them.
fn with_newline(text: &str, lines: &Range<usize>) -> Range<usize> {
    let end = line_end(text, lines.end);
    let newline = text.get(end..).and_then(|rest| rest.find('\n'));
    match (newline, text.get(..lines.start).and_then(|before| before.strip_suffix('\n'))) {
        (Some(newline), _) => lines.start..end + newline + 1,
        (None, Some(before)) => before.strip_suffix('\r').unwrap_or(before).len()..end,
        (None, None) => lines.start..end,
    }
}

/// Returns `value` as it is written, in quotes when it was or must be.
fn written(value: &str, quotes: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=,@%+-[]".contains(c);
    if !quotes && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

pub(crate) fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seaworthy_host::{root::Root, systemd::Unit};

    use super::*;

    fn set(name: &str, value: &str) -> Edit {
        Edit::Set { name: name.into(), value: value.into() }
    }

    fn edit(text: &str, edit: Edit) -> Result<String, Refused> {
        apply(text.as_bytes(), &[edit]).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn variables_are_set_in_place() {
        let cases = [
            ("# c\nETCD_A=1\n\n# d\nB=2\n", set("ETCD_A", "x"), "# c\nETCD_A=x\n\n# d\nB=2\n"),
            ("ETCD_A=\"1\" \nB=2", set("ETCD_A", "a$b"), "ETCD_A=\"a\\$b\"\nB=2"),
            ("ETCD_PEER_A=1\nX=2\n", set("ETCD_PEER_B", "x"), "ETCD_PEER_A=1\nETCD_PEER_B=x\nX=2\n"),
            ("ETCD_A='1'\r\nX=2\r\n", set("ETCD_B", "x"), "ETCD_A='1'\r\nETCD_B=\"x\"\r\nX=2\r\n"),
            ("X=1", set("A", "b c"), "X=1\nA=\"b c\""),
            ("", set("A", "1"), "A=1\n"),
            ("# c\n", set("A", "1"), "# c\nA=1\n"),
            ("export A=1\n", set("A", "2"), "export A=2\n"),
            ("A=1 \\\n 2\nB=3\n", set("A", "4"), "A=4\nB=3\n"),
            ("A=1\nA=2\n", set("A", "3"), "A=1\nA=3\n"),
            ("A=1\n", set("A", "1"), "A=1\n"),
            ("# c \\\nA=1\nA=2\n", set("A", "3"), "# c \\\nA=1\nA=3\n"),
            ("A=1\n# c\nA=2\nB=3\n", Edit::Remove { name: "A".into() }, "# c\nB=3\n"),
            ("B=3\nA=1", Edit::Remove { name: "A".into() }, "B=3"),
            ("A=\"x\ny\"\nB=3\n", Edit::Remove { name: "A".into() }, "B=3\n"),
        ];
        for (before, change, after) in cases {
            assert_eq!(edit(before, change).as_deref(), Ok(after), "{before:?}");
        }
    }

    #[test]
    fn doubtful_files_are_refused() {
        for (text, change) in [
            ("A=1 # c\n", set("A", "2")),
            ("export A=1\nA=2\n", set("A", "3")),
            ("A=1\n", set("1A", "2")),
            ("A=1\n", set("A", "x\ny")),
            ("A=1\\", set("AA", "x")),
            ("A=\"1\n", set("AA", "x")),
        ] {
            assert!(edit(text, change).is_err(), "{text:?}");
        }
    }

    /// What the collector reads from a file: the other implementation of systemd's syntax.
    fn collected(text: &str) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let units = directory.path().join("etc/systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        std::fs::write(units.join("x.service"), "[Service]\nEnvironmentFile=/env\n").unwrap();
        std::fs::write(directory.path().join("env"), text).unwrap();
        let root = Root::host(directory.path()).unwrap();
        let unit = Unit::find(&root, "x.service", "host").unwrap().unwrap();
        let value = |value: Vec<u8>| String::from_utf8(value).unwrap();
        unit.environment.into_iter().map(|v| (v.name, value(v.value))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_collector_sees_exactly_the_edit(
            lines in prop::collection::vec(
                "(ETCD_[A-D]=['\"]?[a-z$ #\\\\]{0,6}['\"]?|# [A-Z]{0,3}=.|export ETCD_A=[a-c]|[ a-zA-Z=\\\\]{0,5})\r?", 0..8),
            name in "ETCD_[A-E]",
            value in "[a-z$\"'` #\\\\/:,=-]{0,12}",
            last in any::<bool>(),
        ) {
            let text = lines.join("\n") + if last { "\n" } else { "" };
            let Ok(edited) = edit(&text, set(&name, &value)) else { return Ok(()) };
            if assignments(&text).iter().any(|a| a.exported && a.name == name) { return Ok(()) }
            let mut want: std::collections::BTreeMap<_, _> = collected(&text).into_iter().collect();
            want.insert(name.clone(), value.trim_end_matches('\0').to_owned());
            let got: std::collections::BTreeMap<_, _> = collected(&edited).into_iter().collect();
            prop_assert_eq!(got, want, "{:?} -> {:?}", text, edited);
            let mut at = 0;
            for line in text.split_inclusive('\n') {
                let value = assignments(&text).iter().any(|a| a.lines.contains(&at));
                prop_assert!(value || edited.contains(line.trim_end()), "{:?} -> {:?}", text, edited);
                at += line.len();
            }
        }
    }
}
