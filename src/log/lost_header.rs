//! Reading a file whose header is lost.
//!
//! The records' checksums need one number from the file header, the seed. `body_crc` does not depend on the seed, so a
//! record can be recognised without it, and its header checksum then gives the seed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::LogFile;
use super::chunks::Chunks;
use super::search::body_holds;
use crate::disk::{DiskFile, FileStat};
use crate::format::{
    ALIGNMENT, FILE_HEADER_LEN, FileHeader, FileSeed, Kind, MAJOR_VERSION, MAX_SEQ, MINOR_VERSION, RECORD_HEADER_LEN,
    RecordHeader, SESSION_LEN, SeqBound,
};
use crate::{Error, Result};

/// This many records must agree on a seed. A single one could be an accident, or a record of another file: from a log
/// stored as a value, or in a block written to the wrong place.
const ENOUGH: u32 = 2;

/// The search ends when this many records agree.
const MORE_THAN_ENOUGH: u32 = 64;

/// When there are this many seeds, those with only one record are dropped.
const MOST_SEEDS: usize = 1 << 16;

/// Opens a file as [`LogFile::open`] does, with an invented header. No record header is true in it until it gets the
/// right seed.
///
/// # Errors
///
/// I/O errors.
pub(crate) fn without_header(file: Arc<dyn DiskFile>, path: &Arc<Path>) -> Result<LogFile> {
    let FileStat { identity, links, .. } = file.stat().map_err(|e| Error::io("stat", path, e))?;
    let header = FileHeader {
        major: MAJOR_VERSION,
        minor: MINOR_VERSION,
        has_roots: false,
        file_id: [0; 16],
        // The true one is unknown. This one rules no sequence number out.
        base_seq: MAX_SEQ,
        created: 0,
        complete_after: 0,
    };
    let limits = file.limits_kept();
    Ok(LogFile { file, path: Arc::clone(path), seed: header.seed(), header, identity, links, limits })
}

/// The file of [`without_header`] with the seed that its records agree on.
///
/// # Errors
///
/// I/O errors.
pub(crate) fn with_seed(nameless: LogFile, seed: FileSeed) -> Result<LogFile> {
    let mut log = LogFile { seed, ..nameless };
    log.header.has_roots = log.shows_roots()?;
    Ok(log)
}

/// The seed that the records of a file agree on, or `None`.
///
/// # Errors
///
/// I/O errors.
pub(crate) fn find_seed(log: &LogFile) -> Result<Option<FileSeed>> {
    let file_len = log.len()?;
    // A false candidate costs the reading of its body. Candidates may overlap, so the total is bounded.
    let most = log.limits.largest_chunk();
    let mut patience = 4 * file_len + most as u64;
    // For each seed, the number of its records and the offset of the first.
    let mut votes: HashMap<FileSeed, (u32, u64)> = HashMap::new();
    let mut chunks = Chunks::new(log, FILE_HEADER_LEN as u64);
    while let Some((at, chunk)) = chunks.read(most + RECORD_HEADER_LEN)? {
        let mut start = 0;
        while let Some(bytes) = chunk.get(start..).and_then(|rest| rest.first_chunk()) {
            start += ALIGNMENT as usize;
            let offset = at + start as u64 - ALIGNMENT;
            let Some(header) = candidate(bytes, offset, file_len) else { continue };
            if header.body_len() > patience {
                continue;
            }
            if !body_holds(log, offset, &header)? {
                patience -= header.body_len();
                continue;
            }
            if votes.len() == MOST_SEEDS {
                votes.retain(|_, (count, _)| *count > 1);
            }
            let seed = header.seed_at(offset);
            let (count, _) = votes.entry(seed).and_modify(|(count, _)| *count += 1).or_insert((1, offset));
            if *count == MORE_THAN_ENOUGH {
                return Ok(Some(seed));
            }
            // Bytes inside a record are its value, even if they are a log.
            start += header.padded_len() as usize - ALIGNMENT as usize;
        }
        chunks.advance(start.max(ALIGNMENT as usize));
    }
    let best = votes.into_iter().max_by_key(|(_, (count, first))| (*count, u64::MAX - first));
    Ok(best.filter(|(_, (count, _))| *count >= ENOUGH).map(|(seed, _)| seed))
}

