//! Which manifest or unit a running etcd was started from, and what proves it.
//!
//! Settings prove nothing: two etcds on a node, or a unit that a package has installed beside a static pod, have much in
//! common. What a process belongs to does, because kubelet and systemd put what they start into groups of their own. Only
//! where no group says anything are settings compared, among what is not ruled out, and the result says so.

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_evidence::{AttributedBy, Declared, ErrorKind, EvidenceError, Origin, Setting, Settings};
use seaworthy_host::cgroup::{Cgroup, Owner, same_uid};
use seaworthy_host::root::Root;

use super::declarations::{Declarations, Unit, is_pod};
use super::drift;
use super::pods::{self, PodName};
use super::processes::Running;
use crate::manifest::StaticPod;

/// A process whose declaration is looked for.
struct Placed {
    pid: u32,
    /// Who runs it.
    owner: Result<Owner, EvidenceError>,
    container: Option<String>,
    /// Whether its parent is the first process of the node, as the service manager is that of a service's main process.
    is_main: bool,
}

impl Placed {
    fn of(running: &Running) -> Self {
        let owner = match &running.cgroup {
            Ok(cgroup) => Ok(cgroup.owner()),
            // A kernel without control groups.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Owner::Nobody),
            Err(error) => Err(error.clone()),
        };
        Self {
            pid: running.pid(),
            owner,
            container: running.cgroup.as_ref().ok().and_then(Cgroup::container),
            is_main: running.entry.stat().is_ok_and(|stat| stat.parent == 1),
        }
    }
}

/// What is known of a process's declaration before its settings are looked at. Numbers are those of declarations.
enum Verdict {
    /// It is this one; but if that has other settings than the process, one that could not be read may be it.
    Proven { index: usize, by: AttributedBy, unless: Option<EvidenceError> },
    /// It is one of these, all of them manifests.
    OneOf(Vec<usize>),
    /// It may be one of these, unless one that could not be read is it.
    AnyOf { candidates: Vec<usize>, unread: Option<EvidenceError> },
    /// Nothing that declares an etcd on the node is it.
    Nothing,
    /// It cannot be told.
    Unknown { error: EvidenceError, may_be_pod: bool },
}

/// Which declaration each running etcd was started from.
pub(crate) struct Attributions<'a> {
    all: &'a Declarations,
    /// By process id.
    verdicts: BTreeMap<u32, Verdict>,
}

impl<'a> Attributions<'a> {
    /// Returns what ties the servers among the `processes` to the declarations. What could not be read is noted in
    /// `unreadable`.
    pub(crate) fn find(
        root: &Root,
        all: &'a Declarations,
        processes: &[Running],
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        Self::decide(root, all, &processes.iter().map(Placed::of).collect::<Vec<_>>(), unreadable)
    }

    fn decide(
        root: &Root,
        all: &'a Declarations,
        processes: &[Placed],
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let mut decide = Decide { root, all, unreadable };
        let proven = |verdict: &Verdict| match verdict {
            Verdict::Proven { index, .. } => Some(*index),
            _ => None,
        };
        let mut verdicts: BTreeMap<u32, Verdict> =
            processes.iter().filter_map(|process| Some((process.pid, decide.by_proof(process)?))).collect();
        let taken: BTreeSet<usize> = verdicts.values().filter_map(proven).collect();
        for verdict in verdicts.values_mut() {
            if let Verdict::OneOf(candidates) = verdict {
                candidates.retain(|index| !taken.contains(index));
                if candidates.is_empty() {
                    *verdict = Verdict::Nothing;
                }
            }
        }
        for process in processes {
            verdicts.entry(process.pid).or_insert_with(|| decide.by_elimination(process, &taken));
        }
        Self { all, verdicts }
    }

    /// Returns the declaration that the server `pid` with the settings `running` was started from, and what tells that.
    ///
    /// Where nothing proves one, it is the one whose settings are most like those that run. A manifest that is the only
    /// declaration beside the only server is its own whatever it says, also where the settings of the server are not known
    /// because its configuration file has become one that etcd refuses.
    ///
    /// # Errors
    ///
    /// When there is none, but what could not be read may be it; and when it is one of several, and nothing tells which.
    pub(crate) fn of(
        &self,
        pid: u32,
        running: Result<&Settings, EvidenceError>,
    ) -> Result<Option<Declared>, EvidenceError> {
        let attributed = |index: usize, by: AttributedBy| {
            let found = self.all.get(index).map(|found| found.declared.clone());
            Ok(found.map(|declared| Declared { attributed_by: Some(by), ..declared }))
        };
        match self.verdicts.get(&pid) {
            None | Some(Verdict::Nothing) => Ok(None),
            Some(Verdict::Unknown { error, .. }) => Err(error.clone()),
            Some(Verdict::Proven { index, by, unless }) => match unless {
                Some(error) if !running.is_ok_and(|running| self.explains(*index, running)) => {
                    Err(error.clone())
                }
                _ => attributed(*index, *by),
            },
            Some(Verdict::OneOf(candidates)) => match self.most_alike(candidates, running?) {
                Some(index) => attributed(index, AttributedBy::Likeness),
                None => Err(self.ambiguous(candidates)),
            },
            Some(Verdict::AnyOf { unread: Some(error), .. }) => Err(error.clone()),
            Some(Verdict::AnyOf { candidates, unread: None }) => {
                let sole = self.sole_manifest(candidates);
                let index = match running {
                    Ok(running) => self.most_alike(candidates, running).or(sole),
                    Err(error) if error.kind == ErrorKind::Malformed && sole.is_some() => sole,
                    Err(error) if !candidates.is_empty() => return Err(error),
                    Err(_) => None,
                };
                let opaque =
                    candidates.iter().find_map(|index| self.all.get(*index)?.declared.settings.error());
                match (index, opaque) {
                    (Some(index), _) => attributed(index, AttributedBy::Likeness),
                    (None, Some(error)) => Err(error.clone()),
                    (None, None) => Ok(None),
                }
            }
        }
    }

