//! What another process may do with a file: the kernel's own decision (path_resolution(7), acl(5), capabilities(7)), made for a
//! process that is not the one that asks.
//!
//! What the kernel decides by other means is not known here: security modules, and file systems whose server decides.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use seaworthy_evidence::{ErrorKind, EvidenceError, FileAccess, Observed, Origin};

use crate::procfs::ProcessEntry;
use crate::root::{Place, Root};
use crate::users::{Account, Users};

/// Permission to read, as a bit of one class of a mode.
pub const READ: u32 = 0o4;
/// Permission to write.
pub const WRITE: u32 = 0o2;
/// Permission to search a directory.
pub const SEARCH: u32 = 0o1;

/// Most symbolic links that the kernel follows on one path.
const MAX_LINKS: usize = 40;
/// Most bytes of an access control list: the kernel's own limit for an extended attribute.
const ACL_CAP: usize = 1 << 16;
/// What stands for a user or group that has no number in the user namespace of the audit.
const UNMAPPED: u32 = 65534;
/// A number that no user and no group has.
const NOBODY: u32 = u32::MAX - 1;

/// Who asks for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The user by whom files are judged, as the audit sees it.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// CAP_DAC_OVERRIDE.
    pub(crate) overrides: bool,
    /// CAP_DAC_READ_SEARCH.
    pub(crate) reads_all: bool,
    /// The users and groups whose files its capabilities are good for.
    pub(crate) scope: Scope,
}

/// The users and groups that have a number in the user namespace of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    #[default]
    Everyone,
    Some {
        users: Vec<Range>,
        groups: Vec<Range>,
        /// Whether the audit itself does not see all numbers.
        blurred: bool,
    },
}

/// The first number, and how many.
type Range = (u32, u32);

/// What decides who may use a file or directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inode {
    pub(crate) directory: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its access control list; `None` when the mode is all there is.
    pub(crate) acl: Result<Option<Vec<AclEntry>>, EvidenceError>,
}

/// One entry of an access control list (acl(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AclEntry {
    tag: u16,
    permissions: u32,
    id: u32,
}

/// The tags of entries, as the kernel has them in the extended attribute (`linux/posix_acl.h`).
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

impl Subject {
    /// Returns who `process` is when it asks for a file.
    pub(crate) fn of_process(process: &ProcessEntry) -> Result<Self, EvidenceError> {
        let identity = process.file_identity()?;
        // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h).
        let has = |capability: u32| identity.capabilities >> capability & 1 == 1;
        let mut subject = Self {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            overrides: has(1),
            reads_all: has(2),
            scope: Scope::Everyone,
        };
        if subject.overrides || subject.reads_all {
            let foreign = process.has_own_namespace("user")?;
            let ranges = |name: &str| -> Result<Vec<Range>, EvidenceError> {
                // A map is told in numbers of the reader's namespace, or of the one above it when the reader is in the same.
                let ranges = process.id_map(name)?;
                Ok(ranges.iter().map(|r| (if foreign { r.outside } else { r.inside }, r.count)).collect())
            };
            let (users, groups) = (ranges("uid_map")?, ranges("gid_map")?);
            let whole = |ranges: &[Range]| ranges == [(0, u32::MAX)];
            if !(whole(&users) && whole(&groups)) {
                let blurred = !foreign || !ProcessEntry::sees_every_user();
                subject.scope = Scope::Some { users, groups, blurred };
            }
        }
        Ok(subject)
    }

