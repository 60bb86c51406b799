//! Writes without syncs that follow each other closely: between them, the file's lock lingers.

use std::path::Path;
use std::time::Duration;

use caskfile::{Cask, Config, Durability};

use crate::common::process::{self, in_own_process, this_test};

fn open(path: &Path) -> Cask {
    Cask::open_with(path, &Config::new().durability(Durability::Os)).unwrap()
}

fn burst(cask: &Cask) {
    (0..64u64).for_each(|n| _ = cask.put(n.to_le_bytes(), "value").unwrap());
}

/// Forks. The child does what it is for, and ends.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: no other thread of this process has a lock that the child wants. The child leaves by `_exit`, and so runs nothing
    // that is the parent's.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "{}", std::io::Error::last_os_error());
    if id == 0 {
        process::be_patient_for(30);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: takes no pointer.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    id
}

/// A child shares its parent's descriptions and their locks. A parent that ends right after a burst, as a program does that goes to the
/// background, must not leave its lock with the child.
#[test]
fn a_child_forked_in_a_burst_does_not_keep_the_lock() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    for round in 0..40 {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let parent = fork(|| {
            let cask = open(&path);
            burst(&cask);
            let child = fork(|| {
                // SAFETY: takes no pointer. It waits for a signal.
                unsafe { libc::pause() };
            });
            // SAFETY: the bytes of `child` are there to be read.
            unsafe { libc::write(ends[1], (&raw const child).cast(), size_of_val(&child)) };
            if round % 2 == 1 {
                // Nor may the lock linger later: the child has the description still.
                burst(&cask);
            }
            // SAFETY: takes no pointer.
            unsafe { libc::_exit(0) };
        });
        let (mut status, mut child) = (0, 0);
        // SAFETY: `status` and `child` are there to be written to.
        unsafe {
            assert_eq!(libc::waitpid(parent, &mut status, 0), parent);
            assert_eq!(libc::read(ends[0], (&raw mut child).cast(), size_of_val(&child)), 4);
            assert_eq!(ends.map(|end| libc::close(end)), [0; 2]);
        }
        assert_eq!(status, 0);
        let written = Cask::open_with(&path, &Config::new().connection_timeout(Duration::from_secs(2)))
            .and_then(|cask| cask.put("after", round.to_string()));
        // SAFETY: takes no pointer. The child waits for a signal.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert!(written.is_ok(), "round {round}: {written:?}");
    }
}

fn has_helper() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.unwrap().path().join("comm"));
    // A thread may end in between.
    threads.filter_map(|thread| name(thread).ok()).any(|name| name.trim() == "caskfile-lock")
}

#[test]
fn a_thread_releases_the_lock_and_ends_when_nothing_is_written() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let cask = open(&directory.join("store"));
    cask.put("one", "").unwrap();
    cask.sync().unwrap();
    cask.put("another", "").unwrap();
    assert!(!has_helper(), "there was no burst");
    while !has_helper() {
        burst(&cask);
    }
    // A process that hangs is ended by a signal.
    while has_helper() {
        std::thread::sleep(Duration::from_millis(10));
    }
    burst(&cask);
    cask.close().unwrap();
}

/// Handles of one process have descriptions of their own, and wait for one another as processes do.
#[test]
fn two_handles_of_a_process_share_the_file() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let casks = [(); 3].map(|()| open(&directory.join("store")));
    std::thread::scope(|scope| {
        for (n, cask) in casks.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..3000 {
                    cask.put(format!("{n}/{round}"), "").unwrap();
                }
            });
        }
    });
    for cask in &casks {
        assert_eq!(cask.list("").unwrap().len(), 9000);
        cask.verify().unwrap();
        assert_eq!(cask.stats().unwrap().last_index, casks[0].stats().unwrap().last_index);
    }
}
