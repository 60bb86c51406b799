//! Handles that write in turn: what each of them leaves to the others, and what it knows of what they left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::patience::with_a_deadline;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk, SyncScope};
use caskfile::{Cask, Config, Durability, Error, LockMode, ReadMode};

const STORE: &str = "/store";

fn open(disk: &SimDisk, config: &Config) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, config).unwrap()
}

/// Space ahead of the log makes a sync cheap, so the next writer needs it again.
#[test]
fn space_cut_by_a_close_returns_with_the_next_write() {
    let disk = SimDisk::new();
    // Without a map, which would keep the other handle from making the file shorter.
    let ours = open(&disk, &Config::new().read_mode(ReadMode::Pread));
    ours.put("ours", "1").unwrap();
    let extended = disk.contents(STORE).unwrap().len();
    let theirs = open(&disk.process(), &Config::new());
    theirs.put("theirs", "1").unwrap();
    theirs.close().unwrap();
    assert!(disk.contents(STORE).unwrap().len() < extended, "a close gives back what is not needed");
    ours.put("ours", "2").unwrap();
    assert!(disk.contents(STORE).unwrap().len() >= extended);
}

/// A close syncs what it has cut, which is not for nothing.
#[test]
fn a_close_does_not_cut_a_file_without_spare_space() {
    let disk = SimDisk::new();
    open(&disk, &Config::new()).close().unwrap();
    for _ in 0..2 {
        let calls = disk.calls_of(Verb::SetLen) + disk.calls_of(Verb::SyncAll);
        open(&disk, &Config::new()).close().unwrap();
        assert_eq!(disk.calls_of(Verb::SetLen) + disk.calls_of(Verb::SyncAll), calls);
        // The same after a log that has records.
        open(&disk, &Config::new()).put("key", "value").unwrap();
    }
}

#[test]
fn space_ahead_returns_after_a_torn_write_is_cut() {
    let disk = SimDisk::new();
    let cask = open(&disk, &Config::new());
    cask.put("key", "1").unwrap();
    let extended = disk.contents(STORE).unwrap().len();
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(10), Repeat::Once);
    disk.fail(When::nth(2).of(Verb::WriteAt), Fault::Os(libc::ENOSPC), Repeat::Once);
    cask.put("key", "2").unwrap_err();
    assert_eq!(disk.contents(STORE).unwrap().len(), extended, "others may have it mapped");
    cask.put("key", "3").unwrap();
    assert_eq!(disk.contents(STORE).unwrap().len(), extended);
}

#[test]
fn a_proven_log_gets_no_second_mark() {
    let disk = SimDisk::new();
    let ours = open(&disk, &Config::new());
    ours.put("ours", "1").unwrap();
    let theirs = open(&disk.process(), &Config::new());
    theirs.put("theirs", "1").unwrap();
    theirs.close().unwrap();
    let proven = disk.contents(STORE).unwrap();
    ours.close().unwrap();
    let closed = disk.contents(STORE).unwrap();
    // The last handle to close gives the space after the log back.
    let (log, space) = proven.split_at(closed.len());
    assert_eq!(closed, log);
    assert!(space.iter().all(|&byte| byte == 0));
}

/// Without a sync a turn is so short that its next one would be over before another process has looked.
#[test]
fn a_handle_that_waited_lets_others_have_the_next_turn() {
    let config = Config::new().durability(Durability::Os);
    // The rest is so short that a thread that was put to sleep meanwhile has had it.
    let rested = (0..20).any(|_| {
        let disk = SimDisk::new();
        let cask = open(&disk, &config);
        let other = disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
        assert!(other.try_lock().unwrap());
        disk.before(When::next().of(Verb::Pause), Repeat::Once, move |_| other.unlock().unwrap());
        cask.put("key", "1").unwrap();
        let (waited, calls) = (disk.calls_of(Verb::Pause), disk.calls_of(Verb::WriteAt));
        cask.put("key", "2").unwrap();
        assert!(waited > 0 && disk.calls_of(Verb::WriteAt) > calls);
        let rested = disk.calls_of(Verb::Pause) > waited;
        let pauses = disk.calls_of(Verb::Pause);
        cask.put("key", "3").unwrap();
        assert_eq!(disk.calls_of(Verb::Pause), pauses, "no other handle was there");
        rested
    });
    assert!(rested);
}

