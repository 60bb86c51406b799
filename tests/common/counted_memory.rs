//! An allocator that counts, for the test programs whose `main.rs` installs it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Counting;

thread_local! {
    /// What this thread has allocated and not given back, less what it has given back of others', and the most that
    /// this ever was.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
    /// How often this thread has asked for memory.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread may allocate while its locals are already gone.
    let _ = HELD.try_with(|held| {
        let (now, peak) = held.get();
        held.set((now + bytes, peak.max(now + bytes)));
    });
    if bytes > 0 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
    }
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both are there for a moment.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, new_size) }
    }
}

/// How many bytes `act` leaves allocated: of this thread's.
pub fn kept_by(act: impl FnOnce()) -> isize {
    let before = HELD.with(|held| held.get().0);
    act();
    HELD.with(|held| held.get().0) - before
}

/// How many bytes `act` holds at most at any moment, beyond what was held before: of this thread's.
pub fn peak_during(act: impl FnOnce()) -> usize {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    act();
    let (_, peak) = HELD.with(Cell::get);
    (peak - before).max(0) as usize
}

/// How often `act` asks for memory: in this thread.
pub fn allocations_of(act: impl FnOnce()) -> usize {
    let before = ASKED.with(Cell::get);
    act();
    ASKED.with(Cell::get) - before
}
