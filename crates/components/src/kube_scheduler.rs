//! kube-scheduler: pflag, and a configuration file that replaces the flags which it made obsolete.

use std::fmt;

use seaworthy_evidence::{
    Candidate, ConfigFile, ConfigFormat, ErrorKind, EvidenceError, Observed, Origin, PredictedFailure,
    Setting, Settings,
};
use seaworthy_settings::pflag::{self, Flag, Gate, Table, Takes};
use seaworthy_settings::{ConfigText, Given, Resolved};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::configuration::{self, at, first_document, malformed, options, utf8};
use crate::{Component, Program, serving};

/// Schedulers.
pub static COMPONENT: Component = Component {
    name: "kube-scheduler",
    of_control_plane: true,
    special: None,
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of schedulers.
pub static PROGRAM: Program = Program {
    package: Some("k8s.io/kubernetes/cmd/kube-scheduler"),
    is_called: |name| name == COMPONENT.name,
    is_other: |arguments| pflag::prints_and_exits(&TABLE, arguments),
    unit: "kube-scheduler.service",
    variable: None,
    config: Some("config"),
    files: &[
        "authentication-kubeconfig",
        "authorization-kubeconfig",
        "client-ca-file",
        "kubeconfig",
        "requestheader-client-ca-file",
        "tls-cert-file",
        "tls-private-key-file",
    ],
    kubeconfigs: serving::KUBECONFIGS,
    folder: None,
    data: &[],
    resolve,
    listens: serving::listens,
    credentials: serving::CREDENTIALS,
    special: None,
};

/// The settings that a snapshot keeps.
const SETTINGS: &[&str] = &[
    "authentication-kubeconfig",
    "authentication-skip-lookup",
    "authorization-always-allow-paths",
    "authorization-kubeconfig",
    "bind-address",
    "cert-dir",
    "client-ca-file",
    "config",
    "contention-profiling",
    "kubeconfig",
    "leader-elect",
    "profiling",
    "requestheader-client-ca-file",
    "secure-port",
    "tls-cert-file",
    "tls-cipher-suites",
    "tls-min-version",
    "tls-private-key-file",
];

/// The flags of all releases.
static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/kube_scheduler.rs"));

/// The flags that a configuration file replaces (`Options.ApplyDeprecated`), each with the value that the file gives it.
const REPLACED: [&str; 3] = ["contention-profiling", "kubeconfig", "profiling"];

/// The part of a KubeSchedulerConfiguration that settings are kept of.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    api_version: Option<Spanned<String>>,
    #[serde(default)]
    kind: Option<Spanned<String>>,
    #[serde(default)]
    enable_profiling: Option<Spanned<bool>>,
    #[serde(default)]
    enable_contention_profiling: Option<Spanned<bool>>,
    #[serde(default)]
    client_connection: Option<ClientConnection>,
}

#[derive(Deserialize)]
struct ClientConnection {
    #[serde(default)]
    kubeconfig: Option<Spanned<String>>,
}

fn resolve(mut given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    read_file(&mut given, &mut resolved);
    serving::missing(&mut given, &mut resolved, serving::NEEDED);
    resolved
}

/// Puts into `resolved` what the configuration file says, and what an instance would exit for in it.
fn read_file(given: &mut Given<'_>, resolved: &mut Resolved) {
    let Observed::Seen { value: settings, .. } = &mut resolved.settings else { return };
    let Some(config) = settings.get("config").filter(|config| config.set) else { return };
    let (path, named) = (config.value.clone(), config.origin.clone());
    let text = (given.read)(&path);
    if !given.runs && resolved.doubt.is_none() {
        let refused = match &text {
            Ok(text) => refused(&path, text, given.release),
            Err(error) if error.kind == ErrorKind::NotFound => {
                Ok(Some((format!("open {path}: no such file or directory"), named)))
            }
            Err(error) => Err(error.clone()),
        };
        match refused {
            Ok(None) => {}
            Ok(Some((message, origin))) => {
                resolved.fatal.push(PredictedFailure { setting: "config".to_owned(), message, origin });
            }
            Err(error) => resolved.doubt = Some(error),
        }
    }
    match text.and_then(|text| Ok((parsed(&path, &text)?, text))) {
        Ok((file, text)) => {
            replace(settings, &path, &file, &text.origin);
            let file = ConfigFile {
                path,
                format: ConfigFormat::Yaml,
                changed_at: text.changed_at,
                ignored: Vec::new(),
            };
            resolved.config_file = Some(Observed::seen(file, text.origin));
        }
        Err(error) => {
            REPLACED.iter().for_each(|name| settings.doubt(name, error.clone()));
            resolved.config_file = Some(Observed::failed(error));
        }
    }
}

