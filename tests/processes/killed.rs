//! Processes that are really killed, at every single call that they make to the disk.

use crate::common::hooked;
use crate::points;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, LockMode, ReadMode, salvage_on};

use crate::common::hooked::{Call, HookedDisk};
use crate::common::process::{Process, arguments, say, this_test, was_killed};
use crate::common::{TempDir, names};
use crate::points::{Fate, LAST_WORD, deadly_disk};

/// What a process does until it dies at a given call to the disk, and what it finds when it begins.
struct Course {
    name: &'static str,
    prepare: fn(&Path),
    act: fn(Arc<HookedDisk>, &Path),
    /// Which calls fail.
    fail: fn(&Call<'_>) -> std::io::Result<()>,
    /// The named moments that it must come through.
    points: &'static [&'static str],
}

impl Course {
    const PLAIN: Course = Course {
        name: "",
        prepare: |_| (),
        act: |disk, path| write_two(disk, path, Config::new()),
        fail: |_| Ok(()),
        points: &[],
    };
}

/// The moments of a cut from beginning to end.
const A_CUT: [&str; 4] = [
    "a cut: marked, not punched",
    "a cut: punched, not synced",
    "a cut: synced, no end mark",
    "a cut: end mark, not synced",
];

const COURSES: [Course; 11] = [
    Course {
        name: "creation",
        points: &[
            "creation: file synced, not linked",
            "creation: linked, temporary name there",
            "creation: linked, directory not synced",
            "a group: file extended, nothing written",
            "a group: half written",
            "a group: written, not synced",
            "a group: synced, lock held",
            "close: root written, not trimmed",
            "close: trimmed, lock held",
        ],
        ..Course::PLAIN
    },
    Course {
        name: "creation from an empty file",
        prepare: leave_an_empty_file,
        points: &[
            "creation: file synced, not renamed over an empty one",
            "creation: renamed over an empty one, directory not synced",
        ],
        ..Course::PLAIN
    },
    Course { name: "recovery", prepare: |path| leave_a_torn_tail(path, false), points: &A_CUT, ..Course::PLAIN },
    Course {
        name: "recovery that keeps what it cuts off",
        prepare: |path| leave_a_torn_tail(path, true),
        points: &[
            "a torn tail: copied, not synced",
            "a torn tail: copy synced, directory not synced",
            "a torn tail: kept, not cut",
            "a cut: marked, not punched",
        ],
        ..Course::PLAIN
    },
    Course {
        name: "compaction",
        prepare: leave_what_can_be_compacted,
        act: compact,
        points: &[
            "compaction: file synced, no MOVED",
            "compaction: MOVED half written",
            "compaction: MOVED written, not renamed",
            "compaction: renamed, directory not synced",
            "compaction: directory synced, lock held",
        ],
        ..Course::PLAIN
    },
    Course {
        name: "every operation, synced",
        act: |disk, path| do_everything(disk, path, Config::new()),
        points: &["a group: half written", "a group: written, not synced", "a group: synced, lock held"],
        ..Course::PLAIN
    },
    Course {
        name: "every operation, not synced",
        act: |disk, path| do_everything(disk, path, Config::new().durability(Durability::Os)),
        points: &["a group: written, lock held"],
        ..Course::PLAIN
    },
    Course {
        name: "every operation, synced in the background with the lock held",
        act: |disk, path| {
            let interval = Durability::Interval(Duration::from_millis(1));
            do_everything(disk, path, Config::new().durability(interval).lock_mode(LockMode::Exclusive));
        },
        ..Course::PLAIN
    },
    Course {
        name: "a write for which there is no space",
        act: run_out_of_space,
        fail: |call| match call.at {
            at if call.name == hooked::HALFWAY && at > SPACE => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        },
        points: &A_CUT,
        ..Course::PLAIN
    },
    Course {
        name: "close",
        prepare: leave_what_can_be_compacted,
        act: |disk, path| {
            let cask = Cask::open_on(disk, path, &hasty()).unwrap();
            tell("new/1", '+', || cask.put("new/1", "1"));
            cask.close().unwrap();
        },
        points: &["close: root written, not trimmed", "close: trimmed, lock held"],
        ..Course::PLAIN
    },
    Course {
        name: "close of a handle that has written nothing",
        prepare: |path| {
            leave_what_can_be_compacted(path);
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() + 4096).unwrap();
        },
        act: |disk, path| Cask::open_on(disk, path, &Config::new()).unwrap().close().unwrap(),
        points: &["close: lock held, not trimmed", "close: trimmed, lock held"],
        ..Course::PLAIN
    },
];

