//! The names that etcd's configuration knows, by release: command-line flags, keys of the configuration file, feature gates.
//!
//! They are those of `etcd/flags.json`, which the programs themselves were asked for. A release that is not among its releases is
//! taken to know what either neighbour in its line knows: a name too many only loses a prediction.

use crate::etcd::Version;

/// What the releases know; a set of them has a bit for each.
struct Table {
    /// Minor and patch numbers, in order.
    releases: &'static [(u32, u32)],
    flags: &'static [Row],
    /// The keys of the configuration file, in lower case.
    fields: &'static [Row],
    gates: &'static [Row],
}

/// One name, which is told the same as long as nothing changes.
struct Row {
    name: &'static str,
    /// How etcd calls the type, in the releases that have it.
    kinds: &'static [(u64, &'static str)],
    /// The only values that it takes, if there are such.
    values: &'static [(u64, &'static [&'static str])],
}

static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/etcd.rs"));

/// Flags that are keys as well, and that 3.4.25 brought: etcd's list of changes says so, for that release was not to be had.
const SINCE_3_4_25: [&str; 3] = ["listen-client-http-urls", "tls-max-version", "tls-min-version"];

/// How etcd's flag parser treats a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// Takes a value only after `=`, and only one that Go's `strconv.ParseBool` takes.
    Boolean,
    /// Parsed like a boolean, with any value, and without effect: a flag of etcd 0.4.
    Ignored,
    /// Takes a value after `=` or as the next argument.
    Value,
}

/// What a configuration-file key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A structure that is not looked into.
    Any,
    Bool,
    Int,
    /// A list of strings.
    List,
    Text,
    Uint,
}

/// What one release takes as the value of a flag.
pub(super) struct Takes {
    /// The release, as a set with nothing else in it.
    pub(super) release: u64,
    /// Its minor number.
    pub(super) line: u32,
    /// How etcd calls the type.
    pub(super) kind: &'static str,
    /// The only values, if there are such.
    pub(super) values: &'static [&'static str],
}

/// Returns how etcd's flag `name` is parsed in the releases that have it.
pub(super) fn flag(name: &str) -> Option<Flag> {
    Some(match find(TABLE.flags, name)?.kinds.first()?.1 {
        "bool" => Flag::Boolean,
        "ignored" => Flag::Ignored,
        _ => Flag::Value,
    })
}

/// Returns whether etcd `version` defines the flag `name`; when the version is unknown, whether any release
/// does.
pub(super) fn defines_flag(name: &str, version: Option<Version>) -> bool {
    defines(TABLE.flags, name, version)
}

/// Returns what each release that `version` may be takes as the value of the flag `name`, if it has it.
pub(super) fn takes(name: &str, version: Option<Version>) -> impl Iterator<Item = Takes> {
    let (row, wanted) = (find(TABLE.flags, name), releases(version));
    let each = TABLE.releases.iter().enumerate().map(|(index, (line, _))| (1 << index, *line));
    each.filter(move |(release, _)| release & wanted != 0).filter_map(move |(release, line)| {
        let kind = newest(row?.kinds, release)?;
        Some(Takes { release, line, kind, values: newest(row?.values, release).unwrap_or_default() })
    })
}

/// Returns what the configuration-file key `name` (lower case, and after a point where it is in a section) holds in the releases
/// that `version` may be like, newest first; nothing where none has it.
pub(super) fn shapes(name: &str, version: Option<Version>) -> Vec<Shape> {
    let wanted = if is_since_3_4_25(name, version) { u64::MAX } else { releases(version) };
    let kinds = find(TABLE.fields, name).into_iter().flat_map(|row| row.kinds.iter().rev());
    let shape = |kind| match kind {
        "bool" => Shape::Bool,
        "int" => Shape::Int,
        "list" => Shape::List,
        "string" => Shape::Text,
        "uint" => Shape::Uint,
        _ => Shape::Any,
    };
    kinds.filter(|(set, _)| set & wanted != 0).map(|(_, kind)| shape(*kind)).collect()
}

/// Returns the keys that `section` has in any release.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    TABLE.fields.iter().filter_map(move |row| row.name.strip_prefix(section)?.strip_prefix('.'))
}

/// Returns whether etcd `version` knows the top-level configuration-file key `name` (lower case); when the
/// version is unknown, whether any release does.
pub(super) fn defines_key(name: &str, version: Option<Version>) -> bool {
    is_top_level(name) && defines(TABLE.fields, name, version)
}

/// Returns the names of all top-level configuration-file keys that `version` knows.
pub(super) fn keys(version: Option<Version>) -> impl Iterator<Item = &'static str> {
    TABLE.fields.iter().map(|row| row.name).filter(move |name| defines_key(name, version))
}

/// Returns whether a key is in no section: the table names those after a point.
fn is_top_level(name: &str) -> bool {
    !name.contains('.')
}

/// Returns whether the one `release` has the feature gate `name`.
pub(super) fn defines_gate(name: &str, release: u64) -> bool {
    TABLE.gates.iter().any(|gate| gate.name == name && newest(gate.kinds, release).is_some())
}

/// Returns the releases, as (minor, patch), that know something else than the one before in their line, and so read their inputs in
/// another way.
pub(super) fn changes() -> impl Iterator<Item = (u32, u32)> {
    let rows = || [TABLE.flags, TABLE.fields, TABLE.gates].into_iter().flatten();
    let sets = move || {
        rows()
            .flat_map(|row| row.kinds.iter().map(|(set, _)| set).chain(row.values.iter().map(|(set, _)| set)))
    };
    let releases = TABLE.releases.iter().enumerate().skip(1);
    let changed =
        releases.filter(move |(index, _)| sets().any(|set| (set >> index ^ set >> (index - 1)) & 1 == 1));
    changed.map(|(_, release)| *release).chain([(4, 25)])
}

