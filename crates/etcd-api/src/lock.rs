//! A lock that one holder in the cluster has at a time, and that ends with its holder.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Client, Condition, Error, Timeouts, client::put, error::quote};

/// A lock: a key that only its holder created, bound to a lease that a thread keeps alive.
///
/// If the holder dies, the lease ends after its time to live, and the key with it. If the holder merely stops
/// (is suspended, or cut off), the same happens behind its back: then [`still_held`](Self::still_held) turns
/// false as soon as it runs again, by its own clock, and [`put`](Self::put) cannot succeed any more, whatever
/// it believes, because etcd compares the revision that created the key in the same transaction.
///
/// Only keys can be fenced like this. Before anything else (a member update, a file) ask
/// [`confirm`](Self::confirm), and keep what follows much shorter than the time to live.
///
/// Dropping it ends the lease.
pub struct Lock {
    client: Client,
    key: String,
    lease: i64,
    /// The revision that created the key: this holder's and no other's.
    fence: i64,
    held: Held,
    /// Ends the heartbeat when dropped.
    _stop: Sender<()>,
}

impl Lock {
    /// Takes the lock `key`, waiting at most `wait` for another holder to let go of it.
    ///
    /// `owner` is what others read while they wait. `ttl`, of which etcd may make more, is how long the lock
    /// outlives a holder that died.
    pub fn acquire(
        client: &Client,
        key: &str,
        owner: &str,
        ttl: Duration,
        wait: Duration,
    ) -> Result<Self, Error> {
        let start = Instant::now();
        loop {
            let other = client.get(key)?;
            if other.is_none()
                && let Some(lock) = Self::attempt(client, key, owner, ttl)?
            {
                return Ok(lock);
            }
            let waited = start.elapsed();
            if waited >= wait
                && let Some(other) = other
            {
                let owner = quote(&String::from_utf8_lossy(&other.value));
                return Err(Error::Locked { key: key.into(), owner, waited });
            }
            thread::sleep(POLL);
        }
    }

    /// Removes the lock `key` if it says that `owner` holds it, and returns whether it did. For an owner that knows that
    /// its former self has ended, and does not want to wait until the lease of that one has, too.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub fn break_own(client: &Client, key: &str, owner: &str) -> Result<bool, Error> {
        match client.get(key)? {
            Some(held) if held.value == owner.as_bytes() => {
                client.delete_if(&[Condition::Created(key.as_bytes(), held.created)], key)
            }
            _ => Ok(false),
        }
    }

    /// Returns whether the lock is certainly held, as far as can be said without asking: the lease was kept
    /// alive recently enough by this machine's clock, which does not count the time that the machine was
    /// suspended.
    pub fn still_held(&self) -> bool {
        self.held.until().is_some_and(|until| Instant::now() < until)
    }

    /// Asks the cluster whether the lock is held; an error if not.
    pub fn confirm(&self) -> Result<(), Error> {
        match self.client.get(&self.key)? {
            Some(key) if key.created == self.fence && self.still_held() => Ok(()),
            _ => Err(self.lost()),
        }
    }

    /// Sets a key if the lock is held, in one transaction, and returns the revision that did. Of several that
    /// believe to hold the lock only one can succeed.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<i64, Error> {
        self.put_if(&[], key, value)?.ok_or_else(|| self.lost())
    }

    /// Sets a key if the lock is held and all conditions hold, in one transaction. Returns the revision that
    /// did, or `None` if a condition did not hold; the lock not being held is an error.
    pub fn put_if(
        &self,
        conditions: &[Condition<'_>],
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<i64>, Error> {
        let mut all = vec![Condition::Created(self.key.as_bytes(), self.fence)];
        all.extend(conditions);
        let done = self.client.put_if(&all, key, value)?;
        if done.is_none() && !conditions.is_empty() {
            self.confirm()?; // else the lock is what did not hold
        }
        Ok(done)
    }

    /// Returns the revision that created the lock's key: larger for every later holder.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// Lets go of the lock, and says if that failed. Then it ends with its lease.
    pub fn release(self) -> Result<(), Error> {
        self.let_go() // dropping it then asks once more, in vain
    }

    /// Tries once. `None` if another was faster.
    fn attempt(client: &Client, key: &str, owner: &str, ttl: Duration) -> Result<Option<Self>, Error> {
        let start = Instant::now();
        let (lease, ttl) = client.grant(ttl)?;
        let free = Condition::Created(key.as_bytes(), 0);
        let taken = client.transact(&[free], put(key.as_bytes(), owner.as_bytes(), lease));
        let Ok(Some(fence)) = taken else {
            // It may have been carried out all the same: the key must not stay as long as the lease.
            let _ = client.revoke(lease);
            return taken.map(|_| None);
        };
        let held = Held(Arc::new(Mutex::new(Some(start + ttl))));
        let (stop, stopped) = mpsc::channel();
        let lock = Self { client: client.clone(), key: key.into(), lease, fence, held, _stop: stop };
        let heart =
            Heart { client: impatient(client, ttl), key: key.into(), lease, fence, held: lock.held.clone() };
        let beat = move || {
            while stopped.recv_timeout(ttl / 3) == Err(RecvTimeoutError::Timeout) && heart.beat() {}
        };
        let spawned = thread::Builder::new().name("etcd-lock".into()).spawn(beat);
        spawned.map_err(|source| Error::System { what: "start a thread", source })?;
        Ok(Some(lock))
    }

    fn lost(&self) -> Error {
        self.held.set(None);
        Error::LockLost { key: self.key.clone() }
    }

    fn let_go(&self) -> Result<(), Error> {
        if self.held.until().is_none() {
            return Ok(());
        }
        self.held.set(None);
        self.client.revoke(self.lease)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.let_go();
    }
}

/// How often a lock that another holds is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Until when the lock is certainly held; `None` once it is lost.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<Instant>>>);

impl Held {
    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Keeps a lock's lease alive.
struct Heart {
    client: Client,
    key: String,
    lease: i64,
    fence: i64,
    held: Held,
}

impl Heart {
    /// Beats once, and returns whether to go on.
    fn beat(&self) -> bool {
        let start = Instant::now();
        let kept = self.client.keep_alive(self.lease);
        // The lease can live on without the key, if somebody removed it.
        let lost = matches!(kept, Ok(Duration::ZERO))
            || self.client.get(&self.key).is_ok_and(|key| key.is_none_or(|key| key.created != self.fence));
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lost {
            *held = None;
        } else if let (Some(until), Ok(ttl)) = (held.as_mut(), kept) {
            *until = start + ttl;
        }
        held.is_some()
    }
}

/// Returns the client with so little patience that a heartbeat gets past two endpoints that do not answer in
/// time.
fn impatient(client: &Client, ttl: Duration) -> Client {
    let Timeouts { connect, call } = client.timeouts();
    client.clone().with_timeouts(Timeouts { connect: connect.min(ttl / 8), call: call.min(ttl / 8) })
}
