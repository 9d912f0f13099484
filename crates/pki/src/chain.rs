//! Path validation as Go's `crypto/x509` does it.
//!
//! A verifier for the web would be the wrong oracle here. It refuses what etcd accepts every day: a CA
//! certificate that is used as a leaf (etcd's own automatic certificates are CAs since 3.6), a leaf that is
//! itself trusted, `any` among the key usages, X.509 v1, RSA below 2048 bits. And it accepts what Go refuses:
//! a trust anchor that has expired, that is no CA, may not sign certificates, or whose own path length, names
//! or key usages exclude the leaf. So the rules are Go's; only the signature algorithms come from a library.
//!
//! One thing is laxer than Go: SHA-1 signatures are verified, because whether Go accepts them depends on the
//! release that etcd was built with (refused since 1.18). [`problems`](crate::problems) reports them as weak.

use std::net::IpAddr;

use jiff::Timestamp;
use seaworthy_evidence::Certificate;
use x509_parser::asn1_rs::Oid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};
use x509_parser::x509::X509Version;

use crate::certificate::parse;
use crate::{Parsed, key};

/// What a certificate is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To dial others.
    Client,
    /// To be dialled.
    Server,
}

impl Usage {
    /// Returns the name of the extended key usage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "clientAuth",
            Self::Server => "serverAuth",
        }
    }

    /// Returns whether the extended key usages of `certificate` allow this one; all do when it has none.
    pub fn allowed_by(self, certificate: &Certificate) -> bool {
        certificate.usages.as_ref().is_none_or(|usages| {
            usages.is_empty() || usages.iter().any(|usage| usage == self.name() || usage == "any")
        })
    }
}

/// Why a certificate is not accepted.
///
/// Of several reasons, for several candidate issuers, the one that came closest to acceptance.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// There is an issuer of the right name, but another key made the signature.
    #[error("{subject} was signed by another key than that of the {issuer} which is there")]
    BadSignature {
        /// Subject of the certificate.
        subject: String,
        /// Subject of the certificate that should have signed it.
        issuer: String,
    },
    /// This certificate of the chain has expired.
    #[error("{} has expired", .certificate.subject)]
    Expired {
        /// The one that has.
        certificate: Box<Certificate>,
    },
    /// This certificate would have to be a CA that may sign certificates.
    #[error("{} is not a CA that may sign certificates", .certificate.subject)]
    NotACa {
        /// The one that is not.
        certificate: Box<Certificate>,
    },
    /// This certificate of the chain is not valid yet.
    #[error("{} is not valid yet", .certificate.subject)]
    NotYetValid {
        /// The one that is not.
        certificate: Box<Certificate>,
    },
    /// Another reason, in words.
    #[error("{0}")]
    Other(String),
    /// Nobody of that name is there.
    #[error("{subject} was issued by {issuer}, which is not there")]
    UnknownIssuer {
        /// Subject of the certificate whose issuer is missing.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// The extended key usages of this certificate of the chain leave out the one that is needed.
    #[error("{} may not be used for {}", .certificate.subject, .usage.name())]
    UsageMissing {
        /// The one that leaves it out: the leaf or a CA.
        certificate: Box<Certificate>,
        /// The usage.
        usage: Usage,
    },
}

impl ChainError {
    /// How far the search had come.
    fn rank(&self) -> u8 {
        match self {
            Self::UnknownIssuer { .. } => 0,
            Self::BadSignature { .. } => 1,
            Self::NotACa { .. } => 2,
            Self::Other(_) => 3,
            Self::Expired { .. } | Self::NotYetValid { .. } => 4,
            Self::UsageMissing { .. } => 5,
        }
    }
}

/// Returns whether a Go program that trusts `roots` accepts `leaf` for `usage` at `now`, when it is presented
/// with `intermediates`. Names are not looked at: that is [`names`](crate::names).
///
/// # Errors
///
/// The reason why it does not.
pub fn chains_to(
    leaf: &Parsed,
    intermediates: &[Parsed],
    roots: &[Parsed],
    usage: Usage,
    now: Timestamp,
) -> Result<(), ChainError> {
    path(leaf, intermediates, roots, usage, now).map(drop)
}

/// Returns the certificates from `leaf` to the root through which [`chains_to`] accepts it.
fn path<'a>(
    leaf: &'a Parsed,
    intermediates: &'a [Parsed],
    roots: &'a [Parsed],
    usage: Usage,
    now: Timestamp,
) -> Result<Vec<&'a Parsed>, ChainError> {
    let leaf = Node::new(leaf).ok_or_else(|| ChainError::Other("it cannot be parsed".to_owned()))?;
    let names = names_above(leaf.parsed, intermediates, roots);
    let (intermediates, roots) = (named(&names, intermediates), named(&names, roots));
    let search = Search { intermediates: &intermediates, roots: &roots, usage, now, below: 0 };

    search.check_valid(&leaf, Role::Leaf, &[])?;
    let mut chain = vec![&leaf];
    // A certificate that is itself trusted needs no issuer, whether it is a CA or not.
    if roots.iter().any(|root| root.parsed.der() == leaf.parsed.der()) {
        search.check_usage(&chain)?;
    } else {
        search.extend(&mut chain, &mut { BUDGET })?;
    }
    Ok(chain.into_iter().map(|node| node.parsed).collect())
}

