use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Repeat, SimDisk, Verb, When};
use crate::limits::Limits;
use crate::patience::with_a_deadline;
use crate::store::Change;
use crate::{Batch, Config, Durability};

fn open(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.process()), "/store", &Config::new().durability(Durability::Os)).unwrap()
}

/// All changes that are there, as text: a unit in brackets.
fn drain(watch: &mut Watch) -> String {
    let mut text = String::new();
    while let Some(unit) = watch.try_next().unwrap() {
        let is_listing = unit.is_listing();
        let changes = unit.into_changes().unwrap();
        let changes = changes.iter().map(|change| match change {
            Change::Put(pair) => {
                format!("{}={}", String::from_utf8_lossy(&pair.key), String::from_utf8_lossy(&pair.value))
            }
            Change::Delete { key, .. } => format!("-{}", String::from_utf8_lossy(key)),
        });
        let changes = changes.collect::<Vec<_>>().join(" ");
        text += &if is_listing { format!("({changes})") } else { format!("[{changes}]") };
    }
    text
}

#[test]
fn units_come_in_the_order_of_the_log_and_batches_whole() {
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    cask.put("before", "").unwrap();
    let mut watch = cask.changes("k", WatchFrom::Now).unwrap();
    assert_eq!(drain(&mut watch), "");
    other.put("k1", "a").unwrap();
    cask.put("other", "").unwrap();
    other.write(Batch::new().put("k2", "b").put("other", "x").delete("k1")).unwrap();
    cask.bucket("b").unwrap().put("k1", "another bucket").unwrap();
    other.delete("absent").unwrap();
    other.delete("k2").unwrap();
    assert_eq!(drain(&mut watch), "[k1=a][k2=b -k1][-k2]");
}

#[test]
fn a_watch_goes_on_after_any_position() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    let mut units = Vec::new();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    for n in 0..5 {
        cask.put(format!("k{n}"), "v").unwrap();
        cask.write(Batch::new().put("x", "1").put("y", "2")).unwrap();
    }
    while let Some(unit) = watch.try_next().unwrap() {
        let position = unit.position();
        units.push((position, unit.into_changes().unwrap()));
    }
    assert_eq!(units.len(), 10);
    for (n, (position, changes)) in units.iter().enumerate() {
        // Each index of a batch stands for the batch.
        for index in changes.iter().map(Change::last_index).chain([*position]) {
            let mut later = cask.changes("", WatchFrom::After(index)).unwrap();
            assert_eq!(later.position(), *position);
            for (_, expected) in &units[n + 1..] {
                assert_eq!(&later.try_next().unwrap().unwrap().into_changes().unwrap(), expected);
            }
            assert!(later.try_next().unwrap().is_none());
        }
    }
    let last = units.last().unwrap().0;
    assert!(
        matches!(cask.changes("", WatchFrom::After(last + 1)), Err(Error::Undone { last: found, .. }) if found == last)
    );
}

#[test]
fn a_snapshot_is_a_listing_and_what_follows_it() {
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    cask.put("k1", "a").unwrap();
    cask.put("k2", "b").unwrap();
    cask.put("other", "").unwrap();
    let mut watch = cask.changes("k", WatchFrom::Snapshot).unwrap();
    other.delete("k1").unwrap();
    other.put("k3", "c").unwrap();
    assert_eq!(drain(&mut watch), "(k1=a k2=b)[-k1][k3=c]");
    let options = WatchOptions::new().all_buckets(true);
    cask.bucket("b").unwrap().put("k0", "z").unwrap();
    let mut all = cask.changes_with("k", WatchFrom::Snapshot, &options).unwrap();
    other.bucket("c").unwrap().put("k9", "").unwrap();
    assert_eq!(drain(&mut all), "(k2=b k3=c k0=z)[k9=]");
}

#[test]
fn a_watch_goes_through_compactions() {
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    other.put("a", "1").unwrap();
    other.put("a", "2").unwrap();
    other.delete("a").unwrap();
    other.compact().unwrap();
    assert_eq!(drain(&mut watch), "[a=1][a=2][-a]");
    // The last event is no longer in the file.
    other.compact().unwrap();
    other.compact().unwrap();
    assert_eq!(drain(&mut watch), "");
    other.put("b", "3").unwrap();
    other.compact().unwrap();
    cask.put("b", "4").unwrap();
    assert_eq!(drain(&mut watch), "[b=3][b=4]");
    let position = watch.position();
    let mut later = other.changes("", WatchFrom::After(position)).unwrap();
    assert_eq!(drain(&mut later), "");
    cask.put("c", "5").unwrap();
    other.compact().unwrap();
    assert!(
        matches!(cask.changes("", WatchFrom::After(position)), Err(Error::Compacted { oldest, .. }) if oldest > position)
    );
}

