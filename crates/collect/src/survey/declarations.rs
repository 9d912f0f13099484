//! What is declared to run: static pod manifests and systemd units, and which process each belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seaworthy_components::etcd::COMPONENT;
use seaworthy_evidence::{
    Declared, DeclaredKind, ErrorKind, EvidenceError, FileKind, Instance, InstanceFiles, Observed, Origin,
    RivalManifest, Setting, Settings,
};
use seaworthy_host::access::Access;
use seaworthy_host::cgroup::Owner;
use seaworthy_host::systemd::{self, Wanted};
use seaworthy_host::users::{Account, Users};
use seaworthy_host::{machine, shell};
use seaworthy_settings::{Argument, Given, Variable};

use super::etcd::server;
use super::processes::{Found, Running};
use super::{Kind, Survey, config_text, files, instance, not_running, tree};
use crate::kubelet::static_pod_directories;
use crate::manifest::{Container, Rivals, StaticPod, StaticPods};

/// What kubelet and systemd are told to run, whatever it is.
pub(crate) struct Supervisors {
    /// Every static pod.
    pub(super) pods: Vec<StaticPod>,
    /// Manifests of one pod.
    rivals: Vec<Rivals>,
    /// Why there may be other manifests: a directory of kubelet, or a file in it, could not be read or parsed.
    pub(super) unread: Option<EvidenceError>,
    /// What the node may be called in the names of static pods.
    pub(super) node_names: BTreeSet<String>,
    /// The host name.
    host: String,
    /// The services of systemd, if it runs the node.
    services: Option<Wanted>,
}

impl Supervisors {
    /// Returns systemd and the kubelets among the `processes`. What could not be read is noted in `unreadable`.
    pub(crate) fn find(
        survey: &Survey<'_>,
        processes: Option<&Found>,
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let all =
            processes.into_iter().flat_map(|found| found.of(Kind::KUBELET).iter().chain(&found.kubelets));
        let settings = |running: &Running| running.resolved(Kind::KUBELET).settings.as_result().cloned();
        Self::of(survey, &all.map(settings).collect::<Vec<_>>(), unreadable)
    }

    /// Returns systemd and the `kubelets` with these settings.
    fn of(
        survey: &Survey<'_>,
        kubelets: &[Result<Settings, EvidenceError>],
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let (directories, errors) = static_pod_directories(kubelets);
        let pods = StaticPods::read(survey.root, directories.iter().map(|d| d.path.as_str()));
        let errors: Vec<_> = errors.into_iter().chain(pods.errors.iter().cloned()).collect();
        // What a dangling link names declares nothing to kubelet either.
        let unread = errors.iter().find(|e| e.kind != ErrorKind::NotFound).cloned();
        unreadable.extend(errors);
        let host = machine::hostname(survey.root);
        let file = survey.root.read("/etc/hostname", 4096).unwrap_or_default();
        let file = String::from_utf8_lossy(&file).trim().to_owned();
        let told = kubelets.iter().filter_map(|settings| settings.as_ref().ok()?.get("hostname-override"));
        let told = told.map(|name| name.value.clone());
        let node_names = told.chain([host.clone(), file]).map(|name| name.to_lowercase());
        Self {
            pods: pods.pods.into_iter().filter(|pod| !pod.ignored).collect(),
            rivals: pods.rivals,
            unread,
            node_names: node_names.filter(|name| !name.is_empty()).collect(),
            host,
            services: runs_systemd(survey).then(|| Wanted::read(survey.root, unreadable)),
        }
    }

    /// Returns the files in the directory of `manifest` that declare its pod, in kubelet's order; none when only it does.
    fn rivals_of(&self, manifest: &str) -> Vec<&str> {
        let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let rivals = self.rivals.iter().filter(|r| r.files.iter().any(|f| f == manifest));
        let files = rivals.flat_map(|r| &r.files).map(String::as_str);
        files.filter(|f| folder(f) == folder(manifest)).collect()
    }
}

/// Every declaration of a component on the node.
pub(crate) struct Declarations {
    pub(super) kind: Kind,
    pub(super) supervisors: Arc<Supervisors>,
    found: Vec<Declaration>,
    /// The units that were looked for.
    units: BTreeMap<String, Unit>,
    /// Those that systemd has started, or starts with the node.
    wanted: BTreeSet<String>,
    /// Why the unit that distributions install may declare one.
    pub(super) unread_unit: Option<EvidenceError>,
}

/// One declaration of an instance.
pub(super) struct Declaration {
    pub(super) declared: Declared,
    /// The container of a pod.
    container: Option<String>,
    /// The file of a unit, and those of its drop-ins.
    unit_files: Vec<String>,
}

impl Declaration {
    /// Returns whether it is that of the container `name`.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.container.as_deref() == Some(name)
    }
}

/// A unit of systemd.
pub(super) enum Unit {
    /// It declares an instance: the number of the declaration.
    Declares(usize),
    /// It runs another program.
    Runs(String),
    /// It could not be read, or it could not be told what it runs.
    Unread(EvidenceError),
}

