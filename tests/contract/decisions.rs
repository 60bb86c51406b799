//! Calls that read a key and write what follows from it: conditions, updates, removal. What they return, and what happens if
//! another writer is faster.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, OptionalExt, Update};

fn store() -> (SimDisk, Cask) {
    let disk = SimDisk::new();
    let cask = another(&disk);
    (disk, cask)
}

fn another(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.process()), "/store", &Config::new().durability(Durability::Os)).unwrap()
}

#[test]
fn a_put_returns_the_index_that_a_read_shows() {
    let (disk, cask) = store();
    let others = another(&disk).bucket("b").unwrap();
    let mut before = 0;
    for round in 0..4 {
        let index = cask.put("key", format!("{round}")).unwrap();
        let other = others.put("key", "of another process").unwrap();
        assert_eq!([index, other], [cask.get("key").unwrap().last_index, others.get("key").unwrap().last_index]);
        assert!(before < index && index < other, "{before} {index} {other}");
        before = other;
        cask.compact().unwrap();
    }
}

#[test]
fn a_batch_tells_the_index_of_each_operation() {
    let (_, cask) = store();
    let first = cask.put("there", "1").unwrap();
    let mut batch = Batch::new();
    batch.delete("absent").expect_last_index("there", first).put("a", "1").delete("there").expect_absent("b");
    batch.put("b", "1").delete("there").put("a", "2").bucket("other").put("a", "3").delete("b");
    let applied = cask.write(&batch).unwrap();
    let (a, b) = (cask.get("a").unwrap().last_index, cask.get("b").unwrap().last_index);
    let last = cask.bucket("other").unwrap().get("a").unwrap().last_index;
    let expected = [None, None, Some(b - 2), Some(b - 1), None, Some(b), None, Some(a), Some(last), None];
    assert_eq!((0..10).map(|op| applied.last_index_of(op)).collect::<Vec<_>>(), expected);
    assert_eq!((a, last), (b + 1, b + 2));
    assert_eq!((applied.last_index(), applied.deleted()), (Some(last), 1));
    assert_eq!([10, 11, usize::MAX].map(|op| applied.last_index_of(op)), [None; 3]);

    let nothing = cask.write(Batch::new().delete("absent").expect_absent("absent")).unwrap();
    assert_eq!(
        (nothing.last_index(), nothing.last_index_of(0), nothing.last_index_of(1), nothing.deleted()),
        (None, None, None, 0)
    );
}

#[test]
fn each_batch_of_a_group_has_its_own_indexes() {
    let (_, cask) = store();
    let batches = [
        Batch::from([("a", "1"), ("b", "1")]),
        Batch::new().put_new("a", "2").take(),
        Batch::new().delete("c").delete("b").put("c", "1").take(),
    ];
    let applied = cask.write_together(&batches).unwrap();
    let (a, c) = (cask.get("a").unwrap().last_index, cask.get("c").unwrap().last_index);
    assert_eq!([0, 1].map(|op| applied[0].as_ref().unwrap().last_index_of(op)), [Some(a), Some(a + 1)]);
    assert!(matches!(&applied[1], Err(Error::BatchConflict { op: 0, cause }) if matches!(**cause, Error::KeyExists)));
    assert_eq!([0, 1, 2].map(|op| applied[2].as_ref().unwrap().last_index_of(op)), [None, Some(a + 2), Some(c)]);
    assert_eq!(c, a + 3);
}

#[test]
fn an_old_index_is_refused_and_changes_nothing() {
    let (disk, cask) = store();
    let old = cask.put_new("key", "1").unwrap();
    assert!(matches!(cask.put_new("key", "no"), Err(Error::KeyExists)));
    let new = another(&disk).put_if("key", "2", old).unwrap();
    for refused in [cask.put_if("key", "no", old), cask.delete_if("key", old).map(|()| 0)] {
        assert!(matches!(refused, Err(Error::KeyModified)), "{refused:?}");
    }
    assert_eq!(cask.get("key").unwrap(), KvPair::new("key", "2", new));
    cask.delete_if("key", new).unwrap();
    for refused in [cask.put_if("key", "no", new), cask.delete_if("key", new).map(|()| 0)] {
        assert!(matches!(refused, Err(Error::KeyNotFound)), "{refused:?}");
    }
    let again = cask.put_new("key", "2").unwrap();
    assert!(matches!(cask.put_if("key", "no", new), Err(Error::KeyModified)), "the key had that index once");
    cask.compact().unwrap();
    cask.put_if("key", "3", again).unwrap();
}

