//! Tests of numbering, rewriting, appending and write-back, on the simulated disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::outcome::{Failure, Outcome};
use super::request::{Action, Condition, Request};
use super::writer::{Phase, Rewritten, Writer};
use crate::config::{Durability, LockMode, ReadMode};
use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use crate::disk::{Access, Disk};
use crate::engine::Engine;
use crate::format::{
    Ancillary, FileHeader, Flags, Kind, MAX_FILE_LEN, MAX_SEQ, MAX_SEQ_STEP, RecordHeader, block_of, block_start,
};
use crate::limits::Limits;
use crate::log::LogFile;
use crate::log::scan::{Reason, Scanner};
use crate::log::testing::{self, Draft, MARK, SYNCED};
use crate::sync::lock;
use crate::{Config, Error};

const WRITE_BACK_STEP: u64 = Limits::REAL.write_back_step();

fn open(disk: &SimDisk, durability: Durability) -> Engine {
    let config = Config::new().durability(durability);
    Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap()
}

fn puts(count: usize) -> Request<'static> {
    let mut request = Request::default();
    (0..count).for_each(|n| request.push(format!("\0{n}").as_bytes(), Action::Put(b"value")));
    request
}

/// Commits as a handle that has used all sequence numbers up to `used`.
fn commit_above(engine: &Engine, used: u64, request: Request) -> Outcome {
    let outcomes = engine.writing.solo(engine.context.deadline(), |turn| {
        turn.writer.highest_used_seq = used;
        Ok(turn.commit(&[request]))
    });
    outcomes.unwrap().pop().unwrap()
}

fn records(engine: &Engine) -> Vec<RecordHeader> {
    let log =
        LogFile::open(Arc::clone(&engine.reading.current().unwrap().reader.log.file), &engine.context.path).unwrap();
    let mut records = Vec::new();
    let stop = Scanner::from_start(&log).unwrap().walk(|unit| {
        records.extend(unit.entries.iter().map(|entry| entry.header));
        Ok(())
    });
    assert_eq!(stop.unwrap().reason, Reason::EndMark);
    records
}

fn is(record: &RecordHeader, kind: Ancillary) -> bool {
    record.kind == Kind::Ancillary(kind)
}

#[test]
fn a_group_without_room_in_its_block_begins_after_the_mark_of_the_next() {
    for others in [false, true] {
        for left in 0..8 {
            let disk = SimDisk::new();
            let ours = open(&disk, Durability::Sync);
            ours.commit(puts(1)).unwrap();
            if others {
                // So this handle states what it has synced in a separate record.
                let theirs = open(&disk.process(), Durability::Os);
                theirs.commit(puts(1)).unwrap();
                ours.commit(puts(1)).unwrap();
                theirs.commit(puts(1)).unwrap();
            }
            let before = records(&ours);
            let block = block_of(before.last().unwrap().seq);
            let used = block_start(block + 1) - 1 - left;
            let last_index = commit_above(&ours, used, puts(3)).unwrap().last_index.unwrap();

            let records = records(&ours);
            let group = &records[before.len()..];
            assert_eq!(group.last().unwrap().seq, last_index);
            let statements = group.iter().filter(|record| is(record, Ancillary::SyncedTo)).count() as u64;
            // Three puts and a statement.
            let fits = left > 3;
            assert_eq!(block_of(last_index), if fits { block } else { block + 1 }, "{left} left");
            assert_eq!(group[0].seq, if fits { used + 1 } else { block_start(block + 1) });
            assert_eq!(statements, u64::from(others && fits), "a mark is synced, so there is nothing to state");
            assert_eq!(is(&group[0], Ancillary::Mark), !fits);
            assert!(group.iter().zip(group[0].seq..).all(|(record, seq)| record.seq == seq));
        }
    }
}

#[test]
fn a_synced_position_is_stated_once() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Os);
    for _ in 0..3 {
        engine.commit(puts(1)).unwrap();
    }
    let records = records(&engine);
    assert!(records[1].flags.synced && !records[2].flags.synced);
    assert!(!records.iter().any(|record| is(record, Ancillary::SyncedTo)));
}