/// Returns the certificates from `certificate` to the root through which a Go server that demands client
/// certificates and trusts `roots` accepts it at `now`, if it does. Its holder can send any of `known` along. A trusted
/// certificate itself does not count: it is the authority, not one of its subjects.
pub fn acceptable_to<'a>(
    certificate: &'a Parsed,
    known: &'a [Parsed],
    roots: &'a [Parsed],
    now: Timestamp,
) -> Option<Vec<&'a Parsed>> {
    let trusted = roots.iter().any(|root| root.der() == certificate.der());
    path(certificate, known, roots, Usage::Client, now).ok().filter(|_| !trusted)
}

/// Returns the certificates, from one of `authority` to the root, through which a Go program that trusts `roots` accepts
/// for `usage` what `authority` issues, and from when on.
///
/// An authority is its name and its key: each certificate of it counts, also one that another CA signed. Whoever is
/// issued a certificate can send any of `known` along with it. What is issued is taken to be valid and for `usage`, and to
/// have no names, so that no constraint of names excludes it. A CA that is not valid yet will be, so it counts from then
/// on; one that has expired does not count.
///
/// # Errors
///
/// The reason why it does not.
pub fn accepts_issuer<'a>(
    authority: &'a Parsed,
    known: &'a [Parsed],
    roots: &'a [Parsed],
    usage: Usage,
    now: Timestamp,
) -> Result<(Vec<&'a Parsed>, Timestamp), ChainError> {
    let names = names_above(authority, known, roots);
    let (intermediates, roots) = (named(&names, known.iter().chain([authority])), named(&names, roots));
    let mut at = now;
    // Each time, one certificate more has become valid.
    for _ in 0..MAX_WAITS {
        let search = Search { intermediates: &intermediates, roots: &roots, usage, now: at, below: 1 };
        match search.of_issuer(authority) {
            Err(ChainError::NotYetValid { certificate }) => at = certificate.not_before,
            found => return found.map(|chain| (chain, at)),
        }
    }
    Err(ChainError::Other(format!(
        "{} and what is above it are never valid together",
        authority.certificate.subject
    )))
}

/// Returns a certificate, of `authority` or above it, whose issuer is not among `known` and `roots`, so that it cannot be
/// told whether one of `roots` is still further above. `None` where every way up is known to its end, or no root would
/// allow a CA more than those.
pub fn open_end<'a>(authority: &'a Parsed, known: &'a [Parsed], roots: &'a [Parsed]) -> Option<&'a Parsed> {
    let names = names_above(authority, known, roots);
    let all = named(&names, known.iter().chain(roots).chain([authority]));
    let roots = nodes(roots);
    let entity = Node::new(authority)?;
    let mut reached: Vec<&Node<'_>> = all.iter().filter(|node| node.is_same_entity(&entity)).collect();
    let (mut next, mut budget) = (0, BUDGET);
    while let Some(&child) = reached.get(next) {
        next += 1;
        if child.x509.issuer().as_raw() == child.x509.subject().as_raw() {
            continue;
        }
        let mut parents = Vec::new();
        for parent in &all {
            if parent.x509.subject().as_raw() == child.x509.issuer().as_raw() {
                let Some(left) = budget.checked_sub(1) else { return Some(child.parsed) };
                budget = left;
                parents.extend(check_signed(child, parent).is_ok().then_some(parent));
            }
        }
        // Below the root there would be the CA that is missing, and this one.
        if parents.is_empty() && roots.iter().any(|root| root.allows_below(2)) {
            return Some(child.parsed);
        }
        parents.retain(|parent| reached.iter().all(|known| known.parsed.der() != parent.parsed.der()));
        reached.extend(parents);
    }
    None
}

/// Returns those of `known` that signed `certificate`.
pub fn issuers<'a>(certificate: &Parsed, known: &'a [Parsed]) -> Vec<&'a Parsed> {
    let Some(child) = Node::new(certificate) else { return Vec::new() };
    let named = named(&[&certificate.certificate.issuer], known);
    let named = named.into_iter().filter(|node| node.x509.subject().as_raw() == child.x509.issuer().as_raw());
    let signers = named.take(BUDGET as usize).filter(|parent| check_signed(&child, parent).is_ok());
    signers.map(|node| node.parsed).collect()
}

/// Returns the names of `start`, of what may have issued it, and so on. Only certificates with such a name can be above it,
/// and only those have to be parsed.
fn names_above<'a>(start: &'a Parsed, known: &'a [Parsed], roots: &'a [Parsed]) -> Vec<&'a str> {
    let all = || known.iter().chain(roots).chain([start]).map(|parsed| &parsed.certificate);
    let mut names = vec![start.certificate.subject.as_str()];
    let mut next = 0;
    while let Some(&name) = names.get(next) {
        next += 1;
        for certificate in all().filter(|certificate| certificate.subject == name) {
            if !names.contains(&certificate.issuer.as_str()) {
                names.push(&certificate.issuer);
            }
        }
    }
    names
}

fn named<'a>(names: &[&str], all: impl IntoIterator<Item = &'a Parsed>) -> Vec<Node<'a>> {
    nodes(all.into_iter().filter(|parsed| names.contains(&parsed.certificate.subject.as_str())))
}

/// How often a later time is tried, at which one certificate more is valid.
const MAX_WAITS: u32 = 8;

/// Most signatures that are checked in one search.
const BUDGET: u32 = 100;

