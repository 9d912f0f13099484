//! Embeds the catalogue: each document as it is written, and its YAML as JSON, which a start reads ten times faster.
//! And the evidence schema without its prose, which is faster to read than to make from the types.
//!
//! Nothing is checked here. A document whose YAML cannot be read is embedded without its JSON; loading it then says, with
//! a source span, what is wrong.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde_json::Value;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalogue").canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    find(&root, &mut files)?;
    let mut table = String::from("[\n");
    for file in &files {
        let text = fs::read_to_string(file)?;
        let name = file.strip_prefix(&root).unwrap_or(file).to_string_lossy();
        let json = yaml(&name, &text).and_then(json);
        let _ = writeln!(table, "({name:?}, include_str!({:?}), {json:?}),", file.to_string_lossy());
    }
    table.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut schema = seaworthy_evidence::json_schema();
    without_prose(&mut schema);
    fs::write(out.join("schema.json"), schema.to_string())?;
    fs::write(out.join("catalogue.rs"), table)
}

/// Takes the descriptions out of a JSON Schema. A property of that name stays: it is an object.
fn without_prose(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| key != "description" || !value.is_string());
            object.values_mut().for_each(without_prose);
        }
        Value::Array(items) => items.iter_mut().for_each(without_prose),
        _ => {}
    }
}

/// Finds the documents of rules and benchmarks below `folder`. Fixtures are for those who write rules.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("tests") {
            find(&path, files)?;
        } else if path.ends_with("rule.md") || path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Returns the YAML of a document: all of a benchmark, the front matter of a rule.
fn yaml<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    if name.ends_with(".yaml") {
        return Some(text);
    }
    let front = text.strip_prefix("---\n")?;
    front.get(..=front.find("\n---\n")?)
}

fn json(yaml: &str) -> Option<String> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(yaml, options).ok()?;
    Some(value.to_string())
}
