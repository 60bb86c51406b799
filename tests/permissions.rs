//! Who may do what: files and directories that may not be read or written, modes and owners, names that are links.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use caskfile::{Cask, Config, Error, LockMode, ReadMode};

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/refusal.rs"]
mod refusal;

use common::TempDir;
use process::{Process, arguments, drop_privileges, open_to_all, say};
use refusal::{Unchanged, every_config, io_kind, refused, says, store_with};

// Files that may not be written.

/// Runs a test's other role in a process without privileges, which file modes apply to.
fn without_privileges(test: &str, directory: &TempDir) {
    open_to_all(directory.path());
    Process::start(test, &[directory.path().to_str().unwrap()]).succeed();
}

#[test]
fn a_file_that_may_only_be_read_can_be_read() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let unchanged = Unchanged::from_now_on(&path);
        without_privileges("a_file_that_may_only_be_read_can_be_read", &directory);
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
        without_privileges("a_file_that_may_not_be_read_is_refused", &directory);
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
fn in_a_directory_that_may_not_be_written_a_store_can_be_used_but_not_made_or_compacted() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let closed = directory.path();
        fs::set_permissions(closed, Permissions::from_mode(0o555)).unwrap();
        let name = "in_a_directory_that_may_not_be_written_a_store_can_be_used_but_not_made_or_compacted";
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
fn on_a_read_only_file_system_a_store_can_be_read() {
    let Some(arguments) = arguments() else {
        let name = "on_a_read_only_file_system_a_store_can_be_read";
        let directory = TempDir::new();
        let Some(mut other) = Process::start_with_own_mounts(name, &[directory.path().to_str().unwrap()]) else {
            return;
        };
        while let Some(said) = other.hear() {
            println!("{name}: skipped, {said}");
        }
        return other.succeed();
    };
    let directory = Path::new(&arguments[0]);
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
        let cask = Cask::open_with(&path, &Config::new().read_only(true).reads(reads)).unwrap();
        assert_eq!(cask.get("key").unwrap().value, b"value");
        cask.verify().unwrap();
        cask.close().unwrap();
    }
}