impl Declarations {
    /// Returns the declarations of `kind` in manifests and in systemd's units. `running` are its processes. What could
    /// not be read is noted in `unreadable`.
    pub(crate) fn find(
        survey: &Survey<'_>,
        kind: Kind,
        supervisors: &Arc<Supervisors>,
        running: &[Running],
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let owners = running.iter().filter_map(|process| Some(process.cgroup.as_ref().ok()?.owner()));
        let services = owners.filter_map(|owner| match owner {
            Owner::Service { unit } => Some(unit),
            _ => None,
        });
        Self::read(survey, kind, supervisors, services, unreadable)
    }

    /// Returns the declarations of `kind`, which these `services` run.
    pub(super) fn read(
        survey: &Survey<'_>,
        kind: Kind,
        supervisors: &Arc<Supervisors>,
        services: impl Iterator<Item = String>,
        unreadable: &mut Vec<EvidenceError>,
    ) -> Self {
        let mut all = Self {
            kind,
            supervisors: Arc::clone(supervisors),
            found: Vec::new(),
            units: BTreeMap::new(),
            wanted: BTreeSet::new(),
            unread_unit: None,
        };
        let declare = Declare { survey, kind };
        all.found.extend(supervisors.pods.iter().flat_map(|pod| declare.of_pod(pod)));
        all.found.dedup_by(|a, b| a.declared == b.declared);
        if let Some(services) = &supervisors.services {
            all.wanted = services.mentioning(kind.component.name.as_bytes());
        }
        let wanted = all.wanted.iter().cloned();
        let names: BTreeSet<String> = services.chain(wanted).chain([kind.program.unit.to_owned()]).collect();
        for name in names {
            all.look_for(&declare, &name, unreadable);
        }
        all
    }

    /// Adds the unit `name`, if there is one.
    fn look_for(&mut self, declare: &Declare<'_>, name: &str, unreadable: &mut Vec<EvidenceError>) {
        let unit = match systemd::Unit::find(declare.survey.root, name, &self.supervisors.host) {
            Ok(None) => return,
            Ok(Some(unit)) if let Some(command) = declare.started_by(&unit) => {
                self.found.push(declare.of_unit(&unit, command));
                Unit::Declares(self.found.len() - 1)
            }
            Ok(Some(unit)) => match (unit.errors.into_iter().next(), unit.arguments.first()) {
                (Some(error), _) => Unit::Unread(error),
                (None, program) => Unit::Runs(
                    program.map(|p| String::from_utf8_lossy(&p.text).into_owned()).unwrap_or_default(),
                ),
            },
            Err(error) => {
                unreadable.push(error.clone());
                Unit::Unread(error)
            }
        };
        if let Unit::Unread(error) = &unit
            && name == self.kind.program.unit
        {
            self.unread_unit = Some(error.clone());
        }
        self.units.insert(name.to_owned(), unit);
    }

    /// Returns the unit `name`, if it was looked for and exists.
    pub(super) fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.get(name)
    }

    /// Returns the declaration with this number.
    pub(super) fn get(&self, index: usize) -> Option<&Declaration> {
        self.found.get(index)
    }

    /// Returns whether systemd runs the node.
    pub(super) fn systemd_runs(&self) -> bool {
        self.supervisors.services.is_some()
    }

    /// Returns the manifests, each with its number.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (usize, &Declaration)> {
        self.found.iter().enumerate().filter(|(_, found)| is_pod(&found.declared))
    }

    /// Returns the units that declare an instance, each with its number.
    pub(super) fn units(&self) -> impl Iterator<Item = (usize, &Declaration)> {
        self.found.iter().enumerate().filter(|(_, found)| !is_pod(&found.declared))
    }

    /// Returns the files of the unit that a process was started from; none where it is no unit.
    pub(crate) fn unit_files(
        &self,
        declaration: &Result<Option<Declared>, EvidenceError>,
    ) -> Result<&[String], EvidenceError> {
        let declared = declaration.as_ref().map_err(Clone::clone)?.as_ref();
        let path = declared.filter(|declared| !is_pod(declared)).map(|declared| &declared.path);
        let found = self.found.iter().find(|found| Some(&found.declared.path) == path);
        Ok(found.map_or(&[], |found| &found.unit_files))
    }

    /// Returns the other files in the directory of `manifest` that declare the same pod.
    ///
    /// # Errors
    ///
    /// When none is known, but a file that kubelet may well be able to read could not be read.
    pub(crate) fn rivals(&self, manifest: &str) -> Result<Vec<RivalManifest>, EvidenceError> {
        let files = self.supervisors.rivals_of(manifest);
        let rival = |path: &&str| RivalManifest {
            path: (*path).to_owned(),
            wins: files.last() == Some(path),
            origin: Origin::file(*path),
        };
        let rivals: Vec<_> = files.iter().filter(|path| **path != manifest).map(rival).collect();
        match &self.supervisors.unread {
            Some(error) if rivals.is_empty() && error.kind != ErrorKind::Malformed => Err(error.clone()),
            _ => Ok(rivals),
        }
    }

    /// Returns an instance for each declaration that promises one and that no running one was started from: a manifest in kubelet's
    /// directory, unless kubelet runs another one of the same pod, and a unit that systemd has started or starts with the node.
    /// A unit that is merely installed promises nothing.
    pub(crate) fn without_process(&self, survey: &Survey<'_>, running: &[Instance]) -> Vec<Instance> {
        let claimed: Vec<&str> =
            running.iter().filter_map(|e| e.declared.value()).flatten().map(|d| d.path.as_str()).collect();
        // One of which that is not known may well be the declared one.
        if running.iter().any(|e| e.declared.value().is_none()) {
            return Vec::new();
        }
        let runs = |path: &str| {
            let rivals = self.supervisors.rivals_of(path);
            !rivals.iter().any(|r| claimed.contains(r)) && rivals.last().is_none_or(|last| *last == path)
        };
        let lost = self.manifests().map(|(_, found)| &found.declared);
        let wanted = self.units.iter().filter(|(name, _)| self.wanted.contains(*name));
        let wanted = wanted.filter_map(|(_, unit)| match unit {
            Unit::Declares(index) => self.get(*index).map(|found| &found.declared),
            _ => None,
        });
        let lost = lost.filter(|d| runs(&d.path)).chain(wanted);
        let lost = lost.filter(|d| !claimed.contains(&d.path.as_str()));
        let absent = |declared: &Declared| {
            let mut instance = absent(survey, self.kind, declared, self.rivals(&declared.path));
            let unit_files = self.unit_files(&Ok(Some(declared.clone())));
            instance.files.unit = files::of_unit(survey, unit_files);
            instance
        };
        lost.map(absent).collect()
    }
}

