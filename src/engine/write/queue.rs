//! The queue of writers, and the leader that its first one holds.
//!
//! Threads that want to write leave a waiter each. The first in the queue takes the leader and does the work of the
//! tickets behind its own as well, up to the first that wants to be alone; the others sleep until theirs is done, or
//! until they are first and the leader is free.
//!
//! Threads that write again as soon as they were notified fall into two halves otherwise: while the one half is being
//! synced, the other one queues up, and each sync serves half of them. So who has the leader may [wait](Leader::gather)
//! for as many as were there last time.
//!
//! With a sync of 0.1 ms, what threads cost to wake is most of what a group of 32 costs. When each was woken by itself,
//! and met the others at the queue's lock, 32 threads put 60,000 times a second and 128 threads 80,000 times; woken
//! together, and waited for as long as that takes, it is 77,000 and 145,000 (two virtual cores of which the scheduler used
//! one). See `benches/group_commit.rs`.
//!
//! Where no write waits for a sync, a turn is over in 2 us, and to be woken takes longer. There two threads that put as
//! fast as they can spent their time waking each other: who was given the leader was asleep, and by the time it had got up
//! the other one slept. So who is next [watches](Waiter::watch) for a while before it sleeps: two threads put 0.20 million
//! times a second without that, 0.43 million with it (one alone: 0.39), on two cores.

use std::collections::VecDeque;
use std::hint;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::engine::lock;
use crate::engine::write::file_lock::Deadline;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard};

pub(crate) struct Queue<W, O> {
    state: Mutex<State<W, O>>,
    /// As many are waiting as the holder of the leader wants.
    gathered: Condvar,
    /// Who is next watches for so long before it sleeps.
    watch: Duration,
}

struct State<W, O> {
    /// Without the holder of the leader.
    waiting: VecDeque<Waiter<W, O>>,
    /// Somebody holds the leader. It goes from hand to hand: while nobody holds it, nobody is waiting.
    busy: bool,
    /// How many there were when the leader was last given up: those whose work was done, and those who waited.
    active: usize,
    /// The holder of the leader sleeps until so many are waiting; 0 if it does not.
    wanted: usize,
    /// After a wait in vain, so many batons do without one, and after the next such wait twice as many.
    without: u32,
    in_vain: u32,
}

/// A place in the queue.
struct Waiter<W, O> {
    group: Arc<WaitGroup<W, O>>,
    slot: usize,
}

/// Where those sleep who are woken together, by one system call: to wake each by itself costs a call each, and on few
/// cores the leader is interrupted every time by whom it has woken. Who will be next has a group of its own.
struct WaitGroup<W, O> {
    /// Locked after the queue's state, where both are needed.
    slots: Mutex<Slots<W, O>>,
    changed: Condvar,
    /// Somebody here was notified something: for those who watch, who look at the slots after that.
    notified: AtomicBool,
}

struct Slots<W, O> {
    stages: Vec<Stage<W, O>>,
    /// How many sleep here: the call that wakes them is made for nobody else.
    asleep: usize,
}

/// Leaves `Waiting` under the queue's lock only.
enum Stage<W, O> {
    /// `None` for a waiter that wants the leader for itself.
    Waiting(Option<W>),
    /// Its owner has the leader, and is to have its work back.
    Leading(Option<W>),
    /// In the hands of the holder of the leader: its owner must wait for the outcome, however long.
    Taken,
    Done(O),
    /// The owner knows.
    Over,
}

/// How long the holder of the leader waits for others.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// If it is one that is missing,
    pub(crate) first: Duration,
    /// and so much more for each.
    pub(crate) each: Duration,
}

/// For more than these the patience is no longer.
const MOST_GATHERED: usize = 128;

/// A group has so many slots. (It would go on for ever where the queue always has somebody at the end.)
const GROUP_SIZE: usize = 128;

/// After a wait in vain, waiting is not tried more seldom than once in so many batons.
const LONGEST_WITHOUT: u32 = 64;

/// As long as it takes to wake somebody: for less, two who sleep in turn would go on like that. On cores with more threads
/// than they can run it is time taken from the others, so nobody watches who has somebody before it, and nobody for longer.
const WATCH: Duration = Duration::from_micros(40);

/// What came of waiting.
pub(crate) enum Entered<'q, W, O> {
    /// First in the queue.
    Leader(Leader<'q, W, O>),
    /// Somebody else has done the work.
    Done(O),
    /// The time is over, and nobody has begun.
    TimedOut,
}

