//! Closing, and what is left to be done then.

use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::{Choices, Repeat, SimDisk, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Cask, Config, Durability, Error, LockMode};

use crate::common::process::{in_own_process, this_test};

const STORE: &str = "/store";

fn open(disk: &SimDisk, config: &Config) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, config).unwrap()
}

/// The lock cannot be had, so nothing is tidied up. But with the handle its background thread ends, and what that has
/// not synced yet stays unsynced. (Half of the longest interval, added to now, is no moment that can be expressed.)
#[test]
fn closing_syncs_an_interval_even_without_the_lock() {
    for interval in [Duration::from_secs(3600), Duration::MAX] {
        let config = Config::new().durability(Durability::Interval(interval)).connection_timeout(Duration::ZERO);
        let disk = SimDisk::new();
        let cask = open(&disk, &config);
        cask.put("key", "value").unwrap();
        let other = disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
        assert!(other.try_lock().unwrap());
        cask.close().unwrap();

        let found = open(&disk.reboot(&mut Choices::keep_nothing()), &Config::new());
        assert_eq!(found.get("key").unwrap().value, b"value");
    }
}

#[test]
fn a_bucket_of_a_closed_store_is_closed() {
    let disk = SimDisk::new();
    let cask = open(&disk, &Config::new());
    let bucket = cask.bucket("bucket").unwrap();
    cask.close().unwrap();
    assert!(matches!(bucket.get("key"), Err(Error::Closed)));
    assert!(matches!(cask.bucket("bucket"), Err(Error::Closed)));
}

/// A forked child has its parent's handle, and none of the parent's threads: it must not wait for the one that syncs,
/// and must give up neither the lock nor anything else that is the parent's.
#[test]
fn a_forked_child_closes_without_harm_to_its_parent() {
    // In a process without other tests: a forked child holds their locks, too, as long as it lives.
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let config =
        Config::new().durability(Durability::Interval(Duration::from_secs(3600))).lock_mode(LockMode::Exclusive);
    let cask = Cask::open_with(&path, &config).unwrap();
    cask.put("key", "parent's").unwrap();

    // SAFETY: the child calls nothing but the store's methods and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the alarm ends a child that hangs.
        unsafe { libc::alarm(30) };
        let refused = matches!(cask.put("key", "child's"), Err(Error::Forked { .. }));
        let unread = matches!(cask.get("key"), Err(Error::Forked { .. }));
        let closed = cask.close().is_ok() && matches!(cask.get("key"), Err(Error::Closed));
        drop(cask);
        // SAFETY: ends this process without running what the parent will run.
        unsafe { libc::_exit(i32::from(!(refused && unread && closed))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child above, and writes its status to a variable of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    let other = Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO));
    assert!(matches!(other, Err(Error::LockTimeout { .. })), "the lock is the parent's still");
    cask.put("key", "parent's again").unwrap();
    cask.close().unwrap();
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"parent's again");
}

/// One process writes without syncing, another one only opens the store and closes it. At every call the power may be
/// cut, and some of what was not synced be lost while what was written after it is there: a crash, and no damage, since
/// no handle may have stated that it was synced.
#[test]
fn no_handle_claims_what_was_not_synced() {
    let disk = SimDisk::new();
    let hasty = Config::new().durability(Durability::Os);
    let writer = open(&disk.process(), &hasty);
    writer.put("first", "is synced with the handle's own block").unwrap();
    disk.before(When::next(), Repeat::Forever, |disk| {
        for seed in 0..12 {
            let found = disk.reboot(&mut Choices::from_seed(seed));
            if let Err(error) = Cask::open_on(Arc::new(found), STORE, &Config::new()) {
                panic!("after a power cut that keeps what {seed} says: {error}");
            }
        }
    });
    for value in [1u8, 2, 3] {
        writer.put("key", vec![value; 700]).unwrap();
    }
    open(&disk.process(), &Config::new()).close().unwrap();
    writer.put("key", vec![4; 700]).unwrap();
    writer.close().unwrap();
}
