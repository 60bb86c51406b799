//! Stores with records of every kind, taken apart: what each byte of the file is good for.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, PutOptions};

use super::layout::{EXPIRY_LEN, NOW, log_start};

pub const STORE: &str = "/store";
pub const FILE_HEADER: usize = 64;
pub const RECORD_HEADER: usize = 24;
pub const END_MARK: usize = 8;

pub const PUT: u8 = 1;
pub const DELETE: u8 = 2;
pub const PUT_WITH: u8 = 4;
pub const MARK: u8 = 0x80;
pub const SYNCED_TO: u8 = 0x81;
pub const MOVED: u8 = 0x82;

/// Values and indexes by full key: length of the bucket's name, name, key.
pub type Pairs = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A record of the undamaged file.
#[derive(Debug)]
pub struct Record {
    pub at: usize,
    /// Without the padding.
    pub end: usize,
    pub kind: u8,
    pub more: bool,
    /// Up to where it says that everything was on stable storage, if it does.
    pub proof: Option<usize>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub index: u64,
}

impl Record {
    /// The value that it gives its key.
    ///
    /// # Panics
    ///
    /// If the pair is over: no specimen has one.
    pub fn sets(&self) -> Option<&[u8]> {
        match self.kind {
            PUT => Some(&self.value),
            PUT_WITH => {
                let (expiry, value) = self.value.split_at(EXPIRY_LEN);
                let deadline = u64::from_le_bytes(expiry[..8].try_into().unwrap());
                assert!(deadline == 0 || NOW < deadline, "it is over");
                Some(value)
            }
            _ => None,
        }
    }

    /// Whether it is about a key.
    pub fn has_key(&self) -> bool {
        matches!(self.kind, PUT | DELETE | PUT_WITH)
    }
}

/// Takes an undamaged file apart.
pub fn records(file: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = log_start(file);
    while file[at..at + END_MARK] != [0; END_MARK] {
        let header = &file[at..at + RECORD_HEADER];
        let (flags, kind) = (header[8], header[9]);
        let key_len = usize::from(u16::from_le_bytes(header[10..12].try_into().unwrap()));
        let value_len = u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize;
        let key_at = at + RECORD_HEADER;
        let end = key_at + key_len + value_len;
        let value = file[key_at + key_len..end].to_vec();
        let stated = (kind == SYNCED_TO).then(|| u64::from_le_bytes(value[..].try_into().unwrap()) as usize);
        records.push(Record {
            at,
            end,
            kind,
            more: flags & 2 != 0,
            proof: stated.or((flags & 1 != 0).then_some(at)),
            key: file[key_at..key_at + key_len].to_vec(),
            value,
            index: u64::from_le_bytes(header[16..24].try_into().unwrap()),
        });
        at = end.next_multiple_of(8);
    }
    records
}

/// What records say, one after the other.
pub fn replay<'r>(records: impl IntoIterator<Item = &'r Record>) -> Pairs {
    let mut pairs = Pairs::new();
    for record in records {
        match record.sets() {
            Some(value) => drop(pairs.insert(record.key.clone(), (value.to_vec(), record.index))),
            None if record.kind == DELETE => drop(pairs.remove(&record.key)),
            None => {}
        }
    }
    pairs
}

/// A small store with records of every kind. Returns its bytes as a crash would leave them if all reached the disk, and
/// as the last close leaves them.
pub fn specimens() -> (Vec<u8>, Vec<u8>) {
    made(0, 0)
}

/// As [`specimens`], of a store whose file has `len` bytes when it is closed.
///
/// # Panics
///
/// If `len` is no multiple of 8 or less than 2 KiB.
pub fn specimens_of(len: usize) -> (Vec<u8>, Vec<u8>) {
    assert!(len % 8 == 0 && len >= 2 << 10, "{len}");
    let (_, shorter) = made(len, 0);
    let (crashed, closed) = made(len, len - shorter.len());
    assert_eq!(closed.len(), len);
    (crashed, closed)
}

/// Makes a store of a little less than `len` bytes, one of whose last values is longer by `more`.
///
/// Two handles take turns, one of them without syncing, so that claims have to be stated; a compaction fails at its
/// last step; values have all lengths from none to more than the library reads at once in a short walk.
fn made(len: usize, more: usize) -> (Vec<u8>, Vec<u8>) {
    let disk = SimDisk::new();
    let open = |durability| {
        let config = Config::new().durability(durability).connection_timeout(Duration::ZERO);
        Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap()
    };
    let (one, other) = (open(Durability::Sync), open(Durability::Os));
    one.put("first", "1").unwrap();
    one.put("deleted", "soon").unwrap();
    one.delete("deleted").unwrap();
    other.put("second", "of another writer").unwrap();
    // Says what is synced, since the record before is another's.
    one.put("first", "one").unwrap();
    fill(&one, &other, len);
    other.put("third", "3").unwrap();
    one.put("fourth", "4").unwrap();
    let year_2100 = UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    other.put_with("expiring", "one day", &PutOptions::new().expires_at(year_2100)).unwrap();
    let mut batch = Batch::new();
    batch.put("batch/1", "begins").put("batch/2", "goes on").delete("first").put("batch/3", "");
    one.write(&batch).unwrap();
    disk.fail(When::next().of(Verb::Rename), Fault::Error(ErrorKind::Other), Repeat::Once);
    one.compact().unwrap_err();
    one.put("fifth", [b"behind what says that the log has moved", &vec![b'.'; more][..]].concat()).unwrap();
    one.delete("third").unwrap();
    let log_end = one.stats().unwrap().log_end as usize;
    let mut crashed = disk.contents(STORE).unwrap();
    // Not all that the file was extended by, to have fewer zeros to read.
    crashed.truncate(log_end + 64);
    other.close().unwrap();
    one.close().unwrap();
    let closed = disk.contents(STORE).unwrap();
    for specimen in [&crashed, &closed] {
        let records = records(specimen);
        for kind in [PUT, DELETE, PUT_WITH, MARK, SYNCED_TO, MOVED] {
            assert!(records.iter().any(|record| record.kind == kind), "no record of kind {kind:#x}");
        }
        assert!(records.iter().any(|record| record.more));
    }
    assert_eq!(records(&closed).last().map(|record| record.kind), Some(MARK));
    (crashed, closed)
}

/// Puts, deletes and batches of two handles in two buckets, up to a length that leaves room for what follows.
fn fill(one: &Cask, other: &Cask, len: usize) {
    let bucket = other.bucket("bucket").unwrap();
    for n in 0usize.. {
        let left = len.saturating_sub(other.stats().unwrap().log_end as usize + 1024);
        if left <= 2 * 1024 {
            break;
        }
        if n % 10 == 3 {
            bucket.delete(format!("key {}", n / 2)).unwrap();
        } else if n % 13 == 5 {
            let mut batch = Batch::new();
            batch.put(format!("key {n}"), "").bucket("bucket").put(format!("key {n}"), "of a batch").delete("key 0");
            one.write(&batch).unwrap();
        } else {
            let size = [0, 3, 40, 9, 700, 1, 5000][n % 7].min(left);
            [one, other, &bucket][n % 3].put(format!("key {}", n % 50), vec![n as u8; size]).unwrap();
        }
    }
}
