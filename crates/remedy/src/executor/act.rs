//! Does what a step says. Done twice, it is as done once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use seaworthy_edit::FileEdit;
use seaworthy_journal::files::{Attributes, Expected, FileError, Preimages, Replacement, Root, sha256};
use seaworthy_journal::record::{Facts, Journal, Process, Written};
use zeroize::Zeroizing;

use super::{Executor, PROCESS_POLL, Stop};
use crate::condition::is_same;
use crate::input::Declaration;
use crate::issue::{self, Authority, Host, KeyKind, Profile};
use crate::plan::{Action, Plan, PreimageId, RestartedBy, Step};
use crate::planner::{edited, undone};
use crate::rollouts::etcd::peers::bundled;
use crate::world::{NotObserved, process_of};

/// Mode of a certificate, which is no secret.
const PUBLIC: u32 = 0o644;
/// Mode of a private key.
const PRIVATE: u32 = 0o600;

/// Stores what is at the paths that the step touches, and returns the ids of the pre-images by path.
pub(super) fn preimages(
    root: &Root,
    journal: &Journal,
    step: &Step,
) -> Result<BTreeMap<String, String>, FileError> {
    let paths = step.action.written();
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let store = Preimages::open(&journal.preimages())?;
    paths.into_iter().map(|path| Ok((path.to_owned(), store.store(root, Path::new(path))?))).collect()
}

