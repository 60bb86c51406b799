//! The records of sessions, in a turn: those that begin, renew and end them.
//!
//! The log decides. What is over is found out in [`owner`](super::owner). A turn that acts on a deadline, or on an owner that is gone, appends
//! END first, so that all others see it too. After a write for a session, the clock is looked at again: a session whose deadline has passed meanwhile
//! may have been seen to be over, and gets its END in the same turn. INTERNALS.md, *The life of a lock*, has the sequences of events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Writing;
use super::live::{LiveSession, OwnLock};
use super::request::no_memory;
use super::turn::Turn;
use crate::config::Durability;
use crate::engine::deadline::Deadline;
use crate::engine::read::view::View;
use crate::format::{Expiry, FullKey, Kind, Owner, SESSION_LEN, SessionRecord};
use crate::log::group::record_len;
use crate::loss::LockLoss;
use crate::{Error, Result};

/// A session that begins, with its first key if it has one.
pub(crate) struct Beginning<'k> {
    pub(crate) ttl: Duration,
    /// A full key, and its value.
    pub(crate) lock: Option<(&'k [u8], &'k [u8])>,
}

/// A lock that ends with its session.
#[derive(Clone, Copy)]
pub(crate) struct Released<'l> {
    /// The full key.
    pub(crate) key: &'l [u8],
    pub(crate) acquired: u64,
    /// Its pair stays, without an owner.
    pub(crate) keeps_pair: bool,
}

