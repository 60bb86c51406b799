//! A file on a disk that can no longer read some of its blocks.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DiskFile, FileAttributes, FileStat, SyncScope};
#[cfg(any(test, feature = "testing"))]
use crate::limits::Limits;

/// The system reads this many bytes at once, and fails for all of them if it fails for one.
const BLOCK: u64 = 4096;

/// Reads unreadable blocks as zeros, and remembers their ranges. So a caller that expects damage can read the rest of
/// the file.
///
/// A block that failed once stays zeros and is not read again. A disk tries for seconds before it gives up, and if it
/// succeeded the next time, the caller would see two different files.
pub(crate) struct AroundBadBlocks {
    file: Arc<dyn DiskFile>,
    /// The unreadable ranges, in the order of the file, with bytes between them.
    bad: Mutex<Vec<Range<u64>>>,
}

impl AroundBadBlocks {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> AroundBadBlocks {
        AroundBadBlocks { file, bad: Mutex::default() }
    }

    /// Returns the ranges that could not be read so far, in the order of the file.
    pub(crate) fn unreadable(&self) -> Vec<Range<u64>> {
        self.bad().clone()
    }

    fn bad(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first unreadable range that ends after `offset`.
    fn next_bad(&self, offset: u64) -> Option<Range<u64>> {
        let bad = self.bad();
        bad.get(bad.partition_point(|range| range.end <= offset)).cloned()
    }

    /// Reads from the block at `offset`, after a longer read has failed.
    fn read_block(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = offset / BLOCK * BLOCK;
        let block = start..self.file.len()?.min(start + BLOCK);
        let len = buffer.len().min(block.end.saturating_sub(offset) as usize);
        let buffer = &mut buffer[..len];
        match self.file.read_at(offset, buffer) {
            Err(error) if is_bad_block(&error) => {
                buffer.fill(0);
                add(&mut self.bad(), block);
                Ok(len)
            }
            read => read,
        }
    }
}

/// Adds a range. Ranges that touch become one.
fn add(ranges: &mut Vec<Range<u64>>, new: Range<u64>) {
    let first = ranges.partition_point(|range| range.end < new.start);
    let end_of_touched = ranges.partition_point(|range| range.start <= new.end);
    let touched = &ranges[first..end_of_touched];
    let start = touched.first().map_or(new.start, |range| range.start.min(new.start));
    let end = touched.last().map_or(new.end, |range| range.end.max(new.end));
    ranges.splice(first..end_of_touched, std::iter::once(start..end));
}

/// Returns whether the disk failed at this place. Other errors would come from reads elsewhere as well.
fn is_bad_block(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

impl DiskFile for AroundBadBlocks {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let upto = |end: u64| buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let readable = match self.next_bad(offset) {
            Some(bad) if bad.start <= offset => {
                let len = upto(bad.end);
                buffer[..len].fill(0);
                return Ok(len);
            }
            Some(bad) => upto(bad.start),
            None => buffer.len(),
        };
        let buffer = &mut buffer[..readable];
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

    fn data_end(&self, offset: u64) -> io::Result<u64> {
        self.file.data_end(offset)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.file.stat()
    }

    fn attributes(&self) -> io::Result<FileAttributes> {
        self.file.attributes()
    }

    #[cfg(any(test, feature = "testing"))]
    fn limits(&self) -> &'static Limits {
        self.file.limits()
    }

    // Nothing is read through a map, where a bad block would be a signal, and nothing is written or locked.

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<usize> {
        Err(only_for_reading())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn sync(&self, _scope: SyncScope) -> io::Result<()> {
        Err(only_for_reading())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Err(only_for_reading())
    }

    fn unlock(&self) -> io::Result<()> {
        Err(only_for_reading())
    }
}

fn only_for_reading() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sim::{Fault, Repeat, SimDisk, Verb, When};
    use super::super::{Access, Disk};
    use super::*;

    const PATH: &str = "/file";
    const LEN: usize = 5 * BLOCK as usize + 100;

    fn file() -> (SimDisk, AroundBadBlocks) {
        let disk = SimDisk::new();
        disk.set_contents(PATH, vec![7; LEN]);
        let file = disk.open(Path::new(PATH), Access::Read).unwrap();
        (disk, AroundBadBlocks::new(file))
    }

    /// Returns the blocks that read as zeros, in reads of this length. The others must be unchanged.
    fn zeros(file: &AroundBadBlocks, len: usize) -> Vec<u64> {
        let mut bytes = Vec::new();
        loop {
            let mut buffer = vec![1; len];
            let got = file.read_at(bytes.len() as u64, &mut buffer).unwrap();
            if got == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..got]);
        }
        assert_eq!(bytes.len(), LEN);
        let blocks = bytes.chunks(BLOCK as usize).zip(0..);
        let lost = blocks.filter(|(block, _)| block.iter().any(|&byte| byte != 7));
        lost.map(|(block, at)| if block.iter().all(|&byte| byte == 0) { at } else { panic!("{at} is mixed") }).collect()
    }

    #[test]
    fn unreadable_blocks_are_zeros_and_the_rest_is_unchanged() {
        for len in [1000, 4096, 9000, LEN + 1] {
            let (disk, file) = file();
            assert_eq!((zeros(&file, len), file.unreadable()), (vec![], vec![]));
            for block in [3, 1, 5, 2] {
                disk.spoil(PATH, block * BLOCK + 50);
            }
            assert_eq!(zeros(&file, len), [1, 2, 3, 5]);
            assert_eq!(file.unreadable(), [BLOCK..4 * BLOCK, 5 * BLOCK..LEN as u64], "not beyond the file's end");
        }
    }

    #[test]
    fn a_block_that_failed_is_not_read_again() {
        let (disk, file) = file();
        // The long read, and the read of the block.
        for nth in [1, 2] {
            disk.fail(When::nth(nth).of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
        }
        assert_eq!(zeros(&file, LEN), [0]);
        let (calls, bytes) = (disk.calls_of(Verb::ReadAt), disk.bytes_read());
        assert_eq!(zeros(&file, LEN), [0]);
        assert_eq!(disk.bytes_read() - bytes, LEN as u64 - BLOCK);
        assert_eq!(disk.calls_of(Verb::ReadAt) - calls, 2, "the rest, and the file's end");
    }

    #[test]
    fn a_read_that_succeeds_again_loses_nothing() {
        let (disk, file) = file();
        disk.fail(When::nth(1).of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
        assert_eq!((zeros(&file, LEN), file.unreadable()), (vec![], vec![]));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Vec::new();
        let steps: [(_, &[_]); 7] = [
            (8..12, &[(8, 12)]),
            (20..24, &[(8, 12), (20, 24)]),
            (0..4, &[(0, 4), (8, 12), (20, 24)]),
            (12..16, &[(0, 4), (8, 16), (20, 24)]),
            (4..8, &[(0, 16), (20, 24)]),
            (20..28, &[(0, 16), (20, 28)]),
            (16..20, &[(0, 28)]),
        ];
        for (new, all) in steps {
            add(&mut ranges, new);
            let found: Vec<_> = ranges.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, all);
        }
    }
}
