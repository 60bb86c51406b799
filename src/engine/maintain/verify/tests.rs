//! Shows the comparison of memory and log every kind of wrong memory, planted in an open store. Each must be found, and named.

use std::path::Path;
use std::sync::Arc;

use crate::disk::sim::SimDisk;
use crate::engine::Engine;
use crate::engine::read::view::View;
use crate::engine::write::request::{Action, Request};
use crate::index::Entry;
use crate::{Config, Error};

/// More than one leaf of the sorted index holds, and two levels of branches.
const KEYS: usize = 200;

/// Half of the keys differ within the bytes that an entry of the sorted index holds, the others only after them.
fn full_key(number: usize) -> Vec<u8> {
    let bucket = if number % 5 == 0 { &b"\x06bucket"[..] } else { b"\0" };
    let start = if number % 2 == 0 { "" } else { "all of these begin with the same bytes: " };
    [bucket, start.as_bytes(), format!("key {number:03}").as_bytes()].concat()
}

fn commit(engine: &Engine, key: &[u8], action: Action<&[u8]>) {
    let mut request = Request::default();
    request.push(key, action);
    engine.commit(request).unwrap();
}

/// A store with keys that were put once, twice, and deleted, whose handle has both indexes.
fn store() -> (SimDisk, Engine) {
    let disk = SimDisk::new();
    let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &Config::new()).unwrap();
    for number in 0..KEYS {
        commit(&engine, &full_key(number), Action::Put(b"value"));
    }
    for number in (0..KEYS).step_by(3) {
        commit(&engine, &full_key(number), Action::Put(b"another value"));
    }
    for number in (0..KEYS).step_by(7) {
        commit(&engine, &full_key(number), Action::Delete);
    }
    engine.reading.scan(b"\0", b"").unwrap();
    assert!(engine.reading.shown().unwrap().index().sorted().is_some());
    (disk, engine)
}

/// A key that was put twice and is there.
const TWICE: usize = 3;
/// A key that was put once and is there.
const ONCE: usize = 4;
/// A key that was deleted.
const DELETED: usize = 14;

fn position(view: &View, number: usize) -> u64 {
    view.find(&full_key(number)).unwrap().unwrap()
}

/// The first record that this key had: they all lie one after the other at the start of the log.
fn first_position(view: &View, number: usize) -> u64 {
    let mut positions = Vec::new();
    let log = Arc::clone(&view.reader.log);
    let mut scanner = crate::log::scan::Scanner::from_start(&log).unwrap();
    scanner
        .walk(|run| {
            let of_key = run.entries.iter().filter(|entry| run.key(entry) == full_key(number));
            positions.extend(of_key.map(|entry| entry.offset));
            Ok(())
        })
        .unwrap();
    positions[0]
}

fn set(view: &mut View, number: usize, position: u64) {
    let hash = view.index().hash(&full_key(number));
    let old = view.find(&full_key(number)).unwrap();
    view.keys.index.plant_hash(|index| index.insert(hash, position, |at| Ok::<_, ()>(Some(at) == old)).unwrap());
}

fn remove(view: &mut View, number: usize) {
    let hash = view.index().hash(&full_key(number));
    let old = view.find(&full_key(number)).unwrap();
    view.keys.index.plant_hash(|index| index.remove(hash, |at| Ok::<_, ()>(Some(at) == old)).unwrap());
}

/// Changes the entries of the sorted index.
fn reorder(view: &mut View, change: impl FnOnce(&mut Vec<Entry>)) {
    let index = &mut view.keys.index;
    let mut entries: Vec<Entry> = Vec::new();
    index.sorted().unwrap().entries(0..index.len(), &view.reader, &mut entries).unwrap();
    change(&mut entries);
    index.plant_sorted(&entries);
}

type Plant = fn(&mut View);

