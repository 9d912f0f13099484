//! Turns the flag table of each component into Rust: of etcd what its readers ask, of the others what `settings::pflag` uses.

use std::collections::BTreeMap;
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
        let component = folder.file_name().and_then(OsStr::to_str).filter(|_| path.is_file());
        let Some(component) = component else { continue };
        let table: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        // etcd does not read its command line with pflag.
        let rust = if component == "etcd" { etcd(&table) } else { pflag(&table) };
        let rust = rust.ok_or_else(|| format!("{} is no flag table", path.display()))?;
        fs::write(out.join(format!("{component}.rs")), rust)?;
    }
    Ok(())
}

/// Returns the table of a component of Kubernetes as an expression of Rust.
fn pflag(table: &Value) -> Option<String> {
    let releases: Vec<String> =
        table.get("releases")?.as_array()?.iter().map(|r| release(r.as_str()?)).collect::<Option<_>>()?;
    let component = table.get("component")?.as_str()?;
    let mut rust =
        format!("Table {{ component: {component:?}, releases: &[{}], flags: &[\n", releases.join(", "));
    for flag in table.get("flags")?.as_array()? {
        let name = flag.get("name")?.as_str()?;
        let shorthand = flag.get("shorthand").and_then(Value::as_str).and_then(|s| s.chars().next());
        // Where it differs, that of the newest release.
        let kind = match flag.get("kind")? {
            Value::Object(by_release) => by_release.values().next_back()?.as_str()?,
            kind => kind.as_str()?,
        };
        let takes = match kind {
            "bool" => "Boolean",
            _ if flag.get("bare").is_some() => "Bare",
            // The first value replaces the default, and the others are added to it.
            _ if ["Slice", "ToString", "Array", "CertKey"].iter().any(|end| kind.ends_with(end)) => "List",
            _ if kind.contains("map") => "List",
            _ => "Value",
        };
        let defaults = defaults(flag.get("default")?)?;
        writeln!(
            rust,
            "    Flag {{ name: {name:?}, shorthand: {shorthand:?}, kind: {kind:?}, takes: Takes::{takes}, defaults: &[{defaults}], since: {}, removed: {}, field: {:?} }},",
            bound(flag, "since")?,
            bound(flag, "removed")?,
            flag.get("field").and_then(Value::as_str)
        )
        .ok()?;
    }
    rust.push_str("], gates: &[\n");
    for gate in table.get("gates")?.as_array()? {
        let name = gate.get("name")?.as_str()?;
        let (stages, defaults, locked) = (
            by_release(gate.get("stage"))?,
            by_release(gate.get("default"))?,
            by_release(gate.get("locked"))?,
        );
        let (since, removed) = (bound(gate, "since")?, bound(gate, "removed")?);
        writeln!(
            rust,
            "    Gate {{ name: {name:?}, stages: &[{stages}], defaults: &[{defaults}], locked: &[{locked}], since: {since}, removed: {removed} }},",
        )
        .ok()?;
    }
    rust.push_str("], fields: &[\n");
    for field in table.get("fields").and_then(Value::as_array).into_iter().flatten() {
        let (name, kind) = (field.get("name")?.as_str()?, field.get("kind")?.as_str().unwrap_or("other"));
        let defaults = field.get("default").map_or(Some(String::new()), defaults)?;
        writeln!(rust, "    pflag::Field {{ name: {name:?}, kind: {kind:?}, defaults: &[{defaults}] }},")
            .ok()?;
    }
    rust.push_str("] }");
    Some(rust)
}

/// Returns what a default is from which release on, as Rust: nothing where it depends on the machine.
fn defaults(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("((0, 0, 0), Some({text:?}))")),
        Value::Object(by_release) if !by_release.contains_key("machine") => {
            let each = by_release.iter().map(|(from, text)| {
                let text = text.as_str().map_or("None".to_owned(), |text| format!("Some({text:?})"));
                Some(format!("({}, {text})", release(from)?))
            });
            each.collect::<Option<Vec<_>>>().map(|each| each.join(", "))
        }
        _ => Some("((0, 0, 0), None)".to_owned()),
    }
}

/// Returns the release that `row` names with `key`, as an expression. One that came back would name several, and is refused.
fn bound(row: &Value, key: &str) -> Option<String> {
    match row.get(key) {
        Some(text) => release(text.as_str()?).map(|release| format!("Some({release})")),
        None => Some("None".to_owned()),
    }
}

