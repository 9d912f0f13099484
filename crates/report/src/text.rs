//! The report for a person at a terminal.
//!
//! It leads with the verdict, then the failures with their evidence, then what could not be seen. Passes are a count,
//! unless asked for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use seaworthy_audit::{ControlResult, Counts, Evidence, Finding, Reason, Report};
use seaworthy_catalogue::Status;
use seaworthy_evidence::ErrorKind;

use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// How to lay a report out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether passed and not applicable findings are listed with their evidence, too.
    pub verbose: bool,
    /// Whether what failed is shown with all its reasons, evidence and advice, and not in a few lines.
    pub full: bool,
}

/// Most facts that are shown for one reason, unless asked for more; all of them are in the JSON report.
const MAX_FACTS: usize = 3;
/// Most lines of a list that is cut short.
const MAX_LINES: usize = 6;

/// Returns `report` as text with ANSI styles.
pub fn render(report: &Report, layout: Layout) -> String {
    let mut out = String::new();
    heading(&mut out, report, layout);
    let of = |status| report.findings.iter().filter(move |f| f.status == status);
    if layout.full {
        of(Status::Fail).for_each(|finding| detailed(&mut out, finding, report, layout));
    } else {
        overview(&mut out, report, layout);
        failures(&mut out, report, layout);
    }
    unseen(&mut out, &of(Status::Unknown).collect::<Vec<_>>(), report.user, layout);
    for finding in of(Status::Manual) {
        detailed(&mut out, finding, report, layout);
    }
    if layout.verbose {
        for finding in of(Status::Pass) {
            detailed(&mut out, finding, report, layout);
        }
    }
    uncorroborated(&mut out, report, layout);
    noted(&mut out, report, layout);
    not_applicable(&mut out, &of(Status::NotApplicable).collect::<Vec<_>>(), layout);
    controls(&mut out, report, layout);
    notices(&mut out, report, layout);
    footer(&mut out, report, layout);
    out
}

fn heading(out: &mut String, report: &Report, layout: Layout) {
    let counts = report.counts();
    let (style, verdict) = if counts.fail > counts.waived {
        (style::of(Status::Fail), "NOT SEAWORTHY")
    } else if counts.unknown + report.unjudged > 0 {
        (style::of(Status::Unknown), "NOT PROVED")
    } else if counts.pass + counts.waived + counts.manual == 0 {
        (style::of(Status::NotApplicable), "NOTHING TO AUDIT")
    } else {
        (style::of(Status::Pass), "SEAWORTHY")
    };
    let when = report.taken_at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut tallies = Vec::new();
    for (count, word) in [
        (counts.fail, "failed"),
        (counts.unknown, "unknown"),
        (counts.manual, "to judge"),
        (counts.pass, "passed"),
        (counts.not_applicable, "not applicable"),
    ] {
        if count > 0 {
            tallies.push(format!("{count} {word}"));
        }
    }
    if counts.waived > 0 {
        tallies.push(format!("{} of the failed waived", counts.waived));
    }
    let _ = writeln!(out, "{}  {}", paint(style, verdict), tallies.join(", "));
    let arranged = report.layout.as_ref().map(|layout| format!(" ({})", layout.name)).unwrap_or_default();
    let _ = writeln!(out, "{}", paint(DIM, format!("node {}{arranged}, {when}", plain(&report.node))));
    if let Some((_, title)) = &report.benchmark {
        let score = report.score(false);
        let text = format!(
            "{title}: of {} controls that apply, {} pass and {} could be judged ({:.0} %)",
            score.applicable,
            score.passed,
            score.judged,
            report.coverage(false).floor()
        );
        let _ = writeln!(out, "{}", paint(DIM, wrap(&text, layout.width, "", "").trim_end()));
    }
}

