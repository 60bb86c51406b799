//! File systems and processes that are not the usual ones: overlays, reserved blocks, leases, directories that may not be
//! read, processes that have given up privileges or changed their root.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caskfile::{Cask, Config, Durability, Error};

use crate::common::TempDir;
use crate::common::hooked::HookedDisk;
use crate::common::patience::with_a_deadline;
use crate::common::process::{self, Process, arguments, drop_privileges, in_own_mounts, is_superuser, say, this_test};

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

fn mount(kind: &str, options: &str, at: &Path) -> bool {
    fs::create_dir_all(at).unwrap();
    run("mount", &["-t", kind, "-o", options, "caskfile-test", at.to_str().unwrap()])
}

fn value(cask: &Cask) -> Vec<u8> {
    cask.get("key").unwrap().value
}

/// The first opening for writing copies the file to the upper layer. A map that was made before goes on showing the lower
/// one.
#[test]
fn a_reader_on_an_overlay_sees_the_first_write() {
    let Some(directory) = in_own_mounts(this_test!()) else { return };
    // On one file system, and on two, where a file gets another identity when it is copied.
    for (round, options) in ["", ",xino=off"].into_iter().enumerate() {
        let base = directory.join(round.to_string());
        let place = |name: &str| base.join(name);
        if !mount("tmpfs", "size=8m", &base) {
            return say("mount is not allowed");
        }
        if !options.is_empty() {
            assert!(mount("tmpfs", "size=8m", &place("lower")));
        }
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(place(name)).unwrap();
        }
        let image = Cask::open(place("lower/store")).unwrap();
        image.put("key", "image").unwrap();
        image.close().unwrap();
        let layers = ["lower", "upper", "work"].map(|name| place(name).display().to_string());
        let layers = format!("lowerdir={},upperdir={},workdir={}{options}", layers[0], layers[1], layers[2]);
        if !mount("overlay", &layers, &place("merged")) {
            return say("overlays cannot be mounted");
        }

        let path = place("merged/store");
        let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
        assert_eq!(value(&reader), b"image");
        let writer = Cask::open(&path).unwrap();
        writer.put("key", "written").unwrap();
        assert_eq!(value(&reader), b"written");
        assert_eq!(reader.list("").unwrap()[0].value, b"written");
        writer.compact().unwrap();
        writer.put("key", "written after a compaction").unwrap();
        assert_eq!(value(&reader), b"written after a compaction");
        assert_eq!(value(&writer), b"written after a compaction");
        writer.close().unwrap();
    }
}

/// ext4 keeps some blocks for the superuser, and what is available to all others may be too little.
#[test]
fn the_superuser_compacts_into_reserved_blocks() {
    if !is_superuser() {
        return println!("skipped: needs the superuser");
    }
    let Some(base) = in_own_mounts(this_test!()) else { return };
    let (image, at) = (base.join("image"), base.join("mounted"));
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    fs::create_dir(&at).unwrap();
    let formatted = run("mkfs.ext4", &["-q", "-F", "-m", "45", "-O", "^has_journal", image.to_str().unwrap()]);
    if !formatted || !run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]) {
        return say("no ext4 image can be made and mounted");
    }
    let manual = Config::new().compaction(caskfile::CompactionPolicy::Manual).durability(Durability::Os);
    let cask = Cask::open_with(at.join("store"), &manual).unwrap();
    for _ in 0..2 {
        for key in 0..14 {
            cask.put([key], vec![7; 1 << 20]).unwrap();
        }
    }
    let stats = cask.stats().unwrap();
    assert!(fs2::available_space(&at).unwrap() < stats.live_bytes && fs2::free_space(&at).unwrap() > stats.live_bytes);
    cask.compact().unwrap();
    cask.close().unwrap();
    assert!(run("umount", &[at.to_str().unwrap()]));
}

/// A directory with this mode below a path that everybody may follow.
fn directory_of_mode(directory: &TempDir, mode: u32) -> PathBuf {
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let inner = directory.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
    inner
}

/// To sync a directory it has to be opened, for which it must be readable.
#[test]
fn a_directory_that_is_not_readable_can_hold_stores() {
    let Some(arguments) = arguments() else {
        for mode in [0o711, 0o733] {
            let directory = TempDir::new();
            let inner = directory_of_mode(&directory, mode);
            let path = inner.join("store");
            Cask::open(&path).unwrap().put("key", "value").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            let name = this_test!();
            Process::start(name, &[inner.to_str().unwrap(), &mode.to_string()]).succeed();
            fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        }
        return;
    };
    drop_privileges();
    let directory = Path::new(&arguments[0]);
    for durability in [Durability::Sync, Durability::Os] {
        let config = Config::new().durability(durability);
        let cask = Cask::open_with(directory.join("store"), &config).unwrap();
        cask.put("key", format!("{durability:?}")).unwrap();
        cask.close().unwrap();
    }
    if arguments[1] == 0o733.to_string() {
        // New files may be made in it.
        let cask = Cask::open(directory.join("new")).unwrap();
        cask.put("key", "value").unwrap();
        cask.compact().unwrap();
        cask.backup(directory.join("copy")).unwrap();
        cask.close().unwrap();
        assert_eq!(value(&Cask::open(directory.join("copy")).unwrap()), b"value");
    }
}

