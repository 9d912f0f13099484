//! Settings that an API server refuses (`Validate` of the options in `k8s.io/kubernetes/cmd/kube-apiserver/app/options`,
//! `pkg/controlplane/apiserver/options` and `pkg/kubeapiserver/options`, and of `k8s.io/apiserver/pkg/server/options`; read in 1.35.4).

use std::collections::BTreeSet;

use seaworthy_evidence::{ErrorKind, EvidenceError, Observed, PredictedFailure, Setting, Settings};
use seaworthy_settings::Resolved;
use seaworthy_settings::pflag::{parse_duration, parse_int};

use super::{TABLE, examine};

/// The modes of `--authorization-mode` (`pkg/kubeapiserver/authorizer/modes`).
const MODES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// Adds to `resolved` what an API server of this `release` exits for.
pub(super) fn judge(resolved: &mut Resolved, release: Option<&str>) {
    let (Observed::Seen { value: settings, .. }, None) = (&resolved.settings, &resolved.doubt) else {
        return;
    };
    let mut found = Findings { settings, found: Vec::new() };
    found.required();
    found.authorization();
    let unknown = found.admission();
    found.ranges();
    let found = found.found;
    resolved.fatal.extend(found);
    match unknown {
        Some(failure) if TABLE.knows(release) => resolved.fatal.push(failure),
        Some(PredictedFailure { message, origin, .. }) => {
            let message = format!("{message}, in no release of kube-apiserver that is known");
            resolved.doubt = Some(EvidenceError::new(ErrorKind::Unsupported, message).at(origin));
        }
        None => {}
    }
}

struct Findings<'a> {
    settings: &'a Settings,
    found: Vec<PredictedFailure>,
}

impl<'a> Findings<'a> {
    fn set(&self, name: &str) -> Option<&'a Setting> {
        self.settings.get(name).filter(|setting| setting.set)
    }

    fn given(&self, name: &str) -> Option<&'a Setting> {
        self.settings.get(name).filter(|s| !matches!(s.origin, seaworthy_evidence::Origin::Default { .. }))
    }

    fn refuse(&mut self, name: &str, message: impl Into<String>) {
        let Some(setting) = self.settings.get(name) else { return };
        self.found.push(failure(name, message, setting));
    }

    fn required(&mut self) {
        if self.set("etcd-servers").is_none() {
            self.refuse("etcd-servers", "--etcd-servers must be specified");
        }
        if self.set("service-account-issuer").is_none() {
            self.refuse("service-account-issuer", "service-account-issuer is a required flag");
        }
        let endpoint = self.set("service-account-signing-endpoint").is_some();
        let keys = ["service-account-key-file", "service-account-signing-key-file"];
        if endpoint && keys.iter().any(|name| self.set(name).is_some()) {
            let message = "--service-account-signing-endpoint and files with keys exclude each other";
            self.refuse("service-account-signing-endpoint", message);
        }
        for name in keys.into_iter().filter(|_| !endpoint) {
            if self.set(name).is_none() {
                self.refuse(name, format!("--{name} or --service-account-signing-endpoint must be set"));
            }
        }
        let reload = self.settings.get("encryption-provider-config-automatic-reload");
        if reload.is_some_and(|reload| reload.on == Some(true))
            && self.set("encryption-provider-config").is_none()
        {
            let message =
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config";
            self.refuse("encryption-provider-config-automatic-reload", message);
        }
    }

    fn authorization(&mut self) {
        let legacy = ["authorization-mode", "authorization-webhook-config-file"];
        if self.set("authorization-config").is_some() {
            if let Some(name) = legacy.into_iter().find(|name| self.given(name).is_some()) {
                self.refuse(name, "--authorization-config can not be specified with it");
            }
            return;
        }
        let Some(modes) = self.set("authorization-mode") else { return };
        let mut seen = BTreeSet::new();
        for mode in modes.value.split(',') {
            if !MODES.contains(&mode) {
                let mode: String = mode.chars().take(64).collect();
                self.refuse("authorization-mode", format!("{mode:?} is not a valid mode"));
            } else if !seen.insert(mode) {
                self.refuse("authorization-mode", format!("{mode} is specified more than once"));
            }
        }
        let files = [("ABAC", "authorization-policy-file"), ("Webhook", "authorization-webhook-config-file")];
        for (mode, file) in files {
            match (seen.contains(mode), self.set(file).is_some()) {
                (true, false) => {
                    self.refuse("authorization-mode", format!("mode {mode} needs --{file}"));
                }
                (false, true) => self.refuse(file, format!("it needs mode {mode}")),
                _ => {}
            }
        }
    }

    /// Judges the admission plugins, and returns the first of which it depends on the release whether there is one.
    fn admission(&mut self) -> Option<PredictedFailure> {
        let all = ["admission-control", "enable-admission-plugins", "disable-admission-plugins"];
        let list = |name: &str| self.set(name).map(|s| s.value.split(',').collect::<BTreeSet<_>>());
        let [only, on, off] = all.map(list);
        if only.is_some() && (on.is_some() || off.is_some()) {
            let message = "it and enable-admission-plugins or disable-admission-plugins exclude each other";
            self.refuse("admission-control", message);
        }
        if let (Some(on), Some(off)) = (&on, &off)
            && let Some(both) = on.intersection(off).next()
        {
            let both: String = both.chars().take(64).collect();
            self.refuse("disable-admission-plugins", format!("{both:?} is enabled as well"));
        }
        all.iter().zip([only, on, off]).find_map(|(name, list)| {
            let unknown = list?.into_iter().find(|plugin| !examine::is_plugin(plugin))?;
            let unknown: String = unknown.chars().take(64).collect();
            Some(failure(name, format!("plugin {unknown:?} is unknown"), self.set(name)?))
        })
    }

    fn ranges(&mut self) {
        let port = self.settings.get("secure-port").and_then(|port| parse_int(&port.value));
        if port == Some(0) {
            self.refuse("secure-port", "--secure-port cannot be turned off with 0");
        }
        let timeout = self.settings.get("request-timeout").and_then(|s| parse_duration(&s.value));
        if timeout.is_some_and(|seconds| seconds < 0.0) {
            self.refuse("request-timeout", "--request-timeout can not be negative value");
        }
        if self.set("audit-log-path").is_none() {
            return;
        }
        for name in ["audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize"] {
            let number = self.settings.get(name).and_then(|s| parse_int(&s.value));
            if number.is_some_and(|number| number < 0) {
                self.refuse(name, format!("--{name} can't be a negative number"));
            }
        }
    }
}

fn failure(name: &str, message: impl Into<String>, setting: &Setting) -> PredictedFailure {
    PredictedFailure { setting: name.to_owned(), message: message.into(), origin: setting.origin.clone() }
}
