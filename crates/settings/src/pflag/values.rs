//! Values that are of the right type and that components of Kubernetes refuse all the same, as far as all of them that have the flag
//! check it alike: `k8s.io/component-base`, and `SecureServingOptions` of `k8s.io/apiserver`; read in 1.35.4 and 1.36.3, and tried with
//! the programs of 1.35.4.
//!
//! Which features depend on which is not in the table of flags, so a gate that is on without what it needs is not noticed.

use seaworthy_evidence::{ErrorKind, EvidenceError, Origin};

use super::{Line, Release, Table, gates, parse_bool, parse_int};
use crate::tls::{OF_HTTP2, is_cipher_suite};

/// The flag that only those have who serve by `SecureServingOptions`.
const PORT: &str = "secure-port";

/// Adds to `line` what a component of one of the `releases`, if these are `all` that it may be of, exits for.
pub(super) fn judge(line: &mut Line, table: &Table, releases: &[Release], all: bool) {
    let mut found = Findings::default();
    let given = Flags { line, table };
    given.gates(&mut found, releases, all);
    given.logging(&mut found);
    given.serving(&mut found);
    // The lock of leaders is a lease alone in the releases that were read.
    if let Some((lock, origin)) = given.last("leader-elect-resource-lock")
        && lock != "leases"
        && given.last("config").is_none()
        && given.last("leader-elect").is_none_or(|(on, _)| parse_bool(on) != Some(false))
        && all
        && releases.iter().all(|release| *release >= (1, 35, 0))
    {
        found.refuse("leader-elect-resource-lock", "resourceLock value must be \"leases\"", origin);
    }
    let Findings { fatal, doubt } = found;
    for (name, message, origin) in fatal {
        line.refuse(name, &message, &origin);
    }
    if line.doubt.is_none() {
        line.doubt = doubt;
    }
}

/// What there is to say of a command line.
#[derive(Default)]
struct Findings {
    fatal: Vec<(&'static str, String, Origin)>,
    doubt: Option<EvidenceError>,
}

impl Findings {
    fn refuse(&mut self, setting: &'static str, message: impl Into<String>, origin: &Origin) {
        self.fatal.push((setting, message.into(), origin.clone()));
    }
}

/// The flags that are given, of those there are.
struct Flags<'a> {
    line: &'a Line,
    table: &'a Table,
}

