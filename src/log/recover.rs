//! Recovery: what follows from a walk that stopped. The scanner reports, this decides, and a writer that holds the
//! lock carries it out.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::scan::{Reason, Run, Scanner, Step, Stop};
use super::search::{Beyond, search};
use super::{LogFile, create};
use crate::disk::{Disk, DiskFile, SyncScope};
use crate::format::Damage;
use crate::format::{END_MARK_LEN, RECORD_HEADER_LEN};
use crate::{Error, Result};

/// What to do about a log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The log ends as it should.
    Whole,
    /// A torn tail: the log is to end at `at`.
    Cut {
        at: u64,
        /// Where what is cut off ends, not counting the zeros of a file that was extended ahead.
        data_end: u64,
        /// What is cut off may be worth something: it is to be kept beside the store first.
        keep: bool,
    },
}

/// The decision table. Changes nothing.
///
/// | where the walk stopped | beyond it | decision |
/// | --- | --- | --- |
/// | end mark | zeros only | whole |
/// | end of file | | cut, which puts the end mark back |
/// | end mark or damage | proof that what is damaged was on stable storage | [`Error::Corrupt`] |
/// | end mark or damage | no proof, but [`is_worth_keeping`] | cut, and keep what is cut off |
/// | end mark or damage | neither | cut |
pub(crate) fn decide(log: &LogFile, stop: &Stop) -> Result<Decision> {
    let beyond = search(log, stop)?;
    let damage = match stop.reason {
        Reason::EndMark if beyond.data_end == stop.unit => return Ok(Decision::Whole),
        Reason::EndMark => Damage::Zeros,
        // It ends there, or has a few bytes more.
        Reason::EndOfFile => Damage::BeyondFile { end: stop.at + RECORD_HEADER_LEN as u64, file_len: log.len()? },
        Reason::Damaged(damage) => damage,
    };
    match beyond.proof {
        Some(proof) if proof > stop.unit => Err(log.corrupt(stop.at, damage)),
        _ => {
            let keep = beyond.data_end > stop.unit && is_worth_keeping(log, stop, &beyond)?;
            Ok(Decision::Cut { at: stop.unit, data_end: beyond.data_end, keep })
        }
    }
}

