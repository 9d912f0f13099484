//! One gRPC call over a connection of its own.

use std::{io, marker::PhantomData, net::IpAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Ping, Reason, RecvStream, client::SendRequest};
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    runtime::Builder,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{Client, Endpoint, Error, Place, error::quote};

/// A gRPC method: what it is asked, and what it answers.
pub(crate) struct Method<Q, A> {
    path: &'static str,
    /// Whether the member must refuse if it has no leader.
    needs_leader: bool,
    types: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message + Default> Method<Q, A> {
    /// Returns a method that a member answers by itself.
    pub(crate) const fn local(path: &'static str) -> Self {
        Self { path, needs_leader: false, types: PhantomData }
    }

    /// Returns a method that takes a quorum.
    pub(crate) const fn clustered(path: &'static str) -> Self {
        Self { path, needs_leader: true, types: PhantomData }
    }

    /// Returns where something happens: this method at `endpoint`.
    pub(crate) fn at(&self, endpoint: &Endpoint) -> Place {
        let call = self.path.rsplit('/').next().unwrap_or(self.path);
        Place { call, endpoint: endpoint.to_string() }
    }

    /// Asks, and returns the one answer, within the client's deadline.
    pub(crate) fn call(&self, client: &Client, endpoint: &Endpoint, question: &Q) -> Result<A, Error> {
        let mut answer = None;
        self.exchange(client, endpoint, question, false, |message| {
            answer = Some(message);
            Ok(())
        })?;
        let none = || Failure::Malformed("it has no message".into()).at(self.at(endpoint));
        answer.ok_or_else(none)
    }

    /// Asks, and takes the answers until the server ends them. Each must come within the client's deadline.
    pub(crate) fn stream(
        &self,
        client: &Client,
        endpoint: &Endpoint,
        question: &Q,
        take: impl FnMut(A) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.exchange(client, endpoint, question, true, take)
    }

    fn exchange(
        &self,
        client: &Client,
        endpoint: &Endpoint,
        question: &Q,
        streaming: bool,
        mut take: impl FnMut(A) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let system = |source| Error::System { what: "start an event loop", source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(system)?;
        let limit = client.timeouts().call;
        let result = runtime.block_on(async {
            let fail = |failure: Failure| {
                match failure {
                    // It was given no deadline.
                    Failure::Status { code: CANCELLED, message } if streaming => Failure::Broken(message),
                    other => other,
                }
                .at(self.at(endpoint))
            };
            let sender = connect(client, endpoint).await.map_err(fail)?;
            let late = |_| fail(Failure::Timeout(format!("no answer within {limit:.1?}")));
            let mut deadline = Instant::now() + limit;
            let request = self.request(endpoint, (!streaming).then_some(limit)).map_err(fail)?;
            let answers = timeout_at(deadline, ask(sender, request, question));
            let mut answers = answers.await.map_err(late)?.map_err(fail)?;
            while let Some(message) =
                timeout_at(deadline, answers.next()).await.map_err(late)?.map_err(fail)?
            {
                take(A::decode(message).map_err(|e| fail(Failure::Malformed(e.to_string())))?)?;
                if streaming {
                    deadline = Instant::now() + limit;
                }
            }
            Ok(())
        });
        // A name may still be looked up in a thread: do not wait for it.
        runtime.shutdown_background();
        result
    }

    fn request(&self, endpoint: &Endpoint, limit: Option<Duration>) -> Result<Request<()>, Failure> {
        let mut request = Request::post(format!("{endpoint}{}", self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(limit) = limit {
            // At most eight digits, says gRPC: 27 hours.
            request = request.header("grpc-timeout", format!("{}m", limit.as_millis().min(99_999_999)));
        }
        if self.needs_leader {
            request = request.header("hasleader", "true");
        }
        request.body(()).map_err(|e| Failure::Unreachable(e.to_string()))
    }
}

/// The most bytes that one message of an answer may have. etcd's own limit for a request is 1.5 MiB by
/// default.
const MAX_MESSAGE: usize = 4 << 20;

/// The most bytes that the headers or trailers of an answer may have.
const MAX_HEADERS: u32 = 16 << 10;

/// The gRPC status with which a server ends a call whose deadline has passed, which may be heard before it has passed here.
/// grpc-go does so by resetting the stream since 1.72 (`http2_server.go`), or by the status of a handler that noticed in time.
const CANCELLED: u32 = 1;

/// What went wrong, before it is known where.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Broken(String),
    Malformed(String),
    RefusedIdentity(String),
    Status { code: u32, message: String },
    Timeout(String),
    Unreachable(String),
    Untrusted(String),
}

impl Failure {
    fn at(self, place: Place) -> Error {
        match self {
            Self::Broken(why) => Error::Interrupted { place, why },
            Self::Malformed(why) => Error::Malformed { place, why },
            Self::RefusedIdentity(why) => Error::RefusedIdentity { place, why },
            Self::Status { code, message } => status(place, code, message),
            Self::Timeout(why) => Error::Timeout { place, why },
            Self::Unreachable(why) => Error::Unreachable { place, why },
            Self::Untrusted(why) => Error::UntrustedServer { place, why },
        }
    }
}

/// Returns what a gRPC status other than OK means. etcd's are in `api/v3rpc/rpctypes/error.go`: code 14 is
/// both "nothing was done" and "who knows", so the text decides. Codes 2 and 13 are those of what nobody foresaw; etcd up to
/// 3.5 gives 2 also to a deadline that has passed (`togRPCError` leaves that to grpc-go, which did not know it then).
fn status(place: Place, code: u32, message: String) -> Error {
    let told = |text: &str| message.contains(text);
    let late = match code {
        2 => told("context deadline exceeded") || told("context canceled"),
        CANCELLED | 4 => true,
        14 => told("timed out"),
        _ => false,
    };
    match code {
        _ if late => Error::Timeout { place, why: format!("etcd gave up: {message}") },
        2 | 13 => Error::Interrupted { place, why: message },
        5 => Error::NotFound { place, message },
        7 | 16 => Error::PermissionDenied { place, message },
        14 if told("no leader") => Error::NoLeader { place },
        14 if told("leader changed") || told("server stopped") => Error::Interrupted { place, why: message },
        3 if told("user name is empty") => Error::PermissionDenied { place, message },
        _ => Error::Refused { place, code, message },
    }
}

/// Returns a connection over which the server has answered: it speaks HTTP/2, and accepts who we are.
async fn connect(client: &Client, endpoint: &Endpoint) -> Result<SendRequest<Bytes>, Failure> {
    let limit = client.timeouts().connect;
    let open = async {
        let tcp = TcpStream::connect((endpoint.host(), endpoint.port())).await;
        let tcp = tcp.map_err(|e| Failure::Unreachable(e.to_string()))?;
        let _ = tcp.set_nodelay(true);
        if !endpoint.is_tls() {
            let hint = "; if it speaks TLS, write https://";
            return greet(tcp).await.map_err(|failure| match failure {
                Failure::Unreachable(why) => Failure::Unreachable(why + hint),
                other => other,
            });
        }
        let Some(config) = client.security().config() else {
            return Err(Failure::Unreachable("an https endpoint needs a CA to verify it with".into()));
        };
        let name = match endpoint.host().parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(endpoint.host().to_string())
                .map_err(|e| Failure::Unreachable(e.to_string()))?,
        };
        let connector = TlsConnector::from(config);
        let tls = connector.connect(name.clone(), tcp).await.map_err(|e| handshake(&e))?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Failure::Unreachable("it speaks TLS, but not HTTP/2".into()));
        }
        match greet(tls).await {
            Err(failure) => Err(refusal(endpoint, &connector, name).await.unwrap_or(failure)),
            sender => sender,
        }
    };
    let late = |_| Failure::Unreachable(format!("no connection within {limit:.1?}"));
    timeout(limit, open).await.map_err(late)?
}

