//! What is wrong with the key material of one side of etcd, by comparing it with its use.

use std::net::IpAddr;

use jiff::Timestamp;
use seaworthy_evidence::{
    Certificate, ErrorKind, EvidenceError, Origin, PrivateKey, Problem, ProblemKind, RevocationList,
};

use crate::certificate::days_between;
use crate::names::has_ip;
use crate::{Allowed, ChainError, Parsed, Usage, chains_to, names};

/// One configured file: its content, or why it could not be had.
#[derive(Debug)]
pub struct Source<'a, T: ?Sized> {
    /// The path as it is configured.
    pub path: &'a str,
    /// Where the file is.
    pub origin: &'a Origin,
    /// What is in it.
    pub content: Result<&'a T, &'a EvidenceError>,
    /// Why the process may not read it: one clause that names the file; `None` when it may.
    pub refusal: Option<&'a str>,
}

impl<T: ?Sized> Clone for Source<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Source<'_, T> {}

/// The key material of one side of etcd; `None` for what is not configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Material<'a> {
    /// The certificate file, leaf first.
    pub certificate: Option<Source<'a, [Parsed]>>,
    /// The private key of the leaf.
    pub key: Option<Source<'a, PrivateKey>>,
    /// The separate certificate for outgoing dials (etcd 3.5+), leaf first.
    pub client_certificate: Option<Source<'a, [Parsed]>>,
    /// Its private key.
    pub client_key: Option<Source<'a, PrivateKey>>,
    /// The trusted CA file.
    pub trusted: Option<Source<'a, [Parsed]>>,
    /// The revocation list.
    pub revocations: Option<Source<'a, RevocationList>>,
}

/// Who dials and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Clients dial, etcd answers.
    Client,
    /// Members dial each other, so each is a server and a client.
    Peer,
    /// It dials those that are named, and trusts them by other CAs than they trust it by.
    Outgoing(&'static str),
}

/// What the material is used for.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// Which side.
    pub side: Side,
    /// Hosts (names, or IP addresses) of the `https` URLs at which others dial this member.
    pub dialled: &'a [String],
    /// Addresses from which this member dials; empty when they are not known.
    pub dials_from: &'a [IpAddr],
    /// Whether listeners of this side demand client certificates: a trusted CA or the flag, either is enough.
    pub client_auth: bool,
    /// Whether listeners compare the address of a dialling peer with its certificate: false with
    /// `peer-skip-client-san-verification` (`experimental-peer-skip-client-san-verification` before 3.6).
    pub checks_client_names: bool,
    /// The names of which every certificate at the other end must carry one, with the setting that says so.
    pub allowed: Option<(&'a str, &'a Allowed)>,
    /// The program that uses it.
    pub user: User<'a>,
}

/// A program that uses key material.
#[derive(Clone, Copy, Debug)]
pub enum User<'a> {
    /// etcd, with its version, for example `3.5.1`, as far as that is known.
    Etcd(Option<&'a str>),
    /// A component of Kubernetes, by its name. It looks at its files again every minute, and goes on with what it had where they are of
    /// no use (k8s.io/apiserver's `dynamiccertificates`).
    Kubernetes(&'a str),
}

impl<'a> User<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Kubernetes(name) => name,
        }
    }

    /// Returns what follows where certificate or key are of no use.
    fn without_certificate(self) -> String {
        match self {
            Self::Etcd(_) => {
                "etcd exits when it next starts, and a running one refuses new connections".to_owned()
            }
            Self::Kubernetes(name) => {
                format!("{name} exits when it next starts, and a running one goes on with what it had")
            }
        }
    }

    /// Returns what follows where the CAs are of no use.
    fn without_authorities(self) -> String {
        match self {
            Self::Etcd(_) => "etcd will not start with it, or trust nobody".to_owned(),
            Self::Kubernetes(_) => self.without_certificate(),
        }
    }

    /// Returns when it reads a certificate again.
    fn reads_certificates(self) -> &'static str {
        match self {
            Self::Etcd(_) => "at the next handshake, without a restart",
            Self::Kubernetes(_) => "within a minute, without a restart",
        }
    }

    /// Returns when it reads its CAs again.
    fn reads_authorities(self) -> &'static str {
        match self {
            Self::Etcd(_) => "only when it starts",
            Self::Kubernetes(_) => self.reads_certificates(),
        }
    }
}

/// Days before its end at which a certificate counts as expiring.
pub(crate) const EXPIRING_DAYS: i64 = 30;

/// Returns all that is wrong with `material` for `usage` at `now`, file by file.
///
/// A file that could not be read for a reason of the auditor's own (no permission, vanished) is no problem
/// here: it is unknown. So is what depends on it.
///
/// What etcd does about each was established by experiment; where two members compare notes, the others are
/// assumed to be configured like this one.
pub fn problems(material: &Material<'_>, usage: &Use<'_>, now: Timestamp) -> Vec<Problem> {
    let mut survey = Survey { material, usage, now, problems: Vec::new() };
    survey.files();
    survey.key();
    let needed = survey.identities();
    survey.authorities(&needed);
    survey.strength();
    survey.revocations();
    survey.problems
}

struct Survey<'a> {
    material: &'a Material<'a>,
    usage: &'a Use<'a>,
    now: Timestamp,
    problems: Vec<Problem>,
}

/// A leaf that is presented to others, and how.
struct Identity<'a> {
    file: File<'a>,
    leaf: &'a Parsed,
    rest: &'a [Parsed],
    serves: bool,
    dials: bool,
}

/// A certificate file that could be read.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    certificates: &'a [Parsed],
}

impl<'a> File<'a> {
    fn of(source: &Option<Source<'a, [Parsed]>>) -> Option<Self> {
        source.and_then(|source| Some(Self { path: source.path, certificates: source.content.ok()? }))
    }

    /// Returns how to name a certificate of this file in a message.
    fn label(&self, certificate: &Certificate) -> String {
        match certificate.subject.as_str() {
            "" => self.path.to_owned(),
            subject => format!("{} ({subject})", self.path),
        }
    }
}

impl<'a> Survey<'a> {
    fn add(&mut self, kind: ProblemKind, breaks: bool, path: &str, origin: &Origin, message: String) {
        let problem = Problem { kind, breaks, path: path.to_owned(), message, origin: origin.clone() };
        // One file may play several parts.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn others(&self) -> &'static str {
        match self.usage.side {
            Side::Client => "clients",
            Side::Peer => "its peers",
            Side::Outgoing(others) => others,
        }
    }

