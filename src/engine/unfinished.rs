//! What a reader remembers of an unfinished group at the log's end, so as not to take it apart with every call.

use std::time::{Duration, Instant};

use crate::Result;
use crate::format::{END_MARK_LEN, RECORD_HEADER_LEN, RecordHeader};
use crate::log::LogFile;
use crate::log::scan::Stop;

/// Up to this many bytes are compared as a whole, which is exact.
const SMALL: u64 = 64 << 10;

/// Of more bytes, only those written first and last are compared: a writer's bytes arrive in ascending order, so the
/// last ones tell when it is done, except for a value that ends in zeros. For that, the group is read again all the
/// same when this many times the last reading's duration have passed.
const PATIENCE: u32 = 4;

#[derive(Debug)]
pub(crate) struct Unfinished {
    start: u64,
    /// Where the record that stopped the walk would end, its end mark included.
    end: u64,
    /// How far up to `end` the file reached. A write that extends the file may grow it page by page, and what it
    /// brings beyond the old end may be zeros.
    reached: u64,
    sample: Vec<u8>,
    looked: Instant,
    cost: Duration,
}

impl Unfinished {
    /// Remembers what stands where a walk, which began at `started`, has stopped.
    pub(crate) fn look(log: &LogFile, stop: &Stop, started: Instant) -> Result<Unfinished> {
        let mut header = [0; RECORD_HEADER_LEN];
        log.read_up_to(stop.at, &mut header)?;
        // Whether this is a true header does not matter: it only says where to look.
        let len = RecordHeader::decode(&header).map_or(0, |header| header.padded_len());
        let end = stop.at + len.max(RECORD_HEADER_LEN as u64) + END_MARK_LEN;
        let reached = log.len()?.min(end);
        let sample = sample(log, stop.unit, end)?;
        Ok(Unfinished { start: stop.unit, end, reached, sample, looked: Instant::now(), cost: started.elapsed() })
    }

    /// Whether reading again would find the same.
    pub(crate) fn is_unchanged(&self, log: &LogFile) -> bool {
        let sure = self.end - self.start <= SMALL || self.looked.elapsed() < self.cost * PATIENCE;
        sure && log.len().is_ok_and(|len| len.min(self.end) == self.reached)
            && sample(log, self.start, self.end).is_ok_and(|now| now == self.sample)
    }
}

/// What stands there; zeros where the file ends before.
fn sample(log: &LogFile, start: u64, end: u64) -> Result<Vec<u8>> {
    let len = (end - start) as usize;
    let (first, last) = if len as u64 <= SMALL { (len, 0) } else { (RECORD_HEADER_LEN, 2 * END_MARK_LEN as usize) };
    let mut sample = vec![0; first + last];
    log.read_up_to(start, &mut sample[..first])?;
    log.read_up_to(end - last as u64, &mut sample[first..])?;
    Ok(sample)
}
