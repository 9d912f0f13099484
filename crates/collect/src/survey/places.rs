//! Where the host has the files of a process that sees them at other paths: what is to be done to them is done from there.

use std::cell::LazyCell;
use std::sync::LazyLock;

use rayon::prelude::*;
use seaworthy_evidence::{Etcd, File, Instance, Observed, Origin, Snapshot};
use seaworthy_host::access::Access;
use seaworthy_host::mounts::Mounts;
use seaworthy_host::procfs::{Proc, ProcessEntry};
use seaworthy_host::root::Root;
use seaworthy_host::users::{Account, Users};

/// Fills in where programs of the host find the files of every instance.
///
/// Who may put another file in the place of one of them is told of the path on the host, where that is another one: a volume of a pod
/// is open to all, and in a folder that is not.
pub(crate) fn fill(snapshot: &mut Snapshot, root: &Root, users: &Users, proc: &Proc) {
    let instances = snapshot.components.values_mut().filter_map(|instances| match instances {
        Observed::Seen { value, .. } => Some(value),
        Observed::Failed { .. } => None,
    });
    // What the first process of the host sees is the host's.
    let host = LazyLock::new(|| proc.process(1).and_then(|first| first.mounts()).unwrap_or_default());
    instances.flatten().collect::<Vec<_>>().into_par_iter().for_each(|instance| {
        let Some(pid) = instance.process.value().map(|process| process.pid) else { return };
        let Ok(process) = proc.process(pid) else { return };
        let Ok(own) = Root::of_process(&process) else { return };
        let mounts = LazyCell::new(|| process.mounts().unwrap_or_default());
        let host_access = Access::of_account(&Account::default(), root, users);
        for (file, replaceable) in files(instance) {
            if !matches!(file.origin, Origin::File { pid: Some(of), .. } if of == pid) {
                continue;
            }
            if is_same(root, &file.path, &own, &file.path) {
                file.on_node = Some(file.path.clone());
                continue;
            }
            let place = place(file, root, &host, &own, &process, &mounts);
            if let Some(replaceable) = replaceable.filter(|_| !place.starts_with("/proc/")) {
                let origin = Origin::derived(format!("owners and modes on the way to {place}"));
                *replaceable = Observed::from_result(host_access.replaceable_by(&place), origin);
            }
            file.on_node = Some(place);
        }
    });
}

/// Returns where the host has `file`, which the process with the root `own` and these `mounts` sees; where only that has it,
/// through its root.
fn place(
    file: &File,
    root: &Root,
    host: &Mounts,
    own: &Root,
    process: &ProcessEntry,
    mounts: &Mounts,
) -> String {
    let mut places = host.seen_as(&file.path, mounts);
    let found = places.find(|place| is_same(root, place, own, &file.path));
    found.unwrap_or_else(|| format!("/proc/{}/root{}", process.pid(), file.path))
}

fn is_same(one: &Root, path: &str, other: &Root, other_path: &str) -> bool {
    one.identity(path).ok().is_some_and(|found| other.identity(other_path).ok() == Some(found))
}

/// Returns the files of an instance with which something may be to be done, some with who may put another one in their place.
fn files(instance: &mut Instance) -> impl Iterator<Item = (&mut File, Option<&mut Observed<String>>)> {
    fn seen<T>(observed: &mut Observed<T>) -> Option<&mut T> {
        match observed {
            Observed::Seen { value, .. } => Some(value),
            Observed::Failed { .. } => None,
        }
    }
    let files = &mut instance.files;
    let pki = seen(&mut files.pki).into_iter().flatten().map(|file| (&mut file.file, None));
    let data = instance.etcd.as_deref_mut().and_then(|etcd: &mut Etcd| seen(&mut etcd.data_directory));
    let lists = [Some(&mut files.kubeconfigs), files.authorities.as_mut(), files.config.as_mut()];
    let named = lists.into_iter().flatten().filter_map(seen).flatten();
    let named = named.filter_map(|one| Some((seen(&mut one.file)?, Some(&mut one.replaceable_by))));
    pki.chain(data.map(|file| (file, None))).chain(named)
}
