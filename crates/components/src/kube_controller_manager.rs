//! kube-controller-manager: pflag alone.

use seaworthy_evidence::{ErrorKind, EvidenceError, Observed, PredictedFailure, Setting, Settings};
use seaworthy_settings::pflag::{self, Flag, Gate, Table, Takes};
use seaworthy_settings::{Given, Resolved};

use crate::serving::{self, Content, Needed};
use crate::{Component, Program};

/// Controller managers.
pub static COMPONENT: Component = Component {
    name: "kube-controller-manager",
    of_control_plane: true,
    special: None,
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of controller managers.
pub static PROGRAM: Program = Program {
    package: Some("k8s.io/kubernetes/cmd/kube-controller-manager"),
    is_called: |name| name == COMPONENT.name,
    is_other: |arguments| pflag::prints_and_exits(&TABLE, arguments),
    unit: "kube-controller-manager.service",
    variable: None,
    config: None,
    files: &[
        "authentication-kubeconfig",
        "authorization-kubeconfig",
        "client-ca-file",
        "cluster-signing-cert-file",
        "cluster-signing-key-file",
        "cluster-signing-kube-apiserver-client-cert-file",
        "cluster-signing-kube-apiserver-client-key-file",
        "cluster-signing-kubelet-client-cert-file",
        "cluster-signing-kubelet-client-key-file",
        "cluster-signing-kubelet-serving-cert-file",
        "cluster-signing-kubelet-serving-key-file",
        "cluster-signing-legacy-unknown-cert-file",
        "cluster-signing-legacy-unknown-key-file",
        "kubeconfig",
        "requestheader-client-ca-file",
        "root-ca-file",
        "service-account-private-key-file",
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
    "cluster-signing-cert-file",
    "cluster-signing-duration",
    "cluster-signing-key-file",
    "cluster-signing-kube-apiserver-client-cert-file",
    "cluster-signing-kube-apiserver-client-key-file",
    "cluster-signing-kubelet-client-cert-file",
    "cluster-signing-kubelet-client-key-file",
    "cluster-signing-kubelet-serving-cert-file",
    "cluster-signing-kubelet-serving-key-file",
    "cluster-signing-legacy-unknown-cert-file",
    "cluster-signing-legacy-unknown-key-file",
    "controllers",
    "feature-gates",
    "kubeconfig",
    "leader-elect",
    "profiling",
    "requestheader-client-ca-file",
    "root-ca-file",
    "secure-port",
    "service-account-private-key-file",
    "terminated-pod-gc-threshold",
    "tls-cert-file",
    "tls-cipher-suites",
    "tls-min-version",
    "tls-private-key-file",
    "use-service-account-credentials",
];

/// The flags of all releases.
static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/kube_controller_manager.rs"));

/// The controllers, and the names that they had before 1.28, which are taken as well: `cmd/kube-controller-manager/names` and the aliases
/// in `cmd/kube-controller-manager/app`, of 1.34.4 to 1.37.2 together. A name that only one of them has loses a prediction for the others.
const CONTROLLERS: &str = "\
    attachdetach bootstrap-signer-controller bootstrapsigner certificatesigningrequest-approving-controller \
    certificatesigningrequest-cleaner-controller certificatesigningrequest-signing-controller \
    cloud-node-lifecycle clusterrole-aggregation clusterrole-aggregation-controller cronjob \
    cronjob-controller csrapproving csrcleaner csrsigning daemonset daemonset-controller deployment \
    deployment-controller device-taint-eviction-controller disruption disruption-controller endpoint \
    endpoints-controller endpointslice endpointslice-controller endpointslice-mirroring-controller \
    endpointslicemirroring ephemeral-volume ephemeral-volume-controller garbage-collector-controller \
    garbagecollector horizontal-pod-autoscaler-controller horizontalpodautoscaling job job-controller \
    kube-apiserver-serving-clustertrustbundle-publisher-controller legacy-service-account-token-cleaner \
    legacy-serviceaccount-token-cleaner-controller namespace namespace-controller node-ipam-controller \
    node-lifecycle-controller nodeipam nodelifecycle persistentvolume-attach-detach-controller \
    persistentvolume-binder persistentvolume-binder-controller persistentvolume-expander \
    persistentvolume-expander-controller persistentvolume-protection-controller \
    persistentvolumeclaim-protection-controller pod-garbage-collector-controller \
    podcertificaterequest-cleaner-controller podgc podgroup-protection-controller pv-protection \
    pvc-protection replicaset replicaset-controller replicationcontroller replicationcontroller-controller \
    resource-claim-controller resourceclaim-controller resourcepoolstatusrequest-controller resourcequota \
    resourcequota-controller root-ca-cert-publisher root-ca-certificate-publisher-controller route \
    selinux-warning-controller service service-cidr-controller serviceaccount serviceaccount-controller \
    serviceaccount-token serviceaccount-token-controller statefulset statefulset-controller \
    storage-version-gc storage-version-migrator-controller storageversion-garbage-collector-controller svm \
    taint-eviction-controller token-cleaner-controller tokencleaner ttl ttl-after-finished \
    ttl-after-finished-controller ttl-controller validatingadmissionpolicy-status-controller \
    volumeattributesclass-protection-controller";

/// The signers of certificates that may have a CA of their own.
const SIGNERS: [&str; 4] = ["kube-apiserver-client", "kubelet-client", "kubelet-serving", "legacy-unknown"];

/// When it reads what only its controllers need.
const LEADS: &str = ", for which it exits as soon as it leads";

/// The files without which its controllers cannot be made (`BuildControllers`), so that it exits; that of service accounts is made first,
/// whatever `--controllers` says. Read in 1.35.4 and 1.36.3.
const NEEDED: &[Needed] = &[
    Needed {
        setting: "root-ca-file",
        content: Content::Certificates,
        when: |settings| {
            is_set(settings, "service-account-private-key-file").is_some()
                || is_enabled(
                    settings,
                    ["root-ca-certificate-publisher-controller", "root-ca-cert-publisher"],
                )
        },
        then: LEADS,
    },
    Needed {
        setting: "service-account-private-key-file",
        content: Content::Key,
        when: |_| true,
        then: LEADS,
    },
    signing("cluster-signing-cert-file", Content::Certificate),
    signing("cluster-signing-key-file", Content::Key),
    signing("cluster-signing-kube-apiserver-client-cert-file", Content::Certificate),
    signing("cluster-signing-kube-apiserver-client-key-file", Content::Key),
    signing("cluster-signing-kubelet-client-cert-file", Content::Certificate),
    signing("cluster-signing-kubelet-client-key-file", Content::Key),
    signing("cluster-signing-kubelet-serving-cert-file", Content::Certificate),
    signing("cluster-signing-kubelet-serving-key-file", Content::Key),
    signing("cluster-signing-legacy-unknown-cert-file", Content::Certificate),
    signing("cluster-signing-legacy-unknown-key-file", Content::Key),
];

const fn signing(setting: &'static str, content: Content) -> Needed {
    let when = |settings: &Settings| {
        // With one of these two alone nothing is signed, which is only logged.
        let general = ["cluster-signing-cert-file", "cluster-signing-key-file"];
        let half = general.iter().filter(|name| is_set(settings, name).is_some()).count() == 1;
        !half && is_enabled(settings, ["certificatesigningrequest-signing-controller", "csrsigning"])
    };
    Needed { setting, content, when, then: LEADS }
}

fn resolve(mut given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    if let (Observed::Seen { value: settings, .. }, None) = (&resolved.settings, &resolved.doubt) {
        resolved.fatal.extend(signers(settings));
        match unknown_controller(settings) {
            Some(failure) if TABLE.knows(given.release) => resolved.fatal.push(failure),
            Some(PredictedFailure { message, origin, .. }) => {
                let message = format!("{message}, in no release of kube-controller-manager that is known");
                resolved.doubt = Some(EvidenceError::new(ErrorKind::Unsupported, message).at(origin));
            }
            None => {}
        }
    }
    serving::missing(&mut given, &mut resolved, serving::NEEDED.iter().chain(NEEDED));
    resolved
}

fn is_set<'a>(settings: &'a Settings, name: &str) -> Option<&'a Setting> {
    settings.get(name).filter(|setting| setting.set)
}

