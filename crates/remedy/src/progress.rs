//! Progress records: what a member publishes of itself in etcd, so that the others know how far it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use seaworthy_etcd_api::{Client, Error, KeyValue, Lock};
use serde::{Deserialize, Serialize};

use crate::plan::Stage;

/// What one member has published. Only the holder of the fix's lock changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressRecord {
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
    /// SHA-256 of the public key of the authority whose certificates this member loads or changes to, as the plan says it; null
    /// when the plan concerns none. Members that go by another one are no further than those that have not begun.
    #[serde(default)]
    pub authority: Option<String>,
    /// The name of that authority; null in what the first version published.
    #[serde(default)]
    pub authority_subject: Option<String>,
    /// The directory on its node where the records of its fixes are; null in what the first version published.
    #[serde(default)]
    pub journal: Option<String>,
    /// When this was written.
    pub at: Timestamp,
}

impl ProgressRecord {
    /// Returns the record of a member that has not begun.
    pub fn new(rule: &str, member: &str, node: &str, at: Timestamp) -> Self {
        let [rule, member, node] = [rule, member, node].map(str::to_owned);
        Self {
            rule,
            member,
            node,
            reached: None,
            under_way: None,
            authority: None,
            authority_subject: None,
            journal: None,
            at,
        }
    }
}

/// Returns the progress record of a member, if it is for this rule: a member has one record, and may be at another rule.
pub(crate) fn record_for<'a>(
    progress: &'a BTreeMap<String, ProgressRecord>,
    member_id: &str,
    rule: &str,
) -> Option<&'a ProgressRecord> {
    progress.get(member_id).filter(|record| record.rule == rule)
}

/// The lock under which something is changed in the cluster.
pub(crate) const LOCK: &str = "seaworthy.dev/fix/lock";
/// Where the records are; the member's id follows.
const RECORDS: &str = "seaworthy.dev/fix/members/";

/// Returns the progress records of all members, by id. What is no record is left out: it says nothing.
///
/// # Errors
///
/// When the cluster does not answer.
pub(crate) fn read_all(client: &Client) -> Result<BTreeMap<String, ProgressRecord>, Error> {
    let record = |pair: KeyValue| {
        let id = std::str::from_utf8(&pair.key).ok()?.strip_prefix(RECORDS)?.to_owned();
        Some((id, serde_json::from_slice(&pair.value).ok()?))
    };
    Ok(client.get_prefix(RECORDS)?.into_iter().filter_map(record).collect())
}

/// Publishes the record of the member `id`, if the lock is held.
///
/// # Errors
///
/// When it is not, or the cluster does not answer.
pub(crate) fn publish(lock: &Lock, id: &str, record: &ProgressRecord) -> Result<(), Error> {
    let json = serde_json::to_vec(record).unwrap_or_default();
    lock.put(format!("{RECORDS}{id}"), json).map(drop)
}
