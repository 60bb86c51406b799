//! What is done in pieces, on both sides of the size of a piece. The sizes are small here: `Limits`.

use std::sync::Arc;

use caskfile::disk::sim::{Choices, SimDisk};
use caskfile::{Batch, Cask, Config, Durability, Error, Limits, MAX_BATCH_BYTES, MAX_BATCH_OPS};

const STORE: &str = "/store";

fn open(limits: Limits) -> (SimDisk, Cask) {
    let disk = SimDisk::new();
    disk.set_limits(limits);
    let cask = reopened(&disk);
    (disk, cask)
}

fn reopened(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.process()), STORE, &Config::new().durability(Durability::Os)).unwrap()
}

/// More keys than a batch can have were removed but for the last seven: the rest was less than the marks of a block.
#[test]
fn delete_prefix_removes_every_key_of_every_piece() {
    let by_records = Limits { block_len: 16, group_records: 8, ..Limits::REAL };
    let by_bytes = Limits { deletion_bytes: 5 * 32, ..Limits::REAL };
    for limits in [by_records, by_bytes, Limits::SMALL] {
        for keys in (0..=27).chain([63, 64, 65]) {
            let (disk, cask) = open(limits);
            let other = cask.bucket("other").unwrap();
            other.put("k/0", "of another bucket").unwrap();
            cask.put("j", "before").unwrap();
            cask.put("l", "after").unwrap();
            for key in 0..keys {
                cask.put(format!("k/{key}"), "value").unwrap();
            }
            assert_eq!(cask.delete_prefix("k/").unwrap(), keys, "{keys} keys, {limits:?}");
            cask.close().unwrap();
            let cask = reopened(&disk);
            let left: Vec<_> = cask.list("").unwrap().into_iter().map(|pair| pair.key).collect();
            assert_eq!(left, [b"j", b"l"], "{keys} keys, {limits:?}");
            assert!(cask.bucket("other").unwrap().exists("k/0").unwrap());
            cask.verify().unwrap();
        }
    }
}

#[test]
fn a_batch_is_refused_exactly_above_its_limits() {
    let limits = Limits { block_len: 20, group_records: 12, batch_bytes: 12 * 40, ..Limits::REAL };
    for operations in 1..=14u64 {
        for value in [0, 14, 15, 16] {
            let (disk, cask) = open(limits);
            let mut batch = Batch::new();
            // A header, the length of the bucket's name, and the key: 26 bytes, and 32 or 40 with the value.
            for n in 0..operations {
                batch.put([b'a' + n as u8], vec![7; value]);
            }
            let bytes = operations * (26 + value as u64).next_multiple_of(8);
            let refused = match cask.write(&batch) {
                Ok(_) => None,
                Err(Error::BatchTooLarge { what, len, max }) => Some((what, len, max)),
                Err(error) => panic!("{operations} operations: {error}"),
            };
            let expected = match operations {
                13.. => Some(("operations", operations, 12)),
                _ if bytes > 12 * 40 => Some(("bytes", bytes, 12 * 40)),
                _ => None,
            };
            assert_eq!(refused, expected, "{operations} operations with values of {value}");
            let there = if expected.is_none() { operations as usize } else { 0 };
            assert_eq!(cask.list("").unwrap().len(), there);
            cask.close().unwrap();
            assert_eq!(reopened(&disk).list("").unwrap().len(), there);
        }
    }
}

/// Each batch is in one group with others or alone, and the groups of one block follow each other. A group that reached
/// into the next block would use numbers of which nothing is on stable storage.
#[test]
fn the_largest_batch_and_the_others_get_numbers_of_blocks_with_a_mark() {
    let limits = Limits { block_len: 16, group_records: 8, ..Limits::REAL };
    for first in 1..=8u64 {
        for others in 0..=9 {
            let (disk, cask) = open(limits);
            for round in 0..3 {
                let batch = |count: u64| {
                    let mut batch = Batch::new();
                    for n in 0..count {
                        batch.put(format!("{n}"), format!("{round}"));
                    }
                    batch
                };
                let batches: Vec<_> = std::iter::once(first).chain((0..others).map(|n| 1 + n % 3)).map(batch).collect();
                let indexes: Vec<_> = cask
                    .write_together(&batches)
                    .unwrap()
                    .into_iter()
                    .map(|applied| applied.unwrap().last_index().unwrap())
                    .collect();
                assert!(indexes.is_sorted_by(|one, next| one < next), "{indexes:?}");
                let bytes = disk.contents(STORE).unwrap();
                let blocks = crate::common::files::anatomy::records(&bytes);
                let marked = |block| {
                    let first = blocks.iter().find(|record| record.index / 16 == block);
                    first.is_some_and(|record| record.kind == crate::common::files::anatomy::MARK)
                };
                for index in indexes {
                    assert!(marked(index / 16), "{first} and {others}: {index} has no mark before it in its block");
                }
            }
        }
    }
}

/// A batch goes into the index in runs. Half of its keys are new, in different places of each run.
#[test]
fn each_record_of_a_long_batch_replaces_its_key() {
    let small = Limits { run_len: 3, ..Limits::REAL };
    for (limits, lengths) in [(small, vec![1, 2, 3, 4, 5, 6, 7, 20]), (Limits::REAL, vec![63, 64, 65, 127, 129, 200])] {
        for len in lengths {
            let (disk, cask) = open(limits);
            let write = |keys: &mut dyn Iterator<Item = u32>, value: &str| {
                let mut batch = Batch::new();
                for key in keys {
                    batch.put(format!("key {key:03}"), value);
                }
                cask.write(&batch).unwrap();
            };
            write(&mut (0..len).filter(|key| key % 5 < 2 || key % 7 == 0), "old");
            write(&mut (0..len), "new");
            let check = |cask: &Cask| {
                let pairs = cask.list("").unwrap();
                assert_eq!(pairs.len(), len as usize, "a batch of {len}");
                assert!(pairs.iter().all(|pair| pair.value == b"new"), "a batch of {len}");
                cask.verify().unwrap();
            };
            check(&cask);
            cask.close().unwrap();
            check(&reopened(&disk));
        }
    }
}

/// A sync of a process that died has failed, so pages that look clean have never reached the disk. The next writer writes the
/// tail again in pieces, and lets others in between.
#[test]
fn a_tail_of_many_pieces_is_on_stable_storage_after_the_next_sync() {
    for records in [1, 3, 4, 5, 8, 20, 41] {
        let (disk, cask) = open(Limits { rewritten_at_once: 128, ..Limits::REAL });
        cask.put("first", "synced").unwrap();
        cask.sync().unwrap();
        for n in 0..records {
            cask.put(format!("key {n:02}"), "value").unwrap();
        }
        disk.fail_writeback(STORE);
        cask.sync().unwrap_err();
        drop(cask);
        let other = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
        other.put("last", "synced").unwrap();
        let after = disk.reboot(&mut Choices::keep_nothing());
        let there = reopened(&after).list("").unwrap().len();
        assert_eq!(there, records + 2, "after {records} records that a sync had lost");
    }
}

/// The limits that tests make small are these.
#[test]
fn real_limits_are_what_the_interface_says() {
    assert_eq!(Limits::REAL.group_records, MAX_BATCH_OPS as u64);
    assert_eq!(Limits::REAL.block_len - Limits::REAL.group_records, 8, "room for the marks and statements of a group");
    assert_eq!((Limits::REAL.batch_bytes, Limits::REAL.deletion_bytes * 2), (MAX_BATCH_BYTES, MAX_BATCH_BYTES));
    assert_eq!(Limits::REAL.write_back_step * 64, Limits::REAL.block_len);
}
