//! Connections with limits of time and of bytes.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls_pki_types::ServerName;
use seaworthy_evidence::{ErrorKind, EvidenceError, Origin};

/// A listener to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    endpoint: Endpoint,
    server_name: Option<String>,
}

#[derive(Clone, Debug)]
enum Endpoint {
    Tcp(SocketAddr),
    Unix {
        path: PathBuf,
        /// The socket itself, when `path` is not as this process sees it.
        place: Option<Arc<OwnedFd>>,
    },
}

/// What the text of a target says.
enum Name<'a> {
    /// The host of a host and a port.
    Tcp(&'a str),
    /// The path of a socket.
    Unix(&'a str),
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Result<Self, EvidenceError> {
        let wrong = |what: &str| Err(EvidenceError::new(ErrorKind::Malformed, format!("`{text}` {what}")));
        // A path alone, as reports show it, and the URL that etcd is given are understood, too.
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { wrong("has no path") } else { Ok(Self::Unix(path)) };
        }
        if text.contains('/') {
            return wrong("is a URL or a path, not an address");
        }
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("has no port") };
        if host.is_empty() || host.starts_with('[') != host.ends_with(']') {
            return wrong("has no host");
        }
        match port.parse() {
            Ok(1u16..) => Ok(Self::Tcp(host)),
            _ => wrong("has no port from 1 to 65535"),
        }
    }
}

impl Target {
    /// Returns the TCP listener at `address`.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { endpoint: Endpoint::Tcp(address), server_name: None }
    }

    /// Returns the listener on the Unix socket at `path`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { endpoint: Endpoint::Unix { path: path.into(), place: None }, server_name: None }
    }

    /// Returns the listener on the Unix socket `place`, which was opened with `O_PATH`. It is called `path`, as where it
    /// was found; that path is not used to connect.
    pub fn opened_unix(path: impl Into<PathBuf>, place: OwnedFd) -> Self {
        let endpoint = Endpoint::Unix { path: path.into(), place: Some(Arc::new(place)) };
        Self { endpoint, server_name: None }
    }

    /// Returns the listener that `text` names: `HOST:PORT`, or `unix:` and the path of a socket. A host name is looked up,
    /// its first address taken, and the name shown to the listener.
    ///
    /// # Errors
    ///
    /// When `text` names no listener (see [`Target::check`]), or there is no such host.
    pub fn resolve(text: &str) -> Result<Self, EvidenceError> {
        let host = match Name::parse(text)? {
            Name::Unix(path) => return Ok(Self::unix(path)),
            Name::Tcp(host) => host,
        };
        let address = match text.to_socket_addrs() {
            Ok(mut addresses) => addresses.next(),
            Err(e) => return Err(EvidenceError::new(ErrorKind::NotFound, format!("{text}: {e}"))),
        };
        let address = address
            .ok_or_else(|| EvidenceError::new(ErrorKind::NotFound, format!("{text} has no address")))?;
        let target = Self::tcp(address);
        let is_name = text.parse::<SocketAddr>().is_err();
        Ok(if is_name { target.with_server_name(host) } else { target })
    }

    /// Looks nothing up, and says what is wrong with `text` if it cannot name a listener at all.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`], when [`Target::resolve`] would fail with any network.
    pub fn check(text: &str) -> Result<(), EvidenceError> {
        Name::parse(text).map(drop)
    }

    /// Returns the target with the name by which a TLS listener is asked and verified, instead of its address.
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Returns the name sent in the `server_name` extension, which cannot be an address (RFC 6066 §3).
    pub(crate) fn sni(&self) -> Option<&str> {
        self.server_name.as_deref().filter(|name| name.parse::<std::net::IpAddr>().is_err())
    }

    /// Returns what a certificate must name.
    pub(crate) fn tls_name(&self) -> Result<ServerName<'static>, EvidenceError> {
        match (&self.server_name, &self.endpoint) {
            (Some(name), _) => ServerName::try_from(name.clone()).map_err(|_| {
                EvidenceError::new(ErrorKind::Malformed, format!("{name:?} is not a host name"))
            }),
            (None, Endpoint::Tcp(address)) => Ok(ServerName::from(address.ip())),
            (None, Endpoint::Unix { .. }) => Ok(ServerName::from(std::net::Ipv4Addr::LOCALHOST)),
        }
    }

    /// Returns the value of the HTTP `Host` header.
    pub(crate) fn host(&self) -> String {
        match (&self.server_name, &self.endpoint) {
            (Some(name), Endpoint::Tcp(address)) => format!("{name}:{}", address.port()),
            (Some(name), Endpoint::Unix { .. }) => name.clone(),
            (None, Endpoint::Tcp(address)) => address.to_string(),
            (None, Endpoint::Unix { .. }) => "localhost".to_owned(),
        }
    }

    /// Returns where an answer to `asked` comes from.
    pub(crate) fn origin(&self, asked: impl Into<String>) -> Origin {
        Origin::wire(self.to_string(), asked)
    }

    /// Returns `error` as the reason why there is no answer to `asked`.
    pub(crate) fn failure(&self, asked: &str, error: &io::Error) -> EvidenceError {
        let (kind, message) = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                (ErrorKind::Timeout, format!("{self} did not answer {asked} in time"))
            }
            io::ErrorKind::FileTooLarge => {
                (ErrorKind::Malformed, format!("{self} answered {asked} with bytes without end"))
            }
            io::ErrorKind::ConnectionRefused => (ErrorKind::Io, format!("{self}: connection refused")),
            io::ErrorKind::NotFound => (ErrorKind::NotFound, format!("{self}: no such socket")),
            io::ErrorKind::PermissionDenied => {
                (ErrorKind::PermissionDenied, format!("{self}: permission denied"))
            }
            _ => (ErrorKind::Io, format!("{self} to {asked}: {error}")),
        };
        EvidenceError::new(kind, message).at(self.origin(asked))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// How to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for one connect, read or write.
    pub timeout: Duration,
    /// How long everything together may take.
    pub limit: Duration,
    /// The time of the snapshot, from which the days left of a certificate are counted.
    pub now: Timestamp,
    /// Whether to try every protocol version, cipher suite and group instead of only the ones a modern client gets.
    pub enumerate: bool,
}

