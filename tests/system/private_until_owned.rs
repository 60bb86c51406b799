//! Which users may open the files that are made beside a store, and when.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Disk, Extended, FileAttributes, SyncScope};
use caskfile::{Cask, Config, Durability, Error, salvage_on};

const STORE: &str = "/store";

fn open(disk: &SimDisk) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap()
}

/// Gives the store to another user, with a group that may read and write it.
fn share(disk: &SimDisk) -> FileAttributes {
    let shared = FileAttributes { mode: 0o660, uid: 7, gid: 8, ..attributes(disk, STORE) };
    set_attributes(disk, &shared);
    shared
}

/// The same with an ACL, so that the group's bits are its mask, and with an attribute of the user's own.
fn share_by_acl(disk: &SimDisk) -> FileAttributes {
    let mut shared = share(disk);
    for (name, value) in [(ACL, "named user"), (c"user.note", "kept")] {
        shared.extended.insert(name.to_owned(), value.into());
    }
    set_attributes(disk, &shared);
    shared
}

const ACL: &CStr = c"system.posix_acl_access";

fn attributes(disk: &SimDisk, path: impl AsRef<Path>) -> FileAttributes {
    disk.open(path.as_ref(), Access::Read).unwrap().attributes().unwrap()
}

fn set_attributes(disk: &SimDisk, attributes: &FileAttributes) {
    let file = disk.open(STORE.as_ref(), Access::ReadWrite).unwrap();
    file.set_attributes(attributes).unwrap();
    file.sync(SyncScope::File).unwrap();
}

/// What every file beside the store was like, at every call.
fn watch(disk: &SimDisk) -> Arc<Mutex<Vec<(PathBuf, FileAttributes)>>> {
    let (seen, looking) = (Arc::<Mutex<Vec<_>>>::default(), disk.process());
    let noted = Arc::clone(&seen);
    disk.before(When::next().by(disk), Repeat::Forever, move |_| {
        for path in looking.paths().into_iter().filter(|path| path.as_os_str() != STORE) {
            let attributes = attributes(&looking, &path);
            noted.lock().unwrap().push((path, attributes));
        }
    });
    seen
}

fn assert_no_other_user_could_open(seen: &[(PathBuf, FileAttributes)], like: &FileAttributes) {
    assert!(!seen.is_empty());
    for (path, found) in seen {
        assert!(found == like || found.mode & 0o077 == 0, "{}: {found:?}", path.display());
    }
    let (path, last) = seen.last().unwrap();
    assert_eq!(last, like, "{}", path.display());
}

/// The group's permissions were given before the group was: users of the maker's own group could open the file in between,
/// and keep it open while the records were written to it.
#[test]
fn a_compacted_file_is_private_until_it_is_owned() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let shared = share(&disk);
    let seen = watch(&disk);
    cask.compact().unwrap();
    assert_no_other_user_could_open(&seen.lock().unwrap(), &shared);
}

#[test]
fn a_compacted_file_has_its_acl_before_it_opens() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let shared = share_by_acl(&disk);
    disk.set_default_acl(b"of the directory");
    let seen = watch(&disk);
    cask.compact().unwrap();
    disk.clear_hooks();
    assert_no_other_user_could_open(&seen.lock().unwrap(), &shared);
    assert_eq!(attributes(&disk, STORE), shared);
}

#[test]
fn an_acl_changed_during_a_compaction_is_kept() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let mut shared = share_by_acl(&disk);
    for change in [Some("another user"), None] {
        // Owner and mode stay what they are.
        shared.extended.remove(ACL);
        shared.extended.extend(change.map(|acl| (ACL.to_owned(), acl.into())));
        cask.compact_with(|_| {
            set_attributes(&disk.process(), &shared);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(attributes(&disk, STORE), shared);
    }
}

#[test]
fn a_store_whose_acl_cannot_be_kept_stays_uncompacted() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let shared = share_by_acl(&disk);
    disk.fail(When::next().of(Verb::SetAttributes), Fault::Os(libc::EPERM), Repeat::Once);
    let error = cask.compact().unwrap_err();
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error}");
    assert_eq!((attributes(&disk, STORE), disk.paths()), (shared, vec![STORE.into()]));
    cask.put("key", "again").unwrap();
}

/// What an ACL allows was meant for the store. A copy without it would give the mask to the owning group.
#[test]
fn copies_with_an_acl_are_private_to_their_maker() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    for key in ["first", "torn", "whole"] {
        cask.put(key, "value").unwrap();
    }
    share_by_acl(&disk);
    disk.set_default_acl(b"of the directory");
    let seen = watch(&disk);
    cask.backup("/backup").unwrap();
    cask.compact_to("/compacted").unwrap();
    salvage_on(&disk, STORE.as_ref(), "/salvaged".as_ref()).unwrap();
    damage(&disk);
    drop(open(&disk.process()));
    disk.clear_hooks();
    let made: BTreeSet<_> = disk.paths().into_iter().filter(|path| path.as_os_str() != STORE).collect();
    assert_eq!(made.len(), 4, "{made:?}");
    for path in made {
        let found = attributes(&disk, &path);
        assert_eq!((found.mode, found.extended), (0o600, Extended::new()), "{}", path.display());
    }
    assert!(seen.lock().unwrap().iter().all(|(_, found)| found.mode & 0o077 == 0));
}

#[test]
fn copies_without_an_acl_have_owner_and_mode() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    cask.put("key", "value").unwrap();
    let shared = share(&disk);
    disk.set_default_acl(b"of the directory");
    cask.backup("/backup").unwrap();
    cask.compact_to("/compacted").unwrap();
    salvage_on(&disk, STORE.as_ref(), "/salvaged".as_ref()).unwrap();
    for path in ["/backup", "/compacted", "/salvaged"] {
        assert_eq!(attributes(&disk, path), shared, "{path}");
    }
}

#[test]
fn a_filled_empty_file_keeps_its_acl_and_attributes() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let shared = share_by_acl(&disk);
    let seen = watch(&disk);
    drop(open(&disk));
    disk.clear_hooks();
    assert_no_other_user_could_open(&seen.lock().unwrap(), &shared);
    assert_eq!(attributes(&disk, STORE), shared);
}

#[test]
fn a_filled_empty_file_is_private_until_owned() {
    let disk = SimDisk::new();
    disk.set_contents(STORE, Vec::new());
    let shared = share(&disk);
    let seen = watch(&disk);
    open(&disk);
    assert_no_other_user_could_open(&seen.lock().unwrap(), &shared);
}

/// Damages a record that nothing proves, before one that is whole.
fn damage(disk: &SimDisk) {
    let mut contents = disk.contents(STORE).unwrap();
    let torn = contents.windows(4).position(|window| window == b"torn").unwrap();
    contents[torn] ^= 1;
    disk.set_contents(STORE, contents);
}

#[test]
fn a_kept_torn_tail_is_as_private_as_the_store() {
    let disk = SimDisk::new();
    let cask = open(&disk);
    for key in ["first", "torn", "whole"] {
        cask.put(key, "value").unwrap();
    }
    disk.kill();
    let disk = disk.reboot(&mut Choices::keep_all());
    let shared = share(&disk);
    damage(&disk);
    let seen = watch(&disk);
    open(&disk);
    assert_no_other_user_could_open(&seen.lock().unwrap(), &shared);
}
