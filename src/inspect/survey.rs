//! [`Survey`]: one walk over a whole file, beyond damage too, that finds what verifies and what is lost. Salvage,
//! verification and inspection use it.
//!
//! A survey takes no lock and changes nothing, while other processes may write. So it reads a damaged place a second
//! time after it has seen the proof that the place was written; and if the log was cut meanwhile, it starts again.

use std::ops::Range;
use std::sync::Arc;

use super::compare::Comparison;
use super::source::Source;
use crate::format::Damage;
use crate::format::{
    ALIGNMENT, Ancillary, END_MARK_LEN, FILE_HEADER_LEN, Kind, Place, RECORD_HEADER_LEN, ROOTS_START, RecordHeader,
    Verdict, split_full_key,
};
use crate::log::LogFile;
use crate::log::read::Reader;
use crate::log::run::Run;
use crate::log::scan::{Reason, Scanner, Step, Stop};
use crate::log::search::{Beyond, next_header, search};
use crate::log::tail::Landmark;
use crate::replay::KeySpace;
use crate::report::{Loss, LostKey, Report};
use crate::{Error, Result};

/// How far a survey goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To the log's end, as every reader sees it.
    Log,
    /// To the last byte: whole records after a torn one may be worth having.
    File,
    /// As `File`, without a look at the snapshot of the index: a copy does not have it.
    Salvaged,
    /// As `Salvaged`; and whole records of a batch at the log's end count, although nothing proves that the batch was whole.
    Unfinished,
}

impl Scope {
    fn compares_snapshot(self) -> bool {
        matches!(self, Scope::Log | Scope::File)
    }
}

/// What a walk over a file has found.
pub(crate) struct Survey {
    scope: Scope,
    /// Ends where the last replayed record ends.
    pub(crate) reader: Reader,
    /// The keys that the records that verify leave.
    pub(crate) keys: KeySpace,
    /// The last record's sequence number; 0 if there is none.
    pub(crate) last_seq: u64,
    /// That of the last put or delete, or the file's floor.
    last_event: u64,
    /// `base_seq` of the file header; 0 if the header is lost.
    pub(crate) base_seq: u64,
    pub(crate) report: Report,
    /// The last replayed record says that the log was compacted into another file.
    pub(crate) moved: bool,
    /// The sequence number before the log's end, if a torn tail follows.
    torn_after: Option<u64>,
    /// The last replayed record.
    landmark: Option<Landmark>,
    /// The last record before each loss. If one is gone, the log was cut.
    landmarks: Vec<Landmark>,
    /// The result of the last search.
    beyond: Option<Beyond>,
    /// The offset of the snapshot to which the root leads; 0 if there is none.
    pub(super) snapshot: u64,
    comparison: Comparison,
    listed_key_bytes: usize,
}

impl Survey {
    /// Surveys a file.
    ///
    /// # Errors
    ///
    /// I/O errors, and [`Error::UnsupportedRecord`] for a true header of a later version. Damage is no error.
    pub(crate) fn of(source: &Source, scope: Scope) -> Result<Survey> {
        let (survey, refusal) = Survey::up_to_refusal(source, scope)?;
        refusal.map_or(Ok(survey), Err)
    }

    /// Surveys a file up to a true header of a later version, and returns the error about that beside the survey.
    pub(crate) fn up_to_refusal(source: &Source, scope: Scope) -> Result<(Survey, Option<Error>)> {
        loop {
            let unreadable = source.unreadable();
            let mut survey = Survey::begin(source, scope)?;
            let walked = survey.walk().and_then(|()| survey.look_up_lost_keys());
            // This loop ends. Only recovery cuts a log, and it keeps whole records. What the disk has failed to read is
            // not read again.
            let failed_meanwhile = matches!(walked, Err(Error::Corrupt { .. })) && source.unreadable() != unreadable;
            if survey.is_still_there()? && !failed_meanwhile {
                return match walked {
                    Ok(()) => Ok((survey, None)),
                    Err(error @ Error::UnsupportedRecord { .. }) => Ok((survey, Some(error))),
                    Err(error) => Err(error),
                };
            }
        }
    }

