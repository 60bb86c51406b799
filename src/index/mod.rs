//! The index: the position of each key's record. It holds keys and positions, and knows no file.
//!
//! A position is the offset at which a record starts in the log. Keys stay in the log; the owner of the log answers the
//! index's questions about them through [`Keys`]. There are two indexes: the most frequent question, the record of one
//! key, needs no order, and order is expensive. Per key, at a million keys:
//!
//! | | answers | memory | a change |
//! | --- | --- | --- | --- |
//! | [`HashIndex`] | where one key is | 10 to 15 bytes | 0.1 µs: a cache miss, and one more to see the key in the log |
//! | [`SortedIndex`] | which keys are in a range | 24 to 36 bytes | 0.5 µs; 2 if keys differ only after 18 bytes |
//!
//! The hash index always exists. The sorted one is built at the first listing, or loaded leaf by leaf from a snapshot, and kept
//! up from then on, so a store that never lists pays nothing for it. Single keys are looked up in the hash index only. Building takes 0.15 µs per key,
//! 0.3 if keys share their first 18 bytes. Each listing takes a snapshot of the sorted index, which is free; the first
//! change to each node after that copies the node, so changes that alternate with listings cost some 3 µs.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::ops::Range;

use crate::format::order::StoredBytes;
use crate::format::snapshot::{KeyHasher, Snapshot, StoredPart};
use order::Order;

pub(crate) mod buckets;
mod build;
mod entry;
mod expiring;
mod hash;
mod image;
mod lifetimes;
mod order;
mod packed;
mod positions;
mod search;
mod sessions;
mod sorted;
mod table;
#[cfg(test)]
mod testing;
mod tree;

pub(crate) use entry::{Entry, prefix_successor};
pub(crate) use hash::{Frozen, HashIndex, PIECES, is_beside};
pub(crate) use lifetimes::{Lifetimes, MachineTime, Times};
pub(crate) use order::stored_order;
pub(crate) use packed::POSITION_LIMIT;
pub(crate) use positions::Positions;
pub(crate) use sessions::Place;
pub(crate) use sorted::{SortedIndex, Sought};

/// The questions of the index about keys in the log.
pub(crate) trait Keys {
    /// The reason why a key could not be read.
    type Error;

    /// Compares the key of the record at `position` with `key`: `stored.cmp(key)`. The record is not verified, so the
    /// caller must prove the outcome in another way.
    fn compare(&self, position: u64, key: &[u8]) -> Result<Ordering, Self::Error>;

    /// Whether the record at `position`, which the hash index has for `key`, has this key. A record with another key is
    /// verified: damage in a key must not look like an absent key. (A damaged key that equals `key` is as improbable as
    /// damage that the checksum misses: the hash index has 36 bits of the original key's hash.)
    fn is_key(&self, position: u64, key: &[u8]) -> Result<bool, Self::Error>;

    /// The error for a position that the index has for another key than its record's.
    fn not_its_position(&self, position: u64) -> Self::Error;

    /// Appends the key of the record at `position` to `out`, unverified.
    fn read(&self, position: u64, out: &mut Vec<u8>) -> Result<(), Self::Error>;

    /// Appends the key of the record at `position` to `out`, and verifies the whole record over this copy of the key.
    fn read_verified(&self, position: u64, out: &mut Vec<u8>) -> Result<(), Self::Error>;

    /// Whether the records at two positions have the same key, as [`Keys::is_key`]. The record at `other` is verified.
    fn have_same_key(&self, position: u64, other: u64) -> Result<bool, Self::Error> {
        let mut key = Vec::new();
        self.read_verified(other, &mut key)?;
        self.is_key(position, &key)
    }

    /// The length that the record at `position` takes up, verified.
    fn record_len(&self, position: u64) -> Result<u64, Self::Error>;

