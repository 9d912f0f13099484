//! Owners and modes of the files of an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seaworthy_components::{Component, Program};
use seaworthy_evidence::{
    Declared, DeclaredKind, ErrorKind, EvidenceError, File, FileAccess, FileKind, InstanceFiles, NamedFile,
    Observed, Origin, PkiContent, PkiFile, PredictedFailure, RivalManifest, Settings,
};
use seaworthy_host::access::{self, Access, Refusal};
use seaworthy_host::users::Account;

use super::material::Reader;
use super::{Kind, Survey, tree};

/// Returns owners and modes of the files that the settings name and of those in the folder that Kubernetes has for `kind`.
/// `data` says where a setting leads that is relative to something else than the working directory.
pub(crate) fn read(
    survey: &Survey<'_>,
    kind: Kind,
    reader: &Reader<'_>,
    settings: Result<&Settings, EvidenceError>,
    data: impl Fn(&str) -> Option<Result<String, EvidenceError>>,
    manifest: Option<Result<&str, EvidenceError>>,
    rivals: impl FnOnce(&str) -> Result<Vec<RivalManifest>, EvidenceError>,
) -> InstanceFiles {
    let program = kind.program;
    let access = settings.clone().and_then(|settings| access(program, reader, settings, data));
    let named =
        |names: &[&'static str]| settings.clone().and_then(|known| named(survey, reader, known, names));
    let authorities: Vec<&str> = program.credentials.iter().map(|files| files.trusted).collect();
    let (kubeconfigs, authorities) = (named(program.kubeconfigs), named(&authorities));
    let config: Vec<&str> = program.config.into_iter().collect();
    let config = named(&config);
    let pki = settings.and_then(|settings| {
        all_named(program, settings)?;
        let named: Vec<&str> = program
            .files
            .iter()
            .filter_map(|name| settings.get(*name).filter(|s| s.set).map(|s| s.value.as_str()))
            .collect();
        pki_files(survey, kind, reader, &named)
    });
    let access = access.map(|access| match &pki {
        Ok(pki) => access.map(|access| with_paths_of_host(survey, reader, pki, access)),
        Err(_) => access,
    });
    let rivals = manifest.clone().map_or(Ok(Vec::new()), |manifest| rivals(manifest?));
    let open_to = manifest.clone().map_or(Ok(String::new()), |manifest| {
        Access::of_account(&Account::default(), survey.root, survey.users).folder_open_to(manifest?)
    });
    InstanceFiles {
        manifest_open_to: Observed::from_result(
            open_to,
            Origin::derived("owners and modes of the folders above it"),
        ),
        rival_manifests: Observed::from_result(rivals, Origin::derived("kubelet's manifest directory")),
        manifest: manifest.map(|path| match path {
            Ok(path) => observed(survey.root.stat(path, survey.users), path),
            Err(error) => Observed::failed(error),
        }),
        pki: Observed::from_result(pki, Origin::derived("the settings and the PKI directory")),
        kubeconfigs: Observed::from_result(kubeconfigs, Origin::derived("the settings")),
        authorities: Some(Observed::from_result(authorities, Origin::derived("the settings"))),
        config: Some(Observed::from_result(config, Origin::derived("the settings"))),
        unit: None,
        access: access.transpose().map(|access| {
            Observed::from_result(access, Origin::derived("the process, the files and the folders"))
        }),
    }
}

/// Returns the files that the settings called `names` name.
fn named(
    survey: &Survey<'_>,
    reader: &Reader<'_>,
    settings: &Settings,
    names: &[&'static str],
) -> Result<Vec<NamedFile>, EvidenceError> {
    if let Some(error) = settings.doubt_about(names.iter().copied()) {
        return Err(error.clone());
    }
    let set = names.iter().filter_map(|name| Some((*name, settings.get(*name)?)));
    set.filter(|(_, setting)| setting.set)
        .map(|(name, setting)| file_of(survey, reader, name, &setting.value))
        .collect()
}

/// Returns the file at `path`, which a `setting` names.
fn file_of(
    survey: &Survey<'_>,
    reader: &Reader<'_>,
    setting: &str,
    path: &str,
) -> Result<NamedFile, EvidenceError> {
    let path = reader.absolute(path)?;
    let replaceable = reader.access().map_or(Ok(String::new()), |access| access.replaceable_by(&path));
    let file = reader.root().and_then(|root| root.stat(&path, survey.users));
    Ok(named_file(setting, &path, file, replaceable))
}

fn named_file(
    setting: &str,
    path: &str,
    file: Result<File, EvidenceError>,
    replaceable: Result<String, EvidenceError>,
) -> NamedFile {
    let origin = Origin::derived(format!("owners and modes on the way to {path}"));
    NamedFile {
        setting: setting.to_owned(),
        file: observed(file, path),
        replaceable_by: Observed::from_result(replaceable, origin),
    }
}

/// Adds to the files in `config` those at the paths in `drop_ins`.
pub(crate) fn add_drop_ins(
    survey: &Survey<'_>,
    reader: &Reader<'_>,
    config: &mut Option<Observed<Vec<NamedFile>>>,
    drop_ins: &[String],
) {
    for path in drop_ins {
        match (file_of(survey, reader, "config-dir", path), config.as_mut()) {
            (Ok(file), Some(Observed::Seen { value, .. })) => value.push(file),
            (Ok(_), _) => {}
            (Err(error), _) => *config = Some(Observed::failed(error)),
        }
    }
}

/// Returns the `files` of the unit of a declaration: the unit itself, and its drop-ins.
pub(crate) fn of_unit(
    survey: &Survey<'_>,
    files: Result<&[String], EvidenceError>,
) -> Option<Observed<Vec<NamedFile>>> {
    let access = Access::of_account(&Account::default(), survey.root, survey.users);
    let file = |(index, path): (usize, &String)| {
        let file = survey.root.stat(path, survey.users);
        named_file(if index == 0 { "unit" } else { "drop-in" }, path, file, access.replaceable_by(path))
    };
    let files = files.map(|files| files.iter().enumerate().map(file).collect());
    Some(Observed::from_result(files, Origin::derived("systemd's units")))
}

/// Returns the error where a setting that names a file is not known: what is said of all of them would leave that file out.
fn all_named(program: &Program, settings: &Settings) -> Result<(), EvidenceError> {
    settings.doubt_about(program.files.iter().copied()).map_or(Ok(()), |error| Err(error.clone()))
}

pub(super) fn observed(file: Result<File, EvidenceError>, what: &str) -> Observed<File> {
    let origin = file.as_ref().map_or_else(|_| Origin::file(what), |file| file.origin.clone());
    Observed::from_result(file, origin)
}

/// Returns the files at the paths in `named`, and those in and below the folders of the component's own key material.
fn pki_files(
    survey: &Survey<'_>,
    kind: Kind,
    reader: &Reader<'_>,
    named: &[&str],
) -> Result<Vec<PkiFile>, EvidenceError> {
    let root = reader.root()?;
    // By path, and whether the process sees something else at that path than the host.
    let mut files: BTreeMap<(String, bool), PkiFile> = BTreeMap::new();
    let mut own: BTreeSet<String> = BTreeSet::new();
    for named in named {
        let path = &reader.absolute(named)?;
        if let Some(folder) = folder_of(path) {
            let stat = root.stat(folder, survey.users);
            add(&mut files, (folder.to_owned(), false), stat, || Ok(PkiContent::Directory))?;
            own.extend(is_of(kind.component, folder).then(|| folder.to_owned()));
        }
        let stat = root.stat(path, survey.users);
        add(&mut files, (path.clone(), false), stat, || holds(reader.bytes(path)))?;
    }
    // The folder of Kubernetes on the host, because a container may see only part of it. Missing means that this is no kubeadm
    // node.
    let folders = kind.program.folder.into_iter().map(|folder| (survey.root, folder, true));
    for (root, folder, host) in folders.chain(own.iter().map(|own| (root, own.as_str(), false))) {
        for path in tree::walk(root, folder)? {
            // The process may see by the same path what the host has, or something else.
            let same = || survey.root.identity(&path).ok() == reader.identity(&path).ok();
            let [key, other] = [(path.clone(), host), (path.clone(), !host)];
            if files.contains_key(&key) || files.contains_key(&other) && same() {
                continue;
            }
            let content = || holds(root.read(&path, 1 << 20).map(Into::into));
            add(&mut files, key.clone(), root.stat(&path, survey.users), content)?;
            // What else is in another folder of the component's is not key material.
            let is_material =
                |file: &PkiFile| matches!(file.holds, PkiContent::Certificate | PkiContent::PrivateKey);
            if !host && !files.get(&key).is_some_and(is_material) {
                files.remove(&key);
            }
        }
    }
    Ok(files.into_values().collect())
}

/// Adds to `access` what the process may do with the files of the host in `pki` that it sees at another path.
fn with_paths_of_host(
    survey: &Survey<'_>,
    reader: &Reader<'_>,
    pki: &[PkiFile],
    mut access: Vec<FileAccess>,
) -> Vec<FileAccess> {
    let of_host = |file: &&PkiFile| matches!(file.file.origin, Origin::File { pid: None, .. });
    let paths = pki.iter().filter(of_host).map(|file| &file.file.path);
    let unknown: Vec<&String> = paths.filter(|path| access.iter().all(|a| a.path != **path)).collect();
    let seen: Vec<_> = match unknown.is_empty() {
        true => return access,
        false => access.iter().map(|a| reader.identity(&a.path).ok()).collect(),
    };
    for path in unknown {
        let identity = survey.root.identity(path).ok();
        let same = seen.iter().position(|seen| seen.is_some() && *seen == identity);
        let same = same.and_then(|at| access.get(at).cloned());
        access.extend(same.map(|same| FileAccess { path: path.clone(), ..same }));
    }
    access
}

/// Returns the folder that `path` is in.
fn folder_of(path: &str) -> Option<&str> {
    Path::new(path).parent().and_then(Path::to_str).filter(|folder| !folder.is_empty())
}

/// Returns whether a folder is one of the component alone, by what it or a folder above it is called. What lies in a folder that
/// others use as well is not its own.
fn is_of(component: &Component, folder: &str) -> bool {
    let own = |name: &str| {
        name.strip_prefix(component.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    folder.split('/').any(own)
}

/// Returns what the process may do with the files that `settings` name, with the folders they are in, and with the directories
/// in which it keeps its data.
fn access(
    program: &Program,
    reader: &Reader<'_>,
    settings: &Settings,
    data: impl Fn(&str) -> Option<Result<String, EvidenceError>>,
) -> Result<Option<Vec<FileAccess>>, EvidenceError> {
    let Some(access) = reader.access() else { return Ok(None) };
    all_named(program, settings)?;
    let mut found: Vec<FileAccess> = Vec::new();
    let mut folders: Vec<FileAccess> = Vec::new();
    for name in program.files {
        let Some(setting) = settings.get(*name).filter(|setting| setting.set) else { continue };
        let path = reader.absolute(&setting.value)?;
        found.extend(access.facts(name, &path, access::READ));
        if let Some(folder) = folder_of(&path).filter(|folder| folders.iter().all(|f| f.path != *folder)) {
            folders.extend(access.facts(name, folder, access::SEARCH));
        }
    }
    found.extend(folders);
    for (name, _, needs) in program.data.iter().filter(|(_, below, _)| below.is_empty()) {
        if let Some(path) = data(name) {
            found.extend(access.facts(name, &path?, *needs));
        }
    }
    Ok(Some(found))
}

/// Returns `declared`, as which the process of `reader` runs with the settings `running`, with the files that it names and that
/// it may not use. The process tells that where its user is the declared one, and what is declared else.
pub(super) fn unusable(
    program: &Program,
    reader: &Reader<'_>,
    declared: Declared,
    running: Option<&Settings>,
) -> Declared {
    let Some(access) = reader.access() else { return declared };
    // A user whose number could not be found is no other one, but it cannot be told whether it is this.
    let is_same = match declared.uid {
        Some(uid) => access.uid() == Some(uid),
        None => declared.files.is_none(),
    };
    if !is_same {
        return declared;
    }
    let value = |settings: Option<&Settings>, name: &str| {
        settings.and_then(|settings| settings.get(name)).map(|setting| setting.value.clone())
    };
    let refuses = |name: &str, path: &str, needs: u32| {
        let same = value(running, name) == value(declared.settings.value(), name);
        // The container that runs has what is mounted into it, which the next one may have not.
        if declared.kind == DeclaredKind::StaticPod && !same && !access.is_kept_out_of_nothing() {
            let message = format!("whether {path} may be used in the next container is not known");
            return Err(EvidenceError::new(ErrorKind::Unsupported, message));
        }
        access.refuses(&reader.absolute(path)?, needs, None)
    };
    let files = denied(program, &declared, refuses);
    Declared { files: Some(files), ..declared }
}

/// Puts into `declared` its user, and the files that it names and that this `account` may not use. What a path in it is on the
/// host is told by `on_host`, with the folder of the host below which alone folders count.
pub(super) fn judge_as(
    survey: &Survey<'_>,
    program: &Program,
    declared: &mut Declared,
    account: Result<Account, EvidenceError>,
    on_host: impl Fn(&str) -> Result<(String, Option<String>), EvidenceError>,
) {
    let account = match account {
        Ok(account) => account,
        Err(error) => {
            declared.files = Some(Observed::failed(error));
            return;
        }
    };
    declared.uid = Some(account.uid);
    let access = Access::of_account(&account, survey.root, survey.users);
    declared.files = Some(denied(program, declared, |_, path, needs| {
        // Nothing keeps root from anything, wherever it is.
        if access.is_kept_out_of_nothing() {
            return Ok(None);
        }
        let (path, below) = on_host(path)?;
        access.refuses(&path, needs, below.as_deref())
    }));
}

/// Returns the files that `declared` names and that are refused to the one who would run it.
fn denied(
    program: &Program,
    declared: &Declared,
    refuses: impl Fn(&str, &str, u32) -> Result<Option<Refusal>, EvidenceError>,
) -> Observed<Vec<PredictedFailure>> {
    let find = || -> Result<Vec<PredictedFailure>, EvidenceError> {
        let mut found = Vec::new();
        let settings = declared.settings.as_result()?;
        let mut unknown = all_named(program, settings).err();
        let named = |name: &'static str| settings.get(name).filter(|s| s.set || name == "data-dir");
        let read = program.files.iter().copied().chain(program.config);
        let read = read.map(|name| (name, "", access::READ));
        for (name, below, needs) in read.chain(program.data.iter().copied()) {
            let Some(setting) = named(name) else { continue };
            match refuses(name, &format!("{}{below}", setting.value), needs) {
                Ok(Some(refusal)) if found.iter().all(|f: &PredictedFailure| f.setting != name) => {
                    found.push(PredictedFailure {
                        setting: name.to_owned(),
                        message: refusal.message,
                        origin: setting.origin.clone(),
                    });
                }
                Ok(_) => {}
                // It makes its data directory; that another file is missing is told with what is in it.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => {
                    unknown.get_or_insert(error);
                }
            }
        }
        match unknown {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    };
    Observed::from_result(
        find(),
        Origin::derived("the declaration, and owners and modes of the files that it names"),
    )
}

/// Adds one file. One that does not exist is not a matter of its mode, and is reported with the key material.
fn add(
    files: &mut BTreeMap<(String, bool), PkiFile>,
    key: (String, bool),
    stat: Result<File, EvidenceError>,
    content: impl FnOnce() -> Result<PkiContent, EvidenceError>,
) -> Result<(), EvidenceError> {
    let file = match stat {
        Ok(file) => file,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let holds = match file.kind {
        FileKind::Directory => PkiContent::Directory,
        FileKind::Regular => content()?,
        FileKind::Other => PkiContent::Other,
    };
    files.insert(key, PkiFile { file, holds });
    Ok(())
}

fn holds(bytes: Result<std::sync::Arc<[u8]>, EvidenceError>) -> Result<PkiContent, EvidenceError> {
    match bytes {
        Ok(bytes) => Ok(seaworthy_pki::content(&bytes)),
        Err(error) if error.kind == ErrorKind::TooLarge => Ok(PkiContent::Other),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::Options;
    use super::super::processes::Running;
    use super::*;
    use seaworthy_host::root::Root;
    use seaworthy_host::users::Users;

    /// Returns what is found below `directory` of the files that settings name, by what it holds.
    fn found(directory: &Path, named: &[&str]) -> Result<Vec<(String, PkiContent)>, EvidenceError> {
        let options = Options {
            root: "/".into(),
            wire: false,
            observe: None,
            timeout: Duration::ZERO,
            layout: None,
            patience: Duration::ZERO,
            now: Timestamp::UNIX_EPOCH,
        };
        let (root, users, running) = (Root::host("/").unwrap(), Users::default(), Running::ourselves(&[]));
        let survey = Survey { options: &options, root: &root, users: &users };
        let named: Vec<String> = named.iter().map(|name| format!("{}/{name}", directory.display())).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let files = pki_files(&survey, Kind::ETCD, &Reader::of_process(&running), &named)?;
        let below = |file: &PkiFile| {
            let path = Path::new(&file.file.path).strip_prefix(directory).ok()?;
            Some((path.to_str()?.to_owned(), file.holds))
        };
        Ok(files.iter().filter_map(below).collect())
    }

    #[test]
    fn keys_below_a_folder_of_etcds_are_found_and_what_else_is_there_is_not_its() {
        let directory = tempfile::tempdir().unwrap();
        let key = include_str!("../../../pki/testdata/p256.sec1.key");
        for folder in ["etcd/old/older", "shared/old"] {
            fs::create_dir_all(directory.path().join(folder)).unwrap();
        }
        for (path, text) in [
            ("etcd/peer.key", key),
            ("etcd/old/older/x", key),
            ("etcd/etcd.conf", "name: m1\n"),
            ("shared/server.key", key),
            ("shared/old/another.key", key),
        ] {
            fs::write(directory.path().join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("..", directory.path().join("etcd/old/loop")).unwrap();
        let key = |path: &str| (path.to_owned(), PkiContent::PrivateKey);
        let folder = |path: &str| (path.to_owned(), PkiContent::Directory);
        assert_eq!(
            found(directory.path(), &["etcd/peer.key", "shared/server.key"]).unwrap(),
            [
                folder("etcd"),
                key("etcd/old/older/x"),
                key("etcd/peer.key"),
                folder("shared"),
                key("shared/server.key"),
            ]
        );
        fs::create_dir_all(directory.path().join("etcd/1/2/3/4/5/6/7/8/9")).unwrap();
        assert_eq!(found(directory.path(), &["etcd/peer.key"]).unwrap_err().kind, ErrorKind::TooLarge);
    }
}