    /// A survey that has read no record yet.
    pub(crate) fn begin(source: &Source, scope: Scope) -> Result<Survey> {
        let log = Arc::clone(&source.log);
        // The length is asked after the root was read: it is never less than any statement before.
        let root = log.root()?;
        let synced_to = root.map(|root| root.synced_to);
        let file_len = log.len()?;
        let comparison = Comparison::of(&log, root.filter(|_| scope.compares_snapshot()))?;
        let mut report = Report {
            synced_to,
            file_len,
            log_end: log.start().min(file_len),
            has_roots: log.header.has_roots,
            ..Report::default()
        };
        report.losses.extend(source.header_damage.map(|damage| lost_head(0..FILE_HEADER_LEN as u64, damage)));
        report
            .losses
            .extend(source.roots_damage.map(|damage| lost_head(ROOTS_START..log.start().min(file_len), damage)));
        Ok(Survey {
            scope,
            keys: KeySpace::new(&log.header),
            last_event: log.header.floor(),
            reader: Reader { end: log.start(), log, map: None, unread: 0 },
            last_seq: 0,
            base_seq: if source.header_damage.is_none() { source.log.header.base_seq } else { 0 },
            report,
            moved: false,
            torn_after: None,
            landmark: None,
            landmarks: Vec::new(),
            beyond: None,
            snapshot: root.map_or(0, |root| root.snapshot),
            comparison,
            listed_key_bytes: 0,
        })
    }

