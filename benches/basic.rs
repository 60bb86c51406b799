//! Measures what each call costs, beside a floor in the same run.
//!
//! ```text
//! cargo bench --bench basic                          # a million keys, three rounds
//! cargo bench --bench basic -- --keys 100000 --rounds 5
//! ```
//!
//! A floor is the least that any program must do for the same purpose: a `HashMap` in an `RwLock` for look-ups, a
//! bare `pwrite` of as many bytes for a put, with an `fdatasync` for a durable put, reading the file with a checksum
//! over it for opening. Floor and store take turns, and the table shows the median of the rounds. The files are in the
//! system's temporary directory (`TMPDIR`), which should be on a disk.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::RwLock;
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, LockMode};

mod common;

use common::{Directory, RECORD_LEN, VALUE, numbers, random, spread_key};

/// The number of pairs that a listing returns.
const LISTED: usize = 10_000;
const LOOKUPS: usize = 200_000;
const PUTS: usize = 50_000;
const DURABLE_PUTS: usize = 500;
const THREADS: usize = 8;
/// How often puts and their floor take turns in each round. The speed of a disk changes by the second.
const SLICES: usize = 5;

fn main() {
    let options = Options::from_arguments();
    let directory = Directory::new("basic");
    println!(
        "{} keys of 16 bytes, values of 100; median of {} rounds; in {}\n",
        options.keys,
        options.rounds,
        directory.path().display()
    );
    println!("{:<36}{:>15}{:>15}{:>8}  floor", "", "caskfile", "floor", "ratio");
    let store = directory.path().join("store");
    load(&options, directory.path(), &store);
    reads(&options, &store);
    puts(&options, directory.path());
    opening(&options, &store);
    compaction(&options, directory.path(), &store);
}

struct Options {
    keys: usize,
    rounds: usize,
}

impl Options {
    fn from_arguments() -> Options {
        let [keys, rounds] = numbers("basic", [("--keys", 1_000_000), ("--rounds", 3)]);
        Options { keys: keys.max(2 * LISTED), rounds: rounds.max(1) }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

/// Most keys are spread over the whole range; the keys that will be listed are neighbours.
fn key(number: usize) -> [u8; 16] {
    match number {
        0..LISTED => format!("list/{number:011}").as_bytes().try_into().unwrap(),
        _ => spread_key(number as u64),
    }
}

fn absent_key(number: usize) -> [u8; 16] {
    let mut key = key(LISTED + number);
    key[0] = b'x';
    key
}

/// Numbers below `below`, in no order.
fn shuffled(below: usize, count: usize) -> impl Iterator<Item = usize> {
    random(1, below as u64).map(|number| number as usize).take(count)
}

fn unsynced() -> Config {
    // Compaction has its own row and must not disturb the others.
    Config::new().durability(Durability::Os).compaction(CompactionPolicy::Manual)
}

// What is measured.

/// Fills the store that the reads are measured on.
fn load(options: &Options, directory: &Path, path: &Path) {
    let mut row = Row::new("load, batches of 1,000", "ops", "pwrite of 1,000 records");
    let keys: Vec<_> = (0..options.keys).map(key).collect();
    for round in 0..options.rounds {
        let _ = std::fs::remove_file(path);
        let cask = Cask::open_with(path, &unsynced()).unwrap();
        let floor = File::create(directory.join("floor")).unwrap();
        let bytes = vec![1; RECORD_LEN * 1000];
        row.round(
            round,
            options.keys,
            || {
                for thousand in keys.chunks(1000) {
                    let mut batch = Batch::new();
                    for key in thousand {
                        batch.put(key, VALUE);
                    }
                    cask.write(&batch).unwrap();
                }
            },
            || {
                for (n, thousand) in keys.chunks(1000).enumerate() {
                    let len = thousand.len() * RECORD_LEN;
                    floor.write_all_at(&bytes[..len], (n * bytes.len()) as u64).unwrap();
                }
            },
        );
        cask.close().unwrap();
    }
    row.print();
}

fn reads(options: &Options, path: &Path) {
    let cask = Cask::open_with(path, &Config::new().read_only(true)).unwrap();
    look_ups(options, &cask);
    listings(options, &cask);
}

fn pairs(options: &Options) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..options.keys).map(|number| (key(number).to_vec(), VALUE.to_vec()))
}

