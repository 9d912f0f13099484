//! What files hold: certificates, private keys, revocation lists.

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::PrivateKeyDer;
use seaworthy_evidence::{ErrorKind, EvidenceError, Origin, PkiContent, PrivateKey, RevocationList};
use x509_parser::asn1_rs::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::certificate::{parse, serial, timestamp};
use crate::pem::{Block, blocks};
use crate::{Parsed, key};

/// Largest file, in bytes, that the functions of this crate read.
pub const MAX_BYTES: usize = 1 << 20;

/// Most certificates that are read from one file.
pub const MAX_CERTIFICATES: usize = 1000;

/// Returns the certificates of the PEM file at `origin`, each with the line of its header as its origin.
///
/// Only blocks with the label `CERTIFICATE` count, as for Go's `tls.X509KeyPair`; other blocks are not
/// decoded, so a private key beside the certificates is not looked at.
///
/// # Errors
///
/// [`ErrorKind::Malformed`], with the line, when a block is broken or not a certificate, or when there is
/// none; [`ErrorKind::TooLarge`] above [`MAX_BYTES`] or [`MAX_CERTIFICATES`].
pub fn certificates_from_pem(
    bytes: &[u8],
    origin: Origin,
    now: Timestamp,
) -> Result<Vec<Parsed>, EvidenceError> {
    check_size(bytes, &origin)?;
    let mut found = Vec::new();
    for block in blocks(bytes) {
        let block = block.map_err(|broken| incomplete(&origin, broken.line))?;
        if block.label != b"CERTIFICATE" {
            continue;
        }
        if found.len() == MAX_CERTIFICATES {
            let reason = format!("it holds more than {MAX_CERTIFICATES} certificates");
            return Err(error(ErrorKind::TooLarge, &origin, &reason));
        }
        let der = block.der().ok_or_else(|| not_base64(&origin, block.line))?;
        found.push(Parsed::from_der(&der, origin.clone().at(block.line, 1), now)?);
    }
    if found.is_empty() {
        let reason = if parse(bytes).is_ok() {
            "its certificate is in DER form, and only PEM is read (openssl x509 -inform der converts it)"
        } else if content(bytes) == PkiContent::PrivateKey {
            "it holds a private key but no certificate"
        } else {
            "it holds no certificate"
        };
        return Err(error(ErrorKind::Malformed, &origin, reason));
    }
    Ok(found)
}

/// Returns the facts about the private key in the PEM file `path`: the first block that Go's
/// `tls.X509KeyPair` takes for a key, in PKCS#1, SEC1 or PKCS#8 form whatever its label says.
///
/// # Errors
///
/// [`ErrorKind::Malformed`] when there is no such block or it cannot be decoded; [`ErrorKind::Unsupported`]
/// when it is encrypted or of a kind that neither Go nor this crate reads; [`ErrorKind::TooLarge`] above
/// [`MAX_BYTES`]. No error contains any of the bytes.
pub fn private_key_from_pem(bytes: &[u8], path: &str) -> Result<PrivateKey, EvidenceError> {
    let origin = Origin::file(path);
    check_size(bytes, &origin)?;
    for block in blocks(bytes) {
        let block = block.map_err(|broken| incomplete(&origin, broken.line))?;
        if !block.is_private_key() {
            continue;
        }
        let here = origin.clone().at(block.line, 1);
        if block.encrypted || block.label == b"ENCRYPTED PRIVATE KEY" {
            let reason = "its private key is encrypted, and nothing that reads it can decrypt it";
            return Err(error(ErrorKind::Unsupported, &here, reason));
        }
        let der = block.der().ok_or_else(|| not_base64(&origin, block.line))?;
        let spki = public_half(&der).ok_or_else(|| {
            let reason =
                format!("its private key ({}) is of a kind that cannot be read", printable(block.label));
            error(ErrorKind::Unsupported, &here, &reason)
        })?;
        let (_, spki) = SubjectPublicKeyInfo::from_der(&spki)
            .map_err(|_| error(ErrorKind::Malformed, &here, "its private key has no proper public half"))?;
        return Ok(PrivateKey { path: path.to_owned(), key: key::public_key(&spki) });
    }
    let reason = match PrivateKeyDer::try_from(bytes) {
        Ok(_) => "its private key is in DER form, and only PEM is read",
        Err(_) => "it holds no private key",
    };
    Err(error(ErrorKind::Malformed, &origin, reason))
}

