//! `seaworthy snapshot`.

use std::io::IsTerminal as _;
use std::thread::JoinHandle;

use anyhow::Context as _;
use jiff::Timestamp;
use seaworthy_evidence::Snapshot;

use crate::exit::{Exit, UsageError};
use crate::{cli, output};

pub(super) fn run(options: &cli::Snapshot) -> anyhow::Result<Exit> {
    let snapshot = take(&options.collection)?;
    let document = seaworthy_report::document(&snapshot).context("cannot write the snapshot")?;
    match &options.output {
        Some(path) => output::write(path, &document)?,
        None => output::print(&document)?,
    }
    Ok(Exit::Clean)
}

/// A snapshot of this node that is being taken.
pub(super) enum Begun {
    Running(JoinHandle<anyhow::Result<Snapshot>>),
    /// There was no thread for it.
    Waiting(cli::Collection),
}

/// Takes a snapshot of this node while the caller does something else. It ends with the program when nobody waits for it.
pub(super) fn begin(options: cli::Collection) -> Begun {
    let collection = options.clone();
    match std::thread::Builder::new().spawn(move || take(&collection)) {
        Ok(running) => Begun::Running(running),
        Err(_) => Begun::Waiting(options),
    }
}

impl Begun {
    pub(super) fn finish(self) -> anyhow::Result<Snapshot> {
        match self {
            Self::Running(thread) => {
                thread.join().map_err(|_| anyhow::anyhow!("taking the snapshot failed"))?
            }
            Self::Waiting(options) => take(&options),
        }
    }
}

/// Takes a snapshot of this node.
pub(super) fn take(options: &cli::Collection) -> anyhow::Result<Snapshot> {
    let collection = seaworthy_collect::Options {
        root: options.root.clone(),
        wire: !options.no_wire,
        observe: options.observe,
        timeout: options.timeout,
        now: Timestamp::now(),
    };
    if let Some(duration) = options.observe.filter(|_| std::io::stderr().is_terminal()) {
        anstream::eprintln!("watching the peer ports for {} s …", duration.as_secs_f64());
    }
    seaworthy_collect::collect(&collection).map_err(|error| {
        UsageError::new(error.to_string(), "give the folder that holds the root of the host with --root")
            .into()
    })
}
