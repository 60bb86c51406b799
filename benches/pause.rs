//! Measures how long a put or a get waits while the store is compacted, beside the same load without compaction.
//!
//! ```text
//! cargo bench --bench pause                              # a million keys, ten seconds for each row
//! cargo bench --bench pause -- --keys 100000 --seconds 3
//! ```
//!
//! One thread puts and one gets, each as fast as it can, with random keys, and every call is timed. At the start half of the
//! file is dead. In the second half of the rows the store is compacted again and again meanwhile.
//!
//! The machine itself makes calls wait, and a sync of the disk can take long without a compaction: only the difference
//! between two rows counts. A compaction ends with freeing the old file's blocks, which the file system does at a time of
//! its choice. So the last rows show how long a bare append and sync waits while only a file of that size is removed. The
//! files are in the system's temporary directory (`TMPDIR`).

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability};

mod common;

use common::{Directory, RECORD_LEN, VALUE, numbers, random, spread_key};

struct Options {
    keys: u64,
    seconds: u64,
}

fn main() {
    let [keys, seconds] = numbers("pause", [("--keys", 1_000_000), ("--seconds", 10)]);
    let options = Options { keys, seconds };
    let directory = Directory::new("pause");
    println!(
        "{} keys of 16 bytes, values of 100; {} s a row; in {}\n",
        options.keys,
        options.seconds,
        directory.path().display()
    );
    println!("{:<34}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "calls/s", "p50", "p99", "p99.9", "max", "next");
    for (name, durability) in [("durable", Durability::Sync), ("not synced", Durability::Os)] {
        let path = directory.path().join(name);
        fill(&path, options.keys);
        let config = Config::new().durability(durability).compaction(CompactionPolicy::Manual);
        let cask = Cask::open_with(&path, &config).unwrap();
        let alone = load(&cask, &options, false);
        let beside = load(&cask, &options, true);
        println!("{name}:");
        for (what, at) in [("put", 0), ("get", 1)] {
            alone.row(&format!("  {what}, no compaction"), at);
            beside.row(&format!("  {what}, {} compactions", beside.compactions), at);
        }
        let (before, after) = (alone.longest(0), beside.longest(0));
        let aim = (before * 3).max(Duration::from_millis(20));
        println!(
            "  longest put {before:.1?} without, {after:.1?} with: {} (aim: {aim:.1?})",
            if after <= aim { "reached" } else { "MISSED" }
        );
        println!("  one compaction takes {:.2?}\n", beside.elapsed / beside.compactions.max(1));
        cask.close().unwrap();
    }
    let bytes = 2 * options.keys * RECORD_LEN as u64;
    println!("bare append and sync:");
    for remove in [false, true] {
        let (waits, elapsed) = bare(directory.path(), bytes, remove);
        let name = format!("  {REMOVED} files of {} MB {}", bytes / 1_000_000, if remove { "go" } else { "stay" });
        row(&name, &waits, elapsed);
    }
}

/// Writes every key twice, so that half of the file is dead.
fn fill(path: &Path, keys: u64) {
    let config = Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual);
    let cask = Cask::open_with(path, &config).unwrap();
    for _ in 0..2 {
        for first in (0..keys).step_by(1000) {
            let mut batch = Batch::new();
            for number in first..keys.min(first + 1000) {
                batch.put(spread_key(number), VALUE);
            }
            cask.write(&batch).unwrap();
        }
    }
    cask.close().unwrap();
}

struct Outcome {
    /// How long each put and each get took, in nanoseconds, sorted.
    waits: [Vec<u32>; 2],
    compactions: u32,
    elapsed: Duration,
}

fn load(cask: &Cask, options: &Options, compact: bool) -> Outcome {
    let done = AtomicBool::new(false);
    let began = Instant::now();
    let mut compactions = 0;
    let waits = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| timed(options.keys, &done, 1, |key| cask.put(key, VALUE).map(drop).unwrap())),
            scope.spawn(|| timed(options.keys, &done, 2, |key| drop(cask.get(key).unwrap()))),
        ];
        let time = Duration::from_secs(options.seconds);
        while began.elapsed() < time {
            if compact {
                cask.compact().unwrap();
                compactions += 1;
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        done.store(true, Ordering::Relaxed);
        threads.map(|thread| thread.join().unwrap())
    });
    Outcome { waits, compactions, elapsed: began.elapsed() }
}

/// Calls with random keys until the time is over, and returns how long each call took.
fn timed(keys: u64, done: &AtomicBool, seed: u64, call: impl Fn([u8; 16])) -> Vec<u32> {
    let mut numbers = random(seed, keys);
    let mut waits = Vec::with_capacity(1 << 22);
    while !done.load(Ordering::Relaxed) {
        let key = spread_key(numbers.next().unwrap());
        let began = Instant::now();
        call(key);
        waits.push(began.elapsed().as_nanos().min(u32::MAX.into()) as u32);
    }
    waits.sort_unstable();
    waits
}

impl Outcome {
    fn longest(&self, at: usize) -> Duration {
        Duration::from_nanos(self.waits[at].last().copied().unwrap_or(0).into())
    }

    fn row(&self, name: &str, at: usize) {
        row(name, &self.waits[at], self.elapsed);
    }
}

fn row(name: &str, waits: &[u32], elapsed: Duration) {
    let rate = waits.len() as f64 / elapsed.as_secs_f64();
    let place = |part: f64| (part * (waits.len() - 1) as f64) as usize;
    let shown = [place(0.5), place(0.99), place(0.999), waits.len() - 1, waits.len().saturating_sub(2)]
        .map(|place| format!("{:.1?}", Duration::from_nanos(waits[place].into())));
    println!("{name:<34}{rate:>9.0}{:>10}{:>10}{:>10}{:>10}{:>10}", shown[0], shown[1], shown[2], shown[3], shown[4]);
}

/// The number of files that are removed, and the time between two of them.
const REMOVED: u32 = 5;
const EACH: Duration = Duration::from_millis(400);

/// Returns how long each append of a record's length waits for its sync, while files of `bytes` bytes are removed or not.
fn bare(directory: &Path, bytes: u64, remove: bool) -> (Vec<u32>, Duration) {
    let piece = [1; 1 << 20];
    let files: Vec<_> = (0..REMOVED).map(|nth| directory.join(format!("file-{nth}"))).collect();
    for path in &files {
        let mut file = File::create(path).unwrap();
        for _ in 0..bytes.div_ceil(piece.len() as u64) {
            file.write_all(&piece).unwrap();
        }
        file.sync_all().unwrap();
    }
    let log = File::create(directory.join("appended")).unwrap();
    let (done, began) = (AtomicBool::new(false), Instant::now());
    let waits = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            timed(1, &done, 1, |_| {
                (&log).write_all(&[1; RECORD_LEN]).unwrap();
                log.sync_data().unwrap();
            })
        });
        for path in &files {
            if remove {
                std::fs::remove_file(path).unwrap();
            }
            std::thread::sleep(EACH);
        }
        done.store(true, Ordering::Relaxed);
        waits.join().unwrap()
    });
    (waits, began.elapsed())
}
