//! Processes, as `/proc` shows them (proc(5)).
//!
//! A [`Proc::scan`] looks at every process just enough to tell whether it is of interest. Everything else
//! about a [`ProcessEntry`] is read below a file descriptor of its `/proc/PID` directory, which dies with the
//! process: when the kernel gives the same pid to another one in the meantime, the reads fail as
//! [`ErrorKind::Vanished`] instead of mixing two processes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File as StdFile;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;
use rustix::time::{ClockId, clock_gettime};
use seaworthy_evidence::{ErrorKind, EvidenceError, Origin, ProcessId};
use seaworthy_settings::{Argument, Variable, may_be_shown};

use crate::cgroup::Cgroup;
use crate::mounts::Mounts;
use crate::root::{Root, read_capped};

/// Most bytes that are read of an argv or an environment; the kernel itself stops at 6 MiB for both together.
const ARGUMENTS_CAP: usize = 2 << 20;
/// Most bytes that are read of any other file.
const FILE_CAP: usize = 1 << 20;
/// Most file descriptors of one process that are looked at.
const DESCRIPTORS_CAP: usize = 1 << 18;
/// Most processes that are looked at: the kernel's own limit (`PID_MAX_LIMIT`).
const PROCESSES_CAP: usize = 1 << 22;
/// How many processes one thread of a scan takes on at least.
const SHARE: usize = 64;
/// Ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 on every Linux whatever its timer does.
const TICKS_PER_SECOND: u64 = 100;
/// How much earlier than it was the time of a file may be, compared with the start of a process: the clock of file systems
/// and that of process starts have a hundredth of a second each.
const ROUNDING: SignedDuration = SignedDuration::from_millis(20);
/// How much a clock may have been set back that is known to have been set forward, or of which nothing is known.
const SET_CLOCK: SignedDuration = SignedDuration::from_mins(5);

/// A mounted process file system.
#[derive(Debug)]
pub struct Proc {
    fd: OwnedFd,
    boot: Arc<Boot>,
}

/// The boot of the kernel, to which the start times of processes are relative.
#[derive(Debug)]
struct Boot {
    /// Its id; empty when it could not be read.
    id: String,
    /// When it was, by the clock as it is set now.
    time: Timestamp,
    /// How much the clock may have been set back since.
    doubt: SignedDuration,
}

/// When a process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which process it is.
    pub identity: ProcessId,
    /// The end of the hundredth of a second in which it was started, by the clock as it is set now.
    pub at: Timestamp,
    /// A file whose time is later than this was changed after the start.
    pub before: Timestamp,
}

impl Proc {
    /// Returns the process file system at `proc` below `root`, or the one at `/proc` when there is none, as
    /// when the host is mounted without it and the audit runs in the host's process namespace.
    ///
    /// # Errors
    ///
    /// When neither is a process file system.
    pub fn of_host(root: &Root) -> Result<Self, EvidenceError> {
        Self::below(root).map_or_else(|| Self::open("/proc"), Ok)
    }

    /// Returns the process file system at `/proc` below `root`; `None` when there is none.
    pub fn below(root: &Root) -> Option<Self> {
        root.directory("/proc").ok().filter(is_procfs).map(Self::of_directory)
    }