/// Starts HTTP/2 and waits until the server has answered a ping.
async fn greet<T>(io: T) -> Result<SendRequest<Bytes>, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(MAX_HEADERS)
        .enable_push(false)
        .handshake(io);
    let (sender, mut connection) = handshake.await.map_err(|e| Failure::Unreachable(e.to_string()))?;
    let ping = connection.ping_pong();
    let driver = tokio::spawn(connection);
    let Some(mut ping) = ping else { return Err(Failure::Unreachable("no ping".into())) };
    if ping.ping(Ping::opaque()).await.is_err() {
        let why = match driver.await {
            Ok(Err(error)) => error.to_string(),
            _ => "the server closed the connection".into(),
        };
        return Err(Failure::Unreachable(why));
    }
    Ok(sender)
}

/// Returns how the server refuses us after the handshake, if it does.
///
/// With TLS 1.3 it does so when the client has already begun to write, and that write is what fails. So it is
/// asked again, by a client that only listens.
async fn refusal(
    endpoint: &Endpoint,
    connector: &TlsConnector,
    name: ServerName<'static>,
) -> Option<Failure> {
    let listen = async {
        let tcp = TcpStream::connect((endpoint.host(), endpoint.port())).await.ok()?;
        let mut tls = connector.connect(name, tcp).await.ok()?;
        let error = tls.read(&mut [0]).await.err()?;
        Some(handshake(&error)).filter(|failure| matches!(failure, Failure::RefusedIdentity(_)))
    };
    timeout(Duration::from_millis(500), listen).await.ok()?
}

