//! One rule, one resource, one verdict.

use seaworthy_catalogue::{Check, Rule, Status};
use seaworthy_evidence::EvidenceError;
use seaworthy_expr::{Env, Missing, Outcome, Program};
use serde_json::Value;

use crate::Evidence;
use crate::trail::Trail;

/// A variable of a rule's expressions: its name, the evidence it stands for, and where that is in the snapshot.
#[derive(Clone, Debug)]
pub struct Binding<'a> {
    /// `etcd`, `proxy` or `node`.
    pub name: &'a str,
    /// The evidence.
    pub value: &'a Value,
    /// JSON pointer of the evidence in the snapshot.
    pub pointer: String,
}

/// The verdict on one resource, with its reasons and evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub status: Status,
    /// What decided it.
    pub reasons: Vec<Reason>,
    /// What was proved; only when it passes.
    pub summary: Option<String>,
    /// Checks that only corroborate and could not be judged: nothing contradicts the verdict, and they do not confirm it either.
    pub uncorroborated: Vec<Reason>,
    /// Remarks that decided nothing.
    pub notes: Vec<String>,
    /// The evidence that was looked at.
    pub evidence: Vec<Evidence>,
}

/// Something that decided a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Name of the check; empty when it is about the applicability.
    pub check: String,
    /// Whether the check failed, could not be judged, or made the rule not apply.
    pub status: Status,
    /// The sentence for the reader.
    pub message: String,
    /// What to do about it: one paragraph for each thing that is to be done for what it says; none unless it failed.
    pub remedies: Vec<String>,
    /// The evidence of this reason alone.
    pub evidence: Vec<Evidence>,
}

impl Judgement {
    /// Returns the verdict that there is nothing to judge, because of `reason`.
    pub fn not_applicable(reason: impl Into<String>) -> Self {
        Self::decided(Status::NotApplicable, reason.into(), Vec::new())
    }

    /// Returns the verdict that `error` kept the evidence from being had.
    pub fn unknown(error: EvidenceError) -> Self {
        let evidence = Evidence::failed("", &error);
        Self::decided(Status::Unknown, error.message, vec![evidence])
    }

    fn decided(status: Status, message: String, evidence: Vec<Evidence>) -> Self {
        let reason = Reason {
            check: String::new(),
            status,
            message,
            remedies: Vec::new(),
            evidence: evidence.clone(),
        };
        Self {
            status,
            reasons: vec![reason],
            uncorroborated: Vec::new(),
            summary: None,
            notes: Vec::new(),
            evidence,
        }
    }
}

/// Returns what `rule` says about the resource that `bindings` name in `snapshot`.
///
/// The rule does not apply when a condition of it is false; it fails when a check is false; it is unknown when a
/// condition or a deciding check could not be evaluated; else it passes.
pub fn judge(rule: &Rule, snapshot: &Value, bindings: &[Binding<'_>]) -> Judgement {
    let mut env = Env::new();
    for binding in bindings {
        env = env.bind(binding.name, binding.value, &binding.pointer);
    }
    let mut trail = Trail::new(snapshot, bindings);
    for condition in &rule.applies {
        let evaluation = condition.when.eval(&env);
        let evidence = trail.follow(&evaluation.touched);
        match evaluation.outcome {
            Outcome::True => {}
            Outcome::False => {
                let message = condition.otherwise.render(&env).text;
                return Judgement::decided(Status::NotApplicable, message, evidence);
            }
            _ => {
                let message = because("whether the rule applies is not known", &evaluation.missing);
                return Judgement::decided(Status::Unknown, message, evidence);
            }
        }
    }
    let mut found = Found::default();
    for check in &rule.checks {
        Judge { rule, check }.over(&env, &mut trail, &mut found);
    }
    let Found { reasons, uncorroborated } = found;
    let status = reasons.iter().map(|r| r.status).max().unwrap_or(Status::Pass);
    let notes = rule
        .notes
        .iter()
        .filter(|note| note.when.eval(&env).outcome == Outcome::True)
        .map(|note| note.say.render(&env).text)
        .collect();
    let passed = status == Status::Pass;
    let summary = rule.summary.as_ref().filter(|_| passed).map(|summary| summary.render(&env).text);
    Judgement { status, reasons, uncorroborated, summary, notes, evidence: trail.into_evidence() }
}

/// What the checks of a rule have to say.
#[derive(Default)]
struct Found {
    reasons: Vec<Reason>,
    uncorroborated: Vec<Reason>,
}

/// A check of a rule.
#[derive(Clone, Copy)]
struct Judge<'r> {
    rule: &'r Rule,
    check: &'r Check,
}

