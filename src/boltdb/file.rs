//! [`BoltFile`]: an open file, its lock, its meta page, and its pages one by one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::BoltError;
use super::meta::{META_LEN, Meta, MetaFault, PAGE_SIZES};
use super::page::{PAGE_HEADER_LEN, Page, PageFault, PageHeader, PartOfPage};
use super::walk::{BoltPair, Contents, Walk};

/// How often a call looks whether the lock is free.
const LOOK_UP: Duration = Duration::from_millis(10);

/// A BoltDB file, open for reading and locked against writers.
///
/// Nothing is written to it. Dropping it gives the lock back.
///
/// ```
/// use caskfile::boltdb::{BoltError, BoltFile};
///
/// let file = BoltFile::open("tests/data/boltdb/small.db")?;
/// let contents = file.visit(|pair| {
///     println!("{}: {} = {}", pair.bucket.escape_ascii(), pair.key.escape_ascii(), pair.value.escape_ascii());
///     Ok::<(), BoltError>(())
/// })?;
/// assert_eq!((contents.buckets, contents.pairs), (2, 3));
/// # Ok::<(), BoltError>(())
/// ```
#[derive(Debug)]
pub struct BoltFile {
    file: File,
    path: PathBuf,
    meta: Meta,
}

impl BoltFile {
    /// Opens a file that no other process has open for writing.
    ///
    /// # Errors
    ///
    /// - [`BoltError::Locked`] if another process has it open for writing.
    /// - [`BoltError::NotBolt`], [`BoltError::Cut`], [`BoltError::Damaged`] if it is not a whole BoltDB file, as far as its meta pages
    ///   say. [`BoltFile::visit`] and [`BoltFile::check`] read the rest.
    /// - [`BoltError::Io`].
    ///
    /// ```
    /// use caskfile::boltdb::{BoltError, BoltFile};
    ///
    /// assert!(matches!(BoltFile::open("no/such/file"), Err(BoltError::Io { .. })));
    /// assert!(BoltFile::open("tests/data/boltdb/small.db").is_ok());
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<BoltFile, BoltError> {
        BoltFile::open_with(path, Some(Duration::ZERO))
    }

    /// Opens a file, and waits at most this long until no other process has it open for writing; `None` for ever.
    ///
    /// # Errors
    ///
    /// Those of [`BoltFile::open`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use caskfile::boltdb::BoltFile;
    ///
    /// let file = BoltFile::open_with("tests/data/boltdb/small.db", Some(Duration::from_secs(10)))?;
    /// # Ok::<(), caskfile::boltdb::BoltError>(())
    /// ```
    pub fn open_with(path: impl AsRef<Path>, timeout: Option<Duration>) -> Result<BoltFile, BoltError> {
        let path = path.as_ref();
        let failed = |operation| move |e| BoltError::io(operation, path, e);
        // A pipe would be waited for, and has no pages.
        let kind = std::fs::metadata(path).map_err(failed("open"))?;
        if !kind.is_file() {
            let reason = "it is not a regular file".to_owned();
            return Err(BoltError::NotBolt { path: path.to_owned(), reason });
        }
        let file = File::open(path).map_err(failed("open"))?;
        lock(&file, path, timeout)?;
        // Under the lock: a writer may have made it longer.
        let len = file.metadata().map_err(failed("ask for the length"))?.len();
        let meta = read_meta(&file, path)?;
        match meta.pages.checked_mul(meta.page_size) {
            Some(stated) if stated <= len => Ok(BoltFile { file, path: path.to_owned(), meta }),
            stated => Err(BoltError::Cut { path: path.to_owned(), len, stated: stated.unwrap_or(u64::MAX) }),
        }
    }

