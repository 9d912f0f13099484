//! `cargo xtask generate`: files that are made from the code, committed, and checked for freshness.

use anyhow::Context as _;

use crate::{say, workspace};

pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let pretty = |schema: &serde_json::Value| serde_json::to_string_pretty(schema).map(|text| text + "\n");
    let files = [
        ("schemas/snapshot-v2.json", pretty(&seaworthy_evidence::json_schema())?),
        ("schemas/report-v1.json", pretty(&seaworthy_report::json::json_schema())?),
        ("schemas/certificates-v1.json", pretty(&seaworthy_report::certificates::json_schema())?),
        ("schemas/fix-v2.json", pretty(&seaworthy_report::plan::json_schema())?),
        ("schemas/fix-outcome-v2.json", pretty(&seaworthy_report::fix::outcome_json_schema())?),
        ("schemas/fix-status-v2.json", pretty(&seaworthy_report::fix::status_json_schema())?),
    ];
    for (name, text) in files {
        let path = workspace().join(name);
        if check {
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            anyhow::ensure!(committed == text, "{name} is stale: run `cargo xtask generate` and commit it");
        } else {
            std::fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
            say(&format!("wrote {name}"));
        }
    }
    Ok(())
}