    /// Returns whether a process with the settings `running` can have been started from this declaration as it is now.
    fn explains(&self, index: usize, running: &Settings) -> bool {
        self.all.get(index).is_some_and(|found| {
            found.declared.settings.value().is_some()
                && drift::settings(&found.declared, running, "").is_empty()
        })
    }

    /// Returns which of the `candidates` is most like the settings that run; none when nothing ties any to them.
    fn most_alike(&self, candidates: &[usize], running: &Settings) -> Option<usize> {
        let likeness =
            |index: usize| self.all.get(index).map_or(0, |found| likeness(&found.declared, running));
        let best = candidates.iter().map(|index| (likeness(*index), *index)).max_by_key(|(alike, _)| *alike);
        best.filter(|(alike, _)| *alike > 0).map(|(_, index)| index)
    }

    /// Returns the manifest that is the only one of the `candidates`, beside the only server.
    fn sole_manifest(&self, candidates: &[usize]) -> Option<usize> {
        match candidates {
            [only] if self.verdicts.len() == 1 => {
                self.all.get(*only).filter(|f| is_pod(&f.declared)).map(|_| *only)
            }
            _ => None,
        }
    }

    fn ambiguous(&self, candidates: &[usize]) -> EvidenceError {
        let paths: BTreeSet<&str> =
            candidates.iter().filter_map(|i| Some(self.all.get(*i)?.declared.path.as_str())).collect();
        let message = match paths.into_iter().collect::<Vec<_>>().as_slice() {
            [one] => format!("whether it was started from {one} cannot be told"),
            several => format!("from which of {} it was started cannot be told", several.join(" and ")),
        };
        EvidenceError::new(ErrorKind::Unsupported, message)
    }

    /// Returns the manifest of the server `pid` with this `declaration`, or why it is not known whether there is one;
    /// `None` when there is none. The only declaration on the node is that of the only server whatever its settings are.
    pub(crate) fn manifest<'d>(
        &'d self,
        pid: u32,
        declaration: &'d Result<Option<Declared>, EvidenceError>,
    ) -> Option<Result<&'d str, EvidenceError>> {
        let error = match declaration {
            Ok(declared) => return declared.as_ref().filter(|d| is_pod(d)).map(|d| Ok(d.path.as_str())),
            Err(error) => error,
        };
        let unread = self.all.supervisors.unread.is_some();
        let may_be = match self.verdicts.get(&pid) {
            Some(Verdict::AnyOf { candidates, unread: none }) => {
                let sole = self.sole_manifest(candidates).filter(|_| none.is_none());
                if let Some(only) = sole.and_then(|index| self.all.get(index)) {
                    return Some(Ok(&only.declared.path));
                }
                let is_pod = |index: &usize| self.all.get(*index).is_some_and(|f| is_pod(&f.declared));
                unread || candidates.iter().any(is_pod)
            }
            Some(Verdict::Unknown { may_be_pod, .. }) => {
                *may_be_pod && (unread || self.all.manifests().next().is_some())
            }
            Some(Verdict::OneOf(_) | Verdict::Proven { .. }) => true,
            Some(Verdict::Nothing) | None => false,
        };
        may_be.then(|| Err(error.clone()))
    }
}

/// Returns how much a declaration looks like the running settings; 0 when nothing ties them together.
fn likeness(declared: &Declared, running: &Settings) -> u32 {
    let Some(promised) = declared.settings.value() else { return 0 };
    let same = |name: &str| match (promised.get(name), running.get(name)) {
        (Some(a), Some(b)) => {
            let by_default = |s: &Setting| matches!(s.origin, Origin::Default { .. });
            u32::from(a.value == b.value && !(by_default(a) && by_default(b)))
        }
        _ => 0,
    };
    // What makes a member one of its own says more than what several have in common.
    const OWN: [&str; 2] = ["name", "data-dir"];
    const NEAR: [&str; 2] = ["listen-peer-urls", "listen-client-urls"];
    if OWN.iter().any(|name| promised.contains_key(*name)) {
        return 4 * OWN.iter().map(|name| same(name)).sum::<u32>()
            + NEAR.iter().map(|name| same(name)).sum::<u32>();
    }
    promised.keys().map(|name| same(name)).sum()
}