/// A column of the overview: its head, and which count it shows.
type Column = (&'static str, fn(&Counts) -> usize);

const COLUMNS: [Column; 5] = [
    ("failed", |counts| counts.fail),
    ("unknown", |counts| counts.unknown),
    ("to judge", |counts| counts.manual),
    ("passed", |counts| counts.pass),
    ("n/a", |counts| counts.not_applicable),
];

/// Writes one line for each section of the benchmark, or each component: how many there are of each status.
fn overview(out: &mut String, report: &Report, layout: Layout) {
    let mut all: Vec<(&str, Status)> = match &report.benchmark {
        // A control that nothing judges is not known to hold.
        Some(_) => report
            .controls
            .iter()
            .map(|c| (c.section.as_str(), c.status.unwrap_or(Status::Unknown)))
            .collect(),
        None => report.findings.iter().map(|f| (f.component.as_str(), f.status)).collect(),
    };
    if report.benchmark.is_none() {
        all.sort_by_key(|(component, _)| *component);
    }
    let mut rows: Vec<(&str, Counts)> = Vec::new();
    for (name, status) in all {
        if rows.last().is_none_or(|(last, _)| *last != name) {
            rows.push((name, Counts::default()));
        }
        if let Some((_, counts)) = rows.last_mut() {
            counts.add(status);
        }
    }
    // Where there is nothing to compare, the verdict says it all.
    if rows.len() < 2 {
        return;
    }
    let used = COLUMNS.iter().filter(|(_, of)| rows.iter().any(|(_, counts)| of(counts) > 0));
    let used: Vec<_> = used.collect();
    let longest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let room = longest.min(layout.width.saturating_sub(2 + 9 * used.len()).max(20));
    let heads: String = used.iter().map(|(name, _)| format!("{name:>9}")).collect();
    let _ = writeln!(out, "\n{}", paint(DIM, format!("  {:room$}{heads}", "")));
    for (name, counts) in rows {
        let number = |count: usize| if count == 0 { "·".to_owned() } else { count.to_string() };
        let numbers: String = used.iter().map(|(_, of)| format!("{:>9}", number(of(&counts)))).collect();
        let lines = textwrap::wrap(name, room);
        for (index, line) in lines.iter().enumerate() {
            let numbers = if index + 1 == lines.len() { numbers.as_str() } else { "" };
            let _ = writeln!(out, "  {line:room$}{numbers}");
        }
    }
}

/// Most instances, or reasons, of one failure that are shown unless asked for more.
const MAX_EQUAL: usize = 3;

/// Writes what failed, worst first, in a few lines each; what several instances have in common is one entry.
fn failures(out: &mut String, report: &Report, layout: Layout) {
    let mut rules: Vec<Vec<&Finding>> = Vec::new();
    for finding in report.findings.iter().filter(|finding| finding.status == Status::Fail) {
        let is_same = |known: &&Finding| known.rule == finding.rule && known.waived == finding.waived;
        match rules.iter_mut().find(|known| known.first().is_some_and(is_same)) {
            Some(known) => known.push(finding),
            None => rules.push(vec![finding]),
        }
    }
    for findings in rules {
        brief(out, &findings, report, layout);
    }
}

fn brief(out: &mut String, findings: &[&Finding], report: &Report, layout: Layout) {
    let Some(first) = findings.first() else { return };
    let whose = match findings {
        [one] => plain(&one.resource).into_owned(),
        several => format!("{} of them", several.len()),
    };
    let label = paint(style::of(Status::Fail), "FAIL");
    let title = wrap(&first.title, layout.width, "     ", "     ");
    let _ = writeln!(out, "\n{label} {}", paint(BOLD, title.trim()));
    about(out, first, whose, report, layout);
    let reasons: Vec<(&Finding, &Reason)> =
        findings.iter().flat_map(|finding| finding.reasons.iter().map(|reason| (*finding, reason))).collect();
    for (finding, reason) in reasons.iter().take(MAX_EQUAL) {
        let whose = if findings.len() > 1 { format!("{}: ", finding.resource) } else { String::new() };
        let text = format!("{whose}{}{}", reason.message, place(reason));
        let _ = write!(out, "{}", wrap(&text, layout.width, "   - ", "     "));
    }
    if let Some(more) = reasons.len().checked_sub(MAX_EQUAL).filter(|more| *more > 0) {
        let _ = writeln!(out, "     and {more} more of the kind");
    }
    let mut remedies: Vec<String> = Vec::new();
    for remedy in findings.iter().flat_map(|finding| &finding.remedies) {
        // Half of an advice must not look like all of it.
        let sentence = first_sentence(remedy.trim());
        let more = if sentence.len() < remedy.trim().len() { " …" } else { "" };
        let told = format!("do: {}{more}", sentence.replace("**", ""));
        if !remedies.contains(&told) {
            remedies.push(told);
        }
    }
    for remedy in remedies.iter().take(MAX_EQUAL) {
        let _ = write!(out, "{}", wrap(remedy, layout.width, "     ", "         "));
    }
}

/// Returns where the value of a reason comes from, as the end of its sentence; nothing where the sentence says it.
fn place(reason: &Reason) -> String {
    let origin = reason.evidence.iter().find_map(|fact| fact.origin.as_ref()).map(ToString::to_string);
    let told =
        |origin: &String| origin.split(' ').any(|word| word.contains('/') && reason.message.contains(word));
    origin.filter(|origin| !told(origin)).map(|origin| format!(" (from {origin})")).unwrap_or_default()
}

/// Returns the first sentence of `text`; what is between backquotes is one word.
fn first_sentence(text: &str) -> &str {
    let mut quoted = false;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        quoted ^= character == '`';
        let ends = characters.peek().is_none_or(|(_, next)| next.is_whitespace());
        if character == '.' && ends && !quoted {
            return text.get(..=at).unwrap_or(text);
        }
    }
    text
}

