//! What kubelet and systemd leave behind of what they run: control groups, and folders of logs.
//!
//! The lab makes no control groups, for which it would need a hierarchy of the machine that it may write to. It lets `/proc`
//! of the node say instead what it would say there.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// One container of a static pod, as kubelet would run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    uid: String,
    id: String,
}

impl Container {
    /// Returns a new container of the pod that the manifest at `path` declares with `text`. As with kubelet, a pod has another
    /// uid when its manifest is another one or at another place; and as with a container runtime, every start has its own id.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        static STARTS: AtomicU64 = AtomicU64::new(0);
        let start = (SystemTime::now(), std::process::id(), STARTS.fetch_add(1, Ordering::Relaxed));
        Self { uid: hexadecimal::<2>(&(path, text)), id: hexadecimal::<4>(&start) }
    }

    /// Returns its control group, as kubelet and containerd name it where both leave groups to systemd.
    pub(crate) fn group(&self) -> String {
        let Self { uid, id } = self;
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{id}.scope"
        )
    }

    /// Returns kubelet's folder for the logs of its pod, which is called `pod` in its manifest.
    pub(crate) fn logs(&self, namespace: &str, pod: &str, node: &str) -> String {
        format!("/var/log/pods/{namespace}_{pod}-{node}_{}", self.uid)
    }
}

/// Returns the control group of a systemd unit.
pub(crate) fn service(unit: &str) -> String {
    format!("/system.slice/{unit}")
}

/// Returns so many times 16 hexadecimal digits that `what` decides.
fn hexadecimal<const WORDS: usize>(what: &impl Hash) -> String {
    let word = |salt: usize| {
        let mut hasher = DefaultHasher::new();
        (salt, what).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..WORDS).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_what_its_manifest_says_and_a_container_is_new_each_time() {
        let one = Container::new("/m/etcd.yaml", "kind: Pod");
        let again = Container::new("/m/etcd.yaml", "kind: Pod");
        assert_eq!((one.uid.len(), one.id.len()), (32, 64));
        assert_eq!(one.uid, again.uid);
        assert_ne!(one.id, again.id);
        assert_ne!(Container::new("/m/etcd.yaml", "kind: Pod # 2").uid, one.uid);
        assert_ne!(Container::new("/m/other.yaml", "kind: Pod").uid, one.uid);
        assert_eq!(
            one.logs("kube-system", "etcd", "m1"),
            format!("/var/log/pods/kube-system_etcd-m1_{}", one.uid)
        );
    }
}
