//! A store whose root leads to a snapshot of the index that says anything: every number of a `SNAPSHOT`, every part, every
//! word, every leaf of the order and every entry, with right checksums unless an edit says otherwise.
//!
//! Nothing in it may lead to a panic, a loop, an overflow or an allocation that the file's size does not justify; and no
//! error but damage. A snapshot whose checksums hold can lie, so what is read through it is not compared. What a handle reads
//! that checks the whole log must be what the reader finds that was made from docs/FORMAT.md, and compaction must bring it
//! back, since it believes no snapshot.

#![no_main]

#[path = "../../tests/common/files/bytes.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod bytes;
#[path = "../../tests/common/files/layout.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layout;
#[path = "../../tests/common/files/reader.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod reader;
#[path = "../../tests/common/files/seal.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod seal;
#[path = "../../tests/common/files/snapshot.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod snapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Error, ReadMode, verify_on};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

use bytes::record;
use layout::{DELETE, NOW, PUT, PUT_WITH, with_deadline};
use reader::{Name, Setting, Verdict};
use snapshot::{ENTRY, HEAD, LEAF, LEAF_LEN, ORDER_ENTRY_LEN, Snapshotted, small_log, with_order};

const STORE: &str = "/store";

fuzz_target!(|program: Program| {
    let file = program.file();
    let disk = SimDisk::new();
    disk.set_contents(STORE, file.clone());
    let verdict = reader::read(&file);
    let open = |config: &Config| Cask::open_on(Arc::new(disk.process()), STORE, config);

    // Whatever it says, it is no more than damage.
    match verify_on(&disk, Path::new(STORE)) {
        Ok(_) | Err(Error::Damaged { .. } | Error::UnsupportedRecord { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    let config = program.config();
    match open(&config.clone().read_only(true).check_at_open(true)) {
        Ok(cask) => {
            let Verdict::Store(contents) = &verdict else { panic!("{verdict:?}") };
            assert!(everything(&cask).unwrap() == contents.pairs, "of the whole log");
        }
        Err(_) => assert!(!matches!(verdict, Verdict::Store(_)), "{verdict:?}"),
    }
    if let Ok(cask) = open(&config.clone().read_only(true)) {
        use_it(&cask, &program.reads);
    }
    assert!(disk.contents(STORE).unwrap() == file, "a reader has changed the file");
    let Ok(cask) = open(&config) else { return };
    use_it(&cask, &program.reads);
    let Verdict::Store(contents) = verdict else { return };
    let mut pairs = contents.pairs;
    for (n, &which) in program.writes.iter().take(20).enumerate() {
        write(&cask, n, which, &mut pairs);
        if which % 16 == 7 {
            use_it(&cask, &program.reads);
        }
    }
    if program.writes.len() % 2 == 1 {
        cask.close().unwrap();
        let again = open(&config).unwrap();
        use_it(&again, &program.reads);
        finish(&disk, &again, &pairs);
    } else {
        finish(&disk, &cask, &pairs);
    }
});

/// After a compaction nothing is left of the snapshot.
fn finish(disk: &SimDisk, cask: &Cask, pairs: &BTreeMap<Name, Setting>) {
    cask.compact().unwrap();
    let found = everything(cask).unwrap();
    let values = |pairs: &BTreeMap<Name, Setting>| -> Vec<_> {
        pairs.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    };
    assert!(values(&found) == values(pairs), "{found:?} is left of {pairs:?}");
    cask.verify().unwrap();
    cask.close().unwrap();
    assert!(verify_on(disk, Path::new(STORE)).unwrap().wrong_snapshot.is_none());
}

/// All keys that the log has, and one that it has not.
const KEYS: [(&str, &str); 7] =
    [("", "until"), ("", "a"), ("", "b"), ("", "d"), ("x", "c"), ("", "e"), ("x", "absent")];

/// Reads in any order. What is found may be wrong, and an error is damage.
fn use_it(cask: &Cask, reads: &[u8]) {
    let expect = |error: Error| match error {
        Error::KeyNotFound | Error::Corrupt { .. } | Error::Truncated { .. } => {}
        other => panic!("{other}"),
    };
    for &read in reads.iter().take(20) {
        let (bucket, key) = KEYS[usize::from(read) % KEYS.len()];
        let cask = cask.bucket(bucket).unwrap();
        let done = match read / 16 {
            0..=6 => cask.get(key).map(drop),
            7..=9 => cask.exists(key).map(drop),
            10 => cask.list("").map(drop),
            11 => cask.stats().map(drop),
            12 => cask.scan("").and_then(|mut scan| scan.try_for_each(|pair| pair.map(drop))),
            13 if read % 2 == 0 => cask.range("a".."c").and_then(|mut scan| scan.try_for_each(|pair| pair.map(drop))),
            13 => cask.buckets().map(drop),
            14 => match cask.verify() {
                // `Other`: the root leads to no snapshot any more, and the handle still has the keys of the wrong one.
                Err(Error::Damaged { .. } | Error::Other(_)) => Ok(()),
                verified => verified.map(drop),
            },
            _ => cask.scan_by_index().map(drop),
        };
        done.err().into_iter().for_each(expect);
    }
}

/// A write with no condition. It must not fail, whatever the snapshot says.
fn write(cask: &Cask, n: usize, which: u8, pairs: &mut BTreeMap<Name, Setting>) {
    let (bucket, key) = KEYS[usize::from(which) % KEYS.len()];
    let name = (bucket.as_bytes().to_vec(), key.as_bytes().to_vec());
    let cask = cask.bucket(bucket).unwrap();
    let value = vec![n as u8; usize::from(which)];
    match which / 64 {
        0 | 1 => drop(cask.put(key, &value).unwrap()),
        2 => drop(cask.write(Batch::new().put(key, "first").put(key, &value)).unwrap()),
        _ => {
            cask.delete(key).unwrap();
            pairs.remove(&name);
            return;
        }
    }
    pairs.insert(name, (value, 0));
}

/// Everything in the store.
fn everything(cask: &Cask) -> caskfile::Result<BTreeMap<Name, Setting>> {
    let mut pairs = BTreeMap::new();
    for bucket in cask.buckets()? {
        for pair in cask.bucket(&bucket)?.list("")? {
            pairs.insert((bucket.clone(), pair.key), (pair.value, pair.last_index));
        }
    }
    Ok(pairs)
}

#[derive(Debug, Arbitrary)]
struct Program {
    part_bits: u8,
    /// The records after the snapshot.
    after: Vec<u8>,
    edits: Vec<Edit>,
    /// Whether the parts' checksums are right, and those of the order's leaves and directory.
    seal_parts: bool,
    seal_order: bool,
    /// The number of entries in a leaf; 0 without an order.
    leaf_entries: u8,
    mode: u8,
    reads: Vec<u8>,
    writes: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    /// A field of the head gets another number: this one, or one that is higher by this.
    Head(u8, u64),
    HeadAdds(u8, i16),
    /// A field of an entry.
    Entry(u16, u8, u64),
    EntryAdds(u16, u8, i16),
    /// A number of words in a part, or eight bytes of one.
    Count(u8, u16, u32),
    Word(u8, u8, u64),
    /// A position of a word, divided by 8.
    Leads(u8, u8, u16),
    /// A field of a leaf's entry in the directory.
    Leaf(u8, u8, u64),
    LeafAdds(u8, u8, i16),
    /// Eight bytes of an entry of the order, or its position, divided by 8.
    Order(u8, u8, u64),
    OrderLeads(u8, u16),
    /// The root leads elsewhere, or states another offset.
    Root(u16, u16),
    /// The checksum of a record is made wrong after all.
    Unsealed(bool, u8),
}

impl Program {
    fn config(&self) -> Config {
        Config::new().read_mode(if self.mode & 1 == 0 { ReadMode::Map } else { ReadMode::Pread })
    }

    fn file(&self) -> Vec<u8> {
        let keys = [&b"\0a"[..], b"\0b", b"\0d", b"\x01xc"];
        let (mut log, mut first) = (small_log(), 8);
        if self.mode & 2 != 0 {
            // One that never is over: a snapshot that lies may not hide a pair here, since writers would remove it.
            log = log.push(record(0, PUT_WITH, 6, b"\0until", &with_deadline(2 * NOW, b"5")));
            first = 9;
        }
        let after = (first..).zip(&self.after).take(20).map(|(seq, &what)| {
            let key = keys[usize::from(what) % keys.len()];
            if what & 0x80 == 0 { record(0, PUT, seq, key, b"after") } else { record(0, DELETE, seq, key, b"") }
        });
        let after: Vec<_> = after.collect();
        // The two extremes are large, and have nothing that the others have not.
        let leaf_entries = if self.leaf_entries % 4 == 0 { usize::MAX } else { usize::from(self.leaf_entries % 4) };
        let mut of = with_order(log, u32::from(self.part_bits % 7) + 4, leaf_entries, &after);
        self.edits.iter().take(20).for_each(|edit| edit.apply(&mut of));
        if self.seal_parts {
            of.seal_parts_that_fit();
        }
        if self.seal_order {
            of.seal_order(true);
        }
        of.seal(false);
        for edit in &self.edits {
            if let Edit::Unsealed(image, bits) = edit {
                of.file[if *image { of.image_at } else { of.snapshot_at } + 4] ^= bits;
            }
        }
        of.file
    }
}

impl Edit {
    fn apply(&self, of: &mut Snapshotted) {
        let right = of.clone();
        let head = |which: u8| right.field(HEAD[usize::from(which) % HEAD.len()].0);
        let entries = of.room_of_entries();
        let entry = |part: u16, which: u8| {
            let &(_, at, len) = &ENTRY[usize::from(which) % ENTRY.len()];
            let start = entries.start + usize::from(part) % (entries.len() / 16) * 16 + at;
            start..start + len
        };
        let parts = of.image_at + 24..of.snapshot_at;
        let counts = |part: u8| parts.start + usize::from(part) * 4 % parts.len();
        match *self {
            Edit::Head(which, number) => set(&mut of.file, head(which), |_| number),
            Edit::HeadAdds(which, more) => set(&mut of.file, head(which), |old| old.wrapping_add(more as u64)),
            Edit::Entry(part, which, number) => set(&mut of.file, entry(part, which), |_| number),
            Edit::EntryAdds(part, which, more) => {
                set(&mut of.file, entry(part, which), |old| old.wrapping_add(more as u64));
            }
            Edit::Count(part, at, number) => {
                let at = (counts(part) + usize::from(at) * 4).min(parts.end - 4);
                set(&mut of.file, at..at + 4, |_| number.into());
            }
            Edit::Word(part, at, number) => {
                let at = (counts(part) + usize::from(at) * 4).min(parts.end - 8);
                set(&mut of.file, at..at + 8, |_| number);
            }
            Edit::Leads(part, at, position) => {
                let at = (counts(part) + usize::from(at) * 4).min(parts.end - 8);
                set(&mut of.file, at..at + 5, |_| position.into());
            }
            Edit::Leaf(leaf, which, number) => {
                if let Some(place) = leaf_field(&right, leaf, which) {
                    set(&mut of.file, place, |_| number);
                }
            }
            Edit::LeafAdds(leaf, which, more) => {
                if let Some(place) = leaf_field(&right, leaf, which) {
                    set(&mut of.file, place, |old| old.wrapping_add(more as u64));
                }
            }
            Edit::Order(entry, word, number) => {
                if let Some(at) = order_entry(&right, entry) {
                    let at = at + usize::from(word % 3) * 8;
                    set(&mut of.file, at..at + 8, |_| number);
                }
            }
            Edit::OrderLeads(entry, position) => {
                if let Some(at) = order_entry(&right, entry) {
                    set(&mut of.file, at + 16..at + 21, |_| position.into());
                }
            }
            Edit::Root(synced_to, snapshot) => {
                set(&mut of.file, 96..104, |old| if synced_to == 0 { old } else { u64::from(synced_to) * 8 });
                set(&mut of.file, 104..112, |old| if snapshot == 0 { old } else { u64::from(snapshot) * 8 });
                seal::seal_roots(&mut of.file);
            }
            Edit::Unsealed(..) => {}
        }
    }
}

/// The place of a field of a leaf's entry.
fn leaf_field(of: &Snapshotted, leaf: u8, which: u8) -> Option<std::ops::Range<usize>> {
    let directory = of.directory()?;
    let &(_, at, len) = &LEAF[usize::from(which) % LEAF.len()];
    let start = directory.start + usize::from(leaf) % (directory.len() / LEAF_LEN) * LEAF_LEN + at;
    Some(start..start + len)
}

/// The place of an entry in a leaf that lies in the file.
fn order_entry(of: &Snapshotted, entry: u8) -> Option<usize> {
    let places = of.leaves().into_iter().flat_map(|(bytes, _)| bytes.step_by(ORDER_ENTRY_LEN));
    let places: Vec<usize> = places.take(100).collect();
    let at = *places.get(usize::from(entry) % places.len().max(1))?;
    (at + ORDER_ENTRY_LEN <= of.file.len()).then_some(at)
}

/// Changes a number of up to 8 bytes; of a longer field, the first 8.
fn set(file: &mut [u8], at: std::ops::Range<usize>, change: impl FnOnce(u64) -> u64) {
    let (mut bytes, len) = ([0; 8], at.len().min(8));
    bytes[..len].copy_from_slice(&file[at.start..at.start + len]);
    let changed = change(u64::from_le_bytes(bytes)).to_le_bytes();
    file[at.start..at.start + len].copy_from_slice(&changed[..len]);
}
