//! kubelet: pflag over drop-ins over a configuration file, over defaults that are others once there is a file.
//!
//! As `cmd/kubelet/app/server.go` has it (read in 1.34.4 to 1.37.2): the file of `--config` is decoded, and what it leaves out or gives as
//! zero gets the defaults of files; the files of `--config-dir` whose names end in `.conf` are merged into that in the order of their paths;
//! then the command line is read again over all of it. Without any file the defaults are those that the flags had before there were
//! files (`applyLegacyDefaults`). What kubeadm keeps in `instance-config.yaml` is merged by kubeadm, not by kubelet.

use std::collections::BTreeMap;

use seaworthy_evidence::{
    Candidate, ConfigFile, ConfigFormat, ErrorKind, EvidenceError, Observed, Origin, PredictedFailure,
    Setting, Settings, Url,
};
use seaworthy_settings::pflag::{self, Flag, Gate, Table, Takes, parse_bool, parse_int};
use seaworthy_settings::{Given, Resolved};

use crate::serving::{self, Content, Needed};
use crate::yaml::{Document, Said};
use crate::{Component, KeyFiles, Program};

/// kubelets.
pub static COMPONENT: Component = Component {
    name: "kubelet",
    of_control_plane: false,
    special: None,
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of kubelets.
pub static PROGRAM: Program = Program {
    special: None,
    package: Some("k8s.io/kubernetes/cmd/kubelet"),
    is_called: |name| name == COMPONENT.name,
    is_other: |arguments| pflag::prints_and_exits(&TABLE, arguments),
    unit: "kubelet.service",
    variable: None,
    config: Some("config"),
    files: &["client-ca-file", "kubeconfig", SERVED_CERTIFICATE, SERVED_KEY, OWN_CERTIFICATE],
    kubeconfigs: &["kubeconfig"],
    folder: None,
    data: &[],
    resolve,
    listens,
    credentials: &[KeyFiles {
        purpose: seaworthy_evidence::Purpose::Client,
        certificate: SERVED_CERTIFICATE,
        key: SERVED_KEY,
        trusted: "client-ca-file",
    }],
};

/// The certificate and the key that are served: those of `tls-cert-file` and `tls-private-key-file`, or those that kubelet has made or
/// requested. No flag and no field is called so.
const SERVED_CERTIFICATE: &str = "served-cert-file";
const SERVED_KEY: &str = "served-private-key-file";

/// The file in which kubelet keeps the certificate that it requested for itself, with its key; set where it rotates that. No flag and no
/// field is called so.
const OWN_CERTIFICATE: &str = "rotated-client-cert-file";

/// The settings that a snapshot keeps: by the name of the flag, and where there is none by the path of the field.
const SETTINGS: &[&str] = &[
    "address",
    "anonymous-auth",
    "authentication-token-webhook",
    "authorization-mode",
    "bootstrap-kubeconfig",
    "cert-dir",
    "client-ca-file",
    "config",
    "config-dir",
    "container-runtime-endpoint",
    "contention-profiling",
    "enable-debugging-handlers",
    "enable-server",
    "enableProfilingHandler",
    "event-qps",
    "feature-gates",
    "healthz-bind-address",
    "healthz-port",
    "hostname-override",
    "kubeconfig",
    "make-iptables-util-chains",
    "pod-manifest-path",
    "pod-max-pids",
    "port",
    "protect-kernel-defaults",
    "read-only-port",
    "rotate-certificates",
    "rotate-server-certificates",
    "seccomp-default",
    "streaming-connection-idle-timeout",
    "tls-cert-file",
    "tls-cipher-suites",
    "tls-min-version",
    "tls-private-key-file",
    SERVED_CERTIFICATE,
    SERVED_KEY,
    OWN_CERTIFICATE,
];

/// The flags and fields of all releases.
static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/kubelet.rs"));

/// The kind of its configuration files.
const KIND: &str = "KubeletConfiguration";

/// The settings that are relative to the folder of the file of `--config` where it gives them (`KubeletConfigurationPathRefs`). A drop-in
/// and a flag give them relative to the working directory.
const PATHS: [&str; 4] = ["client-ca-file", "pod-manifest-path", "tls-cert-file", "tls-private-key-file"];

/// Numbers of which 0 in a file means the default. Of the others it means none, because Go can tell that it is given (a pointer).
const ZERO_IS_DEFAULT: [&str; 1] = ["port"];

/// The files without which it exits. Read in 1.35.4.
const NEEDED: &[Needed] = &[
    Needed { setting: "client-ca-file", content: Content::Certificates, when: |_| true, then: "" },
    Needed {
        setting: "kubeconfig",
        content: Content::Kubeconfig,
        // It makes it itself where it may ask for a certificate.
        when: |settings| settings.get("bootstrap-kubeconfig").is_some_and(|bootstrap| !bootstrap.set),
        then: "",
    },
];

fn resolve(mut given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    read_files(&mut given, &mut resolved);
    if let Observed::Seen { value: settings, .. } = &mut resolved.settings {
        derive(settings);
    }
    serving::missing(&mut given, &mut resolved, NEEDED);
    resolved
}

/// Returns the path of `name` below `folder`.
fn below(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// Puts into `resolved` what the configuration files say, and what an instance would exit for in them.
fn read_files(given: &mut Given<'_>, resolved: &mut Resolved) {
    let Observed::Seen { value: settings, .. } = &mut resolved.settings else { return };
    let named = |name: &str| settings.get(name).filter(|setting| setting.set);
    let (config, folder) = (named("config").cloned(), named("config-dir").cloned());
    let mut unread: Option<(EvidenceError, Origin)> = None;
    let mut paths: Vec<(String, Origin)> = Vec::new();
    paths.extend(config.iter().map(|config| (config.value.clone(), config.origin.clone())));
    if let Some(folder) = &folder {
        match (given.list)(&folder.value) {
            Ok(names) => {
                let names = names.iter().filter(|name| name.ends_with(".conf"));
                resolved.drop_ins = names.map(|name| below(&folder.value, name)).collect();
            }
            Err(error) => unread = Some((error, folder.origin.clone())),
        }
        paths.extend(resolved.drop_ins.iter().map(|path| (path.clone(), folder.origin.clone())));
    }
    let (mut documents, mut changed_at) = (Vec::new(), None);
    for (path, named) in paths {
        let text = (given.read)(&path);
        match text.and_then(|text| Ok((Document::parse(&path, &text, KIND)?, text.changed_at))) {
            Ok((document, changed)) => {
                documents.push(document);
                changed_at = changed_at.max(changed);
            }
            Err(error) => _ = unread.get_or_insert((error, named)),
        }
    }
    let fields = SETTINGS.iter().filter_map(|name| Some((*name, field(name)?)));
    if let Some((error, named)) = unread {
        for (name, _) in fields {
            // Flags win over files, and gates are merged.
            let by_flag = settings.get(name).is_some_and(is_given) && name != "feature-gates";
            if !by_flag {
                settings.doubt(name, error.clone());
            }
        }
        if !given.runs && error.kind == ErrorKind::NotFound {
            let message = format!("failed to load kubelet config: {}", error.message);
            resolved.fatal.push(PredictedFailure { setting: "config".to_owned(), message, origin: named });
        } else if !given.runs {
            resolved.doubt.get_or_insert(error.clone());
        }
        resolved.config_file = Some(Observed::failed(error));
        return;
    }
    // A pair may be given half by flag and half by file.
    resolved.fatal.retain(|failure| documents.is_empty() || !failure.message.starts_with("missing filename"));
    let files = Files { documents: &documents, has_config: config.is_some(), release: given.release };
    for (name, field) in fields {
        let flag = settings.remove(name).filter(|_| !matches!(name, "enableProfilingHandler"));
        match files.setting(name, field, flag) {
            Ok(setting) => _ = settings.insert(name.to_owned(), setting),
            Err(error) => settings.doubt(name, error),
        }
    }
    if let Some(first) = documents.first() {
        let ignored = documents.iter().flat_map(|document| document.ignored(&TABLE)).collect();
        let file = ConfigFile { path: first.path.clone(), format: ConfigFormat::Yaml, changed_at, ignored };
        resolved.config_file = Some(Observed::seen(file, first.origin.clone()));
    }
}

/// Returns the field that the setting `name` is in a file.
fn field(name: &str) -> Option<&'static pflag::Field> {
    // Its flag is none of the file's, and either of the two is enough.
    TABLE.field(if name == "seccomp-default" { "seccompDefault" } else { name })
}

fn is_given(setting: &Setting) -> bool {
    !matches!(setting.origin, Origin::Default { .. })
}

/// The configuration files, in the order in which they apply.
struct Files<'a> {
    documents: &'a [Document],
    /// Whether the first of them is that of `--config`.
    has_config: bool,
    release: Option<&'a str>,
}

