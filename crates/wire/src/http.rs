//! As much of HTTP/1.1 (RFC 9112) as a bounded `GET` needs.

use std::fmt;
use std::io::{self, Read, Write};

use serde_json::Value;

use crate::connection::is_hang_up;

/// A request that cannot act, whatever certificate it is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/health`: whether the member has a leader; on client and metrics listeners.
    Health,
    /// `/members`: the membership as the member knows it, without quorum; on peer listeners.
    Members,
    /// `/raft/probing`: the member's clock; on peer listeners.
    Probing,
    /// `/version`: the versions of the member and of the cluster; on peer and client listeners.
    Version,
}

impl Question {
    /// Returns the path that is requested.
    pub fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Members => "/members",
            Self::Probing => "/raft/probing",
            Self::Version => "/version",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {}", self.path())
    }
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Reason phrase, printable characters only; often empty.
    pub reason: String,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded if it was sent in chunks.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// Returns the value of the first header field called `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns the status line's part for people, for example `200 OK`.
    pub fn status_line(&self) -> String {
        format!("{} {}", self.status, self.reason).trim_end().to_owned()
    }

    /// Returns the cluster's id as etcd's peer handlers send it along; `None` when it is not a hexadecimal number.
    pub fn cluster_id(&self) -> Option<&str> {
        let id = self.header("x-etcd-cluster-id")?;
        let hex = !id.is_empty() && id.len() <= 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(id)
    }

    /// Returns etcd's version from the answer to [`Question::Version`].
    pub fn etcd_version(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let version = body.get("etcdserver")?.as_str()?;
        (version.len() <= 64 && version.bytes().all(|b| b.is_ascii_graphic())).then(|| version.to_owned())
    }

    /// Returns whether this is a peer listener's answer to [`Question::Members`].
    pub(crate) fn is_member_list(&self) -> bool {
        let listed = || match serde_json::from_slice(&self.body) {
            Ok(Value::Array(members)) => members.first().is_some_and(|m| m.get("peerURLs").is_some()),
            _ => false,
        };
        self.status == 200 && (self.cluster_id().is_some() || listed())
    }
}

/// Why bytes are not an HTTP response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection ended before the first byte.
    #[error("closed without an answer")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins like an HTTP response but is none.
    #[error("malformed HTTP: {0}")]
    Malformed(&'static str),
    /// It does not begin like an HTTP response.
    #[error("not HTTP")]
    NotHttp,
    /// The body is longer than wanted.
    #[error("the body of the HTTP response ({status}) is too long")]
    TooLong {
        /// Status code.
        status: u16,
    },
}

/// Header fields together are at most this long.
const MAX_HEAD: usize = 16 << 10;

