//! Group commit: one turn, one write and one sync for everybody who is waiting.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::config::Durability;
use crate::engine::Engine;
pub(crate) use crate::engine::batch::Request;
use crate::engine::batch::{Action, MAX_BATCH_BYTES, MAX_BATCH_OPS, no_memory};
use crate::engine::write::numbering::MAX_GROUP_RECORDS;
use crate::engine::write::queue::{Entered, Patience};
use crate::engine::write::turn::Turn;
use crate::format::{Flags, Kind};
use crate::log::group::record_len;
use crate::memory::make_room;
use crate::{Error, Result};

/// A group takes no further request once it has this many bytes, so that no caller waits for the bytes of too many
/// others. (A single request may be larger.)
const GROUP_BYTES: u64 = 8 << 20;

/// How long the leader of a group waits for others to write with it: less than half of what a sync takes on a fast disk,
/// and for each of them what it takes to be woken and to come back, one after the other on a single core.
const GATHER: Patience = Patience { first: Duration::from_micros(40), each: Duration::from_micros(10) };

/// What became of a request.
pub(crate) type Outcome = std::result::Result<Written, Failure>;

/// The outcome of work whose leader did not live to do it.
pub(crate) fn abandoned() -> Error {
    Error::internal("the thread that was writing for this one panicked; the outcome is unknown")
}

/// A request that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// The index of its last record; `None` if there was nothing to write.
    pub(crate) last_index: Option<u64>,
    /// How many keys it removed.
    pub(crate) deleted: u64,
}

/// A request that was not committed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// A condition does not hold: which operation's, and how.
    Condition {
        op: usize,
        cause: Error,
    },
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    /// The error of a call that knows which condition it made.
    pub(crate) fn error(self) -> Error {
        match self {
            Failure::Condition { cause, .. } => cause,
            Failure::Error(error) => error,
        }
    }

    /// The error of a batch.
    pub(crate) fn batch_error(self) -> Error {
        match self {
            Failure::Condition { op, cause } => Error::BatchConflict { op, cause: Box::new(cause) },
            Failure::Error(error) => error,
        }
    }
}

impl Engine {
    /// Commits a request, together with those of other threads if there are any.
    pub(crate) fn commit(&self, request: Request) -> Outcome {
        self.check_writable()?;
        let log_bytes = request.log_bytes;
        let outcome = self.commit_in_group(request);
        self.throttle(&outcome, log_bytes);
        outcome
    }

    fn commit_in_group(&self, request: Request) -> Outcome {
        let deadline = self.deadline();
        let mut leader = match self.queue.enter(Some(request), &deadline, || Err(abandoned().into())) {
            Entered::Done(outcome) => return outcome,
            Entered::TimedOut => return Err(self.lock_timeout(&deadline).into()),
            Entered::Leader(leader) => leader,
        };
        if self.config.get_durability() == Durability::Sync {
            // Without a sync a turn is over before anybody could come.
            leader.gather(GATHER, &deadline);
        }
        // From here on this thread leads. If it cannot begin a turn, nobody else's work was touched.
        let outcomes = self.in_turn(&deadline, |turn| {
            let mut load = Load::default();
            let requests = leader.take_work(|request| load.takes(request));
            if turn.must_rewrite(&requests) {
                if let Err(error) = turn.rewrite_ahead(&deadline) {
                    return Ok(vec![Err(error.into()); requests.len()]);
                }
            }
            Ok(turn.commit(&requests))
        })?;
        let own = leader.settle(outcomes).unwrap_or_else(|| Err(abandoned().into()));
        self.compact_if_due();
        own
    }
}

/// What a group has taken so far.
#[derive(Default)]
struct Load {
    records: u64,
    bytes: u64,
}

impl Load {
    /// Takes a request, if there is room for it.
    fn takes(&mut self, request: &Request) -> bool {
        self.records += request.len() as u64;
        self.bytes += request.log_bytes;
        self.records <= MAX_GROUP_RECORDS && self.bytes <= GROUP_BYTES
    }
}

