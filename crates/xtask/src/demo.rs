//! `cargo xtask demo`: a real cluster that passes every search for flags, what Seaworthy says about it, and how it is fixed
//! while clients write.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use anyhow::Context as _;
use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, Node, Supervisor};

use crate::{say, workspace};

/// Where the nodes see the program.
const SEAWORTHY: &str = "/host-bin/seaworthy";

pub(crate) fn run() -> anyhow::Result<()> {
    crate::lab()?;
    let binary = &EtcdBinary::required()?.pop().context("no etcd in the lab")?;
    crate::run("cargo", &["build", "--quiet", "--locked", "--package", "seaworthy"])?;
    let folder = workspace().join("target/debug");

    step(
        "Three etcd members, each on a node of its own. The certificate flags are set; the peer URLs say http.",
    );
    let spec = ClusterSpec::new(binary).members(3).share(&folder, "/host-bin").each(|m| {
        m.peers("http");
        m.supervisor = Supervisor::Kubelet;
    });
    let cluster = Cluster::start(spec)?;
    cluster.put("/registry/secrets/default/db", "SUPERSECRET")?;
    let node = cluster.node(0);
    show(node, "sh", &["-c", "tr '\\0' '\\n' < /proc/$(pidof etcd)/cmdline | grep peer"])?;

    step("A search for the two flags, which is how this control is usually checked, is satisfied:");
    show(
        node,
        "sh",
        &["-c", "tr '\\0' '\\n' < /proc/$(pidof etcd)/cmdline | grep -cE -- '--peer-(cert|key)-file'"],
    )?;

    step("Seaworthy looks:");
    show(node, SEAWORTHY, &["--color", "always", "audit", "--rule", "2.4"])?;

    step("And it is right: another machine on the network asks the peer port, without any certificate.");
    show(cluster.node(1), SEAWORTHY, &["--color", "always", "probe", "10.77.0.1:2380"])?;

    step("What is to be done about it? A plan, and nothing else:");
    show(node, SEAWORTHY, &["--color", "always", "fix", "etcd-peer-tls"])?;

    step("While clients write and read through all members, it is carried out on all three nodes at once:");
    let writer = cluster.writer()?;
    let apply = ["--color", "always", "fix", "etcd-peer-tls", "--apply"];
    thread::scope(|scope| {
        let others =
            [1, 2].map(|index| cluster.node(index)).map(|node| scope.spawn(|| succeed(node, &apply)));
        show(node, SEAWORTHY, &apply)?;
        others
            .into_iter()
            .try_for_each(|other| other.join().unwrap_or_else(|_| anyhow::bail!("a run has panicked")))
    })?;
    let report = writer.finish()?;
    say(&format!(
        "\n{} writes were acknowledged meanwhile, {} of them were lost; the longest pause between two was {:.0} ms.",
        report.acks, report.lost, report.longest_gap_ms
    ));
    anyhow::ensure!(report.clean(), "the writers complain: {report:?}");

    step("Seaworthy looks again:");
    show(node, SEAWORTHY, &["--color", "always", "audit", "--rule", "2.4", "--verbose"])?;
    show(cluster.node(1), SEAWORTHY, &["--color", "always", "probe", "10.77.0.1:2380"])?;

    step("What was done is written down, and can be rolled back:");
    show(node, SEAWORTHY, &["--color", "always", "fix", "--status"])?;
    show(node, SEAWORTHY, &["--color", "always", "fix", "--rollback"])?;
    Ok(())
}

/// Runs seaworthy on a node without showing it.
fn succeed(node: &Node, arguments: &[&str]) -> anyhow::Result<()> {
    let output = node.run(SEAWORTHY, arguments)?;
    anyhow::ensure!(output.status.success(), "on {}: {}", node.name, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn step(text: &str) {
    say(&format!("\n\x1b[1m▌ {text}\x1b[0m\n"));
}

/// Shows a command as it is typed on `node`, and what it prints.
fn show(node: &Node, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let quote = |a: &&str| if a.contains(' ') { format!("\"{a}\"") } else { (*a).to_owned() };
    let name = Path::new(program).file_name().map_or(program.into(), |n| n.to_string_lossy());
    let typed = match arguments {
        ["-c", script] => (*script).to_owned(),
        _ => {
            let plain = arguments.iter().filter(|a| !matches!(**a, "--color" | "always"));
            format!("{name} {}", plain.map(quote).collect::<Vec<_>>().join(" "))
        }
    };
    say(&format!("{}# {typed}", node.name));
    // What happens is shown while it happens.
    let mut child =
        node.command(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut told = String::new();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        say(&line);
        told.push_str(&line);
    }
    let output = child.wait_with_output()?;
    say(String::from_utf8_lossy(&output.stdout).trim_end());
    // A finding, and a plan that waits for others, are what is to be shown.
    anyhow::ensure!(matches!(output.status.code(), Some(0 | 1 | 3)), "{program} failed: {told}");
    Ok(())
}
