//! The audit: `(catalogue, snapshot, options) → report`.
//!
//! Each rule is judged on each resource of its component by [`judge`]; a benchmark is then read off the findings.
//!
//! Architecture invariant: pure, synchronous and deterministic. No clock (time comes from the snapshot), no I/O, no
//! network crate, no async runtime. The same snapshot gives the same report, wherever and whenever it is audited.

mod fixture;
mod judge;
mod report;
mod trail;
mod waiver;

use rayon::prelude::*;
use seaworthy_catalogue::{Benchmark, Catalogue, Implementation, Rule, Status, Subject};
use seaworthy_components::Component;
use seaworthy_evidence::{Instance, Snapshot};
use serde_json::Value;

pub use fixture::{check_fixture, judge_fixture};
pub use judge::{Binding, Judgement, Reason, judge};
pub use report::{ControlResult, Counts, Finding, Report, Score};
pub use trail::Evidence;
pub use waiver::{Waiver, WaiverError, WaiverNotice, Waivers};

/// What to audit.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Globs (`*` matches anything) of rule ids or control numbers; empty means every rule.
    pub rules: Vec<String>,
    /// The benchmark to report on; without one, every rule is judged and no control listed.
    pub benchmark: Option<String>,
    /// Reviewed exceptions.
    pub waivers: Waivers,
}

/// Returns what `catalogue` says about `snapshot`. Names in `options` that select nothing select nothing; a caller that
/// wants an error checks with [`select`] and [`Catalogue::benchmark`] first.
pub fn audit(catalogue: &Catalogue, snapshot: &Snapshot, options: &Options) -> Report {
    let benchmark = options.benchmark.as_deref().and_then(|name| catalogue.benchmark(name));
    let evidence = serde_json::to_value(snapshot).unwrap_or_default();
    let mut findings: Vec<Finding> = select(catalogue, benchmark, &options.rules)
        .into_par_iter()
        .flat_map_iter(|rule| judge_rule(catalogue, rule, snapshot, &evidence))
        .filter(|finding| is_selected(finding, benchmark, &options.rules))
        .collect();
    let waiver_notices = options.waivers.apply(&mut findings, snapshot.taken_at);
    // Worst first, then by control number; a stable sort keeps the order of the catalogue and of the resources.
    findings
        .sort_by_cached_key(|f| (std::cmp::Reverse(f.status), std::cmp::Reverse(f.severity), position(f)));
    let controls = benchmark.map(|b| controls(b, &findings)).unwrap_or_default();
    let unjudged = controls.iter().filter(|control| !control.implemented && options.rules.is_empty()).count();
    Report {
        tool: snapshot.tool.clone(),
        node: snapshot.node.name.clone(),
        layout: snapshot.node.layout.value().cloned(),
        user: snapshot.node.user,
        taken_at: snapshot.taken_at,
        benchmark: benchmark.map(|b| (b.id.clone(), b.title.clone())),
        findings,
        controls,
        unjudged,
        blind_spots: snapshot.node.unreadable.clone(),
        waiver_notices,
    }
}

/// Returns the rules that `patterns` and `benchmark` select, in the order of the catalogue.
pub fn select<'a>(
    catalogue: &'a Catalogue,
    benchmark: Option<&Benchmark>,
    patterns: &[String],
) -> Vec<&'a Rule> {
    let listed =
        |rule: &Rule| benchmark.is_none_or(|b| b.controls().any(|c| c.rules().any(|r| r == rule.id)));
    let wanted = |rule: &Rule| {
        let controls = catalogue.controls_of(&rule.id);
        is_named(patterns, &rule.id, controls.iter().map(|(_, number)| *number))
    };
    catalogue.rules.values().filter(|rule| listed(rule) && wanted(rule)).collect()
}

/// Returns whether a finding of a selected rule is selected itself: a control may be about one component of several.
fn is_selected(finding: &Finding, benchmark: Option<&Benchmark>, patterns: &[String]) -> bool {
    let controls = || finding.controls.iter();
    benchmark.is_none_or(|b| controls().any(|(id, _)| *id == b.id))
        && is_named(patterns, &finding.rule, controls().map(|(_, number)| number.as_str()))
}

/// Returns whether `patterns` name this rule, or one of these control numbers; without patterns everything is meant.
fn is_named<'n>(patterns: &[String], rule: &str, numbers: impl Iterator<Item = &'n str> + Clone) -> bool {
    let named = |pattern: &String| glob(pattern, rule) || numbers.clone().any(|number| glob(pattern, number));
    patterns.is_empty() || patterns.iter().any(named)
}

