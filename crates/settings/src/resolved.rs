//! From what a component is given to its settings.

use seaworthy_evidence::{
    ConfigFile, ErrorKind, EvidenceError, IgnoredKey, Observed, PredictedFailure, Settings,
};

use crate::{Argument, ConfigText, Variable};

/// Everything that decides the settings of an instance.
pub struct Given<'a> {
    /// The command line after the program: `argv[1..]`.
    pub arguments: &'a [Argument],
    /// The environment, or why it is not known.
    pub environment: Result<&'a [Variable], EvidenceError>,
    /// The release, as far as it is known: `3.5.1`, `3.5`.
    pub release: Option<&'a str>,
    /// Whether a process runs with it. Then it has not refused to start, and defaults are those of its release.
    pub runs: bool,
    /// Reads the configuration file at a path as the process sees it (relative to its working directory).
    pub read: &'a mut dyn FnMut(&str) -> Result<ConfigText, EvidenceError>,
    /// Lists the files in and below a folder, which the process sees at a path, by their paths below it.
    pub list: &'a mut dyn FnMut(&str) -> Result<Vec<String>, EvidenceError>,
}

/// Lists nothing, for a component that reads no folder.
///
/// # Errors
///
/// Always.
pub fn no_list(path: &str) -> Result<Vec<String>, EvidenceError> {
    Err(EvidenceError::new(ErrorKind::Unsupported, format!("{path} is not listed")))
}

/// What a component makes of what it is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Every setting that a snapshot keeps, by flag name.
    pub settings: Observed<Settings>,
    /// The configuration file that is in use; `None` when there is none or it is not known whether there is.
    pub config_file: Option<Observed<ConfigFile>>,
    /// The paths of other configuration files that are merged with it, in the order in which they apply.
    pub drop_ins: Vec<String>,
    /// Variables that look like its own and that it does not know; those it knows and ignores are among the candidates of
    /// their setting. `None` where it reads no settings from its environment.
    pub ignored_environment: Option<Observed<Vec<IgnoredKey>>>,
    /// Why an instance that is started with these inputs would exit at once. For a process that runs, a sign that its inputs
    /// changed since, or that its release is not the one assumed.
    pub fatal: Vec<PredictedFailure>,
    /// Why there may be another reason to exit, although none is known; `None` where everything was understood.
    pub doubt: Option<EvidenceError>,
}
