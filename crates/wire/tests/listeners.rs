//! Probes against real listeners in this process.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)] // helpers of tests are tests

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use seaworthy_evidence::{ClientCertificate, ErrorKind, Protocol, Wire};
use seaworthy_wire::{ClientIdentity, Options, Question, Roots, Security, Target, get, lets_in, probe};

/// A listener in this process.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicU32>,
    open: Arc<AtomicU32>,
}

impl Server {
    /// Serves each connection with `serve`, in a thread.
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), accepted: Arc::default(), open: Arc::default() };
        let (accepted, open) = (server.accepted.clone(), server.open.clone());
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for connection in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (serve, open) = (serve.clone(), open.clone());
                thread::spawn(move || {
                    serve(connection.unwrap());
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    fn tls(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::start(move |socket| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let _ = serve_http(&mut StreamOwned::new(session, socket));
        })
    }

    fn target(&self) -> Target {
        Target::tcp(self.address)
    }

    fn probe(&self) -> Wire {
        probe(&self.target(), &options()).unwrap()
    }

    /// Asserts that every connection that was made was counted and closed.
    fn assert_left(&self, wire: &Wire) {
        assert_eq!(self.accepted.load(Ordering::SeqCst), wire.connections);
        let patience = Instant::now() + Duration::from_secs(2);
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < patience, "a connection was left open");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn options() -> Options {
    Options { timeout: Duration::from_millis(400), ..Options::new(Timestamp::now()) }
}

/// Answers like the peer listener of etcd 3.5.1.
fn serve_http<S: Read + Write>(stream: &mut S) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        request.push(byte[0]);
        if request == [22] {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(());
        }
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        let path = text.strip_prefix("GET ").unwrap().split(' ').next().unwrap();
        let (status, body) = match path {
            "/version" => ("200 OK", r#"{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}"#),
            "/members" => ("200 OK", r#"[{"id":1,"peerURLs":["http://127.0.0.1:2380"]}]"#),
            _ => ("404 Not Found", "404 page not found\n"),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nX-Etcd-Cluster-Id: cdf818194e3a8c32\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        stream.flush()?;
    }
}

/// A CA and what it issues.
struct Ca(Issuer<'static, KeyPair>, CertificateDer<'static>, String);

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).unwrap();
        Self(Issuer::new(params, key), cert.der().clone(), cert.pem())
    }

    /// Issues a certificate for 127.0.0.1; returns it and its key in PEM.
    fn issue(&self, algorithm: &'static SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "m1");
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.1.clone()).unwrap();
        roots.into()
    }
}

