//! What the library reports through the crate `log`, seen by a logger that keeps everything. A process has one logger for
//! everything in it, so this is one test, in a process of its own: `cargo test --features log --test contract events`.

use std::sync::{Arc, Mutex};

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config, Durability, Error, salvage_on};
use log::Level::{Debug, Error as Failure, Info, Warn};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::common::process::{Process, arguments, this_test};

const STORE: &str = "/store";

/// The events so far.
struct Kept(Mutex<Vec<(Level, String)>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        assert_eq!(record.target(), "caskfile");
        self.0.lock().unwrap().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Checks the events since the last call: a level and a word of each.
#[track_caller]
fn expect_events(expected: &[(Level, &str)]) {
    let events = std::mem::take(&mut *KEPT.0.lock().unwrap());
    let matches = events.len() == expected.len()
        && events.iter().zip(expected).all(|((level, message), (expected, word))| {
            level == expected && message.contains(word) && message.starts_with(STORE)
        });
    assert!(matches, "expected {expected:?}, got {events:#?}");
    assert!(events.iter().all(|(_, message)| !message.contains("secret")));
}

#[test]
fn the_log_reports_what_no_call_returns() {
    if arguments().is_none() {
        return Process::start(this_test!(), &[]).succeed();
    }
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let disk = SimDisk::new();
    let open = |config: &Config| Cask::open_on(Arc::new(disk.process()), STORE, config).unwrap();

    let cask = open(&Config::new());
    expect_events(&[(Debug, "opened: 0 keys")]);
    cask.put("secret key", "secret value").unwrap();
    assert_eq!(cask.get("secret key").unwrap().value, b"secret value");
    assert!(matches!(cask.get("none"), Err(Error::KeyNotFound)));
    expect_events(&[]);
    let other = open(&Config::new());
    expect_events(&[(Debug, "opened: 1 keys")]);
    cask.compact().unwrap();
    expect_events(&[(Info, "compacted from")]);
    other.put("secret key", "secret value").unwrap();
    expect_events(&[(Debug, "the file that has the path now")]);
    cask.backup("/copy").unwrap();
    expect_events(&[(Info, "1 keys were copied to /copy")]);
    salvage_on(&disk, STORE.as_ref(), "/rescued".as_ref()).unwrap();
    expect_events(&[(Info, "1 keys were salvaged to /rescued, 0 ranges are lost")]);
    other.close().unwrap();
    expect_events(&[(Debug, "closed")]);

    disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
    for _ in 0..3 {
        assert!(matches!(cask.put("secret key", ""), Err(Error::Poisoned { .. })));
    }
    expect_events(&[(Failure, "writes are refused since a sync failed: Input/output error")]);
    disk.fail(When::next().of(Verb::Open), Fault::Os(libc::EMFILE), Repeat::Once);
    assert!(cask.reopen().is_err());
    expect_events(&[]);
    cask.reopen().unwrap();
    expect_events(&[(Debug, "the file that has the path now"), (Debug, "opened: 1 keys"), (Info, "reopened")]);

    // What a killed process leaves: a record that is not whole, one after it, and an unfinished file.
    let os = Config::new().durability(Durability::Os);
    let writer = open(&os);
    for key in ["secret 1", "secret 2"] {
        writer.put(key, "secret value").unwrap();
    }
    let mut bytes = disk.contents(STORE).unwrap();
    let at = bytes.windows(8).position(|window| window == b"secret 1").unwrap();
    bytes[at] ^= 1;
    drop((cask, writer));
    expect_events(&[(Debug, "opened"), (Debug, "closed"), (Debug, "closed")]);
    let disk = SimDisk::new();
    disk.set_contents(STORE, bytes);
    disk.set_contents("/store.tmp-0000000000000000", vec![1; 100]);
    let cask = Cask::open_on(Arc::new(disk.process()), STORE, &os).unwrap();
    expect_events(&[
        (Info, "store.tmp-0000000000000000: removed"),
        (Warn, "whole records in it is kept as /store.torn-"),
        (Warn, "was cut off at"),
        (Debug, "opened: 1 keys"),
    ]);

    // Dropping the last handle closes the store without returning the outcome.
    cask.put("secret key", "").unwrap();
    disk.fail(When::next().of(Verb::SyncData), Fault::Os(libc::EIO), Repeat::Once);
    drop(cask);
    expect_events(&[(Failure, "writes are refused"), (Debug, "closed"), (Warn, "closing: ")]);

    // A log whose end mark is missing is not torn.
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(disk.process()), STORE, &os).unwrap();
    cask.put("secret key", "").unwrap();
    let end = cask.stats().unwrap().log_end as usize;
    // As a killed process leaves it: a close would state that the end mark was on stable storage.
    let left = disk.fork();
    drop(cask);
    let mut bytes = left.contents(STORE).unwrap();
    bytes.truncate(end);
    left.set_contents(STORE, bytes);
    expect_events(&[(Debug, "opened: 0 keys"), (Debug, "closed")]);
    drop(Cask::open_on(Arc::new(left.process()), STORE, &os).unwrap());
    expect_events(&[(Debug, "opened: 1 keys"), (Debug, "closed")]);
}
