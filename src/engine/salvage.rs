//! [`salvage`]: what can still be read of a damaged file, copied to a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::write_live;
use crate::disk::{Access, Disk, RealDisk};
use crate::error::Damage;
use crate::format::{ALIGNMENT, BLOCK_LEN, Kind, MAX_INDEX, RECORD_HEADER_LEN};
use crate::index::Index;
use crate::log::LogFile;
use crate::log::create::{self, Opening, Unfinished};
use crate::log::read::Reader;
use crate::log::recover::{Decision, PRIVATE, decide, directory};
use crate::log::scan::{Reason, Scanner, Step, Stop, Unit};
use crate::log::search::{next_header, search};
use crate::{Error, Result};

/// What [`salvage`] has found and copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// Keys in the new file, each with the newest of its values that could be read.
    pub keys: u64,
    /// Records that were read and verified, tombstones and ancillary ones included.
    pub records: u64,
    /// What could not be read, in the order of the file.
    pub losses: Vec<Loss>,
}

/// A range of the file that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Where it starts, in bytes from the start of the file.
    pub start: u64,
    /// Where the next record that could be read starts, or the data ends.
    pub end: u64,
    /// What does not hold at its start.
    pub damage: Damage,
}

/// Copies every pair that can still be read and verified from a damaged store to a new one. The source is opened
/// read-only and never changed; the new file appears, complete and synced, only at the end.
///
/// Of each key the newest value that verifies is kept. So a key whose newest record is lost comes back with an older
/// value, and one whose tombstone is lost comes back from the dead: `losses` says where that may have happened.
/// Indexes are kept, and the new file's next one is above all of them, those of the lost records included.
///
/// In this version the file header must be readable, and a batch of which a part is lost is kept in part.
///
/// # Errors
///
/// [`Error::Io`] with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if `to` exists, [`Error::NotCaskfile`],
/// [`Error::UnsupportedVersion`] or [`Error::Corrupt`] at offset 0 for a source whose file header cannot be used,
/// [`Error::UnsupportedRecord`] for one of a later version, and I/O errors.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("caskfile-salvage-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let (damaged, rescued) = (dir.join("damaged"), dir.join("rescued"));
/// # let cask = caskfile::Cask::open(&damaged)?;
/// # cask.put("first", "1")?;
/// # cask.put("second", "2")?;
/// # cask.close()?;
/// # let mut bytes = std::fs::read(&damaged)?;
/// # let at = bytes.windows(5).position(|w| w == b"first").unwrap();
/// # bytes[at] = b'F';
/// # std::fs::write(&damaged, bytes)?;
/// use caskfile::{Cask, Error};
///
/// assert!(matches!(Cask::open(&damaged), Err(Error::Corrupt { .. })));
/// let report = caskfile::salvage(&damaged, &rescued)?;
/// assert_eq!((report.keys, report.losses.len()), (1, 1));
/// assert_eq!(Cask::open(&rescued)?.get("second")?.value, b"2");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Salvage> {
    salvage_on(&RealDisk, from.as_ref(), to.as_ref())
}

/// As [`salvage`], on a disk of your own making: how this crate's tests cut power and fail calls.
///
/// # Errors
///
/// As [`salvage`], and whatever the disk returns.
pub fn salvage_on(disk: &dyn Disk, from: &Path, to: &Path) -> Result<Salvage> {
    let resolve = |path: &Path| disk.resolve(path).map_err(|e| Error::io("resolve", path, e));
    let (from, to): (Arc<Path>, PathBuf) = (resolve(from)?.into(), resolve(to)?);
    let opening = Opening { access: Access::Read, create: false, mode: 0 };
    let log = Arc::new(create::open(disk, &from, opening, || Ok(()))?);
    let found = read_all(&log)?;
    let next = Unfinished::new(disk, &to, PRIVATE, found.highest_index)?;
    // Where the owner cannot be kept, it stays private: the values may not be for the group of whoever rescues them.
    let _ = next.file.set_owner_and_mode(&log.file.stat().map_err(|e| log.io("stat", e))?);
    write_live(&next, &found.reader, &found.positions)?;
    next.sync()?;
    // Linked, not renamed: a file that stands there is never replaced.
    disk.link(&next.path, &to).map_err(|e| Error::io("create", &to, e))?;
    drop(next);
    disk.sync_dir(directory(&to)).map_err(|e| Error::io("sync the directory", &to, e))?;
    Ok(found.report)
}

