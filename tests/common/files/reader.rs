//! A reader made from docs/FORMAT.md alone: it uses nothing of the crate, so that the two can be compared.
//!
//! The names of rules (W1, S2 and so on) are the page's.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{
    ALIGNMENT, ANCILLARY, DELETE, END_MARK_LEN, EXPIRY, EXPIRY_LEN, FILE_HEADER, FILE_HEADER_LEN, LOOSE, MAGIC, MAJOR,
    MAX_FILE_LEN, MAX_SEQ, MAX_SEQ_STEP, MAX_VALUE_LEN, MORE, MOVED, NOW, PUT, PUT_OWNED, PUT_WITH, RECORD_HEADER,
    RECORD_HEADER_LEN, ROOTS, ROOTS_END, SESSION, SESSION_LEN, SESSION_VALUE, SLOT, SLOT_LEN, SLOTS, SYNCED, SYNCED_TO,
    crc_at, crc32, log_start, number,
};

/// A bucket and a key in it.
pub type Name = (Vec<u8>, Vec<u8>);

/// A value and its `last_index`.
pub type Setting = (Vec<u8>, u64);

/// What the page says a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Store(Box<Contents>),
    NotCaskfile,
    UnsupportedVersion,
    UnsupportedRecord { offset: u64 },
    Corrupt { offset: u64 },
    Truncated { log_end: u64, stated: u64 },
}

/// What a store holds at the moment [`NOW`], and what a writer would do about its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub pairs: BTreeMap<Name, Setting>,
    pub records: u64,
    pub last_index: u64,
    pub proven: u64,
    /// Where the log ends: where a writer cuts, if there is anything to cut.
    pub end: u64,
    /// How many bytes of a torn tail are cut off, and whether they are kept beside the store first.
    pub torn: u64,
    pub kept: bool,
}

/// A record with a true header.
pub struct Record<'f> {
    pub offset: usize,
    pub flags: u64,
    pub kind: u64,
    pub key: &'f [u8],
    pub value: &'f [u8],
    pub seq: u64,
    pub body_holds: bool,
    pub next: usize,
}

/// Why there is no true header at a place.
pub enum Untrue {
    Damaged,
    /// W2 or W5: the file ends before it does.
    BeyondFile,
    Unsupported,
}

pub struct Reader<'f> {
    file: &'f [u8],
    base_seq: u64,
}

impl<'f> Reader<'f> {
    /// A reader of a file with a right header.
    pub fn new(file: &'f [u8]) -> Reader<'f> {
        Reader { file, base_seq: number(FILE_HEADER, "base_seq", file) }
    }

    /// W2 to W7: the record at `o`, after one with the sequence number `previous`.
    pub fn record(&self, o: usize, previous: u64) -> Result<Record<'f>, Untrue> {
        let header = self.file.get(o..o + RECORD_HEADER_LEN).ok_or(Untrue::BeyondFile)?;
        let field = |name| number(RECORD_HEADER, name, header);
        let crc = crc_at(self.file, o, &header[4..]).max(1);
        if field("header_crc") != u64::from(crc) || field("value_len") > MAX_VALUE_LEN {
            return Err(Untrue::Damaged);
        }
        let end = (o + RECORD_HEADER_LEN) as u64 + field("key_len") + field("value_len");
        let seq = field("seq");
        let highest = previous.max(self.base_seq) + MAX_SEQ_STEP;
        if end > MAX_FILE_LEN.min(self.file.len() as u64) {
            return Err(Untrue::BeyondFile);
        }
        if seq <= previous || seq > highest.min(MAX_SEQ) {
            return Err(Untrue::Damaged);
        }
        let (flags, kind) = (field("flags"), field("kind"));
        if flags > SYNCED | MORE
            || !(matches!(kind, PUT | DELETE | PUT_WITH | SESSION | PUT_OWNED) || kind >= ANCILLARY)
        {
            return Err(Untrue::Unsupported);
        }
        let body = &self.file[o + RECORD_HEADER_LEN..end as usize];
        let body_holds = field("body_crc") == u64::from(crc32(&[&header[9..], body].concat()));
        let (key, value) = body.split_at(field("key_len") as usize);
        let next = (end as usize).next_multiple_of(ALIGNMENT);
        Ok(Record { offset: o, flags, kind, key, value, seq, body_holds, next })
    }

    /// The root's statement; the start of the log if no slot holds.
    pub fn stated(&self) -> u64 {
        self.root().map_or(log_start(self.file) as u64, |(_, synced_to, _)| synced_to)
    }

