//! `seaworthy fix`: plans, carries out, rolls back, and shows what was done.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;
use seaworthy_catalogue::{Catalogue, Rule, Status as Verdict};
use seaworthy_host::root::Root;
use seaworthy_journal::files;
use seaworthy_journal::record::{self, State};
use seaworthy_remedy::executor::{Executor, Outcome, Progress, RollbackPlan, obstacles};
use seaworthy_remedy::fixes::{self, Task};
use seaworthy_remedy::history::{Fix, History, Status};
use seaworthy_remedy::input::{AuthorityFiles, Options};
use seaworthy_remedy::issue::Authority;
use seaworthy_remedy::manual;
use seaworthy_remedy::node::{Live, Node};
use seaworthy_remedy::plan::{Plan, Refusal};
use seaworthy_remedy::preflight::preflight;
use seaworthy_remedy::world::NotObserved;
use seaworthy_report::fix::{self, FixStanding, MemberStanding, Standing, WayOut};
use seaworthy_report::plan;

use crate::cli;
use crate::exit::{Exit, UsageError};
use crate::output::{self, Format};
use crate::protection;

/// Where kubeadm keeps etcd's authority.
const KUBEADM_CA: [&str; 2] = ["/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.key"];
/// The component that is meant where nothing says which.
const ETCD: &str = "etcd";
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
        component: options.component.clone().unwrap_or_else(|| ETCD.to_owned()),
        member: options.member.clone(),
        self_made: false,
    };
    if options.status {
        return status(options, &node);
    }
    if let Some(id) = &options.forget {
        return forget(options, &node, id);
    }
    if let Some(id) = &options.resume {
        return resume(options, &node, id);
    }
    if let Some(id) = &options.rollback {
        return rollback(options, &node, id);
    }
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })?;
    let rule = rule_with_fix(catalogue, options.rule.as_deref())?;
    let component = component(options, &node, catalogue, rule)?;
    // What is printed is to be run again as it stands.
    let several = rule.subject.components().count() > 1;
    let options = &cli::Fix { component: several.then(|| component.clone()), ..options.clone() };
    let node = Node { self_made: rule.id == SELF_MADE, component, ..node };
    let rule = rule.id.as_str();
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

/// Returns the command that was run, with the options that matter when it is run again; `about` is the rule, or what is
/// rolled back.
fn command(options: &cli::Fix, about: &str) -> String {
    let mut command = format!("seaworthy fix {about}");
    let texts = [
        ("--ca-cert", &options.ca_cert),
        ("--ca-key", &options.ca_key),
        ("--cert", &options.cert),
        ("--key", &options.key),
        ("--member", &options.member),
        ("--component", &options.component),
    ];
    for (name, value) in texts {
        command.extend(value.iter().map(|value| format!(" {name} {value}")));
    }
    let switches = [
        ("--new-ca", options.new_ca),
        ("--request", options.request),
        ("--two-members-stop", options.two_members_stop),
        ("--clients-are-ready", options.clients_are_ready),
    ];
    command.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| format!(" {name}")));
    if options.root.as_os_str() != "/" {
        command += &format!(" --root {}", options.root.display());
    }
    command.extend(options.state_dir.iter().map(|directory| format!(" --state-dir {}", directory.display())));
    command
}

/// Returns the rule with a fix that the operator names, by its id or by the number of a control.
fn rule_with_fix<'c>(catalogue: &'c Catalogue, named: Option<&str>) -> Result<&'c Rule, UsageError> {
    let fixable = |rule: &&Rule| rule.fix.is_some();
    let listed = || {
        let rules: Vec<&str> =
            catalogue.rules.values().filter(fixable).map(|rule| rule.id.as_str()).collect();
        format!("the rules with a fix are {}", rules.join(", "))
    };
    let named = named.ok_or_else(|| UsageError::new("which rule?", listed()))?;
    if let Some(rule) = catalogue.rules.get(named).filter(fixable) {
        return Ok(rule);
    }
    let judging = catalogue.control(named).into_iter().flat_map(|(_, control)| control.rules());
    let found: Vec<&Rule> = judging.filter_map(|rule| catalogue.rules.get(rule)).filter(fixable).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] if catalogue.rules.contains_key(named) || catalogue.control(named).is_some() => {
            Err(UsageError::new(format!("there is no fix for `{named}`"), listed()))
        }
        [] => Err(UsageError::new(format!("there is no rule and no control `{named}`"), listed())),
        several => {
            let ids: Vec<&str> = several.iter().map(|rule| rule.id.as_str()).collect();
            let message = format!("several rules judge {named}: {}", ids.join(", "));
            Err(UsageError::new(message, "name one of them"))
        }
    }
}

