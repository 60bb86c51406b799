//! The contract: [`Store`], [`KvPair`] and [`OptionalExt`]. This module knows no engine.

use std::fmt;

use crate::{Error, Result};

/// A key, its value, and the index of the write that set it.
///
/// Anyone may construct one. A compare-and-swap looks at nothing but `last_index`, so a pair can be rebuilt from an
/// index that a program kept elsewhere.
///
/// ```
/// use caskfile::KvPair;
///
/// let pair = KvPair::new("colour", "blue", 7);
/// assert_eq!(pair, KvPair { key: b"colour".to_vec(), value: b"blue".to_vec(), last_index: 7 });
/// assert_eq!(format!("{pair:?}"), r#"KvPair { key: b"colour", value: b"blue", last_index: 7 }"#);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KvPair {
    /// The key, without its bucket.
    pub key: Vec<u8>,
    /// The value; it may be empty.
    pub value: Vec<u8>,
    /// The index of the write that set the value. It grows over the whole store, not per key, with gaps; one that
    /// anyone saw is never handed out again.
    pub last_index: u64,
}

impl KvPair {
    /// Puts a pair together from its parts.
    ///
    /// Cost: none for a `Vec<u8>` or a `String`, which move in; a copy for a slice.
    ///
    /// ```
    /// let previous = caskfile::KvPair::new("colour", "", 7); // enough for a compare-and-swap against index 7
    /// assert_eq!(previous.last_index, 7);
    /// ```
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, last_index: u64) -> KvPair {
        KvPair { key: key.into(), value: value.into(), last_index }
    }
}

/// Keys and values are mostly text, so bytes are shown as a byte string, and a long one is cut: a failed assertion about
/// a value of a megabyte should still fit on a screen.
impl fmt::Debug for KvPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPair")
            .field("key", &ByteString(&self.key))
            .field("value", &ByteString(&self.value))
            .field("last_index", &self.last_index)
            .finish()
    }
}

/// Bytes whose `Debug` is a byte-string literal of at most [`ByteString::SHOWN`] bytes.
struct ByteString<'a>(&'a [u8]);

impl ByteString<'_> {
    const SHOWN: usize = 64;
}

impl fmt::Debug for ByteString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(Self::SHOWN) {
            Some((shown, rest)) if !rest.is_empty() => {
                write!(f, "b\"{}\"..({} bytes)", shown.escape_ascii(), self.0.len())
            }
            _ => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

/// What a key/value store promises, whatever is behind it.
///
/// Keys and values are bytes; a key has at least one. The trait is object-safe, every method takes `&self`, and a store
/// is shared between threads as it is. The module `conformance` (feature `testing`) checks an implementation against
/// every promise made here.
///
/// There is an implementation for `&S` and none for `Arc<S>`: the latter would shadow the inherent methods of the type
/// inside. A function that takes `impl Store` gets `&*shared`.
///
/// # Errors
///
/// After [`close`](Store::close) every call is [`Error::Closed`], whatever its arguments. A key that is empty, or longer
/// than the implementation takes, is [`Error::KeyLength`], which names the limit, before anything is written. Beyond
/// these and those named at each method, a store reports what went wrong underneath: an implementation of one's own
/// wraps its errors with [`Error::other`].
///
/// # Example
///
/// ```
/// use caskfile::{Config, Error, Store, new_store};
///
/// fn rename(store: &dyn Store, from: &[u8], to: &[u8]) -> caskfile::Result<()> {
///     let old = store.get(from)?;
///     store.atomic_put(to, &old.value, None)?; // refuses to overwrite
///     store.atomic_delete(from, Some(&old)) // refuses if someone changed it meanwhile
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
    /// Sets the value of `key`, whatever was there.
    ///
    /// The same value again is a new write with a new `last_index`. When this returns, the write is as durable as the
    /// store was configured ([`Durability`](crate::Durability)).
    ///
    /// Cost: one write, of key and value.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`]; [`Error::ValueTooLong`].
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

    /// Returns the pair that `key` names.
    ///
    /// Cost: one lookup, and a copy of the value.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`] when absent ([`optional`](OptionalExt::optional) turns that into `None`);
    /// [`Error::KeyLength`].
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

