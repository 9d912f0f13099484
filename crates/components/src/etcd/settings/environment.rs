//! Environment variables that look like etcd's and that it does not know.
//!
//! etcd says no more of them than a warning in its log, also of two that its own documentation names
//! (`ETCD_CA_FILE`, `ETCD_PEER_CA_FILE`).

use seaworthy_evidence::IgnoredKey;
use seaworthy_settings::Variable;

use super::config_file::{MAX_IGNORED, about_security, suggest};
use super::flags::shown;
use super::{names, variable_name};
use crate::etcd::Version;

/// Returns the `ETCD_*` variables that etcd `version` does not know, by name: what they hold is not looked
/// at. `file` is the configuration file that is in use, if one is.
pub(super) fn ignored(
    variables: &[Variable],
    version: Option<Version>,
    file: Option<&str>,
) -> Vec<IgnoredKey> {
    let ignored = variables.iter().filter_map(|variable| {
        let name = variable.name.as_str();
        let flag = name.strip_prefix("ETCD_")?.to_ascii_lowercase().replace('_', "-");
        let known = variable_name(&flag) == name && names::defines_flag(&flag, version);
        if known || !is_meant_for_etcd(name) {
            return None;
        }
        let suggestion = match suggest(None, &flag, version) {
            (_, meant) if meant.len() == 1 => meant.first().map(|flag| (*flag).to_owned()),
            (place, meant) => place.filter(|_| meant.is_empty()),
        };
        let suggestion = suggestion.filter(|flag| names::defines_flag(flag, version));
        let suggestion = suggestion.map(|flag| variable_name(&flag)).filter(|meant| meant != name);
        let reason = match file {
            None => format!("{} does not know it", Version::name(version)),
            Some(file) => format!(
                "{} does not know it, and ignores its whole environment because the configuration file {file} is \
                 in use",
                Version::name(version)
            ),
        };
        Some(IgnoredKey {
            key: shown(name),
            reason,
            about_security: about_security(&flag) || suggestion.as_deref().is_some_and(about_security),
            suggestion,
            origin: variable.origin.clone(),
        })
    });
    ignored.take(MAX_IGNORED).collect()
}

/// Returns whether somebody who set `name` may have meant to set something of etcd with it. Images tell their
/// version, etcd has a variable for unsupported platforms that is no flag, and Kubernetes gives each pod the
/// addresses of its services, one of which may be called etcd.
fn is_meant_for_etcd(name: &str) -> bool {
    let of_service = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part));
    !matches!(name, "ETCD_UNSUPPORTED_ARCH" | "ETCD_VERSION") && !of_service && !name.ends_with("_PORT")
}
