//! Files and certificates of the whole node: what lies in the folders for them, what settings and kubeconfigs name, and who may use or
//! replace it. No component is known here: what each says of its settings is in the registry.

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_components::purpose::{self, Domain, Role};
use seaworthy_evidence::{
    CniFile, ErrorKind, EvidenceError, File, FileKind, FileUse, Instance, KeyFile, Kubeconfig, NamedFile,
    Node, Observed, Origin, PkiContent, PkiFile, PrivateKey, Problem, ProblemKind, SharedDomain, Snapshot,
};
use seaworthy_host::access::Access;
use seaworthy_host::procfs::Proc;
use seaworthy_host::root::Root;
use seaworthy_host::users::Account;
use seaworthy_pki::{Beside, Parsed, Purpose, Usage, accepts_issuer, misuse};

use super::processes::Running;
use super::{Kind, Survey, files, tree};
use crate::{kubeconfig, runtime};

/// Where every file belongs to root, whoever uses it.
const KUBERNETES: &str = "/etc/kubernetes/";
/// The kubeconfig that kubectl takes for root unless it is told another.
const OF_ROOT: &str = "/root/.kube/config";
/// Largest file of key material or kubeconfig that is read, in bytes.
const CAP: usize = 1 << 20;
/// What `uses` says of the certificate with which a kubelet of a layout is a client.
const OF_KUBELET: (&str, &str) = ("kubelet", "client certificate");

/// Returns a node of which nothing is known yet.
pub(crate) fn not_looked_at() -> Node {
    fn failed<T>() -> Observed<T> {
        Observed::failed(EvidenceError::new(ErrorKind::NotFound, "it was not looked at"))
    }
    Node {
        name: String::new(),
        root: String::new(),
        user: None,
        layout: failed(),
        processes: failed(),
        kubernetes_cas: failed(),
        pki: failed(),
        pki_complete: failed(),
        shared_domains: failed(),
        kubeconfigs: failed(),
        runtimes: failed(),
        cni: failed(),
        unreadable: Vec::new(),
    }
}

/// Fills in what a snapshot, whose instances are complete, says of the node's own files.
pub(crate) fn fill(
    snapshot: &mut Snapshot,
    survey: &Survey<'_>,
    proc: Option<&Proc>,
    runtimes: Option<&[Running]>,
) {
    let mut material = Material::new(survey, proc);
    for folder in seaworthy_layouts::pki() {
        material.walk(folder);
    }
    for (name, instances) in &snapshot.components {
        match instances {
            Observed::Seen { value, .. } => value.iter().for_each(|instance| material.take(instance)),
            Observed::Failed { error } => material.miss(EvidenceError::new(
                error.kind,
                format!("which files {name} is given is not known: {error}"),
            )),
        }
    }
    for path in seaworthy_layouts::ALL.iter().filter_map(|layout| layout.kubelet_certificate) {
        let (component, setting) = OF_KUBELET;
        material.named(path, FileUse { component: component.to_owned(), setting: setting.to_owned() });
    }
    let authorities = material.authorities(&snapshot.node);
    let kubeconfigs = kubeconfigs(&mut material, snapshot, &authorities);
    material.add_folders();
    let node = &mut snapshot.node;
    node.shared_domains = material.shared_domains(node.kubernetes_cas.error());
    node.kubeconfigs = kubeconfigs;
    let complete = match material.missed.take() {
        Some(error) => Err(error),
        None => Ok(true),
    };
    node.pki_complete = Observed::from_result(complete, origin());
    node.pki = Observed::seen(material.evidence(), origin());
    let Some(runtimes) = runtimes else {
        let error = node.processes.error().cloned();
        let error =
            error.unwrap_or_else(|| EvidenceError::new(ErrorKind::NotFound, "processes are not known"));
        (node.runtimes, node.cni) = (Observed::failed(error.clone()), Observed::failed(error));
        return;
    };
    let found: Vec<_> = runtimes.iter().map(|running| runtime::read(survey, running)).collect();
    let mut folders: Vec<Folders<'_>> = Vec::new();
    for (runtime, running) in found.iter().zip(runtimes) {
        let root = running.root.as_ref().map_err(Clone::clone);
        folders.push((runtime.cni_folders.as_result().cloned(), root));
    }
    if folders.is_empty() {
        folders.push((Ok(vec![runtime::CNI.to_owned()]), Ok(survey.root)));
    }
    node.cni = Observed::from_result(
        cni(survey, folders),
        Origin::derived("the configuration of the container runtime, and the files of its CNI folder"),
    );
    node.runtimes = Observed::seen(found, Origin::proc("/proc"));
}

