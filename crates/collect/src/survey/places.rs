//! Where the host has the files of a process that sees them at other paths: what is to be done to them is done from there.

use seaworthy_evidence::{Etcd, File, Instance, Observed, Origin, Snapshot};
use seaworthy_host::mounts::Mounts;
use seaworthy_host::procfs::{Proc, ProcessEntry};
use seaworthy_host::root::Root;

/// Fills in where programs of the host find the files of every instance.
pub(crate) fn fill(snapshot: &mut Snapshot, root: &Root, proc: &Proc) {
    let mut host: Option<Mounts> = None;
    for instances in snapshot.components.values_mut() {
        let Observed::Seen { value, .. } = instances else { continue };
        for instance in value {
            let Some(pid) = instance.process.value().map(|process| process.pid) else { continue };
            let Ok(process) = proc.process(pid) else { continue };
            let Ok(own) = Root::of_process(&process) else { continue };
            for file in files(instance) {
                let inside = matches!(file.origin, Origin::File { pid: Some(of), .. } if of == pid);
                if !inside {
                    continue;
                }
                file.on_node = Some(match is_same(root, &file.path, &own, &file.path) {
                    true => file.path.clone(),
                    false => {
                        // What the first process of the host sees is the host's.
                        let first = || proc.process(1).and_then(|first| first.mounts()).unwrap_or_default();
                        place(file, root, host.get_or_insert_with(first), &own, &process)
                    }
                });
            }
        }
    }
}

/// Returns where the host has `file`, which the process with the root `own` sees; where only that has it, through its root.
fn place(file: &File, root: &Root, host: &Mounts, own: &Root, process: &ProcessEntry) -> String {
    let mounts = process.mounts().unwrap_or_default();
    let mut places = host.seen_as(&file.path, &mounts);
    let found = places.find(|place| is_same(root, place, own, &file.path));
    found.unwrap_or_else(|| format!("/proc/{}/root{}", process.pid(), file.path))
}

fn is_same(one: &Root, path: &str, other: &Root, other_path: &str) -> bool {
    one.identity(path).ok().is_some_and(|found| other.identity(other_path).ok() == Some(found))
}

/// Returns the files of an instance with which something may be to be done.
fn files(instance: &mut Instance) -> impl Iterator<Item = &mut File> {
    let files = &mut instance.files;
    let pki = match &mut files.pki {
        Observed::Seen { value, .. } => value.as_mut_slice(),
        Observed::Failed { .. } => &mut [],
    };
    let data = instance.etcd.as_deref_mut().and_then(|etcd: &mut Etcd| match &mut etcd.data_directory {
        Observed::Seen { value, .. } => Some(value),
        Observed::Failed { .. } => None,
    });
    let lists = [Some(&mut files.kubeconfigs), files.authorities.as_mut(), files.config.as_mut()];
    let named = lists.into_iter().flatten().filter_map(|list| match list {
        Observed::Seen { value, .. } => Some(value),
        Observed::Failed { .. } => None,
    });
    let named = named.flatten().filter_map(|named| match &mut named.file {
        Observed::Seen { value, .. } => Some(value),
        Observed::Failed { .. } => None,
    });
    pki.iter_mut().map(|file| &mut file.file).chain(data).chain(named)
}
