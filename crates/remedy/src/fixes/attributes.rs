//! Owners and modes of an instance's files: the manifest, kubeconfigs, the data directory, and certificates with their keys.
//!
//! Nothing restarts, and nothing is asked of a cluster: these plans are made, and may be carried out, while members are down.
//! What they must not do is loosen: a mode only loses bits. And an instance that does not run as root must still be able to use
//! what it uses: an etcd reads key and certificate at each handshake, and opens files in its data directory all the time.

use std::collections::BTreeMap;

use seaworthy_catalogue::{Files, Owner};
use seaworthy_components::etcd::READ_FILES;
use seaworthy_evidence::{File, FileKind, NamedFile, Observed, Origin, PkiContent, Process, Setting};

use crate::plan::{Action, Attributes, Condition, Plan, Refusal, RefusalKind, Stage, Step};
use crate::planner::{Input, View, missing, refuse};

/// What is demanded of files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand<'a> {
    /// Which files.
    pub(crate) of: Files,
    /// The most that their mode may allow.
    pub(crate) mode: Option<u32>,
    /// To whom they are to belong.
    pub(crate) owner: Option<Owner>,
    /// Why, in sentences.
    pub(crate) why: &'a str,
}

/// Where every file belongs to root; elsewhere it may belong to the account of the process.
const KUBERNETES: &str = "/etc/kubernetes/";

pub(crate) const READS: u32 = 0o4;
const SEARCHES: u32 = 0o1;
const EVERYTHING: u32 = 0o7;

/// Returns what gives the files of an instance the owners and modes that `rule` demands.
pub(crate) fn plan(rule: &str, demand: Demand<'_>, s: &Input<'_>) -> Result<Plan, Refusal> {
    let mut found = Vec::new();
    match demand.of {
        Files::Manifest => {
            if let Some(manifest) = &s.subject.files.manifest {
                let open_to = s.subject.files.manifest_open_to.as_result().map_err(missing)?;
                if !open_to.is_empty() {
                    return Err(refuse(
                        RefusalKind::Access,
                        open_to.clone(),
                        "whatever owner and mode of the manifest are, another one could be put in its place",
                        "let only root write to that folder, and plan again",
                    ));
                }
                let file = manifest.as_result().map_err(missing)?;
                found.push(Target::new(file.path.clone(), file, 0));
            }
        }
        Files::Kubeconfigs => found = named(&s.subject.files.kubeconfigs, demand, s)?,
        Files::Authorities | Files::Config | Files::Unit => {
            let files = &s.subject.files;
            let (list, what) = match demand.of {
                Files::Authorities => (&files.authorities, "the files of CAs"),
                Files::Config => (&files.config, "the configuration files"),
                _ => (&files.unit, "the files of the unit"),
            };
            found = named(list.as_ref().ok_or_else(|| missing(what.to_owned()))?, demand, s)?;
        }
        Files::DataDirectory => {
            let file = s.subject.own.data_directory.as_result().map_err(missing)?;
            found.push(Target::new(on_host(file, s)?, file, EVERYTHING));
        }
        Files::Certificates | Files::Pki | Files::PrivateKeys => found = pki(s)?,
    }
    let mut steps = Vec::new();
    let mut by_hand = Vec::new();
    for target in &found {
        let after = target.wanted(demand, s)?;
        if after == target.present() {
            continue;
        }
        target.restorable(s)?;
        if target.needs > 0 {
            target.usable(&after, s)?;
        }
        by_hand.extend(target.by_hand(demand));
        steps.push(target.step(demand, after));
    }
    let stage = if steps.is_empty() { Stage::Done } else { Stage::Change };
    if let Some(last) = steps.last_mut() {
        last.verify.push(Condition::RulePasses { rule: rule.to_owned() });
    }
    Ok(crate::planner::alone(rule, s, stage, steps, by_hand))
}

/// What is in the path of a file that kubelet mounts into a pod, and writes anew.
const VOLUMES: &str = "/volumes/kubernetes.io~";

