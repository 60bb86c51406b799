//! Writing at the log's end, and cutting it.

use std::io;

use super::LogFile;
use crate::disk::DiskFile;
use crate::format::END_MARK_LEN;

/// The smallest and the largest piece by which a file is extended ahead of its log.
const SMALLEST_STEP: u64 = 64 << 10;
const LARGEST_STEP: u64 = 64 << 20;

/// On every file system, a block of a file starts at a multiple of this.
const SMALLEST_BLOCK: u64 = 512;

/// Files are extended in pieces of this many bytes.
const STEP_UNIT: u64 = 4 << 10;

/// The part of the log's length by which it is extended.
const STEP_PART: u64 = 4;

/// Extends by a quarter of the log's length, so that small stores stay small and large ones are seldom extended.
fn extension_step(log_end: u64) -> u64 {
    (log_end / STEP_PART).clamp(SMALLEST_STEP, LARGEST_STEP).next_multiple_of(STEP_UNIT)
}

/// Where a multiple of this is passed, zeros are written up to the next one.
const ZEROS_AHEAD: u64 = 128 << 10;

/// Writes a finished group, its end mark included, at `offset`.
///
/// The file is extended first if the group does not fit into what it covers (`covered`, kept up to date here):
/// a sync of bytes in space that the file already covers is about a third cheaper, since the length is not changed.
///
/// A record or batch that ends where the space does would be whole, and so seen by others, and the log could neither
/// go on behind it nor be cut there, for want of room for an end mark. So where a unit's end mark would be the first
/// thing in a block, or beyond what the file covers, it is written before the group. `unit_ends` are these places.
///
/// If the group is synced next, the blocks behind it get their place on the disk ahead of the groups to come: a file
/// system has to write down where a new block lies before its sync is over, and need not for a block that is there.
/// With groups of 32 records of 144 bytes, a bare write and sync took 115 us instead of 170 (ext4 on a virtual disk).
/// `synced_from` is where the log ends then: a group that writes the mark before that again begins at the mark.
///
/// # Errors
///
/// If anything is written at all before an error, the caller must look what is there.
pub(crate) fn append(
    log: &LogFile,
    covered: &mut u64,
    offset: u64,
    bytes: &[u8],
    unit_ends: impl Iterator<Item = u64>,
    synced_from: Option<u64>,
) -> io::Result<()> {
    let end = offset + bytes.len() as u64;
    if end > *covered {
        let len = end + extension_step(end);
        // Not being able to extend is no failure: a limit on file sizes may allow the group and not the step.
        if log.file.set_len(len).is_ok() {
            *covered = len;
        }
    }
    if let Some(log_end) = synced_from {
        take_blocks_ahead(log, log_end, end, *covered);
    }
    for unit_end in unit_ends {
        if unit_end % SMALLEST_BLOCK == 0 || unit_end + END_MARK_LEN > *covered {
            write_all(&*log.file, unit_end, &[0; END_MARK_LEN as usize])?;
        }
    }
    write_all(&*log.file, offset, bytes)?;
    *covered = end.max(*covered);
    Ok(())
}

/// Writes zeros from the log's end, where there are zeros anyway, up to the next piece's end, if a group that ends at `end`
/// passes the end of this one.
fn take_blocks_ahead(log: &LogFile, log_end: u64, end: u64, covered: u64) {
    let ahead = end.next_multiple_of(ZEROS_AHEAD).min(covered);
    if end - log_end < ZEROS_AHEAD && end / ZEROS_AHEAD > log_end / ZEROS_AHEAD && ahead > end {
        // Not from the group's end: on a full disk, what the zeros have taken is where the group goes.
        let _ = write_all(&*log.file, log_end, &vec![0; (ahead - log_end) as usize]);
    }
}

pub(crate) fn write_all(file: &dyn DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(offset + written as u64, &bytes[written..])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => written += n,
        }
    }
    Ok(())
}

/// What stands in the place of the end mark while a cut is under way. No record starts like this: its header would
/// have to reach beyond the end of the file.
const CUT_MARK: [u8; END_MARK_LEN as usize] = [0xff; END_MARK_LEN as usize];

/// Makes the log end at `end`: the file is cut behind it, and synced before an end mark is put there.
///
/// In this order, whoever dies in the middle of it leaves a log that has no end mark, and the next writer cuts again.
/// With the end mark first, a process that had looked at the log before would go on behind it, and a power cut could
/// still bring what was cut off back behind what it wrote, or in the middle of that.
pub(crate) fn cut(log: &LogFile, end: u64) -> io::Result<()> {
    write_all(&*log.file, end, &CUT_MARK)?;
    trim(log, end)?;
    write_all(&*log.file, end, &[0; END_MARK_LEN as usize])?;
    log.file.sync_data()
}