#[test]
fn a_path_that_cannot_be_examined_means_no_replacement() {
    let disk = SimDisk::new();
    let cask = open(&disk, &Config::new());
    cask.put("key", "1").unwrap();
    disk.fail(When::next().of(Verb::Stat), Fault::Os(libc::EIO), Repeat::Once);
    let error = cask.put("key", "2").unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EIO)), "{error}");
    cask.put("key", "3").unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"3");
}

/// It has given up privileges, for example. That the file still has a name is all that it can know then.
#[test]
fn the_link_count_decides_where_the_path_is_unreadable() {
    let disk = SimDisk::new();
    let cask = open(&disk, &Config::new());
    cask.put("key", "1").unwrap();
    let other = disk.process();
    disk.fail(When::next().of(Verb::Stat), Fault::Os(libc::EACCES), Repeat::Forever);
    cask.put("key", "2").unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"2");
    other.remove(STORE.as_ref()).unwrap();
    assert!(matches!(cask.put("key", "3"), Err(Error::Replaced { .. })));
}

/// The next group would be written over the beginning of what was left, and the rest of it would lie after the log.
#[test]
fn an_open_handle_cuts_off_a_killed_writers_tail() {
    let disk = SimDisk::new();
    let ours = open(&disk, &Config::new());
    ours.put("ours", "1").unwrap();
    let killed = disk.process();
    let theirs = open(&killed, &Config::new());
    theirs.put("theirs", "1").unwrap();
    let power = killed.clone();
    disk.fail(When::next().of(Verb::WriteAt).by(&killed), Fault::Short(500), Repeat::Once);
    disk.before(When::nth(2).of(Verb::WriteAt).by(&killed), Repeat::Once, move |_| power.kill());
    theirs.put("torn", [7; 1000]).unwrap_err();
    let torn = ours.stats().unwrap().torn_bytes;
    ours.put("ours", "2").unwrap();
    let stats = ours.stats().unwrap();
    assert!(stats.torn_bytes > torn);
    assert!(disk.contents(STORE).unwrap()[stats.log_end as usize..].iter().all(|&byte| byte == 0));
    assert_eq!(ours.get("theirs").unwrap().value, b"1");
}

/// It would be a claim: what others have written is known to be on stable storage only after it was written again.
#[test]
fn a_handle_without_writes_syncs_nothing_of_others() {
    let disk = SimDisk::new();
    let theirs = open(&disk.process(), &Config::new().durability(Durability::Os));
    theirs.put("key", "value").unwrap();
    let ours = open(&disk.process(), &Config::new().durability(Durability::Interval(Duration::from_secs(3600))));
    let syncs = disk.calls_of(Verb::SyncData);
    ours.delete("absent").unwrap();
    // What an interval has left to be synced is synced now.
    ours.close().unwrap();
    assert_eq!(disk.calls_of(Verb::SyncData), syncs);
}

#[test]
fn a_call_that_gives_up_names_the_lock_holder() {
    let (disk, impatient) = (SimDisk::new(), Config::new().connection_timeout(Duration::ZERO));
    let ours = open(&disk, &impatient);
    let holder = disk.process().process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
    assert!(holder.try_lock().unwrap());
    let error = ours.put("key", "1").unwrap_err();
    assert!(matches!(error, Error::LockTimeout { holder: Some(3), .. }), "{error:?}");
    assert!(error.to_string().contains("another writer (process 3) after"), "{error}");
    // And to one that is still opening the store.
    let error = Cask::open_on(Arc::new(disk.process()), STORE, &impatient).unwrap_err();
    assert!(matches!(error, Error::LockTimeout { holder: Some(3), .. }), "{error:?}");
}

/// So much may be read under the lock by a handle that has missed much more.
const LITTLE: u64 = 64 << 10;
const MUCH: u64 = 4 << 20;

fn write_much(cask: &Cask) {
    for n in 0..MUCH / 4096 {
        cask.put(format!("{n}"), [7; 4096]).unwrap();
    }
}

/// What a process has read in all and under the lock while it did something.
fn reads(process: &SimDisk, act: impl FnOnce()) -> [u64; 2] {
    let read = || [process.bytes_read(), process.bytes_read_under_lock()];
    let before = read();
    act();
    let after = read();
    [after[0] - before[0], after[1] - before[1]]
}

