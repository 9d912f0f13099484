//! Facts about one certificate.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use seaworthy_evidence::{Certificate, ErrorKind, EvidenceError, Origin, SubjectAltNames};
use x509_parser::asn1_rs::{Any, FromDer, Oid, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::x509::X509Name;

use crate::key::{self, hex, sha256};

/// Returns the facts about the certificate in `der`, as they are at `now`.
///
/// A time outside of what a [`Timestamp`] can hold (RFC 5280's 99991231235959Z, "no expiry", is) becomes the
/// nearest that it can.
///
/// # Errors
///
/// [`ErrorKind::Malformed`] when `der` is not exactly one X.509 certificate, or one that Go refuses to parse.
pub fn certificate(der: &[u8], origin: Origin, now: Timestamp) -> Result<Certificate, EvidenceError> {
    let malformed = |reason: &str| {
        let message = format!("{origin}: not a valid certificate: {reason}");
        EvidenceError::new(ErrorKind::Malformed, message).at(origin.clone())
    };
    let x509 = parse(der).map_err(|reason| malformed(&reason))?;
    let not_after = timestamp(x509.validity().not_after.timestamp());
    Ok(Certificate {
        subject: name_text(x509.subject()),
        // Of several, Go takes the last.
        common_name: x509.subject().iter_common_name().last().map(|cn| text(cn.attr_value())),
        issuer: name_text(x509.issuer()),
        serial: serial(x509.raw_serial()),
        not_before: timestamp(x509.validity().not_before.timestamp()),
        not_after,
        days_left: days_between(now, not_after),
        self_signed: x509.issuer().as_raw() == x509.subject().as_raw()
            && key::signed_by(&x509, x509.public_key()) != Some(false),
        ca: x509.is_ca(),
        sans: alt_names(&x509).map_err(|reason| malformed(&reason))?,
        usages: usages(&x509).map_err(|reason| malformed(&reason))?,
        key: key::public_key(x509.public_key()),
        signature: key::signature_name(&x509.signature_algorithm),
        fingerprint: hex(&sha256(der)),
        origin,
    })
}

/// Returns the DER-encoded distinguished name in `der` as an RFC 4514 string, exactly as the subject of a
/// [`certificate`] is written, so that the two can be compared; `None` when it is not one name and nothing else.
pub fn distinguished_name(der: &[u8]) -> Option<String> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    rest.is_empty().then(|| name_text(&name))
}

/// Returns the organizations in the subject of a certificate: to Kubernetes, the groups of who presents it
/// (`k8s.io/apiserver/pkg/authentication/request/x509`).
pub fn organizations(certificate: &Parsed) -> Vec<String> {
    let Ok(x509) = parse(certificate.der()) else { return Vec::new() };
    x509.subject().iter_organization().map(|name| text(name.attr_value())).collect()
}

/// A certificate that was read: its facts, and the encoding that [`chains_to`](crate::chains_to) verifies.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The facts.
    pub certificate: Certificate,
    der: Vec<u8>,
}

impl Parsed {
    /// Returns the certificate in `der`. Errors are those of [`certificate`].
    pub fn from_der(der: &[u8], origin: Origin, now: Timestamp) -> Result<Self, EvidenceError> {
        Ok(Self { certificate: certificate(der, origin, now)?, der: der.to_vec() })
    }

    /// Returns the DER encoding.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// Returns the certificate in `der` if there is nothing else in it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], x509)) => Ok(x509),
        Ok((rest, _)) => Err(format!("{} bytes follow it", rest.len())),
        Err(error) => Err(x509_parser::error::X509Error::from(error).to_string()),
    }
}

/// Returns the whole days from `now` to `end`; negative as soon as `end` has passed.
pub(crate) fn days_between(now: Timestamp, end: Timestamp) -> i64 {
    const DAY: i128 = 86_400_000_000_000;
    let days = (end.as_nanosecond() - now.as_nanosecond()).div_euclid(DAY);
    i64::try_from(days).unwrap_or(i64::MAX)
}

