//! A lock for what many threads read at the same time, and one of them changes now and then.
//!
//! Who reads under an `RwLock` counts itself in and out, at one place for all: with two threads on two cores each look-up
//! waited for that place to come over from the other core, twice, and of what two threads could have read a quarter was
//! lost that way, or half where the key is absent. Here are several locks beside each other, of which each thread has one
//! for its reads; who changes the value takes all of them, in their order.
//!
//! The standard library's locks know what they protect by holding it, and none of several can hold the one value. So the
//! value lies beside them, in an `UnsafeCell`, which needs `unsafe`.

use std::array;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Each of them costs a change of the value 15 to 25 ns. Threads are numbered in the order in which they came, so those
/// that were started together have one each, up to this number; with eight, two threads read no more than with four.
const SLOTS: usize = 4;

/// Alone in its cache line, and in the one that is fetched along with it.
#[derive(Default)]
#[repr(align(128))]
struct Slot(RwLock<()>);

pub(crate) struct ShardedLock<T> {
    slots: [Slot; SLOTS],
    /// Read by who holds any of the slots, changed by who holds all of them for writing.
    value: UnsafeCell<T>,
}

// SAFETY: as for `RwLock`: references to the value go to several threads at once, so it must be `Sync`, and who holds all
// slots may take it out and put another in, so it must be `Send`.
unsafe impl<T: Send + Sync> Sync for ShardedLock<T> {}

/// The value does not change while this lives.
pub(crate) struct ReadGuard<'l, T> {
    // No reference: it would promise that the value does not change until the function returns which this was given to.
    value: &'l UnsafeCell<T>,
    #[expect(dead_code, reason = "held for its lock")]
    slot: RwLockReadGuard<'l, ()>,
}

/// Nobody else looks at the value while this lives.
pub(crate) struct WriteGuard<'l, T> {
    value: &'l UnsafeCell<T>,
    #[expect(dead_code, reason = "held for their locks")]
    slots: [RwLockWriteGuard<'l, ()>; SLOTS],
}

impl<T> ShardedLock<T> {
    pub(crate) fn new(value: T) -> ShardedLock<T> {
        ShardedLock { slots: Default::default(), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        let slot = self.slots[own_slot()].0.read().unwrap_or_else(PoisonError::into_inner);
        ReadGuard { value: &self.value, slot }
    }

    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        // From the first to the last, so that of two that change it one waits for the other with nothing in its hands
        // that this one needs.
        let slots = array::from_fn(|n| self.slots[n].0.write().unwrap_or_else(PoisonError::into_inner));
        WriteGuard { value: &self.value, slots }
    }

    /// `None` if somebody holds it.
    pub(crate) fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let slots = self.slots.each_ref().map(|slot| match slot.0.try_write() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        slots
            .iter()
            .all(Option::is_some)
            .then(|| WriteGuard { value: &self.value, slots: slots.map(|slot| slot.expect("looked at before")) })
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever made a `&mut T` held all slots for writing, and gave up the one of which this holds the read
        // lock before that was given out; the next one to hold them all waits for this. The reference lives no longer
        // than `self`, which keeps the slot.
        unsafe { &*self.value.get() }
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as below; while this reference lives, `self` is borrowed and `deref_mut` cannot be called.
        unsafe { &*self.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `self` holds every slot for writing, so there is no `ReadGuard` and no other `WriteGuard` of this value, and
        // no reference that was made from one, as those borrow it. `self` is borrowed mutably as long as this reference
        // lives, so no second one is made from it.
        unsafe { &mut *self.value.get() }
    }
}

/// The same for all reads of a thread, whichever lock they are of.
#[cfg(not(all(test, any(loom, shuttle))))]
#[inline]
fn own_slot() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<u8>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let next = (THREADS.fetch_add(1, Ordering::Relaxed) % SLOTS) as u8;
            own.set(Some(next));
            next
        })
    })
    .into()
}

/// The threads of a checker are one to the standard library.
#[cfg(all(test, any(loom, shuttle)))]
fn own_slot() -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    crate::sync::thread::current().id().hash(&mut hasher);
    hasher.finish() as usize % SLOTS
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_come_one_after_the_other_have_slots_of_their_own() {
        // Those of other tests come in between, so this does not always hold for two; among many there are all.
        let slots: Vec<usize> = (0..64).map(|_| thread::spawn(own_slot).join().unwrap()).collect();
        assert!((0..SLOTS).all(|slot| slots.contains(&slot)), "{slots:?}");
    }

    #[test]
    fn what_all_have_changed_is_there_and_nobody_sees_half_of_it() {
        const TIMES: u64 = if cfg!(miri) { 20 } else { 2000 };
        let pair = &ShardedLock::new((0_u64, 0_u64));
        let start = &Barrier::new(2 * SLOTS);
        thread::scope(|scope| {
            for _ in 0..SLOTS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..TIMES {
                        let mut pair = pair.write();
                        pair.0 += 1;
                        // For those who must not look now.
                        thread::yield_now();
                        pair.1 += 1;
                    }
                });
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..TIMES {
                        let pair = pair.read();
                        assert_eq!(pair.0, pair.1);
                    }
                });
            }
        });
        assert_eq!(*pair.read(), (SLOTS as u64 * TIMES, SLOTS as u64 * TIMES));
    }

    #[test]
    fn who_does_not_wait_gets_it_only_if_nobody_reads() {
        let value = ShardedLock::new(1);
        // Whichever slot they have.
        for _ in 0..SLOTS {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let reading = value.read();
                    assert!(value.try_write().is_none());
                    drop(reading);
                    *value.try_write().unwrap() += 1;
                });
            });
        }
        assert_eq!(*value.read(), 1 + SLOTS);
    }

    #[test]
    fn a_panic_of_who_changes_it_leaves_it_to_others() {
        let value = &ShardedLock::new(1);
        let died = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _held = value.write();
                    panic!("while it holds all slots");
                })
                .join()
        });
        assert!(died.is_err());
        *value.write() = 2;
        assert_eq!(*value.read(), 2);
        assert!(value.try_write().is_some());
    }
}
