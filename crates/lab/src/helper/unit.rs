//! systemd units: reading them as systemd does, as far as an etcd service needs it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{read, span};
use crate::program::Program;

/// A service unit as it was when it was loaded. What it refers to (`EnvironmentFile=`) is read at each start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unit {
    /// The files it was read from: the unit, then its drop-ins.
    pub(super) files: Vec<PathBuf>,
    /// The values of each key, under `Section.Key`. A list is reset by an empty value.
    values: BTreeMap<String, Vec<String>>,
}

impl Unit {
    /// Reads a unit and its drop-ins; `None` if there is no such unit.
    pub(super) fn load(root: &Path, name: &str) -> io::Result<Option<Self>> {
        let folders = ["etc/systemd/system", "run/systemd/system"].map(|folder| root.join(folder));
        let Some(main) = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) else {
            return Ok(None);
        };
        // A drop-in of /etc hides one of the same name in /run; they apply in the order of their names.
        let mut drop_ins = BTreeMap::new();
        for folder in folders.iter().rev() {
            for entry in fs::read_dir(folder.join(format!("{name}.d"))).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "conf") {
                    drop_ins.insert(entry.file_name(), entry.path());
                }
            }
        }
        let mut unit = Self::default();
        for path in std::iter::once(main).chain(drop_ins.into_values()) {
            unit.add(&read(&path)?);
            unit.files.push(path);
        }
        Ok(Some(unit))
    }

    /// Returns the last value of a key of the service section.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).last().map(String::as_str)
    }

    /// Returns a time span of the service section.
    pub(super) fn span(&self, key: &str, default: Duration) -> Duration {
        match self.get(key) {
            Some("infinity" | "0") => Duration::MAX,
            Some(text) => span(text).unwrap_or(default),
            None => default,
        }
    }

    /// Returns what to run, with the environment files as they are now.
    pub(super) fn program(&self, root: &Path) -> Result<Program, String> {
        let env = self.environment(root)?;
        let line = self.get("ExecStart").ok_or("it has no ExecStart=")?;
        let mut words = Vec::new();
        for word in split(line)? {
            expand(&word, &env, &mut words);
        }
        let mut words = words.into_iter();
        let path = words.next().ok_or("its ExecStart= is empty")?;
        let path = path.trim_start_matches(['-', '@', ':', '+', '!']);
        let uid = self.get("User").map_or(Ok(0), |user| uid(root, user))?;
        let log = format!("/var/log/{}.log", path.rsplit('/').next().unwrap_or_default());
        let mut program = Program::new(path).args(words).uid(uid).log(log);
        for (name, value) in env {
            program = program.env(name, value);
        }
        Ok(program)
    }

    fn all(&self, key: &str) -> &[String] {
        self.values.get(&format!("Service.{key}")).map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, text: &str) {
        let mut section = String::new();
        for line in lines(text) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_string();
            } else if let Some((key, value)) = line.split_once('=') {
                let values = self.values.entry(format!("{section}.{}", key.trim_end())).or_default();
                match value.trim() {
                    "" => values.clear(),
                    value => values.push(value.to_string()),
                }
            }
        }
    }

    fn environment(&self, root: &Path) -> Result<BTreeMap<String, String>, String> {
        let mut env = BTreeMap::new();
        for line in self.all("Environment") {
            for word in split(line)? {
                let (name, value) = word.text.split_once('=').ok_or("Environment= without a value")?;
                env.insert(name.to_string(), value.to_string());
            }
        }
        for path in self.all("EnvironmentFile") {
            let (optional, path) = path.strip_prefix('-').map_or((false, path.as_str()), |path| (true, path));
            match read(root.join(path.trim_start_matches('/'))) {
                Ok(text) => env.extend(variables(&text)),
                Err(_) if optional => {}
                Err(error) => return Err(format!("cannot read {path}: {error}")),
            }
        }
        Ok(env)
    }
}

/// Returns the lines that say something, with continuations joined.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) {
            continue; // also between a line and its continuation
        }
        match line.strip_suffix('\\') {
            Some(part) => whole = format!("{whole}{part} "),
            None => {
                lines.push(format!("{whole}{line}").trim().to_string());
                whole.clear();
            }
        }
    }
    lines.push(whole.trim().to_string());
    lines.retain(|line| !line.is_empty());
    lines
}

/// Reads an environment file: as the unit, but with quotes around values and without sections.
fn variables(text: &str) -> Vec<(String, String)> {
    let variable = |line: String| {
        let (name, value) = line.split_once('=')?;
        let value = split(value).ok()?.into_iter().map(|word| word.text).collect::<Vec<_>>().join(" ");
        Some((name.trim().to_string(), value))
    };
    lines(text).into_iter().filter_map(variable).collect()
}

/// One word of a command line.
#[derive(Debug, PartialEq)]
struct Word {
    text: String,
    /// Whether no part of it was in quotes.
    bare: bool,
}