    /// Returns whoever may be meant by owners, groups, modes and lists of `inodes`, and is neither root nor `own`, each with how to
    /// call it.
    fn others<'i>(own: &Self, inodes: impl Iterator<Item = &'i Inode>, users: &Users) -> Vec<(Self, String)> {
        let nobody = Self { uid: NOBODY, gid: NOBODY, ..Self::default() };
        let (mut uids, mut gids) = (BTreeSet::new(), BTreeSet::new());
        for inode in inodes {
            uids.insert(inode.uid);
            gids.insert(inode.gid);
            let entries = inode.acl.as_ref().ok().and_then(Option::as_deref).unwrap_or_default();
            uids.extend(entries.iter().filter(|entry| entry.tag == USER).map(|entry| entry.id));
            gids.extend(entries.iter().filter(|entry| entry.tag == GROUP).map(|entry| entry.id));
        }
        let named = |name: Option<&str>| name.map(|name| format!(" ({name})")).unwrap_or_default();
        let uids = uids.into_iter().filter(|uid| ![0, own.uid].contains(uid));
        let gids = gids.into_iter().filter(|gid| ![0, own.gid].contains(gid));
        let users_of = uids.map(|uid| {
            let who = format!("uid {uid}{}", named(users.user(uid)));
            (Self { uid, ..nobody.clone() }, who)
        });
        let groups_of = gids.map(|gid| {
            let who = format!("whoever is in group {gid}{}", named(users.group(gid)));
            (Self { gid, ..nobody.clone() }, who)
        });
        let anybody = (nobody.clone(), "anybody on this node".to_owned());
        [anybody].into_iter().chain(users_of).chain(groups_of).collect()
    }

    fn is_kept_out_of_nothing(&self) -> bool {
        self.overrides && self.scope == Scope::Everyone
    }

    /// Returns whether it may do all that `needs` says with `inode`, which it has reached.
    pub(crate) fn may(&self, inode: &Inode, needs: u32) -> Result<bool, EvidenceError> {
        let by_mode = self.by_mode(inode, needs);
        if by_mode == Ok(true) {
            return by_mode;
        }
        let reads_only = needs & WRITE == 0 && (inode.directory || needs == READ);
        if !(self.overrides || self.reads_all && reads_only) {
            return by_mode;
        }
        match self.scope.covers(inode) {
            Some(true) => Ok(true),
            Some(false) => by_mode,
            None => Err(EvidenceError::new(
                ErrorKind::Unsupported,
                "whose it is cannot be told in the user namespace of this audit",
            )),
        }
    }

    /// Returns whether mode and access control list allow it.
    fn by_mode(&self, inode: &Inode, needs: u32) -> Result<bool, EvidenceError> {
        let class = |shift: u32| inode.mode >> shift & needs == needs;
        let owner = self.uid == inode.uid;
        if owner {
            return Ok(class(6));
        }
        // Where the bits of the group are empty the kernel looks at no list.
        if inode.mode & 0o070 != 0
            && let Some(acl) = inode.acl.as_ref().map_err(Clone::clone)?
        {
            return Ok(self.by_acl(acl, inode, needs));
        }
        Ok(if self.is_in(inode.gid) { class(3) } else { class(0) })
    }

    fn by_acl(&self, acl: &[AclEntry], inode: &Inode, needs: u32) -> bool {
        let mask = acl.iter().find(|entry| entry.tag == MASK).map_or(0o7, |mask| mask.permissions);
        let allows = |entry: &AclEntry| entry.permissions & needs == needs;
        if let Some(entry) = acl.iter().find(|entry| entry.tag == USER && entry.id == self.uid) {
            return allows(entry) && mask & needs == needs;
        }
        let mut groups = acl.iter().filter(|entry| match entry.tag {
            GROUP_OBJ => self.is_in(inode.gid),
            GROUP => self.is_in(entry.id),
            _ => false,
        });
        match groups.next() {
            None => inode.mode & needs == needs,
            Some(first) => (allows(first) || groups.any(allows)) && mask & needs == needs,
        }
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Returns how to call it in a sentence.
    fn named(&self, users: &Users) -> String {
        let name = users.user(self.uid).map(|name| format!(" ({name})")).unwrap_or_default();
        let capabilities = match (&self.scope, self.overrides) {
            (Scope::Some { .. }, true) => ", whose capabilities are those of a user namespace",
            _ if self.uid == 0 && !self.overrides => " without the capability CAP_DAC_OVERRIDE",
            _ => "",
        };
        format!("uid {}{name}{capabilities}", self.uid)
    }
}

impl Scope {
    /// Returns whether a capability is good for `inode`; `None` when it cannot be told whose that is.
    fn covers(&self, inode: &Inode) -> Option<bool> {
        let Self::Some { users, groups, blurred } = self else { return Some(true) };
        if *blurred && (inode.uid == UNMAPPED || inode.gid == UNMAPPED) {
            return None;
        }
        let within = |ranges: &[Range], id: u32| {
            ranges.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|at| at < *count))
        };
        Some(within(users, inode.uid) && within(groups, inode.gid))
    }
}

impl Inode {
    /// Returns it as it would be if it belonged to root:root.
    pub(crate) fn as_roots(&self) -> Self {
        Self { uid: 0, gid: 0, ..self.clone() }
    }

