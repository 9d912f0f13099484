//! A plan, or why there is none, for a terminal or a script.
//!
//! The first line is for who has no time: how much is to be done here, and what it waits for. Then every step with its
//! change, and what is against it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use seaworthy_catalogue::Status;
use seaworthy_remedy::issue::Purpose;
use seaworthy_remedy::plan::{Action, Plan, Refusal, RestartedBy, Stage, Step, Waiting};
use serde::Serialize;

use crate::document;
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`json`]; the plan in it has a format of its own.
pub const FORMAT: &str = "seaworthy.dev/fix/v1";

/// Columns of the labels of a step.
const INDENT: &str = "            ";

/// Returns the plan, if there is one, and what is against it as text with ANSI styles.
pub fn text(plan: Option<&Plan>, refusals: &[Refusal], width: usize) -> String {
    let mut out = String::new();
    let (status, word, sentence) = verdict(plan, refusals);
    let verdict = wrap(&format!("{word}  {sentence}"), width, "", "  ");
    let _ = write!(out, "{}", verdict.replacen(word, &paint(style::of(status), word), 1));
    if let Some(plan) = plan {
        let state = &plan.state;
        let when = plan.made_at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC");
        let about = format!("{} on node {}, from evidence of {when}", state.member, state.node);
        let _ = write!(out, "{}", paint(DIM, wrap(&about, width, "", "  ").trim_end()) + "\n");
    }
    for refusal in refusals {
        let _ = writeln!(out);
        let what = wrap(&refusal.what, width, "        ", "        ");
        let _ = writeln!(out, "{} {}", paint(style::of(Status::Fail), "AGAINST"), paint(BOLD, what.trim()));
        let _ = write!(out, "{}", wrap(&refusal.why, width, "        ", "        "));
        let _ =
            write!(out, "{}", wrap(&format!("do: {}", refusal.instead), width, "        ", "            "));
    }
    let Some(plan) = plan else { return out };
    waiting(&mut out, "First", &plan.waits_for, width);
    for (index, step) in plan.steps.iter().enumerate() {
        step_text(&mut out, index + 1, step, width);
    }
    waiting(&mut out, "Then", &plan.then_waits_for, width);
    for text in &plan.by_hand {
        let text = wrap(&format!("By hand: {}", text.replace('`', "")), width, "", "  ");
        let _ = write!(out, "\n{text}");
    }
    if !plan.steps.is_empty() {
        let text = format!("Nothing was changed. Carry it out with: seaworthy fix {} --apply", plan.rule);
        let _ = write!(out, "\n{}", wrap(&text, width, "", ""));
    }
    out
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn json(plan: Option<&Plan>, refusals: &[Refusal]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        format: &'static str,
        plan: Option<&'a Plan>,
        refusals: &'a [Refusal],
    }
    document(&Document { format: FORMAT, plan, refusals }).unwrap_or_default()
}

fn verdict(plan: Option<&Plan>, refusals: &[Refusal]) -> (Status, &'static str, String) {
    let objections = match refusals.len() {
        1 => "1 objection".to_owned(),
        count => format!("{count} objections"),
    };
    let Some(plan) = plan else {
        return (Status::Fail, "NO PLAN", format!("there is no safe way on from here: {objections}"));
    };
    let member = &plan.state.member;
    if plan.steps.is_empty() && plan.stage == Stage::Request {
        return (Status::Unknown, "WAIT", format!("for the certificate that {member} has asked for"));
    }
    if plan.steps.is_empty() {
        let why = match (plan.rule.as_str(), plan.stage, plan.state.peer_urls.len()) {
            ("etcd-peer-tls", Stage::Done, 2..) => {
                format!("{member} listens with TLS for its peers, and they dial it so")
            }
            ("etcd-client-tls", Stage::Done, _) => {
                format!("{member} serves its clients with TLS only, and they are told so")
            }
            ("etcd-client-authentication", Stage::Done, _) => {
                format!("{member} demands a certificate of its CA from every client")
            }
            ("etcd-client-auto-tls", Stage::Done, _) => {
                format!("{member} is not set to make up a certificate for its clients")
            }
            (_, Stage::Done, 0 | 1) => format!("{member} is the only member, so it has no peers"),
            _ => format!("{member} is as it should be"),
        };
        return (Status::Pass, "NOTHING TO DO", format!("{why}{}", then(plan)));
    }
    let restarts = match plan.restarts() {
        0 => "no restart".to_owned(),
        1 => "1 restart".to_owned(),
        count => format!("{count} restarts"),
    };
    let steps =
        if plan.steps.len() == 1 { "1 step".to_owned() } else { format!("{} steps", plan.steps.len()) };
    let work = format!("{steps} on this node, {restarts}");
    if !refusals.is_empty() {
        return (Status::Fail, "REFUSED", format!("{work}, and {objections} to it"));
    }
    if !plan.waits_for.is_empty() {
        return (Status::Unknown, "WAIT", format!("for {}; then {work}", names(&plan.waits_for)));
    }
    (Status::Manual, "PLAN", format!("{work}{}", then(plan)))
}

