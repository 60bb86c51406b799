//! Keys that are over: they stay in the log, hidden, until a delete is appended for each.
//!
//! A write that touches such a key puts the delete in front, as a unit of its own: a watch then sees the end of the old pair
//! before it sees the new one, as for any other delete. The other keys are swept, some in each turn that writes, so that no caller
//! waits for many. Both act on what the log holds under its lock, and on one look at the clock.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Writing;
use super::turn::Turn;
use super::writer::Phase;
use crate::Result;
use crate::config::Durability;
use crate::engine::deadline::Deadline;
use crate::engine::read::view::View;
use crate::engine::write::request::{Request, no_memory};
use crate::format::Kind;
use crate::log::group::record_len;
use crate::memory::make_room;
use crate::sync::lock;

impl Turn<'_> {
    /// Asks the view. If a snapshot turns out to be wrong, the whole log is read, and the question is asked again.
    pub(super) fn ask<T>(&self, mut ask: impl FnMut(&View) -> Result<T>) -> Result<T> {
        loop {
            let view = self.view()?;
            let (answer, snapshot) = (ask(&view), view.snapshot);
            drop(view);
            match answer {
                Err(error) if self.writing.reading.gave_up_snapshot(snapshot, &error)? => {}
                Err(error) => return Err(error),
                answered => return answered,
            }
        }
    }

    /// Whether a key or a session is over. Without deadlines and sessions, no clock is looked at.
    fn has_over(&self) -> Result<bool> {
        Ok(self.can_be_over && self.view()?.keys.lifetimes.has_over(self.times()))
    }

    /// Whether a key that requests touch may be over. The owner of a pair may be gone although its deadline has not passed.
    fn may_have_over(&self) -> Result<bool> {
        if !self.can_be_over {
            return Ok(false);
        }
        let view = self.view()?;
        let lifetimes = &view.keys.lifetimes;
        Ok(!lifetimes.sessions.has_no_pairs() || lifetimes.has_over(self.times()))
    }

    /// The keys that are over of those that these requests touch: by a write, or by a condition. Sorted, each once.
    ///
    /// A call that acts on the end of a pair has it logged. Otherwise a clock that is set back would show a pair again that a caller has
    /// deleted, or after another has taken its place.
    pub(super) fn over_for<'q>(&self, requests: impl Iterator<Item = &'q Request<'q>>) -> Result<Vec<&'q [u8]>> {
        let mut over = Vec::new();
        if !self.may_have_over()? {
            return Ok(over);
        }
        for (key, ..) in requests.flat_map(Request::ops) {
            let is_over = |view: &View| Ok(view.find(key)?.is_some_and(|position| self.is_over(view, position)));
            if self.ask(is_over)? {
                make_room(&mut over, 1).map_err(|_| no_memory(&self.writing.context.path))?;
                over.push(key);
            }
        }
        // A batch may name a key several times.
        over.sort_unstable();
        over.dedup();
        Ok(over)
    }

    /// Removes keys that are over, after the ends of their sessions.
    pub(super) fn remove_over(&mut self, over: &[&[u8]]) -> Result<()> {
        let limits = self.log.limits;
        let mut ending = BTreeSet::new();
        for key in over {
            let owner = self.ask(|view| {
                let owner = view.find(key)?.and_then(|position| view.keys.lifetimes.sessions.owner(position));
                // The deadline of the pair may have passed, and its session goes on.
                Ok(owner.filter(|owner| self.is_session_over(view, owner.session)))
            })?;
            ending.extend(owner.map(|owner| owner.session));
        }
        self.write_ends(&ending)?;
        let mut rest = over;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |key: &&&[u8]| {
                bytes += record_len(key.len(), 0);
                bytes <= limits.group_bytes()
            };
            let count = rest.iter().take(limits.group_records() as usize).take_while(fits).count().max(1);
            let (piece, left) = rest.split_at(count);
            self.write_deletes(piece)?;
            rest = left;
        }
        Ok(())
    }

    /// Ends the sessions that are over, and removes the keys that are over, as many as one turn sweeps. Returns whether there was one.
    ///
    /// A failure is no error of a request: either nothing has changed, or the handle is poisoned, and what follows finds that.
    pub(crate) fn sweep(&mut self) -> bool {
        if std::mem::replace(&mut self.has_swept, true) || !self.can_be_over {
            return false;
        }
        let Ok(over) = self.sessions_to_end() else { return false };
        if self.write_ends(&over).is_err() {
            // The keys of these sessions are not removed before that is logged.
            return false;
        }
        let keys = self.keys_to_sweep().unwrap_or_default();
        !over.is_empty() | (!keys.is_empty() && self.write_deletes(&keys).is_ok())
    }

    /// The keys that are over, as many as one turn sweeps.
    fn keys_to_sweep(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        if !self.has_over()? {
            return Ok(keys);
        }
        let (view, limits, times, mut bytes) = (self.view()?, self.log.limits, self.times(), 0);
        let most = limits.swept_records().min(limits.group_records()) as usize;
        let unreadable = &mut self.writer.unreadable;
        let lifetimes = &view.keys.lifetimes;
        // The end of a session is logged before its keys are removed.
        let is_logged = |position: &u64| {
            let owner = lifetimes.sessions.owner(*position);
            owner.is_none_or(|owner| lifetimes.sessions.newest(owner.session).is_none())
        };
        let left = lifetimes.over(times).filter(|position| !unreadable.contains(position) && is_logged(position));
        for position in left.take(most).collect::<Vec<_>>() {
            let mut key = Vec::new();
            // Proven by the index: a damaged key would remove another one. A key that cannot be read stays, and the next turn goes on
            // after it.
            let reader = &view.reader;
            let read = reader.known(position).and_then(|header| reader.key_into(position, &header, &mut key));
            match read {
                Ok(()) if view.index().points_to(&key, position) => {}
                Err(error) if error.is_retryable() => break,
                Ok(()) | Err(_) => {
                    unreadable.insert(position);
                    continue;
                }
            }
            bytes += record_len(key.len(), 0);
            if bytes > limits.swept_bytes() && !keys.is_empty() {
                break;
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// Appends the deletes of keys, each as a unit of its own, in one group.
    fn write_deletes<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<()> {
        let written = self.lay_out_deletes(keys).and_then(|()| self.write_group());
        self.end_group();
        written
    }

    fn lay_out_deletes<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<()> {
        let first_seq = self.reserve(keys.len() as u64)?;
        let (mut flags, mut seq) = self.begin_records(first_seq);
        let group = &mut self.writer.group;
        let room = group.make_room(keys.iter().map(|key| record_len(key.as_ref().len(), 0)).sum());
        let key_bytes = keys.iter().map(|key| key.as_ref().len()).sum();
        let room = room.and_then(|()| group.run.make_room(keys.len(), key_bytes));
        room.map_err(|_| no_memory(&self.writing.context.path))?;
        for key in keys {
            group.push(std::mem::take(&mut flags), Kind::Delete, seq, key.as_ref(), b"");
            seq += 1;
        }
        Ok(())
    }
}

impl Writing {
    /// Sweeps in a turn of its own, if a key is over. For watches, which are to report the end of a pair although nothing is
    /// written. Returns whether a key was removed. Unless it may wait, nothing is removed where that needs a sync.
    ///
    /// The deletes are not synced for themselves: after a power cut, the keys are over still.
    ///
    /// # Errors
    ///
    /// Those of every write.
    pub(crate) fn sweep(&self, patience: Duration, may_wait: bool) -> Result<bool> {
        let deadline = || Deadline::of_a_try(&self.context.clock, patience);
        self.check_writable()?;
        self.lead(&deadline(), || {
            // A turn of a handle that has not written yet may cut a torn tail off.
            if !may_wait && lock(&self.writer).phase < Phase::BlockReserved {
                return Ok(false);
            }
            self.in_turn(&deadline(), |turn| {
                let ends = turn.view()?.keys.lifetimes.sessions.live().count() as u64;
                if !turn.has_over()? || !may_wait && !turn.has_numbers(3 * (turn.log.limits.swept_records() + ends)) {
                    return Ok(false);
                }
                turn.rewrite_ahead(&deadline())?;
                let has_removed = turn.sweep();
                if self.context.config.get_durability() != Durability::Sync {
                    turn.settle()?;
                }
                Ok(has_removed)
            })
        })
    }
}
