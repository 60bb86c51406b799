//! Making a store, while others make it too or clean up: between any two calls of one of them another may step in.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Cask, Config, Error, Result};

const STORE: &str = "/store";

fn open(disk: &SimDisk) -> Result<Cask> {
    Cask::open_on(Arc::new(disk.process()), STORE, &Config::default())
}

/// Opens the store as a process into which another one steps right before its first call of this kind.
fn open_while(disk: &SimDisk, verb: Verb, other: impl Fn(&SimDisk) + Send + Sync + 'static) -> Cask {
    let (ours, theirs) = (disk.process(), disk.process());
    disk.before(When::next().of(verb).by(&ours), Repeat::Once, move |_| other(&theirs));
    let calls = disk.calls_of(verb);
    let cask = Cask::open_on(Arc::new(ours), STORE, &Config::default()).unwrap();
    assert!(disk.calls_of(verb) > calls);
    cask
}

fn make_with_a_pair(disk: &SimDisk) {
    open(disk).unwrap().put("theirs", "value").unwrap();
}

/// The unfinished file of a process, under its temporary name.
fn unfinished(disk: &SimDisk) -> PathBuf {
    disk.paths().into_iter().find(|path| path != Path::new(STORE)).expect("a store is made under another name")
}

/// Their pair is there, ours can be added, and nothing else is left in the directory.
fn is_the_winners(disk: &SimDisk, cask: &Cask) {
    assert_eq!(cask.get("theirs").unwrap().value, b"value");
    is_whole(disk, cask);
    assert_eq!(open(disk).unwrap().get("theirs").unwrap().value, b"value");
}

fn is_whole(disk: &SimDisk, cask: &Cask) {
    cask.put("ours", "value").unwrap();
    assert_eq!(open(disk).unwrap().get("ours").unwrap().value, b"value");
    assert_eq!(disk.paths(), [Path::new(STORE)]);
}

fn refused(disk: &SimDisk, verb: Verb, errno: i32) {
    disk.fail(When::next().of(verb), Fault::Os(errno), Repeat::Once);
    let error = open(disk).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(errno)), "{error}");
    assert!(disk.paths().is_empty(), "nothing is left");
    is_whole(disk, &open(disk).unwrap());
}

#[test]
fn of_two_creators_one_wins_and_the_other_follows() {
    for verb in [Verb::CreateNew, Verb::TryLock, Verb::WriteAt, Verb::SyncAll, Verb::Link] {
        let disk = SimDisk::new();
        let cask = open_while(&disk, verb, make_with_a_pair);
        is_the_winners(&disk, &cask);
    }
}

#[test]
fn a_nameless_store_taken_for_a_leftover_is_remade() {
    let disk = SimDisk::new();
    let cask = open_while(&disk, Verb::Link, |theirs| theirs.remove(&unfinished(theirs)).unwrap());
    is_whole(&disk, &cask);
}

/// A process that cleans up locks what it removes.
#[test]
fn an_unlocked_store_taken_for_a_leftover_is_remade() {
    let disk = SimDisk::new();
    let cask = open_while(&disk, Verb::TryLock, |theirs| {
        let file = theirs.open(&unfinished(theirs), Access::ReadWrite).unwrap();
        assert!(file.try_lock().unwrap());
        theirs.remove(&unfinished(theirs)).unwrap();
        // It is released when no process needs to wait for it any more.
        std::mem::forget(file);
    });
    is_whole(&disk, &cask);
}

#[test]
fn a_creation_without_locks_or_space_is_an_error() {
    refused(&SimDisk::new(), Verb::TryLock, libc::ENOLCK);
    refused(&SimDisk::new(), Verb::Link, libc::ENOSPC);
}

/// Disks as FAT, exFAT and Android have them: on the first a link is a rename that replaces nothing, and the others have
/// neither.
fn disks_without_links() -> [SimDisk; 3] {
    [None, Some(libc::EPERM), Some(libc::EACCES)].map(|refusal| {
        let disk = SimDisk::new();
        disk.set_links(false);
        if let Some(number) = refusal {
            disk.fail(When::next().of(Verb::Link), Fault::Os(number), Repeat::Forever);
        }
        disk
    })
}

