//! Promises about feeds of all keys with a prefix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::effort::{Effort, OnDrop, at_once};
use super::feeds::{ends_by_closing, ends_by_its_stopper, next, nothing_more};
use super::{Fixture, create, get, list, ok, put};
use crate::{Change, Error, Feed, KvPair, Store, TreeEvent};

/// The first item is what `list` returns, also if that is nothing.
pub fn a_tree_feed_begins_with_its_list(fixture: &dyn Fixture) {
    let store = fixture.open();
    for key in [&b"a"[..], b"a/b", b"a/c", b"a0", b"b", b"\xff", b"\xff\xff"] {
        put(&*store, key, b"value");
    }
    ok(store.delete(b"a/c"), "delete");
    for prefix in [&b""[..], b"a", b"a/", b"a/b", b"\xff", b"\xff\xff", b"nothing"] {
        let first = next(&mut *watch_tree(&*store, prefix));
        let list = TreeEvent::List(list(&*store, prefix));
        assert_eq!(first, list, "a tree feed of \"{}\" must begin with its list", prefix.escape_ascii());
    }
}

/// Each write is an item. A deletion is one too, with a `last_index` of its own, and an empty value is none.
pub fn a_tree_feed_reports_puts_and_deletions_in_order(fixture: &dyn Fixture) {
    let store = fixture.open();
    let kept = create(&*store, b"t/kept", b"value");
    let mut feed = watch_tree(&*store, b"t/");
    next(&mut *feed);
    let mut highest = kept.last_index;
    let mut expect = |change: Option<KvPair>, key: &[u8]| {
        let TreeEvent::Changes(changes) = next(&mut *feed) else {
            panic!("a tree feed must not list without a reason")
        };
        let [only] = &changes[..] else { panic!("one write of one key must be one change, but gave {changes:?}") };
        assert!(only.last_index() > highest, "changes must come in the order of their last_index");
        highest = only.last_index();
        match (&change, only) {
            (Some(pair), Change::Put(reported)) => assert_eq!(reported, pair, "a put must be reported as it was"),
            (None, Change::Delete { key: reported, .. }) => assert_eq!(reported, key, "a deletion must name its key"),
            (Some(_), _) => panic!("a put must be reported as a put, but was {only:?}"),
            (None, _) => panic!("a deletion must be reported as one, and not as {only:?}"),
        }
    };
    for (key, value) in [(&b"t/a"[..], &b"1"[..]), (b"t/b", b""), (b"t/a", b"2"), (b"t/a", b"2"), (b"t/", b"")] {
        put(&*store, key, value);
        expect(Some(get(&*store, key)), key);
    }
    ok(store.delete(b"t/b"), "delete");
    expect(None, b"t/b");
    ok(store.atomic_delete(b"t/kept", Some(&kept)), "atomic_delete");
    expect(None, b"t/kept");
    let new = create(&*store, b"t/b", b"");
    expect(Some(new), b"t/b");
    ok(store.delete(b"t/absent"), "delete");
    nothing_more(&mut *feed);
}

/// Keys that do not begin with the prefix are no part of the tree.
pub fn a_tree_feed_reports_keys_of_its_prefix_only(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut feed = watch_tree(&*store, b"tree/");
    next(&mut *feed);
    for other in [&b"tree"[..], b"tree0", b"trees/a", b"TREE/a", b"a/tree/a", b"tre", b"\xff"] {
        put(&*store, other, b"value");
        ok(store.delete(other), "delete");
    }
    nothing_more(&mut *feed);
    let pair = create(&*store, b"tree/leaf", b"value");
    let expected = TreeEvent::Changes(vec![Change::Put(pair)]);
    assert_eq!(next(&mut *feed), expected, "a tree feed must report the keys of its prefix and no others");
}

