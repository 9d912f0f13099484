//! Fixtures are run exactly like real evidence.

use seaworthy_catalogue::{Fixture, Rule};
use serde_json::Value;

use crate::{Binding, Judgement, judge};

/// Judges `rule` on the evidence of `fixture`.
pub fn judge_fixture(rule: &Rule, fixture: &Fixture) -> Judgement {
    let snapshot = Value::Object(fixture.evidence.clone());
    let nothing = Value::Object(serde_json::Map::new());
    let bind = |name| {
        let (value, pointer) = (snapshot.get(name).unwrap_or(&nothing), format!("/{name}"));
        Binding { name, value, pointer }
    };
    let bindings: Vec<_> = ["node", "self"].into_iter().chain(rule.subject.special()).map(bind).collect();
    judge(rule, &snapshot, &bindings)
}

/// Returns what `fixture` expects and `rule` does not give: another status, or a message without the expected words.
pub fn check_fixture(rule: &Rule, fixture: &Fixture) -> Result<(), String> {
    let judgement = judge_fixture(rule, fixture);
    let mut said: Vec<&str> = judgement.reasons.iter().map(|r| r.message.as_str()).collect();
    said.extend(judgement.reasons.iter().flat_map(|r| &r.remedies).map(String::as_str));
    said.extend(judgement.summary.as_deref());
    said.extend(judgement.notes.iter().map(String::as_str));
    let said = said.join("\n");
    if judgement.status != fixture.expect {
        let (want, got) = (fixture.expect, judgement.status);
        return Err(format!("expected {want}, got {got}: {said}"));
    }
    match fixture.says.iter().find(|words| !said.contains(words.as_str())) {
        Some(words) => Err(format!("expected the finding to say {words:?}, but it says: {said}")),
        None => Ok(()),
    }
}
