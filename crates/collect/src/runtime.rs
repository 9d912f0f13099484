//! Container runtimes: where they look for CNI configuration, and who may connect to them.

use std::collections::BTreeSet;

use seaworthy_evidence::{ContainerRuntime, ErrorKind, EvidenceError, Observed, Origin};
use seaworthy_host::access::Access;
use seaworthy_host::root::Root;
use seaworthy_host::users::Account;
use toml_span::Value;

use crate::survey::{Running, Survey};

/// Where CNI configuration is unless somebody says otherwise (containerd, CRI-O).
pub(crate) const CNI: &str = "/etc/cni/net.d";
/// Largest configuration file that is read.
const CAP: usize = 1 << 20;
/// Most configuration files that are read.
const MAX_FILES: usize = 64;

/// How deep brackets may be in each other.
const MAX_DEPTH: usize = 128;

/// How a runtime is configured.
struct Kind {
    name: &'static str,
    config: &'static str,
    /// A folder of files that are read after it.
    drop_ins: Option<&'static str>,
    /// Flags that name the file, the folder for CNI, and the socket.
    flags: [&'static [&'static str]; 3],
    /// Tables, one for each version of the file, with the key of the folder for CNI.
    sections: &'static [&'static [&'static str]],
    folder: &'static str,
    address: &'static [&'static str],
    socket: &'static str,
}

/// `docs/man/containerd-config.toml.5.md` and `docs/cri/config.md` of containerd 1.7 and 2.1: the CRI plug-in has another name in each
/// version of the file.
const CONTAINERD: Kind = Kind {
    name: "containerd",
    config: "/etc/containerd/config.toml",
    drop_ins: None,
    flags: [&["--config", "-c"], &[], &["--address", "-a"]],
    sections: &[
        &["plugins", "io.containerd.cri.v1.runtime", "cni"],
        &["plugins", "io.containerd.grpc.v1.cri", "cni"],
        &["plugins", "cri", "cni"],
    ],
    folder: "conf_dir",
    address: &["grpc", "address"],
    socket: "/run/containerd/containerd.sock",
};

/// `docs/crio.conf.5.md` and `docs/crio.8.md` of CRI-O 1.34.
const CRI_O: Kind = Kind {
    name: "cri-o",
    config: "/etc/crio/crio.conf",
    drop_ins: Some("/etc/crio/crio.conf.d"),
    flags: [&["--config", "-c"], &["--cni-config-dir"], &["--listen"]],
    sections: &[&["crio", "network"]],
    folder: "network_dir",
    address: &["crio", "api", "listen"],
    socket: "/var/run/crio/crio.sock",
};

/// What the files of a runtime say.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// The folders that it may take CNI configuration from. Releases differ on whether a file that has the table without the key takes the
    /// one of the file before back: there are two then.
    folders: BTreeSet<String>,
    socket: Option<String>,
}

/// Returns whether a program of this name is a container runtime.
pub(crate) fn is_called(name: &[u8]) -> bool {
    matches!(name, b"containerd" | b"crio")
}

/// Returns the folders for CNI configuration that a file of containerd (else of CRI-O) says, and the files that it imports.
///
/// # Errors
///
/// When it is no TOML. Nothing in it is told.
pub fn said(containerd: bool, bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), EvidenceError> {
    let mut said = Said::default();
    let imports = said.take(if containerd { &CONTAINERD } else { &CRI_O }, "it", bytes)?;
    Ok((said.folders(), imports))
}

/// Returns the runtime that is `running`.
pub(crate) fn read(survey: &Survey<'_>, running: &Running) -> ContainerRuntime {
    let kind = if running.program_name() == "crio" { &CRI_O } else { &CONTAINERD };
    let root = running.root.as_ref().map_err(Clone::clone);
    let flag = |names: &[&str]| flag(running, names);
    let [config, folder, socket] = kind.flags.map(flag);
    let origin = match &config {
        Some(path) => Origin::process_file(running.pid(), path.clone()),
        None => Origin::process_file(running.pid(), kind.config),
    };
    let said = root.clone().and_then(|root| files(kind, root, config.as_deref()));
    let folders = match folder {
        Some(folder) => Ok(vec![folder]),
        None => said.as_ref().map(Said::folders).map_err(Clone::clone),
    };
    let socket = match socket {
        Some(socket) => Ok(socket),
        None => said.map(|said| said.socket.unwrap_or_else(|| kind.socket.to_owned())),
    };
    let socket = socket.map(|socket| socket.trim_start_matches("unix://").to_owned());
    let open = socket
        .clone()
        .and_then(|socket| Access::of_account(&Account::default(), root?, survey.users).open_to(&socket));
    ContainerRuntime {
        name: kind.name.to_owned(),
        pid: running.pid(),
        cni_folders: Observed::from_result(folders, origin.clone()),
        socket_open_to: Observed::from_result(
            open,
            Origin::derived("owners and modes on the way to its socket"),
        ),
        socket: Observed::from_result(socket, origin),
    }
}

