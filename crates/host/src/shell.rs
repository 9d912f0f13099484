//! What a command line really starts, when it starts it through a shell or another wrapper.

use seaworthy_evidence::{ErrorKind, EvidenceError};
use seaworthy_settings::{Argument, may_be_shown};

/// Returns the command line of the program that `argv` ends up running, if it is one that `is_program` (which
/// is given the text of an argument that may be a path to it).
///
/// Found are the program itself, the program behind a wrapper such as `nice` or `ionice`, and the program
/// that the last command of a `sh -c` script starts. A script is never interpreted: it is only split into
/// words.
///
/// `Some(Err)` when the program occurs behind a wrapper or in the script, but in a way that cannot be told without
/// running it: substitutions, redirections, pipes, conditions, or variables that change its settings.
pub fn program(
    argv: &[Argument],
    is_program: impl Fn(&[u8]) -> bool,
) -> Option<Result<Vec<Argument>, EvidenceError>> {
    let Some(begin) = wrappers(argv.iter().map(|a| &*a.text)) else {
        let hidden = argv.iter().find(|argument| is_program(&argument.text))?;
        let message = format!("{}: what the variables before it set is not told apart", hidden.origin);
        return Some(Err(EvidenceError::new(ErrorKind::Unsupported, message).at(hidden.origin.clone())));
    };
    let argv = argv.get(begin..)?;
    let first = argv.first()?;
    if is_program(&first.text) {
        return Some(Ok(argv.to_vec()));
    }
    if !matches!(file_name(&first.text), b"ash" | b"bash" | b"dash" | b"ksh" | b"sh" | b"zsh") {
        return None;
    }
    let takes_script = |a: &Argument| {
        let letters = a.text.strip_prefix(b"-").unwrap_or_default();
        letters.contains(&b'c') && letters.iter().all(u8::is_ascii_alphabetic)
    };
    let script = argv.iter().skip(1).skip_while(|a| !takes_script(a)).nth(1)?;
    if let Some(words) = last_command(&script.text)
        && let Some(words) = wrappers(words.iter().map(|w| &**w)).and_then(|skip| words.get(skip..))
        && words.first().is_some_and(|word| is_program(word))
    {
        let argument = |text: &Vec<u8>| Argument { text: text.clone(), origin: script.origin.clone() };
        return Some(Ok(words.iter().map(argument).collect()));
    }
    may_start(&script.text, is_program).then(|| {
        let message = format!("{}: the shell script cannot be told without running it", script.origin);
        Err(EvidenceError::new(ErrorKind::Unsupported, message).at(script.origin.clone()))
    })
}

/// Returns whether a script that is not understood may start the program: whether it names it where a command is.
fn may_start(script: &[u8], is_program: impl Fn(&[u8]) -> bool) -> bool {
    const ENDS: &[u8] = b";&|()'\"`{}\n";
    const BEFORE_A_COMMAND: [&[u8]; 8] = [b"!", b"do", b"elif", b"else", b"if", b"then", b"until", b"while"];
    script.split(|b| ENDS.contains(b)).any(|part| {
        let mut wrapped = true;
        part.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).any(|word| {
            let is_wrapper = BEFORE_A_COMMAND.contains(&word)
                || WRAPPERS.iter().any(|wrapper| wrapper.name.as_bytes() == file_name(word));
            let is_command = wrapped && is_program(word);
            let is_operand = word.starts_with(b"-") || word.first().is_some_and(u8::is_ascii_digit);
            wrapped = is_wrapper || wrapped && (is_operand || assigned(word).is_some());
            is_command
        })
    })
}

/// Returns how many of the leading `words` belong to programs that only start another one, and to assignments
/// of variables that are not the program's settings; `None` when they are.
fn wrappers<'a>(words: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let mut wrapper: Option<&Wrapper> = None;
    // How many words are still the wrapper's own.
    let mut own = 0;
    let mut is_value = false;
    for (index, word) in words.enumerate() {
        if std::mem::take(&mut is_value) {
            continue;
        }
        let next = WRAPPERS.iter().find(|wrapper| wrapper.name.as_bytes() == file_name(word));
        if let Some(name) = assigned(word) {
            if may_be_shown(name) || name.starts_with(b"ETCD_") {
                return None;
            }
        } else if let Some(wrapper) = wrapper.filter(|_| word.starts_with(b"-")) {
            is_value = matches!(word, [b'-', letter] if wrapper.with_value.as_bytes().contains(letter));
        } else if own > 0 {
            own -= 1;
        } else if let Some(next) = next {
            (wrapper, own) = (Some(next), next.operands);
        } else {
            return Some(index);
        }
    }
    None
}