/// Returns the files in a list, each once.
fn named<'a>(
    list: &'a Observed<Vec<NamedFile>>,
    demand: Demand<'_>,
    s: &Input<'a>,
) -> Result<Vec<Target<'a>>, Refusal> {
    let named = list.as_result().map_err(missing)?;
    let mut found: BTreeMap<String, Target<'a>> = BTreeMap::new();
    for one in named {
        let file = one.file.as_result().map_err(missing)?;
        let replaceable = one.replaceable_by.as_result().map_err(missing)?;
        if demand.mode.is_some() && !replaceable.is_empty() {
            return Err(refuse(
                RefusalKind::Access,
                replaceable.clone(),
                "whatever the file's own mode is, another one could be put in its place",
                format!("let only root write in each folder on the way to {}, and plan again", file.path),
            ));
        }
        let path = match demand.of {
            Files::Unit => file.path.clone(),
            _ => on_host(file, s)?,
        };
        if path.contains(VOLUMES) {
            return Err(refuse(
                RefusalKind::Unsupported,
                format!("{} comes from a volume of its pod, and kubelet writes it anew", file.path),
                "what is changed here would not last",
                "set `defaultMode: 0600` of that volume where the pod is declared, in its DaemonSet",
            ));
        }
        // systemd reads a unit, as root.
        let needs = if demand.of == Files::Unit { 0 } else { READS };
        found.entry(path.clone()).or_insert_with(|| Target::new(path, file, needs));
    }
    Ok(found.into_values().collect())
}

/// Returns the files of etcd's key material, each once, with what etcd needs of them.
fn pki<'a>(s: &Input<'a>) -> Result<Vec<Target<'a>>, Refusal> {
    let settings = s.subject.settings.as_result().map_err(missing)?;
    let files = s.subject.files.pki.as_result().map_err(missing)?;
    let set = |name: &&str| settings.get(*name).filter(|setting: &&Setting| setting.set);
    let read: Vec<&str> = READ_FILES.iter().filter_map(set).map(|setting| setting.value.as_str()).collect();
    let access = s.subject.files.access.as_ref().and_then(|access| access.value());
    let is_read = |file: &File| match access {
        Some(access) => access.iter().any(|access| access.path == file.path),
        // A path that is relative in the settings is absolute here, so what only the process knows of counts as well.
        None => {
            read.contains(&file.path.as_str()) || matches!(file.origin, Origin::File { pid: Some(_), .. })
        }
    };
    let read: Vec<&File> = files.iter().map(|f| &f.file).filter(|file| is_read(file)).collect();
    let mut found: BTreeMap<String, Target<'a>> = BTreeMap::new();
    for one in files {
        let file = &one.file;
        let within = |path: &str| {
            path.strip_prefix(file.path.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
        };
        let needs = match file.kind {
            FileKind::Directory if read.iter().any(|f| within(&f.path)) => SEARCHES,
            FileKind::Directory => 0,
            _ if is_read(file) => READS,
            _ => 0,
        };
        let path = on_host(file, s)?;
        // The process may see by another path what the host has as well.
        let target = found.entry(path.clone()).or_insert_with(|| Target::new(path, file, needs));
        target.holds = Some(one.holds);
        target.needs |= needs;
        target.of_kubernetes |= file.path.starts_with(KUBERNETES);
    }
    Ok(found.into_values().collect())
}

/// Returns where a file is on the host.
pub(crate) fn on_host(file: &File, s: &Input<'_>) -> Result<String, Refusal> {
    let inside = matches!(file.origin, Origin::File { pid: Some(_), .. });
    let same = s.subject.process.value().is_some_and(|process| process.own_mounts == Some(false));
    if !inside || same {
        return Ok(file.path.clone());
    }
    View::of(s)?.outside(&file.path).ok_or_else(|| {
        refuse(
            RefusalKind::Unsupported,
            format!("{} is in no folder of the host that is mounted into the container", file.path),
            "what is inside a container only is gone with it, and so would be the change",
            "keep it in a folder of the host, or make the change in the image",
        )
    })
}

/// A file or directory that a rule is about.
struct Target<'a> {
    /// Where it is on the host.
    path: String,
    file: &'a File,
    holds: Option<PkiContent>,
    /// What the process must be able to do with it, as the bits of one class of a mode.
    needs: u32,
    /// Whether it is where every file belongs to root.
    of_kubernetes: bool,
}

impl<'a> Target<'a> {
    fn new(path: String, file: &'a File, needs: u32) -> Self {
        Self { path, file, holds: None, needs, of_kubernetes: false }
    }

    fn present(&self) -> Attributes {
        Attributes { mode: self.file.mode, uid: self.file.uid, gid: self.file.gid }
    }

