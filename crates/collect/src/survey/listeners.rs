//! Listeners: what is configured, joined with the sockets there really are and with what they say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::{Builder, ScopedJoinHandle};

use seaworthy_evidence::{ErrorKind, EvidenceError, Listener, Observed, Origin, Purpose, Url, Wire};
use seaworthy_wire::Target;

use super::Survey;
use super::membership::{self, LiveMembers};
use super::processes::Running;
use super::proxy;
use super::server::Server;
use crate::sockets::Sockets;

/// What the listeners of the node answered, by process and address.
#[derive(Default)]
pub(crate) struct Answers {
    wires: BTreeMap<(u32, String), Result<Wire, EvidenceError>>,
    members: BTreeMap<u32, Result<LiveMembers, EvidenceError>>,
}

impl Answers {
    /// Returns what the socket at `address` of process `pid` said; `None` when it was not asked.
    pub(crate) fn wire(&self, pid: u32, address: &str) -> Option<Observed<Wire>> {
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
}

/// Asks every listening socket of the servers and proxies what it speaks, and every server for its members, all at the
/// same time. Asks nothing when the wire is off.
pub(crate) fn ask_all(
    survey: &Survey<'_>,
    servers: &[Server<'_>],
    proxies: &[proxy::Reading<'_>],
) -> Answers {
    let mut answers = Answers::default();
    if !survey.options.wire {
        return answers;
    }
    let sockets = servers.iter().map(|s| (s.running, s.sockets.as_ref()));
    let sockets = sockets.chain(proxies.iter().map(|p| (p.running, p.sockets.as_ref())));
    let mut targets: Vec<(&Running, String, Target)> = Vec::new();
    for (running, sockets) in sockets {
        let Ok(sockets) = sockets else { continue };
        for (address, target) in addresses(sockets) {
            if !targets.iter().any(|(r, a, _)| r.pid() == running.pid() && *a == address) {
                targets.push((running, address, target));
            }
        }
    }
    let lost = || EvidenceError::new(ErrorKind::Io, "the probe did not finish");
    let options = survey.probing();
    std::thread::scope(|scope| {
        let probes: Vec<_> = targets
            .iter()
            .map(|(running, address, target)| {
                let options = &options;
                let probe = move || in_its_network(running, || seaworthy_wire::probe(target, options));
                ((running.pid(), address.clone()), Builder::new().spawn_scoped(scope, probe))
            })
            .collect();
        let members: Vec<_> = servers
            .iter()
            .map(|server| {
                let ask = || in_its_network(server.running, || membership::ask(survey, server));
                (server.running.pid(), Builder::new().spawn_scoped(scope, ask))
            })
            .collect();
        for (key, probe) in probes {
            answers.wires.insert(key, joined(probe).unwrap_or_else(|| Err(lost())));
        }
        for (pid, ask) in members {
            answers.members.insert(pid, joined(ask).unwrap_or_else(|| Err(lost())));
        }
    });
    answers
}

/// Returns what a thread returned; `None` when there was none to be had, or it did not finish.
fn joined<T>(thread: io::Result<ScopedJoinHandle<'_, T>>) -> Option<T> {
    thread.ok()?.join().ok()
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

/// Returns each listening socket: its address as text, and where to connect to.
fn addresses(sockets: &Sockets) -> impl Iterator<Item = (String, Target)> {
    let tcp = sockets
        .listening
        .iter()
        .map(|socket| (socket.local.to_string(), Target::tcp(reachable(socket.local))));
    let unix = sockets.unix_listening.iter().filter_map(|path| {
        let path = String::from_utf8(path.clone()).ok()?;
        Some((path.clone(), Target::unix(path)))
    });
    tcp.chain(unix)
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

/// Returns where to connect to reach the sockets that `urls` asked for; every socket when none of them has one.
pub(crate) fn targets(urls: &[(Url, Origin, Purpose)], sockets: &Sockets) -> Vec<Target> {
    let wanted: Vec<String> = urls.iter().filter_map(|(url, ..)| socket_of(url, sockets)).collect();
    let all = addresses(sockets);
    all.filter(|(address, _)| wanted.is_empty() || wanted.contains(address))
        .map(|(_, target)| target)
        .collect()
}

/// Returns all listeners of a process: each of the configured `urls` with its socket, and each socket that no URL names.
pub(crate) fn join(
    running: &Running,
    urls: &[(Url, Origin, Purpose)],
    sockets: &Sockets,
    answers: &Answers,
) -> Vec<Listener> {
    let mut claimed: Vec<String> = Vec::new();
    let mut listeners = Vec::new();
    for (url, origin, purpose) in urls {
        let address = socket_of(url, sockets);
        claimed.extend(address.clone());
        let wire = address.as_deref().and_then(|address| answers.wire(running.pid(), address));
        let (url, origin) = (url.clone(), origin.clone());
        listeners.push(Listener { url, purpose: *purpose, configured: true, address, wire, origin });
    }
    for (address, _) in addresses(sockets).filter(|(address, _)| !claimed.contains(address)) {
        listeners.push(unclaimed(running, address, answers));
    }
    listeners
}

/// Returns the listener of a socket that no setting names, described by what it said.
fn unclaimed(running: &Running, address: String, answers: &Answers) -> Listener {
    let wire = answers.wire(running.pid(), &address);
    let said = wire.as_ref().and_then(Observed::value);
    let purpose = if said.is_some_and(|w| w.raft == Some(true)) { Purpose::Peer } else { Purpose::Client };
    let tls = said.is_some_and(|w| w.tls && !w.plaintext);
    let unix = address.starts_with('/');
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
    Listener { url, purpose, configured: false, address: Some(address), wire, origin }
}

/// Returns the address of the listening socket that `url` asked for.
fn socket_of(url: &Url, sockets: &Sockets) -> Option<String> {
    let Some(port) = url.port else {
        let path = sockets.unix_listening.iter().find(|path| path.as_slice() == url.host.as_bytes())?;
        return Some(String::from_utf8_lossy(path).into_owned());
    };
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
    use crate::sockets::TcpSocket;

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
}
