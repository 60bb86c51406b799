//! What else may lie in a store's directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk};
use caskfile::{Cask, Config, Durability};

fn open(disk: &SimDisk, path: &str) -> Cask {
    Cask::open_on(Arc::new(disk.process()), path, &Config::default()).unwrap()
}

/// A process that opens `store` removes what killed creators and compactions have left: files that no process has locked. A
/// user's own store, not being written at that moment, is not locked either.
#[test]
fn files_that_resemble_leftovers_are_left_alone() {
    let disk = SimDisk::new();
    let names = [
        "/store.tmp-backup",
        "/store.tmp-",
        "/store.tmp-0123456789abcdef0",
        "/store.tmp-0123456789ABCDEF",
        "/store.tmp-notes",
        "/store.tmp-backup.tmp-0123456789abcdef",
        "/store.torn-0123456789abcdef",
        "/storex.tmp-0123456789abcdef",
    ];
    for name in names {
        disk.set_contents(name, b"somebody's".to_vec());
    }
    let other = open(&disk, "/store.tmp-store");
    other.put("key", "value").unwrap();
    let leftovers = ["/store.tmp-0000000000000000", "/store.tmp-0123456789abcdef"];
    for name in leftovers {
        disk.set_contents(name, b"left by a killed creator".to_vec());
    }

    let store = open(&disk, "/store");
    store.put("key", "value").unwrap();
    store.close().unwrap();

    for name in names {
        assert!(disk.contents(name).is_some(), "{name} is gone");
    }
    other.put("key", "value 2").unwrap();
    for name in leftovers {
        assert!(disk.contents(name).is_none(), "{name} was left");
    }
}

/// The lock that shows that a temporary file is abandoned is held until the file is removed: given up before, its maker
/// could take it in between, and would go on with a file that has no name.
#[test]
fn a_leftover_is_removed_under_its_own_lock() {
    let disk = SimDisk::new();
    open(&disk, "/store").close().unwrap();
    let leftover = "/store.tmp-0000000000000000";
    disk.set_contents(leftover, b"left".to_vec());
    let maker = disk.process();
    disk.before(When::next().of(Verb::Remove), Repeat::Once, move |_| {
        let file = maker.open(leftover.as_ref(), Access::ReadWrite).unwrap();
        assert!(!file.try_lock().unwrap(), "the lock was free");
    });
    open(&disk, "/store").close().unwrap();
    assert!(disk.contents(leftover).is_none());
}

/// A directory with 200,000 files took 88 ms to open a store in, where 4 are enough: it was listed.
#[test]
fn opening_and_writing_lists_no_directory() {
    let disk = SimDisk::new();
    for round in ["made", "opened"] {
        let cask = open(&disk, "/store");
        cask.put("key", round).unwrap();
        cask.backup(format!("/copy, {round}")).unwrap();
        cask.close().unwrap();
    }
    assert_eq!(disk.calls_of(Verb::List), 0);
    open(&disk, "/store").compact().unwrap();
    assert_eq!(disk.calls_of(Verb::List), 1, "compaction looks for all leftovers");
}

/// All makers of a store's files use one name. A process that cleans up finds a file there and opens it; its maker finishes,
/// and the next one takes the name. The lock of the file that was opened is free, and the name is another file's.
#[test]
fn removing_an_unfinished_file_spares_a_finished_one() {
    let disk = SimDisk::new();
    open(&disk, "/store").close().unwrap();
    let temporary = Path::new("/store.tmp-0000000000000000");
    disk.set_contents(temporary, b"finished".to_vec());
    let (cleaner, makers) = (disk.process(), disk.process());
    // The second lock that it asks for is the leftover's; the first one is the store's.
    disk.before(When::nth(2).of(Verb::TryLock).by(&cleaner), Repeat::Once, move |_| {
        makers.rename(temporary, Path::new("/another")).unwrap();
        let next = makers.create_new(temporary, 0o600).unwrap();
        assert!(next.try_lock().unwrap());
        std::mem::forget(next);
    });
    Cask::open_on(Arc::new(cleaner), "/store", &Config::default()).unwrap().close().unwrap();
    assert_eq!(disk.contents(temporary).unwrap(), b"", "the next maker's file");
    assert_eq!(disk.contents("/another").unwrap(), b"finished");
}

/// It takes the first name from a file that no lock has shown to be in use yet, and lets go of it.
#[test]
fn a_store_never_gets_the_file_of_another_maker() {
    for verb in [Verb::TryLock, Verb::WriteAt, Verb::SyncAll] {
        let disk = SimDisk::new();
        let temporary = Path::new("/store.tmp-0000000000000000");
        let (ours, others) = (disk.process(), disk.process());
        disk.before(When::next().of(verb).by(&ours), Repeat::Once, move |_| {
            others.remove(temporary).unwrap();
            let unfinished = others.create_new(temporary, 0o600).unwrap();
            assert!(unfinished.try_lock().unwrap());
            unfinished.write_at(0, b"unfinished").unwrap();
            std::mem::forget(unfinished);
        });
        let cask = Cask::open_on(Arc::new(ours), "/store", &Config::default()).unwrap();
        cask.put("key", "value").unwrap();
        assert_eq!(disk.contents(temporary).unwrap(), b"unfinished", "{verb:?}: it is its maker's to remove");
    }
}

/// Temporary names and those of kept tails are longer than the store's, which may be as long as names can be.
#[test]
fn the_longest_name_works_as_any_other() {
    let disk = SimDisk::new();
    let name = |first: &str| format!("/{first}{}", "n".repeat(254));
    let (store, copy) = (name("s"), name("c"));
    let cask = open(&disk, &store);
    cask.put("key", "value").unwrap();
    cask.compact().unwrap();
    cask.backup(&copy).unwrap();
    cask.close().unwrap();
    assert_eq!(open(&disk, &copy).get("key").unwrap().value, b"value");

    let unsynced = Config::new().durability(Durability::Os);
    let cask = Cask::open_on(Arc::new(disk.process()), &store, &unsynced).unwrap();
    cask.put("torn", "a").unwrap();
    cask.put("whole", "b").unwrap();
    // All processes are killed, and something of the last but one record is lost.
    let disk = disk.fork();
    let mut bytes = disk.contents(&store).unwrap();
    let at = bytes.windows(5).position(|window| window == b"torna").unwrap();
    bytes[at + 4] = b'x';
    disk.set_contents(&store, bytes);
    assert_eq!(open(&disk, &store).list("").unwrap().len(), 1);
    let is_kept_tail = |path: &PathBuf| path.to_string_lossy().contains(".torn-");
    assert_eq!(disk.paths().iter().filter(|path| is_kept_tail(path)).count(), 1);
}