    /// The words of each sub-table in a part of an image. Its checksum and its positions are verified on the copy that is
    /// returned.
    fn stored_part(
        &self,
        part: &StoredPart,
        part_bits: u32,
        covered: &Range<u64>,
    ) -> Result<Vec<Vec<u64>>, Self::Error>;

    /// Bytes of the order of a snapshot. Their checksum is verified on the copy that is returned.
    fn stored_bytes(&self, stored: &StoredBytes) -> Result<Vec<u8>, Self::Error>;

    /// The error for bytes of an order whose checksum holds and which are not what the snapshot says.
    fn not_stored(&self, stored: &StoredBytes) -> Self::Error;
}

/// A borrowed hash index, as a witness for the key of a record.
#[derive(Clone, Copy)]
pub(crate) struct Hashed<'a> {
    hasher: &'a KeyHasher,
    hash: &'a HashIndex,
}

impl Hashed<'_> {
    /// Loads what a look-up of the key needs.
    fn load<K: Keys>(&self, key: &[u8], keys: &K) -> Result<(), K::Error> {
        self.hash.load(self.hasher.hash(key), keys)
    }

    /// Whether the key's record is the one at `position`. Reads no key from the log.
    fn has(&self, key: &[u8], position: u64) -> bool {
        let Ok(found) = self.hash.find(self.hasher.hash(key), |at| Ok::<_, Infallible>(at == position));
        found.is_some()
    }
}

/// Both indexes of a log, kept in step.
pub(crate) struct Index {
    hasher: KeyHasher,
    hash: HashIndex,
    /// `None` until the first listing.
    sorted: Option<SortedIndex>,
    /// The order of the snapshot, until the first listing.
    order: Option<Order>,
    /// Snapshots are to have the order: the one before has it, or the keys were listed.
    is_ordered: bool,
    /// Counts changes, so that a sorted index that was built before a change is not installed after it.
    changes: u64,
}

impl Index {
    /// The index of a log without keys.
    pub(crate) fn new(hasher: KeyHasher) -> Index {
        Index { hasher, hash: HashIndex::default(), sorted: None, order: None, is_ordered: false, changes: 0 }
    }

    /// The index of a snapshot, of which nothing is loaded yet.
    pub(crate) fn stored(hasher: KeyHasher, snapshot: &Snapshot, log_start: u64) -> Index {
        Index {
            hash: HashIndex::stored(snapshot, log_start),
            order: Order::of(snapshot, log_start),
            is_ordered: snapshot.order.is_some(),
            ..Index::new(hasher)
        }
    }

    /// Whether snapshots of this index have the order of the keys.
    pub(crate) fn is_ordered(&self) -> bool {
        self.is_ordered || self.sorted.is_some()
    }

    /// Whether the sorted index exists, or the order of a snapshot from which it is made without a look at most keys.
    pub(crate) fn has_order(&self) -> bool {
        self.sorted.is_some() || self.order.is_some()
    }

    /// Snapshots of this index have the order of the keys from now on, if `is_ordered`.
    pub(crate) fn keep_ordered(&mut self, is_ordered: bool) {
        self.is_ordered |= is_ordered;
    }

    /// The number of keys. An upper bound before [`Index::load_noted`], for an index from a snapshot.
    pub(crate) fn len(&self) -> usize {
        self.hash.len()
    }