/// Returns whether systemd runs the node, as sd_booted(3) tells it.
fn runs_systemd(survey: &Survey<'_>) -> bool {
    let file = survey.root.stat("/run/systemd/system", survey.users);
    file.is_ok_and(|file| file.kind == FileKind::Directory)
}

pub(super) fn is_pod(declared: &Declared) -> bool {
    declared.kind == DeclaredKind::StaticPod
}

/// How declarations of one component are read.
struct Declare<'a> {
    survey: &'a Survey<'a>,
    kind: Kind,
}

impl Declare<'_> {
    fn of_pod(&self, pod: &StaticPod) -> Vec<Declaration> {
        let declared = pod.containers.iter().filter_map(|container| {
            let program = container.program(|path| self.kind.program.is_at(path))?;
            let command = program.map(|argv| argv.into_iter().skip(1).collect::<Vec<Argument>>());
            let serves = match &command {
                Ok(arguments) => !(self.kind.program.is_other)(arguments),
                Err(_) => self.may_run(container),
            };
            serves.then(|| self.of_container(pod, container, command))
        });
        let (known, opaque): (Vec<_>, Vec<_>) = declared.partition(|d| d.declared.settings.value().is_some());
        // Scripts that merely mention the program, as those of init containers do, are no further instances.
        if known.is_empty() { opaque.into_iter().take(1).collect() } else { known }
    }

    fn of_container(
        &self,
        pod: &StaticPod,
        container: &Container,
        command: Result<Vec<Argument>, EvidenceError>,
    ) -> Declaration {
        let known = |v: &crate::manifest::DeclaredVariable| {
            let value = v.value.clone()?.into_bytes();
            Some(Variable { name: v.name.clone(), value, origin: v.origin.clone() })
        };
        let environment: Vec<Variable> = container.environment.iter().filter_map(known).collect();
        // What a path in the container is on the host.
        let on_host = |path: &str| match container.on_host(path) {
            Some((path, _)) => Ok(path),
            None => {
                let message = format!("{path} is in the container, on no path of the host, and is not read");
                Err(EvidenceError::new(ErrorKind::Unsupported, message))
            }
        };
        let indirect =
            command.as_ref().is_ok_and(|arguments| self.decides_by_reference(arguments, container));
        let release =
            container.image.as_deref().and_then(|image| release_of(image, self.kind.component.name));
        let mut declared =
            self.declared(DeclaredKind::StaticPod, &pod.file, command, &environment, release, on_host);
        self.without_unknown(&mut declared, container, indirect);
        if let Some(uid) = container.uid {
            let account = Account { uid, gid: container.gid.unwrap_or(0), groups: container.groups.clone() };
            let on_host =
                |path: &str| Ok((on_host(path)?, container.on_host(path).map(|(_, m)| m.host.clone())));
            files::judge_as(self.survey, self.kind.program, &mut declared, Ok(account), on_host);
        }
        Declaration { declared, container: Some(container.name.clone()), unit_files: Vec::new() }
    }

    /// Returns whether the shell scripts in `container`, which only a shell can tell, start an instance: not when its program
    /// does nothing else there.
    fn may_run(&self, container: &Container) -> bool {
        let argv = container.argv();
        let tokens = argv.iter().flat_map(|argument| {
            argument
                .text
                .split(|b| b.is_ascii_whitespace() || b";&|()'\"`\\".contains(b))
                .filter(|t| !t.is_empty())
        });
        let mut tokens = tokens.peekable();
        while let Some(token) = tokens.next() {
            let next = tokens
                .peek()
                .map(|next| Argument { text: next.to_vec(), origin: Origin::derived("a script") });
            if self.kind.program.is_at(token) && !(self.kind.program.is_other)(next.as_slice()) {
                return true;
            }
        }
        false
    }

    /// Returns whether a variable that is only known at run time decides which settings there are: as a whole argument or the
    /// name of a flag, or as the path of the configuration file.
    fn decides_by_reference(&self, arguments: &[Argument], container: &Container) -> bool {
        let mut takes_value = false;
        arguments.iter().any(|argument| {
            let text = String::from_utf8_lossy(&argument.text);
            let name = text.split('=').next().unwrap_or_default();
            let is_value = std::mem::take(&mut takes_value) && !text.starts_with('-');
            takes_value = text.starts_with('-') && !text.contains('=');
            !is_value && refers(name, container)
        }) || container.environment.iter().any(|v| self.names_file(&v.name) && v.value.is_none())
    }

    /// Leaves out of `declared` what is only known when `container` runs: a setting that is missing may have any value. Nor
    /// is anything predicted then, because a prediction may rest on what is not known.
    fn without_unknown(&self, declared: &mut Declared, container: &Container, indirect: bool) {
        let unknown_variable = container.environment.iter().any(|v| v.value.is_none());
        if !indirect && !unknown_variable && !container.other_variables && container.unresolved.is_empty() {
            return;
        }
        let message = "settings that come from variables, which are only known when the container runs";
        let error = EvidenceError::new(ErrorKind::Unsupported, format!("{}: {message}", declared.path));
        declared.fatal = Observed::failed(error.clone());
        if indirect {
            declared.settings = Observed::failed(error.clone());
        }
        let Observed::Seen { value: settings, .. } = &mut declared.settings else { return };
        let file = self.kind.program.config.and_then(|name| settings.get(name));
        let has_file = file.is_some_and(|setting| setting.set);
        let is_known = |name: &str, setting: &Setting| {
            let by_default = matches!(setting.origin, Origin::Default { .. });
            let by_variable = self.kind.program.variable.is_some() && container.other_variables
                || container.environment.iter().any(|v| self.is_variable(name, &v.name) && v.value.is_none());
            !refers(&setting.value, container) && (has_file || !by_default || !by_variable)
        };
        let doubtful = settings.iter().filter(|(name, setting)| !is_known(name, setting));
        for name in doubtful.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            settings.doubt(&name, error.clone());
        }
    }

    /// Returns the arguments of the instance that `unit` starts; `None` when it starts none, as far as that can be told.
    fn started_by(&self, unit: &systemd::Unit) -> Option<Result<Vec<Argument>, EvidenceError>> {
        let program = shell::program(&unit.arguments, |path| self.kind.program.is_at(path))?;
        let command = program.map(|argv| argv.into_iter().skip(1).collect::<Vec<_>>());
        (!command.as_ref().is_ok_and(|arguments| (self.kind.program.is_other)(arguments))).then_some(command)
    }

    fn of_unit(&self, unit: &systemd::Unit, command: Result<Vec<Argument>, EvidenceError>) -> Declaration {
        let command = unit.errors.first().map_or(command, |error| Err(error.clone()));
        let on_host = |path: &str| unit.on_host(path);
        let mut declared =
            self.declared(DeclaredKind::SystemdUnit, &unit.path, command, &unit.environment, None, on_host);
        let account = account(unit, self.survey.users);
        files::judge_as(self.survey, self.kind.program, &mut declared, account, |path| {
            Ok((on_host(path)?, unit.root_directory.clone()))
        });
        let unit_files = [&unit.path].into_iter().chain(&unit.drop_ins).cloned().collect();
        Declaration { declared, container: None, unit_files }
    }

    fn declared(
        &self,
        kind: DeclaredKind,
        path: &str,
        command: Result<Vec<Argument>, EvidenceError>,
        environment: &[Variable],
        release: Option<&str>,
        on_host: impl Fn(&str) -> Result<String, EvidenceError>,
    ) -> Declared {
        let (settings, fatal) = match command {
            Err(error) => (Observed::failed(error.clone()), Observed::failed(error)),
            Ok(arguments) => {
                let mut read = |path: &str| config_text(self.survey.root, on_host(path)?);
                let mut list = |path: &str| tree::files(self.survey.root, &on_host(path)?);
                let resolved = (self.kind.program.resolve)(Given {
                    arguments: &arguments,
                    environment: Ok(environment),
                    release,
                    runs: false,
                    read: &mut read,
                    list: &mut list,
                });
                // What keeps it from starting is known even if nothing else is.
                let fatal = match resolved.doubt.as_ref().or(resolved.settings.error()) {
                    Some(error) if resolved.fatal.is_empty() => Observed::failed(error.clone()),
                    _ => Observed::seen(resolved.fatal, Origin::file(path)),
                };
                (resolved.settings, fatal)
            }
        };
        Declared { kind, path: path.to_owned(), settings, fatal, uid: None, files: None, attributed_by: None }
    }

    /// Returns whether `variable` names the configuration file.
    fn names_file(&self, variable: &str) -> bool {
        self.kind.program.config.is_some_and(|name| self.is_variable(name, variable))
    }

    /// Returns whether `variable` sets the setting `name`.
    fn is_variable(&self, name: &str, variable: &str) -> bool {
        self.kind.program.variable.is_some_and(|of| of(name) == variable)
    }
}

