//! From plaintext to mutual TLS between the members of a live cluster.
//!
//! It goes in two rounds, because a certificate that a member loads changes nothing while every URL is still `http`, and
//! because two members can talk as long as one of them can dial the other: first every member loads its certificate, one
//! after the other, and then each one's URL becomes `https`, first in the membership, which is how the others dial it, and
//! at once in its own configuration. Other orders were tried, and end in members that cannot reach each other while every
//! health check is green (see [`order`](crate::order)).

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_evidence::{Member, TransportSeen, Url};

use crate::fixes::attributes::{READS, may};
use crate::order::{self, Authority, Change, Scheme};
use crate::plan::{
    Action, Attributes, AuthorityId, Condition, Plan, Refusal, RefusalKind, RestartedBy, Stage, Step, Until,
};
use crate::planner::{AuthorityFiles, Input, Planner, called, has_loaded, is_encrypted, missing, refuse};
use crate::progress::record_for;
use crate::rollouts::{Dialling, Rollout, Round};
use crate::supplied::{Fit, Place, Supplied};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-peer-tls";

/// Returns what takes the member from plaintext to mutual TLS with its peers, as far as it can go by now.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *input)?.peer_tls()
}

/// Returns whether another member has loaded a certificate for its peers, by what it has published.
pub(crate) fn known_to_have_loaded(input: &Input<'_>, member: &Member) -> Option<bool> {
    let record = record_for(input.progress, &member.id, RULE)?;
    let loaded =
        record.reached.is_some_and(|stage| matches!(stage, Stage::Load | Stage::Encrypt | Stage::Done));
    // Of which authority the certificate is must be known, too: a record of the first version does not say so.
    (!loaded || record.authority.is_some()).then_some(loaded)
}

