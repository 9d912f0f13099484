//! The whole interview of one listener.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{NamedGroup, ProtocolVersion};
use seaworthy_evidence::{
    Certificate, ClientCertificate, ErrorKind, EvidenceError, Observed, Protocol, ProtocolSupport, Suite,
    Wire,
};

use crate::connection::{Connection, Connector, is_hang_up, is_timeout};
use crate::enumerate::{self, Accepted};
use crate::flight::begins_like_record;
use crate::http::{HttpError, HttpResponse, Question, ask};
use crate::join::join;
use crate::tls::{Presented, Recorder, Session, recording_client, tls_error};
use crate::{Options, Target, registry};

/// Returns what the listener at `target` speaks.
///
/// It gets a plaintext request and a TLS handshake at the same time. If it speaks TLS, and
/// [`Options::enumerate`] is set, it is then asked for every protocol version, cipher suite and group, in parallel.
///
/// # Errors
///
/// [`ErrorKind::Io`] when the connection is refused, [`ErrorKind::Timeout`] when it answers neither question in time,
/// [`ErrorKind::Malformed`] when it answers with bytes without end.
pub fn probe(target: &Target, options: &Options) -> Result<Wire, EvidenceError> {
    let started = Instant::now();
    let connector = Connector::new(target, options);
    let (plain, tls) = join(|| plaintext(&connector), || handshake(&connector));
    let speaks_tls = tls.as_ref().is_ok_and(|tls| tls.speaks);
    let (plain, tls) = match (plain, tls) {
        // Go's HTTP server refuses so what should have been TLS: an answer, but no service.
        (Ok(Plain::Http(http)), tls) if http.status == 400 && speaks_tls => (Ok(Plain::Nothing), tls),
        // Whether it is that is not known where the handshake came to no end.
        (Ok(Plain::Http(http)), Err(error)) if http.status == 400 => (Err(error.clone()), Err(error)),
        (Err(error), Err(tls)) => return Err(neither(error, Some(tls), target)),
        (Err(error), Ok(tls)) if !tls.speaks => return Err(neither(error, None, target)),
        asked => asked,
    };
    let serves = |plain: &Plain| matches!(plain, Plain::Http(_) | Plain::Http2);
    let told = |told: Result<bool, &EvidenceError>, asked: &str| {
        Observed::from_result(told.map_err(Clone::clone), target.origin(asked))
    };

    let mut wire = Wire {
        address: target.to_string(),
        tls: told(tls.as_ref().map(|tls| tls.speaks), HANDSHAKE),
        plaintext: told(plain.as_ref().map(serves), &Question::Version.to_string()),
        complete: told(Ok(true), HANDSHAKE),
        spoke: spoke(plain.as_ref().unwrap_or(&Plain::Nothing), tls.as_ref().ok().filter(|tls| tls.speaks)),
        raft: None,
        etcd_version: None,
        protocols: Vec::new(),
        suites: Vec::new(),
        groups: Vec::new(),
        client_certificate: None,
        acceptable_cas: None,
        chain: Vec::new(),
        milliseconds: 0,
        connections: 0,
    };
    let tls = tls.ok().filter(|tls| tls.speaks);
    let answers =
        [plain.as_ref().ok().and_then(Plain::http), tls.as_ref().and_then(|tls| tls.served.as_ref())];
    for answer in answers.into_iter().flatten() {
        wire.raft = wire.raft.or(answer.raft);
        wire.etcd_version = wire.etcd_version.or(answer.etcd_version.clone());
    }
    if let Some(tls) = tls {
        wire.client_certificate = tls.client_certificate;
        wire.acceptable_cas = tls.presented.requested.as_ref().map(|cas| {
            let name = |der: &Vec<u8>| {
                seaworthy_pki::distinguished_name(der).unwrap_or_else(|| "a malformed name".to_owned())
            };
            cas.iter().map(name).collect()
        });
        match chain(&tls.presented, target, options) {
            Ok(chain) => wire.chain = chain,
            Err(_) => wire.spoke.push_str(", with a certificate that cannot be parsed"),
        }
        let accepted = if options.enumerate { enumerate(&connector, tls.version) } else { tls.negotiated() };
        let untried = match options.enumerate {
            false => Some((ErrorKind::Unsupported, "was asked for one handshake only")),
            true if connector.expired() => Some((
                ErrorKind::Timeout,
                "answers too slowly to try every protocol version and cipher suite in time",
            )),
            true if accepted.iter().any(|(_, accepted)| accepted.unanswered) => Some((
                ErrorKind::Timeout,
                "left some of the handshakes without an answer, and may accept more than what was seen",
            )),
            true => None,
        };
        if let Some((kind, why)) = untried {
            let error = EvidenceError::new(kind, format!("{target} {why}"));
            wire.complete = Observed::failed(error.at(target.origin(HANDSHAKE)));
        }
        wire.groups = groups(&accepted);
        for (version, accepted) in accepted {
            let deprecated = version <= Protocol::Tls11;
            wire.protocols.extend(accepted.version.map(|accepted| ProtocolSupport {
                version,
                accepted,
                deprecated,
            }));
            wire.suites.extend(accepted.suites.into_iter().map(|id| {
                let name = registry::suite_name(id);
                Suite { protocol: version, id, weak: registry::weakness(&name), name }
            }));
        }
    }
    wire.connections = connector.made();
    wire.milliseconds = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
    Ok(wire)
}

