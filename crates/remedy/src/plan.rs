//! A plan: what would be done to one member, step by step, as an immutable document.
//!
//! Every step says what it does, why, what must hold before it and what is verified after it; what undoes it follows from what
//! it does. A plan is bound to the [`State`] it was made from, and holds no secret: an edit is kept as what it changes and the
//! hashes of the file before and after, never as the file.

mod v1;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use seaworthy_edit::FileEdit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::condition::Condition;
use crate::issue::{KeyKind, Purpose};

/// What to do on one node, and in which order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Identifies the format.
    #[schemars(extend("const" = Plan::FORMAT))]
    pub format: String,
    /// The rule that is to pass afterwards.
    pub rule: String,
    /// When the evidence was taken that it was made from.
    pub made_at: Timestamp,
    /// The state that it was made from, and is only good for.
    pub state: State,
    /// How far this member is.
    pub stage: Stage,
    /// Id of the fix that it rolls back; null when it makes one.
    pub rollback_of: Option<String>,
    /// The authority of the certificates that members load or change to, which the progress record of this turn says; null
    /// when the plan concerns none.
    pub authority: Option<AuthorityId>,
    /// What must happen elsewhere before the first step.
    pub waits_for: Vec<Waiting>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What happens elsewhere after the last step, before this member's next turn.
    pub then_waits_for: Vec<Waiting>,
    /// What a person has to do, so that the change lasts.
    pub by_hand: Vec<String>,
    /// What else a person should know before it is carried out: what it mends, and what other fixes mean for it.
    pub remarks: Vec<String>,
}

/// An authority, by what others can compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorityId {
    /// SHA-256 of its public key.
    pub spki: String,
    /// Its name, for people.
    pub subject: String,
}

impl Plan {
    /// The format that this version reads and writes.
    pub const FORMAT: &str = "seaworthy.dev/plan/v2";

    /// Returns the plan in `document`, of this version or of the one before.
    ///
    /// # Errors
    ///
    /// When it is not a plan of these formats.
    pub fn from_value(document: &Value) -> Result<Self, serde_json::Error> {
        match document.get("format").and_then(Value::as_str) {
            Some(Self::FORMAT) => Self::deserialize(document),
            Some(v1::FORMAT) => Self::deserialize(&v1::converted(document)),
            Some(other) => Err(serde::de::Error::custom(format!(
                "it is a {}, which this version of seaworthy does not know",
                other.chars().filter(|c| !c.is_control()).take(64).collect::<String>()
            ))),
            None => Err(serde::de::Error::custom("it does not say of which format it is")),
        }
    }

    /// Returns whether it asks anything of the cluster: whether the member restarts (kubelet restarts it once its manifest is
    /// edited), hands over, or is dialled elsewhere. Another plan is good while members are down, and needs no turn.
    pub fn disturbs(&self) -> bool {
        self.steps.iter().any(Step::disturbs)
    }

    /// Returns whether it is for this rule, and for an instance of this component.
    pub(crate) fn is_of(&self, rule: &str, component: &str) -> bool {
        self.rule == rule && self.state.component == component
    }

    /// Returns the files and directories that it changes.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.steps.iter().flat_map(|step| step.action.paths()).collect()
    }

    /// Returns how often the member restarts.
    pub fn restarts(&self) -> usize {
        self.steps.iter().filter(|step| step.restarts).count()
    }
}

/// What is to be done on a member next. A rule that one turn of each member fixes has `change` only; the others belong to
/// what takes several rounds through the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It serves clients with TLS beside plaintext, and those on its node use TLS; the membership comes to say so.
    Announce,
    /// The change is made in one turn.
    Change,
    /// Every member announces TLS to clients; it stops to serve them in plaintext.
    Close,
    /// There is no new authority yet; it makes one, and changes nothing else.
    Create,
    /// The former authority, or what members made themselves, is no longer trusted.
    Distrust,
    /// Nothing is to be done on it.
    Done,
    /// It has loaded its certificate; its peer URLs become `https`.
    Encrypt,
    /// It has no certificate for its peers yet; it loads one, and stays plaintext.
    Load,
    /// It trusts both authorities, or comes to trust the self-made certificates of the others beside one; it presents a
    /// certificate of the new one.
    Present,
    /// It asks for a certificate of an authority whose key is elsewhere, and loads nothing yet.
    Request,
    /// It goes back to how it was before a fix.
    Rollback,
    /// It serves clients in plaintext only; it comes to serve them with TLS beside it.
    Serve,
    /// It comes to trust the new authority beside the former one.
    Trust,
}

