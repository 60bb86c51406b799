//! The search beyond damage: looks for proof that the damaged bytes had been on stable storage.

use super::LogFile;
use super::chunks::{Chunks, each_piece};
use super::scan::Stop;
use crate::Result;
use crate::format::{ALIGNMENT, Ancillary, Kind, Place, RECORD_HEADER_LEN, RecordHeader, Verdict, padded};

/// What lies beyond the place where a walk stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// The largest offset that is proven durable by the root, or by a true header beyond the start of the incomplete
    /// unit.
    pub(crate) proof: Option<u64>,
    /// Complete records follow the damaged one.
    pub(crate) whole_records: bool,
    /// The end of the last byte that is not zero, or the start of the incomplete unit.
    pub(crate) data_end: u64,
}

/// For bodies that turn out to be incomplete, the search reads at most this many times the file's length, and one chunk
/// more.
const PATIENCE: u64 = 4;

/// Looks for headers at every eighth byte from the incomplete unit to the end of the file, skipping holes.
pub(crate) fn search(log: &LogFile, stop: &Stop) -> Result<Beyond> {
    let stated = log.root()?.map(|root| root.synced_to);
    let mut beyond = Beyond { proof: stated, whole_records: false, data_end: stop.unit };
    let file_len = log.len()?;
    // One header more than a chunk, for headers that cross its end.
    let chunk = log.limits.largest_chunk();
    let len = file_len.saturating_sub(stop.unit).min((chunk + RECORD_HEADER_LEN) as u64) as usize;
    // A limit for the bodies of incomplete records. A forged file can have many that overlap.
    let mut patience = PATIENCE * file_len + chunk as u64;
    let mut chunks = Chunks::new(log, stop.unit);
    while let Some((at, bytes)) = chunks.read(len)? {
        if let Some(last) = last_data(bytes) {
            beyond.data_end = beyond.data_end.max(at + last as u64 + 1);
        }
        for (place, header) in headers(log, stop, at, bytes, file_len, chunk) {
            weigh(log, stop, place, &header, &mut beyond, &mut patience)?;
        }
        chunks.advance(chunk);
    }
    Ok(beyond)
}

/// The place of the last byte that is not zero. Extended space is all zeros, so zeros are skipped in large pieces.
pub(super) fn last_data(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 1024] = [0; 1024];
    let zeros = bytes.rchunks(ZEROS.len()).position(|piece| *piece != ZEROS[..piece.len()])?;
    let upto = bytes.len() - zeros * ZEROS.len();
    bytes[..upto].iter().rposition(|&byte| byte != 0)
}

/// The true headers that start in this chunk.
fn headers<'b>(
    log: &'b LogFile,
    stop: &'b Stop,
    at: u64,
    bytes: &'b [u8],
    file_len: u64,
    chunk: usize,
) -> impl Iterator<Item = (u64, RecordHeader)> + 'b {
    let after = log.seq_bound(stop.previous_seq);
    // A header has a byte that is never zero, its kind, and this is not its first byte. So no header starts at or after
    // the last byte that is not zero.
    let last = last_data(bytes).unwrap_or(0);
    (0..chunk.min(last)).step_by(ALIGNMENT as usize).filter_map(move |start| {
        let candidate = bytes.get(start..start + RECORD_HEADER_LEN)?.try_into().ok()?;
        if !RecordHeader::plausible(candidate, after) {
            return None;
        }
        let offset = at + start as u64;
        let place = Place { seed: log.seed, offset, file_len, after };
        match RecordHeader::judge(candidate, place) {
            Verdict::True(header) if offset > stop.unit => Some((offset, header)),
            _ => None,
        }
    })
}