/// Returns the release that an `image` says it is of: the tag of an image that is called as its `component`, as the project publishes
/// them (`registry.k8s.io/kube-scheduler:v1.35.4`). With a digest the tag means nothing to a container runtime.
fn release_of<'a>(image: &'a str, component: &str) -> Option<&'a str> {
    let (name, tag) = image.rsplit('/').next()?.split_once(':')?;
    let is_release =
        |tag: &str| tag.strip_prefix('v').unwrap_or(tag).starts_with(|c: char| c.is_ascii_digit());
    (name == component && is_release(tag) && !tag.contains('@')).then_some(tag)
}

/// Returns whether `text` refers to a variable of `container` that is only known at run time.
fn refers(text: &str, container: &Container) -> bool {
    container.unresolved.iter().any(|name| text.contains(&format!("$({name})")))
}

/// Returns the account that `unit` runs as.
fn account(unit: &systemd::Unit, users: &Users) -> Result<Account, EvidenceError> {
    let unknown = |what: &str, name: &str| {
        let message = format!("{}: the {what} {name} is in no file of this node", unit.path);
        EvidenceError::new(ErrorKind::NotFound, message).at(Origin::file(&unit.path))
    };
    let mut account = match unit.user.as_deref() {
        None | Some("root" | "0") => Account::default(),
        Some(name) => users.account(name).ok_or_else(|| unknown("user", name))?,
    };
    let group = |name: &String| users.group_id(name).ok_or_else(|| unknown("group", name));
    if let Some(name) = &unit.group {
        account.gid = group(name)?;
    }
    for name in &unit.supplementary_groups {
        account.groups.push(group(name)?);
    }
    Ok(account)
}

