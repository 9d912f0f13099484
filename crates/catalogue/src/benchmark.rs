//! Benchmarks: tables of contents from control numbers to rules.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::{Diagnostic, Rule, yaml};

/// One published version of a benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Benchmark {
    /// Its id, which is its file name: `cis-kubernetes-2.0.1`.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The Kubernetes versions it was published for.
    pub kubernetes: String,
    /// Its sections in order.
    pub sections: Vec<Section>,
}

/// A section of a benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// Its number: `1.1`.
    pub id: String,
    /// Its title, in our words.
    pub title: String,
    /// Its controls in order.
    pub controls: Vec<Control>,
}

/// A control of a benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    /// Its number: `2.4`.
    pub id: String,
    /// Its title, in our words.
    pub title: String,
    /// Whether the benchmark publishes it as automated or manual.
    pub assessment: Assessment,
    /// What judges it.
    pub implementation: Implementation,
}

/// How a benchmark says a control is assessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assessment {
    /// By a program.
    Automated,
    /// By a person.
    Manual,
}

/// What judges a control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Implementation {
    /// These rules; the worst of their findings is the control's status.
    Rules {
        /// Rule ids.
        ids: Vec<String>,
        /// The component whose instances it is about, where the rules are about others as well.
        component: Option<String>,
        /// What of the control they do not cover; null when they cover all of it.
        partial: Option<String>,
    },
    /// Nothing, for this reason.
    Missing(String),
}

impl Benchmark {
    /// Returns every control in order.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.sections.iter().flat_map(|s| &s.controls)
    }

    /// Returns the control numbered `number`.
    pub fn control(&self, number: &str) -> Option<&Control> {
        self.controls().find(|c| c.id == number)
    }

    pub(crate) fn parse(
        path: &str,
        text: &str,
        rules: &IndexMap<String, Rule>,
        rules_are_complete: bool,
    ) -> Result<Self, Vec<Diagnostic>> {
        let raw: RawBenchmark = yaml::parse(path, text, 0).map_err(|d| vec![d])?;
        let mut diagnostics = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut report = |at: &Spanned<String>, message: String, help: Option<&str>| {
            let mut diagnostic =
                Diagnostic::new(path, message).at(yaml::scalar_span(text, 0, at)(0..at.value.len()));
            diagnostic.help = help.map(str::to_owned);
            diagnostics.push(diagnostic);
        };
        let file_name = path.rsplit('/').next().and_then(|f| f.strip_suffix(".yaml")).unwrap_or(path);
        if raw.id.value != file_name {
            report(
                &raw.id,
                format!("the id is `{}`, but the file is named `{file_name}`", raw.id.value),
                None,
            );
        }
        let mut sections = Vec::new();
        for section in raw.sections {
            let mut controls = Vec::new();
            for control in section.controls {
                if !seen.insert(control.id.value.clone()) {
                    report(&control.id, format!("control {} is listed twice", control.id.value), None);
                }
                let named: Vec<_> = control.rule.into_iter().chain(control.rules).collect();
                for rule in named.iter().filter(|r| rules_are_complete && !rules.contains_key(&r.value)) {
                    report(rule, format!("there is no rule `{}`", rule.value), Some("see `seaworthy list`"));
                }
                if let Some(component) = &control.component {
                    let is_about = |rule: &Spanned<String>| {
                        let rule = rules.get(&rule.value);
                        rule.is_none_or(|r| r.subject.components().any(|c| c.name == component.value))
                    };
                    for rule in named.iter().filter(|rule| !is_about(rule)) {
                        let message = format!("rule `{}` is not about `{}`", rule.value, component.value);
                        report(component, message, None);
                    }
                }
                let ids: Vec<String> = named.into_iter().map(|r| r.value).collect();
                let implementation = match (ids.is_empty(), control.missing) {
                    (false, None) => {
                        let component = control.component.map(|component| component.value);
                        Implementation::Rules { ids, component, partial: control.partial }
                    }
                    (true, Some(reason)) => Implementation::Missing(reason),
                    _ => {
                        let message =
                            format!("control {} needs either `rule` or `missing`", control.id.value);
                        report(&control.id, message, Some("`missing` says why no rule implements it"));
                        continue;
                    }
                };
                let (id, title) = (control.id.value, control.title);
                controls.push(Control { id, title, assessment: control.assessment, implementation });
            }
            sections.push(Section { id: section.id, title: section.title, controls });
        }
        if diagnostics.is_empty() {
            Ok(Self { id: raw.id.value, title: raw.title, kubernetes: raw.kubernetes, sections })
        } else {
            Err(diagnostics)
        }
    }
}

impl Control {
    /// Returns the one component whose instances it is about, where its rule is about others as well.
    pub fn component_of(&self, rule: &str) -> Option<&str> {
        let Implementation::Rules { ids, component, .. } = &self.implementation else { return None };
        component.as_deref().filter(|_| ids.iter().any(|id| id == rule))
    }

    /// Returns whether the findings of `rule` about instances of `component` judge it.
    pub fn is_judged_by(&self, rule: &str, component: &str) -> bool {
        let Implementation::Rules { ids, component: only, .. } = &self.implementation else { return false };
        ids.iter().any(|id| id == rule) && only.as_ref().is_none_or(|only| only == component)
    }

    /// Returns the ids of the rules that judge it.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        let ids: &[String] = match &self.implementation {
            Implementation::Rules { ids, .. } => ids,
            Implementation::Missing(_) => &[],
        };
        ids.iter().map(String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBenchmark {
    id: Spanned<String>,
    title: String,
    #[serde(rename = "version")]
    _version: String,
    kubernetes: String,
    #[serde(rename = "published", default)]
    _published: Option<String>,
    sections: Vec<RawSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSection {
    id: String,
    title: String,
    controls: Vec<RawControl>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawControl {
    id: Spanned<String>,
    title: String,
    assessment: Assessment,
    #[serde(default)]
    rule: Option<Spanned<String>>,
    #[serde(default)]
    rules: Vec<Spanned<String>>,
    #[serde(default)]
    component: Option<Spanned<String>>,
    #[serde(default)]
    partial: Option<String>,
    #[serde(default)]
    missing: Option<String>,
}
