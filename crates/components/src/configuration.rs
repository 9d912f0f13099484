//! Configuration files of Kubernetes' components: YAML or JSON, of which the first document counts.

use seaworthy_evidence::{ErrorKind, EvidenceError, Origin};
use seaworthy_settings::ConfigText;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Returns the file at `path`, in whose first document `T` is read; it is a `kind` in an error. Nothing of the file is told in one,
/// because it may hold a key.
///
/// # Errors
///
/// When it is too large, no text, no YAML, or of another shape. A key that is there twice is an error, too.
pub(crate) fn parse<T: DeserializeOwned>(
    path: &str,
    text: &ConfigText,
    kind: &str,
) -> Result<T, EvidenceError> {
    let content = utf8(path, text)?;
    serde_saphyr::from_str_with_options(first_document(content), options())
        .map_err(|error| malformed(path, text, kind, error.location().map_or(1, |at| at.line())))
}

/// Returns the file at `path` as [`parse`] does, if its kind is `kind` in a version of the API `group`.
///
/// # Errors
///
/// As those of [`parse`], and when it says that it is something else.
pub(crate) fn parse_object<T: DeserializeOwned>(
    path: &str,
    text: &ConfigText,
    kind: &str,
    group: &str,
) -> Result<T, EvidenceError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        api_version: Option<String>,
        #[serde(default)]
        kind: Option<String>,
    }
    let head: Head = parse(path, text, kind)?;
    let version = head.api_version.as_deref().and_then(|version| version.strip_prefix(group));
    if head.kind.as_deref() != Some(kind) || !version.is_some_and(|version| version.starts_with("/v")) {
        let message = format!("{path} is no {kind} of {group}");
        return Err(EvidenceError::new(ErrorKind::Malformed, message).at(text.origin.clone()));
    }
    parse(path, text, kind)
}

pub(crate) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false }
}

pub(crate) fn utf8<'a>(path: &str, text: &'a ConfigText) -> Result<&'a str, EvidenceError> {
    let fail = |kind, message: String| EvidenceError::new(kind, message).at(text.origin.clone());
    if text.bytes.len() > ConfigText::MAX {
        return Err(fail(ErrorKind::TooLarge, format!("{path}: larger than {} KiB", ConfigText::MAX >> 10)));
    }
    std::str::from_utf8(&text.bytes).map_err(|_| fail(ErrorKind::Malformed, format!("{path} is not UTF-8")))
}

/// Returns the error for a file that could not be read. The library's message may quote the file, which may hold a key.
pub(crate) fn malformed(path: &str, text: &ConfigText, kind: &str, line: u64) -> EvidenceError {
    let message = format!("{path}:{line}: this is no {kind} that could be read");
    EvidenceError::new(ErrorKind::Malformed, message).at(text.origin.clone())
}

/// Returns the place at a `line` of the file that is `origin`.
pub(crate) fn at(origin: &Origin, line: u64) -> Origin {
    match origin {
        Origin::File { path, pid, .. } => {
            Origin::File { path: path.clone(), pid: *pid, line: u32::try_from(line).ok(), column: None }
        }
        other => other.clone(),
    }
}

/// Returns the first document of a YAML file, which is the one that a component reads.
pub(crate) fn first_document(text: &str) -> &str {
    let mut begun = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let marks = line.starts_with("---") || line.starts_with("...");
        if begun && marks {
            return text.get(..offset).unwrap_or(text);
        }
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']) || line.trim() == "---";
        begun |= !blank;
        offset += line.len();
    }
    text
}
