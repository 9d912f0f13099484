//! What the plans of all rules are made with: where the settings of an instance are declared, what its container sees of the
//! host, and how a step looks. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;

use crate::subject::{Subject, is_program};
use seaworthy_collect::manifest::StaticPod;
use seaworthy_components as components;
use seaworthy_edit::memory::Memory;
use seaworthy_edit::{
    ArgumentEdit, Change, FileEdit, Impossible, Read, Refused, config, environment, manifest, unit,
};
use seaworthy_evidence::{DeclaredKind, Direction, Member, MemberSource, Origin, Setting, Url};
use seaworthy_journal::files::sha256;

pub(crate) use crate::input::{
    AuthorityFiles, Declaration, Input, called, given, has_loaded, is_encrypted, missing, refuse, state, this,
};
use crate::issue::Purpose;
use crate::plan::{Action, Condition, Plan, Refusal, RefusalKind, RestartedBy, Stage, Step, Until, Waiting};

/// Where a setting of an instance is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In its own configuration file, which replaces all other sources.
    Config(String),
    /// In an environment file.
    Environment(String),
    /// In the arguments of a static pod.
    Manifest(String),
    /// In the command line of a systemd unit.
    Unit(String),
}

/// Days that a certificate must still be valid when a plan begins.
pub(crate) const MARGIN_DAYS: i64 = 1;
/// Where files go when nothing else tells.
pub(crate) const POD_DIRECTORY: &str = "/etc/kubernetes/pki/etcd";
const UNIT_DIRECTORY: &str = "/etc/etcd/pki";

/// Returns the files that declare an instance: first the one to edit, then those that say what its paths mean. A unit is named
/// without its drop-ins, which come behind it.
///
/// # Errors
///
/// When its settings come from where no edit reaches.
pub(crate) fn declared_in(subject: &Subject) -> Result<Vec<String>, Refusal> {
    let (Source::Config(path) | Source::Environment(path) | Source::Manifest(path) | Source::Unit(path)) =
        source(subject)?;
    let manifest = declared(subject)?;
    let also =
        (manifest.kind == DeclaredKind::StaticPod && manifest.path != path).then(|| manifest.path.clone());
    Ok([path].into_iter().chain(also).collect())
}

/// Returns `declaration` with the `change` made: the new content of the file at `path`.
///
/// # Errors
///
/// When the edit cannot be made exactly.
pub(crate) fn edited(change: &FileEdit, path: &str, declaration: &[Declaration]) -> Result<Vec<u8>, Refused> {
    static EDITED: Memory<Result<Vec<u8>, Refused>> = Memory::new();
    let read = |path: &str| Some(declaration.iter().find(|d| d.path == path)?.bytes.clone());
    let apply = || change.apply(path, &read, &is_known);
    // What may be a secret is not kept.
    let FileEdit::Manifest { .. } = change else { return apply() };
    let Ok(mut key) = serde_json::to_vec(&(change, path)) else { return apply() };
    for Declaration { path, bytes, .. } in declaration {
        key.extend(format!("\n{path} {}\n", bytes.len()).bytes());
        key.extend(bytes);
    }
    // A run that waits for others plans the same edit of the same files each time that it looks.
    EDITED.recall(&key, apply)
}

/// Returns the content of the file at `path` as it is `now` with the `change` undone, as [`FileEdit::undo`] does.
///
/// # Errors
///
/// When that is impossible.
pub(crate) fn undone(
    change: &FileEdit,
    path: &str,
    before: Option<&[u8]>,
    now: &[u8],
    read: Read<'_>,
) -> Result<Vec<u8>, Impossible> {
    static UNDONE: Memory<Result<Vec<u8>, Impossible>> = Memory::new();
    let undo = || change.undo(path, before, now, read, &is_known);
    // Of a drop-in other files are read as well.
    let (FileEdit::Manifest { .. }, Some(before)) = (change, before) else { return undo() };
    let Ok(mut key) = serde_json::to_vec(&(change, path, before.len())) else { return undo() };
    key.extend([before, now].concat());
    UNDONE.recall(&key, undo)
}

/// Returns where the process sees a file of the host, or will once its folder is mounted.
pub(crate) fn seen_at(input: &Input<'_>, path: &str) -> Option<String> {
    let view = View::of(input).ok()?;
    Some(view.inside(path).unwrap_or_else(|| path.to_owned()))
}

