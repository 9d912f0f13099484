//! The TCP sockets of our own network namespace, asked of the kernel by sock_diag(7).
//!
//! `/proc/net/tcp` and `/proc/net/tcp6` say the same, but the kernel walks all of its hash table of connections for each
//! of them, and several times as slowly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, socket_with};

use crate::sockets::{TcpSocket, TcpState};

/// `TCPDIAG_GETSOCK`: the one request that is answered for IPv4 and IPv6 together.
const GET_SOCKETS: u16 = 18;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const REQUEST_DUMP: u16 = 0x301;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// Length of `nlmsghdr`.
const HEADER: usize = 16;
/// Length of `inet_diag_req`.
const REQUEST: usize = 60;
/// Most bytes that the kernel puts into one part of an answer.
const PART: usize = 32 << 10;
/// `AF_INET` and `AF_INET6`
const FAMILIES: (u8, u8) = (2, 10);

/// Calls `visit` with each TCP socket that listens or is connected, until it has seen enough.
///
/// # Errors
///
/// When the kernel cannot be asked so, or answers what is not understood: `/proc` knows it, too.
pub(crate) fn for_each_tcp(mut visit: impl FnMut(TcpState, TcpSocket) -> bool) -> Result<(), Errno> {
    let kernel =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    rustix::net::send(&kernel, &request(), SendFlags::empty())?;
    let mut buffer = vec![0; PART];
    loop {
        let mut messages = receive(&kernel, &mut buffer)?;
        while !messages.is_empty() {
            let (kind, body, rest) = message(messages).ok_or(Errno::BADMSG)?;
            match kind {
                DONE => return Ok(()),
                GET_SOCKETS => {
                    let (state, socket) = parse(body).ok_or(Errno::BADMSG)?;
                    if !visit(state, socket) {
                        return Ok(());
                    }
                }
                _ => return Err(Errno::OPNOTSUPP),
            }
            messages = rest;
        }
    }
}

/// Returns the request: all addresses, all ports, in the states that matter.
fn request() -> [u8; HEADER + REQUEST] {
    let mut request = [0; HEADER + REQUEST];
    let states: u32 = 1 << TcpState::ESTABLISHED | 1 << TcpState::LISTEN;
    let fields: [(usize, &[u8]); 4] = [
        (0, &((HEADER + REQUEST) as u32).to_ne_bytes()),
        (4, &GET_SOCKETS.to_ne_bytes()),
        (6, &REQUEST_DUMP.to_ne_bytes()),
        (HEADER + 52, &states.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        request.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    }
    request
}

/// Returns the next part of the answer.
fn receive<'b>(kernel: &OwnedFd, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let (_, length) = rustix::net::recv(kernel, &mut *buffer, RecvFlags::TRUNC)?;
    if length == 0 {
        return Err(Errno::BADMSG);
    }
    buffer.get(..length).ok_or(Errno::MSGSIZE)
}

/// Returns type and content of the first of `messages`, and what follows it.
fn message(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes(messages, 0)?) as usize;
    let body = messages.get(HEADER..length)?;
    let rest = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes(bytes(messages, 4)?), body, rest))
}

/// Returns the socket in an `inet_diag_msg`.
fn parse(body: &[u8]) -> Option<(TcpState, TcpSocket)> {
    let [family, state] = bytes(body, 0)?;
    let address = |port: usize, ip: usize| {
        let ip = if family == FAMILIES.0 {
            IpAddr::from(Ipv4Addr::from(bytes(body, ip)?))
        } else if family == FAMILIES.1 {
            IpAddr::from(Ipv6Addr::from(bytes(body, ip)?)).to_canonical()
        } else {
            return None;
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(bytes(body, port)?)))
    };
    let inode = u32::from_ne_bytes(bytes(body, 68)?).into();
    Some((TcpState::from(state), TcpSocket { local: address(4, 8)?, remote: address(6, 24)?, inode }))
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut messages = answer.as_slice();
            while let Some((_, body, rest)) = message(messages) {
                parse(body);
                messages = rest;
            }
        }
    }
}