/// The process was privileged when it opened the store. Now it may not follow the path, and may or may not search the
/// store's own directory.
#[test]
fn a_store_stays_usable_after_privileges_are_dropped() {
    if !is_superuser() {
        return println!("skipped: there are no privileges to give up");
    }
    let Some(arguments) = arguments() else {
        for owner in [0, process::NOBODY] {
            let directory = TempDir::new();
            let inner = directory_of_mode(&directory, 0o700);
            std::os::unix::fs::chown(&inner, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
            let arguments = [inner.to_str().unwrap(), &owner.to_string()];
            Process::start(this_test!(), &arguments).succeed();
            assert_eq!(value(&Cask::open(inner.join("store")).unwrap()), b"after");
        }
        return;
    };
    let path = Path::new(&arguments[0]).join("store");
    let [first, second] = [&path, &path].map(|path| Cask::open(path).unwrap());
    first.put("key", "before").unwrap();
    let owner: u32 = arguments[1].parse().unwrap();
    std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
    drop_privileges();
    // The second one has never written before.
    second.put("key", "between").unwrap();
    first.put("key", "after").unwrap();
    assert_eq!(value(&second), b"after");
    if owner == process::NOBODY {
        first.compact().unwrap();
        second.put("key", "between").unwrap();
        first.put("key", "after").unwrap();
        first.reopen().unwrap();
    } else {
        assert!(matches!(first.compact(), Err(Error::CompactionRefused { .. })));
    }
    assert_eq!(value(&first), b"after");
    fs::metadata(&path).expect_err("the path cannot be followed");
    first.close().unwrap();
    second.close().unwrap();
}

/// The new root may have the path of the directory, or even of the store: then they are others.
#[test]
fn a_store_stays_usable_after_a_change_of_root() {
    if !is_superuser() {
        return println!("skipped: needs the superuser");
    }
    let inside = |directory: &Path| directory.join("jail").join(directory.strip_prefix("/").unwrap());
    let Some(arguments) = arguments() else {
        for has in ["nothing", "the directory", "another store"] {
            let directory = TempDir::new();
            let jail = inside(directory.path());
            fs::create_dir_all(if has == "nothing" { directory.join("jail") } else { jail.clone() }).unwrap();
            if has == "another store" {
                Cask::open(jail.join("store")).unwrap().put("key", "in the new root").unwrap();
            }
            let name = this_test!();
            Process::start(name, &[directory.path().to_str().unwrap(), has]).succeed();
            assert_eq!(value(&Cask::open(directory.join("store")).unwrap()), b"after", "{has}");
            let expected: &[&str] = match has {
                "nothing" => continue,
                "the directory" => &["copy"],
                _ => &["copy", "store"],
            };
            let mut names: Vec<_> = fs::read_dir(&jail).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, expected, "{has}");
            // A copy goes where its path leads now.
            assert_eq!(value(&Cask::open(jail.join("copy")).unwrap()), b"after");
            if has == "another store" {
                assert_eq!(value(&Cask::open(jail.join("store")).unwrap()), b"in the new root");
            }
        }
        return;
    };
    let directory = Path::new(&arguments[0]);
    let [first, second] = [(); 2].map(|()| Cask::open(directory.join("store")).unwrap());
    first.put("key", "before").unwrap();
    std::os::unix::fs::chroot(directory.join("jail")).unwrap();
    std::env::set_current_dir("/").unwrap();
    second.put("key", "between").unwrap();
    first.compact().unwrap();
    second.put("key", "after").unwrap();
    assert_eq!(value(&first), b"after");
    first.reopen().unwrap();
    assert_eq!(value(&first), b"after");
    if arguments[1] != "nothing" {
        first.backup(directory.join("copy")).unwrap();
    }
    first.close().unwrap();
    second.close().unwrap();
}

/// Moved away with its directory, a store is not what its path names, and a process that opens the path makes another one.
#[test]
fn a_store_in_a_moved_directory_is_not_written() {
    let directory = TempDir::new();
    fs::create_dir(directory.join("data")).unwrap();
    let cask = Cask::open(directory.join("data/store")).unwrap();
    cask.put("key", "value").unwrap();
    fs::rename(directory.join("data"), directory.join("moved")).unwrap();
    assert!(matches!(cask.put("key", ""), Err(Error::Replaced { .. })));
    fs::rename(directory.join("moved"), directory.join("data")).unwrap();
    cask.put("key", "value").unwrap();
}

/// A file server takes a lease, to be asked before other processes open the file.
#[test]
fn a_leased_file_is_opened_when_the_lease_ends() {
    let Some(()) = with_a_deadline(a_leased_file_is_opened_when_the_lease_ends) else { return };
    /// Linux's number, which the crate `libc` does not have.
    const F_SETSIG: libc::c_int = 10;
    fn lease(holder: &File, kind: libc::c_int) {
        // SAFETY: neither call takes a pointer. The signal is one that is ignored unless it is waited for.
        let ask = || unsafe {
            libc::fcntl(holder.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
                && libc::fcntl(holder.as_raw_fd(), libc::F_SETLEASE, kind) == 0
        };
        // A child that another test has just forked has the store open for writing until it executes its program.
        while !ask() {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            std::thread::yield_now();
        }
    }

    let directory = TempDir::new();
    let path = directory.join("store");
    Cask::open(&path).unwrap().put("key", "value").unwrap();
    let holder = File::open(&path).unwrap();
    lease(&holder, libc::F_RDLCK);
    let impatient = Config::new().connection_timeout(Some(Duration::ZERO));
    let error = Cask::open_with(&path, &impatient).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::WouldBlock), "{error}");
    assert!(format!("{error:#}").contains("lease"), "{error:#}");

    let pauses = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pauses);
    let disk = HookedDisk::new(move |call| {
        // It is given up while the opening process waits.
        if call == "pause" && counted.fetch_add(1, Ordering::SeqCst) == 2 {
            lease(&holder, libc::F_UNLCK);
        }
        Ok(())
    });
    let cask = Cask::open_on(Arc::new(disk), &path, &Config::new()).unwrap();
    assert_eq!(value(&cask), b"value");
    assert!(pauses.load(Ordering::SeqCst) > 2);
}