impl Planner<'_> {
    fn peer_tls(&self) -> Result<Plan, Refusal> {
        let unsupported =
            |what: &str, why: &str, instead: &str| Err(refuse(RefusalKind::Unsupported, what, why, instead));
        if self.members.len() == 1 {
            return Ok(self.staged(Stage::Done, Vec::new()));
        }
        if self.s.subject.own.peer.auto_tls.value().is_some_and(|auto| auto.in_effect) {
            return unsupported(
                "the members use self-made certificates (peer-auto-tls)",
                "a member that demands real ones would be isolated: theirs cannot be verified, in either direction",
                "let each member trust the others' self-made certificates first: load a certificate without a CA \
                 and with SSL_CERT_FILE naming all of them, everywhere; then the CA, everywhere",
            );
        }
        let listens = self.urls("listen-peer-urls")?;
        let advertised: Vec<Url> = self.me.peer_urls.clone();
        for urls in [&listens, &advertised] {
            let plain = urls.iter().filter(|url| url.scheme == "http").count();
            let tls = urls.iter().filter(|url| url.scheme == "https").count();
            if plain + tls < urls.len() || urls.iter().any(|url| url.text.contains("***@")) || urls.is_empty()
            {
                return unsupported(
                    "its peer URLs are neither http nor https, or have a password",
                    "what they mean to its peers is not known well enough",
                    "give it http URLs with host and port, and plan again",
                );
            }
            if plain > 0 && tls > 0 {
                return unsupported(
                    "it has http and https peer URLs beside each other",
                    "a port that is taken away may be the one that its peers dial",
                    "let its peers dial the https ones only (etcdctl member update), and then drop the others",
                );
            }
        }
        let tls = |urls: &[Url]| urls.iter().all(Url::is_tls);
        match (tls(&advertised), tls(&listens), has_loaded(self.settings)) {
            (true, true, _) => Ok(self.staged(Stage::Done, self.reconnect())),
            (_, _, true) => self.encrypt(!tls(&advertised), (!tls(&listens)).then_some(&listens)),
            (false, false, false) => self.load(),
            _ => Err(refuse(
                RefusalKind::Order,
                "its peers are told to dial it with TLS, or it listens so, without a certificate of its own",
                "it could not be dialled, and its next restart would isolate it",
                "put its peer URLs back to http first: in the membership with etcdctl member update, and in \
                 its configuration",
            )),
        }
    }

    /// Returns the steps after which the member has loaded a certificate, and still talks plaintext; or, while it has none
    /// to load, those by which it asks for one.
    fn load(&self) -> Result<Plan, Refusal> {
        let authority = self.s.options.authority.as_ref().ok_or_else(|| {
            refuse(
                RefusalKind::Authority,
                "there is no certificate authority with its key on this node",
                "peers accept only certificates of an authority that they trust",
                "name one with --ca-cert and --ca-key; on kubeadm nodes it is /etc/kubernetes/pki/etcd/ca.crt",
            )
        })?;
        let hosts = self.hosts();
        let returned = self.s.asked.returned.as_ref().filter(|_| self.s.options.request);
        let mut steps = Vec::new();
        let mut bound = None;
        let (certificate, key) = match self.s.options.supplied.as_ref().or(returned) {
            Some(supplied) => {
                self.accept(supplied, authority, &hosts)?;
                bound = Some(supplied.holds());
                (supplied.certificate().to_owned(), supplied.key().to_owned())
            }
            None if self.s.options.request => return self.request(authority, hosts),
            None => {
                if authority.pem.is_none() {
                    steps.push(self.create_authority(authority));
                }
                let directory = self.material_directory();
                let stem = self.free(&directory, &["peer", "seaworthy-peer"], &["crt", "key"])?;
                let [certificate, key] = ["crt", "key"].map(|end| format!("{directory}/{stem}.{end}"));
                steps.push(self.issue(authority, [certificate.clone(), key.clone()])?);
                (certificate, key)
            }
        };
        let ([certificate, key, ca], mounts) = self.visible([&certificate, &key, &authority.certificate]);
        let settings = BTreeMap::from(
            [
                ("peer-cert-file", certificate),
                ("peer-key-file", key),
                ("peer-trusted-ca-file", ca),
                ("peer-client-cert-auth", "true".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        steps.extend(self.hand_over(|m| known_to_have_loaded(&self.s, m) == Some(true)));
        let mut edit = self.edit(
            "Let it load the certificate, with its URLs as they are",
            "While every URL is http, etcd keeps talking plaintext, so members with and without certificates get \
             along. Without this round, members that have them and members that have not could not dial each other.",
            &settings,
            mounts,
        )?;
        edit.preconditions.extend(bound);
        steps.push(edit);
        steps.push(self.restart(settings, vec![Condition::ClusterHealthy, Condition::LinksFull]));
        let mut plan = self.staged(Stage::Load, steps);
        // What is wrong with the authority is for the preflight to say.
        let roots = super::peers::roots(&self.s, authority).unwrap_or_default();
        plan.authority = roots.first().map(super::peer_ca::identity);
        Ok(plan)
    }

    /// Refuses a certificate from elsewhere with which the member would not start, or be isolated.
    fn accept(
        &self,
        supplied: &Supplied,
        authority: &AuthorityFiles,
        hosts: &[String],
    ) -> Result<(), Refusal> {
        let pem = authority.pem.as_ref().ok_or_else(|| {
            refuse(
                RefusalKind::Authority,
                format!("{} is still to be made", authority.certificate),
                format!("{} cannot be of an authority that is not there yet", supplied.certificate()),
                "name with --ca-cert the authority that issued it",
            )
        })?;
        supplied.accept(&Fit {
            authorities: (&authority.certificate, pem),
            hosts,
            version: self.s.subject.version.value().map(String::as_str),
            now: self.s.taken_at,
        })?;
        let process = self.s.subject.process.as_result().map_err(missing)?;
        for Place { path, mode, uid, gid } in supplied.places() {
            if may(process, Attributes { mode: *mode, uid: *uid, gid: *gid }) & READS == 0 {
                return Err(refuse(
                    RefusalKind::Access,
                    format!(
                        "etcd runs as {}:{}, and cannot read {path} (mode {mode:04o}, owner {uid}:{gid})",
                        process.uid, process.gid
                    ),
                    "it would not start again",
                    format!("give {path} to the account that etcd runs as, and plan again"),
                ));
            }
        }
        Ok(())
    }

    /// Returns the steps after which the member talks TLS with its peers.
    fn encrypt(&self, update: bool, listens: Option<&Vec<Url>>) -> Result<Plan, Refusal> {
        let mut steps = Vec::new();
        let secure = |urls: &[Url]| -> Vec<String> {
            urls.iter().map(|url| url.text.replacen("http://", "https://", 1)).collect()
        };
        let urls = secure(&self.me.peer_urls);
        let former: Vec<String> = self.me.peer_urls.iter().map(|url| url.text.clone()).collect();
        let others = || self.members.iter().filter(|m| !m.this);
        if listens.is_some() {
            steps.extend(self.hand_over(is_encrypted));
        }
        if update {
            steps.push(Step {
                title: format!("Tell its peers to dial {} with TLS", called(self.me)),
                why: "New connections to it are made as the membership says, from now on; the ones there are stay. \
                      So the next step follows at once."
                    .to_owned(),
                action: Action::UpdateMember {
                    member_id: self.me.id.clone(),
                    from: former.clone(),
                    to: urls.clone(),
                    via: others().flat_map(|m| &m.client_urls).map(|url| url.text.clone()).collect(),
                },
                diff: None,
                preconditions: vec![
                    Condition::ClusterHealthy,
                    Condition::LinksFull,
                    Condition::LoadedEverywhere,
                    Condition::PeerUrls { member_id: self.me.id.clone(), urls: former },
                ],
                verify: vec![Condition::MembershipShows { member_id: self.me.id.clone(), urls }],
                restarts: false,
            });
        }
        if let Some(listens) = listens {
            let mut settings = BTreeMap::from([("listen-peer-urls".to_owned(), secure(listens).join(","))]);
            if let Some(advertised) = self.given("initial-advertise-peer-urls") {
                let advertised = advertised.replace("http://", "https://");
                settings.insert("initial-advertise-peer-urls".to_owned(), advertised);
            }
            let effective = settings.clone();
            if let Some(initial) = self.given("initial-cluster") {
                let own = format!("{}=http://", self.me.name);
                let entries = initial.split(',').map(|entry| match entry.trim().strip_prefix(&own) {
                    Some(rest) => format!("{}=https://{rest}", self.me.name),
                    None => entry.to_owned(),
                });
                settings.insert("initial-cluster".to_owned(), entries.collect::<Vec<_>>().join(","));
            }
            steps.push(self.edit(
                "Let it listen with TLS",
                "It demands a certificate from every member that dials it, and each has one by now.",
                &settings,
                Vec::new(),
            )?);
            steps.push(self.restart(
                effective,
                vec![
                    Condition::PlaintextRefused,
                    Condition::MutualTls,
                    Condition::NoPlaintextConnection,
                    Condition::LinksFull,
                    Condition::ClusterHealthy,
                ],
            ));
        }
        let mut plan = self.staged(Stage::Encrypt, steps);
        plan.authority = self.loaded_authority();
        Ok(plan)
    }

    /// Returns the authority of the certificate that the member has loaded; `None` when it is not among those that it trusts.
    fn loaded_authority(&self) -> Option<AuthorityId> {
        let chain = self.s.subject.peer.files.value()?.chain.as_ref()?.value()?;
        let issuer = &chain.last()?.issuer;
        let trusted = super::peer_ca::trusted(&self.s).ok()?;
        trusted.iter().find(|root| root.certificate.subject == *issuer).map(super::peer_ca::identity)
    }

    /// Returns the restart that ends plaintext connections which have outlived the change of all members.
    fn reconnect(&self) -> Vec<Step> {
        let connections = self.s.subject.own.connections.value();
        let plaintext = connections.into_iter().flatten().any(|c| c.transport == TransportSeen::Plaintext);
        // To a member that still listens in plaintext they would only be made again.
        let everybody = self.members.iter().all(is_encrypted);
        let verify = vec![Condition::NoPlaintextConnection, Condition::LinksFull, Condition::ClusterHealthy];
        let mut step = self.restart(BTreeMap::new(), verify);
        step.why = "Connections from before the change are still plaintext, and end only with the process."
            .to_owned();
        if let (Action::Restart { by, .. }, Some(process)) =
            (&mut step.action, self.s.subject.process.value())
            && *by == RestartedBy::Kubelet
        {
            // Its manifest stays as it is, so kubelet has no reason of its own.
            *by = RestartedBy::KubeletAfterEnd { pid: process.pid };
        }
        if plaintext && everybody { vec![step] } else { Vec::new() }
    }

    /// Returns the plan of this stage, which says whom it waits for.
    fn staged(&self, stage: Stage, steps: Vec<Step>) -> Plan {
        let (waits_for, then_waits_for) = rollout(&self.s).waiting(stage, self.members);
        self.document(stage, waits_for, steps, then_waits_for)
    }
}

/// What members load, in the model.
const CA: Authority = "the CA of the peers";

/// Returns the rounds from plaintext to mutual TLS.
pub(crate) fn rollout<'a>(input: &'a Input<'a>) -> Rollout<'a> {
    let loaded = |m: &Member| match m.this {
        true => Some(input.subject.settings.value().is_some_and(|settings| has_loaded(settings))),
        // Whom others dial with TLS has a certificate: etcd does not start to listen so without one.
        false if is_encrypted(m) => Some(true),
        false => known_to_have_loaded(input, m),
    };
    let model = |m: &Member, behind: &[bool]| modelled(input, m, behind.first() == Some(&true));
    let switch = vec![Change::Advertise(Scheme::Https), listen(BTreeSet::from([Scheme::Https]))];
    Rollout {
        rounds: vec![
            Round {
                stage: Stage::Load,
                done: Box::new(loaded),
                until: Some([Until::Loaded, Until::KnownToHaveLoaded]),
                effect: vec![load()],
            },
            Round {
                stage: Stage::Encrypt,
                done: Box::new(|m| Some(is_encrypted(m))),
                until: Some([Until::Encrypted; 2]),
                effect: switch,
            },
        ],
        dialling: Dialling::Changed {
            model: Box::new(model),
            instead: "load certificates on every member first, and then change one member's URLs at a time: in the \
                      membership, and at once in its configuration",
        },
    }
}

/// Returns the members in the model, as far as they are known, and which of them runs on this node.
pub(crate) fn cluster(input: &Input<'_>) -> Option<(usize, Vec<order::Member>)> {
    let members = input.subject.own.cluster.value()?.members.as_slice();
    let rollout = rollout(input);
    let loaded = rollout.rounds.first().map(|load| &load.done)?;
    let model = |m: &Member| modelled(input, m, loaded(m) == Some(true));
    Some((members.iter().position(|m| m.this)?, members.iter().map(model).collect()))
}

/// Returns a member in the model. It listens as its port was heard to speak, else as its peers are told to dial it.
fn modelled(input: &Input<'_>, m: &Member, loaded: bool) -> order::Member {
    let scheme = |tls: bool| if tls { Scheme::Https } else { Scheme::Http };
    let advertised = scheme(is_encrypted(m));
    let own = || {
        let urls = input.subject.settings.value()?.get("listen-peer-urls")?.value.as_str();
        Some(urls.split(',').filter_map(Url::parse).map(|url| scheme(url.is_tls())).collect())
    };
    order::Member {
        name: called(m).to_owned(),
        advertised,
        listens: match input.listens.get(&m.id) {
            _ if m.this => own().unwrap_or_default(),
            Some(spoken) if !spoken.is_empty() => spoken.clone(),
            _ => BTreeSet::from([advertised]),
        },
        leaf: loaded.then_some(CA),
        trusts: loaded.then_some(CA).into_iter().collect(),
        demands: loaded,
    }
}

fn load() -> Change {
    Change::Restart { listens: None, leaf: Some(CA), trusts: Some(BTreeSet::from([CA])), demands: Some(true) }
}

fn listen(schemes: BTreeSet<Scheme>) -> Change {
    Change::Restart { listens: Some(schemes), leaf: None, trusts: None, demands: None }
}

/// Returns what the steps of `plan` do to who can dial whom, as far as URLs and loaded certificates go.
pub(crate) fn effects(plan: &Plan) -> Vec<Change> {
    let scheme = |text: &str| if text.trim().starts_with("https") { Scheme::Https } else { Scheme::Http };
    let change = |action: &Action| match action {
        Action::UpdateMember { to, .. } => {
            vec![Change::Advertise(to.iter().map(|url| scheme(url)).min().unwrap_or(Scheme::Http))]
        }
        Action::Restart { settings, .. } => {
            let mut changes = Vec::new();
            changes.extend(settings.get("peer-cert-file").map(|path| match path.is_empty() {
                true => Change::Unload,
                false => load(),
            }));
            changes.extend(
                settings.get("listen-peer-urls").map(|urls| listen(urls.split(',').map(scheme).collect())),
            );
            if changes.is_empty() {
                changes.push(Change::Restart { listens: None, leaf: None, trusts: None, demands: None });
            }
            changes
        }
        _ => Vec::new(),
    };
    plan.steps.iter().flat_map(|step| change(&step.action)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seaworthy_evidence::{Connection, DeclaredKind, Direction, MemberSource, Observed, Origin};

    use super::*;
    use crate::fixture::{MANIFEST, World, record};
    use crate::issue::{Authority as Issuer, Host, KeyKind, Profile};
    use crate::order::Turn;
    use crate::planner::{AuthorityFiles, Declaration, declared_in};
    use crate::preflight::preflight;
    use crate::supplied::tests::supplied;

    fn kinds(plan: &Plan) -> Vec<&'static str> {
        let kind = |action: &Action| match action {
            Action::CreateAuthority { .. } => "authority",
            Action::Edit { .. } => "edit",
            Action::Issue { .. } => "issue",
            Action::MoveLeader { .. } => "leader",
            Action::Restart { .. } => "restart",
            Action::UpdateMember { .. } => "update",
            other => panic!("{other:?}"),
        };
        plan.steps.iter().map(|step| kind(&step.action)).collect()
    }

    fn changed_lines(plan: &Plan) -> Vec<String> {
        let diffs = plan.steps.iter().filter_map(|step| step.diff.as_ref());
        let lines = diffs.flat_map(|diff| diff.lines().skip(2));
        lines.filter(|l| l.starts_with(['+', '-'])).map(str::to_owned).collect()
    }

    #[track_caller]
    fn refused(world: &World) -> (RefusalKind, String) {
        let refusals = world.planned(RULE).expect_err("a refusal");
        (refusals[0].kind, format!("{} {}", refusals[0].what, refusals[0].why))
    }

    #[test]
    fn a_member_without_a_certificate_loads_one_and_stays_plaintext() {
        let mut world = World::plaintext();
        // Another certificate is in the folder already, and is not touched.
        world.progress.insert(
            world.subject.own.cluster.value().unwrap().members[0].id.clone(),
            record(None, &world.issuer),
        );
        let plan = world.plan();
        assert_eq!(
            (plan.stage, kinds(&plan), plan.restarts()),
            (Stage::Load, vec!["issue", "edit", "restart"], 1)
        );
        let pki = "/etc/kubernetes/pki/etcd";
        assert_eq!(
            changed_lines(&plan),
            [
                format!("+    - --peer-cert-file={pki}/seaworthy-peer.crt"),
                "+    - --peer-client-cert-auth=true".to_owned(),
                format!("+    - --peer-key-file={pki}/seaworthy-peer.key"),
                format!("+    - --peer-trusted-ca-file={pki}/ca.crt"),
            ]
        );
        let Action::Issue { hosts, certificate, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(
            (hosts.as_slice(), certificate.as_str()),
            (&["10.77.0.1".to_owned()][..], &*format!("{pki}/seaworthy-peer.crt"))
        );
        let waits: Vec<String> = plan.then_waits_for.iter().map(ToString::to_string).collect();
        assert_eq!(plan.waits_for, []);
        assert!(waits[1].starts_with("m3 must have loaded its certificate, and has not"), "{waits:?}");
        assert!(
            waits[0].starts_with("m2 must") && waits[0].ends_with("does not know whether it has"),
            "{waits:?}"
        );
    }

    #[test]
    fn the_edit_of_kubeadms_records_is_exact() {
        let by_hand = |world: &World| world.plan().by_hand.join("\n");
        let load = by_hand(&World::plaintext());
        for words in [
            "set peer-cert-file to /etc/kubernetes/pki/etcd/seaworthy-peer.crt, peer-key-file to \
             /etc/kubernetes/pki/etcd/seaworthy-peer.key; remove peer-client-cert-auth, peer-trusted-ca-file",
            "edit configmap kubeadm-config",
        ] {
            assert!(load.contains(words), "{load}");
        }
        let encrypt = by_hand(&World::loaded());
        assert!(
            encrypt.contains(": remove initial-advertise-peer-urls, listen-peer-urls, which"),
            "{encrypt}"
        );
    }

    #[test]
    fn a_member_with_a_certificate_waits_for_all_and_then_encrypts() {
        let mut world = World::loaded();
        let plan = world.plan();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Encrypt, vec!["update", "edit", "restart"]));
        assert_eq!(plan.waits_for, []);
        let lines = changed_lines(&plan);
        assert!(lines.contains(&"+    - --listen-peer-urls=https://10.77.0.1:2380".to_owned()), "{lines:?}");
        let initial =
            "--initial-cluster=m1=https://10.77.0.1:2380,m2=http://10.77.0.2:2380,m3=http://10.77.0.3:2380";
        assert!(lines.iter().any(|l| l.starts_with('+') && l.contains(initial)), "{lines:?}");
        let Action::UpdateMember { to: peer_urls, via, .. } = &plan.steps[0].action else {
            panic!("{plan:?}")
        };
        assert_eq!(peer_urls, &["https://10.77.0.1:2380"]);
        assert_eq!(via, &["https://10.77.0.3:2379", "https://10.77.0.2:2379"]);

        world.progress.clear();
        let waiting: Vec<String> = world.plan().waits_for.into_iter().map(|w| w.member).collect();
        assert_eq!(waiting, ["m2", "m3"]);
        // Whom peers dial with TLS has a certificate.
        world.advertise(0, "https");
        assert_eq!(world.plan().waits_for.len(), 1);
    }

    #[test]
    fn what_is_done_already_is_not_done_again() {
        let mut world = World::loaded();
        world.advertise(1, "https");
        assert_eq!(kinds(&world.plan()), ["edit", "restart"]);
        let mut world = World::loaded();
        world.listen("https");
        assert_eq!(kinds(&world.plan()), ["update"]);
    }

    #[test]
    fn a_leader_hands_over_first_to_a_member_that_is_done() {
        let mut world = World::loaded();
        world.advertise(2, "https");
        let members = world.members().clone();
        world.health.as_mut().unwrap().leader = Some(members[1].id.clone());
        let plan = world.plan();
        assert_eq!(kinds(&plan), ["leader", "update", "edit", "restart"]);
        let Action::MoveLeader { to } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(to, &[members[2].id.clone(), members[0].id.clone()]);
    }

    #[test]
    fn nothing_is_to_be_done_where_peers_talk_tls_or_are_not_there() {
        let mut alone = World::plaintext();
        alone.members().retain(|m| m.this);
        for world in [World::encrypted(), alone] {
            let plan = world.plan();
            assert_eq!((plan.stage, plan.steps, plan.then_waits_for), (Stage::Done, vec![], vec![]));
        }
        let mut first = World::encrypted();
        first.advertise(0, "http");
        assert_eq!(first.plan().then_waits_for.len(), 1);
    }

    #[test]
    fn connections_that_outlived_the_change_end_with_a_restart() {
        let mut world = World::encrypted();
        let connection = Connection {
            local: "10.77.0.1:2380".to_owned(),
            remote: "10.77.0.2:40000".to_owned(),
            direction: Direction::Inbound,
            member: None,
            transport: TransportSeen::Plaintext,
            observed: None,
            origin: Origin::derived("the fixture"),
        };
        world.subject.own.connections = Observed::seen(vec![connection], Origin::derived("the fixture"));
        assert_eq!(kinds(&world.plan()), ["restart"]);
    }

    #[test]
    fn a_new_authority_outside_every_mount_is_made_and_mounted() {
        let mut world = World::plaintext();
        let [certificate, key] = ["crt", "key"].map(|end| format!("/etc/peer-ca/ca.{end}"));
        world.options.authority = Some(AuthorityFiles { certificate, pem: None, key });
        let plan = world.plan();
        assert_eq!(kinds(&plan), ["authority", "issue", "edit", "restart"]);
        let lines = changed_lines(&plan);
        assert!(lines.contains(&"+    - --peer-trusted-ca-file=/etc/peer-ca/ca.crt".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|l| l.contains("mountPath: /etc/peer-ca")), "{lines:?}");
    }

    #[test]
    fn a_certificate_that_the_operator_supplies_is_used_where_it_is() {
        let mut world = World::plaintext();
        let (authority, _) = Issuer::create("peers", KeyKind::EcP256, world.taken_at).unwrap();
        let files = world.options.authority.as_mut().unwrap();
        (files.certificate, files.pem) =
            ("/opt/ca/ca.crt".to_owned(), Some(authority.pem().as_bytes().to_vec()));
        let profile = Profile::peer("m1", [Host::parse("10.77.0.1").unwrap()]);
        world.options.supplied = Some(supplied(&authority, &profile, world.taken_at));
        let plan = world.plan();
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Load, vec!["edit", "restart"]));
        assert_eq!(preflight(&plan, &world.input()), []);
        let bound = plan.steps[0].preconditions.last();
        assert!(matches!(bound, Some(Condition::Holds { spki: Some(_), .. })), "{plan:?}");
        let lines = changed_lines(&plan);
        for line in [
            "+    - --peer-cert-file=/etc/peers/m1.crt",
            "+    - --peer-key-file=/etc/peers/m1.key",
            "+    - --peer-trusted-ca-file=/opt/ca/ca.crt",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line}: {lines:#?}");
        }
        // Each folder is mounted, under a name of its own.
        for folder in ["/etc/peers", "/opt/ca"] {
            assert!(lines.iter().any(|l| l.contains(&format!("mountPath: {folder}"))), "{lines:#?}");
        }
        assert!(!serde_json::to_string(&plan).unwrap().contains("PRIVATE"));

        let Observed::Seen { value, .. } = &mut world.subject.process else { panic!() };
        (value.uid, value.gid) = (100, 100);
        let (kind, said) = refused(&world);
        assert!(kind == RefusalKind::Access && said.contains("cannot read /etc/peers/m1.key"), "{said}");
        let mut elsewhere = World::plaintext();
        let profile = Profile::peer("m1", [Host::parse("10.9.9.9").unwrap()]);
        elsewhere.options = world.options.clone();
        elsewhere.options.supplied = Some(supplied(&authority, &profile, world.taken_at));
        let (kind, said) = refused(&elsewhere);
        assert!(kind == RefusalKind::Certificate && said.contains("10.77.0.1"), "{said}");
        elsewhere.options.authority.as_mut().unwrap().pem = None;
        assert_eq!(refused(&elsewhere).0, RefusalKind::Authority);
    }

    #[test]
    fn each_source_is_edited_in_its_own_way() {
        let elsewhere = |world: &mut World, running: Origin, path: &str, kind, declared: &str, text: &str| {
            let Observed::Seen { value, .. } = &mut world.subject.declared else { panic!() };
            value[0].kind = kind;
            value[0].path = declared.to_owned();
            let Observed::Seen { value: promised, .. } = &mut value[0].settings else { panic!() };
            promised.get_mut("listen-peer-urls").unwrap().origin = Origin::file(path);
            world.settings().get_mut("listen-peer-urls").unwrap().origin = running;
            world.declaration.insert(
                0,
                Declaration { path: path.to_owned(), bytes: text.as_bytes().to_vec(), unrestorable: None },
            );
        };
        let argv = Origin::Argv { pid: 33, index: 10 };
        let variable = Origin::Environment { pid: 33, name: "ETCD_LISTEN_PEER_URLS".to_owned() };
        let service = "/usr/lib/systemd/system/etcd.service";
        let (pod, unit) = (DeclaredKind::StaticPod, DeclaredKind::SystemdUnit);
        let cases = [
            (Origin::file("/c"), "/etc/etcd/c.yaml", pod, MANIFEST, "name: m1\n", "+  trusted-ca-file: "),
            (
                variable.clone(),
                "/etc/default/etcd",
                unit,
                service,
                "ETCD_NAME=m1\n",
                "+ETCD_PEER_TRUSTED_CA_FILE=",
            ),
            (
                argv,
                service,
                unit,
                service,
                "[Service]\nExecStart=/usr/bin/etcd --name=m1\n",
                "+    --peer-trusted-ca-file=",
            ),
        ];
        for (running, path, kind, declared, text, want) in cases {
            let mut world = World::plaintext();
            elsewhere(&mut world, running, path, kind, declared, text);
            assert_eq!(declared_in(&world.subject).unwrap()[0], path);
            let plan = world.plan();
            let lines = changed_lines(&plan);
            assert!(lines.iter().any(|l| l.starts_with(want)), "{path}: {lines:#?}");
        }
        for (running, path, want) in [
            (variable, MANIFEST, "sets the variables of etcd"),
            (Origin::file("/c"), "/var/lib/rancher/rke2/server/db/etcd/config", "written anew"),
        ] {
            let mut world = World::plaintext();
            elsewhere(&mut world, running, path, pod, MANIFEST, "");
            let (kind, said) = refused(&world);
            assert!(kind == RefusalKind::Unsupported && said.contains(want), "{said}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_supported_is_refused_with_the_reason() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 7] = [
            ("no certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("the live membership", RefusalKind::Evidence, |w| {
                let Observed::Seen { value, .. } = &mut w.subject.own.cluster else { panic!() };
                value.source = MemberSource::DataDirectory;
            }),
            ("which member", RefusalKind::Evidence, |w| w.members().iter_mut().for_each(|m| m.this = false)),
            ("no static pod manifest and no systemd unit", RefusalKind::Unsupported, |w| {
                w.subject.declared = Observed::seen(Vec::new(), Origin::derived("the fixture"));
            }),
            ("self-made certificates", RefusalKind::Unsupported, |w| {
                let Observed::Seen { value, .. } = &mut w.subject.own.peer.auto_tls else { panic!() };
                value.in_effect = true;
            }),
            ("http and https peer URLs", RefusalKind::Unsupported, |w| {
                let urls = "http://10.77.0.1:2380,https://10.77.0.1:2385";
                w.settings().get_mut("listen-peer-urls").unwrap().value = urls.to_owned();
            }),
            ("without a certificate of its own", RefusalKind::Order, |w| w.advertise(1, "https")),
        ];
        for (words, kind, change) in cases {
            let mut world = World::plaintext();
            change(&mut world);
            let (found, said) = refused(&world);
            assert!(found == kind && said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn a_plan_is_bound_to_its_state() {
        let (before, mut after) = (World::loaded(), World::loaded());
        let state = before.plan().state;
        assert_eq!(state.differences(&after.plan().state), Vec::<String>::new());
        after.advertise(2, "https");
        after.declaration[0].bytes.extend(b"# a comment\n");
        let differences = state.differences(&after.plan().state).join("; ");
        assert!(
            differences.contains("peer URLs") && differences.contains("etcd.yaml has changed"),
            "{differences}"
        );
    }

    /// What another member really is, and what this node knows of it.
    #[derive(Clone, Debug)]
    struct Other {
        encrypted: bool,
        loaded: bool,
        known: bool,
    }

    fn world(own: (bool, bool, bool), others: &[Other]) -> World {
        let (has, advertises, listens) = own;
        let mut world = if has { World::loaded() } else { World::plaintext() };
        let template = world.members()[0].clone();
        world.members().retain(|m| m.this);
        world.progress.clear();
        let scheme = |tls| if tls { "https" } else { "http" };
        world.advertise(0, scheme(advertises));
        world.listen(scheme(listens));
        for (index, other) in others.iter().enumerate() {
            let mut member = template.clone();
            (member.id, member.name) = (format!("{index:x}"), format!("n{index}"));
            world.members().push(member);
            world.advertise(index + 1, scheme(other.encrypted));
            if other.known {
                world
                    .progress
                    .insert(format!("{index:x}"), record(other.loaded.then_some(Stage::Load), &world.issuer));
            }
        }
        world
    }

    /// Returns the cluster as it really is.
    fn truth(own: (bool, bool, bool), others: &[Other]) -> Vec<order::Member> {
        let scheme = |tls| if tls { Scheme::Https } else { Scheme::Http };
        let member = |name: String, has: bool, advertises, listens| order::Member {
            name,
            advertised: scheme(advertises),
            listens: BTreeSet::from([scheme(listens)]),
            leaf: has.then_some("CA"),
            trusts: has.then_some("CA").into_iter().collect(),
            demands: has,
        };
        let others = others.iter().enumerate().map(|(index, other)| {
            member(format!("n{index}"), other.loaded || other.encrypted, other.encrypted, other.encrypted)
        });
        [member("m1".to_owned(), own.0, own.1, own.2)].into_iter().chain(others).collect()
    }

    /// Returns what a plan really does.
    fn turn(plan: &Plan) -> Turn {
        let mut changes = Vec::new();
        for step in &plan.steps {
            match &step.action {
                Action::UpdateMember { .. } => changes.push(Change::Advertise(Scheme::Https)),
                Action::Restart { settings, .. } => {
                    let loads = settings.contains_key("peer-cert-file");
                    changes.push(Change::Restart {
                        listens: settings.get("listen-peer-urls").map(|_| BTreeSet::from([Scheme::Https])),
                        leaf: loads.then_some("CA"),
                        trusts: loads.then(|| BTreeSet::from(["CA"])),
                        demands: loads.then_some(true),
                    });
                }
                _ => {}
            }
        }
        Turn { member: 0, changes }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever the members are: a plan that waits for nobody parts no two of them, and where every member is
        /// somewhere on the way there is one.
        #[test]
        fn no_plan_parts_members(
            own in any::<(bool, bool, bool)>(),
            others in prop::collection::vec(
                any::<(bool, bool, bool)>().prop_map(|(encrypted, loaded, known)| Other { encrypted, loaded, known }),
                2..5,
            ),
        ) {
            let world = world(own, &others);
            let planned = world.planned(RULE);
            if let Ok(plan) = &planned && plan.waits_for.is_empty() && !plan.steps.is_empty() {
                prop_assert_eq!(order::check(&truth(own, &others), &[turn(plan)]), Ok(()));
            }
            let everybody_loaded = own.0 && others.iter().all(|o| o.loaded);
            let consistent = own.1 == own.2 && (own.0 || !own.1);
            let nobody_ahead = everybody_loaded || (!own.1 && others.iter().all(|o| !o.encrypted));
            if consistent && nobody_ahead {
                prop_assert!(planned.is_ok(), "{planned:?}");
            }
        }
    }
}
