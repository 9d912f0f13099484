//! A passive look at connections that exist already.
//!
//! Whether a listener speaks TLS says nothing about connections older than its last restart: etcd's streams stay as
//! they were made. The only witness is what goes over them now.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth};
use seaworthy_evidence::{ErrorKind, EvidenceError, PassiveView};

use crate::flight::begins_like_record;

/// What was seen of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The end whose port was asked for. Which end is on this machine is not known here.
    pub listener: SocketAddr,
    /// The other end.
    pub dialer: SocketAddr,
    /// What its segments look like.
    pub view: PassiveView,
    /// How many segments with payload were seen.
    pub segments: u32,
}

/// Watches for `duration`, in the network namespace of the calling thread, the TCP connections that have one of
/// `ports` at one end.
///
/// Only the headers and the first 5 bytes of each segment are looked at, and nothing is kept of them. A connection with
/// too few segments to be sure is left out; etcd's heartbeats give about 10 a second.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] without `CAP_NET_RAW`.
pub fn observe(ports: &[u16], duration: Duration) -> Result<Vec<Seen>, EvidenceError> {
    let failure = |e: io::Error| match e.kind() {
        io::ErrorKind::PermissionDenied => EvidenceError::new(
            ErrorKind::PermissionDenied,
            "watching connections needs CAP_NET_RAW in their network namespace",
        ),
        _ => EvidenceError::from_io(&e, "watching connections"),
    };
    let socket = packet_socket().map_err(failure)?;
    let started = Instant::now();
    let mut watch = Watch::new(ports);
    let mut packet = [0; MAX_HEADERS];
    loop {
        let left = duration.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(watch.seen());
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(left)).map_err(|e| failure(e.into()))?;
        match rustix::net::recv(&socket, &mut packet, RecvFlags::empty()) {
            Ok((n, _)) => watch.packet(packet.get(..n).unwrap_or_default(), Instant::now()),
            Err(e) if is_pause(e.into()) => {}
            Err(e) => return Err(failure(e.into())),
        }
    }
}

/// IPv4 and TCP headers with all options, and the header of a TLS record.
const MAX_HEADERS: usize = 60 + 60 + 5;

/// Segments that must begin a write, and not like a TLS record, before a connection is called plaintext.
const ENOUGH: u32 = 2;

/// A sender that was silent for so long after a completed write had nothing left to send.
const PAUSE: Duration = Duration::from_millis(1);

/// More connections than this are not followed.
const MAX_CONNECTIONS: usize = 1 << 16;

/// Returns a socket that gets a copy of each packet, in both directions, from its network header on.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(eth::ALL))?)
}

/// Returns whether the network was quiet, or an interface went down meanwhile.
fn is_pause(error: io::Error) -> bool {
    use io::ErrorKind::{Interrupted, NetworkDown, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | NetworkDown | TimedOut | WouldBlock)
}

/// Connections being watched.
struct Watch<'a> {
    ports: &'a [u16],
    connections: HashMap<(SocketAddr, SocketAddr), Watched>,
}

#[derive(Default)]
struct Watched {
    segments: u32,
    /// Segments that began like a TLS record.
    records: u32,
    /// Segments that began a write of the sender, and not like a TLS record.
    others: u32,
    /// By direction: to the dialer, to the listener.
    last: [Option<Last>; 2],
}

/// The end of the last segment of one direction.
#[derive(Clone, Copy)]
struct Last {
    /// The sequence number that follows it.
    next: u32,
    /// Whether it ended a write.
    pushed: bool,
    seen: Instant,
}

impl<'a> Watch<'a> {
    fn new(ports: &'a [u16]) -> Self {
        Self { ports, connections: HashMap::new() }
    }

