//! Colours, widths and the cleaning of foreign text.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use seaworthy_catalogue::Status;

/// Narrowest width that text is laid out for, in columns.
pub const MIN_WIDTH: usize = 40;
/// Widest line of prose: longer lines are hard to read however wide the terminal is.
pub const MAX_WIDTH: usize = 110;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// Returns the colour of a status.
pub(crate) fn of(status: Status) -> Style {
    let colour = |colour: AnsiColor| colour.on_default().bold();
    match status {
        Status::Fail => colour(AnsiColor::Red),
        Status::Manual | Status::Unknown => colour(AnsiColor::Yellow),
        Status::Pass => colour(AnsiColor::Green),
        Status::NotApplicable => DIM,
    }
}

/// Returns `text` in `style`.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Returns text that came from a node with its control characters shown instead of sent to the terminal. Invisible and
/// direction-changing characters count as such: they can make one name look like another.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let deceives = |c| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let foreign = |c: char| c.is_control() || deceives(c);
    if !text.chars().any(foreign) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if foreign(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Returns `text` wrapped to `width` columns, its first line after `first` and the others after `rest`.
pub(crate) fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let options = textwrap::Options::new(width.clamp(MIN_WIDTH, MAX_WIDTH))
        .initial_indent(first)
        .subsequent_indent(rest)
        // Paths and URLs stay whole, to be copied.
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    let mut wrapped = textwrap::fill(&plain(text), options);
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(plain("etcd\u{202e}x"), "etcd\\u{202e}x");
        assert_eq!(plain("a\u{2028}b\u{200b}"), "a\\u{2028}b\\u{200b}");
        assert_eq!(plain("prüfen – ok"), "prüfen – ok");
    }
}
