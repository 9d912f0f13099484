//! The texts of a catalogue.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Largest catalogue file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Deepest folder that is visited below the catalogue's root.
const MAX_DEPTH: usize = 8;

/// The texts of a catalogue by their path below its root, with `/` as separator.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: BTreeMap<Cow<'static, str>, Cow<'static, str>>,
}

impl Sources {
    /// Returns the Markdown and YAML files below `root`.
    ///
    /// # Errors
    /// An I/O error with the path it concerns: unreadable, larger than 1 MiB, or not UTF-8.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut sources = Self::default();
        sources.read_folder(root, root, 0)?;
        Ok(sources)
    }

    /// Adds `text` as the file `path`, replacing one of that name.
    pub fn insert(&mut self, path: impl Into<Cow<'static, str>>, text: impl Into<Cow<'static, str>>) {
        self.texts.insert(path.into(), text.into());
    }

    /// Adds all of `other`. A rule folder of `other` replaces a rule folder of the same path wholly.
    pub fn overlay(&mut self, other: Self) {
        for (path, _) in other.rules() {
            let folder = path.trim_end_matches("rule.md");
            self.texts.retain(|existing, _| !existing.starts_with(folder));
        }
        self.texts.extend(other.texts);
    }

    /// Returns the text of the file `path`.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(|text| &**text)
    }

    /// Returns each `rules/…/rule.md` with its text.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &str)> {
        self.below("rules/").filter(|(path, _)| path.ends_with("/rule.md"))
    }

    /// Returns each `benchmarks/*.yaml` with its text, file names sorted backwards so that the newest comes first.
    pub fn benchmarks(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut found: Vec<_> =
            self.below("benchmarks/").filter(|(path, _)| path.ends_with(".yaml")).collect();
        found.reverse();
        found.into_iter()
    }

    /// Returns each fixture of the rule at `rule_path` with its text.
    pub fn fixtures(&self, rule_path: &str) -> impl Iterator<Item = (&str, &str)> {
        let folder = format!("{}tests/", rule_path.trim_end_matches("rule.md"));
        let found: Vec<_> = self.below(&folder).filter(|(path, _)| path.ends_with(".yaml")).collect();
        found.into_iter()
    }

    fn below(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.starts_with(folder))
            .map(|(path, text)| (&**path, &**text))
    }

    fn read_folder(&mut self, root: &Path, folder: &Path, depth: usize) -> io::Result<()> {
        let at = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        if depth > MAX_DEPTH {
            return Err(at(folder, io::Error::other("folders are nested too deeply")));
        }
        for entry in std::fs::read_dir(folder).map_err(|e| at(folder, e))? {
            let path = entry.map_err(|e| at(folder, e))?.path();
            let metadata = std::fs::metadata(&path).map_err(|e| at(&path, e))?;
            if metadata.is_dir() {
                self.read_folder(root, &path, depth + 1)?;
                continue;
            }
            let wanted = path.extension().is_some_and(|e| e == "md" || e == "yaml");
            if !wanted || !metadata.is_file() {
                continue;
            }
            if metadata.len() > MAX_FILE {
                return Err(at(
                    &path,
                    io::Error::other("larger than the 1 MiB that a catalogue file may have"),
                ));
            }
            let text = std::fs::read_to_string(&path).map_err(|e| at(&path, e))?;
            let name: Vec<_> =
                path.strip_prefix(root).unwrap_or(&path).iter().map(|p| p.to_string_lossy()).collect();
            self.insert(name.join("/"), text);
        }
        Ok(())
    }
}
