//! What a reader remembers of an unfinished group at the log's end, so as not to take it apart with every call.
//!
//! A write brings its bytes in ascending order into a place that holds zeros. So what it has still to bring that makes
//! a difference lies behind the last byte that is not zero: while there are only zeros, nothing has changed.

use crate::Result;
use crate::format::{END_MARK_LEN, RECORD_HEADER_LEN, RecordHeader};
use crate::log::LogFile;
use crate::log::scan::Stop;

/// So many bytes before the last one that is not zero are compared: a processor may show the bytes that another one
/// copies in a slightly different order. Most groups are smaller than this, and compared as a whole.
const COMPARED: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct PartialTail {
    start: u64,
    /// Behind the last byte that is not zero.
    frontier: u64,
    /// Where the record that stopped the walk would end, its end mark included.
    end: u64,
    /// How far up to `end` the file reached. A write that extends the file may grow it page by page, and what it
    /// brings beyond the old end may be zeros.
    reached: u64,
    sample: Vec<u8>,
}

impl PartialTail {
    /// Remembers what stands where a walk has stopped.
    pub(crate) fn look(log: &LogFile, stop: &Stop) -> Result<PartialTail> {
        let mut header = [0; RECORD_HEADER_LEN];
        log.read_up_to(stop.at, &mut header)?;
        // Whether this is a true header does not matter: it only says where to look.
        let len = RecordHeader::decode(&header).map_or(0, |header| header.padded_len());
        let (start, end) = (stop.unit, stop.at + len.max(RECORD_HEADER_LEN as u64) + END_MARK_LEN);
        let reached = log.len()?.min(end);
        let mut frontier = start;
        let _: Option<()> = each_piece(log, start, end, |at, piece| {
            if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
                frontier = at + last as u64 + 1;
            }
            None
        })?;
        let sample = sample(log, start, frontier)?;
        Ok(PartialTail { start, frontier, end, reached, sample })
    }

    /// Whether reading again would find the same.
    pub(crate) fn is_unchanged(&self, log: &LogFile) -> bool {
        let any = |_, piece: &[u8]| piece.iter().any(|&byte| byte != 0).then_some(());
        log.len().is_ok_and(|len| len.min(self.end) == self.reached)
            && sample(log, self.start, self.frontier).is_ok_and(|now| now == self.sample)
            && each_piece(log, self.frontier, self.end, any).is_ok_and(|found| found.is_none())
    }
}

/// The header that stands first, which a cut and another group in its place would change, and what stands last.
fn sample(log: &LogFile, start: u64, frontier: u64) -> Result<Vec<u8>> {
    let last = (frontier - start).min(COMPARED) as usize;
    let mut sample = vec![0; RECORD_HEADER_LEN + last];
    log.read_up_to(start, &mut sample[..RECORD_HEADER_LEN])?;
    log.read_up_to(frontier - last as u64, &mut sample[RECORD_HEADER_LEN..])?;
    Ok(sample)
}

/// Shows what stands between two places, piece by piece and without the holes, until `look` has found something.
fn each_piece<T>(
    log: &LogFile,
    mut at: u64,
    end: u64,
    mut look: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Result<Option<T>> {
    let mut buffer = [0; 16 << 10];
    while let Some(data) = log.file.next_data(at).map_err(|e| log.io("look for data", e))? {
        at = data.max(at);
        let wanted = end.saturating_sub(at).min(buffer.len() as u64) as usize;
        let got = log.read_up_to(at, &mut buffer[..wanted])?;
        if got == 0 {
            break;
        }
        if let Some(found) = look(at, &buffer[..got]) {
            return Ok(Some(found));
        }
        at += got as u64;
    }
    Ok(None)
}