    /// Looks at one IP packet seen at `now`, of which only the beginning need be there.
    fn packet(&mut self, packet: &[u8], now: Instant) {
        let Some(segment) = Segment::parse(packet) else { return };
        let (key, direction) = if self.ports.contains(&segment.from.port()) {
            ((segment.from, segment.to), 0)
        } else if self.ports.contains(&segment.to.port()) {
            ((segment.to, segment.from), 1)
        } else {
            return;
        };
        if segment.length == 0
            || (self.connections.len() >= MAX_CONNECTIONS && !self.connections.contains_key(&key))
        {
            return;
        }
        let watched = self.connections.entry(key).or_default();
        let Some(last) = watched.last.get_mut(direction) else { return };
        let next = segment.sequence.wrapping_add(segment.length);
        let before = last.replace(Last { next, pushed: segment.pushed, seen: now });
        // On the loopback interface every packet is seen twice, once on its way out and once on its way in.
        if before.is_some_and(|last| last.next == next) {
            return;
        }
        watched.segments = watched.segments.saturating_add(1);
        // A segment in the middle of a long record begins like anything. One that follows a completed write and a pause
        // begins the next write, and TLS writes whole records.
        let begins_write = before.is_some_and(|last| {
            last.next == segment.sequence && last.pushed && now.duration_since(last.seen) >= PAUSE
        });
        if segment.payload.len() >= 5 && begins_like_record(segment.payload) {
            watched.records = watched.records.saturating_add(1);
        } else if begins_write {
            watched.others = watched.others.saturating_add(1);
        }
    }

    fn seen(self) -> Vec<Seen> {
        let mut seen: Vec<Seen> = self
            .connections
            .into_iter()
            .filter_map(|((listener, dialer), watched)| {
                // Among very many segments of plaintext, one or the other begins like a record by chance.
                let view = if watched.records > watched.others {
                    PassiveView::Tls
                } else if watched.others >= ENOUGH && watched.others > watched.records {
                    PassiveView::Plaintext
                } else {
                    return None;
                };
                Some(Seen { listener, dialer, view, segments: watched.segments })
            })
            .collect();
        seen.sort_by_key(|s| (s.listener, s.dialer));
        seen
    }
}

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    /// Whether the sender's write ended with it (PSH).
    pushed: bool,
    /// Length of the whole payload.
    length: u32,
    /// As much of the payload as there is.
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Returns the TCP segment in the IPv4 (RFC 791) or IPv6 (RFC 8200) `packet`; `None` for anything else, for
    /// fragments but the first, and for IPv6 with extension headers.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let byte = |at: usize| packet.get(at).copied();
        let short = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
        let octets = |at: usize, n: usize| packet.get(at..at + n);
        let (from, to, total, header): (IpAddr, IpAddr, u32, usize) = match byte(0)? >> 4 {
            4 if byte(9)? == TCP && short(6)? & 0x1fff == 0 => {
                let address = |at| Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets(at, 4)?).ok()?));
                let header = usize::from(byte(0)? & 15) * 4;
                (address(12)?.into(), address(16)?.into(), short(2)?.into(), header)
            }
            6 if byte(6)? == TCP => {
                let address = |at| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets(at, 16)?).ok()?));
                (address(8)?.into(), address(24)?.into(), u32::from(short(4)?) + 40, 40)
            }
            _ => return None,
        };
        let tcp = packet.get(header..)?;
        let word = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        let headers = u32::try_from(header + data).ok()?;
        Some(Self {
            from: SocketAddr::new(from, word(0)?),
            to: SocketAddr::new(to, word(2)?),
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            pushed: tcp.get(13)? & 8 != 0,
            length: total.checked_sub(headers)?,
            payload: tcp.get(data..)?,
        })
    }
}

