//! Writing at the end of the log, and cutting it.

use std::io;

use super::LogFile;
use super::run::UnitEnd;
use super::search::last_data;
use crate::disk::SyncScope;
use crate::format::END_MARK_LEN;
use crate::limits::{Limits, Shared};

/// A block of a file starts at a multiple of this on every file system.
const SMALLEST_BLOCK: u64 = 512;

/// A file is extended by one part in this many of the log's length.
const STEP_PART: u64 = 4;

/// A quarter of the log's length: small stores stay small, and large ones are seldom extended.
fn extension_step(log_end: u64, limits: Shared) -> u64 {
    let step = (log_end / STEP_PART).clamp(limits.smallest_step(), limits.largest_step());
    step.next_multiple_of(limits.step_unit())
}

/// Writes a finished group, its end mark included, at `offset`.
///
/// Extends the file first if the group ends beyond `file_len`, which is kept up to date here. A sync is about a third
/// cheaper if the file's length does not change.
///
/// `unit_ends` are the offsets at which units of the group end; see [`take_last_blocks`].
///
/// `synced_from` is given if a sync follows: the offset at which the log ends. (A group that rewrites the trailing mark
/// starts before that.) Then the blocks after the group are allocated now, because a file system must record a new
/// block before the sync returns.
///
/// # Errors
///
/// After an error, a part of the group may be in the file; the caller must look.
pub(crate) fn append(
    log: &LogFile,
    file_len: &mut u64,
    offset: u64,
    bytes: &[u8],
    unit_ends: impl Iterator<Item = UnitEnd>,
    synced_from: Option<u64>,
) -> io::Result<()> {
    let end = offset + bytes.len() as u64;
    if end > *file_len {
        extend(log, file_len, end)?;
    }
    if let Some(log_end) = synced_from {
        take_blocks_ahead(log, log_end, end, *file_len);
    }
    take_last_blocks(log, *file_len, offset, bytes, unit_ends)?;
    log.file.write_all(offset, bytes)?;
    *file_len = end.max(*file_len);
    Ok(())
}

/// Writes the zeros and the end mark of each unit that readers could take for complete too early.
///
/// A reader accepts a unit as soon as its bytes are in the file, and then looks at the end mark. Extended space reads
/// as zeros. So a unit that ends in zeros is complete before its last blocks are written, and a unit that ends at a
/// block's boundary is complete without the block of its end mark. If the disk is full at that moment, the log can
/// neither go on there nor be cut there. A loose unit is complete with its header alone. On tmpfs, a page that was never
/// written takes space when it is read through a map, so each process that looks at it would be killed.
fn take_last_blocks(
    log: &LogFile,
    file_len: u64,
    offset: u64,
    bytes: &[u8],
    unit_ends: impl Iterator<Item = UnitEnd>,
) -> io::Result<()> {
    for UnitEnd { offset: unit_end, is_loose } in unit_ends {
        let len = (unit_end - offset) as usize;
        let in_last_block = &bytes[len - len.min((unit_end % SMALLEST_BLOCK) as usize)..len];
        if in_last_block.iter().any(|&byte| byte != 0) && unit_end + END_MARK_LEN <= file_len && !is_loose {
            continue;
        }
        let data_end = offset + last_data(&bytes[..len]).map_or(0, |last| last as u64 + 1);
        let zeros = data_end.next_multiple_of(SMALLEST_BLOCK).min(unit_end);
        log.file.write_all(zeros, &bytes[(zeros - offset) as usize..len])?;
        log.file.write_all(unit_end, &[0; END_MARK_LEN as usize])?;
    }
    Ok(())
}

/// Makes the file reach beyond `end`, and updates `file_len`.
///
/// Never makes the file shorter: another handle may have extended it further, or may still map a longer log that was
/// cut since.
fn extend(log: &LogFile, file_len: &mut u64, end: u64) -> io::Result<()> {
    *file_len = log.file.len()?;
    if end > *file_len {
        let len = end + extension_step(end, log.limits);
        // A failure is passed over: a limit on file sizes may allow the group and not the step.
        if log.file.set_len(len).is_ok() {
            *file_len = len;
        }
    }
    Ok(())
}

