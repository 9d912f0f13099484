//! etcd inside another program: k3s, MicroShift, and whatever else has etcd's server among its modules.
//!
//! Such a program need not run one. Two witnesses say whether it does: a member always has its database open, and it
//! listens. Its settings are nowhere to be read, so what it is judged by is what its sockets say.

use seaworthy_evidence::{ErrorKind, EvidenceError, Listener, Member, Observed, Purpose, Url, Wire};
use seaworthy_host::sockets::Sockets;

use super::super::listeners::{self, Answers};
use super::super::processes::{Found, Running};
use super::server::Server;

/// An etcd inside another program.
pub(crate) struct Embedded {
    /// What the program is called.
    pub(crate) program: String,
    /// The folder of the database that it has open.
    pub(crate) data_directory: String,
    /// Whether it has a log open as well, as whoever writes the database does.
    writes: bool,
}

/// Where the database of a member is in its data directory.
const DATABASE: &str = "/member/snap/db";

impl Embedded {
    /// Returns the error that stands for what is not known of an etcd inside another program; `what` says why.
    pub(crate) fn unknown(&self, what: &str, pid: u32) -> EvidenceError {
        let message = format!("this etcd runs inside {} (pid {pid}): {what}", self.program);
        EvidenceError::new(ErrorKind::Unsupported, message)
    }

    /// Returns why it is not known whether the program is run from a static pod manifest; `None` where it is not, because it
    /// is in no container.
    pub(crate) fn manifest(&self, running: &Running) -> Option<Result<&str, EvidenceError>> {
        let outside = running.cgroup.as_ref().is_ok_and(|cgroup| cgroup.container().is_none());
        (!outside).then(|| Err(self.unknown("what declares that program is not read", running.pid())))
    }
}

/// Adds to `servers` the etcds that seem to run inside programs that may do so. Returns why it could not be seen of
/// others whether they run one.
pub(crate) fn find<'a>(found: &'a Found, servers: &mut Vec<Server<'a>>) -> Vec<EvidenceError> {
    let mut doubts = Vec::new();
    for running in &found.embedding {
        let program = running.program_name();
        match look(found, running, &program) {
            Ok(Some(server)) => servers.push(server),
            Ok(None) => {}
            Err(error) if error.kind == ErrorKind::Vanished => {}
            Err(error) => doubts.push(doubt(running, &program, error)),
        }
    }
    doubts
}

fn look<'a>(found: &Found, running: &'a Running, program: &str) -> Result<Option<Server<'a>>, EvidenceError> {
    let open =
        running.entry.open_paths(|path| path.ends_with(DATABASE.as_bytes()) || path.ends_with(b".wal"))?;
    let open: Vec<_> = open.iter().map(|path| String::from_utf8_lossy(path)).collect();
    let Some(directory) = open.iter().find_map(|path| path.strip_suffix(DATABASE)) else { return Ok(None) };
    let sockets = found.sockets(running)?;
    if listeners::addresses(&sockets).next().is_none() {
        return Ok(None);
    }
    let embedded = Embedded {
        program: program.to_owned(),
        data_directory: directory.to_owned(),
        writes: open.iter().any(|path| path.ends_with(".wal")),
    };
    Ok(Some(Server::inside(running, sockets, embedded)))
}

fn doubt(running: &Running, program: &str, error: EvidenceError) -> EvidenceError {
    let message = format!("pid {} ({program}) may run etcd inside itself: {}", running.pid(), error.message);
    EvidenceError { message, ..error }
}

/// Takes out of `servers` those inside another program of which no socket answers as etcd does. Returns why that could not
/// be seen of some; where the process also has a log open, it need not.
pub(crate) fn retain(servers: &mut Vec<Server<'_>>, answers: &Answers) -> Vec<EvidenceError> {
    let mut doubts = Vec::new();
    servers.retain(|server| {
        let (Some(embedded), Ok(sockets)) = (&server.embedded, &server.sockets) else { return true };
        let mut unanswered = None;
        for socket in listeners::addresses(sockets) {
            match says(server.running, &socket.to_string(), answers) {
                Said::Etcd => return true,
                Said::Nothing(error) => unanswered = unanswered.take().or(Some(error)),
                Said::Other => {}
            }
        }
        let Some(error) = unanswered else { return false };
        if !embedded.writes {
            doubts.push(doubt(server.running, &embedded.program, error));
        }
        embedded.writes
    });
    doubts
}

/// Returns the listeners for peers, and those for clients, of an etcd inside `running`. `this` is the member that it is.
///
/// A socket is etcd's if it answers as etcd does, or is at a port of the member. What may be and does not say is in both
/// lists, without what it said, because it counts for neither.
pub(crate) fn listeners(
    running: &Running,
    sockets: &Sockets,
    answers: &Answers,
    this: Option<&Member>,
) -> (Vec<Listener>, Vec<Listener>) {
    let (mut peer, mut client) = (Vec::new(), Vec::new());
    let has = |urls: &[Url], address: &str| {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        urls.iter().any(|url| port.is_some() && url.port == port)
    };
    for socket in listeners::addresses(sockets) {
        let address = socket.to_string();
        let said = says(running, &address, answers);
        let mut listener = listeners::unclaimed(running, address.clone(), answers);
        let of_member = this.and_then(|this| match () {
            () if has(&this.peer_urls, &address) => Some(Purpose::Peer),
            () if has(&this.client_urls, &address) => Some(Purpose::Client),
            () => None,
        });
        match (said, of_member) {
            (Said::Other, None) => continue,
            (Said::Etcd, _) => {}
            (_, Some(purpose)) => listener.purpose = purpose,
            (Said::Nothing(error), None) => {
                listener.wire = Some(Observed::failed(error));
                peer.push(Listener { purpose: Purpose::Peer, ..listener.clone() });
                client.push(Listener { purpose: Purpose::Client, ..listener });
                continue;
            }
        }
        if listener.purpose == Purpose::Peer { &mut peer } else { &mut client }.push(listener);
    }
    (peer, client)
}

/// What a socket says of whose it is.
enum Said {
    /// It answers as etcd does.
    Etcd,
    /// It answers, and otherwise.
    Other,
    /// Nothing, for this reason.
    Nothing(EvidenceError),
}

fn says(running: &Running, address: &str, answers: &Answers) -> Said {
    let nothing = |why: &str| {
        let message = format!("it is not known whether {address} is etcd's: {why}");
        Said::Nothing(EvidenceError::new(ErrorKind::Unsupported, message))
    };
    match answers.wire(running.pid(), address) {
        None => nothing("it was not asked"),
        Some(Observed::Failed { error }) => nothing(&error.message),
        Some(Observed::Seen { value: wire, .. }) => match wire {
            Wire { raft: Some(true), .. } | Wire { etcd_version: Some(_), .. } => Said::Etcd,
            wire if wire.serves_plaintext() => Said::Other,
            Wire { client_certificate: Some(seaworthy_evidence::ClientCertificate::Required), .. } => {
                nothing("it answers only a client with a certificate")
            }
            Wire { tls: Observed::Failed { error }, .. }
            | Wire { plaintext: Observed::Failed { error }, .. } => nothing(&error.message),
            _ => Said::Other,
        },
    }
}
