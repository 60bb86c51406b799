//! The view's lock, in many orders of four threads.
//!
//! Not with loom: the `RwLock` of version 0.7 lets a thread go on that does not have the lock yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::in_many_orders;
use crate::engine::read::sharded::ShardedLock;
use crate::sync::{AtomicU64, thread};

/// A value that counts the threads that read and change it.
#[derive(Default)]
struct Guarded {
    readers: AtomicU64,
    writers: AtomicU64,
    changes: u64,
}

impl Guarded {
    fn read(&self) -> u64 {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let changes = self.changes;
        thread::yield_now();
        assert_eq!((self.writers.load(Ordering::SeqCst), self.changes), (0, changes));
        self.readers.fetch_sub(1, Ordering::SeqCst);
        changes
    }

    fn change(&mut self) {
        assert_eq!(self.writers.fetch_add(1, Ordering::SeqCst), 0);
        thread::yield_now();
        assert_eq!(self.readers.load(Ordering::SeqCst), 0);
        self.changes += 1;
        self.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_writer_is_alone_with_the_value_and_later_readers_see_its_change() {
    in_many_orders(|| {
        let lock = Arc::new(ShardedLock::new(Guarded::default()));
        let reader = |lock: &Arc<ShardedLock<Guarded>>| {
            let lock = Arc::clone(lock);
            thread::spawn(move || {
                let first = lock.read().read();
                assert!(lock.read().read() >= first);
            })
        };
        let writer = Arc::clone(&lock);
        let threads = [reader(&lock), reader(&lock), thread::spawn(move || writer.write().change())];
        let changed = lock.try_write().map(|mut alone| alone.change()).is_some();
        lock.write().change();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(lock.read().read(), 2 + u64::from(changed));
    });
}
