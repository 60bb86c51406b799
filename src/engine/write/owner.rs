//! Which sessions are over, in a turn, and this handle as an owner of sessions.
//!
//! A session is over by its END, by its deadline, or because no process holds its owner's byte any more. A turn finds that out under the
//! file's lock, after it has replayed what others wrote, and with one look at the clocks. INTERNALS.md, *The life of a lock*, has the
//! sequences of events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turn::Turn;
use crate::engine::read::view::View;
use crate::fork::Process;
use crate::format::MAX_OWNER;
use crate::index::{MachineTime, Place, Times};
use crate::log::LogFile;
use crate::{Error, Result};

/// How often a handle that writes asks for the bytes of other owners.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// How many owners it asks for at once.
const ASKED_AT_ONCE: usize = 64;

/// This handle as an owner of sessions.
pub(super) struct Owning {
    /// Its random number.
    pub(super) owner: u64,
    /// The file in which it holds its byte. `None` if the disk knows no such locks.
    held: Option<Arc<LogFile>>,
    process: Process,
}

impl Drop for Owning {
    fn drop(&mut self) {
        // In a forked child, the byte is the parent's.
        if let Some(log) = self.held.as_ref().filter(|_| self.process.is_this()) {
            log.file.release_owner(self.owner);
        }
    }
}

/// What this handle has seen of a session whose deadline it cannot compare.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// The sequence number of its last record.
    seq: u64,
    since: Instant,
}

impl Turn<'_> {
    /// The clocks at this turn's look.
    pub(crate) fn times(&self) -> Times {
        self.look().1
    }

    /// Whether the pair whose record is at this position is over.
    pub(super) fn is_over(&self, view: &View, position: u64) -> bool {
        let lifetimes = &view.keys.lifetimes;
        if lifetimes.is_over(position, || self.times()) {
            return true;
        }
        let owner = lifetimes.sessions.owner(position);
        owner.is_some_and(|owner| self.is_session_over(view, owner.session))
    }

    /// Whether a session is over: by the log, by a deadline, or because its owner is gone. Found out once in a turn.
    pub(super) fn is_session_over(&self, view: &View, session: u64) -> bool {
        if let Some(&known) = self.judged.borrow().get(&session) {
            return known;
        }
        let is_over = self.judge(view, session);
        self.judged.borrow_mut().insert(session, is_over);
        is_over
    }

    /// Whether this turn has found a session to be over that has no END yet.
    pub(super) fn has_found_over(&self) -> bool {
        let judged = self.judged.borrow();
        let mut over = judged.iter().filter(|(_, is_over)| **is_over).map(|(session, _)| *session).peekable();
        over.peek().is_some()
            && self.view().is_ok_and(|view| over.any(|session| view.keys.lifetimes.sessions.newest(session).is_some()))
    }

    fn judge(&self, view: &View, session: u64) -> bool {
        let (sessions, now) = (&view.keys.lifetimes.sessions, self.times().machine);
        let Some(newest) = sessions.newest(session) else { return true };
        let record = &newest.record;
        let is_past = |now: MachineTime| now.ms >= record.deadline;
        if self.writer.owning.as_ref().is_some_and(|owning| owning.owner == record.owner) {
            // The system does not say what this handle's own description holds.
            return now.is_none_or(is_past);
        }
        let names_this_file = record.base_seq == self.log.header.base_seq;
        let held = if names_this_file { self.log.file.is_owner_held(record.owner).ok() } else { None };
        if let Some(now) = now.filter(|now| now.boot == record.boot) {
            return is_past(now) || held == Some(false);
        }
        match held {
            Some(false) => true,
            // The owner runs on this machine, whatever its boot is called there.
            Some(true) => now.is_some_and(is_past),
            None => self.is_unchanged_for_long(session, newest.seq, record.ttl),
        }
    }

    /// Whether this handle has seen the session unchanged for its time to live.
    fn is_unchanged_for_long(&self, session: u64, seq: u64, ttl: u64) -> bool {
        let (clock, mut seen) = (&self.writing.context.clock, self.writer.seen.borrow_mut());
        let now = Seen { seq, since: clock.now() };
        let first = seen.entry(session).or_insert(now);
        if first.seq != seq {
            *first = now;
        }
        clock.since(first.since) >= Duration::from_millis(ttl)
    }

    /// After the turn has found its file: holds the owner's byte there too, before the description that has it may go. The sessions
    /// name the new file once they are renewed.
    pub(super) fn keep_owner(&mut self) {
        let Some(owning) = &mut self.writer.owning else { return };
        let Some(held) = owning.held.as_mut().filter(|held| !Arc::ptr_eq(held, &self.log)) else { return };
        if self.log.file.hold_owner(owning.owner).is_ok() {
            let is_other = held.identity != self.log.identity;
            *held = Arc::clone(&self.log);
            if is_other {
                self.writing.registry.renew_soon();
            }
        }
    }

    /// Makes this handle an owner, if it is none yet.
    pub(super) fn own(&mut self) -> Result<()> {
        if self.writer.owning.is_some() {
            return Ok(());
        }
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes)?;
        let owner = u64::from_le_bytes(bytes) & MAX_OWNER;
        // Without such locks, others wait for the deadline.
        let held = self.log.file.hold_owner(owner).is_ok().then(|| Arc::clone(&self.log));
        self.writing.registry.set_owner(owner);
        self.writer.owning = Some(Owning { owner, held, process: Process::this() });
        Ok(())
    }

    pub(super) fn fill_random(&self, bytes: &mut [u8]) -> Result<()> {
        let context = &*self.writing.context;
        context.disk.system().fill_random(bytes).map_err(|e| Error::io("get random bytes", &context.path, e))
    }

    /// What a record of this turn says of its file: the file's number, if this handle holds its byte there. Otherwise a number that no
    /// file has, so that no process asks for the byte.
    pub(super) fn base_seq(&self, seq: u64) -> u64 {
        let owning = self.writer.owning.as_ref();
        let is_held =
            owning.and_then(|owning| owning.held.as_ref()).is_some_and(|held| held.identity == self.log.identity);
        if is_held { self.log.header.base_seq } else { seq - 1 }
    }

    /// The sessions without END that are over: by a deadline, or, of those that this handle asks for now and then, because the owner
    /// is gone.
    pub(super) fn sessions_to_end(&mut self) -> Result<BTreeSet<u64>> {
        let view = self.view()?;
        let sessions = &view.keys.lifetimes.sessions;
        if sessions.has_no_live() {
            return Ok(BTreeSet::new());
        }
        let mut over: BTreeSet<u64> = sessions.past_deadline(self.times().machine).take(self.session_piece()).collect();
        over.extend(self.judged.borrow().iter().filter(|(_, is_over)| **is_over).map(|(session, _)| *session));
        let now = self.writing.context.clock.now();
        let is_due = self.writer.asked.is_none_or(|last| now.saturating_duration_since(last) >= ASK_PAUSE);
        if is_due {
            self.writer.asked = Some(now);
            let places: Vec<Place> = sessions.places_after(self.writer.asked_up_to).take(ASKED_AT_ONCE).collect();
            self.writer.asked_up_to = places.last().copied().unwrap_or_default();
            let asked = places.into_iter().map(|(_, _, session)| session);
            over.extend(asked.filter(|&session| self.is_session_over(&view, session)));
            self.writer.seen.borrow_mut().retain(|session, _| sessions.newest(*session).is_some());
        }
        over.retain(|&session| sessions.newest(session).is_some());
        Ok(over)
    }
}
