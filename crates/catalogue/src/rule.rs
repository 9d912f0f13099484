//! Rules: one timeless requirement each, written as a document that also executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use seaworthy_components::Component;
use seaworthy_expr::{Object, Program, Schema, Scope, Template, Type};
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::fix::{Fix, RawFix};
use crate::{Diagnostic, yaml};

/// The headings of every rule document, in order.
pub const HEADINGS: [&str; 7] =
    ["Description", "Rationale", "Audit", "Remediation", "Impact", "Default value", "References"];

/// One requirement: how it is judged, and everything there is to say about it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its id, which is the name of its folder: `etcd-peer-tls`.
    pub id: String,
    /// The file, below the catalogue's root.
    pub path: String,
    /// The requirement as a statement: `etcd encrypts the traffic between its members`.
    pub title: String,
    /// How bad a failure is.
    pub severity: Severity,
    /// What it is judged on.
    pub subject: Subject,
    /// The Seaworthy version that brought it.
    pub since: String,
    /// Conditions under which it applies at all; all must hold.
    pub applies: Vec<Applies>,
    /// What must hold; all of them.
    pub checks: Vec<Check>,
    /// What a reader must know although it decides nothing.
    pub notes: Vec<Note>,
    /// What was proved when it passes.
    pub summary: Option<Template>,
    /// What to do when it fails, on this very node; null where [`Rule::remedy_in_general`] says all there is to say.
    pub remedy: Option<Template>,
    /// Its place in other catalogues.
    pub frameworks: Frameworks,
    /// What makes it pass where it fails; null where nothing does, or more than one node has to take part.
    pub fix: Option<Fix>,
    /// Its prose.
    pub document: Document,
    /// Whether it applies wherever its component is, so that no fixture can be not-applicable.
    pub always_applies: bool,
}

/// How bad it is when a rule fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Low,
    /// Weakens a defence.
    Medium,
    /// Exposes data or control to someone on the network or the node.
    High,
    /// Exposes everything to anybody who can connect.
    Critical,
}

impl Severity {
    /// Returns the name used in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a rule is judged on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// Each instance of these components, by their names, as `self`, beside `node`. What only instances of a component have is
    /// there by its own variable where the rule is about that component alone.
    Instances(Vec<String>),
    /// The `node` itself.
    Node,
}

impl Subject {
    /// Returns the components whose instances are judged.
    pub fn components(&self) -> impl Iterator<Item = &'static Component> {
        let names: &[String] = match self {
            Self::Instances(names) => names,
            Self::Node => &[],
        };
        names.iter().filter_map(|name| seaworthy_components::named(name))
    }

    /// Returns the variable of what only these instances have, which is also its field, if all of them have it.
    pub fn special(&self) -> Option<&'static str> {
        let mut specials = self.components().map(|component| component.special.map(|(name, _)| name));
        let first = specials.next()??;
        specials.all(|special| special == Some(first)).then_some(first)
    }
}

/// A condition under which a rule applies.
#[derive(Debug, Serialize, Deserialize)]
pub struct Applies {
    /// The condition.
    pub when: Program,
    /// Why the rule does not apply when it is false.
    pub otherwise: Template,
}

/// One check of a rule.
#[derive(Debug, Serialize, Deserialize)]
pub struct Check {
    /// Its name, a statement that is true when it holds.
    pub name: String,
    /// The list it is repeated over; null when it is judged once.
    pub each: Option<Each>,
    /// What must be true.
    pub that: Program,
    /// The sentence to print when it is not.
    pub otherwise: Template,
    /// What to do when it is not; null where what the rule says fits.
    pub remedy: Option<Template>,
    /// What to do where something in that is not known.
    pub remedy_otherwise: Option<Template>,
    /// Whether it only corroborates: unknown evidence does not keep the rule from passing, a contradiction does.
    pub corroborates: bool,
}

/// The list that a check is repeated over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Each {
    /// The list.
    pub list: Program,
    /// The name of its element in the check.
    pub variable: String,
    /// Which elements to look at; null for all.
    pub filter: Option<Program>,
}

/// A remark that decides nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    /// When to make it.
    pub when: Program,
    /// The remark.
    pub say: Template,
}

/// Identifiers of a rule in other catalogues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Frameworks {
    /// CIS Controls by version: `v6`, `v7`, `v8`.
    pub cis_controls: BTreeMap<String, Vec<String>>,
    /// NIST SP 800-53 revision 5.
    #[serde(rename = "nist-800-53-r5")]
    pub nist_800_53_r5: Vec<String>,
    /// PCI DSS version 4.
    #[serde(rename = "pci-dss-4")]
    pub pci_dss_4: Vec<String>,
    /// DISA Kubernetes STIG.
    pub disa_stig: Vec<String>,
    /// NSA and CISA Kubernetes Hardening Guide.
    pub nsa_cisa: Vec<String>,
}