impl Flags<'_> {
    /// Returns all that is given for a flag, with its places; nothing for a flag that there is not.
    fn all(&self, name: &str) -> impl Iterator<Item = (&str, &Origin)> + Clone {
        let given = self.line.given.iter().filter(move |(given, ..)| given == name);
        let known = self.table.flag(name).is_some();
        given.filter(move |_| known).map(|(_, value, origin)| (value.as_str(), origin))
    }

    /// Returns the value that counts.
    fn last(&self, name: &str) -> Option<(&str, &Origin)> {
        self.all(name).last()
    }

    /// Returns whether a flag is given and says yes.
    fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|(value, _)| parse_bool(value) == Some(true))
    }

    fn gates(&self, found: &mut Findings, releases: &[Release], all: bool) {
        let Some(flag) = self.table.flag(gates::FLAG) else { return };
        let gates = match gates::parse(flag.kind, self.all(gates::FLAG)) {
            Ok(gates) => gates,
            Err((message, origin)) => return found.refuse(gates::FLAG, message, origin),
        };
        // Then the stages of gates are those of another release.
        let emulates =
            ["emulated-version", "min-compatibility-version"].iter().any(|f| self.last(f).is_some());
        for (name, (on, origin)) in gates {
            let refusals = releases.iter().map(|release| gates::refused(self.table, *release, &name, on));
            let Some(refusals) = refusals.collect::<Option<Vec<_>>>() else { continue };
            let Some(message) = refusals.into_iter().next_back() else { continue };
            let is_known = all && !(emulates && self.table.gates.iter().any(|gate| gate.name == name));
            if is_known {
                found.refuse(gates::FLAG, message, origin);
                continue;
            }
            let why = match all {
                true => "the release that it is to emulate",
                false => "which release would be started, which is not known",
            };
            let message = format!(
                "no release of {} that is known takes the feature gate {}; whether it exits depends on {why}",
                self.table.component,
                name.chars().take(64).collect::<String>()
            );
            let error = EvidenceError::new(ErrorKind::Unsupported, message).at(origin.clone());
            found.doubt.get_or_insert(error);
        }
    }

    fn logging(&self, found: &mut Findings) {
        if let Some((format, origin)) = self.last("logging-format")
            && !matches!(format, "json" | "text")
        {
            found.refuse("logging-format", "Unsupported log format: it is json or text", origin);
        }
    }

    /// Judges what is served over TLS. Without a port nothing of it is looked at.
    fn serving(&self, found: &mut Findings) {
        if self.table.flag(PORT).is_none() {
            return;
        }
        if let Some((port, origin)) = self.last(PORT)
            && let Some(number) = parse_int(port)
        {
            if !(0..=65535).contains(&number) {
                let message = format!("--secure-port {number} must be between 0 and 65535, inclusive");
                found.refuse(PORT, message, origin);
            }
            if number == 0 {
                return;
            }
        }
        let version = self.last("tls-min-version");
        if let Some((version, origin)) = version
            && !matches!(version, "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" | "VersionTLS13")
        {
            found.refuse(
                "tls-min-version",
                "unknown tls version: it is VersionTLS10 to VersionTLS13",
                origin,
            );
        }
        let suites = self.last("tls-cipher-suites").zip(list(self.all("tls-cipher-suites").map(|(v, _)| v)));
        if let Some(((_, origin), suites)) = suites
            && !suites.is_empty()
        {
            if let Some(name) = suites.iter().find(|name| !is_cipher_suite(name)) {
                let name: String = name.chars().take(64).collect();
                let message = format!("Cipher suite {name:?} not supported or doesn't exist");
                found.refuse("tls-cipher-suites", message, origin);
            } else if version.is_none_or(|(version, _)| version != "VersionTLS13")
                && !suites.iter().any(|name| OF_HTTP2.contains(name))
                && self.table.flag("disable-http2-serving").is_some()
                && !self.is_on("disable-http2-serving")
            {
                let message =
                    format!("the list lacks a cipher suite that HTTP/2 requires: {}", OF_HTTP2.join(" or "));
                found.refuse("tls-cipher-suites", message, origin);
            }
        }
        let (certificate, key) = ("tls-cert-file", "tls-private-key-file");
        for (one, other) in [(certificate, key), (key, certificate)] {
            let is_set = |name| self.last(name).filter(|(value, _)| !value.is_empty());
            if let (Some((_, origin)), None) = (is_set(one), is_set(other)) {
                found.refuse(one, format!("missing filename for serving cert: --{other} is not set"), origin);
            }
        }
    }
}