    /// Whether the replayed records are still in the file.
    pub(crate) fn is_still_there(&self) -> Result<bool> {
        for landmark in self.landmarks.iter().chain(&self.landmark) {
            let mut word = [0; 8];
            let got = self.reader.log.read_up_to(landmark.offset, &mut word)?;
            if got < word.len() || u64::from_le_bytes(word) != landmark.word {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn walk(&mut self) -> Result<()> {
        let log = Arc::clone(&self.reader.log);
        let mut scanner = Scanner::from_start(&log)?;
        // Records that are appended from now on are left out: a writer could be faster than this walk.
        let goal = self.report.file_len;
        let mut unit = Run::default();
        self.compare_snapshot()?;
        while self.reader.end < goal {
            match scanner.step(&mut unit)? {
                Step::Unit => self.replay(&unit)?,
                Step::Stopped(stop) => match self.go_beyond(&log, &stop, &mut unit)? {
                    Some(next) => scanner = next,
                    None => break,
                },
            }
        }
        self.report.keys = self.keys.index.len() as u64;
        self.report.cut_off = self.lacks_closing_mark();
        self.report.truncated = self.lacks_its_end();
        if !self.is_torn() {
            self.report.log_end = self.reader.end;
        }
        // Of a log with damage the walk has other keys than the snapshot, or does not reach it.
        if !self.report.lacks_records() && !self.report.truncated {
            self.report.wrong_snapshot = self.comparison.result();
        }
        Ok(())
    }

    /// Compares the snapshot with the keys, if the walk has come to where it ends.
    fn compare_snapshot(&mut self) -> Result<()> {
        self.comparison.reach(&self.reader, self.report.records, (self.last_seq, self.last_event), &self.keys)
    }

    /// Replays what was appended since, up to where the walk stops. New records replace what looked torn before.
    pub(crate) fn catch_up(&mut self) -> Result<Stop> {
        let (log, end) = (Arc::clone(&self.reader.log), self.reader.end);
        // Before the walk and the length, both of which reach at least what the root states now.
        let root = log.root()?;
        let stop = Scanner::resume(&log, end, self.last_seq)?.walk(|unit| self.replay(unit))?;
        if self.reader.end > end {
            self.report.losses.retain(|loss| !loss.torn);
            self.report.torn_bytes = 0;
            self.torn_after = None;
            (self.report.log_end, self.report.file_len) = (self.reader.end, log.len()?);
            self.report.keys = self.keys.index.len() as u64;
            self.report.synced_to = root.map(|root| root.synced_to);
            self.snapshot = root.map_or(0, |root| root.snapshot);
            self.report.truncated = self.lacks_its_end();
        }
        Ok(stop)
    }

    fn replay(&mut self, unit: &Run) -> Result<()> {
        for entry in &unit.entries {
            let (offset, len) = (entry.offset, entry.header.padded_len());
            self.reader.end = offset + len;
            self.last_seq = entry.header.seq;
            if entry.header.kind.is_event() {
                self.last_event = self.last_event.max(entry.header.seq);
            }
            self.landmark = Some(Landmark { offset, word: entry.header.fingerprint() });
            self.moved = entry.header.kind == Kind::Ancillary(Ancillary::Moved);
            self.report.records += 1;
        }
        self.keys.replay(unit, &self.reader)?;
        self.compare_snapshot()
    }

    /// Decides why the walk stopped, and returns the scanner that goes on after the damage, if one can.
    fn go_beyond<'l>(&mut self, log: &'l LogFile, stop: &Stop, unit: &mut Run) -> Result<Option<Scanner<'l>>> {
        let beyond = self.beyond(log, stop)?;
        let damage = match stop.reason {
            Reason::Damaged(damage) => damage,
            Reason::EndMark if beyond.data_end > stop.unit => Damage::Zeros,
            Reason::EndOfFile if beyond.data_end > stop.unit => {
                Damage::BeyondFile { end: stop.unit + RECORD_HEADER_LEN as u64, file_len: log.len()? }
            }
            Reason::EndMark | Reason::EndOfFile => return Ok(None),
        };
        let proven = beyond.proof.is_some_and(|proof| proof > stop.unit);
        // The bytes beyond were written after this place. So if a write was under way when this place was read, it reads
        // differently now.
        let mut again = Scanner::resume(log, stop.unit, stop.previous_seq)?;
        match again.step(unit)? {
            Step::Stopped(same) if same == *stop => {}
            Step::Stopped(_) if proven => return Scanner::resume(log, stop.unit, stop.previous_seq).map(Some),
            Step::Stopped(_) => {
                // A write is under way that is not acknowledged yet.
                self.torn_from(stop.unit, beyond.data_end);
                return Ok(None);
            }
            Step::Unit => {
                self.replay(unit)?;
                return Ok(Some(again));
            }
        }

        // The records of a batch before the damage verify. They count if the batch had been written completely.
        let counts = proven
            || match self.scope {
                Scope::Log => false,
                // A copy gets its name only after a sync of all of it, so no crash has torn this batch.
                Scope::File | Scope::Salvaged => self.lacks_closing_mark(),
                Scope::Unfinished => true,
            };
        let start = if counts { stop.at } else { stop.unit };
        if !proven {
            self.torn_from(stop.unit, beyond.data_end);
        }
        let whole_records = if counts { 0 } else { unit.entries.len() as u64 };
        if counts {
            self.replay(unit)?;
        }
        let record = self.record_at(log, stop.at)?;
        let from = match record {
            // The record verifies, but begins a group where a batch should go on.
            Some((_, true)) if damage == Damage::BrokenBatch => stop.at,
            // The header is true, so the bytes after it are its body: other headers are searched for after that.
            Some((header, true)) => stop.at + header.padded_len(),
            _ => stop.at.max(stop.unit + ALIGNMENT),
        };
        let next = if proven || (beyond.whole_records && self.scope != Scope::Log) {
            next_header(log, from, self.last_seq)?
        } else {
            None
        };
        let begins_batch = matches!(record, Some((header, true)) if header.flags.more);
        let lost = Loss {
            start,
            end: next.unwrap_or(beyond.data_end).max(start),
            damage,
            torn: !proven,
            batch: (stop.at > stop.unit || begins_batch).then_some(stop.unit),
            whole_records,
            keys: Vec::new(),
        };
        self.lose(lost);
        if let Some((header, _)) = record
            .filter(|(header, is_true)| *is_true || next == Some(stop.at + header.padded_len()))
            .filter(|_| damage != Damage::BrokenBatch)
        {
            self.lose_key(log, stop.at, &header)?;
        }
        next.map(|next| Scanner::resume(log, next, self.last_seq)).transpose()
    }

    /// What lies beyond a stop: the result of the last search, if it covers this place, else of a new one.
    fn beyond(&mut self, log: &LogFile, stop: &Stop) -> Result<Beyond> {
        let torn = self.is_torn();
        let known = self
            .beyond
            .filter(|known| known.data_end > stop.unit && (torn || known.proof.is_some_and(|proof| proof > stop.unit)));
        let beyond = known.map_or_else(|| search(log, stop), Ok)?;
        self.beyond = Some(beyond);
        Ok(beyond)
    }

    fn lacks_closing_mark(&self) -> bool {
        // `base_seq` is 0 if the header is lost. Records after a torn end are not of the log.
        self.base_seq > 0 && self.base_seq >= self.torn_after.unwrap_or(self.last_seq)
    }

    /// Whether the file, or what it has of the log, ends before what was on stable storage.
    fn lacks_its_end(&self) -> bool {
        let log = &self.reader.log;
        let stated = self.report.synced_to.unwrap_or(log.start());
        let reached = self.report.losses.last().map_or(self.reader.end, |last| last.end.max(self.reader.end));
        reached < stated || log.header.has_roots && self.report.file_len < stated + END_MARK_LEN
    }

    fn is_torn(&self) -> bool {
        self.report.losses.last().is_some_and(|loss| loss.torn) || self.report.torn_bytes > 0
    }

    fn torn_from(&mut self, log_end: u64, data_end: u64) {
        if !self.is_torn() {
            (self.report.log_end, self.report.torn_bytes) = (log_end, data_end - log_end);
            self.torn_after = Some(self.last_seq);
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.landmarks.extend(self.landmark.filter(|last| self.landmarks.last() != Some(last)));
        match self.report.losses.last_mut() {
            Some(last) if last.end == loss.start && last.torn == loss.torn && last.start >= self.reader.log.start() => {
                last.end = loss.end;
                last.batch = last.batch.or(loss.batch);
                last.whole_records += loss.whole_records;
            }
            _ => self.report.losses.push(loss),
        }
    }

    /// The header where the walk has stopped, if the bytes look like one, and whether it is true.
    fn record_at(&self, log: &LogFile, at: u64) -> Result<Option<(RecordHeader, bool)>> {
        let mut bytes = [0; RECORD_HEADER_LEN];
        let got = log.read_up_to(at, &mut bytes)?;
        let after = log.seq_bound(self.last_seq);
        if got < bytes.len() || !RecordHeader::plausible(&bytes, after) {
            return Ok(None);
        }
        let place = Place { seed: log.seed, offset: at, file_len: log.len()?, after };
        let is_true = matches!(RecordHeader::judge(&bytes, place), Verdict::True(_));
        Ok(RecordHeader::decode(&bytes).map(|header| (header, is_true)))
    }

    /// Notes the key of a record that is lost.
    fn lose_key(&mut self, log: &LogFile, offset: u64, header: &RecordHeader) -> Result<()> {
        if !header.kind.is_event() {
            return Ok(());
        }
        let mut full_key = vec![0; usize::from(header.key_len)];
        let got = log.read_up_to(offset + RECORD_HEADER_LEN as u64, &mut full_key)?;
        let (Some((bucket, key)), Some(loss)) = (split_full_key(&full_key[..got]), self.report.losses.last_mut())
        else {
            return Ok(());
        };
        if self.listed_key_bytes + got > log.limits.listed_key_bytes() {
            self.report.unlisted_keys += 1;
            return Ok(());
        }
        self.listed_key_bytes += got;
        loss.keys.push(LostKey {
            offset,
            bucket: bucket.to_vec(),
            key: key.to_vec(),
            last_index: header.seq,
            deleted: header.kind == Kind::Delete,
            kept: None,
        });
        Ok(())
    }

    /// Sets for each key of a lost record which value the key has now.
    fn look_up_lost_keys(&mut self) -> Result<()> {
        for key in self.report.losses.iter_mut().flat_map(|loss| &mut loss.keys) {
            let mut full_key = crate::format::prefix_of_bucket(&key.bucket)?;
            full_key.extend_from_slice(&key.key);
            if let Some(position) = self.keys.index.find(&full_key, &self.reader)? {
                key.kept = Some(self.reader.header(position)?.seq);
            }
        }
        Ok(())
    }
}

/// The loss of a part of the file's head.
fn lost_head(at: Range<u64>, damage: Damage) -> Loss {
    Loss { start: at.start, end: at.end, damage, torn: false, batch: None, whole_records: 0, keys: Vec::new() }
}
