//! Reading snapshots of the index: the record to which the root leads, and the parts of its image.

use std::ops::Range;

use super::LogFile;
use crate::format::order::StoredBytes;
use crate::format::snapshot::{KeyHasher, Snapshot, StoredPart, decode_part, is_snapshot};
use crate::format::{Damage, RECORD_HEADER_LEN, RecordHeader, Root};
use crate::memory::make_room;
use crate::{Error, Result};

impl LogFile {
    /// The snapshot to which a root leads. `None` if it leads to none, or if any rule for snapshots does not hold: then the log
    /// must be read from its start.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(crate) fn snapshot(&self, root: &Root) -> Result<Option<Snapshot>> {
        Ok(self.snapshot_value(root)?.and_then(|value| self.decode_snapshot(&value, root)))
    }

    /// The snapshot in a value to which a root leads. `None` if this version cannot use it, or if it contradicts itself.
    pub(crate) fn decode_snapshot(&self, value: &[u8], root: &Root) -> Option<Snapshot> {
        Snapshot::decode(value, &KeyHasher::new(&self.header), self.start(), root.snapshot)
    }

    /// The value of the `SNAPSHOT` to which a root leads. `None` if no such record stands there, or if its checksums do not hold.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(crate) fn snapshot_value(&self, root: &Root) -> Result<Option<Vec<u8>>> {
        let at = root.snapshot;
        let body = at.saturating_add(RECORD_HEADER_LEN as u64);
        if at < self.start() || body > root.synced_to {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER_LEN];
        if self.read_up_to(at, &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        let header = RecordHeader::decode(&bytes).filter(|header| {
            self.seed.header_crc(at, &bytes) == header.header_crc
                && is_snapshot(header)
                && at + header.padded_len() <= root.synced_to
        });
        let Some(header) = header.filter(|header| header.value_len as usize <= Snapshot::MOST_BYTES) else {
            return Ok(None);
        };
        let mut value = vec![0; header.value_len as usize];
        let is_whole = self.read_up_to(body, &mut value)? == value.len();
        Ok((is_whole && header.computed_body_crc(b"", &value) == header.body_crc).then_some(value))
    }

    /// The words of each sub-table in a part of an image whose records lie in `covered`.
    ///
    /// # Errors
    ///
    /// I/O errors, and [`Error::Corrupt`] if the part is not what the snapshot says.
    pub(crate) fn stored_part(&self, part: &StoredPart, part_bits: u32, covered: &Range<u64>) -> Result<Vec<Vec<u64>>> {
        let stored = part.bytes(part_bits);
        let bytes = self.stored_bytes(&stored)?;
        decode_part(&bytes, part_bits, covered).ok_or_else(|| self.not_stored(&stored))
    }

    /// Bytes of an image. Read into memory and verified there: what a map shows can change after it was verified.
    ///
    /// # Errors
    ///
    /// I/O errors, and [`Error::Corrupt`] if the bytes are not what the snapshot says.
    pub(crate) fn stored_bytes(&self, stored: &StoredBytes) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        make_room(&mut bytes, stored.len).map_err(|e| self.io("get memory for the index", e))?;
        bytes.resize(stored.len, 0);
        self.read_exact(stored.offset, &mut bytes)?;
        if stored.holds(self.seed, &bytes) { Ok(bytes) } else { Err(self.not_stored(stored)) }
    }

    #[cold]
    pub(crate) fn not_stored(&self, stored: &StoredBytes) -> Error {
        self.corrupt(stored.offset, Damage::Form)
    }
}
