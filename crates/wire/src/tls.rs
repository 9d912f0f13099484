//! Real handshakes with a server that need not be trusted.

use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{ClientIdentity, Roots};

/// aws-lc and not ring, which lacks the P-521 of etcd's automatic certificates.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// What a server said about itself and asked of us during a handshake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presented {
    /// Its certificates, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The DER-encoded names of the CAs it accepts, if it asked for a certificate.
    pub(crate) requested: Option<Vec<Vec<u8>>>,
}

/// Accepts every server, remembers what it presented, and has no certificate for it. That the server holds the key of
/// its certificate is verified all the same.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Presented>);

impl Recorder {
    pub(crate) fn presented(&self) -> Presented {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Presented)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(rest).map(|c| c.clone().into_owned()).collect();
        self.note(|presented| presented.chain = chain);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Recorder {
    fn resolve(&self, cas: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let cas = cas.iter().map(|name| name.to_vec()).collect();
        self.note(|presented| presented.requested = Some(cas));
        None
    }

    /// Without this the server's request is answered without asking.
    fn has_certs(&self) -> bool {
        true
    }
}

/// Returns a client for `name` that notes in `recorder` what it is told.
pub(crate) fn recording_client(
    name: ServerName<'static>,
    recorder: &Arc<Recorder>,
) -> Result<ClientConnection, rustls::Error> {
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_client_cert_resolver(recorder.clone());
    connection(config, name)
}

/// Returns a client for `name` that believes `roots` and authenticates with `identity`.
pub(crate) fn client(
    name: ServerName<'static>,
    roots: &Roots,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConnection, rustls::Error> {
    let verifier: Arc<dyn ServerCertVerifier> = match roots {
        Roots::Any => Arc::new(Recorder::default()),
        Roots::Trusted(store) => WebPkiServerVerifier::builder_with_provider(store.clone(), PROVIDER.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?,
    };
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some(ClientIdentity(key)) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
        }
        None => config.with_no_client_auth(),
    };
    connection(config, name)
}

/// Returns `N` unpredictable bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // If the system has no randomness, zeros do: these bytes protect nothing.
    let _ = PROVIDER.secure_random.fill(&mut bytes);
    bytes
}

/// A TLS session whose end without `close_notify` is an end and not an error.
pub(crate) struct Session<'a, S: Read + Write>(pub(crate) rustls::Stream<'a, ClientConnection, S>);

impl<S: Read + Write> Session<'_, S> {
    /// Completes the handshake.
    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(self.0.sock)?;
        }
        Ok(())
    }

    /// Returns the alert with which the other end has hung up, where it came before what was written last, and is still to be read.
    pub(crate) fn alert(&mut self) -> Option<io::Error> {
        loop {
            match self.0.conn.read_tls(self.0.sock) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Err(error) = self.0.conn.process_new_packets() {
                return Some(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self) {
        self.0.conn.send_close_notify();
        let _ = self.0.conn.write_tls(self.0.sock);
    }
}

impl<S: Read + Write> Read for Session<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            result => result,
        }
    }
}

impl<S: Read + Write> Write for Session<'_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns the TLS error inside of `error`.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Neither tickets nor ALPN: a probe does not come back, and etcd's peer listener negotiates an `h2` that it does not
/// speak.
fn connection(
    mut config: ClientConfig,
    name: ServerName<'static>,
) -> Result<ClientConnection, rustls::Error> {
    config.resumption = Resumption::disabled();
    ClientConnection::new(Arc::new(config), name)
}