/// A program that does nothing but start another one in some way.
struct Wrapper {
    name: &'static str,
    /// Letters of the options that take the next word as their value.
    with_value: &'static str,
    /// How many words of its own come before the program.
    operands: usize,
}

/// Programs that start another one, as their manuals describe them.
#[rustfmt::skip]
const WRAPPERS: &[Wrapper] = &[
    Wrapper { name: "catatonit", with_value: "", operands: 0 },
    Wrapper { name: "chrt", with_value: "DPT", operands: 1 },
    Wrapper { name: "dumb-init", with_value: "r", operands: 0 },
    Wrapper { name: "env", with_value: "Cu", operands: 0 },
    Wrapper { name: "exec", with_value: "a", operands: 0 },
    Wrapper { name: "gosu", with_value: "", operands: 1 },
    Wrapper { name: "ionice", with_value: "cn", operands: 0 },
    Wrapper { name: "nice", with_value: "n", operands: 0 },
    Wrapper { name: "nohup", with_value: "", operands: 0 },
    Wrapper { name: "numactl", with_value: "CNPim", operands: 0 },
    Wrapper { name: "setsid", with_value: "", operands: 0 },
    Wrapper { name: "stdbuf", with_value: "eio", operands: 0 },
    Wrapper { name: "su-exec", with_value: "", operands: 1 },
    Wrapper { name: "taskset", with_value: "", operands: 1 },
    Wrapper { name: "timeout", with_value: "ks", operands: 1 },
    Wrapper { name: "tini", with_value: "ep", operands: 0 },
];

/// Returns the name of the variable that `word` assigns, if it is an assignment.
fn assigned(word: &[u8]) -> Option<&[u8]> {
    let name = word.get(..word.iter().position(|&b| b == b'=')?)?;
    let letter = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    (name.iter().all(letter) && name.first().is_some_and(|b| !b.is_ascii_digit())).then_some(name)
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// Returns the words of the last command of a shell script; `None` when they depend on more than quoting, or
/// when an earlier command may have changed the settings that the last one gets from its environment.
fn last_command(script: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut command = Command::default();
    let mut last = None;
    let mut rest = script.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' => command.end_word(),
            b'\n' | b';' | b'&' => {
                command.end_word();
                if !command.words.is_empty() {
                    let before: Option<Command> = last.replace(std::mem::take(&mut command));
                    if before.is_some_and(|before| before.changes_settings()) {
                        return None;
                    }
                }
            }
            b'#' if command.word.is_none() => while rest.next_if(|&b| b != b'\n').is_some() {},
            b'\\' => match rest.next() {
                Some(b'\n') | None => {}
                Some(byte) => command.extend([byte]),
            },
            b'\'' => loop {
                command.extend([]);
                match rest.next()? {
                    b'\'' => break,
                    byte => command.extend([byte]),
                }
            },
            b'"' => loop {
                command.extend([]);
                match rest.next()? {
                    b'"' => break,
                    b'$' | b'`' => command.opaque = true,
                    b'\\' => match rest.next()? {
                        b'\n' => {}
                        byte @ (b'$' | b'`' | b'"' | b'\\') => command.extend([byte]),
                        byte => command.extend([b'\\', byte]),
                    },
                    byte => command.extend([byte]),
                }
            },
            // `GOMAXPROCS=$(nproc) etcd …`
            b'$' if command.is_assigning() && rest.peek() == Some(&b'(') => while rest.next()? != b')' {},
            b'|' => return None,
            b'<' if rest.peek() == Some(&b'<') => return None,
            b'$' | b'`' | b'(' | b')' | b'<' | b'>' | b'*' | b'?' | b'{' | b'}' | b'~' => {
                command.opaque = true
            }
            byte => command.extend([byte]),
        }
    }
    command.end_word();
    if !command.words.is_empty() {
        if last.is_some_and(|c| c.changes_settings()) {
            return None;
        }
        last = Some(command);
    }
    last.filter(|command| !command.opaque).map(|command| command.words)
}

/// A command that is being split into words.
#[derive(Default)]
struct Command {
    words: Vec<Vec<u8>>,
    word: Option<Vec<u8>>,
    /// Whether a word holds something that only a shell can tell.
    opaque: bool,
}