/// Returns the component that the operator means: the one that is named, by itself or by the number of its control, or the one of
/// those on the node for which the rule fails.
fn component(
    options: &cli::Fix,
    node: &Node,
    catalogue: &Catalogue,
    rule: &Rule,
) -> Result<String, UsageError> {
    let fixable = |name: &&str| rule.fix.as_ref().is_some_and(|fix| fix.is_for(name));
    let all: Vec<&str> = rule.subject.components().map(|component| component.name).filter(fixable).collect();
    let listed = |names: &[&str]| format!("name one with --component: {}", names.join(", "));
    if let Some(named) = &options.component {
        return match all.contains(&named.as_str()) {
            true => Ok(named.clone()),
            false => {
                let message = format!("there is no fix of {} for `{named}`", rule.id);
                Err(UsageError::new(message, listed(&all)))
            }
        };
    }
    let of_control = options.rule.as_deref().and_then(|named| catalogue.control(named));
    let of_control = of_control.and_then(|(_, control)| control.component_of(&rule.id));
    if let Some(one) = of_control.or_else(|| all.first().copied().filter(|_| all.len() == 1)) {
        return Ok(one.to_owned());
    }
    let snapshot = node.survey(true, seaworthy_collect::PATIENCE).map_err(|error| not_observed(&error))?;
    let audit = seaworthy_audit::Options { rules: vec![rule.id.clone()], ..Default::default() };
    let report = seaworthy_audit::audit(catalogue, &snapshot, &audit);
    let of = |verdict: fn(Verdict) -> bool| -> Vec<&str> {
        let judged = |name: &&str| report.findings.iter().any(|f| f.component == **name && verdict(f.status));
        all.iter().copied().filter(judged).collect()
    };
    let failing = of(|verdict| verdict == Verdict::Fail);
    match (failing.as_slice(), of(|verdict| verdict != Verdict::NotApplicable).first(), all.first()) {
        ([one], ..) | ([], Some(one), _) | ([], None, Some(one)) => Ok((*one).to_owned()),
        (several, ..) => {
            let message = format!("{} fails for several components of this node", rule.id);
            Err(UsageError::new(message, listed(several)))
        }
    }
}

/// Prints the plan, and changes nothing.
fn show(options: &cli::Fix, node: &Node, rule: &str, wanted: &Options) -> anyhow::Result<Exit> {
    let (plan, refusals) = match planned(node, rule, wanted)? {
        Ok((plan, refusals)) => (Some(plan), refusals),
        Err(refusals) => (None, refusals),
    };
    shown(options, plan.as_ref(), &refusals, &command(options, rule))
}

/// Prints a plan, or why there is none.
fn shown(
    options: &cli::Fix,
    plan: Option<&Plan>,
    refusals: &[Refusal],
    command: &str,
) -> anyhow::Result<Exit> {
    output::print(&match options.format {
        Format::Json => plan::json(plan, refusals),
        Format::Text => plan::text(plan, refusals, command, output::width()),
    })?;
    Ok(match plan {
        Some(plan) if plan.steps.is_empty() => Exit::Clean,
        Some(plan) if refusals.is_empty() && plan.waits_for.is_empty() => Exit::Findings,
        _ => Exit::Incomplete,
    })
}

/// Returns the plan and why it must not be carried out, or why there is none.
#[expect(clippy::type_complexity, reason = "a plan with its refusals, or refusals alone")]
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
    let input = seen.input(wanted);
    let root = files::Root::open(&node.root)
        .map_err(|error| UsageError::new(error.to_string(), "give the folder that holds the host's root"))?;
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })
        .map_err(|error| UsageError::new(error.to_string(), "build seaworthy again"))?;
    Ok(fixes::plan(Task::of(catalogue, rule, &node.component), &input).map(|plan| {
        let mut refusals = preflight(&plan, &input);
        refusals.extend(obstacles(&root, &plan));
        (plan, refusals)
    }))
}