/// Writes the line below a title: `whose` finding it is, and of what; and by what it is waived.
fn about(out: &mut String, finding: &Finding, whose: String, report: &Report, layout: Layout) {
    let mut about = vec![whose];
    about.extend(control_numbers(finding, report));
    about.push(finding.rule.clone());
    about.push(finding.severity.to_string());
    let about = wrap(&about.join(" · "), layout.width, "     ", "     ");
    let _ = writeln!(out, "{}", paint(DIM, about.trim_end()));
    if let Some(waiver) = &finding.waived {
        let _ = write!(out, "{}", wrap(&format!("waived: {waiver}"), layout.width, "     ", "       "));
    }
}

fn detailed(out: &mut String, finding: &Finding, report: &Report, layout: Layout) {
    let style = style::of(finding.status);
    let label = finding.status.name().to_uppercase();
    let title = wrap(&finding.title, layout.width, "      ", "      ");
    let _ = writeln!(out, "\n{} {}", paint(style, label), paint(BOLD, title.trim()));
    about(out, finding, plain(&finding.resource).into_owned(), report, layout);
    let mut shown = Vec::new();
    for reason in &finding.reasons {
        let mark = if reason.status == Status::Unknown { "?" } else { "-" };
        let _ = write!(out, "{}", wrap(&reason.message, layout.width, &format!("   {mark} "), "     "));
        facts(out, &reason.evidence, &reason.message, &mut shown, layout);
    }
    if let Some(summary) = &finding.summary {
        let _ = write!(out, "{}", wrap(summary, layout.width, "     ", "     "));
        facts(out, &finding.evidence, summary, &mut shown, layout);
    }
    if finding.status == Status::Pass {
        for reason in &finding.uncorroborated {
            let _ = write!(out, "{}", wrap(&reason.message, layout.width, "   ? ", "     "));
        }
    }
    for note in &finding.notes {
        let _ = write!(out, "{}", wrap(&format!("note: {note}"), layout.width, "     ", "       "));
    }
    for remedy in &finding.remedies {
        let remedy = format!("do: {}", remedy.replace("**", ""));
        let _ = write!(out, "{}", wrap(&remedy, layout.width, "     ", "         "));
    }
}

/// Writes the facts that were not shown before, each with where it comes from. What the `message` says already is not
/// repeated; only its origin is.
fn facts(out: &mut String, evidence: &[Evidence], message: &str, shown: &mut Vec<Evidence>, layout: Layout) {
    let mut origins = Vec::new();
    for fact in evidence {
        if shown.contains(fact) {
            continue;
        }
        shown.push(fact.clone());
        let told = match (&fact.error, &fact.origin) {
            (Some(error), _) if message.contains(&error.message) => continue,
            (Some(error), _) => format!("{}: {}", fact.path, error.message),
            // What has no words of its own is only worth its origin.
            (None, Some(origin)) if fact.value.is_empty() || message.contains(&fact.value) => {
                format!("from {origin}")
            }
            (None, Some(origin)) => format!("{} = {}, from {origin}", fact.path, fact.value),
            (None, None) => format!("{} = {}", fact.path, fact.value),
        };
        if !origins.contains(&told) {
            origins.push(told);
        }
    }
    let most = if layout.verbose { usize::MAX } else { MAX_FACTS };
    for told in origins.iter().take(most) {
        let _ = writeln!(out, "{}", paint(DIM, wrap(told, layout.width, "       ", "         ").trim_end()));
    }
    if let Some(more) = origins.len().checked_sub(most).filter(|more| *more > 0) {
        let _ = writeln!(out, "{}", paint(DIM, format!("       and {more} more (--verbose shows them)")));
    }
}

