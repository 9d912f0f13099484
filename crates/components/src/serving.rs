//! What components of Kubernetes have in common that serve metrics and health by the options of k8s.io/apiserver
//! (`SecureServingOptions`, `DelegatingAuthenticationOptions`, `DelegatingAuthorizationOptions`).

use seaworthy_evidence::{
    ErrorKind, EvidenceError, Observed, Origin, PredictedFailure, Purpose, Setting, Settings, Url,
};
use seaworthy_settings::pflag::parse_int;
use seaworthy_settings::{ConfigText, Given, Resolved};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::KeyFiles;

/// The settings that name kubeconfigs: those of the component, and those with which it asks who a caller is and what he may do.
pub const KUBECONFIGS: &[&str] = &["authentication-kubeconfig", "authorization-kubeconfig", "kubeconfig"];

/// The settings that name its key material.
pub const CREDENTIALS: &[KeyFiles] = &[KeyFiles {
    purpose: Purpose::Client,
    certificate: "tls-cert-file",
    key: "tls-private-key-file",
    trusted: "client-ca-file",
}];

/// Returns where a component with these settings listens.
pub fn listens(settings: &Settings) -> Vec<(Url, Origin)> {
    let (Some(address), Some(port)) = (settings.get("bind-address"), settings.get("secure-port")) else {
        return Vec::new();
    };
    let Some(number) = parse_int(&port.value).filter(|number| *number != 0) else { return Vec::new() };
    let address_text = address.value.trim();
    let host = if address_text.contains(':') { format!("[{address_text}]") } else { address_text.to_owned() };
    let origin =
        if matches!(address.origin, Origin::Default { .. }) { &port.origin } else { &address.origin };
    Url::parse(&format!("https://{host}:{number}")).map(|url| (url, origin.clone())).into_iter().collect()
}

/// A file without which a component exits.
#[derive(Debug)]
pub struct Needed {
    /// The setting that names it.
    pub setting: &'static str,
    /// What must be in it.
    pub content: Content,
    /// Whether it is read with these settings.
    pub when: fn(&Settings) -> bool,
    /// What follows the reason: when it exits, where that is not at once.
    pub then: &'static str,
}

/// What a file must hold. Whether it is sound is judged with the key material.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Anything, but something.
    Anything,
    /// Certificates in PEM (`k8s.io/client-go/util/cert.ParseCertsPEM`).
    Certificates,
    /// One certificate in PEM, and no second.
    Certificate,
    /// A private key in PEM (`k8s.io/client-go/util/keyutil.ParsePrivateKeyPEM`).
    Key,
    /// A kubeconfig.
    Kubeconfig,
}

/// The files without which every component exits that serves by these options, as `ApplyTo` of the three reads them, and the kubeconfig
/// with which it talks to the API server (`k8s.io/client-go/tools/clientcmd.BuildConfigFromFlags`); read in 1.35.4 and 1.36.3.
pub const NEEDED: &[Needed] = &[
    Needed { when: |_| true, ..served("kubeconfig", Content::Kubeconfig) },
    served("authentication-kubeconfig", Content::Kubeconfig),
    served("authorization-kubeconfig", Content::Kubeconfig),
    served("client-ca-file", Content::Certificates),
    served("requestheader-client-ca-file", Content::Certificates),
    served("tls-cert-file", Content::Certificates),
    served("tls-private-key-file", Content::Key),
];

const fn served(setting: &'static str, content: Content) -> Needed {
    let when = |settings: &Settings| {
        settings.get("secure-port").is_none_or(|port| parse_int(&port.value) != Some(0))
    };
    Needed { setting, content, when, then: "" }
}

/// Adds to `resolved` the files that are `needed`, and that are missing or hold something else. A process that runs has read its own.
pub fn missing<'a>(
    given: &mut Given<'_>,
    resolved: &mut Resolved,
    needed: impl IntoIterator<Item = &'a Needed>,
) {
    if given.runs || resolved.doubt.is_some() {
        return;
    }
    let Observed::Seen { value: settings, .. } = &resolved.settings else { return };
    for file in needed {
        let setting = settings.get(file.setting).filter(|setting| setting.set && (file.when)(settings));
        let Some(setting) = setting else { continue };
        match lacks(given, setting, file.content) {
            Ok(None) => {}
            Ok(Some(message)) => resolved.fatal.push(PredictedFailure {
                setting: file.setting.to_owned(),
                message: message + file.then,
                origin: setting.origin.clone(),
            }),
            Err(error) => {
                resolved.doubt.get_or_insert(error);
            }
        }
    }
}

/// Returns why a component exits for the file that a `setting` names. Nothing in the file is told.
fn lacks(
    given: &mut Given<'_>,
    setting: &Setting,
    content: Content,
) -> Result<Option<String>, EvidenceError> {
    let path = &setting.value;
    let text = match (given.read)(path) {
        Ok(text) => text,
        Err(error) if error.kind == ErrorKind::NotFound => {
            return Ok(Some(format!("open {path}: no such file or directory")));
        }
        Err(error) => return Err(error),
    };
    // A server that a flag names makes up for what a kubeconfig lacks.
    let has_server = || given.arguments.iter().any(|argument| argument.text.starts_with(b"--master"));
    if matches!(content, Content::Kubeconfig) && has_server() {
        return Ok(None);
    }
    if text.bytes.is_empty() {
        return Ok(Some(format!("{path} is empty")));
    }
    let count =
        |wanted: &str| text.bytes.windows(wanted.len()).filter(|part| *part == wanted.as_bytes()).count();
    let certificates = count("-----BEGIN CERTIFICATE-----");
    let key = ["", "EC ", "RSA "].map(|kind| format!("-----BEGIN {kind}PRIVATE KEY-----"));
    Ok(match content {
        Content::Anything => None,
        Content::Certificates | Content::Certificate if certificates == 0 => {
            Some(format!("{path} does not contain any valid RSA or ECDSA certificates"))
        }
        Content::Certificate if certificates > 1 => {
            Some(format!("{path}: expected 1 certificate, found {certificates}"))
        }
        Content::Certificates | Content::Certificate => None,
        Content::Key => (!key.iter().any(|label| count(label) > 0))
            .then(|| format!("{path} does not contain a valid RSA or ECDSA private key")),
        Content::Kubeconfig if text.bytes.starts_with(b"-----BEGIN ") => {
            Some(format!("{path} is no kubeconfig: it is a file in PEM"))
        }
        Content::Kubeconfig => is_kubeconfig(path, &text)?,
    })
}

/// Returns why the file at `path` is no kubeconfig.
fn is_kubeconfig(path: &str, text: &ConfigText) -> Result<Option<String>, EvidenceError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        clusters: Option<Vec<IgnoredAny>>,
    }
    let unread = || {
        let message = format!("{path} could not be read as a kubeconfig");
        EvidenceError::new(ErrorKind::Malformed, message).at(text.origin.clone())
    };
    let content = std::str::from_utf8(&text.bytes).map_err(|_| unread())?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let file: Option<File> = serde_saphyr::from_str_with_options(content, options).map_err(|_| unread())?;
    let clusters = file.and_then(|file| file.clusters).unwrap_or_default();
    Ok(clusters.is_empty().then(|| {
        format!("{path} names no cluster: invalid configuration: no configuration has been provided")
    }))
}
