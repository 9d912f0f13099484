//! Who the members are: from the running etcd, else from its data directory, else from its settings.

use std::time::{Duration, Instant};

use seaworthy_components::etcd::{bbolt, members, settings};
use seaworthy_evidence::{
    Cluster, ErrorKind, EvidenceError, Member, MemberSource, Observed, Origin, Setting, Url,
};
use seaworthy_wire::{ClientIdentity, Question, Roots, Security, Target, get};

use super::super::Survey;
use super::super::listeners::Socket;
use super::super::material::{PEER, Reader};
use super::server::Server;

/// A member list that a running etcd told.
pub(crate) struct LiveMembers {
    pub(crate) members: Vec<Member>,
    pub(crate) origin: Origin,
}

/// Most peer listeners that are asked for the members. One is enough; another one is for when it does not answer.
const MAX_ASKED: usize = 4;

/// Asks the listeners of the peer URLs of `server` for the members until `deadline`, with the server's own certificate
/// where they speak TLS. What else it listens on is not for peers.
pub(crate) fn ask(
    survey: &Survey<'_>,
    server: &Server<'_>,
    deadline: Instant,
) -> Result<LiveMembers, EvidenceError> {
    let sockets = server.sockets.as_ref().map_err(Clone::clone)?;
    let mut failure = None;
    for (socket, tls) in server.peer_sockets(sockets).into_iter().take(MAX_ASKED) {
        for tls in [tls, !tls] {
            match ask_at(survey, server, &socket, tls, deadline) {
                Ok(live) => return Ok(live),
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
    }
    let nothing = || EvidenceError::new(ErrorKind::NotFound, "no peer URL that is set has a socket");
    Err(failure.unwrap_or_else(nothing))
}

/// Asks one socket of `server` for the members until `deadline`.
pub(crate) fn ask_at(
    survey: &Survey<'_>,
    server: &Server<'_>,
    socket: &Socket,
    tls: bool,
    deadline: Instant,
) -> Result<LiveMembers, EvidenceError> {
    ask_one(&survey.probing_until(deadline)?, server, &socket.target(server.running)?, tls)
}

fn ask_one(
    options: &seaworthy_wire::Options,
    server: &Server<'_>,
    target: &Target,
    tls: bool,
) -> Result<LiveMembers, EvidenceError> {
    let identity = if tls { server.peer_identity() } else { None };
    let security = match tls {
        // Our own socket is asked, so whom it claims to be does not matter.
        true => Security::Tls { roots: &Roots::Any, identity: identity.as_ref() },
        false => Security::Plaintext,
    };
    let answer = get(target, security, Question::Members, options)?;
    if answer.status != 200 {
        let message = format!("{target} answered GET /members with {}", answer.status_line());
        return Err(EvidenceError::new(ErrorKind::Unsupported, message));
    }
    let origin = Origin::wire(target.to_string(), "GET /members");
    Ok(LiveMembers { members: members::members(&answer.body)?, origin })
}

/// Returns the identity with which the server authenticates to its peers, if it could be read.
pub(crate) fn identity(
    reader: &Reader<'_>,
    setting: impl Fn(&str) -> Option<String>,
) -> Option<ClientIdentity> {
    let pair = |certificate: &str, key: &str| {
        let certificate = reader.bytes(&setting(certificate)?).ok()?;
        let key = reader.bytes(&setting(key)?).ok()?;
        ClientIdentity::from_pem(&certificate, &key).ok()
    };
    pair("peer-client-cert-file", "peer-client-key-file").or_else(|| pair(PEER.certificate, PEER.key))
}

/// Returns the cluster by the best source there is, and says what was tried in vain.
pub(crate) fn cluster(
    survey: &Survey<'_>,
    server: &Server<'_>,
    live: Option<&Result<LiveMembers, EvidenceError>>,
) -> (Observed<Cluster>, Option<String>) {
    let offline = server.offline_membership();
    let version = offline.as_ref().ok().and_then(|m| m.cluster_version.clone());
    let mut failed = Vec::new();
    // Not so when there is nothing to read yet, and when we were told not to ask.
    let tried_in_vain = matches!(live, Some(Err(_)))
        || offline.as_ref().is_err_and(|error| error.kind != ErrorKind::NotFound);
    match live {
        Some(Ok(live)) => {
            let established = format!("{} answered GET /members", server.who());
            let mut members = live.members.clone();
            server.mark_self(&mut members);
            let cluster = Cluster { members, source: MemberSource::Live, established };
            return (Observed::seen(cluster, live.origin.clone()), version);
        }
        Some(Err(error)) => failed.push(format!("the member list could not be asked for ({error})")),
        None if survey.options.wire => {}
        None => failed.push("the wire was not asked".to_owned()),
    }
    match offline {
        Ok(membership) if !membership.members.is_empty() => {
            let established = sentence("read from the data directory", &failed);
            let mut members = membership.members;
            server.mark_self(&mut members);
            let cluster = Cluster { members, source: MemberSource::DataDirectory, established };
            let origin = server.database_origin();
            return (Observed::seen(cluster, origin), version);
        }
        Ok(_) => failed.push("the data directory holds no members".to_owned()),
        Err(error) => failed.push(format!("the data directory could not be read ({error})")),
    }
    let declared = server.resolved.settings.as_result().map(|settings| {
        let origin = settings.get("initial-cluster").map(|s: &Setting| s.origin.clone());
        (settings::initial_cluster(settings), origin)
    });
    match declared {
        // The default names this member alone, of however many it is one.
        Ok((_, Some(Origin::Default { .. }))) => {
            failed.push("initial-cluster is not set".to_owned());
            (Observed::failed(unknown(&failed)), version)
        }
        // It may name this member alone and be long out of date, so it does not prove that there is no other.
        Ok((members, _)) if members.len() == 1 && tried_in_vain => {
            failed.push("initial-cluster names one member, but may be stale".to_owned());
            (Observed::failed(unknown(&failed)), version)
        }
        Ok((mut members, Some(origin))) if !members.is_empty() => {
            let established = sentence("taken from initial-cluster, which may be stale", &failed);
            server.mark_self(&mut members);
            let cluster = Cluster { members, source: MemberSource::InitialCluster, established };
            (Observed::seen(cluster, origin), version)
        }
        _ => (Observed::failed(unknown(&failed)), version),
    }
}

fn unknown(failed: &[String]) -> EvidenceError {
    EvidenceError::new(ErrorKind::NotFound, format!("the members are not known: {}", failed.join("; ")))
}

fn sentence(source: &str, failed: &[String]) -> String {
    if failed.is_empty() { source.to_owned() } else { format!("{source}, because {}", failed.join(" and ")) }
}

impl Survey<'_> {
    /// Returns how to probe.
    pub(crate) fn probing(&self) -> seaworthy_wire::Options {
        let timeout = self.options.timeout;
        let mut options = seaworthy_wire::Options::new(self.options.now);
        options.timeout = timeout;
        options.limit = (timeout * 3).max(Duration::from_secs(1));
        options
    }

    /// Returns how to probe when it must end at `deadline`.
    pub(crate) fn probing_until(&self, deadline: Instant) -> Result<seaworthy_wire::Options, EvidenceError> {
        let mut options = self.probing();
        options.limit = options.limit.min(deadline.saturating_duration_since(Instant::now()));
        let late =
            || EvidenceError::new(ErrorKind::Timeout, "not asked: the other listeners took all the time");
        if options.limit.is_zero() { Err(late()) } else { Ok(options) }
    }
}

/// Reads the members in a data directory's database without disturbing the etcd that has it open.
pub(crate) fn offline(
    root: Result<&seaworthy_host::root::Root, EvidenceError>,
    path: &str,
) -> Result<bbolt::Membership, EvidenceError> {
    let file = root?.open(path)?;
    bbolt::membership(|offset, buffer| file.read_exact_at(buffer, offset))
}

/// Returns the hosts of `urls` that are dialled with TLS.
pub(crate) fn tls_hosts<'a>(urls: impl Iterator<Item = &'a Url>) -> Vec<String> {
    urls.filter(|url| url.is_tls() && url.port.is_some()).map(|url| url.host.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::Options;
    use super::super::super::processes::{Found, Running};
    use super::*;
    use seaworthy_host::root::Root;
    use seaworthy_host::users::Users;

    #[test]
    fn a_stale_list_proves_no_lone_member() {
        let directory = tempfile::tempdir().unwrap();
        let broken = directory.path().join("broken");
        std::fs::create_dir_all(broken.join("member/snap")).unwrap();
        std::fs::write(broken.join("member/snap/db"), "no database").unwrap();
        let options = Options {
            root: "/".into(),
            wire: false,
            observe: None,
            timeout: Duration::from_millis(100),
            layout: None,
            patience: Duration::ZERO,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let root = Root::host("/").unwrap();
        let survey = Survey { options: &options, root: &root, users: &Users::default() };
        let one = "--initial-cluster=m1=http://10.0.0.1:2380";
        let two = "--initial-cluster=m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380";
        let refused = Err(EvidenceError::new(ErrorKind::Io, "connection refused"));
        // The list, the data directory, what the wire told, and how many members are known.
        let cases = [
            (one, "none", None, Some(1)),
            (one, "none", Some(&refused), None),
            (one, "broken", None, None),
            (two, "broken", Some(&refused), Some(2)),
        ];
        for (list, name, live, want) in cases {
            let data = format!("--data-dir={}", directory.path().join(name).display());
            let running = Running::ourselves(&["--name=m1", list, &data]);
            let (cluster, _) = cluster(&survey, &Server::read(&Found::default(), &running), live);
            assert_eq!(cluster.value().map(|c| c.members.len()), want, "{list} {name}: {cluster:?}");
        }
    }
}