#[test]
fn stores_are_made_and_copied_without_hard_links() {
    for (number, disk) in disks_without_links().into_iter().enumerate() {
        let cask = open(&disk).unwrap();
        is_whole(&disk, &cask);
        let copied = cask.backup("/copy");
        if number == 0 {
            copied.unwrap();
            let copy = Cask::open_on(Arc::new(disk.process()), "/copy", &Config::default()).unwrap();
            assert_eq!(copy.get("ours").unwrap().value, b"value");
            let error = cask.backup("/copy").unwrap_err();
            assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists), "{error}");
        } else {
            // Nothing else gives the copy its name at one moment, and only if that is free.
            let error = copied.unwrap_err();
            assert!(format!("{error:#}").contains("copy to another file system"), "{error:#}");
            assert_eq!(disk.paths(), [Path::new(STORE)]);
        }
    }
}

#[test]
fn without_hard_links_one_of_two_creators_wins() {
    for verb in [Verb::CreateNew, Verb::TryLock, Verb::WriteAt, Verb::SyncAll, Verb::Link] {
        for disk in disks_without_links() {
            let cask = open_while(&disk, verb, make_with_a_pair);
            is_the_winners(&disk, &cask);
        }
    }
}

/// After a power cut at any call, the store's path names nothing, an empty file, or a whole store.
#[test]
fn without_hard_links_no_unfinished_store_is_seen() {
    for disk in disks_without_links() {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let states = Arc::clone(&seen);
        let look = move |disk: &SimDisk| {
            let len = disk.contents(STORE).map(|contents| contents.len());
            states.lock().unwrap().insert(len);
            let found = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().read_only(true));
            assert!(found.is_ok() || len.is_none_or(|len| len == 0), "{len:?}: {:?}", found.err());
            let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new()).unwrap();
            cask.put("key", "value").unwrap();
        };
        let (ours, earlier) = (disk.process(), look.clone());
        disk.before(When::next().by(&ours), Repeat::Forever, move |disk| {
            earlier(&disk.fork());
            for seed in 0..10 {
                earlier(&disk.reboot(&mut Choices::from_seed(seed)));
            }
        });
        let cask = Cask::open_on(Arc::new(ours), STORE, &Config::new()).unwrap();
        disk.clear_hooks();
        look(&disk.reboot(&mut Choices::keep_nothing()));
        drop(cask);
        assert!(seen.lock().unwrap().contains(&None) && seen.lock().unwrap().len() > 1);
    }
}

/// A directory that may be searched and not read cannot be opened, and so not be synced or listed.
#[test]
fn data_in_an_unreadable_directory_survives_a_power_cut() {
    let disk = SimDisk::new();
    disk.fail(When::next().of_any(&[Verb::SyncDir, Verb::List]), Fault::Os(libc::EACCES), Repeat::Forever);
    let survivors = |disk: &SimDisk, path: &str| {
        let after = disk.reboot(&mut Choices::keep_nothing());
        let cask = Cask::open_on(Arc::new(after.process()), path, &Config::new().create(false)).unwrap();
        cask.list("").unwrap().into_iter().map(|pair| pair.value).collect::<Vec<_>>()
    };
    let cask = open(&disk).unwrap();
    cask.put("key", "1").unwrap();
    assert_eq!(survivors(&disk, STORE), [b"1"]);
    cask.compact().unwrap();
    cask.put("key", "2").unwrap();
    assert_eq!(survivors(&disk, STORE), [b"2"]);
    cask.backup("/copy").unwrap();
    assert_eq!(survivors(&disk, "/copy"), [b"2"]);
}

