//! [`Applied`]: what a batch has written.

use std::fmt;

use super::batch::Batch;
use super::write::outcome::Written;

/// What a batch has written: the result of [`Cask::write`](crate::Cask::write).
///
/// The records of a batch have consecutive sequence numbers, in the order of its operations. Operations that are
/// only a condition, and deletions of absent keys, write no record.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-applied-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// use caskfile::Batch;
///
/// let applied = cask.write(Batch::new().put("a", "1").delete("absent").put("b", "2"))?;
/// assert_eq!(applied.last_index_of(0), Some(cask.get("a")?.last_index));
/// assert_eq!(applied.last_index_of(1), None);
/// assert_eq!(applied.last_index(), Some(cask.get("b")?.last_index));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Applied {
    last_index: Option<u64>,
    deleted: u64,
    ops: usize,
    /// The operations that wrote no record, in ascending order.
    unwritten: Vec<u32>,
}

impl Applied {
    /// The result of a batch that was written.
    pub(crate) fn new(batch: &Batch, written: Written) -> Applied {
        let Written { last_index, deleted, absent: mut unwritten } = written;
        let conditions = batch.steps.iter().enumerate().filter(|(_, step)| step.is_only_a_condition());
        let before = unwritten.len();
        // A batch has at most `MAX_BATCH_OPS` operations.
        unwritten.extend(conditions.map(|(op, _)| op as u32));
        if before > 0 {
            unwritten.sort_unstable();
        }
        Applied { last_index, deleted, ops: batch.len(), unwritten }
    }

    /// Returns the `last_index` of the batch's last record, or `None` if there was nothing to write: conditions only, or
    /// deletions of absent keys.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-applied-last-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// assert_eq!(cask.write(Batch::new().delete("absent"))?.last_index(), None);
    /// assert!(cask.write(Batch::new().put("key", "value"))?.last_index().is_some());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn last_index(&self) -> Option<u64> {
        self.last_index
    }

    /// Returns the index that operation `op` was given, counted from 0 in the order in which the operations were added: one for
    /// each call. For a put this is the pair's `last_index`, unless a later operation of the batch changed the key again.
    ///
    /// Returns `None` for an operation that is only a condition, for a deletion of an absent key, and if the batch has no such
    /// operation.
    ///
    /// Cost: a binary search in the operations that wrote nothing.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-applied-index-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// let applied = cask.write(Batch::new().expect_absent("lock").put_new("leader", "node-1"))?;
    /// assert_eq!((applied.last_index_of(0), applied.last_index_of(1)), (None, Some(cask.get("leader")?.last_index)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn last_index_of(&self, op: usize) -> Option<u64> {
        if op >= self.ops {
            return None;
        }
        let before = self.unwritten.binary_search_by(|&unwritten| (unwritten as usize).cmp(&op)).err()?;
        let records = (self.ops - self.unwritten.len()) as u64;
        let nth = (op - before) as u64;
        self.last_index.map(|last| last + 1 + nth - records)
    }

    /// Returns how many operations have removed a key.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-applied-deleted-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::Batch;
    ///
    /// cask.put("old", "1")?;
    /// assert_eq!(cask.write(Batch::new().delete("old").delete("absent"))?.deleted(), 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn deleted(&self) -> u64 {
        self.deleted
    }
}

/// Leaves out the single operations, of which there may be a million.
impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied")
            .field("last_index", &self.last_index)
            .field("deleted", &self.deleted)
            .finish_non_exhaustive()
    }
}
