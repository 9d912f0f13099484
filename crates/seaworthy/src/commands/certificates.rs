//! `seaworthy certificates`.

use seaworthy_report::certificates::{self, Inventory};

use crate::exit::Exit;
use crate::output::{self, Format};
use crate::{cli, commands};

pub(super) fn run(options: &cli::Certificates) -> anyhow::Result<Exit> {
    let snapshot = match &options.snapshot {
        Some(path) => commands::audit::read(path)?,
        None => commands::snapshot::take(&options.collection)?,
    };
    let inventory = Inventory::of(&snapshot, options.within);
    output::print(&match options.format {
        Format::Json => certificates::json(&inventory),
        Format::Text => certificates::text(&inventory, options.within, output::width(), options.verbose),
    })?;
    Ok(match options.within {
        Some(_) if !inventory.is_empty() => Exit::Findings,
        Some(_) if !inventory.is_complete() => Exit::Incomplete,
        _ => Exit::Clean,
    })
}
