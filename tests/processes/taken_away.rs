//! A lock that someone else holds, and a file that someone else takes away from under a handle.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, LockMode, SnapshotPolicy};

use crate::common::TempDir;
use crate::common::patience::with_a_deadline;
use crate::common::process::{Process, arguments, listen, say, this_test};
use crate::common::refusal::{Unchanged, io_kind, refused, says, store_with};

// A lock that someone else holds.

#[test]
fn a_lock_is_waited_for_as_long_as_configured() {
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("key", "value")]);
    let patience = Duration::from_millis(30);
    let patient = Config::new().connection_timeout(patience);
    let cask = Cask::open_with(&path, &patient).unwrap();
    let pair = cask.get("key").unwrap();
    let holder = File::open(&path).unwrap();
    fs2::FileExt::lock_exclusive(&holder).unwrap();
    let unchanged = Unchanged::from_now_on(&path);

    let mut batch = Batch::new();
    batch.put("key", "");
    let refusals = [
        refused(Cask::open_with(&path, &patient)),
        refused(Cask::open_with(&path, &patient.clone().lock_mode(LockMode::Exclusive))),
        refused(cask.put("key", "")),
        refused(cask.delete("key")),
        refused(cask.delete("absent")),
        refused(cask.delete_prefix("")),
        refused(cask.atomic_put("key", "", Some(&pair))),
        refused(cask.atomic_delete("key", Some(&pair))),
        refused(cask.update("key", |_| Vec::new())),
        refused(cask.write(&batch)),
        refused(cask.sync()),
        refused(cask.compact()),
    ];
    for error in refusals {
        match &error {
            Error::LockTimeout { waited, .. } => {
                assert!(*waited >= patience, "{waited:?}");
                says(&error, &path, &[&format!("{waited:?}"), "locked by another writer", "nothing was written"]);
            }
            other => panic!("{other:?}"),
        }
    }

    // Reading needs no lock: neither on this handle nor on one that is opened now.
    assert_eq!(cask.get("key").unwrap(), pair);
    assert_eq!(cask.list("").unwrap(), std::slice::from_ref(&pair));
    cask.verify().unwrap();
    let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    assert_eq!(reader.get("key").unwrap(), pair);
    reader.close().unwrap();
    unchanged.check();

    fs2::FileExt::unlock(&holder).unwrap();
    cask.put("key", "after").unwrap();
    fs2::FileExt::lock_exclusive(&holder).unwrap();
    cask.close().expect("closing only leaves out the cut");
    fs2::FileExt::unlock(&holder).unwrap();
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"after");
}

/// A process that makes a store of an empty file locks it for that; or the file belongs to another program.
#[test]
fn an_empty_files_lock_is_waited_for_as_configured() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let holder = File::create(&path).unwrap();
    fs2::FileExt::lock_exclusive(&holder).unwrap();
    let unchanged = Unchanged::from_now_on(&path);
    for patience in [Duration::ZERO, Duration::from_millis(30)] {
        let error = refused(Cask::open_with(&path, &Config::new().connection_timeout(patience)));
        match &error {
            Error::LockTimeout { waited, .. } => assert!(*waited >= patience, "{waited:?}"),
            other => panic!("{other:?}"),
        }
        says(&error, &path, &["locked by another writer"]);
    }
    unchanged.check();
    fs2::FileExt::unlock(&holder).unwrap();
    Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO)).unwrap().put("key", "value").unwrap();
}

#[test]
fn a_timeout_of_zero_tries_once() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    let cask = Cask::open_with(&path, &impatient).unwrap();
    cask.put("key", "a free lock is had at once").unwrap();
    let holder = File::open(&path).unwrap();
    fs2::FileExt::lock_exclusive(&holder).unwrap();
    for _ in 0..100 {
        let error = refused(cask.put("key", ""));
        assert!(matches!(error, Error::LockTimeout { .. }), "{error:?}");
        let error = refused(Cask::open_with(&path, &impatient));
        assert!(matches!(error, Error::LockTimeout { .. }), "{error:?}");
    }
    fs2::FileExt::unlock(&holder).unwrap();
    cask.put("key", "had again").unwrap();
}

// A file that is taken away from under a handle.