/// The header that these bytes spell, if a writer could have written it in any file.
fn candidate(bytes: &[u8; RECORD_HEADER_LEN], offset: u64, file_len: u64) -> Option<RecordHeader> {
    if !RecordHeader::plausible(bytes, SeqBound { previous: 0, base: MAX_SEQ }) {
        return None;
    }
    let header = RecordHeader::decode(bytes)?;
    let has_form = match header.kind {
        Kind::Put | Kind::PutWith | Kind::PutOwned => header.key_len > 1 && header.has_room_for_expiry(),
        Kind::Delete => header.key_len > 1 && header.value_len == 0,
        Kind::Session => header.key_len == 0 && header.value_len as usize == SESSION_LEN,
        Kind::Ancillary(_) => header.key_len == 0 && header.value_len <= 8,
    };
    (has_form && offset + header.record_len() <= file_len).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::super::chunks::LARGEST_CHUNK;
    use super::super::testing::{Draft, MARK, MORE, PATH, PLAIN, SYNCED, seed};
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::{Access, Disk};

    fn seed_of(bytes: Vec<u8>) -> Option<FileSeed> {
        let disk = SimDisk::new();
        disk.set_contents(PATH, bytes);
        let file = disk.open(Path::new(PATH), Access::Read).unwrap();
        find_seed(&without_header(file, &Path::new(PATH).into()).unwrap()).unwrap()
    }

    fn wiped_header(draft: Draft) -> Vec<u8> {
        let mut bytes = [draft.bytes, vec![0; 8]].concat();
        bytes[..FILE_HEADER_LEN].fill(0xee);
        bytes
    }

    #[test]
    fn two_records_that_agree_give_the_seed() {
        let mut draft = Draft::new();
        draft.put(MORE, "a");
        assert_eq!(seed_of(wiped_header(draft)), None);
        let mut draft = Draft::new();
        draft.put(MORE, "a");
        draft.push(SYNCED, MARK, b"", b"");
        assert_eq!(seed_of(wiped_header(draft)), Some(seed()));
    }

    #[test]
    fn damage_does_not_hide_the_records_after_it() {
        let mut draft = Draft::new();
        for key in ["a", "b", "c", "d", "e"] {
            draft.put(PLAIN, key);
        }
        let mut bytes = wiped_header(draft);
        bytes[64..130].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
        assert_eq!(seed_of(bytes), Some(seed()));
    }

    #[test]
    fn records_inside_a_sound_value_do_not_count() {
        let mut inner = Draft::new();
        for number in 0..100 {
            inner.put(PLAIN, &format!("key {number}"));
        }
        // At this offset, the address flips a single bit, so all inner records agree on one false seed.
        let mut outer = Draft::new();
        let key = b"\0seven-7";
        let padding = (1 << 16) - outer.end() as usize - 2 * RECORD_HEADER_LEN - 2 * key.len();
        outer.push(PLAIN, Kind::Put, key, &vec![b'x'; padding]);
        let holder = outer.push(PLAIN, Kind::Put, key, &inner.bytes);
        assert_eq!(holder + 32, 1 << 16);
        outer.put(PLAIN, "last");
        let bytes = wiped_header(outer);
        assert_eq!(seed_of(bytes.clone()), Some(seed()));
        let mut damaged = bytes;
        damaged[holder as usize + RECORD_HEADER_LEN] ^= 1;
        assert_ne!(seed_of(damaged), Some(seed()), "the construction is right: a hundred records of another log agree");
    }

    #[test]
    fn only_what_a_writer_writes_passes_for_a_record() {
        let passes = |kind, key: &[u8], value: &[u8], room: u64| {
            let header = RecordHeader::new(seed(), 64, PLAIN, kind, 1, key, value);
            candidate(&header.encode(), 64, 64 + header.record_len() + room - 1) == Some(header)
        };
        assert!(passes(Kind::Put, b"\0k", b"value", 1) && passes(Kind::Put, b"\0k", b"", 1));
        assert!(passes(Kind::Delete, b"\0k", b"", 1) && passes(MARK, b"", b"", 1) && passes(MARK, b"", b"8 bytes.", 1));
        assert!(!passes(Kind::Put, b"\0k", b"value", 0), "it reaches beyond the file");
        assert!(!passes(Kind::Put, b"\0", b"value", 1) && !passes(Kind::Put, b"", b"value", 1), "no key");
        assert!(!passes(Kind::Delete, b"\0", b"", 1) && !passes(Kind::Delete, b"", b"", 1), "no key");
        assert!(passes(Kind::PutWith, b"\0k", &[7; 24], 1) && !passes(Kind::PutWith, b"\0k", &[7; 23], 1));
        assert!(!passes(Kind::PutWith, b"\0", &[7; 24], 1), "no key");
        assert!(passes(Kind::PutOwned, b"\0k", &[7; 24], 1) && !passes(Kind::PutOwned, b"\0k", &[7; 23], 1));
        assert!(passes(Kind::Session, b"", &[7; 64], 1) && !passes(Kind::Session, b"\0k", &[7; 64], 1));
        assert!(!passes(Kind::Session, b"", &[7; 63], 1) && !passes(Kind::Session, b"", &[7; 65], 1));
        assert!(!passes(Kind::Delete, b"\0k", b"value", 1) && !passes(Kind::Delete, b"", b"value", 1));
        assert!(!passes(MARK, b"\0k", b"", 1) && !passes(MARK, b"", b"9 bytes..", 1));
    }

    #[test]
    fn records_are_found_behind_megabytes_of_something_else() {
        let mut draft = Draft::new();
        draft.bytes.resize((3 << 20) + 8, 1);
        for key in ["a", "b"] {
            draft.put(PLAIN, key);
        }
        assert_eq!(seed_of(wiped_header(draft)), Some(seed()));
    }

    #[test]
    fn seeds_with_one_record_are_dropped_when_there_are_many() {
        let mut draft = Draft::new();
        for key in ["a", "b"] {
            draft.put(PLAIN, key);
        }
        for number in 0..MOST_SEEDS as u64 + 10 {
            let other = FileSeed::new(&u128::from(number).to_le_bytes());
            let header = RecordHeader::new(other, draft.end(), PLAIN, Kind::Delete, 1, b"\0other", b"");
            draft.bytes.extend_from_slice(&header.encode());
            draft.bytes.extend_from_slice(b"\0other\0\0");
        }
        assert_eq!(seed_of(wiped_header(draft)), Some(seed()));
    }

    #[test]
    fn false_bodies_cost_a_bounded_amount_of_reading() {
        const BODY: usize = 256 << 10;
        let mut draft = Draft::new();
        draft.push_hollow(200, BODY);
        draft.bytes.resize(2 * BODY, 1);
        for key in ["a", "b"] {
            draft.put(PLAIN, key);
        }
        let file_len = draft.end();
        let disk = SimDisk::new();
        disk.set_contents(PATH, wiped_header(draft));
        let file = disk.open(Path::new(PATH), Access::Read).unwrap();
        let log = without_header(file, &Path::new(PATH).into()).unwrap();
        assert_eq!(find_seed(&log).unwrap(), Some(seed()));
        let promised = 4 * file_len + LARGEST_CHUNK as u64;
        let bodies = promised - BODY as u64..=promised + 100;
        let read = disk.bytes_read();
        assert!(bodies.contains(&(read - file_len)), "{read} bytes, of {promised} for bodies");
    }

    #[test]
    fn holes_before_the_records_are_skipped() {
        let mut draft = Draft::new();
        draft.bytes.resize(8 << 20, 0);
        let far = draft.end();
        for key in ["a", "b"] {
            draft.put(PLAIN, key);
        }
        let (disk, path) = (SimDisk::new(), Path::new(PATH));
        let file = disk.create_new(path, 0o600).unwrap();
        file.set_len(draft.end()).unwrap();
        file.write_at(far, &draft.bytes[far as usize..]).unwrap();
        assert_eq!(find_seed(&without_header(file, &path.into()).unwrap()).unwrap(), Some(seed()));
        assert!(disk.bytes_read() < 3 << 20, "{} bytes were read", disk.bytes_read());
    }

    #[test]
    fn no_seed_is_found_in_other_files() {
        for bytes in
            [vec![0; 4096], vec![0xff; 4096], b"Dear diary\n".repeat(500), (0..=255).cycle().take(9000).collect()]
        {
            assert_eq!(seed_of(bytes), None);
        }
    }
}
