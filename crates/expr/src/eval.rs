//! The evaluator: a walk over the checked tree and the evidence.
//!
//! A step yields a value, or [`Unknown`]: the causes that kept it from having one. `?` carries an unknown
//! through everything strict; only `&&`, `||` and the macros built on them look at it. The evidence is walked
//! with a step recorded per access, so a JSON pointer costs nothing until somebody wants to read it.

use std::cmp::Ordering;

use indexmap::IndexSet;
use serde_json::Value;

use crate::check::{Arithmetic, Comparison, Comprehension, Expr, Kind, Macro, Membership};
use crate::form::Form;
use crate::function::{Function, Param};
use crate::program::{Element, Missing};
use crate::value::{Located, Text, Val};

/// The most characters of one value in an explanation.
const MAX_SHOWN: usize = 100;

/// The values of an expression's variables.
#[derive(Clone, Debug, Default)]
pub struct Env<'e> {
    bindings: Vec<Binding<'e>>,
}

#[derive(Clone, Copy, Debug)]
struct Binding<'e> {
    name: &'e str,
    value: &'e Value,
    pointer: Option<&'e str>,
}

impl<'e> Env<'e> {
    /// Returns an environment without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the environment with `name` standing for the evidence `value`, which `pointer` (a JSON
    /// pointer) finds in the snapshot. The last of two with the same name is seen.
    #[must_use]
    pub fn bind(mut self, name: &'e str, value: &'e Value, pointer: &'e str) -> Self {
        self.bindings.push(Binding { name, value, pointer: Some(pointer) });
        self
    }

    /// Returns the environment with `name` standing for an element of an evaluated list.
    #[must_use]
    pub fn bind_element(mut self, name: &'e str, element: &'e Element<'_>) -> Self {
        self.bindings.push(Binding { name, value: &element.value, pointer: element.pointer.as_deref() });
        self
    }
}

/// Why there is no value: indexes into the evaluator's causes.
#[derive(Debug)]
pub(crate) struct Unknown(Vec<usize>);

type Result<T, E = Unknown> = std::result::Result<T, E>;

/// A cause of an unknown value, and of which kind it is.
struct Cause {
    missing: Missing,
    absent: bool,
}

