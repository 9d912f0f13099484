//! kube-proxy: pflag, and a configuration file that replaces all flags but a few.
//!
//! As `cmd/kube-proxy/app/options.go` has it (read in 1.34.4 to 1.37.2): with `--config` what the command line says of the configuration
//! is thrown away, but for the name of the node and for logging. In a cluster of kubeadm it is a DaemonSet, so its files are in its pod.

use std::net::IpAddr;

use seaworthy_evidence::{
    Candidate, ConfigFile, ConfigFormat, ErrorKind, Observed, Origin, PredictedFailure, Setting, Settings,
    Url,
};
use seaworthy_settings::pflag::{self, Flag, Gate, Table, Takes, parse_bool, parse_int};
use seaworthy_settings::{Argument, Given, Resolved};

use crate::serving::{self, Content, Needed};
use crate::yaml::Document;
use crate::{Component, Program};

/// kube-proxies.
pub static COMPONENT: Component = Component {
    name: "kube-proxy",
    of_control_plane: false,
    special: None,
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of kube-proxies.
pub static PROGRAM: Program = Program {
    special: None,
    package: Some("k8s.io/kubernetes/cmd/kube-proxy"),
    is_called: |name| name == COMPONENT.name,
    is_other,
    unit: "kube-proxy.service",
    variable: None,
    config: Some("config"),
    files: &["kubeconfig"],
    kubeconfigs: &["kubeconfig"],
    folder: None,
    data: &[],
    resolve,
    listens,
    credentials: &[],
};

/// The settings that a snapshot keeps.
const SETTINGS: &[&str] = &[
    "bind-address",
    "config",
    "feature-gates",
    "healthz-bind-address",
    "hostname-override",
    "kubeconfig",
    METRICS,
    "profiling",
    "proxy-mode",
];

const METRICS: &str = "metrics-bind-address";

/// The addresses that it listens at: the deprecated flag for the port, and the address and the port where none is given, for a node with
/// addresses of IPv4 and of IPv6 (`getDefaultAddresses`).
const ADDRESSES: [(&str, &str, [&str; 2], u16); 2] = [
    ("healthz-bind-address", "healthz-port", ["0.0.0.0", "[::]"], 10256),
    (METRICS, "metrics-port", ["127.0.0.1", "[::1]"], 10249),
];

/// The flags and fields of all releases.
static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/kube_proxy.rs"));

/// The kind of its configuration file.
const KIND: &str = "KubeProxyConfiguration";

/// The files without which it exits. With no kubeconfig it uses the account of its pod.
const NEEDED: &[Needed] =
    &[Needed { setting: "kubeconfig", content: Content::Kubeconfig, when: |_| true, then: "" }];

/// Returns whether it does something and exits with these arguments, as init containers let it.
fn is_other(arguments: &[Argument]) -> bool {
    const TASKS: [&str; 3] = ["cleanup", "init-only", "write-config-to"];
    let task = |argument: &Argument| {
        let text = String::from_utf8_lossy(&argument.text).replace('_', "-");
        let (name, value) = text.split_once('=').unwrap_or((&text, "true"));
        name.strip_prefix("--").is_some_and(|name| TASKS.contains(&name)) && parse_bool(value) != Some(false)
    };
    pflag::prints_and_exits(&TABLE, arguments) || arguments.iter().any(task)
}

fn resolve(mut given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    let ports = pflag::resolve(&TABLE, &ADDRESSES.map(|(_, port, ..)| port), &given).settings;
    read_file(&mut given, &mut resolved);
    if let (Observed::Seen { value: settings, .. }, Observed::Seen { value: ports, .. }) =
        (&mut resolved.settings, ports)
    {
        complete(settings, &ports);
    }
    serving::missing(&mut given, &mut resolved, NEEDED);
    resolved
}

/// Returns the settings that a file decides, where there is one, each with its field.
fn replaced() -> impl Iterator<Item = (&'static str, &'static pflag::Field)> {
    let names = SETTINGS.iter().filter(|name| **name != "hostname-override");
    names.filter_map(|name| Some((*name, TABLE.field(name)?)))
}

/// Puts into `resolved` what the configuration file says in the place of the flags, and what an instance would exit for in it.
fn read_file(given: &mut Given<'_>, resolved: &mut Resolved) {
    let Observed::Seen { value: settings, .. } = &mut resolved.settings else { return };
    let Some(config) = settings.get("config").filter(|config| config.set).cloned() else { return };
    let path = config.value;
    let read = (given.read)(&path);
    let read = read.and_then(|text| Ok((Document::parse(&path, &text, KIND)?, text.changed_at)));
    let (document, changed_at) = match read {
        Ok(read) => read,
        Err(error) => {
            replaced().for_each(|(name, _)| settings.doubt(name, error.clone()));
            if !given.runs && error.kind == ErrorKind::NotFound {
                let message = format!("open {path}: no such file or directory");
                let setting = "config".to_owned();
                resolved.fatal.push(PredictedFailure { setting, message, origin: config.origin });
            } else if !given.runs {
                resolved.doubt.get_or_insert(error.clone());
            }
            resolved.config_file = Some(Observed::failed(error));
            return;
        }
    };
    for (name, field) in replaced() {
        let flag = settings.remove(name).filter(|flag| !matches!(flag.origin, Origin::Default { .. }));
        let said = match document.get(field.name, field.kind) {
            Ok(said) => said.and_then(|said| Some((said.value?, said.origin))),
            Err(error) => {
                settings.doubt(name, error);
                continue;
            }
        };
        let (value, origin, why) = match said.filter(|(value, _)| !value.is_empty()) {
            Some((value, origin)) => (value, origin, format!("set in the configuration file {path}")),
            None => {
                let value = TABLE.default_of(field, given.release).unwrap_or_default().replace("{}", "");
                let why = match value.as_str() {
                    "" => format!("not set in the configuration file {path}"),
                    value => format!("by default {value} with the configuration file {path}"),
                };
                let component = COMPONENT.name.to_owned();
                (value, Origin::Default { component, version: None }, why)
            }
        };
        let overridden = flag.into_iter().map(|flag| Candidate {
            value: flag.value,
            origin: flag.origin,
            reason: format!("the configuration file {path} is in use, with which the flag is ignored"),
        });
        let (set, overridden) = (!value.is_empty(), overridden.collect());
        let on = if field.kind == "bool" { parse_bool(&value) } else { None };
        settings.insert(name.to_owned(), Setting { set, value, on, origin, why, overridden });
    }
    let (ignored, origin) = (document.ignored(&TABLE), document.origin);
    let file = ConfigFile { path, format: ConfigFormat::Yaml, changed_at, ignored };
    resolved.config_file = Some(Observed::seen(file, origin));
}

/// Gives addresses the port that they lack, and those of IPv6 where kube-proxy is told that the node has such. `ports` are the flags that
/// had been before there were addresses; they count where there is no configuration file.
fn complete(settings: &mut Settings, ports: &Settings) {
    let has_file = settings.get("config").is_some_and(|config| config.set);
    let bind = settings.get("bind-address").and_then(|bind| bind.value.parse::<IpAddr>().ok());
    let is_v6 = bind.is_some_and(|bind| bind.is_ipv6());
    for (name, port, [v4, v6], default) in ADDRESSES {
        let Some(address) = settings.get_mut(name) else { continue };
        let port = ports.get(port).filter(|_| !has_file).and_then(|port| parse_int(&port.value));
        let number = port.unwrap_or(default.into());
        let is_default = matches!(address.origin, Origin::Default { .. });
        if is_default && is_v6 && has_file {
            address.value = format!("{v6}:{default}");
        } else if address.value.is_empty() && !has_file {
            // An empty flag is forgotten (`IPPortVar.Set`), whatever its description says.
            (address.value, address.set) = (format!("{v4}:{default}"), true);
            address.why = format!("empty, which leaves the default, {}", address.value);
        } else if let Ok(ip) = address.value.parse::<IpAddr>() {
            address.value = if ip.is_ipv6() { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") };
        }
        if number == 0 {
            (address.value, address.set) = (String::new(), false);
            "the flag for its port is 0".clone_into(&mut address.why);
        }
    }
}

/// Returns where a kube-proxy with these settings listens: its metrics, and its health.
fn listens(settings: &Settings) -> Vec<(Url, Origin)> {
    let url = |(name, ..): (&str, &str, [&str; 2], u16)| {
        let address = settings.get(name).filter(|address| address.set)?;
        Some((Url::parse(&format!("http://{}", address.value))?, address.origin.clone()))
    };
    ADDRESSES.into_iter().filter_map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_evidence::EvidenceError;
    use seaworthy_settings::ConfigText;

    fn resolved(line: &str, file: &str, runs: bool) -> Resolved {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |path: &str| match (path, file) {
            ("/c", "") => Err(EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file"))),
            ("/c", text) => {
                let origin = Origin::process_file(7, path);
                Ok(ConfigText { bytes: text.as_bytes().to_vec(), changed_at: None, origin })
            }
            _ => Err(EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file"))),
        };
        let list = &mut seaworthy_settings::no_list;
        resolve(Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release: Some("1.35.4"),
            runs,
            read,
            list,
        })
    }

    #[test]
    fn a_configuration_file_replaces_the_flags_but_a_few() {
        let stock = include_str!("../testdata/kube-proxy/config.conf");
        let (v6, open) = ("bindAddress: '::'\n", "metricsBindAddress: 0.0.0.0\nenableProfiling: true\n");
        // The command line, the file, a setting, its value, the beginning of the reason, and what lost.
        let cases = [
            ("", "", METRICS, "127.0.0.1:10249", "not set; by default", &[][..]),
            ("--metrics-bind-address=", "", METRICS, "127.0.0.1:10249", "empty, which leaves", &[]),
            ("--metrics-bind-address=0.0.0.0", "", METRICS, "0.0.0.0:10249", "set by flag", &[]),
            ("--metrics-bind-address=::", "", METRICS, "[::]:10249", "set by flag", &[]),
            ("--metrics-bind-address=0.0.0.0 --metrics-port=1", "", METRICS, "0.0.0.0:1", "set by flag", &[]),
            ("--metrics-port=1", "", METRICS, "127.0.0.1:10249", "not set", &[]),
            ("--metrics-port=0", "", METRICS, "", "the flag for its port is 0", &[]),
            ("--bind-address=::", "", METRICS, "127.0.0.1:10249", "not set", &[]),
            ("--config=/c", stock, METRICS, "127.0.0.1:10249", "by default", &[]),
            ("--config=/c", stock, "healthz-bind-address", "0.0.0.0:10256", "by default", &[]),
            ("--config=/c", stock, "kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf", "set in the", &[]),
            (
                "--config=/c --kubeconfig=/k",
                stock,
                "kubeconfig",
                "/var/lib/kube-proxy/kubeconfig.conf",
                "set in",
                &["/k"],
            ),
            ("--config=/c --hostname-override=cp1", stock, "hostname-override", "cp1", "set by flag", &[]),
            (
                "--config=/c --metrics-bind-address=127.0.0.1",
                open,
                METRICS,
                "0.0.0.0:10249",
                "set in the",
                &["127.0.0.1"],
            ),
            ("--config=/c --metrics-port=0", open, METRICS, "0.0.0.0:10249", "set in the", &[]),
            ("--config=/c --profiling=false", open, "profiling", "true", "set in the", &["false"]),
            ("--config=/c --profiling=true", stock, "profiling", "false", "set in", &["true"]),
            ("--config=/c", v6, METRICS, "[::1]:10249", "by default", &[]),
            ("--config=/c", v6, "healthz-bind-address", "[::]:10256", "by default", &[]),
        ];
        for (line, file, name, value, why, lost) in cases {
            let resolved = resolved(line, file, true);
            let setting = &resolved.settings.value().unwrap()[name];
            let overridden: Vec<&str> = setting.overridden.iter().map(|lost| lost.value.as_str()).collect();
            assert_eq!(
                (setting.value.as_str(), overridden.as_slice()),
                (value, lost),
                "{line} {file} {name}"
            );
            assert!(setting.why.starts_with(why), "{line} {file} {name}: {}", setting.why);
            assert_eq!(setting.set, !value.is_empty(), "{line} {file} {name}");
        }
        let urls = |line: &str| -> Vec<String> {
            let resolved = resolved(line, "", true);
            listens(resolved.settings.value().unwrap()).into_iter().map(|(url, _)| url.text).collect()
        };
        assert_eq!(urls(""), ["http://0.0.0.0:10256", "http://127.0.0.1:10249"]);
        assert_eq!(urls("--metrics-port=0 --healthz-port=0"), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_unknown_what_it_decides() {
        for file in ["", "metricsBindAddress: [\n", "kind: KubeletConfiguration\n", "metricsBindAddress: 1\n"]
        {
            let line = "--config=/c --metrics-bind-address=127.0.0.1 --hostname-override=cp1";
            let resolved = resolved(line, file, true);
            let settings = resolved.settings.value().unwrap();
            assert!(settings.why_unknown(METRICS).is_some(), "{file}");
            assert_eq!(settings["hostname-override"].value, "cp1", "{file}");
        }
        let said =
            |line: &str| resolved(line, "", false).fatal.into_iter().map(|f| f.message).collect::<Vec<_>>();
        assert_eq!(said("--config=/c"), ["open /c: no such file or directory"]);
        assert_eq!(said("--kubeconfig=/k"), ["open /k: no such file or directory"]);
    }

    #[test]
    fn a_task_is_no_proxy() {
        for (line, want) in [
            ("--config=/c", false),
            ("--cleanup", true),
            ("--cleanup=false", false),
            ("--init_only=true --config=/c", true),
            ("--write-config-to=/x", true),
            ("--version", true),
        ] {
            let arguments: Vec<Argument> = line
                .split(' ')
                .map(|text| Argument { text: text.as_bytes().to_vec(), origin: Origin::file("/m") })
                .collect();
            assert_eq!(is_other(&arguments), want, "{line}");
        }
    }
}