fn defines(rows: &'static [Row], name: &str, version: Option<Version>) -> bool {
    let in_table = find(rows, name).is_some_and(|row| newest(row.kinds, releases(version)).is_some());
    in_table || is_since_3_4_25(name, version)
}

fn is_since_3_4_25(name: &str, version: Option<Version>) -> bool {
    version.is_some_and(|v| v.line() == 4 && v.reached(&[(4, 25)])) && SINCE_3_4_25.contains(&name)
}

fn find(rows: &'static [Row], name: &str) -> Option<&'static Row> {
    rows.binary_search_by_key(&name, |row| row.name).ok().and_then(|index| rows.get(index))
}

/// Returns the releases of the table that `version` may be like: itself, or else the next older and the next newer one of its line.
/// When it is unknown, all.
fn releases(version: Option<Version>) -> u64 {
    let Some(version) = version else { return u64::MAX };
    let wanted = (version.line(), version.patch.unwrap_or(u32::MAX));
    let reached = TABLE.releases.partition_point(|release| *release <= wanted);
    let at = |index: &usize| TABLE.releases.get(*index).filter(|(line, _)| *line == wanted.0);
    let older = reached.checked_sub(1).filter(|index| at(index).is_some());
    let exact = older.is_some_and(|index| at(&index) == Some(&wanted));
    let newer = Some(reached).filter(|index| !exact && at(index).is_some());
    older.into_iter().chain(newer).map(|index| 1 << index).sum()
}

/// Returns what the newest of the `wanted` releases has that has anything.
fn newest<T: Copy>(by_release: &[(u64, T)], wanted: u64) -> Option<T> {
    by_release.iter().rev().find(|(set, _)| set & wanted != 0).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_flags_are_those_of_their_release() {
        let versions = ["3.4.23", "3.4.45", "3.5.1", "3.5.33", "3.6.14", "3.7.1"];
        let cases = [
            ("peer-cert-file", [true; 6]),
            ("client-crl-file", [true; 6]),
            ("peer-client-cert-file", [false, false, true, true, true, true]),
            ("self-signed-cert-validity", [false, false, true, true, true, true]),
            ("tls-min-version", [false, true, false, true, true, true]),
            ("listen-client-http-urls", [false, true, false, true, true, true]),
            ("experimental-peer-skip-client-san-verification", [true, true, true, true, true, false]),
            ("peer-skip-client-san-verification", [false, false, false, false, true, true]),
            ("proxy", [true, true, true, true, false, false]),
            ("enable-v2", [true, true, true, true, false, false]),
            ("feature-gates", [false, false, false, false, true, true]),
            ("peer-client-file", [false; 6]),
            ("peer-ca-file", [false; 6]),
            ("ca-file", [false; 6]),
        ];
        for (name, want) in cases {
            let got = versions.map(|v| defines_flag(name, Version::parse(v)));
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn every_modelled_setting_is_a_flag() {
        for name in crate::etcd::SETTINGS {
            assert!(flag(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_release_between_two_may_be_like_either() {
        let [older, newer] = [(5, 2), (5, 5)]
            .map(|release| 1 << TABLE.releases.iter().position(|known| *known == release).unwrap());
        let cases = [("3.5.2", older), ("3.5.3", older | newer), ("3.5.5", newer)];
        for (version, want) in cases {
            assert_eq!(releases(Version::parse(version)), want, "{version}");
        }
        // Of these lines, the table has no newer release or no older one.
        for version in ["3.4.1", "3.4.45", "3.7.99"] {
            assert_eq!(releases(Version::parse(version)).count_ones(), 1, "{version}");
        }
    }

    #[test]
    fn what_came_with_a_patch_release_is_known_from_there_on() {
        let cases = [
            ("max-concurrent-streams", "3.5.1", false),
            ("max-concurrent-streams", "3.5.5", true),
            ("tls-min-version", "3.5.5", false),
            ("tls-min-version", "3.5.8", true),
            ("experimental-distributed-tracing-sampling-rate", "3.5.10", false),
            ("experimental-distributed-tracing-sampling-rate", "3.5.11", true),
            ("experimental-compaction-sleep-interval", "3.5.15", false),
            ("experimental-compaction-sleep-interval", "3.5.16", true),
        ];
        for (name, version, want) in cases {
            assert_eq!(defines_flag(name, Version::parse(version)), want, "{name} {version}");
        }
        let changes: Vec<_> = changes().collect();
        for change in [(4, 25), (5, 5), (5, 8), (5, 10), (5, 11), (5, 15), (5, 16), (5, 32)] {
            assert!(changes.contains(&change), "{change:?}");
        }
    }

    #[test]
    fn a_key_of_a_section_holds_what_the_release_says() {
        let cases = [
            ("3.5.13", vec![]),
            ("3.5.14", vec![Shape::Text]),
            ("3.5.15", vec![Shape::List]),
            ("3.5", vec![Shape::List]),
            ("", vec![Shape::List, Shape::Text]),
        ];
        for (version, want) in cases {
            assert_eq!(
                shapes("peer-transport-security.allowed-cn", Version::parse(version)),
                want,
                "{version}"
            );
        }
        // A key that the table does not have in the line of its release.
        assert_eq!(shapes("tls-min-version", Version::parse("3.4.25")), [Shape::Text]);
        assert_eq!(shapes("tls-min-version", Version::parse("3.4.24")), []);
        let sections = ["peer-transport-security", "client-transport-security"];
        for leaf in ["auto-tls", "cert-file", "client-cert-auth", "key-file", "trusted-ca-file"] {
            assert!(sections.iter().all(|section| keys_of(section).any(|key| key == leaf)), "{leaf}");
        }
    }
}
