//! The queue of writers.
//!
//! The first thread in the queue becomes the [leader](Leader). It does its own work and that of the waiters after it, up to the
//! first one that wants to lead alone. The others sleep until their work is done, or until they lead.
//!
//! Threads that write in a loop fall into two halves: while one half is synced, the other one queues up, and each sync serves
//! half of them. So a leader may [gather](Leader::gather): it waits for as many as there were last time.
//!
//! Where writes are not synced, a turn takes less time than waking a thread. So the next waiter spins for a moment before it
//! sleeps. `benches/group_commit.rs` measures both; INTERNALS.md has the figures.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::Duration;

use super::waiter::{Stage, WaitGroup, Waiter, finish};
use crate::engine::deadline::Deadline;
use crate::sync::{Condvar, Mutex, lock};

pub(crate) struct Queue<W, O> {
    state: Mutex<State<W, O>>,
    /// Signalled, with `state`, when as many wait as the leader wants.
    gathered: Condvar,
    /// Whether the next waiter spins before it sleeps.
    spins: bool,
}

struct State<W, O> {
    /// The waiters, in order; not the leader.
    waiting: VecDeque<Waiter<W, O>>,
    /// There is a leader. Leadership passes directly to the next waiter, so without a leader the queue is empty.
    is_led: bool,
    /// How many threads there were when the last leader ended: those whose work was done, and those that waited.
    active: usize,
    /// The leader sleeps until this many are waiting; 0 if it does not.
    wanted: usize,
    /// After gathering in vain, this many leaders do without it. The next failure doubles the number.
    without: u32,
    in_vain: u32,
}

/// How long a leader waits for others.
#[derive(Clone, Copy)]
pub(crate) struct GatherTime {
    /// For the first missing one,
    pub(crate) first: Duration,
    /// and for each further one.
    pub(crate) each: Duration,
}

/// Waiters beyond this number add no more time.
const MOST_GATHERED: usize = 128;

/// After gathering in vain, at most this many leaders do without it.
const LONGEST_WITHOUT: u32 = 64;

/// About the time that waking a thread takes. With less, two threads would put each other to sleep in turn. Spinning takes time
/// from other threads if there are more than cores, so only the next waiter spins, and no longer.
const SPIN: Duration = Duration::from_micros(40);

/// Whether nothing else happens while a thread spins. Asked when a thread has to wait, and once: the answer takes a dozen system
/// calls, more than the rest of an opening.
fn is_single_core() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| available_parallelism().is_ok_and(|cores| cores.get() == 1))
}

/// How a thread leaves the queue.
pub(crate) enum Entered<'q, W, O> {
    /// It leads.
    Leader(Leader<'q, W, O>),
    /// Another leader has done its work.
    Done(O),
    /// Its time is over, and no leader has taken its work.
    TimedOut,
}

/// The right to write. Dropping it passes it to the next waiter. Waiters whose work was taken and not settled then get the
/// outcome of abandoned work, so that none waits for ever for a thread that has panicked.
pub(crate) struct Leader<'q, W, O> {
    queue: &'q Queue<W, O>,
    own: Option<W>,
    taken: Vec<Waiter<W, O>>,
    abandon: fn() -> O,
    ended: bool,
}

impl<W, O> Default for Queue<W, O> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), is_led: false, active: 0, wanted: 0, without: 0, in_vain: 0 };
        Queue { state: Mutex::new(state), gathered: Condvar::new(), spins: false }
    }
}

impl<W, O> Queue<W, O> {
    /// A queue for turns that take less time than waking a thread.
    pub(crate) fn of_short_turns() -> Queue<W, O> {
        Queue { spins: true, ..Queue::default() }
    }

    /// Leads, unless another thread does. The leader's work is not in the queue: its outcome comes before those of the work that it
    /// takes.
    pub(crate) fn try_lead(&self, abandon: fn() -> O) -> Option<Leader<'_, W, O>> {
        lock(&self.state).begin_lead().then(|| self.leader(None, abandon))
    }

    fn leader(&self, own: Option<W>, abandon: fn() -> O) -> Leader<'_, W, O> {
        Leader { queue: self, own, taken: Vec::new(), abandon, ended: false }
    }

    /// Queues up with `work`, or without any to lead alone.
    pub(crate) fn enter(&self, work: Option<W>, deadline: &Deadline, abandon: fn() -> O) -> Entered<'_, W, O> {
        let leader = |own| Entered::Leader(self.leader(own, abandon));
        let mut state = lock(&self.state);
        if state.begin_lead() {
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
            let spin = if self.spins && !is_single_core() { SPIN } else { Duration::ZERO };
            waiter.spin(deadline.left().map_or(spin, |left| left.min(spin)));
        }
        loop {
            match waiter.wait(deadline) {
                Some(Stage::Leading(work)) => return leader(work),
                Some(Stage::Done(outcome)) => return Entered::Done(outcome),
                _ if lock(&self.state).leave(&waiter) => return Entered::TimedOut,
                // A leader has just taken the work.
                _ => {}
            }
        }
    }
}

