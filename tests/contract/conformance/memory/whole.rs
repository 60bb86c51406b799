//! [`Whole`]: the calls that a store need not have, over [`MemoryStore`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caskfile::{Change, Error, Feed, KvPair, Lock, LockOptions, PutOptions, Result, Stopper, Store, TreeEvent};

use super::{MemoryStore, Pairs, locks};

/// A [`MemoryStore`] with every call.
pub struct Whole(pub MemoryStore);

/// What a feed makes of a change; `None` if the change does not concern it.
type Make<T> = dyn Fn(&Change) -> Option<T> + Send;

/// A feed: the first item, and then what it makes of each change.
struct MemoryFeed<T> {
    /// Its own handle, which is closed with the other.
    store: MemoryStore,
    stopped: Arc<AtomicBool>,
    first: Option<T>,
    /// How many changes it has passed.
    passed: usize,
    item: Box<Make<T>>,
}

pub fn put_with(store: &MemoryStore, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
    let mut pairs = store.pairs_for(key)?;
    let ttl = options.get_ttl();
    if ttl == Some(Duration::ZERO) {
        return Err(Error::ZeroTtl);
    }
    let pair = pairs.set(key, value);
    if let Some(ttl) = ttl {
        pairs.ends.insert(key.to_vec(), Instant::now() + ttl);
    }
    Ok(pair)
}

pub fn delete_tree(store: &MemoryStore, prefix: &[u8]) -> Result<u64> {
    let mut pairs = store.pairs()?;
    let keys: Vec<Vec<u8>> = pairs.values.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    keys.iter().for_each(|key| pairs.remove(key));
    Ok(keys.len() as u64)
}

/// What a change leaves of the key.
pub fn state_of(change: &Change) -> Option<KvPair> {
    match change {
        Change::Put(pair) => Some(pair.clone()),
        Change::Delete { .. } => None,
    }
}

pub fn watch(store: &MemoryStore, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
    let (pairs, key) = (store.pairs_for(key)?, key.to_vec());
    let first = pairs.get(&key).ok();
    Ok(feed(store, &pairs, first, move |change| (change.key() == key).then(|| state_of(change))))
}

pub fn watch_tree(store: &MemoryStore, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
    let (pairs, prefix) = (store.pairs()?, prefix.to_vec());
    let listed = pairs.values.iter().filter(|(key, _)| key.starts_with(&prefix));
    let first = listed.map(|(key, (value, index))| KvPair::new(&key[..], &value[..], *index)).collect();
    Ok(feed(store, &pairs, TreeEvent::List(first), move |change| {
        change.key().starts_with(&prefix).then(|| TreeEvent::Changes(vec![change.clone()]))
    }))
}

fn feed<T: Send + 'static>(
    store: &MemoryStore,
    pairs: &Pairs,
    first: T,
    item: impl Fn(&Change) -> Option<T> + Send + 'static,
) -> Box<dyn Feed<T>> {
    let store = MemoryStore { memory: Arc::clone(&store.memory), closed: Arc::clone(&store.closed) };
    let (first, passed) = (Some(first), pairs.changes.len());
    Box::new(MemoryFeed { store, stopped: Arc::default(), first, passed, item: Box::new(item) })
}

impl<T: Send> Feed<T> for MemoryFeed<T> {
    fn try_next(&mut self) -> Result<Option<T>> {
        self.next_timeout(Some(Duration::ZERO))
    }

    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<T>> {
        let began = Instant::now();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let pairs = self.store.pairs()?;
            if let Some(first) = self.first.take() {
                return Ok(Some(first));
            }
            while let Some(change) = pairs.changes.get(self.passed) {
                self.passed += 1;
                if let Some(item) = (self.item)(change) {
                    return Ok(Some(item));
                }
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            // Pairs end without a notification, and a stopper does not take the lock.
            let most = left.unwrap_or(Duration::MAX).min(Duration::from_millis(5));
            let news = Arc::clone(&pairs.news);
            drop(news.wait_timeout(pairs, most));
        }
    }

    fn stopper(&self) -> Stopper {
        let stopped = Arc::clone(&self.stopped);
        Stopper::new(move || stopped.store(true, Ordering::Relaxed))
    }
}

impl Store for Whole {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Result<KvPair> {
        self.0.get(key)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        self.0.exists(key)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
        self.0.list(prefix)
    }

    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
        self.0.atomic_put(key, value, previous)
    }

    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
        self.0.atomic_delete(key, previous)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.delete(key)
    }

    fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
        put_with(&self.0, key, value, options)
    }

    fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
        delete_tree(&self.0, prefix)
    }

    fn watch(&self, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
        watch(&self.0, key)
    }

    fn watch_tree(&self, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
        watch_tree(&self.0, prefix)
    }

    fn new_lock(&self, key: &[u8], options: &LockOptions) -> Result<Box<dyn Lock>> {
        Ok(Box::new(locks::new_lock(&self.0, key, options)?))
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}
