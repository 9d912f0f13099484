//! Where kubelet looks for static pods.

use seaworthy_evidence::{EvidenceError, Origin};
use seaworthy_host::root::Root;
use seaworthy_settings::Argument;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::yaml;

/// A running kubelet.
#[derive(Clone, Copy, Debug)]
pub struct Kubelet<'a> {
    /// Its arguments.
    pub argv: &'a [Argument],
    /// The root in which it sees its files.
    pub root: &'a Root,
}

/// A directory (or a single file) that kubelet takes static pods from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPodDirectory {
    /// The path as kubelet sees it.
    pub path: String,
    /// Where it is configured.
    pub origin: Origin,
}

/// Returns the directories that the running `kubelets` take static pods from, with what could not be read of
/// their configuration.
///
/// In kubelet the flag `--pod-manifest-path` wins over `staticPodPath` in the files of `--config-dir`, of
/// which the last by name wins, and that over `--config`. Without a running kubelet, and when one's
/// configuration cannot be read, the directories of the known layouts are returned too.
pub fn static_pod_directories(kubelets: &[Kubelet<'_>]) -> (Vec<StaticPodDirectory>, Vec<EvidenceError>) {
    let mut directories: Vec<StaticPodDirectory> = Vec::new();
    let mut errors = Vec::new();
    for kubelet in kubelets {
        directories.extend(kubelet.static_pod_directory(&mut errors));
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

impl Kubelet<'_> {
    /// Returns the name that it gives the node, if it is told one.
    pub fn node_name(&self) -> Option<String> {
        self.flag("hostname-override").map(|(name, _)| name).filter(|name| !name.is_empty())
    }

    fn static_pod_directory(&self, errors: &mut Vec<EvidenceError>) -> Option<StaticPodDirectory> {
        if let Some((path, origin)) = self.flag("pod-manifest-path") {
            return (!path.is_empty()).then(|| StaticPodDirectory { path, origin: origin.clone() });
        }
        let mut files = Vec::new();
        if let Some((directory, _)) = self.flag("config-dir").filter(|(path, _)| !path.is_empty()) {
            match self.root.list(&directory, 4096) {
                Ok(names) => {
                    let names = names.iter().rev().map(|name| name.to_string_lossy());
                    let drop_ins = names.filter(|name| name.ends_with(".conf"));
                    files.extend(drop_ins.map(|name| format!("{}/{name}", directory.trim_end_matches('/'))));
                }
                Err(error) => errors.push(error),
            }
        }
        files.extend(self.flag("config").map(|(path, _)| path).filter(|path| !path.is_empty()));
        for file in files {
            match self.static_pod_path(&file) {
                Ok(None) => {}
                Ok(directory) => return directory.filter(|directory| !directory.path.is_empty()),
                Err(error) => errors.push(error),
            }
        }
        None
    }

    fn static_pod_path(&self, file: &str) -> Result<Option<StaticPodDirectory>, EvidenceError> {
        #[derive(Deserialize)]
        struct Configuration {
            #[serde(rename = "staticPodPath")]
            static_pod_path: Option<Spanned<String>>,
        }
        let origin = self.root.origin(file);
        let first =
            yaml::documents::<Configuration>(&self.root.read(file, yaml::CAP)?, &origin).into_iter().next();
        let path = first.transpose()?.and_then(|configuration| configuration.static_pod_path);
        Ok(path.map(|path| StaticPodDirectory { origin: yaml::place(&origin, &path), path: path.value }))
    }

    /// Returns the value of the last `--name=value` or `--name value`, and where it is given.
    fn flag(&self, name: &str) -> Option<(String, &Origin)> {
        let flag = |(index, argument): (usize, &'_ Argument)| {
            let rest = argument.text.strip_prefix(b"--")?.strip_prefix(name.as_bytes())?;
            let (value, argument) = match rest.split_first() {
                None => (None, self.argv.get(index + 1)?),
                Some((b'=', value)) => {
                    (Some(String::from_utf8_lossy(value).into_owned()), self.argv.get(index)?)
                }
                Some(_) => return None,
            };
            let value = value.unwrap_or_else(|| String::from_utf8_lossy(&argument.text).into_owned());
            Some((value, &argument.origin))
        };
        self.argv.iter().enumerate().skip(1).filter_map(flag).next_back()
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::ErrorKind;

    use super::*;

    fn argv(arguments: &str) -> Vec<Argument> {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.into(),
            origin: Origin::Argv { pid: 7, index },
        };
        (0..).zip(["kubelet"].into_iter().chain(arguments.split(' '))).map(argument).collect()
    }

    #[test]
    fn the_flag_wins_over_drop_ins_and_those_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write(
            "config.yaml",
            "kind: KubeletConfiguration\nauthentication: {x509: {}}\nstaticPodPath: /from/file\n",
        );
        write("config.json", "{\"staticPodPath\": \"/from/json/\"}");
        write("empty.yaml", "");
        write("bad.yaml", "a: b\n  c: [");
        write("d/10.conf", "staticPodPath: /from/10\n");
        write("d/20.conf", "staticPodPath: /from/20\n");
        write("d/30.conf", "podsPerCore: 1\n");
        write("d/40.yaml", "staticPodPath: /not/a/drop-in\n");
        let root = Root::host(directory.path()).unwrap();
        let file = |path: &str, line, column| Origin::file(path).at(line, column);
        let at = |index| Origin::Argv { pid: 7, index };
        let cases: &[(&str, Option<(&str, Origin)>)] = &[
            ("--config=/config.yaml", Some(("/from/file", file("/config.yaml", 3, 16)))),
            ("--config /config.json", Some(("/from/json/", file("/config.json", 1, 19)))),
            (
                "--config /config.json --config=/config.yaml",
                Some(("/from/file", file("/config.yaml", 3, 16))),
            ),
            ("--config=/config.yaml --config-dir=/d/", Some(("/from/20", file("/d/20.conf", 1, 16)))),
            ("--config=/config.yaml --pod-manifest-path=/flag", Some(("/flag", at(2)))),
            ("--pod-manifest-path /flag --v=2", Some(("/flag", at(2)))),
            ("--config=/empty.yaml", None),
            ("--configuration=/config.yaml", None),
            ("--v=2", None),
        ];
        for (arguments, want) in cases {
            let (got, errors) = static_pod_directories(&[Kubelet { argv: &argv(arguments), root: &root }]);
            assert_eq!(errors, [], "{arguments}");
            let want =
                want.clone().map(|(path, origin)| StaticPodDirectory { path: path.to_owned(), origin });
            assert_eq!(got, Vec::from_iter(want), "{arguments}");
        }

        for (config, kind) in [("/bad.yaml", ErrorKind::Malformed), ("/none", ErrorKind::NotFound)] {
            let argv = argv(&format!("--config {config}"));
            let (got, errors) = static_pod_directories(&[Kubelet { argv: &argv, root: &root }]);
            assert_eq!((got.len(), errors.len()), (2, 1));
            assert_eq!(errors[0].kind, kind, "{errors:?}");
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