#[test]
fn a_condition_and_its_change_in_a_batch_are_about_the_same_key() {
    let (_, cask) = store();
    let [one, two] = ["one", "two"].map(|key| cask.put(key, "1").unwrap());
    let mut batch = Batch::new();
    batch.put_if("one", "2", one).delete_if("two", two).bucket("b").put_new("one", "3");
    assert_eq!(batch.len(), 3);
    let applied = cask.write(&batch).unwrap();
    assert_eq!(cask.get("one").unwrap().value, b"2");
    assert_eq!(cask.get("two").optional().unwrap(), None);
    let other = cask.bucket("b").unwrap().get("one").unwrap();
    assert_eq!(other.value, b"3");
    // Each call is one operation, a deletion has an index too.
    let indexes = [0, 1, 2, 3].map(|op| applied.last_index_of(op));
    let last = other.last_index;
    assert_eq!(indexes, [Some(last - 2), Some(last - 1), Some(last), None]);
    assert_eq!((cask.get("one").unwrap().last_index, applied.last_index()), (last - 2, Some(last)));
    match cask.write(&batch) {
        Err(Error::BatchConflict { op: 0, cause }) => assert!(matches!(*cause, Error::KeyModified)),
        other => panic!("{other:?}"),
    }
    match cask.write(Batch::new().put_new("three", "1").delete_if("two", two).put("four", "1")) {
        Err(Error::BatchConflict { op: 1, cause }) => assert!(matches!(*cause, Error::KeyNotFound)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_stops_at_the_error_of_its_closure() {
    #[derive(Debug)]
    enum Mine {
        Broken,
        #[allow(dead_code, reason = "shown if the test fails")]
        Store(Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Mine {
            Mine::Store(error)
        }
    }
    let (disk, cask) = store();
    for there in [false, true] {
        let before = disk.contents("/store").unwrap();
        let stopped = cask.try_update("key", |pair| {
            assert_eq!(pair.is_some(), there);
            Err(Mine::Broken)
        });
        assert!(matches!(stopped, Err(Mine::Broken)), "{stopped:?}");
        assert_eq!(disk.contents("/store").unwrap(), before);
        cask.put("key", "value").unwrap();
    }
    cask.close().unwrap();
    let closed = cask.try_update("key", |_| Err::<Update, _>(Mine::Broken));
    assert!(matches!(closed, Err(Mine::Store(Error::Closed))), "{closed:?}");
}

#[test]
fn an_update_puts_deletes_or_keeps() {
    let (disk, cask) = store();
    let then = |update: Update| cask.try_update("key", |_| Ok::<_, Error>(update.clone())).unwrap();
    let quiet = |update: Update| {
        let before = disk.contents("/store").unwrap();
        let left = then(update);
        assert_eq!(disk.contents("/store").unwrap(), before, "it wrote");
        left
    };
    assert_eq!(quiet(Update::Keep), None);
    assert_eq!(quiet(Update::Delete), None);
    let pair = then(Update::put("1")).unwrap();
    assert_eq!(pair, cask.get("key").unwrap());
    assert_eq!(quiet(Update::Keep), Some(pair));
    assert_eq!(then(Update::Delete), None);
    assert!(!cask.exists("key").unwrap());
}

#[test]
fn an_update_decides_again_when_another_writer_was_faster() {
    let (disk, cask) = store();
    let other = another(&disk);
    // What the other process does while the closure runs for the first time, and what the closure finds the second time.
    type Meanwhile = fn(&Cask);
    let changes: [(Meanwhile, Option<&[u8]>); 3] = [
        (|other| other.put("key", "theirs").map(drop).unwrap(), Some(b"theirs")),
        (|other| other.delete("key").unwrap(), None),
        (
            |other| {
                other.delete("key").unwrap();
                other.put("key", "new").unwrap();
            },
            Some(b"new"),
        ),
    ];
    for (meanwhile, found) in changes {
        for update in [Update::put("ours"), Update::Delete] {
            cask.put("key", "old").unwrap();
            let calls = Cell::new(0);
            let left = cask.try_update("key", |pair| {
                calls.set(calls.get() + 1);
                match calls.get() {
                    1 => meanwhile(&other),
                    _ => assert_eq!(pair.map(|pair| &pair.value[..]), found),
                }
                Ok::<_, Error>(update.clone())
            });
            assert_eq!(calls.get(), 2);
            assert_eq!(left.unwrap(), cask.get("key").optional().unwrap());
        }
    }
}

#[test]
fn of_many_that_insert_one_value_counts() {
    let (disk, _cask) = store();
    let made = AtomicUsize::new(0);
    let pairs: Vec<KvPair> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (disk, made) = (&disk, &made);
                scope.spawn(move || {
                    let cask = another(disk);
                    (0..20)
                        .map(|key| {
                            let mut calls = 0;
                            let pair = cask.get_or_insert_with(format!("{key}"), || {
                                calls += 1;
                                made.fetch_add(1, Ordering::Relaxed);
                                format!("by {number}")
                            });
                            assert!(calls <= 1);
                            pair.unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let cask = another(&disk);
    for pair in pairs {
        assert_eq!(pair, cask.get(&pair.key).unwrap());
    }
    assert!(made.load(Ordering::Relaxed) >= 20);
}

#[test]
fn an_insert_that_was_overtaken_returns_what_is_there() {
    let (disk, cask) = store();
    let other = another(&disk);
    let pair = cask.get_or_insert_with("key", || {
        other.put("key", "theirs").unwrap();
        "ours"
    });
    assert_eq!(pair.unwrap(), other.get("key").unwrap());
    assert_eq!(cask.get("key").unwrap().value, b"theirs");
}

/// What another process does between the read and the deletion of a removal.
#[test]
fn a_removal_that_was_overtaken_returns_what_it_has_removed() {
    type Meanwhile = fn(&Cask);
    let changes: [(Meanwhile, Option<&str>); 3] = [
        (|other| drop(other.remove("key").unwrap().expect("it is there")), None),
        (|other| other.put("key", "new").map(drop).unwrap(), Some("new")),
        (
            |other| {
                other.delete("key").unwrap();
                other.put("key", "again").unwrap();
            },
            Some("again"),
        ),
    ];
    for (meanwhile, left) in changes {
        let (disk, other) = store();
        let process = disk.process();
        let cask = Cask::open_on(Arc::new(process.clone()), "/store", &Config::new()).unwrap();
        cask.put("key", "old").unwrap();
        process.before(When::next().of(Verb::TryLock).by(&process), Repeat::Once, move |_| meanwhile(&other));
        let removed = cask.remove("key").unwrap();
        assert_eq!(removed.map(|pair| pair.value), left.map(|value| value.as_bytes().to_vec()));
        assert!(!cask.exists("key").unwrap());
    }
}

#[test]
fn what_is_removed_goes_to_one_caller() {
    const KEYS: usize = 60;
    let (disk, cask) = store();
    let batch: Batch = (0..KEYS).map(|key| (format!("{key}"), format!("value {key}"))).collect();
    cask.write(&batch).unwrap();
    let mut removed: Vec<KvPair> = thread::scope(|scope| {
        let take = || {
            let cask = another(&disk);
            (0..KEYS).filter_map(|key| cask.remove(format!("{key}")).unwrap()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    removed.sort_by_key(|pair| pair.last_index);
    assert_eq!(removed.len(), KEYS);
    for (key, pair) in removed.iter().enumerate() {
        assert_eq!((&pair.key, &pair.value), (&format!("{key}").into_bytes(), &format!("value {key}").into_bytes()));
    }
    assert!(cask.is_empty().unwrap());
}