/// Whether what is cut off may be more than what a crash has left of a write that was never acknowledged.
///
/// - Whole records follow a damaged one.
/// - The closing mark of a copy is missing. A copy gets its name after it was synced, so no crash does that.
/// - The file ends inside a batch of which whole records are there. A writer extends the file before it writes, so a
///   killed one leaves zeros behind its batch. A power cut may take that length away again, which is rare. It looks
///   the same as a file that another program has cut, and costs one file that can be removed.
fn is_worth_keeping(log: &LogFile, stop: &Stop, beyond: &Beyond) -> Result<bool> {
    if beyond.whole_records || log.lacks_closing_mark(stop.previous_seq) {
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

/// Tails are copied and written again in pieces of so many bytes.
const PIECE: usize = 1 << 20;

/// Copies what is about to be cut off to a file of its own beside the store, durably.
///
/// # Errors
///
/// Any failure: then nothing may be cut.
pub(crate) fn keep_torn_tail(disk: &dyn Disk, log: &LogFile, from: u64, to: u64) -> Result<PathBuf> {
    let path = sibling(disk, &log.path, TORN)?;
    let error = |e| Error::io("keep the torn tail", &path, e);
    let copy = disk.create_new(&path, PRIVATE).map_err(error)?;
    let kept = give_to_owner(&*copy, &*log.file).map_err(error);
    let kept = kept
        .and_then(|()| each_piece(log, from, to, |at, piece| copy.write_all(at - from, piece).map_err(error)))
        .and_then(|()| copy.sync(SyncScope::File).and_then(|()| create::sync_name(disk, &path, &*copy)).map_err(error));
    if let Err(error) = kept {
        // A part of a tail is no help, and every try to open would leave another one.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(path)
}

/// Gives a copy that was created with [`PRIVATE`] the owner and mode of what it is a copy of.
///
/// Where these cannot be had it stays private: the mode alone would speak of another group. So does the copy of a file with
/// an ACL: what that allows was meant for the one file, and a copy may be in a place that others can reach.
pub(crate) fn give_to_owner(copy: &dyn DiskFile, source: &dyn DiskFile) -> io::Result<()> {
    // A default ACL of the directory allows nothing yet, but would as soon as somebody changes the mode.
    copy.set_attributes(&copy.attributes()?.without_extended())?;
    match source.attributes() {
        Ok(source) if !source.has_acl() => drop(copy.set_attributes(&source.without_extended())),
        _ => {}
    }
    Ok(())
}

/// Reads a range of the log piece by piece.
fn each_piece(log: &LogFile, from: u64, to: u64, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let piece = &mut buffer[..(to - at).min(PIECE as u64) as usize];
        log.read_exact(at, piece)?;
        take(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Writes a part of the log that no proof covers again, the same bytes to the same place.
///
/// After a failed sync, before this handle was opened, the kernel may hold pages that look clean and read back well
/// but never reached the disk. Written again they are dirty, and the next sync brings them there.
pub(crate) fn write_again(log: &LogFile, from: u64, to: u64) -> Result<()> {
    each_piece(log, from, to, |at, piece| log.file.write_all(at, piece).map_err(|e| log.io("rewrite the tail", e)))
}

/// Makes sure that what was written again still is what was taken in. A record starts at `from`.
pub(crate) fn check_again(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<()> {
    let mut walked = walk_to(Scanner::resume(log, from, previous_seq)?, to)?;
    if walked.is_err() {
        // No writer states that the file is synced up to the middle of a record. Where somebody else has, the walk
        // did not begin at a record.
        walked = walk_to(Scanner::from_start(log)?, to)?;
    }
    walked.map_err(|stop| {
        let damage = if let Reason::Damaged(damage) = stop.reason { damage } else { Damage::Zeros };
        log.corrupt(stop.at, damage)
    })
}

/// How far whole units reach, from a place where a record starts and up to `to` at most, and the index of the last record
/// of them. Without the lock: what stops the walk is judged by [`check_again`], with the lock.
pub(crate) fn whole_up_to(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<(u64, u64)> {
    let mut scanner = Scanner::resume(log, from, previous_seq)?;
    let (mut reached, mut unit) = ((from, previous_seq), Run::default());
    while reached.0 < to && matches!(scanner.step(&mut unit)?, Step::Unit) {
        let Some(last) = unit.entries.last() else { break };
        let end = last.end();
        if end > to {
            break;
        }
        reached = (end, last.header.seq);
    }
    Ok(reached)
}

/// Whether everything up to `to` can be read; if not, where the walk stopped.
fn walk_to(mut scanner: Scanner<'_>, to: u64) -> Result<std::result::Result<(), Stop>> {
    let mut reached = 0;
    let stop = scanner.walk(|unit| {
        reached = unit.end().unwrap_or(reached);
        Ok(())
    })?;
    Ok(if reached < to { Err(stop) } else { Ok(()) })
}

/// Whether the file reaches far enough for the end mark that should stand at `end`.
pub(crate) fn has_end_mark(file_len: u64, end: u64) -> bool {
    file_len >= end + END_MARK_LEN
}

/// What comes between the store's name and a random number in the name of a torn tail that was kept.
const TORN: &str = "torn";
/// The same for a file that is being made: the store itself, or its compacted successor.
pub(crate) const TEMPORARY: &str = "tmp";

/// How many hexadecimal digits a sibling's name ends with.
const DIGITS: usize = 16;

/// The longest store name that goes into its siblings' names whole. A sibling's name is 22 bytes longer and has to fit
/// into 143 bytes, the shortest limit of a Linux file system (eCryptfs); most have 255.
const LONGEST_NAME: usize = 120;

/// Permission bits of a file that is to have those of another one, until it has that one's owner as well: before that,
/// the group's bits would speak of the wrong group.
pub(crate) const PRIVATE: u32 = 0o600;

/// A new name beside the store: `NAME.KIND-` and 16 random hexadecimal digits.
pub(crate) fn sibling(disk: &dyn Disk, path: &Path, kind: &str) -> Result<PathBuf> {
    let mut random = [0; 8];
    disk.system().fill_random(&mut random).map_err(|e| Error::io("get random bytes", path, e))?;
    Ok(sibling_with(path, kind, u64::from_le_bytes(random)))
}

/// How many names are tried for a file that is being made before one with random digits.
const FIRST_NAMES: u64 = 4;

/// The siblings of this kind whose digits are the numbers from 0 to 3. A file that is being made has one of these names
/// unless as many makers are at work on the same store. So four look-ups tell whether a killed process has left something,
/// in a directory of any size.
pub(crate) fn first_siblings<'p>(path: &'p Path, kind: &'p str) -> impl Iterator<Item = PathBuf> + 'p {
    (0..FIRST_NAMES).map(move |number| sibling_with(path, kind, number))
}

fn sibling_with(path: &Path, kind: &str, digits: u64) -> PathBuf {
    let mut name = sibling_prefix(path, kind);
    name.push(format!("{digits:0DIGITS$x}"));
    path.with_file_name(name)
}

/// What the names of all siblings of this kind start with.
///
/// Of a long name its beginning and its checksum stand for the whole. Two stores whose names agree in both share
/// their siblings' names. That does no harm, since nothing is removed that is locked.
pub(crate) fn sibling_prefix(path: &Path, kind: &str) -> OsString {
    let whole = path.file_name().unwrap_or_default();
    let mut name = whole.to_owned();
    if whole.len() > LONGEST_NAME {
        let checksum = format!("~{:08x}", crc32fast::hash(whole.as_bytes()));
        name = beginning(whole, LONGEST_NAME - checksum.len()).to_owned();
        name.push(checksum);
    }
    name.push(".");
    name.push(kind);
    name.push("-");
    name
}

/// The first `len` bytes of a name, or a few less: some file systems refuse a name with a part of a UTF-8 character.
fn beginning(name: &OsStr, mut len: usize) -> &OsStr {
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    while len > 0 && is_continuation(name.as_bytes()[len]) {
        len -= 1;
    }
    OsStr::from_bytes(&name.as_bytes()[..len])
}

/// Whether what a name has behind such a prefix makes it one that [`sibling`] gives. Anything else there is somebody's
/// own file, another store perhaps.
pub(crate) fn is_sibling_suffix(suffix: &[u8]) -> bool {
    suffix.len() == DIGITS && suffix.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The directory that holds the store.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Draft, MARK, MORE, PLAIN, SYNCED, header, open};
    use super::*;
    use crate::format::{Ancillary, FileHeader, Kind};

    fn rewrite(log: &LogFile, from: u64, previous_seq: u64, to: u64) -> Result<()> {
        write_again(log, from, to)?;
        check_again(log, from, previous_seq, to)
    }

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
    fn zeros_behind_the_end_mark_are_a_file_that_was_extended_ahead() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let mut bytes = closed(&draft);
        bytes.resize(1 << 20, 0);
        assert_eq!(decide_on(bytes).unwrap(), Decision::Whole);
    }

    #[test]
    fn an_end_mark_is_there_if_the_file_holds_all_of_it() {
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
    fn damage_behind_the_last_proof_is_a_torn_tail_whose_whole_records_are_kept() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        draft.push(SYNCED, MARK, b"", b"");
        let torn = draft.put(PLAIN, "b");
        draft.put(PLAIN, "c");
        let decision = decide_on(damaged(closed(&draft), torn)).unwrap();
        assert!(matches!(decision, Decision::Cut { at, keep: true, .. } if at == torn), "{decision:?}");
    }

    #[test]
    fn a_statement_proves_up_to_the_place_that_it_names_and_no_further() {
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
    fn a_log_is_rewritten_from_a_statement_that_names_the_middle_of_a_record() {
        // Found by fuzzing: a store with such a statement opened, and then refused every write as corrupt.
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        draft.synced_to(first + 8);
        let (bytes, end) = (closed(&draft), draft.end());
        let log = open(bytes.clone());
        rewrite(&log, first + 8, 0, end).unwrap();
        let mut found = vec![0; bytes.len()];
        log.read_exact(0, &mut found).unwrap();
        assert_eq!(found, bytes);

        let damaged = open(damaged(bytes, first));
        assert!(matches!(rewrite(&damaged, first + 8, 0, end), Err(Error::Corrupt { offset, .. }) if offset == first));
    }

    #[test]
    fn what_is_written_again_is_read_up_to_its_end() {
        let mut draft = Draft::new();
        let first = draft.put(PLAIN, "a");
        let second = draft.put(PLAIN, "b");
        let third = draft.put(PLAIN, "c");
        let (bytes, end) = (closed(&draft), draft.end());
        rewrite(&open(bytes.clone()), first, 0, end).unwrap();
        for at in [second, third] {
            let error = rewrite(&open(damaged(bytes.clone(), at)), first, 0, end).unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == at), "{error}");
        }
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
        draft.push(SYNCED, Kind::Ancillary(Ancillary::Unknown(0xf0)), b"", b"");
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
    fn an_unfinished_batch_is_cut_at_its_first_record_and_its_records_are_not_kept() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let batch = draft.put(MORE, "b");
        draft.put(MORE, "c");
        assert!(matches!(decide_on(closed(&draft)).unwrap(), Decision::Cut { at, keep: false, .. } if at == batch));
    }

    #[test]
    fn an_unfinished_batch_with_whole_records_is_kept_where_the_file_ends_inside_it() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let batch = draft.put(MORE, "b");
        let second = draft.put(MORE, "c");
        // The padding of the first record need not be there.
        let whole = batch as usize + RECORD_HEADER_LEN + "\0bvalue".len();
        for len in batch as usize + 1..=draft.bytes.len() + 7 {
            let mut bytes = draft.bytes.clone();
            bytes.resize(len, 0);
            let Decision::Cut { at, keep, .. } = decide_on(bytes).unwrap() else { panic!("{len}") };
            assert_eq!((at, keep), (batch, len >= whole), "{len}: the batch is {batch}, {second} to {}", draft.end());
        }
    }

    #[test]
    fn what_a_copy_without_its_closing_mark_has_behind_its_end_is_kept() {
        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let torn = draft.put(PLAIN, "b");
        // The record before the torn one has the index 1.
        for (base_seq, kept) in [(0, false), (1, false), (2, true)] {
            let mut bytes = draft.bytes[..torn as usize + 30].to_vec();
            bytes[..64].copy_from_slice(&FileHeader { base_seq, ..header() }.encode());
            assert!(matches!(decide_on(bytes).unwrap(), Decision::Cut { at, keep, .. } if (at, keep) == (torn, kept)));
        }
        let mut bytes = draft.bytes[..torn as usize].to_vec();
        bytes[..64].copy_from_slice(&FileHeader { base_seq: 1000, ..header() }.encode());
        assert!(matches!(decide_on(bytes).unwrap(), Decision::Cut { keep: false, .. }), "nothing is there to be kept");
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
    fn the_page_knows_the_names_of_siblings() {
        use super::super::testing::page_says;

        for kind in [TORN, TEMPORARY] {
            assert!(page_says(&format!("`NAME.{kind}-` with {DIGITS} hexadecimal digits")), "{kind}");
        }
        let kept = LONGEST_NAME - "~01234567".len();
        assert!(page_says(&format!("The digits are a number from 0 to {}", FIRST_NAMES - 1)));
        assert!(page_says(&format!("Of a NAME of more than {LONGEST_NAME} bytes, the first {kept}")));
    }

    #[test]
    fn siblings_of_long_names_are_short_and_differ() {
        let longest = |last: &str| format!("/dir/{}{last}", "é".repeat(126));
        for kind in [TORN, TEMPORARY] {
            let [a, b] = ["aaa", "bbb"].map(|last| sibling_with(longest(last).as_ref(), kind, 0));
            assert_ne!(a, b, "{kind}");
            for sibling in [a, b] {
                // As UTF-8, as the store's own name is, and within what eCryptfs allows.
                let name = sibling.file_name().unwrap().to_str().unwrap();
                assert!(name.len() <= 143 && name.starts_with("ééé"), "{name}");
            }
        }
        let whole = "n".repeat(LONGEST_NAME);
        let prefix = sibling_prefix(whole.as_ref(), TEMPORARY);
        assert_eq!(prefix.to_str().unwrap(), format!("{whole}.tmp-"));
    }

    #[test]
    fn what_only_looks_like_a_sibling_is_somebodys_own_file() {
        let disk = crate::disk::sim::SimDisk::new();
        let path = Path::new("/dir/store");
        let name = sibling(&disk, path, TEMPORARY).unwrap();
        assert_eq!(name.parent(), path.parent());
        let name = name.file_name().unwrap().to_str().unwrap().to_owned();
        let suffix = name.strip_prefix(sibling_prefix(path, TEMPORARY).to_str().unwrap()).unwrap();
        assert!(name.starts_with("store.tmp-") && is_sibling_suffix(suffix.as_bytes()));
        for other in ["", "backup", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg"] {
            assert!(!is_sibling_suffix(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_cut_off_is_kept_byte_for_byte_beside_the_store() {
        use super::super::testing::PATH;
        use crate::disk::Access;
        use crate::disk::sim::{SimDisk, Verb};

        let mut draft = Draft::new();
        let torn = draft.put(PLAIN, "a");
        // Longer than what is copied at once, and not a multiple of it.
        let value: Vec<u8> = (0..2 * PIECE + 4321).map(|n| (n % 251) as u8).collect();
        draft.push(PLAIN, Kind::Put, b"\0b", &value);
        let (bytes, end) = (closed(&draft), draft.end());
        let disk = SimDisk::new();
        disk.set_contents(PATH, bytes.clone());
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        let log = LogFile::open(file, &Path::new(PATH).into()).unwrap();
        let reads = disk.calls_of(Verb::ReadAt);
        let kept = keep_torn_tail(&disk, &log, torn, end).unwrap();
        assert_eq!(disk.calls_of(Verb::ReadAt) - reads, 3, "pieces");
        // Durably: it is there after a power cut that keeps nothing that was not synced.
        let after = disk.reboot(&mut crate::disk::sim::Choices::keep_nothing());
        assert_eq!(after.contents(kept).unwrap(), &bytes[torn as usize..end as usize]);
    }
}
