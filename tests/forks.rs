//! Children: what one that was forked may do with its parent's handle, and what one that runs another program gets.

// They look into /proc, or set limits that other systems name differently.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, LockMode};

mod common;
#[path = "common/process.rs"]
mod process;

use common::TempDir;
use process::{Process, arguments};

/// Forks, and has the child check something. A child that panics, hangs or is killed makes this fail.
///
/// Called in a process that has no other threads which could hold a lock of the allocator, say, at this moment.
fn in_a_forked_child(check: impl FnOnce()) {
    // SAFETY: the process has one thread besides the harness's main one, which sleeps; so no lock is held that the
    // child could want. It leaves by `_exit`, and so runs nothing that is the parent's.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        process::be_patient_for(30);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        // SAFETY: takes no pointer.
        unsafe { libc::_exit(i32::from(checked.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child must come to a good end");
}

#[test]
fn a_forked_child_writes_nothing_through_its_parents_handle_and_gives_up_nothing_of_its_parents() {
    let Some(arguments) = arguments() else {
        let directory = TempDir::new();
        let name = "a_forked_child_writes_nothing_through_its_parents_handle_and_gives_up_nothing_of_its_parents";
        return Process::start(name, &[directory.path().to_str().unwrap()]).succeed();
    };
    let path = Path::new(&arguments[0]).join("store");
    let impatient = Config::new().connection_timeout(Duration::ZERO);
    let forked = |error: Error| {
        assert!(matches!(error, Error::Forked { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()) && error.to_string().contains("open the store in"));
    };
    for lock_mode in [LockMode::PerWrite, LockMode::Exclusive] {
        for durability in [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(1))] {
            let config = impatient.clone().lock_mode(lock_mode).durability(durability);
            let cask = Cask::open_with(&path, &config).unwrap();
            cask.put("key", "parent's").unwrap();
            let pair = cask.get("key").unwrap();
            in_a_forked_child(|| {
                forked(cask.put("key", "child's").unwrap_err());
                forked(cask.delete("key").unwrap_err());
                forked(cask.atomic_put("key", "child's", Some(&pair)).unwrap_err());
                forked(cask.atomic_delete("key", Some(&pair)).unwrap_err());
                forked(cask.update("key", |_| b"child's".to_vec()).unwrap_err());
                forked(cask.write(Batch::new().put("key", "child's")).unwrap_err());
                forked(cask.delete_prefix("").unwrap_err());
                forked(cask.sync().unwrap_err());
                forked(cask.compact().unwrap_err());
                assert_eq!(cask.get("key").unwrap(), pair);
                assert_eq!(cask.list("key").unwrap(), std::slice::from_ref(&pair));
                // A handle of its own is another matter.
                match Cask::open_with(&path, &impatient) {
                    Ok(own) => own.put("child", "its own").unwrap(),
                    Err(error) => assert!(
                        lock_mode == LockMode::Exclusive && matches!(error, Error::LockTimeout { .. }),
                        "{error:?}"
                    ),
                }
                cask.close().unwrap();
                drop(cask.clone());
                assert!(matches!(cask.get("key"), Err(Error::Closed)));
            });
            in_a_forked_child(|| drop(cask.clone()));
            let other = Cask::open_with(&path, &impatient);
            match lock_mode {
                LockMode::Exclusive => assert!(matches!(other, Err(Error::LockTimeout { .. })), "the lock is gone"),
                _ => assert_eq!(other.unwrap().get("child").unwrap().value, b"its own"),
            }
            cask.put("key", "parent's again").unwrap();
            cask.compact().unwrap();
            cask.close().unwrap();
        }
    }
    assert_eq!(Cask::open(&path).unwrap().get("key").unwrap().value, b"parent's again");
}

#[test]
fn another_program_started_by_this_one_inherits_no_descriptor() {
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
    cask.put("key", "value").unwrap();
    let old_generation = cask.scan("").unwrap();
    cask.compact().unwrap();
    let reader = Cask::open_with(&path, &Config::new().read_only(true)).unwrap();
    let has_open = |of: &str| -> usize {
        let listing = Command::new("ls").args(["-l", of]).output().unwrap();
        String::from_utf8(listing.stdout).unwrap().matches(directory.path().to_str().unwrap()).count()
    };
    let own = fs::read_dir("/proc/self/fd").unwrap();
    let own = own.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert!(own.filter(|target| target.starts_with(directory.path())).count() >= 3, "there is something to inherit");
    assert_eq!(has_open("/proc/self/fd"), 0);
    assert_eq!(old_generation.count() + reader.list("").unwrap().len(), 2);
}
