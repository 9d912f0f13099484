//! The rules that there is a fix for, and the plan that each gets.

pub(crate) mod attributes;
pub(crate) mod renewal;

use crate::input::{Input, refuse};
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Until};
use crate::preflight;
use crate::rollouts;
use crate::rollouts::etcd::{
    client_auth, client_auto_tls, client_tls, peer_auth, peer_auto_tls, peer_ca, peer_tls,
};

/// The rules that there are plans for.
pub const RULES: [&str; 17] = [
    renewal::EXPIRY,
    client_auth::RULE,
    client_auto_tls::RULE,
    client_tls::RULE,
    attributes::DATA_MODE,
    attributes::DATA_OWNER,
    attributes::MANIFEST_MODE,
    attributes::MANIFEST_OWNER,
    peer_auth::RULE,
    peer_auto_tls::RULE,
    peer_ca::RULE,
    renewal::PEER,
    peer_tls::RULE,
    attributes::CERTIFICATE_MODE,
    attributes::KEY_MODE,
    attributes::PKI_OWNER,
    peer_ca::UNIQUE,
];

/// Returns whether there is a fix for what `rule` says of an instance of `component`.
pub fn there_is_one(rule: &str, component: &str) -> bool {
    component == seaworthy_components::etcd::COMPONENT.name && RULES.contains(&rule)
}

/// Returns what is to be done on this member so that `rule` passes, as far as it can go by now.
///
/// # Errors
///
/// When something that must be known is not, or the way on is not supported: each with what to do instead.
pub fn plan(rule: &str, input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    let plan = match rule {
        attributes::CERTIFICATE_MODE
        | attributes::DATA_MODE
        | attributes::DATA_OWNER
        | attributes::KEY_MODE
        | attributes::MANIFEST_MODE
        | attributes::MANIFEST_OWNER
        | attributes::PKI_OWNER => attributes::plan(rule, input)?,
        renewal::EXPIRY | renewal::PEER => renewal::plan(rule, input)?,
        client_auth::RULE => client_auth::plan(input)?,
        client_auto_tls::RULE => client_auto_tls::plan(input)?,
        client_tls::RULE => client_tls::plan(input)?,
        peer_auth::RULE => peer_auth::plan(input)?,
        peer_auto_tls::RULE => peer_auto_tls::plan(input)?,
        peer_ca::RULE => peer_ca::plan(peer_ca::RULE, input)?,
        peer_ca::UNIQUE => peer_ca::plan(peer_ca::UNIQUE, input)?,
        peer_tls::RULE => peer_tls::plan(input)?,
        other => {
            return Err(refuse(
                RefusalKind::Unsupported,
                format!("there is no fix for {other}"),
                "what to change for it, and in which order, is not known to this version",
                format!("the rules with a fix are {}", RULES.join(", ")),
            )
            .into());
        }
    };
    // While another member's turn is under way, what the wires say is half of it.
    if plan.waits_for.iter().any(|waiting| waiting.until == Until::TurnEnded) {
        return Ok(plan);
    }
    match rollouts::etcd::order(&plan, input) {
        Some(refusal) => Err(vec![refusal]),
        None => Ok(mending(plan, input)),
    }
}

/// Lets a plan that mends links of its own member begin while they are not whole, and says so.
fn mending(mut plan: Plan, input: &Input<'_>) -> Plan {
    let mended = preflight::mended(&plan, input);
    let links = input.etcd.own.links.value().into_iter().flatten();
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
