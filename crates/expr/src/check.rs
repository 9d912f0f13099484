//! The static checker: from a syntax tree to a typed tree that evaluates without surprises.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::function::{FUNCTIONS, Function, Param, Style};
use crate::syntax::{Literal, Node, Operator, Syntax};
use crate::value::Val;
use crate::{Diagnostic, Object, Type};

/// The variables of an expression and their types.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: Vec<(String, Type)>,
}

impl Scope {
    /// Returns a scope without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the scope with a variable more. The last of two with the same name is seen.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, ty: Type) -> Self {
        self.variables.push((name.into(), ty));
        self
    }
}

/// A node of the checked tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Expr {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// All operands of a chain of `&&`.
    And(Vec<Expr>),
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    Call(&'static Function, Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    Constant(#[serde(with = "crate::value::constant")] Val<'static>),
    Field(Box<Expr>, String),
    Has(Box<Expr>, String),
    If(Box<[Expr; 3]>),
    In(Box<Membership>),
    Index(Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Macro(Box<Comprehension>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    /// The value of evidence that may have failed.
    Open(Box<Expr>),
    /// All operands of a chain of `||`.
    Or(Vec<Expr>),
    Variable(String),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Arithmetic {
    Add,
    Modulo,
    Multiply,
    Subtract,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

/// `item in container`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) item: Expr,
    pub(crate) container: Expr,
    /// Whether the elements of the container may have failed.
    pub(crate) observed: bool,
    /// Whether all keys of the container are known beforehand, so that a missing one was not collected.
    pub(crate) declared: bool,
}

/// `list.all(variable, body)` and its like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comprehension {
    pub(crate) what: Macro,
    pub(crate) list: Expr,
    pub(crate) variable: String,
    pub(crate) body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

impl Macro {
    const ALL: [(&'static str, Self); 5] = [
        ("all", Self::All),
        ("exists", Self::Exists),
        ("exists_one", Self::ExistsOne),
        ("filter", Self::Filter),
        ("map", Self::Map),
    ];
}

/// Returns the checked tree of `node` and its type, or everything that is wrong with it.
pub(crate) fn check(
    source: &str,
    node: &Node,
    scope: &Scope,
    and: impl FnOnce(&mut Checker<'_>, &Type),
) -> Result<(Expr, Type), Vec<Diagnostic>> {
    let mut checker = Checker { source, variables: scope.variables.clone(), diagnostics: Vec::new() };
    let (expr, ty) = checker.expr(node);
    and(&mut checker, &ty);
    if checker.diagnostics.is_empty() { Ok((expr, ty)) } else { Err(checker.diagnostics) }
}

pub(crate) struct Checker<'s> {
    source: &'s str,
    variables: Vec<(String, Type)>,
    diagnostics: Vec<Diagnostic>,
}

impl Checker<'_> {
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Reports a mistake, and returns the type that causes no others.
    fn wrong(&mut self, span: &Range<usize>, message: String) -> Type {
        self.report(Diagnostic::new(span.clone(), message));
        Type::Any
    }

    /// Checks `node`. Evidence that may have failed is opened at once, so the type is never observed at the
    /// top.
    fn expr(&mut self, node: &Node) -> (Expr, Type) {
        let (kind, ty) = self.kind(node);
        let expr = Expr { span: node.span.clone(), kind };
        match ty.opened() {
            Some(opened) => (Expr { span: node.span.clone(), kind: Kind::Open(Box::new(expr)) }, opened),
            None => (expr, ty),
        }
    }

    fn boxed(&mut self, node: &Node) -> (Box<Expr>, Type) {
        let (expr, ty) = self.expr(node);
        (Box::new(expr), ty)
    }

    fn kind(&mut self, node: &Node) -> (Kind, Type) {
        match &node.syntax {
            Syntax::Literal(literal) => constant(literal),
            Syntax::Name(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let ty = known.map(|(_, ty)| ty.clone()).unwrap_or_else(|| {
                    let names = self.variables.iter().map(|(name, _)| name.as_str());
                    let diagnostic = Diagnostic::unknown(node.span.clone(), "variable", name, names);
                    self.diagnostics.push(diagnostic);
                    Type::Any
                });
                (Kind::Variable(name.clone()), ty)
            }
            Syntax::List(elements) => {
                let mut ty = Type::Any;
                let mut checked = Vec::with_capacity(elements.len());
                for element in elements {
                    let (expr, next) = self.expr(element);
                    ty = ty.unify(&next).unwrap_or_else(|| {
                        self.wrong(&element.span, format!("a list of {ty} cannot also hold {next}"))
                    });
                    checked.push(expr);
                }
                (Kind::List(checked), Type::List(Arc::new(ty)))
            }
            Syntax::Select(operand, field) => {
                let (operand, ty) = self.boxed(operand);
                let at = node.span.end.saturating_sub(field.len())..node.span.end;
                match ty.bare() {
                    Type::Map { keys, value } => {
                        self.key(keys.as_deref(), field, at.clone());
                        let key = Expr { span: at, kind: Kind::Constant(Val::text(field.as_str())) };
                        (Kind::Index(operand, Box::new(key)), value.as_ref().clone())
                    }
                    _ => {
                        let ty = self.field(&operand, &ty, field, at);
                        (Kind::Field(operand, field.clone()), ty)
                    }
                }
            }
            Syntax::Operator(operator, args) => self.operator(node, *operator, args),
            Syntax::Call { name, target, args } => self.call(node, name, target.as_deref(), args),
        }
    }

    /// Returns the type of `field` of an operand of type `ty`.
    fn field(&mut self, operand: &Expr, ty: &Type, field: &str, at: Range<usize>) -> Type {
        match ty.bare() {
            Type::Any => Type::Any,
            Type::Object(object) => match object.fields.get(field) {
                Some(ty) => ty.clone(),
                None => {
                    let known = object.fields.keys().map(String::as_str);
                    let what = format!("field of {}", object.name);
                    self.report(Diagnostic::unknown(at, &what, field, known));
                    Type::Any
                }
            },
            Type::Opaque => {
                let text = self.source.get(operand.span.clone()).unwrap_or_default();
                self.wrong(&at, format!("`{text}` can be shown, but not looked into"))
            }
            other => self.wrong(&at, format!("{other} has no fields")),
        }
    }

    fn key(&mut self, keys: Option<&[String]>, key: &str, at: Range<usize>) {
        if let Some(keys) = keys.filter(|keys| !keys.iter().any(|known| known == key)) {
            self.report(Diagnostic::unknown(at, "key", key, keys.iter().map(String::as_str)));
        }
    }

    fn operator(&mut self, node: &Node, operator: Operator, args: &[Node]) -> (Kind, Type) {
        match (operator, args) {
            (Operator::And, _) => (Kind::And(self.chain(Operator::And, args)), Type::Bool),
            (Operator::Or, _) => (Kind::Or(self.chain(Operator::Or, args)), Type::Bool),
            (Operator::Not, [arg]) => (Kind::Not(Box::new(self.condition(arg))), Type::Bool),
            (Operator::Negate, [arg]) => {
                let (expr, ty) = self.boxed(arg);
                let ty = match ty.bare() {
                    Type::Any | Type::Double | Type::Int => ty.bare().clone(),
                    other => self.wrong(&node.span, format!("`-` takes a number, not {other}")),
                };
                (Kind::Negate(expr), ty)
            }
            (Operator::If, [condition, then, otherwise]) => {
                let condition = self.condition(condition);
                let ((a, then), (b, otherwise)) = (self.expr(then), self.expr(otherwise));
                let ty = then.unify(&otherwise).unwrap_or_else(|| {
                    self.wrong(&node.span, format!("`?:` gives either {then} or {otherwise}"))
                });
                (Kind::If(Box::new([condition, a, b])), ty)
            }
            (Operator::In, [item, container]) => self.membership(node, item, container),
            (Operator::Index, [container, index]) => self.index(node, container, index),
            (_, [left, right]) => {
                let ((a, left_type), (b, right_type)) = (self.boxed(left), self.boxed(right));
                let arithmetic = match operator {
                    Operator::Add => Arithmetic::Add,
                    Operator::Modulo => Arithmetic::Modulo,
                    Operator::Multiply => Arithmetic::Multiply,
                    Operator::Subtract => Arithmetic::Subtract,
                    _ => {
                        let comparison = comparison(operator);
                        self.comparable(node, operator, (left, &left_type), (right, &right_type));
                        return (Kind::Compare(comparison, a, b), Type::Bool);
                    }
                };
                let ty = sum(arithmetic, left_type.bare(), right_type.bare()).unwrap_or_else(|| {
                    let symbol = operator.symbol();
                    self.wrong(&node.span, format!("`{symbol}` cannot combine {left_type} with {right_type}"))
                });
                (Kind::Arithmetic(arithmetic, a, b), ty)
            }
            _ => (Kind::Constant(Val::Null), self.wrong(&node.span, "operands are missing".to_owned())),
        }
    }

    /// Checks the operands of a chain of `&&` or `||`, also of parenthesised ones.
    fn chain(&mut self, operator: Operator, args: &[Node]) -> Vec<Expr> {
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            match &arg.syntax {
                Syntax::Operator(same, args) if *same == operator => {
                    operands.extend(self.chain(operator, args));
                }
                _ => operands.push(self.condition(arg)),
            }
        }
        operands
    }

    fn condition(&mut self, node: &Node) -> Expr {
        let (expr, ty) = self.expr(node);
        if !matches!(ty.bare(), Type::Any | Type::Bool) {
            self.wrong(&node.span, format!("expected a condition, found {ty}"));
        }
        expr
    }

    fn membership(&mut self, node: &Node, item: &Node, container: &Node) -> (Kind, Type) {
        let ((a, item_type), (b, ty)) = (self.expr(item), self.expr(container));
        let mut membership = Membership { item: a, container: b, observed: false, declared: false };
        match ty.bare() {
            Type::Any => {}
            Type::List(element) => {
                membership.observed = element.opened().is_some();
                match &container.syntax {
                    // Element by element, so that a wrong one can be pointed at.
                    Syntax::List(elements) => {
                        for element in elements {
                            let ty = literal_type(element).unwrap_or(Type::Any);
                            self.comparable(node, Operator::In, (item, &item_type), (element, &ty));
                        }
                    }
                    _ => self.comparable(node, Operator::In, (item, &item_type), (container, element)),
                }
            }
            Type::Map { keys, .. } => {
                membership.declared = keys.is_some();
                if !matches!(item_type.bare(), Type::Any | Type::String | Type::Enum(_)) {
                    self.wrong(&item.span, format!("the keys of a map are strings, not {item_type}"));
                }
                if let Syntax::Literal(Literal::Text(key)) = &item.syntax {
                    self.key(keys.as_deref(), key, item.span.clone());
                }
            }
            other => {
                self.wrong(&container.span, format!("`in` takes a list or a map, not {other}"));
            }
        }
        (Kind::In(Box::new(membership)), Type::Bool)
    }

    fn index(&mut self, node: &Node, container: &Node, index: &Node) -> (Kind, Type) {
        let ((a, ty), (b, index_type)) = (self.boxed(container), self.boxed(index));
        let is =
            |wanted: fn(&Type) -> bool| matches!(index_type.bare(), Type::Any) || wanted(index_type.bare());
        let ty = match ty.bare() {
            Type::Any => Type::Any,
            Type::List(element) if is(|ty| *ty == Type::Int) => element.as_ref().clone(),
            Type::List(_) => self.wrong(&index.span, format!("a list is indexed by int, not {index_type}")),
            Type::Map { keys, value } if is(|ty| matches!(ty, Type::String | Type::Enum(_))) => {
                if let Syntax::Literal(Literal::Text(key)) = &index.syntax {
                    self.key(keys.as_deref(), key, index.span.clone());
                }
                value.as_ref().clone()
            }
            Type::Map { .. } => {
                self.wrong(&index.span, format!("a map is indexed by string, not {index_type}"))
            }
            other => self.wrong(&node.span, format!("{other} cannot be indexed")),
        };
        (Kind::Index(a, b), ty)
    }

    /// Reports what keeps the two sides of a comparison from ever being compared.
    fn comparable(&mut self, node: &Node, operator: Operator, left: (&Node, &Type), right: (&Node, &Type)) {
        let symbol = operator.symbol();
        let equality = matches!(operator, Operator::Equal | Operator::In | Operator::NotEqual);
        match (left.1.bare(), right.1.bare()) {
            (Type::Any, _) | (_, Type::Any) => {}
            (Type::Null, Type::Null) if equality => {}
            (Type::Null, _) | (_, Type::Null) if equality => {
                let (other, ty) = if *left.1.bare() == Type::Null { right } else { left };
                if !ty.accepts_null() {
                    let text = self.source.get(other.span.clone()).unwrap_or_default();
                    let diagnostic = Diagnostic::new(node.span.clone(), format!("`{text}` is never null"));
                    self.report(diagnostic.help("what was not collected is unknown, not null"));
                }
            }
            (Type::Int | Type::Double, Type::Int | Type::Double) => {}
            (Type::Bool, Type::Bool) if equality => {}
            (Type::Enum(values), Type::String) if equality => self.one_of(right.0, values),
            (Type::String, Type::Enum(values)) if equality => self.one_of(left.0, values),
            (Type::String | Type::Enum(_), Type::String | Type::Enum(_)) => {}
            (a, b) => {
                let same = std::mem::discriminant(a) == std::mem::discriminant(b);
                let message = match (equality, same) {
                    (true, true) => format!("`{symbol}` cannot compare {a}"),
                    (false, true) => format!("`{symbol}` has no order for {a}"),
                    (_, false) => format!("`{symbol}` compares {a} with {b}"),
                };
                let mut diagnostic = Diagnostic::new(node.span.clone(), message);
                if same && matches!(a, Type::List(_)) {
                    diagnostic = diagnostic.help("use `size`, `all` or `exists`");
                }
                self.report(diagnostic);
            }
        }
    }

    /// Reports a string literal that is none of the `values` it is compared with.
    fn one_of(&mut self, node: &Node, values: &[String]) {
        if let Syntax::Literal(Literal::Text(text)) = &node.syntax
            && !values.contains(text)
        {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            let message = format!("{text:?} is not one of the possible values");
            let help = format!("there are: {}", values.join(", "));
            self.report(Diagnostic::new(node.span.clone(), message).help(help));
        }
    }

    fn call(&mut self, node: &Node, name: &str, target: Option<&Node>, args: &[Node]) -> (Kind, Type) {
        if name == "has" && target.is_none() {
            return self.has(node, args);
        }
        if let (Some((_, what)), Some(target)) = (Macro::ALL.iter().find(|(known, _)| *known == name), target)
        {
            return self.comprehension(node, name, *what, target, args);
        }
        let params: Vec<&Node> = target.into_iter().chain(args).collect();
        let checked: Vec<(Expr, Type)> = params.iter().map(|param| self.expr(param)).collect();
        let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
            let names = FUNCTIONS.iter().map(|function| function.name);
            let macros = Macro::ALL.iter().map(|(name, _)| *name).chain(["has"]);
            let known = names.chain(macros);
            self.report(Diagnostic::unknown(node.span.clone(), "function", name, known));
            return (Kind::Constant(Val::Null), Type::Any);
        };
        let style = if target.is_some() { Style::Method } else { Style::Function };
        if function.style != Style::Both && function.style != style {
            let right = if target.is_some() { format!("{name}(…)") } else { format!("x.{name}(…)") };
            self.wrong(&node.span, format!("`{name}` is called as `{right}`"));
        } else if params.len() != function.params.len() {
            let own = usize::from(target.is_some());
            let (takes, given) = (function.params.len() - own, params.len() - own);
            let plural = if takes == 1 { "" } else { "s" };
            self.wrong(&node.span, format!("`{name}` takes {takes} argument{plural}, not {given}"));
        }
        let fitted = params
            .iter()
            .zip(function.params)
            .zip(checked)
            .map(|((node, param), (expr, ty))| self.argument(name, node, *param, expr, &ty))
            .collect();
        (Kind::Call(function, fitted), (function.returns)())
    }

    fn argument(&mut self, name: &str, node: &Node, param: Param, expr: Expr, ty: &Type) -> Expr {
        if !param.accepts(ty) {
            let message = format!("`{name}` takes {} here, not {ty}", param.wants());
            self.wrong(&node.span, message);
            return expr;
        }
        let literal = if let Syntax::Literal(Literal::Text(text)) = &node.syntax { Some(text) } else { None };
        match param.compile(literal.map_or("", String::as_str)) {
            None => expr,
            Some(_) if literal.is_none() => {
                self.wrong(&node.span, format!("`{name}` takes {} here", param.wants()));
                expr
            }
            Some(Ok(value)) => Expr { kind: Kind::Constant(value), ..expr },
            Some(Err(message)) => {
                self.wrong(&node.span, message);
                expr
            }
        }
    }

    fn has(&mut self, node: &Node, args: &[Node]) -> (Kind, Type) {
        let [Node { syntax: Syntax::Select(operand, field), span, .. }] = args else {
            let diagnostic = Diagnostic::new(node.span.clone(), "`has` takes one field: `has(a.b)`");
            self.report(diagnostic.help("to look for a key of a map, write `\"key\" in map`"));
            return (Kind::Constant(Val::Null), Type::Bool);
        };
        let (operand, ty) = self.boxed(operand);
        let at = span.end.saturating_sub(field.len())..span.end;
        if let Type::Map { keys, .. } = ty.bare() {
            self.key(keys.as_deref(), field, at.clone());
        } else {
            self.field(&operand, &ty, field, at);
        }
        (Kind::Has(operand, field.clone()), Type::Bool)
    }

    fn comprehension(
        &mut self,
        node: &Node,
        name: &str,
        what: Macro,
        target: &Node,
        args: &[Node],
    ) -> (Kind, Type) {
        let (list, ty) = self.expr(target);
        let element = match ty.bare() {
            Type::Any => Type::Any,
            Type::List(element) => element.as_ref().clone(),
            Type::Map { keys: Some(keys), .. } => Type::Enum(keys.clone()),
            Type::Map { keys: None, .. } => Type::String,
            other => self.wrong(&target.span, format!("`{name}` goes over a list or a map, not {other}")),
        };
        let [Node { syntax: Syntax::Name(variable), span, .. }, body] = args else {
            let message = format!("`{name}` takes a variable and an expression: `list.{name}(x, …)`");
            return (Kind::Constant(Val::Null), self.wrong(&node.span, message));
        };
        if self.variables.iter().any(|(known, _)| known == variable) {
            self.wrong(span, format!("`{variable}` already has a meaning here"));
        }
        self.variables.push((variable.clone(), element.clone()));
        let (body, ty) =
            if what == Macro::Map { self.expr(body) } else { (self.condition(body), Type::Bool) };
        self.variables.pop();
        let ty = match what {
            Macro::Map => Type::List(Arc::new(ty)),
            Macro::Filter => Type::List(Arc::new(element)),
            Macro::All | Macro::Exists | Macro::ExistsOne => Type::Bool,
        };
        (Kind::Macro(Box::new(Comprehension { what, list, variable: variable.clone(), body })), ty)
    }
}

