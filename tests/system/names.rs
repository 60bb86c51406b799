//! Names beside the store and names that are links: none is followed that was planted, and none is removed that is not
//! a leftover of the store's own.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use caskfile::disk::Disk;
use caskfile::{Cask, Config, Durability, Error};

use crate::common::hooked::HookedDisk;
use crate::common::patience::with_a_deadline;
use crate::common::process::{self, Process, arguments, this_test};
use crate::common::refusal::{Unchanged, every_config, io_kind, refused, says, store_with};
use crate::common::{TempDir, names};

/// What a file in the making could be called.
const LEFTOVER: &str = "store.tmp-0000000000000000";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_store_stays_at_the_target_of_its_symlink() {
    let directory = TempDir::new();
    let real = directory.join("real");
    fs::create_dir(&real).unwrap();
    let (file, link, linked_directory) = (real.join("store"), directory.join("link"), directory.join("directory"));
    symlink("real/store", &link).unwrap();
    symlink(&real, &linked_directory).unwrap();

    // It dangles at first.
    for config in [Config::new().create(false), Config::new().read_only(true)] {
        assert_eq!(io_kind(&refused(Cask::open_with(&link, &config))), ErrorKind::NotFound);
    }
    let through_link = Cask::open(&link).unwrap();
    through_link.put("key", "through the link").unwrap();
    let direct = Cask::open(&file).unwrap();
    let through_directory = Cask::open(linked_directory.join("store")).unwrap();
    assert_eq!(direct.get("key").unwrap().value, b"through the link");
    through_link.compact().unwrap();
    direct.put("key", "after compaction").unwrap();
    through_directory.compact().unwrap();
    for cask in [&through_link, &direct, &through_directory] {
        assert_eq!(cask.get("key").unwrap().value, b"after compaction");
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        (names(&real), names(directory.path())),
        (vec!["store".into()], vec!["directory".into(), "link".into(), "real".into()])
    );

    // What the path led to when the store was opened is what counts.
    fs::remove_file(&link).unwrap();
    symlink("elsewhere", &link).unwrap();
    through_link.put("key", "still there").unwrap();
    assert_eq!(direct.get("key").unwrap().value, b"still there");
}

#[test]
fn a_symlink_that_leads_nowhere_is_an_error() {
    let directory = TempDir::new();
    let (circle, lost) = (directory.join("circle"), directory.join("lost"));
    symlink("circle", &circle).unwrap();
    symlink("missing/store", &lost).unwrap();
    for config in every_config() {
        for path in [&circle, &lost] {
            says(&refused(Cask::open_with(path, &config)), directory.path(), &[]);
        }
    }
    assert_eq!(names(directory.path()), ["circle", "lost"]);
}

/// `/proc/PID/root` reads as `/`, and leads to the root of that process, with its mounts.
#[test]
#[cfg(target_os = "linux")]
fn a_path_through_another_processs_root_is_its_store() {
    let name = this_test!();
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "ours")]);
        let unchanged = Unchanged::from_now_on(&path);
        let Some(mut other) = Process::start_with_own_mounts(name, &[directory.path().to_str().unwrap()]) else {
            return;
        };
        let said = other.hear().unwrap();
        if said != "mounted" {
            return println!("{name}: skipped, {said}");
        }
        let through = |name: &str| format!("/proc/{}/root{}/{name}", other.id(), directory.path().display());
        for path in [through("store"), through("link")] {
            let cask = Cask::open(&path).unwrap();
            assert_eq!(cask.get("key").unwrap().value, b"theirs", "{path}");
            cask.put("key", "changed").unwrap();
            cask.compact().unwrap();
            assert_eq!(cask.get("key").unwrap().value, b"changed");
            cask.put("key", "theirs").unwrap();
            cask.close().unwrap();
        }
        store_with(Path::new(&through("new")), &[("key", "new")]);
        assert_eq!(other.ask("look"), "theirs new");
        other.succeed();
        unchanged.check();
        assert_eq!(names(directory.path()), ["store"]);
        return;
    };
    let directory = Path::new(&arguments[0]);
    if !Command::new("mount").args(["-t", "tmpfs", "caskfile-test"]).arg(directory).status().unwrap().success() {
        return process::say("mount is not allowed");
    }
    store_with(&directory.join("store"), &[("key", "theirs")]);
    symlink("store", directory.join("link")).unwrap();
    process::say("mounted");
    if process::listen().is_none() {
        return;
    }
    let value = |name: &str| {
        let pair = Cask::open(directory.join(name)).unwrap().get("key").unwrap();
        String::from_utf8(pair.value).unwrap()
    };
    process::say(format!("{} {}", value("store"), value("new")));
}

