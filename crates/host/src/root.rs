//! The one way to open a file: below a root that no path and no symbolic link can leave.
//!
//! A [`Root`] is the host's root directory (`--root`) or the root that a process sees. Every path is resolved
//! by the kernel with `openat2(2)`, `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: absolute links and `..` stay
//! inside, as they would after chroot(2), so a link that points out of the root resolves inside it and
//! usually finds nothing.

use std::ffi::OsString;
use std::fs::File as StdFile;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use seaworthy_evidence::{ErrorKind, EvidenceError, File, FileKind, Origin};

use crate::procfs::ProcessEntry;
use crate::users::Users;

/// A directory below which files are opened.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// The process whose root it is; `None` for the host's.
    pid: Option<u32>,
}

impl Root {
    /// Returns the root at the directory `path`.
    ///
    /// # Errors
    ///
    /// When it is no directory that can be opened, and `Unsupported` when the kernel (before 5.6) or a
    /// seccomp filter has no openat2(2): there is no other safe way, so nothing is read at all.
    pub fn host(path: impl AsRef<Path>) -> Result<Self, EvidenceError> {
        let path = path.as_ref();
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|error| {
            EvidenceError::from_io(&error.into(), format_args!("root directory {}", path.display()))
        })?;
        Self::of_directory(fd, None)
    }

    /// Returns the root that `process` sees: its chroot, in its mount namespace.
    ///
    /// `/proc/PID/root` is a magic link, and this is the only one that is followed.
    ///
    /// # Errors
    ///
    /// As [`Root::host`]; `Vanished` when the process has exited.
    pub fn of_process(process: &ProcessEntry) -> Result<Self, EvidenceError> {
        Self::of_directory(process.open("root", DIRECTORY)?, Some(process.pid()))
    }

    /// Returns the process whose root it is; `None` for the host's.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Returns the origin of the file at `path`.
    pub fn origin(&self, path: impl AsRef<Path>) -> Origin {
        let path = path.as_ref().to_string_lossy().into_owned();
        Origin::File { path, pid: self.pid, line: None, column: None }
    }

    /// Returns the content of the regular file at `path`.
    ///
    /// # Errors
    ///
    /// `Unsupported` for anything that is not a regular file, and for files on pseudo file systems such as
    /// /proc, where reading can have effects: neither is opened. `TooLarge` when it has more than `cap` bytes; `Io` for links that lead in a circle.
    pub fn read(&self, path: impl AsRef<Path>, cap: usize) -> Result<Vec<u8>, EvidenceError> {
        self.open(path)?.read(cap)
    }

    /// Returns the regular file at `path`, opened for reading.
    ///
    /// # Errors
    ///
    /// As [`Root::read`], except for the size.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<OpenFile, EvidenceError> {
        let path = path.as_ref();
        // Opening a FIFO or a device can itself have effects, so the kind is looked at first.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC).and_then(|place| {
            if let Err(refusal) = regular(&place)? {
                return Ok(Err(refusal));
            }
            let fd = self.resolve(path, flags)?;
            Ok(regular(&fd)?.map(|stat| (fd, stat)))
        });
        match opened {
            Ok(Ok((fd, stat))) => Ok(OpenFile {
                file: fd.into(),
                stat,
                path: path.to_string_lossy().into_owned(),
                origin: self.origin(path),
            }),
            Ok(Err(refusal)) => Err(self.fail(path, ErrorKind::Unsupported, refusal)),
            Err(error) => Err(self.error(path, error)),
        }
    }

    /// Returns kind, owner and mode of what is at `path`, after following symbolic links inside the root.
    /// Nothing is opened but the place itself, so neither read permission nor a regular file is needed.
    ///
    /// # Errors
    ///
    /// When `path` does not exist or cannot be reached.
    pub fn stat(&self, path: impl AsRef<Path>, users: &Users) -> Result<File, EvidenceError> {
        let path = path.as_ref();
        let stat = self
            .resolve(path, OFlags::PATH | OFlags::CLOEXEC)
            .and_then(rustix::fs::fstat)
            .map_err(|error| self.error(path, error))?;
        Ok(file(&stat, path.to_string_lossy().into_owned(), self.origin(path), users))
    }

    /// Returns the names in the directory at `path`, sorted by their bytes, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// `TooLarge` when there are more than `cap`.
    pub fn list(&self, path: impl AsRef<Path>, cap: usize) -> Result<Vec<OsString>, EvidenceError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries =
            self.resolve(path, flags).and_then(Dir::new).map_err(|error| self.error(path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(path, error))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if names.len() == cap {
                let message = format!("the directory has more than {cap} entries");
                return Err(self.fail(path, ErrorKind::TooLarge, message));
            }
            names.push(OsString::from_vec(name.to_vec()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns what the symbolic link at `path` holds, or `None` when there is something else.
    ///
    /// # Errors
    ///
    /// When `path` does not exist or cannot be reached.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<Option<OsString>, EvidenceError> {
        Ok(match self.place(path)? {
            Place::Link(target) => Some(target),
            Place::Other(..) => None,
        })
    }

    /// Returns what is at `path` itself, and who may use it. A link at its end is not followed.
    pub(crate) fn place(&self, path: impl AsRef<Path>) -> Result<Place, EvidenceError> {
        let path = path.as_ref();
        let look = || {
            let fd = self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok(Place::Other(fd, stat));
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
            Ok(Place::Link(OsString::from_vec(target.into_bytes())))
        };
        look().map_err(|error| self.error(path, error))
    }

    /// Returns the path of the working directory of `process` in this root, which is its own.
    ///
    /// # Errors
    ///
    /// `Unsupported` where it is not in it, as after a chroot(2) alone, or was removed.
    pub fn working_directory(&self, process: &ProcessEntry) -> Result<String, EvidenceError> {
        let [directory, root] = process.working_directory()?;
        let root = root.strip_suffix(b"/").unwrap_or(&root);
        let inside = directory.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        let path = inside.and_then(|path| String::from_utf8(path.to_vec()).ok());
        let path = path.map(|path| if path.is_empty() { "/".to_owned() } else { path });
        // What the link says is a name, which may be that of something else in the root.
        let there = rustix::fs::fstat(process.open("cwd", DIRECTORY)?).map(|stat| (stat.st_dev, stat.st_ino));
        match path.filter(|path| there.is_ok_and(|there| self.identity(path) == Ok(there))) {
            Some(path) => Ok(path),
            None => {
                let message = format!(
                    "its working directory {} is not in its root, so what a relative path means to it is not known",
                    String::from_utf8_lossy(&directory)
                );
                Err(EvidenceError::new(ErrorKind::Unsupported, message).at(process.origin("cwd")))
            }
        }
    }

    /// Returns which file system object is at `path`: its device and inode.
    pub fn identity(&self, path: impl AsRef<Path>) -> Result<(u64, u64), EvidenceError> {
        let path = path.as_ref();
        let stat = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC).and_then(rustix::fs::fstat);
        stat.map(|stat| (stat.st_dev, stat.st_ino)).map_err(|error| self.error(path, error))
    }

    /// Returns the Unix socket at `path` as a file descriptor that says which one it is, to connect to.
    pub fn socket(&self, path: impl AsRef<Path>) -> Result<OwnedFd, EvidenceError> {
        let path = path.as_ref();
        let fd = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC);
        let fd = fd.and_then(|fd| Ok((rustix::fs::fstat(&fd)?, fd)));
        match fd.map_err(|error| self.error(path, error))? {
            (stat, fd) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => Ok(fd),
            _ => Err(self.fail(path, ErrorKind::Unsupported, "not a socket")),
        }
    }

    /// Returns the directory at `path` as a file descriptor for use in `*at` system calls.
    pub fn directory(&self, path: impl AsRef<Path>) -> Result<OwnedFd, EvidenceError> {
        let path = path.as_ref();
        self.resolve(path, DIRECTORY).map_err(|error| self.error(path, error))
    }

    /// Returns an error of `kind` about `path`.
    pub fn fail(&self, path: &Path, kind: ErrorKind, what: impl std::fmt::Display) -> EvidenceError {
        EvidenceError::new(kind, format!("{}: {what}", self.origin(path))).at(self.origin(path))
    }

    fn of_directory(fd: OwnedFd, pid: Option<u32>) -> Result<Self, EvidenceError> {
        let root = Self { fd, pid };
        match root.resolve(Path::new("."), DIRECTORY) {
            Ok(_) => Ok(root),
            Err(error) => Err(refused(error).unwrap_or_else(|| root.error(Path::new("/"), error))),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed while the kernel resolved `..`; openat2(2) asks for another attempt.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::BUSY)
    }

    fn error(&self, path: &Path, error: Errno) -> EvidenceError {
        match error {
            Errno::LOOP => {
                let sentence =
                    "symbolic links that lead in a circle, or to an object only the kernel can follow";
                self.fail(path, ErrorKind::Io, sentence)
            }
            // Configured paths are kept as text. One that could not be kept exactly may well exist.
            Errno::NOENT if path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) => self.fail(
                path,
                ErrorKind::Io,
                "a name with bytes that are not UTF-8, which cannot be looked up",
            ),
            Errno::NOTDIR => self.fail(path, ErrorKind::NotFound, "a part of the path is not a directory"),
            error => EvidenceError::from_io(&error.into(), self.origin(path)).at(self.origin(path)),
        }
    }
}

