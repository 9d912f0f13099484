//! Key material: the files a side is configured with, what is in them, and what is wrong with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use seaworthy_components::KeyFiles;
use seaworthy_evidence::{
    Certificate, Credentials, ErrorKind, EvidenceError, Observed, Origin, PrivateKey, Problem, ProblemKind,
    RevocationList, Setting,
};
use seaworthy_host::access::{self, Access};
use seaworthy_host::root::Root;
use seaworthy_host::users::Users;
use seaworthy_pki::{Material, Parsed, Side, Source, Use, User, problems};

use super::Survey;
use super::etcd::allowed::Restriction;
use super::processes::Running;

/// Largest key material file that is read, in bytes.
const CAP: usize = 1 << 20;

/// The settings that name the files of one side.
pub(crate) struct Names {
    pub(crate) certificate: &'static str,
    pub(crate) key: &'static str,
    pub(crate) client_certificate: &'static str,
    pub(crate) client_key: &'static str,
    pub(crate) trusted: &'static str,
    pub(crate) revocations: &'static str,
}

/// The settings of the traffic between members.
pub(crate) const PEER: Names = Names {
    certificate: "peer-cert-file",
    key: "peer-key-file",
    client_certificate: "peer-client-cert-file",
    client_key: "peer-client-key-file",
    trusted: "peer-trusted-ca-file",
    revocations: "peer-crl-file",
};

/// The settings of the traffic with clients.
pub(crate) const CLIENT: Names = Names {
    certificate: "cert-file",
    key: "key-file",
    client_certificate: "client-cert-file",
    client_key: "client-key-file",
    trusted: "trusted-ca-file",
    revocations: "client-crl-file",
};

impl Names {
    /// Returns those of a component that has a certificate, a key and CAs for one purpose, and no more.
    pub(crate) fn of(files: &KeyFiles) -> Self {
        Self {
            certificate: files.certificate,
            key: files.key,
            client_certificate: "",
            client_key: "",
            trusted: files.trusted,
            revocations: "",
        }
    }

    /// Returns all of them.
    pub(crate) fn all(&self) -> [&'static str; 6] {
        [self.certificate, self.key, self.client_certificate, self.client_key, self.trusted, self.revocations]
    }
}

/// The bytes of a file, or why they could not be read.
type Bytes = Result<Arc<[u8]>, EvidenceError>;

