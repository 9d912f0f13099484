//! One instance of a component that is like the others: read, asked, and put together by what the component says of itself.

use jiff::Timestamp;
use seaworthy_components::Reads;
use seaworthy_evidence::{
    ErrorKind, EvidenceError, Instance, KeyMaterial, Listener, Observed, Origin, Process, Purpose, Setting,
    Settings, Url,
};
use seaworthy_host::sockets::Sockets;
use seaworthy_pki::Side;
use seaworthy_settings::{ConfigText, Resolved};

use super::attribution::Attributions;
use super::declarations::Declarations;
use super::listeners::{self, Answers};
use super::material::{Circumstances, Files, Names, Reader};
use super::processes::{Found, Running};
use super::{Kind, Survey, drift, files};

/// One process with what was read of it on the node.
pub(crate) struct Reading<'a> {
    kind: Kind,
    pub(crate) running: &'a Running,
    pub(crate) sockets: Result<Sockets, EvidenceError>,
    version: Observed<String>,
    resolved: Resolved,
}

impl<'a> Reading<'a> {
    /// Reads the settings and sockets of one process.
    pub(crate) fn read(found: &Found, kind: Kind, running: &'a Running) -> Self {
        let version = match running.built_release() {
            Some((release, origin)) => Observed::seen(release, origin),
            None => {
                let message = "its executable does not tell its release";
                Observed::failed(EvidenceError::new(ErrorKind::NotFound, message))
            }
        };
        let (resolved, sockets) = (running.resolved(kind).clone(), found.sockets(running));
        Self { kind, running, sockets, version, resolved }
    }

    /// Returns the instance as evidence, joined with what its listeners said.
    pub(crate) fn finish(
        mut self,
        survey: &Survey<'_>,
        declarations: &Declarations,
        attributions: &Attributions<'_>,
        answers: &Answers,
    ) -> Instance {
        let (component, program) = (self.kind.component, self.kind.program);
        let pid = self.running.pid();
        let process = self.running.evidence(survey);
        let unread = self.unread(&process, survey.options.now);
        if let (Some(error), Observed::Seen { value, .. }) = (&unread, &mut self.resolved.settings) {
            doubt_file(value, error);
        }
        let settings = &self.resolved.settings;
        let known = settings.value();
        let declaration = attributions.of(pid, settings.as_result());
        let reader = Reader::as_process(self.running, survey.users);
        let listeners = self.listeners(survey, answers);
        let credentials = self.credentials(survey, &reader, known);
        let mut files = files::read(
            survey,
            self.kind,
            &reader,
            settings.as_result(),
            |_| None,
            attributions.manifest(pid, &declaration),
            |manifest| declarations.rivals(manifest),
        );
        files::add_drop_ins(survey, &reader, &mut files.config, &self.resolved.drop_ins);
        files.unit = files::of_unit(survey, declarations.unit_files(&declaration));
        let who = format!("pid {pid}");
        let drifts = match (&declaration, known) {
            (Ok(Some(declared)), Some(running)) => drift::settings(declared, running, &who),
            _ => Vec::new(),
        };
        // What was not compared may have drifted, too.
        let declared = declaration.as_ref().map(|d| d.as_ref().and_then(|d| d.settings.error()));
        let uncompared = settings.error().or_else(|| declared.unwrap_or_else(Some)).or(unread.as_ref());
        let drift = match uncompared {
            Some(error) if drifts.is_empty() => Observed::failed(error.clone()),
            _ => Observed::seen(drifts, Origin::derived("the declaration and the process")),
        };
        let mut instance = Instance {
            id: format!("{} (pid {pid})", component.name),
            component: component.name.to_owned(),
            process,
            version: self.version.clone(),
            config_file: self.resolved.config_file.clone(),
            ignored_environment: self.resolved.ignored_environment.clone(),
            declared: Observed::from_result(
                declaration.map(|declared| {
                    let judge = |declared| files::unusable(program, &reader, declared, known);
                    declared.into_iter().map(judge).collect()
                }),
                Origin::derived("static pod manifests and systemd units"),
            ),
            drift,
            listeners,
            credentials,
            files,
            settings: settings.clone(),
            etcd: None,
            etcd_proxy: None,
            kube_apiserver: None,
        };
        if let Some(examine) = program.special {
            let process = instance.process.clone();
            examine(&mut instance, &mut |path, reads| self.file(path, reads, &process, survey.options.now));
        }
        instance
    }

    /// Returns a file that a setting names as the process has it.
    fn file(
        &self,
        path: &str,
        reads: Reads,
        process: &Observed<Process>,
        now: Timestamp,
    ) -> Result<ConfigText, EvidenceError> {
        let text = self.running.config(path)?;
        if reads == Reads::Once {
            let component = self.kind.component.name;
            drift::replaced(component, path, text.changed_at, process.as_result()?, now)
                .map_or(Ok(()), Err)?;
        }
        Ok(text)
    }

    /// Returns why it is not known whether the process has what is in its configuration file now.
    fn unread(&self, process: &Observed<Process>, now: Timestamp) -> Option<EvidenceError> {
        match self.resolved.config_file.as_ref()? {
            Observed::Failed { error, .. } => Some(error.clone()),
            Observed::Seen { value, .. } => drift::replaced(
                self.kind.component.name,
                &value.path,
                value.changed_at,
                process.value()?,
                now,
            ),
        }
    }