/// What a plan was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Host name of the node.
    pub node: String,
    /// The component that it is for.
    #[serde(default = "etcd")]
    pub component: String,
    /// Name of the member; of another component the component's.
    pub member: String,
    /// Id of the member, hexadecimal; empty for what is no member of a cluster.
    pub member_id: String,
    /// Peer URLs of every member in the membership, by id.
    pub peer_urls: BTreeMap<String, Vec<String>>,
    /// SHA-256 of the member's effective settings.
    pub settings: String,
    /// SHA-256 of each file that is read for the plan, by path; null for one that does not exist.
    pub files: BTreeMap<String, Option<String>>,
}

impl State {
    /// Returns what is different `now`, one clause for each difference; nothing when a plan made from this state is still
    /// good.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |different: bool, what: String| found.extend(different.then_some(what));
        differ(self.node != now.node, format!("the node is {}, not {}", now.node, self.node));
        differ(
            self.component != now.component,
            format!("it is a {}, not a {}", now.component, self.component),
        );
        differ(
            self.member_id != now.member_id,
            format!("the member is {}, not {}", now.member_id, self.member_id),
        );
        differ(self.peer_urls != now.peer_urls, "the members' peer URLs have changed".to_owned());
        differ(self.settings != now.settings, "the member's settings have changed".to_owned());
        for (path, hash) in &self.files {
            differ(now.files.get(path) != Some(hash), format!("{path} has changed"));
        }
        found
    }
}

/// Returns the component of plans that do not say for which they are: those of versions that knew one.
fn etcd() -> String {
    seaworthy_components::etcd::COMPONENT.name.to_owned()
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it does, in one line.
    pub title: String,
    /// Why, and why here in the order.
    pub why: String,
    /// What is done.
    pub action: Action,
    /// The change of a file as a unified diff in which secrets are hidden; null when it changes none.
    pub diff: Option<String>,
    /// What must hold right before it.
    pub preconditions: Vec<Condition>,
    /// What is verified right after it.
    pub verify: Vec<Condition>,
    /// Whether this member restarts.
    pub restarts: bool,
}

impl Step {
    /// Returns whether it asks anything of the cluster: see [`Plan::disturbs`].
    pub fn disturbs(&self) -> bool {
        let disturbs = matches!(
            self.action,
            Action::Edit { .. }
                | Action::MoveLeader { .. }
                | Action::Restart { .. }
                | Action::Revert { .. }
                | Action::UpdateMember { .. }
        );
        // What lets kubelet restart the member is as much as the restart.
        self.restarts || disturbs || self.preconditions.contains(&Condition::OthersAreQuorum)
    }

