//! kube-scheduler: pflag, and a configuration file that replaces the flags which it made obsolete.

use seaworthy_evidence::{
    Candidate, ConfigFile, ConfigFormat, ErrorKind, EvidenceError, Observed, Origin, Setting, Settings,
};
use seaworthy_settings::pflag::{self, Flag, Table, Takes};
use seaworthy_settings::{ConfigText, Given, Resolved};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::{Component, Program, serving};

/// Schedulers.
pub static COMPONENT: Component =
    Component { name: "kube-scheduler", special: None, settings: SETTINGS, program: Some(&PROGRAM) };

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

fn resolve(given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    let Observed::Seen { value: settings, .. } = &mut resolved.settings else { return resolved };
    let Some(path) = settings.get("config").filter(|config| config.set).map(|config| config.value.clone())
    else {
        return resolved;
    };
    match (given.read)(&path).and_then(|text| Ok((parsed(&path, &text)?, text))) {
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
    resolved
}

fn parsed(path: &str, text: &ConfigText) -> Result<File, EvidenceError> {
    let fail = |kind, message: String| EvidenceError::new(kind, message).at(text.origin.clone());
    if text.bytes.len() > ConfigText::MAX {
        return Err(fail(ErrorKind::TooLarge, format!("{path}: larger than {} KiB", ConfigText::MAX >> 10)));
    }
    let content = std::str::from_utf8(&text.bytes)
        .map_err(|_| fail(ErrorKind::Malformed, format!("{path} is not UTF-8")))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(first_document(content), options).map_err(|error| {
        // The library's message may quote the file, which may hold a key.
        let line = error.location().map_or(1, |location| location.line());
        let message = format!("{path}:{line}: this is no KubeSchedulerConfiguration that could be read");
        fail(ErrorKind::Malformed, message)
    })
}

/// Returns the first document of a YAML file, which is the one that a component reads.
fn first_document(text: &str) -> &str {
    let mut begun = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let marks = line.starts_with("---") || line.starts_with("...");
        if begun && marks {
            return text.get(..offset).unwrap_or(text);
        }
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']) || line.trim() == "---";
        begun |= !blank;
        offset += line.len();
    }
    text
}

/// Puts what the configuration file says in the place of the flags that it replaces.
fn replace(settings: &mut Settings, path: &str, file: &File, origin: &Origin) {
    let at = |line: u64| match origin {
        Origin::File { path, pid, .. } => {
            Origin::File { path: path.clone(), pid: *pid, line: u32::try_from(line).ok(), column: None }
        }
        other => other.clone(),
    };
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
        resolve(Given { arguments: &arguments, environment: Ok(&[]), release: None, runs: true, read })
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
