//! Rollback: the plan that undoes a fix, made from the fix's own plan, from what its record says was begun, and from the world
//! as it is now. Pure but for the files that it reads.
//!
//! Everything is checked before the first step. What the fix changed goes back, and what others changed since stays; where
//! that is impossible there is no plan. It is not the plan read backwards: what made the fix safe makes its rollback safe. The
//! membership is told first, and the member listens so at once afterwards; what a process still uses is taken away last.

use std::collections::BTreeMap;
use std::path::Path;

use crate::subject::Subject;
use jiff::Timestamp;
use seaworthy_components::etcd;
use seaworthy_edit::{FileEdit, Impossible};
use seaworthy_evidence::{DeclaredKind, Member, Observed, Process as ProcessFacts, Settings, Url};
use seaworthy_journal::files::{Content, FileError, Preimages, Root, sha256};
use seaworthy_journal::record::{Facts, State};

use crate::condition::{Condition, agree, is_same};
use crate::fixes::attributes::may;
use crate::history::{Fix, History, paths_of};
use crate::input::{Options, called, is_encrypted, refuse};
use crate::material::{self, Pair};
use crate::plan::{
    Action, Attributes, Plan, PreimageId, Refusal, RefusalKind, RestartedBy, Stage, Step, Until, Waiting,
};
use crate::planner::{View, undone};
use crate::preflight;
use crate::progress::{ProgressRecord, record_for};
use crate::rollouts::etcd::{peer_auto_tls, peers};
use crate::world::{Membership, Observation, process_of};

/// Days for which a certificate that a rollback brings back must work.
const DAYS: i64 = 7;
/// Files as they are, or as the rollbacks before this one will leave them.
pub(crate) struct Files<'a> {
    root: &'a Root,
    state: &'a State,
    changed: BTreeMap<String, Option<Vec<u8>>>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(root: &'a Root, state: &'a State) -> Self {
        Self { root, state, changed: BTreeMap::new() }
    }

    /// Returns the bytes of a file; `None` when there is none.
    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        match self.changed.get(path) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.root.read(Path::new(path))?.map(|content| content.bytes)),
        }
    }

    fn preimage(&self, preimage: &PreimageId) -> Result<Option<Content>, FileError> {
        Preimages::open(&self.state.preimages(&preimage.fix))?.content(&preimage.id)
    }

    /// Returns the files as they will be once the steps of a rollback are done.
    fn after(&self, steps: &[(Step, Option<Vec<u8>>)]) -> Self {
        let mut changed = self.changed.clone();
        for (step, bytes) in steps {
            for path in step.action.written() {
                changed.insert(path.to_owned(), bytes.clone());
            }
        }
        Self { root: self.root, state: self.state, changed }
    }
}

/// Files as a process sees them.
struct Inside<'f> {
    files: &'f Files<'f>,
    /// Which of them it sees where; `None` when it sees them where they are.
    view: Option<View>,
}

impl Inside<'_> {
    /// Returns where a file is on the host that the process sees at `path`.
    fn outside(&self, path: &str) -> String {
        self.view.as_ref().and_then(|view| view.outside(path)).unwrap_or_else(|| path.to_owned())
    }
}

/// What a rollback is planned from.
pub(crate) struct Undo<'a> {
    /// The fix.
    pub(crate) fix: &'a Fix,
    /// All fixes of the node.
    pub(crate) history: &'a History,
    /// The member and its cluster; `None` when the member does not run.
    pub(crate) seen: Option<&'a Observation>,
    /// The member alone; `None` when it does not run.
    pub(crate) running: Option<&'a Subject>,
    /// The membership, or why nobody answers: then nothing can be changed in it.
    pub(crate) membership: Result<&'a Membership, &'a str>,
    /// What members have published, or why that is not known.
    pub(crate) progress: Result<&'a BTreeMap<String, ProgressRecord>, &'a str>,
    /// The time.
    pub(crate) now: Timestamp,
    /// Whether it follows from a step that failed, in the same turn: then this member's own change is what is not well.
    pub(crate) automatic: bool,
}

/// A step of a rollback, with what the file that it writes holds afterwards.
type Undone = (Step, Option<Vec<u8>>);

