//! The import: first a pass that checks everything, then one that writes.

use std::ops::ControlFlow;

use super::error::BoltError;
use super::file::BoltFile;
use super::walk::{BoltPair, Contents};
use crate::format::{MAX_VALUE_LEN, max_key_len};
use crate::progress::Progress;
use crate::{Batch, Cask};

/// The bytes of pairs in a batch. Larger batches are no faster.
const BATCH_BYTES: usize = 1 << 20;

/// What a pair takes in a batch beside its bytes, so that a batch of many small pairs is no larger.
const PAIR_BYTES: usize = 32;

/// What libkv writes before each value: a number of 8 bytes.
const LIBKV_INDEX_LEN: usize = 8;

/// Options of an import: see [`BoltFile::check`].
///
/// ```
/// use caskfile::boltdb::ImportOptions;
///
/// assert_ne!(ImportOptions::new().libkv(true), ImportOptions::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "options do nothing until a file is checked with them"]
pub struct ImportOptions {
    libkv: bool,
}

/// A BoltDB file that was read and found good, with the options to import it: see [`BoltFile::check`].
///
/// See the [module](super) for an example.
#[derive(Debug)]
pub struct Checked<'f> {
    file: &'f BoltFile,
    options: ImportOptions,
    contents: Contents,
}

impl ImportOptions {
    /// Returns the default options.
    ///
    /// ```
    /// use caskfile::boltdb::ImportOptions;
    ///
    /// assert_eq!(ImportOptions::new(), ImportOptions::default());
    /// ```
    pub fn new() -> ImportOptions {
        ImportOptions::default()
    }

    /// Takes the first 8 bytes off each value. libkv writes a pair's `last_index` there, which means nothing to caskfile: it counts in
    /// memory, and every process begins again. The default is `false`. A file of libkv that is imported without this has 8 bytes too
    /// many in each value; a file of another program that is imported with it lacks the first 8.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use caskfile::Cask;
    /// use caskfile::boltdb::{BoltFile, ImportOptions};
    ///
    /// # let path = std::env::temp_dir().join(format!("caskfile-doc-libkv-{}", std::process::id()));
    /// # let cask = Cask::open(&path)?;
    /// let file = BoltFile::open("tests/data/boltdb/libkv.db")?;
    /// file.check(&ImportOptions::new().libkv(true))?.import(&cask, |_| ControlFlow::Continue(()))?;
    /// assert_eq!(cask.bucket("libnetwork")?.list("docker/network/v1.0/network/")?.len(), 2);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn libkv(mut self, libkv: bool) -> ImportOptions {
        self.libkv = libkv;
        self
    }

    /// What is stored of a value. `None` if it has no index of libkv.
    fn stored<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        value.get(if self.libkv { LIBKV_INDEX_LEN } else { 0 }..)
    }

    /// What is stored of a pair's value, or why the pair cannot be stored.
    fn check<'v>(&self, file: &BoltFile, pair: BoltPair<'v>) -> Result<&'v [u8], BoltError> {
        let refused = |reason| {
            let (path, page, offset) = (file.path().to_owned(), pair.page, pair.offset);
            Err(BoltError::Refused { path, page, offset, reason })
        };
        let max = max_key_len(pair.bucket.len());
        if pair.key.is_empty() || pair.key.len() > max {
            return refused(format!("a key has 1 to {max} bytes, this one has {}", pair.key.len()));
        }
        let Some(value) = self.stored(pair.value) else {
            let len = pair.value.len();
            return refused(format!("a value has {len} bytes, and libkv's number alone would have {LIBKV_INDEX_LEN}"));
        };
        match value.len() {
            len if len > MAX_VALUE_LEN => {
                refused(format!("a value has at most {MAX_VALUE_LEN} bytes, this one has {len}"))
            }
            _ => Ok(value),
        }
    }
}

