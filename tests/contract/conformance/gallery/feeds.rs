//! Backends with wrong feeds. Several are what watches of libkv's backends do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use caskfile::{Change, Error, Feed, KvPair, Result, Stopper, Store, TreeEvent};

use super::{Calls, Fault, Handle, House, KeyFeed, RIGHT, TreeFeed};
use crate::conformance::memory::{MemoryStore, whole};

/// What a feed returns.
type Item<T> = Result<Option<T>>;

/// A feed with a fault.
struct Wrong<T> {
    right: Box<dyn Feed<T>>,
    /// What it makes of an item, or of none, and of the error.
    change: Box<dyn FnMut(Item<T>) -> Item<T> + Send>,
    stopper: Option<Stopper>,
}

impl<T: Send> Feed<T> for Wrong<T> {
    fn try_next(&mut self) -> Result<Option<T>> {
        let item = self.right.try_next();
        (self.change)(item)
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<T>> {
        let item = self.right.next_timeout(timeout);
        (self.change)(item)
    }

    fn stopper(&self) -> Stopper {
        self.stopper.clone().unwrap_or_else(|| self.right.stopper())
    }
}

/// Changes what the feed gives.
fn wrong<T: Send + 'static>(
    right: Result<Box<dyn Feed<T>>>,
    change: impl FnMut(Result<Option<T>>) -> Result<Option<T>> + Send + 'static,
) -> Result<Box<dyn Feed<T>>> {
    Ok(Box::new(Wrong { right: right?, change: Box::new(change), stopper: None }))
}

/// Changes each item.
fn items<T: Send + 'static>(
    right: Result<Box<dyn Feed<T>>>,
    mut change: impl FnMut(T) -> T + Send + 'static,
) -> Result<Box<dyn Feed<T>>> {
    wrong(right, move |item| item.map(|item| item.map(&mut change)))
}

fn key_feed(handle: &Handle, key: &[u8]) -> Result<KeyFeed> {
    whole::watch(&handle.right, key)
}

fn tree_feed(handle: &Handle, prefix: &[u8]) -> Result<TreeFeed> {
    whole::watch_tree(&handle.right, prefix)
}

/// The store, for a feed that looks at it later.
fn store(handle: &Handle) -> MemoryStore {
    MemoryStore { memory: Arc::clone(&handle.right.memory), closed: Arc::clone(&handle.right.closed) }
}

/// The first item is from before, and what is written meanwhile is lost.
fn listens_late<T: Send + 'static>(watch: impl Fn() -> Result<Box<dyn Feed<T>>>) -> Result<Box<dyn Feed<T>>> {
    let first = watch()?.try_next()?;
    thread::sleep(Duration::from_micros(50));
    let mut right = watch()?;
    right.try_next()?;
    Ok(Box::new(Late { first, right }))
}

struct Late<T> {
    first: Option<T>,
    right: Box<dyn Feed<T>>,
}

impl<T: Send> Feed<T> for Late<T> {
    fn try_next(&mut self) -> Result<Option<T>> {
        self.next_timeout(Some(Duration::ZERO))
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<T>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.right.next_timeout(timeout),
        }
    }

    fn stopper(&self) -> Stopper {
        self.right.stopper()
    }
}

/// A change without its deletions.
fn as_puts(event: TreeEvent) -> TreeEvent {
    let put = |change| match change {
        Change::Delete { key, last_index } => Change::Put(KvPair::new(key, "", last_index)),
        put => put,
    };
    match event {
        TreeEvent::Changes(changes) => TreeEvent::Changes(changes.into_iter().map(put).collect()),
        list => list,
    }
}

fn stops_all(house: &House, right: &Stopper) -> Stopper {
    let (right, memory) = (right.clone(), Arc::clone(&house.memory));
    Stopper::new(move || {
        right.stop();
        memory.0.lock().unwrap().changes.push(Change::Delete { key: b"stopped".to_vec(), last_index: 0 });
    })
}

