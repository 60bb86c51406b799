//! Threads that use one store, or two handles of it, on the simulated disk.
//!
//! Threads switch at the engine's own locks and atomics, and at every call to the disk. Each test runs in many orders: random
//! ones, and orders with few switches, which find rare failures ("probabilistic concurrency testing").
//! `CASKFILE_SHUTTLE_ORDERS` says how many of each. A failure prints its order as text for `shuttle::replay`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::in_many_orders;
use crate::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use crate::sync::{AtomicU64, Mutex, thread};
use crate::{Batch, Cask, Config, Durability, Error, OptionalExt};

const STORE: &str = "/store";

/// A disk on which threads may switch at every call.
fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.before(When::next(), Repeat::Forever, |_| thread::yield_now());
    disk
}

fn open(disk: &SimDisk, config: &Config) -> Cask {
    let config = config.clone().connection_timeout(None);
    Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap()
}

/// The store after a power cut that takes everything that was not synced.
fn after_power_cut(disk: &SimDisk) -> Cask {
    let found = disk.reboot(&mut Choices::keep_nothing());
    open(&found, &Config::new())
}

fn spawn_all(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let running: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn count_up(cask: &Cask) -> Result<u64, Error> {
    let next = |pair: Option<&crate::KvPair>| (pair.map_or(0, |pair| number(&pair.value)) + 1).to_le_bytes().to_vec();
    cask.update("counter", next).map(|pair| number(&pair.value))
}

/// Three threads count, on one handle, or each on its own as if they were processes.
fn three_threads_count(one_handle: bool, durability: Durability) {
    let disk = disk();
    let config = Config::new().durability(durability);
    let first = open(&disk, &config);
    let values = Arc::new(Mutex::new(Vec::new()));
    let threads = (0..3).map(|_| {
        let cask = if one_handle { first.clone() } else { open(&disk, &config) };
        let (values, disk) = (Arc::clone(&values), disk.clone());
        let thread: Box<dyn FnOnce() + Send> = Box::new(move || {
            for _ in 0..2 {
                let value = count_up(&cask).unwrap();
                values.lock().unwrap().push(value);
                assert!(number(&cask.get("counter").unwrap().value) >= value, "a stale read");
                if durability == Durability::Sync {
                    let left = after_power_cut(&disk).get("counter").unwrap();
                    assert!(number(&left.value) >= value, "{value} was acknowledged and lost");
                }
            }
        });
        thread
    });
    spawn_all(threads.collect());
    let mut values = values.lock().unwrap().clone();
    values.sort_unstable();
    assert_eq!(values, [1, 2, 3, 4, 5, 6]);
    first.verify().unwrap();
}

#[test]
fn threads_on_one_handle_count_each_number_once_and_lose_none() {
    in_many_orders(|| three_threads_count(true, Durability::Sync));
}

#[test]
fn handles_of_one_file_count_each_number_once_and_lose_none() {
    in_many_orders(|| three_threads_count(false, Durability::Sync));
}

#[test]
fn threads_that_do_not_sync_count_each_number_once() {
    in_many_orders(|| three_threads_count(true, Durability::Os));
}

#[test]
fn a_reader_beside_a_compaction_sees_no_half_batch_and_no_older_value() {
    in_many_orders(|| {
        let disk = disk();
        let config = Config::new().durability(Durability::Os);
        let cask = open(&disk, &config);
        // A handle of another process, whose file is compacted away.
        let other = open(&disk, &config);
        let write = |cask: &Cask, value: u64| {
            let mut batch = Batch::new();
            batch.put("a", value.to_le_bytes()).put("b", value.to_le_bytes());
            cask.write(&batch).unwrap();
        };
        write(&cask, 0);
        let reader = |cask: Cask| {
            move || {
                let mut highest = 0;
                for round in 0..3 {
                    let pairs = cask.list("").unwrap();
                    let values: Vec<u64> = pairs.iter().map(|pair| number(&pair.value)).collect();
                    assert!(values.len() == 2 && values[0] == values[1], "round {round}: {values:?}");
                    let seen = values[0].max(number(&cask.get("b").unwrap().value));
                    assert!(values[0] >= highest && seen >= highest, "{seen} after {highest}");
                    highest = seen;
                }
            }
        };
        let writing = cask.clone();
        let compacting = cask.clone();
        let threads: Vec<Box<dyn FnOnce() + Send>> = vec![
            Box::new(move || (1..4).for_each(|value| write(&writing, value))),
            Box::new(move || drop(compacting.compact())),
            Box::new(reader(cask.clone())),
            Box::new(reader(other.clone())),
        ];
        spawn_all(threads);
        for cask in [cask, other] {
            assert_eq!(number(&cask.get("a").unwrap().value), 3);
            cask.verify().unwrap();
        }
    });
}

#[test]
fn a_write_during_close_is_refused_or_acknowledged_and_there() {
    in_many_orders(|| {
        let disk = disk();
        let cask = open(&disk, &Config::new());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = |key: &'static str| -> Box<dyn FnOnce() + Send> {
            let (cask, acknowledged) = (cask.clone(), Arc::clone(&acknowledged));
            Box::new(move || match cask.put(key, "") {
                Ok(_) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                Err(Error::Closed) => {}
                Err(error) => panic!("{error}"),
            })
        };
        let closing = cask.clone();
        spawn_all(vec![writer("a"), writer("b"), Box::new(move || closing.close().unwrap())]);
        assert!(matches!(cask.put("c", ""), Err(Error::Closed)));
        let left = after_power_cut(&disk).list("").unwrap().len() as u64;
        assert_eq!(left, acknowledged.load(Ordering::SeqCst));
    });
}

#[test]
fn the_background_sync_and_close_leave_everything_synced() {
    in_many_orders(|| {
        let disk = disk();
        let cask = open(&disk, &Config::new().durability(Durability::Interval(Duration::ZERO)));
        let writer = |key: &'static str| -> Box<dyn FnOnce() + Send> {
            let cask = cask.clone();
            Box::new(move || _ = cask.put(key, "").unwrap())
        };
        spawn_all(vec![writer("a"), writer("b")]);
        cask.close().unwrap();
        assert_eq!(after_power_cut(&disk).list("").unwrap().len(), 2);
    });
}

#[test]
fn after_a_failed_sync_no_write_of_its_group_is_acknowledged() {
    in_many_orders(|| {
        let disk = disk();
        let cask = open(&disk, &Config::new());
        cask.put("before", "").unwrap();
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let writer = |key: &'static str| -> Box<dyn FnOnce() + Send> {
            let (cask, answers) = (cask.clone(), Arc::clone(&answers));
            Box::new(move || {
                let put = cask.put(key, "");
                assert!(matches!(put, Ok(_) | Err(Error::Poisoned { .. })), "{put:?}");
                answers.lock().unwrap().insert(key, put.is_ok());
            })
        };
        spawn_all(vec![writer("a"), writer("b"), writer("c")]);
        let answers = answers.lock().unwrap();
        assert!(!answers.values().any(|acknowledged| *acknowledged), "{answers:?}");
        assert!(matches!(cask.put("after", ""), Err(Error::Poisoned { .. })));
        assert!(cask.get("before").optional().unwrap().is_some());
    });
}
