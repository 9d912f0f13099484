//! Reading the catalogue's own YAML: strict (YAML 1.2 booleans, no duplicate or unknown keys), with spans.

use std::fmt;
use std::ops::Range;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer};
use serde_saphyr::Spanned;

use crate::Diagnostic;

/// Returns the document in `text`, which stands at byte `offset` of the file `path`.
pub(crate) fn parse<T: DeserializeOwned>(path: &str, text: &str, offset: usize) -> Result<T, Diagnostic> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|l| line_column_offset(text, l.line(), l.column()));
        let message = error.to_string();
        // The location is shown by the snippet.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        let diagnostic = Diagnostic::new(path, message);
        match place {
            Some(at) => diagnostic.at(offset + at..offset + at + 1),
            None => diagnostic,
        }
    })
}

/// Reads one name, or a list of names.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name or a list of names")
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
            Ok(vec![name.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(names))
        }
    }

    deserializer.deserialize_any(Names)
}

/// Returns where in the file the characters of the scalar `text` stand, given that the YAML starts at `offset` of
/// `file`: the function maps a span inside the scalar to one in the file. Folded and escaped scalars have no exact
/// mapping; for them the whole scalar is returned.
pub(crate) fn scalar_span<'a>(
    file: &'a str,
    offset: usize,
    text: &'a Spanned<String>,
) -> impl Fn(Range<usize>) -> Range<usize> + 'a {
    let yaml = file.get(offset..).unwrap_or_default();
    let start = line_column_offset(yaml, text.referenced.line(), text.referenced.column());
    let rest = yaml.get(start..).unwrap_or_default();
    let quoted = rest.get(1..).filter(|_| rest.starts_with(['"', '\'']));
    let exact = if rest.starts_with(text.value.as_str()) {
        Some(start)
    } else {
        quoted.filter(|inner| inner.starts_with(text.value.as_str())).map(|_| start + 1)
    };
    move |inner| match exact {
        Some(at) => offset + at + inner.start..offset + at + inner.end,
        None => {
            let line = rest.lines().next().map_or(0, str::len);
            offset + start..offset + start + line
        }
    }
}

/// Returns the byte offset of a 1-based line and column (in characters) in `text`.
fn line_column_offset(text: &str, line: u64, column: u64) -> usize {
    let line = usize::try_from(line).unwrap_or(1).max(1) - 1;
    let column = usize::try_from(column).unwrap_or(1).max(1) - 1;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
}
