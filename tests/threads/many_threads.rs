//! Many threads on one handle: which thread waits for which, what each sees, and what is left when it is closed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, LockMode};

use crate::common::TempDir;
use crate::common::hooked::HookedDisk;
use crate::common::patience::in_finite_time;
use crate::common::process::{in_own_process, this_test};

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number has 8 bytes"))
}

// Writing together.

#[test]
fn simultaneous_writes_share_their_syncs() {
    const THREADS: usize = 8;
    const PUTS: usize = 40;
    in_finite_time(|| {
        let directory = TempDir::new();
        let (under_way, beside) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
        let seen_beside = Arc::clone(&beside);
        // A sync that takes long enough for all others to queue up.
        let disk = HookedDisk::new(move |call| {
            if call == "sync_data" {
                seen_beside.fetch_or(under_way.fetch_add(1, Ordering::SeqCst) > 0, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                under_way.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &Config::new()).unwrap();
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cask, barrier) = (&cask, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for put in 0..PUTS {
                        cask.put(format!("{thread}/{put}"), "").unwrap();
                    }
                });
            }
        });
        let stats = cask.stats().unwrap();
        let puts = (THREADS * PUTS) as u64;
        println!("{puts} puts, {} groups, {} syncs", stats.groups, stats.syncs);
        assert!(stats.syncs < puts && stats.groups < puts, "{stats:?}");
        assert!(!beside.load(Ordering::SeqCst), "two syncs at a time");
        let mut indexes: Vec<u64> = cask.list("").unwrap().iter().map(|pair| pair.last_index).collect();
        indexes.sort();
        indexes.dedup();
        assert_eq!(indexes.len() as u64, puts);
    });
}

/// One thread's mistake or lost race is its own, whichever thread writes its group.
#[test]
fn a_refused_request_does_not_affect_its_group() {
    const THREADS: usize = 6;
    in_finite_time(|| {
        let directory = TempDir::new();
        let disk = HookedDisk::new(|call| {
            if call == "sync_data" {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &Config::new()).unwrap();
        cask.put("contested", 0u64.to_le_bytes()).unwrap();
        let won = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cask, won) = (&cask, &won);
                scope.spawn(move || {
                    for round in 0..30 {
                        if thread % 2 == 0 {
                            let pair = cask.atomic_put(format!("{thread}/{round}"), "", None).unwrap();
                            assert_eq!(cask.get(&pair.key).unwrap(), pair);
                            continue;
                        }
                        let previous = cask.get("contested").unwrap();
                        let next = number(&previous.value) + 1;
                        let mut batch = Batch::new();
                        batch.put("contested", next.to_le_bytes()).put(format!("won/{next}"), "");
                        batch.expect_last_index("contested", previous.last_index);
                        match cask.write(&batch) {
                            Ok(_) => won.fetch_add(1, Ordering::Relaxed),
                            Err(Error::BatchConflict { op: 2, .. }) => 0,
                            Err(error) => panic!("{error}"),
                        };
                    }
                });
            }
        });
        let won = won.into_inner();
        assert_eq!(number(&cask.get("contested").unwrap().value), won);
        assert_eq!(cask.list("won/").unwrap().len() as u64, won);
        cask.verify().unwrap();
    });
}

