//! What a watch delivers: the changes of one write, or the listing that it begins with.

use std::io;
use std::time::SystemTime;

use super::{Listing, Next, Watch};
use crate::engine::PairRef;
use crate::engine::read::feed::FoundUnit;
use crate::engine::read::scan::{expires_at, session_of};
use crate::format::{Kind, RecordHeader, split_full_key};
use crate::log::tail::Cursor;
use crate::memory::{copied, empty, make_room};
use crate::store::{Change, KvPair};
use crate::{Error, Result};

/// A [`Change`] that [`Unit::next_ref`] lends. It has the same two kinds.
///
/// ```
/// use caskfile::ChangeRef;
///
/// let delete = ChangeRef::Delete { key: b"colour", last_index: 8 };
/// assert_eq!(delete.to_change().key(), delete.key());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRef<'a> {
    /// The key has this value now.
    Put(PairRef<'a>),
    /// The key is gone.
    Delete {
        /// The key, without its bucket.
        key: &'a [u8],
        /// The sequence number of the delete.
        last_index: u64,
    },
}

/// The changes of one write: a put, a delete, or those of a batch. Or the [listing](Unit::is_listing) that a watch begins with.
///
/// A batch becomes visible as a whole, so apply a unit as a whole, and only once [`Unit::next_ref`] has returned `None`. A unit that
/// is dropped earlier without an error counts as passed.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-unit-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::{Batch, WatchFrom};
///
/// let mut watch = cask.changes("", WatchFrom::Now)?;
/// cask.write(Batch::new().put("from", "90").put("to", "110"))?;
/// let mut unit = watch.try_next()?.unwrap();
/// let mut keys = Vec::new();
/// while let Some(change) = unit.next_ref() {
///     keys.push(change?.key().to_vec());
/// }
/// assert_eq!(keys, [b"from".to_vec(), b"to".to_vec()]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct Unit<'w> {
    pub(super) watch: &'w mut Watch,
    contents: Contents,
    position: u64,
    /// The pair of a listing that was lent last.
    pair: Copied,
}

enum Contents {
    Listing(Listing),
    /// `at` is the last change that was lent, with its header, or the start of the unit.
    Changes {
        found: FoundUnit,
        at: Cursor,
        header: Option<RecordHeader>,
    },
    /// The caller has got an error.
    Failed,
}

/// A pair of a listing.
#[derive(Default)]
struct Copied {
    bucket: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    last_index: u64,
    expires_at: Option<SystemTime>,
    session: u64,
}

impl Copied {
    fn set(&mut self, bucket: &[u8], pair: PairRef<'_>) -> io::Result<()> {
        for (copy, bytes) in [(&mut self.bucket, bucket), (&mut self.key, pair.key), (&mut self.value, pair.value)] {
            empty(copy);
            make_room(copy, bytes.len())?;
            copy.extend_from_slice(bytes);
        }
        (self.last_index, self.expires_at, self.session) = (pair.last_index, pair.expires_at, pair.session);
        Ok(())
    }

    fn lent(&self) -> PairRef<'_> {
        let &Copied { ref key, ref value, last_index, expires_at, session, .. } = self;
        PairRef { key, value, last_index, expires_at, session }
    }
}

impl<'a> ChangeRef<'a> {
    /// Returns the key, without its bucket.
    ///
    /// ```
    /// assert_eq!(caskfile::ChangeRef::Delete { key: b"colour", last_index: 8 }.key(), b"colour");
    /// ```
    pub fn key(&self) -> &'a [u8] {
        match self {
            ChangeRef::Put(pair) => pair.key,
            ChangeRef::Delete { key, .. } => key,
        }
    }

    /// Returns the value; `None` for a delete.
    ///
    /// ```
    /// assert_eq!(caskfile::ChangeRef::Delete { key: b"colour", last_index: 8 }.value(), None);
    /// ```
    pub fn value(&self) -> Option<&'a [u8]> {
        match self {
            ChangeRef::Put(pair) => Some(pair.value),
            ChangeRef::Delete { .. } => None,
        }
    }

    /// Returns the sequence number of the change.
    ///
    /// ```
    /// assert_eq!(caskfile::ChangeRef::Delete { key: b"colour", last_index: 8 }.last_index(), 8);
    /// ```
    pub fn last_index(&self) -> u64 {
        match self {
            ChangeRef::Put(pair) => pair.last_index,
            ChangeRef::Delete { last_index, .. } => *last_index,
        }
    }

    /// Returns an owned copy.
    ///
    /// ```
    /// use caskfile::{Change, ChangeRef};
    ///
    /// let change = ChangeRef::Delete { key: b"colour", last_index: 8 }.to_change();
    /// assert_eq!(change, Change::Delete { key: b"colour".to_vec(), last_index: 8 });
    /// ```
    pub fn to_change(&self) -> Change {
        match self {
            ChangeRef::Put(pair) => Change::Put(pair.to_pair()),
            ChangeRef::Delete { key, last_index } => Change::Delete { key: key.to_vec(), last_index: *last_index },
        }
    }
}