    /// Returns it as it would be if nobody but its owner could use it.
    pub(crate) fn closed(&self) -> Self {
        Self { mode: self.mode & !0o077, ..self.clone() }
    }

    fn of(place: &OwnedFd, stat: &Stat) -> Self {
        Self {
            directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            acl: acl(place),
        }
    }

    /// Returns whose it is and with which mode.
    fn described(&self, users: &Users) -> String {
        let name = |name: Option<&str>, id: u32| name.map_or_else(|| id.to_string(), str::to_owned);
        let (owner, group) = (name(users.user(self.uid), self.uid), name(users.group(self.gid), self.gid));
        let list = match &self.acl {
            Ok(Some(_)) => " and an access control list",
            _ => "",
        };
        format!("belongs to {owner}:{group} with mode {:04o}{list}", self.mode)
    }
}

/// Returns the access control list of `place`.
fn acl(place: &OwnedFd) -> Result<Option<Vec<AclEntry>>, EvidenceError> {
    // The descriptor is one that only names the place, and extended attributes are not read through such a one.
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    let mut bytes = [0; 1024];
    let read = |buffer: &mut [u8]| rustix::fs::getxattr(&*link, "system.posix_acl_access", buffer);
    let mut large = Vec::new();
    let bytes = match read(&mut bytes) {
        Ok(length) => bytes.get(..length),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {
            large.resize(ACL_CAP, 0);
            read(&mut large).ok().and_then(|length| large.get(..length))
        }
        Err(error) => {
            return Err(EvidenceError::from_io(&error.into(), "its access control list"));
        }
    };
    let parsed = bytes.and_then(parse_acl).ok_or_else(|| {
        EvidenceError::new(ErrorKind::Malformed, "its access control list is of no form that is known here")
    });
    parsed.map(Some)
}

/// Returns the entries of the extended attribute `system.posix_acl_access` (`linux/posix_acl_xattr.h`).
fn parse_acl(bytes: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, entries) = bytes.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return None;
    }
    let entry = |[a, b, c, d, id @ ..]: &[u8; 8]| AclEntry {
        tag: u16::from_le_bytes([*a, *b]),
        permissions: u32::from(u16::from_le_bytes([*c, *d])) & 0o7,
        id: u32::from_le_bytes(*id),
    };
    Some(entries.iter().map(entry).collect())
}

/// One step on the way to a file: a directory that is searched, or the file itself at last.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) path: String,
    pub(crate) inode: Inode,
}

/// The way to a file: the directories, in the order in which they are searched, and the file.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) directories: Vec<Step>,
    pub(crate) file: Step,
}

/// A component of a path that keeps a process out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The component.
    pub path: String,
    /// One clause: who is kept out of what, by which component with which owner and mode.
    pub message: String,
}

impl Way {
    /// Returns what keeps `subject` from what it `needs` of the file, which may be changed before; `None` when nothing does.
    pub(crate) fn refuses<'s>(
        &'s self,
        subject: &Subject,
        needs: u32,
        file: &'s Inode,
    ) -> Result<Option<(&'s str, &'s Inode)>, EvidenceError> {
        let directories = self.directories.iter().map(|step| (step.path.as_str(), &step.inode, SEARCH));
        for (path, inode, needs) in directories.chain([(self.file.path.as_str(), file, needs)]) {
            let may = subject.may(inode, needs);
            if !may.map_err(|e| EvidenceError::new(e.kind, format!("{path}: {e}")).at(Origin::file(path)))? {
                return Ok(Some((path, inode)));
            }
        }
        Ok(None)
    }

    /// Returns the first directory on the way in which `subject` may put something else in the place of what the way goes through.
    fn open_directory(&self, subject: &Subject) -> Result<Option<&Step>, EvidenceError> {
        for (at, directory) in self.directories.iter().enumerate() {
            let before = Self {
                directories: self.directories.iter().take(at).cloned().collect(),
                file: directory.clone(),
            };
            let open = before.refuses(subject, WRITE | SEARCH, &directory.inode)?.is_none();
            // In a directory with the sticky bit nobody removes what is another's.
            if open && directory.inode.mode & 0o1000 == 0 {
                return Ok(Some(directory));
            }
        }
        Ok(None)
    }
}

/// What one process may do with the files that it sees.
pub struct Access<'a> {
    root: Result<&'a Root, EvidenceError>,
    users: &'a Users,
    subject: Result<Subject, EvidenceError>,
    /// What is at each path, none of whose directories is a link.
    seen: Mutex<BTreeMap<String, Result<Seen, EvidenceError>>>,
}

