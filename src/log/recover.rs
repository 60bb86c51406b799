//! Recovery: what follows from a walk that stopped. The scanner reports, this decides, and a writer that holds the
//! lock carries it out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::scan::{Reason, Scanner, Stop};
use super::search::search;
use super::{LogFile, append};
use crate::disk::Disk;
use crate::error::Damage;
use crate::format::END_MARK_LEN;
use crate::{Error, Result};

/// What to do about a log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The log ends as it should.
    Whole,
    /// A torn tail: the log is to end at `at`.
    Cut {
        at: u64,
        /// Where what is cut off ends, not counting the zeros of a file that was extended ahead.
        data_end: u64,
        /// Whole records lie after the damaged one: they are to be kept beside the store first.
        keep: bool,
    },
}

/// The decision table. Changes nothing.
///
/// | where the walk stopped | beyond it | decision |
/// | --- | --- | --- |
/// | end mark | zeros only | whole |
/// | end of file | | cut, which puts the end mark back |
/// | end mark or damage | proof that what is damaged was on stable storage | [`Error::Corrupt`] |
/// | end mark or damage | whole records, no proof | cut, and keep what is cut off |
/// | end mark or damage | neither | cut |
pub(crate) fn decide(log: &LogFile, stop: &Stop) -> Result<Decision> {
    let beyond = search(log, stop)?;
    let damage = match stop.reason {
        Reason::EndMark if beyond.data_end == stop.unit => return Ok(Decision::Whole),
        Reason::EndMark => Damage::Zeros,
        Reason::EndOfFile => return Ok(Decision::Cut { at: stop.unit, data_end: stop.unit, keep: false }),
        Reason::Damaged(damage) => damage,
    };
    match beyond.proof {
        Some(proof) if proof > stop.unit => Err(log.corrupt(stop.at, damage)),
        _ => Ok(Decision::Cut { at: stop.unit, data_end: beyond.data_end, keep: beyond.whole_records }),
    }
}

/// Copies what is about to be cut off to a file of its own beside the store, durably.
///
/// # Errors
///
/// Any failure: then nothing may be cut.
pub(crate) fn keep_torn(disk: &dyn Disk, log: &LogFile, from: u64, to: u64) -> Result<PathBuf> {
    let mode = log.file.stat().map_err(|e| log.io("stat", e))?.mode;
    let path = sibling(disk, &log.path, TORN)?;
    let error = |e| Error::io("keep the torn tail", &path, e);
    let copy = disk.create_new(&path, mode).map_err(error)?;
    let mut buffer = vec![0; (to - from).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(buffer.len() as u64) as usize;
        log.read_exact(at, &mut buffer[..wanted])?;
        let mut written = 0;
        while written < wanted {
            written += copy.write_at(at - from + written as u64, &buffer[written..wanted]).map_err(error)?;
        }
        at += wanted as u64;
    }
    copy.sync_all().map_err(error)?;
    disk.sync_dir(directory(&path)).map_err(error)?;
    Ok(path)
}

/// Writes what no proof covers again, the same bytes to the same place, and checks that they still are what was
/// taken in.
///
/// After a failed sync, before this handle was opened, the kernel may hold pages that look clean and read back well
/// but never reached the disk. Written again they are dirty, and the next sync brings them there.
pub(crate) fn rewrite(log: &LogFile, from: u64, previous_index: u64, to: u64) -> Result<()> {
    let mut buffer = vec![0; (to - from).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(buffer.len() as u64) as usize;
        log.read_exact(at, &mut buffer[..wanted])?;
        append::write_all(log, at, &buffer[..wanted]).map_err(|e| log.io("rewrite the tail", e))?;
        at += wanted as u64;
    }
    let mut reached = from;
    let stop = Scanner::resume(log, from, previous_index)?.walk(|unit| {
        reached = unit.entries.last().map_or(reached, |entry| entry.offset + entry.header.padded_len());
        Ok(())
    })?;
    if reached < to {
        let damage = if let Reason::Damaged(damage) = stop.reason { damage } else { Damage::Zeros };
        return Err(log.corrupt(stop.at, damage));
    }
    Ok(())
}

/// Whether the file reaches far enough for the end mark that should stand at `end`.
pub(crate) fn has_end_mark(file_len: u64, end: u64) -> bool {
    file_len >= end + END_MARK_LEN
}

/// What comes between the store's name and a random number in the name of a torn tail that was kept.
const TORN: &str = "torn";
/// The same for a file that is being made: the store itself, or its compacted successor.
pub(crate) const TEMPORARY: &str = "tmp";

/// A new name beside the store: `NAME.KIND-` and 16 random hexadecimal digits.
pub(crate) fn sibling(disk: &dyn Disk, path: &Path, kind: &str) -> Result<PathBuf> {
    let mut random = [0; 8];
    disk.fill_random(&mut random).map_err(|e| Error::io("get random bytes", path, e))?;
    let mut name = sibling_prefix(path, kind);
    name.push(format!("{:016x}", u64::from_le_bytes(random)));
    Ok(path.with_file_name(name))
}

/// What the names of all siblings of this kind start with.
pub(crate) fn sibling_prefix(path: &Path, kind: &str) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(kind);
    name.push("-");
    name
}

/// The directory that holds the store.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