/// Sends `question` on `stream` and returns the response, whose body is at most `max_body` bytes long. `buffer` holds
/// what was read too much and belongs to the next response.
pub(crate) fn ask<S: Read + Write>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    host: &str,
    question: Question,
    max_body: usize,
) -> Result<HttpResponse, HttpError> {
    let path = question.path();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: seaworthy\r\nAccept: */*\r\n\r\n");
    // The refusal of a client without certificate may be waiting to be read although nothing can be written.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    let mut chunk = [0; 8 << 10];
    loop {
        // Never waits for the end of the stream when a length is known: etcd keeps the connection open.
        if let Some((response, length)) = parse_response(buffer, max_body, false)? {
            buffer.drain(..length.min(buffer.len()));
            return Ok(response);
        }
        let n = match stream.read(&mut chunk) {
            Err(e) if is_hang_up(&e) && !buffer.is_empty() => 0,
            result => result?,
        };
        if n == 0 {
            if buffer.is_empty() {
                return Err(HttpError::Closed);
            }
            let response = parse_response(buffer, max_body, true)?;
            buffer.clear();
            return response.map(|(r, _)| r).ok_or(HttpError::Malformed("cut short"));
        }
        buffer.extend(chunk.iter().take(n));
    }
}

/// Returns the response at the start of `bytes` with its length in them, or `None` when it is not complete. `ended`
/// says that no more bytes will come. The body is at most `max_body` bytes long.
pub fn parse_response(
    bytes: &[u8],
    max_body: usize,
    ended: bool,
) -> Result<Option<(HttpResponse, usize)>, HttpError> {
    let magic = b"HTTP/1.";
    if bytes.iter().zip(magic).any(|(a, b)| a != b) {
        return Err(HttpError::NotHttp);
    }
    let Some(head_end) = bytes.windows(4).take(MAX_HEAD).position(|w| w == b"\r\n\r\n") else {
        let too_long = bytes.len() >= MAX_HEAD;
        return if too_long { Err(HttpError::Malformed("headers without end")) } else { Ok(None) };
    };
    let (head, rest) =
        (bytes.get(..head_end).unwrap_or_default(), bytes.get(head_end + 4..).unwrap_or_default());
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut status = lines.next().unwrap_or_default().splitn(3, ' ').skip(1);
    let code = status.next().filter(|s| s.len() == 3).and_then(|s| s.parse().ok());
    let mut response = HttpResponse {
        status: code.ok_or(HttpError::Malformed("no status code"))?,
        reason: status.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(64).collect(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let chunked =
        response.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
    let length = if chunked {
        let Some((body, length)) = decode_chunks(rest, max_body, response.status)? else { return Ok(None) };
        response.body = body;
        length
    } else {
        let length = match response.header("content-length") {
            Some(length) => length.parse().map_err(|_| HttpError::Malformed("Content-Length"))?,
            None if matches!(response.status, 204 | 304) => 0,
            None if ended => rest.len(),
            None if rest.len() <= max_body => return Ok(None),
            None => rest.len(),
        };
        if length > max_body {
            return Err(HttpError::TooLong { status: response.status });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        response.body = body.to_vec();
        length
    };
    Ok(Some((response, head_end + 4 + length)))
}

/// Returns the content of a chunked body and its encoded length, or `None` when it is not complete.
fn decode_chunks(bytes: &[u8], max_body: usize, status: u16) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line_end) = rest.windows(2).take(MAX_HEAD).position(|w| w == b"\r\n") else {
            let too_long = rest.len() >= MAX_HEAD;
            return if too_long { Err(HttpError::Malformed("chunk size")) } else { Ok(None) };
        };
        let line = String::from_utf8_lossy(rest.get(..line_end).unwrap_or_default());
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| HttpError::Malformed("chunk size"))?;
        if size > max_body.saturating_sub(body.len()) {
            return Err(HttpError::TooLong { status });
        }
        let start = line_end + 2;
        // A chunk of size 0 is the last; etcd sends no trailers, so an empty line ends them.
        match rest.get(start..start + size + 2) {
            None => return Ok(None),
            Some(chunk) if !chunk.ends_with(b"\r\n") => return Err(HttpError::Malformed("chunk")),
            Some(chunk) => body.extend(chunk.iter().take(size)),
        }
        at += start + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn responses_are_parsed() {
        let cases: [(&str, Option<(u16, &str)>); 7] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP", Some((200, "hi"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
                Some((200, "hi!")),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", None),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, ""))),
            ("HTTP/1.0 400 Bad Request\r\n\r\nno length", None),
            ("HTT", None),
        ];
        for (text, want) in cases {
            let got = parse_response(text.as_bytes(), 1 << 10, false).unwrap();
            let got = got.map(|(r, _)| (r.status, String::from_utf8(r.body).unwrap()));
            assert_eq!(got.as_ref().map(|(s, b)| (*s, b.as_str())), want, "{text}");
        }
        let (response, _) = parse_response(b"HTTP/1.0 400 Bad\r\n\r\nrest", 1 << 10, true).unwrap().unwrap();
        assert_eq!(response.body, b"rest");
    }

    #[test]
    fn other_bytes_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
        let cases = [
            ("SSH-2.0-OpenSSH", "not HTTP"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "malformed HTTP: no status code"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed HTTP: Content-Length"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                "the body of the HTTP response (200) is too long",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
                "the body of the HTTP response (200) is too long",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "malformed HTTP: chunk"),
            (&long, "malformed HTTP: headers without end"),
        ];
        for (text, want) in cases {
            let error = parse_response(text.as_bytes(), 16, false).unwrap_err();
            assert_eq!(error.to_string(), want, "{text:.60}");
        }
    }

    #[test]
    fn only_a_clean_identity_is_believed() {
        let answer = |id: &str, body: &str| HttpResponse {
            status: 200,
            reason: String::new(),
            headers: vec![("x-etcd-cluster-id".to_owned(), id.to_owned())],
            body: body.as_bytes().to_vec(),
        };
        assert_eq!(answer("cdf818194e3a8c32", "").cluster_id(), Some("cdf818194e3a8c32"));
        assert_eq!(answer("\u{1b}[31m", "").cluster_id(), None);
        assert_eq!(answer("", r#"{"etcdserver":"3.5.1"}"#).etcd_version().as_deref(), Some("3.5.1"));
        assert_eq!(answer("", "{\"etcdserver\":\"3\\n\"}").etcd_version(), None);
        assert!(answer("", r#"[{"id":1,"peerURLs":[]}]"#).is_member_list());
        assert!(!answer("", r#"{"peerURLs":[]}"#).is_member_list());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(head in "HTTP/1.1 200 OK\r\n(Transfer-Encoding: chunked|Content-Length: [0-9]{1,20})\r\n\r\n",
                          rest in proptest::collection::vec(any::<u8>(), 0..64), ended: bool) {
            let mut bytes = head.into_bytes();
            bytes.extend(rest);
            let _ = parse_response(&bytes, 1 << 10, ended);
        }
    }
}
