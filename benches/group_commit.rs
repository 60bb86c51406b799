//! Measures durable puts of many threads, each its own call, beside a bare append and sync of one record.
//!
//! ```text
//! cargo bench --bench group_commit                     # two seconds a row, three rounds
//! cargo bench --bench group_commit -- --seconds 5 --rounds 1
//! ```
//!
//! Floor and rows take turns in each round, because the speed of a disk changes by the second; the table shows the median
//! round. It also shows the waits of the floor: no store can avoid the longest wait of one thread that is alone with its
//! disk. `groups` is the number of puts that one write and one sync served. The files are in the system's temporary
//! directory (`TMPDIR`).

use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use caskfile::{Cask, CompactionPolicy, Config};

mod common;

use common::{Directory, RECORD_LEN, VALUE, numbers};

const THREADS: [usize; 5] = [1, 2, 8, 32, 128];

/// One row in one round.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    per_group: f64,
    median: Duration,
    p99: Duration,
    worst: Duration,
    /// The puts of the thread that got the fewest, in hundredths of a fair share.
    poorest: f64,
}

fn main() {
    let [seconds, rounds] = numbers("group_commit", [("--seconds", 2.0), ("--rounds", 3.0)]);
    let rounds = (rounds as usize).max(1);
    let directory = Directory::new("group");
    println!("durable puts, keys of 16 bytes, values of 100; {seconds} s a row; in {}\n", directory.path().display());
    let mut floors = Vec::new();
    let mut rows = [const { Vec::new() }; THREADS.len()];
    for round in 0..rounds {
        floors.push(floor(&directory.path().join("floor"), seconds));
        let path = directory.path().join(format!("store-{round}"));
        let cask = Cask::open_with(path, &Config::new().compaction(CompactionPolicy::Manual)).unwrap();
        cask.put("first", "").unwrap();
        for (threads, row) in THREADS.into_iter().zip(&mut rows) {
            row.push(puts(&cask, threads, seconds));
        }
        cask.close().unwrap();
    }
    println!(
        "{:>8}{:>10}{:>9}{:>10}{:>8}{:>11}{:>11}{:>11}{:>14}{:>9}",
        "threads", "puts/s", "floors", "1 thread", "groups", "median", "p99", "worst", "worst/median", "poorest"
    );
    let floor = median_round(&mut floors);
    floor.print("floor", floor.per_second, floor.per_second);
    let mut one_thread = None;
    for (threads, row) in THREADS.into_iter().zip(&mut rows) {
        let figures = median_round(row);
        figures.print(threads, floor.per_second, *one_thread.get_or_insert(figures.per_second));
    }
}

fn median_round(rounds: &mut [Figures]) -> Figures {
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds[rounds.len() / 2]
}

impl Figures {
    /// Makes a row from the waits of each thread, and from the number of groups that served all of them.
    fn new(threads: &[Vec<Duration>], groups: u64, elapsed: f64) -> Figures {
        let poorest = threads.iter().map(Vec::len).min().unwrap_or(0) as f64;
        let mut all = threads.concat();
        all.sort_unstable();
        Figures {
            per_second: all.len() as f64 / elapsed,
            per_group: all.len() as f64 / groups as f64,
            median: all[all.len() / 2],
            p99: all[all.len() * 99 / 100],
            worst: all[all.len() - 1],
            poorest: poorest * 100.0 * threads.len() as f64 / all.len() as f64,
        }
    }

    fn print(&self, what: impl Display, floor: f64, one_thread: f64) {
        println!(
            "{what:>8}{:>10.0}{:>8.2}x{:>9.2}x{:>8.1}{:>11.1?}{:>11.1?}{:>11.1?}{:>14.1}{:>8.0}%",
            self.per_second,
            self.per_second / floor,
            self.per_second / one_thread,
            self.per_group,
            self.median,
            self.p99,
            self.worst,
            self.worst.as_secs_f64() / self.median.as_secs_f64(),
            self.poorest
        );
    }
}

/// Appends to a file that was extended ahead, as the store does.
fn floor(path: &Path, seconds: f64) -> Figures {
    let file = File::create(path).unwrap();
    file.set_len(64 << 20).unwrap();
    file.sync_all().unwrap();
    let (began, mut waits) = (Instant::now(), Vec::new());
    while began.elapsed().as_secs_f64() < seconds {
        let append = Instant::now();
        file.write_all_at(&[1; RECORD_LEN], (waits.len() * RECORD_LEN) as u64).unwrap();
        file.sync_data().unwrap();
        waits.push(append.elapsed());
    }
    let groups = waits.len() as u64;
    Figures::new(&[waits], groups, began.elapsed().as_secs_f64())
}

fn puts(cask: &Cask, threads: usize, seconds: f64) -> Figures {
    let (barrier, groups) = (Barrier::new(threads), cask.stats().unwrap().groups);
    let began = Instant::now();
    let waits: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    barrier.wait();
                    let began = Instant::now();
                    while began.elapsed().as_secs_f64() < seconds {
                        let key = format!("{thread:04}/{:011}", waits.len());
                        let put = Instant::now();
                        cask.put(key, VALUE).unwrap();
                        waits.push(put.elapsed());
                    }
                    waits
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    Figures::new(&waits, cask.stats().unwrap().groups - groups, began.elapsed().as_secs_f64())
}