    /// Returns owner and mode as they are demanded.
    fn wanted(&self, demand: Demand<'_>, s: &Input<'_>) -> Result<Attributes, Refusal> {
        let now = self.present();
        let process = || s.subject.process.as_result().map_err(missing);
        let only = |bits: u32| Attributes { mode: now.mode & bits, ..now };
        let holds = match demand.of {
            Files::Certificates => Some(PkiContent::Certificate),
            Files::PrivateKeys => Some(PkiContent::PrivateKey),
            _ => self.holds,
        };
        if self.holds != holds {
            return Ok(now);
        }
        if let Some(mode) = demand.mode {
            let closed = only(mode);
            if demand.of != Files::PrivateKeys
                || closed == now
                || self.needs == 0
                || self.leaves(&closed, s)?
            {
                return Ok(closed);
            }
            // A key that is read through a group becomes the reader's own.
            let process = process()?;
            return Ok(Attributes { uid: process.uid, gid: process.gid, ..closed });
        }
        Ok(match (demand.owner, demand.of) {
            (None, _) => now,
            (Some(Owner::Process), _) => {
                let process = process()?;
                let by_name = self.file.owner == "etcd" && self.file.group == "etcd";
                let closed = now.mode & 0o7777 & !0o707 == 0;
                if by_name || now.uid == process.uid && (closed || now.gid == process.gid) {
                    now
                } else {
                    Attributes { uid: process.uid, gid: process.gid, ..now }
                }
            }
            (Some(Owner::Root), Files::Pki) if self.of_kubernetes => {
                let root = Attributes { uid: 0, gid: 0, ..now };
                // What the process could not read then may be its own, if it is a key.
                match self.holds {
                    Some(PkiContent::PrivateKey)
                        if root != now && self.needs > 0 && !self.leaves(&root, s)? =>
                    {
                        let process = process()?;
                        let gid = if now.gid == 0 { 0 } else { process.gid };
                        Attributes { uid: process.uid, gid, ..now }
                    }
                    _ => root,
                }
            }
            (Some(Owner::Root), Files::Pki) => {
                let process = process()?;
                // What the process reads may stay its own here; the rest is nobody's but root's.
                let theirs = |id: u32, own: u32| match self.needs {
                    _ if id == 0 || id == own => id,
                    0 => 0,
                    _ => own,
                };
                Attributes { uid: theirs(now.uid, process.uid), gid: theirs(now.gid, process.gid), ..now }
            }
            (Some(Owner::Root), _) => Attributes { uid: 0, gid: 0, ..now },
        })
    }

    /// Refuses what could not be put back, as far as that is known.
    fn restorable(&self, s: &Input<'_>) -> Result<(), Refusal> {
        let known = s.declaration.iter().find(|d| d.path == self.path);
        let reason = match known.and_then(|d| d.unrestorable.clone()) {
            Some(reason) => reason,
            None if self.file.kind == FileKind::Other => "it is neither a file nor a directory".to_owned(),
            None => return Ok(()),
        };
        Err(refuse(
            RefusalKind::Unrestorable,
            format!("owner and mode of {} cannot be changed and put back: {reason}", self.path),
            "a change that cannot be undone is not made",
            "make it a regular file on a file system that can be written to",
        ))
    }

    /// Returns whether the process can still do with the file what it needs when that has these attributes: as was found by its
    /// groups, capabilities and access control lists, and else by its user and its group.
    fn leaves(&self, after: &Attributes, s: &Input<'_>) -> Result<bool, Refusal> {
        let access = s.subject.files.access.as_ref().and_then(|access| access.value());
        let known = access.into_iter().flatten().find(|access| access.path == self.file.path);
        let now = self.present();
        let fact = known.and_then(|known| match () {
            () if *after == now => Some(&known.granted),
            () if *after == (Attributes { uid: 0, gid: 0, ..now }) => Some(&known.as_roots),
            () if *after == (Attributes { mode: now.mode & 0o700, ..now }) => Some(&known.closed),
            () => None,
        });
        match fact {
            Some(fact) => fact.as_result().copied().map_err(missing),
            None => {
                let process = s.subject.process.as_result().map_err(missing)?;
                Ok(may(process, *after) & self.needs == self.needs)
            }
        }
    }

