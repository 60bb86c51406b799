//! Replaying a log: applying its records, in order, gives the keys of the store.
//!
//! [`crate::log`] reads records and does not know the index. [`crate::index`] holds keys and positions and does not know files.
//! This module connects them: [`KeySpace`] applies records to the index, and answers the index's questions about keys by
//! reading the log.

use std::cmp::Ordering;
use std::ops::Range;

use crate::format::order::StoredBytes;
use crate::format::snapshot::{KeyHasher, Snapshot, StoredPart};
use crate::format::{
    Damage, Expiry, FileHeader, Kind, MAX_FILE_LEN, RECORD_HEADER_LEN, RecordHeader, SessionRecord, split_full_key,
};
use crate::index::buckets::Buckets;
use crate::index::{Index, Keys, Lifetimes, POSITION_LIMIT, Times, is_beside};
use crate::log::read::{Reader, Record};
use crate::log::run::{Entry, RUN_LEN, Run};
use crate::{Error, Result};

/// The index must be able to hold every offset at which a record may start.
const _: () = assert!(MAX_FILE_LEN <= POSITION_LIMIT);

/// The keys of a log, and what they take up.
pub(crate) struct KeySpace {
    pub(crate) index: Index,
    /// Bytes of the records that the index points to, and of those whose replacement is not counted yet.
    counted_bytes: u64,
    /// `None` for keys from a snapshot, which does not say how many keys each bucket has.
    buckets: Option<Buckets>,
    /// Those that have a deadline or belong to a session, and the sessions.
    pub(crate) lifetimes: Lifetimes,
}

/// How many keys there are, by a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that are hidden left out.
    pub(crate) keys: u64,
    /// Those of which all keys are hidden left out. `None` for keys from a snapshot.
    pub(crate) buckets: Option<u64>,
    /// The keys that are over, and whose delete is not in the log yet.
    pub(crate) hidden: u64,
    /// The keys that have a deadline or belong to a session, and are not over.
    pub(crate) expiring: u64,
}

/// What is known of a record before it is written: the hash of its key, and the record that it replaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proven {
    hash: u64,
    /// Position and length of the key's record from before this run.
    replaced: Option<(u64, u64)>,
}

impl KeySpace {
    /// The keys of a log without records.
    pub(crate) fn new(header: &FileHeader) -> KeySpace {
        let index = Index::new(KeyHasher::new(header));
        KeySpace { index, counted_bytes: 0, buckets: Some(Buckets::default()), lifetimes: Lifetimes::default() }
    }

    /// The keys that a log had when the snapshot was made. The records with a lifetime are to be replayed by
    /// [`KeySpace::replay_lifetime`].
    pub(crate) fn stored(header: &FileHeader, snapshot: &Snapshot) -> KeySpace {
        let index = Index::stored(KeyHasher::new(header), snapshot, header.log_start());
        KeySpace { index, counted_bytes: snapshot.covered.live_bytes, buckets: None, lifetimes: Lifetimes::default() }
    }

    /// The number of buckets in the log, by no clock. `None` for keys from a snapshot.
    pub(crate) fn buckets(&self) -> Option<u64> {
        Some(self.buckets.as_ref()?.count(self.index.len() as u64))
    }

    /// The number of keys in the bucket of this name that are not over. `None` for keys from a snapshot.
    pub(crate) fn keys_in(&self, bucket: &[u8], times: impl FnOnce() -> Times) -> Option<u64> {
        let keys = self.buckets.as_ref()?.keys_in(bucket, self.index.len() as u64);
        Some(if self.lifetimes.is_empty() { keys } else { keys - self.lifetimes.hidden_in(bucket, times()) })
    }

