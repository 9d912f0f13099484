//! From certificates that the members made themselves to those of an authority, with mutual TLS.
//!
//! Nobody vouches for a self-made certificate, so a member that verifies its peers could not dial one that still has one.
//! What helps is that Go takes a certificate for good that is itself among the roots. So in the first round every member
//! gets a certificate of the authority and no CA for peers, which leaves the verification to the roots of the system; and
//! these are, by `SSL_CERT_FILE`, the authority and the self-made certificates of all others. Members that are not so far
//! yet verify nobody. In the second round, when nobody presents a self-made one any more, the variable goes and the CA
//! comes.
//!
//! Where the flag is given and not in effect, it only goes.

use seaworthy_evidence::Member;
use seaworthy_pki::{Parsed, Usage, chains_to, names};

use super::peer_ca::LEAVES;
use super::peers::{accepted, against, bundled, served};
use super::trust::{INSTEAD, NEW, OTHER, demanding, member, new_roots, restart};
use crate::issue::pem;
use crate::planner::{AuthorityFiles, Changes, Input, Planner, called, missing, refuse};
use crate::progress::{ProgressRecord, record_for};
use crate::rollouts::{Dialling, Rollout, Round};
use seaworthy_journal::files::sha256;

use crate::plan::{Action, Condition, Plan, Refusal, RefusalKind, Stage, Step, Until};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-peer-auto-tls";

/// The variable that names the roots of the system to a Go program.
const ROOTS: &str = "SSL_CERT_FILE";
/// Name of the file of these roots, which tells also that the first round is over.
const BUNDLE: &str = "seaworthy-peer-roots";

/// Returns what takes the member from self-made certificates to those of an authority, as far as it can go by now.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    Planner::new(RULE, *input)?.peer_auto_tls()
}

/// Returns the self-made certificates of the others that `new` does not vouch for.
///
/// # Errors
///
/// Why one of them could not be dialled by a member that trusts exactly these.
pub(crate) fn self_made(
    input: &Input<'_>,
    members: &[Member],
    new: &Parsed,
) -> Result<Vec<Parsed>, Vec<Refusal>> {
    let mut found = Vec::new();
    let mut refusals = Vec::new();
    for member in members.iter().filter(|m| !m.this) {
        if accepted(input, std::slice::from_ref(new), member) == Some(true) {
            continue;
        }
        let Some((leaf, rest)) = served(input, member).and_then(<[Parsed]>::split_first) else {
            refusals.extend(against(input, &[], member));
            continue;
        };
        let by_itself = chains_to(leaf, rest, std::slice::from_ref(leaf), Usage::Server, input.taken_at);
        let unnamed = member.peer_urls.iter().find(|url| !names(&leaf.certificate, &url.host));
        let wrong = match (leaf.certificate.self_signed, by_itself, unnamed) {
            (false, ..) => Some("was issued by another authority than that of this plan".to_owned()),
            (true, Err(error), _) => Some(format!("could not be accepted by itself: {error}")),
            (true, Ok(()), Some(url)) => Some(format!("does not name {}, where its peers dial it", url.host)),
            (true, Ok(()), None) => None,
        };
        match wrong {
            None => found.push(leaf.clone()),
            Some(wrong) => refusals.push(refuse(
                RefusalKind::Certificate,
                format!("the certificate of {} {wrong}", called(member)),
                "a member that verifies its peers, as this one will, could not dial it",
                "name the authority that the others have begun with; or, for a self-made certificate, let the member \
                 listen at the address that its peers dial, remove fixtures/peer from its data directory, and \
                 restart it, so that it makes another one",
            )),
        }
    }
    if refusals.is_empty() { Ok(found) } else { Err(refusals) }
}

