//! Waivers: reviewed exceptions with a reason, an owner and an end.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use seaworthy_catalogue::Status;
use serde::Deserialize;

use crate::{Finding, glob};

/// A file of waivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waivers {
    /// Its entries.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
}

/// One reviewed exception. A waived finding keeps its status; it only stops failing the audit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// Glob of rule ids or control numbers.
    pub rule: String,
    /// Glob of resources: `etcd m1 *`. Every resource when absent.
    #[serde(default)]
    pub resource: Option<String>,
    /// Why the exception is acceptable.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day (UTC) on which a snapshot may have been taken for it to count.
    pub expires: Date,
}

/// A waiver that does not do what its author thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiverNotice {
    /// The waiver.
    pub waiver: Waiver,
    /// What is the matter with it: it has expired, or it matches no finding that fails.
    pub message: String,
}

/// Why a waiver file cannot be read; says what and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiverError(String);

impl std::fmt::Display for WaiverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WaiverError {}

impl Waivers {
    /// Returns the waivers in a YAML (or JSON) `text`: `waivers:` with a list of `rule`, `resource`, `reason`, `owner`
    /// and `expires` (YYYY-MM-DD).
    pub fn parse(text: &str) -> Result<Self, WaiverError> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let waivers: Self =
            serde_saphyr::from_str_with_options(text, options).map_err(|e| WaiverError(e.to_string()))?;
        let empty = |text: &str| text.trim().is_empty();
        match waivers.waivers.iter().find(|w| empty(&w.reason) || empty(&w.owner)) {
            Some(w) => Err(WaiverError(format!("the waiver for {} needs a reason and an owner", w.rule))),
            None => Ok(waivers),
        }
    }

    /// Marks the findings that a valid waiver covers, and returns the waivers that have expired or match nothing.
    pub(crate) fn apply(&self, findings: &mut [Finding], now: Timestamp) -> Vec<WaiverNotice> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let mut notices = Vec::new();
        for waiver in &self.waivers {
            let judged = findings.iter().any(|finding| waiver.names(finding));
            let mut matched =
                findings.iter_mut().filter(|f| f.status == Status::Fail && waiver.covers(f)).peekable();
            let notice = if waiver.expires < today {
                Some(format!("the waiver for {} expired on {}", waiver.subject(), waiver.expires))
            } else if !judged {
                Some(format!("the waiver for {} names no rule that was judged", waiver.subject()))
            } else if matched.peek().is_none() {
                Some(format!("the waiver for {} matches no failed finding", waiver.subject()))
            } else {
                matched.for_each(|f| f.waived = Some(waiver.to_string()));
                None
            };
            notices.extend(notice.map(|message| WaiverNotice { waiver: waiver.clone(), message }));
        }
        notices
    }
}

impl Waiver {
    /// Returns what it is for, in words.
    fn subject(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{} of {resource}", self.rule),
            None => self.rule.clone(),
        }
    }

    fn covers(&self, finding: &Finding) -> bool {
        self.names(finding)
            && self.resource.as_deref().is_none_or(|resource| glob(resource, &finding.resource))
    }

    /// Returns whether it is for the rule of `finding`.
    fn names(&self, finding: &Finding) -> bool {
        glob(&self.rule, &finding.rule) || finding.controls.iter().any(|(_, n)| glob(&self.rule, n))
    }
}

impl std::fmt::Display for Waiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, until {})", self.reason, self.owner, self.expires)
    }
}
