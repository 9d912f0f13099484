//! The writer: clients that write and read back through every member, and the account they give at the end.
//!
//! It speaks etcd's JSON gateway (`/v3/kv/put`), which every etcd from 3.4 on has on its client port, unless
//! it reads its settings from a file without `enable-grpc-gateway: true`.
//!
//! Each client prefers one member and goes on to the next when that one refuses or is silent, as etcd's own
//! client does; it comes back after half a second. A write without an answer counts as an error, whatever
//! became of it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::{WRITER_LOG, WRITER_STATUS, http, http::Endpoint, read, replace};
use crate::writer::{Config, Gap, MemberContent, Report, Status, Target};

/// Writes until standard input ends, then checks everything and prints the report.
pub(super) fn run(args: &[String]) -> Result<(), String> {
    let config = args.first().ok_or("the configuration is missing")?;
    let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let tls = match &config.tls {
        Some(files) => {
            let text = |path: &str| read(path).map_err(|error| format!("cannot read {path}: {error}"));
            Some(http::tls(&text(&files.ca)?, &text(&files.certificate)?, &text(&files.key)?)?)
        }
        None => None,
    };
    let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let prefix = format!("/seaworthy-lab/{run}");
    let shared = Arc::new(Shared::new());
    let threads: Vec<_> = (0..config.clients)
        .map(|index| {
            let client = Client::new(index, &config, tls.as_ref(), &prefix, &shared);
            thread::spawn(move || client.run())
        })
        .collect();
    shared.first_ack()?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready").and_then(|()| stdout.flush()).map_err(|error| error.to_string())?;
    shared.until_stopped();
    let mut records = Vec::new();
    for thread in threads {
        records.extend(thread.join().map_err(|_| "a client panicked")?);
    }
    let report = Account { config: &config, tls: tls.as_ref(), prefix: &prefix }.close(records, &shared);
    serde_json::to_writer(&mut stdout, &report).map_err(|error| error.to_string())
}

/// What the clients have in common.
struct Shared {
    start: Instant,
    stop: AtomicBool,
    acks: AtomicU64,
    errors: AtomicU64,
    reads: AtomicU64,
    stale_reads: AtomicU64,
    /// Microseconds after the start.
    last_ack: AtomicU64,
}

