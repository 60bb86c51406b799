//! The keys that expire: the deadline of each, and their order.
//!
//! Only keys whose newest record has a deadline are here, so a store that uses none pays a look at an empty table. Their records
//! are known by position, as everywhere in the index. A look-up finds the deadline of a record that it has found; a sweep takes
//! the first in the order of the deadlines.
//!
//! How many keys are hidden changes by the clock alone. Counting them again at each `len` would cost a walk over all that are over
//! and not yet swept, and so would asking which of them are in a bucket. So a [`Tally`] keeps those of one moment, by their buckets,
//! and moves with the clock, forward and back: each key is counted once.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use crate::sync::{Mutex, lock};

/// The keys that expire, by the positions of their records.
#[derive(Default)]
pub(crate) struct Expiring {
    keys: HashMap<u64, Key>,
    /// Deadline and position.
    order: BTreeSet<(u64, u64)>,
    /// The names of their buckets, and how many keys each has.
    buckets: HashMap<Arc<[u8]>, usize>,
    tally: Mutex<Tally>,
}

struct Key {
    /// Milliseconds since 1970.
    deadline: u64,
    bucket: Arc<[u8]>,
}

/// Which keys are over at a moment.
#[derive(Default)]
struct Tally {
    /// The moment: keys with this deadline, or an earlier one, are counted.
    now: u64,
    hidden: u64,
    /// Their positions. A bucket without such keys is not here.
    by_bucket: HashMap<Arc<[u8]>, BTreeSet<u64>>,
    /// How many keys were added and removed as the clock moved.
    #[cfg(test)]
    moved: u64,
}

impl Tally {
    fn add(&mut self, bucket: &Arc<[u8]>, position: u64) {
        self.hidden += 1;
        self.by_bucket.entry(Arc::clone(bucket)).or_default().insert(position);
    }

    fn subtract(&mut self, bucket: &Arc<[u8]>, position: u64) {
        self.hidden -= 1;
        if let Some(hidden) = self.by_bucket.get_mut(bucket) {
            hidden.remove(&position);
            if hidden.is_empty() {
                self.by_bucket.remove(bucket);
            }
        }
    }
}

