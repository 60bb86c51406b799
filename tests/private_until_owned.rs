//! Who may open the files that are made beside a store, and when.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use caskfile::disk::sim::{Choices, Repeat, SimDisk, When};
use caskfile::disk::{Disk, FileStat};
use caskfile::{Cask, Config, Durability};

const STORE: &str = "/store";

fn open(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap()
}

/// Makes the store somebody else's, with a group that may read and write it.
fn share(disk: &SimDisk) -> FileStat {
    let file = disk.open(STORE.as_ref(), caskfile::disk::Access::ReadWrite).unwrap();
    let shared = FileStat { mode: 0o660, uid: 7, gid: 8, ..file.stat().unwrap() };
    file.set_owner_and_mode(&shared).unwrap();
    file.sync_all().unwrap();
    shared
}

/// What every file beside the store was like, at every call.
fn watch(disk: &SimDisk) -> Arc<Mutex<Vec<(PathBuf, FileStat)>>> {
    let (seen, looking) = (Arc::<Mutex<Vec<_>>>::default(), disk.process());
    let noted = Arc::clone(&seen);
    disk.before(When::next().by(disk), Repeat::Forever, move |_| {
        for path in looking.paths().into_iter().filter(|path| path.as_os_str() != STORE) {
            let stat = looking.stat(&path).unwrap();
            noted.lock().unwrap().push((path, stat));
        }
    });
    seen
}

fn assert_nobody_else_could_open(seen: &[(PathBuf, FileStat)], like: &FileStat) {
    assert!(!seen.is_empty());
    for (path, stat) in seen {
        let owned = (stat.uid, stat.gid) == (like.uid, like.gid);
        assert!(owned || stat.mode & 0o077 == 0, "{}: {stat:?}", path.display());
    }
    let (path, last) = seen.last().unwrap();
    assert_eq!((last.uid, last.gid, last.mode), (like.uid, like.gid, like.mode), "{}", path.display());
}

/// The group's permissions were given before the group was: whoever shares the maker's own group could open the file in
/// between, and keep it open while the records were written to it.
#[test]
fn a_compacted_file_is_its_makers_alone_until_it_has_the_stores_owner() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let shared = share(&disk);
    let seen = watch(&disk);
    cask.compact().unwrap();
    assert_nobody_else_could_open(&seen.lock().unwrap(), &shared);
}

#[test]
fn a_store_in_the_place_of_an_empty_file_is_its_makers_alone_until_it_has_that_files_owner() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let shared = share(&disk);
    let seen = watch(&disk);
    open(&disk);
    assert_nobody_else_could_open(&seen.lock().unwrap(), &shared);
}

#[test]
fn a_torn_tail_that_is_kept_is_as_private_as_the_store() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    for key in ["first", "torn", "whole"] {
        cask.put(key, "value").unwrap();
    }
    disk.kill();
    let disk = disk.reboot(&mut Choices::keep_all());
    let shared = share(&disk);
    let mut contents = disk.contents(STORE).unwrap();
    let torn = contents.windows(4).position(|window| window == b"torn").unwrap();
    contents[torn] ^= 1;
    disk.set_contents(STORE, contents);
    let seen = watch(&disk);
    open(&disk);
    assert_nobody_else_could_open(&seen.lock().unwrap(), &shared);
}
