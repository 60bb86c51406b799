//! A request: what one call wants to write, and under which conditions.

use std::path::Path;
use std::time::Duration;

use crate::format::{EXPIRY_LEN, Owner};
use crate::limits::Limits;
use crate::log::group::record_len;
use crate::memory::make_room;
use crate::{Error, Result};

/// The most operations that a batch can have.
pub const MAX_BATCH_OPS: usize = Limits::REAL.group_records() as usize;

/// The most bytes that a batch can take up in the log, 24 a record and padding included: room for one value of the
/// largest size, and a little more. A batch is one write, which Linux limits to 2 GiB.
pub const MAX_BATCH_BYTES: u64 = Limits::REAL.batch_bytes();

/// What one operation does with its key, with the value's bytes as a `V`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action<V> {
    Put(V),
    /// A put of a pair that is over some day.
    PutUntil(V, Until),
    /// A put of a pair that is over with a session. Refused if the session is over.
    PutOwned(V, Holding),
    Delete,
    /// Nothing: the operation is only a condition.
    Keep,
}

impl<V> Action<V> {
    pub(crate) fn put(value: V, until: Option<Until>) -> Action<V> {
        match until {
            None => Action::Put(value),
            Some(until) => Action::PutUntil(value, until),
        }
    }

    /// The same with another value.
    #[inline]
    pub(crate) fn map<W>(self, other: impl FnOnce(V) -> W) -> Action<W> {
        match self {
            Action::Put(value) => Action::Put(other(value)),
            Action::PutUntil(value, until) => Action::PutUntil(other(value), until),
            Action::PutOwned(value, holding) => Action::PutOwned(other(value), holding),
            Action::Delete => Action::Delete,
            Action::Keep => Action::Keep,
        }
    }

    /// The length of what a record has before the value.
    pub(crate) fn expiry_len(&self) -> usize {
        if let Action::PutUntil(..) | Action::PutOwned(..) = self { EXPIRY_LEN } else { 0 }
    }
}

impl Action<&[u8]> {
    pub(crate) fn value_len(&self) -> usize {
        match self {
            Action::Put(value) | Action::PutUntil(value, _) | Action::PutOwned(value, _) => value.len(),
            Action::Delete | Action::Keep => 0,
        }
    }

    /// How many bytes its record takes up in the log.
    pub(crate) fn log_bytes(&self, key: &[u8]) -> u64 {
        match self {
            Action::Keep => 0,
            _ => record_len(key.len(), self.expiry_len() + self.value_len()),
        }
    }
}

/// When a pair is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// This long after the write.
    After(Duration),
    /// At this time since 1970.
    At(Duration),
}

impl Until {
    /// The deadline of a pair that is written now, in milliseconds since 1970. Rounded up, so that a pair counts at least as long
    /// as was asked for, and never 0, which stands for none. What is beyond the largest number is that number.
    /// (Options with such a time make a plain put.)
    pub(crate) fn deadline(self, now: Duration) -> u64 {
        let at = match self {
            Until::After(ttl) => now.saturating_add(ttl),
            Until::At(at) => at,
        };
        at.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX).max(1)
    }
}

/// What the holder of a session says of a pair that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) session: u64,
    /// The session's random number: sessions of two stores can have the same number.
    pub(crate) nonce: u64,
    /// The lock's token; 0 if the pair is no lock.
    pub(crate) acquired: u64,
}

impl Holding {
    pub(crate) fn owner(self) -> Owner {
        Owner { session: self.session, acquired: self.acquired }
    }
}

/// What one operation expects of its key before the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The key's record has this sequence number.
    Seq(u64),
    Absent,
    /// The pair is this lock, and its session lives.
    Held(Holding),
}

/// The error of a value or a batch that memory cannot hold. Nothing was written.
#[cold]
pub(crate) fn no_memory(path: &Path) -> Error {
    Error::io("get memory for a value", path, std::io::ErrorKind::OutOfMemory.into())
}

/// Operations on full keys that are committed together. If another thread may write it, it [owns](Request::into_owned) its bytes.
#[derive(Debug, Default)]
pub(crate) struct Request<'v> {
    /// Key and value of the only operation, which its caller keeps.
    lent: Option<(&'v [u8], &'v [u8])>,
    /// The first operation, which most requests have alone: it needs no memory of its own.
    first: Option<Op>,
    others: Vec<Op>,
    bytes: Vec<u8>,
    /// The most bytes that its records can take up in the log.
    pub(crate) log_bytes: u64,
}

#[derive(Debug)]
struct Op {
    key_end: usize,
    /// Ends where the next operation's key starts.
    value_end: usize,
    condition: Option<Condition>,
    action: Action<()>,
}

