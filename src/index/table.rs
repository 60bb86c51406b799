//! A sub-table of the hash index.

use std::convert::Infallible;
use std::mem;

use super::packed::{self, TAG_BITS};

/// An empty slot. No entry looks like this, because no record lies at position 0.
pub(super) const EMPTY: u64 = 0;

/// The capacity of a sub-table's first allocation.
pub(super) const FIRST_CAPACITY: usize = 4;

/// A linear-probe table of tagged positions.
///
/// A walk from an entry's home, around the end if necessary, meets the entry before the first empty slot. At least one
/// slot is always empty, or there are no slots.
#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: Box<[u64]>,
    pub(super) used: usize,
}

/// The end of a probe.
pub(super) enum Place {
    /// The key's slot.
    Occupied(usize),
    /// The first empty slot on the way, where the key would go.
    Vacant(usize),
}

impl Table {
    /// The start of a walk for `tag`. Scaling spreads tags evenly over any capacity; a mask would need a power of two.
    #[inline]
    pub(super) fn home(&self, tag: u64) -> usize {
        ((tag * self.slots.len() as u64) >> TAG_BITS) as usize
    }

    #[inline]
    pub(super) fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The number of steps of a walk from `from` to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    #[inline]
    pub(super) fn probe<E>(&self, tag: u64, mut is_key: impl FnMut(u64) -> Result<bool, E>) -> Result<Place, E> {
        if self.slots.is_empty() {
            return Ok(Place::Vacant(0));
        }
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Ok(Place::Vacant(at));
            }
            if packed::tag(slot) == tag && is_key(packed::position(slot))? {
                return Ok(Place::Occupied(at));
            }
            at = self.after(at);
        }
    }

    /// Stores a new entry. Its probe ended at the empty slot `at`.
    pub(super) fn occupy(&mut self, at: usize, slot: u64) {
        let capacity = self.slots.len();
        // Above four fifths, walks for absent keys get long: 13 slots on average at that load, 50 at nine tenths.
        if (self.used + 1) * 5 > capacity * 4 {
            self.resize(FIRST_CAPACITY.max(capacity + capacity / 2));
            self.place(slot);
        } else {
            self.slots[at] = slot;
        }
        self.used += 1;
    }

    /// Empties the slot at `hole`, and moves later entries back, so that walks need no tombstones and do not get longer
    /// with age.
    pub(super) fn vacate(&mut self, mut hole: usize) -> u64 {
        let slot = self.slots[hole];
        let mut at = self.after(hole);
        while self.slots[at] != EMPTY {
            // An entry may move back to the hole unless its home lies after the hole.
            let home = self.home(packed::tag(self.slots[at]));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
        let capacity = self.slots.len();
        if self.used == 0 {
            self.slots = Box::default();
        } else if capacity > FIRST_CAPACITY && self.used * 5 < capacity {
            // Two fifths full after this: far from growing and from shrinking.
            self.resize(capacity / 2);
        }
        slot
    }

    pub(super) fn resize(&mut self, capacity: usize) {
        let old = mem::replace(&mut self.slots, vec![EMPTY; capacity].into_boxed_slice());
        old.iter().filter(|&&slot| slot != EMPTY).for_each(|&slot| self.place(slot));
    }

    /// Stores an entry that is known to be absent.
    fn place(&mut self, slot: u64) {
        let Ok(place) = self.probe(packed::tag(slot), |_| Ok::<_, Infallible>(false));
        if let Place::Vacant(at) = place {
            self.slots[at] = slot;
        }
    }

    pub(super) fn occupied(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().copied().filter(|&slot| slot != EMPTY)
    }
}
