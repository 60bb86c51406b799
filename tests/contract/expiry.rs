//! Keys that expire, call by call, on a clock that the test moves. `tests/crash/expiry.rs` has the random lives.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Clock, Disk};
use caskfile::{
    Batch, Cask, Change, CompactionPolicy, Config, Durability, Error, Limits, OptionalExt, PutOptions, ReadMode,
    SnapshotPolicy, Update, Watch, WatchFrom, WatchOptions,
};

use crate::common::patience::with_a_deadline;

const SECOND: Duration = Duration::from_secs(1);

struct Store {
    disk: SimDisk,
    clock: Clock,
    cask: Cask,
}

fn config() -> Config {
    Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual)
}

impl Store {
    fn new() -> Store {
        Store::with(Limits::REAL)
    }

    fn with(limits: Limits) -> Store {
        let disk = SimDisk::new();
        disk.set_limits(Limits { least_running_cost: u64::MAX, ..limits });
        let clock = disk.stop_clock();
        let cask = Cask::open_on(Arc::new(disk.process()), "/store", &config()).unwrap();
        Store { disk, clock, cask }
    }

    fn open(&self, config: &Config) -> Cask {
        Cask::open_on(Arc::new(self.disk.process()), "/store", config).unwrap()
    }

    fn put(&self, key: &str, ttl: Duration) -> u64 {
        self.cask.put_with(key, "value", &PutOptions::new().ttl(ttl)).unwrap().last_index
    }

