//! The names that members demand of the certificate at the other end of a connection.

use seaworthy_components::etcd::{Version, settings};
use seaworthy_evidence::{Certificate, ErrorKind, EvidenceError, Settings};
use seaworthy_pki::Allowed;

/// A restriction of names. Which names are admitted depends on the release, which may not be known.
pub(crate) struct Restriction {
    pub(crate) setting: &'static str,
    value: String,
    /// What it may mean, where `None` is no restriction; or why it is not known.
    readings: Result<Vec<Option<Allowed>>, EvidenceError>,
}

impl Restriction {
    /// Returns what `settings` demand of peers; `None` when nothing.
    pub(crate) fn of_peers(settings: &Settings, version: Option<Version>) -> Option<Self> {
        let read = |setting, allowed| Self::read(settings, setting, version, allowed);
        // etcd takes one of the two only.
        read("peer-cert-allowed-cn", Allowed::CommonNames as fn(_) -> _)
            .or_else(|| read("peer-cert-allowed-hostname", Allowed::Hostnames))
    }

    /// Returns what `settings` demand of clients; `None` when nothing.
    pub(crate) fn of_clients(settings: &Settings, version: Option<Version>) -> Option<Self> {
        Self::read(settings, "client-cert-allowed-hostname", version, Allowed::Hostnames)
    }

    fn read(
        settings: &Settings,
        setting: &'static str,
        version: Option<Version>,
        allowed: fn(Vec<String>) -> Allowed,
    ) -> Option<Self> {
        if let Some(error) = settings.why_unknown(setting) {
            return Some(Self { setting, value: String::new(), readings: Err(error.clone()) });
        }
        let readings = settings::allowed_names(settings, setting, version);
        let readings: Vec<_> =
            readings.into_iter().map(|names| (!names.is_empty()).then(|| allowed(names))).collect();
        let value = settings.get(setting).map(|s| s.value.clone()).unwrap_or_default();
        readings.iter().any(Option::is_some).then_some(Self { setting, value, readings: Ok(readings) })
    }

    /// Returns whether it admits `certificate`.
    ///
    /// # Errors
    ///
    /// When the restriction is not known, or what it means depends on the release.
    pub(crate) fn admits(&self, certificate: &Certificate) -> Result<bool, EvidenceError> {
        let readings = self.readings.as_ref().map_err(Clone::clone)?;
        let mut answers =
            readings.iter().map(|reading| reading.as_ref().is_none_or(|r| r.admits(certificate)));
        let first = answers.next().unwrap_or(true);
        if answers.all(|answer| answer == first) {
            return Ok(first);
        }
        let message = format!(
            "whether {} = {} admits {} depends on the release of etcd, which is not known: since 3.5.15 it is a list",
            self.setting, self.value, certificate.subject
        );
        Err(EvidenceError::new(ErrorKind::Unsupported, message))
    }

    /// Returns the names that are admitted, by any of its readings.
    pub(crate) fn allowed(&self) -> Option<&Allowed> {
        self.readings.iter().flatten().flatten().next()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seaworthy_evidence::{Origin, Setting};

    use super::*;

    #[test]
    fn a_comma_is_part_of_the_name_until_it_separates_names() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let der = params.self_signed(&key).unwrap().der().to_vec();
            seaworthy_pki::certificate(&der, Origin::file("/a.crt"), jiff::Timestamp::UNIX_EPOCH).unwrap()
        };
        // The release, the value of the flag, the common name, and whether it is admitted.
        let cases = [
            ("3.5.14", "a", "a", Some(true)),
            ("3.5.14", "a", "b", Some(false)),
            ("3.5.14", "a,b", "b", Some(false)),
            ("3.5.14", "a,b", "a,b", Some(true)),
            ("3.5.15", "a,b", "b", Some(true)),
            ("3.6.0", "a, b", "b", Some(false)),
            ("3.5", "a,b", "b", None),
            ("3.5", "a,b", "c", Some(false)),
            ("3.5", "a", "a", Some(true)),
            ("", "a,b", "b", None),
            ("3.5.14", "", "b", Some(true)),
            ("3.6.0", "", "b", Some(false)),
        ];
        for (version, value, name, want) in cases {
            let setting = Setting {
                set: !value.is_empty(),
                value: value.to_owned(),
                on: None,
                origin: Origin::Argv { pid: 7, index: 1 },
                why: String::new(),
                overridden: Vec::new(),
            };
            let settings = BTreeMap::from([("peer-cert-allowed-cn".to_owned(), setting)]).into();
            let restriction = Restriction::of_peers(&settings, Version::parse(version));
            let got = restriction.map_or(Ok(true), |r| r.admits(&certificate(name)));
            assert_eq!(got.ok(), want, "{version} {value} {name}");
        }
        assert!(Restriction::of_peers(&Settings::default(), None).is_none());

        // A setting that is not known admits nobody for certain, and refuses nobody.
        let mut settings = Settings::default();
        settings.doubt("peer-cert-allowed-cn", EvidenceError::new(ErrorKind::Unsupported, "two readings"));
        let restriction = Restriction::of_peers(&settings, None).unwrap();
        assert_eq!(restriction.admits(&certificate("a")).unwrap_err().message, "two readings");
    }
}
