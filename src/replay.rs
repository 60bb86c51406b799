//! Replaying a log: applying its records, in order, gives the keys of the store.
//!
//! [`crate::log`] reads records and does not know the index. [`crate::index`] holds keys and positions and does not know files.
//! This module connects them: [`KeySpace`] applies records to the index, and answers the index's questions about keys by
//! reading the log.

use std::cmp::Ordering;

use crate::format::{Kind, MAX_FILE_LEN, RECORD_HEADER_LEN, RecordHeader};
use crate::index::buckets::Buckets;
use crate::index::{Index, Keys, POSITION_LIMIT};
use crate::log::read::Reader;
use crate::log::run::{RUN_LEN, Run};
use crate::{Error, Result};

/// The index must be able to hold every offset at which a record may start.
const _: () = assert!(MAX_FILE_LEN <= POSITION_LIMIT);

/// A record that is only verified is read in pieces of this many bytes.
const PIECE: usize = 64 << 10;

/// The keys of a log, and what they take up.
#[derive(Default)]
pub(crate) struct KeySpace {
    pub(crate) index: Index,
    /// Bytes of the records that the index points to.
    pub(crate) live_bytes: u64,
    pub(crate) buckets: Buckets,
}

impl KeySpace {
    /// Replays a run of records that follow the ones before.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Io`] if a record that is replaced, or one that might be, cannot be read or does not
    /// verify. Records before it are replayed then, and the rest is not.
    pub(crate) fn replay(&mut self, run: &Run, reader: &Reader) -> Result<()> {
        for entries in run.entries.chunks(RUN_LEN) {
            // The slots of all keys in the index are fetched before the first one changes.
            if entries.len() > 1 {
                entries.iter().for_each(|entry| self.index.prefetch(run.key(entry)));
            }
            for entry in entries {
                self.replay_one(&entry.header, entry.offset, run.key(entry), reader)?;
            }
        }
        Ok(())
    }

    fn replay_one(&mut self, header: &RecordHeader, offset: u64, key: &[u8], reader: &Reader) -> Result<()> {
        let replaced = match header.kind {
            Kind::Put => {
                self.live_bytes += header.padded_len();
                self.index.apply_put(key, offset, reader)?
            }
            Kind::Delete => self.index.apply_delete(key, reader)?,
            Kind::Ancillary(_) => return Ok(()),
        };
        match (header.kind, replaced) {
            (Kind::Put, None) => self.buckets.add(key),
            (Kind::Delete, Some(_)) => self.buckets.remove(key),
            _ => {}
        }
        if let Some(position) = replaced {
            self.live_bytes -= reader.header(position)?.padded_len();
        }
        Ok(())
    }

    /// Makes sure that the records which a run is to replace can be replaced: their keys identify them, and their headers say
    /// how many bytes die. After the write it would be too late: the run could not be replayed, and the file would have
    /// changed although damage is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn prove_replaced(&self, run: &Run, reader: &Reader) -> Result<()> {
        for entries in run.entries.chunks(RUN_LEN) {
            if entries.len() > 1 {
                self.prefetch(entries.iter().map(|entry| run.key(entry)), reader);
            }
            for entry in entries.iter().filter(|entry| !matches!(entry.header.kind, Kind::Ancillary(_))) {
                if let Some(position) = self.index.find(run.key(entry), reader)? {
                    reader.header(position)?;
                }
            }
        }
        Ok(())
    }

    /// Begins to fetch what writes of these keys, or of the first of them, need: their slots in the index and the records
    /// that they replace.
    pub(crate) fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]> + Clone, reader: &Reader) {
        let keys = keys.take(RUN_LEN);
        keys.clone().for_each(|key| self.index.prefetch(key));
        keys.filter_map(|key| self.index.guess(key)).for_each(|position| reader.prefetch(position));
    }
}

impl Keys for Reader {
    type Error = Error;

    fn compare(&self, position: u64, key: &[u8]) -> Result<Ordering> {
        let header = self.start(position)?.header;
        let (at, len) = (position + RECORD_HEADER_LEN as u64, usize::from(header.key_len));
        if let Some(map) = &self.map {
            if at + len as u64 <= map.len() {
                return Ok(map.compare(at, len, key));
            }
        }
        let mut stored = Vec::new();
        self.key_into(position, &header, &mut stored)?;
        Ok(stored.as_slice().cmp(key))
    }

    #[inline]
    fn is_key(&self, position: u64, key: &[u8]) -> Result<bool> {
        let header = self.start(position)?.header;
        let at = position + RECORD_HEADER_LEN as u64;
        let same = usize::from(header.key_len) == key.len()
            && match &self.map {
                Some(map) if at + key.len() as u64 <= map.len() => map.equals(at, key),
                _ => {
                    let mut stored = Vec::new();
                    self.key_into(position, &header, &mut stored)?;
                    stored == key
                }
            };
        if !same {
            // Tags agree by chance once in 2^24 times, so this costs nothing.
            self.read_verified(position, &mut Vec::new())?;
        }
        Ok(same)
    }

    fn read(&self, position: u64, out: &mut Vec<u8>) -> Result<()> {
        let header = self.start(position)?.header;
        self.key_into(position, &header, out)
    }

    #[cold]
    fn read_verified(&self, position: u64, out: &mut Vec<u8>) -> Result<()> {
        let start = self.start(position)?;
        let (from, header) = (out.len(), &start.header);
        self.key_into(position, header, out)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&start.bytes[RecordHeader::AT_MEANING..]);
        hasher.update(&out[from..]);
        // In pieces: the value is not kept, and may be larger than the memory.
        let (mut at, end) = (position + (RECORD_HEADER_LEN + out.len() - from) as u64, position + header.record_len());
        let mut piece = vec![0; PIECE.min((end - at) as usize)];
        while at < end {
            let piece = &mut piece[..PIECE.min((end - at) as usize)];
            self.read(at, piece)?;
            hasher.update(piece);
            at += piece.len() as u64;
        }
        self.expect_body(position, header, hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::sim::{SimDisk, Verb};
    use crate::log::testing::{Draft, PLAIN, open_on};

    #[test]
    fn keys_are_answered_from_the_map_and_from_the_file() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, disk) = (draft.end(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        for mapped in [None, Some(position), Some(end)] {
            let map = mapped.map(|len| Arc::new(log.file.map(len).unwrap().unwrap()));
            let reader = Reader { log: Arc::clone(&log), map, end };
            let calls = disk.calls_of(Verb::ReadAt);
            assert_eq!(reader.compare(position, b"\0a").unwrap(), Ordering::Equal);
            assert_eq!(reader.compare(position, b"\0z").unwrap(), Ordering::Less);
            assert!(reader.is_key(position, b"\0a").unwrap() && !reader.is_key(position, b"\0z").unwrap());
            for read in [Keys::read, Keys::read_verified] {
                let mut key = b"before".to_vec();
                read(&reader, position, &mut key).unwrap();
                assert_eq!(key, b"before\0a");
            }
            assert_eq!(disk.calls_of(Verb::ReadAt) > calls, mapped != Some(end), "{mapped:?}");
        }
    }
}