fn origin() -> Origin {
    Origin::derived("the folders of certificates and keys, settings and kubeconfigs")
}

/// Folders from which a runtime takes CNI configuration, and the root below which they are.
type Folders<'r> = (Result<Vec<String>, EvidenceError>, Result<&'r Root, EvidenceError>);

/// Returns the files of the folders from which runtimes take CNI configuration, each once.
fn cni(survey: &Survey<'_>, folders: Vec<Folders<'_>>) -> Result<Vec<CniFile>, EvidenceError> {
    let mut found: BTreeMap<String, CniFile> = BTreeMap::new();
    for (folders, root) in folders {
        for folder in folders? {
            let root = root.clone()?;
            // Most runtimes see what the host has.
            let same = root.identity(&folder).ok() == survey.root.identity(&folder).ok();
            let root = if same { survey.root } else { root };
            let access = Access::of_account(&Account::default(), root, survey.users);
            for path in tree::walk(root, &folder)? {
                let mut file = match root.stat(&path, survey.users) {
                    Ok(file) => file,
                    Err(error) if error.kind == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let place = match root.pid() {
                    Some(pid) => format!("/proc/{pid}/root{path}"),
                    None => path.clone(),
                };
                file.on_node = Some(place.clone());
                let open_to = Observed::from_result(access.folder_open_to(&path), on_the_way(&path));
                found.insert(place, CniFile { file, open_to });
            }
        }
    }
    Ok(found.into_values().collect())
}

fn on_the_way(path: &str) -> Origin {
    Origin::derived(format!("owners and modes on the way to {path}"))
}

/// A process that uses a file.
struct User {
    account: Account,
    /// Whether it still might use the file if that were root's.
    as_roots: Result<bool, EvidenceError>,
    /// Whether it still might if only its owner could.
    closed: Option<bool>,
}

/// A file or folder, with what is known of its use.
struct Entry {
    file: File,
    holds: PkiContent,
    certificates: Result<Vec<Parsed>, EvidenceError>,
    /// What a private key is read from, where a certificate has to fit it.
    key: Vec<u8>,
    uses: BTreeSet<FileUse>,
    users: Vec<User>,
    of_etcd: bool,
    judged: bool,
}

/// The key material of the node, by where the host has it.
struct Material<'s> {
    survey: &'s Survey<'s>,
    proc: Option<&'s Proc>,
    /// The roots of processes that see other files than the host.
    roots: BTreeMap<u32, Result<Root, EvidenceError>>,
    entries: BTreeMap<String, Entry>,
    /// The first error that may have hidden a file.
    missed: Option<EvidenceError>,
}

impl<'s> Material<'s> {
    fn new(survey: &'s Survey<'s>, proc: Option<&'s Proc>) -> Self {
        Self { survey, proc, roots: BTreeMap::new(), entries: BTreeMap::new(), missed: None }
    }

    fn miss(&mut self, error: EvidenceError) {
        self.missed.get_or_insert(error);
    }

    /// Adds everything in and below a folder of the host.
    fn walk(&mut self, folder: &str) {
        match tree::walk(self.survey.root, folder) {
            Ok(paths) => {
                for path in paths {
                    let _ = self.add(&path);
                }
            }
            Err(error) => self.miss(error),
        }
    }

    /// Adds a file of the host that something beside settings names; of one that is not there nothing is said.
    fn named(&mut self, path: &str, by: FileUse) {
        if let Some(entry) = self.add(path) {
            entry.uses.insert(by);
        }
    }

