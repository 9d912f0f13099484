//! Settings as components of Kubernetes read their command line: pflag, over defaults that are compiled in.
//!
//! Neither the environment nor, for these settings, a file is read. `_` in a name counts as `-`
//! (`k8s.io/component-base/cli/flag.WordSepNormalizeFunc`); the last of several values counts, and lists grow.

use std::collections::BTreeMap;
use std::net::IpAddr;

use seaworthy_evidence::{
    Candidate, ErrorKind, EvidenceError, Observed, Origin, PredictedFailure, Setting, Settings,
};

use crate::{Argument, Given, Resolved};

mod gates;
mod values;

/// A release: major, minor and patch number.
pub type Release = (u32, u32, u32);

/// The flags of a component in all its releases.
#[derive(Debug)]
pub struct Table {
    /// The name of the component.
    pub component: &'static str,
    /// The releases that are known, in order.
    pub releases: &'static [Release],
    /// The flags, by name.
    pub flags: &'static [Flag],
    /// The feature gates, by name.
    pub gates: &'static [Gate],
    /// The fields of its configuration file, by path.
    pub fields: &'static [Field],
}

/// A field of a component's configuration file.
#[derive(Debug)]
pub struct Field {
    /// Its path: `authentication.anonymous.enabled`.
    pub name: &'static str,
    /// What it holds: `bool`, `duration`, `int`, `list`, `string`.
    pub kind: &'static str,
    /// The value where a file gives none, from each of these releases on.
    pub defaults: &'static [(Release, Option<&'static str>)],
}

/// A feature gate of a component.
#[derive(Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Its stage from each of these releases on: `ALPHA`.
    pub stages: &'static [(Release, &'static str)],
    /// Whether it is on where nobody sets it, from each of these releases on.
    pub defaults: &'static [(Release, bool)],
    /// Whether nothing else may be set, from each of these releases on.
    pub locked: &'static [(Release, bool)],
    /// The first release that has it.
    pub since: Option<Release>,
    /// The first release that no longer has it.
    pub removed: Option<Release>,
}

/// A flag of a component.
#[derive(Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Its letter after one dash.
    pub shorthand: Option<char>,
    /// What the program itself calls the type: `int32`, `duration`.
    pub kind: &'static str,
    /// How values are given.
    pub takes: Takes,
    /// The value where none is given, from each of these releases on; `None` for one that depends on the machine.
    pub defaults: &'static [(Release, Option<&'static str>)],
    /// The first release that has it.
    pub since: Option<Release>,
    /// The first release that no longer has it.
    pub removed: Option<Release>,
    /// The field of the configuration file that means the same.
    pub field: Option<&'static str>,
}

/// How the values of a flag are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A flag alone is true, and another value follows `=`.
    Boolean,
    /// A flag alone has a value of its own, and another value follows `=`.
    Bare,
    /// A list: the first value replaces the default, and the others are added.
    List,
    /// The value follows `=`, or is the next argument.
    Value,
}

/// Returns whether `release` has what is there from the one release on, and not from the other on.
fn is_between(since: Option<Release>, removed: Option<Release>, release: Release) -> bool {
    since.is_none_or(|since| since <= release) && removed.is_none_or(|removed| release < removed)
}

/// Returns what holds in `release` of values that hold from each of their releases on.
fn at<T: Copy>(values: &[(Release, T)], release: Release) -> Option<T> {
    values.iter().rev().find(|(from, _)| *from <= release).map(|(_, value)| *value)
}

impl Flag {
    fn is_in(&self, release: Release) -> bool {
        is_between(self.since, self.removed, release)
    }

    /// Returns what the flag wants where it refuses `value`.
    fn refuses(&self, value: &str) -> Option<&'static str> {
        let (taken, wanted) = match self.kind {
            _ if self.takes == Takes::Boolean => (parse_bool(value).is_some(), "true or false"),
            "int" | "int64" | "uint" | "uint64" => (parse_int(value).is_some(), "a whole number"),
            "int32" | "uint32" => (
                parse_int(value).is_some_and(|n| i32::try_from(n).is_ok() || u32::try_from(n).is_ok()),
                "a whole number of 32 bits",
            ),
            "float32" | "float64" => (value.parse::<f64>().is_ok(), "a number"),
            "duration" => (parse_duration(value).is_some(), "a time such as 1h30m"),
            "ip" => {
                let text = value.trim();
                (text.is_empty() || text.parse::<IpAddr>().is_ok(), "an IP address")
            }
            _ => (true, ""),
        };
        (!taken).then_some(wanted)
    }

    fn default_in(&self, release: Release) -> Option<&'static str> {
        at(self.defaults, release)?
    }
}

