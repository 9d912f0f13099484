//! Listeners: what is configured, joined with the sockets there really are and with what they say.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use seaworthy_evidence::{ErrorKind, EvidenceError, Listener, Observed, Origin, Purpose, Url, Wire};
use seaworthy_host::access::Access;
use seaworthy_host::sockets::Sockets;
use seaworthy_wire::Target;

use super::etcd::membership::{self, LiveMembers};
use super::etcd::proxy;
use super::etcd::server::Server;
use super::processes::Running;
use super::{Survey, instance};

/// What the listeners of the node answered, by process and address.
#[derive(Default)]
pub(crate) struct Answers {
    wires: BTreeMap<(u32, String), Result<Wire, EvidenceError>>,
    members: BTreeMap<u32, Result<LiveMembers, EvidenceError>>,
    /// Whether nothing is to be asked.
    off: bool,
}

impl Answers {
    /// Returns what the socket at `address` of process `pid` said; `None` when it was not asked.
    pub(crate) fn wire(&self, pid: u32, address: &str) -> Option<Observed<Wire>> {
        if self.off {
            let error =
                EvidenceError::new(ErrorKind::Unsupported, "the listeners were not asked (--no-wire)");
            return Some(Observed::failed(error));
        }
        let result = self.wires.get(&(pid, address.to_owned()))?;
        Some(Observed::from_result(result.clone(), Origin::wire(address, "plaintext and TLS")))
    }

    /// Returns the version that any listener of process `pid` told.
    pub(crate) fn version(&self, pid: u32) -> Option<(String, Origin)> {
        self.wires.iter().filter(|((p, _), _)| *p == pid).find_map(|((_, address), wire)| {
            let version = wire.as_ref().ok()?.etcd_version.clone()?;
            Some((version, Origin::wire(address.clone(), "GET /version")))
        })
    }

    /// Returns the member list that process `pid` told; `None` when it was not asked.
    pub(crate) fn members(&self, pid: u32) -> Option<&Result<LiveMembers, EvidenceError>> {
        self.members.get(&pid)
    }

    fn record(&mut self, answer: Answer) {
        match answer {
            Answer::Members(pid, members) => drop(self.members.insert(pid, members)),
            Answer::Wire(socket, wire, members) => {
                if let Some(members) = members {
                    self.members.insert(socket.0, Ok(members));
                }
                self.wires.insert(socket, *wire);
            }
        }
    }
}

/// Most sockets of one process that are asked. An etcd has a handful.
const MAX_SOCKETS: usize = 64;
/// Most threads that ask at the same time; each has a few helpers for one listener.
const MAX_WORKERS: usize = 32;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Tcp(SocketAddr),
    /// By its path as its process sees it; an abstract one begins with `@`.
    Unix(String),
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl Socket {
    /// Returns where to connect to. A path is looked up as `running` sees it: at the same path in our own mount namespace
    /// something else may listen.
    pub(crate) fn target(&self, running: &Running) -> Result<Target, EvidenceError> {
        match self {
            Self::Tcp(address) => Ok(Target::tcp(reachable(*address))),
            Self::Unix(path) if path.starts_with('@') => {
                let message = format!("{path} is an abstract socket, which is not asked");
                Err(EvidenceError::new(ErrorKind::Unsupported, message))
            }
            Self::Unix(path) => {
                let root = running.root.as_ref().map_err(Clone::clone)?;
                Ok(Target::opened_unix(path, root.socket(running.absolute(path)?)?))
            }
        }
    }
}

/// One question of the survey.
enum Job<'a> {
    Members(&'a Server<'a>),
    Wire(&'a Running, Socket),
    /// Of a server whose settings do not say which of its sockets are for peers.
    Both(&'a Server<'a>, Socket),
}