/// Returns whether the program at `path` is called as that of a known component is. In a file that declares one instance there is
/// one.
pub(crate) fn is_known(path: &[u8]) -> bool {
    components::ALL.iter().filter_map(|component| component.program).any(|program| program.is_at(path))
}

pub(crate) fn declared(subject: &Subject) -> Result<&seaworthy_evidence::Declared, Refusal> {
    let all = subject.declared.as_result().map_err(missing)?;
    all.first().ok_or_else(|| {
        refuse(
            RefusalKind::Unsupported,
            format!("no static pod manifest and no systemd unit declares this {}", subject.component),
            "what starts it would start it without the change",
            "change it where it is configured: k3s, MicroShift, Talos and managed services do that by \
             themselves",
        )
    })
}

/// Returns where the settings of the running instance come from.
pub(crate) fn source(subject: &Subject) -> Result<Source, Refusal> {
    let declared = declared(subject)?;
    let name = &subject.component;
    let running = subject.settings.as_result().map_err(missing)?;
    let promised = declared.settings.as_result().map_err(missing)?;
    // Of an etcd all settings come from one place, and these are always given.
    let names: Vec<&str> = match subject.is_member() {
        true => vec!["listen-peer-urls", "name", "data-dir"],
        false => running.keys().map(String::as_str).collect(),
    };
    let given = names.into_iter().find_map(|name| {
        let origin = |s: &Setting| (!matches!(s.origin, Origin::Default { .. })).then(|| s.origin.clone());
        Some((origin(running.get(name)?)?, origin(promised.get(name)?)?))
    });
    let (running, promised) = given.ok_or_else(|| missing("where its settings are declared"))?;
    let Origin::File { path, .. } = promised else {
        return Err(missing("the file in which its settings are declared"));
    };
    let unsupported = |what: String, instead: &str| {
        let why = "it cannot be edited so that nothing else changes";
        Err(refuse(RefusalKind::Unsupported, what, why, instead))
    };
    if let Some(layout) = seaworthy_layouts::writing(&path, subject.layout.as_deref()) {
        return unsupported(
            format!("{path} is written anew at each start of {}", layout.name),
            &format!(
                "give {} the settings as {} in {}",
                layout.name,
                layout.arguments_of(name).unwrap_or("arguments"),
                layout.configuration.unwrap_or("its configuration")
            ),
        );
    }
    match (running, declared.kind) {
        (Origin::File { .. }, _) if path != declared.path => Ok(Source::Config(path)),
        (Origin::Argv { .. }, DeclaredKind::StaticPod) if path == declared.path => Ok(Source::Manifest(path)),
        (Origin::Argv { .. }, DeclaredKind::SystemdUnit) => Ok(Source::Unit(declared.path.clone())),
        (Origin::Environment { .. }, DeclaredKind::SystemdUnit)
            if path != declared.path && !path.ends_with(".conf") =>
        {
            Ok(Source::Environment(path))
        }
        (Origin::Environment { .. }, _) => unsupported(
            format!("{path} itself sets the variables of {name}"),
            "turn them into arguments, or move them into an environment file, and plan again",
        ),
        (origin, _) => unsupported(
            format!("{name} runs with settings from {origin}, while {path} declares them"),
            "restart it from its declaration, and plan again",
        ),
    }
}

/// What a container sees of the host; everything for a unit.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) container: Option<String>,
    mounts: Vec<(String, String)>,
    /// The hosts that kubelet's probes of it ask over the network; empty text for the pod's own address.
    pub(crate) probes: Vec<String>,
}

impl View {
    pub(crate) fn of(input: &Input<'_>) -> Result<Self, Refusal> {
        let declared = declared(input.subject)?;
        if declared.kind == DeclaredKind::SystemdUnit {
            let everything = vec![("/".to_owned(), "/".to_owned())];
            return Ok(Self { container: None, mounts: everything, probes: Vec::new() });
        }
        let file = input.declaration.iter().find(|d| d.path == declared.path);
        let file = file.ok_or_else(|| missing(format!("{} was not read", declared.path)))?;
        Self::of_manifest(&input.subject.component, &file.path, &file.bytes)
    }

    /// Returns what the container of `component` in a manifest sees.
    pub(crate) fn of_manifest(component: &str, path: &str, content: &[u8]) -> Result<Self, Refusal> {
        static VIEWS: Memory<Result<View, Refusal>> = Memory::new();
        let key = [component.as_bytes(), b"\n", path.as_bytes(), b"\n", content].concat();
        VIEWS.recall(&key, || Self::read_manifest(component, path, content))
    }