fn nodes<'a>(all: impl IntoIterator<Item = &'a Parsed>) -> Vec<Node<'a>> {
    all.into_iter().filter_map(Node::new).collect()
}

struct Node<'a> {
    parsed: &'a Parsed,
    x509: X509Certificate<'a>,
}

impl<'a> Node<'a> {
    fn new(parsed: &'a Parsed) -> Option<Self> {
        Some(Self { parsed, x509: parse(parsed.der()).ok()? })
    }

    fn subject(&self) -> String {
        self.parsed.certificate.subject.clone()
    }

    fn boxed(&self) -> Box<Certificate> {
        Box::new(self.parsed.certificate.clone())
    }

    /// Returns whether its path length lets so many CAs be below it.
    fn allows_below(&self, count: usize) -> bool {
        self.path_length().is_none_or(|most| count <= usize::try_from(most).unwrap_or(usize::MAX))
    }

    fn path_length(&self) -> Option<u32> {
        self.x509.basic_constraints().ok().flatten().and_then(|found| found.value.path_len_constraint)
    }

    /// Returns whether it constrains, critically, a kind of name that Go knows no constraints of, such as that of the
    /// subject: such a certificate is refused altogether.
    fn has_unhandled_constraints(&self) -> bool {
        let Some(found) = self.x509.name_constraints().ok().flatten() else { return false };
        let trees = [&found.value.permitted_subtrees, &found.value.excluded_subtrees];
        let handled = |tree: &GeneralSubtree<'_>| {
            use GeneralName::{DNSName, IPAddress, RFC822Name, URI};
            matches!(tree.base, DNSName(_) | IPAddress(_) | RFC822Name(_) | URI(_))
        };
        found.critical && trees.into_iter().flatten().flatten().any(|tree| !handled(tree))
    }

    /// Checks that it may sign other certificates.
    fn check_may_sign(&self) -> Result<(), ChainError> {
        // A v1 certificate has no extensions, and may be a CA.
        let constraints = self.x509.basic_constraints().ok().flatten();
        let ca = constraints.map_or(self.x509.version() != X509Version::V3, |found| found.value.ca);
        let usage = self.x509.key_usage().ok().flatten();
        if ca && usage.is_none_or(|usage| usage.value.key_cert_sign()) {
            return Ok(());
        }
        Err(ChainError::NotACa { certificate: self.boxed() })
    }

    /// Returns whether the two are the same entity, so that a chain through both would be a loop.
    fn is_same_entity(&self, other: &Node<'_>) -> bool {
        self.x509.subject().as_raw() == other.x509.subject().as_raw()
            && self.parsed.certificate.key.spki == other.parsed.certificate.key.spki
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Intermediate,
    Leaf,
    Root,
}

struct Search<'n, 'a> {
    intermediates: &'n [Node<'a>],
    roots: &'n [Node<'a>],
    usage: Usage,
    now: Timestamp,
    /// How many certificates there are below the first of the chain.
    below: usize,
}

impl<'n, 'a> Search<'n, 'a> {
    /// Looks for a way from any certificate of `authority` to a root.
    fn of_issuer(&self, authority: &'a Parsed) -> Result<Vec<&'a Parsed>, ChainError> {
        let entity =
            Node::new(authority).ok_or_else(|| ChainError::Other("it cannot be parsed".to_owned()))?;
        let mut closest = ChainError::UnknownIssuer {
            subject: entity.subject(),
            issuer: authority.certificate.issuer.clone(),
        };
        let mut budget = BUDGET;
        for (role, node) in self.candidates().filter(|(_, node)| node.is_same_entity(&entity)) {
            let mut chain = Vec::new();
            let attempt = node
                .check_may_sign()
                .and_then(|()| self.check_valid(node, role, &chain))
                .and_then(|()| self.step(role, node, &mut chain, &mut budget));
            match attempt {
                Ok(()) => return Ok(chain.into_iter().map(|node| node.parsed).collect()),
                Err(error) if error.rank() >= closest.rank() => closest = error,
                Err(_) => {}
            }
        }
        Err(closest)
    }

    fn candidates(&self) -> impl Iterator<Item = (Role, &'n Node<'a>)> + use<'n, 'a> {
        let roots = self.roots.iter().map(|node| (Role::Root, node));
        roots.chain(self.intermediates.iter().map(|node| (Role::Intermediate, node)))
    }

    /// Adds `parent`, which has been checked, to `chain`, and looks for a way on from there; takes it away again when
    /// there is none.
    fn step(
        &self,
        role: Role,
        parent: &'n Node<'a>,
        chain: &mut Vec<&'n Node<'a>>,
        budget: &mut u32,
    ) -> Result<(), ChainError> {
        chain.push(parent);
        let result = if role == Role::Root { self.check_usage(chain) } else { self.extend(chain, budget) };
        if result.is_err() {
            chain.pop();
        }
        result
    }

    /// Looks for a way from the last of `chain` to a root, checking at most `budget` signatures.
    fn extend(&self, chain: &mut Vec<&'n Node<'a>>, budget: &mut u32) -> Result<(), ChainError> {
        let Some(&child) = chain.last() else { return Ok(()) };
        let mut closest = ChainError::UnknownIssuer {
            subject: child.subject(),
            issuer: child.parsed.certificate.issuer.clone(),
        };
        for (role, parent) in self.candidates() {
            if parent.x509.subject().as_raw() != child.x509.issuer().as_raw()
                || chain.iter().any(|node| node.is_same_entity(parent))
            {
                continue;
            }
            *budget = match budget.checked_sub(1) {
                Some(left) => left,
                None => return Err(ChainError::Other("there are too many candidate issuers".to_owned())),
            };
            let attempt = check_signed(child, parent)
                .and_then(|()| self.check_valid(parent, role, chain))
                .and_then(|()| self.step(role, parent, chain, budget));
            match attempt {
                Ok(()) => return Ok(()),
                Err(error) if error.rank() >= closest.rank() => closest = error,
                Err(_) => {}
            }
        }
        Err(closest)
    }

    /// Checks what concerns `node` itself, and `chain` below it.
    fn check_valid(&self, node: &Node<'_>, role: Role, chain: &[&Node<'_>]) -> Result<(), ChainError> {
        let (certificate, subject) = (&node.parsed.certificate, node.subject());
        if let Some(extension) = node.x509.iter_extensions().find(|e| e.critical && !is_handled(&e.oid)) {
            let message = format!("{subject} has the unknown critical extension {}", extension.oid);
            return Err(ChainError::Other(message));
        }
        if node.has_unhandled_constraints() {
            return Err(ChainError::Other(format!("{subject} constrains names of a kind that is not known")));
        }
        if self.now < certificate.not_before {
            return Err(ChainError::NotYetValid { certificate: node.boxed() });
        }
        if self.now > certificate.not_after {
            return Err(ChainError::Expired { certificate: node.boxed() });
        }
        if role == Role::Leaf {
            return Ok(());
        }
        check_names(node, chain)?;
        if role == Role::Intermediate && !certificate.ca {
            return Err(ChainError::NotACa { certificate: node.boxed() });
        }
        // All but the leaf are CAs.
        let cas = (chain.len() + self.below).saturating_sub(1);
        match node.path_length() {
            Some(most) if !node.allows_below(cas) => {
                Err(ChainError::Other(format!("{subject} allows only {most} CAs below it")))
            }
            _ => Ok(()),
        }
    }

