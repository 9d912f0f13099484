//! One bounded request.

use crate::connection::{Connector, is_hang_up, is_timeout};
use crate::http::{HttpError, HttpResponse, Question, ask};
use crate::identity::{ClientIdentity, Roots};
use crate::tls::{self, Session};
use crate::{Options, Target};
use seaworthy_evidence::{ErrorKind, EvidenceError};

/// How to make a request.
#[derive(Clone, Copy, Debug)]
pub enum Security<'a> {
    /// Without TLS.
    Plaintext,
    /// With TLS.
    Tls {
        /// Which servers to believe.
        roots: &'a Roots,
        /// Whom to be, if the server asks.
        identity: Option<&'a ClientIdentity>,
    },
}

/// Returns the answer of `target` to `question`, whatever its status. The body is at most 1 MiB long.
///
/// # Errors
///
/// [`ErrorKind::Timeout`], [`ErrorKind::Malformed`] when the answer is too long or not HTTP, and [`ErrorKind::Io`] for a
/// failed connection or handshake.
pub fn get(
    target: &Target,
    security: Security<'_>,
    question: Question,
    options: &Options,
) -> Result<HttpResponse, EvidenceError> {
    request(target, security, question, options)?.map_err(|error| failure(target, question, error))
}

/// Returns whether the listener at `target` lets a client with `identity` in: true when it answers a request, false when it
/// refuses the certificate. Whether it looks at the certificate at all is another question.
///
/// # Errors
///
/// When it does neither, so that it cannot be told.
pub fn lets_in(target: &Target, identity: &ClientIdentity, options: &Options) -> Result<bool, EvidenceError> {
    const TRIES: u32 = 3;
    let security = Security::Tls { roots: &Roots::Any, identity: Some(identity) };
    let ask = || request(target, security, Question::Version, options);
    let mut answer = ask()?;
    // The alert is lost when the connection is closed before the request has been read.
    for _ in 1..TRIES {
        match &answer {
            Err(HttpError::Closed) => answer = ask()?,
            Err(HttpError::Io(error)) if is_hang_up(error) => answer = ask()?,
            _ => break,
        }
    }
    match answer {
        Ok(_) | Err(HttpError::TooLong { .. }) => Ok(true),
        Err(HttpError::Io(error)) if tls::tls_error(&error).is_some_and(refuses_certificate) => Ok(false),
        Err(error) => Err(failure(target, Question::Version, error)),
    }
}

/// Returns whether `error` is what Go sends when a certificate was issued by nobody it knows: until Go 1.20 the former alert,
/// since then the latter.
fn refuses_certificate(error: &rustls::Error) -> bool {
    use rustls::AlertDescription::{BadCertificate, UnknownCA};
    matches!(error, rustls::Error::AlertReceived(BadCertificate | UnknownCA))
}

const MAX_BODY: usize = 1 << 20;

fn request(
    target: &Target,
    security: Security<'_>,
    question: Question,
    options: &Options,
) -> Result<Result<HttpResponse, HttpError>, EvidenceError> {
    let asked = question.to_string();
    let connector = Connector::new(target, options);
    let mut connection = connector.connect(2 * MAX_BODY).map_err(|e| target.failure(&asked, &e))?;
    let (host, mut buffer) = (target.host(), Vec::new());
    Ok(match security {
        Security::Plaintext => ask(&mut connection, &mut buffer, &host, question, MAX_BODY),
        Security::Tls { roots, identity } => {
            let failure = |e: rustls::Error| {
                EvidenceError::new(ErrorKind::Io, format!("{target} to {asked}: TLS: {e}"))
                    .at(target.origin(&asked))
            };
            let mut client = tls::client(target.tls_name()?, roots, identity).map_err(failure)?;
            let mut session = Session(rustls::Stream::new(&mut client, &mut connection));
            let result = session
                .handshake()
                .map_err(HttpError::Io)
                .and_then(|()| ask(&mut session, &mut buffer, &host, question, MAX_BODY));
            let result = result.map_err(|error| match error {
                HttpError::Io(error) if is_hang_up(&error) => HttpError::Io(session.alert().unwrap_or(error)),
                error => error,
            });
            session.close();
            result
        }
    })
}

fn failure(target: &Target, question: Question, error: HttpError) -> EvidenceError {
    let asked = question.to_string();
    match error {
        HttpError::Io(e) if tls::tls_error(&e).is_none() || is_timeout(&e) => target.failure(&asked, &e),
        HttpError::Io(e) => EvidenceError::new(ErrorKind::Io, format!("{target} to {asked}: TLS: {e}"))
            .at(target.origin(&asked)),
        HttpError::Closed => EvidenceError::new(
            ErrorKind::Io,
            format!("{target} closed the connection without an answer to {asked}"),
        )
        .at(target.origin(&asked)),
        error => EvidenceError::new(ErrorKind::Malformed, format!("{target} to {asked}: {error}"))
            .at(target.origin(&asked)),
    }
}
