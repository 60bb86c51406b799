//! The contract: [`Store`], what its calls take and return, and [`OptionalExt`]. This module does not depend on the engine.

mod change;
mod feed;
mod held;
mod lock;
mod pair;
mod put_options;
mod stopper;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use change::Change;
pub use feed::{Feed, TreeEvent};
pub(crate) use held::Claim;
pub use held::Held;
pub use lock::{Lock, LockOptions};
pub use pair::KvPair;
pub(crate) use put_options::Expires;
pub use put_options::PutOptions;
pub use stopper::Stopper;

use crate::{Error, Result};

/// A key/value store, and what it promises, whatever its implementation is.
///
/// Keys and values are bytes; a key has at least one. The trait is object-safe, every method takes `&self`, and threads
/// share a store without a lock around it. The module `conformance` (feature `testing`) checks an implementation against
/// every promise made here.
///
/// `&S` is a store if `S` is, and so are `Arc<dyn Store>` and `Box<dyn Store>`: a type that adds something to a store, such
/// as counting or logging, can own any of them as its `S: Store`. `Arc<Cask>` is no store, since the trait's methods would
/// hide those of [`Cask`](crate::Cask). A `Cask` needs no `Arc` around it: a clone is cheap.
///
/// An implementation need not have `put_with`, `delete_tree`, `watch`, `watch_tree` and `new_lock`: by default they return
/// [`Error::CallNotSupported`], with whatever arguments and after `close` too. One that has a call keeps all that is promised of it.
///
/// [`downcast_ref`](#method.downcast_ref) leads from a `dyn Store` back to the type inside, with all that it has beside the
/// contract.
///
/// # Errors
///
/// Every method can return, beside the errors listed there:
///
/// - [`Error::Closed`] after [`close`](Store::close), whatever its arguments are.
/// - [`Error::KeyLength`] if the key is empty, or longer than the implementation allows. Nothing is written.
/// - An error of the implementation: see [`Error`] for those of this crate. Other implementations wrap theirs with
///   [`Error::other`].
///
/// # Example
///
/// ```
/// use caskfile::{Config, Error, Store, new_store};
///
/// fn rename(store: &dyn Store, from: &[u8], to: &[u8]) -> caskfile::Result<()> {
///     let old = store.get(from)?;
///     store.atomic_put(to, &old.value, None)?; // refuses to overwrite
///     store.atomic_delete(from, Some(&old)) // refuses if it was changed meanwhile
/// }
///
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-store-{}", std::process::id()));
/// let store = new_store("caskfile", &path, &Config::new())?;
/// store.put(b"draft", b"text")?;
/// rename(&*store, b"draft", b"final")?;
/// assert_eq!(store.get(b"final")?.value, b"text");
/// assert!(matches!(store.get(b"draft"), Err(Error::KeyNotFound)));
/// # store.close()?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
pub trait Store: Send + Sync {
    /// Sets the value of `key`, and replaces the old one if there is one.
    ///
    /// The same value again is a new write with a new `last_index`. When this returns, the write is durable as the store's
    /// [`Durability`](crate::Durability) says.
    ///
    /// Cost: one write, of key and value.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyLength`].
    /// - [`Error::ValueTooLong`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-put-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// store.put(b"colour", b"red")?;
    /// store.put(b"colour", b"blue")?;
    /// assert_eq!(store.get(b"colour")?.value, b"blue");
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Returns the pair of `key`.
    ///
    /// Cost: one lookup, and a copy of the value.
    ///
    /// # Errors
    ///
    /// - [`Error::KeyNotFound`] if the key is absent; [`optional`](OptionalExt::optional) turns that into `None`.
    /// - [`Error::KeyLength`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, Error, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-get-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// assert!(matches!(store.get(b"colour"), Err(Error::KeyNotFound)));
    /// store.put(b"colour", b"blue")?;
    /// assert_eq!(store.get(b"colour")?.value, b"blue");
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    fn get(&self, key: &[u8]) -> Result<KvPair>;

    /// Returns whether `key` is in the store.
    ///
    /// Cost: one lookup; no value is copied.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-exists-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// assert!(!store.exists(b"colour")?);
    /// store.put(b"colour", b"")?;
    /// assert!(store.exists(b"colour")?);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn exists(&self, key: &[u8]) -> Result<bool>;

