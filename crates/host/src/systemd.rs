//! systemd units: what a service would be started with (systemd.unit(5), systemd.exec(5),
//! systemd.service(5)).

mod specifiers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seaworthy_evidence::{ErrorKind, EvidenceError, Origin};
use seaworthy_settings::{Argument, Variable, may_be_shown};

use crate::root::Root;
use specifiers::Specifiers;

/// Where system units are, strongest first.
const UNIT_DIRECTORIES: [&str; 11] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Most bytes of a unit or of an environment file that are read.
const CAP: usize = 1 << 20;
/// Most drop-ins of one directory that are looked at.
const DROP_INS_CAP: usize = 4096;
/// Most entries of a directory that names units which are looked at.
const WANTED_CAP: usize = 4096;

/// The services that systemd has started and not given up, which it notes in `/run/systemd/units`, and those that it starts
/// with the node; but for its own, which run what it brings along.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The text of each one's file; none of one that cannot be read.
    texts: BTreeMap<String, Option<Vec<u8>>>,
}

impl Wanted {
    /// Returns those of a node. What could not be read is noted in `unreadable`.
    pub fn read(root: &Root, unreadable: &mut Vec<EvidenceError>) -> Self {
        let mut list = |directory: &str| {
            let entries = match root.list(directory, WANTED_CAP) {
                Err(error) if error.kind != ErrorKind::NotFound => {
                    unreadable.push(error);
                    Vec::new()
                }
                entries => entries.unwrap_or_default(),
            };
            entries.into_iter().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let started = list("/run/systemd/units");
        let mut names: BTreeSet<String> =
            started.iter().filter_map(|name| name.strip_prefix("invocation:").map(str::to_owned)).collect();
        let mut files: HashMap<String, &str> = HashMap::new();
        for directory in UNIT_DIRECTORIES {
            for name in list(directory) {
                if [".wants", ".requires"].iter().any(|end| name.ends_with(end)) {
                    names.extend(list(&format!("{directory}/{name}")));
                }
                files.entry(name).or_insert(directory);
            }
        }
        let text = |name: &String| {
            let template = specifiers::template(name);
            let mut names = [Some(name), template.as_ref()].into_iter().flatten();
            let (file, directory) = names.find_map(|name| files.get_key_value(name))?;
            Some(root.read(Path::new(directory).join(file), CAP).ok())
        };
        names.retain(|name| name.ends_with(".service") && !name.starts_with("systemd-"));
        Self { texts: names.into_iter().filter_map(|name| Some((name.clone(), text(&name)?))).collect() }
    }

    /// Returns the names of those with `word` in their file, and of those whose file cannot be read, which may mention it.
    pub fn mentioning(&self, word: &[u8]) -> BTreeSet<String> {
        let mentions = |text: &[u8]| text.windows(word.len()).any(|part| part == word);
        let named = self.texts.iter().filter(|(_, text)| text.as_deref().is_none_or(mentions));
        named.map(|(name, _)| name.clone()).collect()
    }
}

/// What a service unit declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its name, for example `etcd.service`.
    pub name: String,
    /// Its main file.
    pub path: String,
    /// Its drop-ins, in the order in which they apply.
    pub drop_ins: Vec<String>,
    /// The command line of `ExecStart=`, with variables expanded; empty when there is none. An argument that
    /// comes from a variable has the origin of that variable.
    pub arguments: Vec<Argument>,
    /// The variables of `Environment=` and `EnvironmentFile=` that [`may_be_shown`], one for each name.
    pub environment: Vec<Variable>,
    /// The user it runs as; `None` when it names none, which means root.
    pub user: Option<String>,
    /// The group it runs as; `None` when that is the user's own.
    pub group: Option<String>,
    /// Groups beside it.
    pub supplementary_groups: Vec<String>,
    /// The folder below which its relative paths are; `None` when that is the root.
    pub working_directory: Option<String>,
    /// The folder that is its root; `None` when that is the host's.
    pub root_directory: Option<String>,
    /// What could not be read or told; the rest is as if it were not there.
    pub errors: Vec<EvidenceError>,
}

impl Unit {
    /// Returns where on the host its process sees `path`.
    ///
    /// # Errors
    ///
    /// `Unsupported` when it is relative to a home directory.
    pub fn on_host(&self, path: &str) -> Result<String, EvidenceError> {
        let working = self.working_directory.as_deref().unwrap_or("/").trim_start_matches('-');
        let root = self.root_directory.as_deref().unwrap_or("").trim_end_matches('/');
        if path.starts_with('/') {
            return Ok(format!("{root}{path}"));
        }
        if !working.starts_with('/') {
            let message = format!("{}: {path} is below a home directory, which is not looked up", self.path);
            return Err(EvidenceError::new(ErrorKind::Unsupported, message).at(Origin::file(&self.path)));
        }
        Ok(format!("{root}{}/{path}", working.trim_end_matches('/')))
    }

