//! Building the sorted index from the hash index and the log.

use super::entry::{Entry, sort_entries};
use super::{Index, Keys, Positions, SortedIndex};

/// Building reads this many keys at a time, and then asks the hash index about them.
const FETCHED: usize = 64;

/// Building calls its check once for this many keys: every few milliseconds, and about as often as the copy of their records
/// reports its progress.
const CHECKED: usize = 128 * FETCHED;

/// A sorted index that is ready to be installed.
pub(crate) struct Built {
    pub(super) sorted: SortedIndex,
    changes: u64,
}

impl Built {
    /// The first rank at which the other one has another entry, or only one of them has any.
    ///
    /// # Errors
    ///
    /// Those of `keys`, if the other one has stored leaves.
    pub(crate) fn first_difference<K: Keys>(&self, other: &SortedIndex, keys: &K) -> Result<Option<usize>, K::Error> {
        for rank in 0..self.sorted.len().max(other.len()) {
            let (own, other) = (self.sorted.entry(rank, keys)?, other.entry(rank, keys)?);
            if own.map(|entry| entry.to_bytes()) != other.map(|entry| entry.to_bytes()) {
                return Ok(Some(rank));
            }
        }
        Ok(None)
    }

    pub(crate) fn into_sorted(self) -> SortedIndex {
        self.sorted
    }

    /// All positions in the order of their keys.
    pub(crate) fn positions(&self) -> Positions {
        self.sorted.range(0..usize::MAX)
    }
}

impl Index {
    /// Builds the sorted index from the order of a snapshot, if the index has one, otherwise from the hash index and the keys in
    /// the log.
    ///
    /// It only reads, and without an order takes a tenth of a second per million keys at best; [`install_sorted`] needs exclusive
    /// access. `check` is called for every [`CHECKED`] keys that are read, and between reading, sorting and building.
    /// An error of it ends the work.
    ///
    /// [`install_sorted`]: Self::install_sorted
    ///
    /// # Errors
    ///
    /// The first error of `keys` or `check`.
    pub(crate) fn build_sorted<K: Keys>(
        &self,
        keys: &K,
        mut check: impl FnMut() -> Result<(), K::Error>,
    ) -> Result<Built, K::Error> {
        if let Some(order) = &self.order {
            return Ok(Built { sorted: order.build(keys, self.hashed())?, changes: self.changes });
        }
        self.load_all(keys)?;
        let mut positions: Vec<u64> = self.hash.positions().collect();
        // In the order of the log, reading is faster by more than this sort costs. On a cold cache, random order would
        // cost a disk access per key.
        positions.sort_unstable();
        let mut entries = Vec::with_capacity(positions.len());
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(FETCHED));
        for (chunk, positions) in positions.chunks(FETCHED).enumerate() {
            if chunk % (CHECKED / FETCHED) == 0 {
                check()?;
            }
            bytes.clear();
            ends.clear();
            // Fetches the slots of all these keys before the first of them is looked up.
            for &position in positions {
                let start = bytes.len();
                keys.read(position, &mut bytes)?;
                self.prefetch(self.hash(&bytes[start..]));
                ends.push(bytes.len());
            }
            let mut start = 0;
            for (&position, &end) in positions.iter().zip(&ends) {
                let mut key = &bytes[start..end];
                let verified;
                if !self.points_to(key, position) {
                    let mut out = Vec::new();
                    keys.read_verified(position, &mut out)?;
                    if !self.points_to(&out, position) {
                        return Err(keys.not_its_position(position));
                    }
                    verified = out;
                    key = &verified;
                }
                entries.push(Entry::new(key, position));
                start = end;
            }
        }
        check()?;
        let mut read = 0;
        sort_entries(&mut entries, |position, out| {
            read += 1;
            if read % CHECKED == 0 {
                check()?;
            }
            self.key_at(position, keys, out)
        })?;
        check()?;
        Ok(Built { sorted: SortedIndex::from_sorted(&entries), changes: self.changes })
    }

    /// Installs a sorted index, which is kept up from now on. Returns whether there is one now. `false` if the index
    /// has changed since this one was built.
    #[must_use]
    pub(crate) fn install_sorted(&mut self, built: Built) -> bool {
        if self.changes == built.changes {
            (self.sorted, self.order) = (Some(built.sorted), None);
        }
        self.sorted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Failed, Log};
    use super::*;

    #[test]
    fn building_the_sorted_index_stops_when_its_check_fails() {
        let (mut index, mut log) = (Index::default(), Log::default());
        let keys = 3 * CHECKED;
        for number in 0..keys {
            // Alike in their first bytes, so that sorting reads them once more.
            let key = format!("the same beginning for all of them: {number}");
            let position = log.append(key.as_bytes());
            index.put(key.as_bytes(), position, &log).unwrap();
        }
        let mut checks = 0;
        let count = || {
            checks += 1;
            Ok(())
        };
        index.build_sorted(&log, count).unwrap();
        assert_eq!(checks, 2 * (keys / CHECKED) + 2, "while reading and while sorting, and between the parts");
        for fails_at in 1..=checks {
            let (mut calls, before) = (0, log.asked_so_far());
            let fail = || {
                calls += 1;
                if calls == fails_at { Err(Failed) } else { Ok(()) }
            };
            assert!(matches!(index.build_sorted(&log, fail), Err(Failed)));
            assert_eq!(calls, fails_at);
            let most = (fails_at - 1) * CHECKED;
            assert!(log.asked_so_far() - before <= most as u64, "no key is read after the check has failed");
        }
    }
}
