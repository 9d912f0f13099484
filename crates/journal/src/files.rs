//! The only place that writes to the node.
//!
//! A file is replaced as a whole or not at all: the new content goes to a temporary file with its final owner,
//! mode and extended attributes set before the first byte, is synced, and takes the old one's place by a
//! rename. A reader of the path sees the old content or the new, also after a crash. The temporary file has a
//! name that begins with a dot, because kubelet runs any other file in its directory as a pod, or is in a
//! directory of its own. Its name depends on the path only, so that the next attempt clears it away.
//!
//! Every change has a precondition: the content that it was planned for. All paths are below a [`Root`], and no
//! symbolic link leads out of it.

mod preimages;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatxFlags, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use preimages::{Preimage, Preimages};

/// Most bytes of a file that is read or replaced.
pub const MAX_BYTES: usize = 4 << 20;

/// A directory below which files are changed.
pub struct Root {
    fd: OwnedFd,
    before: Option<Box<Hook>>,
}

/// Is called before each group of system calls; an error stops there as if the calls had failed.
pub type Hook = dyn Fn(Point) -> io::Result<()> + Send + Sync;

/// A moment in the replacement of a file, before which a [`Hook`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the temporary file is created.
    Create,
    /// Before its owner, mode and extended attributes are set.
    Attributes,
    /// Before its content is written.
    Write,
    /// Before it is synced.
    Sync,
    /// Before the precondition is checked for the last time and the file takes its place.
    Rename,
    /// Before the directory is synced.
    SyncDirectory,
}

/// How a file is to be replaced.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// Its path below the root. Of a symbolic link, what it points to is replaced.
    pub path: &'a Path,
    /// The new content.
    pub bytes: &'a [u8],
    /// Owner and mode.
    pub attributes: Attributes,
    /// What must be there now.
    pub expected: &'a Expected,
    /// A directory on the same file system for the temporary file; beside the file, under a name with a dot, when
    /// there is none.
    pub staging: Option<&'a Path>,
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attributes {
    /// As they are.
    Keep,
    /// These.
    Set {
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What a change was planned for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// There is no file.
    Absent,
    /// A file whose content has this [`sha256`].
    Content(String),
}

/// A file that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    extended: Extended,
}

/// Why a file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Its content is neither what the change was planned for nor what it was to become.
    #[error("{} is not as it was when the change was planned", .0.display())]
    Changed(PathBuf),
    /// It is a symbolic link to nothing.
    #[error("{} is a symbolic link that leads to nothing", .0.display())]
    DanglingLink(PathBuf),
    /// A system call failed.
    #[error("{}: {doing}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The error. It is in the message, and so no source besides.
        error: io::Error,
    },
    /// It is no regular file, or the path names none.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The directory for the temporary file is on another file system, so that a rename is not possible.
    #[error("{} is not on the file system of the file to be replaced", .0.display())]
    OtherFileSystem(PathBuf),
    /// It is larger than [`MAX_BYTES`].
    #[error("{} has more than {} MiB", .0.display(), MAX_BYTES >> 20)]
    TooLarge(PathBuf),
    /// A stored pre-image is not what was stored.
    #[error("{} is gone, or is not what was written there", .0.display())]
    Damaged(PathBuf),
}

/// Extended attributes, in the order in which the kernel lists them.
type Extended = Vec<(Vec<u8>, Vec<u8>)>;

impl std::fmt::Debug for Root {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Root").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes may be a private key.
        let mut content = formatter.debug_struct("Content");
        content.field("bytes", &self.bytes.len()).field("mode", &format_args!("{:04o}", self.mode));
        content.field("uid", &self.uid).field("gid", &self.gid).finish_non_exhaustive()
    }
}

