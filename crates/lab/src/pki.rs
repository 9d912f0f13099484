//! A public key infrastructure that is made for one test: good certificates, and every kind of bad one.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams,
    RsaKeySize, SanType, SerialNumber,
};

use crate::error::Error;

/// A certificate authority. Clones are the same authority.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    issuer: CertifiedIssuer<'static, KeyPair>,
    params: CertificateParams,
    key: String,
    /// This authority's certificate and those above it without the root: what a leaf's file must carry along.
    chain: String,
}

impl Authority {
    /// Creates a root authority.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let pem = key.serialize_pem();
        let params = authority(common_name)?;
        let issuer = CertifiedIssuer::self_signed(params.clone(), key)?;
        Ok(Self(Arc::new(Inner { issuer, params, key: pem, chain: String::new() })))
    }

    /// Creates a root authority whose certificate is valid only then.
    pub fn valid(common_name: &str, validity: Validity) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let pem = key.serialize_pem();
        let mut params = authority(common_name)?;
        let (from, to) = validity.dates();
        (params.not_before, params.not_after) = (from.into(), to.into());
        let issuer = CertifiedIssuer::self_signed(params.clone(), key)?;
        Ok(Self(Arc::new(Inner { issuer, params, key: pem, chain: String::new() })))
    }

    /// Returns this authority with a certificate of the same name and key that is valid only then.
    pub fn dated(&self, validity: Validity) -> Result<Self, Error> {
        let pem = self.0.key.clone();
        let mut params = self.0.params.clone();
        let (from, to) = validity.dates();
        (params.not_before, params.not_after) = (from.into(), to.into());
        let issuer = CertifiedIssuer::self_signed(params.clone(), KeyPair::from_pem(&pem)?)?;
        Ok(Self(Arc::new(Inner { issuer, params, key: pem, chain: String::new() })))
    }

    /// Creates an authority below this one. Leaves that it issues carry its certificate in their file.
    pub fn intermediate(&self, common_name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let pem = key.serialize_pem();
        let params = authority(common_name)?;
        let issuer = CertifiedIssuer::signed_by(params.clone(), key, &self.0.issuer)?;
        let chain = format!("{}{}", issuer.pem(), self.0.chain);
        Ok(Self(Arc::new(Inner { issuer, params, key: pem, chain })))
    }

    /// Returns the authority's certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.issuer.pem()
    }

    /// Returns the authority's private key in PEM, to plant `ca.key` as kubeadm does.
    pub fn key_pem(&self) -> &str {
        &self.0.key
    }

    /// Issues a certificate with a key of its own.
    pub fn issue(&self, leaf: &Leaf) -> Result<Certificate, Error> {
        let key = match leaf.key {
            KeyKind::EcP256 => KeyPair::generate()?,
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let (params, serial) = leaf.params()?;
        let certificate = params.signed_by(&key, &self.0.issuer)?;
        Ok(Certificate {
            pem: certificate.pem(),
            chain: self.0.chain.clone(),
            key: key.serialize_pem(),
            serial,
        })
    }

    /// Returns a revocation list of these certificates, in DER.
    pub fn revoke(&self, certificates: &[&Certificate]) -> Result<Vec<u8>, Error> {
        let now = SystemTime::now();
        let revoked = |certificate: &&Certificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&certificate.serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + 365 * DAY).into(),
            crl_number: SerialNumber::from_slice(&next_serial()),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.0.issuer)?.der().to_vec())
    }
}

/// A certificate with its key. A mismatched pair is `Certificate { key: other.key, ..one }`.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate in PEM.
    pub pem: String,
    /// The intermediate authorities' certificates in PEM; empty below a root.
    pub chain: String,
    /// The private key in PEM (PKCS #8).
    pub key: String,
    serial: [u8; 8],
}

impl Certificate {
    /// Returns the certificate followed by its intermediates: what goes into a certificate file.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.pem, self.chain)
    }
}

/// What a certificate shall say.
#[derive(Debug, Clone)]
pub struct Leaf {
    common_name: String,
    organization: Option<String>,
    sans: Vec<String>,
    usage: Usage,
    validity: Validity,
    key: KeyKind,
}

