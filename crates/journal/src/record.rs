//! The record of what was done, on disk before and after each step.
//!
//! Each fix has a directory `fix-ID` in the state directory, with the plan and a journal of JSON lines. A line
//! counts when its line ending is there: a crash in the middle of a write leaves a torn last line, which is as
//! if it had never been begun. Anything else that is not as it was written makes the record [`Damaged`], because nothing may
//! be undone by guessing; the other records are none the worse for it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::fs::FlockOperation;
use seaworthy_evidence::ProcessId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{SPARE, hex, sha256};

/// The state directory of a node.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/seaworthy";

/// Most bytes of a plan or a journal.
const MAX_BYTES: u64 = 64 << 20;

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    directory: PathBuf,
    hook: Option<Hook>,
    /// How often the lock is asked for before another one is told to have it.
    attempts: u32,
    /// The records as they were read last, by id: a run reads all of them again and again, and few have changed meanwhile.
    known: Arc<Mutex<BTreeMap<String, Arc<Known>>>>,
}

/// A record, or what is known of one that is damaged.
pub type MaybeRecord = Result<Arc<Record>, Box<Damaged>>;

/// A record as it was read last.
#[derive(Debug)]
struct Known {
    plan: Vec<u8>,
    journal: Vec<u8>,
    record: Arc<Record>,
}

/// Is called before and after each line is written; tests stop the process there.
pub type Hook = fn(Moment);

/// A moment at a line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It is about to be written.
    Before,
    /// It is durable.
    After,
}

/// The right to change something: one process at a time has it, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    state: State,
    _file: File,
}

/// A fix that is being carried out or undone.
#[derive(Debug)]
pub struct Journal {
    /// `None` where nothing could be written: then the record is kept in memory.
    file: Option<File>,
    record: Arc<Record>,
    directory: PathBuf,
    lock: Lock,
}

/// What is known of a fix.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id: when it was begun, and a random part. Later ones sort behind earlier ones.
    pub id: String,
    /// The plan.
    pub plan: Arc<Value>,
    /// What was written down, in order.
    pub entries: Vec<Entry>,
}

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 0.
    pub number: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line of a journal says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A step has been carried out.
    After {
        /// The step's name in the plan.
        step: String,
        /// What it wrote.
        facts: Written,
    },
    /// A step is about to be carried out.
    Before {
        /// The step's name in the plan.
        step: String,
        /// What is needed to undo it.
        facts: Facts,
    },
    /// The fix has begun, with the plan of this SHA-256.
    Begun {
        /// Hexadecimal.
        plan: String,
    },
    /// The operator has closed the record: the fix is neither finished nor rolled back any more.
    Closed,
    /// The fix is complete and verified.
    Done,
    /// A step has failed.
    Failed {
        /// The step's name in the plan.
        step: String,
        /// Why.
        why: String,
    },
    /// Everything is as it was before. Written by the first version of journals; since then a rollback is a fix of its own.
    RolledBack,
    /// From here on it is rolled back. Written by the first version of journals.
    RollingBack {
        /// Why.
        why: String,
    },
}

/// What is written down before a step is carried out, so that it can be finished or undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The process when the fix began; null when it did not run.
    pub process: Option<Process>,
    /// Ids of the pre-images of the files that the step touches, by path.
    pub preimages: BTreeMap<String, String>,
    /// Values that the settings of a restart had when the fix began; null for one that was not set.
    pub settings: BTreeMap<String, Option<String>>,
}

/// Which process a component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// As the kernel tells it.
    Exact(ProcessId),
    /// By when it was started, in milliseconds since the epoch. Written by the first version of journals, which took that from
    /// the clock, so that two looks at one process could differ.
    Dated {
        /// Process id.
        pid: u32,
        /// When it was started.
        started_ms: i64,
    },
}

/// What a step wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The SHA-256 of each file, by path.
    pub written: BTreeMap<String, String>,
}