#[test]
fn without_syncs_write_back_begins_after_each_step_of_numbers() {
    for durability in [Durability::Os, Durability::Interval(Duration::MAX), Durability::Sync] {
        let disk = SimDisk::new();
        let engine = open(&disk, durability);
        let first = engine.commit(puts(1)).unwrap().last_index.unwrap();
        let calls = || disk.calls_of(Verb::BeginWriteBack);
        for step in 1..4 {
            let next = block_start(block_of(first)) + step * WRITE_BACK_STEP;
            let before = calls();
            commit_above(&engine, next - 2, puts(1)).unwrap();
            assert_eq!(calls(), before, "{durability:?}: a step ends only with {next}");
            assert_eq!(engine.commit(puts(1)).unwrap().last_index, Some(next));
            engine.commit(puts(1)).unwrap();
            assert_eq!(calls() - before, u64::from(durability != Durability::Sync), "{durability:?}");
        }
    }
}

#[test]
fn write_backs_adjoin_and_leave_out_the_page_of_the_logs_end() {
    let mut writer = Writer::default();
    let page = Limits::REAL.largest_page();
    writer.set_written_back(&Limits::REAL, 1000);
    let mut due = |steps, more, end| {
        (writer.highest_used_seq, writer.log_end) = (steps * WRITE_BACK_STEP + more, end);
        writer.due_write_back(&Limits::REAL)
    };
    assert_eq!(due(0, WRITE_BACK_STEP - 1, 5 * page), None);
    assert_eq!(due(1, 0, 5 * page + 8), Some(1000..5 * page));
    assert_eq!(due(1, 1, 7 * page), None);
    assert_eq!(due(3, 7, 9 * page - 8), Some(5 * page..8 * page));
    assert!(due(4, 0, 3 * page).unwrap().is_empty(), "the log was cut");
    assert_eq!(due(5, 0, 10 * page), Some(3 * page..10 * page));
}

/// The kernel may report that error only once.
#[test]
fn a_failed_write_back_poisons_the_handle_as_a_failed_sync_does() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Os);
    let first = engine.commit(puts(1)).unwrap().last_index.unwrap();
    disk.fail(When::next().of(Verb::BeginWriteBack), Fault::Os(libc::EIO), Repeat::Once);
    let used = block_start(block_of(first)) + WRITE_BACK_STEP;
    for outcome in [commit_above(&engine, used, puts(1)), engine.commit(puts(1))] {
        let error = outcome.unwrap_err().error();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    }
    assert_eq!(records(&engine).last().unwrap().seq, used + 1, "the first is in the file, and in doubt");
}

/// Other processes may have seen the records that were cut off.
#[test]
fn after_a_cut_the_next_number_is_in_a_new_block() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    let before = records(&engine);
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(10), Repeat::Once);
    disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
    engine.commit(puts(1)).unwrap_err();
    assert_eq!(records(&engine).len(), before.len());
    let next = engine.commit(puts(1)).unwrap().last_index.unwrap();
    assert_eq!(block_of(next), block_of(before.last().unwrap().seq) + 1);
    assert!(is(&records(&engine)[before.len()], Ancillary::Mark));
}

/// The log is as proven as before, and no reader has seen the numbers of the failed write.
#[test]
fn a_failed_write_that_left_nothing_does_not_affect_the_next() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    let before = records(&engine);
    disk.fail(When::next().of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
    engine.commit(puts(1)).unwrap_err();
    let syncs = disk.calls_of(Verb::SyncData);
    let next = engine.commit(puts(1)).unwrap().last_index.unwrap();
    assert_eq!(disk.calls_of(Verb::SyncData), syncs + 1);
    assert_eq!(block_of(next), block_of(before.last().unwrap().seq));
    assert_eq!(records(&engine).len(), before.len() + 1, "there is no mark");
}

