//! What a handle keeps in memory after large work, and how often the usual calls ask for memory.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, ReadMode};

use crate::common::TempDir;
use crate::common::counted_memory::{allocations_of, kept_by};

/// More than any buffer may keep that is used again.
const LARGE: usize = 5 << 20;

/// What may stay after a call: buffers for short records.
const LITTLE: isize = 16 << 10;

fn open(directory: &TempDir, reads: ReadMode) -> Cask {
    let config = Config::new().durability(Durability::Os).read_mode(reads);
    Cask::open_with(directory.join("store"), &config).unwrap()
}

#[test]
fn nothing_large_is_kept_after_a_large_value() {
    for reads in [ReadMode::Map, ReadMode::Pread] {
        let directory = TempDir::new();
        let cask = open(&directory, reads);
        cask.put("small", "value").unwrap();
        cask.put("large", "").unwrap();
        assert_eq!(cask.list("").unwrap().len(), 2);
        let value = vec![7; LARGE];
        let mut batch = Batch::new();
        batch.put("large", &value).put("other", "value");
        let pair = || cask.get("large").unwrap();
        let calls: [(&str, &dyn Fn()); 16] = [
            ("put", &|| cask.put("large", &value).map(drop).unwrap()),
            ("get", &|| drop(black_box(pair()))),
            ("list", &|| assert!(cask.list("").unwrap().len() >= 2)),
            ("scan", &|| assert!(cask.scan("").unwrap().filter(Result::is_ok).count() >= 2)),
            ("visit", &|| cask.visit("", |_| ControlFlow::Continue(())).unwrap()),
            ("scan_by_index", &|| assert!(cask.scan_by_index().unwrap().filter(Result::is_ok).count() >= 2)),
            ("write of a batch", &|| assert!(cask.write(&batch).unwrap().last_index().is_some())),
            ("write_together", &|| drop(cask.write_together(std::slice::from_ref(&batch)).unwrap())),
            ("atomic_put", &|| drop(cask.atomic_put("large", &value, Some(&pair())).unwrap())),
            ("a swap that is refused", &|| drop(cask.atomic_put("large", &value, None).unwrap_err())),
            ("update", &|| drop(cask.update("large", |_| value.clone()).unwrap())),
            ("verify", &|| drop(cask.verify().unwrap())),
            ("backup", &|| assert!(cask.backup(directory.join("copy")).unwrap().keys >= 2)),
            ("compact_to", &|| assert!(cask.compact_to(directory.join("compact copy")).unwrap().keys >= 2)),
            ("compact", &|| assert!(cask.compact().unwrap().keys >= 2)),
            ("delete", &|| cask.delete("large").unwrap()),
        ];
        for (name, call) in calls {
            let kept = kept_by(call);
            assert!(kept <= LITTLE, "{name} ({reads:?}): {kept} bytes are kept");
        }
    }
}

#[test]
fn nothing_large_is_kept_after_a_long_key() {
    let directory = TempDir::new();
    let cask = open(&directory, ReadMode::Pread);
    let key = |n: usize| format!("{n:0>60000}");
    cask.put(key(0), "value").unwrap();
    assert_eq!(cask.list("").unwrap().len(), 1);
    for (name, call) in [
        ("put", &(|n| cask.put(key(n), "value").map(drop).unwrap()) as &dyn Fn(usize)),
        ("get", &|n| drop(cask.get(key(n)).unwrap())),
        ("list", &|n| assert_eq!(cask.list(key(n)).unwrap().len(), 1)),
        ("delete", &|n| cask.delete(key(n)).unwrap()),
    ] {
        // Entries of two indexes for each key, and a buffer or two with room for one.
        let kept = kept_by(|| (1..=40).for_each(call));
        assert!(kept <= 300_000, "{name}: {kept} bytes are kept after 40 keys of 60,000 bytes");
    }
}

