//! The names that etcd's configuration knows: command-line flags and configuration-file keys, by release.
//!
//! Read in etcd's `etcdmain/config.go` and `embed/config.go` of 3.5.1, 3.5.33, 3.6.13 and 3.7.1, and asked of
//! the programs themselves for 3.4.23, 3.5.1 and 3.6.13. Names that appeared or disappeared within a release
//! line count for the whole line unless they bear on transport security (`SINCE`): a name too many only loses
//! a prediction.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::etcd::Version;

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

/// Returns how etcd's flag `name` is parsed in the releases that have it.
pub(super) fn flag(name: &str) -> Option<Flag> {
    FLAGS_BY_NAME.get(name).map(|(_, _, flag)| *flag)
}

/// Returns whether etcd `version` defines the flag `name`; when the version is unknown, whether any release
/// does.
pub(super) fn defines_flag(name: &str, version: Option<Version>) -> bool {
    FLAGS_BY_NAME.get(name).is_some_and(|(first, last, _)| within(name, *first, *last, version))
}

/// Returns what the top-level configuration-file key `name` (lower case) holds in the releases that have it.
pub(super) fn key(name: &str) -> Option<Shape> {
    KEYS_BY_NAME.get(name).map(|(_, _, shape)| *shape)
}

/// Returns whether etcd `version` knows the top-level configuration-file key `name` (lower case); when the
/// version is unknown, whether any release does.
pub(super) fn defines_key(name: &str, version: Option<Version>) -> bool {
    KEYS_BY_NAME.get(name).is_some_and(|(first, last, _)| within(name, *first, *last, version))
}

/// Returns the names of all top-level configuration-file keys that `version` knows.
pub(super) fn keys(version: Option<Version>) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .flat_map(|(first, last, _, names)| names.split_whitespace().map(move |name| (*first, *last, name)))
        .filter(move |(first, last, name)| within(name, *first, *last, version))
        .map(|(_, _, name)| name)
}

/// A table by name: first release, last release, and the rest of the row.
type ByName<T> = LazyLock<HashMap<&'static str, (u32, u32, T)>>;

static FLAGS_BY_NAME: ByName<Flag> = LazyLock::new(|| by_name(FLAGS));
static KEYS_BY_NAME: ByName<Shape> = LazyLock::new(|| by_name(KEYS));

