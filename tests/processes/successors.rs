//! What may have the path of a store that was compacted: its successor, and nothing else.
//!
//! A log whose last record is `MOVED` was left for another file. A handle that finds that goes on by itself only in a file
//! that compaction has made of it.

use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, SimDisk};
use caskfile::{Cask, Config, Durability, Error, LockMode, salvage_on};

use crate::common::refusal::refused;

const STORE: &str = "/store";
const OTHER: &str = "/other";

fn open_at(disk: &SimDisk, path: &str, config: &Config) -> Cask {
    Cask::open_on(Arc::new(disk.process()), path, config).unwrap()
}

fn open(disk: &SimDisk) -> Cask {
    open_at(disk, STORE, &Config::new())
}

#[track_caller]
fn expect_replaced<T: std::fmt::Debug>(outcome: caskfile::Result<T>) {
    let error = refused(outcome);
    assert!(matches!(error, Error::Replaced { .. }), "{error:?}");
}

/// What takes the path of the store that was compacted.
type Usurper = (&'static str, fn(&SimDisk));

const USURPERS: [Usurper; 4] = [
    ("a backup of the compacted store", |disk| {
        open(disk).backup(OTHER).unwrap();
    }),
    ("a salvaged copy", |disk| {
        salvage_on(&disk.process(), STORE.as_ref(), OTHER.as_ref()).unwrap();
    }),
    ("a new store", |disk| open_at(disk, OTHER, &Config::new()).put("key", "unrelated").map(drop).unwrap()),
    ("a new store that was compacted", |disk| {
        let other = open_at(disk, OTHER, &Config::new());
        other.put("key", "unrelated").unwrap();
        other.compact().unwrap();
    }),
];

#[test]
fn an_idle_handle_writes_only_to_a_successor() {
    for (what, make) in USURPERS {
        for durability in [Durability::Sync, Durability::Os] {
            let disk = SimDisk::new();
            // As any store that has been opened a few times.
            (0..3).for_each(|round| open(&disk).put("key", format!("{round}")).map(drop).unwrap());
            let writer = open_at(&disk, STORE, &Config::new().durability(durability));
            let reader = open_at(&disk, STORE, &Config::new().read_only(true));
            let before = writer.get("key").unwrap();
            assert_eq!(reader.get("key").unwrap(), before);
            let compactor = open(&disk);
            compactor.compact().unwrap();
            compactor.put("key", "in the compacted store").unwrap();
            compactor.close().unwrap();
            make(&disk);
            disk.rename(OTHER.as_ref(), STORE.as_ref()).unwrap();
            let contents = disk.contents(STORE).unwrap();
            for _ in 0..2 {
                expect_replaced(writer.put("key", "lost"));
                expect_replaced(writer.atomic_put("key", "lost", Some(&before)));
                expect_replaced(writer.get("key"));
                expect_replaced(reader.get("key"));
            }
            assert!(disk.contents(STORE).unwrap() == contents, "{what}");
            // To go on with that file is for the program to decide.
            writer.reopen().unwrap();
            reader.reopen().unwrap();
            assert!(writer.get("key").unwrap() != before, "{what}");
            writer.put("key", "after").unwrap();
            assert_eq!(reader.get("key").unwrap().value, b"after");
        }
    }
}

#[test]
fn an_idle_handle_follows_many_compactions_to_the_last() {
    for lock_mode in [LockMode::PerWrite, LockMode::Exclusive] {
        let disk = SimDisk::new();
        let writer = open(&disk);
        let reader = open_at(&disk, STORE, &Config::new().read_only(true));
        writer.put("key", "first").unwrap();
        assert_eq!(reader.get("key").unwrap().value, b"first");
        for round in 0..20 {
            let other = open_at(&disk, STORE, &Config::new().lock_mode(lock_mode));
            other.put("key", format!("{round}")).unwrap();
            other.compact().unwrap();
            other.close().unwrap();
        }
        assert_eq!(reader.get("key").unwrap().value, b"19");
        writer.put("key", "last").unwrap();
        assert_eq!(reader.get("key").unwrap().value, b"last");
    }
}

/// Each copy of a copy begins far above the indexes of the one before.
#[test]
fn a_handle_reopened_with_an_old_copy_writes_there() {
    for generations in [1, 3, 4, 5, 9] {
        let disk = SimDisk::new();
        open(&disk).put("key", "original").unwrap();
        open(&disk).backup("/original").unwrap();
        for _ in 0..generations {
            open(&disk).backup(OTHER).unwrap();
            disk.rename(OTHER.as_ref(), STORE.as_ref()).unwrap();
        }
        let cask = open(&disk);
        cask.put("key", "latest generation").unwrap();
        disk.rename("/original".as_ref(), STORE.as_ref()).unwrap();
        expect_replaced(cask.put("key", "lost"));
        cask.reopen().unwrap();
        let pair = cask.get("key").unwrap();
        cask.atomic_put("key", "acknowledged", Some(&pair)).unwrap();
        assert_eq!(open(&disk).get("key").unwrap().value, b"acknowledged");
        let after = open(&disk.reboot(&mut Choices::keep_nothing()));
        assert_eq!(after.get("key").unwrap().value, b"acknowledged");
        cask.close().unwrap();
        let report = caskfile::verify_on(&disk, STORE.as_ref()).unwrap();
        assert!(report.is_sound(), "{report}");
    }
}