impl Root {
    /// Returns the root at the directory `path`.
    ///
    /// # Errors
    ///
    /// When it is no directory, and when the kernel (before 5.6) or a seccomp filter has no openat2(2).
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| io_error(path, "open", e))?;
        let root = Self { fd, before: None };
        root.resolve(Path::new("."), flags).map_err(|e| io_error(path, "openat2(2)", e))?;
        Ok(root)
    }

    /// Returns this root with a hook, with which tests stop it half-way.
    #[must_use]
    pub fn with_hook(self, hook: Box<Hook>) -> Self {
        Self { before: Some(hook), ..self }
    }

    /// Returns the regular file at `path`, or `None` when there is nothing, or no directory that it could be in.
    ///
    /// # Errors
    ///
    /// When there is something else, a link that leads to nothing, or a file above [`MAX_BYTES`].
    pub fn read(&self, path: &Path) -> Result<Option<Content>, FileError> {
        match self.target(path) {
            Err(FileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            target => target?.read(),
        }
    }

    /// Returns why the file or directory at `path` could not be changed, or a file not be created there; `None` when nothing is
    /// known to be against it. It is asked before a plan is begun, so that nothing is found out in the middle. Where another
    /// file is to take its place, it must not be a mount of its own.
    pub fn obstacle(&self, path: &Path, is_replaced: bool) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let stuck = |fd: &OwnedFd| {
            let attributes = rustix::fs::ioctl_getflags(fd).unwrap_or(IFlags::empty());
            match () {
                () if attributes.contains(IFlags::IMMUTABLE) => Some("immutable (chattr +i)"),
                () if attributes.contains(IFlags::APPEND) => Some("append-only (chattr +a)"),
                () => None,
            }
        };
        // A directory that is still to be made is made in the last one that is there.
        let mut above = path.parent();
        let directory = loop {
            let directory = above?;
            match self.resolve(directory, READ_DIRECTORY) {
                Ok(fd) => break (directory, fd),
                Err(Errno::NOENT) => above = directory.parent(),
                Err(error) => return Some(format!("{}: {}", directory.display(), io::Error::from(error))),
            }
        };
        let read_only = |fd: &OwnedFd| {
            let stat = rustix::fs::fstatvfs(fd);
            stat.is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        };
        if read_only(&directory.1) {
            return Some("its file system is read-only".to_owned());
        }
        let mount = |fd: &OwnedFd| {
            let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
            (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
        };
        if let Some(how) = stuck(&directory.1) {
            return Some(format!("{} is {how}", directory.0.display()));
        }
        match self.resolve(path, flags) {
            Ok(fd) if read_only(&fd) => Some("it is mounted read-only".to_owned()),
            Ok(fd) if is_replaced && mount(&fd) != mount(&directory.1) => {
                Some("it is a mount of its own, and another file cannot take its place".to_owned())
            }
            Ok(fd) => stuck(&fd).map(|how| format!("it is {how}")),
            Err(Errno::NOENT) => match self.read(path) {
                Err(error) => Some(error.to_string()),
                Ok(_) => None,
            },
            Err(Errno::TXTBSY) => None,
            Err(error) => Some(io::Error::from(error).to_string()),
        }
    }

    /// Replaces or creates a file. Returns whether anything had to be done: when the file is already as it
    /// should be, whatever was expected, nothing is touched.
    ///
    /// Extended attributes (SELinux's label, for one) are those of the file that is replaced; access control
    /// lists only when mode and owner are kept.
    ///
    /// # Errors
    ///
    /// [`FileError::Changed`] when something else is there than expected. After any error the old file is there,
    /// unless it was in the syncing of the directory, and the temporary file is gone.
    pub fn replace(&self, replacement: &Replacement<'_>) -> Result<bool, FileError> {
        let target = self.target(replacement.path)?;
        let (bytes, expected) = (replacement.bytes, replacement.expected);
        if bytes.len() > MAX_BYTES {
            return Err(FileError::TooLarge(target.path));
        }
        let current = target.read()?;
        let wanted = match (&current, replacement.attributes) {
            (Some(current), Attributes::Keep) => Content { bytes: bytes.to_vec(), ..current.clone() },
            (current, Attributes::Set { mode, uid, gid }) => {
                let mut extended = current.as_ref().map(|c| c.extended.clone()).unwrap_or_default();
                extended.retain(|(name, _)| !name.starts_with(b"system.posix_acl"));
                Content { bytes: bytes.to_vec(), mode: mode & 0o7777, uid, gid, extended }
            }
            (None, Attributes::Keep) => return Err(FileError::Changed(target.path)),
        };
        self.put(&target, current.as_ref(), &wanted, expected, replacement.staging)
    }

    /// Removes the file at `path`. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`FileError::Changed`] when its content is not as expected.
    pub fn remove(&self, path: &Path, expected: &Expected) -> Result<bool, FileError> {
        let target = self.target(path)?;
        let Some(current) = target.read()? else { return Ok(false) };
        if !expected.holds(Some(&current)) {
            return Err(FileError::Changed(target.path));
        }
        rustix::fs::unlinkat(&target.directory, &target.name, AtFlags::empty())
            .and_then(|()| rustix::fs::fsync(&target.directory))
            .map_err(|error| io_error(&target.path, "remove", error))?;
        Ok(true)
    }

    /// Creates the directory at `path`, whose parent must exist. Returns whether there was none.
    ///
    /// # Errors
    ///
    /// When something else is there, or it cannot be created.
    pub fn create_directory(&self, path: &Path, mode: u32, uid: u32, gid: u32) -> Result<bool, FileError> {
        let failed = |doing| move |error| io_error(path, doing, error);
        let (parent, name) = split(path)?;
        let parent = self.resolve(parent, READ_DIRECTORY).map_err(failed("open the directory above"))?;
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Ok(_) => return Ok(false),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("open")(error)),
        }
        // As with files: it has its owner and mode from the moment that it has its name.
        let temporary = temporary_name(name);
        match rustix::fs::unlinkat(&parent, &temporary, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("clear away a left-over")(error)),
        }
        let create = || {
            rustix::fs::mkdirat(&parent, &temporary, Mode::RWXU)?;
            let fd =
                rustix::fs::openat(&parent, &temporary, READ_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            own(&fd, mode, uid, gid)?;
            rustix::fs::fsync(&fd)?;
            rustix::fs::renameat_with(&parent, &temporary, &parent, name, RenameFlags::NOREPLACE)?;
            rustix::fs::fsync(&parent)
        };
        create().map_err(|error| {
            let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::REMOVEDIR);
            failed("create the directory")(error)
        })?;
        Ok(true)
    }

    /// Returns permission bits, owner and group of the file or directory at `path`.
    ///
    /// # Errors
    ///
    /// When it is neither (a symbolic link is not), or cannot be opened.
    pub fn attributes(&self, path: &Path) -> Result<(u32, u32, u32), FileError> {
        let failed = |doing| move |error| io_error(path, doing, error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = self.resolve(path, flags).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&place).map_err(failed("stat"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {
                Ok((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
            }
            _ => Err(FileError::NotAFile(path.to_owned())),
        }
    }

    /// Sets the permission bits of the file or directory at `path`, and returns how they were.
    ///
    /// # Errors
    ///
    /// When it is neither, or the bits cannot be set.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<Attributes, FileError> {
        self.change(path, |fd, _| rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777)))
    }

    /// Sets the owner of the file or directory at `path`, leaving its mode, and returns how they were.
    ///
    /// # Errors
    ///
    /// When it is neither, or the owner cannot be set.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<Attributes, FileError> {
        // A change of owner takes set-user-ID bits away.
        self.change(path, |fd, stat| own(fd, stat.st_mode, uid, gid))
    }

    fn change(
        &self,
        path: &Path,
        change: impl FnOnce(&OwnedFd, &Stat) -> Result<(), Errno>,
    ) -> Result<Attributes, FileError> {
        let failed = |doing| move |error| io_error(path, doing, error);
        // Opening anything else than a file or directory could have effects of its own.
        let place =
            self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC).map_err(failed("open"))?;
        let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
        let usable = |stat: &Stat| matches!(kind(stat), FileType::RegularFile | FileType::Directory);
        if !usable(&rustix::fs::fstat(&place).map_err(failed("stat"))?) {
            return Err(FileError::NotAFile(path.to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = self.resolve(path, flags).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&fd).map_err(failed("stat"))?;
        if !usable(&stat) {
            return Err(FileError::NotAFile(path.to_owned()));
        }
        change(&fd, &stat).and_then(|()| rustix::fs::fsync(&fd)).map_err(failed("set owner or mode"))?;
        Ok(Attributes::Set { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid })
    }

    /// Puts `wanted` where `current` is.
    fn put(
        &self,
        target: &Target,
        current: Option<&Content>,
        wanted: &Content,
        expected: &Expected,
        staging: Option<&Path>,
    ) -> Result<bool, FileError> {
        if current == Some(wanted) {
            // A run that was killed behind the rename has not made it durable.
            rustix::fs::fsync(&target.directory)
                .map_err(|error| io_error(&target.path, "sync the directory", error))?;
            return Ok(false);
        }
        if !expected.holds(current) && current.is_none_or(|current| current.bytes != wanted.bytes) {
            return Err(FileError::Changed(target.path.clone()));
        }
        let (directory, temporary) = match staging {
            None => (None, temporary_name(&target.name)),
            Some(staging) => {
                let failed = |error| io_error(staging, "open the staging directory", error);
                let directory = self.resolve(staging, READ_DIRECTORY).map_err(failed)?;
                let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev).map_err(failed);
                if device(&directory)? != device(&target.directory)? {
                    return Err(FileError::OtherFileSystem(staging.to_owned()));
                }
                let path = target.path.as_os_str().as_bytes();
                (Some(directory), format!(".{}.seaworthy", sha256(path)).into())
            }
        };
        let directory = directory.as_ref().unwrap_or(&target.directory);
        let put = || {
            self.write(directory, &temporary, wanted).map_err(|(doing, error)| FileError::Io {
                path: target.path.clone(),
                doing,
                error,
            })?;
            self.reach(Point::Rename).map_err(|source| io_error(&target.path, "rename", source))?;
            let now = target.read()?;
            if now.as_ref() != current {
                return Err(FileError::Changed(target.path.clone()));
            }
            rustix::fs::renameat(directory, &temporary, &target.directory, &target.name)
                .map_err(|error| io_error(&target.path, "rename", error))
        };
        put().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        })?;
        self.reach(Point::SyncDirectory)
            .and_then(|()| Ok(rustix::fs::fsync(&target.directory)?))
            .and_then(|()| Ok(rustix::fs::fsync(directory)?))
            .map_err(|source| io_error(&target.path, "sync the directory", source))?;
        Ok(true)
    }

    /// Writes the temporary file, owner and mode before the first byte.
    fn write(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        wanted: &Content,
    ) -> Result<(), (&'static str, io::Error)> {
        let doing = |what: &'static str| move |error: Errno| (what, io::Error::from(error));
        let at = |point, what| self.reach(point).map_err(|error| (what, error));
        at(Point::Create, "create")?;
        // What a killed run has left behind.
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(doing("clear away a left-over")(error)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map_err(doing("create"))?;
        at(Point::Attributes, "set owner and mode")?;
        own(&fd, wanted.mode, wanted.uid, wanted.gid).map_err(doing("set owner and mode"))?;
        for (name, value) in &wanted.extended {
            let set = rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty());
            let same = || extended(&fd).is_ok_and(|now| now.iter().any(|(n, v)| n == name && v == value));
            match set {
                Err(error) if !same() => return Err(doing("set extended attributes")(error)),
                _ => {}
            }
        }
        at(Point::Write, "write")?;
        let mut file = File::from(fd);
        file.write_all(&wanted.bytes).map_err(|error| ("write", error))?;
        at(Point::Sync, "sync")?;
        file.sync_all().map_err(|error| ("sync", error))
    }

    fn reach(&self, point: Point) -> io::Result<()> {
        self.before.as_ref().map_or(Ok(()), |hook| hook(point))
    }

    /// Returns where the file of that path really is, after all symbolic links.
    fn target(&self, path: &Path) -> Result<Target, FileError> {
        let mut place = path.to_owned();
        for followed in 0..40 {
            let (parent, name) = split(&place)?;
            let name = name.to_owned();
            let parent = parent.to_owned();
            let directory = match self.resolve(&parent, READ_DIRECTORY) {
                Err(Errno::NOENT) if followed > 0 => return Err(FileError::DanglingLink(path.to_owned())),
                result => result.map_err(|error| io_error(&parent, "open the directory", error))?,
            };
            let found = match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(io_error(path, "stat", error)),
            };
            match found {
                Some(FileType::Symlink) => {
                    let link = rustix::fs::readlinkat(&directory, &name, Vec::new())
                        .map_err(|error| io_error(path, "read the link", error))?;
                    // The kernel resolves the directories, so that `..` means what it should.
                    place = parent.join(OsString::from_vec(link.into_bytes()));
                }
                None if followed > 0 => return Err(FileError::DanglingLink(path.to_owned())),
                None | Some(FileType::RegularFile) => return Ok(Target { directory, name, path: place }),
                Some(_) => return Err(FileError::NotAFile(path.to_owned())),
            }
        }
        Err(io_error(path, "follow links", Errno::LOOP))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // EAGAIN: something was renamed while the kernel resolved `..`; openat2(2) asks for another attempt.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::BUSY)
    }
}