fn weigh(
    log: &LogFile,
    stop: &Stop,
    offset: u64,
    header: &RecordHeader,
    beyond: &mut Beyond,
    patience: &mut u64,
) -> Result<()> {
    let mut prove = |offset: u64| beyond.proof = beyond.proof.max(Some(offset));
    if header.flags.synced {
        prove(offset);
    }
    // The header's checksum covers what a header says; only the body's checksum covers what a body says. The form is
    // checked first, since it limits how much is read.
    let states = header.kind == Kind::Ancillary(Ancillary::SyncedTo) && header.key_len == 0 && header.value_len == 8;
    let counts = offset > stop.at && !beyond.whole_records;
    if !states && !counts {
        return Ok(());
    }
    if !states && header.body_len() > *patience {
        // Keeping the tail costs less than looking further.
        beyond.whole_records = true;
        return Ok(());
    }
    if !body_holds(log, offset, header)? {
        *patience = patience.saturating_sub(header.body_len());
        return Ok(());
    }
    if states {
        let mut stated = [0; 8];
        let got = log.read_up_to(offset + RECORD_HEADER_LEN as u64, &mut stated)?;
        let stated = u64::from_le_bytes(stated);
        // Without the lock, the file may have been cut since.
        if got == stated.to_le_bytes().len() && stated <= offset {
            prove(stated);
        }
    }
    beyond.whole_records |= offset > stop.at;
    Ok(())
}

/// Whether the body after a true header has the checksum in the header.
pub(super) fn body_holds(log: &LogFile, offset: u64, header: &RecordHeader) -> Result<bool> {
    Ok(body_crc(log, offset, header)? == Some(header.body_crc))
}

