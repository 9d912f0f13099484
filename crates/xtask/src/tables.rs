//! `cargo xtask tables`: the flags of the components, as data, from the programs' own option structs.

mod merge;
mod release;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{say, workspace};
use merge::Items;

/// The lists of a table, as they are called in it and by the generator.
const LISTS: [&str; 4] = ["flags", "fields", "gates", "plugins"];

#[derive(clap::Args)]
#[command(after_help = "\
The tables are crates/components/src/COMPONENT/flags.json; crates/components/generator/components.json says which releases are in them. \
A release is made anew when the generator has changed since, or when it is not in the table yet: that needs Go, the module proxy, and \
minutes a release the first time (afterwards seconds, from Go's build cache). All other releases are taken from the table as it is.

With --check nothing is compiled, nothing is downloaded and no Go is needed, so that it belongs in every CI run; it takes less than a \
second. It fails when a table was not made by the generator as it is now, when releases are missing, and when somebody has edited a table \
by hand. What it cannot tell is whether the generator still prints the same: --check --all compiles all of it and compares, and belongs in \
what is done before a release.")]
pub(crate) struct Tables {
    /// Only compare, and fail if a table is stale
    #[arg(long)]
    check: bool,
    /// Make every release anew
    #[arg(long)]
    all: bool,
    /// Only these components
    components: Vec<String>,
}

impl Tables {
    /// What a test run can afford.
    pub(crate) const CHECK: Self = Self { check: true, all: false, components: Vec::new() };
}

/// What `components.json` says of a component.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    /// The files of the generator that are compiled for it.
    sources: Vec<String>,
    releases: Vec<String>,
    /// Where the source is, for releases that are no Go modules.
    #[serde(default)]
    debian: BTreeMap<String, Debian>,
    /// Flags whose values are no business of a report, and why.
    #[serde(default)]
    secret: BTreeMap<String, String>,
}

/// A Debian package of source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Debian {
    /// Its name and version, as `apt-get` takes them.
    package: String,
    /// What Debian compiles it with, where its `go.mod` says something else.
    require: String,
}

/// What a release was made from.
#[derive(Clone, Serialize, Deserialize)]
struct Made {
    /// The module and its version.
    from: String,
    /// Its checksum, as `go.sum` has it.
    sum: String,
    /// The checksum of the generator.
    generator: String,
}

/// The releases of a component, each with what it was made from.
type Releases = BTreeMap<String, (Made, [Items; LISTS.len()])>;

