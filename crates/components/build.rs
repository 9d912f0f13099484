//! Turns the flag table of each component into Rust, as far as `settings::pflag` uses it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=src");
    for entry in fs::read_dir("src")? {
        let folder = entry?.path();
        let path = folder.join("flags.json");
        // etcd does not read its command line with pflag.
        let component = folder.file_name().and_then(OsStr::to_str).filter(|name| *name != "etcd");
        let Some(component) = component.filter(|_| path.is_file()) else { continue };
        let table: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let rust = rust(&table).ok_or_else(|| format!("{} is no flag table", path.display()))?;
        fs::write(out.join(format!("{component}.rs")), rust)?;
    }
    Ok(())
}

/// Returns the table as an expression of Rust.
fn rust(table: &Value) -> Option<String> {
    let releases: Vec<String> =
        table.get("releases")?.as_array()?.iter().map(|r| release(r.as_str()?)).collect::<Option<_>>()?;
    let component = table.get("component")?.as_str()?;
    let mut rust =
        format!("Table {{ component: {component:?}, releases: &[{}], flags: &[\n", releases.join(", "));
    for flag in table.get("flags")?.as_array()? {
        let name = flag.get("name")?.as_str()?;
        let shorthand = flag.get("shorthand").and_then(Value::as_str).and_then(|s| s.chars().next());
        let kind = flag.get("kind")?.as_str()?;
        let takes = match kind {
            "bool" => "Boolean",
            _ if flag.get("bare").is_some() => "Bare",
            // The first value replaces the default, and the others are added to it.
            _ if ["Slice", "ToString", "Array", "CertKey"].iter().any(|end| kind.ends_with(end)) => "List",
            _ if kind.contains("map") => "List",
            _ => "Value",
        };
        let defaults = match flag.get("default")? {
            Value::String(text) => format!("((0, 0, 0), Some({text:?}))"),
            Value::Object(by_release) if !by_release.contains_key("machine") => {
                let each = by_release.iter().map(|(from, text)| {
                    let text = text.as_str().map_or("None".to_owned(), |text| format!("Some({text:?})"));
                    Some(format!("({}, {text})", release(from)?))
                });
                each.collect::<Option<Vec<_>>>()?.join(", ")
            }
            _ => "((0, 0, 0), None)".to_owned(),
        };
        let bound = |key: &str| match flag.get(key).and_then(Value::as_str) {
            Some(text) => release(text).map(|release| format!("Some({release})")),
            None => Some("None".to_owned()),
        };
        writeln!(
            rust,
            "    Flag {{ name: {name:?}, shorthand: {shorthand:?}, takes: Takes::{takes}, defaults: &[{defaults}], since: {}, removed: {} }},",
            bound("since")?,
            bound("removed")?
        )
        .ok()?;
    }
    rust.push_str("] }");
    Some(rust)
}

/// Returns a release as a tuple: `1.35` is the first of its line.
fn release(text: &str) -> Option<String> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let patch = parts.next().map_or(Some(0), Result::ok)?;
    Some(format!("({major}, {minor}, {patch})"))
}