    /// Returns every pair whose key starts with the bytes of `prefix`, in byte order of the keys, as they were at one
    /// moment.
    ///
    /// Returns an empty `Vec` if there is none. The empty prefix lists everything. A prefix is bytes, not a path: a key that
    /// equals it belongs to it, and so does a key that goes on in the middle of a word.
    ///
    /// Cost: a copy of all pairs, in memory at once.
    ///
    /// # Errors
    ///
    /// Those of every method.
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-list-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// for key in ["fruit/pear", "fruit/apple", "fruits", "tool/saw"] {
    ///     store.put(key.as_bytes(), b"")?;
    /// }
    /// let keys: Vec<_> = store.list(b"fruit")?.into_iter().map(|pair| pair.key).collect();
    /// assert_eq!(keys, [&b"fruit/apple"[..], b"fruit/pear", b"fruits"]);
    /// assert!(store.list(b"animal")?.is_empty());
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>>;

    /// Sets the value of `key` if it has not changed since `previous` was read, and returns the new pair.
    ///
    /// `None` creates the key and never overwrites. `Some` compares `last_index` only. When this returns, the write is
    /// durable as the store's [`Durability`](crate::Durability) says.
    ///
    /// Cost: one lookup, and one write of key and value.
    ///
    /// # Errors
    ///
    /// With each of these, nothing was written:
    ///
    /// - [`Error::KeyExists`] with `None`, if the key is in the store.
    /// - [`Error::KeyNotFound`] with `Some`, if the key is absent.
    /// - [`Error::KeyModified`] with `Some`, if the key has another `last_index`. A key that was deleted and created again
    ///   has another one too, also after the store was opened again.
    /// - [`Error::KeyLength`].
    /// - [`Error::ValueTooLong`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, Error, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-atomic-put-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let first = store.atomic_put(b"leader", b"anna", None)?;
    /// assert!(matches!(store.atomic_put(b"leader", b"ben", None), Err(Error::KeyExists)));
    ///
    /// let second = store.atomic_put(b"leader", b"ben", Some(&first))?;
    /// assert!(second.last_index > first.last_index);
    /// assert!(matches!(store.atomic_put(b"leader", b"carl", Some(&first)), Err(Error::KeyModified)));
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair>;

    /// Deletes `key` if it has not changed since `previous` was read.
    ///
    /// Only `last_index` is compared. When this returns, the deletion is durable as the store's
    /// [`Durability`](crate::Durability) says.
    ///
    /// Cost: one lookup, and one write of the key.
    ///
    /// # Errors
    ///
    /// With each of these, nothing was written:
    ///
    /// - [`Error::PreviousNotSpecified`] with `None`, whether the key is in the store or not.
    /// - [`Error::KeyNotFound`] if the key is absent.
    /// - [`Error::KeyModified`] if the key has another `last_index`.
    /// - [`Error::KeyLength`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, Error, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-atomic-delete-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let mine = store.atomic_put(b"lease", b"me", None)?;
    /// store.atomic_delete(b"lease", Some(&mine))?;
    /// assert!(matches!(store.atomic_delete(b"lease", Some(&mine)), Err(Error::KeyNotFound)));
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()>;

