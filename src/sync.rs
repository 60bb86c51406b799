//! The engine's locks, atomics and threads: the standard library's.
//!
//! In this crate's own tests, `--cfg loom` and `--cfg shuttle` replace them with those of a checker. It runs the
//! threads of a test one at a time, and chooses at each step which thread runs next: see `engine/interleaved.rs`.

use std::sync::PoisonError;

#[cfg(not(all(test, any(loom, shuttle))))]
pub(crate) use std::{sync, thread};

#[cfg(all(test, loom))]
pub(crate) use loom::{sync, thread};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{sync, thread};

pub(crate) use sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks a mutex. The poisoning of the standard library's locks is passed over: the view changes by whole units, and a turn that
/// ends in a panic poisons the handle.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