impl Files<'_> {
    /// Returns the setting `name`, of which the command line gives `flag`.
    fn setting(
        &self,
        name: &str,
        field: &pflag::Field,
        flag: Option<Setting>,
    ) -> Result<Setting, EvidenceError> {
        // The strongest first.
        let mut said: Vec<(&Document, Said)> = Vec::new();
        for (index, document) in self.documents.iter().enumerate().rev() {
            let is_config = index == 0 && self.has_config;
            let Some(mut one) = document.get(field.name, field.kind)? else { continue };
            if let Some(path) = one.value.as_mut().filter(|path| !path.is_empty() && !path.starts_with('/'))
                && is_config
                && PATHS.contains(&name)
            {
                let folder = document.path.rsplit_once('/').map_or(".", |(folder, _)| folder);
                *path = below(folder, path);
            }
            // A field of the file that is null is not given; in a drop-in it takes away what was given.
            if one.value.is_some() || !is_config {
                said.push((document, one));
            }
        }
        let given = flag.clone().filter(is_given);
        if name == "feature-gates" {
            return Ok(self.gates(&said, given));
        }
        let candidate = |(_, said): &(&Document, Said), reason: &str| Candidate {
            value: said.value.clone().unwrap_or_default(),
            origin: said.origin.clone(),
            reason: reason.to_owned(),
        };
        let either = name == "seccomp-default";
        if let Some(mut by_flag) = given.clone().filter(|flag| !either || flag.on == Some(true)) {
            by_flag
                .overridden
                .extend(said.iter().map(|one| candidate(one, "the flag wins over configuration files")));
            return Ok(by_flag);
        }
        let default = || {
            let differs = || {
                let message = format!(
                    "{name} is not set, and its default differs between releases of kubelet, of which the one that runs is not known"
                );
                EvidenceError::new(ErrorKind::Unsupported, message)
            };
            TABLE.default_of(field, self.release).ok_or_else(differs)
        };
        let Some((document, winner)) = said.first() else {
            // Drop-ins alone are merged into what the flags have by default.
            if let Some(flag) = flag.filter(|flag| !self.has_config || is_given(flag)) {
                return Ok(flag);
            }
            let value = default()?;
            let why = match value {
                "" => "not set".to_owned(),
                value if self.documents.is_empty() => format!("not set; by default it is {value}"),
                value => format!("not set; with a configuration file it is by default {value}"),
            };
            let origin = Origin::Default { component: COMPONENT.name.to_owned(), version: None };
            return Ok(setting(value.to_owned(), field, origin, why));
        };
        let path = &document.path;
        let is_default = match winner.value.as_deref() {
            None | Some("") => true,
            Some(value) if field.kind == "duration" => !value.contains(|c: char| matches!(c, '1'..='9')),
            Some("0") => ZERO_IS_DEFAULT.contains(&name),
            Some(value) => name == "pod-max-pids" && value.starts_with('-'),
        };
        let (value, why) = match (&winner.value, is_default) {
            (Some(value), false) => (value.clone(), format!("set in {path}")),
            (given, _) => {
                let (value, given) = (default()?, given.as_deref().unwrap_or("null"));
                let why = match (value, given) {
                    ("", _) => "not set".to_owned(),
                    (value, "") => format!("empty in {path}, which means the default, {value}"),
                    (value, given) => format!("{given} in {path}, which means the default, {value}"),
                };
                (value.to_owned(), why)
            }
        };
        let mut found = setting(value, field, winner.origin.clone(), why);
        let reason = format!("{path} is read after it, and the last one counts");
        found.overridden.extend(said.iter().skip(1).map(|one| candidate(one, &reason)));
        found.overridden.extend(given.map(|flag| Candidate {
            value: flag.value,
            origin: flag.origin,
            reason: "the flag and the file are both asked, and either switches it on".to_owned(),
        }));
        Ok(found)
    }

    /// Returns the feature gates: each that any of them sets, with the strongest value.
    fn gates(&self, said: &[(&Document, Said)], flag: Option<Setting>) -> Setting {
        let mut gates: BTreeMap<String, String> = BTreeMap::new();
        let files = said.iter().rev().filter_map(|(_, said)| said.value.as_deref());
        for text in files.chain(flag.as_ref().map(|flag| flag.value.as_str())) {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            gates.extend(pairs.map(|(name, on)| (name.trim().to_owned(), on.trim().to_owned())));
        }
        let value = gates.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",");
        let by_default = Origin::Default { component: COMPONENT.name.to_owned(), version: None };
        let by_file =
            said.first().map(|(document, said)| (said.origin.clone(), format!("set in {}", document.path)));
        let (origin, why) = match (flag, by_file) {
            (Some(flag), None) => (flag.origin, flag.why),
            (Some(flag), Some(_)) => (flag.origin, "set by flag and in the configuration files".to_owned()),
            (None, Some(by_file)) => by_file,
            (None, None) => (by_default, "not set".to_owned()),
        };
        Setting { set: !value.is_empty(), value, on: None, origin, why, overridden: Vec::new() }
    }
}