/// Splits a line into words, with quotes and backslashes undone.
fn split(line: &str) -> Result<Vec<Word>, String> {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert(Word { text: String::new(), bare: true });
        match (c, quote) {
            ('\\', _) => current.text.push(match characters.next().ok_or("a line ends in a backslash")? {
                'n' => '\n',
                't' => '\t',
                's' => ' ',
                other => other,
            }),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => (quote, current.bare) = (Some(c), false),
            _ => current.text.push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("unbalanced quotes in {line}"));
    }
    words.extend(word);
    Ok(words)
}

/// Puts variables into a word: `$NAME` alone becomes any number of words, `${NAME}` stays within its own.
fn expand(word: &Word, env: &BTreeMap<String, String>, words: &mut Vec<String>) {
    let value = |name: &str| env.get(name).map(String::as_str).unwrap_or_default();
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some(name) = word.text.strip_prefix('$').filter(|name| word.bare && is_name(name)) {
        words.extend(value(name).split_whitespace().map(str::to_string));
        return;
    }
    let mut rest = word.text.as_str();
    let mut text = String::new();
    while let Some(at) = rest.find(['$', '%']) {
        let (before, marked) = rest.split_at(at);
        text.push_str(before);
        let braced = marked.strip_prefix("${").and_then(|inner| inner.split_once('}'));
        if let Some((name, after)) = braced.filter(|(name, _)| is_name(name)) {
            text.push_str(value(name));
            rest = after;
        } else {
            let doubled = marked.strip_prefix("$$").or(marked.strip_prefix("%%"));
            text.extend(marked.chars().next());
            rest = doubled.or(marked.get(1..)).unwrap_or_default();
        }
    }
    text.push_str(rest);
    words.push(text);
}

fn uid(root: &Path, user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    let passwd = read(root.join("etc/passwd")).map_err(|error| error.to_string())?;
    let mut entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|entry| entry.first() == Some(&user));
    entry.and_then(|entry| entry.get(2)?.parse().ok()).ok_or_else(|| format!("there is no user {user}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(files: &[(&str, &str)]) -> (tempfile::TempDir, Unit) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let unit = Unit::load(root.path(), "etcd.service").unwrap().unwrap();
        (root, unit)
    }

    #[test]
    fn drop_ins_and_environment_files_take_part() {
        let (root, unit) = unit(&[
            (
                "etc/systemd/system/etcd.service",
                "[Unit]\nDescription=etcd\n[Service]\nType=notify\n# a comment\nEnvironment=\"A=1 2\" B=2\n\
                 EnvironmentFile=-/etc/default/etcd\nEnvironmentFile=-/missing\n\
                 ExecStart=/usr/bin/false\nRestart=always\nTimeoutStopSec=1min 30s\n",
            ),
            (
                "etc/systemd/system/etcd.service.d/10-start.conf",
                "[Service]\nExecStart=\nExecStart=-/opt/etcd/etcd $ARGS \\\n  --name=${B} \"--a=$$x $C\" --d=%%\n",
            ),
            ("etc/systemd/system/etcd.service.d/ignored.txt", "[Service]\nExecStart=\n"),
            ("etc/default/etcd", "# c\nB=\"of the file\"\nARGS=--one --two='2'\nETCD_NAME=m1\n"),
        ]);
        assert_eq!(unit.files.len(), 2);
        assert_eq!((unit.get("Restart"), unit.get("Type")), (Some("always"), Some("notify")));
        assert_eq!(unit.span("TimeoutStopSec", Duration::ZERO), Duration::from_secs(90));
        let program = unit.program(root.path()).unwrap();
        assert_eq!(program.path, "/opt/etcd/etcd");
        assert_eq!(program.args, ["--one", "--two=2", "--name=of the file", "--a=$x $C", "--d=%"]);
        let env: Vec<_> =
            program.env.iter().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect();
        assert_eq!(env, ["A=1 2", "ARGS=--one --two=2", "B=of the file", "ETCD_NAME=m1"]);
        assert_eq!(program.log, "/var/log/etcd.log");
    }

    #[test]
    fn users_have_numbers_or_names() {
        let text = "[Service]\nUser=etcd\nExecStart=/x\n";
        let (root, unit) =
            unit(&[("etc/systemd/system/etcd.service", text), ("etc/passwd", "etcd:x:997:997::/:/bin/sh\n")]);
        assert_eq!(unit.program(root.path()).unwrap().uid, 997);
        fs::write(root.path().join("etc/passwd"), "").unwrap();
        assert!(unit.program(root.path()).is_err());
    }

    #[test]
    fn what_cannot_be_run_is_an_error() {
        for text in
            ["", "[Service]\n", "[Service]\nExecStart=/x \"\n", "[Service]\nExecStart=/x\nExecStart=\n"]
        {
            let (root, unit) = unit(&[("etc/systemd/system/etcd.service", text)]);
            assert!(unit.program(root.path()).is_err(), "{text}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Unit::load(empty.path(), "etcd.service").unwrap(), None);
    }
}
