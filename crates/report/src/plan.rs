//! A plan, or why there is none, for a terminal or a script.
//!
//! The first line says how much is to be done here, and what it waits for. Then every step with its change, or why there is
//! no plan.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use seaworthy_catalogue::Status;
use seaworthy_remedy::issue::Purpose;
use seaworthy_remedy::plan::{Action, Plan, Refusal, RestartedBy, Stage, Step, Waiting};
use serde::Serialize;
use serde_json::Value;

use crate::json::{printed, printed_schema};
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`json`]; the plan in it has a format of its own.
pub const FORMAT: &str = "seaworthy.dev/fix/v2";
/// Identifier of its JSON Schema.
pub const SCHEMA_ID: &str = "https://seaworthy.dev/schemas/fix-v2.json";

/// Columns of the labels of a step.
const INDENT: &str = "            ";

/// Returns the plan, if there is one, and why it must not be carried out, as text with ANSI styles. `command` is what was run,
/// with the options that were given.
pub fn text(plan: Option<&Plan>, refusals: &[Refusal], command: &str, width: usize) -> String {
    let mut out = String::new();
    let (status, word, sentence) = verdict(plan, refusals);
    let verdict = wrap(&format!("{word}  {sentence}"), width, "", "  ");
    let _ = write!(out, "{}", verdict.replacen(word, &paint(style::of(status), word), 1));
    if let Some(plan) = plan {
        let state = &plan.state;
        let when = plan.made_at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC");
        let what = match &plan.rollback_of {
            Some(fix) => format!("rollback of fix {fix} of {}, ", plan.rule),
            None => String::new(),
        };
        let about = format!("{what}{} on node {}, from evidence of {when}", state.member, state.node);
        let _ = write!(out, "{}", paint(DIM, wrap(&about, width, "", "  ").trim_end()) + "\n");
    }
    for refusal in refusals {
        let _ = writeln!(out);
        let what = wrap(&refusal.what, width, "        ", "        ");
        let _ = writeln!(out, "{} {}", paint(style::of(Status::Fail), "BLOCKED"), paint(BOLD, what.trim()));
        let _ = write!(out, "{}", wrap(&refusal.why, width, "        ", "        "));
        let _ =
            write!(out, "{}", wrap(&format!("do: {}", refusal.instead), width, "        ", "            "));
    }
    let Some(plan) = plan else { return out };
    for remark in &plan.remarks {
        let _ = write!(out, "\n{}", wrap(remark, width, "", "  "));
    }
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
        let text = match refusals {
            [] => format!("Nothing was changed. Carry it out with: {command} --apply"),
            _ => format!("Nothing of this plan was carried out. Once nothing blocks it: {command} --apply"),
        };
        let _ = write!(out, "\n{}", wrap(&text, width, "", ""));
    }
    out
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn json(plan: Option<&Plan>, refusals: &[Refusal]) -> String {
    printed(&Document { format: FORMAT, plan, refusals })
}

/// Returns the JSON Schema (2020-12) of [`json`].
pub fn json_schema() -> Value {
    printed_schema::<Document<'_>>(SCHEMA_ID)
}

/// What a fix or a rollback would do on this node next, and why it must not be carried out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Fix")]
struct Document<'a> {
    /// Identifies the format.
    #[schemars(extend("const" = FORMAT))]
    format: &'static str,
    /// The plan; null when there is no safe way on from here.
    plan: Option<&'a Plan>,
    /// Why it must not be carried out, or why there is none.
    refusals: &'a [Refusal],
}

