//! Writing, in the order in which a write passes through it:
//!
//! 1. a [`request`] waits in the [`queue`]; its first one becomes the leader;
//! 2. the leader takes the [file's lock](file_lock) and begins a [`turn`], which catches up and recovers a torn tail;
//! 3. [`commit`] makes a [`plan`] of all requests, lays their records out and writes them as one group;
//! 4. [`numbering`] reserves their sequence numbers, [`append`] writes the group and shows it to readers;
//! 5. [`durability`] syncs, as configured, and every request gets its [`outcome`].

pub(crate) mod append;
pub(crate) mod commit;
mod delete_many;
pub(crate) mod durability;
pub(crate) mod file_lock;
mod interval;
pub(crate) mod line;
mod linger;
pub(crate) mod live;
pub(crate) mod loose;
pub(crate) mod numbering;
pub(crate) mod outcome;
mod owner;
pub(crate) mod plan;
pub(crate) mod queue;
mod reopen;
pub(crate) mod request;
mod rewrite;
pub(crate) mod sessions;
mod sweep;
pub(crate) mod sync_state;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
pub(crate) mod turn;
mod waiter;
pub(crate) mod writer;

use std::sync::Arc;

use super::context::Context;
use super::deadline::{Deadline, Patience};
use super::read::Reading;
use crate::config::Durability;
use crate::sync::{Mutex, lock};
use crate::{Error, Result};
use interval::IntervalSync;
use live::Registry;
use outcome::{Outcome, abandoned};
use queue::{Entered, Queue};
use request::Request;
use sync_state::SyncState;
use turn::Turn;
use writer::Writer;

/// The writing side of an open store.
pub(crate) struct Writing {
    pub(crate) reading: Arc<Reading>,
    pub(crate) context: Arc<Context>,
    queue: Queue<Request<'static>, Outcome>,
    /// The sessions of this handle. Has a lock of its own, under which nothing else is locked.
    pub(crate) registry: Registry,
    /// Locked by the leader for its whole turn.
    pub(crate) writer: Mutex<Writer>,
    /// Has locks of its own. The interval thread uses it without a turn.
    pub(crate) syncs: Arc<SyncState>,
    /// The thread of [`Durability::Interval`]. Locked in a turn, and by closing after the last one.
    interval: Mutex<Option<IntervalSync>>,
}

impl Writing {
    pub(crate) fn new(reading: Arc<Reading>) -> Result<Writing> {
        let context = Arc::clone(&reading.context);
        let (durability, read_only) = (context.config.get_durability(), context.config.get_read_only());
        let syncs = Arc::<SyncState>::default();
        let interval = match durability {
            Durability::Interval(interval) if !read_only => Some(
                IntervalSync::start(interval, Arc::clone(&syncs), context.clock.clone())
                    .map_err(|e| Error::io("start the sync thread", &context.path, e))?,
            ),
            _ => None,
        };
        let queue = match durability {
            Durability::Sync => Queue::default(),
            Durability::Interval(_) | Durability::Os => Queue::of_short_turns(),
        };
        Ok(Writing {
            reading,
            context,
            queue,
            registry: Registry::default(),
            writer: Mutex::default(),
            syncs,
            interval: Mutex::new(interval),
        })
    }

    /// Refuses a write that cannot succeed, before it waits for anything.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.context.check_writable()?;
        self.syncs.check_poison()
    }

    /// Waits in the queue, and does something in a turn of its own.
    pub(crate) fn solo<'e, T>(&'e self, deadline: Deadline, act: impl FnOnce(&mut Turn<'e>) -> Result<T>) -> Result<T> {
        self.check_writable()?;
        self.lead(&deadline, || self.in_turn(&deadline, act))
    }

    /// As [`Writing::solo`], for a call of several turns.
    pub(crate) fn solo_with<'e, T>(
        &'e self,
        patience: &Patience,
        act: impl FnOnce(&mut Turn<'e>) -> Result<T>,
    ) -> Result<T> {
        let clock = &self.context.clock;
        let began = clock.now();
        let outcome = self.solo(patience.deadline(clock), |turn| {
            patience.spend(clock.since(began));
            act(turn)
        });
        if let Err(Error::LockTimeout { waited, .. }) = &outcome {
            patience.spend(*waited);
        }
        outcome
    }

    /// Waits in the queue until this thread leads.
    fn lead<T>(&self, deadline: &Deadline, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.queue.enter(None, deadline, abandoned) {
            Entered::Leader(_leader) => act(),
            Entered::TimedOut => Err(self.queue_timeout(deadline)),
            Entered::Done(outcome) => match outcome {
                Err(failure) => Err(failure.error()),
                Ok(_) => unreachable!("a waiter without work gets no outcome from a leader"),
            },
        }
    }

    /// Does something in a turn. For the leader.
    fn in_turn<'e, T>(&'e self, deadline: &Deadline, act: impl FnOnce(&mut Turn<'e>) -> Result<T>) -> Result<T> {
        if self.context.is_closing() {
            return Err(Error::Closed);
        }
        let mut turn = Turn::begin(self, deadline)?;
        let result = act(&mut turn);
        turn.end();
        result
    }

    /// The error of a call that has waited in the queue.
    fn queue_timeout(&self, deadline: &Deadline) -> Error {
        let file = self.reading.shown().ok().map(|view| view.reader.log.identity);
        self.context.lock_timeout(file, deadline)
    }

    /// Ends writing: leaves the file as a clean close does, closes the view, and releases the file's lock.
    pub(crate) fn close(&self, patience: &Patience) -> Result<()> {
        let tidied = if self.context.config.get_read_only() {
            Ok(())
        } else {
            self.solo_with(patience, |turn| {
                // No call may queue up after this one.
                self.context.begin_closing();
                turn.tidy()
            })
        };
        self.context.begin_closing();
        // Waits for a turn that began before closing did.
        let mut writer = lock(&self.writer);
        self.reading.close();
        writer.release();
        // The last turn has ended the sessions, or their deadlines will.
        writer.owning = None;
        drop(writer);
        self.registry.all().iter().for_each(|live| self.registry.lose(live.session));
        drop(lock(&self.interval).take());
        tidied
    }
}
