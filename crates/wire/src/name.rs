//! Distinguished names as text.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// Returns the DER-encoded distinguished name in `der` as an RFC 4514 string, exactly as [`seaworthy_pki`] writes the
/// subject of a certificate, so that the two can be compared. `None` when it is not one.
pub(crate) fn distinguished_name(der: &[u8]) -> Option<String> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    let relative = name.iter().map(|rdn| {
        let pairs = rdn.iter().map(|pair| {
            format!("{}={}", attribute(&pair.attr_type().to_id_string()), escaped(&text(pair.attr_value())))
        });
        pairs.collect::<Vec<_>>().join("+")
    });
    let mut relative: Vec<_> = relative.collect();
    relative.reverse();
    rest.is_empty().then(|| relative.join(","))
}

fn attribute(oid: &str) -> &str {
    match oid {
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
        other => other,
    }
}

fn text(value: &Any<'_>) -> String {
    match value.tag() {
        Tag::T61String => value.data.iter().map(|b| char::from(*b)).collect(),
        Tag::BmpString => {
            let unit = |pair: &[u8]| pair.iter().fold(0, |unit, b| unit << 8 | u16::from(*b));
            String::from_utf16_lossy(&value.data.chunks(2).map(unit).collect::<Vec<_>>())
        }
        _ => String::from_utf8_lossy(value.data).into_owned(),
    }
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' | ' ' if i == 0 => out.extend(['\\', c]),
            ' ' if i == last => out.push_str("\\ "),
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use seaworthy_evidence::Origin;

    use super::*;

    #[test]
    fn names_are_written_as_those_of_certificates() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, " #1, \"Etcd\"+<a>;\\ "),
            (DnType::CustomDnType(vec![2, 5, 4, 97]), "#x"),
            (DnType::CommonName, "p\u{e4}er\u{1b}[0m"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, x509) = x509_parser::parse_x509_certificate(cert.der()).unwrap();
        let want =
            seaworthy_pki::certificate(cert.der(), Origin::file("x"), Timestamp::UNIX_EPOCH).unwrap().subject;
        assert!(want.starts_with("CN=p\u{e4}er\\1b[0m,2.5.4.97=\\#x,O=\\ #1\\, "), "{want}");
        assert_eq!(distinguished_name(x509.subject().as_raw()), Some(want));
        assert_eq!(distinguished_name(b"\x30\x80nonsense"), None);
    }
}
