//! Every position in the order of the keys, for listings.
//!
//! A listing is a pair of ranks in a snapshot. The tree counts the entries below each branch, so the rank of a bound is
//! found on one way down; what lies between two ranks can be walked from both ends and its length is known; and as the
//! snapshot is a clone of the root, a listing copies nothing and sees one moment, however long it takes.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::entry::{Entry, Prefix};
use super::search::Probe;
use super::tree::{Leaf, Node, Place};
use super::{Hashed, Keys};

/// The positions of the live records in the order of their keys.
///
/// Where keys are alike in their first 18 bytes, and longer, the methods compare with the key in the log. They may ask
/// about records that are replaced or deleted by now, but never about a position that was not inserted.
///
/// Every operation takes logarithmic time, and asks as often.
#[derive(Clone)]
pub(crate) struct SortedIndex {
    root: Node,
}

/// A key that is looked for, and what is asked about the keys in the log.
///
/// # Damage
///
/// A search asks some twenty stored keys, and to verify all of them would cost too much. So it verifies the outcome. The
/// entries are in the order of the keys that the records had when they were taken in. If the key before a place is less
/// than the one that is sought, and the key at the place is greater (or if the key there is the one), then the place is
/// right, whatever has led there. What an entry holds of its key was taken from a verified key, and decides most of these
/// two comparisons; else the key is read, and [proven](read_proven). Only if the outcome is not proven, the search is made
/// once more, and every record that it asks is verified.
pub(crate) struct Sought<'a, K> {
    pub(crate) key: &'a [u8],
    pub(crate) keys: &'a K,
    /// The position of the record that is known to have the key.
    pub(crate) known: Option<u64>,
    /// The hash index over the same records, if it is at hand.
    pub(crate) hashed: Option<Hashed<'a>>,
}

/// What a search has found.
struct Search {
    place: Place,
    /// Whether keys in the log had a say in it.
    asked: bool,
}

/// Appends the key of a record to `out`, after making sure that it is the one that the record was taken in with.
///
/// The hash index knows 36 bits of the key's hash, which is proof as good as the record's checksum, and needs no look at a
/// value that may be long, or damaged where the key is not. Without that index, or if it knows of no such key, the record
/// is verified.
///
/// # Errors
///
/// Those of `keys`: that of a damaged record among them.
pub(super) fn read_proven<K: Keys>(
    position: u64,
    keys: &K,
    hashed: Option<Hashed<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), K::Error> {
    let start = out.len();
    keys.read(position, out)?;
    if !hashed.is_some_and(|hashed| hashed.has(&out[start..], position)) {
        out.truncate(start);
        keys.read_verified(position, out)?;
    }
    Ok(())
}

impl Default for SortedIndex {
    fn default() -> Self {
        Self { root: Node::empty() }
    }
}

impl SortedIndex {
    /// Builds the index from entries in strictly ascending order of their keys: see
    /// [`sort_entries`](super::sort_entries).
    pub(crate) fn from_sorted(entries: &[Entry]) -> Self {
        debug_assert!(entries.is_sorted_by_key(Entry::prefix));
        Self { root: Node::build(entries) }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.root.len()
    }

    /// Bytes allocated, those shared with snapshots included; in time proportional to a hundredth of the length.
    pub(crate) fn memory(&self) -> usize {
        self.root.memory()
    }

    /// The index as it is now, whatever happens to this one. Takes constant time; afterwards the first change to each
    /// node copies it, as long as the snapshot lives.
    pub(crate) fn snapshot(&self) -> Self {
        self.clone()
    }

