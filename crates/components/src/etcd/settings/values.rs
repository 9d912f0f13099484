//! Values that etcd refuses to start with, whichever source they come from.

use seaworthy_evidence::Url;
use seaworthy_settings::tls::{OF_HTTP2, is_cipher_suite};

use super::flags::{parse_bool, shown};
use super::names::{self, Takes};
use crate::etcd::Version;

/// Returns why etcd `version` refuses to start with `value` for the flag or key `name`; `None` where nothing is known against it,
/// and, when the version is unknown, where any release takes it.
pub(super) fn refusal(name: &str, value: &str, version: Option<Version>) -> Option<String> {
    let mut refusal = None;
    for takes in names::takes(name, version) {
        refusal = Some(refused(name, value, &takes)?);
    }
    refusal
}

/// Returns why a release refuses `value`.
///
/// What the type of a flag demands is in the table of flags. The text that etcd looks at only later is named here, as it was read in
/// `embed/config.go` and asked of the programs 3.4.23, 3.5.1 and 3.6.13.
fn refused(name: &str, value: &str, takes: &Takes) -> Option<String> {
    let one_of = |words: &[&str]| {
        let shown = || words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" or ");
        (!words.contains(&value)).then(shown)
    };
    let wanted = match (name, takes.kind) {
        ("auth-token", _) => {
            let kind = value.split(',').next().unwrap_or_default();
            (!matches!(kind, "" | "jwt" | "simple")).then(|| "simple or jwt,…".to_owned())
        }
        ("auto-compaction-mode", _) if takes.line < 6 => one_of(&["", "periodic", "revision"]),
        ("auto-compaction-mode", _) => one_of(&["periodic", "revision"]),
        ("auto-compaction-retention", _) => (integer(value).is_none() && !is_duration(value))
            .then(|| "a number of hours or revisions, or a duration".to_owned()),
        ("cors", _) => {
            let is_origin =
                |text: &str| text == "*" || Url::parse(text).is_some_and(|url| url.port.is_some());
            (!value.split(',').all(is_origin)).then(|| "* or URLs of the form http://host:port".to_owned())
        }
        // A file may say nothing, which is looked at elsewhere.
        ("initial-cluster-state", _) => None,
        ("log-format", _) => one_of(&["console", "json"]),
        ("log-level", _) => {
            // The library that reads the level takes capitals from the one of 3.5 on.
            let lower = value.to_ascii_lowercase();
            let capitals = takes.line >= 5 && lower.to_ascii_uppercase() == value;
            let refused = one_of(LEVELS);
            refused.filter(|_| !(capitals && LEVELS.contains(&lower.as_str())))
        }
        ("logger", _) if takes.line == 4 => one_of(&["capnslog", "default", "zap"]),
        ("logger", _) => one_of(&["zap"]),
        (_, "duration") => (!is_duration(value)).then(|| "a duration such as 5s".to_owned()),
        (_, "featureGate") => return gates(value, takes.release),
        (_, "int" | "int64") => {
            let number = integer(value.strip_prefix(['+', '-']).unwrap_or(value));
            let limit = i64::MAX.unsigned_abs() + u64::from(value.starts_with('-'));
            number.is_none_or(|number| number > limit).then(|| "a whole number".to_owned())
        }
        (_, "uint" | "uint32" | "uint64") => {
            let limit = if takes.kind == "uint32" { u64::from(u32::MAX) } else { u64::MAX };
            let refused = integer(value).is_none_or(|number| number > limit);
            refused.then(|| "a whole number that is not negative".to_owned())
        }
        _ if takes.values.is_empty() => None,
        _ => one_of(takes.values),
    };
    wanted.map(|wanted| format!("invalid value {:?}: etcd wants {wanted}", shown(value)))
}

/// The levels of a log.
const LEVELS: &[&str] = &["", "debug", "dpanic", "error", "fatal", "info", "panic", "warn"];

/// Returns why etcd refuses a list of cipher suites; `serves` says whether it listens for clients with TLS.
pub(super) fn refused_suites(list: &str, serves: bool) -> Option<String> {
    if list.is_empty() {
        return None;
    }
    if let Some(name) = list.split(',').find(|name| !is_cipher_suite(name)) {
        return Some(format!("unexpected TLS cipher suite {:?}", shown(name)));
    }
    let lacks = serves && !list.split(',').any(|name| OF_HTTP2.contains(&name));
    lacks.then(|| format!("the list lacks a cipher suite that HTTP/2 requires: {}", OF_HTTP2.join(" or ")))
}

fn gates(value: &str, release: u64) -> Option<String> {
    value.split(',').filter(|gate| !gate.is_empty()).find_map(|gate| {
        let (name, value) = gate.split_once('=').map_or((gate, None), |(name, value)| (name, Some(value)));
        let name = name.trim();
        match value.map(|value| parse_bool(value.trim())) {
            None => Some(format!("missing bool value for {}", shown(name))),
            Some(None) => Some(format!("the value of {} is no boolean", shown(name))),
            Some(Some(_)) if !names::defines_gate(name, release) => {
                Some(format!("unrecognized feature gate: {}", shown(name)))
            }
            Some(Some(_)) => None,
        }
    })
}