impl Frameworks {
    /// Returns each mapping as `(framework, identifiers)`, in a fixed order and without the empty ones.
    pub fn entries(&self) -> Vec<(String, &[String])> {
        let cis = self
            .cis_controls
            .iter()
            .map(|(version, ids)| (format!("CIS Controls {version}"), ids.as_slice()));
        let others = [
            ("NIST SP 800-53 r5", &self.nist_800_53_r5),
            ("PCI DSS 4", &self.pci_dss_4),
            ("DISA STIG", &self.disa_stig),
            ("NSA/CISA", &self.nsa_cisa),
        ];
        let others = others.into_iter().map(|(name, ids)| (name.to_owned(), ids.as_slice()));
        cis.chain(others).filter(|(_, ids)| !ids.is_empty()).collect()
    }
}

/// The prose of a rule by heading.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    sections: IndexMap<String, String>,
}

impl Document {
    /// Returns the Markdown below `heading`, without surrounding blank lines.
    pub fn section(&self, heading: &str) -> &str {
        self.sections.get(heading).map_or("", String::as_str)
    }

    /// Returns the first paragraph below `heading`, in one line.
    pub fn first_paragraph(&self, heading: &str) -> String {
        self.section(heading).split("\n\n").next().unwrap_or_default().replace('\n', " ")
    }

    /// Returns every heading with its Markdown, in order.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sections.iter().map(|(heading, text)| (heading.as_str(), text.as_str()))
    }

    fn parse(path: &str, file: &str, offset: usize) -> Result<Self, Diagnostic> {
        let mut sections: IndexMap<String, String> = IndexMap::new();
        let mut at = offset;
        for line in file.get(offset..).unwrap_or_default().split_inclusive('\n') {
            if let Some(heading) = line.strip_prefix("## ") {
                let heading = heading.trim();
                let expected = HEADINGS.get(sections.len()).copied().unwrap_or("nothing more");
                if heading != expected {
                    let message = format!("the heading is `{heading}` where `{expected}` is expected");
                    let help = format!("the headings of a rule are, in order: {}", HEADINGS.join(", "));
                    return Err(Diagnostic::new(path, message).at(at..at + line.trim_end().len()).help(help));
                }
                sections.insert(heading.to_owned(), String::new());
            } else if let Some((_, text)) = sections.last_mut() {
                text.push_str(line);
            }
            at += line.len();
        }
        let missing = HEADINGS.iter().find(|h| sections.get(**h).is_none_or(|text| text.trim().is_empty()));
        if let Some(missing) = missing {
            return Err(Diagnostic::new(path, format!("the section `## {missing}` is missing or empty")));
        }
        for text in sections.values_mut() {
            // An indented first line is code.
            *text = text.trim_start_matches('\n').trim_end().to_owned();
        }
        Ok(Self { sections })
    }
}

/// The variables that rules may use, and their types.
pub(crate) struct Scopes {
    node: Type,
    instance: Type,
    specials: BTreeMap<&'static str, Type>,
}

impl Scopes {
    pub(crate) fn new(schema: &Schema) -> Self {
        let of = |definition: &str| schema.definition(definition).unwrap_or(Type::Opaque);
        let specials = seaworthy_components::ALL.iter().filter_map(|component| component.special);
        Self {
            node: of("Node"),
            instance: of("Instance"),
            specials: specials.map(|(variable, definition)| (variable, of(definition))).collect(),
        }
    }

    /// Returns the variables of rules about `subject` with their types.
    pub(crate) fn types(&self, subject: &Subject) -> BTreeMap<&'static str, Type> {
        let mut types = BTreeMap::from([("node", self.node.clone())]);
        if let Subject::Instances(_) = subject {
            types.insert("self", self.instance_of(subject));
        }
        types.extend(subject.special().and_then(|name| Some((name, self.specials.get(name)?.clone()))));
        types
    }

    /// Returns the type of what every instance of the components has: their settings are those that any of them has, and one that an
    /// instance has not is not known of it.
    fn instance_of(&self, subject: &Subject) -> Type {
        let Type::Object(object) = &self.instance else { return self.instance.clone() };
        let mut fields = object.fields.clone();
        fields.retain(|name, _| !self.specials.contains_key(name.as_str()));
        let any: BTreeSet<&str> =
            subject.components().flat_map(|component| component.settings).copied().collect();
        let keys: Vec<String> = any.into_iter().map(str::to_owned).collect();
        if let Some(Type::Observed(settings)) = fields.get("settings")
            && let Type::Map { value, .. } = &**settings
        {
            let settings = Type::Map { keys: Some(keys.into()), value: Arc::clone(value) };
            fields.insert("settings".to_owned(), Type::Observed(Arc::new(settings)));
        }
        Type::Object(Arc::new(Object { name: object.name.clone(), fields }))
    }

    fn of(&self, subject: &Subject) -> Scope {
        self.types(subject).into_iter().fold(Scope::new(), |scope, (name, ty)| scope.with(name, ty))
    }
}

