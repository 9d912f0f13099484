//! A fact, or the error that kept it from being observed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Origin;

/// Evidence of type `T`: what was observed and where, or why it could not be.
///
/// In JSON `{"value": …, "origin": …}` or `{"error": …}`. Rule expressions see straight through to the value, and
/// become *unknown* with the error when there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Observed<T> {
    /// The fact was observed.
    Seen {
        /// What was observed.
        value: T,
        /// Where.
        origin: Origin,
    },
    /// The fact could not be observed.
    Failed {
        /// Why not.
        error: EvidenceError,
    },
}

impl<T> Observed<T> {
    /// Returns `value` as observed at `origin`.
    pub fn seen(value: T, origin: Origin) -> Self {
        Self::Seen { value, origin }
    }

    /// Returns the observation that failed with `error`.
    pub fn failed(error: EvidenceError) -> Self {
        Self::Failed { error }
    }

    /// Returns the value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Seen { value, .. } => Some(value),
            Self::Failed { .. } => None,
        }
    }

    /// Returns the error, if the observation failed.
    pub fn error(&self) -> Option<&EvidenceError> {
        match self {
            Self::Seen { .. } => None,
            Self::Failed { error } => Some(error),
        }
    }

    /// Returns where the value was observed, if it was.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Seen { origin, .. } => Some(origin),
            Self::Failed { .. } => None,
        }
    }

    /// Returns the value or a clone of the error that stands in its place.
    pub fn as_result(&self) -> Result<&T, EvidenceError> {
        match self {
            Self::Seen { value, .. } => Ok(value),
            Self::Failed { error } => Err(error.clone()),
        }
    }

    /// Returns the observation with its value mapped by `f`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Observed<U> {
        match self {
            Self::Seen { value, origin } => Observed::Seen { value: f(value), origin },
            Self::Failed { error } => Observed::Failed { error },
        }
    }

    /// Returns `result` as an observation made at `origin`.
    pub fn from_result(result: Result<T, EvidenceError>, origin: Origin) -> Self {
        match result {
            Ok(value) => Self::Seen { value, origin },
            Err(error) => Self::Failed { error },
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Observed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            deny_unknown_fields,
            expecting = "evidence: a value with its origin, or an error",
            bound = "T: Deserialize<'de>"
        )]
        struct Wire<T> {
            #[serde(default = "none", deserialize_with = "present")]
            value: Option<T>,
            origin: Option<Origin>,
            error: Option<EvidenceError>,
        }
        // `value: null` is a legitimate observation ("none is configured") and not the same as no value.
        fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
            T::deserialize(d).map(Some)
        }
        fn none<T>() -> Option<T> {
            None
        }
        match Wire::deserialize(deserializer)? {
            Wire { value: Some(value), origin: Some(origin), error: None } => {
                Ok(Self::Seen { value, origin })
            }
            Wire { value: None, origin: None, error: Some(error) } => Ok(Self::Failed { error }),
            _ => Err(D::Error::custom("expected either `value` with its `origin`, or `error`")),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Observed<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Observed_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "x-observed": true,
            "properties": {
                "value": generator.subschema_for::<T>(),
                "origin": generator.subschema_for::<Origin>(),
                "error": generator.subschema_for::<EvidenceError>(),
            },
            "additionalProperties": false,
            "oneOf": [{ "required": ["value", "origin"] }, { "required": ["error"] }],
        })
    }
}

/// Why something could not be observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceError {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// One sentence without a final full stop: what was wrong, and where.
    pub message: String,
    /// What was being looked at; null when nothing could be.
    #[serde(default)]
    pub origin: Option<Origin>,
}

impl EvidenceError {
    /// Returns an error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), origin: None }
    }

    /// Returns the error with the place that was being looked at.
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Returns the error for a failed system call on `what`.
    pub fn from_io(error: &std::io::Error, what: impl std::fmt::Display) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, reason) = match error.kind() {
            Io::PermissionDenied => (ErrorKind::PermissionDenied, "permission denied".to_owned()),
            Io::NotFound => (ErrorKind::NotFound, "no such file".to_owned()),
            Io::TimedOut | Io::WouldBlock => (ErrorKind::Timeout, "timed out".to_owned()),
            // ESRCH: the process went away while it was being read.
            _ if error.raw_os_error() == Some(3) => (ErrorKind::Vanished, "the process exited".to_owned()),
            _ => (ErrorKind::Io, error.to_string()),
        };
        Self::new(kind, format!("{what}: {reason}"))
    }
}

impl std::fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvidenceError {}

/// The class of an [`EvidenceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// An operation failed in another way; the message has the system's words.
    Io,
    /// The bytes are not of the expected form; the origin has line and column where there are any.
    Malformed,
    /// It does not exist.
    NotFound,
    /// The process that was to be looked at is not running.
    NotRunning,
    /// The caller may not look at it.
    PermissionDenied,
    /// Nothing answered in time.
    Timeout,
    /// It is larger than Seaworthy reads.
    TooLarge,
    /// It is of a kind that Seaworthy does not read (a directory, a FIFO, a PKCS#11 URI).
    Unsupported,
    /// It disappeared while it was being read.
    Vanished,
}
