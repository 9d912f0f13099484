//! etcd's settings by etcd's own precedence.
//!
//! etcd reads either one configuration file or its flags and environment, never both: with a file, every
//! other flag and variable is ignored in silence. Without one, a flag and a variable of the same name stop
//! it. [`resolve`] says what is in effect, what lost and why, and what would keep an etcd with these inputs
//! from starting.

mod config_file;
mod environment;
mod faults;
mod flags;
mod meaning;
mod names;
mod values;

pub use meaning::{advertised, allowed_names, auto_tls, client_auth, initial_cluster, listen_urls};

use std::collections::{BTreeMap, BTreeSet};

use crate::etcd::SETTINGS;
use seaworthy_evidence::{
    Candidate, ConfigFile, ErrorKind, EvidenceError, IgnoredKey, Observed, Origin, PredictedFailure, Setting,
    Settings, without_userinfo,
};
use seaworthy_settings::{Argument, ConfigText, Given, Resolved, Variable};

use crate::etcd::Version;
use config_file::Bound;
use flags::{Parsed, parse_bool};
use names::Flag;

/// Everything that decides etcd's settings.
pub struct Inputs<'a> {
    /// The command line after the program: `argv[1..]`.
    pub arguments: &'a [Argument],
    /// The environment; only variables that begin with `ETCD_` matter.
    pub environment: Result<&'a [Variable], EvidenceError>,
    /// The release, if it is known. Without it, what any release knows is taken to be known.
    pub version: Option<Version>,
    /// Reads the configuration file at a path as the process sees it (relative to its working directory).
    pub read: &'a mut dyn FnMut(&str) -> Result<ConfigText, EvidenceError>,
}

/// Returns whether etcd's flag `name` takes the next argument as its value when it has none after `=`.
pub(crate) fn takes_value(name: &str) -> bool {
    names::flag(name) == Some(Flag::Value)
}

/// Returns the settings that etcd takes from `inputs`, with everything that lost.
///
/// The settings fail as a whole when one of the places that could decide any of them could not be read: the
/// environment (unless `--config-file` makes it irrelevant), or the configuration file; and when one of them is
/// longer than 16 KiB.
pub fn resolve(inputs: Inputs<'_>) -> Resolved {
    let mut resolved = resolve_all(inputs);
    if let Some(error) = resolved.settings.value().and_then(|settings| too_long(settings)) {
        resolved.settings = Observed::failed(error);
    }
    resolved.fatal.truncate(MAX_FATAL);
    resolved
}

/// Returns the settings of an etcd that is `given` this: as it runs, or as it would be started.
pub(super) fn of(given: Given<'_>) -> Resolved {
    let Given { arguments, environment, release, runs, read, .. } = given;
    let inputs = Inputs { arguments, environment, version: release.and_then(Version::parse), read };
    if runs { resolve_running(inputs) } else { resolve(inputs) }
}

/// Returns the settings of an etcd that runs with `inputs`.
///
/// What its release does not tell is read in every way in which a release that it may be reads it. It runs, so those that would
/// have refused to start with these inputs are not it; where the others differ, the setting is not known.
///
/// Inputs that are larger than any that somebody writes are read in one way only: a reading takes time, and who may start a
/// process may have it take much. Then nothing is known of them, unless the release is.
pub fn resolve_running(inputs: Inputs<'_>) -> Resolved {
    let Inputs { arguments, environment, version, read } = inputs;
    if version.is_some_and(|version| version.patch.is_some()) {
        return resolve(Inputs { arguments, environment, version, read });
    }
    let mut texts = BTreeMap::new();
    let mut read = |path: &str| {
        let text = texts.entry(path.to_owned()).or_insert_with(|| read(path));
        text.clone()
    };
    let many = arguments.len() > MANY || environment.as_ref().is_ok_and(|all| all.len() > MANY);
    let file = if many { None } else { config_file_path(arguments, environment.as_ref().ok().copied()) };
    let file = file.map(|path| read(&path));
    if many || file.as_ref().is_some_and(|text| text.as_ref().is_ok_and(|text| text.bytes.len() > LARGE)) {
        let message =
            "the release of etcd is not known, and its inputs are too large to be read as each release would";
        let error = EvidenceError::new(ErrorKind::TooLarge, message);
        return Resolved {
            settings: Observed::failed(error.clone()),
            config_file: file.map(|_| Observed::failed(error.clone())),
            drop_ins: Vec::new(),
            ignored_environment: Some(Observed::failed(error)),
            fatal: Vec::new(),
            doubt: None,
        };
    }
    let changes: Vec<_> = names::changes().collect();
    let readings = Version::readings(version, &changes).into_iter().map(|version| {
        let environment = environment.clone();
        resolve(Inputs { arguments, environment, version: Some(version), read: &mut read })
    });
    let readings: Vec<Resolved> = readings.collect();
    // Where all refuse, the inputs have changed since it was started, and the newest says how.
    let can_run = |resolved: &&Resolved| resolved.fatal.is_empty();
    let others: Vec<&Resolved> = readings.iter().filter(can_run).collect();
    let others = if others.is_empty() { readings.iter().collect() } else { others };
    let Some((newest, others)) = others.split_last() else {
        return resolve(Inputs { arguments, environment, version, read: &mut read });
    };
    let mut agreed = (*newest).clone();
    others.iter().for_each(|other| agree(&mut agreed, other, version));
    agreed
}

