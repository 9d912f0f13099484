//! One seed: a cluster that is fixed and rolled back, while runs are killed and everything else goes wrong, and the operators
//! who bring each node to its end once that is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seaworthy_journal::record::State;
use seaworthy_remedy::executor::{Executor, Outcome, Progress};
use seaworthy_remedy::fixes;
use seaworthy_remedy::history::History;
use seaworthy_remedy::input::{AuthorityFiles, Options};
use seaworthy_remedy::progress::ProgressRecord;

use crate::cluster::{Cluster, Counts};
use crate::faults::{Edit, Fault};
use crate::node::{MANIFEST, PKI, below, name};
use crate::random::Random;
use crate::schedule::{Kill, Seat, Simulation, Task, hook};
use crate::world::Node;

const PEER_TLS: &str = "etcd-peer-tls";
const MODE: &str = "manifest-mode";
/// How often an operator tries before giving up.
const TRIES: usize = 16;

/// What an operator asks for.
#[derive(Clone, Debug)]
enum Request {
    Apply,
    Resume(String),
    RollBack(String),
    Forget(String),
}

/// How a run ended.
#[derive(Debug)]
enum Ended {
    Killed,
    Outcome(Outcome),
    Forgotten,
    Error,
}

/// How a run is disturbed.
#[derive(Clone, Copy, Debug, Default)]
struct Disturbance {
    kill: Kill,
    freeze: Option<(Duration, Duration)>,
    interrupt: Option<Duration>,
}

/// Files of a node, by path: content and mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

pub(crate) struct Told {
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) trace: Vec<String>,
    pub(crate) time: Duration,
}

/// Tells the story of a seed in an empty directory.
pub(crate) fn tell(seed: u64, directory: &Path, traced: bool) -> Told {
    let mut random = Random::new(seed);
    let count = if random.once_in(10) { 5 } else { 3 };
    let cluster = Cluster::new(random.fork(), count, directory, traced);
    let story = Story::new(cluster, random.fork());
    story.there(&mut random);
    story.drive(true);
    // What was closed half-way is taken back by hand.
    let whole = story.closed.lock().unwrap().is_empty();
    if random.once_in(2) && story.goes_on() && whole {
        story.back(&mut random);
        story.drive(false);
        story.expect_first();
    }
    let mut shared = story.simulation.lock();
    let cluster = &mut shared.cluster;
    Told {
        violations: std::mem::take(&mut cluster.violations),
        counts: cluster.counts.clone(),
        trace: cluster.trace.take().unwrap_or_default(),
        time: cluster.now,
    }
}

/// Lets every node of a cluster be fixed in peace, and then one of them be rolled back, to before the first of its fixes or only
/// the last, while the others stay; returns how that ended. `fault` happens before.
pub(crate) fn roll_back_alone(directory: &Path, all: bool, fault: Option<Fault>) -> String {
    let story = Story::calm(directory);
    story.drive(true);
    let ended = Mutex::new(String::new());
    let back = |seat: &Seat| {
        let fixes = story.standing(0, PEER_TLS);
        let id = if all { fixes.first() } else { fixes.last() }.unwrap().clone();
        fault.iter().for_each(|fault| seat.simulation.lock().cluster.inflict(fault.clone()));
        let wait = Duration::from_secs(60);
        let outcome = story.run(seat, PEER_TLS, &Request::RollBack(id), wait, Disturbance::default());
        *ended.lock().unwrap() = format!("{outcome:?}");
    };
    story.simulation.perform(vec![(0, Box::new(back))]);
    ended.into_inner().unwrap()
}

/// Lets a fix be killed within its turn, and `spoil` what is left of it: the directory of its records, and what the member has
/// published. Returns whether the turn is still published as begun once the fix has run again, and how that ended.
pub(crate) fn spoil_turn(directory: &Path, spoil: fn(&Path, &mut ProgressRecord)) -> (bool, String) {
    let story = Story::calm(directory);
    let told = Mutex::new((false, String::new()));
    let killed = |seat: &Seat| {
        let wait = Duration::from_secs(10);
        let kill = Disturbance { kill: Kill::Boundary(2), ..Disturbance::default() };
        let begun =
            |seat: &Seat| seat.simulation.lock().cluster.records.values().any(|r| r.under_way.is_some());
        story.run(seat, PEER_TLS, &Request::Apply, wait, kill);
        assert!(begun(seat), "the turn was begun");
        {
            let mut shared = seat.simulation.lock();
            let record = shared.cluster.records.values_mut().next().unwrap();
            spoil(&state_directory(&story.roots[0]), record);
        }
        let outcome = story.run(seat, PEER_TLS, &Request::Apply, wait, Disturbance::default());
        *told.lock().unwrap() = (begun(seat), format!("{outcome:?}"));
    };
    story.simulation.perform(vec![(0, Box::new(killed))]);
    told.into_inner().unwrap()
}