impl Rule {
    /// Returns what to do when it fails, wherever that is: the first paragraph of its remediation.
    pub fn remedy_in_general(&self) -> String {
        self.document.first_paragraph("Remediation")
    }

    pub(crate) fn parse(path: &str, file: &str, scopes: &Scopes) -> Result<Self, Vec<Diagnostic>> {
        let (offset, front, body) = split(path, file).map_err(|d| vec![d])?;
        let raw: FrontMatter = yaml::parse(path, front, offset).map_err(|d| vec![d])?;
        let document = Document::parse(path, file, body).map_err(|d| vec![d])?;
        let mut compiler = Compiler { path, file, offset, diagnostics: Vec::new() };
        let subject = compiler.subject(raw.component);
        let scope = &scopes.of(&subject);

        let folder = path.rsplit('/').nth(1).unwrap_or_default();
        if raw.id.value != folder {
            let message = format!("the id is `{}`, but the folder is named `{folder}`", raw.id.value);
            compiler.report(&raw.id, message);
        }
        let applies: Vec<_> = raw.applies.iter().filter_map(|a| compiler.applies(a, scope)).collect();
        let checks: Vec<_> = raw.checks.iter().filter_map(|c| compiler.check(c, scope)).collect();
        let notes: Vec<_> = raw.notes.iter().filter_map(|n| compiler.note(n, scope)).collect();
        let summary = raw.summary.as_ref().and_then(|s| compiler.template(s, scope));
        let remedy = raw.remedy.as_ref().and_then(|remedy| compiler.template(remedy, scope));
        let fix = raw.fix.as_ref().and_then(|fix| compiler.fix(fix, &subject));
        let mut diagnostics = compiler.diagnostics;
        if raw.checks.is_empty() {
            diagnostics.push(Diagnostic::new(path, "the rule has no checks, so it would pass always"));
        }

        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        Ok(Self {
            id: raw.id.value,
            path: path.to_owned(),
            title: raw.title,
            severity: raw.severity,
            subject,
            since: raw.since,
            applies,
            checks,
            notes,
            summary,
            remedy,
            frameworks: raw.frameworks,
            fix,
            document,
            always_applies: raw.always_applies,
        })
    }
}

/// Returns the byte offset of the front matter, the front matter, and the byte offset of what follows it.
fn split<'a>(path: &str, file: &'a str) -> Result<(usize, &'a str, usize), Diagnostic> {
    const FENCE: &str = "---\n";
    let help = "a rule begins with `---`, its YAML front matter, and a second `---`";
    let front = file
        .strip_prefix(FENCE)
        .ok_or_else(|| Diagnostic::new(path, "the file does not begin with `---`").at(0..1).help(help))?;
    let length = front.find("\n---\n").ok_or_else(|| {
        Diagnostic::new(path, "the front matter is not closed by `---`").at(0..3).help(help)
    })?;
    let yaml = front.get(..=length).unwrap_or_default();
    Ok((FENCE.len(), yaml, FENCE.len() + yaml.len() + FENCE.len()))
}