/// A disk, a switch, and a channel. Once the switch is on, each sync of the thread `first` takes a while and is announced on
/// the channel, so that other threads queue up. One of them then writes for all, and `write` is called in place of the write.
fn disk_with_a_slow_first_sync(
    write: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> (HookedDisk, Arc<AtomicBool>, Receiver<()>) {
    let (syncing, has_begun) = sync_channel(100);
    let armed = Arc::new(AtomicBool::new(false));
    let arm = Arc::clone(&armed);
    let disk = HookedDisk::new(move |call| {
        let first = thread::current().name() == Some("first");
        match call {
            _ if !armed.load(Ordering::SeqCst) => Ok(()),
            "sync_data" if first => {
                syncing.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                Ok(())
            }
            "write_at" if !first => write(),
            _ => Ok(()),
        }
    });
    (disk, arm, has_begun)
}

/// While the first thread syncs, the others queue up, and then one of them writes for all and fails.
#[test]
fn no_answer_rests_on_a_failed_write() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = directory.join("store");
        let (disk, arm, has_begun) = disk_with_a_slow_first_sync(|| Err(io::Error::from_raw_os_error(libc::ENOSPC)));
        let cask = Cask::open_on(Arc::new(disk), &path, &Config::new().connection_timeout(None)).unwrap();
        cask.put("there", "").unwrap();
        let there = cask.get("there").unwrap();
        arm.store(true, Ordering::SeqCst);
        let mut absent = Batch::new();
        absent.expect_absent("there");
        let mut unchanged = Batch::new();
        unchanged.expect_last_index("there", there.last_index).expect_absent("absent");
        thread::scope(|scope| {
            let first = thread::Builder::new().name("first".to_owned()).spawn_scoped(scope, || cask.put("first", ""));
            has_begun.recv().unwrap();
            for n in 0..16 {
                let (cask, there, absent, unchanged) = (&cask, &there, &absent, &unchanged);
                scope.spawn(move || match n % 8 {
                    0 | 1 => assert!(matches!(cask.delete("there"), Err(Error::Io { .. }))),
                    2 => assert!(matches!(cask.put("absent", ""), Err(Error::Io { .. }))),
                    3 => assert!(matches!(cask.atomic_put("absent", "", None), Err(Error::Io { .. }))),
                    4 => assert!(matches!(cask.atomic_put("there", "", Some(there)), Err(Error::Io { .. }))),
                    5 => assert!(matches!(cask.atomic_delete("there", Some(there)), Err(Error::Io { .. }))),
                    6 => assert!(matches!(cask.write(absent), Err(Error::BatchConflict { op: 0, .. }))),
                    _ => assert!(cask.write(unchanged).unwrap().last_index().is_none()),
                });
            }
            first.unwrap().join().unwrap().unwrap();
        });
        arm.store(false, Ordering::SeqCst);
        let others = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        for cask in [&cask, &others] {
            assert_eq!(cask.get("there").unwrap(), there);
            assert!(!cask.exists("absent").unwrap());
        }
        cask.delete("there").unwrap();
        assert!(!others.exists("there").unwrap());
    });
}

// Waiting, with a limit.

/// A disk on which a sync begins, says so, and goes on when the test says so.
fn held_syncs() -> (Arc<HookedDisk>, Arc<AtomicBool>, Receiver<()>, SyncSender<()>) {
    let (begun, has_begun) = sync_channel(100);
    let (go_on, resume) = sync_channel(100);
    let (holding, resume) = (Arc::new(AtomicBool::new(false)), Mutex::new(resume));
    let held = Arc::clone(&holding);
    let disk = HookedDisk::new(move |call| {
        if call == "sync_data" && held.load(Ordering::SeqCst) {
            begun.send(()).unwrap();
            resume.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    (Arc::new(disk), holding, has_begun, go_on)
}

#[test]
fn a_writer_without_time_fails_during_anothers_sync() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let (disk, holding, has_begun, go_on) = held_syncs();
        let impatient = Config::new().connection_timeout(Duration::ZERO);
        let cask = Cask::open_on(disk, directory.join("store"), &impatient).unwrap();
        cask.put("key", "before").unwrap();
        holding.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let patient = scope.spawn(|| cask.put("key", "its own"));
            has_begun.recv().unwrap();
            for result in
                [cask.put("key", "no time").map(drop), cask.delete("key"), cask.sync(), cask.compact().map(drop)]
            {
                assert!(matches!(result, Err(Error::LockTimeout { .. })), "{result:?}");
            }
            // No lock that a reader needs is held during a sync.
            assert_eq!(cask.get("key").unwrap().value, b"its own");
            assert_eq!(cask.list("").unwrap().len(), 1);
            assert!(!patient.is_finished());
            holding.store(false, Ordering::SeqCst);
            go_on.send(()).unwrap();
            patient.join().unwrap().unwrap();
        });
        assert_eq!(cask.get("key").unwrap().value, b"its own");
        cask.put("key", "after").unwrap();
    });
}

#[test]
fn one_callers_timeout_does_not_fail_another() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = directory.join("store");
        let timeout = Duration::from_millis(1500);
        let cask = Cask::open_with(&path, &Config::new().connection_timeout(timeout)).unwrap();
        let holder = File::open(&path).unwrap();
        fs2::FileExt::lock_exclusive(&holder).unwrap();
        thread::scope(|scope| {
            let first = scope.spawn(|| cask.put("first", ""));
            thread::sleep(timeout / 2);
            let second = scope.spawn(|| cask.put("second", ""));
            let third = scope.spawn(|| cask.sync());
            match first.join().unwrap() {
                Err(Error::LockTimeout { waited, .. }) => assert!(waited >= timeout),
                other => panic!("{other:?}"),
            }
            assert!(!second.is_finished() && !third.is_finished(), "they have time left");
            fs2::FileExt::unlock(&holder).unwrap();
            second.join().unwrap().unwrap();
            third.join().unwrap().unwrap();
        });
        assert_eq!(cask.list("").unwrap().len(), 1);
    });
}

