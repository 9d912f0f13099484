//! `seaworthy probe`.

use jiff::Timestamp;
use seaworthy_evidence::{ErrorKind, EvidenceError, Wire};
use seaworthy_report::probe as report;
use seaworthy_wire::{Options, Target, probe};

use crate::cli;
use crate::exit::{Exit, UsageError};
use crate::output::{self, Format};

pub(super) fn run(options: &cli::Probe) -> anyhow::Result<Exit> {
    if let Some(wrong) = options.targets.iter().find_map(|target| Target::check(target).err()) {
        let help = "give HOST:PORT, for example 127.0.0.1:2380, or unix:PATH";
        return Err(UsageError::new(wrong.message, help).into());
    }
    let mut probing = Options::new(Timestamp::now());
    probing.timeout = options.timeout;
    probing.limit = options.timeout * 3;
    let ask = |target: &String| (target.clone(), Target::resolve(target).and_then(|t| probe(&t, &probing)));
    let results: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = options.targets.iter().map(|target| scope.spawn(move || ask(target))).collect();
        let lost = |target: &String| {
            (
                target.clone(),
                Err(EvidenceError::new(ErrorKind::Io, format!("{target}: the probe did not finish"))),
            )
        };
        asking.into_iter().zip(&options.targets).map(|(a, t)| a.join().unwrap_or_else(|_| lost(t))).collect()
    });
    match options.format {
        Format::Json => output::print(&report::json(&results))?,
        Format::Text => {
            let width = output::width();
            let parts: Vec<_> =
                results.iter().map(|(target, result)| report::text(target, result, width)).collect();
            output::print(&parts.join("\n"))?;
        }
    }
    let speaks = |result: &Result<Wire, _>| {
        result.as_ref().is_ok_and(|wire| wire.speaks_tls() || wire.serves_plaintext())
    };
    Ok(if results.iter().all(|(_, result)| speaks(result)) { Exit::Clean } else { Exit::Incomplete })
}
