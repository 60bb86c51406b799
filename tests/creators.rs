//! Making a store, while others make it too or clean up: between any two calls of one of them another may step in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
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

/// The file that somebody is making, under its temporary name.
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
fn of_two_creators_one_wins_and_the_other_opens_the_winners_file() {
    for verb in [Verb::CreateNew, Verb::TryLock, Verb::WriteAt, Verb::SyncAll, Verb::Link] {
        let disk = SimDisk::new();
        let cask = open_while(&disk, verb, make_with_a_pair);
        is_the_winners(&disk, &cask);
    }
}

#[test]
fn a_store_that_was_taken_for_a_leftover_before_it_had_its_name_is_made_again() {
    let disk = SimDisk::new();
    let cask = open_while(&disk, Verb::Link, |theirs| theirs.remove(&unfinished(theirs)).unwrap());
    is_whole(&disk, &cask);
}

/// Whoever cleans up locks what it removes.
#[test]
fn a_store_that_was_taken_for_a_leftover_before_it_was_locked_is_made_again() {
    let disk = SimDisk::new();
    let cask = open_while(&disk, Verb::TryLock, |theirs| {
        let file = theirs.open(&unfinished(theirs), Access::ReadWrite).unwrap();
        assert!(file.try_lock().unwrap());
        theirs.remove(&unfinished(theirs)).unwrap();
        // It is let go when nobody needs to wait for that any more.
        std::mem::forget(file);
    });
    is_whole(&disk, &cask);
}

#[test]
fn a_file_system_without_locks_or_links_is_an_error_and_not_a_race_that_was_lost() {
    refused(&SimDisk::new(), Verb::TryLock, libc::ENOLCK);
    refused(&SimDisk::new(), Verb::Link, libc::EPERM);
}

#[test]
fn of_two_who_find_an_empty_file_one_fills_it_and_the_other_opens_what_it_is_then() {
    for verb in [Verb::Len, Verb::TryLock] {
        let disk = SimDisk::new();
        disk.set_contents(STORE, Vec::new());
        let cask = open_while(&disk, verb, make_with_a_pair);
        is_the_winners(&disk, &cask);
    }
}

/// By who copies a store there, say.
#[test]
fn an_empty_file_that_is_filled_in_its_place_meanwhile_is_not_replaced() {
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
fn an_empty_file_that_is_removed_meanwhile_is_made_like_any_other() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let cask = open_while(&disk, Verb::Stat, |theirs| theirs.remove(STORE.as_ref()).unwrap());
    is_whole(&disk, &cask);
}

/// It could be a store by now.
#[test]
fn an_empty_file_of_which_nobody_can_tell_whether_it_is_still_there_is_left_alone() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    disk.fail(When::next().of(Verb::Stat), Fault::Os(libc::EACCES), Repeat::Once);
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EACCES)), "{error}");
    assert_eq!((disk.contents(STORE).unwrap(), disk.paths().len()), (Vec::new(), 1));
}

/// By something that cleans up, say. Who opens the store must not try for ever.
#[test]
fn a_store_that_is_removed_as_soon_as_it_is_made_is_an_error() {
    let disk = SimDisk::new();
    let cleaner = disk.process();
    disk.before(When::next().of(Verb::Open), Repeat::Forever, move |_| drop(cleaner.remove(STORE.as_ref())));
    let error = open(&disk).unwrap_err();
    assert!(format!("{error:#}").contains("kept disappearing"), "{error}");
}

#[test]
fn a_store_is_whole_also_if_the_disk_takes_its_header_in_parts() {
    let disk = SimDisk::new();
    disk.fail(When::next().of(Verb::WriteAt), Fault::Short(10), Repeat::Once);
    is_whole(&disk, &open(&disk).unwrap());
}
