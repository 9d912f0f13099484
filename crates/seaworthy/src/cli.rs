//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::{Format, Output};

const EXIT_CODES: &str = "\
Exit codes:
  0  clean
  1  a finding at or above --fail-on failed
  2  wrong usage: an option, a name or a file it names
  3  nothing failed, but evidence was missing (see --min-coverage)
  4  an operation failed";

const ALL_EXIT_CODES: &str = "\
Exit codes:
  0  clean, or done
  1  a finding failed, or a plan is needed
  2  wrong usage: an option, a name or a file it names
  3  evidence was missing, or a fix must wait
  4  an operation failed
  5  a fix failed, and was rolled back

What they mean of a command is in its own --help.";

const PROBE_EXIT_CODES: &str = "\
Exit codes:
  0  every target speaks TLS or HTTP
  2  wrong usage
  3  a target does not, or did not answer
  4  an operation failed";

const FIX_EXIT_CODES: &str = "\
Exit codes:
  0  nothing to do, or done and verified; with --rollback --apply: rolled back and verified
  1  a plan is needed, and can be carried out; with --apply: the rule does not pass all the same
  2  wrong usage
  3  it must wait, it is blocked, evidence is missing, or the run was interrupted where that is safe
  4  an operation failed, and could not be rolled back either
  5  something failed, and was rolled back

Examples:
  seaworthy fix 2.4                      what would be done here, and in which order
  seaworthy fix 2.4 --apply              do it, on every node of the cluster
  seaworthy fix --status                 what was done, and how to get out of what is not ended
  seaworthy fix --rollback               what would be undone of the last fix
  seaworthy fix --rollback ID --apply    undo it";

const CERTIFICATES_EXIT_CODES: &str = "\
Exit codes:
  0  done; with --within: no certificate ends within so many days
  1  with --within: one does, or has ended
  2  wrong usage: an option, a name or a file it names
  3  with --within: none that could be seen does, but not all could be seen
  4  an operation failed

Examples:
  seaworthy certificates                 all of this node, the first to end first
  seaworthy certificates -v              with names, files, usages and fingerprints
  seaworthy certificates --within 30     what has to be renewed this month; exit code 1 if anything has
  seaworthy certificates -f json         for a script";

const PLAIN_EXIT_CODES: &str = "\
Exit codes:
  0  done
  2  wrong usage: an option, a name or a file it names
  4  an operation failed";

/// Proves whether etcd is configured securely, from the declared file to the wire
///
/// Seaworthy ties the declared file, the running process, its effective settings and what it says on the wire
/// together, and shows where each fact comes from. Auditing starts no process, changes nothing, and lets no secret out.
#[derive(Debug, Parser)]
#[command(version, after_help = ALL_EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    /// When to use colour; NO_COLOR is honoured
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Makes it the choice for everything that is printed from now on.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Audit this node, or snapshots of nodes
    ///
    /// Looks at the components that run on this node (etcd, kube-controller-manager, kube-scheduler), judges them by the catalogue,
    /// and reports what failed with the evidence. Run it as root on a control-plane node; what it may not read is reported as unknown, never as passed.
    #[command(after_help = EXIT_CODES)]
    Audit(Audit),
    /// Take a snapshot of this node: all evidence as one JSON document, without secrets
    #[command(after_help = PLAIN_EXIT_CODES)]
    Snapshot(Snapshot),
    /// List every certificate of this node by its end: who uses it, who issued it, and what is wrong with it
    ///
    /// Finds what lies in the folders of certificates and keys, what a setting of any component or a kubeconfig names or embeds
    /// (also those of administrators), and what the node's listeners serve, whoever made it. CAs are listed as well. It needs no API
    /// server, changes nothing, and starts no program. Run it as root: what it may not read is listed as such.
    #[command(after_help = CERTIFICATES_EXIT_CODES)]
    Certificates(Certificates),
    /// Explain a rule, by its id or by a control number such as 2.4; a section such as 2 lists its controls
    #[command(after_help = PLAIN_EXIT_CODES)]
    Explain {
        /// Rule id (`seaworthy list`), or the number of a control or section
        #[arg(value_name = "RULE|NUMBER")]
        name: String,
        #[command(flatten)]
        catalogue: CatalogueDir,
    },
    /// List the rules and benchmarks
    #[command(after_help = PLAIN_EXIT_CODES)]
    List {
        /// List the controls of this benchmark instead
        #[arg(short, long, value_name = "BENCHMARK")]
        benchmark: Option<String>,
        #[command(flatten)]
        catalogue: CatalogueDir,
    },
    /// Ask listeners what they speak: plaintext or TLS, versions, cipher suites, client certificates
    ///
    /// Sends plaintext GET requests and TLS handshakes, nothing that could change anything. Give only targets that you
    /// may probe: each attempt leaves a line in the log of the server.
    #[command(after_help = PROBE_EXIT_CODES)]
    Probe(Probe),
    /// Make a rule pass on this node: print the plan, carry it out, verify it, or roll it back
    ///
    /// Without --apply the plan is printed and nothing is changed: the steps, the diffs, what must hold before each, what is
    /// verified after it, and what undoes it. With --apply it is carried out, one step at a time, each written down before
    /// and after; what fails is rolled back. Run it as root on every node of the cluster, at once or one after the other:
    /// the members take turns under a lock in etcd, and wait for each other. A run that was killed is finished by the next;
    /// Ctrl-C ends one at the next safe boundary, a second Ctrl-C at once, which is safe too.
    #[command(after_help = FIX_EXIT_CODES)]
    Fix(Fix),
    /// Work with catalogues of rules
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// Print a completion script for a shell
    ///
    /// For example: seaworthy completions bash > /etc/bash_completion.d/seaworthy
    #[command(after_help = PLAIN_EXIT_CODES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of seaworthy or of one of its commands
    ///
    /// For example: seaworthy man audit | man -l -
    #[command(after_help = PLAIN_EXIT_CODES)]
    Man {
        /// The command, such as `audit` or `catalogue check`; seaworthy itself without one
        command: Vec<String>,
    },
}

