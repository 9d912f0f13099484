//! A writer: clients that put a cluster under load while something is done to it, and say afterwards what was
//! lost.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, cannot_start},
    helper::{HELPERS, WRITER_LOG, WRITER_STATUS},
    node::Node,
};

/// How a writer writes.
#[derive(Debug, Clone)]
pub struct WriterSpec {
    /// How many clients write at the same time. They are spread over the members.
    pub clients: usize,
    /// How long each waits between two writes.
    pub pause: Duration,
    /// How long each waits for a connection or an answer before it goes on to the next member.
    pub timeout: Duration,
}

impl Default for WriterSpec {
    /// Six clients with a pause of 50 milliseconds, and a timeout of a second: a write every ten milliseconds tells as much of gaps
    /// and losses as one every fraction of it, and leaves the processors to what is tested.
    fn default() -> Self {
        Self { clients: 6, pause: Duration::from_millis(50), timeout: Duration::from_secs(1) }
    }
}

/// A writer at work on the [client node](crate::Cluster::client_node). Dropping it ends it without a report.
pub struct Writer<'a> {
    child: Child,
    stdout: BufReader<ChildStdout>,
    node: &'a Node,
}

impl<'a> Writer<'a> {
    /// Starts a writer and returns when the first write has been acknowledged.
    pub(crate) fn start(node: &'a Node, config: &Config) -> Result<Self, Error> {
        let mut command = node.command(format!("{HELPERS}/writer"));
        command.arg(serde_json::to_string(config).unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot_start(&command, error))?;
        let Some(stdout) = child.stdout.take() else { return Err(unexpected("no standard output")) };
        let mut writer = Self { child, stdout: BufReader::new(stdout), node };
        let mut line = String::new();
        let _ = writer.stdout.read_line(&mut line);
        if line == "ready\n" { Ok(writer) } else { Err(unexpected(writer.complaint())) }
    }

    /// Returns how it goes, as of a moment ago.
    pub fn status(&self) -> Result<Status, Error> {
        let text = self.node.read(WRITER_STATUS)?;
        serde_json::from_slice(&text).map_err(|error| unexpected(error.to_string()))
    }

    /// Ends the writing, waits until it has been checked on every member, and returns the report.
    ///
    /// Members that lag behind, or are just starting, have 15 seconds to answer.
    pub fn finish(mut self) -> Result<Report, Error> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).map_err(Error::io("read the writer's report"))?;
        serde_json::from_str(&text).map_err(|_| unexpected(self.complaint()))
    }

    /// Returns the record of all writes that a finished writer leaves behind, as comma-separated values.
    pub fn record(node: &Node) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&node.read(WRITER_LOG)?).into_owned())
    }

    fn complaint(&mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a writer is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Writes acknowledged so far.
    pub acks: u64,
    /// Writes refused or without an answer so far.
    pub errors: u64,
    /// Milliseconds since the latest acknowledged write.
    pub since_last_ack_ms: f64,
}

/// What a writer found in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many writes were acknowledged.
    pub acks: u64,
    /// How many were refused or got no answer. Whether these are in the store is anybody's guess.
    pub errors: u64,
    /// How many acknowledged writes are missing, or have another value, on at least one member that could be
    /// read.
    pub lost: u64,
    /// How many acknowledged writes were read back at once through another member.
    pub reads: u64,
    /// How many of these reads did not find what had been acknowledged.
    pub stale_reads: u64,
    /// How long the writing took, in milliseconds.
    pub duration_ms: f64,
    /// The longest time between two acknowledged writes of whatever clients, or from the last one to the end,
    /// in milliseconds.
    pub longest_gap_ms: f64,
    /// The five longest such times, longest first.
    pub gaps: Vec<Gap>,
    /// How many writes each member acknowledged.
    pub acks_by_member: BTreeMap<String, u64>,
    /// How often each error occurred, by member.
    pub error_kinds: BTreeMap<String, u64>,
    /// What each member has in the end, as it says itself, without asking the others.
    pub members: Vec<MemberContent>,
    /// Whether every member could be read and all have the same.
    pub equal: bool,
}

impl Report {
    /// Returns whether nothing was lost and all members agree.
    pub fn clean(&self) -> bool {
        self.lost == 0 && self.stale_reads == 0 && self.equal
    }
}

/// A time without an acknowledged write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// When it began, in milliseconds after the start.
    pub at_ms: f64,
    /// How long it was, in milliseconds.
    pub ms: f64,
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberContent {
    /// The member's name.
    pub name: String,
    /// The number of keys in the whole store.
    pub keys: u64,
    /// A hash of all keys with values, revisions, versions and leases; comparable within a report.
    pub hash: String,
    /// The revision at which the members were compared.
    pub revision: u64,
    /// How many acknowledged writes it does not have.
    pub missing: u64,
    /// Why it could not be read.
    pub error: Option<String>,
}

/// What the writer is told on its command line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) clients: usize,
    pub(crate) pause_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) targets: Vec<Target>,
    pub(crate) tls: Option<Identity>,
}

/// A member as a client sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) learner: bool,
}

/// Whom a client trusts and who it is: files in PEM on the client node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn unexpected(answer: impl Into<String>) -> Error {
    Error::Unexpected { what: "the writer".into(), answer: answer.into() }
}