    fn wait(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// The log's keys, hidden or not.
    fn keys_in_log(&self) -> Vec<String> {
        self.clock.set_wall(-1_700_000_000_000);
        let keys = self.open(&config().read_only(true)).list("").unwrap();
        self.clock.set_wall(1_700_000_000_000);
        keys.into_iter().map(|pair| String::from_utf8(pair.key).unwrap()).collect()
    }
}

/// All changes that are there, as text: a unit in brackets.
fn drain(watch: &mut Watch) -> String {
    let mut text = String::new();
    while let Some(unit) = watch.try_next().unwrap() {
        let changes = unit.into_changes().unwrap();
        let changes = changes.iter().map(|change| match change {
            Change::Put(pair) => format!("+{}", String::from_utf8_lossy(&pair.key)),
            Change::Delete { key, .. } => format!("-{}", String::from_utf8_lossy(key)),
        });
        text += &format!("[{}]", changes.collect::<Vec<_>>().join(" "));
    }
    text
}

#[test]
fn a_key_lives_its_time_and_then_every_read_takes_it_for_absent() {
    let store = Store::new();
    let Store { cask, .. } = &store;
    let now = SystemTime::UNIX_EPOCH + store.clock.wall();
    store.put("key", SECOND);
    cask.put("stays", "").unwrap();
    cask.bucket("log").unwrap().put_with("only", "", &PutOptions::new().ttl(SECOND)).unwrap();
    store.wait(SECOND - Duration::from_millis(1));
    assert_eq!(cask.get("key").unwrap().value, b"value");
    assert_eq!(cask.expires_at("key").unwrap(), Some(now + SECOND));
    assert_eq!(cask.time_to_live("key").unwrap(), Some(Duration::from_millis(1)));
    assert_eq!(cask.expires_at("stays").unwrap(), None);
    assert_eq!(cask.buckets().unwrap().len(), 2);
    // SAFETY: only this library changes the file.
    let mapped = unsafe { cask.mapped() };
    assert_eq!(&*mapped.get("key").unwrap(), b"value");

    store.wait(Duration::from_millis(1));
    for handle in [cask, &store.open(&config()), &store.open(&config().read_only(true))] {
        assert!(matches!(handle.get("key"), Err(Error::KeyNotFound)));
        assert!(matches!(handle.get_into("key", &mut Vec::new()), Err(Error::KeyNotFound)));
        assert!(matches!(handle.expires_at("key"), Err(Error::KeyNotFound)));
        assert!(matches!(handle.time_to_live("key"), Err(Error::KeyNotFound)));
        // SAFETY: as above.
        assert!(matches!(unsafe { handle.mapped() }.get("key"), Err(Error::KeyNotFound)));
        assert!(!handle.exists("key").unwrap());
        assert_eq!((handle.len().unwrap(), handle.is_empty().unwrap()), (1, false));
        assert!(handle.bucket("log").unwrap().is_empty().unwrap());
        assert_eq!(handle.list("").unwrap().len(), 1);
        assert_eq!(handle.keys("").unwrap().len(), 1);
        assert_eq!(handle.scan("k").unwrap().count(), 0);
        assert_eq!(handle.range("a".."z").unwrap().rev().count(), 1);
        assert_eq!(handle.scan_by_index().unwrap().count(), 1);
        assert_eq!(handle.buckets().unwrap(), [b"".to_vec()]);
        let stats = handle.stats().unwrap();
        assert_eq!((stats.keys, stats.buckets, stats.expiring, stats.hidden), (1, 1, 0, 2));
        handle.verify().unwrap();
    }
}

#[test]
fn a_time_to_live_is_checked_before_anything_is_written() {
    let store = Store::new();
    let Store { cask, .. } = &store;
    let zero = PutOptions::new().ttl(Duration::ZERO);
    assert!(matches!(cask.put_with("key", "", &zero), Err(Error::ZeroTtl)));
    assert!(matches!(cask.atomic_put_with("key", "", None, &zero), Err(Error::ZeroTtl)));
    let refused = cask.write(Batch::new().put("a", "").put_with("b", "", &zero));
    assert!(matches!(refused, Err(Error::BatchInvalid { op: 1, cause }) if matches!(*cause, Error::ZeroTtl)));
    let (long, max) = (vec![0; caskfile::MAX_VALUE_LEN - 23], caskfile::MAX_VALUE_LEN - 24);
    let options = PutOptions::new().ttl(SECOND);
    let refused = cask.put_with("key", &long, &options);
    assert!(matches!(refused, Err(Error::ValueTooLong { len, max: found }) if (len, found) == (max + 1, max)));
    assert_eq!(cask.stats().unwrap().records, 0);
    // For ever, as good as.
    cask.put_with("key", "", &PutOptions::new().ttl(Duration::MAX)).unwrap();
    store.clock.set_wall(i64::MAX);
    assert!(cask.exists("key").unwrap());
    store.clock.set_wall(-i64::MAX);
    let after = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    let (far, last) = (after(u64::MAX) + Duration::from_millis(1), after(u64::MAX));
    cask.put_with("key 2", "", &PutOptions::new().expires_at(far)).unwrap();
    for key in ["key", "key 2"] {
        assert_eq!(cask.expires_at(key).unwrap(), None, "a plain put, so that snapshots go on");
    }
    cask.put_with("key 2", "", &PutOptions::new().expires_at(last)).unwrap();
    assert_eq!(cask.expires_at("key 2").unwrap(), Some(last));
    cask.put_with("key 2", "", &PutOptions::new().ttl(Duration::from_millis(i64::MAX as u64))).unwrap();
    assert_eq!(cask.stats().unwrap().expiring, 1);
    // Of the past: over at once.
    cask.put_with("past", "", &PutOptions::new().expires_at(SystemTime::UNIX_EPOCH)).unwrap();
    assert!(!cask.exists("past").unwrap());
    // Without a time: a plain put.
    cask.put_with("key", "", &PutOptions::new().ttl(SECOND).ttl(None)).unwrap();
    assert_eq!(cask.expires_at("key").unwrap(), None);
}

#[test]
fn a_put_takes_the_deadline_away() {
    let store = Store::new();
    store.put("plain", SECOND);
    store.put("later", SECOND);
    store.cask.put("plain", "").unwrap();
    store.put("later", SECOND * 3);
    store.wait(SECOND * 2);
    assert_eq!(store.cask.len().unwrap(), 2);
    assert_eq!(store.cask.expires_at("plain").unwrap(), None);
    store.cask.put("other", "").unwrap();
    assert_eq!(store.keys_in_log(), ["later", "other", "plain"]);
    store.cask.verify().unwrap();
}

#[test]
fn conditions_take_a_key_that_is_over_for_absent() {
    let store = Store::new();
    let (cask, options) = (&store.cask, PutOptions::new().ttl(SECOND));
    let pair = cask.put_with("key", "1", &options).unwrap();
    assert!(matches!(cask.put_new("key", ""), Err(Error::KeyExists)));
    store.wait(SECOND);
    // First, since a write of the key would remove it.
    let refused = cask.write(Batch::new().expect_last_index("key", pair.last_index).put("other", ""));
    assert!(matches!(refused, Err(Error::BatchConflict { op: 0, .. })), "{refused:?}");
    for refused in [
        cask.atomic_put("key", "2", Some(&pair)).map(drop),
        cask.atomic_put_with("key", "2", Some(&pair), &options).map(drop),
        cask.put_if("key", "2", pair.last_index).map(drop),
        cask.delete_if("key", pair.last_index),
        cask.atomic_delete("key", Some(&pair)),
    ] {
        assert!(matches!(refused, Err(Error::KeyNotFound)), "{refused:?}");
    }
    assert!(cask.is_empty().unwrap());
    cask.delete("key").unwrap();
    assert_eq!(cask.write(Batch::new().delete("key").expect_absent("key")).unwrap().deleted(), 0);
    assert!(cask.remove("key").unwrap().is_none());

    let first = cask.atomic_put("key", "2", None).unwrap();
    assert!(first.last_index > pair.last_index);
    assert_eq!(cask.get("key").unwrap(), first);
    for call in 0..4 {
        cask.put_with("key", "old", &options).unwrap();
        store.wait(SECOND);
        match call {
            0 => assert_eq!(cask.update("key", |old| format!("{}", old.is_none())).unwrap().value, b"true"),
            1 => {
                let updated = cask.try_update("key", |old| {
                    assert!(old.is_none());
                    Ok::<_, Error>(Update::put("new"))
                });
                assert_eq!(updated.unwrap().unwrap().value, b"new");
            }
            2 => assert_eq!(cask.get_or_insert_with("key", || "new").unwrap().value, b"new"),
            _ => drop(cask.write(Batch::new().put_new("key", "new")).unwrap()),
        }
        assert_ne!(cask.get("key").unwrap().value, b"old", "call {call}");
    }
}

#[test]
fn a_write_over_a_key_that_is_over_puts_its_delete_in_front_as_a_unit_of_its_own() {
    let store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, SECOND);
    }
    let reader = store.open(&config().read_only(true));
    let mut watch = reader.changes("", WatchFrom::Now).unwrap();
    store.wait(SECOND);
    assert_eq!(drain(&mut watch), "", "a reader removes nothing");
    let applied = store.cask.write(Batch::new().put("b", "").put("x", "").put("b", "again").delete("a")).unwrap();
    assert_eq!(applied.deleted(), 0);
    let indexes = [0, 1, 2].map(|op| applied.last_index_of(op).unwrap());
    assert_eq!(indexes, [indexes[0], indexes[0] + 1, indexes[0] + 2]);
    assert_eq!(applied.last_index(), Some(indexes[2]));
    // After it, the sweep removes the other one.
    assert_eq!(drain(&mut watch), "[-a][-b][+b +x +b][-c]");
    assert_eq!(store.keys_in_log(), ["b", "x"]);
}