    /// Deletes `key`, whatever its value is. Returns `Ok` if the key is absent, and writes nothing then.
    ///
    /// When this returns, the deletion is durable as the store's [`Durability`](crate::Durability) says.
    ///
    /// Cost: one lookup, and one write of the key if it is in the store.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-delete-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// store.put(b"colour", b"blue")?;
    /// store.delete(b"colour")?;
    /// store.delete(b"colour")?; // absent now, which is no error
    /// assert!(!store.exists(b"colour")?);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Sets the value of `key` with options, such as a time to live, and returns the new pair.
    ///
    /// A pair with a time to live is there for that long at least. Some time later it is absent, for every call and every handle, and
    /// a watch sees its end as a delete. Any later write of the key decides again how long that pair lives: a plain
    /// [`put`](Store::put) makes it stay. With default options this is a `put`.
    ///
    /// Cost: that of [`put`](Store::put).
    ///
    /// # Errors
    ///
    /// With each of these, nothing was written:
    ///
    /// - [`Error::CallNotSupported`] if the implementation does not have this call.
    /// - [`Error::ZeroTtl`] if the time to live is zero.
    /// - [`Error::KeyLength`].
    /// - [`Error::ValueTooLong`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, PutOptions, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-store-put-with-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let minute = std::time::Duration::from_secs(60);
    /// let pair = store.put_with(b"session", b"e6c1", &PutOptions::new().ttl(minute))?;
    /// assert_eq!(store.get(b"session")?, pair);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
        let _ = (key, value, options);
        Err(Error::CallNotSupported { call: "put_with" })
    }

    /// Deletes every key that starts with the bytes of `prefix`, and returns how many there were.
    ///
    /// Returns 0 if there is none, and writes nothing then. The empty prefix deletes everything. As in [`list`](Store::list), a prefix
    /// is bytes, not a path. All keys go at one moment, unless there are more than the implementation writes at once: it says how many
    /// that is. When this returns, the deletions are durable as the store's [`Durability`](crate::Durability) says.
    ///
    /// Cost: one look at each of these keys, and one write of all of them.
    ///
    /// # Errors
    ///
    /// [`Error::CallNotSupported`] if the implementation does not have this call.
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-delete-tree-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// for key in ["fruit/pear", "fruit/apple", "tool/saw"] {
    ///     store.put(key.as_bytes(), b"")?;
    /// }
    /// assert_eq!(store.delete_tree(b"fruit/")?, 2);
    /// assert_eq!(store.delete_tree(b"fruit/")?, 0);
    /// assert!(store.exists(b"tool/saw")?);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
        let _ = prefix;
        Err(Error::CallNotSupported { call: "delete_tree" })
    }

    /// Returns a feed of the states of `key`: first the state of now, then the state after each write to it. `None` is an absent key.
    ///
    /// Every put and delete of the key counts, by every handle and process, in order. Of a batch, the last one counts. A key that is
    /// absent and stays so is no item. If the store can no longer say what was written, the feed sends the state of then. See [`Feed`]
    /// for how it waits and ends.
    ///
    /// Cost: a feed takes memory, and perhaps a descriptor, as long as it is there.
    ///
    /// # Errors
    ///
    /// - [`Error::CallNotSupported`] if the implementation does not have this call.
    /// - [`Error::KeyLength`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-store-watch-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// store.put(b"leader", b"anna")?;
    /// let mut feed = store.watch(b"leader")?;
    /// store.delete(b"leader")?;
    /// let mut values = Vec::new();
    /// while let Some(state) = feed.try_next()? {
    ///     values.push(state.map(|pair| pair.value));
    /// }
    /// assert_eq!(values, [Some(b"anna".to_vec()), None]);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn watch(&self, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
        let _ = key;
        Err(Error::CallNotSupported { call: "watch" })
    }

    /// Returns a feed of the keys that start with the bytes of `prefix`: first their list, then what each write has changed.
    ///
    /// Every put and delete of such a key counts, by every handle and process, in order, and a batch is one item. If the store can no
    /// longer say what was written, the feed sends the list of then. See [`TreeEvent`] for an example, and [`Feed`] for how it waits
    /// and ends.
    ///
    /// Cost: the first list is a copy of all pairs, as that of [`list`](Store::list). A feed takes memory, and perhaps a descriptor, as
    /// long as it is there.
    ///
    /// # Errors
    ///
    /// [`Error::CallNotSupported`] if the implementation does not have this call.
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-watch-tree-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// use caskfile::{Change, TreeEvent};
    ///
    /// let mut feed = store.watch_tree(b"job/")?;
    /// assert_eq!(feed.try_next()?, Some(TreeEvent::List(vec![])));
    /// store.put(b"job/7", b"waiting")?;
    /// assert_eq!(feed.try_next()?, Some(TreeEvent::Changes(vec![Change::Put(store.get(b"job/7")?)])));
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn watch_tree(&self, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
        let _ = prefix;
        Err(Error::CallNotSupported { call: "watch_tree" })
    }

    /// Returns a lock on a key, which is not taken yet. All that use the same key of the store share it: see [`Lock`].
    ///
    /// Plain writes do not respect the lock: a put or a delete of the key takes it away from its holder. What is at the key while the
    /// lock is free is replaced by the holder's value.
    ///
    /// Cost: none. The lock costs something once it is taken: a few writes now, and one for each renewal, three times per
    /// [time to live](LockOptions::ttl).
    ///
    /// # Errors
    ///
    /// - [`Error::CallNotSupported`] if the implementation does not have this call.
    /// - [`Error::KeyLength`].
    /// - [`Error::ValueTooLong`] if the [value](LockOptions::value) is too long.
    /// - [`Error::ZeroTtl`].
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, LockOptions, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-new-lock-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// let lock = store.new_lock(b"leader", &LockOptions::new().value("node-1"))?;
    /// if let Some(held) = lock.try_lock()? {
    ///     println!("leader, with the token {}", held.token());
    ///     lock.unlock()?;
    /// }
    /// # drop(lock);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn new_lock(&self, key: &[u8], options: &LockOptions) -> Result<Box<dyn Lock>> {
        let _ = (key, options);
        Err(Error::CallNotSupported { call: "new_lock" })
    }

    /// Closes the store: every later call on this handle, its clones and its buckets returns [`Error::Closed`].
    ///
    /// A second close returns `Ok`. Dropping the last handle closes the store too, but cannot return an error.
    ///
    /// Cost: writing and syncing what is left. Calls under way are not interrupted.
    ///
    /// # Errors
    ///
    /// Those of the implementation. The store is closed even then.
    ///
    /// # Example
    ///
    /// ```
    /// # use caskfile::{Config, Error, new_store};
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-close-{}", std::process::id()));
    /// # let store = new_store("caskfile", &path, &Config::new())?;
    /// store.close()?;
    /// store.close()?;
    /// assert!(matches!(store.get(b"colour"), Err(Error::Closed)));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    fn close(&self) -> Result<()>;

    /// Returns the store for [`downcast_ref`](#method.downcast_ref), which finds its type; `None` by default.
    ///
    /// An implementation whose users may need more than the contract returns `Some(self)`. One that wraps another store
    /// returns what that store returns, if it is safe to pass it by.
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use caskfile::{Cask, Config, KvPair, Result, Store, new_store};
    ///
    /// /// Counts the reads of any store.
    /// struct Counted<S> {
    ///     inner: S,
    ///     reads: AtomicU64,
    /// }
    ///
    /// impl<S: Store> Store for Counted<S> {
    ///     fn get(&self, key: &[u8]) -> Result<KvPair> {
    ///         self.reads.fetch_add(1, Ordering::Relaxed);
    ///         self.inner.get(key)
    ///     }
    ///
    ///     fn as_any(&self) -> Option<&dyn std::any::Any> {
    ///         self.inner.as_any()
    ///     }
    ///     // The other calls are passed on.
    /// #   fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
    /// #       self.inner.put(key, value)
    /// #   }
    /// #   fn exists(&self, key: &[u8]) -> Result<bool> {
    /// #       self.inner.exists(key)
    /// #   }
    /// #   fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
    /// #       self.inner.list(prefix)
    /// #   }
    /// #   fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
    /// #       self.inner.atomic_put(key, value, previous)
    /// #   }
    /// #   fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
    /// #       self.inner.atomic_delete(key, previous)
    /// #   }
    /// #   fn delete(&self, key: &[u8]) -> Result<()> {
    /// #       self.inner.delete(key)
    /// #   }
    /// #   fn close(&self) -> Result<()> {
    /// #       self.inner.close()
    /// #   }
    /// }
    ///
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-as-any-{}", std::process::id()));
    /// let store: Box<dyn Store> =
    ///     Box::new(Counted { inner: new_store("caskfile", &path, &Config::new())?, reads: AtomicU64::new(0) });
    /// store.put(b"colour", b"blue")?;
    /// let cask = store.downcast_ref::<Cask>().expect("the backend is caskfile");
    /// assert_eq!(cask.len()?, 1);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

