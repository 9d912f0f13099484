//! Public keys and signatures.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::{digest, signature};
use rustls_pki_types::PrivateKeyDer;
use seaworthy_evidence::PublicKey;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey as Kind;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Returns the facts about the public key in `spki`.
pub(crate) fn public_key(spki: &SubjectPublicKeyInfo<'_>) -> PublicKey {
    let oid = spki.algorithm.algorithm.to_id_string();
    let parsed = spki.parsed();
    let (algorithm, bits) = match (oid.as_str(), &parsed) {
        ("1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10", Ok(Kind::RSA(rsa))) => {
            ("RSA".to_owned(), bit_length(rsa.modulus))
        }
        ("1.2.840.10045.2.1", Ok(Kind::EC(point))) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            match curve.as_str() {
                "1.3.132.0.33" => ("ECDSA P-224".to_owned(), 224),
                "1.2.840.10045.3.1.7" => ("ECDSA P-256".to_owned(), 256),
                "1.3.132.0.34" => ("ECDSA P-384".to_owned(), 384),
                "1.3.132.0.35" => ("ECDSA P-521".to_owned(), 521),
                other => (
                    format!("ECDSA {other}").trim_end().to_owned(),
                    u32::try_from(point.key_size()).unwrap_or(0),
                ),
            }
        }
        ("1.3.101.112", _) => ("Ed25519".to_owned(), 256),
        ("1.3.101.113", _) => ("Ed448".to_owned(), 456),
        ("1.2.840.10040.4.1", _) => ("DSA".to_owned(), 0),
        ("2.16.840.1.101.3.4.3.17", _) => ("ML-DSA-44".to_owned(), 0),
        ("2.16.840.1.101.3.4.3.18", _) => ("ML-DSA-65".to_owned(), 0),
        ("2.16.840.1.101.3.4.3.19", _) => ("ML-DSA-87".to_owned(), 0),
        _ => (oid, 0),
    };
    PublicKey { algorithm, bits, spki: hex(&sha256(spki.raw)) }
}

/// Returns the usual name of a signature algorithm, or its dotted OID.
pub(crate) fn signature_name(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let oid = algorithm.algorithm.to_id_string();
    match oid.as_str() {
        "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" => "sha1WithRSAEncryption",
        "1.2.840.113549.1.1.10" => "RSASSA-PSS",
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        "1.2.840.113549.1.1.12" => "sha384WithRSAEncryption",
        "1.2.840.113549.1.1.13" => "sha512WithRSAEncryption",
        "1.2.840.113549.1.1.14" => "sha224WithRSAEncryption",
        "1.2.840.10040.4.3" => "dsa-with-SHA1",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10045.4.3.1" => "ecdsa-with-SHA224",
        "1.2.840.10045.4.3.2" => "ecdsa-with-SHA256",
        "1.2.840.10045.4.3.3" => "ecdsa-with-SHA384",
        "1.2.840.10045.4.3.4" => "ecdsa-with-SHA512",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        _ => return oid,
    }
    .to_owned()
}

/// Returns whether the signature of `x509` is that of the key in `spki`; `None` when its algorithm cannot be
/// checked.
///
/// SHA-1 and RSA keys from 1024 bits are checked too: weak, but a Go program may accept them.
///
/// The same question comes up for each use of a certificate, and its answer takes longer than all the rest of a judgement,
/// so some are remembered.
pub(crate) fn signed_by(x509: &X509Certificate<'_>, spki: &SubjectPublicKeyInfo<'_>) -> Option<bool> {
    const MOST: usize = 64;
    static KNOWN: Mutex<BTreeMap<[[u8; 32]; 2], Option<bool>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let question = [x509.as_raw(), spki.raw].map(sha256);
    if let Some(answer) = known().get(&question) {
        return *answer;
    }
    let answer = verify(x509, spki);
    let mut known = known();
    if known.len() == MOST {
        known.clear();
    }
    known.insert(question, answer);
    answer
}

