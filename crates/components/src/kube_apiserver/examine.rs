//! What the settings of an API server and the files that they name come to.

use std::collections::BTreeSet;

use seaworthy_evidence::{
    Anonymous, AtRest, Audit, AuditLog, Authorization, ErrorKind, EvidenceError, Instance, KubeApiserver,
    Observed, Origin, Setting, Settings, TokenKey,
};
use seaworthy_settings::ConfigText;
use seaworthy_settings::pflag::{parse_duration, parse_int};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{TABLE, audit_policy};
use crate::configuration::{parse, parse_object};
use crate::{ReadFile, Reads};

/// The API of the files but for the audit policy.
const GROUP: &str = "apiserver.config.k8s.io";

/// Adds to an instance what only API servers have.
pub(super) fn examine(instance: &mut Instance, read: &mut ReadFile<'_>) {
    let none = Settings::default();
    let settings = instance.settings.value().unwrap_or(&none);
    let release = instance.version.value().map(String::as_str);
    let mut facts =
        Facts { settings, unknown: instance.settings.error(), release, read, origin: Origin::derived("") };
    let special = KubeApiserver {
        anonymous: facts.observe(Facts::anonymous),
        authorization: facts.observe(Facts::authorization),
        admission_plugins: facts.observe(Facts::admission),
        event_limits: facts.observe(Facts::event_limits),
        at_rest: facts.observe(Facts::at_rest),
        audit: facts.observe(Facts::audit),
        token_keys: facts.observe(Facts::token_keys),
        request_timeout: facts.observe(Facts::request_timeout),
    };
    instance.kube_apiserver = Some(Box::new(special));
}

struct Facts<'a, 'r> {
    settings: &'a Settings,
    /// Why there are no settings.
    unknown: Option<&'a EvidenceError>,
    release: Option<&'a str>,
    read: &'a mut ReadFile<'r>,
    /// Where the last thing was found that was asked for.
    origin: Origin,
}

