//! The reference: for each control a shell pipeline, as a tool that runs a script per check starts them.
//!
//! They ask for the same controls as an audit, but for far less: whether a flag stands in the process list, and what
//! mode and owner some files have.

/// A control, and the pipelines that check it.
pub(crate) type Reference = (&'static str, &'static [&'static str]);

/// The controls about etcd.
pub(crate) const OF_ETCD: &[Reference] = &[
    (
        "2.1",
        &[
            "ps -ef | grep etcd | grep -v grep | grep -e ' --cert-file='",
            "ps -ef | grep etcd | grep -v grep | grep -e ' --key-file='",
        ],
    ),
    ("2.2", &["ps -ef | grep etcd | grep -v grep | grep -e ' --client-cert-auth=true'"]),
    ("2.3", &["! ps -ef | grep etcd | grep -v grep | grep -e ' --auto-tls=true'"]),
    (
        "2.4",
        &[
            "ps -ef | grep etcd | grep -v grep | grep -e ' --peer-cert-file='",
            "ps -ef | grep etcd | grep -v grep | grep -e ' --peer-key-file='",
        ],
    ),
    ("2.5", &["ps -ef | grep etcd | grep -v grep | grep -e ' --peer-client-cert-auth=true'"]),
    ("2.6", &["! ps -ef | grep etcd | grep -v grep | grep -e ' --peer-auto-tls=true'"]),
    (
        "2.7",
        &[
            "ps -ef | grep etcd | grep -v grep | grep -oe ' --trusted-ca-file=[^ ]*'",
            "ps -ef | grep kube-apiserver | grep -v grep | grep -oe ' --client-ca-file=[^ ]*'",
        ],
    ),
    ("1.1.7", &["stat -c %a /etc/kubernetes/manifests/etcd.yaml | grep -x '[0246]00'"]),
    ("1.1.8", &["stat -c %U:%G /etc/kubernetes/manifests/etcd.yaml | grep -x root:root"]),
    (
        "1.1.11",
        &[
            "stat -c %a $(ps -ef | grep etcd | grep -v grep | grep -o ' --data-dir=[^ ]*' | cut -d= -f2 | head -1) \
           | grep -x '[0-7]00'",
        ],
    ),
    (
        "1.1.12",
        &[
            "stat -c %U:%G $(ps -ef | grep etcd | grep -v grep | grep -o ' --data-dir=[^ ]*' | cut -d= -f2 | head -1) \
           | grep -x etcd:etcd",
        ],
    ),
    ("1.1.19", &["! find /etc/kubernetes/pki | xargs stat -c %U:%G | grep -vx root:root"]),
    ("1.1.20", &["! find /etc/kubernetes/pki -name '*.crt' | xargs stat -c %a | grep -v '^[0246][04][04]$'"]),
    ("1.1.21", &["! find /etc/kubernetes/pki -name '*.key' | xargs stat -c %a | grep -v '^[0246]00$'"]),
];

/// The controls about kube-scheduler and kube-controller-manager.
pub(crate) const OF_KUBERNETES: &[Reference] = &[
    ("1.1.3", &["stat -c %a /etc/kubernetes/manifests/kube-controller-manager.yaml | grep -x '[0246]00'"]),
    ("1.1.4", &["stat -c %U:%G /etc/kubernetes/manifests/kube-controller-manager.yaml | grep -x root:root"]),
    ("1.1.5", &["stat -c %a /etc/kubernetes/manifests/kube-scheduler.yaml | grep -x '[0246]00'"]),
    ("1.1.6", &["stat -c %U:%G /etc/kubernetes/manifests/kube-scheduler.yaml | grep -x root:root"]),
    ("1.1.15", &["stat -c %a /etc/kubernetes/scheduler.conf | grep -x '[0246]00'"]),
    ("1.1.16", &["stat -c %U:%G /etc/kubernetes/scheduler.conf | grep -x root:root"]),
    ("1.1.17", &["stat -c %a /etc/kubernetes/controller-manager.conf | grep -x '[0246]00'"]),
    ("1.1.18", &["stat -c %U:%G /etc/kubernetes/controller-manager.conf | grep -x root:root"]),
    (
        "1.3.1",
        &["ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --terminated-pod-gc-threshold='"],
    ),
    ("1.3.2", &["ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --profiling=false'"]),
    (
        "1.3.3",
        &[
            "ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --use-service-account-credentials=true'",
        ],
    ),
    (
        "1.3.4",
        &[
            "ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --service-account-private-key-file='",
        ],
    ),
    ("1.3.5", &["ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --root-ca-file='"]),
    (
        "1.3.6",
        &[
            "! ps -ef | grep kube-controller-manager | grep -v grep | grep -e 'RotateKubeletServerCertificate=false'",
        ],
    ),
    (
        "1.3.7",
        &["ps -ef | grep kube-controller-manager | grep -v grep | grep -e ' --bind-address=127.0.0.1'"],
    ),
    ("1.4.1", &["ps -ef | grep kube-scheduler | grep -v grep | grep -e ' --profiling=false'"]),
    ("1.4.2", &["ps -ef | grep kube-scheduler | grep -v grep | grep -e ' --bind-address=127.0.0.1'"]),
];

/// Returns each pipeline as the command that a tool starts.
pub(crate) fn commands(controls: &[Reference]) -> Vec<Vec<String>> {
    let shell = |pipeline: &&str| ["/bin/sh", "-c", pipeline].map(str::to_owned).to_vec();
    controls.iter().flat_map(|(_, pipelines)| pipelines.iter().map(shell)).collect()
}