    /// Returns the process file system at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is not a process file system.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EvidenceError> {
        let path = path.as_ref();
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|error| EvidenceError::from_io(&error.into(), path.display()))?;
        if !is_procfs(&fd) {
            let message = format!("{}: not a process file system", path.display());
            return Err(EvidenceError::new(ErrorKind::Unsupported, message));
        }
        Ok(Self::of_directory(fd))
    }

    /// Returns when the kernel was started, to which the start times of processes are relative.
    ///
    /// From the kernel's clocks, because `btime` in `/proc/stat` is the same without the fraction of a
    /// second.
    pub fn boot_time(&self) -> Timestamp {
        self.boot.time
    }

    /// Returns the id of the boot; empty when it could not be read.
    pub fn boot_id(&self) -> &str {
        &self.boot.id
    }

    /// Looks at every process once and returns those that are `interesting`. What runs an executable that is `dull` is not.
    ///
    /// Only which file the executable is, is read of the others, and its path the first time, or argv\[0\] where that may not
    /// be seen; of one that is interesting it is read twice.
    ///
    /// # Errors
    ///
    /// When the list of processes cannot be read.
    pub fn scan(
        &self,
        dull: impl Fn(&FileId) -> bool + Sync,
        interesting: impl Fn(&Glimpse<'_>) -> bool + Sync,
    ) -> Result<Scan, EvidenceError> {
        let look = |share: &[u32]| {
            let mut scan = Scan::default();
            let mut buffers = ([0; 4096], [0; 4096]);
            for pid in share {
                match self.executable(*pid).stat() {
                    Ok(id) if dull(&id) => scan.total += 1,
                    // A kernel thread or a zombie.
                    Err(Errno::NOENT) => scan.total += 1,
                    _ => self.look(*pid, &interesting, &mut buffers, &mut scan),
                }
            }
            scan
        };
        let mut scan = self.pids()?.par_chunks(SHARE).map(look).reduce(Scan::default, |mut one, other| {
            one.total += other.total;
            one.unseen += other.unseen;
            one.processes.extend(other.processes);
            one
        });
        scan.processes.sort_unstable_by_key(ProcessEntry::pid);
        Ok(scan)
    }

    /// Returns the number of every process.
    fn pids(&self) -> Result<Vec<u32>, EvidenceError> {
        let failed = |error: Errno| EvidenceError::from_io(&error.into(), "/proc").at(Origin::proc("/proc"));
        let mut pids = Vec::new();
        let directory = rustix::fs::openat(&self.fd, ".", FILE | OFlags::DIRECTORY, Mode::empty());
        for entry in directory.and_then(Dir::new).map_err(failed)? {
            let Some(pid) = parse_ascii(entry.map_err(failed)?.file_name().to_bytes()) else { continue };
            if pids.len() == PROCESSES_CAP {
                let message = format!("/proc: more than {PROCESSES_CAP} processes");
                return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(Origin::proc("/proc")));
            }
            pids.push(pid);
        }
        Ok(pids)
    }

    /// Counts process `pid` into `scan`, and adds it if it is `interesting`. One that has exited meanwhile is none.
    fn look(
        &self,
        pid: u32,
        interesting: impl Fn(&Glimpse<'_>) -> bool,
        buffers: &mut ([u8; 4096], [u8; 4096]),
        scan: &mut Scan,
    ) {
        let Ok(glimpse) = self.glimpse(pid, buffers) else { return };
        scan.total += 1;
        scan.unseen +=
            u32::from(glimpse.is_some_and(|glimpse| glimpse.exe.is_none() && !glimpse.argv0.is_empty()));
        if glimpse.is_some_and(|glimpse| interesting(&glimpse))
            && let Ok(process) = self.process(pid)
            // The pid may have passed to another process before its directory was opened.
            && self.glimpse(pid, buffers).ok().flatten().is_some_and(|glimpse| interesting(&glimpse))
        {
            scan.processes.push(process);
        }
    }

    /// Returns process `pid`.
    ///
    /// # Errors
    ///
    /// `Vanished` when there is none.
    pub fn process(&self, pid: u32) -> Result<ProcessEntry, EvidenceError> {
        match rustix::fs::openat(&self.fd, pid.to_string(), DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(ProcessEntry { pid, fd, boot: Arc::clone(&self.boot) }),
            Err(Errno::NOENT) => Err(vanished(pid)),
            Err(error) => Err(EvidenceError::from_io(&error.into(), format_args!("/proc/{pid}"))),
        }
    }

    /// Returns the executable of process `pid`.
    pub fn executable(&self, pid: u32) -> Executable<'_> {
        Executable { directory: self.fd.as_fd(), name: format!("{pid}/exe"), pid }
    }

    /// Returns the error to report when the file system was mounted so that it hides other users' processes
    /// from the caller (`hidepid=`, proc(5)): what was not seen may well be running.
    pub fn hides_processes(&self) -> Option<EvidenceError> {
        let read = |path: &str| {
            let path = format!("/proc/self/{path}");
            read_capped(&StdFile::open(path).ok()?, FILE_CAP, 0).ok().flatten()
        };
        // The kernel lets those who may trace any process, and with some settings a chosen group, see everything.
        const SYS_PTRACE: u64 = 1 << 19;
        let capabilities = line_value(&read("status")?, b"CapEff:")
            .and_then(|hex| u64::from_str_radix(std::str::from_utf8(hex).ok()?.trim(), 16).ok())?;
        if capabilities & SYS_PTRACE != 0 {
            return None;
        }
        let mount: u32 = field(&read(&format!("fdinfo/{}", self.fd.as_raw_fd()))?, b"mnt_id:")?;
        let hiding = hiding(&read("mountinfo")?, mount)?;
        let exempt_group = hiding.group.is_some_and(|gid| {
            rustix::process::getegid().as_raw() == gid
                || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == gid))
        });
        (!exempt_group).then(|| {
            let message = format!(
                "/proc is mounted with hidepid={}, so processes of other users are hidden: run as root",
                hiding.mode
            );
            EvidenceError::new(ErrorKind::PermissionDenied, message).at(Origin::proc("/proc/self/mountinfo"))
        })
    }

    /// Returns argv\[0\] and executable of process `pid`; `None` for a kernel thread and a zombie, which have
    /// neither. By path, because opening the directory of every process would cost half as much again.
    fn glimpse<'b>(
        &self,
        pid: u32,
        (argv, exe): &'b mut ([u8; 4096], [u8; 4096]),
    ) -> Result<Option<Glimpse<'b>>, Errno> {
        match rustix::fs::readlinkat_raw(&self.fd, format!("{pid}/exe"), &mut exe[..]) {
            Ok(length) => {
                return Ok(exe.get(..length).map(|exe| Glimpse { pid, argv0: &[], exe: Some(exe) }));
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(_) => {}
        }
        // What it is called must do where what it is may not be seen.
        let cmdline = rustix::fs::openat(&self.fd, format!("{pid}/cmdline"), FILE, Mode::empty())?;
        let length = rustix::io::read(cmdline, &mut argv[..])?;
        let argv0 = argv.get(..length).and_then(|argv| argv.split(|&b| b == 0).next()).unwrap_or_default();
        Ok(Some(Glimpse { pid, argv0, exe: None }))
    }

    fn of_directory(fd: OwnedFd) -> Self {
        // In this order, because whatever passes between the two makes processes younger, and not older, than they are.
        let [up, now] = [ClockId::Boottime, ClockId::Realtime].map(|clock| {
            let time = clock_gettime(clock);
            SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
        });
        let time = Timestamp::from_duration(now - up).unwrap_or(Timestamp::UNIX_EPOCH);
        let id = read_small(&fd, "sys/kernel/random/boot_id").unwrap_or_default();
        let id = String::from_utf8_lossy(id.trim_ascii()).into_owned();
        let first =
            read_small(&fd, "1/stat").and_then(|stat| since_boot(time, parse_stat(&stat)?.start_ticks));
        let doubt = doubt(mounted_at(&fd), first);
        Self { fd, boot: Arc::new(Boot { id, time, doubt }) }
    }
}