#[test]
fn an_empty_store_can_be_compacted_under_a_watch() {
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    assert_eq!(watch.position(), 0);
    other.put("a", "").unwrap();
    other.delete("a").unwrap();
    other.compact().unwrap();
    other.compact().unwrap();
    assert_eq!(drain(&mut watch), "[a=][-a]");
    let mut later = cask.changes("", WatchFrom::Now).unwrap();
    assert_eq!(later.position(), watch.position());
    other.put("b", "").unwrap();
    assert_eq!(drain(&mut later), "[b=]");
}

#[test]
fn a_watch_two_files_behind_is_refused_if_it_has_missed_something() {
    for missed in [false, true] {
        let disk = SimDisk::new();
        let (cask, other) = (open(&disk), open(&disk));
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        other.put("a", "1").unwrap();
        if !missed {
            assert_eq!(drain(&mut watch), "[a=1]");
        }
        for _ in 0..2 {
            other.compact().unwrap();
            // The handle follows, and the watch is not asked.
            assert!(cask.exists("a").unwrap());
        }
        other.put("b", "2").unwrap();
        match missed {
            false => assert_eq!(drain(&mut watch), "[b=2]"),
            true => assert!(matches!(watch.try_next(), Err(Error::Compacted { .. }))),
        }
    }
}

#[test]
fn a_watch_far_behind_gives_up_its_file() {
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    let options = |lag| WatchOptions::new().lag(lag);
    let mut near = cask.changes_with("", WatchFrom::Now, &options(1000)).unwrap();
    let mut far = cask.changes_with("", WatchFrom::Now, &options(100)).unwrap();
    for n in 0..10 {
        other.put("key", format!("{n:20}")).unwrap();
    }
    other.compact().unwrap();
    cask.exists("key").unwrap();
    assert!(matches!(far.try_next(), Err(Error::Compacted { .. })));
    assert_eq!(drain(&mut near).matches('[').count(), 10);
}

/// What a watch of the same handle and one of another process see of a history with every kind of write, at each of its steps.
#[test]
fn a_watch_of_any_age_folds_to_the_store() {
    let disk = SimDisk::new();
    disk.set_limits(Limits::SMALL);
    let (cask, other) = (open(&disk), open(&disk));
    let mut watches = Vec::new();
    for step in 0..60_u32 {
        let key = format!("k{}", step * 7 % 5);
        match step % 6 {
            0 | 3 => _ = cask.put(&key, format!("{step}")).unwrap(),
            1 => drop(other.write(Batch::new().put(&key, "batch").delete("k1").put("k2", format!("{step}"))).unwrap()),
            2 => other.delete(&key).unwrap(),
            4 if step % 4 == 0 => _ = other.compact().unwrap(),
            _ => _ = cask.put(&key, vec![b'x'; 300]).unwrap(),
        }
        watches.push((cask.changes("", WatchFrom::Snapshot).unwrap(), BTreeMap::new()));
        for (watch, state) in &mut watches {
            while let Some(unit) = watch.try_next().unwrap() {
                for change in unit.into_changes().unwrap() {
                    match change {
                        Change::Put(pair) => drop(state.insert(pair.key.clone(), pair)),
                        Change::Delete { key, .. } => drop(state.remove(&key)),
                    }
                }
            }
            assert_eq!(state.values().cloned().collect::<Vec<_>>(), cask.list("").unwrap(), "step {step}");
        }
    }
}

