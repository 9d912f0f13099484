//! Every certificate of a node in one table: a pure function of its snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::Timestamp;
use schemars::JsonSchema;
use seaworthy_catalogue::Status;
use seaworthy_evidence::{
    Certificate, ErrorKind, EvidenceError, Instance, KeyMaterial, Observed, Origin, Problem, ProblemKind,
    Snapshot, Tool,
};
use serde::Serialize;
use serde_json::Value;

use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`json`].
pub const FORMAT: &str = "seaworthy.dev/certificates/v1";
/// Identifier of its JSON Schema.
pub const SCHEMA_ID: &str = "https://seaworthy.dev/schemas/certificates-v1.json";
/// How the place of a certificate begins that a listener serves.
const SERVED: &str = "served at ";
/// Fewest columns that the table has room in.
const NARROWEST: usize = 60;
/// Days before its end at which a certificate is shown as one that ends soon.
const SOON: i64 = 30;

/// The certificates of one node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Inventory {
    /// Identifies the format.
    format: &'static str,
    /// The program that took the snapshot.
    tool: Tool,
    /// The node's name.
    node: String,
    /// When the snapshot was taken, which days are counted from.
    taken_at: Timestamp,
    /// Each certificate once, the first to end first.
    certificates: Vec<Entry>,
    /// What is wrong with key material and belongs to none of them, such as a file that is missing.
    other_problems: Vec<String>,
    /// What could not be looked at, so that certificates may be missing here.
    unread: Vec<EvidenceError>,
}

/// One certificate.
#[derive(Debug, Serialize, JsonSchema)]
struct Entry {
    /// When it ends.
    not_after: Timestamp,
    /// Whole days until then; negative when it has passed.
    days_left: i64,
    /// Its subject (RFC 4514).
    subject: String,
    /// Its issuer.
    issuer: String,
    /// DNS names and IP addresses.
    names: Vec<String>,
    /// Whether it is a CA.
    ca: bool,
    /// Extended key usages; null when it allows every one.
    usages: Option<Vec<String>>,
    /// Algorithm and size of its key.
    key: String,
    /// Its serial number.
    serial: String,
    /// When it begins.
    not_before: Timestamp,
    /// SHA-256 of the certificate.
    fingerprint: String,
    /// Where it is: files, kubeconfigs, and the addresses at which it is served.
    places: Vec<String>,
    /// Who uses it, and as what; empty when nothing on the node is known to.
    used_by: Vec<Use>,
    /// What is wrong with it.
    problems: Vec<String>,
}

/// Who uses a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
struct Use {
    /// The component, or `administrator`.
    who: String,
    /// The setting, the kubeconfig or the address.
    how: String,
}

impl Inventory {
    /// Returns the certificates of `snapshot`; with `within`, those that end in so many days or have ended.
    pub fn of(snapshot: &Snapshot, within: Option<u32>) -> Self {
        let mut found = Found::default();
        found.pki(snapshot);
        found.kubeconfigs(snapshot);
        for instances in snapshot.components.values() {
            match instances {
                Observed::Seen { value, .. } => value.iter().for_each(|instance| found.instance(instance)),
                Observed::Failed { error } => found.miss(error),
            }
        }
        let mut certificates: Vec<Entry> = found.entries.into_values().map(Known::entry).collect();
        certificates.retain(|entry| within.is_none_or(|days| entry.days_left <= i64::from(days)));
        certificates.sort_by(|a, b| (a.not_after, &a.subject).cmp(&(b.not_after, &b.subject)));
        Self {
            format: FORMAT,
            tool: snapshot.tool.clone(),
            node: snapshot.node.name.clone(),
            taken_at: snapshot.taken_at,
            certificates,
            other_problems: found.other_problems.into_iter().collect(),
            unread: found.unread,
        }
    }

    /// Returns whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Returns whether everything could be looked at.
    pub fn is_complete(&self) -> bool {
        self.unread.is_empty()
    }
}

/// A certificate, with what is known of it so far.
struct Known {
    certificate: Certificate,
    places: BTreeSet<String>,
    uses: BTreeSet<Use>,
    problems: BTreeMap<ProblemKind, String>,
}

