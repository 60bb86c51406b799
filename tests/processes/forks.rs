//! Children: what one that was forked may do with its parent's handle, and what one that runs another program gets.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use caskfile::{Batch, Cask, Config, Durability, Error, LockMode, Progress};

use crate::common::TempDir;
use crate::common::hooked::HookedDisk;
use crate::common::patience::with_a_deadline;
use crate::common::process::{self, in_own_process, this_test};

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
fn a_forked_child_cannot_use_its_parents_handle() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
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
                forked(cask.reopen().unwrap_err());
                forked(cask.get("key").unwrap_err());
                forked(cask.exists("key").unwrap_err());
                forked(cask.list("key").unwrap_err());
                forked(cask.bucket("bucket").unwrap_err());
                forked(cask.stats().unwrap_err());
                forked(cask.verify().unwrap_err());
                forked(cask.backup(path.with_extension("copy")).unwrap_err());
                // A handle of its own is another matter.
                match Cask::open_with(&path, &impatient) {
                    Ok(own) => own.put("child", "its own").map(drop).unwrap(),
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

/// The writing thread has a lock at the moment of the fork that a first listing needs. In the child there is no such
/// thread, and nothing gives the lock back.
#[test]
fn a_forked_childs_read_does_not_wait_for_the_parent() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let (writing, begun) = mpsc::sync_channel(0);
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let armed = Arc::new(AtomicBool::new(false));
    let disk = HookedDisk::new({
        let armed = Arc::clone(&armed);
        move |call| {
            if call == "write_at" && armed.swap(false, SeqCst) {
                writing.send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            }
            Ok(())
        }
    });
    let cask = Cask::open_on(Arc::new(disk), directory.join("store"), &Config::new()).unwrap();
    cask.put("key", "value").unwrap();
    armed.store(true, SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| cask.put("key", "later").unwrap());
        begun.recv().unwrap();
        in_a_forked_child(|| {
            assert!(matches!(cask.list(""), Err(Error::Forked { .. })));
            drop(cask.clone());
            cask.close().unwrap();
            assert!(matches!(cask.list(""), Err(Error::Closed)));
        });
        go_on.send(()).unwrap();
    });
    assert_eq!(cask.list("").unwrap()[0].value, b"later");
}

/// In a PID namespace of its own, the first child of a process has the id 1, as its parent may have in another one.
/// Where this user may make no such namespace, the child is an ordinary one.
#[test]
fn a_forked_child_with_its_parents_id_writes_nothing() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    // SAFETY: takes no pointer.
    let unshare = |flags| unsafe { libc::unshare(flags) == 0 };
    let new_pids = || unshare(libc::CLONE_NEWPID) || unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID);
    let path = directory.join("store");
    in_a_forked_child(|| {
        let first = new_pids();
        in_a_forked_child(|| {
            let id = std::process::id();
            assert!(!first || id == 1);
            let cask = Cask::open_with(&path, &Config::new().lock_mode(LockMode::Exclusive)).unwrap();
            cask.put("key", "parent's").unwrap();
            let second = new_pids();
            in_a_forked_child(|| {
                assert_eq!(std::process::id() == id, first && second);
                assert!(matches!(cask.put("key", "child's"), Err(Error::Forked { .. })));
                drop(cask.clone());
                cask.close().unwrap();
            });
            assert_eq!(cask.get("key").unwrap().value, b"parent's");
            let other = Cask::open_with(&path, &Config::new().connection_timeout(Duration::ZERO));
            assert!(matches!(other, Err(Error::LockTimeout { .. })), "the lock is the parent's still");
            if !(first && second) {
                println!("this user may make no PID namespace: the child had an id of its own");
            }
        });
    });
}

/// The closure that watches a copy may fork, and come back in both processes.
#[test]
fn a_child_forked_during_a_copy_leaves_it_alone() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    type Copy = fn(&Cask, &Path, &mut dyn FnMut(Progress) -> ControlFlow<()>) -> caskfile::Result<()>;
    let copies: [(&str, Copy); 3] = [
        ("backup", |cask, to, watch| cask.backup_with(to, watch).map(drop)),
        ("compact_to", |cask, to, watch| cask.compact_to_with(to, watch).map(drop)),
        ("compact", |cask, _, watch| cask.compact_with(watch).map(drop)),
    ];
    for (name, copy) in copies {
        for nth in 1.. {
            let directory = directory.join(format!("{name}-{nth}"));
            fs::create_dir(&directory).unwrap();
            let (path, to) = (directory.join("store"), directory.join("copy"));
            let cask = Cask::open(&path).unwrap();
            for n in 0..3 {
                cask.put([n], vec![n; 1 << 20]).unwrap();
            }
            let (mut calls, mut child) = (0, -1);
            let copied = copy(&cask, &to, &mut |_| {
                calls += 1;
                if calls == nth {
                    // SAFETY: this process has no other thread that could hold a lock which the child wants.
                    child = unsafe { libc::fork() };
                    process::be_patient_for(30);
                }
                ControlFlow::Continue(())
            });
            if child == 0 {
                let refused = matches!(copied, Err(Error::Forked { .. }));
                drop(cask);
                // SAFETY: takes no pointer.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            copied.unwrap();
            if child < 0 {
                break;
            }
            let mut status = 0;
            // SAFETY: `status` is there to be written to.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "{name}: the child of call {nth} must be refused");
            cask.close().unwrap();
            let made = if name == "compact" { path } else { to };
            assert_eq!(Cask::open(&made).unwrap().list("").unwrap().len(), 3, "{name}, {nth}");
        }
    }
}

#[test]
fn another_program_started_by_this_one_inherits_no_descriptor() {
    let Some(()) = with_a_deadline(another_program_started_by_this_one_inherits_no_descriptor) else { return };
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
