//! Looking at the bytes of a file: what each of them is. For people who debug or study a store, and for the tools that
//! show it to them.
//!
//! [`Inspection::open`] reads a file of any state, whole, torn, corrupt, of a later version, without its header, or
//! written to at this moment, and [`Inspection::pieces`] goes through it from the first byte to the last: each byte
//! belongs to one [`Piece`], and each piece to one [`Class`]. Nothing is changed and no lock is taken.
//!
//! It tells what [`verify`](crate::verify) tells, piece by piece. Both are made of the same walk.
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

mod piece;
mod pieces;
mod salvage;
pub(crate) mod survey;
pub(crate) mod verify;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::format::Damage;
use crate::format::{END_MARK_LEN, FILE_HEADER_LEN};
use crate::log::LogFile;
use crate::log::scan::{Reason, Stop};
use crate::log::search::search;
use crate::report::Report;
use crate::{Error, Result};
use survey::{Scope, Source, Survey};
use verify::damaged;

pub use piece::{Class, Field, Piece, Record};
pub use pieces::Pieces;
pub use salvage::{salvage, salvage_on, salvage_unfinished, salvage_with};
pub use verify::{verify, verify_on};

/// A file that is being looked at.
pub struct Inspection {
    disk: Arc<dyn Disk>,
    survey: Survey,
    header_damage: Option<Damage>,
    /// Why what lies behind the survey's end is not read.
    refusal: Option<Error>,
    /// The parts of the file that are gone through in the same way, one behind the other.
    regions: Vec<Region>,
    stuck: Option<Stuck>,
}

/// A part of the file: every byte belongs to one, and to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    start: u64,
    end: u64,
    is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// Records, all of which were read and verified.
    Sound,
    /// What may have the form of records, but does not count.
    Broken { class: Class, damage: Option<Damage> },
    /// One piece of this class.
    Plain(Class),
}

/// What the file header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileHeader {
    /// The format's major version.
    pub major: u16,
    /// The format's minor version.
    pub minor: u16,
    /// The highest index that had been assigned when the file was made.
    pub base_seq: u64,
    /// When it was made, in seconds since 1970-01-01 00:00 UTC.
    pub created: u64,
}

/// What became of a file since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing that counts.
    Nothing,
    /// Records were appended, or were found behind damage.
    Grown,
    /// The log is another one: it was compacted into another file, which the path names now, or it was cut and written
    /// anew. Whoever wants to go on opens it again.
    Anew,
}

