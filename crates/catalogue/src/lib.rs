//! The catalogue: rules, benchmarks and framework mappings, loaded and checked.
//!
//! A rule is a folder `rules/<component>/<id>/` with a `rule.md` that a person reads on any forge and the engine
//! executes, and `tests/` with evidence fixtures. A benchmark is one file `benchmarks/<id>.yaml` that maps control
//! numbers to rules. A catalogue is read from a directory of that layout ([`Sources::read`]). It can be stored (serde), and is
//! then for this very version only.
//!
//! Everything that can be wrong with a catalogue is found when it loads, with a source span: [`Diagnostic`].
//!
//! Architecture invariant: a [`Catalogue`] that loaded cannot fail to evaluate; missing evidence is the only surprise.

mod benchmark;
mod diagnostic;
mod fix;
mod fixture;
mod rule;
mod source;
mod status;
mod yaml;

use indexmap::IndexMap;
use seaworthy_expr::Schema;
use serde::{Deserialize, Serialize};

pub use benchmark::{Assessment, Benchmark, Control, Implementation, Section};
pub use diagnostic::{Diagnostic, render};
pub use fix::{Change, Files, Fix, Owner};
pub use fixture::Fixture;
pub use rule::{Applies, Check, Document, Each, Frameworks, HEADINGS, Note, Rule, Severity, Subject};
pub use source::Sources;
pub use status::Status;

/// Rules and benchmarks, checked against the evidence schema.
#[derive(Debug, Serialize, Deserialize)]
pub struct Catalogue {
    /// Rules by id, in the order of their folders.
    pub rules: IndexMap<String, Rule>,
    /// Benchmarks by id, newest first within a family (file names sorted backwards).
    pub benchmarks: IndexMap<String, Benchmark>,
}

impl Catalogue {
    /// Returns the catalogue in `sources`, or everything that is wrong with it.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let scopes = scopes()?;
        let mut rules = IndexMap::new();
        for (path, text) in sources.rules() {
            match Rule::parse(path, text, &scopes) {
                Ok(rule) => {
                    if let Some(first) = rules.insert(rule.id.clone(), rule) {
                        let first: Rule = first;
                        let message =
                            format!("rule `{}` is defined twice; first in {}", first.id, first.path);
                        diagnostics.push(Diagnostic::new(path, message));
                    }
                }
                Err(more) => diagnostics.extend(more),
            }
        }
        let mut benchmarks = IndexMap::new();
        for (path, text) in sources.benchmarks() {
            match Benchmark::parse(path, text, &rules, diagnostics.is_empty()) {
                Ok(benchmark) => {
                    benchmarks.insert(benchmark.id.clone(), benchmark);
                }
                Err(more) => diagnostics.extend(more),
            }
        }
        if diagnostics.is_empty() { Ok(Self { rules, benchmarks }) } else { Err(diagnostics) }
    }

    /// Returns every fixture in `sources` with its rule, or everything that is wrong with them. Fixtures are for those who
    /// write rules; an audit needs none.
    pub fn fixtures(&self, sources: &Sources) -> Result<Vec<(&Rule, Fixture)>, Vec<Diagnostic>> {
        let scopes = scopes()?;
        let mut diagnostics = Vec::new();
        let mut all = Vec::new();
        for rule in self.rules.values() {
            match Fixture::of(rule, &scopes, sources) {
                Ok(fixtures) => all.extend(fixtures.into_iter().map(|fixture| (rule, fixture))),
                Err(more) => diagnostics.extend(more),
            }
        }
        if diagnostics.is_empty() { Ok(all) } else { Err(diagnostics) }
    }

    /// Returns the benchmark named `name`: its id, or the beginning of ids of which the newest is taken
    /// (`cis-kubernetes` or `cis-kubernetes-2.0`).
    pub fn benchmark(&self, name: &str) -> Option<&Benchmark> {
        let begins = |benchmark: &&Benchmark| !name.is_empty() && benchmark.id.starts_with(name);
        self.benchmarks.get(name).or_else(|| self.benchmarks.values().find(begins))
    }

    /// Returns the rules that implement control `number`, searching the benchmarks newest first.
    pub fn control(&self, number: &str) -> Option<(&Benchmark, &Control)> {
        self.benchmarks.values().find_map(|b| Some((b, b.control(number)?)))
    }

    /// Returns the sections with `number` or below it, of the newest benchmark that has any.
    pub fn section(&self, number: &str) -> Option<(&Benchmark, Vec<&Section>)> {
        let within =
            |id: &str| id.strip_prefix(number).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.benchmarks.values().find_map(|benchmark| {
            let sections: Vec<_> = benchmark.sections.iter().filter(|s| within(&s.id)).collect();
            (!sections.is_empty()).then_some((benchmark, sections))
        })
    }

    /// Returns where rule `id` stands in the benchmarks: `(benchmark id, control number)`.
    pub fn controls_of(&self, id: &str) -> Vec<(&str, &str)> {
        self.controls_where(|control| control.rules().any(|rule| rule == id))
    }

    /// Returns those of them that findings about instances of `component` judge.
    pub fn controls_about(&self, id: &str, component: &str) -> Vec<(&str, &str)> {
        self.controls_where(|control| control.is_judged_by(id, component))
    }

    fn controls_where(&self, wanted: impl Fn(&Control) -> bool) -> Vec<(&str, &str)> {
        let of = |b| Benchmark::controls(b).filter(|c| wanted(c)).map(|c| (b.id.as_str(), c.id.as_str()));
        self.benchmarks.values().flat_map(of).collect()
    }
}

/// Returns the variables of rules, with the types that the evidence has.
fn scopes() -> Result<rule::Scopes, Vec<Diagnostic>> {
    let wrong = |message: String| vec![Diagnostic::new("schema", format!("the evidence schema: {message}"))];
    let schema = Schema::from_json_schema(&seaworthy_evidence::json_schema());
    let schema = schema.map_err(|error| wrong(error.to_string()))?;
    Ok(rule::Scopes::new(&schema))
}