    /// Refuses what would keep the process from its own file.
    fn usable(&self, after: &Attributes, s: &Input<'_>) -> Result<(), Refusal> {
        if self.leaves(after, s)? {
            return Ok(());
        }
        let process = s.subject.process.as_result().map_err(missing)?;
        let does = match self.needs {
            READS => "read it",
            SEARCHES => "reach the files in it",
            _ => "read and write in it",
        };
        let now = self.present();
        let (uid, path, name) = (process.uid, &self.path, &s.subject.component);
        let instead = match () {
            () if after.mode == now.mode => format!(
                "let {path} be read by others first, which harms no certificate and no folder; or keep what {name} \
                 reads outside of {KUBERNETES}, where it may belong to its account"
            ),
            () => format!(
                "give {path} to the account that {name} runs as (uid {uid}) first, so that it needs no bits of a group"
            ),
        };
        Err(refuse(
            RefusalKind::Access,
            format!(
                "{name} runs as {uid}:{}, and could not {does} any more: {path} with mode {:04o} and owner {}:{}",
                process.gid, after.mode, after.uid, after.gid
            ),
            "a process that runs would fail at its next handshake or file, and one that starts would exit",
            instead,
        ))
    }

    /// Returns what is left to a person once the file is changed.
    fn by_hand(&self, demand: Demand<'_>) -> Option<String> {
        let path = &self.path;
        match demand.of {
            Files::PrivateKeys if self.file.mode & 0o044 != 0 => Some(format!(
                "Others could read the private key in {path} until now. If one may have, issue a new one: closing \
                 the file takes no copy back."
            )),
            Files::DataDirectory => Some(format!(
                "What creates {path} on a new node (a playbook, an image) has to give it the same owner and mode."
            )),
            _ => None,
        }
    }

    fn step(&self, demand: Demand<'_>, after: Attributes) -> Step {
        let (path, before) = (self.path.clone(), self.present());
        let title = match after.mode == before.mode {
            false => format!("Take away from others what they may do with {path}"),
            true => format!("Give {path} to {}:{}", after.uid, after.gid),
        };
        Step {
            title,
            why: demand.why.to_owned(),
            action: Action::SetAttributes { path: path.clone(), from: before, to: after },
            diff: None,
            preconditions: vec![Condition::Attributes { path: path.clone(), attributes: before }],
            verify: vec![Condition::Attributes { path, attributes: after }],
            restarts: false,
        }
    }
}