struct Story {
    simulation: Arc<Simulation>,
    roots: Vec<PathBuf>,
    /// Where the records of each node are.
    states: Vec<State>,
    /// The files of each node before anything was done.
    first: Vec<Files>,
    /// Nodes on which a record was closed, so that nothing takes back what it is about.
    closed: Mutex<BTreeSet<usize>>,
    /// Fixes of which a run has said that the others are told of the end of its turn by asking for its rollback again, by node.
    untold: Mutex<BTreeMap<usize, String>>,
}

impl Story {
    /// Returns that of three members to whom nothing happens.
    fn calm(directory: &Path) -> Self {
        let mut random = Random::new(0);
        let cluster = Cluster::new(random.fork(), 3, directory, false);
        Self::new(cluster, random.fork())
    }

    fn new(cluster: Cluster, random: Random) -> Self {
        let roots: Vec<PathBuf> = cluster.members.iter().map(|member| member.root.clone()).collect();
        let first = roots.iter().map(|root| files(root)).collect();
        let state = |root| State::open(&state_directory(root)).unwrap().impatient().with_hook(hook);
        let states = roots.iter().map(|root| state(root)).collect();
        let simulation = Simulation::new(cluster, random);
        Self { simulation, roots, states, first, closed: Mutex::default(), untold: Mutex::default() }
    }

    fn goes_on(&self) -> bool {
        self.simulation.lock().cluster.violations.is_empty()
    }

    fn history(&self, node: usize) -> History {
        History::read(&self.states[node]).unwrap()
    }

    /// Runs what an operator asks for on a node.
    fn run(&self, seat: &Seat, rule: &str, request: &Request, wait: Duration, how: Disturbance) -> Ended {
        seat.simulation.lock().tell(seat.actor, || format!("{request:?} {rule}, {how:?}"));
        let ended = seat.mortal(how.kill, how.freeze, || {
            let root = &self.roots[seat.node];
            let world = Node { seat: seat.clone(), root: root.clone() };
            let options = || options(root);
            let tell = |progress: &Progress| {
                seat.waits(matches!(progress, Progress::Waiting { .. }));
                seat.acts(matches!(progress, Progress::Step { .. }));
                if let Progress::Remark { what } = progress
                    && let Some((_, command)) = what.split_once(" until `seaworthy fix --rollback ")
                {
                    let id = command.split(' ').next().unwrap().to_owned();
                    self.untold.lock().unwrap().insert(seat.node, id);
                }
                let mut shared = seat.simulation.lock();
                shared.tell(seat.actor, || format!("{progress:?}"));
                if matches!(progress, Progress::Turn { doing: "begun", .. }) && rule == PEER_TLS {
                    shared.cluster.check_beginning(seat.node);
                }
            };
            let interrupted = || how.interrupt.is_some_and(|at| at <= seat.now());
            let executor = Executor {
                world: &world,
                task: fixes::Task::of(seaworthy_builtin::catalogue().unwrap(), rule, "etcd"),
                options: &options,
                state: &self.states[seat.node],
                wait,
                settle: Duration::from_secs(60),
                tell: &tell,
                interrupted: &interrupted,
            };
            let said = |error: String| {
                seat.simulation.lock().tell(seat.actor, || error);
                Ended::Error
            };
            let outcome = match request {
                Request::Apply => executor.apply(),
                Request::Resume(id) => executor.resume(id),
                Request::RollBack(id) => executor.roll_back(id),
                Request::Forget(id) => {
                    self.closed.lock().unwrap().insert(seat.node);
                    seat.simulation.lock().cluster.disown(seat.node);
                    return match executor.forget(id) {
                        Ok(_) => Ended::Forgotten,
                        Err(error) => said(error.to_string()),
                    };
                }
            };
            match outcome {
                Ok(outcome) => Ended::Outcome(outcome),
                Err(error) => said(error.to_string()),
            }
        });
        let ended = ended.unwrap_or(Ended::Killed);
        let mut shared = seat.simulation.lock();
        if matches!(ended, Ended::Outcome(Outcome::RolledBack { .. })) {
            shared.cluster.counts.rollbacks += 1;
        }
        shared.tell(seat.actor, || format!("=> {ended:?}"));
        ended
    }

