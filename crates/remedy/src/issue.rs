//! Certificates: from an authority that is there, or from one made for the purpose.
//!
//! A private key is made on the node that uses it and never leaves it: elsewhere goes a signing request, and
//! what comes back is a certificate. The authority decides by its own list of names what it signs, not by what
//! the request would like. And nothing is handed out that the audit would object to: every certificate is read
//! back and judged by [`seaworthy_pki`], as a Go peer would.
//!
//! No clock: the time is an argument.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize, SanType,
    SerialNumber,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use schemars::JsonSchema;
use seaworthy_evidence::{Origin, PublicKey};
use seaworthy_pki::{Material, Parsed, Side, Source, Usage, Use, User};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// How long a certificate is valid unless its [`Profile`] says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How long an authority made here is valid.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);
/// How long before now validity begins, for nodes whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(300);
/// Most bytes of a signing request.
const MAX_REQUEST: usize = 64 << 10;

/// A private key in PEM form. It is wiped from memory when it is dropped, and never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

/// A kind of key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyKind {
    /// Elliptic curve P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To dial servers.
    Client,
    /// To dial other members and to be dialled by them, or to be dialled by clients and dial as one.
    #[default]
    Peer,
    /// To be dialled.
    Server,
}

/// A certificate to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Common name of the subject: for a member, its name.
    pub common_name: String,
    /// Organization of the subject.
    pub organization: Option<String>,
    /// The names and addresses in it.
    pub hosts: BTreeSet<Host>,
    /// What it is for.
    pub purpose: Purpose,
    /// How long it is to be valid, at most until its authority is not any more.
    pub lifetime: Duration,
}

/// A host that can be in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name, in lower case.
    Name(String),
}

/// An authority with its private key.
pub struct Authority {
    certificate: Parsed,
    key: Zeroizing<KeyPair>,
    pem: String,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// The certificate as PEM.
    pub pem: String,
    /// What it says.
    pub certificate: Parsed,
}

/// Why no certificate is issued.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The authority cannot issue.
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    /// The host cannot be in a certificate.
    #[error("{0} cannot be named in a certificate")]
    Host(String),
    /// The certificate would not be accepted. Nothing was handed out.
    #[error("the certificate would not be accepted: {0}")]
    Unacceptable(String),
    /// The library cannot do it.
    #[error("the certificate cannot be made: {0}")]
    Library(String),
    /// The signing request is not what it should be.
    #[error("the signing request is refused: {0}")]
    Request(String),
}

impl Secret {
    /// Returns the PEM text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn of(key: &KeyPair) -> Self {
        Self(Zeroizing::new(key.serialize_pem().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("certificate", &self.certificate.certificate)
            .finish_non_exhaustive()
    }
}

impl KeyKind {
    /// Returns the kind that leaves should have to be like the key of their authority.
    pub fn like(authority: &PublicKey) -> Self {
        match (authority.algorithm.as_str(), authority.bits) {
            ("RSA", ..=2048) => Self::Rsa2048,
            ("RSA", _) => Self::Rsa3072,
            _ => Self::EcP256,
        }
    }

    fn generate(self) -> Result<Zeroizing<KeyPair>, IssueError> {
        let key = match self {
            Self::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        };
        key.map(Zeroizing::new).map_err(library)
    }
}

impl Purpose {
    fn usages(self) -> &'static [Usage] {
        match self {
            Self::Client => &[Usage::Client],
            Self::Peer => &[Usage::Server, Usage::Client],
            Self::Server => &[Usage::Server],
        }
    }
}

impl Host {
    /// Returns the host `text`: a name, or an address with or without brackets.
    ///
    /// # Errors
    ///
    /// For what nobody can dial (`0.0.0.0`), wildcards, and what is no host name.
    pub fn parse(text: &str) -> Result<Self, IssueError> {
        let refused = || IssueError::Host(text.chars().filter(|c| !c.is_control()).take(253).collect());
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            return if address.is_unspecified() { Err(refused()) } else { Ok(Self::Address(address)) };
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() < 64
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        match name.len() < 254 && name.split('.').all(label) {
            true => Ok(Self::Name(name)),
            false => Err(refused()),
        }
    }