/// Leaves of `agreed` what the reading of another release says as well.
fn agree(agreed: &mut Resolved, other: &Resolved, version: Option<Version>) {
    let release = match version {
        Some(line) => format!("the patch release of etcd {line} is not known"),
        None => "the release of etcd is not known".to_owned(),
    };
    let unsettled = |what: String| {
        EvidenceError::new(ErrorKind::Unsupported, format!("{release}, and releases differ in {what}"))
    };
    match (&mut agreed.settings, &other.settings) {
        (Observed::Seen { value: agreed, .. }, Observed::Seen { value: other, .. }) => {
            for name in SETTINGS {
                let means = |settings: &Settings| settings.get(*name).map(|s| (s.set, s.value.clone(), s.on));
                if means(agreed) != means(other) {
                    agreed.doubt(name, unsettled(format!("what {name} is with these inputs")));
                }
            }
        }
        (Observed::Failed { .. }, Observed::Failed { .. }) => {}
        (settings, _) => {
            *settings = Observed::failed(unsettled("whether they can read these inputs".to_owned()))
        }
    }
    fn ignored<T>(seen: &Observed<T>, keys: impl Fn(&T) -> &[IgnoredKey]) -> Option<Vec<&str>> {
        seen.value().map(|value| keys(value).iter().map(|key| key.key.as_str()).collect())
    }
    let of_file = |file: &Option<Observed<ConfigFile>>| {
        file.as_ref().and_then(|file| ignored(file, |file| &file.ignored).map(|keys| keys.join(" ")))
    };
    if of_file(&agreed.config_file) != of_file(&other.config_file) {
        let error = unsettled("which keys of the configuration file they ignore".to_owned());
        agreed.config_file = Some(Observed::failed(error));
    }
    let of_environment = |resolved: &Resolved| {
        resolved
            .ignored_environment
            .as_ref()
            .and_then(|all| ignored(all, |keys| keys).map(|keys| keys.join(" ")))
    };
    if of_environment(agreed) != of_environment(other) {
        agreed.ignored_environment =
            Some(Observed::failed(unsettled("which variables they ignore".to_owned())));
    }
}

/// Returns the path of the configuration file that these inputs name.
fn config_file_path(arguments: &[Argument], variables: Option<&[Variable]>) -> Option<String> {
    let flags = flags::parse(arguments, None);
    let by_flag = flags.last("config-file").map(|flag| flag.value.clone()).filter(|path| !path.is_empty());
    by_flag.or_else(|| {
        let sources = Sources { flags: Parsed::default(), variables: variables?, version: None };
        sources.variable("config-file").map(|(path, _)| path)
    })
}

/// How many arguments or variables, and how many bytes of a configuration file, are read in several ways.
const MANY: usize = 1_000;
const LARGE: usize = 64 << 10;