    fn read_manifest(component: &str, path: &str, content: &[u8]) -> Result<Self, Refusal> {
        let pods = StaticPod::parse(content, &Origin::file(path)).map_err(missing)?;
        let containers = pods.into_iter().filter(|p| !p.ignored).flat_map(|p| p.containers);
        let runs = |path: &[u8]| is_program(component, path);
        let mut found = containers.filter(|c| matches!(c.program(runs), Some(Ok(_))));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(Self {
                container: Some(one.name),
                mounts: one.mounts.into_iter().map(|m| (m.host, m.container)).collect(),
                probes: one.probes,
            }),
            _ => Err(missing(format!("which container of {path} runs {component}"))),
        }
    }

    /// Returns the path at which the process sees the host's `path`.
    pub(crate) fn inside(&self, path: &str) -> Option<String> {
        moved(path, self.mounts.iter().map(|(host, inside)| (host.as_str(), inside.as_str())))
    }

    /// Returns the path on the host of what the process sees at `path`.
    pub(crate) fn outside(&self, path: &str) -> Option<String> {
        moved(path, self.mounts.iter().map(|(host, inside)| (inside.as_str(), host.as_str())))
    }
}

/// Returns `path` moved by the longest of the mounts it is in.
pub(crate) fn moved<'a>(path: &str, mounts: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let below = |from: &str| {
        let rest = path.strip_prefix(from.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    let inside = mounts.filter_map(|(from, to)| Some((from.len(), to, below(from)?)));
    let (_, to, rest) = inside.max_by_key(|(length, ..)| *length)?;
    Some(format!("{}{rest}", to.trim_end_matches('/')))
}

/// Returns the address that a host is, if it is one.
pub(crate) fn known_host(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

pub(crate) fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// What a step changes in the configuration of an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Settings with their new values.
    pub(crate) set: BTreeMap<String, String>,
    /// Settings that are not given any more.
    pub(crate) removed: BTreeSet<String>,
    /// Variables of the process that are none of its settings, with their new values; `None` for one that is not set any more.
    pub(crate) variables: BTreeMap<&'static str, Option<String>>,
}

impl Changes {
    /// Returns the changes that give these settings their values.
    pub(crate) fn setting<const N: usize>(settings: [(&str, String); N]) -> Self {
        let set = settings.map(|(name, value)| (name.to_owned(), value));
        Self { set: BTreeMap::from(set), ..Self::default() }
    }

    /// Returns what is in effect afterwards; an empty value says that a setting is not given any more.
    pub(crate) fn effective(&self) -> BTreeMap<String, String> {
        let removed = self.removed.iter().map(|name| (name.clone(), String::new()));
        self.set.clone().into_iter().chain(removed).collect()
    }
}

/// What changes an instance where it is declared.
pub(crate) struct Editor<'a> {
    pub(crate) rule: &'a str,
    pub(crate) s: Input<'a>,
    pub(crate) settings: &'a BTreeMap<String, Setting>,
    pub(crate) source: Source,
    pub(crate) view: View,
}

impl<'a> Editor<'a> {
    pub(crate) fn new(rule: &'a str, s: Input<'a>) -> Result<Self, Refusal> {
        s.subject.process.as_result().map_err(missing)?;
        let settings = s.subject.settings.as_result().map_err(missing)?;
        let declaration = declared(s.subject)?;
        if declaration.attributed_by.is_some_and(|by| !by.is_proof()) {
            let name = &s.subject.component;
            return Err(refuse(
                RefusalKind::Evidence,
                format!(
                    "nothing proves that {} is what starts this {name}; only its settings are alike",
                    declaration.path
                ),
                format!(
                    "a change of it might not reach this {name}, and a restart of it might start a second one"
                ),
                "find out what starts it (systemctl status PID, or its parent), and change that by hand",
            ));
        }
        Ok(Self { rule, s, settings, source: source(s.subject)?, view: View::of(&s)? })
    }

    /// Returns the step that gives the instance these settings where it is declared.
    pub(crate) fn edit(
        &self,
        title: &str,
        why: &str,
        settings: &BTreeMap<String, String>,
        mounts: Vec<manifest::Mount>,
    ) -> Result<Step, Refusal> {
        let changes = Changes { set: settings.clone(), ..Changes::default() };
        self.change(title, why, &changes, mounts)
    }

