//! A log of keys in memory, and random keys and changes that include the difficult cases.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use quickcheck::{Arbitrary, Gen};

use super::Keys;
use crate::format::order::StoredBytes;
use crate::format::snapshot::{StoredPart, decode_part};

/// The keys of a log, which answers until a test makes it fail.
pub(super) struct Log {
    keys: Vec<Vec<u8>>,
    /// Replacements for damaged keys.
    damaged: HashMap<u64, Vec<u8>>,
    /// Parts of an image, by their offsets.
    pub(super) parts: Vec<Vec<u8>>,
    /// Bytes of an order, by their offsets.
    pub(super) order: HashMap<u64, Vec<u8>>,
    answers_left: Cell<u64>,
}

/// The length of a record without its key.
pub(super) const RECORD_LEN: u64 = 24;

/// The log did not answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed;

impl Default for Log {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            damaged: HashMap::new(),
            parts: Vec::new(),
            order: HashMap::new(),
            answers_left: Cell::new(u64::MAX),
        }
    }
}

impl Log {
    /// Appends a record and returns its position.
    pub(super) fn append(&mut self, key: &[u8]) -> u64 {
        self.keys.push(key.to_vec());
        self.last()
    }

    /// The position of the last record.
    pub(super) fn last(&self) -> u64 {
        8 * self.keys.len() as u64
    }

    /// The key at a position, even while questions fail.
    pub(super) fn key(&self, position: u64) -> &[u8] {
        &self.keys[position as usize / 8 - 1]
    }

    /// Replaces the key at a position.
    pub(super) fn damage(&mut self, position: u64, key: &[u8]) {
        self.damaged.insert(position, key.to_vec());
    }

    /// Undoes all damage.
    pub(super) fn repair(&mut self) {
        self.damaged.clear();
    }

    /// Makes every question fail after this many more.
    pub(super) fn fail_after(&self, answers: u64) {
        self.answers_left.set(answers);
    }

    /// The number of questions since the last [`Log::heal`].
    pub(super) fn asked_so_far(&self) -> u64 {
        u64::MAX - self.answers_left.get()
    }

    /// Stops the failures.
    pub(super) fn heal(&self) {
        self.fail_after(u64::MAX);
    }

    fn asked(&self, position: u64) -> Result<&[u8], Failed> {
        self.answers_left.set(self.answers_left.get().checked_sub(1).ok_or(Failed)?);
        Ok(self.damaged.get(&position).map_or(self.key(position), |key| key))
    }
}

impl Keys for Log {
    type Error = Failed;

    fn compare(&self, position: u64, key: &[u8]) -> Result<Ordering, Failed> {
        Ok(self.asked(position)?.cmp(key))
    }

    fn is_key(&self, position: u64, key: &[u8]) -> Result<bool, Failed> {
        let same = self.asked(position)? == key;
        if !same && self.damaged.contains_key(&position) { Err(Failed) } else { Ok(same) }
    }

    fn not_its_position(&self, _position: u64) -> Failed {
        Failed
    }

    fn read(&self, position: u64, out: &mut Vec<u8>) -> Result<(), Failed> {
        out.extend_from_slice(self.asked(position)?);
        Ok(())
    }

    fn read_verified(&self, position: u64, out: &mut Vec<u8>) -> Result<(), Failed> {
        self.read(position, out)?;
        if self.damaged.contains_key(&position) { Err(Failed) } else { Ok(()) }
    }

    fn record_len(&self, position: u64) -> Result<u64, Failed> {
        self.asked(position).map(|key| RECORD_LEN + key.len() as u64)
    }

    fn stored_part(&self, part: &StoredPart, part_bits: u32, covered: &Range<u64>) -> Result<Vec<Vec<u64>>, Failed> {
        self.answers_left.set(self.answers_left.get().checked_sub(1).ok_or(Failed)?);
        decode_part(&self.parts[part.offset as usize], part_bits, covered).ok_or(Failed)
    }

    fn stored_bytes(&self, stored: &StoredBytes) -> Result<Vec<u8>, Failed> {
        self.answers_left.set(self.answers_left.get().checked_sub(1).ok_or(Failed)?);
        self.order.get(&stored.offset).filter(|bytes| bytes.len() == stored.len).cloned().ok_or(Failed)
    }

    fn not_stored(&self, _stored: &StoredBytes) -> Failed {
        Failed
    }
}

/// One of few keys. Many are prefixes of one another, or differ only in zeros at the end.
#[derive(Clone, Debug)]
pub(super) struct TestKey(pub(super) Vec<u8>);

impl Arbitrary for TestKey {
    fn arbitrary(g: &mut Gen) -> Self {
        // Around the lengths that an entry holds: 16 bytes in its first words, 18 in all.
        let stem = *g.choose(&[0, 1, 14, 15, 16, 17, 18, 19, 40]).expect("some");
        let byte = *g.choose(&[0, b's', b's', 0xFF]).expect("some");
        let mut key = vec![byte; stem];
        for _ in 0..*g.choose(&[0, 1, 2, 3]).expect("some") {
            key.push(*g.choose(&[0, 0, 1, b's', 0xFF]).expect("some"));
        }
        Self(key)
    }
}

/// One change of a store.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(TestKey),
    Delete(TestKey),
}

impl Arbitrary for Change {
    fn arbitrary(g: &mut Gen) -> Self {
        let key = TestKey::arbitrary(g);
        if bool::arbitrary(g) { Self::Put(key) } else { Self::Delete(key) }
    }
}

/// Changes in phases in which a store grows, churns or shrinks.
#[derive(Clone, Debug)]
pub(super) struct Changes(pub(super) Vec<Change>);

impl Arbitrary for Changes {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut changes = Vec::new();
        for _ in 0..usize::arbitrary(g) % 6 {
            let puts_in_ten = *g.choose(&[10, 9, 5, 1]).expect("some");
            for _ in 0..usize::arbitrary(g) % (2 * g.size()) {
                let key = TestKey::arbitrary(g);
                let put = usize::arbitrary(g) % 10 < puts_in_ten;
                changes.push(if put { Change::Put(key) } else { Change::Delete(key) });
            }
        }
        Self(changes)
    }

    /// Drops changes, first half of them, at last one at a time. Keys stay as they are: shrinking them would take too
    /// long.
    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let changes = self.0.clone();
        let sizes = std::iter::successors(Some(changes.len() / 2), |size| Some(size / 2)).take_while(|size| *size > 0);
        Box::new(sizes.flat_map(move |size| {
            let changes = changes.clone();
            (0..changes.len())
                .step_by(size)
                .map(move |at| Self([&changes[..at], &changes[(at + size).min(changes.len())..]].concat()))
        }))
    }
}