    /// How many keys and buckets there are. The clocks are looked at only if keys can be over.
    pub(crate) fn counts(&self, times: impl FnOnce() -> Times) -> Counts {
        let (keys, buckets) = (self.index.len() as u64, self.buckets());
        if self.lifetimes.is_empty() {
            return Counts { keys, buckets, hidden: 0, expiring: 0 };
        }
        let times = times();
        let (hidden, by_bucket) = (self.lifetimes.hidden(times), self.lifetimes.hidden_by_bucket(times));
        let is_gone = |(bucket, hidden): (&std::sync::Arc<[u8]>, &u64)| {
            self.buckets.as_ref().is_some_and(|buckets| buckets.keys_in(bucket, keys) == *hidden)
        };
        let gone = by_bucket.iter().filter(|&entry| is_gone(entry)).count() as u64;
        let buckets = buckets.map(|buckets| buckets - gone);
        Counts { keys: keys - hidden, buckets, hidden, expiring: self.lifetimes.len() - hidden }
    }

    /// Bytes allocated.
    pub(crate) fn memory(&self) -> usize {
        self.index.memory() + self.lifetimes.memory()
    }

    /// Bytes of the records that the index points to. An upper bound before [`Index::load_noted`], for keys from a snapshot.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.counted_bytes.saturating_sub(self.index.dead_bytes())
    }

    /// Replays a run of records that follow the ones before.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Io`] if a record that is replaced, or one that might be, cannot be read or does not
    /// verify. Records before it are replayed then, and the rest is not.
    pub(crate) fn replay(&mut self, run: &Run, reader: &Reader) -> Result<()> {
        let dead = self.index.settle();
        self.uncount(dead);
        let mut hashes = [0; RUN_LEN];
        for entries in run.entries.chunks(reader.log.limits.run_len()) {
            // The slots of all keys in the index are fetched before the first one changes.
            for (entry, hash) in entries.iter().zip(&mut hashes) {
                *hash = self.index.hash(run.key(entry));
                self.index.prefetch(*hash);
            }
            for (entry, &hash) in entries.iter().zip(&hashes) {
                let key = run.key(entry);
                let replaced = self.apply(run, entry, hash, reader, |at| reader.is_key(at, key))?;
                self.bury(replaced, reader)?;
            }
        }
        Ok(())
    }

    /// Finds the records that a run is to replace, and makes sure that they can be replaced: their keys identify them, and
    /// their headers say how many bytes die. After the write it would be too late: the run could not be replayed, and the
    /// file would have changed although damage is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn prove_replaced(&self, run: &Run, reader: &Reader, proven: &mut Vec<Proven>) -> Result<()> {
        proven.clear();
        for entries in run.entries.chunks(reader.log.limits.run_len()) {
            let first = proven.len();
            for entry in entries {
                let hash = self.index.hash(run.key(entry));
                if entry.header.kind.is_event() {
                    self.index.load(hash, reader)?;
                }
                self.index.prefetch(hash);
                proven.push(Proven { hash, replaced: None });
            }
            // Most keys of a long run are new, and the index has no record with their tags: this look at it is the only one.
            let mut is_new = [false; RUN_LEN];
            if entries.len() > 1 {
                for (of, is_new) in proven[first..].iter().zip(&mut is_new) {
                    match self.index.guess(of.hash) {
                        Some(position) => reader.prefetch(position),
                        None => *is_new = true,
                    }
                }
            }
            for ((entry, of), is_new) in entries.iter().zip(&mut proven[first..]).zip(is_new) {
                if is_new || !entry.header.kind.is_event() {
                    continue;
                }
                if let Some(position) = self.index.find_hashed(of.hash, run.key(entry), reader)? {
                    of.replaced = Some((position, reader.header(position)?.padded_len()));
                }
            }
        }
        Ok(())
    }

    /// As [`KeySpace::replay`], for a run of which [`KeySpace::prove_replaced`] has found out what it replaces.
    ///
    /// # Errors
    ///
    /// As [`KeySpace::replay`], for records of the run itself and for the sorted index.
    pub(crate) fn replay_proven(&mut self, run: &Run, proven: &[Proven], reader: &Reader) -> Result<()> {
        let dead = self.index.settle();
        self.uncount(dead);
        let start = run.entries.first().map_or(0, |entry| entry.offset);
        for (entry, of) in run.entries.iter().zip(proven) {
            let key = run.key(entry);
            let known = of.replaced.map(|(position, _)| position);
            let is_key = |at| if at < start { Ok(known == Some(at)) } else { reader.is_key(at, key) };
            let replaced = self.apply(run, entry, of.hash, reader, is_key)?;
            match of.replaced {
                Some((position, len)) if replaced == Some(position) => self.uncount(len),
                _ => self.bury(replaced, reader)?,
            }
        }
        Ok(())
    }

    /// Applies one record of a run, and returns the position of the record that it replaces.
    #[inline]
    fn apply(
        &mut self,
        run: &Run,
        entry: &Entry,
        hash: u64,
        reader: &Reader,
        is_key: impl FnMut(u64) -> Result<bool>,
    ) -> Result<Option<u64>> {
        let (key, expiry) = (run.key(entry), run.expiry(entry));
        if expiry.is_some() || !self.lifetimes.is_empty() && entry.header.kind.is_event() {
            // Which record is replaced must be known: its deadline and its owner go with it, or the next one's need to be taken
            // away.
            self.index.load(hash, reader)?;
        }
        let replaced = match entry.header.kind {
            Kind::Put | Kind::PutWith | Kind::PutOwned => {
                let replaced = self.index.apply_put(hash, key, entry.offset, reader, is_key)?;
                self.counted_bytes += entry.header.padded_len();
                replaced
            }
            Kind::Delete => self.index.apply_delete(hash, key, entry.offset, reader, is_key)?,
            Kind::Session => {
                if let Some(record) = run.session(entry) {
                    self.lifetimes.sessions.replay(entry.offset, entry.header.seq, record);
                }
                return Ok(None);
            }
            Kind::Ancillary(_) => return Ok(None),
        };
        match (&mut self.buckets, entry.header.kind, replaced) {
            (Some(buckets), kind, None) if kind.is_put() => buckets.add(key),
            (Some(buckets), Kind::Delete, Some(_)) => buckets.remove(key),
            _ => {}
        }
        if let Some(position) = replaced {
            self.lifetimes.remove(position);
        }
        if let Some(expiry) = expiry {
            self.keep_lifetime(entry.offset, key, expiry);
        }
        Ok(replaced)
    }

    fn keep_lifetime(&mut self, position: u64, key: &[u8], expiry: Expiry) {
        let bucket = split_full_key(key).map_or(&b""[..], |(bucket, _)| bucket);
        self.lifetimes.add(position, bucket, expiry.deadline, expiry.owner);
    }

    /// Replays a record with a lifetime to which a snapshot leads: the present value of a key, or the last record of a session. They
    /// come in the order of the log, and before the records after the snapshot. `false` if the record is no such one.
    pub(crate) fn replay_lifetime(&mut self, position: u64, record: &Record<'_>) -> bool {
        if let Some(expiry) = record.expiry() {
            self.keep_lifetime(position, record.key, expiry);
            return true;
        }
        let says =
            record.stored.first_chunk().filter(|_| record.header.kind == Kind::Session).map(SessionRecord::decode);
        let Some(says) = says.filter(|says| !says.is_end()) else { return false };
        self.lifetimes.sessions.replay(position, record.header.seq, says);
        true
    }

    /// These bytes are dead. A snapshot may have stated too few live ones.
    fn uncount(&mut self, bytes: u64) {
        self.counted_bytes = self.counted_bytes.saturating_sub(bytes);
    }

    /// The record at this position is dead.
    fn bury(&mut self, replaced: Option<u64>, reader: &Reader) -> Result<()> {
        if let Some(position) = replaced {
            self.uncount(reader.header(position)?.padded_len());
        }
        Ok(())
    }

    /// Begins to fetch the slots in the index of these keys, or of the first of them.
    pub(crate) fn prefetch_slots<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        keys.take(RUN_LEN).for_each(|key| self.index.prefetch(self.index.hash(key)));
    }

    /// Begins to fetch the records that writes of these keys, or of the first of them, are to replace.
    pub(crate) fn prefetch_replaced<'k>(&self, keys: impl Iterator<Item = &'k [u8]>, reader: &Reader) {
        let guessed = keys.take(RUN_LEN).filter_map(|key| self.index.guess(self.index.hash(key)));
        guessed.for_each(|position| reader.prefetch(position));
    }
}