/// What is at a path.
pub(crate) enum Place {
    /// A symbolic link, with what it holds.
    Link(OsString),
    /// Anything else, as a descriptor that only names it.
    Other(OwnedFd, Stat),
}

/// A regular file that is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    file: StdFile,
    stat: Stat,
    path: String,
    origin: Origin,
}

impl OpenFile {
    /// Returns the whole content.
    ///
    /// # Errors
    ///
    /// `TooLarge` when it has more than `cap` bytes.
    pub fn read(&self, cap: usize) -> Result<Vec<u8>, EvidenceError> {
        let size = self.size();
        if size <= cap as u64 {
            match read_capped(&self.file, cap, size as usize) {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(error) => {
                    return Err(EvidenceError::from_io(&error, &self.origin).at(self.origin.clone()));
                }
            }
        }
        let size = if size > cap as u64 { format!("{size} bytes") } else { "still growing".to_owned() };
        let message = format!("{}: {size}, and at most {cap} bytes are read", self.origin);
        Err(EvidenceError::new(ErrorKind::TooLarge, message).at(self.origin.clone()))
    }

    /// Reads bytes at `offset` into `buffer` and returns how many: fewer than asked for, and 0 at the end of
    /// the file.
    ///
    /// # Errors
    ///
    /// As pread(2).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// As pread(2), and `UnexpectedEof` beyond the end.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Returns the size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Returns when the inode was last changed: its content, its name, its owner or its mode. Unlike the time of the
    /// content, which comes along with a file that is moved here or copied with its times, nobody can set it.
    pub fn changed(&self) -> Option<Timestamp> {
        Timestamp::new(self.stat.st_ctime, i32::try_from(self.stat.st_ctime_nsec).ok()?).ok()
    }