/// Reads each file of one process at most once.
pub(crate) struct Reader<'a> {
    root: Result<&'a Root, EvidenceError>,
    /// The process whose working directory relative paths are below; without one, they are below the root.
    running: Option<&'a Running>,
    /// What the process itself may do with the files; `None` where that is not asked.
    access: Option<Access<'a>>,
    read: Mutex<BTreeMap<String, Bytes>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(root: Result<&'a Root, EvidenceError>) -> Self {
        Self { root, running: None, access: None, read: Mutex::default() }
    }

    /// Returns a reader of the files that `running` names, who also asks whether the process may use them.
    pub(crate) fn as_process(running: &'a Running, users: &'a Users) -> Self {
        let root = running.root.as_ref().map_err(Clone::clone);
        let access = Some(Access::of_process(&running.entry, root, users));
        Self { access, ..Self::of_process(running) }
    }

    /// Returns what the process may do with the files, where that is asked.
    pub(crate) fn access(&self) -> Option<&Access<'a>> {
        self.access.as_ref()
    }

    /// Returns the root below which paths are.
    pub(crate) fn root(&self) -> Result<&'a Root, EvidenceError> {
        self.root.clone()
    }

    /// Returns which file system object the process sees at `path`.
    pub(crate) fn identity(&self, path: &str) -> Result<(u64, u64), EvidenceError> {
        self.root.clone()?.identity(path)
    }

    /// Returns why the process may not read `path`; `None` when it may, and where that is not asked.
    fn refusal(&self, path: &str) -> Result<Option<String>, EvidenceError> {
        let Some(access) = &self.access else { return Ok(None) };
        match access.refuses(&self.absolute(path)?, access::READ, None) {
            Ok(refusal) => Ok(refusal.map(|refusal| refusal.message)),
            // That there is no such file is told where its content is.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file `path` with its `content`.
    fn file<T>(&self, path: String, content: Result<T, EvidenceError>) -> Content<T> {
        Content { origin: self.origin(&path), refusal: self.refusal(&path), path, content }
    }

    /// Returns a reader of the files that `running` names.
    pub(crate) fn of_process(running: &'a Running) -> Self {
        Self { running: Some(running), ..Self::new(running.root.as_ref().map_err(Clone::clone)) }
    }

    /// Returns the absolute path that the process means by `path`.
    pub(crate) fn absolute(&self, path: &str) -> Result<String, EvidenceError> {
        self.running.map_or_else(|| Ok(path.to_owned()), |running| running.absolute(path))
    }

    /// Returns the bytes of `path` as the process sees it.
    pub(crate) fn bytes(&self, path: &str) -> Bytes {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(path) {
            return known.clone();
        }
        let read = |root: &Root| root.read(self.absolute(path)?, CAP);
        let result = self.root.clone().and_then(read).map(Arc::from);
        known.insert(path.to_owned(), result.clone());
        result
    }

    /// Returns where `path` is.
    pub(crate) fn origin(&self, path: &str) -> Origin {
        let absolute = self.absolute(path);
        let path = absolute.as_deref().unwrap_or(path);
        self.root.as_ref().map_or_else(|_| Origin::file(path), |root| root.origin(path))
    }
}

/// One configured file and what is in it.
pub(crate) struct Content<T> {
    pub(crate) path: String,
    pub(crate) origin: Origin,
    pub(crate) content: Result<T, EvidenceError>,
    /// Why the process may not read it; `None` when it may, and where that is not asked.
    pub(crate) refusal: Result<Option<String>, EvidenceError>,
}

/// The key material of one side, as the files are now.
pub(crate) struct Files {
    pub(crate) certificate: Option<Content<Vec<Parsed>>>,
    pub(crate) key: Option<Content<PrivateKey>>,
    pub(crate) client_certificate: Option<Content<Vec<Parsed>>>,
    pub(crate) client_key: Option<Content<PrivateKey>>,
    pub(crate) trusted: Option<Content<Vec<Parsed>>>,
    pub(crate) revocations: Option<Content<RevocationList>>,
}

impl Files {
    /// Reads the files that `names` have in `settings`.
    pub(crate) fn read(
        survey: &Survey<'_>,
        reader: &Reader<'_>,
        settings: &BTreeMap<String, Setting>,
        names: &Names,
    ) -> Self {
        let path = |name: &str| settings.get(name).filter(|s| s.set).map(|s| s.value.clone());
        Self::named(survey, reader, names, path)
    }

    /// Reads those of them that hold certificates: to read a key takes as long as many of these.
    pub(crate) fn without_keys(
        survey: &Survey<'_>,
        reader: &Reader<'_>,
        settings: &BTreeMap<String, Setting>,
        names: &Names,
    ) -> Self {
        let names = Names { key: "", client_key: "", revocations: "", ..*names };
        Self::read(survey, reader, settings, &names)
    }

    /// Reads the files whose paths `path` returns by the names in `names`.
    pub(crate) fn named(
        survey: &Survey<'_>,
        reader: &Reader<'_>,
        names: &Names,
        path: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let now = survey.options.now;
        let certificates = |name: &str| {
            path(name).map(|path| {
                let origin = reader.origin(&path);
                let parse = |b: Arc<[u8]>| seaworthy_pki::certificates_from_pem(&b, origin, now);
                let content = reader.bytes(&path).and_then(parse);
                reader.file(path, content)
            })
        };
        let key = |name: &str| {
            path(name).map(|path| {
                let parse = |b: Arc<[u8]>| seaworthy_pki::private_key_from_pem(&b, &path);
                let content = reader.bytes(&path).and_then(parse);
                reader.file(path, content)
            })
        };
        Self {
            certificate: certificates(names.certificate),
            key: key(names.key),
            client_certificate: certificates(names.client_certificate),
            client_key: key(names.client_key),
            trusted: certificates(names.trusted),
            revocations: path(names.revocations).map(|path| {
                let parse = |b: Arc<[u8]>| seaworthy_pki::revocation_list(&b, &path);
                let content = reader.bytes(&path).and_then(parse);
                reader.file(path, content)
            }),
        }
    }

    /// Returns the certificates that are trusted, as far as they could be read.
    pub(crate) fn roots(&self) -> &[Parsed] {
        self.trusted.as_ref().and_then(|t| t.content.as_ref().ok()).map_or(&[], Vec::as_slice)
    }

    /// Returns every certificate in its files, as far as they could be read.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Parsed> {
        let contents = [&self.certificate, &self.client_certificate, &self.trusted].into_iter().flatten();
        contents.filter_map(|file| file.content.as_ref().ok()).flatten()
    }

    /// Returns the leaf certificates that this side presents.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Parsed> {
        let contents = [&self.certificate, &self.client_certificate].into_iter().flatten();
        contents.filter_map(|file| file.content.as_ref().ok()?.first())
    }

    /// Returns the material as evidence.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            chain: self.certificate.as_ref().map(Content::certificates),
            key: self.key.as_ref().map(|key| Observed::from_result(key.content.clone(), key.origin.clone())),
            key_matches: self.key_matches(),
            client_chain: self.client_certificate.as_ref().map(Content::certificates),
            trusted: self.trusted.as_ref().map(Content::certificates),
            revocations: self
                .revocations
                .as_ref()
                .map(|list| Observed::from_result(list.content.clone(), list.origin.clone())),
        }
    }

    /// Returns what is wrong with the material, or why part of it could not be read by us.
    pub(crate) fn problems(
        &self,
        survey: &Survey<'_>,
        side: Side,
        usage: Circumstances<'_>,
    ) -> Observed<Vec<Problem>> {
        let material = Material {
            certificate: self.certificate.as_ref().map(Content::slice),
            key: self.key.as_ref().map(Content::source),
            client_certificate: self.client_certificate.as_ref().map(Content::slice),
            client_key: self.client_key.as_ref().map(Content::source),
            trusted: self.trusted.as_ref().map(Content::slice),
            revocations: self.revocations.as_ref().map(Content::source),
        };
        // What cannot be told of one of the certificates is not told of the other either.
        let restriction = usage.restriction;
        let undecided = self
            .leaves()
            .filter_map(|leaf| restriction?.admits(&leaf.certificate).err())
            .next()
            .filter(|_| side == Side::Peer);
        let restriction = restriction.filter(|_| undecided.is_none());
        let usage = Use {
            side,
            dialled: usage.dialled,
            dials_from: usage.dials_from,
            client_auth: usage.client_auth,
            checks_client_names: usage.checks_client_names,
            allowed: restriction.and_then(|r| Some((r.setting, r.allowed()?))),
            user: usage.user,
        };
        let found = problems(&material, &usage, survey.options.now);
        // A problem that was found is one; that there is no other is known only where everything could be looked at.
        let undecided = undecided.or_else(|| self.unreadable());
        match undecided {
            Some(error) if found.iter().all(|p| p.kind == ProblemKind::Expiring) => Observed::failed(error),
            _ => Observed::seen(found, Origin::derived("the files that the settings name")),
        }
    }

    /// Returns the error of a file that may well be in order, but is not ours to read, or of which it is not known whether the
    /// process may read it.
    fn unreadable(&self) -> Option<EvidenceError> {
        let ours = |error: &&EvidenceError| {
            !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Malformed | ErrorKind::Unsupported)
        };
        let errors = [
            self.certificate.as_ref().and_then(|c| c.unknown(ours)),
            self.key.as_ref().and_then(|c| c.unknown(ours)),
            self.client_certificate.as_ref().and_then(|c| c.unknown(ours)),
            self.client_key.as_ref().and_then(|c| c.unknown(ours)),
            self.trusted.as_ref().and_then(|c| c.unknown(ours)),
            self.revocations.as_ref().and_then(|c| c.unknown(ours)),
        ];
        errors.into_iter().flatten().next().cloned()
    }

    fn key_matches(&self) -> Option<Observed<bool>> {
        let (certificate, key) = (self.certificate.as_ref()?, self.key.as_ref()?);
        let compare = || {
            let leaf = certificate.content.as_ref().map_err(Clone::clone)?.first();
            let key = key.content.as_ref().map_err(Clone::clone)?;
            Ok(leaf.is_some_and(|leaf| leaf.certificate.key.spki == key.key.spki))
        };
        let from = format!("{} and {}", certificate.path, key.path);
        Some(Observed::from_result(compare(), Origin::derived(from)))
    }
}

