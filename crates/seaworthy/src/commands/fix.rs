//! `seaworthy fix`: plans, carries out, shows and takes back.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use seaworthy_collect::root::Root;
use seaworthy_remedy::apply::{Fix, Outcome, Progress};
use seaworthy_remedy::journal::{self, Record, Standing, State};
use seaworthy_remedy::lint::lint;
use seaworthy_remedy::node::{Node, NotObserved};
use seaworthy_remedy::plan::{Plan, Refusal};
use seaworthy_remedy::planner::{self, AuthorityFiles, Options};
use seaworthy_report::fix::{self, MemberStanding};
use seaworthy_report::plan;

use crate::cli;
use crate::exit::{Exit, UsageError};
use crate::output::{self, Format};

/// Where kubeadm keeps etcd's authority.
const KUBEADM_CA: [&str; 2] = ["/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.key"];
/// Most bytes of a file that is read.
const CAP: usize = 1 << 20;

pub(super) fn run(options: &cli::Fix) -> anyhow::Result<Exit> {
    let node = Node { root: options.root.clone(), timeout: options.timeout, member: options.member.clone() };
    if options.status {
        return status(options, &node);
    }
    if options.resume || options.rollback.is_some() {
        return go_on_or_back(options, &node);
    }
    let listed = || format!("the rules with a fix are {}", planner::RULES.join(", "));
    let rule = options.rule.as_deref().ok_or_else(|| UsageError::new("which rule?", listed()))?;
    if !planner::RULES.contains(&rule) {
        return Err(UsageError::new(format!("there is no fix for `{rule}`"), listed()).into());
    }
    let root = Root::host(&options.root)
        .map_err(|error| UsageError::new(error.to_string(), "give the folder that holds the host's root"))?;
    let wanted = wanted(options, &root)?;
    match options.apply {
        true => {
            apply(options, &node, rule, &|| self::wanted(options, &root).unwrap_or_else(|_| wanted.clone()))
        }
        false => show(options, &node, rule, &wanted),
    }
}

/// Prints the plan, and changes nothing.
fn show(options: &cli::Fix, node: &Node, rule: &str, wanted: &Options) -> anyhow::Result<Exit> {
    let (plan, refusals) = match planned(node, rule, wanted)? {
        Ok((plan, refusals)) => (Some(plan), refusals),
        Err(refusals) => (None, refusals),
    };
    output::print(&match options.format {
        Format::Json => plan::json(plan.as_ref(), &refusals),
        Format::Text => plan::text(plan.as_ref(), &refusals, output::width()),
    })?;
    Ok(match plan {
        Some(plan) if plan.steps.is_empty() => Exit::Clean,
        Some(plan) if refusals.is_empty() && plan.waits_for.is_empty() => Exit::Findings,
        _ => Exit::Incomplete,
    })
}

/// Returns the plan and what is against it, or why there is none.
#[expect(clippy::type_complexity, reason = "a plan with its objections, or objections alone")]
fn planned(
    node: &Node,
    rule: &str,
    wanted: &Options,
) -> Result<Result<(Plan, Vec<Refusal>), Vec<Refusal>>, UsageError> {
    let seen = match node.observe() {
        Ok(seen) => seen,
        Err(NotObserved::Refused(refusal)) => return Ok(Err(vec![refusal])),
        Err(error) => return Err(not_observed(&error)),
    };
    let situation = seen.situation(wanted);
    Ok(planner::plan(rule, &situation).map(|plan| {
        let refusals = lint(&plan, &situation);
        (plan, refusals)
    }))
}

/// Carries the plan out.
fn apply(options: &cli::Fix, node: &Node, rule: &str, wanted: &dyn Fn() -> Options) -> anyhow::Result<Exit> {
    let state = state(options)?;
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })?;
    // What is the operator's to correct is said before anything is waited for.
    if let Err(error @ NotObserved::Several(_)) = node.observe() {
        return Err(not_observed(&error).into());
    }
    let told = Cell::new(false);
    let tell = |progress: &Progress| tell(progress, &told);
    let fix = Fix {
        node,
        rule,
        options: wanted,
        state: &state,
        catalogue: &catalogue,
        wait: options.wait,
        settle: options.settle,
        tell: &tell,
    };
    let outcome = fix.apply()?;
    ended(options, rule, &outcome)?;
    Ok(match outcome {
        Outcome::Done { .. } => Exit::Clean,
        Outcome::NotProven { .. } => Exit::Findings,
        Outcome::RolledBack { .. } => Exit::RolledBack,
        Outcome::Stopped { .. } => Exit::Failure,
        _ => Exit::Incomplete,
    })
}