    /// Puts the key that is sought at `position`, and returns the position where it was, or `None` if it is new.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`]; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not one: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn insert<K: Keys>(&mut self, sought: &Sought<'_, K>, position: u64) -> Result<Option<u64>, K::Error> {
        let Search { place, asked } = self.find(sought)?;
        let (path, entry) = (place.path(), Entry::new(sought.key, position));
        if place.found {
            return Ok(Some(self.root.replace(path, entry).position()));
        }
        if asked {
            // The place is proven by the entries beside it. Separators were asked as well, and are not verified.
            let next = self.root.at_or_after(path).copied();
            self.root.lead_to(path, entry, next);
        }
        if let Some(new) = self.root.insert(path, entry) {
            self.root.grow(new);
        }
        Ok(None)
    }

    /// Takes the key out and returns the position where it was, or `None` if it was not there.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`]; the index is unchanged then.
    pub(crate) fn remove<K: Keys>(&mut self, sought: &Sought<'_, K>) -> Result<Option<u64>, K::Error> {
        let Search { place, .. } = self.find(sought)?;
        if !place.found {
            return Ok(None);
        }
        let removed = self.root.remove(place.path());
        self.root.shrink();
        Ok(Some(removed.position()))
    }

    /// How many keys are less than the one that is sought: the rank where a range begins that includes it, and where one
    /// ends that excludes it.
    ///
    /// # Errors
    ///
    /// The first error of the keys that it asks, and the error of a record that is damaged, if that could have led to a
    /// wrong rank.
    pub(crate) fn lower_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        Ok(self.root.rank(self.find(sought)?.place.path()))
    }

    /// How many keys are less than the one that is sought or equal to it: the rank where a range begins that excludes it,
    /// and where one ends that includes it.
    ///
    /// # Errors
    ///
    /// As [`SortedIndex::lower_rank`].
    pub(crate) fn upper_rank<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<usize, K::Error> {
        let place = self.find(sought)?.place;
        Ok(self.root.rank(place.path()) + usize::from(place.found))
    }

    /// Where a key is, or where it would go. The place is right whatever damage there is in the log; see [`Sought`].
    fn find<K: Keys>(&self, sought: &Sought<'_, K>) -> Result<Search, K::Error> {
        let (prefix, mut asked) = (Prefix::of(sought.key), false);
        let compare = |at| {
            asked = true;
            if sought.known == Some(at) { Ok(Ordering::Equal) } else { sought.keys.compare(at, sought.key) }
        };
        let place = self.root.find(&mut Probe { prefix, compare })?;
        if !asked || self.is_proven(&place, prefix, sought)? {
            return Ok(Search { place, asked });
        }
        // A record said something else of its key than what it was taken in with. Find it.
        let mut key = Vec::new();
        let compare = |at| {
            key.clear();
            sought.keys.read_verified(at, &mut key)?;
            Ok(key.as_slice().cmp(sought.key))
        };
        Ok(Search { place: self.root.find(&mut Probe { prefix, compare })?, asked })
    }

    /// Whether the key at a place, or else the keys beside it, are as they have to be if this is the place.
    fn is_proven<K: Keys>(&self, place: &Place, prefix: Prefix, sought: &Sought<'_, K>) -> Result<bool, K::Error> {
        let mut key = Vec::new();
        let mut is = |entry: Option<&Entry>, expected| match entry {
            None => Ok(true),
            Some(entry) if sought.known == Some(entry.position()) => Ok(expected == Ordering::Equal),
            Some(entry) if entry.prefix() != prefix => Ok(entry.prefix().cmp(&prefix) == expected),
            Some(entry) => {
                key.clear();
                read_proven(entry.position(), sought.keys, sought.hashed, &mut key)?;
                Ok(key.as_slice().cmp(sought.key) == expected)
            }
        };
        let path = place.path();
        if place.found {
            return is(self.root.at_or_after(path), Ordering::Equal);
        }
        Ok(is(self.root.before(path), Ordering::Less)? && is(self.root.at_or_after(path), Ordering::Greater)?)
    }

    /// The entry of a rank.
    pub(crate) fn entry(&self, rank: usize) -> Option<&Entry> {
        let (leaf, first) = self.root.leaf_at(rank);
        leaf.entries().get(rank - first)
    }

    /// The positions of these ranks, as they are now. Ranks past the end are left out; a range that ends before it
    /// begins is empty.
    pub(crate) fn range(&self, ranks: Range<usize>) -> Positions {
        let ranks = ranks.start..ranks.end.min(self.len());
        Positions { root: self.root.clone(), ranks, front: None, back: None }
    }
}

/// The positions of a range of ranks, in the order of their keys, at the moment when [`SortedIndex::range`] was called.
///
/// It owns its snapshot, borrows nothing, and steps in constant amortised time from either end.
pub(crate) struct Positions {
    root: Node,
    /// The ranks that are left. As both ends take from here, they cannot cross.
    ranks: Range<usize>,
    front: Option<Cursor>,
    back: Option<Cursor>,
}

/// A leaf and the rank of its first entry.
struct Cursor {
    leaf: Arc<Leaf>,
    first: usize,
}

/// The position of a rank, if the cursor's leaf has it.
#[inline]
fn held(cursor: &Option<Cursor>, rank: usize) -> Option<u64> {
    let cursor = cursor.as_ref()?;
    cursor.leaf.entries().get(rank.checked_sub(cursor.first)?).map(Entry::position)
}

