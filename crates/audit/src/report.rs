//! The report: what an audit found, for the `report` crate to present.

use jiff::Timestamp;
use seaworthy_catalogue::{Assessment, Rule, Severity, Status};
use seaworthy_evidence::{EvidenceError, NodeLayout, Tool};

use crate::{Evidence, Judgement, Reason, WaiverNotice};

/// What an audit found about one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The program that took the snapshot.
    pub tool: Tool,
    /// The node's name.
    pub node: String,
    /// How the node is arranged, if that is known.
    pub layout: Option<NodeLayout>,
    /// The user id that the evidence was collected as, if that is known.
    pub user: Option<u32>,
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// Id and title of the benchmark that was asked for.
    pub benchmark: Option<(String, String)>,
    /// All findings, worst first.
    pub findings: Vec<Finding>,
    /// All controls of the benchmark in its order; empty without one.
    pub controls: Vec<ControlResult>,
    /// How many of them no rule judges, where the whole benchmark was asked for.
    pub unjudged: usize,
    /// What could not be read while looking for components.
    pub blind_spots: Vec<EvidenceError>,
    /// Waivers that have expired or match nothing.
    pub waiver_notices: Vec<WaiverNotice>,
}

/// What was found about one rule and one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Rule id.
    pub rule: String,
    /// The rule's title.
    pub title: String,
    /// The rule's severity.
    pub severity: Severity,
    /// `(benchmark id, control number)` of each control the rule implements.
    pub controls: Vec<(String, String)>,
    /// The component that was judged, or `node`.
    pub component: String,
    /// What was judged.
    pub resource: String,
    /// The verdict.
    pub status: Status,
    /// Why: the checks that failed or could not be judged, or the condition that made the rule not apply.
    pub reasons: Vec<Reason>,
    /// Checks that only corroborate and could not be judged.
    pub uncorroborated: Vec<Reason>,
    /// What was proved; empty unless it passes.
    pub summary: Option<String>,
    /// Remarks that decided nothing.
    pub notes: Vec<String>,
    /// The evidence that was looked at.
    pub evidence: Vec<Evidence>,
    /// What to do: one paragraph for each thing that the failed checks ask for, in their order. Empty unless it fails.
    pub remedies: Vec<String>,
    /// Whether there is a fix for what was judged.
    pub fixable: bool,
    /// The reviewed exception that covers it. The status stays what it is.
    pub waived: Option<String>,
}

/// The result of one control of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlResult {
    /// Its number.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Number and title of its section.
    pub section: String,
    /// Whether the benchmark publishes it as automated or manual.
    pub assessment: Assessment,
    /// The worst status of its findings; null when no rule implements it or none was selected.
    pub status: Option<Status>,
    /// The rules that implement it.
    pub rules: Vec<String>,
    /// Whether any rule implements it.
    pub implemented: bool,
    /// Why no rule implements it, or what of it the rules do not cover.
    pub remark: Option<String>,
}

/// How much of what applies passes, and how much could be judged at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// What passes.
    pub passed: usize,
    /// What could be judged, also by a person.
    pub judged: usize,
    /// What applies to the node, or may apply.
    pub applicable: usize,
}

/// How many findings there are of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub pass: usize,
    /// Failed, waived ones included.
    pub fail: usize,
    /// Not applicable.
    pub not_applicable: usize,
    /// For a person to judge.
    pub manual: usize,
    /// Evidence could not be had.
    pub unknown: usize,
    /// Of the failed ones, those that a valid waiver covers.
    pub waived: usize,
}

impl Report {
    /// Returns the number of findings of each status.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for finding in &self.findings {
            counts.add(finding.status);
            if finding.status == Status::Fail && finding.waived.is_some() {
                counts.waived += 1;
            }
        }
        counts
    }

    /// Returns whether a finding of at least `severity` failed and is not waived.
    pub fn fails_at(&self, severity: Severity) -> bool {
        self.findings.iter().any(|f| f.status == Status::Fail && f.severity >= severity && f.waived.is_none())
    }

    /// Returns how many findings pass, could be judged, and apply; of a benchmark, how many of its controls. Where they are to be
    /// `corroborated`, what passes without all its second witnesses does not count as judged.
    pub fn score(&self, corroborated: bool) -> Score {
        let alone = |rule: &str| corroborated && self.uncorroborated().any(|finding| finding.rule == rule);
        let of = |status: Status, alone: bool| Score {
            passed: usize::from(status == Status::Pass),
            judged: usize::from(!matches!(status, Status::NotApplicable | Status::Unknown) && !alone),
            applicable: usize::from(status != Status::NotApplicable),
        };
        let all: Vec<Score> = match &self.benchmark {
            None => self.findings.iter().map(|finding| of(finding.status, alone(&finding.rule))).collect(),
            Some(_) => {
                let judged = self.controls.iter().filter_map(|control| Some((control, control.status?)));
                judged
                    .map(|(control, status)| of(status, control.rules.iter().any(|rule| alone(rule))))
                    .collect()
            }
        };
        let sum = |part: fn(&Score) -> usize| all.iter().map(part).sum::<usize>();
        Score {
            passed: sum(|score| score.passed),
            judged: sum(|score| score.judged),
            applicable: sum(|score| score.applicable) + self.unjudged,
        }
    }

    /// Returns the share of what applies that could be judged, in percent; 100 when nothing applies.
    pub fn coverage(&self, corroborated: bool) -> f64 {
        let score = self.score(corroborated);
        if score.applicable == 0 { 100.0 } else { 100.0 * score.judged as f64 / score.applicable as f64 }
    }

    /// Returns the findings that pass without all their second witnesses, such as the wire.
    pub fn uncorroborated(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.status == Status::Pass && !f.uncorroborated.is_empty())
    }
}

impl Counts {
    /// Counts one more with this status.
    pub fn add(&mut self, status: Status) {
        let count = match status {
            Status::Pass => &mut self.pass,
            Status::Fail => &mut self.fail,
            Status::NotApplicable => &mut self.not_applicable,
            Status::Manual => &mut self.manual,
            Status::Unknown => &mut self.unknown,
        };
        *count += 1;
    }
}

impl Finding {
    pub(crate) fn new(
        rule: &Rule,
        controls: Vec<(String, String)>,
        component: &str,
        resource: &str,
        judgement: Judgement,
    ) -> Self {
        let mut remedies: Vec<String> = Vec::new();
        for remedy in judgement.reasons.iter().flat_map(|reason| &reason.remedies) {
            if !remedies.contains(remedy) {
                remedies.push(remedy.clone());
            }
        }
        Self {
            rule: rule.id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            controls,
            component: component.to_owned(),
            resource: resource.to_owned(),
            status: judgement.status,
            reasons: judgement.reasons,
            uncorroborated: judgement.uncorroborated,
            summary: judgement.summary,
            notes: judgement.notes,
            evidence: judgement.evidence,
            remedies,
            fixable: rule.fix.as_ref().is_some_and(|fix| fix.is_for(component)),
            waived: None,
        }
    }
}
