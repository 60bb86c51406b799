//! Compaction that starts by itself.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error};

use crate::common::hooked::HookedDisk;
use crate::common::patience::{in_finite_time, with_a_deadline};
use crate::common::{TempDir, names};

const LIVE_KEYS: usize = 100;

fn early() -> Config {
    let policy = CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 1 << 20 };
    Config::new().durability(Durability::Os).compaction(policy)
}

/// Writes the same keys again: about 300 KB.
fn overwrite(cask: &Cask) {
    for n in 0..LIVE_KEYS {
        cask.put(format!("key-{n:03}"), [n as u8; 3000]).unwrap();
    }
}

fn check(cask: &Cask) {
    let pairs = cask.list("key-").unwrap();
    assert_eq!(pairs.len(), LIVE_KEYS);
    assert!(pairs.iter().zip(0..).all(|(pair, n)| pair.value == [n; 3000]));
    cask.verify().unwrap();
}

/// How many descriptors this process has of files in a directory.
fn open_files(directory: &Path) -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().filter(|fd| {
        let target = fd.as_ref().ok().and_then(|fd| fs::read_link(fd.path()).ok());
        target.is_some_and(|target| target.starts_with(directory))
    });
    files.count()
}

#[test]
fn a_store_whose_keys_are_overwritten_stays_small() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &early()).unwrap();
        while cask.stats().unwrap().compactions < 3 {
            overwrite(&cask);
        }
        check(&cask);
        cask.close().unwrap();
        assert_eq!(names(directory.path()), ["store"]);
        check(&Cask::open(directory.join("store")).unwrap());
    });
}

/// Each piece of the compaction takes long, so that writers would be far ahead of it; and pauses take long, too, so that it
/// makes no difference when the machine has no time for its thread.
#[test]
fn writers_faster_than_the_compaction_wait_for_it() {
    const KEYS: usize = 2000;
    const WRITERS: usize = 2;
    const BATCH: usize = 20;
    in_finite_time(|| {
        let directory = TempDir::new();
        let disk = HookedDisk::new(|call| {
            let compacting = thread::current().name() == Some("caskfile-compact");
            match call {
                "write_back" if compacting => thread::sleep(Duration::from_millis(30)),
                "pause" => thread::sleep(Duration::from_millis(20)),
                _ => {}
            }
            Ok(())
        });
        let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &early()).unwrap();
        let longest = AtomicU64::new(0);
        let write = |writer: usize, version: u8| {
            for first in (writer * BATCH..KEYS).step_by(WRITERS * BATCH) {
                let mut batch = Batch::new();
                for n in first..first + BATCH {
                    batch.put(format!("key-{n:04}"), [version; 3000]);
                }
                cask.write(&batch).unwrap();
                longest.fetch_max(cask.stats().unwrap().log_end, Ordering::Relaxed);
            }
        };
        (0..WRITERS).for_each(|writer| write(writer, 0));
        let live = cask.stats().unwrap().live_bytes;
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || (1..=6).for_each(|version| write(writer, version)));
            }
        });
        let stats = cask.stats().unwrap();
        assert!(stats.compactions > 0 && stats.live_bytes == live);
        let (longest, slack) = (longest.into_inner(), (1 << 20) + (WRITERS * BATCH * 3100) as u64);
        assert!(longest < live / 10 * 22 + slack, "{longest} bytes for {live} live ones");
        assert!(cask.list("").unwrap().iter().all(|pair| pair.value == [6; 3000]));
        cask.verify().unwrap();
    });
}

#[test]
fn deletions_make_a_store_due_as_well() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &early()).unwrap();
        while cask.stats().unwrap().compactions == 0 {
            overwrite(&cask);
            cask.delete_prefix("").unwrap();
        }
    });
}

#[test]
fn manual_compaction_never_starts_by_itself() {
    let Some(()) = with_a_deadline(manual_compaction_never_starts_by_itself) else { return };
    let directory = TempDir::new();
    let cask = Cask::open_with(directory.join("store"), &early().compaction(CompactionPolicy::Manual)).unwrap();
    (0..20).for_each(|_| overwrite(&cask));
    let stats = cask.stats().unwrap();
    assert!(stats.compactions == 0 && stats.dead_bytes > 10 * stats.live_bytes);
    cask.close().unwrap();
}

/// The thread is held up in its first write to the new file until closing has begun.
#[test]
fn closing_stops_it_and_keeps_no_file_open() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let (begun, closing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (seen, wait) = (Arc::clone(&begun), Arc::clone(&closing));
        let disk = HookedDisk::new(move |call| {
            let compacting = thread::current().name() == Some("caskfile-compact");
            if compacting && call == "write_at" {
                seen.store(true, Ordering::Relaxed);
                while !wait.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        });
        let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &early()).unwrap();
        while !begun.load(Ordering::Relaxed) {
            // With patience: the thread may be held up while it has the lock.
            let done = cask.clone();
            thread::spawn(move || overwrite(&done));
            thread::sleep(Duration::from_millis(20));
        }
        let closer = thread::spawn(move || cask.close());
        thread::sleep(Duration::from_millis(20));
        closing.store(true, Ordering::Relaxed);
        closer.join().unwrap().unwrap();
        assert_eq!(open_files(directory.path()), 0);
        assert_eq!(names(directory.path()), ["store"]);
    });
}