impl Inspection {
    /// Reads a file of any state.
    ///
    /// # Cost
    ///
    /// One pass over the file, and memory for the index of its keys, 10 to 15 bytes a key.
    ///
    /// # Errors
    ///
    /// [`Error::NotCaskfile`] if this is no file of ours; I/O errors. Damage is none, nor is a later version:
    /// [`Inspection::check`] tells of both.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspection> {
        Inspection::open_on(Arc::new(RealDisk), path)
    }

    /// As [`Inspection::open`], on a disk of your own making.
    ///
    /// # Errors
    ///
    /// As [`Inspection::open`], and whatever the disk returns.
    pub fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>) -> Result<Inspection> {
        let (source, refusal) = Source::open_or_say_why(&*disk, path.as_ref())?;
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
        // Others may have written since, and a file may end before its last record's padding does.
        let file_len = if broken_end > report.file_len { self.log().len()? } else { report.file_len };
        let mut layout = Layout { regions: Vec::new(), at: 0, file_len };
        layout.push(FILE_HEADER_LEN as u64, Is::Plain(Class::FileHeader));
        for loss in report.losses.iter().filter(|loss| !loss.torn && loss.start >= FILE_HEADER_LEN as u64) {
            layout.push(loss.start, Is::Sound);
            layout.push_even_empty(loss.end, Is::Broken { class: Class::Corrupt, damage: Some(loss.damage) });
        }
        layout.push(end, Is::Sound);
        if let Some(refusal) = &self.refusal {
            let class = Class::Unread;
            // Of a whole file of a later version nobody knows what its records look like.
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

    /// Where the last byte at or behind `from` ends that is not zero.
    fn data_end(&self, from: u64) -> Result<u64> {
        let stop = Stop { unit: from, at: from, previous_seq: self.survey.last_index, reason: Reason::EndMark };
        Ok(search(self.log(), &stop)?.data_end)
    }

    /// The file from its first byte to its last.
    ///
    /// Costs reading the headers and keys of all records once more; a piece's record has its key in memory, and no value.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces::from(self, 0)
    }

    /// The pieces from a place on at which one starts: after [`Inspection::catch_up`], where [`Inspection::log_end`]
    /// was before it.
    pub fn pieces_from(&self, start: u64) -> Pieces<'_> {
        Pieces::from(self, start)
    }

    /// The length of the file in bytes, when it was looked at.
    pub fn file_len(&self) -> u64 {
        self.regions.last().map_or(0, |last| last.end)
    }

    /// Where the last record ends that counts, in bytes from the start of the file, padding included. (A file that lacks
    /// this padding ends up to 7 bytes before it.)
    pub fn log_end(&self) -> u64 {
        let Survey { report, reader, .. } = &self.survey;
        if report.torn_bytes > 0 { report.log_end } else { reader.end }
    }

    /// What the file header says, if it holds and is of this version.
    pub fn header(&self) -> Option<FileHeader> {
        let crate::format::FileHeader { major, minor, base_seq, created, .. } = self.log().header;
        let of_later_version = matches!(self.refusal, Some(Error::UnsupportedVersion { .. }));
        let holds = self.header_damage.is_none() && !of_later_version;
        holds.then_some(FileHeader { major, minor, base_seq, created })
    }

    /// What [`verify`](crate::verify) says of the file up to the log's end. The missing end of a copy
    /// ([`Report::cut_off`]) is no error here: all that is there can be shown.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if something is lost that had been on stable storage; [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedRecord`] and, if neither the file header nor the records tell which file this is,
    /// [`Error::Corrupt`] where a part of the file is not read because of that.
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

    /// Reads bytes of the file, as many as there are, at most the buffer's length; returns how many.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.log().read_up_to(offset, buffer)
    }

    /// Takes in what was appended since the file was last looked at. Costs two small reads if that is nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`] if the path names another file, or none, and that is not because of a compaction;
    /// [`Error::UnsupportedRecord`]; I/O errors.
    pub fn catch_up(&mut self) -> Result<Change> {
        if self.refusal.is_some() {
            return Ok(Change::Nothing);
        }
        // First: a compaction says in the log that it has moved it, before it gives the path to another file.
        let named = self.disk.stat(&self.log().path);
        if !self.survey.is_still_there()? {
            return Ok(Change::Anew);
        }
        let end = self.survey.reader.end;
        let stop = self.survey.go_on()?;
        if self.survey.reader.end > end {
            self.regions = self.lay_out()?;
            return Ok(Change::Grown);
        }
        let moved = self.survey.moved;
        match named {
            Ok(stat) if stat.identity == self.log().identity => {}
            Ok(_) if moved => return Ok(Change::Anew),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.log().io("stat", error)),
            // What a compaction that died has left.
            Err(_) if moved => {}
            _ => return Err(Error::Replaced { path: self.log().path.to_path_buf() }),
        }
        if !matches!(stop.reason, Reason::Damaged(_)) {
            return Ok(Change::Nothing);
        }
        // A write under way, mostly. If it stays: a torn tail, or damage. Only a look at all that lies behind it can tell.
        match &mut self.stuck {
            Some(stuck) if stuck.at == stop => {
                if stuck.read_anew {
                    return Ok(Change::Nothing);
                }
            }
            stuck => {
                *stuck = Some(Stuck { at: stop, read_anew: false });
                return Ok(Change::Nothing);
            }
        }
        let source = Source::of_log(Arc::clone(&self.survey.reader.log), self.header_damage);
        *self = Inspection::of(Arc::clone(&self.disk), source, None)?;
        self.stuck = Some(Stuck { at: stop, read_anew: true });
        Ok(if self.survey.reader.end > end { Change::Grown } else { Change::Nothing })
    }

    fn log(&self) -> &LogFile {
        &self.survey.reader.log
    }
}

/// A place where the walk does not come further.
struct Stuck {
    at: Stop,
    /// Whether the file has been read anew because of it.
    read_anew: bool,
}

/// Regions as they are laid one behind the other.
struct Layout {
    regions: Vec<Region>,
    at: u64,
    file_len: u64,
}

impl Layout {
    /// The next region, up to `end`, unless there is nothing left of it.
    fn push(&mut self, end: u64, is: Is) {
        if end.min(self.file_len) > self.at {
            self.push_even_empty(end, is);
        }
    }

    fn push_even_empty(&mut self, end: u64, is: Is) {
        let end = end.min(self.file_len);
        self.regions.push(Region { start: self.at, end, is });
        self.at = end;
    }
}