impl Known {
    fn entry(self) -> Entry {
        let Certificate { key, sans, .. } = &self.certificate;
        let key = if key.algorithm == "RSA" { format!("RSA {}", key.bits) } else { key.algorithm.clone() };
        let names = sans.dns.iter().chain(&sans.ip).cloned().collect();
        let c = self.certificate;
        Entry {
            not_after: c.not_after,
            days_left: c.days_left,
            subject: c.subject,
            issuer: c.issuer,
            names,
            ca: c.ca,
            usages: c.usages,
            key,
            serial: c.serial,
            not_before: c.not_before,
            fingerprint: c.fingerprint,
            places: self.places.into_iter().collect(),
            used_by: self.uses.into_iter().collect(),
            problems: self.problems.into_values().collect(),
        }
    }
}

/// What was found, by the fingerprints of the certificates.
#[derive(Default)]
struct Found {
    entries: BTreeMap<String, Known>,
    /// The fingerprints of the certificates at a place, in the order in which they are there.
    at: BTreeMap<String, Vec<String>>,
    other_problems: BTreeSet<String>,
    unread: Vec<EvidenceError>,
}

impl Found {
    fn miss(&mut self, error: &EvidenceError) {
        // What does not run uses nothing yet.
        if error.kind != ErrorKind::NotRunning && !self.unread.contains(error) {
            self.unread.push(error.clone());
        }
    }

    fn add<'c>(
        &mut self,
        place: &str,
        uses: &[Use],
        certificates: impl IntoIterator<Item = &'c Certificate>,
    ) {
        for certificate in certificates {
            let fingerprint = &certificate.fingerprint;
            let known = self.entries.entry(fingerprint.clone()).or_insert_with(|| Known {
                certificate: certificate.clone(),
                places: BTreeSet::new(),
                uses: BTreeSet::new(),
                problems: BTreeMap::new(),
            });
            known.places.insert(place.to_owned());
            known.uses.extend(uses.iter().cloned());
            let here = self.at.entry(place.to_owned()).or_default();
            if !here.contains(fingerprint) {
                here.push(fingerprint.clone());
            }
        }
    }

    /// Adds problems of what is at `place`: each to the certificate that it was seen at, else to the first one there.
    fn blame(&mut self, place: &str, problems: &[Problem]) {
        for problem in problems {
            let here = self.at.get(place).map_or(&[][..], Vec::as_slice);
            let is_it = |fingerprint: &&String| {
                self.entries.get(*fingerprint).is_some_and(|k| k.certificate.origin == problem.origin)
            };
            let fingerprint = here.iter().find(is_it).or(here.first()).cloned();
            match fingerprint.and_then(|fingerprint| self.entries.get_mut(&fingerprint)) {
                Some(known) => {
                    known.problems.entry(problem.kind).or_insert_with(|| problem.message.clone());
                }
                None => drop(self.other_problems.insert(problem.message.clone())),
            }
        }
    }

    fn pki(&mut self, snapshot: &Snapshot) {
        if let Some(error) = snapshot.node.pki_complete.error() {
            self.miss(error);
        }
        for file in snapshot.node.pki.value().into_iter().flatten() {
            let place = file.file.on_node.as_deref().unwrap_or(&file.file.path);
            let uses: Vec<Use> = file
                .uses
                .iter()
                .map(|by| Use { who: by.component.clone(), how: by.setting.clone() })
                .collect();
            self.add(place, &uses, file.certificates.value().into_iter().flatten());
            if let Observed::Seen { value, .. } = &file.problems {
                self.blame(place, value);
            }
        }
    }

    fn kubeconfigs(&mut self, snapshot: &Snapshot) {
        let kubeconfigs = match &snapshot.node.kubeconfigs {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => return self.miss(error),
        };
        for kubeconfig in kubeconfigs {
            let place = &kubeconfig.path;
            let components: BTreeSet<&str> = kubeconfig.uses.iter().map(|by| by.component.as_str()).collect();
            let uses = |how: &str| -> Vec<Use> {
                let administrator = kubeconfig.administrator.then_some("administrator");
                let who = administrator.into_iter().chain(components.iter().copied());
                who.map(|who| Use { who: who.to_owned(), how: format!("{how} {place}") }).collect()
            };
            match &kubeconfig.users {
                Observed::Failed { error } => self.miss(error),
                Observed::Seen { value, .. } => {
                    for user in value {
                        match &user.certificate {
                            None => {}
                            Some(Observed::Failed { error }) => self.miss(error),
                            Some(Observed::Seen { value, .. }) => {
                                self.add(place, &uses("client, kubeconfig"), value);
                            }
                        }
                        if let Observed::Seen { value, .. } = &user.problems {
                            self.blame(place, value);
                        }
                    }
                }
            }
            if let Observed::Seen { value, .. } = &kubeconfig.authorities {
                self.add(place, &uses("CA, kubeconfig"), value);
            }
        }
    }

    fn instance(&mut self, instance: &Instance) {
        let who = &instance.component;
        for KeyMaterial { files, problems, .. } in &instance.credentials {
            let files = match files {
                Observed::Seen { value, .. } => value,
                Observed::Failed { error } => {
                    self.miss(error);
                    continue;
                }
            };
            let uses = [("served", &files.chain), ("client", &files.client_chain), ("CA", &files.trusted)];
            for (how, certificates) in uses {
                for certificate in certificates.iter().filter_map(Observed::value).flatten() {
                    // What is known with its setting is not told again.
                    let place = place(&certificate.origin);
                    let told =
                        self.at.get(&place).is_some_and(|here| here.contains(&certificate.fingerprint));
                    let by = Use { who: who.clone(), how: how.to_owned() };
                    let by = if told { Vec::new() } else { vec![by] };
                    self.add(&place, &by, [certificate]);
                }
            }
            match problems {
                Observed::Seen { value, .. } => {
                    for problem in value {
                        self.blame(&problem.path, std::slice::from_ref(problem));
                    }
                }
                Observed::Failed { error } => self.miss(error),
            }
        }
        for listener in instance.listeners.value().into_iter().flatten() {
            let Some(Observed::Seen { value: wire, .. }) = &listener.wire else { continue };
            let at = format!("{SERVED}{}", wire.address);
            for (index, certificate) in wire.chain.iter().enumerate() {
                let by = Use { who: who.clone(), how: at.clone() };
                let uses = if index == 0 { vec![by] } else { Vec::new() };
                self.add(&at, &uses, [certificate]);
                let known = self.entries.get_mut(&certificate.fingerprint);
                if let Some(known) = known.filter(|_| certificate.days_left <= SOON) {
                    let kind =
                        if certificate.days_left < 0 { ProblemKind::Expired } else { ProblemKind::Expiring };
                    known.problems.entry(kind).or_insert_with(|| {
                        let (verb, end) = match kind {
                            ProblemKind::Expired => ("expired", certificate.not_after),
                            _ => ("expires", certificate.not_after),
                        };
                        format!("{} ({at}) {verb} on {}", certificate.subject, day(end))
                    });
                }
            }
        }
    }
}

