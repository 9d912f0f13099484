//! The dial matrix: who has dialled whom, and what those connections carry.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use seaworthy_evidence::{
    Connection, Direction, ErrorKind, EvidenceError, Link, Listener, Member, Observed, Origin, PassiveView,
    TransportSeen,
};
use seaworthy_host::sockets::Sockets;

/// What an established peer connection showed to a passive look, by its two ends.
pub(crate) type Views = BTreeMap<(SocketAddr, SocketAddr), PassiveView>;

/// What is needed to tell one member's connections from another's.
pub(crate) struct Matrix<'a> {
    pub(crate) members: &'a [Member],
    pub(crate) listeners: &'a [Listener],
    pub(crate) sockets: &'a Sockets,
    pub(crate) views: &'a Views,
    /// Addresses of host names, from the hosts files.
    pub(crate) hosts: &'a BTreeMap<String, Vec<IpAddr>>,
    pub(crate) origin: Origin,
}

impl Matrix<'_> {
    /// Returns every established connection on a peer port.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.sockets.established.iter().filter_map(|s| self.connection(s.local, s.remote)).collect()
    }

    /// Returns the links with every other member that has started. What cannot be told of one is missing in that one.
    pub(crate) fn links(&self, connections: &[Connection]) -> Vec<Link> {
        self.others().filter(|m| !m.name.is_empty()).map(|member| self.link(member, connections)).collect()
    }

    fn link(&self, member: &Member, connections: &[Connection]) -> Link {
        let name = label(member);
        let Some(addresses) = self.addresses(member) else {
            let hosts: Vec<_> = member.peer_urls.iter().map(|u| u.host.as_str()).collect();
            let message = format!(
                "the address of {name} ({}) is not known, for no hosts file lists it, so its connections cannot be told",
                hosts.join(", ")
            );
            let error = EvidenceError::new(ErrorKind::NotFound, message);
            return link(name, Err(error.clone()), Err(error), &self.origin);
        };
        let count = |direction: Direction| {
            let theirs = |c: &&Connection| c.direction == direction && c.member.as_deref() == Some(&name);
            u32::try_from(connections.iter().filter(theirs).count()).unwrap_or(u32::MAX)
        };
        let shared = self.members.iter().filter(|other| !std::ptr::eq(*other, member)).any(|other| {
            self.addresses(other).is_some_and(|theirs| theirs.iter().any(|a| addresses.contains(a)))
        });
        let stranger = connections.iter().find(|c| c.direction == Direction::Inbound && c.member.is_none());
        let doubt = match (count(Direction::Inbound), stranger) {
            // Members on one host dial from whichever address the kernel picks.
            _ if shared || addresses.iter().any(IpAddr::is_loopback) => {
                Some("several members may dial from the same address".to_owned())
            }
            (0, Some(c)) => {
                Some(format!("a connection from {} may be its own behind another address", c.remote))
            }
            _ => None,
        };
        let inbound = match doubt {
            None => Ok(count(Direction::Inbound)),
            Some(why) => {
                let message = format!("whether {name} dials this member could not be told: {why}");
                Err(EvidenceError::new(ErrorKind::NotFound, message))
            }
        };
        let outbound = Ok(count(Direction::Outbound));
        link(name, inbound, outbound, &self.origin)
    }

    fn connection(&self, local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
        let listener = self.listeners.iter().find(|l| listens_on(l, local));
        let direction = if listener.is_some() { Direction::Inbound } else { Direction::Outbound };
        let member = match direction {
            Direction::Inbound => {
                self.others().find(|m| self.addresses(m).is_some_and(|a| a.contains(&remote.ip())))
            }
            Direction::Outbound => Some(self.dialled(remote)?),
        };
        let observed = self.views.get(&(local, remote)).copied();
        let transport = match (observed, listener) {
            (Some(PassiveView::Plaintext), _) => TransportSeen::Plaintext,
            (Some(PassiveView::Tls), _) => TransportSeen::Tls,
            // A listener is TLS or not for as long as its process lives, and so are the connections it accepted.
            (None, Some(listener)) => spoken(listener),
            (None, None) => TransportSeen::Undetermined,
        };
        Some(Connection {
            local: local.to_string(),
            remote: remote.to_string(),
            direction,
            member: member.map(label),
            transport,
            observed,
            origin: self.origin.clone(),
        })
    }

    /// Returns the member whose peer port is at `remote`: the one it advertises, or, for a connection that is older than
    /// the present URLs, the port that this member itself uses for peers.
    fn dialled(&self, remote: SocketAddr) -> Option<&Member> {
        let at = |m: &&Member| self.addresses(m).is_some_and(|a| a.contains(&remote.ip()));
        let advertised = |m: &&Member| m.peer_urls.iter().any(|u| u.port == Some(remote.port()));
        let client = |m: &Member| m.client_urls.iter().any(|u| u.port == Some(remote.port()));
        let ours = self.listeners.iter().any(|l| l.url.port == Some(remote.port()));
        let mut there = self.others().filter(at);
        there.clone().find(advertised).or_else(|| there.find(|m| ours && !client(m)))
    }

    fn others(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|m| !m.this)
    }

    /// Returns the addresses of a member's peer URLs; `None` when one of them is an unknown name, or there is none.
    fn addresses(&self, member: &Member) -> Option<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for url in member.peer_urls.iter().filter(|u| u.port.is_some()) {
            match url.host.parse() {
                Ok(ip) => addresses.push(ip),
                Err(_) => addresses.extend(self.hosts.get(&url.host.to_ascii_lowercase())?),
            }
        }
        Some(addresses).filter(|addresses| !addresses.is_empty())
    }
}