/// Returns what the process may do with a file, as the bits of one class of a mode. Groups that it has beside its own are
/// not known, and count for nothing.
pub(crate) fn may(process: &Process, file: Attributes) -> u32 {
    match () {
        () if process.uid == 0 => EVERYTHING,
        () if process.uid == file.uid => file.mode >> 6 & EVERYTHING,
        () if process.gid == file.gid => file.mode >> 3 & EVERYTHING,
        () => file.mode & EVERYTHING,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use seaworthy_evidence::{ErrorKind, EvidenceError, FileAccess, InstanceFiles, Observed, PkiFile};

    use super::*;
    use crate::fixture::{MANIFEST, World};
    use crate::planner::POD_DIRECTORY;
    use crate::preflight::preflight;

    const MANIFEST_MODE: &str = "manifest-mode";
    const MANIFEST_OWNER: &str = "manifest-owner";
    const DATA_MODE: &str = "etcd-data-directory-mode";
    const DATA_OWNER: &str = "etcd-data-directory-owner";
    const CERTIFICATE_MODE: &str = "etcd-pki-certificate-mode";
    const KEY_MODE: &str = "etcd-pki-key-mode";
    const PKI_OWNER: &str = "etcd-pki-owner";
    const ALL: [&str; 7] =
        [MANIFEST_MODE, MANIFEST_OWNER, DATA_MODE, DATA_OWNER, CERTIFICATE_MODE, KEY_MODE, PKI_OWNER];

    fn value<T>(observed: &mut Observed<T>) -> &mut T {
        match observed {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    fn set(file: &mut File, (mode, uid, gid): (u32, u32, u32)) {
        (file.mode, file.mode_text) = (mode, format!("{mode:04o}"));
        (file.uid, file.gid) = (uid, gid);
        (file.owner, file.group) = (uid.to_string(), gid.to_string());
    }

    impl World {
        fn pki(&mut self) -> &mut Vec<PkiFile> {
            value(&mut self.subject.files.pki)
        }

        fn pki_file(&mut self, name: &str) -> &mut File {
            let path = format!("{POD_DIRECTORY}/{name}").trim_end_matches('/').to_owned();
            &mut self.pki().iter_mut().find(|f| f.file.path == path).unwrap().file
        }

        fn data(&mut self) -> &mut File {
            value(&mut self.subject.own.data_directory)
        }

        fn manifest(&mut self) -> &mut File {
            value(self.subject.files.manifest.as_mut().unwrap())
        }

        fn runs_as(&mut self, uid: u32, gid: u32) {
            let process = value(&mut self.subject.process);
            (process.uid, process.gid) = (uid, gid);
            self.subject.files.access = None;
        }

        /// Does what the steps say.
        fn carry_out(&mut self, plan: &Plan) {
            for step in &plan.steps {
                let Action::SetAttributes { path, to, .. } = &step.action else { panic!("{step:?}") };
                let Attributes { mode, uid, gid } = to;
                let InstanceFiles { pki, manifest, .. } = &mut self.subject.files;
                let files = value(pki).iter_mut().map(|f| &mut f.file);
                for file in files.chain([value(manifest.as_mut().unwrap())]).filter(|f| f.path == *path) {
                    set(file, (*mode, *uid, *gid));
                }
                let data = self.data();
                if data.path == *path {
                    set(data, (*mode, *uid, *gid));
                }
            }
        }
    }

    #[track_caller]
    fn planned(rule: &str, world: &World) -> Plan {
        world.planned(rule).unwrap()
    }

    /// Returns what the steps set: path, mode, owner.
    fn changes(plan: &Plan) -> Vec<String> {
        let change = |step: &Step| match &step.action {
            Action::SetAttributes { path, to, .. } => format!("{path} {:04o} {}:{}", to.mode, to.uid, to.gid),
            other => panic!("{other:?}"),
        };
        plan.steps.iter().map(change).collect()
    }

    #[test]
    fn each_rule_changes_what_it_is_about_and_nothing_else() {
        type Break = fn(&mut World);
        let pki = POD_DIRECTORY;
        let cases: [(&str, Break, Vec<String>); 9] = [
            (MANIFEST_MODE, |w| set(w.manifest(), (0o644, 0, 0)), vec![format!("{MANIFEST} 0600 0:0")]),
            (MANIFEST_MODE, |w| set(w.manifest(), (0o400, 0, 0)), vec![]),
            (MANIFEST_OWNER, |w| set(w.manifest(), (0o600, 0, 7)), vec![format!("{MANIFEST} 0600 0:0")]),
            (DATA_MODE, |w| set(w.data(), (0o2755, 0, 0)), vec!["/var/lib/etcd 0700 0:0".to_owned()]),
            (DATA_OWNER, |w| set(w.data(), (0o700, 9, 9)), vec!["/var/lib/etcd 0700 0:0".to_owned()]),
            (DATA_OWNER, |w| set(w.data(), (0o750, 0, 9)), vec!["/var/lib/etcd 0750 0:0".to_owned()]),
            (
                CERTIFICATE_MODE,
                |w| ["ca.crt", "peer.key"].iter().for_each(|f| set(w.pki_file(f), (0o666, 0, 0))),
                vec![format!("{pki}/ca.crt 0644 0:0")],
            ),
            (
                KEY_MODE,
                |w| {
                    ["ca.crt", "peer.key", "server.key"]
                        .iter()
                        .for_each(|f| set(w.pki_file(f), (0o640, 0, 0)))
                },
                vec![format!("{pki}/peer.key 0600 0:0"), format!("{pki}/server.key 0600 0:0")],
            ),
            (PKI_OWNER, |w| set(w.pki_file("ca.crt"), (0o644, 5, 5)), vec![format!("{pki}/ca.crt 0644 0:0")]),
        ];
        for (rule, change, want) in cases {
            let mut world = World::loaded();
            change(&mut world);
            let plan = planned(rule, &world);
            assert_eq!(changes(&plan), want, "{rule}");
            let stage = if want.is_empty() { Stage::Done } else { Stage::Change };
            assert_eq!((plan.stage, plan.restarts(), plan.waits_for.len()), (stage, 0, 0), "{rule}");
            let last = plan.steps.last().map(|step| step.verify.clone());
            let passes = Condition::RulePasses { rule: rule.to_owned() };
            assert!(last.is_none_or(|v| v.len() == 2 && v[1] == passes), "{rule}");
        }
    }

    #[test]
    fn the_account_named_etcd_owns_its_data_by_the_letter() {
        let mut world = World::loaded();
        set(world.data(), (0o750, 9, 9));
        (world.data().owner, world.data().group) = ("etcd".to_owned(), "etcd".to_owned());
        assert_eq!(planned(DATA_OWNER, &world).stage, Stage::Done);
    }

    /// Returns a node whose files of etcd may be read and written by everybody, and are another account's.
    pub(crate) fn open_to_all() -> World {
        let mut world = World::loaded();
        set(world.manifest(), (0o644, 1, 1));
        set(world.data(), (0o777, 1, 1));
        world.pki().iter_mut().for_each(|f| set(&mut f.file, (0o666, 1, 1)));
        world
    }

    #[test]
    fn a_cluster_in_trouble_or_a_member_that_is_down_is_no_obstacle() {
        fn unseen<T>() -> Observed<T> {
            Observed::failed(EvidenceError::new(ErrorKind::NotFound, "it does not run"))
        }
        let mut world = open_to_all();
        world.health = Err("no member answers".to_owned());
        world.subject.version = unseen();
        world.subject.own.links = unseen();
        world.subject.own.cluster = unseen();
        for rule in ALL {
            let plan = planned(rule, &world);
            assert!(!plan.steps.is_empty(), "{rule}");
            assert_eq!(preflight(&plan, &world.input()), [], "{rule}");
        }
        world.subject.process = unseen();
        world.subject.settings = unseen();
        (world.subject.own.data_directory, world.subject.files.pki) = (unseen(), unseen());
        for rule in [MANIFEST_MODE, MANIFEST_OWNER] {
            let plan = planned(rule, &world);
            assert_eq!((preflight(&plan, &world.input()), plan.steps.len()), (vec![], 1), "{rule}");
            assert_eq!(plan.state.member, "m1", "{rule}");
        }
        let refusals = world.planned(DATA_MODE).unwrap_err();
        assert_eq!(refusals[0].kind, RefusalKind::Evidence);
    }

    #[test]
    fn what_etcd_needs_it_keeps() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, &str, Break); 8] = [
            (KEY_MODE, RefusalKind::Access, "could not read it any more", |w| {
                w.runs_as(100, 100);
                set(w.pki_file("peer.key"), (0o240, 0, 100));
            }),
            (PKI_OWNER, RefusalKind::Access, "be read by others first", |w| {
                w.runs_as(100, 100);
                set(w.pki_file("ca.crt"), (0o600, 100, 0));
            }),
            (PKI_OWNER, RefusalKind::Access, "could not reach the files", |w| {
                w.runs_as(100, 100);
                set(w.pki_file(""), (0o700, 100, 100));
            }),
            (DATA_MODE, RefusalKind::Access, "read and write in it", |w| {
                w.runs_as(100, 100);
                set(w.data(), (0o770, 0, 100));
            }),
            (DATA_OWNER, RefusalKind::Access, "read and write in it", |w| {
                w.runs_as(100, 100);
                set(w.data(), (0o070, 0, 100));
            }),
            (MANIFEST_MODE, RefusalKind::Unrestorable, "it is a symbolic link", |w| {
                set(w.manifest(), (0o644, 0, 0));
                w.declaration[0].unrestorable = Some("it is a symbolic link to /x".to_owned());
            }),
            (PKI_OWNER, RefusalKind::Unrestorable, "neither a file nor a directory", |w| {
                set(w.pki_file("ca.crt"), (0o644, 5, 5));
                w.pki_file("ca.crt").kind = FileKind::Other;
            }),
            (DATA_MODE, RefusalKind::Unsupported, "no folder of the host", |w| {
                value(&mut w.subject.process).own_mounts = Some(true);
                set(w.data(), (0o755, 0, 0));
            }),
        ];
        for (rule, kind, words, change) in cases {
            let mut world = World::loaded();
            change(&mut world);
            let refusals = world.planned(rule).expect_err(words);
            let said = format!("{} {}", refusals[0].what, refusals[0].instead);
            assert!(refusals[0].kind == kind && said.contains(words), "{words}: {refusals:?}");
        }
    }

    #[test]
    fn what_a_container_sees_is_changed_on_the_host() {
        let mut world = World::loaded();
        value(&mut world.subject.process).own_mounts = Some(true);
        let mount = |inside: &str, host: &str| {
            format!("    - mountPath: {inside}\n      name: {}\n", host.replace('/', "x"))
        };
        let volume =
            |host: &str| format!("  - hostPath:\n      path: {host}\n    name: {}\n", host.replace('/', "x"));
        let text = "kind: Pod\nmetadata:\n  name: etcd\nspec:\n  containers:\n  - command:\n    - etcd\n    name: etcd\n    volumeMounts:\n"
            .to_owned()
            + &mount("/data", "/mnt/disk")
            + &mount("/certs", POD_DIRECTORY)
            + "  volumes:\n"
            + &volume("/mnt/disk")
            + &volume(POD_DIRECTORY);
        world.declaration[0].bytes = text.into_bytes();
        set(world.data(), (0o755, 0, 0));
        world.data().path = "/data/etcd".to_owned();
        assert_eq!(changes(&planned(DATA_MODE, &world)), ["/mnt/disk/etcd 0700 0:0"]);
        // The key is listed twice: as the process sees it, and in the folder of the host.
        let mut twice = world.pki_file("peer.key").clone();
        set(&mut twice, (0o640, 0, 0));
        twice.path = "/certs/peer.key".to_owned();
        twice.origin = Origin::process_file(33, "/certs/peer.key");
        for file in world.pki() {
            file.file.origin = Origin::file(&file.file.path);
        }
        set(world.pki_file("peer.key"), (0o640, 0, 0));
        world.pki().insert(0, PkiFile { file: twice, holds: PkiContent::PrivateKey });
        let key = format!("{POD_DIRECTORY}/peer.key");
        assert_eq!(changes(&planned(KEY_MODE, &world)), [format!("{key} 0600 0:0")]);
        world.runs_as(100, 0);
        let [change] = &changes(&planned(KEY_MODE, &world))[..] else { panic!("etcd reads it by its group") };
        assert_eq!(*change, format!("{key} 0600 100:0"));
    }

    #[test]
    fn a_key_that_etcd_reads_through_its_group_becomes_its_own() {
        let mut world = World::loaded();
        world.runs_as(100, 100);
        set(world.pki_file("peer.key"), (0o640, 0, 100));
        let key = |name: &str| format!("{POD_DIRECTORY}/{name}");
        let by_mode = [format!("{} 0600 100:100", key("peer.key"))];
        assert_eq!(changes(&planned(KEY_MODE, &world)), by_mode);
        let by_owner = [format!("{} 0640 100:100", key("peer.key"))];
        assert_eq!(changes(&planned(PKI_OWNER, &world)), by_owner);
        // A group beside its own, which only the snapshot knows of, leaves it what it has.
        let access = |as_roots, closed| FileAccess {
            setting: "peer-key-file".to_owned(),
            path: key("peer.key"),
            account: "100:100".to_owned(),
            granted: fact_of(true),
            as_roots: fact_of(as_roots),
            closed: fact_of(closed),
            message: String::new(),
        };
        world.subject.files.access = Some(fact_of(vec![access(true, true)]));
        let by_mode = [format!("{} 0600 0:100", key("peer.key"))];
        assert_eq!(changes(&planned(KEY_MODE, &world)), by_mode);
        let by_owner = [format!("{} 0640 0:0", key("peer.key"))];
        assert_eq!(changes(&planned(PKI_OWNER, &world)), by_owner);
    }

    fn fact_of<T>(value: T) -> Observed<T> {
        Observed::seen(value, Origin::derived("modes"))
    }

    #[test]
    fn a_manifest_is_not_closed_in_a_folder_that_is_open() {
        let mut world = open_to_all();
        *value(&mut world.subject.files.manifest_open_to) = "anybody may put other files into it".to_owned();
        for rule in [MANIFEST_MODE, MANIFEST_OWNER] {
            let refusals = world.planned(rule).unwrap_err();
            assert_eq!(refusals[0].kind, RefusalKind::Access, "{rule}: {refusals:?}");
        }
        assert!(!planned(DATA_MODE, &world).steps.is_empty(), "it is no matter of the data");
    }

    #[test]
    fn a_mode_that_allows_more_is_refused() {
        let mut world = World::loaded();
        set(world.data(), (0o755, 0, 0));
        let mut plan = planned(DATA_MODE, &world);
        let Action::SetAttributes { to, .. } = &mut plan.steps[0].action else { panic!("{plan:?}") };
        to.mode = 0o1700;
        let found = preflight(&plan, &world.input());
        assert!(found.iter().any(|r| r.kind == RefusalKind::Access), "{found:#?}");
    }

    /// Returns whether `rule` passes, as its document says.
    fn passes(rule: &str, world: &mut World) -> bool {
        let process = world.subject.process.value().unwrap().clone();
        let within = |file: &File, allowed: u32| file.mode & 0o7777 & !allowed == 0;
        let pki = |wanted: PkiContent, allowed: u32, world: &mut World| {
            world.pki().iter().all(|f| f.holds != wanted || within(&f.file, allowed))
        };
        match rule {
            MANIFEST_MODE => within(world.manifest(), 0o600),
            MANIFEST_OWNER => (world.manifest().uid, world.manifest().gid) == (0, 0),
            DATA_MODE => within(world.data(), 0o700),
            DATA_OWNER => {
                let data = world.data();
                data.uid == process.uid && (within(data, 0o707) || data.gid == process.gid)
            }
            CERTIFICATE_MODE => pki(PkiContent::Certificate, 0o644, world),
            KEY_MODE => pki(PkiContent::PrivateKey, 0o600, world),
            _ => world.pki().iter().all(|PkiFile { file, holds }| {
                (file.uid, file.gid) == (0, 0)
                    || *holds == PkiContent::PrivateKey
                        && (file.uid, process.uid != 0) == (process.uid, true)
                        && [0, process.gid].contains(&file.gid)
                    || !file.path.starts_with(KUBERNETES)
                        && [0, process.uid].contains(&file.uid)
                        && [0, process.gid].contains(&file.gid)
            }),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever owners and modes are: a plan makes its rule pass, takes bits away only, leaves etcd what it could use,
        /// and does nothing the second time.
        #[test]
        fn a_plan_closes_files_and_locks_nobody_out(
            rule in prop::sample::select(&ALL[..]),
            account in prop::sample::select(vec![(0, 0), (100, 100), (100, 0), (0, 100)]),
            kubernetes in any::<bool>(),
            drawn in prop::collection::vec((0_u32..0o10000, prop::sample::select(vec![0_u32, 100, 200]), prop::sample::select(vec![0_u32, 100, 200])), 16),
        ) {
            let mut world = World::loaded();
            world.runs_as(account.0, account.1);
            if !kubernetes {
                for name in READ_FILES {
                    let setting = world.settings().get_mut(name).unwrap();
                    setting.value = setting.value.replace(POD_DIRECTORY, "/etc/etcd/pki");
                }
                for file in world.pki() {
                    file.file.path = file.file.path.replace(POD_DIRECTORY, "/etc/etcd/pki");
                }
            }
            let mut next = drawn.iter().cycle();
            let mut draw = || *next.next().unwrap();
            set(world.manifest(), draw());
            set(world.data(), draw());
            world.pki().iter_mut().for_each(|f| set(&mut f.file, draw()));
            let before = world.clone();
            let Ok(plan) = world.planned(rule) else {
                prop_assert!(!passes(rule, &mut world));
                // root is locked out of nothing.
                prop_assert_ne!(account.0, 0);
                return Ok(());
            };
            prop_assert_eq!(preflight(&plan, &world.input()), []);
            world.carry_out(&plan);
            prop_assert!(passes(rule, &mut world));
            prop_assert_eq!(planned(rule, &world).steps.len(), 0);
            let process = world.subject.process.value().unwrap().clone();
            let read = |file: &File| matches!(file.origin, Origin::File { pid: Some(_), .. });
            for (old, new) in before.subject.files.pki.value().unwrap().iter().zip(world.pki().iter()) {
                let [old, new] = [&old.file, &new.file];
                prop_assert_eq!(new.mode & !old.mode, 0);
                let rights = |f: &File| may(&process, Attributes { mode: f.mode, uid: f.uid, gid: f.gid });
                let need = if new.kind == FileKind::Directory { SEARCHES } else { READS };
                let changed = (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid);
                if changed && (read(new) || new.kind == FileKind::Directory) {
                    prop_assert_eq!(rights(new) & need, need);
                }
            }
        }
    }
}
