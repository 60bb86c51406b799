//! The survey: one walk over all of a file, beyond damage too, that finds what verifies and what is lost. Salvage,
//! verification and inspection are made of it.
//!
//! It takes no lock and changes nothing, and others may be writing meanwhile: what looks lost is looked at once more
//! after the proof that it had been written was seen, and if the log was cut while it was read, all of it is read again.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Access, AroundBadBlocks, Disk, DiskFile};
use crate::format::Damage;
use crate::format::{
    ALIGNMENT, Ancillary, FILE_HEADER_LEN, Kind, Place, RECORD_HEADER_LEN, RecordHeader, Verdict, split_full_key,
};
use crate::index::Index;
use crate::log::read::Reader;
use crate::log::scan::{Reason, Run, Scanner, Step, Stop};
use crate::log::search::{Beyond, next_header, search};
use crate::log::tail::Landmark;
use crate::log::{LogFile, lost_header};
use crate::report::{Loss, LostKey, Report};
use crate::{Error, Result};

/// How far a survey goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To the log's end, as every reader sees it.
    Log,
    /// To the last byte: what is whole behind a torn record may be worth something to somebody.
    File,
    /// The same, and whole records of a batch at the log's end count, although nothing proves that it was ever whole.
    Unfinished,
}

/// The names of lost keys may take up this much memory; the rest is counted.
const LISTED_KEY_BYTES: usize = 1 << 20;

/// A file whose header may be lost.
pub(crate) struct Source {
    pub(crate) log: Arc<LogFile>,
    pub(crate) header_damage: Option<Damage>,
    /// Through which it is read, if a disk that fails in some places is no reason to give up.
    around: Option<Arc<AroundBadBlocks>>,
}

impl Source {
    /// Opens a file for reading, whatever state it is in. What the disk cannot read of it is taken for zeros.
    ///
    /// # Errors
    ///
    /// As [`LogFile::open`], if the records do not tell what file this is; the disk's, if it could not read them.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Source> {
        let (path, file) = open(disk, path)?;
        let around = Arc::new(AroundBadBlocks::new(file));
        let (source, refusal) = Source::of_file(around.clone(), &path)?;
        match refusal {
            None => Ok(Source { around: Some(around), ..source }),
            Some(refusal) if around.unreadable().is_empty() => Err(refusal),
            Some(_) => Err(Error::io("read", &path, std::io::Error::from_raw_os_error(libc::EIO))),
        }
    }

    /// Opens a file, also one whose records cannot be read, with the error that says why not: one of a later version, or
    /// one without a header that holds and too few records to do without.
    pub(crate) fn open_or_say_why(disk: &dyn Disk, path: &Path) -> Result<(Source, Option<Error>)> {
        let (path, file) = open(disk, path)?;
        Source::of_file(file, &path)
    }

    fn of_file(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<(Source, Option<Error>)> {
        let error = match LogFile::open(Arc::clone(&file), path) {
            Ok(log) => return Ok((Source::sound(Arc::new(log)), None)),
            Err(error) => error,
        };
        let header_damage = match error {
            Error::Corrupt { damage, .. } => Some(damage),
            Error::NotCaskfile { .. } => Some(Damage::Magic),
            // Not even the records of a later version can be relied on to be what they seem.
            Error::UnsupportedVersion { .. } => None,
            other => return Err(other),
        };
        let nameless = lost_header::without_header(file, path)?;
        let seed = if header_damage.is_some() { lost_header::find_seed(&nameless)? } else { None };
        let refusal = if seed.is_some() { None } else { Some(error) };
        let log = LogFile { seed: seed.unwrap_or(nameless.seed), ..nameless };
        Ok((Source::of_log(Arc::new(log), header_damage), refusal))
    }

    /// A log whose header was read and found good.
    pub(crate) fn sound(log: Arc<LogFile>) -> Source {
        Source::of_log(log, None)
    }

    /// A log that was opened before, whose header may have been lost.
    pub(crate) fn of_log(log: Arc<LogFile>, header_damage: Option<Damage>) -> Source {
        Source { log, header_damage, around: None }
    }

    /// What the disk could not read up to now.
    pub(crate) fn unreadable(&self) -> Vec<Range<u64>> {
        self.around.as_ref().map_or_else(Vec::new, |around| around.unreadable())
    }
}

/// How often, and how long in between, it is tried to open a file on which another process has a lease. In all a little
/// longer than the 45 seconds after which Linux ends a lease that is not given up.
const LEASE_TRIES: u32 = 10_000;
const LEASE_PAUSE: Duration = Duration::from_millis(5);

fn open(disk: &dyn Disk, path: &Path) -> Result<(Arc<Path>, Arc<dyn DiskFile>)> {
    let path: Arc<Path> = disk.resolve(path).map_err(|e| Error::io("resolve", path, e))?.into();
    let mut tries = 0;
    loop {
        match disk.open(&path, Access::Read) {
            // A lease, which the system ends before long.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && tries < LEASE_TRIES => {
                tries += 1;
                disk.pause(LEASE_PAUSE);
            }
            opened => return Ok((Arc::clone(&path), opened.map_err(|e| Error::io("open", &path, e))?)),
        }
    }
}