/// Returns the time `seconds` after the Unix epoch, or the nearest one that can be held.
pub(crate) fn timestamp(seconds: i64) -> Timestamp {
    let nearest = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(nearest)
}

/// Returns a serial number as hexadecimal without leading zero bytes, so that encodings of one number are
/// equal.
pub(crate) fn serial(raw: &[u8]) -> String {
    let zeros = raw.iter().take(raw.len().saturating_sub(1)).take_while(|b| **b == 0).count();
    hex(raw.get(zeros..).unwrap_or_default())
}

/// Returns `name` as an RFC 4514 string: last relative name first, special characters escaped.
fn name_text(name: &X509Name<'_>) -> String {
    let mut relative: Vec<String> = name
        .iter()
        .map(|rdn| {
            let pairs: Vec<String> = rdn
                .iter()
                .map(|pair| {
                    format!("{}={}", attribute_type(pair.attr_type()), escaped(&text(pair.attr_value())))
                })
                .collect();
            pairs.join("+")
        })
        .collect();
    relative.reverse();
    relative.join(",")
}

fn attribute_type(oid: &Oid<'_>) -> String {
    let dotted = oid.to_id_string();
    match dotted.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return dotted,
    }
    .to_owned()
}

/// Returns the text of a directory string in any of its encodings.
fn text(value: &Any<'_>) -> String {
    match value.tag() {
        // Latin-1 in practice.
        Tag::T61String => value.data.iter().map(|b| char::from(*b)).collect(),
        Tag::BmpString => {
            let units: Vec<u16> = value
                .data
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |unit, b| unit << 8 | u16::from(*b)))
                .collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(value.data).into_owned(),
    }
}

/// Returns `value` with the escapes of RFC 4514 §2.4, and control characters as hexadecimal pairs.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if i == 0 => out.push_str("\\#"),
            ' ' if i == 0 || i == last => out.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn extension<'a, 'c>(
    x509: &'c X509Certificate<'a>,
    oid: &Oid<'_>,
) -> Result<Option<&'c X509Extension<'a>>, String> {
    x509.get_extension_unique(oid).map_err(|_| format!("it has two extensions {oid}"))
}

fn alt_names(x509: &X509Certificate<'_>) -> Result<SubjectAltNames, String> {
    let mut sans = SubjectAltNames::default();
    let Some(extension) = extension(x509, &OID_X509_EXT_SUBJECT_ALT_NAME)? else { return Ok(sans) };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err("its subject alternative names cannot be parsed".to_owned());
    };
    for name in &names.general_names {
        match name {
            GeneralName::DNSName(dns) => sans.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => sans.ip.push(ip_text(bytes)?),
            _ => {}
        }
    }
    Ok(sans)
}

/// Returns the IP address in `bytes` as Go prints it: an IPv4-mapped IPv6 address is the IPv4 address.
fn ip_text(bytes: &[u8]) -> Result<String, String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(Ipv4Addr::from(v4).to_string())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(Ipv6Addr::from(v6).to_canonical().to_string())
    } else {
        Err(format!("an IP address of {} bytes is among its subject alternative names", bytes.len()))
    }
}

