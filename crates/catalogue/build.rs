//! Embeds the catalogue: each document as it is written, and its YAML as JSON, which a start reads ten times faster.
//! And of the evidence schema what types are made of, which is faster to read than to make from Rust's types.
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
    only_types(&mut schema);
    fs::write(out.join("schema.json"), schema.to_string())?;
    fs::write(out.join("catalogue.rs"), table)
}

/// Takes out of a JSON Schema what tells no type. A property of such a name stays: it is an object.
fn only_types(schema: &mut Value) {
    const OTHER: [&str; 8] =
        ["$id", "$schema", "additionalProperties", "default", "description", "format", "minimum", "required"];
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| value.is_object() || !OTHER.contains(&key.as_str()));
            // Of an observation, the type of its value.
            if object.contains_key("x-observed")
                && let Some(Value::Object(properties)) = object.get_mut("properties")
                && properties.contains_key("value")
            {
                properties.retain(|name, _| name == "value");
                object.remove("oneOf");
            }
            object.values_mut().for_each(only_types);
        }
        Value::Array(items) => items.iter_mut().for_each(only_types),
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
