//! A plan: what would be done to one member, step by step, as an immutable document.
//!
//! Every step says what it does, why, what must hold before it, what is verified after it, and what takes it back. A
//! plan is bound to the [`State`] it was made from, and holds no secret: an edit is kept as what it changes and the
//! hashes of the file before and after, never as the file.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::issue::{KeyKind, Purpose};
use seaworthy_edit::{ArgumentEdit, config, environment, manifest};

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
    /// SHA-256 of the public key of the authority that the members change to, which the note of this turn has to say;
    /// null when the plan changes no authority.
    pub authority: Option<String>,
    /// What must happen elsewhere before the first step.
    pub waits_for: Vec<Waiting>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What happens elsewhere after the last step, before this member's next turn.
    pub then_waits_for: Vec<Waiting>,
    /// What a person has to do, so that the change lasts.
    pub by_hand: Vec<String>,
}

impl Plan {
    /// The format that this version reads and writes.
    pub const FORMAT: &str = "seaworthy.dev/plan/v1";

    /// Returns the plan in `json`.
    ///
    /// # Errors
    ///
    /// When it is not a plan of this format.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let plan: Self = serde_json::from_slice(json)?;
        match plan.format == Self::FORMAT {
            true => Ok(plan),
            false => Err(serde::de::Error::custom(format!("the format is not {}", Self::FORMAT))),
        }
    }

    /// Returns whether it asks anything of the cluster: whether the member restarts (kubelet restarts it once its manifest is
    /// edited), hands over, or is dialled elsewhere. Another plan is good while members are down, and needs no turn.
    pub fn disturbs(&self) -> bool {
        self.steps.iter().any(Step::disturbs)
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
    /// It goes back to how it was.
    Return,
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
    /// Name of the member.
    pub member: String,
    /// Id of the member, hexadecimal.
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
    pub preconditions: Vec<Precondition>,
    /// What is verified right after it.
    pub verify: Vec<Verification>,
    /// What takes it back.
    pub undo: Undo,
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
                | Action::UpdateMember { .. }
        );
        self.restarts || disturbs
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
    /// Brings back what was at a path before the fix, or that nothing was.
    Restore {
        /// The path.
        path: String,
        /// Id of its pre-image.
        preimage: String,
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
        /// Permission bits, octal in text.
        #[serde(with = "octal")]
        #[schemars(with = "String", regex(pattern = "^[0-7]{4,}$"))]
        mode: u32,
        /// User id of the owner.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Changes the peer URLs of the member in the membership.
    UpdateMember {
        /// Id of the member.
        member_id: String,
        /// The new URLs.
        peer_urls: Vec<String>,
        /// Client URLs of other members, through which it is done.
        via: Vec<String>,
    },
}

/// An edit of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FileEdit {
    /// etcd's own configuration file.
    Config {
        /// The changes.
        edits: Vec<config::Edit>,
    },
    /// A drop-in that replaces the command line of a systemd unit.
    DropIn {
        /// The unit and its drop-ins, in the order in which they apply.
        unit: Vec<String>,
        /// The changes of the command line.
        edits: Vec<ArgumentEdit>,
    },
    /// An environment file.
    Environment {
        /// The changes.
        edits: Vec<environment::Edit>,
    },
    /// A static pod manifest.
    Manifest {
        /// Name of the container.
        container: String,
        /// The changes.
        edits: Vec<manifest::Edit>,
    },
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

/// What must hold right before a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Precondition {
    /// Nothing is at this path.
    Absent {
        /// The path.
        path: String,
    },
    /// The file or directory, which is no symbolic link, has this owner and mode.
    Attributes {
        /// The path.
        path: String,
        /// Permission bits, octal in text.
        #[serde(with = "octal")]
        #[schemars(with = "String", regex(pattern = "^[0-7]{4,}$"))]
        mode: u32,
        /// User id of the owner.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// All members are healthy and no alarm is raised.
    ClusterHealthy,
    /// The file has this content.
    File {
        /// The file.
        path: String,
        /// SHA-256 of its content.
        sha256: String,
    },
    /// The files hold this certificate and this key.
    Holds {
        /// The certificate file.
        certificate: String,
        /// SHA-256 of the first certificate in it.
        fingerprint: String,
        /// The key file.
        key: String,
        /// SHA-256 of the public half of the key in it; null when that could not be told.
        spki: Option<String>,
    },
    /// Every two members have dialled each other, both ways.
    LinksFull,
    /// Every member has loaded a certificate for its peers.
    LoadedEverywhere,
    /// The member has these peer URLs in the membership.
    PeerUrls {
        /// Id of the member.
        member_id: String,
        /// The URLs.
        urls: Vec<String>,
    },
}

