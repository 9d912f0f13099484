//! Turns the files of `layouts/` into Rust, so that nothing is read at a start and a mistake in one stops the build.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Layout {
    name: String,
    #[serde(default)]
    signs: Vec<String>,
    #[serde(default)]
    control_plane: Option<String>,
    #[serde(default)]
    static_pods: Vec<String>,
    #[serde(default)]
    pki: Vec<String>,
    #[serde(default)]
    authorities: Vec<String>,
    #[serde(default)]
    kubelet_certificate: Option<String>,
    #[serde(default)]
    administrators: Vec<String>,
    #[serde(default)]
    embeds: Vec<Embedding>,
    #[serde(default)]
    configuration: Option<String>,
    #[serde(default)]
    arguments: BTreeMap<String, String>,
    #[serde(default)]
    writes: Vec<String>,
    #[serde(rename = "sources")]
    _sources: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Embedding {
    program: String,
    #[serde(default)]
    word: Option<String>,
    components: Vec<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../layouts");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths.sort();
    let mut rust = "&[\n".to_owned();
    for path in paths {
        let file = path.display();
        let layout: Layout =
            serde_saphyr::from_str(&fs::read_to_string(&path)?).map_err(|e| format!("{file}: {e}"))?;
        if path.file_stem().is_none_or(|stem| *stem != *layout.name) {
            return Err(format!("{file}: the name is {}", layout.name).into());
        }
        let embeds: String = layout
            .embeds
            .iter()
            .map(|e| {
                format!(
                    "Embedding {{ program: {:?}, word: {:?}, components: &{:?} }}, ",
                    e.program, e.word, e.components
                )
            })
            .collect();
        writeln!(
            rust,
            "    Layout {{ name: {:?}, signs: &{:?}, control_plane: {:?}, static_pods: &{:?}, pki: &{:?}, authorities: &{:?}, kubelet_certificate: {:?}, administrators: &{:?}, embeds: &[{embeds}], configuration: {:?}, arguments: &{:?}, writes: &{:?} }},",
            layout.name,
            layout.signs,
            layout.control_plane,
            layout.static_pods,
            layout.pki,
            layout.authorities,
            layout.kubelet_certificate,
            layout.administrators,
            layout.configuration,
            layout.arguments.iter().collect::<Vec<_>>(),
            layout.writes
        )?;
    }
    rust.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("layouts.rs"), rust)?;
    Ok(())
}