// Panics.

#[test]
fn a_panic_in_a_callers_closure_leaves_the_store_usable() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &Config::new().connection_timeout(None)).unwrap();
        cask.put("key", "value").unwrap();
        let panics = |call: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        thread::scope(|scope| {
            for thread in 0..3 {
                let cask = &cask;
                scope.spawn(move || (0..20).for_each(|n| cask.put(format!("{thread}/{n}"), "").map(drop).unwrap()));
            }
            for _ in 0..10 {
                panics(&|| drop(cask.update("key", |_| -> Vec<u8> { panic!("a caller's own") })));
                panics(&|| drop(cask.visit("", |_| panic!("a caller's own"))));
                panics(&|| {
                    let _scan = cask.scan("").unwrap();
                    panic!("a caller's own, with a scan in its hands")
                });
            }
        });
        assert_eq!(cask.get("key").unwrap().value, b"value");
        assert_eq!(cask.update("key", |_| b"updated".to_vec()).unwrap().value, b"updated");
        assert_eq!(cask.list("").unwrap().len(), 61);
        cask.verify().unwrap();
        cask.close().unwrap();
    });
}

/// It leads the group of the others, and dies in the middle of the write.
#[test]
fn a_panic_of_the_leader_poisons_the_handle() {
    const THREADS: usize = 6;
    in_finite_time(|| {
        let directory = TempDir::new();
        let path = directory.join("store");
        let (disk, arm, has_begun) = disk_with_a_slow_first_sync(|| panic!("in the middle of a write"));
        let config = Config::new().connection_timeout(None);
        let cask = Cask::open_on(Arc::new(disk), &path, &config).unwrap();
        cask.put("before", "").unwrap();
        arm.store(true, Ordering::SeqCst);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let put = |name: &str| {
                let (cask, key) = (&cask, name.to_owned());
                thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || cask.put(key, "")).unwrap()
            };
            let first = put("first");
            has_begun.recv().unwrap();
            let others: Vec<_> = (0..THREADS).map(|n| put(&format!("other-{n}"))).collect();
            first.join().unwrap().unwrap();
            others.into_iter().map(|other| other.join()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1, "one leads and panics");
        for error in outcomes.into_iter().flatten().map(|outcome| outcome.unwrap_err()) {
            let message = format!("{error:#}");
            assert!(message.contains("panic"), "{message}");
        }
        let error = cask.put("after", "").unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
        assert!(cask.exists("before").unwrap());
        cask.list("").unwrap();
        let _ = cask.close();

        let cask = Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO)).unwrap();
        assert!(cask.exists("before").unwrap() && cask.exists("first").unwrap());
        cask.put("after", "").unwrap();
        cask.verify().unwrap();
    });
}

// Closing.

#[test]
fn a_write_that_meets_close_is_kept_or_refused() {
    const THREADS: usize = 4;
    in_finite_time(|| {
        let durabilities = [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_micros(300))];
        for (round, durability) in durabilities.into_iter().cycle().take(24).enumerate() {
            let directory = TempDir::new();
            let path = directory.join("store");
            let lock_mode = if round % 2 == 0 { LockMode::PerWrite } else { LockMode::Exclusive };
            let timeout = if round % 8 < 6 { None } else { Some(Duration::ZERO) };
            let config = Config::new().durability(durability).lock_mode(lock_mode).connection_timeout(timeout);
            let cask = Cask::open_with(&path, &config).unwrap();
            let acknowledged: Vec<Vec<usize>> = thread::scope(|scope| {
                let writers: Vec<_> = (0..THREADS)
                    .map(|thread| {
                        // Each has a clone or a bucket of its own.
                        let cask = if thread % 2 == 0 { cask.clone() } else { cask.bucket("").unwrap() };
                        scope.spawn(move || {
                            let mut acknowledged = Vec::new();
                            for n in 0.. {
                                match cask.put(format!("{thread}/{n:05}"), n.to_string()) {
                                    Ok(_) => acknowledged.push(n),
                                    Err(Error::Closed) => break,
                                    Err(Error::LockTimeout { .. }) if timeout.is_some() => {}
                                    Err(error) => panic!("{error}"),
                                }
                                if thread == 0 && n % 3 == 2 {
                                    let closed = cask.list("").map(drop).and_then(|()| cask.stats().map(drop));
                                    assert!(matches!(closed, Ok(()) | Err(Error::Closed)), "{closed:?}");
                                }
                            }
                            acknowledged
                        })
                    })
                    .collect();
                thread::sleep(Duration::from_micros(300 * round as u64));
                // Two at the same time: both succeed, and it is closed once.
                let other = cask.clone();
                let closing = scope.spawn(move || other.close());
                cask.close().unwrap();
                closing.join().unwrap().unwrap();
                assert!(matches!(cask.get("0/00000"), Err(Error::Closed)));
                writers.into_iter().map(|writer| writer.join().unwrap()).collect()
            });
            let len = fs::metadata(&path).unwrap().len();
            let cask = Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO)).unwrap();
            let end = cask.stats().unwrap().log_end;
            assert!(timeout.is_some() || len == end + 8, "the file is cut back to its end mark, {len} and {end}");
            let mut there = BTreeMap::new();
            for pair in cask.list("").unwrap() {
                there.insert(String::from_utf8(pair.key).unwrap(), pair.value);
            }
            let mut sum = 0;
            for (thread, acknowledged) in acknowledged.iter().enumerate() {
                for n in acknowledged {
                    assert_eq!(there.get(&format!("{thread}/{n:05}")), Some(&n.to_string().into_bytes()), "{round}");
                }
                sum += acknowledged.len();
            }
            assert_eq!(there.len(), sum, "what was refused is not there");
            cask.verify().unwrap();
        }
    });
}

