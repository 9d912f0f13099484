//! `seaworthy fix`: collects, plans, lints and prints. Nothing is changed.

use std::collections::BTreeMap;

use seaworthy_collect::root::Root;
use seaworthy_collect::systemd::Unit;
use seaworthy_etcd_api::{AlarmKind, Client, Endpoint, Identity, Security, Timeouts};
use seaworthy_evidence::{DeclaredKind, Etcd, EvidenceError, Member, Snapshot};
use seaworthy_remedy::lint::lint;
use seaworthy_remedy::plan::{Objection, Plan, Refusal};
use seaworthy_remedy::planner::{
    self, AuthorityFiles, Declaration, Health, MemberHealth, Options, Situation,
};
use seaworthy_report::plan;

use crate::exit::{Exit, UsageError};
use crate::output::{self, Format};
use crate::{cli, commands::snapshot};

/// The only rule that there is a plan for.
const RULE: &str = "etcd-peer-tls";
/// Where kubeadm keeps etcd's authority.
const KUBEADM_CA: [&str; 2] = ["/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.key"];
/// Where kubeadm keeps certificates for clients of etcd, without their ending.
const KUBEADM_CLIENTS: [&str; 2] =
    ["/etc/kubernetes/pki/etcd/healthcheck-client", "/etc/kubernetes/pki/apiserver-etcd-client"];
/// Most bytes of a file that is read.
const CAP: usize = 1 << 20;