    /// Returns the unit `name` below `root`, with all its drop-ins; `None` when it does not exist or is
    /// masked.
    ///
    /// `hostname` is the kernel's, for the specifier `%H` ([`crate::machine::hostname`]).
    ///
    /// # Errors
    ///
    /// When its file exists and cannot be read.
    pub fn find(root: &Root, name: &str, hostname: &str) -> Result<Option<Self>, EvidenceError> {
        let names = [Some(name.to_owned()), specifiers::template(name)];
        for file in names.iter().flatten() {
            for directory in UNIT_DIRECTORIES {
                let path = Path::new(directory).join(file);
                if is_masked(root, &path) {
                    return Ok(None);
                }
                match root.read(&path, CAP) {
                    Ok(bytes) => return Ok(Some(Self::load(root, name, hostname, path, bytes))),
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    fn load(root: &Root, name: &str, hostname: &str, path: PathBuf, bytes: Vec<u8>) -> Self {
        let specifiers = Specifiers::new(root, name, hostname, &path);
        let mut loader = Loader { root, specifiers, service: Service::default(), errors: Vec::new() };
        let drop_ins = loader.drop_ins();
        loader.read(&path, &bytes);
        for path in &drop_ins {
            match root.read(path, CAP) {
                Ok(bytes) => loader.read(path, &bytes),
                Err(error) => loader.errors.push(error),
            }
        }
        let environment = loader.environment();
        let arguments = loader.arguments(&environment);
        let user = loader.service.user.take().map(|user| loader.expand(user));
        let group = loader.service.group.take().map(|group| loader.expand(group));
        let [working, root_directory] =
            [loader.service.working_directory.take(), loader.service.root_directory.take()]
                .map(|directory| directory.map(|directory| loader.expand(directory)));
        let groups = std::mem::take(&mut loader.service.supplementary_groups);
        let text = |argument: Argument| String::from_utf8_lossy(&argument.text).into_owned();
        let supplementary_groups = groups.into_iter().map(|group| text(loader.expand(group))).collect();
        Self {
            name: name.to_owned(),
            path: path.to_string_lossy().into_owned(),
            drop_ins: drop_ins.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            arguments,
            environment: environment.into_iter().filter(|v| may_be_shown(v.name.as_bytes())).collect(),
            user: user.map(text),
            group: group.map(text),
            supplementary_groups,
            working_directory: working.map(text),
            root_directory: root_directory.map(text),
            errors: loader.errors,
        }
    }
}

/// The settings of a `[Service]` section that matter, each word with its place and its specifiers as they are written.
#[derive(Default)]
struct Service {
    commands: Vec<Vec<Argument>>,
    /// Whether variables are expanded in the last of the commands (no `:` before it).
    expand: bool,
    environment: Vec<Argument>,
    /// Paths, with a `-` before those of files that may be missing.
    environment_files: Vec<Argument>,
    user: Option<Argument>,
    group: Option<Argument>,
    supplementary_groups: Vec<Argument>,
    working_directory: Option<Argument>,
    root_directory: Option<Argument>,
}

struct Loader<'a> {
    root: &'a Root,
    specifiers: Specifiers<'a>,
    service: Service,
    errors: Vec<EvidenceError>,
}

impl Loader<'_> {
    /// Returns the paths of the drop-ins. They apply in the order of their names, whatever directory they are
    /// in; of several with one name only the strongest applies, and none that is masked.
    fn drop_ins(&mut self) -> Vec<PathBuf> {
        let unit = self.specifiers.unit();
        let names = [Some(unit.to_owned()), specifiers::template(unit), Some("service".to_owned())];
        let mut found = BTreeMap::new();
        for name in names.iter().flatten() {
            for directory in UNIT_DIRECTORIES {
                let directory = PathBuf::from(format!("{directory}/{name}.d"));
                let files = match self.root.list(&directory, DROP_INS_CAP) {
                    Ok(files) => files,
                    Err(error) if error.kind == ErrorKind::NotFound => continue,
                    Err(error) => {
                        self.errors.push(error);
                        continue;
                    }
                };
                for file in files.into_iter().filter(|file| file.as_bytes().ends_with(b".conf")) {
                    let path = directory.join(&file);
                    found.entry(file).or_insert(path);
                }
            }
        }
        found.into_values().filter(|path| !is_masked(self.root, path)).collect()
    }

    /// Applies the settings in the unit file or drop-in `bytes`.
    fn read(&mut self, path: &Path, bytes: &[u8]) {
        let file = self.root.origin(path);
        let mut in_service = false;
        for line in LogicalLine::all(bytes) {
            if line.text.starts_with(b"[") {
                in_service = line.text.trim_ascii_end() == b"[Service]";
            } else if let Some(at) = line.text.iter().position(|&b| b == b'=').filter(|_| in_service) {
                let (key, value) = line.text.split_at(at);
                self.assign(key.trim_ascii(), &line, at + 1, value.get(1..).unwrap_or_default(), &file);
            }
        }
    }

    fn assign(&mut self, key: &[u8], line: &LogicalLine, offset: usize, value: &[u8], file: &Origin) {
        let service = &mut self.service;
        let empty = value.trim_ascii().is_empty();
        let words = || {
            words(value)
                .into_iter()
                .map(|(at, text)| Argument { text, origin: line.place(offset + at, file) })
        };
        let whole = || {
            let indent = value.len() - value.trim_ascii_start().len();
            Argument { text: value.trim_ascii().to_vec(), origin: line.place(offset + indent, file) }
        };
        match key {
            b"ExecStart" if empty => service.commands.clear(),
            b"ExecStart" => {
                let mut command: Vec<_> = words().collect();
                // Only services of type oneshot have several commands, separated so.
                command.truncate(command.iter().position(|a| a.text == b";").unwrap_or(command.len()));
                if let Some(first) = command.first_mut() {
                    let prefix = first.text.iter().take_while(|b| b"-@:+!|".contains(b)).count();
                    let prefix: Vec<_> = first.text.drain(..prefix).collect();
                    service.expand = !prefix.contains(&b':');
                    // With `@` the second word is what the program is told as argv[0].
                    if prefix.contains(&b'@') && command.len() > 1 {
                        command.remove(1);
                    }
                }
                service.commands.push(command);
            }
            b"Environment" if empty => service.environment.clear(),
            b"Environment" => service.environment.extend(words()),
            b"EnvironmentFile" if empty => service.environment_files.clear(),
            b"EnvironmentFile" => service.environment_files.push(whole()),
            b"User" => service.user = (!empty).then(whole),
            b"WorkingDirectory" => service.working_directory = (!empty).then(whole),
            b"RootDirectory" => service.root_directory = (!empty).then(whole),
            b"Group" => service.group = (!empty).then(whole),
            b"SupplementaryGroups" if empty => service.supplementary_groups.clear(),
            b"SupplementaryGroups" => service.supplementary_groups.extend(words()),
            _ => {}
        }
    }

    /// Returns `word` with its specifiers replaced. One that is not known is noted, and left as it is.
    fn expand(&mut self, word: Argument) -> Argument {
        let (word, errors) = self.expanded(word);
        self.errors.extend(errors);
        word
    }

    /// Returns `word` with its specifiers replaced, and an error for each that is not known.
    fn expanded(&self, word: Argument) -> (Argument, Vec<EvidenceError>) {
        let mut errors = Vec::new();
        let text = self.specifiers.expand(&word.text, |specifier, why| {
            let message = format!("{}: the specifier %{specifier} is not known: {why}", word.origin);
            errors.push(EvidenceError::new(ErrorKind::Unsupported, message).at(word.origin.clone()));
        });
        (Argument { text, origin: word.origin }, errors)
    }

    /// Returns the whole environment, one variable for each name: files win over `Environment=`, and what
    /// comes later wins over what comes before.
    fn environment(&mut self) -> Vec<Variable> {
        let variable = |(word, errors): (Argument, Vec<EvidenceError>)| {
            let at = word.text.iter().position(|&b| b == b'=')?;
            let name = variable_name(word.text.get(..at)?)?;
            let value = word.text.get(at + 1..)?.to_vec();
            Some((Variable { name, value, origin: word.origin }, errors))
        };
        let words = std::mem::take(&mut self.service.environment);
        let mut all: Vec<_> = words.into_iter().filter_map(|word| variable(self.expanded(word))).collect();
        for file in std::mem::take(&mut self.service.environment_files) {
            let Argument { text, origin } = self.expand(file);
            let optional = text.starts_with(b"-");
            let path = String::from_utf8_lossy(text.strip_prefix(b"-").unwrap_or(&text)).into_owned();
            if path.contains(['*', '?', '[']) {
                let message = format!("{origin}: the pattern {path} is not supported");
                self.errors.push(EvidenceError::new(ErrorKind::Unsupported, message).at(origin));
                continue;
            }
            match self.root.read(&path, CAP) {
                Ok(bytes) => {
                    let variables = parse_environment_file(&bytes, &self.root.origin(&path));
                    all.extend(variables.into_iter().map(|variable| (variable, Vec::new())));
                }
                Err(error) if error.kind == ErrorKind::NotFound && optional => {}
                Err(error) => self.errors.push(error),
            }
        }
        let mut last: HashMap<String, usize> = HashMap::new();
        for (index, (variable, _)) in all.iter().enumerate() {
            last.insert(variable.name.clone(), index);
        }
        let in_force = all.into_iter().enumerate().filter(|(index, (v, _))| last.get(&v.name) == Some(index));
        let (variables, errors): (Vec<_>, Vec<_>) = in_force.map(|(_, variable)| variable).unzip();
        self.errors.extend(errors.into_iter().flatten());
        variables
    }

    fn arguments(&mut self, environment: &[Variable]) -> Vec<Argument> {
        if let [_, .., second] = &self.service.commands[..] {
            let origin = second.first().map(|a| a.origin.clone());
            let message =
                format!("{}: more than one ExecStart=, which systemd refuses", self.specifiers.unit());
            let error = EvidenceError::new(ErrorKind::Malformed, message);
            self.errors.push(match origin {
                Some(origin) => error.at(origin),
                None => error,
            });
        }
        let command = self.service.commands.pop().unwrap_or_default();
        let command: Vec<_> = command.into_iter().map(|word| self.expand(word)).collect();
        if !self.service.expand {
            return command;
        }
        let lookup = |name: &[u8]| environment.iter().find(|v| v.name.as_bytes() == name);
        let mut arguments = Vec::with_capacity(command.len());
        for argument in command {
            match &*argument.text {
                // A whole word: none, one or several arguments.
                [b'$', name @ ..] if !name.is_empty() && !matches!(name.first(), Some(b'{' | b'$')) => {
                    let words = lookup(name).map(|v| (words(&v.value), &v.origin));
                    arguments.extend(words.into_iter().flat_map(|(words, origin)| {
                        words.into_iter().map(|(_, text)| Argument { text, origin: origin.clone() })
                    }));
                }
                text => {
                    let text = expand_braces(text, |name| lookup(name).map(|v| &*v.value));
                    arguments.push(Argument { text, origin: argument.origin });
                }
            }
        }
        arguments
    }
}

/// Returns whether the file is a link to `/dev/null`, which hides all weaker files of the name.
fn is_masked(root: &Root, path: &Path) -> bool {
    root.read_link(path).is_ok_and(|target| target.is_some_and(|target| target == "/dev/null"))
}

/// Returns `name` when it is one that an environment variable can have.
fn variable_name(name: &[u8]) -> Option<String> {
    let valid = name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let valid = valid && name.first().is_some_and(|b| !b.is_ascii_digit());
    valid.then(|| String::from_utf8_lossy(name).into_owned())
}

/// A line of a unit file, with its continuations.
struct LogicalLine {
    text: Vec<u8>,
    /// For each physical line: where it begins in `text`, its number, and the column of its first byte.
    parts: Vec<(usize, u32, u32)>,
}

impl LogicalLine {
    /// Returns the lines of a unit file that are neither empty nor comments. A backslash at the end of a line
    /// stands for a space and continues it; comments in between do not end it.
    fn all(text: &[u8]) -> Vec<Self> {
        let mut lines = Vec::new();
        let mut open: Option<Self> = None;
        for (number, physical) in (1..).zip(text.split(|&b| b == b'\n')) {
            let physical = physical.strip_suffix(b"\r").unwrap_or(physical);
            let content = physical.trim_ascii_start();
            if content.starts_with(b"#") || content.starts_with(b";") || content.is_empty() && open.is_none()
            {
                continue;
            }
            let column = u32::try_from(physical.len() - content.len()).unwrap_or(u32::MAX).saturating_add(1);
            let mut line = open.take().unwrap_or(Self { text: Vec::new(), parts: Vec::new() });
            line.parts.push((line.text.len(), number, column));
            let backslashes = content.iter().rev().take_while(|&&b| b == b'\\').count();
            match content.split_last() {
                Some((_, content)) if backslashes % 2 == 1 => {
                    line.text.extend_from_slice(content);
                    line.text.push(b' ');
                    open = Some(line);
                }
                _ => {
                    line.text.extend_from_slice(content);
                    lines.push(line);
                }
            }
        }
        lines.extend(open);
        lines
    }

    /// Returns the place in `file` of the byte at `offset`.
    fn place(&self, offset: usize, file: &Origin) -> Origin {
        match self.parts.iter().rev().find(|(start, ..)| *start <= offset) {
            Some(&(start, line, column)) => {
                let within = u32::try_from(offset - start).unwrap_or(u32::MAX);
                file.clone().at(line, column.saturating_add(within))
            }
            None => file.clone(),
        }
    }
}

/// Returns the words of `text`, without their quotes and escapes, and the offset of each.
fn words(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut words: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut in_word = false;
    let mut quote = None;
    let mut rest = text.iter().copied().enumerate();
    while let Some((offset, byte)) = rest.next() {
        if quote.is_none() && byte.is_ascii_whitespace() {
            in_word = false;
            continue;
        }
        if !in_word {
            words.push((offset, Vec::new()));
            in_word = true;
        }
        let Some((_, word)) = words.last_mut() else { continue };
        match byte {
            _ if quote == Some(byte) => quote = None,
            b'\'' | b'"' if quote.is_none() => quote = Some(byte),
            b'\\' => {
                let (bytes, taken) = unescape(text.get(offset + 1..).unwrap_or_default());
                word.extend(bytes);
                // `nth` takes one more than its argument.
                if let Some(more) = taken.checked_sub(1) {
                    rest.nth(more);
                }
            }
            byte => word.push(byte),
        }
    }
    words
}

/// Returns what a backslash before `rest` stands for, and how many bytes of `rest` belong to it.
fn unescape(rest: &[u8]) -> (Vec<u8>, usize) {
    let number = |digits: Option<&[u8]>, radix| {
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, radix).ok())
    };
    let character = |length: usize| {
        let character = number(rest.get(1..=length), 16).and_then(char::from_u32);
        character.map(|c| (c.to_string().into_bytes(), length + 1))
    };
    let byte =
        |value: Option<u32>| value.and_then(|value| u8::try_from(value).ok()).map(|byte| (vec![byte], 3));
    let simple = |byte| Some((vec![byte], 1));
    let known = match rest.first() {
        Some(b'a') => simple(7),
        Some(b'b') => simple(8),
        Some(b'f') => simple(12),
        Some(b'n') => simple(b'\n'),
        Some(b'r') => simple(b'\r'),
        Some(b's') => simple(b' '),
        Some(b't') => simple(b'\t'),
        Some(b'v') => simple(11),
        Some(b'x') => byte(number(rest.get(1..3), 16)),
        Some(b'0'..=b'7') => byte(number(rest.get(..3), 8)),
        Some(b'u') => character(4),
        Some(b'U') => character(8),
        Some(&other @ (b'\\' | b'"' | b'\'' | b' ')) => simple(other),
        _ => None,
    };
    // An unknown one stands for itself.
    known.unwrap_or((vec![b'\\'], 0))
}