/// Finishes or takes back what is written down.
fn go_on_or_back(options: &cli::Fix, node: &Node) -> anyhow::Result<Exit> {
    let state = state(options)?;
    let record = match &options.rollback {
        None => state.current()?.ok_or_else(|| {
            UsageError::new("there is no fix that was begun and not ended", "see `seaworthy fix --status`")
        })?,
        Some(id) if id == "last" => {
            let mut records = records(&state)?.into_iter().rev();
            let standing = |record: &Record| record.standing() != Standing::RolledBack;
            records.find(standing).ok_or_else(|| {
                UsageError::new("there is no fix to take back", "see `seaworthy fix --status`")
            })?
        }
        Some(id) => state.read(id).map_err(|error| {
            UsageError::new(error.to_string(), "see `seaworthy fix --status` for the ids")
        })?,
    };
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })?;
    let rule = record.plan.get("rule").and_then(|rule| rule.as_str()).unwrap_or_default().to_owned();
    let member = record.plan.pointer("/state/member").and_then(|name| name.as_str()).map(str::to_owned);
    let node = Node { member: node.member.clone().or(member), ..node.clone() };
    let told = Cell::new(false);
    let tell = |progress: &Progress| tell(progress, &told);
    let unplanned = Options {
        authority: None,
        days: options.days,
        two_members_stop: options.two_members_stop,
        clients_are_ready: false,
    };
    let fix = Fix {
        node: &node,
        rule: &rule,
        options: &|| unplanned.clone(),
        state: &state,
        catalogue: &catalogue,
        wait: options.wait,
        settle: options.settle,
        tell: &tell,
    };
    let back = options.rollback.is_some();
    let outcome = if back { fix.roll_back(&record.id)? } else { fix.go_on(&record.id)? };
    ended(options, &rule, &outcome)?;
    Ok(match outcome {
        Outcome::Done { .. } => Exit::Clean,
        Outcome::RolledBack { .. } if back => Exit::Clean,
        Outcome::RolledBack { .. } => Exit::RolledBack,
        Outcome::Stopped { .. } => Exit::Failure,
        _ => Exit::Incomplete,
    })
}

/// Prints what is written down, and how far the members are.
fn status(options: &cli::Fix, node: &Node) -> anyhow::Result<Exit> {
    let records = records(&state(options)?)?;
    let members = node.observe().map_err(|error| error.to_string()).and_then(|seen| {
        let cluster = seen.etcd.cluster.as_result().map_err(|error| error.to_string())?;
        let standing = |m: &seaworthy_evidence::Member| MemberStanding {
            name: if m.name.is_empty() { m.id.clone() } else { m.name.clone() },
            peer_urls: m.peer_urls.iter().map(|url| url.text.clone()).collect(),
            note: seen.notes.get(&m.id).cloned(),
        };
        let mut members: Vec<_> = cluster.members.iter().map(standing).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    });
    let members = members.as_deref().map_err(String::as_str);
    output::print(&match options.format {
        Format::Json => fix::status_json(&records, members),
        Format::Text => fix::status_text(&records, members, output::width()),
    })?;
    Ok(Exit::Clean)
}

fn ended(options: &cli::Fix, rule: &str, outcome: &Outcome) -> anyhow::Result<()> {
    output::print(&match options.format {
        Format::Json => fix::outcome_json(rule, outcome),
        Format::Text => fix::outcome_text(rule, outcome, output::width()),
    })
}

/// Says what happens, on stderr: for a person who watches, and for the log of a script.
fn tell(progress: &Progress, told: &Cell<bool>) {
    anstream::eprint!("{}", fix::progress_text(progress, output::width()));
    if matches!(progress, Progress::Waiting { .. }) && !told.replace(true) && std::io::stderr().is_terminal()
    {
        let dim = anstyle::Style::new().dimmed();
        anstream::eprintln!("  {dim}it is safe to stop this with Ctrl-C, and to run it again{dim:#}");
    }
}

fn state(options: &cli::Fix) -> anyhow::Result<State> {
    let directory = options.state_dir.clone().unwrap_or_else(|| PathBuf::from(journal::DEFAULT_DIRECTORY));
    let below = directory.strip_prefix("/").unwrap_or(&directory);
    let state = State::open(&options.root.join(below))?;
    #[cfg(debug_assertions)]
    let state = state.with_hook(crate::failpoint::hook);
    Ok(state)
}

fn records(state: &State) -> anyhow::Result<Vec<Record>> {
    state.list()?.iter().map(|id| Ok(state.read(id)?)).collect()
}

fn not_observed(error: &NotObserved) -> UsageError {
    let help = match error {
        NotObserved::Several(_) => "name one with --member",
        _ => "give the folder that holds the root of the host with --root",
    };
    UsageError::new(error.to_string(), help)
}

/// Returns what the operator wants, after making sure that the files are there.
fn wanted(options: &cli::Fix, root: &Root) -> Result<Options, UsageError> {
    let given = options.ca_cert.clone().zip(options.ca_key.clone());
    let asked = given.is_some();
    let [certificate, key] = KUBEADM_CA.map(str::to_owned);
    let (certificate, key) = given.unwrap_or((certificate, key));
    for path in [&certificate, &key] {
        if !path.starts_with('/') {
            let help = "give an absolute path: the plan may be read elsewhere";
            return Err(UsageError::new(format!("{path} is not absolute"), help));
        }
    }
    let authority = if options.new_ca {
        // Once it is made, it is there.
        let pem = root.read(&certificate, CAP).ok();
        Some(AuthorityFiles { certificate, pem, key })
    } else {
        let pem = root.read(&certificate, CAP).and_then(|pem| root.open(&key).map(|_| pem));
        match pem {
            Ok(pem) => Some(AuthorityFiles { certificate, pem: Some(pem), key }),
            Err(error) if asked => {
                let help = "give the files of an authority, or --new-ca to plan a new one there";
                return Err(UsageError::new(error.to_string(), help));
            }
            Err(_) => None,
        }
    };
    Ok(Options {
        authority,
        days: options.days,
        two_members_stop: options.two_members_stop,
        clients_are_ready: false,
    })
}