impl Table {
    /// Returns the releases that a process of `release`, as far as that is known, may be of, and whether these are all that it may
    /// be of: those of its line, or every release there is, of which only some are known.
    fn releases_of(&self, release: Option<&str>) -> (Vec<Release>, bool) {
        let parts = |text: &str| -> Option<(u32, u32)> {
            let mut parts = text.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
            Some((parts.next()?.ok()?, parts.next()?.ok()?))
        };
        let line = release.and_then(parts);
        let of_line: Vec<Release> = self
            .releases
            .iter()
            .filter(|(major, minor, _)| Some((*major, *minor)) == line)
            .copied()
            .collect();
        if of_line.is_empty() { (self.releases.to_vec(), false) } else { (of_line, true) }
    }

    /// Returns whether a process of `release` is of a line that is known.
    pub fn knows(&self, release: Option<&str>) -> bool {
        self.releases_of(release).1
    }

    /// Returns whether a process of `release` is of a line that is known and comes before `line`.
    pub fn is_before(&self, release: Option<&str>, line: (u32, u32)) -> bool {
        let (releases, all) = self.releases_of(release);
        all && releases.iter().all(|(major, minor, _)| (*major, *minor) < line)
    }

    /// Returns the field of the configuration file that the setting `name` is: that of the flag, or one with this path.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let path = self.flag(name).map_or(Some(name), |flag| flag.field)?;
        self.fields.iter().find(|field| field.name == path)
    }

    /// Returns the value of a `field` where no file of a process of `release` gives one; `None` where it differs between the releases
    /// that it may be of.
    pub fn default_of(&self, field: &Field, release: Option<&str>) -> Option<&'static str> {
        let (releases, _) = self.releases_of(release);
        let mut values =
            releases.iter().map(|release| at(field.defaults, *release).flatten().unwrap_or_default());
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    }

    fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.name == name)
    }
}

/// Returns the settings called `kept` that the component of `table` takes from what it is `given`.
///
/// Where its release is not known, a default is known only if all releases agree on it.
pub fn resolve(table: &Table, kept: &[&str], given: &Given<'_>) -> Resolved {
    let (releases, all) = table.releases_of(given.release);
    let mut line = Line::parse(table, &releases, all, given.arguments);
    values::judge(&mut line, table, &releases, all);
    let mut known = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in kept {
        match line.setting(table, &releases, name) {
            Ok(setting) => drop(known.insert((*name).to_owned(), setting)),
            Err(error) => unknown.push((*name, error)),
        }
    }
    let mut settings = Settings::from(known);
    for (name, error) in unknown {
        settings.doubt(name, error);
    }
    let origin = Origin::derived(format!("the command line and the defaults of {}", table.component));
    Resolved {
        settings: Observed::seen(settings, origin),
        config_file: None,
        drop_ins: Vec::new(),
        ignored_environment: None,
        fatal: line.fatal,
        doubt: line.doubt,
    }
}

/// A command line taken apart.
#[derive(Default)]
struct Line {
    /// Name, value and place of each flag, in order.
    given: Vec<(String, String, Origin)>,
    fatal: Vec<PredictedFailure>,
    /// A flag that is not known, where not every release is. Whatever seems wrong after it may be its value.
    doubt: Option<EvidenceError>,
}

impl Line {
    /// Takes `arguments` (argv without the program) apart, of a component of one of the `releases`, if these are `all` that it may be
    /// of. It exits at the first mistake; what a process that runs was given is read on all the same, because its release may be newer
    /// than the table.
    fn parse(table: &Table, releases: &[Release], all: bool, arguments: &[Argument]) -> Self {
        let mut line = Self::default();
        let mut arguments = arguments.iter();
        while let Some(Argument { text, origin }) = arguments.next() {
            let text = String::from_utf8_lossy(text);
            let Some(long) = text.strip_prefix("--") else {
                line.short(table, &text, origin, &mut arguments);
                continue;
            };
            if long.is_empty() {
                if let Some(next) = arguments.next() {
                    line.refuse("", "an argument that is no flag, and it takes none", &next.origin);
                }
                break;
            }
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let name = name.replace('_', "-");
            let flag = table.flag(&name).filter(|flag| releases.iter().any(|release| flag.is_in(*release)));
            if flag.is_none() {
                let shown: String = name.chars().take(64).collect();
                match all {
                    true => line.refuse(&shown, &format!("unknown flag: --{shown}"), origin),
                    false => line.doubt_about(table, &shown, origin),
                }
            }
            let takes = flag.map_or(Takes::Bare, |flag| flag.takes);
            let value = match (value, takes) {
                (Some(value), _) => value.to_owned(),
                (None, Takes::Boolean | Takes::Bare) => "true".to_owned(),
                (None, Takes::List | Takes::Value) => match arguments.next() {
                    Some(next) => String::from_utf8_lossy(&next.text).into_owned(),
                    None => {
                        line.refuse(&name, &format!("flag needs an argument: --{name}"), origin);
                        break;
                    }
                },
            };
            line.take(name, value, flag, origin);
        }
        line
    }