    /// Adds what the host has at `path`; nothing when there is no such file.
    fn add(&mut self, path: &str) -> Option<&mut Entry> {
        if !self.entries.contains_key(path) {
            let stat = self.survey.root.stat(path, self.survey.users);
            let read = match &stat {
                Ok(file) if file.kind == FileKind::Regular => self.survey.root.read(path, CAP),
                _ => Ok(Vec::new()),
            };
            match stat.and_then(|file| Ok((file, read?))) {
                Ok((file, bytes)) => {
                    let holds = match file.kind {
                        FileKind::Directory => PkiContent::Directory,
                        FileKind::Regular => seaworthy_pki::content(&bytes),
                        FileKind::Other => PkiContent::Other,
                    };
                    let entry = self.entry(file, holds, &bytes);
                    self.entries.insert(path.to_owned(), entry);
                }
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => self.miss(error),
            }
        }
        self.entries.get_mut(path)
    }

    fn entry(&self, file: File, holds: PkiContent, bytes: &[u8]) -> Entry {
        let now = self.survey.options.now;
        let certificates = match holds {
            PkiContent::Certificate => seaworthy_pki::certificates_from_pem(bytes, file.origin.clone(), now)
                .or_else(|error| {
                    let der = Parsed::from_der(bytes, file.origin.clone(), now);
                    der.map(|parsed| vec![parsed]).map_err(|_| error)
                }),
            // A key may have its certificates beside it.
            PkiContent::PrivateKey => {
                Ok(seaworthy_pki::certificates_from_pem(bytes, file.origin.clone(), now).unwrap_or_default())
            }
            PkiContent::Directory | PkiContent::Other => Ok(Vec::new()),
        };
        let key = if holds == PkiContent::PrivateKey { bytes.to_vec() } else { Vec::new() };
        let (uses, users) = (BTreeSet::new(), Vec::new());
        Entry { file, holds, certificates, key, uses, users, of_etcd: false, judged: false }
    }

    /// Adds the key material of an instance.
    fn take(&mut self, instance: &Instance) {
        if !is_read(instance) {
            return;
        }
        let files = match &instance.files.pki {
            Observed::Seen { value, .. } => value,
            // What is only declared is given its files when it starts.
            Observed::Failed { error } if error.kind == ErrorKind::NotRunning => return,
            Observed::Failed { error } => return self.miss(error.clone()),
        };
        let access = instance.files.access.as_ref().and_then(Observed::value).map_or(&[][..], Vec::as_slice);
        let etcd = instance.component == Kind::ETCD.component.name;
        for PkiFile { file, holds } in files {
            let uses: Vec<_> = access.iter().filter(|a| a.path == file.path).collect();
            let is_material = matches!(holds, PkiContent::Certificate | PkiContent::PrivateKey);
            let is_named = uses.iter().any(|a| purpose::of(&a.setting).is_some());
            if !etcd && !is_material && !is_named {
                continue;
            }
            let Some(entry) = self.of_instance(file, *holds) else { continue };
            entry.of_etcd |= etcd;
            for access in uses.iter().filter(|_| *holds != PkiContent::Directory) {
                let (component, setting) = (instance.component.clone(), access.setting.clone());
                entry.judged |= is_judged(&component, &setting);
                entry.uses.insert(FileUse { component, setting });
                if let Some(process) = instance.process.value() {
                    let account = Account { uid: process.uid, gid: process.gid, groups: Vec::new() };
                    let as_roots = access.as_roots.as_result().copied();
                    entry.users.push(User { account, as_roots, closed: access.closed.value().copied() });
                }
            }
        }
    }