fn tls_config(
    ca: &Ca,
    algorithm: &'static SignatureAlgorithm,
    versions: &[&'static SupportedProtocolVersion],
    auth: ClientCertificate,
) -> ServerConfig {
    use rustls_pki_types::pem::PemObject;
    let (cert, key) = ca.issue(algorithm);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider.clone());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = match auth {
        ClientCertificate::NotRequested => builder.with_no_client_auth(),
        ClientCertificate::Requested => {
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
        ClientCertificate::Required => builder.with_client_cert_verifier(verifier.build().unwrap()),
    };
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
}

#[test]
fn tls_listeners_are_recognised_whatever_they_demand() {
    use ClientCertificate::{NotRequested, Requested, Required};
    let ca = Ca::new("etcd, peer-ca");
    let (p256, p521) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512);
    let (rsa, ed25519) = (&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ED25519);
    let cases = [
        (p256, "ECDSA P-256", &[&TLS12, &TLS13][..], NotRequested),
        (p256, "ECDSA P-256", &[&TLS12, &TLS13], Requested),
        (p256, "ECDSA P-256", &[&TLS12, &TLS13], Required),
        (p256, "ECDSA P-256", &[&TLS12], NotRequested),
        (p256, "ECDSA P-256", &[&TLS12], Requested),
        (p256, "ECDSA P-256", &[&TLS12], Required),
        (p256, "ECDSA P-256", &[&TLS13], Required),
        (rsa, "RSA", &[&TLS12, &TLS13], Required),
        (p521, "ECDSA P-521", &[&TLS12, &TLS13], Required),
        (p521, "ECDSA P-521", &[&TLS12], NotRequested),
        (ed25519, "Ed25519", &[&TLS13], NotRequested),
    ];
    for (algorithm, key, versions, auth) in cases {
        let case = format!("{key} {versions:?} {auth:?}");
        let server = Server::tls(tls_config(&ca, algorithm, versions, auth));
        let wire = server.probe();
        server.assert_left(&wire);

        assert!(wire.speaks_only_tls() == Some(true), "{case}: {wire:?}");
        assert_eq!(wire.client_certificate, Some(auth), "{case}: {wire:?}");
        let cas = (auth != NotRequested).then(|| vec![r"CN=etcd\, peer-ca".to_owned()]);
        assert_eq!(wire.acceptable_cas, cas, "{case}");
        let subjects: Vec<_> = wire.chain.iter().map(|c| c.common_name.as_deref()).collect();
        assert_eq!(subjects, [Some("m1")], "{case}");
        assert_eq!(wire.chain[0].key.algorithm, key, "{case}");
        let identified = (auth != Required).then_some(true);
        assert_eq!(wire.raft, identified, "{case}");
        assert_eq!(wire.etcd_version.as_deref(), identified.and(Some("3.5.1")), "{case}");

        let has = |version| versions.iter().any(|v| v.version == version);
        let (tls12, tls13) = (has(rustls::ProtocolVersion::TLSv1_2), has(rustls::ProtocolVersion::TLSv1_3));
        let accepted: Vec<_> = wire.protocols.iter().map(|p| (p.version, p.accepted)).collect();
        let want = [
            (Protocol::Tls10, false),
            (Protocol::Tls11, false),
            (Protocol::Tls12, tls12),
            (Protocol::Tls13, tls13),
        ];
        assert_eq!(accepted, want, "{case}");
        let count = |version| wire.suites.iter().filter(|s| s.protocol == version).count();
        assert_eq!(count(Protocol::Tls12), if tls12 { 3 } else { 0 }, "{case}: {:?}", wire.suites);
        assert_eq!(count(Protocol::Tls13), if tls13 { 3 } else { 0 }, "{case}: {:?}", wire.suites);
        assert!(wire.suites.iter().all(|s| s.weak.is_none()), "{case}: {:?}", wire.suites);
        let mut groups = wire.groups;
        groups.sort();
        let hybrid = if tls13 { &["X25519MLKEM768"][..] } else { &[] };
        assert_eq!(groups, [hybrid, &["secp256r1", "secp384r1", "x25519"]].concat(), "{case}");
    }
}

#[test]
fn without_enumeration_two_connections_are_enough() {
    let ca = Ca::new("ca");
    let config =
        tls_config(&ca, &rcgen::PKCS_ECDSA_P256_SHA256, &[&TLS12, &TLS13], ClientCertificate::NotRequested);
    let server = Server::tls(config);
    let wire = probe(&server.target(), &Options { enumerate: false, ..options() }).unwrap();
    assert_eq!(wire.protocols.len(), 1);
    assert_eq!((wire.suites.len(), wire.groups.len()), (1, 1));
    assert_eq!(wire.connections, 2);
    server.assert_left(&wire);
}

#[test]
fn a_plaintext_peer_is_known_by_its_answer() {
    let server = Server::start(|mut socket| {
        let _ = serve_http(&mut socket);
    });
    let wire = server.probe();
    server.assert_left(&wire);
    assert!(wire.speaks_only_tls() == Some(false));
    assert_eq!(wire.raft, Some(true));
    assert_eq!(wire.etcd_version.as_deref(), Some("3.5.1"));
    assert_eq!(wire.spoke, "200 OK with the member list of cluster cdf818194e3a8c32");
    assert_eq!((wire.client_certificate, wire.acceptable_cas), (None, None));
    assert!(wire.protocols.is_empty() && wire.chain.is_empty());
    assert_eq!(wire.connections, 2);
}

#[test]
fn tls_and_plaintext_on_one_port_are_both_seen() {
    let ca = Ca::new("ca");
    let config =
        Arc::new(tls_config(&ca, &rcgen::PKCS_ECDSA_P256_SHA256, &[&TLS13], ClientCertificate::Required));
    let server = Server::start(move |mut socket| {
        let mut first = [0];
        let _ = match socket.peek(&mut first) {
            Ok(1) if first == [22] => {
                let session = ServerConnection::new(config.clone()).unwrap();
                serve_http(&mut StreamOwned::new(session, socket))
            }
            _ => serve_http(&mut socket),
        };
    });
    let wire = server.probe();
    assert!(wire.speaks_tls() && wire.serves_plaintext());
    assert_eq!(wire.client_certificate, Some(ClientCertificate::Required));
    assert_eq!(wire.raft, Some(true));
}

