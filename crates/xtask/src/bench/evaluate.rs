//! Audits many distinct snapshots offline, on one core and on all.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use seaworthy_audit::{Options, audit};
use seaworthy_catalogue::Catalogue;
use seaworthy_evidence::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What auditing took.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// Threads that shared the work.
    pub(crate) threads: usize,
    /// Snapshots that were read from JSON and audited; no two alike.
    pub(crate) snapshots: usize,
    /// Findings of all of them.
    pub(crate) findings: usize,
    /// Seconds until the last thread was done, the making of snapshots not counted.
    pub(crate) seconds: f64,
    /// Bytes of all the snapshots.
    pub(crate) bytes: usize,
}

/// Audits `count` variants of the snapshot in the file `path` on all cores, and a tenth of that on one, and prints both.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(path: &Path, count: usize) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let template: Value = serde_json::from_str(&text)?;
    let catalogue = seaworthy_builtin::catalogue()?;
    let cores = thread::available_parallelism()?.get();
    let evaluations =
        [shared(&template, catalogue, count / 10, 1)?, shared(&template, catalogue, count, cores)?];
    println!("{}", serde_json::to_string(&evaluations)?);
    Ok(())
}

fn shared(
    template: &Value,
    catalogue: &Catalogue,
    count: usize,
    threads: usize,
) -> anyhow::Result<Evaluation> {
    let shares: Vec<_> = thread::scope(|scope| {
        let share = |first| scope.spawn(move || share(template, catalogue, (first..count).step_by(threads)));
        let running: Vec<_> = (0..threads).map(share).collect();
        let crashed = |_| anyhow::anyhow!("an audit panicked");
        running.into_iter().map(|thread| thread.join().map_err(crashed)?).collect::<anyhow::Result<_>>()
    })?;
    let mut seen = HashSet::new();
    let mut sum = Evaluation { threads, ..Evaluation::default() };
    for (hashes, share) in shares {
        seen.extend(hashes);
        sum.snapshots += share.snapshots;
        sum.findings += share.findings;
        sum.bytes += share.bytes;
        sum.seconds = sum.seconds.max(share.seconds);
    }
    anyhow::ensure!(seen.len() == count, "only {} of {count} snapshots are distinct", seen.len());
    Ok(sum)
}

/// Audits the variants `numbers` of `template`, and returns their hashes beside the sums.
fn share(
    template: &Value,
    catalogue: &Catalogue,
    numbers: impl Iterator<Item = usize>,
) -> anyhow::Result<(Vec<u64>, Evaluation)> {
    let options = Options::default();
    let mut hashes = Vec::new();
    let mut sum = Evaluation::default();
    let mut busy = Duration::ZERO;
    for number in numbers {
        let mut variant = template.clone();
        vary(&mut variant, number);
        let json = serde_json::to_vec(&variant)?;
        let mut hasher = DefaultHasher::new();
        json.hash(&mut hasher);
        hashes.push(hasher.finish());
        sum.bytes += json.len();

        let start = Instant::now();
        let snapshot = Snapshot::from_json(&json)?;
        let report = audit(catalogue, &snapshot, &options);
        busy += start.elapsed();
        sum.snapshots += 1;
        sum.findings += report.findings.len();
    }
    sum.seconds = busy.as_secs_f64();
    Ok((hashes, sum))
}

/// Makes another node of a snapshot: other process numbers, names, addresses and times, and now and then other settings.
fn vary(value: &mut Value, number: usize) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| vary(item, number)),
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), &mut *value) {
                    ("pid", Value::Number(pid)) => {
                        *value = (pid.as_u64().unwrap_or_default() + number as u64).into();
                    }
                    ("taken_at", _) => {
                        let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
                        *value =
                            format!("2027-01-0{}T{hour:02}:{minute:02}:{second:02}Z", number % 9 + 1).into();
                    }
                    ("scheme", Value::String(scheme)) if number.is_multiple_of(7) && scheme == "https" => {
                        *value = "http".into();
                    }
                    ("peer-client-cert-auth", Value::Object(setting)) if number.is_multiple_of(3) => {
                        setting.insert("value".to_owned(), "false".into());
                    }
                    _ => vary(value, number),
                }
            }
        }
        Value::String(text) if text.contains("10.77.0.") => {
            *text = text.replace("10.77.0.", &format!("10.{}.{}.", number / 250 % 250, number % 250));
        }
        Value::String(text) if matches!(text.as_str(), "m1" | "m2" | "m3") => {
            *text = format!("{text}-{number}");
        }
        _ => {}
    }
}
