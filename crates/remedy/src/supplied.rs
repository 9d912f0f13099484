//! A certificate that comes from elsewhere: the operator supplies it, or it came back for a signing request.
//!
//! What is kept are facts. The bytes of the key are looked at once, to tell its public half.

use jiff::Timestamp;
use seaworthy_pki::{Use, User};

use crate::material::{self, Pair};
use crate::plan::{Condition, Refusal, RefusalKind};
use crate::planner::MARGIN_DAYS;

/// A file on the host, as it was read.
#[derive(Clone, Copy)]
pub struct SuppliedFile<'a> {
    /// The path.
    pub path: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A certificate and its key, in files on the host. No byte of the key is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Supplied {
    certificate: Place,
    key: Place,
    pair: Pair,
}

/// A path, with who may use what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What is there of the files by which this member asks for a certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// Whether the private key is there.
    pub key: bool,
    /// Whether the signing request is there.
    pub request: bool,
    /// The certificate that came back, with its key.
    pub returned: Option<Supplied>,
}

/// What a certificate for peers has to fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit<'a> {
    /// The file of the authorities that peers trust, and its content.
    pub(crate) authorities: (&'a str, &'a [u8]),
    /// Hosts that peers dial, and addresses from which they see it come.
    pub(crate) hosts: &'a [String],
    /// Version of etcd.
    pub(crate) version: Option<&'a str>,
    /// The time.
    pub(crate) now: Timestamp,
}

impl std::fmt::Debug for SuppliedFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes may be a private key.
        let mut file = f.debug_struct("SuppliedFile");
        file.field("path", &self.path).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl From<SuppliedFile<'_>> for Place {
    fn from(file: SuppliedFile<'_>) -> Self {
        Self { path: file.path.to_owned(), mode: file.mode, uid: file.uid, gid: file.gid }
    }
}

impl Supplied {
    /// Returns what is to be known of these files.
    ///
    /// # Errors
    ///
    /// When one of them is not what it should be, or the key is of another certificate, or others can read it. The text
    /// names the file, and never what is in a key.
    pub fn read(certificate: SuppliedFile<'_>, key: SuppliedFile<'_>) -> Result<Self, Refusal> {
        for path in [certificate.path, key.path] {
            if !path.starts_with('/') {
                return Err(wrong(format!("{path} is not absolute")));
            }
        }
        let pair = Pair::new((certificate.path, certificate.bytes), (key.path, key.bytes)).map_err(wrong)?;
        let leaf = pair.chain(Timestamp::UNIX_EPOCH).map_err(wrong)?.into_iter().next();
        if leaf.is_none_or(|leaf| leaf.certificate.key.spki != pair.spki) {
            return Err(wrong(format!("the key in {} is not of {}", key.path, certificate.path)));
        }
        if key.mode & 0o037 != 0 {
            return Err(Refusal {
                kind: RefusalKind::Access,
                what: format!("others may use the private key in {} (mode {:04o})", key.path, key.mode),
                why: "with it anybody can pass for this member".to_owned(),
                instead: "if nobody has, set mode 0600; else supply another key and certificate".to_owned(),
            });
        }
        Ok(Self { certificate: certificate.into(), key: key.into(), pair })
    }

    /// Returns the file of the certificate.
    pub fn certificate(&self) -> &str {
        &self.certificate.path
    }

    /// Returns the file of the key.
    pub fn key(&self) -> &str {
        &self.key.path
    }

    /// Returns both files, with who may use them.
    pub(crate) fn places(&self) -> [&Place; 2] {
        [&self.certificate, &self.key]
    }

    /// Returns what must be in the files when they are used.
    pub(crate) fn holds(&self) -> Condition {
        Condition::Holds {
            certificate: self.certificate.path.clone(),
            fingerprint: self.pair.fingerprint.clone(),
            key: self.key.path.clone(),
            spki: Some(self.pair.spki.clone()),
        }
    }

    /// Refuses a certificate with which peers could not talk to the member, as an audit would judge it in use.
    pub(crate) fn accept(&self, fit: &Fit<'_>) -> Result<(), Refusal> {
        let path = &self.certificate.path;
        let usage = Use { user: User::Etcd(fit.version), ..material::peer(fit.hosts) };
        self.pair.judge(fit.authorities, &usage, fit.now, 0).map_err(wrong)?;
        let leaf = self.pair.chain(fit.now).map_err(wrong)?.into_iter().next();
        let leaf = leaf.ok_or_else(|| wrong(format!("{path} is empty")))?;
        if leaf.certificate.days_left < MARGIN_DAYS {
            return Err(wrong(format!("{path} expires today")));
        }
        Ok(())
    }
}