/// The position of a rank, from the cursor's leaf or else from the leaf that it is then moved to.
#[inline]
fn position_at(root: &Node, cursor: &mut Option<Cursor>, rank: usize) -> u64 {
    held(cursor, rank).unwrap_or_else(|| moved_to(root, cursor, rank))
}

/// Apart from the step within a leaf, which is so short that a call is felt.
#[inline(never)]
fn moved_to(root: &Node, cursor: &mut Option<Cursor>, rank: usize) -> u64 {
    let (leaf, first) = root.leaf_at(rank);
    *cursor = Some(Cursor { leaf: Arc::clone(leaf), first });
    leaf.entries()[rank - first].position()
}

impl Iterator for Positions {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let rank = self.ranks.next()?;
        Some(position_at(&self.root, &mut self.front, rank))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<u64> {
        let rank = self.ranks.nth(n)?;
        Some(position_at(&self.root, &mut self.front, rank))
    }
}

impl DoubleEndedIterator for Positions {
    fn next_back(&mut self) -> Option<u64> {
        let rank = self.ranks.next_back()?;
        Some(position_at(&self.root, &mut self.back, rank))
    }

    fn nth_back(&mut self, n: usize) -> Option<u64> {
        let rank = self.ranks.nth_back(n)?;
        Some(position_at(&self.root, &mut self.back, rank))
    }
}

impl ExactSizeIterator for Positions {}
impl std::iter::FusedIterator for Positions {}

#[cfg(test)]
mod tests {
    use super::super::sort_entries;
    use super::super::testing::{Change, Changes, Failed, Log, TestKey};
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    type Model = BTreeMap<Vec<u8>, u64>;

    fn sought<'a>(key: &'a [u8], log: &'a Log) -> Sought<'a, Log> {
        Sought { key, keys: log, known: None, hashed: None }
    }

    /// A log that nothing can be asked of.
    fn silent() -> Log {
        let log = Log::default();
        log.fail_after(0);
        log
    }

    fn change(index: &mut SortedIndex, change: &Change, log: &mut Log) -> Result<Option<u64>, Failed> {
        match change {
            Change::Put(TestKey(key)) => {
                let position = log.append(key);
                index.insert(&sought(key, log), position)
            }
            Change::Delete(TestKey(key)) => index.remove(&sought(key, log)),
        }
    }

    fn change_model(model: &mut Model, change: &Change, log: &Log) -> Option<u64> {
        match change {
            Change::Put(TestKey(key)) => model.insert(key.clone(), log.last()),
            Change::Delete(TestKey(key)) => model.remove(key),
        }
    }

    fn built(changes: &Changes, log: &mut Log) -> (SortedIndex, Model) {
        let (mut index, mut model) = (SortedIndex::default(), Model::new());
        for each in &changes.0 {
            let old = change(&mut index, each, log).unwrap();
            assert_eq!(old, change_model(&mut model, each, log));
        }
        (index, model)
    }

    /// Damages some of the records that are there.
    fn damage_some(log: &mut Log, damage: Vec<(usize, TestKey)>) {
        let records = (log.last() / 8) as usize;
        for (at, TestKey(key)) in damage.into_iter().filter(|_| records > 0) {
            let position = 8 * (at % records + 1) as u64;
            if log.key(position) != key {
                log.damage(position, &key);
            }
        }
    }

    fn assert_is(index: &SortedIndex, model: &Model, log: &Log) {
        index.root.check(&|position| log.key(position));
        assert_eq!(index.len(), model.len());
        assert!(
            (0..=index.len())
                .map(|rank| index.entry(rank).map(Entry::position))
                .eq(model.values().map(|at| Some(*at)).chain([None]))
        );
        assert!(index.range(0..index.len()).eq(model.values().copied()));
    }

