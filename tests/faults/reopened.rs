//! Handles that are opened again after a failure from which they cannot go on: what was promised before it holds, what
//! is promised after it holds, and all clones, buckets and waiting threads go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Cask, Config, Durability, Error, KvPair, LockMode, OptionalExt};

use crate::common::patience::with_a_deadline;
use crate::common::{TempDir, names};

const STORE: &str = "/store";

fn open(disk: &SimDisk, config: &Config) -> caskfile::Result<Cask> {
    Cask::open_on(Arc::new(disk.clone()), STORE, config)
}

fn sync_config() -> Config {
    Config::new().connection_timeout(Duration::ZERO)
}

/// A disk on which a sync that fails loses what it should have written, and the system then forgets that it had it.
fn forgetful_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::from_seed(seed);
    disk.set_failed_syncs(if seed % 2 == 0 { Choices::keep_nothing() } else { Choices::from_seed(seed) });
    disk
}

fn value(cask: &Cask, key: &str) -> Option<Vec<u8>> {
    cask.get(key).optional().unwrap().map(|pair: KvPair| pair.value)
}

/// The n-th sync fails, for every n; the failed write is in doubt, and nothing else is.
#[test]
fn a_handle_reopened_after_a_failed_sync_keeps_every_promise() {
    let mut poisoned = 0;
    for (lock_mode, drop_caches) in
        [LockMode::PerWrite, LockMode::Exclusive].into_iter().flat_map(|mode| [(mode, false), (mode, true)])
    {
        for nth in 1..12 {
            let disk = forgetful_disk(nth);
            let cask = open(&disk, &sync_config().lock_mode(lock_mode)).unwrap();
            let (clone, bucket) = (cask.clone(), cask.bucket("bucket").unwrap());
            disk.fail(
                When::nth(nth).of_any(&[Verb::SyncData, Verb::SyncAll]),
                Fault::Error(std::io::ErrorKind::Other),
                Repeat::Once,
            );
            let mut acknowledged = Vec::new();
            let mut failed = false;
            for number in 0..12 {
                let key = format!("{number}");
                match clone.put(&key, "first") {
                    Ok(_) => acknowledged.push(key),
                    Err(Error::Poisoned { .. }) => {
                        failed = true;
                        poisoned += 1;
                        assert!(matches!(bucket.put(&key, ""), Err(Error::Poisoned { .. })));
                        if drop_caches {
                            disk.drop_caches();
                        }
                        assert!(acknowledged.iter().all(|key| value(&cask, key).is_some()), "reads go on");
                        cask.reopen().unwrap();
                        // In doubt: whatever it is, it stays so from here on.
                        let found = value(&cask, &key);
                        assert!(found.is_none() || found == Some(b"first".to_vec()));
                        bucket.put("after", "in a bucket").unwrap();
                        assert_eq!(value(&clone, &key), found);
                        let after = disk.reboot(&mut Choices::keep_nothing());
                        let after = open(&after, &sync_config().read_only(true)).unwrap();
                        assert_eq!(
                            value(&after, &key),
                            found,
                            "what was read after reopening is durable with a later write"
                        );
                        assert_eq!(value(&after.bucket("bucket").unwrap(), "after"), Some(b"in a bucket".to_vec()));
                    }
                    Err(error) => panic!("{error}"),
                }
                let after = disk.reboot(&mut Choices::from_seed(nth));
                let after = open(&after, &sync_config()).unwrap();
                assert!(acknowledged.iter().all(|key| value(&after, key) == Some(b"first".to_vec())), "sync {nth}");
            }
            assert!(failed || nth > 10 || acknowledged.len() == 12);
            cask.verify().unwrap();
            cask.close().unwrap();
            assert!(matches!(cask.reopen(), Err(Error::Closed)));
        }
    }
    assert!(poisoned > 20, "{poisoned} times");
}

