//! The client, and its operations.

use std::time::Duration;

use crate::{
    Endpoint, Error, Place, Security,
    error::quote,
    grpc::Method,
    message::{
        AlarmRequest, AlarmResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, Empty, HashKvRequest,
        HashKvResponse, HeaderOnly, LeaseGrantRequest, LeaseRequest, LeaseResponse, MemberListRequest,
        MemberListResponse, MemberUpdateRequest, MoveLeaderRequest, PutRequest, RangeRequest, RangeResponse,
        RequestOp, Revision, StatusResponse, TxnRequest, TxnResponse,
    },
};

/// A client of one cluster.
///
/// It holds no connection: it is what to connect to, as whom, and how long to wait. Operations that name no
/// endpoint try those of the client in their order.
#[derive(Clone, Debug)]
pub struct Client {
    endpoints: Vec<Endpoint>,
    security: Security,
    timeouts: Timeouts,
}

/// How long to wait, at each endpoint that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, with its TLS handshake, until the server has answered a ping.
    pub connect: Duration,
    /// For the answer to a question. The server is told, so that it gives up as well.
    pub call: Duration,
}

impl Default for Timeouts {
    /// Two seconds to connect, and five for an answer.
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), call: Duration::from_secs(5) }
    }
}

impl Client {
    /// Returns a client of the cluster with these endpoints, the member to be asked first before the others.
    /// Nothing is connected to yet.
    pub fn new(
        endpoints: impl IntoIterator<Item = Endpoint>,
        security: Security,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let bad = |endpoint: String, why| Err(Error::BadEndpoint { endpoint, why });
        if endpoints.is_empty() {
            return bad(String::new(), "there is none");
        }
        match endpoints.iter().find(|endpoint| endpoint.is_tls() && security.config().is_none()) {
            Some(endpoint) => bad(endpoint.to_string(), "there is no CA to verify it with; give one"),
            None => Ok(Self { endpoints, security, timeouts }),
        }
    }