    /// Returns the host of a URL such as `https://[fd00::1]:2380`.
    ///
    /// # Errors
    ///
    /// As [`Host::parse`], and when `url` has no host.
    pub fn of_url(url: &str) -> Result<Self, IssueError> {
        let refused = || IssueError::Host(url.chars().filter(|c| !c.is_control()).take(253).collect());
        let (_, rest) = url.split_once("://").ok_or_else(refused)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(IssueError::Host("a URL with a password".to_owned()));
        }
        let host = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            Some(_) => return Err(refused()),
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        Self::parse(host)
    }

    fn san(&self) -> Result<SanType, IssueError> {
        match self {
            Self::Address(address) => Ok(SanType::IpAddress(*address)),
            Self::Name(name) => Ok(SanType::DnsName(name.as_str().try_into().map_err(library)?)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

impl Authority {
    /// Returns the authority of the PEM files `certificate` and `key` (PKCS#1, SEC1 or PKCS#8). In a bundle it is
    /// the certificate that the key belongs to.
    ///
    /// # Errors
    ///
    /// When none of the certificates is of that key, or it may not sign, or is not valid at `now`.
    pub fn load(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Self, IssueError> {
        let unusable = |reason: &dyn fmt::Display| IssueError::Authority(reason.to_string());
        let origin = Origin::file("the authority's certificate");
        let found =
            seaworthy_pki::certificates_from_pem(certificate, origin, now).map_err(|e| unusable(&e))?;
        let facts =
            seaworthy_pki::private_key_from_pem(key, "the authority's key").map_err(|e| unusable(&e))?;
        let mut mine = found.into_iter().filter(|c| c.certificate.key.spki == facts.key.spki);
        let certificate = mine.next().ok_or_else(|| unusable(&"the key is of another certificate"))?;
        // The library's errors could say something of the key.
        let mut der = PrivateKeyDer::from_pem_slice(key).map_err(|_| unusable(&"its key cannot be read"))?;
        let key = KeyPair::try_from(&der);
        der.zeroize();
        let key = key.map_err(|_| unusable(&"its key is of a kind that cannot sign"))?;
        let pem = pem(certificate.der());
        let authority = Self { certificate, key: Zeroizing::new(key), pem };
        authority.check(now)?;
        Ok(authority)
    }

    /// Returns a new authority called `name`, which can issue leaves only, and its key.
    ///
    /// # Errors
    ///
    /// When the library fails.
    pub fn create(name: &str, kind: KeyKind, now: Timestamp) -> Result<(Self, Secret), IssueError> {
        let key = kind.generate()?;
        let mut params = params(name, None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial()?);
        let start = now.as_second();
        valid(&mut params, start - seconds(BACKDATED), start + seconds(AUTHORITY_LIFETIME));
        let made = params.self_signed(&*key).map_err(library)?;
        let certificate = parsed(made.der(), now)?;
        let authority = Self { pem: pem(certificate.der()), certificate, key };
        authority.check(now)?;
        let secret = Secret::of(&authority.key);
        Ok((authority, secret))
    }

    /// Returns its certificate.
    pub fn certificate(&self) -> &Parsed {
        &self.certificate
    }

    /// Returns its certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the kind of key that leaves should have to be like the authority's own.
    pub fn kind(&self) -> KeyKind {
        KeyKind::like(&self.certificate.certificate.key)
    }

    /// Returns a new key and a certificate for it, on the node that uses both.
    ///
    /// # Errors
    ///
    /// When a verifier that trusts this authority would not accept the certificate.
    pub fn issue(
        &self,
        profile: &Profile,
        kind: KeyKind,
        now: Timestamp,
    ) -> Result<(Secret, Issued), IssueError> {
        let key = kind.generate()?;
        let secret = Secret::of(&key);
        let issued = self.sign_key(&*key, profile, now)?;
        let facts = seaworthy_pki::private_key_from_pem(secret.as_bytes(), "the new key")
            .map_err(|error| IssueError::Unacceptable(error.to_string()))?;
        match facts.key.spki == issued.certificate.certificate.key.spki {
            true => Ok((secret, issued)),
            false => Err(IssueError::Unacceptable("it is of another key".to_owned())),
        }
    }

    /// Returns a certificate for the key of the signing request (PEM). `profile` is what this side knows of the
    /// requester, and all that the certificate will say.
    ///
    /// # Errors
    ///
    /// [`IssueError::Request`] when the request is not signed by its own key, asks for more than `profile` has,
    /// or has a weak key.
    pub fn sign(&self, request: &[u8], profile: &Profile, now: Timestamp) -> Result<Issued, IssueError> {
        let refused = |reason: String| IssueError::Request(reason);
        let request = proven(request)?;
        let asked = &request.params;
        for san in &asked.subject_alt_names {
            let host = match san {
                SanType::DnsName(name) => Host::parse(name.as_str()).ok(),
                SanType::IpAddress(address) => Some(Host::Address(address.to_canonical())),
                _ => None,
            };
            match host {
                Some(host) if profile.hosts.contains(&host) => {}
                Some(host) => return Err(refused(format!("it asks for {host}, which is not expected"))),
                None => return Err(refused("it asks for a name that is no host".to_owned())),
            }
        }
        let usages = profile.purpose.usages().iter().map(|usage| extended_usage(*usage)).collect::<Vec<_>>();
        if !asked.extended_key_usages.iter().all(|usage| usages.contains(usage)) {
            return Err(refused("it asks for a usage that is not expected".to_owned()));
        }
        let plain = [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if matches!(asked.is_ca, IsCa::Ca(_)) || !asked.key_usages.iter().all(|usage| plain.contains(usage)) {
            return Err(refused("it asks to be an authority".to_owned()));
        }
        let name = asked.distinguished_name.get(&DnType::CommonName).and_then(dn_text);
        if name != Some(&profile.common_name) {
            return Err(refused(format!("it is not by {}", profile.common_name)));
        }
        let issued = self.sign_key(&request.public_key, profile, now)?;
        let key = &issued.certificate.certificate.key;
        match key.algorithm == "RSA" && key.bits < 2048 {
            true => Err(refused(format!("its RSA key has {} bits", key.bits))),
            false => Ok(issued),
        }
    }

    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        self.check(now)?;
        let own = &self.certificate.certificate;
        let mut params = profile.params()?;
        let begin = now.as_second() - seconds(BACKDATED);
        let end = now.as_second().saturating_add(seconds(profile.lifetime)).min(own.not_after.as_second());
        valid(&mut params, begin.max(own.not_before.as_second()), end);
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        let der = rustls_pki_types::CertificateDer::from(self.certificate.der());
        let issuer = Issuer::from_ca_cert_der(&der, &*self.key).map_err(library)?;
        let made = params.signed_by(key, &issuer).map_err(library)?;
        let certificate = parsed(made.der(), now)?;
        let issued = Issued { pem: pem(certificate.der()), certificate };
        self.accept(&issued, profile, now)?;
        Ok(issued)
    }

    /// Checks that it can sign leaves now.
    fn check(&self, now: Timestamp) -> Result<(), IssueError> {
        let own = &self.certificate.certificate;
        let reason = match () {
            () if !own.ca => "its certificate is not that of an authority",
            () if own.not_after <= now => "its certificate has expired",
            () if own.not_before > now => "its certificate is not valid yet",
            () => return Ok(()),
        };
        Err(IssueError::Authority(reason.to_owned()))
    }

    /// Judges a certificate as those would who trust this authority.
    fn accept(&self, issued: &Issued, profile: &Profile, now: Timestamp) -> Result<(), IssueError> {
        let unacceptable = |reason: String| Err(IssueError::Unacceptable(reason));
        let (leaf, roots) = (&issued.certificate, std::slice::from_ref(&self.certificate));
        for usage in profile.purpose.usages() {
            if let Err(error) = seaworthy_pki::chains_to(leaf, &[], roots, *usage, now) {
                return unacceptable(error.to_string());
            }
        }
        if let Some(host) =
            profile.hosts.iter().find(|host| !seaworthy_pki::names(&leaf.certificate, &host.to_string()))
        {
            return unacceptable(format!("it does not name {host}"));
        }
        let side = match profile.purpose {
            Purpose::Client => return Ok(()),
            Purpose::Peer => Side::Peer,
            Purpose::Server => Side::Client,
        };
        let dialled: Vec<String> = profile.hosts.iter().map(Host::to_string).collect();
        let origin = Origin::file("the new certificate");
        let source = |content| {
            Some(Source { path: "the new certificate", origin: &origin, content: Ok(content), refusal: None })
        };
        let material = Material {
            certificate: source(std::slice::from_ref(leaf)),
            trusted: source(roots),
            ..Material::default()
        };
        let usage = Use {
            side,
            dialled: &dialled,
            dials_from: &[],
            client_auth: true,
            checks_client_names: true,
            allowed: None,
            user: User::Etcd(None),
        };
        let problems = seaworthy_pki::problems(&material, &usage, now);
        match problems.into_iter().find(|problem| problem.breaks) {
            Some(problem) => unacceptable(problem.message),
            None => Ok(()),
        }
    }
}

/// Returns a new key and a signing request (PEM) for it. The key stays; the request travels.
///
/// # Errors
///
/// When the library fails.
pub fn request(profile: &Profile, kind: KeyKind) -> Result<(Secret, String), IssueError> {
    let key = kind.generate()?;
    let request = profile.params()?.serialize_request(&*key).map_err(library)?;
    Ok((Secret::of(&key), request.pem().map_err(library)?))
}

/// Returns the common name in a signing request (PEM) that is signed by its own key. Anybody can write any name there.
///
/// # Errors
///
/// [`IssueError::Request`] when it is not so signed, or names nobody.
pub fn requester(request: &[u8]) -> Result<String, IssueError> {
    let request = proven(request)?;
    let name = request.params.distinguished_name.get(&DnType::CommonName).and_then(dn_text);
    name.map(str::to_owned).ok_or_else(|| IssueError::Request("it names nobody".to_owned()))
}

/// Returns the SHA-256 of the public key that a request asks a certificate for.
///
/// # Errors
///
/// When it is no request, or not signed by that key.
pub fn requested_key(request: &[u8]) -> Result<String, IssueError> {
    Ok(seaworthy_journal::files::sha256(&proven(request)?.public_key.subject_public_key_info()))
}

/// Returns a signing request whose signature proves that the requester has the key.
fn proven(request: &[u8]) -> Result<CertificateSigningRequestParams, IssueError> {
    let text = std::str::from_utf8(request).ok().filter(|text| text.len() <= MAX_REQUEST);
    let text = text.ok_or_else(|| IssueError::Request("it is no PEM text".to_owned()))?;
    // This verifies the signature.
    CertificateSigningRequestParams::from_pem(text).map_err(|error| IssueError::Request(error.to_string()))
}

impl Profile {
    /// Returns the profile of a member that its peers dial at `hosts`.
    pub fn peer(member: &str, hosts: impl IntoIterator<Item = Host>) -> Self {
        Self {
            common_name: member.to_owned(),
            organization: None,
            hosts: hosts.into_iter().collect(),
            purpose: Purpose::Peer,
            lifetime: LIFETIME,
        }
    }

    fn params(&self) -> Result<CertificateParams, IssueError> {
        let mut params = params(&self.common_name, self.organization.as_deref())?;
        params.subject_alt_names = self.hosts.iter().map(Host::san).collect::<Result<_, _>>()?;
        params.extended_key_usages =
            self.purpose.usages().iter().map(|usage| extended_usage(*usage)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.is_ca = IsCa::ExplicitNoCa;
        Ok(params)
    }
}

fn params(common_name: &str, organization: Option<&str>) -> Result<CertificateParams, IssueError> {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    Ok(params)
}

/// Returns a random serial number: positive, and always as long.
fn serial() -> Result<SerialNumber, IssueError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Library("no random bytes".to_owned()))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial.to_vec().into())
}

/// Sets the validity, in seconds since the epoch.
fn valid(params: &mut CertificateParams, from: i64, to: i64) {
    /// The last second of the year 9999, the last that a certificate can name.
    const LAST: u64 = 253_402_300_799;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or(0).min(LAST));
    (params.not_before, params.not_after) = (at(from), at(to));
}

fn extended_usage(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

fn dn_text(value: &DnValue) -> Option<&str> {
    match value {
        DnValue::PrintableString(text) => Some(text.as_str()),
        DnValue::Utf8String(text) => Some(text),
        _ => None,
    }
}

fn parsed(der: &[u8], now: Timestamp) -> Result<Parsed, IssueError> {
    Parsed::from_der(der, Origin::derived("issued"), now)
        .map_err(|error| IssueError::Unacceptable(error.to_string()))
}

fn library(error: rcgen::Error) -> IssueError {
    IssueError::Library(error.to_string())
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Returns a certificate as PEM.
pub(crate) fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits =
                (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
            for digit in 0..4 {
                let index = (bits >> (18 - 6 * digit)) & 63;
                let digit = DIGITS.get(index as usize).filter(|_| digit <= group.len() as u32);
                text.push(digit.map_or('=', |digit| char::from(*digit)));
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn now() -> Timestamp {
        // openssl verifies with its own clock.
        Timestamp::now()
    }

    fn hosts(texts: &[&str]) -> Vec<Host> {
        texts.iter().map(|text| Host::parse(text).unwrap()).collect()
    }

    fn profile() -> Profile {
        Profile::peer("node-1", hosts(&["node-1.example", "10.0.0.1", "[fd00::1]"]))
    }

    fn peer_ca() -> Authority {
        Authority::create("etcd-peer-ca", KeyKind::EcP256, now()).unwrap().0
    }

    /// Runs openssl where there is one.
    fn openssl(arguments: &[&str]) -> Option<String> {
        let output = Command::new("openssl").args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    #[test]
    fn hosts_are_taken_from_urls() {
        for (url, want) in [
            ("https://10.0.0.1:2380", "10.0.0.1"),
            ("https://[fd00::1]:2380", "fd00::1"),
            ("http://Node-1.example.:2380/x", "node-1.example"),
            ("https://node_1", "node_1"),
            ("https://[::ffff:10.0.0.1]", "10.0.0.1"),
        ] {
            assert_eq!(Host::of_url(url).unwrap().to_string(), want, "{url}");
        }
        for url in [
            "10.0.0.1:2380",
            "https://0.0.0.0:1",
            "https://[::]:1",
            "https://*.x",
            "https://",
            "https://u:p@x",
            "https://[::1]x",
            "https://a b",
        ] {
            assert!(Host::of_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn certificates_are_accepted_by_go_and_by_openssl() {
        for (kind, leaf) in [
            (KeyKind::EcP256, KeyKind::EcP256),
            (KeyKind::Rsa2048, KeyKind::Rsa2048),
            (KeyKind::Rsa2048, KeyKind::EcP256),
        ] {
            let (authority, key) = Authority::create("etcd-peer-ca", kind, now()).unwrap();
            let reloaded = Authority::load(authority.pem().as_bytes(), key.as_bytes(), now()).unwrap();
            assert_eq!((reloaded.pem(), reloaded.kind()), (authority.pem(), kind));
            let (secret, issued) = reloaded.issue(&profile(), leaf, now()).unwrap();
            let facts = &issued.certificate.certificate;
            assert_eq!(facts.subject, "CN=node-1");
            assert_eq!(
                facts.usages.as_deref(),
                Some(&["serverAuth".to_owned(), "clientAuth".to_owned()][..])
            );
            assert_eq!(
                (facts.sans.dns.join(" "), facts.sans.ip.join(" ")),
                ("node-1.example".into(), "10.0.0.1 fd00::1".into())
            );
            assert!((364..=365).contains(&facts.days_left) && facts.not_before < now() && !facts.ca);
            assert_ne!(
                facts.serial,
                reloaded.issue(&profile(), leaf, now()).unwrap().1.certificate.certificate.serial
            );

            let directory = tempfile::tempdir().unwrap();
            let file = |name: &str, bytes: &[u8]| {
                let path = directory.path().join(name);
                std::fs::write(&path, bytes).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let (ca, crt) =
                (file("ca.crt", authority.pem().as_bytes()), file("peer.crt", issued.pem.as_bytes()));
            let key = file("peer.key", secret.as_bytes());
            for purpose in ["sslserver", "sslclient"] {
                if let Some(said) =
                    openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &ca, &crt])
                {
                    assert_eq!(said.trim(), format!("{crt}: OK"), "{said}");
                }
            }
            let public = |arguments: &[&str]| openssl(arguments);
            assert_eq!(
                public(&["pkey", "-in", &key, "-pubout"]),
                public(&["x509", "-in", &crt, "-pubkey", "-noout"])
            );
        }
    }

    #[test]
    fn authorities_of_others_are_used_in_every_key_format() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (key, crt, other) = (at("ca.key"), at("ca.crt"), at("other.key"));
        let cases = [
            (&["genrsa", "-traditional", "-out", &key, "2048"][..], "RSA PRIVATE KEY"),
            (&["genrsa", "-out", &key, "2048"], "BEGIN PRIVATE KEY"),
            (&["ecparam", "-genkey", "-name", "prime256v1", "-out", &key], "EC PRIVATE KEY"),
            (&["ecparam", "-genkey", "-name", "secp384r1", "-noout", "-out", &key], "EC PRIVATE KEY"),
        ];
        for (generate, label) in cases {
            // Without openssl there is nobody else's authority here.
            if openssl(generate).is_none() {
                return;
            }
            let subject = "/O=Exämple, Inc./CN=etcd-ca";
            openssl(&["req", "-x509", "-utf8", "-key", &key, "-out", &crt, "-days", "30", "-subj", subject])
                .unwrap();
            openssl(&["genrsa", "-out", &other, "2048"]).unwrap();
            let [key, crt, other] = [&key, &crt, &other].map(|path| std::fs::read(path).unwrap());
            assert!(String::from_utf8_lossy(&key).contains(label));
            let authority = Authority::load(&crt, &key, now()).unwrap();
            let bundle = [peer_ca().pem().as_bytes(), &crt].concat();
            assert_eq!(
                Authority::load(&bundle, &key, now()).unwrap().certificate().der(),
                authority.certificate().der()
            );
            let (_, issued) = authority.issue(&profile(), KeyKind::default(), now()).unwrap();
            let end = authority.certificate().certificate.not_after;
            assert_eq!(issued.certificate.certificate.not_after, end, "never longer than the authority");
            assert!(matches!(Authority::load(&crt, &other, now()), Err(IssueError::Authority(_))));
            let later = end + Duration::from_secs(1);
            assert!(matches!(Authority::load(&crt, &key, later), Err(IssueError::Authority(_))));
            assert!(authority.issue(&profile(), KeyKind::default(), later).is_err());
        }
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let (key, leaf) = peer_ca().issue(&profile(), KeyKind::EcP256, now()).unwrap();
        let error = Authority::load(leaf.pem.as_bytes(), key.as_bytes(), now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the authority cannot be used: its certificate is not that of an authority"
        );
    }

    #[test]
    fn a_request_travels_and_the_key_stays() {
        let authority = peer_ca();
        for kind in [KeyKind::EcP256, KeyKind::Rsa2048] {
            let (secret, pem) = request(&profile(), kind).unwrap();
            assert!(!pem.contains("PRIVATE"));
            let issued = authority.sign(pem.as_bytes(), &profile(), now()).unwrap();
            let key = seaworthy_pki::private_key_from_pem(secret.as_bytes(), "key").unwrap();
            assert_eq!(issued.certificate.certificate.key.spki, key.key.spki);
            let mut more = profile();
            more.hosts.insert(Host::parse("node-1.internal").unwrap());
            let issued = authority.sign(pem.as_bytes(), &more, now()).unwrap();
            assert_eq!(issued.certificate.certificate.sans.dns.len(), 2, "the authority's own list counts");
        }
    }

    #[test]
    fn a_request_for_more_than_expected_is_refused() {
        let authority = peer_ca();
        let sign = |asked: &Profile| {
            let (_, pem) = request(asked, KeyKind::EcP256).unwrap();
            authority.sign(pem.as_bytes(), &profile(), now()).unwrap_err().to_string()
        };
        let mut other = profile();
        other.hosts.insert(Host::parse("10.0.0.2").unwrap());
        assert_eq!(
            sign(&other),
            "the signing request is refused: it asks for 10.0.0.2, which is not expected"
        );
        assert_eq!(
            sign(&Profile { common_name: "root".into(), ..profile() }),
            "the signing request is refused: it is not by node-1"
        );
        let server = Profile { purpose: Purpose::Server, ..profile() };
        let (_, both) = request(&profile(), KeyKind::EcP256).unwrap();
        let error = authority.sign(both.as_bytes(), &server, now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the signing request is refused: it asks for a usage that is not expected"
        );

        let raw = |edit: &dyn Fn(&mut CertificateParams)| {
            let mut params = profile().params().unwrap();
            edit(&mut params);
            let key = KeyPair::generate().unwrap();
            params.serialize_request(&key).unwrap().pem().unwrap()
        };
        for pem in [
            raw(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            raw(&|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            raw(&|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)),
            raw(&|p| p.subject_alt_names.push(SanType::URI("spiffe://x".try_into().unwrap()))),
            raw(&|p| p.subject_alt_names.push(SanType::DnsName("*.example".try_into().unwrap()))),
            "no PEM".to_owned(),
            String::new(),
        ] {
            assert!(matches!(authority.sign(pem.as_bytes(), &profile(), now()), Err(IssueError::Request(_))));
        }
        // One byte of the signature.
        let (_, pem) = request(&profile(), KeyKind::Rsa2048).unwrap();
        let at = pem.rfind("\n-----END").unwrap() - 12;
        let other = if pem.as_bytes()[at] == b'A' { "B" } else { "A" };
        let forged = format!("{}{other}{}", &pem[..at], &pem[at + 1..]);
        assert!(matches!(authority.sign(forged.as_bytes(), &profile(), now()), Err(IssueError::Request(_))));
    }

    #[test]
    fn no_key_is_ever_shown() {
        let (authority, key) = Authority::create("ca", KeyKind::EcP256, now()).unwrap();
        let body = String::from_utf8_lossy(key.as_bytes()).lines().nth(1).unwrap().to_owned();
        assert!(!format!("{authority:?} {key:?}").contains(&body));
        let broken = [&key.as_bytes()[..60], b"\n-----END PRIVATE KEY-----\n"].concat();
        let error = Authority::load(authority.pem().as_bytes(), &broken, now()).unwrap_err();
        assert!(!error.to_string().contains(&body[..16]), "{error}");
    }
}