    /// Returns the entry of a file of an instance.
    fn of_instance(&mut self, file: &File, holds: PkiContent) -> Option<&mut Entry> {
        let place = file.on_node.clone().unwrap_or_else(|| file.path.clone());
        let pid = match &file.origin {
            Origin::File { pid: Some(pid), .. } if place.starts_with("/proc/") || file.on_node.is_none() => {
                *pid
            }
            _ => return self.add(&place),
        };
        if !self.entries.contains_key(&place) {
            let bytes = match holds {
                PkiContent::Directory => Ok(Vec::new()),
                _ => self.root(pid).and_then(|root| root.read(&file.path, CAP)),
            };
            match bytes {
                Ok(bytes) => {
                    let entry = self.entry(file.clone(), holds, &bytes);
                    self.entries.insert(place.clone(), entry);
                }
                Err(error) => self.miss(error),
            }
        }
        self.entries.get_mut(&place)
    }

    /// Returns the root of a process.
    fn root(&mut self, pid: u32) -> Result<&Root, EvidenceError> {
        let proc = self.proc;
        let open = || match proc {
            Some(proc) => Root::of_process(&proc.process(pid)?),
            None => Err(EvidenceError::new(ErrorKind::NotFound, "processes are not known")),
        };
        self.roots.entry(pid).or_insert_with(open).as_ref().map_err(|error| error.clone())
    }

    /// Adds the folders that key material is in.
    fn add_folders(&mut self) {
        let is_material = |entry: &&Entry| !matches!(entry.holds, PkiContent::Directory);
        let paths = self.entries.values().filter(is_material).filter_map(|entry| {
            let path = entry.file.on_node.as_deref().filter(|path| !path.starts_with("/proc/"))?;
            path.rsplit_once('/').map(|(folder, _)| folder.to_owned()).filter(|folder| !folder.is_empty())
        });
        for folder in paths.collect::<BTreeSet<_>>() {
            let _ = self.add(&folder);
        }
    }

    /// Returns the certificates by which API servers know their callers on this node.
    fn authorities(&mut self, node: &Node) -> Vec<Parsed> {
        let is_for_callers =
            |purpose: &str| purpose.ends_with("--client-ca-file") || purpose == "Kubernetes' CA";
        let uses = node.kubernetes_cas.value().into_iter().flatten();
        let paths: Vec<_> = uses.filter(|u| is_for_callers(&u.purpose)).map(|u| u.path.clone()).collect();
        let mut found = Vec::new();
        for path in paths {
            let Some(entry) = self.add(&path) else { continue };
            found.extend(entry.certificates.iter().flatten().cloned());
        }
        found
    }

