//! The command line of a systemd service, changed by a drop-in.
//!
//! The unit itself belongs to the distribution, and the next upgrade would put it back. A drop-in stays, and to
//! take it away is to undo the change.

use std::ops::Range;

use crate::arguments::{self, Operation};
use crate::values::{self, Values};
use crate::{ArgumentEdit, Refused, text};

/// Name of the drop-in in the directory `UNIT.d`.
pub const FILE_NAME: &str = "50-seaworthy.conf";

/// What may stand before the path of the program (systemd.service(5)).
pub(crate) const PREFIXES: [char; 6] = ['-', '@', ':', '+', '!', '|'];

/// Returns the value of `ExecStart=` that is in effect in a unit and its drop-ins, given in the order in which
/// they apply: as it is written, with continued lines joined.
///
/// # Errors
///
/// When there is none, or more than one.
pub fn exec_start(files: &[&[u8]]) -> Result<String, Refused> {
    let mut commands = Vec::new();
    for bytes in files {
        let mut in_service = false;
        for (_, line) in logical_lines(text(bytes)?) {
            if line.starts_with('[') {
                in_service = line.trim_end() == "[Service]";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| in_service)
                && key.trim() == "ExecStart"
            {
                match value.trim() {
                    "" => commands.clear(),
                    command => commands.push(command.to_owned()),
                }
            }
        }
    }
    match (commands.pop(), commands.is_empty()) {
        (Some(command), true) => Ok(command),
        (None, _) => Err(Refused::because("the unit has no ExecStart=")),
        (Some(_), false) => Err(Refused::because("the unit has more than one ExecStart=")),
    }
}

/// Returns the text of a drop-in that replaces the command line `exec_start` by one with the `edits` made.
///
/// What is not edited stays as it is written, references to variables included. Behind a word that is a
/// variable with arguments in it, such as `$DAEMON_ARGS`, a flag is always set anew, at the end: the last one
/// is in effect. `is_program` tells by an argument whether it is the path of the program whose flags are meant.
///
/// # Errors
///
/// When the command line cannot be understood without running it.
pub fn drop_in(
    exec_start: &str,
    is_program: impl Fn(&[u8]) -> bool,
    edits: &[ArgumentEdit],
) -> Result<String, Refused> {
    let mut words: Vec<String> = words(exec_start)
        .into_iter()
        .map(|range| exec_start.get(range).unwrap_or_default().to_owned())
        .collect();
    for edit in edits {
        words = with(words, &is_program, edit)?;
    }
    let mut text = String::from(
        "# Written by seaworthy. Without this file the service starts with its own command line again.\n\
         [Service]\nExecStart=\nExecStart=",
    );
    for (index, word) in words.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { " \\\n    " });
        text.push_str(word);
    }
    text.push('\n');
    // The drop-in alone must say the same again.
    let again = self::exec_start(&[text.as_bytes()])?;
    let same =
        self::words(&again).into_iter().map(|range| again.get(range)).eq(words.iter().map(|w| Some(&**w)));
    match same {
        true => Ok(text),
        false => Err(Refused::because("the command line cannot be written into a drop-in")),
    }
}

fn with(
    mut words: Vec<String>,
    is_program: &impl Fn(&[u8]) -> bool,
    edit: &ArgumentEdit,
) -> Result<Vec<String>, Refused> {
    let mut plain = words.iter().map(|word| unquoted(word)).collect::<Result<Vec<_>, _>>()?;
    if plain.iter().any(|word| word == ";") {
        return Err(Refused::because("ExecStart= has several commands"));
    }
    // Special prefixes are no part of the path, and with `@` the second word is no argument.
    let mut argv = plain.clone();
    let path = argv.first().map(|word| word.trim_start_matches(PREFIXES).to_owned()).unwrap_or_default();
    let prefix = argv.first().and_then(|word| word.strip_suffix(&*path)).unwrap_or_default();
    let renamed = usize::from(prefix.contains('@') && argv.len() > 1);
    argv.splice(..(1 + renamed).min(argv.len()), [path]);
    let program = arguments::program(&argv, is_program)? + renamed;
    let is_variable =
        |word: &String| word.starts_with('$') && !word.starts_with("$$") && !word.starts_with("${");
    let variable = words.iter().rposition(is_variable);
    // For the flags a variable with arguments is one flag of its own, without a name that anybody asks for.
    for (word, text) in words.iter().zip(&mut plain).filter(|(word, _)| is_variable(word)) {
        *text = format!("--{}=", word.replace('$', "*"));
    }
    let operations = match (edit, variable) {
        (ArgumentEdit::Set { flag, value }, Some(variable)) => {
            match edit.operations(&plain, program)?.first() {
                // Already so, and no variable comes behind it.
                None if flag_at(&plain, flag) > Some(variable) => Vec::new(),
                Some(Operation::Replace(at, text)) if *at > variable => {
                    vec![Operation::Replace(*at, text.clone())]
                }
                _ => {
                    let mut all = ArgumentEdit::Remove { flag: flag.clone() }.operations(&plain, program)?;
                    all.insert(0, Operation::InsertAfter(words.len() - 1, format!("--{flag}={value}")));
                    all
                }
            }
        }
        _ => edit.operations(&plain, program)?,
    };
    for operation in operations {
        match operation {
            Operation::InsertAfter(at, text) => words.insert(at + 1, quoted(&text)),
            Operation::Remove(at) => drop(words.remove(at)),
            Operation::Replace(at, text) => {
                if let Some(word) = words.get_mut(at) {
                    *word = quoted(&text);
                }
            }
        }
    }
    Ok(words)
}

