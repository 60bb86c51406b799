//! [`Batch`]: several changes that happen together or not at all.

use std::ops::Range;
use std::path::Path;

use super::write::request::{Action, Condition, Request, no_memory};
pub use super::write::request::{MAX_BATCH_BYTES, MAX_BATCH_OPS};
use crate::engine::session::CaskClaim;
use crate::format::{FullKey, prefix_of_bucket, split_full_key};
use crate::limits::Shared;
use crate::memory::make_room;
use crate::store::{Held, PutOptions};
use crate::{Error, Result};

/// A list of changes, in one or several buckets, that are applied together or not at all, under conditions.
///
/// Operations are applied in the order in which they were added; of two on one key the later one counts. Conditions are
/// about the store before the batch, wherever they are in the list. A key or a value over a limit is an error of
/// [`Cask::write`](crate::Cask::write), with the number of the operation, so that operations can be chained. Each call that
/// adds something adds one operation; they are counted from 0.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-batch-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let cask = caskfile::Cask::open(dir.join("store"))?;
/// use caskfile::{Batch, Error};
///
/// let mut batch = Batch::new();
/// batch.expect_absent("leader").put("leader", "node-1");
/// batch.bucket("log").put("0001", "node-1 leads");
/// cask.write(&batch)?;
///
/// // The same once more is refused as a whole.
/// assert!(matches!(cask.write(&batch), Err(Error::BatchConflict { op: 0, .. })));
/// assert_eq!(cask.bucket("log")?.get("0001")?.value, b"node-1 leads");
/// # cask.close()?;
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Pairs of keys and values make a batch of puts:
///
/// ```
/// use caskfile::Batch;
///
/// let batch = Batch::from([("a", "1"), ("b", "2")]);
/// let squares: Batch = (1..=9).map(|n| (format!("square/{n}"), (n * n).to_string())).collect();
/// assert_eq!((batch.len(), squares.len()), (2, 9));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) steps: Vec<Step>,
    /// Keys and values of all steps, one after the other.
    bytes: Vec<u8>,
    /// There was no memory for an operation.
    out_of_memory: bool,
    /// The bucket of the next steps; `None` for that of the handle that writes the batch.
    bucket: Option<Vec<u8>>,
    /// The first operation over a limit, and the error. (Keys are checked later, when their bucket is known.)
    mistake: Option<(usize, Error)>,
}

// A list that is only extended. An error that it holds could be a trait object, so the compiler cannot see this.
impl std::panic::UnwindSafe for Batch {}
impl std::panic::RefUnwindSafe for Batch {}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The bucket's prefix; `None` for the bucket of the handle that writes the batch.
    bucket: Option<Range<usize>>,
    key: Range<usize>,
    condition: Option<Condition>,
    action: Action<Range<usize>>,
}

impl Step {
    pub(crate) fn is_only_a_condition(&self) -> bool {
        matches!(self.action, Action::Keep)
    }
}