/// The only version that releases take from 1.29 on, and one that those before may take.
const VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
const OLD_VERSION: &str = "kubescheduler.config.k8s.io/v1beta";

/// Returns why an instance of a `release` exits with this configuration file, and where. The file is decoded strictly
/// (`serializer.EnableStrict`); what is wrong with a value is not looked at.
///
/// # Errors
///
/// When it could not be read, or what is taken depends on the release, which is not known.
fn refused(
    path: &str,
    text: &ConfigText,
    release: Option<&str>,
) -> Result<Option<(String, Origin)>, EvidenceError> {
    let at = |line: u64| at(&text.origin, line);
    let unknown =
        |message: String, line: u64| EvidenceError::new(ErrorKind::Unsupported, message).at(at(line));
    let content = first_document(utf8(path, text)?);
    if let Err(error) = serde_saphyr::with_deserializer_from_str_with_options(content, options(), |file| {
        FILE.deserialize(file)
    }) {
        let line = error.location().map_or(1, |location| location.line());
        return match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { .. } => {
                Ok(Some((format!("{path}:{line}: a key is there twice"), at(line))))
            }
            serde_saphyr::Error::SerdeUnknownField { .. } => {
                let message = format!("{path}:{line}: unknown field");
                match TABLE.knows(release) {
                    true => Ok(Some((message, at(line)))),
                    false => Err(unknown(format!("{message}, in no release that is known"), line)),
                }
            }
            _ => Err(malformed(path, text, KIND, line)),
        };
    }
    let File { api_version, kind, .. } = parsed(path, text)?;
    let Some(kind) = kind else { return Ok(Some((format!("{path}: kind is missing"), at(1)))) };
    let Some(version) = api_version else {
        return Ok(Some((format!("{path}: apiVersion is missing"), at(1))));
    };
    let line = version.referenced.line();
    Ok(match version.value.as_str() {
        _ if kind.value != KIND => {
            let line = kind.referenced.line();
            Some((format!("{path}:{line}: kind is not {KIND}"), at(line)))
        }
        VERSION => None,
        old if old.starts_with(OLD_VERSION) && !TABLE.knows(release) => {
            let message = format!("{path}:{line}: whether this apiVersion is taken depends on the release");
            return Err(unknown(message, line));
        }
        old if old.starts_with(OLD_VERSION) && TABLE.is_before(release, (1, 29)) => None,
        _ => Some((format!("{path}:{line}: apiVersion is not {VERSION}"), at(line))),
    })
}

/// What a part of the configuration file may have in it.
#[derive(Clone, Copy)]
enum Shape {
    /// Whatever it is.
    Any,
    /// These fields.
    Fields(&'static [(&'static str, Self)]),
    /// A list.
    List(&'static Self),
}

use Shape::{Any, Fields, List};