    /// Returns the endpoints, in the order in which they are tried.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns how long it waits.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Returns the same client with other patience.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Returns the members as a quorum knows them.
    ///
    /// etcd has a linearizable member list since 3.5 only. A linearizable read at the same member before it
    /// makes every version's list at least as new.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        self.anywhere(Repeat::Always, |endpoint| {
            self.revision(endpoint)?;
            self.list(endpoint, true)
        })
    }

    /// Returns the members as the member at `endpoint` knows them by itself, with or without a quorum.
    pub fn members_known_at(&self, endpoint: &Endpoint) -> Result<Vec<Member>, Error> {
        self.list(endpoint, false)
    }

    /// Changes the peer URLs with which a member is listed. The member's own configuration stays as it is.
    ///
    /// etcd demands a quorum, refuses URLs that another member has, and knows no member `id` with
    /// [`Error::NotFound`].
    pub fn update_member(&self, id: u64, peer_urls: &[impl AsRef<str>]) -> Result<(), Error> {
        let peer_urls = peer_urls.iter().map(|url| url.as_ref().to_string()).collect();
        let question = MemberUpdateRequest { id, peer_urls };
        self.anywhere(Repeat::IfUnsent, |endpoint| MEMBER_UPDATE.call(self, endpoint, &question)).map(drop)
    }

    /// Returns how the member at `endpoint` is. It answers without a quorum, and then says so in `errors`.
    pub fn status(&self, endpoint: &Endpoint) -> Result<Status, Error> {
        let answer = STATUS.call(self, endpoint, &Empty {})?;
        Ok(Status {
            member_id: answer.header.map_or(0, |header| header.member_id),
            version: quote(&answer.version),
            leader: Some(answer.leader).filter(|id| *id != 0),
            raft_index: answer.raft_index,
            raft_applied_index: answer.raft_applied_index,
            raft_term: answer.raft_term,
            db_size: u64::try_from(answer.db_size).unwrap_or(0),
            learner: answer.is_learner,
            errors: answer.errors.iter().map(|error| quote(error)).collect(),
        })
    }

    /// Returns the store's revision as the member at `endpoint` reads it with the consent of a quorum: what
    /// `etcdctl endpoint health` asks for.
    pub fn revision(&self, endpoint: &Endpoint) -> Result<i64, Error> {
        let question = RangeRequest { key: vec![0], count_only: true, ..RangeRequest::default() };
        let answer = RANGE.call(self, endpoint, &question)?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Returns the alarms of all members.
    pub fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let answer =
            self.anywhere(Repeat::Always, |endpoint| ALARM.call(self, endpoint, &AlarmRequest {}))?;
        let kind = |number| match number {
            1 => AlarmKind::NoSpace,
            2 => AlarmKind::Corrupt,
            other => AlarmKind::Other(other),
        };
        let alarm = |alarm: &crate::message::AlarmMember| Alarm {
            member_id: alarm.member_id,
            kind: kind(alarm.alarm),
        };
        Ok(answer.alarms.iter().map(alarm).collect())
    }

    /// Makes `target` the leader, and returns once the old leader has seen that it is. Does nothing if it is
    /// already.
    ///
    /// Only the leader can hand over, so it is looked for: among the client's endpoints, then at the client
    /// URLs with which it is listed.
    pub fn move_leader(&self, target: u64) -> Result<(), Error> {
        let leader = self.anywhere(Repeat::Always, |endpoint| {
            let no_leader = Error::NoLeader { place: STATUS.at(endpoint) };
            self.status(endpoint)?.leader.ok_or(no_leader)
        })?;
        if leader == target {
            return Ok(());
        }
        let members = self.members()?;
        let listed =
            members.iter().filter(|member| member.id == leader).flat_map(|leader| &leader.client_urls);
        let listed = listed.filter_map(|url| url.parse().ok()).collect::<Vec<Endpoint>>();
        let others = listed.iter().filter(|endpoint| !self.endpoints.contains(endpoint));
        let mut failure = None;
        for endpoint in self.endpoints.iter().chain(others) {
            match self.status(endpoint) {
                Ok(status) if status.member_id == leader => {
                    return MOVE_LEADER
                        .call(self, endpoint, &MoveLeaderRequest { target_id: target })
                        .map(drop);
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let why = "no endpoint leads to the leader, which alone can hand over".to_string();
        let place = Place { call: "MoveLeader", endpoint: format!("member {leader:x}") };
        Err(failure.unwrap_or(Error::Unreachable { place, why }))
    }

    /// Returns the hash of all keys and values up to `revision` (0: the newest) in the database of the member
    /// at `endpoint`.
    ///
    /// Members that agree have the same hash for the same revision, if they were compacted at the same one. A
    /// member that has not got that far refuses (gRPC status 11).
    pub fn hash_kv(&self, endpoint: &Endpoint, revision: i64) -> Result<HashKv, Error> {
        let answer = HASH_KV.call(self, endpoint, &HashKvRequest { revision })?;
        let newest = answer.header.map_or(0, |header| header.revision);
        let hashed = [revision, answer.hash_revision, newest].into_iter().find(|revision| *revision > 0);
        Ok(HashKv {
            hash: answer.hash,
            revision: hashed.unwrap_or(0),
            compact_revision: answer.compact_revision,
        })
    }

    /// Returns a key, as a quorum knows it.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let question = RangeRequest { key: key.as_ref().to_vec(), ..RangeRequest::default() };
        Ok(self.range(&question)?.pop())
    }

    /// Returns all keys that begin with `prefix` (empty: all keys), in order. Together they must fit into 4
    /// MiB.
    pub fn get_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<KeyValue>, Error> {
        let (key, range_end) = prefix_range(prefix.as_ref());
        self.range(&RangeRequest { key, range_end, ..RangeRequest::default() })
    }

    /// Sets a key, and returns the revision that did.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<i64, Error> {
        let question = PutRequest { key: key.as_ref().to_vec(), value: value.as_ref().to_vec(), lease: 0 };
        let answer = self.anywhere(Repeat::IfUnsent, |endpoint| PUT.call(self, endpoint, &question))?;
        Ok(answer.revision())
    }

    /// Removes a key, and returns whether it was there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let question = DeleteRangeRequest { key: key.as_ref().to_vec() };
        let answer = self.anywhere(Repeat::IfUnsent, |endpoint| DELETE.call(self, endpoint, &question))?;
        Ok(answer.deleted > 0)
    }

    /// Sets a key if all conditions hold, in one transaction. Returns the revision that did, or `None` if one
    /// did not hold.
    pub fn put_if(
        &self,
        conditions: &[Condition<'_>],
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<i64>, Error> {
        self.transact(conditions, put(key.as_ref(), value.as_ref(), 0))
    }

    /// Removes a key if all conditions hold, in one transaction, and returns whether they did.
    pub fn delete_if(&self, conditions: &[Condition<'_>], key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let delete = DeleteRangeRequest { key: key.as_ref().to_vec() };
        let operation = RequestOp { put: None, delete: Some(delete) };
        self.transact(conditions, operation).map(|revision| revision.is_some())
    }

    pub(crate) fn transact(
        &self,
        conditions: &[Condition<'_>],
        operation: RequestOp,
    ) -> Result<Option<i64>, Error> {
        let compare = |condition: &Condition<'_>| {
            let (target, key, revision) = match *condition {
                Condition::Created(key, revision) => (1, key, Revision::Create(revision)),
                Condition::Modified(key, revision) => (2, key, Revision::Mod(revision)),
            };
            Compare { target, key: key.to_vec(), revision: Some(revision) }
        };
        let compare = conditions.iter().map(compare).collect();
        let question = TxnRequest { compare, success: vec![operation] };
        let answer = self.anywhere(Repeat::IfUnsent, |endpoint| TXN.call(self, endpoint, &question))?;
        Ok(answer.succeeded.then_some(answer.header.map_or(0, |header| header.revision)))
    }

    /// Returns a new lease and its time to live, which etcd may have made longer.
    pub(crate) fn grant(&self, ttl: Duration) -> Result<(i64, Duration), Error> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let question = LeaseGrantRequest { ttl: seconds };
        let answer = self.anywhere(Repeat::Always, |endpoint| GRANT.call(self, endpoint, &question))?;
        Ok((answer.id, seconds_of(&answer)))
    }

    /// Keeps a lease alive and returns its time to live, zero if there is no such lease any more.
    ///
    /// A follower forwards this over HTTP to the leader's peer URL and not through raft, so it can fail there
    /// while peer TLS is being changed: every endpoint is tried, whatever the error.
    pub(crate) fn keep_alive(&self, lease: i64) -> Result<Duration, Error> {
        let question = LeaseRequest { id: lease };
        let answer =
            self.anywhere(Repeat::Whatever, |endpoint| KEEP_ALIVE.call(self, endpoint, &question))?;
        Ok(seconds_of(&answer))
    }

    /// Ends a lease, and removes its keys.
    pub(crate) fn revoke(&self, lease: i64) -> Result<(), Error> {
        let question = LeaseRequest { id: lease };
        self.anywhere(Repeat::Always, |endpoint| REVOKE.call(self, endpoint, &question)).map(drop)
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    fn list(&self, endpoint: &Endpoint, linearizable: bool) -> Result<Vec<Member>, Error> {
        let answer = MEMBER_LIST.call(self, endpoint, &MemberListRequest { linearizable })?;
        let member = |member: crate::message::Member| Member {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            learner: member.is_learner,
        };
        Ok(answer.members.into_iter().map(member).collect())
    }

    fn range(&self, question: &RangeRequest) -> Result<Vec<KeyValue>, Error> {
        let answer = self.anywhere(Repeat::Always, |endpoint| RANGE.call(self, endpoint, question))?;
        let key = |kv: crate::message::KeyValue| KeyValue {
            key: kv.key,
            value: kv.value,
            created: kv.create_revision,
            modified: kv.mod_revision,
            lease: kv.lease,
        };
        Ok(answer.kvs.into_iter().map(key).collect())
    }

    /// Does something at one endpoint after another until it succeeds or may not be repeated. If none
    /// succeeds, returns the error of the endpoint that could be reached, or all reasons why none could.
    fn anywhere<T>(&self, repeat: Repeat, act: impl Fn(&Endpoint) -> Result<T, Error>) -> Result<T, Error> {
        let mut failure: Option<Error> = None;
        for endpoint in &self.endpoints {
            let error = match act(endpoint) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let on = match repeat {
                Repeat::Always => error.is_passing() || is_learners(&error),
                Repeat::IfUnsent => error.was_not_sent() || is_learners(&error),
                Repeat::Whatever => true,
            };
            if !on {
                return Err(error);
            }
            failure = Some(match (failure, error) {
                (None, error) => error,
                (Some(Error::Unreachable { place, why }), Error::Unreachable { place: next, why: and }) => {
                    Error::Unreachable { place, why: format!("{why}; {next}: {and}") }
                }
                (Some(Error::Unreachable { .. }), error) => error,
                (Some(first), _) => first,
            });
        }
        Err(failure.unwrap_or(Error::BadEndpoint { endpoint: String::new(), why: "there is none" }))
    }
}

/// A member as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, which etcd prints in hexadecimal.
    pub id: u64,
    /// Its name; empty if it has not been started.
    pub name: String,
    /// Where the others are told to reach it.
    pub peer_urls: Vec<String>,
    /// Where clients are told to reach it; empty if it has not been started.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub learner: bool,
}

/// How a member is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub member_id: u64,
    /// Its version, such as `3.5.1`.
    pub version: String,
    /// The leader's number, if there is one.
    pub leader: Option<u64>,
    /// The newest entry of raft's log that is committed.
    pub raft_index: u64,
    /// The newest entry that it has applied.
    pub raft_applied_index: u64,
    /// The term of the leader's election.
    pub raft_term: u64,
    /// The size of its database file, in bytes.
    pub db_size: u64,
    /// Whether it does not vote.
    pub learner: bool,
    /// What it complains of: alarms, and having no leader.
    pub errors: Vec<String>,
}