impl BoltFile {
    /// Reads the whole file, and checks that all of it can be imported. Writes nothing.
    ///
    /// # Errors
    ///
    /// - Those of [`BoltFile::visit`].
    /// - [`BoltError::Refused`] if a key or a value is over a limit of caskfile, or, with [`ImportOptions::libkv`], if a value is too
    ///   short.
    ///
    /// ```
    /// use caskfile::boltdb::{BoltError, BoltFile, ImportOptions};
    ///
    /// let file = BoltFile::open("tests/data/boltdb/small.db")?;
    /// assert_eq!(file.check(&ImportOptions::new())?.contents().pairs, 3);
    /// // It is not libkv's: the first value has 3 bytes.
    /// assert!(matches!(file.check(&ImportOptions::new().libkv(true)), Err(BoltError::Refused { .. })));
    /// # Ok::<(), BoltError>(())
    /// ```
    pub fn check(&self, options: &ImportOptions) -> Result<Checked<'_>, BoltError> {
        let mut contents = self.visit(|pair| options.check(self, pair).map(|_| ()))?;
        if options.libkv {
            contents.bytes -= LIBKV_INDEX_LEN as u64 * contents.pairs;
        }
        Ok(Checked { file: self, options: options.clone(), contents })
    }
}

impl Checked<'_> {
    /// Returns how much there is to import.
    ///
    /// ```
    /// use caskfile::boltdb::{BoltFile, ImportOptions};
    ///
    /// let file = BoltFile::open("tests/data/boltdb/small.db")?;
    /// assert_eq!(file.check(&ImportOptions::new())?.contents().buckets, 2);
    /// # Ok::<(), caskfile::boltdb::BoltError>(())
    /// ```
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Puts all pairs into the store, each into the bucket of its name, whatever bucket the handle shows. Keys that are there get new
    /// values, and other keys stay. Returns how much was written.
    ///
    /// The pairs are written in batches of a mebibyte, with the [durability](crate::Durability) of the handle. `progress` is called
    /// after each, with the bytes of keys and values, and may cancel the import. Reads and writes of others go on meanwhile.
    ///
    /// # Errors
    ///
    /// - [`BoltError::Store`] if the store fails.
    /// - [`BoltError::Cancelled`] if `progress` breaks.
    /// - Those of [`BoltFile::check`], if the file was changed by a program that does not ask for its lock.
    ///
    /// With each of these some pairs may be in the store. The same import again writes them again.
    ///
    /// See the [module](super) for an example.
    pub fn import(
        &self,
        cask: &Cask,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Contents, BoltError> {
        let mut writing = Writing { cask, batch: Batch::new(), bucket: Vec::new(), bytes: 0, written: 0 };
        let (mut pairs, mut done, total) = (0, 0, self.contents.bytes);
        let mut write = |writing: &mut Writing<'_>, pairs, done| {
            writing.write(pairs)?;
            match progress(Progress { done, total: total.max(done) }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => {
                    Err(BoltError::Cancelled { path: self.file.path().to_owned(), written: pairs })
                }
            }
        };
        let mut contents = self.file.visit(|pair| {
            // Once more: a program that does not ask for the file's lock may have changed it.
            let value = self.options.check(self.file, pair)?;
            if !writing.has_room(pair.key.len() + value.len()) {
                write(&mut writing, pairs, done)?;
            }
            writing.put(pair.bucket, pair.key, value);
            (pairs, done) = (pairs + 1, done + (pair.key.len() + value.len()) as u64);
            Ok::<(), BoltError>(())
        })?;
        write(&mut writing, pairs, done)?;
        contents.bytes = done;
        Ok(contents)
    }
}

/// The batch that is being filled.
struct Writing<'c> {
    cask: &'c Cask,
    batch: Batch,
    /// The bucket of the batch's next puts. Empty at its beginning: no pair of a BoltDB file has a bucket without a name.
    bucket: Vec<u8>,
    bytes: usize,
    /// How many pairs were written.
    written: u64,
}

impl Writing<'_> {
    /// Whether a pair with this many bytes goes into the batch. A large one goes into a batch of its own.
    fn has_room(&self, len: usize) -> bool {
        self.batch.is_empty() || self.bytes + len + PAIR_BYTES <= BATCH_BYTES
    }

    fn put(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) {
        if self.bucket != bucket {
            self.batch.bucket(bucket);
            self.bucket = bucket.to_vec();
        }
        self.batch.put(key, value);
        self.bytes += key.len() + value.len() + PAIR_BYTES;
    }

    /// Writes the batch, after which this many pairs are in the store.
    fn write(&mut self, pairs: u64) -> Result<(), BoltError> {
        if !self.batch.is_empty() {
            let written = self.written;
            self.cask.write(&self.batch).map_err(|cause| BoltError::Store { written, cause })?;
        }
        *self = Writing { cask: self.cask, batch: Batch::new(), bucket: Vec::new(), bytes: 0, written: pairs };
        Ok(())
    }
}
