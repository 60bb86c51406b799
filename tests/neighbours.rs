//! What else may lie in a store's directory.

use std::sync::Arc;

use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config};

fn open(disk: &SimDisk, path: &str) -> Cask {
    Cask::open_on(Arc::new(disk.process()), path, &Config::default()).unwrap()
}

/// Who opens `store` removes what killed creators and compactions have left: files that nobody holds the lock of. A
/// store of somebody's own, not being written at that moment, is not locked either.
#[test]
fn opening_a_store_leaves_files_alone_whose_names_only_resemble_a_leftovers() {
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
    disk.set_contents("/store.tmp-0123456789abcdef", b"left by a killed creator".to_vec());

    let store = open(&disk, "/store");
    store.put("key", "value").unwrap();
    store.close().unwrap();

    for name in names {
        assert!(disk.contents(name).is_some(), "{name} is gone");
    }
    other.put("key", "value 2").unwrap();
    assert!(disk.contents("/store.tmp-0123456789abcdef").is_none(), "a leftover was left");
}

/// The lock that shows that a temporary file is abandoned is held until the file is removed: given up before, its maker
/// could take it in between, and would go on with a file that has no name.
#[test]
fn a_leftover_is_removed_under_its_own_lock() {
    let disk = SimDisk::new();
    open(&disk, "/store").close().unwrap();
    let leftover = "/store.tmp-0123456789abcdef";
    disk.set_contents(leftover, b"left".to_vec());
    let maker = disk.process();
    disk.before(When::next().of(Verb::Remove), Repeat::Once, move |_| {
        use caskfile::disk::{Access, Disk};
        let file = maker.open(leftover.as_ref(), Access::ReadWrite).unwrap();
        assert!(!file.try_lock().unwrap(), "the lock was free");
    });
    open(&disk, "/store").close().unwrap();
    assert!(disk.contents(leftover).is_none());
}