    fn check_usage(&self, chain: &[&Node<'_>]) -> Result<(), ChainError> {
        match chain.iter().rev().find(|node| !self.usage.allowed_by(&node.parsed.certificate)) {
            Some(node) => Err(ChainError::UsageMissing { certificate: node.boxed(), usage: self.usage }),
            None => Ok(()),
        }
    }
}

fn check_signed(child: &Node<'_>, parent: &Node<'_>) -> Result<(), ChainError> {
    parent.check_may_sign()?;
    match key::signed_by(&child.x509, parent.x509.public_key()) {
        Some(true) => Ok(()),
        Some(false) => Err(ChainError::BadSignature { subject: child.subject(), issuer: parent.subject() }),
        None => {
            let algorithm = &child.parsed.certificate.signature;
            let message = format!("{} is signed with {algorithm}, which is not accepted", child.subject());
            Err(ChainError::Other(message))
        }
    }
}

/// Returns whether Go knows what to do about a critical extension.
fn is_handled(oid: &Oid<'_>) -> bool {
    // Key identifiers, key usage, alternative names, basic, name and policy constraints, policies,
    // distribution points, extended key usages.
    const HANDLED: [&str; 10] = ["14", "15", "17", "19", "30", "31", "32", "35", "36", "37"];
    let dotted = oid.to_id_string();
    dotted.strip_prefix("2.5.29.").is_some_and(|last| HANDLED.contains(&last))
}

/// Checks the names of `chain` against the name constraints of the CA above it (RFC 5280 §4.2.1.10).
fn check_names(ca: &Node<'_>, chain: &[&Node<'_>]) -> Result<(), ChainError> {
    let Some(constraints) = ca.x509.name_constraints().ok().flatten() else { return Ok(()) };
    let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
    let excluded = constraints.value.excluded_subtrees.as_deref().unwrap_or_default();
    // A subtree of another kind of name (`None`) says nothing about this one.
    let allows = |within: &dyn Fn(&GeneralSubtree<'_>, bool) -> Option<bool>| {
        let mut permissions = permitted.iter().filter_map(|tree| within(tree, false)).peekable();
        (permissions.peek().is_none() || permissions.any(|matched| matched))
            && !excluded.iter().filter_map(|tree| within(tree, true)).any(|matched| matched)
    };
    for node in chain {
        let sans = &node.parsed.certificate.sans;
        let bad_dns = sans.dns.iter().find(|name| !allows(&|tree, excludes| dns_in(name, tree, excludes)));
        let bad_ip = sans.ip.iter().find(|ip| !allows(&|tree, _| ip_in(ip.parse().ok()?, tree)));
        if let Some(name) = bad_dns.or(bad_ip) {
            let message = format!("{name} is not a name that {} may certify", ca.subject());
            return Err(ChainError::Other(message));
        }
    }
    Ok(())
}

/// An excluded name is also within a wildcard that covers it.
fn dns_in(name: &str, tree: &GeneralSubtree<'_>, excludes: bool) -> Option<bool> {
    let GeneralName::DNSName(constraint) = tree.base else { return None };
    if constraint.is_empty() {
        return Some(true);
    }
    let (constraint, only_below) =
        constraint.strip_prefix('.').map_or((constraint, false), |rest| (rest, true));
    let (mut labels, mut wanted) = (name.rsplit('.'), constraint.rsplit('.'));
    let same = |label: &str, want: &str| label.eq_ignore_ascii_case(want) || excludes && label == "*";
    let below = wanted.all(|want| labels.next().is_some_and(|label| same(label, want)));
    Some(below && (!only_below || labels.next().is_some()))
}

