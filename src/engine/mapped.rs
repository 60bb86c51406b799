//! Zero-copy reads: [`Mapped`] and [`Slice`].

use std::ops::Deref;
use std::sync::Arc;

use super::Cask;
use crate::Result;
use crate::disk::Map;
use crate::format::{FullKey, RECORD_HEADER_LEN};
use crate::log::read::{Reader, Start};

/// A handle that lends values from the file's map: see [`Cask::mapped`].
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-mapped-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.put("key", "value")?;
/// // SAFETY: only this library changes the file.
/// let mapped = unsafe { cask.mapped() };
/// assert_eq!(mapped.get("key")?.len(), 5);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mapped {
    cask: Cask,
}

/// A value in the file's map.
///
/// It stays valid after later writes, after compaction and after the store is closed: it keeps its file mapped until the
/// last slice of that file is dropped. Cloning costs one atomic increment.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-slice-{}", std::process::id()));
/// # let cask = caskfile::Cask::open(&path)?;
/// cask.put("key", "old")?;
/// // SAFETY: only this library changes the file.
/// let old = unsafe { cask.mapped() }.get("key")?;
/// cask.put("key", "new")?;
/// cask.compact()?;
/// assert_eq!(&*old, b"old");
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
pub struct Slice {
    bytes: Bytes,
    last_index: u64,
}

// A slice only shows bytes. The map is a trait object, so the compiler cannot see this.
impl std::panic::UnwindSafe for Slice {}
impl std::panic::RefUnwindSafe for Slice {}

#[derive(Clone)]
enum Bytes {
    Mapped {
        map: Arc<Map>,
        offset: u64,
        len: usize,
    },
    /// If there is no map.
    Copied(Arc<[u8]>),
}

impl Mapped {
    pub(crate) fn new(cask: Cask) -> Mapped {
        Mapped { cask }
    }

    /// Returns the value of a key. Its checksum is verified here, once, unless
    /// [`Config::verify_on_read`](crate::Config::verify_on_read) is off.
    ///
    /// # Errors
    ///
    /// Those of [`Cask::get`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-mapped-get-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// // SAFETY: only this library changes the file.
    /// let mapped = unsafe { cask.mapped() };
    /// assert_eq!(&*mapped.get("key")?, b"value");
    /// assert!(mapped.get("other").is_err());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Slice> {
        let (key, verify) = (key.as_ref(), self.cask.engine.context.config.get_verify_on_read());
        self.cask.engine.reading.answer(|view| {
            let key = FullKey::new(&self.cask.bucket, key)?;
            let found = view.find_to_read(&key, &self.cask.engine.context)?;
            let position = found.ok_or(crate::Error::KeyNotFound)?;
            view.read(position, |reader, start| lend(reader, position, start, &key, verify))
        })
    }
}

/// Lends the value of the record at a position from the map; copies it if there is no map.
fn lend(reader: &Reader, position: u64, start: &Start, key: &[u8], verify: bool) -> Result<Slice> {
    let header = &start.header;
    let offset = position + RECORD_HEADER_LEN as u64 + u64::from(header.key_len);
    let len = header.value_len as usize;
    let map = reader.map.as_ref().filter(|map| offset + len as u64 <= map.len());
    let lent = map.and_then(|map| {
        // SAFETY: the caller of `Cask::mapped` promises that nothing but this library changes the file, and
        // this library writes to the bytes of a whole record only to cut it off, after another program has changed the file.
        unsafe { map.slice(offset, len) }.map(|bytes| (map, bytes))
    });
    match lent {
        Some((map, bytes)) => {
            if verify {
                reader.verify_value(position, header, key, bytes)?;
            }
            let before = header.kind.expiry_len();
            let bytes = Bytes::Mapped { map: Arc::clone(map), offset: offset + before as u64, len: len - before };
            Ok(Slice { bytes, last_index: header.seq })
        }
        None => {
            let mut value = Vec::new();
            let last_index = reader.value_into(start, key, &mut value, verify)?;
            Ok(Slice { bytes: Bytes::Copied(value.into()), last_index })
        }
    }
}

impl Slice {
    /// Returns the `last_index` of the pair.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-slice-index-{}", std::process::id()));
    /// # let cask = caskfile::Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// // SAFETY: only this library changes the file.
    /// let value = unsafe { cask.mapped() }.get("key")?;
    /// assert_eq!(value.last_index(), cask.get("key")?.last_index);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn last_index(&self) -> u64 {
        self.last_index
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            // SAFETY: as in `Mapped::get`, which has seen that the map lends this range; the map lives as long as
            // this slice.
            Bytes::Mapped { map, offset, len } => unsafe { map.slice(*offset, *len) }.unwrap_or_default(),
            Bytes::Copied(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slice").field("len", &self.len()).field("last_index", &self.last_index).finish()
    }
}