#[test]
fn a_write_between_two_steps_of_falling_asleep_is_found() {
    let Some(()) = with_a_deadline(a_write_between_two_steps_of_falling_asleep_is_found) else { return };
    let (mut nth, tried_after_arming) = (1, Arc::new(AtomicBool::new(false)));
    loop {
        let disk = SimDisk::new();
        disk.set_limits(Limits { backstop: u64::MAX, ..Limits::REAL });
        let process = disk.process();
        let cask = Cask::open_on(Arc::new(process.clone()), "/store", &Config::new()).unwrap();
        let other = open(&disk);
        cask.put("a", "1").unwrap();
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let (before, writer) = (disk.calls_of(Verb::Arm), other.clone());
        let written = Arc::new(AtomicBool::new(false));
        // The last handle that is dropped tidies the file up, which would wake the watch.
        let _kept = other.clone();
        let (has_written, tried) = (Arc::clone(&written), Arc::clone(&tried_after_arming));
        process.before(When::nth(nth).and_map_reads().by(&process), Repeat::Once, move |disk| {
            has_written.store(true, SeqCst);
            tried.fetch_or(disk.calls_of(Verb::Arm) > before, SeqCst);
            writer.put("b", "2").unwrap();
        });
        // If the hook has not run before it falls asleep, it is not run at all. Another write would wake a watch that has missed
        // the one of the hook.
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            if !written.load(SeqCst) {
                other.put("c", "3").unwrap();
            }
        });
        let text = {
            let unit = watch.next_timeout(None).unwrap().unwrap();
            unit.into_changes().unwrap()[0].key().to_vec()
        };
        late.join().unwrap();
        // On a busy machine, the late write can come before the watch has fallen asleep: then it is tried again.
        if text != b"c" {
            nth += 1;
        } else if tried_after_arming.load(SeqCst) {
            return;
        }
    }
}

/// The arming was of the old file then, which nothing changes any more.
#[test]
fn a_watch_that_falls_asleep_during_a_compaction_sleeps_on_the_new_file() {
    let Some(()) = with_a_deadline(a_watch_that_falls_asleep_during_a_compaction_sleeps_on_the_new_file) else {
        return;
    };
    for nth in 1.. {
        let disk = SimDisk::new();
        disk.set_limits(Limits { backstop: 3000, ..Limits::REAL });
        let process = disk.process();
        let cask = Cask::open_on(Arc::new(process.clone()), "/store", &Config::new()).unwrap();
        let other = open(&disk);
        cask.put("a", "1").unwrap();
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let (compactor, compacted) = (other.clone(), Arc::new(AtomicBool::new(false)));
        let has_compacted = Arc::clone(&compacted);
        process.before(When::nth(nth).and_map_reads().by(&process), Repeat::Once, move |_| {
            compactor.compact().unwrap();
            has_compacted.store(true, SeqCst);
        });
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            other.put("b", "2").unwrap();
        });
        let unit = watch.next_timeout(None).unwrap().unwrap();
        assert_eq!(unit.into_changes().unwrap()[0].key(), b"b");
        let unreported = cask.stats().unwrap().unreported_changes;
        assert_eq!(unreported, 0, "a compaction at call {nth}: the put after it was not reported");
        late.join().unwrap();
        if !compacted.load(SeqCst) {
            assert!(nth > 3, "the hook should run in the first calls");
            return;
        }
    }
}

#[test]
fn closing_and_stopping_end_a_watch_that_waits() {
    let Some(()) = with_a_deadline(closing_and_stopping_end_a_watch_that_waits) else { return };
    let disk = SimDisk::new();
    disk.set_limits(Limits { backstop: u64::MAX, ..Limits::REAL });
    let cask = open(&disk);
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let stopper = watch.stopper();
    let waiting = thread::spawn(move || watch.next_timeout(None).map(|unit| unit.is_some()));
    stopper.stop();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Stopped)));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let waiting = thread::spawn(move || watch.next_timeout(None).map(|unit| unit.is_some()));
    thread::sleep(Duration::from_millis(10));
    cask.close().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
}

/// It went on at its offset in the copy, which has other records there.
#[test]
fn a_copy_with_the_same_header_is_another_file() {
    let Some(()) = with_a_deadline(a_copy_with_the_same_header_is_another_file) else { return };
    let disk = SimDisk::new();
    let (cask, other) = (open(&disk), open(&disk));
    cask.put("a", "1").unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    disk.set_contents("/copy", disk.contents("/store").unwrap());
    other.put("x", "1").unwrap();
    assert_eq!(drain(&mut watch), "[x=1]");
    disk.process().rename("/copy".as_ref(), "/store".as_ref()).unwrap();
    let third = open(&disk);
    third.put("y", "1").unwrap();
    cask.reopen().unwrap();
    for key in ["z", "zz"] {
        assert!(matches!(watch.try_next(), Err(Error::Replaced { .. })));
        third.put(key, "1").unwrap();
    }
}

#[test]
fn a_stopper_keeps_no_watch_alive() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    let watch = cask.changes("", WatchFrom::Now).unwrap();
    let stopper = watch.stopper();
    assert_eq!(cask.stats().unwrap().watches, 1);
    drop(watch);
    assert_eq!(cask.stats().unwrap().watches, 0);
    stopper.stop();
}