fn wrong(what: String) -> Refusal {
    Refusal {
        kind: RefusalKind::Certificate,
        what,
        why: "with such a certificate the member would not start, or its peers could not talk to it".to_owned(),
        instead: "supply a certificate, with its key, for all names of the member and for both usages, of the authority \
                  that is named with --ca-cert"
            .to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::issue::{Authority, KeyKind, Profile, Purpose};

    const KEY: &str = "/etc/peers/m1.key";
    const CERTIFICATE: &str = "/etc/peers/m1.crt";

    fn file<'a>(path: &'a str, bytes: &'a [u8], mode: u32) -> SuppliedFile<'a> {
        SuppliedFile { path, bytes, mode, uid: 0, gid: 0 }
    }

    /// Returns a certificate of this authority, as if it had been supplied.
    pub(crate) fn supplied(authority: &Authority, profile: &Profile, now: Timestamp) -> Supplied {
        let (key, issued) = authority.issue(profile, KeyKind::EcP256, now).unwrap();
        let certificate = file(CERTIFICATE, issued.pem.as_bytes(), 0o644);
        Supplied::read(certificate, file(KEY, key.as_bytes(), 0o600)).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn profile() -> Profile {
        Profile::peer("m1", ["10.0.0.1", "m1.example"].map(|host| crate::issue::Host::parse(host).unwrap()))
    }

    fn authority() -> Authority {
        Authority::create("peers", KeyKind::EcP256, now()).unwrap().0
    }

    #[test]
    fn nothing_of_a_key_is_kept() {
        let (secret, issued) = authority().issue(&profile(), KeyKind::EcP256, now()).unwrap();
        let text = String::from_utf8_lossy(secret.as_bytes()).into_owned();
        let body = text.lines().nth(1).unwrap();
        let der = PrivateKeyDer::from_pem_slice(secret.as_bytes()).unwrap();
        // A part of the number that is the key, as a list of bytes is shown.
        let number = format!("{:?}", &der.secret_der()[40..60]);
        // Also when both are in one file.
        let both = [issued.pem.as_bytes(), secret.as_bytes()].concat();
        let [certificate, key] = [CERTIFICATE, KEY].map(|path| file(path, &both, 0o600));
        let shown = format!("{certificate:?} {:?}", Supplied::read(certificate, key).unwrap());
        assert!(!shown.contains(body), "{shown}");
        assert!(!shown.contains(number.trim_matches(['[', ']'])), "{shown}");
        for bytes in [&secret.as_bytes()[..90], body.as_bytes()] {
            let refusal = Supplied::read(certificate, file(KEY, bytes, 0o600)).unwrap_err();
            assert!(
                refusal.what.contains(KEY) && !format!("{refusal:?}").contains(&body[..16]),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_refused_by_name() {
        let (secret, issued) = authority().issue(&profile(), KeyKind::EcP256, now()).unwrap();
        let (other, _) = authority().issue(&profile(), KeyKind::EcP256, now()).unwrap();
        let pem = issued.pem.as_bytes();
        let key = secret.as_bytes();
        let cases = [
            (
                RefusalKind::Certificate,
                "m1.crt is not absolute",
                file("m1.crt", pem, 0o644),
                file(KEY, key, 0o600),
            ),
            (
                RefusalKind::Certificate,
                CERTIFICATE,
                file(CERTIFICATE, b"nothing", 0o644),
                file(KEY, key, 0o600),
            ),
            (RefusalKind::Certificate, KEY, file(CERTIFICATE, pem, 0o644), file(KEY, pem, 0o600)),
            (
                RefusalKind::Certificate,
                "is not of",
                file(CERTIFICATE, pem, 0o644),
                file(KEY, other.as_bytes(), 0o600),
            ),
            (RefusalKind::Access, "(mode 0644)", file(CERTIFICATE, pem, 0o644), file(KEY, key, 0o644)),
        ];
        for (kind, words, certificate, key) in cases {
            let refusal = Supplied::read(certificate, key).expect_err(words);
            assert!(refusal.kind == kind && refusal.what.contains(words), "{words}: {refusal:?}");
        }
    }

    #[test]
    fn a_certificate_that_would_isolate_the_member_is_refused_with_the_reason() {
        let (ca, stranger) = (authority(), authority());
        let hosts = ["10.0.0.1".to_owned(), "m1.example".to_owned()];
        let fit = |now| Fit {
            authorities: ("/ca.crt", ca.pem().as_bytes()),
            hosts: &hosts,
            version: Some("3.5.9"),
            now,
        };
        let one = |authority: &Authority, change: &dyn Fn(&mut Profile)| {
            let mut profile = profile();
            change(&mut profile);
            supplied(authority, &profile, now())
        };
        assert_eq!(one(&ca, &|_| {}).accept(&fit(now())), Ok(()));
        let day = |days: i64| now() + jiff::SignedDuration::from_hours(24 * days);
        let short = one(&ca, &|p| p.lifetime = std::time::Duration::from_secs(86_400 * 20));
        assert_eq!(short.accept(&fit(now())), Ok(()), "it may expire soon, and be told so by an audit");
        let cases: [(&str, Supplied, Timestamp); 7] = [
            ("does not chain to /ca.crt", one(&stranger, &|_| {}), now()),
            ("m1.example", one(&ca, &|p| _ = p.hosts.pop_last()), now()),
            ("10.0.0.1", one(&ca, &|p| _ = p.hosts.pop_first()), now()),
            ("not clientAuth", one(&ca, &|p| p.purpose = Purpose::Server), now()),
            ("not valid before", one(&ca, &|_| {}), day(-2)),
            ("expired on", one(&ca, &|_| {}), day(366)),
            ("expires today", short, day(19) + jiff::SignedDuration::from_hours(12)),
        ];
        for (words, supplied, now) in cases {
            let refusal = supplied.accept(&fit(now)).expect_err(words);
            assert!(
                refusal.what.contains(words) && refusal.what.contains(CERTIFICATE),
                "{words}: {refusal:?}"
            );
        }
    }
}
