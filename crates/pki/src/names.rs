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

/// Names of which the certificate at the other end must carry one (`--peer-cert-allowed-cn`,
/// `--peer-cert-allowed-hostname`, `--client-cert-allowed-hostname`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The common name is one of these, to the letter.
    CommonNames(Vec<String>),
    /// The certificate is for one of these, as [`names`] has it.
    Hostnames(Vec<String>),
}

impl Allowed {
    /// Returns whether `certificate` carries one of the names.
    pub fn admits(&self, certificate: &Certificate) -> bool {
        match self {
            Self::CommonNames(list) => {
                let own = certificate.common_name.as_deref().unwrap_or_default();
                list.iter().any(|name| name == own)
            }
            Self::Hostnames(list) => list.iter().any(|host| names(certificate, host)),
        }
    }
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
    fn common_names_are_compared_to_the_letter_and_host_names_as_names() {
        let of = |cn: &str, sans: &[&str]| Issue::new(cn).sans(sans).self_signed().parsed.certificate;
        let member = of("etcd-peer", &["m1.etcd.local", "10.0.0.3"]);
        let wild = of("x", &["*.etcd.local"]);
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let cases = [
            (Allowed::CommonNames(list(&["etcd-peer"])), &member, true),
            (Allowed::CommonNames(list(&["other", "etcd-peer"])), &member, true),
            (Allowed::CommonNames(list(&["ETCD-peer"])), &member, false),
            (Allowed::CommonNames(list(&["m1.etcd.local"])), &member, false),
            (Allowed::CommonNames(list(&[" etcd-peer", ""])), &member, false),
            (Allowed::Hostnames(list(&["M1.etcd.local"])), &member, true),
            (Allowed::Hostnames(list(&["other", "10.0.0.3"])), &member, true),
            (Allowed::Hostnames(list(&["etcd-peer"])), &member, false),
            (Allowed::Hostnames(list(&["m7.etcd.local"])), &wild, true),
            (Allowed::Hostnames(list(&[""])), &wild, false),
        ];
        for (allowed, certificate, want) in cases {
            assert_eq!(allowed.admits(certificate), want, "{allowed:?} {}", certificate.subject);
        }
    }

    #[test]
    fn an_address_among_the_names_is_not_an_address() {
        let certificate = Issue::new("x").dns("10.0.0.3").self_signed().parsed.certificate;
        assert!(!names(&certificate, "10.0.0.3"));
    }
}
