//! Control groups (cgroups(7)), and who runs a process by them.
//!
//! kubelet and systemd keep what they run in control groups that they name, and nothing that runs leaves its group by
//! itself: that is how both find their processes again. So the group of a process tells who started it.

/// The control groups of a process, one path for each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Whether it is one in which systemd keeps its units: its own of version 1, or that of version 2.
    of_systemd: bool,
    path: String,
}

/// Who runs a process, by its control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// kubelet: it is in a container of a pod.
    Pod {
        /// The pod's uid. systemd's names of groups have `_` where it has `-`; both are `-` here ([`same_uid`]).
        uid: String,
    },
    /// Somebody else who runs containers, or kubelet when it is told to keep no groups of pods.
    Container {
        /// The container's id.
        id: String,
    },
    /// The system's service manager: it is in a service of it.
    Service {
        /// The unit, for example `etcd.service`.
        unit: String,
    },
    /// The service manager of a user, or one inside a container or another machine, whose units are not the host's.
    OtherManager {
        /// The unit, for example `etcd.service`.
        unit: String,
    },
    /// Nobody who is known by a group: a session, a shell, or a system without such groups.
    Nobody,
}

impl Cgroup {
    /// Returns the control groups in `text`, which is of the form of `/proc/PID/cgroup`.
    pub fn parse(text: &[u8]) -> Self {
        let hierarchy = |line: &[u8]| {
            let mut fields = line.splitn(3, |&b| b == b':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let of_systemd = controllers.is_empty() || controllers == b"name=systemd";
            Some(Hierarchy { of_systemd, path: String::from_utf8_lossy(path).into_owned() })
        };
        Self { hierarchies: text.split(|&b| b == b'\n').filter_map(hierarchy).collect() }
    }

    /// Returns the id of the container that the process runs in, as Docker, containerd, CRI-O and Podman name
    /// the groups they make: the last part of the path ends in 64 hexadecimal digits, perhaps before
    /// `.scope`.
    pub fn container(&self) -> Option<String> {
        // Within a container that runs an init of its own there are further groups below it.
        let parts = |h: &'_ Hierarchy| h.path.rsplit('/').find_map(|part| container(part).map(str::to_owned));
        self.hierarchies.iter().find_map(parts)
    }

    /// Returns who runs the process.
    ///
    /// A pod counts in whatever hierarchy it is, and then a container: where containerd has groups of version 1, that of
    /// version 2 still has containerd's own service.
    pub fn owner(&self) -> Owner {
        let owners: Vec<Owner> = self.hierarchies.iter().map(Hierarchy::owner).collect();
        let first = |wanted: fn(&Owner) -> bool| owners.iter().find(|owner| wanted(owner)).cloned();
        first(|owner| matches!(owner, Owner::Pod { .. }))
            .or_else(|| first(|owner| matches!(owner, Owner::Container { .. })))
            .or_else(|| first(|owner| !matches!(owner, Owner::Nobody)))
            .unwrap_or(Owner::Nobody)
    }
}

impl Hierarchy {
    /// Returns who runs the process by this path. What is outermost counts, but for a pod below a service: that is
    /// containerd's, when kubelet's driver of groups is not the runtime's.
    fn owner(&self) -> Owner {
        let mut unit: Option<&str> = None;
        let mut manager = true;
        let mut within = false;
        // The audit sees groups outside of its own namespace behind `..`.
        for part in self.path.split('/').filter(|part| !matches!(*part, "" | "..")) {
            for name in part.split(':') {
                if let Some(uid) = pod(name, within) {
                    return Owner::Pod { uid: uid.replace('_', "-") };
                }
                if let Some(id) = container(name).filter(|_| unit.is_none()) {
                    return Owner::Container { id: id.to_owned() };
                }
            }
            within |= part == "kubepods";
            if part.ends_with(".service") {
                // A user's manager is a service itself, with the user's services below it.
                manager &= unit.is_none_or(|unit| !unit.starts_with("user@"));
                unit = unit.filter(|_| manager).or(Some(part));
            } else if !part.ends_with(".slice") && unit.is_none() {
                // The system's manager keeps its services below slices, and below nothing else.
                manager = false;
            }
        }
        match unit.filter(|_| self.of_systemd).map(str::to_owned) {
            Some(unit) if manager => Owner::Service { unit },
            Some(unit) => Owner::OtherManager { unit },
            None => Owner::Nobody,
        }
    }
}

/// Returns whether two uids of pods are the same, whatever was done to write one as part of a group's name.
pub fn same_uid(one: &str, other: &str) -> bool {
    let plain = |uid: &str| uid.replace('_', "-");
    plain(one) == plain(other)
}

/// Returns the id of the container whose group is called `name`.
fn container(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (before, id) = name.split_at_checked(name.len().checked_sub(64)?)?;
    let hexadecimal = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // A monitor beside the container, not in it.
    let monitor = before.ends_with("conmon-");
    let separate = matches!(before.as_bytes().last(), None | Some(b'-' | b':'));
    (hexadecimal && separate && !monitor).then_some(id)
}

/// Returns the uid of the pod whose group is called `name`, as kubelet's two drivers name it: `podUID` somewhere `within`
/// the group `kubepods`, and `kubepods-podUID.slice` or `kubepods-burstable-podUID.slice`, perhaps with the name of a slice
/// before it that kubelet was given (`--cgroup-root`).
fn pod(name: &str, within: bool) -> Option<&str> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => {
            let (before, uid) = slice.rsplit_once("-pod")?;
            let class = ["-burstable", "-besteffort"].iter().find_map(|class| before.strip_suffix(class));
            let base = class.unwrap_or(before);
            (base == "kubepods" || base.ends_with("-kubepods")).then_some(uid)?
        }
        None => name.strip_prefix("pod").filter(|_| within)?,
    };
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!uid.is_empty() && uid.bytes().all(valid)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6f1cbe3a3bd1e0d31a3f7b0a5c1a9a11";

    fn of(path: &str) -> Cgroup {
        Cgroup::parse(format!("0::{path}").as_bytes())
    }

    #[test]
    fn a_pod_is_known_by_its_uid() {
        let paths = [
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!("/../../kubepods/besteffort/pod{UID}/{ID}"),
            format!("/kubelet/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods.slice/kubepods-pod{UID}.slice/crio-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice/crio-{ID}.scope"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                     kubelet-kubepods-besteffort-pod{UID}.slice/cri-containerd-{ID}.scope/init.scope"
            ),
            format!("/system.slice/containerd.service/kubepods-burstable-pod{UID}.slice:cri-containerd:{ID}"),
        ];
        for path in paths {
            assert_eq!(of(&path).owner(), Owner::Pod { uid: UID.to_owned() }, "{path}");
            assert_eq!(of(&path).container().as_deref(), Some(ID), "{path}");
        }
        let escaped = of("/kubepods.slice/kubepods-pod0a_1b_2c.slice/x.scope").owner();
        assert_eq!(escaped, Owner::Pod { uid: "0a-1b-2c".to_owned() });
        assert!(same_uid("0a-1b_2c", "0a_1b-2c") && !same_uid("0a-1b", "0a-1c"));
    }

    #[test]
    fn a_service_is_known_by_its_unit() {
        let service = |unit: &str| Owner::Service { unit: unit.to_owned() };
        let other = |unit: &str| Owner::OtherManager { unit: unit.to_owned() };
        let container = || Owner::Container { id: ID.to_owned() };
        let rows = [
            ("/system.slice/etcd.service".to_owned(), service("etcd.service")),
            ("/etcd.service".to_owned(), service("etcd.service")),
            ("/../../system.slice/etcd.service".to_owned(), service("etcd.service")),
            ("/system.slice/system-etcd.slice/etcd@a.service/payload".to_owned(), service("etcd@a.service")),
            (format!("/system.slice/etcd.service/libpod-payload-{ID}"), service("etcd.service")),
            (
                "/machine.slice/systemd-nspawn@x.service/payload/system.slice/etcd.service".to_owned(),
                service("systemd-nspawn@x.service"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/etcd.service".to_owned(),
                other("etcd.service"),
            ),
            ("/lxc.payload.x/system.slice/etcd.service".to_owned(), other("etcd.service")),
            ("/init.scope/system.slice/etcd.service".to_owned(), other("etcd.service")),
            (format!("/docker/{ID}/system.slice/etcd.service"), container()),
            (format!("/docker/{ID}/kubelet/kubepods/pod{UID}/{ID}"), container()),
            (format!("/system.slice/docker-{ID}.scope"), container()),
            (format!("/k8s.io/{ID}"), container()),
            (format!("/machine.slice/libpod-{ID}.scope/container"), container()),
            (format!("/kubepods.slice/crio-conmon-{ID}.scope"), Owner::Nobody),
            (format!("/x/a{ID}"), Owner::Nobody),
            ("/user.slice/user-0.slice/session-1.scope".to_owned(), Owner::Nobody),
            ("/kubepods.slice".to_owned(), Owner::Nobody),
            ("/kubepods.slice/kubepods-pod.slice".to_owned(), Owner::Nobody),
            (format!("/pod{UID}"), Owner::Nobody),
            ("/".to_owned(), Owner::Nobody),
        ];
        for (path, want) in rows {
            assert_eq!(of(&path).owner(), want, "{path}");
        }
        assert_eq!(Cgroup::parse(b"garbage\n\n0:").owner(), Owner::Nobody);
    }

    #[test]
    fn of_several_hierarchies_the_one_that_says_most_counts() {
        let pod = Owner::Pod { uid: UID.to_owned() };
        let rows = [
            (format!("0::/system.slice/containerd.service\n1:name=systemd:/kubepods/pod{UID}/{ID}\n"), pod),
            (
                format!("0::/system.slice/docker.service\n1:name=systemd:/docker/{ID}"),
                Owner::Container { id: ID.to_owned() },
            ),
            ("4:memory:/system.slice/agent.service\n1:name=systemd:/\n0::/".to_owned(), Owner::Nobody),
            (
                "4:memory:/\n1:name=systemd:/system.slice/etcd.service".to_owned(),
                Owner::Service { unit: "etcd.service".to_owned() },
            ),
        ];
        for (text, want) in rows {
            assert_eq!(Cgroup::parse(text.as_bytes()).owner(), want, "{text}");
        }
    }

    #[test]
    fn containers_have_ids() {
        let cases = [
            (format!("/system.slice/docker-{ID}.scope"), Some(ID)),
            (format!("/kubepods.slice/crio-conmon-{ID}.scope"), None),
            (format!("/docker/{ID}/init.scope"), Some(ID)),
            (format!("/x/a{ID}"), None),
            ("/".to_owned(), None),
        ];
        for (path, want) in cases {
            assert_eq!(of(&path).container().as_deref(), want, "{path}");
        }
        let text = format!("11:pids:/kubepods-pod1.slice:cri-containerd:{ID}\n1:name=systemd:/");
        assert_eq!(Cgroup::parse(text.as_bytes()).container().as_deref(), Some(ID));
        assert_eq!(Cgroup::parse(b"garbage").container(), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([0-9]:|:|/|kubepods|-pod|pod|.slice|.scope|.service|user@|\\.\\.|[a-f0-9]{64}|é|\n){0,30}") {
            let group = Cgroup::parse(text.as_bytes());
            group.owner();
            group.container();
        }
    }
}