/// Returns the rows of `table` by each of their names, which occur once.
fn by_name<T: Copy>(table: &[(u32, u32, T, &'static str)]) -> HashMap<&'static str, (u32, u32, T)> {
    let row = |(first, last, what, names): &(u32, u32, T, &'static str)| {
        let row = (*first, *last, *what);
        names.split_ascii_whitespace().map(move |name| (name, row))
    };
    table.iter().flat_map(row).collect()
}

fn within(name: &str, first: u32, last: u32, version: Option<Version>) -> bool {
    let Some(version) = version else { return true };
    let since = SINCE.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, since)| since);
    (first..=last).contains(&version.line()) && (since.is_empty() || version.reached(since))
}

/// Returns the releases, as (minor, patch), with which a name came or went within their line.
pub(super) fn changes() -> impl Iterator<Item = (u32, u32)> {
    SINCE.iter().flat_map(|(_, since)| since.iter().copied())
}

/// Names of which the first patch release matters, as (minor, patch).
const SINCE: &[(&str, &[(u32, u32)])] = &[
    ("listen-client-http-urls", &[(4, 25), (5, 8)]),
    ("tls-max-version", &[(4, 25), (5, 8)]),
    ("tls-min-version", &[(4, 25), (5, 8)]),
];

/// First and last minor release of etcd 3, how the flags are parsed, their names.
#[rustfmt::skip]
const FLAGS: &[(u32, u32, Flag, &str)] = &[
    (4, 4, Flag::Value, "experimental-backend-bbolt-freelist-type log-output log-package-levels"),
    (4, 4, Flag::Boolean, "debug"),
    (4, 5, Flag::Value, "\
     experimental-enable-v2v3 proxy proxy-dial-timeout proxy-failure-wait proxy-read-timeout \
     proxy-refresh-interval proxy-write-timeout"),
    (4, 5, Flag::Boolean, "enable-v2"),
    (4, 6, Flag::Value, "\
     discovery discovery-proxy experimental-compaction-batch-limit experimental-corrupt-check-time \
     experimental-warning-apply-duration experimental-watch-progress-notify-interval"),
    (4, 6, Flag::Boolean, "\
     experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist \
     experimental-initial-corrupt-check experimental-peer-skip-client-san-verification"),
    (4, 7, Flag::Value, "\
     advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention \
     backend-batch-interval backend-batch-limit bcrypt-cost cert-file cipher-suites \
     client-cert-allowed-hostname client-crl-file config-file cors data-dir discovery-fallback \
     discovery-srv discovery-srv-name election-timeout grpc-keepalive-interval grpc-keepalive-min-time \
     grpc-keepalive-timeout heartbeat-interval host-whitelist initial-advertise-peer-urls initial-cluster \
     initial-cluster-state initial-cluster-token key-file listen-client-http-urls listen-client-urls \
     listen-metrics-urls listen-peer-urls log-level log-outputs logger max-concurrent-streams \
     max-request-bytes max-snapshots max-txn-ops max-wals metrics name peer-cert-allowed-cn \
     peer-cert-allowed-hostname peer-cert-file peer-crl-file peer-key-file peer-trusted-ca-file \
     quota-backend-bytes snapshot-count tls-max-version tls-min-version trusted-ca-file wal-dir"),
    (4, 7, Flag::Ignored, "\
     cluster-active-size cluster-remove-delay cluster-sync-interval config force max-result-buffer \
     max-retry-attempts peer-election-timeout peer-heartbeat-interval retry-interval snapshot \
     test.coverprofile test.outputdir v vv"),
    (4, 7, Flag::Boolean, "\
     auto-tls client-cert-auth enable-grpc-gateway enable-pprof force-new-cluster \
     initial-election-tick-advance peer-auto-tls peer-client-cert-auth pre-vote strict-reconfig-check \
     unsafe-no-fsync version"),
    (5, 6, Flag::Value, "\
     experimental-bootstrap-defrag-threshold-megabytes experimental-compact-hash-check-time \
     experimental-compaction-sleep-interval experimental-distributed-tracing-address \
     experimental-distributed-tracing-instance-id experimental-distributed-tracing-sampling-rate \
     experimental-distributed-tracing-service-name experimental-downgrade-check-time \
     experimental-snapshot-catchup-entries"),
    (5, 6, Flag::Boolean, "\
     experimental-compact-hash-check-enabled experimental-enable-distributed-tracing \
     experimental-memory-mlock experimental-stop-grpc-service-on-defrag \
     experimental-txn-mode-write-with-shared-buffer"),
    (5, 7, Flag::Value, "\
     backend-bbolt-freelist-type client-cert-file client-key-file log-rotation-config-json \
     peer-client-cert-file peer-client-key-file raft-read-timeout raft-write-timeout \
     self-signed-cert-validity v2-deprecation"),
    (5, 7, Flag::Boolean, "enable-log-rotation socket-reuse-address socket-reuse-port"),
    (6, 6, Flag::Value, "experimental-warning-unary-request-duration"),
    (6, 7, Flag::Value, "\
     bootstrap-defrag-threshold-megabytes compact-hash-check-time compaction-batch-limit \
     compaction-sleep-interval corrupt-check-time discovery-cacert discovery-cert discovery-dial-timeout \
     discovery-endpoints discovery-keepalive-time discovery-keepalive-timeout discovery-key \
     discovery-password discovery-request-timeout discovery-token discovery-user \
     distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate \
     distributed-tracing-service-name downgrade-check-time feature-gates log-format max-learners \
     snapshot-catchup-entries warning-apply-duration warning-unary-request-duration \
     watch-progress-notify-interval"),
    (6, 7, Flag::Boolean, "\
     discovery-insecure-skip-tls-verify discovery-insecure-transport enable-distributed-tracing \
     memory-mlock peer-skip-client-san-verification"),
];

/// First and last minor release of etcd 3, what the keys hold, their names.
#[rustfmt::skip]
const KEYS: &[(u32, u32, Shape, &str)] = &[
    (4, 4, Shape::Bool, "debug"),
    (4, 4, Shape::List, "log-output"),
    (4, 4, Shape::Text, "experimental-backend-bbolt-freelist-type log-package-levels"),
    (4, 5, Shape::Bool, "enable-v2"),
    (4, 5, Shape::Text, "discovery-fallback experimental-enable-v2v3 proxy"),
    (4, 5, Shape::Uint, "\
     proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval proxy-write-timeout"),
    (4, 6, Shape::Bool, "\
     experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist \
     experimental-initial-corrupt-check"),
    (4, 6, Shape::Int, "\
     experimental-compaction-batch-limit experimental-corrupt-check-time \
     experimental-warning-apply-duration experimental-watch-progress-notify-interval"),
    (4, 6, Shape::Text, "discovery discovery-proxy"),
    (4, 7, Shape::Bool, "\
     enable-grpc-gateway enable-pprof force-new-cluster initial-election-tick-advance pre-vote \
     strict-reconfig-check unsafe-no-fsync"),
    (4, 7, Shape::Int, "\
     backend-batch-interval backend-batch-limit grpc-keepalive-interval grpc-keepalive-min-time \
     grpc-keepalive-timeout quota-backend-bytes"),
    (4, 7, Shape::List, "cipher-suites log-outputs"),
    (4, 7, Shape::Text, "\
     advertise-client-urls auth-token auto-compaction-mode auto-compaction-retention cors data-dir \
     discovery-srv discovery-srv-name host-whitelist initial-advertise-peer-urls initial-cluster \
     initial-cluster-state initial-cluster-token listen-client-http-urls listen-client-urls \
     listen-metrics-urls listen-peer-urls log-level logger metrics name tls-max-version tls-min-version \
     wal-dir"),
    (4, 7, Shape::Uint, "\
     auth-token-ttl bcrypt-cost election-timeout heartbeat-interval max-concurrent-streams \
     max-request-bytes max-snapshots max-txn-ops max-wals snapshot-count"),
    (5, 6, Shape::Bool, "\
     experimental-compact-hash-check-enabled experimental-enable-distributed-tracing \
     experimental-memory-mlock experimental-stop-grpc-service-on-defrag \
     experimental-txn-mode-write-with-shared-buffer"),
    (5, 6, Shape::Int, "\
     experimental-compact-hash-check-time experimental-compaction-sleep-interval \
     experimental-distributed-tracing-sampling-rate experimental-downgrade-check-time"),
    (5, 6, Shape::Text, "\
     experimental-distributed-tracing-address experimental-distributed-tracing-instance-id \
     experimental-distributed-tracing-service-name"),
    (5, 6, Shape::Uint, "\
     experimental-bootstrap-defrag-threshold-megabytes experimental-snapshot-catch-up-entries"),
    (5, 7, Shape::Any, "socket-options"),
    (5, 7, Shape::Bool, "enable-log-rotation"),
    (5, 7, Shape::Text, "backend-bbolt-freelist-type log-rotation-config-json v2-deprecation"),
    (5, 7, Shape::Uint, "self-signed-cert-validity"),
    (6, 6, Shape::Bool, "experimental-peer-skip-client-san-verification"),
    (6, 6, Shape::Int, "experimental-warning-unary-request-duration"),
    (6, 7, Shape::Any, "discovery-config grpc-additional-server-options"),
    (6, 7, Shape::Bool, "enable-distributed-tracing memory-mlock"),
    (6, 7, Shape::Int, "\
     compact-hash-check-time compaction-batch-limit compaction-sleep-interval corrupt-check-time \
     distributed-tracing-sampling-rate downgrade-check-time max-learners warning-apply-duration \
     warning-unary-request-duration watch-progress-notify-interval"),
    (6, 7, Shape::Text, "\
     distributed-tracing-address distributed-tracing-instance-id distributed-tracing-service-name \
     feature-gates log-format"),
    (6, 7, Shape::Uint, "bootstrap-defrag-threshold-megabytes snapshot-catchup-entries"),
];

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
    fn no_name_stands_twice() {
        let twice =
            |names: Vec<&str>| names.iter().filter(|n| names.iter().filter(|m| m == n).count() > 1).count();
        assert_eq!(twice(FLAGS.iter().flat_map(|f| f.3.split_whitespace()).collect()), 0);
        assert_eq!(twice(KEYS.iter().flat_map(|k| k.3.split_whitespace()).collect()), 0);
    }
}
