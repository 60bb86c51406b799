//! What users may do: files and directories that may not be read or written, modes and owners, names that are links.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use caskfile::disk::{Access, Disk, FileAttributes, RealDisk};
use caskfile::{Cask, Config, Error, LockMode, ReadMode};

use crate::common::TempDir;
use crate::common::process::{Process, arguments, drop_privileges, in_own_mounts, open_to_all, say, this_test};
use crate::common::refusal::{Unchanged, every_config, io_kind, refused, says, store_with};

// Files that may not be written.

/// Runs a test's other role in a process without privileges, which file modes apply to.
fn without_privileges(test: &str, directory: &TempDir) {
    open_to_all(directory.path());
    Process::start(test, &[directory.path().to_str().unwrap()]).succeed();
}

#[test]
fn a_read_only_file_can_be_read() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        without_privileges(this_test!(), &directory);
        return unchanged.check();
    };
    drop_privileges();
    let path = Path::new(&arguments[0]).join("store");
    let error = refused(Cask::open(&path));
    assert_eq!(io_kind(&error), ErrorKind::PermissionDenied);
    says(&error, &path, &["open"]);
    let cask = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"value");
    assert_eq!(cask.list("").unwrap().len(), 1);
    cask.verify().unwrap();
    for error in [refused(cask.put("key", "")), refused(cask.compact()), refused(cask.sync())] {
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
        says(&error, &path, &["read-only"]);
    }
    cask.close().unwrap();
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::create_dir(directory.join("closed")).unwrap();
        store_with(&directory.join("closed/store"), &[("key", "value")]);
        fs::set_permissions(directory.join("closed"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        without_privileges(this_test!(), &directory);
        return fs::set_permissions(directory.join("closed"), Permissions::from_mode(0o700)).unwrap();
    };
    drop_privileges();
    for path in ["store", "closed/store", "closed/new"].map(|name| Path::new(&arguments[0]).join(name)) {
        for config in every_config() {
            let error = refused(Cask::open_with(&path, &config));
            assert_eq!(io_kind(&error), ErrorKind::PermissionDenied, "{error}");
            says(&error, &path, &[]);
        }
    }
}

#[test]
fn without_directory_permission_a_store_works_but_cannot_compact() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let closed = directory.path();
        fs::set_permissions(closed, Permissions::from_mode(0o555)).unwrap();
        let name = this_test!();
        Process::start(name, &[closed.to_str().unwrap()]).succeed();
        return fs::set_permissions(closed, Permissions::from_mode(0o755)).unwrap();
    };
    drop_privileges();
    let directory = Path::new(&arguments[0]);
    let error = refused(Cask::open(directory.join("new")));
    assert_eq!(io_kind(&error), ErrorKind::PermissionDenied);
    says(&error, &directory.join("new"), &["create"]);
    let cask = Cask::open(directory.join("store")).unwrap();
    cask.put("key", "changed").unwrap();
    let error = refused(cask.compact());
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
    says(&error, &directory.join("store"), &["directory", "may write to the directory"]);
    cask.put("key", "changed again").unwrap();
    cask.close().unwrap();
    assert_eq!(Cask::open(directory.join("store")).unwrap().get("key").unwrap().value, b"changed again");
}

#[test]
fn a_store_on_a_read_only_file_system_is_readable() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "caskfile-test"]).arg(directory).status().unwrap().success()
    };
    if !mount("size=4m") {
        return say("mount is not allowed");
    }
    let (path, empty) = (directory.join("store"), directory.join("empty"));
    store_with(&path, &[("key", "value")]);
    File::create(&empty).unwrap();
    assert!(mount("remount,ro,size=4m"));
    for config in [Config::new(), Config::new().create(false), Config::new().lock_mode(LockMode::Exclusive)] {
        let error = refused(Cask::open_with(&path, &config));
        assert_eq!(io_kind(&error), ErrorKind::ReadOnlyFilesystem);
        says(&error, &path, &["open"]);
    }
    for path in [directory.join("new"), empty] {
        let error = refused(Cask::open(&path));
        assert_eq!(io_kind(&error), ErrorKind::ReadOnlyFilesystem);
        says(&error, &path, &[]);
    }
    for reads in [ReadMode::Map, ReadMode::Pread] {
        let cask = Cask::open_with(&path, &Config::new().read_only(true).read_mode(reads)).unwrap();
        assert_eq!(cask.get("key").unwrap().value, b"value");
        cask.verify().unwrap();
        cask.close().unwrap();
    }
}