/// A map of a file that is open for reading only may be of a lower layer.
#[test]
fn a_reader_on_an_overlay_has_no_map() {
    let disk = SimDisk::new();
    disk.set_overlay(true);
    make_with_a_pair(&disk);
    let reader = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new().read_only(true)).unwrap();
    let reads = disk.calls_of(Verb::ReadAt);
    assert_eq!(reader.get("theirs").unwrap().value, b"value");
    assert!(disk.calls_of(Verb::ReadAt) > reads);
    let writer = open(&disk).unwrap();
    writer.put("theirs", "new").unwrap();
    assert_eq!(reader.get("theirs").unwrap().value, b"new");
    let reads = disk.calls_of(Verb::ReadAt);
    assert_eq!(writer.get("theirs").unwrap().value, b"new");
    assert_eq!(disk.calls_of(Verb::ReadAt), reads, "a writer's map is of the upper layer");
}

#[test]
fn a_lease_that_keeps_others_out_is_waited_for() {
    let disk = SimDisk::new();
    make_with_a_pair(&disk);
    for n in 1..=3 {
        disk.fail(When::nth(n).of(Verb::Open), Fault::Os(libc::EAGAIN), Repeat::Once);
    }
    assert_eq!(open(&disk).unwrap().get("theirs").unwrap().value, b"value");
    disk.fail(When::next().of(Verb::Open), Fault::Os(libc::EAGAIN), Repeat::Once);
    caskfile::verify_on(&disk, Path::new(STORE)).unwrap();

    disk.fail(When::next().of(Verb::Open), Fault::Os(libc::EAGAIN), Repeat::Forever);
    let impatient = Config::new().connection_timeout(Some(std::time::Duration::ZERO));
    let error = Cask::open_on(Arc::new(disk.process()), STORE, &impatient).unwrap_err();
    assert!(
        matches!(&error, Error::Io { operation: "open", source, .. } if source.kind() == ErrorKind::WouldBlock),
        "{error}"
    );
}

#[test]
fn of_two_processes_one_fills_the_empty_file() {
    for verb in [Verb::Len, Verb::TryLock] {
        let disk = SimDisk::new();
        disk.set_contents(STORE, Vec::new());
        let cask = open_while(&disk, verb, make_with_a_pair);
        is_the_winners(&disk, &cask);
    }
}

/// For example by a process that copies a store there.
#[test]
fn an_empty_file_filled_in_place_is_not_replaced() {
    let copied = SimDisk::new();
    make_with_a_pair(&copied);
    let bytes = copied.contents(STORE).unwrap();
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let cask = open_while(&disk, Verb::TryLock, move |theirs| {
        let file = theirs.open(STORE.as_ref(), Access::ReadWrite).unwrap();
        assert_eq!(file.write_at(0, &bytes).unwrap(), bytes.len());
    });
    is_the_winners(&disk, &cask);
}

#[test]
fn an_empty_file_removed_meanwhile_is_made_normally() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let cask = open_while(&disk, Verb::Stat, |theirs| theirs.remove(STORE.as_ref()).unwrap());
    is_whole(&disk, &cask);
}

/// It could be a store by now.
#[test]
fn an_empty_file_in_doubt_is_left_alone() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    disk.fail(When::next().of(Verb::Stat), Fault::Os(libc::EACCES), Repeat::Once);
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EACCES)), "{error}");
    assert_eq!((disk.contents(STORE).unwrap(), disk.paths().len()), (Vec::new(), 1));
}

/// For example by a program that cleans up. The opening process must not try for ever.
#[test]
fn a_store_removed_right_after_its_creation_is_an_error() {
    let disk = SimDisk::new();
    let cleaner = disk.process();
    disk.before(When::next().of(Verb::Open), Repeat::Forever, move |_| drop(cleaner.remove(STORE.as_ref())));
    let error = open(&disk).unwrap_err();
    assert!(format!("{error:#}").contains("kept disappearing"), "{error}");
}

#[test]
fn a_header_written_in_parts_makes_a_whole_store() {
    let disk = SimDisk::new();
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(10), Repeat::Once);
    is_whole(&disk, &open(&disk).unwrap());
}