/// Returns the certificates that the listener at `target` serves, leaf first, as they came: nothing is verified, and no
/// certificate is presented.
///
/// # Errors
///
/// When it does not speak TLS, or serves what cannot be parsed.
pub fn served(target: &Target, options: &Options) -> Result<Vec<seaworthy_pki::Parsed>, EvidenceError> {
    let presented = handshake(&Connector::new(target, options))?.presented;
    let origin = target.origin("TLS handshake");
    let chain = presented.chain.iter();
    chain.map(|der| seaworthy_pki::Parsed::from_der(der, origin.clone(), options.now)).collect()
}

/// What a listener is asked beside requests.
const HANDSHAKE: &str = "a TLS handshake";
/// The probe's questions have short answers.
const MAX_ANSWER: usize = 64 << 10;
const MAX_BODY: usize = 32 << 10;

/// The answer to a plaintext request.
enum Plain {
    Http(Answer),
    /// HTTP/2, which is gRPC here.
    Http2,
    /// It closed the connection, or answered with a TLS alert.
    Nothing,
    /// Something else that began with these bytes.
    Other(Vec<u8>),
}

impl Plain {
    fn http(&self) -> Option<&Answer> {
        match self {
            Self::Http(answer) => Some(answer),
            _ => None,
        }
    }
}

/// What a listener told about itself over HTTP.
struct Answer {
    status: u16,
    /// What it answered, for people.
    summary: String,
    etcd_version: Option<String>,
    raft: Option<bool>,
}

/// The answer to a TLS handshake.
#[derive(Default)]
struct Tls {
    /// Whether it answered with a TLS record at all.
    speaks: bool,
    version: Option<Protocol>,
    suite: Option<u16>,
    group: Option<u16>,
    presented: Presented,
    client_certificate: Option<ClientCertificate>,
    served: Option<Answer>,
    /// How the conversation ended, if not with an answer to the request.
    end: Option<End>,
}

/// How a TLS conversation ended before its time.
enum End {
    Alert(String),
    HangUp,
    Other(String),
    Timeout,
}

impl Tls {
    /// Returns what was accepted in the one handshake.
    fn negotiated(&self) -> Vec<(Protocol, Accepted)> {
        let accepted = Accepted {
            version: Some(true),
            suites: self.suite.into_iter().collect(),
            groups: self.group.into_iter().collect(),
            unanswered: false,
        };
        self.version.map(|version| (version, accepted)).into_iter().collect()
    }
}