#[test]
fn a_full_batch_over_keys_that_are_over_is_written() {
    let store = Store::with(Limits { group_bytes: 100, ..Limits::SMALL });
    let most = Limits::SMALL.group_records as usize;
    for n in 0..2 * most {
        store.put(&format!("key {n}"), SECOND);
    }
    let reader = store.open(&config().read_only(true));
    let mut watch = reader.changes("", WatchFrom::Now).unwrap();
    store.wait(SECOND);
    let mut batch = Batch::new();
    (0..most).for_each(|n| {
        batch.put(format!("key {n}"), "new");
    });
    let applied = store.cask.write(&batch).unwrap();
    assert!((1..most).all(|op| applied.last_index_of(op) == applied.last_index_of(op - 1).map(|index| index + 1)));
    assert_eq!(store.cask.len().unwrap() as usize, most);
    let seen = drain(&mut watch);
    let own = format!("[{}]", (0..most).map(|n| format!("+key {n}")).collect::<Vec<_>>().join(" "));
    let (before, after) = seen.split_once(&own).unwrap();
    assert_eq!(before, (0..most).map(|n| format!("[-key {n}]")).collect::<String>());
    assert!(after.matches('[').count() <= Limits::SMALL.swept_records as usize, "{after}");
    store.cask.verify().unwrap();
}

#[test]
fn delete_prefix_counts_what_was_shown() {
    let store = Store::new();
    store.put("log/1", SECOND);
    store.put("log/2", SECOND * 5);
    store.cask.put("log/3", "").unwrap();
    store.wait(SECOND);
    assert_eq!(store.cask.delete_prefix("log/").unwrap(), 2);
    assert_eq!(store.cask.delete_range("a".."z").unwrap(), 0);
    assert!(store.cask.is_empty().unwrap());
}