/// A disk need not write the parts of a group in order.
#[test]
fn the_end_of_a_failed_write_is_cut_off_even_without_its_beginning() {
    let disk = SimDisk::new();
    let (ours, system) = (disk.process(), disk.process());
    let engine = open(&ours, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    let end = engine.reading.current().unwrap().tail.end;
    disk.fail(When::next().of(Verb::WriteAt).by(&ours), Fault::Os(libc::EIO), Repeat::Once);
    disk.before(When::next().of(Verb::WriteAt).by(&ours), Repeat::Once, move |_| {
        let file = system.open("/store".as_ref(), Access::ReadWrite).unwrap();
        file.write_at(end + 16, &[7; 16]).unwrap();
    });
    engine.commit(puts(1)).unwrap_err();
    assert!(disk.contents("/store").unwrap()[end as usize..].iter().all(|&byte| byte == 0));
}

#[test]
fn after_the_last_sequence_number_writes_are_refused() {
    let last_block = block_of(MAX_SEQ);
    for left in 0..8 {
        let disk = SimDisk::new();
        // The closing mark has the last number before the last three blocks.
        let base_seq = block_start(last_block - 2) - 2;
        let header = FileHeader { base_seq, ..testing::header() };
        let mut draft = Draft { bytes: header.encode().to_vec(), seq: base_seq };
        draft.push(SYNCED, MARK, b"", b"");
        disk.set_contents("/store", [&draft.bytes[..], &[0; 8]].concat());
        let engine = open(&disk, Durability::Sync);
        engine.commit(puts(1)).unwrap();
        // The last block has its mark.
        commit_above(&engine, block_start(last_block) - 1, puts(1)).unwrap();
        let before = records(&engine).len();
        let outcome = commit_above(&engine, MAX_SEQ - left, puts(3));
        let records = records(&engine);
        if left > 3 {
            assert_eq!(outcome.unwrap().last_index, Some(MAX_SEQ - left + 3));
        } else {
            let error = outcome.unwrap_err().error();
            assert!(matches!(error, Error::Full { .. }), "{error}");
            assert_eq!(records.len(), before);
        }
        drop(engine);
        let other = open(&disk.process(), Durability::Sync);
        let error = other.commit(puts(1)).unwrap_err().error();
        assert!(matches!(error, Error::Full { .. }), "there is no block above: {error}");
        assert_eq!(self::records(&other).len(), records.len());
    }
}

#[test]
fn no_record_is_written_whose_number_readers_would_refuse() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    let before = records(&engine);
    let last = before.last().unwrap().seq;
    for used in [last + MAX_SEQ_STEP, MAX_SEQ / 2] {
        let error = commit_above(&engine, used, puts(1)).unwrap_err().error();
        assert!(matches!(error, Error::Full { .. }), "{used}: {error}");
        assert_eq!(records(&engine).len(), before.len());
    }
    // The mark gets the highest number that readers accept.
    let next = commit_above(&engine, last + MAX_SEQ_STEP - 1, puts(1)).unwrap().last_index;
    assert_eq!(next, Some(last + MAX_SEQ_STEP + 1));
    assert_eq!(records(&engine).last().unwrap().seq, last + MAX_SEQ_STEP + 1);
}

#[test]
fn the_readme_states_the_largest_batch() {
    assert!(include_str!("../../../README.md").contains("up to 1,048,568 operations"));
    assert_eq!(Limits::REAL.group_records(), 1_048_568);
}

#[test]
fn no_group_is_written_beyond_the_longest_file() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    let before = records(&engine).len();
    let error = engine.writing.solo(engine.context.deadline(), |turn| {
        turn.writer.group.reset(turn.log.seed, MAX_FILE_LEN - 8);
        turn.writer.group.push(Flags::NONE, Kind::Put, 1, b"\0key", b"value");
        turn.write_group()
    });
    assert!(matches!(error, Err(Error::Full { .. })));
    assert_eq!(records(&engine).len(), before);
}

