//! A real certificate in place of one that etcd made up.
//!
//! One turn of each member. Who did not verify goes on as before; who will has to have the CA beforehand.

use std::collections::BTreeMap;

use seaworthy_evidence::Url;

use super::clients::{Material, Served, Terms, keys};
use super::{LINKS_SECONDS, Planner, Situation, unseen};
use crate::plan::{Plan, Refusal, Stage, Verification};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-auto-tls";

/// Returns what makes the member serve clients with a certificate that an authority issued.
pub(super) fn plan(situation: &Situation<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *situation)?.client_auto_tls()
}

impl Planner<'_> {
    fn client_auto_tls(&self) -> Result<Plan, Refusal> {
        let auto = self.s.etcd.client.auto_tls.as_result().map_err(unseen)?;
        if !auto.requested {
            return Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        }
        // A listener for metrics has the same certificate, and etcd would not start without one.
        let metrics = self.given("listen-metrics-urls").unwrap_or_default();
        let metrics = metrics.split(',').filter_map(Url::parse).any(|url| url.is_tls());
        let needed = auto.in_effect || metrics && self.given("cert-file").is_none();
        let mut verify = vec![
            Verification::Restarted,
            Verification::SettingsEffective,
            Verification::ClusterHealthy,
            Verification::LinksFull { seconds: LINKS_SECONDS },
            Verification::RulePasses,
        ];
        let (material, title, why) = if needed {
            // Beside a certificate of its own making etcd ignored them; beside a real one it does not.
            let demands = self.given("trusted-ca-file").is_some()
                || self.settings.get("client-cert-auth").and_then(|s| s.on).unwrap_or_default();
            let (authority, cas) = self.authority()?;
            let trusted = self.s.etcd.client.credentials.as_result().map_err(unseen)?.trusted.as_ref();
            let demanded = match trusted.map(|trusted| trusted.as_result().map_err(unseen)) {
                _ if !demands => None,
                Some(trusted) => Some(keys(trusted?)),
                None => Some(std::collections::BTreeSet::new()),
            };
            self.cuts_off(&Terms { tls_only: false, served: Served::ByAuthority(&cas), demanded })?;
            if auto.in_effect {
                let wire = if demands { Verification::ClientMutualTls } else { Verification::ClientTls };
                verify.push(wire);
            }
            (
                self.new_material(authority)?,
                "Let it serve clients with the certificate, not with one of its own making",
                "Clients that have the CA can tell it from an impostor by this one.",
            )
        } else {
            (
                Material { steps: Vec::new(), settings: BTreeMap::new(), mounts: Vec::new() },
                "Take auto-tls away",
                "It has no effect now. Without it, a certificate that is taken away later is an error, and not silently \
                 replaced by one that nobody can verify.",
            )
        };
        let Material { mut steps, settings, mounts } = material;
        steps.extend(self.hand_over(|_| true));
        steps.push(self.edit_and_remove(title, why, &settings, &["auto-tls"], mounts)?);
        steps.push(self.restart(settings, verify));
        Ok(self.document(Stage::Change, Vec::new(), steps, Vec::new()))
    }
}