/// How a fix stands, by its own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixStatus {
    /// The operator has closed it.
    Closed,
    /// Complete and verified.
    Done,
    /// Its last step has failed.
    Failed,
    /// Undone, by the first version of journals.
    RolledBack,
    /// Being undone by the first version of journals, or killed meanwhile.
    RollingBack,
    /// Under way, or killed.
    Unfinished,
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Damaged {
    /// Its id.
    pub id: String,
    /// What is wrong with it, with the file.
    pub why: String,
    /// Its plan, as far as it can be read.
    pub plan: Option<Value>,
    /// Whether its journal ends with a line that says that the fix has ended; `None` when that line cannot be read.
    pub ended: Option<bool>,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process holds the lock.
    #[error("another fix is under way on this node (process {0})")]
    Busy(String),
    /// It is not as it was written.
    #[error("{}: {why}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
    /// A system call failed.
    #[error("{}: {doing}: {error}{}", .path.display(), advice(error))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The error. It is in the message, and so no source besides.
        error: io::Error,
    },
    /// There is no fix of that id.
    #[error("there is no fix {0}")]
    NoSuchFix(String),
    /// Others than the user who runs this could write there, or it is no directory.
    #[error(
        "{} {why}: it must be a directory of the user who runs this (root, on a node) that nobody else can write to",
        .path.display()
    )]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl State {
    /// Returns the state directory at `directory`. If it is not there, nothing was ever written down, and taking the lock
    /// creates it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unsafe`] when others could write there.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let state = Self { directory: directory.to_owned(), hook: None, attempts: 10, known: Arc::default() };
        match state.expect_safe() {
            Err(JournalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(state),
            safe => safe.map(|()| state),
        }
    }

    fn expect_safe(&self) -> Result<(), JournalError> {
        let stat = fs::symlink_metadata(&self.directory)
            .map_err(|source| io_error(&self.directory, "stat", source))?;
        let why = match () {
            () if stat.is_symlink() => "is a symbolic link".to_owned(),
            () if !stat.is_dir() => "is no directory".to_owned(),
            () if stat.uid() != rustix::process::geteuid().as_raw() => {
                format!("belongs to the user with id {}", stat.uid())
            }
            () if stat.mode() & 0o022 != 0 => format!("has mode {:04o}", stat.mode() & 0o7777),
            () => return Ok(()),
        };
        Err(JournalError::Unsafe { path: self.directory.clone(), why })
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns this state with a hook for every journal that is opened in it.
    #[must_use]
    pub fn with_hook(self, hook: Hook) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// Returns this state for a process that starts no others, so that a lock that is taken is another process's at once.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { attempts: 1, ..self }
    }

    /// Takes the lock, for which the directory is created with mode 0700 if it is not there.
    ///
    /// # Errors
    ///
    /// [`JournalError::Busy`] when another process has it, and [`JournalError::Unsafe`] as [`State::open`].
    pub fn lock(&self) -> Result<Lock, JournalError> {
        let create = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        create.map_err(|source| io_error(&self.directory, "create", source))?;
        self.expect_safe()?;
        let path = self.directory.join("lock");
        let io = |doing| move |source: io::Error| io_error(&path, doing, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let open = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = open.open(self.directory.join("lock")).map_err(io.clone()("open"))?;
        // A child that is being started has the lock until it is another program, for a moment.
        let take = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let taken = (0..self.attempts).any(|attempt| {
            if attempt > 0 {
                thread::sleep(Duration::from_millis(10));
            }
            take()
        });
        if !taken {
            let mut holder = String::new();
            let _ = (&file).take(16).read_to_string(&mut holder);
            return Err(JournalError::Busy(holder.trim().to_owned()));
        }
        // Only for the message above.
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(io("write"))?;
        Ok(Lock { state: self.clone(), _file: file })
    }

    /// Returns the ids of all fixes, oldest first.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, JournalError> {
        let io = |source| io_error(&self.directory, "list", source);
        let mut ids = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix("fix-"));
            ids.extend(id.filter(|id| is_id(id)).map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// Returns what is known of the fix `id`.
    ///
    /// # Errors
    ///
    /// [`JournalError::NoSuchFix`], and [`JournalError::Corrupt`] when anything but the last line is not as it
    /// was written.
    pub fn read(&self, id: &str) -> Result<Arc<Record>, JournalError> {
        self.load(id).map(|(record, _)| record)
    }

    /// Returns what is known of every fix, oldest first. One that is damaged keeps nobody from the others.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn records(&self) -> Result<Vec<MaybeRecord>, JournalError> {
        let record = |id: &String| self.read(id).map_err(|error| Box::new(self.damaged(id, &error)));
        Ok(self.list()?.iter().map(record).collect())
    }

    /// Returns what can be told of a record that is not as it was written.
    fn damaged(&self, id: &str, error: &JournalError) -> Damaged {
        let directory = self.directory_of(id);
        let plan = read(&directory.join("plan.json")).ok();
        let journal = read(&directory.join("journal.jsonl")).ok();
        let last = journal.and_then(|bytes| {
            let line = bytes.split(|b| *b == b'\n').rfind(|line| !line.is_empty())?.to_vec();
            serde_json::from_slice::<Entry>(&line).ok()
        });
        Damaged {
            id: id.to_owned(),
            why: error.to_string(),
            plan: plan.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            ended: last.map(|entry| matches!(entry.event, Event::Closed | Event::Done | Event::RolledBack)),
        }
    }

    /// Returns the file that holds the plan of a fix.
    pub fn plan(&self, id: &str) -> PathBuf {
        self.directory_of(id).join("plan.json")
    }

    /// Returns the directory of the pre-images of a fix.
    pub fn preimages(&self, id: &str) -> PathBuf {
        self.directory_of(id).join("preimages")
    }

    fn directory_of(&self, id: &str) -> PathBuf {
        self.directory.join(format!("fix-{id}"))
    }

    /// Returns the record, and how many bytes of the journal count.
    fn load(&self, id: &str) -> Result<(Arc<Record>, u64), JournalError> {
        let directory = self.directory_of(id);
        let absent = || JournalError::NoSuchFix(printable(id));
        if !is_id(id) {
            return Err(absent());
        }
        let plan_path = directory.join("plan.json");
        let plan = read(&plan_path).map_err(|error| if directory.is_dir() { error } else { absent() })?;
        let last = self.known().get(id).filter(|known| known.plan == plan).cloned();
        let document = match &last {
            Some(last) => Arc::clone(&last.record.plan),
            None => Arc::new(
                serde_json::from_slice(&plan).map_err(|error| corrupt(&plan_path, error.to_string()))?,
            ),
        };

        let path = directory.join("journal.jsonl");
        let journal = read(&path)?;
        let whole = journal.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if let Some(last) = last.as_ref().filter(|last| last.journal == journal) {
            return Ok((Arc::clone(&last.record), whole as u64));
        }
        let lines = journal.get(..whole).unwrap_or_default().split_inclusive(|b| *b == b'\n');
        let mut entries: Vec<Entry> = Vec::new();
        for (number, line) in (0..).zip(lines) {
            let entry: Entry = serde_json::from_slice(line)
                .map_err(|error| corrupt(&path, format!("line {}: {error}", number + 1)))?;
            if entry.number != number {
                return Err(corrupt(&path, format!("line {} has the number {}", number + 1, entry.number)));
            }
            entries.push(entry);
        }
        let record = Record { id: id.to_owned(), plan: document, entries };
        if record.plan_hash() != Some(&sha256(&plan)) {
            return Err(corrupt(&path, "it does not begin with the plan that is there".to_owned()));
        }
        let record = Arc::new(record);
        let known = Known { plan, journal, record: Arc::clone(&record) };
        self.known().insert(id.to_owned(), Arc::new(known));
        Ok((record, whole as u64))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock {
    /// Returns the state directory.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Begins a fix with this plan. Whether another one is unfinished is for the caller to ask.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn begin(self, plan: &Value) -> Result<Journal, JournalError> {
        let id = self.create(plan)?;
        self.open(&id)
    }

    /// Returns a fix of which nothing is written down: for a rollback that follows from a step that failed, where the disk is
    /// full. What it undoes is written down, and says what is to be undone.
    pub fn without_record(self, plan: &Value) -> Journal {
        let record = Record { id: String::new(), plan: Arc::new(plan.clone()), entries: Vec::new() };
        Journal { file: None, record: Arc::new(record), directory: PathBuf::new(), lock: self }
    }

    /// Creates the record of a fix with this plan, and returns its id.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn create(&self, plan: &Value) -> Result<String, JournalError> {
        let now = Timestamp::now();
        let mut random = [0; 3];
        let state = self.state.directory.clone();
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| io_error(&state, "random bytes", io::ErrorKind::Other))?;
        let id = id(now, &random, self.state.list()?.last());
        // It gets its name when plan and first line are there: a directory with that name is always complete.
        let building = state.join(".beginning");
        match fs::remove_dir_all(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&building, "clear away a left-over", error));
            }
            _ => {}
        }
        let plan_bytes =
            serde_json::to_vec_pretty(plan).map_err(|error| io_error(&building, "write the plan", error))?;
        let begun = Entry { number: 0, at: now, event: Event::Begun { plan: sha256(&plan_bytes) } };
        DirBuilder::new().mode(0o700).create(&building).map_err(|e| io_error(&building, "create", e))?;
        for (name, bytes) in [("plan.json", &plan_bytes), ("journal.jsonl", &line(&begun, &building)?)] {
            let path = building.join(name);
            create(&path, bytes).map_err(|error| io_error(&path, "write", error))?;
        }
        let preimages = building.join("preimages");
        DirBuilder::new().mode(0o700).create(&preimages).map_err(|e| io_error(&preimages, "create", e))?;
        let place = self.state.directory_of(&id);
        sync(&building)
            .and_then(|()| fs::rename(&building, &place))
            .and_then(|()| sync(&state))
            .map_err(|error| io_error(&place, "create", error))?;
        Ok(id)
    }

    /// Puts a record aside, under a name that no fix has, and returns where it is then.
    ///
    /// # Errors
    ///
    /// [`JournalError::NoSuchFix`], and when it could not be renamed durably.
    pub fn set_aside(&self, id: &str) -> Result<PathBuf, JournalError> {
        let from = self.state.directory_of(id);
        if !is_id(id) || fs::symlink_metadata(&from).is_err() {
            return Err(JournalError::NoSuchFix(printable(id)));
        }
        let to = self.state.directory.join(format!("aside-{id}"));
        fs::rename(&from, &to)
            .and_then(|()| sync(&self.state.directory))
            .map_err(|error| io_error(&from, "set aside", error))?;
        Ok(to)
    }

    /// Returns the fix `id`, to be resumed or closed.
    ///
    /// # Errors
    ///
    /// As [`State::read`].
    pub fn open(self, id: &str) -> Result<Journal, JournalError> {
        let (record, whole) = self.state.load(id)?;
        let directory = self.state.directory_of(id);
        let path = directory.join("journal.jsonl");
        let open = || -> io::Result<File> {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            // A torn last line has never been written.
            file.set_len(whole)?;
            file.seek(SeekFrom::End(0))?;
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|error| io_error(&path, "open", error))?;
        Ok(Journal { file: Some(file), record, directory, lock: self })
    }
}