/// What can happen to a file under an open handle, and whether the path names a store afterwards.
type TakeAway = (&'static str, fn(&Path));

const TAKEN_AWAY: [TakeAway; 6] = [
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("moved", |path| fs::rename(path, path.with_extension("moved")).unwrap()),
    ("replaced by another store", |path| {
        store_with(&path.with_extension("other"), &[("key", "theirs")]);
        fs::rename(path.with_extension("other"), path).unwrap();
    }),
    ("replaced by a copy of itself", |path| {
        fs::copy(path, path.with_extension("copy")).unwrap();
        fs::rename(path.with_extension("copy"), path).unwrap();
    }),
    ("replaced by a symlink to itself", |path| {
        fs::rename(path, path.with_extension("moved")).unwrap();
        symlink(path.with_extension("moved"), path).unwrap();
    }),
    ("replaced by a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

#[test]
fn a_syncing_handle_writes_nothing_to_a_removed_file() {
    for (what, take_away) in TAKEN_AWAY {
        for lock_mode in [LockMode::PerWrite, LockMode::Exclusive] {
            let directory = TempDir::new();
            let path = directory.join("store");
            let cask = Cask::open_with(&path, &Config::new().lock_mode(lock_mode)).unwrap();
            let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
            cask.put("key", "value").unwrap();
            let pair = cask.get("key").unwrap();
            take_away(&path);
            for _ in 0..2 {
                let errors = [
                    refused(cask.put("key", "lost")),
                    refused(cask.delete("key")),
                    refused(cask.atomic_put("new", "lost", None)),
                    refused(cask.delete_prefix("")),
                    refused(cask.sync()),
                    refused(cask.compact()),
                ];
                for error in errors {
                    assert!(matches!(error, Error::Replaced { .. }), "{what}: {error:?}");
                    says(&error, &path, &["moved, removed or replaced", "nothing was written", "open it again"]);
                }
            }
            for handle in [&cask, &reader] {
                assert_eq!(handle.get("key").unwrap(), pair, "{what}");
                assert_eq!(handle.list("").unwrap(), std::slice::from_ref(&pair), "{what}");
                handle.verify().unwrap();
            }
            let _ = cask.close();
            reader.close().unwrap();
        }
    }
}

#[test]
fn a_handle_notices_its_removed_file_within_a_second() {
    let Some(()) = with_a_deadline(a_handle_notices_its_removed_file_within_a_second) else { return };
    let directory = TempDir::new();
    let durabilities = [Durability::Os, Durability::Interval(Duration::from_millis(20))];
    let handles: Vec<(PathBuf, Cask)> = durabilities
        .into_iter()
        .flat_map(|durability| TAKEN_AWAY.map(|(what, take_away)| (durability, what, take_away)))
        .enumerate()
        .map(|(number, (durability, _, take_away))| {
            let path = directory.join(format!("store-{number}"));
            let cask = Cask::open_with(&path, &Config::new().durability(durability)).unwrap();
            cask.put("key", "value").unwrap();
            take_away(&path);
            (path, cask)
        })
        .collect();
    // In this second they may notice or not.
    for (_, cask) in &handles {
        assert!(matches!(cask.put("key", "lost or not"), Ok(_) | Err(Error::Replaced { .. })));
    }
    std::thread::sleep(Duration::from_secs(1));
    for (path, cask) in &handles {
        let error = refused(cask.put("key", "lost"));
        assert!(matches!(error, Error::Replaced { .. }), "{error:?}");
        says(&error, path, &[]);
        assert!(cask.get("key").is_ok());
        let _ = cask.close();
    }
}

#[test]
fn a_file_moved_away_and_back_is_the_same() {
    let directory = TempDir::new();
    let (path, elsewhere) = (directory.join("store"), directory.join("elsewhere"));
    let cask = Cask::open(&path).unwrap();
    cask.put("key", "before").unwrap();
    fs::rename(&path, &elsewhere).unwrap();
    assert!(matches!(cask.put("key", "lost"), Err(Error::Replaced { .. })));
    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"before");
    cask.put("key", "after").unwrap();
    cask.close().unwrap();
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"after");
}

#[test]
fn a_handle_reads_on_when_its_directory_is_gone() {
    let outer = TempDir::new();
    let directory = outer.join("directory");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    cask.put("key", "value").unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert!(matches!(cask.put("key", "lost"), Err(Error::Replaced { .. })));
    assert_eq!(cask.get("key").unwrap().value, b"value");
    let error = refused(Cask::open(&path));
    assert_eq!(io_kind(&error), ErrorKind::NotFound);
    let _ = cask.close();
}

/// The cut made the file shorter once, and the reader was killed by SIGBUS.
#[test]
fn a_read_of_records_cut_off_gets_no_signal() {
    let name = this_test!();
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.path().join("store");
        // A snapshot would sync it.
        let unsynced = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::Never);
        let cask = Cask::open_with(&path, &unsynced).unwrap();
        cask.put("kept", "value").unwrap();
        let torn_at = fs::read(&path).unwrap().iter().rposition(|&byte| byte != 0).unwrap() as u64;
        for n in 0..100 {
            cask.put(format!("lost-{n:02}"), [7; 5000]).unwrap();
        }
        let mut reader = Process::start(name, &[path.to_str().unwrap()]);
        assert_eq!(reader.hear().as_deref(), Some("100 pairs"));
        // As a writer leaves it that is killed and not closed.
        std::mem::forget(cask);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xee; 40], torn_at + 64).unwrap();

        let len = file.metadata().unwrap().len();
        let recovering = Cask::open_with(&path, &unsynced).unwrap();
        assert!(matches!(recovering.get("lost-00"), Err(Error::KeyNotFound)));
        recovering.close().unwrap();
        reader.tell("cut");
        assert_eq!(reader.hear().as_deref(), Some("zeros"));
        reader.tell("look again");
        assert_eq!(reader.hear().as_deref(), Some("value"));
        assert_eq!(file.metadata().unwrap().len(), len);
        return reader.succeed();
    };
    let cask = Cask::open_with(&arguments[0], &Config::new().read_only(true)).unwrap();
    let scan = cask.scan("lost-").unwrap();
    // SAFETY: nothing but this library writes to the values that are looked at.
    let lent = unsafe { cask.mapped() }.get("lost-99").unwrap();
    assert_eq!(*lent, [7; 5000]);
    say(format!("{} pairs", cask.list("lost-").unwrap().len()));
    assert_eq!(listen().as_deref(), Some("cut"));
    assert_eq!(*lent, [0; 5000]);
    assert!(scan.into_iter().all(|pair| matches!(pair, Err(Error::Corrupt { .. }))));
    say("zeros");
    assert_eq!(listen().as_deref(), Some("look again"));
    assert!(matches!(cask.get("lost-99"), Err(Error::KeyNotFound)));
    say(String::from_utf8(cask.get("kept").unwrap().value).unwrap());
}