impl Batch {
    /// Returns an empty batch. Its operations go to the bucket of the handle that writes it, until [`Batch::bucket`] sets
    /// another one.
    ///
    /// ```
    /// assert!(caskfile::Batch::new().is_empty());
    /// ```
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets the bucket of the operations that follow. The empty name is the default bucket. A name that is too long is an
    /// error of the next operation.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-bucket-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let mut batch = Batch::new();
    /// batch.put("leader", "node-1").bucket("log").put("0001", "node-1 leads");
    /// cask.write(&batch)?;
    /// assert!(cask.bucket("log")?.exists("0001")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn bucket(&mut self, name: impl AsRef<[u8]>) -> &mut Batch {
        match prefix_of_bucket(name.as_ref()) {
            Ok(prefix) => self.bucket = Some(prefix),
            Err(mistake) => self.mistaken(mistake.into()),
        }
        self
    }

    /// Sets the bucket of the operations that follow back to that of the handle that writes the batch.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-handle-bucket-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let jobs = cask.bucket("jobs")?;
    /// let mut batch = Batch::new();
    /// batch.bucket("log").put("0001", "started").handle_bucket().put("job", "1");
    /// jobs.write(&batch)?;
    /// assert!(jobs.exists("job")? && cask.bucket("log")?.exists("0001")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn handle_bucket(&mut self) -> &mut Batch {
        self.bucket = None;
        self
    }

    /// Adds an operation that sets the value of a key as [`Cask::put_with`](crate::Cask::put_with) does, with options. It has no
    /// condition of its own: add one with [`Batch::expect_absent`] or [`Batch::expect_last_index`].
    ///
    /// A batch over keys that are over is as any other: conditions and deletes treat these keys as absent, and it may have as
    /// many operations. Their deletes come before it, as writes of their own.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-put-with-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use std::time::Duration;
    ///
    /// use caskfile::{Batch, PutOptions};
    ///
    /// let for_an_hour = PutOptions::new().ttl(Duration::from_secs(3600));
    /// cask.write(Batch::new().put("user/7", "anna").put_with("token/e6c1", "7", &for_an_hour))?;
    /// assert!(cask.expires_at("token/e6c1")?.is_some() && cask.expires_at("user/7")?.is_none());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put_with(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, options: &PutOptions) -> &mut Batch {
        self.put_as(key.as_ref(), value.as_ref(), None, options)
    }

    /// Adds an operation that sets the value of a key.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-put-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// cask.write(Batch::new().put("a", "1").put("b", "2"))?;
    /// assert_eq!(cask.get("b")?.value, b"2");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        self.put_under(key.as_ref(), value.as_ref(), None)
    }

    /// Adds an operation that removes a key. It has no effect if the key is absent.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-delete-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// cask.put("old", "1")?;
    /// cask.write(Batch::new().delete("old").put("new", "1"))?;
    /// assert!(!cask.exists("old")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Batch {
        self.step(key.as_ref(), None, Action::Delete)
    }

    /// Adds a condition: the batch is applied only if the key has this `last_index`.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-expect-last-index-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// cask.put("config", "1")?;
    /// let last_index = cask.get("config")?.last_index;
    /// let mut batch = Batch::new();
    /// batch.expect_last_index("config", last_index).put("config", "2");
    /// cask.write(&batch)?;
    /// // The key has another `last_index` now.
    /// assert!(cask.write(&batch).is_err());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn expect_last_index(&mut self, key: impl AsRef<[u8]>, last_index: u64) -> &mut Batch {
        self.step(key.as_ref(), Some(Condition::Seq(last_index)), Action::Keep)
    }

    /// Adds a condition: the batch is applied only if the key is absent.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-expect-absent-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// cask.write(Batch::new().expect_absent("leader").put("leader", "node-1"))?;
    /// assert!(cask.write(Batch::new().expect_absent("leader").put("leader", "node-2")).is_err());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn expect_absent(&mut self, key: impl AsRef<[u8]>) -> &mut Batch {
        self.step(key.as_ref(), Some(Condition::Absent), Action::Keep)
    }

    /// Adds a condition: the batch is applied only if this lock is held by the holder that `held` is of, when the batch is written. A
    /// holder that was stopped and has lost the lock cannot write after it, however late its call comes. The lock may be in any bucket of
    /// the store.
    ///
    /// If it is lost, the cause of the [`BatchConflict`](Error::BatchConflict) is [`NotHeld`](Error::NotHeld). A lock of another
    /// backend is a mistake: its cause is the same, of a [`BatchInvalid`](Error::BatchInvalid).
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-expect-held-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{Batch, Error};
    ///
    /// let lock = cask.lock("leader", &Default::default())?;
    /// let held = lock.lock(None)?;
    /// cask.write(Batch::new().expect_held(&held).put("config", "1"))?;
    /// cask.delete("leader")?; // an operator takes the lock away
    /// let refused = cask.write(Batch::new().expect_held(&held).put("config", "2"));
    /// assert!(matches!(refused, Err(Error::BatchConflict { op: 0, .. })));
    /// # drop(lock);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn expect_held(&mut self, held: &Held) -> &mut Batch {
        // The key of the lock is in a bucket of its own.
        let claim = held.claim::<CaskClaim>();
        let split = claim.and_then(|claim| Some((claim, split_full_key(&claim.key)?)));
        let Some((claim, Ok(prefix), key)) = split.map(|(claim, (bucket, key))| (claim, prefix_of_bucket(bucket), key))
        else {
            self.mistaken(Error::NotHeld);
            return self;
        };
        let own = self.bucket.replace(prefix);
        self.step(key, Some(Condition::Held(claim.holding())), Action::Keep);
        self.bucket = own;
        self
    }

    /// Adds an operation that sets the value of a key, with the condition that the key is absent. This is
    /// [`Cask::put_new`](crate::Cask::put_new) in a batch.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-put-new-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{Batch, Error};
    ///
    /// let applied = cask.write(Batch::new().put_new("leader", "node-1"))?;
    /// assert_eq!(applied.last_index_of(0), Some(cask.get("leader")?.last_index));
    /// assert!(matches!(cask.write(Batch::new().put_new("leader", "node-2")), Err(Error::BatchConflict { op: 0, .. })));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put_new(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        self.put_under(key.as_ref(), value.as_ref(), Some(Condition::Absent))
    }

    /// Adds an operation that sets the value of a key, with the condition that the key has this `last_index`. This is
    /// [`Cask::put_if`](crate::Cask::put_if) in a batch. The new pair has no deadline, also if the old one had one.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-put-if-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let first = cask.put("config", "1")?;
    /// cask.write(Batch::new().put_if("config", "2", first).put("log/1", "changed"))?;
    /// assert!(cask.write(Batch::new().put_if("config", "3", first)).is_err());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn put_if(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, last_index: u64) -> &mut Batch {
        self.put_under(key.as_ref(), value.as_ref(), Some(Condition::Seq(last_index)))
    }

    /// Adds an operation that removes a key, with the condition that the key has this `last_index`. This is
    /// [`Cask::delete_if`](crate::Cask::delete_if) in a batch.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-batch-delete-if-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let index = cask.put("jobs/1", "work")?;
    /// cask.write(Batch::new().delete_if("jobs/1", index).put("done/1", "work"))?;
    /// assert!(!cask.exists("jobs/1")?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn delete_if(&mut self, key: impl AsRef<[u8]>, last_index: u64) -> &mut Batch {
        self.step(key.as_ref(), Some(Condition::Seq(last_index)), Action::Delete)
    }

    /// Returns the batch, and leaves an empty one in its place. With it, a chain of calls can be bound in one `let`.
    ///
    /// ```
    /// use caskfile::Batch;
    ///
    /// let batch = Batch::new().put_new("leader", "node-1").delete("candidate").take();
    /// assert_eq!(batch.len(), 2);
    /// ```
    #[must_use = "the operations are in the batch that is returned"]
    pub fn take(&mut self) -> Batch {
        std::mem::take(self)
    }

    /// Returns how many operations the batch has: one for each call that has added a change, a condition or both.
    ///
    /// ```
    /// let mut batch = caskfile::Batch::new();
    /// batch.expect_absent("lock").put("key", "value").put_new("other", "value");
    /// assert_eq!(batch.len(), 3);
    /// ```
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether the batch has no operation.
    ///
    /// ```
    /// let mut batch = caskfile::Batch::new();
    /// assert!(batch.is_empty() && !batch.delete("key").is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn put_under(&mut self, key: &[u8], value: &[u8], condition: Option<Condition>) -> &mut Batch {
        self.put_as(key, value, condition, &PutOptions::new())
    }

    fn put_as(&mut self, key: &[u8], value: &[u8], condition: Option<Condition>, options: &PutOptions) -> &mut Batch {
        let until = match options.until(value.len()) {
            Ok(until) => until,
            Err(mistake) => {
                self.mistaken(mistake);
                return self;
            }
        };
        // Room for all at once, so that the buffer does not grow, and copy a large value, for a short key.
        let bytes = value.len() + key.len() + self.bucket.as_ref().map_or(0, Vec::len);
        self.out_of_memory |= make_room(&mut self.bytes, bytes).is_err();
        let value = self.keep(value);
        self.step(key, condition, Action::put(value, until))
    }

    fn step(&mut self, key: &[u8], condition: Option<Condition>, action: Action<Range<usize>>) -> &mut Batch {
        let bucket = self.bucket.take().map(|prefix| {
            let range = self.keep(&prefix);
            self.bucket = Some(prefix);
            range
        });
        let key = self.keep(key);
        match make_room(&mut self.steps, 1) {
            Ok(()) => self.steps.push(Step { bucket, key, condition, action }),
            Err(_) => self.out_of_memory = true,
        }
        self
    }

    /// Keeps bytes; without memory for them, [`Batch::to_request`] returns the error.
    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        match make_room(&mut self.bytes, bytes.len()) {
            Ok(()) => self.bytes.extend_from_slice(bytes),
            Err(_) => self.out_of_memory = true,
        }
        start..self.bytes.len()
    }

    /// Keeps the first error over a limit.
    fn mistaken(&mut self, mistake: Error) {
        self.mistake.get_or_insert((self.steps.len(), mistake));
    }

    /// Checks the operations and returns them with full keys. `default_bucket` is that of the handle, `path` that of the
    /// store.
    pub(crate) fn to_request(&self, default_bucket: &[u8], path: &Path, limits: Shared) -> Result<Request<'static>> {
        if self.out_of_memory {
            return Err(no_memory(path));
        }
        let (len, max) = (self.len() as u64, limits.group_records());
        if len > max {
            return Err(Error::BatchTooLarge { what: "operations", len, max });
        }
        let named = self.steps.iter().filter(|step| step.bucket.is_some()).count();
        let buckets = (self.len() - named) * default_bucket.len();
        let mut request = Request::with_capacity(self.len(), buckets + self.bytes.len(), path)?;
        let invalid = |op, cause| Error::BatchInvalid { op, cause: Box::new(cause) };
        let before_mistake = self.mistake.as_ref().map_or(self.len(), |(op, _)| *op);
        for (op, Step { bucket, key, condition, action }) in self.steps[..before_mistake].iter().enumerate() {
            let bucket = bucket.as_ref().map_or(default_bucket, |range| &self.bytes[range.clone()]);
            let key = FullKey::new(bucket, &self.bytes[key.clone()]).map_err(|fault| invalid(op, fault.into()))?;
            let action = action.clone().map(|value| &self.bytes[value]);
            request.push_if(&key, *condition, action);
        }
        if let Some((op, cause)) = &self.mistake {
            return Err(invalid(*op, cause.clone()));
        }
        let (len, max) = (request.log_bytes, limits.batch_bytes());
        if len > max {
            return Err(Error::BatchTooLarge { what: "bytes", len, max });
        }
        Ok(request)
    }
}

/// Adds a [put](Batch::put) for each pair of a key and a value.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(K, V)> for Batch {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        pairs.into_iter().for_each(|(key, value)| {
            self.put(key, value);
        });
    }
}

/// A batch that [puts](Batch::put) each pair of a key and a value.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(K, V)> for Batch {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Batch {
        let mut batch = Batch::new();
        batch.extend(pairs);
        batch
    }
}

/// A batch that [puts](Batch::put) each pair of a key and a value.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>, const N: usize> From<[(K, V); N]> for Batch {
    fn from(pairs: [(K, V); N]) -> Batch {
        pairs.into_iter().collect()
    }
}