impl Journal {
    /// Returns what is known of the fix.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the lock, with which another fix can be begun or opened.
    pub fn into_lock(self) -> Lock {
        self.lock
    }

    /// Returns whether it is written down.
    pub fn is_written(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the directory for the pre-images of this fix.
    pub fn preimages(&self) -> PathBuf {
        self.directory.join("preimages")
    }

    /// Writes down that `step` is about to be carried out, with what is needed to undo it.
    ///
    /// # Errors
    ///
    /// When it could not be written durably: then the step must not be carried out.
    pub fn before(&mut self, step: &str, facts: Facts) -> Result<(), JournalError> {
        self.write(Event::Before { step: step.to_owned(), facts })
    }

    /// Writes down that `step` has been carried out.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn after(&mut self, step: &str, facts: Written) -> Result<(), JournalError> {
        self.write(Event::After { step: step.to_owned(), facts })
    }

    /// Writes down that `step` has failed. It can be tried again.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn failed(&mut self, step: &str, why: &str) -> Result<(), JournalError> {
        self.write(Event::Failed { step: step.to_owned(), why: why.to_owned() })
    }

    /// Writes down that the fix is complete and verified.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn done(&mut self) -> Result<(), JournalError> {
        self.write(Event::Done)
    }

    /// Writes down that the operator has closed it.
    ///
    /// # Errors
    ///
    /// When it could not be written durably.
    pub fn closed(&mut self) -> Result<(), JournalError> {
        self.write(Event::Closed)
    }

    fn write(&mut self, event: Event) -> Result<(), JournalError> {
        let entry = Entry { number: self.record.entries.len() as u64, at: Timestamp::now(), event };
        let path = self.directory.join("journal.jsonl");
        let Some(file) = &mut self.file else {
            Arc::make_mut(&mut self.record).entries.push(entry);
            return Ok(());
        };
        let line = line(&entry, &path)?;
        let hook = |moment| self.lock.state.hook.iter().for_each(|hook| hook(moment));
        hook(Moment::Before);
        let io = |error| io_error(&path, "write", error);
        let end = file.stream_position().map_err(io)?;
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What did not get there whole must not be in front of the next line.
            let _ = file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end)));
            return Err(io(error));
        }
        hook(Moment::After);
        Arc::make_mut(&mut self.record).entries.push(entry);
        Ok(())
    }
}