    /// Returns in words what undoes it; `None` when nothing is to be undone.
    pub fn undo(&self) -> Option<String> {
        let was_absent = |path: &str| {
            self.preconditions.iter().any(|c| matches!(c, Condition::Absent { path: p } if p == path))
        };
        let files = |paths: &[&str]| match paths.iter().all(|path| was_absent(path)) {
            true => format!("remove {}", paths.join(" and ")),
            false => format!("put {} back as before", paths.join(" and ")),
        };
        match &self.action {
            Action::Bundle { path, .. } => Some(files(&[path])),
            Action::CreateAuthority { certificate, key } | Action::Issue { certificate, key, .. } => {
                Some(files(&[certificate, key]))
            }
            Action::Request { request, key, .. } => Some(files(&[request, key])),
            Action::Edit { path, .. } if was_absent(path) => Some(format!("remove {path}")),
            Action::Edit { path, change, .. } => Some(format!(
                "put back the former values of {} in {path}; what others change meanwhile stays",
                change.settings().join(", ")
            )),
            Action::MoveLeader { .. } => None,
            Action::Restart { .. } => Some("restart it once its former settings are back".to_owned()),
            Action::Restore { path, .. } | Action::Revert { path, .. } => {
                Some(format!("put {path} back as it is now"))
            }
            Action::SetAttributes { path, from, .. } => Some(format!("give {path} {from} again")),
            Action::UpdateMember { from, .. } => {
                Some(format!("tell its peers to dial {} again, before anything else", from.join(", ")))
            }
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Writes certificates into one file, which anybody may read: those of authorities, and those of members that no
    /// authority vouches for.
    Bundle {
        /// The file.
        path: String,
        /// The files whose certificates are in it, in order. What else is in them is left out.
        of: Vec<String>,
        /// Certificates that follow, as PEM: those that no file of this node holds.
        with: Vec<String>,
        /// SHA-256 of the file afterwards.
        after: String,
    },
    /// Makes a certificate authority for members only.
    CreateAuthority {
        /// Where its certificate goes.
        certificate: String,
        /// Where its private key goes.
        key: String,
    },
    /// Edits a file.
    Edit {
        /// The file.
        path: String,
        /// The change.
        change: FileEdit,
        /// SHA-256 of the file afterwards.
        after: String,
    },
    /// Makes a key and a certificate on this node.
    Issue {
        /// Common name of the subject.
        common_name: String,
        /// Host names and addresses in it.
        hosts: Vec<String>,
        /// What it is for.
        #[serde(default)]
        purpose: Purpose,
        /// Days that it is valid, at most until its authority is not any more.
        days: u32,
        /// Where the certificate goes.
        certificate: String,
        /// Where the private key goes, with mode 0600.
        key: String,
        /// Certificate of the authority.
        ca_certificate: String,
        /// Private key of the authority.
        ca_key: String,
        /// User id that owns both files.
        uid: u32,
        /// Group id that owns both files.
        gid: u32,
        /// Whether both files are there and are replaced, directly after each other: they keep their owner and mode.
        #[serde(default)]
        replaces: bool,
    },
    /// Hands leadership over.
    MoveLeader {
        /// Ids of the members that may take it, best first.
        to: Vec<String>,
    },
    /// Makes a key and a request for its certificate on this node, for peers.
    Request {
        /// Common name of the subject.
        common_name: String,
        /// Host names and addresses in it.
        hosts: Vec<String>,
        /// The kind of the key.
        key_kind: KeyKind,
        /// Where the request goes.
        request: String,
        /// Where the private key goes, with mode 0600.
        key: String,
        /// User id that owns both files.
        uid: u32,
        /// Group id that owns both files.
        gid: u32,
    },
    /// Brings back what was at a path before a fix, or that nothing was.
    Restore {
        /// The path.
        path: String,
        /// The fix, and the id of the pre-image in its record.
        preimage: PreimageId,
        /// SHA-256 of the file afterwards; null when there is none.
        after: Option<String>,
    },
    /// Gives the values that an edit changed back to a file that others have changed since.
    Revert {
        /// The file.
        path: String,
        /// The edit.
        change: FileEdit,
        /// The fix, and the id of the pre-image in its record.
        preimage: PreimageId,
        /// SHA-256 of the file afterwards.
        after: String,
    },
    /// Makes the member run with what was edited.
    Restart {
        /// Who restarts it.
        by: RestartedBy,
        /// Settings that are in effect afterwards; an empty value says that one is not set any more.
        settings: BTreeMap<String, String>,
    },
    /// Sets owner and mode of a file or directory.
    SetAttributes {
        /// The path.
        path: String,
        /// How they are before.
        from: Attributes,
        /// How they are afterwards.
        to: Attributes,
    },
    /// Changes the peer URLs of the member in the membership.
    UpdateMember {
        /// Id of the member.
        member_id: String,
        /// The URLs before.
        from: Vec<String>,
        /// The URLs afterwards.
        to: Vec<String>,
        /// Client URLs of other members, through which it is done.
        via: Vec<String>,
    },
}

/// A pre-image in the record of a fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreimageId {
    /// Id of the fix.
    pub fix: String,
    /// Id of the pre-image.
    pub id: String,
}

/// Owner and mode of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// Permission bits, octal in text.
    #[serde(with = "octal")]
    #[schemars(with = "String", regex(pattern = "^[0-7]{4,}$"))]
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Action {
    /// Returns the files and directories that it changes.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Bundle { path, .. }
            | Self::Edit { path, .. }
            | Self::Restore { path, .. }
            | Self::Revert { path, .. }
            | Self::SetAttributes { path, .. } => vec![path],
            Self::CreateAuthority { certificate, key } | Self::Issue { certificate, key, .. } => {
                vec![certificate, key]
            }
            Self::Request { request, key, .. } => vec![request, key],
            Self::MoveLeader { .. } | Self::Restart { .. } | Self::UpdateMember { .. } => Vec::new(),
        }
    }

    /// Returns whether it edits settings in a file, or undoes such an edit value by value.
    pub fn is_edit(&self) -> bool {
        matches!(self, Self::Edit { .. } | Self::Revert { .. })
    }

    /// Returns the files whose content it writes.
    pub fn written(&self) -> Vec<&str> {
        match self {
            Self::SetAttributes { .. } => Vec::new(),
            _ => self.paths(),
        }
    }
}

