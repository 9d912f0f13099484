//! `seaworthy audit`.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;
use seaworthy_audit::{Options, Report, Waivers, audit, select};
use seaworthy_catalogue::Catalogue;
use seaworthy_evidence::Snapshot;
use seaworthy_report::{json, text};

use crate::cli;
use crate::exit::{Exit, UsageError};
use crate::output::{self, Format};

pub(super) fn run(options: &cli::Audit) -> anyhow::Result<Exit> {
    expect_destinations(options)?;
    let judging = || -> anyhow::Result<_> {
        let catalogue = super::catalogue::load(&options.catalogue)?;
        let judged = judged(options, catalogue)?;
        Ok((catalogue, judged))
    };
    let ((catalogue, judged), snapshots) = if !options.snapshots.is_empty() {
        (judging()?, options.snapshots.iter().map(|path| read(path)).collect::<Result<_, _>>()?)
    } else if is_long(&options.collection) && names_something(options) {
        // A name that means nothing is told before such a look at the node, not after it.
        (judging()?, vec![super::snapshot::take(&options.collection)?])
    } else {
        let (own, judging) = rayon::join(|| super::snapshot::take(&options.collection), judging);
        (judging?, vec![own?])
    };
    let reports: Vec<Report> = snapshots.par_iter().map(|s| audit(catalogue, s, &judged)).collect();
    let mut failure = None;
    for output in &options.formats {
        let document = match output.format {
            Format::Json => json::render_all(&reports),
            Format::Text => {
                let full = options.verbose || !options.rules.is_empty();
                let layout = text::Layout { width: output::width(), verbose: options.verbose, full };
                reports.iter().map(|r| text::render(r, layout)).collect::<Vec<_>>().join("\n")
            }
        };
        let written = match &output.path {
            Some(path) => output::write(path, &anstream::adapter::strip_str(&document).to_string()),
            None => output::print(&document),
        };
        // The other destinations get theirs all the same.
        failure = failure.or(written.err());
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let fail_on = options.fail_on.into();
    let exit = if reports.iter().any(|r| r.fails_at(fail_on)) {
        Exit::Findings
    } else if reports.iter().any(|r| r.coverage(options.require_corroboration) < options.min_coverage) {
        Exit::Incomplete
    } else {
        Exit::Clean
    };
    // The process ends now, and gives all of its memory back at once.
    std::mem::forget((snapshots, reports));
    Ok(exit)
}

/// Makes sure that each format has a file of its own that can be there.
fn expect_destinations(options: &cli::Audit) -> Result<(), UsageError> {
    let mut seen = HashSet::new();
    for path in options.formats.iter().filter_map(|output| output.path.as_ref()) {
        output::expect_folder(path)?;
        if !seen.insert(path) {
            let message = format!("two formats go to {}", path.display());
            return Err(UsageError::new(message, "give each a file of its own"));
        }
    }
    Ok(())
}

/// Returns whether a look at the node may take long: it waits for others.
fn is_long(collection: &cli::Collection) -> bool {
    !collection.no_wire || collection.observe.is_some()
}

/// Returns whether the command line names what there may not be.
fn names_something(options: &cli::Audit) -> bool {
    options.benchmark.is_some()
        || !options.rules.is_empty()
        || options.waivers.is_some()
        || options.catalogue.dir.is_some()
}

/// Returns what to judge, after making sure that every name in it means something.
fn judged(options: &cli::Audit, catalogue: &Catalogue) -> anyhow::Result<Options> {
    let benchmark = match &options.benchmark {
        None => None,
        Some(name) => {
            Some(catalogue.benchmark(name).ok_or_else(|| super::catalogue::no_benchmark(catalogue, name))?)
        }
    };
    for pattern in &options.rules {
        if select(catalogue, benchmark, std::slice::from_ref(pattern)).is_empty() {
            let elsewhere =
                benchmark.filter(|_| !select(catalogue, None, std::slice::from_ref(pattern)).is_empty());
            let within = elsewhere.map(|b| format!(" in {}", b.id)).unwrap_or_default();
            let message = format!("no rule or implemented control{within} matches `{pattern}`");
            let help = match catalogue.section(pattern) {
                Some(_) => format!("for the controls of a section: --rule '{pattern}.*'"),
                None => "see `seaworthy list` for the rules".to_owned(),
            };
            return Err(UsageError::new(message, help).into());
        }
    }
    let waivers = match &options.waivers {
        None => Waivers::default(),
        Some(path) => {
            let text = read_text(path)?;
            Waivers::parse(&text).map_err(|error| {
                let help = "for example: {waivers: [{rule: etcd-peer-tls, reason: lab only, owner: jo, expires: 2027-01-31}]}";
                UsageError::new(format!("{}: {error}", path.display()), help)
            })?
        }
    };
    Ok(Options { rules: options.rules.clone(), benchmark: benchmark.map(|b| b.id.clone()), waivers })
}

/// Returns the snapshot in a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Snapshot> {
    let text = read_text(path)?;
    Snapshot::from_json(text.as_bytes()).map_err(|error| {
        let message = format!("{} is not a snapshot: {error}", path.display());
        UsageError::new(message, "take one with `seaworthy snapshot -o FILE`").into()
    })
}

/// Returns the text of a file of at most 256 MiB; `-` is standard input.
fn read_text(path: &Path) -> Result<String, UsageError> {
    use std::io::Read as _;
    const MAX: u64 = 256 << 20;
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX + 1).read_to_string(&mut text))
    };
    let wrong = match read {
        Ok(_) if text.len() as u64 <= MAX => return Ok(text),
        Ok(_) => "it is larger than 256 MiB".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(UsageError::new(format!("cannot read {}: {wrong}", path.display()), "give a file that can be read"))
}