/// A second look would be at another moment: a list could lack what `len` has counted.
#[test]
fn a_scan_its_length_and_the_statistics_look_at_the_clock_once() {
    let store = Store::new();
    for n in 0..20 {
        store.put(&format!("key {n:02}"), SECOND * (n + 1));
    }
    // Each look sets the clock a second forward.
    store.clock.set_wall_at_looks(1000);
    let looks = store.clock.wall_looks();
    let scan = store.cask.scan("").unwrap();
    let len = scan.len();
    assert_eq!((scan.count(), len), (20, 20));
    assert_eq!(store.clock.wall_looks(), looks + 1);
    assert_eq!(store.cask.list("key ").unwrap().len(), 19);
    let stats = store.cask.stats().unwrap();
    assert_eq!((stats.keys, stats.expiring, stats.hidden), (18, 18, 2));
    assert_eq!(store.cask.len().unwrap(), 17);
    assert_eq!(store.cask.scan_by_index().unwrap().len(), 16);
    assert_eq!(store.cask.delete_prefix("").unwrap(), 15);
    assert_eq!(store.clock.wall_looks(), looks + 6);
}

#[test]
fn a_store_without_deadlines_looks_at_no_clock() {
    let store = Store::new();
    let Store { cask, .. } = &store;
    let use_it = || {
        cask.put("key", "value").unwrap();
        cask.get("key").unwrap();
        cask.exists("key").unwrap();
        cask.get("absent").optional().unwrap();
        cask.put_new("key", "").unwrap_err();
        cask.update("key", |_| "new").unwrap();
        cask.delete("absent").unwrap();
    };
    let looks = store.clock.wall_looks();
    use_it();
    cask.list("").unwrap();
    cask.len().unwrap();
    cask.stats().unwrap();
    cask.buckets().unwrap();
    cask.delete_prefix("none").unwrap();
    drain(&mut cask.changes("", WatchFrom::Snapshot).unwrap());
    cask.compact().unwrap();
    assert_eq!(store.clock.wall_looks(), looks);
    // With deadlines, reads of other keys look at none either.
    store.put("other", SECOND);
    let looks = store.clock.wall_looks();
    cask.get("key").unwrap();
    cask.exists("absent").unwrap();
    assert_eq!(store.clock.wall_looks(), looks);
}

#[test]
fn a_clock_that_is_set_back_shows_a_key_again_until_its_delete_is_in_the_log() {
    let store = Store::new();
    store.put("key", SECOND);
    store.clock.set_wall(1000);
    assert!(!store.cask.exists("key").unwrap());
    store.clock.set_wall(-1);
    assert!(store.cask.exists("key").unwrap() && store.cask.len().unwrap() == 1);
    assert!(matches!(store.cask.put_new("key", ""), Err(Error::KeyExists)));
    store.clock.set_wall(1);
    store.cask.put("other", "").unwrap();
    store.clock.set_wall(-1);
    assert!(!store.cask.exists("key").unwrap() && store.cask.len().unwrap() == 1);
}

/// Otherwise an hour in which the clock is wrong would lose pairs for good, and no watch would see that.
#[test]
fn compaction_and_copies_keep_what_a_wrong_clock_hides() {
    let store = Store::new();
    store.put("key", SECOND);
    store.cask.put("key 2", "1").unwrap();
    store.cask.put("key 2", "2").unwrap();
    store.clock.set_wall(1_000_000);
    assert!(!store.cask.exists("key").unwrap());
    store.cask.backup("/backup").unwrap();
    store.cask.compact_to("/compacted").unwrap();
    store.cask.compact().unwrap();
    store.clock.set_wall(-1_000_000);
    for path in ["/store", "/backup", "/compacted"] {
        let copy = Cask::open_on(Arc::new(store.disk.process()), path, &config().read_only(true)).unwrap();
        assert_eq!(copy.get("key").unwrap().value, b"value", "{path}");
        assert_eq!(copy.expires_at("key").unwrap(), store.cask.expires_at("key").unwrap());
    }
    assert!(store.cask.exists("key").unwrap());
    store.wait(SECOND);
    assert_eq!(store.cask.len().unwrap(), 1);
}

#[test]
fn each_end_is_seen_once_across_compactions() {
    let store = Store::new();
    let other = store.open(&config());
    let reader = store.open(&config().read_only(true));
    let mut watch = reader.changes("", WatchFrom::Now).unwrap();
    store.put("a", SECOND);
    store.put("b", SECOND);
    store.put("c", SECOND);
    store.wait(SECOND);
    other.compact().unwrap();
    assert_eq!(drain(&mut watch), "[+a][+b][+c]");
    other.put("b", "").unwrap();
    other.compact().unwrap();
    assert_eq!(drain(&mut watch), "[-b][+b][-a][-c]");
    store.cask.compact().unwrap();
    store.cask.put("d", "").unwrap();
    assert_eq!(drain(&mut watch), "[+d]");
}

