//! Command-line arguments as Go's `flag` package reads them.

use seaworthy_evidence::{Origin, PredictedFailure};
use seaworthy_settings::Argument;

use super::names::{self, Flag};
use super::{failure, values};
use crate::etcd::Version;

/// One flag of a command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    pub(super) name: String,
    /// Its value, lossily decoded; booleans without one are `true`.
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// A command line taken apart.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) given: Vec<Given>,
    pub(super) fatal: Vec<PredictedFailure>,
}

impl Parsed {
    /// Returns the flags called `name`, in their order.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Given> {
        self.given.iter().filter(move |given| given.name == name)
    }

    /// Returns the last flag called `name`.
    pub(super) fn last<'a>(&'a self, name: &'a str) -> Option<&'a Given> {
        self.named(name).next_back()
    }
}

/// Takes `arguments` (argv without the program) apart.
///
/// etcd exits at the first mistake. A process that runs has made none, so whatever looks like one is more
/// likely a flag of a release that is newer than this code: parsing goes on, and an unknown flag is taken to
/// have a value only when it carries one after `=`. The mistake is predicted all the same, for declarations
/// that do not run yet.
pub(super) fn parse(arguments: &[Argument], version: Option<Version>) -> Parsed {
    let mut parsed = Parsed::default();
    let mut arguments = arguments.iter().peekable();
    while let Some(Argument { text, origin }) = arguments.next() {
        let text = String::from_utf8_lossy(text);
        let Some(rest) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            // The text is not shown: after a flag that is not known it may well be a password.
            parsed.fatal.push(failure(
                "",
                "an argument that is no flag: etcd calls it not a valid flag",
                origin,
            ));
            break;
        };
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        if rest.is_empty() {
            if let Some(next) = arguments.next() {
                let message = "an argument after `--`: etcd calls it not a valid flag";
                parsed.fatal.push(failure("", message, &next.origin));
            }
            break;
        }
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.starts_with('-') {
            parsed.fatal.push(failure("", "bad flag syntax", origin));
            continue;
        }
        if !names::defines_flag(name, version) && !matches!(name, "h" | "help") {
            let who = Version::name(version);
            let name = shown(name);
            let message = format!("flag provided but not defined: {who} has no flag -{name}");
            parsed.fatal.push(failure(&name, message, origin));
        }
        let value = match (names::flag(name), value) {
            (Some(Flag::Boolean), Some(value)) if parse_bool(value).is_none() => {
                let message = format!("invalid boolean value for -{name}");
                parsed.fatal.push(failure(name, message, origin));
                value.to_owned()
            }
            (_, Some(value)) => value.to_owned(),
            (Some(Flag::Value), None) => match arguments.next() {
                Some(next) => String::from_utf8_lossy(&next.text).into_owned(),
                None => {
                    parsed.fatal.push(failure(name, format!("flag needs an argument: -{name}"), origin));
                    break;
                }
            },
            (Some(Flag::Boolean | Flag::Ignored) | None, None) => "true".to_owned(),
        };
        if let Some(message) = values::refusal(name, &value, version) {
            parsed.fatal.push(failure(name, message, origin));
        }
        parsed.given.push(Given { name: name.to_owned(), value, origin: origin.clone() });
    }
    parsed
}

/// Returns the truth value of `text` as Go's `strconv.ParseBool` reads it.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Returns `name` cut to a length that fits a report.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}
