//! Flags on a command line, as Go's `flag` package reads them: one dash or two, the value after `=` or in the
//! next argument, the last of several in effect.

use schemars::JsonSchema;
use seaworthy_evidence::Origin;
use seaworthy_host::shell;
use seaworthy_settings::Argument;
use serde::{Deserialize, Serialize};

use crate::values::{self, Values};
use crate::{Refused, kinship, printable};

/// A change of a command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ArgumentEdit {
    /// Takes the flag away, however often it is there.
    Remove {
        /// Its name without dashes.
        flag: String,
    },
    /// Gives the flag this value: where it is in effect now, else after the last flag that is akin to it.
    Set {
        /// Its name without dashes.
        flag: String,
        /// Its value.
        value: String,
    },
}

/// What an [`ArgumentEdit`] does to a list of arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Inserts an argument behind the one at this index.
    InsertAfter(usize, String),
    /// Removes the argument at this index.
    Remove(usize),
    /// Replaces the argument at this index.
    Replace(usize, String),
}

impl ArgumentEdit {
    /// Returns the name of the flag.
    pub fn flag(&self) -> &str {
        match self {
            Self::Remove { flag } | Self::Set { flag, .. } => flag,
        }
    }

    /// Returns what is to be done to `argv`, whose flags begin behind the argument at `program`. The operations
    /// are in an order in which one does not move the place of the next.
    pub(crate) fn operations<S: AsRef<str>>(
        &self,
        argv: &[S],
        program: usize,
    ) -> Result<Vec<Operation>, Refused> {
        let flag = self.flag();
        if flag.is_empty()
            || !flag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            || flag.starts_with('-')
        {
            return Err(Refused::because("that is no name of a flag"));
        }
        let given = given(argv, program)?;
        let mut named = given.iter().filter(|g| g.name == flag);
        match self {
            Self::Remove { .. } => Ok(named
                .rev()
                .flat_map(|g| [g.value_at, Some(g.at)])
                .flatten()
                .map(Operation::Remove)
                .collect()),
            Self::Set { value, .. } => {
                printable(value)?;
                let operation = match named.next_back() {
                    Some(g) if g.value == Some(value) => return Ok(Vec::new()),
                    Some(Given { value_at: Some(at), .. }) => Operation::Replace(*at, value.clone()),
                    Some(Given { at, dashes, .. }) => {
                        Operation::Replace(*at, format!("{dashes}{flag}={value}"))
                    }
                    None => {
                        // Of equally close ones the last.
                        let kin = given.iter().max_by_key(|g| kinship(g.name, flag));
                        let after = kin.map_or(program, |g| g.value_at.unwrap_or(g.at));
                        Operation::InsertAfter(after, format!("--{flag}={value}"))
                    }
                };
                Ok(vec![operation])
            }
        }
    }
}

/// Returns the index in `argv` of the program whose flags are meant: one that `is_program`, perhaps behind
/// wrappers such as `nice`.
pub(crate) fn program(argv: &[String], is_program: &impl Fn(&[u8]) -> bool) -> Result<usize, Refused> {
    let argument = |text: &String| Argument { text: text.clone().into_bytes(), origin: Origin::derived("") };
    let arguments: Vec<_> = argv.iter().map(argument).collect();
    let in_script = || Refused::because("the flags are in a shell script");
    let started = match shell::program(&arguments, is_program) {
        None => return Err(Refused::because("the command line does not start that program")),
        Some(started) => started.map_err(|_| in_script())?,
    };
    // What comes out of a script is no part of the command line itself.
    let at = arguments.len().saturating_sub(started.len());
    let shell = |text: &String| text.ends_with("sh");
    match arguments.get(at..) == Some(&started) && !argv.iter().take(at).any(shell) {
        true => Ok(at),
        false => Err(in_script()),
    }
}

/// Adds the arguments of a command line value by value: flags behind the one at `program`, and what is in front of them.
pub(crate) fn add_values<S: AsRef<str>>(
    argv: &[S],
    program: usize,
    found: &mut Values,
) -> Result<(), Refused> {
    for text in argv.iter().take(program + 1) {
        values::add(found, "argument", text.as_ref());
    }
    for flag in given(argv, program)? {
        values::add(found, &values::flag(flag.name), flag.value.unwrap_or("true"));
    }
    Ok(())
}

/// A flag of a command line.
struct Given<'a> {
    name: &'a str,
    dashes: &'a str,
    value: Option<&'a str>,
    at: usize,
    /// Where its value is, if that is an argument of its own.
    value_at: Option<usize>,
}

/// Returns the flags behind the argument at `program`.
///
/// An argument without dashes is the value of the flag before it: a boolean flag takes none, but then etcd
/// would not start with what follows.
fn given<S: AsRef<str>>(argv: &[S], program: usize) -> Result<Vec<Given<'_>>, Refused> {
    let mut given: Vec<Given<'_>> = Vec::new();
    for (at, text) in argv.iter().map(AsRef::as_ref).enumerate().skip(program + 1) {
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        match (name, given.last_mut()) {
            (Some(name), _) if !name.is_empty() && !name.starts_with('-') => {
                let dashes = text.strip_suffix(name).unwrap_or("--");
                let (name, value) = name.split_once('=').map_or((name, None), |(n, v)| (n, Some(v)));
                given.push(Given { name, dashes, value, at, value_at: None });
            }
            (None, Some(last)) if last.value.is_none() => {
                last.value = Some(text);
                last.value_at = Some(at);
            }
            _ => return Err(Refused::because("the command line has an argument that is no flag")),
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{InsertAfter, Remove, Replace};

    fn set(flag: &str, value: &str) -> ArgumentEdit {
        ArgumentEdit::Set { flag: flag.into(), value: value.into() }
    }

    fn remove(flag: &str) -> ArgumentEdit {
        ArgumentEdit::Remove { flag: flag.into() }
    }

    #[test]
    fn operations_follow_the_flag_package() {
        let argv = ["etcd", "--a=1", "-peer-x", "2", "--client", "--peer-y=3", "--a=4", "--z=5"];
        let cases = [
            (set("a", "9"), vec![Replace(6, "--a=9".into())]),
            (set("a", "4"), vec![]),
            (set("peer-x", "9"), vec![Replace(3, "9".into())]),
            (set("peer-x", "2"), vec![]),
            (set("client", "true"), vec![Replace(4, "--client=true".into())]),
            (set("peer-z", "9"), vec![InsertAfter(5, "--peer-z=9".into())]),
            (set("other", "9"), vec![InsertAfter(7, "--other=9".into())]),
            (remove("a"), vec![Remove(6), Remove(1)]),
            (remove("peer-x"), vec![Remove(3), Remove(2)]),
            (remove("none"), vec![]),
        ];
        for (edit, want) in cases {
            assert_eq!(edit.operations(&argv, 0).unwrap(), want, "{edit:?}");
        }
        assert_eq!(
            set("peer-x", "9").operations(&["nice", "etcd"], 1).unwrap(),
            [InsertAfter(1, "--peer-x=9".into())]
        );
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for argv in
            [&["etcd", "positional"][..], &["etcd", "--a=1", "b"], &["etcd", "--", "-a"], &["etcd", "-"]]
        {
            assert!(set("a", "1").operations(argv, 0).is_err(), "{argv:?}");
        }
        for flag in ["", "-a", "a b", "a=b"] {
            assert!(set(flag, "1").operations(&["etcd"], 0).is_err(), "{flag:?}");
        }
        assert!(set("a", "x\ny").operations(&["etcd"], 0).is_err());
    }
}