    /// Tells whether `key` is there.
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
    /// Nothing found is an empty `Vec`. The empty prefix lists everything. A key that equals the prefix belongs to it,
    /// and so does one that goes on in the middle of a word: a prefix is bytes, not a path.
    ///
    /// Cost: a copy of all that is returned, held in memory at once.
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

    /// Sets the value of `key` if nobody changed it since `previous` was read, and returns the new pair.
    ///
    /// `None` creates the key and never overwrites. `Some` compares `last_index` and nothing else. When this returns,
    /// the write is as durable as the store was configured ([`Durability`](crate::Durability)).
    ///
    /// Cost: one lookup, and one write of key and value.
    ///
    /// # Errors
    ///
    /// With `None`, [`Error::KeyExists`] if the key is there. With `Some`, [`Error::KeyNotFound`] when absent, and
    /// [`Error::KeyModified`] if its `last_index` is another: after a delete and re-create, too, and after the store was
    /// opened anew. [`Error::KeyLength`]; [`Error::ValueTooLong`]. In every one of these cases nothing was written.
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

    /// Deletes `key` if nobody changed it since `previous` was read.
    ///
    /// Only `last_index` is compared. When this returns, the deletion is as durable as the store was configured
    /// ([`Durability`](crate::Durability)).
    ///
    /// Cost: one lookup, and one write of the key.
    ///
    /// # Errors
    ///
    /// [`Error::PreviousNotSpecified`] with `None`, be the key there or not; [`Error::KeyNotFound`] when absent;
    /// [`Error::KeyModified`] if its `last_index` is another; [`Error::KeyLength`]. In every one of these cases nothing
    /// was written.
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

    /// Deletes `key`, whatever it holds; deleting what is absent is `Ok` and writes nothing.
    ///
    /// When this returns, the deletion is as durable as the store was configured ([`Durability`](crate::Durability)).
    ///
    /// Cost: one lookup, and one write of the key if it is there.
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
    /// store.delete(b"colour")?; // absent by now, and fine
    /// assert!(!store.exists(b"colour")?);
    /// # store.close()?;
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Closes the store: every later call on this handle, its clones and its buckets is [`Error::Closed`].
    ///
    /// A second close is `Ok`. Dropping the last handle closes too, but has nobody to tell what went wrong.
    ///
    /// Cost: what the backend still has to write; calls under way are not interrupted.
    ///
    /// # Errors
    ///
    /// What went wrong underneath; the store is closed even so.
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
}

impl<S: Store + ?Sized> Store for &S {
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

    fn close(&self) -> Result<()> {
        (**self).close()
    }
}

/// Shows no contents. It is here so that `unwrap_err`, and `derive(Debug)` around an `Arc<dyn Store>`, compile.
impl fmt::Debug for dyn Store + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Store")
    }
}

/// [`optional`](OptionalExt::optional), for programs to which an absent key is no error.
pub trait OptionalExt<T> {
    /// Turns [`Error::KeyNotFound`] into `Ok(None)`, and leaves every other error as it is.
    ///
    /// Cost: none.
    ///
    /// # Errors
    ///
    /// Every error but [`Error::KeyNotFound`].
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
    fn debug_of_a_pair_shows_text_as_text_and_other_bytes_escaped() {
        let pair = KvPair::new("a\"b", [0, 0xff, b'\n'], 1);
        assert_eq!(format!("{pair:?}"), r#"KvPair { key: b"a\"b", value: b"\x00\xff\n", last_index: 1 }"#);
    }

    #[test]
    fn debug_of_a_pair_cuts_a_long_value_and_says_how_long_it_is() {
        let at_the_limit = format!("{:?}", KvPair::new("k", vec![b'x'; ByteString::SHOWN], 1));
        assert!(at_the_limit.contains(&format!("b\"{}\",", "x".repeat(ByteString::SHOWN))), "{at_the_limit}");

        let above_it = format!("{:?}", KvPair::new("k", vec![b'x'; ByteString::SHOWN + 1], 1));
        assert!(above_it.contains(&format!("b\"{}\"..(65 bytes)", "x".repeat(ByteString::SHOWN))), "{above_it}");
    }

    #[test]
    fn every_form_in_which_a_store_is_passed_around_is_a_store() {
        fn is_a_store<S: Store + ?Sized>() {}
        is_a_store::<dyn Store>();
        is_a_store::<&dyn Store>();
        is_a_store::<&(dyn Store + Send + Sync)>();
        is_a_store::<&&dyn Store>();
    }
}
