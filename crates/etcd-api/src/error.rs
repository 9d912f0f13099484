//! What went wrong, where, and whether something may have been done nevertheless.

use std::{fmt, io, time::Duration};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is not a URL of an etcd client port, or one that cannot be used with what is given.
    #[error("{endpoint:?} cannot be used as an etcd endpoint: {why}")]
    BadEndpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A certificate or a key that cannot be used. No byte of a key is quoted.
    #[error("{what} cannot be used: {why}")]
    BadMaterial {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The connection broke, or the server gave up, after the request was sent.
    #[error("{place}: interrupted: {why}; it may have been carried out or not, look before repeating it")]
    Interrupted {
        /// Where.
        place: Place,
        /// What happened.
        why: String,
    },
    /// The lock's key is gone or another's: its lease ended, or somebody removed it.
    #[error("the lock {key:?} has been lost; nothing was written under it, acquire it again")]
    LockLost {
        /// The lock's key.
        key: String,
    },
    /// Somebody else held the lock all the time.
    #[error(
        "the lock {key:?} is held by {owner:?}, also after {waited:.0?}; wait for it, or for its lease to end"
    )]
    Locked {
        /// The lock's key.
        key: String,
        /// What its holder wrote into it.
        owner: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// An answer that is not what etcd's protocol says.
    #[error("{place}: malformed answer: {why}; is this an etcd?")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong with it.
        why: String,
    },
    /// The member has no leader, so it did nothing.
    #[error("{place}: the member has no leader; a quorum of members must be running and reach one another")]
    NoLeader {
        /// Where.
        place: Place,
    },
    /// What was named does not exist.
    #[error("{place}: {message}")]
    NotFound {
        /// Where.
        place: Place,
        /// What etcd said.
        message: String,
    },
    /// etcd's own authorization (RBAC) forbids it.
    #[error("{place}: {message}; etcd's authentication is on, use a certificate of a user that may do this")]
    PermissionDenied {
        /// Where.
        place: Place,
        /// What etcd said.
        message: String,
    },
    /// etcd refused it for another reason.
    #[error("{place}: {message} (gRPC status {code})")]
    Refused {
        /// Where.
        place: Place,
        /// The gRPC status code.
        code: u32,
        /// What etcd said.
        message: String,
    },
    /// The server did not accept the client's certificate, or wants one and got none.
    #[error(
        "{place}: the server refused the client certificate, or that there is none: {why}; use one of its CA"
    )]
    RefusedIdentity {
        /// Where.
        place: Place,
        /// What it said.
        why: String,
    },
    /// A snapshot that is not what the member sent.
    #[error("{place}: the snapshot is damaged: {why}; discard what was written and save it again")]
    Snapshot {
        /// Where.
        place: Place,
        /// How that shows.
        why: String,
    },
    /// The operating system failed us.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// No answer before the deadline.
    #[error("{place}: {why}; it may have been carried out or not, look before repeating it")]
    Timeout {
        /// Where.
        place: Place,
        /// Whose deadline.
        why: String,
    },
    /// No connection could be made. Nothing was sent.
    #[error("{place}: no connection: {why}; check that etcd runs and listens there")]
    Unreachable {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// The server's certificate is not to be believed. Nothing was sent.
    #[error(
        "{place}: the server's certificate cannot be trusted: {why}; check the CA file and the host name"
    )]
    UntrustedServer {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Returns whether the operation may have been carried out although it failed.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Malformed { .. } | Self::Timeout { .. })
    }

    /// Returns whether the member could not do it now, for reasons that may pass, and another member may be
    /// able to.
    pub fn is_passing(&self) -> bool {
        self.may_have_happened() || self.was_not_sent()
    }

    /// Returns whether the member saw nothing of the request, or did nothing on account of it.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(
            self,
            Self::NoLeader { .. }
                | Self::RefusedIdentity { .. }
                | Self::Unreachable { .. }
                | Self::UntrustedServer { .. }
        )
    }
}

/// Which call, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The gRPC method, such as `MemberList`.
    pub call: &'static str,
    /// The endpoint's URL.
    pub endpoint: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.call, self.endpoint)
    }
}

/// Returns a stranger's text as it may be shown: the beginning, without control characters.
pub(crate) fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect()
}