/// What a [`Proc::scan`] found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The interesting processes, by pid.
    pub processes: Vec<ProcessEntry>,
    /// How many processes were seen, kernel threads included.
    pub total: u32,
    /// Of how many of them the executable may not be seen, so that only what they are called is known.
    pub unseen: u32,
}

/// What a [`Proc::scan`] knows of a process when it asks whether it is of interest.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<'a> {
    /// Process id.
    pub pid: u32,
    /// argv\[0\]; empty when the executable could be read, which decides.
    pub argv0: &'a [u8],
    /// What `/proc/PID/exe` points at; `None` when it could not be read.
    pub exe: Option<&'a [u8]>,
}

impl<'a> Glimpse<'a> {
    /// Returns the file name of the executable; `None` when it could not be read.
    pub fn program(&self) -> Option<&'a [u8]> {
        // The kernel appends this when the file was replaced, as an upgrade does.
        self.exe.map(|exe| file_name(exe.strip_suffix(b" (deleted)").unwrap_or(exe)))
    }

    /// Returns the file name in argv\[0\].
    pub fn argv0_name(&self) -> &'a [u8] {
        file_name(self.argv0)
    }
}

/// One process.
#[derive(Debug)]
pub struct ProcessEntry {
    pid: u32,
    fd: OwnedFd,
    boot: Arc<Boot>,
}

impl ProcessEntry {
    /// Returns the process id, in the process namespace of the file system it was found in.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the origin of `name` in the process's directory.
    pub fn origin(&self, name: &str) -> Origin {
        Origin::proc(self.path(name))
    }

    /// Returns the arguments; empty for a zombie and for a kernel thread.
    ///
    /// # Errors
    ///
    /// `TooLarge` above 2 MiB. As for every method: `Vanished` when the process has exited,
    /// `PermissionDenied`.
    pub fn argv(&self) -> Result<Vec<Argument>, EvidenceError> {
        let bytes = self.read("cmdline", ARGUMENTS_CAP)?;
        let argument = |(index, text): (u32, &[u8])| Argument {
            text: text.to_vec(),
            origin: Origin::Argv { pid: self.pid, index },
        };
        Ok((0..).zip(terminated(&bytes)).map(argument).collect())
    }

    /// Returns the environment it was started with: only the variables that [`may_be_shown`], the others are
    /// dropped at once.
    ///
    /// # Errors
    ///
    /// `TooLarge` above 2 MiB.
    pub fn environ(&self) -> Result<Vec<Variable>, EvidenceError> {
        let bytes = self.read("environ", ARGUMENTS_CAP)?;
        let variable = |entry: &[u8]| {
            let at = entry.iter().position(|&b| b == b'=')?;
            let (name, value) = (entry.get(..at)?, entry.get(at + 1..)?);
            let shown = may_be_shown(name).then(|| String::from_utf8_lossy(name).into_owned())?;
            let origin = Origin::Environment { pid: self.pid, name: shown.clone() };
            Some(Variable { name: shown, value: value.to_vec(), origin })
        };
        Ok(terminated(&bytes).filter_map(variable).collect())
    }

    /// Returns the path of its executable, with ` (deleted)` behind it when the file was replaced.
    ///
    /// # Errors
    ///
    /// `NotFound` for a kernel thread and a zombie.
    pub fn exe(&self) -> Result<Vec<u8>, EvidenceError> {
        self.read_link("exe")
    }