/// What tests plant, so that verification of a handle has something to find.
#[cfg(test)]
impl KeySpace {
    pub(crate) fn plant_live_bytes(&mut self, more: i64) {
        self.counted_bytes = self.counted_bytes.checked_add_signed(more).expect("a test plants a number");
    }

    pub(crate) fn plant_buckets(&mut self) -> &mut Buckets {
        self.buckets.as_mut().expect("of a log that was read")
    }
}

impl Reader {
    /// Makes sure that the record at a position, which the index has beside that of `key`, is the one of another key.
    #[cold]
    fn expect_other_key(&self, position: u64, key: &[u8]) -> Result<()> {
        let mut stored = Vec::new();
        self.read_verified(position, &mut stored)?;
        let hasher = KeyHasher::new(&self.log.header);
        // A snapshot may lead to a record whose key the index would not look for there.
        if position < self.unread && !is_beside(hasher.hash(&stored), hasher.hash(key)) {
            return Err(self.not_its_position(position));
        }
        Ok(())
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
        let header = self.known(position)?;
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
        // Tags agree by chance once in 2^24 times, so this costs nothing.
        if same { Ok(true) } else { self.expect_other_key(position, key).map(|()| false) }
    }

    fn not_its_position(&self, position: u64) -> Error {
        self.log.corrupt(position, Damage::Form)
    }