#[derive(Clone)]
enum Seen {
    Link(String),
    Other(Inode),
}

impl<'a> Access<'a> {
    /// Returns what `process` may do with the files below `root`, which is its own.
    pub fn of_process(
        process: &ProcessEntry,
        root: Result<&'a Root, EvidenceError>,
        users: &'a Users,
    ) -> Self {
        Self { root, users, subject: Subject::of_process(process), seen: Mutex::default() }
    }

    /// Returns what `account` may do with the files below `root` once something runs as it; with the usual capabilities if it is
    /// root, and with none else.
    pub fn of_account(account: &Account, root: &'a Root, users: &'a Users) -> Self {
        let root_user = account.uid == 0;
        let subject = Subject {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
            overrides: root_user,
            reads_all: root_user,
            scope: Scope::Everyone,
        };
        Self { root: Ok(root), users, subject: Ok(subject), seen: Mutex::default() }
    }

    /// Returns the user who asks, if it is known.
    pub fn uid(&self) -> Option<u32> {
        self.subject.as_ref().ok().map(|subject| subject.uid)
    }

    /// Returns whether no owner and no mode keeps the process from anything.
    pub fn is_kept_out_of_nothing(&self) -> bool {
        self.subject.as_ref().is_ok_and(Subject::is_kept_out_of_nothing)
    }

    /// Returns what keeps the process from what it `needs` of `path`; `None` when nothing does. Where there is a folder `below`,
    /// only that and what is below it counts.
    pub fn refuses(
        &self,
        path: &str,
        needs: u32,
        below: Option<&str>,
    ) -> Result<Option<Refusal>, EvidenceError> {
        let subject = self.subject.as_ref().map_err(Clone::clone)?;
        // Nothing has to be looked at for one that is kept out of nothing, as root usually is.
        if subject.is_kept_out_of_nothing() {
            return Ok(None);
        }
        let mut way = self.way(path)?;
        if let Some(folder) = below.map(Path::new) {
            way.directories.retain(|step| Path::new(&step.path).starts_with(folder));
        }
        self.refusal(&way, subject, path, needs)
    }

    fn refusal(
        &self,
        way: &Way,
        subject: &Subject,
        path: &str,
        needs: u32,
    ) -> Result<Option<Refusal>, EvidenceError> {
        let refused = way.refuses(subject, needs, &way.file.inode)?;
        Ok(refused.map(|(at, inode)| {
            let what = match needs {
                READ => "read",
                SEARCH => "search",
                _ => "read and write",
            };
            let component = if at == path { "it" } else { at };
            let message = format!(
                "{} may not {what} {path}: {component} {}",
                subject.named(self.users),
                inode.described(self.users)
            );
            Refusal { path: at.to_owned(), message }
        }))
    }

    /// Returns what the process, which `needs` that of `path`, may do with it now and if others owned it; `None` when there is no
    /// such file.
    pub fn facts(&self, setting: &str, path: &str, needs: u32) -> Option<FileAccess> {
        let origin = || Origin::derived(format!("owners and modes on the way to {path}"));
        let fact = |result| Observed::from_result(result, origin());
        let same = |granted: Result<bool, EvidenceError>, message| FileAccess {
            setting: setting.to_owned(),
            path: path.to_owned(),
            account: self.subject.as_ref().map(|s| format!("{}:{}", s.uid, s.gid)).unwrap_or_default(),
            granted: fact(granted.clone()),
            as_roots: fact(granted.clone()),
            closed: fact(granted),
            message,
        };
        let subject = match &self.subject {
            Ok(subject) if subject.is_kept_out_of_nothing() => return Some(same(Ok(true), String::new())),
            Ok(subject) => subject,
            Err(error) => return Some(same(Err(error.clone()), String::new())),
        };
        let way = match self.way(path) {
            Ok(way) => way,
            Err(error) if error.kind == ErrorKind::NotFound => return None,
            Err(error) => return Some(same(Err(error), String::new())),
        };
        let may = |file: &Inode| fact(way.refuses(subject, needs, file).map(|refused| refused.is_none()));
        let file = &way.file.inode;
        let message = match self.refusal(&way, subject, path, needs) {
            Ok(Some(refusal)) => refusal.message,
            _ => String::new(),
        };
        Some(FileAccess {
            granted: may(file),
            as_roots: may(&file.as_roots()),
            closed: may(&file.closed()),
            ..same(Ok(true), message)
        })
    }

