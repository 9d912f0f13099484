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