#[test]
fn a_web_server_that_wants_tls_does_not_serve_plaintext() {
    let ca = Ca::new("ca");
    let config =
        Arc::new(tls_config(&ca, &rcgen::PKCS_ECDSA_P256_SHA256, &[&TLS13], ClientCertificate::NotRequested));
    let server = Server::start(move |mut socket| {
        let mut first = [0];
        if socket.peek(&mut first).is_ok() && first == [22] {
            let session = ServerConnection::new(config.clone()).unwrap();
            let _ = serve_http(&mut StreamOwned::new(session, socket));
        } else {
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(
                b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            );
        }
    });
    let wire = server.probe();
    assert!(wire.speaks_only_tls() == Some(true));
    assert_eq!(wire.spoke, "200 OK with the member list of cluster cdf818194e3a8c32 over TLS1.3");
}

#[test]
fn a_web_server_whose_handshake_comes_to_no_end_is_not_known_to_serve_plaintext() {
    let server = Server::start(|mut socket| {
        let mut first = [0];
        if socket.peek(&mut first).is_ok() && first == [22] {
            // It takes the ClientHello, and says nothing until the prober has gone.
            let _ = socket.read_to_end(&mut Vec::new());
        } else {
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(
                b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            );
        }
    });
    let wire = server.probe();
    for said in [&wire.tls, &wire.plaintext] {
        assert_eq!(said.error().map(|error| error.kind), Some(ErrorKind::Timeout), "{wire:?}");
    }
}

#[test]
fn grpc_without_tls_is_plaintext() {
    let server = Server::start(|mut socket| {
        let mut preface = [0; 24];
        if socket.read_exact(&mut preface).is_ok() && preface.starts_with(b"PRI * HTTP/2.0") {
            let _ = socket.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0");
            let _ = socket.read(&mut [0; 64]);
        }
    });
    let wire = server.probe();
    assert!(wire.speaks_only_tls() == Some(false));
    assert_eq!(wire.spoke, "HTTP/2, which is gRPC");
    assert_eq!(wire.raft, None);
}

/// Answers ClientHellos of TLS 1.0 only, and chooses from these suites in this order.
const OLD: [u16; 3] = [0xc013, 0x000a, 0x0005];

fn serve_tls10(socket: &mut TcpStream) -> io::Result<()> {
    let mut header = [0; 5];
    socket.read_exact(&mut header)?;
    if header[0] != 22 {
        return Ok(());
    }
    let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    socket.read_exact(&mut hello)?;
    // Message header, version, random, session: then the suites.
    let session = usize::from(hello[38]);
    let suites = &hello[39 + session..];
    let length = usize::from(u16::from_be_bytes([suites[0], suites[1]]));
    let offered: Vec<u16> =
        suites[2..2 + length].chunks(2).map(|s| u16::from_be_bytes([s[0], s[1]])).collect();
    let chosen = OLD.iter().find(|s| offered.contains(s)).filter(|_| hello[4..6] == [3, 1]);
    let Some(chosen) = chosen else {
        let alert = if hello[4..6] == [3, 1] { 40 } else { 70 };
        return socket.write_all(&[21, 3, 1, 0, 2, 2, alert]);
    };
    let mut answer = vec![22, 3, 1, 0, 46, 2, 0, 0, 38, 3, 1];
    answer.extend([9; 32]);
    answer.push(0);
    answer.extend(chosen.to_be_bytes());
    answer.push(0);
    answer.extend([14, 0, 0, 0]);
    socket.write_all(&answer)?;
    socket.read(&mut [0; 16]).map(drop)
}

