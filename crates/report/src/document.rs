//! JSON documents for people and scripts: indented, and cheap to write.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Returns `value` as a JSON document, indented as [`serde_json::to_string_pretty`] does, with a final newline.
pub fn document(value: &impl Serialize) -> serde_json::Result<String> {
    // About what the report of a node takes.
    let mut text = Vec::with_capacity(128 << 10);
    value.serialize(&mut Serializer::with_formatter(&mut text, Indented::default()))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// Begins each line with one write, where serde_json's own formatter takes one per level.
struct Indented {
    /// What stands between two values at this level: a comma, a line break, and the indentation.
    between: Vec<u8>,
    /// Whether the array or object that may end now has a value.
    has_value: bool,
}

impl Default for Indented {
    fn default() -> Self {
        Self { between: b",\n".to_vec(), has_value: false }
    }
}

impl Indented {
    fn begin(&mut self, bracket: &[u8], writer: &mut (impl Write + ?Sized)) -> io::Result<()> {
        self.between.extend(b"  ");
        self.has_value = false;
        writer.write_all(bracket)
    }

    fn line(&self, first: bool, writer: &mut (impl Write + ?Sized)) -> io::Result<()> {
        writer.write_all(self.between.get(usize::from(first)..).unwrap_or_default())
    }

    fn end(&mut self, bracket: &[u8], writer: &mut (impl Write + ?Sized)) -> io::Result<()> {
        self.between.truncate(self.between.len().saturating_sub(2));
        if self.has_value {
            self.line(true, writer)?;
        }
        writer.write_all(bracket)
    }
}

impl Formatter for Indented {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(b"[", writer)
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.line(first, writer)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(b"]", writer)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(b"{", writer)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.line(first, writer)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(b"}", writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_indented_as_serde_json_does() {
        let deep = (0..100).fold(serde_json::json!([]), |inner, _| serde_json::json!([{ "in": inner }, {}]));
        for value in [
            serde_json::json!({"a": [], "b": {}, "c": [1, "x\n\u{7}é", [null, [true], 0.5]], "d": {"e": {"f": []}}}),
            serde_json::json!([[], {}, [[]]]),
            serde_json::json!("alone"),
            deep,
        ] {
            let want = serde_json::to_string_pretty(&value).expect("JSON") + "\n";
            assert_eq!(document(&value).expect("JSON"), want);
        }
    }
}
