//! What a member leaves word of in etcd, so that the others know how far it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use seaworthy_etcd_api::{Client, Error, KeyValue, Lock};
use serde::{Deserialize, Serialize};

use crate::plan::Stage;

/// The word that one member left. Only the holder of the fix's lock changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// The rule that is being fixed.
    pub rule: String,
    /// Name of the member.
    pub member: String,
    /// Host name of its node.
    pub node: String,
    /// The last stage that it has completed and verified; null when there is none.
    pub reached: Option<Stage>,
    /// The stage that it has begun and not completed; null between turns.
    pub under_way: Option<Stage>,
    /// SHA-256 of the public key of the authority that this member changes to, as the plan says it; null when it changes
    /// none. Who trusts another one is no further than who has not begun.
    #[serde(default)]
    pub authority: Option<String>,
    /// When this was written.
    pub at: Timestamp,
}

impl Note {
    /// Returns the note of a member that has not begun.
    pub fn new(rule: &str, member: &str, node: &str, at: Timestamp) -> Self {
        let [rule, member, node] = [rule, member, node].map(str::to_owned);
        Self { rule, member, node, reached: None, under_way: None, authority: None, at }
    }
}

/// The lock that whoever changes something in the cluster holds.
pub(crate) const LOCK: &str = "seaworthy.dev/fix/lock";
/// Where the notes are; the member's id follows.
const NOTES: &str = "seaworthy.dev/fix/members/";

/// Returns the notes of all members, by id. What is no note is left out: it says nothing.
///
/// # Errors
///
/// When the cluster does not answer.
pub(crate) fn read_all(client: &Client) -> Result<BTreeMap<String, Note>, Error> {
    let note = |pair: KeyValue| {
        let id = std::str::from_utf8(&pair.key).ok()?.strip_prefix(NOTES)?.to_owned();
        Some((id, serde_json::from_slice(&pair.value).ok()?))
    };
    Ok(client.get_prefix(NOTES)?.into_iter().filter_map(note).collect())
}

/// Leaves word for the member `id`, if the lock is held.
///
/// # Errors
///
/// When it is not, or the cluster does not answer.
pub(crate) fn leave(lock: &Lock, id: &str, note: &Note) -> Result<(), Error> {
    let json = serde_json::to_vec(note).unwrap_or_default();
    lock.put(format!("{NOTES}{id}"), json).map(drop)
}
