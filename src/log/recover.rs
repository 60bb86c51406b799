//! Recovery: the decision that follows from a walk that stopped. The scanner reports, this module decides, and a writer
//! with the file lock acts.

use std::path::PathBuf;

use super::LogFile;
use super::chunks::each_expected_piece;
use super::names::{TORN, sibling};
use super::owner::{PRIVATE, give_to_owner};
use super::path::sync_name;
use super::scan::{Reason, Stop};
use super::search::{Beyond, search};
use crate::disk::{Disk, SyncScope};
use crate::format::{Damage, END_MARK_LEN, RECORD_HEADER_LEN};
use crate::{Error, Result};

/// What to do about the log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The log is complete.
    Whole,
    /// The log has a torn tail and is to end at `at`.
    Cut {
        at: u64,
        /// Where the data that is cut off ends: only zeros follow.
        data_end: u64,
        /// The tail may be worth something. A copy of it is kept beside the store first.
        keep: bool,
    },
}

/// The decision table. Changes nothing.
///
/// | the walk stopped at | beyond it | decision |
/// | --- | --- | --- |
/// | any | proof that more was on stable storage, and data | [`Error::Corrupt`] |
/// | any | such proof by the root, and zeros only | [`Error::Truncated`] |
/// | any | no such proof, and the closing mark of a copy is missing | [`Error::Truncated`] |
/// | end mark | zeros only | whole |
/// | end of file | | cut, which puts the end mark back |
/// | end mark or damage | no proof, but [`is_worth_keeping`] | cut, and keep the tail |
/// | end mark or damage | neither | cut |
pub(crate) fn decide(log: &LogFile, stop: &Stop) -> Result<Decision> {
    let beyond = search(log, stop)?;
    let only_zeros = beyond.data_end == stop.unit;
    let damage = match stop.reason {
        Reason::EndMark => Damage::Zeros,
        // The file ends there, or has a few bytes more.
        Reason::EndOfFile => Damage::BeyondFile { end: stop.at + RECORD_HEADER_LEN as u64, file_len: log.len()? },
        Reason::Damaged(damage) => damage,
    };
    match beyond.proof.filter(|&proof| proof > stop.unit) {
        Some(stated) if only_zeros => Err(log.truncated(stop.unit, stated)),
        Some(_) => Err(log.corrupt(stop.at, damage)),
        // A copy is synced before it gets its name, so no crash does that.
        None if log.lacks_closing_mark(stop.previous_seq) => Err(log.truncated(stop.unit, 0)),
        None if only_zeros && stop.reason == Reason::EndMark => Ok(Decision::Whole),
        None => {
            let keep = !only_zeros && is_worth_keeping(log, stop, &beyond)?;
            Ok(Decision::Cut { at: stop.unit, data_end: beyond.data_end, keep })
        }
    }
}

/// Whether the tail may be more than the rest of a write that was never acknowledged.
///
/// - Complete records follow a damaged one.
/// - The file ends inside a batch, and complete records of it are there. A writer extends the file before it writes, so
///   a killed writer leaves zeros after its batch. A power cut can undo that extension, but rarely. It looks the same
///   as a file that another program has cut, and costs one file that can be removed.
fn is_worth_keeping(log: &LogFile, stop: &Stop, beyond: &Beyond) -> Result<bool> {
    if beyond.whole_records {
        return Ok(true);
    }
    let has_less_than = |len: u64| Ok(log.len()? < stop.at + len);
    match stop.reason {
        _ if stop.at == stop.unit => Ok(false),
        Reason::Damaged(Damage::BeyondFile { .. }) => Ok(true),
        Reason::Damaged(Damage::BrokenBatch) => has_less_than(END_MARK_LEN),
        Reason::Damaged(_) => has_less_than(RECORD_HEADER_LEN as u64),
        Reason::EndMark | Reason::EndOfFile => Ok(false),
    }
}

