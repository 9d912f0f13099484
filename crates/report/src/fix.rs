//! How a fix ended, and how all fixes of a node stand, for a terminal or a script.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seaworthy_catalogue::Status;
use seaworthy_remedy::apply::{Outcome, Progress};
use seaworthy_remedy::journal::{Event, Record, Standing};
use seaworthy_remedy::note::Note;
use serde::Serialize;
use serde_json::{Value, json};

use crate::document;
use crate::plan;
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`outcome_json`].
pub const OUTCOME_FORMAT: &str = "seaworthy.dev/fix-outcome/v1";
/// The format of [`status_json`].
pub const STATUS_FORMAT: &str = "seaworthy.dev/fix-status/v1";

/// How a member is, as far as it shows from this node.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStanding {
    /// Its name, or its id when it has none.
    pub name: String,
    /// The URLs at which its peers are told to dial it.
    pub peer_urls: Vec<String>,
    /// What it left word of; null when it did not.
    pub note: Option<Note>,
}

/// Returns what happens while a fix is carried out, as text with ANSI styles.
pub fn progress_text(progress: &Progress, width: usize) -> String {
    match progress {
        Progress::Turn { id, doing, steps } => {
            let steps = if *steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") };
            paint(BOLD, format!("fix {id} is {doing}: {steps}")) + "\n"
        }
        Progress::Step { number, of, title } => {
            wrap(&format!("{number}/{of}  {title}"), width, "  ", "       ")
        }
        Progress::Verified { what, took } => {
            let what =
                if what.is_empty() { "done".to_owned() } else { format!("verified: {}", what.join("; ")) };
            let text = format!("{what} ({:.1} s)", took.as_secs_f64());
            paint(DIM, wrap(&text, width, "       ", "         ").trim_end()) + "\n"
        }
        Progress::Waiting { what } => wrap(&format!("waiting: {what}"), width, "  ", "    "),
        _ => String::new(),
    }
}

