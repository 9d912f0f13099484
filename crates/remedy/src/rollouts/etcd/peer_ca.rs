//! From one authority of the peers to another, which serves nobody else.
//!
//! It goes in three rounds, because members that present certificates of one authority and trust only the other are
//! parted: first every member trusts both, then every one presents a certificate of the new one, and then each drops the
//! former. etcd reads what it trusts when it starts, so the first and the last round cost a restart. So does the second
//! here, although etcd would read another certificate in the same file at the next handshake: two files cannot be
//! exchanged at one instant, and a handshake in between is refused; what a process was started with is known for certain;
//! and the former files stay as they are, to go back to.
//!
//! How far this member is, is read from what it trusts and serves. Of the others, their progress tell what they trust, which
//! counts for the same new authority only, and their peer ports what they present.

use seaworthy_evidence::{Member, Origin};
use seaworthy_pki::{Parsed, certificates_from_pem};

use super::peers::{accepted, bundled, roots};
use super::trust::{INSTEAD, NEW, OTHER, member, new_roots, restart};
use crate::planner::{AuthorityFiles, Changes, Input, Planner, called, missing, refuse};
use crate::progress::ProgressRecord;
use crate::rollouts::{Dialling, Rollout, Round};
use seaworthy_journal::files::sha256;

use crate::plan::{Action, AuthorityId, Condition, Plan, Refusal, RefusalKind, Stage, Step, Until};
use seaworthy_edit::manifest;

/// The rule against certificates of others that pass for a peer's.
pub(crate) const RULE: &str = "etcd-peer-ca";
/// The rule against authorities that serve others than etcd, too.
pub(crate) const UNIQUE: &str = "etcd-unique-ca";

/// Names of files of certificates that members trust, the first of which that is free is taken.
const BUNDLES: [&str; 4] =
    ["seaworthy-peer-cas", "seaworthy-peer-cas-2", "seaworthy-peer-cas-3", "seaworthy-peer-cas-4"];
/// Names of a certificate and its key, likewise.
pub(crate) const LEAVES: [&str; 4] =
    ["seaworthy-peer", "seaworthy-peer-2", "seaworthy-peer-3", "seaworthy-peer-4"];

/// Returns what takes the member on to the new authority, as far as it can go by now.
pub(crate) fn plan(rule: &'static str, input: &Input<'_>) -> Result<Plan, Vec<Refusal>> {
    Planner::new(rule, *input)?.exchange()
}

/// Returns the progress record of a member about such an exchange, whichever rule it is for.
fn record_of<'a>(input: &Input<'a>, member: &Member) -> Option<&'a ProgressRecord> {
    input.progress.get(&member.id).filter(|record| [RULE, UNIQUE].contains(&record.rule.as_str()))
}

/// Returns how far a member is on its way to this authority, by what it has published.
pub(crate) fn reached(input: &Input<'_>, member: &Member, authority: &Parsed) -> Option<Stage> {
    let same =
        |note: &&ProgressRecord| note.authority.as_deref() == Some(authority.certificate.key.spki.as_str());
    record_of(input, member).filter(same)?.reached
}

/// Returns whether a member is known to trust this authority.
pub(crate) fn trusts(input: &Input<'_>, member: &Member, authority: &Parsed) -> bool {
    let reached = reached(input, member, authority);
    matches!(reached, Some(Stage::Trust | Stage::Present | Stage::Distrust | Stage::Done))
}

/// Returns whether a member is known to present a certificate of this authority: it says so, and its peer port does not
/// say otherwise.
pub(crate) fn presents(input: &Input<'_>, member: &Member, authority: &Parsed) -> bool {
    let reached = reached(input, member, authority);
    matches!(reached, Some(Stage::Present | Stage::Distrust | Stage::Done))
        && accepted(input, std::slice::from_ref(authority), member) != Some(false)
}

/// Returns the authorities that the member trusts, as its file is now.
pub(crate) fn trusted(input: &Input<'_>) -> Result<Vec<Parsed>, Refusal> {
    let bytes = input.trusted.ok_or_else(|| missing("the file that peer-trusted-ca-file names"))?;
    certificates_from_pem(bytes, Origin::derived("peer-trusted-ca-file"), input.taken_at).map_err(missing)
}

/// Returns how others are told which authority this is.
pub(crate) fn identity(authority: &Parsed) -> AuthorityId {
    let certificate = &authority.certificate;
    AuthorityId { spki: certificate.key.spki.clone(), subject: certificate.subject.clone() }
}

/// Returns whether one of `all` has the same key.
pub(crate) fn is_among(one: &Parsed, all: &[Parsed]) -> bool {
    all.iter().any(|other| other.certificate.key.spki == one.certificate.key.spki)
}