/// Asks every listening socket of the servers and proxies what it speaks, and every server for its members, at the same
/// time as far as there are threads, and all within the limit of one probe. Asks nothing when the wire is off.
pub(crate) fn ask_all<'r>(
    survey: &Survey<'_>,
    servers: &[Server<'_>],
    proxies: &[proxy::Reading<'_>],
    others: impl Iterator<Item = &'r instance::Reading<'r>>,
) -> Answers {
    let mut answers = Answers { off: !survey.options.wire, ..Answers::default() };
    if answers.off {
        return answers;
    }
    let mut jobs: Vec<Job<'_>> = servers.iter().filter(|s| s.embedded.is_none()).map(Job::Members).collect();
    let sockets = servers.iter().map(|s| (s.running, s.sockets.as_ref(), s.embedded.as_ref().map(|_| s)));
    let of_proxies = proxies.iter().map(|p| (p.running, p.sockets.as_ref(), None));
    let of_others = others.map(|p| (p.running, p.sockets.as_ref(), None));
    for (running, sockets, embedded) in sockets.chain(of_proxies).chain(of_others) {
        let mut all: Vec<Socket> = sockets.into_iter().flat_map(addresses).collect();
        // Sorted, but an IPv4 and an IPv6 socket may have the same address here.
        all.dedup();
        for unasked in all.split_off(all.len().min(MAX_SOCKETS)) {
            let message = format!("not asked: more than {MAX_SOCKETS} sockets");
            let error = EvidenceError::new(ErrorKind::TooLarge, message);
            answers.wires.insert((running.pid(), unasked.to_string()), Err(error));
        }
        jobs.extend(all.into_iter().map(|socket| match embedded {
            Some(server) => Job::Both(server, socket),
            None => Job::Wire(running, socket),
        }));
    }
    for job in &jobs {
        let message = "not asked: the probe was given no thread, or did not finish";
        answers.record(job.failed(EvidenceError::new(ErrorKind::Io, message)));
    }
    let deadline = Instant::now() + survey.probing().limit;
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(answers));
    std::thread::scope(|scope| {
        let work = || {
            let mut moved = false;
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = job.ask(survey, deadline, &mut moved);
                answers.lock().unwrap_or_else(PoisonError::into_inner).record(answer);
            }
        };
        let workers = (0..jobs.len().min(MAX_WORKERS))
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect::<Vec<_>>();
        for worker in workers {
            // The job of a worker that panicked keeps the answer that it did not finish.
            let _ = worker.join();
        }
    });
    answers.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Job<'_> {
    fn running(&self) -> &Running {
        match self {
            Self::Members(server) | Self::Both(server, _) => server.running,
            Self::Wire(running, _) => running,
        }
    }

    fn failed(&self, error: EvidenceError) -> Answer {
        match self {
            Self::Members(server) => Answer::Members(server.running.pid(), Err(error)),
            Self::Wire(Running { entry, .. }, socket)
            | Self::Both(Server { running: Running { entry, .. }, .. }, socket) => {
                Answer::Wire((entry.pid(), socket.to_string()), Box::new(Err(error)), None)
            }
        }
    }

    /// Asks, until `deadline`, in the network of the process; `moved` is whether this thread has left our own.
    fn ask(&self, survey: &Survey<'_>, deadline: Instant, moved: &mut bool) -> Answer {
        let entry = &self.running().entry;
        if *moved || entry.has_own_namespace("net").unwrap_or(false) {
            if let Err(error) = entry.enter_network() {
                return self.failed(error);
            }
            *moved = true;
        }
        match self {
            Self::Members(server) => {
                Answer::Members(server.running.pid(), membership::ask(survey, server, deadline))
            }
            Self::Wire(running, socket) => Answer::Wire(
                (running.pid(), socket.to_string()),
                Box::new(probe(survey, running, socket, deadline)),
                None,
            ),
            Self::Both(server, socket) => {
                let wire = probe(survey, server.running, socket, deadline);
                let members = wire.as_ref().ok().filter(|wire| wire.raft == Some(true)).and_then(|wire| {
                    membership::ask_at(survey, server, socket, !wire.serves_plaintext(), deadline).ok()
                });
                Answer::Wire((server.running.pid(), socket.to_string()), Box::new(wire), members)
            }
        }
    }
}

/// What a [`Job`] found.
enum Answer {
    Members(u32, Result<LiveMembers, EvidenceError>),
    Wire((u32, String), Box<Result<Wire, EvidenceError>>, Option<LiveMembers>),
}

