//! What runs out: space, file sizes, descriptors, threads, maps. Nothing acknowledged is lost, no file is left over,
//! and when there is some again, writes work again.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Error, OptionalExt, Result, SnapshotPolicy};

use crate::common::hooked::HookedDisk;
use crate::common::process::{self, Process, arguments, in_own_mounts, in_own_process, say, this_test};
use crate::common::refusal::{io_kind, refused, says, store_with};
use crate::common::{TempDir, names};

/// Puts larger and smaller values until nothing more fits. Returns how many were put, and the error that ended it.
fn put_until_full(cask: &Cask) -> (usize, Error) {
    let mut count = 0;
    for len in [50_000, 5_000, 500, 50] {
        loop {
            match cask.put(format!("key-{count:05}"), vec![count as u8; len]) {
                Ok(_) => count += 1,
                Err(error) if len == 50 => return (count, error),
                Err(_) => break,
            }
        }
    }
    unreachable!("the last length is the one that returns")
}

fn assert_all_there(cask: &Cask, count: usize) {
    let pairs = cask.list("key-").unwrap();
    assert_eq!(pairs.len(), count);
    for (number, pair) in pairs.iter().enumerate() {
        assert_eq!(pair.key, format!("key-{number:05}").as_bytes());
        assert!(pair.value.iter().all(|byte| *byte == number as u8));
    }
    cask.verify().unwrap();
}

/// One store comes to the end of the space, and after `more` of it was made, goes on.
fn fills_up_and_goes_on(directory: &Path, config: &Config, kind: ErrorKind, more: impl FnOnce()) {
    let path = directory.join("store");
    let cask = Cask::open_with(&path, config).unwrap();
    let (count, error) = put_until_full(&cask);
    assert_eq!(io_kind(&error), kind, "{error:?}");
    says(&error, &path, &[]);
    assert!(count > 10);
    assert_all_there(&cask, count);

    let error = refused(cask.compact());
    assert_eq!(io_kind(&error), kind, "{error:?}");
    assert_eq!(names(directory), ["store"], "the compaction that failed left nothing");
    assert_all_there(&cask, count);
    assert_all_there(&Cask::open_with(&path, &Config::new().read_only(true)).unwrap(), count);
    let elsewhere = TempDir::new();
    let copy = elsewhere.join("copy");
    cask.compact_to(&copy).unwrap();
    assert_all_there(&Cask::open(&copy).unwrap(), count);

    more();
    cask.put("after", "there is space again").unwrap();
    cask.compact().unwrap();
    cask.close().unwrap();
    let cask = Cask::open(&path).unwrap();
    assert_eq!(cask.get("after").unwrap().value, b"there is space again");
    assert_all_there(&cask, count);
    cask.close().unwrap();
}

