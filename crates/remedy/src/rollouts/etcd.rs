//! The rollouts of etcd: TLS, authentication and authorities, between members and towards clients.

pub(crate) mod client_auth;
pub(crate) mod client_auto_tls;
pub(crate) mod client_tls;
pub(crate) mod clients;
pub(crate) mod peer_auth;
pub(crate) mod peer_auto_tls;
pub(crate) mod peer_ca;
pub(crate) mod peer_tls;
pub(crate) mod peers;
pub(crate) mod request;
pub(crate) mod trust;

use crate::input::Input;
use crate::order::Change;
use crate::plan::{Plan, Refusal};
use crate::rollouts::Rollout;

/// Returns why the order is refused in which this plan, and those that follow it on the other members, would change the
/// cluster; nothing for a plan that is no part of a rollout.
pub(crate) fn order(plan: &Plan, input: &Input<'_>) -> Option<Refusal> {
    let members = input.subject.own.cluster.value()?.members.as_slice();
    if members.len() < 2 || !plan.disturbs() {
        return None;
    }
    let (rollout, own): (Rollout<'_>, Vec<Change>) = match plan.rule.as_str() {
        peer_auth::RULE => (peer_auth::rollout(input), trust::effects(plan, input)),
        peer_auto_tls::RULE => (peer_auto_tls::rollout(input), trust::effects(plan, input)),
        peer_ca::RULE | peer_ca::UNIQUE => (peer_ca::rollout(input)?, trust::effects(plan, input)),
        peer_tls::RULE => (peer_tls::rollout(input), peer_tls::effects(plan)),
        _ => return None,
    };
    rollout.order(plan, own, members)
}
