//! After a call that fails without any fault of the disk, nothing stays locked or open: a call that is refused, cancelled,
//! too late, or whose closure panics, and an opening that fails.
//!
//! Each failure happens on the simulated disk, which says what locks and files the process has, and on real files. While the
//! handle is still open, a process that had the store open, and a new one, write without any patience. Then the handle itself
//! goes on.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::sim::SimDisk;
use caskfile::disk::{Access, Disk, RealDisk};
use caskfile::{Batch, Cask, Config, Error, LockMode, Result, salvage_on};

use crate::common::TempDir;

/// A store that a handle, which will fail, and another process have open.
struct Scene {
    /// Of the handle's process.
    disk: Arc<dyn Disk>,
    simulated: Option<SimDisk>,
    /// Of a process without a store.
    outsider: Arc<dyn Disk>,
    _directory: Option<TempDir>,
    path: PathBuf,
    /// Opened before `handle`, and never exclusive.
    other: Cask,
    handle: Cask,
    lock_mode: LockMode,
}

impl Scene {
    fn new(is_simulated: bool, lock_mode: LockMode) -> Scene {
        let directory = (!is_simulated).then(TempDir::without_waits);
        let path = directory.as_ref().map_or_else(|| "/store".into(), |directory| directory.join("store"));
        let simulated = is_simulated.then(SimDisk::new);
        let process = simulated.as_ref().map(SimDisk::process);
        let other = Cask::open_on(new_process(simulated.as_ref()), &path, &config()).unwrap();
        for key in ["a", "b", "c"] {
            other.put(key, "before").unwrap();
            other.put(key, "value").unwrap();
        }
        let disk = process.clone().map_or_else(|| Arc::new(RealDisk) as Arc<dyn Disk>, |disk| Arc::new(disk));
        let outsider = new_process(simulated.as_ref());
        let handle = Cask::open_on(Arc::clone(&disk), &path, &config().lock_mode(lock_mode)).unwrap();
        handle.put("own", "value").unwrap();
        Scene { disk, simulated: process, outsider, _directory: directory, path, other, handle, lock_mode }
    }