fn resolve_all(inputs: Inputs<'_>) -> Resolved {
    let Inputs { arguments, environment, version, read } = inputs;
    let Parsed { given, mut fatal } = flags::parse(arguments, version);
    let mut sources = Sources { flags: Parsed { given, fatal: Vec::new() }, variables: &[], version };

    let variables = environment.clone();
    let ignored_environment = |file: Option<&str>| {
        let ignored = variables.map(|variables| environment::ignored(variables, version, file));
        Observed::from_result(ignored, Origin::derived("etcd's environment"))
    };
    // An empty --config-file is none, and then the variable counts.
    let by_flag = sources.flags.last("config-file").filter(|flag| !flag.value.is_empty());
    let by_flag = by_flag.map(|flag| (flag.value.clone(), flag.origin.clone()));
    let path = match (environment, by_flag) {
        (Ok(variables), by_flag) => {
            sources.variables = variables;
            by_flag.or_else(|| sources.variable("config-file").map(|(path, v)| (path, v.origin.clone())))
        }
        (Err(_), Some(by_flag)) => Some(by_flag),
        (Err(error), None) => {
            return Resolved {
                settings: Observed::failed(error),
                config_file: None,
                drop_ins: Vec::new(),
                ignored_environment: Some(ignored_environment(None)),
                fatal,
                doubt: None,
            };
        }
    };
    let Some((path, named_at)) = path else {
        fatal.extend(sources.conflicts());
        fatal.extend(sources.mistimed());
        let settings = sources.without_file();
        fatal.extend(faults::find(&settings, Some(&sources.flags), version));
        let origin = Origin::derived("etcd's arguments and environment");
        return Resolved {
            settings: Observed::seen(settings.into(), origin),
            config_file: None,
            drop_ins: Vec::new(),
            ignored_environment: Some(ignored_environment(None)),
            fatal,
            doubt: None,
        };
    };
    let ignored_environment = Some(ignored_environment(Some(&path)));
    match read(&path).and_then(|text| config_file::bind(&text, &path, version)) {
        Ok(bound) => {
            let (origin, file) = (bound.origin.clone(), bound.file.clone());
            fatal.extend(bound.fatal.iter().cloned());
            let settings = sources.with_file(bound, &path);
            fatal.extend(faults::find(&settings, None, version));
            Resolved {
                settings: Observed::seen(settings.into(), origin.clone()),
                config_file: Some(Observed::seen(file, origin)),
                drop_ins: Vec::new(),
                ignored_environment,
                fatal,
                doubt: None,
            }
        }
        Err(error) => {
            // What etcd itself would meet. What we may not read, or do not, it may well be able to.
            if matches!(error.kind, ErrorKind::Malformed | ErrorKind::NotFound) {
                let origin = error.origin.clone().unwrap_or(named_at);
                fatal.push(failure("config-file", error.message.clone(), &origin));
            }
            Resolved {
                settings: Observed::failed(error.clone()),
                config_file: Some(Observed::failed(error)),
                drop_ins: Vec::new(),
                ignored_environment,
                fatal,
                doubt: None,
            }
        }
    }
}

/// A value that decides a setting.
#[derive(Clone, Debug)]
struct Chosen {
    value: String,
    origin: Origin,
    why: String,
}

struct Sources<'a> {
    flags: Parsed,
    variables: &'a [Variable],
    version: Option<Version>,
}