impl Expected {
    /// Returns what is there: the content, or nothing.
    pub fn of(content: Option<&Content>) -> Self {
        content.map_or(Self::Absent, |content| Self::Content(content.sha256()))
    }

    fn holds(&self, content: Option<&Content>) -> bool {
        *self == Self::of(content)
    }
}

impl Content {
    /// Returns the SHA-256 of the bytes, hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.bytes)
    }
}

/// Returns the SHA-256 of `bytes`, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// A place for a regular file, which may be there or not.
struct Target {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Target {
    fn read(&self) -> Result<Option<Content>, FileError> {
        let failed = |error| io_error(&self.path, "read", error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(FileError::NotAFile(self.path.clone()));
        }
        let extended = extended(&fd).map_err(failed)?;
        let size = usize::try_from(stat.st_size).unwrap_or_default();
        let mut bytes = Vec::with_capacity(size.min(MAX_BYTES) + SPARE);
        let read = File::from(fd).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| io_error(&self.path, "read", error))?;
        if bytes.len() > MAX_BYTES {
            return Err(FileError::TooLarge(self.path.clone()));
        }
        let mode = stat.st_mode & 0o7777;
        Ok(Some(Content { bytes, mode, uid: stat.st_uid, gid: stat.st_gid, extended }))
    }
}

