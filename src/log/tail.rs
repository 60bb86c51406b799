//! What a handle knows of the log up to its end.

use super::LogFile;
use crate::format::snapshot::{IMAGE, SNAPSHOT, Snapshot};
use crate::format::{Ancillary, Kind, RECORD_HEADER_LEN, RecordHeader};
use crate::limits::Shared;

/// The state of the log after its last complete unit.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    /// `log_end`: the end mark stands here, and the next record goes here.
    pub(crate) end: u64,
    /// The last record's sequence number, 0 if there is none.
    pub(crate) previous_seq: u64,
    /// The sequence number of the last put or delete, or the file's floor if that is higher. `None` if a
    /// snapshot does not state it: [`Reading::rescan`](crate::engine::read::Reading::rescan) finds it.
    pub(crate) last_event: Option<u64>,
    /// The highest sequence number that is known to be assigned: the last record's, or `base_seq`.
    pub(crate) highest_seq: u64,
    /// A record in the file proves that everything before this offset is on stable storage.
    pub(crate) proven: u64,
    /// A sequence number below those of all records from `proven` on.
    pub(crate) proven_after: u64,
    /// The start of the first record in `highest_seq`'s block. 0 if that is the block of `base_seq`, which the file
    /// header holds.
    block_first: u64,
    /// If the landmark has changed in the file, another process has cut the log.
    pub(crate) landmark: Landmark,
    /// The last record, if it is a mark with `SYNCED`, as a clean close leaves it.
    pub(crate) trailing_mark: Option<RecordHeader>,
    /// The last record is `MOVED`: the log was compacted into another file.
    pub(crate) moved: bool,
    /// The log has, or had, a pair with a deadline or an owner, or a session. A snapshot of the index says so.
    pub(crate) has_lifetimes: bool,
    /// The number of records.
    pub(crate) records: u64,
    pub(crate) images: Images,
    limits: Shared,
}

/// The images of the index in the log, and how much there is to replay after the last of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Images {
    /// Bytes of the last snapshot: its image's records and its own.
    pub(crate) last: u64,
    /// The offset of its `SNAPSHOT`; 0 if there is none.
    pub(crate) last_at: u64,
    /// Bytes of an image after it that has no `SNAPSHOT` yet.
    pub(crate) unfinished: u64,
    /// The end of the last record of that image.
    pub(crate) unfinished_end: u64,
    /// What replaying the records after what the last snapshot covers costs, as bytes of the log.
    pub(crate) cost: u64,
    /// The number of these records that prove something, each of which was synced by itself.
    pub(crate) proofs: u64,
    /// What both had come to when the unfinished image began, which covers about as much.
    covered: (u64, u64),
}

impl Images {
    fn advance(&mut self, offset: u64, header: &RecordHeader, has_proof: bool, limits: Shared) {
        let len = header.padded_len();
        match header.kind {
            IMAGE => {
                if self.unfinished == 0 {
                    self.covered = (self.cost, self.proofs);
                }
                (self.unfinished, self.unfinished_end) = (self.unfinished + len, offset + len);
            }
            SNAPSHOT => {
                // Others may have written much between the records of the image.
                let (cost, proofs) = if self.unfinished == 0 { (self.cost, self.proofs) } else { self.covered };
                let (last, cost, proofs) = (self.unfinished + len, self.cost - cost, self.proofs - proofs);
                *self = Images { last, last_at: offset, cost, proofs, ..Images::default() };
            }
            _ => {
                self.cost += len + if has_proof { limits.sync_cost() } else { 0 };
                self.proofs += u64::from(has_proof);
            }
        }
    }

    /// The root leads to no snapshot, or not to the last one: an opening replays this many bytes.
    pub(crate) fn restart(&mut self, bytes: u64, limits: Shared) {
        let more = bytes.saturating_sub(self.cost - self.proofs * limits.sync_cost());
        (self.last, self.last_at) = (0, 0);
        // All of it lies before an image that is not finished.
        (self.cost, self.covered.0) = (self.cost + more, self.covered.0 + more);
    }

    /// Bytes of the log that take about as long to replay as the records after the last snapshot.
    pub(crate) fn replayed(&self, limits: Shared) -> u64 {
        self.cost - self.proofs * limits.sync_cost() + self.proofs * limits.sync_replay()
    }
}

/// Eight bytes that do not change while the log is only appended to: the checksums of the last record, or a part of the
/// file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landmark {
    pub(crate) offset: u64,
    pub(crate) word: u64,
}