    fn read(&self, position: u64, out: &mut Vec<u8>) -> Result<()> {
        let header = self.known(position)?;
        self.key_into(position, &header, out)
    }

    fn record_len(&self, position: u64) -> Result<u64> {
        Ok(self.header(position)?.padded_len())
    }

    fn stored_part(&self, part: &StoredPart, part_bits: u32, covered: &Range<u64>) -> Result<Vec<Vec<u64>>> {
        self.log.stored_part(part, part_bits, covered)
    }

    fn stored_bytes(&self, stored: &StoredBytes) -> Result<Vec<u8>> {
        self.log.stored_bytes(stored)
    }

    fn not_stored(&self, stored: &StoredBytes) -> Error {
        self.log.not_stored(stored)
    }

    #[cold]
    fn read_verified(&self, position: u64, out: &mut Vec<u8>) -> Result<()> {
        let start = self.start(position)?;
        // A position from a snapshot may lead to anything.
        self.known(position)?;
        let (from, header) = (out.len(), &start.header);
        self.key_into(position, header, out)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&start.bytes[RecordHeader::AT_MEANING..]);
        hasher.update(&out[from..]);
        // In pieces: the value is not kept, and may be larger than the memory.
        let (mut at, end) = (position + (RECORD_HEADER_LEN + out.len() - from) as u64, position + header.record_len());
        let most = self.log.limits.verified_at_once();
        let mut piece = vec![0; most.min((end - at) as usize)];
        while at < end {
            let piece = &mut piece[..most.min((end - at) as usize)];
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
    use crate::format::{Expiry, Owner, SessionRecord};
    use crate::limits::Limits;
    use crate::log::scan::Scanner;
    use crate::log::testing::{Draft, PLAIN, open_on};

    #[test]
    fn a_record_is_verified_in_pieces_of_any_length() {
        for len in 0..100 {
            let (disk, mut draft) = (SimDisk::new(), Draft::new());
            disk.set_limits(Limits::SMALL);
            let value: Vec<u8> = (0..len).map(|n| n + 1).collect();
            let position = draft.push(PLAIN, Kind::Put, b"\0key", &value);
            draft.put(PLAIN, "next");
            let end = draft.end();
            let reader = Reader { log: Arc::new(open_on(&disk, draft.bytes)), map: None, end, unread: 0 };
            let mut key = Vec::new();
            reader.read_verified(position, &mut key).unwrap();
            assert_eq!(key, b"\0key");
            for damaged in 0..u64::from(len) {
                let at = position + RECORD_HEADER_LEN as u64 + 4 + damaged;
                let byte = value[damaged as usize];
                reader.log.file.write_at(at, &[byte ^ 1]).unwrap();
                assert!(reader.read_verified(position, &mut Vec::new()).is_err(), "{len} bytes, at {damaged}");
                reader.log.file.write_at(at, &[byte]).unwrap();
            }
        }
    }

    #[test]
    fn sessions_and_owners_are_replayed() {
        let (mut draft, header) = (Draft::new(), crate::log::testing::header());
        let record = |session, deadline| SessionRecord {
            session,
            owner: 5,
            nonce: 6,
            ttl: 7,
            deadline,
            boot: [8; 16],
            base_seq: 0,
        };
        let owned = |session, acquired| Expiry { deadline: 0, owner: Some(Owner { session, acquired }) }.encode();
        draft.push(PLAIN, Kind::Session, b"", &record(1, 10).encode());
        let lock = draft.push(PLAIN, Kind::PutOwned, b"\0lock", &owned(1, 2));
        let other = draft.push(PLAIN, Kind::PutOwned, b"\0other", &owned(1, 0));
        draft.push(PLAIN, Kind::PutOwned, b"\0third", &owned(1, 0));
        draft.push(PLAIN, Kind::PutOwned, b"\0fourth", &owned(1, 0));
        let renewal = draft.push(PLAIN, Kind::Session, b"", &record(1, 20).encode());
        draft.push(PLAIN, Kind::Session, b"", &record(7, 10).encode());
        draft.push(PLAIN, Kind::Session, b"", &record(7, 0).encode());
        draft.push(PLAIN, Kind::Put, b"\0third", b"value");
        draft.push(PLAIN, Kind::Delete, b"\0fourth", b"");
        let (end, log) = (draft.end(), Arc::new(draft.copy()));
        let reader = Reader { log: Arc::clone(&log), map: None, end, unread: 0 };
        let mut keys = KeySpace::new(&header);
        Scanner::from_start(&log).unwrap().walk(|run| keys.replay(run, &reader)).unwrap();
        let sessions = &keys.lifetimes.sessions;
        assert_eq!(sessions.live().map(|newest| (newest.position, newest.seq)).collect::<Vec<_>>(), [(renewal, 6)]);
        assert_eq!(sessions.newest(1).map(|newest| newest.record), Some(record(1, 20)));
        assert_eq!(sessions.pairs_of(1).collect::<Vec<_>>(), [lock, other]);
        assert_eq!(sessions.owner(lock), Some(Owner { session: 1, acquired: 2 }));
        assert_eq!((keys.index.len(), sessions.ended().count()), (3, 0));
    }

    #[test]
    fn keys_are_answered_from_the_map_and_from_the_file() {
        let mut draft = Draft::new();
        let position = draft.put(PLAIN, "a");
        let (end, disk) = (draft.end(), SimDisk::new());
        let log = Arc::new(open_on(&disk, draft.bytes));
        for mapped in [None, Some(position), Some(end)] {
            let map = mapped.map(|len| Arc::new(log.file.map(len).unwrap().unwrap()));
            let reader = Reader { log: Arc::clone(&log), map, end, unread: 0 };
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