impl Record {
    /// Returns how the fix stands.
    pub fn status(&self) -> FixStatus {
        let mut status = FixStatus::Unfinished;
        for entry in &self.entries {
            status = match (&entry.event, status) {
                (Event::Closed, _) => FixStatus::Closed,
                (Event::Done, _) => FixStatus::Done,
                (Event::RolledBack, _) => FixStatus::RolledBack,
                (Event::RollingBack { .. }, _) => FixStatus::RollingBack,
                (Event::Failed { .. }, status) if status == FixStatus::RollingBack => status,
                (Event::Failed { .. }, _) => FixStatus::Failed,
                (Event::Before { .. } | Event::After { .. }, FixStatus::Failed) => FixStatus::Unfinished,
                (_, status) => status,
            };
        }
        status
    }

    /// Returns whether a step was begun.
    pub fn is_begun(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.event, Event::Before { .. }))
    }

    /// Returns the SHA-256 of the plan; `None` where nothing is written down.
    pub fn plan_hash(&self) -> Option<&str> {
        match &self.entries.first()?.event {
            Event::Begun { plan } => Some(plan),
            _ => None,
        }
    }

    /// Returns when the fix was begun.
    pub fn begun_at(&self) -> Timestamp {
        self.entries.first().map_or(Timestamp::MIN, |entry| entry.at)
    }

    /// Returns why its last step failed; `None` when none did.
    pub fn failure(&self) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Failed { why, .. } | Event::RollingBack { why } => Some(why.as_str()),
            _ => None,
        })
    }

    /// Returns the facts that were written down before `step`; `None` when it was not begun.
    pub fn before(&self, step: &str) -> Option<&Facts> {
        self.entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Before { step: begun, facts } if begun == step => Some(facts),
            _ => None,
        })
    }

    /// Returns the hash of what `step` wrote to `path`; `None` when that was not written down.
    pub fn written(&self, step: &str, path: &str) -> Option<&str> {
        self.entries.iter().rev().find_map(|entry| match &entry.event {
            Event::After { step: done, facts } if done == step => facts.written.get(path).map(String::as_str),
            _ => None,
        })
    }

    /// Returns whether `step` has been carried out.
    pub fn is_after(&self, step: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(&entry.event, Event::After { step: done, .. } if done == step))
    }
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Returns what to do about an error, where that is known, as a clause.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, for what cannot be written down is not done"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable, for what cannot be written down is not done, or name another directory with --state-dir"
        }
        _ => "",
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JournalError> {
    let mut bytes = Vec::new();
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let open = options.read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = open.map_err(|error| io_error(path, "open", error))?;
    let Some(metadata) = file.metadata().ok().filter(fs::Metadata::is_file) else {
        return Err(corrupt(path, "it is no regular file".to_owned()));
    };
    bytes.reserve_exact(usize::try_from(metadata.len().min(MAX_BYTES)).unwrap_or_default() + SPARE);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, "read", error))?;
    match bytes.len() as u64 > MAX_BYTES {
        true => Err(corrupt(path, format!("it has more than {} MiB", MAX_BYTES >> 20))),
        false => Ok(bytes),
    }
}