/// Returns `text` with `${NAME}` replaced by the variable's value, or by nothing, and `$$` by `$`.
fn expand_braces<'v>(text: &[u8], lookup: impl Fn(&[u8]) -> Option<&'v [u8]>) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'$' {
            if let Some(after) = rest.strip_prefix(b"$") {
                rest = after;
            } else if let Some(inner) = rest.strip_prefix(b"{")
                && let Some(end) = inner.iter().position(|&b| b == b'}')
            {
                let (name, after) = inner.split_at(end);
                expanded.extend_from_slice(lookup(name).unwrap_or_default());
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
        }
        expanded.push(byte);
    }
    expanded
}

/// Returns the variables in an environment file (`EnvironmentFile=` in systemd.exec(5)): `NAME=value` lines
/// in a syntax like the shell's, without substitutions.
pub(crate) fn parse_environment_file(text: &[u8], file: &Origin) -> Vec<Variable> {
    let mut variables = Vec::new();
    let mut rest = text.iter().copied().peekable();
    let mut line = 1;
    'assignments: while rest.peek().is_some() {
        let start = line;
        let mut next = || rest.next().inspect(|&byte| line += u32::from(byte == b'\n'));
        let mut name = Vec::new();
        loop {
            match next() {
                Some(b'\n') | None => continue 'assignments,
                Some(b'#' | b';') if name.is_empty() => loop {
                    match next() {
                        Some(b'\\') => drop(next()),
                        Some(b'\n') | None => continue 'assignments,
                        _ => {}
                    }
                },
                Some(b'=') => break,
                Some(byte) if name.is_empty() && byte.is_ascii_whitespace() => {}
                Some(byte) => name.push(byte),
            }
        }
        let mut value = Vec::new();
        // Quotes only count before unquoted text, and white space after it does not.
        let mut unquoted = false;
        let mut kept = 0;
        loop {
            match next() {
                Some(b'\n') | None => break,
                Some(b'\\') => match next() {
                    Some(b'\n') | None => unquoted = true,
                    Some(byte) => {
                        value.push(byte);
                        unquoted = true;
                        kept = value.len();
                    }
                },
                Some(quote @ (b'\'' | b'"')) if !unquoted => {
                    loop {
                        match next() {
                            None => break,
                            Some(byte) if byte == quote => break,
                            Some(b'\\') if quote == b'"' => match next() {
                                Some(b'\n') | None => {}
                                Some(byte @ (b'"' | b'\\' | b'`' | b'$')) => value.push(byte),
                                Some(byte) => value.extend([b'\\', byte]),
                            },
                            Some(byte) => value.push(byte),
                        }
                    }
                    kept = value.len();
                }
                Some(byte) if byte.is_ascii_whitespace() => {
                    if unquoted {
                        value.push(byte);
                    }
                }
                Some(byte) => {
                    value.push(byte);
                    unquoted = true;
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        if let Some(name) = variable_name(name.trim_ascii_end()) {
            variables.push(Variable { name, value, origin: file.clone().at(start, 1) });
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    struct Node(tempfile::TempDir);

    impl Node {
        fn new(files: &[(&str, &str)]) -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = node.0.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            node
        }

        fn find(&self, name: &str) -> Option<Unit> {
            Unit::find(&Root::host(self.0.path()).unwrap(), name, "m1.example").unwrap()
        }

        fn etcd(&self) -> Unit {
            self.find("etcd.service").unwrap()
        }
    }

    fn arguments(unit: &Unit) -> Vec<String> {
        unit.arguments.iter().map(|a| format!("{} @{}", String::from_utf8_lossy(&a.text), a.origin)).collect()
    }

    fn environment(unit: &Unit) -> Vec<String> {
        let show = |v: &Variable| format!("{}={} @{}", v.name, String::from_utf8_lossy(&v.value), v.origin);
        unit.environment.iter().map(show).collect()
    }

    #[test]
    fn debians_unit() {
        let node = Node::new(&[
            (
                "/usr/lib/systemd/system/etcd.service",
                "[Unit]\nDescription=etcd\nExecStart=/not/here\n\n[Service]\nEnvironment=DAEMON_ARGS=\n\
                 Environment=ETCD_NAME=%H\nEnvironment=ETCD_DATA_DIR=/var/lib/etcd/default\n\
                 EnvironmentFile=-/etc/default/%p\nType=notify\nUser=etcd\n\
                 #ExecStart=/bin/sh -c \"GOMAXPROCS=$(nproc) /usr/bin/etcd $DAEMON_ARGS\"\n\
                 ExecStart=/usr/bin/etcd $DAEMON_ARGS\n\n[Install]\nWantedBy=multi-user.target\nUser=other\n",
            ),
            (
                "/etc/default/etcd",
                "## options\n# ETCD_NAME=commented\nETCD_LISTEN_PEER_URLS=\"http://10.0.0.1:2380\"\n\
                 DAEMON_ARGS=\"--name m2 '--a=b c'\"\nETCD_ROOT_PASSWORD=hunter2\n",
            ),
        ]);
        let unit = node.etcd();
        assert_eq!(unit.path, "/usr/lib/systemd/system/etcd.service");
        assert_eq!(unit.user.as_deref(), Some("etcd"));
        assert_eq!(unit.on_host("etcd.conf").unwrap(), "/etcd.conf");
        assert_eq!(unit.errors, []);
        assert_eq!(
            arguments(&unit),
            [
                "/usr/bin/etcd @/usr/lib/systemd/system/etcd.service:13:11",
                "--name @/etc/default/etcd:4:1",
                "m2 @/etc/default/etcd:4:1",
                "--a=b c @/etc/default/etcd:4:1",
            ]
        );
        assert_eq!(
            environment(&unit),
            [
                "ETCD_NAME=m1.example @/usr/lib/systemd/system/etcd.service:7:13",
                "ETCD_DATA_DIR=/var/lib/etcd/default @/usr/lib/systemd/system/etcd.service:8:13",
                "ETCD_LISTEN_PEER_URLS=http://10.0.0.1:2380 @/etc/default/etcd:3:1",
            ]
        );

        fs::remove_file(node.0.path().join("etc/default/etcd")).unwrap();
        let unit = node.etcd();
        assert_eq!((unit.arguments.len(), unit.environment.len(), unit.errors.len()), (1, 2, 0));
    }

    #[test]
    fn kubesprays_unit() {
        let node = Node::new(&[
            (
                "/etc/systemd/system/etcd.service",
                "[Service]\nType=notify\nUser=root\nEnvironmentFile=/etc/etcd.env\nExecStart=/usr/local/bin/etcd\n",
            ),
            ("/usr/lib/systemd/system/etcd.service", "[Service]\nExecStart=/usr/bin/weaker\n"),
            (
                "/etc/etcd.env",
                "# Environment file for etcd\nETCD_PEER_CERT_FILE=/etc/ssl/etcd/ssl/member-m1.pem\n\
                 ETCD_PEER_CLIENT_CERT_AUTH=True\n\n# CLI settings\nETCDCTL_CACERT=/x\n",
            ),
        ]);
        let unit = node.etcd();
        assert_eq!(arguments(&unit), ["/usr/local/bin/etcd @/etc/systemd/system/etcd.service:5:11"]);
        assert_eq!(
            environment(&unit),
            [
                "ETCD_PEER_CERT_FILE=/etc/ssl/etcd/ssl/member-m1.pem @/etc/etcd.env:2:1",
                "ETCD_PEER_CLIENT_CERT_AUTH=True @/etc/etcd.env:3:1",
            ]
        );
        fs::remove_file(node.0.path().join("etc/etcd.env")).unwrap();
        let [error] = &node.etcd().errors[..] else { panic!() };
        assert_eq!(error.message, "/etc/etcd.env: no such file");
    }

    #[test]
    fn drop_ins_apply_by_name_and_reset() {
        let node = Node::new(&[
            ("/lib/systemd/system/etcd.service", "[Service]\nExecStart=/a\nEnvironment=ETCD_A=1 ETCD_B=1\n"),
            ("/etc/systemd/system/etcd.service.d/20.conf", "[Service]\nExecStart=\nExecStart=/b ${ETCD_B}\n"),
            ("/run/systemd/system/etcd.service.d/10.conf", "[Service]\nEnvironment=\nEnvironment=ETCD_B=2\n"),
            ("/usr/lib/systemd/system/etcd.service.d/20.conf", "[Service]\nExecStart=/weaker\n"),
            ("/etc/systemd/system/service.d/30.conf", "[Service]\nUser=u\n"),
            ("/usr/lib/systemd/system/etcd.service.d/40.conf", "[Service]\nUser=masked\n"),
            ("/etc/systemd/system/etcd.service.d/50.txt", "[Service]\nUser=no\n"),
        ]);
        symlink("/dev/null", node.0.path().join("etc/systemd/system/etcd.service.d/40.conf")).unwrap();
        let unit = node.etcd();
        assert_eq!(
            unit.drop_ins,
            [
                "/run/systemd/system/etcd.service.d/10.conf",
                "/etc/systemd/system/etcd.service.d/20.conf",
                "/etc/systemd/system/service.d/30.conf",
            ]
        );
        assert_eq!(
            arguments(&unit),
            [
                "/b @/etc/systemd/system/etcd.service.d/20.conf:3:11",
                "2 @/etc/systemd/system/etcd.service.d/20.conf:3:14"
            ]
        );
        assert_eq!(environment(&unit), ["ETCD_B=2 @/run/systemd/system/etcd.service.d/10.conf:3:13"]);
        assert_eq!((unit.user.as_deref(), unit.errors.len()), (Some("u"), 0));

        symlink("/dev/null", node.0.path().join("etc/systemd/system/etcd.service")).unwrap();
        assert_eq!(node.find("etcd.service"), None);
        assert_eq!(node.find("other.service"), None);
    }

    #[test]
    fn commands_are_split_as_systemd_splits_them() {
        let variables = "Environment=ONE=1 \"TWO=a b\" 'Q=\"x y\" z' EMPTY=\n";
        let cases: &[(&str, &[&str])] = &[
            ("/etcd --a 'b c' \"d\\\"e\" f\\x20g \\u00e9", &["/etcd", "--a", "b c", "d\"e", "f g", "é"]),
            ("-/etcd a", &["/etcd", "a"]),
            ("@/etcd zero a", &["/etcd", "a"]),
            ("!!/etcd", &["/etcd"]),
            (":/etcd $TWO ${ONE} $$", &["/etcd", "$TWO", "${ONE}", "$$"]),
            ("/etcd $TWO ${TWO} x${ONE}y $Q", &["/etcd", "a", "b", "a b", "x1y", "x y", "z"]),
            ("/etcd $NONE ${NONE} $EMPTY a$ONE $$ONE $", &["/etcd", "", "a$ONE", "$ONE", "$"]),
            ("/etcd --n=%p-%i 100%% %", &["/etcd", "--n=etcd-", "100%", "%"]),
            ("/etcd \\\n  --a \\\n# comment\n  ; comment\n  --b", &["/etcd", "--a", "--b"]),
            ("/etcd 'open", &["/etcd", "open"]),
            ("/etcd a ; /other", &["/etcd", "a"]),
            ("/etcd \\q \\xzz \\", &["/etcd", "\\q", "\\xzz"]),
        ];
        for (command, want) in cases {
            let text = format!("[Service]\n{variables}ExecStart={command}\n");
            let node = Node::new(&[("/etc/systemd/system/etcd.service", &text)]);
            let unit = node.etcd();
            let got: Vec<_> = unit.arguments.iter().map(|a| String::from_utf8_lossy(&a.text)).collect();
            assert_eq!(got, *want, "{command}");
        }
    }

    #[test]
    fn arguments_on_continued_lines_have_their_own_places() {
        let text = "[Service]\r\nExecStart = /etcd \\\r\n\t--a=1 \\\r\n  --b=2 --c=3\r\n";
        let node = Node::new(&[("/etc/systemd/system/etcd.service", text)]);
        let places: Vec<_> =
            arguments(&node.etcd()).iter().map(|a| a.rsplit_once("service").unwrap().1.to_owned()).collect();
        assert_eq!(places, [":2:13", ":3:2", ":4:3", ":4:9"]);
    }

    #[test]
    fn an_instance_is_made_from_its_template() {
        let node = Node::new(&[
            ("/etc/systemd/system/etcd@.service", "[Service]\nExecStart=/etcd --name=%i %n %N %p\n"),
            ("/etc/systemd/system/etcd@.service.d/a.conf", "[Service]\nEnvironment=ETCD_A=1\n"),
            ("/etc/systemd/system/etcd@events.service.d/b.conf", "[Service]\nEnvironment=ETCD_A=2\n"),
        ]);
        let unit = node.find("etcd@events.service").unwrap();
        let got: Vec<_> = unit.arguments.iter().map(|a| String::from_utf8_lossy(&a.text)).collect();
        assert_eq!(got, ["/etcd", "--name=events", "etcd@events.service", "etcd@events", "etcd"]);
        assert_eq!(environment(&unit), ["ETCD_A=2 @/etc/systemd/system/etcd@events.service.d/b.conf:2:13"]);
    }

    #[test]
    fn paths_of_a_unit_are_below_its_directories() {
        let cases = [
            ("", "a.conf", Some("/a.conf")),
            ("WorkingDirectory=/var/lib/etcd/\n", "a.conf", Some("/var/lib/etcd/a.conf")),
            ("WorkingDirectory=-/x\nRootDirectory=/srv/%p/\n", "a.conf", Some("/srv/etcd/x/a.conf")),
            ("WorkingDirectory=/x\nWorkingDirectory=\nRootDirectory=/srv\n", "/a.conf", Some("/srv/a.conf")),
            ("WorkingDirectory=~\n", "/a.conf", Some("/a.conf")),
            ("WorkingDirectory=~\n", "a.conf", None),
        ];
        for (text, path, want) in cases {
            let text = format!("[Service]\nExecStart=/etcd\n{text}");
            let unit = Node::new(&[("/etc/systemd/system/etcd.service", &text)]).etcd();
            assert_eq!(unit.on_host(path).ok().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let text =
            "[Service]\nExecStart=/a\nExecStart=/b\nEnvironmentFile=/etc/*.env\nEnvironmentFile=/etc\n";
        let unit = Node::new(&[("/etc/systemd/system/etcd.service", text)]).etcd();
        let kinds: Vec<_> = unit.errors.iter().map(|error| error.kind).collect();
        assert_eq!(kinds, [ErrorKind::Unsupported, ErrorKind::Unsupported, ErrorKind::Malformed]);
        let node = Node::new(&[("/etc/systemd/system/etcd.service/file", "")]);
        let error = Unit::find(&Root::host(node.0.path()).unwrap(), "etcd.service", "").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }

    #[test]
    fn a_specifier_that_is_not_known_is_an_error_where_it_is_in_force() {
        let path = "/etc/systemd/system/etcd.service";
        let cases: &[(&str, &[&str])] = &[
            ("ExecStart=/etcd --name=%s", &["3:17: the specifier %s"]),
            ("ExecStart=/etcd --name=%s\nExecStart=\nExecStart=/etcd", &[]),
            ("ExecStart=/etcd\nEnvironment=ETCD_NAME=%z", &["4:13: the specifier %z"]),
            ("ExecStart=/etcd\nEnvironment=ETCD_NAME=%z\nEnvironment=ETCD_NAME=%H", &[]),
            ("ExecStart=/etcd\nEnvironmentFile=-/etc/%c/x", &["4:17: the specifier %c"]),
            ("ExecStart=/etcd\nUser=%Z", &["4:6: the specifier %Z"]),
            ("ExecStart=/etcd\nUser=%Z\nUser=%p", &[]),
        ];
        for (lines, want) in cases {
            let unit = Node::new(&[(path, &format!("[Unit]\n[Service]\n{lines}\n"))]).etcd();
            let said: Vec<_> = unit.errors.iter().map(|error| error.message.as_str()).collect();
            assert_eq!(said.len(), want.len(), "{lines}: {said:?}");
            for (said, want) in said.iter().zip(*want) {
                assert!(said.starts_with(&format!("{path}:{want} is not known")), "{lines}: {said}");
            }
        }
    }

    #[test]
    fn environment_files() {
        let text = "A=1\n B = two words  \nC='single $x\\' \"and \\\"double\\$\" \nD=a\"b\"c\nE=a\\\nb\\ \\\\\n\
            ; comment \\\nF=in comment\nG\n1H=bad\nexport I=bad\nJ='two\nlines'\nK=\nL=last";
        let got: Vec<_> = parse_environment_file(text.as_bytes(), &Origin::file("/e"))
            .into_iter()
            .map(|v| (v.name, String::from_utf8(v.value).unwrap(), v.origin))
            .collect();
        let want = [
            ("A", "1", 1),
            ("B", "two words", 2),
            ("C", "single $x\\and \"double$", 3),
            ("D", "a\"b\"c", 4),
            ("E", "ab \\", 5),
            ("J", "two\nlines", 12),
            ("K", "", 14),
            ("L", "last", 15),
        ];
        let want = want.map(|(n, v, line)| (n.to_owned(), v.to_owned(), Origin::file("/e").at(line, 1)));
        assert_eq!(got, want);
    }

    proptest! {
        #[test]
        fn no_unit_panics(text in "(\\[Service\\]\n|ExecStart=|Environment=|EnvironmentFile=|User=|[ \\\\\"'$%{}@;#=\na-cx0-9]){0,40}") {
            let text = format!("[Service]\nExecStart=/a {text}");
            Node::new(&[("/etc/systemd/system/etcd.service", &text)]).etcd();
            parse_environment_file(text.as_bytes(), &Origin::file("/e"));
        }
    }
}