/// Returns what is in a drop-in that replaces a command line, value by value.
///
/// # Errors
///
/// When its command line cannot be understood, or there is none.
pub(crate) fn values(bytes: &[u8], is_program: &dyn Fn(&[u8]) -> bool) -> Result<Values, Refused> {
    let command = exec_start(&[bytes])?;
    let plain = words(&command)
        .into_iter()
        .map(|range| unquoted(command.get(range).unwrap_or_default()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut found = Values::new();
    let program = plain.iter().position(|word| is_program(word.trim_start_matches(PREFIXES).as_bytes()));
    let program = program.ok_or_else(|| Refused::because("the command line does not start that program"))?;
    // A variable with arguments in it is one argument, whatever it holds.
    let argument = |word: &String| match word.starts_with('$') {
        true => format!("--{}=", word.replace('$', "*")),
        false => word.clone(),
    };
    arguments::add_values(&plain.iter().map(argument).collect::<Vec<_>>(), program, &mut found)?;
    for (_, line) in logical_lines(text(bytes)?) {
        if !line.starts_with("ExecStart") {
            values::add(&mut found, "line", line);
        }
    }
    Ok(found)
}

fn flag_at(words: &[String], flag: &str) -> Option<usize> {
    words.iter().rposition(|word| {
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
        name.split('=').next() == Some(flag)
    })
}

/// Returns the lines of a unit file that are neither empty nor comments, with their continuations, and where each begins. They
/// are as long as they are in the file: what joins two lines, and comments between them, are spaces.
pub(crate) fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut next = 0;
    for written in text.split_inclusive('\n') {
        let start = next;
        next += written.len();
        let line = written.trim_end_matches(['\n', '\r']);
        let content = line.trim_start();
        if content.starts_with(['#', ';']) || content.is_empty() && open.is_none() {
            open.iter_mut().for_each(|(_, whole)| *whole += &" ".repeat(written.len()));
            continue;
        }
        let (begin, mut whole) =
            open.take().unwrap_or_else(|| (start + line.len() - content.len(), String::new()));
        let content = if whole.is_empty() { content } else { line };
        let backslashes = content.chars().rev().take_while(|c| *c == '\\').count();
        match content.strip_suffix('\\') {
            Some(content) if backslashes % 2 == 1 => {
                whole.push_str(content);
                whole += &" ".repeat(written.len() - (line.len() - 1));
                open = Some((begin, whole));
            }
            _ => {
                whole.push_str(content);
                lines.push((begin, whole));
            }
        }
    }
    lines.extend(open);
    lines
}

/// Returns where the words of a command line are, with their quotes.
pub(crate) fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut quote = None;
    let mut in_word = false;
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        if quote.is_none() && c.is_ascii_whitespace() {
            in_word = false;
            continue;
        }
        if !in_word {
            words.push(at..at);
            in_word = true;
        }
        let mut end = at + c.len_utf8();
        match c {
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            '\\' => end += rest.next().map_or(0, |(_, c)| c.len_utf8()),
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.end = end;
        }
    }
    words
}

/// Returns what a word means, as far as flags are concerned: without quotes and doubled characters.
fn unquoted(word: &str) -> Result<String, Refused> {
    let mut text = String::new();
    let mut quote = None;
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            '\\' => match rest.next() {
                Some(c @ ('\\' | '"' | '\'' | ' ')) => text.push(c),
                Some('s') => text.push(' '),
                _ => return Err(Refused::because("ExecStart= has an escape that is not understood")),
            },
            '%' | '$' if rest.peek() == Some(&c) => text.extend(rest.next()),
            c => text.push(c),
        }
    }
    match quote {
        None => Ok(text),
        Some(_) => Err(Refused::because("ExecStart= has a quote that is not closed")),
    }
}