struct Decide<'a> {
    root: &'a Root,
    all: &'a Declarations,
    unreadable: &'a mut Vec<EvidenceError>,
}

impl Decide<'_> {
    /// Returns the verdict on a process whose group names a unit or a pod; `None` on another one.
    fn by_proof(&mut self, process: &Placed) -> Option<Verdict> {
        match &process.owner {
            Err(error) => Some(Verdict::Unknown { error: error.clone(), may_be_pod: true }),
            Ok(Owner::Service { unit }) => Some(self.service(unit, process)),
            Ok(Owner::OtherManager { unit }) => {
                let message = format!(
                    "pid {} runs in {unit} of another service manager than the node's, whose units are not read",
                    process.pid
                );
                let error = EvidenceError::new(ErrorKind::Unsupported, message);
                Some(Verdict::Unknown { error, may_be_pod: false })
            }
            Ok(Owner::Pod { uid }) => self.pod(uid, process),
            Ok(Owner::Container { id }) => {
                let link = self.known(pods::of_container(self.root, id))?;
                if link.uid.as_ref().is_some_and(|uid| !self.is_static(uid)) {
                    return Some(self.unread().unwrap_or(Verdict::Nothing));
                }
                Some(self.named(&link.pod, process, AttributedBy::ContainerId))
            }
            Ok(Owner::Nobody) => None,
        }
    }

    /// Returns the verdict on a process in the group of `unit`, which nothing else can have started.
    fn service(&self, unit: &str, process: &Placed) -> Verdict {
        let unknown = |error| Verdict::Unknown { error, may_be_pod: false };
        match self.all.unit(unit) {
            Some(Unit::Declares(index)) => {
                Verdict::Proven { index: *index, by: AttributedBy::ControlGroup, unless: None }
            }
            Some(Unit::Unread(error)) => unknown(error.clone()),
            // Nothing but what the unit runs can have put a process there.
            Some(Unit::Runs(program)) => {
                let how = if process.is_main { "became" } else { "started" };
                let message = format!(
                    "{unit} runs {program}, which {how} the {name} with pid {}: what it would start {name} with is not known",
                    process.pid,
                    name = self.all.kind.component.name
                );
                unknown(EvidenceError::new(ErrorKind::Unsupported, message))
            }
            _ => Verdict::Nothing,
        }
    }

    /// Returns the verdict on a process in the group of the pod `uid`; `None` when its name is not known.
    fn pod(&mut self, uid: &str, process: &Placed) -> Option<Verdict> {
        let declares = |pod: &&StaticPod| pod.uid.as_ref().is_some_and(|theirs| same_uid(theirs, uid));
        let by_manifest: Vec<_> = self.all.supervisors.pods.iter().filter(declares).collect();
        if !by_manifest.is_empty() {
            return Some(self.declared_by(&by_manifest, process, AttributedBy::PodUid, None));
        }
        if !self.is_static(uid) {
            return Some(self.unread().unwrap_or(Verdict::Nothing));
        }
        let pod = self.known(pods::of_uid(self.root, uid))?;
        Some(self.named(&pod, process, AttributedBy::PodUid))
    }

    /// Returns whether the pod `uid` may be a static one. Those of the API server are not, unless in a manifest that could not
    /// be read.
    fn is_static(&self, uid: &str) -> bool {
        let declares = |pod: &StaticPod| pod.uid.as_ref().is_some_and(|theirs| same_uid(theirs, uid));
        pods::may_be_static(uid) || self.all.supervisors.pods.iter().any(declares)
    }

    /// Returns the verdict on a process in a static pod that is called so.
    fn named(&self, pod: &PodName, process: &Placed, by: AttributedBy) -> Verdict {
        let candidates: Vec<(&StaticPod, &str)> =
            self.all.supervisors.pods.iter().filter_map(|one| Some((one, on_some_node(one, pod)?))).collect();
        // `etcd-events-m1` is `etcd` on the node `events-m1`, or `etcd-events` on `m1`.
        let exact = candidates.iter().filter(|(_, node)| self.is_this_node(node));
        let exact: Vec<&StaticPod> = exact.map(|(one, _)| *one).collect();
        let unread = self.all.supervisors.unread.clone();
        match (exact.is_empty(), unread) {
            (false, unread) => self.declared_by(&exact, process, by, unread),
            (true, Some(error)) => Verdict::Unknown { error, may_be_pod: true },
            (true, None) => Verdict::OneOf(self.declarations_in(candidates.into_iter().map(|(one, _)| one))),
        }
    }

    /// Returns whether `name`, at the end of that of a static pod, is this node's. The domain of a node may be known to one
    /// of the two only.
    fn is_this_node(&self, name: &str) -> bool {
        let label = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let same = |known: &String| {
            known == name || (label(known) == label(name) && known.contains('.') != name.contains('.'))
        };
        self.all.supervisors.node_names.iter().any(same)
    }

    /// Returns the declarations of an etcd in the manifests of these pods.
    fn declarations_in<'p>(&self, pods: impl Iterator<Item = &'p StaticPod>) -> Vec<usize> {
        let files: BTreeSet<&str> = pods.map(|pod| pod.file.as_str()).collect();
        let declared = self.all.manifests().filter(|(_, found)| files.contains(found.declared.path.as_str()));
        declared.map(|(index, _)| index).collect()
    }

    /// Returns the verdict on a process in a pod that these manifests declare, while one that is `unread` may declare it, too.
    fn declared_by(
        &self,
        pods: &[&StaticPod],
        process: &Placed,
        by: AttributedBy,
        unread: Option<EvidenceError>,
    ) -> Verdict {
        let mut of = self.declarations_in(pods.iter().copied());
        if of.len() > 1
            && let Some(id) = &process.container
            && let Ok(Some(link)) = pods::of_container(self.root, id)
        {
            let runs = |index: &usize| self.all.get(*index).is_some_and(|found| found.runs(&link.container));
            if of.iter().any(runs) {
                of.retain(runs);
            }
        }
        match (of.as_slice(), unread) {
            ([], _) => {
                let files: Vec<&str> = pods.iter().map(|pod| pod.file.as_str()).collect();
                let message = format!(
                    "{} declares the pod in which pid {} runs, but not with a command that is known to start {}",
                    files.join(" and "),
                    process.pid,
                    self.all.kind.component.name
                );
                let error = EvidenceError::new(ErrorKind::Unsupported, message);
                Verdict::Unknown { error, may_be_pod: true }
            }
            ([index], unless) => Verdict::Proven { index: *index, by, unless },
            (_, Some(error)) => Verdict::Unknown { error, may_be_pod: true },
            _ => Verdict::OneOf(of),
        }
    }

    /// Returns the verdict on a process that nothing ties to a declaration; those that others were started from are `taken`.
    fn by_elimination(&self, process: &Placed, taken: &BTreeSet<usize>) -> Verdict {
        let free = |index: &usize| !taken.contains(index);
        let manifests: Vec<usize> = self.all.manifests().map(|(index, _)| index).filter(free).collect();
        match &process.owner {
            Ok(Owner::Pod { .. }) => match (manifests.as_slice(), self.unread()) {
                (_, Some(unread)) => unread,
                ([], None) => Verdict::Nothing,
                ([index], None) => {
                    Verdict::Proven { index: *index, by: AttributedBy::SoleManifest, unless: None }
                }
                (_, None) => Verdict::OneOf(manifests),
            },
            Ok(Owner::Container { .. }) => {
                Verdict::AnyOf { candidates: manifests, unread: self.all.supervisors.unread.clone() }
            }
            _ => {
                // Where systemd runs the node, what it started is in the group of a service.
                let units = self.all.units().map(|(index, _)| index).filter(free);
                let units = units.filter(|_| !self.all.systemd_runs());
                let unread_unit = self.all.unread_unit.clone().filter(|_| !self.all.systemd_runs());
                Verdict::AnyOf {
                    candidates: manifests.into_iter().chain(units).collect(),
                    unread: self.all.supervisors.unread.clone().or(unread_unit),
                }
            }
        }
    }

    /// Returns the verdict on a process in a pod whose manifest may be one that could not be read, if there is one.
    fn unread(&self) -> Option<Verdict> {
        let error = self.all.supervisors.unread.clone()?;
        Some(Verdict::Unknown { error, may_be_pod: true })
    }

    /// Returns what was found out, and notes what could not be.
    fn known<T>(&mut self, found: Result<Option<T>, EvidenceError>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.unreadable.push(error);
            None
        })
    }
}