/// A feed that lists and then begins to listen loses what is written in between.
pub fn no_change_is_lost_between_the_list_and_the_feed(fixture: &dyn Fixture) {
    let store = fixture.open();
    let (effort, ended) = (Effort::new(20), AtomicBool::new(false));
    at_once(2, |thread| {
        if thread == 0 {
            let mut count = 0_u64;
            while !ended.load(Ordering::SeqCst) {
                count += 1;
                // One of these keys has each number.
                put(&*store, format!("t/{}", count % 4).as_bytes(), count.to_string().as_bytes());
            }
            return;
        }
        let _end = OnDrop(|| ended.store(true, Ordering::SeqCst));
        for _ in effort.rounds() {
            let mut feed = watch_tree(&*store, b"t/");
            let TreeEvent::List(pairs) = next(&mut *feed) else { panic!("a tree feed must begin with its list") };
            let mut last = pairs.iter().map(number).max().unwrap_or(0);
            for _ in 0..4 {
                let TreeEvent::Changes(changes) = next(&mut *feed) else {
                    panic!("a tree feed must not list without a reason")
                };
                for change in changes {
                    let Change::Put(pair) = change else { panic!("nothing is deleted") };
                    last += 1;
                    assert_eq!(number(&pair), last, "no change may be lost between the list and the feed");
                }
            }
            effort.meet();
        }
    });
}

/// Whatever is written, the list and all changes after it give what is there.
pub fn a_tree_feed_gives_what_list_returns(fixture: &dyn Fixture) {
    let store = fixture.open();
    let mut feed = watch_tree(&*store, b"");
    let ended = AtomicBool::new(false);
    let mut state = BTreeMap::new();
    at_once(2, |thread| {
        let _end = OnDrop(|| ended.store(true, Ordering::SeqCst));
        let mut random = 0x5eed + thread as u64;
        for call in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{}/{}", thread, (random >> 33) % 6);
            match (random >> 40) % 4 {
                0 => ok(store.delete(key.as_bytes()), "delete"),
                _ => put(&*store, key.as_bytes(), format!("{call}").as_bytes()),
            }
        }
    });
    let last = create(&*store, b"last", b"");
    while state.get(&b"last"[..]) != Some(&last) {
        match next(&mut *feed) {
            TreeEvent::List(pairs) => state = pairs.into_iter().map(|pair| (pair.key.clone(), pair)).collect(),
            TreeEvent::Changes(changes) => changes.into_iter().for_each(|change| match change {
                Change::Put(pair) => drop(state.insert(pair.key.clone(), pair)),
                Change::Delete { key, .. } => drop(state.remove(&key)),
            }),
        }
    }
    let state: Vec<KvPair> = state.into_values().collect();
    assert_eq!(state, list(&*store, b""), "the list and the changes after it must give what is there");
    nothing_more(&mut *feed);
}

/// As a feed of one key: by its stopper, and by closing. A closed store gives none.
pub fn a_tree_feed_ends_when_it_is_stopped_and_when_the_store_is_closed(fixture: &dyn Fixture) {
    let store = fixture.open();
    ends_by_its_stopper(watch_tree(&*store, b"t/"), watch_tree(&*store, b"t/"));
    ends_by_closing(&*store, watch_tree(&*store, b"t/"));
    assert_refused!(store.watch_tree(b"t/").map(drop), Error::Closed, "watch_tree after close");
}

/// A feed reports the writes of every handle, each in its place.
pub(super) fn across_handles(fixture: &dyn Fixture) {
    let (one, other) = (fixture.open(), fixture.open());
    let mut feed = watch_tree(&*one, b"");
    next(&mut *feed);
    for round in 0..20 {
        let handle = [&one, &other][round % 2];
        put(&**handle, format!("{round}").as_bytes(), b"value");
    }
    for round in 0..20 {
        let event = next(&mut *feed);
        let key = format!("{round}");
        let pair = get(&*one, key.as_bytes());
        assert_eq!(event, TreeEvent::Changes(vec![Change::Put(pair)]), "a feed must report what every handle writes");
    }
}

#[track_caller]
fn watch_tree(store: &dyn Store, prefix: &[u8]) -> Box<dyn Feed<TreeEvent>> {
    ok(store.watch_tree(prefix), "watch_tree")
}

fn number(pair: &KvPair) -> u64 {
    let text = std::str::from_utf8(&pair.value).expect("the values are numbers");
    text.parse().expect("the values are numbers")
}