    /// Returns who beside root and the user of the process may connect to the UNIX socket `path`, or put another in its place, as
    /// one clause; nothing when nobody may.
    pub fn open_to(&self, path: &str) -> Result<String, EvidenceError> {
        if path.starts_with('@') {
            return Ok(format!(
                "anybody in its network may connect to {path}: an abstract socket has no mode"
            ));
        }
        let own = self.subject.as_ref().map_err(Clone::clone)?;
        let way = self.way(path)?;
        let steps = || way.directories.iter().chain([&way.file]);
        for (subject, who) in Subject::others(own, steps().map(|step| &step.inode), self.users) {
            if way.refuses(&subject, WRITE, &way.file.inode)?.is_none() {
                let how = way.file.inode.described(self.users);
                return Ok(format!("{who} may connect to {path}: it {how}"));
            }
            if let Some(directory) = way.open_directory(&subject)? {
                let (place, how) = (&directory.path, directory.inode.described(self.users));
                return Ok(format!("{who} may put another socket in the place of {path}: {place} {how}"));
            }
        }
        Ok(String::new())
    }

    /// Returns who beside root and the user of the process may put another file in the place of `path`, because a folder on the way
    /// lets them, as one clause; nothing when nobody may.
    pub fn replaceable_by(&self, path: &str) -> Result<String, EvidenceError> {
        let open = self.opened(path)?;
        Ok(open.map_or_else(String::new, |(who, place, how)| {
            format!("{who} may put another file in the place of {path}: {place} {how}")
        }))
    }

    /// Returns who beside root and the user of the process may put other files into a folder on the way to `path`, as one clause that
    /// names the folder alone; nothing when nobody may.
    pub fn folder_open_to(&self, path: &str) -> Result<String, EvidenceError> {
        let open = self.opened(path)?;
        Ok(open.map_or_else(String::new, |(who, place, how)| {
            format!("{who} may put other files into {place}, which {how}")
        }))
    }

    /// Returns who may replace what is at `path`, through which folder, and how that is kept.
    fn opened(&self, path: &str) -> Result<Option<(String, String, String)>, EvidenceError> {
        let own = self.subject.as_ref().map_err(Clone::clone)?;
        let way = self.way(path)?;
        let folders = || way.directories.iter().map(|step| &step.inode);
        for (subject, who) in Subject::others(own, folders(), self.users) {
            if let Some(directory) = way.open_directory(&subject)? {
                let how = directory.inode.described(self.users);
                return Ok(Some((who, directory.path.clone(), how)));
            }
        }
        Ok(None)
    }

