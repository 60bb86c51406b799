//! Group commit: one turn, one write and one sync for everybody who is waiting.

use std::collections::HashMap;
use std::time::Duration;

use super::Engine;
pub(crate) use super::batch::Request;
use super::batch::{Action, MAX_BATCH_BYTES, MAX_BATCH_OPS};
use super::queue::{Entered, Patience};
use super::turn::Turn;
use super::writer::MAX_GROUP_RECORDS;
use crate::config::Durability;
use crate::format::{Flags, Kind};
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
pub(super) fn abandoned() -> Error {
    Error::other(std::io::Error::other("the thread that was writing for this one panicked; the outcome is unknown"))
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
        let deadline = self.deadline();
        let mut baton = match self.queue.enter(Some(request), &deadline, || Err(abandoned().into())) {
            Entered::Done(outcome) => return outcome,
            Entered::TimedOut => return Err(self.lock_timeout(&deadline).into()),
            Entered::Baton(baton) => baton,
        };
        if self.config.get_durability() == Durability::Sync {
            // Without a sync a turn is over before anybody could come.
            baton.gather(GATHER, &deadline);
        }
        // From here on this thread leads. If it cannot begin a turn, nobody else's work was touched.
        let outcomes = self.in_turn(&deadline, |turn| {
            let mut load = Load::default();
            let requests = baton.take_work(|request| load.takes(request));
            Ok(turn.commit(&requests))
        })?;
        let own = baton.settle(outcomes).unwrap_or_else(|| Err(abandoned().into()));
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

/// What a key is before a request of the group, as far as the group has changed it.
type Overlay<'r> = HashMap<&'r [u8], bool>;

/// What is to become of one request: the operations to be written, or the condition that failed.
type Verdict<'r> = std::result::Result<Vec<(&'r [u8], Action<&'r [u8]>)>, Failure>;

impl Turn<'_> {
    /// Decides each request in the order of the queue, writes what is to be written, and syncs as configured.
    pub(super) fn commit(&mut self, requests: &[Request]) -> Vec<Outcome> {
        let mut overlay = Overlay::new();
        let verdicts: Vec<Verdict<'_>> = requests.iter().map(|request| self.decide(request, &mut overlay)).collect();
        let mut outcomes = self.write(&verdicts);
        // Also if nothing was written: what these callers were told was read from the log, and a power cut must not
        // take that back.
        if outcomes.iter().any(|outcome| outcome.is_ok()) {
            if let Err(error) = self.settle() {
                outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| {
                    *outcome = Err(error.clone().into());
                });
            }
        }
        outcomes
    }

    fn decide<'r>(&self, request: &'r Request, overlay: &mut Overlay<'r>) -> Verdict<'r> {
        for (op, (key, action)) in request.ops().enumerate() {
            if let Err(cause) = self.check_condition(key, action, overlay)? {
                return Err(Failure::Condition { op, cause });
            }
        }
        let mut writes = Vec::with_capacity(request.len());
        for (key, action) in request.ops() {
            let present = match action {
                Action::Put(_) => true,
                Action::Delete if self.is_present(key, overlay)? => false,
                _ => continue,
            };
            overlay.insert(key, present);
            writes.push((key, action));
        }
        Ok(writes)
    }

    fn check_condition(
        &self,
        key: &[u8],
        action: Action<&[u8]>,
        overlay: &Overlay<'_>,
    ) -> Result<std::result::Result<(), Error>> {
        let expected = match action {
            Action::ExpectIndex(index) => Some(index),
            Action::ExpectAbsent => None,
            Action::Put(_) | Action::Delete => return Ok(Ok(())),
        };
        let present = self.is_present(key, overlay)?;
        Ok(match expected {
            None if present => Err(Error::KeyExists),
            None => Ok(()),
            Some(_) if !present => Err(Error::KeyNotFound),
            // What this group has just set has an index that nobody has seen yet.
            Some(_) if overlay.contains_key(key) => Err(Error::KeyModified),
            Some(index) if self.index_of(key)? != Some(index) => Err(Error::KeyModified),
            Some(_) => Ok(()),
        })
    }

    fn is_present(&self, key: &[u8], overlay: &Overlay<'_>) -> Result<bool> {
        match overlay.get(key) {
            Some(&present) => Ok(present),
            None => Ok(self.view()?.find(key)?.is_some()),
        }
    }

    fn index_of(&self, key: &[u8]) -> Result<Option<u64>> {
        let view = self.view()?;
        match view.find(key)? {
            Some(position) => Ok(Some(view.reader.header(position)?.index)),
            None => Ok(None),
        }
    }

    fn write(&mut self, verdicts: &[Verdict<'_>]) -> Vec<Outcome> {
        let count: usize = verdicts.iter().flatten().map(Vec::len).sum();
        let laid_out = if count == 0 { Ok(Vec::new()) } else { self.lay_out(verdicts, count as u64) };
        let error = match &laid_out {
            Ok(_) if count == 0 => None,
            Ok(_) => self.write_group().err(),
            Err(error) => Some(error.clone()),
        };
        let ends = laid_out.unwrap_or_default();
        // After a failed write, what reached the file as a whole stays, and counts.
        let log_end = self.view().map_or(0, |view| view.tail.end);
        let mut ends = ends.into_iter();
        verdicts
            .iter()
            .map(|verdict| {
                let writes = verdict.as_ref().map_err(Failure::clone)?;
                if writes.is_empty() {
                    return Ok(Written::default());
                }
                let end = ends.next();
                match (&error, end) {
                    (None, Some((_, last_index))) => Ok(written(writes, last_index)),
                    (Some(_), Some((end, last_index))) if end <= log_end => Ok(written(writes, last_index)),
                    (Some(error), _) => Err(error.clone().into()),
                    (None, None) => Err(abandoned().into()),
                }
            })
            .collect()
    }

    /// Fills the group. Returns where the records of each request that has any end in the log, and the index of the
    /// last.
    fn lay_out(&mut self, verdicts: &[Verdict<'_>], count: u64) -> Result<Vec<(u64, u64)>> {
        let first_index = self.reserve(count)?;
        let (mut flags, mut index) = self.begin_records(first_index)?;
        let mut ends = Vec::new();
        for writes in verdicts.iter().flatten().filter(|writes| !writes.is_empty()) {
            for (n, (key, action)) in writes.iter().enumerate() {
                let flags = Flags { more: n + 1 < writes.len(), ..std::mem::take(&mut flags) };
                let (kind, value) = match *action {
                    Action::Put(value) => (Kind::Put, value),
                    _ => (Kind::Delete, &b""[..]),
                };
                self.writer.group.push(flags, kind, index, key, value);
                index += 1;
            }
            ends.push((self.writer.group.end(), index - 1));
        }
        Ok(ends)
    }
}

impl Turn<'_> {
    /// Removes all keys of a bucket that start with a prefix, and returns how many there were.
    pub(super) fn delete_prefix(&mut self, bucket: &[u8], prefix: &[u8]) -> Result<u64> {
        let mut scan = self.engine.scan(bucket, prefix)?;
        let mut deleted = 0;
        loop {
            let mut request = Request::default();
            while !is_a_piece(request.len(), request.log_bytes) {
                let Some(key) = scan.next_full_key() else { break };
                request.push(key?, Action::Delete);
            }
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

/// Whether deletions are as many as are written at once.
fn is_a_piece(ops: usize, log_bytes: u64) -> bool {
    ops >= MAX_BATCH_OPS || log_bytes >= MAX_BATCH_BYTES / 2
}

fn written(writes: &[(&[u8], Action<&[u8]>)], last_index: u64) -> Written {
    let deleted = writes.iter().filter(|(_, action)| *action == Action::Delete).count() as u64;
    Written { last_index: Some(last_index), deleted }
}

/// A group is one write, and Linux writes less than 2 GiB at once.
const _: () = assert!(MAX_BATCH_BYTES + GROUP_BYTES < (1 << 31) - 4096);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::Config;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};

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
        let last_index = Some(view.reader.header(whole).unwrap().index);
        assert!(matches!(outcomes[..], [Ok(written), Err(_)] if written.last_index == last_index), "{outcomes:?}");
        assert!(view.find(b"\0torn").unwrap().is_none());
    }
}
