//! A rule as a document in a terminal.

use std::fmt::Write as _;

use seaworthy_catalogue::{Catalogue, Rule};

use crate::style::{BOLD, DIM, paint, wrap};

/// Returns the document of `rule` as text with ANSI styles, laid out for `width` columns.
pub fn render(catalogue: &Catalogue, rule: &Rule, width: usize) -> String {
    let mut out = String::new();
    let _ = write!(out, "{}", paint(BOLD, wrap(&rule.title, width, "", "").trim_end()));
    let _ = writeln!(out);
    let _ = writeln!(
        out,
        "{}",
        paint(DIM, format!("{} · severity {} · since {}", rule.id, rule.severity, rule.since))
    );
    for (benchmark, number) in catalogue.controls_of(&rule.id) {
        let title = catalogue.benchmark(benchmark).map_or(benchmark, |b| b.title.as_str());
        let _ = writeln!(out, "{}", paint(DIM, format!("{title}: {number}")));
    }
    for (framework, ids) in rule.frameworks.entries() {
        let _ = writeln!(out, "{}", paint(DIM, format!("{framework}: {}", ids.join(", "))));
    }
    for (heading, text) in rule.document.sections() {
        let _ = writeln!(out, "\n{}", paint(BOLD, heading));
        markdown(&mut out, text, width);
        if heading == "Audit" {
            checks(&mut out, rule, width);
        }
        if heading == "Remediation" && rule.fix.is_some() {
            let hint = format!("Seaworthy plans it, and carries it out: seaworthy fix {} [--apply]", rule.id);
            let _ = write!(out, "\n{}", wrap(&hint, width, "", "  "));
        }
    }
    out
}

/// Writes what Seaworthy itself looks at, from the rule's own checks.
fn checks(out: &mut String, rule: &Rule, width: usize) {
    let _ = writeln!(out, "\nSeaworthy passes it when:");
    for check in &rule.checks {
        let _ = write!(out, "{}", wrap(&check.name, width, "  - ", "    "));
    }
}

/// Writes the small part of Markdown that rules use: paragraphs and lists, and code and tables as they stand.
fn markdown(out: &mut String, text: &str, width: usize) {
    let mut paragraph = String::new();
    let mut fenced = false;
    for line in text.lines().chain([""]) {
        if line.trim_start().starts_with("```") {
            flush(out, &mut paragraph, width);
            fenced = !fenced;
        } else if fenced {
            let _ = writeln!(out, "    {line}");
        } else if line.starts_with('|') || paragraph.is_empty() && line.starts_with("    ") {
            flush(out, &mut paragraph, width);
            let _ = writeln!(out, "{line}");
        } else if line.trim().is_empty() {
            flush(out, &mut paragraph, width);
            if !out.ends_with("\n\n") {
                let _ = writeln!(out);
            }
        } else if list_item(line).is_some() {
            flush(out, &mut paragraph, width);
            paragraph.push_str(line.trim_end());
        } else {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line.trim());
        }
    }
    while out.ends_with("\n\n") {
        out.pop();
    }
}

fn flush(out: &mut String, paragraph: &mut String, width: usize) {
    if paragraph.is_empty() {
        return;
    }
    let text = std::mem::take(paragraph).replace("**", "");
    let indent = list_item(&text).map_or(0, |length| length);
    let (marker, body) = text.split_at_checked(indent).unwrap_or(("", &text));
    let _ = write!(out, "{}", wrap(body, width, marker, &" ".repeat(indent)));
}

/// Returns the length of a list marker with its indentation and following space: `- `, `  * `, `2. `.
fn list_item(line: &str) -> Option<usize> {
    let body = line.trim_start();
    let indent = line.len() - body.len();
    let marker = if body.starts_with("- ") || body.starts_with("* ") {
        2
    } else {
        let digits = body.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0 && body.get(digits..)?.starts_with(". ")).then_some(digits + 2)?
    };
    Some(indent + marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_wrapped_but_code_is_not() {
        let text = "One paragraph\nin two lines.\n\n- first item that is rather long, longer than the width\n- second\n\n```\n--flag=x   # kept\n```\n";
        let mut out = String::new();
        markdown(&mut out, text, 44);
        assert_eq!(
            out,
            "One paragraph in two lines.\n\n- first item that is rather long, longer\n  than the width\n- second\n\n    --flag=x   # kept\n"
        );
    }
}
