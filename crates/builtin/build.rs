//! Compiles the catalogue: what is wrong with it stops the build, with the diagnostics that `seaworthy catalogue check`
//! gives.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, error, fs};

use seaworthy_catalogue::{Catalogue, Sources, render};

fn main() -> Result<(), Box<dyn error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalogue").canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let sources = Sources::read(&root)?;
    let catalogue = Catalogue::load(&sources)
        .map_err(|diagnostics| format!("the catalogue:\n{}", render(&diagnostics, &sources, false)))?;
    let mut texts = String::from("[\n");
    for (path, _) in sources.rules().chain(sources.benchmarks()) {
        writeln!(texts, "({path:?}, include_str!({:?})),", root.join(path))?;
    }
    texts.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("catalogue.bin"), postcard::to_allocvec(&catalogue)?)?;
    Ok(fs::write(out.join("sources.rs"), texts)?)
}