const PLUGINS: Shape = List(&Fields(&[("name", Any), ("weight", Any)]));
const SET: Shape = Fields(&[("disabled", PLUGINS), ("enabled", PLUGINS)]);
const PROFILE: Shape = Fields(&[
    ("percentageOfNodesToScore", Any),
    // The arguments of a plugin are decoded strictly, too, each kind by its own fields.
    ("pluginConfig", List(&Fields(&[("args", Any), ("name", Any)]))),
    (
        "plugins",
        Fields(&[
            ("bind", SET),
            ("filter", SET),
            ("multiPoint", SET),
            ("permit", SET),
            // Those of placements are there from 1.36 on, and that of groups from 1.37 on.
            ("placementGenerate", SET),
            ("placementScore", SET),
            ("podGroupPostFilter", SET),
            ("postBind", SET),
            ("postFilter", SET),
            ("preBind", SET),
            ("preEnqueue", SET),
            ("preFilter", SET),
            ("preScore", SET),
            ("queueSort", SET),
            ("reserve", SET),
            ("score", SET),
        ]),
    ),
    ("schedulerName", Any),
]);
const EXTENDER: Shape = Fields(&[
    ("bindVerb", Any),
    ("enableHTTPS", Any),
    ("filterVerb", Any),
    ("httpTimeout", Any),
    ("ignorable", Any),
    ("managedResources", List(&Fields(&[("ignoredByScheduler", Any), ("name", Any)]))),
    ("nodeCacheCapable", Any),
    ("preemptVerb", Any),
    ("prioritizeVerb", Any),
    (
        "tlsConfig",
        Fields(&[
            ("caData", Any),
            ("caFile", Any),
            ("certData", Any),
            ("certFile", Any),
            ("insecure", Any),
            ("keyData", Any),
            ("keyFile", Any),
            ("serverName", Any),
        ]),
    ),
    ("urlPrefix", Any),
    ("weight", Any),
]);

/// The fields of a KubeSchedulerConfiguration (`k8s.io/kube-scheduler/config/v1`, `k8s.io/component-base/config/v1alpha1`), of 1.35.4 and
/// 1.36.3 together: one that only one of them has loses a prediction for the other.
const FILE: Shape = Fields(&[
    ("apiVersion", Any),
    (
        "clientConnection",
        Fields(&[
            ("acceptContentTypes", Any),
            ("burst", Any),
            ("contentType", Any),
            ("kubeconfig", Any),
            ("qps", Any),
        ]),
    ),
    ("delayCacheUntilActive", Any),
    ("enableContentionProfiling", Any),
    ("enableProfiling", Any),
    ("extenders", List(&EXTENDER)),
    ("kind", Any),
    (
        "leaderElection",
        Fields(&[
            ("leaderElect", Any),
            ("leaseDuration", Any),
            ("renewDeadline", Any),
            ("resourceLock", Any),
            ("resourceName", Any),
            ("resourceNamespace", Any),
            ("retryPeriod", Any),
        ]),
    ),
    ("parallelism", Any),
    ("percentageOfNodesToScore", Any),
    ("podInitialBackoffSeconds", Any),
    ("podMaxBackoffSeconds", Any),
    ("profiles", List(&PROFILE)),
]);

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Any => IgnoredAny::deserialize(deserializer).map(drop),
            Fields(_) | List(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another kind of value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Fields(fields) = self else { return Err(A::Error::custom("a mapping")) };
        while let Some(key) = map.next_key::<String>()? {
            let field = fields.iter().find(|(name, _)| *name == key);
            let (_, shape) = field.ok_or_else(|| A::Error::unknown_field(&key, &[]))?;
            map.next_value_seed(*shape)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let List(shape) = self else { return Err(A::Error::custom("a list")) };
        while list.next_element_seed(*shape)?.is_some() {}
        Ok(())
    }
}

fn parsed(path: &str, text: &ConfigText) -> Result<File, EvidenceError> {
    configuration::parse(path, text, KIND)
}

