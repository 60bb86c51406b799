//! What does not have to wait for a read: a write beside a long one, and a write of the code that makes a key's bytes.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::TempDir;
use crate::common::hooked::{Call, HookedDisk};
use caskfile::{Batch, Cask, Config, KvPair, ReadMode, SnapshotPolicy};

/// Nothing here takes this long, unless it never ends.
const FOR_EVER: Duration = Duration::from_secs(120);

/// Runs something that must come to an end.
fn ends(name: &str, act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        act();
        let _ = done.send(());
    });
    match is_done.recv_timeout(FOR_EVER) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs"),
    }
}

/// A key, or a value, that is written to the store when its bytes are asked for.
struct Writes<'c>(&'c Cask, &'static str);

impl AsRef<[u8]> for Writes<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.put("written by as_ref", self.1).unwrap();
        self.1.as_bytes()
    }
}

type CallWith = (&'static str, fn(&Cask, Writes<'_>));

const CALLS: &[CallWith] = &[
    ("get", |cask, key| assert_eq!(cask.get(key).unwrap().value, b"value")),
    ("get_into", |cask, key| assert!(cask.get_into(key, &mut Vec::new()).is_ok())),
    ("exists", |cask, key| assert!(cask.exists(key).unwrap())),
    // SAFETY: nothing but this test has the file.
    ("mapped get", |cask, key| assert_eq!(&*unsafe { cask.mapped() }.get(key).unwrap(), b"value")),
    ("list", |cask, key| assert_eq!(cask.list(key).unwrap().len(), 1)),
    ("scan", |cask, key| assert_eq!(cask.scan(key).unwrap().len(), 1)),
    ("visit", |cask, key| cask.visit(key, |_| ControlFlow::Continue(())).unwrap()),
    ("range from", |cask, key| assert!(cask.range(key..).unwrap().next().is_some())),
    ("range up to", |cask, key| assert!(cask.range(..=key).unwrap().next().is_some())),
    ("range after", |cask, key| {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        assert!(cask.range(after).unwrap().all(|pair| pair.unwrap().key != b"key"));
    }),
    ("put", |cask, key| cask.put(key, "value").map(drop).unwrap()),
    ("put of a value", |cask, value| cask.put("another", value).map(drop).unwrap()),
    ("atomic_put", |cask, key| {
        let pair = cask.get("key").unwrap();
        cask.atomic_put(key, "value", Some(&pair)).unwrap();
    }),
    ("atomic_put of a value", |cask, value| drop(cask.atomic_put("key", value, Some(&KvPair::new("key", "", 1))))),
    ("atomic_delete", |cask, key| {
        let pair = cask.get("key").unwrap();
        cask.atomic_delete(key, Some(&pair)).unwrap();
    }),
    ("update", |cask, key| drop(cask.update(key, |_| b"value".to_vec()).unwrap())),
    ("delete", |cask, key| cask.delete(key).unwrap()),
    ("delete_prefix", |cask, key| assert_eq!(cask.delete_prefix(key).unwrap(), 1)),
    ("bucket", |cask, name| assert!(cask.bucket(name).unwrap().list("").unwrap().is_empty())),
    ("batch", |cask, key| {
        let mut batch = Batch::new();
        batch.put(&key, &key).delete(&key).expect_absent(Writes(key.0, "absent")).bucket(&key).put(&key, "");
        assert!(cask.write(&batch).unwrap().last_index().is_some());
        let index = cask.get("written by as_ref").unwrap().last_index;
        batch = Batch::new();
        batch.expect_last_index(&key, index);
        assert!(cask.write(&batch).is_err());
    }),
];

/// The key was made while the view's lock was held, which the write then waited for.
#[test]
fn a_key_conversion_that_writes_hangs_no_call() {
    for listed in [false, true] {
        for &(name, call) in CALLS {
            ends(name, move || {
                let dir = TempDir::new();
                let cask = Cask::open(dir.join("store")).unwrap();
                cask.put("key", "value").unwrap();
                if listed {
                    cask.list("").unwrap();
                }
                call(&cask, Writes(&cask, "key"));
                assert_eq!(cask.get("written by as_ref").unwrap().value, b"key");
            });
        }
    }
}

