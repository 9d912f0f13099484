//! What the pods on a node are called, as kubelet's folders of logs tell it without the API server.

use seaworthy_evidence::{ErrorKind, EvidenceError};
use seaworthy_host::cgroup::same_uid;
use seaworthy_host::root::Root;

/// Where kubelet keeps the logs of each pod, in a folder `NAMESPACE_NAME_UID`.
const PODS: &str = "/var/log/pods";
/// Where kubelet keeps a link to the log of each container, `NAME_NAMESPACE_CONTAINER-ID.log`.
const CONTAINERS: &str = "/var/log/containers";
/// Most names of each of the two that are looked at.
const NAMES_CAP: usize = 1 << 14;

/// A pod that runs on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    /// Its whole name: that of a static pod ends in the node's.
    pub(crate) name: String,
}

/// A container of a pod that runs on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) pod: PodName,
    /// The pod's uid, if the link tells it.
    pub(crate) uid: Option<String>,
    /// The container's name in the pod.
    pub(crate) container: String,
}

/// Returns what the pod `uid` is called; `None` when kubelet keeps no logs of it there.
pub(crate) fn of_uid(root: &Root, uid: &str) -> Result<Option<PodName>, EvidenceError> {
    let folders = names(root, PODS)?;
    let pod = folders.iter().filter_map(|folder| parts(folder)).find(|(.., theirs)| same_uid(theirs, uid));
    let name = |(namespace, name, _): (&str, &str, &str)| PodName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Ok(pod.map(name))
}

/// Returns the pod of the container `id`; `None` when kubelet has no link to its log.
pub(crate) fn of_container(root: &Root, id: &str) -> Result<Option<Link>, EvidenceError> {
    let link = |link: &String| {
        let (name, namespace, container) =
            parts(link.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?)?;
        let pod = PodName { namespace: namespace.to_owned(), name: name.to_owned() };
        let target = root.read_link(format!("{CONTAINERS}/{link}")).ok().flatten();
        let target = target.and_then(|target| target.into_string().ok()).unwrap_or_default();
        let folder = target.strip_prefix(PODS).and_then(|rest| rest.strip_prefix('/')?.split('/').next());
        let uid = folder.and_then(parts).map(|(.., uid)| uid.to_owned());
        Some(Link { pod, uid, container: container.to_owned() })
    };
    Ok(names(root, CONTAINERS)?.iter().find_map(link))
}

/// Returns the three parts of a name; those that come first have no underscores.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.splitn(3, '_');
    Some((parts.next()?, parts.next()?, parts.next()?))
}

/// Returns whether kubelet can have made `uid` up for a static pod: it is a hash, where the API server's are UUIDs.
pub(crate) fn may_be_static(uid: &str) -> bool {
    let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
    lengths != [8, 4, 4, 4, 12]
}

fn names(root: &Root, directory: &str) -> Result<Vec<String>, EvidenceError> {
    match root.list(directory, NAMES_CAP) {
        Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_logs_name_pods_and_containers() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "6f1cbe3a3bd1e0d31a3f7b0a5c1a9a11";
        let directory = tempfile::tempdir().unwrap();
        let root = Root::host(directory.path()).unwrap();
        assert_eq!(of_uid(&root, uid), Ok(None));
        assert_eq!(of_container(&root, &id), Ok(None));
        for name in [
            "var/log/pods/junk".to_owned(),
            "var/log/pods/a_b".to_owned(),
            format!("var/log/pods/kube-system_etcd-m1_{uid}"),
            "var/log/pods/default_web_0a1b2c3d-0000-4000-8000-0123456789ab".to_owned(),
            "var/log/containers/junk.log".to_owned(),
            format!("var/log/containers/etcd-m1_kube-system_etcd-{id}.log"),
        ] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let pod = PodName { namespace: "kube-system".to_owned(), name: "etcd-m1".to_owned() };
        assert_eq!(of_uid(&root, uid), Ok(Some(pod.clone())));
        assert_eq!(of_uid(&root, "0a1b2c3d_0000_4000_8000_0123456789ab").unwrap().unwrap().name, "web");
        assert_eq!(of_uid(&root, "other"), Ok(None));
        let link = Link { pod, uid: None, container: "etcd".to_owned() };
        assert_eq!(of_container(&root, &id), Ok(Some(link.clone())));
        let path = directory.path().join(format!("var/log/containers/etcd-m1_kube-system_etcd-{id}.log"));
        std::fs::remove_dir(&path).unwrap();
        let target = format!("/var/log/pods/kube-system_etcd-m1_{uid}/etcd/0.log");
        std::os::unix::fs::symlink(target, path).unwrap();
        let link = Link { uid: Some(uid.to_owned()), ..link };
        assert_eq!(of_container(&root, &id), Ok(Some(link)));
        assert_eq!(of_container(&root, &"0".repeat(64)), Ok(None));
        assert!(may_be_static(uid) && !may_be_static("0a1b2c3d-0000-4000-8000-0123456789ab"));
    }
}