fn ip_in(ip: IpAddr, tree: &GeneralSubtree<'_>) -> Option<bool> {
    let GeneralName::IPAddress(constraint) = tree.base else { return None };
    let ip = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (network, mask) = constraint.split_at_checked(ip.len())?;
    Some(
        mask.len() == ip.len()
            && ip.iter().zip(network).zip(mask).all(|((ip, network), mask)| ip & mask == network & mask),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::certificates_from_pem;
    use crate::testing::{Entity, Issue, now};
    use rcgen::{
        BasicConstraints, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa,
        KeyPair, KeyUsagePurpose, NameConstraints,
    };
    use seaworthy_evidence::Origin;

    fn ca() -> Entity {
        Issue::ca("ca").self_signed()
    }

    /// Returns the verdict as a word and the subject that it is about.
    fn verdict(leaf: &Entity, intermediates: &[&Entity], roots: &[&Entity], usage: Usage) -> String {
        let parsed = |entities: &[&Entity]| entities.iter().map(|e| e.parsed.clone()).collect::<Vec<_>>();
        word(chains_to(&leaf.parsed, &parsed(intermediates), &parsed(roots), usage, now()))
    }

    fn word(result: Result<(), ChainError>) -> String {
        match result {
            Ok(()) => "ok".to_owned(),
            Err(ChainError::BadSignature { subject, .. }) => format!("signature {subject}"),
            Err(ChainError::Expired { certificate }) => format!("expired {}", certificate.subject),
            Err(ChainError::NotACa { certificate }) => format!("no CA {}", certificate.subject),
            Err(ChainError::NotYetValid { certificate }) => format!("early {}", certificate.subject),
            Err(ChainError::Other(text)) => text,
            Err(ChainError::UnknownIssuer { subject, .. }) => format!("unknown {subject}"),
            Err(ChainError::UsageMissing { certificate, usage }) => {
                format!("usage {} {}", usage.name(), certificate.subject)
            }
        }
    }

    #[test]
    fn every_algorithm_is_verified() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ECDSA_P521_SHA256,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_RSA_SHA512,
        ] {
            let ca = Issue::ca("ca").key(KeyPair::generate_for(algorithm).unwrap()).self_signed();
            let impostor = Issue::ca("ca").key(KeyPair::generate_for(algorithm).unwrap()).self_signed();
            let leaf = Issue::new("leaf").signed_by(&ca);
            assert!(ca.parsed.certificate.self_signed, "{algorithm:?}");
            assert_eq!(verdict(&leaf, &[], &[&ca], Usage::Server), "ok", "{algorithm:?}");
            assert_eq!(
                verdict(&leaf, &[], &[&impostor], Usage::Server),
                "signature CN=leaf",
                "{algorithm:?}"
            );
            assert_eq!(verdict(&leaf, &[], &[&impostor, &ca], Usage::Server), "ok", "{algorithm:?}");
        }
    }

    #[test]
    fn leaves_are_judged_as_go_judges_them() {
        let ca = ca();
        let from = |issue: Issue| issue.signed_by(&ca);
        let is_ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let critical = |oid: &[u64]| {
            let mut extension = CustomExtension::from_oid_content(oid, vec![5, 0]);
            extension.set_criticality(true);
            Issue::new("leaf").edit(|p| p.custom_extensions.push(extension))
        };
        use rcgen::CertificateParams;
        let cases = [
            (from(Issue::new("leaf")), Usage::Client, "ok"),
            (from(Issue::new("leaf").usages(&[])), Usage::Client, "ok"),
            (from(Issue::new("leaf").usages(&[Eku::Any])), Usage::Client, "ok"),
            (from(Issue::new("leaf").usages(&[Eku::ClientAuth])), Usage::Client, "ok"),
            (from(Issue::new("leaf").usages(&[Eku::ClientAuth])), Usage::Server, "usage serverAuth CN=leaf"),
            (from(Issue::new("leaf").usages(&[Eku::CodeSigning])), Usage::Client, "usage clientAuth CN=leaf"),
            (from(Issue::new("leaf").edit(is_ca)), Usage::Server, "ok"),
            (from(Issue::new("leaf").valid((2020, 1, 1), (2027, 6, 1))), Usage::Server, "expired CN=leaf"),
            (from(Issue::new("leaf").valid((2027, 6, 2), (2028, 6, 1))), Usage::Server, "early CN=leaf"),
            (Issue::new("leaf").self_signed(), Usage::Server, "unknown CN=leaf"),
            (from(critical(&[1, 2, 3])), Usage::Server, "CN=leaf has the unknown critical extension 1.2.3"),
        ];
        for (leaf, usage, want) in cases {
            assert_eq!(verdict(&leaf, &[], &[&ca], usage), want);
        }
    }

    #[test]
    fn a_trusted_leaf_needs_no_issuer() {
        let alone = Issue::new("leaf").self_signed();
        assert_eq!(verdict(&alone, &[], &[&alone], Usage::Server), "ok");
        let issued = Issue::new("leaf").usages(&[Eku::ServerAuth]).signed_by(&ca());
        assert_eq!(verdict(&issued, &[], &[&issued], Usage::Server), "ok");
        assert_eq!(verdict(&issued, &[], &[&issued], Usage::Client), "usage clientAuth CN=leaf");
        let expired = Issue::new("leaf").valid((2020, 1, 1), (2021, 1, 1)).self_signed();
        assert_eq!(verdict(&expired, &[], &[&expired], Usage::Server), "expired CN=leaf");
    }

    #[test]
    fn roots_are_judged_as_go_judges_them() {
        let constrained = |n| Issue::ca("ca").edit(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(n)));
        let cases = [
            (Issue::ca("ca"), "ok"),
            (constrained(0), "ok"),
            (Issue::ca("ca").edit(|p| p.is_ca = IsCa::NoCa), "no CA CN=ca"),
            (Issue::ca("ca").edit(|p| p.is_ca = IsCa::ExplicitNoCa), "no CA CN=ca"),
            (Issue::ca("ca").edit(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]), "no CA CN=ca"),
            (Issue::ca("ca").edit(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), "ok"),
            (Issue::ca("ca").valid((2020, 1, 1), (2027, 5, 1)), "expired CN=ca"),
            (Issue::ca("ca").valid((2027, 6, 2), (2037, 5, 1)), "early CN=ca"),
            (Issue::ca("ca").usages(&[Eku::ClientAuth]), "usage serverAuth CN=ca"),
            (Issue::ca("ca").usages(&[Eku::ServerAuth]), "ok"),
        ];
        for (root, want) in cases {
            let root = root.self_signed();
            let leaf = Issue::new("leaf").signed_by(&root);
            assert_eq!(verdict(&leaf, &[], &[&root], Usage::Server), want);
        }
    }

    #[test]
    fn intermediates_are_needed_and_judged() {
        let root = ca();
        let constrained = Issue::ca("ca").edit(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let short_root = constrained.self_signed();
        let middle = Issue::ca("middle").signed_by(&root);
        let leaf = Issue::new("leaf").signed_by(&middle);
        assert_eq!(verdict(&leaf, &[&middle], &[&root], Usage::Server), "ok");
        assert_eq!(verdict(&leaf, &[&root, &middle], &[&root], Usage::Server), "ok");
        assert_eq!(verdict(&leaf, &[], &[&root], Usage::Server), "unknown CN=leaf");
        assert_eq!(verdict(&leaf, &[&middle], &[&ca()], Usage::Server), "signature CN=middle");
        assert_eq!(verdict(&leaf, &[&middle], &[], Usage::Server), "unknown CN=middle");
        assert_eq!(verdict(&leaf, &[], &[&middle], Usage::Server), "ok", "an intermediate may be trusted");

        let cases = [
            (Issue::ca("middle").signed_by(&short_root), "CN=ca allows only 0 CAs below it"),
            (Issue::ca("middle").edit(|p| p.is_ca = IsCa::NoCa).signed_by(&root), "no CA CN=middle"),
            (Issue::ca("middle").valid((2020, 1, 1), (2021, 1, 1)).signed_by(&root), "expired CN=middle"),
            (Issue::ca("middle").usages(&[Eku::ClientAuth]).signed_by(&root), "usage serverAuth CN=middle"),
        ];
        for (middle, want) in cases {
            let leaf = Issue::new("leaf").signed_by(&middle);
            assert_eq!(verdict(&leaf, &[&middle], &[&root, &short_root], Usage::Server), want);
        }
    }

    #[test]
    fn the_search_ends() {
        // Two CAs that signed each other, and a hundred candidates of the right name.
        let a = ca();
        let b = Issue::ca("b").signed_by(&a);
        let a_by_b = Issue::ca("ca").key(KeyPair::from_pem(&a.key.serialize_pem()).unwrap()).signed_by(&b);
        let leaf = Issue::new("leaf").signed_by(&a);
        assert_eq!(verdict(&leaf, &[&a_by_b, &b], &[], Usage::Server), "unknown CN=b");
        let many: Vec<Entity> = (0..101).map(|_| ca()).collect();
        let many: Vec<&Entity> = many.iter().collect();
        assert_eq!(verdict(&leaf, &[], &many, Usage::Server), "there are too many candidate issuers");
    }

    #[test]
    fn name_constraints_hold_for_the_leaf() {
        let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
        let net =
            |a, b, c, d, bits| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([a, b, c, d], bits));
        let root = |permitted_subtrees, excluded_subtrees| {
            let constraints = NameConstraints { permitted_subtrees, excluded_subtrees };
            Issue::ca("ca").edit(|p| p.name_constraints = Some(constraints)).self_signed()
        };
        let cases = [
            (root(vec![dns("etcd.local")], vec![]), "m1.ETCD.local", true),
            (root(vec![dns("etcd.local")], vec![]), "etcd.local", true),
            (root(vec![dns(".etcd.local")], vec![]), "etcd.local", false),
            (root(vec![dns(".etcd.local")], vec![]), "m1.etcd.local", true),
            (root(vec![dns("etcd.local")], vec![]), "xetcd.local", false),
            (root(vec![dns("etcd.local"), dns("other")], vec![]), "other", true),
            (root(vec![dns("etcd.local")], vec![]), "10.0.0.3", true),
            (root(vec![], vec![dns("etcd.local")]), "m1.etcd.local", false),
            (root(vec![], vec![dns("m1.etcd.local")]), "*.etcd.local", false),
            (root(vec![dns("m1.etcd.local")], vec![]), "*.etcd.local", false),
            (root(vec![net(10, 0, 0, 0, 8)], vec![]), "10.0.0.3", true),
            (root(vec![net(10, 0, 0, 0, 8)], vec![]), "11.0.0.3", false),
            (root(vec![net(10, 0, 0, 0, 8)], vec![net(10, 0, 0, 3, 32)]), "10.0.0.3", false),
            (root(vec![net(10, 0, 0, 0, 8)], vec![]), "m1.etcd.local", true),
        ];
        for (root, name, allowed) in cases {
            let leaf = Issue::new("leaf").sans(&[name]).signed_by(&root);
            let want = if allowed {
                "ok".to_owned()
            } else {
                format!("{name} is not a name that CN=ca may certify")
            };
            assert_eq!(verdict(&leaf, &[], &[&root], Usage::Server), want, "{name}");
        }
    }

    #[test]
    fn old_kinds_of_certificates() {
        let read = |pem: &str| certificates_from_pem(pem.as_bytes(), Origin::file("/a"), now()).unwrap();
        let weak = read(include_str!("../testdata/rsa1024-sha1-ca.crt"));
        let v1 = read(include_str!("../testdata/v1-ca.crt"));
        assert!(weak[0].certificate.self_signed && v1[0].certificate.self_signed);
        let cases = [
            (include_str!("../testdata/sha1-leaf.crt"), &weak, "ok"),
            (
                include_str!("../testdata/md5-leaf.crt"),
                &weak,
                "CN=old-leaf is signed with md5WithRSAEncryption, which is not accepted",
            ),
            (include_str!("../testdata/v1-leaf.crt"), &v1, "ok"),
        ];
        for (leaf, roots, want) in cases {
            let leaf = read(leaf);
            assert_eq!(word(chains_to(&leaf[0], &[], roots, Usage::Server, now())), want);
        }
    }

    #[test]
    fn impostors() {
        let root = ca();
        let roots = [root.parsed.clone()];
        let middle = Issue::ca("middle").signed_by(&root);
        let cases = [
            (Issue::new("client").usages(&[Eku::ClientAuth]).signed_by(&root), true),
            (Issue::new("server").usages(&[Eku::ServerAuth]).signed_by(&root), false),
            (Issue::new("foreign").signed_by(&ca()), false),
            (Issue::new("old").valid((2020, 1, 1), (2021, 1, 1)).signed_by(&root), false),
            (root, false),
        ];
        for (entity, want) in cases {
            let path = acceptable_to(&entity.parsed, &[], &roots, now());
            assert_eq!(path.is_some(), want, "{}", entity.parsed.certificate.subject);
        }
        let below = Issue::new("client").signed_by(&middle);
        assert_eq!(acceptable_to(&below.parsed, &[], &roots, now()), None);
        let known = [middle.parsed.clone()];
        let path = acceptable_to(&below.parsed, &known, &roots, now()).unwrap();
        assert_eq!(subjects(&path), ["CN=client", "CN=middle", "CN=ca"]);
    }

    fn subjects(path: &[&Parsed]) -> Vec<String> {
        path.iter().map(|parsed| parsed.certificate.subject.clone()).collect()
    }

    /// Returns a certificate of the same name and key that another CA signed.
    fn cross_signed(entity: &Entity, by: &Entity, edit: impl FnOnce(Issue) -> Issue) -> Entity {
        let cn = entity.parsed.certificate.common_name.clone().unwrap();
        let key = KeyPair::from_pem(&entity.key.serialize_pem()).unwrap();
        edit(Issue::ca(&cn).key(key)).signed_by(by)
    }

    /// Returns the way from an authority to a root in words, or why there is none.
    fn way(authority: &Entity, known: &[&Entity], roots: &[&Entity]) -> String {
        let parsed = |entities: &[&Entity]| entities.iter().map(|e| e.parsed.clone()).collect::<Vec<_>>();
        let (known, roots) = (parsed(known), parsed(roots));
        match accepts_issuer(&authority.parsed, &known, &roots, Usage::Client, now()) {
            Ok((path, from)) => {
                let from = if from > now() { format!(" from {from}") } else { String::new() };
                subjects(&path).join(" < ") + &from
            }
            Err(error) => word(Err(error)),
        }
    }

    #[test]
    fn what_an_authority_issues_is_accepted_through_every_certificate_of_it() {
        let root = Issue::ca("root").self_signed();
        let kube = Issue::ca("kube").self_signed();
        let etcd = Issue::ca("etcd").self_signed();
        let below = Issue::ca("kube").signed_by(&root);
        let deep = Issue::ca("deep").signed_by(&below);
        let cross = cross_signed(&kube, &etcd, |issue| issue);
        let other_key = Issue::ca("kube").signed_by(&etcd);
        let below_kube = Issue::ca("etcd").signed_by(&kube);
        let cases = [
            ("trusted itself", way(&kube, &[], &[&kube]), "CN=kube"),
            ("a bundle", way(&kube, &[], &[&etcd, &kube]), "CN=kube"),
            ("not related", way(&kube, &[], &[&etcd]), "unknown CN=kube"),
            ("a root above it", way(&below, &[], &[&root]), "CN=kube < CN=root"),
            ("a root far above it", way(&deep, &[&below], &[&root]), "CN=deep < CN=kube < CN=root"),
            ("what is between is not known", way(&deep, &[], &[&root]), "unknown CN=deep"),
            ("cross-signed", way(&kube, &[&cross], &[&etcd]), "CN=kube < CN=etcd"),
            ("its cross certificate is not known", way(&kube, &[], &[&etcd]), "unknown CN=kube"),
            ("the same name and another key", way(&kube, &[&other_key], &[&etcd]), "signature CN=kube"),
            (
                "what it signed is trusted, not itself",
                way(&kube, &[&below_kube], &[&below_kube]),
                "unknown CN=kube",
            ),
            ("its cross certificate is trusted", way(&kube, &[], &[&cross]), "CN=kube"),
        ];
        for (about, got, want) in cases {
            assert_eq!(got, want, "{about}");
        }
    }

    #[test]
    fn what_an_authority_issues_is_judged_as_go_judges_it() {
        let constrained = |n| {
            Issue::ca("root").edit(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(n))).self_signed()
        };
        let names = NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("etcd.local".to_owned())],
            excluded_subtrees: vec![],
        };
        let named = Issue::ca("root").edit(|p| p.name_constraints = Some(names)).self_signed();
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(rcgen::DnType::OrganizationName, "corp");
        let subjects = NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DirectoryName(subject)],
            excluded_subtrees: vec![],
        };
        let corp = Issue::ca("root").edit(|p| p.name_constraints = Some(subjects)).self_signed();
        let servers = Issue::ca("root").usages(&[Eku::ServerAuth]).self_signed();
        let clients = Issue::ca("root").usages(&[Eku::ClientAuth]).self_signed();
        let old = Issue::ca("root").valid((2020, 1, 1), (2027, 5, 1)).self_signed();
        let young = Issue::ca("root").valid((2027, 7, 1), (2037, 1, 1)).self_signed();
        let plain = Issue::ca("root").self_signed();
        let kube = || Issue::ca("kube");
        let cases = [
            ("path length", &constrained(0), kube(), "CN=root allows only 0 CAs below it"),
            ("long enough", &constrained(1), kube(), "CN=kube < CN=root"),
            ("names exclude no certificate without names", &named, kube(), "CN=kube < CN=root"),
            (
                "a constraint of subjects",
                &corp,
                kube(),
                "CN=root constrains names of a kind that is not known",
            ),
            ("for servers only", &servers, kube(), "usage clientAuth CN=root"),
            ("for clients only", &clients, kube(), "CN=kube < CN=root"),
            (
                "itself for servers only",
                &plain,
                kube().usages(&[Eku::ServerAuth]),
                "usage clientAuth CN=kube",
            ),
            ("the root has expired", &old, kube(), "expired CN=root"),
            ("it has expired", &plain, kube().valid((2020, 1, 1), (2027, 5, 1)), "expired CN=kube"),
            ("the root is not valid yet", &young, kube(), "CN=kube < CN=root from 2027-07-01T00:00:00Z"),
            (
                "they are never valid together",
                &young,
                kube().valid((2027, 1, 1), (2027, 6, 15)),
                "expired CN=kube",
            ),
            ("no CA", &plain, kube().edit(|p| p.is_ca = IsCa::NoCa), "no CA CN=kube"),
        ];
        for (about, root, issue, want) in cases {
            assert_eq!(way(&issue.signed_by(root), &[], &[root]), want, "{about}");
        }
        // One of its certificates is enough.
        let kube = Issue::ca("kube").self_signed();
        let bad = cross_signed(&kube, &plain, |issue| issue.usages(&[Eku::ServerAuth]));
        let good = cross_signed(&kube, &plain, |issue| issue);
        assert_eq!(way(&kube, &[&bad], &[&plain]), "usage clientAuth CN=kube");
        assert_eq!(way(&kube, &[&bad, &good], &[&plain]), "CN=kube < CN=root");
    }

    #[test]
    fn a_way_up_that_is_not_known_to_its_end_is_open() {
        let root = Issue::ca("root").self_signed();
        let middle = Issue::ca("middle").signed_by(&root);
        let kube = Issue::ca("kube").signed_by(&middle);
        let alone = Issue::ca("alone").self_signed();
        let namesake = Issue::ca("middle").self_signed();
        let short = |n| {
            Issue::ca("etcd").edit(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(n))).self_signed()
        };
        let etcd = ca();
        let end = |authority: &Entity, known: &[&Entity], root: &Entity| {
            let known: Vec<Parsed> = known.iter().map(|e| e.parsed.clone()).collect();
            let roots = [root.parsed.clone()];
            open_end(&authority.parsed, &known, &roots).map(|p| p.certificate.subject.clone())
        };
        let kube_s = Some("CN=kube".to_owned());
        assert_eq!(end(&alone, &[], &etcd), None);
        assert_eq!(end(&kube, &[], &etcd), kube_s);
        assert_eq!(end(&kube, &[&namesake], &etcd), kube_s, "another key signed it");
        assert_eq!(end(&kube, &[&middle], &etcd), Some("CN=middle".to_owned()));
        assert_eq!(end(&kube, &[&middle, &root], &etcd), None);
        assert_eq!(end(&kube, &[], &short(1)), None, "no such root can be two above it");
        assert_eq!(end(&kube, &[], &short(2)), kube_s);
        let many: Vec<Entity> = (0..101).map(|_| Issue::ca("middle").self_signed()).collect();
        assert_eq!(end(&kube, &many.iter().collect::<Vec<_>>(), &etcd), kube_s, "the search ends");
    }
}