    /// Returns the step that makes these changes where the instance is declared.
    pub(crate) fn change(
        &self,
        title: &str,
        why: &str,
        changes: &Changes,
        mounts: Vec<manifest::Mount>,
    ) -> Result<Step, Refusal> {
        let arguments = || {
            let set = changes
                .set
                .iter()
                .map(|(flag, value)| ArgumentEdit::Set { flag: flag.clone(), value: value.clone() });
            let removed = changes.removed.iter().map(|flag| ArgumentEdit::Remove { flag: flag.clone() });
            removed.chain(set)
        };
        let variables = || {
            changes.variables.iter().map(|(name, value)| match value.clone() {
                Some(value) => environment::Edit::Set { name: (*name).to_owned(), value },
                None => environment::Edit::Remove { name: (*name).to_owned() },
            })
        };
        if let (Source::Config(path) | Source::Unit(path), Some(name)) =
            (&self.source, changes.variables.keys().next())
        {
            return Err(refuse(
                RefusalKind::Unsupported,
                format!("{path} cannot give etcd the variable {name}"),
                "without it members with and without self-made certificates could not dial each other",
                format!(
                    "by hand, one member at a time: {}, and {}; then plan again",
                    listed(&changes.effective()),
                    changes.variables.iter().map(|(n, v)| variable(n, v.as_deref())).collect::<String>()
                ),
            ));
        }
        let (path, change) = match &self.source {
            Source::Config(path) => {
                let removed = changes.removed.iter().map(|name| {
                    let (section, key) = config_key(name);
                    config::Edit::Remove { section: section.map(str::to_owned), key: key.to_owned() }
                });
                let set = changes.set.iter().map(|(name, value)| config_edit(name, value));
                let edits = removed.chain(set).collect();
                (path.clone(), FileEdit::Config { edits })
            }
            Source::Environment(path) => {
                let name = |name: &str| format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
                let removed = changes.removed.iter().map(|n| environment::Edit::Remove { name: name(n) });
                let set = changes
                    .set
                    .iter()
                    .map(|(n, value)| environment::Edit::Set { name: name(n), value: value.clone() });
                let edits = removed.chain(set).chain(variables()).collect();
                (path.clone(), FileEdit::Environment { edits })
            }
            Source::Manifest(path) => {
                let edits = arguments().map(manifest::Edit::Argument);
                let edits = edits.chain(variables().map(manifest::Edit::Variable));
                let edits = edits.chain(mounts.iter().cloned().map(manifest::Edit::Mount)).collect();
                let container = self.view.container.clone().unwrap_or_default();
                (path.clone(), FileEdit::Manifest { container, edits })
            }
            Source::Unit(unit_file) => {
                let unit = unit_file.rsplit('/').next().unwrap_or_default();
                let path = format!("/etc/systemd/system/{unit}.d/{}", unit::FILE_NAME);
                let files = self.s.declaration.iter().map(|d| d.path.clone()).collect();
                (path, FileEdit::DropIn { unit: files, edits: arguments().collect() })
            }
        };
        if !mounts.is_empty() && !matches!(self.source, Source::Manifest(_)) {
            return Err(refuse(
                RefusalKind::Edit,
                format!(
                    "{} is not visible in the container",
                    mounts.iter().map(|m| &*m.host_path).collect::<Vec<_>>().join(", ")
                ),
                "etcd would not find its certificate, and not start",
                "mount it there, and plan again",
            ));
        }
        let refused = |refused: Refused| {
            refuse(
                RefusalKind::Edit,
                format!("{path} cannot be edited: {refused}"),
                "an edit that is not exactly the intended change may keep it from starting",
                format!("set by hand, one node at a time: {}", listed(&changes.effective())),
            )
        };
        let after = edited(&change, &path, self.s.declaration).map_err(refused)?;
        let before = self.s.declaration.iter().find(|d| d.path == path).map(|d| d.bytes.clone());
        let precondition = match &before {
            Some(bytes) => Condition::File { path: path.clone(), sha256: sha256(bytes) },
            None => Condition::Absent { path: path.clone() },
        };
        let hash = sha256(&after);
        let diff = Change { path: path.clone(), before, after, content: change.content() }.diff();
        Ok(Step {
            title: format!("{title}: {path}"),
            why: why.to_owned(),
            verify: vec![Condition::Edited { path: path.clone(), sha256: hash.clone() }],
            action: Action::Edit { path, change, after: hash },
            diff: Some(diff),
            preconditions: match self.s.subject.is_member() {
                true => vec![precondition, Condition::ClusterHealthy, Condition::LinksFull],
                false => vec![precondition],
            },
            restarts: false,
        })
    }