    /// Takes an argument with one dash, or none.
    fn short<'a>(
        &mut self,
        table: &Table,
        text: &str,
        origin: &Origin,
        rest: &mut impl Iterator<Item = &'a Argument>,
    ) {
        let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            // The text is not shown: it may well be a password.
            return self.refuse("", "an argument that is no flag, and it takes none", origin);
        };
        let letter = letters.chars().next();
        let Some(flag) = table.flags.iter().find(|flag| flag.shorthand.is_some() && flag.shorthand == letter)
        else {
            return self.refuse("", "a letter after one dash that is no flag", origin);
        };
        let value = letters.get(letter.map_or(0, char::len_utf8)..).unwrap_or_default();
        let value = value.strip_prefix('=').unwrap_or(value);
        let value = match (value, flag.takes) {
            ("", Takes::Boolean | Takes::Bare) => "true".to_owned(),
            ("", _) => rest.next().map(|a| String::from_utf8_lossy(&a.text).into_owned()).unwrap_or_default(),
            (value, _) => value.to_owned(),
        };
        self.take(flag.name.to_owned(), value, Some(flag), origin);
    }

    fn take(&mut self, name: String, value: String, flag: Option<&Flag>, origin: &Origin) {
        if let Some(wanted) = flag.and_then(|flag| flag.refuses(&value)) {
            self.refuse(&name, &format!("invalid argument for --{name}: it is {wanted}"), origin);
        }
        self.given.push((name, value, origin.clone()));
    }

    fn doubt_about(&mut self, table: &Table, name: &str, origin: &Origin) {
        let message = format!(
            "no release of {} that is known has a flag --{name}, and which release would be started is not known",
            table.component
        );
        let error = EvidenceError::new(ErrorKind::Unsupported, message).at(origin.clone());
        self.doubt.get_or_insert(error);
    }

    fn refuse(&mut self, setting: &str, message: &str, origin: &Origin) {
        if self.doubt.is_some() {
            return;
        }
        let (setting, message) = (setting.to_owned(), message.to_owned());
        self.fatal.push(PredictedFailure { setting, message, origin: origin.clone() });
    }

    /// Returns what is in effect of the setting `name`.
    fn setting(&self, table: &Table, releases: &[Release], name: &str) -> Result<Setting, EvidenceError> {
        let flag = table.flag(name);
        let takes = flag.map_or(Takes::Value, |flag| flag.takes);
        let mut given = self.given.iter().filter(|(given, ..)| given == name).collect::<Vec<_>>();
        let Some((_, last, origin)) = given.pop() else { return default(table, flag, releases, name) };
        if takes == Takes::List {
            let all: Vec<&str> =
                given.iter().map(|(_, value, _)| value.as_str()).chain([last.as_str()]).collect();
            let kind = flag.filter(|_| name == gates::FLAG).map(|flag| flag.kind);
            let gates = kind.and_then(|kind| gates::in_effect(kind, all.iter().copied()));
            // An empty value adds no element.
            let elements: Vec<&str> = all.into_iter().filter(|value| !value.is_empty()).collect();
            let value = gates.unwrap_or_else(|| elements.join(","));
            return Ok(setting(value, takes, origin.clone(), "set by flag"));
        }
        let mut found = setting(last.clone(), takes, origin.clone(), "set by flag");
        found.overridden = given
            .into_iter()
            .rev()
            .map(|(_, value, origin)| Candidate {
                value: value.clone(),
                origin: origin.clone(),
                reason: "the flag is given again after it, and the last one counts".to_owned(),
            })
            .collect();
        Ok(found)
    }
}