impl Sources<'_> {
    /// Returns the variable for the flag `name` with its value, unless it is empty or not there.
    fn variable(&self, name: &str) -> Option<(String, &Variable)> {
        let variable = self.present(name)?;
        let value = String::from_utf8_lossy(&variable.value).into_owned();
        (!value.is_empty()).then_some((value, variable))
    }

    /// Returns the variable for the flag `name`, empty or not. Of several, Go sees the first.
    fn present(&self, name: &str) -> Option<&Variable> {
        let wanted = variable_name(name);
        self.variables.iter().find(|variable| variable.name == wanted)
    }

    /// Returns what flags and environment make etcd exit for: a flag and a variable of the same name, or a
    /// variable that is no boolean and should be one.
    fn conflicts(&self) -> Vec<PredictedFailure> {
        let mut fatal = Vec::new();
        let mut seen = BTreeSet::new();
        for variable in self.variables.iter().filter(|v| seen.insert(v.name.as_str())) {
            let Some(name) = variable.name.strip_prefix("ETCD_") else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            if variable_name(&name) != variable.name || !names::defines_flag(&name, self.version) {
                continue;
            }
            let value = String::from_utf8_lossy(&variable.value);
            if let Some(flag) = self.flags.last(&name) {
                let message = format!(
                    "conflicting environment variable {} is shadowed by the command-line flag at {}; \
                     etcd refuses to start with both, even when they are equal",
                    variable.name,
                    place(&flag.origin)
                );
                fatal.push(failure(&name, message, &variable.origin));
            } else if names::flag(&name) == Some(Flag::Boolean)
                && name != "version"
                && !value.is_empty()
                && parse_bool(&value).is_none()
            {
                let message = format!("invalid value for {}: it is not a boolean", variable.name);
                fatal.push(failure(&name, message, &variable.origin));
            } else if !value.is_empty()
                && let Some(message) = values::refusal(&name, &value, self.version)
            {
                fatal.push(failure(&name, message, &variable.origin));
            }
        }
        fatal
    }

    /// Returns why etcd would exit for the times between which members wait for each other, in milliseconds.
    fn mistimed(&self) -> Option<PredictedFailure> {
        let given = |name: &str| {
            let flag = self.flags.last(name).map(|flag| (flag.value.clone(), flag.origin.clone()));
            flag.or_else(|| self.variable(name).map(|(value, variable)| (value, variable.origin.clone())))
        };
        let time = |name: &str, default: u64| match given(name) {
            Some((value, origin)) => values::integer(&value).map(|time| (time, Some(origin))),
            None => Some((default, None)),
        };
        let ((heartbeat, of_heartbeat), (election, of_election)) =
            (time("heartbeat-interval", 100)?, time("election-timeout", 1000)?);
        let (name, origin) = match (of_election, of_heartbeat) {
            (Some(origin), _) => ("election-timeout", origin),
            (None, Some(origin)) => ("heartbeat-interval", origin),
            (None, None) => return None,
        };
        let message = if election > 50_000 {
            format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms")
        } else if heartbeat.saturating_mul(5) > election {
            format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            )
        } else {
            return None;
        };
        Some(failure(name, message, &origin))
    }

    /// Returns the settings when no configuration file is in use.
    fn without_file(&self) -> BTreeMap<String, Setting> {
        let mut drafts = BTreeMap::new();
        for name in SETTINGS {
            let mut draft = Draft::default();
            for flag in self.flags.named(name) {
                let at = place(&flag.origin);
                if names::flag(name) == Some(Flag::Boolean) && parse_bool(&flag.value).is_none() {
                    draft.lose(
                        &flag.value,
                        &flag.origin,
                        "it is not a boolean, so etcd refuses to start with it",
                    );
                    continue;
                }
                if is_url_list(name) && flag.value.is_empty() {
                    // An empty list of URLs leaves in place what was there before.
                    draft.lose(&flag.value, &flag.origin, "an empty list of URLs changes nothing");
                    draft.reasons.push(format!("the flag at {at} is empty, which changes nothing"));
                    continue;
                }
                if let Some(before) = draft.chosen.take() {
                    draft.lose(
                        &before.value,
                        &before.origin,
                        &format!("repeated at {at}, and the last one wins"),
                    );
                }
                let why = if flag.value.is_empty() { "set to nothing by flag" } else { "set by flag" };
                draft.chosen = Some(Chosen {
                    value: flag.value.clone(),
                    origin: flag.origin.clone(),
                    why: why.to_owned(),
                });
            }
            let flagged = self.flags.last(name).is_some();
            match (self.present(name), self.variable(name)) {
                (Some(variable), _) if flagged => {
                    let value = String::from_utf8_lossy(&variable.value);
                    draft.lose(
                        &value,
                        &variable.origin,
                        "the flag shadows it, for which etcd refuses to start",
                    );
                }
                (Some(variable), None) => {
                    draft.reasons.push(format!("the environment variable {} is empty", variable.name));
                }
                (_, Some((value, variable))) if !names::defines_flag(name, self.version) => {
                    let reason = format!("{} does not know it", Version::name(self.version));
                    draft.lose(&value, &variable.origin, &reason);
                }
                (_, Some((value, variable))) => {
                    if names::flag(name) == Some(Flag::Boolean) && parse_bool(&value).is_none() {
                        let reason = "it is not a boolean, so etcd refuses to start with it";
                        draft.lose(&value, &variable.origin, reason);
                    } else {
                        let why = format!("set by environment variable {}", variable.name);
                        draft.chosen = Some(Chosen { value, origin: variable.origin.clone(), why });
                    }
                }
                (None, None) => {}
            }
            if draft.chosen.is_none() && !names::defines_flag(name, self.version) {
                draft.reasons.push(format!("{} has no such setting", Version::name(self.version)));
            }
            drafts.insert(*name, draft);
        }
        // etcd drops its default as soon as clients are listened for elsewhere.
        let listen = "listen-client-urls";
        let listens = self.flags.last(listen).is_some() || self.variable(listen).is_some();
        finish(drafts, self.version, listens)
    }

    /// Returns the settings when the configuration file at `path` is in use.
    fn with_file(&self, mut bound: Bound, path: &str) -> BTreeMap<String, Setting> {
        let mut drafts = BTreeMap::new();
        for name in SETTINGS {
            let mut draft = Draft { chosen: bound.values.remove(name), ..Draft::default() };
            for lost in bound.lost.remove(name).unwrap_or_default() {
                draft.lost.push(lost);
            }
            for ignored in bound.ignored.iter().filter(|i| i.meant.contains(name)).take(2) {
                let key = &ignored.key;
                let line = match &key.origin {
                    Origin::File { line: Some(line), .. } => format!(" at line {line}"),
                    _ => String::new(),
                };
                let meant = key.suggestion.as_ref();
                let meant = meant.map_or_else(String::new, |s| format!("; {s} was probably meant"));
                draft.reasons.push(format!("the file says {}{line}, but {}{meant}", key.key, key.reason));
            }
            let reason =
                format!("the configuration file {path} is in use, so flags and environment are ignored");
            for flag in self.flags.named(name).collect::<Vec<_>>().into_iter().rev() {
                draft.lose(&flag.value, &flag.origin, &reason);
                let because = "is ignored because a configuration file is in use";
                draft.reasons.push(format!("the flag at {} {because}", place(&flag.origin)));
            }
            if let Some((value, variable)) = self.variable(name) {
                draft.lose(&value, &variable.origin, &reason);
                let because = "is ignored because a configuration file is in use";
                draft.reasons.push(format!("the environment variable {} {because}", variable.name));
            }
            drafts.insert(*name, draft);
        }
        finish(drafts, self.version, false)
    }
}