/// Every index that was ever read stays one of its kind.
#[test]
fn an_index_seen_before_the_failure_is_not_reused() {
    for seed in 0..20 {
        let disk = forgetful_disk(seed);
        let cask = open(&disk, &sync_config()).unwrap();
        cask.put("key", "0").unwrap();
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        assert!(matches!(cask.put("key", "1"), Err(Error::Poisoned { .. })));
        // Others may read what is not synced.
        let seen = cask.get("key").unwrap();
        disk.drop_caches();
        cask.reopen().unwrap();
        let now = cask.get("key").unwrap();
        assert!(now == seen || now.last_index < seen.last_index);
        let new = cask.atomic_put("key", "2", Some(&now)).unwrap();
        assert!(new.last_index > seen.last_index);
        if now != seen {
            assert!(matches!(cask.atomic_put("key", "3", Some(&seen)), Err(Error::KeyModified)));
        }
    }
}

/// Whatever call of it fails, reads go on, writes are refused as before, and the next try succeeds.
#[test]
fn a_reopening_that_fails_can_be_tried_again() {
    for nth in 1.. {
        let disk = forgetful_disk(nth);
        let cask = open(&disk, &sync_config()).unwrap();
        cask.put("key", "before").unwrap();
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        assert!(matches!(cask.put("failed", ""), Err(Error::Poisoned { .. })));
        disk.fail(When::nth(nth), Fault::Os(libc::EIO), Repeat::Once);
        let calls = disk.calls();
        let reopened = cask.reopen();
        let calls = disk.calls() - calls;
        disk.clear_faults();
        if reopened.is_err() {
            assert_eq!(value(&cask, "key"), Some(b"before".to_vec()), "call {nth}");
            assert!(matches!(cask.put("key", ""), Err(Error::Poisoned { .. })), "call {nth}");
            cask.reopen().unwrap();
        }
        cask.put("key", "after").unwrap();
        assert_eq!(value(&cask, "key"), Some(b"after".to_vec()));
        cask.verify().unwrap();
        let after = open(&disk.reboot(&mut Choices::keep_nothing()), &sync_config()).unwrap();
        assert_eq!(value(&after, "key"), Some(b"after".to_vec()));
        if calls < nth {
            assert!(reopened.is_ok() && calls > 10);
            break;
        }
    }
}