/// Returns the setting of a flag that is not given.
fn default(
    table: &Table,
    flag: Option<&Flag>,
    releases: &[Release],
    name: &str,
) -> Result<Setting, EvidenceError> {
    let component = table.component.to_owned();
    let origin = Origin::Default { component, version: None };
    let Some(flag) = flag else { return Ok(setting(String::new(), Takes::Value, origin, "not set")) };
    let mut defaults: Vec<Option<&str>> = releases
        .iter()
        .map(|release| if flag.is_in(*release) { flag.default_in(*release) } else { Some("") })
        .collect();
    defaults.dedup();
    match defaults.as_slice() {
        [Some(value)] => {
            let plain = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
            let value = plain.filter(|_| flag.takes == Takes::List).unwrap_or(value);
            let why = match value {
                "" => "not set".to_owned(),
                value => format!("not set; by default it is {value}"),
            };
            Ok(setting(value.to_owned(), flag.takes, origin, &why))
        }
        [None] => Err(EvidenceError::new(
            ErrorKind::Unsupported,
            format!("{name} is not set, and its default depends on the machine"),
        )),
        _ => Err(EvidenceError::new(
            ErrorKind::Unsupported,
            format!(
                "{name} is not set, and its default differs between releases of {}, of which the one that runs is not known",
                table.component
            ),
        )),
    }
}

fn setting(value: String, takes: Takes, origin: Origin, why: &str) -> Setting {
    let on = if takes == Takes::Boolean { parse_bool(&value) } else { None };
    Setting { set: !value.is_empty(), value, on, origin, why: why.to_owned(), overridden: Vec::new() }
}

/// Returns the truth value of `text` as Go's `strconv.ParseBool` reads it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Returns the number in `text` as Go's `strconv.ParseInt` reads it with base 0: decimal, or by its prefix, with `_` between digits
/// only behind a prefix.
pub fn parse_int(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_str() {
        "0" => (10, "0"),
        text => [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)]
            .into_iter()
            .find_map(|(prefix, radix)| Some((radix, text.strip_prefix(prefix)?)))
            .unwrap_or((10, text)),
    };
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    let well_formed =
        !digits.ends_with('_') && !digits.contains("__") && plain.chars().all(|c| c.is_ascii_alphanumeric());
    let number = i128::from_str_radix(&plain, radix).ok().filter(|_| well_formed)?;
    Some(if negative { -number } else { number })
}

/// Returns the seconds in `text` as Go's `time.ParseDuration` reads it.
pub fn parse_duration(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let (mut parts, mut sum) = (0, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (value, unit) = rest.split_at(number);
        let value: f64 = value.parse().ok()?;
        // `ms` comes before `m`.
        let (after, seconds) =
            UNITS.iter().find_map(|(name, seconds)| Some((unit.strip_prefix(name)?, seconds)))?;
        (rest, parts, sum) = (after, parts + 1, sum + value * seconds);
    }
    (parts > 0).then_some(if text.starts_with('-') { -sum } else { sum })
}

