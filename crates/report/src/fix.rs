//! How a fix ended, and how all fixes of a node stand, for a terminal or a script.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use seaworthy_catalogue::Status;
use seaworthy_journal::record::{Entry, Event, Record, Standing};
use seaworthy_remedy::apply::{Outcome, Progress};
use seaworthy_remedy::note::Note;
use seaworthy_remedy::plan::{Plan, Refusal, Waiting};
use serde::Serialize;
use serde_json::Value;

use crate::json::{printed, printed_schema};
use crate::plan;
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`outcome_json`].
pub const OUTCOME_FORMAT: &str = "seaworthy.dev/fix-outcome/v1";
/// Identifier of its JSON Schema.
pub const OUTCOME_SCHEMA_ID: &str = "https://seaworthy.dev/schemas/fix-outcome-v1.json";
/// The format of [`status_json`].
pub const STATUS_FORMAT: &str = "seaworthy.dev/fix-status/v1";
/// Identifier of its JSON Schema.
pub const STATUS_SCHEMA_ID: &str = "https://seaworthy.dev/schemas/fix-status-v1.json";

/// How a member is, as far as it shows from this node.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Member")]
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
            let (word, what) = match (ids.is_empty(), verified.is_empty()) {
                (true, _) => ("NOTHING TO DO", format!("{rule} passes")),
                (false, true) => ("DONE", "what was begun is finished, and each step verified".to_owned()),
                (false, false) => ("DONE", format!("{rule} passes")),
            };
            verdict(Status::Pass, word, &what);
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
    printed(&OutcomeDocument { format: OUTCOME_FORMAT, rule, outcome: Ended::from(outcome) })
}

/// Returns the JSON Schema (2020-12) of [`outcome_json`].
pub fn outcome_json_schema() -> Value {
    printed_schema::<OutcomeDocument<'_>>(OUTCOME_SCHEMA_ID)
}

/// How a fix ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FixOutcome")]
struct OutcomeDocument<'a> {
    /// Identifies the format.
    #[schemars(extend("const" = OUTCOME_FORMAT))]
    format: &'static str,
    /// The rule that was to pass.
    rule: &'a str,
    #[serde(flatten)]
    outcome: Ended<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Ended<'a> {
    /// The rule passes.
    Done {
        /// Ids of the fixes that were made; none when it passed already.
        fixes: &'a [String],
        /// What was verified at the end.
        verified: &'a [String],
    },
    /// Nothing is left to be done by this fix, and the rule does not pass all the same.
    NotProven {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
        /// What is missing.
        why: &'a str,
    },
    /// Something is against it. What was done before stays, and is safe.
    Refused {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
        /// The plan that is refused; null when there is none.
        plan: Option<&'a Plan>,
        /// What is against it.
        refusals: &'a [Refusal],
    },
    /// It was taken back: because something went wrong, or because it was asked for.
    RolledBack {
        /// Id of the fix.
        fixes: [&'a str; 1],
        /// Why.
        why: &'a str,
    },
    /// Something went wrong, and could not be taken back either.
    Stopped {
        /// Id of the fix.
        fixes: [&'a str; 1],
        /// What went wrong, and what kept it from being taken back.
        why: &'a str,
    },
    /// Other members have not got so far yet. What was done before stays, and is safe.
    Waiting {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
        /// What is waited for.
        waits_for: &'a [Waiting],
        /// What a person has to do.
        by_hand: &'a [String],
    },
    /// In a way that this version cannot tell.
    Unknown,
}

impl<'a> From<&'a Outcome> for Ended<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Done { ids, verified } => Self::Done { fixes: ids, verified },
            Outcome::NotProven { ids, why } => Self::NotProven { fixes: ids, why },
            Outcome::Refused { ids, plan, refusals } => {
                Self::Refused { fixes: ids, plan: plan.as_deref(), refusals }
            }
            Outcome::RolledBack { id, why } => Self::RolledBack { fixes: [id], why },
            Outcome::Stopped { id, why } => Self::Stopped { fixes: [id], why },
            Outcome::Waiting { ids, waits_for, by_hand } => Self::Waiting { fixes: ids, waits_for, by_hand },
            _ => Self::Unknown,
        }
    }
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
    printed(&StatusDocument {
        format: STATUS_FORMAT,
        fixes: records.iter().map(WrittenDown::from).collect(),
        members: members.ok(),
        members_error: members.err(),
    })
}

