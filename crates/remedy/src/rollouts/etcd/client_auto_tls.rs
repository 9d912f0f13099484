//! A real certificate in place of one that etcd made up.
//!
//! One turn of each member. Who did not verify goes on as before; who will has to have the CA beforehand.

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_evidence::Url;

use super::clients::{Material, Served, Terms, keys};
use crate::plan::{Condition, Plan, Refusal, Stage};
use crate::planner::{Changes, Input, Planner, missing};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-auto-tls";

/// Returns what makes the member serve clients with a certificate that an authority issued.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *input)?.client_auto_tls()
}

impl Planner<'_> {
    fn client_auto_tls(&self) -> Result<Plan, Refusal> {
        let auto = self.s.subject.own.client.auto_tls.as_result().map_err(missing)?;
        if !auto.requested {
            return Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        }
        // A listener for metrics has the same certificate, and etcd would not start without one.
        let metrics = self.given("listen-metrics-urls").unwrap_or_default();
        let metrics = metrics.split(',').filter_map(Url::parse).any(|url| url.is_tls());
        let needed = auto.in_effect || metrics && self.given("cert-file").is_none();
        let mut verify = vec![
            Condition::ClusterHealthy,
            Condition::LinksFull,
            Condition::RulePasses { rule: self.rule.to_owned() },
        ];
        let (material, title, why) = if needed {
            // Beside a certificate of its own making etcd ignored them; beside a real one it does not.
            let demands = self.given("trusted-ca-file").is_some()
                || self.settings.get("client-cert-auth").and_then(|s| s.on).unwrap_or_default();
            let (authority, cas) = self.authority_for_clients()?;
            let trusted = self.s.subject.client.files.as_result().map_err(missing)?.trusted.as_ref();
            let demanded = match trusted.map(|trusted| trusted.as_result().map_err(missing)) {
                _ if !demands => None,
                Some(trusted) => Some(keys(trusted?)),
                None => Some(BTreeSet::new()),
            };
            self.cuts_off(&Terms { tls_only: false, served: Served::ByAuthority(&cas), demanded })?;
            if auto.in_effect {
                let wire = if demands { Condition::ClientMutualTls } else { Condition::ClientTls };
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
        let removed = BTreeSet::from(["auto-tls".to_owned()]);
        let changes = Changes { set: settings, removed, ..Changes::default() };
        steps.push(self.change(title, why, &changes, mounts)?);
        let effective = changes.effective();
        steps.push(self.restart(effective, verify));
        Ok(self.for_clients(self.document(Stage::Change, Vec::new(), steps, Vec::new())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use seaworthy_evidence::{AutoTls, DeclaredKind, Observed, Origin};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds, seen};
    use crate::plan::{Action, RefusalKind};
    use crate::planner::Declaration;
    use crate::preflight::preflight;

    /// Returns a member that serves clients with a certificate of its own making.
    pub(crate) fn self_made() -> World {
        let mut world = World::encrypted();
        world.clients_in_plaintext();
        world.serve_clients("https://127.0.0.1:2379,https://10.77.0.1:2379");
        (0..3).for_each(|index| world.announce(index, "https"));
        request(&mut world, true);
        world
    }

    fn request(world: &mut World, in_effect: bool) {
        let mut on = world.settings()["listen-client-urls"].clone();
        (on.value, on.on) = ("true".to_owned(), Some(true));
        world.settings().insert("auto-tls".to_owned(), on);
        world.subject.own.client.auto_tls = seen(AutoTls { requested: true, in_effect, why: String::new() });
        world.declare();
    }

    #[test]
    fn a_certificate_of_its_own_making_is_replaced() {
        let mut world = self_made();
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Change, vec!["issue", "edit", "restart"]));
        let pki = "/etc/kubernetes/pki/etcd";
        assert_eq!(
            changed_lines(&plan),
            [
                "---auto-tls=true".to_owned(),
                format!("+--cert-file={pki}/seaworthy-server.crt"),
                format!("+--key-file={pki}/seaworthy-server.key"),
            ],
            "no CA: it would demand certificates at once"
        );
        let Action::Issue { hosts, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(hosts, &["10.77.0.1", "127.0.0.1", "localhost"]);
        assert!(plan.steps[2].verify.contains(&Condition::ClientTls));
        let Action::Restart { settings, .. } = &plan.steps[2].action else { panic!("{plan:?}") };
        assert_eq!(settings["auto-tls"], "", "it is not set any more");
        assert_eq!(preflight(&plan, &world.input()), []);

        // Who verifies must trust the authority by then.
        let mut client = World::encrypted().api_server(&["https://127.0.0.1:2379"]);
        world.clients = Ok(vec![client.clone()]);
        let (kind, said) = world.refused(RULE);
        assert!(kind == RefusalKind::Client && said.contains("does not trust the CA"), "{said}");
        client.credentials.trusted = Some(seen(world.authority()));
        world.clients = Ok(vec![client]);
        assert_eq!(world.plan_for(RULE).stage, Stage::Change);
    }

    #[test]
    fn a_demand_that_had_no_effect_has_one_with_a_real_certificate() {
        let mut world = self_made();
        let mut on = world.settings()["auto-tls"].clone();
        "/etc/kubernetes/pki/etcd/ca.crt".clone_into(&mut on.value);
        world.settings().insert("trusted-ca-file".to_owned(), on);
        let authority = world.authority();
        let Observed::Seen { value, .. } = &mut world.subject.client.files else { panic!() };
        value.trusted = Some(seen(authority));
        world.declare();
        let (kind, said) = world.refused(RULE);
        assert!(kind == RefusalKind::Client && said.contains("--clients-are-ready"), "{said}");
        world.options.clients_are_ready = true;
        assert!(world.plan_for(RULE).steps[2].verify.contains(&Condition::ClientMutualTls));
    }

    #[test]
    fn where_it_has_no_effect_only_the_flag_goes() {
        let mut world = World::encrypted();
        assert_eq!(world.plan_for(RULE).steps, []);
        request(&mut world, false);
        let plan = world.plan_for(RULE);
        assert_eq!(kinds(&plan), ["edit", "restart"]);
        assert_eq!(changed_lines(&plan), ["---auto-tls=true"]);
        // Without any certificate, a listener for metrics with TLS would keep etcd from starting.
        world.clients_in_plaintext();
        request(&mut world, false);
        assert_eq!(kinds(&world.plan_for(RULE)), ["edit", "restart"]);
        "https://127.0.0.1:2381"
            .clone_into(&mut world.settings().get_mut("listen-metrics-urls").unwrap().value);
        assert_eq!(kinds(&world.plan_for(RULE)), ["issue", "edit", "restart"]);
    }

    #[test]
    fn each_source_loses_it_in_its_own_way() {
        let variable = Origin::Environment { pid: 33, name: "ETCD_LISTEN_PEER_URLS".to_owned() };
        let argv = Origin::Argv { pid: 33, index: 10 };
        let cases = [
            (
                Origin::file("/c"),
                "/etc/etcd/c.yaml",
                "name: m1\nclient-transport-security:\n  auto-tls: true\n",
                &["-  auto-tls: true", "+  cert-file: "][..],
            ),
            (
                variable,
                "/etc/default/etcd",
                "ETCD_NAME=m1\nETCD_AUTO_TLS=true\n",
                &["-ETCD_AUTO_TLS=true", "+ETCD_CERT_FILE="],
            ),
            (
                argv,
                "/usr/lib/systemd/system/etcd.service",
                "[Service]\nExecStart=/usr/bin/etcd --name=m1 --auto-tls\n",
                &["+    --name=m1", "+    --cert-file="],
            ),
        ];
        for (running, path, text, want) in cases {
            let mut world = self_made();
            let Observed::Seen { value, .. } = &mut world.subject.declared else { panic!() };
            value[0].kind = DeclaredKind::SystemdUnit;
            value[0].path = "/usr/lib/systemd/system/etcd.service".to_owned();
            let Observed::Seen { value: promised, .. } = &mut value[0].settings else { panic!() };
            promised.get_mut("listen-peer-urls").unwrap().origin = Origin::file(path);
            world.settings().get_mut("listen-peer-urls").unwrap().origin = running;
            let bytes = text.as_bytes().to_vec();
            world.declaration = vec![Declaration { path: path.to_owned(), bytes, unrestorable: None }];
            let lines = changed_lines(&world.plan_for(RULE));
            for want in want {
                assert!(lines.iter().any(|line| line.starts_with(want)), "{path}: {want}: {lines:#?}");
            }
            assert!(!lines.iter().any(|l| l.starts_with('+') && l.contains("auto-tls")), "{lines:#?}");
        }
    }
}
