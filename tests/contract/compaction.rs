//! Compaction beside others: what they do between any two of its calls to the disk, and what ends it half-way.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, Limits, LockMode, ReadMode, salvage_on};

use crate::common::dice::Dice;
use crate::common::patience::in_finite_time;
use crate::common::{TempDir, names};

const STORE: &str = "/store";

/// What the store must hold, and the process that changes it while another one compacts.
struct Neighbour {
    disk: SimDisk,
    cask: Cask,
    model: BTreeMap<Vec<u8>, KvPair>,
    dice: Dice,
    /// So long are the values.
    len: u64,
    writes: u64,
}

impl Neighbour {
    fn act(&mut self) {
        let key = self.any_key();
        let value = vec![self.dice.roll() as u8; self.dice.below(self.len) as usize];
        let previous = self.model.get(&key).cloned();
        let returned = match self.dice.below(8) {
            0 | 1 => self.cask.delete(&key).map(|()| drop(self.model.remove(&key))),
            2 => {
                let mut batch = Batch::new();
                batch.put(&key, &value).delete("key-00").put("key-01", &value);
                self.cask.write(&batch).map(|last| {
                    let last = last.last_index().unwrap();
                    self.model.remove(&b"key-00"[..]);
                    // The deletion has an index of its own, if there was something to delete.
                    for (key, index) in [(&key[..], None), (b"key-01", Some(last))] {
                        let index = index.unwrap_or_else(|| self.cask.get(key).map_or(0, |pair| pair.last_index));
                        self.model.insert(key.to_vec(), KvPair::new(key, value.clone(), index));
                    }
                    if key == b"key-00" {
                        self.model.remove(&key);
                    }
                })
            }
            _ => self.cask.atomic_put(&key, &value, previous.as_ref()).map(|pair| {
                self.model.insert(key.clone(), pair);
            }),
        };
        match returned {
            Ok(()) => self.writes += 1,
            Err(Error::LockTimeout { .. }) => {}
            Err(_) if !self.disk.power_is_on() => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Of few keys, if they are large.
    fn any_key(&mut self) -> Vec<u8> {
        let keys = if self.len > 1000 { 10 } else { 40 };
        format!("key-{:02}", self.dice.below(keys)).into_bytes()
    }

    fn look(&mut self) {
        let key = self.any_key();
        assert!(self.cask.get(&key).ok() == self.model.get(&key).cloned());
    }

    fn check(&self, cask: &Cask) {
        let pairs: Vec<KvPair> = self.model.values().cloned().collect();
        assert!(cask.list("").unwrap() == pairs, "a handle shows something else than was written");
    }
}

/// A disk with two processes: one is going to compact, the other to write meanwhile.
struct Game {
    disk: SimDisk,
    compacting: SimDisk,
    cask: Cask,
    neighbour: Arc<Mutex<Neighbour>>,
}

fn config() -> Config {
    Config::new().connection_timeout(Duration::ZERO)
}

fn open(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, &config()).unwrap()
}

impl Game {
    fn new(seed: u64, len: u64) -> Game {
        let disk = SimDisk::from_seed(seed);
        // The neighbour acts before each call. With short reads it would write faster than the compaction copies.
        disk.set_limits(Limits { usual_window: 1 << 20, ..Limits::REAL });
        let compacting = disk.process();
        let neighbour = Neighbour {
            disk: disk.clone(),
            cask: open(&disk),
            model: BTreeMap::new(),
            dice: Dice::new(seed),
            len,
            writes: 0,
        };
        let neighbour = Arc::new(Mutex::new(neighbour));
        for _ in 0..if len > 1000 { 30 } else { 100 } {
            neighbour.lock().unwrap().act();
        }
        Game { cask: open(&compacting), disk, compacting, neighbour }
    }

    /// From here on, the neighbour writes and looks before each call that compaction makes.
    fn meddle(&self) {
        let neighbour = Arc::clone(&self.neighbour);
        self.disk.before(When::next().by(&self.compacting), Repeat::Forever, move |_| {
            // Unless something has gone wrong, and a handle is closed on the way out.
            let Ok(mut neighbour) = neighbour.lock() else { return };
            if neighbour.len < 1000 || neighbour.dice.one_in(2) {
                neighbour.act();
            }
            if neighbour.disk.power_is_on() {
                neighbour.look();
            }
        });
    }

