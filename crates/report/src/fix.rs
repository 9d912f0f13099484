//! How a run ended, and how all fixes of a node stand, for a terminal or a script.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use seaworthy_catalogue::Status;
use seaworthy_journal::record::{Damaged, Entry, Event, Facts, Written};
use seaworthy_remedy::executor::{Outcome, Progress};
use seaworthy_remedy::history::{self, Fix};
use seaworthy_remedy::plan::{Plan, Refusal, Until, Waiting};
use seaworthy_remedy::progress::ProgressRecord;
use serde::Serialize;
use serde_json::Value;

use crate::json::{printed, printed_schema};
use crate::plan;
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`outcome_json`].
pub const OUTCOME_FORMAT: &str = "seaworthy.dev/fix-outcome/v2";
/// Identifier of its JSON Schema.
pub const OUTCOME_SCHEMA_ID: &str = "https://seaworthy.dev/schemas/fix-outcome-v2.json";
/// The format of [`status_json`].
pub const STATUS_FORMAT: &str = "seaworthy.dev/fix-status/v2";
/// Identifier of its JSON Schema.
pub const STATUS_SCHEMA_ID: &str = "https://seaworthy.dev/schemas/fix-status-v2.json";

/// Where the lines about one fix begin.
const INDENT: &str = "              ";

/// What is known of the fixes of a node, and of the members of its cluster.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// The fixes, oldest first.
    pub fixes: Vec<FixStanding<'a>>,
    /// The records that cannot be used.
    pub damaged: &'a [Damaged],
    /// The members, by name, or why they are not known.
    pub members: Result<Vec<MemberStanding>, String>,
}

/// How a fix stands.
#[derive(Clone, Debug)]
pub struct FixStanding<'a> {
    /// The fix.
    pub fix: &'a Fix,
    /// How it stands.
    pub status: history::Status,
    /// Why it cannot be rolled back now; empty when it can, `None` when there is nothing to roll back.
    pub rollback: Option<Vec<Refusal>>,
    /// How to get out of it, where it is not ended.
    pub way_out: Vec<WayOut>,
}

/// A way out of a fix that is not ended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WayOut {
    /// Where it leads.
    pub to: String,
    /// Commands and edits, in order.
    pub commands: Vec<String>,
}

/// How a member is, as far as it shows from this node.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Member")]
pub struct MemberStanding {
    /// Its name, or its id when it has none.
    pub name: String,
    /// The URLs at which its peers are told to dial it.
    pub peer_urls: Vec<String>,
    /// What it has published; null when it has not.
    pub progress: Option<ProgressRecord>,
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
        Progress::Remark { what } => wrap(&format!("note: {what}"), width, "  ", "    "),
        _ => String::new(),
    }
}

