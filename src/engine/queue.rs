//! The queue of writers, and the baton that its first one holds.
//!
//! Threads that want to write leave a ticket each. The first in the queue takes the baton and does the work of the
//! tickets behind its own as well, up to the first that wants to be alone; the others sleep until theirs is done, or
//! until they are first and the baton is free.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::lock;
use super::lock_wait::Deadline;
use crate::Error;

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

pub(crate) struct QueueOf<W, O> {
    state: Mutex<State<W, O>>,
}

struct State<W, O> {
    waiting: VecDeque<Arc<Ticket<W, O>>>,
    /// Somebody holds the baton.
    busy: bool,
}

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
    queue: &'q QueueOf<W, O>,
    /// Stands at the head of the queue until its work is taken or the baton is given up.
    own: Arc<Ticket<W, O>>,
    taken: Vec<Arc<Ticket<W, O>>>,
    abandon: fn() -> O,
}

pub(crate) use super::commit::{Outcome, Request};
pub(crate) type Queue = QueueOf<Request, Outcome>;

impl<W, O> Default for QueueOf<W, O> {
    fn default() -> Self {
        QueueOf { state: Mutex::new(State { waiting: VecDeque::new(), busy: false }) }
    }
}

impl<W, O> QueueOf<W, O> {
    /// Queues up with `work` to be done, or with none to get the baton alone.
    pub(crate) fn enter(&self, work: Option<W>, deadline: &Deadline, abandon: fn() -> O) -> Entered<'_, W, O> {
        let ticket = Arc::new(Ticket { stage: Mutex::new(Stage::Waiting(work)), changed: Condvar::new() });
        let mut state = lock(&self.state);
        state.waiting.push_back(Arc::clone(&ticket));
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

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State<W, O>>,
        left: Option<std::time::Duration>,
    ) -> MutexGuard<'s, State<W, O>> {
        match left {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}

impl<W, O> Baton<'_, W, O> {
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
        let state = lock(&self.queue.state);
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

/// The outcome of work whose leader did not live to do it.
pub(crate) fn abandoned() -> Error {
    Error::other(std::io::Error::other("the thread that was writing for this one panicked; the outcome is unknown"))
}