/// Gives back what the file was extended by behind the end mark at `end`: zeros.
pub(crate) fn trim(log: &LogFile, end: u64) -> io::Result<()> {
    log.file.set_len(end + END_MARK_LEN)?;
    log.file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{Draft, PATH};
    use super::*;
    use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
    use crate::disk::{Access, Disk};

    #[test]
    fn no_moment_of_a_cut_shows_an_end_mark_with_something_behind_it() {
        use super::super::testing::{MORE, PLAIN};
        use crate::disk::sim::Choices;
        use crate::format::Kind;

        let mut draft = Draft::new();
        draft.put(PLAIN, "a");
        let end = draft.put(MORE, "torn");
        draft.put(PLAIN, "whole, behind what is torn");
        // In sectors of their own too, which a power cut keeps or loses by themselves.
        for _ in 0..20 {
            draft.push(PLAIN, Kind::Put, b"\0far", &[7; 500]);
        }
        let disk = SimDisk::new();
        disk.set_contents(PATH, draft.bytes);
        let file = disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        let log = LogFile::open(file, &Path::new(PATH).into()).unwrap();
        let check = move |found: Vec<u8>| {
            let (mark, behind) = found[end as usize..].split_at(END_MARK_LEN as usize);
            let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
            assert!(!is_zero(mark) || is_zero(behind), "the log would go on here, and what is behind could come back");
        };
        disk.before(When::next(), Repeat::Forever, move |disk| {
            check(disk.contents(PATH).unwrap());
            for seed in 0..50 {
                check(disk.reboot(&mut Choices::from_seed(seed)).contents(PATH).unwrap());
            }
        });
        cut(&log, end).unwrap();
        disk.clear_hooks();
        check(disk.contents(PATH).unwrap());
        assert_eq!(log.len().unwrap(), end + END_MARK_LEN);
    }

    /// A log that reaches 20 bytes before the end of a piece, in a file that covers the next pieces sparsely.
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
    fn a_synced_group_that_passes_the_end_of_a_piece_takes_the_blocks_of_the_next() {
        let longest = ZEROS_AHEAD as usize;
        let cases = [(true, 40, 2), (false, 40, 1), (true, 16, 1), (true, longest - 4, 2), (true, longest + 44, 1)];
        for (is_synced, len, writes) in cases {
            let (disk, log, end) = near_the_end_of_a_piece();
            let mut covered = log.len().unwrap();
            let before = disk.calls_of(Verb::WriteAt);
            append(&log, &mut covered, end, &vec![2; len], std::iter::empty(), is_synced.then_some(end)).unwrap();
            assert_eq!(disk.calls_of(Verb::WriteAt) - before, writes, "{is_synced}, {len} bytes");
            let found = disk.contents(PATH).unwrap();
            assert_eq!(found[end as usize..][..len], vec![2; len]);
            assert!(found[end as usize + len..].iter().all(|&byte| byte == 0));
            assert_eq!(found.len() as u64, 3 * ZEROS_AHEAD);
        }
    }

    /// Else it would be whole as soon as its last bytes are there, and nothing would say that the log ends behind it.
    #[test]
    fn where_a_record_ends_with_a_block_or_with_the_file_its_end_mark_is_written_before_it() {
        for (end, covered, before) in
            [(1024, 4096, true), (1032, 4096, false), (1016, 4096, false), (4088, 4096, false), (4080, 4087, true)]
        {
            let disk = SimDisk::new();
            let log = super::super::testing::open_on(&disk, [&Draft::new().bytes[..], &[1; 8000]].concat());
            let start = 64;
            disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
            let bytes = vec![2; (end - start) as usize];
            let mut covered = covered;
            let written = append(&log, &mut covered, start, &bytes, [end].into_iter(), None);
            let found = disk.contents(PATH).unwrap();
            assert_eq!(written.is_err(), before, "the group is the first or the second write: {end} of {covered}");
            assert_eq!(found[start as usize..end as usize] == bytes, !before);
            assert_eq!(found[end as usize..][..END_MARK_LEN as usize] == [0; 8], before);
        }
    }

    #[test]
    fn on_a_full_disk_the_group_takes_the_place_of_the_zeros_ahead_of_it() {
        let (disk, log, end) = near_the_end_of_a_piece();
        let mut covered = log.len().unwrap();
        disk.fail(When::nth(1).of(Verb::WriteAt), Fault::Short(100), Repeat::Once);
        disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
        append(&log, &mut covered, end, &[2; 40], std::iter::empty(), Some(end)).unwrap();
        let found = disk.contents(PATH).unwrap();
        assert_eq!(found[end as usize..][..40], [2; 40]);
        assert!(found[end as usize + 40..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn steps_follow_the_logs_length_between_their_bounds() {
        assert_eq!(extension_step(64), 64 << 10);
        assert_eq!(extension_step(4 << 20), 1 << 20);
        assert_eq!(extension_step(1 << 40), 64 << 20);
    }

    #[test]
    fn the_page_knows_the_steps_and_the_blocks() {
        use super::super::testing::page_says;

        let (least, most, unit) = (SMALLEST_STEP >> 10, LARGEST_STEP >> 20, STEP_UNIT >> 10);
        assert!(page_says(&format!("passes a multiple of {} KiB", ZEROS_AHEAD >> 10)));
        assert_eq!(STEP_PART, 4);
        assert!(page_says(&format!(
            "by a quarter of the log's length, at least {least} KiB and at most {most} MiB, in whole {unit} KiB"
        )));
        assert!(page_says(&format!("at a multiple of {SMALLEST_BLOCK}, or where the file does not reach yet")));
        assert!(page_says(&format!("write {} bytes of {:#04x} at *e*", CUT_MARK.len(), CUT_MARK[0])));
    }
}