impl<W, O> State<W, O> {
    /// Has a leader from now on; `false` if it had one.
    fn begin_lead(&mut self) -> bool {
        !std::mem::replace(&mut self.is_led, true)
    }

    fn join(&mut self, work: Option<W>) -> Waiter<W, O> {
        // The first in the queue has a group of its own, since it is woken alone.
        let last = self.waiting.back().filter(|last| self.waiting.len() > 1 && !last.group.is_full());
        let group = last.map_or_else(Arc::<WaitGroup<W, O>>::default, |last| Arc::clone(&last.group));
        let [queued, own] = Waiter::join(group, work);
        self.waiting.push_back(queued);
        own
    }

    /// Leaves the queue, unless this waiter leads or its work was taken.
    fn leave(&mut self, waiter: &Waiter<W, O>) -> bool {
        let is_waiting = waiter.is_waiting();
        if is_waiting {
            self.waiting.retain(|other| !other.is(waiter));
        }
        is_waiting
    }

    /// Makes the first waiter the leader, if there is one.
    fn pass_on(&mut self) {
        match self.waiting.pop_front() {
            Some(next) => next.lead(),
            None => self.is_led = false,
        }
    }
}

impl<W, O> Leader<'_, W, O> {
    /// Waits until as many are queued as there were last time, within `time` and `limit`.
    pub(crate) fn gather(&mut self, time: GatherTime, limit: &Deadline) {
        if cfg!(all(test, any(loom, shuttle))) {
            // A checker of threads has no clock, so this wait could last for ever there.
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
        let time = time.first + time.each * wanted.min(MOST_GATHERED) as u32;
        let deadline = limit.within(time);
        state.wanted = wanted;
        while let (true, Some(left)) = (state.wanted != 0, deadline.left().filter(|left| !left.is_zero())) {
            state = deadline.wait(&self.queue.gathered, state, left);
        }
        if std::mem::take(&mut state.wanted) == 0 {
            state.in_vain = 0;
        } else {
            state.in_vain = (state.in_vain * 2).clamp(1, LONGEST_WITHOUT);
            state.without = state.in_vain;
        }
    }

    /// Takes this thread's own work, if there is any, and the work of the next waiters while they have some and `room_for` says
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

    /// Gives out the outcomes of the work that was taken, in its order. Returns the first, this thread's own.
    ///
    /// The next leader begins before the others are woken: waking many takes as long as a sync.
    pub(crate) fn settle(mut self, outcomes: impl IntoIterator<Item = O>) -> Option<O> {
        let taken = std::mem::take(&mut self.taken);
        let abandon = self.abandon;
        self.end(Some(1 + taken.len()));
        let mut outcomes = outcomes.into_iter();
        let own = outcomes.next();
        finish(&taken, || outcomes.next().unwrap_or_else(abandon));
        own
    }

    fn end(&mut self, done: Option<usize>) {
        let mut state = lock(&self.queue.state);
        if let Some(done) = done {
            state.active = done + state.waiting.len();
        }
        state.pass_on();
        self.ended = true;
    }
}