    fn sibling(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Opens another store beside this one, as the same process.
    fn open(&self, name: &str, config: &Config) -> Result<Cask> {
        Cask::open_on(Arc::clone(&self.disk), self.sibling(name), config)
    }

    /// Makes a file with these bytes.
    fn lay_out(&self, name: &str, bytes: &[u8]) {
        match &self.simulated {
            Some(disk) => disk.set_contents(self.sibling(name), bytes.to_vec()),
            None => std::fs::write(self.sibling(name), bytes).unwrap(),
        }
    }

    /// What this process has locked and opened, if the disk knows.
    fn holds(&self) -> Option<(Vec<PathBuf>, usize)> {
        self.simulated.as_ref().map(|disk| (disk.locks(), disk.open_files()))
    }

    /// Nothing of this process stands in the line for the lock. Others would wait for it, out of courtesy.
    fn expect_no_place_in_line(&self, what: &str) {
        let file = self.outsider.open(&self.path, Access::ReadWrite).unwrap();
        let place = file.waiting_line().and_then(|line| line.place_of_another(0..1 << 40));
        assert_eq!(place, None, "{what}: the process still stands in the line for the lock");
    }

    /// The others write, or find the store locked, as it was before.
    fn others_write(&self, what: &str) {
        let new = || Cask::open_on(new_process(self.simulated.as_ref()), &self.path, &config());
        if self.lock_mode == LockMode::Exclusive {
            let results = [self.other.put("a", "not written").map(drop), new().map(drop)];
            assert!(
                results.iter().all(|result| matches!(result, Err(Error::LockTimeout { .. }))),
                "{what}: an exclusive handle has given up its lock: {results:?}"
            );
            return;
        }
        let value = what.to_owned();
        self.other.put("a", &value).unwrap_or_else(|error| panic!("{what}: the other process gets: {error}"));
        let new = new().unwrap_or_else(|error| panic!("{what}: a new process gets, from opening: {error}"));
        new.put("b", &value).unwrap_or_else(|error| panic!("{what}: a new process gets: {error}"));
        new.close().unwrap();
    }
}

fn new_process(simulated: Option<&SimDisk>) -> Arc<dyn Disk> {
    simulated.map_or_else(|| Arc::new(RealDisk) as Arc<dyn Disk>, |disk| Arc::new(disk.process()))
}

/// No call waits for a lock.
fn config() -> Config {
    Config::new().connection_timeout(Duration::ZERO)
}

/// What a call of a handle comes to.
type Failing = fn(&Scene) -> Result<()>;

fn stale(scene: &Scene) -> caskfile::KvPair {
    let pair = scene.handle.get("a").unwrap();
    scene.handle.put("a", "newer").unwrap();
    pair
}

/// Makes a call while another process has the lock. An exclusive handle has it: then another opening meets that.
fn locked_out(scene: &Scene, call: impl FnOnce(&Cask) -> Result<()>) -> Result<()> {
    let file = scene.outsider.open(&scene.path, Access::ReadWrite).unwrap();
    if file.try_lock().unwrap() { call(&scene.handle) } else { scene.open("store", &config()).map(drop) }
}

fn panic_of_a_closure() -> ! {
    // Without a message of the panic hook.
    resume_unwind(Box::new("of a closure"))
}

/// Calls that fail, by what makes them fail.
const FAILING: [(&str, Failing); 42] = [
    ("a get of an absent key", |s| s.handle.get("absent").map(drop)),
    ("a put with a key that is too long", |s| s.handle.put("k".repeat(1 << 17), "value").map(drop)),
    ("a put with an empty key", |s| s.handle.put("", "value").map(drop)),
    ("a swap with a stale pair", |s| s.handle.atomic_put("a", "new", Some(&stale(s))).map(drop)),
    ("a swap of a key that is there, for an absent one", |s| s.handle.atomic_put("a", "new", None).map(drop)),
    ("a delete with a stale pair", |s| s.handle.atomic_delete("a", Some(&stale(s))).map(drop)),
    ("a delete of an absent key with a pair", |s| {
        let pair = s.handle.get("a")?;
        s.handle.delete("a")?;
        s.handle.atomic_delete("a", Some(&pair)).map(drop)
    }),
    ("a batch whose condition does not hold", |s| {
        let mut batch = Batch::new();
        batch.put("a", "new").expect_absent("b").delete("c");
        s.handle.write(&batch).map(drop)
    }),
    ("an update whose closure panics", |s| s.handle.update("a", |_| -> Vec<u8> { panic_of_a_closure() }).map(drop)),
    ("an update of an absent key whose closure panics", |s| {
        s.handle.update("absent", |_| -> Vec<u8> { panic_of_a_closure() }).map(drop)
    }),
    ("a compaction whose closure panics", |s| s.handle.compact_with(|_| panic_of_a_closure()).map(drop)),
    ("a compaction whose closure panics later", |s| {
        // It reports after each megabyte.
        s.handle.put("large", vec![7; 2 << 20])?;
        let mut calls = 0;
        s.handle
            .compact_with(|_| {
                calls += 1;
                if calls > 1 { panic_of_a_closure() } else { ControlFlow::Continue(()) }
            })
            .map(drop)
    }),
    ("a compaction that is cancelled", |s| s.handle.compact_with(|_| ControlFlow::Break(())).map(drop)),
    ("a backup that is cancelled", |s| s.handle.backup_with(s.sibling("copy"), |_| ControlFlow::Break(())).map(drop)),
    ("a backup whose closure panics", |s| s.handle.backup_with(s.sibling("copy"), |_| panic_of_a_closure()).map(drop)),
    ("a backup to a name that is taken", |s| s.handle.backup(&s.path).map(drop)),
    ("a compaction to a name that is taken", |s| s.handle.compact_to(&s.path).map(drop)),
    ("a compact_to that is cancelled", |s| {
        s.handle.compact_to_with(s.sibling("copy"), |_| ControlFlow::Break(())).map(drop)
    }),
    ("a compact_to whose closure panics", |s| {
        s.handle.compact_to_with(s.sibling("copy"), |_| panic_of_a_closure()).map(drop)
    }),
    ("a salvage to a name that is taken", |s| salvage_on(&*s.disk, &s.path, &s.path).map(drop)),
    ("a put that may not wait for the lock", |s| locked_out(s, |handle| handle.put("a", "not written").map(drop))),
    ("a batch that may not wait for the lock", |s| {
        let mut batch = Batch::new();
        batch.put("a", "not written").put("b", "not written");
        locked_out(s, |handle| handle.write(&batch).map(drop))
    }),
    ("a delete_prefix that may not wait for the lock", |s| locked_out(s, |handle| handle.delete_prefix("").map(drop))),
    ("a sync that may not wait for the lock", |s| locked_out(s, Cask::sync)),
    ("a compaction that may not wait for the lock", |s| locked_out(s, |handle| handle.compact().map(drop))),
    ("a reopening that may not wait for the lock", |s| locked_out(s, Cask::reopen)),
    ("a compaction that may not wait for its second turn", |s| {
        let file = s.outsider.open(&s.path, Access::ReadWrite).unwrap();
        let compacted = s.handle.compact_with(|_| {
            // An exclusive handle goes on, until it is cancelled.
            if file.try_lock().unwrap() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        compacted.map(drop)
    }),
    ("a visit whose closure panics", |s| s.handle.visit("", |_| panic_of_a_closure()).map(drop)),
    ("a compaction that other links refuse", |s| {
        s.outsider.link(&s.path, &s.sibling("second")).unwrap();
        let refused = s.handle.compact().map(drop);
        s.outsider.remove(&s.sibling("second")).unwrap();
        refused
    }),
    ("a put after the file was replaced", |s| {
        s.outsider.rename(&s.path, &s.sibling("away")).unwrap();
        let refused = s.handle.put("a", "lost");
        s.outsider.rename(&s.sibling("away"), &s.path).unwrap();
        refused.map(drop)
    }),
    ("a compaction after the file was replaced", |s| {
        s.outsider.rename(&s.path, &s.sibling("away")).unwrap();
        let refused = s.handle.compact().map(drop);
        s.outsider.rename(&s.sibling("away"), &s.path).unwrap();
        refused
    }),
    ("a reopening without a file", |s| {
        s.outsider.rename(&s.path, &s.sibling("away")).unwrap();
        let refused = s.handle.reopen();
        s.outsider.rename(&s.sibling("away"), &s.path).unwrap();
        refused
    }),
    ("an opening of what is no store", |s| {
        s.lay_out("foreign", &[b'x'; 100]);
        s.open("foreign", &config()).map(drop)
    }),
    ("an opening of what is too short for a store", |s| {
        s.lay_out("short", b"short");
        s.open("short", &config()).map(drop)
    }),
    ("an opening of a damaged store", |s| {
        let store = s.open("damaged", &config())?;
        for key in ["a", "b", "c"] {
            store.put(key, vec![7; 300])?;
        }
        store.close()?;
        let path = s.sibling("damaged");
        let mut bytes = match &s.simulated {
            Some(disk) => disk.contents(&path).unwrap(),
            None => std::fs::read(&path).unwrap(),
        };
        // In the first value: the log starts at 216 with a mark of 24 bytes.
        bytes[300] ^= 1;
        s.lay_out("damaged", &bytes);
        s.open("damaged", &config()).map(drop)
    }),
    ("an opening to read of what is not there", |s| s.open("nothing", &config().read_only(true)).map(drop)),
    ("an opening of what is not there, without creating it", |s| s.open("nothing", &config().create(false)).map(drop)),
    ("an opening of an empty file, without creating a store", |s| {
        s.lay_out("empty", b"");
        s.open("empty", &config().create(false)).map(drop)
    }),
    ("an opening of a store that is locked", |s| {
        let owner = s.open("locked", &config().lock_mode(LockMode::Exclusive))?;
        let refused = s.open("locked", &config()).map(drop);
        owner.close()?;
        refused
    }),
    ("an opening of an empty file that is locked", |s| {
        s.lay_out("empty", b"");
        let owner = s.outsider.open(&s.sibling("empty"), Access::ReadWrite).unwrap();
        assert!(owner.try_lock().unwrap());
        s.open("empty", &config()).map(drop)
    }),
    ("a put of a handle that only reads", |s| {
        s.open("store", &config().read_only(true))?.put("a", "not written").map(drop)
    }),
    ("a put of a closed handle", |s| {
        let second = s.open("second store", &config())?;
        second.close()?;
        second.put("a", "not written").map(drop)
    }),
];

fn every_failure(is_simulated: bool) {
    for lock_mode in [LockMode::PerWrite, LockMode::Exclusive] {
        for (number, (what, failing)) in FAILING.into_iter().enumerate() {
            // Real files take their time: each failure in one of the modes.
            if !is_simulated && (number % 2 == 0) != (lock_mode == LockMode::PerWrite) {
                continue;
            }
            let scene = Scene::new(is_simulated, lock_mode);
            let before = scene.holds();
            let outcome = catch_unwind(AssertUnwindSafe(|| failing(&scene)));
            assert!(!matches!(outcome, Ok(Ok(()))), "{what}: it does not fail");
            let what = &format!("after {what} ({lock_mode:?})");
            assert_eq!(scene.holds(), before, "{what}: other locks, or a file is left open");
            scene.expect_no_place_in_line(what);
            let left =
                scene.simulated.iter().flat_map(SimDisk::paths).find(|path| path.to_string_lossy().contains("tmp"));
            assert_eq!(left, None, "{what}: a temporary file is left");
            scene.others_write(what);
            scene.handle.put("c", what).unwrap_or_else(|error| panic!("{what}: the handle itself gets: {error}"));
            assert_eq!(scene.holds(), before, "{what}, and a put: other locks, or a file is left open");
            scene.others_write(what);
            scene.handle.close().unwrap();
            assert_eq!(
                scene.holds().unwrap_or_default(),
                (vec![], 0),
                "{what}, and closing: the process keeps something"
            );
            scene.other.put("a", "last").unwrap_or_else(|error| panic!("{what}, and closing: {error}"));
            scene.other.compact().unwrap_or_else(|error| panic!("{what}, and closing: {error}"));
        }
    }
}

#[test]
fn a_call_that_fails_keeps_no_lock_and_no_file_open() {
    every_failure(true);
}

#[test]
fn a_call_that_fails_on_real_files_keeps_no_lock() {
    every_failure(false);
}