/// A catalogue beside the embedded one.
#[derive(Debug, Args)]
pub(crate) struct CatalogueDir {
    /// Add the rules and benchmarks of this folder; a rule of the same name replaces the embedded one
    #[arg(long = "catalogue", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// How a node is looked at.
#[derive(Clone, Debug, Args)]
pub(crate) struct Collection {
    /// Read the host's files below this folder (when running in a container: the mount of the host's /)
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The distribution that arranged the node, where its files do not tell
    #[arg(long, value_name = "LAYOUT", value_parser = layouts())]
    pub(crate) layout: Option<String>,
    /// Do not connect to the node's listeners
    #[arg(long)]
    pub(crate) no_wire: bool,
    /// Watch the peer ports for so long, to tell TLS from plaintext in established connections; needs CAP_NET_RAW
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) observe: Option<Duration>,
    /// How long a listener may take to answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) collection: Collection,
    /// Report on the controls of this benchmark (`seaworthy list`); a prefix takes the newest: cis-kubernetes
    #[arg(short, long, value_name = "BENCHMARK")]
    pub(crate) benchmark: Option<String>,
    /// Judge only these rules: ids or control numbers, * matches anything; repeatable
    #[arg(short, long = "rule", value_name = "GLOB", value_delimiter = ',')]
    pub(crate) rules: Vec<String>,
    /// Audit this snapshot instead of the node; repeatable
    #[arg(long = "snapshot", value_name = "FILE", conflicts_with_all = ["root", "layout", "no_wire", "observe", "timeout"])]
    pub(crate) snapshots: Vec<PathBuf>,
    /// Output format, text or json, with a file to write it to; repeatable
    #[arg(short, long = "format", value_name = "FORMAT[=PATH]", default_value = "text")]
    pub(crate) formats: Vec<Output>,
    /// Exit with 1 only when a finding of at least this severity failed
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Severity::Low)]
    pub(crate) fail_on: Severity,
    /// Exit with 3 when less than this share of what applies could be judged: findings, or controls of the benchmark
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0, value_parser = percent)]
    pub(crate) min_coverage: f64,
    /// Count what passes while a second witness, such as the wire, was silent as not judged
    #[arg(long)]
    pub(crate) require_corroboration: bool,
    /// Reviewed exceptions: a YAML file, for example: {waivers: [{rule: etcd-peer-tls, reason: lab only, owner: jo, expires: 2027-01-31}]}
    ///
    /// `rule` is a rule or a control, `resource` (every one without it) what a finding is about; in both, * matches
    /// anything. On snapshots that were taken after the day in `expires` (UTC) it does not count.
    #[arg(long, value_name = "FILE")]
    pub(crate) waivers: Option<PathBuf>,
    /// List what passed, too, with its evidence
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) catalogue: CatalogueDir,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) collection: Collection,
    /// Write it to this file (readable by its owner only) instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Certificates {
    #[command(flatten)]
    pub(crate) collection: Collection,
    /// List those of this snapshot instead of the node
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "no_wire", "observe", "timeout"])]
    pub(crate) snapshot: Option<PathBuf>,
    /// List only those that end within so many days, and exit with 1 if there are any
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=36500))]
    pub(crate) within: Option<u32>,
    /// Show all that is known of each: names, files, usages, settings, fingerprint
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Output format: text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fix {
    /// The rule, or the control it judges, such as 2.4 (`seaworthy fix` without one lists the rules with a fix)
    #[arg(value_name = "RULE|NUMBER")]
    pub(crate) rule: Option<String>,
    /// Carry the plan out, verify it, and roll it back if it fails; with --rollback, carry the rollback out
    #[arg(long, conflicts_with_all = ["status", "resume", "forget", "sign"])]
    pub(crate) apply: bool,
    /// Show the fixes of this node, whether each can be rolled back, how to get out of those that are not ended, and how far
    /// each member is
    #[arg(long, group = "mode")]
    pub(crate) status: bool,
    /// Finish the fix or rollback that was begun and not ended; the last one without an id
    #[arg(long, group = "mode", value_name = "ID", num_args = 0..=1, default_missing_value = "last")]
    pub(crate) resume: Option<String>,
    /// Show the plan that rolls a fix back, and first the later ones of its rule; the last one without an id
    ///
    /// What the fix changed goes back, and what others changed since stays; where that is impossible, nothing is changed.
    /// --apply carries it out.
    #[arg(long, group = "mode", value_name = "ID", num_args = 0..=1, default_missing_value = "last")]
    pub(crate) rollback: Option<String>,
    /// Close the record of a fix, which is then neither finished nor rolled back; a damaged record is set aside
    #[arg(long, group = "mode", value_name = "ID")]
    pub(crate) forget: Option<String>,
    /// How long to wait for other members
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub(crate) wait: Duration,
    /// How long this member may take to restart, and to be connected and healthy again
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "180")]
    pub(crate) settle: Duration,
    /// Where fixes are written down, below --root [default: /var/lib/seaworthy]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Certificate of the authority that issues this member's certificate, or is to be trusted [default: kubeadm's etcd CA]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<String>,
    /// Private key of that authority; it is not read for a plan
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub(crate) ca_key: Option<String>,
    /// Make a new authority in these files unless it is there, for members only; every member must get the same one
    #[arg(long, requires = "ca_key")]
    pub(crate) new_ca: bool,
    /// Use this certificate for peers instead of issuing one; it is checked first
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["new_ca", "request"])]
    pub(crate) cert: Option<String>,
    /// The key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<String>,
    /// The authority's key is on another node: make a key here, and a request for its certificate
    #[arg(long, conflicts_with = "new_ca")]
    pub(crate) request: bool,
    /// Sign the request of another member with the authority's key on this node, and print the certificate
    #[arg(long, group = "mode", value_name = "FILE", requires = "rule")]
    pub(crate) sign: Option<PathBuf>,
    /// Days that an issued certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(2..=3650))]
    pub(crate) days: u32,
    /// The component, where the rule is about several: etcd, kube-scheduler, … [default: the one for which it fails]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// The member of etcd, when several run on this node
    #[arg(long, value_name = "NAME")]
    pub(crate) member: Option<String>,
    /// Accept that a cluster of two stops while one of them restarts, and for good if it does not come back
    #[arg(long)]
    pub(crate) two_members_stop: bool,
    /// State that clients of which nothing is known from this node use TLS, with certificates that etcd accepts
    #[arg(long)]
    pub(crate) clients_are_ready: bool,
    /// Read the host's files below this folder (when running in a container: the mount of the host's /)
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// How long a listener or a member may take to answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub(crate) timeout: Duration,
    /// Output format: text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Addresses or names with a port, or unix:PATH
    #[arg(value_name = "HOST:PORT", required = true)]
    pub(crate) targets: Vec<String>,
    /// Output format: text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
    /// How long a listener may take to answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Catalogue {
    /// Check a catalogue: its documents, expressions, fixtures and benchmarks
    #[command(after_help = PLAIN_EXIT_CODES)]
    Check {
        /// The folder with rules/ and benchmarks/
        dir: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl From<Severity> for seaworthy_catalogue::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Low => Self::Low,
            Severity::Medium => Self::Medium,
            Severity::High => Self::High,
            Severity::Critical => Self::Critical,
        }
    }
}

fn layouts() -> PossibleValuesParser {
    PossibleValuesParser::new(seaworthy_layouts::ALL.iter().map(|layout| layout.name))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.parse().map_err(|_| "give a number of seconds, for example 2 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration > Duration::ZERO && duration <= Duration::from_secs(3600) => Ok(duration),
        _ => Err("give more than 0 and at most 3600 seconds".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let range = 0.0..=100.0;
    text.parse().ok().filter(|p| range.contains(p)).ok_or_else(|| "give a number from 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
