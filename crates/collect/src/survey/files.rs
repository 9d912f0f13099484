//! Owners and modes of the files of an etcd.

use std::collections::BTreeMap;
use std::path::Path;

use seaworthy_evidence::{
    ErrorKind, EtcdFiles, EvidenceError, File, FileKind, Observed, Origin, PkiContent, PkiFile,
    RivalManifest, Settings,
};

use super::Survey;
use super::material::{CLIENT, PEER, Reader};
use crate::root::Root;

/// The folder in which kubeadm keeps etcd's key material.
const KUBERNETES_ETCD_PKI: &str = "/etc/kubernetes/pki/etcd";
/// Most files of that folder that are looked at.
const MAX_FILES: usize = 1000;

/// Returns owners and modes of the files that the settings name and of those in Kubernetes' folder for etcd.
pub(crate) fn read(
    survey: &Survey<'_>,
    root: Result<&Root, EvidenceError>,
    reader: &Reader<'_>,
    settings: Result<&Settings, EvidenceError>,
    data_directory: Result<String, EvidenceError>,
    manifest: Option<Result<&str, EvidenceError>>,
    rivals: impl FnOnce(&str) -> Result<Vec<RivalManifest>, EvidenceError>,
) -> EtcdFiles {
    let stat = |path: &str| root.clone().and_then(|root| root.stat(path, survey.users));
    let data_directory = data_directory.and_then(|path| stat(&path));
    let pki = settings.and_then(|settings| {
        let named =
            PEER.all().into_iter().chain(CLIENT.all()).chain(["peer-client-key-file", "client-key-file"]);
        let named: Vec<&str> =
            named.filter_map(|name| settings.get(name).filter(|s| s.set).map(|s| s.value.as_str())).collect();
        pki_files(survey, root.clone(), reader, &named)
    });
    let rivals = manifest.clone().map_or(Ok(Vec::new()), |manifest| rivals(manifest?));
    EtcdFiles {
        rival_manifests: Observed::from_result(rivals, Origin::derived("kubelet's manifest directory")),
        manifest: manifest.map(|path| match path {
            Ok(path) => observed(survey.root.stat(path, survey.users), path),
            Err(error) => Observed::failed(error),
        }),
        data_directory: observed(data_directory, "the data directory"),
        pki: Observed::from_result(pki, Origin::derived("the settings and the PKI directory")),
    }
}

fn observed(file: Result<File, EvidenceError>, what: &str) -> Observed<File> {
    let origin = file.as_ref().map_or_else(|_| Origin::file(what), |file| file.origin.clone());
    Observed::from_result(file, origin)
}

fn pki_files(
    survey: &Survey<'_>,
    root: Result<&Root, EvidenceError>,
    reader: &Reader<'_>,
    named: &[&str],
) -> Result<Vec<PkiFile>, EvidenceError> {
    let root = root?;
    let mut files: BTreeMap<String, PkiFile> = BTreeMap::new();
    for named in named {
        let path = &reader.absolute(named)?;
        if let Some(folder) = Path::new(path).parent().and_then(Path::to_str).filter(|f| !f.is_empty()) {
            add(&mut files, folder, root.stat(folder, survey.users), || Ok(PkiContent::Directory))?;
        }
        add(&mut files, path, root.stat(path, survey.users), || holds(reader.bytes(path)))?;
    }
    // On the host, because a container may see only part of it. Missing means that this is no kubeadm node.
    let host = survey.root;
    match host.list(KUBERNETES_ETCD_PKI, MAX_FILES) {
        Ok(names) => {
            let stat = host.stat(KUBERNETES_ETCD_PKI, survey.users);
            add(&mut files, KUBERNETES_ETCD_PKI, stat, || Ok(PkiContent::Directory))?;
            for name in names {
                let path = format!("{KUBERNETES_ETCD_PKI}/{}", name.to_string_lossy());
                if !files.contains_key(&path) {
                    let content = || holds(host.read(&path, 1 << 20).map(Into::into));
                    add(&mut files, &path, host.stat(&path, survey.users), content)?;
                }
            }
        }
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(files.into_values().collect())
}

/// Adds one file. One that does not exist is not a matter of its mode, and is reported with the key material.
fn add(
    files: &mut BTreeMap<String, PkiFile>,
    path: &str,
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
    files.insert(path.to_owned(), PkiFile { file, holds });
    Ok(())
}

fn holds(bytes: Result<std::sync::Arc<[u8]>, EvidenceError>) -> Result<PkiContent, EvidenceError> {
    match bytes {
        Ok(bytes) => Ok(seaworthy_pki::content(&bytes)),
        Err(error) if error.kind == ErrorKind::TooLarge => Ok(PkiContent::Other),
        Err(error) => Err(error),
    }
}