fn verify(x509: &X509Certificate<'_>, spki: &SubjectPublicKeyInfo<'_>) -> Option<bool> {
    let message = x509.tbs_certificate.as_ref();
    let signed = x509.signature_value.data.as_ref();
    let key = spki.subject_public_key.data.as_ref();
    let key_algorithm = content(content(spki.raw)?)?;
    let signature_algorithm = content(content(x509.as_raw())?.get(message.len()..)?)?;

    let mut known = false;
    for algorithm in webpki::ALL_VERIFICATION_ALGS.iter().filter(|a| {
        a.public_key_alg_id().as_ref() == key_algorithm
            && a.signature_alg_id().as_ref() == signature_algorithm
    }) {
        known = true;
        if algorithm.verify_signature(key, message, signed).is_ok() {
            return Some(true);
        }
    }
    let weak = match x509.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.5" => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        "1.2.840.113549.1.1.11" => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        "1.2.840.113549.1.1.13" => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        _ => return known.then_some(false),
    };
    Some(signature::UnparsedPublicKey::new(weak, key).verify(message, signed).is_ok())
}

/// Returns the SubjectPublicKeyInfo of a private key that Go reads but this crate's cryptographic library
/// refuses: RSA of an unusual size, P-224. Only the public numbers that stand beside the private ones are
/// read.
pub(crate) fn spki_of_weak_key(private: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    match private {
        PrivateKeyDer::Pkcs1(key) => rsa_spki(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => ec_spki(key.secret_sec1_der(), None),
        PrivateKeyDer::Pkcs8(key) => {
            let fields = elements(key.secret_pkcs8_der())?;
            let [_, algorithm, key, ..] = fields.as_slice() else { return None };
            match elements(algorithm.encoding)?.as_slice() {
                [oid, ..] if oid.encoding == RSA_OID => rsa_spki(key.content),
                [oid, curve] if oid.encoding == EC_OID => ec_spki(key.content, Some(curve.encoding)),
                _ => None,
            }
        }
        _ => None,
    }
}

const RSA_OID: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC_OID: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const NULL: &[u8] = &[0x05, 0];

/// PKCS#1: version, modulus, public exponent, private numbers.
fn rsa_spki(der: &[u8]) -> Option<Vec<u8>> {
    let fields = elements(der)?;
    let [_, modulus, exponent, ..] = fields.as_slice() else { return None };
    let public = encode(0x30, &[modulus.encoding, exponent.encoding]);
    Some(encode(0x30, &[&encode(0x30, &[RSA_OID, NULL]), &encode(0x03, &[&[0], &public])]))
}

/// SEC1: version, private number, `[0]` curve (unless PKCS#8 names it), `[1]` public point.
fn ec_spki(der: &[u8], curve: Option<&[u8]>) -> Option<Vec<u8>> {
    let fields = elements(der)?;
    let tagged = |tag: u8| fields.iter().find(|e| e.encoding.first() == Some(&tag)).map(|e| e.content);
    let (curve, point) = (curve.or_else(|| tagged(0xa0))?, tagged(0xa1)?);
    Some(encode(0x30, &[&encode(0x30, &[EC_OID, curve]), point]))
}

/// One DER element.
struct Element<'a> {
    encoding: &'a [u8],
    content: &'a [u8],
}

/// Returns the elements of the constructed element in `der`.
fn elements(der: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut rest = content(der)?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, any) = Any::from_der(rest).ok()?;
        found.push(Element { encoding: rest.get(..rest.len() - after.len())?, content: any.data });
        rest = after;
    }
    Some(found)
}

/// Returns a DER element of `tag` with the concatenated `parts` as its content.
fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = length.iter().skip_while(|b| **b == 0).copied();
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(significant.clone().count()).unwrap_or(0));
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

/// Returns `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Returns the SHA-256 digest of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

/// Returns the length in bits of an unsigned big-endian number.
fn bit_length(number: &[u8]) -> u32 {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    let significant = number.get(zeros..).unwrap_or_default();
    let leading = significant.first().map_or(0, |b| b.leading_zeros());
    u32::try_from(significant.len() * 8).unwrap_or(0).saturating_sub(leading)
}

/// Returns the content of the DER element that `der` begins with.
fn content(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}