#[test]
fn a_watch_of_a_handle_that_can_write_reports_the_end_although_nothing_is_written() {
    let store = Store::new();
    store.put("key", SECOND);
    let (one, two) = (store.open(&config()), store.open(&config()));
    let reader = store.open(&config().read_only(true));
    let watch = |cask: &Cask| cask.changes("", WatchFrom::Now).unwrap();
    let (mut first, mut second, mut reading) = (watch(&one), watch(&two), watch(&reader));
    // A key of another prefix is over too, and its end is not this watch's.
    let mut unrelated = store.cask.changes("unrelated", WatchFrom::Now).unwrap();
    assert_eq!([drain(&mut first), drain(&mut second)], ["", ""]);
    store.wait(SECOND);
    assert_eq!(drain(&mut reading), "", "no writer has logged it yet");
    assert_eq!(drain(&mut unrelated), "");
    for watch in [&mut first, &mut second, &mut reading] {
        assert_eq!(drain(watch), "[-key]", "by whichever watch looks first, and once");
        assert_eq!(drain(watch), "");
    }
}

/// The first write of a handle syncs: its name, a tail that nothing proves, its block of numbers.
#[test]
fn a_watch_that_does_not_wait_syncs_nothing() {
    for durability in [Durability::Os, Durability::Sync] {
        let store = Store::new();
        store.put("key", SECOND);
        let cask = store.open(&config().durability(durability));
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        store.wait(SECOND);
        let syncs = || [Verb::SyncData, Verb::SyncAll, Verb::SyncDir].map(|verb| store.disk.calls_of(verb));
        let before = syncs();
        assert_eq!(drain(&mut watch), "", "a handle that has not written");
        assert_eq!(syncs(), before);
        store.wait(SECOND);
        assert!(watch.next_timeout(Some(Duration::ZERO)).unwrap().is_some());
        store.put("key 2", SECOND);
        store.wait(SECOND);
        let before = syncs();
        assert_eq!(drain(&mut watch), "[+key 2][-key 2]", "a handle that has written");
        assert_eq!(syncs(), before);
    }
}

/// A key for each of many deadlines took a turn for each.
#[test]
fn a_watch_pauses_between_two_sweeps_unless_one_was_not_enough() {
    let store = Store::with(Limits { swept_records: 3, ..Limits::REAL });
    let milliseconds = Duration::from_millis;
    (0..3).for_each(|n| assert!(store.put(&n.to_string(), SECOND + milliseconds(n)) > 0));
    (3..10).for_each(|n| assert!(store.put(&n.to_string(), SECOND * 2) > 0));
    let mut watch = store.cask.changes("", WatchFrom::Now).unwrap();
    store.wait(SECOND);
    assert_eq!(drain(&mut watch), "[-0]");
    for _ in 0..9 {
        store.wait(milliseconds(1));
        assert_eq!(drain(&mut watch), "");
    }
    store.wait(milliseconds(1));
    assert_eq!(drain(&mut watch), "[-1][-2]");
    store.wait(SECOND);
    assert_eq!(drain(&mut watch), (3..10).map(|n| format!("[-{n}]")).collect::<String>());
}

/// As many as a turn sweeps were tried again in each turn, and none after them.
#[test]
fn keys_that_cannot_be_read_do_not_keep_others_from_being_swept() {
    let store = Store::with(Limits { swept_records: 3, ..Limits::REAL });
    let cask = store.open(&config().read_mode(ReadMode::Pread));
    let options = PutOptions::new().ttl(SECOND);
    (0..10).for_each(|n| drop(cask.put_with(format!("bad {n}"), [7; 20_000], &options).unwrap()));
    (0..10).for_each(|n| drop(cask.put_with(format!("good {n}"), "", &options).unwrap()));
    let contents = store.disk.contents("/store").unwrap();
    let file = Disk::open(&store.disk.process(), "/store".as_ref(), Access::ReadWrite).unwrap();
    for n in 0..10 {
        let key = format!("bad {n}");
        let at = contents.windows(key.len()).position(|bytes| bytes == key.as_bytes()).unwrap();
        file.write_at(at as u64, b"B").unwrap();
    }
    store.wait(SECOND);
    (0..10).for_each(|n| assert!(cask.put("beside", [n]).is_ok()));
    assert_eq!(cask.stats().unwrap().hidden, 10, "those that can be read are removed");
    let before = store.disk.bytes_read();
    cask.put("beside", "").unwrap();
    let read = store.disk.bytes_read() - before;
    assert!(read < 10_000, "a turn reads {read} bytes: the others are tried once");
}