impl Options {
    /// Returns the usual options at `now`: 1 s for each operation, 3 s for everything, with enumeration.
    pub fn new(now: Timestamp) -> Self {
        Self { timeout: Duration::from_secs(1), limit: Duration::from_secs(3), now, enumerate: true }
    }
}

/// Makes connections to one target within the limits, and counts them.
#[derive(Debug)]
pub(crate) struct Connector<'a> {
    pub(crate) target: &'a Target,
    timeout: Duration,
    deadline: Instant,
    made: AtomicU32,
}

impl<'a> Connector<'a> {
    pub(crate) fn new(target: &'a Target, options: &Options) -> Self {
        // A limit too large for the clock is as good as an hour.
        let now = Instant::now();
        let deadline = now.checked_add(options.limit).unwrap_or(now + Duration::from_secs(3600));
        Self { target, timeout: options.timeout, deadline, made: AtomicU32::new(0) }
    }

    /// Returns how many connections were attempted.
    pub(crate) fn made(&self) -> u32 {
        self.made.load(Ordering::Relaxed)
    }

    /// Returns whether the time for everything has run out.
    pub(crate) fn expired(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns a new connection from which at most `budget` bytes are read.
    pub(crate) fn connect(&self, budget: usize) -> io::Result<Connection> {
        let timeout = patience(self.timeout, self.deadline)?;
        self.made.fetch_add(1, Ordering::Relaxed);
        let socket = match &self.target.endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
            Endpoint::Unix { path, place } => {
                // unix(7) knows no connection to a descriptor, but its link in /proc leads to the socket itself.
                let link = place.as_ref().map(|p| PathBuf::from(format!("/proc/self/fd/{}", p.as_raw_fd())));
                let path = link.as_ref().unwrap_or(path);
                // `UnixStream::connect` waits without end when the backlog is full; the send timeout bounds it.
                let flags = SocketFlags::CLOEXEC;
                let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                set_socket_timeout(&fd, Timeout::Send, Some(timeout))?;
                rustix::net::connect(&fd, &SocketAddrUnix::new(path.as_path())?)?;
                Socket::Unix(UnixStream::from(fd))
            }
        };
        Ok(Connection { socket, timeout: self.timeout, deadline: self.deadline, budget, first: Vec::new() })
    }
}