impl Object {
    /// Returns the field that stands for the object when it is shown.
    pub(crate) fn face(&self) -> Option<(&str, &Type)> {
        const FACES: [&str; 5] = ["text", "name", "id", "path", "url"];
        FACES.iter().find_map(|face| self.fields.get_key_value(*face)).map(|(face, ty)| (face.as_str(), ty))
    }
}

impl Type {
    /// Returns why a value of this type cannot be shown to a reader, if it cannot.
    pub(crate) fn not_displayable(&self) -> Option<String> {
        match self.bare() {
            Self::List(element) => element.not_displayable(),
            Self::Map { .. } => Some("a map cannot be shown".to_owned()),
            Self::Object(object) => match object.face() {
                Some((_, ty)) => ty.not_displayable(),
                None => {
                    let name = &object.name;
                    Some(format!("{name} cannot be shown: it has no field text, name, id, path or url"))
                }
            },
            _ => None,
        }
    }
}

fn constant(literal: &Literal) -> (Kind, Type) {
    let (value, ty) = match literal {
        Literal::Bool(value) => (Val::Bool(*value), Type::Bool),
        Literal::Double(value) => (Val::Double(*value), Type::Double),
        Literal::Int(value) => (Val::Int((*value).into()), Type::Int),
        Literal::Null => (Val::Null, Type::Null),
        Literal::Text(value) => (Val::text(value.as_str()), Type::String),
    };
    (Kind::Constant(value), ty)
}