    /// Compares all handles with what was written, and goes on with all of them.
    fn end(&self) {
        self.disk.clear_hooks();
        self.disk.clear_faults();
        let mut neighbour = self.neighbour.lock().unwrap();
        for round in 0..3 {
            neighbour.check(&neighbour.cask);
            neighbour.check(&open(&self.disk.process()));
            neighbour.act();
            let other = open(&self.disk.process());
            other.verify().unwrap();
            if round == 1 {
                other.compact().unwrap();
            }
        }
        neighbour.cask.verify().unwrap();
        neighbour.cask.close().unwrap();
        let cask = open(&self.disk);
        neighbour.check(&cask);
        cask.close().unwrap();
        assert_eq!(self.disk.paths().len(), 1, "{:?}", self.disk.paths());
    }
}

/// Values of which a few make up a rest that is not small, so that there are rounds, and short ones.
const LENGTHS: [u64; 2] = [60, 120_000];

#[test]
fn a_writer_active_during_a_compaction_finds_its_writes() {
    for seed in 0..4 {
        for len in LENGTHS {
            let game = Game::new(seed, len);
            let before = game.neighbour.lock().unwrap().writes;
            game.meddle();
            let compaction = game.cask.compact().unwrap();
            game.disk.clear_hooks();
            let neighbour = game.neighbour.lock().unwrap();
            assert!(neighbour.writes > before + 5, "writes go on while the copy is made");
            assert!(compaction.after <= compaction.before);
            assert_eq!(compaction.keys, neighbour.model.len() as u64);
            neighbour.check(&game.cask);
            let stats = game.cask.stats().unwrap();
            assert_eq!(stats.live_bytes + stats.dead_bytes + 216, stats.log_end);
            // What its own handle shows is what another one finds, down to the bytes that are counted.
            let other = open(&game.disk.process()).stats().unwrap();
            let counted = |stats: &caskfile::Stats| (stats.keys, stats.live_bytes, stats.dead_bytes, stats.log_end);
            assert_eq!(counted(&stats), counted(&other));
            drop(neighbour);
            game.cask.verify().unwrap();
            game.cask.close().unwrap();
            game.end();
        }
    }
}

/// Whether to try what takes minutes.
fn thorough() -> bool {
    std::env::var_os("CASKFILE_CRASH_ROUNDS").is_some()
}

/// Plays games in which something ends a compaction at its `n`-th call, for every `n`.
fn at_every_call(end: impl Fn(&Game, u64) -> bool) {
    for (seed, len) in (0..).zip(LENGTHS) {
        let step = if len > 1000 && !thorough() { 23 } else { 1 };
        for place in (1..).step_by(step) {
            let game = Game::new(seed + place, len);
            game.meddle();
            if !end(&game, place) {
                println!("{place} calls");
                assert!(place > 20);
                break;
            }
        }
    }
}

#[test]
fn a_compactor_killed_at_any_call_loses_nothing() {
    at_every_call(|game, place| {
        game.disk.fail(When::nth(place).by(&game.compacting), Fault::Kill(100), Repeat::Once);
        let outcome = game.cask.compact();
        game.compacting.kill();
        game.end();
        outcome.is_err()
    });
}

#[test]
fn a_power_cut_during_a_compaction_loses_nothing_acknowledged() {
    at_every_call(|game, place| {
        let disk = game.disk.clone();
        game.disk.before(When::nth(place).by(&game.compacting), Repeat::Once, move |_| disk.cut());
        let outcome = game.cask.compact();
        game.disk.clear_hooks();
        game.disk.cut();
        let neighbour = game.neighbour.lock().unwrap();
        for seed in 0..3 {
            let found = game.disk.reboot(&mut Choices::from_seed(seed));
            let cask = open(&found);
            neighbour.check(&cask);
            let last = neighbour.model.values().map(|pair| pair.last_index).max().unwrap();
            assert!(cask.atomic_put("new", "", None).unwrap().last_index > last);
            cask.compact().unwrap();
            cask.verify().unwrap();
            cask.close().unwrap();
            assert_eq!(found.paths().len(), 1, "{:?}", found.paths());
        }
        outcome.is_err()
    });
}

#[test]
fn a_failing_call_leaves_the_store_compacted_or_not() {
    // All but those of `SyncData`, the store's own sync, whose failure other processes see as well.
    let verbs = [
        Verb::Attributes,
        Verb::CreateNew,
        Verb::FileStat,
        Verb::FillRandom,
        Verb::Len,
        Verb::List,
        Verb::Map,
        Verb::ReadAt,
        Verb::Rename,
        Verb::SetLen,
        Verb::SetAttributes,
        Verb::Stat,
        Verb::SyncAll,
        Verb::SyncDir,
        Verb::TryLock,
        Verb::Unlock,
        Verb::WriteAt,
        Verb::WriteBack,
    ];
    let places = if thorough() { 0..30 } else { 0..3 };
    for (place, verb) in places.flat_map(|place| verbs.map(|verb| (place, verb))) {
        for (error, len) in [libc::ENOSPC, libc::EIO].into_iter().zip(LENGTHS) {
            let game = Game::new(place, len);
            game.meddle();
            let when = When::nth(place + 1).of(verb).by(&game.compacting);
            game.disk.fail(when, Fault::Os(error), Repeat::Once);
            let outcome = game.cask.compact();
            game.disk.clear_hooks();
            game.disk.clear_faults();
            game.neighbour.lock().unwrap().check(&game.cask);
            match outcome {
                Ok(_) | Err(Error::Io { .. } | Error::CompactionRefused { .. }) => game.cask.delete("absent").unwrap(),
                Err(Error::Poisoned { .. }) => assert!(game.cask.delete("absent").is_err()),
                Err(error) => panic!("{verb:?} {place}: {error}"),
            }
            let _ = game.cask.close();
            game.compacting.kill();
            game.end();
        }
    }
}

/// The kernel could not write a piece of the new file, and says so where the next piece waits for it. The sync at the end
/// does not say it again.
#[test]
fn a_piece_that_was_not_written_back_is_never_copied() {
    type Copying<'a> = &'a dyn Fn(&Cask, &SimDisk) -> caskfile::Result<()>;
    let copies: [(&str, Copying); 3] = [
        (STORE, &|cask, _| cask.compact().map(drop)),
        ("/copy", &|cask, _| cask.compact_to("/copy").map(drop)),
        ("/copy", &|_, disk| salvage_on(disk, Path::new(STORE), Path::new("/copy")).map(drop)),
    ];
    for (name, copy) in copies {
        for nth in 1..4 {
            let disk = SimDisk::new();
            let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new()).unwrap();
            let pairs: Vec<_> = (0..9).map(|n| (format!("{n}"), vec![n; 400_000])).collect();
            for (key, value) in &pairs {
                cask.put(key, value).unwrap();
            }
            disk.before(When::nth(nth).of(Verb::WriteBack), Repeat::Once, |disk| {
                disk.paths().iter().filter(|path| *path != Path::new(STORE)).for_each(|path| disk.fail_writeback(path));
            });
            let outcome = copy(&cask, &disk);
            assert!(matches!(&outcome, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO)));
            assert_eq!(disk.paths(), [Path::new(STORE)], "{name}");
            copy(&cask, &disk).unwrap();
            drop(cask);
            let found = disk.reboot(&mut Choices::keep_nothing());
            let cask = Cask::open_on(Arc::new(found), name, &Config::new()).unwrap();
            pairs.iter().for_each(|(key, value)| assert_eq!(&cask.get(key).unwrap().value, value));
        }
    }
}

