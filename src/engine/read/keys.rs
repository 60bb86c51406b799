//! [`Keys`]: the keys of a scan. And how many keys a bucket has.

use super::Reading;
use super::scan::{Scan, Side};
use crate::Result;

/// An iterator over keys of one moment, in byte order, from both ends: see [`Cask::keys`](crate::Cask::keys) and
/// [`Scan::into_keys`].
///
/// It owns a snapshot as a [`Scan`] does, and knows how many keys are left. With
/// [`Config::verify_on_read`](crate::Config::verify_on_read) it reads the values too, since one checksum covers both, but
/// keeps none of them. A damaged record is an error, and the iterator goes on after it.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-keys-of-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// for key in ["ant", "bee", "cat"] {
///     cask.put(key, "")?;
/// }
/// let mut keys = cask.keys("")?;
/// assert_eq!(keys.len(), 3);
/// assert_eq!(keys.next_back().unwrap()?, b"cat");
/// assert_eq!(keys.next().unwrap()?, b"ant");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug)]
pub struct Keys(Scan);

impl Scan {
    /// Returns an iterator over the keys of the pairs that are left.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-into-keys-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// for key in ["ant", "bee", "cat"] {
    ///     cask.put(key, "")?;
    /// }
    /// let keys = cask.range("b"..)?.into_keys().collect::<caskfile::Result<Vec<_>>>()?;
    /// assert_eq!(keys, [b"bee", b"cat"]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn into_keys(self) -> Keys {
        Keys(self)
    }
}

impl Iterator for Keys {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.next_position(Side::Front)?;
        Some(next.and_then(|position| self.0.key(position)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.0.next_position(Side::Back)?;
        Some(next.and_then(|position| self.0.key(position)))
    }
}

impl ExactSizeIterator for Keys {}

impl Reading {
    /// The number of keys in a bucket.
    pub(crate) fn count(&self, bucket: &[u8]) -> Result<u64> {
        let (view, now) = (self.current()?, || self.context.times());
        if let Some(keys) = view.keys.keys_in(&bucket[1..], now) {
            return Ok(keys);
        }
        // A snapshot does not say how many keys each bucket has. Two look-ups in the sorted index do, where there is one, or where
        // the snapshot has the order. To build it from the keys costs as much as to read the log, and each later write pays for it.
        if view.index().has_order() {
            drop(view);
            return Ok(self.scan(bucket, b"")?.len() as u64);
        }
        drop(view);
        Ok(self.scanned()?.keys.keys_in(&bucket[1..], now).unwrap_or_default())
    }
}
