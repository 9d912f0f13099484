//! From plaintext to TLS on the client port of a live cluster.
//!
//! etcd answers both on one port when it is given both URLs, so nobody has to change at the same moment as somebody else.
//! It goes in three rounds. First every member *serves* TLS beside plaintext. What it announces stays `http`, because
//! a client that learns it from the membership, another node's turn of this very fix included, may not have the CA yet. Then a
//! person moves the clients. A node whose clients have moved *announces* `https`, which is how the others learn that it
//! has; clients that follow the membership have time to. Once all members announce it, each *closes* plaintext.
//!
//! A member that serves TLS anew demands a certificate from its clients at once: none uses TLS yet, so none is cut
//! off, and nobody has to change twice.

use std::collections::BTreeMap;

use seaworthy_evidence::{Member, Url};

use super::clients::{Material, Served, Terms, keys};
use crate::plan::{Condition, Plan, Refusal, RefusalKind, Stage, Until};
use crate::planner::{Input, Planner, refuse};
use crate::progress::record_for;
use crate::rollouts::{Dialling, Done, Rollout, Round};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-tls";

/// Returns what takes the client port from plaintext to TLS, as far as it can go by now.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *input)?.client_tls()
}

/// Returns a round that changes nothing of how members dial each other.
fn waited_for<'a>(stage: Stage, done: Done<'a>, until: Until) -> Round<'a> {
    Round { stage, done, until: Some([until; 2]), effect: Vec::new() }
}

/// Returns whether clients are told to dial the member with TLS.
fn announces(member: &Member) -> bool {
    !member.client_urls.is_empty() && member.client_urls.iter().all(|url| url.scheme != "http")
}

fn secured(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.replacen("http://", "https://", 1)).collect()
}

