//! Values that etcd refuses to start with, whichever source they come from.
//!
//! What the flags hold was read in `embed/config.go` and `etcdmain/config.go` of 3.4.23 to 3.7.3, and asked of the programs 3.4.23,
//! 3.5.1 and 3.6.13.

use std::collections::HashMap;
use std::sync::LazyLock;

use seaworthy_evidence::Url;

use super::flags::{parse_bool, shown};
use crate::etcd::Version;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `90s`, as Go's `time.ParseDuration` reads it.
    Duration,
    /// Names of feature gates, each with a truth value.
    FeatureGates,
    /// A whole number, as Go's `strconv.ParseInt` with base 0 reads it.
    Int,
    /// `*` or URLs, for CORS.
    Origins,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A number of revisions or hours, or a duration.
    Retention,
    /// The kind of token before the first comma.
    Token,
    /// A whole number that is not negative.
    Uint,
}

/// First and last minor release of etcd 3, what the values must be, the flags.
#[rustfmt::skip]
const KINDS: &[(u32, u32, Kind, &str)] = &[
    (4, 4, Kind::OneOf(&["capnslog", "default", "zap"]), "logger"),
    (4, 5, Kind::OneOf(&["", "periodic", "revision"]), "auto-compaction-mode"),
    (4, 5, Kind::OneOf(&["off", "on", "readonly"]), "proxy"),
    (4, 5, Kind::Uint, "\
     proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval proxy-write-timeout"),
    (4, 6, Kind::Duration, "\
     experimental-corrupt-check-time experimental-warning-apply-duration experimental-watch-progress-notify-interval"),
    (4, 6, Kind::Int, "experimental-compaction-batch-limit"),
    (4, 7, Kind::Duration, "\
     backend-batch-interval grpc-keepalive-interval grpc-keepalive-min-time grpc-keepalive-timeout"),
    (4, 7, Kind::Int, "backend-batch-limit quota-backend-bytes"),
    (4, 7, Kind::OneOf(&["exit", "proxy"]), "discovery-fallback"),
    (4, 7, Kind::OneOf(&["", "debug", "dpanic", "error", "fatal", "info", "panic", "warn"]), "log-level"),
    (4, 7, Kind::Origins, "cors"),
    (4, 7, Kind::Retention, "auto-compaction-retention"),
    (4, 7, Kind::Token, "auth-token"),
    (4, 7, Kind::Uint, "\
     auth-token-ttl bcrypt-cost election-timeout heartbeat-interval max-concurrent-streams max-request-bytes \
     max-snapshots max-txn-ops max-wals snapshot-count"),
    (5, 6, Kind::Duration, "\
     experimental-compact-hash-check-time experimental-compaction-sleep-interval experimental-downgrade-check-time"),
    (5, 6, Kind::Int, "experimental-distributed-tracing-sampling-rate"),
    (5, 6, Kind::Uint, "experimental-bootstrap-defrag-threshold-megabytes experimental-snapshot-catchup-entries"),
    (5, 7, Kind::Duration, "raft-read-timeout raft-write-timeout"),
    (5, 5, Kind::OneOf(&["gone", "not-yet", "write-only", "write-only-drop-data", "write-only-skip-check"]), "v2-deprecation"),
    (5, 7, Kind::OneOf(&["zap"]), "logger"),
    (5, 7, Kind::Uint, "self-signed-cert-validity"),
    (6, 6, Kind::Duration, "experimental-warning-unary-request-duration"),
    (6, 7, Kind::OneOf(&["gone", "write-only", "write-only-drop-data", "write-only-skip-check"]), "v2-deprecation"),
    (6, 7, Kind::Duration, "\
     compact-hash-check-time compaction-sleep-interval corrupt-check-time discovery-dial-timeout \
     discovery-keepalive-time discovery-keepalive-timeout discovery-request-timeout downgrade-check-time \
     warning-apply-duration warning-unary-request-duration watch-progress-notify-interval"),
    (6, 7, Kind::FeatureGates, "feature-gates"),
    (6, 7, Kind::Int, "compaction-batch-limit distributed-tracing-sampling-rate max-learners"),
    (6, 7, Kind::OneOf(&["console", "json"]), "log-format"),
    (6, 7, Kind::OneOf(&["periodic", "revision"]), "auto-compaction-mode"),
    (6, 7, Kind::Uint, "bootstrap-defrag-threshold-megabytes snapshot-catchup-entries"),
];

/// First minor release of etcd 3, and the feature gates that it brought; none has gone since.
const FEATURE_GATES: &[(u32, &str)] = &[
    (
        6,
        "AllAlpha AllBeta CompactHashCheck InitialCorruptCheck LeaseCheckpoint LeaseCheckpointPersist \
         SetMemberLocalAddr StopGRPCServiceOnDefrag TxnModeWriteWithSharedBuffer",
    ),
    (7, "FastLeaseKeepAlive PriorityRequest"),
];