impl dyn Store + '_ {
    /// Returns the store as a `T`, if it is one or wraps one that it [shows](Store::as_any); otherwise `None`.
    ///
    /// A program that opens its store with [`new_store`](crate::new_store) comes to scans, batches and backups by this.
    ///
    /// # Example
    ///
    /// ```
    /// use caskfile::{Cask, Config, Store, new_store};
    ///
    /// /// Backs the store up, if its backend can do that.
    /// fn back_up(store: &dyn Store, to: &std::path::Path) -> caskfile::Result<bool> {
    ///     let Some(cask) = store.downcast_ref::<Cask>() else { return Ok(false) };
    ///     cask.backup(to)?;
    ///     Ok(true)
    /// }
    ///
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-downcast-{}", std::process::id()));
    /// # let copy = path.with_extension("copy");
    /// let store = new_store("caskfile", &path, &Config::new())?;
    /// assert!(back_up(&*store, &copy)?);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # std::fs::remove_file(copy).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn downcast_ref<T: Store + 'static>(&self) -> Option<&T> {
        self.as_any()?.downcast_ref()
    }
}

/// Passes every call on to the store that a pointer leads to.
macro_rules! store_behind_a_pointer {
    ($([$($generics:tt)*] $pointer:ty),+ $(,)?) => {$(
        impl<$($generics)*> Store for $pointer {
            fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
                (**self).put(key, value)
            }

            fn get(&self, key: &[u8]) -> Result<KvPair> {
                (**self).get(key)
            }

            fn exists(&self, key: &[u8]) -> Result<bool> {
                (**self).exists(key)
            }

            fn list(&self, prefix: &[u8]) -> Result<Vec<KvPair>> {
                (**self).list(prefix)
            }

            fn atomic_put(&self, key: &[u8], value: &[u8], previous: Option<&KvPair>) -> Result<KvPair> {
                (**self).atomic_put(key, value, previous)
            }

            fn atomic_delete(&self, key: &[u8], previous: Option<&KvPair>) -> Result<()> {
                (**self).atomic_delete(key, previous)
            }

            fn delete(&self, key: &[u8]) -> Result<()> {
                (**self).delete(key)
            }

            fn put_with(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<KvPair> {
                (**self).put_with(key, value, options)
            }

            fn delete_tree(&self, prefix: &[u8]) -> Result<u64> {
                (**self).delete_tree(prefix)
            }

            fn watch(&self, key: &[u8]) -> Result<Box<dyn Feed<Option<KvPair>>>> {
                (**self).watch(key)
            }

            fn watch_tree(&self, prefix: &[u8]) -> Result<Box<dyn Feed<TreeEvent>>> {
                (**self).watch_tree(prefix)
            }

            fn new_lock(&self, key: &[u8], options: &LockOptions) -> Result<Box<dyn Lock>> {
                (**self).new_lock(key, options)
            }

            fn close(&self) -> Result<()> {
                (**self).close()
            }

            fn as_any(&self) -> Option<&dyn Any> {
                (**self).as_any()
            }
        }
    )+};
}