fn look_ups(options: &Options, cask: &Cask) {
    let map = RwLock::new(pairs(options).collect::<HashMap<_, _>>());
    let present: Vec<_> = shuffled(options.keys, LOOKUPS).map(key).collect();
    let absent: Vec<_> = shuffled(options.keys, LOOKUPS).map(absent_key).collect();

    let mut get = Row::new("get, key there", "ops", "HashMap, value copied");
    let mut get_into = Row::new("get_into, key there", "ops", "HashMap, value copied");
    let mut miss = Row::new("get, key absent", "ops", "HashMap");
    let mut exists = Row::new("exists, key there", "ops", "HashMap");
    let mut threads = Row::new("get, key there, 2 threads", "ops", "HashMap, value copied");
    let get_all = |keys: &[[u8; 16]]| keys.iter().for_each(|key| drop(black_box(cask.get(key))));
    let get_all_floor = |keys: &[[u8; 16]]| {
        keys.iter().for_each(|key| drop(black_box(map.read().unwrap().get(&key[..]).cloned())));
    };
    for round in 0..options.rounds {
        get.round(round, LOOKUPS, || get_all(&present), || get_all_floor(&present));
        let mut out = Vec::new();
        get_into.round(
            round,
            LOOKUPS,
            || present.iter().for_each(|key| drop(black_box(cask.get_into(key, &mut out)))),
            || get_all_floor(&present),
        );
        miss.round(round, LOOKUPS, || get_all(&absent), || get_all_floor(&absent));
        exists.round(
            round,
            LOOKUPS,
            || present.iter().for_each(|key| drop(black_box(cask.exists(key)))),
            || present.iter().for_each(|key| _ = black_box(map.read().unwrap().contains_key(&key[..]))),
        );
        threads.round(
            round,
            LOOKUPS * 2,
            || at_once(|| get_all(&present), || get_all(&present)),
            || at_once(|| get_all_floor(&present), || get_all_floor(&present)),
        );
    }
    for row in [get, get_into, miss, exists, threads] {
        row.print();
    }
}

fn listings(options: &Options, cask: &Cask) {
    let before = cask.stats().unwrap();
    let started = Instant::now();
    assert_eq!(cask.list("list/").unwrap().len(), LISTED);
    let first = started.elapsed();
    let after = cask.stats().unwrap();

    let sorted = pairs(options).collect::<BTreeMap<_, _>>();
    let range = || sorted.range::<[u8], _>((Bound::Included(&b"list/"[..]), Bound::Excluded(&b"list0"[..])));
    let mut list = Row::new("list of 10,000", "pairs", "BTreeMap, pairs copied");
    let mut visit = Row::new("visit of 10,000, values summed up", "pairs", "BTreeMap");
    for round in 0..options.rounds {
        list.round(
            round,
            LISTED,
            || drop(black_box(cask.list("list/"))),
            || drop(black_box(range().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>())),
        );
        visit.round(
            round,
            LISTED,
            || {
                let visited = cask.visit("list/", |pair| {
                    black_box(sum(pair.value));
                    ControlFlow::Continue(())
                });
                visited.unwrap();
            },
            || range().for_each(|(_, value)| _ = black_box(sum(value))),
        );
    }
    list.print();
    visit.print();
    let per_key = |bytes: u64| bytes as f64 / before.keys as f64;
    println!("{:<36}{:>12.1} ms  sorts all keys, once a handle", "the first list", first.as_secs_f64() * 1e3);
    println!("{:<36}{:>13.1} B  of which 116 are the user's", "on disk for each key", per_key(before.log_end));
    println!("{:<36}{:>13.1} B", "in memory for each key", per_key(before.index_bytes));
    println!("{:<36}{:>13.1} B", "in memory, after the first list", per_key(after.index_bytes));
}