impl Turn<'_> {
    /// Makes sure that a session of this handle lives. Returns its deadline.
    fn expect_live(&self, view: &View, session: u64, nonce: u64) -> Result<u64> {
        let living = view.keys.lifetimes.living(session, self.times());
        living
            .filter(|newest| newest.record.nonce == nonce)
            .map(|newest| newest.record.deadline)
            .ok_or(Error::SessionOver)
    }

    /// Whether a session lives, for a write or a condition of its owner.
    pub(super) fn is_live(&self, view: &View, session: u64, nonce: u64) -> bool {
        self.expect_live(view, session, nonce).is_ok()
    }

    /// Begins a session, and takes a lock with it. Both records are one write. Returns the session, and the sequence number of
    /// its last record.
    ///
    /// # Errors
    ///
    /// [`Error::NoSessions`], [`Error::SessionOver`] if the session is over before it has begun, and those of every write.
    pub(crate) fn begin_session(&mut self, beginning: &Beginning<'_>) -> Result<(Arc<LiveSession>, u64)> {
        let context = &*self.writing.context;
        let boot = context.boot()?;
        let now = self.times().machine.ok_or_else(|| Error::internal("the machine's clock is gone"))?;
        let (loss, _) = LockLoss::channel().map_err(|e| Error::io("make a descriptor", &context.path, e))?;
        let ttl = u64::try_from(beginning.ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.own()?;
        let mut nonce = [0; 8];
        self.fill_random(&mut nonce)?;
        let count = 1 + u64::from(beginning.lock.is_some());
        let first_seq = self.reserve(count)?;
        let (flags, session) = self.begin_records(first_seq);
        let record = SessionRecord {
            session,
            owner: self.writer.owning.as_ref().map_or(0, |owning| owning.owner),
            nonce: u64::from_le_bytes(nonce),
            ttl,
            deadline: now.ms.saturating_add(ttl).max(1),
            boot: boot.id,
            base_seq: self.base_seq(session),
        };
        self.make_group_room(count as usize, beginning.lock.map_or(0, |(key, value)| key.len() + value.len()))?;
        let group = &mut self.writer.group;
        group.push_session(flags, session, &record);
        if let Some((key, value)) = beginning.lock {
            let owner = Owner { session, acquired: session + 1 };
            group.push_expiring(
                Default::default(),
                session + 1,
                key,
                Expiry { deadline: 0, owner: Some(owner) },
                value,
            );
        }
        let lock =
            beginning.lock.map(|(key, _)| OwnLock { key: key.into(), owner: Owner { session, acquired: session + 1 } });
        let live = Arc::new(LiveSession::new(&record, loss, lock));
        if let Err(error) = self.write_own_group() {
            // The session's record may have reached the file without the lock's.
            let _ = self.write_ends(&BTreeSet::from([session]));
            return Err(error);
        }
        self.look_again_at(session, record.deadline)?;
        self.writing.registry.add(&live);
        Ok((live, session + count - 1))
    }

    /// Renews sessions of this handle. Those that are over are reported and forgotten.
    pub(crate) fn renew(&mut self, sessions: &[Arc<LiveSession>]) -> Result<()> {
        let boot = self.writing.context.boot()?;
        let Some(now) = self.times().machine else { return Ok(()) };
        let (mut living, mut lost) = (Vec::new(), Vec::new());
        let view = self.view()?;
        for live in sessions {
            match self.expect_live(&view, live.session, live.nonce) {
                Ok(deadline) => living.push((live, deadline)),
                Err(_) => lost.push(live.session),
            }
        }
        let owners: Vec<_> = living
            .iter()
            .filter_map(|(live, _)| view.keys.lifetimes.sessions.newest(live.session).map(|newest| newest.record.owner))
            .collect();
        drop(view);
        lost.into_iter().for_each(|session| self.writing.registry.lose(session));
        for (piece, owners) in living.chunks(self.session_piece()).zip(owners.chunks(self.session_piece())) {
            let first_seq = self.reserve(piece.len() as u64)?;
            let (mut flags, mut seq) = self.begin_records(first_seq);
            self.make_group_room(piece.len(), 0)?;
            for ((live, _), &owner) in piece.iter().zip(owners) {
                let (deadline, base_seq) = (now.ms.saturating_add(live.ttl).max(1), self.base_seq(seq));
                let (session, nonce, ttl, boot) = (live.session, live.nonce, live.ttl, boot.id);
                let record = SessionRecord { session, owner, nonce, ttl, deadline, boot, base_seq };
                self.writer.group.push_session(std::mem::take(&mut flags), seq, &record);
                seq += 1;
            }
            self.write_own_group()?;
            for &(live, before) in piece {
                // What was decided by the deadline before holds only up to it.
                if self.look_again_at(live.session, before).is_ok() {
                    live.set_deadline(now.ms.saturating_add(live.ttl).max(1));
                }
            }
        }
        Ok(())
    }

    /// The second look at the clock, after a write that was decided before this deadline. If it has passed, others may have seen that
    /// the session is over: it ends.
    pub(super) fn look_again_at(&mut self, session: u64, deadline: u64) -> Result<()> {
        if self.writing.context.machine_time().is_some_and(|now| now.ms < deadline) {
            return Ok(());
        }
        // If END cannot be written, the session is over by its new deadline at the latest, and for its owner now.
        let _ = self.write_ends(&BTreeSet::from([session]));
        self.writing.registry.lose(session);
        Err(Error::SessionOver)
    }

    /// Ends a session of this handle, and its keys. If it is for a lock, its pair is removed in the same write, or stays without an owner.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`] if the session is over already, or the key is no longer that lock.
    pub(crate) fn end_session(&mut self, live: &LiveSession, lock: Option<Released<'_>>) -> Result<()> {
        let is_live = self.is_live(&*self.view()?, live.session, live.nonce);
        let held = match lock {
            Some(lock) if is_live => self.pair_of(live.session, &lock)?.map(|pair| (lock.key, pair)),
            _ => None,
        };
        let is_lost = !is_live || lock.is_some() && held.is_none();
        match held {
            Some((key, pair)) => self.release(live.session, key, pair.as_deref())?,
            None => self.write_ends(&BTreeSet::from([live.session]))?,
        }
        self.sweep();
        if is_lost { Err(Error::SessionOver) } else { Ok(()) }
    }

    /// Ends the sessions of a handle that closes.
    pub(crate) fn end_sessions(&mut self, sessions: &[Arc<LiveSession>]) -> Result<()> {
        let view = self.view()?;
        let is_own = |live: &&Arc<LiveSession>| {
            let newest = view.keys.lifetimes.sessions.newest(live.session);
            newest.is_some_and(|newest| newest.record.nonce == live.nonce)
        };
        let own: BTreeSet<u64> = sessions.iter().filter(is_own).map(|live| live.session).collect();
        drop(view);
        self.write_ends(&own)?;
        self.sweep();
        Ok(())
    }

    /// Whether a lock's key has its pair still; with the value, if the pair is to stay.
    fn pair_of(&self, session: u64, lock: &Released<'_>) -> Result<Option<Option<Vec<u8>>>> {
        let owner = Owner { session, acquired: lock.acquired };
        self.ask(|view| {
            let Some(position) = view.find(lock.key)? else { return Ok(None) };
            if view.keys.lifetimes.sessions.owner(position) != Some(owner) {
                return Ok(None);
            }
            if !lock.keeps_pair {
                return Ok(Some(None));
            }
            let mut record = Vec::new();
            let record = view.reader.record(position, &mut record, true)?;
            Ok(Some(Some(record.value().to_vec())))
        })
    }

    /// Writes the release of a lock, and END.
    fn release(&mut self, session: u64, key: &[u8], left: Option<&[u8]>) -> Result<()> {
        let Some(record) = self.end_of(session)? else { return Ok(()) };
        let first_seq = self.reserve(2)?;
        let (flags, seq) = self.begin_records(first_seq);
        self.make_group_room(2, key.len() + left.map_or(0, <[u8]>::len))?;
        let base_seq = self.log.header.base_seq;
        let group = &mut self.writer.group;
        match left {
            None => group.push(flags, Kind::Delete, seq, key, b""),
            Some(value) => group.push(flags, Kind::Put, seq, key, value),
        }
        group.push_session(Default::default(), seq + 1, &SessionRecord { base_seq, ..record });
        self.write_own_group()
    }

    fn end_of(&self, session: u64) -> Result<Option<SessionRecord>> {
        let view = self.view()?;
        let newest = view.keys.lifetimes.sessions.newest(session);
        Ok(newest.map(|newest| SessionRecord { deadline: 0, ..newest.record }))
    }

    /// Writes END for those of these sessions that have none.
    pub(super) fn write_ends(&mut self, sessions: &BTreeSet<u64>) -> Result<()> {
        let mut ends = Vec::new();
        for &session in sessions {
            ends.extend(self.end_of(session)?);
        }
        for piece in ends.chunks(self.session_piece()) {
            let first_seq = self.reserve(piece.len() as u64)?;
            let (mut flags, mut seq) = self.begin_records(first_seq);
            self.make_group_room(piece.len(), 0)?;
            for record in piece {
                let record = SessionRecord { base_seq: self.log.header.base_seq, ..*record };
                self.writer.group.push_session(std::mem::take(&mut flags), seq, &record);
                seq += 1;
            }
            self.write_own_group()?;
        }
        Ok(())
    }

    /// How many records of sessions are written at once.
    pub(super) fn session_piece(&self) -> usize {
        self.log.limits.group_records().min(256) as usize
    }

    fn make_group_room(&mut self, records: usize, bytes: usize) -> Result<()> {
        let limits_of_one = record_len(0, SESSION_LEN);
        let group = &mut self.writer.group;
        let room = group.make_room(records as u64 * limits_of_one + bytes as u64);
        let room = room.and_then(|()| group.run.make_room(records, records * SESSION_LEN + bytes));
        room.map_err(|_| no_memory(&self.writing.context.path))
    }

    fn write_own_group(&mut self) -> Result<()> {
        let written = self.write_group();
        self.end_group();
        self.judged.borrow_mut().clear();
        written
    }

    /// As a write that needs no sync of its own: a power cut ends all sessions.
    pub(crate) fn settle_without_sync(&mut self) -> Result<()> {
        if self.writing.context.config.get_durability() == Durability::Sync { Ok(()) } else { self.settle() }
    }
}