/// Holds up the read that begins inside of a range of the file, until it is let go.
struct Gate {
    armed: AtomicBool,
    from: AtomicU64,
    to: AtomicU64,
    reached: Mutex<mpsc::Sender<()>>,
    opened: Mutex<Receiver<()>>,
}

impl Gate {
    fn pass(&self, call: &Call<'_>) {
        let range = self.from.load(Ordering::SeqCst)..self.to.load(Ordering::SeqCst);
        if call.name == "read_at" && range.contains(&call.at) && self.armed.swap(false, Ordering::SeqCst) {
            self.reached.lock().unwrap().send(()).unwrap();
            self.opened.lock().unwrap().recv().unwrap();
        }
    }
}

type Read = (&'static str, fn(&Cask) -> usize);

const LEN: usize = 1 << 20;

/// Each returns how long the value is that it has read.
const LONG_READS: &[Read] = &[
    ("get", |cask| cask.get("long").unwrap().value.len()),
    ("get_into", |cask| {
        let mut value = Vec::new();
        cask.get_into("long", &mut value).unwrap();
        value.len()
    }),
    // SAFETY: nothing but this test has the file.
    ("mapped get", |cask| unsafe { cask.mapped() }.get("long").unwrap().len()),
    ("list", |cask| cask.list("long").unwrap()[0].value.len()),
    ("scan", |cask| cask.scan("long").unwrap().next().unwrap().unwrap().value.len()),
    ("range", |cask| cask.range("long"..).unwrap().next_ref().unwrap().unwrap().value.len()),
    ("visit", |cask| {
        let mut len = 0;
        let add = |pair: caskfile::PairRef<'_>| {
            len += pair.value.len();
            ControlFlow::Continue(())
        };
        cask.visit("long", add).unwrap();
        len
    }),
    ("update", |cask| {
        let mut len = 0;
        let count = |pair: Option<&KvPair>| {
            len = pair.unwrap().value.len();
            b"short".to_vec()
        };
        cask.update("long", count).unwrap();
        len
    }),
];

/// A long value was copied and checked while the view's lock was held: each put of this process waited for that, and with
/// the put every other read.
#[test]
fn writes_and_short_reads_do_not_wait_for_long_reads() {
    for &(name, read) in LONG_READS {
        ends(name, move || {
            let (reached, is_reached) = mpsc::channel();
            let (open, opened) = mpsc::channel();
            let gate = Arc::new(Gate {
                armed: AtomicBool::new(false),
                from: AtomicU64::new(0),
                to: AtomicU64::new(0),
                reached: Mutex::new(reached),
                opened: Mutex::new(opened),
            });
            let hook = Arc::clone(&gate);
            let disk = HookedDisk::watched(move |call| {
                hook.pass(call);
                Ok(())
            });
            let dir = TempDir::new();
            // A snapshot could follow the long value before the log's end is asked for.
            let config = Config::new().read_mode(ReadMode::Pread).snapshots(SnapshotPolicy::Never);
            let cask = Cask::open_on(Arc::new(disk), dir.join("store"), &config).unwrap();
            cask.put("short", "value").unwrap();
            cask.put("long", vec![7; LEN]).unwrap();
            cask.list("short").unwrap();
            // All of the record but its start, and the key, which are read to find it.
            let (header_and_key, len) = (24 + 5, (24 + 5 + LEN as u64).next_multiple_of(8));
            let end = cask.stats().unwrap().log_end;
            let start = end - len;
            let reads_all = ["range", "visit"].contains(&name);
            let from = start + if reads_all { 1 } else { header_and_key };
            gate.from.store(from, Ordering::SeqCst);
            gate.to.store(if reads_all { start + 24 } else { end }, Ordering::SeqCst);
            gate.armed.store(true, Ordering::SeqCst);
            thread::scope(|scope| {
                let reading = scope.spawn(|| read(&cask));
                is_reached.recv().unwrap();
                cask.put("short", "another").unwrap();
                assert_eq!(cask.get("short").unwrap().value, b"another");
                assert!(cask.exists("long").unwrap());
                open.send(()).unwrap();
                assert_eq!(reading.join().unwrap(), LEN, "{name}");
            });
        });
    }
}