/// Carries the plan out.
fn apply(options: &cli::Fix, node: &Node, rule: &str, wanted: &dyn Fn() -> Options) -> anyhow::Result<Exit> {
    // What is the operator's to correct is said before anything is waited for.
    if let Err(error @ NotObserved::Several(_)) = node.observe() {
        return Err(not_observed(&error).into());
    }
    protection::catch_interrupts();
    let outcome = execute(options, node, rule, wanted, |executor| executor.apply())?;
    ended(options, rule, &outcome, &command(options, rule))?;
    Ok(exit(&outcome, Exit::RolledBack))
}

/// Finishes what was begun and not ended.
fn resume(options: &cli::Fix, node: &Node, id: &str) -> anyhow::Result<Exit> {
    let history = recorded(options)?;
    let fix = match id {
        "last" => history.pending().next().ok_or_else(|| {
            UsageError::new("there is no fix that was begun and not ended", "see `seaworthy fix --status`")
        })?,
        id => known(&history, id)?,
    };
    let node = of_fix(node, fix);
    protection::catch_interrupts();
    let outcome =
        execute(options, &node, fix.rule(), &|| unplanned(options), |executor| executor.resume(fix.id()))?;
    ended(options, fix.rule(), &outcome, &command(options, &format!("--resume {}", fix.id())))?;
    Ok(exit(&outcome, Exit::RolledBack))
}

/// Shows the plan that rolls a fix back, or carries it out.
fn rollback(options: &cli::Fix, node: &Node, id: &str) -> anyhow::Result<Exit> {
    let history = recorded(options)?;
    let fix = match id {
        "last" => history
            .standing()
            .next_back()
            .ok_or_else(|| UsageError::new("there is no fix to roll back", "see `seaworthy fix --status`"))?,
        id => known(&history, id)?,
    };
    if let (Some(named), rule) = (&options.rule, fix.rule())
        && named != rule
    {
        let message = format!("fix {} is of {rule}, not of {named}", fix.id());
        return Err(UsageError::new(message, "leave the rule out: the id says which fix it is").into());
    }
    let fix = match &fix.plan.rollback_of {
        Some(undone) => {
            let message = format!("{} is the rollback of fix {undone}, and no fix by itself", fix.id());
            return Err(UsageError::new(message, "to make the change again, run the fix again").into());
        }
        None => fix,
    };
    let node = of_fix(node, fix);
    let command = command(options, &format!("--rollback {}", fix.id()));
    if !options.apply {
        if matches!(history.status(fix), Status::RolledBack | Status::Closed) {
            let outcome = Outcome::RolledBack { id: fix.id().to_owned(), why: over(history.status(fix)) };
            ended(options, fix.rule(), &outcome, &command)?;
            return Ok(Exit::Clean);
        }
        let mut planned = execute(options, &node, fix.rule(), &|| unplanned(options), |executor| {
            executor.rollback_plans(&[fix.id()])
        })?;
        let (plan, refusals, then) = planned.pop().unwrap_or_default();
        let exit = shown(options, plan.as_ref(), &refusals, &command)?;
        if !then.is_empty() && options.format == Format::Text {
            output::print(&format!("\nAfter that, planned anew each: fix {}\n", then.join(", then fix ")))?;
        }
        return Ok(exit);
    }
    protection::catch_interrupts();
    let outcome =
        execute(options, &node, fix.rule(), &|| unplanned(options), |executor| executor.roll_back(fix.id()))?;
    ended(options, fix.rule(), &outcome, &command)?;
    let is_wanted = matches!(&outcome, Outcome::RolledBack { id, .. } if id == fix.id());
    Ok(exit(&outcome, if is_wanted { Exit::Clean } else { Exit::RolledBack }))
}

fn over(status: Status) -> String {
    match status {
        Status::Closed => "its record is closed".to_owned(),
        _ => "it was rolled back before".to_owned(),
    }
}