    /// Returns the listeners: those of the settings, joined with the sockets there are.
    fn listeners(&self, survey: &Survey<'_>, answers: &Answers) -> Observed<Vec<Listener>> {
        let all = || -> Result<Vec<Listener>, EvidenceError> {
            let settings = self.resolved.settings.as_result()?;
            let sockets = self.sockets.as_ref().map_err(Clone::clone)?;
            let urls: Vec<(Url, Origin, Purpose)> = (self.kind.program.listens)(settings)
                .into_iter()
                .map(|(url, origin)| (url, origin, Purpose::Client))
                .collect();
            Ok(listeners::all(survey, self.running, &urls, sockets, answers))
        };
        Observed::from_result(all(), self.running.entry.origin("net/tcp"))
    }

    /// Returns the key material that the settings name, and what is wrong with it.
    fn credentials(
        &self,
        survey: &Survey<'_>,
        reader: &Reader<'_>,
        settings: Option<&Settings>,
    ) -> Vec<KeyMaterial> {
        let of = |names: &seaworthy_components::KeyFiles| {
            let (purpose, all) = (names.purpose, [names.certificate, names.key, names.trusted]);
            let settings = match settings {
                Some(settings) => match settings.doubt_about(all) {
                    Some(error) => Err(error.clone()),
                    None => Ok(settings),
                },
                None => Err(self.resolved.settings.error().cloned().unwrap_or_else(|| {
                    EvidenceError::new(ErrorKind::NotFound, "the settings are not known")
                })),
            };
            let settings = match settings {
                Ok(settings) => settings,
                Err(error) => return unknown(purpose, &error),
            };
            let names = Names::of(names);
            let files = Files::read(survey, reader, settings, &names);
            let side = match purpose {
                Purpose::Aggregation => Side::Outgoing("extension API servers"),
                Purpose::Etcd => Side::Outgoing("etcd's members"),
                Purpose::Kubelet => Side::Outgoing("kubelets"),
                Purpose::Client | Purpose::Metrics | Purpose::Peer => Side::Client,
            };
            let circumstances = Circumstances {
                dialled: &[],
                dials_from: &[],
                client_auth: side != Side::Client,
                checks_client_names: false,
                restriction: None,
                user: seaworthy_pki::User::Kubernetes(self.kind.component.name),
            };
            KeyMaterial {
                purpose,
                problems: files.problems(survey, side, circumstances),
                files: Observed::seen(
                    files.credentials(),
                    Origin::derived(format!("the settings {}", all.join(", "))),
                ),
            }
        };
        self.kind.program.credentials.iter().map(of).collect()
    }
}

/// Returns the key material for one purpose of which nothing is known.
pub(crate) fn unknown(purpose: Purpose, error: &EvidenceError) -> KeyMaterial {
    KeyMaterial { purpose, files: Observed::failed(error.clone()), problems: Observed::failed(error.clone()) }
}

/// Takes back what is known of the settings that come from the configuration file, because of `error`.
fn doubt_file(settings: &mut Settings, error: &EvidenceError) {
    let of_file = |setting: &Setting| matches!(setting.origin, Origin::File { pid: Some(_), .. });
    let names = settings.iter().filter(|(_, setting)| of_file(setting)).map(|(name, _)| name.clone());
    for name in names.collect::<Vec<_>>() {
        settings.doubt(&name, error.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_components::kube_apiserver;
    use seaworthy_evidence::{ErrorKind, Instance};

    /// Returns what is known of an API server that runs as this process, and whose encryption configuration was written just now.
    fn api_server(reloads: bool) -> Instance {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("enc.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                    resources: [{resources: [secrets], providers: [{secretbox: {keys: []}}]}]\n";
        // The time of a file is exact only to a tick of the clock.
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::fs::write(&config, text).unwrap();
        let running = Running::ourselves(&[
            "kube-apiserver",
            &format!("--encryption-provider-config={}", config.display()),
            &format!("--encryption-provider-config-automatic-reload={reloads}"),
        ]);
        let options = super::super::Options {
            root: "/".into(),
            wire: false,
            observe: None,
            timeout: std::time::Duration::ZERO,
            layout: None,
            patience: std::time::Duration::ZERO,
            now: Timestamp::now(),
        };
        let root = seaworthy_host::root::Root::host("/").unwrap();
        let users = seaworthy_host::users::Users::default();
        let survey = Survey { options: &options, root: &root, users: &users };
        let kind = Kind { component: &kube_apiserver::COMPONENT, program: &kube_apiserver::PROGRAM };
        let mut unreadable = Vec::new();
        let manifests = std::sync::Arc::new(super::super::Supervisors::find(&survey, None, &mut unreadable));
        let declarations = Declarations::find(&survey, kind, &manifests, &[], &mut unreadable);
        let attributions = Attributions::find(&root, &declarations, &[], &mut unreadable);
        let reading = Reading::read(&Found::default(), kind, &running);
        reading.finish(&survey, &declarations, &attributions, &Answers::default())
    }

    #[test]
    fn a_file_that_is_read_once_and_was_changed_since_the_start_is_not_known() {
        let at_rest = |reloads| api_server(reloads).kube_apiserver.unwrap().at_rest;
        assert_eq!(at_rest(true).value().unwrap()[0].providers, ["secretbox"]);
        let error = at_rest(false).error().cloned().unwrap();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.contains("was changed or replaced"), "{error}");
    }
}
