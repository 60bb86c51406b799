//! Stores that have records of every kind, and what they are made of.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability};

pub const STORE: &str = "/store";

pub const FILE_HEADER: usize = 64;
pub const RECORD_HEADER: usize = 24;
pub const END_MARK: usize = 8;

pub const PUT: u8 = 1;
pub const DELETE: u8 = 2;
pub const MARK: u8 = 0x80;
pub const SYNCED_TO: u8 = 0x81;
pub const MOVED: u8 = 0x82;

const SYNCED: u8 = 1;
const MORE: u8 = 2;

/// A record of a file that nobody has damaged.
#[derive(Debug, Clone)]
pub struct Record {
    pub at: usize,
    /// Without the padding.
    pub end: usize,
    pub flags: u8,
    pub kind: u8,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub index: u64,
}

impl Record {
    /// Whether its batch goes on.
    pub fn more(&self) -> bool {
        self.flags & MORE != 0
    }

    /// Up to where it says that everything was on stable storage, if it does.
    pub fn proof(&self) -> Option<usize> {
        let stated = || u64::from_le_bytes(self.value[..].try_into().expect("an offset")) as usize;
        let flagged = (self.flags & SYNCED != 0).then_some(self.at);
        if self.kind == SYNCED_TO { Some(stated()) } else { flagged }
    }
}

/// Takes a file apart that nobody has damaged.
pub fn records(file: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = FILE_HEADER;
    while file[at..at + END_MARK] != [0; END_MARK] {
        let header = &file[at..at + RECORD_HEADER];
        let key_len = usize::from(u16::from_le_bytes([header[10], header[11]]));
        let value_len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        let key_at = at + RECORD_HEADER;
        let end = key_at + key_len + value_len;
        records.push(Record {
            at,
            end,
            flags: header[8],
            kind: header[9],
            key: file[key_at..key_at + key_len].to_vec(),
            value: file[key_at + key_len..end].to_vec(),
            index: u64::from_le_bytes(header[16..24].try_into().expect("eight bytes")),
        });
        at = end.next_multiple_of(8);
    }
    records
}

/// A store's bytes at two moments.
pub struct Specimens {
    /// As a crash leaves them if all reached the disk: what proves the last groups is not written yet.
    pub crashed: Vec<u8>,
    /// As the last close leaves them: everything is proven.
    pub closed: Vec<u8>,
}

/// Makes a store with records of every kind whose file has `len` bytes when it is closed.
///
/// Two handles take turns, one of them without syncing, so that claims have to be stated; a compaction fails at its
/// last step; values have all lengths from none to more than the library reads at once in a short walk.
///
/// # Panics
///
/// If `len` is no multiple of 8 or less than 2 KiB.
pub fn specimens(len: usize) -> Specimens {
    assert!(len % 8 == 0 && len >= 2 << 10, "{len}");
    let shorter = made(len, 0);
    let made = made(len, len - shorter.closed.len());
    assert_eq!(made.closed.len(), len);
    made
}

/// As [`specimens`], but for a few bytes: one of the last values has this length.
fn made(len: usize, last_value_len: usize) -> Specimens {
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
    let bucket = other.bucket("bucket").unwrap();
    for n in 0usize.. {
        // What follows takes less than this.
        let left = len.saturating_sub(other.stats().unwrap().log_end as usize + 1024);
        let size = [0, 3, 40, 9, 700, 1, 5000][n % 7].min(left);
        if size < left && n % 10 == 3 {
            bucket.delete(format!("key {}", n / 2)).unwrap();
        } else if n % 13 == 5 && left > 2 * 1024 {
            let mut batch = Batch::new();
            batch.put(format!("key {n}"), "").bucket("bucket").put(format!("key {n}"), "of a batch").delete("key 0");
            one.write(&batch).unwrap();
        } else if left > 2 * 1024 {
            [&one, &other, &bucket][n % 3].put(format!("key {}", n % 50), vec![n as u8; size]).unwrap();
        } else {
            break;
        }
    }
    other.put("third", "3").unwrap();
    one.put("fourth", "4").unwrap();
    let mut batch = Batch::new();
    batch.put("batch/1", "begins").put("batch/2", "goes on").delete("first").put("batch/3", "");
    one.write(&batch).unwrap();
    disk.fail(When::next().of(Verb::Rename), Fault::Error(ErrorKind::Other), Repeat::Once);
    one.compact().unwrap_err();
    one.put("fifth, behind what says that the log has moved", vec![5; last_value_len]).unwrap();
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
        for kind in [PUT, DELETE, MARK, SYNCED_TO, MOVED] {
            assert!(records.iter().any(|record| record.kind == kind), "no record of kind {kind:#x}");
        }
        assert!(records.iter().any(Record::more));
    }
    assert_eq!(records(&closed).last().map(|record| record.kind), Some(MARK));
    Specimens { crashed, closed }
}
