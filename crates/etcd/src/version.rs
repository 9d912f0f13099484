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
        parts.next().is_none().then_some(Self { major, minor, patch })
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
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(got.is_some_and(|v| v.reached(&[(5, 15)])), reached, "{text}");
        }
    }
}
