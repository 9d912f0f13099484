//! Kubeconfigs: who they make somebody who has them. Programs that they name are not run, and no token and no key is kept.

use std::path::Path;

use jiff::Timestamp;
use seaworthy_evidence::{
    CredentialKind, ErrorKind, EvidenceError, KubeconfigUser, Observed, Origin, PrivateKey, Problem,
    ProblemKind,
};
use seaworthy_pki::{Beside, Parsed, Purpose, misuse, organizations};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::yaml;

/// The part of a kubeconfig that is looked at (`k8s.io/client-go/tools/clientcmd/api/v1`).
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    #[serde(default)]
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    certificate_authority: Option<String>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    client_certificate: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    token: Option<IgnoredAny>,
    #[serde(default, rename = "tokenFile")]
    token_file: Option<IgnoredAny>,
    #[serde(default)]
    password: Option<IgnoredAny>,
    #[serde(default)]
    exec: Option<IgnoredAny>,
    #[serde(default)]
    auth_provider: Option<IgnoredAny>,
}

/// What is in a kubeconfig.
#[derive(Debug)]
pub struct Read {
    /// The identities.
    pub users: Vec<KubeconfigUser>,
    /// The CAs by which it knows API servers.
    pub authorities: Result<Vec<Parsed>, EvidenceError>,
    /// The files that it names, as absolute paths.
    pub named: Vec<String>,
}

/// Returns what is in the kubeconfig `bytes` at `path`. Files that it names are had by `read`; those by whose certificates its users are
/// known are among `authorities`, as far as these are known.
///
/// # Errors
///
/// When it is no kubeconfig. Nothing in the file is told.
pub fn parse(
    path: &str,
    bytes: &[u8],
    origin: &Origin,
    read: impl Fn(&str) -> Result<Vec<u8>, EvidenceError>,
    authorities: &[Parsed],
    now: Timestamp,
) -> Result<Read, EvidenceError> {
    let unread = || {
        let message = format!("{path} could not be read as a kubeconfig");
        EvidenceError::new(ErrorKind::Malformed, message).at(origin.clone())
    };
    let document = yaml::documents::<File>(bytes, origin).into_iter().next();
    let file = document.ok_or_else(unread)?.map_err(|_| unread())?;
    let mut named = Vec::new();
    let mut content = |data: Option<String>, file: Option<String>| -> Option<(String, Result<Vec<u8>, _>)> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let message = format!("{path}: what is embedded in it is not proper base64");
            let error = EvidenceError::new(ErrorKind::Malformed, message).at(origin.clone());
            let bytes = seaworthy_pki::base64(data.as_bytes()).map(|bytes| bytes.to_vec());
            return Some((path.to_owned(), bytes.ok_or(error)));
        }
        let file = beside(path, &file.filter(|file| !file.is_empty())?);
        let bytes = read(&file);
        named.push(file.clone());
        Some((file, bytes))
    };
    let certificates = |(at, bytes): (String, Result<Vec<u8>, EvidenceError>)| {
        let here = if at == path { origin.clone() } else { Origin::file(&*at) };
        (at, bytes.and_then(|bytes| seaworthy_pki::certificates_from_pem(&bytes, here, now)))
    };
    let mut users = Vec::new();
    for NamedUser { name, user } in file.users.unwrap_or_default() {
        let Some(user) = user else { continue };
        let chain = content(user.client_certificate_data, user.client_certificate).map(certificates);
        let key = content(user.client_key_data, user.client_key);
        let key = key.map(|(at, bytes)| {
            let key = bytes.and_then(|bytes| seaworthy_pki::private_key_from_pem(&bytes, &at));
            (at, key)
        });
        let given = [
            (CredentialKind::ClientCertificate, chain.is_some()),
            (CredentialKind::Token, user.token.is_some()),
            (CredentialKind::TokenFile, user.token_file.is_some()),
            (CredentialKind::Exec, user.exec.is_some()),
            (CredentialKind::Password, user.password.is_some()),
            (CredentialKind::AuthProvider, user.auth_provider.is_some()),
        ];
        let leaf = chain.as_ref().and_then(|(_, chain)| chain.as_ref().ok()?.first());
        users.push(KubeconfigUser {
            name: name.unwrap_or_default(),
            credentials: given.into_iter().filter(|(_, given)| *given).map(|(kind, _)| kind).collect(),
            groups: leaf.map(organizations).unwrap_or_default(),
            problems: problems(path, chain.as_ref(), key.as_ref(), authorities, now),
            certificate: chain.map(|(_, chain)| Observed::from_result(facts(chain), origin.clone())),
        });
    }
    let mut trusted = Ok(Vec::new());
    for cluster in file.clusters.unwrap_or_default().into_iter().filter_map(|named| named.cluster) {
        let authority = content(cluster.certificate_authority_data, cluster.certificate_authority);
        match (authority.map(certificates), &mut trusted) {
            (Some((_, Ok(list))), Ok(all)) => all.extend(list),
            (Some((_, Err(error))), Ok(_)) => trusted = Err(error),
            _ => {}
        }
    }
    Ok(Read { users, authorities: trusted, named })
}