fn setting(value: String, field: &pflag::Field, origin: Origin, why: String) -> Setting {
    let on = if field.kind == "bool" { parse_bool(&value) } else { None };
    Setting { set: !value.is_empty(), value, on, origin, why, overridden: Vec::new() }
}

/// Adds the files that kubelet uses without being given them: a certificate of its own making (`InitializeTLS`), one that it requested to
/// serve (`NewKubeletServerCertificateManager`), and one that it requested for itself (`NewKubeletClientCertificateManager`).
fn derive(settings: &mut Settings) {
    const PAIR: [&str; 2] = ["tls-cert-file", "tls-private-key-file"];
    let asked = [PAIR[0], PAIR[1], "cert-dir", "rotate-server-certificates", "rotate-certificates"];
    if let Some(error) = settings.doubt_about(asked).cloned() {
        for name in [SERVED_CERTIFICATE, SERVED_KEY, OWN_CERTIFICATE] {
            settings.doubt(name, error.clone());
        }
        return;
    }
    let folder = settings.get("cert-dir").map(|setting| setting.value.clone()).unwrap_or_default();
    let is_on = |name: &str| settings.get(name).is_some_and(|setting| setting.on == Some(true));
    let (requests, rotates) = (is_on("rotate-server-certificates"), is_on("rotate-certificates"));
    let is_made = !PAIR.iter().any(|name| settings.get(*name).is_some_and(|setting| setting.set));
    let own = |file: &str, why: &str| {
        let origin = Origin::derived("cert-dir, and the names that kubelet gives its files in it");
        let (value, why) = (below(&folder, file), why.to_owned());
        Setting { set: true, value, on: None, origin, why, overridden: Vec::new() }
    };
    let names = ["kubelet.crt", "kubelet.key"];
    let pair = [(SERVED_CERTIFICATE, PAIR[0], names[0]), (SERVED_KEY, PAIR[1], names[1])];
    let served = pair.map(|(served, given, made)| {
        let setting = match () {
            () if requests => own("kubelet-server-current.pem", "kubelet requests and rotates it"),
            () if is_made => own(made, "kubelet makes it itself, because none is given"),
            () => settings.get(given).cloned().unwrap_or_else(|| own(made, "not set")),
        };
        (served, setting)
    });
    let mut rotated = own("kubelet-client-current.pem", "kubelet requests and rotates it");
    if !rotates {
        (rotated.set, rotated.value, rotated.why) = (false, String::new(), "it is not rotated".to_owned());
    }
    for (name, setting) in served.into_iter().chain([(OWN_CERTIFICATE, rotated)]) {
        settings.insert(name.to_owned(), setting);
    }
}