/// Closes the record of a fix, after saying what that means.
fn forget(options: &cli::Fix, node: &Node, id: &str) -> anyhow::Result<Exit> {
    let history = recorded(options)?;
    let damaged = history.damaged().iter().any(|damaged| damaged.id == id);
    let (rule, node) = match history.fix(id) {
        Some(fix) => {
            anstream::eprint!("{}", fix::forget_text(fix, history.status(fix), output::width()));
            (fix.rule().to_owned(), of_fix(node, fix))
        }
        None if damaged => {
            anstream::eprintln!(
                "The record of {id} cannot be used; it is moved, and nothing in it is changed."
            );
            (String::new(), node.clone())
        }
        None => return known(&history, id).map(|_| Exit::Clean),
    };
    let aside = execute(options, &node, &rule, &|| unplanned(options), |executor| executor.forget(id))?;
    output::print(&match options.format {
        Format::Json => fix::forgotten_json(&rule, id, aside.as_deref()),
        Format::Text => fix::forgotten_text(id, aside.as_deref(), output::width()),
    })?;
    Ok(Exit::Clean)
}

/// Runs something with all that carries fixes out on this node.
fn execute<T, E: Into<anyhow::Error>>(
    options: &cli::Fix,
    node: &Node,
    rule: &str,
    wanted: &dyn Fn() -> Options,
    run: impl FnOnce(&Executor<'_>) -> Result<T, E>,
) -> anyhow::Result<T> {
    let state = state(options)?;
    let catalogue = super::catalogue::load(&cli::CatalogueDir { dir: None })?;
    let world = Live::new(node, catalogue);
    let told = Cell::new(false);
    let executor = Executor {
        world: &world,
        task: Task::of(catalogue, rule, &node.component),
        options: wanted,
        state: &state,
        wait: options.wait,
        settle: options.settle,
        tell: &|progress: &Progress| tell(progress, &told),
        interrupted: &protection::is_interrupted,
    };
    run(&executor).map_err(Into::into)
}

/// Returns what the exit code says of how a run ended; `back` when something was rolled back.
fn exit(outcome: &Outcome, back: Exit) -> Exit {
    match outcome {
        Outcome::Done { .. } => Exit::Clean,
        Outcome::NotProven { .. } => Exit::Findings,
        Outcome::RolledBack { .. } => back,
        Outcome::Stopped { .. } => Exit::Failure,
        _ => Exit::Incomplete,
    }
}

/// Returns the node of a fix: the instance that it was planned for.
fn of_fix(node: &Node, fix: &Fix) -> Node {
    let state = &fix.plan.state;
    let member = Some(state.member.clone()).filter(|name| !name.is_empty() && state.component == ETCD);
    Node {
        component: state.component.clone(),
        member: node.member.clone().or(member),
        self_made: fix.rule() == SELF_MADE,
        ..node.clone()
    }
}

/// Returns what the operator wants of a fix that is planned already.
fn unplanned(options: &cli::Fix) -> Options {
    Options { days: options.days, two_members_stop: options.two_members_stop, ..Options::default() }
}

/// Returns the fixes of this node.
fn recorded(options: &cli::Fix) -> anyhow::Result<History> {
    if !directory(options).exists() {
        let message = format!("{} is not there: no fix was begun on this node", directory(options).display());
        return Err(UsageError::new(message, "see `seaworthy fix` for the rules with a fix").into());
    }
    Ok(History::read(&state(options)?)?)
}

/// Returns the fix of this id.
fn known<'h>(history: &'h History, id: &str) -> anyhow::Result<&'h Fix> {
    if let Some(damaged) = history.damaged().iter().find(|damaged| damaged.id == id) {
        let message = format!("the record of fix {id} cannot be used: {}", damaged.why);
        let help = format!("look what it did, and set it aside: seaworthy fix --forget {id}");
        return Err(UsageError::new(message, help).into());
    }
    history.fix(id).ok_or_else(|| {
        let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
        UsageError::new(format!("there is no fix {id}"), "see `seaworthy fix --status` for the ids").into()
    })
}

