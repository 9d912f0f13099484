//! Does what a step says. Done twice, it is as done once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Fix, Stop, plan_of, process};
use crate::issue::{self, Authority, Host, KeyKind, Profile};
use crate::node::NotObserved;
use crate::plan::{Action, FileEdit, Plan, RestartedBy, Stage, Step};
use crate::planner::{Declaration, bundled, edited};
use crate::way_back::{Facts, Process};
use seaworthy_journal::files::{Attributes, Expected, FileError, Preimages, Replacement, Root, sha256};
use seaworthy_journal::record::{Event, Journal};

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
    let paths: Vec<&String> = match &step.action {
        Action::Bundle { path, .. } | Action::Edit { path, .. } => vec![path],
        Action::CreateAuthority { certificate, key } | Action::Issue { certificate, key, .. } => {
            vec![certificate, key]
        }
        Action::Request { request, key, .. } => vec![request, key],
        Action::MoveLeader { .. }
        | Action::Restart { .. }
        | Action::Restore { .. }
        | Action::SetAttributes { .. }
        | Action::UpdateMember { .. } => Vec::new(),
    };
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let store = Preimages::open(&journal.preimages())?;
    paths.into_iter().map(|path| Ok((path.clone(), store.store(root, Path::new(path))?))).collect()
}