/// What is verified right after a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verification {
    /// Nothing is wrong with the certificate for its use.
    CertificateSound,
    /// All members are healthy.
    ClusterHealthy,
    /// The file parses to the old value plus exactly the change.
    ExactlyThisChange,
    /// Every two members have dialled each other, both ways.
    LinksFull {
        /// Within so many seconds.
        seconds: u32,
    },
    /// Another member leads.
    Followed,
    /// Owner and mode are as set.
    Attributes,
    /// The client port answers over mutual TLS, and refuses who has no certificate.
    ClientMutualTls,
    /// The client port does not answer in plaintext.
    ClientPlaintextRefused,
    /// The client port answers over TLS.
    ClientTls,
    /// The rule passes in an audit of this node.
    RulePasses,
    /// The peer port serves the certificate that is in the file.
    Serves {
        /// The file.
        certificate: String,
    },
    /// The client port serves the certificate that is in the file.
    ServesClients {
        /// The file.
        certificate: String,
    },
    /// The peer port names the authorities that are in the file, and no others, when it asks for a certificate.
    Trusts {
        /// The file.
        authorities: String,
    },
    /// The membership of every member shows these URLs.
    MembershipShows {
        /// The URLs.
        urls: Vec<String>,
    },
    /// The peer port answers over mutual TLS, and refuses who has no certificate.
    MutualTls,
    /// No plaintext connection with a peer is left.
    NoPlaintextConnection,
    /// The peer port does not answer in plaintext.
    PlaintextRefused,
    /// The request is signed by the key, and asks for what the step says.
    RequestSound,
    /// The process was started after the step.
    Restarted,
    /// The settings of the step are in effect.
    SettingsEffective,
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Undo {
    /// The file or directory gets its former owner and mode.
    Attributes {
        /// The path.
        path: String,
        /// Permission bits, octal in text.
        #[serde(with = "octal")]
        #[schemars(with = "String", regex(pattern = "^[0-7]{4,}$"))]
        mode: u32,
        /// User id of the owner.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Nothing is to be taken back.
    Nothing,
    /// The member gets its former peer URLs in the membership.
    PeerUrls {
        /// The URLs.
        urls: Vec<String>,
    },
    /// The files are removed.
    Remove {
        /// The files.
        paths: Vec<String>,
    },
    /// The member is restarted once the file is restored.
    Restart,
    /// The file becomes what it was.
    Restore {
        /// The file.
        path: String,
    },
    /// The files become what they were, directly after each other.
    RestoreAll {
        /// The files.
        paths: Vec<String>,
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
    /// The other member was taken back, because it relies on what this one would take away.
    TakenBack,
}

/// Why there is no plan, or why it must not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The class of the objection.
    pub objection: Objection,
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

/// The class of an objection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objection {
    /// etcd could not use a file of its own any more.
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
    /// Too few members are healthy for a restart.
    Quorum,
    /// Another file declares the same pod.
    Rival,
    /// A cluster of two stops while one restarts.
    TwoMembers,
    /// What is configured is not supported.
    Unsupported,
    /// A file could not be put back.
    Unrestorable,
    /// How this version of etcd behaves is not known.
    Version,
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { path } => write!(f, "nothing is at {path}"),
            Self::Attributes { path, mode, uid, gid } => {
                write!(f, "{path} has mode {mode:04o} and owner {uid}:{gid}")
            }
            Self::ClusterHealthy => f.write_str("all members are healthy, and no alarm is raised"),
            Self::File { path, .. } => write!(f, "{path} is as it was when this plan was made"),
            Self::Holds { certificate, key, .. } => {
                write!(
                    f,
                    "{certificate} and {key} hold the certificate and the key that this plan was made for"
                )
            }
            Self::LinksFull => f.write_str("all members are connected both ways"),
            Self::LoadedEverywhere => f.write_str("every member has loaded its certificate"),
            Self::PeerUrls { urls, .. } => write!(f, "its peers are told to dial {}", urls.join(", ")),
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateSound => f.write_str("key, chain, names, usages and dates of the certificate"),
            Self::ClusterHealthy => f.write_str("all members are healthy"),
            Self::ExactlyThisChange => f.write_str("the new file parses to the old one plus this change"),
            Self::LinksFull { seconds } => {
                write!(f, "all members are connected both ways within {seconds} s")
            }
            Self::Followed => f.write_str("another member leads"),
            Self::Attributes => f.write_str("owner and mode are as set"),
            Self::ClientMutualTls => {
                f.write_str("the client port answers over mutual TLS, and refuses who has no certificate")
            }
            Self::ClientPlaintextRefused => f.write_str("the client port no longer answers in plaintext"),
            Self::ClientTls => f.write_str("the client port answers over TLS"),
            Self::RulePasses => f.write_str("the rule passes in an audit"),
            Self::Serves { certificate } => {
                write!(f, "the peer port serves the certificate in {certificate}")
            }
            Self::ServesClients { certificate } => {
                write!(f, "the client port serves the certificate in {certificate}")
            }
            Self::Trusts { authorities } => {
                write!(
                    f,
                    "the peer port demands a certificate of the authorities in {authorities}, and no others"
                )
            }
            Self::MembershipShows { urls } => write!(f, "every member lists it with {}", urls.join(", ")),
            Self::MutualTls => {
                f.write_str("the peer port answers over mutual TLS, and refuses who has no certificate")
            }
            Self::NoPlaintextConnection => f.write_str("no plaintext connection with a peer is left"),
            Self::PlaintextRefused => f.write_str("the peer port no longer answers in plaintext"),
            Self::RequestSound => f.write_str("the request is signed by the key"),
            Self::Restarted => f.write_str("the process is a new one"),
            Self::SettingsEffective => f.write_str("the new settings are in effect"),
        }
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attributes { path, mode, uid, gid } => {
                write!(f, "give {path} mode {mode:04o} and owner {uid}:{gid} again")
            }
            Self::Nothing => f.write_str("nothing is to be undone"),
            Self::PeerUrls { urls } => {
                write!(f, "tell its peers to dial {} again, before anything else", urls.join(", "))
            }
            Self::Remove { paths } => write!(f, "remove {}", paths.join(", ")),
            Self::Restart => f.write_str("restart it once the former file is back"),
            Self::Restore { path } => write!(f, "put {path} back as it was"),
            Self::RestoreAll { paths } => write!(f, "put {} back as they were", paths.join(" and ")),
        }
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
            Until::TakenBack => {
                write!(f, "{member} must be taken back first, so that it talks plaintext with its peers")
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
mod octal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).map_err(D::Error::custom)
    }
}