    /// Returns its executable.
    pub fn executable(&self) -> Executable<'_> {
        Executable { directory: self.fd.as_fd(), name: "exe".to_owned(), pid: self.pid }
    }

    /// Returns name, parent and start of the process.
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn stat(&self) -> Result<ProcessStat, EvidenceError> {
        let bytes = self.read("stat", FILE_CAP)?;
        parse_stat(&bytes).ok_or_else(|| self.malformed("stat"))
    }

    /// Returns which process it is, and when it was started (field 22 of `stat`, plus the boot time).
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn start(&self) -> Result<Start, EvidenceError> {
        let start_ticks = self.stat()?.start_ticks;
        let at = since_boot(self.boot.time, start_ticks).ok_or_else(|| self.malformed("stat"))?;
        let before = at.checked_add(self.boot.doubt).unwrap_or(Timestamp::MAX);
        let identity = ProcessId { boot_id: self.boot.id.clone(), pid: self.pid, start_ticks };
        Ok(Start { identity, at, before })
    }

    /// Returns its effective user and group id, as seen in the user namespace of the audit.
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn credentials(&self) -> Result<(u32, u32), EvidenceError> {
        let bytes = self.read("status", FILE_CAP)?;
        // real, effective, saved, file system
        let effective = |name: &[u8]| words(line_value(&bytes, name)?).nth(1).and_then(parse_ascii);
        effective(b"Uid:").zip(effective(b"Gid:")).ok_or_else(|| self.malformed("status"))
    }

    /// Returns by which user, groups and capabilities the kernel decides which files it may use, as seen in the user namespace
    /// of the audit.
    pub fn file_identity(&self) -> Result<FileIdentity, EvidenceError> {
        let bytes = self.read("status", FILE_CAP)?;
        parse_file_identity(&bytes).ok_or_else(|| self.malformed("status"))
    }

    /// Returns `uid_map` or `gid_map` of its user namespace.
    pub fn id_map(&self, name: &str) -> Result<Vec<IdRange>, EvidenceError> {
        parse_id_map(&self.read(name, FILE_CAP)?).ok_or_else(|| self.malformed(name))
    }

    /// Returns whether every user and group of the machine has a number in the user namespace of the audit.
    pub fn sees_every_user() -> bool {
        let whole = |name: &str| {
            let map = std::fs::read(format!("/proc/self/{name}")).ok();
            let map = map.and_then(|map| parse_id_map(&map)).unwrap_or_default();
            matches!(map.as_slice(), [IdRange { inside: 0, count: u32::MAX, .. }])
        };
        whole("uid_map") && whole("gid_map")
    }

    /// Returns its control groups.
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn cgroup(&self) -> Result<Cgroup, EvidenceError> {
        Ok(Cgroup::parse(&self.read("cgroup", FILE_CAP)?))
    }

    /// Returns its mounts.
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn mounts(&self) -> Result<Mounts, EvidenceError> {
        Ok(Mounts::parse(&self.read("mountinfo", FILE_CAP)?))
    }

    /// Returns whether its namespace of kind `kind` (`mnt`, `net`, `pid`, …) is not that of the audit.
    ///
    /// # Errors
    ///
    /// As for every method.
    pub fn has_own_namespace(&self, kind: &str) -> Result<bool, EvidenceError> {
        let own = format!("/proc/self/ns/{kind}");
        let own = std::fs::read_link(&own).map_err(|error| EvidenceError::from_io(&error, own))?;
        Ok(self.namespace(kind)? != own.as_os_str().as_bytes())
    }

    /// Returns the name of its namespace of this kind, which is the same for all processes in it: `net:[4026531840]`.
    pub(crate) fn namespace(&self, kind: &str) -> Result<Vec<u8>, EvidenceError> {
        self.read_link(&format!("ns/{kind}"))
    }

    /// Returns its working directory, and its root, as paths from the root of the audit, or from that of its mount namespace
    /// where that is another.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` for another user's process.
    pub fn working_directory(&self) -> Result<[Vec<u8>; 2], EvidenceError> {
        Ok([self.read_link("cwd")?, self.read_link("root")?])
    }

    /// Moves the calling thread, and what it starts, into the network namespace of this process. There is no way back:
    /// the thread is to end when it is done.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn enter_network(&self) -> Result<(), EvidenceError> {
        self.enter("ns/net", LinkNameSpaceType::Network, "network")
    }

    /// Moves the calling thread into the namespace of host names of this process, as [`ProcessEntry::enter_network`] does.
    pub fn enter_names(&self) -> Result<(), EvidenceError> {
        self.enter("ns/uts", LinkNameSpaceType::HostNameAndNISDomainName, "UTS")
    }

    fn enter(&self, name: &str, kind: LinkNameSpaceType, called: &str) -> Result<(), EvidenceError> {
        let namespace = self.open(name, FILE)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).map_err(|error| {
            let what = format!("the {called} namespace of pid {}", self.pid);
            EvidenceError::from_io(&error.into(), what).at(self.origin(name))
        })
    }

    /// Returns the inodes of its open sockets.
    ///
    /// # Errors
    ///
    /// `TooLarge` when it has more than 262,144 files open.
    pub fn socket_inodes(&self) -> Result<HashSet<u64>, EvidenceError> {
        let mut inodes = HashSet::new();
        self.for_each_open(&mut [0; 64], |target| {
            let inode = target.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
            inodes.extend(inode.and_then(parse_ascii::<u64>));
        })?;
        Ok(inodes)
    }

    /// Returns the paths of its open files that are `wanted`, as the process sees them.
    ///
    /// # Errors
    ///
    /// As [`ProcessEntry::socket_inodes`].
    pub fn open_paths(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, EvidenceError> {
        let mut paths = Vec::new();
        self.for_each_open(&mut [0; 4096], |path| paths.extend(wanted(path).then(|| path.to_vec())))?;
        Ok(paths)
    }

    /// Calls `visit` with what each of its file descriptors refers to, as far as `target` can hold it.
    fn for_each_open(&self, target: &mut [u8], mut visit: impl FnMut(&[u8])) -> Result<(), EvidenceError> {
        let directory = self.open("fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let entries = Dir::read_from(&directory).map_err(|error| self.error("fd", error))?;
        for (count, entry) in entries.enumerate() {
            if count > DESCRIPTORS_CAP {
                let message = format!("{}: more than {DESCRIPTORS_CAP} open files", self.path("fd"));
                return Err(EvidenceError::new(ErrorKind::TooLarge, message).at(self.origin("fd")));
            }
            let entry = entry.map_err(|error| self.error("fd", error))?;
            let length = match rustix::fs::readlinkat_raw(&directory, entry.file_name(), &mut *target) {
                Ok(length) => length,
                // Closed since, or one of `.` and `..`.
                Err(Errno::NOENT | Errno::INVAL) => continue,
                Err(error) => return Err(self.error("fd", error)),
            };
            visit(target.get(..length).unwrap_or_default());
        }
        Ok(())
    }

    /// Opens `name` in the process's directory.
    pub(crate) fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd, EvidenceError> {
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|error| self.error(name, error))
    }

    /// Opens the file `name` in the process's directory for reading.
    pub(crate) fn open_file(&self, name: &str) -> Result<StdFile, EvidenceError> {
        self.open(name, FILE).map(StdFile::from)
    }

    /// Returns the error for a failed system call on `name`.
    pub(crate) fn error(&self, name: &str, error: Errno) -> EvidenceError {
        let gone =
            || rustix::fs::accessat(&self.fd, "stat", rustix::fs::Access::EXISTS, AtFlags::empty()).is_err();
        match error {
            Errno::SRCH => vanished(self.pid),
            Errno::NOENT if gone() => vanished(self.pid),
            error => EvidenceError::from_io(&error.into(), self.path(name)).at(self.origin(name)),
        }
    }

    fn read(&self, name: &str, cap: usize) -> Result<Vec<u8>, EvidenceError> {
        match read_capped(&self.open_file(name)?, cap, 4096) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => {
                let message = format!("{}: more than the {cap} bytes that are read at most", self.path(name));
                Err(EvidenceError::new(ErrorKind::TooLarge, message).at(self.origin(name)))
            }
            Err(error) => Err(match Errno::from_io_error(&error) {
                Some(errno) => self.error(name, errno),
                None => EvidenceError::from_io(&error, self.path(name)).at(self.origin(name)),
            }),
        }
    }

    fn read_link(&self, name: &str) -> Result<Vec<u8>, EvidenceError> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new());
        target.map(|target| target.into_bytes()).map_err(|error| self.error(name, error))
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    fn malformed(&self, name: &str) -> EvidenceError {
        let message = format!("{}: not of the form that proc(5) describes", self.path(name));
        EvidenceError::new(ErrorKind::Malformed, message).at(self.origin(name))
    }
}

