//! A server's answer to a ClientHello, up to where encryption begins.

/// What a server sent in answer to a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// Its ServerHello or HelloRetryRequest.
    pub hello: Option<ServerHello>,
    /// The curve of its ServerKeyExchange, an IANA TLS group number (RFC 8422 §5.4). Meaningless unless the chosen
    /// cipher suite is one of ECDHE.
    pub curve: Option<u16>,
    /// Its alert.
    pub alert: Option<Alert>,
    /// Whether nothing more can come that is not encrypted, or that is not in answer to a further message.
    pub complete: bool,
}

/// A ServerHello, or the HelloRetryRequest that looks like one (RFC 8446 §4.1.3 and §4.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// Chosen protocol version: 0x0301 is TLS 1.0, 0x0304 TLS 1.3.
    pub version: u16,
    /// Chosen cipher suite, an IANA number.
    pub suite: u16,
    /// Chosen group of TLS 1.3, an IANA number.
    pub group: Option<u16>,
}

/// An alert (RFC 8446 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// 1 is a warning, 2 is fatal.
    pub level: u8,
    /// IANA number, for example 70 for `protocol_version`.
    pub description: u8,
}

/// Why bytes are not a server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlightError {
    /// A message does not have the form of its type.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The bytes are not TLS records.
    #[error("not TLS")]
    NotTls,
}

/// Returns what the TLS records in `bytes` say; the last may be incomplete.
pub fn parse_server_flight(bytes: &[u8]) -> Result<Flight, FlightError> {
    let mut flight = Flight::default();
    let mut handshake = Vec::new();
    let mut records = Reader(bytes);
    while let Some(record) = record(&mut records)? {
        match record {
            (ALERT, [level, description, ..]) => {
                flight.alert = Some(Alert { level: *level, description: *description });
                // Warnings (unrecognized_name) precede a ServerHello; close_notify is one that ends.
                flight.complete |= *level != 1 || *description == 0;
            }
            (ALERT, _) => return Err(FlightError::Malformed("alert")),
            (HANDSHAKE, body) => handshake.extend_from_slice(body),
            _ => {}
        }
        if flight.complete {
            break;
        }
    }
    let mut messages = Reader(&handshake);
    while let Some((kind, body)) = messages.message() {
        match kind {
            SERVER_HELLO => {
                let hello = server_hello(body).ok_or(FlightError::Malformed("ServerHello"))?;
                flight.complete |= hello.version >= 0x0304;
                flight.hello = Some(hello);
            }
            SERVER_KEY_EXCHANGE => {
                let mut body = Reader(body);
                flight.curve = body.u8().filter(|curve_type| *curve_type == 3).and_then(|_| body.u16());
            }
            SERVER_HELLO_DONE => flight.complete = true,
            _ => {}
        }
    }
    Ok(flight)
}

/// Returns whether `bytes` begin as a TLS record does, as far as they go.
pub(crate) fn begins_like_record(bytes: &[u8]) -> bool {
    match *bytes {
        [] => false,
        [kind] => (20..=24).contains(&kind),
        [kind, major] => (20..=24).contains(&kind) && major == 3,
        [kind, major, minor, ref rest @ ..] => {
            let length = match *rest {
                [high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
                _ => 1,
            };
            (20..=24).contains(&kind) && major == 3 && minor <= 4 && (1..=MAX_RECORD).contains(&length)
        }
    }
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SERVER_HELLO_DONE: u8 = 14;
/// Ciphertext of TLS 1.2 may be this long (RFC 5246 §6.2.3).
const MAX_RECORD: usize = (1 << 14) + 2048;

/// Returns the type and body of the next record, or `None` when it is not complete.
fn record<'a>(records: &mut Reader<'a>) -> Result<Option<(u8, &'a [u8])>, FlightError> {
    if records.0.is_empty() {
        return Ok(None);
    }
    if !begins_like_record(records.0) {
        return Err(FlightError::NotTls);
    }
    let mut ahead = Reader(records.0);
    let body = ahead.u8().and_then(|kind| {
        ahead.u16()?;
        let length = ahead.u16()?;
        Some((kind, ahead.take(length.into())?))
    });
    if body.is_some() {
        *records = ahead;
    }
    Ok(body)
}

fn server_hello(body: &[u8]) -> Option<ServerHello> {
    let mut body = Reader(body);
    let mut version = body.u16()?;
    let _random = body.take(32)?;
    let session = body.u8()?;
    body.take(session.into())?;
    let suite = body.u16()?;
    let _compression = body.u8()?;
    let mut group = None;
    // TLS 1.0 may leave the extensions out.
    if !body.0.is_empty() {
        let mut extensions = Reader(body.vector()?);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let mut content = Reader(extensions.vector()?);
            match kind {
                43 => version = content.u16()?,
                51 => group = Some(content.u16()?),
                _ => {}
            }
        }
    }
    Some(ServerHello { version, suite, group })
}

