//! The window: the part of a file that was read last.

use super::LogFile;
use crate::Result;
use crate::limits::Shared;
use crate::memory::make_room;

#[cfg(test)]
pub(super) const LARGEST_WINDOW: usize = crate::limits::Limits::REAL.largest_window();
#[cfg(test)]
pub(super) const USUAL_WINDOW: usize = crate::limits::Limits::REAL.usual_window();

/// A window that is restarted reads this part of what a new one reads.
const RESTARTED: usize = 16;

/// A buffer for walks from the start of a file to its end.
pub(crate) struct Window {
    bytes: Vec<u8>,
    start: u64,
    /// Short at first: most walks read one group that another process has just written.
    next_len: usize,
    /// Up to here, nothing is read ahead that lies further: see [`Window::keep_to_data`].
    data_end: u64,
}

impl Window {
    pub(crate) fn new(log: &LogFile) -> Window {
        Window { bytes: Vec::new(), start: 0, next_len: log.limits.smallest_window(), data_end: 0 }
    }

    /// Reads ahead no further than the data that the file has at `offset`. A writer extends the file, and what lies beyond the log's
    /// end is a hole. To read from it, the system would fill as many pages with zeros as it reads ahead: up to megabytes.
    pub(super) fn keep_to_data(&mut self, log: &LogFile, offset: u64) -> Result<()> {
        self.data_end = log.file.data_end(offset).map_err(|e| log.io("look for the end of the data", e))?;
        Ok(())
    }

    /// Reads very little at first again: the next bytes are probably those of few short records. What was read stays.
    pub(super) fn restart(&mut self, limits: Shared) {
        self.next_len = limits.smallest_window() / RESTARTED;
    }

    /// Forgets what was read, and reads very little at first. The memory of a long record is given back.
    pub(crate) fn start_over(&mut self, limits: Shared) {
        self.restart(limits);
        self.forget();
        if self.bytes.capacity() > limits.largest_window() {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Up to `wanted` bytes at `offset`. Fewer only where the file ends.
    #[inline]
    pub(crate) fn get(&mut self, log: &LogFile, offset: u64, wanted: usize) -> Result<&[u8]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if !held.contains(&offset) || held.end < offset + wanted as u64 {
            let data = match self.data_end.saturating_sub(offset) {
                0 => usize::MAX,
                data => usize::try_from(data).unwrap_or(usize::MAX),
            };
            let len = wanted.max(self.next_len.min(data));
            self.next_len = (self.next_len * 2).min(log.limits.usual_window());
            self.bytes.clear();
            make_room(&mut self.bytes, len).map_err(|e| log.io("get memory for a value", e))?;
            self.bytes.resize(len, 0);
            self.start = offset;
            let got = log.read_up_to(offset, &mut self.bytes);
            self.bytes.truncate(*got.as_ref().unwrap_or(&0));
            got?;
        }
        let from = (offset - self.start) as usize;
        let to = self.bytes.len().min(from + wanted);
        Ok(&self.bytes[from..to])
    }
}