/// Most bytes of one value. The lists of a cluster with seven members have a few hundred.
const MAX_VALUE: usize = 16 << 10;
/// Most values of one setting that are kept although they lost.
const MAX_LOST: usize = 16;
/// Most reasons why etcd would not start; it exits for the first.
const MAX_FATAL: usize = 64;

/// Returns the error for settings of which one is longer than anything etcd could work with.
fn too_long(settings: &BTreeMap<String, Setting>) -> Option<EvidenceError> {
    let long = |setting: &Setting| {
        let lost = setting.overridden.iter().map(|c| c.value.len()).max();
        setting.value.len().max(setting.why.len()).max(lost.unwrap_or(0)) > MAX_VALUE
    };
    let (name, setting) = settings.iter().find(|(_, setting)| long(setting))?;
    let message =
        format!("{}: {name} has more than the {MAX_VALUE} bytes that are looked at", setting.origin);
    Some(EvidenceError::new(ErrorKind::TooLarge, message).at(setting.origin.clone()))
}

/// A setting in the making.
#[derive(Debug, Default)]
struct Draft {
    chosen: Option<Chosen>,
    lost: Vec<Candidate>,
    /// Why nothing was chosen.
    reasons: Vec<String>,
}

impl Draft {
    fn lose(&mut self, value: &str, origin: &Origin, reason: &str) {
        let candidate =
            Candidate { value: value.to_owned(), origin: origin.clone(), reason: reason.to_owned() };
        self.lost.truncate(MAX_LOST - 1);
        self.lost.insert(0, candidate);
    }
}

