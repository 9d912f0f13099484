//! From TLS between members to mutual TLS: each member demands a certificate of the peers' authority.
//!
//! etcd demands certificates as soon as it has a CA for peers, so this state is one without: members verify each other
//! against the roots of their system. One restart of each member is enough, in any order, as long as the certificate of
//! every member is accepted by that authority in both directions *before* the first of them restarts: a member with the
//! CA verifies whom it dials against it, too. So the plan is made only when all those certificates are known and sound.

use super::peers::{accepted, against, roots};
use super::trust::{INSTEAD, NEW, OTHER, demanding, member, new_roots};
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Stage};
use crate::planner::{Changes, Input, Planner, missing, refuse};
use crate::rollouts::{Dialling, Rollout};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-peer-authentication";

/// Returns what makes the member demand certificates of its peers.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    Planner::new(RULE, *input)?.peer_auth()
}

impl Planner<'_> {
    fn peer_auth(&self) -> Result<Plan, Vec<Refusal>> {
        let done = || Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        if self.members.len() == 1 {
            return done();
        }
        let auth = self.s.subject.own.peer.client_auth.as_result().map_err(missing)?;
        self.over_tls()?;
        if auth.enforced && !auth.system_roots {
            return done();
        }
        if self.s.subject.own.peer.auto_tls.as_result().map_err(missing)?.in_effect {
            return Err(refuse(
                RefusalKind::Unsupported,
                "the members use self-made certificates (peer-auto-tls)",
                "a member that demands real ones would be isolated: theirs cannot be verified, in either direction",
                "replace them first, which ends with members that demand certificates: seaworthy fix \
                 etcd-peer-auto-tls",
            )
            .into());
        }
        self.usual_identity()?;
        self.connected()?;
        let authority = self.authority()?;
        let roots = roots(&self.s, authority)?;
        if roots.is_empty() {
            return Err(refuse(
                RefusalKind::Authority,
                "the authority is still to be made",
                "what members have was issued by another one, and would not be accepted",
                "name the authority that issued the members' certificates, with --ca-cert and --ca-key",
            )
            .into());
        }
        let against: Vec<Refusal> = self.members.iter().flat_map(|m| against(&self.s, &roots, m)).collect();
        if !against.is_empty() {
            return Err(against);
        }
        let (ca, mount) = self.seen_file(&authority.certificate);
        let changes =
            Changes::setting([("peer-client-cert-auth", "true".to_owned()), ("peer-trusted-ca-file", ca)]);
        self.within_reach(&changes)?;
        let mut steps: Vec<_> =
            self.hand_over(|m| self.reached(m, &[Stage::Change, Stage::Done])).into_iter().collect();
        steps.push(self.change(
            "Let it demand certificates of its peers",
            "Every member's certificate is one of this authority, for both directions, and names where the member \
             is dialled and dials from. So who demands them and who does not yet get along.",
            &changes,
            mount.into_iter().collect(),
        )?);
        let verify = vec![
            Condition::Trusts { authorities: authority.certificate.clone() },
            Condition::MutualTls,
            Condition::LinksFull,
            Condition::ClusterHealthy,
            Condition::RulePasses { rule: self.rule.to_owned() },
        ];
        steps.push(self.restart(changes.effective(), verify));
        Ok(self.document(Stage::Change, Vec::new(), steps, Vec::new()))
    }
}

