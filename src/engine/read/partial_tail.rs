//! An unfinished group at the log's end, remembered so that a reader does not scan it again with every call.
//!
//! A write fills a range of zeros in ascending order. So while only zeros follow its last byte that is not zero, the write has
//! made no progress that matters.

use crate::Result;
use crate::format::{END_MARK_LEN, RECORD_HEADER_LEN, RecordHeader};
use crate::log::LogFile;
use crate::log::scan::Stop;

#[derive(Debug)]
pub(crate) struct PartialTail {
    start: u64,
    /// The end of the last byte that is not zero.
    data_end: u64,
    /// The end of the record that stopped the walk, with its end mark.
    end: u64,
    /// The file's length, or `end` if that is less. A write may extend the file page by page, and the new pages may hold zeros.
    reached: u64,
    sample: Vec<u8>,
}

impl PartialTail {
    /// Remembers the bytes where a walk has stopped.
    pub(crate) fn look(log: &LogFile, stop: &Stop) -> Result<PartialTail> {
        let mut header = [0; RECORD_HEADER_LEN];
        log.read_up_to(stop.at, &mut header)?;
        // This need not be a true header: it only says where to look.
        let len = RecordHeader::decode(&header).map_or(0, |header| header.padded_len());
        let (start, end) = (stop.unit, stop.at + len.max(RECORD_HEADER_LEN as u64) + END_MARK_LEN);
        let reached = log.len()?.min(end);
        let mut data_end = start;
        let _: Option<()> = each_piece(log, start, end, |at, piece| {
            if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
                data_end = at + last as u64 + 1;
            }
            None
        })?;
        let sample = sample(log, start, data_end)?;
        Ok(PartialTail { start, data_end, end, reached, sample })
    }

    /// Returns whether reading again would find the same.
    pub(crate) fn is_unchanged(&self, log: &LogFile) -> bool {
        let any = |_, piece: &[u8]| piece.iter().any(|&byte| byte != 0).then_some(());
        log.len().is_ok_and(|len| len.min(self.end) == self.reached)
            && sample(log, self.start, self.data_end).is_ok_and(|now| now == self.sample)
            && each_piece(log, self.data_end, self.end, any).is_ok_and(|found| found.is_none())
    }
}

/// The first header, which changes if this group is cut off and another one takes its place, and the last bytes.
fn sample(log: &LogFile, start: u64, data_end: u64) -> Result<Vec<u8>> {
    // A processor may see the bytes that another one copies in a slightly different order. Most groups are smaller than this,
    // and are compared as a whole.
    let last = (data_end - start).min(log.limits.compared()) as usize;
    let mut sample = vec![0; RECORD_HEADER_LEN + last];
    log.read_up_to(start, &mut sample[..RECORD_HEADER_LEN])?;
    log.read_up_to(data_end - last as u64, &mut sample[RECORD_HEADER_LEN..])?;
    Ok(sample)
}

/// Shows the bytes of a range, piece by piece and without the holes, until `look` has found something.
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