/// Room beyond the end of a file, which lets the standard library read all of it at once.
pub(crate) const SPARE: usize = 64;

const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn io_error(path: &Path, doing: &'static str, source: impl Into<io::Error>) -> FileError {
    FileError::Io { path: path.to_owned(), doing, error: source.into() }
}

/// Returns the directory and the name of a path that names a file.
fn split(path: &Path) -> Result<(&Path, &OsStr), FileError> {
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok((parent, name)),
        _ => Err(FileError::NotAFile(path.to_owned())),
    }
}

/// Returns the name of the temporary file for the file `name`. kubelet overlooks what begins with a dot.
fn temporary_name(name: &OsStr) -> OsString {
    // A long name could not be made longer.
    format!(".{}.seaworthy", sha256(name.as_bytes()).get(..16).unwrap_or_default()).into()
}

fn own(fd: impl AsFd, mode: u32, uid: u32, gid: u32) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(&fd)?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
}

/// Returns the extended attributes of a file, without those that hold for one content only.
fn extended(fd: &OwnedFd) -> Result<Extended, Errno> {
    // Hardly a file has more than a label.
    let mut names = vec![0; 256];
    let mut listed = rustix::fs::flistxattr(fd, names.as_mut_slice());
    if listed == Err(Errno::RANGE) {
        names.resize(64 << 10, 0);
        listed = rustix::fs::flistxattr(fd, names.as_mut_slice());
    }
    let length = match listed {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        listed => listed?,
    };
    names.truncate(length);
    let mut found = Vec::new();
    let bound = [&b"security.ima"[..], b"security.evm"];
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && !bound.contains(name)) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(fd, name, value.as_mut_slice())?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const POINTS: [Point; 6] =
        [Point::Create, Point::Attributes, Point::Write, Point::Sync, Point::Rename, Point::SyncDirectory];

    fn fixture() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("manifests")).unwrap();
        fs::create_dir_all(directory.path().join("staging")).unwrap();
        fs::write(directory.path().join("manifests/etcd.yaml"), "old").unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    fn replacement<'a>(bytes: &'a [u8], expected: &'a Expected) -> Replacement<'a> {
        let path = Path::new("/manifests/etcd.yaml");
        Replacement { path, bytes, attributes: Attributes::Keep, expected, staging: None }
    }

    fn old() -> Expected {
        Expected::Content(sha256(b"old"))
    }

    /// The names in the directory that kubelet would take for pods, and the others.
    fn names(directory: &Path) -> (Vec<String>, Vec<String>) {
        let names = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.partition(|name| !name.starts_with('.'))
    }

    #[test]
    fn a_file_is_replaced_with_all_that_belongs_to_it() {
        let (directory, root) = fixture();
        let path = directory.path().join("manifests/etcd.yaml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let root_user = rustix::process::geteuid().is_root();
        let owner = if root_user {
            (1234, 4321)
        } else {
            (fs::metadata(&path).unwrap().uid(), fs::metadata(&path).unwrap().gid())
        };
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        let labelled = rustix::fs::setxattr(&path, "user.label", b"kept", XattrFlags::empty()).is_ok();
        for staging in [None, Some(Path::new("staging"))] {
            fs::write(&path, "old").unwrap();
            assert!(root.replace(&Replacement { staging, ..replacement(b"new", &old()) }).unwrap());
            let after = fs::metadata(&path).unwrap();
            assert_eq!((after.mode() & 0o7777, after.uid(), after.gid()), (0o640, owner.0, owner.1));
            assert_eq!(fs::read(&path).unwrap(), b"new");
            if labelled {
                let mut value = [0; 4];
                rustix::fs::getxattr(&path, "user.label", &mut value).unwrap();
                assert_eq!(&value, b"kept");
            }
            let inode = after.ino();
            assert!(!root.replace(&replacement(b"new", &old())).unwrap(), "done already");
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        }
        assert_eq!(names(&directory.path().join("manifests")), (vec!["etcd.yaml".into()], vec![]));
        assert_eq!(names(&directory.path().join("staging")), (vec![], vec![]));
    }

    #[test]
    fn killed_at_any_point_the_old_or_the_new_is_there_and_the_next_run_finishes() {
        for (index, point) in POINTS.into_iter().enumerate() {
            let (directory, root) = fixture();
            let path = directory.path().join("manifests/etcd.yaml");
            let root =
                root.with_hook(Box::new(move |at| if at == point { panic!("killed") } else { Ok(()) }));
            // A panic leaves everything as a kill does: nothing is cleared away.
            let killed = catch_unwind(AssertUnwindSafe(|| root.replace(&replacement(b"new", &old()))));
            assert!(killed.is_err(), "{point:?}");
            let content = fs::read(&path).unwrap();
            assert_eq!(content, if index < 5 { b"old" } else { b"new" }, "{point:?}");
            let (pods, hidden) = names(&directory.path().join("manifests"));
            assert_eq!(pods, ["etcd.yaml"], "{point:?}");
            assert_eq!(hidden.len(), usize::from((1..5).contains(&index)), "{point:?}");

            let root = Root::open(directory.path()).unwrap();
            assert_eq!(root.replace(&replacement(b"new", &old())).unwrap(), index < 5);
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(
                names(&directory.path().join("manifests")),
                (vec!["etcd.yaml".into()], vec![]),
                "{point:?}"
            );
        }
    }

    #[test]
    fn after_an_error_the_old_is_there_and_nothing_else() {
        for error in [Errno::NOSPC, Errno::ROFS, Errno::IO] {
            for point in &POINTS[..5] {
                let (directory, root) = fixture();
                let point = *point;
                let root =
                    root.with_hook(Box::new(move |at| if at == point { Err(error.into()) } else { Ok(()) }));
                let failed = root.replace(&replacement(b"new", &old())).unwrap_err();
                assert!(matches!(failed, FileError::Io { .. }), "{failed}");
                assert_eq!(fs::read(directory.path().join("manifests/etcd.yaml")).unwrap(), b"old");
                assert_eq!(names(&directory.path().join("manifests")), (vec!["etcd.yaml".into()], vec![]));
            }
        }
    }

    #[test]
    fn nothing_is_replaced_that_is_not_as_planned() {
        let (directory, root) = fixture();
        let path = directory.path().join("manifests/etcd.yaml");
        let changed = |result: Result<bool, FileError>| matches!(result, Err(FileError::Changed(_)));
        assert!(changed(root.replace(&replacement(b"new", &Expected::Absent))));
        assert!(changed(root.replace(&replacement(b"new", &Expected::Content(sha256(b"other"))))));
        let absent =
            Replacement { path: Path::new("manifests/none"), ..replacement(b"new", &Expected::Absent) };
        assert!(changed(root.replace(&absent)), "there is nothing to keep");
        // Somebody else writes in the last moment.
        let late = path.clone();
        let hooked = root.with_hook(Box::new(move |at| match at {
            Point::Rename => fs::write(&late, "theirs"),
            _ => Ok(()),
        }));
        assert!(changed(hooked.replace(&replacement(b"new", &old()))));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert!(changed(hooked.remove(Path::new("manifests/etcd.yaml"), &old())));
        assert!(
            hooked.remove(Path::new("manifests/etcd.yaml"), &Expected::Content(sha256(b"theirs"))).unwrap()
        );
        assert!(!hooked.remove(Path::new("manifests/etcd.yaml"), &old()).unwrap());
    }

    #[test]
    fn a_new_file_is_never_more_open_than_it_should_be() {
        let (directory, root) = fixture();
        let seen = directory.path().join("staging");
        let root = root.with_hook(Box::new(move |at| {
            if matches!(at, Point::Write | Point::Sync) {
                for entry in fs::read_dir(&seen)? {
                    let entry = entry?;
                    let temporary = entry.file_name().as_bytes().starts_with(b".");
                    assert!(!temporary || entry.metadata()?.mode() & 0o7777 == 0o600);
                }
            }
            Ok(())
        }));
        let me = fs::metadata(directory.path()).unwrap();
        let attributes = Attributes::Set { mode: 0o600, uid: me.uid(), gid: me.gid() };
        let key = Replacement {
            path: Path::new("staging/peer.key"),
            attributes,
            ..replacement(b"key", &Expected::Absent)
        };
        assert!(root.replace(&key).unwrap());
        assert!(!root.replace(&key).unwrap());
        let path = directory.path().join("staging/peer.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        // A mode that somebody has opened meanwhile is put right, although the content is there.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(root.replace(&key).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let (directory, root) = fixture();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("/manifests/etcd.yaml", at("absolute")).unwrap();
        symlink("../manifests/etcd.yaml", at("staging/relative")).unwrap();
        symlink(outside.path(), at("outside")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        symlink("/none/file", at("deep")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for (name, content) in [("absolute", "one"), ("staging/relative", "two")] {
            let expected = Expected::of(root.read(Path::new(name)).unwrap().as_ref());
            let replaced = root.replace(&Replacement {
                path: Path::new(name),
                ..replacement(content.as_bytes(), &expected)
            });
            assert!(replaced.unwrap());
            assert_eq!(fs::read_to_string(at("manifests/etcd.yaml")).unwrap(), content);
            assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink());
        }
        for name in ["outside", "dangling", "deep"] {
            let error =
                root.replace(&Replacement { path: Path::new(name), ..replacement(b"x", &Expected::Absent) });
            assert!(matches!(error, Err(FileError::DanglingLink(_))), "{name}: {error:?}");
        }
        for name in ["loop", "manifests", "/", "..", "manifests/.."] {
            assert!(root.read(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    }

    #[test]
    fn modes_owners_and_directories() {
        let (directory, root) = fixture();
        let me = fs::metadata(directory.path()).unwrap();
        let before = root.set_mode(Path::new("manifests/etcd.yaml"), 0o600).unwrap();
        assert!(matches!(before, Attributes::Set { uid, .. } if uid == me.uid()));
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode("manifests/etcd.yaml"), 0o600);
        let before = root.set_owner(Path::new("manifests/etcd.yaml"), me.uid(), me.gid()).unwrap();
        assert_eq!(before, Attributes::Set { mode: 0o600, uid: me.uid(), gid: me.gid() });
        root.set_mode(Path::new("manifests"), 0o700).unwrap();
        assert_eq!(mode("manifests"), 0o700);

        assert!(root.create_directory(Path::new("/staging/pki"), 0o750, me.uid(), me.gid()).unwrap());
        assert_eq!(mode("staging/pki"), 0o750);
        assert!(!root.create_directory(Path::new("/staging/pki"), 0o700, me.uid(), me.gid()).unwrap());
        assert!(root.create_directory(Path::new("/manifests/etcd.yaml"), 0o700, me.uid(), me.gid()).is_err());
        assert!(root.create_directory(Path::new("/none/pki"), 0o700, me.uid(), me.gid()).is_err());
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(root.set_mode(Path::new("fifo"), 0o600), Err(FileError::NotAFile(_))));
    }

    #[test]
    fn another_file_system_is_no_staging_directory() {
        let Ok(root) = Root::open(Path::new("/")) else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        let expected = Expected::Content(sha256(b""));
        let replacement = Replacement {
            path: file.path(),
            staging: Some(Path::new("/proc")),
            ..replacement(b"x", &expected)
        };
        assert!(matches!(root.replace(&replacement), Err(FileError::OtherFileSystem(_))));
    }
}
