//! YAML as Kubernetes' components read it, with a budget.

use std::io::Cursor;

use seaworthy_evidence::{ErrorKind, EvidenceError, Origin};
use serde::de::DeserializeOwned;
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

/// Most bytes of a YAML file that are read; a manifest has a few thousand.
pub(crate) const CAP: usize = 1 << 20;

/// Returns every document in `bytes`, in order and without empty ones. JSON is YAML. The last of duplicate
/// keys wins.
///
/// A document of another shape is an error and the next one follows; after a syntax error there is none.
pub(crate) fn documents<T: DeserializeOwned>(bytes: &[u8], origin: &Origin) -> Vec<Result<T, EvidenceError>> {
    if let Err(error) = std::str::from_utf8(bytes) {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|&&b| b != b'\n').count();
        let origin = at_line(origin, line as u64, column as u64);
        return vec![
            Err(EvidenceError::new(ErrorKind::Malformed, format!("{origin}: not UTF-8")).at(origin)),
        ];
    }
    let read = |duplicate_keys| {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_reader_input_bytes: Some(CAP),
                max_nodes: 50_000,
                max_depth: 64,
            },
            duplicate_keys: duplicate_keys,
            legacy_octal_numbers: true,
            with_snippet: false,
        };
        serde_saphyr::read_with_options(&mut Cursor::new(bytes), options).collect::<Vec<_>>()
    };
    // To let the last key win, the parser keeps each mapping until its end, which takes twice as long.
    let mut documents = read(DuplicateKeyPolicy::Error);
    let is_duplicate = |error: &serde_saphyr::Error| {
        matches!(error.without_snippet(), serde_saphyr::Error::DuplicateMappingKey { .. })
    };
    if documents.iter().any(|document| document.as_ref().is_err_and(is_duplicate)) {
        documents = read(DuplicateKeyPolicy::LastWins);
    }
    documents.into_iter().map(|document| document.map_err(|error| malformed(&error, origin))).collect()
}

/// Returns the origin in the same file at which `value` is written: for an alias, where its anchor is.
pub(crate) fn place<T>(origin: &Origin, value: &Spanned<T>) -> Origin {
    at(origin, value.defined)
}

fn at(origin: &Origin, location: Location) -> Origin {
    // Line 0 means that it is not known.
    if location.line() == 0 { origin.clone() } else { at_line(origin, location.line(), location.column()) }
}

fn at_line(origin: &Origin, line: u64, column: u64) -> Origin {
    let [line, column] = [line, column].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    origin.clone().at(line, column)
}

fn malformed(error: &serde_saphyr::Error, origin: &Origin) -> EvidenceError {
    let origin = error.location().map_or_else(|| origin.clone(), |location| at(origin, location));
    // The place is said once, in the form of every other origin, and a message is one line.
    let text = error.without_snippet().to_string();
    let end = [" (defined at line", " at line ", "\n"].iter().filter_map(|mark| text.find(mark)).min();
    let reason = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    EvidenceError::new(ErrorKind::Malformed, format!("{origin}: {reason}")).at(origin)
}