/// Returns the value of the last of these flags.
fn flag(running: &Running, names: &[&str]) -> Option<String> {
    let words: Vec<_> = running.arguments().iter().map(|a| String::from_utf8_lossy(&a.text)).collect();
    let value = |at: usize, word: &str| match word.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
        None if names.contains(&word) => words.get(at + 1).map(|next| next.clone().into_owned()),
        _ => None,
    };
    words.iter().enumerate().filter_map(|(at, word)| value(at, word)).next_back()
}

/// Returns what the files of a runtime say. One that no flag names need not be there.
fn files(kind: &Kind, root: &Root, named: Option<&str>) -> Result<Said, EvidenceError> {
    let mut said = Said::default();
    let mut waiting = vec![named.unwrap_or(kind.config).to_owned()];
    if let Some(folder) = kind.drop_ins {
        match root.list(folder, MAX_FILES) {
            Ok(names) => {
                waiting.extend(names.iter().map(|name| format!("{folder}/{}", name.to_string_lossy())));
            }
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut read: BTreeSet<String> = BTreeSet::new();
    let mut at = 0;
    while let Some(path) = waiting.get(at).cloned() {
        at += 1;
        if !read.insert(path.clone()) {
            continue;
        }
        let bytes = match root.read(&path, CAP) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == ErrorKind::NotFound && named.is_none() => continue,
            Err(error) => return Err(error),
        };
        for pattern in said.take(kind, &path, &bytes)? {
            waiting.extend(matching(root, &path, &pattern)?);
        }
        if waiting.len() > MAX_FILES {
            let message = format!("{path} imports more than {MAX_FILES} files");
            return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(root.origin(&path)));
        }
    }
    Ok(said)
}

impl Said {
    /// Returns the folders that it takes CNI configuration from.
    fn folders(&self) -> Vec<String> {
        match self.folders.is_empty() {
            true => vec![CNI.to_owned()],
            false => self.folders.iter().cloned().collect(),
        }
    }