/// While another handle holds the lock, a watch neither waits for it nor fails.
#[test]
fn a_watch_does_not_wait_for_the_lock_to_sweep() {
    let store = Store::new();
    store.put("key", SECOND);
    let mut watch = store.cask.changes("", WatchFrom::Now).unwrap();
    store.wait(SECOND);
    let owner = store.disk.process();
    let file = Disk::open(&owner, "/store".as_ref(), Access::ReadWrite).unwrap();
    assert!(file.try_lock().unwrap());
    assert_eq!(drain(&mut watch), "");
    drop(file);
    assert_eq!(drain(&mut watch), "", "it rests after a try in vain");
    store.wait(SECOND);
    assert_eq!(drain(&mut watch), "[-key]");
}

/// The longest sleep is an hour here, so only the deadline can end it.
#[test]
fn a_sleeping_watch_wakes_at_the_deadline() {
    let Some(()) = with_a_deadline(a_sleeping_watch_wakes_at_the_deadline) else { return };
    let disk = SimDisk::new();
    disk.set_limits(Limits { backstop: 3_600_000, least_running_cost: u64::MAX, ..Limits::REAL });
    let cask = Cask::open_on(Arc::new(disk.process()), "/store", &config()).unwrap();
    cask.put_with("key", "", &PutOptions::new().ttl(Duration::from_millis(50))).unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let unit = watch.next_timeout(None).unwrap().unwrap();
    assert!(matches!(&unit.into_changes().unwrap()[..], [Change::Delete { key, .. }] if key == b"key"));
    // Of a key that is put while the watch sleeps.
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        cask.put_with("next", "", &PutOptions::new().ttl(Duration::from_millis(30))).unwrap();
    });
    assert!(matches!(&watch.next_timeout(None).unwrap().unwrap().into_changes().unwrap()[..], [Change::Put(_)]));
    assert!(matches!(&watch.next_timeout(None).unwrap().unwrap().into_changes().unwrap()[..], [Change::Delete { .. }]));
    writer.join().unwrap();
}

/// Another process puts the key again while this one waits for the lock.
#[test]
fn a_sweep_decides_by_what_the_log_has_under_the_lock() {
    for by_a_watch in [true, false] {
        let store = Store::new();
        let other = store.open(&config());
        store.put("key", SECOND);
        store.put("key 2", SECOND);
        let mut watch = store.cask.changes("", WatchFrom::Now).unwrap();
        store.wait(SECOND);
        let process = store.disk.process();
        let cask = Cask::open_on(Arc::new(process.clone()), "/store", &config()).unwrap();
        assert!(!cask.exists("key").unwrap());
        let mut sweeping = cask.changes("", WatchFrom::Now).unwrap();
        process.before(When::next().of(Verb::TryLock), Repeat::Once, move |_| {
            other.put_with("key", "new", &PutOptions::new().ttl(SECOND)).unwrap();
        });
        if by_a_watch {
            while sweeping.next_timeout(Some(Duration::ZERO)).unwrap().is_some() {}
        } else {
            cask.put("unrelated", "").unwrap();
        }
        assert_eq!(cask.get("key").unwrap().value, b"new");
        let seen = drain(&mut watch);
        assert_eq!(seen.matches("[-key]").count(), 1, "{seen}");
        assert_eq!(seen.matches("[-key 2]").count(), 1, "{seen}");
        cask.verify().unwrap();
    }
}

fn expect_bounded_turns(keys: u64) {
    let store = Store::new();
    let options = PutOptions::new().ttl(SECOND);
    for first in (0..keys).step_by(10_000) {
        let mut batch = Batch::new();
        (first..keys.min(first + 10_000)).for_each(|n| {
            batch.put_with(format!("key {n}"), "", &options);
        });
        store.cask.write(&batch).unwrap();
    }
    store.wait(SECOND);
    assert_eq!(store.cask.len().unwrap(), 0);
    let (most, most_bytes) = (Limits::REAL.swept_records, Limits::REAL.swept_bytes);
    let (mut turns, mut before) = (0, store.cask.stats().unwrap());
    assert_eq!(before.hidden, keys);
    while before.hidden > 0 {
        store.cask.put("beside", "value").unwrap();
        let now = store.cask.stats().unwrap();
        assert_eq!(now.keys, 1);
        let removed = before.hidden - now.hidden;
        assert!(removed <= most && (removed == most || now.hidden == 0), "{removed} keys in a turn");
        // The put, a statement of what is synced, and the deletes.
        let appended = now.log_end - before.log_end;
        assert!(appended <= most_bytes + 200, "{appended} bytes in a turn");
        // Each million numbers begin with a mark.
        assert!(now.groups - before.groups <= 3);
        (turns, before) = (turns + 1, now);
    }
    assert_eq!(turns, keys.div_ceil(most));
    store.cask.verify().unwrap();
}