/// Compiles the expressions of one rule and collects what is wrong with them.
struct Compiler<'a> {
    path: &'a str,
    file: &'a str,
    offset: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Compiler<'_> {
    fn subject(&mut self, names: Vec<String>) -> Subject {
        let components = || seaworthy_components::ALL.iter();
        if names == ["node"] {
            return Subject::Node;
        }
        if names == ["all"] {
            let programs = components().filter(|component| component.program.is_some());
            return Subject::Instances(programs.map(|component| component.name.to_owned()).collect());
        }
        for name in names.iter().filter(|name| seaworthy_components::named(name).is_none()) {
            let known: Vec<&str> = components().map(|component| component.name).collect();
            let message = format!(
                "there is no component `{name}`: there are {}, and alone `all` and `node`",
                known.join(", ")
            );
            self.diagnostics.push(Diagnostic::new(self.path, message));
        }
        if names.is_empty() {
            self.diagnostics.push(Diagnostic::new(self.path, "the rule is about no component"));
        }
        Subject::Instances(names)
    }

    fn applies(&mut self, raw: &RawApplies, scope: &Scope) -> Option<Applies> {
        let when = self.condition(&raw.when, scope);
        let otherwise = self.template(&raw.otherwise, scope);
        Some(Applies { when: when?, otherwise: otherwise? })
    }

    fn check(&mut self, raw: &RawCheck, scope: &Scope) -> Option<Check> {
        let mut inner = scope.clone();
        let each = match (&raw.each, &raw.variable) {
            (None, None) => {
                if let Some(filter) = &raw.filter {
                    self.report(filter, "`where` needs an `each` to filter".to_owned());
                }
                None
            }
            (Some(list), Some(variable)) => {
                let (list, element) = self.list(list, scope)?;
                inner = inner.with(&variable.value, element);
                let filter = raw.filter.as_ref().and_then(|f| self.condition(f, &inner));
                Some(Each { list, variable: variable.value.clone(), filter })
            }
            (Some(lonely), None) | (None, Some(lonely)) => {
                self.report(lonely, "`each` and `as` go together".to_owned());
                return None;
            }
        };
        let that = self.condition(&raw.that, &inner);
        let otherwise = self.template(&raw.otherwise, &inner);
        let mut template = |text: &Option<Spanned<String>>| match text {
            Some(text) => self.template(text, &inner).map(Some),
            None => Some(None),
        };
        let (remedy, remedy_otherwise) = (template(&raw.remedy), template(&raw.remedy_otherwise));
        let (that, otherwise) = (that?, otherwise?);
        let (remedy, remedy_otherwise) = (remedy?, remedy_otherwise?);
        let (name, corroborates) = (raw.name.clone(), raw.corroborates);
        Some(Check { name, each, that, otherwise, remedy, remedy_otherwise, corroborates })
    }

    fn note(&mut self, raw: &RawNote, scope: &Scope) -> Option<Note> {
        let when = self.condition(&raw.when, scope);
        let say = self.template(&raw.say, scope);
        Some(Note { when: when?, say: say? })
    }

    fn fix(&mut self, raw: &RawFix, subject: &Subject) -> Option<Fix> {
        let components: Vec<&Component> = subject.components().collect();
        let read = raw.read(&components);
        read.map_err(|message| self.diagnostics.push(Diagnostic::new(self.path, message))).ok()
    }

    fn condition(&mut self, text: &Spanned<String>, scope: &Scope) -> Option<Program> {
        Program::condition(&text.value, scope).map_err(|errors| self.extend(text, errors)).ok()
    }

    fn list(&mut self, text: &Spanned<String>, scope: &Scope) -> Option<(Program, Type)> {
        Program::list(&text.value, scope).map_err(|errors| self.extend(text, errors)).ok()
    }

    fn template(&mut self, text: &Spanned<String>, scope: &Scope) -> Option<Template> {
        Template::compile(&text.value, scope).map_err(|errors| self.extend(text, errors)).ok()
    }

    fn extend(&mut self, text: &Spanned<String>, errors: Vec<seaworthy_expr::Diagnostic>) {
        let place = yaml::scalar_span(self.file, self.offset, text);
        self.diagnostics.extend(errors.into_iter().map(|error| Diagnostic {
            path: self.path.to_owned(),
            span: Some(place(error.span)),
            message: error.message,
            help: error.help,
        }));
    }

    fn report(&mut self, text: &Spanned<String>, message: String) {
        let span = yaml::scalar_span(self.file, self.offset, text)(0..text.value.len());
        self.diagnostics.push(Diagnostic::new(self.path, message).at(span));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FrontMatter {
    id: Spanned<String>,
    title: String,
    severity: Severity,
    #[serde(deserialize_with = "yaml::one_or_many")]
    component: Vec<String>,
    since: String,
    #[serde(default)]
    always_applies: bool,
    #[serde(default)]
    applies: Vec<RawApplies>,
    checks: Vec<RawCheck>,
    #[serde(default)]
    notes: Vec<RawNote>,
    #[serde(default)]
    summary: Option<Spanned<String>>,
    #[serde(default, rename = "do")]
    remedy: Option<Spanned<String>>,
    #[serde(default)]
    frameworks: Frameworks,
    #[serde(default)]
    fix: Option<RawFix>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApplies {
    when: Spanned<String>,
    otherwise: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    name: String,
    #[serde(default)]
    each: Option<Spanned<String>>,
    #[serde(default, rename = "as")]
    variable: Option<Spanned<String>>,
    #[serde(default, rename = "where")]
    filter: Option<Spanned<String>>,
    that: Spanned<String>,
    #[serde(rename = "else")]
    otherwise: Spanned<String>,
    #[serde(default, rename = "do")]
    remedy: Option<Spanned<String>>,
    #[serde(default, rename = "do-else")]
    remedy_otherwise: Option<Spanned<String>>,
    #[serde(default)]
    corroborates: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNote {
    when: Spanned<String>,
    say: Spanned<String>,
}
