//! From plaintext to TLS on the client port of a live cluster.
//!
//! etcd answers both on one port when it is given both URLs, so nobody has to change at the same moment as somebody else.
//! It goes in three rounds. First every member *serves* TLS beside plaintext. What it announces stays `http`, because
//! whoever learns it from the membership, the other nodes' turns of this very fix included, may not have the CA yet. Then a
//! person moves the clients. A node whose clients have moved *announces* `https`, which is how the others learn that it
//! has; clients that follow the membership have time to. Once all members announce it, each *closes* plaintext.
//!
//! A member that serves TLS anew demands a certificate from whoever uses it, at once: nobody does yet, so nobody is cut
//! off, and nobody has to change twice.

use std::collections::BTreeMap;

use seaworthy_evidence::{Member, Url};

use super::clients::{Material, Served, Terms, keys};
use super::{Planner, Situation, called, refuse};
use crate::plan::{Objection, Plan, Refusal, Stage, Until, Verification, Waiting};

/// The rule that the plan is for.
pub(crate) const RULE: &str = "etcd-client-tls";

/// Returns what takes the client port from plaintext to TLS, as far as it can go by now.
pub(super) fn plan(situation: &Situation<'_>) -> Result<Plan, Refusal> {
    Planner::new(RULE, *situation)?.client_tls()
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
                Objection::Unsupported,
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
        let (authority, cas) = self.authority()?;
        let used = listens.iter().any(Url::is_tls);
        let demanding = self.given("trusted-ca-file").is_some();
        let trusted = self.s.etcd.client.credentials.value().and_then(|c| c.trusted.as_ref()?.value());
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
                    Objection::Certificate,
                    what,
                    "clients that use TLS could not connect where plaintext is served now",
                    "replace the certificate first; etcd reads it anew at every handshake",
                ));
            }
            Some(_) if demanding && !keys(&cas).is_subset(&keys(trusted)) => {
                return Err(refuse(
                    Objection::Authority,
                    format!("{} is not among the CAs in trusted-ca-file", authority.certificate),
                    "etcd and this tool could not verify what it issues",
                    "name an authority that etcd trusts with --ca-cert and --ca-key",
                ));
            }
            Some(_) => self.new_material(authority)?,
        };
        if !demanding && !used {
            let (path, mount) = self.authority_seen(authority);
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
        verify.extend([Verification::ClientPlaintextRefused, Verification::RulePasses]);
        steps.push(self.restart(settings, verify));
        Ok(self.client_round(Stage::Close, steps))
    }

    /// Returns whether another member serves clients with TLS, by what it left word of.
    fn known_to_serve(&self, member: &Member) -> Option<bool> {
        let note = self.s.notes.get(&member.id).filter(|note| note.rule == RULE)?;
        let served = |stage| matches!(stage, Stage::Serve | Stage::Announce | Stage::Close | Stage::Done);
        Some(note.reached.is_some_and(served))
    }

    /// Returns the plan of this stage, which says whom it waits for.
    fn client_round(&self, stage: Stage, steps: Vec<crate::plan::Step>) -> Plan {
        let others = self.others();
        let waiting = |wanted: &dyn Fn(&Member) -> bool, until: Until| -> Vec<Waiting> {
            let wanted = others.iter().filter(|m| wanted(m));
            wanted.map(|m| Waiting { member: called(m).to_owned(), until }).collect()
        };
        let unserved = || waiting(&|m| !announces(m) && self.known_to_serve(m) != Some(true), Until::Served);
        let unannounced = || waiting(&|m| !announces(m), Until::Announced);
        // That one has closed is left word of only; that it has not is known of who is on the way.
        let open = |member: &Member| {
            let note = self.s.notes.get(&member.id).filter(|note| note.rule == RULE);
            let reached = note.and_then(|note| note.reached);
            !announces(member) || reached.is_some_and(|s| matches!(s, Stage::Serve | Stage::Announce))
        };
        let (waits_for, then) = match stage {
            Stage::Serve => (Vec::new(), unserved()),
            Stage::Announce => (unserved(), unannounced()),
            Stage::Close => (unannounced(), waiting(&open, Until::Closed)),
            _ => (Vec::new(), waiting(&open, Until::Closed)),
        };
        self.document(stage, waits_for, steps, then)
    }
}
