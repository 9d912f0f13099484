//! Sockets of a process: the inodes behind its file descriptors, joined with the sockets of its own network
//! namespace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use seaworthy_evidence::{ErrorKind, EvidenceError};

use crate::procfs::{ProcessEntry, parse_ascii};
use crate::sock_diag;

/// Most bytes that are read of one table: some 400,000 connections.
const CAP: u64 = 64 << 20;

/// Most listening sockets of one process, each of which is compared with each connection. An etcd has a handful.
const MAX_LISTENING: usize = 1024;

/// The sockets of one process. Every list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// TCP sockets that listen; `remote` has port 0.
    pub listening: Vec<TcpSocket>,
    /// Established TCP connections, whoever began them.
    pub established: Vec<TcpSocket>,
    /// Paths of the Unix sockets that listen; an abstract one begins with `@`.
    pub unix_listening: Vec<Vec<u8>>,
}

/// One TCP socket. IPv4 addresses are IPv4 addresses here, also those of an IPv6 socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// Its inode, by which two processes that share it can be recognised.
    pub inode: u64,
}

impl Sockets {
    /// Returns the sockets that `process` has open, as [`Self::of_processes`] does.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` when its file descriptors may not be seen, `TooLarge` when a table has more than 64
    /// MiB or more than 1024 of its sockets listen, `Vanished`.
    pub fn of_process(process: &ProcessEntry) -> Result<Self, EvidenceError> {
        Self::of_processes(&[process]).pop().unwrap_or_else(|| Ok(Self::default()))
    }

    /// Returns the sockets that each of `processes` has open. What a network has is read once for all that are in it: to come
    /// to the end of its connections, the kernel walks all of a hash table, milliseconds on a large machine.
    pub fn of_processes(processes: &[&ProcessEntry]) -> Vec<Result<Self, EvidenceError>> {
        let mut all = Vec::with_capacity(processes.len());
        let mut networks: BTreeMap<Vec<u8>, Network<'_>> = BTreeMap::new();
        for (index, process) in processes.iter().enumerate() {
            // The descriptors come first: a connection that is made in between is left out instead of being
            // unowned.
            all.push(process.socket_inodes().map(|inodes| {
                let network =
                    process.namespace("net").unwrap_or_else(|_| process.pid().to_string().into_bytes());
                networks.entry(network).or_default().add(index, process, inodes);
                Self::default()
            }));
        }
        networks.into_values().for_each(|network| network.read(&mut all));
        let checked =
            |(sockets, process): (Result<Self, EvidenceError>, &&ProcessEntry)| sockets?.checked(process);
        all.into_iter().zip(processes).map(checked).collect()
    }

    /// Returns them sorted.
    fn checked(mut self, process: &ProcessEntry) -> Result<Self, EvidenceError> {
        if self.listening.len() + self.unix_listening.len() > MAX_LISTENING {
            let message = format!("{}: more than {MAX_LISTENING} listening sockets", process.origin("fd"));
            return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(process.origin("fd")));
        }
        self.listening.sort_unstable();
        self.established.sort_unstable();
        self.unix_listening.sort_unstable();
        Ok(self)
    }

    /// Takes out the connections that `process` has closed by now.
    pub fn retain_open(&mut self, process: &ProcessEntry) {
        if let Ok(open) = process.socket_inodes() {
            self.established.retain(|socket| open.contains(&socket.inode));
        }
    }
}

/// Some processes in one network namespace, and the sockets that are looked for.
#[derive(Default)]
struct Network<'p> {
    /// Each with its number.
    processes: Vec<(usize, &'p ProcessEntry)>,
    /// The inodes of sockets, each with the numbers of the processes that have it open.
    wanted: HashMap<u64, Vec<usize>>,
    found: BTreeMap<usize, Sockets>,
}

