//! Where to connect, and as whom.

use std::{fmt, str::FromStr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use zeroize::Zeroize;

use crate::Error;

/// One client URL of one member, `http://HOST:PORT` or `https://HOST:PORT`. The scheme alone decides whether
/// it is spoken to with TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: String,
    host: String,
    port: u16,
    tls: bool,
}

impl Endpoint {
    /// Returns whether it is spoken to with TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Returns the host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads a URL as etcd accepts it for a client: a scheme in any case, a host, a port, no path.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::BadEndpoint { endpoint: text.chars().take(200).collect(), why };
        let (scheme, rest) =
            text.split_once("://").ok_or(bad("it has no scheme; write it as https://HOST:PORT"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(bad("its scheme is neither http nor https, and no other is supported")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) =
            authority.rsplit_once(':').ok_or(bad("it has no port; write it as https://HOST:PORT"))?;
        let port = port.parse().map_err(|_| bad("its port is not a number up to 65535"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if ServerName::try_from(host).is_err() || bracketed.is_some() != host.contains(':') {
            return Err(bad("its host is neither a name nor an address"));
        }
        let url = format!("{}://{authority}", if tls { "https" } else { "http" });
        Ok(Self { url, host: host.to_string(), port, tls })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// A certificate and its private key, both PEM, with which to authenticate.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, followed by its intermediates.
    pub certificates: &'a [u8],
    /// The private key: PKCS #8, PKCS #1 or SEC 1. The bytes stay the caller's to wipe.
    pub key: &'a [u8],
}

/// Whom to believe and whom to be on `https` endpoints. It holds the private key in the cryptographic library
/// alone and never prints it.
#[derive(Clone)]
pub struct Security(Option<Arc<ClientConfig>>);

impl Security {
    /// Returns the security of a cluster without client TLS: `https` endpoints are refused.
    pub fn plaintext() -> Self {
        Self(None)
    }

    /// Returns the security of a cluster whose members make up their own certificates (`--auto-tls`): it encrypts, and
    /// believes whoever answers, as etcd's own clients of such members do. It presents `identity` if the server asks.
    pub fn self_made(identity: Option<Identity<'_>>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let bad = |e: rustls::Error| Error::BadMaterial { what: "the TLS configuration", why: e.to_string() };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        Self::with(builder, identity)
    }

    /// Returns the security that believes servers whose certificate chains to one of the CA certificates in
    /// `ca` (PEM) and names the host, and presents `identity` if the server asks for one.
    pub fn tls(ca: &[u8], identity: Option<Identity<'_>>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the CA file", ca)? {
            let bad = |e: rustls::Error| Error::BadMaterial { what: "the CA file", why: e.to_string() };
            roots.add(certificate).map_err(bad)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let bad = |e: rustls::Error| Error::BadMaterial { what: "the TLS configuration", why: e.to_string() };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots);
        Self::with(builder, identity)
    }

    fn with(
        builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
        identity: Option<Identity<'_>>,
    ) -> Result<Self, Error> {
        let mut config = match identity {
            Some(identity) => identity.configure(builder)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would carry over who was believed before a certificate was changed.
        config.resumption = Resumption::disabled();
        Ok(Self(Some(Arc::new(config))))
    }

    pub(crate) fn config(&self) -> Option<Arc<ClientConfig>> {
        self.0.clone()
    }
}

/// Believes every certificate whose key signs the handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Security(TLS)" } else { "Security(plaintext)" })
    }
}

impl Identity<'_> {
    fn configure(
        self,
        builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, Error> {
        let bad = |why: String| Error::BadMaterial { what: "the client key", why };
        let chain = certificates("the client certificate", self.certificates)?;
        let mut der =
            PrivateKeyDer::from_pem_slice(self.key).map_err(|_| bad("no private key in PEM".into()))?;
        let key = aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        let key = key.map_err(|_| bad("it cannot be used for TLS".into()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| bad("it is not the key of the client certificate".into()))?;
        Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Error::BadMaterial { what, why: "no certificate in PEM".into() })
        }
        Ok(found) => Ok(found),
        Err(e) => Err(Error::BadMaterial { what, why: e.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_host_and_a_port() {
        for (text, url, host, tls) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379", "10.0.0.1", false),
            ("HTTPS://etcd-1.example:2379/", "https://etcd-1.example:2379", "etcd-1.example", true),
            ("https://[fd00::1]:2379", "https://[fd00::1]:2379", "fd00::1", true),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.host(), endpoint.is_tls()), (url, host, tls));
            assert_eq!(endpoint.port(), 2379);
        }
        for (text, why) in [
            ("10.0.0.1:2379", "no scheme"),
            ("unixs://etcd:2379", "neither http nor https"),
            ("http://10.0.0.1", "no port"),
            ("http://10.0.0.1:70000", "65535"),
            ("http://10.0.0.1:2379/v3", "65535"),
            ("http://:2379", "neither a name"),
            ("http://user@host:2379", "neither a name"),
            ("http://fd00::1:2379", "neither a name"),
            ("http://[10.0.0.1]:2379", "neither a name"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn security_is_checked_before_anything_is_sent() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let cert = CertificateParams::default().self_signed(&key).unwrap().pem();
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        let security = |ca: &str, certificates: &str, key: &str| {
            let identity = Identity { certificates: certificates.as_bytes(), key: key.as_bytes() };
            Security::tls(ca.as_bytes(), Some(identity))
        };
        for (ca, certificates, key, why) in [
            ("", &*cert, &*key, "the CA file"),
            (&cert.replace("MII", "!!!"), &cert, &key, "the CA file"),
            (&cert, &key, &key, "no certificate in PEM"),
            (&cert, &cert, &cert, "no private key in PEM"),
            (&cert, &cert, &other, "not the key of the client certificate"),
        ] {
            let error = security(ca, certificates, key).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains(key.lines().nth(1).unwrap()));
        }
        assert_eq!(format!("{:?}", security(&cert, &cert, &key).unwrap()), "Security(TLS)");
    }
}