/// For what is not under test here, and would only take its time: a killed process does not need a sync.
fn hasty() -> Config {
    Config::new().durability(Durability::Os)
}

/// Says what is about to become of a key, does it, and says that it was acknowledged: `?key` and then `+key` or `-key`.
fn tell<T>(key: &str, then: char, act: impl FnOnce() -> Result<T, Error>) -> T {
    say(format!("?{key}"));
    let acknowledged = act().unwrap();
    say(format!("{then}{key}"));
    acknowledged
}

fn write_two(disk: Arc<HookedDisk>, path: &Path, config: Config) {
    let cask = Cask::open_on(disk, path, &config).unwrap();
    tell("new/1", '+', || cask.put("new/1", "1"));
    tell("new/2", '+', || cask.put("new/2", "2"));
    cask.close().unwrap();
}

fn compact(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    tell("new/1", '+', || cask.put("new/1", "1"));
    cask.compact().unwrap();
    tell("new/2", '+', || cask.put("new/2", "2"));
    cask.close().unwrap();
}

fn do_everything(disk: Arc<HookedDisk>, path: &Path, config: Config) {
    let cask = Cask::open_on(disk, path, &config).unwrap();
    tell("new/1", '+', || cask.put("new/1", "1"));
    let pair = tell("new/2", '+', || cask.atomic_put("new/2", "2", None));
    tell("new/2", '+', || cask.atomic_put("new/2", "2", Some(&pair)));
    tell("new/1", '-', || cask.delete("new/1"));
    tell("new/3", '+', || cask.update("new/3", |_| b"3".to_vec()));
    let pair = cask.get("new/3").unwrap();
    tell("new/3", '-', || cask.atomic_delete("new/3", Some(&pair)));
    let mut batch = Batch::new();
    batch.put("new/both/4", "4").put("new/both/5", "5").delete("new/2");
    say("?new/2");
    tell("new/both/4", '+', || cask.write(&batch));
    say("-new/2");
    cask.sync().unwrap();
    assert_eq!(cask.list("new").unwrap().len(), 2);
    cask.verify().unwrap();
    tell("new/both/4", '-', || cask.delete_prefix("new/both"));
    cask.close().unwrap();
}

/// The file's length beyond which nothing can be written in `run_out_of_space`.
const SPACE: u64 = 100_000;

fn run_out_of_space(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    tell("new/1", '+', || cask.put("new/1", "1"));
    assert!(matches!(cask.put("none", vec![b'n'; 2 * SPACE as usize]), Err(Error::Io { .. })));
    assert!(!cask.exists("none").unwrap());
    tell("new/2", '+', || cask.put("new/2", "2"));
    cask.close().unwrap();
}

fn leave_an_empty_file(path: &Path) {
    File::create(path).unwrap();
}

fn leave_what_can_be_compacted(path: &Path) {
    let cask = Cask::open_with(path, &hasty()).unwrap();
    for n in 0..30 {
        cask.put(format!("old/{}", n % 10), format!("{n}")).unwrap();
    }
    cask.put("gone", "").unwrap();
    cask.delete("gone").unwrap();
    cask.close().unwrap();
}

/// The file of a process that died in the middle of a write; with a whole record after it, of a machine that did.
fn leave_a_torn_tail(path: &Path, record_behind: bool) {
    let cask = Cask::open_with(path, &hasty()).unwrap();
    for n in 0..10 {
        cask.put(format!("old/{n}"), format!("{}", 20 + n)).unwrap();
    }
    let end = cask.stats().unwrap().log_end as usize;
    cask.put("torn", "x".repeat(100)).unwrap();
    let torn_end = cask.stats().unwrap().log_end as usize;
    if record_behind {
        cask.put("behind", "it").unwrap();
    }
    let mut bytes = fs::read(path).unwrap();
    // Closed before the file is put back as it was: what a close writes is proof.
    cask.close().unwrap();
    bytes[end + 50..torn_end].fill(0);
    fs::write(path, bytes).unwrap();
}

/// What a process has said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledged {
    UnderWay,
    There,
    Gone,
}

