//! A certificate is demanded from every client.
//!
//! One turn of each member: whoever has a certificate that etcd will accept is accepted before and after. Who has none is
//! cut off from the member whose turn it was, so known clients are looked at first.

use std::collections::BTreeMap;

use super::clients::{Served, Terms, keys};
use super::{Planner, Situation, refuse, unseen};
use crate::plan::{Objection, Plan, Refusal, Stage, Verification};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-authentication";

/// Returns what makes the member demand a certificate from its clients.
pub(super) fn plan(situation: &Situation<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *situation)?.client_authentication()
}

impl Planner<'_> {
    fn client_authentication(&self) -> Result<Plan, Refusal> {
        let listens = self.client_listeners()?;
        let first = |what: &str, why: &str, rule: &str| {
            Err(refuse(Objection::Order, what, why, format!("change that first: seaworthy fix {rule}")))
        };
        if listens.iter().any(|url| url.scheme == "http") {
            return first(
                "a client URL is plaintext",
                "there a certificate cannot be demanded, so everybody who is refused elsewhere would be served there",
                "etcd-client-tls",
            );
        }
        if self.self_made()? {
            return first(
                "it serves clients with a certificate of its own making (auto-tls)",
                "etcd ignores a CA for clients beside it",
                "etcd-client-auto-tls",
            );
        }
        let auth = self.s.etcd.client.client_auth.as_result().map_err(unseen)?;
        if auth.enforced && !auth.system_roots {
            return Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        }
        let (authority, cas) = self.authority()?;
        let served = Served::Present(self.sound()?);
        self.cuts_off(&Terms { tls_only: false, served, demanded: Some(keys(&cas)) })?;
        let (path, mount) = self.authority_seen(authority);
        let settings = BTreeMap::from([
            ("trusted-ca-file".to_owned(), path),
            ("client-cert-auth".to_owned(), "true".to_owned()),
        ]);
        let mut steps: Vec<_> = self.hand_over(|_| true).into_iter().collect();
        steps.push(self.edit(
            "Let it demand a certificate from its clients",
            "It accepts those of this CA only. The CA alone would do; with the flag, whoever reads the settings sees it.",
            &settings,
            mount.into_iter().collect(),
        )?);
        let mut verify = self.verify_clients(true);
        verify.push(Verification::RulePasses);
        steps.push(self.restart(settings, verify));
        Ok(self.document(Stage::Change, Vec::new(), steps, Vec::new()))
    }
}
