//! The scanner: walks the log from record to record and reports. It decides nothing and changes nothing.
//!
//! It reads with plain reads, never through the map: bytes that nobody has validated may lie beyond the file's end,
//! and may change while another process writes them.

use std::io;
use std::ops::Range;

use super::LogFile;
use super::group::KEPT_CAPACITY;
use crate::format::Damage;
use crate::format::{
    Ancillary, END_MARK_LEN, FILE_HEADER_LEN, Kind, Place, RECORD_HEADER_LEN, RecordHeader, Verdict, split_full_key,
};
use crate::memory::make_room;
use crate::{Error, Result};

/// The scanner reads this much at once in a long walk. Bodies longer than this are checked piece by piece.
const LARGEST_WINDOW: usize = 1 << 20;

/// And this much at the beginning: most walks take in one group that another process has just written.
const SMALLEST_WINDOW: usize = 4 << 10;

/// A validated record.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
    /// Everything before this offset was on stable storage when the record was written.
    pub(crate) proof: Option<u64>,
    key: Range<usize>,
}

impl Entry {
    /// Where the next record starts.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.header.padded_len()
    }
}

/// A walk hands out a run as soon as it has so many records, or keys of so many bytes: who takes it in can wait for the
/// cache misses of all of them at a time.
pub(crate) const RUN_LEN: usize = 64;
const RUN_KEYS: usize = 64 << 10;

/// Records one behind the other, in whole units: a unit is a record that stands alone, or all the records of a batch, what
/// counts together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) entries: Vec<Entry>,
    keys: Vec<u8>,
}

impl Run {
    pub(crate) fn clear(&mut self) {
        if self.keys.capacity() > KEPT_CAPACITY {
            *self = Run::default();
        }
        self.entries.clear();
        self.keys.clear();
    }

    /// Makes room for more records, and for this many bytes of keys: a batch can have more of them than there is memory.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`](std::io::ErrorKind::OutOfMemory).
    #[inline]
    pub(crate) fn make_room(&mut self, records: usize, keys: usize) -> io::Result<()> {
        make_room(&mut self.entries, records)?;
        make_room(&mut self.keys, keys)
    }

    /// Forgets all but the first records.
    fn truncate(&mut self, count: usize) {
        if let Some(first) = self.entries.get(count) {
            self.keys.truncate(first.key.start);
            self.entries.truncate(count);
        }
    }

    fn is_long(&self) -> bool {
        self.entries.len() >= RUN_LEN || self.keys.len() >= RUN_KEYS
    }

    pub(crate) fn push(&mut self, offset: u64, header: RecordHeader, proof: Option<u64>, key: &[u8]) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.entries.push(Entry { offset, header, proof, key: start..self.keys.len() });
    }

    /// Where the last record ends, if there is one.
    pub(crate) fn end(&self) -> Option<u64> {
        self.entries.last().map(Entry::end)
    }

    /// Where its records end, for all records after which the log may end.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u64> + '_ {
        let last = self.entries.iter().filter(|entry| !entry.header.flags.more);
        last.map(Entry::end)
    }

    /// The full key of one of this unit's records.
    pub(crate) fn key(&self, entry: &Entry) -> &[u8] {
        &self.keys[entry.key.clone()]
    }
}

/// Where and why a walk stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Where the first record or batch starts that is not complete: the log's end, as far as it can be read.
    pub(crate) unit: u64,
    /// Where in it the walk got stuck; beyond `unit` only inside a batch.
    pub(crate) at: u64,
    /// The index of the record before `unit`; 0 if there is none.
    pub(crate) previous_seq: u64,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The end mark stands here.
    EndMark,
    /// The file ends before an end mark could stand here.
    EndOfFile,
    /// What stands here is no complete record, or the batch that leads up to here has no last record.
    Damaged(Damage),
}