impl Planner<'_> {
    fn exchange(&self) -> Result<Plan, Vec<Refusal>> {
        let done = || Ok(self.document(Stage::Done, Vec::new(), Vec::new(), Vec::new()));
        let fails = self.is_shared()?;
        let begun = |note: &ProgressRecord| {
            note.under_way.is_some()
                || matches!(note.reached, Some(Stage::Create | Stage::Trust | Stage::Present))
        };
        let begun = |m: &Member| record_of(&self.s, m).is_some_and(begun);
        let ahead = self.others().into_iter().find(|m| begun(m));
        let authority = self.s.options.authority.as_ref();
        let new = authority.map(|authority| self.new_root(authority)).transpose();
        let trusted = trusted(&self.s);
        let trusts_new = match (&new, &trusted) {
            (Ok(Some(Some(new))), Ok(trusted)) => is_among(new, trusted),
            _ => false,
        };
        let over = record_of(&self.s, self.me).is_some_and(|n| n.reached == Some(Stage::Distrust));
        if !fails && (over || (ahead.is_none() && !begun(self.me) && !trusts_new)) {
            return done();
        }
        self.over_tls()?;
        self.usual_identity()?;
        self.connected()?;
        self.loaded_as_on_disk()?;
        let authority = authority.ok_or_else(|| {
            refuse(
                RefusalKind::Authority,
                "there is no new certificate authority with its key on this node",
                "the members' certificates are to be issued by one that issues nothing else",
                "have one made on one node with --new-ca, copy it to the others, and name it there with --ca-cert \
                 and --ca-key",
            )
        })?;
        let trusted = trusted?;
        let Some(new) = new?.flatten() else { return self.create(authority, ahead) };
        self.serves_nobody_else(authority, &new, &trusted)?;
        let own = std::slice::from_ref(&new);
        let presents_new = accepted(&self.s, own, self.me)
            .ok_or_else(|| missing("the certificate that its own peer port serves"))?;
        let trusts_old = trusted.iter().any(|root| !is_among(root, own));
        let mut plan = match (trusts_new, presents_new, trusts_old) {
            (false, false, true) => self.trust_both(authority, &new),
            (true, false, true) => self.present(authority, &new),
            (true, true, true) => self.distrust(authority, &new),
            (true, true, false) if !fails => done(),
            (true, true, false) => Err(refuse(
                RefusalKind::Authority,
                format!("{} is the authority that the peers use already", authority.certificate),
                "the rule fails with it",
                "have another one made with --new-ca, at paths that are given with --ca-cert and --ca-key",
            )
            .into()),
            _ => Err(refuse(
                RefusalKind::Order,
                "it presents a certificate of an authority that it does not trust itself",
                "its peers, if they are like it, do not accept it at its next restart",
                "let it trust both authorities first: name a file with both in peer-trusted-ca-file, and restart it",
            )
            .into()),
        }?;
        plan.authority = Some(identity(&new));
        Ok(plan)
    }

    /// Returns whether the rule fails because of the authority of the peers.
    ///
    /// # Errors
    ///
    /// When it fails because of that of the clients, whom nobody here can give other certificates.
    fn is_shared(&self) -> Result<bool, Refusal> {
        let auth = self.s.subject.own.peer.client_auth.as_result().map_err(missing)?;
        if !auth.enforced || auth.system_roots {
            return Err(refuse(
                RefusalKind::Unsupported,
                "it does not demand certificates of an authority of the peers",
                "which one that is does not matter before it does",
                "let it demand certificates first: seaworthy fix etcd-peer-authentication",
            ));
        }
        if self.rule == RULE {
            return Ok(!self.s.subject.own.impostors.as_result().map_err(missing)?.is_empty());
        }
        if !self.settings.get("trusted-ca-file").is_some_and(|s| s.set) {
            return Err(refuse(
                RefusalKind::Unsupported,
                "it has no CA for its clients",
                "which one that is does not matter before it demands their certificates",
                "let it demand certificates of clients first: seaworthy fix etcd-client-authentication",
            ));
        }
        let shared = self.s.subject.own.shared_cas.as_result().map_err(missing)?;
        let of_clients = self.trusted_for_clients()?;
        if let Some(ca) = shared.iter().find(|ca| of_clients.contains(&ca.spki)) {
            return Err(refuse(
                RefusalKind::Unsupported,
                format!("etcd trusts {} for clients: {}", ca.subject, ca.message),
                "the API servers and all other clients need other certificates as well, on their own nodes, and who \
                 has none when etcd drops the former authority is locked out",
                "by hand, each point on all nodes before the next: make an authority for etcd; let trusted-ca-file, and \
                 --etcd-cafile of the API servers, name a file with both, and restart one after the other; issue \
                 anew by it what cert-file of each member and --etcd-certfile of each API server name, and the \
                 certificates of all other clients, and restart the API servers; let trusted-ca-file and \
                 --etcd-cafile name the new one alone, and restart one after the other; then plan again, for the peers",
            ));
        }
        Ok(!shared.is_empty())
    }

    /// Returns the keys of the authorities that are trusted for clients.
    fn trusted_for_clients(&self) -> Result<Vec<String>, Refusal> {
        let credentials = self.s.subject.client.files.as_result().map_err(missing)?;
        let Some(trusted) = &credentials.trusted else { return Ok(Vec::new()) };
        Ok(trusted.as_result().map_err(missing)?.iter().map(|c| c.key.spki.clone()).collect())
    }

    /// Refuses a member that may run with other authorities than those in its file.
    fn loaded_as_on_disk(&self) -> Result<(), Refusal> {
        let drift = self.s.subject.drift.as_result().map_err(missing)?;
        match drift.iter().find(|drift| drift.subject == "the peer CA file") {
            None => Ok(()),
            Some(drift) => Err(refuse(
                RefusalKind::Order,
                drift.message.clone(),
                "what it would accept after the next restart is not what it accepts now",
                "put the file back as it was when the member was started, and plan again",
            )),
        }
    }

    /// Returns the certificate of an authority that is to be the only one of the peers; `None` when it is still to be
    /// made.
    pub(crate) fn new_root(&self, authority: &AuthorityFiles) -> Result<Option<Parsed>, Refusal> {
        let mut roots = roots(&self.s, authority)?;
        let root = roots.pop();
        match roots.len() {
            0 => Ok(root),
            _ => Err(refuse(
                RefusalKind::Authority,
                format!("{} holds several authorities", authority.certificate),
                "all of them would be trusted, and which one is to be the only one is not clear",
                "name a file with the one certificate of the new authority",
            )),
        }
    }

    /// Refuses an authority with which the rule would fail again.
    fn serves_nobody_else(
        &self,
        authority: &AuthorityFiles,
        new: &Parsed,
        trusted: &[Parsed],
    ) -> Result<(), Refusal> {
        let spki = &new.certificate.key.spki;
        let again = |what: String| {
            Err(refuse(
                RefusalKind::Authority,
                what,
                "certificates that were not meant for peers would be accepted as theirs",
                "have another one made with --new-ca, at paths that are given with --ca-cert and --ca-key",
            ))
        };
        let path = &authority.certificate;
        let shared = self.s.subject.own.shared_cas.value().into_iter().flatten().find(|ca| ca.spki == *spki);
        if let Some(ca) = shared {
            return again(format!("{path} is not for peers alone: {}", ca.message));
        }
        if self.rule == RULE && self.trusted_for_clients()?.contains(spki) {
            return again(format!("{path} is the authority of etcd's clients"));
        }
        let alone = trusted.iter().all(|root| root.certificate.key.spki == *spki);
        if alone && trusted.iter().any(|root| root.der() != new.der()) {
            return again(format!("{path} has the key of the authority that the peers use already"));
        }
        Ok(())
    }

    /// Returns the plan that makes the new authority, on one node only.
    pub(crate) fn create(
        &self,
        authority: &AuthorityFiles,
        ahead: Option<&Member>,
    ) -> Result<Plan, Vec<Refusal>> {
        if let Some(member) = ahead {
            return Err(refuse(
                RefusalKind::Authority,
                format!("{} has begun, with an authority that is not on this node", called(member)),
                "with one more the members would not accept each other's certificates",
                format!(
                    "copy that of {} to this node, and name it with --ca-cert and --ca-key",
                    called(member)
                ),
            )
            .into());
        }
        let files = self.s.subject.files.pki.value().into_iter().flatten();
        let paths = [&authority.certificate, &authority.key];
        if let Some(file) = files.map(|f| &f.file.path).find(|path| paths.contains(path)) {
            return Err(refuse(
                RefusalKind::Unrestorable,
                format!("{file} exists already"),
                "another authority may be in use there, and would be lost",
                "give paths for the new authority with --ca-cert and --ca-key",
            )
            .into());
        }
        Ok(self.document(Stage::Create, Vec::new(), vec![self.create_authority(authority)], Vec::new()))
    }

    /// Returns the plan after which the member trusts both authorities.
    fn trust_both(&self, authority: &AuthorityFiles, new: &Parsed) -> Result<Plan, Vec<Refusal>> {
        let named = self.given("peer-trusted-ca-file").and_then(|path| self.view.outside(path));
        let former = named.filter(|path| path.starts_with('/'));
        let former = former.ok_or_else(|| missing("where peer-trusted-ca-file is on the host"))?;
        let content = self.s.trusted.unwrap_or_default();
        let pem = authority.pem.as_deref().unwrap_or_default();
        let directory = self.peer_directory();
        let path = format!("{directory}/{}.crt", self.free(&directory, &BUNDLES, &["crt"])?);
        let bundle = bundled(&[content, pem], self.s.taken_at).map_err(missing)?;
        let (inside, mount) = self.seen_file(&path);
        let changes = Changes::setting([("peer-trusted-ca-file", inside)]);
        self.within_reach(&changes)?;
        let mut steps: Vec<Step> = self.hand_over(|m| trusts(&self.s, m, new)).into_iter().collect();
        let is = |path: &str, bytes: &[u8]| Condition::File { path: path.to_owned(), sha256: sha256(bytes) };
        steps.push(Step {
            title: "Put the former and the new authority into one file".to_owned(),
            why: "While members change over, certificates of both are about.".to_owned(),
            action: Action::Bundle {
                path: path.clone(),
                of: vec![former.clone(), authority.certificate.clone()],
                with: Vec::new(),
                after: sha256(&bundle),
            },
            diff: None,
            preconditions: vec![
                Condition::Absent { path: path.clone() },
                is(&former, content),
                is(&authority.certificate, pem),
            ],
            verify: Vec::new(),
            restarts: false,
        });
        steps.push(self.change(
            "Let it trust both authorities",
            "It presents what it did, and accepts more than before, so no member loses another by it.",
            &changes,
            mount.into_iter().collect(),
        )?);
        let verify = self.verified([Condition::Trusts { authorities: path }]);
        steps.push(self.restart(changes.effective(), verify));
        Ok(self.in_round(Stage::Trust, steps))
    }

    /// Returns the plan after which the member presents a certificate of the new authority.
    fn present(&self, authority: &AuthorityFiles, new: &Parsed) -> Result<Plan, Vec<Refusal>> {
        let directory = self.peer_directory();
        let stem = self.free(&directory, &LEAVES, &["crt", "key"])?;
        let (inside, mount) = self.seen(&directory);
        let changes = Changes::setting([
            ("peer-cert-file", format!("{inside}/{stem}.crt")),
            ("peer-key-file", format!("{inside}/{stem}.key")),
        ]);
        self.within_reach(&changes)?;
        let [certificate, key] = ["crt", "key"].map(|end| format!("{directory}/{stem}.{end}"));
        let mut steps: Vec<Step> = self.hand_over(|m| presents(&self.s, m, new)).into_iter().collect();
        steps.push(self.issue_from(authority, [certificate.clone(), key])?);
        steps.push(self.change(
            "Let it present a certificate of the new authority",
            "Every member trusts both authorities by now. The former files stay, to go back to; and the restart ends \
             connections that were made with the former certificate.",
            &changes,
            mount.into_iter().collect(),
        )?);
        let verify = self.verified([Condition::Serves { certificate }, Condition::MutualTls]);
        steps.push(self.restart(changes.effective(), verify));
        let mut plan = self.in_round(Stage::Present, steps);
        plan.by_hand.push(
            "`kubeadm certs renew` knows nothing of this certificate: renew it before it expires.".to_owned(),
        );
        Ok(plan)
    }

    /// Returns the plan after which the member trusts the new authority only.
    fn distrust(&self, authority: &AuthorityFiles, new: &Parsed) -> Result<Plan, Vec<Refusal>> {
        let (ca, mount) = self.seen_file(&authority.certificate);
        let changes = Changes::setting([("peer-trusted-ca-file", ca)]);
        self.within_reach(&changes)?;
        let over = |m: &Member| matches!(reached(&self.s, m, new), Some(Stage::Distrust | Stage::Done));
        let steps = self.trust_only(
            authority,
            over,
            [
                "Let it trust the new authority only",
                "No member presents a certificate of the former one any more. Until the last of them drops it, its \
                 certificates still open those that have not.",
            ],
            &changes,
            mount,
        )?;
        Ok(self.in_round(Stage::Distrust, steps))
    }

    /// Returns the steps of the last round, with the title and reason of their change: after them the member trusts
    /// `authority` only. Members for which the round is `over` can be handed the leadership.
    pub(crate) fn trust_only(
        &self,
        authority: &AuthorityFiles,
        over: impl Fn(&Member) -> bool,
        [title, why]: [&str; 2],
        changes: &Changes,
        mount: Option<manifest::Mount>,
    ) -> Result<Vec<Step>, Refusal> {
        let mut steps: Vec<Step> = self.hand_over(over).into_iter().collect();
        steps.push(self.change(title, why, changes, mount.into_iter().collect())?);
        let authorities = authority.certificate.clone();
        let verify = self.verified([
            Condition::Trusts { authorities },
            Condition::MutualTls,
            Condition::RulePasses { rule: self.rule.to_owned() },
        ]);
        steps.push(self.restart(changes.effective(), verify));
        Ok(steps)
    }

    /// Returns the step that makes a key and a certificate of exactly the authority that the plan was made with.
    pub(crate) fn issue_from(&self, authority: &AuthorityFiles, paths: [String; 2]) -> Result<Step, Refusal> {
        let mut step = self.issue(authority, paths)?;
        let content = authority.pem.as_deref().unwrap_or_default();
        let path = authority.certificate.clone();
        step.preconditions.push(Condition::File { path, sha256: sha256(content) });
        Ok(step)
    }

    /// Returns what is verified after a restart, these things included.
    pub(crate) fn verified<const N: usize>(&self, what: [Condition; N]) -> Vec<Condition> {
        let mut all = vec![Condition::LinksFull, Condition::ClusterHealthy];
        all.extend(what);
        all
    }

    /// Returns the plan of a round of the exchange, which says whom it waits for.
    fn in_round(&self, stage: Stage, steps: Vec<Step>) -> Plan {
        let waiting = rollout(&self.s).map(|rollout| rollout.waiting(stage, self.members));
        let (waits_for, then) = waiting.unwrap_or_default();
        self.document(stage, waits_for, steps, then)
    }
}