/// Returns why a TLS handshake failed.
fn handshake(error: &io::Error) -> Failure {
    use AlertDescription as Alert;
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Failure::Untrusted("it was not issued by the given CA".into())
        }
        Some(rustls::Error::InvalidCertificate(why)) => Failure::Untrusted(quote(&why.to_string())),
        Some(rustls::Error::AlertReceived(
            alert @ (Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate),
        )) => Failure::RefusedIdentity(format!("TLS alert {alert:?}")),
        Some(rustls::Error::InvalidMessage(_)) => {
            Failure::Unreachable("it does not speak TLS; if it speaks plaintext, write http://".into())
        }
        _ => Failure::Unreachable(format!("TLS handshake: {error}")),
    }
}

/// Sends the one question.
async fn ask(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    question: &impl Message,
) -> Result<Answers, Failure> {
    let mut sender = sender.ready().await.map_err(|e| Failure::Unreachable(e.to_string()))?;
    let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(frame(question), true).map_err(broken)?;
    let (head, body) = response.await.map_err(broken)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failure::Malformed(format!("HTTP status {}", head.status)));
    }
    Ok(Answers { body, buffer: BytesMut::new(), head: head.headers, _sender: sender })
}

/// Returns why a call ended without trailers. A stream that the server cancelled has that for its status, as gRPC over HTTP/2
/// says.
fn broken(error: h2::Error) -> Failure {
    if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::CANCEL) {
        return Failure::Status { code: CANCELLED, message: "the server cancelled the call".into() };
    }
    Failure::Broken(quote(&error.to_string()))
}

/// Returns a message as gRPC sends it: not compressed, its length, itself.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// Takes the first message off `buffer`, if it is complete.
fn unframe(buffer: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Some(&[compressed, a, b, c, d]) = buffer.first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 {
        return Err(Failure::Malformed("a compressed message".into()));
    }
    if length > MAX_MESSAGE {
        return Err(Failure::Malformed(format!("a message of {length} bytes, more than {MAX_MESSAGE}")));
    }
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    Ok(Some(buffer.split_to(5 + length).freeze().slice(5..)))
}

/// What the server answers, message by message.
struct Answers {
    body: RecvStream,
    buffer: BytesMut,
    head: HeaderMap,
    /// The connection lasts as long as this.
    _sender: SendRequest<Bytes>,
}

impl Answers {
    /// Returns the next message, `None` at an end with status OK.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = unframe(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let Some(chunk) = self.body.data().await else { break };
            let chunk = chunk.map_err(broken)?;
            self.body.flow_control().release_capacity(chunk.len()).map_err(broken)?;
            self.buffer.extend_from_slice(&chunk);
        }
        // Without any message the trailers may come as the headers.
        let trailers = self.body.trailers().await.map_err(broken)?;
        outcome(trailers.as_ref().unwrap_or(&self.head))?;
        if self.buffer.is_empty() { Ok(None) } else { Err(Failure::Malformed("half a message".into())) }
    }
}