    /// Files that are not there, or not what they should be.
    fn files(&mut self) {
        let user = self.usage.user;
        let own = &user.without_certificate();
        let Material { certificate, key, client_certificate, client_key, trusted, revocations } =
            *self.material;
        self.file(certificate, ProblemKind::Malformed, true, own);
        self.file(key, ProblemKind::Malformed, true, own);
        let clients = &format!("{} exits when it next starts", user.name());
        self.file(client_certificate, ProblemKind::Malformed, true, clients);
        self.file(client_key, ProblemKind::Malformed, true, clients);
        self.file(trusted, ProblemKind::Malformed, true, &user.without_authorities());
        let refuses = &format!("{} refuses every connection that brings a certificate", user.name());
        let asks = self.usage.client_auth;
        self.file(revocations, ProblemKind::RevocationListUnusable, asks, refuses);
    }

    fn file<T: ?Sized>(
        &mut self,
        source: Option<Source<'_, T>>,
        unusable: ProblemKind,
        breaks: bool,
        consequence: &str,
    ) {
        let Some(Source { path, origin, content, refusal }) = source else { return };
        if let Some(refusal) = refusal {
            let message = format!("{refusal}, so {consequence}");
            self.add(ProblemKind::Unreadable, breaks, path, origin, message);
        }
        let Err(error) = content else { return };
        let kind = match error.kind {
            ErrorKind::NotFound => ProblemKind::Missing,
            ErrorKind::Malformed | ErrorKind::Unsupported => unusable,
            _ => return,
        };
        let message = match error.message.contains(path) {
            true => format!("{error}, so {consequence}"),
            false => format!("{path}: {error}, so {consequence}"),
        };
        self.add(kind, breaks, path, error.origin.as_ref().unwrap_or(origin), message);
    }

    fn key(&mut self) {
        let (Some(file), Some(Source { path, origin, content: Ok(key), .. })) =
            (File::of(&self.material.certificate), self.material.key)
        else {
            return;
        };
        let Some(leaf) = file.certificates.first() else { return };
        if leaf.certificate.key.spki != key.key.spki {
            let message = format!(
                "{path} is not the key of {}: {}",
                file.label(&leaf.certificate),
                self.usage.user.without_certificate(),
            );
            self.add(ProblemKind::KeyMismatch, true, path, origin, message);
        }
    }

    /// Judges each leaf, and returns the fingerprints of certificates above them whose validity is all that
    /// keeps them from being accepted.
    fn identities(&mut self) -> Vec<String> {
        let peer = self.usage.side == Side::Peer;
        let client = File::of(&self.material.client_certificate).filter(|_| peer);
        let separate = peer && self.material.client_certificate.is_some();
        let outgoing = matches!(self.usage.side, Side::Outgoing(_));
        let own =
            File::of(&self.material.certificate).map(|file| (file, !outgoing, outgoing || peer && !separate));
        let mut needed = Vec::new();
        for (file, serves, dials) in own.into_iter().chain(client.map(|file| (file, false, true))) {
            let Some((leaf, rest)) = file.certificates.split_first() else { continue };
            let identity = Identity { file, leaf, rest, serves, dials };
            self.leaf_validity(&identity);
            self.names(&identity);
            self.origin_address(&identity);
            self.allowed_name(&identity);
            // Where nobody demands client certificates, what this one is as a client does not matter.
            let as_client = (dials && self.usage.client_auth).then_some(Usage::Client);
            for usage in serves.then_some(Usage::Server).into_iter().chain(as_client) {
                needed.extend(self.acceptance(&identity, usage));
            }
        }
        needed
    }

    fn leaf_validity(&mut self, identity: &Identity<'_>) {
        let refused = format!("{} refuse it", self.others());
        let consequence = match (self.usage.side, identity.serves) {
            (Side::Client, _) => "clients refuse to connect",
            (Side::Peer, true) => {
                "its peers refuse every new connection, and the open ones end with the next restart of \
                 either side"
            }
            (Side::Peer, false) => "this member can dial its peers no longer once its connections end",
            (Side::Outgoing(_), _) => &refused,
        };
        let user = self.usage.user;
        let (name, when) = (user.name(), user.reads_certificates());
        let renew = format!("renew it before then ({name} reads the new file {when})");
        self.validity(identity.file, &identity.leaf.certificate, true, consequence, &renew);
    }

    fn validity(&mut self, file: File<'_>, of: &Certificate, breaks: bool, consequence: &str, renew: &str) {
        let label = file.label(of);
        let (kind, breaks, message) = if self.now > of.not_after {
            let ago = match days_between(of.not_after, self.now) {
                0 => "less than a day ago".to_owned(),
                days => format!("{} ago", plural(days)),
            };
            let message = format!("{label} expired on {}, {ago}: {consequence}", date(of.not_after));
            (ProblemKind::Expired, breaks, message)
        } else if self.now < of.not_before {
            let message = format!("{label} is not valid before {}: {consequence}", date(of.not_before));
            (ProblemKind::NotYetValid, breaks, message)
        } else {
            let days = days_between(self.now, of.not_after);
            if days > EXPIRING_DAYS {
                return;
            }
            let when = if days == 0 { "less than a day".to_owned() } else { plural(days) };
            let message = format!("{label} expires on {}, in {when}: {renew}", date(of.not_after));
            (ProblemKind::Expiring, false, message)
        };
        self.add(kind, breaks, file.path, &of.origin, message);
    }