pub const FAULTS: &[Fault] = &[
    Fault {
        does: "a watch of an absent key begins with an empty pair",
        refused_by: "feeds::a_watch_begins_with_the_present_state",
        says: "a watch of \"gone\" must begin with what get returns",
        calls: Calls {
            watch: |handle, key| {
                let empty = KvPair::new(key, "", 0);
                items(key_feed(handle, key), move |state| state.or(Some(empty.clone())))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a watch begins with what was there first",
        refused_by: "feeds::a_watch_begins_with_the_present_state",
        says: "a watch of \"gone\" must begin with what get returns",
        calls: Calls {
            watch: |handle, key| {
                let changes = &handle.right.pairs_for(key)?.changes.clone();
                let mut first = changes.iter().find(|change| change.key() == key).and_then(whole::state_of);
                items(key_feed(handle, key), move |state| first.take().or(state))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a watch reports what is there by now",
        refused_by: "feeds::a_watch_reports_each_change_of_its_key_in_order",
        says: "a watch must report each change in order; item 0 is another",
        calls: Calls {
            watch: |handle, key| {
                let (store, key) = (store(handle), key.to_vec());
                items(key_feed(handle, &key), move |_| store.get(&key).ok())
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a watch leaves out the number",
        refused_by: "feeds::a_watch_reports_each_change_of_its_key_in_order",
        says: "a watch must report each change in order; item 1 is another",
        calls: Calls {
            watch: |handle, key| {
                items(key_feed(handle, key), |state| state.map(|pair| KvPair { last_index: 0, ..pair }))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a deletion is an empty value",
        refused_by: "feeds::a_deleted_key_is_absent_and_no_empty_value",
        says: "a deleted key must be absent and no pair with an empty value",
        calls: Calls {
            watch: |handle, key| {
                let mut last: Option<KvPair> = None;
                items(key_feed(handle, key), move |state| {
                    last = state.or(last.take().map(|pair| KvPair { value: Vec::new(), ..pair }));
                    last.clone()
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "an empty value is a deletion",
        refused_by: "feeds::a_deleted_key_is_absent_and_no_empty_value",
        says: "an empty value must be a pair and no deletion",
        calls: Calls {
            watch: |handle, key| items(key_feed(handle, key), |state| state.filter(|pair| !pair.value.is_empty())),
            ..RIGHT
        },
    },
    Fault {
        does: "a watch is of a prefix",
        refused_by: "feeds::a_watch_reports_no_other_key",
        says: "a watch must not begin with another key",
        calls: Calls {
            watch: |handle, key| {
                let list = handle.right.list(key)?;
                let tree = tree_feed(handle, key)?;
                Ok(Box::new(OfPrefix { tree, first: list.into_iter().next() }))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a watch reads, and then begins to listen",
        refused_by: "feeds::no_change_is_lost_between_the_first_state_and_the_watch",
        says: "no change may be lost between the first state and the watch",
        calls: Calls { watch: |handle, key| listens_late(|| key_feed(handle, key)), ..RIGHT },
    },
    Fault {
        does: "a timeout is the last state again",
        refused_by: "feeds::a_watch_reports_nothing_while_nothing_changes",
        says: "a feed must have no item without a change",
        calls: Calls {
            watch: |handle, key| {
                let mut last = None;
                wrong(key_feed(handle, key), move |item| {
                    let item = item?.or(last.clone());
                    last.clone_from(&item);
                    Ok(item)
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "no wait is for ever",
        refused_by: "feeds::a_write_ends_a_wait",
        says: "a wait must end with the change, and not before",
        calls: Calls { watch: |handle, key| Ok(Box::new(Short(key_feed(handle, key)?))), ..RIGHT },
    },
    Fault {
        does: "a stopped watch has no item",
        refused_by: "feeds::a_stopped_watch_ends_and_no_other",
        says: "a wait in a feed that was stopped must be Err(Error::Stopped), but gave Ok(None)",
        calls: Calls {
            watch: |handle, key| {
                wrong(key_feed(handle, key), |item| match item {
                    Err(Error::Stopped) => Ok(None),
                    item => item,
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a stopper wakes every watch",
        refused_by: "feeds::a_stopped_watch_ends_and_no_other",
        says: "a feed must have no item without a change",
        calls: Calls {
            watch: |handle, key| {
                let (right, seen) = (key_feed(handle, key)?, Arc::new(AtomicU64::new(0)));
                let stopper = Some(stops_all(&handle.house, &right.stopper()));
                let store = store(handle);
                let change = move |item: Result<Option<Option<KvPair>>>| {
                    let stops =
                        store.pairs()?.changes.iter().filter(|change| change.key() == b"stopped").count() as u64;
                    match item? {
                        None if seen.swap(stops, Ordering::Relaxed) < stops => Ok(Some(None)),
                        item => Ok(item),
                    }
                };
                Ok(Box::new(Wrong { right, change: Box::new(change), stopper }))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "closing stops the watches",
        refused_by: "feeds::close_ends_a_watch",
        says: "a wait in a feed of a closed store must be Err(Error::Closed), but gave Err(Stopped)",
        calls: Calls {
            watch: |handle, key| {
                wrong(key_feed(handle, key), |item| match item {
                    Err(Error::Closed) => Err(Error::Stopped),
                    item => item,
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a closed store gives watches",
        refused_by: "feeds::close_ends_a_watch",
        says: "watch after close must be Err(Error::Closed), but gave Ok",
        calls: Calls {
            watch: |handle, key| match key_feed(handle, key) {
                Err(Error::Closed) => whole::watch(&MemoryStore::open(&handle.house.memory), b"key"),
                feed => feed,
            },
            ..RIGHT
        },
    },
    Fault {
        does: "an empty key can be watched",
        refused_by: "feeds::watch_refuses_an_empty_key",
        says: "a watch of an empty key must be Err(Error::KeyLength { len: 0, .. }), but gave Ok",
        calls: Calls { watch: |handle, key| key_feed(handle, if key.is_empty() { b"key" } else { key }), ..RIGHT },
    },
    Fault {
        does: "a tree feed begins with all pairs",
        refused_by: "tree_feeds::a_tree_feed_begins_with_its_list",
        says: "a tree feed of \"a\" must begin with its list",
        calls: Calls { watch_tree: |handle, _| tree_feed(handle, b""), ..RIGHT },
    },
    Fault {
        does: "a tree feed begins without a list",
        refused_by: "tree_feeds::a_tree_feed_begins_with_its_list",
        says: "a tree feed of \"\" must begin with its list",
        calls: Calls {
            watch_tree: |handle, prefix| {
                items(tree_feed(handle, prefix), |event| match event {
                    TreeEvent::List(_) => TreeEvent::List(Vec::new()),
                    changes => changes,
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a tree feed reports deletions as empty values",
        refused_by: "tree_feeds::a_tree_feed_reports_puts_and_deletions_in_order",
        says: "a deletion must be reported as one",
        calls: Calls { watch_tree: |handle, prefix| items(tree_feed(handle, prefix), as_puts), ..RIGHT },
    },
    Fault {
        does: "a tree feed lists at each change",
        refused_by: "tree_feeds::a_tree_feed_reports_puts_and_deletions_in_order",
        says: "a tree feed must not list without a reason",
        calls: Calls {
            watch_tree: |handle, prefix| {
                let (store, prefix) = (store(handle), prefix.to_vec());
                items(tree_feed(handle, &prefix), move |_| TreeEvent::List(store.list(&prefix).unwrap_or_default()))
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a tree feed is of the whole store",
        refused_by: "tree_feeds::a_tree_feed_reports_keys_of_its_prefix_only",
        says: "a feed must have no item without a change",
        calls: Calls { watch_tree: |handle, _| tree_feed(handle, b""), ..RIGHT },
    },
    Fault {
        does: "a tree feed lists, and then begins to listen",
        refused_by: "tree_feeds::no_change_is_lost_between_the_list_and_the_feed",
        says: "no change may be lost between the list and the feed",
        calls: Calls { watch_tree: |handle, prefix| listens_late(|| tree_feed(handle, prefix)), ..RIGHT },
    },
    Fault {
        does: "a tree feed leaves out deletions",
        refused_by: "tree_feeds::a_tree_feed_gives_what_list_returns",
        says: "the list and the changes after it must give what is there",
        calls: Calls {
            watch_tree: |handle, prefix| {
                items(tree_feed(handle, prefix), |mut event| {
                    if let TreeEvent::Changes(changes) = &mut event {
                        changes.retain(|change| matches!(change, Change::Put(_)));
                    }
                    event
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a stopped tree feed has no item",
        refused_by: "tree_feeds::a_tree_feed_ends_when_it_is_stopped_and_when_the_store_is_closed",
        says: "a wait in a feed that was stopped must be Err(Error::Stopped), but gave Ok(None)",
        calls: Calls {
            watch_tree: |handle, prefix| {
                wrong(tree_feed(handle, prefix), |item| match item {
                    Err(Error::Stopped) => Ok(None),
                    item => item,
                })
            },
            ..RIGHT
        },
    },
    Fault {
        does: "a tree feed reports its own handle's writes",
        refused_by: "shared_feeds::a_tree_feed_reports_what_another_handle_writes",
        says: "a feed must report what every handle writes",
        calls: Calls {
            put: |handle, key, value| {
                handle.own.pairs.lock().unwrap().insert(key.to_vec(), KvPair::new(key, value, 0));
                if handle.own.count.load(Ordering::Relaxed) == 0 {
                    // Another handle than that of the feed: its writes are in the store, and in no feed.
                    let mut pairs = handle.right.pairs_for(key)?;
                    pairs.set(key, value);
                    pairs.changes.pop();
                    return Ok(());
                }
                handle.right.put(key, value)
            },
            watch_tree: |handle, prefix| {
                handle.own.count.store(1, Ordering::Relaxed);
                tree_feed(handle, prefix)
            },
            ..RIGHT
        },
    },
];

/// A watch of a prefix.
struct OfPrefix {
    tree: TreeFeed,
    first: Option<KvPair>,
}

impl Feed<Option<KvPair>> for OfPrefix {
    fn try_next(&mut self) -> Result<Option<Option<KvPair>>> {
        self.next_timeout(Some(Duration::ZERO))
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<Option<KvPair>>> {
        Ok(self.tree.next_timeout(timeout)?.map(|event| match event {
            TreeEvent::List(_) => self.first.take(),
            TreeEvent::Changes(changes) => changes.first().and_then(whole::state_of),
        }))
    }

    fn stopper(&self) -> Stopper {
        self.tree.stopper()
    }
}

/// A feed that waits a moment at most.
struct Short(KeyFeed);

impl Feed<Option<KvPair>> for Short {
    fn try_next(&mut self) -> Result<Option<Option<KvPair>>> {
        self.0.try_next()
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<Option<KvPair>>> {
        self.0.next_timeout(timeout.or(Some(Duration::from_millis(1))))
    }

    fn stopper(&self) -> Stopper {
        self.0.stopper()
    }
}