    /// Returns owner and mode of the very inode that is read.
    pub fn stat(&self, users: &Users) -> File {
        file(&self.stat, self.path.clone(), self.origin.clone(), users)
    }

    /// Returns the origin of the file.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Reads `file` to its end: `None` when it has more than `cap` bytes. `expected` is a guess, 0 is fine.
pub(crate) fn read_capped(file: &StdFile, cap: usize, expected: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(expected.min(cap).saturating_add(1));
    file.take((cap as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= cap).then_some(bytes))
}

/// Returns the error for a kernel or a seccomp filter (which answers EPERM or ENOSYS) that does not allow
/// openat2(2).
fn refused(error: Errno) -> Option<EvidenceError> {
    matches!(error, Errno::NOSYS | Errno::PERM).then(|| {
        let message = format!(
            "files cannot be read safely: openat2(2) is refused ({error}), so the kernel is older than 5.6 or a \
             seccomp filter forbids it"
        );
        EvidenceError::new(ErrorKind::Unsupported, message)
    })
}

/// Returns the status of `file` if it is one that can be read without effects, else why it is not.
fn regular(file: &OwnedFd) -> Result<Result<Stat, &'static str>, Errno> {
    let stat = rustix::fs::fstat(file)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Ok(Err(kind_sentence(kind)));
    }
    // The width of the type differs between architectures; the numbers have 32 bits.
    let on_pseudo = PSEUDO.contains(&(rustix::fs::fstatfs(file)?.f_type as u32));
    Ok(if on_pseudo { Err("a file that is on a pseudo file system, which is not read") } else { Ok(stat) })
}

