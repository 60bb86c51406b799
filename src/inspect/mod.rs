//! What each byte of a file is: for debugging and studying a store, and for tools that show it.
//!
//! [`Inspection::open`] reads a file in any state: whole, torn, corrupt, of a later version, without its header, or while
//! another process writes to it. [`Inspection::pieces`] goes through it from the first byte to the last: each byte belongs
//! to one [`Piece`], and each piece to one [`Class`]. Nothing is changed and no lock is taken.
//!
//! Records and headers have the field names of `docs/FORMAT.md`: a record's `seq` is the `last_index` of a pair.
//! [`verify()`] uses the same walk, so both find the same damage.
//!
//! ```
//! # let path = std::env::temp_dir().join(format!("caskfile-inspect-{}", std::process::id()));
//! # let cask = caskfile::Cask::open(&path)?;
//! # cask.put("key", "old")?;
//! # cask.put("key", "new")?;
//! # cask.close()?;
//! use caskfile::inspect::{Class, Inspection};
//!
//! let inspection = Inspection::open(&path)?;
//! let mut dead_bytes = 0;
//! for piece in inspection.pieces() {
//!     let piece = piece?;
//!     if let (Class::Dead, Some(record)) = (piece.class, &piece.record) {
//!         assert_eq!(record.bucket_and_key(), Some((&b""[..], &b"key"[..])));
//!         dead_bytes += piece.end - piece.start;
//!     }
//! }
//! assert_eq!(dead_bytes, 24 + 1 + 3 + 3);
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), caskfile::Error>(())
//! ```

mod compare;
mod layout;
mod piece;
mod pieces;
mod salvage;
pub(crate) mod source;
pub(crate) mod survey;
mod verify;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::format::Damage;
use crate::format::{END_MARK_LEN, FILE_HEADER_LEN, ROOTS_START};
use crate::log::LogFile;
use crate::log::scan::{Reason, Stop};
use crate::log::search::search;
use crate::report::{Loss, Report};
use crate::{Error, Result};
use layout::{Is, Layout, Region};
use source::Source;
use survey::{Scope, Survey};
use verify::damaged;

pub use piece::{Class, Field, Piece, Record, Slot};
pub use pieces::Pieces;
#[cfg(any(test, feature = "testing"))]
pub use salvage::salvage_on;
pub use salvage::{salvage, salvage_unfinished, salvage_with};
pub(crate) use verify::judged;
pub use verify::verify;
#[cfg(any(test, feature = "testing"))]
pub use verify::verify_on;

/// A file whose bytes are shown piece by piece.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-inspection-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::Inspection;
///
/// let inspection = Inspection::open(&path)?;
/// let bytes: u64 = inspection.pieces().map(|piece| piece.map(|piece| piece.end - piece.start)).sum::<Result<_, _>>()?;
/// assert_eq!(bytes, inspection.file_len());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub struct Inspection {
    disk: Arc<dyn Disk>,
    survey: Survey,
    header_damage: Option<Damage>,
    /// Why the bytes after the survey's end are not read.
    refusal: Option<Error>,
    regions: Vec<Region>,
    stuck: Option<Stuck>,
}

/// The fields of a file header, by the names of `docs/FORMAT.md`: see [`Inspection::header`].
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-file-header-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::{FileHeader, Inspection};
///
/// let FileHeader { major, minor, .. } = Inspection::open(&path)?.header().unwrap();
/// assert_eq!((major, minor), (caskfile::MAJOR_VERSION, caskfile::MINOR_VERSION));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileHeader {
    /// The format's major version.
    pub major: u16,
    /// The format's minor version.
    pub minor: u16,
    /// The highest sequence number that had been assigned when the file was made.
    pub base_seq: u64,
    /// When the file was made, in seconds since 1970-01-01 00:00 UTC.
    pub created: u64,
}

/// What [`Inspection::catch_up`] has found in the file.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("caskfile-change-{}", std::process::id()));
/// # caskfile::Cask::open(&path)?.put("key", "value")?;
/// use caskfile::inspect::{CatchUp, Inspection};
///
/// let mut inspection = Inspection::open(&path)?;
/// match inspection.catch_up()? {
///     CatchUp::Nothing => {}
///     CatchUp::Grown => println!("new records"),
///     CatchUp::NewLog => inspection = Inspection::open(&path)?,
///     other => panic!("{other:?}"),
/// }
/// # let _ = inspection;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatchUp {
    /// No new record.
    Nothing,
    /// New records: appended ones, or records after damage.
    Grown,
    /// Another log: it was compacted into a file that has the path now, or it was cut and then written to. Open the path
    /// again to see it.
    NewLog,
}

