//! What evaluation has to know of an expression's type.

use serde::{Deserialize, Serialize};

use crate::Type;

/// How a value is read and shown. Much less than its [`Type`], so that a checked expression is small where it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// True or false.
    Condition,
    /// An object that is shown as its `field`.
    Faced { field: String, form: Box<Self> },
    /// An object with nothing to show.
    Faceless,
    /// A list of such values.
    List(Box<Self>),
    /// Such a value, or null.
    Nullable(Box<Self>),
    /// Such evidence, which may have failed.
    Observed(Box<Self>),
    /// Anything else, which is shown as it is.
    Plain,
}

impl Form {
    pub(crate) fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Condition,
            Type::List(element) => Self::List(Box::new(Self::of(element))),
            Type::Nullable(inner) => Self::Nullable(Box::new(Self::of(inner))),
            Type::Observed(inner) => Self::Observed(Box::new(Self::of(inner))),
            Type::Object(object) => match object.face() {
                Some((field, ty)) => Self::Faced { field: field.to_owned(), form: Box::new(Self::of(ty)) },
                None => Self::Faceless,
            },
            _ => Self::Plain,
        }
    }

    /// Returns the form without [`Form::Nullable`] and [`Form::Observed`] around it.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Nullable(inner) | Self::Observed(inner) => inner.bare(),
            other => other,
        }
    }
}
