//! Bytes of the fuzzer's as a file. Most ways put checksums right, so that it reaches the checks after them.

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

use crate::seal;

/// The file that an input's first byte and its other bytes stand for; the two lowest bits say how.
pub fn file(how: u8, rest: &[u8]) -> arbitrary::Result<Vec<u8>> {
    match how & 3 {
        // As they are.
        0 => Ok(rest.to_vec()),
        // A file whose checksums are put right, but for one record that is then damaged.
        1 | 2 => {
            let (damage, rest) = rest.split_at(rest.len().min(3));
            let mut file = rest.to_vec();
            let starts = seal::seal_all(&mut file);
            if let (2, &[which, place, bits]) = (how & 3, damage) {
                if let Some(&start) = starts.get(usize::from(which)) {
                    if let Some(byte) = file.get_mut(start + usize::from(place)) {
                        *byte ^= bits;
                    }
                }
            }
            Ok(file)
        }
        // Built record by record.
        _ => Building::arbitrary(&mut Unstructured::new(rest)).map(|building| building.build()),
    }
}

/// A file as a list of records.
#[derive(Debug, Arbitrary)]
struct Building<'a> {
    base_seq: u32,
    /// The slots of `ROOTS`: a generation, and an offset divided by 8.
    roots: Option<[(u8, u16); 2]>,
    records: Vec<Record<'a>>,
    tail: &'a [u8],
}

#[derive(Debug, Arbitrary)]
struct Record<'a> {
    kind: Kind,
    flags: u8,
    step: u16,
    bucket_len: u8,
    key: &'a [u8],
    value: &'a [u8],
    then: Then,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    Put,
    Delete,
    /// Over, without a deadline, or with one far ahead.
    PutWith(u8),
    /// Of a session that begins this many numbers before; renewed, or its END.
    Session(u8, bool),
    /// Of such a session; its lock, or another pair.
    PutOwned(u8, bool),
    Mark,
    SyncedTo(u16),
    Moved,
    Other(u8),
}

#[derive(Debug, Arbitrary)]
enum Then {
    Nothing,
    /// Zeros after the record.
    Zeros(u8),
    /// One byte of the record is changed after all.
    Damage(u16, u8),
    /// The index goes this far beyond the last.
    Leap(u64),
}

impl Building<'_> {
    fn build(self) -> Vec<u8> {
        let mut file = seal::file_header(self.base_seq.into());
        if let Some(slots) = self.roots {
            file[12] = 1;
            file.resize(seal::ROOTS_END, 0);
            for (at, (generation, synced_to)) in seal::SLOTS.into_iter().zip(slots) {
                file[at] = generation;
                file[at + 8..at + 16].copy_from_slice(&(u64::from(synced_to) * 8).to_le_bytes());
            }
            seal::seal_file_header(&mut file);
            seal::seal_roots(&mut file);
        }
        let mut index = u64::from(self.base_seq);
        for record in self.records {
            index = index.wrapping_add(u64::from(record.step) + 1);
            if let Then::Leap(far) = record.then {
                index = index.wrapping_add(far);
            }
            let start = file.len();
            let stated = if let Kind::SyncedTo(offset) = record.kind { u64::from(offset) * 8 } else { 0 };
            let deadline = if let Kind::PutWith(n) = record.kind { [1, 0, u64::MAX][usize::from(n) % 3] } else { 0 };
            let with_deadline = [&deadline.to_le_bytes()[..], &[0; 16], record.value].concat();
            let (session, owned) = (session(index, &record.kind), with_owner(index, &record));
            let (kind, key, value): (u8, Vec<u8>, &[u8]) = match record.kind {
                Kind::Put => (1, full_key(&record), record.value),
                Kind::Delete => (2, full_key(&record), &[]),
                Kind::PutWith(_) => (4, full_key(&record), &with_deadline),
                Kind::Session(..) => (5, Vec::new(), &session),
                Kind::PutOwned(..) => (6, full_key(&record), &owned),
                Kind::Mark => (0x80, Vec::new(), &[]),
                Kind::SyncedTo(_) => (0x81, Vec::new(), &stated.to_le_bytes()),
                Kind::Moved => (0x82, Vec::new(), &[]),
                Kind::Other(kind) => (kind, record.key.to_vec(), record.value),
            };
            file.extend_from_slice(&[0; 8]);
            // Flags beyond the two that are known come seldom enough to get past them.
            file.push(if record.flags < 0xf0 { record.flags & 3 } else { record.flags });
            file.push(kind);
            file.extend_from_slice(&(key.len() as u16).to_le_bytes());
            file.extend_from_slice(&(value.len() as u32).to_le_bytes());
            file.extend_from_slice(&index.to_le_bytes());
            file.extend_from_slice(&key);
            file.extend_from_slice(value);
            file.resize(file.len().next_multiple_of(8), 0);
            seal::seal_record(&mut file, start);
            match record.then {
                Then::Zeros(words) => file.resize(file.len() + 8 * usize::from(words), 0),
                Then::Damage(place, how) => {
                    let place = start + usize::from(place) % (file.len() - start);
                    file[place] ^= how;
                }
                Then::Nothing | Then::Leap(_) => {}
            }
        }
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(self.tail);
        file
    }
}

/// The value of a session with a record of this number.
fn session(index: u64, kind: &Kind) -> [u8; 64] {
    let &Kind::Session(before, lives) = kind else { return [0; 64] };
    let mut value = [7; 64];
    value[..8].copy_from_slice(&index.wrapping_sub(before.into()).to_le_bytes());
    // The highest bits of the owner are zeros, and so is `base_seq`.
    value[15] = 0;
    value[56..].fill(0);
    value[32..40].copy_from_slice(&u64::from(lives).to_le_bytes());
    value
}

/// The value of a put-owned with this number.
fn with_owner(index: u64, record: &Record<'_>) -> Vec<u8> {
    let Kind::PutOwned(before, is_lock) = record.kind else { return Vec::new() };
    let session = index.wrapping_sub(u64::from(before) + 1);
    let acquired = if is_lock { index } else { 0 };
    [&[0; 8][..], &session.to_le_bytes(), &acquired.to_le_bytes(), record.value].concat()
}

fn full_key(record: &Record<'_>) -> Vec<u8> {
    let key = if record.key.is_empty() { b"k" } else { record.key };
    // A few buckets, and now and then a length that the key does not have.
    let bucket_len = match record.bucket_len {
        len @ 0xf0.. => len,
        len => (len % 4).min((key.len() - 1).min(3) as u8),
    };
    [&[bucket_len], key].concat()
}