/// Returns whether `text` matches `pattern`, in which `*` stands for any characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| glob(rest, tail.get(at..).unwrap_or("")))
        }),
    }
}

/// Returns where a finding stands in its benchmark: the numbers of its first control; what has none comes last.
fn position(finding: &Finding) -> (bool, Vec<u32>) {
    let number = finding
        .controls
        .first()
        .map(|(_, number)| number.split('.').filter_map(|n| n.parse().ok()).collect());
    (number.is_none(), number.unwrap_or_default())
}

fn judge_rule(catalogue: &Catalogue, rule: &Rule, snapshot: &Snapshot, evidence: &Value) -> Vec<Finding> {
    let node = Binding {
        name: "node",
        value: evidence.get("node").unwrap_or(&Value::Null),
        pointer: "/node".into(),
    };
    let finding = |component: &str, resource: &str, judgement| {
        let controls = catalogue.controls_about(&rule.id, component);
        let controls = controls.into_iter().map(|(b, c)| (b.to_owned(), c.to_owned())).collect();
        Finding::new(rule, controls, component, resource, judgement)
    };
    let judge_instances = |component: &'static Component| {
        let finding = |resource: &str, judgement| finding(component.name, resource, judgement);
        let instances = match snapshot.instances(component.name) {
            Err(error) => return vec![finding(component.name, Judgement::unknown(error))],
            Ok([]) => {
                let mut seen = format!("no {} runs on this node", component.name);
                match snapshot.node.processes.value() {
                    Some(1) => seen.push_str(" (1 process was looked at)"),
                    Some(count) => seen.push_str(&format!(" ({count} processes were looked at)")),
                    None => {}
                }
                let elsewhere =
                    snapshot.node.layout.value().and_then(|layout| layout.control_plane.as_deref());
                if let Some(elsewhere) = elsewhere.filter(|_| component.of_control_plane) {
                    seen.push_str(&format!("; {elsewhere} runs the control plane where no node shows it"));
                }
                return vec![finding(&snapshot.node.name, Judgement::not_applicable(seen))];
            }
            Ok(instances) => instances,
        };
        let judge_instance = |(index, instance): (usize, &Instance)| {
            let pointer = format!("/components/{}/value/{index}", component.name);
            let value = evidence.pointer(&pointer).unwrap_or(&Value::Null);
            let mut bindings = vec![node.clone()];
            if let Some(name) = rule.subject.special() {
                let value = value.get(name).unwrap_or(&Value::Null);
                bindings.push(Binding { name, value, pointer: format!("{pointer}/{name}") });
            }
            bindings.push(Binding { name: "self", value, pointer });
            finding(&instance.id, judge(rule, evidence, &bindings))
        };
        instances.iter().enumerate().map(judge_instance).collect()
    };
    match &rule.subject {
        Subject::Instances(_) => rule.subject.components().flat_map(judge_instances).collect(),
        Subject::Node => {
            vec![finding("node", &snapshot.node.name, judge(rule, evidence, std::slice::from_ref(&node)))]
        }
    }
}

/// Returns the result of each control: the worst of its findings, or why there is none.
fn controls(benchmark: &Benchmark, findings: &[Finding]) -> Vec<ControlResult> {
    let mut results = Vec::new();
    for section in &benchmark.sections {
        for control in &section.controls {
            let of_control = || findings.iter().filter(|f| control.is_judged_by(&f.rule, &f.component));
            let status: Option<Status> = of_control().map(|f| f.status).max();
            let remark = match &control.implementation {
                Implementation::Missing(reason) => Some(reason.clone()),
                Implementation::Rules { partial, .. } => partial.clone(),
            };
            results.push(ControlResult {
                id: control.id.clone(),
                title: control.title.clone(),
                section: format!("{} {}", section.id, section.title),
                assessment: control.assessment,
                status,
                rules: control.rules().map(str::to_owned).collect(),
                implemented: matches!(control.implementation, Implementation::Rules { .. }),
                remark,
            });
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let cases = [
            ("etcd-peer-tls", "etcd-peer-tls", true),
            ("etcd-*", "etcd-peer-tls", true),
            ("*-tls", "etcd-peer-tls", true),
            ("2.*", "2.4", true),
            ("2.*", "1.2.4", false),
            ("*peer*", "etcd-peer-tls", true),
            ("etcd", "etcd-peer-tls", false),
            ("*", "", true),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