impl Command {
    fn extend(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.word.get_or_insert_default().extend(bytes);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn is_assigning(&self) -> bool {
        self.word.as_deref().and_then(assigned).is_some() && self.words.iter().all(|w| assigned(w).is_some())
    }

    fn changes_settings(&self) -> bool {
        self.words.first().is_some_and(|word| matches!(&**word, b"." | b"eval" | b"source"))
            || self.words.iter().any(|word| word.starts_with(b"ETCD_") || word.starts_with(b"SSL_CERT_"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seaworthy_evidence::Origin;

    use super::*;

    fn run(argv: &[&str]) -> Option<Result<Vec<String>, ErrorKind>> {
        let argument = |(index, text): (usize, &&str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 1, index: index as u32 },
        };
        let argv: Vec<_> = argv.iter().enumerate().map(argument).collect();
        let found = program(&argv, |word| file_name(word) == b"etcd")?;
        Some(
            found
                .map(|a| a.into_iter().map(|a| String::from_utf8(a.text).unwrap()).collect())
                .map_err(|e| e.kind),
        )
    }

    #[test]
    fn the_program_is_found_behind_its_wrappers() {
        let cases: &[(&[&str], &str)] = &[
            (&["etcd", "--name=a b"], "etcd|--name=a b"),
            (&["/usr/local/bin/etcd"], "/usr/local/bin/etcd"),
            (&["/usr/bin/ionice", "-c2", "-n", "0", "etcd", "-name", "x"], "etcd|-name|x"),
            (
                &["/usr/bin/env", "-u", "HOME", "GOGC=50", "nice", "-n", "-5", "/bin/etcd", "-x"],
                "/bin/etcd|-x",
            ),
            (&["taskset", "-c", "0-3", "chrt", "-r", "5", "etcd"], "etcd"),
            (&["setsid", "gosu", "etcd:etcd", "etcd", "--name=etcd"], "etcd|--name=etcd"),
            (&["/bin/sh", "-c", "exec etcd --name=a"], "etcd|--name=a"),
            (
                &["/bin/bash", "-e", "-xec", "exec nice -n -19 ionice -c2 -n0 etcd --a='b c' \"--d=\\\"e\""],
                "etcd|--a=b c|--d=\"e",
            ),
            (
                &[
                    "sh",
                    "-c",
                    "set -e\n# comment\nmkdir -p /x && \\\n  exec /etcd \\\n  --a=http://[::1]:1 \\\n  --b\n\n",
                ],
                "/etcd|--a=http://[::1]:1|--b",
            ),
            (&["sh", "-c", "GOMAXPROCS=$(nproc) /usr/bin/etcd --name='$x'"], "/usr/bin/etcd|--name=$x"),
            (&["sh", "-c", "rm -f *; test -d \"$X\" & etcd --a=''"], "etcd|--a="),
        ];
        for (argv, want) in cases {
            assert_eq!(run(argv).unwrap().unwrap().join("|"), *want, "{argv:?}");
        }
    }

    #[test]
    fn what_only_a_shell_can_tell_is_said_to_be_unknown() {
        let scripts = [
            "etcd --name=$HOSTNAME",
            "etcd --name=\"$HOSTNAME\"",
            "etcd --name=`hostname`",
            "etcd > /var/log/etcd.log 2>&1",
            "etcd | tee log",
            "test -e x || etcd",
            "if true; then etcd; fi",
            "ETCD_NAME=x etcd",
            "export ETCD_NAME=x; exec etcd",
            ". /etc/etcd.env\nexec etcd",
            "cat <<X\nX\netcd",
            "etcd --name='unterminated",
        ];
        for script in scripts {
            assert_eq!(run(&["sh", "-c", script]), Some(Err(ErrorKind::Unsupported)), "{script}");
        }
        assert_eq!(run(&["env", "ETCD_NAME=x", "etcd"]), Some(Err(ErrorKind::Unsupported)));
    }

    #[test]
    fn other_programs_are_not_taken_for_it() {
        let cases: &[&[&str]] = &[
            &["etcdctl", "etcd"],
            &["kube-apiserver", "--etcd-servers=x"],
            &["sh", "-c", "grep etcd-x /proc/mounts"],
            &["sh", "-c", "mkdir -p /var/lib/etcd && tar c /var/lib/etcd | gzip >$X"],
            &["nice", "tar", "c", "/var/lib/etcd"],
            &["sh", "-c"],
            &["sh", "etcd"],
            &["nice"],
            &[],
        ];
        for argv in cases {
            assert_eq!(run(argv), None, "{argv:?}");
        }
    }

    proptest! {
        #[test]
        fn no_script_panics(script in "[ \\n'\"\\\\$();&|<#=a-cE_T]{0,60}") {
            run(&["sh", "-c", &script]);
        }
    }
}