#[test]
fn many_keys_that_are_over_at_once_keep_no_put_waiting() {
    expect_bounded_turns(30_000);
}

#[test]
#[ignore = "takes some seconds, and the smaller number crosses the same limits"]
fn a_million_keys_that_are_over_at_once_keep_no_put_waiting() {
    expect_bounded_turns(1_000_000);
}

/// Bytes that an opening and one look-up read.
fn bytes_to_open(store: &Store, config: &Config) -> u64 {
    let before = store.disk.bytes_read();
    store.open(config).exists("key 199").unwrap();
    store.disk.bytes_read() - before
}

#[test]
fn snapshots_and_deadlines_go_together() {
    let store = Store::with(Limits { least_cost: 1, least_part: 8, ..Limits::SMALL });
    let Store { cask, clock, .. } = &store;
    let snapshots = config().snapshots(SnapshotPolicy::Never);
    (0..200).for_each(|n| assert!(cask.put(format!("key {n}"), vec![0; 1000]).is_ok()));
    cask.list("").unwrap();
    assert!(cask.write_snapshot().unwrap());
    let options = PutOptions::new().ttl(SECOND);
    (0..100).for_each(|n| drop(cask.put_with(format!("key {n}"), "new", &options).unwrap()));
    (0..20).for_each(|n| assert!(cask.put(format!("key {n}"), "newer").is_ok()));
    (20..30).for_each(|n| cask.delete(format!("key {n}")).unwrap());
    let expect = |keys: u64, what: &str| {
        for listed in [true, false] {
            let handle = store.open(&snapshots);
            if listed {
                assert_eq!(handle.list("").unwrap().len() as u64, keys, "{what}");
                assert_eq!(handle.scan("key").unwrap().rev().count() as u64, keys, "{what}");
            }
            assert_eq!(handle.exists("key 50").unwrap(), keys > 150, "{what}");
            assert_eq!((handle.len().unwrap(), handle.stats().unwrap().keys), (keys, keys), "{what}");
            handle.verify().unwrap();
        }
    };
    // Through the snapshot from before the first deadline, then through one that leads to the 70 that are left, and then through one
    // of a handle that has them from there.
    for round in 0..3 {
        if round == 1 {
            assert!(cask.write_snapshot().unwrap());
        } else if round == 2 {
            let next = store.open(&snapshots);
            next.put("key 199", "").unwrap();
            assert!(next.write_snapshot().unwrap());
        }
        expect(190, "before");
        clock.advance(SECOND);
        expect(120, "after");
        clock.set_wall(-1000);
        expect(190, "set back");
        assert!(bytes_to_open(&store, &snapshots) < 60_000, "the log before the snapshot is not read");
    }
    clock.set_wall(1000);
    // A handle that was opened before learns of deadlines that come later.
    let early = store.open(&snapshots);
    cask.put_with("key 150", "", &options).unwrap();
    cask.put("key 150", "").unwrap();
    cask.put_with("key 151", "", &options).unwrap();
    assert!(early.exists("key 150").unwrap() && early.expires_at("key 151").unwrap().is_some());
    clock.advance(SECOND);
    assert!(early.exists("key 150").unwrap() && !early.exists("key 151").unwrap());
    // A handle that has opened through the snapshot sweeps what is over, and its own snapshot has the rest.
    let sweeper = store.open(&snapshots);
    while sweeper.stats().unwrap().hidden > 0 {
        sweeper.put("key 199", "").unwrap();
    }
    sweeper.put_with("key 152", "", &PutOptions::new().ttl(2 * SECOND)).unwrap();
    assert!(sweeper.write_snapshot().unwrap());
    expect(119, "swept");
    clock.advance(2 * SECOND);
    expect(118, "over, and in the snapshot alone");
}