    /// Takes in what one file says, and returns the files that it imports. Nothing in the file is told by an error.
    fn take(&mut self, kind: &Kind, path: &str, bytes: &[u8]) -> Result<Vec<String>, EvidenceError> {
        let malformed = || EvidenceError::new(ErrorKind::Malformed, format!("{path} is no proper TOML"));
        let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
        // The parser calls itself for each bracket inside another.
        if depth(bytes) > MAX_DEPTH {
            return Err(malformed());
        }
        let file = toml_span::parse(text).map_err(|_| malformed())?;
        for section in kind.sections.iter().filter_map(|section| within(&file, section)) {
            match within(section, &[kind.folder]).and_then(Value::as_str).filter(|folder| !folder.is_empty())
            {
                Some(folder) => self.folders = BTreeSet::from([folder.trim_end_matches('/').to_owned()]),
                None if !self.folders.is_empty() && kind.drop_ins.is_none() => {
                    self.folders.insert(CNI.to_owned());
                }
                None => {}
            }
        }
        if let Some(socket) = within(&file, kind.address).and_then(Value::as_str).filter(|s| !s.is_empty()) {
            self.socket = Some(socket.to_owned());
        }
        let imports = within(&file, &["imports"]).and_then(Value::as_array);
        Ok(imports.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// Returns how many brackets are open at once, as if there were none in strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut open, mut most) = (0usize, 0usize);
    for byte in bytes {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Returns what is below these keys.
fn within<'v, 'de>(value: &'v Value<'de>, keys: &[&str]) -> Option<&'v Value<'de>> {
    keys.iter().try_fold(value, |value, key| value.as_table()?.get(*key))
}

/// Returns the files that `pattern` means in the file at `path`: in its last part a `*` stands for anything.
fn matching(root: &Root, path: &str, pattern: &str) -> Result<Vec<String>, EvidenceError> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{folder}/{pattern}") };
    let Some((folder, name)) = pattern.rsplit_once('/').filter(|(_, name)| name.contains('*')) else {
        return Ok(vec![pattern]);
    };
    let (before, after) = name.split_once('*').unwrap_or((name, ""));
    let names = match root.list(folder, MAX_FILES) {
        Ok(names) => names,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = names.iter().map(|name| name.to_string_lossy());
    let fits = |name: &str| {
        name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some()
            && !name.starts_with('.')
    };
    Ok(names.filter(|name| fits(name)).map(|name| format!("{folder}/{name}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns what files below a root, each with its text, say of a runtime.
    fn said(kind: &Kind, texts: &[(&str, &str)], named: Option<&str>) -> Result<Said, EvidenceError> {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in texts {
            let path = directory.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        files(kind, &Root::host(directory.path()).unwrap(), named)
    }

    #[test]
    fn each_version_of_containerds_file_has_its_folder_elsewhere() {
        let main = "/etc/containerd/config.toml";
        let one = "[plugins.cri.cni]\nconf_dir = '/one'";
        let two = "version = 2\nimports = ['conf.d/*.toml']\n[grpc]\naddress = '/run/c.sock'\n\
            [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/two/\"";
        let three = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = '/three'";
        let without = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/opt'";
        let drop_in = "/etc/containerd/conf.d/a.toml";
        type Case<'c> = (&'c [(&'c str, &'c str)], &'c [&'c str], Option<&'c str>);
        let cases: [Case<'_>; 6] = [
            (&[], &[CNI], None),
            (&[(main, one)], &["/one"], None),
            (&[(main, two), ("/etc/containerd/conf.d/.x.toml", three)], &["/two"], Some("/run/c.sock")),
            (&[(main, two), (drop_in, three)], &["/three"], Some("/run/c.sock")),
            (&[(main, two), (drop_in, without)], &[CNI, "/two"], Some("/run/c.sock")),
            (&[(main, "imports = ['/etc/containerd/*.toml']")], &[CNI], None),
        ];
        for (texts, folders, socket) in cases {
            let said = said(&CONTAINERD, texts, None).unwrap();
            assert_eq!(said.folders(), folders);
            assert_eq!(said.socket.as_deref(), socket);
        }
    }

    #[test]
    fn the_last_drop_in_of_cri_o_wins_and_one_without_the_key_changes_nothing() {
        let (a, b) = ("/etc/crio/crio.conf.d/10-a.conf", "/etc/crio/crio.conf.d/20-b.conf");
        let set =
            |folder: &str| format!("[crio.network]\nnetwork_dir = '{folder}'\n[crio.api]\nlisten = '/l'");
        let texts = [("/etc/crio/crio.conf", &*set("/x")), (b, "[crio.network]\n"), (a, &set("/y"))];
        let said = said(&CRI_O, &texts, None).unwrap();
        assert_eq!((said.folders(), said.socket.as_deref()), (vec!["/y".to_owned()], Some("/l")));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_without_its_content() {
        let main = "/etc/containerd/config.toml";
        let deep = format!("a = {}", "[".repeat(100_000));
        let many: String = (0..100).map(|n| format!("'/x{n}', ")).collect();
        let huge = "#".repeat(CAP + 1);
        for (text, kind) in [
            ("password = canary canary", ErrorKind::Malformed),
            (&deep, ErrorKind::Malformed),
            (&huge, ErrorKind::TooLarge),
            (&format!("imports = [{many}]"), ErrorKind::TooLarge),
        ] {
            let error = said(&CONTAINERD, &[(main, text)], None).unwrap_err();
            assert!(error.kind == kind && !error.message.contains("canary"), "{error:?}");
        }
        assert_eq!(said(&CONTAINERD, &[], Some("/gone.toml")).unwrap_err().kind, ErrorKind::NotFound);
    }
}
