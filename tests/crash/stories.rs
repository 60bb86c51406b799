//! Sequences of events that have gone wrong once, or were made to.

use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config, Durability, Error};

use crate::common::ops::{Copying, Filler, Kept, Op, Place, Value};
use crate::life::{STORE, Weather};
use crate::plan::{Calls, Failure, Step, batch, call, close, open, put};
use crate::storm::check;

/// A power cut had left the first eight bytes of a mark and the file's old length. A reader remembered them as
/// unfinished, as far as the file went; recovery then wrote the very same mark in their place, and made the file
/// longer, and the reader went on to compare the eight bytes with themselves.
#[test]
fn a_reader_notices_a_record_finished_at_the_files_end() {
    let disk = SimDisk::new();
    let config = Config::new().durability(Durability::Os).connection_timeout(Duration::ZERO);
    let open = |config: &Config| Cask::open_on(Arc::new(disk.process()), "/store", config).unwrap();
    open(&config).close().unwrap();
    let empty = disk.contents("/store").unwrap();
    let writer = open(&config);
    writer.put("key", "value").unwrap();
    let full = disk.contents("/store").unwrap();
    let log_end = writer.stats().unwrap().log_end as usize;
    drop(writer);
    for kept in empty.len()..log_end + 8 {
        disk.set_contents("/store", full[..kept].to_vec());
        let reader = open(&config.clone().read_only(true));
        let at_first = reader.list("").unwrap();
        disk.set_contents("/store", full.clone());
        assert_eq!(reader.list("").unwrap().len(), 1, "{kept} bytes were there at first, with {at_first:?}");
        reader.verify().unwrap();
    }
}

/// A process dies in the middle of a batch, and the one that is to cut off what it left dies in the middle of that,
/// at any call. A third, which has looked at the log's end long ago, writes a batch of the same shape; then the power
/// goes. What was cut off must not come back as a part of the new batch.
#[test]
fn a_cut_begun_by_a_dead_process_does_not_return() {
    // With this first length, each record of the batches fills a sector of its own.
    let (sectors, first, len, written) = (&[64], 64, 38, 150);
    let weather = Weather { outcomes: 0, lives: 1, exhaustive: Some(500), sectors, ..Weather::CALM };
    for (at, calls) in [(1, Calls::Writes), (1, Calls::Lengths), (1, Calls::Syncs), (2, Calls::Writes)] {
        let steps = [
            Step::Calm(open(0, Kept::Os)),
            Step::Calm(put(0, first)),
            Step::Calm(open(1, Kept::Os)),
            Step::Calm(put(1, 24)),
            Step::Calm(put(0, 24)),
            Step::Calm(call(0, Op::Sync)),
            Step::Kill { at: 1, calls: Calls::Writes, written, during: batch(1, len) },
            Step::Kill { at, calls, written: 8, during: open(2, Kept::Os) },
            Step::Calm(batch(0, len)),
        ];
        check(|_| {}, &steps, 0, 1, weather);
    }
}

/// Where a synced log passes certain places, zeros are written after it first. They are no more than the sparse rest of
/// the file was, whatever becomes of them.
#[test]
fn zeros_ahead_of_the_log_change_no_recovery() {
    let piece = 128 << 10;
    for before in [100, 150, 240] {
        let mut steps = vec![Step::Calm(open(0, Kept::Sync)), Step::Calm(put(0, piece - before))];
        steps.extend([put(0, 24), batch(0, 24), put(0, 24)].map(Step::Calm));
        let weather = Weather { sectors: &[4096], one_in: 2, ..EVERY_CALL };
        check(|_| {}, &steps, 3, 1, weather);
    }
}