fn verdict(plan: Option<&Plan>, refusals: &[Refusal]) -> (Status, &'static str, String) {
    let reasons = match refusals.len() {
        1 => "1 reason".to_owned(),
        count => format!("{count} reasons"),
    };
    let Some(plan) = plan else {
        return (Status::Fail, "NO PLAN", format!("there is no safe way on from here, for {reasons}"));
    };
    let member = &plan.state.member;
    if plan.steps.is_empty() && plan.stage == Stage::Request {
        return (Status::Unknown, "WAIT", format!("for the certificate that {member} has asked for"));
    }
    if plan.steps.is_empty() && plan.stage == Stage::Rollback {
        return (Status::Pass, "NOTHING TO DO", format!("nothing of this fix is left on {member}"));
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
            (rule, Stage::Done, 0 | 1) if rule.starts_with("etcd-peer-") => {
                format!("{member} is the only member, so it has no peers")
            }
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
        return (Status::Fail, "REFUSED", format!("{work}, blocked for {reasons}"));
    }
    if !plan.waits_for.is_empty() {
        return (Status::Unknown, "WAIT", format!("for {}; then {work}", names(&plan.waits_for)));
    }
    let word = if plan.stage == Stage::Rollback { "ROLLBACK" } else { "PLAN" };
    (Status::Manual, word, format!("{work}{}", then(plan)))
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
    row("undo", step.undo().unwrap_or_default());
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
        Action::Edit { .. } | Action::Revert { .. } => Vec::new(),
        Action::Restore { preimage, .. } => vec![("from", format!("the record of fix {}", preimage.fix))],
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
        Action::SetAttributes { path, to, .. } => vec![("set", format!("{to} on {path}"))],
        Action::UpdateMember { member_id, to, via, .. } => {
            vec![("update", format!("member {member_id} to {}", to.join(","))), ("via", via.join(", "))]
        }
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

    use seaworthy_remedy::plan::{RefusalKind, State, Until};

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
            restarts: true,
        };
        Plan {
            format: Plan::FORMAT.to_owned(),
            rule: "etcd-peer-tls".to_owned(),
            made_at: jiff::Timestamp::UNIX_EPOCH,
            state: State {
                component: "etcd".into(),
                node: "node".to_owned(),
                member: "m1".to_owned(),
                member_id: "a".to_owned(),
                peer_urls: BTreeMap::from([("a".to_owned(), Vec::new()), ("b".to_owned(), Vec::new())]),
                settings: String::new(),
                files: BTreeMap::new(),
            },
            stage: if steps == 0 { Stage::Done } else { Stage::Load },
            rollback_of: None,
            authority: None,
            waits_for: Vec::new(),
            steps: vec![step; steps],
            then_waits_for: vec![Waiting { member: "m2".to_owned(), until: Until::Loaded }],
            by_hand: Vec::new(),
            remarks: Vec::new(),
        }
    }

    fn refusal() -> Refusal {
        let [what, why, instead] =
            ["an alarm is raised", "it may not survive", "disarm it"].map(str::to_owned);
        Refusal { kind: RefusalKind::Alarm, what, why, instead }
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
            (Some(plan(1)), vec![refusal()], "REFUSED  1 step on this node, 1 restart, blocked for 1 reason"),
            (Some(blocked), vec![], "WAIT  for m2; then 2 steps on this node, 2 restarts"),
            (None, vec![refusal()], "NO PLAN  there is no safe way on from here, for 1 reason"),
        ];
        for (plan, refusals, want) in cases {
            assert_eq!(first_line(&text(plan.as_ref(), &refusals, "seaworthy fix x", 110)), want);
        }
    }

    #[test]
    fn foreign_text_cannot_take_over_the_terminal() {
        let text = text(Some(&plan(1)), &[refusal()], "seaworthy fix x", 60);
        assert!(!text.contains("\u{1b}[2J") && text.contains("load\\u{1b}[2J the"), "{text}");
        assert!(!text.contains("old\u{1b}[31m") && text.contains("-old\\u{1b}[31m"), "{text}");
    }

    #[test]
    fn prose_fits_a_narrow_terminal() {
        let text = text(Some(&plan(1)), &[refusal()], "seaworthy fix x", 40);
        let wide = |line: &&str| first_line(line).chars().count() > 40;
        assert_eq!(text.lines().filter(wide).collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn a_plan_survives_json() {
        let plan = plan(1);
        let document: Value = serde_json::from_str(&json(Some(&plan), &[refusal()])).unwrap();
        assert_eq!(document["format"], FORMAT);
        assert_eq!(Plan::from_value(&document["plan"]).unwrap(), plan);
        let mut newer = document["plan"].clone();
        newer["format"] = "seaworthy.dev/plan/v9".into();
        let refused = Plan::from_value(&newer).unwrap_err().to_string();
        assert!(refused.contains("plan/v9") && refused.contains("does not know"), "{refused}");
    }
}