/// What was found.
pub(crate) struct Survey {
    scope: Scope,
    /// Its end is that of the last record that was taken in.
    pub(crate) reader: Reader,
    /// The newest record of each key.
    pub(crate) index: Index,
    /// Bytes of the records that the index points to.
    pub(crate) live_bytes: u64,
    /// The index of the last record; 0 if there is none.
    pub(crate) last_index: u64,
    /// The file header's; 0 if that is lost.
    pub(crate) base_seq: u64,
    pub(crate) report: Report,
    /// The last record that was taken in says that the log was compacted into another file.
    pub(crate) moved: bool,
    /// The last record that was taken in.
    landmark: Option<Landmark>,
    /// The last one before each loss. By these the log is recognised.
    landmarks: Vec<Landmark>,
    /// What the last search has found.
    beyond: Option<Beyond>,
    listed_key_bytes: usize,
}

impl Survey {
    /// Surveys a file.
    ///
    /// # Errors
    ///
    /// I/O errors, and [`Error::UnsupportedRecord`] for a true header of a later version. Damage is none.
    pub(crate) fn of(source: &Source, scope: Scope) -> Result<Survey> {
        let (survey, refusal) = Survey::up_to_refusal(source, scope)?;
        refusal.map_or(Ok(survey), Err)
    }

    /// The same, but a true header of a later version only ends the survey: it is told beside what lies before it.
    pub(crate) fn up_to_refusal(source: &Source, scope: Scope) -> Result<(Survey, Option<Error>)> {
        loop {
            let unreadable = source.unreadable();
            let mut survey = Survey::begin(source, scope)?;
            let walked = survey.walk().and_then(|()| survey.look_up_lost_keys());
            // Only another process's recovery cuts a log, and never what it found whole; and what the disk failed to read
            // once is not read again: this ends.
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

    /// A survey that has seen nothing yet.
    pub(crate) fn begin(source: &Source, scope: Scope) -> Result<Survey> {
        let log = Arc::clone(&source.log);
        let mut report = Report { file_len: log.len()?, log_end: FILE_HEADER_LEN as u64, ..Report::default() };
        report.losses.extend(source.header_damage.map(|damage| Loss {
            start: 0,
            end: FILE_HEADER_LEN as u64,
            damage,
            torn: false,
            batch: None,
            whole_records: 0,
            keys: Vec::new(),
        }));
        Ok(Survey {
            scope,
            reader: Reader { log, map: None, end: FILE_HEADER_LEN as u64 },
            index: Index::new(),
            live_bytes: 0,
            last_index: 0,
            base_seq: if source.header_damage.is_none() { source.log.header.base_seq } else { 0 },
            report,
            moved: false,
            landmark: None,
            landmarks: Vec::new(),
            beyond: None,
            listed_key_bytes: 0,
        })
    }

    /// Whether what was taken in is still in the file.
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
        // What is appended from now on is none of this survey's business: a writer could be the faster one.
        let goal = self.report.file_len;
        let mut unit = Run::default();
        while self.reader.end < goal {
            match scanner.step(&mut unit)? {
                Step::Unit => self.take(&unit)?,
                Step::Stopped(stop) => match self.go_beyond(&log, &stop, &mut unit)? {
                    Some(next) => scanner = next,
                    None => break,
                },
            }
        }
        self.report.keys = self.index.len() as u64;
        self.report.cut_off = self.lacks_closing_mark();
        if !self.is_torn() {
            self.report.log_end = self.reader.end;
        }
        Ok(())
    }

    /// Takes in what was appended since, up to where the walk stops. If that is anything, it is what was torn before.
    pub(crate) fn go_on(&mut self) -> Result<Stop> {
        let (log, end) = (Arc::clone(&self.reader.log), self.reader.end);
        let stop = Scanner::resume(&log, end, self.last_index)?.walk(|unit| self.take(unit))?;
        if self.reader.end > end {
            self.report.losses.retain(|loss| !loss.torn);
            self.report.torn_bytes = 0;
            (self.report.log_end, self.report.file_len) = (self.reader.end, log.len()?);
            self.report.keys = self.index.len() as u64;
        }
        Ok(stop)
    }

    fn take(&mut self, unit: &Run) -> Result<()> {
        for entry in &unit.entries {
            let (offset, len) = (entry.offset, entry.header.padded_len());
            self.reader.end = offset + len;
            self.last_index = entry.header.seq;
            self.landmark = Some(Landmark { offset, word: entry.header.fingerprint() });
            self.moved = entry.header.kind == Kind::Ancillary(Ancillary::Moved);
            self.report.records += 1;
            let replaced = match entry.header.kind {
                Kind::Put => {
                    self.live_bytes += len;
                    self.index.apply_put(unit.key(entry), offset, &self.reader)?
                }
                Kind::Delete => self.index.apply_delete(unit.key(entry), &self.reader)?,
                Kind::Ancillary(_) => None,
            };
            if let Some(position) = replaced {
                self.live_bytes -= self.reader.header(position)?.padded_len();
            }
        }
        Ok(())
    }

    /// Decides what it means that the walk stopped, and returns from where it goes on, if it does.
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
        // Whatever lies beyond was written after what stands here. So if this was only in the making when it was read,
        // it is different now.
        let mut again = Scanner::resume(log, stop.unit, stop.previous_seq)?;
        match again.step(unit)? {
            Step::Stopped(same) if same == *stop => {}
            Step::Stopped(_) if proven => return Scanner::resume(log, stop.unit, stop.previous_seq).map(Some),
            Step::Stopped(_) => {
                // Somebody is at work on it, and nobody was told of it yet.
                self.torn_from(stop.unit, beyond.data_end);
                return Ok(None);
            }
            Step::Unit => {
                self.take(unit)?;
                return Ok(Some(again));
            }
        }

        // What stands before the damage in a batch is sound, and counts if the batch had been written as a whole.
        let counts = proven
            || match self.scope {
                Scope::Log => false,
                // All of a copy was on stable storage before it got its name, so no crash has torn this batch.
                Scope::File => self.lacks_closing_mark(),
                Scope::Unfinished => true,
            };
        let start = if counts { stop.at } else { stop.unit };
        if !proven {
            self.torn_from(stop.unit, beyond.data_end);
        }
        let whole_records = if counts { 0 } else { unit.entries.len() as u64 };
        if counts {
            self.take(unit)?;
        }
        let record = self.record_at(log, stop.at)?;
        let from = match record {
            // A record that begins a group, where a batch should go on: sound, but for where it stands.
            Some((_, true)) if damage == Damage::BrokenBatch => stop.at,
            // Its header is true, so what lies behind that is its body and no place to look for others.
            Some((header, true)) => stop.at + header.padded_len(),
            _ => stop.at.max(stop.unit + ALIGNMENT),
        };
        let next = if proven || (beyond.whole_records && self.scope != Scope::Log) {
            next_header(log, from, self.last_index)?
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
            .filter(|(header, vouched)| *vouched || next == Some(stop.at + header.padded_len()))
            .filter(|_| damage != Damage::BrokenBatch)
        {
            self.lose_key(log, stop.at, &header)?;
        }
        next.map(|next| Scanner::resume(log, next, self.last_index)).transpose()
    }

    /// What lies beyond a stop: the result of the last search, if that has been where this one would go.
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
        // Of a lost header nothing is known; it reads as 0 then.
        self.base_seq > self.last_index
    }

