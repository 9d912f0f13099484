//! `cargo xtask cluster`: a real Kubernetes node to look at.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::Context as _;
use clap::Subcommand;
use seaworthy_kubeadm::{Node, Progress, RELEASE, down};

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Bring the node up: kubeadm, kubelet and containerd in namespaces. The first time builds Kubernetes, which takes long
    Up {
        /// The release of Kubernetes
        #[arg(long, default_value = RELEASE)]
        release: String,
    },
    /// Run a command on the node as root, such as `kubectl get pods -A` or `seaworthy audit`
    Exec {
        /// The command and its arguments
        #[arg(required = true, last = true, value_name = "COMMAND")]
        words: Vec<OsString>,
    },
    /// End the node and everything that runs on it. Its disk is kept, so that the next `up` takes seconds
    Down {
        /// Throw its disk away as well, so that the next `up` runs `kubeadm init`
        #[arg(long)]
        purge: bool,
    },
    /// Bring the node up and check that it is as kubeadm makes it, and that Seaworthy judges it
    Test,
}

pub(crate) fn run(cluster: Cluster) -> anyhow::Result<()> {
    match cluster {
        Cluster::Up { release } => Node::up(&release, &Progress::new()).map(drop),
        Cluster::Exec { words } => exec(&words),
        Cluster::Down { purge } => down(purge, &Progress::new()),
        Cluster::Test => test(),
    }
}

/// Becomes the command on the node, so that its streams, its signals and its exit code are this program's.
fn exec(words: &[OsString]) -> anyhow::Result<()> {
    let node = Node::running()?.context("no node is up: `cargo xtask cluster up` brings one up")?;
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = node.command(program);
    for name in ["TERM", "LANG", "NO_COLOR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let error = command.args(arguments).stdin(Stdio::inherit()).exec();
    Err(error).context("cannot enter the node")
}

fn test() -> anyhow::Result<()> {
    crate::run("cargo", &["build", "--quiet", "--locked", "--package", "seaworthy"])?;
    // Nothing else builds these tests. They show the node's progress while they wait for it.
    let tests =
        ["test", "--locked", "--package", "seaworthy-kubeadm", "--features", "cluster", "--test", "*"];
    crate::run("cargo", &[&tests[..], &["--", "--nocapture", "--test-threads", "1"]].concat())
}
