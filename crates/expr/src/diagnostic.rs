//! What is wrong with an expression.

use std::fmt;
use std::ops::Range;

/// One mistake in an expression or a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The bytes of the source it is about.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do, or what would have been right.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(crate) fn at(self, span: Range<usize>) -> Self {
        Self { span, ..self }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the diagnostic for the unknown `name` of a `what`, with the nearest of the `known` names and
    /// all of them.
    pub(crate) fn unknown<'a>(
        span: Range<usize>,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let nearest = known
            .clone()
            .map(|candidate| (distance(name, candidate), candidate))
            .min()
            .filter(|(distance, _)| *distance <= name.len() / 3 + 1)
            .map(|(_, candidate)| format!("did you mean `{candidate}`?"));
        let known: Vec<&str> = known.collect();
        let list = (!known.is_empty()).then(|| format!("there are: {}", known.join(", ")));
        let help: Vec<String> = nearest.into_iter().chain(list).collect();
        Self {
            span,
            message: format!("unknown {what} `{name}`"),
            help: (!help.is_empty()).then(|| help.join(" ")),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}: {}", self.span.start, self.span.end, self.message)?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

/// Returns the Levenshtein distance of two short names, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let cost = (diagonal + usize::from(x != y)).min(*above + 1).min(left + 1);
            diagonal = std::mem::replace(above, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn far_names_are_not_suggested() {
        let known = ["settings", "peer"];
        let near = Diagnostic::unknown(0..1, "field", "setings", known.into_iter());
        assert_eq!(near.help.as_deref(), Some("did you mean `settings`? there are: settings, peer"));
        let far = Diagnostic::unknown(0..1, "field", "frobnicate", known.into_iter());
        assert_eq!(far.help.as_deref(), Some("there are: settings, peer"));
    }
}