/// Returns what is wrong with certificate and key of a user.
fn problems(
    path: &str,
    chain: Option<&(String, Result<Vec<Parsed>, EvidenceError>)>,
    key: Option<&(String, Result<PrivateKey, EvidenceError>)>,
    authorities: &[Parsed],
    now: Timestamp,
) -> Observed<Vec<Problem>> {
    let origin = Origin::derived(format!("{path} and the files that it names"));
    let mut found = Vec::new();
    let errors = chain.and_then(|(at, chain)| Some((at, chain.as_ref().err()?)));
    for (at, error) in errors.into_iter().chain(key.and_then(|(at, key)| Some((at, key.as_ref().err()?)))) {
        let kind = match error.kind {
            ErrorKind::NotFound => ProblemKind::Missing,
            ErrorKind::Malformed => ProblemKind::Malformed,
            _ => return Observed::failed(error.clone()),
        };
        let message = match error.message.contains(path) {
            true => error.message.clone(),
            false => format!("{path} names {error}"),
        };
        let origin = error.origin.clone().unwrap_or_else(|| Origin::file(&**at));
        found.push(Problem { kind, breaks: true, path: at.clone(), message, origin });
    }
    if let Some((at, Ok(chain))) = chain {
        let beside = Beside { key: key.and_then(|(_, key)| key.as_ref().ok()), authorities };
        found.extend(misuse(at, chain, Purpose { dials: true, ..Purpose::default() }, beside, now));
    }
    Observed::seen(found, origin)
}

/// Returns the facts about certificates.
pub(crate) fn facts(
    parsed: Result<Vec<Parsed>, EvidenceError>,
) -> Result<Vec<seaworthy_evidence::Certificate>, EvidenceError> {
    Ok(parsed?.into_iter().map(|parsed| parsed.certificate).collect())
}