/// A connection that ends with an error when it is slow ([`io::ErrorKind::TimedOut`]) or endless
/// ([`io::ErrorKind::FileTooLarge`]).
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    timeout: Duration,
    deadline: Instant,
    budget: usize,
    first: Vec<u8>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Returns the first bytes that came, at most 9: enough to tell the protocol.
    pub(crate) fn first(&self) -> &[u8] {
        &self.first
    }

    /// Waits no longer than `timeout` for each further read.
    pub(crate) fn hurry(&mut self, timeout: Duration) {
        self.timeout = self.timeout.min(timeout);
    }

    /// Ends the sending side, then reads what the other end still has to say, so that closing does not reset it.
    pub(crate) fn finish(mut self) {
        let _ = match &self.socket {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
        };
        self.hurry(Duration::from_millis(20));
        let mut rest = [0; 4096];
        while matches!(self.read(&mut rest), Ok(n) if n > 0) {}
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let patience = Some(patience(self.timeout, self.deadline)?);
        let n = match &mut self.socket {
            Socket::Tcp(s) => s.set_read_timeout(patience).and_then(|()| s.read(buf)),
            Socket::Unix(s) => s.set_read_timeout(patience).and_then(|()| s.read(buf)),
        }?;
        let missing = 9_usize.saturating_sub(self.first.len());
        self.first.extend(buf.iter().take(n.min(missing)));
        self.budget = self.budget.checked_sub(n).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let patience = Some(patience(self.timeout, self.deadline)?);
        match &mut self.socket {
            Socket::Tcp(s) => s.set_write_timeout(patience).and_then(|()| s.write(buf)),
            Socket::Unix(s) => s.set_write_timeout(patience).and_then(|()| s.write(buf)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns how long the next operation may take.
fn patience(timeout: Duration, deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now()).min(timeout);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Returns whether `error` is a closed or reset connection, which etcd uses in place of a TLS alert now and then.
pub(crate) fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// Returns whether `error` is an operation that took too long.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_socket_is_reached_whatever_is_at_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let place = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        let target = Target::opened_unix(&path, place);
        assert_eq!(target.to_string(), path.to_str().unwrap());
        let _connection = Connector::new(&target, &Options::new(Timestamp::UNIX_EPOCH)).connect(1).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn targets_are_resolved_from_text() {
        let cases = [
            ("127.0.0.1:2380", Some("127.0.0.1:2380"), None),
            ("[::1]:2380", Some("[::1]:2380"), None),
            ("/run/etcd.sock", Some("/run/etcd.sock"), None),
            ("unix:/run/etcd.sock", Some("/run/etcd.sock"), None),
            ("unix:///run/etcd.sock", Some("/run/etcd.sock"), None),
            ("unix:etcd.sock", Some("etcd.sock"), None),
            ("localhost:2380", None, Some("localhost")),
        ];
        for (text, shown, name) in cases {
            let target = Target::resolve(text).unwrap();
            if let Some(shown) = shown {
                assert_eq!(target.to_string(), shown);
            }
            assert_eq!(target.sni(), name, "{text}");
        }
        let none = "no-such-host.invalid:1";
        assert!(Target::check(none).is_ok());
        assert_eq!(Target::resolve(none).unwrap_err().kind, ErrorKind::NotFound);
        let malformed = [
            ("", "port"),
            ("127.0.0.1", "port"),
            ("127.0.0.1:0", "port"),
            ("127.0.0.1:99999", "port"),
            ("127.0.0.1:etcd", "port"),
            (":2380", "host"),
            ("[::1", "host"),
            ("https://127.0.0.1:2380", "URL"),
            ("etcd/etcd.sock", "path"),
            ("unix:", "path"),
        ];
        for (text, word) in malformed {
            let error = Target::check(text).unwrap_err();
            assert!(error.kind == ErrorKind::Malformed && error.message.contains(word), "{text}: {error}");
        }
    }
}