#[test]
fn dropping_the_last_handle_ends_a_compaction_just_started() {
    let Some(()) = with_a_deadline(dropping_the_last_handle_ends_a_compaction_just_started) else { return };
    for _ in 0..20 {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &early()).unwrap();
        (0..6).for_each(|_| overwrite(&cask));
        drop(cask);
        assert_eq!(names(directory.path()), ["store"]);
        assert_eq!(open_files(directory.path()), 0);
        check(&Cask::open(directory.join("store")).unwrap());
    }
}

#[test]
fn a_compaction_that_is_asked_for_takes_its_place() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &early()).unwrap();
        for _ in 0..30 {
            (0..4).for_each(|_| overwrite(&cask));
            cask.compact().unwrap();
        }
        check(&cask);
    });
}

#[test]
fn a_file_with_two_names_is_left_alone() {
    let Some(()) = with_a_deadline(a_file_with_two_names_is_left_alone) else { return };
    let directory = TempDir::new();
    let cask = Cask::open_with(directory.join("store"), &early()).unwrap();
    fs::hard_link(directory.join("store"), directory.join("other")).unwrap();
    (0..20).for_each(|_| overwrite(&cask));
    assert_eq!(cask.stats().unwrap().compactions, 0);
    check(&cask);
    cask.close().unwrap();
    assert_eq!(names(directory.path()), ["other", "store"]);
}

#[test]
fn a_failed_compaction_is_not_repeated_by_the_next_write() {
    let directory = TempDir::new();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let disk = HookedDisk::new(move |call| {
        if call == "create_new" && thread::current().name() == Some("caskfile-compact") {
            counted.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    });
    let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &early()).unwrap();
    in_finite_time(move || {
        while tries.load(Ordering::Relaxed) == 0 {
            overwrite(&cask);
        }
        (0..20).for_each(|_| overwrite(&cask));
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        check(&cask);
        cask.close().unwrap();
    });
    assert_eq!(names(directory.path()), ["store"]);
}

/// Several handles are what several processes are: each has a description of its own.
#[test]
fn of_several_handles_one_compacts_and_the_others_follow() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let open = || Cask::open_with(directory.join("store"), &early()).unwrap();
        let handles = [open(), open(), open()];
        let compactions = || handles.iter().map(|cask| cask.stats().unwrap().compactions).sum::<u64>();
        thread::scope(|scope| {
            for cask in &handles {
                scope.spawn(|| {
                    while compactions() < 5 {
                        overwrite(cask);
                    }
                });
            }
        });
        handles.iter().for_each(check);
        handles.iter().for_each(|cask| cask.close().unwrap());
        assert_eq!(names(directory.path()), ["store"]);
    });
}

/// Another process takes the lock just before a compaction in the background does, and keeps it. Returns the store, and what
/// has the lock until it is dropped.
fn with_one_that_waits_for_its_turn(directory: &TempDir) -> (Cask, Arc<Mutex<Option<fs::File>>>) {
    waiting(directory, Duration::ZERO, |_| ())
}

/// The same, with a timeout and a look at each call on the disk.
fn waiting(
    directory: &TempDir,
    timeout: Duration,
    look: impl Fn(&'static str) + Send + Sync + 'static,
) -> (Cask, Arc<Mutex<Option<fs::File>>>) {
    let path = directory.join("store");
    let holder = Arc::new(Mutex::new(None));
    let (held, store, begun) = (Arc::clone(&holder), path.clone(), AtomicBool::new(false));
    let disk = HookedDisk::new(move |call| {
        look(call);
        let compacting = thread::current().name() == Some("caskfile-compact");
        if compacting && call == "try_lock" && !begun.swap(true, Ordering::Relaxed) {
            let file = fs::File::open(&store)?;
            fs2::FileExt::lock_exclusive(&file)?;
            *held.lock().unwrap() = Some(file);
        }
        Ok(())
    });
    let cask = Cask::open_on(Arc::new(disk), path, &early().connection_timeout(timeout)).unwrap();
    while holder.lock().unwrap().is_none() {
        // It fails while the thread has its turn, or waits for it.
        let _ = cask.put("key", [0; 3000]);
    }
    (cask, holder)
}

#[test]
fn a_compaction_that_must_wait_starts_in_its_turn() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let (cask, holder) = with_one_that_waits_for_its_turn(&directory);
        // It looks ten times a second whether it is to stop.
        thread::sleep(Duration::from_millis(300));
        *holder.lock().unwrap() = None;
        while cask.stats().unwrap().compactions == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn closing_stops_one_that_waits_for_its_turn() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let (cask, holder) = with_one_that_waits_for_its_turn(&directory);
        cask.close().unwrap();
        *holder.lock().unwrap() = None;
        assert_eq!(open_files(directory.path()), 0);
    });
}

