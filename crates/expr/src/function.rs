//! The functions of the language.

use std::sync::Arc;

use regex_lite::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::Type;
use crate::value::{Text, Val};

/// A function: how it is called, what it takes and returns, and what it does.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) style: Style,
    /// The parameters; the target of a method is the first.
    pub(crate) params: &'static [Param],
    pub(crate) returns: fn() -> Type,
    pub(crate) call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `f(x)` and `x.f()`.
    Both,
    /// `f(x)`.
    Function,
    /// `x.f()`.
    Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    Int,
    /// A string literal of octal digits, compiled to the number.
    Octal,
    /// A string literal, compiled to a regular expression.
    Pattern,
    /// A string, list or map.
    Sized,
    Text,
    /// A list of strings.
    Texts,
}

pub(crate) static FUNCTIONS: &[Function] = &[
    method("contains", &[Param::Text, Param::Text], || Type::Bool, contains),
    method("distinct", &[Param::Texts], || Type::List(Arc::new(Type::String)), distinct),
    method("endsWith", &[Param::Text, Param::Text], || Type::Bool, ends_with),
    method("folder", &[Param::Text], || Type::String, folder).styled(Style::Function),
    method("join", &[Param::Texts, Param::Text], || Type::String, join),
    method("lowerAscii", &[Param::Text], || Type::String, lower_ascii),
    method("matches", &[Param::Text, Param::Pattern], || Type::Bool, matches),
    method("quoted", &[Param::Text], || Type::String, quoted).styled(Style::Function),
    method("restricted_to", &[Param::Int, Param::Octal], || Type::Bool, restricted_to)
        .styled(Style::Function),
    method("size", &[Param::Sized], || Type::Int, size).styled(Style::Both),
    method("split", &[Param::Text, Param::Text], || Type::List(Arc::new(Type::String)), split),
    method("startsWith", &[Param::Text, Param::Text], || Type::Bool, starts_with),
];

/// What a function does. Returns `None` when the evidence is not of the type that its schema promises.
type Call = for<'e> fn(&[Val<'e>]) -> Option<Val<'e>>;

const fn method(name: &'static str, params: &'static [Param], returns: fn() -> Type, call: Call) -> Function {
    Function { name, style: Style::Method, params, returns, call }
}

impl Serialize for Function {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for &'static Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || de::Error::custom(format_args!("there is no function `{name}`"));
        FUNCTIONS.iter().find(|function| function.name == name).ok_or_else(unknown)
    }
}

impl Function {
    const fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl Param {
    /// Returns whether an argument of type `given` fits.
    pub(crate) fn accepts(self, given: &Type) -> bool {
        match (self, given.bare()) {
            (_, Type::Any) => true,
            (Self::Int, given) => *given == Type::Int,
            (Self::Octal | Self::Pattern | Self::Text, given) => {
                matches!(given, Type::String | Type::Enum(_))
            }
            (Self::Sized, given) => {
                matches!(given, Type::String | Type::Enum(_) | Type::List(_) | Type::Map { .. })
            }
            (Self::Texts, Type::List(element)) => {
                element.opened().is_none()
                    && matches!(element.bare(), Type::Any | Type::String | Type::Enum(_))
            }
            (Self::Texts, _) => false,
        }
    }

    /// Returns what it takes, in words.
    pub(crate) fn wants(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Octal => "a literal octal mode such as \"0644\"",
            Self::Pattern => "a literal regular expression",
            Self::Sized => "string, list or map",
            Self::Text => "string",
            Self::Texts => "list of string",
        }
    }

    /// Returns the value of a literal argument, or what is wrong with it. `None` for parameters that take any
    /// expression.
    pub(crate) fn compile(self, literal: &str) -> Option<Result<Val<'static>, String>> {
        match self {
            Self::Octal => Some(match i128::from_str_radix(literal, 8) {
                Ok(mode @ 0..=0o7777) => Ok(Val::Int(mode)),
                _ => Err(format!("`{literal}` is not an octal mode")),
            }),
            Self::Pattern => Some(match Regex::new(literal) {
                Ok(pattern) => Ok(Val::Pattern(Arc::new(pattern))),
                Err(error) => Err(format!("not a regular expression: {error}")),
            }),
            _ => None,
        }
    }
}

fn contains<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text), Val::Text(part)] = args else { return None };
    Some(Val::Bool(text.contains(&**part)))
}

