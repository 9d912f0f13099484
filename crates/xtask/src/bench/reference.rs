//! The reference: for each control a shell pipeline, as a tool that runs a script per check starts them.
//!
//! They ask for the same controls as an audit, but for far less: whether a flag stands in the process list, and what
//! mode and owner some files have.

/// Controls and the pipelines that check them.
const PIPELINES: [(&str, &[&str]); 14] = [
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

/// Returns each pipeline as the command that a tool starts.
pub(crate) fn commands() -> Vec<Vec<String>> {
    let shell = |pipeline: &&str| ["/bin/sh", "-c", pipeline].map(str::to_owned).to_vec();
    PIPELINES.iter().flat_map(|(_, pipelines)| pipelines.iter().map(shell)).collect()
}

/// Returns the controls.
pub(crate) fn controls() -> impl Iterator<Item = &'static str> {
    PIPELINES.iter().map(|(control, _)| *control)
}