/// Returns where a certificate was found, as a path where it is one.
fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { path, .. } => path.clone(),
        other => other.to_string(),
    }
}

fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

/// Returns the certificates as a table with ANSI styles, laid out for `width` columns; with `verbose`, all that is known of each.
pub fn text(inventory: &Inventory, within: Option<u32>, width: usize, verbose: bool) -> String {
    let mut out = String::new();
    let prose = |text: &str, first: &str, rest: &str| wrap(text, width, first, rest);
    let count =
        |count: usize| if count == 1 { "1 certificate".to_owned() } else { format!("{count} certificates") };
    let (node, all) = (plain(&inventory.node), &inventory.certificates);
    let head = match (all.first(), within) {
        (None, Some(days)) => format!("{node}: no certificate ends within {days} days"),
        (None, None) => format!("{node}: no certificate was found"),
        (Some(_), Some(days)) => {
            let verb = if all.len() == 1 { "ends" } else { "end" };
            format!("{node}: {} {verb} within {days} days", count(all.len()))
        }
        (Some(first), None) => {
            let (name, home, end) = (name(&first.subject), home(first), day(first.not_after));
            let when = if first.days_left < 0 { "ended" } else { "ends" };
            format!("{node}: {}; the first, {name} ({home}), {when} on {end}", count(all.len()))
        }
    };
    out += &paint(BOLD, prose(&head, "", "").trim_end());
    out += "\n";
    if !all.is_empty() {
        out += "\n";
        table(&mut out, all, width.max(NARROWEST), verbose);
    }
    if !inventory.other_problems.is_empty() {
        let _ = writeln!(out, "\n{}", paint(BOLD, "Other problems"));
        for problem in &inventory.other_problems {
            out += &prose(problem, "  ! ", "    ");
        }
    }
    if !inventory.unread.is_empty() {
        let _ = writeln!(
            out,
            "\n{}",
            paint(
                style::of(Status::Unknown),
                "Not all could be looked at, so certificates may be missing here"
            )
        );
        for error in &inventory.unread {
            out += &prose(&error.message, "  ? ", "    ");
        }
    }
    out
}