#[test]
fn the_background_thread_goes_on_after_a_failed_sync() {
    let Some(()) = with_a_deadline(the_background_thread_goes_on_after_a_failed_sync) else { return };
    let disk = forgetful_disk(0);
    let config = Config::new().durability(Durability::Interval(Duration::from_millis(2)));
    let cask = open(&disk, &config).unwrap();
    cask.put("key", "before").unwrap();
    cask.sync().unwrap();
    for round in 0..5 {
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        while !matches!(cask.put("doubtful", "1"), Err(Error::Poisoned { .. })) {}
        disk.drop_caches();
        cask.reopen().unwrap();
        assert_eq!(value(&cask, "key"), Some(b"before".to_vec()));
        cask.put("key", "before").unwrap();
        cask.put("after", format!("{round}")).unwrap();
        // The background thread brings it there, within its interval.
        let durable = || {
            let after = disk.reboot(&mut Choices::keep_nothing());
            value(&open(&after, &config.clone().read_only(true)).unwrap(), "after")
        };
        while durable() != Some(format!("{round}").into_bytes()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    cask.close().unwrap();
}

#[test]
fn another_process_may_write_before_the_reopening() {
    for seed in 0..10 {
        let disk = forgetful_disk(seed);
        let (ours, theirs) = (open(&disk, &sync_config()).unwrap(), open(&disk.process(), &sync_config()).unwrap());
        ours.put("ours", "1").unwrap();
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        assert!(matches!(ours.put("ours", "2"), Err(Error::Poisoned { .. })));
        // The system reports the error once to each process that had the file open.
        if theirs.put("theirs", "1").is_err() {
            theirs.reopen().unwrap();
            theirs.put("theirs", "1").unwrap();
        }
        let seen = value(&theirs, "ours");
        ours.reopen().unwrap();
        assert_eq!(value(&ours, "theirs"), Some(b"1".to_vec()));
        assert_eq!(value(&ours, "ours"), seen);
        ours.put("ours", "3").unwrap();
        theirs.put("theirs", "2").unwrap();
        let after = open(&disk.reboot(&mut Choices::keep_nothing()), &sync_config()).unwrap();
        assert_eq!((value(&after, "ours"), value(&after, "theirs")), (Some(b"3".to_vec()), Some(b"2".to_vec())));
    }
}

#[test]
fn a_reopened_handle_uses_the_file_that_replaced_its_own() {
    let directory = TempDir::new();
    let (path, other) = (directory.join("store"), directory.join("other"));
    for config in [Config::new(), Config::new().lock_mode(LockMode::Exclusive)] {
        let cask = Cask::open_with(&path, &config).unwrap();
        let bucket = cask.bucket("bucket").unwrap();
        cask.put("key", "old").unwrap();
        let restored = Cask::open(&other).unwrap();
        restored.put("key", "new").unwrap();
        restored.close().unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(cask.put("key", ""), Err(Error::Replaced { .. })));
        assert_eq!(cask.get("key").unwrap().value, b"old");
        bucket.reopen().unwrap();
        assert_eq!(cask.get("key").unwrap().value, b"new");
        cask.put("key", "newer").unwrap();
        bucket.put("key", "in the bucket").unwrap();
        cask.close().unwrap();
        let again = Cask::open(&path).unwrap();
        assert_eq!(again.get("key").unwrap().value, b"newer");
        again.verify().unwrap();

        std::fs::remove_file(&path).unwrap();
        assert!(matches!(again.put("key", ""), Err(Error::Replaced { .. })));
        assert!(matches!(again.reopen(), Err(Error::Io { .. })), "a file that is gone is not made again");
        assert_eq!(again.get("key").unwrap().value, b"newer", "reads go on");
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn a_read_only_handle_reopens_too_and_changes_nothing() {
    let disk = SimDisk::new();
    let writer = open(&disk, &sync_config()).unwrap();
    writer.put("key", "value").unwrap();
    writer.put("torn", "value").unwrap();
    let end = writer.stats().unwrap().log_end as usize;
    // As a kill leaves it. A writer would cut this end off.
    let disk = disk.fork();
    let before = disk.contents(STORE).unwrap()[..end - 16].to_vec();
    disk.set_contents(STORE, before.clone());
    let reader = open(&disk.process(), &sync_config().read_only(true)).unwrap();
    let locks = disk.calls_of(Verb::TryLock);
    reader.reopen().unwrap();
    assert_eq!((value(&reader, "key"), value(&reader, "torn")), (Some(b"value".to_vec()), None));
    assert!(disk.contents(STORE).unwrap() == before);
    assert_eq!(disk.calls_of(Verb::TryLock), locks, "it would wait for writers");
}

/// One thread writes, others read and list, one reopens again and again: no thread sees an error or an older state.
#[test]
fn reopening_a_sound_handle_disturbs_no_other_thread() {
    let Some(()) = with_a_deadline(reopening_a_sound_handle_disturbs_no_other_thread) else { return };
    let directory = TempDir::new();
    let cask = Cask::open_with(directory.join("store"), &Config::new().durability(Durability::Os)).unwrap();
    cask.put("counter", 0_u64.to_be_bytes()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300_u64 {
                cask.put("counter", number.to_be_bytes()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut last = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let pair = cask.get("counter").unwrap();
                assert!(pair.value >= last);
                last = pair.value;
                assert_eq!(cask.list("").unwrap().len(), 1);
            }
        });
        while !done.load(Ordering::Relaxed) {
            cask.reopen().unwrap();
        }
    });
    assert_eq!(cask.get("counter").unwrap().value, 299_u64.to_be_bytes());
    cask.verify().unwrap();
}

/// Has another process try for the lock of the file at `path` before every call of this one.
fn try_for_the_lock(disk: &SimDisk, ours: &SimDisk, path: &'static str) -> Arc<AtomicBool> {
    let had = Arc::new(AtomicBool::new(false));
    let (other, seen) = (disk.process(), Arc::clone(&had));
    disk.before(When::next().by(ours), Repeat::Forever, move |_| {
        let Ok(file) = other.open(path.as_ref(), Access::ReadWrite) else { return };
        seen.fetch_or(file.try_lock().unwrap(), Ordering::Relaxed);
    });
    had
}

#[test]
fn an_exclusive_handle_keeps_its_lock_during_a_reopening() {
    let disk = SimDisk::new();
    let ours = disk.process();
    let cask = open(&ours, &sync_config().lock_mode(LockMode::Exclusive)).unwrap();
    cask.put("key", "before").unwrap();
    let had = try_for_the_lock(&disk, &ours, STORE);
    for _ in 0..3 {
        disk.fail(When::next().of(Verb::SyncData).by(&ours), Fault::Os(libc::EIO), Repeat::Once);
        cask.put("key", "in doubt").unwrap_err();
        cask.reopen().unwrap();
        cask.put("key", "after").unwrap();
        assert!(!had.load(Ordering::Relaxed), "another process had the lock");
    }
    cask.compact().unwrap();
    cask.put("key", "compacted").unwrap();
    assert!(!had.load(Ordering::Relaxed), "another process had the lock");
    disk.clear_hooks();
    let other = open(&disk.process(), &sync_config()).unwrap_err();
    assert!(matches!(other, Error::LockTimeout { .. }), "{other:?}");
    cask.close().unwrap();
    assert_eq!(value(&open(&disk.process(), &sync_config()).unwrap(), "key").unwrap(), b"compacted");
}

#[test]
fn an_exclusive_handle_keeps_its_old_lock_without_the_new() {
    const MOVED: &str = "/moved";
    let disk = SimDisk::new();
    let ours = disk.process();
    let cask = open(&ours, &sync_config().lock_mode(LockMode::Exclusive)).unwrap();
    cask.put("key", "old").unwrap();
    disk.rename(STORE.as_ref(), MOVED.as_ref()).unwrap();
    let theirs = open(&disk.process(), &sync_config().lock_mode(LockMode::Exclusive)).unwrap();
    theirs.put("key", "new").unwrap();
    let had = try_for_the_lock(&disk, &ours, MOVED);
    for _ in 0..2 {
        let error = cask.reopen().unwrap_err();
        assert!(matches!(error, Error::LockTimeout { holder: Some(3), .. }), "{error:?}");
        assert!(!had.load(Ordering::Relaxed), "another process had the lock");
        assert_eq!(value(&cask, "key").unwrap(), b"old", "everything is as it was");
        assert!(matches!(cask.put("key", "lost"), Err(Error::Replaced { .. })));
    }
    // And it goes on where it was, should that get its path back.
    disk.rename(STORE.as_ref(), "/theirs".as_ref()).unwrap();
    disk.rename(MOVED.as_ref(), STORE.as_ref()).unwrap();
    cask.put("key", "older").unwrap();
    disk.rename(STORE.as_ref(), MOVED.as_ref()).unwrap();
    disk.rename("/theirs".as_ref(), STORE.as_ref()).unwrap();
    disk.clear_hooks();
    theirs.close().unwrap();
    cask.reopen().unwrap();
    assert_eq!(value(&cask, "key").unwrap(), b"new");
    cask.put("key", "ours").unwrap();
    let old = disk.process().open(MOVED.as_ref(), Access::ReadWrite).unwrap();
    assert!(old.try_lock().unwrap(), "the old file's lock is given up");
    let other = open(&disk.process(), &sync_config()).unwrap_err();
    assert!(matches!(other, Error::LockTimeout { .. }), "the new one's is held: {other:?}");
}