/// Returns the JSON Schema (2020-12) of [`status_json`].
pub fn status_json_schema() -> Value {
    printed_schema::<StatusDocument<'_>>(STATUS_SCHEMA_ID)
}

/// How all fixes of a node stand, and how far the members are.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FixStatus")]
struct StatusDocument<'a> {
    /// Identifies the format.
    #[schemars(extend("const" = STATUS_FORMAT))]
    format: &'static str,
    /// The fixes that were begun on this node, oldest first.
    fixes: Vec<WrittenDown<'a>>,
    /// The members of the cluster, by name; null when they are not known.
    members: Option<&'a [MemberStanding]>,
    /// Why they are not known; null when they are.
    members_error: Option<&'a str>,
}

/// What is written down of a fix.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Fix")]
struct WrittenDown<'a> {
    /// Its id.
    id: &'a str,
    /// The rule; null when its plan does not say so.
    rule: Option<&'a str>,
    /// The stage of its plan; null when that does not say so. Another version may know others.
    stage: Option<&'a str>,
    /// Name of the member; null when its plan does not say so.
    member: Option<&'a str>,
    /// How it stands.
    standing: FixStanding,
    /// Its journal, in order.
    entries: Vec<Line<'a>>,
}

/// How a fix stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum FixStanding {
    /// Complete and verified.
    Done,
    /// Its last step has failed.
    Failed,
    /// Being taken back, or killed meanwhile.
    GoingBack,
    /// Everything is as it was before.
    TakenBack,
    /// Under way, or killed.
    Unfinished,
}

/// A line of the journal.
#[derive(Debug, Serialize, JsonSchema)]
struct Line<'a> {
    /// Its number, from 0.
    number: u64,
    /// When it was written.
    at: Timestamp,
    #[serde(flatten)]
    event: Happened<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Happened<'a> {
    /// A step has been carried out.
    After {
        /// Its number in the plan, from 1; with `back-` in front on the way back.
        step: &'a str,
        /// What is needed to go on or back. Its form may change.
        facts: &'a Value,
    },
    /// A step is about to be carried out.
    Before {
        /// Its number in the plan, from 1; with `back-` in front on the way back.
        step: &'a str,
        /// What is needed to take it back. Its form may change.
        facts: &'a Value,
    },
    /// The fix has begun.
    Begun {
        /// SHA-256 of its plan.
        plan: &'a str,
    },
    /// The fix is complete and verified.
    Done,
    /// A step has failed.
    Failed {
        /// Its number in the plan, or `back`.
        step: &'a str,
        /// Why.
        why: &'a str,
    },
    /// Everything is as it was before.
    RolledBack,
    /// From here on it is taken back.
    RollingBack {
        /// Why.
        why: &'a str,
    },
}

impl<'a> From<&'a Record> for WrittenDown<'a> {
    fn from(record: &'a Record) -> Self {
        let text = |pointer: &str| record.plan.pointer(pointer).and_then(Value::as_str);
        Self {
            id: &record.id,
            rule: text("/rule"),
            stage: text("/stage"),
            member: text("/state/member"),
            standing: match record.standing() {
                Standing::Done => FixStanding::Done,
                Standing::Failed => FixStanding::Failed,
                Standing::RolledBack => FixStanding::TakenBack,
                Standing::RollingBack => FixStanding::GoingBack,
                Standing::Unfinished => FixStanding::Unfinished,
            },
            entries: record.entries.iter().map(Line::from).collect(),
        }
    }
}

impl<'a> From<&'a Entry> for Line<'a> {
    fn from(entry: &'a Entry) -> Self {
        let event = match &entry.event {
            Event::After { step, facts } => Happened::After { step, facts },
            Event::Before { step, facts } => Happened::Before { step, facts },
            Event::Begun { plan } => Happened::Begun { plan },
            Event::Done => Happened::Done,
            Event::Failed { step, why } => Happened::Failed { step, why },
            Event::RolledBack => Happened::RolledBack,
            Event::RollingBack { why } => Happened::RollingBack { why },
        };
        Self { number: entry.number, at: entry.at, event }
    }
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
