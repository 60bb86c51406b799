//! Walking from unit to unit by the headers alone, for a reader that follows a log.
//!
//! The walk goes over a part of the log that a [scanner](super::scan) has validated before. So it need not read bodies to know
//! that a unit is whole. A header that is not what it was is damage, or the log was cut meanwhile: the caller finds out.

use super::LogFile;
use super::tail::Cursor;
use super::window::Window;
use crate::format::{Ancillary, Damage, Expiry, Kind, Place, RECORD_HEADER_LEN, RecordHeader, Verdict};
use crate::{Error, Result};

/// A single record, or all records of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
    /// The sequence number of its first put or delete.
    pub(crate) first_event: Option<u64>,
    /// The sequence number of its last put or delete.
    pub(crate) last_event: Option<u64>,
    /// Whether one of its puts and deletes is wanted.
    pub(crate) is_wanted: bool,
    /// It is `MOVED`.
    pub(crate) moved: bool,
}

/// A record of a unit.
pub(crate) struct Record<'w> {
    pub(crate) header: RecordHeader,
    pub(crate) full_key: &'w [u8],
    /// The value that users see.
    pub(crate) value: &'w [u8],
    /// How long the pair counts.
    pub(crate) expiry: Option<Expiry>,
}

/// A log and the part of it that was read last.
pub(crate) struct Units<'a> {
    pub(crate) log: &'a LogFile,
    pub(crate) window: &'a mut Window,
}

impl<'a> Units<'a> {
    /// The unit at a place. `None` if the log ends there, or where `end` is.
    ///
    /// `is_wanted` is asked about puts and deletes, by header and full key, until one is wanted.
    ///
    /// # Errors
    ///
    /// I/O errors, [`Error::UnsupportedRecord`], and [`Error::Corrupt`] if no true header stands where one should.
    pub(crate) fn next(
        &mut self,
        start: &Cursor,
        end: u64,
        mut is_wanted: impl FnMut(&RecordHeader, &[u8]) -> bool,
    ) -> Result<Option<Unit>> {
        let (start, mut last) = (*start, None);
        let mut unit = Unit { start, end: start, first_event: None, last_event: None, is_wanted: false, moved: false };
        loop {
            if unit.end.offset >= end {
                break;
            }
            let Some(header) = self.header(&unit.end, end)? else { break };
            if header.kind.is_event() {
                unit.is_wanted = unit.is_wanted || is_wanted(&header, self.full_key(&unit.end, &header)?);
                unit.first_event = unit.first_event.or(Some(header.seq));
                unit.last_event = Some(header.seq);
            }
            unit.moved = header.kind == Kind::Ancillary(Ancillary::Moved);
            unit.end = unit.end.after(&header);
            if header.record_len() > self.log.limits.smallest_window() as u64 {
                // Its body is not read here, and few records may follow it.
                self.window.restart(self.log.limits);
            }
            last = Some(header);
            if !header.flags.more {
                return Ok(Some(unit));
            }
        }
        // A batch that was whole has lost its end.
        last.map_or(Ok(None), |_| Err(self.log.corrupt(unit.end.offset, Damage::BrokenBatch)))
    }

    /// The place of the first wanted put or delete from a place in a unit on. `None` if the unit has no more.
    ///
    /// # Errors
    ///
    /// As [`Units::next`].
    pub(crate) fn find(
        &mut self,
        from: &Cursor,
        end: u64,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Cursor>> {
        let mut at = *from;
        while at.offset < end {
            let header = self.header(&at, end)?.ok_or_else(|| self.log.corrupt(at.offset, Damage::Zeros))?;
            if header.kind.is_event() && is_wanted(self.full_key(&at, &header)?) {
                return Ok(Some(at));
            }
            at = at.after(&header);
        }
        Ok(None)
    }

    /// The header of the record at a place. The whole record is verified, and [`Units::into_record`] can lend it.
    ///
    /// # Errors
    ///
    /// As [`Units::next`].
    pub(crate) fn verified(&mut self, at: &Cursor, end: u64) -> Result<RecordHeader> {
        let log = self.log;
        let header = self.header(at, end)?.ok_or_else(|| log.corrupt(at.offset, Damage::Zeros))?;
        let record = body(log, self.window, at, header.record_len() as usize)?;
        let (key, value) = record[RECORD_HEADER_LEN..].split_at(header.key_len.into());
        let (found, computed) = (header.body_crc, header.computed_body_crc(key, value));
        if computed == found { Ok(header) } else { Err(log.corrupt(at.offset, Damage::Body { found, computed })) }
    }

    /// The record with this header at a place, which was verified. The window still has it, so it is not read again.
    ///
    /// # Errors
    ///
    /// As [`Units::next`].
    pub(crate) fn into_record(self, at: &Cursor, header: RecordHeader) -> Result<Record<'a>> {
        let bytes = body(self.log, self.window, at, header.record_len() as usize)?;
        let (full_key, stored) = bytes[RECORD_HEADER_LEN..].split_at(header.key_len.into());
        let (expiry, value) = header.split_value(stored);
        Ok(Record { header, full_key, value, expiry })
    }

    /// The header at a place. `None` if the end mark stands there.
    fn header(&mut self, at: &Cursor, end: u64) -> Result<Option<RecordHeader>> {
        let bytes = self.window.get(self.log, at.offset, RECORD_HEADER_LEN)?;
        let mut header = [0; RECORD_HEADER_LEN];
        // Only an end mark can stand so near to the file's end.
        header[..bytes.len()].copy_from_slice(bytes);
        let place =
            Place { seed: self.log.seed, offset: at.offset, file_len: end, after: self.log.seq_bound(at.previous_seq) };
        match RecordHeader::judge(&header, place) {
            Verdict::True(header) => Ok(Some(header)),
            Verdict::End => Ok(None),
            Verdict::False(damage) => Err(self.log.corrupt(at.offset, damage)),
            Verdict::Unsupported { kind, flags } => {
                let path = self.log.path.to_path_buf();
                Err(Error::UnsupportedRecord { path, offset: at.offset, kind, flags })
            }
        }
    }

    fn full_key(&mut self, at: &Cursor, header: &RecordHeader) -> Result<&[u8]> {
        let bytes = body(self.log, self.window, at, RECORD_HEADER_LEN + usize::from(header.key_len))?;
        Ok(&bytes[RECORD_HEADER_LEN..])
    }
}

/// The first bytes of the record at a place.
fn body<'w>(log: &LogFile, window: &'w mut Window, at: &Cursor, len: usize) -> Result<&'w [u8]> {
    let bytes = window.get(log, at.offset, len)?;
    if bytes.len() < len {
        let damage = Damage::BeyondFile { end: at.offset + len as u64, file_len: at.offset + bytes.len() as u64 };
        return Err(log.corrupt(at.offset, damage));
    }
    Ok(bytes)
}