#[test]
fn scans_and_slices_do_not_keep_a_store_open() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
    cask.put("key", "value").unwrap();
    let extended = fs::metadata(&path).unwrap().len();
    let (clone, bucket) = (cask.clone(), cask.bucket("bucket").unwrap());
    let scan = cask.scan("").unwrap();
    // SAFETY: nothing but the library changes the file.
    let slice = unsafe { cask.mapped() }.get("key").unwrap();
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    drop(cask);
    drop(clone);
    assert!(matches!(Cask::open_with(&path, &impatient), Err(Error::LockTimeout { .. })), "a bucket is left");
    bucket.put("key", "in the bucket").unwrap();
    drop(bucket);
    assert!(fs::metadata(&path).unwrap().len() < extended, "closing cuts off what the file was extended by");
    let cask = Cask::open_with(&path, &impatient).unwrap();
    cask.put("key", "changed").unwrap();
    assert_eq!(scan.map(|pair| pair.unwrap().value).collect::<Vec<_>>(), [b"value"]);
    assert_eq!(&slice[..], b"value");
    assert_eq!(cask.bucket("bucket").unwrap().get("key").unwrap().value, b"in the bucket");
}

/// Counted in a process of its own, in which no other test opens or starts anything.
#[test]
fn hundreds_of_openings_leave_no_descriptor_thread_or_map() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let count = || {
        let entries = |of: &str| fs::read_dir(of).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        (entries("/proc/self/fd"), entries("/proc/self/task"), maps.matches(directory.to_str().unwrap()).count())
    };
    let cycle = |number: usize| {
        let config = match number % 4 {
            0 => Config::new().durability(Durability::Interval(Duration::from_micros(200))),
            1 => Config::new().durability(Durability::Os).lock_mode(LockMode::Exclusive),
            2 => Config::new().durability(Durability::Interval(Duration::from_secs(3600))),
            _ => Config::new().read_only(true),
        };
        let cask = Cask::open_with(&path, &config).unwrap();
        if number % 4 != 3 {
            cask.put(format!("key-{}", number % 10), "x".repeat(number)).unwrap();
        }
        // SAFETY: nothing but the library changes the file.
        let _slice = unsafe { cask.mapped() }.get("key-0").unwrap();
        let mut scan = cask.scan("").unwrap();
        scan.next();
        if number % 20 == 2 {
            cask.compact().unwrap();
        }
        // What fails must not leave anything either.
        let impatient = Config::new().connection_timeout(Duration::ZERO);
        let interval = impatient.clone().durability(Durability::Interval(Duration::from_millis(1)));
        drop(Cask::open_with(directory.join("missing/store"), &interval));
        drop(Cask::open_with(&path, &interval));
        match number % 3 {
            0 => cask.close().unwrap(),
            1 => drop(cask.clone()),
            _ => {
                let other = cask.clone();
                thread::spawn(move || other.close().unwrap()).join().unwrap();
            }
        }
    };
    Cask::open(&path).unwrap().put("key-0", "").unwrap();
    (0..40).for_each(cycle);
    let before = count();
    (40..400).for_each(cycle);
    assert_eq!(count(), before, "descriptors, threads, maps");
    assert_eq!(before.2, 0);
}
