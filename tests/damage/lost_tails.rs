//! Copies that were written to and then lost their tail: no index is given twice.
//!
//! A copy is made in each way that there is, several handles write to it, and it is cut off at every length. Whatever
//! is left is opened, or salvaged, and written to again; chains of copies of copies go on from there. Blocks of
//! sequence numbers are short, so that the cuts fall before, into and after them.

use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Batch, Cask, Config, Durability, Error, Limits, OptionalExt, salvage_on};

use crate::common::dice::Dice;
use crate::common::files::anatomy::{FILE_HEADER, Record, records};
use crate::common::files::bytes::FileBytes;
use crate::common::files::layout::{MAX_SEQ, ROOTS_END, SLOTS};

const BLOCK: u64 = 14;

const LIMITS: Limits = Limits { block_len: BLOCK, group_records: BLOCK - 8, ..Limits::REAL };

/// How a store is made from another.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Backup,
    Stream,
    CompactTo,
    Salvage,
    /// In place.
    Compaction,
}

const WAYS: [Way; 5] = [Way::Backup, Way::Stream, Way::CompactTo, Way::Salvage, Way::Compaction];

/// A disk, and the highest index that was ever seen in a store or in one that it was made from.
struct Line {
    disk: SimDisk,
    highest: u64,
    path: String,
    made: u32,
}

impl Line {
    fn new() -> Line {
        let disk = SimDisk::new();
        disk.set_limits(LIMITS);
        Line { disk, highest: 0, path: String::from("/original"), made: 0 }
    }

    /// The same store, of which only the first `len` bytes are left.
    fn cut_off(&self, len: usize) -> Line {
        self.changed(|bytes| bytes.truncate(len))
    }

    /// As [`Line::cut_off`], of a store whose writers were killed before they stated how much is on stable storage.
    fn cut_off_without_root(&self, len: usize) -> Line {
        self.changed(|bytes| {
            bytes[SLOTS[0]..ROOTS_END].fill(0);
            bytes.truncate(len);
        })
    }

    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Line {
        let disk = self.disk.fork();
        let mut bytes = disk.contents(&self.path).unwrap();
        change(&mut bytes);
        disk.set_contents(&self.path, bytes);
        Line { disk, path: self.path.clone(), ..*self }
    }

    fn open(&self) -> Result<Cask, Error> {
        let config = Config::new().durability(Durability::Os);
        Cask::open_on(Arc::new(self.disk.process()), &self.path, &config)
    }

    /// Opens the store, and puts, deletes and writes batches: `writes` times in all.
    fn write(&mut self, writes: u64) -> Result<(), Error> {
        let cask = self.open()?;
        for n in 0..writes {
            let key = format!("key {}", n % 5);
            let index = match n % 4 {
                3 => {
                    cask.delete("key 1")?;
                    cask.write(Batch::new().put("one", "1").delete("key 2").put(&key, "of a batch"))?
                        .last_index()
                        .unwrap()
                }
                _ => {
                    let before = cask.get(&key).optional()?;
                    cask.atomic_put(&key, "value", before.as_ref())?.last_index
                }
            };
            assert!(index > self.highest, "index {index} was given again: {} was seen", self.highest);
            self.highest = index;
        }
        for pair in cask.list("")? {
            assert!(pair.last_index <= self.highest, "a pair has an index that no write got: {pair:?}");
        }
        cask.close()
    }