/// A mark ended the log, the only record of its index block: the put after it, which others had read, was lost in a power
/// cut. The next writer, which begins with the mark's own bytes, wrote zeros ahead from there, and was killed before it
/// wrote anything else. Nothing of the block was left, so its indexes were handed out once more, and a compare-and-swap
/// with the pair that had been read found its index again.
#[test]
fn a_death_after_the_end_mark_keeps_the_index_block() {
    let open = |disk: &SimDisk, durability| {
        let process = disk.process();
        let config = Config::new().durability(durability).connection_timeout(Duration::ZERO);
        (Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap(), process)
    };
    let (piece, log_start, record) = (128 << 10, 216, 24);
    // The mark begins so far before the end of the piece, and the next one reaches beyond it.
    let before = record + 8;
    let disk = SimDisk::new();
    let (first, process) = open(&disk, Durability::Os);
    first.put("filler", vec![7; piece - before - log_start - record - record - 1 - "filler".len()]).unwrap();
    assert_eq!(first.stats().unwrap().log_end as usize, piece - before);
    process.kill();
    let (second, process) = open(&disk, Durability::Os);
    second.put("key", "seen, and lost").unwrap();
    let seen = second.get("key").unwrap();
    process.kill();
    let disk = disk.reboot(&mut Choices::keep_nothing());
    for nth in 1..5 {
        let disk = disk.fork();
        let (third, process) = open(&disk, Durability::Sync);
        assert_eq!(third.stats().unwrap().log_end as usize, piece - before + record);
        disk.fail(When::nth(nth).of(Verb::WriteAt).by(&process), Fault::Kill(0), Repeat::Once);
        let _ = third.put("other", "value");
        process.kill();
        let (fourth, _) = open(&disk, Durability::Sync);
        fourth.put("key", "new").unwrap();
        let swapped = fourth.atomic_put("key", "swapped", Some(&seen));
        assert!(matches!(swapped, Err(Error::KeyModified)), "killed in write {nth}: {swapped:?}");
    }
}

/// The weather in which every call is survived or not.
const EVERY_CALL: Weather = Weather { outcomes: 4, lives: 2, ..Weather::CALM };

#[test]
fn creation_cut_short_leaves_a_store_or_nothing() {
    let steps = [Step::Calm(open(0, Kept::Sync)), Step::Calm(put(0, 24)), Step::Calm(close(0))];
    let weather = Weather { exhaustive: Some(400), sectors: &[512], ..EVERY_CALL };
    check(|_| {}, &steps, 3, 1, weather);
}

#[test]
fn an_empty_file_becomes_a_store_or_stays_empty() {
    let steps = [Step::Calm(open(0, Kept::Os)), Step::Calm(put(0, 24)), Step::Calm(call(0, Op::Sync))];
    let weather = Weather { exhaustive: Some(400), sectors: &[512], ..EVERY_CALL };
    check(|disk| disk.set_contents(STORE, Vec::new()), &steps, 3, 1, weather);
}

#[test]
fn of_two_creators_neither_loses_what_is_durable() {
    for at in 1..24 {
        let steps = [
            Step::Between { at, during: open(0, Kept::Sync), other: open(1, Kept::Os) },
            Step::Calm(put(1, 24)),
            Step::Calm(put(0, 24)),
        ];
        check(|_| {}, &steps, 3, 1, Weather { one_in: 4, ..EVERY_CALL });
    }
}

#[test]
fn a_compaction_cut_short_at_any_call_loses_nothing() {
    for compactor in [0, 1] {
        let steps = [
            Step::Calm(open(0, Kept::Sync)),
            Step::Calm(batch(0, 24)),
            Step::Calm(open(1, Kept::Os)),
            Step::Calm(batch(1, 40)),
            Step::Calm(put(1, 700)),
            Step::Calm(call(compactor, Op::Compact)),
            Step::Calm(put(1 - compactor, 24)),
            Step::Calm(put(compactor, 24)),
        ];
        check(|_| {}, &steps, 3, 2, EVERY_CALL);
    }
}

/// The log says that it has moved, and it has not: its compactor died before the rename.
#[test]
fn others_go_on_after_a_compactor_is_killed() {
    for at in 1..48 {
        let steps = [
            Step::Calm(open(0, Kept::Sync)),
            Step::Calm(open(1, Kept::Os)),
            Step::Calm(put(0, 24)),
            Step::Calm(put(1, 24)),
            Step::Kill { at, calls: Calls::Any, written: 40, during: call(0, Op::Compact) },
            Step::Calm(put(1, 24)),
            Step::Calm(open(0, Kept::Sync)),
            Step::Calm(put(0, 24)),
        ];
        check(|_| {}, &steps, 3, 1, Weather { one_in: 8, ..EVERY_CALL });
    }
}

/// After a failed sync the kernel holds pages that look clean and never reached the disk. A handle that is opened
/// then reads them, and what it acknowledges must not rest on them.
#[test]
fn data_acknowledged_after_anothers_failed_sync_survives() {
    for failing in [put(0, 24), put(0, 5000), batch(0, 600), call(0, Op::Sync), close(0), call(0, Op::Compact)] {
        for at in 1..4 {
            for (acknowledging, lost) in [(put(2, 24), 0), (call(2, Op::Sync), 0), (close(2), 1)] {
                let steps = [
                    Step::Calm(open(0, Kept::Sync)),
                    Step::Calm(put(0, 24)),
                    Step::Calm(open(1, Kept::Os)),
                    Step::Calm(put(1, 24)),
                    Step::Fail {
                        at,
                        calls: Calls::Syncs,
                        failure: Failure::InputOutput,
                        forever: false,
                        during: failing.clone(),
                    },
                    Step::Calm(open(2, Kept::Sync)),
                    Step::Calm(acknowledging.clone()),
                    Step::CachesDropped,
                    Step::Calm(put(1, 24)),
                ];
                check(|_| {}, &steps, 3 - lost, 1, Weather { one_in: 4, ..EVERY_CALL });
            }
        }
    }
}