fn line(entry: &Entry, path: &Path) -> Result<Vec<u8>, JournalError> {
    // JSON text has no line ending of its own.
    let mut line = serde_json::to_vec(entry).map_err(|error| io_error(path, "write", error))?;
    line.push(b'\n');
    Ok(line)
}

/// Returns the id of a fix that is begun `now`, behind the `last` one: they are rolled back in the order of their ids, also when
/// two are begun in the same second, or the clock was set back in between.
fn id(now: Timestamp, random: &[u8], last: Option<&String>) -> String {
    const FORMAT: &str = "%Y%m%dT%H%M%SZ";
    let id = |at: Timestamp| format!("{}-{}", at.strftime(FORMAT), hex(random));
    let begun = |last: &String| {
        let time = DateTime::strptime(FORMAT, last.split('-').next()?).ok()?;
        time.to_zoned(TimeZone::UTC).ok()?.timestamp().checked_add(Duration::from_secs(1)).ok()
    };
    match last {
        Some(last) if *last >= id(now) => id(begun(last).unwrap_or(now)),
        _ => id(now),
    }
}

fn printable(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn corrupt(path: &Path, why: String) -> JournalError {
    JournalError::Corrupt { path: path.to_owned(), why }
}

fn io_error(path: &Path, doing: &'static str, source: impl Into<io::Error>) -> JournalError {
    JournalError::Io { path: path.to_owned(), doing, error: source.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state")).unwrap();
        assert!(state.list().unwrap().is_empty() && !state.directory().exists(), "to look leaves no trace");
        drop(state.lock().unwrap());
        (directory, state)
    }

    fn facts(preimage: &str) -> Facts {
        let preimages = BTreeMap::from([("/f".to_owned(), preimage.to_owned())]);
        Facts { preimages, ..Facts::default() }
    }

    fn events(record: &Record) -> Vec<&Event> {
        record.entries.iter().map(|entry| &entry.event).collect()
    }

    #[test]
    fn a_fix_is_recorded_and_found_again() {
        let (_directory, state) = state();
        let mut journal = state.lock().unwrap().begin(&json!({"rule": "etcd-peer-tls"})).unwrap();
        let id = journal.record().id.clone();
        journal.before("write", facts("x")).unwrap();
        journal.after("write", Written::default()).unwrap();
        journal.failed("restart", "line\nbreak").unwrap();
        assert!(journal.preimages().is_dir());
        drop(journal);

        let record = state.records().unwrap().remove(0).unwrap();
        assert_eq!((record.id.as_str(), record.status()), (id.as_str(), FixStatus::Failed));
        assert_eq!(record.failure(), Some("line\nbreak"));
        assert_eq!(*record.plan, json!({"rule": "etcd-peer-tls"}));
        assert_eq!(events(&record)[1], &Event::Before { step: "write".into(), facts: facts("x") });

        let mut journal = state.lock().unwrap().open(&id).unwrap();
        journal.before("restart", Facts::default()).unwrap();
        assert_eq!(journal.record().status(), FixStatus::Unfinished);
        journal.done().unwrap();
        assert_eq!(journal.record().status(), FixStatus::Done);
        drop(journal);
        assert_eq!(state.read(&id).unwrap().entries.len(), 6);
        let mut second = state.lock().unwrap().begin(&json!({})).unwrap();
        second.closed().unwrap();
        assert_eq!(second.record().status(), FixStatus::Closed);
        assert_eq!(state.list().unwrap().len(), 2);
    }

    #[test]
    fn ids_are_in_the_order_in_which_fixes_were_begun() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-01T00:00:00.9Z");
        let first = id(now, &[9, 9, 9], None);
        assert_eq!(first, "20260101T000000Z-090909");
        // In the same second, with a random part that sorts before.
        let second = id(now, &[1, 1, 1], Some(&first));
        assert_eq!(second, "20260101T000001Z-010101");
        // With a clock that was set back.
        let third = id(at("2025-06-01T12:00:00Z"), &[5, 5, 5], Some(&second));
        assert_eq!(third, "20260101T000002Z-050505");
        assert_eq!(id(at("2026-01-01T00:01:00Z"), &[0; 3], Some(&third)), "20260101T000100Z-000000");
    }

    #[test]
    fn one_process_at_a_time() {
        let (_directory, state) = state();
        let lock = state.lock().unwrap();
        let busy = state.lock().unwrap_err();
        assert!(matches!(&busy, JournalError::Busy(pid) if *pid == std::process::id().to_string()), "{busy}");
        drop(lock);
        let journal = state.lock().unwrap().begin(&json!({})).unwrap();
        assert!(matches!(state.lock(), Err(JournalError::Busy(_))));
        drop(journal);
        state.lock().unwrap();
    }

    #[test]
    fn a_crash_in_the_middle_of_a_write_costs_the_last_line_only() {
        let (directory, state) = state();
        let mut journal = state.lock().unwrap().begin(&json!({})).unwrap();
        let id = journal.record().id.clone();
        journal.before("a", facts("y")).unwrap();
        drop(journal);
        let path = directory.path().join(format!("state/fix-{id}/journal.jsonl"));
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for length in first..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(state.read(&id).unwrap().entries.len(), 1, "{length}");
            let mut journal = state.lock().unwrap().open(&id).unwrap();
            journal.after("b", Written::default()).unwrap();
            drop(journal);
            let record = state.read(&id).unwrap();
            assert_eq!(events(&record)[1..], [&Event::After { step: "b".into(), facts: Written::default() }]);
        }
        // Blocks that were allocated and never written.
        fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
        assert_eq!(state.read(&id).unwrap().entries.len(), 2);
    }

    #[test]
    fn whatever_else_is_not_as_written_is_an_error() {
        let (directory, state) = state();
        let mut journal = state.lock().unwrap().begin(&json!({"a": 1})).unwrap();
        let id = journal.record().id.clone();
        journal.before("a", Facts::default()).unwrap();
        journal.after("a", Written::default()).unwrap();
        drop(journal);
        let folder = directory.path().join(format!("state/fix-{id}"));
        let (journal, plan) = (folder.join("journal.jsonl"), folder.join("plan.json"));
        let text = fs::read_to_string(&journal).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for damaged in [
            String::new(),
            format!("{}\n", lines[1]),
            format!("{}\n{}\n", lines[0], lines[2]),
            format!("{}\n{{}}\n{}\n", lines[0], lines[2]),
            format!("{}\n{}\n\n", lines[0], lines[1]),
            text.replace("\"before\"", "\"beyond\""),
        ] {
            fs::write(&journal, &damaged).unwrap();
            assert!(matches!(state.read(&id), Err(JournalError::Corrupt { .. })), "{damaged}");
        }
        fs::write(&journal, &text).unwrap();
        state.read(&id).unwrap();
        fs::write(&plan, "{\"a\": 2}").unwrap();
        assert!(matches!(state.read(&id), Err(JournalError::Corrupt { .. })));
        for id in ["", "none", "../state", "a/b"] {
            assert!(matches!(state.read(id), Err(JournalError::NoSuchFix(_))), "{id}");
        }
    }

    #[test]
    fn killed_while_beginning_there_is_no_fix() {
        let (directory, state) = state();
        fs::create_dir(directory.path().join("state/.beginning")).unwrap();
        fs::write(directory.path().join("state/.beginning/plan.json"), "{").unwrap();
        assert!(state.records().unwrap().is_empty());
        assert_eq!(state.lock().unwrap().begin(&json!({})).unwrap().record().entries.len(), 1);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, state) = state();
        let path = directory.path().join("state");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(State::open(&path), Err(JournalError::Unsafe { .. })));
        assert!(matches!(state.lock(), Err(JournalError::Unsafe { .. })));
    }

    #[test]
    fn a_damaged_record_is_told_and_can_be_set_aside_and_the_others_are_there() {
        let (directory, state) = state();
        let mut ids = Vec::new();
        for _ in 0..3 {
            let mut journal = state.lock().unwrap().begin(&json!({"rule": "r"})).unwrap();
            journal.done().unwrap();
            ids.push(journal.record().id.clone());
        }
        let path =
            |index: usize, file: &str| directory.path().join(format!("state/fix-{}/{file}", ids[index]));
        fs::write(path(0, "plan.json"), "{").unwrap();
        let text = fs::read_to_string(path(1, "journal.jsonl")).unwrap();
        fs::write(path(1, "journal.jsonl"), text.replacen("begun", "begin", 1)).unwrap();
        let records = state.records().unwrap();
        let told: Vec<_> = records.iter().filter_map(|record| record.as_ref().err()).collect();
        assert_eq!(told.iter().map(|damaged| &damaged.id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
        assert!(told[0].plan.is_none() && told[0].ended == Some(true) && told[0].why.contains("plan.json"));
        assert!(told[1].plan.is_some() && told[1].ended == Some(true) && told[1].why.contains("line 1"));
        assert!(records[2].is_ok());

        let lock = state.lock().unwrap();
        let aside = lock.set_aside(&ids[0]).unwrap();
        assert!(aside.join("journal.jsonl").is_file() && state.list().unwrap() == ids[1..]);
        assert!(matches!(lock.set_aside(&ids[0]), Err(JournalError::NoSuchFix(_))));
        assert!(matches!(lock.set_aside("../state"), Err(JournalError::NoSuchFix(_))));
    }

    #[test]
    fn the_first_version_of_journals_is_read() {
        let (directory, state) = state();
        let journal = state.lock().unwrap().begin(&json!({})).unwrap();
        let id = journal.record().id.clone();
        drop(journal);
        let path = directory.path().join(format!("state/fix-{id}/journal.jsonl"));
        let mut text = fs::read_to_string(&path).unwrap();
        for (number, event) in [
            r#""event":"before","step":"1","facts":{"process":{"pid":7,"started_ms":123},"preimages":{},"settings":{"a":null}}"#,
            r#""event":"after","step":"1","facts":{"written":{"/f":"00"}}"#,
            r#""event":"rolling-back","why":"w""#,
            r#""event":"failed","step":"back","why":"v""#,
        ]
        .iter()
        .enumerate()
        {
            text += &format!("{{\"number\":{},\"at\":\"2026-01-01T00:00:00Z\",{event}}}\n", number + 1);
        }
        fs::write(&path, &text).unwrap();
        let record = state.read(&id).unwrap();
        assert_eq!((record.status(), record.failure()), (FixStatus::RollingBack, Some("v")));
        assert_eq!(record.before("1").unwrap().process, Some(Process::Dated { pid: 7, started_ms: 123 }));
        assert_eq!(record.written("1", "/f"), Some("00"));
        let ended = "{\"number\":5,\"at\":\"2026-01-01T00:00:00Z\",\"event\":\"rolled-back\"}\n";
        fs::write(&path, text + ended).unwrap();
        assert_eq!(state.read(&id).unwrap().status(), FixStatus::RolledBack);
    }
}
