//! What the running kernel says of the machine that a root is of.

use crate::procfs::Proc;
use crate::root::Root;

/// Returns the name by which the host of `root` calls itself: the kernel's, which is what programs on it are told, and
/// systemd's `%H`. Where no kernel runs that host, or its name cannot be had, the one in `/etc/hostname`, which it would be
/// given at the next boot.
pub fn hostname(root: &Root) -> String {
    let file = || {
        let bytes = root.read("/etc/hostname", 4096).ok()?;
        let name = String::from_utf8_lossy(&bytes).trim().to_owned();
        Some(name).filter(|name| !name.is_empty())
    };
    let this = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let kernels = kernel(root).and_then(|kernel| kernel.hostname());
    kernels.or_else(file).unwrap_or_else(this)
}

/// Returns the kernel that runs the host of `root`; `None` where there is no `/proc`, as in an image of another machine. A host
/// that is mounted without it is the one that we see processes of, if that is the root of the first of them.
pub fn kernel(root: &Root) -> Option<Kernel> {
    let ours = || Proc::open("/proc").ok().filter(|proc| is_root_of(root, proc) == Some(true));
    Proc::below(root).or_else(ours).map(Kernel)
}

fn is_root_of(root: &Root, proc: &Proc) -> Option<bool> {
    let init = Root::of_process(&proc.process(1).ok()?).ok()?;
    Some(init.identity("/").ok()? == root.identity("/").ok()?)
}

/// The running kernel, as the host of a root sees it.
pub struct Kernel(Proc);

impl Kernel {
    /// Returns the host's name. The audit may have a name of its own, as a container has that is not in the host's network.
    fn hostname(&self) -> Option<String> {
        let name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let init = self.0.process(1).ok()?;
        if init.has_own_namespace("uts") != Ok(true) {
            return Some(name());
        }
        // The thread ends in the host's namespace, so nothing else is done by it.
        let look = move || init.enter_names().is_ok().then(name);
        std::thread::Builder::new().spawn(look).ok()?.join().ok()?
    }

    /// Returns its release, as `uname -r` prints it.
    pub fn release(&self) -> String {
        rustix::system::uname().release().to_string_lossy().into_owned()
    }

    /// Returns the id of the boot, as `/proc` prints it.
    pub fn boot_id(&self) -> Option<String> {
        Some(self.0.boot_id().to_owned()).filter(|id| !id.is_empty())
    }

    /// Returns the architecture by systemd's name for it; `None` for one whose name is not known here.
    pub fn architecture(&self) -> Option<&'static str> {
        Some(match rustix::system::uname().machine().to_bytes() {
            b"x86_64" => "x86-64",
            b"i386" | b"i486" | b"i586" | b"i686" => "x86",
            b"aarch64" => "arm64",
            b"arm" | b"armv6l" | b"armv7l" | b"armv8l" => "arm",
            b"ppc64le" => "ppc64-le",
            b"ppc64" => "ppc64",
            b"s390x" => "s390x",
            b"riscv64" => "riscv64",
            b"loongarch64" => "loongarch64",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kernel_names_this_host_and_the_file_another() {
        let kernels = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(hostname(&Root::host("/").unwrap()), kernels.trim());

        let directory = tempfile::tempdir().unwrap();
        let root = Root::host(directory.path()).unwrap();
        assert_eq!(hostname(&root), kernels.trim());
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/hostname"), "another\n").unwrap();
        assert_eq!(hostname(&root), "another");
        // An empty directory is where /proc would be mounted.
        fs::create_dir(directory.path().join("proc")).unwrap();
        assert_eq!(hostname(&root), "another");
        assert!(kernel(&root).is_none());
    }
}