/// Writes one row for each certificate.
fn table(out: &mut String, all: &[Entry], width: usize, verbose: bool) {
    // ENDS and LEFT are as wide as they are; the rest is shared out by what is in it.
    const ENDS: usize = 10;
    const LEFT: usize = 6;
    let rest = width.saturating_sub(ENDS + LEFT + 4 * 2);
    let texts: Vec<[String; 3]> =
        all.iter().map(|entry| [subject(entry), name(&entry.issuer), users(entry)]).collect();
    let longest = |column: usize, least: usize| {
        let longest = texts.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
        longest.unwrap_or(0).max(least)
    };
    let issuer = longest(1, 9).min(rest / 4);
    let certificate = longest(0, 11).min((rest - issuer) * 9 / 20);
    let by = rest - issuer - certificate;
    let heads = ["CERTIFICATE", "ISSUED BY", "FILE: USED BY"];
    let head = format!(
        "{:<ENDS$}  {:>LEFT$}  {:<certificate$}  {:<issuer$}  {}",
        "ENDS", "LEFT", heads[0], heads[1], heads[2]
    );
    let _ = writeln!(out, "{}", paint(DIM, head));
    for (entry, texts) in all.iter().zip(&texts) {
        let [of, from, used] = texts;
        let columns = [cell(of, certificate), cell(from, issuer), cell(used, by)];
        let lines = columns.iter().map(Vec::len).max().unwrap_or(1);
        let colour = match entry.days_left {
            ..0 => style::of(Status::Fail),
            0..=SOON => style::of(Status::Unknown),
            _ => anstyle::Style::new(),
        };
        for line in 0..lines {
            let (ends, left) = match line {
                0 => (day(entry.not_after), left(entry.days_left)),
                _ => (String::new(), String::new()),
            };
            let at = |column: usize| columns.get(column).and_then(|c| c.get(line)).map_or("", String::as_str);
            let when = paint(colour, format!("{ends:<ENDS$}  {left:>LEFT$}"));
            let row = format!("{when}  {:<certificate$}  {:<issuer$}  {}", at(0), at(1), at(2));
            let _ = writeln!(out, "{}", row.trim_end());
        }
        let indent = " ".repeat(ENDS + 2);
        for problem in &entry.problems {
            let told = wrap(problem, width, &format!("{indent}! "), &format!("{indent}  "));
            let _ = writeln!(out, "{}", paint(style::of(Status::Fail), told.trim_end()));
        }
        if verbose {
            details(out, entry, width, &indent);
        }
    }
}

/// Writes all that is known of a certificate.
fn details(out: &mut String, entry: &Entry, width: usize, indent: &str) {
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            *out += &wrap(value, width, &format!("{indent}{name:<9}"), &format!("{indent}{:9}", ""));
        }
    };
    row("subject", &entry.subject);
    row("issuer", &entry.issuer);
    row("names", &entry.names.join(", "));
    let usages = entry.usages.as_ref().map_or("any".to_owned(), |usages| usages.join(", "));
    row("usages", if entry.ca { "CA" } else { &usages });
    row("key", &entry.key);
    row("in", &entry.places.join(", "));
    let used: Vec<_> = entry.used_by.iter().map(|by| format!("{} ({})", by.who, by.how)).collect();
    row("used by", &used.join(", "));
    row("SHA-256", &entry.fingerprint);
}