impl Leaf {
    /// Returns a certificate without alternative names, for both directions, valid for a year, with an EC
    /// key.
    pub fn new(common_name: impl Into<String>) -> Self {
        Self {
            common_name: common_name.into(),
            organization: None,
            sans: Vec::new(),
            usage: Usage::Both,
            validity: Validity::Days(365),
            key: KeyKind::EcP256,
        }
    }

    /// Adds a subject alternative name: an IP address if it reads as one, else a DNS name.
    pub fn san(mut self, name: impl Into<String>) -> Self {
        self.sans.push(name.into());
        self
    }

    /// Removes every subject alternative name.
    pub fn no_sans(mut self) -> Self {
        self.sans.clear();
        self
    }

    /// Sets the common name.
    pub fn common_name(mut self, name: impl Into<String>) -> Self {
        self.common_name = name.into();
        self
    }

    /// Sets the organization, which Kubernetes reads as a group.
    pub fn organization(mut self, name: impl Into<String>) -> Self {
        self.organization = Some(name.into());
        self
    }

    /// Sets the extended key usages.
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets when the certificate is valid.
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Sets the kind of key.
    pub fn key(mut self, key: KeyKind) -> Self {
        self.key = key;
        self
    }

    fn params(&self) -> Result<(CertificateParams, [u8; 8]), Error> {
        let mut params = CertificateParams::default();
        let san = |name: &String| match name.parse::<IpAddr>() {
            Ok(ip) => Ok(SanType::IpAddress(ip)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        params.subject_alt_names = self.sans.iter().map(san).collect::<Result<_, rcgen::Error>>()?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        params.extended_key_usages = match self.usage {
            Usage::Both => vec![server, client],
            Usage::Client => vec![client],
            Usage::Server => vec![server],
            Usage::Unrestricted => vec![],
        };
        let (from, to) = self.validity.dates();
        (params.not_before, params.not_after) = (from.into(), to.into());
        params.use_authority_key_identifier_extension = true;
        let serial = next_serial();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok((params, serial))
    }
}

/// The extended key usages of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Server and client, which a peer needs.
    Both,
    /// Client only.
    Client,
    /// Server only.
    Server,
    /// No extended key usage at all, which permits everything.
    Unrestricted,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From an hour before a clock that is ahead of this machine's by so much, for a year.
    ///
    /// The lab cannot set clocks: Linux has namespaces for monotonic and boot time only, not for the time of
    /// day. But what a wrong clock does to TLS is to make certificates appear as issued in the future, or as
    /// expired; such certificates are [`Ahead`](Self::Ahead) and [`Expired`](Self::Expired).
    Ahead(Duration),
    /// From an hour ago for so many days.
    Days(u32),
    /// Until yesterday.
    Expired,
    /// From 30 days from now.
    Future,
}

impl Validity {
    fn dates(self) -> (SystemTime, SystemTime) {
        let now = SystemTime::now();
        let (from, to) = match self {
            Self::Ahead(skew) => (now + skew - HOUR, now + skew + 365 * DAY),
            Self::Days(days) => (now - HOUR, now + days * DAY),
            Self::Expired => (now - 30 * DAY, now - DAY),
            Self::Future => (now + 30 * DAY, now + 395 * DAY),
        };
        (from, to)
    }
}

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Elliptic curve P-256, made in no time.
    EcP256,
    /// RSA with 2048 bits, as kubeadm makes by default; about a tenth of a second each.
    Rsa2048,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn authority(common_name: &str) -> Result<CertificateParams, Error> {
    let (mut params, _) = Leaf::new(common_name).validity(Validity::Days(3650)).params()?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages.clear();
    Ok(params)
}

/// Returns a serial number, positive and unique in this process and very probably everywhere.
fn next_serial() -> [u8; 8] {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let unique = (now << 8) | (COUNTER.fetch_add(1, Ordering::Relaxed) & 0xff);
    (unique & 0x3fff_ffff_ffff_ffff | 0x4000_0000_0000_0000).to_be_bytes()
}
