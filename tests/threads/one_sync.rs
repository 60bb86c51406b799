//! Two syncs of one handle never run at the same time: of two such syncs of one file description, the system reports a
//! failed write to one alone, and the other would take lost bytes for durable.
//!
//! The thread of an interval is held in the middle of a sync, while another thread makes a call that syncs too. The simulated
//! disk notices a second sync.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Cask, CompactionPolicy, Config, Durability};

/// How long the thread is held. A second sync that comes later than this is not noticed; none that comes makes a test fail
/// that should not.
const HELD: Duration = Duration::from_millis(200);

/// Far more than any call takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds the sync of an interval, makes a call meanwhile, and returns once both are over.
fn meanwhile(what: &str, prepare: impl FnOnce(&SimDisk), call: impl FnOnce(&Cask) + Send + 'static) {
    let disk = SimDisk::new();
    let config = Config::new().durability(Durability::Interval(Duration::from_millis(1)));
    let config = config.compaction(CompactionPolicy::Manual);
    let cask = Cask::open_on(Arc::new(disk.clone()), "/store", &config).unwrap();
    cask.put("key", "value").unwrap();
    cask.sync().unwrap();
    let (began, begins) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    disk.before(When::next().of(Verb::SyncData).by(&disk), Repeat::Once, move |_| {
        began.send(()).unwrap();
        let since = Instant::now();
        while !is_over.load(Ordering::SeqCst) && since.elapsed() < HELD {
            thread::sleep(Duration::from_millis(1));
        }
    });
    // What the interval's thread syncs.
    cask.put("key", "another value").unwrap();
    begins.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: the interval's thread does not sync"));
    prepare(&disk);
    let (done, ends) = mpsc::channel();
    let caller = thread::spawn(move || {
        call(&cask);
        done.send(()).unwrap();
    });
    let ended = ends.recv_timeout(PATIENCE);
    over.store(true, Ordering::SeqCst);
    assert_ne!(ended, Err(mpsc::RecvTimeoutError::Timeout), "{what} does not end");
    if let Err(panic) = caller.join() {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        panic!("{what}, while the interval's thread syncs: {text}");
    }
}

/// Another process dies in the middle of a write.
fn tear(disk: &SimDisk) {
    let process = disk.process();
    let config = Config::new().durability(Durability::Os);
    let dying = Cask::open_on(Arc::new(process.clone()), "/store", &config).unwrap();
    dying.put("whole", "value").unwrap();
    disk.fail(When::next().of(Verb::WriteAt).by(&process), Fault::Kill(50), Repeat::Once);
    dying.put("torn", "value").unwrap_err();
}

#[test]
fn a_call_does_not_sync_while_the_interval_syncs() {
    meanwhile("sync", |_| {}, |cask| cask.sync().unwrap());
    meanwhile("close", |_| {}, |cask| cask.close().unwrap());
    meanwhile("compact", |_| {}, |cask| assert_eq!(cask.compact().unwrap().keys, 1));
}

#[test]
fn a_cut_does_not_sync_while_the_interval_syncs() {
    meanwhile("a put that cuts off a torn tail", tear, |cask| cask.put("next", "value").map(drop).unwrap());
}