/// Writes what could not be judged, findings with the same cause together.
fn unseen(out: &mut String, findings: &[&Finding], user: Option<u32>, layout: Layout) {
    let mut causes: Vec<(String, Vec<&Finding>)> = Vec::new();
    let mut denied = false;
    for finding in findings {
        let error = finding.reasons.iter().flat_map(|r| &r.evidence).find_map(|e| e.error.as_ref());
        denied |= error.is_some_and(|e| e.kind == ErrorKind::PermissionDenied);
        let reasons = || finding.reasons.iter().map(|r| r.message.as_str()).collect::<Vec<_>>().join("; ");
        let cause = error.map_or_else(reasons, |e| e.message.clone());
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, same)) => same.push(finding),
            None => causes.push((cause, vec![finding])),
        }
    }
    for (cause, findings) in causes {
        let _ = writeln!(out);
        let text = wrap(&cause, layout.width, "        ", "        ");
        let _ = writeln!(out, "{} {}", paint(style::of(Status::Unknown), "UNKNOWN"), text.trim());
        let mut resources: Vec<&str> = findings.iter().map(|f| f.resource.as_str()).collect();
        resources.dedup();
        let rules: Vec<&str> = findings.iter().map(|f| f.rule.as_str()).collect();
        let listed = match rules.as_slice() {
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many if layout.verbose => many.join(", "),
            many => format!("{} rules", many.len()),
        };
        let line = format!("{}: {listed}", resources.join(", "));
        let _ = writeln!(out, "{}", paint(DIM, wrap(&line, layout.width, "     ", "       ").trim_end()));
    }
    if denied {
        let advice = match user {
            Some(0) => {
                "It ran as root, and was denied it all the same: it needs the capabilities CAP_DAC_READ_SEARCH and \
                 CAP_SYS_PTRACE, and a security module that lets it read."
            }
            _ => "Run it as root to see what was denied.",
        };
        let _ = write!(out, "\n{}", wrap(advice, layout.width, "     ", "     "));
    }
}

/// Writes how many findings pass without a second witness, and why it was silent.
fn uncorroborated(out: &mut String, report: &Report, layout: Layout) {
    let rules: BTreeSet<&str> = report.uncorroborated().map(|finding| finding.rule.as_str()).collect();
    let silent = report.uncorroborated().flat_map(|finding| &finding.uncorroborated);
    // A check says first what is not known, which each rule does in its own words.
    let cause = |reason: &Reason| {
        let cause = reason.evidence.iter().find_map(|fact| fact.error.as_ref());
        cause.map_or_else(|| reason.message.clone(), |error| error.message.clone())
    };
    let causes: BTreeSet<String> = silent.map(cause).collect();
    let Some(first) = causes.first() else { return };
    let count = match rules.len() {
        1 => "1 rule passes".to_owned(),
        many => format!("{many} rules pass"),
    };
    let more = match causes.len() {
        1 => String::new(),
        many => format!(", and {} more reasons", many - 1),
    };
    let text =
        format!("{count} by settings and files alone, because a second witness was silent: {first}{more}");
    let text = wrap(&text, layout.width, "     ", "     ");
    let _ = writeln!(out, "\n{} {}", paint(style::of(Status::Unknown), "NOTE"), text.trim());
}

/// Writes the remarks of passed findings, each once: facts that a reader must know although they decided nothing.
fn noted(out: &mut String, report: &Report, layout: Layout) {
    let passed = report.findings.iter().filter(|f| f.status == Status::Pass && !layout.verbose);
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    for (finding, note) in passed.flat_map(|f| f.notes.iter().map(move |note| (f, note))) {
        let text = format!("{}: {note}", finding.rule);
        match notes.iter_mut().find(|(known, _)| *known == text) {
            Some((_, resources)) => resources.push(&finding.resource),
            None => notes.push((text, vec![&finding.resource])),
        }
    }
    if !notes.is_empty() {
        let _ = writeln!(out);
    }
    for (note, resources) in notes {
        let text = wrap(&format!("{note} ({})", resources.join(", ")), layout.width, "     ", "     ");
        let _ = writeln!(out, "{} {}", paint(style::of(Status::Pass), "NOTE"), text.trim());
    }
}

fn not_applicable(out: &mut String, findings: &[&Finding], layout: Layout) {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for finding in findings {
        let reason = finding.reasons.iter().map(|r| r.message.as_str()).collect::<Vec<_>>().join("; ");
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, rules)) => rules.push(&finding.rule),
            None => reasons.push((reason, vec![&finding.rule])),
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(out);
    }
    for (reason, rules) in reasons {
        let listed = match rules.as_slice() {
            [one] => (*one).to_owned(),
            many if layout.verbose => many.join(", "),
            many => format!("{} rules", many.len()),
        };
        let text = wrap(&format!("{listed}: {reason}"), layout.width, "     ", "     ");
        let _ = writeln!(out, "{}", paint(DIM, format!("n/a  {}", text.trim())));
    }
}