impl std::fmt::Debug for Unit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit").field("position", &self.position).finish_non_exhaustive()
    }
}

impl<'w> Unit<'w> {
    /// The unit that a watch has found.
    pub(super) fn of(watch: &'w mut Watch) -> Option<Unit<'w>> {
        let (contents, position) = match watch.next.take()? {
            Next::Listing(listing) => (Contents::Listing(listing), watch.feed.position()),
            Next::Changes(found) => {
                let (at, position) = (found.unit.start, found.unit.last_event.unwrap_or_default());
                (Contents::Changes { found, at, header: None }, position)
            }
        };
        Some(Unit { watch, contents, position, pair: Copied::default() })
    }

    /// Returns whether this is the listing that [`WatchFrom::Snapshot`](crate::WatchFrom::Snapshot) begins with: all pairs of one
    /// moment, each as a put, in key order. A watch of all buckets lists in the order of `last_index`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-is-listing-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Snapshot)?;
    /// assert!(watch.try_next()?.unwrap().is_listing());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn is_listing(&self) -> bool {
        matches!(self.contents, Contents::Listing(_))
    }

    /// Returns the position after this unit: keep it together with what was learned from the unit. A later watch goes on there
    /// with [`WatchFrom::After`](crate::WatchFrom::After).
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-unit-position-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// let last_index = cask.put("key", "value")?;
    /// assert_eq!(watch.try_next()?.unwrap().position(), last_index);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next change, lent until the next call; `None` at the end. Its memory is that of the largest value.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a record no longer verifies, [`Error::Undone`] if the log was cut meanwhile, and those of every read.
    /// The unit ends then, and must not be applied. The watch delivers it once more, or returns the error.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-unit-next-ref-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Now)?;
    /// cask.put("key", "value")?;
    /// let mut unit = watch.try_next()?.unwrap();
    /// assert_eq!(unit.next_ref().unwrap()?.value(), Some(&b"value"[..]));
    /// assert!(unit.next_ref().is_none());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Option<Result<ChangeRef<'_>>> {
        self.next_with_bucket().map(|next| next.map(|(_, change)| change))
    }

    /// Returns the name of the bucket and the next change, lent until the next call; `None` at the end. For a watch of
    /// [all buckets](crate::WatchOptions::all_buckets).
    ///
    /// # Errors
    ///
    /// Those of [`Unit::next_ref`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-next-with-bucket-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{WatchFrom, WatchOptions};
    ///
    /// let mut watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().all_buckets(true))?;
    /// cask.bucket("log")?.put("0001", "started")?;
    /// let mut unit = watch.try_next()?.unwrap();
    /// let (bucket, change) = unit.next_with_bucket().unwrap()?;
    /// assert_eq!((bucket, change.key()), (&b"log"[..], &b"0001"[..]));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn next_with_bucket(&mut self) -> Option<Result<(&[u8], ChangeRef<'_>)>> {
        match self.find_next() {
            Ok(true) => Some(self.lend()),
            Ok(false) => None,
            Err(error) => Some(Err(self.fail(error))),
        }
    }

    /// Reads and verifies the next change. `false` at the end.
    fn find_next(&mut self) -> Result<bool> {
        let Unit { watch, contents, pair, .. } = self;
        let filter = &watch.filter;
        match contents {
            Contents::Failed => Ok(false),
            Contents::Listing(listing) => {
                let next = match listing {
                    Listing::Bucket(scan) => scan.next_ref().map(|next| next.map(|pair| (&b""[..], pair))),
                    Listing::All(scan) => scan.next_with_prefix(&watch.prefix),
                };
                let Some(next) = next else { return Ok(false) };
                let (bucket, next) = next?;
                let path = &watch.cask.engine.context.path;
                pair.set(bucket, next).map_err(|e| Error::io("get memory for a value", path, e))?;
                Ok(true)
            }
            Contents::Changes { found, at, header } => {
                let end = found.unit.end.offset;
                let from = header.map_or(*at, |last| at.after(&last));
                let mut units = watch.feed.units(&found.log);
                let Some(next) = units.find(&from, end, |full_key| filter.admits(full_key))? else { return Ok(false) };
                let verified = units.verified(&next, end)?;
                let unit = &found.unit;
                if Some(verified.seq) < unit.first_event || Some(verified.seq) > unit.last_event {
                    // The log was cut since, and another write stands here.
                    return Err(undone(found));
                }
                (*at, *header) = (next, Some(verified));
                Ok(true)
            }
        }
    }

    /// Lends what was found.
    fn lend(&mut self) -> Result<(&[u8], ChangeRef<'_>)> {
        let Unit { watch, contents, pair, .. } = self;
        let own_bucket = &watch.cask.bucket[1..];
        let Contents::Changes { found, at, header: Some(header) } = contents else {
            let bucket = if watch.options.all_buckets { &pair.bucket } else { own_bucket };
            return Ok((bucket, ChangeRef::Put(pair.lent())));
        };
        let record = watch.feed.units(&found.log).into_record(at, *header)?;
        // A key without a bucket is in no log.
        let (bucket, key) = split_full_key(record.full_key).unwrap_or_default();
        let last_index = record.header.seq;
        Ok(match record.header.kind {
            Kind::Delete => (bucket, ChangeRef::Delete { key, last_index }),
            _ => {
                let (expires_at, session) = (expires_at(record.expiry), session_of(record.expiry));
                (bucket, ChangeRef::Put(PairRef { key, value: record.value, last_index, expires_at, session }))
            }
        })
    }

    /// Goes back to before this unit, and says why it cannot be read.
    fn fail(&mut self, error: Error) -> Error {
        match std::mem::replace(&mut self.contents, Contents::Failed) {
            Contents::Failed => error,
            Contents::Listing(_) => {
                self.watch.lists_again = true;
                error
            }
            Contents::Changes { found, .. } => {
                let Watch { cask, feed, .. } = &mut *self.watch;
                feed.back_to(found.before);
                // What was cut reads as damaged.
                if feed.is_cut(&cask.engine.reading, &found.log) { undone(&found) } else { error }
            }
        }
    }

    /// Returns all changes, without the names of their buckets, and without the deadlines of their pairs: [`Unit::next_ref`] has those.
    ///
    /// # Errors
    ///
    /// Those of [`Unit::next_ref`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-into-changes-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("ant", "")?;
    /// cask.put("bee", "")?;
    /// let mut watch = cask.changes("", caskfile::WatchFrom::Snapshot)?;
    /// assert_eq!(watch.try_next()?.unwrap().into_changes()?.len(), 2);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn into_changes(mut self) -> Result<Vec<Change>> {
        let path = self.watch.cask.engine.context.path.clone();
        let mut changes = Vec::new();
        while let Some(change) = self.next_ref() {
            changes.push(match change? {
                ChangeRef::Put(PairRef { key, value, last_index, .. }) => {
                    let value = copied(value).map_err(|e| Error::io("get memory for a value", &path, e))?;
                    Change::Put(KvPair { key: key.to_vec(), value, last_index })
                }
                delete @ ChangeRef::Delete { .. } => delete.to_change(),
            });
        }
        Ok(changes)
    }
}

/// The error for a unit that was cut off after it was found.
fn undone(found: &FoundUnit) -> Error {
    let (path, last) = (found.log.path.to_path_buf(), found.before.position());
    Error::Undone { path, position: found.unit.last_event.unwrap_or(last), last }
}