/// Copies a torn tail to a file of its own beside the store, durably.
///
/// # Errors
///
/// Any failure. Then nothing may be cut.
pub(crate) fn keep_torn_tail(disk: &dyn Disk, log: &LogFile, from: u64, to: u64) -> Result<PathBuf> {
    let path = sibling(disk, &log.path, TORN)?;
    let error = |e| Error::io("keep the torn tail", &path, e);
    let copy = disk.create_new(&path, PRIVATE).map_err(error)?;
    let kept = give_to_owner(&*copy, &*log.file).map_err(error);
    let kept = kept
        .and_then(|()| each_expected_piece(log, from, to, |at, piece| copy.write_all(at - from, piece).map_err(error)))
        .and_then(|()| copy.sync(SyncScope::File).and_then(|()| sync_name(disk, &path, &*copy)).map_err(error));
    if let Err(error) = kept {
        // A part of a tail is useless, and each try to open would leave another one.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(path)
}

/// Whether the file is long enough for the end mark at `end`.
pub(crate) fn has_end_mark(file_len: u64, end: u64) -> bool {
    file_len >= end + END_MARK_LEN
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::chunks::CHUNK;
    use super::super::scan::Scanner;
    use super::super::testing::{Draft, MARK, MORE, PLAIN, SYNCED, header, open};
    use super::*;
    use crate::format::{Ancillary, FileHeader, Kind, Root, SLOT_LEN};

    fn decide_on(bytes: Vec<u8>) -> Result<Decision> {
        let log = open(bytes);
        let stop = Scanner::from_start(&log)?.walk(|_| Ok(()))?;
        decide(&log, &stop)
    }

    fn closed(draft: &Draft) -> Vec<u8> {
        [&draft.bytes[..], &[0; 8]].concat()
    }

    /// Flips a bit of the value of the record at `offset`, which has a short key.
    fn damaged(mut bytes: Vec<u8>, offset: u64) -> Vec<u8> {
        bytes[offset as usize + 27] ^= 1;
        bytes
    }

    #[test]
    fn zeros_after_the_end_mark_are_no_damage() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let mut bytes = closed(&draft);
        bytes.resize(1 << 20, 0);
        assert_eq!(decide_on(bytes).unwrap(), Decision::Whole);
    }

    #[test]
    fn an_end_mark_must_be_in_the_file_as_a_whole() {
        assert!(has_end_mark(72, 64) && has_end_mark(1 << 20, 64));
        assert!(!has_end_mark(71, 64) && !has_end_mark(64, 64));
    }

    #[test]
    fn a_missing_end_mark_is_put_back() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let at = draft.end();
        assert_eq!(decide_on(draft.bytes).unwrap(), Decision::Cut { at, data_end: at, keep: false });
    }

    #[test]
    fn a_damaged_last_record_is_a_torn_tail() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let last = draft.put(SYNCED, "b");
        let data_end = draft.end() - 4;
        let decision = decide_on(damaged(closed(&draft), last)).unwrap();
        assert!(
            matches!(decision, Decision::Cut { at, data_end: end, keep: false } if at == last && end <= data_end + 8)
        );
    }

    #[test]
    fn damage_before_a_synced_record_is_corruption() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.put(PLAIN, "b");
        draft.push(SYNCED, MARK, b"", b"");
        let error = decide_on(damaged(closed(&draft), first)).unwrap_err();
        assert!(
            matches!(error, Error::Corrupt { offset, damage: Damage::Body { .. }, .. } if offset == first),
            "{error}"
        );
    }

    #[test]
    fn damage_after_the_last_proof_is_a_torn_tail() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        draft.push(SYNCED, MARK, b"", b"");
        let torn = draft.put(PLAIN, "b");
        draft.put(PLAIN, "c");
        let decision = decide_on(damaged(closed(&draft), torn)).unwrap();
        assert!(matches!(decision, Decision::Cut { at, keep: true, .. } if at == torn), "{decision:?}");
    }

    #[test]
    fn a_statement_proves_only_what_it_names() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        let second = draft.put(PLAIN, "b");
        let third = draft.put(PLAIN, "c");
        draft.synced_to(third);
        let bytes = closed(&draft);
        for proven in [first, second] {
            let error = decide_on(damaged(bytes.clone(), proven)).unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == proven));
        }
        assert!(matches!(decide_on(damaged(bytes, third)).unwrap(), Decision::Cut { at, .. } if at == third));
    }

    #[test]
    fn a_statement_whose_body_is_damaged_proves_nothing() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        let second = draft.put(PLAIN, "b");
        let statement = draft.synced_to(second);
        let mut bytes = damaged(closed(&draft), first);
        bytes[statement as usize + 24] ^= 8;
        assert!(matches!(decide_on(bytes).unwrap(), Decision::Cut { at, .. } if at == first));
    }

    #[test]
    fn a_record_of_an_unknown_kind_beyond_damage_proves_nothing() {
        let mut draft = Draft::new();
        let torn = draft.put(PLAIN, "a");
        draft.push(SYNCED, Kind::Ancillary(Ancillary::Unknown(0x90)), b"", b"");
        let decision = decide_on(damaged(closed(&draft), torn)).unwrap();
        assert!(matches!(decision, Decision::Cut { at, .. } if at == torn), "{decision:?}");
    }

    #[test]
    fn a_lost_group_that_reads_as_zeros_is_damage() {
        let mut draft = Draft::new();
        let lost = draft.put(PLAIN, "a");
        let after = draft.put(PLAIN, "b");
        let mut bytes = closed(&draft);
        bytes[lost as usize..after as usize].fill(0);
        assert!(matches!(decide_on(bytes).unwrap(), Decision::Cut { at, keep: true, .. } if at == lost));

        draft.push(SYNCED, MARK, b"", b"");
        let mut bytes = closed(&draft);
        bytes[lost as usize..after as usize].fill(0);
        let error = decide_on(bytes).unwrap_err();
        assert!(matches!(error, Error::Corrupt { damage: Damage::Zeros, offset, .. } if offset == lost), "{error}");
    }

    #[test]
    fn an_incomplete_batch_is_cut_and_not_kept() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let batch = draft.put(MORE, "b");
        draft.put(MORE, "c");
        assert!(matches!(decide_on(closed(&draft)).unwrap(), Decision::Cut { at, keep: false, .. } if at == batch));
    }

    #[test]
    fn a_batch_cut_by_the_files_end_is_kept() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let batch = draft.put(MORE, "b");
        let second = draft.put(MORE, "c");
        // The padding of the first record may be missing.
        let whole = batch as usize + RECORD_HEADER_LEN + "\0bvalue".len();
        for len in batch as usize + 1..=draft.bytes.len() + 7 {
            let mut bytes = draft.bytes.clone();
            bytes.resize(len, 0);
            let Decision::Cut { at, keep, .. } = decide_on(bytes).unwrap() else { panic!("{len}") };
            assert_eq!((at, keep), (batch, len >= whole), "{len}: the batch is {batch}, {second} to {}", draft.end());
        }
    }

    /// Gives the file another `base_seq`.
    fn copied_from(base_seq: u64, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[..64].copy_from_slice(&FileHeader { base_seq, ..header() }.encode());
        bytes
    }

    #[test]
    fn a_copy_without_its_closing_mark_is_truncated() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let torn = draft.put(PLAIN, "b");
        let whole = closed(&draft);
        let cut = |len: usize| draft.bytes[..torn as usize + len].to_vec();
        // The record before the torn one has the sequence number 1.
        for bytes in [cut(0), cut(30), [cut(0), vec![0; 40]].concat()] {
            for base_seq in [0, 1] {
                assert!(decide_on(copied_from(base_seq, bytes.clone())).is_ok() == (base_seq == 0));
            }
            let error = decide_on(copied_from(1, bytes)).unwrap_err();
            assert!(matches!(error, Error::Truncated { log_end, stated: 0, .. } if log_end == torn), "{error}");
        }
        assert_eq!(decide_on(copied_from(1, whole)).unwrap(), Decision::Whole);
    }

    #[test]
    fn damage_that_is_proven_comes_before_a_missing_closing_mark() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.put(SYNCED, "b");
        let error = decide_on(copied_from(1000, damaged(closed(&draft), first))).unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == first), "{error}");
    }

    /// A log of three puts whose root states the offset of one of them, or the log's end.
    fn stated(place: impl Fn([u64; 3], u64) -> u64) -> (Vec<u8>, [u64; 3], u64) {
        let mut draft = Draft::with_roots();
        let puts = ["a", "b", "c"].map(|key| draft.put(PLAIN, key));
        let synced_to = place(puts, draft.end());
        let mut bytes = closed(&draft);
        let root = Root::after(None, synced_to);
        bytes[root.offset() as usize..][..SLOT_LEN].copy_from_slice(&root.encode(header().seed()));
        (bytes, puts, synced_to)
    }

    #[test]
    fn a_log_that_ends_before_its_root_is_truncated() {
        let (bytes, puts, synced_to) = stated(|_, end| end);
        assert_eq!(decide_on(bytes.clone()).unwrap(), Decision::Whole);
        for end in puts {
            let mut zeroed = bytes.clone();
            zeroed[end as usize..].fill(0);
            let error = decide_on(zeroed).unwrap_err();
            assert!(
                matches!(error, Error::Truncated { log_end, stated, .. } if (log_end, stated) == (end, synced_to)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_root_proves_that_bytes_before_it_are_damaged() {
        let (bytes, [first, second, third], _) = stated(|[_, _, third], _| third);
        for at in [first, second] {
            let error = decide_on(damaged(bytes.clone(), at)).unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at), "{error}");
        }
        let decision = decide_on(damaged(bytes, third)).unwrap();
        assert!(matches!(decision, Decision::Cut { at, .. } if at == third), "{decision:?}");
    }

    #[test]
    fn a_file_that_is_shorter_than_its_root_is_truncated() {
        let (bytes, _, synced_to) = stated(|[_, second, _], _| second);
        let len = |len: u64| open(bytes[..len as usize].to_vec()).root_of_whole_file();
        let (root, whole) = len(synced_to + 8).unwrap();
        assert_eq!((root.map(|root| root.synced_to), whole), (Some(synced_to), synced_to + 8));
        let error = len(synced_to + 7).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { log_end: 0, stated, len, .. }
            if (stated, len) == (synced_to + 8, synced_to + 7)),
            "{error}"
        );
    }

    #[test]
    fn a_log_stored_as_a_value_proves_nothing() {
        let mut inner = Draft::new();
        inner.put(PLAIN, "inner");
        inner.push(SYNCED, MARK, b"", b"");
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.push(PLAIN, Kind::Put, b"\0copy", &inner.bytes);
        let decision = decide_on(damaged(closed(&draft), first)).unwrap();
        assert!(matches!(decision, Decision::Cut { at, .. } if at == first));
    }

    #[test]
    fn proof_is_found_beyond_a_megabyte_of_damage_and_across_holes() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.push(PLAIN, Kind::Put, b"\0long", &vec![9; 3 << 20]);
        draft.push(PLAIN, Kind::Put, b"\0hole", &vec![0; 1 << 20]);
        draft.push(SYNCED, MARK, b"", b"");
        assert!(matches!(decide_on(damaged(closed(&draft), first)), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_torn_tail_is_kept_byte_for_byte() {
        use super::super::testing::PATH;
        use crate::disk::Access;
        use crate::disk::sim::{SimDisk, Verb};

        let mut draft = Draft::new();
        let torn = draft.put(PLAIN, "a");
        // Longer than a piece, and not a multiple of it.
        let value: Vec<u8> = (0..2 * CHUNK + 4321).map(|n| (n % 251) as u8).collect();
        draft.push(PLAIN, Kind::Put, b"\0b", &value);
        let (bytes, end) = (closed(&draft), draft.end());
        let disk = SimDisk::new();
        disk.set_contents(PATH, bytes.clone());
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        let log = LogFile::open(file, &Path::new(PATH).into()).unwrap();
        let reads = disk.calls_of(Verb::ReadAt);
        let kept = keep_torn_tail(&disk, &log, torn, end).unwrap();
        assert_eq!(disk.calls_of(Verb::ReadAt) - reads, 3, "pieces");
        // Durably: the copy survives a power cut that keeps only synced data.
        let after = disk.reboot(&mut crate::disk::sim::Choices::keep_nothing());
        assert_eq!(after.contents(kept).unwrap(), &bytes[torn as usize..end as usize]);
    }
}