#[test]
fn a_copy_without_room_is_not_begun() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    for number in 0..100 {
        cask.put(format!("key-{}", number % 10), vec![7; 1000]).unwrap();
    }
    let live = cask.stats().unwrap().live_bytes;
    let (before, paths) = (disk.contents(STORE).unwrap(), disk.paths());
    let copy = |name: &str| match name {
        "backup" => cask.backup("/copy").map(drop),
        "compact_to" => cask.compact_to("/copy").map(drop),
        "salvage" => salvage_on(&disk, Path::new(STORE), Path::new("/copy")).map(drop),
        _ => cask.compact().map(drop),
    };
    let log_end = cask.stats().unwrap().log_end;
    for (name, needed) in [("backup", log_end), ("compact_to", live), ("salvage", live), ("compact", live)] {
        disk.set_room(needed - 1);
        let error = copy(name).unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
            "{name}: {error}"
        );
        let said = format!("{needed} bytes are needed, and there is room for {}", needed - 1);
        assert!(format!("{error:#}").contains(&said), "{name}: {error}");
        assert_eq!(disk.paths(), paths, "{name}");
        assert_eq!(disk.contents(STORE).unwrap()[..before.len()], before, "{name}");
        disk.set_room(needed);
        copy(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let _ = disk.remove(Path::new("/copy"));
    }
}