/// Prints how the fixes of this node stand, and how far the members are.
fn status(options: &cli::Fix, node: &Node) -> anyhow::Result<Exit> {
    let state = state(options)?;
    let history = History::read(&state)?;
    let seen = node.observe().map_err(|error| error.to_string());
    let members = seen.as_ref().map_err(Clone::clone).and_then(|seen| {
        seen.subject.own.cluster.as_result().map_err(|error| error.to_string())?;
        let progress = seen.progress.as_ref().map_err(Clone::clone)?;
        let standing = |m: &seaworthy_evidence::Member| MemberStanding {
            name: if m.name.is_empty() { m.id.clone() } else { m.name.clone() },
            peer_urls: m.peer_urls.iter().map(|url| url.text.clone()).collect(),
            progress: progress.get(&m.id).cloned(),
        };
        let mut members: Vec<_> = seen.members().iter().map(standing).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    });
    let etcdctl = node.etcdctl(seen.as_ref().ok().map(|seen| &*seen.subject));
    let is_pending = |fix: &Fix| history.pending().any(|pending| pending.id() == fix.id());
    let stands = |fix: &Fix| history.standing().any(|standing| standing.id() == fix.id());
    let mut open: Vec<&Fix> = history.fixes().iter().filter(|fix| stands(fix) || is_pending(fix)).collect();
    open.sort_by_key(|fix| &fix.plan.state.component);
    let mut planned = BTreeMap::new();
    // The node is looked at once for each instance.
    for of_one in open.chunk_by(|one, next| one.plan.state.component == next.plan.state.component) {
        let Some(first) = of_one.first() else { continue };
        // A rollback that is not ended is looked at by what it undoes.
        let ids: Vec<&str> =
            of_one.iter().map(|fix| fix.plan.rollback_of.as_deref().unwrap_or(fix.id())).collect();
        let plans = execute(options, &of_fix(node, first), "", &|| unplanned(options), |executor| {
            executor.rollback_plans(&ids)
        })?;
        planned.extend(of_one.iter().map(|fix| fix.id()).zip(plans));
    }
    let standing = history.fixes().iter().map(|fix| {
        let back = planned.remove(fix.id());
        let pending = is_pending(fix);
        let way_out = if pending { ways_out(options, fix, back.as_ref(), &etcdctl) } else { Vec::new() };
        let rollback = back.filter(|_| stands(fix)).map(|(_, refusals, _)| refusals);
        FixStanding { fix, status: history.status(fix), rollback, way_out }
    });
    let standing = Standing { fixes: standing.collect(), damaged: history.damaged(), members };
    output::print(&match options.format {
        Format::Json => fix::status_json(&standing),
        Format::Text => fix::status_text(&standing, output::width()),
    })?;
    Ok(Exit::Clean)
}

/// Returns how to get out of a fix that is not ended; `back` is what there is of its rollback.
fn ways_out(options: &cli::Fix, fix: &Fix, back: Option<&RollbackPlan>, etcdctl: &str) -> Vec<WayOut> {
    let directory = directory(options);
    let id = fix.id();
    let way = |to: &str, commands: Vec<String>| WayOut { to: to.to_owned(), commands };
    let mut ways = vec![
        way("to finish it", vec![command(options, &format!("--resume {id}"))]),
        way("what is left of it, by hand", manual::commands(&fix.plan, Some(fix), etcdctl, &directory)),
    ];
    if let Some((Some(plan), ..)) = back
        && fix.plan.rollback_of.is_none()
    {
        let command = command(options, &format!("--rollback {id}"));
        ways.push(way("to roll it back", vec![format!("{command} --apply")]));
        ways.push(way("the same by hand", manual::commands(plan, None, etcdctl, &directory)));
    }
    let closed = vec![command(options, &format!("--forget {id}"))];
    ways.push(way("to leave everything as it is, and close the record", closed));
    ways.retain(|way| !way.commands.is_empty());
    ways
}

fn ended(options: &cli::Fix, rule: &str, outcome: &Outcome, command: &str) -> anyhow::Result<()> {
    output::print(&match options.format {
        Format::Json => fix::outcome_json(rule, outcome),
        Format::Text => fix::outcome_text(rule, outcome, command, output::width()),
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
    let directory = options.state_dir.clone().unwrap_or_else(|| PathBuf::from(record::DEFAULT_DIRECTORY));
    options.root.join(directory.strip_prefix("/").unwrap_or(&directory))
}

fn state(options: &cli::Fix) -> anyhow::Result<State> {
    let state = State::open(&directory(options))?;
    #[cfg(debug_assertions)]
    let state = state.with_hook(crate::failpoint::hook);
    Ok(state)
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
    match seaworthy_remedy::sign(&bytes, &issuer, &seen.input(wanted)) {
        Ok(signed) => {
            anstream::eprintln!("a certificate for {}: {}", signed.member, signed.hosts.join(", "));
            output::print(&signed.pem)?;
            Ok(Exit::Clean)
        }
        Err(refusal) => {
            output::print(&plan::text(None, &[refusal], &command(options, ""), output::width()))?;
            Ok(Exit::Incomplete)
        }
    }
}
