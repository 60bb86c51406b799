//! Group commit: one turn, one write and one sync for all requests that are waiting.
//!
//! [`Writing::commit`] queues a request. The leader runs [`Writing::commit_group`], which takes the waiting requests, has
//! [`Turn::commit`] plan, number, write, show and sync them, and hands out their outcomes.
//!
//! If the write fails, every request from the first lost one on is decided again, by the log alone; one that still has something
//! to write gets the error. If the sync fails, the handle is poisoned, and every successful outcome becomes that error.

use std::io;
use std::time::Duration;

use super::Writing;
use super::outcome::{Outcome, abandoned};
use super::plan::Plan;
use super::queue::{Entered, GatherTime, Leader};
use super::request::{Action, Request, no_memory};
use super::turn::Turn;
use super::writer::Phase;
use crate::config::Durability;
use crate::engine::deadline::Deadline;
use crate::format::{Expiry, Flags, Kind};
use crate::limits::{Limits, Shared};
use crate::memory::empty;
use crate::{Error, Result};

/// How long the leader of a group waits for others. `first` is less than half of the time of a sync on a fast disk. `each`
/// is the time in which one thread wakes and comes back; on a single core, they do so one after the other.
const GATHER: GatherTime = GatherTime { first: Duration::from_micros(40), each: Duration::from_micros(10) };

impl Writing {
    /// Commits a request together with those of other threads, and says whether this thread had a turn.
    pub(crate) fn commit(&self, request: Request<'_>) -> (Outcome, bool) {
        if let Err(error) = self.check_writable() {
            return (Err(error.into()), false);
        }
        let deadline = self.context.deadline();
        let had_turn = |outcome: Result<Outcome>| match outcome {
            Ok(outcome) => (outcome, true),
            Err(error) => (Err(error.into()), false),
        };
        if let Some(leader) = self.queue.try_lead(abandoned) {
            return had_turn(self.commit_group(leader, Some(request), &deadline));
        }
        // Another thread may write it.
        let request = match request.into_owned(&self.context.path) {
            Ok(request) => request,
            Err(error) => return (Err(error.into()), false),
        };
        match self.queue.enter(Some(request), &deadline, abandoned) {
            Entered::Done(outcome) => (outcome, false),
            Entered::TimedOut => (Err(self.queue_timeout(&deadline).into()), false),
            Entered::Leader(leader) => had_turn(self.commit_group(leader, None, &deadline)),
        }
    }

    /// Commits the leader's request and those of the waiters after it. Returns the leader's outcome, or the error if no turn
    /// can begin. The leader's request is `own`, or waits with the others.
    fn commit_group<'r>(
        &self,
        mut leader: Leader<'_, Request<'static>, Outcome>,
        own: Option<Request<'r>>,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        if self.context.config.get_durability() == Durability::Sync {
            // Without a sync, a turn is over before another thread could come.
            leader.gather(GATHER, deadline);
        }
        // If no turn can begin, no other thread's work was touched.
        let outcomes = self.in_turn(deadline, |turn| {
            let mut load = Load::new(turn.log.limits);
            let mut requests: Vec<Request<'r>> = own.into_iter().inspect(|own| _ = load.takes(own)).collect();
            requests.extend(leader.take_work(|request| load.takes(request)));
            if turn.must_rewrite(&requests) {
                if let Err(error) = turn.rewrite_ahead(deadline) {
                    return Ok(vec![Err(error.into()); requests.len()]);
                }
            }
            let outcomes = turn.commit(&requests);
            turn.may_linger = true;
            Ok(outcomes)
        })?;
        Ok(leader.settle(outcomes).unwrap_or_else(abandoned))
    }
}

#[cfg(any(test, feature = "testing"))]
impl Writing {
    /// Commits requests in groups, each as long as a leader would make it if they were all waiting.
    pub(crate) fn commit_together(&self, requests: &[Request<'_>]) -> Result<Vec<Outcome>> {
        self.solo(self.context.deadline(), |turn| {
            let (mut outcomes, mut rest) = (Vec::with_capacity(requests.len()), requests);
            while let Some((first, others)) = rest.split_first() {
                let mut load = Load::new(turn.log.limits);
                load.takes(first);
                let (group, later) = rest.split_at(1 + others.iter().take_while(|other| load.takes(other)).count());
                outcomes.extend(turn.commit(group));
                rest = later;
            }
            Ok(outcomes)
        })
    }
}

/// What a group has taken so far.
struct Load {
    records: u64,
    bytes: u64,
    limits: Shared,
}

impl Load {
    fn new(limits: Shared) -> Load {
        Load { records: 0, bytes: 0, limits }
    }

