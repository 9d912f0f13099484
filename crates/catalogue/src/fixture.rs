//! Fixtures: small evidence documents with the status a rule must give them.

use std::collections::BTreeMap;

use seaworthy_expr::Type;
use serde::Deserialize;
use serde_json::Value;

use crate::rule::Scopes;
use crate::{Diagnostic, Rule, Sources, Status, yaml};

/// A small evidence document of a rule's `tests/`, with what the rule must say about it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Fixture {
    /// The file, below the catalogue's root.
    #[serde(skip)]
    pub path: String,
    /// The status the rule must give.
    pub expect: Status,
    /// One sentence: the situation.
    pub about: String,
    /// What the finding's messages must contain.
    #[serde(default)]
    pub says: Vec<String>,
    /// The verdict of a checker that looks for flags in the process list, where it is wrong.
    #[serde(default)]
    pub grep_says: Option<GrepVerdict>,
    /// Partial evidence by variable name: `self`, `node`, and that of what only the component has.
    pub evidence: serde_json::Map<String, Value>,
}

/// What a checker that looks for flags in the process list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrepVerdict {
    /// It fails the control.
    Fail,
    /// It passes the control.
    Pass,
}

impl Fixture {
    /// Returns the fixtures of `rule`, or everything that is wrong with them; one with each status must be there.
    pub(crate) fn of(rule: &Rule, scopes: &Scopes, sources: &Sources) -> Result<Vec<Self>, Vec<Diagnostic>> {
        let types = scopes.types(&rule.subject);
        let mut diagnostics = Vec::new();
        let mut fixtures = Vec::new();
        for (path, text) in sources.fixtures(&rule.path) {
            match Self::parse(path, text) {
                Ok(fixture) => {
                    diagnostics.extend(fixture.misspelt(&types));
                    fixtures.push(fixture);
                }
                Err(diagnostic) => diagnostics.push(diagnostic),
            }
        }
        let mut required = vec![Status::Pass, Status::Fail, Status::Unknown];
        if !rule.always_applies {
            required.push(Status::NotApplicable);
        }
        for status in required.into_iter().filter(|s| !fixtures.iter().any(|f| f.expect == *s)) {
            let message = format!("rule `{}` has no fixture with `expect: {status}`", rule.id);
            let help = match status {
                Status::NotApplicable => {
                    "add one below its tests/; if it can never be not-applicable, say `always-applies: true`"
                }
                _ => "add one below its tests/",
            };
            diagnostics.push(Diagnostic::new(&rule.path, message).help(help));
        }
        if diagnostics.is_empty() { Ok(fixtures) } else { Err(diagnostics) }
    }

    fn parse(path: &str, text: &str) -> Result<Self, Diagnostic> {
        let mut fixture: Self = yaml::parse(path, text, 0)?;
        fixture.path = path.to_owned();
        Ok(fixture)
    }

    /// Returns what of the evidence no real evidence could look like. A misspelt field would silently count as not
    /// collected.
    fn misspelt(&self, types: &BTreeMap<&'static str, Type>) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        for (variable, value) in &self.evidence {
            match types.get(variable.as_str()) {
                Some(ty) => compare(value, ty, variable, &mut wrong),
                None => wrong.push(format!("the rule has no variable `{variable}`")),
            }
        }
        wrong.into_iter().map(|message| Diagnostic::new(&self.path, message)).collect()
    }
}

/// Adds to `wrong` where `value`, which may leave out fields, is not of type `ty`.
fn compare(value: &Value, ty: &Type, path: &str, wrong: &mut Vec<String>) {
    let mut expected = |what: &str| wrong.push(format!("{path}: expected {what}, found {value}"));
    match (ty, value) {
        (Type::Any | Type::Opaque, _) | (Type::Nullable(_) | Type::Null, Value::Null) => {}
        (Type::Nullable(inner), _) => compare(value, inner, path, wrong),
        (Type::Observed(inner), Value::Object(object)) => match (object.get("value"), object.get("error")) {
            (Some(value), None) if object.contains_key("origin") => compare(value, inner, path, wrong),
            (None, Some(_)) => {}
            _ => expected("`value` with its `origin`, or `error`"),
        },
        (Type::Observed(_), _) => expected("`value` with its `origin`, or `error`"),
        (Type::Object(ty), Value::Object(object)) => {
            for (name, value) in object {
                match ty.fields.get(name) {
                    Some(field) => compare(value, field, &format!("{path}.{name}"), wrong),
                    None => wrong.push(format!("{path}: {} has no field `{name}`", ty.name)),
                }
            }
        }
        (Type::Map { keys, value: ty }, Value::Object(object)) => {
            for (key, value) in object {
                if keys.as_ref().is_some_and(|keys| !keys.contains(key)) {
                    wrong.push(format!("{path}: there is no key `{key}`"));
                }
                compare(value, ty, &format!("{path}[{key:?}]"), wrong);
            }
        }
        (Type::List(ty), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                compare(item, ty, &format!("{path}[{index}]"), wrong);
            }
        }
        (Type::Enum(values), Value::String(text)) => {
            if !values.contains(text) {
                expected(&format!("one of {}", values.join(", ")));
            }
        }
        (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) => {}
        (Type::Int, Value::Number(number)) if number.is_i64() || number.is_u64() => {}
        (Type::Double, Value::Number(_)) => {}
        (other, _) => expected(&other.to_string()),
    }
}