impl<'p> Network<'p> {
    fn add(&mut self, index: usize, process: &'p ProcessEntry, inodes: HashSet<u64>) {
        self.processes.push((index, process));
        self.found.insert(index, Sockets::default());
        inodes.into_iter().for_each(|inode| self.wanted.entry(inode).or_default().push(index));
    }

    /// Puts what there is into `all`, at the numbers of the processes.
    fn read(mut self, all: &mut [Result<Sockets, EvidenceError>]) {
        let processes = std::mem::take(&mut self.processes);
        // The tables are those of any process in the network that is still there.
        let mut outcome = Ok(());
        for (_, process) in &processes {
            outcome = self.read_by(process);
            if outcome.is_ok() {
                break;
            }
        }
        for (index, sockets) in self.found {
            if let Some(to) = all.get_mut(index) {
                *to = outcome.clone().map(|()| sockets);
            }
        }
    }

    fn read_by(&mut self, process: &ProcessEntry) -> Result<(), EvidenceError> {
        self.read_table(process, "net/unix", Self::read_unix)?;
        // The kernel answers for our own network only; `/proc/PID` shows that of the process.
        let ours = process.has_own_namespace("net").is_ok_and(|own| !own);
        if !ours || sock_diag::for_each_tcp(|state, socket| self.add_tcp(state, socket)).is_err() {
            self.read_table(process, "net/tcp", Self::read_tcp)?;
            self.read_table(process, "net/tcp6", Self::read_tcp)?;
        }
        Ok(())
    }

    /// Adds a TCP socket if its inode is wanted, which then is not wanted any more; returns whether others are.
    fn add_tcp(&mut self, state: TcpState, socket: TcpSocket) -> bool {
        for sockets in self.owners(socket.inode) {
            match state {
                TcpState::Established => sockets.established.push(socket),
                TcpState::Listen => sockets.listening.push(socket),
                TcpState::Other => {}
            }
        }
        !self.wanted.is_empty()
    }

    /// Returns the sockets of the processes that have this one open.
    fn owners(&mut self, inode: u64) -> impl Iterator<Item = &mut Sockets> {
        let owners = self.wanted.remove(&inode).unwrap_or_default();
        self.found.iter_mut().filter(move |(index, _)| owners.contains(index)).map(|(_, sockets)| sockets)
    }

    /// Adds the sockets that are wanted and in the table `name` of the process, by `read`.
    fn read_table(
        &mut self,
        process: &ProcessEntry,
        name: &str,
        read: fn(&mut Self, &mut dyn BufRead) -> io::Result<()>,
    ) -> Result<(), EvidenceError> {
        // Each table is read only until all sockets have been found.
        if self.wanted.is_empty() {
            return Ok(());
        }
        let table = match process.open_file(name) {
            Ok(file) => file,
            // A kernel or a namespace without IPv6, or without Unix sockets.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut table = BufReader::with_capacity(1 << 16, table.take(CAP));
        read(self, &mut table).map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => process.error(name, errno),
            None => EvidenceError::from_io(&error, process.origin(name)).at(process.origin(name)),
        })?;
        if table.get_ref().limit() == 0 {
            let message =
                format!("{}: more than the {CAP} bytes that are read at most", process.origin(name));
            return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(process.origin(name)));
        }
        Ok(())
    }

    /// Reads a table of the form of `/proc/net/tcp` or `/proc/net/tcp6`.
    fn read_tcp(&mut self, table: &mut dyn BufRead) -> io::Result<()> {
        for_each_line(table, |line| match parse_tcp(line) {
            Some((state, socket)) => self.add_tcp(state, socket),
            None => true,
        })
    }

    /// Reads a table of the form of `/proc/net/unix`.
    fn read_unix(&mut self, table: &mut dyn BufRead) -> io::Result<()> {
        for_each_line(table, |line| {
            if let Some((inode, listener)) = parse_unix(line) {
                self.owners(inode)
                    .for_each(|sockets| sockets.unix_listening.extend(listener.map(<[u8]>::to_vec)));
            }
            !self.wanted.is_empty()
        })
    }
}

