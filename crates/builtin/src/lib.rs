//! The catalogue of this version, compiled into the binary.
//!
//! The build script loads the catalogue as [`Catalogue::load`] does for everybody, and embeds what that gives: its YAML read,
//! its expressions checked. A start has only to decode it.
//!
//! Architecture invariant: nothing is checked here, because what is embedded was.

use std::sync::OnceLock;

use seaworthy_catalogue::{Catalogue, Sources};

/// What the build script made of the catalogue. The format is that of this very build, and is never written anywhere else.
static COMPILED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/catalogue.bin"));

/// Path and text of each document of the catalogue.
static SOURCES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// Returns the catalogue of this version. It is decoded once.
///
/// # Errors
/// Never: a test decodes it.
pub fn catalogue() -> Result<&'static Catalogue, postcard::Error> {
    static CATALOGUE: OnceLock<Result<Catalogue, postcard::Error>> = OnceLock::new();
    CATALOGUE.get_or_init(|| postcard::from_bytes(COMPILED)).as_ref().map_err(Clone::clone)
}

/// Returns the documents that [`catalogue`] was compiled from, to lay others over them: all but the fixtures, which are for
/// those who write rules.
pub fn sources() -> Sources {
    let mut sources = Sources::default();
    for (path, text) in SOURCES {
        sources.insert(*path, *text);
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_is_what_the_sources_say() {
        let loaded = Catalogue::load(&sources()).expect("the sources are in order");
        let compiled = catalogue().expect("it can be decoded");
        assert!(compiled.rules.len() > 20 && compiled.benchmarks.len() > 1);
        assert_eq!(format!("{compiled:?}"), format!("{loaded:?}"));
    }
}