    /// Goes on in a copy of the store. Its original is written to as well, `beside` times, after the copy was made.
    fn go_on(&mut self, way: Way, beside: u64) -> Result<(), Error> {
        if way == Way::Compaction {
            let cask = self.open()?;
            match cask.compact() {
                Ok(_) | Err(Error::CompactionRefused { .. }) => {}
                Err(error) => return Err(error),
            }
            return cask.close();
        }
        self.made += 1;
        let to = format!("/copy {}", self.made);
        match way {
            Way::Backup => drop(self.open()?.backup(&to)?),
            Way::CompactTo => drop(self.open()?.compact_to(&to)?),
            Way::Stream => {
                let mut bytes = Vec::new();
                self.open()?.backup_to(&mut bytes)?;
                self.disk.set_contents(&to, bytes);
            }
            Way::Salvage | Way::Compaction => drop(salvage_on(&self.disk, self.path.as_ref(), to.as_ref())?),
        }
        match if beside > 0 { self.write(beside) } else { Ok(()) } {
            Ok(()) | Err(Error::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        self.path = to;
        Ok(())
    }

    fn records(&self) -> (Vec<u8>, Vec<Record>) {
        let bytes = self.disk.contents(&self.path).unwrap();
        let records = records(&[&bytes[..], &[0; 8]].concat());
        (bytes, records)
    }
}

/// A copy that three handles have written to.
fn written_to(way: Way) -> Line {
    let mut line = Line::new();
    line.write(9).unwrap();
    line.write(7).unwrap();
    line.go_on(way, 5).unwrap();
    for writes in [1, 25, 6] {
        line.write(writes).unwrap();
    }
    line
}

/// Lengths to which a file is cut off: at and beside the end of each record, and in the middle of it.
fn lengths(records: &[Record]) -> Vec<usize> {
    let ends = records.iter().flat_map(|record| [record.at, record.at + 24, record.end]);
    let mut lengths: Vec<usize> = ends.flat_map(|at| [at - 1, at, at + 8]).collect();
    lengths.extend([0, 8, 63, FILE_HEADER, FILE_HEADER + 8]);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

#[test]
fn a_salvaged_copy_gives_no_index_of_its_lost_tail_again() {
    for way in WAYS {
        let line = written_to(way);
        let (bytes, records) = line.records();
        for len in lengths(&records).into_iter().filter(|&len| len <= bytes.len()) {
            let mut cut_off = line.cut_off(len);
            match cut_off.go_on(Way::Salvage, 0) {
                Err(Error::NotCaskfile { .. }) if len < FILE_HEADER => continue,
                salvaged => salvaged.unwrap_or_else(|error| panic!("{way:?} of {len} bytes: {error}")),
            }
            // Two handles, a compaction and one more.
            let go_on = |line: &mut Line| {
                line.write(5)?;
                line.write(1)?;
                line.go_on(Way::Compaction, 0)?;
                line.write(5)
            };
            go_on(&mut cut_off).unwrap_or_else(|error| panic!("{way:?} of {len} bytes: {error}"));
        }
    }
}

/// A file that has lost what its root states is refused. What is not promised: a file whose root does not state it yet
/// says nothing of a whole block of sequence numbers that is lost. If it is opened instead of salvaged, it gives them
/// again. So no index of the blocks that are left comes twice.
#[test]
fn a_copy_without_its_tail_opens_above_the_blocks_that_it_has_left() {
    let (mut given_again, mut refused) = (0, 0);
    for (way, has_root) in WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
        let line = written_to(way);
        let (bytes, records) = line.records();
        let base_seq = u64::from_le_bytes(bytes[32..40].try_into().unwrap());
        for len in lengths(&records).into_iter().filter(|&len| len <= bytes.len()) {
            if len == 0 {
                // An empty file is a new store.
                continue;
            }
            let cut_off = if has_root { line.cut_off(len) } else { line.cut_off_without_root(len) };
            let what = format!("{way:?} of {len} bytes, with its root: {has_root}");
            let cask = match cut_off.open() {
                Err(Error::NotCaskfile { .. }) if len < FILE_HEADER => continue,
                Err(Error::Truncated { .. }) => {
                    refused += 1;
                    continue;
                }
                opened => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
            };
            let left = records.iter().filter(|record| record.end <= len).map(|record| record.index).max();
            let block = left.unwrap_or(0).max(base_seq) / BLOCK;
            let index = cask.atomic_put("new", "value", None).unwrap().last_index;
            assert!(index / BLOCK > block, "{what}: index {index} is in block {block}, which the file has");
            assert!(index > line.highest || !has_root, "{what}: index {index} was given again");
            given_again += usize::from(index <= line.highest);
        }
    }
    assert!(refused > 1000, "{refused}");
    assert!(given_again > 0, "no cut took a whole block, so this test does not show what is not promised");
}

#[test]
fn chains_of_copies_that_lose_their_tails_give_each_index_once() {
    for seed in 0..40 {
        let (mut dice, mut line) = (Dice::new(seed), Line::new());
        line.write(1 + dice.below(20)).unwrap();
        for generation in 0..8 {
            let run = |line: &mut Line, dice: &mut Dice| {
                let way = WAYS[dice.below(5) as usize];
                line.go_on(way, dice.below(4))?;
                for _ in 0..dice.below(3) {
                    line.write(1 + dice.below(20))?;
                }
                if dice.one_in(2) {
                    let (bytes, _) = line.records();
                    let left = FILE_HEADER as u64 + dice.below(1 + (bytes.len() - FILE_HEADER) as u64);
                    *line = line.cut_off(left as usize);
                    match line.go_on(WAYS[dice.below(4) as usize], 0) {
                        // Only salvage goes on from such a file.
                        Err(Error::Truncated { .. }) => line.go_on(Way::Salvage, 0)?,
                        made => made?,
                    }
                }
                line.write(1 + dice.below(9))
            };
            run(&mut line, &mut dice).unwrap_or_else(|error| panic!("seed {seed}, generation {generation}: {error}"));
        }
    }
}

/// A stream is written in pieces, which end anywhere in a batch.
#[test]
fn a_stream_keeps_batches_together() {
    let disk = SimDisk::new();
    disk.set_limits(Limits { copied_at_once: 100, ..LIMITS });
    let config = Config::new().durability(Durability::Os);
    let cask = Cask::open_on(Arc::new(disk.clone()), "/original", &config).unwrap();
    for n in 0..9 {
        let mut batch = Batch::new();
        for key in 0..2 + n % 4 {
            batch.put(format!("key {key}"), n.to_string());
        }
        batch.put("last", n.to_string());
        cask.write(&batch).unwrap();
    }
    let mut bytes = Vec::new();
    cask.backup_to(&mut bytes).unwrap();
    let records = records(&bytes);
    let puts = || records.iter().filter(|record| !record.key.is_empty());
    assert_eq!(puts().filter(|record| !record.more).count(), 9, "each batch ends once");
    for record in puts() {
        assert_eq!(record.key == b"\0last", !record.more, "a batch ends in its middle, at {}", record.at);
    }
}

/// A copy begins far above its original, until there is nothing above. Then it can be read, and takes no writes.
#[test]
fn copies_near_the_last_sequence_number_give_no_index_twice() {
    let step = 1 << 46;
    for way in [Way::Backup, Way::Stream, Way::CompactTo, Way::Salvage] {
        for below in [0, 1, BLOCK, 1 << 20, 1 << 21, step - 1, step, step + 1, 2 * step, 3 * step + (1 << 22)] {
            let mut line = Line::new();
            line.disk.set_contents(&line.path, FileBytes::new(MAX_SEQ - below).end());
            line.highest = MAX_SEQ - below;
            let mut is_full = false;
            for copy in 0..6 {
                match line.write(4) {
                    Ok(()) => assert!(!is_full, "{way:?}, {below} below the end, copy {copy}: it was full before"),
                    Err(Error::Full { .. }) => is_full = true,
                    // An original with this number has lost its end.
                    Err(Error::Corrupt { .. } | Error::Truncated { .. }) if copy == 0 => {}
                    Err(error) => panic!("{way:?}, {below} below the end, copy {copy}: {error}"),
                }
                match line.go_on(if copy == 0 { Way::Salvage } else { way }, copy) {
                    Ok(()) => {}
                    Err(error) => panic!("{way:?}, {below} below the end, copy {copy}: {error}"),
                }
            }
            assert!(is_full || below > 3 * step, "{way:?}: {below} below the end");
        }
    }
}
