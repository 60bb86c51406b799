//! The lock that the view is behind, in many orders of four threads.
//!
//! (Not with loom: of its `RwLock`, version 0.7 lets a thread go on that does not have it yet.)

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::in_many_orders;
use crate::engine::spread::ShardedLock;
use crate::sync::{AtomicU64, thread};

/// Knows who is in it.
#[derive(Default)]
struct Guarded {
    looking: AtomicU64,
    changing: AtomicU64,
    changes: u64,
}

impl Guarded {
    fn look(&self) -> u64 {
        self.looking.fetch_add(1, Ordering::SeqCst);
        let changes = self.changes;
        thread::yield_now();
        assert_eq!((self.changing.load(Ordering::SeqCst), self.changes), (0, changes));
        self.looking.fetch_sub(1, Ordering::SeqCst);
        changes
    }

    fn change(&mut self) {
        assert_eq!(self.changing.fetch_add(1, Ordering::SeqCst), 0);
        thread::yield_now();
        assert_eq!(self.looking.load(Ordering::SeqCst), 0);
        self.changes += 1;
        self.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn whoever_changes_the_value_is_alone_with_it_and_who_looks_later_sees_the_change() {
    in_many_orders(|| {
        let lock = Arc::new(ShardedLock::new(Guarded::default()));
        let looking = |lock: &Arc<ShardedLock<Guarded>>| {
            let lock = Arc::clone(lock);
            thread::spawn(move || {
                let first = lock.read().look();
                assert!(lock.read().look() >= first);
            })
        };
        let changing = Arc::clone(&lock);
        let threads = [looking(&lock), looking(&lock), thread::spawn(move || changing.write().change())];
        let changed = lock.try_write().map(|mut alone| alone.change()).is_some();
        lock.write().change();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(lock.read().look(), 2 + u64::from(changed));
    });
}