    /// Returns the authorities that are trusted in two domains. Those of an etcd that runs here are judged with it.
    fn shared_domains(&self, unread: Option<&EvidenceError>) -> Observed<Vec<SharedDomain>> {
        /// Who trusts it on either side.
        type Sides<'e> = (BTreeSet<&'e str>, BTreeSet<&'e str>);
        struct Trusted<'e> {
            domain: Domain,
            who: String,
            roots: &'e [Parsed],
        }
        let with_etcd = self.entries.values().any(|entry| entry.of_etcd);
        let mut trusted: Vec<Trusted<'_>> = Vec::new();
        let mut undecided = unread.or(self.missed.as_ref());
        for entry in self.entries.values() {
            for by in &entry.uses {
                let Some(domain) = purpose::of(&by.setting).and_then(|named| named.domain) else { continue };
                match &entry.certificates {
                    Ok(roots) => {
                        let who = format!("{} {}", by.component, by.setting);
                        trusted.push(Trusted { domain, who, roots });
                    }
                    Err(error) => undecided = undecided.or(Some(error)),
                }
            }
        }
        let known: Vec<Parsed> = self
            .entries
            .values()
            .flat_map(|entry| entry.certificates.iter().flatten())
            .filter(|parsed| parsed.certificate.ca)
            .cloned()
            .collect();
        let mut shared: BTreeMap<(String, Domain, Domain), Sides<'_>> = BTreeMap::new();
        for one in &trusted {
            for other in trusted.iter().filter(|other| other.domain > one.domain) {
                if with_etcd && one.domain == Domain::Etcd {
                    continue;
                }
                let mut common = |authority: &Parsed| {
                    let key = (authority.certificate.subject.clone(), one.domain, other.domain);
                    let (ones, others) = shared.entry(key).or_default();
                    ones.insert(&one.who);
                    others.insert(&other.who);
                };
                let now = self.survey.options.now;
                let accepts = |authority: &Parsed, roots: &[Parsed]| {
                    accepts_issuer(authority, &known, roots, Usage::Client, now).is_ok()
                };
                one.roots.iter().filter(|root| accepts(root, other.roots)).for_each(&mut common);
                other.roots.iter().filter(|root| accepts(root, one.roots)).for_each(&mut common);
            }
        }
        let told = |((subject, one, other), (ones, others)): ((String, Domain, Domain), Sides<'_>)| {
            let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!(
                "what {subject} issues is accepted for {} ({}) and for {} ({}), so a certificate that was issued for the one opens the other",
                one.name(),
                list(ones),
                other.name(),
                list(others),
            );
            SharedDomain { subject, message }
        };
        match undecided {
            Some(error) if shared.is_empty() => Observed::failed(error.clone()),
            _ => Observed::seen(shared.into_iter().map(told).collect(), origin()),
        }
    }

    /// Returns all of it as evidence.
    fn evidence(mut self) -> Vec<KeyFile> {
        let entries = std::mem::take(&mut self.entries);
        // The key that is used with a certificate, by the component and the setting that names it.
        let mut keys: BTreeMap<(&str, &str), PrivateKey> = BTreeMap::new();
        for (place, entry) in entries.iter().filter(|(_, entry)| !entry.key.is_empty()) {
            let mut uses = entry.uses.iter().filter(|by| purpose::is_key(&by.setting)).peekable();
            let read = uses.peek().and_then(|_| seaworthy_pki::private_key_from_pem(&entry.key, place).ok());
            if let Some(key) = read {
                keys.extend(uses.map(|by| ((by.component.as_str(), by.setting.as_str()), key.clone())));
            }
        }
        let host = Access::of_account(&Account::default(), self.survey.root, self.survey.users);
        let mut found = Vec::new();
        for (place, entry) in &entries {
            let kubernetes = entry.file.path.starts_with(KUBERNETES)
                || seaworthy_layouts::pki().any(|folder| entry.file.path.starts_with(folder));
            let own = entry.users.iter().find(|user| user.account.uid != 0 && !kubernetes);
            let inside = match &entry.file.origin {
                Origin::File { pid: Some(pid), .. } if place.starts_with("/proc/") => Some(*pid),
                _ => None,
            };
            let (survey, account) = (self.survey, own.map(|user| user.account.clone()).unwrap_or_default());
            let open_to = match inside {
                None if own.is_none() => host.folder_open_to(place),
                None => Access::of_account(&account, survey.root, survey.users).folder_open_to(place),
                Some(pid) => self.root(pid).and_then(|root| {
                    Access::of_account(&account, root, survey.users).folder_open_to(&entry.file.path)
                }),
            };
            let owner = || Origin::derived(format!("the owner of {place} and who uses it"));
            found.push(KeyFile {
                file: entry.file.clone(),
                holds: entry.holds,
                uses: entry.uses.iter().cloned().collect(),
                of_etcd: entry.of_etcd,
                account: entry.account(),
                owner_fits: Observed::from_result(entry.owner_fits(kubernetes), owner()),
                open_to: Observed::from_result(open_to, on_the_way(place)),
                problems: Observed::seen(entry.problems(place, &keys, survey), origin()),
                certificates: Observed::from_result(
                    kubeconfig::facts(entry.certificates.clone()),
                    entry.file.origin.clone(),
                ),
                judged_with_instance: entry.judged,
            });
        }
        found
    }
}