/// All other writers wait for what is read under the lock: 0.7 s for a gigabyte.
#[test]
fn missed_records_are_read_before_the_lock_is_taken() {
    let Some(()) = with_a_deadline(missed_records_are_read_before_the_lock_is_taken) else { return };
    for maps in [true, false] {
        let disk = SimDisk::new();
        disk.set_maps(maps);
        let ours = open(&disk, &Config::new());
        ours.put("ours", "1").unwrap();
        let theirs = open(&disk.process(), &Config::new().durability(Durability::Os));
        std::thread::sleep(Duration::from_millis(20));
        write_much(&theirs);
        let [read, under_lock] = reads(&disk, || ours.put("ours", "2").map(drop).unwrap());
        assert!(read >= MUCH && under_lock <= LITTLE, "{under_lock} of {read} bytes");
        assert_eq!(ours.get("0").unwrap().value, [7; 4096]);
        assert_eq!(theirs.get("ours").unwrap().value, b"2");
    }
}

#[test]
fn a_compacted_file_is_read_without_a_lock() {
    let disk = SimDisk::new();
    let ours = open(&disk, &Config::new());
    let theirs = open(&disk.process(), &Config::new().durability(Durability::Os));
    write_much(&theirs);
    ours.put("ours", "1").unwrap();
    theirs.compact().unwrap();
    let [read, under_lock] = reads(&disk, || ours.put("ours", "2").map(drop).unwrap());
    assert!(read >= MUCH && under_lock <= LITTLE, "{under_lock} of {read} bytes");
    assert_eq!(theirs.get("ours").unwrap().value, b"2");
}

/// The other handle has the lock until this one, which waits for it, has read what it has missed.
#[test]
fn a_handle_reads_new_records_while_it_waits() {
    let Some(()) = with_a_deadline(a_handle_reads_new_records_while_it_waits) else { return };
    let disk = SimDisk::new();
    let ours = open(&disk, &Config::new());
    ours.put("ours", "1").unwrap();
    let theirs = open(&disk.process(), &Config::new().durability(Durability::Os).lock_mode(LockMode::Exclusive));
    let (process, before) = (disk.clone(), Mutex::new(None));
    let (writer, holder) = (theirs.clone(), theirs.clone());
    disk.before(When::next().of(Verb::Pause).by(&disk), Repeat::Forever, move |_| {
        let mut before = before.lock().unwrap();
        let before = before.get_or_insert_with(|| {
            write_much(&writer);
            process.bytes_read()
        });
        if process.bytes_read() - *before >= MUCH {
            holder.close().unwrap();
        }
    });
    let [_, under_lock] = reads(&disk, || ours.put("ours", "2").map(drop).unwrap());
    assert!(under_lock <= LITTLE, "{under_lock} bytes");
    assert_eq!(ours.get("0").unwrap().value, [7; 4096]);
}

/// The file may be changing while it is read without the lock.
#[test]
fn failures_before_the_lock_are_retried_under_it() {
    let disk = SimDisk::new();
    let ours = open(&disk, &Config::new());
    ours.put("ours", "1").unwrap();
    let theirs = open(&disk.process(), &Config::new());
    theirs.put("theirs", "1").unwrap();
    disk.fail(When::next().of(Verb::ReadAt).by(&disk), Fault::Os(libc::EIO), Repeat::Once);
    ours.put("ours", "2").unwrap();
    assert_eq!(theirs.get("ours").unwrap().value, b"2");
    theirs.compact().unwrap();
    // The first read takes in that the log has moved; the next one is of the new file.
    disk.fail(When::next().of(Verb::Open).by(&disk), Fault::Os(libc::EMFILE), Repeat::Once);
    let error = ours.put("ours", "3").unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EMFILE)), "{error}");
    ours.put("ours", "3").unwrap();
    assert_eq!(theirs.get("ours").unwrap().value, b"3");
}

/// A log of 24 MiB whose records no sync was seen to reach, and its writer.
fn unproven() -> (SimDisk, Cask) {
    let disk = SimDisk::new();
    let writer = open(&disk.process(), &Config::new().durability(Durability::Os));
    for n in 0..24 {
        writer.put(format!("unsynced-{n:02}"), vec![n; 1 << 20]).unwrap();
    }
    (disk, writer)
}

/// How many pieces this process writes in one turn at most, from now on. A piece is a megabyte.
fn longest_turn(disk: &SimDisk, process: &SimDisk) -> Arc<AtomicU64> {
    let (longest, this) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (most, count) = (Arc::clone(&longest), Arc::clone(&this));
    disk.before(When::next().of(Verb::WriteAt).by(process), Repeat::Forever, move |_| {
        most.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    });
    disk.before(When::next().of(Verb::Unlock).by(process), Repeat::Forever, move |_| this.store(0, Ordering::SeqCst));
    longest
}

