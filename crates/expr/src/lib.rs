//! Rule expressions.
//!
//! An expression is written in a subset of CEL, the expression language of Kubernetes. What CEL lacks for
//! judging evidence is here:
//!
//! * **Static checks.** [`Program::compile`] checks an expression against the [`Type`]s of the evidence,
//!   which a [`Schema`] reads from its JSON Schema. An unknown field, key or function, a comparison that cannot
//!   hold: each is a [`Diagnostic`] with a span when the catalogue loads, not a surprise when a node is audited.
//! * **A third truth value.** Evidence that was not collected, or whose collection failed, makes an expression
//!   *unknown*, unless the rest decides it: `false && unknown` is false, `true || unknown` is true, and `all`
//!   and `exists` are long forms of these. An [`Evaluation`] says what was missing.
//! * **Provenance.** An [`Evaluation`] lists the evidence that was read as JSON pointers (RFC 6901), and the
//!   elements of a list that an expression selects keep theirs.
//!
//! Parser, checker and evaluator are small and our own, because errors need exact spans and evidence its provenance. A
//! checked expression can be stored (serde), so that only its author waits for the checks. Evaluation works over borrowed
//! [`serde_json::Value`]s. Nothing here does I/O or panics, whatever the expression or the evidence.
//!
//! # The language
//!
//! | | |
//! |---|---|
//! | literals | `true`, `null`, `1`, `0x1f`, `1.5`, `"text"`, `'text'`, `r"raw\d"`, `["a", "b"]` |
//! | access | `etcd.peer`, `settings["peer-cert-file"]`, `listeners[0]`, `has(a.b)` |
//! | logic | `!a`, `a && b`, `a \|\| b`, `condition ? a : b` |
//! | comparison | `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` |
//! | arithmetic | `+`, `-`, `*`, `%`; `+` also joins strings and lists |
//! | over lists, map keys | `l.all(x, …)`, `l.exists(x, …)`, `l.exists_one(x, …)`, `l.filter(x, …)`, `l.map(x, …)` |
//! | functions | `size`, `startsWith`, `endsWith`, `contains`, `matches`, `lowerAscii`, `split`, `join`, `restricted_to` |
//!
//! `null` is the knowledge that there is none; a key that is missing from an object was not collected. Lists,
//! maps and objects cannot be compared. A pattern of `matches` and a mode of `restricted_to` must be
//! literals, so that they are checked early too.

mod check;
mod diagnostic;
mod eval;
mod form;
mod function;
mod program;
mod schema;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod value;

pub use check::Scope;
pub use diagnostic::Diagnostic;
pub use eval::Env;
pub use program::{Element, Evaluation, Missing, Outcome, Program};
pub use schema::{Object, Schema, SchemaError, Type};
pub use template::{Rendered, Template};
