//! What a member leaves word of in etcd, so that the others know how far it is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Stage;

/// The word that one member left. Only the holder of the fix's lock changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
