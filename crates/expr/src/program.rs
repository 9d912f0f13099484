//! Compiled expressions and what they evaluate to.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{self, Expr, Scope};
use crate::eval::{Env, Evaluator};
use crate::form::Form;
use crate::value::Val;
use crate::{Diagnostic, Rendered, Type, syntax};

/// An expression that has been checked. What it serializes to is for this very version of this crate only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    source: String,
    expr: Expr,
    form: Form,
}

/// The result of evaluating an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'e> {
    /// The result.
    pub outcome: Outcome<'e>,
    /// JSON pointers of the evidence that was read, each once, in the order of reading.
    pub touched: Vec<String>,
    /// Why the outcome is [`Outcome::Unknown`]: only what decided it.
    pub missing: Vec<Missing>,
}

/// A result: one of three truth values, or something else for an expression that is not a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'e> {
    /// The elements of a list.
    Elements(Vec<Element<'e>>),
    /// The condition does not hold.
    False,
    /// The condition holds.
    True,
    /// There is no telling.
    Unknown,
    /// Some other value; an object or a map is copied.
    Value(Value),
}

/// An element of a list, to be bound to a variable with [`Env::bind_element`].
#[derive(Clone, Debug, PartialEq)]
pub struct Element<'e> {
    /// The element: evidence, or a computed value.
    pub value: Cow<'e, Value>,
    /// Where it is in the snapshot, if it is evidence.
    pub pointer: Option<String>,
}

/// Something that was needed but is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// JSON pointer of where it would be; empty for a value that was computed.
    pub pointer: String,
    /// The evidence error that stands in its place, if it could not be observed.
    pub error: Option<Value>,
    /// Why it is not known, in one clause: the error's `message`, or `etcd.peer was not collected`.
    pub reason: String,
}

impl Evaluation<'_> {
    /// Returns the elements of a list; `None` when it is unknown or no list.
    pub fn elements(&self) -> Option<&[Element<'_>]> {
        if let Outcome::Elements(elements) = &self.outcome { Some(elements) } else { None }
    }
}

impl Program {
    /// Checks the condition `source` over the variables of `scope`.
    ///
    /// # Errors
    ///
    /// All mistakes that can be told without evidence; of syntax errors, the first.
    pub fn condition(source: &str, scope: &Scope) -> Result<Self, Vec<Diagnostic>> {
        let (condition, _) = Self::checked(source, scope, |ty| match ty.bare() {
            Type::Any | Type::Bool => None,
            other => Some(format!("expected a condition, found {other}")),
        })?;
        Ok(condition)
    }

    /// Checks the list `source` over the variables of `scope`, and returns it with the type of its elements: the type of a
    /// variable that stands for one of them.
    ///
    /// # Errors
    ///
    /// As for [`condition`](Self::condition).
    pub fn list(source: &str, scope: &Scope) -> Result<(Self, Type), Vec<Diagnostic>> {
        let (list, ty) = Self::checked(source, scope, |ty| match ty.bare() {
            Type::Any | Type::List(_) => None,
            other => Some(format!("expected a list, found {other}")),
        })?;
        let element =
            if let Type::List(element) = ty.bare() { element.as_ref().clone() } else { Type::Opaque };
        Ok((list, element))
    }

    /// Checks an expression to be shown in a template.
    pub(crate) fn displayable(source: &str, scope: &Scope) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self::checked(source, scope, Type::not_displayable)?.0)
    }

    pub(crate) fn checked(
        source: &str,
        scope: &Scope,
        refuse: impl FnOnce(&Type) -> Option<String>,
    ) -> Result<(Self, Type), Vec<Diagnostic>> {
        let node = syntax::parse(source)?;
        let (expr, ty) = check::check(source, &node, scope, |checker, ty| {
            if let Some(message) = refuse(ty) {
                checker.report(Diagnostic::new(node.span.clone(), message));
            }
        })?;
        Ok((Self { source: source.to_owned(), expr, form: Form::of(&ty) }, ty))
    }

    /// Returns the expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates the expression over the variables of `env`.
    ///
    /// Evidence that is not of the type that its schema promises makes the outcome unknown.
    pub fn eval<'e>(&self, env: &Env<'e>) -> Evaluation<'e> {
        let mut evaluator = Evaluator::new(&self.source, env);
        let (outcome, missing) = match self.outcome(&mut evaluator) {
            Ok(outcome) => (outcome, Vec::new()),
            Err(unknown) => (Outcome::Unknown, evaluator.missing(&unknown)),
        };
        Evaluation { outcome, touched: evaluator.touched(), missing }
    }

    fn outcome<'x, 'e>(
        &'x self,
        evaluator: &mut Evaluator<'x, 'e>,
    ) -> Result<Outcome<'e>, crate::eval::Unknown> {
        if let Form::List(_) = self.form.bare() {
            let items = evaluator.items(&self.expr)?;
            let elements = items.into_iter().map(|item| match item {
                Val::Evidence(located) => Element {
                    value: Cow::Borrowed(located.value),
                    pointer: located.step.map(|step| evaluator.pointer(step)),
                },
                computed => Element { value: Cow::Owned(computed.to_json()), pointer: None },
            });
            return Ok(Outcome::Elements(elements.collect()));
        }
        if *self.form.bare() == Form::Condition {
            return Ok(if evaluator.truth(&self.expr)? { Outcome::True } else { Outcome::False });
        }
        Ok(Outcome::Value(evaluator.value(&self.expr)?.to_json()))
    }

    /// Evaluates the expression and returns its value for a reader, with the pointers of the evidence that
    /// was read.
    pub(crate) fn show(&self, env: &Env<'_>) -> Rendered {
        let mut evaluator = Evaluator::new(&self.source, env);
        let value = evaluator.eval(&self.expr);
        let text = evaluator.show(value, &self.form, false);
        Rendered { text, touched: evaluator.touched(), known: evaluator.showed_all() }
    }

    /// Returns what makes a false condition false: the operands of `&&` and `||` that are, and the first
    /// element for which the body of an `all` is, each with its span and a sentence with the values that were
    /// compared. Empty when the condition is not false.
    pub fn explain_false(&self, env: &Env<'_>) -> Vec<(Range<usize>, String)> {
        let mut why = Vec::new();
        Evaluator::new(&self.source, env).explain(&self.expr, &mut why);
        why
    }
}
