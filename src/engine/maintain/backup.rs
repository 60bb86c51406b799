//! Backups: the store of one moment, copied to a new file or a stream.
//!
//! A copy has a file identity and sequence numbers of its own, so it is written record by record. A stale block of one file must
//! not pass for a record of the other, and a compare-and-swap on the copy must not succeed with a pair that was read from the
//! original after the copy was made.

use std::io;
use std::path::Path;

use super::Maintenance;
use crate::engine::read::view::View;
use crate::events::event;
use crate::format::{END_MARK_LEN, FileHeader, Kind};
use crate::log::copy::{Copyist, write_live};
use crate::log::install::{above_all_seqs, install};
use crate::log::read::Reader;
use crate::log::run::{Entry, Run};
use crate::log::scan::{Scanner, Step};
use crate::log::temp_file::{head, new_header};
use crate::progress::{Copying, Watch};
use crate::{Error, Result};

/// What a copy of the store has: the result of [`Cask::backup`](crate::Cask::backup) and
/// [`Cask::compact_to`](crate::Cask::compact_to).
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-doc-backup-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let cask = caskfile::Cask::open(dir.join("store"))?;
/// # let copy = dir.join("copy");
/// cask.put("key", "value")?;
/// let backup = cask.backup(&copy)?;
/// assert_eq!((backup.keys, backup.bytes), (1, std::fs::metadata(&copy)?.len()));
/// assert_eq!(backup.last_index, cask.get("key")?.last_index);
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// How many keys the copy has, in all buckets. Those that are over count too, as long as the log has no delete of them.
    pub keys: u64,
    /// The copy's length in bytes.
    pub bytes: u64,
    /// The highest sequence number of the original at the moment of the copy.
    pub last_index: u64,
}

/// The store at one moment. The log only grows, so this can be read later.
struct Moment {
    reader: Reader,
    end: u64,
    keys: u64,
    last_index: u64,
}

impl Moment {
    /// The moment that a view shows.
    fn of(view: &View) -> Moment {
        Moment {
            reader: view.reader.clone(),
            end: view.tail.end,
            keys: view.index().len() as u64,
            last_index: view.tail.highest_seq,
        }
    }

    fn backup(&self, bytes: u64) -> Backup {
        Backup { keys: self.keys, bytes, last_index: self.last_index }
    }

    fn base_seq(&self) -> u64 {
        above_all_seqs(self.last_index, self.reader.log.limits)
    }
}

impl Maintenance {
    pub(crate) fn backup(&self, to: &Path, watch: &mut Watch<'_>) -> Result<Backup> {
        let moment = self.moment()?;
        let to = &self.context.by_path.resolve(to).map_err(|e| Error::io("resolve", to, e))?;
        let copying = Copying::new(to, moment.end, watch);
        let backup =
            install(&*self.context.by_path, copying, &moment.reader.log, moment.base_seq(), |next, copying| {
                let mut offset = next.header.log_start();
                let (mark, bytes) = copy_log(&moment, &next.header, |piece| {
                    next.write(offset, piece)?;
                    offset += piece.len() as u64;
                    copying.tell(offset)
                })?;
                next.write_root(mark)?;
                Ok(moment.backup(bytes))
            })?;
        self.report(&backup, to);
        Ok(backup)
    }

    fn report(&self, backup: &Backup, to: &Path) {
        event!(info, "{}: {} keys were copied to {}", self.context.path.display(), backup.keys, to.display());
    }

    pub(crate) fn backup_to(&self, to: &mut dyn io::Write) -> Result<Backup> {
        let moment = self.moment()?;
        let error = |e| Error::io("write the backup", &self.context.path, e);
        let header = new_header(&*self.context.disk, moment.base_seq()).map_err(error)?;
        // Its roots stay empty: a stream that breaks off lacks the closing mark.
        to.write_all(&head(&header)).map_err(error)?;
        let (_, bytes) = copy_log(&moment, &header, |piece| to.write_all(piece).map_err(error))?;
        to.flush().map_err(error)?;
        Ok(moment.backup(bytes))
    }

    pub(crate) fn compact_to(&self, to: &Path, watch: &mut Watch<'_>) -> Result<Backup> {
        let (moment, mut positions, live_bytes) = {
            // A wrong image would become permanent.
            let view = self.reading.scanned()?;
            let positions = view.index().positions().chain(view.keys.lifetimes.sessions.positions());
            (Moment::of(&view), positions.collect::<Vec<_>>(), view.keys.live_bytes())
        };
        positions.sort_unstable();
        let to = &self.context.by_path.resolve(to).map_err(|e| Error::io("resolve", to, e))?;
        let copying = Copying::new(to, live_bytes, watch);
        let backup =
            install(&*self.context.by_path, copying, &moment.reader.log, moment.base_seq(), |next, copying| {
                write_live(next, &moment.reader, &positions, copying)?;
                Ok(moment.backup(next.file.len().map_err(|e| next.io("ask for the length", e))?))
            })?;
        self.report(&backup, to);
        Ok(backup)
    }

    fn moment(&self) -> Result<Moment> {
        self.reading.answer(|view| {
            view.index().load_noted(&view.reader)?;
            Ok(Moment::of(&view))
        })
    }
}

/// Writes the log of a moment after the given file header: every put, every tombstone and every record of a session, each verified
/// on the bytes that are written. Returns the closing mark's offset and the length of the whole file.
///
/// Keeps the flag `MORE`, so that a stream that breaks off holds a prefix of the history, and no half batch.
fn copy_log(moment: &Moment, header: &FileHeader, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<(u64, u64)> {
    let Moment { reader, end, .. } = moment;
    let log = &reader.log;
    let mut copyist = Copyist::new(header, log);
    let mut scanner = Scanner::from_start(log)?;
    let (mut unit, mut upto) = (Run::default(), log.start());
    while upto < *end {
        if let Step::Stopped(stop) = scanner.step(&mut unit)? {
            // The view has these records, so they were whole before.
            return Err(stop.is_damage_in(log));
        }
        let is_operation = |entry: &&Entry| !matches!(entry.header.kind, Kind::Ancillary(_));
        let mut entries = unit.entries.iter().filter(is_operation).peekable();
        while let Some(entry) = entries.next() {
            copyist.push_again(reader, entry, entries.peek().is_some())?;
            if copyist.has_a_piece() {
                copyist.stream(&mut write)?;
            }
        }
        upto = unit.end().unwrap_or(*end);
    }
    let mark = copyist.push_mark(header.base_seq);
    let len = copyist.end() + END_MARK_LEN;
    copyist.finish(write)?;
    Ok((mark, len))
}
