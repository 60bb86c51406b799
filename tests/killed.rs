//! Processes that are really killed, at every single call that they make to the disk.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caskfile::{Cask, Config, Durability, KvPair};

mod common;
#[path = "common/hooked.rs"]
mod hooked;
#[path = "common/process.rs"]
mod process;

use common::{TempDir, names};
use hooked::HookedDisk;
use process::{Process, arguments, die, say, was_killed};

/// What a process does until it dies at a given call to the disk, and what it finds when it begins.
struct Course {
    prepare: fn(&Path),
    act: fn(Arc<HookedDisk>, &Path),
}

const COURSES: [(&str, Course); 4] = [
    ("creation", Course { prepare: |_| (), act: create }),
    ("creation from an empty file", Course { prepare: leave_an_empty_file, act: create }),
    ("recovery", Course { prepare: leave_a_torn_tail, act: create }),
    ("compaction", Course { prepare: leave_what_can_be_compacted, act: compact }),
];

/// For what is not under test here, and would only take its time: a killed process does not need a sync.
fn hasty() -> Config {
    Config::new().durability(Durability::Os)
}

fn create(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    cask.put("new/1", "1").unwrap();
    say("new/1");
    cask.put("new/2", "2").unwrap();
    say("new/2");
    cask.close().unwrap();
}

fn compact(disk: Arc<HookedDisk>, path: &Path) {
    let cask = Cask::open_on(disk, path, &Config::new()).unwrap();
    cask.put("new/1", "1").unwrap();
    say("new/1");
    cask.compact().unwrap();
    cask.put("new/2", "2").unwrap();
    say("new/2");
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

/// The file of a process that died in the middle of a write.
fn leave_a_torn_tail(path: &Path) {
    let cask = Cask::open_with(path, &hasty()).unwrap();
    for n in 0..10 {
        cask.put(format!("old/{n}"), format!("{}", 20 + n)).unwrap();
    }
    let end = cask.stats().unwrap().log_end as usize;
    cask.put("torn", "x".repeat(100)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    cask.close().unwrap();
    bytes[end + 50..].fill(0);
    fs::write(path, bytes).unwrap();
}

/// A course is run again and again, and each time its process dies one call to the disk later, until it gets through.
/// Each time the store must open and hold what was there before and whatever was acknowledged.
fn dies_at_every_call(test: &str, course: &str) {
    let (_, Course { prepare, act }) = COURSES.iter().find(|(name, _)| *name == course).unwrap();
    if let Some(arguments) = arguments() {
        let (call, dying) = (AtomicU64::new(0), arguments[1].parse::<u64>().unwrap());
        let mut disk = HookedDisk::new(move |_| {
            if call.fetch_add(1, Ordering::Relaxed) == dying {
                die();
            }
            Ok(())
        });
        disk.halve_writes = true;
        return act(Arc::new(disk), Path::new(&arguments[0]));
    }
    for call in 0.. {
        let directory = TempDir::new();
        let path = directory.join("store");
        prepare(&path);
        let old: Vec<KvPair> = match Cask::open_with(&path, &Config::new().read_only(true)) {
            Ok(before) => before.list("old").unwrap(),
            Err(_) => Vec::new(),
        };
        // A handle that was there before the process came and died.
        let beside = (!old.is_empty()).then(|| Cask::open_with(&path, &hasty()).unwrap());
        let mut process = Process::start(test, &[path.to_str().unwrap(), &call.to_string()]);
        let mut acknowledged = Vec::new();
        while let Some(said) = process.hear() {
            acknowledged.push(said);
        }
        let status = process.end();
        assert!(status.success() || was_killed(status), "{course}, at call {call}: {status}");

        if let Some(beside) = beside {
            assert_eq!(beside.list("old").unwrap(), old, "{course}, at call {call}");
            beside.put("beside", "it").unwrap();
            beside.close().unwrap();
        }
        let cask = Cask::open_with(&path, &hasty()).unwrap_or_else(|error| panic!("{course}, at call {call}: {error}"));
        cask.verify().unwrap();
        assert_eq!(cask.list("old").unwrap(), old, "{course}, at call {call}");
        for key in &acknowledged {
            assert!(cask.exists(key).unwrap(), "{course}, at call {call}: {key} was acknowledged");
        }
        for pair in cask.list("new").unwrap() {
            assert!(pair.key.ends_with(&pair.value), "{course}, at call {call}: {pair:?}");
        }
        let highest = cask.list("").unwrap().iter().map(|pair| pair.last_index).max().unwrap_or(0);
        assert!(cask.atomic_put("last", "", None).unwrap().last_index > highest);
        cask.close().unwrap();
        assert_eq!(names(directory.path()), ["store"]);
        if status.success() {
            println!("{course}: {call} calls");
            assert!(call > 10);
            return;
        }
    }
}

#[test]
fn a_process_killed_at_any_call_of_creation_leaves_a_store_or_none() {
    dies_at_every_call("a_process_killed_at_any_call_of_creation_leaves_a_store_or_none", "creation");
}

#[test]
fn a_process_killed_at_any_call_of_creation_from_an_empty_file_leaves_a_store_or_an_empty_file() {
    dies_at_every_call(
        "a_process_killed_at_any_call_of_creation_from_an_empty_file_leaves_a_store_or_an_empty_file",
        "creation from an empty file",
    );
}

#[test]
fn a_process_killed_at_any_call_of_recovery_leaves_a_store_that_recovers() {
    dies_at_every_call("a_process_killed_at_any_call_of_recovery_leaves_a_store_that_recovers", "recovery");
}

#[test]
fn a_process_killed_at_any_call_of_compaction_leaves_the_store_compacted_or_not() {
    dies_at_every_call("a_process_killed_at_any_call_of_compaction_leaves_the_store_compacted_or_not", "compaction");
}