/// What one step of the walk found.
#[derive(Debug)]
pub(crate) enum Step {
    /// The unit was filled.
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
        Scanner::resume(log, FILE_HEADER_LEN as u64, 0)
    }

    /// A walk from a place where a record starts or the log ends; `previous_seq` is the index of the
    /// record before it, 0 if there is none.
    pub(crate) fn resume(log: &'a LogFile, offset: u64, previous_seq: u64) -> Result<Scanner<'a>> {
        Ok(Scanner { log, offset, previous_seq, file_len: log.len()?, window: Window::new() })
    }

    /// Walks to the end, or to where the log cannot be read further, and hands everything to `take`, some whole units at
    /// once.
    ///
    /// # Errors
    ///
    /// I/O errors, [`Error::UnsupportedRecord`] for a true header of a later version, and what `take` returns. What lies
    /// before has been handed over.
    pub(crate) fn walk(&mut self, mut take: impl FnMut(&Run) -> Result<()>) -> Result<Stop> {
        let mut run = Run::default();
        loop {
            let whole = run.entries.len();
            let stepped = self.step_on(&mut run);
            let goes_on = matches!(stepped, Ok(Step::Unit));
            if !goes_on {
                run.truncate(whole);
            }
            if !run.entries.is_empty() && (!goes_on || run.is_long()) {
                take(&run)?;
                run.clear();
            }
            if let Step::Stopped(stop) = stepped? {
                return Ok(stop);
            }
        }
    }

    /// Reads the next record, or the next whole batch, into `unit`. If there is none, `unit` holds what there is of a batch.
    ///
    /// # Errors
    ///
    /// As [`Scanner::walk`].
    pub(crate) fn step(&mut self, unit: &mut Run) -> Result<Step> {
        unit.clear();
        self.step_on(unit)
    }

    /// The same, behind what `run` holds.
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

    /// Whether a batch that was just read still begins as it did.
    ///
    /// Without the lock, its beginning may have been read before another process cut it off and wrote another group in its
    /// place, and its end after that. The first header tells: a cut is made where a unit starts, here or before, so it has
    /// overwritten that header or taken it away by the time when anything is written behind it again, and what comes in its
    /// place never has the same index.
    fn is_unchanged(&self, first: &Entry) -> Result<bool> {
        // Past the window: that has read beyond this batch already, and the walk goes on in it.
        let mut bytes = [0; RECORD_HEADER_LEN];
        let len = self.log.read_up_to(first.offset, &mut bytes)?;
        Ok(bytes[..len] == first.header.encode())
    }

    fn back_to(&mut self, offset: u64, previous_seq: u64) {
        self.window.forget();
        (self.offset, self.previous_seq) = (offset, previous_seq);
    }

    /// Reads the record at `self.offset` and moves on, or says why there is none. `first` is where the unit's records begin
    /// that it belongs to.
    fn read_record(&mut self, unit: &mut Run, first: usize) -> Result<Option<Reason>> {
        let header = match self.judge()? {
            Ok(header) => header,
            Err(reason) => return Ok(Some(reason)),
        };
        let (offset, in_batch) = (self.offset, unit.entries.len() > first);
        if in_batch && header.flags.synced {
            // Only the first record of a group carries the flag, so this one begins a group, and the batch before it
            // was never finished.
            return Ok(Some(Reason::Damaged(Damage::BrokenBatch)));
        }
        let key_len = usize::from(header.key_len);
        let wanted = if header.record_len() <= LARGEST_WINDOW as u64 {
            header.record_len() as usize
        } else {
            RECORD_HEADER_LEN + key_len
        };
        let bytes = self.window.get(self.log, offset, wanted)?;
        if bytes.len() < wanted {
            let end = offset + header.record_len();
            return Ok(Some(Reason::Damaged(Damage::BeyondFile { end, file_len: offset + bytes.len() as u64 })));
        }
        let (key, value) = bytes[RECORD_HEADER_LEN..].split_at(key_len);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(RecordHeader::meaning_and_body(bytes));
        let stated = (value.len() == 8).then(|| u64::from_le_bytes(value.try_into().unwrap_or_default()));
        let stated = stated.filter(|&stated| stated <= offset);
        let form_holds = has_form(&header, key, stated);
        let proof = match header.kind {
            _ if header.flags.synced => Some(offset),
            Kind::Ancillary(Ancillary::SyncedTo) => stated,
            _ => None,
        };
        unit.make_room(1, key_len).map_err(|e| self.log.io("get memory for keys", e))?;
        unit.push(offset, header, proof, key);
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

    /// Takes in what is left of a body too long for the window; `None` if the file ends before it does.
    fn finish_body(&mut self, mut hasher: crc32fast::Hasher, mut offset: u64, mut left: u64) -> Result<Option<u32>> {
        while left > 0 {
            let wanted = left.min(LARGEST_WINDOW as u64) as usize;
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

    /// The header at `self.offset`, or why there is none.
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

    /// The same for what is no header at first sight, where so many bytes are `available`, and zeros in the place of others.
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
            // Whatever they are: a reader must not take them for a change when it peeks, since no end mark fits here.
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

/// Whether the body has the form that its kind demands: a reader behind this check may rely on it.
pub(crate) fn has_form(header: &RecordHeader, key: &[u8], stated: Option<u64>) -> bool {
    match header.kind {
        Kind::Put => split_full_key(key).is_some(),
        Kind::Delete => split_full_key(key).is_some() && header.value_len == 0,
        Kind::Ancillary(Ancillary::SyncedTo) => header.key_len == 0 && stated.is_some(),
        Kind::Ancillary(_) => true,
    }
}

/// The piece of the file that was read last, for walks from its beginning to its end.
pub(crate) struct Window {
    bytes: Vec<u8>,
    start: u64,
    next_len: usize,
}

impl Window {
    pub(crate) fn new() -> Window {
        Window { bytes: Vec::new(), start: 0, next_len: SMALLEST_WINDOW }
    }

    fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Up to `wanted` bytes at `offset`; fewer only where the file ends.
    pub(crate) fn get(&mut self, log: &LogFile, offset: u64, wanted: usize) -> Result<&[u8]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if !held.contains(&offset) || held.end < offset + wanted as u64 {
            let len = wanted.max(self.next_len);
            self.next_len = (self.next_len * 2).min(LARGEST_WINDOW);
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Draft, MARK, MORE, PATH, PLAIN, SYNCED, open, open_on};
    use super::*;
    use crate::disk::sim::{Repeat, SimDisk, Verb, When};

    /// The offsets of all units' records, and how the walk stopped.
    fn walk(log: &LogFile) -> (Vec<Vec<u64>>, Stop) {
        let (mut units, mut unit) = (Vec::new(), Run::default());
        let mut scanner = Scanner::from_start(log).unwrap();
        loop {
            match scanner.step(&mut unit).unwrap() {
                Step::Unit => units.push(unit.entries.iter().map(|entry| entry.offset).collect()),
                Step::Stopped(stop) => return (units, stop),
            }
        }
    }

    #[test]
    fn an_empty_log_ends_behind_its_header() {
        let (units, stop) = walk(&Draft::new().finish());
        assert!(units.is_empty());
        assert_eq!(stop, Stop { unit: 64, at: 64, previous_seq: 0, reason: Reason::EndMark });
    }

    #[test]
    fn a_batch_counts_with_its_last_record_only() {
        let mut draft = Draft::new();
        let single = draft.put(PLAIN, "single");
        let batch = [draft.put(MORE, "a"), draft.put(MORE, "b"), draft.put(PLAIN, "c")];
        let torn = draft.put(MORE, "d");
        let end = draft.end();
        let (units, stop) = walk(&draft.finish());
        assert_eq!(units, [vec![single], batch.to_vec()]);
        let reason = Reason::Damaged(Damage::BrokenBatch);
        assert_eq!(stop, Stop { unit: torn, at: end, previous_seq: 4, reason });
    }

    #[test]
    fn a_walk_hands_over_all_whole_units_before_it_stops_and_nothing_of_the_one_it_stops_in() {
        for whole in [0, 1, RUN_LEN - 1, RUN_LEN, RUN_LEN + 1, 3 * RUN_LEN + 5] {
            for (torn, unsupported) in [(0, false), (1, false), (RUN_LEN + 3, false), (2, true)] {
                let mut draft = Draft::new();
                let expected: Vec<u64> = (0..whole).map(|nth| draft.put(PLAIN, &format!("key-{nth}"))).collect();
                for nth in 0..torn {
                    draft.put(MORE, &format!("torn-{nth}"));
                }
                if unsupported {
                    // No ancillary kind: who does not know it must not go on.
                    draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(3)), b"", b"");
                }
                let log = draft.finish();
                let mut handed = Vec::new();
                let walked = Scanner::from_start(&log).unwrap().walk(|run| {
                    assert!(run.entries.len() <= RUN_LEN);
                    for entry in &run.entries {
                        assert_eq!(run.key(entry), format!("\0key-{}", handed.len()).as_bytes());
                        handed.push(entry.offset);
                    }
                    Ok(())
                });
                assert_eq!(handed, expected, "{whole} {torn}");
                assert_eq!(walked.is_err(), unsupported);
            }
        }
    }

    #[test]
    fn a_batch_that_runs_into_the_start_of_a_group_is_broken() {
        let mut draft = Draft::new();
        let torn = draft.put(MORE, "a");
        let next = draft.put(SYNCED, "b");
        let (units, stop) = walk(&draft.finish());
        assert!(units.is_empty());
        assert_eq!((stop.unit, stop.at, stop.reason), (torn, next, Reason::Damaged(Damage::BrokenBatch)));
    }

    #[test]
    fn bodies_longer_than_the_window_are_checked_to_their_last_byte() {
        let value = vec![7; 3 * LARGEST_WINDOW + 5];
        let mut draft = Draft::new();
        let long = draft.push(PLAIN, Kind::Put, b"\0long", &value);
        let after = draft.put(PLAIN, "after");
        let bytes = draft.bytes.clone();
        assert_eq!(walk(&draft.finish()).0, [vec![long], vec![after]]);
        for changed in [long as usize + 24 + 5, long as usize + 24 + 5 + value.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[changed] ^= 1;
            let (units, stop) = walk(&open(bytes));
            assert!(units.is_empty());
            assert!(matches!(stop, Stop { at, reason: Reason::Damaged(Damage::Body { .. }), .. } if at == long));
        }
        let (_, stop) = walk(&open(bytes[..bytes.len() - 100_000].to_vec()));
        assert!(matches!(stop, Stop { at, reason: Reason::Damaged(Damage::BeyondFile { .. }), .. } if at == long));
        let mut draft = Draft::new();
        let without_a_key = draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(0xfe)), b"", &value);
        assert_eq!(walk(&draft.finish()).0, [vec![without_a_key]]);
    }

    #[test]
    fn the_log_may_end_behind_each_unit_and_nowhere_inside() {
        let mut unit = Run::default();
        let mut draft = Draft::new();
        let mut ends = Vec::new();
        for (flags, key) in [(MORE, "a"), (MORE, "bb"), (PLAIN, "ccc"), (PLAIN, "dddd"), (MORE, "e"), (PLAIN, "f")] {
            let offset = draft.put(flags, key);
            let header = Scanner::resume(&draft.copy(), offset, 0).unwrap().judge().unwrap().unwrap();
            unit.push(offset, header, None, key.as_bytes());
            if !flags.more {
                ends.push(draft.end());
            }
        }
        assert_eq!(unit.ends().collect::<Vec<_>>(), ends);
        assert_eq!(unit.entries.iter().map(|entry| unit.key(entry)).collect::<Vec<_>>().concat(), b"abbcccddddef");
    }

    #[test]
    fn a_batch_in_whose_place_another_is_written_meanwhile_is_read_as_one_or_the_other() {
        // One that lies in a window as a whole, and one of which each record is read by itself.
        for value_len in [5, 9_000] {
            let value = vec![b'v'; value_len];
            let batch_of = |keys: [&str; 3]| {
                let mut draft = Draft::new();
                for (flags, key) in [MORE, MORE, PLAIN].into_iter().zip(keys) {
                    draft.push(flags, Kind::Put, key.as_bytes(), &value);
                }
                [&draft.bytes[..], &[0; 8]].concat()
            };
            let (old, new) = (batch_of(["\0a", "\0b", "\0c"]), batch_of(["\0x", "\0y", "\0z"]));
            let mut seen = Vec::new();
            for nth in 1..20 {
                let disk = SimDisk::new();
                let log = open_on(&disk, old.clone());
                let new = new.clone();
                let replace = move |disk: &SimDisk| disk.set_contents(PATH, new.clone());
                disk.before(When::nth(nth).of(Verb::ReadAt), Repeat::Once, replace);
                let mut keys = Vec::new();
                let stop = Scanner::from_start(&log).unwrap().walk(|unit| {
                    keys.extend(unit.entries.iter().flat_map(|entry| unit.key(entry).to_vec()));
                    Ok(())
                });
                // A header of the one and a body of the other are damage: who has no lock reads that again.
                let damaged = matches!(stop.unwrap().reason, Reason::Damaged(Damage::Body { .. }));
                let whole = keys == b"\0a\0b\0c" || keys == b"\0x\0y\0z";
                assert!(if damaged { keys.is_empty() } else { whole }, "{}", keys.escape_ascii());
                seen.extend(keys.get(1));
            }
            assert!(seen.contains(&b'a') && seen.contains(&b'x'));
        }
    }

    #[test]
    fn a_record_that_is_cut_off_while_it_is_read_ends_beyond_the_file() {
        // In the value, in the key, and in a value that is longer than what is read at once.
        let one_and_a_half = LARGEST_WINDOW + LARGEST_WINDOW / 2;
        for (value_len, read, left) in [(9_000, 2, 5_000), (9_000, 2, 90), (3 * LARGEST_WINDOW, 3, one_and_a_half)] {
            let mut draft = Draft::new();
            let offset = draft.push(PLAIN, Kind::Put, b"\0key", &vec![7; value_len]);
            let disk = SimDisk::new();
            let log = open_on(&disk, draft.bytes.clone());
            let less = draft.bytes[..left].to_vec();
            let cut = move |disk: &SimDisk| disk.set_contents(PATH, less.clone());
            disk.before(When::nth(read).of(Verb::ReadAt), Repeat::Once, cut);
            let (units, stop) = walk(&log);
            assert!(units.is_empty());
            let end = offset + (RECORD_HEADER_LEN + 4 + value_len) as u64;
            assert_eq!(stop.reason, Reason::Damaged(Damage::BeyondFile { end, file_len: left as u64 }));
        }
    }

    #[test]
    fn a_walk_reads_everything_once_in_pieces_that_grow() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        // 32 bytes, without padding: it ends with what was read.
        draft.put(PLAIN, "bc");
        let disk = SimDisk::new();
        let log = open_on(&disk, draft.bytes.clone());
        let before = disk.bytes_read();
        walk(&log);
        assert_eq!(disk.bytes_read() - before, draft.end() - FILE_HEADER_LEN as u64);

        while draft.end() < 3 << 20 {
            draft.push(PLAIN, Kind::Put, b"\0key", &[1; 1000]);
        }
        let log = open_on(&disk, draft.bytes.clone());
        let (bytes, calls) = (disk.bytes_read(), disk.calls_of(Verb::ReadAt));
        walk(&log);
        // Nine pieces of 4 KiB to 1 MiB, and what is left; the first record of each is read again.
        assert!(disk.calls_of(Verb::ReadAt) - calls < 16);
        assert!(disk.bytes_read() - bytes < draft.end() + 16 * 1024);
    }

    #[test]
    fn of_a_batch_only_the_first_header_is_read_twice() {
        let mut draft = Draft::new();
        for _ in 0..200 {
            for flags in [MORE, MORE, PLAIN] {
                draft.push(flags, Kind::Put, b"\0key", &[1; 1000]);
            }
        }
        let disk = SimDisk::new();
        let log = open_on(&disk, draft.bytes.clone());
        let before = disk.bytes_read();
        assert_eq!(walk(&log).0.len(), 200);
        let again = disk.bytes_read() - before - (draft.end() - FILE_HEADER_LEN as u64);
        // And what of a record was at the end of a piece.
        assert!(again < 200 * RECORD_HEADER_LEN as u64 + 16 * 1024, "{again} bytes");
    }

    #[test]
    fn a_file_that_ends_where_its_log_ends_lacks_the_end_mark() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let end = draft.end();
        for count in 0..8 {
            for byte in [0, 0xff] {
                let mut bytes = draft.bytes.clone();
                bytes.resize(bytes.len() + count, byte);
                let (_, stop) = walk(&open(bytes));
                assert_eq!((stop.unit, stop.reason), (end, Reason::EndOfFile), "{count} times {byte}");
            }
        }
    }

    #[test]
    fn a_body_must_have_the_form_that_its_kind_demands() {
        let forms: [(Kind, &[u8], &[u8]); 6] = [
            (Kind::Put, b"", b"value"),
            (Kind::Put, b"\0", b"value"),
            (Kind::Put, b"\x05abc", b"value"),
            (Kind::Delete, b"\0key", b"value"),
            (Kind::Ancillary(Ancillary::SyncedTo), b"", b"short"),
            (Kind::Ancillary(Ancillary::SyncedTo), b"", &u64::MAX.to_le_bytes()),
        ];
        for (kind, key, value) in forms {
            let mut draft = Draft::new();
            draft.push(PLAIN, kind, key, value);
            let (units, stop) = walk(&draft.finish());
            assert!(units.is_empty());
            assert_eq!((stop.at, stop.reason), (64, Reason::Damaged(Damage::Form)), "{kind:?} {key:?} {value:?}");
        }
    }

    #[test]
    fn proofs_are_what_flags_and_statements_say() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let flagged = draft.push(SYNCED, MARK, b"", b"");
        let stated = draft.synced_to(64);
        let log = draft.finish();
        let mut proofs = Vec::new();
        let mut scanner = Scanner::from_start(&log).unwrap();
        let taken = scanner.walk(|unit| {
            proofs.extend(unit.entries.iter().map(|entry| (entry.offset, entry.proof)));
            Ok(())
        });
        assert!(taken.is_ok());
        assert_eq!(proofs, [(64, None), (flagged, Some(flagged)), (stated, Some(64))]);
    }

    #[test]
    fn a_statement_with_the_flag_proves_its_own_place() {
        // The search for proof behind damage took both for proof, the walk only what is stated.
        let mut draft = Draft::new();
        let statement = draft.push(SYNCED, Kind::Ancillary(Ancillary::SyncedTo), b"", &0u64.to_le_bytes());
        let log = draft.finish();
        let mut proof = None;
        let mut scanner = Scanner::from_start(&log).unwrap();
        let walked = scanner.walk(|unit| {
            proof = unit.entries[0].proof;
            Ok(())
        });
        assert!(walked.is_ok());
        assert_eq!(proof, Some(statement));
    }

    #[test]
    fn unknown_ancillary_kinds_are_passed_over() {
        let mut draft = Draft::new();
        let unknown = draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(0xfe)), b"any", b"thing");
        let known = draft.put(PLAIN, "a");
        assert_eq!(walk(&draft.finish()).0, [vec![unknown], vec![known]]);
    }
}
