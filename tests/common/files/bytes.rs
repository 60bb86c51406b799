//! Makes files byte by byte, right ones and wrong ones, from the numbers of docs/FORMAT.md.

use super::layout::{END_MARK_LEN, FILE_HEADER_LEN, HAS_ROOTS, MAGIC, ROOTS, SLOTS, crc_at, crc32};

pub const FILE_ID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
pub const CREATED: u64 = 1_800_000_000;

/// The fields of a record header, and its body. The lengths are those of key and value unless `value_len` is set.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub flags: u64,
    pub kind: u64,
    pub seq: u64,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub value_len: Option<u32>,
    /// Flips bits of the right `body_crc`.
    pub body_crc_xor: u32,
}

pub const fn record<'a>(flags: u64, kind: u64, seq: u64, key: &'a [u8], value: &'a [u8]) -> Fields<'a> {
    Fields { flags, kind, seq, key, value, value_len: None, body_crc_xor: 0 }
}

impl Fields<'_> {
    fn at(&self, offset: usize) -> Vec<u8> {
        let mut meaning = vec![self.kind as u8];
        meaning.extend((self.key.len() as u16).to_le_bytes());
        meaning.extend(self.value_len.unwrap_or(self.value.len() as u32).to_le_bytes());
        meaning.extend(self.seq.to_le_bytes());
        let body = [self.key, self.value].concat();
        let body_crc = crc32(&[&meaning[..], &body].concat()) ^ self.body_crc_xor;
        let covered = [&body_crc.to_le_bytes()[..], &[self.flags as u8], &meaning].concat();
        let place = (offset as u64).to_le_bytes();
        let header_crc = crc32(&[&FILE_ID[..], &place, &covered].concat()).max(1);
        [&header_crc.to_le_bytes()[..], &covered, &body].concat()
    }
}

/// A file in the making.
#[derive(Clone)]
pub struct FileBytes(pub Vec<u8>);

impl FileBytes {
    pub fn new(base_seq: u64) -> FileBytes {
        FileBytes::with_header(|header| header[32..40].copy_from_slice(&base_seq.to_le_bytes()))
    }

    /// A header that `change` has changed before its checksum was made.
    pub fn with_header(change: impl FnOnce(&mut [u8])) -> FileBytes {
        let mut header = MAGIC.to_vec();
        header.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(FILE_ID);
        header.extend([0; 8]);
        header.extend(CREATED.to_le_bytes());
        header.extend([0; 12]);
        change(&mut header);
        header.extend(crc32(&header).to_le_bytes());
        FileBytes(header)
    }

    /// A file with `ROOTS`. Each slot has a generation and a `synced_to`; (0, 0) is an empty one.
    pub fn with_roots(base_seq: u64, slots: [(u64, u64); 2]) -> FileBytes {
        let mut file = FileBytes::with_header(|header| {
            header[12] = HAS_ROOTS as u8;
            header[32..40].copy_from_slice(&base_seq.to_le_bytes());
        });
        // `body_crc` and the flags are 0.
        let covered = [&[0; 5][..], &[ROOTS as u8, 0, 0, 128, 0, 0, 0], &1u64.to_le_bytes()].concat();
        let header_crc = crc_at(&file.0, FILE_HEADER_LEN, &covered).max(1);
        file.0.extend(header_crc.to_le_bytes());
        file.0.extend(covered);
        for (at, (generation, synced_to)) in SLOTS.into_iter().zip(slots) {
            let slot = [&generation.to_le_bytes()[..], &synced_to.to_le_bytes(), &[0; 44]].concat();
            let crc = if generation == 0 { 0 } else { crc_at(&file.0, at, &slot) };
            file.0.extend(slot);
            file.0.extend(crc.to_le_bytes());
        }
        file
    }

    /// Where the next record goes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a record and its padding.
    pub fn push(mut self, fields: Fields<'_>) -> FileBytes {
        let bytes = fields.at(self.len());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> FileBytes {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds the end mark.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; END_MARK_LEN]).0
    }
}