pub(crate) fn run(wanted: &Tables) -> anyhow::Result<()> {
    let components: BTreeMap<String, Component> =
        serde_json::from_str(&fs::read_to_string(generator_dir().join("components.json"))?)?;
    for name in &wanted.components {
        anyhow::ensure!(components.contains_key(name), "there is no table of {name}: see components.json");
    }
    let mut wrong = Vec::new();
    for (name, component) in &components {
        if wanted.components.is_empty() || wanted.components.contains(name) {
            wrong.extend(table(name, component, wanted).with_context(|| name.clone())?);
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Makes or compares one table, and returns what is wrong with it.
fn table(name: &str, component: &Component, wanted: &Tables) -> anyhow::Result<Vec<String>> {
    let path = workspace().join("crates/components/src").join(name.replace('-', "_")).join("flags.json");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let generator = component.generator()?;
    let mut known = read(&before)?;
    known.retain(|version, (made, _)| component.releases.contains(version) && made.generator == generator);
    if wanted.all {
        known.clear();
    }
    let missing: Vec<&str> =
        merge::in_order(component.releases.iter().filter(|version| !known.contains_key(*version)));
    let mut wrong = Vec::new();
    if wanted.check && !wanted.all {
        wrong
            .extend(missing.iter().map(|version| format!("the table of {name} is stale: release {version}")));
    } else if !missing.is_empty() {
        anyhow::ensure!(release::has_go(), "needs a Go toolchain (go.dev/dl, or apt-get install golang-go)");
        for version in missing.into_iter().rev() {
            match release::generate(name, component, version) {
                Ok((table, made)) => drop(known.insert(version.to_owned(), (made, lists(&table)?))),
                Err(error) => wrong.push(format!("{name} {version}: {error:#}")),
            }
            if !wanted.check {
                // After each release, for somebody may stop this halfway.
                save(&path, &write(name, component, &known)?)?;
            }
        }
    }
    let text = write(name, component, &known)?;
    if !wanted.check {
        save(&path, &text)?;
        say(&format!("{name}: the table has {} releases", known.len()));
    } else if wrong.is_empty() && text != before {
        wrong.push(format!("the table of {name} is not what the generator makes"));
    }
    if wanted.check && !wrong.is_empty() {
        wrong.push(format!("run `cargo xtask tables {name}` and commit what it writes"));
    }
    Ok(wrong)
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    for machine in [workspace().display().to_string(), "/tables-a".to_owned()] {
        anyhow::ensure!(!text.contains(&machine), "the table depends on the machine: it contains {machine}");
    }
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the text of a table, with a line for each row.
fn write(name: &str, component: &Component, releases: &Releases) -> anyhow::Result<String> {
    let versions = merge::in_order(releases.keys());
    let mut text =
        format!("{{\n\"component\": {},\n\"releases\": {},\n\"made\": {{\n", json!(name), json!(versions));
    let made = versions.iter().filter_map(|version| Some((version, &releases.get(*version)?.0)));
    let made =
        made.map(|(version, made)| Ok(format!("{}: {}", json!(version), serde_json::to_string(made)?)));
    text.push_str(&made.collect::<anyhow::Result<Vec<_>>>()?.join(",\n"));
    text.push_str("\n}");
    let mut secret = component.secret.clone();
    for (index, list) in LISTS.iter().enumerate() {
        let mut items = Vec::new();
        for version in &versions {
            let list = releases.get(*version).and_then(|(_, lists)| lists.get(index));
            items.push((*version, list.cloned().unwrap_or_default()));
        }
        let mut rows = merge::merge(&items)?;
        if rows.is_empty() {
            continue;
        }
        for row in rows.iter_mut().filter(|_| *list == "flags") {
            let reason = row.get("name").and_then(Value::as_str).and_then(|name| secret.remove(name));
            row.extend(reason.map(|reason| ("secret".to_owned(), json!(reason))));
        }
        let rows = rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        write!(text, ",\n\"{list}\": [\n{}\n]", rows.join(",\n"))?;
    }
    anyhow::ensure!(
        secret.is_empty() || releases.len() < component.releases.len(),
        "no release has the secret flags {:?}",
        secret.keys()
    );
    write!(text, ",\n\"digest\": \"{}\"\n}}\n", sha256(text.as_bytes()))?;
    Ok(text)
}

/// Returns the releases in the text of a table; none when somebody has edited it by hand, so that they are made anew.
fn read(text: &str) -> anyhow::Result<Releases> {
    let table: Map<String, Value> = if text.is_empty() { Map::new() } else { serde_json::from_str(text)? };
    let Some((digested, rest)) = text.rsplit_once(",\n\"digest\": \"") else { return Ok(Releases::new()) };
    if rest.trim_end_matches("\"\n}\n") != sha256(digested.as_bytes()) {
        return Ok(Releases::new());
    }
    let made: BTreeMap<String, Made> =
        serde_json::from_value(table.get("made").cloned().unwrap_or_default())?;
    let versions = merge::in_order(made.keys());
    let mut releases: Releases =
        made.iter().map(|(version, made)| (version.clone(), (made.clone(), Default::default()))).collect();
    for (index, list) in LISTS.iter().enumerate() {
        let rows: Vec<Map<String, Value>> = match table.get(*list) {
            Some(rows) => serde_json::from_value(rows.clone())?,
            None => continue,
        };
        for (version, items) in merge::split(&rows, &versions)? {
            if let Some(place) = releases.get_mut(version).and_then(|(_, lists)| lists.get_mut(index)) {
                *place = items;
            }
        }
    }
    Ok(releases)
}

/// Returns the lists that the generator prints, by name.
fn lists(table: &Value) -> anyhow::Result<[Items; LISTS.len()]> {
    let list = |list: &str| {
        let items = table.get(list).and_then(Value::as_array).into_iter().flatten();
        let item = |item: &Value| {
            let mut item = item.as_object()?.clone();
            let name = item.remove("name")?.as_str()?.to_owned();
            Some((name, release::tabled(item)))
        };
        items.map(|i| item(i).context("an item without a name")).collect::<anyhow::Result<Items>>()
    };
    let [flags, fields, gates, plugins] = LISTS.map(list);
    Ok([flags?, fields?, gates?, plugins?])
}

impl Component {
    /// Returns the checksum of the files that are compiled for the component.
    fn generator(&self) -> anyhow::Result<String> {
        let mut all = Vec::new();
        for source in &self.sources {
            all.extend(source.as_bytes());
            all.push(0);
            all.extend(fs::read(generator_dir().join(source)).with_context(|| source.clone())?);
            all.push(0);
        }
        Ok(sha256(&all))
    }
}

fn generator_dir() -> PathBuf {
    workspace().join("crates/components/generator")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