    /// Bytes of the records that were replaced or removed while their part of an image was missing.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.hash.dead_bytes()
    }

    /// Loads the part of an image with the key of this hash. Every look-up does that itself.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    #[inline]
    pub(crate) fn load<K: Keys>(&self, hash: u64, keys: &K) -> Result<(), K::Error> {
        self.hash.load(hash, keys)
    }

    /// Loads the first part of an image that is missing from sub-table `next` on, and moves `next` beyond it. Returns `false` if
    /// none is missing.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    pub(crate) fn load_next<K: Keys>(&self, next: &mut usize, keys: &K) -> Result<bool, K::Error> {
        self.hash.load_next(next, keys)
    }

    /// Loads all parts of an image.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    pub(crate) fn load_all<K: Keys>(&self, keys: &K) -> Result<(), K::Error> {
        self.hash.load_parts(true, keys)
    }

    /// Loads the parts of an image whose keys have changed since, so that the number of keys is exact.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    pub(crate) fn load_noted<K: Keys>(&self, keys: &K) -> Result<(), K::Error> {
        self.hash.load_parts(false, keys)
    }

    /// Whether all keys are in memory.
    pub(crate) fn is_loaded(&self) -> bool {
        self.hash.is_loaded()
    }

    /// Gives up the image once all of it is loaded. Returns the bytes of dead records that it has counted.
    pub(crate) fn settle(&mut self) -> u64 {
        self.hash.settle()
    }

    /// The words of the hash index as they are now. All of it must be loaded.
    pub(crate) fn freeze(&self) -> Frozen {
        self.hash.freeze()
    }

    /// Bytes allocated by both indexes.
    pub(crate) fn memory(&self) -> usize {
        let order = self.order.as_ref().map_or(0, Order::memory);
        self.hash.memory() + order + self.sorted.as_ref().map_or(0, SortedIndex::memory)
    }

    /// The position of the key's record, or `None` if there is no such key.
    ///
    /// # Errors
    ///
    /// The first error of `keys`.
    #[inline]
    pub(crate) fn find<K: Keys>(&self, key: &[u8], keys: &K) -> Result<Option<u64>, K::Error> {
        self.find_hashed(self.hash(key), key, keys)
    }

    /// The hash of a key in this index, for the calls that take it instead of computing it again.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// As [`Index::find`], with the key's hash.
    #[inline]
    pub(crate) fn find_hashed<K: Keys>(&self, hash: u64, key: &[u8], keys: &K) -> Result<Option<u64>, K::Error> {
        self.find_where(hash, keys, |position| keys.is_key(position, key))
    }

    /// As [`Index::find_hashed`]; `is_key` says whether the record at a position is the key's.
    #[inline]
    pub(crate) fn find_where<K: Keys>(
        &self,
        hash: u64,
        keys: &K,
        is_key: impl FnMut(u64) -> Result<bool, K::Error>,
    ) -> Result<Option<u64>, K::Error> {
        self.hash.load(hash, keys)?;
        self.hash.find(hash, is_key)
    }

    /// Makes room for this many keys in the hash index.
    pub(crate) fn reserve(&mut self, keys: usize) {
        self.hash.reserve(keys);
    }

    /// Gives back unused room.
    pub(crate) fn shrink(&mut self) {
        self.hash.shrink();
    }

    /// Begins to fetch the slots of the hash index that a change or look-up of a key with this hash needs. Each key costs one
    /// cache miss there, and the misses of several keys overlap.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.hash.prefetch(hash);
    }

    /// The probable position of the record of the key with this hash, for a prefetch: another key may have the same tag. Reads
    /// no key from the log.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<u64> {
        let Ok(found) = self.hash.find(hash, |_| Ok::<_, Infallible>(true));
        found
    }

    /// Whether the key's record is the one at `position`. Reads no key from the log.
    pub(crate) fn points_to(&self, key: &[u8], position: u64) -> bool {
        self.hashed().has(key, position)
    }

    /// The hash index as a witness.
    pub(crate) fn hashed(&self) -> Hashed<'_> {
        Hashed { hasher: &self.hasher, hash: &self.hash }
    }

    /// A key to look for in the sorted index.
    pub(crate) fn sought<'a, K: Keys>(&'a self, key: &'a [u8], keys: &'a K) -> Sought<'a, K> {
        Sought { key, keys, known: None, hashed: Some(self.hashed()) }
    }

    /// Appends the key of a record to `out`, and makes sure that it is the key that the record had when it was
    /// replayed.
    ///
    /// # Errors
    ///
    /// Those of `keys`, also for a damaged record.
    pub(crate) fn key_at<K: Keys>(&self, position: u64, keys: &K, out: &mut Vec<u8>) -> Result<(), K::Error> {
        sorted::read_proven(position, keys, Some(self.hashed()), out)
    }

    /// Every position, in any order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.hash.positions()
    }

    /// The positions of one of [`PIECES`] parts. See [`HashIndex::positions_in`].
    pub(crate) fn positions_in(&self, piece: usize) -> impl Iterator<Item = u64> + '_ {
        self.hash.positions_in(piece)
    }

    /// Replays a put of `key` by the record at `position`, and returns the position of the record that it replaces. If the
    /// key's part of an image is missing, the put is noted, and what it replaces stays unknown.
    ///
    /// `hash` is the key's hash. `is_key` says whether the record at a position is the key's: a caller that has found out
    /// before need not read the log again.
    ///
    /// # Errors
    ///
    /// The first error of `keys` or `is_key`. Both indexes are unchanged then.
    #[inline]
    pub(crate) fn apply_put<K: Keys>(
        &mut self,
        hash: u64,
        key: &[u8],
        position: u64,
        keys: &K,
        is_key: impl FnMut(u64) -> Result<bool, K::Error>,
    ) -> Result<Option<u64>, K::Error> {
        self.load_for_order(hash, keys);
        if self.hash.is_missing(hash) {
            self.note_order(position, false);
            self.hash.note(hash, position, false);
            self.changes += 1;
            return Ok(None);
        }
        let old = if self.sorted.is_none() {
            let old = self.hash.insert(hash, position, is_key)?;
            self.note_order(position, false);
            old
        } else {
            // Everything that can fail comes before the first change. With the old position known, the change of the
            // hash index cannot fail.
            let old = self.hash.find(hash, is_key)?;
            self.change_sorted(key, Some(position), old, keys)?;
            let Ok(old) = self.hash.insert(hash, position, |at| Ok::<_, Infallible>(old == Some(at)));
            old
        };
        self.changes += 1;
        Ok(old)
    }

    /// With a sorted index, the record that a change replaces must be known, so the key's part of an image is loaded first.
    #[inline]
    fn load_for_order<K: Keys>(&mut self, hash: u64, keys: &K) {
        if self.sorted.is_some() && self.hash.load(hash, keys).is_err() {
            self.give_up_order();
        }
    }

    /// A change must not fail because a part of a snapshot is bad. Without a sorted index, the next listing sorts all keys. It meets
    /// the damage if it is one of the log.
    #[cold]
    fn give_up_order(&mut self) {
        (self.sorted, self.is_ordered) = (None, true);
    }

    /// Brings the sorted index up to a change of a key, whose record before is `known`. A `position` is that of a put.
    fn change_sorted<K: Keys>(
        &mut self,
        key: &[u8],
        position: Option<u64>,
        known: Option<u64>,
        keys: &K,
    ) -> Result<(), K::Error> {
        let Some(sorted) = &mut self.sorted else { return Ok(()) };
        let hashed = Some(Hashed { hasher: &self.hasher, hash: &self.hash });
        let sought = Sought { key, keys, known, hashed };
        let changed = match position {
            Some(position) => sorted.insert(&sought, position),
            None => sorted.remove(&sought),
        };
        match changed {
            Err(_) if sorted.is_stored() => self.give_up_order(),
            changed => drop(changed?),
        }
        Ok(())
    }

    fn note_order(&mut self, position: u64, is_delete: bool) {
        if self.order.as_mut().is_some_and(|order| !order.note(position, is_delete)) {
            self.order = None;
        }
    }

    /// Replays a delete of `key` by the record at `position`, and returns the position of the record that had put it, or
    /// `None` if there was no such key, or if the delete is noted. The arguments are those of [`Index::apply_put`].
    ///
    /// # Errors
    ///
    /// The first error of `keys` or `is_key`. Both indexes are unchanged then.
    pub(crate) fn apply_delete<K: Keys>(
        &mut self,
        hash: u64,
        key: &[u8],
        position: u64,
        keys: &K,
        is_key: impl FnMut(u64) -> Result<bool, K::Error>,
    ) -> Result<Option<u64>, K::Error> {
        self.load_for_order(hash, keys);
        if self.hash.is_missing(hash) {
            self.note_order(position, true);
            self.hash.note(hash, position, true);
            self.changes += 1;
            return Ok(None);
        }
        let Some(old) = self.hash.find(hash, is_key)? else { return Ok(None) };
        // The same order as in `apply_put`.
        self.change_sorted(key, None, Some(old), keys)?;
        self.note_order(position, true);
        let Ok(removed) = self.hash.remove(hash, |at| Ok::<_, Infallible>(at == old));
        self.changes += 1;
        Ok(removed)
    }

    /// The sorted index, if one is installed.
    pub(crate) fn sorted(&self) -> Option<&SortedIndex> {
        self.sorted.as_ref()
    }
}

