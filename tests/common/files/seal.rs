//! Checksums put right, so that the fuzzer reaches the checks after them. Written from docs/FORMAT.md, not with the
//! crate's own code, which it is to test.

pub const FILE_HEADER: usize = 64;
pub const RECORD_HEADER: usize = 24;
pub const SLOTS: [usize; 2] = [88, 152];
pub const ROOTS_END: usize = 216;
const MAGIC: [u8; 8] = [0xca, b'S', b'K', b'F', b'\r', b'\n', 0x1a, b'\n'];

/// A file without records.
pub fn file_header(base_seq: u64) -> Vec<u8> {
    let mut file = vec![0; FILE_HEADER];
    file[8] = 1;
    file[16..32].copy_from_slice(b"an identity here");
    file[32..40].copy_from_slice(&base_seq.to_le_bytes());
    seal_file_header(&mut file);
    file
}

/// Magic and checksum of the file header; what else it says stays. Nothing if there is none.
pub fn seal_file_header(file: &mut [u8]) {
    if file.len() >= FILE_HEADER {
        file[..8].copy_from_slice(&MAGIC);
        let crc = crc32fast::hash(&file[..60]);
        file[60..64].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Where the log starts: after `ROOTS`, if the file header says that it is there and the file is long enough.
pub fn log_start(file: &[u8]) -> usize {
    if file.len() >= ROOTS_END && file[12] & 1 == 1 { ROOTS_END } else { FILE_HEADER }
}

/// The header of `ROOTS`, and the checksums of slots that are not empty. Nothing if the file has no `ROOTS`.
pub fn seal_roots(file: &mut [u8]) {
    if log_start(file) == FILE_HEADER {
        return;
    }
    file[FILE_HEADER..SLOTS[0]].fill(0);
    (file[FILE_HEADER + 9], file[FILE_HEADER + 12], file[FILE_HEADER + 16]) = (0xc0, 128, 1);
    seal_header(file, FILE_HEADER);
    for at in SLOTS {
        let (covered, crc) = (at..at + 60, at + 60..at + 64);
        let is_empty = file[at..at + 8] == [0; 8];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&file[16..32]);
        hasher.update(&(at as u64).to_le_bytes());
        hasher.update(&file[covered]);
        let sealed = if is_empty { 0 } else { hasher.finalize() };
        file[crc].copy_from_slice(&sealed.to_le_bytes());
    }
}

/// Both checksums of the record at `at`. Returns where the next one starts, `None` if this one does not fit into the
/// file.
pub fn seal_record(file: &mut [u8], at: usize) -> Option<usize> {
    let header = file.get(at..at + RECORD_HEADER)?;
    let key_len = usize::from(u16::from_le_bytes([header[10], header[11]]));
    let value_len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
    let end = at + RECORD_HEADER + key_len + value_len;
    if end <= file.len() {
        let body_crc = crc32fast::hash(&file[at + 9..end]);
        file[at + 4..at + 8].copy_from_slice(&body_crc.to_le_bytes());
    }
    seal_header(file, at);
    Some(end.next_multiple_of(8)).filter(|_| end <= file.len())
}

/// The header's checksum of the record at `at`, for whatever its other fields say.
pub fn seal_header(file: &mut [u8], at: usize) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file[16..32]);
    hasher.update(&(at as u64).to_le_bytes());
    hasher.update(&file[at + 4..at + RECORD_HEADER]);
    let header_crc = hasher.finalize().max(1);
    file[at..at + 4].copy_from_slice(&header_crc.to_le_bytes());
}

/// Seals what stands where records start: from the file header on one after the other, and after zeros where the
/// next bytes are. Returns where they start.
pub fn seal_all(file: &mut [u8]) -> Vec<usize> {
    seal_file_header(file);
    seal_roots(file);
    let mut starts = Vec::new();
    let mut at = log_start(file);
    while at + RECORD_HEADER <= file.len() {
        if file[at..at + 8] == [0; 8] {
            at += 8;
            continue;
        }
        starts.push(at);
        match seal_record(file, at) {
            Some(next) => at = next,
            None => break,
        }
    }
    starts
}
