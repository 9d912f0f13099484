//! `seaworthy snapshot`.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use jiff::Timestamp;
use seaworthy_evidence::{ErrorKind, EvidenceError, Snapshot};

use crate::exit::{Exit, UsageError};
use crate::{cli, output};

pub(super) fn run(options: &cli::Snapshot) -> anyhow::Result<Exit> {
    if let Some(path) = &options.output {
        output::expect_folder(path)?;
    }
    let snapshot = take(&options.collection)?;
    let document = seaworthy_report::document(&snapshot).context("cannot write the snapshot")?;
    match &options.output {
        Some(path) => output::write(path, &document)?,
        None => output::print(&document)?,
    }
    Ok(Exit::Clean)
}

/// Takes a snapshot of this node.
pub(super) fn take(options: &cli::Collection) -> anyhow::Result<Snapshot> {
    let collection = seaworthy_collect::Options {
        root: options.root.clone(),
        layout: options.layout.as_deref().and_then(seaworthy_layouts::named),
        wire: !options.no_wire,
        observe: options.observe,
        timeout: options.timeout,
        patience: seaworthy_collect::PATIENCE,
        now: Timestamp::now(),
    };
    if let Some(duration) = options.observe.filter(|_| std::io::stderr().is_terminal()) {
        anstream::eprintln!("watching the peer ports for {} s …", duration.as_secs_f64());
    }
    seaworthy_collect::collect(&collection).map_err(|error| not_collected(&error))
}

/// Returns the error for a host of which nothing could be collected, with what to do.
pub(super) fn not_collected(error: &EvidenceError) -> anyhow::Error {
    match error.kind {
        ErrorKind::Unsupported => anyhow::anyhow!(
            "{error}; allow openat2(2) in the seccomp profile of the container, or run it outside of the container"
        ),
        ErrorKind::PermissionDenied => anyhow::anyhow!("{error}; run it as a user who may read that folder"),
        _ => {
            UsageError::new(error.to_string(), "give the folder that holds the root of the host with --root")
                .into()
        }
    }
}