/// What tests plant, so that verification of a handle has something to find.
#[cfg(test)]
impl Index {
    pub(crate) fn plant_hash<T>(&mut self, change: impl FnOnce(&mut HashIndex) -> T) {
        change(&mut self.hash);
    }

    pub(crate) fn plant_len(&mut self, more: isize) {
        self.hash.plant_len(more);
    }

    pub(crate) fn plant_sorted(&mut self, entries: &[Entry]) {
        self.sorted = Some(SortedIndex::planted(entries));
    }

    pub(crate) fn plant_separator(&mut self) {
        self.sorted.as_mut().expect("a listing has built it").plant_separator();
    }
}

#[cfg(test)]
impl Default for Index {
    fn default() -> Self {
        Index::new(KeyHasher::of_tests())
    }
}

#[cfg(test)]
impl Index {
    fn put<K: Keys>(&mut self, key: &[u8], position: u64, keys: &K) -> Result<Option<u64>, K::Error> {
        self.apply_put(self.hash(key), key, position, keys, |at| keys.is_key(at, key))
    }

    /// By a record that the keys need not have.
    fn delete<K: Keys>(&mut self, key: &[u8], keys: &K) -> Result<Option<u64>, K::Error> {
        self.apply_delete(self.hash(key), key, POSITION_LIMIT - 8, keys, |at| keys.is_key(at, key))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Change, Changes, Failed, Log, TestKey};
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    fn go_on() -> Result<(), Failed> {
        Ok(())
    }