impl Executor<'_> {
    /// Does what the step says, as far as it is not done yet.
    pub(super) fn act(&self, root: &Root, plan: &Plan, step: &Step, facts: &Facts) -> Result<(), Stop> {
        match &step.action {
            Action::Bundle { path, of, with, after } => {
                let files = of.iter().map(|file| read(root, file)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<&[u8]> =
                    files.iter().map(Vec::as_slice).chain(with.iter().map(String::as_bytes)).collect();
                let bundle = bundled(&parts, self.world.now())?;
                if sha256(&bundle) != *after {
                    return Err(Stop(format!("{} changed since the plan was made", of.join(" or "))));
                }
                write(root, path, &bundle, Attributes::Set { mode: PUBLIC, uid: 0, gid: 0 })
            }
            Action::CreateAuthority { certificate, key } => {
                let name = format!("etcd peers of {}", plan.state.member);
                let (authority, secret) = Authority::create(&name, KeyKind::default(), self.world.now())?;
                let owned = |mode| Attributes::Set { mode, uid: 0, gid: 0 };
                write(root, key, secret.as_bytes(), owned(PRIVATE))?;
                write(root, certificate, authority.pem().as_bytes(), owned(PUBLIC))
            }
            Action::Edit { path, change, after } => edit(root, path, change, after),
            Action::Issue {
                common_name,
                hosts,
                purpose,
                days,
                certificate,
                key,
                ca_certificate,
                ca_key,
                uid,
                gid,
                replaces,
            } => {
                let ca = Zeroizing::new(read(root, ca_key)?);
                let authority = Authority::load(&read(root, ca_certificate)?, &ca, self.world.now())
                    .map_err(|error| Stop(format!("{ca_certificate}: {error}")))?;
                let lifetime = Duration::from_secs(u64::from(*days) * 86_400);
                let profile = Profile { purpose: *purpose, lifetime, ..profile(common_name, hosts)? };
                let (secret, issued) = authority.issue(&profile, authority.kind(), self.world.now())?;
                let owned = |mode| match replaces {
                    true => Attributes::Keep,
                    false => Attributes::Set { mode, uid: *uid, gid: *gid },
                };
                write(root, key, secret.as_bytes(), owned(PRIVATE))?;
                write(root, certificate, issued.pem.as_bytes(), owned(PUBLIC))
            }
            Action::MoveLeader { to } => self.move_leader(&plan.state.member_id, to),
            Action::Request { common_name, hosts, key_kind, request, key, uid, gid } => {
                let (secret, text) = issue::request(&profile(common_name, hosts)?, *key_kind)?;
                let owned = |mode| Attributes::Set { mode, uid: *uid, gid: *gid };
                write(root, key, secret.as_bytes(), owned(PRIVATE))?;
                write(root, request, text.as_bytes(), owned(PUBLIC))
            }
            Action::Restart { by, .. } => self.restart(by, facts),
            Action::Restore { path, preimage, .. } => self.restore(root, step, path, preimage),
            Action::Revert { path, change, preimage, after } => {
                self.revert(root, path, change, preimage, after)
            }
            Action::SetAttributes { path, to, .. } => {
                // A change of owner takes bits away, so the mode comes last.
                root.set_owner(Path::new(path), to.uid, to.gid)?;
                root.set_mode(Path::new(path), to.mode)?;
                Ok(())
            }
            Action::UpdateMember { member_id, to, via, .. } => {
                self.world.update_member(member_id, to, via).map_err(Stop)
            }
        }
    }

    /// Hands leadership over, if this member leads.
    fn move_leader(&self, member_id: &str, to: &[String]) -> Result<(), Stop> {
        let seen = match self.world.observe() {
            // A member that does not run does not lead.
            Err(NotObserved::Refused(_)) => return Ok(()),
            seen => seen?,
        };
        let leader = seen.health.as_ref().map_err(Clone::clone)?.leader.clone();
        if leader.as_deref() != Some(member_id) {
            return Ok(());
        }
        let mut failure = "there is no other member to lead".to_owned();
        for id in to {
            match self.world.move_leader(&seen, id) {
                Ok(()) => return Ok(()),
                Err(why) => failure = why,
            }
        }
        Err(Stop(failure))
    }

    /// Makes the member run with its files as they are now. Whether it does is verified afterwards.
    fn restart(&self, by: &RestartedBy, facts: &Facts) -> Result<(), Stop> {
        let now = self.world.running()?.as_deref().and_then(process_of);
        // Done again, it is not to restart what has restarted.
        let stale = facts.process.as_ref().is_some_and(|former| is_same(now.as_ref(), former));
        match by {
            RestartedBy::Kubelet => Ok(()),
            RestartedBy::KubeletAfterEnd { .. } => match now {
                Some(process) if stale => {
                    self.world.end(&process)?;
                    self.ended(&process)
                }
                _ => Ok(()),
            },
            RestartedBy::Systemd { unit } => {
                Ok(self.world.systemd(unit, stale || now.is_none(), self.settle)?)
            }
        }
    }

    /// Waits until a process has ended: until then it uses its files, whatever its settings would be now.
    fn ended(&self, process: &Process) -> Result<(), Stop> {
        self.until(self.settle, PROCESS_POLL, || {
            let now = self.world.running().map_err(|error| error.to_string())?;
            match now.as_deref().and_then(process_of).as_ref() == Some(process) {
                true => Err("the process does not end".to_owned()),
                false => Ok(()),
            }
        })
        .map_err(Stop)
    }

    fn preimages_of(&self, preimage: &PreimageId) -> Result<Preimages, FileError> {
        Preimages::open(&self.state.preimages(&preimage.fix))
    }

    /// Brings back a pre-image, unless somebody else has changed the file since the plan was made.
    fn restore(&self, root: &Root, step: &Step, path: &str, preimage: &PreimageId) -> Result<(), Stop> {
        let expected = step.preconditions.iter().find_map(|condition| match condition {
            crate::plan::Condition::File { path: same, sha256 } if same == path => {
                Some(Expected::Content(sha256.clone()))
            }
            crate::plan::Condition::Absent { path: same } if same == path => Some(Expected::Absent),
            _ => None,
        });
        let expected = expected.ok_or_else(|| Stop(format!("the plan does not say what is at {path}")))?;
        let store = self.preimages_of(preimage)?;
        let edits = |step: &Step| step.action.is_edit() && step.action.written().contains(&path);
        // A rollback of an edit gives none either, and it may be what is undone.
        let origin = self.fix(&preimage.fix).map(|fix| self.origin_of(&fix.plan).unwrap_or(fix.plan));
        let was_edited = origin.is_ok_and(|origin| origin.steps.iter().any(edits));
        match store.content(&preimage.id)?.filter(|_| was_edited && expected != Expected::Absent) {
            // An edit gives no owner and no mode, so others have, if they are not those of then.
            Some(content) => beside(path, |staging| {
                let (path, bytes, attributes) = (Path::new(path), &content.bytes[..], Attributes::Keep);
                root.replace(&Replacement { path, bytes, attributes, expected: &expected, staging })
            }),
            None => beside(path, |staging| store.restore(&preimage.id, root, &expected, staging)),
        }
    }

    /// Gives a file the values that it had before an edit.
    fn revert(
        &self,
        root: &Root,
        path: &str,
        change: &FileEdit,
        preimage: &PreimageId,
        after: &str,
    ) -> Result<(), Stop> {
        let current = root.read(Path::new(path))?.ok_or_else(|| Stop(format!("{path} is not there")))?;
        if current.sha256() == after {
            return Ok(());
        }
        let before = self.preimages_of(preimage)?.content(&preimage.id)?;
        let read = |path: &str| Some(root.read(Path::new(path)).ok()??.bytes);
        let before = before.as_ref().map(|content| content.bytes.as_slice());
        let bytes = undone(change, path, before, &current.bytes, &read)?;
        if sha256(&bytes) != after {
            return Err(Stop(format!("{path} is not as it was when the rollback was planned")));
        }
        let expected = Expected::Content(current.sha256());
        beside(path, |staging| {
            let attributes = Attributes::Keep;
            let path = Path::new(path);
            root.replace(&Replacement { path, bytes: &bytes, attributes, expected: &expected, staging })
        })
    }
}