/// What is planted, and what verification must say of it.
const PLANTED: &[(&str, Plant, &str)] = &[
    (
        "a key is missing, and counted",
        |view| {
            remove(view, ONCE);
            view.keys.index.plant_len(1)
        },
        "key 004\" to no record",
    ),
    ("a key is missing", |view| remove(view, ONCE), "key 004\" to no record, and the log to that at"),
    (
        "two keys have each other's records",
        |view| {
            let (one, other) = (position(view, ONCE), position(view, TWICE));
            set(view, ONCE, other);
            let hash = view.index().hash(&full_key(TWICE));
            view.keys.index.plant_hash(|index| index.insert(hash, one, |at| Ok::<_, ()>(at == other)).unwrap());
        },
        "to no record, and the log to that at",
    ),
    (
        "a key has the record from before",
        |view| {
            let old = first_position(view, TWICE);
            set(view, TWICE, old)
        },
        "where the log has no live record",
    ),
    (
        "a deleted key is there",
        |view| {
            let old = first_position(view, DELETED);
            set(view, DELETED, old)
        },
        "where the log has no live record",
    ),
    (
        "a position has no record",
        |view| {
            let at = position(view, ONCE);
            set(view, ONCE, at + 8)
        },
        "where the log has no live record",
    ),
    (
        "a position lies after the log",
        |view| {
            let end = view.tail.end;
            set(view, ONCE, end + 4096)
        },
        "where the log has no live record",
    ),
    (
        "a position is there twice",
        |view| {
            let (hash, at) = (view.index().hash(b"another key"), position(view, ONCE));
            view.keys.index.plant_hash(|index| index.insert(hash, at, |_| Ok::<_, ()>(false)).unwrap());
        },
        "twice",
    ),
    ("one key too many is counted", |view| view.keys.index.plant_len(1), "keys are counted in memory"),
    ("one key too few is counted", |view| view.keys.index.plant_len(-1), "keys are counted in memory"),
    ("too many live bytes", |view| view.keys.plant_live_bytes(8), "live bytes are counted in memory"),
    ("too few live bytes", |view| view.keys.plant_live_bytes(-8), "live bytes are counted in memory"),
    ("a bucket too many", |view| view.keys.plant_buckets().add(b"\x01bkey"), "buckets are counted in memory"),
    (
        "a bucket too few",
        |view| {
            (0..KEYS).step_by(5).for_each(|number| {
                if number % 7 > 0 {
                    view.keys.plant_buckets().remove(&full_key(number))
                }
            })
        },
        "buckets are counted in memory",
    ),
    ("a record too many", |view| view.tail.records += 1, "records are counted in memory"),
    ("a record too few", |view| view.tail.records -= 1, "records are counted in memory"),
    ("a last sequence number that is too low", |view| view.tail.previous_seq -= 1, "the last sequence numbers are"),
    ("a highest sequence number that is too low", |view| view.tail.highest_seq -= 1, "the last sequence numbers are"),
    ("a highest sequence number that is too high", |view| view.tail.highest_seq += 1, "the last sequence numbers are"),
    (
        "the sorted index lacks a key",
        |view| {
            reorder(view, |entries| {
                entries.remove(70);
            })
        },
        "from key number 70 on",
    ),
    (
        "the sorted index lacks the last key",
        |view| {
            reorder(view, |entries| {
                entries.pop();
            })
        },
        "is not in the order of the log from key number",
    ),
    (
        "the sorted index has a key twice",
        |view| reorder(view, |entries| entries.insert(30, entries[30])),
        "from key number 31 on",
    ),
    (
        "the sorted index has a key too many",
        |view| reorder(view, |entries| entries.push(Entry::new(b"\xff", 64))),
        "is not in the order of the log from key number",
    ),
    (
        "two keys of the sorted index are exchanged",
        |view| reorder(view, |entries| entries.swap(5, 6)),
        "from key number 5 on",
    ),
    (
        "the sorted index has an old record",
        |view| {
            let (now, old) = (position(view, TWICE), first_position(view, TWICE));
            reorder(view, |entries| {
                let entry = entries.iter_mut().find(|entry| entry.position() == now).unwrap();
                *entry = Entry::new(&full_key(TWICE), old);
            });
        },
        "is not in the order of the log from key number",
    ),
    (
        "an entry of the sorted index has another key's bytes",
        |view| {
            let at = position(view, ONCE);
            reorder(view, |entries| {
                let entry = entries.iter_mut().find(|entry| entry.position() == at).unwrap();
                *entry = Entry::new(b"\0key 004a", at);
            });
        },
        "is not in the order of the log from key number",
    ),
    ("the sorted index is empty", |view| reorder(view, Vec::clear), "from key number 0 on"),
    (
        "a branch of the sorted index leads to the wrong side",
        |view| view.keys.index.plant_separator(),
        "the sorted index in memory finds",
    ),
];

fn change(engine: &Engine, plant: impl FnOnce(&mut View)) {
    let ingest = engine.reading.ingest();
    let planted = engine.reading.change(&ingest, |view| {
        plant(view);
        Ok(())
    });
    planted.unwrap();
}

fn verdict(engine: &Engine) -> Option<String> {
    match engine.maintenance.verify() {
        Ok(report) => {
            assert!(report.is_sound());
            None
        }
        Err(Error::Other(error)) => Some(error.to_string()),
        Err(error) => panic!("the file is sound, and verification says {error}"),
    }
}

#[test]
fn verification_of_a_handle_names_every_wrong_index_in_memory() {
    let mut wrong = Vec::new();
    for (what, plant, says) in PLANTED {
        let (_disk, engine) = store();
        assert_eq!(verdict(&engine), None, "nothing is planted yet");
        change(&engine, *plant);
        match verdict(&engine) {
            Some(said) if said.contains(says) && said.starts_with("/store: ") => {}
            said => wrong.push(format!("{what}: must say \"{says}\", but says {said:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The comparison is not left out because the log grows: both sides catch up to the same end.
#[test]
fn verification_of_a_handle_compares_beside_another_writer() {
    let (disk, engine) = store();
    let other = Engine::open(Arc::new(disk.process()), Path::new("/store"), &Config::new()).unwrap();
    change(&engine, |view| remove(view, ONCE));
    commit(&other, b"\0a new key", Action::Put(b"value"));
    assert!(verdict(&engine).unwrap().contains("key 004\" to no record"));
    assert_eq!(verdict(&other), None);
}

/// A handle that has never listed has no sorted index, and that is no fault.
#[test]
fn verification_of_a_handle_takes_what_was_never_built_for_right() {
    let (disk, _engine) = store();
    let other = Engine::open(Arc::new(disk.process()), Path::new("/store"), &Config::new()).unwrap();
    assert!(other.reading.shown().unwrap().index().sorted().is_none());
    assert_eq!(verdict(&other), None);
}