/// Asks a socket of `running` what it speaks, until `deadline`.
fn probe(
    survey: &Survey<'_>,
    running: &Running,
    socket: &Socket,
    deadline: Instant,
) -> Result<Wire, EvidenceError> {
    seaworthy_wire::probe(&socket.target(running)?, &survey.probing_until(deadline)?)
}

/// Runs `ask` in the network namespace of a process: the calling thread, which must end with it, moves there.
pub(crate) fn in_its_network<T>(
    running: &Running,
    ask: impl FnOnce() -> Result<T, EvidenceError>,
) -> Result<T, EvidenceError> {
    if running.entry.has_own_namespace("net").unwrap_or(false) {
        running.entry.enter_network()?;
    }
    ask()
}

/// Returns each listening socket.
pub(crate) fn addresses(sockets: &Sockets) -> impl Iterator<Item = Socket> {
    let tcp = sockets.listening.iter().map(|socket| Socket::Tcp(socket.local));
    let unix = sockets.unix_listening.iter().filter_map(|path| String::from_utf8(path.clone()).ok());
    tcp.chain(unix.map(Socket::Unix))
}

/// Returns the listening socket with this address.
pub(crate) fn socket(sockets: &Sockets, address: &str) -> Option<Socket> {
    addresses(sockets).find(|socket| socket.to_string() == address)
}

/// Returns where to connect to reach a socket that listens on `local`.
fn reachable(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, local.port())
}

/// Returns the sockets that `urls` asked for, each with whether its URL says TLS.
pub(crate) fn configured(urls: &[(Url, Origin, Purpose)], sockets: &Sockets) -> Vec<(Socket, bool)> {
    let mut found: Vec<(Socket, bool)> = Vec::new();
    for (url, ..) in urls {
        let Some(address) = socket_of(url, sockets) else { continue };
        if let Some(socket) =
            socket(sockets, &address).filter(|socket| !found.iter().any(|(known, _)| known == socket))
        {
            found.push((socket, url.is_tls()));
        }
    }
    found
}

/// Returns all listeners of a process: each of the configured `urls` with its socket, and each socket that no URL names.
pub(crate) fn all(
    survey: &Survey<'_>,
    running: &Running,
    urls: &[(Url, Origin, Purpose)],
    sockets: &Sockets,
    answers: &Answers,
) -> Vec<Listener> {
    let root = running.root.as_ref().map_err(Clone::clone);
    let access = OnceCell::new();
    let open_to = |url: &Url, address: Option<&str>| {
        let path = socket_path(url)?;
        let access = access.get_or_init(|| Access::of_process(&running.entry, root.clone(), survey.users));
        let path = address.unwrap_or(path);
        let found = match path.starts_with('@') {
            true => access.open_to(path),
            false => running.absolute(path).and_then(|path| access.open_to(&path)),
        };
        Some(Observed::from_result(found, Origin::derived(format!("owners and modes on the way to {path}"))))
    };
    let mut claimed: Vec<String> = Vec::new();
    let mut listeners = Vec::new();
    for (url, origin, purpose) in urls {
        let address = socket_of(url, sockets);
        claimed.extend(address.clone());
        let wire = address.as_deref().and_then(|address| answers.wire(running.pid(), address));
        let open_to = open_to(url, address.as_deref());
        let (url, origin) = (url.clone(), origin.clone());
        listeners.push(Listener { url, purpose: *purpose, configured: true, address, wire, open_to, origin });
    }
    for address in addresses(sockets).map(|s| s.to_string()).filter(|address| !claimed.contains(address)) {
        let mut listener = unclaimed(running, address, answers);
        listener.open_to = open_to(&listener.url, listener.address.as_deref());
        listeners.push(listener);
    }
    listeners
}

