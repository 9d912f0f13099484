//! `seaworthy fix`: plans, carries out, shows and takes back.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;
use seaworthy_collect::root::Root;
use seaworthy_journal::record::{self as journal, Record, Standing, State};
use seaworthy_remedy::apply::{Fix, Outcome, Progress};
use seaworthy_remedy::issue::Authority;
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
/// Rules whose fix trusts an authority, and issues no certificate.
const WITHOUT_KEY: [&str; 1] = ["etcd-peer-authentication"];
/// The rule whose fix meets members with self-made certificates at their client ports.
const SELF_MADE: &str = "etcd-client-auto-tls";
/// Most bytes of a file that is read.
const CAP: usize = 1 << 20;

pub(super) fn run(options: &cli::Fix) -> anyhow::Result<Exit> {
    let node = Node {
        root: options.root.clone(),
        timeout: options.timeout,
        member: options.member.clone(),
        self_made: false,
    };
    if options.status {
        return status(options, &node);
    }
    if options.resume || options.rollback.is_some() {
        return go_on_or_back(options, &node);
    }
    let listed = || format!("the rules with a fix are {}", planner::RULES.join(", "));
    let named = options.rule.as_deref().ok_or_else(|| UsageError::new("which rule?", listed()))?;
    let rule = &rule_with_fix(named, listed)?;
    let node = Node { self_made: rule == SELF_MADE, ..node };
    let root = Root::host(&options.root)
        .map_err(|error| UsageError::new(error.to_string(), "give the folder that holds the host's root"))?;
    let wanted = wanted(options, &node, &root, rule)?;
    if let Some(request) = &options.sign {
        return sign(options, &node, &wanted, request);
    }
    let again = || self::wanted(options, &node, &root, rule).unwrap_or_else(|_| wanted.clone());
    match options.apply {
        true => apply(options, &node, rule, &again),
        false => show(options, &node, rule, &wanted),
    }
}

/// Returns the rule with a fix that the operator names, by its id or by the number of a control.
fn rule_with_fix(named: &str, listed: impl Fn() -> String) -> anyhow::Result<String> {
    if planner::RULES.contains(&named) {
        return Ok(named.to_owned());
    }
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })?;
    let judging = catalogue.control(named).into_iter().flat_map(|(_, control)| control.rules());
    let found: Vec<&str> = judging.filter(|rule| planner::RULES.contains(rule)).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] if catalogue.rules.contains_key(named) || catalogue.control(named).is_some() => {
            Err(UsageError::new(format!("there is no fix for `{named}`"), listed()).into())
        }
        [] => Err(UsageError::new(format!("there is no rule and no control `{named}`"), listed()).into()),
        several => {
            let message = format!("several rules judge {named}: {}", several.join(", "));
            Err(UsageError::new(message, "name one of them").into())
        }
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
        catalogue,
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
    if !directory(options).exists() {
        let message = format!("{} is not there: no fix was begun on this node", directory(options).display());
        return Err(UsageError::new(message, "see `seaworthy fix` for the rules with a fix").into());
    }
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
    let node = Node { member: node.member.clone().or(member), self_made: rule == SELF_MADE, ..node.clone() };
    let told = Cell::new(false);
    let tell = |progress: &Progress| tell(progress, &told);
    let unplanned =
        Options { days: options.days, two_members_stop: options.two_members_stop, ..Options::default() };
    let fix = Fix {
        node: &node,
        rule: &rule,
        options: &|| unplanned.clone(),
        state: &state,
        catalogue,
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
    // Not by a macro that panics when nobody reads: a turn does not end in the middle because a terminal was closed.
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{}", fix::progress_text(progress, output::width()));
    if matches!(progress, Progress::Waiting { .. }) && !told.replace(true) && std::io::stderr().is_terminal()
    {
        let dim = anstyle::Style::new().dimmed();
        let _ = writeln!(stderr, "  {dim}it is safe to stop this with Ctrl-C, and to run it again{dim:#}");
    }
}