/// Returns the rounds in which the authority of the peers is exchanged; `None` before the new one is made.
pub(crate) fn rollout<'a>(input: &'a Input<'a>) -> Option<Rollout<'a>> {
    let new = new_roots(input);
    let authority = new.first()?.clone();
    let own = trusted(input).unwrap_or_default();
    let serves = {
        let new = new.clone();
        move |m: &Member| accepted(input, &new, m) == Some(true)
    };
    let serving = serves.clone();
    let [first, second, third] = [(); 3].map(|()| authority.clone());
    let own_too = own.clone();
    let trusts_new = move |m: &Member| match m.this {
        true => Some(is_among(&first, &own)),
        false => Some(trusts(input, m, &first)),
    };
    let presents_new = move |m: &Member| match m.this {
        true => Some(serves(m)),
        false => Some(presents(input, m, &second)),
    };
    let is_over = move |m: &Member| match m.this {
        true => Some(own_too.iter().all(|root| is_among(root, &new))),
        false => Some(matches!(reached(input, m, &third), Some(Stage::Distrust | Stage::Done))),
    };
    let model = move |m: &Member, behind: &[bool]| {
        let is_behind = |at: usize| behind.get(at) == Some(&true);
        let trusts = match (is_behind(0), is_behind(2)) {
            (true, true) => [NEW].as_slice(),
            (true, false) => &[NEW, OTHER],
            (false, _) => &[OTHER],
        };
        // What its port serves counts whatever it has published.
        let leaf = if is_behind(1) || serving(m) { NEW } else { OTHER };
        member(m, leaf, trusts, true)
    };
    Some(Rollout {
        rounds: vec![
            Round {
                stage: Stage::Trust,
                done: Box::new(trusts_new),
                until: Some([Until::Trusting; 2]),
                effect: vec![restart(None, Some(&[NEW, OTHER]), None)],
            },
            Round {
                stage: Stage::Present,
                done: Box::new(presents_new),
                until: Some([Until::Presenting; 2]),
                effect: vec![restart(Some(NEW), None, None)],
            },
            Round {
                stage: Stage::Distrust,
                done: Box::new(is_over),
                until: None,
                effect: vec![restart(None, Some(&[NEW]), None)],
            },
        ],
        dialling: Dialling::Changed { model: Box::new(model), instead: INSTEAD },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;
    use seaworthy_evidence::{Drift, Observed, SharedCa, Side};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds};
    use crate::issue::{Authority, KeyKind};
    use crate::order::{self, Scheme, Turn};
    use crate::preflight::preflight;

    fn planned(world: &World) -> Result<Plan, Vec<Refusal>> {
        world.planned(RULE)
    }

    fn origin() -> Origin {
        Origin::derived("the fixture")
    }

    fn spki(authority: &Authority) -> String {
        authority.certificate().certificate.key.spki.clone()
    }

    fn leave_word(world: &mut World, index: usize, stage: Stage, authority: Option<&Authority>) {
        let mut note = ProgressRecord::new(RULE, "m", "node", world.taken_at);
        (note.reached, note.authority) = (Some(stage), authority.map(spki));
        let id = world.id(index);
        world.progress.insert(id, note);
    }

    fn trust(world: &mut World, authorities: &[&Authority]) {
        world.trusted = Some(authorities.iter().map(|a| a.pem()).collect::<String>().into_bytes());
    }

    fn shared(authority: &Authority, path: &str) -> Observed<Vec<SharedCa>> {
        let ca = SharedCa {
            path: path.to_owned(),
            subject: "CN=kubernetes".to_owned(),
            spki: spki(authority),
            through: vec!["CN=kubernetes".to_owned()],
            message: String::new(),
            other_use: "kube-apiserver --client-ca-file /etc/kubernetes/pki/ca.crt".to_owned(),
            origin: origin(),
        };
        Observed::seen(vec![ca], origin())
    }

    /// Says that clients are accepted by this authority, too.
    fn accept_clients(world: &mut World, authority: &Authority) {
        let Observed::Seen { value, .. } = &mut world.subject.client.files else { panic!() };
        let certificate = authority.certificate().certificate.clone();
        value.trusted = Some(Observed::seen(vec![certificate], origin()));
    }

    /// What a member has behind it: nothing, or the first, the second, all of the three rounds.
    const STAGES: [Option<Stage>; 4] =
        [None, Some(Stage::Trust), Some(Stage::Present), Some(Stage::Distrust)];

    #[derive(Clone, Copy, Debug)]
    struct Other {
        rounds: usize,
        noted: bool,
        seen: bool,
    }

    fn world(own: usize, others: &[Other]) -> World {
        let (mut world, new) = World::shared_authority();
        let former = Arc::clone(&world.issuer);
        let issuer = |rounds: usize| if rounds > 1 { Arc::clone(&new) } else { Arc::clone(&former) };
        world.members().retain(|m| m.this);
        world.served.clear();
        world.options.two_members_stop = true;
        world.serve(0, &issuer(own));
        match own {
            0 => trust(&mut world, &[&former]),
            1 | 2 => trust(&mut world, &[&former, &new]),
            _ => trust(&mut world, &[&new]),
        }
        world.impostors(usize::from(own < 3));
        for (index, other) in others.iter().enumerate() {
            world.join(&format!("{index:x}"), &format!("n{index}"));
            if other.seen {
                world.serve(index + 1, &issuer(other.rounds));
            }
            if let Some(stage) = STAGES[other.rounds]
                && other.noted
            {
                leave_word(&mut world, index + 1, stage, Some(&new));
            }
        }
        world
    }

    /// Returns a member as it really is.
    fn truth(rounds: usize) -> order::Member {
        let trusts: &[&'static str] = [&["old"][..], &["old", "new"], &["old", "new"], &["new"]][rounds];
        order::Member {
            name: String::new(),
            advertised: Scheme::Https,
            listens: BTreeSet::from([Scheme::Https]),
            leaf: Some(if rounds > 1 { "new" } else { "old" }),
            trusts: trusts.iter().copied().collect(),
            demands: true,
        }
    }

    /// Returns what a plan really does.
    fn turn(member: usize, plan: &Plan) -> Turn {
        let (leaf, trusts) = match plan.stage {
            Stage::Trust => (None, Some(BTreeSet::from(["old", "new"]))),
            Stage::Present => (Some("new"), None),
            Stage::Distrust => (None, Some(BTreeSet::from(["new"]))),
            other => panic!("{other:?}"),
        };
        Turn { member, changes: vec![order::Change::Restart { listens: None, leaf, trusts, demands: None }] }
    }

    #[test]
    fn three_members_change_over_in_nine_turns() {
        for size in [1, 2, 3, 5] {
            let mut rounds = vec![0; size];
            let mut order = Vec::new();
            for _ in 0..3 * size {
                // The last member may go on as well as the first.
                let next = (0..size).rev().find_map(|me| {
                    let others = (0..size).filter(|other| *other != me);
                    let others: Vec<Other> = others
                        .map(|other| Other { rounds: rounds[other], noted: true, seen: true })
                        .collect();
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
                assert_eq!(STAGES[rounds[me]], Some(plan.stage));
                order.push(turn(me, &plan));
            }
            assert_eq!(rounds, vec![3; size]);
            assert_eq!(order::check_links(&vec![truth(0); size], &order), Ok(()));
            let others = vec![Other { rounds: 3, noted: true, seen: true }; size - 1];
            let plan = planned(&world(3, &others)).unwrap();
            assert_eq!((plan.stage, plan.steps), (Stage::Done, vec![]));
        }
    }

    #[test]
    fn each_turn_says_what_it_does_and_verifies_it() {
        let nobody = [Other { rounds: 0, noted: false, seen: true }; 2];
        let pki = "/etc/kubernetes/pki/etcd";
        let plan = planned(&world(0, &nobody)).unwrap();
        assert_eq!(kinds(&plan), ["bundle", "edit", "restart"]);
        assert_eq!(
            changed_lines(&plan),
            [
                format!("---peer-trusted-ca-file={pki}/ca.crt"),
                format!("+--peer-trusted-ca-file={pki}/seaworthy-peer-cas.crt"),
            ]
        );
        let Action::Bundle { path, of, after, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        assert_eq!(*of, [format!("{pki}/ca.crt"), format!("{pki}/peer-ca.crt")]);
        let authorities = path.clone();
        assert!(plan.steps[2].verify.contains(&Condition::Trusts { authorities }));
        let w = world(0, &nobody);
        let parts =
            [w.trusted.as_deref().unwrap(), w.options.authority.as_ref().unwrap().pem.as_deref().unwrap()];
        let both = bundled(&parts, w.taken_at).unwrap();
        assert_eq!(after.len(), sha256(&both).len());
        assert_eq!(String::from_utf8(both).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(plan.then_waits_for.len(), 2);
        assert!(plan.authority.is_some() && plan.by_hand.len() == 1);

        let plan = planned(&world(1, &nobody)).unwrap();
        let waits: Vec<Until> = plan.waits_for.iter().map(|w| w.until).collect();
        assert_eq!((plan.stage, waits), (Stage::Present, vec![Until::Trusting; 2]));
        assert_eq!(kinds(&plan), ["issue", "edit", "restart"]);
        let same =
            |p: &Condition| matches!(p, Condition::File { path, .. } if path.ends_with("/peer-ca.crt"));
        assert!(plan.steps[0].preconditions.iter().any(same), "{plan:?}");
        let certificate = format!("{pki}/seaworthy-peer.crt");
        assert!(plan.steps[2].verify.contains(&Condition::Serves { certificate }));
        assert_eq!(plan.by_hand.len(), 2);

        let plan = planned(&world(2, &nobody)).unwrap();
        let waits: Vec<Until> = plan.waits_for.iter().map(|w| w.until).collect();
        assert_eq!((plan.stage, waits), (Stage::Distrust, vec![Until::Presenting; 2]));
        assert!(changed_lines(&plan).contains(&format!("+--peer-trusted-ca-file={pki}/peer-ca.crt")));
        assert!(plan.steps[1].verify.contains(&Condition::RulePasses { rule: RULE.to_owned() }));
    }

    #[test]
    fn what_a_peer_port_serves_counts_more_than_what_a_member_says() {
        let mut world = world(2, &[Other { rounds: 2, noted: true, seen: true }; 2]);
        assert_eq!(planned(&world).unwrap().waits_for, []);
        let former = Arc::clone(&world.issuer);
        world.serve(1, &former);
        assert_eq!(planned(&world).unwrap().waits_for[0].until, Until::Presenting);
        // And a member that trusts another authority trusts the wrong one.
        let mut world = self::world(1, &[Other { rounds: 1, noted: true, seen: true }; 2]);
        assert_eq!(planned(&world).unwrap().waits_for, []);
        let other = Authority::create("x", KeyKind::EcP256, world.taken_at).unwrap().0;
        leave_word(&mut world, 2, Stage::Trust, Some(&other));
        assert_eq!(planned(&world).unwrap().waits_for.len(), 1);
    }

    #[test]
    fn the_authority_is_made_once_and_alone() {
        let (mut world, _) = World::shared_authority();
        world.options.authority.as_mut().unwrap().pem = None;
        let plan = planned(&world).unwrap();
        assert_eq!((plan.stage, kinds(&plan), plan.restarts()), (Stage::Create, vec!["authority"], 0));
        assert_eq!(preflight(&plan, &world.input()), []);
        leave_word(&mut world, 2, Stage::Create, None);
        let refusals = planned(&world).unwrap_err();
        assert!(refusals[0].what.starts_with("m2 has begun"), "{refusals:?}");
    }

    #[test]
    fn a_node_without_a_reason_of_its_own_takes_part_in_what_others_have_begun() {
        let (mut world, new) = World::shared_authority();
        world.impostors(0);
        assert_eq!(planned(&world).unwrap().stage, Stage::Done);
        leave_word(&mut world, 2, Stage::Trust, Some(&new));
        assert_eq!(planned(&world).unwrap().stage, Stage::Trust);
    }

    #[test]
    fn what_would_fail_again_or_is_not_known_is_refused() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, Break); 10] = [
            ("no new certificate authority", RefusalKind::Authority, |w| w.options.authority = None),
            ("is the authority of etcd's clients", RefusalKind::Authority, |w| {
                let pem = w.options.authority.as_ref().unwrap().pem.clone().unwrap();
                let certificate = certificates_from_pem(&pem, origin(), w.taken_at).unwrap().remove(0);
                let Observed::Seen { value, .. } = &mut w.subject.client.files else { panic!() };
                value.trusted = Some(Observed::seen(vec![certificate.certificate], origin()));
            }),
            ("holds several authorities", RefusalKind::Authority, |w| {
                let former = w.trusted.clone().unwrap();
                w.options.authority.as_mut().unwrap().pem.as_mut().unwrap().extend(former);
            }),
            ("the authority that the peers use already", RefusalKind::Authority, |w| {
                w.options.authority.as_mut().unwrap().pem = w.trusted.clone();
            }),
            ("peer-trusted-ca-file names", RefusalKind::Evidence, |w| w.trusted = None),
            ("its own peer port serves", RefusalKind::Evidence, |w| w.served.clear()),
            ("does not demand certificates", RefusalKind::Unsupported, |w| w.client_auth(false)),
            ("is a peer URL, and not https", RefusalKind::Unsupported, |w| w.advertise(2, "http")),
            ("peer-client-cert-file is set", RefusalKind::Unsupported, |w| {
                w.set("peer-client-cert-file", "/x")
            }),
            ("the running etcd accepts other", RefusalKind::Order, |w| {
                let side = Side { value: String::new(), origin: origin() };
                let drift = Drift {
                    subject: "the peer CA file".to_owned(),
                    declared: side.clone(),
                    running: side,
                    message: "the running etcd accepts other authorities".to_owned(),
                };
                w.subject.drift = Observed::seen(vec![drift], origin());
            }),
        ];
        for (words, kind, change) in cases {
            let (mut world, _) = World::shared_authority();
            change(&mut world);
            let refusals = planned(&world).expect_err(words);
            let found = refusals.iter().any(|r| r.kind == kind && r.what.contains(words));
            assert!(found, "{words}: {refusals:#?}");
        }
    }

    #[test]
    fn authorities_of_kubernetes_are_exchanged_for_peers_and_not_for_clients() {
        let unique = |world: &World| world.planned(UNIQUE);
        let (mut world, new) = World::shared_authority();
        world.subject.own.shared_cas = Observed::seen(Vec::new(), origin());
        assert_eq!(unique(&world).unwrap().stage, Stage::Done);
        let former = Arc::clone(&world.issuer);
        world.subject.own.shared_cas = shared(&former, "/etc/kubernetes/pki/ca.crt");
        assert_eq!(unique(&world).unwrap().stage, Stage::Trust);
        accept_clients(&mut world, &former);
        let refusals = unique(&world).unwrap_err();
        assert!(refusals[0].instead.contains("--etcd-cafile"), "{refusals:?}");
        accept_clients(&mut world, &new);
        world.subject.own.shared_cas = shared(&new, "/x");
        world.unset("trusted-ca-file");
        assert!(unique(&world).unwrap_err()[0].what.contains("no CA for its clients"));
    }

    #[test]
    fn the_wrong_orders_are_refused() {
        for (own, words) in
            [(1, "does not trust the authority of this plan"), (2, "does not trust what is in use")]
        {
            let world = world(own, &[Other { rounds: 0, noted: false, seen: true }; 2]);
            let mut plan = planned(&world).unwrap();
            plan.waits_for.clear();
            let found = preflight(&plan, &world.input());
            let order = found.iter().find(|r| r.kind == RefusalKind::Order).expect("a refusal");
            assert!(order.why.contains(words), "{}", order.why);
        }
        // What it says to be both is one of them.
        let world = world(0, &[Other { rounds: 0, noted: false, seen: true }; 2]);
        let mut plan = planned(&world).unwrap();
        for step in &mut plan.steps {
            if let Action::Bundle { after, .. } = &mut step.action {
                after.replace_range(..4, "dead");
            }
        }
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Order), "{found:#?}");
    }

    #[test]
    fn a_certificate_that_ends_before_the_restart_is_refused() {
        let world = world(0, &[Other { rounds: 0, noted: false, seen: true }; 2]);
        let plan = planned(&world).unwrap();
        let mut later = world.clone();
        later.taken_at += jiff::SignedDuration::from_hours(24 * 366);
        let found = preflight(&plan, &later.input());
        assert!(found.iter().any(|r| r.what.contains("the certificate of n1")), "{found:#?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Wherever the members are, and whatever is known of them: a plan that waits for nobody parts no two of them, and
        /// the member that is furthest behind has one.
        #[test]
        fn no_plan_parts_members(
            own in 0..4_usize,
            others in prop::collection::vec(
                (0..4_usize, any::<bool>(), any::<bool>())
                    .prop_map(|(rounds, noted, seen)| Other { rounds, noted, seen }),
                1..5,
            ),
        ) {
            let world = world(own, &others);
            let planned = planned(&world);
            let all = || std::iter::once(own).chain(others.iter().map(|o| o.rounds));
            let truth: Vec<order::Member> = all().map(truth).collect();
            let still = order::Change::Restart { listens: None, leaf: None, trusts: None, demands: None };
            let sound = order::check_links(&truth, &[Turn { member: 0, changes: vec![still] }]).is_ok();
            if let Ok(plan) = &planned && plan.waits_for.is_empty() && !plan.steps.is_empty() && sound {
                prop_assert_eq!(order::check_links(&truth, &[turn(0, plan)]), Ok(()));
            }
            let known = others.iter().all(|o| o.noted && o.seen);
            let together = all().max().zip(all().min()).is_some_and(|(most, least)| most - least < 2);
            if sound && known && together {
                let plan = planned.unwrap();
                let last = all().min() == Some(own);
                prop_assert!(!last || plan.waits_for.is_empty(), "{plan:?}");
                prop_assert_eq!(plan.steps.is_empty(), own == 3);
            }
        }
    }
}