/// The first four names of a file in the making are known, and the fifth is random. Here it is not, and all are taken.
#[test]
fn a_planted_symlink_is_not_followed() {
    let directory = TempDir::new();
    let (path, victim) = (directory.join("store"), directory.join("victim"));
    fs::write(&victim, "mine").unwrap();
    store_with(&path, &[("key", "value")]);
    let unchanged = Unchanged::from_now_on(&victim);
    let mut disk = HookedDisk::new(|_| Ok(()));
    disk.random = Some(0x5a);
    let disk = Arc::new(disk);
    let planted = format!("tmp-{}", "5a".repeat(8));
    let open = |path: &Path| Cask::open_on(Arc::clone(&disk) as Arc<dyn Disk>, path, &Config::new());

    for target in ["victim", "nowhere"] {
        let new = directory.join("new");
        let trap = directory.join(format!("new.{planted}"));
        symlink(target, &trap).unwrap();
        let first = (0..4).map(|n| directory.join(format!("new.tmp-{n:016}"))).collect::<Vec<_>>();
        first.iter().for_each(|first| symlink(target, first).unwrap());
        let error = refused(open(&new));
        assert_eq!(io_kind(&error), ErrorKind::AlreadyExists);
        says(&error, &trap, &["create"]);
        fs::remove_file(&trap).unwrap();
        open(&new).unwrap().close().unwrap();
        fs::remove_file(&new).unwrap();
        first.iter().for_each(|first| fs::remove_file(first).unwrap());

        let cask = open(&path).unwrap();
        let trap = directory.join(format!("store.{planted}"));
        symlink(target, &trap).unwrap();
        let first = (0..4).map(|n| directory.join(format!("store.tmp-{n:016}"))).collect::<Vec<_>>();
        first.iter().for_each(|first| symlink(target, first).unwrap());
        assert_eq!(io_kind(&refused(cask.compact())), ErrorKind::AlreadyExists);
        cask.put("key", "goes on").unwrap();
        cask.close().unwrap();
        fs::remove_file(&trap).unwrap();
        first.iter().for_each(|first| fs::remove_file(first).unwrap());
        assert!(!directory.join("nowhere").exists());
    }
    fs::remove_file(&path).unwrap();
    store_with(&path, &[]);
    unchanged.check();
}

#[test]
fn writers_remove_only_leftovers_without_a_lock() {
    let Some(()) = with_a_deadline(writers_remove_only_leftovers_without_a_lock) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    store_with(&path, &[("key", "value")]);
    let victim = directory.join("victim");
    fs::write(&victim, "mine").unwrap();
    let others = [
        "store.tmp-0123456789abcde",
        "store.tmp-0123456789abcdef0",
        "store.tmp-0123456789ABCDEF",
        "store.tmp-0123456789abcdeg",
        "store.tmp-",
        "store.tmp",
        "store.tmp-0123456789abcdef.bak",
        "store2.tmp-0123456789abcdef",
        "astore.tmp-0123456789abcdef",
        "store.torn-0123456789abcdef",
    ];
    for name in others {
        fs::write(directory.join(name), "not ours").unwrap();
    }
    let locked = directory.join("store.tmp-1111111111111111");
    fs::write(&locked, "in the making").unwrap();
    let maker = File::open(&locked).unwrap();
    fs2::FileExt::lock_exclusive(&maker).unwrap();
    // Nor are these files in the making.
    assert!(Command::new("mkfifo").arg(directory.join("store.tmp-2222222222222222")).status().unwrap().success());
    symlink("victim", directory.join("store.tmp-3333333333333333")).unwrap();
    fs::create_dir(directory.join("store.tmp-4444444444444444")).unwrap();
    let before = names(directory.path());

    fs::write(directory.join(LEFTOVER), "half a store").unwrap();
    fs::hard_link(&path, directory.join("store.tmp-fedcba9876543210")).unwrap();
    let with_leftovers = names(directory.path());
    Cask::open_with(&path, &Config::new().read_only(true)).unwrap().close().unwrap();
    assert_eq!(names(directory.path()), with_leftovers, "a reader removes nothing");
    let cask = Cask::open(&path).unwrap();
    assert_eq!(names(directory.path()), before);
    // The process that makes that file may be compacting the store.
    assert!(matches!(cask.compact(), Err(Error::CompactionOvertaken { .. })));
    cask.close().unwrap();

    // Closing it would not be enough: a child that another test has just forked has the lock until it runs its program.
    fs2::FileExt::unlock(&maker).unwrap();
    drop(maker);
    let cask = Cask::open(&path).unwrap();
    // It could not be removed when the store was opened.
    fs::hard_link(&path, directory.join("store.tmp-fedcba9876543210")).unwrap();
    cask.compact().expect("the store's second name is removed first");
    cask.close().unwrap();
    assert_eq!(names(directory.path()).len(), before.len() - 1);
    assert!(!locked.exists(), "its maker has died");
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
}