    /// Returns the way to `path`, which is absolute. Links are followed as the process follows them.
    pub(crate) fn way(&self, path: &str) -> Result<Way, EvidenceError> {
        let root = self.root.clone()?;
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut directories: Vec<Step> = Vec::new();
        let mut here = Step { path: "/".to_owned(), inode: self.inode(root, "/")? };
        let mut links = 0;
        // The directories above `here`, whose parent `..` is.
        let mut above: Vec<Step> = Vec::new();
        while let Some(name) = rest.pop() {
            if name.is_empty() || name == "." {
                continue;
            }
            if !here.inode.directory {
                let message = "a part of the path is not a directory";
                return Err(root.fail(here.path.as_ref(), ErrorKind::NotFound, message));
            }
            directories.push(here.clone());
            if name == ".." {
                here = above.pop().unwrap_or(here);
                continue;
            }
            let next = format!("{}/{name}", here.path.trim_end_matches('/'));
            match self.seen(root, &next)? {
                Seen::Other(inode) => above.push(std::mem::replace(&mut here, Step { path: next, inode })),
                Seen::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(root.fail(next.as_ref(), ErrorKind::Io, "symbolic links without an end"));
                    }
                    if target.starts_with('/') {
                        above.truncate(1);
                        here = above.pop().unwrap_or(here);
                    }
                    rest.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        Ok(Way { directories, file: here })
    }

    fn inode(&self, root: &Root, path: &str) -> Result<Inode, EvidenceError> {
        match self.seen(root, path)? {
            Seen::Other(inode) => Ok(inode),
            Seen::Link(_) => Err(root.fail(path.as_ref(), ErrorKind::Io, "a symbolic link")),
        }
    }

    fn seen(&self, root: &Root, path: &str) -> Result<Seen, EvidenceError> {
        let mut known = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let look = || match root.place(path)? {
            Place::Link(target) => Ok(Seen::Link(target.into_string().map_err(|_| {
                root.fail(path.as_ref(), ErrorKind::Unsupported, "a symbolic link whose target is not UTF-8")
            })?)),
            Place::Other(fd, stat) => Ok(Seen::Other(Inode::of(&fd, &stat))),
        };
        known.entry(path.to_owned()).or_insert_with(look).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn etcd() -> Subject {
        Subject { uid: 998, gid: 997, groups: vec![50], ..Subject::default() }
    }

    fn file(mode: u32, uid: u32, gid: u32) -> Inode {
        Inode { directory: false, mode, uid, gid, acl: Ok(None) }
    }

    fn folder(mode: u32, uid: u32, gid: u32) -> Inode {
        Inode { directory: true, ..file(mode, uid, gid) }
    }

    fn acl(mode: u32, entries: &[(u16, u32, u32)]) -> Inode {
        let entry = |(tag, permissions, id): &(u16, u32, u32)| AclEntry {
            tag: *tag,
            permissions: *permissions,
            id: *id,
        };
        Inode { acl: Ok(Some(entries.iter().map(entry).collect())), ..file(mode, 0, 0) }
    }

    #[test]
    fn a_process_may_what_the_kernel_would_let_it() {
        let reads_all = Subject { reads_all: true, ..etcd() };
        let overrides = Subject { overrides: true, ..etcd() };
        let bare_root = Subject::default();
        let within = |users: &[Range], blurred| Subject {
            overrides: true,
            scope: Scope::Some { users: users.to_vec(), groups: users.to_vec(), blurred },
            ..etcd()
        };
        let container = within(&[(100_000, 65536)], false);
        let group_obj = (GROUP_OBJ, 0o4, 0);
        let cases = [
            // Mode and owner.
            ("root's key", etcd(), file(0o600, 0, 0), READ, Some(false)),
            ("its own key", etcd(), file(0o600, 998, 0), READ, Some(true)),
            ("its own key, to change", etcd(), file(0o400, 998, 0), READ | WRITE, Some(false)),
            ("a key of its group", etcd(), file(0o640, 0, 997), READ, Some(true)),
            ("a key of a group beside its own", etcd(), file(0o640, 0, 50), READ, Some(true)),
            ("a key of another group", etcd(), file(0o640, 0, 51), READ, Some(false)),
            ("for everybody", etcd(), file(0o644, 0, 0), READ, Some(true)),
            ("for everybody but the owner", etcd(), file(0o044, 998, 0), READ, Some(false)),
            ("for everybody but the group", etcd(), file(0o604, 0, 997), READ, Some(false)),
            ("a folder to list, not to search", etcd(), folder(0o744, 0, 0), SEARCH, Some(false)),
            ("a folder to search, not to list", etcd(), folder(0o711, 0, 0), SEARCH, Some(true)),
            // Capabilities.
            ("root with none", bare_root.clone(), file(0o600, 998, 998), READ, Some(false)),
            ("root with none, its own", bare_root, file(0o600, 0, 0), READ, Some(true)),
            ("reads all", reads_all.clone(), file(0o000, 0, 0), READ, Some(true)),
            ("reads all, to change", reads_all.clone(), file(0o000, 0, 0), READ | WRITE, Some(false)),
            ("reads all, to search", reads_all, folder(0o700, 0, 0), SEARCH, Some(true)),
            ("overrides", overrides.clone(), file(0o000, 0, 0), READ | WRITE, Some(true)),
            ("overrides, to search", overrides, folder(0o000, 0, 0), READ | WRITE | SEARCH, Some(true)),
            // Capabilities of a user namespace.
            ("the host's root is not in it", container.clone(), file(0o600, 0, 0), READ, Some(false)),
            ("a user of it", container.clone(), file(0o600, 100_001, 100_000), READ, Some(true)),
            ("a group that is not in it", container.clone(), file(0o600, 100_001, 0), READ, Some(false)),
            ("the first beyond it", container, file(0o600, 165_536, 100_000), READ, Some(false)),
            ("somebody", within(&[(0, 65536)], true), file(0o600, UNMAPPED, 0), READ, None),
            (
                "somebody's for everybody",
                within(&[(0, 65536)], true),
                file(0o644, UNMAPPED, 0),
                READ,
                Some(true),
            ),
            // Access control lists.
            ("named", etcd(), acl(0o640, &[(USER, 0o4, 998), group_obj, (MASK, 0o4, 0)]), READ, Some(true)),
            (
                "named, masked",
                etcd(),
                acl(0o620, &[(USER, 0o4, 998), group_obj, (MASK, 0o2, 0)]),
                READ,
                Some(false),
            ),
            (
                "closed by chmod",
                etcd(),
                acl(0o600, &[(USER, 0o4, 998), group_obj, (MASK, 0, 0)]),
                READ,
                Some(false),
            ),
            (
                "a mask of nothing is not looked at",
                etcd(),
                acl(0o604, &[(USER, 0, 998), (MASK, 0, 0)]),
                READ,
                Some(true),
            ),
            (
                "named to be kept out",
                etcd(),
                acl(0o644, &[(USER, 0, 998), group_obj, (MASK, 0o4, 0)]),
                READ,
                Some(false),
            ),
            (
                "another is named",
                etcd(),
                acl(0o640, &[(USER, 0o4, 7), group_obj, (MASK, 0o4, 0)]),
                READ,
                Some(false),
            ),
            (
                "its group is named",
                etcd(),
                acl(0o640, &[group_obj, (GROUP, 0o4, 50), (MASK, 0o4, 0)]),
                READ,
                Some(true),
            ),
            (
                "one of its groups is enough",
                etcd(),
                acl(0o640, &[group_obj, (GROUP, 0, 997), (GROUP, 0o4, 50), (MASK, 0o4, 0)]),
                READ,
                Some(true),
            ),
            (
                "in a group it is not among the others",
                etcd(),
                acl(0o644, &[group_obj, (GROUP, 0, 997), (MASK, 0o4, 0)]),
                READ,
                Some(false),
            ),
        ];
        for (name, subject, inode, needs, want) in cases {
            assert_eq!(subject.may(&inode, needs).ok(), want, "{name}");
        }
    }

    #[test]
    fn a_list_that_could_not_be_read_leaves_unknown_what_it_decides() {
        let error = EvidenceError::new(ErrorKind::Io, "its access control list: refused");
        let unread = |mode, uid| Inode { acl: Err(error.clone()), ..file(mode, uid, 0) };
        assert_eq!(etcd().may(&unread(0o600, 998), READ), Ok(true));
        assert_eq!(etcd().may(&unread(0o604, 0), READ), Ok(true));
        assert_eq!(etcd().may(&unread(0o644, 0), READ), Err(error.clone()));
        let overrides = Subject { overrides: true, ..etcd() };
        assert_eq!(overrides.may(&unread(0o644, 0), READ), Ok(true));
    }

    #[test]
    fn lists_are_parsed_as_the_kernel_writes_them() {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [(1_u16, 6_u16, u32::MAX), (USER, 4, 998), (MASK, 4, u32::MAX)] {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        let parsed = parse_acl(&bytes).unwrap();
        assert_eq!((parsed.len(), parsed[1]), (3, AclEntry { tag: USER, permissions: 4, id: 998 }));
        for broken in [&bytes[..bytes.len() - 1], &bytes[..3], &[1, 0, 0, 0], &[]] {
            assert_eq!(parse_acl(broken), None);
        }
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Asks what `subject` may below a root that `build` fills.
    fn below<T>(subject: Subject, build: impl FnOnce(&Path), ask: impl FnOnce(&Access<'_>) -> T) -> T {
        let directory = tempfile::tempdir().unwrap();
        set(directory.path(), 0o755);
        build(directory.path());
        let root = Root::host(directory.path()).unwrap();
        let users = Users::parse(b"root:x:0:0:::\netcd:x:998:997:::\n", b"root:x:0:\n");
        ask(&Access { root: Ok(&root), users: &users, subject: Ok(subject), seen: Mutex::default() })
    }

    #[test]
    fn every_directory_on_the_way_counts_also_that_behind_a_link() {
        // A user that this test is not run as, of no group of it.
        let stranger = || Subject { uid: 998, gid: 997, ..Subject::default() };
        let build = |root: &Path| {
            fs::create_dir_all(root.join("pki/etcd")).unwrap();
            fs::create_dir_all(root.join("keys/closed")).unwrap();
            for (path, mode) in
                [("pki/etcd/peer.key", 0o600), ("pki/etcd/peer.crt", 0o644), ("keys/closed/x", 0o644)]
            {
                fs::write(root.join(path), "").unwrap();
                set(&root.join(path), mode);
            }
            set(&root.join("keys/closed"), 0o700);
            symlink("../../keys/closed/x", root.join("pki/etcd/relative")).unwrap();
            symlink("/keys/closed/x", root.join("pki/etcd/absolute")).unwrap();
            symlink("../etcd/./peer.crt", root.join("pki/etcd/same")).unwrap();
            symlink("loop", root.join("pki/etcd/loop")).unwrap();
        };
        below(stranger(), build, |access| {
            let at = |path: &str| access.refuses(path, READ, None).map(|r| r.map(|r| r.path));
            assert_eq!(at("/pki/etcd/peer.crt"), Ok(None));
            assert_eq!(at("/pki/etcd/same"), Ok(None));
            assert_eq!(at("/pki/../../pki//etcd/peer.crt"), Ok(None));
            assert_eq!(at("/pki/etcd/peer.key"), Ok(Some("/pki/etcd/peer.key".to_owned())));
            for link in ["relative", "absolute"] {
                assert_eq!(at(&format!("/pki/etcd/{link}")), Ok(Some("/keys/closed".to_owned())), "{link}");
            }
            for (path, kind) in [
                ("/pki/none", ErrorKind::NotFound),
                ("/pki/etcd/loop", ErrorKind::Io),
                ("/pki/etcd/peer.crt/x", ErrorKind::NotFound),
            ] {
                assert_eq!(at(path).unwrap_err().kind, kind, "{path}");
            }
            let told = access.refuses("/pki/etcd/peer.key", READ, None).unwrap().unwrap().message;
            assert!(
                told.starts_with("uid 998 (etcd) may not read /pki/etcd/peer.key: it belongs to "),
                "{told}"
            );
            assert!(told.ends_with(" with mode 0600"), "{told}");
        });
    }

    #[test]
    fn what_would_be_is_told_beside_what_is() {
        let build = |root: &Path| {
            fs::write(root.join("key"), "").unwrap();
            set(&root.join("key"), 0o640);
            if rustix::process::geteuid().is_root() {
                chown(root.join("key"), Some(0), Some(997)).unwrap();
            }
        };
        if rustix::process::geteuid().is_root() {
            below(etcd(), build, |access| {
                let fact = access.facts("key-file", "/key", READ).unwrap();
                let values = [&fact.granted, &fact.as_roots, &fact.closed].map(|f| f.value().copied());
                assert_eq!((values, fact.message.as_str()), ([Some(true), Some(false), Some(false)], ""));
                assert_eq!(access.facts("key-file", "/none", READ), None);
            });
        }
    }

    #[test]
    fn who_may_use_a_socket_follows_from_it_and_its_directories() {
        let own = || Subject {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..Subject::default()
        };
        let cases = [
            (0o755, 0o777, "anybody on this node may connect to /run/etcd/sock: it belongs to "),
            (0o755, 0o755, ""),
            (0o700, 0o777, ""),
            (
                0o777,
                0o700,
                "anybody on this node may put another socket in the place of /run/etcd/sock: /run/etcd ",
            ),
            (0o1777, 0o700, ""),
        ];
        for (folder, socket, want) in cases {
            let build = |root: &Path| {
                fs::create_dir_all(root.join("run/etcd")).unwrap();
                drop(UnixListener::bind(root.join("run/etcd/sock")).unwrap());
                set(&root.join("run/etcd/sock"), socket);
                set(&root.join("run"), 0o755);
                set(&root.join("run/etcd"), folder);
            };
            let told = below(own(), build, |access| access.open_to("/run/etcd/sock").unwrap());
            assert!(
                told.starts_with(want) && want.is_empty() == told.is_empty(),
                "{folder:o} {socket:o}: {told}"
            );
        }
        let told = below(own(), |_| (), |access| access.open_to("@etcd").unwrap());
        assert!(told.contains("abstract"), "{told}");
    }

    #[test]
    fn this_process_is_read_as_it_is() {
        let process = crate::procfs::Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let subject = Subject::of_process(&process).unwrap();
        assert_eq!(subject.uid, rustix::process::geteuid().as_raw());
        let effective = rustix::thread::capabilities(None).unwrap().effective;
        let overrides = effective.contains(rustix::thread::CapabilitySet::DAC_OVERRIDE);
        assert_eq!(subject.overrides, overrides);
    }
}
