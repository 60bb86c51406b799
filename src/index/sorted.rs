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
use super::tree::{Inserted, Leaf, Node};

/// The positions of the live records in the order of their keys.
///
/// Where keys are alike in their first 18 bytes, and longer, the methods ask `compare`: how the key of the record at a
/// position compares with the key that was given, thus `stored.cmp(key)`. It may be asked about records that are
/// replaced or deleted by now, but never about a position that was not inserted.
///
/// Every operation takes logarithmic time, and asks as often.
#[derive(Clone)]
pub(crate) struct SortedIndex {
    root: Node,
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

    /// Puts the key at `position`, and returns the position where it was, or `None` if it is new.
    ///
    /// # Errors
    ///
    /// The first error of `compare`; the index is unchanged then.
    ///
    /// # Panics
    ///
    /// If `position` is not one: see [`POSITION_LIMIT`](super::POSITION_LIMIT).
    pub(crate) fn insert<E>(
        &mut self,
        key: &[u8],
        position: u64,
        compare: impl FnMut(u64) -> Result<Ordering, E>,
    ) -> Result<Option<u64>, E> {
        let prefix = Prefix::of(key);
        let inserted = self.root.insert(Entry::with_prefix(prefix, position), &mut Probe { prefix, compare })?;
        Ok(match inserted {
            Inserted::Replaced(old) => Some(old),
            Inserted::Added => None,
            Inserted::Split(new) => {
                self.root.grow(new);
                None
            }
        })
    }

    /// Takes the key out and returns the position where it was, or `None` if it was not there.
    ///
    /// # Errors
    ///
    /// The first error of `compare`; the index is unchanged then.
    pub(crate) fn remove<E>(
        &mut self,
        key: &[u8],
        compare: impl FnMut(u64) -> Result<Ordering, E>,
    ) -> Result<Option<u64>, E> {
        let removed = self.root.remove(&mut Probe { prefix: Prefix::of(key), compare })?;
        self.root.shrink();
        Ok(removed.map(|entry| entry.position()))
    }

    /// How many keys are less than `key`: the rank where a range begins that includes it, and where one ends that
    /// excludes it.
    ///
    /// # Errors
    ///
    /// The first error of `compare`.
    pub(crate) fn lower_rank<E>(
        &self,
        key: &[u8],
        compare: impl FnMut(u64) -> Result<Ordering, E>,
    ) -> Result<usize, E> {
        Ok(self.rank(key, compare)?.unwrap_or_else(|rank| rank))
    }

    /// How many keys are less than `key` or equal to it: the rank where a range begins that excludes it, and where one
    /// ends that includes it.
    ///
    /// # Errors
    ///
    /// The first error of `compare`.
    pub(crate) fn upper_rank<E>(
        &self,
        key: &[u8],
        compare: impl FnMut(u64) -> Result<Ordering, E>,
    ) -> Result<usize, E> {
        Ok(self.rank(key, compare)?.map_or_else(|rank| rank, |rank| rank + 1))
    }

    fn rank<E>(&self, key: &[u8], compare: impl FnMut(u64) -> Result<Ordering, E>) -> Result<Result<usize, usize>, E> {
        self.root.rank(&mut Probe { prefix: Prefix::of(key), compare })
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
    use super::super::testing::{Change, Changes, Failed, Log, TestKey};
    use super::super::{Keys, sort_entries};
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    type Model = BTreeMap<Vec<u8>, u64>;

    fn change(index: &mut SortedIndex, change: &Change, log: &mut Log) -> Result<Option<u64>, Failed> {
        match change {
            Change::Put(TestKey(key)) => {
                let position = log.append(key);
                index.insert(key, position, |at| log.compare(at, key))
            }
            Change::Delete(TestKey(key)) => index.remove(key, |at| log.compare(at, key)),
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

    fn assert_is(index: &SortedIndex, model: &Model, log: &Log) {
        index.root.check(&|position| log.key(position));
        assert_eq!(index.len(), model.len());
        assert!(index.range(0..index.len()).eq(model.values().copied()));
    }

    #[test]
    fn an_index_without_keys_has_no_ranks_and_no_positions() {
        let index = SortedIndex::default();
        assert_eq!(index.len(), 0);
        assert_eq!(index.lower_rank(b"", |_| Err(())), Ok(0));
        assert_eq!(index.upper_rank(&[0xFF; 40], |_| Err(())), Ok(0));
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
            index.insert(&number.to_be_bytes(), number * 8 + 8, |_| Err(())).unwrap();
        }
        for number in 0..1000u64 {
            assert_eq!(index.remove(&number.to_be_bytes(), |_| Err(())), Ok(Some(number * 8 + 8)));
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
        index.insert(&7u64.to_be_bytes(), 8, |_| Err(())).unwrap();
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
                let lower = index.lower_rank(key, |at| log.compare(at, key));
                let upper = index.upper_rank(key, |at| log.compare(at, key));
                let below = |end: Bound<&Vec<u8>>| model.range::<Vec<u8>, _>((Bound::Unbounded, end)).count();
                assert_eq!(lower, Ok(below(Bound::Excluded(key))));
                assert_eq!(upper, Ok(below(Bound::Included(key))));
            }
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