    /// Lets every node be fixed, while everything goes wrong.
    fn there(&self, random: &mut Random) {
        self.plan_faults(random);
        let mut tasks: Vec<(usize, Task<'_>)> = Vec::new();
        for node in 0..self.roots.len() {
            let mut own = random.fork();
            tasks.push((node, Box::new(move |seat: &Seat| self.fix(seat, &mut own))));
            if random.once_in(8) {
                let mut own = random.fork();
                tasks.push((node, Box::new(move |seat: &Seat| self.close(seat, &mut own))));
            }
        }
        self.simulation.perform(tasks);
    }

    /// Lets a node be fixed, some times in vain, and perhaps rolled back in between.
    fn fix(&self, seat: &Seat, random: &mut Random) {
        for _ in 0..random.within(1, 5) {
            let how = disturbance(random, seat.now());
            let wait = random.millis(20_000, 200_000);
            let standing: Vec<String> = self.standing(seat.node, PEER_TLS);
            let ended = match random.once_in(6) && !standing.is_empty() {
                true => {
                    let id = standing[random.index(standing.len())].clone();
                    self.run(seat, PEER_TLS, &Request::RollBack(id), wait, how)
                }
                false => self.run(seat, PEER_TLS, &Request::Apply, wait, how),
            };
            if matches!(ended, Ended::Outcome(Outcome::Done { .. })) {
                break;
            }
            if random.once_in(12)
                && let Some(pending) = self.history(seat.node).pending().next().map(|fix| fix.id().to_owned())
            {
                self.run(seat, PEER_TLS, &Request::Forget(pending), wait, Disturbance::default());
            }
            seat.pause(random.millis(0, 25_000));
        }
    }

    /// Lets the manifest of a node be closed to others, by another rule.
    fn close(&self, seat: &Seat, random: &mut Random) {
        seat.pause(random.millis(0, 60_000));
        for _ in 0..random.within(1, 3) {
            let how = disturbance(random, seat.now());
            self.run(seat, MODE, &Request::Apply, random.millis(5_000, 100_000), how);
            seat.pause(random.millis(0, 20_000));
        }
    }

    /// Lets every node be rolled back, while everything goes wrong.
    fn back(&self, random: &mut Random) {
        self.plan_faults(random);
        let mut tasks: Vec<(usize, Task<'_>)> = Vec::new();
        for node in 0..self.roots.len() {
            let mut own = random.fork();
            let task = move |seat: &Seat| {
                for _ in 0..own.within(1, 4) {
                    let standing = self.standing(seat.node, PEER_TLS);
                    let Some(id) = standing.get(own.index(standing.len())) else { break };
                    let how = disturbance(&mut own, seat.now());
                    let wait = own.millis(20_000, 200_000);
                    let request = match own.once_in(8) {
                        true => Request::Apply,
                        false => Request::RollBack(id.clone()),
                    };
                    self.run(seat, PEER_TLS, &request, wait, how);
                    seat.pause(own.millis(0, 25_000));
                }
            };
            tasks.push((node, Box::new(task)));
        }
        self.simulation.perform(tasks);
    }

    /// Returns the fixes of a rule that stand on a node, oldest first.
    fn standing(&self, node: usize, rule: &str) -> Vec<String> {
        let history = self.history(node);
        history.standing().filter(|fix| fix.rule() == rule).map(|fix| fix.id().to_owned()).collect()
    }

    fn plan_faults(&self, random: &mut Random) {
        let mut shared = self.simulation.lock();
        let now = shared.cluster.now;
        let mut faults = Vec::new();
        for _ in 0..[0, 0, 1, 1, 2, 3, 5][random.index(7)] {
            let node = random.index(self.roots.len());
            let at = now + random.millis(0, 150_000);
            let later = at + random.millis(2_000, 90_000);
            match random.below(12) {
                0..=1 => faults.push((at, Fault::Crash(node))),
                2 => faults.push((at, Fault::Reset(node))),
                10..=11 => faults.push((at, Fault::Outage(node, later - at))),
                3 => faults.push((at, Fault::KubeletDown(node, later - at))),
                4 => {
                    let factor = u32::try_from(random.within(2, 15)).unwrap_or(2);
                    faults.push((at, Fault::KubeletSlow(node, factor)));
                    faults.push((later, Fault::KubeletSlow(node, 1)));
                }
                5 => {
                    let which = random.once_in(2).then_some(node);
                    let seconds = i64::try_from(random.within(1, 1_200)).unwrap_or(1) - 600;
                    faults.push((at, Fault::Clock(which, seconds)));
                    faults.push((later, Fault::Clock(which, -seconds)));
                }
                _ => faults.push((at, Fault::Edit(node, Edit::random(random)))),
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        shared.cluster.faults = faults.into();
    }

    /// Ends all faults, and lets operators bring every node to where it is to be: fixed, or as it was.
    fn drive(&self, there: bool) {
        if !self.goes_on() {
            return;
        }
        self.simulation.lock().cluster.heal();
        let task = |node: usize| -> (usize, Task<'_>) {
            (node, Box::new(move |seat: &Seat| self.operate(seat, there)))
        };
        self.simulation.perform((0..self.roots.len()).map(task).collect());
        if !self.goes_on() {
            return;
        }
        // What was restarted last comes up.
        self.simulation.perform(vec![(
            0,
            Box::new(|seat: &Seat| {
                for _ in 0..60 {
                    seat.pause(Duration::from_secs(1));
                    if seat.simulation.lock().cluster.is_calm() {
                        break;
                    }
                }
            }),
        )]);
        for node in 0..self.roots.len() {
            let history = self.history(node);
            let pending: Vec<String> =
                history.pending().map(|fix| format!("{} of {}", fix.id(), fix.rule())).collect();
            let mut shared = self.simulation.lock();
            if !pending.is_empty() {
                shared.cluster.violated(format!("{} has {} pending", name(node), pending.join(", ")));
            }
        }
        if self.goes_on() {
            self.simulation.lock().cluster.check_end();
        }
    }

    /// Does what an operator does who reads what a run says.
    fn operate(&self, seat: &Seat, there: bool) {
        let wait = Duration::from_secs(200);
        let calm = Disturbance::default();
        seat.pause(Duration::from_secs(20));
        for attempt in 0..TRIES {
            let request = match there {
                true => Some((PEER_TLS, Request::Apply)),
                false => {
                    let of_rule = |rule: &'static str| {
                        let first = self.standing(seat.node, rule).into_iter().next();
                        first.map(|id| (rule, Request::RollBack(id)))
                    };
                    of_rule(PEER_TLS).or_else(|| of_rule(MODE))
                }
            };
            let pending = self.history(seat.node).pending().map(|fix| fix.rule().to_owned()).next();
            let Some((rule, request)) = request else {
                match pending {
                    // A rollback that was begun, of a fix that does not count any more.
                    Some(_) => self.find_way_out(seat, attempt),
                    None => {
                        let Some(id) = self.untold.lock().unwrap().remove(&seat.node) else { return };
                        self.run(seat, PEER_TLS, &Request::RollBack(id), wait, calm);
                    }
                }
                continue;
            };
            match self.run(seat, rule, &request, wait, calm) {
                Ended::Outcome(Outcome::Done { .. }) if there => match pending {
                    Some(other) if other != PEER_TLS => self.find_way_out(seat, attempt),
                    _ => return,
                },
                Ended::Outcome(Outcome::Refused { refusals, .. })
                    if refusals.iter().all(|r| {
                        r.what.contains(" is not valid before ") && r.instead.contains("wait until then")
                    }) =>
                {
                    seat.pause(Duration::from_secs(120));
                }
                Ended::Outcome(Outcome::Refused { .. } | Outcome::Stopped { .. }) => {
                    self.find_way_out(seat, attempt);
                }
                _ => {}
            }
            seat.pause(Duration::from_secs(5));
        }
        let mut shared = self.simulation.lock();
        let records = shared.cluster.records.clone();
        shared.tell(seat.actor, || format!("{records:?}"));
        shared.cluster.violated(format!("{} is not brought to its end (there: {there})", name(seat.node)));
    }

    /// Ends what is pending on a node: it is finished, else rolled back, else what others have changed is put back, else it is
    /// closed.
    fn find_way_out(&self, seat: &Seat, attempt: usize) {
        let wait = Duration::from_secs(120);
        let calm = Disturbance::default();
        let history = self.history(seat.node);
        let next = history.pending().next().map(|fix| (fix.id().to_owned(), fix.rule().to_owned()));
        let undone = history.pending().next().and_then(|fix| fix.plan.rollback_of.clone());
        // What the messages say: put it back to what the fix made it.
        if attempt >= 2 {
            let closed = !self.standing(seat.node, MODE).is_empty();
            let mode = if closed { 0o600 } else { self.first[seat.node][MANIFEST].1 };
            if self.closed.lock().unwrap().contains(&seat.node) {
                self.clear_away(seat.node);
            }
            seat.simulation.lock().cluster.unedit(seat.node, mode, closed);
            seat.pause(Duration::from_secs(10));
        }
        let Some((id, rule)) = next else { return };
        seat.simulation.lock().cluster.counts.ways_out += 1;
        let ended = self.run(seat, &rule, &Request::Resume(id.clone()), wait, calm);
        if matches!(ended, Ended::Outcome(Outcome::Done { .. } | Outcome::RolledBack { .. })) {
            return;
        }
        let target = undone.unwrap_or_else(|| id.clone());
        let ended = self.run(seat, &rule, &Request::RollBack(target), wait, calm);
        if matches!(ended, Ended::Outcome(Outcome::RolledBack { .. })) || attempt < 5 {
            return;
        }
        self.run(seat, &rule, &Request::Forget(id), wait, calm);
    }

    /// Moves away the certificates and keys of fixes that were closed, which nothing uses.
    fn clear_away(&self, node: usize) {
        let root = &self.roots[node];
        let manifest = fs::read_to_string(below(root, MANIFEST)).unwrap();
        for stem in ["peer", "seaworthy-peer"] {
            let files = ["crt", "key"].map(|end| format!("{PKI}/{stem}.{end}"));
            let is_of_fix = |path: &String| !self.first[node].contains_key(path) && !manifest.contains(path);
            if files.iter().all(is_of_fix) {
                files.iter().for_each(|path| drop(fs::remove_file(below(root, path))));
            }
        }
    }

    /// Checks that every file is as it was, but for what others have changed.
    fn expect_first(&self) {
        let closed = self.closed.lock().unwrap().clone();
        for (node, first) in self.first.iter().enumerate().filter(|(node, _)| !closed.contains(node)) {
            let mut shared = self.simulation.lock();
            let mut expected = first.clone();
            let edits = shared.cluster.members[node].edits.clone();
            if let Some((bytes, _)) = expected.get_mut(MANIFEST) {
                let mut text = String::from_utf8(bytes.clone()).unwrap();
                for edit in &edits {
                    text = edit.of(&text).unwrap_or(text);
                }
                *bytes = text.into_bytes();
            }
            let mut now = files(&self.roots[node]);
            now.retain(|path, _| !path.ends_with("other.crt"));
            let changes = |edit: &Edit| matches!(edit, Edit::Mode(_));
            let modes = !edits.iter().any(changes);
            for (path, (bytes, mode)) in &expected {
                let found = now.remove(path);
                let same = found.as_ref().is_some_and(|(b, m)| b == bytes && (m == mode || !modes));
                if !same && shared.cluster.violations.is_empty() {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let found = found.map(|(bytes, mode)| format!("{mode:04o}\n{}", text(&bytes)));
                    let what = format!(
                        "{path} of {} is not as it was, with {edits:?}: expected {mode:04o}\n{}\nfound {}",
                        name(node),
                        text(bytes),
                        found.unwrap_or_default()
                    );
                    shared.cluster.violated(what);
                }
            }
            if let Some(path) = now.keys().next()
                && shared.cluster.violations.is_empty()
            {
                let what = format!("{path} is left on {}", name(node));
                shared.cluster.violated(what);
            }
        }
    }
}

fn state_directory(root: &Path) -> PathBuf {
    root.with_extension("state")
}

/// Returns what the operator of a node wants: certificates of the authority that kubeadm made.
fn options(root: &Path) -> Options {
    let [certificate, key] = ["crt", "key"].map(|end| format!("{PKI}/ca.{end}"));
    let pem = fs::read(below(root, &certificate)).ok();
    Options { authority: Some(AuthorityFiles { certificate, pem, key }), ..Options::default() }
}

/// Returns how a run is to be disturbed.
fn disturbance(random: &mut Random, now: Duration) -> Disturbance {
    let kill = match random.below(9) {
        0..=3 => Kill::Boundary(1 + random.below(40)),
        4..=5 => Kill::Call(1 + random.below(150)),
        6 => Kill::At(now + random.millis(0, 60_000)),
        _ => Kill::Never,
    };
    let freeze = random.once_in(6).then(|| {
        let length = random.millis(3_000, 60_000);
        (now + random.millis(0, 60_000), length)
    });
    let interrupt = random.once_in(10).then(|| now + random.millis(0, 60_000));
    Disturbance { kill, freeze, interrupt }
}

/// Returns the files of a node that a fix may change.
fn files(root: &Path) -> Files {
    let entries = crate::node::Files::of(root).0.into_iter();
    entries.map(|(path, entry)| (path, (entry.bytes.to_vec(), entry.mode))).collect()
}