    /// Returns the step that makes the instance run with these settings, which is verified with whatever else is given.
    pub(crate) fn restart(&self, settings: BTreeMap<String, String>, verify: Vec<Condition>) -> Step {
        let settled = [Condition::Restarted, Condition::SettingsEffective { settings: settings.clone() }];
        let verify = settled.into_iter().chain(verify).collect();
        let pid = self.s.subject.process.value().map_or(0, |p| p.pid);
        let declared = self.s.subject.declared.value().and_then(|d| d.first());
        let state = state(&self.s);
        let unit = declared.map(|d| d.path.rsplit('/').next().unwrap_or_default().to_owned());
        let (title, by) = match (&self.source, declared.map(|d| d.kind)) {
            (Source::Manifest(_), _) => {
                (format!("Wait until kubelet has restarted {}", state.member), RestartedBy::Kubelet)
            }
            (_, Some(DeclaredKind::StaticPod)) => {
                let title = format!("End the process of {}, so that kubelet starts it again", state.member);
                (title, RestartedBy::KubeletAfterEnd { pid })
            }
            _ => {
                let unit = unit.unwrap_or_default();
                (format!("Restart {unit}"), RestartedBy::Systemd { unit })
            }
        };
        Step {
            title,
            why: format!("{} reads its settings when it starts.", self.s.subject.component),
            preconditions: match by {
                RestartedBy::Systemd { .. } | RestartedBy::KubeletAfterEnd { .. }
                    if self.s.subject.is_member() =>
                {
                    vec![Condition::OthersAreQuorum]
                }
                _ => Vec::new(),
            },
            action: Action::Restart { by, settings },
            diff: None,
            verify,
            restarts: true,
        }
    }

    /// Returns the value of a setting that is given, not by default.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        given(self.settings, name)
    }
}

/// What makes the plan of a rollout: an etcd that is a member of a cluster, and what changes it where it is declared.
pub(crate) struct Planner<'a> {
    editor: Editor<'a>,
    pub(crate) members: &'a [Member],
    pub(crate) me: &'a Member,
}

impl<'a> Deref for Planner<'a> {
    type Target = Editor<'a>;

    fn deref(&self) -> &Editor<'a> {
        &self.editor
    }
}

impl<'a> Planner<'a> {
    pub(crate) fn new(rule: &'a str, s: Input<'a>) -> Result<Self, Refusal> {
        let editor = Editor::new(rule, s)?;
        let cluster = s.subject.own.cluster.as_result().map_err(missing)?;
        if cluster.source != MemberSource::Live {
            return Err(missing(format!("the live membership; it was {}", cluster.established)));
        }
        let me = this(s.subject).ok_or_else(|| missing("which member of the membership this etcd is"))?;
        Ok(Self { editor, members: &cluster.members, me })
    }

    /// Returns the plan with these steps.
    pub(crate) fn document(
        &self,
        stage: Stage,
        mut waits_for: Vec<Waiting>,
        steps: Vec<Step>,
        then_waits_for: Vec<Waiting>,
    ) -> Plan {
        let restarts = steps.iter().any(|step| step.restarts);
        // What generates the manifest has to know of the change, or its next run undoes it.
        let kept = restarts && matches!(self.source, Source::Manifest(_));
        for member in self.others().into_iter().filter(|_| restarts) {
            // One turn at a time, also when who had it was killed: its change may be half made.
            if self.s.progress.get(&member.id).is_some_and(|note| note.under_way.is_some()) {
                waits_for.retain(|waiting| waiting.member != called(member));
                waits_for.push(Waiting { member: called(member).to_owned(), until: Until::TurnEnded });
            }
        }
        Plan {
            format: Plan::FORMAT.to_owned(),
            rule: self.rule.to_owned(),
            made_at: self.s.taken_at,
            state: state(&self.s),
            stage,
            rollback_of: None,
            authority: None,
            waits_for,
            by_hand: kept.then(|| kubeadm(self.s.subject, &steps)).into_iter().collect(),
            remarks: Vec::new(),
            steps,
            then_waits_for,
        }
    }

