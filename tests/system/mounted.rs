//! A store at a path that a mount of this one file leads to, as a container has it that was given a single file.
//!
//! Such a path goes on leading to the same file when another one takes the file's name. So one side can compact, and the
//! other one is left with a file that has no name any more.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Cask, CompactionPolicy, Config, Durability, Error, LockMode, ReadMode, Result};

use crate::common::names;
use crate::common::patience::with_a_deadline;
use crate::common::process::{in_own_mounts, say, this_test};
use crate::common::refusal::{Unchanged, io_kind, refused, says};

const HOST: &str = "/host";
const MOUNT: &str = "/mount";

/// Opens a store on the simulated disk in a process of its own.
fn open(disk: &SimDisk, path: &str, config: &Config) -> Result<Cask> {
    Cask::open_on(Arc::new(disk.process()), path, config)
}

/// A disk with a store at [`HOST`] that is mounted at [`MOUNT`] too.
fn mounted() -> SimDisk {
    let disk = SimDisk::new();
    let cask = open(&disk, HOST, &Config::new()).unwrap();
    cask.put("key", "value").unwrap();
    cask.close().unwrap();
    disk.bind(HOST, MOUNT);
    disk
}

#[track_caller]
fn expect_replaced<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = refused(outcome);
    assert!(matches!(error, Error::Replaced { .. }), "{error:?}");
}

#[test]
fn after_the_others_compaction_the_mount_is_unusable() {
    for visible in [true, false] {
        for durability in [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_secs(3600))] {
            let disk = mounted();
            disk.set_mount_points(visible);
            let host = open(&disk, HOST, &Config::new()).unwrap();
            let config = Config::new().durability(durability);
            let writer = open(&disk, MOUNT, &config).unwrap();
            let reader = open(&disk, MOUNT, &Config::new().read_only(true)).unwrap();
            writer.put("key", "through the mount").unwrap();
            let pair = host.get("key").unwrap();
            host.compact().unwrap();
            for _ in 0..2 {
                expect_replaced(writer.put("key", "lost"));
                expect_replaced(writer.atomic_put("key", "lost", Some(&pair)));
                expect_replaced(writer.sync());
                expect_replaced(writer.compact());
                for handle in [&writer, &reader] {
                    expect_replaced(handle.get("key"));
                    expect_replaced(handle.list(""));
                    expect_replaced(handle.stats());
                }
                // What has the path is the old file still.
                expect_replaced(writer.reopen());
                expect_replaced(reader.reopen());
                expect_replaced(open(&disk, MOUNT, &config));
                expect_replaced(open(&disk, MOUNT, &Config::new().read_only(true)));
            }
            host.atomic_put("key", "one wins", Some(&pair)).unwrap();
            // A process that has mounted the new file goes on.
            disk.bind(HOST, MOUNT);
            writer.reopen().unwrap();
            assert_eq!(writer.get("key").unwrap().value, b"one wins");
            writer.put("key", "both").unwrap();
            assert_eq!(host.get("key").unwrap().value, b"both");
        }
    }
}

#[test]
fn a_syncing_handle_writes_nothing_to_a_removed_mount() {
    let disk = mounted();
    let through_mount = open(&disk, MOUNT, &Config::new()).unwrap();
    through_mount.put("key", "value").unwrap();
    let calls = disk.calls_of(Verb::Stat);
    through_mount.put("key", "value").unwrap();
    assert_eq!(disk.calls_of(Verb::Stat) - calls, 1, "one question for identity and links");
    disk.remove(HOST.as_ref()).unwrap();
    expect_replaced(through_mount.put("key", "lost"));
    expect_replaced(open(&disk, MOUNT, &Config::new()));
}

/// The kernel takes the old file's last link first, and then lets the path lead to the new file.
#[test]
fn a_file_whose_links_just_vanished_is_no_error() {
    let disk = mounted();
    disk.set_mount_points(false);
    let host = open(&disk, HOST, &Config::new()).unwrap();
    let reader = open(&disk, MOUNT, &Config::new().read_only(true)).unwrap();
    reader.get("key").unwrap();
    host.compact().unwrap();
    host.put("key", "in the new file").unwrap();
    disk.before(When::next().of(Verb::Pause), Repeat::Once, |disk| disk.bind(HOST, MOUNT));
    assert_eq!(reader.get("key").unwrap().value, b"in the new file");
}

#[test]
fn compaction_at_a_mount_is_refused_before_copying() {
    let disk = mounted();
    let cask = open(&disk, MOUNT, &Config::new()).unwrap();
    let calls = disk.calls_of(Verb::CreateNew);
    for _ in 0..2 {
        let error = refused(cask.compact());
        assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
        says(&error, MOUNT.as_ref(), &["mounted by itself", "mount its directory instead"]);
    }
    assert_eq!(disk.calls_of(Verb::CreateNew), calls);
    cask.put("key", "goes on").unwrap();
    open(&disk, HOST, &Config::new()).unwrap().compact().expect("its path is no mount");
}