/// The right to write. Given up when dropped; tickets that were taken and not settled by then are settled with an
/// outcome made from an error, so that nobody waits for ever for a thread that has panicked.
pub(crate) struct Leader<'q, W, O> {
    queue: &'q Queue<W, O>,
    own: Option<W>,
    taken: Vec<Waiter<W, O>>,
    abandon: fn() -> O,
    given_up: bool,
}

impl<W, O> Default for Queue<W, O> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), busy: false, active: 0, wanted: 0, without: 0, in_vain: 0 };
        Queue { state: Mutex::new(state), gathered: Condvar::new(), watch: Duration::ZERO }
    }
}

impl<W, O> Default for WaitGroup<W, O> {
    fn default() -> Self {
        let slots = Slots { stages: Vec::new(), asleep: 0 };
        WaitGroup { slots: Mutex::new(slots), changed: Condvar::new(), notified: AtomicBool::new(false) }
    }
}

impl<W, O> Queue<W, O> {
    /// For turns that are over sooner than somebody is woken.
    pub(crate) fn of_short_turns() -> Queue<W, O> {
        // On a single core nothing happens while somebody watches.
        let alone = available_parallelism().is_ok_and(|cores| cores.get() == 1);
        Queue { watch: if alone { Duration::ZERO } else { WATCH }, ..Queue::default() }
    }

    /// Queues up with `work` to be done, or with none to get the leader alone.
    pub(crate) fn enter(&self, work: Option<W>, deadline: &Deadline, abandon: fn() -> O) -> Entered<'_, W, O> {
        let leader = |own| Entered::Leader(Leader { queue: self, own, taken: Vec::new(), abandon, given_up: false });
        let mut state = lock(&self.state);
        if !state.busy {
            state.busy = true;
            return leader(work);
        }
        let is_next = state.waiting.is_empty();
        let waiter = state.join(work);
        if state.wanted != 0 && state.waiting.len() >= state.wanted {
            state.wanted = 0;
            self.gathered.notify_one();
        }
        drop(state);
        if is_next {
            waiter.watch(deadline.left().map_or(self.watch, |left| left.min(self.watch)));
        }
        loop {
            match waiter.wait(deadline) {
                Some(Stage::Leading(work)) => return leader(work),
                Some(Stage::Done(outcome)) => return Entered::Done(outcome),
                _ if lock(&self.state).leave(&waiter) => return Entered::TimedOut,
                // Somebody has just begun.
                _ => {}
            }
        }
    }
}

impl<W, O> State<W, O> {
    fn join(&mut self, work: Option<W>) -> Waiter<W, O> {
        // The first in the queue sits alone: it is to be woken alone.
        let last = self
            .waiting
            .back()
            .filter(|last| self.waiting.len() > 1 && lock(&last.group.slots).stages.len() < GROUP_SIZE);
        let group = last.map_or_else(Arc::default, |last| Arc::clone(&last.group));
        let mut slots = lock(&group.slots);
        let slot = slots.stages.len();
        slots.stages.push(Stage::Waiting(work));
        drop(slots);
        self.waiting.push_back(Waiter { group: Arc::clone(&group), slot });
        Waiter { group, slot }
    }

    /// Gives up a place, unless its owner was given the leader or its work was taken.
    fn leave(&mut self, waiter: &Waiter<W, O>) -> bool {
        let waits = matches!(lock(&waiter.group.slots).stages[waiter.slot], Stage::Waiting(_));
        if waits {
            self.waiting.retain(|other| other.slot != waiter.slot || !Arc::ptr_eq(&other.group, &waiter.group));
        }
        waits
    }

    /// Gives the leader to the first in the queue, if there is any.
    fn hand_on(&mut self) {
        let Some(Waiter { group, slot }) = self.waiting.pop_front() else {
            self.busy = false;
            return;
        };
        let mut slots = lock(&group.slots);
        if let Stage::Waiting(work) = &mut slots.stages[slot] {
            slots.stages[slot] = Stage::Leading(work.take());
        }
        group.notify(slots);
    }
}

impl<W, O> WaitGroup<W, O> {
    /// Rouses those who are to look at their slots, which were changed.
    fn notify(&self, slots: MutexGuard<'_, Slots<W, O>>) {
        let asleep = slots.asleep != 0;
        // Before anybody is roused, who would have to wait for it.
        drop(slots);
        self.notified.store(true, Ordering::Release);
        if asleep {
            self.changed.notify_all();
        }
    }
}