    /// Returns the other members, by name.
    pub(crate) fn others(&self) -> Vec<&'a Member> {
        let mut others: Vec<&Member> = self.members.iter().filter(|m| !m.this).collect();
        others.sort_by_key(|m| called(m));
        others
    }

    /// Returns whether a member has published that it has reached one of these stages of this rule.
    pub(crate) fn reached(&self, member: &Member, stages: &[Stage]) -> bool {
        let note = self.s.progress.get(&member.id).filter(|note| note.rule == self.rule);
        note.and_then(|note| note.reached).is_some_and(|reached| stages.contains(&reached))
    }

    /// Returns the step in which a leader hands over, to one of those that are to come first if it can; `None` when
    /// another member leads.
    pub(crate) fn hand_over(&self, to_first: impl Fn(&Member) -> bool) -> Option<Step> {
        let leads = self.s.health.is_ok_and(|h| h.leader.as_deref() == Some(self.me.id.as_str()));
        let others = self.members.iter().filter(|m| !m.this && !m.learner && !m.id.is_empty());
        let mut to: Vec<&Member> = others.collect();
        to.sort_by_key(|m| !to_first(m));
        (leads && !to.is_empty()).then(|| Step {
            title: "Hand leadership over".to_owned(),
            why: "A leader that restarts costs the cluster an election; one that hands over does not."
                .to_owned(),
            action: Action::MoveLeader { to: to.into_iter().map(|m| m.id.clone()).collect() },
            diff: None,
            preconditions: vec![Condition::ClusterHealthy],
            verify: vec![Condition::AnotherLeads { member_id: self.me.id.clone() }],
            restarts: false,
        })
    }

    /// Returns the step that makes an authority which issues certificates for members only.
    pub(crate) fn create_authority(&self, authority: &AuthorityFiles) -> Step {
        let paths = [authority.certificate.clone(), authority.key.clone()];
        Step {
            title: "Make a certificate authority for the members only".to_owned(),
            why: "Its certificates open no other door, and no other certificate opens this one.".to_owned(),
            action: Action::CreateAuthority {
                certificate: authority.certificate.clone(),
                key: authority.key.clone(),
            },
            diff: None,
            preconditions: paths.iter().map(|p| Condition::Absent { path: p.clone() }).collect(),
            verify: vec![Condition::AuthoritySound {
                certificate: authority.certificate.clone(),
                key: authority.key.clone(),
            }],
            restarts: false,
        }
    }

    /// Returns the step that makes a key and a certificate of this authority for the member.
    pub(crate) fn issue(&self, authority: &AuthorityFiles, files: [String; 2]) -> Result<Step, Refusal> {
        let hosts = self.hosts();
        let why = format!(
            "Its peers dial it at, and see it come from, {}; it serves and dials with the same certificate.",
            hosts.join(", ")
        );
        self.issue_for("certificate", authority, files, hosts, why)
    }

    /// Returns the step that issues a certificate of this kind, which names these hosts.
    pub(crate) fn issue_for(
        &self,
        kind: &str,
        authority: &AuthorityFiles,
        [certificate, key]: [String; 2],
        hosts: Vec<String>,
        why: String,
    ) -> Result<Step, Refusal> {
        let process = self.s.subject.process.as_result().map_err(missing)?;
        Ok(Step {
            title: format!("Issue a {kind} for {}", called(self.me)),
            why,
            action: Action::Issue {
                common_name: called(self.me).to_owned(),
                hosts: hosts.clone(),
                purpose: Purpose::Peer,
                days: self.s.options.days,
                certificate: certificate.clone(),
                key: key.clone(),
                ca_certificate: authority.certificate.clone(),
                ca_key: authority.key.clone(),
                uid: process.uid,
                gid: process.gid,
                replaces: false,
            },
            diff: None,
            preconditions: [&certificate, &key].map(|p| Condition::Absent { path: p.clone() }).to_vec(),
            verify: vec![Condition::CertificateSound {
                certificate,
                key,
                ca_certificate: authority.certificate.clone(),
                hosts,
                purpose: Purpose::Peer,
            }],
            restarts: false,
        })
    }

    /// Returns the first of the names with which no file of these endings is known to be in the folder.
    pub(crate) fn free(&self, directory: &str, stems: &[&str], ends: &[&str]) -> Result<String, Refusal> {
        let taken: BTreeSet<&str> =
            self.s.subject.files.pki.value().into_iter().flatten().map(|f| f.file.path.as_str()).collect();
        let names = |stem: &str| -> Vec<String> {
            ends.iter().map(|end| format!("{directory}/{stem}.{end}")).collect()
        };
        let free = |stem: &&&str| names(stem).iter().all(|path| !taken.contains(path.as_str()));
        stems.iter().find(free).map(|stem| (*stem).to_owned()).ok_or_else(|| {
            let last = stems.last().copied().unwrap_or_default();
            refuse(
                RefusalKind::Unrestorable,
                format!("{} exist already", names(last).join(" and ")),
                "another certificate may be in use, and would be lost",
                "move them away if nothing uses them, and plan again",
            )
        })
    }

    pub(crate) fn urls(&self, name: &str) -> Result<Vec<Url>, Refusal> {
        let value = self.settings.get(name).map(|s| s.value.as_str()).unwrap_or_default();
        let urls = value
            .split(',')
            .map(|text| Url::parse(text).ok_or_else(|| missing(format!("{name} is {value:?}"))));
        urls.collect()
    }

    /// Returns the hosts that the certificate must name: those that peers dial, and the addresses from which they see it
    /// come.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let advertised = self.given("initial-advertise-peer-urls").unwrap_or_default();
        let advertised = advertised.split(',').filter_map(Url::parse);
        let dialled = self.me.peer_urls.iter().cloned().chain(advertised).map(|url| url.host);
        let connections = self.s.subject.own.connections.value();
        let outbound = connections.into_iter().flatten().filter(|c| c.direction == Direction::Outbound);
        let local = outbound.filter_map(|c| {
            let host = c.local.rsplit_once(':')?.0.trim_matches(['[', ']']);
            host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical().to_string())
        });
        let hosts: BTreeSet<String> = dialled.chain(local).filter(|h| !h.is_empty()).collect();
        hosts.into_iter().collect()
    }

    /// Returns the folder on the host that certificate and key go to.
    pub(crate) fn material_directory(&self) -> String {
        material_directory(self.settings, &self.view)
    }

    /// Returns the folder on the host that holds what the first of these settings names that is given; the usual one for
    /// such files when none is.
    pub(crate) fn directory_beside(&self, settings: &[&str]) -> String {
        let other = settings.iter().find_map(|name| self.given(name));
        let beside = other.and_then(|path| self.view.outside(path)).map(|path| directory(&path).to_owned());
        let usual = if self.view.container.is_some() { POD_DIRECTORY } else { UNIT_DIRECTORY };
        beside.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned())
    }

    /// Returns where the process sees a file of the host, and the mount of its folder that it needs for it.
    pub(crate) fn seen_file(&self, path: &str) -> (String, Option<manifest::Mount>) {
        match self.view.inside(path) {
            Some(path) => (path, None),
            None => {
                let (seen, mount) = self.seen(directory(path));
                (format!("{seen}/{}", path.rsplit('/').next().unwrap_or_default()), mount)
            }
        }
    }

    /// Returns where the process sees a folder of the host, and the mount that it needs for it.
    pub(crate) fn seen(&self, directory: &str) -> (String, Option<manifest::Mount>) {
        match self.view.inside(directory) {
            Some(path) => (path, None),
            None => {
                let mount = manifest::Mount {
                    name: format!(
                        "etcd-{}-pki",
                        if self.rule.starts_with("etcd-client-") { "client" } else { "peer" }
                    ),
                    host_path: directory.to_owned(),
                    mount_path: directory.to_owned(),
                    kind: "Directory".to_owned(),
                    read_only: true,
                };
                (directory.to_owned(), Some(mount))
            }
        }
    }

    /// Returns where the process sees these files of the host, and the mounts that it needs for them.
    pub(crate) fn visible<const N: usize>(&self, paths: [&str; N]) -> ([String; N], Vec<manifest::Mount>) {
        let mut mounts: Vec<manifest::Mount> = Vec::new();
        let seen = paths.map(|path| {
            // A file may be mounted by itself.
            if let Some(inside) = self.view.inside(path) {
                return inside;
            }
            let (folder, mount) = self.seen(directory(path));
            let new = mount.filter(|new| mounts.iter().all(|known| known.host_path != new.host_path));
            if let Some(mut new) = new {
                if !mounts.is_empty() {
                    new.name = format!("{}-{}", new.name, mounts.len() + 1);
                }
                mounts.push(new);
            }
            format!("{folder}/{}", path.rsplit('/').next().unwrap_or_default())
        });
        (seen, mounts)
    }
}