/// What is to become of the requests of a group.
#[derive(Default)]
struct Plan<'r> {
    /// The operations to be written, request by request.
    writes: Vec<(&'r [u8], Action<&'r [u8]>)>,
    verdicts: Vec<Verdict>,
    /// Which keys the first of `writes` put and which they delete: of as many as there were when somebody last asked.
    changed: HashMap<&'r [u8], bool, RandomState>,
    known: usize,
}

struct Verdict {
    outcome: Outcome,
    /// How many of the plan's writes are this request's.
    writes: usize,
    /// Where the last of them ends in the log, once they are laid out.
    end: Option<u64>,
}

impl<'r> Plan<'r> {
    /// Whether the group has put the key or deleted it, if it has done either.
    fn change(&mut self, key: &[u8]) -> io::Result<Option<bool>> {
        let new = self.writes.iter().skip(self.known);
        self.changed.try_reserve(new.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.changed.extend(new.map(|&(key, action)| (key, action != Action::Delete)));
        self.known = self.writes.len();
        Ok(self.changed.get(key).copied())
    }

    /// Forgets the last writes: nothing of their request is to be written.
    fn withdraw(&mut self, first: usize) {
        self.writes.truncate(first);
        if self.known > first {
            self.changed.clear();
            self.known = 0;
        }
    }

    fn into_outcomes(self) -> Vec<Outcome> {
        self.verdicts.into_iter().map(|verdict| verdict.outcome).collect()
    }
}

impl Turn<'_> {
    /// Whether a handle that has not written yet is to write again what no proof covers, before these requests are decided:
    /// a request that writes needs that, and with `Durability::Sync` one that succeeds. A refusal needs nothing.
    fn must_rewrite(&self, requests: &[Request]) -> bool {
        if self.writer.vouched {
            return false;
        }
        let plan = self.plan(requests);
        let is_sync = self.engine.config.get_durability() == Durability::Sync;
        !plan.writes.is_empty() || is_sync && plan.verdicts.iter().any(|verdict| verdict.outcome.is_ok())
    }

