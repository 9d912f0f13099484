//! Rollouts that change whom members trust, in the model of who can dial whom.

use std::collections::BTreeSet;

use seaworthy_evidence::Member;
use seaworthy_pki::Parsed;

use super::peers::{against, bundled, roots, served};
use super::{peer_auth, peer_auto_tls, peer_ca};
use crate::input::Lacking;
use crate::issue::pem;
use crate::order::{self, Authority, Scheme};
use crate::plan::{Action, Plan, Refusal, RefusalKind, Stage};
use crate::planner::{Input, called, refuse, seen_at};
use crate::progress::record_for;
use crate::rollouts::Round;
use seaworthy_journal::files::sha256;

/// The authority that all are to trust in the end.
pub(crate) const NEW: Authority = "the authority of this plan";
/// What to do instead of an order that would part members.
pub(crate) const INSTEAD: &str =
    "let every member present a certificate that all accept, before one of them trusts less";
/// Whatever else members present and trust.
pub(crate) const OTHER: Authority = "what is in use now";

/// Refuses certificates with which members could not talk to each other any more after the plan.
pub(crate) fn certificates(plan: &Plan, input: &Input<'_>) -> Vec<Refusal> {
    let new = new_roots(input);
    let accepted = match (plan.rule.as_str(), plan.stage) {
        (peer_auth::RULE, _) | (peer_auto_tls::RULE | peer_ca::RULE | peer_ca::UNIQUE, Stage::Distrust) => {
            new
        }
        (peer_ca::RULE | peer_ca::UNIQUE, Stage::Trust | Stage::Present) => {
            peer_ca::trusted(input).unwrap_or_default().into_iter().chain(new).collect()
        }
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    match input.subject.peer.problems.as_result() {
        Err(error) => found.push(refuse(
            RefusalKind::Certificate,
            format!("the member's certificate could not be read: {error}"),
            "it may be cut off with its restart",
            error.advice(),
        )),
        Ok(problems) => {
            let breaking = problems.iter().filter(|p| p.breaks);
            found.extend(breaking.map(|problem| {
                refuse(
                    RefusalKind::Certificate,
                    problem.message.clone(),
                    "it would be cut off with its restart, which makes all its connections anew",
                    "replace the certificate first: etcd reads it anew at each handshake, without a restart",
                )
            }));
        }
    }
    let members = input.subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    // What others serve must be known before they are held to it; while all trust both authorities nothing hangs on it.
    let judged = |m: &&Member| {
        !plan.waits_for.iter().any(|w| w.member == called(m))
            && (plan.rule == peer_auth::RULE || served(input, m).is_some())
    };
    found.extend(members.iter().filter(judged).flat_map(|m| against(input, &accepted, m)));
    found
}

/// Returns the certificates of the authority that the operator named; none when there is none.
pub(crate) fn new_roots(input: &Input<'_>) -> Vec<Parsed> {
    let authority = input.options.authority.as_ref();
    authority.and_then(|authority| roots(input, authority).ok()).unwrap_or_default()
}

/// Returns the last round of a rule after which members demand certificates of the authority, and accept no others.
pub(crate) fn demanding<'a>(input: &'a Input<'a>, rule: &'static str, stage: Stage) -> Round<'a> {
    let done = move |m: &Member| {
        let settings = input.subject.settings.value();
        let record = record_for(input.progress, &m.id, rule);
        Some(match m.this {
            true => settings.and_then(|all| all.get("peer-trusted-ca-file")).is_some_and(|s| s.set),
            false => {
                let reached = record.and_then(|record| record.reached);
                matches!(reached, Some(Stage::Change | Stage::Distrust | Stage::Done))
            }
        })
    };
    Round { stage, done: Box::new(done), until: None, effect: vec![restart(None, Some(&[NEW]), Some(true))] }
}

/// Returns a member whose peers dial it with TLS, in the model.
pub(crate) fn member(m: &Member, leaf: Authority, trusts: &[Authority], demands: bool) -> order::Member {
    order::Member {
        name: called(m).to_owned(),
        advertised: Scheme::Https,
        listens: BTreeSet::from([Scheme::Https]),
        leaf: Some(leaf),
        trusts: trusts.iter().copied().collect(),
        demands,
    }
}

/// Returns a restart after which a member presents and trusts something else, in the model.
pub(crate) fn restart(
    leaf: Option<Authority>,
    trusts: Option<&[Authority]>,
    demands: Option<bool>,
) -> order::Change {
    let trusts = trusts.map(|all| all.iter().copied().collect());
    order::Change::Restart { listens: None, leaf, trusts, demands }
}

/// Returns what the steps of `plan` do to who can dial whom.
pub(crate) fn effects(plan: &Plan, input: &Input<'_>) -> Vec<order::Change> {
    let authority = input.options.authority.as_ref();
    let seen = |path: &str, here: &str| seen_at(input, path).as_deref() == Some(here);
    let is_new = |here: &str| authority.is_some_and(|a| seen(&a.certificate, here));
    let actions = || plan.steps.iter().map(|step| &step.action);
    // Only what really holds both authorities counts for that.
    let both = || {
        let parts = [input.trusted?, authority?.pem.as_deref()?];
        bundled(&parts, input.taken_at).ok().map(|bytes| sha256(&bytes))
    };
    let is_both = |here: &str| {
        actions().any(|action| match action {
            Action::Bundle { path, after, .. } => seen(path, here) && both().as_ref() == Some(after),
            _ => false,
        })
    };
    let is_issued = |here: &str| {
        actions().any(|action| match action {
            Action::Issue { certificate, ca_certificate, .. } => {
                seen(certificate, here) && authority.is_some_and(|a| a.certificate == *ca_certificate)
            }
            _ => false,
        })
    };
    // So do the roots of the system, when all that others made themselves is among them.
    let all = || {
        let members = input.subject.own.cluster.value()?.members.as_slice();
        let new = new_roots(input);
        let made = peer_auto_tls::self_made(input, members, new.first()?).ok()?;
        let made: Vec<String> = made.iter().map(|leaf| pem(leaf.der())).collect();
        let authority = authority?.pem.as_deref()?;
        let parts: Vec<&[u8]> = [authority].into_iter().chain(made.iter().map(String::as_bytes)).collect();
        bundled(&parts, input.taken_at).ok().map(|bytes| sha256(&bytes))
    };
    let has_all = || {
        actions().any(|action| match action {
            Action::Bundle { after, .. } => all().as_ref() == Some(after),
            _ => false,
        })
    };
    let change = |action: &Action| {
        let Action::Restart { settings, .. } = action else { return None };
        let file = settings.get("peer-trusted-ca-file");
        let trusts = file.map(|path| match path.as_str() {
            path if is_new(path) => [NEW].as_slice(),
            path if is_both(path) => &[NEW, OTHER],
            // The plan does not say which authority that is.
            _ => &[],
        });
        let leaf = settings.get("peer-cert-file").map(|path| if is_issued(path) { NEW } else { OTHER });
        let verifies = settings.contains_key("peer-auto-tls") && leaf.is_some();
        let roots = verifies.then(|| if has_all() { [NEW, OTHER].as_slice() } else { &[] });
        Some(restart(leaf, trusts.or(roots), trusts.map(|_| true)))
    };
    actions().filter_map(change).collect()
}
