//! The values that expressions compute with.

use std::ops::Deref;
use std::sync::Arc;

use regex_lite::Regex;
use serde_json::Value;

/// A value during evaluation. Containers of evidence stay evidence; scalars are read out of it.
#[derive(Clone, Debug)]
pub(crate) enum Val<'e> {
    Bool(bool),
    Double(f64),
    Evidence(Located<'e>),
    /// Wide enough for every integer of JSON documents, signed or not.
    Int(i128),
    List(Vec<Self>),
    Null,
    Pattern(Arc<Regex>),
    Text(Text<'e>),
}

/// A piece of evidence and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'e> {
    pub(crate) value: &'e Value,
    /// The step that led there, among those of the evaluator; `None` for what is not in the evidence.
    pub(crate) step: Option<u32>,
}

/// A string: borrowed from the evidence, or shared with the program.
#[derive(Clone, Debug)]
pub(crate) enum Text<'e> {
    Borrowed(&'e str),
    Shared(Arc<str>),
}

impl<'e> Val<'e> {
    /// Returns the value of a scalar of the evidence, or the container itself.
    pub(crate) fn read(located: Located<'e>) -> Self {
        match located.value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value.into()),
                (None, Some(value)) => Self::Int(value.into()),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(Text::Borrowed(text)),
            Value::Array(_) | Value::Object(_) => Self::Evidence(located),
        }
    }

    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text::Shared(text.into()))
    }

    /// Returns the value as JSON.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::Evidence(located) => located.value.clone(),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Null => Value::Null,
            Self::Pattern(pattern) => pattern.as_str().into(),
            Self::Text(text) => text.to_string().into(),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// How a constant of a checked expression is stored. Evidence is none, and a list is made of expressions.
pub(crate) mod constant {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    use super::{Arc, Regex, Val};

    #[derive(Serialize, Deserialize)]
    enum Stored {
        Bool(bool),
        Double(f64),
        Int(i128),
        Null,
        Pattern(String),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(value: &Val<'static>, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match value {
            Val::Bool(value) => Stored::Bool(*value),
            Val::Double(value) => Stored::Double(*value),
            Val::Int(value) => Stored::Int(*value),
            Val::Null => Stored::Null,
            Val::Pattern(pattern) => Stored::Pattern(pattern.as_str().to_owned()),
            Val::Text(text) => Stored::Text((**text).to_owned()),
            Val::Evidence(_) | Val::List(_) => return Err(ser::Error::custom("not a constant")),
        };
        stored.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Val<'static>, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Bool(value) => Val::Bool(value),
            Stored::Double(value) => Val::Double(value),
            Stored::Int(value) => Val::Int(value),
            Stored::Null => Val::Null,
            Stored::Pattern(pattern) => {
                Val::Pattern(Arc::new(Regex::new(&pattern).map_err(de::Error::custom)?))
            }
            Stored::Text(text) => Val::text(text),
        })
    }
}