impl Entry {
    /// Returns whether the owner is root, or the account that has to own it.
    fn owner_fits(&self, kubernetes: bool) -> Result<bool, EvidenceError> {
        let File { uid, gid, .. } = self.file;
        if uid == 0 && gid == 0 {
            return Ok(true);
        }
        for User { account, as_roots, .. } in &self.users {
            let is_its = [0, account.uid].contains(&uid) && [0, account.gid].contains(&gid);
            if is_its && !kubernetes {
                return Ok(true);
            }
            if is_its && self.holds == PkiContent::PrivateKey && uid == account.uid && !as_roots.clone()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the account of a process that root's alone, or what is closed to all but root, would lock out.
    fn account(&self) -> String {
        let is_locked_out = |user: &&User| user.as_roots == Ok(false) || user.closed == Some(false);
        let user = self.users.iter().find(is_locked_out);
        user.map_or_else(String::new, |User { account, .. }| format!("{}:{}", account.uid, account.gid))
    }

    /// Returns what is wrong with what it holds.
    fn problems(
        &self,
        place: &str,
        keys: &BTreeMap<(&str, &str), PrivateKey>,
        survey: &Survey<'_>,
    ) -> Vec<Problem> {
        let mut purpose = Purpose::default();
        let mut beside = Beside::default();
        for by in &self.uses {
            if (by.component.as_str(), by.setting.as_str()) == OF_KUBELET {
                purpose.dials = true;
            }
            let Some(named) = purpose::of(&by.setting) else { continue };
            purpose.serves |= matches!(named.role, Role::Serves | Role::ServesAndDials);
            purpose.dials |= matches!(named.role, Role::Dials | Role::ServesAndDials);
            purpose.trusts |= named.role == Role::Trusts;
            let key = named.key.and_then(|key| keys.get(&(by.component.as_str(), key)));
            beside.key = beside.key.or(key);
        }
        match &self.certificates {
            Ok(certificates) => misuse(place, certificates, purpose, beside, survey.options.now),
            Err(error) => {
                let origin = error.origin.clone().unwrap_or_else(|| self.file.origin.clone());
                let (breaks, message) = (!self.uses.is_empty(), error.message.clone());
                let kind = ProblemKind::Malformed;
                vec![Problem { kind, breaks, path: place.to_owned(), message, origin }]
            }
        }
    }
}

/// Returns whether the files of an instance are looked at: a gateway of etcd is known by its sockets alone.
fn is_read(instance: &Instance) -> bool {
    seaworthy_components::named(&instance.component).is_some_and(|component| component.program.is_some())
}

/// Returns whether the rules about an instance judge the certificates that this setting names.
fn is_judged(component: &str, setting: &str) -> bool {
    let known = seaworthy_components::named(component);
    let mut credentials = known.into_iter().filter_map(|c| c.program).flat_map(|program| program.credentials);
    component == Kind::ETCD.component.name
        || credentials.any(|files| [files.certificate, files.trusted].contains(&setting))
}

/// Returns the kubeconfigs of administrators and of components, each once.
fn kubeconfigs(
    material: &mut Material<'_>,
    snapshot: &Snapshot,
    authorities: &[Parsed],
) -> Observed<Vec<Kubeconfig>> {
    let survey = material.survey;
    // By where the host has it.
    let mut found: BTreeMap<String, (Kubeconfig, Option<u32>)> = BTreeMap::new();
    let of_people = seaworthy_layouts::ALL.iter().flat_map(|layout| layout.administrators).copied();
    for path in of_people.chain([OF_ROOT]) {
        let file = survey.root.stat(path, survey.users);
        if file.as_ref().is_err_and(|error| error.kind == ErrorKind::NotFound) {
            continue;
        }
        let kubeconfig = empty(path, true, files::observed(file, path));
        found.insert(path.to_owned(), (kubeconfig, None));
    }
    for (component, instances) in &snapshot.components {
        for instance in instances.value().into_iter().flatten().filter(|instance| is_read(instance)) {
            let named = match &instance.files.kubeconfigs {
                Observed::Seen { value, .. } => value,
                Observed::Failed { error } if error.kind == ErrorKind::NotRunning => continue,
                Observed::Failed { error } => {
                    material.miss(error.clone());
                    continue;
                }
            };
            for NamedFile { setting, file, .. } in named {
                let Some(stat) = file.value() else { continue };
                let place = stat.on_node.clone().unwrap_or_else(|| stat.path.clone());
                let pid = match &stat.origin {
                    Origin::File { pid, .. } if place.starts_with("/proc/") => *pid,
                    _ => None,
                };
                let (kubeconfig, _) =
                    found.entry(place).or_insert_with_key(|place| (empty(place, false, file.clone()), pid));
                kubeconfig.uses.push(FileUse { component: component.clone(), setting: setting.clone() });
            }
        }
    }
    let mut all = Vec::new();
    for (place, (mut kubeconfig, pid)) in found {
        let path = match (pid, kubeconfig.file.value()) {
            (Some(_), Some(file)) => file.path.clone(),
            _ => place.clone(),
        };
        let root = match pid {
            Some(pid) => material.root(pid),
            None => Ok(survey.root),
        };
        let mut named = Vec::new();
        let read = root.clone().and_then(|root| {
            let bytes = root.read(&path, CAP)?;
            let beside = |path: &str| root.read(path, CAP);
            kubeconfig::parse(&path, &bytes, &root.origin(&path), beside, authorities, survey.options.now)
        });
        let open_to = root.and_then(|root| {
            Access::of_account(&Account::default(), root, survey.users).folder_open_to(&path)
        });
        let origin = Origin::derived(format!("{path} and the files that it names"));
        kubeconfig.open_to = Observed::from_result(open_to, on_the_way(&path));
        let (users, authorities) = match read {
            Ok(read) => {
                named = read.named;
                (Ok(read.users), kubeconfig::facts(read.authorities))
            }
            Err(error) => (Err(error.clone()), Err(error)),
        };
        kubeconfig.users = Observed::from_result(users, origin.clone());
        kubeconfig.authorities = Observed::from_result(authorities, origin);
        // What only a process has is not at the same path on the host.
        for file in named.into_iter().filter(|_| pid.is_none()) {
            let by = kubeconfig.uses.first().map_or("kubectl", |by| by.component.as_str()).to_owned();
            material.named(&file, FileUse { component: by, setting: format!("kubeconfig {place}") });
        }
        all.push(kubeconfig);
    }
    Observed::seen(all, Origin::derived("the layouts, the settings and root's home"))
}

/// Returns a kubeconfig of which nothing is known yet but owner and mode.
fn empty(path: &str, administrator: bool, file: Observed<File>) -> Kubeconfig {
    let none = || Observed::seen(Vec::new(), Origin::file(path));
    Kubeconfig {
        path: path.to_owned(),
        administrator,
        uses: Vec::new(),
        file,
        open_to: Observed::seen(String::new(), Origin::file(path)),
        users: Observed::seen(Vec::new(), Origin::file(path)),
        authorities: none(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;
    use std::time::Duration;

    use seaworthy_evidence::Tool;
    use seaworthy_host::users::Users;

    use super::super::Options;
    use super::*;

    /// Returns what is found of a node whose root is `directory` and on which nothing runs.
    fn found(directory: &Path) -> Node {
        let options = Options {
            root: directory.into(),
            wire: false,
            observe: None,
            timeout: Duration::ZERO,
            layout: None,
            patience: Duration::ZERO,
            now: "2027-06-01T12:00:00Z".parse().unwrap(),
        };
        let (root, users) = (Root::host(directory).unwrap(), Users::default());
        let survey = Survey { options: &options, root: &root, users: &users };
        let mut snapshot = Snapshot {
            format: Snapshot::FORMAT.to_owned(),
            tool: Tool { name: String::new(), version: String::new() },
            taken_at: options.now,
            node: Node { kubernetes_cas: Observed::seen(Vec::new(), origin()), ..not_looked_at() },
            components: BTreeMap::new(),
            etcd_clients: Observed::seen(Vec::new(), origin()),
        };
        fill(&mut snapshot, &survey, None, Some(&[]));
        snapshot.node
    }

    fn write(directory: &Path, path: &str, text: &str, mode: u32) {
        let path = directory.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn file<'n>(node: &'n Node, path: &str) -> &'n KeyFile {
        node.pki.value().unwrap().iter().find(|file| file.file.path == path).unwrap()
    }

    const KEY: &str = include_str!("../../../pki/testdata/p256.sec1.key");

    #[test]
    fn everything_in_and_below_the_folder_is_found_and_the_folders_above_count() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        for (path, mode) in [("ca.key", 0o644), ("users/deep/jo.pem", 0o600)] {
            write(at, &format!("/etc/kubernetes/pki/{path}"), KEY, mode);
        }
        write(at, "/srv/open/ca.key", KEY, 0o600);
        fs::set_permissions(at.join("srv/open"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink("/srv/open/ca.key", at.join("etc/kubernetes/pki/linked.key")).unwrap();
        symlink("..", at.join("etc/kubernetes/pki/users/loop")).unwrap();
        symlink("/nowhere", at.join("etc/kubernetes/pki/dangling.crt")).unwrap();
        let node = found(at);
        assert_eq!(node.pki_complete.value(), Some(&true));
        let open = |path: &str| file(&node, path).open_to.value().unwrap().clone();
        for path in ["/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/users/deep/jo.pem"] {
            assert_eq!(file(&node, path).holds, PkiContent::PrivateKey);
            assert!(!open(path).contains("anybody"), "{}", open(path));
        }
        assert_eq!(file(&node, "/etc/kubernetes/pki/ca.key").file.mode_text, "0644");
        let linked = open("/etc/kubernetes/pki/linked.key");
        assert!(
            linked.starts_with("anybody on this node may put other files into /srv/open, which"),
            "{linked}"
        );
        fs::set_permissions(at.join("etc/kubernetes"), fs::Permissions::from_mode(0o777)).unwrap();
        let node = found(at);
        let above = file(&node, "/etc/kubernetes/pki/ca.key").open_to.value().unwrap();
        assert!(above.contains("into /etc/kubernetes, which"), "{above}");
    }

    #[test]
    fn what_is_too_much_to_look_at_is_not_complete() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "/etc/kubernetes/pki/1/2/3/4/5/6/7/8/9/ca.key", KEY, 0o600);
        let node = found(directory.path());
        assert_eq!(node.pki_complete.error().map(|error| error.kind), Some(ErrorKind::TooLarge));
        let error = node.shared_domains.error();
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::TooLarge), "a CA may be among the rest");
    }