    /// Generation, `synced_to` and `snapshot` of the root, if a slot holds.
    pub fn root(&self) -> Option<(u64, u64, u64)> {
        let start = log_start(self.file);
        let slots = SLOTS.into_iter().filter(|_| start == ROOTS_END).filter_map(|at| {
            let slot = self.file.get(at..at + SLOT_LEN)?;
            let field = |name| number(SLOT, name, slot);
            let holds = field("crc") == u64::from(crc_at(self.file, at, &slot[..60]))
                && (1..u64::MAX).contains(&field("generation"))
                && (start as u64..=MAX_FILE_LEN).contains(&field("synced_to"));
            holds.then(|| (field("generation"), field("synced_to"), field("snapshot")))
        });
        slots.max()
    }

    /// S1 to S4: the search from `e` on. Returns the largest proven offset, and whether a whole record stands above `at`.
    fn search(&self, e: usize, at: usize, before: u64) -> (u64, bool) {
        let (mut proof, mut whole) = (0, false);
        for x in (e..self.file.len()).step_by(ALIGNMENT).skip(1) {
            let Ok(record) = self.record(x, before) else { continue };
            if record.kind > MOVED {
                continue;
            }
            if record.flags & SYNCED != 0 {
                proof = proof.max(x as u64);
            }
            if let (true, Some(stated)) = (record.body_holds, record.stated()) {
                proof = proof.max(stated);
            }
            whole |= x > at && record.body_holds;
        }
        (proof, whole)
    }
}

impl Record<'_> {
    /// The offset that a `SYNCED_TO` states.
    fn stated(&self) -> Option<u64> {
        let stated = u64::from_le_bytes(self.value.try_into().ok()?);
        (self.kind == SYNCED_TO && self.key.is_empty() && stated <= self.offset as u64).then_some(stated)
    }

    /// Bucket and key.
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        let (&len, rest) = self.key.split_first()?;
        rest.split_at_checked(usize::from(len)).filter(|(_, key)| !key.is_empty())
    }

    /// The deadline and the user's part of the value of a put-with or put-owned.
    pub fn split_value(&self) -> Option<(u64, &[u8])> {
        let has_expiry = matches!(self.kind, PUT_WITH | PUT_OWNED);
        let (expiry, value) = self.value.split_at_checked(EXPIRY_LEN).filter(|_| has_expiry)?;
        Some((number(EXPIRY, "deadline", expiry), value))
    }

    /// The session of a put-owned, and `acquired`.
    fn owner(&self) -> Option<(u64, u64)> {
        let expiry = self.value.get(..EXPIRY_LEN).filter(|_| self.kind == PUT_OWNED)?;
        Some((number(EXPIRY, "session", expiry), number(EXPIRY, "acquired", expiry)))
    }

    /// The number in a field of a session.
    fn of_session(&self, field: &str) -> u64 {
        number(SESSION_VALUE, field, self.value)
    }

    /// W10.
    fn has_form(&self) -> bool {
        match self.kind {
            PUT => self.split().is_some(),
            PUT_WITH => self.split().is_some() && self.split_value().is_some(),
            DELETE => self.split().is_some() && self.value.is_empty(),
            PUT_OWNED => {
                self.split().is_some()
                    && self.owner().is_some_and(|(session, acquired)| {
                        0 < session
                            && session < self.seq
                            && (acquired == 0 || session < acquired && acquired <= self.seq)
                    })
            }
            SESSION => {
                self.key.is_empty()
                    && self.value.len() == SESSION_LEN
                    && (1..=self.seq).contains(&self.of_session("session"))
                    && self.of_session("owner") < 1 << 61
                    && self.of_session("ttl") > 0
                    && self.of_session("base_seq") < self.seq
            }
            SYNCED_TO => self.stated().is_some(),
            LOOSE.. => self.flags == 0,
            _ => true,
        }
    }

    fn proves(&self) -> u64 {
        if self.flags & SYNCED != 0 { self.offset as u64 } else { self.stated().unwrap_or(0) }
    }
}

/// Reads a whole file.
pub fn read(file: &[u8]) -> Verdict {
    if file.len() < FILE_HEADER_LEN || file[..8] != MAGIC {
        return Verdict::NotCaskfile;
    }
    let field = |name| number(FILE_HEADER, name, file);
    if field("crc") != u64::from(crc32(&file[..60])) {
        return Verdict::Corrupt { offset: 0 };
    }
    if field("major") != MAJOR {
        return Verdict::UnsupportedVersion;
    }
    if field("base_seq") > MAX_SEQ {
        return Verdict::Corrupt { offset: 0 };
    }
    // H7 and H8
    if log_start(file) == ROOTS_END {
        let truncated = |stated| Verdict::Truncated { log_end: 0, stated };
        let header = [&[0; 5][..], &[ROOTS as u8, 0, 0, 128, 0, 0, 0], &1u64.to_le_bytes()].concat();
        let header = [&crc_at(file, FILE_HEADER_LEN, &header).max(1).to_le_bytes()[..], &header].concat();
        match file.get(FILE_HEADER_LEN..FILE_HEADER_LEN + RECORD_HEADER_LEN) {
            None => return truncated((ROOTS_END + END_MARK_LEN) as u64),
            Some(found) if found != header => return Verdict::Corrupt { offset: FILE_HEADER_LEN as u64 },
            Some(_) => {}
        }
        let least = Reader::new(file).stated() + END_MARK_LEN as u64;
        if (file.len() as u64) < least {
            return truncated(least);
        }
    }
    walk(&Reader::new(file))
}

