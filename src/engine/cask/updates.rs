//! [`Update`], and the calls of a [`Cask`] that read a key and write what follows from it.

use super::Cask;
use crate::store::{KvPair, OptionalExt};
use crate::{Error, Result};

/// What the closure of [`Cask::try_update`] decides about a key.
///
/// ```
/// use caskfile::Update;
///
/// let keep_longer = |old: &[u8], new: &[u8]| if new.len() > old.len() { Update::put(new) } else { Update::Keep };
/// assert_eq!(keep_longer(b"blue", b"green"), Update::Put(b"green".to_vec()));
/// assert_eq!(keep_longer(b"blue", b"red"), Update::Keep);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// Sets this value.
    Put(Vec<u8>),
    /// Removes the key. Does nothing if it is absent.
    Delete,
    /// Leaves everything as it is, and writes nothing.
    Keep,
}

impl Update {
    /// Returns [`Update::Put`] with this value.
    ///
    /// Cost: a copy of a slice; a `Vec<u8>` or a `String` is moved.
    ///
    /// ```
    /// assert_eq!(caskfile::Update::put("blue"), caskfile::Update::Put(b"blue".to_vec()));
    /// ```
    pub fn put(value: impl Into<Vec<u8>>) -> Update {
        Update::Put(value.into())
    }
}

impl Cask {
    /// Replaces the value of a key by the result of `f`, and tries again while other writers change the key. Returns the new
    /// pair.
    ///
    /// `f` gets `None` if the key is absent. It may be called several times, and may call this store: no lock is held.
    /// [`Cask::try_update`] can also fail, remove the key, or leave it as it is. The new pair has no deadline, also if the old one had
    /// one.
    ///
    /// Cost: a read and a write for each try.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`] and [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-update-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let count = |previous: Option<&caskfile::KvPair>| {
    ///     let old: u64 = previous.map_or(0, |pair| String::from_utf8_lossy(&pair.value).parse().unwrap());
    ///     (old + 1).to_string()
    /// };
    /// cask.update("visits", count)?;
    /// assert_eq!(cask.update("visits", count)?.value, b"2");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn update<V, F>(&self, key: impl AsRef<[u8]>, mut f: F) -> Result<KvPair>
    where
        V: Into<Vec<u8>>,
        F: FnMut(Option<&KvPair>) -> V,
    {
        let key = key.as_ref();
        loop {
            let previous = self.get(key).optional()?;
            match self.swap(key, f(previous.as_ref()).into(), previous.as_ref()) {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
    }

    /// Does with a key what `f` decides, and tries again while other writers change the key. Returns the pair that the key has
    /// then, `None` if it is absent.
    ///
    /// `f` gets the present pair, or `None` if the key is absent, and returns an [`Update`]. An error of `f` ends the call,
    /// and nothing is written. `f` may be called several times, and may call this store: no lock is held.
    ///
    /// With [`Update::Keep`], the pair that `f` got is returned. As after any read, another writer may have changed it by
    /// then. The pair of [`Update::Put`] has no deadline, also if the old one had one.
    ///
    /// Cost: a read for each try, and a write unless `f` keeps the pair.
    ///
    /// # Errors
    ///
    /// - The error of `f`. It may have any type that an [`Error`] can be converted to.
    /// - Those of [`Cask::get`] and [`Cask::put`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-try-update-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// use caskfile::{Cask, KvPair, Update};
    ///
    /// /// Takes one ticket, and removes the key with the last one.
    /// fn take(cask: &Cask) -> Result<Option<KvPair>, Box<dyn std::error::Error>> {
    ///     cask.try_update("tickets", |pair| {
    ///         let Some(pair) = pair else { return Ok(Update::Keep) };
    ///         let left: u32 = std::str::from_utf8(&pair.value)?.parse()?;
    ///         Ok(if left > 1 { Update::put((left - 1).to_string()) } else { Update::Delete })
    ///     })
    /// }
    ///
    /// cask.put("tickets", "2")?;
    /// assert_eq!(take(&cask)?.map(|pair| pair.value), Some(b"1".to_vec()));
    /// assert_eq!(take(&cask)?, None);
    /// cask.put("tickets", "many")?;
    /// assert!(take(&cask).is_err());
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_update<E, F>(&self, key: impl AsRef<[u8]>, mut f: F) -> std::result::Result<Option<KvPair>, E>
    where
        E: From<Error>,
        F: FnMut(Option<&KvPair>) -> std::result::Result<Update, E>,
    {
        let key = key.as_ref();
        loop {
            let previous = self.get(key).optional()?;
            let updated = match (f(previous.as_ref())?, &previous) {
                (Update::Put(value), _) => self.swap(key, value, previous.as_ref()).map(Some),
                (Update::Delete, Some(pair)) => self.delete_if(key, pair.last_index).map(|()| None),
                (Update::Delete, None) | (Update::Keep, _) => Ok(previous),
            };
            match updated {
                Err(error) if error.is_conflict() => {}
                result => return Ok(result?),
            }
        }
    }

    /// Returns the pair of a key. If the key is absent, sets the result of `f` as its value first.
    ///
    /// Of several callers at the same time one sets the value, and all get the same pair. `f` is called once at most, also by
    /// callers whose value is not used then. It may call this store: no lock is held.
    ///
    /// Cost: a read, and a write if the key is absent.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`], and of [`Cask::put`] if the key is absent.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-get-or-insert-with-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// let first = cask.get_or_insert_with("installation", || format!("{:x}", std::process::id()))?;
    /// let second = cask.get_or_insert_with("installation", || unreachable!() as String)?;
    /// assert_eq!(first, second);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn get_or_insert_with<V, F>(&self, key: impl AsRef<[u8]>, f: F) -> Result<KvPair>
    where
        V: Into<Vec<u8>>,
        F: FnOnce() -> V,
    {
        let key = key.as_ref();
        let (mut make, mut value) = (Some(f), Vec::new());
        loop {
            if let Some(pair) = self.get(key).optional()? {
                return Ok(pair);
            }
            if let Some(f) = make.take() {
                value = f().into();
            }
            match self.put_new(key, &value) {
                Ok(last_index) => return Ok(KvPair { key: key.to_vec(), value, last_index }),
                Err(Error::KeyExists) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a key, and returns the pair that was there, `None` if the key is absent.
    ///
    /// Of several callers at the same time, one gets the pair. [`Cask::delete`] removes a key without reading it.
    ///
    /// Cost: a read, and a write if the key is in the store.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`] and [`Cask::put`], but for [`Error::KeyNotFound`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-remove-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("colour", "blue")?;
    /// assert_eq!(cask.remove("colour")?.map(|pair| pair.value), Some(b"blue".to_vec()));
    /// assert_eq!(cask.remove("colour")?, None);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<KvPair>> {
        let key = key.as_ref();
        loop {
            let Some(pair) = self.get(key).optional()? else { return Ok(None) };
            match self.delete_if(key, pair.last_index) {
                Ok(()) => return Ok(Some(pair)),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }
}