/// The check before the write finds what a record replaces in the log. It cannot find what an earlier record of the same
/// batch puts.
#[test]
fn a_batch_replaces_its_own_records_too() {
    for is_listed in [false, true] {
        let disk = SimDisk::new();
        let engine = open(&disk, Durability::Os);
        let batch = |ops: &[(&[u8], Action<&[u8]>)]| {
            let mut request = Request::default();
            ops.iter().for_each(|&(key, action)| request.push(key, action));
            engine.commit(request).unwrap().last_index.unwrap()
        };
        batch(&[(b"\0old", Action::Put(b"1")), (b"\0gone", Action::Put(b"a longer value"))]);
        if is_listed {
            drop(engine.reading.scan(b"\0", b"").unwrap());
        }
        let last = batch(&[
            (b"\0old", Action::Put(b"22")),
            (b"\0old", Action::Put(b"333")),
            (b"\0gone", Action::Delete),
            (b"\0new", Action::Put(b"4444")),
            (b"\0new", Action::Delete),
            (b"\0new", Action::Put(b"55555")),
        ]);
        // Compares keys, live bytes and the sorted index with those of a new walk over the file.
        engine.maintenance.verify().unwrap();
        let view = engine.reading.current().unwrap();
        let seq = |key: &[u8]| view.find(key).unwrap().map(|position| view.reader.header(position).unwrap().seq);
        assert_eq!((seq(b"\0old"), seq(b"\0gone"), seq(b"\0new")), (Some(last - 4), None, Some(last)));
        assert_eq!(view.index().len(), 2);
    }
}

/// A file system in a network may give the lock to another process while this one holds it.
#[test]
fn a_write_after_a_lost_lock_overwrites_nothing() {
    let disk = SimDisk::new();
    let (engine, other) = (open(&disk, Durability::Os), open(&disk.process(), Durability::Os));
    engine.commit(puts(1)).unwrap();
    let outcome = engine.writing.solo(engine.context.deadline(), |turn| {
        turn.log.file.unlock().unwrap();
        other.commit(puts(3)).unwrap();
        // A reader of this handle has seen them, so the place for the next group is known to be taken.
        let last = engine.reading.current()?.find(b"\x002")?;
        assert!(last.is_some());
        Ok(turn.commit(&[puts(2)]).pop().unwrap())
    });
    let failure = outcome.unwrap().unwrap_err().error();
    assert!(matches!(failure, Error::Poisoned { .. }), "{failure}");
    let third = open(&disk.process(), Durability::Os);
    assert_eq!(third.reading.current().unwrap().index().len(), 3);
}

fn delete_absent() -> Request<'static> {
    let mut request = Request::default();
    request.push(b"\0absent", Action::Delete);
    request
}

/// Only records that are in the file, and may not stay there, make a handle useless.
#[test]
fn a_failed_call_that_wrote_nothing_leaves_the_handle_usable() {
    let disk = SimDisk::new();
    open(&disk, Durability::Sync).close().unwrap();
    let engine = open(&disk.process(), Durability::Sync);
    disk.fail(When::next().of(Verb::SyncDir), Fault::Os(libc::EIO), Repeat::Once);
    let failure = engine.commit(delete_absent()).unwrap_err().error();
    assert!(matches!(failure, Error::Io { .. }), "{failure}");
    engine.commit(puts(1)).unwrap();
}

#[test]
fn calls_that_change_nothing_sync_the_name_once_and_write_nothing() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    engine.close().unwrap();
    let engine = open(&disk.process(), Durability::Sync);
    let calls = || [Verb::WriteAt, Verb::SyncData, Verb::SyncAll, Verb::SyncDir].map(|verb| disk.calls_of(verb));
    let before = calls();
    for _ in 0..3 {
        engine.commit(delete_absent()).unwrap();
    }
    assert_eq!(calls(), [before[0], before[1], before[2], before[3] + 1]);
}

/// The path may name an old copy now, or another store.
#[test]
fn a_handle_reopened_on_an_old_copy_goes_on_with_its_numbers() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    let first = engine.commit(puts(1)).unwrap().last_index.unwrap();
    let copy = disk.contents("/store").unwrap();
    commit_above(&engine, MAX_SEQ_STEP - 1, puts(1)).unwrap();
    disk.set_contents("/store", copy);
    engine.writing.reopen().unwrap();
    let next = engine.commit(puts(1)).unwrap().last_index.unwrap();
    assert_eq!(block_of(next), block_of(first) + 1);
}