/// Returns the one round after which members demand certificates of each other.
pub(crate) fn rollout<'a>(input: &'a Input<'a>) -> Rollout<'a> {
    let new = new_roots(input);
    Rollout {
        rounds: vec![demanding(input, RULE, Stage::Change)],
        dialling: Dialling::Changed {
            model: Box::new(move |m, behind| {
                let demands = behind.first() == Some(&true);
                let trusts = if demands { [NEW].as_slice() } else { &[NEW, OTHER] };
                // A certificate that does not fit now will not fit after the round.
                let fits = accepted(input, &new, m) == Some(true);
                member(m, if fits { NEW } else { OTHER }, trusts, demands)
            }),
            instead: INSTEAD,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use seaworthy_evidence::{Connection, Direction, Observed, Origin, TransportSeen, Url};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds};
    use crate::issue::{Authority, KeyKind};
    use crate::order::{self, Scheme, Turn};
    use crate::plan::Action;
    use crate::preflight::preflight;
    use crate::progress::ProgressRecord;

    fn planned(world: &World) -> Result<Plan, Vec<Refusal>> {
        world.planned(RULE)
    }

    fn stranger(world: &World) -> Authority {
        Authority::create("another-ca", KeyKind::EcP256, world.taken_at).unwrap().0
    }

    fn dials_from(world: &mut World, member: &str, address: &str) {
        let connection = Connection {
            local: "10.77.0.1:2380".to_owned(),
            remote: format!("{address}:40000"),
            direction: Direction::Inbound,
            member: Some(member.to_owned()),
            transport: TransportSeen::Tls,
            observed: None,
            origin: Origin::derived("the fixture"),
        };
        world.subject.own.connections = Observed::seen(vec![connection], Origin::derived("the fixture"));
    }

    #[test]
    fn a_member_comes_to_demand_certificates_in_one_turn() {
        let mut world = World::unauthenticated();
        dials_from(&mut world, "m2", "10.77.0.2");
        let plan = planned(&world).unwrap();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Change, vec!["edit", "restart"]));
        assert_eq!(
            changed_lines(&plan),
            ["+--peer-client-cert-auth=true", "+--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt"]
        );
        let verify = &plan.steps[1].verify;
        assert!(
            verify.contains(&Condition::RulePasses { rule: RULE.to_owned() })
                && verify.contains(&Condition::MutualTls)
        );
        assert_eq!(preflight(&plan, &world.input()), []);
        assert!(plan.waits_for.is_empty() && plan.by_hand[0].contains("kubeadm-config"));

        let id = world.id(1);
        world.health.as_mut().unwrap().leader = Some(id);
        let mut note = ProgressRecord::new(RULE, "m2", "node", world.taken_at);
        note.reached = Some(Stage::Change);
        let id = world.id(2);
        world.progress.insert(id.clone(), note);
        let plan = planned(&world).unwrap();
        let Action::MoveLeader { to } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(to[0], id, "to a member that is done");
    }

    #[test]
    fn nothing_is_to_be_done_where_certificates_are_demanded_or_nobody_is_there_to_show_one() {
        let mut done = World::unauthenticated();
        done.client_auth(true);
        let mut alone = World::unauthenticated();
        alone.members().retain(|m| m.this);
        for world in [done, alone] {
            let plan = planned(&world).unwrap();
            assert_eq!((plan.stage, plan.steps), (Stage::Done, vec![]));
        }
    }

    #[test]
    fn what_would_cut_a_member_off_or_is_not_known_is_refused() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 13] = [
            ("peer port of m2 serves is not known", RefusalKind::Evidence, |w| {
                let id = w.id(2);
                w.served.remove(&id);
            }),
            ("peer port of m1 serves is not known", RefusalKind::Evidence, |w| {
                let id = w.id(1);
                w.served.insert(id, Vec::new());
            }),
            ("certificate of m2: CN=m2 was issued by CN=another-ca", RefusalKind::Certificate, |w| {
                let other = stranger(w);
                w.serve(2, &other);
            }),
            ("certificate of m1: CN=m1 was issued by CN=another-ca", RefusalKind::Certificate, |w| {
                let other = stranger(w);
                w.serve(1, &other);
            }),
            ("does not name 10.9.9.9, where its peers dial it", RefusalKind::Certificate, |w| {
                w.members()[0].peer_urls[0] = Url::parse("https://10.9.9.9:2380").unwrap();
            }),
            ("does not name 10.77.0.9, which m2 dials from", RefusalKind::Certificate, |w| {
                dials_from(w, "m2", "10.77.0.9");
            }),
            ("http://10.77.0.2:2380 is a peer URL", RefusalKind::Unsupported, |w| w.advertise(2, "http")),
            ("http://10.77.0.1:2380 is a peer URL", RefusalKind::Unsupported, |w| w.listen("http")),
            ("self-made certificates", RefusalKind::Unsupported, |w| {
                let Observed::Seen { value, .. } = &mut w.subject.own.peer.auto_tls else { panic!() };
                value.in_effect = true;
            }),
            ("peer-cert-allowed-cn is set", RefusalKind::Unsupported, |w| w.set("peer-cert-allowed-cn", "x")),
            ("no certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("still to be made", RefusalKind::Authority, |w| {
                w.options.authority.as_mut().unwrap().pem = None;
            }),
            ("peer-client-cert-auth is given elsewhere", RefusalKind::Environment, |w| {
                w.set("peer-client-cert-auth", "false");
                let variable = "ETCD_PEER_CLIENT_CERT_AUTH".to_owned();
                let origin = Origin::Environment { pid: 33, name: variable };
                w.settings().get_mut("peer-client-cert-auth").unwrap().origin = origin;
            }),
        ];
        for (words, kind, change) in cases {
            let mut world = World::unauthenticated();
            change(&mut world);
            let refusals = planned(&world).expect_err(words);
            let found = refusals.iter().any(|r| r.kind == kind && r.what.contains(words));
            assert!(found, "{words}: {refusals:#?}");
        }
    }

    #[test]
    fn the_lint_knows_it_by_itself() {
        let mut world = World::unauthenticated();
        let plan = planned(&world).unwrap();
        let other = stranger(&world);
        world.serve(2, &other);
        let found: Vec<RefusalKind> = preflight(&plan, &world.input()).iter().map(|r| r.kind).collect();
        assert_eq!(found, [RefusalKind::Order, RefusalKind::Certificate]);
        world.served.clear();
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Evidence), "{found:#?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the others present and demand: no plan parts members, and there is one when all fit.
        #[test]
        fn no_plan_parts_members(
            others in prop::collection::vec(any::<(bool, bool, bool, bool)>(), 1..5),
            own_fits in any::<bool>(),
        ) {
            let mut world = World::unauthenticated();
            world.members().retain(|m| m.this);
            world.served.clear();
            world.options.two_members_stop = true;
            let (issuer, other) = (world.issuer.clone(), stranger(&world));
            world.serve(0, if own_fits { &issuer } else { &other });
            let mut truth = Vec::new();
            let member = |fits: bool, done: bool| order::Member {
                name: String::new(),
                advertised: Scheme::Https,
                listens: BTreeSet::from([Scheme::Https]),
                leaf: Some(if fits { "CA" } else { "another" }),
                trusts: if done { BTreeSet::from(["CA"]) } else { BTreeSet::from(["CA", "another"]) },
                demands: done,
            };
            truth.push(member(own_fits, false));
            for (index, (fits, done, seen, noted)) in others.iter().copied().enumerate() {
                let id = format!("{index:x}");
                world.join(&id, &format!("n{index}"));
                truth.push(member(fits, done));
                if seen {
                    world.serve(index + 1, if fits { &issuer } else { &other });
                }
                if noted && done {
                    let mut note = ProgressRecord::new(RULE, "n", "node", world.taken_at);
                    note.reached = Some(Stage::Change);
                    world.progress.insert(id, note);
                }
            }
            let planned = planned(&world);
            if let Ok(plan) = &planned && plan.waits_for.is_empty() {
                let changes = vec![order::Change::Restart {
                    listens: None,
                    leaf: None,
                    trusts: Some(BTreeSet::from(["CA"])),
                    demands: Some(true),
                }];
                prop_assert_eq!(order::check_links(&truth, &[Turn { member: 0, changes }]), Ok(()));
            }
            let all = own_fits && others.iter().all(|(fits, _, seen, _)| *fits && *seen);
            prop_assert_eq!(planned.is_ok(), all, "{:?}", planned);
        }
    }
}