/// Returns the name of the node on which `pod` is the static pod; `None` when it is on none.
fn on_some_node<'a>(static_pod: &StaticPod, pod: &'a PodName) -> Option<&'a str> {
    let name = Some(static_pod.name.as_str()).filter(|name| !name.is_empty());
    let node = pod.name.strip_prefix(name?)?.strip_prefix('-')?;
    Some(node).filter(|node| !node.is_empty() && static_pod.namespace == pod.namespace)
}

#[cfg(test)]
mod tests {
    use seaworthy_components::etcd::settings::{self, Inputs};
    use seaworthy_evidence::Observed;

    use super::super::declarations::tests::{MANIFESTS, UNIT_FILE, declarations_of, pod};
    use super::*;
    use seaworthy_settings::Argument;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6f1cbe3a3bd1e0d31a3f7b0a5c1a9a11";

    fn running(name: &str) -> Observed<Settings> {
        let text = format!("--name={name}").into_bytes();
        let arguments = [Argument { text, origin: Origin::Argv { pid: 7, index: 1 } }];
        let none = |_: &str| Err(EvidenceError::new(ErrorKind::NotFound, "no file"));
        let (environment, version) = (Ok(&[][..]), None);
        settings::resolve(Inputs { arguments: &arguments, environment, version, read: &mut { none } })
            .settings
    }

    fn placed(pid: u32, owner: Owner) -> Placed {
        let container = matches!(owner, Owner::Pod { .. } | Owner::Container { .. }).then(|| ID.to_owned());
        Placed { pid, owner: Ok(owner), container, is_main: true }
    }

