//! What is wrong with the certificates of one file for what a program does with them.

use jiff::Timestamp;
use seaworthy_evidence::{Certificate, Origin, PrivateKey, Problem, ProblemKind};

use crate::certificate::days_between;
use crate::problems::{EXPIRING_DAYS, date, plural, weak_key, weak_signature};
use crate::{Parsed, Usage, chains_to};

/// What a file of certificates is used for; nothing where no use of it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// A server presents it.
    pub serves: bool,
    /// A client presents it.
    pub dials: bool,
    /// Others are known by what its CAs issue.
    pub trusts: bool,
}

/// What is compared with the certificates of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The private key that is used with the first of them.
    pub key: Option<&'a PrivateKey>,
    /// Those by which the other side knows it as a client; empty where that is not known.
    pub authorities: &'a [Parsed],
}

/// Returns what is wrong with `certificates`, which are at `path`, for `purpose`. Expiry is told of all of them.
pub fn misuse(
    path: &str,
    certificates: &[Parsed],
    purpose: Purpose,
    beside: Beside<'_>,
    now: Timestamp,
) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |kind, breaks, origin: &Origin, message| {
        found.push(Problem { kind, breaks, path: path.to_owned(), message, origin: origin.clone() });
    };
    let used = purpose != Purpose::default();
    for certificate in certificates.iter().map(|parsed| &parsed.certificate) {
        let (label, origin) = (label(path, certificate), &certificate.origin);
        let days = days_between(now, certificate.not_after);
        if now > certificate.not_after {
            let message = format!("{label} expired on {}", date(certificate.not_after));
            add(ProblemKind::Expired, used, origin, message);
        } else if now < certificate.not_before {
            let message = format!("{label} is not valid before {}", date(certificate.not_before));
            add(ProblemKind::NotYetValid, used, origin, message);
        } else if days <= EXPIRING_DAYS {
            let when = if days == 0 { "less than a day".to_owned() } else { plural(days) };
            let message = format!("{label} expires on {}, in {when}", date(certificate.not_after));
            add(ProblemKind::Expiring, false, origin, message);
        }
        if let Some(weak) = weak_key(certificate) {
            add(ProblemKind::WeakKey, false, origin, format!("{label} has a weak key ({weak})"));
        }
        if let Some(weak) = weak_signature(certificate) {
            add(ProblemKind::WeakSignature, false, origin, format!("{label} is signed with {weak}"));
        }
    }
    let Some((leaf, rest)) = certificates.split_first() else { return found };
    let (certificate, origin) = (&leaf.certificate, &leaf.certificate.origin);
    let named = label(path, certificate);
    if purpose.serves && !Usage::Server.allowed_by(certificate) {
        let message = format!("{named} is presented by a server, and its usages leave out serverAuth");
        add(ProblemKind::NoServerAuth, true, origin, message);
    }
    if purpose.dials && !Usage::Client.allowed_by(certificate) {
        let message = format!("{named} is presented by a client, and its usages leave out clientAuth");
        add(ProblemKind::NoClientAuth, true, origin, message);
    }
    if purpose.trusts && !certificates.iter().any(|p| p.certificate.ca || p.certificate.self_signed) {
        let message = format!("{named} is trusted as a CA, and is none");
        add(ProblemKind::NotCa, true, origin, message);
    }
    if let Some(key) = beside.key.filter(|key| key.key.spki != certificate.key.spki) {
        let message = format!("{} is not the key of {named}", key.path);
        add(ProblemKind::KeyMismatch, true, origin, message);
    }
    // A certificate that has expired, or is of another usage, is told as that.
    let valid = certificate.not_before <= now && now <= certificate.not_after;
    let fits = purpose.dials && valid && Usage::Client.allowed_by(certificate);
    if fits
        && !beside.authorities.is_empty()
        && let Err(reason) = chains_to(leaf, rest, beside.authorities, Usage::Client, now)
    {
        let message = format!("{named} is of no use to a client here: {reason}");
        add(ProblemKind::UnknownCa, true, origin, message);
    }
    found
}

/// Returns how to name a certificate of the file at `path`.
fn label(path: &str, certificate: &Certificate) -> String {
    match certificate.subject.as_str() {
        "" => path.to_owned(),
        subject => format!("{path} ({subject})"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    use super::*;
    use crate::testing::{Entity, Issue, now};

    fn parsed(entity: &Entity) -> Parsed {
        entity.parsed.clone()
    }

    #[test]
    fn each_use_of_a_file_has_its_own_demands() {
        let ca = Issue::ca("kubernetes").self_signed();
        let other = Issue::ca("other").self_signed();
        let server = Issue::new("server").usages(&[ServerAuth]).signed_by(&ca);
        let client = Issue::new("client").usages(&[ClientAuth]).signed_by(&ca);
        let old = Issue::new("old").usages(&[ClientAuth]).valid((2020, 1, 1), (2021, 1, 1)).signed_by(&ca);
        let serves = Purpose { serves: true, ..Purpose::default() };
        let dials = Purpose { dials: true, ..Purpose::default() };
        let trusts = Purpose { trusts: true, ..Purpose::default() };
        let cases = [
            (&server, serves, &ca, vec![]),
            (&client, serves, &ca, vec![ProblemKind::NoServerAuth]),
            (&client, dials, &ca, vec![]),
            (&client, dials, &other, vec![ProblemKind::UnknownCa]),
            (&server, dials, &ca, vec![ProblemKind::NoClientAuth]),
            (&server, trusts, &ca, vec![ProblemKind::NotCa]),
            (&ca, trusts, &ca, vec![]),
            (&old, dials, &ca, vec![ProblemKind::Expired]),
            (&server, Purpose::default(), &other, vec![]),
        ];
        for (entity, purpose, authority, want) in cases {
            let authorities = [parsed(authority)];
            let beside = Beside { key: None, authorities: &authorities };
            let got = misuse("/x.crt", &[parsed(entity)], purpose, beside, now());
            let got: Vec<_> = got.iter().map(|problem| problem.kind).collect();
            assert_eq!(got, want, "{purpose:?} {:?}", parsed(entity).certificate.subject);
        }
        let unused = misuse("/x.crt", &[parsed(&old)], Purpose::default(), Beside::default(), now());
        assert!(!unused[0].breaks && unused[0].message.contains("(CN=old) expired on 2021-01-01"));
        let key = parsed(&client).certificate.key;
        let key = PrivateKey { path: "/x.key".to_owned(), key };
        let beside = Beside { key: Some(&key), authorities: &[] };
        let got = misuse("/x.crt", &[parsed(&server)], serves, beside, now());
        assert!(got[0].message.starts_with("/x.key is not the key of /x.crt (CN=server)"), "{got:?}");
    }
}