/// Returns whether a component with these `arguments` prints its help or its version and exits. `--version=v1.2.3` only changes what
/// it says of itself (k8s.io/component-base/version/verflag).
pub fn prints_and_exits(table: &Table, arguments: &[Argument]) -> bool {
    let line = Line::parse(table, table.releases, false, arguments);
    let last = |name: &str| {
        line.given.iter().rev().find(|(given, ..)| given == name).map(|(_, value, _)| value.as_str())
    };
    last("help").is_some_and(|value| parse_bool(value) == Some(true))
        || last("version").is_some_and(|value| value == "raw" || parse_bool(value) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_read_as_go_reads_them() {
        let numbers = [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("+5", Some(5)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0o17", Some(15)),
            ("0b1", Some(1)),
            ("0x1_0", Some(16)),
            ("09", None),
            ("", None),
            ("1 ", None),
            ("x", None),
        ];
        for (text, want) in numbers {
            assert_eq!(parse_int(text), want, "{text}");
        }
        for text in ["0", "1h30m", "-5s", "1.5ms", ".5s", "10µs"] {
            assert!(parse_duration(text).is_some(), "{text}");
        }
        for text in ["", "5", "x", "1hx", "s", "1 s"] {
            assert!(parse_duration(text).is_none(), "{text}");
        }
    }

    const fn flag(
        name: &'static str,
        takes: Takes,
        default: &'static [(Release, Option<&'static str>)],
    ) -> Flag {
        Flag {
            name,
            shorthand: None,
            kind: "string",
            takes,
            defaults: default,
            since: None,
            removed: None,
            field: None,
        }
    }

    const ALWAYS: Release = (0, 0, 0);
    static TABLE: Table = Table {
        component: "kube-scheduler",
        releases: &[(1, 34, 2), (1, 35, 4)],
        flags: &[
            flag("bind-address", Takes::Value, &[(ALWAYS, Some("0.0.0.0"))]),
            Flag { removed: Some((1, 35, 0)), ..flag("old", Takes::Value, &[(ALWAYS, Some("x"))]) },
            flag("profiling", Takes::Boolean, &[(ALWAYS, Some("true")), ((1, 35, 0), Some("false"))]),
            flag("suites", Takes::List, &[(ALWAYS, Some("[a,b]"))]),
            Flag { shorthand: Some('v'), ..flag("v", Takes::Value, &[(ALWAYS, Some("0"))]) },
        ],
        gates: &[],
        fields: &[],
    };

    fn resolved(line: &str, release: Option<&str>) -> (Resolved, Vec<String>) {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |_: &str| Err(EvidenceError::new(ErrorKind::NotFound, "no file"));
        let given = Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release,
            runs: true,
            read,
            list: &mut crate::no_list,
        };
        let resolved = resolve(&TABLE, &["bind-address", "old", "profiling", "suites"], &given);
        let fatal = resolved.fatal.iter().map(|f| f.message.clone()).collect();
        (resolved, fatal)
    }

    #[test]
    fn flags_are_read_as_pflag_reads_them() {
        // The command line, the setting, its value and what would be said of a mistake.
        let cases = [
            ("", "bind-address", "0.0.0.0", ""),
            ("--bind-address=127.0.0.1", "bind-address", "127.0.0.1", ""),
            ("--bind_address 127.0.0.1", "bind-address", "127.0.0.1", ""),
            ("--bind-address=a --bind-address=b", "bind-address", "b", ""),
            ("--bind-address=", "bind-address", "", ""),
            ("", "suites", "a,b", ""),
            ("--suites=c --suites d,e", "suites", "c,d,e", ""),
            ("--profiling", "profiling", "true", ""),
            ("--profiling=F", "profiling", "F", ""),
            ("--profiling=no", "profiling", "no", "invalid argument for --profiling"),
            ("--profiling false", "profiling", "true", "an argument that is no flag"),
            ("-v 4 --bind-address=c", "bind-address", "c", ""),
            ("-v=4 --bind-address=c", "bind-address", "c", ""),
            ("-bind-address=c", "bind-address", "0.0.0.0", "a letter after one dash"),
            ("--old=y", "old", "y", "unknown flag: --old"),
            ("--bind-address", "bind-address", "0.0.0.0", "flag needs an argument"),
            ("-- --bind-address=c", "bind-address", "0.0.0.0", "an argument that is no flag"),
        ];
        for (line, name, value, mistake) in cases {
            let (resolved, fatal) = resolved(line, Some("v1.35.4"));
            assert_eq!(resolved.settings.value().unwrap()[name].value, value, "{line}");
            assert_eq!(fatal.len(), usize::from(!mistake.is_empty()), "{line}: {fatal:?}");
            assert!(fatal.iter().all(|said| said.starts_with(mistake)), "{line}: {fatal:?}");
        }
    }

    #[test]
    fn a_flag_of_a_release_that_is_not_known_is_no_mistake() {
        let doubt = |line: &str, release: Option<&str>| {
            let (resolved, fatal) = resolved(line, release);
            (resolved.doubt.is_some(), fatal.len())
        };
        assert_eq!(doubt("--new=1", Some("1.35.4")), (false, 1));
        for unknown in [None, Some("1.99.0")] {
            assert_eq!(doubt("--new=1", unknown), (true, 0));
            assert_eq!(doubt("--new 1 --profiling=no", unknown), (true, 0));
            assert_eq!(doubt("--profiling=no --new 1", unknown), (true, 1));
            assert_eq!(doubt("--old=1", unknown), (false, 0));
        }
    }

    #[test]
    fn a_default_is_known_where_the_releases_agree() {
        let profiling = |release: Option<&str>| {
            let (resolved, _) = resolved("", release);
            let settings = resolved.settings.value().unwrap();
            settings.get("profiling").map(|s| s.on).ok_or_else(|| settings.why_unknown("profiling").cloned())
        };
        assert_eq!(profiling(Some("1.34.9")), Ok(Some(true)));
        assert_eq!(profiling(Some("1.35")), Ok(Some(false)));
        for unknown in [None, Some("1.99.0"), Some("garbage")] {
            assert!(profiling(unknown).unwrap_err().unwrap().message.contains("differs between releases"));
        }
        let (resolved, _) = resolved("--bind-address=a --bind-address=b", None);
        let setting = &resolved.settings.value().unwrap()["bind-address"];
        assert_eq!((setting.overridden.len(), setting.overridden[0].value.as_str()), (1, "a"));
    }
}