impl<'a> Facts<'a, '_> {
    /// Returns what `find` finds, with the place where it was found last.
    fn observe<T>(&mut self, find: impl FnOnce(&mut Self) -> Result<T, EvidenceError>) -> Observed<T> {
        self.origin = Origin::derived("the settings");
        let found = find(self);
        Observed::from_result(found, self.origin.clone())
    }

    fn setting(&mut self, name: &str) -> Result<&'a Setting, EvidenceError> {
        let unknown = || {
            let error = self.unknown.or_else(|| self.settings.why_unknown(name)).cloned();
            let message = format!("{name} is not known");
            error.unwrap_or_else(|| EvidenceError::new(ErrorKind::NotFound, message))
        };
        let setting = self.settings.get(name).ok_or_else(unknown)?;
        self.origin = setting.origin.clone();
        Ok(setting)
    }

    /// Returns a setting that is set.
    fn set(&mut self, name: &str) -> Result<Option<&'a Setting>, EvidenceError> {
        Ok(Some(self.setting(name)?).filter(|setting| setting.set))
    }

    /// Returns the elements of a list. None of those that are judged may have a comma in it, for which alone quotes are needed.
    fn list(&mut self, name: &str) -> Result<Vec<&'a str>, EvidenceError> {
        Ok(self.set(name)?.map_or(Vec::new(), |setting| setting.value.split(',').collect()))
    }

    fn file(&mut self, path: &str, reads: Reads) -> Result<ConfigText, EvidenceError> {
        let text = (self.read)(path, reads)?;
        self.origin = text.origin.clone();
        Ok(text)
    }

    /// Anonymous requests are those of the file, if it says something of them (`BuiltInAuthenticationOptions.ToAuthenticationConfig`), and
    /// else of the flag, which does nothing where every request is allowed (`ApplyAuthorization`).
    fn anonymous(&mut self) -> Result<Anonymous, EvidenceError> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            anonymous: Option<InFile>,
        }
        #[derive(Deserialize)]
        struct InFile {
            #[serde(default)]
            enabled: Option<bool>,
            #[serde(default)]
            conditions: Option<Vec<Condition>>,
        }
        #[derive(Deserialize)]
        struct Condition {
            path: String,
        }
        if let Some(config) = self.set("authentication-config")? {
            let path = &config.value;
            let text = self.file(path, Reads::Again)?;
            let file: File = parse_object(path, &text, "AuthenticationConfiguration", GROUP)?;
            if let Some(InFile { enabled, conditions }) = file.anonymous {
                let conditions = conditions.filter(|conditions| !conditions.is_empty());
                return Ok(Anonymous {
                    enabled: enabled.unwrap_or_default(),
                    paths: conditions.map(|all| all.into_iter().map(|one| one.path).collect()),
                    why: format!("set in {path}"),
                });
            }
        }
        let modes = self.list("authorization-mode")?;
        let by_file = self.set("authorization-config")?.is_some();
        let flag = self.setting("anonymous-auth")?;
        let allowed = modes.contains(&"AlwaysAllow") || modes.is_empty() && !by_file;
        if allowed && flag.on == Some(true) {
            let why = "switched off, because AlwaysAllow is among the authorization modes".to_owned();
            return Ok(Anonymous { enabled: false, paths: None, why });
        }
        let malformed =
            || EvidenceError::new(ErrorKind::Malformed, "anonymous-auth is neither true nor false");
        Ok(Anonymous { enabled: flag.on.ok_or_else(malformed)?, paths: None, why: flag.why.clone() })
    }

    /// The file takes the place of the flag, and without both everything is allowed (`BuiltInAuthorizationOptions`).
    fn authorization(&mut self) -> Result<Authorization, EvidenceError> {
        #[derive(Deserialize)]
        struct File {
            authorizers: Vec<Authorizer>,
        }
        #[derive(Deserialize)]
        struct Authorizer {
            #[serde(rename = "type")]
            kind: String,
        }
        if let Some(config) = self.set("authorization-config")? {
            let path = &config.value;
            let text = self.file(path, Reads::Again)?;
            let file: File = parse_object(path, &text, "AuthorizationConfiguration", GROUP)?;
            let modes = file.authorizers.into_iter().map(|one| one.kind).collect();
            return Ok(Authorization { modes, file: Some(path.clone()), why: format!("set in {path}") });
        }
        let modes: Vec<String> = self.list("authorization-mode")?.into_iter().map(str::to_owned).collect();
        let why = self.setting("authorization-mode")?.why.clone();
        Ok(match modes.is_empty() {
            true => Authorization {
                modes: vec!["AlwaysAllow".to_owned()],
                file: None,
                why: format!("{why}; by default every request is allowed"),
            },
            false => Authorization { modes, file: None, why },
        })
    }

    /// On are those that are by default, without the disabled and with the enabled ones (`AdmissionOptions.enabledPluginNames`); the
    /// deprecated flag names all that are on.
    fn admission(&mut self) -> Result<Vec<String>, EvidenceError> {
        let only = self.list("admission-control")?;
        let [on, off] = [self.list("enable-admission-plugins")?, self.list("disable-admission-plugins")?];
        if !only.is_empty() {
            return Ok(only.into_iter().map(str::to_owned).collect());
        }
        let default = ON.iter().filter(|plugin| plugin.is_in(self.release)).map(|plugin| plugin.name);
        let all: BTreeSet<&str> =
            default.filter(|name| !off.contains(name)).chain(on.iter().copied()).collect();
        self.origin = self.setting("enable-admission-plugins")?.origin.clone();
        Ok(all.into_iter().map(str::to_owned).collect())
    }

    /// The configuration of a plugin is in the file of all, or in one of its own that this names.
    fn event_limits(&mut self) -> Result<Vec<String>, EvidenceError> {
        const KIND: &str = "AdmissionConfiguration";
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            plugins: Option<Vec<Plugin>>,
        }
        #[derive(Deserialize)]
        struct Plugin {
            name: String,
            #[serde(default)]
            path: Option<String>,
            #[serde(default)]
            configuration: Option<Limits>,
        }
        #[derive(Deserialize)]
        struct Limits {
            #[serde(default)]
            limits: Option<Vec<Limit>>,
        }
        #[derive(Deserialize)]
        struct Limit {
            #[serde(rename = "type")]
            kind: String,
            qps: i64,
            burst: i64,
        }
        const NAME: &str = "EventRateLimit";
        let Some(config) = self.set("admission-control-config-file")? else { return Ok(Vec::new()) };
        let path = &config.value;
        let text = self.file(path, Reads::Once)?;
        let file: File = parse_object(path, &text, KIND, GROUP)?;
        let plugin = file.plugins.unwrap_or_default().into_iter().find(|plugin| plugin.name == NAME);
        let limits = match plugin {
            Some(Plugin { configuration: Some(limits), .. }) => limits.limits,
            Some(Plugin { path: Some(own), .. }) if !own.is_empty() => {
                let own = match path.rsplit_once('/') {
                    Some((folder, _)) if !own.starts_with('/') => format!("{folder}/{own}"),
                    _ => own,
                };
                let text = self.file(&own, Reads::Once)?;
                parse::<Limits>(&own, &text, "configuration of EventRateLimit")?.limits
            }
            _ => None,
        };
        let shown = |limit: Limit| format!("{} {}/s, burst {}", limit.kind, limit.qps, limit.burst);
        Ok(limits.unwrap_or_default().into_iter().map(shown).collect())
    }

    /// The first entry that names a resource, or all of its group, or all, decides
    /// (`encryptionconfig.getTransformerOverridesAndKMSPluginProbes`, `transformerFromOverrides`).
    fn at_rest(&mut self) -> Result<Vec<AtRest>, EvidenceError> {
        const KIND: &str = "EncryptionConfiguration";
        #[derive(Deserialize)]
        struct File {
            resources: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            resources: Vec<String>,
            providers: Vec<Provider>,
        }
        #[derive(Deserialize)]
        struct Provider {
            #[serde(default)]
            aesgcm: Option<IgnoredAny>,
            #[serde(default)]
            aescbc: Option<IgnoredAny>,
            #[serde(default)]
            secretbox: Option<IgnoredAny>,
            #[serde(default)]
            kms: Option<Kms>,
            #[serde(default)]
            identity: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kms {
            #[serde(default)]
            api_version: Option<String>,
        }
        impl Provider {
            fn name(&self) -> Option<&'static str> {
                Some(match self {
                    Self { aesgcm: Some(_), .. } => "aesgcm",
                    Self { aescbc: Some(_), .. } => "aescbc",
                    Self { secretbox: Some(_), .. } => "secretbox",
                    Self { kms: Some(kms), .. } if kms.api_version.as_deref() == Some("v2") => "kms v2",
                    Self { kms: Some(_), .. } => "kms v1",
                    Self { identity: Some(_), .. } => "identity",
                    _ => return None,
                })
            }
        }
        const SECRETS: &str = "secrets";
        let config = self.set("encryption-provider-config")?;
        let reload = self.setting("encryption-provider-config-automatic-reload")?.on == Some(true);
        let Some(config) = config else {
            self.origin = self.setting("encryption-provider-config")?.origin.clone();
            return Ok(vec![AtRest {
                resource: SECRETS.to_owned(),
                by: None,
                providers: vec!["identity".to_owned()],
            }]);
        };
        let path = &config.value;
        let text = self.file(path, if reload { Reads::Again } else { Reads::Once })?;
        let file: File = parse_object(path, &text, KIND, GROUP)?;
        let mut entries: Vec<(String, Vec<String>)> = Vec::new();
        for entry in &file.resources {
            let providers: Option<Vec<String>> =
                entry.providers.iter().map(|provider| Some(provider.name()?.to_owned())).collect();
            let providers = providers.filter(|providers| !providers.is_empty()).ok_or_else(|| {
                let message = format!("{path} names a provider that is none");
                EvidenceError::new(ErrorKind::Malformed, message).at(text.origin.clone())
            })?;
            for resource in &entry.resources {
                match entries.iter_mut().find(|(known, _)| known == resource) {
                    Some((_, known)) => known.extend(providers.iter().cloned()),
                    None => entries.push((resource.clone(), providers.clone())),
                }
            }
        }
        let of = |resource: &str| {
            let by = entries.iter().find(|(entry, _)| covers(entry, resource));
            AtRest {
                resource: resource.to_owned(),
                by: by.map(|(entry, _)| entry.clone()),
                providers: by.map_or_else(|| vec!["identity".to_owned()], |(_, providers)| providers.clone()),
            }
        };
        let others = entries.iter().map(|(resource, _)| resource.as_str()).filter(|name| *name != SECRETS);
        Ok([SECRETS].into_iter().chain(others).map(of).collect())
    }

    fn audit(&mut self) -> Result<Audit, EvidenceError> {
        let webhook = self.set("audit-webhook-config-file")?.is_some();
        let number = |this: &mut Self, name: &str| {
            let number = this.setting(name).and_then(|setting| {
                let number = parse_int(&setting.value).and_then(|number| i64::try_from(number).ok());
                number.ok_or_else(|| EvidenceError::new(ErrorKind::Malformed, format!("{name} is no number")))
            });
            Observed::from_result(number, this.origin.clone())
        };
        let path = self.set("audit-log-path")?;
        let log = path.map(|path| AuditLog {
            path: path.value.clone(),
            days: number(self, "audit-log-maxage"),
            files: number(self, "audit-log-maxbackup"),
            megabytes: number(self, "audit-log-maxsize"),
        });
        let policy = self.set("audit-policy-file")?.map(|policy| {
            let path = &policy.value;
            let origin = policy.origin.clone();
            let levels = self.file(path, Reads::Once).and_then(|text| audit_policy::levels(path, &text));
            Observed::from_result(levels, origin)
        });
        let _ = self.setting("audit-log-path")?;
        Ok(Audit { log, webhook, policy })
    }

    fn token_keys(&mut self) -> Result<Vec<TokenKey>, EvidenceError> {
        let serving = [self.set("tls-cert-file")?, self.set("tls-private-key-file")?];
        let paths = self.list("service-account-key-file")?;
        let key = |path: &str| {
            let text = (self.read)(path, Reads::Again);
            let origin = text.as_ref().map_or_else(|_| Origin::file(path), |text| text.origin.clone());
            let holds = match text {
                Ok(text) => Ok(holds(&text.bytes)),
                Err(error) if error.kind == ErrorKind::NotFound => Ok("nothing"),
                Err(error) => Err(error),
            };
            TokenKey {
                path: path.to_owned(),
                holds: Observed::from_result(holds.map(str::to_owned), origin),
                serves: serving.iter().flatten().any(|setting| setting.value == path),
            }
        };
        Ok(paths.into_iter().map(key).collect())
    }

    fn request_timeout(&mut self) -> Result<f64, EvidenceError> {
        let timeout = self.setting("request-timeout")?;
        parse_duration(&timeout.value)
            .ok_or_else(|| EvidenceError::new(ErrorKind::Malformed, "request-timeout is no time"))
    }
}

