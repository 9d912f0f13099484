//! kube-controller-manager: pflag alone.

use seaworthy_settings::pflag::{self, Flag, Table, Takes};

use crate::serving;
use crate::{Component, Program};

/// Controller managers.
pub static COMPONENT: Component =
    Component { name: "kube-controller-manager", special: None, settings: SETTINGS, program: Some(&PROGRAM) };

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
    resolve: |given| pflag::resolve(&TABLE, SETTINGS, &given),
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

#[cfg(test)]
mod tests {
    use seaworthy_evidence::Origin;
    use seaworthy_settings::{Argument, Given};

    use super::*;

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
            let given = Given { arguments: &arguments, environment: Ok(&[]), release, runs: false, read };
            let resolved = (PROGRAM.resolve)(given);
            let got = (!resolved.fatal.is_empty(), resolved.doubt.is_some());
            assert_eq!(got, (mistake, doubt), "{text} {release:?}");
        }
    }
}
