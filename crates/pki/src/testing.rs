//! Certificates for tests, made on the spot.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use seaworthy_evidence::Origin;

use crate::Parsed;

/// The time of all tests: certificates are valid from 2027-01-01 to 2028-01-01 unless the test says
/// otherwise.
pub(crate) fn now() -> Timestamp {
    "2027-06-01T12:00:00Z".parse().unwrap()
}

/// A certificate to be.
pub(crate) struct Issue {
    params: CertificateParams,
    key: KeyPair,
}

/// A certificate with its key.
pub(crate) struct Entity {
    pub(crate) parsed: Parsed,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
}

impl Issue {
    /// For both usages, valid, without names.
    pub(crate) fn new(cn: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, cn);
        let issue = Self { params, key: KeyPair::generate().unwrap() };
        issue
            .valid((2027, 1, 1), (2028, 1, 1))
            .usages(&[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    pub(crate) fn ca(cn: &str) -> Self {
        Self::new(cn).usages(&[]).edit(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }

    pub(crate) fn edit(mut self, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        edit(&mut self.params);
        self
    }

    /// Addresses become IP addresses, all else DNS names.
    pub(crate) fn sans(self, sans: &[&str]) -> Self {
        sans.iter().fold(self, |issue, san| match san.parse() {
            Ok(ip) => issue.edit(|params| params.subject_alt_names.push(SanType::IpAddress(ip))),
            Err(_) => issue.dns(san),
        })
    }

    pub(crate) fn dns(self, name: &str) -> Self {
        self.edit(|params| params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap())))
    }

    pub(crate) fn usages(self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.edit(|params| params.extended_key_usages = usages.to_vec())
    }

    pub(crate) fn valid(self, from: (i32, u8, u8), to: (i32, u8, u8)) -> Self {
        self.edit(|params| {
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        })
    }

    pub(crate) fn serial(self, serial: &[u8]) -> Self {
        self.edit(|params| params.serial_number = Some(serial.to_vec().into()))
    }

    pub(crate) fn key(mut self, key: KeyPair) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn self_signed(self) -> Entity {
        let certificate = self.params.self_signed(&self.key).unwrap();
        self.entity(&certificate)
    }

    pub(crate) fn signed_by(self, issuer: &Entity) -> Entity {
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let certificate = self.params.signed_by(&self.key, &issuer).unwrap();
        self.entity(&certificate)
    }

    fn entity(self, certificate: &rcgen::Certificate) -> Entity {
        let parsed = Parsed::from_der(certificate.der(), Origin::file("/test.crt"), now()).unwrap();
        Entity { parsed, pem: certificate.pem(), key: self.key, params: self.params }
    }
}