/// An alarm that a member has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Whose.
    pub member_id: u64,
    /// Which.
    pub kind: AlarmKind,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The database is not that of the other members.
    Corrupt,
    /// The database has reached its quota, so writes are refused.
    NoSpace,
    /// Another, by its number.
    Other(i32),
}

/// The hash of a member's keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The revision up to which it was taken.
    pub revision: i64,
    /// The revision at which the member was last compacted, -1 if never.
    pub compact_revision: i64,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub created: i64,
    /// The revision that last changed it.
    pub modified: i64,
    /// The lease that it ends with, 0 if none.
    pub lease: i64,
}

/// What must hold for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// This revision created this key; 0: there is no such key.
    Created(&'a [u8], i64),
    /// This revision last changed this key; 0: there is no such key.
    Modified(&'a [u8], i64),
}

const ALARM: Method<AlarmRequest, AlarmResponse> = Method::clustered("/etcdserverpb.Maintenance/Alarm");
const DELETE: Method<DeleteRangeRequest, DeleteRangeResponse> =
    Method::clustered("/etcdserverpb.KV/DeleteRange");
const GRANT: Method<LeaseGrantRequest, LeaseResponse> = Method::clustered("/etcdserverpb.Lease/LeaseGrant");
const HASH_KV: Method<HashKvRequest, HashKvResponse> = Method::local("/etcdserverpb.Maintenance/HashKV");
/// A stream both ways, of which one question and one answer are used.
const KEEP_ALIVE: Method<LeaseRequest, LeaseResponse> =
    Method::clustered("/etcdserverpb.Lease/LeaseKeepAlive");
const MEMBER_LIST: Method<MemberListRequest, MemberListResponse> =
    Method::local("/etcdserverpb.Cluster/MemberList");
const MEMBER_UPDATE: Method<MemberUpdateRequest, Empty> =
    Method::clustered("/etcdserverpb.Cluster/MemberUpdate");
const MOVE_LEADER: Method<MoveLeaderRequest, Empty> =
    Method::clustered("/etcdserverpb.Maintenance/MoveLeader");
const PUT: Method<PutRequest, HeaderOnly> = Method::clustered("/etcdserverpb.KV/Put");
const RANGE: Method<RangeRequest, RangeResponse> = Method::clustered("/etcdserverpb.KV/Range");
const REVOKE: Method<LeaseRequest, Empty> = Method::clustered("/etcdserverpb.Lease/LeaseRevoke");
const STATUS: Method<Empty, StatusResponse> = Method::local("/etcdserverpb.Maintenance/Status");
const TXN: Method<TxnRequest, TxnResponse> = Method::clustered("/etcdserverpb.KV/Txn");

/// When to go on to the next endpoint.
#[derive(Clone, Copy)]
enum Repeat {
    /// Doing it twice does no harm, but an answer is an answer.
    Always,
    /// Only if it was certainly not done.
    IfUnsent,
    /// After any error.
    Whatever,
}

/// Returns whether a learner refused what only a voter may do.
fn is_learners(error: &Error) -> bool {
    matches!(error, Error::Refused { message, .. } if message.contains("not supported for learner"))
}

/// The longest time to live that is believed. Longer is only less careful.
const MAX_TTL: i64 = 3600;

fn seconds_of(answer: &LeaseResponse) -> Duration {
    Duration::from_secs(answer.ttl.clamp(0, MAX_TTL).unsigned_abs())
}

/// Returns the operation that sets a key, bound to a lease unless that is 0.
pub(crate) fn put(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
    RequestOp { put: Some(PutRequest { key: key.to_vec(), value: value.to_vec(), lease }), delete: None }
}

/// Returns the first key of a range and the first after it, for all keys that begin with `prefix`. A zero
/// byte means the first key of all, and that there is no end.
fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    let or_zero = |bytes: Vec<u8>| if bytes.is_empty() { vec![0] } else { bytes };
    (or_zero(prefix.to_vec()), or_zero(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range() {
        for (prefix, key, end) in [
            (&b"ab"[..], &b"ab"[..], &b"ac"[..]),
            (b"a\xff", b"a\xff", b"b"),
            (b"\xff\xff", b"\xff\xff", b"\0"),
            (b"", b"\0", b"\0"),
        ] {
            assert_eq!(prefix_range(prefix), (key.to_vec(), end.to_vec()));
        }
    }

    #[test]
    fn an_https_endpoint_is_never_used_without_a_ca() {
        let endpoints = || ["http://10.0.0.1:1", "https://10.0.0.2:1"].map(|url| url.parse().unwrap());
        let error = Client::new(endpoints(), Security::plaintext(), Timeouts::default()).unwrap_err();
        assert!(error.to_string().contains("https://10.0.0.2:1"), "{error}");
        assert!(Client::new([], Security::plaintext(), Timeouts::default()).is_err());
    }
}