    fn install(index: &mut Index, log: &Log) {
        let built = index.build_sorted(log, go_on).unwrap();
        assert!(index.install_sorted(built));
    }

    fn assert_holds(index: &Index, model: &BTreeMap<Vec<u8>, u64>, log: &Log) {
        let positions: Vec<u64> = model.values().copied().collect();
        if let Some(sorted) = index.sorted() {
            assert_eq!(sorted.range(0..usize::MAX).collect::<Vec<_>>(), positions);
        }
        assert_eq!(index.len(), model.len());
        assert!(model.iter().all(|(key, position)| index.find(key, log) == Ok(Some(*position))));
        assert!(model.iter().all(|(key, at)| index.points_to(key, *at) && !index.points_to(key, at + 8)));
        let mut unordered: Vec<u64> = index.positions().collect();
        unordered.sort_unstable();
        let mut expected = positions;
        expected.sort_unstable();
        assert_eq!(unordered, expected);
    }

    #[test]
    fn an_index_without_keys_finds_nothing_and_lists_nothing() {
        let (mut index, log) = (Index::default(), Log::default());
        install(&mut index, &log);
        assert_eq!(index.find(b"k", &log), Ok(None));
        assert_eq!(index.delete(b"k", &log), Ok(None));
        assert_holds(&index, &BTreeMap::new(), &log);
    }

