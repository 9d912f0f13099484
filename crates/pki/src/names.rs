//! Host names as Go's `Certificate.VerifyHostname` compares them.

use std::net::IpAddr;

use seaworthy_evidence::Certificate;

/// Returns whether a Go program that dials `host` (a name, or an IP address with or without brackets) accepts
/// that `certificate` is for it.
///
/// Only subject alternative names count, never the common name. An address must be among the addresses. A
/// name is compared without regard to case; a `*` stands for exactly one whole label, the first.
pub fn names(certificate: &Certificate, host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return has_ip(certificate, ip);
    }
    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    certificate.sans.dns.iter().map(|pattern| pattern.to_ascii_lowercase()).any(|pattern| {
        // What is no proper name is compared as it is.
        if is_hostname(name) && is_hostname(pattern.strip_prefix("*.").unwrap_or(&pattern)) {
            match (pattern.strip_prefix("*."), name.split_once('.')) {
                (Some(parent), Some((_, rest))) => rest == parent,
                (Some(_), None) => false,
                (None, _) => name == pattern,
            }
        } else {
            !host.is_empty() && host != "." && pattern == host
        }
    })
}

/// Returns whether `ip` is among the addresses of `certificate`.
pub(crate) fn has_ip(certificate: &Certificate, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    certificate.sans.ip.iter().any(|san| san.parse::<IpAddr>().is_ok_and(|san| san.to_canonical() == ip))
}

fn is_hostname(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Issue;

    #[test]
    fn hosts_are_matched_as_go_matches_them() {
        let sans =
            ["Node-1.etcd.local", "*.example.org", "a_b", "odd name", "10.0.0.3", "fd00::3", "*", "a.*.c"];
        let certificate = Issue::new("node-9").sans(&sans).self_signed().parsed.certificate;
        let cases = [
            ("node-1.etcd.local", true),
            ("NODE-1.ETCD.LOCAL", true),
            ("node-1.etcd.local.", true),
            ("node-1", false),
            ("node-9", false),
            ("etcd.local", false),
            ("x.example.org", true),
            ("x.y.example.org", false),
            ("example.org", false),
            (".example.org", false),
            ("a_b", true),
            ("odd name", true),
            ("single", false),
            ("a.b.c", false),
            ("10.0.0.3", true),
            ("::ffff:10.0.0.3", true),
            ("10.0.0.4", false),
            ("[fd00::3]", true),
            ("fd00:0::3", true),
            ("fd00::4", false),
            ("", false),
            (".", false),
        ];
        for (host, want) in cases {
            assert_eq!(names(&certificate, host), want, "{host:?}");
        }
    }

    #[test]
    fn an_address_among_the_names_is_not_an_address() {
        let certificate = Issue::new("x").dns("10.0.0.3").self_signed().parsed.certificate;
        assert!(!names(&certificate, "10.0.0.3"));
    }
}