/// Each opening would have to read all these records.
#[test]
fn very_many_deadlines_have_no_snapshot() {
    let store = Store::with(Limits { least_cost: 1, ..Limits::REAL });
    let options = PutOptions::new().ttl(SECOND);
    let most = 4096;
    for n in 0..=most {
        assert!(
            n % most > 0 || store.cask.put("key", "").is_ok() && store.cask.write_snapshot().unwrap(),
            "{n} deadlines"
        );
        store.cask.put_with(format!("{n}"), "", &options).unwrap();
    }
    assert!(!store.cask.write_snapshot().unwrap(), "{} deadlines", most + 1);
    store.cask.delete("0").unwrap();
    assert!(store.cask.write_snapshot().unwrap());
    store.cask.put_with("0", vec![0; 1 << 20], &options).unwrap();
    store.cask.delete("1").unwrap();
    assert!(!store.cask.write_snapshot().unwrap(), "a mebibyte");
    store.cask.delete("0").unwrap();
    assert!(store.cask.write_snapshot().unwrap());
}

#[test]
fn a_durable_watch_and_all_buckets_see_ends_too() {
    let store = Store::new();
    let log = store.cask.bucket("log").unwrap();
    log.put_with("1", "", &PutOptions::new().ttl(SECOND)).unwrap();
    let options = WatchOptions::new().durable(true).all_buckets(true);
    let mut watch = store.cask.changes_with("", WatchFrom::Snapshot, &options).unwrap();
    assert_eq!(drain(&mut watch), "[+1]");
    store.wait(SECOND);
    assert_eq!(drain(&mut watch), "[-1]");
    // A listing leaves out what is over; its end comes all the same.
    log.put_with("2", "", &PutOptions::new().ttl(SECOND)).unwrap();
    store.wait(SECOND);
    let reader = store.open(&config().read_only(true));
    let mut watch = reader.changes_with("", WatchFrom::Snapshot, &WatchOptions::new().all_buckets(true)).unwrap();
    assert_eq!(drain(&mut watch), "[]");
    store.cask.put("x", "").unwrap();
    assert_eq!(drain(&mut watch), "[+x][-2]");
}

/// The end of a pair that a caller has acted on is in the log: it does not depend on the clock any more.
#[test]
fn a_deleted_key_stays_deleted_when_the_clock_goes_back() {
    let store = Store::new();
    ["key", "batch", "prefix/1", "prefix/2"].iter().for_each(|key| _ = store.put(key, SECOND));
    store.put("stays", 3600 * SECOND);
    store.clock.set_wall(60_000);
    store.cask.delete("key").unwrap();
    assert_eq!(store.cask.write(Batch::new().delete("batch")).unwrap().deleted(), 0);
    assert_eq!(store.cask.delete_prefix("prefix/").unwrap(), 0, "what was hidden is not counted");
    store.clock.set_wall(-60_000);
    for key in ["key", "batch", "prefix/1", "prefix/2"] {
        assert!(!store.cask.exists(key).unwrap(), "{key}");
    }
    assert!(store.cask.exists("stays").unwrap());
}

/// Ben has taken the place of Anna, whose pair was over by a clock that was ahead.
#[test]
fn a_condition_that_rests_on_an_end_is_not_taken_back() {
    // The sweep of Ben's turn takes another key.
    let store = Store::with(Limits { swept_records: 1, ..Limits::REAL });
    store.put("first", SECOND / 2);
    let anna = store.cask.put_with("lease", "anna", &PutOptions::new().ttl(SECOND)).unwrap();
    store.clock.set_wall(60_000);
    store.cask.write(Batch::new().expect_absent("lease").put("owner", "ben")).unwrap();
    store.clock.set_wall(-60_000);
    let renewed = store.cask.atomic_put_with("lease", "anna", Some(&anna), &PutOptions::new().ttl(SECOND));
    assert!(matches!(renewed, Err(Error::KeyNotFound)), "{renewed:?}");
}

/// A refusal is an answer like that of a read: the log stays as it is.
#[test]
fn a_refusal_for_a_key_that_is_over_writes_nothing() {
    let store = Store::new();
    let pair = store.cask.put_with("key", "value", &PutOptions::new().ttl(SECOND)).unwrap();
    store.wait(SECOND);
    let end = store.cask.stats().unwrap().log_end;
    assert!(matches!(store.cask.atomic_put("key", "new", Some(&pair)), Err(Error::KeyNotFound)));
    assert_eq!(store.cask.stats().unwrap().log_end, end);
}