impl Expiring {
    /// Whether no key expires.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of keys that expire, hidden ones included.
    pub(crate) fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The positions of their records, in any order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        self.keys.keys().copied()
    }

    /// Adds the key whose record, in this bucket, is at `position`.
    pub(crate) fn add(&mut self, position: u64, bucket: &[u8], deadline: u64) {
        let bucket = match self.buckets.get_key_value(bucket) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(bucket),
        };
        *self.buckets.entry(Arc::clone(&bucket)).or_default() += 1;
        self.order.insert((deadline, position));
        let tally = self.tally.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if deadline <= tally.now {
            tally.add(&bucket, position);
        }
        self.keys.insert(position, Key { deadline, bucket });
    }

    /// Removes the key whose record is at `position`, if it is here: the record was replaced or removed.
    #[inline]
    pub(crate) fn remove(&mut self, position: u64) {
        if !self.keys.is_empty() {
            self.remove_one(position);
        }
    }

    fn remove_one(&mut self, position: u64) {
        let Some(Key { deadline, bucket }) = self.keys.remove(&position) else { return };
        self.order.remove(&(deadline, position));
        let tally = self.tally.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if deadline <= tally.now {
            tally.subtract(&bucket, position);
        }
        if let Some(keys) = self.buckets.get_mut(&bucket) {
            *keys -= 1;
            if *keys == 0 {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// The deadline of the record at `position`, if it has one.
    #[inline]
    pub(crate) fn deadline(&self, position: u64) -> Option<u64> {
        if self.keys.is_empty() { None } else { self.keys.get(&position).map(|key| key.deadline) }
    }

    /// Whether the record at `position` is over. The clock is looked at only if it has a deadline.
    #[inline]
    pub(crate) fn is_over(&self, position: u64, now: impl FnOnce() -> u64) -> bool {
        self.deadline(position).is_some_and(|deadline| now() >= deadline)
    }

    /// The first deadline after this moment.
    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        self.order
            .range((Excluded((now, u64::MAX)), Included((u64::MAX, u64::MAX))))
            .next()
            .map(|&(deadline, _)| deadline)
    }

    /// Whether a key is over.
    pub(crate) fn has_over(&self, now: u64) -> bool {
        self.order.first().is_some_and(|&(deadline, _)| now >= deadline)
    }

    /// The positions of the records that are over, in the order of their deadlines.
    pub(crate) fn over(&self, now: u64) -> impl Iterator<Item = u64> + '_ {
        self.order.range(..=(now, u64::MAX)).map(|&(_, position)| position)
    }

    /// Those of them that are in a bucket, in any order. Others cost nothing.
    pub(crate) fn over_in(&self, bucket: &[u8], now: u64) -> Vec<u64> {
        self.at(now, |tally| tally.by_bucket.get(bucket).into_iter().flatten().copied().collect())
    }

    /// How many keys are over.
    pub(crate) fn hidden(&self, now: u64) -> u64 {
        self.at(now, |tally| tally.hidden)
    }

    /// How many keys of the bucket are over.
    pub(crate) fn hidden_in(&self, bucket: &[u8], now: u64) -> u64 {
        self.at(now, |tally| tally.by_bucket.get(bucket).map_or(0, |hidden| hidden.len() as u64))
    }

    /// How many keys are over in each bucket that has such keys.
    pub(crate) fn hidden_by_bucket(&self, now: u64) -> HashMap<Arc<[u8]>, u64> {
        self.at(now, |tally| {
            let buckets = tally.by_bucket.iter();
            buckets.map(|(bucket, hidden)| (Arc::clone(bucket), hidden.len() as u64)).collect()
        })
    }

    /// Asks the tally of a moment.
    fn at<T>(&self, now: u64, ask: impl FnOnce(&Tally) -> T) -> T {
        let mut tally = lock(&self.tally);
        let before = tally.now;
        // Each key between the two moments is counted, or no longer.
        for &(_, position) in
            self.order.range((Excluded((before.min(now), u64::MAX)), Included((before.max(now), u64::MAX))))
        {
            let Some(Key { bucket, .. }) = self.keys.get(&position) else { continue };
            if now > before {
                tally.add(bucket, position)
            } else {
                tally.subtract(bucket, position)
            }
            #[cfg(test)]
            {
                tally.moved += 1;
            }
        }
        tally.now = now;
        ask(&tally)
    }

    /// Whether both have the same records and deadlines.
    pub(crate) fn is_same(&self, other: &Expiring) -> bool {
        self.order == other.order
    }

    /// Bytes allocated, about: how full the nodes of the order are is not known.
    pub(crate) fn memory(&self) -> usize {
        let key = size_of::<(u64, Key)>() + 1;
        let hidden = lock(&self.tally).hidden as usize * size_of::<u64>() * 3 / 2;
        self.keys.capacity() * key + self.order.len() * size_of::<(u64, u64)>() * 3 / 2 + hidden
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn counts(expiring: &Expiring, now: u64) -> (u64, u64, u64) {
        (expiring.hidden(now), expiring.hidden_in(b"", now), expiring.hidden_in(b"log", now))
    }

    #[test]
    fn keys_are_counted_by_the_clock_forward_and_back() {
        let mut expiring = Expiring::default();
        assert_eq!(counts(&expiring, 100), (0, 0, 0));
        for (position, bucket, deadline) in [(64, &b""[..], 10), (128, b"log", 20), (192, b"", 20), (256, b"", 30)] {
            expiring.add(position, bucket, deadline);
        }
        for (now, found) in [(9, (0, 0, 0)), (10, (1, 1, 0)), (25, (3, 2, 1)), (10, (1, 1, 0)), (u64::MAX, (4, 3, 1))] {
            assert_eq!(counts(&expiring, now), found, "at {now}");
        }
        // What changes below the moment that was counted last is counted at once.
        expiring.remove(192);
        expiring.remove(193);
        expiring.add(320, b"log", 5);
        assert_eq!(counts(&expiring, u64::MAX), (4, 2, 2));
        assert_eq!(counts(&expiring, 7), (1, 0, 1));
        assert_eq!(expiring.over(20).collect::<Vec<_>>(), [320, 64, 128]);
        assert_eq!(expiring.over_in(b"log", 20), [128, 320]);
        assert_eq!(expiring.over_in(b"log", 19), [320]);
        assert_eq!(expiring.over_in(b"none", 19), []);
        assert_eq!(
            [0, 5, 10, 29, 30].map(|now| expiring.next_deadline(now)),
            [Some(5), Some(10), Some(20), Some(30), None]
        );
        assert!(!expiring.has_over(4) && expiring.has_over(5));
        [64, 128, 256, 320].into_iter().for_each(|position| expiring.remove(position));
        assert!(expiring.is_empty() && expiring.order.is_empty() && expiring.buckets.is_empty());
        assert_eq!(counts(&expiring, 30), (0, 0, 0));
    }

    /// Each list of a bucket walked all keys that were over in the others.
    #[test]
    fn a_bucket_does_not_pay_for_what_is_over_in_another() {
        let mut expiring = Expiring::default();
        (0..1000).for_each(|n| expiring.add(64 * n, b"other", 10));
        expiring.add(64_000, b"log", 10);
        assert_eq!(expiring.over_in(b"log", 10), [64_000]);
        let moved = |expiring: &Expiring| lock(&expiring.tally).moved;
        assert_eq!(moved(&expiring), 1001, "each key once, as the clock moves");
        for now in [10, 20] {
            assert_eq!(expiring.over_in(b"log", now), [64_000]);
            assert_eq!((expiring.hidden_in(b"log", now), expiring.hidden(now)), (1, 1001));
        }
        assert_eq!(moved(&expiring), 1001);
    }

    #[test]
    fn a_key_is_over_from_its_deadline_on() {
        let mut expiring = Expiring::default();
        expiring.add(64, b"", 1000);
        assert_eq!([999, 1000, 1001].map(|now| expiring.is_over(64, || now)), [false, true, true]);
        assert!(!expiring.is_over(72, || panic!("it has no deadline, so no clock is needed")));
    }
}