/// Asks in plaintext: HTTP/1.1, then, if the connection is only closed, HTTP/2.
fn plaintext(connector: &Connector<'_>) -> Result<Plain, EvidenceError> {
    let target = connector.target;
    let asked = Question::Version.to_string();
    let failure = |e: &std::io::Error| target.failure(&asked, e);
    let mut connection = connector.connect(MAX_ANSWER).map_err(|e| failure(&e))?;
    let (host, mut buffer) = (target.host(), Vec::new());
    match ask(&mut connection, &mut buffer, &host, Question::Version, MAX_BODY) {
        Ok(version) => {
            let mut members = ask(&mut connection, &mut buffer, &host, Question::Members, MAX_BODY);
            if members.is_err()
                && let Ok(mut again) = connector.connect(MAX_ANSWER)
            {
                members = ask(&mut again, &mut Vec::new(), &host, Question::Members, MAX_BODY);
            }
            Ok(Plain::Http(Answer::new(&version, members.ok().as_ref())))
        }
        Err(HttpError::TooLong { status }) => Ok(Plain::Http(Answer::of_status(status, status.to_string()))),
        Err(HttpError::NotHttp) => {
            let first = connection.first().to_vec();
            if is_http2(&first) {
                connection.finish();
                Ok(Plain::Http2)
            } else if begins_like_record(&first) {
                Ok(Plain::Nothing)
            } else {
                drain(&mut connection).map_err(|e| failure(&e))?;
                Ok(Plain::Other(first))
            }
        }
        Err(HttpError::Closed) => Ok(http2(connector)),
        Err(HttpError::Io(e)) if is_hang_up(&e) => Ok(http2(connector)),
        Err(HttpError::Io(e)) => Err(failure(&e)),
        Err(HttpError::Malformed(what)) => {
            let message = format!("{target} answered {asked} with malformed HTTP: {what}");
            Err(EvidenceError::new(ErrorKind::Malformed, message).at(target.origin(asked)))
        }
    }
}

/// Asks for HTTP/2 without TLS (RFC 9113 §3.3), which is what a listener for gRPC alone speaks.
fn http2(connector: &Connector<'_>) -> Plain {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let Ok(mut connection) = connector.connect(MAX_ANSWER) else { return Plain::Nothing };
    let mut chunk = [0; 512];
    if connection.write_all(PREFACE).is_err() {
        return Plain::Nothing;
    }
    while connection.first().len() < 9 && matches!(connection.read(&mut chunk), Ok(n) if n > 0) {}
    if !is_http2(connection.first()) {
        return Plain::Nothing;
    }
    connection.finish();
    Plain::Http2
}

/// Returns whether `first` is the header of a SETTINGS frame, with which every HTTP/2 server begins.
fn is_http2(first: &[u8]) -> bool {
    matches!(*first, [0, high, low, 4, 0, 0, 0, 0, 0] if u16::from_be_bytes([high, low]) % 6 == 0)
}