/// Returns how a fix ended as text with ANSI styles.
pub fn outcome_text(rule: &str, outcome: &Outcome, width: usize) -> String {
    let mut out = String::new();
    let mut verdict = |status: Status, word: &str, sentence: &str| {
        let text = wrap(&format!("{word}  {sentence}"), width, "", "  ");
        let _ = write!(out, "{}", text.replacen(word, &paint(style::of(status), word), 1));
    };
    match outcome {
        Outcome::Done { ids, verified } => {
            let word = if ids.is_empty() { "NOTHING TO DO" } else { "DONE" };
            verdict(Status::Pass, word, &format!("{rule} passes"));
            for line in verified {
                let _ = write!(out, "{}", wrap(line, width, "   ", "     "));
            }
            let _ = write!(out, "{}", way_back(ids, width));
        }
        Outcome::NotProven { ids, why } => {
            verdict(Status::Fail, "NOT PROVEN", &format!("this fix has nothing left to do, and {why}"));
            let _ = write!(out, "{}", way_back(ids, width));
        }
        Outcome::Refused { ids, plan, refusals } => {
            let _ = write!(out, "{}", plan::text(plan.as_deref(), refusals, width));
            let _ = write!(out, "{}", way_back(ids, width));
        }
        Outcome::RolledBack { id, why } => {
            verdict(Status::Fail, "TAKEN BACK", &format!("fix {id}: {why}"));
        }
        Outcome::Stopped { id, why } => {
            verdict(Status::Fail, "STOPPED", &format!("fix {id} is neither done nor taken back: {why}"));
            let advice =
                "Put right what is in the way, and run `seaworthy fix --resume`; it goes on from here.";
            let _ = write!(out, "{}", wrap(&advice.replace('`', ""), width, "", ""));
        }
        Outcome::Waiting { ids, waits_for, by_hand } => {
            verdict(Status::Unknown, "WAIT", "what was to be done here so far is done");
            for waiting in waits_for {
                let _ = write!(out, "{}", wrap(&waiting.to_string(), width, "   ", "     "));
            }
            if by_hand.is_empty() {
                let advice = format!("Run seaworthy fix {rule} --apply there, and here again.");
                let _ = write!(out, "{}", wrap(&advice, width, "", ""));
            }
            for text in by_hand {
                let _ = write!(out, "{}", wrap(&text.replace('`', ""), width, "", ""));
            }
            let _ = write!(out, "{}", way_back(ids, width));
        }
        _ => verdict(Status::Unknown, "ENDED", "in a way that this version cannot tell"),
    }
    out
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn outcome_json(rule: &str, outcome: &Outcome) -> String {
    let more = match outcome {
        Outcome::Done { ids, verified } => json!({ "outcome": "done", "fixes": ids, "verified": verified }),
        Outcome::NotProven { ids, why } => json!({ "outcome": "not-proven", "fixes": ids, "why": why }),
        Outcome::Refused { ids, plan, refusals } => {
            json!({ "outcome": "refused", "fixes": ids, "plan": plan, "refusals": refusals })
        }
        Outcome::RolledBack { id, why } => json!({ "outcome": "rolled-back", "fixes": [id], "why": why }),
        Outcome::Stopped { id, why } => json!({ "outcome": "stopped", "fixes": [id], "why": why }),
        Outcome::Waiting { ids, waits_for, by_hand } => {
            json!({ "outcome": "waiting", "fixes": ids, "waits_for": waits_for, "by_hand": by_hand })
        }
        _ => json!({ "outcome": "unknown" }),
    };
    let mut whole = json!({ "format": OUTCOME_FORMAT, "rule": rule });
    if let (Value::Object(whole), Value::Object(more)) = (&mut whole, more) {
        whole.extend(more);
    }
    document(&whole).unwrap_or_default()
}

/// Returns how the fixes of a node and the members stand, as text with ANSI styles. `members` is why they are not known
/// where they are not.
pub fn status_text(records: &[Record], members: Result<&[MemberStanding], &str>, width: usize) -> String {
    let mut out = String::new();
    if records.is_empty() {
        let _ = writeln!(out, "{}", paint(BOLD, "No fix was carried out on this node."));
    }
    for record in records {
        let text = |name: &str| record.plan.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let member = record.plan.pointer("/state/member").and_then(Value::as_str).unwrap_or("?");
        let (status, word) = standing(record.standing());
        let line = format!("{}  {} of {member}, {}", record.id, text("rule"), text("stage"));
        let _ = writeln!(out, "{}  {}", paint(style::of(status), format!("{word:<12}")), plain(&line));
        if let Some(entry) = record.entries.last() {
            let last = format!("{}: {}", time(entry.at), event(record, &entry.event));
            let _ = write!(
                out,
                "{}",
                paint(DIM, wrap(&last, width, "              ", "              ").trim_end()) + "\n"
            );
        }
    }
    let unfinished = records.iter().any(|r| !matches!(r.standing(), Standing::Done | Standing::RolledBack));
    if unfinished {
        let advice = "Go on with what is not finished: seaworthy fix --resume. Take it back: seaworthy fix --rollback ID.";
        let _ = write!(out, "\n{}", wrap(advice, width, "", ""));
    }
    let _ = writeln!(out);
    match members {
        Err(why) => {
            let _ =
                write!(out, "{}", wrap(&format!("The members could not be asked: {why}"), width, "", "  "));
        }
        Ok(members) => {
            for member in members {
                let note = match &member.note {
                    None => "no word of a fix".to_owned(),
                    Some(note) => {
                        let stage = |stage: &_| {
                            serde_json::to_value(stage).ok().and_then(|v| v.as_str().map(str::to_owned))
                        };
                        let reached =
                            note.reached.as_ref().and_then(stage).unwrap_or_else(|| "nothing yet".to_owned());
                        let doing =
                            note.under_way.as_ref().and_then(stage).map(|s| format!(", {s} is under way"));
                        format!("{}: {reached} is done{}", note.rule, doing.unwrap_or_default())
                    }
                };
                let line = format!("{}  {}  {note}", member.name, member.peer_urls.join(","));
                let _ = write!(out, "{}", wrap(&line, width, "", "  "));
            }
        }
    }
    out
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn status_json(records: &[Record], members: Result<&[MemberStanding], &str>) -> String {
    let fix = |record: &Record| {
        json!({
            "id": record.id,
            "rule": record.plan.get("rule"),
            "stage": record.plan.get("stage"),
            "member": record.plan.pointer("/state/member"),
            "standing": standing(record.standing()).1.replace(' ', "-"),
            "entries": record.entries,
        })
    };
    document(&json!({
        "format": STATUS_FORMAT,
        "fixes": records.iter().map(fix).collect::<Vec<_>>(),
        "members": members.ok(),
        "members_error": members.err(),
    }))
    .unwrap_or_default()
}

/// Returns how to take the fixes back.
fn way_back(ids: &[String], width: usize) -> String {
    match ids.first() {
        None => String::new(),
        Some(first) => {
            let text = format!("Take it back with: seaworthy fix --rollback {first}");
            format!("\n{}", wrap(&text, width, "", "  "))
        }
    }
}

fn standing(standing: Standing) -> (Status, &'static str) {
    match standing {
        Standing::Done => (Status::Pass, "done"),
        Standing::Failed => (Status::Fail, "failed"),
        Standing::RolledBack => (Status::NotApplicable, "taken back"),
        Standing::RollingBack => (Status::Unknown, "going back"),
        Standing::Unfinished => (Status::Unknown, "unfinished"),
    }
}

fn event(record: &Record, event: &Event) -> String {
    let title = |step: &str| {
        let index: Option<usize> = step.parse().ok().and_then(|number: usize| number.checked_sub(1));
        let title = index
            .and_then(|index| record.plan.pointer(&format!("/steps/{index}/title")).and_then(Value::as_str));
        title.map_or_else(|| format!("step {step}"), |title| format!("step {step}, {title}"))
    };
    match event {
        Event::After { step, .. } => format!("{}: done", title(step)),
        Event::Before { step, .. } => format!("{}: begun", title(step)),
        Event::Begun { .. } => "begun".to_owned(),
        Event::Done => "complete and verified".to_owned(),
        Event::Failed { why, .. } => why.clone(),
        Event::RolledBack => "everything is as it was before".to_owned(),
        Event::RollingBack { why } => format!("to be taken back, because {why}"),
    }
}

fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