    fn is_torn(&self) -> bool {
        self.report.losses.last().is_some_and(|loss| loss.torn) || self.report.torn_bytes > 0
    }

    fn torn_from(&mut self, log_end: u64, data_end: u64) {
        if !self.is_torn() {
            (self.report.log_end, self.report.torn_bytes) = (log_end, data_end - log_end);
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.landmarks.extend(self.landmark.filter(|last| self.landmarks.last() != Some(last)));
        match self.report.losses.last_mut() {
            Some(last) if last.end == loss.start && last.torn == loss.torn && last.start >= FILE_HEADER_LEN as u64 => {
                last.end = loss.end;
                last.batch = last.batch.or(loss.batch);
                last.whole_records += loss.whole_records;
            }
            _ => self.report.losses.push(loss),
        }
    }

    /// The header that stands where the walk got stuck, if anything like one does, and whether it is true.
    fn record_at(&self, log: &LogFile, at: u64) -> Result<Option<(RecordHeader, bool)>> {
        let mut bytes = [0; RECORD_HEADER_LEN];
        let got = log.read_up_to(at, &mut bytes)?;
        let after = log.seq_bound(self.last_index);
        if got < bytes.len() || !RecordHeader::plausible(&bytes, after) {
            return Ok(None);
        }
        let place = Place { seed: log.seed, offset: at, file_len: log.len()?, after };
        let is_true = matches!(RecordHeader::judge(&bytes, place), Verdict::True(_));
        Ok(RecordHeader::decode(&bytes).map(|header| (header, is_true)))
    }

    /// Notes the key of a record that is lost.
    fn lose_key(&mut self, log: &LogFile, offset: u64, header: &RecordHeader) -> Result<()> {
        if matches!(header.kind, Kind::Ancillary(_)) {
            return Ok(());
        }
        let mut full_key = vec![0; usize::from(header.key_len)];
        let got = log.read_up_to(offset + RECORD_HEADER_LEN as u64, &mut full_key)?;
        let (Some((bucket, key)), Some(loss)) = (split_full_key(&full_key[..got]), self.report.losses.last_mut())
        else {
            return Ok(());
        };
        if self.listed_key_bytes + got > LISTED_KEY_BYTES {
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

    /// Finds out what became of the keys of lost records.
    fn look_up_lost_keys(&mut self) -> Result<()> {
        for key in self.report.losses.iter_mut().flat_map(|loss| &mut loss.keys) {
            let mut full_key = crate::format::prefix_of_bucket(&key.bucket)?;
            full_key.extend_from_slice(&key.key);
            if let Some(position) = self.index.find(&full_key, &self.reader)? {
                key.kept = Some(self.reader.header(position)?.seq);
            }
        }
        Ok(())
    }
}
