//! `seaworthy explain`, `list` and `catalogue check`: the catalogue for its readers and writers.

use std::path::Path;

use anyhow::Context as _;
use seaworthy_audit::check_fixture;
use seaworthy_catalogue::{Catalogue, Diagnostic, Sources, render};
use seaworthy_report::list;

use crate::cli::CatalogueDir;
use crate::exit::{Exit, UsageError};
use crate::output;

/// Returns the catalogue of this version with what `--catalogue` adds, for as long as the process lasts.
pub(super) fn load(options: &CatalogueDir) -> anyhow::Result<&'static Catalogue> {
    let Some(dir) = &options.dir else {
        return seaworthy_builtin::catalogue().context("the built-in catalogue cannot be decoded");
    };
    let mut sources = seaworthy_builtin::sources();
    sources.overlay(read(dir)?);
    let catalogue = Catalogue::load(&sources).map_err(|diagnostics| wrong(&diagnostics, &sources))?;
    Ok(Box::leak(Box::new(catalogue)))
}

pub(super) fn explain(name: &str, options: &CatalogueDir) -> anyhow::Result<Exit> {
    let catalogue = load(options)?;
    let rules: Vec<_> = match (catalogue.rules.get(name), catalogue.control(name)) {
        (Some(rule), _) => vec![rule],
        (None, Some((benchmark, control))) => {
            let rules: Vec<_> = control.rules().filter_map(|id| catalogue.rules.get(id)).collect();
            if rules.is_empty() {
                let text = format!(
                    "{} {}: {}\nNo rule implements it yet.\n",
                    benchmark.title, control.id, control.title
                );
                output::print(&text)?;
                return Ok(Exit::Clean);
            }
            rules
        }
        (None, None) => {
            let Some((benchmark, sections)) = catalogue.section(name) else {
                let message = format!("there is no rule, no control and no section `{name}`");
                return Err(UsageError::new(message, "see `seaworthy list` for the rules").into());
            };
            let controls = list::controls(benchmark, sections, output::terminal_width());
            output::print(&format!("{controls}\nsee `seaworthy explain` with one of these numbers\n"))?;
            return Ok(Exit::Clean);
        }
    };
    let width = output::width();
    let texts: Vec<_> =
        rules.iter().map(|rule| seaworthy_report::explain::render(catalogue, rule, width)).collect();
    output::print(&texts.join("\n\n"))?;
    Ok(Exit::Clean)
}

pub(super) fn list(benchmark: Option<&str>, options: &CatalogueDir) -> anyhow::Result<Exit> {
    let catalogue = load(options)?;
    let width = output::terminal_width();
    let text = match benchmark {
        None => list::catalogue(catalogue, width),
        Some(name) => {
            let benchmark = catalogue.benchmark(name).ok_or_else(|| no_benchmark(catalogue, name))?;
            list::controls(benchmark, &benchmark.sections, width)
        }
    };
    output::print(&text)?;
    Ok(Exit::Clean)
}

pub(super) fn check(dir: &Path) -> anyhow::Result<Exit> {
    let sources = read(dir)?;
    let catalogue = Catalogue::load(&sources).map_err(|diagnostics| wrong(&diagnostics, &sources))?;
    let fixtures = catalogue.fixtures(&sources).map_err(|diagnostics| wrong(&diagnostics, &sources))?;
    let diagnostics: Vec<_> = fixtures
        .iter()
        .filter_map(|(rule, fixture)| {
            Some(Diagnostic::new(&fixture.path, check_fixture(rule, fixture).err()?))
        })
        .collect();
    if !diagnostics.is_empty() {
        return Err(wrong(&diagnostics, &sources));
    }
    let (rules, fixtures, benchmarks) = (catalogue.rules.len(), fixtures.len(), catalogue.benchmarks.len());
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (rules, fixtures, benchmarks) =
        (counted(rules, "rule"), counted(fixtures, "fixture"), counted(benchmarks, "benchmark"));
    output::print(&format!("In order: {rules}, {fixtures} and {benchmarks}.\n"))?;
    Ok(Exit::Clean)
}

pub(super) fn no_benchmark(catalogue: &Catalogue, name: &str) -> UsageError {
    let names: Vec<_> = catalogue.benchmarks.keys().map(String::as_str).collect();
    UsageError::new(
        format!("there is no benchmark `{name}`"),
        format!("the benchmarks are: {}", names.join(", ")),
    )
}

fn read(dir: &Path) -> Result<Sources, UsageError> {
    let help = "give the folder that contains rules/ and benchmarks/";
    let sources = Sources::read(dir)
        .map_err(|error| UsageError::new(format!("cannot read the catalogue: {error}"), help))?;
    if sources.rules().next().is_none() && sources.benchmarks().next().is_none() {
        let message = format!("{} holds neither rules/…/rule.md nor benchmarks/*.yaml", dir.display());
        return Err(UsageError::new(message, help));
    }
    Ok(sources)
}

/// Tells `diagnostics` on stderr as a compiler would, and returns the error that sums them up.
fn wrong(diagnostics: &[Diagnostic], sources: &Sources) -> anyhow::Error {
    anstream::eprint!("{}", render(diagnostics, sources, true));
    let count = diagnostics.len();
    let errors = if count == 1 { "1 error".to_owned() } else { format!("{count} errors") };
    UsageError::new(format!("the catalogue has {errors}"), "").into()
}