/// Returns the instance of a `kind` that `declared` promises and that does not run.
fn absent(
    survey: &Survey<'_>,
    kind: Kind,
    declared: &Declared,
    rivals: Result<Vec<RivalManifest>, EvidenceError>,
) -> Instance {
    let Kind { component, program } = kind;
    let error = not_running(component.name, &declared.path);
    let manifest = is_pod(declared).then(|| survey.root.stat(&declared.path, survey.users));
    let open_to =
        Access::of_account(&Account::default(), survey.root, survey.users).folder_open_to(&declared.path);
    let mut instance = Instance {
        id: format!("{} (not running)", component.name),
        component: component.name.to_owned(),
        process: Observed::failed(error.clone()),
        version: Observed::failed(error.clone()),
        settings: Observed::failed(error.clone()),
        config_file: None,
        ignored_environment: Some(Observed::failed(error.clone())),
        declared: Observed::seen(vec![declared.clone()], Origin::file(&declared.path)),
        drift: Observed::failed(error.clone()),
        listeners: Observed::failed(error.clone()),
        credentials: program
            .credentials
            .iter()
            .map(|names| instance::unknown(names.purpose, &error))
            .collect(),
        files: InstanceFiles {
            manifest_open_to: Observed::from_result(
                open_to,
                Origin::derived("owners and modes of the folders above it"),
            ),
            manifest: manifest.map(|file| Observed::from_result(file, Origin::file(&declared.path))),
            rival_manifests: Observed::from_result(rivals, Origin::derived("kubelet's manifest directory")),
            pki: Observed::failed(error.clone()),
            kubeconfigs: Observed::failed(error.clone()),
            authorities: Some(Observed::failed(error.clone())),
            config: Some(Observed::failed(error.clone())),
            unit: None,
            access: None,
        },
        etcd: None,
        etcd_proxy: None,
        kube_apiserver: None,
    };
    if let Some(examine) = program.special {
        examine(&mut instance, &mut |_, _| Err(error.clone()));
    }
    if component.name == COMPONENT.name {
        server::without_process(&mut instance, declared, &error);
    }
    instance
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::Options;
    use super::*;
    use seaworthy_host::root::Root;
    use seaworthy_host::users::Users;

    pub(in super::super) const MANIFESTS: &str = "/etc/kubernetes/manifests";
    pub(in super::super) const UNIT_FILE: &str = "/etc/systemd/system/etcd.service";

    pub(in super::super) fn pod(name: &str) -> String {
        let metadata = "metadata: {name: etcd, namespace: kube-system}";
        format!("kind: Pod\n{metadata}\nspec:\n  containers:\n  - command: [etcd, --name={name}]\n")
    }

    /// Looks for declarations among `files`, and calls `test` with what it found.
    fn declarations<T>(files: &[(String, String)], test: impl FnOnce(&Declarations, &Survey<'_>) -> T) -> T {
        declarations_of(files, Vec::new(), test)
    }

    /// Does so where these `services` run an etcd.
    pub(in super::super) fn declarations_of<T>(
        files: &[(String, String)],
        services: Vec<String>,
        test: impl FnOnce(&Declarations, &Survey<'_>) -> T,
    ) -> T {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let options = Options {
            root: PathBuf::from(directory.path()),
            wire: false,
            observe: None,
            timeout: Duration::ZERO,
            layout: None,
            patience: Duration::ZERO,
            now: Timestamp::UNIX_EPOCH,
        };
        let root = Root::host(directory.path()).unwrap();
        let survey = Survey { options: &options, root: &root, users: &Users::default() };
        test(&read(&survey, services), &survey)
    }

    fn read(survey: &Survey<'_>, services: Vec<String>) -> Declarations {
        let unreadable = &mut Vec::new();
        let pods = Arc::new(Supervisors::of(survey, &[], unreadable));
        Declarations::read(survey, Kind::ETCD, &pods, services.into_iter(), unreadable)
    }

    /// Returns the declarations in a pod with these `containers`.
    fn of_containers(containers: &str) -> Vec<Declared> {
        let text = format!("kind: Pod\nmetadata: {{name: etcd}}\nspec:\n  containers:\n{containers}");
        declarations(&[(format!("{MANIFESTS}/etcd.yaml"), text)], |found, _| {
            found.manifests().map(|(_, one)| one.declared.clone()).collect()
        })
    }

    #[test]
    fn what_is_only_known_at_run_time_is_missing() {
        let from = "valueFrom: {fieldRef: {fieldPath: status.hostIP}}";
        let url = "--listen-peer-urls=https://$(HOST_IP):2380";
        // The command, the rest of the container, settings that are known and ones that are not.
        let cases = [
            (
                format!("--name=m1, '{url}'"),
                format!("env: [{{name: HOST_IP, {from}}}]"),
                "name",
                "listen-peer-urls",
            ),
            ("--name, $(X)".to_owned(), format!("env: [{{name: X, {from}}}]"), "cert-file", "name"),
            (
                "--name=m1".to_owned(),
                format!("env: [{{name: ETCD_CERT_FILE, {from}}}]"),
                "key-file",
                "cert-file",
            ),
            ("--name=m1".to_owned(), "envFrom: [{configMapRef: {name: x}}]".to_owned(), "name", "cert-file"),
        ];
        for (command, rest, known, unknown) in cases {
            let found = of_containers(&format!("  - command: [etcd, {command}]\n    {rest}\n"));
            let settings = found[0].settings.value().unwrap();
            assert!(settings.contains_key(known) && !settings.contains_key(unknown), "{command} {rest}");
            assert!(settings.why_unknown(unknown).is_some(), "{command}");
            assert!(found[0].fatal.error().is_some(), "{command}");
        }
        let cases = [("$(FLAGS)", "FLAGS"), ("--$(FLAG)=x", "FLAG"), ("--name=x", "ETCD_CONFIG_FILE")];
        for (command, name) in cases {
            let rest = format!("env: [{{name: {name}, {from}}}]");
            let found = of_containers(&format!("  - command: [etcd, '{command}']\n    {rest}\n"));
            assert_eq!(found[0].settings.error().unwrap().kind, ErrorKind::Unsupported, "{command}");
        }
    }

    #[test]
    fn the_files_of_a_declared_component_are_read_on_the_host() {
        let scheduler = seaworthy_components::named("kube-scheduler").unwrap();
        let kind = Kind { component: scheduler, program: scheduler.program.unwrap() };
        let said = |image: &str, arguments: &str| {
            let mount = "volumeMounts: [{name: a, mountPath: /conf}]";
            let pod = format!(
                "kind: Pod\nmetadata: {{name: a}}\nspec:\n  volumes: [{{name: a, hostPath: {{path: /etc/conf}}}}]\n  \
                 containers:\n  - {{image: {image}, command: [kube-scheduler, {arguments}], {mount}}}\n"
            );
            let files = [
                (format!("{MANIFESTS}/a.yaml"), pod),
                ("/etc/conf/kubeconfig".to_owned(), "clusters: [{name: a}]\n".to_owned()),
                ("/etc/conf/scheduler.yaml".to_owned(), "kind: KubeSchedulerConfiguration\n".to_owned()),
            ];
            declarations(&files, |_, survey| {
                let unreadable = &mut Vec::new();
                let pods = Arc::new(Supervisors::of(survey, &[], unreadable));
                let found = Declarations::read(survey, kind, &pods, Vec::new().into_iter(), unreadable);
                match &found.found[0].declared.fatal {
                    Observed::Seen { value, .. } => {
                        value.iter().map(|f| f.message.clone()).collect::<Vec<_>>().join("; ")
                    }
                    Observed::Failed { error, .. } => format!("? {}", error.message),
                }
            })
        };
        let (tagged, other) = ("registry.k8s.io/kube-scheduler:v1.35.4", "example.com/hardened:v1.35.4");
        let cases = [
            (tagged, "--kubeconfig=/conf/kubeconfig", ""),
            (tagged, "--kubeconfig=/conf/none", "open /conf/none: no such file or directory"),
            (tagged, "--kubeconfig=/elsewhere", "? /elsewhere is in the container, on no path of the host"),
            (tagged, "--config=/conf/scheduler.yaml", "/conf/scheduler.yaml: apiVersion is missing"),
            (tagged, "--feature-gates=Nonsense=true", "unrecognized feature gate: Nonsense"),
            (other, "--feature-gates=Nonsense=true", "? no release of kube-scheduler that is known takes"),
            (tagged, "--nonsense=1", "unknown flag: --nonsense"),
        ];
        for (image, arguments, want) in cases {
            let said = said(image, arguments);
            assert!(
                said.starts_with(want) && said.is_empty() == want.is_empty(),
                "{image} {arguments}: {said}"
            );
        }
    }

    #[test]
    fn a_tag_of_the_image_of_a_component_tells_its_release() {
        let cases = [
            ("registry.k8s.io/kube-scheduler:v1.35.4", Some("v1.35.4")),
            ("localhost:5000/kube-scheduler:1.35", Some("1.35")),
            ("kube-scheduler:latest", None),
            ("localhost:5000/kube-scheduler", None),
            ("registry.k8s.io/kube-scheduler:v1.35.4@sha256:00", None),
            ("registry.k8s.io/kube-scheduler@sha256:00", None),
            ("example.com/hardened-kubernetes:v1.35.4-build1", None),
            ("", None),
        ];
        for (image, want) in cases {
            assert_eq!(release_of(image, "kube-scheduler"), want, "{image}");
        }
    }

    #[test]
    fn scripts_that_mention_etcd_are_no_further_servers() {
        let script = |text: &str| format!("  - command: [/bin/sh, -c, '{text}']\n");
        let server = script("set -x; exec etcd --name=$HOSTNAME");
        let proxy = script("exec etcd grpc-proxy start --endpoints=$URL");
        let mention = script("mkdir -p /var/log/etcd && chmod 0600 $X");
        assert_eq!(of_containers(&proxy).len(), 0);
        assert_eq!(of_containers(&format!("{mention}{server}{proxy}")).len(), 1);
        assert_eq!(
            of_containers(&format!("{mention}  - command: [etcd]\n  - command: [etcd, --name=b]\n")).len(),
            2
        );
    }

    #[test]
    fn a_unit_that_systemd_has_started_promises_an_etcd_however_it_starts_it() {
        let unit = |name: &str, command: &str| {
            (format!("/etc/systemd/system/{name}"), format!("[Service]\nExecStart={command}\n"))
        };
        let started = |name: &str| (format!("/run/systemd/units/invocation:{name}"), String::new());
        let enabled = |name: &str, command: &str| {
            let (_, text) = unit(name, command);
            (format!("/etc/systemd/system/multi-user.target.wants/{name}"), text)
        };
        let runs = ("/run/systemd/system/x".to_owned(), String::new());
        // The files, and the name of each etcd that is promised, or nothing where it is not known.
        type Row<'a> = (Vec<(String, String)>, &'a [Option<&'a str>]);
        let rows: [Row<'_>; 7] = [
            (vec![unit("etcd.service", "/usr/bin/etcd --name m1")], &[]),
            (vec![unit("db.service", "/usr/bin/etcd --name m1"), started("db.service")], &[Some("m1")]),
            (
                vec![unit("e@.service", "nice -n 5 /bin/etcd --name %i"), enabled("e@m2.service", "")],
                &[Some("m2")],
            ),
            (vec![unit("db.service", "bash -c 'etcd --name $$X'"), started("db.service")], &[None]),
            (vec![unit("db.service", "tar c /var/lib/etcd"), started("db.service")], &[]),
            (vec![unit("p.service", "etcd gateway start"), started("p.service")], &[]),
            (vec![unit("etcd.service", "/opt/run-etcd"), started("etcd.service")], &[]),
        ];
        for (files, want) in rows {
            declarations(&[files.clone(), vec![runs.clone()]].concat(), |found, survey| {
                let absent = found.without_process(survey, &[]);
                let names: Vec<_> =
                    absent.iter().map(|etcd| etcd.etcd.as_ref().and_then(|e| e.name.as_deref())).collect();
                assert_eq!(names, want, "{files:?}");
            });
            declarations(&files, |found, survey| {
                assert_eq!(found.without_process(survey, &[]), [], "no systemd runs: {files:?}");
            });
        }
    }

    #[test]
    fn a_mount_ends_at_a_slash() {
        let text = "kind: Pod\nmetadata: {name: etcd}\nspec:\n  containers:\n  - command: [etcd, --config-file=/etc/etcd.conf]\n    \
            volumeMounts: [{name: a, mountPath: /etc/etcd}, {name: b, mountPath: /etc/}]\n  \
            volumes: [{name: a, hostPath: {path: /a}}, {name: b, hostPath: {path: /b}}]\n";
        let files = [
            (format!("{MANIFESTS}/etcd.yaml"), text.to_owned()),
            ("/b/etcd.conf".to_owned(), "name: m7\n".to_owned()),
        ];
        declarations(&files, |found, _| {
            assert_eq!(found.found[0].declared.settings.value().unwrap()["name"].value, "m7");
        });
    }

    #[test]
    fn the_user_that_a_declaration_names_must_be_able_to_use_its_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let key = "/srv/pki/peer.key";
        let unit = |more: &str| {
            let text = format!("[Service]\n{more}ExecStart=/usr/bin/etcd --name=m1 --peer-key-file={key}\n");
            (UNIT_FILE.to_owned(), text)
        };
        let pod = |security: &str, inside: &str| {
            let text = format!(
                "kind: Pod\nmetadata: {{name: etcd}}\nspec:\n  securityContext: {security}\n  containers:\n  - command: [etcd, \
                 --peer-key-file={inside}]\n    volumeMounts: [{{name: a, mountPath: /pki}}]\n  volumes: [{{name: a, hostPath: {{path: \
                 /srv/pki}}}}]\n"
            );
            (format!("{MANIFESTS}/etcd.yaml"), text)
        };
        let passwd = ("/etc/passwd".to_owned(), "etcd:x:998:997::/:\n".to_owned());
        let refused = "peer-key-file: uid 998 (etcd) may not read /srv/pki/peer.key: it belongs to ";
        let cases = [
            (unit(""), Some(0), Some("")),
            (unit("User=etcd\n"), Some(998), Some(refused)),
            (unit("User=998\nGroup=5\n"), Some(998), Some(refused)),
            (unit("User=nobody-knows\n"), None, None),
            (unit("User=etcd\nGroup=nobody-knows\n"), None, None),
            (pod("{runAsUser: 998}", "/pki/peer.key"), Some(998), Some(refused)),
            (pod("{runAsUser: 998}", "/elsewhere/peer.key"), Some(998), None),
            (pod("{runAsUser: 0}", "/elsewhere/peer.key"), Some(0), Some("")),
        ];
        for (file, uid, want) in cases {
            let files = [file.clone(), passwd.clone(), (key.to_owned(), String::new())];
            let judge = |survey: &Survey<'_>| {
                let path = survey.options.root.join(key.trim_start_matches('/'));
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                // Nobody enters the folder of a test but its user, which says nothing of the node.
                fs::set_permissions(&survey.options.root, fs::Permissions::from_mode(0o755)).unwrap();
                let users = Users::read(survey.root).0;
                let survey = Survey { users: &users, ..*survey };
                let found = read(&survey, Vec::new());
                found.found[0].declared.clone()
            };
            let declared = declarations(&files, |_, survey| judge(survey));
            assert_eq!(declared.uid, uid, "{}", file.1);
            let told = declared.files.expect("it names a user, or is of root's service");
            let told = told.value().map(|all| {
                let each = all.iter().map(|f| format!("{}: {}", f.setting, f.message));
                each.collect::<String>()
            });
            let fits = match (&told, want) {
                (Some(told), Some(want)) => told.starts_with(want) && told.is_empty() == want.is_empty(),
                (told, want) => told.is_none() && want.is_none(),
            };
            assert!(fits, "{}: {told:?}", file.1);
        }
        let image = declarations(&[pod("{}", "/pki/peer.key")], |found, _| found.found[0].declared.clone());
        assert_eq!((image.uid, image.files), (None, None));
    }

    #[test]
    fn of_several_manifests_of_a_pod_kubelet_runs_one() {
        let file = |name: &str, text: String| (format!("{MANIFESTS}/{name}"), text);
        let other = pod("m1").replace("name: etcd,", "name: etcd-events,");
        let files = [
            file("etcd.yaml", pod("m1")),
            file("etcd.yaml.bak", pod("m0")),
            file("etcd.yaml.2", pod("m1")),
            file("events.yaml", other),
            file("broken.yaml", "kind: Pod\nspec: [\n".to_owned()),
        ];
        declarations(&files, |found, survey| {
            let rivals = |name: &str| -> Vec<(String, bool)> {
                let rivals = found.rivals(&format!("{MANIFESTS}/{name}")).unwrap();
                rivals.into_iter().map(|r| (r.path.rsplit('/').next().unwrap().to_owned(), r.wins)).collect()
            };
            let named = |name: &str, wins| (name.to_owned(), wins);
            assert_eq!(rivals("etcd.yaml"), [named("etcd.yaml.2", false), named("etcd.yaml.bak", true)]);
            assert_eq!(rivals("etcd.yaml.bak"), [named("etcd.yaml", false), named("etcd.yaml.2", false)]);
            assert_eq!(rivals("events.yaml"), []);
            let absent = found.without_process(survey, &[]);
            let paths: Vec<_> = absent.iter().map(|e| e.declared.value().unwrap()[0].path.as_str()).collect();
            assert_eq!(paths, [format!("{MANIFESTS}/etcd.yaml.bak"), format!("{MANIFESTS}/events.yaml")]);
            let rivals = absent[0].files.rival_manifests.value().unwrap();
            assert_eq!(rivals.len(), 2);
        });
    }

    #[test]
    fn a_file_that_could_not_be_read_may_be_a_rival() {
        let big = "#".repeat(2 << 20);
        let files = [(format!("{MANIFESTS}/a"), pod("m1")), (format!("{MANIFESTS}/b"), big)];
        declarations(&files, |found, _| {
            assert_eq!(found.rivals(&format!("{MANIFESTS}/a")).unwrap_err().kind, ErrorKind::TooLarge);
        });
    }
}