// No `Arc<S>`: with the trait in scope, `Arc<Cask>` would have these methods in place of `Cask`'s own.
store_behind_a_pointer!([S: Store + ?Sized] &S, ['a] Arc<dyn Store + 'a>, ['a] Box<dyn Store + 'a>);

/// Shows no contents. With it, `unwrap_err` and `derive(Debug)` around an `Arc<dyn Store>` compile.
impl fmt::Debug for dyn Store + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Store")
    }
}

/// Adds [`optional`](OptionalExt::optional) to results, for programs that treat an absent key as `None`.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-optional-{}", std::process::id()));
/// use caskfile::{Cask, OptionalExt};
///
/// let cask = Cask::open(&path)?;
/// let port = cask.get("port").optional()?.map_or(b"8080".to_vec(), |pair| pair.value);
/// assert_eq!(port, b"8080");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub trait OptionalExt<T> {
    /// Returns `Ok(None)` in place of [`Error::KeyNotFound`].
    ///
    /// # Errors
    ///
    /// Every other error, unchanged.
    ///
    /// # Example
    ///
    /// ```
    /// use caskfile::{Error, KvPair, OptionalExt, Result};
    ///
    /// let found: Result<KvPair> = Ok(KvPair::new("colour", "blue", 7));
    /// assert_eq!(found.optional()?.map(|pair| pair.value), Some(b"blue".to_vec()));
    ///
    /// let absent: Result<KvPair> = Err(Error::KeyNotFound);
    /// assert_eq!(absent.optional()?, None);
    ///
    /// let closed: Result<KvPair> = Err(Error::Closed);
    /// assert!(matches!(closed.optional(), Err(Error::Closed)));
    /// # Ok::<(), Error>(())
    /// ```
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExt<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(Error::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_trait_objects_are_stores() {
        fn is_a_store<S: Store + ?Sized>() {}
        is_a_store::<dyn Store>();
        is_a_store::<&dyn Store>();
        is_a_store::<&(dyn Store + Send + Sync)>();
        is_a_store::<&&dyn Store>();
        is_a_store::<Arc<dyn Store>>();
        is_a_store::<Box<dyn Store>>();
    }
}
