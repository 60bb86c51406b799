//! One sub-table of the hash index.

use std::convert::Infallible;
use std::mem;

use super::packed::{self, TAG_BITS};

/// A slot that holds nothing. No entry looks like this, because no record lies at position 0.
pub(super) const EMPTY: u64 = 0;

/// The capacity of a sub-table's first allocation.
pub(super) const FIRST_CAPACITY: usize = 4;

/// One linear-probe table of tagged positions.
///
/// Walking from an entry's home (round the end, if need be) one meets the entry before the first empty slot. At least
/// one slot is always empty, or there are no slots at all.
#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: Box<[u64]>,
    pub(super) used: usize,
}

/// Where a probe ended.
pub(super) enum Place {
    /// At the key's slot.
    Occupied(usize),
    /// At the first empty slot on the way, where the key would go.
    Vacant(usize),
}

impl Table {
    /// Where the walk of `tag` starts. Scaling spreads tags evenly over any capacity; a mask would need a power of two.
    #[inline]
    pub(super) fn home(&self, tag: u64) -> usize {
        ((tag * self.slots.len() as u64) >> TAG_BITS) as usize
    }

    #[inline]
    pub(super) fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// How many steps a walk takes from `from` to `to`.
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

    /// Stores a new entry, whose probe ended at the empty slot `at`.
    pub(super) fn occupy(&mut self, at: usize, slot: u64) {
        let capacity = self.slots.len();
        // Above four fifths the walks of absent keys get long: 13 slots on average there, 50 at nine tenths.
        if (self.used + 1) * 5 > capacity * 4 {
            self.resize(FIRST_CAPACITY.max(capacity + capacity / 2));
            self.place(slot);
        } else {
            self.slots[at] = slot;
        }
        self.used += 1;
    }

    /// Empties the slot at `hole`, and moves back what was pushed past it: no tombstones, so walks never get longer
    /// with age.
    pub(super) fn vacate(&mut self, mut hole: usize) -> u64 {
        let slot = self.slots[hole];
        let mut at = self.after(hole);
        while self.slots[at] != EMPTY {
            // An entry may move back to the hole unless its home lies behind the hole.
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
            // Two fifths full after this: far from growing again, and from shrinking further.
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
