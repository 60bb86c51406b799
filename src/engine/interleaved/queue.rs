//! The queue of writers, in every order that three threads can run in.
//!
//! The work is a number, doing it is to write it into a shared log, and the outcome is its place there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::in_every_order;
use crate::engine::lock_wait::Deadline;
use crate::engine::queue::{Entered, Leader, Queue};
use crate::sync::{AtomicBool, Mutex, thread};

/// What was written, by nobody but the holder of the leader.
#[derive(Default)]
struct Log {
    written: Mutex<Vec<u32>>,
    /// Somebody is writing.
    busy: AtomicBool,
}

#[derive(Default)]
struct Shared {
    queue: Queue<u32, Option<usize>>,
    log: Log,
}

impl Log {
    fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two have the leader");
        let done = act();
        self.busy.store(false, Ordering::SeqCst);
        done
    }
}

/// What a writer was notified.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Written(usize),
    Abandoned,
    TimedOut,
}

impl Shared {
    fn enter(&self, work: Option<u32>, patience: Option<Duration>) -> Entered<'_, u32, Option<usize>> {
        self.queue.enter(work, &Deadline::after(patience), || None)
    }

    fn write(&self, number: u32, patience: Option<Duration>) -> Told {
        match self.enter(Some(number), patience) {
            Entered::Leader(leader) => Told::Written(self.lead(leader)),
            Entered::Done(Some(place)) => Told::Written(place),
            Entered::Done(None) => Told::Abandoned,
            Entered::TimedOut => Told::TimedOut,
        }
    }

    /// Writes for all who wait, and returns the place of one's own.
    fn lead(&self, mut leader: Leader<'_, u32, Option<usize>>) -> usize {
        let (first, count) = self.log.alone(|| {
            let work = leader.take_work(|_| true);
            let mut written = self.log.written.lock().unwrap();
            let first = written.len();
            written.extend(&work);
            (first, work.len())
        });
        leader.settle((first..first + count).map(Some)).flatten().unwrap()
    }

    /// The work is in the log once, and nowhere but where its writer was notified.
    fn check(&self, number: u32, notified: &Told) {
        let written = self.log.written.lock().unwrap();
        let places: Vec<usize> = (0..written.len()).filter(|&place| written[place] == number).collect();
        match notified {
            Told::Written(place) => assert_eq!(places, [*place]),
            Told::Abandoned | Told::TimedOut => assert!(places.is_empty(), "{number} was written all the same"),
        }
    }
}

/// Two threads beside this one, which are joined.
fn beside<A: Send + 'static, B: Send + 'static>(
    first: impl FnOnce() -> A + Send + 'static,
    second: impl FnOnce() -> B + Send + 'static,
    own: impl FnOnce(),
) -> (A, B) {
    let (first, second) = (thread::spawn(first), thread::spawn(second));
    own();
    (first.join().unwrap(), second.join().unwrap())
}

#[test]
fn whoever_writes_for_whom_each_is_told_the_place_of_its_own() {
    in_every_order("three writers", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            let notified = shared.write(3, None);
            shared.check(3, &notified);
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert_eq!(shared.log.written.lock().unwrap().len(), 3);
    });
}

#[test]
fn who_watches_before_it_sleeps_is_told_the_place_of_its_own() {
    in_every_order("two writers who watch", || {
        let shared = Arc::new(Shared { queue: Queue::of_short_turns(), log: Log::default() });
        let other = Arc::clone(&shared);
        let other = thread::spawn(move || [1, 2].map(|number| (number, other.write(number, None))));
        let notified = [3, 4].map(|number| (number, shared.write(number, None)));
        for (number, notified) in notified.into_iter().chain(other.join().unwrap()) {
            shared.check(number, &notified);
        }
        assert_eq!(shared.log.written.lock().unwrap().len(), 4);
    });
}

#[test]
fn who_wants_to_be_alone_is_alone_and_holds_nobody_up_for_ever() {
    in_every_order("two writers and one who wants to be alone", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || match shared.enter(None, None) {
            Entered::Leader(_leader) => shared.log.alone(|| ()),
            _ => panic!("nobody does nothing for another"),
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert_eq!(shared.log.written.lock().unwrap().len(), 2);
    });
}

#[test]
fn who_has_no_time_leaves_and_the_others_go_on() {
    in_every_order("two writers and one without time", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            let notified = shared.write(3, Some(Duration::ZERO));
            shared.check(3, &notified);
        });
        assert!(matches!((&one, &two), (Told::Written(_), Told::Written(_))));
        shared.check(1, &one);
        shared.check(2, &two);
    });
}

#[test]
fn a_leader_that_dies_with_the_work_of_others_leaves_nobody_waiting() {
    in_every_order("two writers and a leader that dies", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            if let Entered::Leader(mut leader) = shared.enter(Some(3), None) {
                // As a panic does: the leader is dropped with the work that was taken.
                leader.take_work(|_| true);
            }
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert!(one != Told::TimedOut && two != Told::TimedOut);
    });
}
