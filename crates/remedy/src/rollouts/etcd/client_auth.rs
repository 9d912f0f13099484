//! A certificate is demanded from every client.
//!
//! One turn of each member: a client with a certificate that etcd will accept is accepted before and after. One without is
//! cut off from the member whose turn it was, so known clients are looked at first.

use std::collections::BTreeMap;

use super::clients::{Served, Terms, keys};
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Stage};
use crate::planner::{Input, Planner, missing, refuse};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-authentication";

/// Returns what makes the member demand a certificate from its clients.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *input)?.client_authentication()
}

impl Planner<'_> {
    fn client_authentication(&self) -> Result<Plan, Refusal> {
        let listens = self.client_listeners()?;
        let first = |what: &str, why: &str, rule: &str| {
            Err(refuse(RefusalKind::Order, what, why, format!("change that first: seaworthy fix {rule}")))
        };
        if listens.iter().any(|url| url.scheme == "http") {
            return first(
                "a client URL is plaintext",
                "there a certificate cannot be demanded, so every client that is refused elsewhere would be served there",
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
        let auth = self.s.subject.own.client.client_auth.as_result().map_err(missing)?;
        if auth.enforced && !auth.system_roots {
            return Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        }
        let (authority, cas) = self.authority_for_clients()?;
        let served = Served::Present(self.sound()?);
        self.cuts_off(&Terms { tls_only: false, served, demanded: Some(keys(&cas)) })?;
        let (path, mount) = self.seen_file(&authority.certificate);
        let settings = BTreeMap::from([
            ("trusted-ca-file".to_owned(), path),
            ("client-cert-auth".to_owned(), "true".to_owned()),
        ]);
        let mut steps: Vec<_> = self.hand_over(|_| true).into_iter().collect();
        steps.push(self.edit(
            "Let it demand a certificate from its clients",
            "It accepts those of this CA only. The CA alone would do; with the flag it shows in the settings.",
            &settings,
            mount.into_iter().collect(),
        )?);
        let mut verify = self.verify_clients(true);
        verify.push(Condition::RulePasses { rule: self.rule.to_owned() });
        steps.push(self.restart(settings, verify));
        Ok(self.for_clients(self.document(Stage::Change, Vec::new(), steps, Vec::new())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use seaworthy_evidence::{AutoTls, ClientAuth, Observed};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds, seen};
    use crate::preflight::preflight;

    /// Returns a member that serves TLS to anybody, with a client that is ready for more.
    pub(crate) fn open() -> World {
        let mut world = World::encrypted();
        let keys = keys(&world.authority()).into_iter().collect();
        let mut client = world.api_server(&["https://127.0.0.1:2379"]);
        client.accepted_by = Some(seen(keys));
        world.clients = Ok(vec![client]);
        for name in ["trusted-ca-file", "client-cert-auth"] {
            world.settings().remove(name);
        }
        let Observed::Seen { value, .. } = &mut world.subject.client.files else { panic!() };
        value.trusted = None;
        let auth = ClientAuth { enforced: false, flag: false, system_roots: false, why: String::new() };
        world.subject.own.client.client_auth = seen(auth);
        world.declare();
        world
    }

    #[test]
    fn it_comes_to_demand_certificates() {
        let mut world = open();
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Change, vec!["edit", "restart"]));
        assert_eq!(
            changed_lines(&plan),
            ["+--client-cert-auth=true", "+--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt"]
        );
        let verify = &plan.steps[1].verify;
        assert!(
            verify.contains(&Condition::ClientMutualTls)
                && verify.contains(&Condition::RulePasses { rule: RULE.to_owned() })
        );
        assert_eq!(preflight(&plan, &world.input()), []);
        let id = world.members()[1].id.clone();
        world.health.as_mut().unwrap().leader = Some(id);
        assert_eq!(kinds(&world.plan_for(RULE)), ["leader", "edit", "restart"]);
        // The public authorities of the system are as good as none.
        let auth = ClientAuth { enforced: true, flag: true, system_roots: true, why: String::new() };
        world.subject.own.client.client_auth = seen(auth);
        assert_eq!(world.plan_for(RULE).stage, Stage::Change);
        assert_eq!(World::encrypted().plan_for(RULE).steps, []);
    }

    #[test]
    fn what_must_come_first_is_said_and_who_would_be_cut_off() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 7] = [
            ("seaworthy fix etcd-client-tls", RefusalKind::Order, |w| {
                w.serve_clients("https://127.0.0.1:2379,http://127.0.0.1:2379");
            }),
            ("seaworthy fix etcd-client-auto-tls", RefusalKind::Order, |w| {
                w.subject.own.client.auto_tls =
                    seen(AutoTls { requested: true, in_effect: true, why: String::new() });
            }),
            ("no certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("of another CA than etcd trusts", RefusalKind::Client, |w| {
                w.clients.as_mut().unwrap()[0].accepted_by = Some(seen(Vec::new()));
            }),
            ("has no --etcd-certfile", RefusalKind::Client, |w| {
                w.clients.as_mut().unwrap()[0].credentials.chain = None;
            }),
            ("--clients-are-ready", RefusalKind::Client, |w| w.clients = Ok(Vec::new())),
            (
                "this node has no certificate that the members' client ports would accept",
                RefusalKind::Client,
                |w| {
                    let Observed::Seen { value, .. } = &mut w.subject.client.files else { panic!() };
                    let Some(Observed::Seen { value: chain, .. }) = &mut value.chain else { panic!() };
                    chain[0].issuer = "CN=another".to_owned();
                    let Observed::Seen { value, .. } = &mut w.subject.files.pki else { panic!() };
                    value.retain(|file| !file.file.path.contains("healthcheck-client"));
                },
            ),
        ];
        for (words, kind, change) in cases {
            let mut world = open();
            change(&mut world);
            let (found, said) = world.refused(RULE);
            assert!(found == kind && said.contains(words), "{words}: {said}");
        }
        // A client that dials another cluster is none of it.
        let mut world = open();
        world.clients = Ok(vec![World::encrypted().api_server(&["http://10.1.1.1:4001"])]);
        world.options.clients_are_ready = true;
        assert_eq!(world.plan_for(RULE).stage, Stage::Change);
    }
}