/// Returns the revocation list in the file `path`, PEM or DER as etcd 3.4 and 3.5 tell them apart: it is PEM
/// if that is how it begins.
///
/// # Errors
///
/// [`ErrorKind::Malformed`] when the file is not exactly one revocation list; [`ErrorKind::TooLarge`] above
/// [`MAX_BYTES`].
pub fn revocation_list(bytes: &[u8], path: &str) -> Result<RevocationList, EvidenceError> {
    let origin = Origin::file(path);
    check_size(bytes, &origin)?;
    let pem = bytes.starts_with(b"-----BEGIN X509 CRL");
    let decoded;
    let der = if pem {
        decoded = match blocks(bytes).into_iter().next() {
            Some(Ok(block)) => block.der().ok_or_else(|| not_base64(&origin, block.line))?,
            _ => return Err(incomplete(&origin, 1)),
        };
        &decoded
    } else {
        bytes
    };
    match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => Ok(RevocationList {
            path: path.to_owned(),
            pem,
            serials: list.iter_revoked_certificates().map(|revoked| serial(revoked.raw_serial())).collect(),
            next_update: list.next_update().map(|time| timestamp(time.timestamp())),
        }),
        _ if blocks(bytes).iter().flatten().any(|block| block.label == b"X509 CRL") && !pem => {
            let reason = "text precedes the PEM header of its revocation list, so etcd takes it for DER";
            Err(error(ErrorKind::Malformed, &origin, reason))
        }
        _ => Err(error(ErrorKind::Malformed, &origin, "it is not a certificate revocation list")),
    }
}

/// Returns what a file holds, judged by its bytes, PEM or DER. What looks like a private key counts as one
/// even when it is damaged.
pub fn content(bytes: &[u8]) -> PkiContent {
    let key = |line: &[u8]| contains(line, b"-----BEGIN ") && contains(line, b"PRIVATE KEY-----");
    if bytes.split(|b| *b == b'\n').any(key) || PrivateKeyDer::try_from(bytes).is_ok_and(|key| is_key(&key)) {
        return PkiContent::PrivateKey;
    }
    let certificate = |block: &Block<'_>| block.label.ends_with(b"CERTIFICATE");
    if blocks(bytes).iter().flatten().any(certificate) || parse(bytes).is_ok() {
        return PkiContent::Certificate;
    }
    PkiContent::Other
}

/// Returns the SubjectPublicKeyInfo that belongs to a private key.
fn public_half(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let private = PrivateKeyDer::try_from(der).ok()?;
    match any_supported_type(&private) {
        Ok(key) => key.public_key().map(|spki| Zeroizing::new(spki.to_vec())),
        Err(_) => key::spki_of_weak_key(&private).map(Zeroizing::new),
    }
}

/// Returns whether `key`, which has so far been recognised by its first bytes only, is one.
fn is_key(key: &PrivateKeyDer<'_>) -> bool {
    any_supported_type(key).is_ok() || key::spki_of_weak_key(key).is_some()
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|window| window == what)
}

fn check_size(bytes: &[u8], origin: &Origin) -> Result<(), EvidenceError> {
    match bytes.len() {
        0..=MAX_BYTES => Ok(()),
        _ => Err(error(ErrorKind::TooLarge, origin, &format!("it is larger than {MAX_BYTES} bytes"))),
    }
}

fn incomplete(origin: &Origin, line: u32) -> EvidenceError {
    error(
        ErrorKind::Malformed,
        &origin.clone().at(line, 1),
        "the PEM block that begins here has no proper end",
    )
}

fn not_base64(origin: &Origin, line: u32) -> EvidenceError {
    error(
        ErrorKind::Malformed,
        &origin.clone().at(line, 1),
        "the PEM block that begins here is not proper base64",
    )
}

fn error(kind: ErrorKind, origin: &Origin, reason: &str) -> EvidenceError {
    EvidenceError::new(kind, format!("{origin}: {reason}")).at(origin.clone())
}