    /// Reads the whole file, and calls `each` for every pair: bucket by bucket, in the order of their names, and of the keys in them.
    /// The pairs of a bucket in a bucket come where the outer one has its name among its keys. Returns how much there was.
    ///
    /// # Errors
    ///
    /// - [`BoltError::Damaged`], also after some pairs, which were right then.
    /// - [`BoltError::Refused`] if two buckets would have one name, or a name is too long: see
    ///   [what becomes of buckets](super#what-becomes-of-buckets).
    /// - [`BoltError::Io`].
    /// - The errors of `each`, which may have a type of their own.
    ///
    /// See [`BoltFile`] for an example.
    ///
    /// ```
    /// use caskfile::boltdb::{BoltError, BoltFile};
    ///
    /// enum Sought {
    ///     Found(Vec<u8>),
    ///     Failed(BoltError),
    /// }
    ///
    /// impl From<BoltError> for Sought {
    ///     fn from(error: BoltError) -> Sought {
    ///         Sought::Failed(error)
    ///     }
    /// }
    ///
    /// let file = BoltFile::open("tests/data/boltdb/small.db")?;
    /// let sought = file.visit(|pair| match pair.key {
    ///     b"pear" => Err(Sought::Found(pair.value.to_vec())), // reads no further
    ///     _ => Ok(()),
    /// });
    /// assert!(matches!(sought, Err(Sought::Found(value)) if value == b"green"));
    /// # Ok::<(), BoltError>(())
    /// ```
    pub fn visit<E: From<BoltError>>(&self, each: impl FnMut(BoltPair<'_>) -> Result<(), E>) -> Result<Contents, E> {
        Walk::new(self, each).run()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The first page of the bucket of all buckets.
    pub(super) fn root(&self) -> u64 {
        self.meta.root
    }

    /// The number of the meta page that counts.
    pub(super) fn meta_page(&self) -> u64 {
        self.meta.transaction % 2
    }

    /// How many pages the file has.
    pub(super) fn pages(&self) -> u64 {
        self.meta.pages
    }

    pub(super) fn offset_of(&self, page: u64) -> u64 {
        page.saturating_mul(self.meta.page_size)
    }

    pub(super) fn damaged(&self, page: u64, at: usize, reason: impl Into<String>) -> BoltError {
        let offset = self.offset_of(page) + at as u64;
        BoltError::Damaged { path: self.path.clone(), page, offset, reason: reason.into() }
    }

    /// Reads the header of a page, and checks how many pages belong to it.
    pub(super) fn header(&self, page: u64) -> Result<PageHeader, BoltError> {
        let mut bytes = [0; PAGE_HEADER_LEN];
        self.read(&mut bytes, self.offset_of(page))?;
        let header = PageHeader::read(&bytes);
        if header.number != page {
            return Err(self.damaged(page, 0, format!("it says that it is page {}", header.number)));
        }
        let last = page.checked_add(header.overflow.into());
        if last.is_none_or(|last| last >= self.pages()) {
            let (overflow, pages) = (header.overflow, self.pages());
            return Err(self.damaged(page, 12, format!("{overflow} more pages are not in a file of {pages}")));
        }
        Ok(header)
    }

    /// Reads the elements of a page whose header was checked: 1 MiB at most.
    pub(super) fn elements(&self, header: &PageHeader) -> Result<PartOfPage, BoltError> {
        let len = (u64::from(header.overflow) + 1) * self.meta.page_size;
        let len = usize::try_from(len).map_err(|_| self.no_memory())?;
        let mut bytes = Vec::new();
        self.read_on(&mut bytes, header, header.elements_end().min(len))?;
        let part = PartOfPage::parse(bytes, len).map_err(|fault| self.fault(header, fault))?;
        // The Go libraries give a page as many more pages as its bytes need. Without this check, a few bytes would make a page of any size.
        let needed = part.end() as u64 / self.meta.page_size;
        if u64::from(header.overflow) > needed {
            let reason = format!("{} more pages belong to it, and it needs {needed}", header.overflow);
            return Err(self.damaged(header.number, 12, reason));
        }
        Ok(part)
    }

    /// Reads the rest of a page, with the pages that belong to it.
    pub(super) fn page(&self, header: &PageHeader, mut part: PartOfPage) -> Result<Page, BoltError> {
        let end = part.end();
        self.read_on(part.bytes(), header, end)?;
        part.whole().map_err(|fault| self.fault(header, fault))
    }

    fn fault(&self, header: &PageHeader, fault: PageFault) -> BoltError {
        self.damaged(header.number, fault.at, fault.reason)
    }

    /// There is not as much memory as the file asks for.
    pub(super) fn no_memory(&self) -> BoltError {
        BoltError::io("get memory for a page", &self.path, io::ErrorKind::OutOfMemory.into())
    }

    /// Continues the bytes of a page up to this length.
    fn read_on(&self, bytes: &mut Vec<u8>, header: &PageHeader, len: usize) -> Result<(), BoltError> {
        let read = bytes.len();
        bytes.try_reserve_exact(len - read).map_err(|_| self.no_memory())?;
        bytes.resize(len, 0);
        self.read(&mut bytes[read..], self.offset_of(header.number) + read as u64)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), BoltError> {
        self.file.read_exact_at(bytes, offset).map_err(|e| BoltError::io("read", &self.path, e))
    }
}

/// Takes the lock of readers. BoltDB locks the whole file with `flock`, as fs2 does.
fn lock(file: &File, path: &Path, timeout: Option<Duration>) -> Result<(), BoltError> {
    let began = Instant::now();
    loop {
        match fs2::FileExt::try_lock_shared(file) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() != fs2::lock_contended_error().raw_os_error() => {
                return Err(BoltError::io("lock", path, error));
            }
            Err(_) => {}
        }
        let waited = began.elapsed();
        match timeout.map(|timeout| timeout.saturating_sub(waited)) {
            Some(Duration::ZERO) => return Err(BoltError::Locked { path: path.to_owned(), waited }),
            left => std::thread::sleep(left.map_or(LOOK_UP, |left| left.min(LOOK_UP))),
        }
    }
}

/// Reads both meta pages. The newer whole one counts.
fn read_meta(file: &File, path: &Path) -> Result<Meta, BoltError> {
    let read = |offset: u64| -> Result<Result<Meta, MetaFault>, BoltError> {
        let mut bytes = [0; META_LEN];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Meta::read(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(MetaFault::Missing)),
            Err(error) => Err(BoltError::io("read", path, error)),
        }
    };
    let first = match read(0)? {
        Ok(first) => {
            let second = read(first.page_size)?.ok().filter(|second| second.page_size == first.page_size);
            return Ok(second.filter(|second| second.transaction > first.transaction).unwrap_or(first));
        }
        Err(fault) => fault,
    };
    let mut damage = first.is_damage().then_some(0);
    for size in PAGE_SIZES.map(|bits| 1 << bits) {
        match read(size)? {
            Ok(second) if second.page_size == size => return Ok(second),
            Err(fault) if fault.is_damage() => damage = damage.or(Some(size)),
            _ => {}
        }
    }
    match damage {
        // Page 1 begins where the second one was found.
        Some(offset) => {
            let reason = "neither of its meta pages has a checksum that holds".to_owned();
            Err(BoltError::Damaged { path: path.to_owned(), page: u64::from(offset > 0), offset, reason })
        }
        None => Err(BoltError::NotBolt { path: path.to_owned(), reason: first.to_string() }),
    }
}
