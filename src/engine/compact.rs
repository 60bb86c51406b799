//! Compaction: the live records in a new file, which then takes the old one's place.
//!
//! | state | after a crash here |
//! | --- | --- |
//! | temporary file being written | the store is untouched; the next writer removes the temporary file |
//! | temporary file synced | the same |
//! | `MOVED` appended to the old log | the path still names the old file, so `MOVED` means nothing; the next record follows it |
//! | renamed, directory not synced | the path names the old file or the new one, which hold the same; nothing was acknowledged in between |
//! | directory synced | compacted |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::durability::Position;
use super::turn::Turn;
use super::view::View;
use crate::format::{Ancillary, FILE_HEADER_LEN, Flags, Kind, RECORD_HEADER_LEN};
use crate::log::LogFile;
use crate::log::create::{self, Unfinished};
use crate::log::group::Group;
use crate::log::read::Reader;
use crate::log::recover::{PRIVATE, directory};
use crate::{Error, Result};

/// What [`Cask::compact`](crate::Cask::compact) has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Where the log ended before, in bytes.
    pub before: u64,
    /// Where it ends now.
    pub after: u64,
    /// Keys that were carried over.
    pub keys: u64,
}

/// Records are written to the new file in pieces of about this many bytes.
const PIECE: usize = 1 << 20;

impl Engine {
    pub(crate) fn compact(&self) -> Result<Compaction> {
        self.solo(self.deadline(), |turn| turn.compact())
    }
}

impl Turn<'_> {
    fn compact(&mut self) -> Result<Compaction> {
        let engine = self.engine;
        let stat = self.log.file.stat().map_err(|e| self.log.io("stat", e))?;
        if stat.links != 1 {
            let reason = format!("it has {} hard links, and the others would go on naming the old file", stat.links);
            return Err(self.refused(reason));
        }
        // For the record that says that the log has moved, and a statement that may have to come before it. The new
        // file's next index is above both.
        let index = self.reserve(2)?;
        let (reader, mut positions, before) = {
            let view = self.view()?;
            (view.reader.clone(), view.index.positions().collect::<Vec<_>>(), view.tail.end)
        };
        positions.sort_unstable();
        let mut next = Unfinished::new(&*engine.disk, &engine.path, PRIVATE, index + 1)?;
        next.file.set_owner_and_mode(&stat).map_err(|e| self.refused(format!("owner and mode cannot be kept: {e}")))?;
        write_live(&next, &reader, &positions)?;
        next.sync()?;

        let log = Arc::new(LogFile::open(Arc::clone(&next.file), &engine.path)?);
        let epoch = self.writer.epoch + 1;
        // Read back as any reader would read it: what does not verify never takes the old file's place.
        let (view, _) = View::build(Arc::clone(&log), engine.config.get_reads(), epoch)?;
        if view.index.len() != positions.len() {
            return Err(Error::other(std::io::Error::other("compaction has lost a key; please report this")));
        }
        let (after, keys) = (view.tail.end, positions.len() as u64);

        if !create::names(&*engine.disk, &engine.path, &stat)? {
            return Err(Error::Replaced { path: engine.path.to_path_buf() });
        }
        let (flags, index) = self.begin_records(index)?;
        self.writer.group.push(flags, Kind::Ancillary(Ancillary::Moved), index, b"", b"");
        self.write_group()?;
        next.rename_to(&engine.path).map_err(|e| Error::io("rename the compacted file", &engine.path, e))?;
        let synced = engine.disk.sync_dir(directory(&engine.path));
        // The path names the new file from here on, whatever else fails.
        self.switch_to(view)?;
        if let Err(e) = synced {
            return Err(engine.syncs.poison(&log, "sync of the directory", e));
        }
        engine.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(Compaction { before, after, keys })
    }

    /// Goes on with the new file, whose lock is held since it was made.
    fn switch_to(&mut self, view: View) -> Result<()> {
        let engine = self.engine;
        let (log, position) = (Arc::clone(&view.reader.log), Position { epoch: view.epoch, offset: view.tail.end });
        self.release();
        self.writer.locked = Some(Arc::clone(&log));
        self.writer.start_over(view.epoch);
        // All of it was written by this handle and synced after that, its header holds the block of the next index,
        // and the directory is synced before the lock is given up.
        let writer = &mut *self.writer;
        (writer.vetted, writer.directory_synced, writer.vouched, writer.numbered) = (true, true, true, true);
        (writer.last_end, writer.covered) = (position.offset, log.len()?);
        drop(engine.syncs.forget());
        engine.syncs.set_synced(position);
        self.log = log;
        engine.replace(&engine.ingest(), view)
    }

    fn refused(&self, reason: String) -> Error {
        Error::CompactionRefused { path: self.engine.path.to_path_buf(), reason }
    }
}

/// Writes records to a new file in the order of their indexes, and closes it with a mark that says that all before
/// it is on stable storage: true as soon as anybody can see the file, since it is synced before it gets its name.
pub(super) fn write_live(next: &Unfinished<'_>, reader: &Reader, positions: &[u64]) -> Result<()> {
    let mut group = Group::new(next.header.seed(), FILE_HEADER_LEN as u64);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut last_index = next.header.base_index;
    for &position in positions {
        let header = reader.header(position)?;
        key.clear();
        reader.key_into(position, &header, &mut key)?;
        // Verified on the copy that is written, whatever the handle's setting for reads is: compaction must not
        // make damage look sound.
        reader.value_into(position, &header, &key, &mut value, true)?;
        group.push_moved(&header, &key, &value);
        last_index = last_index.max(header.index);
        if group.len() >= PIECE {
            group.take_piece(|offset, bytes| next.write(offset, bytes))?;
        }
    }
    let flags = Flags { synced: true, more: false };
    group.push(flags, Kind::Ancillary(Ancillary::Mark), last_index + 1, b"", b"");
    let start = group.start();
    next.write(start, group.finish())
}

const _: () = assert!(RECORD_HEADER_LEN % 8 == 0, "a mark is a header and needs no padding");