#[test]
fn old_protocols_and_weak_suites_are_found() {
    let server = Server::start(|mut socket| {
        let _ = serve_tls10(&mut socket);
    });
    let wire = server.probe();
    server.assert_left(&wire);
    assert!(wire.speaks_only_tls() == Some(true));
    assert_eq!(wire.spoke, "TLS, refusing a modern client: alert 70 (ProtocolVersion)");
    let accepted: Vec<_> = wire.protocols.iter().map(|p| (p.accepted, p.deprecated)).collect();
    assert_eq!(accepted, [(true, true), (false, true), (false, false), (false, false)]);
    let suites: Vec<_> =
        wire.suites.iter().map(|s| (s.id, s.name.as_str(), s.weak.as_deref().unwrap())).collect();
    let want = [
        (0xc013, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "CBC mode"),
        (
            0x000a,
            "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
            "64-bit block cipher (Sweet32), no forward secrecy, CBC mode",
        ),
        (0x0005, "TLS_RSA_WITH_RC4_128_SHA", "RC4, no forward secrecy"),
    ];
    assert_eq!(suites, want);
    assert_eq!(wire.client_certificate, None);
}

#[test]
fn bad_listeners_are_errors_in_bounded_time() {
    fn forever(mut socket: TcpStream, bytes: &[u8], start: &[u8]) {
        let _ = socket.write_all(start);
        while socket.write_all(bytes).is_ok() {}
    }
    let silent = Server::start(|socket| {
        thread::sleep(Duration::from_secs(5));
        drop(socket);
    });
    let endless = Server::start(|socket| forever(socket, &[b'A'; 4096], b""));
    let endless_http =
        Server::start(|socket| forever(socket, &[b'A'; 4096], b"HTTP/1.1 200 OK\r\nX-Header: "));
    let dripping = Server::start(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
        while socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let cases = [
        (
            Target::tcp(silent.address),
            ErrorKind::Timeout,
            "answered neither GET /version nor a TLS handshake",
        ),
        (Target::tcp(endless.address), ErrorKind::Malformed, "bytes without end"),
        (Target::tcp(endless_http.address), ErrorKind::Malformed, "headers without end"),
        (Target::tcp(dripping.address), ErrorKind::Timeout, "did not answer GET /version in time"),
        (Target::tcp(closed), ErrorKind::Io, "connection refused"),
        (Target::unix("/no/such.sock"), ErrorKind::NotFound, "no such socket"),
    ];
    for (target, kind, message) in cases {
        let started = Instant::now();
        let limit = Duration::from_millis(800);
        let error = probe(&target, &Options { limit, ..options() }).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(error.message.contains(&target.to_string()), "{error}");
        assert!(error.origin.is_some(), "{error}");
        assert!(started.elapsed() < limit + Duration::from_secs(5), "{error}: {:?}", started.elapsed());
    }
}

#[test]
fn listeners_that_speak_something_else_are_told() {
    let garbage = Server::start(|mut socket| {
        let _ = socket.write_all(b"SSH-2.0-OpenSSH_10.0\r\n");
        let _ = socket.read(&mut [0; 2048]);
    });
    let wire = garbage.probe();
    assert!([wire.tls.value(), wire.plaintext.value()] == [Some(&false); 2]);
    assert_eq!(wire.spoke, "something that is neither TLS nor HTTP: first bytes 53 53 48 2d 32 2e 30 2d");

    let echo = Server::start(|mut socket| {
        let mut bytes = [0; 2048];
        while let Ok(length @ 1..) = socket.read(&mut bytes) {
            let _ = socket.write_all(&bytes[..length]);
        }
    });
    let wire = echo.probe();
    assert!([wire.tls.value(), wire.plaintext.value()] == [Some(&false); 2], "{}", wire.spoke);

    let mute = Server::start(drop);
    let wire = mute.probe();
    assert!([wire.tls.value(), wire.plaintext.value()] == [Some(&false); 2]);
    assert_eq!(wire.spoke, "nothing: it closed the connection");
}

#[test]
fn a_handshake_that_stalls_is_still_tls() {
    let server = Server::start(|mut socket| {
        let mut first = [0];
        if socket.read(&mut first).is_ok() && first == [22] {
            // A record that promises a ServerHello.
            let _ = socket.write_all(&[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]);
            thread::sleep(Duration::from_secs(5));
        }
    });
    let wire = server.probe();
    assert!(wire.speaks_only_tls() == Some(true));
    assert_eq!(wire.client_certificate, None);
    assert_eq!(wire.spoke, "TLS, then nothing more in time");
    // Nothing is claimed about what was not answered.
    assert!(wire.protocols.is_empty(), "{:?}", wire.protocols);
    assert_eq!(wire.complete.error().unwrap().kind, ErrorKind::Timeout);
}

#[test]
fn what_was_not_answered_in_time_is_not_known() {
    const RECORD: u8 = 22;
    let silent_to = |silent: fn(u8) -> bool| {
        Server::start(move |mut socket| {
            let mut first = [0];
            if socket.read(&mut first).is_err() {
            } else if silent(first[0]) {
                thread::sleep(Duration::from_secs(5));
            } else if first == [RECORD] {
                let _ = socket.write_all(&[RECORD, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]);
            }
        })
    };
    let handshakes = silent_to(|first| first == RECORD).probe();
    assert_eq!(handshakes.plaintext.value(), Some(&false));
    let error = handshakes.tls.error().expect("not known");
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("a TLS handshake"), "{error}");

    let requests = silent_to(|first| first != RECORD).probe();
    assert!(requests.speaks_tls());
    let error = requests.plaintext.error().expect("not known");
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("GET /version"), "{error}");
    assert_eq!(requests.speaks_only_tls(), None);
}