/// The file that a process runs, which can be read also where it has no name any more.
#[derive(Clone, Debug)]
pub struct Executable<'a> {
    directory: BorrowedFd<'a>,
    name: String,
    pid: u32,
}

/// What tells one file from every other, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    several_names: bool,
}

impl Executable<'_> {
    /// Returns which file it is.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`; `NotFound` for a kernel thread and a zombie, which have none, and when the process has exited.
    pub fn id(&self) -> Result<FileId, EvidenceError> {
        self.stat().map_err(|error| self.error(error))
    }

    fn stat(&self) -> Result<FileId, Errno> {
        Ok(FileId::of(&rustix::fs::statat(self.directory, &self.name, AtFlags::empty())?))
    }

    /// Opens it for reading, and returns which file that is.
    ///
    /// # Errors
    ///
    /// As [`Executable::id`].
    pub fn open(&self) -> Result<(StdFile, FileId), EvidenceError> {
        let file = rustix::fs::openat(self.directory, &self.name, FILE, Mode::empty());
        let opened = file.and_then(|file| Ok((FileId::of(&rustix::fs::fstat(&file)?), file.into())));
        opened.map(|(id, file)| (file, id)).map_err(|error| self.error(error))
    }

    /// Returns where it is.
    pub fn origin(&self) -> Origin {
        Origin::proc(format!("/proc/{}/exe", self.pid))
    }

    fn error(&self, error: Errno) -> EvidenceError {
        EvidenceError::from_io(&error.into(), self.origin()).at(self.origin())
    }
}

impl FileId {
    fn of(stat: &rustix::fs::Stat) -> Self {
        let modified = (stat.st_mtime, stat.st_mtime_nsec);
        let several_names = stat.st_nlink > 1;
        Self { device: stat.st_dev, inode: stat.st_ino, size: stat.st_size, modified, several_names }
    }

    /// Returns whether it has several names (hard links), so that not all that run it need be called the same.
    pub fn has_several_names(&self) -> bool {
        self.several_names
    }
}

/// The part of `/proc/PID/status` by which the kernel decides which files a process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Its effective capabilities, by the bits of their numbers.
    pub(crate) capabilities: u64,
}

/// A line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

fn parse_file_identity(status: &[u8]) -> Option<FileIdentity> {
    let words = |name: &[u8]| Some(words(line_value(status, name)?));
    // real, effective, saved, file system
    let of_files = |name: &[u8]| words(name)?.nth(3).and_then(parse_ascii);
    let capabilities = std::str::from_utf8(words(b"CapEff:")?.next()?).ok()?;
    Some(FileIdentity {
        uid: of_files(b"Uid:")?,
        gid: of_files(b"Gid:")?,
        groups: words(b"Groups:")?.map(parse_ascii).collect::<Option<_>>()?,
        capabilities: u64::from_str_radix(capabilities, 16).ok()?,
    })
}