/// A step from one piece of evidence to another.
#[derive(Clone, Copy)]
enum Step<'x> {
    Item(u32, usize),
    Key(u32, &'x str),
    Root(&'x str),
}

/// The state of one evaluation of an expression of `source`.
pub(crate) struct Evaluator<'x, 'e> {
    source: &'x str,
    env: &'x Env<'e>,
    locals: Vec<(&'x str, Val<'e>)>,
    steps: Vec<Step<'x>>,
    touched: Vec<u32>,
    causes: Vec<Cause>,
    /// Whether something was shown as not known.
    hidden: bool,
}

impl<'x, 'e> Evaluator<'x, 'e> {
    pub(crate) fn new(source: &'x str, env: &'x Env<'e>) -> Self {
        Self {
            source,
            env,
            locals: Vec::new(),
            steps: Vec::with_capacity(16),
            touched: Vec::with_capacity(8),
            causes: Vec::new(),
            hidden: false,
        }
    }

    /// Returns the pointers of the evidence that was read, each once, in the order of reading.
    pub(crate) fn touched(&self) -> Vec<String> {
        let pointers: IndexSet<String> = self.touched.iter().map(|step| self.pointer(*step)).collect();
        pointers.into_iter().collect()
    }

    /// Returns the causes of `unknown`, each once.
    pub(crate) fn missing(&self, unknown: &Unknown) -> Vec<Missing> {
        let mut missing: Vec<Missing> = Vec::new();
        for cause in unknown.0.iter().filter_map(|index| self.causes.get(*index)) {
            if !missing.contains(&cause.missing) {
                missing.push(cause.missing.clone());
            }
        }
        missing
    }

    /// Returns the JSON pointer that the steps up to `step` make.
    pub(crate) fn pointer(&self, step: u32) -> String {
        let mut parts = Vec::new();
        let mut next = Some(step);
        while let Some(step) = next.and_then(|step| self.steps.get(step as usize)) {
            next = match step {
                Step::Item(parent, _) | Step::Key(parent, _) => Some(*parent),
                Step::Root(_) => None,
            };
            parts.push(step);
        }
        let mut pointer = String::new();
        for part in parts.iter().rev() {
            match part {
                Step::Item(_, index) => pointer.push_str(&format!("/{index}")),
                Step::Key(_, key) => {
                    pointer.push('/');
                    for c in key.chars() {
                        match c {
                            '~' => pointer.push_str("~0"),
                            '/' => pointer.push_str("~1"),
                            c => pointer.push(c),
                        }
                    }
                }
                Step::Root(base) => pointer.push_str(base),
            }
        }
        pointer
    }

    /// Evaluates `expr`, with evidence read if it is a scalar.
    pub(crate) fn value(&mut self, expr: &'x Expr) -> Result<Val<'e>> {
        let value = self.eval(expr)?;
        Ok(self.read(value))
    }

    /// Evaluates a condition.
    pub(crate) fn truth(&mut self, expr: &'x Expr) -> Result<bool> {
        match self.present(expr)? {
            Val::Bool(value) => Ok(value),
            _ => self.malformed(expr),
        }
    }

    /// Evaluates a list, or the keys of a map, to its elements.
    pub(crate) fn items(&mut self, expr: &'x Expr) -> Result<Vec<Val<'e>>> {
        let value = self.eval(expr)?;
        self.items_of(expr, value)
    }

    fn items_of(&mut self, expr: &Expr, value: Val<'e>) -> Result<Vec<Val<'e>>> {
        match value {
            Val::List(items) => Ok(items),
            Val::Evidence(located) => match located.value {
                Value::Array(items) => {
                    if items.is_empty() {
                        self.touch(located.step);
                    }
                    let items = items.iter().enumerate();
                    let located = items.map(|(index, value)| Located {
                        value,
                        step: located.step.map(|parent| push(&mut self.steps, Step::Item(parent, index))),
                    });
                    Ok(located.map(Val::Evidence).collect())
                }
                Value::Object(entries) => {
                    self.touch(located.step);
                    Ok(entries.keys().map(|key| Val::Text(Text::Borrowed(key))).collect())
                }
                Value::Null => self.absent(expr, located.step),
                _ => self.malformed(expr),
            },
            Val::Null => self.absent(expr, None),
            _ => self.malformed(expr),
        }
    }

    /// Evaluates `expr`; evidence stays evidence.
    pub(crate) fn eval(&mut self, expr: &'x Expr) -> Result<Val<'e>> {
        match &expr.kind {
            Kind::And(operands) => self.chain(operands, false),
            Kind::Arithmetic(arithmetic, left, right) => self.arithmetic(expr, *arithmetic, left, right),
            Kind::Call(function, args) => self.call(expr, function, args),
            Kind::Compare(comparison, left, right) => self.compare(expr, *comparison, left, right),
            Kind::Constant(value) => Ok(value.clone()),
            Kind::Field(operand, field) => {
                let base = self.eval(operand)?;
                let located = self.located(operand, base)?;
                let step = self.key(located.step, field);
                match located.value {
                    Value::Object(fields) => match fields.get(field) {
                        Some(value) => Ok(Val::Evidence(Located { value, step })),
                        None => self.not_collected(expr, step),
                    },
                    _ => self.malformed(operand),
                }
            }
            Kind::Has(operand, field) => self.has(operand, field).map(Val::Bool),
            Kind::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                if self.truth(condition)? { self.eval(then) } else { self.eval(otherwise) }
            }
            Kind::In(membership) => self.membership(expr, membership).map(Val::Bool),
            Kind::Index(container, index) => self.index(expr, container, index),
            Kind::List(elements) => {
                elements.iter().map(|element| self.eval(element)).collect::<Result<_>>().map(Val::List)
            }
            Kind::Macro(comprehension) => self.comprehension(comprehension),
            Kind::Negate(operand) => match self.present(operand)? {
                Val::Int(value) => Ok(Val::Int(value.saturating_neg())),
                Val::Double(value) => Ok(Val::Double(-value)),
                _ => self.malformed(operand),
            },
            Kind::Not(operand) => self.truth(operand).map(|value| Val::Bool(!value)),
            Kind::Open(operand) => {
                let value = self.eval(operand)?;
                self.open(expr, value)
            }
            Kind::Or(operands) => self.chain(operands, true),
            Kind::Variable(name) => self.variable(expr, name),
        }
    }

    fn variable(&mut self, expr: &Expr, name: &str) -> Result<Val<'e>> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return Ok(value.clone());
        }
        match self.env.bindings.iter().rev().find(|binding| binding.name == name) {
            Some(binding) => {
                let step = binding.pointer.map(|pointer| push(&mut self.steps, Step::Root(pointer)));
                Ok(Val::Evidence(Located { value: binding.value, step }))
            }
            None => self.not_collected(expr, None),
        }
    }

    /// Evaluates `&&` (decided by a false operand) or `||` (decided by a true one).
    fn chain(&mut self, operands: &'x [Expr], decisive: bool) -> Result<Val<'e>> {
        let mut unknown = Unknown(Vec::new());
        for operand in operands {
            match self.truth(operand) {
                Ok(value) if value == decisive => return Ok(Val::Bool(decisive)),
                Ok(_) => {}
                Err(causes) => unknown.0.extend(causes.0),
            }
        }
        if unknown.0.is_empty() { Ok(Val::Bool(!decisive)) } else { Err(unknown) }
    }

    fn comprehension(&mut self, comprehension: &'x Comprehension) -> Result<Val<'e>> {
        let Comprehension { what, list, variable, body } = comprehension;
        let items = self.items(list)?;
        let mut results = Vec::new();
        let mut unknown = Unknown(Vec::new());
        let mut hits = 0;
        for item in items {
            self.locals.push((variable, item.clone()));
            let outcome = if *what == Macro::Map {
                self.eval(body).map(|value| {
                    results.push(value);
                    true
                })
            } else {
                self.truth(body)
            };
            self.locals.pop();
            match (what, outcome) {
                (Macro::All, Ok(false)) => return Ok(Val::Bool(false)),
                (Macro::Exists, Ok(true)) => return Ok(Val::Bool(true)),
                (Macro::Filter, Ok(true)) => results.push(item),
                (Macro::ExistsOne, Ok(true)) => hits += 1,
                (_, Ok(_)) => {}
                (_, Err(causes)) => unknown.0.extend(causes.0),
            }
        }
        if *what == Macro::ExistsOne && hits > 1 {
            return Ok(Val::Bool(false));
        }
        if !unknown.0.is_empty() {
            return Err(unknown);
        }
        Ok(match what {
            Macro::All => Val::Bool(true),
            Macro::Exists => Val::Bool(false),
            Macro::ExistsOne => Val::Bool(hits == 1),
            Macro::Filter | Macro::Map => Val::List(results),
        })
    }

    fn has(&mut self, operand: &'x Expr, field: &'x str) -> Result<bool> {
        let located = match self.eval(operand) {
            Ok(Val::Evidence(located)) => located,
            Ok(_) => return Ok(false),
            // What is known to be absent has no fields; what is not known may.
            Err(unknown) if unknown.0.iter().all(|i| self.causes.get(*i).is_some_and(|c| c.absent)) => {
                return Ok(false);
            }
            Err(unknown) => return Err(unknown),
        };
        let step = self.key(located.step, field);
        self.touch(step);
        match located.value.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => match failure(value) {
                Some(error) => self.failed(step, error),
                None => Ok(true),
            },
        }
    }

    fn membership(&mut self, expr: &'x Expr, membership: &'x Membership) -> Result<bool> {
        let Membership { item, container, observed, declared } = membership;
        let wanted = self.value(item)?;
        let container_value = self.eval(container)?;
        if let Val::Evidence(Located { value: Value::Object(entries), step }) = container_value {
            let Val::Text(key) = &wanted else { return self.malformed(item) };
            let found = entries.get_key_value(&**key);
            let step = found.map_or(step, |(key, _)| self.key(step, key));
            return match found {
                None if *declared => self.not_collected(expr, step),
                Some((_, value)) if let Some(error) = failure(value) => self.failed(step, error),
                found => {
                    self.touch(step);
                    Ok(found.is_some())
                }
            };
        }
        let step = if let Val::Evidence(located) = &container_value { located.step } else { None };
        self.touch(step);
        let mut unknown = Unknown(Vec::new());
        for candidate in self.items_of(container, container_value)? {
            let candidate = if *observed { self.open(container, candidate) } else { Ok(candidate) };
            match candidate {
                Ok(candidate) => {
                    let candidate =
                        if let Val::Evidence(located) = candidate { Val::read(located) } else { candidate };
                    if equal(&wanted, &candidate) == Some(true) {
                        return Ok(true);
                    }
                }
                Err(causes) => unknown.0.extend(causes.0),
            }
        }
        if unknown.0.is_empty() { Ok(false) } else { Err(unknown) }
    }

    fn index(&mut self, expr: &'x Expr, container: &'x Expr, index: &'x Expr) -> Result<Val<'e>> {
        let base = self.eval(container)?;
        let index_value = self.present(index)?;
        if let (Val::List(items), Val::Int(at)) = (&base, &index_value) {
            let item = usize::try_from(*at).ok().and_then(|at| items.get(at)).cloned();
            return item.map_or_else(|| self.unknown(None, self.because(expr, "does not exist")), Ok);
        }
        let located = self.located(container, base)?;
        match (located.value, index_value) {
            (Value::Array(items), Val::Int(at)) => {
                match usize::try_from(at).ok().and_then(|at| Some((at, items.get(at)?))) {
                    Some((at, value)) => {
                        let step = located.step.map(|parent| push(&mut self.steps, Step::Item(parent, at)));
                        Ok(Val::Evidence(Located { value, step }))
                    }
                    None => {
                        self.touch(located.step);
                        self.unknown(located.step, self.because(expr, "does not exist"))
                    }
                }
            }
            (Value::Object(entries), Val::Text(key)) => match entries.get_key_value(&*key) {
                Some((key, value)) => {
                    let step = self.key(located.step, key);
                    match failure(value) {
                        // Of this key alone it is not known what it has.
                        Some(error) => self.failed(step, error),
                        None => Ok(Val::Evidence(Located { value, step })),
                    }
                }
                // Only a literal key lives as long as a step.
                None => {
                    let step = match &index.kind {
                        Kind::Constant(Val::Text(Text::Shared(key))) => self.key(located.step, key),
                        _ => located.step,
                    };
                    self.not_collected(expr, step)
                }
            },
            _ => self.malformed(expr),
        }
    }

    fn call(&mut self, expr: &'x Expr, function: &Function, args: &'x [Expr]) -> Result<Val<'e>> {
        let mut values = Vec::with_capacity(args.len());
        for (arg, param) in args.iter().zip(function.params) {
            values.push(match param {
                Param::Texts => Val::List(self.items(arg)?.into_iter().map(|item| self.read(item)).collect()),
                _ => self.present(arg)?,
            });
        }
        (function.call)(&values).map_or_else(|| self.malformed(expr), Ok)
    }

    fn arithmetic(
        &mut self,
        expr: &'x Expr,
        arithmetic: Arithmetic,
        left: &'x Expr,
        right: &'x Expr,
    ) -> Result<Val<'e>> {
        let (a, b) = (self.present(left)?, self.present(right)?);
        let result = match (arithmetic, &a, &b) {
            (Arithmetic::Add, Val::Int(a), Val::Int(b)) => a.checked_add(*b).map(Val::Int),
            (Arithmetic::Modulo, Val::Int(a), Val::Int(b)) => a.checked_rem(*b).map(Val::Int),
            (Arithmetic::Multiply, Val::Int(a), Val::Int(b)) => a.checked_mul(*b).map(Val::Int),
            (Arithmetic::Subtract, Val::Int(a), Val::Int(b)) => a.checked_sub(*b).map(Val::Int),
            (Arithmetic::Add, Val::Text(a), Val::Text(b)) => Some(Val::text(format!("{}{}", &**a, &**b))),
            (Arithmetic::Add, Val::List(_) | Val::Evidence(_), Val::List(_) | Val::Evidence(_)) => {
                let mut items = self.items_of(left, a)?;
                items.extend(self.items_of(right, b)?);
                return Ok(Val::List(items));
            }
            _ => match (number(&a), number(&b), arithmetic) {
                (Some(a), Some(b), Arithmetic::Add) => Some(Val::Double(a + b)),
                (Some(a), Some(b), Arithmetic::Multiply) => Some(Val::Double(a * b)),
                (Some(a), Some(b), Arithmetic::Subtract) => Some(Val::Double(a - b)),
                _ => None,
            },
        };
        result.map_or_else(|| self.unknown(None, self.because(expr, "cannot be computed")), Ok)
    }

    fn compare(
        &mut self,
        expr: &'x Expr,
        comparison: Comparison,
        left: &'x Expr,
        right: &'x Expr,
    ) -> Result<Val<'e>> {
        let result = match comparison {
            Comparison::Equal | Comparison::NotEqual => {
                let (a, b) = (self.value(left)?, self.value(right)?);
                equal(&a, &b).map(|equal| equal == (comparison == Comparison::Equal))
            }
            _ => {
                let (a, b) = (self.present(left)?, self.present(right)?);
                order(&a, &b).map(|order| match comparison {
                    Comparison::Greater => order.is_gt(),
                    Comparison::GreaterOrEqual => order.is_ge(),
                    Comparison::Less => order.is_lt(),
                    _ => order.is_le(),
                })
            }
        };
        result.map_or_else(|| self.malformed(expr), |result| Ok(Val::Bool(result)))
    }

    /// Evaluates `expr` to a value other than null.
    fn present(&mut self, expr: &'x Expr) -> Result<Val<'e>> {
        let value = self.eval(expr)?;
        let step = if let Val::Evidence(located) = &value { located.step } else { None };
        match self.read(value) {
            Val::Null => self.absent(expr, step),
            value => Ok(value),
        }
    }

    /// Returns the evidence that `value` of `expr` is, unless it is null.
    fn located(&mut self, expr: &Expr, value: Val<'e>) -> Result<Located<'e>> {
        match value {
            Val::Evidence(located) if located.value.is_null() => self.absent(expr, located.step),
            Val::Evidence(located) => Ok(located),
            Val::Null => self.absent(expr, None),
            _ => self.malformed(expr),
        }
    }

    /// Returns the value of evidence that may have failed.
    fn open(&mut self, expr: &Expr, value: Val<'e>) -> Result<Val<'e>> {
        let Val::Evidence(located) = value else { return Ok(value) };
        if located.value.is_null() {
            return Ok(value);
        }
        if let Some(error) = failure(located.value) {
            return self.failed(located.step, error);
        }
        match located.value.get("value") {
            Some(value) => Ok(Val::Evidence(Located { value, step: self.key(located.step, "value") })),
            None => self.not_collected(expr, located.step),
        }
    }

    /// Returns `value` with the scalar of the evidence in place of the evidence.
    fn read(&mut self, value: Val<'e>) -> Val<'e> {
        let Val::Evidence(located) = value else { return value };
        self.touch(located.step);
        Val::read(located)
    }

    fn touch(&mut self, step: Option<u32>) {
        self.touched.extend(step);
    }

    fn key(&mut self, parent: Option<u32>, key: &'x str) -> Option<u32> {
        parent.map(|parent| push(&mut self.steps, Step::Key(parent, key)))
    }

    fn because(&self, expr: &Expr, clause: &str) -> String {
        format!("{} {clause}", self.source.get(expr.span.clone()).unwrap_or("it"))
    }

    fn absent<T>(&mut self, expr: &Expr, step: Option<u32>) -> Result<T> {
        self.touch(step);
        let index = self.cause(step, None, self.because(expr, "is absent"), true);
        Err(Unknown(vec![index]))
    }

    fn not_collected<T>(&mut self, expr: &Expr, step: Option<u32>) -> Result<T> {
        self.touch(step);
        self.unknown(step, self.because(expr, "was not collected"))
    }

    fn failed<T>(&mut self, step: Option<u32>, error: &Value) -> Result<T> {
        self.touch(step);
        let message = error.get("message").and_then(Value::as_str).or(error.as_str());
        let reason = message.unwrap_or("it could not be observed").to_owned();
        let index = self.cause(step, Some(error.clone()), reason, false);
        Err(Unknown(vec![index]))
    }

    /// The evidence is not of the type that its schema promises.
    fn malformed<T>(&mut self, expr: &Expr) -> Result<T> {
        self.unknown(None, self.because(expr, "is not what its schema says"))
    }

    fn unknown<T>(&mut self, step: Option<u32>, reason: String) -> Result<T> {
        let index = self.cause(step, None, reason, false);
        Err(Unknown(vec![index]))
    }

    fn cause(&mut self, step: Option<u32>, error: Option<Value>, reason: String, absent: bool) -> usize {
        let pointer = step.map(|step| self.pointer(step)).unwrap_or_default();
        self.causes.push(Cause { missing: Missing { pointer, error, reason }, absent });
        self.causes.len() - 1
    }

    /// Returns a value of `form` for a reader.
    pub(crate) fn show(&mut self, value: Result<Val<'e>>, form: &'x Form, quoted: bool) -> String {
        const NONE: &str = "none";
        let Ok(value) = value else { return self.not_known() };
        match (form, value) {
            (_, Val::Null) => NONE.to_owned(),
            (_, Val::Evidence(Located { value: Value::Null, step })) => {
                self.touch(step);
                NONE.to_owned()
            }
            (Form::Nullable(inner), value) => self.show(Ok(value), inner, quoted),
            (Form::Observed(inner), Val::Evidence(located)) => match located.value.get("value") {
                Some(value) => {
                    let step = self.key(located.step, "value");
                    self.show(Ok(Val::Evidence(Located { value, step })), inner, quoted)
                }
                None => {
                    self.touch(located.step);
                    self.not_known()
                }
            },
            (Form::List(element), Val::List(items)) => {
                let shown: Vec<String> =
                    items.into_iter().map(|item| self.show(Ok(item), element, quoted)).collect();
                shown.join(", ")
            }
            (Form::List(element), Val::Evidence(Located { value: Value::Array(items), step })) => {
                if items.is_empty() {
                    self.touch(step);
                }
                let mut shown = Vec::with_capacity(items.len());
                for (index, value) in items.iter().enumerate() {
                    let step = step.map(|parent| push(&mut self.steps, Step::Item(parent, index)));
                    shown.push(self.show(Ok(Val::Evidence(Located { value, step })), element, quoted));
                }
                shown.join(", ")
            }
            (Form::Faceless, Val::Evidence(_)) => self.not_known(),
            (Form::Faced { field, form }, Val::Evidence(located)) => {
                let step = self.key(located.step, field);
                match located.value.get(field) {
                    Some(value) => self.show(Ok(Val::Evidence(Located { value, step })), form, quoted),
                    None => {
                        self.touch(step);
                        self.not_known()
                    }
                }
            }
            (_, value) => match self.read(value) {
                Val::Text(text) if quoted => format!("{:?}", &*text),
                Val::Text(text) => text.to_string(),
                Val::Int(value) => value.to_string(),
                value => value.to_json().to_string(),
            },
        }
    }

    /// Returns what stands for a value that is not known.
    fn not_known(&mut self) -> String {
        self.hidden = true;
        "not known".to_owned()
    }

    /// Returns whether everything that was to be shown is known.
    pub(crate) fn showed_all(&self) -> bool {
        !self.hidden
    }

    /// Returns the locals that make `body` false in the first element for which it is, for [`Self::explain`].
    fn first_false(&mut self, comprehension: &'x Comprehension) -> Option<Val<'e>> {
        let items = self.items(&comprehension.list).ok()?;
        items.into_iter().find(|item| {
            self.locals.push((&comprehension.variable, item.clone()));
            let outcome = self.truth(&comprehension.body);
            self.locals.pop();
            matches!(outcome, Ok(false))
        })
    }

    /// Adds what makes `expr` false to `why`: the false operands of its `&&` and `||`, the first element for
    /// which the body of its `all` is false, with the values that were compared.
    pub(crate) fn explain(&mut self, expr: &'x Expr, why: &mut Vec<(std::ops::Range<usize>, String)>) {
        if !matches!(self.truth(expr), Ok(false)) {
            return;
        }
        match &expr.kind {
            Kind::And(operands) | Kind::Or(operands) => {
                operands.iter().for_each(|operand| self.explain(operand, why));
            }
            Kind::Macro(comprehension) if comprehension.what == Macro::All => {
                if let Some(item) = self.first_false(comprehension) {
                    self.locals.push((&comprehension.variable, item));
                    self.explain(&comprehension.body, why);
                    self.locals.pop();
                }
            }
            kind => {
                let parts: Vec<&'x Expr> = match kind {
                    Kind::Compare(_, left, right) => vec![left, right],
                    Kind::In(membership) => vec![&membership.item, &membership.container],
                    Kind::Call(_, args) => args.iter().collect(),
                    Kind::Not(operand) => vec![operand],
                    _ => vec![],
                };
                let mut text = self.because(expr, "is false");
                let mut separator = ": ";
                for part in parts.into_iter().filter(|part| says_something(part)) {
                    let value = self.eval(part);
                    let mut value = self.show(value, &Form::Plain, true);
                    if let Some((end, _)) = value.char_indices().nth(MAX_SHOWN) {
                        value.truncate(end);
                        value.push('…');
                    }
                    text.push_str(&format!("{separator}{}", self.because(part, &format!("is {value}"))));
                    separator = ", ";
                }
                why.push((expr.span.clone(), text));
            }
        }
    }
}

/// Returns whether the value of `expr` says something that its source does not.
fn says_something(expr: &Expr) -> bool {
    !matches!(expr.kind, Kind::Constant(_) | Kind::List(_) | Kind::Compare(..))
}

fn push<'x>(steps: &mut Vec<Step<'x>>, step: Step<'x>) -> u32 {
    steps.push(step);
    u32::try_from(steps.len() - 1).unwrap_or(u32::MAX)
}

/// Returns the error of evidence that failed.
fn failure(value: &Value) -> Option<&Value> {
    let fields = value.as_object().filter(|fields| !fields.contains_key("value"))?;
    fields.get("error").filter(|error| !error.is_null())
}

fn number(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Int(value) => Some(*value as f64),
        Val::Double(value) => Some(*value),
        _ => None,
    }
}

fn equal(a: &Val<'_>, b: &Val<'_>) -> Option<bool> {
    match (a, b) {
        (Val::Null, Val::Null) => Some(true),
        (Val::Null, _) | (_, Val::Null) => Some(false),
        (Val::Bool(a), Val::Bool(b)) => Some(a == b),
        (Val::Evidence(_) | Val::List(_), _) | (_, Val::Evidence(_) | Val::List(_)) => None,
        (a, b) => order(a, b).map(Ordering::is_eq),
    }
}

fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Text(a), Val::Text(b)) => Some((**a).cmp(&**b)),
        (a, b) => number(a)?.partial_cmp(&number(b)?),
    }
}