/// Returns the link with the member `name`, judged.
fn link(
    name: String,
    inbound: Result<u32, EvidenceError>,
    outbound: Result<u32, EvidenceError>,
    origin: &Origin,
) -> Link {
    let (half_open, down, message) = match (&inbound, &outbound) {
        (Ok(0), Ok(0)) => {
            let message = format!(
                "{name} is down or unreachable: there is no connection with {name} in either direction"
            );
            (false, true, message)
        }
        (Ok(0), Ok(_)) => (true, false, one_way(&name, "this member")),
        (Ok(_), Ok(0)) => (true, false, one_way("this member", &name)),
        (Err(error), Ok(0)) => {
            (false, false, format!("this member has not dialled {name}; {}", error.message))
        }
        (Err(error), _) | (_, Err(error)) => (false, false, error.message.clone()),
        (Ok(_), Ok(_)) => (false, false, String::new()),
    };
    let observed = |count| Observed::from_result(count, origin.clone());
    let (inbound, outbound) = (observed(inbound), observed(outbound));
    Link { member: name, inbound, outbound, half_open, down, message, origin: origin.clone() }
}

/// Returns what it costs that `dialler` has no connection with `other` that it dialled.
fn one_way(dialler: &str, other: &str) -> String {
    format!(
        "{dialler} does not dial {other}, so no snapshot can reach {other} from there, and the next restart may isolate it"
    )
}

fn label(member: &Member) -> String {
    if member.name.is_empty() { member.id.clone() } else { member.name.clone() }
}

fn listens_on(listener: &Listener, local: SocketAddr) -> bool {
    let address = listener.address.as_deref().and_then(|a| a.parse::<SocketAddr>().ok());
    address.is_some_and(|a| a.port() == local.port() && (a.ip().is_unspecified() || a.ip() == local.ip()))
}

/// Returns what connections that this listener accepted carry.
fn spoken(listener: &Listener) -> TransportSeen {
    match listener.wire.as_ref().and_then(Observed::value) {
        Some(wire) => match wire.speaks_only_tls() {
            Some(true) => TransportSeen::Tls,
            Some(false) => TransportSeen::Plaintext,
            None => TransportSeen::Undetermined,
        },
        None if !listener.configured => TransportSeen::Undetermined,
        None if listener.url.is_tls() => TransportSeen::Tls,
        None => TransportSeen::Plaintext,
    }
}

