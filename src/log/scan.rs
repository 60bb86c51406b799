//! The scanner: walks the log from record to record and reports. It decides nothing and changes nothing.
//!
//! It uses plain reads and not the map: unvalidated bytes may lie beyond the file's end, and may change while another
//! process writes.

use super::LogFile;
use super::run::{Entry, Run};
use super::window::Window;
use crate::format::{
    Ancillary, Damage, END_MARK_LEN, Expiry, Flags, Kind, Place, RECORD_HEADER_LEN, RecordHeader, SESSION_LEN,
    SessionRecord, Verdict, split_full_key,
};
use crate::{Error, Result};

/// Where and why a walk stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The start of the first incomplete unit: the log's end, as far as the log can be read.
    pub(crate) unit: u64,
    /// Where the walk stopped in that unit. Beyond `unit` only inside a batch.
    pub(crate) at: u64,
    /// The sequence number of the record before `unit`, 0 if there is none.
    pub(crate) previous_seq: u64,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The end mark stands here.
    EndMark,
    /// The file ends before an end mark could stand here.
    EndOfFile,
    /// No complete record stands here, or the batch before this place has no last record.
    Damaged(Damage),
}

impl Stop {
    /// The error for a log that ends here, although records were read beyond this place before.
    pub(crate) fn is_damage_in(&self, log: &LogFile) -> Error {
        let damage = if let Reason::Damaged(damage) = self.reason { damage } else { Damage::Zeros };
        log.corrupt(self.at, damage)
    }
}

/// The result of one step.
#[derive(Debug)]
pub(crate) enum Step {
    /// The unit was read.
    Unit,
    Stopped(Stop),
}

pub(crate) struct Scanner<'a> {
    log: &'a LogFile,
    offset: u64,
    previous_seq: u64,
    file_len: u64,
    window: Window,
}