impl Judge<'_> {
    /// Judges each element that the check is repeated over.
    fn over(self, env: &Env<'_>, trail: &mut Trail<'_>, found: &mut Found) {
        let Some(each) = &self.check.each else {
            return self.once(env, trail, found);
        };
        let evaluation = each.list.eval(env);
        let evidence = trail.follow(&evaluation.touched);
        let Some(elements) = evaluation.elements() else {
            return cannot_judge(self.check, &evaluation.missing, evidence, found);
        };
        for element in elements {
            let inner = env.clone().bind_element(&each.variable, element);
            let wanted =
                each.filter.as_ref().map_or(Outcome::True, |filter| evaluate(filter, &inner, trail).0);
            if wanted != Outcome::False {
                self.once(&inner, trail, found);
            }
        }
    }

    fn once(self, env: &Env<'_>, trail: &mut Trail<'_>, found: &mut Found) {
        let check = self.check;
        let (outcome, missing, evidence) = evaluate(&check.that, env, trail);
        match outcome {
            Outcome::True => {}
            Outcome::False => {
                let (name, message) = (check.name.clone(), check.otherwise.render(env).text);
                let remedies = vec![self.remedy(env)];
                tell(
                    &mut found.reasons,
                    Reason { check: name, status: Status::Fail, message, remedies, evidence },
                );
            }
            _ => cannot_judge(check, &missing, evidence, found),
        }
    }

    /// Returns what to do: what the check says, else what the rule says of this node, else what it says in general. Advice
    /// with something in it that is not known is none.
    fn remedy(self, env: &Env<'_>) -> String {
        let own = &self.check.remedy;
        let of_rule = self.rule.remedy.as_ref().filter(|_| own.is_none());
        let templates = [own.as_ref(), self.check.remedy_otherwise.as_ref(), of_rule].into_iter().flatten();
        let mut rendered = templates.map(|template| template.render(env));
        let advice = rendered.find(|advice| advice.known).map(|advice| advice.text.trim().to_owned());
        advice.unwrap_or_else(|| self.rule.remedy_in_general())
    }
}

fn evaluate<'a>(
    program: &Program,
    env: &Env<'a>,
    trail: &mut Trail<'_>,
) -> (Outcome<'a>, Vec<Missing>, Vec<Evidence>) {
    let evaluation = program.eval(env);
    let evidence = trail.follow(&evaluation.touched);
    (evaluation.outcome, evaluation.missing, evidence)
}

/// Records that `check` could not be judged.
fn cannot_judge(check: &Check, missing: &[Missing], evidence: Vec<Evidence>, found: &mut Found) {
    let reasons = if check.corroborates { &mut found.uncorroborated } else { &mut found.reasons };
    let message = because(&format!("not known whether {}", check.name), missing);
    let check = check.name.clone();
    tell(reasons, Reason { check, status: Status::Unknown, message, remedies: Vec::new(), evidence });
}

/// Adds `reason`, or only its evidence and what to do about it when a check says the same of several elements: it is told once.
fn tell(reasons: &mut Vec<Reason>, reason: Reason) {
    let same =
        |r: &&mut Reason| (r.status, &r.check, &r.message) == (reason.status, &reason.check, &reason.message);
    match reasons.iter_mut().find(same) {
        None => reasons.push(reason),
        Some(told) => {
            for fact in reason.evidence {
                if !told.evidence.contains(&fact) {
                    told.evidence.push(fact);
                }
            }
            for remedy in reason.remedies {
                if !told.remedies.contains(&remedy) {
                    told.remedies.push(remedy);
                }
            }
        }
    }
}

fn because(what: &str, missing: &[Missing]) -> String {
    let mut causes: Vec<&str> = missing.iter().map(|m| m.reason.as_str()).collect();
    causes.dedup();
    if causes.is_empty() { what.to_owned() } else { format!("{what}: {}", causes.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_says_of_several_elements_is_told_once() {
        let fact =
            |path: &str| Evidence { path: path.to_owned(), value: "1".to_owned(), origin: None, error: None };
        let reason = |check: &str, status, message: &str, path: &str| Reason {
            check: check.to_owned(),
            status,
            message: message.to_owned(),
            remedies: vec![format!("mend {path}")],
            evidence: vec![fact("shared"), fact(path)],
        };
        let mut reasons = Vec::new();
        for (check, status, message, path) in [
            ("a", Status::Fail, "x", "1"),
            ("a", Status::Fail, "x", "2"),
            ("a", Status::Fail, "y", "3"),
            ("b", Status::Fail, "x", "4"),
            ("a", Status::Unknown, "x", "5"),
        ] {
            tell(&mut reasons, reason(check, status, message, path));
        }
        let told: Vec<_> = reasons.iter().map(|r| (r.check.as_str(), r.status, r.message.as_str())).collect();
        let want = [
            ("a", Status::Fail, "x"),
            ("a", Status::Fail, "y"),
            ("b", Status::Fail, "x"),
            ("a", Status::Unknown, "x"),
        ];
        assert_eq!(told, want);
        assert_eq!(reasons[0].evidence, [fact("shared"), fact("1"), fact("2")]);
        assert_eq!(reasons[0].remedies, ["mend 1", "mend 2"]);
    }
}