    /// Takes a request, if there is room for it: no caller waits for the bytes of too many others. (A single request may be
    /// larger.)
    fn takes(&mut self, request: &Request<'_>) -> bool {
        self.records += request.len() as u64;
        self.bytes += request.log_bytes;
        self.records <= self.limits.group_records() && self.bytes <= self.limits.group_bytes()
    }
}

impl Turn<'_> {
    /// Decides each request, writes what they write as one group, and syncs as configured.
    pub(crate) fn commit(&mut self, requests: &[Request<'_>]) -> Vec<Outcome> {
        // Begins to fetch what the plan needs of the index. A single operation needs it at once, so nothing would be gained.
        let is_single = matches!(requests, [request] if request.len() == 1);
        if let (false, Ok(view)) = (is_single, self.view()) {
            view.keys.prefetch_slots(requests.iter().flat_map(Request::ops).map(|(key, ..)| key));
        }
        let mut plan = Plan::of(self, requests);
        let over = self.over_for(plan.granted(requests));
        let removed = over.as_ref().map_err(Error::clone).and_then(|over| self.remove_over(over));
        if let (Ok(()), Ok([_, ..])) = (&removed, over.as_deref()) {
            // The keys that were over are absent now, which changes no decision.
            plan = Plan::of(self, requests);
        }
        if let (false, Ok(view)) = (is_single, self.view()) {
            view.keys.prefetch_replaced(plan.writes.iter().map(|&(key, _)| key), &view.reader);
        }
        match removed {
            Ok(()) if plan.writes.is_empty() => {
                if self.has_found_over() {
                    // A refusal rests on it too: a read would show the pair still, and the caller would try again for ever.
                    self.sweep();
                    let _ = self.settle_without_sync();
                }
            }
            Ok(()) => match self.lay_out(&mut plan).and_then(|()| self.write_group()) {
                Ok(()) => {
                    self.look_again_for(&mut plan, requests);
                    self.sweep();
                }
                Err(error) => plan.decide_again(self, requests, &error),
            },
            Err(error) => {
                plan.decide_again(self, requests, &error);
                plan.refuse_where_over(requests, &over.unwrap_or_default(), &error);
            }
        }
        self.end_group();
        let mut outcomes = plan.into_outcomes();
        // Also if nothing was written: such an outcome was read from the log, and a power cut must not take it back. A refusal
        // promises no more than a read does, so it stays if the sync fails: every reader sees the record that it rests on.
        if outcomes.iter().any(|outcome| outcome.is_ok()) {
            if let Err(error) = self.settle() {
                let wrote = |outcome: &Outcome| outcome.as_ref().is_ok_and(|written| written.last_index.is_some());
                let error = if outcomes.iter().any(wrote) { self.leave_in_doubt(error) } else { error };
                outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| {
                    *outcome = Err(error.clone().into());
                });
            }
        }
        outcomes
    }

