//! Certificates, keys, and what is wrong with them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Observed, Origin};

/// One X.509 certificate (RFC 5280).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Where it was found: a file with the line of its PEM header, or the wire.
    pub origin: Origin,
    /// Subject as an RFC 4514 string.
    pub subject: String,
    /// Common name of the subject; null when it has none.
    pub common_name: Option<String>,
    /// Issuer as an RFC 4514 string.
    pub issuer: String,
    /// Serial number, hexadecimal without separators.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Whole days from the snapshot's time to the end of validity; negative when it has passed.
    pub days_left: i64,
    /// Whether issuer and subject are the same and the signature is its own.
    pub self_signed: bool,
    /// Whether the basic constraints mark it as a CA.
    pub ca: bool,
    /// Subject alternative names.
    pub sans: SubjectAltNames,
    /// Extended key usages: `serverAuth`, `clientAuth`, `any` or a dotted OID. Null when the extension is absent,
    /// which allows every usage.
    pub usages: Option<Vec<String>>,
    /// Its public key.
    pub key: PublicKey,
    /// Signature algorithm, for example `ecdsa-with-SHA256`.
    pub signature: String,
    /// SHA-256 of the DER encoding, hexadecimal.
    pub fingerprint: String,
}

/// Subject alternative names of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectAltNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses in their usual notation.
    pub ip: Vec<String>,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// `RSA`, `ECDSA P-256`, `Ed25519`, … or the dotted OID.
    pub algorithm: String,
    /// Size in bits of the RSA modulus or of the curve's field; 0 when unknown.
    pub bits: u32,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal: the identity of the key whatever certificate carries it.
    pub spki: String,
}

/// What may be said about a private key. The key itself never leaves the collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateKey {
    /// The file, as the process sees it.
    pub path: String,
    /// Its public half.
    pub key: PublicKey,
}

/// A certificate revocation list (RFC 5280 §5). etcd looks only at its serial numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    /// The file, as the process sees it.
    pub path: String,
    /// Whether it is PEM; etcd 3.6 accepts DER only.
    pub pem: bool,
    /// Revoked serial numbers, hexadecimal.
    pub serials: Vec<String>,
    /// When the next list was promised; null when it does not say.
    pub next_update: Option<Timestamp>,
}

/// The key material that one side of etcd (peer or client) is configured with, as its files are now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Certificates in the certificate file, leaf first; null when none is configured.
    pub chain: Option<Observed<Vec<Certificate>>>,
    /// The private key; null when none is configured.
    pub key: Option<Observed<PrivateKey>>,
    /// Whether the key is the leaf certificate's; null when either is not configured.
    pub key_matches: Option<Observed<bool>>,
    /// Certificates of the separate client identity for outgoing dials (etcd 3.5+); null when none is configured.
    pub client_chain: Option<Observed<Vec<Certificate>>>,
    /// Certificates in the trusted CA file; null when none is configured, so that the system's roots are trusted.
    pub trusted: Option<Observed<Vec<Certificate>>>,
    /// The revocation list; null when none is configured.
    pub revocations: Option<Observed<RevocationList>>,
}

/// Something that is wrong with the key material, found by reading it and comparing it with its use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The class of the problem.
    pub kind: ProblemKind,
    /// Whether it breaks connections (now, or at the next restart or handshake), and is not merely a weakness.
    pub breaks: bool,
    /// The file it is in.
    pub path: String,
    /// One clause without a final full stop, naming the file: what is wrong, and what it causes.
    pub message: String,
    /// Where it was seen.
    pub origin: Origin,
}

/// The class of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Its validity has ended.
    Expired,
    /// Its validity ends within 30 days.
    Expiring,
    /// The private key is not the certificate's.
    KeyMismatch,
    /// It cannot be parsed.
    Malformed,
    /// A configured file does not exist.
    Missing,
    /// It carries none of the names that members demand of each other (`peer-cert-allowed-cn`,
    /// `peer-cert-allowed-hostname`).
    NameNotAllowed,
    /// Its extended key usages leave out clientAuth, so this member cannot dial others.
    NoClientAuth,
    /// It names no address at all: others cannot dial this member, and it may dial from any address.
    NoSan,
    /// Its extended key usages leave out serverAuth, so others cannot dial this member.
    NoServerAuth,
    /// It is trusted as a CA, and is none.
    NotCa,
    /// Its validity has not begun.
    NotYetValid,
    /// The configured revocation list names it.
    Revoked,
    /// The revocation list cannot be read by this version of etcd, which then refuses everybody.
    RevocationListUnusable,
    /// It does not chain to the trusted CA.
    UnknownCa,
    /// The process may not read it.
    Unreadable,
    /// RSA below 2048 bits, or an elliptic curve below 224 bits.
    WeakKey,
    /// Signed with MD5 or SHA-1.
    WeakSignature,
    /// It does not name the host that peers dial, or the address this member dials from.
    WrongSan,
}
