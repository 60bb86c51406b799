//! The two loops over a file: all bytes of a range piece by piece, and all data of a file chunk by chunk.

use std::io;

use super::LogFile;
use crate::Result;
use crate::format::ALIGNMENT;

#[cfg(test)]
pub(super) const CHUNK: usize = crate::limits::Limits::REAL.chunk();
#[cfg(test)]
pub(super) const LARGEST_CHUNK: usize = crate::limits::Limits::REAL.largest_chunk();

/// Reads a range piece by piece and passes each piece to `take`, with its offset. Returns whether the file has the
/// whole range. An incomplete piece is not passed on.
pub(super) fn each_piece(
    log: &LogFile,
    from: u64,
    to: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<bool> {
    let most = log.limits.chunk() as u64;
    let mut buffer = vec![0; to.saturating_sub(from).min(most) as usize];
    let mut at = from;
    while at < to {
        let piece = &mut buffer[..(to - at).min(most) as usize];
        if log.read_up_to(at, piece)? < piece.len() {
            return Ok(false);
        }
        take(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(true)
}

/// As [`each_piece`], for a range that the file has.
///
/// # Errors
///
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file ends inside the range.
pub(super) fn each_expected_piece(
    log: &LogFile,
    from: u64,
    to: u64,
    take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    if each_piece(log, from, to, take)? { Ok(()) } else { Err(log.io("read", io::ErrorKind::UnexpectedEof.into())) }
}

/// A walk over the data of a file, from an offset to the end. It skips holes, so extended space costs nothing.
pub(super) struct Chunks<'l> {
    log: &'l LogFile,
    at: u64,
    buffer: Vec<u8>,
}

impl<'l> Chunks<'l> {
    pub(super) fn new(log: &'l LogFile, from: u64) -> Chunks<'l> {
        Chunks { log, at: from, buffer: Vec::new() }
    }

    /// Returns up to `len` bytes from the next offset that holds data, and that offset, a multiple of [`ALIGNMENT`] if
    /// the walk started at one. Fewer only at the end of the file, or of its last data. `None` after that. The walk stays there until [`Chunks::advance`].
    pub(super) fn read(&mut self, len: usize) -> Result<Option<(u64, &[u8])>> {
        let found = self.log.file.next_data(self.at).map_err(|e| self.log.io("look for data", e))?;
        let Some(data) = found else { return Ok(None) };
        self.at = self.at.max(data / ALIGNMENT * ALIGNMENT);
        let len = len.min(self.data_to_end(len as u64)?);
        self.buffer.resize(len, 0);
        let got = self.log.read_up_to(self.at, &mut self.buffer)?;
        Ok((got > 0).then_some((self.at, &self.buffer[..got])))
    }

    /// The number of bytes up to the hole with which the file ends, if that is within the next `len`. To read from it, the system
    /// would fill as many pages with zeros as it reads ahead: up to megabytes.
    fn data_to_end(&self, len: u64) -> Result<usize> {
        let look = |e| self.log.io("look for the end of the data", e);
        let end = self.log.file.data_end(self.at).map_err(look)?;
        let is_last = end < self.at + len && self.log.file.next_data(end).map_err(look)?.is_none();
        Ok(if is_last { (end - self.at) as usize } else { usize::MAX })
    }

    pub(super) fn advance(&mut self, len: usize) {
        self.at += len as u64;
    }
}