    /// Compares the names of a leaf with the hosts that others dial.
    fn names(&mut self, identity: &Identity<'_>) {
        if matches!(self.usage.side, Side::Outgoing(_)) {
            return;
        }
        let Identity { file, leaf: Parsed { certificate, .. }, .. } = identity;
        let (label, others) = (file.label(certificate), self.others());
        if certificate.sans.dns.is_empty() && certificate.sans.ip.is_empty() {
            let as_client = "whoever holds its key is accepted as a peer from any address";
            let message = match (identity.serves, identity.dials) {
                (true, true) => format!(
                    "{label} names no host and no address: {others} refuse to dial this member, and \
                     {as_client}"
                ),
                (true, false) => {
                    format!("{label} names no host and no address: {others} refuse to dial this member")
                }
                (false, _) => format!("{label} names no host and no address: {as_client}"),
            };
            self.add(ProblemKind::NoSan, identity.serves, file.path, &certificate.origin, message);
        } else if identity.serves {
            let missing: Vec<&str> = self
                .usage
                .dialled
                .iter()
                .filter(|host| !names(certificate, host))
                .map(String::as_str)
                .collect();
            if !missing.is_empty() {
                let message = format!(
                    "{label} names {}, not {}, which is where {others} dial it: they will refuse the \
                     connection",
                    sans(certificate),
                    listed(&missing),
                );
                self.add(ProblemKind::WrongSan, true, file.path, &certificate.origin, message);
            }
        }
    }

    /// Compares the addresses of a leaf with those this member dials from, as a listening peer does. With DNS
    /// names among them the peer asks its resolver, which cannot be foretold.
    fn origin_address(&mut self, identity: &Identity<'_>) {
        let Identity { file, leaf: Parsed { certificate, .. }, .. } = identity;
        let Use { dials_from, client_auth, checks_client_names, .. } = *self.usage;
        let checked = identity.dials && client_auth && checks_client_names && !dials_from.is_empty();
        let addresses_only = certificate.sans.dns.is_empty() && !certificate.sans.ip.is_empty();
        if checked && addresses_only && !dials_from.iter().any(|ip| has_ip(certificate, *ip)) {
            let from: Vec<String> = dials_from.iter().map(IpAddr::to_string).collect();
            let message = format!(
                "{} names {}, not {}, which this member dials from: its peers close the connection after \
                 the handshake",
                file.label(certificate),
                sans(certificate),
                listed(&from),
            );
            self.add(ProblemKind::WrongSan, true, file.path, &certificate.origin, message);
        }
    }

    /// Compares a leaf with the names that a member demands of both ends of each connection: of who dials it, where it
    /// demands a certificate of them, and of whom it dials.
    fn allowed_name(&mut self, identity: &Identity<'_>) {
        let Identity { file, leaf: Parsed { certificate, .. }, serves, dials, .. } = identity;
        let Some((setting, allowed)) = self.usage.allowed else { return };
        let dials = *dials && self.usage.client_auth;
        if self.usage.side != Side::Peer || !serves && !dials || allowed.admits(certificate) {
            return;
        }
        let (carries, admitted) = match allowed {
            Allowed::CommonNames(list) => match certificate.common_name.as_deref() {
                None | Some("") => ("has no common name".to_owned(), list),
                Some(name) => (format!("has the common name {name}"), list),
            },
            Allowed::Hostnames(list) => match sans(certificate).as_str() {
                "" => ("names no host".to_owned(), list),
                names => (format!("names {names}"), list),
            },
        };
        let consequence = match (serves, dials) {
            (true, true) => "no member with the same restriction connects with this one, in either direction",
            (true, false) => "no member with the same restriction can dial this one",
            (false, _) => "this member cannot dial members with the same restriction",
        };
        let message = format!(
            "{} {carries}, and {setting} admits only {}: {consequence}",
            file.label(certificate),
            listed(admitted),
        );
        self.add(ProblemKind::NameNotAllowed, true, file.path, &certificate.origin, message);
    }

    /// Judges whether those who trust the same CAs accept the leaf for `usage`. Returns the fingerprint of
    /// the CA whose validity alone keeps them from it.
    fn acceptance(&mut self, identity: &Identity<'_>, usage: Usage) -> Option<String> {
        let Identity { file, leaf, rest, .. } = identity;
        let certificate = &leaf.certificate;
        if !usage.allowed_by(certificate) {
            let label = file.label(certificate);
            let listed = listed(certificate.usages.as_deref().unwrap_or_default());
            self.lacks_usage(identity, usage, format!("{label} is for {listed}, not {}", usage.name()));
        }
        // What a component dials with is judged by others, and those who connect to a component of Kubernetes need not have the CA of
        // its own certificate.
        if matches!(self.usage.side, Side::Outgoing(_)) || matches!(self.usage.user, User::Kubernetes(_)) {
            return None;
        }
        let trusted = File::of(&self.material.trusted)?;
        // The leaf's own validity has been judged; its chain is judged as if it were valid.
        let at = self.now.min(certificate.not_after).max(certificate.not_before);
        match chains_to(leaf, rest, trusted.certificates, usage, at) {
            Ok(()) => None,
            Err(ChainError::Expired { certificate: ca } | ChainError::NotYetValid { certificate: ca }) => {
                Some(ca.fingerprint)
            }
            Err(ChainError::UsageMissing { certificate: ca, .. }) => {
                if ca.fingerprint != certificate.fingerprint {
                    let label = file.label(certificate);
                    let what =
                        format!("{label} is not for {}, because its CA {} is not", usage.name(), ca.subject);
                    self.lacks_usage(identity, usage, what);
                }
                None
            }
            Err(error) => {
                // Clients bring their own idea of whom to trust.
                let (breaks, consequence) = match self.usage.side {
                    Side::Client => (false, "clients that trust the same file refuse to connect"),
                    Side::Peer | Side::Outgoing(_) => {
                        (true, "peers that trust the same file refuse the connection")
                    }
                };
                let message = format!(
                    "{} does not chain to {} ({error}): {consequence}",
                    file.label(certificate),
                    trusted.path,
                );
                self.add(ProblemKind::UnknownCa, breaks, file.path, &certificate.origin, message);
                None
            }
        }
    }

    fn lacks_usage(&mut self, identity: &Identity<'_>, usage: Usage, what: String) {
        let green = "although health endpoints stay green, and no snapshot can be sent";
        let (kind, message) = match (usage, self.usage.side) {
            (_, Side::Outgoing(others)) => (ProblemKind::NoClientAuth, format!("{what}: {others} refuse it")),
            (Usage::Client, _) => (
                ProblemKind::NoClientAuth,
                format!("{what}: this member cannot dial its peers, {green} by it"),
            ),
            (Usage::Server, Side::Peer) => (
                ProblemKind::NoServerAuth,
                format!("{what}: its peers cannot dial this member, {green} to it"),
            ),
            (Usage::Server, Side::Client) => {
                (ProblemKind::NoServerAuth, format!("{what}: clients refuse to connect"))
            }
        };
        self.add(kind, true, identity.file.path, &identity.leaf.certificate.origin, message);
    }