/// Returns the label of a PEM block, which comes from outside, fit to be printed.
fn printable(label: &[u8]) -> String {
    label
        .iter()
        .take(40)
        .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Entity, Issue, now};
    use proptest::prelude::*;
    use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams};

    fn read(bytes: &[u8]) -> Result<Vec<Parsed>, EvidenceError> {
        certificates_from_pem(bytes, Origin::process_file(7, "/a"), now())
    }

    fn two() -> (Entity, Entity) {
        (Issue::new("one").self_signed(), Issue::ca("two").self_signed())
    }

    #[test]
    fn certificates_with_garbage_around() {
        let (one, two) = two();
        let key = one.key.serialize_pem();
        let text = format!("\u{feff}Bag Attributes: x\n{key}{}\nmore: text\n\0\n{}", one.pem, two.pem);
        for (text, eol) in [(text.clone(), "LF"), (text.replace('\n', "\r\n"), "CRLF")] {
            let found = read(text.as_bytes()).unwrap();
            let headers = text.lines().zip(1u32..).filter(|(line, _)| *line == "-----BEGIN CERTIFICATE-----");
            let want: Vec<Origin> =
                headers.map(|(_, line)| Origin::process_file(7, "/a").at(line, 1)).collect();
            let got: Vec<Origin> = found.iter().map(|parsed| parsed.certificate.origin.clone()).collect();
            assert_eq!(got, want, "{eol}");
            let subjects: Vec<&str> =
                found.iter().map(|parsed| parsed.certificate.subject.as_str()).collect();
            assert_eq!(subjects, ["CN=one", "CN=two"], "{eol}");
            assert_eq!(found[0].der(), one.parsed.der(), "{eol}");
        }
    }

    #[test]
    fn files_without_certificates_are_malformed() {
        let (one, two) = two();
        let key = one.key.serialize_pem();
        let cut = &one.pem[..one.pem.len() - 40];
        let short = one.pem.replacen('M', "", 1);
        let body = one.pem.replacen('M', "*", 1);
        let wrong = "-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----\n";
        let lines = |pem: &str| u32::try_from(pem.lines().count()).unwrap();
        let cases: Vec<(Vec<u8>, Option<u32>, &str)> = vec![
            (vec![], None, "it holds no certificate"),
            (b"hello".to_vec(), None, "it holds no certificate"),
            (key.clone().into_bytes(), None, "it holds a private key but no certificate"),
            (one.parsed.der().to_vec(), None, "its certificate is in DER form"),
            (cut.as_bytes().to_vec(), Some(1), "the PEM block that begins here has no proper end"),
            ([&two.pem, cut].concat().into_bytes(), Some(lines(&two.pem) + 1), "has no proper end"),
            ([cut, "\n", &two.pem].concat().into_bytes(), Some(1), "has no proper end"),
            (short.into_bytes(), Some(1), "the PEM block that begins here is not proper base64"),
            (body.into_bytes(), Some(1), "the PEM block that begins here is not proper base64"),
            ([&two.pem, wrong].concat().into_bytes(), Some(lines(&two.pem) + 1), "not a valid certificate"),
        ];
        for (bytes, line, reason) in cases {
            let error = read(&bytes).unwrap_err();
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(error.kind, ErrorKind::Malformed, "{text}");
            assert!(error.message.contains(reason), "{text}: {error}");
            let Some(Origin::File { line: got, .. }) = &error.origin else { panic!("{text}: {error:?}") };
            assert_eq!(*got, line, "{text}");
            assert!(!error.message.contains(&key[40..60]), "{error}");
        }
    }

    #[test]
    fn sizes_are_limited() {
        let (one, _) = two();
        let mut bytes = one.pem.clone().into_bytes();
        bytes.resize(MAX_BYTES + 1, b'\n');
        let many = one.pem.repeat(MAX_CERTIFICATES + 1);
        for (bytes, name) in [(&bytes[..], "bytes"), (many.as_bytes(), "certificates")] {
            assert_eq!(read(bytes).unwrap_err().kind, ErrorKind::TooLarge, "{name}");
        }
        assert_eq!(read(&bytes[..MAX_BYTES]).unwrap().len(), 1);
        assert_eq!(private_key_from_pem(&bytes, "/k").unwrap_err().kind, ErrorKind::TooLarge);
        assert_eq!(revocation_list(&bytes, "/r").unwrap_err().kind, ErrorKind::TooLarge);
    }

    #[test]
    fn private_keys_in_every_form() {
        // The digests are of `openssl pkey -pubout -outform DER`.
        let rsa1024 = ("RSA", 1024, "659996098f39ffafbe460f849a62055012867ac4afb907abf88d6ebe73c576ec");
        let rsa2048 = ("RSA", 2048, "47e4c6310b09e2c3ea46f8b37217d4d76e272c3232f6612b9ee76818d4f663e9");
        let p224 = ("ECDSA P-224", 224, "00f342e9d4c1378932d44823c7bcd5bb879377669eb8c844d384cb7f4e4efd3a");
        let p256 = ("ECDSA P-256", 256, "dc484b1ff7ac0b3981b970af9043cb0110297c66c2ab0fec3dfed3fffe5c41e3");
        let p521 = ("ECDSA P-521", 521, "8317d369be33a43e60dd52c64d6b561bc0d65630151e899c83713e35aa243ad7");
        let sec1 = include_str!("../testdata/p256.sec1.key");
        let cases = [
            (include_str!("../testdata/rsa1024.key").to_owned(), rsa1024),
            (include_str!("../testdata/rsa1024.p8.key").to_owned(), rsa1024),
            (include_str!("../testdata/rsa2048.key").to_owned(), rsa2048),
            (include_str!("../testdata/p224.key").to_owned(), p224),
            (include_str!("../testdata/p224.sec1.key").to_owned(), p224),
            (include_str!("../testdata/p224.p8.key").to_owned(), p224),
            (sec1.to_owned(), p256),
            (include_str!("../testdata/p521.sec1.key").to_owned(), p521),
            // Go does not mind the label, nor what else is in the file.
            (sec1.replace("EC PRIVATE", "PRIVATE"), p256),
            (sec1.replace("EC PRIVATE", "RSA PRIVATE").replace('\n', "\r\n"), p256),
            (format!("{}\n{sec1}{}", two().0.pem, include_str!("../testdata/rsa2048.key")), p256),
        ];
        for (pem, (algorithm, bits, spki)) in cases {
            let key = private_key_from_pem(pem.as_bytes(), "/pki/peer.key").unwrap();
            assert_eq!(
                (key.key.algorithm.as_str(), key.key.bits, key.key.spki.as_str()),
                (algorithm, bits, spki)
            );
            assert_eq!(key.path, "/pki/peer.key");
        }
    }

    #[test]
    fn a_key_has_the_identity_of_its_certificate() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let entity = Issue::new("x").key(KeyPair::generate_for(algorithm).unwrap()).self_signed();
            let key = private_key_from_pem(entity.key.serialize_pem().as_bytes(), "/k").unwrap();
            assert_eq!(key.key, entity.parsed.certificate.key, "{algorithm:?}");
        }
    }

    #[test]
    fn keys_that_cannot_be_read_say_why_and_nothing_else() {
        let sec1 = include_str!("../testdata/p256.sec1.key");
        let secret = sec1.lines().nth(1).unwrap();
        let cases = [
            (
                include_str!("../testdata/rsa2048-encrypted.key").to_owned(),
                ErrorKind::Unsupported,
                "is encrypted",
            ),
            (
                include_str!("../testdata/rsa2048-encrypted.p8.key").to_owned(),
                ErrorKind::Unsupported,
                "is encrypted",
            ),
            (sec1.replace("EC PRIVATE KEY", "EC KEY"), ErrorKind::Malformed, "/k: it holds no private key"),
            (
                sec1.replace("-----END", "END"),
                ErrorKind::Malformed,
                "/k:1:1: the PEM block that begins here has no",
            ),
            (
                sec1.replacen('M', "", 1),
                ErrorKind::Malformed,
                "/k:1:1: the PEM block that begins here is not proper",
            ),
            (
                sec1.replacen("MHc", "MHd", 1),
                ErrorKind::Unsupported,
                "(EC PRIVATE KEY) is of a kind that cannot be",
            ),
            (String::new(), ErrorKind::Malformed, "/k: it holds no private key"),
        ];
        for (pem, kind, reason) in cases {
            let error = private_key_from_pem(pem.as_bytes(), "/k").unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains(reason), "{error}");
            assert!(!format!("{error:?}").contains(&secret[8..20]), "{error:?}");
        }
        let der = KeyPair::generate().unwrap().serialize_der();
        let error = private_key_from_pem(&der, "/k").unwrap_err();
        assert!(error.message.contains("is in DER form"), "{error}");
    }

    fn crl() -> rcgen::CertificateRevocationList {
        let ca = Issue::ca("ca").edit(|p| p.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign]).self_signed();
        let revoked = |serial: &[u8]| RevokedCertParams {
            serial_number: serial.to_vec().into(),
            revocation_time: rcgen::date_time_ymd(2027, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2027, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 2, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked(&[3]), revoked(&[0x9a, 0x01])],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&ca.params, &ca.key)).unwrap()
    }

    #[test]
    fn revocation_lists() {
        let crl = crl();
        let pem = crl.pem().unwrap();
        for (bytes, is_pem) in [(crl.der().to_vec(), false), (pem.clone().into_bytes(), true)] {
            let list = revocation_list(&bytes, "/pki/r.crl").unwrap();
            assert_eq!((list.path.as_str(), list.pem), ("/pki/r.crl", is_pem));
            assert_eq!(list.serials, ["03", "9a01"]);
            assert_eq!(list.next_update.unwrap().to_string(), "2027-02-01T00:00:00Z");
        }
        let cases = [
            (b"".to_vec(), "is not a certificate revocation list"),
            (two().0.pem.into_bytes(), "is not a certificate revocation list"),
            (format!("# comment\n{pem}").into_bytes(), "text precedes the PEM header"),
            (pem.as_bytes()[..pem.len() / 2].to_vec(), "has no proper end"),
            (pem.replacen('M', "*", 1).into_bytes(), "is not proper base64"),
            ([crl.der().as_ref(), b"x"].concat(), "is not a certificate revocation list"),
        ];
        for (bytes, reason) in cases {
            let error = revocation_list(&bytes, "/r").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.contains(reason), "{error}");
        }
    }

    #[test]
    fn content_is_judged_by_bytes() {
        let (one, _) = two();
        let key = one.key.serialize_pem();
        let cases: Vec<(Vec<u8>, PkiContent)> = vec![
            (one.pem.clone().into_bytes(), PkiContent::Certificate),
            (one.parsed.der().to_vec(), PkiContent::Certificate),
            (key.clone().into_bytes(), PkiContent::PrivateKey),
            (format!("{}{key}", one.pem).into_bytes(), PkiContent::PrivateKey),
            (one.key.serialize_der(), PkiContent::PrivateKey),
            (key.as_bytes()[..60].to_vec(), PkiContent::PrivateKey),
            (format!("\u{feff}{key}").into_bytes(), PkiContent::PrivateKey),
            (include_bytes!("../testdata/rsa2048-encrypted.p8.key").to_vec(), PkiContent::PrivateKey),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\r\n".to_vec(), PkiContent::PrivateKey),
            (crl().pem().unwrap().into_bytes(), PkiContent::Other),
            (crl().der().to_vec(), PkiContent::Other),
            (b"sub: secret".to_vec(), PkiContent::Other),
            (vec![], PkiContent::Other),
        ];
        for (bytes, want) in cases {
            assert_eq!(content(&bytes), want, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Reads `bytes` in every way there is, and verifies what can be read.
    fn read_all(bytes: &[u8]) {
        let origin = Origin::file("/a");
        let mut found = read(bytes).unwrap_or_default();
        found.extend(Parsed::from_der(bytes, origin, now()));
        for parsed in &found {
            let _ = crate::chains_to(parsed, &found, &found, crate::Usage::Client, now());
            let _ = crate::chains_to(parsed, &found, &[], crate::Usage::Server, now());
            let _ = crate::names(&parsed.certificate, "10.0.0.3");
        }
        let _ = private_key_from_pem(bytes, "/a");
        let _ = revocation_list(bytes, "/a");
        let _ = content(bytes);
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            read_all(&bytes);
        }

        #[test]
        fn mutations_do_no_harm(
            which in 0..7usize,
            edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<proptest::sample::Index>(),
            cuts in any::<bool>(),
        ) {
            static SAMPLES: std::sync::LazyLock<[Vec<u8>; 7]> = std::sync::LazyLock::new(|| {
                let root = Issue::ca("ca").sans(&["ca"]).self_signed();
                let leaf = Issue::new("leaf").sans(&["a.example", "10.0.0.3"]).signed_by(&root);
                [
                    leaf.parsed.der().to_vec(),
                    root.parsed.der().to_vec(),
                    format!("{}{}", leaf.pem, root.pem).into_bytes(),
                    leaf.key.serialize_der(),
                    include_bytes!("../testdata/rsa1024.key").to_vec(),
                    include_bytes!("../testdata/p224.p8.key").to_vec(),
                    crl().der().to_vec(),
                ]
            });
            let mut bytes = SAMPLES[which].clone();
            for (index, byte) in edits {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            read_all(&bytes);
        }
    }
}