/// The states of a TCP socket that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpState {
    Established,
    Listen,
    Other,
}

impl TcpState {
    /// Numbers of the states in the kernel's `tcp_states.h`.
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const LISTEN: u8 = 10;
}

impl From<u8> for TcpState {
    fn from(number: u8) -> Self {
        match number {
            Self::ESTABLISHED => Self::Established,
            Self::LISTEN => Self::Listen,
            _ => Self::Other,
        }
    }
}

/// Calls `visit` with each line of `table` while it asks for more, reusing one buffer.
fn for_each_line(table: &mut dyn BufRead, mut visit: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    while table.read_until(b'\n', &mut line)? > 0 && visit(line.strip_suffix(b"\n").unwrap_or(&line)) {
        line.clear();
    }
    Ok(())
}

/// Returns the socket in one line of a TCP table: `sl local remote state queues timer retransmits uid timeout
/// inode …`. `None` for the heading and for anything else.
fn parse_tcp(line: &[u8]) -> Option<(TcpState, TcpSocket)> {
    let mut fields = words(line);
    let (local, remote) = (fields.nth(1)?, fields.next()?);
    let state = u8::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 16).ok()?.into();
    let inode = parse_ascii(fields.nth(5)?)?;
    Some((state, TcpSocket { local: parse_address(local)?, remote: parse_address(remote)?, inode }))
}

/// Returns inode, and path if it has one and listens, of the socket in one line of `/proc/net/unix`:
/// `num: references protocol flags type state inode path`.
fn parse_unix(line: &[u8]) -> Option<(u64, Option<&[u8]>)> {
    /// `__SO_ACCEPTCON`: the socket listens.
    const ACCEPTING: u32 = 1 << 16;
    let (mut word, mut rest) = (Default::default(), line);
    let mut next = |count: usize| {
        for _ in 0..count {
            let trimmed = rest.trim_ascii_start();
            (word, rest) = trimmed.split_at(trimmed.iter().position(|&b| b == b' ').unwrap_or(trimmed.len()));
        }
        (word, rest)
    };
    let flags = u32::from_str_radix(std::str::from_utf8(next(4).0).ok()?, 16).ok()?;
    let (inode, path) = next(3);
    // The path may hold spaces, so it is all that follows the inode and one space. Unnamed sockets have none.
    Some((parse_ascii(inode)?, path.strip_prefix(b" ").filter(|_| flags & ACCEPTING != 0)))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&b| b == b' ').filter(|word| !word.is_empty())
}

