//! An image: the hash index of a log up to some offset, as a snapshot has it in the file, and what came after.
//!
//! Opening a store through a snapshot reads no key before that offset. A part of the image is read when a key of its
//! sub-tables is first asked for. Until then, puts and deletes of such keys are noted, in order and with their hash only:
//! to look the keys up would cost more than reading the whole log from front to back. A loaded part has taken in its notes,
//! and is a part of an index as any other.
//!
//! What a put or a delete replaces is known only when its part is loaded. So the number of keys and their bytes are upper
//! bounds until all parts with notes are loaded.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use super::Keys;
use super::packed;
use super::table::{Place, Table};
use crate::format::snapshot::{Snapshot, StoredPart, TABLE_BITS, tables_in_part};
use crate::sync::{AtomicU64, Mutex, lock};

/// The parts of an image.
pub(super) struct Image {
    /// The records of the image lie here.
    covered: Range<u64>,
    part_bits: u32,
    parts: Vec<Part>,
    /// The number of parts that are not loaded.
    missing: AtomicU64,
    /// Keys and bytes that notes have replaced or removed, in the parts that are loaded.
    dead: Dead,
    /// Locked while a part is loaded, so that each part is loaded, and its dead counted, once.
    loading: Mutex<()>,
}

#[derive(Default)]
struct Part {
    stored: StoredPart,
    notes: Vec<Note>,
}

/// A put or a delete of a key whose part is not loaded.
#[derive(Clone, Copy)]
struct Note {
    /// The number of the sub-table in its part.
    table: u16,
    is_delete: bool,
    /// The key's tag, and the position of the record.
    word: u64,
}

/// Keys and bytes that no longer count.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) keys: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Image {
    /// The image of a snapshot of a log that starts at `log_start`.
    pub(super) fn new(snapshot: &Snapshot, log_start: u64) -> Image {
        let part = |stored: &StoredPart| Part { stored: *stored, ..Part::default() };
        Image {
            covered: log_start..snapshot.covered.end,
            part_bits: snapshot.part_bits,
            parts: snapshot.parts.iter().map(part).collect(),
            missing: AtomicU64::new(snapshot.parts.len() as u64),
            dead: Dead::default(),
            loading: Mutex::default(),
        }
    }

    /// The number of a sub-table's part, and the sub-table's number in it.
    fn place(&self, table: usize) -> (usize, usize) {
        (table >> (TABLE_BITS - self.part_bits), table & (tables_in_part(self.part_bits) - 1))
    }

    /// Notes a put or a delete by the record in `word`.
    pub(super) fn note(&mut self, table: usize, is_delete: bool, word: u64) {
        let (part, table) = self.place(table);
        self.parts[part].notes.push(Note { table: table as u16, is_delete, word });
    }

    /// Loads the part of a sub-table into `tables`, which are those of the whole index.
    ///
    /// # Errors
    ///
    /// Those of `keys`; the part is not loaded then.
    #[cold]
    pub(super) fn load<K: Keys>(&self, table: usize, tables: &[OnceLock<Table>], keys: &K) -> Result<(), K::Error> {
        self.load_part(self.place(table).0, tables, keys)
    }

    /// Loads the parts for which something is noted, or all parts.
    pub(super) fn load_parts<K: Keys>(&self, all: bool, tables: &[OnceLock<Table>], keys: &K) -> Result<(), K::Error> {
        (0..self.parts.len())
            .filter(|&part| all || !self.parts[part].notes.is_empty())
            .try_for_each(|part| self.load_part(part, tables, keys))
    }

    fn load_part<K: Keys>(&self, part: usize, tables: &[OnceLock<Table>], keys: &K) -> Result<(), K::Error> {
        let _alone = lock(&self.loading);
        let in_part = tables_in_part(self.part_bits);
        let (part, into) = (&self.parts[part], &tables[part * in_part..][..in_part]);
        if into.iter().all(|table| table.get().is_some()) {
            return Ok(());
        }
        let mut tables = if part.stored.count == 0 {
            vec![Table::default(); in_part]
        } else {
            let words = keys.stored_part(&part.stored, self.part_bits, &self.covered)?;
            words.iter().map(|words| Table::of(words)).collect()
        };
        let (mut dead_keys, mut dead_bytes) = (0, 0);
        for note in &part.notes {
            let table = &mut tables[usize::from(note.table)];
            let position = packed::position(note.word);
            let place = table.probe(packed::tag(note.word), |at| keys.have_same_key(at, position))?;
            let replaced = match (place, note.is_delete) {
                (Place::Vacant(at), false) => {
                    table.occupy(at, note.word);
                    continue;
                }
                (Place::Vacant(_), true) => continue,
                (Place::Occupied(at), false) => table.replace(at, note.word),
                (Place::Occupied(at), true) => table.vacate(at),
            };
            dead_keys += 1;
            dead_bytes += keys.record_len(packed::position(replaced))?;
        }
        self.dead.keys.fetch_add(dead_keys, Ordering::Relaxed);
        self.dead.bytes.fetch_add(dead_bytes, Ordering::Relaxed);
        for (table, into) in tables.into_iter().zip(into) {
            into.set(table).ok().expect("loaded once, under the lock");
        }
        self.missing.fetch_sub(1, Ordering::Release);
        Ok(())
    }

    /// Whether all parts are loaded.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }

    /// Keys and bytes that were counted and are replaced or removed.
    pub(super) fn dead(&self) -> (u64, u64) {
        (self.dead.keys.load(Ordering::Relaxed), self.dead.bytes.load(Ordering::Relaxed))
    }

    /// Bytes allocated.
    pub(super) fn memory(&self) -> usize {
        let notes: usize = self.parts.iter().map(|part| part.notes.capacity()).sum();
        self.parts.capacity() * size_of::<Part>() + notes * size_of::<Note>()
    }
}

#[cfg(test)]
pub(super) mod tests;