fn controls(out: &mut String, report: &Report, layout: Layout) {
    let (done, missing): (Vec<_>, Vec<_>) = report.controls.iter().partition(|c| c.implemented);
    let mut section = "";
    for control in done.iter().filter(|c| c.status.is_some() && layout.full) {
        if section != control.section {
            section = &control.section;
            let _ = writeln!(out, "\n{}", paint(BOLD, section));
        }
        control_line(out, control, layout);
    }
    if !missing.is_empty() {
        let _ = writeln!(out);
        let text = format!(
            "{} of the {} controls of this benchmark are not implemented yet and were not judged.",
            missing.len(),
            report.controls.len()
        );
        let _ = write!(out, "{}", wrap(&text, layout.width, "", ""));
    }
}

fn control_line(out: &mut String, control: &ControlResult, layout: Layout) {
    let status = control.status.unwrap_or(Status::Unknown);
    let remark = control.remark.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
    let text = wrap(&format!("{}{remark}", control.title), layout.width.saturating_sub(25), "", "");
    for (index, line) in text.lines().enumerate() {
        if index == 0 {
            let painted = paint(style::of(status), format!("{:<14}", status.name()));
            let _ = writeln!(out, "  {:<7} {painted} {line}", control.id);
        } else {
            let _ = writeln!(out, "{:25}{line}", "");
        }
    }
}

fn notices(out: &mut String, report: &Report, layout: Layout) {
    for notice in &report.waiver_notices {
        let _ = write!(out, "\n{}", wrap(&format!("waiver: {}", notice.message), layout.width, "", "  "));
    }
    if !report.blind_spots.is_empty() {
        let _ = writeln!(out, "\n{}", paint(BOLD, "Not read while looking for components"));
        for error in report.blind_spots.iter().take(MAX_LINES) {
            let _ = write!(out, "{}", wrap(&error.message, layout.width, "  ", "    "));
        }
        if let Some(more) = report.blind_spots.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
            let _ = writeln!(out, "  and {more} more in the JSON report");
        }
    }
}

fn footer(out: &mut String, report: &Report, layout: Layout) {
    let Some(first) = report.findings.iter().find(|f| matches!(f.status, Status::Fail | Status::Unknown))
    else {
        return;
    };
    let mut hint = format!("Why, and how to fix it: seaworthy explain {}", first.rule);
    if !layout.full {
        let _ =
            write!(hint, " · all evidence and advice: seaworthy audit --rule {} (-v for all)", first.rule);
    }
    let mut failed = report.findings.iter().filter(|f| f.status == Status::Fail);
    if let Some(fixable) = failed.find(|f| f.fixable) {
        let _ = write!(hint, " · the plan, on {}: seaworthy fix {}", report.node, fixable.rule);
        // Without it the command would ask which one is meant.
        let others = report.findings.iter().filter(|f| f.status == Status::Fail && f.rule == fixable.rule);
        if others.map(|f| &f.component).any(|other| *other != fixable.component) {
            let _ = write!(hint, " --component {}", fixable.component);
        }
    }
    let _ = write!(out, "\n{}", wrap(&hint, layout.width, "", ""));
}

/// Returns the control numbers of a finding: those of the benchmark that was asked for, else of the newest one.
fn control_numbers(finding: &Finding, report: &Report) -> Option<String> {
    let asked = report.benchmark.as_ref().map(|(id, _)| id.as_str());
    let benchmark = asked.or_else(|| finding.controls.first().map(|(b, _)| b.as_str()))?;
    let numbers: Vec<&str> =
        finding.controls.iter().filter(|(b, _)| b == benchmark).map(|(_, n)| n.as_str()).collect();
    (!numbers.is_empty()).then(|| format!("CIS {}", numbers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_where_a_reader_ends_it() {
        let cases = [
            ("Do this. Then that.", "Do this."),
            ("Run `chmod 600 a. b` on it. Then wait.", "Run `chmod 600 a. b` on it."),
            (
                "Give etcd 3.5.1 the file /etc/a.yaml, and wait",
                "Give etcd 3.5.1 the file /etc/a.yaml, and wait",
            ),
            ("", ""),
        ];
        for (text, want) in cases {
            assert_eq!(first_sentence(text), want);
        }
    }
}