/// Who restarts a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RestartedBy {
    /// kubelet, because its manifest has changed.
    Kubelet,
    /// kubelet, once the process has ended: its manifest is as before.
    KubeletAfterEnd {
        /// The process.
        pid: u32,
    },
    /// systemd, when it is asked to.
    Systemd {
        /// The unit.
        unit: String,
    },
}

/// What another member must have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// Name of the member, or its id when it has none.
    pub member: String,
    /// What it must have done.
    pub until: Until,
}

/// What a member waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// This member has the certificate that it has asked for.
    Certified,
    /// The clients on the other member's node use TLS, and it announces that it serves them so.
    Announced,
    /// The other member no longer serves clients in plaintext.
    Closed,
    /// The other member talks TLS with its peers.
    Encrypted,
    /// The other member has loaded its certificate: it is known that it has not.
    Loaded,
    /// The other member serves clients with TLS too: it is not known that it does.
    Served,
    /// The other member has loaded its certificate: it is not known whether it has.
    KnownToHaveLoaded,
    /// The other member trusts both authorities.
    Trusting,
    /// The other member presents a certificate of the new authority.
    Presenting,
    /// The other member has completed the turn that it has begun.
    TurnEnded,
    /// The other member was rolled back, because it relies on what this one would take away.
    RolledBack,
}

/// Why there is no plan, or why it must not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Its kind.
    pub kind: RefusalKind,
    /// What is wrong.
    pub what: String,
    /// What would come of it.
    pub why: String,
    /// What to do instead.
    pub instead: String,
}

impl From<Refusal> for Vec<Refusal> {
    fn from(refusal: Refusal) -> Self {
        vec![refusal]
    }
}

/// Why a plan is refused, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The process could not use a file of its own any more.
    Access,
    /// An alarm is raised.
    Alarm,
    /// There is no authority to issue a certificate.
    Authority,
    /// A certificate would isolate the member.
    Certificate,
    /// A client could not connect any more, or it is not known whether it could.
    Client,
    /// The clocks of members differ.
    Clock,
    /// The edit cannot be made exactly.
    Edit,
    /// The environment carries what a flag would set.
    Environment,
    /// Something that must be known is not.
    Evidence,
    /// A member is not healthy.
    Health,
    /// Two members could not dial each other any more.
    Order,
    /// kubelet's probes would fail, and it would be restarted again and again.
    Probe,
    /// Too few members are healthy for a restart.
    Quorum,
    /// Another file declares the same pod.
    Rival,
    /// A cluster of two stops while one restarts.
    TwoMembers,
    /// Another fix on this node is not ended, or has changed the same since.
    OtherFix,
    /// What is configured is not supported.
    Unsupported,
    /// A file could not be put back.
    Unrestorable,
    /// How this version behaves is not known.
    Version,
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {:04o} and owner {}:{}", self.mode, self.uid, self.gid)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = &self.member;
        match self.until {
            Until::Certified => {
                write!(f, "{member} must get its certificate back from a node that has the authority's key")
            }
            Until::Announced => {
                write!(f, "{member} must announce TLS to its clients, once those on its node use it")
            }
            Until::Closed => write!(f, "{member} must stop to serve its clients in plaintext"),
            Until::Served => write!(
                f,
                "{member} must serve its clients with TLS too, and this node does not know that it does"
            ),
            Until::Encrypted => write!(f, "{member} must talk TLS with its peers"),
            Until::Trusting => write!(f, "{member} must trust both authorities"),
            Until::Presenting => write!(f, "{member} must present a certificate of the new authority"),
            Until::TurnEnded => write!(f, "{member} must complete the turn that it has begun"),
            Until::RolledBack => {
                write!(f, "{member} must be rolled back first, because it relies on what is undone here")
            }
            Until::Loaded => write!(f, "{member} must have loaded its certificate, and has not"),
            Until::KnownToHaveLoaded => {
                write!(
                    f,
                    "{member} must have loaded its certificate, and this node does not know whether it has"
                )
            }
        }
    }
}

/// Permission bits as octal text, which is how people read them.
pub(crate) mod octal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).map_err(D::Error::custom)
    }
}