/// Returns whether an `entry` of an encryption configuration is about a `resource`.
fn covers(entry: &str, resource: &str) -> bool {
    let parts = |text: &str| {
        let (name, group) = text.split_once('.').unwrap_or((text, ""));
        (name.to_owned(), group.to_owned())
    };
    let ((entry, of), (resource, group)) = (parts(entry), parts(resource));
    (entry == "*" && of == "*") || of == group && (entry == "*" || entry == resource)
}

/// Returns what a file of keys holds, by its first header that `keyutil.PublicKeysFromFile` takes.
fn holds(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    let mut headers = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN "));
    headers
        .find_map(|header| match header.trim_end_matches('-') {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Some("public key"),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Some("private key"),
            "CERTIFICATE" => Some("certificate"),
            _ => None,
        })
        .unwrap_or("nothing")
}

/// An admission plugin that not every release has.
struct Plugin {
    name: &'static str,
    /// The first line that has it, and the first that has it no more.
    lines: Option<((u32, u32), (u32, u32))>,
}

impl Plugin {
    /// Returns whether `release` has it; where the release is not known, whether all have.
    fn is_in(&self, release: Option<&str>) -> bool {
        let Some((since, until)) = self.lines else { return true };
        TABLE.knows(release) && !TABLE.is_before(release, since) && TABLE.is_before(release, until)
    }
}