fn then(plan: &Plan) -> String {
    match (plan.then_waits_for.as_slice(), plan.steps.is_empty()) {
        ([], _) => String::new(),
        (waiting, true) => format!("; still to go: {}", names(waiting)),
        (waiting, false) => format!("; then it waits for {}", names(waiting)),
    }
}

fn names(waiting: &[Waiting]) -> String {
    waiting.iter().map(|w| w.member.as_str()).collect::<Vec<_>>().join(", ")
}

fn waiting(out: &mut String, when: &str, waiting: &[Waiting], width: usize) {
    if waiting.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", paint(BOLD, when));
    for one in waiting {
        let _ = write!(out, "{}", wrap(&one.to_string(), width, "   ", "     "));
    }
}

fn step_text(out: &mut String, number: usize, step: &Step, width: usize) {
    let title = wrap(&step.title, width, "   ", "   ");
    let _ = writeln!(out, "\n{:<2} {}", number, paint(BOLD, title.trim()));
    let _ = write!(out, "{}", wrap(&step.why, width, "   ", "   "));
    let mut row = |label: &str, text: &str| {
        let text = wrap(text, width, INDENT, INDENT);
        let _ = writeln!(out, "   {} {}", paint(DIM, format!("{label:<8}")), text.trim());
    };
    for (label, text) in details(&step.action) {
        row(label, &text);
    }
    if let Some(diff) = &step.diff {
        for line in diff.lines() {
            let _ = writeln!(out, "   {}", painted(line));
        }
    }
    let listed = |all: Vec<String>| all.join("; ");
    let mut row = |label: &str, text: String| {
        if !text.is_empty() {
            let text = wrap(&text, width, INDENT, INDENT);
            let _ = writeln!(out, "   {} {}", paint(DIM, format!("{label:<8}")), text.trim());
        }
    };
    row("before", listed(step.preconditions.iter().map(ToString::to_string).collect()));
    row("verify", listed(step.verify.iter().map(ToString::to_string).collect()));
    row("undo", step.undo.to_string());
}

/// Returns what is particular to an action, as labels and texts.
fn details(action: &Action) -> Vec<(&'static str, String)> {
    match action {
        Action::Bundle { path, of, with, .. } => {
            let members = match with.len() {
                0 => None,
                1 => Some("1 member's own".to_owned()),
                count => Some(format!("{count} members' own")),
            };
            let of: Vec<String> = of.iter().cloned().chain(members).collect();
            vec![("from", of.join(", ")), ("file", path.clone())]
        }
        Action::CreateAuthority { certificate, key } => {
            vec![("files", format!("{certificate}, {key} (mode 0600)"))]
        }
        Action::Edit { .. } | Action::Restore { .. } => Vec::new(),
        Action::Issue {
            hosts, purpose, days, certificate, key, ca_certificate, uid, gid, replaces, ..
        } => {
            let files = match replaces {
                true => format!("{certificate}, {key} (owner and mode as they are)"),
                false => format!("{certificate}, {key} (mode 0600, owner {uid}:{gid})"),
            };
            vec![
                ("names", hosts.join(", ")),
                ("for", usages(*purpose).to_owned()),
                ("valid", format!("{days} days")),
                ("from", ca_certificate.clone()),
                ("files", files),
            ]
        }
        Action::MoveLeader { to } => vec![("to", to.join(", or "))],
        Action::Request { hosts, request, key, uid, gid, .. } => vec![
            ("names", hosts.join(", ")),
            ("files", format!("{request}, {key} (mode 0600, owner {uid}:{gid})")),
        ],
        Action::Restart { by, settings } => {
            let by = match by {
                RestartedBy::Kubelet => "kubelet, which sees that the manifest has changed".to_owned(),
                RestartedBy::KubeletAfterEnd { pid } => format!("kubelet, once pid {pid} has ended"),
                RestartedBy::Systemd { unit } => format!("systemd: daemon-reload, then restart {unit}"),
            };
            let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let with = (!settings.is_empty()).then(|| ("with", settings.join(" ")));
            [("by", by)].into_iter().chain(with).collect()
        }
        Action::SetAttributes { path, mode, uid, gid } => {
            vec![("set", format!("mode {mode:04o}, owner {uid}:{gid} on {path}"))]
        }
        Action::UpdateMember { member_id, peer_urls, via } => vec![
            ("update", format!("member {member_id} to {}", peer_urls.join(","))),
            ("via", via.join(", ")),
        ],
    }
}

/// Returns what a certificate is for, as its extended key usages say it.
fn usages(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Client => "clientAuth",
        Purpose::Peer => "serverAuth and clientAuth",
        Purpose::Server => "serverAuth",
    }
}

