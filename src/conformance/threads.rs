//! Promises about one handle in several threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Fixture, create, get, list, ok, put};
use crate::{Error, KvPair, OptionalExt, Result, Store};

const THREADS: usize = 4;

/// Each thread reads, adds one and swaps, and tries again after a conflict: no increment is lost, and none counts twice.
pub fn concurrent_increments_are_all_counted(fixture: &dyn Fixture) {
    let store = fixture.open();
    count_with(&[&*store; THREADS]);
}

/// Of threads that create one key, exactly one succeeds.
pub fn one_of_the_concurrent_creators_wins(fixture: &dyn Fixture) {
    let store = fixture.open();
    for round in 0..10 {
        let key = format!("leader/{round}");
        let created = at_once(|thread| store.atomic_put(key.as_bytes(), format!("thread {thread}").as_bytes(), None));
        let winner = only_winner(created, |error| matches!(error, Error::KeyExists));
        assert_eq!(get(&*store, key.as_bytes()), winner, "the winner's pair must be the one that is there");
    }
}

/// A previous pair is good for one write, a swap or a deletion.
pub fn one_of_the_concurrent_users_of_a_pair_wins(fixture: &dyn Fixture) {
    let store = fixture.open();
    for round in 0..10 {
        let key = format!("task/{round}");
        let open = create(&*store, key.as_bytes(), b"open");
        let taken = at_once(|thread| {
            if thread % 2 == 0 {
                store.atomic_put(key.as_bytes(), format!("thread {thread}").as_bytes(), Some(&open)).map(Some)
            } else {
                store.atomic_delete(key.as_bytes(), Some(&open)).map(|()| None)
            }
        });
        let winner = only_winner(taken, |error| matches!(error, Error::KeyModified | Error::KeyNotFound));
        let left = ok(store.get(key.as_bytes()).optional(), "get");
        assert_eq!(left, winner, "what is there must be what the winner left");
    }
}

/// Concurrent writes have different numbers.
pub fn no_two_concurrent_writes_get_the_same_last_index(fixture: &dyn Fixture) {
    const WRITES: usize = 25;
    let store = fixture.open();
    let of_each_thread = at_once(|thread| {
        let mut indexes = Vec::new();
        for write in 0..WRITES {
            let key = format!("{thread}/{write}");
            indexes.push(create(&*store, key.as_bytes(), b"").last_index);
        }
        indexes
    });
    for indexes in &of_each_thread {
        assert!(
            indexes.is_sorted_by(|a, b| a < b),
            "last_index must grow from write to write in a thread: {indexes:?}"
        );
    }
    let mut all = of_each_thread.concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), THREADS * WRITES, "no two writes may have the same last_index");
}

/// A listing shows the store between two writes.
///
/// The writer counts up in three keys, the middle one in byte order first. So at every moment the middle one is equal
/// to the others or one ahead, in whichever order a listing visits them; a listing that is smeared over time sees more.
pub fn every_listing_is_one_moment(fixture: &dyn Fixture) {
    const ROUNDS: u64 = 100;
    let store = fixture.open();
    let in_order_of_writing = [b"k/m", b"k/a", b"k/z"];
    for key in in_order_of_writing {
        put(&*store, key, &0u64.to_le_bytes());
    }
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _finish = SetOnDrop(&finished);
            for round in 1..=ROUNDS {
                for key in in_order_of_writing {
                    put(&*store, key, &round.to_le_bytes());
                }
            }
        });
        scope.spawn(|| {
            while !finished.load(Ordering::Acquire) {
                let counts: Vec<u64> = list(&*store, b"k/").iter().map(count).collect();
                let [a, m, z] = counts[..] else { panic!("a listing must show all three keys, not {}", counts.len()) };
                assert!(m >= a && a >= z && m <= z + 1, "a listing must be of one moment, not a: {a}, m: {m}, z: {z}");
            }
        });
    });
}

/// Counts with one thread for each of `handles`, all of them at the same key.
pub(super) fn count_with(handles: &[&dyn Store]) {
    const INCREMENTS: u64 = 25;
    const COUNTER: &[u8] = b"counter";
    thread::scope(|scope| {
        for store in handles {
            scope.spawn(move || {
                for _ in 0..INCREMENTS {
                    while !increment(*store, COUNTER) {}
                }
            });
        }
    });
    for store in handles {
        let total = count(&get(*store, COUNTER));
        assert_eq!(total, handles.len() as u64 * INCREMENTS, "concurrent increments must all be counted");
    }
}

/// Tries once; `false` after a conflict.
fn increment(store: &dyn Store, key: &[u8]) -> bool {
    let current = ok(store.get(key).optional(), "get");
    let next = current.as_ref().map_or(0, count) + 1;
    match (store.atomic_put(key, &next.to_le_bytes(), current.as_ref()), &current) {
        (Ok(_), _) => true,
        (Err(Error::KeyExists), None) | (Err(Error::KeyModified), Some(_)) => false,
        (Err(error), _) => panic!("atomic_put with previous {current:?} must not give {error:?} here"),
    }
}

fn count(pair: &KvPair) -> u64 {
    u64::from_le_bytes(pair.value[..].try_into().expect("a counter must keep its 8 bytes"))
}

/// Calls `work` in every thread at the same moment, and returns what each gave.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let started: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    work(thread)
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
    })
}

/// The one success among `outcomes`, whose failures must all be the one that the contract names.
fn only_winner<T: std::fmt::Debug>(outcomes: Vec<Result<T>>, fair: impl Fn(&Error) -> bool) -> T {
    let mut winners = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(won) => winners.push(won),
            Err(error) => assert!(fair(&error), "a thread that came too late must not get {error:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "exactly one thread must win, but these did: {winners:?}");
    winners.remove(0)
}

/// Lets the reading thread end even if the writing one panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