impl Undo<'_> {
    /// Returns the plan.
    ///
    /// # Errors
    ///
    /// Why the fix cannot be undone; nothing has been changed.
    pub(crate) fn plan(&self, files: &Files<'_>) -> Result<Plan, Vec<Refusal>> {
        let mut refusals: Vec<Refusal> = self.others();
        let mut remarks = Vec::new();
        let steps = match self.steps(files, &mut remarks) {
            Ok(steps) => steps,
            Err(found) => {
                refusals.extend(found);
                return Err(refusals);
            }
        };
        let after = files.after(&steps);
        refusals.extend(self.unusable(&steps));
        let steps: Vec<Step> = steps.into_iter().map(|(step, _)| step).collect();
        let mut plan = self.document(steps, remarks);
        match self.waits_for(&plan) {
            Ok(waits_for) => plan.waits_for = waits_for,
            Err(refusal) => refusals.push(refusal),
        }
        refusals.extend(self.certificates(&plan, files, &after));
        if let Some(etcd) = self.running.filter(|_| !self.automatic) {
            refusals.extend(preflight::starting(&plan, etcd));
        }
        if plan.waits_for.is_empty() {
            refusals.extend(self.order(&plan));
        }
        refusals.extend(self.cost(&plan));
        if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
    }

    /// Returns why this fix, and then the earlier ones of `chain`, cannot all be undone as far as files go; nothing when they
    /// can.
    pub(crate) fn chain(&self, chain: &[&Fix], files: &Files<'_>) -> Vec<Refusal> {
        let mut files = Files { root: files.root, state: files.state, changed: files.changed.clone() };
        for fix in chain {
            let one = Undo { fix, ..*self };
            match one.steps(&files, &mut Vec::new()) {
                Ok(steps) => files = files.after(&steps),
                Err(refusals) => return refusals,
            }
        }
        Vec::new()
    }

    fn document(&self, steps: Vec<Step>, remarks: Vec<String>) -> Plan {
        let forth = &self.fix.plan;
        let options = Options::default();
        let state = self.seen.map(|seen| crate::input::state(&seen.input(&options)));
        // A member that does not run does not say who it is.
        let state = state.filter(|state| state.member_id == forth.state.member_id);
        Plan {
            format: Plan::FORMAT.to_owned(),
            made_at: self.now,
            state: state.unwrap_or_else(|| forth.state.clone()),
            stage: Stage::Rollback,
            rollback_of: Some(self.fix.id().to_owned()),
            waits_for: Vec::new(),
            then_waits_for: Vec::new(),
            by_hand: Vec::new(),
            remarks,
            steps,
            rule: forth.rule.clone(),
            authority: forth.authority.clone(),
        }
    }

    /// Returns the steps of the fix that were begun, last first, with what was written down before them.
    fn begun(&self) -> impl Iterator<Item = (usize, &Step, &Facts)> {
        let steps = self.fix.plan.steps.iter().enumerate().rev();
        steps.filter_map(|(at, step)| Some((at, step, self.fix.record.before(&Fix::step_name(at))?)))
    }

    /// Returns what the member was when the fix began.
    fn began_with(&self) -> Option<&Facts> {
        self.fix.record.before(&Fix::step_name(0))
    }

    fn steps(&self, files: &Files<'_>, remarks: &mut Vec<String>) -> Result<Vec<Undone>, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let (mut configures, mut others, mut membership) = (Vec::new(), Vec::new(), Vec::new());
        // A file that two steps wrote is undone twice: what the later one leaves is what the earlier one finds.
        let mut now = Files { root: files.root, state: files.state, changed: files.changed.clone() };
        for (at, step, facts) in self.begun() {
            let undone = match &step.action {
                Action::UpdateMember { member_id, from, to, via } => {
                    match self.member(member_id, from, to, via) {
                        Ok(undone) => membership.extend(undone),
                        Err(refusal) => refusals.push(refusal),
                    }
                    continue;
                }
                Action::SetAttributes { path, from, to } => self.attributes(&now, path, *from, *to),
                action => self.files(&now, at, action, facts, remarks),
            };
            match undone {
                Ok(undone) => {
                    now = now.after(&undone);
                    let is_configuration = step.action.is_edit();
                    // What brought back a configuration is undone with the configuration.
                    let of_declaration = undone.iter().any(|(step, _)| self.declares(step));
                    if is_configuration || of_declaration { &mut configures } else { &mut others }
                        .extend(undone);
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let restart = self.restart(!configures.is_empty());
        let mut steps = Vec::new();
        if restart.is_some() {
            // Each of them lets kubelet restart the member.
            for (step, _) in configures.iter_mut().filter(|_| self.is_member()) {
                step.preconditions.push(Condition::OthersAreQuorum);
            }
            steps.extend(self.hand_over().map(|step| (step, None)));
        }
        let told_first = self.membership.is_ok();
        let membership: Vec<Undone> = membership.into_iter().map(|step| (step, None)).collect();
        if told_first {
            steps.extend(membership.clone());
        }
        steps.append(&mut configures);
        steps.extend(restart.map(|step| (step, None)));
        // That this member listens as before may be what brings the quorum back, without which nothing is changed there.
        if !told_first {
            steps.extend(membership);
        }
        steps.append(&mut others);
        if let Some((last, _)) = steps.last_mut() {
            last.verify.extend(self.verified());
        }
        Ok(steps)
    }

    /// Returns whether it is a member of a cluster, of which the others rely on it.
    fn is_member(&self) -> bool {
        self.fix.plan.state.component == etcd::COMPONENT.name
    }

    /// Returns whether a step writes a file that declares the instance.
    fn declares(&self, step: &Step) -> bool {
        let declared = &self.fix.plan.state.files;
        step.action.written().iter().any(|path| declared.contains_key(*path) || path.ends_with(".conf"))
    }

    /// Returns the step that gives a member its former peer URLs; nothing when it has them.
    fn member(
        &self,
        id: &str,
        from: &[String],
        to: &[String],
        via: &[String],
    ) -> Result<Option<Step>, Refusal> {
        let name = &self.fix.plan.state.member;
        let mut preconditions = Vec::new();
        if let Ok(membership) = self.membership {
            let same = |one: &[String], other: &[String]| {
                let set = |urls: &[String]| urls.iter().cloned().collect::<std::collections::BTreeSet<_>>();
                set(one) == set(other)
            };
            let now = membership.get(id).ok_or_else(|| {
                refuse(
                    RefusalKind::Evidence,
                    format!("{name} ({id}) is no member any more"),
                    "its peer URLs cannot be put back",
                    "close the record: seaworthy fix --forget ID",
                )
            })?;
            if same(now, from) {
                return Ok(None);
            }
            if !same(now, to) {
                return Err(self.changed(
                    &format!("the peer URLs of {name} in the membership"),
                    &format!("they are {}, and this fix made them {}", now.join(", "), to.join(", ")),
                    &[],
                    &[],
                ));
            }
            preconditions.push(Condition::PeerUrls { member_id: id.to_owned(), urls: to.to_vec() });
        }
        let urls = from.to_vec();
        Ok(Some(Step {
            title: format!("Tell the peers of {name} to dial it as before"),
            why: "New connections to it are made as the membership says, so this comes before it listens as before."
                .to_owned(),
            action: Action::UpdateMember {
                member_id: id.to_owned(),
                from: to.to_vec(),
                to: urls.clone(),
                via: via.to_vec(),
            },
            preconditions,
            verify: vec![Condition::PeerUrls { member_id: id.to_owned(), urls }],
            diff: None,
            restarts: false,
        }))
    }

    /// Returns the step that gives a file its former owner and mode.
    fn attributes(
        &self,
        files: &Files<'_>,
        path: &str,
        from: Attributes,
        to: Attributes,
    ) -> Result<Vec<Undone>, Refusal> {
        let now = match files.root.attributes(Path::new(path)) {
            Ok((mode, uid, gid)) => Attributes { mode, uid, gid },
            // What is gone has no owner.
            Err(FileError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.unreadable(&error)),
        };
        if now == from {
            return Ok(Vec::new());
        }
        if now != to {
            let what = format!("owner and mode of {path}");
            return Err(self.changed(
                &what,
                &format!("it has {now}, and this fix gave it {to}"),
                &[path],
                &[],
            ));
        }
        let bytes = files.bytes(path).ok().flatten();
        Ok(vec![(
            Step {
                title: format!("Give {path} its former owner and mode"),
                why: "It had them before the fix.".to_owned(),
                action: Action::SetAttributes { path: path.to_owned(), from: to, to: from },
                diff: None,
                preconditions: vec![Condition::Attributes { path: path.to_owned(), attributes: to }],
                verify: vec![Condition::Attributes { path: path.to_owned(), attributes: from }],
                restarts: false,
            },
            bytes,
        )])
    }

    /// Returns the steps that bring back the files that a step wrote.
    fn files(
        &self,
        files: &Files<'_>,
        at: usize,
        action: &Action,
        facts: &Facts,
        remarks: &mut Vec<String>,
    ) -> Result<Vec<Undone>, Refusal> {
        let mut undone = Vec::new();
        for path in action.written() {
            // Nothing was written before its pre-image was.
            let Some(id) = facts.preimages.get(path) else { continue };
            let preimage = PreimageId { fix: self.fix.id().to_owned(), id: id.clone() };
            let before = files.preimage(&preimage).map_err(|error| self.unreadable(&error))?;
            let before = before.map(|content| content.bytes);
            let now = files.bytes(path).map_err(|error| self.unreadable(&error))?;
            if now == before {
                continue;
            }
            let planned = match action {
                Action::Bundle { after, .. } | Action::Edit { after, .. } | Action::Revert { after, .. } => {
                    Some(after.as_str())
                }
                Action::Restore { after, .. } => after.as_deref(),
                _ => None,
            };
            let noted = self.fix.record.written(&Fix::step_name(at), path).or(planned);
            let hash = now.as_deref().map(sha256);
            // A run that was killed before it wrote down what it wrote can only take what is there.
            let own = match noted {
                Some(noted) => hash.as_deref() == Some(noted),
                None => !self.fix.record.is_after(&Fix::step_name(at)),
            };
            match (action, &now) {
                _ if own => undone.push(restore(path, preimage, before, hash)),
                (Action::Edit { change, .. }, Some(now)) => {
                    undone.extend(self.revert(
                        files,
                        path,
                        change,
                        preimage,
                        before.as_deref(),
                        now,
                        remarks,
                    )?);
                }
                // It did not exist, and what others made of it is theirs.
                _ if before.is_none() && !action.is_edit() => {
                    if now.is_some() {
                        remarks.push(format!(
                            "{path} was written by this fix and has been changed since{}: it stays as it is",
                            self.by_whom(path)
                        ));
                    }
                }
                (_, None) => return Err(self.changed(path, "it is gone", &[path], &[])),
                _ => {
                    return Err(self.changed(path, "it is not what this fix wrote", &[path], &[]));
                }
            }
        }
        Ok(undone)
    }

    #[expect(clippy::too_many_arguments, reason = "a file as it was, as it is, and what is to become of it")]
    fn revert(
        &self,
        files: &Files<'_>,
        path: &str,
        change: &FileEdit,
        preimage: PreimageId,
        before: Option<&[u8]>,
        now: &[u8],
        remarks: &mut Vec<String>,
    ) -> Result<Option<Undone>, Refusal> {
        let read = |path: &str| files.bytes(path).ok().flatten();
        let bytes = match undone(change, path, before, now, &read) {
            Ok(bytes) => bytes,
            Err(Impossible::Changed(names)) => {
                let what = format!("{} in {path}", names.join(", "));
                let how = "it has another value than this fix gave it";
                return Err(self.changed(&what, how, &[path], &names));
            }
            Err(Impossible::Refused(why)) => {
                return Err(refuse(
                    RefusalKind::Edit,
                    format!("{path} was changed since, and this fix cannot be undone in it: {why}"),
                    "an edit that is not exactly the intended change may keep it from starting",
                    format!(
                        "put the file right, or give {} their former values by hand and close the record: seaworthy fix \
                         --forget {}",
                        change.settings().join(", "),
                        self.fix.id()
                    ),
                ));
            }
        };
        if bytes == now {
            return Ok(None);
        }
        remarks.push(format!(
            "{path} was changed since{}: only what this fix set goes back, the rest stays",
            self.by_whom(path)
        ));
        let hash = sha256(&bytes);
        let shown = seaworthy_edit::Change {
            path: path.to_owned(),
            before: Some(now.to_vec()),
            after: bytes.clone(),
            content: change.content(),
        };
        let step = Step {
            title: format!("Give {} in {path} the former values", change.settings().join(", ")),
            why: "What others have changed in this file since stays as it is.".to_owned(),
            diff: Some(shown.diff()),
            preconditions: vec![Condition::File { path: path.to_owned(), sha256: sha256(now) }],
            verify: vec![Condition::Edited { path: path.to_owned(), sha256: hash.clone() }],
            action: Action::Revert { path: path.to_owned(), change: change.clone(), preimage, after: hash },
            restarts: false,
        };
        Ok(Some((step, Some(bytes))))
    }

    /// Returns the step that makes the member run as before; `None` when it does, or never read what is undone.
    fn restart(&self, configured: bool) -> Option<Step> {
        let plan = &self.fix.plan;
        let forth = plan.steps.iter().find(|step| step.restarts)?;
        let Action::Restart { by, .. } = &forth.action else { return None };
        let began = self.began_with()?;
        let former: BTreeMap<String, String> = began
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
            .collect();
        let now = self.running.and_then(process_of);
        let never_read = match (&now, &began.process) {
            (Some(now), Some(former)) => is_same(Some(now), former),
            _ => false,
        };
        let as_before =
            |settings: &Observed<Settings>| settings.value().map(|now| agree(now, &former).is_ok());
        let runs_as_before = self.running.is_some_and(|etcd| as_before(&etcd.settings) == Some(true));
        let declared = self.running.and_then(|etcd| etcd.declared.value());
        // With files that others have changed since it does not come to run as before, whoever waits.
        let is_declared_otherwise = declared.is_some_and(|declared| {
            !declared.is_empty() && declared.iter().all(|one| as_before(&one.settings) == Some(false))
        });
        // Where the fix had not come as far as what a member reads, what the member runs with is not the fix's.
        let reached =
            self.begun().any(|(_, step, _)| step.restarts || self.declares(step) || step.action.is_edit());
        let is_other = configured || reached && !runs_as_before && !is_declared_otherwise;
        let needed = match by {
            // kubelet needs no word to restart it: it does so whenever its manifest has changed.
            RestartedBy::Kubelet => is_other,
            _ => !never_read && is_other,
        };
        if !needed {
            return None;
        }
        let name = &plan.state.member;
        let (title, by) = match (by, &now) {
            (RestartedBy::KubeletAfterEnd { .. }, Some(process)) => (
                format!("End the process of {name}, so that kubelet starts it as before"),
                RestartedBy::KubeletAfterEnd { pid: pid(process) },
            ),
            (RestartedBy::KubeletAfterEnd { .. } | RestartedBy::Kubelet, _) => {
                (format!("Wait until kubelet runs {name} as before"), RestartedBy::Kubelet)
            }
            (RestartedBy::Systemd { unit }, _) => {
                (format!("Restart {unit}"), RestartedBy::Systemd { unit: unit.clone() })
            }
        };
        Some(Step {
            title,
            why: format!("{} reads its settings when it starts.", plan.state.component),
            preconditions: match by {
                RestartedBy::Systemd { .. } | RestartedBy::KubeletAfterEnd { .. } if self.is_member() => {
                    vec![Condition::OthersAreQuorum]
                }
                _ => Vec::new(),
            },
            action: Action::Restart { by, settings: former.clone() },
            diff: None,
            verify: vec![Condition::SettingsEffective { settings: former }],
            restarts: true,
        })
    }

    fn hand_over(&self) -> Option<Step> {
        let state = &self.fix.plan.state;
        let to: Vec<String> = state.peer_urls.keys().filter(|id| **id != state.member_id).cloned().collect();
        (!to.is_empty()).then(|| Step {
            title: "Hand leadership over, if it leads".to_owned(),
            why: "A leader that restarts costs the cluster an election; one that hands over does not."
                .to_owned(),
            action: Action::MoveLeader { to },
            diff: None,
            preconditions: Vec::new(),
            verify: Vec::new(),
            restarts: false,
        })
    }

    /// Returns what is verified at the end, with a restart and without one: the links of the member, and what an audit says of
    /// it now.
    fn verified(&self) -> Vec<Condition> {
        if !self.is_member() {
            let restarted = self.fix.plan.restarts() > 0 && self.running.is_some();
            return restarted.then_some(Condition::Answers).into_iter().collect();
        }
        let Some(seen) = self.seen else { return vec![Condition::LinksWhole] };
        let links = (seen.members().len() > 1).then_some(Condition::LinksWhole);
        let healthy = crate::condition::healthy(seen).is_ok().then_some(Condition::ClusterHealthy);
        links.into_iter().chain(healthy).collect()
    }

    /// Refuses what other records are in the way of.
    fn others(&self) -> Vec<Refusal> {
        let paths = self.fix.plan.paths();
        let mut refusals = Vec::new();
        for damaged in self.history.damaged().iter().filter(|damaged| damaged.id.as_str() > self.fix.id()) {
            let touches =
                paths_of(damaged).is_none_or(|others| paths.iter().any(|path| others.contains(*path)));
            if touches && !self.automatic {
                refusals.push(refuse(
                    RefusalKind::OtherFix,
                    format!("the record of the later fix {} cannot be read: {}", damaged.id, damaged.why),
                    "it may have changed the same files since",
                    format!("look what it did, and set it aside: seaworthy fix --forget {}", damaged.id),
                ));
            }
        }
        for pending in self.history.pending().filter(|pending| pending.id() > self.fix.id()) {
            let own = pending.plan.rollback_of.as_deref() == Some(self.fix.id());
            if !own && !self.automatic {
                refusals.push(crate::executor::pending_refusal(pending, self.history.status(pending)));
            }
        }
        refusals
    }

    /// Returns the later fixes that stand and have changed one of these files; in them, where settings are given, one of these.
    fn later(&self, paths: &[&str], settings: &[String]) -> Vec<&Fix> {
        let touches = |fix: &&Fix| {
            let names = fix.plan.steps.iter().filter_map(|step| match &step.action {
                Action::Edit { change, .. } => Some(change.settings()),
                _ => None,
            });
            // Without paths it is about the membership.
            let updates =
                || fix.plan.steps.iter().any(|step| matches!(step.action, Action::UpdateMember { .. }));
            let of_paths = match paths {
                [] => updates(),
                paths => fix.plan.paths().iter().any(|path| paths.contains(path)),
            };
            of_paths && (settings.is_empty() || names.flatten().any(|name| settings.contains(&name)))
        };
        self.history.later(self.fix).filter(touches).collect()
    }

    /// Returns by which later fix a file was changed, as a clause.
    fn by_whom(&self, path: &str) -> String {
        let later = self.later(&[path], &[]);
        let later: Vec<String> = later.iter().map(|fix| format!("{} of {}", fix.id(), fix.rule())).collect();
        match later.is_empty() {
            true => String::new(),
            false => format!(", by fix {}", later.join(" and by fix ")),
        }
    }

    /// Returns the refusal because of something that was changed since: files, or settings in one.
    fn changed(&self, what: &str, how: &str, paths: &[&str], settings: &[String]) -> Refusal {
        let later = self.later(paths, settings).pop();
        let id = self.fix.id();
        match later {
            Some(later) => refuse(
                RefusalKind::OtherFix,
                format!("{what} was changed since by fix {} of {}: {how}", later.id(), later.rule()),
                "to put it back would undo half of that fix",
                format!("roll that one back first: seaworthy fix --rollback {}", later.id()),
            ),
            None => refuse(
                RefusalKind::Edit,
                format!("{what} was changed since by somebody else: {how}"),
                "to put it back would undo a change that this fix did not make",
                format!(
                    "put it back to what this fix made it, or undo the rest by hand and close the record: seaworthy fix --forget {id}"
                ),
            ),
        }
    }

    /// Returns the members that must be rolled back first: those that rely on what would be taken away.
    ///
    /// A certificate is not unloaded while somebody demands it, an authority not distrusted while somebody presents its
    /// certificates, and a certificate of the former authority not presented to members that no longer trust that one.
    fn waits_for(&self, plan: &Plan) -> Result<Vec<Waiting>, Refusal> {
        // A rollback is undone in the turn in which it failed.
        if self.automatic || self.fix.plan.rollback_of.is_some() {
            return Ok(Vec::new());
        }
        let own = &self.fix.plan.state.member_id;
        // One turn at a time, also when the run of one was killed: its change may be half-made.
        let in_a_turn = |member: &&Member| {
            let record = self.progress.ok().and_then(|progress| progress.get(&member.id));
            member.id != *own && record.is_some_and(|record| record.under_way.is_some())
        };
        let members = self.seen.map(Observation::members).unwrap_or_default();
        let mut turns: Vec<Waiting> = members
            .iter()
            .filter(in_a_turn)
            .map(|m| Waiting { member: called(m).to_owned(), until: Until::TurnEnded })
            .collect();
        turns.retain(|_| plan.disturbs());
        if !turns.is_empty() {
            return Ok(turns);
        }
        let stage = self.fix.plan.stage;
        if !matches!(stage, Stage::Load | Stage::Trust | Stage::Present)
            || self.fix.plan.state.peer_urls.len() < 2
        {
            return Ok(Vec::new());
        }
        let unknown = |what: &str, why: &str| {
            refuse(
                RefusalKind::Evidence,
                format!("{what} is not known: {why}"),
                "another member may rely on what would be taken away, and would be cut off",
                "let this node reach the client port of a member, with a client certificate if they demand one",
            )
        };
        let me = &self.fix.plan.state.member_id;
        let membership = self.membership.map_err(|why| unknown("the membership", why))?;
        let names = self.seen.map(Observation::members).unwrap_or_default();
        let name = |id: &String| {
            let known = names.iter().find(|m| m.id == *id).map(|m| called(m).to_owned());
            known.unwrap_or_else(|| id.clone())
        };
        let mut waits = Vec::new();
        for (id, urls) in membership.iter().filter(|(id, _)| *id != me) {
            let relies = if stage == Stage::Load {
                !urls.is_empty() && urls.iter().all(|url| Url::parse(url).is_some_and(|url| url.is_tls()))
            } else {
                let progress =
                    self.progress.map_err(|why| unknown("what the members have published", why))?;
                let record = record_for(progress, id, &self.fix.plan.rule);
                let reached = |stages: &[Stage]| {
                    record.and_then(|r| r.reached).is_some_and(|stage| stages.contains(&stage))
                };
                match stage {
                    Stage::Trust => reached(&[Stage::Present, Stage::Distrust]),
                    // A member that gave up its self-made certificate later does not know this one's any more.
                    Stage::Present if self.fix.plan.rule == peer_auto_tls::RULE => {
                        reached(&[Stage::Present, Stage::Distrust])
                            && record.is_some_and(|record| record.at > self.fix.begun_at())
                    }
                    _ => reached(&[Stage::Distrust]),
                }
            };
            if relies {
                waits.push(Waiting { member: name(id), until: Until::RolledBack });
            }
        }
        waits.sort_by(|a, b| a.member.cmp(&b.member));
        Ok(waits)
    }

    /// Refuses owners and modes with which etcd could not use its own files.
    fn unusable(&self, steps: &[Undone]) -> Vec<Refusal> {
        let Some(process) = self.running.and_then(|etcd| etcd.process.value()) else { return Vec::new() };
        let lost = |process: &ProcessFacts, from: Attributes, to: Attributes| {
            let (before, after) = (may(process, from), may(process, to));
            before & !after != 0
        };
        let refusal = |(step, _): &Undone| {
            let Action::SetAttributes { path, from, to } = &step.action else { return None };
            lost(process, *from, *to).then(|| {
                refuse(
                    RefusalKind::Access,
                    format!(
                        "{} runs as {}:{}, and could do less with {path} with {to}",
                        self.fix.plan.state.component, process.uid, process.gid
                    ),
                    "a process that runs may fail at its next handshake or file, and one that starts may exit",
                    format!(
                        "leave it as it is, and close the record: seaworthy fix --forget {}",
                        self.fix.id()
                    ),
                )
            })
        };
        steps.iter().filter_map(refusal).collect()
    }

    /// Refuses certificates, keys and authorities with which the member could not talk to others, or would not be able to soon:
    /// those that it would have after the rollback, judged as an audit judges those in use.
    fn certificates(&self, plan: &Plan, now: &Files<'_>, after: &Files<'_>) -> Vec<Refusal> {
        let Some(etcd) = self.running else { return Vec::new() };
        let Some(settings) = etcd.settings.value() else { return Vec::new() };
        let touched = plan.steps.iter().any(|step| !step.action.written().is_empty());
        if plan.restarts() == 0 && !touched {
            return Vec::new();
        }
        let former = plan.steps.iter().filter_map(|step| match &step.action {
            Action::Restart { settings, .. } => Some(settings),
            _ => None,
        });
        let former: BTreeMap<&String, &String> = former.flatten().collect();
        let value = |name: &str| -> Option<String> {
            let former =
                former.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| (*value).clone());
            let now = || settings.get(name).filter(|s| s.set).map(|s| s.value.clone());
            former.or_else(now).filter(|value| !value.is_empty())
        };
        let tls = |name: &str| value(name).is_some_and(|urls| urls.contains("https://"));
        let (now, after) = (self.inside(now), self.inside(after));
        let mut refusals = Vec::new();
        let me = &plan.state.member_id;
        if tls("listen-peer-urls") && plan.state.peer_urls.len() > 1 {
            let urls = self.membership.ok().and_then(|membership| membership.get(me)).cloned();
            let urls = urls.or_else(|| plan.state.peer_urls.get(me).cloned()).unwrap_or_default();
            let hosts: Vec<String> =
                urls.iter().filter_map(|url| Url::parse(url)).map(|url| url.host).collect();
            let names = ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"].map(value);
            if let [Some(certificate), Some(key), Some(trusted)] = names {
                let usage = material::peer(&hosts);
                let files = [certificate, key, trusted];
                match self.judged(&after, &files, &usage) {
                    Ok(accepted) if plan.waits_for.is_empty() => refusals.extend(self.accepted(&accepted)),
                    Ok(_) => {}
                    // What failed may be as bad as what was before it, which at least ran.
                    Err(_) if self.automatic && self.judged(&now, &files, &usage).is_err() => {}
                    Err(why) => refusals.push(self.isolated(&why)),
                }
            }
        }
        let restored = |path: &String| {
            let outside = after.outside(path);
            plan.steps.iter().any(|step| step.action.written().contains(&outside.as_str()))
        };
        if tls("listen-client-urls") {
            let names = ["cert-file", "key-file", "trusted-ca-file"].map(value);
            if let [Some(certificate), Some(key), trusted] = names {
                let changed =
                    restored(&certificate) || restored(&key) || trusted.as_ref().is_some_and(restored);
                // What serves clients now is not this rollback's to judge.
                if changed && let Some(trusted) = trusted {
                    let usage = material::server(&[]);
                    if let Err(why) = self.judged(&after, &[certificate, key, trusted], &usage) {
                        refusals.push(self.isolated(&why));
                    }
                }
            }
        }
        refusals
    }

    /// Judges a certificate, its key and the authorities, and returns the content of the latter.
    fn judged(
        &self,
        files: &Inside<'_>,
        paths: &[String; 3],
        usage: &seaworthy_pki::Use<'_>,
    ) -> Result<(String, Vec<u8>), String> {
        let read = |path: &String| -> Result<(String, Vec<u8>), String> {
            let outside = files.outside(path);
            let bytes = files.files.bytes(&outside).map_err(|error| error.to_string())?;
            Ok((path.clone(), bytes.ok_or_else(|| format!("{outside} is not there"))?))
        };
        let [certificate, key, trusted] = paths;
        let (certificate, key, trusted) =
            (read(certificate)?, zeroize::Zeroizing::new(read(key)?.1), read(trusted)?);
        let pair = Pair::new((&certificate.0, &certificate.1), (&paths[1], &key))?;
        let days = if self.automatic { 0 } else { DAYS };
        pair.judge((&trusted.0, &trusted.1), usage, self.now, days)?;
        Ok(trusted)
    }

    /// Refuses authorities that do not accept what other members present.
    fn accepted(&self, (path, content): &(String, Vec<u8>)) -> Vec<Refusal> {
        let Some(seen) = self.seen else { return Vec::new() };
        let options = Options::default();
        let input = seen.input(&options);
        let Ok(roots) =
            seaworthy_pki::certificates_from_pem(content, seaworthy_evidence::Origin::file(path), self.now)
        else {
            return Vec::new();
        };
        let dialled_tls = |m: &&Member| !m.this && is_encrypted(m);
        let others = seen.members().iter().filter(dialled_tls);
        let refused = others.filter(|m| peers::accepted(&input, &roots, m) == Some(false));
        refused
            .map(|member| {
                refuse(
                    RefusalKind::Certificate,
                    format!(
                        "{path}, as it would be, has no authority of the certificate of {}",
                        called(member)
                    ),
                    "the two could not dial each other any more",
                    "roll that member back first, or exchange its certificate",
                )
            })
            .collect()
    }

    fn unreadable(&self, error: &FileError) -> Refusal {
        refuse(
            RefusalKind::Unrestorable,
            error.to_string(),
            "what cannot be read cannot be put back",
            format!(
                "put that file right, or undo the fix by hand and close its record: seaworthy fix --forget {}",
                self.fix.id()
            ),
        )
    }

    fn isolated(&self, why: &str) -> Refusal {
        refuse(
            RefusalKind::Certificate,
            format!("what the rollback would bring back does not work: {why}"),
            "the member would be cut off at once, or at its next restart",
            format!(
                "leave it as it is, and close the record: seaworthy fix --forget {}; or supply a certificate that works",
                self.fix.id()
            ),
        )
    }

    /// Returns these files as the process sees them, whose mounts its manifest among them tells.
    fn inside<'f>(&self, files: &'f Files<'f>) -> Inside<'f> {
        let declared = self.running.and_then(|etcd| etcd.declared.value()).and_then(|d| d.first());
        let manifest = declared.filter(|d| d.kind == DeclaredKind::StaticPod).map(|d| d.path.as_str());
        let view = manifest.and_then(|manifest| {
            let content = files.bytes(manifest).ok().flatten().unwrap_or_default();
            View::of_manifest(&self.fix.plan.state.component, manifest, &content).ok()
        });
        Inside { files, view }
    }

    /// Refuses a rollback after which two members could not dial each other both ways: the same model as for the fix.
    fn order(&self, plan: &Plan) -> Vec<Refusal> {
        let Some(seen) = self.seen.filter(|_| self.is_member()) else { return Vec::new() };
        let options = Options::default();
        let input = seen.input(&options);
        let mut refusals: Vec<Refusal> = preflight::rollback_order(plan, &input).into_iter().collect();
        if !self.automatic {
            refusals.extend(preflight::links(plan, &input));
        }
        refusals
    }

    /// Refuses to restart a member that is well while the others alone are no quorum.
    fn cost(&self, plan: &Plan) -> Option<Refusal> {
        let seen = self.seen?;
        let health = seen.health.as_ref().ok()?;
        let voters: Vec<&Member> = seen.members().iter().filter(|m| !m.learner).collect();
        let well = |id: &str| health.members.get(id).is_some_and(|member| member.trouble.is_none());
        let others = voters.iter().filter(|m| !m.this && well(&m.id)).count();
        let quorum = voters.len() / 2 + 1;
        (plan.restarts() > 0 && voters.len() > 2 && well(&plan.state.member_id) && others < quorum).then(|| {
            refuse(
                RefusalKind::Quorum,
                format!(
                    "{others} other members are healthy, which is no quorum of {quorum} while {} restarts",
                    plan.state.member
                ),
                "the cluster would stop",
                "make them healthy first, and run the same command again",
            )
        })
    }
}

/// Returns the step that brings back a file of which this is the hash `now`.
fn restore(path: &str, preimage: PreimageId, before: Option<Vec<u8>>, now: Option<String>) -> Undone {
    let path = path.to_owned();
    let after = before.as_deref().map(sha256);
    let step = Step {
        title: match after {
            Some(_) => format!("Put {path} back as it was"),
            None => format!("Remove {path}"),
        },
        why: "It was so before the fix, and nobody has changed it since.".to_owned(),
        diff: None,
        preconditions: vec![match now {
            Some(sha256) => Condition::File { path: path.clone(), sha256 },
            None => Condition::Absent { path: path.clone() },
        }],
        verify: vec![match &after {
            Some(sha256) => Condition::Restored { path: path.clone(), sha256: sha256.clone() },
            None => Condition::Absent { path: path.clone() },
        }],
        action: Action::Restore { preimage, after, path },
        restarts: false,
    };
    (step, before)
}

fn pid(process: &seaworthy_journal::record::Process) -> u32 {
    use seaworthy_journal::record::Process;
    match process {
        Process::Exact(id) => id.pid,
        Process::Dated { pid, .. } => *pid,
    }
}
