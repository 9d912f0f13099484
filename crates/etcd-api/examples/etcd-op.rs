//! One operation on an etcd, to try the crate by hand and to run it on the nodes of its tests.
//!
//! `etcd-op [--ca FILE] [--cert FILE --key FILE] [--timeout SECONDS] --endpoints URL,… OPERATION…`
//!
//! It prints one JSON document, or one on each line for `hold`. An error is
//! `{"error": "what it says", "kind": "Timeout", "maybe": true}`, with exit code 1.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "not for production")]

use std::{
    fs::{self, File},
    io::{Write, stdout},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use seaworthy_etcd_api::{
    Client, Condition, Endpoint, Error, Identity, KeyValue, Lock, Member, Security, Timeouts,
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match run() {
        Ok(value) => {
            say(&value);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value, Error> {
    let (mut ca, mut cert, mut key, mut endpoints) = (None, None, None, String::new());
    let mut timeouts = Timeouts::default();
    let mut words = std::env::args().skip(1).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        let value = words.next().unwrap();
        match option.as_str() {
            "--ca" => ca = Some(fs::read(value).unwrap()),
            "--cert" => cert = Some(fs::read(value).unwrap()),
            "--key" => key = Some(fs::read(value).unwrap()),
            "--timeout" => {
                let limit = Duration::from_secs_f64(value.parse().unwrap());
                timeouts = Timeouts { connect: limit, call: limit };
            }
            "--endpoints" => endpoints = value,
            _ => return Ok(json!({ "usage": "see the source" })),
        }
    }
    let identity = cert.as_deref().zip(key.as_deref());
    let identity = identity.map(|(certificates, key)| Identity { certificates, key });
    let security = match &ca {
        Some(ca) => Security::tls(ca, identity)?,
        None => Security::plaintext(),
    };
    let endpoints: Result<Vec<Endpoint>, _> = endpoints.split(',').map(str::parse).collect();
    let client = Client::new(endpoints?, security, timeouts)?;
    let here = &client.endpoints()[0];
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["members"] => client.members()?.iter().map(member).collect(),
        ["members-here"] => client.members_known_at(here)?.iter().map(member).collect(),
        ["update", id, urls @ ..] => json!(client.update_member(id.parse().unwrap(), urls)?),
        ["status"] => {
            let status = client.status(here)?;
            json!({
                "id": status.member_id, "version": status.version, "leader": status.leader,
                "index": status.raft_index, "applied": status.raft_applied_index,
                "term": status.raft_term, "size": status.db_size,
                "learner": status.learner, "errors": status.errors,
            })
        }
        ["revision"] => json!(client.revision(here)?),
        ["alarms"] => {
            client.alarms()?.iter().map(|a| json!([a.member_id, format!("{:?}", a.kind)])).collect()
        }
        ["move-leader", id] => json!(client.move_leader(id.parse().unwrap())?),
        ["hash", revision] => {
            let hash = client.hash_kv(here, revision.parse().unwrap())?;
            json!({ "hash": hash.hash, "revision": hash.revision, "compacted": hash.compact_revision })
        }
        ["snapshot", path] => {
            let info = client.save_snapshot(here, File::create(path).unwrap())?;
            let sha256: String = info.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "bytes": info.bytes, "sha256": sha256 })
        }
        ["put", key, value] => json!(client.put(key, value)?),
        ["get", key] => client.get(key)?.iter().map(pair).collect(),
        ["get-prefix", prefix] => client.get_prefix(prefix)?.iter().map(pair).collect(),
        ["delete", key] => json!(client.delete(key)?),
        ["put-if-created", revision, key, value] => {
            json!(client.put_if(
                &[Condition::Created(key.as_bytes(), revision.parse().unwrap())],
                key,
                value
            )?)
        }
        ["put-if-modified", revision, key, value] => {
            json!(client.put_if(
                &[Condition::Modified(key.as_bytes(), revision.parse().unwrap())],
                key,
                value
            )?)
        }
        ["acquire", key, owner, ttl, wait] => {
            let lock = Lock::acquire(&client, key, owner, seconds(ttl), seconds(wait))?;
            let fence = lock.fence();
            lock.confirm()?;
            lock.release()?;
            json!({ "fence": fence })
        }
        ["hold", key, owner, ttl, hold] => {
            let lock = Lock::acquire(&client, key, owner, seconds(ttl), Duration::ZERO)?;
            say(&json!({ "fence": lock.fence() }));
            let start = Instant::now();
            while start.elapsed() < seconds(hold) {
                // Asked first: what is believed at the moment of writing.
                let believed = lock.still_held();
                let put = lock.put(format!("{key}/by-{owner}"), "x");
                let line = json!({ "believed": believed, "put": put.map_or_else(|e| told(&e), Value::from) });
                if !say(&line) {
                    break;
                }
                sleep(Duration::from_millis(100));
            }
            json!(lock.release()?)
        }
        // Reads a number and writes the next one, each time under the lock: not atomic but for the lock.
        ["count", key, owner, times] => {
            let counter = format!("{key}/counter");
            for _ in 0..times.parse().unwrap() {
                let lock = Lock::acquire(&client, key, owner, seconds("5"), seconds("60"))?;
                let seen = client.get(&counter)?.map_or(0, |kv| text(&kv.value).parse::<u64>().unwrap());
                sleep(Duration::from_millis(20));
                lock.put(&counter, (seen + 1).to_string())?;
                lock.release()?;
            }
            Value::Null
        }
        other => json!({ "unknown operation": other }),
    })
}

/// Prints, and returns whether anybody still reads it.
fn say(value: &Value) -> bool {
    writeln!(stdout(), "{value}").and_then(|()| stdout().flush()).is_ok()
}

fn told(error: &Error) -> Value {
    let kind = format!("{error:?}");
    let kind = kind.split(|c: char| !c.is_alphanumeric()).next();
    json!({ "error": error.to_string(), "kind": kind, "maybe": error.may_have_happened() })
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn member(member: &Member) -> Value {
    json!({
        "id": member.id, "name": member.name, "peer_urls": member.peer_urls,
        "client_urls": member.client_urls, "learner": member.learner,
    })
}

fn pair(kv: &KeyValue) -> Value {
    json!({
        "key": text(&kv.key), "value": text(&kv.value), "created": kv.created, "modified": kv.modified,
        "lease": kv.lease,
    })
}
