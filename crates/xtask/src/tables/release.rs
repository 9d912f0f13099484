//! The flags of one release, from the program's own packages.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Component, Debian, Made, generator_dir, sha256};
use crate::{say, workspace};

const KUBERNETES: &str = "k8s.io/kubernetes";
const ETCD: &str = "go.etcd.io/etcd/server/v3";
/// How etcd 3.4 calls it.
const OLD_ETCD: &str = "go.etcd.io/etcd";

/// How often a person is told that a program is still being compiled.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `go mod download -json` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    dir: PathBuf,
    sum: String,
}

/// Compiles the generator together with release `version` of `name` and returns what it prints, and what it was made from.
pub(super) fn generate(name: &str, component: &Component, version: &str) -> anyhow::Result<(Value, Made)> {
    let start = Instant::now();
    say(&format!("{name} {version}: getting its modules"));
    let dir = workspace().join("target/tables").join(format!("{name}-{version}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let (from, sum) = match component.debian.get(version) {
        Some(package) => debian_etcd(&dir, package)?,
        None if name == "etcd" => etcd(&dir, version)?,
        None => kubernetes(&dir, version)?,
    };
    let generator = component.generator()?;
    for source in &component.sources {
        let text = fs::read_to_string(generator_dir().join(source))?;
        let text = if from.starts_with(ETCD) { text } else { text.replace(ETCD, OLD_ETCD) };
        let to = match source.as_str() {
            "etcd/embed.go" => "server/embed/tables.go",
            "etcd/etcdmain.go" => "server/etcdmain/tables.go",
            "etcd/etcdmain_deprecated.go" => {
                if !fs::read_to_string(dir.join("server/etcdmain/config.go"))?.contains("deprecatedFlags") {
                    continue;
                }
                "server/etcdmain/tables_deprecated.go"
            }
            other => other.rsplit('/').next().unwrap_or(other),
        };
        fs::write(dir.join(to), text)?;
    }
    compile(&dir, name, version)?;
    let mut printer = Command::new(dir.join("printer"));
    let table = output(printer.current_dir(&dir).stderr(Stdio::inherit()))?;
    let table: Value = serde_json::from_str(&table).context("the generator printed no JSON")?;
    fs::remove_dir_all(&dir)?;
    let count = table.get("flags").and_then(Value::as_array).map_or(0, Vec::len);
    say(&format!("{name} {version}: {count} flags in {} s", start.elapsed().as_secs()));
    Ok((table, Made { from, sum, generator }))
}

/// Makes a module that requires a release of Kubernetes as Kubernetes itself requires its modules. Those that are developed with it
/// are published as releases of their own.
fn kubernetes(dir: &Path, version: &str) -> anyhow::Result<(String, String)> {
    let from = format!("{KUBERNETES}@v{version}");
    let module = download(&from)?;
    let published = version.split_once('.').map(|(_, rest)| format!("v0.{rest}")).context("no version")?;
    let requirements = fs::read_to_string(module.dir.join("go.mod"))?;
    let lines = requirements.lines().map(|line| match line.split_once("=> ./staging/src/") {
        Some((replaced, name)) => format!("{replaced}=> {name} {published}\n"),
        None if line.starts_with("module ") => format!("module tables\n\nrequire {KUBERNETES} v{version}\n"),
        None => format!("{line}\n"),
    });
    fs::write(dir.join("go.mod"), lines.collect::<String>())?;
    fs::write(dir.join("go.sum"), fs::read(module.dir.join("go.sum"))?)?;
    Ok((from, module.sum))
}

/// Makes a module that requires a copy of a release of etcd, to which files can be added.
fn etcd(dir: &Path, version: &str) -> anyhow::Result<(String, String)> {
    let from = format!("{ETCD}@v{version}");
    let module = download(&from)?;
    copied_etcd(dir, &module.dir, &format!("{ETCD} v{version}"), "")?;
    Ok((from, module.sum))
}

/// The same from Debian's source, for releases that are no modules.
fn debian_etcd(dir: &Path, debian: &Debian) -> anyhow::Result<(String, String)> {
    let unpacked = dir.join("debian");
    fs::create_dir(&unpacked)?;
    let get = ["-o", "APT::Sandbox::User=root", "download", &debian.package];
    output(Command::new("apt-get").args(get).current_dir(&unpacked))?;
    let file = fs::read_dir(&unpacked)?.next().context("apt-get downloaded nothing")??.path();
    output(Command::new("dpkg-deb").arg("-x").arg(&file).arg("files").current_dir(&unpacked))?;
    let source = unpacked.join("files/usr/share/gocode/src").join(OLD_ETCD);
    copied_etcd(dir, &source, &format!("{OLD_ETCD} v0.0.0"), &debian.require)?;
    let sum = sha256(&fs::read(&file)?);
    Ok((format!("Debian's {}", debian.package), format!("sha256:{sum}")))
}

fn copied_etcd(dir: &Path, from: &Path, required: &str, also: &str) -> anyhow::Result<()> {
    output(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(from).arg(dir.join("server")))?;
    fs::copy(dir.join("server/go.sum"), dir.join("go.sum"))?;
    let module = required.split(' ').next().unwrap_or_default();
    let text = format!(
        "module tables\n\ngo 1.22\n\nrequire (\n{required}\n{also}\n)\n\nreplace {module} => ./server\n"
    );
    fs::write(dir.join("go.mod"), text)?;
    Ok(())
}

fn download(module: &str) -> anyhow::Result<Module> {
    // Outside of any module, whose requirements would have a say.
    let said = output(Command::new("go").args(["mod", "download", "-json", module]).current_dir("/"))?;
    serde_json::from_str(&said).with_context(|| format!("go mod download of {module}"))
}

/// Compiles the module in `dir`, and says from time to time how far it is.
fn compile(dir: &Path, name: &str, version: &str) -> anyhow::Result<()> {
    say(&format!("{name} {version}: compiling its options; minutes the first time"));
    // Programs are built with their version in them, which feature gates and some defaults depend on.
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion=v{version}");
    let mut go = Command::new("nice")
        .args(["-n", "15", "go", "build", "-v", "-trimpath", "-ldflags", &flags, "-o", "printer", "."])
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .current_dir(dir)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let start = Instant::now();
    let (mut said, mut packages, mut complaints) = (start, 0, String::new());
    for line in BufReader::new(go.stderr.take().context("no output")?).lines() {
        let line = line?;
        if line.contains(' ') && !line.starts_with("go: downloading ") {
            complaints.push_str(&line);
            complaints.push('\n');
        }
        packages += 1;
        if said.elapsed() >= PATIENCE {
            said = Instant::now();
            say(&format!("{name} {version}: {packages} packages in {} s", start.elapsed().as_secs()));
        }
    }
    anyhow::ensure!(go.wait()?.success(), "go build failed:\n{complaints}");
    Ok(())
}

/// Runs a program and returns what it prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let said =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    anyhow::ensure!(output.status.success(), "{name} failed: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns whether there is a Go toolchain.
pub(super) fn has_go() -> bool {
    Command::new("go").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Turns a flag as the generator prints it into what a table says of it.
pub(super) fn tabled(mut item: serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    if let Some(machine) = item.remove("machine") {
        item.insert("default".to_owned(), json!({ "machine": machine }));
    }
    item
}
