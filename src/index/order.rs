//! The order of a snapshot: the sorted index of a log up to some offset, and what came after.
//!
//! A handle that was opened through a snapshot has it until its first listing, which then reads the directory, takes in what
//! came after, and loads the leaves that it needs. Puts and deletes since are noted by the positions of their records. If there
//! are many of them, taking them in would cost more than sorting all keys, so the order is given up.

use std::ops::Range;

use super::entry::Entry;
use super::tree::{Node, Stored};
use super::{Hashed, Keys, SortedIndex, Sought};
use crate::format::ALIGNMENT;
use crate::format::order::{ORDER_ENTRY_LEN, StoredOrder, decode_directory};
use crate::format::snapshot::Snapshot;

/// The order is given up when more than one note for this many keys was taken, and more than [`FEW_NOTES`].
const KEYS_PER_NOTE: u64 = 8;
const FEW_NOTES: usize = 1 << 10;

/// The order of a snapshot, of which nothing is loaded yet.
pub(super) struct Order {
    stored: StoredOrder,
    /// The records of the order lie here.
    covered: Range<u64>,
    keys: u64,
    /// The positions of the puts and deletes since, in their order.
    notes: Vec<Note>,
}

/// A position, which is a multiple of 8; one more for a delete.
#[derive(Clone, Copy)]
struct Note(u64);

impl Order {
    /// The order in a snapshot of a log that starts at `log_start`, if there is one.
    pub(super) fn of(snapshot: &Snapshot, log_start: u64) -> Option<Order> {
        let covered = log_start..snapshot.covered.end;
        Some(Order { stored: snapshot.order?, covered, keys: snapshot.covered.keys, notes: Vec::new() })
    }

    /// Notes a put or a delete. Returns `false` if there are too many notes now.
    pub(super) fn note(&mut self, position: u64, is_delete: bool) -> bool {
        self.notes.push(Note(position + u64::from(is_delete)));
        self.notes.len() <= FEW_NOTES || self.notes.len() as u64 <= self.keys / KEYS_PER_NOTE
    }

    pub(super) fn memory(&self) -> usize {
        self.notes.capacity() * size_of::<Note>()
    }

    /// The sorted index with everything that was noted. Reads the directory, and the leaves that the notes concern.
    ///
    /// # Errors
    ///
    /// Those of `keys`, also if the order is not what the snapshot says.
    pub(super) fn build<K: Keys>(&self, keys: &K, hashed: Hashed<'_>) -> Result<SortedIndex, K::Error> {
        let mut sorted = self.load(keys)?;
        let mut key = Vec::new();
        for &Note(note) in &self.notes {
            key.clear();
            let position = note / ALIGNMENT * ALIGNMENT;
            keys.read_verified(position, &mut key)?;
            let sought = Sought { key: &key, keys, known: None, hashed: Some(hashed) };
            if note == position {
                sorted.insert(&sought, position)?;
            } else {
                sorted.remove(&sought)?;
            }
        }
        Ok(sorted)
    }

    /// The sorted index as it is stored.
    pub(super) fn load<K: Keys>(&self, keys: &K) -> Result<SortedIndex, K::Error> {
        let stored = self.stored.bytes();
        let bytes = keys.stored_bytes(&stored)?;
        // The leaves are written before the directory.
        let place = self.covered.end..self.stored.directory;
        let leaves = decode_directory(&bytes, self.keys, &place).unwrap_or_default();
        let firsts: Vec<Entry> = leaves.iter().map(|leaf| Entry::from_bytes(&leaf.first)).collect();
        if firsts.is_empty() || !are_in_order(&firsts, &self.covered) {
            return Err(keys.not_stored(&stored));
        }
        let nexts = firsts.iter().skip(1).copied().map(Some).chain([None]);
        let nodes = leaves.into_iter().zip(nexts);
        let nodes = nodes.map(|(leaf, next)| Stored::new(leaf, next, self.covered.clone()));
        Ok(SortedIndex::stored(Node::over(nodes)))
    }
}

/// The sorted index in a snapshot of a log that starts at `log_start`, if it has one.
///
/// # Errors
///
/// Those of `keys`, also if the order is not what the snapshot says.
pub(crate) fn stored_order<K: Keys>(
    snapshot: &Snapshot,
    log_start: u64,
    keys: &K,
) -> Result<Option<SortedIndex>, K::Error> {
    Order::of(snapshot, log_start).map(|order| order.load(keys)).transpose()
}

/// The entries of a leaf whose checksum was verified. `None` if they do not ascend, as far as they show that, or if a position
/// lies outside of `covered`.
pub(super) fn decode_entries(bytes: &[u8], covered: &Range<u64>) -> Option<Vec<Entry>> {
    let entry = |bytes: &[u8]| Entry::from_bytes(bytes.try_into().expect("as long as an entry"));
    let entries: Vec<Entry> = bytes.chunks_exact(ORDER_ENTRY_LEN).map(entry).collect();
    are_in_order(&entries, covered).then_some(entries)
}

fn are_in_order(entries: &[Entry], covered: &Range<u64>) -> bool {
    entries.iter().all(|entry| entry.prefix().is_of_a_key() && covered.contains(&entry.position()))
        && entries.is_sorted_by(|entry, next| entry.prefix().may_precede(next.prefix()))
}

#[cfg(test)]
mod tests;
