//! The project's tasks. `cargo xtask --help` lists them.

mod bench;
mod cluster;
mod demo;
mod generate;
mod stress;
mod tables;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Seaworthy's tasks
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that must hold: format, lints, tests on real etcd clusters, generated files, licences
    Test,
    /// Watch Seaworthy audit a real etcd cluster whose certificate flags are set but whose peers speak plaintext
    Demo,
    /// Measure an audit beside the shell pipelines that check the same controls
    Bench(bench::Bench),
    /// Kill fixes and rollbacks, the members they are about, and kubelet, on real clusters and on clusters in memory, and sum up
    Stress(stress::Stress),
    /// Build the binary that is released: static
    Release,
    /// Write the generated files: the JSON Schemas
    Generate {
        /// Only compare, and fail if one is stale
        #[arg(long)]
        check: bool,
    },
    /// Make the tables of the components' flags, from the programs' own option structs
    Tables(tables::Tables),
    /// Get the etcd versions that the lab runs, by the ordinary package managers
    Lab,
    /// A real Kubernetes node: kubeadm, kubelet and the control plane, unmodified, in namespaces of this machine
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Measure commands, inside a node; used by `bench`
    #[command(hide = true)]
    Measure { plan: String },
    /// Audit variants of a snapshot; used by `bench`
    #[command(hide = true)]
    Evaluate { snapshot: PathBuf, count: usize },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Demo => demo::run(),
        Task::Bench(wanted) => bench::run(&wanted),
        Task::Stress(wanted) => stress::run(&wanted),
        Task::Release => release_binary().map(|path| say(&path.display().to_string())),
        Task::Generate { check } => generate::run(check),
        Task::Tables(wanted) => tables::run(&wanted),
        Task::Lab => lab(),
        Task::Cluster(wanted) => cluster::run(wanted),
        Task::Measure { plan } => bench::measure::run(&plan),
        Task::Evaluate { snapshot, count } => bench::evaluate::run(&snapshot, count),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Gets the etcd versions of the lab and says which there are.
fn lab() -> anyhow::Result<()> {
    for installed in seaworthy_lab::install()? {
        match installed.outcome {
            Ok(binary) => say(&format!("etcd {} is in the lab", binary.version)),
            Err(error) => say(&format!("without {:?}: {error}", installed.package)),
        }
    }
    Ok(())
}

/// Tells a person what is going on.
#[expect(clippy::print_stderr, reason = "a task talks to the person who started it")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Returns the root of the workspace.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Runs a program in the workspace and fails if it does.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    say(&format!("\n$ {program} {}", arguments.join(" ")));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(status.success(), "{program} {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// Builds the release binary and returns its path. It is static, so that it runs on every Linux of this architecture and
/// starts without a dynamic linker, unless what that needs is not installed.
fn release_binary() -> anyhow::Result<PathBuf> {
    let target = static_target();
    let build = ["build", "--quiet", "--profile", "dist", "--locked", "--package", "seaworthy"];
    if let Err(missing) = links_statically(&target) {
        say(&format!("A dynamic binary is built, for a static one needs {missing}."));
        run("cargo", &build)?;
        return Ok(workspace().join("target/dist/seaworthy"));
    }
    run("cargo", &[&build[..], &["--target", &target]].concat())?;
    Ok(workspace().join("target").join(target).join("dist/seaworthy"))
}

/// Returns the target of static binaries for this machine.
fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Returns how to get what is missing for a static binary, if anything is.
fn links_statically(target: &str) -> Result<(), String> {
    let prints = |program: &str, argument: &[&str]| {
        let output = Command::new(program).args(argument).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let library = prints("rustc", &["--print", "target-libdir", "--target", target]);
    if !library.is_some_and(|library| Path::new(&library).exists()) {
        return Err(format!("`rustup target add {target}`"));
    }
    if prints("musl-gcc", &["--version"]).is_none() {
        return Err("`musl-gcc` (apt-get install musl-tools)".to_owned());
    }
    Ok(())
}