/// Starts the process that plays this role and fate, listens to it to the end, and returns what it has said, at which
/// moment it died, and whether it got through.
fn run(test: &str, path: &Path, fate: &Fate) -> (BTreeMap<String, Acknowledged>, String, bool) {
    let [what, number] = fate.to_words();
    let mut process = Process::start(test, &[path.to_str().unwrap(), &what, &number]);
    let (mut acknowledged, mut point) = (BTreeMap::new(), String::new());
    while let Some(said) = process.hear() {
        match said.strip_prefix(LAST_WORD) {
            Some(name) => point = name.to_owned(),
            None => {
                let state = match &said[..1] {
                    "?" => Acknowledged::UnderWay,
                    "+" => Acknowledged::There,
                    _ => Acknowledged::Gone,
                };
                acknowledged.insert(said[1..].to_owned(), state);
            }
        }
    }
    let status = process.end();
    assert!(status.success() || was_killed(status), "{fate:?}: {status}");
    (acknowledged, point, status.success())
}

/// The role of the process that dies.
fn play(arguments: &[String], fail: fn(&Call<'_>) -> std::io::Result<()>, act: fn(Arc<HookedDisk>, &Path)) {
    let fate = Fate::from_words(&arguments[1], &arguments[2]);
    act(Arc::new(deadly_disk(fate, fail)), Path::new(&arguments[0]));
}

/// A course is run again and again, and each time its process dies one call to the disk later, until it gets through.
/// Each time the store must open and hold what was there before and whatever was acknowledged.
fn dies_at_every_call(test: &str, name: &str) {
    let course = COURSES.iter().find(|course| course.name == name).unwrap();
    if let Some(arguments) = arguments() {
        return play(&arguments, course.fail, course.act);
    }
    let mut met = BTreeSet::new();
    for call in 0.. {
        let directory = TempDir::without_waits();
        let path = directory.join("store");
        (course.prepare)(&path);
        let old: Vec<KvPair> = match Cask::open_with(&path, &Config::new().read_only(true)) {
            Ok(before) => before.list("old").unwrap(),
            Err(_) => Vec::new(),
        };
        // A reader that was there before the process came and died, and after every other death a writer as well: it
        // would mend what the process is to find.
        // A close makes the file shorter only if no other handle has it mapped.
        let mode = if name.starts_with("close") { ReadMode::Pread } else { ReadMode::Map };
        let open = |config: Config| Cask::open_with(&path, &config.read_mode(mode)).unwrap();
        let reader = (!old.is_empty()).then(|| open(Config::new().read_only(true)));
        let mends = name.starts_with("recovery");
        let beside = (!old.is_empty() && !mends).then(|| open(hasty()));
        let (acknowledged, point, got_through) = run(test, &path, &Fate::AtCall(call));
        met.insert(point.clone());

        let place = format!("{name}, at call {call} {point}");
        if let Some(reader) = reader {
            assert_eq!(reader.list("old").unwrap(), old, "{place}");
        }
        if let Some(beside) = beside {
            assert_eq!(beside.list("old").unwrap(), old, "{place}");
            beside.put("beside", "it").unwrap();
            beside.close().unwrap();
        }
        check(&path, &old, &acknowledged, &place);
        let kept = names(directory.path());
        let allowed = |name: &&String| *name == "store" || name.contains(".torn-");
        assert!(kept.iter().all(|name| allowed(&name)), "{place}: {kept:?}");
        if got_through {
            println!("{name}: {call} calls, moments {met:?}");
            assert!(call > 10);
            let missed: Vec<_> = course.points.iter().filter(|point| !met.contains(**point)).collect();
            assert!(missed.is_empty(), "{name} never came to {missed:?}");
            return;
        }
    }
}

/// The store opens, is sound, has what it had and what was acknowledged, and gives out no index again.
fn check(path: &Path, old: &[KvPair], acknowledged: &BTreeMap<String, Acknowledged>, place: &str) {
    let cask = Cask::open_with(path, &hasty()).unwrap_or_else(|error| panic!("{place}: {error}"));
    cask.verify().unwrap();
    assert_eq!(cask.list("old").unwrap(), old, "{place}");
    for (key, acknowledged) in acknowledged {
        let there = cask.exists(key).unwrap();
        match acknowledged {
            Acknowledged::UnderWay => {}
            Acknowledged::There => assert!(there, "{place}: {key} was acknowledged"),
            Acknowledged::Gone => assert!(!there, "{place}: that {key} is gone was acknowledged"),
        }
    }
    for pair in cask.list("new").unwrap() {
        assert!(pair.key.ends_with(&pair.value), "{place}: {pair:?}");
    }
    assert!([0, 2].contains(&cask.list("new/both").unwrap().len()), "{place}: half a batch");
    let highest = cask.list("").unwrap().iter().map(|pair| pair.last_index).max().unwrap_or(0);
    assert!(cask.atomic_put("last", "", None).unwrap().last_index > highest, "{place}");
    cask.close().unwrap();
}

#[test]
fn a_kill_during_creation_leaves_a_store_or_none() {
    dies_at_every_call(this_test!(), "creation");
}

#[test]
fn a_kill_while_an_empty_file_is_filled_loses_nothing() {
    dies_at_every_call(this_test!(), "creation from an empty file");
}

#[test]
fn a_kill_during_recovery_leaves_a_recoverable_store() {
    dies_at_every_call(this_test!(), "recovery");
}

#[test]
fn a_kill_while_a_torn_tail_is_kept_loses_nothing() {
    dies_at_every_call(this_test!(), "recovery that keeps what it cuts off");
}

#[test]
fn a_kill_during_compaction_leaves_it_done_or_not() {
    dies_at_every_call(this_test!(), "compaction");
}

#[test]
fn a_kill_during_any_synced_operation_loses_nothing() {
    dies_at_every_call(this_test!(), "every operation, synced");
}

#[test]
fn a_kill_during_any_unsynced_operation_loses_nothing() {
    dies_at_every_call(this_test!(), "every operation, not synced");
}

#[test]
fn a_kill_with_the_lock_held_loses_nothing() {
    dies_at_every_call(this_test!(), "every operation, synced in the background with the lock held");
}

#[test]
fn a_kill_during_a_failed_write_loses_nothing() {
    dies_at_every_call(this_test!(), "a write for which there is no space");
}

#[test]
fn a_kill_during_a_close_leaves_it_done_or_not() {
    dies_at_every_call(this_test!(), "close");
}

/// Salvage makes a store from a damaged one, which stays as it is: whenever it dies, there is the whole of it or none.
#[test]
fn a_kill_during_salvage_leaves_a_whole_store_or_none() {
    let test = this_test!();
    if let Some(arguments) = arguments() {
        return play(
            &arguments,
            |_| Ok(()),
            |disk, path| {
                salvage_on(&*disk, path, &path.with_file_name("rescued")).unwrap();
            },
        );
    }
    let mut met = BTreeSet::new();
    for call in 0.. {
        let directory = TempDir::without_waits();
        let (path, rescued) = (directory.join("store"), directory.join("rescued"));
        leave_what_can_be_compacted(&path);
        let cask = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        let end = cask.stats().unwrap().log_end;
        drop(cask);
        let damaged = OpenOptions::new().write(true).open(&path).unwrap();
        damaged.write_all_at(&[0xee; 8], end / 2).unwrap();
        let before = fs::read(&path).unwrap();
        let (_, point, got_through) = run(test, &path, &Fate::AtCall(call));
        met.insert(point);

        assert!(fs::read(&path).unwrap() == before, "at call {call}: the damaged file was changed");
        if rescued.exists() {
            let cask = Cask::open(&rescued).unwrap();
            cask.verify().unwrap();
            assert!(cask.list("old").unwrap().len() >= 9, "at call {call}: half of it");
            cask.close().unwrap();
            assert_eq!(names(directory.path()), ["rescued", "store"], "at call {call}");
        } else {
            assert!(!got_through);
            // What was left does not hold up the next one.
            salvage_on(&caskfile::disk::RealDisk, &path, &rescued).unwrap();
        }
        if got_through {
            println!("salvage: {call} calls, moments {met:?}");
            let all = ["creation: file synced, not linked", "creation: linked, temporary name there"];
            assert!(all.iter().all(|point| met.contains(*point)), "{met:?}");
            return;
        }
    }
}

#[test]
fn a_kill_while_a_reader_closes_loses_nothing() {
    dies_at_every_call(this_test!(), "close of a handle that has written nothing");
}

/// Every moment that has a name is come to by some course, so that none is only a name.
#[test]
fn every_named_moment_belongs_to_a_course() {
    let tried: BTreeSet<&str> = COURSES.iter().flat_map(|course| course.points.iter().copied()).collect();
    let untried: Vec<&str> = points::names().filter(|name| !tried.contains(name)).collect();
    assert!(untried.is_empty(), "{untried:?}");
}