impl<'v> Request<'v> {
    /// Makes a request of one operation, which copies nothing.
    pub(crate) fn of(full_key: &'v [u8], condition: Option<Condition>, action: Action<&'v [u8]>) -> Request<'v> {
        let (log_bytes, mut value) = (action.log_bytes(full_key), &b""[..]);
        let action = action.map(|bytes| value = bytes);
        let first = Some(Op { key_end: 0, value_end: 0, condition, action });
        Request { lent: Some((full_key, value)), first, log_bytes, ..Request::default() }
    }

    /// The same request with bytes of its own.
    ///
    /// # Errors
    ///
    /// As [`Request::with_capacity`].
    pub(crate) fn into_owned(self, path: &Path) -> Result<Request<'static>> {
        let Request { lent, first, others, bytes, log_bytes } = self;
        let (Some((key, value)), Some(first)) = (lent, &first) else {
            return Ok(Request { lent: None, first, others, bytes, log_bytes });
        };
        let mut owned = Request::with_capacity(1, key.len() + value.len(), path)?;
        owned.push_if(key, first.condition, first.action.map(|()| value));
        Ok(owned)
    }

    /// Makes a request with room for `ops` operations and `bytes` bytes of keys and values. The store is at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with [`OutOfMemory`](std::io::ErrorKind::OutOfMemory).
    #[inline]
    pub(crate) fn with_capacity(ops: usize, bytes: usize, path: &Path) -> Result<Request<'v>> {
        let mut request = Request::default();
        let ops = request.others.try_reserve_exact(ops.saturating_sub(1));
        let room = ops.and_then(|()| request.bytes.try_reserve_exact(bytes));
        room.map_err(|_| no_memory(path)).map(|()| request)
    }

    /// Makes room for more operations, and for more bytes of keys and values. Amortised, so that it can be called for each
    /// operation.
    ///
    /// # Errors
    ///
    /// As [`Request::with_capacity`].
    pub(crate) fn make_room(&mut self, ops: usize, bytes: usize, path: &Path) -> Result<()> {
        let room = make_room(&mut self.others, ops).and_then(|()| make_room(&mut self.bytes, bytes));
        room.map_err(|_| no_memory(path))
    }

    /// Adds an operation without a condition.
    pub(crate) fn push(&mut self, full_key: &[u8], action: Action<&[u8]>) {
        self.push_if(full_key, None, action);
    }

    /// Adds an operation. If its condition does not hold, nothing of the request is written.
    pub(crate) fn push_if(&mut self, full_key: &[u8], condition: Option<Condition>, action: Action<&[u8]>) {
        debug_assert!(self.lent.is_none(), "a request that lends its bytes has one operation");
        self.bytes.extend_from_slice(full_key);
        let key_end = self.bytes.len();
        self.log_bytes += action.log_bytes(full_key);
        let action = action.map(|value| self.bytes.extend_from_slice(value));
        let op = Op { key_end, value_end: self.bytes.len(), condition, action };
        if self.first.is_none() { self.first = Some(op) } else { self.others.push(op) }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// The operations, each with its full key.
    pub(crate) fn ops(&self) -> impl Iterator<Item = (&[u8], Option<Condition>, Action<&[u8]>)> {
        let mut start = 0;
        self.first.iter().chain(&self.others).map(move |op| {
            let of_bytes = || (&self.bytes[start..op.key_end], &self.bytes[op.key_end..op.value_end]);
            let (key, value) = self.lent.unwrap_or_else(of_bytes);
            start = op.value_end;
            (key, op.condition, op.action.map(|()| value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_the_same_with_bytes_of_its_own() {
        let holding = Holding { session: 1, nonce: 2, acquired: 3 };
        let (key, value) = (&b"\0key"[..], &b"value"[..]);
        for action in [Action::Put(value), Action::PutOwned(value, holding), Action::Delete, Action::Keep] {
            for condition in [None, Some(Condition::Seq(7)), Some(Condition::Held(holding))] {
                let [lent, other] = [0; 2].map(|_| Request::of(key, condition, action));
                let owned = other.into_owned(Path::new("/store")).unwrap();
                for request in [&lent, &owned] {
                    assert_eq!(request.ops().collect::<Vec<_>>(), [(key, condition, action)]);
                    assert_eq!((request.len(), request.log_bytes), (1, action.log_bytes(key)));
                }
                assert!(lent.bytes.is_empty() && owned.lent.is_none());
            }
        }
    }

    #[test]
    fn a_deadline_is_rounded_up_and_never_none() {
        let now = Duration::new(1000, 999_999_999);
        for (until, deadline) in [
            (Until::After(Duration::from_nanos(1)), 1_001_000),
            (Until::After(Duration::from_nanos(2)), 1_001_001),
            (Until::After(Duration::from_millis(5)), 1_001_005),
            (Until::After(Duration::MAX), u64::MAX),
            (Until::At(Duration::ZERO), 1),
            (Until::At(Duration::from_nanos(7_000_001)), 8),
            (Until::At(Duration::MAX), u64::MAX),
        ] {
            assert_eq!(until.deadline(now), deadline, "{until:?}");
        }
    }
}