#[test]
fn unix_sockets_are_probed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || serve_http(&mut socket.unwrap()));
        }
    });
    let wire = probe(&Target::unix(&path), &options()).unwrap();
    assert_eq!(wire.address, path.display().to_string());
    assert!(wire.speaks_only_tls() == Some(false));
    assert_eq!(wire.raft, Some(true));
}

#[test]
fn requests_are_made_with_the_nodes_own_identity() {
    let (ca, other_ca) = (Ca::new("ca"), Ca::new("other"));
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let config = tls_config(&ca, &rcgen::PKCS_ECDSA_P256_SHA256, versions, ClientCertificate::Required);
        let server = Server::tls(config);
        let (cert, key) = ca.issue(&rcgen::PKCS_ECDSA_P256_SHA256);
        let identity = ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        let roots = Roots::from_pem(ca.2.as_bytes()).unwrap();
        let ask = |target: &Target, roots, identity| {
            get(target, Security::Tls { roots, identity }, Question::Members, &options())
        };

        let response = ask(&server.target(), &roots, Some(&identity)).unwrap();
        assert_eq!((response.status, response.cluster_id()), (200, Some("cdf818194e3a8c32")));
        assert!(response.body.starts_with(b"[{"));
        assert!(ask(&server.target(), &Roots::Any, Some(&identity)).is_ok());
        assert_eq!(lets_in(&server.target(), &identity, &options()), Ok(true));
        let (cert, key) = other_ca.issue(&rcgen::PKCS_ECDSA_P256_SHA256);
        let stranger = ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(lets_in(&server.target(), &stranger, &options()), Ok(false));

        let untrusted = Roots::from_pem(other_ca.2.as_bytes()).unwrap();
        let failures = [
            (ask(&server.target(), &untrusted, Some(&identity)), "UnknownIssuer"),
            (ask(&server.target(), &roots, None), ""),
            (ask(&server.target().with_server_name("m2"), &roots, Some(&identity)), "not valid for name"),
        ];
        for (result, message) in failures {
            let error = result.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Io, "{error}");
            assert!(error.message.contains(message), "{error}");
        }
    }
}

#[test]
fn who_is_cut_off_without_an_alert_is_neither_let_in_nor_refused() {
    let ca = Ca::new("ca");
    let (cert, key) = ca.issue(&rcgen::PKCS_ECDSA_P256_SHA256);
    let identity = ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let server = Server::start(drop);
    assert_eq!(lets_in(&server.target(), &identity, &options()).unwrap_err().kind, ErrorKind::Io);
    assert!(server.accepted.load(Ordering::SeqCst) > 1, "it may be by chance");
}

#[test]
fn plaintext_requests_are_bounded() {
    let server = Server::start(|mut socket| {
        let _ = serve_http(&mut socket);
    });
    let response = get(&server.target(), Security::Plaintext, Question::Version, &options()).unwrap();
    assert_eq!(response.etcd_version().as_deref(), Some("3.5.1"));

    let large = Server::start(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n");
        let _ = socket.read(&mut [0; 2048]);
    });
    let error = get(&large.target(), Security::Plaintext, Question::Version, &options()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert!(error.message.contains("too long"), "{error}");
}