fn parse_id_map(map: &[u8]) -> Option<Vec<IdRange>> {
    let lines = map.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    let range = |line| {
        let mut numbers = words(line).map(parse_ascii);
        let mut next = || numbers.next().flatten();
        Some(IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    lines.map(range).collect()
}

/// Returns the words of a line.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A part of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The name the kernel keeps, at most 15 bytes.
    pub name: Vec<u8>,
    /// The state: `R`, `S`, `Z` for a zombie, ….
    pub state: u8,
    /// Process id of the parent.
    pub parent: u32,
    /// When it was started, in hundredths of a second since the kernel was.
    pub start_ticks: u64,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

fn is_procfs(fd: &OwnedFd) -> bool {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type as u64 == PROC_SUPER_MAGIC)
}

/// Returns the content of a file that the kernel keeps short.
fn read_small(proc: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = rustix::fs::openat(proc, name, FILE, Mode::empty()).ok()?;
    read_capped(&file.into(), FILE_CAP, 0).ok().flatten()
}

/// Returns when the process file system `proc` was mounted, by the clock as it was set then: the kernel sets the times of
/// its root directory then, and never again.
fn mounted_at(proc: &OwnedFd) -> Option<Timestamp> {
    let stat = rustix::fs::fstat(proc).ok()?;
    Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).ok()?).ok()
}

/// Returns the end of the tick after the boot at `boot`, because the kernel tells no more of when in it something was.
fn since_boot(boot: Timestamp, ticks: u64) -> Option<Timestamp> {
    let milliseconds = ticks.saturating_add(1).saturating_mul(1000 / TICKS_PER_SECOND);
    boot.checked_add(SignedDuration::from_millis(i64::try_from(milliseconds).ok()?)).ok()
}

/// Returns how much the clock may have been set back since the boot.
///
/// The kernel adds what a clock is set forward to the start times that it derives, also to those of the past, and subtracts
/// what it is set back; the times of files stay as they are. The process file system was mounted after its first process
/// was started. If it seems to have been mounted much later, either it was, or the clock was set back meanwhile, and a file
/// that seems to be younger than a process by no more than that may be older. If it seems to have been mounted before, the
/// clock was set forward, which makes no file look younger than it is; but nothing tells whether it was set back as well.
fn doubt(mounted_at: Option<Timestamp>, first_started_at: Option<Timestamp>) -> SignedDuration {
    let Some((mounted, first)) = mounted_at.zip(first_started_at) else { return SET_CLOCK };
    match mounted.duration_since(first) {
        forward if forward < -ROUNDING => SET_CLOCK,
        later => later.max(SignedDuration::ZERO).saturating_add(ROUNDING),
    }
}

fn vanished(pid: u32) -> EvidenceError {
    let message = format!("pid {pid}: the process exited while it was being looked at");
    EvidenceError::new(ErrorKind::Vanished, message).at(Origin::proc(format!("/proc/{pid}")))
}

/// Returns the NUL-terminated strings in `bytes`. The last may lack its terminator, when the process has
/// overwritten it.
fn terminated(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    inner.split(|&b| b == 0).take(if bytes.is_empty() { 0 } else { usize::MAX })
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

pub(crate) fn parse_ascii<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns what follows `name` at the beginning of a line of `text`.
fn line_value<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name))
}

fn field<T: std::str::FromStr>(text: &[u8], name: &[u8]) -> Option<T> {
    parse_ascii(line_value(text, name)?.trim_ascii())
}

fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    // The name may hold parentheses, spaces and newlines, and nothing after it does.
    let (open, close) = (text.iter().position(|&b| b == b'(')?, text.iter().rposition(|&b| b == b')')?);
    let name = text.get(open + 1..close)?.to_vec();
    // Numbered as in proc(5), where the state is field 3.
    let mut fields = text.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
    Some(ProcessStat {
        name,
        state: *fields.next()?.first()?,
        parent: parse_ascii(fields.next()?)?,
        start_ticks: parse_ascii(fields.nth(22 - 5)?)?,
    })
}

/// How a process file system hides processes.
#[derive(Debug, PartialEq, Eq)]
struct Hiding {
    mode: String,
    group: Option<u32>,
}

