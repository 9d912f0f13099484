//! What components of Kubernetes have in common that serve metrics and health by the options of k8s.io/apiserver
//! (`SecureServingOptions`, `DelegatingAuthenticationOptions`, `DelegatingAuthorizationOptions`).

use seaworthy_evidence::{Origin, Purpose, Settings, Url};

use seaworthy_settings::pflag::parse_int;

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
