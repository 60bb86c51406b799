//! [`Change`].

use super::KvPair;

/// A put or a delete: see [`Cask::changes`](crate::Cask::changes).
///
/// There are no other kinds, and later versions add none: whatever changes a key puts it or deletes it. So a program that handles
/// both has the whole state, and the compiler says so if it leaves one out.
///
/// ```
/// use caskfile::{Change, KvPair};
///
/// let put = Change::Put(KvPair { key: b"colour".to_vec(), value: b"blue".to_vec(), last_index: 7 });
/// assert_eq!((put.key(), put.value(), put.last_index()), (&b"colour"[..], Some(&b"blue"[..]), 7));
/// let delete = Change::Delete { key: b"colour".to_vec(), last_index: 8 };
/// assert_eq!(delete.value(), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now. In a [listing](crate::Unit::is_listing): it has this value. When the pair expires is not said here, but in
    /// the [`PairRef`](crate::PairRef) of [`ChangeRef::Put`](crate::ChangeRef::Put).
    Put(KvPair),
    /// The key is gone. It was there before, unless the delete was part of a batch that also put it.
    Delete {
        /// The key, without its bucket.
        key: Vec<u8>,
        /// The sequence number of the delete.
        last_index: u64,
    },
}

impl Change {
    /// Returns the key, without its bucket.
    ///
    /// ```
    /// assert_eq!(caskfile::Change::Delete { key: b"colour".to_vec(), last_index: 8 }.key(), b"colour");
    /// ```
    pub fn key(&self) -> &[u8] {
        match self {
            Change::Put(pair) => &pair.key,
            Change::Delete { key, .. } => key,
        }
    }

    /// Returns the value; `None` for a delete.
    ///
    /// ```
    /// assert_eq!(caskfile::Change::Delete { key: b"colour".to_vec(), last_index: 8 }.value(), None);
    /// ```
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Change::Put(pair) => Some(&pair.value),
            Change::Delete { .. } => None,
        }
    }

    /// Returns the sequence number of the change.
    ///
    /// ```
    /// assert_eq!(caskfile::Change::Delete { key: b"colour".to_vec(), last_index: 8 }.last_index(), 8);
    /// ```
    pub fn last_index(&self) -> u64 {
        match self {
            Change::Put(pair) => pair.last_index,
            Change::Delete { last_index, .. } => *last_index,
        }
    }
}
