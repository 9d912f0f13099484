//! The rules and the controls there are, for a terminal.

use std::fmt::Write as _;

use seaworthy_catalogue::{Benchmark, Catalogue, Section};

use crate::style::{BOLD, paint, wrap};

/// Columns that a title must have beside what stands before it; with fewer it goes below.
const TITLE: usize = 32;

/// Returns the rules and benchmarks as text with ANSI styles, laid out for a terminal of `width` columns. Without a
/// terminal each stands on one line, for `grep`.
pub fn catalogue(catalogue: &Catalogue, width: Option<usize>) -> String {
    let mut out = paint(BOLD, "Rules") + "\n";
    for rule in catalogue.rules.values() {
        let mut numbers: Vec<_> = catalogue.controls_of(&rule.id).into_iter().map(|(_, n)| n).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let facts = format!("  {:<33} {:<9} {:<8} ", rule.id, rule.severity, numbers.join(" "));
        row(&mut out, &facts, &rule.title, width);
    }
    let _ = writeln!(out, "\n{}", paint(BOLD, "Benchmarks"));
    for benchmark in catalogue.benchmarks.values() {
        let all = benchmark.controls().count();
        let done = benchmark.controls().filter(|c| c.rules().next().is_some()).count();
        let title = format!("{} ({done} of {all} controls implemented)", benchmark.title);
        row(&mut out, &format!("  {:<33} ", benchmark.id), &title, width);
    }
    out
}

/// Returns the controls in `sections` of `benchmark`, and what judges each, in the same way.
pub fn controls<'s>(
    benchmark: &Benchmark,
    sections: impl IntoIterator<Item = &'s Section>,
    width: Option<usize>,
) -> String {
    let mut out = format!("{} (Kubernetes {})\n", benchmark.title, benchmark.kubernetes);
    for section in sections {
        let _ = writeln!(out, "\n{}", paint(BOLD, format!("{} {}", section.id, section.title)));
        for control in &section.controls {
            let rules: Vec<_> = control.rules().collect();
            let rules = if rules.is_empty() { "not implemented yet".to_owned() } else { rules.join(", ") };
            row(&mut out, &format!("  {:<7} {rules:<33} ", control.id), &control.title, width);
        }
    }
    out
}

/// Writes `title` beside `facts`, or below them where there is little room.
fn row(out: &mut String, facts: &str, title: &str, width: Option<usize>) {
    let beside = facts.chars().count();
    let _ = match width {
        None => writeln!(out, "{facts}{title}"),
        Some(width) if width < beside + TITLE => {
            write!(out, "{}\n{}", facts.trim_end(), wrap(title, width, "      ", "      "))
        }
        Some(width) => write!(out, "{}", wrap(title, width, facts, &" ".repeat(beside))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_goes_where_there_is_room() {
        let rows = |width| {
            let mut out = String::new();
            row(&mut out, "  2.4     etcd-peer-tls ", "etcd encrypts the traffic between its members", width);
            out
        };
        let one = "  2.4     etcd-peer-tls etcd encrypts the traffic between its members\n";
        assert_eq!(rows(None), one);
        assert_eq!(rows(Some(100)), one);
        assert_eq!(
            rows(Some(60)),
            "  2.4     etcd-peer-tls etcd encrypts the traffic between\n                        its members\n"
        );
        assert_eq!(
            rows(Some(42)),
            "  2.4     etcd-peer-tls\n      etcd encrypts the traffic between\n      its members\n"
        );
    }
}
