//! The published JSON Schema of a snapshot.

use serde_json::Value;

use crate::Snapshot;

/// Identifier of the snapshot schema.
pub const SCHEMA_ID: &str = "https://seaworthy.dev/schemas/snapshot-v2.json";

/// Returns the JSON Schema (2020-12) of [`Snapshot`]. Rule expressions are checked against the same document.
///
/// Two extension keywords: `x-observed` marks [`crate::Observed`] evidence, `x-opaque` what rules may show but not take
/// apart.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Snapshot).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.shift_insert(1, "$id".to_owned(), SCHEMA_ID.into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use crate::{ErrorKind, EvidenceError, Observed, Origin};

    #[test]
    fn observed_evidence_survives_json() {
        let cases: [Observed<Option<u32>>; 3] = [
            Observed::seen(Some(3), Origin::proc("/proc")),
            Observed::seen(None, Origin::derived("nothing")),
            Observed::failed(EvidenceError::new(ErrorKind::Timeout, "10.0.0.1:2380: no answer in 1 s")),
        ];
        for case in cases {
            let json = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Observed<Option<u32>>>(&json).unwrap(), case, "{json}");
        }
    }

    #[test]
    fn a_value_beside_an_error_is_refused() {
        let json = r#"{"value": 1, "error": {"kind": "io", "message": "x"}}"#;
        assert!(serde_json::from_str::<Observed<u32>>(json).is_err());
    }
}