/// Reads big-endian numbers and length-prefixed vectors (RFC 8446 §3) from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Returns the content of a vector with a length of 2 bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Returns the type and body of a handshake message; `None` when it is not complete.
    fn message(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = self.u8()?;
        let high = self.u8()?;
        let length = (usize::from(high) << 16) | usize::from(self.u16()?);
        Some((kind, self.take(length)?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Returns a record.
    pub(crate) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &length[..], body].concat()
    }

    /// Returns a handshake message.
    pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind], &length[1..], body].concat()
    }

    /// Returns a ServerHello message.
    pub(crate) fn hello(version: u16, suite: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(suite.to_be_bytes());
        body.push(0);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        message(SERVER_HELLO, &body)
    }

    fn samples() -> Vec<Vec<u8>> {
        let key_exchange = message(SERVER_KEY_EXCHANGE, &[3, 0, 29, 1, 0]);
        vec![
            record(HANDSHAKE, &hello(0x0301, 0x002f, &[])),
            record(
                HANDSHAKE,
                &[hello(0x0303, 0xc02f, &[]), key_exchange, message(SERVER_HELLO_DONE, &[])].concat(),
            ),
            record(HANDSHAKE, &hello(0x0303, 0x1301, &[0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0x11, 0xec])),
            record(ALERT, &[2, 70]),
        ]
    }

    #[test]
    fn flights_are_parsed() {
        let hello = |version, suite, group| Some(ServerHello { version, suite, group });
        let alert = Some(Alert { level: 2, description: 70 });
        let wants = [
            Flight { hello: hello(0x0301, 0x002f, None), ..Flight::default() },
            Flight {
                hello: hello(0x0303, 0xc02f, None),
                curve: Some(29),
                complete: true,
                ..Flight::default()
            },
            Flight { hello: hello(0x0304, 0x1301, Some(0x11ec)), complete: true, ..Flight::default() },
            Flight { alert, complete: true, ..Flight::default() },
        ];
        for (sample, want) in samples().into_iter().zip(wants) {
            assert_eq!(parse_server_flight(&sample), Ok(want));
            for cut in 0..sample.len() {
                assert_eq!(parse_server_flight(&sample[..cut]), Ok(Flight::default()), "cut at {cut}");
            }
        }
    }

    #[test]
    fn messages_may_span_records_and_warnings_may_precede_them() {
        let hello = hello(0x0303, 0x1301, &[0, 43, 0, 2, 3, 4]);
        let bytes = [
            record(ALERT, &[1, 112]),
            record(HANDSHAKE, &hello[..5]),
            record(HANDSHAKE, &hello[5..]),
            record(20, &[1]),
        ]
        .concat();
        let flight = parse_server_flight(&bytes).unwrap();
        assert_eq!(flight.hello.map(|h| h.version), Some(0x0304));
        assert!(flight.complete);
    }

    #[test]
    fn other_bytes_are_refused() {
        let cases: [(&[u8], FlightError); 5] = [
            (b"HTTP/1.1 400 Bad Request", FlightError::NotTls),
            (&[22, 2], FlightError::NotTls),
            (&[22, 3, 1, 0xff, 0xff], FlightError::NotTls),
            (&record(ALERT, &[2]), FlightError::Malformed("alert")),
            (&record(HANDSHAKE, &message(SERVER_HELLO, &[3, 3])), FlightError::Malformed("ServerHello")),
        ];
        for (bytes, want) in cases {
            assert_eq!(parse_server_flight(bytes), Err(want));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..256)) {
            let _ = parse_server_flight(&bytes);
        }

        #[test]
        fn mutated_flights_never_panic(
            sample in 0_usize..4, edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = samples()[sample].clone();
            for (at, byte) in edits {
                *at.get_mut(&mut bytes) = byte;
            }
            let _ = parse_server_flight(&bytes);
        }
    }
}
