//! The root of a file: how much of its log has been on stable storage, as the file itself says.

use super::LogFile;
use crate::Result;
use crate::format::{Damage, END_MARK_LEN, RECORD_HEADER_LEN, ROOTS_START, Root, SLOT_LEN, SLOTS, roots_header};

impl LogFile {
    /// Where the log starts.
    pub(crate) fn start(&self) -> u64 {
        self.header.log_start()
    }

    /// Checks the bytes after the file header, of a file that has at least `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) if the file ends before them, and
    /// [`Error::Corrupt`](crate::Error::Corrupt) if they are not the header of `ROOTS`.
    pub(super) fn check_roots(&self, bytes: &[u8], len: u64) -> Result<()> {
        if !self.header.has_roots {
            return Ok(());
        }
        if len < ROOTS_START + RECORD_HEADER_LEN as u64 {
            return Err(self.truncated(0, self.start() + END_MARK_LEN));
        }
        let expected = roots_header(self.seed).encode();
        if bytes == expected {
            return Ok(());
        }
        // All of its bytes are known, so the checksum says nothing that the comparison has not said.
        let crc = |bytes: &[u8]| bytes.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
        let (found, computed) = (crc(bytes), crc(&expected));
        Err(self.corrupt(ROOTS_START, Damage::Header { found, computed }))
    }

    /// Whether the header of `ROOTS` stands after the file header. For a file whose header is lost.
    pub(super) fn shows_roots(&self) -> Result<bool> {
        let mut bytes = [0; RECORD_HEADER_LEN];
        self.read_up_to(ROOTS_START, &mut bytes)?;
        Ok(bytes == roots_header(self.seed).encode())
    }

    /// The root as the file has it now. `None` if no slot holds, or the file has none.
    pub(crate) fn root(&self) -> Result<Option<Root>> {
        if !self.header.has_roots {
            return Ok(None);
        }
        let mut slots = [0; 2 * SLOT_LEN];
        self.read_up_to(SLOTS[0], &mut slots)?;
        Ok(Root::of(self.seed, &slots))
    }

    /// Everything before this offset was on stable storage, as the root says. The start of the log if there is no root.
    pub(crate) fn stated_by(&self, root: Option<Root>) -> u64 {
        root.map_or(self.start(), |root| root.synced_to)
    }

    /// The root and the file's length. Called before the log is read from its start.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) if the file is shorter than what it states.
    pub(crate) fn root_of_whole_file(&self) -> Result<(Option<Root>, u64)> {
        let root = self.root()?;
        let stated = self.stated_by(root);
        // The length is asked after the slots were read: it is never less than any statement before.
        let len = self.len()?;
        if self.header.has_roots && len < stated + END_MARK_LEN {
            return Err(self.truncated(0, stated + END_MARK_LEN));
        }
        Ok((root, len))
    }

    /// Writes a root into its slot: the next root, or once more the one that is there. For a writer that has the lock, and
    /// has read the slots just now, since another handle may have written one of them. Does not sync: a power cut that
    /// takes the root leaves the other slot, which states less.
    pub(crate) fn write_root(&self, root: &Root) -> Result<()> {
        self.file.write_all(root.offset(), &root.encode(self.seed)).map_err(|e| self.io("write the root", e))
    }
}