/// Returns the profile of a member with these names.
fn profile(common_name: &str, hosts: &[String]) -> Result<Profile, Stop> {
    let hosts = hosts.iter().map(|host| Host::parse(host)).collect::<Result<Vec<_>, _>>()?;
    Ok(Profile::peer(common_name, hosts))
}

/// Returns the content of a file that must be there.
fn read(root: &Root, path: &str) -> Result<Vec<u8>, Stop> {
    let content = root.read(Path::new(path))?;
    Ok(content.ok_or_else(|| Stop(format!("{path} is not there")))?.bytes)
}

/// Writes a file that is this fix's own: what was there before is a pre-image by now.
fn write(root: &Root, path: &str, bytes: &[u8], attributes: Attributes) -> Result<(), Stop> {
    let path = Path::new(path);
    directories(root, path)?;
    let current = root.read(path)?;
    let expected = current.map_or(Expected::Absent, |content| Expected::Content(content.sha256()));
    root.replace(&Replacement { path, bytes, attributes, expected: &expected, staging: None })?;
    Ok(())
}

/// Creates the directories above `path`.
fn directories(root: &Root, path: &Path) -> Result<(), FileError> {
    let above: Vec<&Path> = path.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
    for directory in above.into_iter().rev() {
        root.create_directory(directory, 0o755, 0, 0)?;
    }
    Ok(())
}

/// Edits a file from what was planned to what was planned.
fn edit(root: &Root, path: &str, change: &FileEdit, after: &str) -> Result<(), Stop> {
    let current = root.read(Path::new(path))?;
    let exists = current.is_some();
    if current.as_ref().is_some_and(|content| content.sha256() == after) {
        return Ok(());
    }
    let sources = match change {
        FileEdit::DropIn { unit, .. } => unit.clone(),
        _ => Vec::new(),
    };
    let mut declaration = Vec::new();
    for source in sources.iter().chain(exists.then(|| path.to_owned()).iter()) {
        let bytes = read(root, source)?;
        declaration.push(Declaration { path: source.clone(), bytes, unrestorable: None });
    }
    let bytes = edited(change, path, &declaration)?;
    if sha256(&bytes) != after {
        return Err(Stop(format!("{path} is not as it was when the change was planned")));
    }
    let attributes = match exists {
        true => Attributes::Keep,
        false => Attributes::Set { mode: PUBLIC, uid: 0, gid: 0 },
    };
    let expected = current.map_or(Expected::Absent, |content| Expected::Content(content.sha256()));
    directories(root, Path::new(path))?;
    beside(path, |staging| {
        root.replace(&Replacement {
            path: Path::new(path),
            bytes: &bytes,
            attributes,
            expected: &expected,
            staging,
        })
    })
}

/// Returns what is in the files that a step has written.
pub(super) fn written(root: &Root, step: &Step) -> Result<Written, FileError> {
    let mut written = BTreeMap::new();
    for path in step.action.written() {
        let content = root.read(Path::new(path))?;
        written.extend(content.map(|content| (path.to_owned(), content.sha256())));
    }
    Ok(Written { written })
}

/// Replaces a file by way of the directory above its own, because its own may be watched by kubelet; by way of its own,
/// under a name with a dot, where that is another file system.
fn beside(path: &str, replace: impl Fn(Option<&Path>) -> Result<bool, FileError>) -> Result<(), Stop> {
    let above = Path::new(path).parent().and_then(Path::parent);
    match replace(above) {
        Err(FileError::OtherFileSystem(_)) => replace(None)?,
        other => other?,
    };
    Ok(())
}