/// The magic numbers of file systems whose files the kernel makes up (`linux/magic.h`). Reading one may consume what it
/// holds (`/proc/kmsg`, `trace_pipe`) or wait without end.
const PSEUDO: [u32; 16] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinuxfs
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x1980_0202, // mqueue
];

fn kind_sentence(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice => "a block device, where a regular file is expected",
        FileType::CharacterDevice => "a character device, where a regular file is expected",
        FileType::Directory => "a directory, where a regular file is expected",
        FileType::Fifo => "a FIFO, where a regular file is expected",
        FileType::Socket => "a socket, where a regular file is expected",
        _ => "of an unknown kind, where a regular file is expected",
    }
}

fn file(stat: &Stat, path: String, origin: Origin, users: &Users) -> File {
    let mode = stat.st_mode & 0o7777;
    let on_host = matches!(origin, Origin::File { pid: None, .. });
    File {
        on_node: on_host.then(|| path.clone()),
        path,
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::RegularFile => FileKind::Regular,
            _ => FileKind::Other,
        },
        mode,
        mode_text: format!("{mode:04o}"),
        uid: stat.st_uid,
        gid: stat.st_gid,
        owner: users.user(stat.st_uid).map_or_else(|| stat.st_uid.to_string(), str::to_owned),
        group: users.group(stat.st_gid).map_or_else(|| stat.st_gid.to_string(), str::to_owned),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        origin,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    fn fixture() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir_all(at("etc/pki")).unwrap();
        fs::create_dir_all(at("real")).unwrap();
        fs::write(at("real/ca.crt"), "inside").unwrap();
        symlink("/real/ca.crt", at("etc/pki/absolute")).unwrap();
        symlink("../../real/ca.crt", at("etc/pki/relative")).unwrap();
        symlink("../../../../../../../../etc/passwd", at("etc/pki/escape")).unwrap();
        symlink("/proc/self/root/etc/passwd", at("etc/pki/magic")).unwrap();
        symlink("b", at("etc/pki/a")).unwrap();
        symlink("a", at("etc/pki/b")).unwrap();
        fs::File::create(at("sparse")).unwrap().set_len(100 << 20).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::host(directory.path()).unwrap();
        (directory, root)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (_directory, root) = fixture();
        for path in
            ["/real/ca.crt", "real/ca.crt", "/etc/pki/absolute", "etc/pki/relative", "/../../real/ca.crt"]
        {
            assert_eq!(root.read(path, 100).unwrap(), b"inside", "{path}");
        }
        assert_eq!(root.read_link("/etc/pki/absolute").unwrap().unwrap(), "/real/ca.crt");
        assert_eq!(root.read_link("/real/ca.crt").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_says_why() {
        let (_directory, root) = fixture();
        let cases = [
            ("/etc/pki/escape", ErrorKind::NotFound, "/etc/pki/escape: no such file"),
            ("/etc/pki/magic", ErrorKind::NotFound, "no such file"),
            ("/etc/pki/a", ErrorKind::Io, "in a circle"),
            ("/real/ca.crt/x", ErrorKind::NotFound, "not a directory"),
            ("", ErrorKind::NotFound, "no such file"),
            ("/etc", ErrorKind::Unsupported, "/etc: a directory"),
            ("/fifo", ErrorKind::Unsupported, "/fifo: a FIFO"),
            ("/sparse", ErrorKind::TooLarge, "/sparse: 104857600 bytes, and at most 1000 bytes are read"),
        ];
        for (path, kind, message) in cases {
            let error = root.read(path, 1000).unwrap_err();
            assert_eq!(error.kind, kind, "{path}: {error}");
            assert!(error.message.contains(message), "{path}: {error}");
            assert_eq!(error.origin, Some(Origin::file(path)), "{path}");
        }
        let error = root.list("/real/ca.crt", 10).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert_eq!(Root::host("/nonexistent").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn what_the_kernel_makes_up_is_not_read() {
        let root = Root::host("/").unwrap();
        for path in ["/proc/version", "/proc/kmsg", "/proc/self/status", "/sys/kernel/uevent_seqnum"] {
            let error = root.read(path, 1 << 20).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Unsupported | ErrorKind::NotFound), "{error}");
            assert!(path.starts_with("/sys") || error.message.contains("on a pseudo file system"), "{error}");
        }
    }

    #[test]
    fn only_a_socket_is_connected_to() {
        let (directory, root) = fixture();
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("real/socket")).unwrap();
        symlink("/real/socket", directory.path().join("link")).unwrap();
        assert!(root.socket("/link").is_ok());
        assert_eq!(root.socket("/real/ca.crt").unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(root.socket("/etc/pki/escape").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_magic_link_is_not_followed() {
        let root = Root::host("/").unwrap();
        let error = root.read("/proc/self/root/etc/passwd", 1 << 20).unwrap_err();
        assert!(error.message.contains("only the kernel can follow"), "{error}");
    }

    #[test]
    fn the_cap_is_exact_and_holds_for_files_without_a_size() {
        let (_directory, root) = fixture();
        assert!(root.read("/real/ca.crt", 6).is_ok());
        assert_eq!(root.read("/real/ca.crt", 5).unwrap_err().kind, ErrorKind::TooLarge);
        let sizeless = || StdFile::open("/proc/version").unwrap();
        assert!(read_capped(&sizeless(), 4096, 0).unwrap().is_some());
        assert!(read_capped(&sizeless(), 4, 0).unwrap().is_none());
    }

    #[test]
    fn an_unreadable_file_has_an_owner_and_a_mode_but_no_content() {
        let (directory, root) = fixture();
        fs::set_permissions(directory.path().join("real/ca.crt"), fs::Permissions::from_mode(0o000)).unwrap();
        let root = std::sync::Arc::new(root);
        let shared = root.clone();
        let read = std::thread::spawn(move || {
            // Root may read everything, so this thread, and only this one, gives that capability up.
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            shared.read("/etc/pki/absolute", 100)
        });
        let error = read.join().unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert_eq!(error.message, "/etc/pki/absolute: permission denied");
        let users = Users::parse(format!("me:x:{}:", rustix::process::geteuid().as_raw()).as_bytes(), b"");
        let file = root.stat("/etc/pki/absolute", &users).unwrap();
        assert_eq!((file.kind, file.mode, file.mode_text.as_str()), (FileKind::Regular, 0, "0000"));
        assert_eq!((file.owner.as_str(), file.size), ("me", 6));
        assert_eq!(file.group, file.gid.to_string());
    }

    #[test]
    fn an_open_file_is_read_at_offsets_and_knows_its_inode() {
        let (directory, root) = fixture();
        fs::set_permissions(directory.path().join("real/ca.crt"), fs::Permissions::from_mode(0o4640))
            .unwrap();
        let file = root.open("/etc/pki/absolute").unwrap();
        let mut buffer = [0; 4];
        assert_eq!((file.read_at(&mut buffer, 2).unwrap(), &buffer), (4, b"side"));
        assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 0);
        assert_eq!(file.stat(&Users::default()).mode, 0o4640);
        assert!(file.changed().is_some_and(|at| at.duration_since(Timestamp::now()).as_secs().abs() < 60));
    }

    #[test]
    fn lists_are_sorted_and_capped() {
        let (_directory, root) = fixture();
        assert_eq!(root.list("/etc/pki", 10).unwrap(), ["a", "absolute", "b", "escape", "magic", "relative"]);
        assert_eq!(root.list("/etc/pki", 5).unwrap_err().kind, ErrorKind::TooLarge);
        assert_eq!(root.list("/none", 5).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn without_openat2_nothing_is_read() {
        for errno in [Errno::NOSYS, Errno::PERM] {
            let error = refused(errno).unwrap();
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert!(error.message.contains("openat2(2) is refused"), "{error}");
        }
        assert_eq!(refused(Errno::NOENT), None);
    }
}