    #[test]
    fn an_index_without_keys_has_no_ranks_and_no_positions() {
        let index = SortedIndex::default();
        assert_eq!(index.len(), 0);
        assert_eq!(index.lower_rank(&sought(b"", &silent())), Ok(0));
        assert_eq!(index.upper_rank(&sought(&[0xFF; 40], &silent())), Ok(0));
        assert!(index.entry(0).is_none());
        assert_eq!(index.range(0..9).next_back(), None);
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "callers may pass ranks of bounds that exclude each other")]
    fn ranks_out_of_bounds_are_left_out() {
        let index = SortedIndex::from_sorted(&[Entry::new(b"a", 8), Entry::new(b"b", 16)]);
        assert!(index.range(1..usize::MAX).eq([16]));
        assert_eq!(index.range(2..9).len(), 0);
        assert_eq!(index.range(2..1).len(), 0);
        assert_eq!(index.range(7..9).next(), None);
    }

    #[test]
    fn an_index_that_has_lost_its_keys_is_as_small_as_a_new_one() {
        let mut index = SortedIndex::default();
        for number in 0..1000u64 {
            index.insert(&sought(&number.to_be_bytes(), &silent()), number * 8 + 8).unwrap();
        }
        for number in 0..1000u64 {
            assert_eq!(index.remove(&sought(&number.to_be_bytes(), &silent())), Ok(Some(number * 8 + 8)));
        }
        assert_eq!((index.len(), index.memory()), (0, SortedIndex::default().memory()));
    }

    #[test]
    fn a_key_that_bounds_two_leaves_may_go_and_come_back() {
        let mut log = Log::default();
        // Keys that only the log can order, so that it is asked about separators whose records are gone.
        let key = |number: u32| [[b'k'; 20].as_slice(), &number.to_be_bytes()].concat();
        let put = |number| Change::Put(TestKey(key(number)));
        let delete = |number| Change::Delete(TestKey(key(number)));
        let (mut index, mut model) = built(&Changes((0..200).map(put).collect()), &mut log);
        for number in (0..200).chain((0..200).rev()) {
            for each in [delete(number), put(number), put(number)] {
                let old = change(&mut index, &each, &mut log).unwrap();
                assert_eq!(old, change_model(&mut model, &each, &log));
                assert_is(&index, &model, &log);
            }
        }
    }

    #[test]
    fn a_snapshot_shares_all_nodes_until_one_changes() {
        let entries: Vec<Entry> = (0..500u64).map(|number| Entry::new(&number.to_be_bytes(), number * 8 + 8)).collect();
        let mut index = SortedIndex::from_sorted(&entries);
        let snapshot = index.snapshot();
        let shared = |index: &SortedIndex| {
            let leaf = |index: &SortedIndex, rank| Arc::as_ptr(index.root.leaf_at(rank).0);
            (0..500).filter(|rank| leaf(index, *rank) == leaf(&snapshot, *rank)).count()
        };
        assert_eq!(shared(&index), 500);
        index.insert(&sought(&7u64.to_be_bytes(), &silent()), 8).unwrap();
        assert!((490..500).contains(&shared(&index)));
    }

    quickcheck! {
        fn changes_give_what_a_map_gives(changes: Changes) -> () {
            let (mut index, mut model, mut log) = (SortedIndex::default(), Model::new(), Log::default());
            for each in &changes.0 {
                let old = change(&mut index, each, &mut log).unwrap();
                assert_eq!(old, change_model(&mut model, each, &log));
                index.root.check(&|position| log.key(position));
            }
            assert_is(&index, &model, &log);
        }

        fn an_index_built_at_once_takes_changes_like_any_other(before: Changes, after: Changes) -> () {
            let mut log = Log::default();
            let (_, mut model) = built(&before, &mut log);
            let mut entries: Vec<Entry> = model.iter().map(|(key, at)| Entry::new(key, *at)).rev().collect();
            sort_entries(&mut entries, |at, out| log.read(at, out)).unwrap();
            let mut index = SortedIndex::from_sorted(&entries);
            assert_is(&index, &model, &log);
            for each in &after.0 {
                let old = change(&mut index, each, &mut log).unwrap();
                assert_eq!(old, change_model(&mut model, each, &log));
            }
            assert_is(&index, &model, &log);
        }

        fn snapshots_and_ranges_stay_as_they_were_while_the_index_goes_on(changes: Changes, every: u8) -> () {
            let (mut index, mut model, mut log) = (SortedIndex::default(), Model::new(), Log::default());
            let mut kept = Vec::new();
            for (at, each) in changes.0.iter().enumerate() {
                if at % (usize::from(every) + 1) == 0 {
                    let (mut range, mut values) = (index.range(0..index.len()), model.clone());
                    // Half read, so that cursors hold leaves while the index changes them.
                    assert_eq!(range.next(), values.pop_first().map(|(_, position)| position));
                    assert_eq!(range.next_back(), values.pop_last().map(|(_, position)| position));
                    kept.push((index.snapshot(), model.clone(), range, values));
                }
                change(&mut index, each, &mut log).unwrap();
                change_model(&mut model, each, &log);
            }
            assert_is(&index, &model, &log);
            for (snapshot, model, range, values) in kept {
                assert_is(&snapshot, &model, &log);
                assert!(range.eq(values.into_values()));
            }
        }

        fn a_change_whose_comparison_fails_changes_nothing(changes: Changes, last: Vec<Change>, answers: u8) -> () {
            let mut log = Log::default();
            let (mut index, mut model) = built(&changes, &mut log);
            let snapshot = index.snapshot();
            let (len, old_model) = (index.len(), model.clone());
            for each in &last {
                log.fail_after(u64::from(answers % 8));
                if let Ok(old) = change(&mut index, each, &mut log) {
                    assert_eq!(old, change_model(&mut model, each, &log));
                }
                log.heal();
                assert_is(&index, &model, &log);
            }
            assert_eq!(snapshot.len(), len);
            assert_is(&snapshot, &old_model, &log);
        }

        fn ranks_count_the_keys_before_a_bound(changes: Changes, bounds: Vec<TestKey>) -> () {
            let mut log = Log::default();
            let (index, model) = built(&changes, &mut log);
            for key in model.keys().chain(bounds.iter().map(|TestKey(key)| key)) {
                let lower = index.lower_rank(&sought(key, &log));
                let upper = index.upper_rank(&sought(key, &log));
                let below = |end: Bound<&Vec<u8>>| model.range::<Vec<u8>, _>((Bound::Unbounded, end)).count();
                assert_eq!(lower, Ok(below(Bound::Excluded(key))));
                assert_eq!(upper, Ok(below(Bound::Included(key))));
            }
        }

        fn damaged_keys_lead_to_the_right_rank_or_to_an_error(
            changes: Changes, damage: Vec<(usize, TestKey)>, bounds: Vec<TestKey>
        ) -> () {
            let mut log = Log::default();
            let (index, model) = built(&changes, &mut log);
            damage_some(&mut log, damage);
            for key in model.keys().chain(bounds.iter().map(|TestKey(key)| key)) {
                let below = |end: Bound<&Vec<u8>>| model.range::<Vec<u8>, _>((Bound::Unbounded, end)).count();
                let lower = index.lower_rank(&sought(key, &log));
                assert!(lower == Err(Failed) || lower == Ok(below(Bound::Excluded(key))), "{lower:?} of {key:?}");
                let upper = index.upper_rank(&sought(key, &log));
                assert!(upper == Err(Failed) || upper == Ok(below(Bound::Included(key))), "{upper:?} of {key:?}");
            }
        }

        fn changes_over_damaged_keys_happen_in_the_right_place_or_not_at_all(
            before: Changes, damage: Vec<(usize, TestKey)>, during: Vec<Change>, after: Changes
        ) -> () {
            let mut log = Log::default();
            let (mut index, mut model) = built(&before, &mut log);
            damage_some(&mut log, damage);
            for each in &during {
                if let Ok(old) = change(&mut index, each, &mut log) {
                    assert_eq!(old, change_model(&mut model, each, &log));
                }
                assert_is(&index, &model, &log);
            }
            log.repair();
            for each in &after.0 {
                let old = change(&mut index, each, &mut log).unwrap();
                assert_eq!(old, change_model(&mut model, each, &log));
            }
            assert_is(&index, &model, &log);
        }

        fn a_range_gives_each_position_once_whichever_ends_it_is_taken_from(
            changes: Changes, start: u8, end: u8, steps: Vec<Option<bool>>
        ) -> () {
            let mut log = Log::default();
            let (index, model) = built(&changes, &mut log);
            let (start, end) = (usize::from(start), usize::from(end));
            let values: Vec<u64> = model.values().copied().collect();
            let mut expected = values.get(start..end.min(values.len())).unwrap_or_default().iter().copied();
            let mut range = index.range(start..end);
            for step in steps {
                assert_eq!(range.len(), expected.len());
                match step {
                    Some(true) => assert_eq!(range.next(), expected.next()),
                    Some(false) => assert_eq!(range.next_back(), expected.next_back()),
                    None => assert_eq!((range.nth(1), range.nth_back(2)), (expected.nth(1), expected.nth_back(2))),
                }
            }
            assert!(range.rev().eq(expected.rev()));
        }
    }
}