fn literal_type(node: &Node) -> Option<Type> {
    if let Syntax::Literal(literal) = &node.syntax { Some(constant(literal).1) } else { None }
}

fn comparison(operator: Operator) -> Comparison {
    match operator {
        Operator::Greater => Comparison::Greater,
        Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
        Operator::Less => Comparison::Less,
        Operator::LessOrEqual => Comparison::LessOrEqual,
        Operator::NotEqual => Comparison::NotEqual,
        _ => Comparison::Equal,
    }
}

/// Returns the type of an arithmetic operation on two bare types.
fn sum(arithmetic: Arithmetic, left: &Type, right: &Type) -> Option<Type> {
    match (left, right) {
        (Type::Any, _) | (_, Type::Any) => Some(Type::Any),
        (Type::Int, Type::Int) => Some(Type::Int),
        (Type::Int | Type::Double, Type::Int | Type::Double) if !matches!(arithmetic, Arithmetic::Modulo) => {
            Some(Type::Double)
        }
        (Type::String | Type::Enum(_), Type::String | Type::Enum(_))
            if matches!(arithmetic, Arithmetic::Add) =>
        {
            Some(Type::String)
        }
        (Type::List(_), Type::List(_)) if matches!(arithmetic, Arithmetic::Add) => left.unify(right),
        _ => None,
    }
}