/// Returns a line of a diff in its colour. It is not wrapped, so that it can be compared with the file.
fn painted(line: &str) -> String {
    let colour = |colour: AnsiColor| colour.on_default();
    let style = match line.as_bytes() {
        [b'+', b'+', ..] | [b'-', b'-', ..] if line.starts_with("+++ ") || line.starts_with("--- ") => BOLD,
        [b'+', ..] => colour(AnsiColor::Green),
        [b'-', ..] => colour(AnsiColor::Red),
        [b'@', ..] => DIM,
        _ => Style::new(),
    };
    paint(style, plain(line))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seaworthy_remedy::plan::{Objection, State, Undo, Until};

    use super::*;

    fn plan(steps: usize) -> Plan {
        let step = Step {
            title: "Let it load\u{1b}[2J the certificate".to_owned(),
            why: "Members with and without certificates get along while every URL is http, which is why."
                .to_owned(),
            action: Action::Restart { by: RestartedBy::Kubelet, settings: BTreeMap::new() },
            diff: Some("--- /m\n+++ /m\n@@ -1 +1 @@\n-old\u{1b}[31m\n+new\n".to_owned()),
            preconditions: Vec::new(),
            verify: Vec::new(),
            undo: Undo::Restart,
            restarts: true,
        };
        Plan {
            format: Plan::FORMAT.to_owned(),
            rule: "etcd-peer-tls".to_owned(),
            made_at: jiff::Timestamp::UNIX_EPOCH,
            state: State {
                node: "node".to_owned(),
                member: "m1".to_owned(),
                member_id: "a".to_owned(),
                peer_urls: BTreeMap::from([("a".to_owned(), Vec::new()), ("b".to_owned(), Vec::new())]),
                settings: String::new(),
                files: BTreeMap::new(),
            },
            stage: if steps == 0 { Stage::Done } else { Stage::Load },
            authority: None,
            waits_for: Vec::new(),
            steps: vec![step; steps],
            then_waits_for: vec![Waiting { member: "m2".to_owned(), until: Until::Loaded }],
            by_hand: Vec::new(),
        }
    }

    fn refusal() -> Refusal {
        let [what, why, instead] =
            ["an alarm is raised", "it may not survive", "disarm it"].map(str::to_owned);
        Refusal { objection: Objection::Alarm, what, why, instead }
    }

    fn first_line(text: &str) -> String {
        let line = text.lines().next().unwrap_or_default().to_owned();
        let mut bare = String::new();
        let mut escaped = false;
        for c in line.chars() {
            match c {
                '\u{1b}' => escaped = true,
                'm' if escaped => escaped = false,
                c if !escaped => bare.push(c),
                _ => {}
            }
        }
        bare
    }

    #[test]
    fn the_first_line_is_the_verdict() {
        let mut blocked = plan(2);
        blocked.waits_for = std::mem::take(&mut blocked.then_waits_for);
        let mut asked = plan(0);
        asked.stage = Stage::Request;
        let cases = [
            (Some(asked), vec![], "WAIT  for the certificate that m1 has asked for"),
            (
                Some(plan(0)),
                vec![],
                "NOTHING TO DO  m1 listens with TLS for its peers, and they dial it so; still to go: m2",
            ),
            (Some(plan(2)), vec![], "PLAN  2 steps on this node, 2 restarts; then it waits for m2"),
            (
                Some(plan(1)),
                vec![refusal()],
                "REFUSED  1 step on this node, 1 restart, and 1 objection to it",
            ),
            (Some(blocked), vec![], "WAIT  for m2; then 2 steps on this node, 2 restarts"),
            (None, vec![refusal()], "NO PLAN  there is no safe way on from here: 1 objection"),
        ];
        for (plan, refusals, want) in cases {
            assert_eq!(first_line(&text(plan.as_ref(), &refusals, 110)), want);
        }
    }

    #[test]
    fn foreign_text_cannot_take_over_the_terminal() {
        let text = text(Some(&plan(1)), &[refusal()], 60);
        assert!(!text.contains("\u{1b}[2J") && text.contains("load\\u{1b}[2J the"), "{text}");
        assert!(!text.contains("old\u{1b}[31m") && text.contains("-old\\u{1b}[31m"), "{text}");
    }

    #[test]
    fn prose_fits_a_narrow_terminal() {
        let text = text(Some(&plan(1)), &[refusal()], 40);
        let wide = |line: &&str| first_line(line).chars().count() > 40;
        assert_eq!(text.lines().filter(wide).collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn a_plan_survives_json() {
        let plan = plan(1);
        let document: serde_json::Value = serde_json::from_str(&json(Some(&plan), &[refusal()])).unwrap();
        assert_eq!(document["format"], FORMAT);
        assert_eq!(Plan::from_json(document["plan"].to_string().as_bytes()).unwrap(), plan);
        let other = document["plan"].to_string().replace(Plan::FORMAT, "seaworthy.dev/plan/v2");
        assert!(Plan::from_json(other.as_bytes()).is_err());
    }
}
