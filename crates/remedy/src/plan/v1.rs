//! Plans as the first version wrote them into journals, turned into those of this one.
//!
//! What undoes a step was written down there; it follows from the action here, which for that knows how things were before.

use serde_json::{Map, Value, json};

/// The format of the first version.
pub(super) const FORMAT: &str = "seaworthy.dev/plan/v1";

/// Returns the document in the format of this version. Whatever is not as the first version wrote it stays as it is, for the
/// reader of this version to refuse.
pub(super) fn converted(document: &Value) -> Value {
    let mut plan = document.clone();
    let member = plan.pointer("/state/member_id").cloned().unwrap_or_default();
    let rule = plan.get("rule").cloned().unwrap_or_default();
    for step in plan.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(step) = step.as_object_mut() {
            convert(step, &rule, &member);
        }
    }
    if let Some(plan) = plan.as_object_mut() {
        plan.insert("format".to_owned(), json!(super::Plan::FORMAT));
        plan.insert("rollback_of".to_owned(), Value::Null);
        plan.insert("remarks".to_owned(), json!([]));
        let authority = plan.get("authority").and_then(Value::as_str);
        let authority = authority.map(|spki| json!({ "spki": spki, "subject": "" }));
        plan.insert("authority".to_owned(), authority.unwrap_or_default());
    }
    plan
}

fn convert(step: &mut Map<String, Value>, rule: &Value, member: &Value) {
    let undo = step.remove("undo").unwrap_or_default();
    let action = step.get_mut("action").and_then(Value::as_object_mut);
    let mut kind = String::new();
    if let Some(action) = action {
        action.get("kind").and_then(Value::as_str).unwrap_or_default().clone_into(&mut kind);
        match kind.as_str() {
            "set-attributes" => {
                let to = attributes(action);
                action.insert("to".to_owned(), to);
                let mut from = undo.as_object().cloned().unwrap_or_default();
                action.insert("from".to_owned(), attributes(&mut from));
            }
            "update-member" => {
                let to = action.remove("peer_urls").unwrap_or_default();
                action.insert("to".to_owned(), to);
                action.insert("from".to_owned(), undo.get("urls").cloned().unwrap_or_default());
            }
            _ => {}
        }
    }
    let action = step.get("action").cloned().unwrap_or_default();
    for list in ["preconditions", "verify"] {
        for condition in step.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                complete(condition, &action, &kind, rule, member);
            }
        }
    }
}

/// Completes a condition with what it took from its step.
fn complete(condition: &mut Map<String, Value>, action: &Value, kind: &str, rule: &Value, member: &Value) {
    let of_action = |name: &str| action.get(name).cloned().unwrap_or_default();
    let all_of_action =
        |names: &[&'static str]| names.iter().map(|name| (*name, of_action(name))).collect::<Vec<_>>();
    let name = condition.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let added = match (name.as_str(), kind) {
        ("attributes", _) if condition.contains_key("path") => vec![("attributes", attributes(condition))],
        ("attributes", _) => vec![("path", of_action("path")), ("attributes", of_action("to"))],
        ("certificate-sound", "issue") => {
            all_of_action(&["certificate", "key", "ca_certificate", "hosts", "purpose"])
        }
        ("certificate-sound", _) => {
            let mut of_authority = all_of_action(&["certificate", "key"]);
            of_authority.push(("kind", json!("authority-sound")));
            of_authority
        }
        ("exactly-this-change", _) => {
            vec![("kind", json!("edited")), ("path", of_action("path")), ("sha256", of_action("after"))]
        }
        ("followed", _) => vec![("kind", json!("another-leads")), ("member_id", member.clone())],
        ("membership-shows", _) => vec![("member_id", member.clone())],
        ("request-sound", _) => all_of_action(&["common_name", "request", "key"]),
        ("rule-passes", _) => vec![("rule", rule.clone())],
        ("settings-effective", _) => vec![("settings", of_action("settings"))],
        _ => Vec::new(),
    };
    condition.remove("seconds");
    for (name, value) in added {
        condition.insert(name.to_owned(), value);
    }
}

/// Takes mode and owner out of an object, as one value.
fn attributes(object: &mut Map<String, Value>) -> Value {
    let mut taken = Map::new();
    for name in ["mode", "uid", "gid"] {
        taken.insert(name.to_owned(), object.remove(name).unwrap_or_default());
    }
    Value::Object(taken)
}