const fn on(name: &'static str) -> Plugin {
    Plugin { name, lines: None }
}

/// A line that there is not.
const NEVER: (u32, u32) = (u32::MAX, 0);

/// The plugins that are on by default (`DefaultOffAdmissionPlugins` in `pkg/kubeapiserver/options/plugins.go`, of 1.34.4 to 1.37.2).
const ON: &[Plugin] = &[
    on("CertificateApproval"),
    on("CertificateSigning"),
    on("CertificateSubjectRestriction"),
    on("ClusterTrustBundleAttest"),
    on("DefaultIngressClass"),
    on("DefaultStorageClass"),
    on("DefaultTolerationSeconds"),
    Plugin { name: "JobValidation", lines: Some(((1, 36), (1, 37))) },
    on("LimitRanger"),
    on("MutatingAdmissionPolicy"),
    on("MutatingAdmissionWebhook"),
    on("NamespaceLifecycle"),
    Plugin { name: "NodeDeclaredFeatureValidator", lines: Some(((1, 35), NEVER)) },
    on("PersistentVolumeClaimResize"),
    Plugin { name: "PodGroupProtection", lines: Some(((1, 36), NEVER)) },
    Plugin { name: "PodGroupWorkloadExists", lines: Some(((1, 36), (1, 37))) },
    Plugin { name: "PodResizeValidator", lines: Some(((1, 36), NEVER)) },
    on("PodSecurity"),
    on("PodTopologyLabels"),
    on("Priority"),
    on("ResourceQuota"),
    on("RuntimeClass"),
    on("ServiceAccount"),
    on("StorageObjectInUseProtection"),
    on("TaintNodesByCondition"),
    on("ValidatingAdmissionPolicy"),
    on("ValidatingAdmissionWebhook"),
];

/// The others (`AllOrderedPlugins`).
const OFF: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
    "PodTolerationRestriction",
];

/// Returns whether any release that is known has an admission plugin of this name.
pub(super) fn is_plugin(name: &str) -> bool {
    OFF.contains(&name) || ON.iter().any(|plugin| plugin.name == name)
}
