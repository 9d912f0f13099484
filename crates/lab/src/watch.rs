//! Who is connected with whom: as the sockets of the members say, while something is done to a cluster.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{cluster::Cluster, node::Node};

/// How often the sockets are looked at.
const POLL: Duration = Duration::from_millis(100);

/// For how long a member that runs may have no connection with any other that runs, before it counts as isolated: longer than
/// one takes to start and to be dialled on a busy machine.
const ISOLATED: Duration = Duration::from_secs(15);

/// What was seen of the connections between members.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watched {
    /// The longest time for which one member had no connection to another that it had dialled, while both ran.
    pub one_way: Apart,
    /// The longest time for which two members had no connection that either had dialled, while both ran.
    pub parted: Apart,
    /// The members that ran and were connected with no other one that ran, for more than 15 seconds.
    pub isolated: BTreeSet<String>,
}

/// For how long two members were not connected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Apart {
    /// The member that had not dialled.
    pub from: String,
    /// The one that was not dialled.
    pub to: String,
    /// For how long.
    pub time: Duration,
}

impl Cluster {
    /// Does `work`, and returns what was seen of the connections between the members meanwhile.
    pub fn watched<T>(&self, work: impl FnOnce() -> T) -> (T, Watched) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut watch = Watch::default();
                while !over.load(Ordering::Relaxed) {
                    watch.look(self.nodes());
                    thread::sleep(POLL);
                }
                watch.seen
            });
            // Also when `work` panics: the scope waits for the thread.
            let end = End(&over);
            let done = work();
            drop(end);
            (done, watch.join().unwrap_or_default())
        })
    }

    /// Returns who has dialled whom: from each member, by its index, to which it has a connection now.
    pub fn connections(&self) -> Vec<BTreeSet<usize>> {
        let views: Vec<View> = self.nodes().iter().map(View::of).collect();
        let dialled = |view: &View| {
            let to = |(index, node): (usize, &Node)| view.dials(node).then_some(index);
            self.nodes().iter().enumerate().filter_map(to).collect()
        };
        views.iter().map(dialled).collect()
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is remembered between two looks.
#[derive(Default)]
struct Watch {
    /// Since when one member has not dialled another, by their indices, while both are these processes.
    since: BTreeMap<(usize, usize), (u32, u32, Instant)>,
    /// The same for no connection either way.
    parted: BTreeMap<(usize, usize), (u32, u32, Instant)>,
    /// Since when this process has no connection with anybody who runs.
    alone: BTreeMap<usize, (u32, Instant)>,
    seen: Watched,
}

impl Watch {
    fn look(&mut self, nodes: &[Node]) {
        let views: Vec<View> = nodes.iter().map(View::of).collect();
        let now = Instant::now();
        for (i, (one, node)) in views.iter().zip(nodes).enumerate() {
            let mut accompanied = false;
            let mut others = false;
            for (j, (other, to)) in views.iter().zip(nodes).enumerate().filter(|(j, _)| *j != i) {
                let (Some(pid), Some(their)) = (one.pid, other.pid) else {
                    self.since.remove(&(i, j));
                    self.parted.remove(&(i, j));
                    continue;
                };
                others = true;
                let (there, back) = (one.dials(to), other.dials(node));
                accompanied |= there || back;
                let apart = |time| Apart { from: node.name.clone(), to: to.name.clone(), time };
                let time = since(&mut self.since, (i, j), (pid, their), there, now);
                if time > self.seen.one_way.time {
                    self.seen.one_way = apart(time);
                }
                let time = since(&mut self.parted, (i, j), (pid, their), there || back, now);
                if time > self.seen.parted.time {
                    self.seen.parted = apart(time);
                }
            }
            match one.pid.filter(|_| others && !accompanied) {
                None => _ = self.alone.remove(&i),
                Some(pid) => {
                    let (known, since) = self.alone.entry(i).or_insert((pid, now));
                    if *known != pid {
                        (*known, *since) = (pid, now);
                    }
                    if now.duration_since(*since) > ISOLATED {
                        self.seen.isolated.insert(node.name.clone());
                    }
                }
            }
        }
    }
}

/// Returns for how long two members that are these processes have not been connected.
fn since(
    known: &mut BTreeMap<(usize, usize), (u32, u32, Instant)>,
    pair: (usize, usize),
    pids: (u32, u32),
    connected: bool,
    now: Instant,
) -> Duration {
    if connected {
        known.remove(&pair);
        return Duration::ZERO;
    }
    let entry = known.entry(pair).or_insert((pids.0, pids.1, now));
    if (entry.0, entry.1) != pids {
        *entry = (pids.0, pids.1, now);
    }
    now.duration_since(entry.2)
}

/// The established connections of a member's etcd.
struct View {
    pid: Option<u32>,
    /// The remote ends, as the kernel's table has them.
    remote: HashSet<String>,
}

impl View {
    fn of(node: &Node) -> Self {
        let pid = node.etcd_pid();
        let own = pid.map(|pid| sockets(&node.root().join(format!("proc/{pid}/fd")))).unwrap_or_default();
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", node.pid())).unwrap_or_default();
        let remote = |line: &str| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, _, remote, "01", _, _, _, _, _, inode, ..] = columns.as_slice() else { return None };
            own.contains(*inode).then(|| (*remote).to_string())
        };
        Self { pid, remote: table.lines().skip(1).filter_map(remote).collect() }
    }

    /// Returns whether it has a connection to the peer port of a member, which it has dialled then.
    fn dials(&self, to: &Node) -> bool {
        let address = u32::from_le_bytes(to.address.octets());
        self.remote.contains(&format!("{address:08X}:{:04X}", to.peer_port()))
    }
}

/// Returns the sockets that a process has open, by their inodes.
fn sockets(folder: &Path) -> HashSet<String> {
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_string())
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(inode).collect()
}