impl Fix<'_> {
    /// Does what the step says, as far as it is not done yet.
    pub(super) fn act(
        &self,
        root: &Root,
        journal: &Journal,
        plan: &Plan,
        step: &Step,
        facts: &Facts,
    ) -> Result<(), Stop> {
        match &step.action {
            Action::Bundle { path, of, with, after } => {
                let files = of.iter().map(|file| read(root, file)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<&[u8]> =
                    files.iter().map(Vec::as_slice).chain(with.iter().map(String::as_bytes)).collect();
                let bundle = bundled(&parts, Timestamp::now())?;
                if sha256(&bundle) != *after {
                    return Err(Stop(format!("{} changed since the plan was made", of.join(" or "))));
                }
                write(root, path, &bundle, Attributes::Set { mode: PUBLIC, uid: 0, gid: 0 })
            }
            Action::CreateAuthority { certificate, key } => {
                let name = format!("etcd peers of {}", plan.state.member);
                let (authority, secret) = Authority::create(&name, KeyKind::default(), Timestamp::now())?;
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
                let authority = Authority::load(&read(root, ca_certificate)?, &ca, Timestamp::now())?;
                let lifetime = Duration::from_secs(u64::from(*days) * 86_400);
                let profile = Profile { purpose: *purpose, lifetime, ..profile(common_name, hosts)? };
                let (secret, issued) = authority.issue(&profile, authority.kind(), Timestamp::now())?;
                let owned = |mode| match replaces {
                    true => Attributes::Keep,
                    false => Attributes::Set { mode, uid: *uid, gid: *gid },
                };
                write(root, key, secret.as_bytes(), owned(PRIVATE))?;
                write(root, certificate, issued.pem.as_bytes(), owned(PUBLIC))
            }
            Action::MoveLeader { to } => self.move_leader(plan, to),
            Action::Request { common_name, hosts, key_kind, request, key, uid, gid } => {
                let (secret, text) = issue::request(&profile(common_name, hosts)?, *key_kind)?;
                let owned = |mode| Attributes::Set { mode, uid: *uid, gid: *gid };
                write(root, key, secret.as_bytes(), owned(PRIVATE))?;
                write(root, request, text.as_bytes(), owned(PUBLIC))
            }
            Action::Restart { by, .. } => self.restart(plan, by, facts),
            Action::Restore { path, preimage } => restore(root, journal, path, preimage),
            Action::SetAttributes { path, mode, uid, gid } => {
                // A change of owner takes bits away, so the mode comes last.
                root.set_owner(Path::new(path), *uid, *gid)?;
                root.set_mode(Path::new(path), *mode)?;
                Ok(())
            }
            Action::UpdateMember { member_id, peer_urls, via } => {
                self.update_member(member_id, peer_urls, via)
            }
        }
    }

    /// Hands leadership over, if this member leads.
    fn move_leader(&self, plan: &Plan, to: &[String]) -> Result<(), Stop> {
        let seen = match self.node.observe() {
            // A member that does not run does not lead.
            Err(NotObserved::Refused(_)) => return Ok(()),
            seen => seen?,
        };
        let leader = seen.health.as_ref().ok().and_then(|health| health.leader.clone());
        if leader.as_deref() != Some(plan.state.member_id.as_str()) {
            return Ok(());
        }
        let client = self.node.client(&seen.etcd).map_err(Stop)?;
        let mut failure = Stop("there is no other member to lead".to_owned());
        for id in to.iter().filter_map(|id| u64::from_str_radix(id, 16).ok()) {
            match client.move_leader(id) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// Changes the peer URLs of a member, through others: it may be about to restart.
    fn update_member(&self, id: &str, urls: &[String], via: &[String]) -> Result<(), Stop> {
        // It may not run at all: then the way back needs this the most.
        let etcd = self.node.glance()?;
        let client = self.node.client_at(etcd.as_ref(), via.iter().map(String::as_str)).map_err(Stop)?;
        let id = u64::from_str_radix(id, 16)?;
        let shows = || -> Result<bool, Stop> {
            let members = client.members()?;
            let mut listed = members.iter().filter(|m| m.id == id).map(|m| m.peer_urls.clone());
            let mut wanted = urls.to_vec();
            wanted.sort();
            Ok(listed.next().is_some_and(|mut listed| {
                listed.sort();
                listed == wanted
            }))
        };
        if shows()? {
            return Ok(());
        }
        match client.update_member(id, urls) {
            Err(error) if !error.may_have_happened() || !shows()? => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes the member run with its files as they are now. Whether it does is verified afterwards.
    fn restart(&self, plan: &Plan, by: &RestartedBy, facts: &Facts) -> Result<(), Stop> {
        let now = self.node.glance()?.as_ref().and_then(process);
        // The process from before the fix is to go on the way there, and every other one on the way back.
        let stale = match plan.stage {
            Stage::Return => now != facts.process,
            _ => now == facts.process,
        };
        match by {
            RestartedBy::Kubelet => Ok(()),
            RestartedBy::KubeletAfterEnd { .. } => match now {
                Some(process) if stale => {
                    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
                    let fd = pidfd_open(
                        pid.ok_or_else(|| Stop("it has no process id".to_owned()))?,
                        PidfdFlags::empty(),
                    )?;
                    // The handle is of the process that has this id now; it must be the one that was meant.
                    match self.node.glance()?.as_ref().and_then(super::process) == Some(process) {
                        true => pidfd_send_signal(&fd, Signal::TERM)?,
                        false => return Ok(()),
                    }
                    self.ended(process)
                }
                _ => Ok(()),
            },
            RestartedBy::Systemd { unit } => {
                self.systemctl(&["daemon-reload"])?;
                match stale || now.is_none() {
                    true => self.systemctl(&["restart", unit]),
                    false => Ok(()),
                }
            }
        }
    }

    /// Waits until a process has ended: until then it uses its files, whatever its settings would be now.
    fn ended(&self, process: Process) -> Result<(), Stop> {
        let deadline = Instant::now() + self.settle;
        while self.node.glance()?.as_ref().and_then(super::process) == Some(process) {
            if Instant::now() > deadline {
                let (pid, seconds) = (process.pid, self.settle.as_secs());
                return Err(Stop(format!("process {pid} did not end within {seconds} s")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs systemctl(1), which has no library that does without D-Bus.
    fn systemctl(&self, arguments: &[&str]) -> Result<(), Stop> {
        let told = format!("systemctl {}", arguments.join(" "));
        if self.node.root != Path::new("/") {
            return Err(Stop(format!(
                "{told} can only be run on the node itself: run seaworthy there, without --root"
            )));
        }
        let mut command = Command::new("systemctl");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Stop(format!("{told}: {error}")))?;
        let deadline = Instant::now() + self.settle;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill()?;
                    return Err(Stop(format!("{told} did not end within {} s", self.settle.as_secs())));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        match status.success() {
            true => Ok(()),
            false => Err(Stop(format!("{told}: {status}: {}", said.trim()))),
        }
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

/// Brings back a pre-image, unless somebody else has changed the file since.
fn restore(root: &Root, journal: &Journal, path: &str, preimage: &str) -> Result<(), Stop> {
    let plan = plan_of(journal.record())?;
    let planned = plan.steps.iter().find_map(|step| match &step.action {
        Action::Edit { path: edited, after, .. } | Action::Bundle { path: edited, after, .. }
            if edited == path =>
        {
            Some(after.clone())
        }
        _ => None,
    });
    let current = root.read(Path::new(path))?;
    // A run that was killed before it wrote down what it wrote can only take what is there.
    let expected = match (planned.or_else(|| noted(journal, path)), current) {
        (Some(hash), _) => Expected::Content(hash),
        (None, Some(content)) => Expected::Content(content.sha256()),
        (None, None) => Expected::Absent,
    };
    let store = Preimages::open(&journal.preimages())?;
    beside(path, |staging| store.restore(preimage, root, &expected, staging))
}

/// What a step wrote, by path: the hashes of the files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Written {
    written: BTreeMap<String, String>,
}

/// Returns what is in the files that a step was to write.
pub(super) fn written(root: &Root, facts: &Facts) -> Result<Written, FileError> {
    let mut written = BTreeMap::new();
    for path in facts.preimages.keys() {
        let content = root.read(Path::new(path))?;
        written.extend(content.map(|content| (path.clone(), content.sha256())));
    }
    Ok(Written { written })
}

/// Returns the hash that the journal has of what the fix wrote to `path`.
fn noted(journal: &Journal, path: &str) -> Option<String> {
    let entries = journal.record().entries.iter().rev();
    let mut noted = entries.filter_map(|entry| match &entry.event {
        Event::After { facts, .. } => serde_json::from_value::<Written>(facts.clone()).ok(),
        _ => None,
    });
    noted.find_map(|mut written| written.written.remove(path))
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