pub(super) fn run(options: &cli::Fix) -> anyhow::Result<Exit> {
    if options.rule != RULE {
        let message = format!("there is no fix for `{}`", options.rule);
        return Err(UsageError::new(message, format!("the only rule with a fix so far is {RULE}")).into());
    }
    let collection = cli::Collection {
        root: options.root.clone(),
        no_wire: false,
        observe: None,
        timeout: options.timeout,
    };
    let snapshot = snapshot::take(&collection)?;
    let root = Root::host(&options.root)
        .map_err(|error| UsageError::new(error.to_string(), "give the folder that holds the host's root"))?;
    let wanted = wanted(options, &root)?;
    let planned = match member(&snapshot, options)? {
        Ok(etcd) => planned(etcd, &snapshot, &root, options, &wanted),
        Err(refusal) => Err(vec![refusal]),
    };
    let (plan, refusals) = match planned {
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
fn planned(
    etcd: &Etcd,
    snapshot: &Snapshot,
    root: &Root,
    options: &cli::Fix,
    wanted: &Options,
) -> Result<(Plan, Vec<Refusal>), Vec<Refusal>> {
    let declaration = declaration(etcd, snapshot, root).map_err(|refusal| vec![refusal])?;
    let health = health(etcd, root, options);
    let clients = snapshot.etcd_clients.as_result().map(Vec::clone).map_err(ToString::to_string);
    let situation = Situation {
        node: &snapshot.node.name,
        taken_at: snapshot.taken_at,
        etcd,
        declaration: &declaration,
        health: health.as_ref().map_err(String::as_str),
        notes: &BTreeMap::new(),
        listens: &BTreeMap::new(),
        clients: clients.as_deref().map_err(String::as_str),
        options: wanted,
    };
    let plan = planner::plan(RULE, &situation)?;
    let refusals = lint(&plan, &situation);
    Ok((plan, refusals))
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
        Some(AuthorityFiles { certificate, pem: None, key })
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

/// Returns the member that is meant, or why there is none to plan for.
fn member<'a>(snapshot: &'a Snapshot, options: &cli::Fix) -> Result<Result<&'a Etcd, Refusal>, UsageError> {
    let refuse = |what: String| Refusal {
        objection: Objection::Evidence,
        what,
        why: "a plan is made from a running member".to_owned(),
        instead: "run it as root on a node where the member runs".to_owned(),
    };
    let all = match snapshot.etcd.as_result() {
        Ok(all) => all,
        Err(error) => return Ok(Err(refuse(error.to_string()))),
    };
    let meant = |etcd: &&Etcd| options.member.is_none() || etcd.name == options.member;
    let found: Vec<&Etcd> = all.iter().filter(meant).collect();
    match found.as_slice() {
        [one] => Ok(Ok(one)),
        [] => Ok(Err(refuse(match &options.member {
            Some(name) => format!("no member called {name} runs on this node"),
            None => "no etcd runs on this node".to_owned(),
        }))),
        several => {
            let names: Vec<&str> = several.iter().map(|e| e.id.as_str()).collect();
            let message = format!("several members run on this node: {}", names.join(", "));
            Err(UsageError::new(message, "name one with --member"))
        }
    }
}

/// Returns the files that declare the member.
fn declaration(etcd: &Etcd, snapshot: &Snapshot, root: &Root) -> Result<Vec<Declaration>, Refusal> {
    let mut paths = planner::declared_in(etcd)?;
    let declared = etcd.declared.value().and_then(|d| d.first());
    let unit = declared.filter(|d| d.kind == DeclaredKind::SystemdUnit).map(|d| d.path.as_str());
    let name = unit.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if !name.is_empty()
        && let Ok(Some(unit)) = Unit::find(root, name, &snapshot.node.name)
        && paths.first() == Some(&unit.path)
    {
        paths.extend(unit.drop_ins);
    }
    let refuse = |error: EvidenceError| Refusal {
        objection: Objection::Evidence,
        what: format!("a file that declares the member could not be read: {error}"),
        why: "what cannot be read cannot be edited".to_owned(),
        instead: "run it as root on the node".to_owned(),
    };
    let read = |path: String| {
        let bytes = root.read(&path, CAP).map_err(refuse)?;
        Ok(Declaration { unrestorable: unrestorable(root, &snapshot.node.root, &path), path, bytes })
    };
    paths.into_iter().map(read).collect()
}

/// Returns why the file could not be put back; `None` when nothing is known to be against it.
fn unrestorable(root: &Root, host: &str, path: &str) -> Option<String> {
    if let Ok(Some(target)) = root.read_link(path) {
        return Some(format!("it is a symbolic link to {}", target.to_string_lossy()));
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directory = format!("{}{directory}", host.trim_end_matches('/'));
    let stat = rustix::fs::statvfs(directory.as_str()).ok()?;
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    read_only.then(|| "its file system is read-only".to_owned())
}

/// Returns how the members are, as they say themselves, or why they could not be asked.
fn health(etcd: &Etcd, root: &Root, options: &cli::Fix) -> Result<Health, String> {
    let members = etcd.cluster.as_result().map_err(|error| error.to_string())?.members.as_slice();
    let timeouts = Timeouts { connect: options.timeout, call: options.timeout.max(Timeouts::default().call) };
    let tls = members.iter().flat_map(|m| &m.client_urls).any(|url| url.is_tls());
    let security = if tls { security(etcd, root)? } else { Security::plaintext() };
    let client = |members: &[&Member]| -> Result<Client, String> {
        let urls = members.iter().flat_map(|m| &m.client_urls);
        let endpoints = urls.map(|url| url.text.parse::<Endpoint>()).collect::<Result<Vec<_>, _>>();
        endpoints.and_then(|all| Client::new(all, security.clone(), timeouts)).map_err(|e| e.to_string())
    };
    // The members are asked at the same time, so that one that is silent costs its own time only.
    let asked: Vec<_> = std::thread::scope(|scope| {
        let ask =
            |member| (member, scope.spawn(move || client(&[member]).map(|client| ask(&client, member))));
        let asked: Vec<_> = members.iter().map(ask).collect();
        let lost = || Err("the question did not end".to_owned());
        asked.into_iter().map(|(m, thread)| (m, thread.join().unwrap_or_else(|_| lost()))).collect()
    });
    let mut health = Health::default();
    for (member, answer) in asked {
        let silent = |why| (MemberHealth { version: None, trouble: Some(why) }, None);
        let (answer, leader) = answer.unwrap_or_else(silent);
        health.leader = health.leader.or(leader);
        health.members.insert(member.id.clone(), answer);
    }
    let everybody: Vec<&Member> = members.iter().filter(|m| !m.client_urls.is_empty()).collect();
    let name = |id: u64| members.iter().find(|m| number(m) == Some(id)).map_or("?", |m| m.name.as_str());
    for alarm in client(&everybody)?.alarms().map_err(|error| error.to_string())? {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE".to_owned(),
            AlarmKind::Corrupt => "CORRUPT".to_owned(),
            other => format!("{other:?}"),
        };
        health.alarms.push(format!("{kind} at {}", name(alarm.member_id)));
    }
    let leader = health.leader.take().and_then(|id| id.parse().ok());
    health.leader = members.iter().find(|m| leader.is_some() && number(m) == leader).map(|m| m.id.clone());
    Ok(health)
}

/// Returns how a member is, and whom it takes for the leader.
fn ask(client: &Client, member: &Member) -> (MemberHealth, Option<String>) {
    let mut health = MemberHealth { version: None, trouble: Some("it has no client URL".to_owned()) };
    for endpoint in client.endpoints() {
        let status = match client.status(endpoint) {
            Ok(status) => status,
            Err(error) => {
                health.trouble = Some(error.to_string());
                continue;
            }
        };
        // A learner refuses the read; what it lacks is said by the others.
        let read = if member.learner { Ok(0) } else { client.revision(endpoint) };
        let complaint = status.errors.first().cloned().or_else(|| read.err().map(|error| error.to_string()));
        let foreign = (number(member) != Some(status.member_id))
            .then(|| format!("member {:x} answers in its place", status.member_id));
        let health = MemberHealth { version: Some(status.version), trouble: foreign.or(complaint) };
        return (health, status.leader.map(|id| id.to_string()));
    }
    (health, None)
}

fn number(member: &Member) -> Option<u64> {
    u64::from_str_radix(&member.id, 16).ok()
}

/// Returns whom to believe and whom to be at client ports: what kubeadm made for that, else the member itself.
fn security(etcd: &Etcd, root: &Root) -> Result<Security, String> {
    let settings = etcd.settings.as_result().map_err(|error| error.to_string())?;
    let given = |name: &str| settings.get(name).filter(|s| s.set).map(|s| s.value.clone());
    let as_text = |error: EvidenceError| error.to_string();
    let own = given("cert-file").zip(given("key-file"));
    let pairs = KUBEADM_CLIENTS.map(|stem| (format!("{stem}.crt"), format!("{stem}.key")));
    let mut identity = None;
    for (certificate, key) in pairs.into_iter().chain(own) {
        if let (Ok(certificate), Ok(key)) = (root.read(&certificate, CAP), root.read(&key, CAP)) {
            identity = Some((certificate, key));
            break;
        }
    }
    let ca = given("trusted-ca-file").unwrap_or_else(|| KUBEADM_CA[0].to_owned());
    let ca = root.read(&ca, CAP).or_else(|error| root.read(KUBEADM_CA[0], CAP).map_err(|_| error));
    let identity = identity.as_ref().map(|(certificates, key)| Identity { certificates, key });
    Security::tls(&ca.map_err(as_text)?, identity).map_err(|error| error.to_string())
}