/// Returns how a run ended as text with ANSI styles. `command` is what was run, with the options that were given.
pub fn outcome_text(rule: &str, outcome: &Outcome, command: &str, width: usize) -> String {
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
            let _ = write!(out, "{}", how_to_roll_back(ids, width));
        }
        Outcome::Interrupted { ids } => {
            verdict(Status::Unknown, "INTERRUPTED", "nothing is half-done on this node");
            let _ = write!(out, "{}", wrap(&format!("Go on with: {command} --apply"), width, "", "  "));
            let _ = write!(out, "{}", how_to_roll_back(ids, width));
        }
        Outcome::NotProven { ids, why } => {
            verdict(Status::Fail, "NOT PROVEN", &format!("this fix has nothing left to do, and {why}"));
            let _ = write!(out, "{}", how_to_roll_back(ids, width));
        }
        Outcome::Refused { ids, plan, refusals } => {
            let _ = write!(out, "{}", plan::text(plan.as_deref(), refusals, command, width));
            let _ = write!(out, "{}", how_to_roll_back(ids, width));
        }
        Outcome::RolledBack { id, why } => {
            verdict(Status::Fail, "ROLLED BACK", &format!("fix {id}: {why}"));
        }
        Outcome::Stopped { id, why } => {
            verdict(Status::Fail, "STOPPED", &format!("fix {id} is neither done nor rolled back: {why}"));
            let advice = format!(
                "Put right what blocks it, and run seaworthy fix --resume {id}; seaworthy fix --status says what else can \
                 be done, also by hand."
            );
            let _ = write!(out, "{}", wrap(&advice, width, "", ""));
        }
        Outcome::Waiting { ids, waits_for, by_hand } => {
            verdict(Status::Unknown, "WAIT", "what was to be done here so far is done");
            for waiting in waits_for {
                let _ = write!(out, "{}", wrap(&waiting.to_string(), width, "   ", "     "));
            }
            let back = waits_for.iter().any(|waiting| waiting.until == Until::RolledBack);
            if by_hand.is_empty() && back {
                let advice = format!(
                    "Run seaworthy fix --rollback --apply there, and then here again: {command} --apply"
                );
                let _ = write!(out, "{}", wrap(&advice, width, "", "  "));
            } else if by_hand.is_empty() {
                let advice = format!("Run it there, and here again: {command} --apply");
                let _ = write!(out, "{}", wrap(&advice, width, "", "  "));
            }
            for text in by_hand {
                let _ = write!(out, "{}", wrap(&text.replace('`', ""), width, "", ""));
            }
            let _ = write!(out, "{}", how_to_roll_back(ids, width));
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
    /// The record was closed, or set aside; nothing else was changed.
    Closed {
        /// Id of the fix.
        fixes: [&'a str; 1],
        /// Where a damaged record is now; null for one that was closed.
        aside: Option<String>,
    },
    /// The rule passes.
    Done {
        /// Ids of the fixes that were made; none when it passed already.
        fixes: &'a [String],
        /// What was verified at the end.
        verified: &'a [String],
    },
    /// The run was asked to end, and has ended where that is safe.
    Interrupted {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
    },
    /// Nothing is left to be done by this fix, and the rule does not pass all the same.
    NotProven {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
        /// What is missing.
        why: &'a str,
    },
    /// The plan must not be carried out. What was done before stays, and is safe.
    Refused {
        /// Ids of the fixes that were made.
        fixes: &'a [String],
        /// The plan that is refused; null when there is none.
        plan: Option<&'a Plan>,
        /// Why.
        refusals: &'a [Refusal],
    },
    /// It was rolled back: because something went wrong, or because the operator asked for it.
    RolledBack {
        /// Id of the fix.
        fixes: [&'a str; 1],
        /// Why.
        why: &'a str,
    },
    /// Something went wrong, and could not be rolled back either.
    Stopped {
        /// Id of the record that is not ended.
        fixes: [&'a str; 1],
        /// What went wrong, and what kept it from being rolled back.
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
            Outcome::Interrupted { ids } => Self::Interrupted { fixes: ids },
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

/// Returns how the fixes of a node and the members stand, as text with ANSI styles.
pub fn status_text(standing: &Standing<'_>, width: usize) -> String {
    let mut out = String::new();
    if standing.fixes.is_empty() && standing.damaged.is_empty() {
        let _ = writeln!(out, "{}", paint(BOLD, "No fix was carried out on this node."));
    }
    for one in &standing.fixes {
        let (status, word) = word(one.status);
        let (fix, plan) = (one.fix, &one.fix.plan);
        let what = match &plan.rollback_of {
            Some(undone) => format!("rollback of {undone}"),
            None => stage(&plan.stage),
        };
        let line = format!("{}  {} of {}, {what}", fix.id(), plan.rule, plan.state.member);
        let _ = writeln!(out, "{}  {}", paint(style::of(status), format!("{word:<12}")), plain(&line));
        if let Some(entry) = fix.record.entries.last() {
            let last = format!("{}: {}", time(entry.at), event(plan, &entry.event));
            let _ = writeln!(out, "{}", paint(DIM, wrap(&last, width, INDENT, INDENT).trim_end()));
        }
        let line = |text: &str| wrap(text, width, INDENT, &format!("{INDENT}  "));
        match &one.rollback {
            Some(refusals) if refusals.is_empty() => {
                out += &line(&format!("it can be rolled back: seaworthy fix --rollback {}", fix.id()));
            }
            Some(refusals) => {
                for refusal in refusals {
                    out += &line(&format!(
                        "it cannot be rolled back: {}; do: {}",
                        refusal.what,
                        refusal.instead.replace('`', "")
                    ));
                }
            }
            None => {}
        }
        for way in &one.way_out {
            out += &line(&format!("{}:", way.to));
            for command in &way.commands {
                // A command is not wrapped, so that it can be copied.
                let _ = writeln!(out, "{INDENT}    {}", plain(command));
            }
        }
    }
    for damaged in standing.damaged {
        let line = format!("{}: {}", damaged.id, damaged.why);
        let text = wrap(&line, width, INDENT, INDENT);
        let word = paint(style::of(Status::Fail), format!("{:<12}", "damaged"));
        let _ = writeln!(out, "{word}  {}", text.trim());
        let advice = format!("look what it did, and set it aside: seaworthy fix --forget {}", damaged.id);
        let _ = write!(out, "{}", wrap(&advice, width, INDENT, &format!("{INDENT}  ")));
    }
    let _ = writeln!(out);
    match &standing.members {
        Err(why) => {
            let _ =
                write!(out, "{}", wrap(&format!("The members could not be asked: {why}"), width, "", "  "));
        }
        Ok(members) => {
            for member in members {
                let progress = match &member.progress {
                    None => "has published no progress".to_owned(),
                    Some(record) => {
                        let reached = record.reached.as_ref().map_or_else(|| "nothing yet".to_owned(), stage);
                        let doing = record.under_way.as_ref().map(|s| format!(", {} is under way", stage(s)));
                        format!("{}: {reached} is done{}", record.rule, doing.unwrap_or_default())
                    }
                };
                let line = format!("{}  {}  {progress}", member.name, member.peer_urls.join(","));
                let _ = write!(out, "{}", wrap(&line, width, "", "  "));
            }
        }
    }
    out
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn status_json(standing: &Standing<'_>) -> String {
    printed(&StatusDocument {
        format: STATUS_FORMAT,
        fixes: standing.fixes.iter().map(FixDocument::from).collect(),
        damaged: standing.damaged.iter().map(|d| DamagedDocument { id: &d.id, why: &d.why }).collect(),
        members: standing.members.as_deref().ok(),
        members_error: standing.members.as_ref().err().map(String::as_str),
    })
}

/// Returns the JSON Schema (2020-12) of [`status_json`].
pub fn status_json_schema() -> Value {
    printed_schema::<StatusDocument<'_>>(STATUS_SCHEMA_ID)
}

/// Returns what closing the record of a fix means, as text with ANSI styles.
pub fn forget_text(fix: &Fix, status: history::Status, width: usize) -> String {
    let steps = &fix.plan.steps;
    let mut text = format!("Closing {} of {}:\n", fix.id(), fix.rule());
    let mut line = |what: &str| text += &wrap(what, width, "  ", "    ");
    let ended = matches!(status, history::Status::RolledBack | history::Status::Closed);
    for (index, step) in steps.iter().enumerate().filter(|_| !ended) {
        let name = Fix::step_name(index);
        let how = match (fix.record.is_after(&name), fix.record.before(&name).is_some()) {
            (true, _) => "done, and stays as it is",
            (false, true) => "begun, and may be half-done",
            (false, false) => "not begun, and will not be",
        };
        line(&format!("{}/{} {}: {how}", index + 1, steps.len(), step.title));
    }
    line(match status {
        history::Status::Done => {
            "It is complete. From now on it is neither listed as standing nor rolled back by seaworthy."
        }
        history::Status::RolledBack => "It is rolled back already; nothing depends on its record.",
        history::Status::Closed => "It is closed already.",
        _ => {
            "It is neither finished nor rolled back from now on: whether the member is well is for you to see \
             (seaworthy audit). Its record and what its files were before stay on this node."
        }
    });
    text
}

/// Returns that the record of a fix was closed, or set aside, as text.
pub fn forgotten_text(id: &str, aside: Option<&Path>, width: usize) -> String {
    let text = match aside {
        Some(path) => format!("SET ASIDE  the record of fix {id} is {} now", path.display()),
        None => format!("CLOSED  fix {id} is neither finished nor rolled back any more; nothing was changed"),
    };
    wrap(&text, width, "", "  ")
}

/// Returns the same as one JSON document, indented, with a final newline.
pub fn forgotten_json(rule: &str, id: &str, aside: Option<&Path>) -> String {
    let aside = aside.map(|path| path.display().to_string());
    printed(&OutcomeDocument { format: OUTCOME_FORMAT, rule, outcome: Ended::Closed { fixes: [id], aside } })
}

/// How all fixes of a node stand, and how far the members are.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FixStatus")]
struct StatusDocument<'a> {
    /// Identifies the format.
    #[schemars(extend("const" = STATUS_FORMAT))]
    format: &'static str,
    /// The fixes that were begun on this node, oldest first, rollbacks among them.
    fixes: Vec<FixDocument<'a>>,
    /// The records that cannot be used.
    damaged: Vec<DamagedDocument<'a>>,
    /// The members of the cluster, by name; null when they are not known.
    members: Option<&'a [MemberStanding]>,
    /// Why they are not known; null when they are.
    members_error: Option<&'a str>,
}

/// A record that cannot be used.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DamagedRecord")]
struct DamagedDocument<'a> {
    /// Its id.
    id: &'a str,
    /// What is wrong with it.
    why: &'a str,
}

/// A fix, or the rollback of one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Fix")]
struct FixDocument<'a> {
    /// Its id.
    id: &'a str,
    /// The rule.
    rule: &'a str,
    /// The stage of its plan.
    stage: String,
    /// Name of the member.
    member: &'a str,
    /// Id of the fix that it rolls back; null when it makes one.
    rollback_of: Option<&'a str>,
    /// How it stands.
    status: history::Status,
    /// When the last line of its journal was written.
    at: Timestamp,
    /// Whether it can be rolled back now; null when there is nothing to roll back.
    can_be_rolled_back: Option<bool>,
    /// Why it cannot be rolled back.
    refusals: &'a [Refusal],
    /// How to get out of it, where it is not ended.
    way_out: &'a [WayOut],
    /// Its journal, in order.
    entries: Vec<Line<'a>>,
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
        /// Its number in the plan, from 1.
        step: &'a str,
        /// What it wrote. Its form may change.
        #[schemars(with = "Value")]
        facts: &'a Written,
    },
    /// A step is about to be carried out.
    Before {
        /// Its number in the plan, from 1.
        step: &'a str,
        /// What is needed to undo it. Its form may change.
        #[schemars(with = "Value")]
        facts: &'a Facts,
    },
    /// The fix has begun.
    Begun {
        /// SHA-256 of its plan.
        plan: &'a str,
    },
    /// The operator has closed the record.
    Closed,
    /// The fix is complete and verified.
    Done,
    /// A step has failed.
    Failed {
        /// Its number in the plan.
        step: &'a str,
        /// Why.
        why: &'a str,
    },
    /// Everything is as it was before; in records of the first version.
    RolledBack,
    /// From here on it is rolled back; in records of the first version.
    RollingBack {
        /// Why.
        why: &'a str,
    },
}

impl<'a> From<&'a FixStanding<'a>> for FixDocument<'a> {
    fn from(one: &'a FixStanding<'a>) -> Self {
        let plan = &one.fix.plan;
        Self {
            id: one.fix.id(),
            rule: &plan.rule,
            stage: stage(&plan.stage),
            member: &plan.state.member,
            rollback_of: plan.rollback_of.as_deref(),
            status: one.status,
            at: one.fix.record.entries.last().map_or(Timestamp::UNIX_EPOCH, |entry| entry.at),
            can_be_rolled_back: one.rollback.as_ref().map(Vec::is_empty),
            refusals: one.rollback.as_deref().unwrap_or_default(),
            way_out: &one.way_out,
            entries: one.fix.record.entries.iter().map(Line::from).collect(),
        }
    }
}

impl<'a> From<&'a Entry> for Line<'a> {
    fn from(entry: &'a Entry) -> Self {
        let event = match &entry.event {
            Event::After { step, facts } => Happened::After { step, facts },
            Event::Before { step, facts } => Happened::Before { step, facts },
            Event::Begun { plan } => Happened::Begun { plan },
            Event::Closed => Happened::Closed,
            Event::Done => Happened::Done,
            Event::Failed { step, why } => Happened::Failed { step, why },
            Event::RolledBack => Happened::RolledBack,
            Event::RollingBack { why } => Happened::RollingBack { why },
        };
        Self { number: entry.number, at: entry.at, event }
    }
}

/// Returns how to roll the fixes back.
fn how_to_roll_back(ids: &[String], width: usize) -> String {
    match ids.first() {
        None => String::new(),
        Some(first) => {
            let text = format!("Roll it back with: seaworthy fix --rollback {first}");
            format!("\n{}", wrap(&text, width, "", "  "))
        }
    }
}

fn stage(stage: &seaworthy_remedy::plan::Stage) -> String {
    let value = serde_json::to_value(stage).unwrap_or_default();
    value.as_str().unwrap_or("?").to_owned()
}

fn word(status: history::Status) -> (Status, &'static str) {
    match status {
        history::Status::Closed => (Status::NotApplicable, "closed"),
        history::Status::Done => (Status::Pass, "done"),
        history::Status::Failed => (Status::Fail, "failed"),
        history::Status::RolledBack => (Status::NotApplicable, "rolled back"),
        history::Status::RollingBack => (Status::Unknown, "rolling back"),
        history::Status::Unfinished => (Status::Unknown, "unfinished"),
    }
}

fn event(plan: &Plan, event: &Event) -> String {
    let title = |step: &str| {
        let index: Option<usize> = step.parse().ok().and_then(|number: usize| number.checked_sub(1));
        let title = index.and_then(|index| plan.steps.get(index)).map(|step| &step.title);
        title.map_or_else(|| format!("step {step}"), |title| format!("step {step}, {title}"))
    };
    match event {
        Event::After { step, .. } => format!("{}: done", title(step)),
        Event::Before { step, .. } => format!("{}: begun", title(step)),
        Event::Begun { .. } => "begun".to_owned(),
        Event::Closed => "closed by the operator".to_owned(),
        Event::Done => "complete and verified".to_owned(),
        Event::Failed { why, .. } => why.clone(),
        Event::RolledBack => "everything is as it was before".to_owned(),
        Event::RollingBack { why } => format!("to be rolled back, because {why}"),
    }
}

fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