/// Returns whether the controller with one of these `names` is on; the first that decides counts (`genericcontrollermanager.IsControllerEnabled`).
fn is_enabled(settings: &Settings, names: [&str; 2]) -> bool {
    let Some(controllers) = settings.get("controllers") else { return false };
    let each = || controllers.value.split(',');
    let named = each().find_map(|one| match one.strip_prefix('-') {
        Some(off) => names.contains(&off).then_some(false),
        None => names.contains(&one).then_some(true),
    });
    named.unwrap_or_else(|| each().any(|one| one == "*"))
}

/// Returns the first name in `--controllers` that no controller has (`GenericControllerManagerConfigurationOptions.Validate`).
fn unknown_controller(settings: &Settings) -> Option<PredictedFailure> {
    let setting = is_set(settings, "controllers").filter(|setting| !setting.value.contains('"'))?;
    let known = |name: &str| CONTROLLERS.split_ascii_whitespace().any(|known| known == name);
    let names = setting.value.split(',').map(|name| (name, name.strip_prefix('-').unwrap_or(name)));
    let (_, name) = names.into_iter().find(|(whole, name)| *whole != "*" && !known(name))?;
    let name: String = name.chars().take(64).collect();
    Some(failure("controllers", format!("{name:?} is not in the list of known controllers"), setting))
}