#[test]
fn the_second_of_two_compactions_gives_up() {
    let game = Game::new(1, 60);
    let other = open(&game.disk.process());
    let mut tries = 0;
    game.cask
        .compact_with(|_| {
            tries += 1;
            assert!(matches!(other.compact(), Err(Error::CompactionOvertaken { .. })));
            assert!(matches!(game.cask.compact(), Err(Error::CompactionOvertaken { .. })));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(tries > 0);
    other.compact().unwrap();
    game.cask.close().unwrap();
    other.close().unwrap();
    game.end();
}

/// The second one cannot open the first one's file, so it does not see that it is not alone, and it is faster.
#[test]
fn an_overtaken_compaction_notices_it_at_its_end() {
    let game = Game::new(2, 60);
    let process = game.disk.process();
    let other = open(&process);
    let mut result = None;
    let error = game
        .cask
        .compact_with(|_| {
            process.fail(When::next().of(Verb::Open).by(&process), Fault::Os(libc::EIO), Repeat::Once);
            result.get_or_insert_with(|| other.compact());
            game.neighbour.lock().unwrap().act();
            ControlFlow::Continue(())
        })
        .unwrap_err();
    result.unwrap().unwrap();
    assert!(matches!(error, Error::CompactionOvertaken { .. }), "{error}");
    game.neighbour.lock().unwrap().check(&game.cask);
    game.cask.compact().unwrap();
    game.cask.close().unwrap();
    other.close().unwrap();
    game.end();
}

/// A store on the real disk with a few megabytes in it, half of them dead.
fn filled(directory: &TempDir, config: &Config) -> Cask {
    let cask = Cask::open_with(directory.join("store"), config).unwrap();
    for round in 0..2u8 {
        for n in 0..300 {
            cask.put(format!("key-{n:03}"), vec![round; 9000 + n]).unwrap();
        }
    }
    cask
}

fn unsynced() -> Config {
    Config::new().durability(Durability::Os)
}

#[test]
fn a_cancelled_compaction_leaves_nothing_and_the_next_succeeds() {
    let directory = TempDir::new();
    let cask = filled(&directory, &unsynced());
    let before = cask.list("").unwrap();
    let mut reports = Vec::new();
    let compaction = cask.compact_with(|progress| {
        assert_eq!(names(directory.path()).len(), 2, "the copy stands beside the store");
        reports.push(progress);
        ControlFlow::Continue(())
    });
    assert_eq!(compaction.unwrap().keys, 300);
    assert!(reports.len() > 2 && reports.is_sorted_by_key(|progress| progress.done));
    assert!(reports.iter().all(|progress| 0 < progress.done && progress.done <= progress.total));
    for last in 0..reports.len() {
        let mut seen = 0;
        let error = cask.compact_with(|_| {
            seen += 1;
            if seen > last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(error, Err(Error::CompactionCancelled { .. })));
        assert_eq!(names(directory.path()), ["store"]);
        assert!(cask.list("").unwrap() == before);
    }
    cask.compact().unwrap();
    assert!(cask.list("").unwrap() == before);
}

#[test]
fn closing_a_store_during_its_compaction_changes_nothing() {
    let directory = TempDir::new();
    let cask = filled(&directory, &unsynced());
    let before = cask.list("").unwrap();
    let outcome = cask.compact_with(|_| {
        cask.clone().close().unwrap();
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::Closed)));
    assert_eq!(names(directory.path()), ["store"]);
    let cask = Cask::open(directory.join("store")).unwrap();
    assert!(cask.list("").unwrap() == before);
}

#[test]
fn changes_to_the_file_itself_count() {
    let directory = TempDir::new();
    let cask = filled(&directory, &unsynced());
    let (path, other) = (directory.join("store"), directory.join("other"));
    cask.compact_with(|_| {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

    let outcome = cask.compact_with(|_| {
        let _ = fs::hard_link(&path, &other);
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::CompactionRefused { .. })));
    fs::remove_file(&other).unwrap();

    let outcome = cask.compact_with(|_| {
        let _ = fs::rename(&path, &other);
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::Replaced { .. })), "{outcome:?}");
    assert_eq!(names(directory.path()), ["other"]);
    fs::rename(&other, &path).unwrap();
    cask.compact().unwrap();
    cask.verify().unwrap();
    assert_eq!(cask.list("").unwrap().len(), 300);
}

/// Each thread has keys of its own, so it knows what it must read.
#[test]
fn threads_see_their_writes_while_their_handle_compacts() {
    for (durability, mode, reads) in [
        (Durability::Os, LockMode::PerWrite, ReadMode::Map),
        (Durability::Sync, LockMode::PerWrite, ReadMode::Map),
        (Durability::Interval(Duration::from_millis(1)), LockMode::Exclusive, ReadMode::Pread),
    ] {
        in_finite_time(move || {
            let directory = TempDir::new();
            let cask = filled(&directory, &unsynced());
            cask.close().unwrap();
            let config = Config::new().durability(durability).lock_mode(mode).read_mode(reads);
            let cask = Cask::open_with(directory.join("store"), &config).unwrap();
            let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                let writers: Vec<_> = (0..3u64)
                    .map(|thread| {
                        let (cask, done, writes) = (&cask, &done, &writes);
                        scope.spawn(move || {
                            let mut dice = Dice::new(thread);
                            let mut model = BTreeMap::new();
                            while !done.load(Ordering::Relaxed) {
                                let key = format!("thread-{thread}/{}", dice.below(30));
                                if dice.one_in(4) {
                                    cask.delete(&key).unwrap();
                                    model.remove(&key);
                                } else {
                                    let value = vec![dice.roll() as u8; dice.below(3000) as usize];
                                    cask.put(&key, &value).unwrap();
                                    model.insert(key.clone(), value);
                                }
                                let found = cask.get(&key).ok().map(|pair| pair.value);
                                assert_eq!(found.as_ref(), model.get(&key));
                                writes.fetch_add(1, Ordering::Relaxed);
                            }
                            let prefix = format!("thread-{thread}/");
                            let found = cask.list(&prefix).unwrap();
                            let expected = model.iter().map(|(key, value)| (key.as_bytes(), &value[..]));
                            assert!(found.iter().map(|pair| (&pair.key[..], &pair.value[..])).eq(expected));
                        })
                    })
                    .collect();
                // To the end even if something fails here, so that the others come to an end as well.
                let compactions: Vec<_> = (0..20)
                    .map(|_| {
                        let before = writes.load(Ordering::Relaxed);
                        let compaction = cask.compact();
                        (compaction, writes.load(Ordering::Relaxed) - before)
                    })
                    .collect();
                done.store(true, Ordering::Relaxed);
                assert!(compactions.iter().all(|(compaction, _)| compaction.as_ref().is_ok_and(|it| it.keys >= 300)));
                assert!(compactions.iter().any(|(_, meanwhile)| *meanwhile > 0), "nothing was written meanwhile");
                writers.into_iter().for_each(|writer| writer.join().unwrap());
            });
            cask.verify().unwrap();
            let pairs = cask.list("").unwrap();
            cask.close().unwrap();
            assert!(Cask::open(directory.join("store")).unwrap().list("").unwrap() == pairs);
            assert_eq!(names(directory.path()), ["store"]);
        });
    }
}