impl Planner<'_> {
    fn peer_auto_tls(&self) -> Result<Plan, Vec<Refusal>> {
        let done = || Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        if self.members.len() == 1 {
            return done();
        }
        let auto = self.s.subject.own.peer.auto_tls.as_result().map_err(missing)?;
        let verifies = self.settings.get("peer-trusted-ca-file").is_some_and(|s| s.set);
        let changed = self.given("peer-cert-file").is_some() && !verifies;
        let by_note = record_for(self.s.progress, &self.me.id, RULE)
            .is_some_and(|record| record.reached == Some(Stage::Present));
        let midway = changed && (by_note || self.declares(BUNDLE));
        if !auto.in_effect && !midway {
            return if auto.requested { self.only_the_flag() } else { done() };
        }
        self.over_tls()?;
        self.usual_identity()?;
        self.connected()?;
        let authority = self.authority()?;
        let Some(new) = self.new_root(authority)? else {
            let begun = |n: &ProgressRecord| {
                n.under_way.is_some()
                    || matches!(n.reached, Some(Stage::Create | Stage::Present | Stage::Distrust))
            };
            let begun = |m: &Member| record_for(self.s.progress, &m.id, RULE).is_some_and(begun);
            return self.create(authority, self.others().into_iter().find(|m| begun(m)));
        };
        let mut plan = if auto.in_effect {
            self.present_issued(authority, &new)
        } else {
            self.verify_all(authority, &new)
        }?;
        plan.authority = Some(super::peer_ca::identity(&new));
        Ok(plan)
    }

    /// Returns whether a file that declares the member has this text in a line that is no comment.
    fn declares(&self, text: &str) -> bool {
        self.s.declaration.iter().any(|file| {
            let content = String::from_utf8_lossy(&file.bytes);
            let comment = |line: &str| line.trim_start().starts_with(['#', ';']);
            content.lines().any(|line| !comment(line) && line.contains(text))
        })
    }

    /// Returns the plan that takes away a flag which is not in effect.
    fn only_the_flag(&self) -> Result<Plan, Vec<Refusal>> {
        let changes = Changes { removed: ["peer-auto-tls".to_owned()].into(), ..Changes::default() };
        self.within_reach(&changes)?;
        let mut steps: Vec<Step> =
            self.hand_over(|m| self.reached(m, &[Stage::Change, Stage::Done])).into_iter().collect();
        steps.push(self.change(
            "Take the flag away",
            "It has no effect now, and would have one as soon as the certificate's settings are lost.",
            &changes,
            Vec::new(),
        )?);
        steps.push(self.restart(
            changes.effective(),
            self.verified([Condition::RulePasses { rule: self.rule.to_owned() }]),
        ));
        Ok(self.document(Stage::Change, Vec::new(), steps, Vec::new()))
    }

    /// Returns the plan after which the member presents a certificate of the authority, and accepts both kinds.
    fn present_issued(&self, authority: &AuthorityFiles, new: &Parsed) -> Result<Plan, Vec<Refusal>> {
        if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| self.declares(name)) {
            return Err(refuse(
                RefusalKind::Unsupported,
                "it is told already which roots its system has (SSL_CERT_FILE or SSL_CERT_DIR)",
                "they would be others for a while, and what relies on them is not known",
                "take the variable away if nothing relies on it, restart the member, and plan again",
            )
            .into());
        }
        let with: Vec<String> =
            self_made(&self.s, self.members, new)?.iter().map(|leaf| pem(leaf.der())).collect();
        let content = authority.pem.as_deref().unwrap_or_default();
        let parts: Vec<&[u8]> = [content].into_iter().chain(with.iter().map(String::as_bytes)).collect();
        let bundle = bundled(&parts, self.s.taken_at).map_err(missing)?;
        let directory = self.peer_directory();
        let path = format!("{directory}/{}.crt", self.free(&directory, &[BUNDLE], &["crt"])?);
        let stems: Vec<&str> = ["peer"].into_iter().chain(LEAVES).collect();
        let stem = self.free(&directory, &stems, &["crt", "key"])?;
        let (inside, mount) = self.seen(&directory);
        let mut changes = Changes::setting([
            ("peer-cert-file", format!("{inside}/{stem}.crt")),
            ("peer-key-file", format!("{inside}/{stem}.key")),
        ]);
        changes.removed.insert("peer-auto-tls".to_owned());
        changes.variables.insert(ROOTS, Some(format!("{inside}/{BUNDLE}.crt")));
        self.within_reach(&changes)?;
        let [certificate, key] = ["crt", "key"].map(|end| format!("{directory}/{stem}.{end}"));
        let one = std::slice::from_ref(new);
        let is_changed = |m: &Member| accepted(&self.s, one, m) == Some(true);
        let mut steps: Vec<Step> = self.hand_over(is_changed).into_iter().collect();
        steps.push(self.issue_from(authority, [certificate.clone(), key])?);
        steps.push(Step {
            title: "Put the authority and the self-made certificates of the others into one file".to_owned(),
            why: "As long as others have them, this member has to accept them; each counts for itself only."
                .to_owned(),
            action: Action::Bundle {
                path: path.clone(),
                of: vec![authority.certificate.clone()],
                with,
                after: sha256(&bundle),
            },
            diff: None,
            preconditions: vec![
                Condition::Absent { path: path.clone() },
                Condition::File { path: authority.certificate.clone(), sha256: sha256(content) },
            ],
            verify: Vec::new(),
            restarts: false,
        });
        steps.push(self.change(
            "Let it present a certificate of the authority, and accept both kinds",
            "Without a CA for peers it verifies them against the roots of its system, which SSL_CERT_FILE names, and \
             demands nothing. Members with self-made certificates verify nobody.",
            &changes,
            mount.into_iter().collect(),
        )?);
        let verify = self.verified([Condition::Serves { certificate }]);
        steps.push(self.restart(changes.effective(), verify));
        let (waits_for, then) = rollout(&self.s).waiting(Stage::Present, self.members);
        Ok(self.document(Stage::Present, waits_for, steps, then))
    }

    /// Returns the plan after which the member accepts, and demands, certificates of the authority only.
    fn verify_all(&self, authority: &AuthorityFiles, new: &Parsed) -> Result<Plan, Vec<Refusal>> {
        let one = std::slice::from_ref(new);
        // What a peer port serves is proof, and nothing else is: a member that does not answer is waited for.
        let lacks = |m: &Member| !m.this && accepted(&self.s, one, m) != Some(true);
        let ready = self.members.iter().filter(|m| !lacks(m));
        let refusals: Vec<Refusal> = ready.flat_map(|m| against(&self.s, one, m)).collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let (ca, mount) = self.seen_file(&authority.certificate);
        let mut changes =
            Changes::setting([("peer-client-cert-auth", "true".to_owned()), ("peer-trusted-ca-file", ca)]);
        if self.declares(BUNDLE) {
            changes.variables.insert(ROOTS, None);
        }
        self.within_reach(&changes)?;
        let over = |m: &Member| self.reached(m, &[Stage::Distrust, Stage::Done]);
        let steps = self.trust_only(
            authority,
            over,
            [
                "Let it demand certificates of the authority, and accept no others",
                "No member has a self-made one any more.",
            ],
            &changes,
            mount,
        )?;
        let (waits_for, then) = rollout(&self.s).waiting(Stage::Distrust, self.members);
        Ok(self.document(Stage::Distrust, waits_for, steps, then))
    }
}