/// A place between two units of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The next record goes here, or stands here.
    pub(crate) offset: u64,
    /// The sequence number of the record before; 0 if there is none.
    pub(crate) previous_seq: u64,
    /// The log was cut before this place if the landmark has changed.
    pub(crate) landmark: Landmark,
}

impl Cursor {
    /// The place before the first record.
    pub(crate) fn at_start(log: &LogFile) -> Cursor {
        let (offset, word) = log.header.fingerprint();
        Cursor { offset: log.start(), previous_seq: 0, landmark: Landmark { offset, word } }
    }

    /// The place after the record with this header, which stands at this one.
    pub(crate) fn after(&self, header: &RecordHeader) -> Cursor {
        let landmark = Landmark { offset: self.offset, word: header.fingerprint() };
        Cursor { offset: self.offset + header.padded_len(), previous_seq: header.seq, landmark }
    }
}

impl Tail {
    /// The tail of a log of which nothing was read yet. Everything before `stated` was on stable storage, as the file
    /// says.
    pub(crate) fn new(log: &LogFile, stated: u64) -> Tail {
        let Cursor { offset, previous_seq, landmark } = Cursor::at_start(log);
        Tail {
            end: offset,
            previous_seq,
            last_event: Some(log.header.floor()),
            highest_seq: log.header.base_seq,
            proven: stated,
            proven_after: 0,
            block_first: 0,
            landmark,
            trailing_mark: None,
            moved: false,
            has_lifetimes: false,
            records: 0,
            images: Images::default(),
            limits: log.limits,
        }
    }

    /// The tail of a log that is read from where a snapshot ends. Everything before `stated` was on stable storage, and the
    /// snapshot lies before that.
    pub(crate) fn after(log: &LogFile, stated: u64, snapshot: &Snapshot) -> Tail {
        let covered = &snapshot.covered;
        Tail {
            end: covered.end,
            previous_seq: covered.previous_seq,
            last_event: covered.last_event,
            highest_seq: log.header.base_seq.max(covered.previous_seq),
            has_lifetimes: snapshot.lifetimes.is_some(),
            records: covered.records,
            ..Tail::new(log, stated)
        }
    }

    /// Moves the tail past the next record, which must belong to a complete unit.
    pub(crate) fn advance(&mut self, offset: u64, header: &RecordHeader, proof: Option<u64>) {
        debug_assert_eq!(offset, self.end);
        if self.limits.block_of(header.seq) > self.limits.block_of(self.highest_seq) {
            self.block_first = offset;
        }
        if offset <= self.proven {
            // The proof that the file's head states lies ahead.
            self.proven_after = self.previous_seq;
        }
        if let Some(proof) = proof.filter(|&proof| proof > self.proven) {
            self.proven = proof;
            // A statement about an earlier offset keeps the old bound, which still holds.
            self.proven_after = if proof == offset { self.previous_seq } else { self.proven_after };
        }
        self.previous_seq = header.seq;
        if header.kind.is_event() {
            self.last_event = self.last_event.max(Some(header.seq));
        }
        self.highest_seq = self.highest_seq.max(header.seq);
        self.landmark = Landmark { offset, word: header.fingerprint() };
        let mark = header.kind == Kind::Ancillary(Ancillary::Mark) && header.flags.synced;
        // The next group rewrites only the exact form that a close writes.
        self.trailing_mark = (mark && header.record_len() == RECORD_HEADER_LEN as u64).then_some(*header);
        self.moved = header.kind == Kind::Ancillary(Ancillary::Moved);
        self.has_lifetimes |= header.kind.has_lifetime();
        self.images.advance(offset, header, proof.is_some(), self.limits);
        self.end = offset + header.padded_len();
        self.records += 1;
    }

