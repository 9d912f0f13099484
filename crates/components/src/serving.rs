//! What components of Kubernetes have in common that serve metrics and health by the options of k8s.io/apiserver
//! (`SecureServingOptions`, `DelegatingAuthenticationOptions`, `DelegatingAuthorizationOptions`).

use seaworthy_evidence::{Origin, Purpose, Settings, Url};
use seaworthy_settings::Argument;

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

/// Returns whether a component with these `arguments` prints something and exits.
pub fn is_other(arguments: &[Argument]) -> bool {
    arguments.iter().any(|a| {
        let text = String::from_utf8_lossy(&a.text);
        matches!(text.as_ref(), "-h" | "--help" | "--help=true")
            || text.starts_with("--version") && text != "--version=false"
    })
}

/// Returns where a component with these settings listens.
pub fn listens(settings: &Settings) -> Vec<(Url, Origin)> {
    let (Some(address), Some(port)) = (settings.get("bind-address"), settings.get("secure-port")) else {
        return Vec::new();
    };
    if port.value == "0" {
        return Vec::new();
    }
    let host =
        if address.value.contains(':') { format!("[{}]", address.value) } else { address.value.clone() };
    let origin =
        if matches!(address.origin, Origin::Default { .. }) { &port.origin } else { &address.origin };
    Url::parse(&format!("https://{host}:{}", port.value))
        .map(|url| (url, origin.clone()))
        .into_iter()
        .collect()
}