/// The index takes 10 to 15 bytes for each key, and while it grows up to 24.
#[test]
fn nothing_but_the_index_is_kept_after_a_large_batch() {
    // A buffer for all of them is too large to be kept.
    const KEYS: usize = 150_000;
    let directory = TempDir::new();
    let cask = open(&directory, ReadMode::Map);
    cask.put("before", "value").unwrap();
    let mut batch = Batch::new();
    for n in 0..KEYS {
        batch.put(format!("a long key {n:0>20}"), [7; 8]);
    }
    let limit = 24 * KEYS as isize;
    let kept = kept_by(|| assert!(cask.write(&batch).unwrap().last_index().is_some()));
    assert!(kept <= limit, "a batch of {KEYS} keys: {kept} bytes are kept");
    drop(batch);
    // The sorted index.
    cask.list("no such key").unwrap();
    // The parts of a new index are not as large as those of the old one.
    let another_index = KEYS as isize;
    for (name, limit, call) in [
        ("list", LITTLE, &(|| assert_eq!(cask.list("").unwrap().len(), KEYS + 1)) as &dyn Fn()),
        ("scan", LITTLE, &|| assert_eq!(cask.scan("a long key").unwrap().count(), KEYS)),
        ("compact", another_index, &|| assert_eq!(cask.compact().unwrap().keys as usize, KEYS + 1)),
        ("delete_prefix", LITTLE, &|| assert_eq!(cask.delete_prefix("a long key").unwrap() as usize, KEYS)),
        ("put", LITTLE, &|| cask.put("after", "value").map(drop).unwrap()),
    ] {
        let kept = kept_by(call);
        assert!(kept <= limit, "{name}: {kept} bytes are kept");
    }
}

/// In the thread that makes the call. A key of up to 104 bytes with its bucket is not copied.
#[test]
fn a_usual_call_asks_for_memory_as_often_as_its_budget_says() {
    let directory = TempDir::new();
    let cask = open(&directory, ReadMode::Map);
    let durable = Cask::open(directory.join("durable")).unwrap();
    let mut batch = Batch::new();
    batch.put("a", [7; 64]).put("b", [7; 64]).delete("c");
    let mut buffer = Vec::new();
    for _ in 0..3 {
        // So that all buffers have their size.
        for handle in [&cask, &durable] {
            handle.write(&batch).unwrap();
            handle.put("a", [7; 64]).unwrap();
            handle.list("").unwrap();
            handle.get_into("a", &mut buffer).unwrap();
        }
    }
    let pair = cask.get("b").unwrap();
    let calls: [(&str, usize, &mut dyn FnMut()); 10] = [
        ("get_into a buffer", 0, &mut || assert!(cask.get_into("a", &mut buffer).unwrap() > 0)),
        ("get", 2, &mut || drop(cask.get("a").unwrap())),
        ("get of an absent key", 0, &mut || drop(cask.get("absent").unwrap_err())),
        ("exists", 0, &mut || assert!(cask.exists("a").unwrap())),
        ("list of two", 8, &mut || drop(cask.list("").unwrap())),
        ("put", 4, &mut || cask.put("a", [7; 64]).map(drop).unwrap()),
        ("durable put", 6, &mut || durable.put("a", [7; 64]).map(drop).unwrap()),
        // One of them is the list of operations without a record: "c" is absent.
        ("batch of three", 8, &mut || assert!(cask.write(&batch).unwrap().last_index().is_some())),
        ("delete of an absent key", 4, &mut || cask.delete("absent").unwrap()),
        ("swap that is refused", 4, &mut || {
            cask.atomic_put("a", [7; 64], Some(&pair)).unwrap_err();
        }),
    ];
    for (name, budget, call) in calls {
        let counted = [0; 3].map(|_| {
            // Not in a burst: a turn of it starts the thread that releases lingering locks.
            std::thread::sleep(Duration::from_millis(1));
            allocations_of(&mut *call)
        });
        assert_eq!(counted, [budget; 3], "{name}");
    }
}