impl<W, O> Waiter<W, O> {
    /// Keeps the core until its owner was notified something, or the time is over.
    fn watch(&self, time: Duration) {
        let began = Instant::now();
        while !time.is_zero() && !self.group.notified.load(Ordering::Acquire) && began.elapsed() < time {
            if cfg!(all(test, any(loom, shuttle))) {
                // A checker of threads has no time: it tries what comes of one look.
                return;
            }
            hint::spin_loop();
        }
    }

    /// Sleeps until its owner leads or is done; `None` if its time is over before anybody has begun with it.
    fn wait(&self, deadline: &Deadline) -> Option<Stage<W, O>> {
        let WaitGroup { slots, changed, .. } = &*self.group;
        let mut slots = lock(slots);
        loop {
            let left = match &mut slots.stages[self.slot] {
                notified @ (Stage::Leading(_) | Stage::Done(_)) => {
                    return Some(std::mem::replace(notified, Stage::Over));
                }
                Stage::Waiting(_) => deadline.left(),
                Stage::Taken | Stage::Over => None,
            };
            if left == Some(Duration::ZERO) {
                return None;
            }
            slots.asleep += 1;
            slots = match left {
                None => changed.wait(slots).unwrap_or_else(PoisonError::into_inner),
                Some(left) => changed.wait_timeout(slots, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            slots.asleep -= 1;
        }
    }
}

impl<W, O> Waiter<W, O> {
    /// Takes the work, if there is any and `room_for` says yes.
    fn take(&self, room_for: impl FnOnce(&W) -> bool) -> Option<W> {
        let stage = &mut lock(&self.group.slots).stages[self.slot];
        let Stage::Waiting(work) = stage else { return None };
        let work = work.take_if(|work| room_for(work))?;
        *stage = Stage::Taken;
        Some(work)
    }
}

impl<W, O> Leader<'_, W, O> {
    /// Waits until as many are here as were active last time, but no longer than `patience` and `limit` say.
    pub(crate) fn gather(&mut self, patience: Patience, limit: &Deadline) {
        if cfg!(all(test, any(loom, shuttle))) {
            // A checker of threads has no time, and no wait there ends because it is over.
            return;
        }
        let mut state = lock(&self.queue.state);
        let wanted = state.active.saturating_sub(1);
        if state.waiting.len() >= wanted {
            return;
        }
        if state.without > 0 {
            state.without -= 1;
            return;
        }
        let patience = patience.first + patience.each * wanted.min(MOST_GATHERED) as u32;
        let deadline = Deadline::after(Some(limit.left().map_or(patience, |left| patience.min(left))));
        state.wanted = wanted;
        while let (true, Some(left)) = (state.wanted != 0, deadline.left().filter(|left| !left.is_zero())) {
            let woken = self.queue.gathered.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if std::mem::take(&mut state.wanted) == 0 {
            state.in_vain = 0;
        } else {
            state.in_vain = (state.in_vain * 2).clamp(1, LONGEST_WITHOUT);
            state.without = state.in_vain;
        }
    }

    /// Takes one's own work, if there is any, and that of those who wait, as long as they have work and `room_for` says
    /// yes.
    pub(crate) fn take_work(&mut self, mut room_for: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut work = Vec::new();
        if let Some(own) = self.own.take() {
            room_for(&own);
            work.push(own);
        }
        let mut state = lock(&self.queue.state);
        while let Some(first) = state.waiting.front() {
            let Some(request) = first.take(&mut room_for) else { break };
            work.push(request);
            self.taken.extend(state.waiting.pop_front());
        }
        work
    }

    /// Hands out the outcomes of the work that was taken, in its order. Returns one's own, the first.
    ///
    /// Whoever is next begins before the others are notified: to wake many takes as long as a sync.
    pub(crate) fn settle(mut self, outcomes: impl IntoIterator<Item = O>) -> Option<O> {
        let taken = std::mem::take(&mut self.taken);
        let abandon = self.abandon;
        self.give_up(Some(1 + taken.len()));
        let mut outcomes = outcomes.into_iter();
        let own = outcomes.next();
        finish(&taken, || outcomes.next().unwrap_or_else(abandon));
        own
    }

    fn give_up(&mut self, done: Option<usize>) {
        let mut state = lock(&self.queue.state);
        if let Some(done) = done {
            state.active = done + state.waiting.len();
        }
        state.hand_on();
        self.given_up = true;
    }
}

/// Gives each of those whose work was taken its outcome, and wakes them group by group.
fn finish<W, O>(taken: &[Waiter<W, O>], mut outcome: impl FnMut() -> O) {
    for together in taken.chunk_by(|one, next| Arc::ptr_eq(&one.group, &next.group)) {
        let group = &together[0].group;
        let mut slots = lock(&group.slots);
        for waiter in together {
            slots.stages[waiter.slot] = Stage::Done(outcome());
        }
        group.notify(slots);
    }
}

impl<W, O> Drop for Leader<'_, W, O> {
    fn drop(&mut self) {
        if !self.given_up {
            finish(&std::mem::take(&mut self.taken), self.abandon);
            self.give_up(None);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    type Numbers = Queue<u32, Option<u32>>;

    const ABANDON: fn() -> Option<u32> = || None;

    const FOR_EVER: Patience = Patience { first: Duration::from_secs(3600), each: Duration::ZERO };

    fn forever() -> Deadline {
        Deadline::after(None)
    }

    /// Queues `work` up from another thread, and waits until it stands in the queue.
    fn behind<'s>(
        scope: &'s thread::Scope<'s, '_>,
        queue: &'s Numbers,
        work: Option<u32>,
        deadline: Deadline,
    ) -> thread::ScopedJoinHandle<'s, &'static str> {
        let waiting = lock(&queue.state).waiting.len();
        let handle = scope.spawn(move || match queue.enter(work, &deadline, ABANDON) {
            Entered::Leader(_) => "led",
            Entered::Done(Some(_)) => "done",
            Entered::Done(None) => "abandoned",
            Entered::TimedOut => "timed out",
        });
        while lock(&queue.state).waiting.len() == waiting {
            thread::yield_now();
        }
        handle
    }

    fn leader(queue: &Numbers) -> Leader<'_, u32, Option<u32>> {
        match queue.enter(Some(1), &forever(), ABANDON) {
            Entered::Leader(leader) => leader,
            _ => panic!("an empty queue hands the leader to whoever comes"),
        }
    }

    #[test]
    fn the_first_does_the_work_of_those_behind_it_and_hands_out_the_outcomes_in_order() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut leader = leader(&queue);
            let others = [behind(scope, &queue, Some(2), forever()), behind(scope, &queue, Some(3), forever())];
            let work = leader.take_work(|_| true);
            assert_eq!(work, [1, 2, 3]);
            assert_eq!(leader.settle(work.into_iter().map(Some)), Some(Some(1)));
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), "done"));
        });
    }

    #[test]
    fn work_is_taken_up_to_the_first_who_wants_to_be_alone_or_for_whom_there_is_no_room() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let second = behind(scope, &queue, Some(2), forever());
            let alone = behind(scope, &queue, None, forever());
            let fourth = behind(scope, &queue, Some(4), forever());
            assert_eq!(first.take_work(|&n| n < 2), [1]);
            assert_eq!(first.take_work(|_| true), [2]);
            first.settle([Some(1), Some(2)]);
            assert_eq!(second.join().unwrap(), "done");
            assert_eq!(alone.join().unwrap(), "led");
            assert_eq!(fourth.join().unwrap(), "led");
        });
    }

    #[test]
    fn more_than_a_bench_full_are_all_told_their_own() {
        let queue = &Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(queue);
            let entered = |n| matches!(queue.enter(Some(n), &forever(), ABANDON), Entered::Done(Some(own)) if own == n);
            let others: Vec<_> = (0..GROUP_SIZE as u32 + 9).map(|n| scope.spawn(move || entered(n))).collect();
            while lock(&queue.state).waiting.len() < others.len() {
                thread::yield_now();
            }
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert!(others.into_iter().all(|other| other.join().unwrap()));
        });
    }

    #[test]
    fn who_runs_out_of_time_leaves_and_fails_nobody_else() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let first = leader(&queue);
            let patient = behind(scope, &queue, Some(3), forever());
            let none = queue.enter(Some(2), &Deadline::after(Some(Duration::ZERO)), ABANDON);
            assert!(matches!(none, Entered::TimedOut));
            drop(first);
            assert_eq!(patient.join().unwrap(), "led");
        });
        let state = lock(&queue.state);
        assert!(state.waiting.is_empty() && !state.busy, "the leader was given to nobody");
    }

    #[test]
    fn work_that_was_taken_is_waited_for_beyond_the_time_limit() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let short = behind(scope, &queue, Some(2), Deadline::after(Some(Duration::from_millis(500))));
            let work = first.take_work(|_| true);
            assert_eq!(work, [1, 2]);
            thread::sleep(Duration::from_millis(700));
            first.settle(work.into_iter().map(Some));
            assert_eq!(short.join().unwrap(), "done");
        });
    }

    /// Two write together, so that two are expected next time.
    fn two_were_active(queue: &Numbers) {
        thread::scope(|scope| {
            let mut first = leader(queue);
            let second = behind(scope, queue, Some(2), forever());
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert_eq!(second.join().unwrap(), "done");
        });
    }

    #[test]
    fn a_leader_that_waits_for_another_goes_on_when_that_has_come() {
        let queue = Numbers::default();
        two_were_active(&queue);
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let second = scope.spawn(|| matches!(queue.enter(Some(2), &forever(), || None), Entered::Done(Some(2))));
            first.gather(FOR_EVER, &forever());
            let work = first.take_work(|_| true);
            assert_eq!(work, [1, 2]);
            first.settle(work.into_iter().map(Some));
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn a_leader_that_waits_for_two_does_not_go_on_with_the_first() {
        let queue = &Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(queue);
            let others = [2, 3].map(|n| behind(scope, queue, Some(n), forever()));
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert_eq!(others.map(|other| other.join().unwrap()), ["done"; 2]);
        });
        thread::scope(|scope| {
            let mut first = leader(queue);
            let others = scope.spawn(|| {
                let second = behind(scope, queue, Some(2), forever());
                // Time for a leader that does go on.
                thread::sleep(Duration::from_millis(50));
                [second, behind(scope, queue, Some(3), forever())].map(|other| other.join().unwrap())
            });
            first.gather(FOR_EVER, &forever());
            let work = first.take_work(|_| true);
            first.settle(work.iter().copied().map(Some));
            assert_eq!((work, others.join().unwrap()), (vec![1, 2, 3], ["done"; 2]));
        });
    }

    #[test]
    fn those_whose_work_was_done_and_those_who_wait_are_expected_again() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let done = behind(scope, &queue, Some(2), forever());
            let waiting = [9, 9].map(|n| behind(scope, &queue, Some(n), forever()));
            let work = first.take_work(|&n| n < 3);
            first.settle(work.into_iter().map(Some));
            assert_eq!(lock(&queue.state).active, 4);
            assert_eq!(done.join().unwrap(), "done");
            assert_eq!(waiting.map(|other| other.join().unwrap()), ["led"; 2]);
        });
    }

    /// Who is next is woken alone, the others group by group.
    #[test]
    fn the_first_in_the_queue_sits_alone_and_the_others_side_by_side() {
        let queue = Numbers::default();
        let mut state = lock(&queue.state);
        (0..2 + GROUP_SIZE).for_each(|n| drop(state.join(Some(n as u32))));
        let waiting: Vec<_> = state.waiting.iter().collect();
        let together = waiting.chunk_by(|one, next| Arc::ptr_eq(&one.group, &next.group));
        assert_eq!(together.map(<[_]>::len).collect::<Vec<_>>(), [1, GROUP_SIZE, 1]);
    }

    #[test]
    fn a_leader_that_has_waited_in_vain_does_not_wait_the_next_time() {
        let queue = Numbers::default();
        two_were_active(&queue);
        leader(&queue).gather(Patience { first: Duration::from_millis(1), each: Duration::ZERO }, &forever());
        leader(&queue).gather(FOR_EVER, &forever());
    }

    #[test]
    fn a_leader_that_panics_leaves_nobody_waiting() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let (ready, notified) = mpsc::channel();
            let (go, wait) = mpsc::channel::<()>();
            let queue = &queue;
            let leader = scope.spawn(move || {
                let mut first = leader(queue);
                ready.send(()).unwrap();
                wait.recv().unwrap();
                first.take_work(|&n| n < 3);
                panic!("while it holds the work of others");
            });
            notified.recv().unwrap();
            let taken = behind(scope, queue, Some(2), forever());
            let waiting = behind(scope, queue, Some(3), forever());
            go.send(()).unwrap();
            assert!(leader.join().is_err());
            assert_eq!(taken.join().unwrap(), "abandoned");
            assert_eq!(waiting.join().unwrap(), "led");
        });
    }
}