/// A sync of the old file may end when the new one has taken its place.
#[test]
fn a_sync_of_the_old_file_proves_nothing_new() {
    in_finite_time(|| {
        let disk = SimDisk::new();
        let config = Config::new().durability(Durability::Interval(Duration::from_secs(1)));
        let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config).unwrap();
        cask.put("large", vec![7; 100_000]).unwrap();
        cask.put("large", "no more").unwrap();
        cask.compact().unwrap();
        let syncs = disk.calls_of(Verb::SyncData);
        while disk.calls_of(Verb::SyncData) == syncs {
            thread::sleep(Duration::from_millis(10));
        }
        cask.put("after", "value").unwrap();
        cask.sync().unwrap();
        let found = disk.reboot(&mut Choices::keep_nothing());
        let found = Cask::open_on(Arc::new(found), STORE, &Config::new()).unwrap();
        assert_eq!(found.get("after").unwrap().value, b"value");
    });
}

#[test]
fn writes_during_a_compaction_count_as_work_left() {
    const LEN: usize = 128 << 10;
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk), STORE, &Config::new()).unwrap();
    let put = |n: usize| cask.put(format!("{n}"), vec![n as u8; LEN]).map(drop).unwrap();
    (0..20).for_each(put);
    let live = |cask: &Cask| cask.stats().unwrap().live_bytes;
    let (before, mut reports) = (live(&cask), Vec::new());
    cask.compact_with(|progress| {
        if reports.is_empty() {
            (20..40).for_each(put);
        }
        reports.push(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    let after = live(&cask);
    assert!(reports.iter().all(|report| report.done <= report.total && (before..=after).contains(&report.total)));
    assert!(reports.iter().any(|report| report.total == after && report.done + (LEN as u64) < after), "{reports:?}");
}
