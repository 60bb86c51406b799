//! A sub-table of the hash index.

use std::ops::Deref;
use std::sync::Arc;

use super::packed::{self, TAG_BITS};

/// An empty slot. No entry looks like this, because no record lies at position 0.
pub(super) const EMPTY: u64 = 0;

/// The capacity of a sub-table's first allocation.
pub(super) const FIRST_CAPACITY: usize = 4;

/// A linear-probe table of tagged positions.
///
/// A walk from an entry's home, around the end if necessary, meets the entry before the first empty slot. At least one
/// slot is always empty, or there are no slots.
///
/// A clone shares the slots. The first change after that copies them.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) slots: Slots,
    pub(super) used: usize,
}

/// None of most sub-tables of a small index. An empty `Arc` would be counted each time: 4,096 times in each opening, and as often
/// when the handle ends.
#[derive(Clone, Default)]
pub(super) struct Slots(Option<Arc<[u64]>>);

impl Deref for Slots {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Slots {
    /// The slots of this table alone.
    #[inline]
    fn make_mut(&mut self) -> &mut [u64] {
        self.0.as_mut().map_or(&mut [], Arc::make_mut)
    }
}

/// The end of a probe.
pub(super) enum Place {
    /// The key's slot.
    Occupied(usize),
    /// The first empty slot on the way, where the key would go.
    Vacant(usize),
}

/// The start of a walk for `tag`. Scaling spreads tags evenly over any capacity; a mask would need a power of two.
#[inline]
fn home(slots: &[u64], tag: u64) -> usize {
    ((tag * slots.len() as u64) >> TAG_BITS) as usize
}

#[inline]
fn after(slots: &[u64], at: usize) -> usize {
    if at + 1 == slots.len() { 0 } else { at + 1 }
}

/// The number of steps of a walk from `from` to `to`.
fn distance(slots: &[u64], from: usize, to: usize) -> usize {
    if to >= from { to - from } else { to + slots.len() - from }
}

/// Stores an entry that is known to be absent. There must be an empty slot.
fn place(slots: &mut [u64], slot: u64) {
    let mut at = home(slots, packed::tag(slot));
    while slots[at] != EMPTY {
        at = after(slots, at);
    }
    slots[at] = slot;
}

impl Table {
    /// A table of these entries, all different.
    pub(super) fn of(entries: &[u64]) -> Table {
        let mut table = Table::default();
        if !entries.is_empty() {
            table.rebuild(FIRST_CAPACITY.max(entries.len() * 4 / 3 + 1), entries);
            table.used = entries.len();
        }
        table
    }

    #[inline]
    pub(super) fn home(&self, tag: u64) -> usize {
        home(&self.slots, tag)
    }

    #[cfg(test)]
    pub(super) fn after(&self, at: usize) -> usize {
        after(&self.slots, at)
    }

    #[inline]
    pub(super) fn probe<E>(&self, tag: u64, mut is_key: impl FnMut(u64) -> Result<bool, E>) -> Result<Place, E> {
        let slots = &*self.slots;
        if slots.is_empty() {
            return Ok(Place::Vacant(0));
        }
        let mut at = home(slots, tag);
        loop {
            let slot = slots[at];
            if slot == EMPTY {
                return Ok(Place::Vacant(at));
            }
            if packed::tag(slot) == tag && is_key(packed::position(slot))? {
                return Ok(Place::Occupied(at));
            }
            at = after(slots, at);
        }
    }

    /// Replaces the entry at an occupied slot, and returns the one before.
    #[inline]
    pub(super) fn replace(&mut self, at: usize, slot: u64) -> u64 {
        std::mem::replace(&mut self.slots.make_mut()[at], slot)
    }

    /// Stores a new entry. Its probe ended at the empty slot `at`.
    pub(super) fn occupy(&mut self, at: usize, slot: u64) {
        let capacity = self.slots.len();
        // Above four fifths, walks for absent keys get long: 13 slots on average at that load, 50 at nine tenths.
        if (self.used + 1) * 5 > capacity * 4 {
            self.resize(FIRST_CAPACITY.max(capacity + capacity / 2));
            place(self.slots.make_mut(), slot);
        } else {
            self.slots.make_mut()[at] = slot;
        }
        self.used += 1;
    }

    /// Empties the slot at `hole`, and moves later entries back, so that walks need no tombstones and do not get longer
    /// with age.
    pub(super) fn vacate(&mut self, mut hole: usize) -> u64 {
        let slots = self.slots.make_mut();
        let slot = slots[hole];
        let mut at = after(slots, hole);
        while slots[at] != EMPTY {
            // An entry may move back to the hole unless its home lies after the hole.
            let home = home(slots, packed::tag(slots[at]));
            if distance(slots, home, at) >= distance(slots, hole, at) {
                slots[hole] = slots[at];
                hole = at;
            }
            at = after(slots, at);
        }
        slots[hole] = EMPTY;
        self.used -= 1;
        let capacity = self.slots.len();
        if self.used == 0 {
            self.slots = Slots::default();
        } else if capacity > FIRST_CAPACITY && self.used * 5 < capacity {
            // Two fifths full after this: far from growing and from shrinking.
            self.resize(capacity / 2);
        }
        slot
    }

    pub(super) fn resize(&mut self, capacity: usize) {
        let old = std::mem::take(&mut self.slots);
        self.rebuild(capacity, &old);
    }

    /// New slots with these entries.
    fn rebuild(&mut self, capacity: usize, entries: &[u64]) {
        self.slots = Slots((capacity > 0).then(|| std::iter::repeat_n(EMPTY, capacity).collect()));
        let slots = self.slots.make_mut();
        entries.iter().filter(|&&slot| slot != EMPTY).for_each(|&slot| place(slots, slot));
    }

    pub(super) fn occupied(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().copied().filter(|&slot| slot != EMPTY)
    }
}