    #[test]
    fn a_sorted_index_built_before_a_change_is_refused() {
        let (mut index, mut log) = (Index::default(), Log::default());
        let before_put = index.build_sorted(&log, go_on).unwrap();
        let position = log.append(b"k");
        index.put(b"k", position, &log).unwrap();
        assert!(!index.install_sorted(before_put));

        let before_delete = index.build_sorted(&log, go_on).unwrap();
        index.delete(b"k", &log).unwrap();
        assert!(!index.install_sorted(before_delete));
        assert!(index.sorted().is_none());
    }

    #[test]
    fn a_second_installation_keeps_the_sorted_index_that_is_there() {
        let (mut index, mut log) = (Index::default(), Log::default());
        let late = index.build_sorted(&log, go_on).unwrap();
        install(&mut index, &log);
        let position = log.append(b"k");
        index.put(b"k", position, &log).unwrap();
        assert!(index.install_sorted(late));
        assert_holds(&index, &BTreeMap::from([(b"k".to_vec(), position)]), &log);
    }

    #[test]
    fn a_change_reads_its_key_once_for_both_indexes() {
        let (mut index, mut log) = (Index::default(), Log::default());
        let key = [b'k'; 100];
        let (first, second) = (log.append(&key), log.append(&key));
        index.put(&key, first, &log).unwrap();
        install(&mut index, &log);
        log.fail_after(1);
        assert_eq!(index.put(&key, second, &log), Ok(Some(first)));
        log.fail_after(1);
        assert_eq!(index.delete(&key, &log), Ok(Some(second)));
    }

    quickcheck! {
        fn both_indexes_follow_a_map_whenever_listing_begins(changes: Changes, first_listing: u8) -> () {
            let (mut index, mut log, mut model) = (Index::default(), Log::default(), BTreeMap::new());
            for (at, change) in changes.0.iter().enumerate() {
                if at == usize::from(first_listing) {
                    install(&mut index, &log);
                }
                match change {
                    Change::Put(TestKey(key)) => {
                        let position = log.append(key);
                        assert_eq!(index.put(key, position, &log), Ok(model.insert(key.clone(), position)));
                    }
                    Change::Delete(TestKey(key)) => {
                        assert_eq!(index.delete(key, &log), Ok(model.remove(key)));
                    }
                }
            }
            assert_holds(&index, &model, &log);
        }

        fn a_change_that_fails_leaves_both_indexes_as_they_were(
            keys: Vec<TestKey>, last: TestKey, answers: u8, listing: bool
        ) -> () {
            let (mut index, mut log, mut model) = (Index::default(), Log::default(), BTreeMap::new());
            for TestKey(key) in keys {
                let position = log.append(&key);
                index.put(&key, position, &log).unwrap();
                model.insert(key, position);
            }
            if listing {
                install(&mut index, &log);
            }
            let position = log.append(&last.0);
            log.fail_after(u64::from(answers % 4));
            if let Ok(old) = index.put(&last.0, position, &log) {
                assert_eq!(old, model.insert(last.0.clone(), position));
            }
            log.fail_after(u64::from(answers / 4 % 4));
            if let Ok(old) = index.delete(&last.0, &log) {
                assert_eq!(old, model.remove(&last.0));
            }
            log.heal();
            assert_holds(&index, &model, &log);
        }

        fn building_fails_when_a_key_cannot_be_read(keys: Vec<TestKey>, answers: u8) -> () {
            let (mut index, mut log) = (Index::default(), Log::default());
            for TestKey(key) in &keys {
                let position = log.append(key);
                index.put(key, position, &log).unwrap();
            }
            log.fail_after(u64::from(answers) % (index.len() as u64 + 1));
            match index.build_sorted(&log, go_on) {
                Ok(built) => assert_eq!(built.sorted.len(), index.len()),
                Err(Failed) => assert!(!keys.is_empty()),
            }
        }
    }
}