    /// Decides each request in the order of the queue.
    fn plan<'r>(&self, requests: &'r [Request]) -> Plan<'r> {
        let mut plan = Plan { verdicts: Vec::with_capacity(requests.len()), ..Plan::default() };
        for request in requests {
            let first = plan.writes.len();
            let outcome = self.decide(request, &mut plan);
            if outcome.is_err() {
                plan.withdraw(first);
            }
            plan.verdicts.push(Verdict { outcome, writes: plan.writes.len() - first, end: None });
        }
        plan
    }

    /// Decides each request, writes what is to be written, and syncs as configured.
    pub(crate) fn commit(&mut self, requests: &[Request]) -> Vec<Outcome> {
        if let Ok(view) = self.view() {
            view.prefetch_slots(requests.iter().flat_map(Request::ops).map(|(key, _)| key));
        }
        let mut plan = self.plan(requests);
        if let Ok(view) = self.view() {
            // They arrive while the records are laid out.
            view.prefetch_replaced(plan.writes.iter().map(|&(key, _)| key));
        }
        self.write(requests, &mut plan);
        // A large value is not held until the next write.
        self.writer.group.go_on();
        let mut outcomes = plan.into_outcomes();
        // Also if nothing was written: such an outcome was read from the log, and a power cut must not take it back.
        // A refusal promises no more than a read does. It stays, as the record that it rests on does: every reader
        // sees that one, whatever becomes of the sync.
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

    /// The error of writes that are in the file, where others see them, and that nobody may be notified of: any error but this
    /// one says that nothing was written.
    fn leave_in_doubt(&self, error: Error) -> Error {
        match error {
            Error::Poisoned { .. } => error,
            error => self.engine.syncs.poison(&self.log, "make durable what was written", io::Error::other(error)),
        }
    }

    /// Adds to the plan what a request writes, if its conditions hold.
    fn decide<'r>(&self, request: &'r Request, plan: &mut Plan<'r>) -> Outcome {
        for (op, (key, action)) in request.ops().enumerate() {
            if let Err(cause) = self.check_condition(key, action, plan)? {
                return Err(Failure::Condition { op, cause });
            }
        }
        let mut deleted = 0;
        make_room(&mut plan.writes, request.len()).map_err(|_| no_memory(&self.engine.path))?;
        for (key, action) in request.ops() {
            match action {
                Action::Put(_) => {}
                Action::Delete if self.seq_of(key, plan)?.is_some() => deleted += 1,
                _ => continue,
            }
            plan.writes.push((key, action));
        }
        Ok(Written { last_index: None, deleted })
    }

    fn check_condition(
        &self,
        key: &[u8],
        action: Action<&[u8]>,
        plan: &mut Plan<'_>,
    ) -> Result<std::result::Result<(), Error>> {
        let expected = match action {
            Action::ExpectSeq(index) => Some(index),
            Action::ExpectAbsent => None,
            Action::Put(_) | Action::Delete => return Ok(Ok(())),
        };
        Ok(match (expected, self.seq_of(key, plan)?) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Error::KeyExists),
            (Some(_), None) => Err(Error::KeyNotFound),
            (expected, Some(index)) if index == expected => Ok(()),
            (Some(_), Some(_)) => Err(Error::KeyModified),
        })
    }

    /// The index of a key that is there; `Some(None)` if it is this group's own, which nobody has seen yet.
    fn seq_of(&self, key: &[u8], plan: &mut Plan<'_>) -> Result<Option<Option<u64>>> {
        if let Some(present) = plan.change(key).map_err(|_| no_memory(&self.engine.path))? {
            return Ok(present.then_some(None));
        }
        let view = self.view()?;
        match view.find(key)? {
            Some(position) => Ok(Some(Some(view.reader.header(position)?.seq))),
            None => Ok(None),
        }
    }

    /// Writes what the plan says. If that fails, the outcomes follow what is in the log.
    fn write(&mut self, requests: &[Request], plan: &mut Plan<'_>) {
        if plan.writes.is_empty() {
            return;
        }
        let Err(error) = self.lay_out(plan).and_then(|()| self.write_group()) else { return };
        // What reached the file as a whole stays, and counts. Everything after it may have been decided by a change that
        // is lost.
        let log_end = self.view().map_or(0, |view| view.tail.end);
        let is_lost = |verdict: &Verdict| verdict.writes > 0 && verdict.end.is_none_or(|end| end > log_end);
        let kept = plan.verdicts.iter().position(is_lost).unwrap_or(requests.len());
        for (request, verdict) in requests.iter().zip(&mut plan.verdicts).skip(kept) {
            verdict.outcome = self.decide_again(request, &error);
        }
    }

    /// Decides a request by the log alone, after a group write has failed: a request that has something to write gets the
    /// error, and so does every request if it is not known what the log holds.
    fn decide_again(&self, request: &Request, error: &Error) -> Outcome {
        self.engine.syncs.check_poison()?;
        let mut plan = Plan::default();
        let outcome = self.decide(request, &mut plan)?;
        if plan.writes.is_empty() { Ok(outcome) } else { Err(error.clone().into()) }
    }

    /// Fills the group, and notes where each request's records end in the log, and the index of the last.
    fn lay_out(&mut self, plan: &mut Plan<'_>) -> Result<()> {
        let first_seq = self.reserve(plan.writes.len() as u64)?;
        let (mut flags, mut index) = self.begin_records(first_seq)?;
        let room = self.writer.group.make_room(plan.writes.iter().map(|(key, action)| log_bytes(key, action)).sum());
        let keys = plan.writes.iter().map(|(key, _)| key.len()).sum();
        let room = room.and_then(|()| self.writer.group.run.make_room(plan.writes.len(), keys));
        room.map_err(|_| no_memory(&self.engine.path))?;
        let mut writes = plan.writes.iter();
        for verdict in plan.verdicts.iter_mut().filter(|verdict| verdict.writes > 0) {
            for (n, (key, action)) in writes.by_ref().take(verdict.writes).enumerate() {
                let flags = Flags { more: n + 1 < verdict.writes, ..std::mem::take(&mut flags) };
                let (kind, value) = match *action {
                    Action::Put(value) => (Kind::Put, value),
                    _ => (Kind::Delete, &b""[..]),
                };
                self.writer.group.push(flags, kind, index, key, value);
                index += 1;
            }
            verdict.end = Some(self.writer.group.end());
            if let Ok(written) = &mut verdict.outcome {
                written.last_index = Some(index - 1);
            }
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Removes all keys of a bucket that start with a prefix, and returns how many there were.
    pub(crate) fn delete_prefix(&mut self, bucket: &[u8], prefix: &[u8]) -> Result<u64> {
        self.rewrite_ahead(&self.engine.deadline())?;
        let mut scan = self.engine.scan(bucket, prefix)?;
        let (mut deleted, mut key) = (0, Vec::new());
        loop {
            let mut request = Request::default();
            let view = self.view()?;
            while !is_a_piece(request.len(), request.log_bytes) {
                let Some(position) = scan.next_position() else { break };
                key.clear();
                // Another key would be removed if this one were damaged.
                view.index.key_at(position, &view.reader, &mut key)?;
                request.make_room(1, key.len(), &self.engine.path)?;
                request.push(&key, Action::Delete);
            }
            drop(view);
            let last = scan.is_empty();
            // Also if there is nothing to remove: see `commit`.
            for outcome in self.commit(std::slice::from_ref(&request)) {
                deleted += outcome.map_err(Failure::error)?.deleted;
            }
            if last {
                return Ok(deleted);
            }
        }
    }
}

/// How many bytes the record of a put or a delete takes up in the log.
fn log_bytes(key: &[u8], action: &Action<&[u8]>) -> u64 {
    record_len(key.len(), if let Action::Put(value) = action { value.len() } else { 0 })
}

/// Whether deletions are as many as are written at once.
fn is_a_piece(ops: usize, log_bytes: u64) -> bool {
    ops >= MAX_BATCH_OPS || log_bytes >= MAX_BATCH_BYTES / 2
}

/// A group is one write, and Linux writes less than 2 GiB at once.
const _: () = assert!(MAX_BATCH_BYTES + GROUP_BYTES < (1 << 31) - 4096);

#[cfg(all(test, not(any(loom, shuttle))))]
mod groups;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::{Config, ReadMode};

    #[test]
    fn a_group_takes_requests_up_to_its_limits_and_none_beyond_them() {
        let mut two = Request::default();
        two.push(b"\0key", Action::Put(b"value"));
        two.push(b"\0key", Action::Delete);
        let mut by_records = Load { records: MAX_GROUP_RECORDS - 4, bytes: 0 };
        assert_eq!([0; 3].map(|_| by_records.takes(&two)), [true, true, false]);
        let mut by_bytes = Load { records: 0, bytes: GROUP_BYTES - 2 * two.log_bytes };
        assert_eq!([0; 3].map(|_| by_bytes.takes(&two)), [true, true, false]);
        // A caller waits for the bytes of others, but not for all that there may be.
        let a_megabyte = vec![0; 1 << 20];
        let mut large = Request::default();
        large.push(b"\0key", Action::Put(&a_megabyte));
        let mut load = Load::default();
        assert_eq!((0..100).filter(|_| load.takes(&large)).count(), 7);
    }

    #[test]
    fn keys_are_removed_in_pieces_of_which_each_could_be_a_batch() {
        let largest = MAX_BATCH_BYTES / 2;
        assert!(!is_a_piece(MAX_BATCH_OPS - 1, largest - 1));
        assert!(is_a_piece(MAX_BATCH_OPS, 0) && is_a_piece(1, largest));
    }

    /// If the record that is replaced cannot be read, the log is read anew, and what is in it is written once more.
    #[test]
    fn who_has_written_and_cannot_make_it_durable_is_not_told_that_nothing_was_written() {
        let mut in_doubt = 0;
        for (read, length) in (1..9).flat_map(|read| (1..5).map(move |length| (read, length))) {
            let disk = SimDisk::new();
            let config = Config::new().read_mode(ReadMode::Pread);
            let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
            let put = || {
                let mut request = Request::default();
                request.push(b"\0key", Action::Put(b"value"));
                request
            };
            let index = engine.commit(put()).unwrap().last_index.unwrap();
            disk.fail(When::nth(read).of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
            disk.fail(When::nth(length).of(Verb::Len), Fault::Os(libc::EIO), Repeat::Once);
            let outcome = engine.commit(put());
            disk.clear_faults();
            let other = Engine::open(Arc::new(disk.process()), Path::new("/store"), &config).unwrap();
            let view = other.current().unwrap();
            let seq_in_file = view.reader.header(view.find(b"\0key").unwrap().unwrap()).unwrap().seq;
            match outcome {
                Ok(written) => assert_eq!(written.last_index, Some(seq_in_file)),
                Err(Failure::Error(Error::Poisoned { .. })) => in_doubt += u32::from(seq_in_file > index),
                Err(_) => assert_eq!(seq_in_file, index, "read {read}, length {length}: {outcome:?}"),
            }
        }
        assert!(in_doubt > 0);
    }

    #[test]
    fn who_writes_nothing_is_told_so_whatever_becomes_of_the_others_of_the_group() {
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
            let requests = [request(Action::Delete), put, request(Action::Delete), request(Action::ExpectSeq(1))];
            let outcomes = engine.solo(engine.deadline(), |turn| {
                if full {
                    disk.fail(When::next().of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
                }
                Ok(turn.commit(&requests))
            });
            let outcomes = outcomes.unwrap();
            let nothing = Written { last_index: None, deleted: 0 };
            assert!(
                matches!(outcomes[..], [Ok(a), _, Ok(b), Err(Failure::Condition { op: 0, .. })]
                if a == nothing && b == nothing),
                "{outcomes:?}"
            );
            assert_eq!(outcomes[1].is_err(), full, "{outcomes:?}");
        }
    }

    #[test]
    fn what_a_request_wanted_to_write_before_it_failed_is_nothing_to_the_next_one() {
        let disk = SimDisk::new();
        let config = Config::new().read_mode(ReadMode::Pread);
        let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
        let request = |operations: &[(&[u8], Action<&[u8]>)]| {
            let mut request = Request::default();
            operations.iter().for_each(|&(key, action)| request.push(key, action));
            request
        };
        engine.commit(request(&[(b"\0there", Action::Put(b"value"))])).unwrap();
        let requests = [
            request(&[(b"\0new", Action::Put(b"value")), (b"\0there", Action::Delete)]),
            request(&[(b"\0new", Action::ExpectAbsent), (b"\0new", Action::Put(b"the next one's"))]),
        ];
        let outcomes = engine.solo(engine.deadline(), |turn| {
            disk.fail(When::next().of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
            Ok(turn.commit(&requests))
        });
        assert!(matches!(outcomes.unwrap()[..], [Err(Failure::Error(Error::Io { .. })), Ok(_)]));
        let view = engine.current().unwrap();
        assert!(view.find(b"\0new").unwrap().is_some() && view.find(b"\0there").unwrap().is_some());
    }

    #[test]
    fn of_a_group_that_breaks_off_in_the_middle_what_is_whole_in_the_file_counts() {
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
        let outcomes = engine.solo(engine.deadline(), |turn| Ok(turn.commit(&requests))).unwrap();
        let view = engine.current().unwrap();
        let whole = view.find(b"\0whole").unwrap().expect("it is in the file");
        let last_index = Some(view.reader.header(whole).unwrap().seq);
        assert!(matches!(outcomes[..], [Ok(written), Err(_)] if written.last_index == last_index), "{outcomes:?}");
        assert!(view.find(b"\0torn").unwrap().is_none());
    }
}
