//! Feeds of the contract over a caskfile: what they do beside what the suite of the contract asks of every backend.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caskfile::disk::sim::SimDisk;
use caskfile::{
    Batch, Cask, Change, CompactionPolicy, Config, Durability, Error, Feed, KvPair, PutOptions, Store, TreeEvent,
};

use crate::common::TempDir;
use crate::common::patience::in_finite_time;

fn config() -> Config {
    Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual)
}

fn open(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.process()), "/store", &config()).unwrap()
}

fn value(pair: &KvPair) -> String {
    format!("{}={}", pair.key.escape_ascii(), pair.value.escape_ascii())
}

/// All states that are there, as text.
fn states(feed: &mut dyn Feed<Option<KvPair>>) -> String {
    let states = std::iter::from_fn(|| feed.try_next().unwrap());
    states.map(|state| state.as_ref().map_or("-".to_owned(), value)).collect::<Vec<_>>().join(" ")
}

/// All events that are there, as text: a list in round brackets, changes in square ones.
fn events(feed: &mut dyn Feed<TreeEvent>) -> String {
    let events = std::iter::from_fn(|| feed.try_next().unwrap());
    let change = |change: &Change| match change {
        Change::Put(pair) => value(pair),
        Change::Delete { key, .. } => format!("-{}", key.escape_ascii()),
    };
    events
        .map(|event| match event {
            TreeEvent::List(pairs) => format!("({})", pairs.iter().map(value).collect::<Vec<_>>().join(" ")),
            TreeEvent::Changes(changes) => format!("[{}]", changes.iter().map(change).collect::<Vec<_>>().join(" ")),
        })
        .collect()
}

/// Compacts so often that a feed which has read nothing since has lost its place.
fn lose_history(cask: &Cask) {
    for round in 0..3 {
        cask.put("key", format!("{round}")).unwrap();
        cask.put("keys", "").unwrap();
        cask.delete("keys").unwrap();
        cask.compact().unwrap();
    }
}

#[test]
fn where_history_was_lost_a_feed_sends_the_state_again() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "before").unwrap();
    let mut key = Store::watch(&cask, b"key").unwrap();
    let mut tree = cask.watch_tree(b"key").unwrap();
    let mut watch = cask.changes("", caskfile::WatchFrom::Now).unwrap();
    assert_eq!((states(&mut *key), events(&mut *tree)), ("key=before".into(), "(key=before)".into()));
    let stopper = (key.stopper(), tree.stopper());
    lose_history(&cask);
    // Otherwise this would prove nothing.
    assert!(matches!(watch.try_next(), Err(Error::Compacted { .. })));
    assert_eq!((states(&mut *key), events(&mut *tree)), ("key=2".into(), "(key=2)".into()));

    // They go on from there, and stop by the stoppers of before.
    cask.put("key", "after").unwrap();
    assert_eq!((states(&mut *key), events(&mut *tree)), ("key=after".into(), "[key=after]".into()));
    stopper.0.stop();
    stopper.1.stop();
    assert!(matches!(key.try_next(), Err(Error::Stopped)));
    assert!(matches!(tree.next_timeout(None), Err(Error::Stopped)));
}

/// A failed disk takes writes back that feeds have reported. They say what is there instead.
#[test]
fn where_writes_were_taken_back_a_feed_sends_the_state_again() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "before").unwrap();
    cask.put("key/gone", "").unwrap();
    cask.sync().unwrap();
    let (mut key, mut tree) = (Store::watch(&cask, b"key").unwrap(), cask.watch_tree(b"key").unwrap());
    let mut absent = Store::watch(&cask, b"key/new").unwrap();
    let mut watch = cask.changes("", caskfile::WatchFrom::Now).unwrap();
    let before = disk.contents("/store").unwrap();
    cask.put("key", "lost").unwrap();
    cask.delete("key/gone").unwrap();
    cask.put("key/new", "").unwrap();
    assert_eq!(states(&mut *key), "key=before key=lost");
    assert_eq!(events(&mut *tree), "(key=before key/gone=)[key=lost][-key/gone][key/new=]");
    assert_eq!((states(&mut *absent), watch.try_next().is_ok()), ("- key/new=".into(), true));
    assert!((0..2).all(|_| watch.try_next().is_ok_and(|unit| unit.is_some())));

    // As a failed write-back leaves the file, once the pages are dropped.
    let mut cut = disk.contents("/store").unwrap();
    let end = before.len().min(cut.len());
    cut[..end].copy_from_slice(&before[..end]);
    cut[end..].fill(0);
    disk.set_contents("/store", cut);
    let other = open(&disk);
    other.put("key/later", "longer than what was there").unwrap();
    // Otherwise this would prove nothing.
    assert!(matches!(watch.try_next(), Err(Error::Undone { .. })));
    assert_eq!(states(&mut *key), "key=before");
    assert_eq!(events(&mut *tree), "(key=before key/gone= key/later=longer than what was there)");
    assert_eq!(states(&mut *absent), "-");

    // They go on from there.
    other.put("key", "after").unwrap();
    assert_eq!((states(&mut *key), events(&mut *tree)), ("key=after".into(), "[key=after]".into()));
    assert_eq!(states(&mut *absent), "");
}

#[test]
fn history_that_was_lost_before_the_first_item_is_in_the_state() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    let (mut key, mut tree) = (Store::watch(&cask, b"key").unwrap(), cask.watch_tree(b"").unwrap());
    lose_history(&cask);
    // First what was there when the feeds began.
    assert_eq!((states(&mut *key), events(&mut *tree)), ("- key=2".into(), "()(key=2)".into()));
}