/// Returns what `CSRSigningControllerOptions.Validate` refuses.
fn signers(settings: &Settings) -> Vec<PredictedFailure> {
    let name = |signer: &str, what: &str| format!("cluster-signing-{signer}-{what}-file");
    let mut found = Vec::new();
    let mut own = false;
    for signer in SIGNERS {
        let [certificate, key] = ["cert", "key"].map(|what| name(signer, what));
        match (is_set(settings, &certificate), is_set(settings, &key)) {
            (Some(setting), None) => {
                found.push(failure(&certificate, "cannot specify cert without key", setting));
            }
            (None, Some(setting)) => found.push(failure(&key, "cannot specify key without cert", setting)),
            (None, None) => continue,
            _ => {}
        }
        own = true;
    }
    let general = ["cluster-signing-cert-file", "cluster-signing-key-file"];
    if let Some((name, setting)) = general.iter().find_map(|name| Some((name, is_set(settings, name)?)))
        && own
    {
        let message = "cannot specify --cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags \
                       at the same time";
        found.push(failure(name, message, setting));
    }
    found
}

fn failure(name: &str, message: impl Into<String>, setting: &Setting) -> PredictedFailure {
    PredictedFailure { setting: name.to_owned(), message: message.into(), origin: setting.origin.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_evidence::Origin;
    use seaworthy_settings::{Argument, ConfigText};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n";

    /// Returns what it would exit for, the settings before it; `?` where that is not known.
    fn said(line: &str, release: Option<&str>) -> String {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |path: &str| {
            let text = match path {
                "/crt" => CERTIFICATE.to_owned(),
                "/two" => CERTIFICATE.repeat(2),
                "/key" => KEY.to_owned(),
                "/sealed" => KEY.replace("RSA PRIVATE", "ENCRYPTED PRIVATE"),
                "/conf" => "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {}}]\n".to_owned(),
                "/bare" => "apiVersion: v1\nkind: Config\nclusters: []\n".to_owned(),
                "/text" => "hunter2".to_owned(),
                "/empty" => String::new(),
                "/denied" => return Err(EvidenceError::new(ErrorKind::PermissionDenied, "denied")),
                _ => return Err(EvidenceError::new(ErrorKind::NotFound, "no such file")),
            };
            Ok(ConfigText { bytes: text.into_bytes(), changed_at: None, origin: Origin::file(path) })
        };
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
            (fatal, _) => {
                fatal.iter().map(|f| format!("{}: {}", f.setting, f.message)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    #[test]
    fn controllers_have_names_that_are_known() {
        let cases = [
            ("", ["", ""]),
            ("--controllers=*,bootstrapsigner,-tokencleaner,job-controller", ["", ""]),
            ("--controllers=", ["", ""]),
            (
                "--controllers=*,nonsense",
                ["controllers: \"nonsense\" is not in the list of known controllers", "?"],
            ),
            ("--controllers=-Job", ["controllers: \"Job\" is not in the list of known controllers", "?"]),
            (
                "--controllers=* --controllers=x",
                ["controllers: \"x\" is not in the list of known controllers", "?"],
            ),
        ];
        for (line, want) in cases {
            assert_eq!([Some("v1.36.3"), None].map(|release| said(line, release)), want, "{line}");
        }
    }

    #[test]
    fn signers_have_both_files_or_none() {
        let own = "--cluster-signing-kubelet-serving-";
        let all = "--cluster-signing-";
        let cases = [
            (format!("{own}cert-file=/crt {own}key-file=/key"), ""),
            (
                format!("{own}cert-file=/crt"),
                "cluster-signing-kubelet-serving-cert-file: cannot specify cert without key",
            ),
            (
                format!("{own}key-file=/key"),
                "cluster-signing-kubelet-serving-key-file: cannot specify key without cert",
            ),
            (
                format!("{own}cert-file=/crt {own}key-file=/key {all}key-file=/key"),
                "cluster-signing-key-file: cannot specify --cluster-signing-{cert,key}-file and other",
            ),
            // It signs nothing then, which it only logs.
            (format!("{all}cert-file=/none"), ""),
        ];
        for (line, want) in cases {
            let said = said(&line, None);
            assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{line}: {said}");
        }
    }

    #[test]
    fn files_are_there_and_hold_what_they_should() {
        let signing = "--cluster-signing-cert-file=/crt --cluster-signing-key-file";
        let cases = [
            ("--kubeconfig=/conf --authentication-kubeconfig=/conf --root-ca-file=/two".to_owned(), ""),
            ("--kubeconfig=/none".to_owned(), "kubeconfig: open /none: no such file or directory"),
            ("--kubeconfig=/empty".to_owned(), "kubeconfig: /empty is empty"),
            ("--kubeconfig=/crt".to_owned(), "kubeconfig: /crt is no kubeconfig"),
            ("--kubeconfig=/bare".to_owned(), "kubeconfig: /bare names no cluster"),
            ("--kubeconfig=/bare --master=http://127.0.0.1:8080".to_owned(), ""),
            ("--kubeconfig=/none --master=http://127.0.0.1:8080".to_owned(), "kubeconfig: open /none"),
            ("--kubeconfig=/text".to_owned(), "?"),
            ("--kubeconfig=/denied".to_owned(), "?"),
            ("--authorization-kubeconfig=/none".to_owned(), "authorization-kubeconfig: open /none"),
            // What is not served needs no file.
            ("--authorization-kubeconfig=/none --client-ca-file=/none --secure-port=0".to_owned(), ""),
            ("--client-ca-file=/key".to_owned(), "client-ca-file: /key does not contain any valid"),
            ("--tls-cert-file=/two --tls-private-key-file=/key".to_owned(), ""),
            (
                "--tls-cert-file=/crt --tls-private-key-file=/sealed".to_owned(),
                "tls-private-key-file: /sealed does not",
            ),
            (
                "--root-ca-file=/none".to_owned(),
                "root-ca-file: open /none: no such file or directory, for which it exits as soon as",
            ),
            ("--root-ca-file=/none --controllers=job".to_owned(), ""),
            ("--root-ca-file=/none --controllers=*,-root-ca-cert-publisher".to_owned(), ""),
            (
                "--root-ca-file=/none --controllers=job --service-account-private-key-file=/key".to_owned(),
                "root-ca-file: open /none",
            ),
            (
                "--service-account-private-key-file=/crt".to_owned(),
                "service-account-private-key-file: /crt does not",
            ),
            (format!("{signing}=/key"), ""),
            (format!("{signing}=/none"), "cluster-signing-key-file: open /none"),
            (format!("{signing}=/none --controllers=*,-csrsigning"), ""),
            (
                "--cluster-signing-cert-file=/two --cluster-signing-key-file=/key".to_owned(),
                "cluster-signing-cert-file: /two: expected 1 certificate, found 2",
            ),
        ];
        for (line, want) in cases {
            let said = said(&line, None);
            assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{line}: {said}");
        }
    }

    #[test]
    fn gates_are_those_of_the_table() {
        let cases = [
            ("--feature-gates=RotateKubeletServerCertificate=false,AllBeta=true", ["", "", ""]),
            (
                "--feature-gates=Nonsense=true",
                ["feature-gates: unrecognized", "feature-gates: unrecognized", "?"],
            ),
            // Locked in both.
            (
                "--feature-gates=NodeSwap=false",
                ["feature-gates: cannot set", "feature-gates: cannot set", "?"],
            ),
            // Locked from 1.36 on, and gone in it.
            ("--feature-gates=ProcMountType=false", ["", "feature-gates: cannot set", ""]),
            ("--feature-gates=MemoryManager=true", ["", "feature-gates: unrecognized feature gate", ""]),
        ];
        for (line, want) in cases {
            for (release, want) in [Some("v1.35.4"), Some("v1.36.3"), None].into_iter().zip(want) {
                let said = said(line, release);
                assert!(
                    said.starts_with(want) && said.is_empty() == want.is_empty(),
                    "{line} {release:?}: {said}"
                );
            }
        }
    }

    #[test]
    fn a_flag_that_went_is_a_mistake_from_that_release_on() {
        // The flag, the release, whether it is a mistake, and whether it may be one.
        let cases = [
            ("--concurrent-service-syncs=2", Some("1.36.9"), false, false),
            ("--concurrent-service-syncs=2", Some("1.37.0"), true, false),
            ("--concurrent-service-syncs=2", None, false, false),
            ("--concurrent-disruption-syncs=2", Some("1.35.4"), true, false),
            ("--concurrent-disruption-syncs=2", Some("1.37.2"), false, false),
            ("--no-such-flag=2", Some("1.37.2"), true, false),
            ("--no-such-flag=2", Some("1.99.0"), false, true),
        ];
        for (text, release, mistake, doubt) in cases {
            let origin = Origin::Argv { pid: 7, index: 1 };
            let arguments = [Argument { text: text.as_bytes().to_vec(), origin }];
            let read = &mut |path: &str| panic!("{path} is read");
            let given = Given {
                arguments: &arguments,
                environment: Ok(&[]),
                release,
                runs: false,
                read,
                list: &mut seaworthy_settings::no_list,
            };
            let resolved = (PROGRAM.resolve)(given);
            let got = (!resolved.fatal.is_empty(), resolved.doubt.is_some());
            assert_eq!(got, (mistake, doubt), "{text} {release:?}");
        }
    }
}