/// Returns the listener of a socket that no setting names, described by what it said.
pub(crate) fn unclaimed(running: &Running, address: String, answers: &Answers) -> Listener {
    let wire = answers.wire(running.pid(), &address);
    let said = wire.as_ref().and_then(Observed::value);
    let purpose = if said.is_some_and(|w| w.raft == Some(true)) { Purpose::Peer } else { Purpose::Client };
    let tls = said.is_some_and(|w| w.speaks_only_tls() == Some(true));
    let unix = address.parse::<SocketAddr>().is_err();
    let scheme = match (unix, tls) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "unix",
        (true, true) => "unixs",
    };
    let text = format!("{scheme}://{address}");
    let url = Url::parse(&text).unwrap_or(Url {
        text,
        scheme: scheme.to_owned(),
        host: address.clone(),
        port: None,
    });
    let origin = running.entry.origin("net/tcp");
    Listener { url, purpose, configured: false, address: Some(address), wire, open_to: None, origin }
}

/// Returns the path of the UNIX socket that `url` names.
fn socket_path(url: &Url) -> Option<&str> {
    matches!(url.scheme.as_str(), "unix" | "unixs").then_some(&url.host)
}

/// Returns the address of the listening socket that `url` asked for.
fn socket_of(url: &Url, sockets: &Sockets) -> Option<String> {
    if let Some(path) = socket_path(url) {
        let path = sockets.unix_listening.iter().find(|socket| socket.as_slice() == path.as_bytes())?;
        return Some(String::from_utf8_lossy(path).into_owned());
    }
    let port = url.port?;
    let fits = |socket: &SocketAddr| match url.host.parse::<IpAddr>() {
        Ok(ip) => socket.ip() == ip || ip.is_unspecified() && socket.ip().is_unspecified(),
        Err(_) if url.host == "localhost" => socket.ip().is_loopback(),
        Err(_) => true,
    };
    let locals = sockets.listening.iter().map(|s| s.local).filter(|local| local.port() == port);
    locals.clone().find(fits).map(|local| local.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaworthy_host::sockets::TcpSocket;

    #[test]
    fn urls_find_their_sockets() {
        let socket = |text: &str| TcpSocket {
            local: text.parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            inode: 1,
        };
        let sockets = Sockets {
            listening: vec![socket("10.0.0.1:2380"), socket("[::]:2379"), socket("127.0.0.1:2381")],
            unix_listening: vec![b"/run/etcd.sock".to_vec()],
            ..Sockets::default()
        };
        let cases = [
            ("https://10.0.0.1:2380", Some("10.0.0.1:2380")),
            ("https://0.0.0.0:2379", Some("[::]:2379")),
            ("http://localhost:2381", Some("127.0.0.1:2381")),
            ("https://node-1:2380", Some("10.0.0.1:2380")),
            ("https://10.0.0.2:2380", None),
            ("unixs:///run/etcd.sock", Some("/run/etcd.sock")),
        ];
        for (url, want) in cases {
            assert_eq!(socket_of(&Url::parse(url).unwrap(), &sockets).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn listeners_that_are_silent_or_too_many_do_not_add_up() {
        let silent: Vec<_> =
            (0..MAX_SOCKETS + 6).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let running = Running::ourselves(&[]);
        let options = crate::survey::Options {
            root: "/".into(),
            wire: true,
            observe: None,
            timeout: std::time::Duration::from_millis(200),
            layout: None,
            patience: std::time::Duration::ZERO,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let root = seaworthy_host::root::Root::host("/").unwrap();
        let survey =
            Survey { options: &options, root: &root, users: &seaworthy_host::users::Users::default() };
        let started = Instant::now();
        let answers = ask_all(
            &survey,
            &[Server::read(&super::super::processes::Found::default(), &running)],
            &[],
            std::iter::empty(),
        );
        assert!(started.elapsed() < std::time::Duration::from_secs(8), "{:?}", started.elapsed());
        let mut unasked = 0;
        for listener in silent {
            let address = listener.local_addr().unwrap().to_string();
            match answers.wire(running.pid(), &address).unwrap().error().unwrap().kind {
                ErrorKind::Timeout => {}
                ErrorKind::TooLarge => unasked += 1,
                other => panic!("{address}: {other:?}"),
            }
        }
        // Other tests may have listeners, too.
        assert!(unasked >= 6, "{unasked}");
        // No peer URL names any of them.
        let members = answers.members(running.pid()).unwrap();
        assert_eq!(members.as_ref().err().unwrap().kind, ErrorKind::NotFound);
    }
}