/// Returns the lines of a cell. A name that does not fit is cut at a hyphen if it has one: all of it is among the details.
fn cell(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width.max(1)).word_separator(textwrap::WordSeparator::AsciiSpace);
    textwrap::wrap(&plain(text), options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Returns how long a certificate is valid still.
fn left(days: i64) -> String {
    match days {
        ..0 => "ended".to_owned(),
        0..1000 => format!("{days} d"),
        _ => format!("{} y", days / 365),
    }
}

/// Returns the values that an RFC 4514 name has of this type, as they are written.
fn values<'n>(of: &'n str, kind: &str) -> Vec<&'n str> {
    let (mut parts, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in of.char_indices() {
        if !escaped && matches!(c, ',' | '+') {
            parts.push(of.get(begin..at).unwrap_or_default());
            begin = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(of.get(begin..).unwrap_or_default());
    parts.into_iter().filter_map(|part| part.trim_start().strip_prefix(kind)?.strip_prefix('=')).collect()
}

/// Returns the common name of an RFC 4514 name, or all of it where it has none.
fn name(of: &str) -> String {
    match values(of, "CN").first() {
        Some(name) => (*name).to_owned(),
        None if of.is_empty() => "(no subject)".to_owned(),
        None => of.to_owned(),
    }
}

/// Returns how a certificate is called in the table: its name, its groups, and whether it is a CA.
fn subject(entry: &Entry) -> String {
    let (mut text, groups) = (name(&entry.subject), values(&entry.subject, "O"));
    if !groups.is_empty() && text != entry.subject {
        let _ = write!(text, " ({})", groups.join(", "));
    }
    if entry.ca { format!("CA {text}") } else { text }
}

/// Returns where a certificate is, in the table: a file before a kubeconfig that embeds it, and an address where that is all.
fn home(entry: &Entry) -> String {
    let rank =
        |place: &&String| (place.starts_with(SERVED), !place.ends_with(".crt"), !place.ends_with(".pem"));
    let place = entry.places.iter().min_by_key(rank).map_or("", String::as_str);
    place.strip_prefix(SERVED).or(place.rsplit('/').next()).unwrap_or(place).to_owned()
}

/// Returns where a certificate is and who uses it, in the table.
fn users(entry: &Entry) -> String {
    let who: BTreeSet<&str> = entry.used_by.iter().map(|by| by.who.as_str()).collect();
    match who.is_empty() {
        true => home(entry),
        false => format!("{}: {}", home(entry), who.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// Returns the certificates as a JSON document, indented, with a final newline.
pub fn json(inventory: &Inventory) -> String {
    crate::json::printed(inventory)
}

/// Returns the JSON Schema (2020-12) of the document.
pub fn json_schema() -> Value {
    crate::json::printed_schema::<Inventory>(SCHEMA_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_its_issuer_wrote_and_not_what_it_looks_like() {
        for (of, want, groups) in [
            ("CN=kubernetes", "kubernetes", &[][..]),
            ("CN=admin,O=system:masters", "admin", &["system:masters"]),
            ("O=a+CN=b\\,O=system:masters", "b\\,O=system:masters", &["a"]),
            ("CN=x\\\\,O=y", "x\\\\", &["y"]),
            ("O=only", "O=only", &["only"]),
            ("", "(no subject)", &[]),
        ] {
            assert_eq!((&*name(of), &values(of, "O")[..]), (want, groups), "{of}");
        }
    }

    #[test]
    fn a_row_is_as_wide_as_the_terminal_whatever_is_in_it() {
        let long = format!("CN={},O={}", "x".repeat(300), "\u{1b}[2J".repeat(40));
        let entry = |subject: &str| Entry {
            not_after: Timestamp::UNIX_EPOCH,
            days_left: 5,
            subject: subject.to_owned(),
            issuer: subject.to_owned(),
            names: Vec::new(),
            ca: true,
            usages: None,
            key: String::new(),
            serial: String::new(),
            not_before: Timestamp::UNIX_EPOCH,
            fingerprint: String::new(),
            places: vec![format!("/{}", "y".repeat(200))],
            used_by: Vec::new(),
            problems: Vec::new(),
        };
        for width in [10, 40, 80, 200] {
            let mut out = String::new();
            table(&mut out, &[entry(&long), entry("CN=a")], width.max(NARROWEST), false);
            let plain: Vec<String> = out.lines().map(without_styles).collect();
            let widest = plain.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.max(NARROWEST)), "{width}: {widest:?}");
            assert!(plain.iter().all(|line| !line.contains('\u{1b}')));
        }
    }

    /// Returns a line without the styles that are meant.
    fn without_styles(line: &str) -> String {
        let mut text = line.to_owned();
        for style in [DIM, style::of(Status::Fail), style::of(Status::Unknown), anstyle::Style::new()] {
            for code in [format!("{style}"), format!("{style:#}")].iter().filter(|code| !code.is_empty()) {
                text = text.replace(code.as_str(), "");
            }
        }
        text
    }
}
