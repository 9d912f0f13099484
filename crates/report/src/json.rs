//! The report as versioned JSON.

use jiff::Timestamp;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use seaworthy_audit as audit;
use seaworthy_evidence::{EvidenceError, Origin, Tool};
use serde::Serialize;
use serde_json::Value;

/// The format that this version writes.
pub const FORMAT: &str = "seaworthy.dev/report/v1";
/// Identifier of its JSON Schema.
pub const SCHEMA_ID: &str = "https://seaworthy.dev/schemas/report-v1.json";

/// Returns `report` as a JSON document, indented, with a final newline.
pub fn render(report: &audit::Report) -> String {
    printed(&Report::from(report))
}

/// Returns one report as a document, and several as an array of documents.
pub fn render_all(reports: &[audit::Report]) -> String {
    match reports {
        [one] => render(one),
        many => {
            let all: Vec<Report> = many.iter().map(Report::from).collect();
            printed(&all)
        }
    }
}

/// Returns the JSON Schema (2020-12) of the document.
pub fn json_schema() -> Value {
    identified(schemars::schema_for!(Report), SCHEMA_ID)
}

/// Returns `document` indented, with a final newline.
pub(crate) fn printed(document: &impl Serialize) -> String {
    crate::document(document).unwrap_or_default()
}

/// Returns the JSON Schema (2020-12) of a document that is only ever printed: what may be null is there all the same.
pub(crate) fn printed_schema<T: JsonSchema>(id: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    identified(generator.into_root_schema_for::<T>(), id)
}

fn identified(schema: Schema, id: &str) -> Value {
    let mut schema = schema.to_value();
    if let Some(object) = schema.as_object_mut() {
        object.shift_insert(1, "$id".to_owned(), id.into());
    }
    schema
}

/// What an audit found about one node.
#[derive(Debug, Serialize, JsonSchema)]
struct Report {
    /// Identifies the format.
    format: &'static str,
    /// The program that took the snapshot.
    tool: Tool,
    /// The node's name.
    node: String,
    /// When the snapshot was taken.
    taken_at: Timestamp,
    /// The benchmark that was asked for; null without one.
    benchmark: Option<Benchmark>,
    /// How many findings there are of each status.
    summary: Summary,
    /// All findings, worst first.
    findings: Vec<Finding>,
    /// All controls of the benchmark, in its order; empty without one.
    controls: Vec<Control>,
    /// What could not be read while looking for components.
    blind_spots: Vec<EvidenceError>,
    /// Waivers that have expired or match nothing.
    waiver_notices: Vec<String>,
}

/// A benchmark.
#[derive(Debug, Serialize, JsonSchema)]
struct Benchmark {
    /// Its id.
    id: String,
    /// Its title.
    title: String,
}

/// Numbers of findings, and of controls that nothing implements.
#[derive(Debug, Serialize, JsonSchema)]
struct Summary {
    pass: usize,
    fail: usize,
    /// Those of the failed that a valid waiver covers.
    waived: usize,
    not_applicable: usize,
    manual: usize,
    unknown: usize,
    /// Controls of the benchmark that no rule implements yet; 0 without a benchmark.
    controls_not_implemented: usize,
    /// Share of the applicable findings that could be judged, in percent.
    coverage: f64,
    /// Those of the passed of which a second witness, such as the wire, was silent.
    uncorroborated: usize,
}

/// What was found about one rule and one resource.
#[derive(Debug, Serialize, JsonSchema)]
struct Finding {
    /// Rule id.
    rule: String,
    /// The requirement.
    title: String,
    /// `low`, `medium`, `high` or `critical`.
    severity: &'static str,
    /// Name of the component that it is about, or `node`.
    component: String,
    /// What was judged.
    resource: String,
    /// `pass`, `fail`, `not-applicable`, `manual` or `unknown`.
    status: &'static str,
    /// The controls that the rule implements.
    controls: Vec<ControlRef>,
    /// Why: failed checks, checks that could not be judged, or why the rule does not apply.
    reasons: Vec<Reason>,
    /// Checks by second witnesses, such as the wire, that could not be judged: they neither confirm the verdict nor contradict it.
    uncorroborated: Vec<Reason>,
    /// What was proved; null unless it passes.
    summary: Option<String>,
    /// Remarks that decided nothing.
    notes: Vec<String>,
    /// Every fact that was looked at.
    evidence: Vec<Evidence>,
    /// What to do, in short, a line for each thing, in this order; commands and settings are in backticks. Null unless it fails.
    remedy: Option<String>,
    /// Whether `seaworthy fix` has a plan for it.
    fixable: bool,
    /// Reason, owner and end of the waiver that covers it; null without one.
    waived: Option<String>,
}

/// A control of a benchmark.
#[derive(Debug, Serialize, JsonSchema)]
struct ControlRef {
    /// Benchmark id.
    benchmark: String,
    /// Control number.
    id: String,
}

