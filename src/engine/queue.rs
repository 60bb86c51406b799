//! The queue of writers, and the baton that its first one holds.
//!
//! Threads that want to write leave a ticket each. The first in the queue takes the baton and does the work of the
//! tickets behind its own as well, up to the first that wants to be alone; the others sleep until theirs is done, or
//! until they are first and the baton is free.
//!
//! Threads that write again as soon as they were told fall into two halves otherwise: while the one half is being
//! synced, the other one queues up, and each sync serves half of them. So who has the baton may [wait](Baton::gather)
//! for as many as were there last time. On two cores that were busy with other things, with a sync of 0.1 ms, this made
//! the groups of two threads 1.9 requests long instead of 1.2, those of eight 7.3 to 7.9 instead of 6.0 to 6.2, and those
//! of 32 and more no longer: on busy cores the others come late enough to be in the next group together. See
//! `benches/group_commit.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::lock;
use super::lock_wait::Deadline;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A place in the queue.
pub(crate) struct Ticket<W, O> {
    /// Guarded by the queue's lock as well, in effect: changed only by the ticket's owner before it queues up, and
    /// by the holder of the baton.
    stage: Mutex<Stage<W, O>>,
    changed: Condvar,
}

enum Stage<W, O> {
    /// `None` for a ticket that wants the baton for itself.
    Waiting(Option<W>),
    /// In the hands of the holder of the baton: its owner must wait for the outcome, however long.
    Taken,
    Done(O),
    /// The owner has the outcome.
    Over,
}

pub(crate) struct Queue<W, O> {
    state: Mutex<State<W, O>>,
}

struct State<W, O> {
    waiting: VecDeque<Arc<Ticket<W, O>>>,
    /// Somebody holds the baton.
    busy: bool,
    /// How many there were when the baton was last given up: those whose work was done, and those who waited.
    active: usize,
    /// The holder of the baton sleeps until so many are waiting, its own ticket included; 0 if it does not.
    wanted: usize,
    /// After a wait in vain, so many batons do without one, and after the next such wait twice as many.
    without: u32,
    in_vain: u32,
}

/// Waiting is not tried more seldom than once in so many batons.
const LONGEST_WITHOUT: u32 = 64;

/// What came of waiting.
pub(crate) enum Entered<'q, W, O> {
    /// First in the queue: the baton, with one's own ticket at the head of the queue.
    Baton(Baton<'q, W, O>),
    /// Somebody else has done the work.
    Done(O),
    /// The time is over, and nobody has begun.
    TimedOut,
}

/// The right to write. Given up when dropped; tickets that were taken and not settled by then are settled with an
/// outcome made from an error, so that nobody waits for ever for a thread that has panicked.
pub(crate) struct Baton<'q, W, O> {
    queue: &'q Queue<W, O>,
    /// Stands at the head of the queue until its work is taken or the baton is given up.
    own: Arc<Ticket<W, O>>,
    taken: Vec<Arc<Ticket<W, O>>>,
    abandon: fn() -> O,
}

impl<W, O> Default for Queue<W, O> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), busy: false, active: 0, wanted: 0, without: 0, in_vain: 0 };
        Queue { state: Mutex::new(state) }
    }
}

impl<W, O> Queue<W, O> {
    /// Queues up with `work` to be done, or with none to get the baton alone.
    pub(crate) fn enter(&self, work: Option<W>, deadline: &Deadline, abandon: fn() -> O) -> Entered<'_, W, O> {
        let ticket = Arc::new(Ticket { stage: Mutex::new(Stage::Waiting(work)), changed: Condvar::new() });
        let mut state = lock(&self.state);
        state.waiting.push_back(Arc::clone(&ticket));
        if state.wanted != 0 && state.waiting.len() >= state.wanted {
            state.wanted = 0;
            state.waiting.front().inspect(|first| first.changed.notify_one());
        }
        loop {
            if let Some(outcome) = ticket.outcome() {
                return Entered::Done(outcome);
            }
            if !state.busy && state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &ticket)) {
                state.busy = true;
                return Entered::Baton(Baton { queue: self, own: ticket, taken: Vec::new(), abandon });
            }
            let left = if ticket.is_taken() { None } else { deadline.left() };
            if left.is_some_and(|left| left.is_zero()) {
                state.waiting.retain(|other| !Arc::ptr_eq(other, &ticket));
                state.wake_first();
                return Entered::TimedOut;
            }
            state = ticket.wait(state, left);
        }
    }
}

impl<W, O> State<W, O> {
    fn wake_first(&self) {
        if let (false, Some(first)) = (self.busy, self.waiting.front()) {
            first.changed.notify_one();
        }
    }
}

