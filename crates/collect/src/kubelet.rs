//! Where kubelet looks for static pods.

use seaworthy_evidence::{EvidenceError, Origin, Settings};

/// A directory (or a single file) that kubelet takes static pods from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPodDirectory {
    /// The path as kubelet sees it.
    pub path: String,
    /// Where it is configured.
    pub origin: Origin,
}

/// Returns the directories that the running kubelets with these settings take static pods from, with why that is not known of one of
/// them. Without a running kubelet, and where it is not known of one, the directories of the known layouts are returned too.
pub fn static_pod_directories(
    kubelets: &[Result<Settings, EvidenceError>],
) -> (Vec<StaticPodDirectory>, Vec<EvidenceError>) {
    let mut directories: Vec<StaticPodDirectory> = Vec::new();
    let mut errors = Vec::new();
    for kubelet in kubelets {
        let known =
            kubelet.as_ref().map_err(Clone::clone).and_then(|settings| match settings.why_unknown(SETTING) {
                Some(error) => Err(error.clone()),
                None => Ok(settings.get(SETTING).filter(|setting| setting.set)),
            });
        match known {
            Ok(setting) => directories.extend(setting.map(|setting| StaticPodDirectory {
                path: setting.value.clone(),
                origin: setting.origin.clone(),
            })),
            Err(error) => errors.push(error),
        }
    }
    if kubelets.is_empty() || !errors.is_empty() {
        let default = |path: &str| StaticPodDirectory {
            path: path.to_owned(),
            origin: Origin::Default { component: "kubelet".to_owned(), version: None },
        };
        directories.extend(seaworthy_layouts::static_pods().map(default));
    }
    let mut seen = std::collections::HashSet::new();
    directories.retain(|directory| seen.insert(directory.path.trim_end_matches('/').to_owned()));
    (directories, errors)
}

/// The setting that names the directory.
const SETTING: &str = "pod-manifest-path";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seaworthy_evidence::{ErrorKind, Setting};

    use super::*;

    #[test]
    fn a_directory_that_is_not_known_may_be_any_of_the_defaults() {
        let known = |path: &str| {
            let setting = Setting {
                set: !path.is_empty(),
                value: path.to_owned(),
                on: None,
                origin: Origin::file("/c"),
                why: String::new(),
                overridden: Vec::new(),
            };
            Settings::from(BTreeMap::from([(SETTING.to_owned(), setting)]))
        };
        let error = EvidenceError::new(ErrorKind::Malformed, "/c: no YAML");
        let mut doubted = known("/m");
        doubted.doubt(SETTING, error.clone());
        let defaults = seaworthy_layouts::static_pods().count();
        type Kubelets = Vec<Result<Settings, EvidenceError>>;
        let cases: [(Kubelets, usize, usize); 5] = [
            (vec![Ok(known("/m"))], 1, 0),
            (vec![Ok(known("/m")), Ok(known("/m/"))], 1, 0),
            (vec![Ok(known(""))], 0, 0),
            (vec![Ok(doubted)], defaults, 1),
            (vec![Err(error), Ok(known("/m"))], defaults + 1, 1),
        ];
        for (kubelets, directories, errors) in cases {
            let (got, failed) = static_pod_directories(&kubelets);
            assert_eq!((got.len(), failed.len()), (directories, errors), "{got:?} {failed:?}");
        }
    }

    #[test]
    fn without_a_kubelet_the_defaults_are_looked_at() {
        let (got, errors) = static_pod_directories(&[]);
        let paths = got.iter().map(|d| &*d.path).collect::<Vec<_>>();
        assert_eq!(paths, seaworthy_layouts::static_pods().collect::<Vec<_>>());
        assert_eq!(errors, []);
    }
}