/// Returns the folder on the host that certificate and key go to: the one that holds those for clients.
pub(crate) fn material_directory(settings: &BTreeMap<String, Setting>, view: &View) -> String {
    let client = ["cert-file", "trusted-ca-file"].into_iter().find_map(|name| given(settings, name));
    let beside = client.and_then(|path| view.outside(path)).map(|path| directory(&path).to_owned());
    let usual = if view.container.is_some() { POD_DIRECTORY } else { UNIT_DIRECTORY };
    beside.filter(|path| path.starts_with('/')).unwrap_or_else(|| usual.to_owned())
}

/// Returns the exact edit of kubeadm's own records that keeps its next upgrade from undoing what the steps set.
pub(crate) fn kubeadm(subject: &Subject, steps: &[Step]) -> String {
    let settings = steps.iter().filter_map(|step| match &step.action {
        Action::Restart { settings, .. } => Some(settings),
        _ => None,
    });
    // What kubeadm writes into the manifest by itself; URLs are each node's own, and https in its templates.
    let own = |name: &str, value: &str| match name {
        "listen-peer-urls" | "initial-advertise-peer-urls" => true,
        "peer-cert-file" => value == "/etc/kubernetes/pki/etcd/peer.crt",
        "peer-key-file" => value == "/etc/kubernetes/pki/etcd/peer.key",
        "peer-trusted-ca-file" => value == "/etc/kubernetes/pki/etcd/ca.crt",
        "peer-client-cert-auth" => value == "true",
        // The rest of an etcd's settings is not kubeadm's.
        _ => subject.is_member() && value.is_empty(),
    };
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (name, value) in settings.flatten() {
        match own(name, value) {
            true => removed.push(name.as_str()),
            false if value.is_empty() => removed.push(name.as_str()),
            false => set.push(format!("{name} to {value}")),
        }
    }
    let mut edits = Vec::new();
    edits.extend((!set.is_empty()).then(|| format!("set {}", set.join(", "))));
    edits.extend(
        (!removed.is_empty())
            .then(|| format!("remove {}, which kubeadm then sets by itself", removed.join(", "))),
    );
    format!(
        "`kubeadm upgrade` writes this manifest anew. So that it keeps the change, run `kubectl -n kube-system edit \
         configmap kubeadm-config` once, and in its ClusterConfiguration, under {} (names and values; a \
         list of both since v1beta4): {}. Do the same in a directory of patches, if you use one.",
        seaworthy_layouts::named("kubeadm")
            .and_then(|layout| layout.arguments_of(&subject.component))
            .unwrap_or("extraArgs"),
        edits.join("; ")
    )
}