fn puts(options: &Options, directory: &Path) {
    let keys: Vec<_> = (0..PUTS).map(key).collect();
    let interval = Durability::Interval(Duration::from_millis(100));
    for (name, durability, lock_mode) in [
        ("Os, PerWrite", Durability::Os, LockMode::PerWrite),
        ("Os, Exclusive", Durability::Os, LockMode::Exclusive),
        ("Interval of 100 ms, PerWrite", interval, LockMode::PerWrite),
        ("Interval of 100 ms, Exclusive", interval, LockMode::Exclusive),
        ("Sync, PerWrite", Durability::Sync, LockMode::PerWrite),
        ("Sync, Exclusive", Durability::Sync, LockMode::Exclusive),
    ] {
        let durable = durability == Durability::Sync;
        let config = unsynced().durability(durability).lock_mode(lock_mode);
        let floor_name = if durable { "pwrite + fdatasync" } else { "pwrite" };
        let count = if durable { DURABLE_PUTS } else { PUTS };
        let mut row = Row::new(&format!("put, {name}"), "ops", floor_name);
        for round in 0..options.rounds {
            let (cask, floor) = fresh(directory, &config);
            for slice in 0..SLICES {
                let numbers = slice * count / SLICES..(slice + 1) * count / SLICES;
                row.round(
                    round + slice,
                    numbers.len(),
                    || keys[numbers.clone()].iter().for_each(|key| cask.put(key, VALUE).map(drop).unwrap()),
                    || numbers.clone().for_each(|number| floor.append(number, durable)),
                );
            }
            cask.close().unwrap();
        }
        row.print();
    }

    let mut swap = Row::new("compare-and-swap, Os, PerWrite", "ops", "pwrite");
    let mut grouped = Row::new("put, Sync, PerWrite, 8 threads", "ops", "pwrite + fdatasync, 1 thread");
    for round in 0..options.rounds {
        let (cask, floor) = fresh(directory, &unsynced());
        let mut pair = cask.atomic_put("key", VALUE, None).unwrap();
        swap.round(
            round,
            PUTS,
            || (0..PUTS).for_each(|_| pair = cask.atomic_put("key", VALUE, Some(&pair)).unwrap()),
            || (0..PUTS).for_each(|number| floor.append(number, false)),
        );
        let (cask, floor) = fresh(directory, &Config::new());
        for slice in 0..SLICES {
            let count = DURABLE_PUTS / SLICES;
            let put_all = || keys[..count].iter().for_each(|key| cask.put(key, VALUE).map(drop).unwrap());
            grouped.round(
                round + slice,
                count * THREADS,
                || {
                    std::thread::scope(|scope| {
                        for _ in 0..THREADS {
                            scope.spawn(put_all);
                        }
                    });
                },
                || (0..count * THREADS).for_each(|number| floor.append(number, true)),
            );
        }
    }
    swap.print();
    grouped.print();
}

/// Opens with the file in the page cache.
fn opening(options: &Options, path: &Path) {
    let len = std::fs::metadata(path).unwrap().len();
    let mut row = Row::new(&format!("open, {} keys", options.keys), "keys", "read + CRC of the file");
    for round in 0..options.rounds {
        row.round(
            round,
            options.keys,
            || drop(Cask::open_with(path, &Config::new().read_only(true)).unwrap()),
            || {
                let mut file = File::open(path).unwrap();
                let mut buffer = vec![0; 1 << 20];
                let mut hasher = crc32fast::Hasher::new();
                loop {
                    match file.read(&mut buffer).unwrap() {
                        0 => break,
                        n => hasher.update(&buffer[..n]),
                    }
                }
                black_box(hasher.finalize());
            },
        );
    }
    row.print();
    let seconds = options.keys as f64 / median(&row.ours);
    println!("{:<36}{:>12.1} ms  {:.2} GB/s", "that is", seconds * 1e3, len as f64 / seconds / 1e9);
}