/// Returns what the trailers say about the call.
fn outcome(trailers: &HeaderMap) -> Result<(), Failure> {
    let code = trailers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    let message = trailers.get("grpc-message").map(|message| percent_decoded(message.as_bytes()));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Status { code, message: quote(&message.unwrap_or_default()) }),
        None => Err(Failure::Malformed("it has no gRPC status".into())),
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<2>().filter(|_| first == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(first));
        rest = if byte.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::*;
    use crate::message::LeaseRequest;

    #[test]
    fn messages_are_framed() {
        let mut buffer = BytesMut::from(&frame(&LeaseRequest { id: 0x1234 })[..]);
        assert_eq!(&buffer[..], b"\0\0\0\0\x03\x08\xb4\x24");
        buffer.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\x02x");
        assert_eq!(unframe(&mut buffer).unwrap().unwrap(), &b"\x08\xb4\x24"[..]);
        assert_eq!(unframe(&mut buffer).unwrap().unwrap(), &b""[..]);
        assert_eq!(unframe(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"y");
        assert_eq!(unframe(&mut buffer).unwrap().unwrap(), &b"xy"[..]);
        assert_eq!(unframe(&mut buffer), Ok(None));
        for (bytes, why) in [(&b"\x01\0\0\0\0"[..], "compressed"), (b"\0\xff\0\0\0", "more than")] {
            let error = unframe(&mut BytesMut::from(bytes)).unwrap_err();
            assert!(matches!(&error, Failure::Malformed(text) if text.contains(why)), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(bytes: Vec<u8>, trailer in "[ -~]*") {
            let mut buffer = BytesMut::from(bytes.as_slice());
            let mut left = buffer.len();
            while let Ok(Some(message)) = unframe(&mut buffer) {
                assert_eq!(left, 5 + message.len() + buffer.len());
                left = buffer.len();
            }
            percent_decoded(&bytes);
            let mut trailers = HeaderMap::new();
            for name in ["grpc-status", "grpc-message"] {
                trailers.insert(name, trailer.parse().unwrap());
            }
            let _ = outcome(&trailers);
        }
    }

    #[test]
    fn a_server_ends_a_call_by_cancelling_it_or_otherwise() {
        let answer = |reason: Reason| {
            let (near, far) = tokio::io::duplex(1 << 16);
            let serve = async move {
                let mut server = h2::server::handshake(far).await.unwrap();
                while let Some(Ok((_, mut respond))) = server.accept().await {
                    respond.send_reset(reason);
                }
            };
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                tokio::spawn(serve);
                let sender = greet(near).await.unwrap();
                let request = Request::post("http://etcd/etcdserverpb.KV/Put").body(()).unwrap();
                ask(sender, request, &LeaseRequest { id: 1 }).await.err()
            })
        };
        let message = "the server cancelled the call".to_owned();
        assert_eq!(answer(Reason::CANCEL), Some(Failure::Status { code: CANCELLED, message }));
        assert!(matches!(answer(Reason::INTERNAL_ERROR), Some(Failure::Broken(_))));
    }

    #[test]
    fn trailers_tell_the_outcome() {
        let told = |code: Option<&'static str>, message: &'static str| {
            let mut trailers = HeaderMap::new();
            code.map(|code| trailers.insert("grpc-status", code.parse().unwrap()));
            trailers.insert("grpc-message", message.parse().unwrap());
            trailers.insert("grpc-status-details-bin", "not base64!".parse().unwrap());
            outcome(&trailers)
        };
        assert_eq!(told(Some("0"), ""), Ok(()));
        let message = "context canceled".to_owned();
        assert_eq!(told(Some("1"), "context canceled"), Err(Failure::Status { code: CANCELLED, message }));
        assert!(matches!(told(None, ""), Err(Failure::Malformed(_))));
        assert!(matches!(told(Some("-1"), ""), Err(Failure::Malformed(_))));
        for (sent, message) in [
            ("etcdserver: no leader", "etcdserver: no leader"),
            ("100%25 %C3%A9 %1b[31m", "100% é \u{fffd}[31m"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%ff", "%zz\u{fffd}"),
        ] {
            let message = message.to_string();
            assert_eq!(told(Some("14"), sent), Err(Failure::Status { code: 14, message }));
        }
    }

    #[test]
    fn a_deadline_that_passed_at_the_server_is_a_timeout() {
        let passed = ["context deadline exceeded", "context canceled"];
        for (code, message) in [(CANCELLED, passed[1]), (2, passed[0]), (2, passed[1]), (4, passed[0])] {
            let place = Place { call: "Put", endpoint: "http://10.0.0.1:2379".into() };
            let error = status(place, code, message.into());
            assert!(matches!(error, Error::Timeout { .. }), "{code}: {error:?}");
        }
    }

    #[test]
    fn a_status_says_whether_something_may_have_happened() {
        let place = || Place { call: "Put", endpoint: "http://10.0.0.1:2379".into() };
        for (code, message, unsent, maybe) in [
            (14, "etcdserver: no leader", true, false),
            (14, "etcdserver: request timed out, possibly due to connection lost", false, true),
            (4, "etcdserver: context deadline exceeded", false, true),
            (1, "context canceled", false, true),
            (2, "context deadline exceeded", false, true),
            (2, "context canceled", false, true),
            (2, "raft: stopped", false, true),
            (13, "transport: the stream is done", false, true),
            (14, "etcdserver: leader changed", false, true),
            (14, "etcdserver: unhealthy cluster", false, false),
            (5, "etcdserver: member not found", false, false),
            (7, "etcdserver: permission denied", false, false),
            (3, "etcdserver: user name is empty", false, false),
            (9, "etcdserver: not leader", false, false),
        ] {
            let error = status(place(), code, message.into());
            assert_eq!((error.was_not_sent(), error.may_have_happened()), (unsent, maybe), "{error}");
            assert!(error.to_string().starts_with("Put at http://10.0.0.1:2379: "), "{error}");
        }
    }
}
