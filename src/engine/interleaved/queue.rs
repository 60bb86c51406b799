//! The queue of writers, in every order in which three threads can run.
//!
//! The work is a number. To do it is to append it to a shared log. The outcome is its place there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::in_every_order;
use crate::disk::Clock;
use crate::engine::deadline::Deadline;
use crate::engine::write::queue::{Entered, Leader, Queue};
use crate::sync::{AtomicBool, Mutex, thread};

/// What leaders have written.
#[derive(Default)]
struct Log {
    written: Mutex<Vec<u32>>,
    /// A leader is writing.
    busy: AtomicBool,
}

#[derive(Default)]
struct Shared {
    queue: Queue<u32, Option<usize>>,
    log: Log,
}

impl Log {
    fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two threads lead");
        let done = act();
        self.busy.store(false, Ordering::SeqCst);
        done
    }
}

/// What a writer got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Written(usize),
    Abandoned,
    TimedOut,
}

impl Shared {
    fn enter(&self, work: Option<u32>, patience: Option<Duration>) -> Entered<'_, u32, Option<usize>> {
        self.queue.enter(work, &Deadline::after(&Clock::default(), patience), || None)
    }

    fn write(&self, number: u32, patience: Option<Duration>) -> Got {
        match self.enter(Some(number), patience) {
            Entered::Leader(leader) => Got::Written(self.lead(leader, None)),
            Entered::Done(Some(place)) => Got::Written(place),
            Entered::Done(None) => Got::Abandoned,
            Entered::TimedOut => Got::TimedOut,
        }
    }

    /// As a request does that only its own thread can write.
    fn write_at_once(&self, number: u32) -> Got {
        match self.queue.try_lead(|| None) {
            Some(leader) => Got::Written(self.lead(leader, Some(number))),
            None => self.write(number, None),
        }
    }

    /// Writes for all waiters, and returns the place of the leader's number, which is `own` or waits with the others.
    fn lead(&self, mut leader: Leader<'_, u32, Option<usize>>, own: Option<u32>) -> usize {
        let (first, count) = self.log.alone(|| {
            let work: Vec<u32> = own.into_iter().chain(leader.take_work(|_| true)).collect();
            let mut written = self.log.written.lock().unwrap();
            let first = written.len();
            written.extend(&work);
            (first, work.len())
        });
        leader.settle((first..first + count).map(Some)).flatten().unwrap()
    }

    /// The work is in the log once, at the place that its writer got. Or it is not in the log, and its writer got no
    /// place.
    fn check(&self, number: u32, got: &Got) {
        let written = self.log.written.lock().unwrap();
        let places: Vec<usize> = (0..written.len()).filter(|&place| written[place] == number).collect();
        match got {
            Got::Written(place) => assert_eq!(places, [*place]),
            Got::Abandoned | Got::TimedOut => assert!(places.is_empty(), "{number} was written nevertheless"),
        }
    }
}

/// Runs two threads beside this one, and joins them.
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
fn each_writer_gets_its_own_place_whichever_thread_led() {
    in_every_order("three writers", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            let got = shared.write(3, None);
            shared.check(3, &got);
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert_eq!(shared.log.written.lock().unwrap().len(), 3);
    });
}

#[test]
fn writers_that_lead_at_once_if_they_can_get_their_own_places() {
    in_every_order("two writers that lead at once", || {
        let shared = Arc::new(Shared::default());
        let other = Arc::clone(&shared);
        let other = thread::spawn(move || [1, 2].map(|number| (number, other.write_at_once(number))));
        let got = [3, 4].map(|number| (number, shared.write_at_once(number)));
        for (number, got) in got.into_iter().chain(other.join().unwrap()) {
            shared.check(number, &got);
        }
        assert_eq!(shared.log.written.lock().unwrap().len(), 4);
    });
}

#[test]
fn a_writer_that_spins_before_it_sleeps_gets_its_own_place() {
    in_every_order("two writers that spin", || {
        let shared = Arc::new(Shared { queue: Queue::of_short_turns(), log: Log::default() });
        let other = Arc::clone(&shared);
        let other = thread::spawn(move || [1, 2].map(|number| (number, other.write(number, None))));
        let got = [3, 4].map(|number| (number, shared.write(number, None)));
        for (number, got) in got.into_iter().chain(other.join().unwrap()) {
            shared.check(number, &got);
        }
        assert_eq!(shared.log.written.lock().unwrap().len(), 4);
    });
}

#[test]
fn a_waiter_that_leads_alone_is_alone_and_blocks_no_writer() {
    in_every_order("two writers and a thread that leads alone", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || match shared.enter(None, None) {
            Entered::Leader(_leader) => shared.log.alone(|| ()),
            _ => panic!("a thread without work must lead"),
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert_eq!(shared.log.written.lock().unwrap().len(), 2);
    });
}

#[test]
fn a_writer_without_time_leaves_and_the_others_go_on() {
    in_every_order("two writers and one without time", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            let got = shared.write(3, Some(Duration::ZERO));
            shared.check(3, &got);
        });
        assert!(matches!((&one, &two), (Got::Written(_), Got::Written(_))));
        shared.check(1, &one);
        shared.check(2, &two);
    });
}

#[test]
fn a_leader_that_dies_with_the_work_of_others_leaves_no_waiter() {
    in_every_order("two writers and a leader that dies", || {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let shared = Arc::clone(&shared);
            move || shared.write(number, None)
        };
        let (one, two) = beside(writer(1), writer(2), || {
            if let Entered::Leader(mut leader) = shared.enter(Some(3), None) {
                // As after a panic: the leader is dropped with the work that it took.
                leader.take_work(|_| true);
            }
        });
        shared.check(1, &one);
        shared.check(2, &two);
        assert!(one != Got::TimedOut && two != Got::TimedOut);
    });
}