#[test]
fn a_full_disk_loses_nothing_and_new_space_is_used() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "caskfile-test"]).arg(directory).status().unwrap().success()
    };
    let unmount = || assert!(Command::new("umount").arg(directory).status().unwrap().success());
    if !mount("size=1m") {
        return say("mount is not allowed");
    }
    unmount();
    for durability in [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(1))] {
        assert!(mount("size=1m"));
        let config = Config::new().durability(durability);
        fills_up_and_goes_on(directory, &config, ErrorKind::StorageFull, || assert!(mount("remount,size=8m")));
        unmount();
    }

    // A process that looks is not killed, whatever the last value ends with.
    for (left, zeros) in (1..5).flat_map(|left| [400, 5_000, 20_000].map(|zeros| (left, zeros))) {
        assert!(mount("size=256k"));
        let cask = Cask::open_with(directory.join("store"), &Config::new().durability(Durability::Os)).unwrap();
        cask.put("before", "value").unwrap();
        let reader = Cask::open_with(directory.join("store"), &Config::new().read_only(true)).unwrap();
        let ballast = directory.join("ballast");
        fs::write(&ballast, vec![1; 1 << 20]).unwrap_err();
        let filled = fs::metadata(&ballast).unwrap().len();
        File::options().write(true).open(&ballast).unwrap().set_len(filled - left * 4096).unwrap();
        let mut put = 0;
        let error = loop {
            match cask.put(format!("key-{put}"), ends_in_zeros(zeros)) {
                Ok(_) => put += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(io_kind(&error), ErrorKind::StorageFull, "{error:?}");
        let late = Cask::open_with(directory.join("store"), &Config::new().read_only(true)).unwrap();
        for handle in [&cask, &reader, &late] {
            assert_eq!(handle.list("key-").unwrap().len(), put);
        }
        drop((cask, reader, late));
        unmount();
    }

    // There is no space even to begin.
    assert!(mount("size=64k"));
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap_err();
    let path = directory.join("store");
    let error = refused(Cask::open(&path));
    assert_eq!(io_kind(&error), ErrorKind::StorageFull);
    says(&error, &path, &[]);
    assert_eq!(names(directory), ["ballast"]);
    fs::remove_file(&ballast).unwrap();
    store_with(&path, &[("key", "value")]);
    unmount();
}

/// A value that is whole, as far as a reader can see, before its last pages are written: a file that was extended reads as
/// zeros there.
fn ends_in_zeros(zeros: usize) -> Vec<u8> {
    [vec![7; 100], vec![0; zeros]].concat()
}

/// Once such a value was acknowledged on a full disk though its tail was a hole, and on tmpfs every process was killed
/// that looked at it through a map.
#[test]
fn maps_of_a_full_disk_are_read_without_a_signal() {
    let zeros = [0, 400, 4096 - 24 - 104, 3 * 4096, 3 * 4096 + 8, 20_000];
    for (free, zeros) in (0..9).flat_map(|free| zeros.map(|zeros| (free, zeros))) {
        for (durability, batch) in [(Durability::Sync, 1), (Durability::Os, 1), (Durability::Os, 3)] {
            let disk = SimDisk::new();
            let open = |config: &Config| Cask::open_on(Arc::new(disk.process()), "/store", config).unwrap();
            let writer = open(&Config::new().durability(durability));
            writer.put("before", "value").unwrap();
            let reader = open(&Config::new().read_only(true));
            disk.set_free_pages(Some(free));
            let mut put = 0;
            let error = loop {
                let mut group = Batch::new();
                for n in 0..batch {
                    group.put(format!("key-{}", put + n), ends_in_zeros(zeros));
                }
                match writer.write(&group) {
                    Ok(_) => put += batch,
                    Err(error) => break error,
                }
                assert!(put < 10_000);
            };
            // On the simulated disk, the signal is a panic.
            for handle in [&writer, &reader, &open(&Config::new().read_only(true))] {
                assert_eq!(handle.list("key-").unwrap().len(), put, "{free} {zeros} {batch}");
                for n in 0..put {
                    assert_eq!(handle.get(format!("key-{n}")).unwrap().value, ends_in_zeros(zeros));
                }
            }
            assert_eq!(io_kind(&error), ErrorKind::StorageFull, "{error:?}");
            disk.set_free_pages(None);
            writer.put("after", "there is space again").unwrap();
            assert_eq!(reader.get("after").unwrap().value, b"there is space again");
        }
    }
}

/// README says how far one gets on a full disk.
#[test]
fn on_a_full_disk_deletes_use_the_last_block() {
    let mut most = 0;
    // The log ends in different places of its last block.
    for filler in [0, 1000, 2000, 3000] {
        let disk = SimDisk::new();
        let cask = Cask::open_on(Arc::new(disk.process()), "/store", &Config::new()).unwrap();
        for n in 0..200 {
            cask.put(format!("key-{n:03}"), "value").unwrap();
        }
        cask.put("filler", vec![7; filler]).unwrap();
        disk.set_free_pages(Some(0));
        for _ in 0..3 {
            // What was taken ahead is used up first.
            while cask.put("large", vec![7; 5000]).is_ok() {}
            cask.put("large", vec![7; 50_000]).unwrap_err();
        }
        let room = (4096 - cask.stats().unwrap().log_end % 4096) / 48;
        let deleted = (0..200).take_while(|n| cask.delete(format!("key-{n:03}")).is_ok()).count() as u64;
        assert!(deleted + 2 >= room, "{deleted} of {room}");
        assert!(deleted < 200);
        assert_eq!(cask.list("key-").unwrap().len() as u64, 200 - deleted);
        most = most.max(deleted);
        disk.set_free_pages(None);
        cask.delete("key-199").unwrap();
        cask.compact().unwrap();
        assert_eq!(cask.list("key-").unwrap().len() as u64, 199 - deleted);
    }
    assert!(most > 20, "{most}");
}

fn limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limits` is there to be written to, and then to be read from.
    let set = unsafe {
        libc::getrlimit(resource, &mut limits);
        limits.rlim_cur = soft.min(limits.rlim_max);
        libc::setrlimit(resource, &limits)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_limit_on_the_size_of_files_loses_nothing() {
    let Some(arguments) = arguments() else {
        for durability in ["sync", "os"] {
            let directory = TempDir::new();
            let name = this_test!();
            Process::start(name, &[directory.path().to_str().unwrap(), durability]).succeed();
        }
        return;
    };
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let directory = Path::new(&arguments[0]);
    let durability = if arguments[1] == "sync" { Durability::Sync } else { Durability::Os };
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(durability)).unwrap();
    // Not a multiple of anything: the limit falls into the middle of a record.
    limit(libc::RLIMIT_FSIZE, 300_003);
    let (count, error) = put_until_full(&cask);
    assert_eq!(io_kind(&error), ErrorKind::FileTooLarge, "{error:?}");
    says(&error, &path, &["append"]);
    assert_all_there(&cask, count);
    cask.delete_prefix("key-0000").unwrap_or_default();
    limit(libc::RLIMIT_FSIZE, u64::MAX);
    cask.put("after", "the limit is gone").unwrap();
    let expected = cask.list("").unwrap();
    cask.close().unwrap();
    let cask = Cask::open(&path).unwrap();
    assert_eq!(cask.list("").unwrap(), expected);
    cask.verify().unwrap();
}

/// Several threads at once: of those that find the key already deleted by another one, none may have found what the limit
/// kept from happening.
#[test]
fn a_delete_at_a_file_size_limit_works_or_fails() {
    const THREADS: usize = 8;
    let Some(directory) = in_own_process(this_test!()) else { return };
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().connection_timeout(None)).unwrap();
    for round in 0..100 {
        cask.put("key", "value").unwrap();
        let pair = cask.get("key").unwrap();
        // In some rounds the first record of a group still finds room.
        let room = [0, 8, 16, 24, 32, 40][round % 6];
        limit(libc::RLIMIT_FSIZE, cask.stats().unwrap().log_end + room);
        let barrier = Barrier::new(THREADS);
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let call = |thread: usize| {
                let (cask, barrier, pair) = (&cask, &barrier, &pair);
                scope.spawn(move || {
                    barrier.wait();
                    match thread {
                        0 => cask.atomic_delete("key", Some(pair)),
                        _ => cask.delete("key"),
                    }
                })
            };
            let threads: Vec<_> = (0..THREADS).map(call).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        limit(libc::RLIMIT_FSIZE, u64::MAX);
        let deleted = !cask.exists("key").unwrap();
        assert_eq!(deleted, outcomes.iter().any(Result::is_ok), "round {round}: {outcomes:?}");
        let refused = |outcome: &Result<()>| matches!(outcome, Err(Error::KeyNotFound | Error::KeyModified));
        assert!(deleted || !outcomes.iter().any(refused), "round {round}: {outcomes:?}");
        let other = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        assert_eq!(other.exists("key").unwrap(), !deleted);
    }
    cask.close().unwrap();
}

/// Also where only the end mark after a record has no room: a record that is whole can be seen, so it
/// cannot be taken back, and without an end mark the log could not go on after it.
#[test]
fn a_handle_goes_on_when_a_file_size_limit_is_gone() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let path = directory.join("store");
    let config = Config::new().durability(Durability::Os);
    store_with(&path, &[("key", "before")]);
    let len = || fs::metadata(&path).unwrap().len();
    let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    for room in (0..160).step_by(4) {
        limit(libc::RLIMIT_FSIZE, len() + room);
        let cask = Cask::open_with(&path, &config).unwrap();
        let mut last = cask.get("key").unwrap().value;
        for attempt in 0..5 {
            match cask.put("key", format!("attempt {attempt}")) {
                Ok(_) => last = format!("attempt {attempt}").into_bytes(),
                Err(Error::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::FileTooLarge),
                Err(error) => panic!("room for {room}, attempt {attempt}: {error}"),
            }
            assert_eq!(cask.get("key").unwrap().value, last, "{room}");
            assert_eq!(reader.get("key").unwrap().value, last, "{room}");
        }
        limit(libc::RLIMIT_FSIZE, u64::MAX);
        cask.put("key", "before").unwrap();
        cask.close().unwrap();
    }

    // It was longer already before there was a limit.
    limit(libc::RLIMIT_FSIZE, 100);
    let cask = Cask::open_with(&path, &config).unwrap();
    for _ in 0..2 {
        assert_eq!(io_kind(&refused(cask.put("key", "too late"))), ErrorKind::FileTooLarge);
    }
    limit(libc::RLIMIT_FSIZE, u64::MAX);
    cask.put("key", "after").unwrap();
    cask.compact().unwrap();
    cask.verify().unwrap();
    assert_eq!(reader.get("key").unwrap().value, b"after");
}

/// A write beyond the limit gets a signal that ends the process by default. No handle writes there.
#[test]
fn a_file_size_limit_does_not_end_the_process() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    // SAFETY: no handler is installed; the test harness may have inherited another disposition.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    for (number, size) in [20, 63, 71, 5_000, 300_003, 3 << 20].into_iter().enumerate() {
        limit(libc::RLIMIT_FSIZE, size);
        let path = directory.join(format!("store-{number}"));
        match Cask::open_with(&path, &Config::new().durability(Durability::Os)) {
            Err(error) => assert!(size < 100 && io_kind(&error) == ErrorKind::FileTooLarge, "{error:?}"),
            Ok(cask) => {
                let (count, error) = put_until_full(&cask);
                assert_eq!(io_kind(&error), ErrorKind::FileTooLarge, "{error:?}");
                assert!(fs::metadata(&path).unwrap().len() <= size);
                assert_eq!(cask.list("").unwrap().len(), count);
                limit(libc::RLIMIT_FSIZE, u64::MAX);
                cask.put("after", "the limit is gone").unwrap();
                cask.close().unwrap();
                assert_all_there(&Cask::open(&path).unwrap(), count);
            }
        }
        limit(libc::RLIMIT_FSIZE, u64::MAX);
    }
    assert!(names(directory).iter().all(|name| !name.contains("tmp")));
}

/// How many bytes of addresses this process has in use.
fn address_space() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: takes a constant and has no precondition.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// There is no room for its stack.
#[test]
fn without_a_thread_to_compact_writes_go_on() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let policy = caskfile::CompactionPolicy::Automatic { dead_percent: 1, min_dead_bytes: 1 };
    let config = Config::new().compaction(policy);
    let cask = Cask::open_with(directory.join("store"), &config).unwrap();
    limit(libc::RLIMIT_AS, address_space() + (1 << 20));
    let spawned = std::thread::Builder::new().spawn(|| {});
    assert!(spawned.is_err(), "the limit keeps no thread from being made");
    for number in 0..10 {
        cask.put("key", number.to_string()).unwrap();
    }
    assert_eq!((cask.get("key").unwrap().value, cask.stats().unwrap().compactions), (b"9".to_vec(), 0));
    limit(libc::RLIMIT_AS, u64::MAX);
    cask.close().unwrap();
}

/// A value that this process has no room for can be written by another one, and may not end this one.
#[test]
fn a_value_too_large_for_memory_is_an_error() {
    const LARGE: usize = 200 << 20;
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    cask.put("large", vec![1; LARGE]).unwrap();
    cask.put("small", "value").unwrap();
    limit(libc::RLIMIT_AS, address_space() + LARGE as u64 / 2);
    for _ in 0..3 {
        let error = refused(cask.get("large"));
        assert_eq!(io_kind(&error), ErrorKind::OutOfMemory);
        says(&error, &path, &["memory"]);
        assert_eq!(io_kind(&refused(cask.list(""))), ErrorKind::OutOfMemory);
        assert_eq!(io_kind(&refused(cask.compact())), ErrorKind::OutOfMemory);
        assert_eq!(cask.get("small").unwrap().value, b"value");
        cask.put("small", "value").unwrap();
        assert!(cask.exists("large").unwrap());
        // The file cannot be mapped either, and is read without a map.
        let other = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        assert_eq!(other.get("small").unwrap().value, b"value");
        caskfile::verify(&path).unwrap();
    }
    limit(libc::RLIMIT_AS, u64::MAX);
    assert_eq!(cask.get("large").unwrap().value.len(), LARGE);
    assert_eq!(names(path.parent().unwrap()), ["store"]);
    cask.close().unwrap();
}

/// A write needs memory twice as large as its value.
#[test]
fn a_write_that_lacks_memory_changes_nothing() {
    const LARGE: usize = 64 << 20;
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    let pair = cask.atomic_put("key", "value", None).unwrap();
    let (value, mut written) = (vec![1; LARGE], 0);
    // From too little for one copy to enough for all.
    for quarters in 1..20 {
        limit(libc::RLIMIT_AS, address_space() + (quarters * LARGE / 4) as u64);
        let mut batch = Batch::new();
        batch.put("batch", &value);
        let outcomes = [
            cask.put("large", &value).map(drop),
            cask.write(&batch).map(drop),
            cask.atomic_put("key", &value, Some(&pair)).map(drop),
        ];
        limit(libc::RLIMIT_AS, u64::MAX);
        drop(batch);
        for (outcome, key) in outcomes.into_iter().zip(["large", "batch", "key"]) {
            match outcome {
                Ok(()) => written += 1,
                Err(error) => {
                    assert_eq!(io_kind(&error), ErrorKind::OutOfMemory);
                    says(&error, &path, &["memory"]);
                    assert!(cask.get(key).optional().unwrap().is_none_or(|found| found == pair));
                }
            }
            cask.put("small", "value").unwrap();
        }
        if written > 0 {
            break;
        }
    }
    assert!(written > 0, "there was never enough");
    cask.verify().unwrap();
    cask.close().unwrap();
}

/// The index gets the keys of a batch as well, and reading the batch or deleting its keys holds all of them at once.
#[test]
fn a_batch_of_long_keys_that_lacks_memory_changes_nothing() {
    const KEYS: usize = 1000;
    const STEP: u64 = 13 << 20;
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    // With a snapshot, if its thread was done by then, opening would not read the batch.
    let config = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::Never);
    let cask = Cask::open_with(&path, &config).unwrap();
    cask.put("small", "value").unwrap();
    let mut batch = Batch::new();
    for number in 0..KEYS {
        batch.put(format!("{number:060000}"), "value");
    }
    // From too little for one copy of the keys to enough for all.
    let until_it_succeeds = |attempt: &dyn Fn() -> Result<()>| {
        for steps in 1..40 {
            limit(libc::RLIMIT_AS, address_space() + steps * STEP);
            let outcome = attempt();
            limit(libc::RLIMIT_AS, u64::MAX);
            match outcome {
                Ok(()) => return assert!(steps > 1, "there was always enough"),
                Err(error) => {
                    assert_eq!(io_kind(&error), ErrorKind::OutOfMemory);
                    says(&error, &path, &["memory"]);
                }
            }
        }
        panic!("there was never enough");
    };
    until_it_succeeds(&|| {
        assert_eq!(cask.stats().unwrap().keys, 1);
        cask.write(&batch).map(drop)
    });
    until_it_succeeds(&|| Cask::open_with(&path, &Config::new().read_only(true)).map(drop));
    until_it_succeeds(&|| {
        assert_eq!(cask.stats().unwrap().keys, KEYS as u64 + 1);
        cask.delete_prefix("0").map(|deleted| assert_eq!(deleted, KEYS as u64))
    });
    assert_eq!(cask.stats().unwrap().keys, 1);
    cask.verify().unwrap();
    cask.close().unwrap();
}

/// `CASKFILE_CYCLES=10000` opens and closes that often.
#[test]
fn thousands_of_openings_leave_no_descriptor_thread_or_map() {
    let cycles = std::env::var("CASKFILE_CYCLES").map_or(150, |cycles| cycles.parse().unwrap());
    let Some(directory) = in_own_process(this_test!()) else { return };
    process::be_patient_for(600);
    let (path, damaged) = (directory.join("store"), directory.join("damaged"));
    store_with(&damaged, &[("first", "1"), ("second", "2")]);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[70] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let cycle = |number: usize| {
        let interval = Durability::Interval(Duration::from_millis(1));
        let durability = [Durability::Os, interval, Durability::Sync][number % 3];
        let policy = caskfile::CompactionPolicy::Automatic { dead_percent: 1, min_dead_bytes: 1 };
        let config = Config::new().durability(durability).compaction(policy);
        let cask = Cask::open_with(&path, &config).unwrap();
        let bucket = cask.bucket("bucket").unwrap();
        bucket.put("key", format!("{number}")).unwrap();
        assert_eq!(bucket.get("key").unwrap().value, format!("{number}").as_bytes());
        let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        assert!(reader.list("").is_ok());
        if number % 10 == 0 {
            let _ = cask.compact();
            cask.reopen().unwrap();
            cask.backup(directory.join("copy")).unwrap();
            fs::remove_file(directory.join("copy")).unwrap();
            assert!(Cask::open(&damaged).is_err());
            caskfile::verify(&damaged).unwrap_err();
            caskfile::salvage(&damaged, directory.join("copy")).unwrap();
            fs::remove_file(directory.join("copy")).unwrap();
        }
        // The one is closed, the other dropped.
        if number % 2 == 0 {
            cask.close().unwrap();
        }
    };
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let maps = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(directory.to_str().unwrap())).count()
    };
    cycle(0);
    let before = (count("fd"), count("task"), maps());
    (0..cycles).for_each(cycle);
    assert_eq!((count("fd"), count("task"), maps()), before, "descriptors, threads, maps of files");
    assert_eq!(names(directory), ["damaged", "store"]);
}

#[test]
fn without_a_free_descriptor_calls_fail_and_lose_nothing() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let out_of_descriptors = |error: &Error| {
        let Error::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{error}");
        says(error, directory, &[]);
    };
    limit(libc::RLIMIT_NOFILE, 64);
    let ballast = RefCell::new(Vec::new());
    let set_free = |free: usize| {
        let mut ballast = ballast.borrow_mut();
        while let Ok(file) = File::open("/dev/null") {
            ballast.push(file);
        }
        let kept = ballast.len() - free;
        ballast.truncate(kept);
    };
    let unlimited = || ballast.borrow_mut().clear();

    // How many are needed, each call finds out by itself; with fewer it must fail, and with that many succeed.
    let path = directory.join("store");
    let mut opened = None;
    for free in 0.. {
        set_free(free);
        match Cask::open(&path) {
            Ok(cask) => opened = Some(cask),
            Err(error) => out_of_descriptors(&error),
        }
        unlimited();
        let found = names(directory);
        assert!(found.is_empty() || found == ["store"], "{found:?}");
        if opened.is_some() {
            break;
        }
    }
    let cask = opened.expect("the loop ends with it");

    set_free(0);
    if let Err(error) = cask.put("key", "if the directory need not be synced") {
        out_of_descriptors(&error);
        assert!(!cask.exists("key").unwrap());
    }
    set_free(1);
    cask.put("key", "first").unwrap();
    // From then on, no call for a single key needs another.
    set_free(0);
    cask.put("key", "value").unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"value");
    assert_eq!(cask.list("").unwrap().len(), 1);
    cask.verify().unwrap();
    out_of_descriptors(&refused(cask.compact()));
    cask.put("key", "after").unwrap();
    unlimited();
    assert_eq!(names(directory), ["store"]);

    // Another process has compacted, and the new file cannot be opened.
    Cask::open(&path).unwrap().compact().unwrap();
    set_free(0);
    out_of_descriptors(&refused(cask.get("key")));
    out_of_descriptors(&refused(cask.put("key", "")));
    out_of_descriptors(&refused(Cask::open_with(&path, &Config::new().read_only(true))));
    unlimited();
    assert_eq!(cask.get("key").unwrap().value, b"after");
    cask.put("key", "at last").unwrap();

    // One is free: enough for the new file, and not for syncing the directory when it has its name.
    set_free(1);
    let compacted: Result<_> = cask.compact();
    unlimited();
    out_of_descriptors(&refused(compacted));
    assert_eq!(names(directory), ["store"]);
    assert_eq!(cask.get("key").unwrap().value, b"at last");
    cask.put("key", "as ever").unwrap();
    // Before the file has its new name, all that is needed is there.
    for free in 2.. {
        set_free(free);
        let compacted = cask.compact();
        unlimited();
        match compacted {
            Ok(_) => break,
            Err(error) => out_of_descriptors(&error),
        }
        assert_eq!(names(directory), ["store"]);
    }
    cask.put("key", "at last").unwrap();
    cask.close().unwrap();
    let cask = Cask::open(&path).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"at last");
    cask.verify().unwrap();
    cask.close().unwrap();
}

#[test]
fn a_handle_is_not_opened_without_the_thread_it_needs() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        process::open_to_all(directory.path());
        let name = this_test!();
        return Process::start(name, &[directory.path().to_str().unwrap()]).succeed();
    };
    // The limit does not apply to the superuser.
    process::drop_privileges();
    let path = Path::new(&arguments[0]).join("store");
    limit(libc::RLIMIT_NPROC, 0);
    let config = Config::new().durability(Durability::Interval(Duration::from_millis(1)));
    let error = refused(Cask::open_with(&path, &config));
    assert_eq!(io_kind(&error), ErrorKind::WouldBlock, "{error:?}");
    says(&error, &path, &["thread"]);
    assert!(!path.exists());
    store_with(&path, &[("key", "value")]);
}

/// Address space, say, or the kernel's limit on the number of maps.
#[test]
fn a_store_that_cannot_be_mapped_is_read_anyway() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let refusing = Arc::new(AtomicBool::new(true));
    let refused = Arc::clone(&refusing);
    let disk = Arc::new(HookedDisk::new(move |call| match call {
        "map" if refused.load(Ordering::Relaxed) => Err(ErrorKind::OutOfMemory.into()),
        _ => Ok(()),
    }));
    let cask = Cask::open_on(disk, &path, &Config::new().durability(Durability::Os)).unwrap();
    let other = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
    for round in 0..6 {
        refusing.store(round % 2 == 0, Ordering::Relaxed);
        cask.put("ours", format!("{round}").repeat(300_000)).unwrap();
        other.put("theirs", format!("{round}").repeat(300_000)).unwrap();
        assert_eq!(cask.get("ours").unwrap().value, format!("{round}").repeat(300_000).as_bytes());
        assert_eq!(cask.get("theirs").unwrap().value, format!("{round}").repeat(300_000).as_bytes());
        // SAFETY: nothing but the library changes the file.
        let mapped = unsafe { cask.mapped() };
        assert_eq!(&mapped.get("ours").unwrap()[..], format!("{round}").repeat(300_000).as_bytes());
        if round % 3 == 2 {
            cask.compact().unwrap();
        }
    }
    cask.verify().unwrap();
}
