//! [`Feed`] and [`TreeEvent`]: what a watch of the contract delivers.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Change, KvPair, Stopper};
use crate::{Error, Result};

/// What a store delivers as it changes: the states of a key ([`Store::watch`](crate::Store::watch)), or the changes of many
/// ([`Store::watch_tree`](crate::Store::watch_tree)).
///
/// The first item is the state of now. Everything that is written after that follows, in order, each write once and none left out; a
/// batch is one item. If a store can no longer say what was written, it sends the state of then in place of that, as it did at first.
/// So a program that takes every item as the documentation of its type says has the right state, and needs no second look at the
/// store. Items are not older than what a read of the same handle has returned before, once `try_next` has returned `None`.
///
/// A feed keeps the store open. [`Store::close`](crate::Store::close) ends it with [`Error::Closed`], and a [`Stopper`] with
/// [`Error::Stopped`], also while another thread waits in it.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-feed-{}", std::process::id()));
/// use caskfile::{Config, new_store};
///
/// let store = new_store("caskfile", &path, &Config::new())?;
/// let mut feed = store.watch(b"port")?;
/// assert_eq!(feed.try_next()?, Some(None)); // it is absent now
/// store.put(b"port", b"8080")?;
/// assert_eq!(feed.next_timeout(None)?, Some(Some(store.get(b"port")?)));
/// assert_eq!(feed.try_next()?, None); // nothing has changed since
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub trait Feed<T>: Send {
    /// Returns the next item, if there is one by now. Does not wait.
    ///
    /// # Errors
    ///
    /// - [`Error::Closed`] after the store was closed, [`Error::Stopped`] after the feed was.
    /// - Those of every read. The item that could not be read comes again.
    ///
    /// See [`Feed`] for an example.
    fn try_next(&mut self) -> Result<Option<T>>;

    /// Waits for the next item and returns it. `Ok(None)` if there was none for the whole time. With `None` as the time it waits for
    /// ever.
    ///
    /// # Errors
    ///
    /// Those of [`Feed::try_next`].
    ///
    /// See [`Feed`] for an example.
    fn next_timeout(&mut self, timeout: Option<Duration>) -> Result<Option<T>>;

    /// Returns a descriptor for `poll`, `epoll` and what is built on them. It becomes readable when [`Feed::try_next`] may have
    /// something to return. It may be readable without a reason. Call `try_next` until it returns `None` before waiting, the first time
    /// too. The descriptor is the same for the life of the feed.
    ///
    /// # Errors
    ///
    /// - [`Error::CallNotSupported`] if the backend has none, as by default.
    /// - [`Error::Io`] if the system has no descriptors left. A later call tries again.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-feed-descriptor-{}", std::process::id()));
    /// use std::os::fd::AsRawFd;
    ///
    /// use caskfile::{Config, new_store};
    ///
    /// let store = new_store("caskfile", &path, &Config::new())?;
    /// let mut feed = store.watch(b"port")?;
    /// let descriptor = feed.descriptor()?.as_raw_fd();
    /// // Give it to an event loop. When it says that the descriptor is readable, and once before that:
    /// while let Some(state) = feed.try_next()? {
    ///     println!("{state:?}");
    /// }
    /// # let _ = descriptor;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        Err(Error::CallNotSupported { call: "descriptor" })
    }

    /// Returns what ends this feed from another thread.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-feed-stopper-{}", std::process::id()));
    /// use caskfile::{Config, Error, new_store};
    ///
    /// let store = new_store("caskfile", &path, &Config::new())?;
    /// let mut feed = store.watch_tree(b"config/")?;
    /// let stopper = feed.stopper();
    /// std::thread::spawn(move || stopper.stop());
    /// let ended = loop {
    ///     match feed.next_timeout(None) {
    ///         Ok(event) => println!("{event:?}"),
    ///         Err(error) => break error,
    ///     }
    /// };
    /// assert!(matches!(ended, Error::Stopped));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    fn stopper(&self) -> Stopper;
}

/// Shows no contents. With it, `unwrap_err` on the result of [`Store::watch`](crate::Store::watch) compiles.
impl<T> fmt::Debug for dyn Feed<T> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Feed")
    }
}

/// An item of [`Store::watch_tree`](crate::Store::watch_tree).
///
/// There are no other kinds, and later versions add none: a program that handles both has the whole state.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use caskfile::{Change, TreeEvent};
///
/// /// Applies an event to a copy of the tree.
/// fn apply(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, event: TreeEvent) {
///     match event {
///         TreeEvent::List(pairs) => *state = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect(),
///         TreeEvent::Changes(changes) => {
///             for change in changes {
///                 match change {
///                     Change::Put(pair) => drop(state.insert(pair.key, pair.value)),
///                     Change::Delete { key, .. } => drop(state.remove(&key)),
///                 }
///             }
///         }
///     }
/// }
///
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-tree-event-{}", std::process::id()));
/// use caskfile::{Config, new_store};
///
/// let store = new_store("caskfile", &path, &Config::new())?;
/// store.put(b"config/port", b"8080")?;
/// let (mut feed, mut state) = (store.watch_tree(b"config/")?, BTreeMap::new());
/// store.put(b"config/host", b"localhost")?;
/// store.delete(b"config/port")?;
/// while let Some(event) = feed.try_next()? {
///     apply(&mut state, event);
/// }
/// assert_eq!(state, BTreeMap::from([(b"config/host".to_vec(), b"localhost".to_vec())]));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEvent {
    /// All pairs of the tree, in the order of their keys. What was learned before does not count any more: this is the first item of a
    /// feed, and comes again where the store can no longer say what was written.
    List(Vec<KvPair>),
    /// What one write has changed, in order. Of a batch, all of it that is in the tree.
    Changes(Vec<Change>),
}
