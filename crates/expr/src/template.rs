//! Sentences with expressions in them.

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use crate::{Diagnostic, Env, Program, Scope, syntax};

/// The longest template, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A text with `{expressions}`; `{{` and `}}` stand for braces.
///
/// Strings are shown plain, lists joined by `, `, null as `none`, what is not known as `not known`. An object
/// shows its first field among `text`, `name`, `id`, `path` and `url`.
///
/// What it serializes to is for this very version of this crate only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Template {
    parts: Vec<Part>,
}

/// A template with its expressions replaced by their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// JSON pointers of the evidence that is shown, each once.
    pub touched: Vec<String>,
    /// Whether all that it shows is known.
    pub known: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Part {
    Text(String),
    Value(Program),
}

impl Template {
    /// Checks the template `source`, whose expressions are over the variables of `scope`.
    ///
    /// # Errors
    ///
    /// All mistakes of all expressions, with spans in `source`.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        if source.len() > MAX_LENGTH {
            let message = format!("the text is longer than {MAX_LENGTH} bytes");
            return Err(vec![Diagnostic::new(0..source.len(), message)]);
        }
        while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
            let plain = rest.find(['{', '}']).unwrap_or(rest.len());
            text.push_str(rest.get(..plain).unwrap_or_default());
            at += plain;
            let rest = source.get(at..).unwrap_or_default();
            if let Some(brace) = ["{", "}"].into_iter().find(|brace| rest.starts_with(&brace.repeat(2))) {
                text.push_str(brace);
                at += 2;
            } else if rest.starts_with('{') {
                let Some(end) = end_of_expression(source, at + 1) else {
                    diagnostics.push(Diagnostic::new(at..source.len(), "this `{` is not closed by `}`"));
                    break;
                };
                let expression = source.get(at + 1..end).unwrap_or_default();
                parts.push(Part::Text(std::mem::take(&mut text)));
                match Program::displayable(expression, scope) {
                    Ok(program) => parts.push(Part::Value(program)),
                    Err(errors) => diagnostics.extend(errors.into_iter().map(|mut error| {
                        error.span = error.span.start + at + 1..error.span.end + at + 1;
                        error
                    })),
                }
                at = end + 1;
            } else if rest.starts_with('}') {
                diagnostics.push(Diagnostic::new(at..at + 1, "this `}` closes nothing").help("write `}}`"));
                at += 1;
            }
        }
        parts.push(Part::Text(text));
        if diagnostics.is_empty() { Ok(Self { parts }) } else { Err(diagnostics) }
    }

    /// Returns the text with the values of its expressions over the variables of `env`.
    pub fn render(&self, env: &Env<'_>) -> Rendered {
        let mut rendered = String::new();
        let mut touched = IndexSet::new();
        let mut known = true;
        for part in &self.parts {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Value(program) => {
                    let shown = program.show(env);
                    rendered.push_str(&shown.text);
                    touched.extend(shown.touched);
                    known &= shown.known;
                }
            }
        }
        Rendered { text: rendered, touched: touched.into_iter().collect(), known }
    }
}

/// Returns the offset of the `}` that ends the expression at `start`, braces in string literals aside.
fn end_of_expression(source: &str, start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let rest = source.get(at..)?;
        at += rest.find(['}', '"', '\''])?;
        if source.get(at..)?.starts_with('}') {
            return Some(at);
        }
        let raw = source.get(start..at)?.ends_with(['r', 'R']);
        at = syntax::end_of_string(source, at, raw)?;
    }
}