fn walk(reader: &Reader<'_>) -> Verdict {
    let file = reader.file;
    let (mut o, mut previous) = (log_start(file), 0);
    let (first, stated) = (o as u64, reader.stated());
    let mut contents = Contents { last_index: reader.base_seq, proven: stated, end: first, ..Contents::default() };
    let (mut before, mut sessions) = (0, Sessions::default());
    let mut unit: Vec<Record<'_>> = Vec::new();
    let (stopped_at_zeros, file_ends) = loop {
        let left = file.get(o..).unwrap_or_default();
        // W1
        if left.iter().take(END_MARK_LEN).all(|&byte| byte == 0) {
            break (unit.is_empty(), left.len() < END_MARK_LEN);
        }
        match reader.record(o, previous) {
            Err(Untrue::Unsupported) => return Verdict::UnsupportedRecord { offset: o as u64 },
            Err(Untrue::BeyondFile) => break (false, true),
            // W8 to W10
            Ok(record) if unit.is_empty() || (record.flags & SYNCED == 0 && record.kind < LOOSE) => {
                if !(record.body_holds || record.kind >= LOOSE) || !record.has_form() {
                    break (false, false);
                }
                (o, previous) = (record.next, record.seq);
                let ends = record.flags & MORE == 0;
                unit.push(record);
                if ends {
                    contents.take(std::mem::take(&mut unit), &mut sessions);
                    before = previous;
                }
            }
            _ => break (false, false),
        }
    };
    contents.pairs.retain(|name, _| sessions.shows(name));
    let e = contents.end as usize;
    let data_end = file.iter().rposition(|&byte| byte != 0).map_or(e, |last| e.max(last + 1));
    let (proof, whole) = reader.search(e, o, before);
    // S5
    if proof.max(stated) > e as u64 {
        if data_end == e {
            return Verdict::Truncated { log_end: e as u64, stated };
        }
        return Verdict::Corrupt { offset: o as u64 };
    }
    // W11
    if reader.base_seq > 0 && before <= reader.base_seq {
        return Verdict::Truncated { log_end: e as u64, stated: 0 };
    }
    let no_end_mark = stopped_at_zeros && file.len() < o + END_MARK_LEN;
    if no_end_mark || (stopped_at_zeros && data_end == e) {
        return Verdict::Store(Box::new(contents));
    }
    let kept = whole || (o > e && file_ends);
    (contents.torn, contents.kept) = ((data_end - e) as u64, kept);
    Verdict::Store(Box::new(contents))
}

/// The sessions that have not ended, and the session of each owned pair.
#[derive(Default)]
struct Sessions {
    live: BTreeSet<u64>,
    owners: BTreeMap<Name, u64>,
}

impl Sessions {
    /// O1. For O2, the boot identity of these files is that of no disk.
    fn shows(&self, name: &Name) -> bool {
        self.owners.get(name).is_none_or(|session| self.live.contains(session))
    }
}

impl Contents {
    /// Takes in a complete record or batch.
    fn take(&mut self, unit: Vec<Record<'_>>, sessions: &mut Sessions) {
        for record in unit {
            if record.kind == SESSION {
                match (record.of_session("session"), record.of_session("deadline")) {
                    (session, 0) => sessions.live.remove(&session),
                    (session, _) => sessions.live.insert(session),
                };
            }
            if let (PUT | DELETE | PUT_WITH | PUT_OWNED, Some((bucket, key))) = (record.kind, record.split()) {
                let name = (bucket.to_vec(), key.to_vec());
                let value = match (record.kind, record.split_value()) {
                    (PUT, _) => Some(record.value),
                    (PUT_WITH | PUT_OWNED, Some((deadline, value))) => {
                        (deadline == 0 || NOW < deadline).then_some(value)
                    }
                    _ => None,
                };
                match record.owner() {
                    Some((session, _)) => drop(sessions.owners.insert(name.clone(), session)),
                    None => drop(sessions.owners.remove(&name)),
                }
                match value {
                    Some(value) => drop(self.pairs.insert(name, (value.to_vec(), record.seq))),
                    None => drop(self.pairs.remove(&name)),
                }
            }
            self.records += 1;
            self.last_index = self.last_index.max(record.seq);
            self.proven = self.proven.max(record.proves());
            self.end = record.next as u64;
        }
    }
}