    /// The place after the last record.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { offset: self.end, previous_seq: self.previous_seq, landmark: self.landmark }
    }

    /// Whether a power cut can take nothing from the log. A trailing mark counts as proven itself, since only the mark
    /// would be lost.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven >= self.end || self.trailing_mark.is_some()
    }

    /// Whether a record of this block is on stable storage, given that everything before `synced` is.
    ///
    /// Only then may a sequence number of the block be assigned. After a power cut, the next writer finds the block in
    /// the file and starts above it.
    pub(crate) fn is_block_stable(&self, block: u64, synced: u64) -> bool {
        block == self.limits.block_of(self.highest_seq) && self.proven.max(synced) > self.block_first
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::Scanner;
    use super::super::testing::{Draft, MARK, PLAIN, SYNCED};
    use super::*;
    use crate::format::{BLOCK_LEN, block_start};

    fn tail_of(draft: Draft) -> Tail {
        let log = draft.finish();
        let mut tail = Tail::new(&log, log.start());
        let mut scanner = Scanner::from_start(&log).unwrap();
        let stop = scanner.walk(|unit| {
            unit.entries.iter().for_each(|entry| tail.advance(entry.offset, &entry.header, entry.proof));
            Ok(())
        });
        assert_eq!(stop.unwrap().unit, tail.end);
        tail
    }

    #[test]
    fn an_empty_log_is_proven_and_holds_its_base_block() {
        let tail = tail_of(Draft::new());
        assert!(tail.is_proven());
        assert!(tail.is_block_stable(0, 0) && !tail.is_block_stable(1, u64::MAX));
    }

    #[test]
    fn a_block_is_stable_after_a_sync_of_its_first_record() {
        let mut draft = Draft::new();
        draft.seq = block_start(3) - 1;
        let first = draft.put(PLAIN, "a");
        let second = draft.put(PLAIN, "b");
        let tail = tail_of(draft);
        assert!(!tail.is_block_stable(3, 0) && !tail.is_block_stable(3, first) && tail.is_block_stable(3, second));
        assert!(!tail.is_block_stable(2, u64::MAX) && !tail.is_block_stable(4, u64::MAX));

        let mut draft = Draft::new();
        draft.seq = block_start(3) - 1;
        draft.put(PLAIN, "a");
        draft.put(SYNCED, "b");
        assert!(tail_of(draft).is_block_stable(3, 0));
    }

    #[test]
    fn a_stable_block_does_not_make_the_next_stable() {
        let mut draft = Draft::new();
        draft.seq = BLOCK_LEN - 2;
        draft.put(PLAIN, "a");
        draft.put(SYNCED, "in the next block");
        let tail = tail_of(draft);
        assert_eq!(tail.highest_seq, BLOCK_LEN);
        assert!(!tail.is_block_stable(1, 0));
    }

    #[test]
    fn a_trailing_mark_proves_the_log_until_a_record_follows() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let mark = draft.push(SYNCED, MARK, b"", b"");
        let bytes = draft.bytes.clone();
        let tail = tail_of(draft);
        assert_eq!(tail.proven, mark);
        assert!(tail.is_proven() && tail.trailing_mark.is_some());

        let mut draft = Draft { bytes, seq: 2 };
        draft.put(PLAIN, "b");
        let tail = tail_of(draft);
        assert!(!tail.is_proven() && tail.trailing_mark.is_none());
        assert_eq!((tail.proven, tail.proven_after), (mark, 1));
    }

    /// A writer rewrites what is not proven, and walks over it again from there.
    #[test]
    fn the_number_before_a_stated_offset_is_known() {
        let mut draft = Draft::with_roots();
        draft.seq = 1 << 40;
        let puts = ["a", "b", "c"].map(|key| draft.put(PLAIN, key));
        for (stated, before) in [(puts[0], 0), (puts[1], (1 << 40) + 1), (puts[2], (1 << 40) + 2)] {
            let log = draft.copy();
            let mut tail = Tail::new(&log, stated);
            let _ = Scanner::from_start(&log).unwrap().walk(|unit| {
                unit.entries.iter().for_each(|entry| tail.advance(entry.offset, &entry.header, entry.proof));
                Ok(())
            });
            assert_eq!((tail.proven, tail.proven_after, tail.is_proven()), (stated, before, false));
        }
        assert!(Tail { proven: draft.end(), ..tail_of(draft) }.is_proven());
    }

    #[test]
    fn only_a_mark_with_the_flag_proves_the_whole_log() {
        let moved = Kind::Ancillary(Ancillary::Moved);
        for (flags, kind) in [(PLAIN, MARK), (SYNCED, moved), (PLAIN, moved)] {
            let mut draft = Draft::new();
            draft.put(PLAIN, "a");
            draft.push(flags, kind, b"", b"");
            let tail = tail_of(draft);
            assert!(!tail.is_proven() && tail.trailing_mark.is_none(), "{flags:?}, {kind:?}");
        }
    }

    #[test]
    fn the_landmark_is_the_last_record_or_the_identity() {
        let header = super::super::testing::header();
        let tail = Tail::new(&Draft::new().copy(), 64);
        assert_eq!(tail.landmark.offset, 24);
        assert_eq!(tail.landmark.word.to_le_bytes(), header.encode()[24..32]);
        let mut draft = Draft::new();
        let last = draft.put(PLAIN, "a");
        let word = u64::from_le_bytes(draft.bytes[last as usize..last as usize + 8].try_into().unwrap());
        assert_eq!(tail_of(draft).landmark, Landmark { offset: last, word });
    }
}