fn usages(x509: &X509Certificate<'_>) -> Result<Option<Vec<String>>, String> {
    let Some(extension) = extension(x509, &OID_X509_EXT_EXTENDED_KEY_USAGE)? else { return Ok(None) };
    let Ok((_, oids)) = Vec::<Oid<'_>>::from_der(extension.value) else {
        return Err("its extended key usages cannot be parsed".to_owned());
    };
    let name = |oid: &Oid<'_>| {
        let dotted = oid.to_id_string();
        match dotted.as_str() {
            "1.3.6.1.5.5.7.3.1" => "serverAuth".to_owned(),
            "1.3.6.1.5.5.7.3.2" => "clientAuth".to_owned(),
            "2.5.29.37.0" => "any".to_owned(),
            _ => dotted,
        }
    };
    Ok(Some(oids.iter().map(name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    #[test]
    fn facts_of_a_certificate() {
        let mut params = CertificateParams::new(vec!["node-1".to_owned(), "*.etcd".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress("10.0.0.3".parse().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("fd00::3".parse().unwrap()));
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, " Ship, Sea + Co ");
        params.distinguished_name.push(DnType::CommonName, "#m1");
        params.serial_number = Some(vec![0, 0x9a, 0x01].into());
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::CodeSigning,
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::Any,
        ];
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let origin = Origin::file("/pki/peer.crt").at(3, 1);
        let got = certificate(&der, origin.clone(), "2026-12-30T12:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(got.origin, origin);
        assert_eq!(got.subject, r"CN=\#m1,O=\ Ship\, Sea \+ Co\ ");
        assert_eq!(got.issuer, got.subject);
        assert_eq!(got.common_name.as_deref(), Some("#m1"));
        assert_eq!(got.serial, "9a01");
        assert_eq!(got.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(got.not_after.to_string(), "2026-12-31T00:00:00Z");
        assert_eq!((got.days_left, got.self_signed, got.ca), (0, true, false));
        assert_eq!(got.sans.dns, ["node-1", "*.etcd"]);
        assert_eq!(got.sans.ip, ["10.0.0.3", "fd00::3"]);
        assert_eq!(got.usages.unwrap(), ["clientAuth", "1.3.6.1.5.5.7.3.3", "serverAuth", "any"]);
        assert_eq!((got.key.algorithm.as_str(), got.key.bits), ("ECDSA P-256", 256));
        assert_eq!(got.key.spki, hex(&sha256(&rcgen::PublicKeyData::subject_public_key_info(&key))));
        assert_eq!(got.signature, "ecdsa-with-SHA256");
        assert_eq!(got.fingerprint, hex(&sha256(&der)));
    }

    #[test]
    fn names_are_written_as_those_of_certificates() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, " #1, \"Etcd\"+<a>;\\ "),
            (DnType::CustomDnType(vec![2, 5, 4, 97]), "#x"),
            (DnType::CommonName, "p\u{e4}er\u{1b}[0m"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let subject = parse(&der).unwrap().subject().as_raw().to_vec();
        let want = certificate(&der, Origin::file("x"), Timestamp::UNIX_EPOCH).unwrap().subject;
        assert!(want.starts_with("CN=p\u{e4}er\\1b[0m,2.5.4.97=\\#x,O=\\ #1\\, "), "{want}");
        assert_eq!(distinguished_name(&subject), Some(want));
        let longer = [&subject[..], b"x"].concat();
        for bytes in [&b""[..], b"\x30\x80nonsense", &longer] {
            assert_eq!(distinguished_name(bytes), None);
        }
    }

    #[test]
    fn days_are_whole_and_negative_once_passed() {
        let end: Timestamp = "2026-03-10T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-02-08T12:00:00Z", 30),
            ("2026-02-08T11:59:59Z", 30),
            ("2026-03-10T11:59:59Z", 0),
            ("2026-03-10T12:00:00Z", 0),
            ("2026-03-10T12:00:00.1Z", -1),
            ("2026-03-11T12:00:01Z", -2),
        ];
        for (now, want) in cases {
            assert_eq!(days_between(now.parse().unwrap(), end), want, "{now}");
        }
    }

    #[test]
    fn no_expiry_is_the_last_timestamp() {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let got = certificate(&der, Origin::wire("a:1", "TLS handshake"), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(got.not_after, Timestamp::MAX);
        assert_eq!(got.usages, None);
    }

    #[test]
    fn what_is_no_certificate_is_malformed() {
        let der =
            CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let longer = [&der[..], b"x"].concat();
        for bytes in [&b""[..], b"hello", &der[..der.len() - 1], &longer] {
            let error = certificate(bytes, Origin::file("/a"), Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.starts_with("/a: not a valid certificate: "), "{error}");
        }
    }
}
