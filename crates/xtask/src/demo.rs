//! `cargo xtask demo`: a real cluster that passes every search for flags, and what Seaworthy says about it.

use std::path::Path;

use anyhow::Context as _;
use seaworthy_lab::{Cluster, ClusterSpec, EtcdBinary, Node};

use crate::{say, workspace};

pub(crate) fn run() -> anyhow::Result<()> {
    crate::lab()?;
    let binary = &EtcdBinary::required()?.pop().context("no etcd in the lab")?;
    crate::run("cargo", &["build", "--quiet", "--locked", "--package", "seaworthy"])?;
    let folder = workspace().join("target/debug");

    step(
        "Three etcd members, each on a node of its own. The certificate flags are set; the peer URLs say http.",
    );
    let spec = ClusterSpec::new(binary).members(3).share(&folder, "/host-bin").each(|m| m.peers("http"));
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
    show(node, "/host-bin/seaworthy", &["--color", "always", "audit", "--rule", "2.4"])?;

    step("And it is right: another machine on the network asks the peer port, without any certificate.");
    show(cluster.node(1), "/host-bin/seaworthy", &["--color", "always", "probe", "10.77.0.1:2380"])?;

    step("The same cluster, with https peer URLs:");
    drop(cluster);
    let spec = ClusterSpec::new(binary).members(3).share(&folder, "/host-bin");
    let cluster = Cluster::start(spec)?;
    let arguments = ["--color", "always", "audit", "--rule", "2.4", "--verbose"];
    show(cluster.node(0), "/host-bin/seaworthy", &arguments)?;
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
    let output = node.run(program, arguments)?;
    say(String::from_utf8_lossy(&output.stdout).trim_end());
    anyhow::ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