/// How a side is used, as far as the settings and the membership tell.
pub(crate) struct Circumstances<'a> {
    pub(crate) dialled: &'a [String],
    pub(crate) dials_from: &'a [IpAddr],
    pub(crate) client_auth: bool,
    pub(crate) checks_client_names: bool,
    /// The names that it demands of the other end.
    pub(crate) restriction: Option<&'a Restriction>,
    /// The program that uses it.
    pub(crate) user: User<'a>,
}

impl<T> Content<T> {
    fn source(&self) -> Source<'_, T> {
        self.with(self.content.as_ref())
    }

    fn with<'s, U: ?Sized>(&'s self, content: Result<&'s U, &'s EvidenceError>) -> Source<'s, U> {
        let refusal = self.refusal.as_ref().ok().and_then(Option::as_deref);
        Source { path: &self.path, origin: &self.origin, content, refusal }
    }

    /// Returns the error of what is not known of the file: of its content one that is `ours`.
    fn unknown(&self, ours: impl Fn(&&EvidenceError) -> bool) -> Option<&EvidenceError> {
        self.content.as_ref().err().filter(ours).or(self.refusal.as_ref().err())
    }
}

impl Content<Vec<Parsed>> {
    fn slice(&self) -> Source<'_, [Parsed]> {
        self.with(self.content.as_ref().map(Vec::as_slice))
    }

    fn certificates(&self) -> Observed<Vec<Certificate>> {
        let facts = self.content.as_ref().map(|list| list.iter().map(|p| p.certificate.clone()).collect());
        Observed::from_result(facts.map_err(Clone::clone), self.origin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_below_the_working_directory() {
        let running = Running::ourselves(&[]);
        let reader = Reader::of_process(&running);
        let absolute = std::env::current_dir().unwrap().join("Cargo.toml").to_str().unwrap().to_owned();
        let bytes = reader.bytes("Cargo.toml").unwrap();
        assert_eq!(bytes, reader.bytes(&absolute).unwrap());
        assert_eq!(reader.origin("Cargo.toml"), reader.origin(&absolute));
    }
}