/// Compacts a store in which every key was overwritten once.
fn compaction(options: &Options, directory: &Path, path: &Path) {
    let mut row = Row::new("compact, half of it dead", "keys", "live bytes copied and synced");
    let copy = directory.join("to-be-compacted");
    for round in 0..options.rounds {
        std::fs::copy(path, &copy).unwrap();
        let cask = Cask::open_with(&copy, &unsynced()).unwrap();
        for number in 0..options.keys {
            cask.put(key(number), VALUE).unwrap();
        }
        row.round(
            round,
            options.keys,
            || _ = black_box(cask.compact().unwrap()),
            || {
                let floor = directory.join("floor");
                std::fs::copy(path, &floor).unwrap();
                File::open(&floor).unwrap().sync_all().unwrap();
            },
        );
        cask.close().unwrap();
    }
    row.print();
}

// How it is measured.

struct Row {
    name: String,
    unit: &'static str,
    floor_name: &'static str,
    ours: Vec<f64>,
    floor: Vec<f64>,
}

impl Row {
    fn new(name: &str, unit: &'static str, floor_name: &'static str) -> Row {
        Row { name: name.to_owned(), unit, floor_name, ours: Vec::new(), floor: Vec::new() }
    }

    /// Runs both, in an order that changes from round to round.
    fn round(&mut self, round: usize, count: usize, ours: impl FnOnce(), floor: impl FnOnce()) {
        if round % 2 == 0 {
            self.floor.push(rate(count, floor));
            self.ours.push(rate(count, ours));
        } else {
            self.ours.push(rate(count, ours));
            self.floor.push(rate(count, floor));
        }
    }

    fn print(&self) {
        let (ours, floor) = (median(&self.ours), median(&self.floor));
        let shown = |rate| format!("{} {}/s", short(rate), self.unit);
        let ratio = ours / floor;
        println!("{:<36}{:>15}{:>15}{ratio:>8.2}  {}", self.name, shown(ours), shown(floor), self.floor_name);
    }
}

fn rate(count: usize, run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    count as f64 / started.elapsed().as_secs_f64()
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn at_once(one: impl FnOnce() + Send, other: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(one);
        scope.spawn(other);
    });
}

fn short(rate: f64) -> String {
    match rate {
        1e6.. => format!("{:.2}M", rate / 1e6),
        1e4.. => format!("{:.0}k", rate / 1e3),
        1e3.. => format!("{:.1}k", rate / 1e3),
        _ => format!("{rate:.0}"),
    }
}

/// An empty store, and a file to write the same number of bytes to.
fn fresh(directory: &Path, config: &Config) -> (Cask, Floor) {
    let path = directory.join("fresh");
    let _ = std::fs::remove_file(&path);
    let cask = Cask::open_with(&path, config).unwrap();
    // The first write of a handle makes a sync of its own.
    cask.put("first", "").unwrap();
    let file = File::create(directory.join("floor")).unwrap();
    // A sync of bytes that the file already covers is quicker. The store uses that, so the floor uses it too.
    file.set_len((PUTS * RECORD_LEN) as u64).unwrap();
    (cask, Floor(file))
}

const _: () = assert!(DURABLE_PUTS / SLICES * THREADS <= PUTS);

struct Floor(File);

impl Floor {
    fn append(&self, number: usize, durable: bool) {
        self.0.write_all_at(&[1; RECORD_LEN], (number * RECORD_LEN) as u64).unwrap();
        if durable {
            self.0.sync_data().unwrap();
        }
    }
}
