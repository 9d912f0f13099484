//! A small HTTP/1.1 client: POST of JSON over kept connections, in plaintext or mutual TLS.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

/// One server, and the connection to it if there is one.
pub(super) struct Endpoint {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    connection: Option<BufReader<Box<dyn Stream>>>,
}

impl Endpoint {
    /// Returns a server at an address; TLS if there is a configuration for it. Nothing takes longer than
    /// `timeout` for connecting, each read and each write.
    pub(super) fn new(address: SocketAddr, tls: Option<Arc<ClientConfig>>, timeout: Duration) -> Self {
        Self { address, tls, timeout, connection: None }
    }

    /// Posts a document and returns the answer, or what the server says is wrong.
    ///
    /// After an error the connection is not used again, except when it is the server's well-formed refusal.
    pub(super) fn post(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(self.connect().map_err(|error| error.to_string())?),
        };
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let sent =
            connection.get_mut().write_all(request.as_bytes()).and_then(|()| connection.get_mut().flush());
        sent.map_err(|error| error.to_string())?;
        let answer = answer(&mut connection).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_string(),
            io::ErrorKind::WouldBlock => "timed out".to_string(),
            _ => error.to_string(),
        })?;
        if answer.keep {
            self.connection = Some(connection);
        }
        let text = String::from_utf8_lossy(&answer.body);
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if answer.status == 200 && value.is_object() {
            return Ok(value);
        }
        let said = value.get("message").or(value.get("error")).and_then(Value::as_str);
        let said = said.unwrap_or(&text).trim().chars().take(100).collect::<String>();
        Err(format!("HTTP {}: {said}", answer.status))
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::IpAddress(self.address.ip().into());
        let client = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(client, stream)))
    }
}

/// Returns a TLS client that trusts an authority and shows a certificate. All three are PEM.
pub(super) fn tls(ca: &str, certificate: &str, key: &str) -> Result<Arc<ClientConfig>, String> {
    let parse = |text: &str| {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        certificates.collect::<Result<Vec<_>, _>>().map_err(|error| format!("a certificate: {error}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in parse(ca)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("the key: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let config = config.with_client_auth_cert(parse(certificate)?, key).map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// Whether the server keeps the connection open.
    keep: bool,
}

fn answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let first = line(stream)?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {first:?}")))?;
    let (mut length, mut chunked, mut keep) = (0, false, true);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else { break };
        match (name, value.trim()) {
            ("connection", "close") => keep = false,
            ("content-length", value) => length = value.parse().map_err(io::Error::other)?,
            ("transfer-encoding", value) => chunked = value.contains("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        extend(&mut body, stream, length)?;
        return Ok(Answer { status, body, keep });
    }
    loop {
        let size = line(stream)?;
        let size = size.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        extend(&mut body, stream, size)?;
        line(stream)?; // after the last chunk: the end of the trailers, of which etcd sends none
        if size == 0 {
            return Ok(Answer { status, body, keep });
        }
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    const MAX: u64 = 16 << 10;
    let mut text = String::new();
    stream.take(MAX).read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_string()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn extend(body: &mut Vec<u8>, stream: &mut impl BufRead, length: u64) -> io::Result<()> {
    const MAX: u64 = 256 << 20;
    if length > MAX {
        return Err(io::Error::other("an answer of more than 256 MiB"));
    }
    if stream.take(length).read_to_end(body)? as u64 == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_length_or_come_in_chunks() {
        type Expected = Option<(u16, &'static str, bool)>;
        let cases: [(&str, Expected); 6] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((200, "{}", true))),
            ("HTTP/1.1 503 X\r\nconnection: close\r\nContent-Length: 1\r\n\r\nabc", Some((503, "a", false))),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n",
                Some((200, "abc0123456789", true)),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None),
            ("\x15\x03\x01", None),
        ];
        for (bytes, expected) in cases {
            let found = answer(&mut bytes.as_bytes()).ok();
            let found = found.map(|a| (a.status, String::from_utf8(a.body).unwrap(), a.keep));
            assert_eq!(found, expected.map(|(status, body, keep)| (status, body.to_string(), keep)));
        }
    }
}