    fn in_pod() -> Owner {
        Owner::Pod { uid: UID.to_owned() }
    }

    fn in_service(unit: &str) -> Owner {
        Owner::Service { unit: unit.to_owned() }
    }

    fn manifest(name: &str, text: impl Into<String>) -> (String, String) {
        (format!("{MANIFESTS}/{name}"), text.into())
    }

    fn unit(exec: &str) -> (String, String) {
        (UNIT_FILE.to_owned(), format!("[Service]\nExecStart={exec}\n"))
    }

    fn logs(pod: &str) -> (String, String) {
        (format!("/var/log/pods/kube-system_{pod}_{UID}/etcd/0.log"), String::new())
    }

    /// A manifest that kubelet cannot parse.
    fn broken() -> (String, String) {
        manifest("etcd.yaml", "kind: Pod\n\tspec: x\n")
    }

    /// Looks for the declarations of `processes` among `files`, and calls `test` with what ties them together.
    fn attributions<T>(
        files: &[(String, String)],
        processes: &[Placed],
        test: impl FnOnce(&Attributions<'_>) -> T,
    ) -> T {
        attributions_with(files, &[], processes, test)
    }

    /// Does so where there are links, each with what it points at.
    fn attributions_with<T>(
        files: &[(String, String)],
        links: &[(&str, &str)],
        processes: &[Placed],
        test: impl FnOnce(&Attributions<'_>) -> T,
    ) -> T {
        let services = processes.iter().filter_map(|process| match &process.owner {
            Ok(Owner::Service { unit }) => Some(unit.clone()),
            _ => None,
        });
        let mut files = files.to_vec();
        if files.iter().all(|(path, _)| path != "/etc/hostname") {
            files.push(("/etc/hostname".to_owned(), "m1\n".to_owned()));
        }
        declarations_of(&files, services.collect(), |all, survey| {
            for (path, target) in links {
                let path = survey.options.root.join(path.trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(target, path).unwrap();
            }
            test(&Attributions::decide(survey.root, all, processes, &mut Vec::new()))
        })
    }

    type Files = Vec<(String, String)>;

    type Found = Result<Option<(String, AttributedBy)>, ErrorKind>;

    /// Returns the name of the file that declares process `pid`, and what tells that; and whether it is or may be a manifest.
    fn found(all: &Attributions<'_>, pid: u32, running: &Observed<Settings>) -> (Found, bool) {
        let got = all.of(pid, running.as_result());
        let has_manifest = all.manifest(pid, &got).is_some();
        let name = |d: Declared| (d.path.rsplit('/').next().unwrap().to_owned(), d.attributed_by.unwrap());
        (got.map(|d| d.map(name)).map_err(|e| e.kind), has_manifest)
    }

    fn is(name: &str, by: AttributedBy) -> Found {
        Ok(Some((name.to_owned(), by)))
    }

    #[test]
    fn without_a_group_what_could_not_be_read_is_not_taken_for_nothing() {
        use AttributedBy::Likeness;
        let denied = || Observed::failed(EvidenceError::new(ErrorKind::PermissionDenied, "denied"));
        let m1 = || running("m1");
        let etcd = |name: &str| manifest("etcd.yaml", pod(name));
        let systemd = || ("/run/systemd/system/x".to_owned(), String::new());
        let unread = || (format!("{UNIT_FILE}/x"), String::new());
        // The files, what runs, the declaration found or the error, and whether there is or may be a manifest.
        type Row = (Files, Observed<Settings>, Found, bool);
        let rows: Vec<Row> = vec![
            (vec![], m1(), Ok(None), false),
            (vec![], denied(), Ok(None), false),
            (vec![etcd("m1")], m1(), is("etcd.yaml", Likeness), true),
            (vec![etcd("m2")], m1(), is("etcd.yaml", Likeness), true),
            (vec![etcd("m1")], denied(), Err(ErrorKind::PermissionDenied), true),
            (vec![etcd("m1"), manifest("x", "[")], m1(), Err(ErrorKind::Malformed), true),
            (vec![broken()], m1(), Err(ErrorKind::Malformed), true),
            (vec![broken(), unit("/usr/bin/etcd --name m1")], m1(), Err(ErrorKind::Malformed), true),
            (vec![broken(), unit("/usr/bin/etcd --name m2")], m1(), Err(ErrorKind::Malformed), true),
            (vec![unit("/usr/bin/etcd --name m1")], m1(), is("etcd.service", Likeness), false),
            (vec![unit("/usr/bin/etcd --name m2")], m1(), Ok(None), false),
            (vec![unit("/usr/bin/etcd --name %s")], m1(), Err(ErrorKind::Unsupported), false),
            (vec![unit("/usr/bin/etcd --name m1")], denied(), Err(ErrorKind::PermissionDenied), false),
            (vec![unread()], m1(), Err(ErrorKind::Unsupported), false),
            // Whatever systemd starts is in a group of its own.
            (vec![unit("/usr/bin/etcd --name m1"), systemd()], m1(), Ok(None), false),
            (vec![unread(), systemd()], m1(), Ok(None), false),
            (vec![etcd("m1"), unit("/usr/bin/etcd --name m1")], m1(), is("etcd.service", Likeness), false),
            (vec![etcd("m1"), unit("/usr/bin/etcd"), systemd()], m1(), is("etcd.yaml", Likeness), true),
        ];
        for (files, running, want, has_manifest) in rows {
            attributions(&files, &[placed(7, Owner::Nobody)], |all| {
                assert_eq!(found(all, 7, &running), (want, has_manifest), "{files:?}");
            });
        }
    }

    #[test]
    fn a_process_in_the_group_of_a_pod_was_started_from_that_pods_manifest() {
        use AttributedBy::{Likeness, PodUid, SoleManifest};
        let inactive = || unit("/usr/bin/etcd --name m1");
        let etcd = |name: &str| manifest("etcd.yaml", pod(name));
        let named = |file: &str, name: &str| {
            manifest(file, pod("m1").replace("name: etcd,", &format!("name: {name},")))
        };
        let with_uid = |uid: &str| {
            manifest("etcd.yaml", pod("m1").replace("name: etcd,", &format!("name: etcd, uid: {uid},")))
        };
        let hostname = |name: &str| ("/etc/hostname".to_owned(), name.to_owned());
        let entrypoint =
            manifest("etcd.yaml", pod("m1").replace("command: [etcd, --name=m1]", "args: [--name=m1]"));
        let rows: Vec<(&str, Files, Found, bool)> = vec![
            ("by name", vec![etcd("m1"), inactive(), logs("etcd-m1")], is("etcd.yaml", PodUid), true),
            (
                "whatever it says",
                vec![etcd("m9"), inactive(), logs("etcd-m1")],
                is("etcd.yaml", PodUid),
                true,
            ),
            ("by uid", vec![with_uid(UID), inactive()], is("etcd.yaml", PodUid), true),
            ("another uid", vec![with_uid("other"), logs("kine-m1")], Ok(None), false),
            ("unparsable", vec![broken(), inactive(), logs("etcd-m1")], Err(ErrorKind::Malformed), true),
            ("unparsable, without logs", vec![broken(), inactive()], Err(ErrorKind::Malformed), true),
            ("gone", vec![inactive(), logs("etcd-m1")], Ok(None), false),
            ("gone, without logs", vec![inactive()], Ok(None), false),
            ("without logs", vec![etcd("m9"), inactive()], is("etcd.yaml", SoleManifest), true),
            (
                "another file is broken, and this one explains what runs",
                vec![etcd("m1"), manifest("x", "["), logs("etcd-m1")],
                is("etcd.yaml", PodUid),
                true,
            ),
            (
                "another file is broken, and this one does not explain what runs",
                vec![etcd("m9"), manifest("x", "["), logs("etcd-m1")],
                Err(ErrorKind::Malformed),
                true,
            ),
            (
                "another pod's manifest",
                vec![named("events.yaml", "etcd-events"), logs("etcd-m1")],
                Ok(None),
                false,
            ),
            (
                "the node's name decides",
                vec![etcd("m9"), named("events.yaml", "etcd-events"), logs("etcd-events-m1")],
                is("events.yaml", PodUid),
                true,
            ),
            (
                "the node's name decides otherwise",
                vec![
                    etcd("m1"),
                    named("e.yaml", "etcd-events"),
                    hostname("Events-M1"),
                    logs("etcd-events-m1"),
                ],
                is("etcd.yaml", PodUid),
                true,
            ),
            (
                "the node's name is not known",
                vec![etcd("m1"), hostname("x"), logs("etcd-m1")],
                is("etcd.yaml", Likeness),
                true,
            ),
            (
                "the node's domain is known to kubelet alone",
                vec![etcd("m9"), logs("etcd-m1.example")],
                is("etcd.yaml", PodUid),
                true,
            ),
            (
                "another static pod, whose manifest has gone",
                vec![etcd("m9"), logs("etcd-backup-m1")],
                Err(ErrorKind::Unsupported),
                true,
            ),
            ("two without logs", vec![etcd("m1"), named("e", "x")], is("etcd.yaml", Likeness), true),
            (
                "two files of the pod",
                vec![etcd("m9"), manifest("old", pod("m1")), logs("etcd-m1")],
                is("old", Likeness),
                true,
            ),
            (
                "two files of the pod, and nothing tells which",
                vec![etcd("m9"), manifest("old", pod("m8")), logs("etcd-m1")],
                Err(ErrorKind::Unsupported),
                true,
            ),
            (
                "the command is the image's",
                vec![entrypoint, logs("etcd-m1")],
                Err(ErrorKind::Unsupported),
                false,
            ),
        ];
        for (about, files, want, has_manifest) in rows {
            attributions(&files, &[placed(7, in_pod())], |all| {
                assert_eq!(found(all, 7, &running("m1")), (want, has_manifest), "{about}: {files:?}");
            });
        }
    }

    #[test]
    fn a_pod_of_the_api_server_is_in_no_manifest() {
        let uid = "0a1b2c3d-0000-4000-8000-0123456789ab";
        let logs = (format!("/var/log/pods/kube-system_etcd-m1_{uid}/etcd/0.log"), String::new());
        let good = manifest("etcd.yaml", pod("m1"));
        for (file, want) in [(good, Ok(None)), (broken(), Err(ErrorKind::Malformed))] {
            let files = [file, unit("/usr/bin/etcd --name m1"), logs.clone()];
            let in_pod = Owner::Pod { uid: uid.to_owned() };
            let link = format!("/var/log/containers/etcd-m1_kube-system_etcd-{ID}.log");
            for owner in [in_pod, Owner::Container { id: ID.to_owned() }] {
                attributions_with(&files, &[(&link, &logs.0)], &[placed(7, owner)], |all| {
                    assert_eq!(found(all, 7, &running("m1")).0, want);
                });
            }
        }
    }

    #[test]
    fn a_process_in_a_container_is_never_a_units() {
        use AttributedBy::{ContainerId, Likeness};
        let owner = || Owner::Container { id: ID.to_owned() };
        let inactive = || unit("/usr/bin/etcd --name m1");
        let link = |container: &str| {
            (format!("/var/log/containers/etcd-m1_kube-system_{container}-{ID}.log"), String::new())
        };
        let two = || {
            let second = "  - {name: b, command: [etcd, --name=m1]}\n";
            manifest("etcd.yaml", pod("m9").replace("- command", "- name: a\n    command") + second)
        };
        let rows = [
            (vec![inactive()], Ok(None)),
            (vec![inactive(), manifest("etcd.yaml", pod("m1"))], is("etcd.yaml", Likeness)),
            (vec![inactive(), manifest("etcd.yaml", pod("m9")), link("etcd")], is("etcd.yaml", ContainerId)),
            (vec![inactive(), broken(), link("etcd")], Err(ErrorKind::Malformed)),
            (vec![inactive(), two(), link("a")], is("etcd.yaml", ContainerId)),
        ];
        for (files, want) in rows {
            attributions(&files, &[placed(7, owner())], |all| {
                assert_eq!(found(all, 7, &running("m1")).0, want, "{files:?}");
            });
        }
        // Which of two containers of a pod it is.
        attributions(&[two(), link("a"), logs("etcd-m1")], &[placed(7, in_pod())], |all| {
            let declared = all.of(7, running("m1").as_result()).unwrap().unwrap();
            assert_eq!(declared.settings.value().unwrap()["name"].value, "m9");
            assert_eq!(declared.attributed_by, Some(AttributedBy::PodUid));
        });
    }

    #[test]
    fn a_process_in_the_group_of_a_service_was_started_from_that_unit() {
        use AttributedBy::ControlGroup;
        let other = || ("/etc/systemd/system/my-etcd.service".to_owned(), unit("/usr/bin/etcd --name m9").1);
        let like = || manifest("etcd.yaml", pod("m1"));
        let wrapped = || unit("/usr/local/bin/start-etcd");
        let rows: Vec<(&str, Files, Owner, Found)> = vec![
            (
                "whatever is more like it",
                vec![like(), unit("/usr/bin/etcd --name m1"), other()],
                in_service("my-etcd.service"),
                is("my-etcd.service", ControlGroup),
            ),
            (
                "whatever cannot be read",
                vec![broken(), unit("/usr/bin/etcd --name m9")],
                in_service("etcd.service"),
                is("etcd.service", ControlGroup),
            ),
            ("no such unit", vec![like(), other()], in_service("gone.service"), Ok(None)),
            ("a wrapper", vec![like(), wrapped()], in_service("etcd.service"), Err(ErrorKind::Unsupported)),
            (
                "a unit that cannot be read",
                vec![like(), (format!("{UNIT_FILE}/x"), String::new())],
                in_service("etcd.service"),
                Err(ErrorKind::Unsupported),
            ),
            (
                "a user's",
                vec![like(), unit("/usr/bin/etcd --name m1")],
                Owner::OtherManager { unit: "etcd.service".to_owned() },
                Err(ErrorKind::Unsupported),
            ),
        ];
        for (about, files, owner, want) in rows {
            attributions(&files, &[placed(7, owner)], |all| {
                assert_eq!(found(all, 7, &running("m1")), (want, false), "{about}");
            });
        }
        // What the program of a unit starts it starts in a way that is not known.
        let child = Placed { is_main: false, ..placed(7, in_service("etcd.service")) };
        attributions(&[like(), wrapped()], &[child], |all| {
            assert_eq!(found(all, 7, &running("m1")).0, Err(ErrorKind::Unsupported));
        });
    }

    #[test]
    fn a_declaration_that_is_known_to_be_anothers_is_not_compared() {
        let files = [manifest("etcd.yaml", pod("m1")), unit("/usr/bin/etcd --name m2"), logs("etcd-m1")];
        let processes =
            [placed(7, in_pod()), placed(8, in_service("etcd.service")), placed(9, Owner::Nobody)];
        attributions(&files, &processes, |all| {
            for name in ["m1", "m2"] {
                assert_eq!(found(all, 9, &running(name)).0, Ok(None), "{name}");
            }
            assert_eq!(found(all, 7, &running("m2")).0, is("etcd.yaml", AttributedBy::PodUid));
            assert_eq!(found(all, 8, &running("m1")).0, is("etcd.service", AttributedBy::ControlGroup));
        });
        let other = "0a1b2c3d000040008000000123456789";
        let backup = (format!("/var/log/pods/kube-system_etcd-backup-m1_{other}/etcd/0.log"), String::new());
        for more in [vec![], vec![backup]] {
            let files = [files.to_vec(), more].concat();
            let elsewhere = Owner::Pod { uid: other.to_owned() };
            attributions(&files, &[placed(7, in_pod()), placed(8, elsewhere)], |all| {
                assert_eq!(found(all, 8, &running("m1")).0, Ok(None), "{files:?}");
            });
        }
    }

    #[test]
    fn the_only_manifest_is_known_without_settings() {
        let denied = EvidenceError::new(ErrorKind::PermissionDenied, "denied");
        let files = [manifest("etcd.yaml", pod("m1"))];
        let path = format!("{MANIFESTS}/etcd.yaml");
        attributions(&files, &[placed(7, Owner::Nobody)], |all| {
            let declaration = all.of(7, Err(denied.clone()));
            assert_eq!(all.manifest(7, &declaration), Some(Ok(path.as_str())));
        });
        attributions(&files, &[placed(7, Owner::Nobody), placed(8, Owner::Nobody)], |all| {
            let declaration = all.of(7, Err(denied.clone()));
            assert_eq!(all.manifest(7, &declaration), Some(Err(denied.clone())));
        });
        let files = [manifest("etcd.yaml", pod("m1")), logs("etcd-m1")];
        attributions(&files, &[placed(7, in_pod()), placed(8, Owner::Nobody)], |all| {
            let declaration = all.of(7, Err(denied));
            assert_eq!(all.manifest(7, &declaration), Some(Ok(path.as_str())));
        });
    }

    #[test]
    fn a_process_whose_group_cannot_be_read_is_of_unknown_origin() {
        let unreadable =
            Placed { owner: Err(EvidenceError::new(ErrorKind::Io, "x")), ..placed(7, Owner::Nobody) };
        attributions(&[manifest("etcd.yaml", pod("m1"))], &[unreadable], |all| {
            assert_eq!(found(all, 7, &running("m1")), (Err(ErrorKind::Io), true));
        });
    }

    #[test]
    fn a_configuration_file_that_etcd_refuses_would_keep_it_from_starting() {
        use seaworthy_settings::ConfigText;
        let pod = |rest: &str| {
            let command = "command: [etcd, --config-file=/etc/etcd/conf.yaml]";
            format!("kind: Pod\nmetadata: {{name: etcd}}\nspec:\n  containers:\n  - {command}\n{rest}")
        };
        let mounted = pod("    volumeMounts: [{name: a, mountPath: /etc/etcd}]\n  \
                           volumes: [{name: a, hostPath: {path: /a}}]\n");
        let quoted = "peer-transport-security: {client-cert-auth: \"true\"}\n";
        let big = "#".repeat(ConfigText::MAX + 1);
        // The manifest, the file on the host, the error of the running etcd, and what would keep it from starting.
        let rows = [
            (&mounted, Some(quoted), ErrorKind::Malformed, Some(Some(1))),
            (&mounted, None, ErrorKind::Malformed, Some(Some(1))),
            // Nobody knows what is in a file of the image.
            (&pod(""), None, ErrorKind::Malformed, Some(None)),
            (&mounted, Some(&big), ErrorKind::Malformed, Some(None)),
            (&mounted, Some(quoted), ErrorKind::PermissionDenied, None),
        ];
        for (text, file, kind, want) in rows {
            let mut files = vec![manifest("etcd.yaml", text.as_str())];
            files.extend(file.map(|text| ("/a/conf.yaml".to_owned(), text.to_owned())));
            let error = EvidenceError::new(kind, "what runs");
            attributions(&files, &[placed(7, Owner::Nobody)], |all| {
                let declaration = all.of(7, Err(error.clone())).ok();
                assert_eq!(declaration.map(|d| d.unwrap().fatal.value().map(Vec::len)), want, "{files:?}");
            });
            attributions(&files, &[placed(7, Owner::Nobody), placed(8, Owner::Nobody)], |all| {
                assert_eq!(all.of(7, Err(error.clone())), Err(error));
            });
        }
    }

    #[test]
    fn a_server_without_settings_was_started_by_the_service_it_runs_in() {
        let files = [
            unit("/usr/bin/etcd --config-file=/etc/etcd.conf"),
            ("/etc/etcd.conf".to_owned(), "client-transport-security: [\n".to_owned()),
        ];
        attributions(&files, &[placed(7, in_service("etcd.service"))], |all| {
            for kind in [ErrorKind::Malformed, ErrorKind::PermissionDenied] {
                let declared = all.of(7, Err(EvidenceError::new(kind, "what runs"))).unwrap().unwrap();
                assert_eq!((&*declared.path, declared.fatal.value().unwrap().len()), (UNIT_FILE, 1));
            }
        });
    }
}