/// Returns the addresses of the names in a hosts file (hosts(5)), names in lower case.
pub(crate) fn hosts(text: &[u8]) -> BTreeMap<String, Vec<IpAddr>> {
    let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(ip);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::{Purpose, Url};

    use super::*;
    use seaworthy_host::sockets::TcpSocket;

    fn member(name: &str, ip: &str, this: bool) -> Member {
        let peer_urls = vec![Url::parse(&format!("https://{ip}:2380")).unwrap()];
        let client_urls = vec![Url::parse(&format!("https://{ip}:2379")).unwrap()];
        // As initial-cluster tells it.
        Member { id: String::new(), name: name.to_owned(), peer_urls, client_urls, learner: false, this }
    }

    fn matrix(established: &[(&str, &str)], url: &str) -> (Vec<Connection>, Vec<Link>) {
        matrix_of(["10.0.0.2", "10.0.0.3"], established, url)
    }

    fn matrix_of(others: [&str; 2], established: &[(&str, &str)], url: &str) -> (Vec<Connection>, Vec<Link>) {
        let members =
            [member("m1", "10.0.0.1", true), member("m2", others[0], false), member("m3", others[1], false)];
        let url = Url::parse(url).unwrap();
        let address = Some(format!("10.0.0.1:{}", url.port.unwrap()));
        let origin = Origin::proc("/proc/7/net/tcp");
        let purpose = Purpose::Peer;
        let listener = Listener {
            url,
            purpose,
            configured: true,
            address,
            wire: None,
            open_to: None,
            origin: origin.clone(),
        };
        let socket = |(local, remote): &(&str, &str)| TcpSocket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode: 1,
        };
        let sockets = Sockets { established: established.iter().map(socket).collect(), ..Sockets::default() };
        let matrix = Matrix {
            members: &members,
            listeners: &[listener],
            sockets: &sockets,
            views: &Views::new(),
            hosts: &BTreeMap::new(),
            origin,
        };
        let connections = matrix.connections();
        let links = matrix.links(&connections);
        (connections, links)
    }

    #[test]
    fn a_half_open_member_is_seen() {
        let established = [
            ("10.0.0.1:40000", "10.0.0.2:2380"),
            ("10.0.0.1:2380", "10.0.0.2:40000"),
            ("10.0.0.1:2380", "10.0.0.3:40001"),
            ("10.0.0.1:40002", "10.0.0.3:2379"),
        ];
        let (connections, links) = matrix(&established, "https://10.0.0.1:2380");
        assert_eq!(connections.len(), 3, "the client connection is none of ours");
        assert!(
            connections
                .iter()
                .filter(|c| c.direction == Direction::Inbound)
                .all(|c| c.transport == TransportSeen::Tls)
        );
        assert!(!links[0].half_open && !links[0].down && links[0].message.is_empty());
        assert!(
            links[1].half_open
                && links[1].message.starts_with("this member does not dial m3, so no snapshot")
        );
    }

    #[test]
    fn a_member_without_connections_is_down_not_half_open() {
        let (_, links) = matrix(&[], "https://10.0.0.1:2380");
        assert!(links.iter().all(|l| l.down && !l.half_open && l.message.contains("down or unreachable")));
    }

    #[test]
    fn a_stranger_casts_doubt_only_on_members_that_were_not_seen_to_dial() {
        let established = [
            ("10.0.0.1:40000", "10.0.0.2:2380"),
            ("10.0.0.1:2380", "10.0.0.2:40000"),
            ("10.0.0.1:2380", "10.9.9.9:40001"),
        ];
        let (_, links) = matrix(&established, "https://10.0.0.1:2380");
        assert_eq!(links[0].inbound.value(), Some(&1));
        let (inbound, message) = (&links[1].inbound, &links[1].message);
        assert!(inbound.error().is_some_and(|e| e.message.contains("10.9.9.9:40001")), "{inbound:?}");
        assert!(message.starts_with("this member has not dialled m3; whether m3 dials"), "{message}");
        assert!(!links[1].down && !links[1].half_open, "nobody saw that");
    }

    #[test]
    fn who_dialled_from_a_shared_address_is_not_told() {
        let established = [("10.0.0.1:2380", "10.0.0.2:40000"), ("10.0.0.1:40000", "10.0.0.2:2380")];
        let (_, links) = matrix_of(["10.0.0.2", "10.0.0.2"], &established, "https://10.0.0.1:2380");
        assert!(links.iter().all(|l| l.inbound.error().is_some() && l.outbound.value().is_some()));
        assert!(links.iter().all(|l| !l.down && !l.half_open && !l.message.is_empty()));
    }

    #[test]
    fn a_member_whose_name_is_unknown_hides_no_other() {
        let established = [("10.0.0.1:2380", "10.0.0.3:40000"), ("10.0.0.1:40000", "10.0.0.3:2380")];
        let (_, links) = matrix_of(["node-2", "10.0.0.3"], &established, "https://10.0.0.1:2380");
        assert!(links[0].inbound.error().is_some() && links[0].outbound.error().is_some());
        assert!(!links[0].down && links[0].message.contains("node-2"));
        assert_eq!((links[1].inbound.value(), links[1].outbound.value()), (Some(&1), Some(&1)));
    }

    #[test]
    fn connections_that_a_plaintext_listener_accepted_are_plaintext() {
        let (connections, _) = matrix(&[("10.0.0.1:2380", "10.0.0.2:40000")], "http://10.0.0.1:2380");
        assert_eq!(connections[0].transport, TransportSeen::Plaintext);
    }

    #[test]
    fn hosts_files_are_read_leniently() {
        let hosts = hosts(b"127.0.0.1 localhost\n# x\n10.0.0.2 Node-2 n2 # tail\ngarbage\n::1 localhost\n");
        assert_eq!(hosts["node-2"], ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(hosts["localhost"].len(), 2);
    }
}