#[test]
fn a_file_with_several_links_works_but_is_not_compacted() {
    let directory = TempDir::new();
    let (path, second) = (directory.join("store"), directory.join("second"));
    store_with(&path, &[("key", "value")]);
    fs::hard_link(&path, &second).unwrap();
    let cask = Cask::open(&path).unwrap();
    let unchanged = Unchanged::from_now_on(&path);
    let error = refused(cask.compact());
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
    says(&error, &path, &["2 hard links"]);
    unchanged.check();
    let through_second = Cask::open(&second).unwrap();
    through_second.put("key", "through the other name").unwrap();
    assert_eq!(cask.get("key").unwrap().value, b"through the other name");
    fs::remove_file(&second).unwrap();
    cask.compact().unwrap();
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"through the other name");
    assert_eq!(names(directory.path()), ["store"]);
}

// Modes and owners.

#[test]
fn a_new_file_has_the_requested_mode_under_any_umask() {
    let Some(arguments) = arguments() else {
        for umask in ["0", "18", "511"] {
            let directory = TempDir::new();
            let name = this_test!();
            Process::start(name, &[directory.path().to_str().unwrap(), umask]).succeed();
        }
        return;
    };
    let directory = Path::new(&arguments[0]);
    // SAFETY: takes no pointer; the umask is this process's own.
    unsafe { libc::umask(arguments[1].parse().unwrap()) };
    for (name, config, expected) in [
        ("default", Config::new(), 0o600),
        ("group", Config::new().file_mode(0o640), 0o640),
        ("all", Config::new().file_mode(0o666), 0o666),
        ("more than a mode", Config::new().file_mode(0o7644), 0o644),
    ] {
        let path = directory.join(name);
        let cask = Cask::open_with(&path, &config).unwrap();
        assert_eq!(mode(&path), expected, "{name}");
        cask.put("key", "value").unwrap();
        cask.compact().unwrap();
        assert_eq!(mode(&path), expected, "{name}, compacted");
        cask.close().unwrap();
        // It says how a file is made, and this one is there.
        Cask::open_with(&path, &Config::new().file_mode(0o600)).unwrap().compact().unwrap();
        assert_eq!(mode(&path), expected, "{name}, opened again");
    }
}

#[test]
fn compaction_keeps_mode_and_owner_or_is_refused() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let path = directory.join("store");
        store_with(&path, &[("key", "value")]);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        if process::is_superuser() {
            std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).unwrap();
        } else {
            println!("only the superuser can give the file away, so only the mode is looked at");
        }
        let before = fs::metadata(&path).unwrap();
        let cask = Cask::open_with(&path, &Config::new().durability(Durability::Os)).unwrap();
        cask.compact().unwrap();
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.mode(), now.uid(), now.gid()), (before.mode(), before.uid(), before.gid()));
        assert_ne!(now.ino(), before.ino(), "it is another file");
        cask.close().unwrap();
        if process::is_superuser() {
            process::open_to_all(directory.path());
            let name = this_test!();
            Process::start(name, &[directory.path().to_str().unwrap()]).succeed();
        }
        return;
    };
    // The file belongs to another user, and all users may write it.
    process::drop_privileges();
    let directory = Path::new(&arguments[0]);
    let path = directory.join("store");
    let cask = Cask::open(&path).unwrap();
    cask.put("key", "written").unwrap();
    let error = refused(cask.compact());
    assert!(matches!(error, Error::CompactionRefused { .. }), "{error:?}");
    says(&error, &path, &["owner"]);
    cask.put("key", "written again").unwrap();
    cask.close().unwrap();
    assert_eq!(names(directory), ["store"]);
    assert_eq!(fs::metadata(&path).unwrap().uid(), 12_345);
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"written again");
}

#[test]
fn an_empty_file_made_a_store_keeps_mode_and_owner() {
    let directory = TempDir::new();
    let path = directory.join("store");
    File::create(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
    if process::is_superuser() {
        std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();
    store_with(&path, &[("key", "value")]);
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.mode(), now.uid(), now.gid()), (before.mode(), before.uid(), before.gid()));
}