impl Planner<'_> {
    fn client_tls(&self) -> Result<Plan, Refusal> {
        let listens = self.client_listeners()?;
        if self.self_made()? {
            return Err(refuse(
                RefusalKind::Unsupported,
                "it serves clients with a certificate of its own making (auto-tls)",
                "which no client can verify, so none can be moved to it safely",
                "replace it first: seaworthy fix etcd-client-auto-tls",
            ));
        }
        let plain: Vec<&Url> = listens.iter().filter(|url| url.scheme == "http").collect();
        let beside = |plain: &&&Url| {
            !listens.iter().any(|url| url.is_tls() && url.host == plain.host && url.port == plain.port)
        };
        let alone: Vec<&Url> = plain.iter().filter(beside).copied().collect();
        match (plain.is_empty(), alone.is_empty(), announces(self.me)) {
            (true, _, true) => Ok(self.client_round(Stage::Done, Vec::new())),
            (false, false, _) => self.serve(&listens, &alone),
            (_, _, false) => self.announce(!plain.is_empty()),
            (false, true, true) => self.close(&listens),
        }
    }

    /// Returns the steps after which it serves TLS beside plaintext.
    fn serve(&self, listens: &[Url], alone: &[&Url]) -> Result<Plan, Refusal> {
        let (authority, cas) = self.authority_for_clients()?;
        let used = listens.iter().any(Url::is_tls);
        let demanding = self.given("trusted-ca-file").is_some();
        let trusted = self.s.subject.client.files.value().and_then(|c| c.trusted.as_ref()?.value());
        let trusted = trusted.filter(|_| demanding).unwrap_or(&cas);
        let unfit = match self.given("cert-file") {
            Some(_) => self.unfit(trusted),
            None => Some("it has no certificate".to_owned()),
        };
        let Material { mut steps, mut settings, mut mounts } = match unfit {
            None => Material { steps: Vec::new(), settings: BTreeMap::new(), mounts: Vec::new() },
            // Clients use it already, and may trust no other.
            Some(what) if used => {
                return Err(refuse(
                    RefusalKind::Certificate,
                    what,
                    "clients that use TLS could not connect where plaintext is served now",
                    "replace the certificate first; etcd reads it anew at every handshake",
                ));
            }
            Some(_) if demanding && !keys(&cas).is_subset(&keys(trusted)) => {
                return Err(refuse(
                    RefusalKind::Authority,
                    format!("{} is not among the CAs in trusted-ca-file", authority.certificate),
                    "etcd and this tool could not verify what it issues",
                    "name an authority that etcd trusts with --ca-cert and --ca-key",
                ));
            }
            Some(_) => self.new_material(authority)?,
        };
        if !demanding && !used {
            let (path, mount) = self.seen_file(&authority.certificate);
            settings.insert("trusted-ca-file".to_owned(), path);
            settings.insert("client-cert-auth".to_owned(), "true".to_owned());
            mounts.extend(mount);
        }
        let added = alone.iter().map(|url| url.text.replacen("http://", "https://", 1));
        let both: Vec<String> = added.chain(listens.iter().map(|url| url.text.clone())).collect();
        settings.insert("listen-client-urls".to_owned(), both.join(","));
        if self.given("advertise-client-urls").is_none() {
            // etcd does not start with the one and without the other.
            let urls: Vec<String> = self.me.client_urls.iter().map(|url| url.text.clone()).collect();
            let default = self.settings.get("advertise-client-urls").map(|s| s.value.clone());
            let urls = if urls.is_empty() { default.unwrap_or_default() } else { urls.join(",") };
            settings.insert("advertise-client-urls".to_owned(), urls);
        }
        mounts.dedup();
        steps.extend(self.hand_over(|m| announces(m) || self.known_to_serve(m) == Some(true)));
        steps.push(self.edit(
            "Let it serve clients with TLS beside plaintext",
            "etcd answers both on one port, so clients go on as they are and can be moved one by one. Clients are told \
             http still: not all who ask have the CA yet.",
            &settings,
            mounts,
        )?);
        let demands = settings.contains_key("trusted-ca-file") || self.demands()?.is_some();
        steps.push(self.restart(settings, self.verify_clients(demands)));
        Ok(self.client_round(Stage::Serve, steps))
    }

    /// Returns the steps after which the membership says that it serves clients with TLS.
    fn announce(&self, plaintext: bool) -> Result<Plan, Refusal> {
        let demanded = self.demands()?;
        let demands = demanded.is_some();
        // Who announces says for all others to rely on that the clients of this node are ready for the end of plaintext.
        self.cuts_off(&Terms { tls_only: true, served: Served::Present(self.sound()?), demanded })?;
        let given = self.given("advertise-client-urls").map(|urls| urls.replace("http://", "https://"));
        let urls = given.unwrap_or_else(|| secured(&self.me.client_urls).join(","));
        let settings = BTreeMap::from([("advertise-client-urls".to_owned(), urls)]);
        let mut steps: Vec<_> = self.hand_over(announces).into_iter().collect();
        steps.push(self.edit(
            "Tell clients to use TLS",
            if plaintext {
                "Its clients on this node use TLS, and every member serves it. Those that learn URLs from the membership \
                 have time to follow: plaintext is served until all members say so."
            } else {
                "It serves no plaintext, so what clients are told is wrong."
            },
            &settings,
            Vec::new(),
        )?);
        steps.push(self.restart(settings, self.verify_clients(demands)));
        Ok(self.client_round(Stage::Announce, steps))
    }

    /// Returns the steps after which plaintext is no longer served.
    fn close(&self, listens: &[Url]) -> Result<Plan, Refusal> {
        let demanded = self.demands()?;
        let demands = demanded.is_some();
        self.cuts_off(&Terms { tls_only: true, served: Served::Present(self.sound()?), demanded })?;
        let left = listens.iter().filter(|url| url.scheme != "http").map(|url| url.text.clone());
        let left = left.collect::<Vec<_>>().join(",");
        let settings = BTreeMap::from([("listen-client-urls".to_owned(), left)]);
        let mut steps: Vec<_> = self.hand_over(announces).into_iter().collect();
        steps.push(self.edit(
            "Let it stop to serve plaintext",
            "The clients on every node use TLS by now. URLs for metrics only stay as they are.",
            &settings,
            Vec::new(),
        )?);
        let mut verify = self.verify_clients(demands);
        verify.extend([
            Condition::ClientPlaintextRefused,
            Condition::RulePasses { rule: self.rule.to_owned() },
        ]);
        steps.push(self.restart(settings, verify));
        Ok(self.client_round(Stage::Close, steps))
    }

    /// Returns whether another member serves clients with TLS, by what it has published.
    fn known_to_serve(&self, member: &Member) -> Option<bool> {
        let note = record_for(self.s.progress, &member.id, RULE)?;
        let served = |stage| matches!(stage, Stage::Serve | Stage::Announce | Stage::Close | Stage::Done);
        Some(note.reached.is_some_and(served))
    }

    /// Returns the plan of this stage, which says whom it waits for.
    fn client_round(&self, stage: Stage, steps: Vec<crate::plan::Step>) -> Plan {
        let (waits_for, then) = self.client_rollout().waiting(stage, self.members);
        self.for_clients(self.document(stage, waits_for, steps, then))
    }

    /// Returns the rounds in which the client port goes from plaintext to TLS.
    fn client_rollout(&self) -> Rollout<'_> {
        // That a member has closed is known from its progress record only; that it has not, of those on the way.
        let closed = |m: &Member| {
            let record = record_for(self.s.progress, &m.id, RULE);
            let on_the_way = |stage| matches!(stage, Stage::Serve | Stage::Announce);
            Some(announces(m) && !record.and_then(|record| record.reached).is_some_and(on_the_way))
        };
        let served = |m: &Member| if announces(m) { Some(true) } else { self.known_to_serve(m) };
        Rollout {
            rounds: vec![
                waited_for(Stage::Serve, Box::new(served), Until::Served),
                waited_for(Stage::Announce, Box::new(|m| Some(announces(m))), Until::Announced),
                waited_for(Stage::Close, Box::new(closed), Until::Closed),
            ],
            dialling: Dialling::Unchanged,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use seaworthy_evidence::{AutoTls, ErrorKind, EtcdClient, EvidenceError, Observed};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds, seen};
    use crate::plan::{Action, Waiting};
    use crate::preflight::preflight;
    use crate::progress::ProgressRecord;

    const BOTH: &str = "https://127.0.0.1:2379,http://127.0.0.1:2379";
    const URL: &str = "https://127.0.0.1:2379";

    pub(crate) fn plaintext() -> World {
        let mut world = World::loaded();
        world.clients_in_plaintext();
        world.progress.clear();
        world
    }

    /// Returns a member that serves both, with a client that has moved; the others do too.
    fn serving() -> World {
        let mut world = World::loaded();
        world.serve_clients(BOTH);
        (0..3).for_each(|index| world.announce(index, "http"));
        let ids: Vec<String> = world.members().iter().map(|m| m.id.clone()).collect();
        let at = world.taken_at;
        let note =
            ProgressRecord { reached: Some(Stage::Serve), ..ProgressRecord::new(RULE, "m2", "node", at) };
        world.progress = ids.into_iter().map(|id| (id, note.clone())).collect();
        world.clients = Ok(vec![world.api_server(&[URL])]);
        world
    }

    fn waits(waiting: &[Waiting]) -> Vec<(&str, Until)> {
        waiting.iter().map(|w| (w.member.as_str(), w.until)).collect()
    }

    #[test]
    fn first_it_serves_both_and_nobody_has_to_know() {
        let world = plaintext();
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Serve, vec!["issue", "edit", "restart"]));
        let pki = "/etc/kubernetes/pki/etcd";
        assert_eq!(
            changed_lines(&plan),
            [
                "---listen-client-urls=http://127.0.0.1:2379,http://10.77.0.1:2379".to_owned(),
                "+    - \"--listen-client-urls=https://127.0.0.1:2379,https://10.77.0.1:2379,http://127.0.0.1:2379,\
                 http://10.77.0.1:2379\""
                    .to_owned(),
                format!("+--cert-file={pki}/seaworthy-server.crt"),
                "+--client-cert-auth=true".to_owned(),
                format!("+--key-file={pki}/seaworthy-server.key"),
                format!("+--trusted-ca-file={pki}/ca.crt"),
            ]
        );
        let Action::Issue { hosts, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(hosts, &["10.77.0.1", "127.0.0.1", "localhost"]);
        assert!(plan.steps[2].verify.contains(&Condition::ClientMutualTls));
        assert_eq!(plan.waits_for, []);
        assert_eq!(waits(&plan.then_waits_for), [("m2", Until::Served), ("m3", Until::Served)]);
        assert!(
            plan.by_hand[0].contains("--etcd-cafile") && plan.by_hand[0].contains("https://10.77.0.2:2379")
        );
        assert_eq!(preflight(&plan, &world.input()), []);
    }

    #[test]
    fn a_certificate_that_does_is_used_and_another_one_is_not() {
        let mut world = serving();
        world.serve_clients("http://127.0.0.1:2379");
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Serve, vec!["edit", "restart"]));
        assert_eq!(changed_lines(&plan).len(), 2, "only the URLs: {:?}", changed_lines(&plan));
        // It names 127.0.0.1 and 10.77.0.1 only.
        world.serve_clients("http://127.0.0.1:2379,http://10.9.9.9:2379");
        let Observed::Seen { value, .. } = &mut world.subject.client.files else { panic!() };
        value.trusted = Some(seen(Vec::new()));
        let (kind, said) = world.refused(RULE);
        assert!(kind == RefusalKind::Authority && said.contains("not among the CAs"), "{said}");
        let trusted = world.authority();
        let Observed::Seen { value, .. } = &mut world.subject.client.files else { panic!() };
        value.trusted = Some(seen(trusted));
        assert_eq!(kinds(&world.plan_for(RULE)), ["issue", "edit", "restart"]);
        // Where TLS is used already, a certificate in use is not replaced.
        world.serve_clients("https://127.0.0.1:2379,http://10.9.9.9:2379");
        let (kind, said) = world.refused(RULE);
        assert!(kind == RefusalKind::Certificate && said.contains("does not name 10.9.9.9"), "{said}");
    }

    #[test]
    fn etcd_is_not_given_listeners_without_what_it_announces() {
        let mut world = plaintext();
        let setting = world.settings().get_mut("advertise-client-urls").unwrap();
        setting.origin = seaworthy_evidence::Origin::Default { component: "etcd".into(), version: None };
        world.declare();
        let lines = changed_lines(&world.plan_for(RULE));
        let want = "+--advertise-client-urls=http://10.77.0.1:2379".to_owned();
        assert!(lines.contains(&want), "{lines:?}");
    }

    #[test]
    fn then_it_announces_and_last_it_closes() {
        let mut world = serving();
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Announce, vec!["edit", "restart"]));
        assert_eq!(
            changed_lines(&plan),
            [
                "---advertise-client-urls=http://10.77.0.1:2379",
                "+--advertise-client-urls=https://10.77.0.1:2379"
            ]
        );
        assert_eq!(plan.waits_for, []);
        assert_eq!(waits(&plan.then_waits_for), [("m2", Until::Announced), ("m3", Until::Announced)]);
        assert_eq!(preflight(&plan, &world.input()), []);
        world.progress.clear();
        world.announce(2, "https");
        assert_eq!(waits(&world.plan_for(RULE).waits_for), [("m3", Until::Served)]);

        let mut world = serving();
        world.announce(1, "https");
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, kinds(&plan)), (Stage::Close, vec!["edit", "restart"]));
        assert_eq!(waits(&plan.waits_for), [("m2", Until::Announced), ("m3", Until::Announced)]);
        (0..3).for_each(|index| world.announce(index, "https"));
        let plan = world.plan_for(RULE);
        let lines = changed_lines(&plan);
        assert_eq!(plan.waits_for, []);
        assert_eq!(lines[1], "+--listen-client-urls=https://127.0.0.1:2379");
        assert!(plan.steps[1].verify.contains(&Condition::ClientPlaintextRefused));
        assert_eq!(preflight(&plan, &world.input()), []);

        world.serve_clients(URL);
        let plan = world.plan_for(RULE);
        assert_eq!((plan.stage, plan.steps.len()), (Stage::Done, 0));
        assert_eq!(waits(&plan.then_waits_for), [("m2", Until::Closed), ("m3", Until::Closed)]);
        world.progress.clear();
        assert_eq!(world.plan_for(RULE).then_waits_for, []);
    }

    #[test]
    fn a_leader_hands_over_to_one_that_is_ahead() {
        let mut world = serving();
        world.announce(2, "https");
        let members = world.members().clone();
        world.health.as_mut().unwrap().leader = Some(members[1].id.clone());
        let plan = world.plan_for(RULE);
        assert_eq!(kinds(&plan), ["leader", "edit", "restart"]);
        let Action::MoveLeader { to } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(to, &[members[2].id.clone(), members[0].id.clone()]);
    }

    #[test]
    fn a_known_client_that_would_be_cut_off_is_named_whatever_the_operator_says() {
        type Break = fn(&mut EtcdClient);
        let cases: [(&str, Break); 12] = [
            ("dials etcd without TLS, at http://127.0.0.1:2379", |c| {
                c.endpoints = seen(vec![Url::parse("http://127.0.0.1:2379").unwrap()]);
            }),
            ("give it --etcd-servers=https://10.77.0.3:2379,", |c| {
                c.endpoints = seen(vec![Url::parse("http://10.77.0.3:2379").unwrap()]);
            }),
            ("dials etcd without TLS, at http://etcd.example:2379", |c| {
                c.endpoints = seen(vec![Url::parse("http://etcd.example:2379").unwrap()]);
            }),
            ("does not name other.example", |c| {
                c.endpoints = seen(vec![Url::parse("https://other.example:2379").unwrap()]);
            }),
            ("does not trust the CA", |c| c.accepts = Some(seen(Vec::new()))),
            ("does not trust the CA", |c| (c.accepts, c.credentials.trusted) = (None, None)),
            ("has no --etcd-certfile", |c| c.credentials.chain = None),
            ("has no --etcd-keyfile", |c| c.credentials.key = None),
            ("has a key that is not its certificate's", |c| c.credentials.key_matches = Some(seen(false))),
            ("that has expired", |c| leaf(c).not_after = jiff::Timestamp::UNIX_EPOCH),
            ("that is not for clientAuth", |c| leaf(c).usages = Some(vec!["serverAuth".to_owned()])),
            ("of another CA than etcd trusts", |c| c.accepted_by = Some(seen(vec!["else".to_owned()]))),
        ];
        for announced in [false, true] {
            for (words, change) in cases {
                let mut world = serving();
                world.options.clients_are_ready = true;
                if announced {
                    (0..3).for_each(|index| world.announce(index, "https"));
                }
                assert!(!world.plan_for(RULE).steps.is_empty());
                change(&mut world.clients.as_mut().unwrap()[0]);
                let (kind, said) = world.refused(RULE);
                assert!(kind == RefusalKind::Client && said.contains(words), "{words}: {said}");
            }
        }
    }

    fn leaf(client: &mut EtcdClient) -> &mut seaworthy_evidence::Certificate {
        match client.credentials.chain.as_mut().unwrap() {
            Observed::Seen { value, .. } => &mut value[0],
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    #[test]
    fn of_clients_that_are_not_seen_the_operator_must_know() {
        type Blind = fn(&mut World);
        let cases: [(&str, Blind); 5] = [
            ("permission denied", |w| w.clients = Err("permission denied".to_owned())),
            ("no API server that uses it runs on this node", |w| w.clients = Ok(Vec::new())),
            ("no API server that uses it", |w| {
                w.clients = Ok(vec![w.api_server(&["https://10.1.1.1:2379", "https://127.0.0.1:4001"])]);
            }),
            ("whom kube-apiserver (pid 900) trusts: hidden", |w| {
                w.clients.as_mut().unwrap()[0].accepts = Some(hidden());
            }),
            ("the certificate of kube-apiserver (pid 900): hidden", |w| {
                w.clients.as_mut().unwrap()[0].accepted_by = Some(hidden());
            }),
        ];
        fn hidden<T>() -> Observed<T> {
            Observed::failed(EvidenceError::new(ErrorKind::PermissionDenied, "hidden"))
        }
        for (words, blind) in cases {
            let mut world = serving();
            blind(&mut world);
            let (kind, said) = world.refused(RULE);
            assert_eq!(kind, RefusalKind::Client);
            assert!(said.contains(words), "{words}: {said}");
            assert!(said.contains("loses it at once") && said.contains("--clients-are-ready"), "{said}");
            world.options.clients_are_ready = true;
            assert_eq!(world.plan_for(RULE).stage, Stage::Announce);
        }
        // What harms nobody needs no word.
        assert_eq!(plaintext().plan_for(RULE).stage, Stage::Serve);
    }

    #[test]
    fn a_probe_at_the_client_port_is_a_client_too() {
        let cases = [
            ("      httpGet: {port: 2379, scheme: HTTP}\n", true),
            ("      httpGet: {port: 2379, scheme: HTTPS}\n", true),
            ("      httpGet: {port: 2381}\n", false),
            ("      exec: {command: [etcdctl, endpoint, health]}\n", true),
            (
                "      exec: {command: [etcdctl, '--endpoints=https://127.0.0.1:2379', '--cert=/c', get]}\n",
                false,
            ),
        ];
        for (probe, refused) in cases {
            let mut world = serving();
            let text = String::from_utf8(world.declaration[0].bytes.clone()).unwrap();
            let text =
                text.replacen("    name: etcd\n", &format!("    livenessProbe:\n{probe}    name: etcd\n"), 1);
            world.declaration[0].bytes = text.into_bytes();
            if refused {
                let (kind, said) = world.refused(RULE);
                assert!(kind == RefusalKind::Client && said.contains("livenessProbe"), "{probe}: {said}");
            } else {
                assert_eq!(world.plan_for(RULE).stage, Stage::Announce, "{probe}");
            }
        }
    }

    #[test]
    fn what_is_not_known_or_not_supported_is_refused_with_the_reason() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 6] = [
            ("no certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("still to be made", RefusalKind::Authority, |w| {
                w.options.authority.as_mut().unwrap().pem = None
            }),
            ("holds no certificate", RefusalKind::Certificate, |w| {
                w.options.authority.as_mut().unwrap().pem = Some(Vec::new());
            }),
            ("auto-tls", RefusalKind::Unsupported, |w| {
                w.subject.own.client.auto_tls =
                    seen(AutoTls { requested: true, in_effect: true, why: String::new() });
            }),
            ("has a password", RefusalKind::Unsupported, |w| w.serve_clients("http://***@10.77.0.1:2379")),
            ("listen-client-http-urls", RefusalKind::Unsupported, |w| {
                let other = w.settings()["listen-client-urls"].clone();
                w.settings().insert("listen-client-http-urls".to_owned(), other);
            }),
        ];
        for (words, kind, change) in cases {
            let mut world = plaintext();
            change(&mut world);
            let (found, said) = world.refused(RULE);
            assert!(found == kind && said.contains(words), "{words}: {said}");
        }
        let mut world = serving();
        world.subject.client.problems = Observed::failed(EvidenceError::new(ErrorKind::Io, "unreadable"));
        assert_eq!(world.refused(RULE).0, RefusalKind::Evidence);
    }
}