/// Returns where fixes are written down.
fn directory(options: &cli::Fix) -> PathBuf {
    let directory = options.state_dir.clone().unwrap_or_else(|| PathBuf::from(journal::DEFAULT_DIRECTORY));
    options.root.join(directory.strip_prefix("/").unwrap_or(&directory))
}

fn state(options: &cli::Fix) -> anyhow::Result<State> {
    let state = State::open(&directory(options))?;
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
fn wanted(options: &cli::Fix, node: &Node, root: &Root, rule: &str) -> Result<Options, UsageError> {
    let wrong = |message: String, help: &str| Err(UsageError::new(message, help));
    let given = [&options.ca_cert, &options.ca_key, &options.cert, &options.key];
    if let Some(path) = given.into_iter().flatten().find(|path| !path.starts_with('/')) {
        return wrong(
            format!("{path} is not absolute"),
            "give an absolute path: the plan may be read elsewhere",
        );
    }
    let [certificate, key] = KUBEADM_CA.map(str::to_owned);
    let (certificate, key) = match (&options.ca_cert, &options.ca_key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        (Some(certificate), None) => (certificate.clone(), String::new()),
        (None, _) => (certificate, key),
    };
    let pem = root.read(&certificate, CAP);
    // Who only trusts the authority, or asks it for a certificate, does without its key.
    let issues = !options.request && options.cert.is_none() && !WITHOUT_KEY.contains(&rule);
    let there = !issues || !key.is_empty() && root.open(&key).is_ok();
    let authority = match pem {
        Ok(pem) if there => Some(AuthorityFiles { certificate, pem: Some(pem), key }),
        // Once it is made, it is there.
        Err(_) if options.new_ca => Some(AuthorityFiles { certificate, pem: None, key }),
        Ok(_) if options.ca_cert.is_some() && key.is_empty() => {
            return wrong(
                "a certificate is to be issued".to_owned(),
                "give the authority's key with --ca-key",
            );
        }
        Ok(_) if options.ca_cert.is_some() => {
            return wrong(format!("{key} cannot be opened"), "give the key of the authority");
        }
        Err(error) if options.ca_cert.is_some() => {
            let help = "give the files of an authority, or --new-ca to make a new one there";
            return wrong(error.to_string(), help);
        }
        _ => None,
    };
    let supplied = match options.cert.as_ref().zip(options.key.as_ref()) {
        None => None,
        Some((certificate, key)) => match node.supplied(certificate, key) {
            Ok(supplied) => Some(supplied),
            Err(error) => return wrong(error, "give a certificate and its key, both PEM"),
        },
    };
    Ok(Options {
        authority,
        request: options.request,
        supplied,
        days: options.days,
        two_members_stop: options.two_members_stop,
        clients_are_ready: options.clients_are_ready,
    })
}

/// Signs the request of another member.
fn sign(
    options: &cli::Fix,
    node: &Node,
    wanted: &Options,
    request: &std::path::Path,
) -> anyhow::Result<Exit> {
    let authority = wanted.authority.as_ref().ok_or_else(|| {
        UsageError::new(
            "there is no authority with its key on this node",
            "name one with --ca-cert and --ca-key",
        )
    })?;
    let bytes = std::fs::read(request)
        .map_err(|error| UsageError::new(format!("{}: {error}", request.display()), "give the request"))?;
    let root = Root::host(&options.root)?;
    let key = zeroize::Zeroizing::new(root.read(&authority.key, CAP)?);
    let issuer = Authority::load(authority.pem.as_deref().unwrap_or_default(), &key, Timestamp::now())?;
    let seen = node.observe().map_err(|error| not_observed(&error))?;
    match planner::sign(&bytes, &issuer, &seen.situation(wanted)) {
        Ok(signed) => {
            anstream::eprintln!("a certificate for {}: {}", signed.member, signed.hosts.join(", "));
            output::print(&signed.pem)?;
            Ok(Exit::Clean)
        }
        Err(refusal) => {
            output::print(&plan::text(None, &[refusal], output::width()))?;
            Ok(Exit::Incomplete)
        }
    }
}