/// Counts copies: how many were begun, and how many took the store's place.
struct Copies {
    begun: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Copies {
    fn on_a_disk(fail: &'static str) -> (Copies, Arc<HookedDisk>) {
        let copies = Copies { begun: Arc::default(), finished: Arc::default() };
        let (begun, finished) = (Arc::clone(&copies.begun), Arc::clone(&copies.finished));
        let disk = HookedDisk::new(move |call| {
            match call {
                "create_new" => begun.fetch_add(1, Ordering::Relaxed),
                "rename" if fail.is_empty() => finished.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            if call == fail { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        });
        (copies, Arc::new(disk))
    }

    fn counts(&self) -> [u64; 2] {
        [&self.begun, &self.finished].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Each process writes less than what makes a store due, so each copy in the background was stopped when the store was
/// closed: a file had six times its live bytes, and grew.
#[test]
fn many_short_lived_handles_keep_the_store_small() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = directory.join("store");
        overwrite(&Cask::open_with(&path, &early()).unwrap());
        let (copies, disk) = Copies::on_a_disk("");
        let mut longest = 0;
        for _ in 0..100 {
            let cask = Cask::open_on(Arc::clone(&disk) as _, &path, &early()).unwrap();
            overwrite(&cask);
            let live = cask.stats().unwrap().live_bytes;
            cask.close().unwrap();
            let len = fs::metadata(&path).unwrap().len();
            assert!(len <= live + (2 << 20) + 4096, "{len} bytes for {live} live ones");
            longest = longest.max(len);
        }
        let [begun, finished] = copies.counts();
        assert!(longest > 2 << 20 && begun == finished, "{finished} of {begun} copies, {longest} bytes");
        assert!((10..=20).contains(&finished), "30 MB were written, and 2 MiB are dead each time: {finished}");
        assert_eq!(names(directory.path()), ["store"]);
        check(&Cask::open(&path).unwrap());
    });
}

fn overdue(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &early().compaction(CompactionPolicy::Manual)).unwrap();
    (0..10).for_each(|_| overwrite(&cask));
    path
}

#[test]
fn a_handle_without_writes_compacts_nothing_at_close() {
    let Some(()) = with_a_deadline(a_handle_without_writes_compacts_nothing_at_close) else { return };
    let directory = TempDir::new();
    let path = overdue(&directory);
    let (copies, disk) = Copies::on_a_disk("");
    let open = || Cask::open_on(Arc::clone(&disk) as _, &path, &early()).unwrap();
    check(&open());
    assert_eq!(copies.counts(), [0, 0]);
    open().put("key-000", [0; 3000]).unwrap();
    assert_eq!(copies.counts(), [1, 1]);
}

#[test]
fn a_compaction_that_fails_at_close_is_no_error() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = overdue(&directory);
        let len = fs::metadata(&path).unwrap().len();
        let (copies, disk) = Copies::on_a_disk("rename");
        let cask = Cask::open_on(disk, &path, &early()).unwrap();
        cask.put("key-000", [0; 3000]).unwrap();
        cask.close().unwrap();
        assert_eq!(copies.counts(), [1, 0]);
        assert_eq!(names(directory.path()), ["store"]);
        assert!(fs::metadata(&path).unwrap().len() >= len);
        check(&Cask::open(&path).unwrap());
    });
}

/// Another program has the lock all the time.
#[test]
fn closing_an_overdue_store_waits_for_the_lock_as_configured() {
    in_finite_time(|| {
        let directory = TempDir::new();
        overdue(&directory);
        let (cask, holder) = with_one_that_waits_for_its_turn(&directory);
        cask.close().unwrap();
        *holder.lock().unwrap() = None;
        assert_eq!(open_files(directory.path()), 0);
        check(&Cask::open(directory.join("store")).unwrap());
    });
}

/// The thread that compacts waits for the lock first, then closing would compact by itself, and then tidy up. Each of them
/// could wait for the whole timeout.
#[test]
fn closing_an_overdue_store_waits_for_the_lock_once() {
    in_finite_time(|| {
        for is_alone in [false, true] {
            let directory = TempDir::new();
            overdue(&directory);
            let (closer, calls) = (thread::current().id(), Arc::new(Mutex::new(Vec::new())));
            let seen = Arc::clone(&calls);
            let (cask, holder) = waiting(&directory, Duration::from_millis(20), move |call| {
                if thread::current().id() == closer && ["pause", "lock_holder"].contains(&call) {
                    seen.lock().unwrap().push(call);
                }
            });
            if is_alone {
                let stopped = cask.compact_with(|_| ControlFlow::Break(()));
                assert!(matches!(stopped, Err(Error::LockTimeout { .. })), "and the thread is stopped");
            }
            calls.lock().unwrap().clear();
            cask.close().unwrap();
            let calls = calls.lock().unwrap();
            let [waits, timeouts] = ["pause", "lock_holder"].map(|name| calls.iter().rposition(|&call| call == name));
            let first_timeout = calls.iter().position(|&call| call == "lock_holder");
            assert!(timeouts.is_some() && waits.is_some() == is_alone, "{calls:?}");
            assert!(waits < first_timeout, "after the timeout nothing is left to wait: {calls:?}");
            *holder.lock().unwrap() = None;
        }
    });
}