/// Names of cipher suites: those of Go's `crypto/tls`, and two that etcd adds.
const CIPHER_SUITES: &str = "\
    TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256 \
    TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 \
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA \
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305 \
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 TLS_ECDHE_ECDSA_WITH_RC4_128_SHA \
    TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA \
    TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 \
    TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 \
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 \
    TLS_ECDHE_RSA_WITH_RC4_128_SHA TLS_RSA_WITH_3DES_EDE_CBC_SHA TLS_RSA_WITH_AES_128_CBC_SHA \
    TLS_RSA_WITH_AES_128_CBC_SHA256 TLS_RSA_WITH_AES_128_GCM_SHA256 TLS_RSA_WITH_AES_256_CBC_SHA \
    TLS_RSA_WITH_AES_256_GCM_SHA384 TLS_RSA_WITH_RC4_128_SHA";

/// Suites of which HTTP/2 requires one (RFC 9113, section 9.2.2), as Go's server checks it.
const OF_HTTP2: [&str; 2] =
    ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];

/// Returns why etcd `version` refuses to start with `value` for the flag or key `name`; `None` where nothing is known against it,
/// and, when the version is unknown, where any release takes it.
pub(super) fn refusal(name: &str, value: &str, version: Option<Version>) -> Option<String> {
    let line = version.map(Version::line);
    let of_release = |first: u32, last: u32| line.is_none_or(|line| (first..=last).contains(&line));
    let mut refusal = None;
    for (first, last, kind) in KINDS_BY_NAME.get(name)? {
        if of_release(*first, *last) {
            refusal = Some(refused(*kind, value, line)?);
        }
    }
    refusal
}

type ByName = HashMap<&'static str, Vec<(u32, u32, Kind)>>;

/// What the values of each flag must be, by the first and the last minor release.
static KINDS_BY_NAME: LazyLock<ByName> = LazyLock::new(|| {
    let mut kinds = ByName::new();
    for (first, last, kind, names) in KINDS {
        for name in names.split_ascii_whitespace() {
            kinds.entry(name).or_default().push((*first, *last, *kind));
        }
    }
    kinds
});

/// Returns why `value` is not of this `kind` in the release line `line`.
fn refused(kind: Kind, value: &str, line: Option<u32>) -> Option<String> {
    let quoted = shown(value);
    let wanted = match kind {
        Kind::Duration => (!is_duration(value)).then(|| "a duration such as 5s".to_owned()),
        Kind::FeatureGates => return gates(value, line),
        Kind::Int => integer(value.strip_prefix(['+', '-']).unwrap_or(value))
            .is_none()
            .then(|| "a whole number".to_owned()),
        Kind::OneOf(words) => {
            // The library that reads the level takes capitals from the one of 3.5 on.
            let capitals = words.contains(&"debug") && line.is_none_or(|line| line >= 5);
            let known = words.iter().any(|word| *word == value || capitals && word.to_uppercase() == value);
            (!known).then(|| {
                words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" or ")
            })
        }
        Kind::Origins => {
            let is_origin =
                |text: &str| text == "*" || Url::parse(text).is_some_and(|url| url.port.is_some());
            (!value.split(',').all(is_origin)).then(|| "* or URLs of the form http://host:port".to_owned())
        }
        Kind::Retention => (integer(value).is_none() && !is_duration(value))
            .then(|| "a number of hours or revisions, or a duration".to_owned()),
        Kind::Token => {
            let kind = value.split(',').next().unwrap_or_default();
            (!matches!(kind, "" | "jwt" | "simple")).then(|| "simple or jwt,…".to_owned())
        }
        Kind::Uint => integer(value).is_none().then(|| "a whole number that is not negative".to_owned()),
    };
    wanted.map(|wanted| format!("invalid value {quoted:?}: etcd wants {wanted}"))
}

/// Returns why etcd refuses a list of cipher suites; `serves` says whether it listens for clients with TLS.
pub(super) fn refused_suites(list: &str, serves: bool) -> Option<String> {
    if list.is_empty() {
        return None;
    }
    let known = |name: &str| CIPHER_SUITES.split_ascii_whitespace().any(|known| known == name);
    if let Some(name) = list.split(',').find(|name| !known(name)) {
        return Some(format!("unexpected TLS cipher suite {:?}", shown(name)));
    }
    let lacks = serves && !list.split(',').any(|name| OF_HTTP2.contains(&name));
    lacks.then(|| format!("the list lacks a cipher suite that HTTP/2 requires: {}", OF_HTTP2.join(" or ")))
}

fn gates(value: &str, line: Option<u32>) -> Option<String> {
    let known = |name: &str| {
        let since = FEATURE_GATES.iter().find(|(_, names)| names.split_ascii_whitespace().any(|n| n == name));
        since.is_some_and(|(since, _)| line.is_none_or(|line| line >= *since))
    };
    value.split(',').filter(|gate| !gate.is_empty()).find_map(|gate| {
        let (name, value) = gate.split_once('=').map_or((gate, None), |(name, value)| (name, Some(value)));
        let name = name.trim();
        match value.map(|value| parse_bool(value.trim())) {
            None => Some(format!("missing bool value for {}", shown(name))),
            Some(None) => Some(format!("the value of {} is no boolean", shown(name))),
            Some(Some(_)) if !known(name) => Some(format!("unrecognized feature gate: {}", shown(name))),
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
            // 3.5.1 refuses it and 3.5.35 takes it; the first that does is not known.
            ("v2-deprecation", "write-only-skip-check", [false; 3]),
        ];
        for (name, value, want) in cases {
            let got = ["3.4.23", "3.5.1", "3.6.13"].map(|version| refused_by(name, value, version));
            assert_eq!(got, want, "{name}={value}");
        }
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