/// What the group knows of its own writes must go with a request that fails in the middle.
#[test]
fn a_group_never_creates_the_key_that_it_just_put() {
    let disk = SimDisk::new();
    let config = Config::new().durability(Durability::Os).read_mode(ReadMode::Pread);
    let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
    engine.commit(puts(1)).unwrap();
    let request = |actions: &[(&[u8], Action<&[u8]>)]| {
        let mut request = Request::default();
        actions.iter().for_each(|&(key, action)| request.push(key, action));
        request
    };
    let failing = request(&[(b"\0new", Action::Put(b"value")), (b"\x000", Action::Delete)]);
    let put = request(&[(b"\0key", Action::Put(b"value"))]);
    let mut create = Request::default();
    create.push_if(b"\0key", Some(Condition::Absent), Action::Put(b"value"));
    let outcomes = engine.writing.solo(engine.context.deadline(), |turn| {
        disk.fail(When::next().of(Verb::ReadAt), Fault::Os(libc::EIO), Repeat::Once);
        Ok(turn.commit(&[failing, put, create]))
    });
    let outcomes: Vec<_> = outcomes.unwrap().into_iter().map(|outcome| outcome.map_err(Failure::error)).collect();
    let [Err(Error::Io { .. }), Ok(_), Err(Error::KeyExists)] = &outcomes[..] else { panic!("{outcomes:?}") };
}

/// What a handle knows of one reading of the log must not count in the next: a part of a tail that is taken for rewritten, or for
/// written back, would be acknowledged without ever being synced.
#[test]
fn a_writer_that_starts_over_keeps_only_its_lock_and_its_numbers() {
    let disk = SimDisk::new();
    let engine = open(&disk, Durability::Sync);
    engine.commit(puts(1)).unwrap();
    let mut writer = lock(&engine.writing.writer);
    writer.locked = Some(Arc::clone(&engine.reading.shown().unwrap().reader.log));
    writer.phase = Phase::BlockReserved;
    writer.rewritten = Rewritten { to: 1000, checked: 500, checked_after: 7 };
    writer.identity_checked = Some(engine.context.clock.now());
    (writer.log_end, writer.highest_used_seq) = (2000, 3 * WRITE_BACK_STEP);
    writer.set_written_back(&Limits::REAL, 1500);
    writer.start_over(9);
    assert_eq!((writer.epoch, writer.phase), (9, Phase::Read));
    let Rewritten { to, checked, checked_after } = writer.rewritten;
    assert_eq!((to, checked, checked_after), (0, 0, 0));
    assert!(writer.identity_checked.is_none(), "the path may name another file");
    assert_eq!(writer.log_end, 0, "the file's length is not known");
    assert!(writer.locked.is_some());
    assert_eq!(writer.highest_used_seq, 3 * WRITE_BACK_STEP);
    writer.log_end = 1 << 20;
    assert_eq!(writer.due_write_back(&Limits::REAL), Some(0..1 << 20));
}

/// Between two turns of a handle that keeps the lock, no other process writes. Something else may.
#[test]
fn a_handle_that_keeps_the_lock_looks_once_a_second_for_what_was_written_without_it() {
    for durability in [Durability::Os, Durability::Sync] {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        let config = Config::new().durability(durability).lock_mode(LockMode::Exclusive);
        let engine = Engine::open(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
        engine.commit(puts(1)).unwrap();
        let looks_after = |time| {
            clock.advance(time);
            let end = engine.reading.current().unwrap().tail.end;
            let file = disk.process().open(Path::new("/store"), Access::ReadWrite).unwrap();
            file.write_at(end, &[7; 24]).unwrap();
            engine.commit(puts(1)).unwrap();
            // What lies there is no record, and is cut off where it is seen.
            engine.context.counters.torn_bytes.swap(0, Ordering::Relaxed) > 0
        };
        let is_synced = durability == Durability::Sync;
        let times = [Duration::ZERO, Duration::from_millis(999), Duration::from_millis(1), Duration::ZERO];
        assert_eq!(times.map(looks_after), [is_synced, is_synced, true, is_synced], "{durability:?}");
    }
}
