//! What is wrong with a catalogue, and where.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::Sources;

/// One thing that is wrong with a catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, below the catalogue's root.
    pub path: String,
    /// Bytes of the file that it concerns; the whole file when there is no better place.
    pub span: Option<Range<usize>>,
    /// One clause that says what is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Returns a diagnostic about the whole of `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), span: None, message: message.into(), help: None }
    }

    /// Returns the diagnostic at `span`.
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    /// Returns the diagnostic with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns `diagnostics` as a compiler would print them, with the lines they concern.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for diagnostic in diagnostics {
        let title = Level::ERROR.primary_title(&diagnostic.message);
        let mut group = match (&diagnostic.span, sources.get(&diagnostic.path)) {
            (Some(span), Some(source)) => {
                let span = char_span(source, span);
                let snippet = Snippet::source(source).path(&diagnostic.path);
                title.element(snippet.annotation(AnnotationKind::Primary.span(span)))
            }
            _ => Group::with_title(title).element(annotate_snippets::Origin::path(&diagnostic.path)),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}

/// Returns `span` moved to character boundaries inside `source`.
fn char_span(source: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}
