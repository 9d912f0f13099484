//! The five statuses of a finding.

use serde::{Deserialize, Serialize};

/// What an audit found about one rule and one resource. Ordered from harmless to bad, so that the worst of several is
/// their maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The rule does not concern the resource; the finding says why.
    NotApplicable,
    /// Every check holds.
    Pass,
    /// A person must judge; the evidence is attached.
    Manual,
    /// The evidence could not be had; the finding has the error. Never counted as a pass.
    Unknown,
    /// At least one check does not hold.
    Fail,
}

impl Status {
    /// All statuses, worst first: the order in which a report lists them.
    pub const ALL: [Self; 5] = [Self::Fail, Self::Unknown, Self::Manual, Self::Pass, Self::NotApplicable];

    /// Returns the name used in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplicable => "not-applicable",
            Self::Pass => "pass",
            Self::Manual => "manual",
            Self::Unknown => "unknown",
            Self::Fail => "fail",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
