//! Compiles the catalogue: what is wrong with it stops the build, with the diagnostics that `seaworthy catalogue check`
//! gives.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, error, fs};

use seaworthy_catalogue::{Catalogue, Sources, render};

#[expect(clippy::print_stderr, reason = "a build script has no other way to tell")]
fn main() -> Result<ExitCode, Box<dyn error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalogue").canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let sources = Sources::read(&root)?;
    let catalogue = match Catalogue::load(&sources) {
        Ok(catalogue) => catalogue,
        Err(diagnostics) => {
            // As text: an error returned from here is shown as one escaped line.
            eprint!("{}", render(&diagnostics, &sources, false));
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut texts = String::from("[\n");
    for (path, _) in sources.rules().chain(sources.benchmarks()) {
        writeln!(texts, "({path:?}, include_str!({:?})),", root.join(path))?;
    }
    texts.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    fs::write(out.join("catalogue.bin"), postcard::to_allocvec(&catalogue)?)?;
    fs::write(out.join("sources.rs"), texts)?;
    Ok(ExitCode::SUCCESS)
}