const COPYING: [Copying; 3] = [Copying::Backup, Copying::CompactTo, Copying::Salvage];

/// Another process writes, compacts or cuts between any two calls of one that makes a copy.
#[test]
fn a_copy_is_of_one_moment_beside_other_writers() {
    let others = [put(1, 24), put(1, 70_000), batch(1, 600), call(1, Op::Compact), call(1, Op::CompactUntil(0))];
    for (number, copying) in COPYING.into_iter().enumerate() {
        for at in (1 + number..40).step_by(3) {
            let other = others[(at + number) % others.len()].clone();
            let steps = [
                Step::Calm(batch(0, 300)),
                Step::Calm(put(1, 24)),
                Step::Between { at: at as u8, during: call(0, Op::Copy(copying)), other },
                Step::Calm(put(0, 24)),
                Step::Calm(call(0, Op::Copy(copying))),
            ];
            check(|_| {}, &steps, 3, 1, Weather { one_in: 16, ..EVERY_CALL });
        }
    }
}

/// What a copy that was broken off has left is no copy, and does not keep the next one from being made.
#[test]
fn a_copy_cut_short_is_complete_or_absent() {
    for copying in COPYING {
        let copy = || call(0, Op::Copy(copying));
        for at in (1..40).step_by(2) {
            let cut_short = [
                Step::Kill { at, calls: Calls::Any, written: 40, during: copy() },
                Step::Fail {
                    at,
                    calls: Calls::Any,
                    failure: Failure::InputOutput,
                    forever: at % 4 == 1,
                    during: copy(),
                },
            ];
            for cut_short in cut_short {
                let steps = [
                    Step::Calm(put(0, 24)),
                    Step::Calm(put(1, 24)),
                    cut_short,
                    Step::Calm(put(1, 24)),
                    Step::Calm(copy()),
                ];
                check(|_| {}, &steps, 3, 1, Weather { one_in: 16, ..EVERY_CALL });
            }
        }
    }
}

/// A failed write has poisoned the handle, and its file is then opened again: it goes on, and what it acknowledges
/// rests on nothing that only the cache has.
#[test]
fn what_a_reopened_handle_acknowledges_survives_a_lost_cache() {
    for failing in [put(0, 24), batch(0, 600), call(0, Op::Sync), call(0, Op::Compact)] {
        for calls in [Calls::Syncs, Calls::Writes, Calls::Lengths] {
            for at in 1..4 {
                let failure = Failure::InputOutput;
                for (acknowledging, lost) in [(put(0, 24), 0), (call(0, Op::Sync), 0), (close(0), 1)] {
                    let steps = [
                        Step::Calm(open(0, Kept::Sync)),
                        Step::Calm(put(0, 24)),
                        Step::Calm(open(1, Kept::Os)),
                        Step::Calm(put(1, 24)),
                        Step::Fail { at, calls, failure, forever: false, during: failing.clone() },
                        Step::Calm(call(0, Op::Reopen)),
                        Step::Calm(put(0, 30)),
                        Step::Calm(acknowledging),
                        Step::CachesDropped,
                        Step::Calm(put(1, 24)),
                    ];
                    check(|_| {}, &steps, 3 - lost, 1, Weather { one_in: 8, ..EVERY_CALL });
                }
            }
        }
    }
}

/// What was written, and could not be synced, may be read all the same; then another process deletes it. The store is as
/// it was before, and it is so by a change that came later.
#[test]
fn a_state_that_comes_back_counts_as_new() {
    let place = Place { bucket: 0, key: 2 };
    let during = call(0, Op::Put(place, Value { len: 24, filler: Filler::Noise }));
    let steps = [
        Step::Calm(open(0, Kept::Sync)),
        Step::Calm(open(1, Kept::Sync)),
        // The first sync of a handle is not that of its write.
        Step::Calm(put(1, 24)),
        Step::Calm(put(0, 24)),
        Step::Fail { at: 1, calls: Calls::Syncs, failure: Failure::InputOutput, forever: false, during },
        Step::Calm(call(1, Op::Delete(place))),
    ];
    check(|_| {}, &steps, 2, 32, EVERY_CALL);
}