    /// Judges the validity of intermediates and trusted CAs. It breaks something only if a leaf needs them,
    /// or if no trusted CA is left that could accept a client.
    fn authorities(&mut self, needed: &[String]) {
        let trusted = File::of(&self.material.trusted);
        let out = |p: &Parsed| self.now > p.certificate.not_after || self.now < p.certificate.not_before;
        let none_left =
            self.usage.client_auth && trusted.is_some_and(|file| file.certificates.iter().all(out));
        let unneeded = trusted.is_some() && self.usage.side == Side::Peer;
        let chains = [&self.material.certificate, &self.material.client_certificate];
        let chains = chains.into_iter().filter_map(File::of).map(|file| {
            (
                file,
                file.certificates.get(1..).unwrap_or_default(),
                false,
                self.usage.user.reads_certificates(),
            )
        });
        let trusted =
            trusted.map(|file| (file, file.certificates, none_left, self.usage.user.reads_authorities()));
        for (file, certificates, all, read) in chains.chain(trusted).collect::<Vec<_>>() {
            for Parsed { certificate, .. } in certificates {
                let breaks = all || needed.contains(&certificate.fingerprint);
                let consequence = match unneeded && !breaks {
                    true => "what it signed is refused, but no certificate of this member needs it",
                    false => "what it signed is refused",
                };
                let renew = format!(
                    "replace it, and what it signed, before then ({} reads the file {read})",
                    self.usage.user.name()
                );
                self.validity(file, certificate, breaks, consequence, &renew);
            }
        }
    }

    /// Weak keys, and weak signatures on certificates that are trusted because of their signature.
    fn strength(&mut self) {
        let Material { certificate, client_certificate, trusted, .. } = self.material;
        for file in [certificate, client_certificate, trusted].into_iter().filter_map(File::of) {
            for Parsed { certificate, .. } in file.certificates {
                let (label, key) = (file.label(certificate), &certificate.key);
                if weak_key(certificate).is_some() {
                    let message = format!(
                        "{label} has an {} key of {} bits, which can be broken: whoever does is accepted \
                         in its place",
                        key.algorithm, key.bits,
                    );
                    self.add(ProblemKind::WeakKey, false, file.path, &certificate.origin, message);
                }
                if let Some(signature) = weak_signature(certificate) {
                    let message = format!(
                        "{label} is signed with {signature}, which can be forged, and which {} refuses \
                         when it is built with Go 1.18 or later",
                        self.usage.user.name(),
                    );
                    self.add(ProblemKind::WeakSignature, false, file.path, &certificate.origin, message);
                }
            }
        }
    }

    /// etcd looks up serial numbers, and nothing else: neither issuer nor signature nor date of the list.
    fn revocations(&mut self) {
        let Some(Source { path, origin, content: Ok(list), .. }) = self.material.revocations else { return };
        if let User::Etcd(Some(version)) = self.usage.user
            && list.pem
            && reads_der_only(version)
        {
            let message = format!(
                "{path} is PEM, and etcd {version} reads DER only: it refuses every connection that brings a certificate"
            );
            let breaks = self.usage.client_auth;
            self.add(ProblemKind::RevocationListUnusable, breaks, path, origin, message);
        }
        let peer = self.usage.side == Side::Peer;
        let client = self.material.client_certificate.filter(|_| peer);
        let sources = [(self.material.certificate, client.is_none()), (client, true)];
        for (source, dials) in sources {
            let Some(file) = File::of(&source) else { continue };
            let breaks = peer && dials && self.usage.client_auth;
            let consequence = match breaks {
                true => "peers with the same list refuse this member's connections",
                false => "whoever honours the list refuses it",
            };
            for Parsed { certificate, .. } in file.certificates {
                if list.serials.contains(&certificate.serial) {
                    let message = format!(
                        "{} is revoked by {path} (serial number {}): {consequence}",
                        file.label(certificate),
                        certificate.serial,
                    );
                    self.add(ProblemKind::Revoked, breaks, file.path, &certificate.origin, message);
                }
            }
        }
    }
}

/// Returns whether this version of etcd takes a PEM revocation list for broken DER: 3.6 and later.
fn reads_der_only(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(3), Some(6))
}

fn sans(certificate: &Certificate) -> String {
    let all: Vec<&String> = certificate.sans.dns.iter().chain(&certificate.sans.ip).collect();
    listed(&all)
}

/// Returns `items` as words, at most five of them.
fn listed(items: &[impl AsRef<str>]) -> String {
    const MOST: usize = 5;
    let words: Vec<&str> = items.iter().take(MOST).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(MOST) {
        0 => words.join(", "),
        more => format!("{} and {more} more", words.join(", ")),
    }
}