/// Returns the number that Go reads with base 0: with the prefixes of Go's literals, and underscores between digits.
pub(super) fn integer(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)?),
        [b'0', b'b', ..] => (2, lower.get(2..)?),
        [b'0', b'o', ..] => (8, lower.get(2..)?),
        [b'0', _, ..] => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    let separated = digits.split('_');
    let prefixed = radix != 10;
    let well_formed = digits.is_ascii()
        && !digits.starts_with('+')
        && separated.enumerate().all(|(index, part)| !part.is_empty() || index == 0 && prefixed);
    u64::from_str_radix(&digits.replace('_', ""), radix).ok().filter(|_| well_formed)
}

/// Returns whether Go's `time.ParseDuration` reads `text`.
fn is_duration(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(end);
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let is_number = number.chars().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
        if !is_number || !matches!(unit, "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = after;
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_by(name: &str, value: &str, version: &str) -> bool {
        refusal(name, value, Version::parse(version)).is_some()
    }

    #[test]
    fn values_are_read_as_the_programs_read_them() {
        // Whether 3.4.23, 3.5.1 and 3.6.13 refuse it, as the programs do.
        let cases = [
            ("auth-token", "magic", [true; 3]),
            ("auth-token", "jwt,pub-key=x", [false; 3]),
            ("auto-compaction-mode", "weekly", [true; 3]),
            ("auto-compaction-mode", "", [false, false, true]),
            ("auto-compaction-retention", "abc", [true; 3]),
            ("auto-compaction-retention", "1h", [false; 3]),
            ("backend-bbolt-freelist-type", "tree", [false; 3]),
            ("cors", "foo", [true; 3]),
            ("cors", "*", [false; 3]),
            ("discovery-fallback", "no", [true; 3]),
            ("grpc-keepalive-min-time", "5", [true; 3]),
            ("grpc-keepalive-min-time", "5s", [false; 3]),
            ("grpc-keepalive-min-time", "1h2.5m", [false; 3]),
            ("heartbeat-interval", "ten", [true; 3]),
            ("log-level", "loud", [true; 3]),
            ("log-level", "WARN", [true, false, false]),
            ("logger", "foo", [true; 3]),
            ("logger", "capnslog", [false, true, true]),
            ("max-txn-ops", "", [true; 3]),
            ("max-txn-ops", "0x80", [false; 3]),
            ("max-txn-ops", "1_000", [false; 3]),
            ("max-txn-ops", "08", [true; 3]),
            ("metrics", "x", [false; 3]),
            ("quota-backend-bytes", "8G", [true; 3]),
            ("snapshot-count", "-5", [true; 3]),
            // 3.4 has no such flag.
            ("v2-deprecation", "later", [false, true, true]),
            ("v2-deprecation", "not-yet", [false, false, true]),
            ("v2-deprecation", "write-only-skip-check", [false, true, false]),
            ("experimental-distributed-tracing-sampling-rate", "many", [false, false, true]),
            ("max-concurrent-streams", "4294967296", [true, false, true]),
            ("quota-backend-bytes", "9223372036854775808", [true; 3]),
            ("quota-backend-bytes", "-9223372036854775808", [false; 3]),
        ];
        for (name, value, want) in cases {
            let got = ["3.4.23", "3.5.1", "3.6.13"].map(|version| refused_by(name, value, version));
            assert_eq!(got, want, "{name}={value}");
        }
        // The table does not have 3.5.31, which is therefore taken to be like either neighbour.
        let skips =
            ["3.5.18", "3.5.31", "3.5.32"].map(|v| refused_by("v2-deprecation", "write-only-skip-check", v));
        assert_eq!(skips, [true, false, false]);
        // Without a version, what any release takes is taken.
        assert_eq!(refusal("logger", "capnslog", None), None);
        assert!(refusal("logger", "foo", None).is_some());
    }

    #[test]
    fn feature_gates_are_those_of_the_release() {
        let cases = [
            ("StopGRPCServiceOnDefrag=true", [false, false]),
            (" AllAlpha = T ,", [false, false]),
            ("FastLeaseKeepAlive=true", [true, false]),
            ("Nonsense=true", [true, true]),
            ("InitialCorruptCheck", [true, true]),
            ("InitialCorruptCheck=yes", [true, true]),
        ];
        for (value, want) in cases {
            assert_eq!(["3.6.13", "3.7.1"].map(|v| refused_by("feature-gates", value, v)), want, "{value}");
        }
    }

    #[test]
    fn a_list_of_cipher_suites_is_read_as_etcd_reads_it() {
        let (http2, other) = (OF_HTTP2[0], "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384");
        // The list, and whether it is refused without and with a client listener that speaks TLS.
        let cases = [
            (String::new(), [false, false]),
            (http2.to_owned(), [false, false]),
            (OF_HTTP2[1].to_owned(), [false, false]),
            (other.to_owned(), [false, true]),
            (format!("{other},{http2}"), [false, false]),
            (format!("{http2}, {other}"), [true, true]),
            (format!("{http2},"), [true, true]),
            (format!("\"{http2}\""), [true, true]),
            (http2.to_lowercase(), [true, true]),
            ("ECDHE-RSA-AES128-GCM-SHA256".to_owned(), [true, true]),
        ];
        for (list, want) in cases {
            assert_eq!([false, true].map(|serves| refused_suites(&list, serves).is_some()), want, "{list}");
        }
    }
}