    #[test]
    fn kubeconfigs_of_administrators_are_found_and_what_is_wrong_with_one_is_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        write(at, "/etc/kubernetes/admin.conf", "users: [{name: jo, user: {token: canary}}]", 0o640);
        write(at, "/etc/kubernetes/super-admin.conf", &"#".repeat(CAP + 1), 0o600);
        fs::create_dir_all(at.join("root/.kube/config")).unwrap();
        fs::create_dir_all(at.join("etc/rancher/k3s")).unwrap();
        symlink("k3s.yaml", at.join("etc/rancher/k3s/k3s.yaml")).unwrap();
        let node = found(at);
        let all = node.kubeconfigs.value().unwrap();
        let kind = |path: &str| {
            let found = all.iter().find(|found| found.path == path).unwrap();
            found.users.as_result().map(Vec::len).map_err(|error| error.kind)
        };
        assert_eq!(kind("/etc/kubernetes/admin.conf"), Ok(1));
        assert_eq!(kind("/etc/kubernetes/super-admin.conf"), Err(ErrorKind::TooLarge));
        assert_eq!(kind("/root/.kube/config"), Err(ErrorKind::Unsupported));
        assert!(kind("/etc/rancher/k3s/k3s.yaml").is_err(), "a link that leads to itself");
        assert!(all.iter().all(|found| found.administrator));
        assert!(!format!("{node:?}").contains("canary"));
    }

    #[test]
    fn without_a_runtime_the_usual_folder_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(found(directory.path()).cni.value().map(Vec::len), Some(0));
        write(directory.path(), "/etc/cni/net.d/10-a.conflist", "{}", 0o644);
        let node = found(directory.path());
        let files: Vec<_> =
            node.cni.value().unwrap().iter().map(|c| (&*c.file.path, &*c.file.mode_text)).collect();
        assert_eq!(files, [("/etc/cni/net.d", "0755"), ("/etc/cni/net.d/10-a.conflist", "0644")]);
    }
}