/// Returns a plan that concerns no other member.
pub(crate) fn alone(
    rule: &str,
    input: &Input<'_>,
    stage: Stage,
    steps: Vec<Step>,
    by_hand: Vec<String>,
) -> Plan {
    Plan {
        format: Plan::FORMAT.to_owned(),
        rule: rule.to_owned(),
        made_at: input.taken_at,
        state: state(input),
        stage,
        waits_for: Vec::new(),
        steps,
        then_waits_for: Vec::new(),
        by_hand,
        remarks: Vec::new(),
        rollback_of: None,
        authority: None,
    }
}

/// Returns where a configuration file has the setting that is named as its flag.
pub(crate) fn config_key(name: &str) -> (Option<&'static str>, &str) {
    let key = name.strip_prefix("peer-").unwrap_or(name);
    let section =
        if key.len() < name.len() { "peer-transport-security" } else { "client-transport-security" };
    match key {
        "auto-tls" | "cert-file" | "key-file" | "trusted-ca-file" | "client-cert-auth" => {
            (Some(section), key)
        }
        _ => (None, name),
    }
}

/// Returns the edit of a configuration file that gives a setting, named as its flag, this value.
pub(crate) fn config_edit(name: &str, value: &str) -> config::Edit {
    let (section, key) = config_key(name);
    let value = match (section, value) {
        (Some(_), "true") => config::Value::Boolean(true),
        (_, text) => config::Value::Text(text.to_owned()),
    };
    config::Edit::Set { section: section.map(str::to_owned), key: key.to_owned(), value }
}

/// Returns in words what a variable becomes.
pub(crate) fn variable(name: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("the variable {name}={value}"),
        None => format!("no variable {name}"),
    }
}

pub(crate) fn listed(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}