// Access control lists.

const ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// An ACL with which a named user may read and write and the owning group may not, as Linux takes it: the version, then
/// tag, permissions and id of each entry.
fn named_user_only() -> Vec<u8> {
    const ALL: u32 = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [(1u16, 6u16, ALL), (2, 6, 4321), (4, 0, ALL), (0x10, 6, ALL), (0x20, 0, ALL)] {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn attributes(path: &Path) -> FileAttributes {
    RealDisk.open(path, Access::Read).unwrap().attributes().unwrap()
}

/// Whether the file system of the tests has ACLs and attributes of users.
fn is_set(set: std::io::Result<()>) -> bool {
    match set {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            println!("skipped: this file system has no such attributes ({error})");
            false
        }
        set => {
            set.unwrap();
            true
        }
    }
}

#[must_use]
fn set_attributes(path: &Path, extended: &[(&CStr, &[u8])]) -> bool {
    let file = RealDisk.open(path, Access::ReadWrite).unwrap();
    let mut attributes = FileAttributes { mode: 0o660, ..file.attributes().unwrap() };
    attributes.extended.extend(extended.iter().map(|&(name, value)| (name.to_owned(), value.to_vec())));
    is_set(file.set_attributes(&attributes))
}

/// Gives a directory an ACL that its new files get.
#[must_use]
fn set_default_acl(directory: &Path) -> bool {
    let (path, acl) = (CString::new(directory.as_os_str().as_bytes()).unwrap(), named_user_only());
    // SAFETY: both strings end with a zero byte, and `acl` has the length given; all outlive the call.
    let set = unsafe { libc::setxattr(path.as_ptr(), DEFAULT_ACL.as_ptr(), acl.as_ptr().cast(), acl.len(), 0) };
    is_set(if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) })
}

/// A compacted file without the ACL gave its mask, which is what `stat` shows, to the owning group.
#[test]
fn compaction_and_filling_keep_an_acl_and_attributes() {
    let directory = TempDir::new();
    let path = directory.join("store");
    fs::write(&path, "").unwrap();
    if !set_attributes(&path, &[(ACL, &named_user_only()), (c"user.note", b"kept")]) {
        return;
    }
    let before = attributes(&path);
    assert_eq!(before.extended.len(), 2, "{before:?}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660, "the mask");

    let cask = Cask::open(&path).unwrap();
    assert_eq!(attributes(&path), before);
    cask.put("key", "value").unwrap();
    for _ in 0..2 {
        let inode = fs::metadata(&path).unwrap().ino();
        cask.compact().unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(attributes(&path), before);
    }
}

#[test]
fn copies_with_an_acl_allow_the_group_nothing() {
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("key", "value")]);
    if !set_attributes(&path, &[(ACL, &named_user_only())]) || !set_default_acl(directory.path()) {
        return;
    }
    let cask = Cask::open(&path).unwrap();
    let copies = ["backup", "compacted", "salvaged"].map(|name| directory.join(name));
    cask.backup(&copies[0]).unwrap();
    cask.compact_to(&copies[1]).unwrap();
    caskfile::salvage(&path, &copies[2]).unwrap();
    for copy in copies {
        let found = attributes(&copy);
        assert_eq!((found.mode, found.has_acl()), (0o600, false), "{}", copy.display());
    }
}

#[test]
fn a_directorys_default_acl_adds_nothing() {
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("key", "value")]);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    if !set_default_acl(directory.path()) {
        return;
    }
    let cask = Cask::open(&path).unwrap();
    cask.compact().unwrap();
    cask.backup(directory.join("backup")).unwrap();
    for path in [path, directory.join("backup")] {
        let found = attributes(&path);
        assert_eq!((found.mode, found.has_acl()), (0o640, false), "{}", path.display());
    }
}