impl Writing {
    /// Does something for a session in a turn of its own, after what a handle does before its first write.
    pub(crate) fn in_session_turn<T>(
        &self,
        deadline: &Deadline,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_writable()?;
        self.lead(deadline, || {
            self.in_turn(deadline, |turn| {
                turn.rewrite_ahead(deadline)?;
                let done = act(turn)?;
                turn.settle_without_sync()?;
                Ok(done)
            })
        })
    }

    /// Takes a lock for a session of its own, unless another session holds it. Returns the session and the lock's token.
    pub(crate) fn try_lock(
        &self,
        deadline: &Deadline,
        key: &FullKey,
        value: &[u8],
        ttl: Duration,
    ) -> Result<Option<(Arc<LiveSession>, u64)>> {
        self.in_session_turn(deadline, |turn| {
            let found =
                turn.ask(|view| Ok(view.find(key)?.map(|position| (position, turn.is_over(view, position)))))?;
            match found {
                Some((_, true)) => turn.remove_over(&[&**key])?,
                Some((position, false)) if turn.view()?.keys.lifetimes.sessions.owner(position).is_some() => {
                    return Ok(None);
                }
                _ => {}
            }
            let taken = turn.begin_session(&Beginning { ttl, lock: Some((key, value)) })?;
            turn.sweep();
            Ok(Some(taken))
        })
    }
}