#[test]
fn a_batch_is_one_item() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    let (mut key, mut tree) = (Store::watch(&cask, b"key").unwrap(), cask.watch_tree(b"").unwrap());
    cask.write(Batch::new().put("key", "1").put("other", "").put("key", "2").delete("key").put("key", "3")).unwrap();
    cask.write(Batch::new().put("key", "4").delete("key")).unwrap();
    // It was absent and is: no item.
    cask.write(Batch::new().put("key", "5").delete("key")).unwrap();
    assert_eq!(Store::delete_tree(&cask, b"o").unwrap(), 1);
    cask.bucket("elsewhere").unwrap().put("key", "6").unwrap();
    assert_eq!(states(&mut *key), "- key=3 -");
    let expected = "()[key=1 other= key=2 -key key=3][key=4 -key][key=5 -key][-other]";
    assert_eq!(events(&mut *tree), expected);
}

#[test]
fn a_feed_of_a_key_lists_no_other_keys() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    (0..100).for_each(|number| _ = cask.put(format!("key/{number}"), "").unwrap());
    assert_eq!(states(&mut *Store::watch(&cask, b"key").unwrap()), "-");
    cask.put("key", "value").unwrap();
    assert_eq!(states(&mut *Store::watch(&cask, b"key").unwrap()), "key=value");
    assert_eq!(states(&mut *Store::watch(&cask, b"key/7").unwrap()), "key/7=");
    assert_eq!(states(&mut *Store::watch(&cask, b"key/").unwrap()), "-");
}

#[test]
fn without_time_to_wait_a_feed_finds_its_key_after_others() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    let mut feed = Store::watch(&cask, b"key").unwrap();
    assert_eq!(feed.next_timeout(Some(Duration::ZERO)).unwrap(), Some(None));
    (0..3).for_each(|number| _ = cask.put(format!("key/{number}"), "").unwrap());
    let last_index = cask.put("key", "value").unwrap();
    let state = feed.next_timeout(Some(Duration::ZERO)).unwrap();
    assert_eq!(state, Some(Some(KvPair::new("key", "value", last_index))));
    assert_eq!(feed.next_timeout(Some(Duration::ZERO)).unwrap(), None);
}

#[test]
fn the_end_of_a_pair_is_one_item() {
    let disk = SimDisk::new();
    let clock = disk.stop_clock();
    let cask = open(&disk);
    let (mut key, mut tree) = (Store::watch(&cask, b"key").unwrap(), cask.watch_tree(b"").unwrap());
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    cask.put_with("key", "1", &second).unwrap();
    assert_eq!((states(&mut *key), events(&mut *tree)), ("- key=1".into(), "()[key=1]".into()));
    clock.advance(Duration::from_secs(2));
    assert_eq!((states(&mut *key), events(&mut *tree)), ("-".into(), "[-key]".into()));

    // A pair that is over, and whose delete is not in the log yet, when the feed begins.
    cask.put_with("key", "2", &second).unwrap();
    assert_eq!(states(&mut *key), "key=2");
    clock.advance(Duration::from_secs(2));
    let reader = Cask::open_on(Arc::new(disk.process()), "/store", &config().read_only(true)).unwrap();
    let mut late = Store::watch(&reader, b"key").unwrap();
    assert_eq!(states(&mut *late), "-");
    cask.put("other", "").unwrap();
    assert_eq!((states(&mut *key), states(&mut *late)), ("-".into(), String::new()));
    cask.put("key", "3").unwrap();
    assert_eq!((states(&mut *key), states(&mut *late)), ("key=3".into(), "key=3".into()));
}

#[test]
fn a_wait_ends_in_time_though_other_keys_change() {
    in_finite_time(|| {
        let directory = TempDir::new();
        let cask = Cask::open_with(directory.join("store"), &config()).unwrap();
        let mut feed = Store::watch(&cask, b"key").unwrap();
        assert_eq!(feed.next_timeout(None).unwrap(), Some(None));
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    cask.put("key/other", "").unwrap();
                }
            });
            let waited = feed.next_timeout(Some(Duration::from_millis(20)));
            ended.store(true, Ordering::Relaxed);
            assert_eq!(waited.unwrap(), None);
        });
    });
}

#[test]
fn the_descriptor_stays_the_same_and_is_readable_for_a_change() {
    fn is_readable(descriptor: i32) -> bool {
        let mut asked = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: it writes to the one structure that it is given.
        unsafe { libc::poll(&mut asked, 1, 60_000) == 1 }
    }
    let directory = TempDir::new();
    let cask = Cask::open_with(directory.join("store"), &config()).unwrap();
    let mut feed = Store::watch(&cask, b"key").unwrap();
    let descriptor = feed.descriptor().unwrap().as_raw_fd();
    assert_eq!(states(&mut *feed), "-");
    cask.put("key", "1").unwrap();
    assert!(is_readable(descriptor));
    assert_eq!(states(&mut *feed), "key=1");
    lose_history(&cask);
    assert!(is_readable(descriptor));
    assert!(states(&mut *feed).ends_with("key=2"));
    assert_eq!(feed.descriptor().unwrap().as_raw_fd(), descriptor);
    cask.put("key", "3").unwrap();
    assert!(is_readable(descriptor));
    assert_eq!(states(&mut *feed), "key=3");
}
