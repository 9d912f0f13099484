//! Releases of etcd.

/// A release of etcd, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major number: 3.
    pub major: u32,
    /// Minor number, which names a release line.
    pub minor: u32,
    /// Patch number; `None` when only the release line is known, which then counts as its newest release.
    pub patch: Option<u32>,
    /// How much of it is known.
    told: Told,
}

/// How much of a version is known; the rest is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    All,
    /// The release line.
    Line,
    Nothing,
}

impl Version {
    /// Returns the version in `text`: `3.5.1`, `v3.5.1`, `3.5`, `3.6.0-rc.3`. `None` when it is not of that
    /// form.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts = text.split(['-', '+']).next()?.split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        let patch = match parts.next() {
            None => None,
            Some(patch) => Some(patch?),
        };
        parts.next().is_none().then_some(Self { major, minor, patch, told: Told::All })
    }

    /// Returns a release for each way in which those that `version` may stand for read their inputs, oldest first: `version`
    /// itself when its patch number is known. `changes` are the releases, as (minor, patch), that read something in another
    /// way than the one before.
    pub(crate) fn readings(version: Option<Self>, changes: &[(u32, u32)]) -> Vec<Self> {
        let (lines, told) = match version {
            Some(known) if known.patch.is_some() => return vec![known],
            Some(line) => (line.line()..=line.line(), Told::Line),
            None => (4..=7, Told::Nothing),
        };
        let of_line = |minor: u32| {
            let mut patches: Vec<u32> =
                changes.iter().filter(|(line, _)| *line == minor).map(|(_, patch)| *patch).collect();
            patches.push(0);
            patches.sort_unstable();
            patches.dedup();
            let named = version.map_or((3, minor), |v| (v.major, v.minor));
            patches.into_iter().map(move |patch| Self {
                major: named.0,
                minor: named.1,
                patch: Some(patch),
                told,
            })
        };
        lines.flat_map(of_line).collect()
    }

    /// Returns how to call it in a sentence, as far as it is known.
    pub(crate) fn name(version: Option<Self>) -> String {
        match version {
            Some(version) if version.told != Told::Nothing => format!("etcd {version}"),
            _ => "etcd".to_owned(),
        }
    }

    /// Returns what of it is known, as text.
    pub(crate) fn known(self) -> Option<String> {
        (self.told != Told::Nothing).then(|| self.to_string())
    }

    /// Returns the release that the version of a Go module names: `v3.5.17`, `v3.5.17-k3s1`, `v3.3.27+incompatible`. `None`
    /// for `(devel)`, for what was built from between two releases or with changes of its own, and for versions from the
    /// time when etcd's modules were not numbered like its releases.
    pub fn of_module(text: &str) -> Option<Self> {
        let text = text.strip_suffix("+incompatible").unwrap_or(text);
        // A pseudo-version ends with a time and a commit; `+dirty` marks changes.
        let pseudo = text.rsplit_once('-').is_some_and(|(rest, commit)| {
            let time = rest.rsplit(['-', '.']).next().unwrap_or_default();
            commit.len() == 12 && time.len() == 14 && time.bytes().all(|b| b.is_ascii_digit())
        });
        let known = text.starts_with('v') && !pseudo && !text.contains('+');
        Self::parse(text).filter(|version| known && version.major >= 3 && version.patch.is_some())
    }

    /// Returns the minor number of the nearest release line of etcd 3 that is modelled: 4 to 7.
    pub(crate) fn line(self) -> u32 {
        match self.major {
            0..3 => 4,
            3 => self.minor.clamp(4, 7),
            _ => 7,
        }
    }

    /// Returns whether this release has what came with one of the releases `since`, given as (minor, patch).
    pub(crate) fn reached(self, since: &[(u32, u32)]) -> bool {
        let line = self.line();
        match since.iter().find(|(minor, _)| *minor == line) {
            Some((_, patch)) => self.patch.is_none_or(|p| p >= *patch),
            None => since.iter().all(|(minor, _)| *minor < line),
        }
    }

    /// Returns whether this release has what came with one of the releases `since`; `None` where that depends on its patch
    /// number, which is not known.
    pub(crate) fn reached_for_certain(self, since: &[(u32, u32)]) -> Option<bool> {
        let depends = since.iter().any(|(minor, patch)| *minor == self.line() && *patch > 0);
        (self.patch.is_some() || !depends).then(|| self.reached(since))
    }
}

/// Releases from which on `allowed-cn` and `allowed-hostname` are lists.
pub(crate) const LISTS: &[(u32, u32)] = &[(5, 15)];

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        let patch = self.patch.filter(|_| self.told == Told::All);
        patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_read_in_every_way() {
        let changes = [(5, 8), (5, 15), (4, 25)];
        let readings = |text: Option<&str>| {
            let readings = Version::readings(text.and_then(Version::parse), &changes);
            let reading = |v: &Version| (Version::name(Some(*v)), v.minor, v.patch.unwrap());
            readings.iter().map(reading).collect::<Vec<_>>()
        };
        let line = |patch| ("etcd 3.5".to_owned(), 5, patch);
        assert_eq!(readings(Some("3.5")), [line(0), line(8), line(15)]);
        assert_eq!(readings(Some("3.5.9")), [("etcd 3.5.9".to_owned(), 5, 9)]);
        let all = [(4, 0), (4, 25), (5, 0), (5, 8), (5, 15), (6, 0), (7, 0)];
        assert_eq!(readings(None), all.map(|(minor, patch)| ("etcd".to_owned(), minor, patch)));
    }

    #[test]
    fn only_the_version_of_a_release_counts() {
        let cases = [
            ("v3.5.17", Some("3.5.17")),
            ("v3.5.17-k3s1", Some("3.5.17")),
            ("v3.6.0-rc.3", Some("3.6.0")),
            ("v3.3.27+incompatible", Some("3.3.27")),
            ("(devel)", None),
            ("", None),
            ("3.5.17", None),
            ("v3.5", None),
            ("v3.5.17+dirty", None),
            ("v3.5.18-0.20250101120000-0123456789ab", None),
            ("v3.6.0-rc.3.0.20250101120000-0123456789ab", None),
            ("v0.5.0-alpha.5.0.20200910180754-dd1b699fc489", None),
            ("v0.0.0-20200910180754-dd1b699fc489", None),
        ];
        for (text, want) in cases {
            assert_eq!(Version::of_module(text).map(|v| v.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn versions_are_parsed_and_compared() {
        let cases = [
            ("3.5.1", Some("3.5.1"), false),
            ("v3.5.15", Some("3.5.15"), true),
            ("3.5", Some("3.5"), true),
            ("3.6.0-rc.3", Some("3.6.0"), true),
            ("3.4.45", Some("3.4.45"), false),
            ("4.0.0", Some("4.0.0"), true),
            ("3", None, false),
            ("3.x", None, false),
            ("3.5.1.2", None, false),
            ("", None, false),
        ];
        for (text, want, reached) in cases {
            let got = Version::parse(text);
            assert_eq!(got.map(|v| v.to_string()).as_deref(), want, "{text}");
            assert_eq!(got.is_some_and(|v| v.reached(LISTS)), reached, "{text}");
            let certain = got.and_then(|v| v.reached_for_certain(LISTS));
            assert_eq!(certain, got.filter(|_| text != "3.5").map(|_| reached), "{text}");
        }
    }
}
