//! Who runs when: every run has a thread of its own, and exactly one of them runs at a time, until it lets time pass. Which
//! one is next is a matter of simulated time and of the seed, so a seed can be run again.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use seaworthy_journal::record::Moment;

use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::random::Random;

/// Time after which a simulation is taken to have no end.
const FOREVER: Duration = Duration::from_secs(4 * 3_600);

/// How long somebody waits for others before looking again though nothing has changed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a run is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kill {
    #[default]
    Never,
    /// Right before or after a line of a journal: the boundary of this number.
    Boundary(u64),
    /// At the question or request of this number that it has to the world.
    Call(u64),
    /// At this time, as soon as it waits.
    At(Duration),
}

/// What a thread unwinds with when its run is killed.
struct Killed;

/// Somebody who acts in a simulation.
struct Actor {
    node: usize,
    wake: Duration,
    done: bool,
    bell: Arc<Condvar>,
    kill: Kill,
    boundaries: u64,
    calls: u64,
    /// When it had a look at the cluster for the last time.
    looked: Duration,
    /// When it is stopped, and for how long.
    freeze: Option<(Duration, Duration)>,
    /// The lock that it keeps alive.
    fence: Option<u64>,
    /// Whether it waits for others, so that it does not matter how often it looks.
    waits: bool,
    /// Whether it may be changing files.
    acts: bool,
    /// Whether it has asked since its step began whether the lock is still its own.
    asked: bool,
    /// From when on it may wake up as soon as there are more changes than these.
    dozes: Option<(Duration, u64)>,
}

pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) random: Random,
    actors: Vec<Actor>,
    current: Option<usize>,
}

/// A simulation of a cluster and those who act in it.
pub(crate) struct Simulation {
    shared: Mutex<Shared>,
}

/// The place of one who acts.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) simulation: Arc<Simulation>,
    pub(crate) actor: usize,
    pub(crate) node: usize,
}

/// What somebody does.
pub(crate) type Task<'a> = Box<dyn FnOnce(&Seat) + Send + 'a>;

