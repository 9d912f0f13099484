//! Certificates with their keys, judged as an audit judges those in use, before they are used.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use seaworthy_evidence::{Origin, PrivateKey, Problem, ProblemKind, PublicKey};
use seaworthy_journal::files::Root;
use seaworthy_pki::{Material, Parsed, Side, Source, Use, User, certificates_from_pem, names, problems};
use zeroize::Zeroizing;

/// A certificate, the rest of its chain, and its key, in files. No byte of the key is in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    /// The file of the certificate.
    pub(crate) certificate: String,
    /// The file of the key.
    pub(crate) key: String,
    /// The certificates in DER form, leaf first.
    chain: Vec<Vec<u8>>,
    /// SHA-256 of the first one.
    pub(crate) fingerprint: String,
    /// SHA-256 of the public half of the key.
    pub(crate) spki: String,
    public: PublicKey,
}

impl Pair {
    /// Returns the pair in these files.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read, or is not what it should be; in words.
    pub(crate) fn read(root: &Root, certificate: &str, key: &str) -> Result<Self, String> {
        let read = |path: &str| -> Result<Zeroizing<Vec<u8>>, String> {
            let content = root.read(Path::new(path)).map_err(|error| error.to_string())?;
            Ok(Zeroizing::new(content.ok_or_else(|| format!("{path} is not there"))?.bytes))
        };
        Self::new((certificate, &read(certificate)?), (key, &read(key)?))
    }

    /// Returns the pair of these files, each with its content.
    ///
    /// # Errors
    ///
    /// When one of them is not what it should be. The text names the file, and never what is in a key.
    pub(crate) fn new(certificate: (&str, &[u8]), key: (&str, &[u8])) -> Result<Self, String> {
        // What the time says about them is asked when they are judged.
        let chain = certificates_from_pem(certificate.1, Origin::file(certificate.0), Timestamp::UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        let facts = seaworthy_pki::private_key_from_pem(key.1, key.0).map_err(|error| error.to_string())?;
        let leaf = chain.first().ok_or_else(|| format!("{} is empty", certificate.0))?;
        Ok(Self {
            certificate: certificate.0.to_owned(),
            key: key.0.to_owned(),
            fingerprint: leaf.certificate.fingerprint.clone(),
            public: PublicKey { spki: facts.key.spki.clone(), ..leaf.certificate.key.clone() },
            spki: facts.key.spki,
            chain: chain.iter().map(|parsed| parsed.der().to_vec()).collect(),
        })
    }

    /// Returns the certificates as they are at a time, leaf first.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read.
    pub(crate) fn chain(&self, now: Timestamp) -> Result<Vec<Parsed>, String> {
        let origin = Origin::file(&self.certificate);
        let parse = |der: &Vec<u8>| Parsed::from_der(der, origin.clone(), now);
        self.chain.iter().map(parse).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    /// Returns why connections would fail with this pair for `usage`, where those in the file `trusted` are the authorities, now or
    /// within so many days; nothing when they would not.
    ///
    /// # Errors
    ///
    /// The reason, one sentence without a full stop.
    pub(crate) fn judge(
        &self,
        trusted: (&str, &[u8]),
        usage: &Use<'_>,
        now: Timestamp,
        days: i64,
    ) -> Result<(), String> {
        let later = now.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(now);
        self.judge_at(trusted, usage, now)?;
        match days {
            0 => Ok(()),
            _ => self.judge_at(trusted, usage, later).map_err(|why| format!("within {days} days: {why}")),
        }
    }

    fn judge_at(&self, (ca_path, ca): (&str, &[u8]), usage: &Use<'_>, now: Timestamp) -> Result<(), String> {
        let (certificate, key) = (&self.certificate, &self.key);
        let (origin, key_origin, ca_origin) =
            (Origin::file(certificate), Origin::file(key), Origin::file(ca_path));
        let chain = self.chain(now)?;
        let authorities =
            certificates_from_pem(ca, ca_origin.clone(), now).map_err(|error| error.to_string())?;
        let private = PrivateKey { path: key.clone(), key: self.public.clone() };
        let material = Material {
            certificate: Some(Source {
                path: certificate,
                origin: &origin,
                content: Ok(&chain),
                refusal: None,
            }),
            key: Some(Source { path: key, origin: &key_origin, content: Ok(&private), refusal: None }),
            trusted: Some(Source {
                path: ca_path,
                origin: &ca_origin,
                content: Ok(&authorities),
                refusal: None,
            }),
            ..Material::default()
        };
        // Another authority in the file may be past its time and matter to nobody.
        let matters = |p: &Problem| p.kind != ProblemKind::Expiring && (p.breaks || p.path != ca_path);
        if let Some(problem) = problems(&material, usage, now).into_iter().find(matters) {
            return Err(problem.message);
        }
        let leaf = chain.first().ok_or_else(|| format!("{certificate} is empty"))?;
        match usage.dialled.iter().find(|host| !names(&leaf.certificate, host)) {
            Some(host) => {
                Err(format!("{certificate} does not name {host}, where others dial it or see it come from"))
            }
            None => Ok(()),
        }
    }
}

/// Returns the use of a certificate between members that are dialled at these hosts.
pub(crate) fn peer(hosts: &[String]) -> Use<'_> {
    Use {
        side: Side::Peer,
        dialled: hosts,
        dials_from: &[],
        client_auth: true,
        checks_client_names: true,
        allowed: None,
        user: User::Etcd(None),
    }
}

/// Returns the use of a certificate with which clients are served at these hosts.
pub(crate) fn server(hosts: &[String]) -> Use<'_> {
    Use { side: Side::Client, client_auth: false, checks_client_names: false, ..peer(hosts) }
}

/// Returns the SHA-256 of the public half of a private key.
///
/// # Errors
///
/// When it cannot be read; in words, none of which is of the key.
pub(crate) fn public_half(root: &Root, key: &str) -> Result<String, String> {
    let content = root.read(Path::new(key)).map_err(|error| error.to_string())?;
    let bytes = Zeroizing::new(content.ok_or_else(|| format!("{key} is not there"))?.bytes);
    let facts = seaworthy_pki::private_key_from_pem(&bytes, key).map_err(|error| error.to_string())?;
    Ok(facts.key.spki)
}
