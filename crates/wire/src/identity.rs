//! Whom to be, and whom to believe.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize;

/// A certificate and its private key to authenticate with. The key is held by the cryptographic library only, and
/// never printed.
#[derive(Clone)]
pub struct ClientIdentity(pub(crate) Arc<CertifiedKey>);

impl ClientIdentity {
    /// Returns the identity of the certificates (leaf first) and the private key (PKCS#8, PKCS#1 or SEC1) in PEM. What
    /// was decoded from `key` is wiped; `key` itself is the caller's to wipe.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = certificates(chain)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let mut der = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
        let signing = any_supported_type(&der).map_err(|_| IdentityError::UnusableKey);
        der.zeroize();
        let identity = CertifiedKey::new(chain, signing?);
        match identity.keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(IdentityError::KeyMismatch)
            }
            _ => Ok(Self(Arc::new(identity))),
        }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

/// Which servers to believe.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Any, whatever its certificate says: for looking, not for trusting what it answers.
    Any,
    /// Those whose certificate chains to one of these and names the server.
    Trusted(Arc<RootCertStore>),
}

impl Roots {
    /// Returns the CA certificates in `pem`. One that cannot be used as a trust anchor is an error.
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(pem)? {
            store.add(certificate).map_err(|e| IdentityError::Malformed(e.to_string()))?;
        }
        if store.is_empty() { Err(IdentityError::NoCertificate) } else { Ok(Self::Trusted(Arc::new(store))) }
    }
}

/// Why PEM is not an identity or a set of roots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The private key is not the certificate's.
    #[error("the private key is not the certificate's")]
    KeyMismatch,
    /// A certificate cannot be decoded.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// There is no certificate in it.
    #[error("no certificate in the PEM")]
    NoCertificate,
    /// There is no private key in it.
    #[error("no private key in the PEM")]
    NoKey,
    /// The private key is of a kind that cannot sign for TLS.
    #[error("the private key cannot be used for TLS")]
    UnusableKey,
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| IdentityError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn an_identity_is_a_certificate_with_its_own_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let cert = CertificateParams::default().self_signed(&key).unwrap().pem();
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        let error = |cert: &str, key: &str| ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).err();
        assert_eq!(error(&cert, &key), None);
        assert_eq!(error(&cert, &other), Some(IdentityError::KeyMismatch));
        assert_eq!(error(&cert, &cert), Some(IdentityError::NoKey));
        assert_eq!(error(&key, &key), Some(IdentityError::NoCertificate));
        assert!(matches!(error(&cert.replace("MII", "!!!"), &key), Some(IdentityError::Malformed(_))));
        let identity = ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{identity:?}"), "ClientIdentity");
    }
}