/// Returns where a kubelet with these settings listens: its API, the port that asks nobody who he is, and that for health.
fn listens(settings: &Settings) -> Vec<(Url, Origin)> {
    let is_off = settings.get("enable-server").is_some_and(|server| server.on == Some(false));
    let ports = [
        ("https", "address", "port"),
        ("http", "address", "read-only-port"),
        ("http", "healthz-bind-address", "healthz-port"),
    ];
    let url = |(scheme, address, port): (&str, &str, &str)| {
        let (address, port) = (settings.get(address)?, settings.get(port)?);
        let number = parse_int(&port.value).filter(|number| *number > 0)?;
        let host = address.value.trim();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Some((Url::parse(&format!("{scheme}://{host}:{number}"))?, port.origin.clone()))
    };
    ports.into_iter().skip(usize::from(is_off)).filter_map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_settings::{Argument, ConfigText};

    /// Returns what a kubelet makes of a command line and of files, as [`Resolved`].
    fn resolved_of(line: &str, files: &[(&str, &str)], runs: bool) -> Resolved {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            let (_, text) = found
                .ok_or_else(|| EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file")))?;
            let origin = Origin::process_file(7, path);
            Ok(ConfigText { bytes: text.as_bytes().to_vec(), changed_at: None, origin })
        };
        let list = &mut |folder: &str| {
            let below = files.iter().filter_map(|(path, _)| path.strip_prefix(folder)?.strip_prefix('/'));
            let names: Vec<String> = below.map(str::to_owned).collect();
            if names.is_empty() {
                return Err(EvidenceError::new(ErrorKind::NotFound, format!("{folder}: no such folder")));
            }
            Ok(names)
        };
        let given =
            Given { arguments: &arguments, environment: Ok(&[]), release: Some("1.35.4"), runs, read, list };
        resolve(given)
    }

    fn settings(line: &str, files: &[(&str, &str)]) -> Settings {
        resolved_of(line, files, true).settings.value().unwrap().clone()
    }

    #[test]
    fn flags_win_over_drop_ins_and_those_over_the_file_and_that_over_the_defaults() {
        let stock = ("/c", include_str!("../testdata/kubelet/config.yaml"));
        let open = ("/c", "authentication: {anonymous: {enabled: true}}\n");
        let (ten, twenty) = (
            (
                "/d/10.conf",
                "authentication: {anonymous: {enabled: true}}\nstreamingConnectionIdleTimeout: 1h\n",
            ),
            ("/d/20.conf", "authentication: {anonymous: {enabled: false}}\npodPidsLimit: 100\n"),
        );
        let null = ("/d/30.conf", "authentication: null\n");
        let other = ("/d/40.yaml", "readOnlyPort: 1\n");
        let with = "--config=/c --config-dir=/d";
        // The command line, the files, a setting, its value, the beginning of the reason, and what lost.
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, &'a str, &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("", &[], "anonymous-auth", "true", "not set; by default it is true", &[]),
            ("", &[], "authorization-mode", "AlwaysAllow", "not set; by default", &[]),
            ("", &[], "authentication-token-webhook", "false", "not set; by default", &[]),
            ("", &[], "read-only-port", "10255", "not set; by default", &[]),
            ("--config=/c", &[stock], "anonymous-auth", "false", "set in /c", &[]),
            (
                "--config=/c",
                &[("/c", "kind: KubeletConfiguration\n")],
                "anonymous-auth",
                "false",
                "not set; with a",
                &[],
            ),
            ("--config=/c", &[("/c", "a: b\n")], "authorization-mode", "Webhook", "not set; with a", &[]),
            ("--config=/c", &[("/c", "a: b\n")], "read-only-port", "0", "not set; with a", &[]),
            (
                "--config=/c",
                &[("/c", "authorization: {mode: ''}\n")],
                "authorization-mode",
                "Webhook",
                "empty in /c",
                &[],
            ),
            (
                "--config=/c",
                &[stock],
                "streaming-connection-idle-timeout",
                "4h0m0s",
                "0s in /c, which means the default, 4h",
                &[],
            ),
            (
                "--config=/c --streaming-connection-idle-timeout=0",
                &[stock],
                "streaming-connection-idle-timeout",
                "0",
                "set by flag",
                &["0s"],
            ),
            ("--config=/c", &[stock], "event-qps", "50", "not set", &[]),
            ("--config=/c", &[("/c", "eventRecordQPS: 0\n")], "event-qps", "0", "set in /c", &[]),
            ("--config=/c", &[("/c", "port: 0\n")], "port", "10250", "0 in /c, which means", &[]),
            (
                "--config=/c",
                &[("/c", "podPidsLimit: -5\n")],
                "pod-max-pids",
                "-1",
                "-5 in /c, which means",
                &[],
            ),
            ("--config=/c", &[("/c", "healthzPort: 0\n")], "healthz-port", "0", "set in /c", &[]),
            (
                "--config=/c --anonymous-auth=false",
                &[open],
                "anonymous-auth",
                "false",
                "set by flag",
                &["true"],
            ),
            (with, &[open, twenty], "anonymous-auth", "false", "set in /d/20.conf", &["true"]),
            (
                with,
                &[("/c", "a: b\n"), ten, twenty],
                "anonymous-auth",
                "false",
                "set in /d/20.conf",
                &["true"],
            ),
            (
                with,
                &[stock, ten, twenty],
                "streaming-connection-idle-timeout",
                "1h",
                "set in /d/10.conf",
                &["0s"],
            ),
            (with, &[open, null], "anonymous-auth", "false", "null in /d/30.conf, which means", &["true"]),
            (with, &[open, other], "read-only-port", "0", "not set", &[]),
            // Drop-ins alone are merged into the defaults of the flags.
            ("--config-dir=/d", &[twenty], "anonymous-auth", "false", "set in /d/20.conf", &[]),
            ("--config-dir=/d", &[twenty], "authorization-mode", "AlwaysAllow", "not set; by default", &[]),
            ("--config-dir=/d", &[null], "anonymous-auth", "false", "null in /d/30.conf", &[]),
            // Either of the flag and the file switches it on.
            ("--config=/c --seccomp-default", &[stock], "seccomp-default", "true", "set by flag", &[]),
            (
                "--config=/c --seccomp-default=false",
                &[("/c", "seccompDefault: true\n")],
                "seccomp-default",
                "true",
                "set in /c",
                &["false"],
            ),
            ("--config=/c", &[stock], "seccomp-default", "false", "not set", &[]),
            ("--seccomp-default=false", &[], "seccomp-default", "false", "set by flag", &[]),
            // Relative to the folder of the file, and only there.
            (
                "--config=/etc/k/c",
                &[("/etc/k/c", "authentication: {x509: {clientCAFile: ca.crt}}\n")],
                "client-ca-file",
                "/etc/k/ca.crt",
                "set in",
                &[],
            ),
            ("--config=c", &[("c", "staticPodPath: m\n")], "pod-manifest-path", "./m", "set in", &[]),
            (
                "--config-dir=/d",
                &[("/d/1.conf", "staticPodPath: m\n")],
                "pod-manifest-path",
                "m",
                "set in",
                &[],
            ),
            (
                "--config=/c --client-ca-file=ca.crt",
                &[stock],
                "client-ca-file",
                "ca.crt",
                "set by flag",
                &["/etc/kubernetes/pki/ca.crt"],
            ),
            (
                "--config=/c",
                &[("/c", "tlsCipherSuites: [A, B]\n")],
                "tls-cipher-suites",
                "A,B",
                "set in /c",
                &[],
            ),
            (
                "--config=/c",
                &[("/c", "{\"readOnlyPort\": 10255}")],
                "read-only-port",
                "10255",
                "set in /c",
                &[],
            ),
            (
                "--config=/c",
                &[("/c", "readOnlyPort: 1\nreadOnlyPort: 2\n")],
                "read-only-port",
                "2",
                "set in /c",
                &[],
            ),
            ("--config=/c", &[("/c", "seccompDefault: yes\n")], "seccomp-default", "true", "set in /c", &[]),
            ("--config=/c", &[("/c", "a: b\n---\nreadOnlyPort: 1\n")], "read-only-port", "0", "not set", &[]),
            (
                "--config=/c --config-dir=/d --feature-gates=A=false,D=true",
                &[("/c", "featureGates: {A: true, B: true}\n"), ("/d/1.conf", "featureGates: {B: false}\n")],
                "feature-gates",
                "A=false,B=false,D=true",
                "set by flag and in",
                &[],
            ),
            // The files that it uses without being given them.
            (
                "--config=/c",
                &[stock],
                SERVED_CERTIFICATE,
                "/var/lib/kubelet/pki/kubelet.crt",
                "kubelet makes it",
                &[],
            ),
            (
                "--config=/c --cert-dir=/p/",
                &[("/c", "serverTLSBootstrap: true\n")],
                SERVED_KEY,
                "/p/kubelet-server-current.pem",
                "kubelet requests",
                &[],
            ),
            (
                "--config=/c",
                &[("/c", "tlsCertFile: /x\ntlsPrivateKeyFile: /y\n")],
                SERVED_KEY,
                "/y",
                "set in /c",
                &[],
            ),
            (
                "--config=/c",
                &[stock],
                OWN_CERTIFICATE,
                "/var/lib/kubelet/pki/kubelet-client-current.pem",
                "kubelet requests",
                &[],
            ),
            ("", &[], OWN_CERTIFICATE, "", "it is not rotated", &[]),
        ];
        for (line, files, name, value, why, lost) in cases {
            let settings = settings(line, files);
            let setting =
                settings.get(*name).unwrap_or_else(|| panic!("{line}: {:?}", settings.why_unknown(name)));
            let overridden: Vec<&str> = setting.overridden.iter().map(|lost| lost.value.as_str()).collect();
            assert_eq!(
                (setting.value.as_str(), overridden.as_slice()),
                (*value, *lost),
                "{line} {files:?} {name}"
            );
            assert!(setting.why.starts_with(why), "{line} {files:?}: {}", setting.why);
        }
        let place = &settings("--config=/c", &[open])["anonymous-auth"].origin;
        assert_eq!(*place, Origin::process_file(7, "/c").at(1, 39));
    }

    #[test]
    fn keys_that_it_does_not_know_are_told() {
        let stock = ("/c", include_str!("../testdata/kubelet/config.yaml"));
        let wrong = (
            "/c",
            "apiVersion: a\nAuthentication: {}\nauthentication: {anonymus: {enabled: false}, clientCAFile: /x}\nmaxPodz: 1\n",
        );
        type Key<'a> = (&'a str, Option<&'a str>, bool);
        let cases: [((&str, &str), &[Key<'_>]); 2] = [
            (stock, &[]),
            (
                wrong,
                &[
                    ("Authentication", None, true),
                    ("authentication.anonymus", None, true),
                    ("authentication.clientCAFile", Some("authentication.x509.clientCAFile"), true),
                    ("maxPodz", None, false),
                ],
            ),
        ];
        for (file, want) in cases {
            let resolved = resolved_of("--config=/c", &[file], true);
            let ignored = &resolved.config_file.as_ref().unwrap().value().unwrap().ignored;
            let got: Vec<_> =
                ignored.iter().map(|i| (i.key.as_str(), i.suggestion.as_deref(), i.about_security)).collect();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_only_the_flags_known() {
        let broken = [
            ("/c", "a: [\n"),
            ("/c", "kind: Pod\n"),
            ("/c", "- a\n"),
            ("/c", ""),
            ("/c", "\u{0}\u{1}"),
            ("/other", ""),
            ("/c", "a: &a [1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b\n"),
        ];
        for file in broken {
            let resolved = resolved_of("--config=/c --read-only-port=0 --kubeconfig=/k", &[file], true);
            let settings = resolved.settings.value().unwrap();
            assert!(settings.why_unknown("anonymous-auth").is_some(), "{file:?}");
            assert!(settings.why_unknown(SERVED_CERTIFICATE).is_some(), "{file:?}");
            assert_eq!(settings["read-only-port"].value, "0", "{file:?}");
            assert_eq!(settings["kubeconfig"].value, "/k", "{file:?}");
            assert!(matches!(resolved.config_file, Some(Observed::Failed { .. })), "{file:?}");
        }
        let folder = settings("--config=/c --config-dir=/d", &[("/c", "readOnlyPort: 0\n")]);
        assert!(folder.why_unknown("read-only-port").is_some(), "a drop-in may set it");
        // A value of another kind concerns its setting alone, and is not told.
        let wrong = settings("--config=/c", &[("/c", "readOnlyPort: hunter2\nport: 1\n")]);
        let error = wrong.why_unknown("read-only-port").unwrap();
        assert!(error.message.contains("readOnlyPort takes something else"), "{error}");
        assert!(!format!("{wrong:?}").contains("hunter2") && wrong["port"].value == "1");
    }

    #[test]
    fn what_it_would_exit_for_is_told() {
        let cases = [
            ("--config=/c", &[][..], "failed to load kubelet config: /c: no such file"),
            (
                "--config=/c",
                &[("/c", "authentication: {x509: {clientCAFile: /ca}}\n")],
                "open /ca: no such file or directory",
            ),
            ("--config=/c --kubeconfig=/k", &[("/c", "a: b\n")], "open /k: no such file or directory"),
            ("--config=/c --kubeconfig=/k --bootstrap-kubeconfig=/b", &[("/c", "a: b\n")], ""),
            ("--config=/c --tls-cert-file=/x", &[("/c", "tlsPrivateKeyFile: /y\n")], ""),
            ("--anonymous-auth=perhaps", &[], "invalid argument for --anonymous-auth"),
        ];
        for (line, files, want) in cases {
            let fatal = resolved_of(line, files, false).fatal;
            let said = fatal.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; ");
            assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{line}: {said}");
        }
    }

    #[test]
    fn it_listens_where_its_settings_say() {
        let cases = [
            ("", "https://0.0.0.0:10250 http://0.0.0.0:10255 http://127.0.0.1:10248"),
            ("--enable-server=false --read-only-port=0 --healthz-port=0", ""),
            ("--address=::1 --read-only-port=0", "https://[::1]:10250 http://127.0.0.1:10248"),
        ];
        for (line, want) in cases {
            let urls: Vec<String> =
                listens(&settings(line, &[])).into_iter().map(|(url, _)| url.text).collect();
            assert_eq!(urls.join(" "), want, "{line}");
        }
    }
}