thread_local! {
    /// The place of the thread, for the hook of journals.
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// Is called before and after each line of a journal.
pub(crate) fn hook(moment: Moment) {
    if let Some(seat) = SEAT.with_borrow(Clone::clone) {
        seat.boundary(moment);
    }
}

impl Simulation {
    pub(crate) fn new(cluster: Cluster, random: Random) -> Arc<Self> {
        let shared = Shared { cluster, random, actors: Vec::new(), current: None };
        Arc::new(Self { shared: Mutex::new(shared) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all do their tasks, each on its node, and returns when they are through.
    pub(crate) fn perform(self: &Arc<Self>, tasks: Vec<(usize, Task<'_>)>) {
        let mut shared = self.lock();
        shared.actors.clear();
        for (node, _) in &tasks {
            let wake = shared.cluster.now + shared.random.millis(0, 2_000);
            shared.actors.push(Actor {
                node: *node,
                wake,
                done: false,
                bell: Arc::new(Condvar::new()),
                kill: Kill::Never,
                boundaries: 0,
                calls: 0,
                looked: Duration::ZERO,
                freeze: None,
                fence: None,
                waits: false,
                acts: false,
                asked: false,
                dozes: None,
            });
        }
        shared.next();
        drop(shared);
        thread::scope(|scope| {
            for (actor, (node, task)) in tasks.into_iter().enumerate() {
                let seat = Seat { simulation: Arc::clone(self), actor, node };
                scope.spawn(move || {
                    seat.wait(seat.simulation.lock());
                    SEAT.set(Some(seat.clone()));
                    let ended = catch_unwind(AssertUnwindSafe(|| task(&seat)));
                    SEAT.set(None);
                    let mut shared = seat.simulation.lock();
                    if let Err(payload) = ended
                        && !payload.is::<Killed>()
                    {
                        shared.cluster.violated(format!("the simulation failed: {}", said(&*payload)));
                    }
                    shared.look(actor);
                    shared.actors[actor].done = true;
                    shared.next();
                });
            }
        });
    }
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

impl Shared {
    /// Lets the one go on whose time has come first.
    fn next(&mut self) {
        let next = loop {
            self.wake_up();
            let waiting = self.actors.iter().enumerate().filter(|(_, actor)| !actor.done);
            let Some(next) = waiting.min_by_key(|(_, actor)| actor.wake).map(|(index, _)| index) else {
                break None;
            };
            let wake = self.actors[next].wake;
            if !self.cluster.advance(wake) {
                break Some(next);
            }
        };
        if self.cluster.now > FOREVER && self.cluster.violations.is_empty() {
            self.cluster.violated("it does not end".to_owned());
        }
        if let Some(next) = next {
            self.actors[next].bell.notify_one();
        }
        self.current = next;
    }

    /// Lets those wake up soon who wait for a change, if there was one.
    fn wake_up(&mut self) {
        let (now, changes) = (self.cluster.now, self.cluster.changes);
        for actor in self.actors.iter_mut().filter(|actor| !actor.done) {
            if let Some((least, seen)) = actor.dozes
                && seen != changes
            {
                actor.dozes = None;
                actor.wake = actor.wake.min(now.max(least) + self.random.millis(0, 1_500));
            }
        }
    }

    /// Lets something happen to a node on which a run was killed: what killed it was not always aimed at it alone.
    fn befall(&mut self, node: usize) {
        let time = self.random.millis(5_000, 90_000);
        let fault = match self.random.below(8) {
            0 => Fault::KubeletDown(node, time),
            1 => Fault::Outage(node, time),
            2 => Fault::Reset(node),
            3 => Fault::Outage((node + 1) % self.cluster.members.len(), time),
            _ => return,
        };
        let now = self.cluster.now;
        self.cluster.faults.push_front((now, fault));
    }

    /// Looks at what an actor may have done to files: it changes them during a step, and at no other time.
    fn look(&mut self, actor: usize) {
        if !self.actors[actor].acts {
            return;
        }
        let (node, looked) = (self.actors[actor].node, self.actors[actor].looked);
        self.cluster.look(node, looked);
    }

    pub(crate) fn looks(&mut self, actor: usize) {
        self.actors[actor].looked = self.cluster.now;
        self.cluster.counts.looks += 1;
    }

    pub(crate) fn looked(&self, actor: usize) -> Duration {
        self.actors[actor].looked
    }

    /// Notes that an actor asks whether the lock is still its own.
    pub(crate) fn asks(&mut self, actor: usize) {
        self.actors[actor].asked = true;
    }

    /// Checks that an actor who took the lock has asked for it before a step changes the cluster.
    pub(crate) fn expect_asked(&mut self, actor: usize) {
        let me = &self.actors[actor];
        if me.fence.is_some() && me.acts && !me.asked {
            self.cluster.violated(
                "a step changes the cluster without asking whether the lock is still held".to_owned(),
            );
        }
    }

    pub(crate) fn keep_alive(&mut self, actor: usize, fence: Option<u64>) {
        self.actors[actor].fence = fence;
    }

    pub(crate) fn tell(&mut self, actor: usize, what: impl FnOnce() -> String) {
        let node = self.actors[actor].node;
        self.cluster.tell(|| format!("    {}#{actor} {}", crate::node::name(node), what()));
    }
}

impl Seat {
    /// Waits until it is this one's turn.
    fn wait(&self, mut shared: MutexGuard<'_, Shared>) {
        let bell = Arc::clone(&shared.actors[self.actor].bell);
        while shared.current != Some(self.actor) {
            shared = bell.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets about so much time pass. Who waits for others looks again when something has changed, or after a while: to look
    /// all the time would show the same, and each look costs the time of a plan.
    pub(crate) fn wait_for(&self, time: Duration) {
        let mut shared = self.simulation.lock();
        let waits = shared.actors[self.actor].waits;
        let times = u32::try_from(shared.random.within(1, 5)).unwrap_or(1);
        let jitter = shared.random.millis(0, 20);
        drop(shared);
        match waits {
            true => self.pause_until_change(time, PATIENCE),
            false => self.pause(time * times + jitter),
        }
    }

    /// Lets time pass until something has changed: at least so much, and about so much at most.
    pub(crate) fn pause_until_change(&self, least: Duration, most: Duration) {
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        let (now, changes) = (shared.cluster.now, shared.cluster.changes);
        shared.actors[self.actor].dozes = Some((now + least, changes));
        let most = most.max(least).mul_f64(0.5 + shared.random.within(0, 50) as f64 / 100.0);
        drop(shared);
        self.pause(most);
        self.simulation.lock().actors[self.actor].dozes = None;
    }

    /// Notes whether a step is carried out.
    pub(crate) fn acts(&self, acts: bool) {
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        let me = &mut shared.actors[self.actor];
        (me.acts, me.asked) = (acts, false);
    }

    /// Notes whether others are waited for.
    pub(crate) fn waits(&self, waits: bool) {
        self.simulation.lock().actors[self.actor].waits = waits;
    }

    /// Lets time pass, in which others act.
    pub(crate) fn pause(&self, time: Duration) {
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        let now = shared.cluster.now;
        let mut wake = now + time;
        let me = &mut shared.actors[self.actor];
        let mut frozen = None;
        if let Some((at, length)) = me.freeze
            && at <= now
        {
            me.freeze = None;
            wake += length;
            frozen = me.fence;
            shared.tell(self.actor, || format!("is stopped for {} s", length.as_secs()));
        }
        if let Some(fence) = frozen {
            shared.cluster.orphan(fence);
        }
        shared.actors[self.actor].wake = wake;
        shared.next();
        if shared.current == Some(self.actor) {
            drop(shared)
        } else {
            self.wait(shared)
        }
        let mut shared = self.simulation.lock();
        if let Some(fence) = frozen {
            shared.cluster.revive(fence);
        }
        self.fate(shared);
    }

    /// Counts a question or request to the world, which costs time sometimes.
    pub(crate) fn call(&self) {
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        shared.actors[self.actor].calls += 1;
        let delay = shared.random.once_in(12).then(|| shared.random.millis(10, 400));
        self.fate(shared);
        if let Some(delay) = delay {
            self.pause(delay);
        }
    }

    fn boundary(&self, moment: Moment) {
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        shared.actors[self.actor].boundaries += 1;
        shared.tell(self.actor, || format!("journal {moment:?}"));
        self.fate(shared);
    }

    /// Ends the run here if it is to be killed, or everything is over.
    fn fate(&self, mut shared: MutexGuard<'_, Shared>) {
        let now = shared.cluster.now;
        let over = !shared.cluster.violations.is_empty();
        let me = &shared.actors[self.actor];
        let killed = match me.kill {
            Kill::Never => false,
            Kill::Boundary(number) => me.boundaries >= number,
            Kill::Call(number) => me.calls >= number,
            Kill::At(at) => at <= now,
        };
        if thread::panicking() || !(killed || over) {
            return;
        }
        let at_line = matches!(me.kill, Kill::Boundary(_));
        shared.actors[self.actor].kill = Kill::Never;
        if killed {
            shared.cluster.counts.kills += 1;
            shared.tell(self.actor, || "is killed".to_owned());
            if at_line && shared.random.once_in(3) {
                shared.cluster.halve(self.node);
            }
            shared.befall(self.node);
        }
        drop(shared);
        resume_unwind(Box::new(Killed));
    }

    /// Does something that may be killed, and returns what came of it; `None` when it was killed.
    pub(crate) fn mortal<T>(
        &self,
        kill: Kill,
        freeze: Option<(Duration, Duration)>,
        what: impl FnOnce() -> T,
    ) -> Option<T> {
        {
            let mut shared = self.simulation.lock();
            let me = &mut shared.actors[self.actor];
            (me.kill, me.boundaries, me.calls, me.freeze) = (kill, 0, 0, freeze);
        }
        let done = catch_unwind(AssertUnwindSafe(what));
        let mut shared = self.simulation.lock();
        shared.look(self.actor);
        let me = &mut shared.actors[self.actor];
        let fence = me.fence.take();
        (me.kill, me.freeze, me.waits, me.acts) = (Kill::Never, None, false, false);
        // It was killed before it knew that it had the lock.
        if let Some(fence) = fence {
            shared.cluster.orphan(fence);
        }
        let over = !shared.cluster.violations.is_empty();
        drop(shared);
        match done {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Killed>() && !over => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.simulation.lock().cluster.now
    }
}