    /// The second look at the clock, if the group has pairs of sessions: see [`Turn::look_again_at`].
    fn look_again_for(&mut self, plan: &mut Plan<'_>, requests: &[Request<'_>]) {
        for session in plan.sessions() {
            let deadline = self
                .view()
                .ok()
                .and_then(|view| view.keys.lifetimes.sessions.newest(session).map(|newest| newest.record.deadline));
            if let Err(error) = self.look_again_at(session, deadline.unwrap_or(0)) {
                plan.refuse_of_session(requests, session, &error);
            }
        }
    }

    /// Whether a handle that has not written yet must rewrite the unproven tail before these requests are decided: for a
    /// request that writes, and with `Durability::Sync` for one that succeeds. A refusal needs nothing.
    fn must_rewrite(&self, requests: &[Request<'_>]) -> bool {
        if self.writer.phase >= Phase::TailResynced {
            return false;
        }
        let plan = Plan::of(self, requests);
        let is_sync = self.writing.context.config.get_durability() == Durability::Sync;
        !plan.writes.is_empty()
            || is_sync && plan.granted(requests).next().is_some()
            || self.over_for(plan.granted(requests)).is_ok_and(|over| !over.is_empty())
            || self.has_found_over()
    }

    /// Fills the group, and notes where each request's records end in the log, and the sequence number of the last.
    fn lay_out(&mut self, plan: &mut Plan<'_>) -> Result<()> {
        let count = plan.writes.len() as u64;
        debug_assert!(count <= self.log.limits.group_records(), "a group of {count} records");
        let first_seq = self.reserve(count)?;
        let (mut flags, mut seq) = self.begin_records(first_seq);
        // The clock is looked at for the whole turn, and only if it is needed.
        let is_until = |(_, action): &(_, Action<_>)| matches!(action, Action::PutUntil(..));
        let now = if plan.writes.iter().any(is_until) { self.look().0 } else { Duration::ZERO };
        let group = &mut self.writer.group;
        let keys = plan.writes.iter().map(|(key, action)| key.len() + action.expiry_len()).sum();
        let room = group.make_room(plan.writes.iter().map(|(key, action)| action.log_bytes(key)).sum());
        let room = room.and_then(|()| group.run.make_room(plan.writes.len(), keys));
        room.map_err(|_| no_memory(&self.writing.context.path))?;
        let mut writes = plan.writes.iter();
        for verdict in plan.verdicts.iter_mut().filter(|verdict| verdict.writes > 0) {
            for (n, (key, action)) in writes.by_ref().take(verdict.writes).enumerate() {
                let flags = Flags { more: n + 1 < verdict.writes, ..std::mem::take(&mut flags) };
                match *action {
                    Action::Put(value) => group.push(flags, Kind::Put, seq, key, value),
                    Action::PutUntil(value, until) => {
                        group.push_expiring(flags, seq, key, Expiry::at(until.deadline(now)), value);
                    }
                    Action::PutOwned(value, holding) => {
                        let expiry = Expiry { deadline: 0, owner: Some(holding.owner()) };
                        group.push_expiring(flags, seq, key, expiry, value);
                    }
                    Action::Delete | Action::Keep => group.push(flags, Kind::Delete, seq, key, b""),
                }
                seq += 1;
            }
            verdict.end = Some(group.end());
            if let Ok(written) = &mut verdict.outcome {
                written.last_index = Some(seq - 1);
            }
        }
        Ok(())
    }

    /// Empties the group: a large value is not held until the next write, and no large batch.
    pub(super) fn end_group(&mut self) {
        self.writer.group.advance();
        empty(&mut self.writer.proven);
    }

    /// The error of writes that are in the file, where others see them, while their callers get an error. Any other error says
    /// that nothing was written, so this one poisons the handle.
    fn leave_in_doubt(&self, error: Error) -> Error {
        match error {
            Error::Poisoned { .. } => error,
            error => self.writing.syncs.poison(&self.log, "make durable what was written", io::Error::other(error)),
        }
    }
}

/// A group is one write, and Linux writes less than 2 GiB at once.
const _: () = assert!(Limits::REAL.batch_bytes() + Limits::REAL.group_bytes() < (1 << 31) - 4096);