/// Returns `text` as one word, meant literally.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\' | ';' | '#');
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seaworthy_host::{root::Root, systemd::Unit};

    use super::*;

    fn set(flag: &str, value: &str) -> ArgumentEdit {
        ArgumentEdit::Set { flag: flag.into(), value: value.into() }
    }

    fn is_etcd(text: &[u8]) -> bool {
        text.ends_with(b"etcd")
    }

    /// The command line that the collector finds in a unit with this drop-in.
    fn collected(exec_start: &str, drop_in: Option<&str>) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let units = directory.path().join("etc/systemd/system");
        std::fs::create_dir_all(units.join("etcd.service.d")).unwrap();
        std::fs::write(directory.path().join("env"), "ARGS=\"--a=env --b=env\"\nONE=x\n").unwrap();
        let unit = format!("[Service]\nEnvironmentFile=/env\nExecStart={exec_start}\n");
        std::fs::write(units.join("etcd.service"), unit).unwrap();
        if let Some(text) = drop_in {
            std::fs::write(units.join("etcd.service.d").join(FILE_NAME), text).unwrap();
        }
        let root = Root::host(directory.path()).unwrap();
        let unit = Unit::find(&root, "etcd.service", "host").unwrap().unwrap();
        assert_eq!(unit.errors, []);
        unit.arguments.into_iter().map(|a| String::from_utf8(a.text).unwrap()).collect()
    }

    #[test]
    fn a_drop_in_changes_what_the_service_is_started_with() {
        let cases: [(&str, &[ArgumentEdit], &[&str]); 8] = [
            ("/bin/etcd --a=1", &[set("b", "2")], &["/bin/etcd", "--a=1", "--b=2"]),
            ("/bin/etcd --a 1 --c", &[set("a", "2")], &["/bin/etcd", "--a", "2", "--c"]),
            ("/bin/etcd \\\n  --a=1 \\\n  # c\n  --c", &[set("a", "x y")], &["/bin/etcd", "--a=x y", "--c"]),
            ("-/bin/etcd '--a=1' --c=${ONE}", &[set("a", "50%$z\"")], &["/bin/etcd", "--a=50%$z\"", "--c=x"]),
            ("/bin/etcd $ARGS", &[set("a", "1")], &["/bin/etcd", "--a=env", "--b=env", "--a=1"]),
            ("/bin/etcd --a=0 $ARGS", &[set("a", "0")], &["/bin/etcd", "--a=env", "--b=env", "--a=0"]),
            ("/bin/etcd --a=0 --b=1", &[ArgumentEdit::Remove { flag: "a".into() }], &["/bin/etcd", "--b=1"]),
            ("@/bin/etcd argv0 --a=0", &[set("a", "1")], &["/bin/etcd", "--a=1"]),
        ];
        for (exec, edits, want) in cases {
            let unit = format!("[Unit]\nExecStart=no\n[Service]\nExecStart={exec}\n");
            let exec_start = exec_start(&[unit.as_bytes()]).unwrap();
            let text = drop_in(&exec_start, is_etcd, edits).unwrap();
            assert_eq!(collected(exec, Some(&text)), want, "{text}");
        }
    }

    #[test]
    fn drop_ins_are_read_in_their_order() {
        let unit = b"[Service]\nExecStart=/a\n";
        assert_eq!(exec_start(&[unit, b"[Service]\nExecStart=\nExecStart=/b"]).as_deref(), Ok("/b"));
        assert!(exec_start(&[unit, b"[Service]\nExecStart=/b"]).is_err());
        assert!(exec_start(&[b"[Service]\n"]).is_err());
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for exec in ["/bin/etcd ; /bin/other", "/bin/etcd \"--a", "/bin/etcd \\x41", "", "/bin/sh -c 'etcd'"]
        {
            assert!(drop_in(exec, is_etcd, &[set("a", "1")]).is_err(), "{exec}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_collector_sees_exactly_the_edit(
            arguments in prop::collection::vec("--[c-f]=[a-z/:.,]{0,5}|'--[c-f]=[a-z ]{0,4}'|\"--g=%%[a-z]\"", 0..6),
            value in "[a-z%$\"'\\\\ ;#:/]{0,10}",
        ) {
            let exec = format!("/bin/etcd {}", arguments.join(" "));
            let before = collected(&exec, None);
            let text = drop_in(exec.trim(), is_etcd, &[set("zz", &value)]).unwrap();
            let mut want = before;
            want.push(format!("--zz={value}"));
            prop_assert_eq!(collected(&exec, Some(&text)), want, "{}", text);
        }
    }
}