impl Shared {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            acks: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            stale_reads: AtomicU64::new(0),
            last_ack: AtomicU64::new(0),
        }
    }

    /// Waits until something has been written.
    fn first_ack(&self) -> Result<(), String> {
        while self.acks.load(Ordering::Relaxed) == 0 {
            if self.start.elapsed() > Duration::from_secs(15) {
                let errors = self.errors.load(Ordering::Relaxed);
                return Err(format!("nothing could be written, {errors} errors: see {WRITER_LOG}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Tells how it goes until standard input ends, and then tells the clients to stop.
    fn until_stopped(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            shared.stop.store(true, Ordering::Relaxed);
        });
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.start.elapsed();
            let last_ack = Duration::from_micros(self.last_ack.load(Ordering::Relaxed));
            let status = Status {
                acks: self.acks.load(Ordering::Relaxed),
                errors: self.errors.load(Ordering::Relaxed),
                since_last_ack_ms: milliseconds(now.saturating_sub(last_ack)),
            };
            let _ = replace(WRITER_STATUS, &serde_json::to_string(&status).unwrap_or_default());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One write.
struct Record {
    /// When its answer came, or failed to come.
    at: Duration,
    took: Duration,
    client: usize,
    number: u64,
    /// The member's place among the targets.
    member: usize,
    outcome: Result<(), String>,
}

impl Record {
    fn key(&self, prefix: &str) -> String {
        key(prefix, self.client, self.number)
    }
}

struct Client {
    index: usize,
    prefix: String,
    pause: Duration,
    endpoints: Vec<Endpoint>,
    /// For reading back, so that a slow read does not delay the next write's connection.
    readers: Vec<Endpoint>,
    /// Learners take no writes, so they are not among these places.
    voters: Vec<usize>,
    shared: Arc<Shared>,
}

impl Client {
    fn new(
        index: usize,
        config: &Config,
        tls: Option<&Arc<ClientConfig>>,
        prefix: &str,
        shared: &Arc<Shared>,
    ) -> Self {
        let timeout = Duration::from_millis(config.timeout_ms);
        let endpoints = || config.targets.iter().map(|target| endpoint(target, tls, timeout)).collect();
        let all = config.targets.iter().enumerate();
        Self {
            index,
            prefix: prefix.to_string(),
            pause: Duration::from_millis(config.pause_ms),
            endpoints: endpoints(),
            readers: endpoints(),
            voters: all.filter(|(_, target)| !target.learner).map(|(place, _)| place).collect(),
            shared: Arc::clone(shared),
        }
    }

    fn run(mut self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut number = 0;
        // How far from its preferred member the client is, and since when.
        let (mut step, mut moved) = (0, Instant::now());
        while !self.shared.stop.load(Ordering::Relaxed) && !self.voters.is_empty() {
            if step != 0 && moved.elapsed() > COME_BACK {
                step = 0;
            }
            let place = self.voter(step);
            let (sent, key) = (Instant::now(), key(&self.prefix, self.index, number));
            let value = value(self.index, number);
            let Some(endpoint) = self.endpoints.get_mut(place) else { break };
            let put = endpoint.post("/v3/kv/put", &json!({ "key": encode(&key), "value": encode(&value) }));
            let (at, took) = (self.shared.start.elapsed(), sent.elapsed());
            let outcome = put.map(drop);
            let acknowledged = outcome.is_ok();
            records.push(Record { at, took, client: self.index, number, member: place, outcome });
            if acknowledged {
                self.shared.acks.fetch_add(1, Ordering::Relaxed);
                self.shared.last_ack.fetch_max(at.as_micros() as u64, Ordering::Relaxed);
                if number % READ_BACK == 0 {
                    self.read_back(step + 1, &key, &value);
                }
            } else {
                self.shared.errors.fetch_add(1, Ordering::Relaxed);
                (step, moved) = (step + 1, Instant::now());
            }
            number += 1;
            thread::sleep(self.pause);
        }
        records
    }

    /// Reads a write that was acknowledged through another member. No answer proves nothing; a wrong one
    /// does.
    fn read_back(&mut self, step: usize, key: &str, value: &str) {
        let place = self.voter(step);
        let Some(reader) = self.readers.get_mut(place) else { return };
        if let Ok(answer) = reader.post("/v3/kv/range", &json!({ "key": encode(key) })) {
            let found = answer.pointer("/kvs/0/value").and_then(Value::as_str);
            let stale = found != Some(&encode(value));
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
            self.shared.stale_reads.fetch_add(stale.into(), Ordering::Relaxed);
        }
    }

    fn voter(&self, step: usize) -> usize {
        let turn = (self.index + step) % self.voters.len().max(1);
        self.voters.get(turn).copied().unwrap_or_default()
    }
}

/// The closing of the books.
struct Account<'a> {
    config: &'a Config,
    tls: Option<&'a Arc<ClientConfig>>,
    prefix: &'a str,
}

impl Account<'_> {
    fn close(&self, mut records: Vec<Record>, shared: &Shared) -> Report {
        let end = shared.start.elapsed();
        records.sort_by_key(|record| record.at);
        let _ = fs::write(WRITER_LOG, self.log(&records));
        let mut acknowledged = HashMap::new();
        let mut gaps = Vec::new();
        let mut acks_by_member = BTreeMap::new();
        let mut error_kinds = BTreeMap::new();
        let mut last = None;
        let mut gap = |from: Option<Duration>, to: Duration| {
            let from = from.unwrap_or(to);
            gaps.push(Gap { at_ms: milliseconds(from), ms: milliseconds(to.saturating_sub(from)) });
        };
        for record in &records {
            let name = self.config.targets.get(record.member).map(|target| target.name.clone());
            let name = name.unwrap_or_default();
            match &record.outcome {
                Ok(()) => {
                    acknowledged
                        .insert(encode(record.key(self.prefix)), encode(value(record.client, record.number)));
                    gap(last, record.at);
                    last = Some(record.at);
                    *acks_by_member.entry(name).or_default() += 1;
                }
                Err(error) => *error_kinds.entry(format!("{name}: {error}")).or_default() += 1,
            }
        }
        gap(last, end);
        gaps.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        gaps.truncate(5);
        let (lost, members) = self.compare(&acknowledged);
        let first = members.first().map(|member| &member.hash);
        let equal = members.iter().all(|member| member.error.is_none() && Some(&member.hash) == first);
        Report {
            acks: acknowledged.len() as u64,
            errors: (records.len() - acknowledged.len()) as u64,
            lost,
            reads: shared.reads.load(Ordering::Relaxed),
            stale_reads: shared.stale_reads.load(Ordering::Relaxed),
            duration_ms: milliseconds(end),
            longest_gap_ms: gaps.first().map_or(0.0, |gap| gap.ms),
            gaps,
            acks_by_member,
            error_kinds,
            members,
            equal,
        }
    }

    /// Returns how many acknowledged writes some member does not have, and what each member has.
    fn compare(&self, acknowledged: &HashMap<String, String>) -> (u64, Vec<MemberContent>) {
        let deadline = Instant::now() + PATIENCE;
        // The members are compared at one revision, the latest that any has. Some may have to catch up first.
        let mut endpoints: Vec<_> =
            self.config.targets.iter().map(|target| endpoint(target, self.tls, PATIENCE)).collect();
        let revisions: Vec<_> =
            endpoints.iter_mut().map(|endpoint| retry(deadline, || revision(endpoint))).collect();
        let latest = revisions.iter().flatten().max().copied().unwrap_or_default();
        let mut lost = HashSet::new();
        let mut members = Vec::new();
        for ((target, endpoint), revision) in self.config.targets.iter().zip(&mut endpoints).zip(revisions) {
            let mut member = MemberContent { name: target.name.clone(), ..MemberContent::default() };
            let content = revision.and_then(|_| retry(deadline, || content(endpoint, latest, acknowledged)));
            match content {
                Ok((keys, hash, found)) => {
                    (member.keys, member.hash, member.revision) = (keys, format!("{hash:016x}"), latest);
                    let missing = acknowledged.keys().filter(|key| !found.contains(*key));
                    let before = acknowledged.len() - found.len();
                    member.missing = before as u64;
                    lost.extend(missing.cloned());
                }
                Err(error) => member.error = Some(error),
            }
            members.push(member);
        }
        (lost.len() as u64, members)
    }

    fn log(&self, records: &[Record]) -> String {
        let mut log = String::from("at_ms,took_ms,client,member,key,outcome\n");
        for record in records {
            let member = self.config.targets.get(record.member).map_or("", |target| &target.name);
            let outcome =
                record.outcome.as_ref().err().map_or("ok", String::as_str).replace(['\n', ','], " ");
            let (at, took, key) =
                (milliseconds(record.at), milliseconds(record.took), record.key(self.prefix));
            let _ = writeln!(log, "{at:.3},{took:.3},{},{member},{key},{outcome}", record.client);
        }
        log
    }
}

/// Every how many writes a client reads back.
const READ_BACK: u64 = 8;

/// After how long a client tries its preferred member again.
const COME_BACK: Duration = Duration::from_millis(500);

/// How long members have at the end to catch up.
const PATIENCE: Duration = Duration::from_secs(15);

fn endpoint(target: &Target, tls: Option<&Arc<ClientConfig>>, timeout: Duration) -> Endpoint {
    Endpoint::new(target.address, tls.filter(|_| target.tls).cloned(), timeout)
}

fn key(prefix: &str, client: usize, number: u64) -> String {
    format!("{prefix}/{client}/{number:08}")
}

fn value(client: usize, number: u64) -> String {
    format!("value {number} of client {client}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn retry<T>(deadline: Instant, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

/// Returns the latest revision that a member itself has.
fn revision(endpoint: &mut Endpoint) -> Result<u64, String> {
    let query = json!({ "key": encode("/"), "serializable": true, "keys_only": true });
    let answer = endpoint.post("/v3/kv/range", &query)?;
    let revision = answer.pointer("/header/revision").and_then(Value::as_str);
    revision.and_then(|text| text.parse().ok()).ok_or_else(|| "an answer without revision".into())
}

/// Reads all that a member itself has at a revision: the number of keys, a hash of keys, values and their
/// revisions, and which acknowledged writes are there.
fn content(
    endpoint: &mut Endpoint,
    revision: u64,
    acknowledged: &HashMap<String, String>,
) -> Result<(u64, u64, HashSet<String>), String> {
    let (mut keys, mut hasher, mut found) = (0, DefaultHasher::new(), HashSet::new());
    let mut from = b"\0".to_vec();
    loop {
        let query = json!({
            "key": encode(&from), "range_end": encode(b"\0"), "revision": revision,
            "serializable": true, "limit": 5000,
        });
        let answer = endpoint.post("/v3/kv/range", &query)?;
        let pairs = answer.get("kvs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for pair in pairs {
            let text = |name: &str| pair.get(name).and_then(Value::as_str).unwrap_or_default();
            for name in ["key", "value", "create_revision", "mod_revision", "version", "lease"] {
                text(name).hash(&mut hasher);
            }
            keys += 1;
            if acknowledged.get(text("key")).is_some_and(|value| value == text("value")) {
                found.insert(text("key").to_string());
            }
        }
        let last = pairs.last().and_then(|pair| pair.get("key")).and_then(Value::as_str).and_then(decode);
        match last.filter(|_| answer.get("more").and_then(Value::as_bool) == Some(true)) {
            Some(last) => from = [last, vec![0]].concat(),
            None => return Ok((keys, hasher.finish(), found)),
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns bytes in base64, as JSON has them.
fn encode(bytes: impl AsRef<[u8]>) -> String {
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let digit = ALPHABET.get((bits >> (18 - 6 * index) & 63) as usize).copied().unwrap_or(b'=');
            text.push(char::from(if index <= chunk.len() { digit } else { b'=' }));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let digit = ALPHABET.iter().position(|other| *other == digit)?;
        bits = bits << 6 | u32::try_from(digit).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\0", "AA==")]
        {
            assert_eq!(encode(plain), encoded);
            assert_eq!(decode(encoded).unwrap(), plain.as_bytes());
        }
        assert_eq!(decode("!"), None);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn gaps_are_between_acknowledged_writes_and_up_to_the_end() {
        let record = |at: u64, ok: bool| Record {
            at: Duration::from_millis(at),
            took: Duration::ZERO,
            client: 0,
            number: at,
            member: 0,
            outcome: if ok { Ok(()) } else { Err("refused".into()) },
        };
        let config = Config { clients: 1, pause_ms: 1, timeout_ms: 1, targets: vec![], tls: None };
        let account = Account { config: &config, tls: None, prefix: "/x" };
        let mut shared = Shared::new();
        shared.start = Instant::now() - Duration::from_millis(400);
        let records = vec![record(300, true), record(10, true), record(200, false), record(110, true)];
        let report = account.close(records, &shared);
        assert_eq!((report.acks, report.errors), (3, 1));
        assert_eq!((report.longest_gap_ms, report.gaps[0].at_ms), (190.0, 110.0));
        assert!(report.gaps[1].ms >= 100.0, "from the last write to the end");
        assert_eq!(report.error_kinds, BTreeMap::from([(": refused".to_string(), 1)]));
    }
}