pub(crate) fn plural(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

/// Returns the key of a certificate that can be broken.
pub(crate) fn weak_key(certificate: &Certificate) -> Option<String> {
    let key = &certificate.key;
    let weak = match key.algorithm.as_str() {
        "RSA" => (1..2048).contains(&key.bits),
        algorithm => algorithm.starts_with("ECDSA") && (1..224).contains(&key.bits),
    };
    weak.then(|| format!("{} of {} bits", key.algorithm, key.bits))
}

/// Returns the algorithm of a signature that can be forged.
pub(crate) fn weak_signature(certificate: &Certificate) -> Option<&str> {
    let signature = certificate.signature.as_str();
    let collides = ["md2", "md5", "sha1"].iter().any(|hash| signature.starts_with(hash));
    ((collides || signature.ends_with("SHA1")) && !certificate.self_signed).then_some(signature)
}

pub(crate) fn date(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{certificates_from_pem, private_key_from_pem, revocation_list};
    use crate::testing::{Entity, Issue, now};
    use rcgen::ExtendedKeyUsagePurpose as Eku;

    type Read<T> = Option<Result<T, EvidenceError>>;

    /// A peer at 10.0.0.3 with good material, for a test to spoil.
    struct Scene {
        certificate: Read<Vec<Parsed>>,
        key: Read<PrivateKey>,
        client: Read<Vec<Parsed>>,
        trusted: Read<Vec<Parsed>>,
        revocations: Read<RevocationList>,
        side: Side,
        dialled: Vec<String>,
        dials_from: Vec<IpAddr>,
        client_auth: bool,
        checks_client_names: bool,
        allowed: Option<(&'static str, Allowed)>,
        version: Option<&'static str>,
        is_kubernetes: bool,
        now: Timestamp,
        ca: Entity,
    }

    impl Scene {
        fn new() -> Self {
            let ca = Issue::ca("etcd-ca").valid((2027, 1, 1), (2037, 1, 1)).self_signed();
            let mut scene = Self {
                certificate: None,
                key: None,
                client: None,
                trusted: Some(read(&ca.pem, "/pki/ca.crt")),
                revocations: None,
                side: Side::Peer,
                dialled: vec!["10.0.0.3".to_owned()],
                dials_from: vec!["10.0.0.3".parse().unwrap()],
                client_auth: true,
                checks_client_names: true,
                allowed: None,
                version: Some("3.5.1"),
                is_kubernetes: false,
                now: now(),
                ca,
            };
            scene.leaf(|leaf| leaf);
            scene
        }

        /// Replaces the leaf by one that `edit` has changed, with its key.
        fn leaf(&mut self, edit: impl FnOnce(Issue) -> Issue) {
            let leaf = edit(Issue::new("m3").sans(&["10.0.0.3"]).serial(&[3])).signed_by(&self.ca);
            self.certificate = Some(read(&leaf.pem, "/pki/peer.crt"));
            self.key = Some(private_key_from_pem(leaf.key.serialize_pem().as_bytes(), "/pki/peer.key"));
        }

        fn client(&mut self, edit: impl FnOnce(Issue) -> Issue) {
            let client =
                edit(Issue::new("m3-client").sans(&["10.0.0.3"]).usages(&[Eku::ClientAuth]).serial(&[4]));
            self.client = Some(read(&client.signed_by(&self.ca).pem, "/pki/client.crt"));
        }

        fn allow_cn(&mut self, name: &str) {
            self.allowed = Some(("peer-cert-allowed-cn", Allowed::CommonNames(vec![name.to_owned()])));
        }

        fn revoke(&mut self, serials: &[&str], pem: bool) {
            let serials = serials.iter().map(|s| (*s).to_owned()).collect();
            let path = "/pki/revoked.crl".to_owned();
            self.revocations = Some(Ok(RevocationList { path, pem, serials, next_update: None }));
        }

        fn problems(&self) -> Vec<Problem> {
            let paths =
                ["/pki/peer.crt", "/pki/peer.key", "/pki/client.crt", "/pki/ca.crt", "/pki/revoked.crl"];
            let origins = paths.map(Origin::file);
            fn source<'a, T: ?Sized, O: AsRef<T>>(
                read: &'a Read<O>,
                (path, origin): (&'a str, &'a Origin),
            ) -> Option<Source<'a, T>> {
                let content = read.as_ref()?.as_ref().map(AsRef::as_ref);
                Some(Source { path, origin, content, refusal: None })
            }
            let at = |i: usize| (paths[i], &origins[i]);
            let (path, origin) = at(1);
            let key =
                self.key.as_ref().map(|key| Source { path, origin, content: key.as_ref(), refusal: None });
            let (path, origin) = at(4);
            let list = self.revocations.as_ref().map(|list| Source {
                path,
                origin,
                content: list.as_ref(),
                refusal: None,
            });
            let material = Material {
                certificate: source(&self.certificate, at(0)),
                key,
                client_certificate: source(&self.client, at(2)),
                client_key: None,
                trusted: source(&self.trusted, at(3)),
                revocations: list,
            };
            let usage = Use {
                side: self.side,
                dialled: &self.dialled,
                dials_from: &self.dials_from,
                client_auth: self.client_auth,
                checks_client_names: self.checks_client_names,
                allowed: self.allowed.as_ref().map(|(setting, allowed)| (*setting, allowed)),
                user: match self.is_kubernetes {
                    true => User::Kubernetes("kubelet"),
                    false => User::Etcd(self.version),
                },
            };
            problems(&material, &usage, self.now)
        }
    }

    fn read(pem: &str, path: &str) -> Result<Vec<Parsed>, EvidenceError> {
        certificates_from_pem(pem.as_bytes(), Origin::file(path), now())
    }

    fn error(kind: ErrorKind) -> EvidenceError {
        EvidenceError::new(kind, "what happened")
    }

    #[test]
    fn every_kind_of_problem() {
        use ProblemKind::*;
        // What is wrong; which problems that must give: the kind, whether it breaks, what it must say.
        type Case = (&'static str, fn(&mut Scene), &'static [(ProblemKind, bool, &'static str)]);
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("nothing", |_| {}, &[]),
            ("nothing is configured", |s| (s.certificate, s.key, s.trusted) = (None, None, None), &[]),
            ("the name that is demanded", |s| s.allow_cn("m3"), &[]),
            ("another name", |s| s.allow_cn("etcd-peer"), &[(NameNotAllowed, true,
                "/pki/peer.crt (CN=m3) has the common name m3, and peer-cert-allowed-cn admits only etcd-peer: no member \
                 with the same restriction connects with this one, in either direction")]),
            ("another name, and nobody is asked for a certificate", |s| {
                s.allow_cn("etcd-peer");
                s.client_auth = false;
            }, &[(NameNotAllowed, true, "can dial this one")]),
            ("another name of the client certificate", |s| {
                s.allow_cn("m3");
                s.client(|i| i);
            }, &[(NameNotAllowed, true,
                "/pki/client.crt (CN=m3-client) has the common name m3-client, and peer-cert-allowed-cn admits only m3: \
                 this member cannot dial members")]),
            ("another host", |s| {
                let names = Allowed::Hostnames(vec!["peers.etcd".to_owned()]);
                s.allowed = Some(("peer-cert-allowed-hostname", names));
            }, &[(NameNotAllowed, true, "names 10.0.0.3, and peer-cert-allowed-hostname admits only peers.etcd")]),
            ("what clients must be called does not concern the server", |s| {
                s.allow_cn("etcd-peer");
                s.side = Side::Client;
            }, &[]),
            ("expired", |s| s.leaf(|i| i.valid((2026, 1, 1), (2027, 5, 31))), &[(Expired, true,
                "/pki/peer.crt (CN=m3) expired on 2027-05-31, 1 day ago: its peers refuse every new connection, and the \
                 open ones end with the next restart of either side")]),
            ("expired today", |s| s.leaf(|i| i.valid((2026, 1, 1), (2027, 6, 1))), &[(Expired, true,
                "expired on 2027-06-01, less than a day ago: ")]),
            ("not yet valid", |s| s.leaf(|i| i.valid((2027, 6, 2), (2028, 1, 1))), &[(NotYetValid, true,
                "/pki/peer.crt (CN=m3) is not valid before 2027-06-02: its peers refuse")]),
            ("30 days left", |s| s.leaf(|i| i.valid((2027, 1, 1), (2027, 7, 2))), &[(Expiring, false,
                "/pki/peer.crt (CN=m3) expires on 2027-07-02, in 30 days: renew it before then")]),
            ("31 days left", |s| s.leaf(|i| i.valid((2027, 1, 1), (2027, 7, 3))), &[]),
            ("one day left", |s| s.leaf(|i| i.valid((2027, 1, 1), (2027, 6, 3))), &[(Expiring, false, "in 1 day: ")]),
            ("expired and of an unknown CA", |s| {
                s.leaf(|i| i.valid((2026, 1, 1), (2027, 5, 31)));
                let other = Issue::ca("other-ca").valid((2020, 1, 1), (2037, 1, 1)).self_signed();
                s.trusted = Some(read(&other.pem, "/pki/ca.crt"));
            }, &[(Expired, true, ""), (UnknownCa, true, "")]),
            ("key of another certificate", |s| {
                s.key = Some(private_key_from_pem(s.ca.key.serialize_pem().as_bytes(), "/pki/peer.key"));
            }, &[(KeyMismatch, true, "/pki/peer.key is not the key of /pki/peer.crt (CN=m3): etcd exits")]),
            ("certificate malformed", |s| s.certificate = Some(read("nothing", "/pki/peer.crt")), &[(Malformed, true,
                "/pki/peer.crt: it holds no certificate, so etcd exits when it next starts")]),
            ("key encrypted", |s| {
                let key = include_bytes!("../testdata/rsa2048-encrypted.key");
                s.key = Some(private_key_from_pem(key, "/pki/peer.key"));
            }, &[(Malformed, true, "/pki/peer.key:1:1: its private key is encrypted")]),
            ("CA malformed", |s| s.trusted = Some(Err(error(ErrorKind::Malformed))), &[(Malformed, true,
                "/pki/ca.crt: what happened, so etcd will not start with it, or trust nobody")]),
            ("files missing", |s| {
                s.certificate = Some(Err(error(ErrorKind::NotFound)));
                s.key = Some(Err(error(ErrorKind::NotFound)));
                s.client = Some(Err(error(ErrorKind::NotFound)));
                s.trusted = Some(Err(error(ErrorKind::NotFound)));
                s.revocations = Some(Err(error(ErrorKind::NotFound)));
            }, &[(Missing, true, "peer.crt"), (Missing, true, "peer.key"), (Missing, true, "client.crt"),
                 (Missing, true, "ca.crt"), (Missing, true, "/pki/revoked.crl: what happened, so etcd refuses every")]),
            ("files that may not be read", |s| {
                s.certificate = Some(Err(error(ErrorKind::PermissionDenied)));
                s.key = Some(Err(error(ErrorKind::Vanished)));
                s.trusted = Some(Err(error(ErrorKind::TooLarge)));
            }, &[]),
            ("CA that may not be read", |s| s.trusted = Some(Err(error(ErrorKind::PermissionDenied))), &[]),
            ("clientAuth only", |s| s.leaf(|i| i.usages(&[Eku::ClientAuth])), &[(NoServerAuth, true,
                "/pki/peer.crt (CN=m3) is for clientAuth, not serverAuth: its peers cannot dial this member")]),
            ("serverAuth only", |s| s.leaf(|i| i.usages(&[Eku::ServerAuth])), &[(NoClientAuth, true,
                "/pki/peer.crt (CN=m3) is for serverAuth, not clientAuth: this member cannot dial its peers")]),
            ("serverAuth only, and nobody asks", |s| {
                s.leaf(|i| i.usages(&[Eku::ServerAuth]));
                s.client_auth = false;
            }, &[]),
            ("usages: any", |s| s.leaf(|i| i.usages(&[Eku::Any])), &[]),
            ("no usages", |s| s.leaf(|i| i.usages(&[])), &[]),
            ("serverAuth only, with a separate client certificate", |s| {
                s.leaf(|i| i.usages(&[Eku::ServerAuth]));
                s.client(|i| i);
            }, &[]),
            ("separate client certificate without clientAuth", |s| s.client(|i| i.usages(&[Eku::ServerAuth])),
                &[(NoClientAuth, true, "/pki/client.crt (CN=m3-client) is for serverAuth, not clientAuth")]),
            ("separate client certificate expired", |s| s.client(|i| i.valid((2026, 1, 1), (2027, 5, 30))),
                &[(Expired, true, "/pki/client.crt (CN=m3-client) expired on 2027-05-30, 2 days ago: this member can")]),
            ("separate client certificate without names", |s| s.client(|i| i.edit(|p| p.subject_alt_names.clear())),
                &[(NoSan, false, "/pki/client.crt (CN=m3-client) names no host and no address: whoever")]),
            ("separate client certificate for another address", |s| s.client(|i| {
                i.edit(|p| p.subject_alt_names.clear()).sans(&["10.0.0.8"])
            }), &[(WrongSan, true, "names 10.0.0.8, not 10.0.0.3, which this member dials from")]),
            ("CA limited to servers", |s| {
                s.ca = Issue::ca("etcd-ca").valid((2027, 1, 1), (2037, 1, 1)).usages(&[Eku::ServerAuth]).self_signed();
                s.trusted = Some(read(&s.ca.pem, "/pki/ca.crt"));
                s.leaf(|i| i);
            }, &[(NoClientAuth, true,
                "/pki/peer.crt (CN=m3) is not for clientAuth, because its CA CN=etcd-ca is not: this member cannot")]),
            ("unknown CA", |s| {
                let other = Issue::ca("other-ca").self_signed();
                s.trusted = Some(read(&other.pem, "/pki/ca.crt"));
            }, &[(UnknownCa, true, "/pki/peer.crt (CN=m3) does not chain to /pki/ca.crt (CN=m3 was issued by \
                CN=etcd-ca, which is not there): peers that trust the same file refuse the connection")]),
            ("CA made anew under the same name", |s| {
                let other = Issue::ca("etcd-ca").self_signed();
                s.trusted = Some(read(&other.pem, "/pki/ca.crt"));
            }, &[(UnknownCa, true, "(CN=m3 was signed by another key than that of the CN=etcd-ca which is there)")]),
            ("no SAN", |s| s.leaf(|i| i.edit(|p| p.subject_alt_names.clear())), &[(NoSan, true,
                "/pki/peer.crt (CN=m3) names no host and no address: its peers refuse to dial this member, and whoever \
                 holds its key is accepted as a peer from any address")]),
            ("wrong SAN", |s| s.leaf(|i| i.edit(|p| p.subject_alt_names.clear()).sans(&["10.0.0.9"])), &[
                (WrongSan, true, "/pki/peer.crt (CN=m3) names 10.0.0.9, not 10.0.0.3, which is where its peers dial it: \
                                  they will refuse the connection"),
                (WrongSan, true, "/pki/peer.crt (CN=m3) names 10.0.0.9, not 10.0.0.3, which this member dials from: \
                                  its peers close the connection after the handshake")]),
            ("one of two hosts not named", |s| s.dialled.push("m3.etcd".to_owned()), &[(WrongSan, true,
                "names 10.0.0.3, not m3.etcd, which")]),
            ("dials from another address", |s| s.dials_from = vec!["10.0.0.7".parse().unwrap()], &[(WrongSan, true,
                "names 10.0.0.3, not 10.0.0.7, which this member dials from")]),
            ("dials from several addresses, one named", |s| s.dials_from.push("10.0.0.7".parse().unwrap()), &[]),
            ("dials from another address, not checked", |s| {
                s.dials_from = vec!["10.0.0.7".parse().unwrap()];
                s.checks_client_names = false;
            }, &[]),
            ("dials from another address, with DNS names", |s| {
                s.dials_from = vec!["10.0.0.7".parse().unwrap()];
                s.leaf(|i| i.sans(&["m3.etcd"]));
            }, &[]),
            ("dials from an unknown address", |s| s.dials_from.clear(), &[]),
            ("many names", |s| {
                s.leaf(|i| i.sans(&["a", "b", "c", "d", "e", "f"]));
                s.dialled = vec!["g".to_owned()];
            }, &[(WrongSan, true, "names a, b, c, d, e and 2 more, not g,")]),
            ("revoked", |s| s.revoke(&["2a", "03"], true), &[(Revoked, true,
                "/pki/peer.crt (CN=m3) is revoked by /pki/revoked.crl (serial number 03): peers with the same list \
                 refuse this member's connections")]),
            ("server certificate revoked, client certificate not", |s| {
                s.client(|i| i);
                s.revoke(&["03"], false);
            }, &[(Revoked, false, "whoever honours the list refuses it")]),
            ("client certificate revoked", |s| {
                s.client(|i| i);
                s.revoke(&["04"], false);
            }, &[(Revoked, true, "/pki/client.crt")]),
            ("another is revoked", |s| s.revoke(&["2a"], false), &[]),
            ("PEM list for 3.6", |s| {
                s.revoke(&[], true);
                s.version = Some("3.6.13");
            }, &[(RevocationListUnusable, true, "/pki/revoked.crl is PEM, and etcd 3.6.13 reads DER only")]),
            ("PEM list for 4.0", |s| {
                s.revoke(&[], true);
                s.version = Some("v4.0");
            }, &[(RevocationListUnusable, true, "")]),
            ("PEM list for an unknown version", |s| {
                s.revoke(&[], true);
                s.version = None;
            }, &[]),
            ("DER list for 3.6", |s| {
                s.revoke(&[], false);
                s.version = Some("3.6");
            }, &[]),
            ("no list at all in the file", |s| s.revocations = Some(revocation_list(b"", "/pki/revoked.crl")),
                &[(RevocationListUnusable, true, "/pki/revoked.crl: it is not a certificate revocation list, so etcd")]),
            ("weak CA and weak signature", |s| {
                let file = |text, path| Some(read(text, path));
                s.trusted = file(include_str!("../testdata/rsa1024-sha1-ca.crt"), "/pki/ca.crt");
                s.certificate = file(include_str!("../testdata/sha1-leaf.crt"), "/pki/peer.crt");
                s.key = None;
            }, &[
                (WeakSignature, false, "/pki/peer.crt (CN=old-leaf) is signed with sha1WithRSAEncryption"),
                (WeakKey, false, "/pki/ca.crt (CN=old-ca) has an RSA key of 1024 bits")]),
            ("the CA has expired", |s| {
                s.ca = Issue::ca("etcd-ca").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
                s.trusted = Some(read(&s.ca.pem, "/pki/ca.crt"));
                s.leaf(|i| i);
            }, &[(Expired, true, "/pki/ca.crt (CN=etcd-ca) expired on 2027-05-01, 31 days ago: what it signed is refused")]),
            ("another CA of the bundle has expired", |s| {
                let old = Issue::ca("old-ca").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
                s.trusted = Some(read(&format!("{}{}", old.pem, s.ca.pem), "/pki/ca.crt"));
            }, &[(Expired, false, "refused, but no certificate of this member needs it")]),
            ("an expired CA beside its successor with the same key", |s| {
                let renew = |from, to| Issue::ca("etcd-ca").valid(from, to).key(copy(&s.ca));
                let old = renew((2020, 1, 1), (2027, 5, 1)).self_signed();
                s.trusted = Some(read(&format!("{}{}", old.pem, s.ca.pem), "/pki/ca.crt"));
            }, &[(Expired, false, "")]),
            ("the CA is about to expire", |s| {
                s.ca = Issue::ca("etcd-ca").valid((2020, 1, 1), (2027, 6, 2)).self_signed();
                s.trusted = Some(read(&s.ca.pem, "/pki/ca.crt"));
                s.leaf(|i| i);
            }, &[(Expiring, false, "/pki/ca.crt (CN=etcd-ca) expires on 2027-06-02, in less than a day: replace it, and \
                what it signed, before then (etcd reads the file only when it starts)")]),
            ("an intermediate has expired", |s| {
                let middle = Issue::ca("middle").valid((2020, 1, 1), (2027, 5, 1)).signed_by(&s.ca);
                let leaf = Issue::new("m3").sans(&["10.0.0.3"]).signed_by(&middle);
                s.certificate = Some(read(&format!("{}{}", leaf.pem, middle.pem), "/pki/peer.crt"));
                s.key = None;
            }, &[(Expired, true, "/pki/peer.crt (CN=middle) expired on 2027-05-01, 31 days ago: what it signed")]),
            ("client side: good", |s| {
                s.side = Side::Client;
                s.leaf(|i| i.usages(&[Eku::ServerAuth]));
                s.dials_from = vec!["10.0.0.7".parse().unwrap()];
            }, &[]),
            ("client side: not for servers", |s| {
                s.side = Side::Client;
                s.leaf(|i| i.usages(&[Eku::ClientAuth]));
            }, &[(NoServerAuth, true, "not serverAuth: clients refuse to connect")]),
            ("client side: expired", |s| {
                s.side = Side::Client;
                s.leaf(|i| i.valid((2026, 1, 1), (2027, 5, 31)));
            }, &[(Expired, true, "1 day ago: clients refuse to connect")]),
            ("client side: no SAN", |s| {
                s.side = Side::Client;
                s.leaf(|i| i.edit(|p| p.subject_alt_names.clear()));
            }, &[(NoSan, true, "names no host and no address: clients refuse to dial this member")]),
            ("client side: another CA", |s| {
                s.side = Side::Client;
                s.trusted = Some(read(&Issue::ca("other-ca").self_signed().pem, "/pki/ca.crt"));
            }, &[(UnknownCa, false, "clients that trust the same file refuse to connect")]),
            ("client side: another CA, of a component of Kubernetes", |s| {
                (s.side, s.is_kubernetes) = (Side::Client, true);
                s.trusted = Some(read(&Issue::ca("other-ca").self_signed().pem, "/pki/ca.crt"));
            }, &[]),
            ("client side: revoked", |s| {
                s.side = Side::Client;
                s.revoke(&["03"], false);
            }, &[(Revoked, false, "")]),
            ("client side: the only CA for clients has expired", |s| {
                s.side = Side::Client;
                let old = Issue::ca("clients").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
                s.trusted = Some(read(&old.pem, "/pki/ca.crt"));
            }, &[(UnknownCa, false, ""), (Expired, true, "/pki/ca.crt (CN=clients) expired")]),
            ("it dials: good, by another CA than theirs, and without a name", |s| {
                s.side = Side::Outgoing("kubelets");
                s.trusted = Some(read(&Issue::ca("other-ca").self_signed().pem, "/pki/ca.crt"));
                s.leaf(|i| i.usages(&[Eku::ClientAuth]).edit(|p| p.subject_alt_names.clear()));
            }, &[]),
            ("it dials: not for clients", |s| {
                s.side = Side::Outgoing("kubelets");
                s.leaf(|i| i.usages(&[Eku::ServerAuth]));
            }, &[(NoClientAuth, true, "/pki/peer.crt (CN=m3) is for serverAuth, not clientAuth: kubelets refuse it")]),
            ("it dials: expired", |s| {
                s.side = Side::Outgoing("kubelets");
                s.leaf(|i| i.valid((2026, 1, 1), (2027, 5, 31)));
            }, &[(Expired, true, "1 day ago: kubelets refuse it")]),
            ("it dials: the only CA has expired", |s| {
                s.side = Side::Outgoing("kubelets");
                let old = Issue::ca("kubelets").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
                s.trusted = Some(read(&old.pem, "/pki/ca.crt"));
            }, &[(Expired, true, "/pki/ca.crt (CN=kubelets) expired")]),
        ];
        for (name, spoil, want) in cases {
            let mut scene = Scene::new();
            spoil(&mut scene);
            let found = scene.problems();
            let got: Vec<_> = found.iter().map(|p| (p.kind, p.breaks)).collect();
            let kinds: Vec<_> = want.iter().map(|w| (w.0, w.1)).collect();
            assert_eq!(got, kinds, "{name}: {found:#?}");
            for (problem, (_, _, says)) in found.iter().zip(*want) {
                assert!(
                    problem.message.contains(says),
                    "{name}: {:?} does not say {says:?}",
                    problem.message
                );
                assert!(problem.message.contains(&problem.path), "{name}: {:?}", problem.message);
                assert!(!problem.message.ends_with('.'), "{name}: {:?}", problem.message);
            }
        }
    }

    #[test]
    fn a_file_that_the_process_may_not_read_is_a_problem_whatever_is_in_it() {
        let origin = Origin::file("/peer.key");
        let ours = EvidenceError::new(ErrorKind::PermissionDenied, "/peer.key: permission denied");
        let key = Source {
            path: "/peer.key",
            origin: &origin,
            content: Err(&ours),
            refusal: Some("uid 998 may not read /peer.key: it belongs to root:root with mode 0600"),
        };
        let usage = Use {
            side: Side::Peer,
            dialled: &[],
            dials_from: &[],
            client_auth: true,
            checks_client_names: true,
            allowed: None,
            user: User::Etcd(None),
        };
        let own = Material { key: Some(key), ..Material::default() };
        let clients = Material { client_key: Some(key), ..Material::default() };
        for (material, words) in [(own, "refuses new connections"), (clients, "exits when it next starts")] {
            let found = problems(&material, &usage, Timestamp::UNIX_EPOCH);
            let [problem] = &found[..] else { panic!("{found:?}") };
            assert_eq!((problem.kind, problem.breaks), (ProblemKind::Unreadable, true));
            assert!(problem.message.starts_with("uid 998 ") && problem.message.contains(words), "{found:?}");
        }
    }

    #[test]
    fn a_problem_has_the_line_of_its_certificate() {
        let mut scene = Scene::new();
        let old = Issue::ca("old-ca").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
        let lines = u32::try_from(scene.ca.pem.lines().count()).unwrap();
        scene.trusted = Some(read(&format!("{}{}", scene.ca.pem, old.pem), "/pki/ca.crt"));
        let found = scene.problems();
        assert_eq!(found[0].origin, Origin::file("/pki/ca.crt").at(lines + 1, 1));
    }

    fn copy(entity: &Entity) -> rcgen::KeyPair {
        rcgen::KeyPair::from_pem(&entity.key.serialize_pem()).unwrap()
    }
}
