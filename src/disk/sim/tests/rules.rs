//! The rules between processes: each is broken once, and noticed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::*;
use crate::disk::SyncScope;
use crate::disk::sim::{Fault, Repeat, Verb, When};

/// Returns what the panic of `act` says.
fn noticed(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("a rule is broken, and nothing notices");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// Two processes that have the same file open. The first has its lock.
fn two() -> [(SimDisk, Arc<dyn DiskFile>); 2] {
    let (disk, _) = disk_with(b"");
    let both = [disk.process(), disk.process()].map(|process| (process.clone(), open(&process)));
    assert!(both[0].1.try_lock().unwrap() && !both[1].1.try_lock().unwrap());
    assert_eq!([&both[0].0, &both[1].0].map(SimDisk::locks), [vec![PathBuf::from(STORE)], vec![]]);
    both
}

/// The rules ask only processes that take locks.
fn has_locked_before((disk, file): &(SimDisk, Arc<dyn DiskFile>), owner: &dyn DiskFile) {
    owner.unlock().unwrap();
    assert!(file.try_lock().unwrap());
    file.unlock().unwrap();
    assert!(disk.locks().is_empty() && owner.try_lock().unwrap());
}

#[test]
fn a_change_without_the_lock_is_noticed() {
    type Change = fn(&dyn DiskFile);
    let changes: [(Change, &str); 3] = [
        (|file| drop(file.write_at(0, b"x")), "writes, without the lock, /store"),
        (|file| drop(file.set_len(8)), "changes the length, without the lock, /store"),
        (|file| drop(file.punch(0..8)), "punches a hole, without the lock, /store"),
    ];
    for (change, expected) in changes {
        let [owner, other] = two();
        change(&*owner.1);
        has_locked_before(&other, &*owner.1);
        let message = noticed(|| change(&*other.1));
        assert!(message.ends_with(expected), "{message}");
        assert_eq!(noticed(|| drop(owner.1.len())), message, "every later call says so");

        let [owner, _] = two();
        owner.1.unlock().unwrap();
        assert!(noticed(|| change(&*owner.1)).ends_with(expected));
    }
}

#[test]
fn a_file_is_damaged_by_a_process_that_takes_no_lock() {
    let [owner, other] = two();
    other.1.write_at(0, b"damage").unwrap();
    let another = open(&owner.0);
    another.write_at(0, b"by a description that stands for the one with the lock").unwrap();
}

#[test]
fn two_syncs_at_once_of_one_description_are_noticed() {
    let [(disk, file), other] = two();
    let (inner, elsewhere) = (Arc::clone(&file), Arc::clone(&other.1));
    disk.before(When::nth(1).of(Verb::SyncData).by(&disk), Repeat::Once, move |_| {
        elsewhere.sync(SyncScope::Data).unwrap();
        let message = noticed(|| drop(inner.sync(SyncScope::File)));
        assert!(message.contains("another sync of the same description is under way"), "{message}");
    });
    noticed(|| drop(file.sync(SyncScope::Data)));
}

#[test]
fn syncs_without_the_lock_are_counted() {
    let [(disk, file), _] = two();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(disk.syncs_without_lock(), 0);
    file.unlock().unwrap();
    file.sync(SyncScope::Data).unwrap();
    assert_eq!(disk.syncs_without_lock(), 1);
}

#[test]
fn a_description_whose_sync_failed_is_used_no_more() {
    let failed = || {
        let [(disk, file), _] = two();
        disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
        file.sync(SyncScope::Data).unwrap_err();
        file
    };
    let message = noticed(|| drop(failed().sync(SyncScope::Data)));
    assert!(message.contains("syncs once more, after a sync that failed"), "{message}");
    let file = failed();
    file.write_at(0, b"by a thread that was at it already").unwrap();
    file.try_lock().unwrap();
    let message = noticed(|| drop(file.write_at(0, b"x")));
    assert!(message.contains("a turn that began after a failed sync"), "{message}");
}

#[test]
fn a_name_that_is_given_away_without_the_lock_is_noticed() {
    let new = "/store.new".as_ref();
    let [owner, other] = two();
    has_locked_before(&other, &*owner.1);
    let unlocked = other.0.create_new(new, 0o600).unwrap();
    assert!(unlocked.try_lock().unwrap());
    let message = noticed(|| drop(other.0.rename(new, STORE.as_ref())));
    assert!(message.contains("renames a file, without the lock, over /store"), "{message}");

    type Give = fn(&SimDisk, &Path, &Path) -> std::io::Result<()>;
    for (give, does) in [(SimDisk::rename as Give, "renames"), (SimDisk::link, "links")] {
        let [owner, _] = two();
        let file = owner.0.create_new(new, 0o600).unwrap();
        assert!(file.try_lock().unwrap());
        owner.0.rename(new, STORE.as_ref()).unwrap();
        file.unlock().unwrap();
        let message = noticed(|| drop(give(&owner.0, STORE.as_ref(), "/other".as_ref())));
        assert!(message.ends_with(&format!("{does}, without its lock, /store")), "{message}");
    }

    let [owner, other] = two();
    has_locked_before(&other, &*owner.1);
    let message = noticed(|| drop(other.0.remove(STORE.as_ref())));
    assert!(message.contains("removes the name of a file that another process has locked"), "{message}");
}

#[test]
fn open_files_and_locks_are_those_of_one_process() {
    let [(disk, file), (other, _kept)] = two();
    assert_eq!([disk.open_files(), other.open_files()], [1, 1]);
    let second = open(&disk);
    assert_eq!([disk.open_files(), other.open_files()], [2, 1]);
    drop((file, second));
    assert_eq!([disk.open_files(), other.open_files()], [0, 1]);
    assert!(disk.locks().is_empty(), "a lock goes with its description");
}