/// Writes zeros from the log's end to the next multiple of a limit, if a group that ends at `end` passes the one before.
fn take_blocks_ahead(log: &LogFile, log_end: u64, end: u64, file_len: u64) {
    let step = log.limits.zeros_ahead();
    let ahead = end.next_multiple_of(step).min(file_len);
    if end - log_end < step && end / step > log_end / step && ahead > end {
        // Not from the group's end: on a full disk, the group takes the space of these zeros.
        let _ = log.file.write_all(log_end, &vec![0; (ahead - log_end) as usize]);
    }
}

/// Stands in place of the end mark while a cut is under way. It is never a valid header: with zeros after it the
/// sequence number is 0, and with the rest of the old header after it the checksum fails. Zeros in the same write could
/// need a block that a full disk does not have.
const CUT_MARK: [u8; END_MARK_LEN as usize] = [0xff; END_MARK_LEN as usize];

/// Makes the log end at `end`: zeros everything after that, syncs, and only then writes the end mark.
///
/// A process that dies in the middle leaves a log without an end mark, and the next writer cuts again. If the end mark
/// came first, a process that knew the log's end could append there, and a power cut could bring back old bytes in the
/// middle of its records.
///
/// The file keeps its length. Another process may map the longer log; touching a map beyond the file's end would kill
/// it.
pub(crate) fn cut(log: &LogFile, end: u64) -> io::Result<()> {
    log.file.write_all(end, &CUT_MARK)?;
    clear(log, end + END_MARK_LEN)?;
    log.file.sync(SyncScope::File)?;
    log.file.write_all(end, &[0; END_MARK_LEN as usize])?;
    log.file.sync(SyncScope::Data)
}

/// Zeros everything from `from` to the end of the file.
fn clear(log: &LogFile, from: u64) -> io::Result<()> {
    let len = log.file.len()?;
    if from >= len || log.file.punch(from..len).is_ok() {
        return Ok(());
    }
    // Piece by piece, and not into holes: a full disk has no space for zeros there.
    let mut at = from;
    while let Some(data) = log.file.next_data(at)? {
        at = at.max(data);
        // The usual size of a block.
        let piece_end = (at + 1).next_multiple_of(log.limits.cleared_at_once()).min(len);
        log.file.write_all(at, &ZEROS[..(piece_end - at) as usize])?;
        at = piece_end;
    }
    Ok(())
}

const ZEROS: [u8; Limits::REAL.cleared_at_once() as usize] = [0; Limits::REAL.cleared_at_once() as usize];