const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const PUSH: u8 = 8;

    fn packet(from: u16, to: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn segments_are_parsed() {
        let v4 = packet(2380, 40000, 7, PUSH, b"hello");
        let segment = Segment::parse(&v4).unwrap();
        assert_eq!(segment.from, "10.0.0.1:2380".parse().unwrap());
        assert_eq!(segment.to, "10.0.0.2:40000".parse().unwrap());
        let rest = (segment.sequence, segment.pushed, segment.length, segment.payload);
        assert_eq!(rest, (7, true, 5, &b"hello"[..]));
        // The payload may be longer than what was captured.
        assert_eq!(Segment::parse(&v4[..42]).unwrap().length, 5);

        let mut v6 = vec![0x60, 0, 0, 0, 0, 25, TCP, 64];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend(&v4[20..]);
        let segment = Segment::parse(&v6).unwrap();
        assert_eq!((segment.from, segment.length), ("[::1]:2380".parse().unwrap(), 5));

        for cut in 0..40 {
            assert_eq!(Segment::parse(&v4[..cut]), None, "cut at {cut}");
        }
        let edits = [(9, 17), (6, 0x1f), (0, 0x75), (3, 20)];
        for (at, byte) in edits {
            let mut other = v4.clone();
            other[at] = byte;
            assert_eq!(Segment::parse(&other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn connections_are_told_apart() {
        const RECORD: &[u8] = b"\x17\x03\x03\x00\x20";
        // Milliseconds, sequence number, flags, payload.
        type Sent = (u64, u32, u8, &'static [u8]);
        type Case = (&'static [Sent], Option<(PassiveView, u32)>);
        let cases: [Case; 7] = [
            (&[(0, 0, PUSH, RECORD)], Some((PassiveView::Tls, 1))),
            (
                &[(0, 0, PUSH, b"beat1"), (100, 5, PUSH, b"beat2"), (200, 10, PUSH, b"beat3")],
                Some((PassiveView::Plaintext, 3)),
            ),
            // One of many that begins like a record by chance.
            (
                &[(0, 0, PUSH, RECORD), (9, 5, PUSH, b"beat1"), (18, 10, PUSH, b"beat2")],
                Some((PassiveView::Plaintext, 3)),
            ),
            // Each packet twice, as on the loopback interface: still one write only.
            (&[(0, 0, PUSH, b"beat1"), (5, 0, PUSH, b"beat1"), (9, 5, PUSH, b"beat2")], None),
            // The middle of a long record, of which the beginning was not seen.
            (&[(0, 0, 0, b"abcde"), (5, 5, 0, b"fghij"), (9, 10, 0, b"klmno"), (15, 15, PUSH, b"p")], None),
            // The same, where the sender marks each segment because its window is small.
            (&[(0, 0, PUSH, b"abcde"), (0, 5, PUSH, b"fghij"), (0, 10, PUSH, b"klmno")], None),
            (&[], None),
        ];
        let start = Instant::now();
        for (i, (sent, want)) in cases.into_iter().enumerate() {
            let mut watch = Watch::new(&[2380]);
            for (milliseconds, sequence, flags, payload) in sent {
                let now = start + Duration::from_millis(*milliseconds);
                watch.packet(&packet(2380, 40000, *sequence, *flags, payload), now);
                watch.packet(&packet(2381, 40000, *sequence, *flags, payload), now);
            }
            let seen = watch.seen();
            assert_eq!(seen.first().map(|s| (s.view, s.segments)), want, "case {i}");
            assert!(seen.len() <= 1);
        }
    }

    #[test]
    fn live_connections_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dial = |payload: &'static [u8]| {
            let mut dialer = TcpStream::connect(address).unwrap();
            let from = dialer.local_addr().unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            thread::spawn(move || {
                for _ in 0..20 {
                    dialer.write_all(payload).unwrap();
                    accepted.read_exact(&mut vec![0; payload.len()]).unwrap();
                    thread::sleep(Duration::from_millis(20));
                }
            });
            from
        };
        let (tls, plain) = (dial(b"\x17\x03\x03\x00\x01x"), dial(b"\0\0\0\0\0\0\0\x08heartbeat"));
        match observe(&[address.port()], Duration::from_secs(1)) {
            Ok(seen) => {
                assert_eq!(seen.len(), 2, "{seen:?}");
                for seen in seen {
                    assert_eq!(seen.listener, address);
                    let want = if seen.dialer == tls { PassiveView::Tls } else { PassiveView::Plaintext };
                    assert!([tls, plain].contains(&seen.dialer));
                    assert_eq!(seen.view, want);
                    // On a busy machine fewer than were sent, but never one twice.
                    assert!((1..=20).contains(&seen.segments), "{seen:?}");
                }
            }
            Err(e) => {
                // Without the capability there is nothing to see, but the error says so.
                assert_eq!(e.kind, ErrorKind::PermissionDenied);
                assert!(e.message.contains("CAP_NET_RAW"), "{e}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..MAX_HEADERS), v6: bool) {
            if let [first, ..] = &mut bytes[..] {
                *first = if v6 { 0x60 } else { 0x40 | (*first & 15) };
            }
            if let Some(next) = bytes.get_mut(if v6 { 6 } else { 9 }) {
                *next = TCP;
            }
            let _ = Segment::parse(&bytes);
        }
    }
}