/// Returns the path that a kubeconfig at `path` means by `file`: what is relative is beside it.
fn beside(path: &str, file: &str) -> String {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    folder.join(file).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    use super::*;

    const PATH: &str = "/etc/kubernetes/admin.conf";

    fn now() -> Timestamp {
        "2027-06-01T12:00:00Z".parse().unwrap()
    }

    fn encoded(text: &str) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = text.as_bytes().chunks(3).flat_map(|bytes| {
            let group = (0..3).fold(0, |sum, at| sum << 8 | usize::from(bytes.get(at).copied().unwrap_or(0)));
            let digit = move |at: usize| match at <= bytes.len() {
                true => char::from(DIGITS[group >> (18 - 6 * at) & 63]),
                false => '=',
            };
            (0..4).map(digit)
        });
        digits.collect()
    }

    /// Returns the PEM of a CA, and of a client certificate of a group with its key.
    fn made(group: &str) -> [String; 3] {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&key).unwrap().pem();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "jo");
        leaf.distinguished_name.push(DnType::OrganizationName, group);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let own = KeyPair::generate().unwrap();
        [root, leaf.signed_by(&own, &Issuer::new(ca, key)).unwrap().pem(), own.serialize_pem()]
    }

    fn read(text: &str, files: &[(&str, &str)]) -> Result<Read, EvidenceError> {
        let file = |path: &str| match files.iter().find(|(name, _)| *name == path) {
            Some((_, text)) => Ok(text.as_bytes().to_vec()),
            None => Err(EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file"))),
        };
        parse(PATH, text.as_bytes(), &Origin::file(PATH), file, &[], now())
    }

    #[test]
    fn who_somebody_is_with_a_kubeconfig_is_told_and_by_what() {
        let [ca, leaf, key] = made("system:masters");
        let (ca_data, leaf_data, key_data) = (encoded(&ca), encoded(&leaf), encoded(&key));
        let text = format!(
            "clusters: [{{name: c, cluster: {{certificate-authority-data: {ca_data}}}}}]\nusers:\n\
             - {{name: embedded, user: {{client-certificate-data: {leaf_data}, client-key-data: {key_data}}}}}\n\
             - {{name: beside, user: {{client-certificate: pki/jo.crt, client-key: /srv/jo.key}}}}\n\
             - {{name: other, user: {{token: canary, tokenFile: /t, password: canary, exec: {{command: canary}}, auth-provider: {{}}}}}}\n"
        );
        let files = [("/etc/kubernetes/pki/jo.crt", &*leaf), ("/srv/jo.key", &*made("x")[2])];
        let found = read(&text, &files).unwrap();
        let [embedded, beside, other] = &found.users[..] else { panic!("{:?}", found.users) };
        assert_eq!(
            (&embedded.groups[..], &embedded.credentials[..]),
            (&["system:masters".to_owned()][..], &[CredentialKind::ClientCertificate][..])
        );
        assert_eq!(embedded.problems.value().unwrap(), &[]);
        let problems: Vec<_> = beside.problems.value().unwrap().iter().map(|p| p.kind).collect();
        assert_eq!(problems, [ProblemKind::KeyMismatch]);
        use CredentialKind::{AuthProvider, Exec, Password, Token, TokenFile};
        assert_eq!(other.credentials, [Token, TokenFile, Exec, Password, AuthProvider]);
        assert!(other.certificate.is_none() && other.groups.is_empty());
        assert_eq!(found.named, ["/etc/kubernetes/pki/jo.crt", "/srv/jo.key"]);
        assert_eq!(found.authorities.unwrap().len(), 1);
        let printed = format!("{:?}", found.users);
        let body: String = key.lines().nth(1).unwrap().chars().take(20).collect();
        assert!(!printed.contains("canary") && !printed.contains(&body), "{printed}");
    }

    #[test]
    fn what_is_no_kubeconfig_is_an_error_that_tells_nothing_of_it() {
        let bomb = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nusers: [*b, *b]\n";
        let key = made("x")[2].clone();
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "users: canary",
            "users: [{name: a, user: canary}]",
            "\u{0}canary",
            bomb,
            &key,
            &deep,
            "[canary",
        ] {
            let error = read(text, &[]).map(|read| read.users).unwrap_err();
            assert_eq!(error.message, format!("{PATH} could not be read as a kubeconfig"), "{text}");
        }
        assert!(read("{}", &[]).unwrap().users.is_empty());
        assert!(parse(PATH, &[0xff, 0xfe], &Origin::file(PATH), |_| Ok(Vec::new()), &[], now()).is_err());
    }

    #[test]
    fn a_damaged_certificate_or_a_file_that_is_gone_is_a_problem() {
        for (user, want) in [
            ("client-certificate-data: canary!", ProblemKind::Malformed),
            ("client-certificate-data: Y2FuYXJ5", ProblemKind::Malformed),
            ("client-certificate: /gone.crt", ProblemKind::Missing),
            ("client-key-data: Y2FuYXJ5", ProblemKind::Malformed),
        ] {
            let found = read(&format!("users: [{{name: jo, user: {{{user}}}}}]"), &[]).unwrap();
            let problems = found.users[0].problems.value().unwrap();
            assert_eq!(problems[0].kind, want, "{user}");
            assert!(problems[0].breaks && !problems[0].message.contains("canary"), "{problems:?}");
        }
        // What we may not read is not known to be wrong.
        let denied = |path: &str| Err(EvidenceError::new(ErrorKind::PermissionDenied, path));
        let text = b"users: [{name: jo, user: {client-certificate: /closed.crt}}]";
        let found = parse(PATH, text, &Origin::file(PATH), denied, &[], now()).unwrap();
        assert_eq!(found.users[0].problems.error().map(|e| e.kind), Some(ErrorKind::PermissionDenied));
    }
}