impl<'a> Scanner<'a> {
    /// A walk over the whole log.
    pub(crate) fn from_start(log: &'a LogFile) -> Result<Scanner<'a>> {
        Scanner::resume(log, log.start(), 0)
    }

    /// A walk from an offset at which a record starts or the log ends. `previous_seq` is the sequence number of the
    /// record before it, 0 if there is none.
    pub(crate) fn resume(log: &'a LogFile, offset: u64, previous_seq: u64) -> Result<Scanner<'a>> {
        Ok(Scanner { log, offset, previous_seq, file_len: log.len()?, window: Window::new(log) })
    }

    /// The same walk, which reads ahead no further than the data that the file has here. For walks to the log's end in a file that
    /// may have been extended.
    pub(crate) fn within_data(mut self) -> Result<Scanner<'a>> {
        self.window.keep_to_data(self.log, self.offset)?;
        Ok(self)
    }

    /// Walks to the end of the log, or to the first place that cannot be read, and passes all records to `visit`, in
    /// runs of whole units.
    ///
    /// # Errors
    ///
    /// I/O errors, [`Error::UnsupportedRecord`] for a true header of a later version, and errors of `visit`. All units
    /// before the error were passed on.
    pub(crate) fn walk(&mut self, mut visit: impl FnMut(&Run) -> Result<()>) -> Result<Stop> {
        loop {
            if let Some(stop) = self.walk_to(u64::MAX, &mut visit)? {
                return Ok(stop);
            }
        }
    }

    /// As [`Scanner::walk`], up to an offset at which a unit ends. `None` if it gets there.
    ///
    /// # Errors
    ///
    /// As [`Scanner::walk`].
    pub(crate) fn walk_to(&mut self, end: u64, mut visit: impl FnMut(&Run) -> Result<()>) -> Result<Option<Stop>> {
        let mut run = Run::default();
        while self.offset < end {
            let whole = run.entries.len();
            let stepped = self.step_on(&mut run);
            let goes_on = matches!(stepped, Ok(Step::Unit));
            if !goes_on {
                run.truncate(whole);
            }
            if !run.entries.is_empty() && (!goes_on || run.is_long(self.log.limits) || self.offset >= end) {
                visit(&run)?;
                run.clear();
            }
            if let Step::Stopped(stop) = stepped? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// Reads the next unit. If there is none, `unit` holds the records of an incomplete batch.
    ///
    /// # Errors
    ///
    /// As [`Scanner::walk`].
    pub(crate) fn step(&mut self, unit: &mut Run) -> Result<Step> {
        unit.clear();
        self.step_on(unit)
    }

    /// As [`Scanner::step`], appending to `run`.
    fn step_on(&mut self, run: &mut Run) -> Result<Step> {
        let (start, start_seq, first) = (self.offset, self.previous_seq, run.entries.len());
        loop {
            let Some(reason) = self.read_record(run, first)? else {
                if run.entries.last().is_some_and(|entry| entry.header.flags.more) {
                    continue;
                }
                let unit = &run.entries[first..];
                if unit.len() == 1 || self.is_unchanged(&unit[0])? {
                    return Ok(Step::Unit);
                }
                self.back_to(start, start_seq);
                run.truncate(first);
                continue;
            };
            let in_batch = run.entries.len() > first;
            let reason = match reason {
                Reason::EndMark | Reason::EndOfFile if in_batch => Reason::Damaged(Damage::BrokenBatch),
                reason => reason,
            };
            let stop = Stop { unit: start, at: self.offset, previous_seq: start_seq, reason };
            self.back_to(start, start_seq);
            return Ok(Step::Stopped(stop));
        }
    }

    /// Whether a batch that was just read still begins with the same header.
    ///
    /// Without the lock, another process may cut the batch off between two reads and write another group there. A cut
    /// is made at the start of a unit, here or before, so it changes this first header before anything is written after
    /// it. A new header in this place never has the same sequence number.
    fn is_unchanged(&self, first: &Entry) -> Result<bool> {
        // Not through the window, which has read beyond this batch already.
        let mut bytes = [0; RECORD_HEADER_LEN];
        let len = self.log.read_up_to(first.offset, &mut bytes)?;
        Ok(bytes[..len] == first.header.encode())
    }

    fn back_to(&mut self, offset: u64, previous_seq: u64) {
        self.window.forget();
        (self.offset, self.previous_seq) = (offset, previous_seq);
    }

    /// Reads the record at `self.offset` and moves on, or returns the reason why there is none. The unit's records
    /// begin at `unit.entries[first]`.
    fn read_record(&mut self, unit: &mut Run, first: usize) -> Result<Option<Reason>> {
        let header = match self.judge()? {
            Ok(header) => header,
            Err(reason) => return Ok(Some(reason)),
        };
        let (offset, in_batch) = (self.offset, unit.entries.len() > first);
        if in_batch && (header.flags.synced || header.kind.is_loose()) {
            // Only the first record of a group has the flag, and a loose record is a unit. So a new unit starts here, and
            // the batch before it is incomplete.
            return Ok(Some(Reason::Damaged(Damage::BrokenBatch)));
        }
        if header.kind.is_loose() {
            return self.pass_over(unit, offset, header);
        }
        let key_len = usize::from(header.key_len);
        let wanted = if header.record_len() <= self.log.limits.largest_window() as u64 {
            header.record_len() as usize
        } else {
            RECORD_HEADER_LEN + key_len + header.kind.replayed_len().min(header.value_len as usize)
        };
        let bytes = self.window.get(self.log, offset, wanted)?;
        if bytes.len() < wanted {
            let end = offset + header.record_len();
            return Ok(Some(Reason::Damaged(Damage::BeyondFile { end, file_len: offset + bytes.len() as u64 })));
        }
        let (key, value) = bytes[RECORD_HEADER_LEN..].split_at(key_len);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(RecordHeader::meaning_and_body(bytes));
        let form_holds = has_form(&header, offset, key, value);
        let proof = match header.kind {
            _ if header.flags.synced => Some(offset),
            Kind::Ancillary(Ancillary::SyncedTo) => stated(offset, value),
            _ => None,
        };
        let replayed = value.get(..header.kind.replayed_len()).unwrap_or_default();
        let room = unit.make_room(1, key_len + replayed.len());
        room.map_err(|e| self.log.io("get memory for keys", e))?;
        unit.push(offset, header, proof, key, replayed);
        let in_window = value.len() as u64;
        let computed = self.finish_body(hasher, offset + wanted as u64, u64::from(header.value_len) - in_window)?;
        let damage = match computed {
            Some(computed) if computed != header.body_crc => Damage::Body { found: header.body_crc, computed },
            None => Damage::BeyondFile { end: offset + header.record_len(), file_len: self.log.len()? },
            Some(_) if !form_holds => Damage::Form,
            Some(_) => {
                self.offset = offset + header.padded_len();
                self.previous_seq = header.seq;
                return Ok(None);
            }
        };
        unit.entries.pop();
        Ok(Some(Reason::Damaged(damage)))
    }

    /// Moves past a loose record. Its body is not read.
    #[cold]
    fn pass_over(&mut self, unit: &mut Run, offset: u64, header: RecordHeader) -> Result<Option<Reason>> {
        if header.flags != Flags::NONE {
            return Ok(Some(Reason::Damaged(Damage::Form)));
        }
        unit.make_room(1, 0).map_err(|e| self.log.io("get memory for keys", e))?;
        unit.push(offset, header, None, b"", b"");
        // The body may be long, and few records may follow it.
        self.window.restart(self.log.limits);
        self.offset = offset + header.padded_len();
        self.previous_seq = header.seq;
        Ok(None)
    }

    /// Hashes the rest of a body that is too long for the window. `None` if the file ends before the body.
    fn finish_body(&mut self, mut hasher: crc32fast::Hasher, mut offset: u64, mut left: u64) -> Result<Option<u32>> {
        while left > 0 {
            let wanted = left.min(self.log.limits.largest_window() as u64) as usize;
            let bytes = self.window.get(self.log, offset, wanted)?;
            if bytes.len() < wanted {
                return Ok(None);
            }
            hasher.update(bytes);
            offset += wanted as u64;
            left -= wanted as u64;
        }
        Ok(Some(hasher.finalize()))
    }

    /// The header at `self.offset`, or the reason why there is none.
    #[inline]
    fn judge(&mut self) -> Result<std::result::Result<RecordHeader, Reason>> {
        let place = self.place();
        let available = self.window.get(self.log, self.offset, RECORD_HEADER_LEN)?;
        if let Some(Verdict::True(header)) = available.first_chunk().map(|bytes| RecordHeader::judge(bytes, place)) {
            return Ok(Ok(header));
        }
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..available.len()].copy_from_slice(available);
        let available = available.len() as u64;
        self.judge_closely(&bytes, available)
    }

    fn place(&self) -> Place {
        Place {
            seed: self.log.seed,
            offset: self.offset,
            file_len: self.file_len,
            after: self.log.seq_bound(self.previous_seq),
        }
    }

    /// Judges bytes that are no true header at first sight. `available` of them were in the file; the others are zeros.
    #[cold]
    fn judge_closely(
        &mut self,
        bytes: &[u8; RECORD_HEADER_LEN],
        available: u64,
    ) -> Result<std::result::Result<RecordHeader, Reason>> {
        let mut verdict = RecordHeader::judge(bytes, self.place());
        if matches!(verdict, Verdict::False(Damage::BeyondFile { .. })) {
            // The file may have grown since the walk began.
            self.file_len = self.log.len()?;
            verdict = RecordHeader::judge(bytes, self.place());
        }
        Ok(match verdict {
            Verdict::True(header) => Ok(header),
            // No end mark fits here, so a reader that peeks must not take these bytes for a change.
            _ if available < END_MARK_LEN => Err(Reason::EndOfFile),
            Verdict::End => Err(Reason::EndMark),
            Verdict::False(damage) => Err(Reason::Damaged(damage)),
            Verdict::Unsupported { kind, flags } => {
                let (path, offset) = (self.log.path.to_path_buf(), self.offset);
                return Err(Error::UnsupportedRecord { path, offset, kind, flags });
            }
        })
    }
}

/// Whether the body has the form that its kind demands. Later code relies on it.
///
/// `value` is the whole value, or as much of its beginning as replay needs if it is long.
pub(crate) fn has_form(header: &RecordHeader, offset: u64, key: &[u8], value: &[u8]) -> bool {
    match header.kind {
        Kind::Put | Kind::PutWith => split_full_key(key).is_some() && header.has_room_for_expiry(),
        Kind::Delete => split_full_key(key).is_some() && header.value_len == 0,
        Kind::Session => {
            let says = value.first_chunk().map(SessionRecord::decode);
            header.key_len == 0
                && header.value_len as usize == SESSION_LEN
                && says.is_some_and(|says| says.fits(header.seq))
        }
        Kind::PutOwned => {
            let owner = value.first_chunk().and_then(|expiry| Expiry::decode(header.kind, expiry).owner);
            split_full_key(key).is_some() && owner.is_some_and(|owner| owner.fits(header.seq))
        }
        Kind::Ancillary(Ancillary::SyncedTo) => header.key_len == 0 && stated(offset, value).is_some(),
        Kind::Ancillary(_) => true,
    }
}

/// The offset that a `SYNCED_TO` with this value states; `None` if it has another length, or is after the record itself.
fn stated(offset: u64, value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes).filter(|&stated| stated <= offset)
}

#[cfg(test)]
mod tests;
