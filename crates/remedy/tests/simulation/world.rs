//! The cluster in memory as a fix sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use seaworthy_journal::record::Process;
use seaworthy_remedy::progress::ProgressRecord;
use seaworthy_remedy::subject::Subject;
use seaworthy_remedy::supplied::Supplied;
use seaworthy_remedy::world::{Lease, Membership, NoLock, NotObserved, NotPublished, Observation, World};

use crate::evidence::node_name;
use crate::schedule::{Seat, Shared};

/// How often somebody who wants the lock asks for it.
const POLL: Duration = Duration::from_millis(100);

/// A node of the cluster in memory.
pub(crate) struct Node {
    pub(crate) seat: Seat,
    pub(crate) root: PathBuf,
}

impl Node {
    /// Asks or requests something, in one moment.
    fn ask<T>(&self, what: impl FnOnce(&mut Shared) -> T) -> T {
        self.seat.call();
        what(&mut self.seat.simulation.lock())
    }

    /// Requests something that changes the cluster: the run may be killed before and after.
    fn request<T>(&self, what: impl FnOnce(&mut Shared) -> T) -> T {
        let done = self.ask(what);
        self.seat.call();
        done
    }
}

impl World for Node {
    fn name(&self) -> String {
        node_name(self.seat.node)
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn now(&self) -> Timestamp {
        self.seat.simulation.lock().cluster.wall(self.seat.node)
    }

    fn elapsed(&self) -> Duration {
        self.seat.now()
    }

    fn pause(&self, time: Duration) {
        self.seat.wait_for(time);
    }

    fn observe(&self) -> Result<Observation, NotObserved> {
        self.ask(|shared| {
            shared.looks(self.seat.actor);
            Ok(shared.cluster.observe(self.seat.node))
        })
    }

    fn running(&self) -> Result<Option<Arc<Subject>>, NotObserved> {
        self.ask(|shared| Ok(shared.cluster.running(self.seat.node)))
    }

    fn membership(&self, etcd: Option<&Subject>, via: &[String]) -> Result<Membership, String> {
        self.ask(|shared| {
            let known = etcd.is_some_and(|etcd| etcd.own.cluster.value().is_some());
            if !known && via.is_empty() {
                return Err("no client URL of a member is known".to_owned());
            }
            shared.cluster.answers()?;
            Ok(shared.cluster.membership.clone())
        })
    }

    fn memberships(&self, seen: &Observation) -> Result<Vec<(String, Membership)>, String> {
        self.ask(|shared| {
            let known = |member: &seaworthy_evidence::Member| {
                let index = shared.cluster.members.iter().position(|m| m.id == member.id);
                let index = index.filter(|index| shared.cluster.is_ready(*index));
                let index = index.ok_or_else(|| format!("{}: connection refused", member.name))?;
                Ok((member.name.clone(), shared.cluster.members[index].known.clone()))
            };
            seen.members().iter().map(known).collect()
        })
    }

    fn judge(&self, rule: &str, seen: &Observation) -> Result<(), String> {
        self.seat.simulation.lock().cluster.judge(rule, seen)
    }

    fn same_data(&self, _: &Observation) -> Result<i64, String> {
        self.ask(|shared| {
            shared.cluster.answers()?;
            let count = shared.cluster.members.len();
            match (0..count).find(|index| !shared.cluster.is_healthy(*index)) {
                Some(index) => Err(format!("{} does not answer", crate::node::name(index))),
                None => Ok(i64::try_from(shared.cluster.revision).unwrap_or(i64::MAX)),
            }
        })
    }

    fn move_leader(&self, _: &Observation, to: &str) -> Result<(), String> {
        self.request(|shared| {
            shared.expect_asked(self.seat.actor);
            shared.cluster.move_leader(to)
        })
    }

    fn update_member(&self, id: &str, urls: &[String], via: &[String]) -> Result<(), String> {
        self.request(|shared| match via.is_empty() {
            true => Err("no client URL of a member is known".to_owned()),
            false => {
                shared.expect_asked(self.seat.actor);
                shared.cluster.update_member(id, urls)
            }
        })
    }

    fn end(&self, process: &Process) -> Result<(), String> {
        self.request(|shared| {
            if let Process::Exact(identity) = process {
                let looked = shared.looked(self.seat.actor);
                shared.cluster.terminate(self.seat.node, identity, looked);
            }
            Ok(())
        })
    }

    fn systemd(&self, unit: &str, _: bool, _: Duration) -> Result<(), String> {
        Err(format!("there is no unit {unit}"))
    }

    fn lock(&self, owner: &str, wait: Duration) -> Result<Box<dyn Lease + '_>, NoLock> {
        let start = self.elapsed();
        loop {
            let taken = self.request(|shared| {
                if shared.cluster.members[self.seat.node].process.is_none() {
                    return Err(NoLock::Unknown("the member does not run".to_owned()));
                }
                shared.cluster.answers().map_err(NoLock::Unknown)?;
                let fence = shared.cluster.take_lock(owner).map_err(|owner| NoLock::Held { owner })?;
                shared.keep_alive(self.seat.actor, Some(fence));
                Ok(fence)
            });
            match taken {
                Ok(fence) => return Ok(Box::new(Lock { seat: &self.seat, fence })),
                Err(NoLock::Held { .. }) if self.elapsed().saturating_sub(start) < wait => {
                    self.seat.pause_until_change(POLL, wait);
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn supplied(&self, certificate: &str, _: &str) -> Result<Supplied, String> {
        Err(format!("{certificate} is not there"))
    }
}

/// The lock of the cluster.
struct Lock<'a> {
    seat: &'a Seat,
    fence: u64,
}

impl Lease for Lock<'_> {
    fn confirm(&self) -> Result<(), String> {
        self.seat.call();
        let mut shared = self.seat.simulation.lock();
        shared.asks(self.seat.actor);
        shared.cluster.answers()?;
        match shared.cluster.has_lock(self.fence) {
            true => Ok(()),
            false => Err("the lock is lost".to_owned()),
        }
    }

    fn publish(&self, member_id: &str, record: &ProgressRecord) -> Result<(), NotPublished> {
        self.seat.call();
        {
            let mut shared = self.seat.simulation.lock();
            shared.cluster.answers().map_err(NotPublished::Unanswered)?;
            if !shared.cluster.has_lock(self.fence) {
                return Err(NotPublished::LockLost("the lock is lost".to_owned()));
            }
            shared.cluster.publish(member_id, record);
            shared.tell(self.seat.actor, || {
                format!(
                    "publishes for {} that it has reached {:?}, under way {:?}",
                    record.rule, record.reached, record.under_way
                )
            });
        }
        self.seat.call();
        Ok(())
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let mut shared = self.seat.simulation.lock();
        shared.keep_alive(self.seat.actor, None);
        if thread::panicking() || shared.cluster.answers().is_err() {
            shared.cluster.orphan(self.fence);
        } else {
            shared.cluster.release(self.fence);
        }
    }
}