impl<W, O> Ticket<W, O> {
    fn outcome(&self) -> Option<O> {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn is_taken(&self) -> bool {
        matches!(*lock(&self.stage), Stage::Taken)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<W, O>>, left: Option<Duration>) -> MutexGuard<'s, State<W, O>> {
        match left {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}

impl<W, O> Baton<'_, W, O> {
    /// Waits until as many are in the queue as were active last time, but no longer than `patience`.
    pub(crate) fn gather(&mut self, patience: Duration) {
        if cfg!(all(test, any(loom, shuttle))) {
            // A checker of threads has no time, and no wait there ends because it is over.
            return;
        }
        let mut state = lock(&self.queue.state);
        let wanted = state.active;
        if state.waiting.len() >= wanted {
            return;
        }
        if state.without > 0 {
            state.without -= 1;
            return;
        }
        let deadline = Deadline::after(Some(patience));
        state.wanted = wanted;
        while state.wanted != 0 && !deadline.is_over() {
            state = self.own.wait(state, deadline.left());
        }
        if std::mem::take(&mut state.wanted) == 0 {
            state.in_vain = 0;
        } else {
            state.in_vain = (state.in_vain * 2).clamp(1, LONGEST_WITHOUT);
            state.without = state.in_vain;
        }
    }

    /// Takes the work of one's own ticket and of those behind it, as long as there are any with work and
    /// `room_for` says yes; at least one's own, if that has work.
    pub(crate) fn take_work(&mut self, mut room_for: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut state = lock(&self.queue.state);
        let mut work = Vec::new();
        while let Some(ticket) = state.waiting.front() {
            let mut stage = lock(&ticket.stage);
            let Stage::Waiting(request) = &mut *stage else { break };
            let fits = request.as_ref().is_some_and(|request| room_for(request) || work.is_empty());
            if !fits {
                break;
            }
            work.extend(request.take());
            *stage = Stage::Taken;
            drop(stage);
            self.taken.extend(state.waiting.pop_front());
        }
        work
    }

    /// Hands out the outcomes of the work that was taken, in its order. Returns one's own, the first.
    pub(crate) fn settle(mut self, outcomes: impl IntoIterator<Item = O>) -> Option<O> {
        let taken = std::mem::take(&mut self.taken);
        let mut outcomes = outcomes.into_iter();
        let own = outcomes.next();
        let mut state = lock(&self.queue.state);
        state.active = taken.len() + state.waiting.len();
        for ticket in taken.iter().skip(1) {
            ticket.finish(outcomes.next().unwrap_or_else(self.abandon));
        }
        drop(state);
        own
    }
}

impl<W, O> Ticket<W, O> {
    /// The queue's lock is held, so the owner is either asleep or about to look.
    fn finish(&self, outcome: O) {
        *lock(&self.stage) = Stage::Done(outcome);
        self.changed.notify_one();
    }
}

impl<W, O> Drop for Baton<'_, W, O> {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        for ticket in &self.taken {
            ticket.finish((self.abandon)());
        }
        if state.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &self.own)) {
            state.waiting.pop_front();
        }
        state.busy = false;
        state.wake_first();
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
            Entered::Baton(_) => "led",
            Entered::Done(Some(_)) => "done",
            Entered::Done(None) => "abandoned",
            Entered::TimedOut => "timed out",
        });
        while lock(&queue.state).waiting.len() == waiting {
            thread::yield_now();
        }
        handle
    }

    fn baton(queue: &Numbers) -> Baton<'_, u32, Option<u32>> {
        match queue.enter(Some(1), &forever(), ABANDON) {
            Entered::Baton(baton) => baton,
            _ => panic!("an empty queue hands the baton to whoever comes"),
        }
    }

    #[test]
    fn the_first_does_the_work_of_those_behind_it_and_hands_out_the_outcomes_in_order() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut baton = baton(&queue);
            let others = [behind(scope, &queue, Some(2), forever()), behind(scope, &queue, Some(3), forever())];
            let work = baton.take_work(|_| true);
            assert_eq!(work, [1, 2, 3]);
            assert_eq!(baton.settle(work.into_iter().map(Some)), Some(Some(1)));
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), "done"));
        });
    }

    #[test]
    fn work_is_taken_up_to_the_first_who_wants_to_be_alone_or_for_whom_there_is_no_room() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = baton(&queue);
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
    fn who_runs_out_of_time_leaves_and_fails_nobody_else() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let first = baton(&queue);
            let patient = behind(scope, &queue, Some(3), forever());
            let none = queue.enter(Some(2), &Deadline::after(Some(Duration::ZERO)), ABANDON);
            assert!(matches!(none, Entered::TimedOut));
            drop(first);
            assert_eq!(patient.join().unwrap(), "led");
        });
        assert!(lock(&queue.state).waiting.is_empty());
    }

    #[test]
    fn work_that_was_taken_is_waited_for_beyond_the_time_limit() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let mut first = baton(&queue);
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
            let mut first = baton(queue);
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
            let mut first = baton(&queue);
            let second = scope.spawn(|| matches!(queue.enter(Some(2), &forever(), || None), Entered::Done(Some(2))));
            first.gather(Duration::from_secs(3600));
            let work = first.take_work(|_| true);
            assert_eq!(work, [1, 2]);
            first.settle(work.into_iter().map(Some));
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn a_leader_that_has_waited_in_vain_does_not_wait_the_next_time() {
        let queue = Numbers::default();
        two_were_active(&queue);
        baton(&queue).gather(Duration::from_millis(1));
        baton(&queue).gather(Duration::from_secs(3600));
    }

    #[test]
    fn a_leader_that_panics_leaves_nobody_waiting() {
        let queue = Numbers::default();
        thread::scope(|scope| {
            let (ready, told) = mpsc::channel();
            let (go, wait) = mpsc::channel::<()>();
            let queue = &queue;
            let leader = scope.spawn(move || {
                let mut first = baton(queue);
                ready.send(()).unwrap();
                wait.recv().unwrap();
                first.take_work(|&n| n < 3);
                panic!("while it holds the work of others");
            });
            told.recv().unwrap();
            let taken = behind(scope, queue, Some(2), forever());
            let waiting = behind(scope, queue, Some(3), forever());
            go.send(()).unwrap();
            assert!(leader.join().is_err());
            assert_eq!(taken.join().unwrap(), "abandoned");
            assert_eq!(waiting.join().unwrap(), "led");
        });
    }
}