/// The checksum of the body after a header, or `None` if the file ends before the body.
pub(crate) fn body_crc(log: &LogFile, offset: u64, header: &RecordHeader) -> Result<Option<u32>> {
    let mut hasher = header.body_hasher();
    let body = offset + RECORD_HEADER_LEN as u64;
    let is_there = each_piece(log, body, body + header.body_len(), |_, piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(is_there.then(|| hasher.finalize()))
}

/// The first true header at or after `from`. A survey goes on there after damage.
pub(crate) fn next_header(log: &LogFile, from: u64, previous_seq: u64) -> Result<Option<u64>> {
    let file_len = log.len()?;
    // Most damage is small, and a survey searches from many places.
    let mut chunk = log.limits.smallest_chunk();
    let from = padded(from);
    // [`headers`] returns headers after `unit` only.
    let reason = super::scan::Reason::EndMark;
    let stop = Stop { unit: from.saturating_sub(1), at: from, previous_seq, reason };
    let mut chunks = Chunks::new(log, from);
    while let Some((at, bytes)) = chunks.read(chunk + RECORD_HEADER_LEN)? {
        if let Some((offset, _)) = headers(log, &stop, at, bytes, file_len, log.limits.largest_chunk()).next() {
            return Ok(Some(offset));
        }
        chunks.advance(chunk);
        chunk = (chunk * 2).min(log.limits.largest_chunk());
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::chunks::LARGEST_CHUNK;
    use super::super::scan::{Reason, Scanner};
    use super::super::testing::{Draft, MARK, MORE, PLAIN, SYNCED, open, open_on, page_says};
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn the_page_knows_how_long_the_search_goes_on() {
        assert_eq!((PATIENCE, LARGEST_CHUNK), (4, 64 << 10));
        assert!(page_says("this library reads four times the file's length and 64 KiB"));
    }

    /// A log of one record that is damaged in its first byte of value and ends at `next`.
    fn damaged_up_to(next: u64) -> Draft {
        let mut draft = Draft::new();
        let header = draft.end() + RECORD_HEADER_LEN as u64 + 2;
        let value: Vec<u8> = (header..next).map(|n| (n % 251) as u8).collect();
        let torn = draft.push(PLAIN, Kind::Put, b"\0k", &value);
        assert_eq!(draft.end(), padded(next));
        draft.bytes[torn as usize + RECORD_HEADER_LEN + 2] ^= 1;
        draft
    }

    fn searched(log: &LogFile) -> (Stop, Beyond) {
        let stop = Scanner::from_start(log).unwrap().walk(|_| Ok(())).unwrap();
        (stop, search(log, &stop).unwrap())
    }

    /// Offsets on both sides of the end of a chunk.
    fn around_a_chunk() -> impl Iterator<Item = u64> {
        let chunk = 64 + LARGEST_CHUNK as u64;
        (chunk - 5 * ALIGNMENT..=chunk + 2 * ALIGNMENT).step_by(ALIGNMENT as usize)
    }

    #[test]
    fn proof_is_found_on_both_sides_of_a_chunks_end() {
        for next in around_a_chunk() {
            let mut draft = damaged_up_to(next);
            let plain = draft.put(PLAIN, "plain");
            let end = plain + RECORD_HEADER_LEN as u64 + "\0plainvalue".len() as u64;
            let (stop, beyond) = searched(&draft.copy());
            assert_eq!((stop.unit, plain), (64, next));
            assert_eq!(beyond, Beyond { proof: None, whole_records: true, data_end: end }, "at {next}");

            let proof = draft.push(SYNCED, MARK, b"", b"");
            assert_eq!(searched(&draft.copy()).1.proof, Some(proof), "at {next}");
            let synced_to = draft.synced_to(plain);
            draft.bytes[proof as usize] ^= 1;
            assert_eq!(searched(&draft.copy()).1.proof, Some(plain), "at {synced_to}");
        }
    }

    #[test]
    fn a_damaged_record_proves_nothing_itself() {
        let mut draft = Draft::new();
        let torn = draft.put(SYNCED, "torn");
        draft.bytes[torn as usize + RECORD_HEADER_LEN + 6] ^= 1;
        let (stop, beyond) = searched(&draft.copy());
        assert_eq!((stop.unit, stop.at), (torn, torn));
        let data_end = torn + RECORD_HEADER_LEN as u64 + "\0tornvalue".len() as u64;
        assert_eq!(beyond, Beyond { proof: None, whole_records: false, data_end });
    }

    #[test]
    fn the_data_ends_with_the_last_byte_that_is_not_zero() {
        for end in [65, 66, 72, 1000, 1088, 1089, 5000].into_iter().chain(around_a_chunk()).chain([3 << 20]) {
            let mut bytes = Draft::new().bytes;
            bytes.resize(4 << 20, 0);
            bytes[64] = 1;
            bytes[end as usize - 1] = 1;
            let (stop, beyond) = searched(&open(bytes));
            assert_eq!((stop.unit, beyond.data_end), (64, end));
        }
        let mut bytes = Draft::new().bytes;
        bytes.resize(4 << 20, 0);
        let (stop, beyond) = searched(&open(bytes));
        assert_eq!((stop.reason, beyond.data_end), (Reason::EndMark, 64));
    }

    #[test]
    fn a_value_as_long_as_a_statement_states_nothing() {
        let mut draft = damaged_up_to(1000);
        // The body begins with 256.
        draft.push(PLAIN, Kind::Put, b"\0\x01\0\0\0\0\0\0", b"8 bytes.");
        let beyond = searched(&draft.copy()).1;
        assert_eq!((beyond.proof, beyond.whole_records), (None, true));
    }

    #[test]
    fn a_body_that_the_file_does_not_hold_has_no_checksum() {
        let mut draft = Draft::new();
        let start = draft.push(PLAIN, Kind::Put, b"\0long", &[7; 100]) as usize;
        let header = RecordHeader::decode(draft.bytes[start..][..RECORD_HEADER_LEN].try_into().unwrap()).unwrap();
        assert_eq!(body_crc(&draft.copy(), start as u64, &header).unwrap(), Some(header.body_crc));
        draft.bytes.truncate(start + RECORD_HEADER_LEN + 50);
        assert_eq!(body_crc(&draft.copy(), start as u64, &header).unwrap(), None);
    }

    #[test]
    fn a_statement_at_which_the_walk_stops_is_not_whole() {
        let mut draft = Draft::new();
        let batch = draft.put(MORE, "a");
        let odd = draft.synced_to(1 << 20);
        let (stop, beyond) = searched(&draft.copy());
        assert_eq!((stop.unit, stop.at), (batch, odd), "no writer can have synced the bytes after it");
        assert_eq!((beyond.proof, beyond.whole_records), (None, false));
    }

    /// Reading all overlapping bodies would take the square of the file's length.
    #[test]
    fn the_search_for_bodies_is_bounded_as_the_page_says() {
        const BODY: usize = 256 << 10;
        let (count, mut draft) = (200, damaged_up_to(200));
        draft.push_hollow(count, BODY);
        draft.bytes.resize(2 * BODY, 1);
        let file_len = draft.end();
        let disk = SimDisk::new();
        let log = open_on(&disk, draft.bytes);
        let stop = Scanner::from_start(&log).unwrap().walk(|_| Ok(())).unwrap();
        let read = disk.bytes_read();
        assert!(search(&log, &stop).unwrap().whole_records);
        let (read, promised) = (disk.bytes_read() - read, PATIENCE * file_len + LARGEST_CHUNK as u64);
        let bodies = promised - BODY as u64..=promised;
        // Chunks overlap by a header.
        let others = file_len + RECORD_HEADER_LEN as u64;
        assert!(bodies.contains(&read.saturating_sub(others)), "{read} bytes, of {} for bodies", promised);
        assert!(read < (count * BODY) as u64);
    }

    /// A file that was extended, with a record far beyond.
    #[test]
    fn holes_are_skipped_and_later_records_found() {
        let disk = SimDisk::new();
        let mut draft = damaged_up_to(200);
        draft.bytes.resize(8 << 20, 0);
        let far = draft.end();
        draft.push(SYNCED, MARK, b"", b"");
        let log = open_on(&disk, Draft::new().bytes);
        log.file.set_len(draft.end()).unwrap();
        log.file.write_at(0, &draft.bytes[..200]).unwrap();
        log.file.write_at(far, &draft.bytes[far as usize..]).unwrap();
        let stop = Scanner::from_start(&log).unwrap().walk(|_| Ok(())).unwrap();
        let read = disk.bytes_read();
        assert_eq!(search(&log, &stop).unwrap().proof, Some(far));
        assert!(disk.bytes_read() - read < 3 << 20, "{} bytes were read", disk.bytes_read() - read);
        let read = disk.bytes_read();
        assert_eq!(next_header(&log, 100, 0).unwrap(), Some(far));
        assert!(disk.bytes_read() - read < 3 << 20, "{} bytes were read", disk.bytes_read() - read);
    }

    #[test]
    fn the_last_byte_of_data_is_found() {
        for len in [0, 1, 7, 1023, 1024, 1025, 2048, 2500] {
            let mut bytes = vec![0; len];
            assert_eq!(last_data(&bytes), None);
            for at in 0..len {
                bytes[at] = 1;
                assert_eq!(last_data(&bytes), Some(at));
                bytes[at] = 0;
                bytes[at / 2] = 2;
                assert_eq!(last_data(&bytes), Some(at / 2));
                bytes[at / 2] = 0;
            }
        }
    }

    #[test]
    fn a_long_record_is_whole_if_its_body_is() {
        let mut draft = damaged_up_to(200);
        let value = vec![7; 2 * LARGEST_CHUNK + 77];
        let long = draft.push(PLAIN, Kind::Put, b"\0long", &value) as usize;
        assert!(searched(&draft.copy()).1.whole_records);
        for at in [long + RECORD_HEADER_LEN, long + LARGEST_CHUNK + 99, long + RECORD_HEADER_LEN + 4 + value.len()] {
            draft.bytes[at] ^= 1;
            assert!(!searched(&draft.copy()).1.whole_records, "a flipped bit at {at}");
            draft.bytes[at] ^= 1;
        }
        draft.bytes.truncate(long + 2 * LARGEST_CHUNK);
        assert!(!searched(&draft.copy()).1.whole_records);
    }

    #[test]
    fn the_next_header_is_found_from_wherever_one_looks() {
        // Directly, and at the ends of the first chunks: 4 KiB, 8, 16.
        for place in [128, 64 + (4 << 10), 64 + (12 << 10), 64 + (28 << 10)] {
            for next in (place - 4 * ALIGNMENT..=place + ALIGNMENT).step_by(ALIGNMENT as usize) {
                let mut draft = damaged_up_to(next);
                let found = draft.put(PLAIN, "found");
                let log = draft.copy();
                for from in [64 + 1, 64 + ALIGNMENT, found - ALIGNMENT - 1, found - 1, found] {
                    assert_eq!(next_header(&log, from, 0).unwrap(), Some(found), "from {from}");
                }
                assert_eq!(next_header(&log, 64, 0).unwrap(), Some(64));
                assert_eq!(next_header(&log, found + 1, 0).unwrap(), None);
                // The header has the sequence number 2.
                assert_eq!(next_header(&log, found, 2).unwrap(), None);
            }
        }
    }
}