/// Returns the rounds from self-made certificates to those of an authority.
pub(crate) fn rollout<'a>(input: &'a Input<'a>) -> Rollout<'a> {
    let new = new_roots(input);
    let presents = move |m: &Member| accepted(input, &new, m);
    Rollout {
        rounds: vec![
            Round {
                stage: Stage::Present,
                done: Box::new(presents),
                until: Some([Until::Presenting; 2]),
                effect: vec![restart(Some(NEW), Some(&[NEW, OTHER]), None)],
            },
            demanding(input, RULE, Stage::Distrust),
        ],
        dialling: Dialling::Changed {
            model: Box::new(|m, behind| {
                let [presents, demands] = [0, 1].map(|at| behind.get(at) == Some(&true));
                let trusts = if demands { [NEW].as_slice() } else { &[NEW, OTHER] };
                member(m, if presents { NEW } else { OTHER }, trusts, demands)
            }),
            instead: INSTEAD,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use seaworthy_evidence::{DeclaredKind, Observed, Origin, Url};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds};
    use crate::issue::{Authority, KeyKind};
    use crate::order::{self, Scheme, Turn};
    use crate::planner::Declaration;
    use crate::preflight::preflight;

    const PKI: &str = "/etc/kubernetes/pki/etcd";

    fn planned(world: &World) -> Result<Plan, Vec<Refusal>> {
        world.planned(RULE)
    }

    /// Returns the member of a cluster that has so many rounds behind it, and others that have as many as given; what the
    /// peer ports of some of them serve is not known.
    fn world(own: usize, others: &[(usize, bool)]) -> World {
        let mut world = World::self_made();
        let issuer = world.issuer.clone();
        world.members().retain(|m| m.this);
        world.served.clear();
        world.options.two_members_stop = true;
        if own > 0 {
            world.auto_tls(false, false);
            world.set("peer-cert-file", &format!("{PKI}/seaworthy-peer.crt"));
            world.set("peer-key-file", &format!("{PKI}/seaworthy-peer.key"));
            world.serve(0, &issuer);
            let text = String::from_utf8(world.declaration[0].bytes.clone()).unwrap();
            let variable = format!(
                "    env:\n    - name: SSL_CERT_FILE\n      value: {PKI}/seaworthy-peer-roots.crt\n    name: etcd\n"
            );
            world.declaration[0].bytes = text.replacen("    name: etcd\n", &variable, 1).into_bytes();
        }
        if own > 1 {
            world.set("peer-trusted-ca-file", &format!("{PKI}/ca.crt"));
            world.client_auth(true);
        }
        for (index, (rounds, seen)) in others.iter().copied().enumerate() {
            world.join(&format!("{index:x}"), &format!("n{index}"));
            match (seen, rounds) {
                (false, _) => {}
                (true, 0) => world.serve_self_made(index + 1, "10.77.0.1"),
                (true, _) => world.serve(index + 1, &issuer),
            }
            if rounds == 2 {
                let mut note = ProgressRecord::new(RULE, "n", "node", world.taken_at);
                note.reached = Some(Stage::Distrust);
                world.progress.insert(format!("{index:x}"), note);
            }
        }
        world
    }

    /// Returns a member as it really is.
    fn truth(rounds: usize) -> order::Member {
        order::Member {
            name: String::new(),
            advertised: Scheme::Https,
            listens: BTreeSet::from([Scheme::Https]),
            leaf: Some(if rounds > 0 { "CA" } else { "itself" }),
            trusts: if rounds > 1 { BTreeSet::from(["CA"]) } else { BTreeSet::from(["CA", "itself"]) },
            demands: rounds > 1,
        }
    }

    /// Returns what a plan really does.
    fn turn(member: usize, plan: &Plan) -> Turn {
        let change = |leaf, trusts, demands| order::Change::Restart {
            listens: None,
            leaf,
            trusts: Some(trusts),
            demands: Some(demands),
        };
        let change = match plan.stage {
            Stage::Present => change(Some("CA"), BTreeSet::from(["CA", "itself"]), false),
            Stage::Distrust => change(None, BTreeSet::from(["CA"]), true),
            other => panic!("{other:?}"),
        };
        Turn { member, changes: vec![change] }
    }

    #[test]
    fn three_members_change_over_in_six_turns() {
        for size in [2, 3, 5] {
            let mut rounds = vec![0; size];
            let mut order = Vec::new();
            for _ in 0..2 * size {
                let next = (0..size).rev().find_map(|me| {
                    let others = (0..size).filter(|other| *other != me);
                    let others: Vec<_> = others.map(|other| (rounds[other], true)).collect();
                    let world = world(rounds[me], &others);
                    let plan = planned(&world).unwrap_or_else(|e| panic!("{rounds:?}: {e:?}"));
                    let now = plan.waits_for.is_empty() && !plan.steps.is_empty();
                    now.then(|| {
                        assert_eq!(preflight(&plan, &world.input()), [], "{rounds:?}");
                        (me, plan)
                    })
                });
                let (me, plan) = next.unwrap_or_else(|| panic!("nobody can go on: {rounds:?}"));
                rounds[me] += 1;
                order.push(turn(me, &plan));
            }
            assert_eq!(rounds, vec![2; size]);
            assert_eq!(order::check_links(&vec![truth(0); size], &order), Ok(()));
            let plan = planned(&world(2, &vec![(2, true); size - 1])).unwrap();
            assert_eq!((plan.stage, plan.steps), (Stage::Done, vec![]));
        }
    }

    #[test]
    fn each_turn_says_what_it_does() {
        let world = world(0, &[(0, true), (1, true)]);
        let plan = planned(&world).unwrap();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Present, vec!["issue", "bundle", "edit", "restart"]));
        let mut lines = changed_lines(&plan);
        lines.sort();
        assert_eq!(
            lines,
            [
                "+      value: /etc/kubernetes/pki/etcd/seaworthy-peer-roots.crt",
                "+    - name: SSL_CERT_FILE",
                "+    env:",
                "+--peer-cert-file=/etc/kubernetes/pki/etcd/seaworthy-peer.crt",
                "+--peer-key-file=/etc/kubernetes/pki/etcd/seaworthy-peer.key",
                "---peer-auto-tls=true",
            ]
        );
        let Action::Bundle { of, with, .. } = &plan.steps[1].action else { panic!("{plan:?}") };
        assert_eq!((of.as_slice(), with.len()), (&[format!("{PKI}/ca.crt")][..], 1), "n1 has another by now");
        let Action::Restart { settings, .. } = &plan.steps[3].action else { panic!("{plan:?}") };
        assert_eq!(settings["peer-auto-tls"], "");
        assert_eq!(plan.then_waits_for.len(), 1);

        let world = self::world(1, &[(1, true), (2, true)]);
        let plan = planned(&world).unwrap();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Distrust, vec!["edit", "restart"]));
        let lines = changed_lines(&plan);
        assert!(lines.contains(&"-    - name: SSL_CERT_FILE".to_owned()), "{lines:#?}");
        assert!(lines.contains(&format!("+--peer-trusted-ca-file={PKI}/ca.crt")), "{lines:#?}");
        assert!(plan.steps[1].verify.contains(&Condition::RulePasses { rule: RULE.to_owned() }));
        // A member that does not answer, or serves what it made itself, is waited for.
        for other in [(0, true), (1, false)] {
            let waits = planned(&self::world(1, &[other, (1, true)])).unwrap().waits_for;
            assert_eq!(waits.iter().map(|w| w.until).collect::<Vec<_>>(), [Until::Presenting]);
        }
    }

    #[test]
    fn an_environment_file_takes_the_variable_and_a_configuration_file_cannot() {
        let given_in = |world: &mut World, path: &str, running: Origin| {
            let Observed::Seen { value, .. } = &mut world.subject.declared else { panic!() };
            let Observed::Seen { value: promised, .. } = &mut value[0].settings else { panic!() };
            promised.get_mut("listen-peer-urls").unwrap().origin = Origin::file(path);
            for setting in
                world.settings().values_mut().filter(|s| !matches!(s.origin, Origin::Default { .. }))
            {
                setting.origin = running.clone();
            }
        };
        let mut world = world(0, &[(0, true), (0, true)]);
        let Observed::Seen { value, .. } = &mut world.subject.declared else { panic!() };
        value[0].kind = DeclaredKind::SystemdUnit;
        value[0].path = "/usr/lib/systemd/system/etcd.service".to_owned();
        let path = "/etc/default/etcd".to_owned();
        let variable = Origin::Environment { pid: 33, name: "ETCD_LISTEN_PEER_URLS".to_owned() };
        given_in(&mut world, &path, variable);
        let bytes = b"ETCD_NAME=m1\nETCD_PEER_AUTO_TLS=true\n".to_vec();
        world.declaration = vec![Declaration { path, bytes, unrestorable: None }];
        let lines = changed_lines(&planned(&world).unwrap());
        assert!(lines.contains(&"-ETCD_PEER_AUTO_TLS=true".to_owned()), "{lines:#?}");
        assert!(lines.iter().any(|l| l.starts_with("+SSL_CERT_FILE=/")), "{lines:#?}");

        given_in(&mut world, "/etc/etcd.yaml", Origin::file("/etc/etcd.yaml"));
        world.declaration[0].path = "/etc/etcd.yaml".to_owned();
        let refusals = planned(&world).unwrap_err();
        assert!(refusals[0].what.contains("cannot give etcd the variable SSL_CERT_FILE"), "{refusals:?}");
        assert!(refusals[0].instead.contains("SSL_CERT_FILE=/"), "{refusals:?}");
    }

    #[test]
    fn a_flag_without_effect_only_goes() {
        let mut world = World::encrypted();
        world.progress.clear();
        world.set("peer-auto-tls", "true");
        world.auto_tls(true, false);
        let plan = planned(&world).unwrap();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Change, vec!["edit", "restart"]));
        assert_eq!(changed_lines(&plan), ["---peer-auto-tls=true"]);
        assert_eq!(preflight(&plan, &world.input()), []);
        world.auto_tls(false, false);
        assert_eq!(planned(&world).unwrap().stage, Stage::Done);
    }

    #[test]
    fn what_could_not_be_dialled_or_is_not_known_is_refused() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 8] = [
            ("peer port of m2 serves is not known", RefusalKind::Evidence, |w| {
                let id = w.id(2);
                w.served.remove(&id);
            }),
            ("m2 does not name 10.77.0.2", RefusalKind::Certificate, |w| w.serve_self_made(2, "10.9.9.9")),
            ("m2 was issued by another authority", RefusalKind::Certificate, |w| {
                let other = Authority::create("x", KeyKind::EcP256, w.taken_at).unwrap().0;
                w.serve(2, &other);
            }),
            ("told already which roots", RefusalKind::Unsupported, |w| {
                w.declaration[0].bytes.extend(b"    env: [{name: SSL_CERT_DIR, value: /x}]\n");
            }),
            ("no certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("and not https", RefusalKind::Unsupported, |w| {
                w.members()[0].peer_urls[0] = Url::parse("http://10.77.0.3:2380").unwrap();
            }),
            ("peer-auto-tls is given elsewhere", RefusalKind::Environment, |w| {
                let origin = Origin::Environment { pid: 33, name: "ETCD_PEER_AUTO_TLS".to_owned() };
                w.settings().get_mut("peer-auto-tls").unwrap().origin = origin;
            }),
            ("exists already", RefusalKind::Unrestorable, |w| {
                w.options.authority.as_mut().unwrap().pem = None;
            }),
        ];
        for (words, kind, change) in cases {
            let mut world = World::self_made();
            change(&mut world);
            let refusals = planned(&world).expect_err(words);
            let found = refusals.iter().any(|r| r.kind == kind && r.what.contains(words));
            assert!(found, "{words}: {refusals:#?}");
        }
    }

    #[test]
    fn the_wrong_orders_are_refused() {
        let world = world(1, &[(0, true), (1, true)]);
        let mut plan = planned(&world).unwrap();
        plan.waits_for.clear();
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Order), "{found:#?}");
        // Without the certificates of the others it could dial none of them.
        let world = self::world(0, &[(0, true), (0, true)]);
        let mut plan = planned(&world).unwrap();
        plan.steps.retain(|step| !matches!(step.action, Action::Bundle { .. }));
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Order), "{found:#?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever the members are, and whatever is known of them: a plan that waits for nobody parts no two of them.
        #[test]
        fn no_plan_parts_members(
            own in 0..3_usize,
            others in prop::collection::vec((0..3_usize, any::<bool>()), 1..5),
        ) {
            let world = world(own, &others);
            let planned = planned(&world);
            let all = || std::iter::once(own).chain(others.iter().map(|(rounds, _)| *rounds));
            let truth: Vec<order::Member> = all().map(truth).collect();
            let still = order::Change::Restart { listens: None, leaf: None, trusts: None, demands: None };
            let sound = order::check_links(&truth, &[Turn { member: 0, changes: vec![still] }]).is_ok();
            if let Ok(plan) = &planned && plan.waits_for.is_empty() && !plan.steps.is_empty() && sound {
                prop_assert_eq!(order::check_links(&truth, &[turn(0, plan)]), Ok(()));
            }
            if sound && others.iter().all(|(_, seen)| *seen) {
                let plan = planned.unwrap();
                prop_assert!(all().min() != Some(own) || plan.waits_for.is_empty(), "{plan:?}");
                prop_assert_eq!(plan.steps.is_empty(), own == 2);
            }
        }
    }
}
