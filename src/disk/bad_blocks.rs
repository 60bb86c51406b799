//! A file on a disk that cannot read some places any more.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{DiskFile, FileStat, Map};

/// A system reads so many bytes at once, and fails in all of them if it does in one.
const BLOCK: u64 = 4096;

/// Reads as zeros what the disk fails to read, and remembers where that is. What is looked for elsewhere in the file can
/// then be found, by whoever expects that bytes are not what they were.
pub(crate) struct AroundBadBlocks {
    file: Arc<dyn DiskFile>,
    /// The numbers of the blocks that could not be read.
    bad: Mutex<BTreeSet<u64>>,
}

impl AroundBadBlocks {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> AroundBadBlocks {
        AroundBadBlocks { file, bad: Mutex::default() }
    }

    /// What could not be read up to now, in the order of the file.
    pub(crate) fn unreadable(&self) -> Vec<Range<u64>> {
        let mut ranges = Vec::<Range<u64>>::new();
        for &block in &*self.bad.lock().unwrap_or_else(PoisonError::into_inner) {
            let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Reads one block, or the part of it that was asked for.
    fn read_block(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (self.file.len()?.saturating_sub(offset)).min(BLOCK - offset % BLOCK);
        let len = buffer.len().min(left as usize);
        match self.file.read_at(offset, &mut buffer[..len]) {
            Err(error) if is_bad_block(&error) => {
                buffer[..len].fill(0);
                self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(offset / BLOCK);
                Ok(len)
            }
            read => read,
        }
    }
}

/// Whether this is the disk's failure, and none that reading elsewhere meets as well.
fn is_bad_block(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

impl DiskFile for AroundBadBlocks {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read_at(offset, buffer) {
            Err(error) if is_bad_block(&error) => self.read_block(offset, buffer),
            read => read,
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.file.stat()
    }

    // Nothing is read through a map, where a bad block would be a signal, and nothing is written or locked.

    fn map(&self, _len: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<usize> {
        Err(only_for_reading())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn sync_all(&self) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(only_for_reading())
    }

    fn unlock(&self) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn set_owner_and_mode(&self, _like: &FileStat) -> io::Result<()> {
        Err(only_for_reading())
    }
}

fn only_for_reading() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}