/// Returns how mount `id` in `mountinfo` (proc(5)) hides processes; `None` when it does not.
fn hiding(mountinfo: &[u8], id: u32) -> Option<Hiding> {
    let words = |line: &'_ [u8]| line.split(|&b| b == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let lines = mountinfo.split(|&b| b == b'\n').map(words);
    let line = lines.into_iter().find(|words| words.first().and_then(|w| parse_ascii(w)) == Some(id))?;
    let option = |name: &[u8]| {
        let options = line.last()?.split(|&b| b == b',');
        options
            .filter_map(|o| o.strip_prefix(name))
            .next_back()
            .map(|v| OsStr::from_bytes(v).to_string_lossy())
    };
    let mode = option(b"hidepid=")?.into_owned();
    // `ptraceable` has no group that is exempt.
    let group =
        option(b"gid=").and_then(|gid| gid.parse().ok()).filter(|_| !matches!(&*mode, "4" | "ptraceable"));
    (!matches!(&*mode, "0" | "off")).then_some(Hiding { mode, group })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;

    fn own() -> ProcessEntry {
        Proc::open("/proc").unwrap().process(std::process::id()).unwrap()
    }

    /// A child that is killed whatever happens, once its exec is done.
    struct Sleeper(Child);

    impl Sleeper {
        fn new(argv0: &[u8], arguments: &[&[u8]], variables: &[(&str, &[u8])]) -> Self {
            let mut command = Command::new("/bin/sleep");
            command.arg0(OsStr::from_bytes(argv0)).env_clear();
            command.args(arguments.iter().map(|a| OsStr::from_bytes(a)));
            command.envs(variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value))));
            let child = Self(command.spawn().unwrap());
            // The kernel lets the parent go on before it has set the child's arguments up.
            while std::fs::read(format!("/proc/{}/cmdline", child.0.id())).unwrap().is_empty() {
                std::thread::yield_now();
            }
            child
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn hostile_arguments_are_bytes() {
        let argv0 = b"et\ncd \xff\xfe";
        let child = Sleeper::new(
            argv0,
            &[b"\n60", b"0x0"],
            &[
                ("ETCD_NAME", b"a=b\n\xff"),
                ("ETCD_ROOT_PASSWORD", b"hunter2"),
                ("SECRET", b"hunter2"),
                ("SSL_CERT_DIR", b""),
            ],
        );
        let proc = Proc::open("/proc").unwrap();
        let scan =
            proc.scan(|_| false, |glimpse| glimpse.pid == child.0.id() && glimpse.exe.is_some()).unwrap();
        let [process] = &scan.processes[..] else { panic!("{scan:?}") };
        let argv = process.argv().unwrap();
        assert_eq!(argv.iter().map(|a| &*a.text).collect::<Vec<_>>(), [&argv0[..], b"\n60", b"0x0"]);
        assert_eq!(argv[2].origin, Origin::Argv { pid: child.0.id(), index: 2 });
        let variables: Vec<_> = process.environ().unwrap().into_iter().map(|v| (v.name, v.value)).collect();
        assert_eq!(
            variables,
            [("ETCD_NAME".to_owned(), b"a=b\n\xff".to_vec()), ("SSL_CERT_DIR".to_owned(), Vec::new())]
        );
        assert!(process.exe().unwrap().starts_with(b"/"));
        assert_eq!(process.stat().unwrap().parent, std::process::id());
    }

    #[test]
    fn a_process_that_exits_has_vanished() {
        let mut child = Sleeper::new(b"x", &[b"60"], &[]);
        let process = Proc::open("/proc").unwrap().process(child.0.id()).unwrap();
        assert!(!process.argv().unwrap().is_empty());
        child.0.kill().unwrap();

        // Until it is waited for it is a zombie: its directory exists, its arguments do not.
        while process.stat().unwrap().state != b'Z' {
            std::thread::yield_now();
        }
        assert_eq!(process.argv().unwrap(), []);
        assert_eq!(process.exe().unwrap_err().kind, ErrorKind::NotFound);

        child.0.wait().unwrap();
        let errors = [
            process.argv().unwrap_err(),
            process.environ().unwrap_err(),
            process.exe().unwrap_err(),
            process.stat().unwrap_err(),
            process.credentials().unwrap_err(),
            process.socket_inodes().unwrap_err(),
            process.has_own_namespace("net").unwrap_err(),
            Root::of_process(&process).unwrap_err(),
            Proc::open("/proc").unwrap().process(process.pid()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Vanished, "{error}");
        }
    }

    #[test]
    fn what_belongs_to_others_is_denied() {
        let denied = std::thread::spawn(|| {
            // What this thread does is its own work, and no other's.
            let _pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
            // Root may look at everything, so this thread, and only this one, gives its capabilities up.
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective = rustix::thread::CapabilitySet::empty();
            rustix::thread::set_capabilities(None, sets).unwrap();
            let proc = Proc::open("/proc").unwrap();
            let scan = proc.scan(|_| false, |glimpse| glimpse.pid == 1).unwrap();
            let [init] = &scan.processes[..] else { panic!("{scan:?}") };
            assert!(init.argv().is_ok() && init.credentials().is_ok());
            let errors = [
                init.environ().unwrap_err(),
                init.exe().unwrap_err(),
                init.socket_inodes().unwrap_err(),
                init.has_own_namespace("mnt").unwrap_err(),
                Root::of_process(init).unwrap_err(),
            ];
            errors.map(|error| (error.kind, error.message))
        });
        let names = ["environ", "exe", "fd", "ns/mnt", "root"];
        let want = names.map(|n| (ErrorKind::PermissionDenied, format!("/proc/1/{n}: permission denied")));
        assert_eq!(denied.join().unwrap(), want);
    }

    #[test]
    fn a_process_is_described() {
        let process = own();
        assert_eq!(process.stat().unwrap().parent, std::os::unix::process::parent_id());
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!(process.credentials().unwrap(), ids);
        assert!(!process.has_own_namespace("mnt").unwrap());
        let age = Timestamp::now().duration_since(process.start().unwrap().at);
        assert!((-1..3600).contains(&age.as_secs()), "{age}");
        let root = Root::of_process(&process).unwrap();
        assert_eq!(root.pid(), Some(process.pid()));
        let error = root.read("/does/not/exist", 1).unwrap_err();
        let sentence = format!("/does/not/exist as pid {} sees it: no such file", process.pid());
        assert_eq!((error.kind, error.message), (ErrorKind::NotFound, sentence));
    }

    #[test]
    fn a_file_that_was_written_just_before_a_process_was_started_is_older() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.crt");
        let written = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Timestamp::try_from(file.metadata().unwrap().modified().unwrap()).unwrap()
        };
        for _ in 0..20 {
            let before = written("before");
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let started_at = Proc::open("/proc").unwrap().process(child.id()).unwrap().start().unwrap().at;
            std::thread::sleep(std::time::Duration::from_millis(30));
            let after = written("after");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(before < started_at && started_at < after, "{before} {started_at} {after}");
        }
    }

    #[test]
    fn a_process_has_one_identity_whenever_it_is_looked_at() {
        let child = Sleeper::new(b"x", &[b"60"], &[]);
        let look = |pid| Proc::open("/proc").unwrap().process(pid).unwrap().start().unwrap().identity;
        let (one, own) = (look(child.0.id()), look(std::process::id()));
        assert_eq!(look(child.0.id()), one);
        assert_ne!(own, one);
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let stat = std::fs::read(format!("/proc/{}/stat", one.pid)).unwrap();
        let start_ticks = parse_stat(&stat).unwrap().start_ticks;
        let want = ProcessId { boot_id: id.trim().to_owned(), pid: child.0.id(), start_ticks };
        assert_eq!(one, want);
    }

    #[test]
    fn a_clock_that_was_set_leaves_doubt() {
        let at = |milliseconds| Timestamp::from_millisecond(milliseconds).ok();
        let hour = 3_600_000;
        let cases = [
            ("mounted at once", at(hour), at(hour), ROUNDING),
            ("mounted two seconds later", at(hour + 2000), at(hour), SignedDuration::from_millis(2020)),
            ("rounded", at(hour - 15), at(hour), ROUNDING),
            ("set back by an hour", at(2 * hour), at(hour), SignedDuration::from_millis(hour + 20)),
            ("set forward by an hour", at(hour), at(2 * hour), SET_CLOCK),
            ("no first process to be seen", at(hour), None, SET_CLOCK),
            ("no time", None, at(hour), SET_CLOCK),
        ];
        for (about, mounted, first, want) in cases {
            assert_eq!(doubt(mounted, first), want, "{about}");
        }
        let start = own().start().unwrap();
        assert!(start.before >= start.at.checked_add(ROUNDING).unwrap());
    }

    #[test]
    fn boot_time_agrees_with_the_kernels() {
        let proc = Proc::of_host(&Root::host("/").unwrap()).unwrap();
        let btime: i64 = field(&std::fs::read("/proc/stat").unwrap(), b"btime ").unwrap();
        assert!((proc.boot_time().as_second() - btime).abs() <= 1);
    }

    #[test]
    fn a_root_without_proc_falls_back_and_another_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("proc")).unwrap();
        let proc = Proc::of_host(&Root::host(directory.path()).unwrap()).unwrap();
        assert!(proc.process(std::process::id()).is_ok());
        assert_eq!(Proc::open(directory.path()).unwrap_err().kind, ErrorKind::Unsupported);
    }

    #[test]
    fn a_scan_is_cheap() {
        let children: Vec<_> = (0..300).map(|_| Sleeper::new(b"filler", &[b"60"], &[])).collect();
        let proc = Proc::open("/proc").unwrap();
        let best = (0..5).map(|_| {
            let started = Instant::now();
            let scan = proc.scan(|_| false, |glimpse| glimpse.program() == Some(b"etcd")).unwrap();
            assert!(scan.total as usize > children.len());
            (started.elapsed(), scan.total)
        });
        let (time, total) = best.min().unwrap();
        println!("scan of {total} processes: {time:?}");
        assert!(time.as_millis() < 200, "{time:?}");
    }

    #[test]
    fn programs_are_named_by_their_file() {
        type Bytes = &'static [u8];
        let cases: [(Bytes, Option<Bytes>, Bytes, Option<Bytes>); 4] = [
            (b"etcd", Some(b"/usr/bin/etcd"), b"etcd", Some(b"etcd")),
            (b"/usr/bin/etcd", Some(b"/usr/bin/etcd (deleted)"), b"etcd", Some(b"etcd")),
            (b"", None, b"", None),
            (b"dir/", Some(b"/"), b"", Some(b"")),
        ];
        for (argv0, exe, name, program) in cases {
            let glimpse = Glimpse { pid: 1, argv0, exe };
            assert_eq!((glimpse.argv0_name(), glimpse.program()), (name, program));
        }
    }

    #[test]
    fn stat_with_any_name() {
        let rest = " S 42 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 0 0";
        for name in ["etcd", "a) R 1 (b", "x y\nz", ""] {
            let stat = parse_stat(format!("7 ({name}){rest}").as_bytes()).unwrap();
            let want = ProcessStat { name: name.into(), state: b'S', parent: 42, start_ticks: 123_456 };
            assert_eq!(stat, want);
        }
        for text in ["", "7 (x", "7 )x(", "7 (x) S", "7 (x) S 1 2 3"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn hiding_mounts_are_recognised() {
        let line = |options| {
            format!("21 1 0:1 / / rw - ext4 x rw,hidepid=2\n22 27 0:21 / /proc rw - proc proc {options}\n")
        };
        let cases = [
            ("rw", None),
            ("rw,hidepid=0", None),
            ("rw,hidepid=off", None),
            ("rw,hidepid=2", Some(("2", None))),
            ("rw,gid=5,hidepid=invisible", Some(("invisible", Some(5)))),
            ("rw,hidepid=ptraceable,gid=5", Some(("ptraceable", None))),
        ];
        for (options, want) in cases {
            let got = hiding(line(options).as_bytes(), 22);
            assert_eq!(got.as_ref().map(|h| (h.mode.as_str(), h.group)), want, "{options}");
        }
        assert_eq!(hiding(line("hidepid=2").as_bytes(), 23), None);
        assert_eq!(Proc::open("/proc").unwrap().hides_processes(), None);
    }
}
