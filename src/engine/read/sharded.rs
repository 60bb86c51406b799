//! A reader-writer lock for a value that many threads read and one thread changes now and then.
//!
//! Every reader of an `RwLock` changes one shared counter, so that its cache line moves between the cores with each read. This
//! lock has several slots, each an `RwLock` in cache lines of its own. A reader locks the slot of its thread; a writer locks all
//! slots, in order. INTERNALS.md has the figures.
//!
//! A lock of the standard library contains the value that it protects, and none of several locks can contain the one value.
//! So the value lies beside the slots, in an `UnsafeCell`, which needs `unsafe`.

use std::array;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Each slot adds 15 to 25 ns to a change of the value. Threads get slots in turn, in the order in which they first read.
const SLOTS: usize = 4;

/// Alone in its cache line, and in the neighbour that is fetched with it.
#[derive(Default)]
#[repr(align(128))]
struct Slot(RwLock<()>);

pub(crate) struct ShardedLock<T> {
    slots: [Slot; SLOTS],
    /// Read with any slot locked, changed with all slots locked for writing.
    value: UnsafeCell<T>,
}

// SAFETY: as for `RwLock`: several threads have references to the value at once, so it must be `Sync`; a `WriteGuard` can
// take the value out and put another one in, so it must be `Send`.
unsafe impl<T: Send + Sync> Sync for ShardedLock<T> {}

/// The value does not change while this lives.
pub(crate) struct ReadGuard<'l, T> {
    // Not a `&T`: the compiler assumes that a `&T` in an argument is valid until the function returns, even if the
    // function drops this guard before.
    value: &'l UnsafeCell<T>,
    #[expect(dead_code, reason = "held for its lock")]
    slot: RwLockReadGuard<'l, ()>,
}

/// Exclusive access to the value while this lives.
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
        // In order, so that of two writers one waits for the first slot, and holds none that the other needs.
        let slots = array::from_fn(|n| self.slots[n].0.write().unwrap_or_else(PoisonError::into_inner));
        WriteGuard { value: &self.value, slots }
    }

    /// Returns `None` if another thread reads or changes the value.
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
        // SAFETY: a `&mut T` is made only from a `WriteGuard`, which holds all slots for writing. An earlier one has released
        // the slot that `self` has locked; a later one waits for it. The reference lives no longer than `self`.
        unsafe { &*self.value.get() }
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as below. While this reference lives, `self` is borrowed, so `deref_mut` cannot be called.
        unsafe { &*self.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `self` holds every slot for writing, so there is no `ReadGuard` and no other `WriteGuard` of this value, and
        // no reference that was made from one, since such a reference borrows its guard. `self` is borrowed mutably while
        // this reference lives, so no second one is made from it.
        unsafe { &mut *self.value.get() }
    }
}

/// The slot of this thread, the same in all locks.
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

/// To the standard library, all threads of a checker are one.
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
    use crate::patience::with_a_deadline;

    #[test]
    fn successive_threads_get_different_slots() {
        let Some(()) = with_a_deadline(successive_threads_get_different_slots) else { return };
        // Threads of other tests take slots too, so two in a row may have the same; 64 have all.
        let slots: Vec<usize> = (0..64).map(|_| thread::spawn(own_slot).join().unwrap()).collect();
        assert!((0..SLOTS).all(|slot| slots.contains(&slot)), "{slots:?}");
    }

    #[test]
    fn all_changes_count_and_no_reader_sees_half_of_one() {
        let Some(()) = with_a_deadline(all_changes_count_and_no_reader_sees_half_of_one) else { return };
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
                        if pair.0 % 16 == 0 {
                            // Lets readers run, which must not see this.
                            thread::yield_now();
                        }
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
    fn try_write_succeeds_only_while_no_thread_reads() {
        let Some(()) = with_a_deadline(try_write_succeeds_only_while_no_thread_reads) else { return };
        let value = ShardedLock::new(1);
        // Once for each slot.
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
    fn a_panic_of_a_writer_does_not_lock_others_out() {
        let Some(()) = with_a_deadline(a_panic_of_a_writer_does_not_lock_others_out) else { return };
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
