//! Promises about one handle in several threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::effort::{Effort, OnDrop, at_once};
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
    create_with(&[&*store; THREADS]);
}

/// A previous pair is good for one write, a swap or a deletion.
pub fn one_of_the_concurrent_users_of_a_pair_wins(fixture: &dyn Fixture) {
    let store = fixture.open();
    use_pairs_with(&[&*store; THREADS]);
}

/// Concurrent writes have different numbers.
pub fn no_two_concurrent_writes_get_the_same_last_index(fixture: &dyn Fixture) {
    let store = fixture.open();
    number_with(&[&*store; THREADS]);
}

/// A listing shows the store between two writes.
pub fn every_listing_is_one_moment(fixture: &dyn Fixture) {
    let store = fixture.open();
    list_with(&*store, &*store);
}

/// A key that is replaced is never missing, and what is read beside its writer is one write's pair: its value is whole, its
/// `last_index` is that of this value, and a later read shows no older pair.
pub fn reads_beside_a_writer_show_whole_writes(fixture: &dyn Fixture) {
    let store = fixture.open();
    read_with(&*store, &*store);
}

/// A call that starts after a write has returned sees it, in whichever thread.
pub fn a_write_that_has_returned_is_seen_by_every_thread(fixture: &dyn Fixture) {
    let store = fixture.open();
    see_with(&*store, &*store);
}

/// Deletions and writes of other keys beside a call do not change its answer.
pub fn writes_beside_a_key_leave_it_as_it_is(fixture: &dyn Fixture) {
    let store = fixture.open();
    let kept = create(&*store, b"k/m", b"kept");
    let effort = Effort::new(100);
    let seen = AtomicU64::new(0);
    at_once(THREADS, |thread| {
        let own = [&b"k/a"[..], b"k/l", b"k/n", b"k/z"][thread];
        for round in effort.rounds() {
            if seen.swap(thread as u64, Ordering::Relaxed) != thread as u64 {
                effort.meet();
            }
            put(&*store, own, &round.to_le_bytes());
            assert_eq!(get(&*store, own).value, round.to_le_bytes(), "a thread must read what it wrote last");
            ok(store.delete(own), "delete");
            assert!(!ok(store.exists(own), "exists"), "a thread must not find the key that it deleted");
            assert_eq!(get(&*store, b"k/m"), kept, "writes to other keys must leave a key as it is");
        }
    });
    assert_eq!(list(&*store, b""), [kept], "what concurrent threads deleted must be gone, and nothing else");
}

