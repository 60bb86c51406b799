//! [`Batch`]: several changes that happen together or not at all.

use std::ops::Range;
use std::path::Path;

use super::write::request::{Action, Request, no_memory};
pub use super::write::request::{MAX_BATCH_BYTES, MAX_BATCH_OPS};
use crate::format::{FullKey, MAX_VALUE_LEN, prefix_of_bucket};
use crate::memory::make_room;
use crate::{Error, Result};

/// A list of changes, over one or several buckets, that are applied together or not at all, with conditions under
/// which they are.
///
/// Operations are applied in the order in which they were added; of two on one key the later one counts. Conditions
/// speak of the store as it is before the batch, wherever in the list they stand. Mistakes in a batch (a key or a
/// value over the limit) are reported by [`Cask::write`](crate::Cask::write), with the number of the operation, so that
/// building one is a chain.
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
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) steps: Vec<Step>,
    /// Keys and values of all steps, one after the other.
    bytes: Vec<u8>,
    /// Something could not be kept.
    out_of_memory: bool,
    /// The bucket of the steps to come; `None` for the bucket of the handle that the batch is given to.
    bucket: Option<Vec<u8>>,
    /// The first operation that cannot be one of the steps, and why not. (Keys are looked at later, when their bucket is known.)
    mistake: Option<(usize, Error)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The bucket's prefix; `None` for the bucket of the handle that the batch is given to.
    bucket: Option<Range<usize>>,
    key: Range<usize>,
    action: Action<Range<usize>>,
}

impl Batch {
    /// An empty batch, whose operations go to the bucket of the handle that it will be given to.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// The operations that follow go to this bucket. The empty name is the bucket of stores that use no buckets. A name that
    /// is too long is a mistake of the operation that comes next.
    pub fn bucket(&mut self, name: impl AsRef<[u8]>) -> &mut Batch {
        match prefix_of_bucket(name.as_ref()) {
            Ok(prefix) => self.bucket = Some(prefix),
            Err(mistake) => self.mistaken(mistake.into()),
        }
        self
    }

    /// Sets a key's value.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        let value = value.as_ref();
        if value.len() > MAX_VALUE_LEN {
            self.mistaken(Error::ValueTooLong { len: value.len(), max: MAX_VALUE_LEN });
            return self;
        }
        let key = key.as_ref();
        // At once: a buffer with no room left for a short key would grow, and copy a large value.
        let bytes = value.len() + key.len() + self.bucket.as_ref().map_or(0, Vec::len);
        self.out_of_memory |= make_room(&mut self.bytes, bytes).is_err();
        let value = self.keep(value);
        self.step(key, Action::Put(value))
    }

    /// Removes a key; nothing happens if it is not there.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Batch {
        self.step(key.as_ref(), Action::Delete)
    }

    /// The batch is applied only if the key is there with this `last_index`.
    pub fn expect_index(&mut self, key: impl AsRef<[u8]>, last_index: u64) -> &mut Batch {
        self.step(key.as_ref(), Action::ExpectSeq(last_index))
    }

    /// The batch is applied only if the key is not there.
    pub fn expect_absent(&mut self, key: impl AsRef<[u8]>) -> &mut Batch {
        self.step(key.as_ref(), Action::ExpectAbsent)
    }

    /// How many operations it has, conditions included.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has no operation.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn step(&mut self, key: &[u8], action: Action<Range<usize>>) -> &mut Batch {
        let bucket = self.bucket.take().map(|prefix| {
            let range = self.keep(&prefix);
            self.bucket = Some(prefix);
            range
        });
        let key = self.keep(key);
        match make_room(&mut self.steps, 1) {
            Ok(()) => self.steps.push(Step { bucket, key, action }),
            Err(_) => self.out_of_memory = true,
        }
        self
    }

    /// Keeps nothing if there is no memory for it, which is reported as a mistake is.
    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        match make_room(&mut self.bytes, bytes.len()) {
            Ok(()) => self.bytes.extend_from_slice(bytes),
            Err(_) => self.out_of_memory = true,
        }
        start..self.bytes.len()
    }

    /// The first mistake is the one that is reported.
    fn mistaken(&mut self, mistake: Error) {
        self.mistake.get_or_insert((self.steps.len(), mistake));
    }

    /// The operations with full keys, checked, as the commit takes them. `default_bucket` is the handle's.
    /// The store is at `path`.
    pub(crate) fn to_request(&self, default_bucket: &[u8], path: &Path) -> Result<Request> {
        if self.out_of_memory {
            return Err(no_memory(path));
        }
        if self.len() > MAX_BATCH_OPS {
            let (len, max) = (self.len() as u64, MAX_BATCH_OPS as u64);
            return Err(Error::BatchTooLarge { what: "operations", len, max });
        }
        let named = self.steps.iter().filter(|step| step.bucket.is_some()).count();
        let buckets = (self.len() - named) * default_bucket.len();
        let mut request = Request::with_capacity(self.len(), buckets + self.bytes.len(), path)?;
        let invalid = |op, cause| Error::BatchInvalid { op, cause: Box::new(cause) };
        let before_mistake = self.mistake.as_ref().map_or(self.len(), |(op, _)| *op);
        for (op, Step { bucket, key, action }) in self.steps[..before_mistake].iter().enumerate() {
            let bucket = bucket.as_ref().map_or(default_bucket, |range| &self.bytes[range.clone()]);
            let key = FullKey::new(bucket, &self.bytes[key.clone()]).map_err(|fault| invalid(op, fault.into()))?;
            request.push(
                &key,
                match action {
                    Action::Put(value) => Action::Put(&self.bytes[value.clone()]),
                    Action::Delete => Action::Delete,
                    Action::ExpectSeq(seq) => Action::ExpectSeq(*seq),
                    Action::ExpectAbsent => Action::ExpectAbsent,
                },
            );
        }
        if let Some((op, cause)) = &self.mistake {
            return Err(invalid(*op, cause.clone()));
        }
        if request.log_bytes > MAX_BATCH_BYTES {
            let (len, max) = (request.log_bytes, MAX_BATCH_BYTES);
            return Err(Error::BatchTooLarge { what: "bytes", len, max });
        }
        Ok(request)
    }
}
