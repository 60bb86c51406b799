//! The line for a lock.
//!
//! In each process, the threads that wait for one lock queue in the order in which they came, and the first of them stands in the line
//! of the file: see [`Line`](crate::engine::write::line::Line). So the first in line alone looks for the end of the holder, and a
//! holder that wants the lock again stands after those that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::deadline::Deadline;
use crate::sync::{Condvar, Mutex, lock};

/// The queues of a handle, by full key.
#[derive(Default)]
pub(crate) struct Queues {
    by_key: Mutex<HashMap<Vec<u8>, VecDeque<Arc<Condvar>>>>,
}

/// A place in a queue. Given up when dropped.
pub(super) struct Place<'q> {
    queues: &'q Queues,
    key: &'q [u8],
    signal: Arc<Condvar>,
}

/// The longest wait for a signal.
const LONGEST: Duration = Duration::from_millis(100);

impl Queues {
    /// Whether a thread of this handle waits for the lock.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        lock(&self.by_key).contains_key(key)
    }

    /// Takes the last place.
    pub(super) fn enter<'q>(&'q self, key: &'q [u8]) -> Place<'q> {
        let signal = Arc::new(Condvar::new());
        lock(&self.by_key).entry(key.to_vec()).or_default().push_back(Arc::clone(&signal));
        Place { queues: self, key, signal }
    }

    /// Wakes all threads that wait for the lock, so that they see that they are to stop.
    pub(super) fn wake(&self, key: &[u8]) {
        let queues = lock(&self.by_key);
        queues.get(key).into_iter().flatten().for_each(|signal| signal.notify_all());
    }
}

impl Place<'_> {
    /// Waits until this place is the first, or until it may be something else to look at. Returns whether it is the first.
    pub(super) fn wait(&self, deadline: &Deadline) -> bool {
        let queues = lock(&self.queues.by_key);
        let is_first = |queues: &HashMap<Vec<u8>, VecDeque<Arc<Condvar>>>| {
            let first = queues.get(self.key).and_then(VecDeque::front);
            first.is_some_and(|first| Arc::ptr_eq(first, &self.signal))
        };
        if is_first(&queues) {
            return true;
        }
        let most = deadline.left().map_or(LONGEST, |left| left.min(LONGEST));
        is_first(&deadline.wait(&self.signal, queues, most))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues.by_key);
        let Some(queue) = queues.get_mut(self.key) else { return };
        queue.retain(|signal| !Arc::ptr_eq(signal, &self.signal));
        match queue.front() {
            Some(next) => next.notify_all(),
            None => drop(queues.remove(self.key)),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::disk::Clock;

    #[test]
    fn places_come_first_in_their_order_and_a_queue_ends_with_its_last_place() {
        let (queues, soon) = (Queues::default(), Deadline::after(&Clock::default(), Some(Duration::ZERO)));
        let (first, second, third) = (queues.enter(b"a"), queues.enter(b"a"), queues.enter(b"a"));
        let other = queues.enter(b"b");
        assert!(first.wait(&soon) && other.wait(&soon) && !second.wait(&soon) && !third.wait(&soon));
        drop(second);
        assert!(!third.wait(&soon));
        drop(first);
        assert!(third.wait(&soon) && queues.has(b"a"));
        drop(third);
        assert!(!queues.has(b"a") && queues.has(b"b"));
    }
}