/// Counts with one thread for each of `handles`, all of them at the same key.
pub(super) fn count_with(handles: &[&dyn Store]) {
    const COUNTER: &[u8] = b"counter";
    let effort = Effort::new(500 / handles.len() as u64);
    let counted = at_once(handles.len(), |thread| {
        let counts = effort.rounds().map(|_| {
            while !increment(handles[thread], COUNTER) {
                effort.meet();
            }
        });
        counts.count() as u64
    });
    for store in handles {
        let total = count(&get(*store, COUNTER));
        assert_eq!(total, counted.iter().sum::<u64>(), "concurrent increments must all be counted");
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

/// All threads create the same keys in the same order. Losers are quick, so they meet at the next key.
pub(super) fn create_with(handles: &[&dyn Store]) {
    let effort = Effort::new(50);
    let key = |round: u64| format!("leader/{round:07}").into_bytes();
    let created = at_once(handles.len(), |thread| {
        let mut tries: Vec<Result<KvPair>> = Vec::new();
        for round in effort.rounds() {
            tries.push(handles[thread].atomic_put(&key(round), &[thread as u8], None));
            if matches!(&tries[..], [.., before, last] if before.is_ok() != last.is_ok()) {
                effort.meet();
            }
        }
        tries
    });
    let rounds = created.iter().map(Vec::len).max().unwrap_or(0);
    let mut winners = Vec::new();
    for round in 0..rounds {
        let tries = created.iter().filter_map(|tries| tries.get(round));
        let won: Vec<&KvPair> = tries
            .filter_map(|tried| match tried {
                Ok(pair) => Some(pair),
                Err(Error::KeyExists) => None,
                Err(error) => panic!("a thread that comes too late must get KeyExists, not {error:?}"),
            })
            .collect();
        assert_eq!(won.len(), 1, "exactly one thread must create a key, but these did: {won:?}");
        winners.extend(won.into_iter().cloned());
    }
    assert!(list(handles[0], b"leader/") == winners, "the winners' pairs must be those that are there");
}

/// Half of the threads swap the pair of one key, the others delete it; all create it when it is absent. Each pair that was made
/// can end once.
pub(super) fn use_pairs_with(handles: &[&dyn Store]) {
    const KEY: &[u8] = b"task";
    let effort = Effort::new(100);
    let of_each_thread = at_once(handles.len(), |thread| {
        let (mut made, mut ended) = (Vec::new(), Vec::new());
        for _ in effort.rounds() {
            let store = handles[thread];
            let current = ok(store.get(KEY).optional(), "get");
            let deletes = thread % 2 == 1 && current.is_some();
            let done = if deletes {
                store.atomic_delete(KEY, current.as_ref()).map(|()| None)
            } else {
                store.atomic_put(KEY, &[thread as u8], current.as_ref()).map(Some)
            };
            match (done, &current) {
                (Ok(new), _) => {
                    ended.extend(current.as_ref().map(|pair| pair.last_index));
                    made.extend(new.map(|pair| pair.last_index));
                }
                (Err(Error::KeyExists), None) | (Err(Error::KeyModified | Error::KeyNotFound), Some(_)) => {
                    effort.meet()
                }
                (Err(error), _) => panic!("a thread that comes too late must not get {error:?}"),
            }
        }
        (made, ended)
    });
    let mut left = BTreeSet::new();
    for index in of_each_thread.iter().flat_map(|(made, _)| made) {
        assert!(left.insert(*index), "two writes at the same time must not both get the last_index {index}");
    }
    for index in of_each_thread.iter().flat_map(|(_, ended)| ended) {
        assert!(left.remove(index), "a pair must be good for one swap or deletion, but that of {index} was used again");
    }
    let there = ok(handles[0].get(KEY).optional(), "get").map(|pair| pair.last_index);
    assert_eq!(Vec::from_iter(there), Vec::from_iter(left), "what is there must be the one pair that no thread used");
}

pub(super) fn number_with(handles: &[&dyn Store]) {
    let effort = Effort::new(25);
    let of_each_thread = at_once(handles.len(), |thread| {
        let mut indexes = Vec::new();
        for round in effort.rounds() {
            indexes.push(create(handles[thread], format!("{thread}/{round}").as_bytes(), b"").last_index);
            if matches!(indexes[..], [.., before, last] if last != before + 1) {
                effort.meet();
            }
        }
        indexes
    });
    for indexes in &of_each_thread {
        let wrong = indexes.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(wrong, None, "last_index must grow from write to write in a thread");
    }
    let mut all = of_each_thread.concat();
    all.sort();
    let twice = all.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "no two writes may have the same last_index");
}

/// The writer counts up in three keys, the middle one in byte order first. So at every moment the middle one is equal to the
/// others or one ahead, in whichever order a listing visits them; a listing that is smeared over time sees more.
pub(super) fn list_with(writer: &dyn Store, reader: &dyn Store) {
    let in_order_of_writing = [b"k/m", b"k/a", b"k/z"];
    for key in in_order_of_writing {
        put(writer, key, &0u64.to_le_bytes());
    }
    beside_a_writer(
        Effort::new(100),
        |round| {
            for key in in_order_of_writing {
                put(writer, key, &round.to_le_bytes());
            }
        },
        || {
            let counts: Vec<u64> = list(reader, b"k/").iter().map(count).collect();
            let [a, m, z] = counts[..] else { panic!("a listing must show all three keys, not {}", counts.len()) };
            assert!(m >= a && a >= z && m <= z + 1, "a listing must be of one moment, not a: {a}, m: {m}, z: {z}");
            m
        },
    );
}

pub(super) fn read_with(writer: &dyn Store, reader: &dyn Store) {
    // Each value is one byte, repeated, in a length that changes all the time.
    let value = |round: u64| vec![round as u8; 1 + round as usize * 37 % 400];
    let first = create(writer, b"key", &value(0));
    let written = std::sync::Mutex::new(vec![first]);
    let read = std::sync::Mutex::new(BTreeMap::<u64, KvPair>::new());
    beside_a_writer(
        Effort::new(100),
        |round| {
            let mut written = written.lock().expect("the writer has not panicked");
            // Puts and swaps take turns. What a put has set is read by its only writer.
            if round % 2 == 0 {
                put(writer, b"key", &value(round));
                written.push(get(writer, b"key"));
            } else {
                let swapped = writer.atomic_put(b"key", &value(round), written.last());
                written.push(ok(swapped, "atomic_put with the pair that the only writer read"));
            }
        },
        || {
            let mut read = read.lock().expect("the reader has not panicked");
            assert!(ok(reader.exists(b"key"), "exists"), "a key that is replaced must never be missing");
            let listed = list(reader, b"key");
            assert_eq!(listed.len(), 1, "a key that is replaced must be listed once at every moment");
            let got = ok(reader.get(b"key"), "get of a key that is replaced, beside its writer");
            for pair in listed.into_iter().chain([got]) {
                let latest = read.last_key_value().map_or(0, |(index, _)| *index);
                assert!(pair.last_index >= latest, "a later read must not show an older pair: {latest}, then {pair:?}");
                let same = read.entry(pair.last_index).or_insert_with(|| pair.clone());
                assert_eq!(*same, pair, "two pairs of one last_index must be equal");
            }
            read.len() as u64
        },
    );
    let written = written.into_inner().expect("the writer has not panicked");
    for (index, pair) in read.into_inner().expect("the reader has not panicked") {
        let at = written.binary_search_by_key(&index, |written| written.last_index);
        let written = at.ok().map(|at| &written[at]);
        assert_eq!(Some(&pair), written, "a pair that is read beside a writer must be one that it wrote, whole");
    }
}

pub(super) fn see_with(writer: &dyn Store, reader: &dyn Store) {
    let returned = AtomicU64::new(0);
    put(writer, b"key", &0u64.to_le_bytes());
    beside_a_writer(
        Effort::new(100),
        |round| {
            put(writer, b"key", &round.to_le_bytes());
            returned.store(round, Ordering::SeqCst);
        },
        || {
            let least = returned.load(Ordering::SeqCst);
            let got = count(&get(reader, b"key"));
            assert!(got >= least, "get must show a write that has returned: {least}, but gave {got}");
            let least = returned.load(Ordering::SeqCst);
            let listed = list(reader, b"").first().map_or(0, count);
            assert!(listed >= least, "list must show a write that has returned: {least}, but gave {listed}");
            listed
        },
    );
}

/// Writes in one thread, from round 1, and reads in another until that has ended. What `read` returns is something that changes
/// when the writer is at work.
fn beside_a_writer(effort: Effort, write: impl Fn(u64) + Sync, read: impl Fn() -> u64 + Sync) {
    let finished = AtomicBool::new(false);
    at_once(2, |thread| {
        if thread == 0 {
            let _finish = OnDrop(|| finished.store(true, Ordering::Release));
            effort.rounds().for_each(|round| write(round + 1));
            return;
        }
        let mut last = read();
        while !finished.load(Ordering::Acquire) {
            let now = read();
            if now != last {
                effort.meet();
            }
            last = now;
        }
        read();
    });
}