/// Everything in a file that verifies.
struct Found {
    reader: Reader,
    /// Where the newest record of each key lies, in the order of the file.
    positions: Vec<u64>,
    highest_index: u64,
    report: Salvage,
}

fn read_all(log: &Arc<LogFile>) -> Result<Found> {
    let mut reader = Reader { log: Arc::clone(log), map: None, end: log.len()? };
    let mut index = Index::new();
    let mut report = Salvage { keys: 0, records: 0, losses: Vec::new() };
    let (mut last_index, mut scanner) = (0, Scanner::from_start(log)?);
    let mut unit = Unit::default();
    loop {
        let stop = match scanner.step(&mut unit)? {
            Step::Unit => None,
            Step::Stopped(stop) => Some((stop, damage_at(log, &stop)?)),
        };
        // Of a batch that breaks off, what stands before the damage is sound. If it had been written as a whole, that
        // is kept; else it never happened.
        let written = match &stop {
            None => true,
            Some((_, None)) => break,
            Some((stop, Some(_))) => matches!(decide(log, stop), Err(Error::Corrupt { .. })),
        };
        for entry in unit.entries.iter().filter(|_| written) {
            report.records += 1;
            last_index = entry.header.index;
            // The file may be growing while it is read.
            reader.end = reader.end.max(entry.offset + entry.header.padded_len());
            match entry.header.kind {
                Kind::Put => drop(index.apply_put(unit.key(entry), entry.offset, &reader)?),
                Kind::Delete => drop(index.apply_delete(unit.key(entry), &reader)?),
                Kind::Ancillary(_) => {}
            }
        }
        let Some((stop, Some(damage))) = stop else { continue };
        let start = if written { stop.at } else { stop.unit };
        // A record inside a batch may be sound, though the batch is not: it is looked at once more by itself.
        let next = next_header(log, stop.at.max(stop.unit + ALIGNMENT), last_index)?;
        let end = next.map_or_else(|| search(log, &stop).map(|beyond| beyond.data_end), Ok)?;
        // The last record of a batch that breaks off may end with zeros, which are not taken for data.
        let end = end.max(start);
        match report.losses.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => report.losses.push(Loss { start, end, damage }),
        }
        let Some(next) = next else { break };
        scanner = Scanner::resume(log, next, last_index)?;
    }
    let mut positions: Vec<u64> = index.positions().collect();
    positions.sort_unstable();
    report.keys = positions.len() as u64;
    // Somebody may have seen the indexes that are lost. A lost record takes up a header at least, and a handle that
    // begins leaves at most a block unused, so this many blocks are above all of them.
    let lost: u64 = report.losses.iter().map(|loss| loss.end - loss.start).sum();
    let lost_indexes = lost.div_ceil(RECORD_HEADER_LEN as u64) * BLOCK_LEN;
    let highest_index = last_index.max(log.header.base_index);
    let highest_index = highest_index.max((highest_index + lost_indexes).min(MAX_INDEX - BLOCK_LEN));
    Ok(Found { reader, positions, highest_index, report })
}

/// What is wrong where a walk stopped; `None` if that is the log's end.
fn damage_at(log: &LogFile, stop: &Stop) -> Result<Option<Damage>> {
    Ok(match stop.reason {
        Reason::Damaged(damage) => Some(damage),
        Reason::EndOfFile => None,
        Reason::EndMark => match decide(log, stop) {
            Ok(Decision::Whole) => None,
            Ok(Decision::Cut { .. }) | Err(Error::Corrupt { .. }) => Some(Damage::Zeros),
            Err(error) => return Err(error),
        },
    })
}
