//! Calls beside a writer that never rests: each comes to its end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use caskfile::disk::sim::{Repeat, SimDisk, When};
use caskfile::{Batch, Cask, Config, Durability, Error, Limits, ReadMode, verify_on};

use crate::common::patience::in_finite_time;

const STORE: &str = "/store";

/// The other process writes once in as many calls of this one on the disk. Closer to the speed of this one, and a call that
/// takes several reads for each new record would never be up to date.
const PER_WRITE: u64 = 16;

/// A call that makes as many calls on the disk never ends.
const FOR_EVER: u64 = 20_000;

type Call = (&'static str, fn(&SimDisk, &Config, &Cask) -> Result<(), Error>);

const CALLS: &[Call] = &[
    ("get", |_, _, cask| cask.get("key-00007").map(drop)),
    ("exists", |_, _, cask| cask.exists("key-00007").map(drop)),
    ("list", |_, _, cask| cask.list("key").map(drop)),
    ("scan", |_, _, cask| cask.scan("key")?.try_for_each(|pair| pair.map(drop))),
    ("range", |_, _, cask| cask.range("key"..)?.try_for_each(|pair| pair.map(drop))),
    ("visit", |_, _, cask| cask.visit("key", |_| ControlFlow::Continue(()))),
    ("stats", |_, _, cask| cask.stats().map(drop)),
    ("verify", |_, _, cask| cask.verify().map(drop)),
    ("verify of the file", |disk, _, _| verify_on(disk, STORE.as_ref()).map(drop)),
    ("backup", |_, _, cask| cask.backup("/copy").map(drop)),
    ("compact_to", |_, _, cask| cask.compact_to("/copy").map(drop)),
    ("put", |_, _, cask| cask.put("own", "value").map(drop)),
    ("update", |_, _, cask| cask.update("own", |_| b"value".to_vec()).map(drop)),
    ("delete_prefix", |_, _, cask| cask.delete_prefix("own").map(drop)),
    ("sync", |_, _, cask| cask.sync()),
    ("compact", |_, _, cask| cask.compact().map(drop)),
    ("reopen", |_, _, cask| cask.reopen()),
    ("open", |disk, config, _| Cask::open_on(Arc::new(disk.clone()), STORE, config).map(drop)),
    ("open to read", |disk, config, _| {
        Cask::open_on(Arc::new(disk.clone()), STORE, &config.clone().read_only(true)).map(drop)
    }),
];

/// What the other process does whenever it can.
#[derive(Debug, Clone, Copy)]
enum Busy {
    Puts,
    LargeBatches,
    /// And now and then a compaction, so that the log goes on in another file.
    Compacts,
}

fn write(busy: Busy, writer: &Cask, n: u64) -> Result<(), Error> {
    match busy {
        Busy::Puts => writer.put("other", n.to_string()).map(drop),
        Busy::LargeBatches => {
            let mut batch = Batch::new();
            batch.put("other", vec![n as u8; 3000]).put("key-00007", n.to_string()).delete("other");
            writer.write(&batch).map(drop)
        }
        Busy::Compacts if n % 400 == 0 => writer.compact().map(drop),
        Busy::Compacts => writer.put("key-00007", n.to_string()).map(drop),
    }
}

/// Whenever this process looks, another one has written more.
#[test]
fn every_call_ends_beside_a_process_that_always_writes() {
    in_finite_time(|| {
        for busy in [Busy::Puts, Busy::LargeBatches, Busy::Compacts] {
            for reads in [ReadMode::Map, ReadMode::Pread] {
                for &(name, call) in CALLS {
                    let disk = SimDisk::new();
                    let config = Config::new().read_mode(reads).connection_timeout(None);
                    let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config).unwrap();
                    (0..20).for_each(|n| cask.put(format!("key-{n:05}"), "value").map(drop).unwrap());
                    let impatient = config.clone().durability(Durability::Os).connection_timeout(Duration::ZERO);
                    let writer = Cask::open_on(Arc::new(disk.process()), STORE, &impatient).unwrap();
                    let calls = Arc::new(AtomicU64::new(0));
                    let count = Arc::clone(&calls);
                    disk.before(When::next().by(&disk), Repeat::Forever, move |_| {
                        let n = count.fetch_add(1, Ordering::SeqCst);
                        // Then the call can end, and the test says which one it was.
                        if n >= FOR_EVER || n % PER_WRITE != 0 {
                            return;
                        }
                        match write(busy, &writer, n) {
                            Ok(()) | Err(Error::LockTimeout { .. } | Error::CompactionOvertaken { .. }) => {}
                            Err(error) => panic!("{name} beside {busy:?}, {reads:?}: {error}"),
                        }
                    });
                    let done = call(&disk, &config, &cask);
                    let calls = calls.load(Ordering::SeqCst);
                    disk.clear_hooks();
                    assert!(calls < FOR_EVER, "{name} never ends beside {busy:?}, {reads:?}");
                    let is_overtaken = matches!(done, Err(Error::CompactionOvertaken { .. }));
                    assert!(done.is_ok() || name == "compact" && is_overtaken, "{name} beside {busy:?}: {done:?}");
                    assert!(cask.list("key").unwrap().len() == 20, "{name} beside {busy:?}");
                }
            }
        }
    });
}

/// What a listing needs is made by the first one, while other threads write through the same handle.
#[test]
fn every_call_ends_beside_a_thread_that_always_writes() {
    const KEYS: usize = 20_000;
    in_finite_time(|| {
        for &(name, call) in CALLS {
            if name.starts_with("delete") || name.starts_with("open") {
                continue;
            }
            let disk = SimDisk::new();
            let config = Config::new().durability(Durability::Os).connection_timeout(None);
            let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config).unwrap();
            let mut batch = Batch::new();
            for n in 0..KEYS {
                batch.put(format!("key-{n:05}"), "value");
            }
            cask.write(&batch).unwrap();
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for n in 0_u64.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        cask.put("other", n.to_string()).unwrap();
                    }
                });
                let done = call(&disk, &config, &cask);
                is_over.store(true, Ordering::Relaxed);
                assert!(done.is_ok(), "{name}: {done:?}");
            });
        }
    });
}

/// A compaction carries over what was written meanwhile, round by round, and what is written during a round is left to the
/// next one.
#[test]
fn a_compaction_ends_though_each_round_leaves_more_than_the_last() {
    in_finite_time(|| {
        // With pieces of a mebibyte there is one report for each round. With small ones there is one for each record, so each
        // round has one more than the last.
        let long_pieces = Limits { copied_at_once: 1 << 20, ..Limits::SMALL };
        for (limits, most) in [(Limits::REAL, 40), (long_pieces, 40), (Limits::SMALL, 300)] {
            for by_the_same_handle in [false, true] {
                let disk = SimDisk::new();
                disk.set_limits(limits);
                let config = Config::new().durability(Durability::Os).connection_timeout(Duration::ZERO);
                let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config).unwrap();
                cask.put("key", "value").unwrap();
                let other = Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap();
                let writer = if by_the_same_handle { &cask } else { &other };
                let value = vec![7; limits.small_rest as usize + 200];
                let mut reports = 0;
                let compacted = cask.compact_with(|_| {
                    reports += 1;
                    // Then the call can end, and the test says what it was.
                    if reports < 2 * most {
                        writer.put(format!("{reports}"), &value).unwrap();
                    }
                    ControlFlow::Continue(())
                });
                assert!(reports < most, "{reports} reports");
                assert_eq!(compacted.unwrap().keys, reports as u64 + 1);
                assert_eq!(cask.list("").unwrap().len(), reports + 1);
            }
        }
    });
}