/// Returns the elements of a list that is given in several parts; `None` where quotes make it more than that.
fn list<'a>(values: impl Iterator<Item = &'a str>) -> Option<Vec<&'a str>> {
    let mut all = Vec::new();
    for value in values.filter(|value| !value.is_empty()) {
        if value.contains('"') {
            return None;
        }
        all.extend(value.split(','));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::{Flag, Gate, Takes, resolve};
    use super::*;
    use crate::{Argument, Given, Resolved};

    const ALWAYS: Release = (0, 0, 0);
    const FIRST: Release = (1, 35, 4);
    const NEXT: Release = (1, 36, 3);

    const fn flag(name: &'static str, kind: &'static str, takes: Takes) -> Flag {
        Flag {
            name,
            shorthand: None,
            kind,
            takes,
            defaults: &[(ALWAYS, Some(""))],
            since: None,
            removed: None,
            field: None,
        }
    }

    const fn gate(name: &'static str, locked: &'static [(Release, bool)]) -> Gate {
        let (stages, defaults) = (&[(ALWAYS, "BETA")], &[(ALWAYS, true)]);
        Gate { name, stages, defaults, locked, since: None, removed: None }
    }

    const FLAGS: &[Flag] = &[
        flag("disable-http2-serving", "bool", Takes::Boolean),
        flag("emulated-version", "stringSlice", Takes::List),
        flag("feature-gates", "colonSeparatedMultimapStringString", Takes::List),
        flag("leader-elect", "bool", Takes::Boolean),
        flag("leader-elect-resource-lock", "string", Takes::Value),
        flag("logging-format", "string", Takes::Value),
        flag("secure-port", "int", Takes::Value),
        flag("tls-cert-file", "string", Takes::Value),
        flag("tls-cipher-suites", "stringSlice", Takes::List),
        flag("tls-min-version", "string", Takes::Value),
        flag("tls-private-key-file", "string", Takes::Value),
    ];

    const GATES: &[Gate] = &[
        gate("AllBeta", &[(ALWAYS, false)]),
        gate("Beta", &[(ALWAYS, false)]),
        Gate { since: Some((1, 36, 0)), ..gate("Late", &[(ALWAYS, false)]) },
        gate("Locked", &[((1, 35, 0), false), ((1, 36, 0), true)]),
        Gate { removed: Some((1, 36, 0)), ..gate("Old", &[(ALWAYS, true)]) },
        Gate { stages: &[(ALWAYS, "PRE-ALPHA")], ..gate("Soon", &[(ALWAYS, false)]) },
    ];

    static TABLE: Table = Table {
        component: "kube-scheduler",
        releases: &[FIRST, NEXT],
        flags: FLAGS,
        gates: GATES,
        fields: &[],
    };

    /// As kubelet and kube-proxy are, which have no port of this kind and name no other component.
    static OTHER: Table = Table {
        component: "kubelet",
        releases: &[FIRST, NEXT],
        flags: &[
            flag("feature-gates", "mapStringBool", Takes::List),
            flag("tls-cert-file", "string", Takes::Value),
        ],
        gates: GATES,
        fields: &[],
    };

    fn resolved(table: &Table, line: &str, release: Option<&str>) -> Resolved {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.replace('~', " ").into_bytes(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |_: &str| Err(EvidenceError::new(ErrorKind::NotFound, "no file"));
        let given = Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release,
            runs: false,
            read,
            list: &mut crate::no_list,
        };
        resolve(table, &["feature-gates"], &given)
    }

    /// What it would exit for; `?` where that is not known.
    fn said(table: &Table, line: &str, release: Option<&str>) -> String {
        let resolved = resolved(table, line, release);
        match (resolved.fatal.as_slice(), resolved.doubt) {
            ([], None) => String::new(),
            ([], Some(_)) => "?".to_owned(),
            (fatal, _) => fatal.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn gates_are_those_of_the_release() {
        // The flags, and what is said in 1.35, in 1.36, and where the release is not known.
        let cases = [
            ("--feature-gates=Beta=false", ["", "", ""]),
            ("--feature-gates=~Beta~=~F~,,AllBeta=1,", ["", "", ""]),
            ("--feature-gates=kube:Beta=false", ["", "", ""]),
            ("--feature-gates=", ["", "", ""]),
            ("--feature-gates=Beta=true,~", ["", "", ""]),
            ("--feature-gates=kube:Beta=true,kube:", ["", "", ""]),
            ("--feature-gates=kube:Beta=true,~", ["set kube feature gates with default"; 3]),
            ("--feature-gates=Nonsense=true", ["unrecognized feature gate: Nonsense", "unrecognized", "?"]),
            ("--feature-gates=beta=true", ["unrecognized feature gate: beta", "unrecognized", "?"]),
            ("--feature-gates=Late=true", ["unrecognized feature gate: Late", "", ""]),
            ("--feature-gates=Old=true", ["", "unrecognized feature gate: Old", ""]),
            ("--feature-gates=Old=false", ["cannot set feature gate Old to false", "unrecognized", "?"]),
            ("--feature-gates=Locked=true", ["", "", ""]),
            (
                "--feature-gates=Locked=false",
                ["", "cannot set feature gate Locked to false, feature is locked to true", ""],
            ),
            (
                "--feature-gates=Soon=true",
                ["cannot set feature gate Soon", "cannot set feature gate Soon", "?"],
            ),
            (
                "--feature-gates=Old=false --feature-gates=Old=true",
                ["", "unrecognized feature gate: Old", ""],
            ),
            ("--feature-gates=Old=false --emulated-version=1.34", ["?", "?", "?"]),
            ("--feature-gates=Nonsense=true --emulated-version=1.34", ["unrecognized", "unrecognized", "?"]),
            ("--feature-gates=Beta", ["missing bool value for Beta"; 3]),
            ("--feature-gates=Beta=yes", ["the value of Beta is not true or false"; 3]),
            ("--feature-gates=Beta=yes,Beta=true", ["the value of Beta is not true or false"; 3]),
            ("--feature-gates=wardle:Beta=true", ["component not registered: wardle"; 3]),
            ("--feature-gates=kube:Beta=true,AllBeta=true", ["set kube feature gates with default"; 3]),
        ];
        for (line, want) in cases {
            for (release, want) in [Some("1.35.4"), Some("v1.36.0"), None].into_iter().zip(want) {
                let said = said(&TABLE, line, release);
                assert!(
                    said.starts_with(want) && said.is_empty() == want.is_empty(),
                    "{line} {release:?}: {said}"
                );
            }
        }
        assert_eq!(
            said(&OTHER, "--feature-gates=kube:Beta=true", Some("1.36.3")),
            "unrecognized feature gate: kube:Beta"
        );
        assert_eq!(said(&OTHER, "--feature-gates=Beta=true,~", Some("1.36.3")), "missing bool value for ");
    }

    #[test]
    fn gates_are_shown_as_they_are_in_effect() {
        let cases = [
            ("--feature-gates=B=true,A=F", "A=false,B=true"),
            ("--feature-gates=~A~=~T~", "A=true"),
            ("--feature-gates=A=true --feature-gates=A=false", "A=false"),
            ("--feature-gates=kube:A=0", "A=false"),
            ("--feature-gates=", ""),
            // What is wrong stays as it is.
            ("--feature-gates=A=yes", "A=yes"),
            ("--feature-gates=A=false --feature-gates=kube:B=true", "A=false,kube:B=true"),
        ];
        for (line, want) in cases {
            let resolved = resolved(&TABLE, line, None);
            assert_eq!(resolved.settings.value().unwrap()["feature-gates"].value, want, "{line}");
        }
    }

    #[test]
    fn what_is_served_is_checked_alike_in_all() {
        let http2 = OF_HTTP2[1];
        let cases = [
            ("--tls-min-version=VersionTLS13".to_owned(), ""),
            ("--tls-min-version=".to_owned(), ""),
            ("--tls-min-version=TLS1.2".to_owned(), "unknown tls version"),
            ("--tls-min-version=VersionTLS9 --tls-min-version=VersionTLS12".to_owned(), ""),
            (format!("--tls-cipher-suites={http2},TLS_RSA_WITH_RC4_128_SHA"), ""),
            ("--tls-cipher-suites=".to_owned(), ""),
            (format!("--tls-cipher-suites={http2},"), "Cipher suite \"\" not supported"),
            (format!("--tls-cipher-suites={http2},~{http2}"), "Cipher suite \" TLS"),
            (format!("--tls-cipher-suites={http2} --tls-cipher-suites=ECDHE"), "Cipher suite \"ECDHE\""),
            ("--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA".to_owned(), "the list lacks a cipher suite"),
            (format!("--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA --tls-cipher-suites={http2}"), ""),
            ("--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA --tls-min-version=VersionTLS13".to_owned(), ""),
            ("--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA --disable-http2-serving".to_owned(), ""),
            ("--secure-port=0 --tls-min-version=x --tls-cipher-suites=x --tls-cert-file=x".to_owned(), ""),
            ("--secure-port=65536".to_owned(), "--secure-port 65536 must be between"),
            ("--tls-cert-file=/c".to_owned(), "missing filename for serving cert: --tls-private-key-file"),
            ("--tls-private-key-file=/k".to_owned(), "missing filename for serving cert: --tls-cert-file"),
            ("--tls-cert-file=/c --tls-private-key-file=/k".to_owned(), ""),
            ("--logging-format=xml".to_owned(), "Unsupported log format"),
            ("--logging-format=json".to_owned(), ""),
            ("--leader-elect-resource-lock=endpoints".to_owned(), "resourceLock value must be"),
            ("--leader-elect-resource-lock=endpoints --leader-elect=false".to_owned(), ""),
        ];
        for (line, want) in cases {
            let said = said(&TABLE, &line, Some("1.35.4"));
            assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{line}: {said}");
        }
        assert_eq!(said(&OTHER, "--tls-cert-file=/c", Some("1.35.4")), "");
    }
}