/// Returns what an attribute of a feature gate is from which release on; nothing stands for no.
fn by_release(attribute: Option<&Value>) -> Option<String> {
    let value = |value: &Value| if value.is_null() { "false".to_owned() } else { value.to_string() };
    match attribute {
        None => Some("((0, 0, 0), false)".to_owned()),
        Some(Value::Object(each)) => {
            let each = each.iter().map(|(from, one)| Some(format!("({}, {})", release(from)?, value(one))));
            each.collect::<Option<Vec<_>>>().map(|each| each.join(", "))
        }
        Some(one) => Some(format!("((0, 0, 0), {})", value(one))),
    }
}

/// Returns a release as a tuple: `1.35` is the first of its line.
fn release(text: &str) -> Option<String> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let patch = parts.next().map_or(Some(0), Result::ok)?;
    Some(format!("({major}, {minor}, {patch})"))
}

/// Returns the table of etcd as an expression of Rust: in each release, what there is and of which kind.
fn etcd(table: &Value) -> Option<String> {
    let releases: Vec<&str> =
        table.get("releases")?.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    // A set of releases has 64 bits.
    (releases.len() <= 64).then_some(())?;
    // The first release of a line is named by the line.
    let (mut labels, mut last) = (Vec::new(), "");
    for release in &releases {
        let line = release.rsplit_once('.').map_or(*release, |(line, _)| line);
        labels.push(if line == last { (*release).to_owned() } else { line.to_owned() });
        last = line;
    }
    let numbers = releases.iter().map(|r| Some(format!("({})", r.split_once('.')?.1.replace('.', ", "))));
    let numbers = numbers.collect::<Option<Vec<_>>>()?.join(", ");
    let mut rust = format!("Table {{ releases: &[{numbers}],\n");
    for (list, kind) in [("flags", "kind"), ("fields", "kind"), ("gates", "stage")] {
        // By name, and of two that differ in case only the one in lower case, which the decoder of the file prefers.
        let mut rows = BTreeMap::new();
        for row in table.get(list)?.as_array()? {
            let given = row.get("name")?.as_str()?;
            let name = if list == "fields" { given.to_ascii_lowercase() } else { given.to_owned() };
            let has = presence(row, &labels);
            let runs = |attribute: &str| runs(row.get(attribute), &has, &labels);
            let text = format!(
                "    Row {{ name: {name:?}, kinds: &[{}], values: &[{}] }},\n",
                runs(kind)?,
                runs("values")?
            );
            if given == name || !rows.contains_key(&name) {
                rows.insert(name, text);
            }
        }
        writeln!(rust, "{list}: &[\n{}],", rows.into_values().collect::<String>()).ok()?;
    }
    rust.push('}');
    Some(rust)
}

/// Returns for each release whether it has the item of a row.
fn presence(row: &Value, labels: &[String]) -> Vec<bool> {
    let named = |key: &str, label: &String| match row.get(key) {
        Some(Value::Array(named)) => named.iter().any(|named| named == label),
        named => named.is_some_and(|named| named == label),
    };
    let first = |key: &str| labels.iter().position(|label| named(key, label));
    let mut here = match (first("since"), first("removed")) {
        (Some(since), removed) => removed.is_some_and(|removed| removed < since),
        (None, _) => true,
    };
    let each = labels.iter().map(|label| {
        here = (here || named("since", label)) && !named("removed", label);
        here
    });
    each.collect()
}

/// Returns the values of an attribute, each with the set of the releases in a row that have it.
fn runs(attribute: Option<&Value>, has: &[bool], labels: &[String]) -> Option<String> {
    let by_release = attribute.and_then(Value::as_object);
    let (mut runs, mut value): (Vec<(u64, &Value)>, _) = (Vec::new(), attribute);
    for (index, (label, has)) in labels.iter().zip(has).enumerate() {
        if let Some(by_release) = by_release {
            value = by_release.get(label).or(value.filter(|_| index > 0));
        }
        let Some(value) = value.filter(|value| *has && !value.is_null()) else { continue };
        match runs.last_mut() {
            Some((set, last)) if *last == value && *set >> (index.checked_sub(1)?) & 1 == 1 => {
                *set |= 1 << index
            }
            _ => runs.push((1 << index, value)),
        }
    }
    let shown = runs.iter().map(|(set, value)| match value {
        Value::String(text) => Some(format!("({set:#x}, {text:?})")),
        Value::Array(_) => Some(format!("({set:#x}, &{value})")),
        _ => None,
    });
    Some(shown.collect::<Option<Vec<_>>>()?.join(", "))
}