#[cfg(all(test, not(any(loom, shuttle))))]
mod groups;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::engine::Engine;
    use crate::engine::write::outcome::{Failure, Written};
    use crate::engine::write::request::Condition;
    use crate::{Config, ReadMode};

    #[test]
    fn a_group_takes_requests_up_to_its_limits() {
        const REAL: Shared = &Limits::REAL;
        let mut two = Request::default();
        two.push(b"\0key", Action::Put(b"value"));
        two.push(b"\0key", Action::Delete);
        let mut by_records = Load { records: REAL.group_records - 4, ..Load::new(REAL) };
        assert_eq!([0; 3].map(|_| by_records.takes(&two)), [true, true, false]);
        let mut by_bytes = Load { bytes: REAL.group_bytes - 2 * two.log_bytes, ..Load::new(REAL) };
        assert_eq!([0; 3].map(|_| by_bytes.takes(&two)), [true, true, false]);
        // No caller waits for the bytes of too many others.
        let a_megabyte = vec![0; 1 << 20];
        let mut large = Request::default();
        large.push(b"\0key", Action::Put(&a_megabyte));
        let mut load = Load::new(REAL);
        assert_eq!((0..100).filter(|_| load.takes(&large)).count(), 7);
    }

    /// After the write, the sorted index reads keys that begin alike. If one cannot be read, the log is read again, and its
    /// end is written once more.
    #[test]
    fn a_write_that_cannot_be_made_durable_is_not_reported_as_unwritten() {
        const KEYS: [&[u8]; 2] = [b"\0a long beginning that both share, 1", b"\0a long beginning that both share, 2"];
        let mut in_doubt = 0;
        for (read, length) in (1..12).flat_map(|read| (1..5).map(move |length| (read, length))) {
            let disk = SimDisk::new();
            let config = Config::new().read_mode(ReadMode::Pread);
            let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
            let put = |key: &[u8]| {
                let mut request = Request::default();
                request.push(key, Action::Put(b"value"));
                engine.commit(request)
            };
            put(KEYS[0]).unwrap();
            drop(engine.reading.scan(b"\0", b"").unwrap());
            disk.fail(When::nth(read).of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
            disk.fail(When::nth(length).of(Verb::Len), Fault::Os(libc::EIO), Repeat::Once);
            let outcome = put(KEYS[1]);
            disk.clear_faults();
            let other = Engine::open(Arc::new(disk.process()), Path::new("/store"), &config).unwrap();
            let view = other.reading.current().unwrap();
            let in_file = view.find(KEYS[1]).unwrap().map(|position| view.reader.header(position).unwrap().seq);
            match outcome {
                Ok(written) => assert_eq!(written.last_index, in_file),
                Err(Failure::Error(Error::Poisoned { .. })) => in_doubt += u32::from(in_file.is_some()),
                Err(_) => assert_eq!(in_file, None, "read {read}, length {length}: {outcome:?}"),
            }
        }
        assert!(in_doubt > 0);
    }

    #[test]
    fn a_request_without_writes_succeeds_even_if_its_group_fails() {
        let disk = SimDisk::new();
        let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &Config::new()).unwrap();
        let request = |action| {
            let mut request = Request::default();
            request.push(b"\0absent", action);
            request
        };
        let mut put = Request::default();
        put.push(b"\0key", Action::Put(b"value"));
        engine.commit(put).unwrap();
        for full in [false, true] {
            let mut put = Request::default();
            put.push(b"\0key", Action::Put(b"value"));
            let mut refused = Request::default();
            refused.push_if(b"\0absent", Some(Condition::Seq(1)), Action::Delete);
            let requests = [request(Action::Delete), put, request(Action::Delete), refused];
            let outcomes = engine.writing.solo(engine.context.deadline(), |turn| {
                if full {
                    disk.fail(When::next().of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
                }
                Ok(turn.commit(&requests))
            });
            let outcomes = outcomes.unwrap();
            let nothing = Written::default();
            assert!(
                matches!(&outcomes[..], [Ok(a), _, Ok(b), Err(Failure::Condition { op: 0, .. })]
                if *a == nothing && *b == nothing),
                "{outcomes:?}"
            );
            assert_eq!(outcomes[1].is_err(), full, "{outcomes:?}");
        }
    }

    #[test]
    fn the_withdrawn_writes_of_a_failed_request_do_not_affect_the_next() {
        let disk = SimDisk::new();
        let config = Config::new().read_mode(ReadMode::Pread);
        let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
        let request = |operations: &[(&[u8], Action<&[u8]>)]| {
            let mut request = Request::default();
            operations.iter().for_each(|&(key, action)| request.push(key, action));
            request
        };
        engine.commit(request(&[(b"\0there", Action::Put(b"value"))])).unwrap();
        let mut next = Request::default();
        next.push_if(b"\0new", Some(Condition::Absent), Action::Put(b"the next one's"));
        let requests = [request(&[(b"\0new", Action::Put(b"value")), (b"\0there", Action::Delete)]), next];
        let outcomes = engine.writing.solo(engine.context.deadline(), |turn| {
            disk.fail(When::next().of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
            Ok(turn.commit(&requests))
        });
        assert!(matches!(outcomes.unwrap()[..], [Err(Failure::Error(Error::Io { .. })), Ok(_)]));
        let view = engine.reading.current().unwrap();
        assert!(view.find(b"\0new").unwrap().is_some() && view.find(b"\0there").unwrap().is_some());
    }

    #[test]
    fn whole_units_of_a_group_that_breaks_off_count() {
        let disk = SimDisk::new();
        let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &Config::new()).unwrap();
        let put = |key: &[u8]| {
            let mut request = Request::default();
            request.push(key, Action::Put(&[7; 1000]));
            request
        };
        engine.commit(put(b"\0before")).unwrap();
        disk.fail(When::next().of(Verb::WriteAt), Fault::Short(1500), Repeat::Once);
        disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        let requests = [put(b"\0whole"), put(b"\0torn")];
        let outcomes = engine.writing.solo(engine.context.deadline(), |turn| Ok(turn.commit(&requests))).unwrap();
        let view = engine.reading.current().unwrap();
        let whole = view.find(b"\0whole").unwrap().expect("it is in the file");
        let last_index = Some(view.reader.header(whole).unwrap().seq);
        assert!(matches!(&outcomes[..], [Ok(written), Err(_)] if written.last_index == last_index), "{outcomes:?}");
        assert!(view.find(b"\0torn").unwrap().is_none());
    }
}