/// Reads until the listener falls silent. Fails if it never does.
fn drain(connection: &mut Connection) -> std::io::Result<()> {
    connection.hurry(Duration::from_millis(50));
    let mut chunk = [0; 8 << 10];
    loop {
        match connection.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if is_hang_up(&e) || is_timeout(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Shakes hands without a certificate, and asks who is there. A connection that is only closed is tried again, because
/// now and then that happens in place of an alert.
fn handshake(connector: &Connector<'_>) -> Result<Tls, EvidenceError> {
    let tls = handshake_once(connector)?;
    if matches!(tls.end, Some(End::HangUp)) && tls.presented.requested.is_some() {
        return handshake_once(connector);
    }
    Ok(tls)
}

fn handshake_once(connector: &Connector<'_>) -> Result<Tls, EvidenceError> {
    let target = connector.target;
    let recorder = Arc::new(Recorder::default());
    let mut client = recording_client(target.tls_name()?, &recorder)
        .map_err(|e| EvidenceError::new(ErrorKind::Unsupported, e.to_string()))?;
    let mut connection = connector.connect(MAX_ANSWER).map_err(|e| target.failure(HANDSHAKE, &e))?;

    let mut session = Session(rustls::Stream::new(&mut client, &mut connection));
    let (host, mut buffer) = (target.host(), Vec::new());
    let shaken = session.handshake();
    let finished = shaken.is_ok();
    // The refusal of a client without certificate comes after the handshake in TLS 1.3: only a read finds it.
    let answer = shaken
        .map_err(HttpError::Io)
        .and_then(|()| ask(&mut session, &mut buffer, &host, Question::Version, MAX_BODY));
    let members = answer
        .is_ok()
        .then(|| ask(&mut session, &mut buffer, &host, Question::Members, MAX_BODY).ok())
        .flatten();
    session.close();

    let presented = recorder.presented();
    let served = match &answer {
        Ok(version) => Some(Answer::new(version, members.as_ref())),
        Err(HttpError::TooLong { status }) => Some(Answer::of_status(*status, status.to_string())),
        Err(_) => None,
    };
    let end = match answer {
        Ok(_) | Err(HttpError::TooLong { .. }) => None,
        Err(HttpError::Closed) => Some(End::HangUp),
        Err(HttpError::Io(e)) => Some(End::of(&e)),
        Err(e) => Some(End::Other(e.to_string())),
    };
    let client_certificate = match (&presented.requested, &end) {
        (None, _) => finished.then_some(ClientCertificate::NotRequested),
        (Some(_), Some(End::Alert(_) | End::HangUp)) => Some(ClientCertificate::Required),
        (Some(_), Some(End::Other(_))) => finished.then_some(ClientCertificate::Requested),
        (Some(_), Some(End::Timeout)) => None,
        (Some(_), None) => Some(ClientCertificate::Requested),
    };
    let speaks = begins_like_answer(connection.first());
    if connection.first().is_empty() && matches!(end, Some(End::Timeout)) {
        return Err(target.failure(HANDSHAKE, &std::io::ErrorKind::TimedOut.into()));
    }
    Ok(Tls {
        speaks,
        version: client.protocol_version().and_then(protocol),
        suite: client.negotiated_cipher_suite().map(|suite| suite.suite().into()),
        group: client.negotiated_key_exchange_group().map(|group| NamedGroup::into(group.name())),
        presented,
        client_certificate,
        served,
        end,
    })
}

/// Returns whether `first` is what a TLS server begins with: a record, but not our own ClientHello sent back.
fn begins_like_answer(first: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let echo = matches!(*first, [HANDSHAKE, _, _, _, _, CLIENT_HELLO, ..]);
    first.len() >= 5 && begins_like_record(first) && !echo
}

impl End {
    fn of(error: &std::io::Error) -> Self {
        match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => {
                Self::Alert(format!("alert {} ({alert:?})", u8::from(*alert)))
            }
            Some(other) => Self::Other(other.to_string()),
            None if is_hang_up(error) => Self::HangUp,
            None if is_timeout(error) => Self::Timeout,
            None => Self::Other(error.to_string()),
        }
    }
}

impl Answer {
    fn new(version: &HttpResponse, members: Option<&HttpResponse>) -> Self {
        let etcd_version = version.etcd_version().filter(|_| version.status == 200);
        let raft = members.map(HttpResponse::is_member_list);
        let summary = match (members.filter(|m| m.is_member_list()), &etcd_version) {
            (Some(members), _) => match members.cluster_id() {
                Some(id) => format!("{} with the member list of cluster {id}", members.status_line()),
                None => format!("{} with a member list", members.status_line()),
            },
            (None, Some(etcd)) => format!("{} from etcd {etcd}", version.status_line()),
            (None, None) => format!("{} to {}", version.status_line(), Question::Version),
        };
        Self { etcd_version, raft, ..Self::of_status(version.status, summary) }
    }

    fn of_status(status: u16, summary: String) -> Self {
        Self { status, summary, etcd_version: None, raft: None }
    }
}

/// Returns the error for a listener that answered neither question; `error` is why the plaintext one failed.
fn neither(error: EvidenceError, tls: Option<EvidenceError>, target: &Target) -> EvidenceError {
    match tls {
        Some(tls) if tls.kind == ErrorKind::Timeout && error.kind == ErrorKind::Timeout => EvidenceError {
            message: format!(
                "{target} accepted the connection, but answered neither GET /version nor a TLS handshake in time"
            ),
            ..error
        },
        _ => error,
    }
}

/// Returns in one clause what the listener answered.
fn spoke(plain: &Plain, tls: Option<&Tls>) -> String {
    match (plain, tls) {
        (Plain::Http(answer), _) => answer.summary.clone(),
        (Plain::Http2, _) => "HTTP/2, which is gRPC".to_owned(),
        (_, Some(tls)) => {
            let version = tls.version.map_or_else(|| "TLS".to_owned(), |version| version.to_string());
            match (&tls.served, &tls.client_certificate, &tls.end) {
                (Some(answer), _, _) => format!("{} over {version}", answer.summary),
                (_, Some(ClientCertificate::Required), Some(End::Alert(alert))) => {
                    format!("{version}, demanding a client certificate: {alert}")
                }
                (_, Some(ClientCertificate::Required), _) => {
                    format!("{version}, hanging up on a client without certificate")
                }
                (_, _, Some(End::Alert(alert))) => format!("{version}, refusing a modern client: {alert}"),
                (_, _, Some(End::HangUp)) => format!("{version}, then it closed the connection"),
                (_, _, Some(End::Timeout)) => format!("{version}, then nothing more in time"),
                (_, _, Some(End::Other(what))) => format!("{version}: {what}"),
                (_, _, None) => version,
            }
        }
        (Plain::Other(first), None) => {
            let hex: Vec<_> = first.iter().take(8).map(|b| format!("{b:02x}")).collect();
            format!("something that is neither TLS nor HTTP: first bytes {}", hex.join(" "))
        }
        (Plain::Nothing, None) => "nothing: it closed the connection".to_owned(),
    }
}

fn chain(
    presented: &Presented,
    target: &Target,
    options: &Options,
) -> Result<Vec<Certificate>, EvidenceError> {
    let origin = target.origin("TLS handshake");
    presented.chain.iter().map(|der| seaworthy_pki::certificate(der, origin.clone(), options.now)).collect()
}

/// Asks for everything, the versions at once. The groups of TLS 1.2 are wanted only where TLS 1.3 was not `negotiated`.
fn enumerate(connector: &Connector<'_>, negotiated: Option<Protocol>) -> Vec<(Protocol, Accepted)> {
    use Protocol::{Tls10, Tls11, Tls12, Tls13};
    let ask = |version, groups| (version, enumerate::accepted(connector, version, groups));
    let old = || (ask(Tls10, false), ask(Tls11, false));
    let tls12 = || ask(Tls12, negotiated != Some(Tls13));
    let (tls12, (tls13, (tls10, tls11))) = join(tls12, || join(|| ask(Tls13, true), old));
    vec![tls10, tls11, tls12, tls13]
}

/// Returns the names of the groups accepted with the highest version that has any.
fn groups(accepted: &[(Protocol, Accepted)]) -> Vec<String> {
    let highest = accepted.iter().rev().map(|(_, a)| &a.groups).find(|groups| !groups.is_empty());
    highest.into_iter().flatten().map(|id| registry::group_name(*id)).collect()
}

fn protocol(version: ProtocolVersion) -> Option<Protocol> {
    match version {
        ProtocolVersion::TLSv1_2 => Some(Protocol::Tls12),
        ProtocolVersion::TLSv1_3 => Some(Protocol::Tls13),
        _ => None,
    }
}
