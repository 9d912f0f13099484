//! The rules that there is a fix for, and the plan that each gets.

pub(crate) mod attributes;
pub(crate) mod renewal;
pub(crate) mod settings;

use seaworthy_catalogue::{Catalogue, Change, Document, Fix};

use crate::input::{Input, refuse};
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Until};
use crate::preflight;
use crate::rollouts;
use crate::rollouts::etcd::{
    client_auth, client_auto_tls, client_tls, peer_auth, peer_auto_tls, peer_ca, peer_tls,
};

/// What is to be fixed: what a rule says of an instance of a component.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The rule.
    pub rule: &'a str,
    /// The component.
    pub component: &'a str,
    /// What the rule says of its fix; `None` where it is not asked for a plan.
    pub fix: Option<&'a Fix>,
    /// What the rule says of what the change costs.
    pub document: Option<&'a Document>,
}

impl<'a> Task<'a> {
    /// Returns what is to be fixed so that `rule` of the catalogue passes for an instance of `component`.
    pub fn of(catalogue: &'a Catalogue, rule: &'a str, component: &'a str) -> Self {
        let known = catalogue.rules.get(rule);
        let fix = known.and_then(|rule| rule.fix.as_ref()).filter(|fix| fix.is_for(component));
        Self { rule, component, fix, document: known.map(|rule| &rule.document) }
    }
}

/// Returns what is to be done on this node so that the rule passes, as far as it can go by now.
///
/// # Errors
///
/// When something that must be known is not, or the way on is not supported: each with what to do instead.
pub fn plan(task: Task<'_>, input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    let plan = match task.fix {
        Some(Fix { change: Change::Settings(values), why }) => {
            let mut plan = settings::plan(task.rule, values, why, input)?;
            let costs = task.document.map(|document| document.first_paragraph("Impact"));
            plan.remarks.extend(costs.filter(|_| !plan.steps.is_empty()));
            plan
        }
        Some(Fix { change: Change::Files { of, mode, owner }, why }) => {
            let demand = attributes::Demand { of: *of, mode: *mode, owner: *owner, why };
            attributes::plan(task.rule, demand, input)?
        }
        Some(Fix { change: Change::Code(_), .. }) => coded(task, input)?,
        None => return Err(unknown(task).into()),
    };
    if !input.subject.is_member() {
        return Ok(plan);
    }
    // While another member's turn is under way, what the wires say is half of it.
    if plan.waits_for.iter().any(|waiting| waiting.until == Until::TurnEnded) {
        return Ok(plan);
    }
    match rollouts::etcd::order(&plan, input) {
        Some(refusal) => Err(vec![refusal]),
        None => Ok(mending(plan, input)),
    }
}

/// Returns the plan of a fix that is code.
fn coded(task: Task<'_>, input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    Ok(match task.rule {
        rule @ (renewal::EXPIRY | renewal::PEER) => renewal::plan(rule, input)?,
        client_auth::RULE => client_auth::plan(input)?,
        client_auto_tls::RULE => client_auto_tls::plan(input)?,
        client_tls::RULE => client_tls::plan(input)?,
        peer_auth::RULE => peer_auth::plan(input)?,
        peer_auto_tls::RULE => peer_auto_tls::plan(input)?,
        peer_ca::RULE => peer_ca::plan(peer_ca::RULE, input)?,
        peer_ca::UNIQUE => peer_ca::plan(peer_ca::UNIQUE, input)?,
        peer_tls::RULE => peer_tls::plan(input)?,
        _ => return Err(unknown(task).into()),
    })
}

fn unknown(task: Task<'_>) -> Refusal {
    refuse(
        RefusalKind::Unsupported,
        format!("there is no fix of {} for {}", task.rule, task.component),
        "what to change for it, and in which order, is not known to this version",
        format!("make the change by hand, as seaworthy explain {} says", task.rule),
    )
}

/// Lets a plan that mends links of its own member begin while they are not whole, and says so.
fn mending(mut plan: Plan, input: &Input<'_>) -> Plan {
    let mended = preflight::mended(&plan, input);
    let links = input.subject.own.links.value().into_iter().flatten();
    let broken: Vec<&str> = links
        .filter(|link| (link.down || link.half_open) && mended.contains(&link.member))
        .map(|link| link.member.as_str())
        .collect();
    if !broken.is_empty() {
        for step in &mut plan.steps {
            step.preconditions.retain(|condition| *condition != Condition::LinksFull);
        }
        plan.remarks.push(format!(
            "The link with {} is not whole: what its peers are told of this member, and how it listens, do not agree. This \
             plan mends that.",
            broken.join(", ")
        ));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::World;

    #[test]
    fn every_fix_of_the_catalogue_that_is_code_is_there() {
        let rules = seaworthy_builtin::catalogue().unwrap().rules.values();
        let coded = |rule: &&seaworthy_catalogue::Rule| match &rule.fix {
            Some(Fix { change: Change::Code(component), .. }) => component == "etcd",
            _ => false,
        };
        let coded: Vec<&str> = rules.filter(coded).map(|rule| rule.id.as_str()).collect();
        assert_eq!(coded.len(), 10);
        for rule in coded {
            let planned = World::loaded().planned(rule);
            let unknown = planned.is_err_and(|refusals| refusals[0].what.contains("there is no fix"));
            assert!(!unknown, "{rule}");
        }
        let (_, said) = World::loaded().refused("drift");
        assert!(said.contains("there is no fix of drift for etcd"), "{said}");
    }
}