/// Completes drafts with the defaults, which depend on each other.
fn finish(
    drafts: BTreeMap<&'static str, Draft>,
    version: Option<Version>,
    no_client_default: bool,
) -> BTreeMap<String, Setting> {
    let value = |name: &str| drafts.get(name).and_then(|d| d.chosen.as_ref()).map(|c| c.value.as_str());
    let name = value("name").unwrap_or("default");
    let default = |setting: &str| match setting {
        "advertise-client-urls" if no_client_default => String::new(),
        "advertise-client-urls" | "listen-client-urls" => "http://localhost:2379".to_owned(),
        "data-dir" => format!("{name}.etcd"),
        "initial-advertise-peer-urls" | "listen-peer-urls" => "http://localhost:2380".to_owned(),
        "initial-cluster" if value("discovery-srv").is_some_and(|v| !v.is_empty()) => String::new(),
        // Only a name of its own makes etcd look at its own advertised URLs.
        "initial-cluster" if name == "default" => "default=http://localhost:2380".to_owned(),
        "initial-cluster" => {
            let urls = value("initial-advertise-peer-urls").unwrap_or("http://localhost:2380");
            urls.split(',').map(|url| format!("{name}={}", url.trim())).collect::<Vec<_>>().join(",")
        }
        "initial-cluster-state" => "new".to_owned(),
        "name" => "default".to_owned(),
        "self-signed-cert-validity" if names::defines_flag(setting, version) => "1".to_owned(),
        "tls-min-version" if names::defines_flag(setting, version) => "TLS1.2".to_owned(),
        _ => String::new(),
    };
    let defaults: BTreeMap<_, _> = drafts.keys().map(|name| (*name, default(name))).collect();
    let finished = drafts.into_iter().map(|(name, draft)| {
        let default = defaults.get(name).cloned().unwrap_or_default();
        (name.to_owned(), setting(name, draft, default, version))
    });
    finished.collect()
}

fn setting(name: &str, mut draft: Draft, default: String, version: Option<Version>) -> Setting {
    let boolean = names::flag(name) == Some(Flag::Boolean);
    if let Some(empty) = draft.chosen.take_if(|chosen| chosen.value.is_empty() && empty_is_default(name)) {
        draft.lose("", &empty.origin, "nothing stands for the default");
    }
    let (value, origin, why) = match draft.chosen {
        Some(Chosen { value, origin, why }) => (value, origin, why),
        None => {
            let mut why = "not set".to_owned();
            if !default.is_empty() {
                why.push_str(&format!(", so it is etcd's default {default}"));
            }
            for (index, reason) in draft.reasons.iter().take(3).enumerate() {
                why.push_str(if index == 0 { ": " } else { "; " });
                why.push_str(reason);
            }
            let version = version.and_then(Version::known);
            (default, Origin::Default { component: "etcd".to_owned(), version }, why)
        }
    };
    let on = boolean.then(|| parse_bool(&value).unwrap_or(false));
    let value = on.filter(|_| !value.is_empty()).map_or(value, |on| on.to_string());
    let clean = |text: String| without_userinfo(&text).into_owned();
    let lost = draft.lost.into_iter().map(|c| Candidate { value: clean(c.value), ..c });
    Setting {
        set: !value.is_empty(),
        value: clean(value),
        on,
        origin,
        why: clean(why),
        overridden: lost.collect(),
    }
}

/// Returns whether etcd takes an empty value for not set.
fn empty_is_default(name: &str) -> bool {
    matches!(name, "data-dir" | "initial-cluster-state" | "tls-min-version")
        || is_url_list(name) && name != "listen-metrics-urls" && name != "listen-client-http-urls"
}

fn is_url_list(name: &str) -> bool {
    name.ends_with("-urls")
}

/// Returns the environment variable for the flag `name`.
pub(crate) fn variable_name(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Returns a short name for `origin` within a sentence about its process.
fn place(origin: &Origin) -> String {
    match origin {
        Origin::Argv { index, .. } => format!("argv[{index}]"),
        other => other.to_string(),
    }
}

fn failure(setting: &str, message: impl Into<String>, origin: &Origin) -> PredictedFailure {
    PredictedFailure { setting: setting.to_owned(), message: message.into(), origin: origin.clone() }
}