/// It held the lock for all of a long log once, and then for its sync.
#[test]
fn a_first_write_resyncs_a_long_tail_in_turns() {
    for durability in [Durability::Sync, Durability::Os] {
        let (disk, writer) = unproven();
        // What was written back in vain looks clean, and is not on the disk.
        disk.fail_writeback(STORE);
        disk.open(STORE.as_ref(), Access::Read).unwrap().sync(SyncScope::Data).unwrap_err();
        let process = disk.process();
        let late = open(&process, &Config::new().durability(durability));
        let longest = longest_turn(&disk, &process);
        let between = Arc::new(AtomicU64::new(0));
        let (count, other) = (Arc::clone(&between), writer.clone());
        disk.before(When::next().of(Verb::BeginWriteBack).by(&process), Repeat::Forever, move |_| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            other.put(format!("between-{n}"), "value").unwrap();
        });
        late.put("late", "value").unwrap();
        disk.clear_hooks();
        let between = between.load(Ordering::SeqCst);
        assert!(between >= 4, "{between}");
        assert!(longest.load(Ordering::SeqCst) <= 8, "{longest:?} pieces in one turn");
        if durability == Durability::Sync {
            let after = disk.reboot(&mut Choices::keep_nothing());
            let found = open(&after, &Config::new());
            assert_eq!(found.list("").unwrap().len() as u64, 24 + between + 1);
            found.verify().unwrap();
        }
    }
}

#[test]
fn records_proven_by_another_handle_are_not_written_again() {
    let (disk, _writer) = unproven();
    let process = disk.process();
    let late = open(&process, &Config::new());
    let other = open(&disk.process(), &Config::new());
    disk.before(When::nth(2).of(Verb::TryLock).by(&process), Repeat::Once, move |_| {
        other.put("proof", "").map(drop).unwrap()
    });
    let before = disk.calls_of(Verb::BeginWriteBack);
    late.put("late", "value").unwrap();
    // One piece of this handle, and all the others of the other one.
    assert!((2..=1 + 6).contains(&(disk.calls_of(Verb::BeginWriteBack) - before)));
}

/// A process that polls with a compare-and-swap wrote all that others had appended again, each time.
#[test]
fn a_call_that_writes_nothing_writes_nothing_again() {
    for durability in [Durability::Sync, Durability::Os] {
        let (disk, writer) = unproven();
        let stale = writer.atomic_put("key", "", None).unwrap();
        writer.put("key", "newer").unwrap();
        let late = open(&disk.process(), &Config::new().durability(durability));
        // What opening does is done.
        assert!(matches!(late.atomic_put("key", "", Some(&stale)), Err(Error::KeyModified)));
        let calls = || [Verb::WriteAt, Verb::SyncData, Verb::SyncAll, Verb::SyncDir].map(|verb| disk.calls_of(verb));
        for _ in 0..3 {
            write_much(&writer);
            let before = calls();
            assert!(matches!(late.atomic_put("key", "", Some(&stale)), Err(Error::KeyModified)));
            assert!(matches!(late.atomic_put("key", "", None), Err(Error::KeyExists)));
            if durability == Durability::Os {
                late.delete("absent").unwrap();
            }
            assert_eq!(calls(), before, "{durability:?}");
        }
        late.put("late", "value").unwrap();
        writer.verify().unwrap();
    }
}

#[test]
fn a_first_write_starts_over_when_the_log_shrinks() {
    let (disk, writer) = unproven();
    let end = writer.stats().unwrap().log_end;
    let process = disk.process();
    let late = open(&process, &Config::new());
    let cutter = disk.process();
    let cut = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&cut);
    disk.before(When::nth(3).of(Verb::TryLock).by(&process), Repeat::Once, move |_| {
        // The second half of the log is damaged, and another process cuts it off and writes something else there.
        let file = cutter.open(STORE.as_ref(), Access::ReadWrite).unwrap();
        file.write_at(end / 3 + 100, &[0xee; 8]).unwrap();
        let other = open(&cutter, &Config::new().durability(Durability::Os));
        for n in 0..20 {
            other.put(format!("instead-{n}"), vec![0xdd; 1 << 20]).unwrap();
        }
        *kept.lock().unwrap() = Some(other.list("").unwrap().len());
    });
    late.put("late", "value").unwrap();
    disk.clear_hooks();
    let kept = cut.lock().unwrap().expect("it was cut");
    assert!(kept > 20 && kept < 35);
    let after = disk.reboot(&mut Choices::keep_nothing());
    let found = open(&after, &Config::new());
    assert_eq!(found.list("").unwrap().len(), kept + 1);
    found.verify().unwrap();
}