/// Something that decided a finding.
#[derive(Debug, Serialize, JsonSchema)]
struct Reason {
    /// Name of the check; null when it is about the applicability or all of the evidence.
    check: Option<String>,
    /// What the check made of it.
    status: &'static str,
    /// The sentence for the reader.
    message: String,
    /// The facts behind it.
    evidence: Vec<Evidence>,
}

/// A fact and where it was observed.
#[derive(Debug, Serialize, JsonSchema)]
struct Evidence {
    /// Its name in the snapshot, relative to the resource.
    path: String,
    /// The fact in a few words; null when it could not be observed.
    value: Option<String>,
    /// Where it was observed.
    origin: Option<Origin>,
    /// The origin in words.
    source: Option<String>,
    /// Why it could not be observed.
    error: Option<EvidenceError>,
}

/// The result of one control.
#[derive(Debug, Serialize, JsonSchema)]
struct Control {
    /// Its number.
    id: String,
    /// Its title, in our words.
    title: String,
    /// Its section.
    section: String,
    /// `automated` or `manual`, as published.
    assessment: &'static str,
    /// The worst status of its findings, or `not-implemented`, or `not-selected`.
    status: &'static str,
    /// The rules that implement it.
    rules: Vec<String>,
    /// Why nothing implements it, or what of it is not covered.
    remark: Option<String>,
}

impl From<&audit::Report> for Report {
    fn from(report: &audit::Report) -> Self {
        let counts = report.counts();
        Self {
            format: FORMAT,
            tool: report.tool.clone(),
            node: report.node.clone(),
            taken_at: report.taken_at,
            benchmark: report.benchmark.clone().map(|(id, title)| Benchmark { id, title }),
            summary: Summary {
                pass: counts.pass,
                fail: counts.fail,
                waived: counts.waived,
                not_applicable: counts.not_applicable,
                manual: counts.manual,
                unknown: counts.unknown,
                controls_not_implemented: report.controls.iter().filter(|c| !c.implemented).count(),
                coverage: (report.coverage(false) * 10.0).round() / 10.0,
                uncorroborated: report.uncorroborated().count(),
            },
            findings: report.findings.iter().map(Finding::from).collect(),
            controls: report.controls.iter().map(Control::from).collect(),
            blind_spots: report.blind_spots.clone(),
            waiver_notices: report.waiver_notices.iter().map(|n| n.message.clone()).collect(),
        }
    }
}

impl From<&audit::Finding> for Finding {
    fn from(finding: &audit::Finding) -> Self {
        let failed = finding.status == seaworthy_catalogue::Status::Fail;
        Self {
            rule: finding.rule.clone(),
            title: finding.title.clone(),
            severity: finding.severity.name(),
            component: finding.component.clone(),
            resource: finding.resource.clone(),
            status: finding.status.name(),
            controls: finding
                .controls
                .iter()
                .map(|(benchmark, id)| ControlRef { benchmark: benchmark.clone(), id: id.clone() })
                .collect(),
            reasons: finding.reasons.iter().map(Reason::from).collect(),
            uncorroborated: finding.uncorroborated.iter().map(Reason::from).collect(),
            summary: finding.summary.clone(),
            notes: finding.notes.clone(),
            evidence: finding.evidence.iter().map(Evidence::from).collect(),
            remedy: failed.then(|| finding.remedies.join("\n")),
            fixable: failed && finding.fixable,
            waived: finding.waived.clone(),
        }
    }
}

impl From<&audit::Reason> for Reason {
    fn from(reason: &audit::Reason) -> Self {
        Self {
            check: Some(reason.check.clone()).filter(|name| !name.is_empty()),
            status: reason.status.name(),
            message: reason.message.clone(),
            evidence: reason.evidence.iter().map(Evidence::from).collect(),
        }
    }
}

impl From<&audit::Evidence> for Evidence {
    fn from(fact: &audit::Evidence) -> Self {
        Self {
            path: fact.path.clone(),
            value: fact.error.is_none().then(|| fact.value.clone()),
            origin: fact.origin.clone(),
            source: fact.origin.as_ref().map(Origin::to_string),
            error: fact.error.clone(),
        }
    }
}

impl From<&audit::ControlResult> for Control {
    fn from(control: &audit::ControlResult) -> Self {
        Self {
            id: control.id.clone(),
            title: control.title.clone(),
            section: control.section.clone(),
            assessment: match control.assessment {
                seaworthy_catalogue::Assessment::Automated => "automated",
                seaworthy_catalogue::Assessment::Manual => "manual",
            },
            status: match control.status {
                Some(status) => status.name(),
                None if control.implemented => "not-selected",
                None => "not-implemented",
            },
            rules: control.rules.clone(),
            remark: control.remark.clone(),
        }
    }
}