fn distinct<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::List(items)] = args else { return None };
    let mut found: Vec<Text<'e>> = Vec::new();
    for item in items {
        let Val::Text(text) = item else { return None };
        if found.iter().all(|known| **known != **text) {
            found.push(text.clone());
        }
    }
    Some(Val::List(found.into_iter().map(Val::Text).collect()))
}

fn ends_with<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text), Val::Text(end)] = args else { return None };
    Some(Val::Bool(text.ends_with(&**end)))
}

/// The folder that a path is in; empty for one without.
fn folder<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(path)] = args else { return None };
    Some(Val::text(path.trim_end_matches('/').rsplit_once('/').map_or("", |(folder, _)| folder)))
}

fn join<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::List(items), Val::Text(separator)] = args else { return None };
    let texts: Option<Vec<&str>> =
        items.iter().map(|item| if let Val::Text(text) = item { Some(&**text) } else { None }).collect();
    Some(Val::text(texts?.join(separator)))
}

fn lower_ascii<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text)] = args else { return None };
    Some(Val::text(text.to_ascii_lowercase()))
}

fn matches<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text), Val::Pattern(pattern)] = args else { return None };
    Some(Val::Bool(pattern.is_match(text)))
}

/// The text as one word of a shell, on one line: no character in it can end the word, nor the backticks around the command.
fn quoted<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text)] = args else { return None };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    let hidden = |c: char| c.is_ascii_control() || c == '`';
    Some(match &**text {
        word if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) => {
            Val::Text(text.clone())
        }
        odd if odd.contains(hidden) => {
            let escaped = |c: char| match c {
                '\'' | '\\' => format!("\\{c}"),
                c if hidden(c) => format!("\\x{:02x}", u32::from(c)),
                c => c.to_string(),
            };
            Val::text(format!("$'{}'", odd.chars().map(escaped).collect::<String>()))
        }
        odd => Val::text(format!("'{}'", odd.replace('\'', r"'\''"))),
    })
}

/// No permission bit of the low twelve beyond those of the second argument.
fn restricted_to<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Int(mode), Val::Int(allowed)] = args else { return None };
    Some(Val::Bool(mode & 0o7777 & !allowed == 0))
}

fn size<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let size = match args {
        [Val::Text(text)] => text.chars().count(),
        [Val::List(items)] => items.len(),
        [Val::Evidence(located)] => match located.value {
            Value::Array(items) => items.len(),
            Value::Object(entries) => entries.len(),
            _ => return None,
        },
        _ => return None,
    };
    Some(Val::Int(size as i128))
}

fn split<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text), Val::Text(separator)] = args else { return None };
    Some(Val::List(match text {
        Text::Borrowed(text) => {
            text.split(&**separator).map(|part| Val::Text(Text::Borrowed(part))).collect()
        }
        Text::Shared(text) => text.split(&**separator).map(Val::text).collect(),
    }))
}

fn starts_with<'e>(args: &[Val<'e>]) -> Option<Val<'e>> {
    let [Val::Text(text), Val::Text(start)] = args else { return None };
    Some(Val::Bool(text.starts_with(&**start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_names_are_unique() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn a_quoted_text_is_one_word_of_a_shell() {
        for (text, expected) in [
            ("/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt"),
            ("", "''"),
            ("-R", "'-R'"),
            ("/a b", "'/a b'"),
            ("/x; reboot", "'/x; reboot'"),
            ("/it's", r"'/it'\''s'"),
            ("/$(id)", "'/$(id)'"),
            ("/a\nb'", r"$'/a\x0ab\''"),
            ("/`id`", r"$'/\x60id\x60'"),
        ] {
            let result = quoted(&[Val::text(text)]);
            assert!(matches!(&result, Some(Val::Text(word)) if **word == *expected), "{text}: {result:?}");
        }
    }

    #[test]
    fn modes() {
        for (mode, allowed, expected) in [
            (0o600, "0644", true),
            (0o644, "0644", true),
            (0o664, "0644", false),
            (0o4600, "0644", false),
            (0o100_600, "600", true),
            (0o000, "0", true),
        ] {
            let allowed_mode = Param::Octal.compile(allowed).unwrap().unwrap();
            let result = restricted_to(&[Val::Int(mode), allowed_mode]);
            assert!(matches!(result, Some(Val::Bool(b)) if b == expected), "{mode:o} {allowed}");
        }
        for wrong in ["", "0o644", "888", "-1", "77777"] {
            assert!(Param::Octal.compile(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