/// Gives back the extended space after the end mark at `end`. Only for a file that no other handle maps.
///
/// This needs no sync: only zeros are given back, so a power cut that undoes it does no harm.
pub(crate) fn trim(log: &LogFile, end: u64) -> io::Result<()> {
    log.file.set_len(end + END_MARK_LEN)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::super::testing::{Draft, PATH};
    use super::*;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::disk::{Access, Disk};

    const ZEROS_AHEAD: u64 = Limits::REAL.zeros_ahead();
    const REAL: Shared = &Limits::REAL;

    fn plain(offset: u64) -> UnitEnd {
        UnitEnd { offset, is_loose: false }
    }

    #[test]
    fn a_cut_never_shows_an_end_mark_before_data() {
        use super::super::testing::{MORE, PLAIN};
        use crate::disk::sim::Choices;
        use crate::format::Kind;

        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let end = draft.put(MORE, "torn");
        draft.put(PLAIN, "whole, after the torn batch");
        // In sectors of their own, which a power cut keeps or loses separately.
        for _ in 0..20 {
            draft.push(PLAIN, Kind::Put, b"\0far", &[7; 500]);
        }
        let disk = SimDisk::new();
        disk.set_contents(PATH, draft.bytes);
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        let log = LogFile::open(file, &Path::new(PATH).into()).unwrap();
        let check = move |found: Vec<u8>| {
            let (mark, after) = found[end as usize..].split_at(END_MARK_LEN as usize);
            let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
            assert!(!is_zero(mark) || is_zero(after), "the log would go on here, and the old bytes could come back");
        };
        disk.before(When::next(), Repeat::Forever, move |disk| {
            check(disk.contents(PATH).unwrap());
            for seed in 0..50 {
                check(disk.reboot(&mut Choices::from_seed(seed)).contents(PATH).unwrap());
            }
        });
        let len = log.len().unwrap();
        cut(&log, end).unwrap();
        disk.clear_hooks();
        check(disk.contents(PATH).unwrap());
        assert_eq!(log.len().unwrap(), len, "another process may have the file mapped up to there");
    }

    /// A log that ends 20 bytes before the end of a piece, in a file that reaches sparsely beyond the next pieces.
    fn near_the_end_of_a_piece() -> (SimDisk, LogFile, u64) {
        let disk = SimDisk::new();
        let mut contents = Draft::new().bytes;
        contents.resize(ZEROS_AHEAD as usize - 20, 1);
        disk.set_contents(PATH, contents);
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        file.set_len(3 * ZEROS_AHEAD).unwrap();
        let log = LogFile::open(file, &Path::new(PATH).into()).unwrap();
        (disk, log, ZEROS_AHEAD - 20)
    }

    #[test]
    fn a_synced_group_allocates_the_blocks_of_the_next_piece() {
        let longest = ZEROS_AHEAD as usize;
        let cases = [(true, 40, 2), (false, 40, 1), (true, 16, 1), (true, longest - 4, 2), (true, longest + 44, 1)];
        for (is_synced, len, writes) in cases {
            let (disk, log, end) = near_the_end_of_a_piece();
            let mut file_len = log.len().unwrap();
            let before = disk.calls_of(Verb::WriteAt);
            append(&log, &mut file_len, end, &vec![2; len], std::iter::empty(), is_synced.then_some(end)).unwrap();
            assert_eq!(disk.calls_of(Verb::WriteAt) - before, writes, "{is_synced}, {len} bytes");
            let found = disk.contents(PATH).unwrap();
            assert_eq!(found[end as usize..][..len], vec![2; len]);
            assert!(found[end as usize + len..].iter().all(|&byte| byte == 0));
            assert_eq!(found.len() as u64, 3 * ZEROS_AHEAD);
        }
    }

    /// Otherwise the record would be complete without an end mark after it.
    #[test]
    fn an_end_mark_in_a_new_block_is_written_first() {
        for (end, file_len, before) in
            [(1024, 4096, true), (1032, 4096, false), (1016, 4096, false), (4088, 4096, false), (4080, 4087, true)]
        {
            let disk = SimDisk::new();
            let log = super::super::testing::open_on(&disk, [&Draft::new().bytes[..], &[1; 8000]].concat());
            let start = 64;
            disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
            let bytes = vec![2; (end - start) as usize];
            let mut file_len = file_len;
            let written = append(&log, &mut file_len, start, &bytes, [plain(end)].into_iter(), None);
            let found = disk.contents(PATH).unwrap();
            assert_eq!(written.is_err(), before, "the group is the first or the second write: {end} of {file_len}");
            assert_eq!(found[start as usize..end as usize] == bytes, !before);
            assert_eq!(found[end as usize..][..END_MARK_LEN as usize] == [0; 8], before);
        }
    }

    /// A walk takes the record for complete once it sees its header, whatever becomes of its body.
    #[test]
    fn the_end_mark_of_a_loose_record_is_written_first() {
        for is_loose in [false, true] {
            let disk = SimDisk::new();
            let log = super::super::testing::open_on(&disk, [&Draft::new().bytes[..], &[1; 20_000]].concat());
            let (start, end, mut file_len) = (64, 9_000, 20_064);
            disk.fail(When::nth(1 + u64::from(is_loose)).of(Verb::WriteAt), Fault::Short(100), Repeat::Once);
            disk.fail(When::nth(2 + u64::from(is_loose)).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
            let bytes = vec![2; (end - start) as usize];
            append(&log, &mut file_len, start, &bytes, [UnitEnd { offset: end, is_loose }].into_iter(), None)
                .unwrap_err();
            let found = disk.contents(PATH).unwrap();
            assert_eq!(found[start as usize..][..100], [2; 100], "the header is there");
            assert_eq!(found[end as usize..][..END_MARK_LEN as usize] == [0; 8], is_loose);
        }
    }

    #[test]
    fn zeros_at_the_end_of_a_unit_are_written_first() {
        // Where the data ends, where the unit ends, and where the early write starts.
        let cases = [(1000, 1016, None), (1000, 1032, Some(1024)), (1024, 1032, Some(1024)), (1025, 1032, None)];
        let long = [(500, 9000, Some(512)), (8705, 9000, None), (8704, 9000, Some(8704)), (1000, 1024, Some(1024))];
        for (data_end, end, early) in cases.into_iter().chain(long) {
            let disk = SimDisk::new();
            let log = super::super::testing::open_on(&disk, [&Draft::new().bytes[..], &[1; 20_000]].concat());
            let (start, mut file_len) = (64, 20_064);
            let bytes = [vec![2; data_end - start], vec![0; end - data_end], vec![3; 100], vec![0; 8]].concat();
            let original = disk.contents(PATH).unwrap();
            let before_the_group = Arc::new(Mutex::new(Vec::new()));
            let found = Arc::clone(&before_the_group);
            disk.before(When::next().of(Verb::WriteAt), Repeat::Forever, move |disk| {
                *found.lock().unwrap() = disk.contents(PATH).unwrap();
            });
            append(&log, &mut file_len, start as u64, &bytes, [plain(end as u64)].into_iter(), None).unwrap();
            disk.clear_hooks();
            let mut expected = original;
            if let Some(early) = early {
                expected[early..end + 8].fill(0);
            }
            assert!(*before_the_group.lock().unwrap() == expected, "{data_end} {end}");
            assert_eq!(disk.contents(PATH).unwrap()[start..][..bytes.len()], bytes);
        }
    }

    #[test]
    fn on_a_full_disk_a_group_replaces_the_zeros_ahead() {
        let (disk, log, end) = near_the_end_of_a_piece();
        let mut file_len = log.len().unwrap();
        disk.fail(When::nth(1).of(Verb::WriteAt), Fault::Short(100), Repeat::Once);
        disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        append(&log, &mut file_len, end, &[2; 40], std::iter::empty(), Some(end)).unwrap();
        let found = disk.contents(PATH).unwrap();
        assert_eq!(found[end as usize..][..40], [2; 40]);
        assert!(found[end as usize + 40..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn steps_follow_the_logs_length_between_their_bounds() {
        assert_eq!(extension_step(64, REAL), 64 << 10);
        assert_eq!(extension_step(4 << 20, REAL), 1 << 20);
        assert_eq!(extension_step(1 << 40, REAL), 64 << 20);
    }

    #[test]
    fn the_page_knows_the_steps_and_the_blocks() {
        use super::super::testing::page_says;

        let (least, most, unit) = (REAL.smallest_step >> 10, REAL.largest_step >> 20, REAL.step_unit >> 10);
        assert!(page_says(&format!("passes a multiple of {} KiB", ZEROS_AHEAD >> 10)));
        assert_eq!(STEP_PART, 4);
        assert!(page_says(&format!(
            "by a quarter of the log's length, at least {least} KiB and at most {most} MiB, in whole {unit} KiB"
        )));
        assert!(page_says(&format!("at a multiple of {SMALLEST_BLOCK}, or where the file does not reach yet")));
        assert!(page_says(&format!("write {} bytes of {:#04x} at *e*", CUT_MARK.len(), CUT_MARK[0])));
    }
}