impl Inspection {
    /// Reads a file in any state. Damage and a later version are no errors here: [`Inspection::check`] returns them.
    ///
    /// # Cost
    ///
    /// One pass over the file, and memory for the index of its keys, 10 to 15 bytes a key.
    ///
    /// # Errors
    ///
    /// - [`Error::NotCaskfile`] if the file is not a caskfile.
    /// - [`Error::Io`].
    ///
    /// ```
    /// use caskfile::Error;
    /// use caskfile::inspect::Inspection;
    ///
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-open-{}", std::process::id()));
    /// # std::fs::write(&path, "a letter, not a store").unwrap();
    /// assert!(matches!(Inspection::open(&path), Err(Error::NotCaskfile { .. })));
    /// # std::fs::remove_file(path).unwrap();
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Inspection> {
        Inspection::on(Arc::new(RealDisk), path.as_ref())
    }

    /// Reads a file as [`Inspection::open`] does, on another [`Disk`], such as a simulated one.
    ///
    /// # Errors
    ///
    /// Those of [`Inspection::open`], and those of the disk.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-open-on-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use std::sync::Arc;
    ///
    /// use caskfile::disk::RealDisk;
    /// use caskfile::inspect::Inspection;
    ///
    /// assert_eq!(Inspection::open_on(Arc::new(RealDisk), &path)?.check()?.keys, 1);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    #[cfg(any(test, feature = "testing"))]
    pub fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>) -> Result<Inspection> {
        Inspection::on(disk, path.as_ref())
    }

    fn on(disk: Arc<dyn Disk>, path: &Path) -> Result<Inspection> {
        let (source, refusal) = Source::open_or_say_why(&*disk, path)?;
        match refusal {
            Some(error @ Error::NotCaskfile { .. }) => Err(error),
            refusal => Inspection::of(disk, source, refusal),
        }
    }

    fn of(disk: Arc<dyn Disk>, source: Source, refusal: Option<Error>) -> Result<Inspection> {
        let (survey, refusal) = match refusal {
            Some(refusal) => (Survey::begin(&source, Scope::Log)?, Some(refusal)),
            None => Survey::up_to_refusal(&source, Scope::Log)?,
        };
        let header_damage = source.header_damage;
        let mut inspection = Inspection { disk, survey, header_damage, refusal, regions: Vec::new(), stuck: None };
        inspection.regions = inspection.lay_out()?;
        Ok(inspection)
    }

    /// Divides the file into regions.
    fn lay_out(&self) -> Result<Vec<Region>> {
        let report = &self.survey.report;
        let end = self.log_end();
        let broken_end = match &self.refusal {
            Some(_) => self.data_end(end)?,
            None => end + report.torn_bytes,
        };
        // Other processes may have written since; and a file may end before the padding of its last record.
        let file_len = if broken_end > report.file_len { self.log().len()? } else { report.file_len };
        let mut layout = Layout::new(file_len);
        layout.push(FILE_HEADER_LEN as u64, Is::Plain(Class::FileHeader));
        let is_lost = |loss: &Loss| !loss.torn && loss.start == ROOTS_START;
        if end >= self.log().start() && !report.losses.iter().any(is_lost) {
            layout.push(self.log().start(), Is::Roots);
        }
        for loss in report.losses.iter().filter(|loss| !loss.torn && loss.start >= FILE_HEADER_LEN as u64) {
            layout.push(loss.start, Is::Sound);
            layout.push_even_empty(loss.end, Is::Broken { class: Class::Corrupt, damage: Some(loss.damage) });
        }
        layout.push(end, Is::Sound);
        if let Some(refusal) = &self.refusal {
            let class = Class::Unread;
            // If all of the file is of a later version, the form of its records is unknown.
            let records = matches!(refusal, Error::UnsupportedRecord { .. });
            layout.push(broken_end, if records { Is::Broken { class, damage: None } } else { Is::Plain(class) });
        } else if report.torn_bytes > 0 {
            let damage = report.losses.last().filter(|loss| loss.torn).map(|loss| loss.damage);
            layout.push(broken_end, Is::Broken { class: Class::Torn, damage });
        } else if layout.at == end {
            layout.push(end + END_MARK_LEN, Is::Plain(Class::EndMark));
        }
        layout.push(file_len, Is::Plain(Class::Zeros));
        Ok(layout.regions)
    }

    /// The end of the last byte at or after `from` that is not zero.
    fn data_end(&self, from: u64) -> Result<u64> {
        let stop = Stop { unit: from, at: from, previous_seq: self.survey.last_seq, reason: Reason::EndMark };
        Ok(search(self.log(), &stop)?.data_end)
    }

    /// Returns the pieces of the file, from its first byte to its last.
    ///
    /// # Cost
    ///
    /// The headers and keys of all records are read once more. The record of a piece has its key in memory, and no value.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-pieces-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::{Class, Inspection};
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let first = inspection.pieces().next().unwrap()?;
    /// assert_eq!((first.start, first.end, first.class), (0, 64, Class::FileHeader));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces::from(self, 0)
    }

    /// Returns the pieces from `start` on, which must be the start of a piece: after [`Inspection::catch_up`], for example,
    /// the [`Inspection::log_end`] from before it.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-pieces-from-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::{Class, Inspection};
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let end_mark = inspection.pieces_from(inspection.log_end()).next().unwrap()?;
    /// assert_eq!(end_mark.class, Class::EndMark);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn pieces_from(&self, start: u64) -> Pieces<'_> {
        Pieces::from(self, start)
    }

    /// Returns the length of the file in bytes, as it was when the file was read.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-file-len-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::Inspection;
    ///
    /// assert_eq!(Inspection::open(&path)?.file_len(), std::fs::metadata(&path).unwrap().len());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn file_len(&self) -> u64 {
        self.regions.last().map_or(0, |last| last.end)
    }

    /// Returns where the log ends: the end of its last record, padding included, in bytes from the start of the file. (A
    /// file that lacks this padding ends up to 7 bytes before it.)
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-log-end-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::inspect::{Class, Inspection};
    ///
    /// let inspection = Inspection::open(&path)?;
    /// let next = inspection.pieces_from(inspection.log_end()).next().unwrap()?;
    /// assert_eq!(next.class, Class::EndMark);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn log_end(&self) -> u64 {
        let Survey { report, reader, .. } = &self.survey;
        if report.torn_bytes > 0 { report.log_end } else { reader.end }
    }

    /// Returns the file header; `None` if its checksum does not hold, or if it is of a later version.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-header-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let header = Inspection::open(&path)?.header().unwrap();
    /// assert_eq!((header.major, header.base_seq), (caskfile::MAJOR_VERSION, 0));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn header(&self) -> Option<FileHeader> {
        let crate::format::FileHeader { major, minor, base_seq, created, .. } = self.log().header;
        let of_later_version = matches!(self.refusal, Some(Error::UnsupportedVersion { .. }));
        let holds = self.header_damage.is_none() && !of_later_version;
        holds.then_some(FileHeader { major, minor, base_seq, created })
    }

    /// Returns how much of the log has been on stable storage at least, as the head of the file says: see
    /// [`Report::synced_to`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-synced-to-{}", std::process::id()));
    /// use caskfile::Cask;
    /// use caskfile::inspect::Inspection;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("key", "value")?;
    /// assert_eq!(Inspection::open(&path)?.synced_to(), None);
    /// cask.close()?;
    /// let inspection = Inspection::open(&path)?;
    /// assert!(inspection.synced_to().is_some_and(|synced_to| synced_to <= inspection.log_end()));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn synced_to(&self) -> Option<u64> {
        self.survey.report.synced_to
    }

    /// Returns the offset of the snapshot of the index to which the head of the file leads; `None` if it leads to none.
    /// [`Inspection::check`] says whether it is right.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-snapshot-{}", std::process::id()));
    /// use caskfile::Cask;
    /// use caskfile::inspect::Inspection;
    ///
    /// let cask = Cask::open(&path)?;
    /// cask.put("key", vec![7; 300_000])?;
    /// cask.close()?;
    /// let inspection = Inspection::open(&path)?;
    /// let snapshot = inspection.snapshot().unwrap();
    /// let record = inspection.pieces_from(snapshot).next().unwrap()?.record.unwrap();
    /// assert_eq!(record.kind_name(), Some("SNAPSHOT"));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn snapshot(&self) -> Option<u64> {
        Some(self.survey.snapshot).filter(|&snapshot| snapshot > 0)
    }

    /// Returns the report of [`verify()`] on the file up to the log's end. A file or a copy whose end is missing
    /// ([`Report::truncated`], [`Report::cut_off`]) is no error here, since all that the file has can be shown.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`] if bytes that had been on stable storage do not verify. A missing end alone is no error here.
    /// - [`Error::UnsupportedVersion`] or [`Error::UnsupportedRecord`] if a part of the file is of a later version and was
    ///   not read.
    /// - [`Error::Corrupt`] if the file header is lost and the records do not show the file's identity.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-check-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?.put("key", "value")?;
    /// use caskfile::Error;
    /// use caskfile::inspect::Inspection;
    ///
    /// assert_eq!(Inspection::open(&path)?.check()?.keys, 1);
    /// # let mut bytes = std::fs::read(&path).unwrap();
    /// # let at = bytes.windows(5).position(|w| w == b"value").unwrap();
    /// # bytes[at] = b'V';
    /// # std::fs::write(&path, bytes).unwrap();
    /// // After a bit of the value has changed:
    /// assert!(matches!(Inspection::open(&path)?.check(), Err(Error::Damaged { .. })));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn check(&self) -> Result<&Report> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let report = &self.survey.report;
        if report.is_damaged() {
            return Err(damaged(self.log(), report.clone()));
        }
        Ok(report)
    }

    /// Reads bytes of the file into `buffer`, and returns how many: fewer than its length only where the file ends.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-read-{}", std::process::id()));
    /// # caskfile::Cask::open(&path)?;
    /// use caskfile::inspect::Inspection;
    ///
    /// let mut magic = [0; 8];
    /// assert_eq!(Inspection::open(&path)?.read(0, &mut magic)?, 8);
    /// assert_eq!(&magic, b"\xcaSKF\r\n\x1a\n");
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.log().read_up_to(offset, buffer)
    }

    /// Reads the records that were appended since the file was last read. Costs two small reads if there are none.
    ///
    /// A [watch](crate::Cask::changes) of all buckets says when it is time: first
    /// [`Watch::try_next`](crate::Watch::try_next), then this call, then the wait for the watch's descriptor.
    ///
    /// # Errors
    ///
    /// - [`Error::Replaced`] if the path names another file, or none, and no compaction has done that.
    /// - [`Error::UnsupportedRecord`] for a record of a later version.
    /// - [`Error::Io`].
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("caskfile-inspect-catch-up-{}", std::process::id()));
    /// use caskfile::Cask;
    /// use caskfile::inspect::{CatchUp, Inspection};
    ///
    /// let cask = Cask::open(&path)?;
    /// let mut inspection = Inspection::open(&path)?;
    /// assert_eq!(inspection.catch_up()?, CatchUp::Nothing);
    ///
    /// let end = inspection.log_end();
    /// cask.put("key", "value")?;
    /// assert_eq!(inspection.catch_up()?, CatchUp::Grown);
    /// let records = inspection.pieces_from(end).filter_map(|piece| piece.unwrap().record);
    /// assert_eq!(records.last().unwrap().seq, cask.get("key")?.last_index);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn catch_up(&mut self) -> Result<CatchUp> {
        if self.refusal.is_some() {
            return Ok(CatchUp::Nothing);
        }
        // Before the log is read: a compaction writes `MOVED` into the log before it gives the path to another file.
        let named = self.disk.stat(&self.log().path);
        if !self.survey.is_still_there()? {
            return Ok(CatchUp::NewLog);
        }
        let end = self.survey.reader.end;
        let stop = self.survey.catch_up()?;
        if self.survey.reader.end > end {
            self.regions = self.lay_out()?;
            return Ok(CatchUp::Grown);
        }
        let moved = self.survey.moved;
        match named {
            Ok(stat) if stat.identity == self.log().identity => {}
            Ok(_) if moved => return Ok(CatchUp::NewLog),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.log().io("stat", error)),
            // A compaction that was killed has left this file.
            Err(_) if moved => {}
            _ => return Err(Error::Replaced { path: self.log().path.to_path_buf() }),
        }
        if !matches!(stop.reason, Reason::Damaged(_)) {
            return Ok(CatchUp::Nothing);
        }
        // Usually a write under way. If it stays, it is a torn tail or damage, and only reading the rest of the file tells
        // which.
        match &mut self.stuck {
            Some(stuck) if stuck.at == stop => {
                if stuck.reread {
                    return Ok(CatchUp::Nothing);
                }
            }
            stuck => {
                *stuck = Some(Stuck { at: stop, reread: false });
                return Ok(CatchUp::Nothing);
            }
        }
        let source = Source::of_log(Arc::clone(&self.survey.reader.log), self.header_damage);
        *self = Inspection::of(Arc::clone(&self.disk), source, None)?;
        self.stuck = Some(Stuck { at: stop, reread: true });
        Ok(if self.survey.reader.end > end { CatchUp::Grown } else { CatchUp::Nothing })
    }

    fn log(&self) -> &LogFile {
        &self.survey.reader.log
    }
}

/// The place where the walk stops.
struct Stuck {
    at: Stop,
    /// Whether the whole file has been read again because of it.
    reread: bool,
}