#[test]
fn without_mount_data_a_refused_rename_refuses_compaction() {
    let disk = mounted();
    disk.set_mount_points(false);
    let cask = open(&disk, MOUNT, &Config::new()).unwrap();
    let host = open(&disk, HOST, &Config::new()).unwrap();
    let error = refused(cask.compact());
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
    says(&error, MOUNT.as_ref(), &["mounted by itself"]);
    // The log has a `MOVED` that means nothing.
    assert_eq!(host.get("key").unwrap().value, b"value");
    cask.put("key", "goes on").unwrap();
    assert_eq!(host.get("key").unwrap().value, b"goes on");
    assert_eq!(disk.paths(), [Path::new(HOST)], "the new file is removed");
}

#[test]
fn a_refused_automatic_compaction_is_counted_and_copies_nothing() {
    let Some(()) = with_a_deadline(a_refused_automatic_compaction_is_counted_and_copies_nothing) else { return };
    let disk = mounted();
    let often = CompactionPolicy::Automatic { dead_percent: 1, min_dead_bytes: 1 };
    let config = Config::new().durability(Durability::Os).compaction(often);
    let cask = open(&disk, MOUNT, &config).unwrap();
    let calls = disk.calls_of(Verb::CreateNew);
    while cask.stats().unwrap().failed_compactions == 0 {
        cask.put("key", [0; 1000]).unwrap();
        thread::yield_now();
    }
    let stats = cask.stats().unwrap();
    assert_eq!((stats.failed_compactions, stats.compactions), (1, 0));
    assert_eq!(disk.calls_of(Verb::CreateNew), calls);
    // The next attempt is an hour away.
    for _ in 0..100 {
        cask.put("key", [0; 1000]).unwrap();
    }
    assert_eq!(cask.stats().unwrap().failed_compactions, 1);
}

#[test]
fn a_mounted_empty_file_is_refused_and_stays_empty() {
    for visible in [true, false] {
        let disk = SimDisk::new();
        disk.set_contents(HOST, Vec::new());
        disk.bind(HOST, MOUNT);
        disk.set_mount_points(visible);
        let error = refused(open(&disk, MOUNT, &Config::new()));
        assert_eq!(io_kind(&error), ErrorKind::ResourceBusy);
        says(&error, MOUNT.as_ref(), &["mounted by itself", "mount its directory instead", "make the store before"]);
        assert_eq!((disk.contents(HOST).unwrap(), disk.paths().len()), (Vec::new(), 1));
    }
}

#[test]
fn a_real_mount_behaves_as_the_simulated_one() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    let (host, mount) = (directory.join("host"), directory.join("mount"));
    let bind =
        |from: &Path, to: &Path| Command::new("mount").arg("--bind").args([from, to]).status().unwrap().success();
    File::create(&mount).unwrap();
    let cask = Cask::open(&host).unwrap();
    cask.put("key", "value").unwrap();
    if !bind(&host, &mount) {
        return say("mount --bind is not allowed");
    }
    let writer = Cask::open_with(&mount, &Config::new().lock_mode(LockMode::PerWrite)).unwrap();
    let readers = [ReadMode::Map, ReadMode::Pread]
        .map(|mode| Cask::open_with(&mount, &Config::new().read_only(true).read_mode(mode)).unwrap());
    let lazy = Cask::open_with(&mount, &Config::new().durability(Durability::Os)).unwrap();
    writer.put("key", "through the mount").unwrap();
    lazy.put("other", "through the mount").unwrap();
    let error = refused(writer.compact());
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
    says(&error, &mount, &["mounted by itself"]);
    assert_eq!(names(directory), ["host", "mount"]);

    let pair = cask.get("key").unwrap();
    assert_eq!(pair.value, b"through the mount");
    cask.compact().unwrap();
    let unchanged = Unchanged::from_now_on(&mount);
    expect_replaced(writer.atomic_put("key", "lost", Some(&pair)));
    expect_replaced(lazy.put("other", "lost"));
    for handle in readers.iter().chain([&writer, &lazy]) {
        expect_replaced(handle.get("key"));
    }
    expect_replaced(Cask::open(&mount));
    cask.atomic_put("key", "one wins", Some(&pair)).unwrap();
    unchanged.check();

    let (empty, empty_mount) = (directory.join("empty"), directory.join("empty-mount"));
    for path in [&empty, &empty_mount] {
        File::create(path).unwrap();
    }
    assert!(bind(&empty, &empty_mount));
    let error = refused(Cask::open(&empty_mount));
    assert_eq!(io_kind(&error), ErrorKind::ResourceBusy);
    says(&error, &empty_mount, &["mounted by itself"]);
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
}