/// Returns the address in `text`: each 32-bit word of it in hexadecimal as this machine reads it from memory,
/// in which it lies in network order; then a colon and the port.
fn parse_address(text: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;
    use crate::procfs::Proc;

    #[test]
    fn our_own_sockets_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a socket");
        let _unix = UnixListener::bind(&path).unwrap();

        let process = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let sockets = Sockets::of_process(&process).unwrap();
        assert!(sockets.listening.iter().any(|s| s.local == address && s.remote.port() == 0), "{sockets:?}");
        for stream in [&client, &server] {
            let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            assert!(
                sockets.established.iter().any(|s| (s.local, s.remote) == (local, remote)),
                "{sockets:?}"
            );
        }
        assert!(sockets.unix_listening.iter().any(|p| p == path.as_os_str().as_bytes()), "{sockets:?}");
    }

    #[test]
    fn the_kernel_says_the_same_in_both_ways() {
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).ok());
        let clients: Vec<_> = listeners
            .iter()
            .flatten()
            .map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
            .collect();
        let process = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let [mut asked, mut read] = [(); 2].map(|()| {
            let mut network = Network::default();
            network.add(0, &process, process.socket_inodes().unwrap());
            network
        });
        for table in ["net/tcp", "net/tcp6"] {
            read.read_table(&process, table, Network::read_tcp).unwrap();
        }
        // A kernel without sock_diag says nothing.
        if sock_diag::for_each_tcp(|state, socket| asked.add_tcp(state, socket)).is_err() {
            return;
        }
        let [asked, read] = [&asked.found[&0], &read.found[&0]];
        // Other tests open and close sockets meanwhile.
        for (listener, client) in listeners.iter().flatten().zip(clients) {
            let (local, remote) = (listener.local_addr().unwrap(), client.local_addr().unwrap());
            for sockets in [asked, read] {
                assert!(sockets.listening.iter().any(|s| s.local == local), "{sockets:?}");
                assert!(
                    sockets.established.iter().any(|s| (s.local, s.remote) == (remote, local)),
                    "{sockets:?}"
                );
            }
        }
    }

    #[test]
    fn a_closed_connection_does_not_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let [kept, closed] = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let process = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let mut sockets = Sockets::of_process(&process).unwrap();
        let [kept_at, closed_at] = [&kept, &closed].map(|stream| stream.local_addr().unwrap());
        drop(closed);
        sockets.retain_open(&process);
        let has = |address| sockets.established.iter().any(|s| s.local == address);
        assert!(has(kept_at) && !has(closed_at), "{sockets:?}");
    }

    #[test]
    fn an_ipv6_socket_with_an_ipv4_peer() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let process = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let sockets = Sockets::of_process(&process).unwrap();
        let want = (SocketAddr::from(([127, 0, 0, 1], port)), client.local_addr().unwrap());
        assert!(sockets.established.iter().any(|s| (s.local, s.remote) == want), "{sockets:?}");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_are_parsed() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:094C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n   \
            1: 0A00000A:094C 0B00000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n   \
            2: 0A00000A:094C 0B00000A:C351 06 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n   \
            3: 0A00000A:094C 0B00000A:C352 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0\n   \
            4: 0000000000000000FFFF00000A00000A:094C 0000000000000000FFFF00000C00000A:C350 01 \
            00000000:00000000 00:00000000 00000000     0        0 14 1 0\n\
            5: 00000000000000000000000001000000:094D 00000000000000000000000000000000:0000 0A \
            00000000:00000000 00:00000000 00000000     0        0 15 1 0\n\
            6: 0A00000A:094C 0B00000A:C353 08 00000000:00000000 00:00000000 00000000     0        0 16 1 0\n\
            7: an end that the kernel need not come to";
        let process = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let mut network = Network::default();
        let mut rest = table.as_bytes();
        network.add(0, &process, HashSet::from([11, 12, 14, 15, 16]));
        network.add(1, &process, HashSet::from([11]));
        network.read_tcp(&mut rest).unwrap();
        assert!(network.wanted.is_empty() && rest.starts_with(b"7: an end"), "read on: {:?}", network.wanted);
        let sockets = &network.found[&0];
        let tcp = |local: &str, remote: &str, inode| TcpSocket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode,
        };
        assert_eq!(
            sockets.listening,
            [tcp("127.0.0.1:2380", "0.0.0.0:0", 11), tcp("[::1]:2381", "[::]:0", 15)]
        );
        assert_eq!(
            sockets.established,
            [tcp("10.0.0.10:2380", "10.0.0.11:50000", 12), tcp("10.0.0.10:2380", "10.0.0.12:50000", 14)]
        );
        assert_eq!(network.found[&1].listening, [tcp("127.0.0.1:2380", "0.0.0.0:0", 11)], "two have it open");

        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 21 /run/etcd socket 21\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/connected\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 24 @abstract\n";
        network.add(2, &process, (20..25).collect());
        network.read_unix(&mut table.as_bytes()).unwrap();
        assert_eq!(network.found[&2].unix_listening, [&b"/run/etcd socket 21"[..], b"@abstract"]);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec(prop::sample::select(b" :0A1Ff\x80-".to_vec()), 0..200)) {
            parse_tcp(&line);
            parse_unix(&line);
        }
    }
}