impl<W, O> Drop for Leader<'_, W, O> {
    fn drop(&mut self) {
        if !self.ended {
            finish(&std::mem::take(&mut self.taken), self.abandon);
            self.end(None);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::waiter::GROUP_SIZE;
    use super::*;
    use crate::disk::Clock;
    use crate::patience::with_a_deadline;
    use std::sync::mpsc;
    use std::thread;

    type Numbers = Queue<u32, Option<u32>>;

    const ABANDON: fn() -> Option<u32> = || None;

    const FOR_EVER: GatherTime = GatherTime { first: Duration::from_secs(3600), each: Duration::ZERO };

    fn forever() -> Deadline {
        Deadline::after(&Clock::default(), None)
    }

    /// Queues `work` up from another thread, and returns when it is in the queue.
    fn waiter<'s>(
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
            _ => panic!("the first thread in an empty queue must lead"),
        }
    }

    #[test]
    fn the_leader_works_for_the_waiters_and_settles_in_order() {
        let Some(()) = with_a_deadline(the_leader_works_for_the_waiters_and_settles_in_order) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut leader = leader(&queue);
            let others = [waiter(scope, &queue, Some(2), forever()), waiter(scope, &queue, Some(3), forever())];
            let work = leader.take_work(|_| true);
            assert_eq!(work, [1, 2, 3]);
            assert_eq!(leader.settle(work.into_iter().map(Some)), Some(Some(1)));
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), "done"));
        });
    }

    #[test]
    fn work_is_taken_while_there_is_room_up_to_a_waiter_without_work() {
        let Some(()) = with_a_deadline(work_is_taken_while_there_is_room_up_to_a_waiter_without_work) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let second = waiter(scope, &queue, Some(2), forever());
            let alone = waiter(scope, &queue, None, forever());
            let fourth = waiter(scope, &queue, Some(4), forever());
            assert_eq!(first.take_work(|&n| n < 2), [1]);
            assert_eq!(first.take_work(|_| true), [2]);
            first.settle([Some(1), Some(2)]);
            assert_eq!(second.join().unwrap(), "done");
            assert_eq!(alone.join().unwrap(), "led");
            assert_eq!(fourth.join().unwrap(), "led");
        });
    }

    #[test]
    fn waiters_of_several_groups_all_get_their_own_outcomes() {
        let Some(()) = with_a_deadline(waiters_of_several_groups_all_get_their_own_outcomes) else { return };
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
    fn a_waiter_that_times_out_leaves_and_harms_no_other() {
        let Some(()) = with_a_deadline(a_waiter_that_times_out_leaves_and_harms_no_other) else { return };
        for queue in [Numbers::default(), Numbers::of_short_turns()] {
            thread::scope(|scope| {
                let first = leader(&queue);
                let patient = waiter(scope, &queue, Some(3), forever());
                let none = queue.enter(Some(2), &forever().within(Duration::ZERO), ABANDON);
                assert!(matches!(none, Entered::TimedOut));
                drop(first);
                assert_eq!(patient.join().unwrap(), "led");
            });
            // Also the first one in line, which spins where turns are short.
            let first = leader(&queue);
            for time in [Duration::ZERO, Duration::from_millis(1)] {
                let none = queue.enter(Some(2), &forever().within(time), ABANDON);
                assert!(matches!(none, Entered::TimedOut));
            }
            drop(first);
            let state = lock(&queue.state);
            assert!(state.waiting.is_empty() && !state.is_led, "the queue is empty and has no leader");
        }
    }

    #[test]
    fn a_waiter_whose_work_was_taken_waits_beyond_its_deadline() {
        let Some(()) = with_a_deadline(a_waiter_whose_work_was_taken_waits_beyond_its_deadline) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let short = waiter(scope, &queue, Some(2), forever().within(Duration::from_millis(500)));
            let work = first.take_work(|_| true);
            assert_eq!(work, [1, 2]);
            thread::sleep(Duration::from_millis(700));
            first.settle(work.into_iter().map(Some));
            assert_eq!(short.join().unwrap(), "done");
        });
    }

    /// Lets two threads write together, so that the next leader expects two.
    fn two_were_active(queue: &Numbers) {
        thread::scope(|scope| {
            let mut first = leader(queue);
            let second = waiter(scope, queue, Some(2), forever());
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert_eq!(second.join().unwrap(), "done");
        });
    }

    #[test]
    fn a_gathering_leader_goes_on_when_all_have_come() {
        let Some(()) = with_a_deadline(a_gathering_leader_goes_on_when_all_have_come) else { return };
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
    fn a_leader_that_gathers_two_does_not_go_on_with_one() {
        let Some(()) = with_a_deadline(a_leader_that_gathers_two_does_not_go_on_with_one) else { return };
        let queue = &Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(queue);
            let others = [2, 3].map(|n| waiter(scope, queue, Some(n), forever()));
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert_eq!(others.map(|other| other.join().unwrap()), ["done"; 2]);
        });
        thread::scope(|scope| {
            let mut first = leader(queue);
            let others = scope.spawn(|| {
                let second = waiter(scope, queue, Some(2), forever());
                // Time for a leader that would go on now.
                thread::sleep(Duration::from_millis(50));
                [second, waiter(scope, queue, Some(3), forever())].map(|other| other.join().unwrap())
            });
            first.gather(FOR_EVER, &forever());
            let work = first.take_work(|_| true);
            first.settle(work.iter().copied().map(Some));
            assert_eq!((work, others.join().unwrap()), (vec![1, 2, 3], ["done"; 2]));
        });
    }

    /// The largest batch was written with the requests after it, in a group with more records than a block has numbers.
    #[test]
    fn the_leaders_own_work_takes_room_too() {
        let Some(()) = with_a_deadline(the_leaders_own_work_takes_room_too) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let others = [2, 9].map(|n| waiter(scope, &queue, Some(n), forever()));
            let mut taken = 0;
            let work = first.take_work(|&n| {
                taken += n;
                taken <= 3
            });
            assert_eq!((work, taken), (vec![1, 2], 12));
            first.settle([1, 2].map(Some));
            assert_eq!(others.map(|other| other.join().unwrap()), ["done", "led"]);
        });
    }

    #[test]
    fn finished_and_waiting_threads_are_expected_again() {
        let Some(()) = with_a_deadline(finished_and_waiting_threads_are_expected_again) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let done = waiter(scope, &queue, Some(2), forever());
            let waiting = [9, 9].map(|n| waiter(scope, &queue, Some(n), forever()));
            let work = first.take_work(|&n| n < 3);
            first.settle(work.into_iter().map(Some));
            assert_eq!(lock(&queue.state).active, 4);
            assert_eq!(done.join().unwrap(), "done");
            assert_eq!(waiting.map(|other| other.join().unwrap()), ["led"; 2]);
        });
    }

    /// The next leader is woken alone, the others group by group.
    #[test]
    fn the_first_waiter_has_a_group_of_its_own() {
        let queue = Numbers::default();
        let mut state = lock(&queue.state);
        (0..2 + GROUP_SIZE).for_each(|n| drop(state.join(Some(n as u32))));
        let waiting: Vec<_> = state.waiting.iter().collect();
        let together = waiting.chunk_by(|one, next| Arc::ptr_eq(&one.group, &next.group));
        assert_eq!(together.map(<[_]>::len).collect::<Vec<_>>(), [1, GROUP_SIZE, 1]);
    }

    #[test]
    fn a_leader_does_not_gather_after_gathering_in_vain() {
        let Some(()) = with_a_deadline(a_leader_does_not_gather_after_gathering_in_vain) else { return };
        let queue = Numbers::default();
        two_were_active(&queue);
        leader(&queue).gather(GatherTime { first: Duration::from_millis(1), each: Duration::ZERO }, &forever());
        leader(&queue).gather(FOR_EVER, &forever());
    }

    /// How many leaders do without gathering until the next one that gathers.
    fn leaders_without(queue: &Numbers) -> u32 {
        let at_once = GatherTime { first: Duration::ZERO, each: Duration::ZERO };
        for without in 0.. {
            let before = lock(&queue.state).without;
            leader(queue).gather(at_once, &forever());
            if before == 0 {
                return without;
            }
        }
        unreachable!("a leader gathers at last")
    }

    #[test]
    fn gathering_in_vain_becomes_rare_until_it_succeeds() {
        let Some(()) = with_a_deadline(gathering_in_vain_becomes_rare_until_it_succeeds) else { return };
        let queue = Numbers::default();
        two_were_active(&queue);
        let rare: Vec<u32> = (0..9).map(|_| leaders_without(&queue)).collect();
        assert_eq!(rare, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        lock(&queue.state).without = 0;
        thread::scope(|scope| {
            let mut first = leader(&queue);
            let second = scope.spawn(|| {
                // Otherwise there is nothing to gather.
                while lock(&queue.state).wanted == 0 {
                    thread::yield_now();
                }
                matches!(queue.enter(Some(2), &forever(), ABANDON), Entered::Done(Some(2)))
            });
            first.gather(FOR_EVER, &forever());
            let work = first.take_work(|_| true);
            first.settle(work.into_iter().map(Some));
            assert!(second.join().unwrap());
        });
        assert_eq!([leaders_without(&queue), leaders_without(&queue)], [0, 1], "it has succeeded meanwhile");
    }

    #[test]
    fn waiting_threads_lead_in_the_order_of_their_arrival() {
        let Some(()) = with_a_deadline(waiting_threads_lead_in_the_order_of_their_arrival) else { return };
        let (queue, order) = (&Numbers::default(), &Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let first = leader(queue);
            for n in 0..20 {
                scope.spawn(move || match queue.enter(None, &forever(), ABANDON) {
                    Entered::Leader(_leader) => lock(order).push(n),
                    _ => panic!("it wants to lead alone"),
                });
                while lock(&queue.state).waiting.len() <= n {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*lock(order), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_leader_that_panics_leaves_no_thread_waiting() {
        let Some(()) = with_a_deadline(a_leader_that_panics_leaves_no_thread_waiting) else { return };
        let queue = Numbers::default();
        thread::scope(|scope| {
            let (ready, is_ready) = mpsc::channel();
            let (go, wait) = mpsc::channel::<()>();
            let queue = &queue;
            let leader = scope.spawn(move || {
                let mut first = leader(queue);
                ready.send(()).unwrap();
                wait.recv().unwrap();
                first.take_work(|&n| n < 3);
                panic!("while it holds the work of others");
            });
            is_ready.recv().unwrap();
            let taken = waiter(scope, queue, Some(2), forever());
            let waiting = waiter(scope, queue, Some(3), forever());
            go.send(()).unwrap();
            assert!(leader.join().is_err());
            assert_eq!(taken.join().unwrap(), "abandoned");
            assert_eq!(waiting.join().unwrap(), "led");
        });
    }
}