/// Puts what the configuration file says in the place of the flags that it replaces.
fn replace(settings: &mut Settings, path: &str, file: &File, origin: &Origin) {
    let at = |line: u64| at(origin, line);
    let boolean = |given: &Option<Spanned<bool>>| match given {
        Some(value) => (value.value.to_string(), Some(value.value), at(value.referenced.line()), "set in"),
        // As k8s.io/component-base/config/v1alpha1.RecommendedDebuggingConfiguration has it.
        None => ("true".to_owned(), Some(true), origin.clone(), "by default true with"),
    };
    let kubeconfig = file.client_connection.as_ref().and_then(|connection| connection.kubeconfig.as_ref());
    let kubeconfig = match kubeconfig {
        Some(value) => (value.value.clone(), None, at(value.referenced.line()), "set in"),
        None => (String::new(), None, origin.clone(), "not set in"),
    };
    let values = [boolean(&file.enable_contention_profiling), kubeconfig, boolean(&file.enable_profiling)];
    for (name, (value, on, origin, how)) in REPLACED.into_iter().zip(values) {
        let flag = settings.remove(name).filter(|flag| !matches!(flag.origin, Origin::Default { .. }));
        let overridden = flag.into_iter().map(|flag| Candidate {
            value: flag.value,
            origin: flag.origin,
            reason: format!("the configuration file {path} is in use, with which the flag is ignored"),
        });
        let overridden = overridden.collect();
        let why = format!("{how} the configuration file {path}");
        settings
            .insert(name.to_owned(), Setting { set: !value.is_empty(), value, on, origin, why, overridden });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_settings::Argument;

    fn resolved(line: &str, file: &str) -> Resolved {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |path: &str| {
            let origin = Origin::file(path);
            match file {
                "" => Err(EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file"))),
                text => Ok(ConfigText { bytes: text.as_bytes().to_vec(), changed_at: None, origin }),
            }
        };
        resolve(Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release: None,
            runs: true,
            read,
            list: &mut seaworthy_settings::no_list,
        })
    }

    #[test]
    fn a_configuration_file_replaces_the_flags_that_it_made_obsolete() {
        let cases = [
            ("--profiling=false", "", Some(false), "set by flag"),
            ("", "", Some(true), "not set; by default it is true"),
            (
                "--config=/c --profiling=false",
                "kind: KubeSchedulerConfiguration\n",
                Some(true),
                "by default true",
            ),
            ("--config=/c", "enableProfiling: false\n", Some(false), "set in the configuration file /c"),
        ];
        for (line, file, want, why) in cases {
            let resolved = resolved(line, file);
            let profiling = &resolved.settings.value().unwrap()["profiling"];
            assert_eq!(profiling.on, want, "{line}");
            assert!(profiling.why.starts_with(why), "{line}: {}", profiling.why);
        }
        let several = resolved("--config=/c", "---\nenableProfiling: false\n---\nenableProfiling: true\n");
        assert_eq!(
            several.settings.value().unwrap()["profiling"].on,
            Some(false),
            "the first document counts"
        );
        let secret = resolved("--config=/c", "enableProfiling: hunter2\n");
        assert!(!format!("{secret:?}").contains("hunter2"), "{secret:?}");
        for broken in ["", "enableProfiling: [\n", "enableProfiling: perhaps\n"] {
            let resolved = resolved("--config=/c --profiling=false", broken);
            let settings = resolved.settings.value().unwrap();
            assert!(
                settings.why_unknown("profiling").is_some() && settings.contains_key("bind-address"),
                "{broken}"
            );
        }
    }

    /// Returns what an instance that is started with this file would exit for; `?` where that is not known.
    fn said(file: &str, release: Option<&str>) -> String {
        let kubeconfig = "clusters: [{name: a}]";
        let read = &mut |path: &str| {
            match (path, file) {
                ("/c", "") => Err(EvidenceError::new(ErrorKind::NotFound, "no such file")),
                ("/c", "denied") => Err(EvidenceError::new(ErrorKind::PermissionDenied, "denied")),
                ("/c", text) => Ok(text),
                _ => Ok(kubeconfig),
            }
            .map(|text| ConfigText {
                bytes: text.as_bytes().to_vec(),
                changed_at: None,
                origin: Origin::file(path),
            })
        };
        let arguments = [Argument { text: b"--config=/c".to_vec(), origin: Origin::file("/m") }];
        let resolved = resolve(Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release,
            runs: false,
            read,
            list: &mut seaworthy_settings::no_list,
        });
        assert!(!format!("{resolved:?}").contains("hunter2"), "{resolved:?}");
        match (resolved.fatal.as_slice(), resolved.doubt) {
            ([], None) => String::new(),
            ([], Some(_)) => "?".to_owned(),
            (fatal, _) => fatal.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn a_configuration_file_is_decoded_strictly() {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        // What follows the first two lines, and what is said in 1.35 and where the release is not known.
        let cases = [
            ("", ["", ""]),
            ("clientConnection: {kubeconfig: /k}\nleaderElection: {leaderElect: true}\n", ["", ""]),
            ("clientConnection: null\nprofiles:\n", ["", ""]),
            ("profiles: [{schedulerName: a, plugins: {score: {disabled: [{name: '*'}]}}}]\n", ["", ""]),
            ("profiles: [{pluginConfig: [{name: A, args: {any: thing}}]}]\n", ["", ""]),
            ("extenders: [{urlPrefix: a, enableHTTPS: true, tlsConfig: {insecure: true}}]\n", ["", ""]),
            ("hunter2: 1\n", ["/c:3: unknown field", "?"]),
            ("enableprofiling: false\n", ["/c:3: unknown field", "?"]),
            ("clientConnection:\n  hunter2: /k\n", ["/c:4: unknown field", "?"]),
            ("profiles:\n- plugins:\n    score: {enable: []}\n", ["/c:5: unknown field", "?"]),
            ("enableProfiling: true\nenableProfiling: false\n", ["/c:4: a key is there twice"; 2]),
            ("profiles: [{pluginConfig: [{args: {a: 1, a: hunter2}}]}]\n", ["/c:3: a key is there twice"; 2]),
            ("profiles: hunter2\n", ["?"; 2]),
            ("enableProfiling: [\n", ["?"; 2]),
            ("---\nhunter2: 1\n", ["", ""]),
        ];
        for (rest, want) in cases {
            let file = format!("{head}{rest}");
            assert_eq!([Some("v1.35.4"), None].map(|release| said(&file, release)), want, "{rest}");
        }
        let cases = [
            ("", ["open /c: no such file or directory"; 2]),
            ("denied", ["?"; 2]),
            ("kind: KubeSchedulerConfiguration\n", ["/c: apiVersion is missing"; 2]),
            ("apiVersion: kubescheduler.config.k8s.io/v1\n", ["/c: kind is missing"; 2]),
            (
                "kind: KubeSchedulerConfiguration\napiVersion: kubescheduler.config.k8s.io/v1beta3\n",
                ["/c:2: apiVersion is not kubescheduler.config.k8s.io/v1", "?"],
            ),
            (
                "kind: KubeSchedulerConfiguration\napiVersion: hunter2\n",
                ["/c:2: apiVersion is not kubescheduler.config.k8s.io/v1"; 2],
            ),
            (
                "apiVersion: kubescheduler.config.k8s.io/v1\nkind: hunter2\n",
                ["/c:2: kind is not KubeSchedulerConfiguration"; 2],
            ),
        ];
        for (file, want) in cases {
            assert_eq!([Some("v1.35.4"), None].map(|release| said(file, release)), want, "{file}");
        }
    }

    #[test]
    fn it_listens_where_its_settings_say() {
        let cases = [
            ("", &["https://0.0.0.0:10259"][..]),
            ("--bind-address=127.0.0.1", &["https://127.0.0.1:10259"]),
            ("--bind-address=::1 --secure-port=1", &["https://[::1]:1"]),
            ("--secure-port=0", &[]),
        ];
        for (line, want) in cases {
            let resolved = resolved(line, "");
            let urls: Vec<String> = serving::listens(resolved.settings.value().unwrap())
                .into_iter()
                .map(|(url, _)| url.text)
                .collect();
            assert_eq!(urls, want, "{line}");
        }
    }
}
