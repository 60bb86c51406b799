//! Many processes count in one store and are killed all the time, and others look on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::{Cask, Config, Durability, Error, KvPair, OptionalExt, ReadMode};
use memmap2::{MmapOptions, MmapRaw};

use crate::common::process::{self, Process, arguments, say, this_test, was_killed};
use crate::common::{TempDir, names};

const COUNTERS: usize = 10;
const WRITERS: usize = 8;

/// What a counting process writes down after each increment that was acknowledged.
const ACKNOWLEDGEMENT_LEN: usize = 16;

/// Every acknowledged increment counts, and one more for each kill at most: the one that its process had no time left
/// to write down. What any process has seen or got acknowledged stays, for all.
///
/// `CASKFILE_PROCESS_SECONDS` makes it run longer than two seconds.
#[test]
fn counters_hold_every_acknowledged_step_and_little_more() {
    if let Some(arguments) = arguments() {
        let seconds: u32 = arguments[1].parse().unwrap();
        process::be_patient_for(seconds + 120);
        let directory = Path::new(&arguments[2]);
        return match arguments[0].as_str() {
            "count" => count(directory, arguments[3].parse().unwrap(), arguments[4].parse().unwrap()),
            "watch" => watch(directory, &arguments[3]),
            "compact" => keep_compacting(directory),
            role => panic!("{role}"),
        };
    }
    let name = this_test!();
    let seconds = std::env::var("CASKFILE_PROCESS_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let directory = TempDir::new();
    Board::make(directory.path());
    let mut random = Random::new();
    let start = |role: &str, arguments: &[&str]| {
        let common = [role, &seconds.to_string(), directory.path().to_str().unwrap()];
        Process::start(name, &[&common, arguments].concat())
    };
    let start_writer = |slot: usize, seed: u64| start("count", &[&slot.to_string(), &seed.to_string()]);

    let mut writers: Vec<Process> = (0..WRITERS).map(|slot| start_writer(slot, random.next())).collect();
    let watchers = ["a map", "pread", "a handle that could write"].map(|how| start("watch", &[how]));
    let compactor = start("compact", &[]);
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_micros(random.below(5000)));
        let slot = random.below(WRITERS as u64) as usize;
        let next = start_writer(slot, random.next());
        let status = std::mem::replace(&mut writers[slot], next).kill();
        assert!(was_killed(status), "a writer must not end by itself: {status}");
        kills += 1;
    }
    File::create(stop_file(directory.path())).unwrap();
    writers.into_iter().for_each(Process::succeed);
    let looks = watchers.map(last_words);
    let compactions = last_words(compactor);

    let acknowledged = acknowledged(directory.path());
    let cask = Cask::open(store(directory.path())).unwrap();
    let mut sum = 0;
    for (key, values) in acknowledged.iter().enumerate() {
        let value = cask.get(counter(key)).optional().unwrap().as_ref().map_or(0, value_of);
        let least = values.len() as u64;
        assert!(least <= value, "{least} increments of counter {key} were acknowledged, and it is at {value}");
        assert!(value <= least + kills, "{kills} kills do not explain a {value} after {least} increments");
        assert!(values.iter().all(|acknowledged| *acknowledged <= value));
        let mut once = values.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), values.len(), "two processes counted to the same number");
        sum += value;
    }
    let total: u64 = acknowledged.iter().map(|values| values.len() as u64).sum();
    println!(
        "{seconds} s, {kills} kills: {total} acknowledged <= {sum} counted <= {}; {compactions} compactions; looks: {looks:?}",
        total + kills
    );
    assert!(total <= sum && sum <= total + kills);
    assert!(total > 0 && kills > 0 && compactions > 0 && looks.iter().all(|looks| *looks > 0), "nothing was tried");
    cask.verify().unwrap();
    cask.close().unwrap();
    assert!(!names(directory.path()).iter().any(|name| name.starts_with("store.")), "nothing is left beside the store");
}

/// A busy disk was seen to take ten seconds for a sync, and one of the processes has the lock meanwhile. That is not
/// what is under test.
fn patient() -> Config {
    Config::new().connection_timeout(Duration::from_secs(60))
}

fn count(directory: &Path, slot: usize, seed: u64) {
    let durability = match slot {
        0 => Durability::Os,
        1 => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::Sync,
    };
    let cask = Cask::open_with(store(directory), &patient().durability(durability)).unwrap();
    let mut acknowledgements =
        OpenOptions::new().append(true).create(true).open(directory.join(format!("acknowledged-{slot}"))).unwrap();
    let board = Board::open(directory);
    let mut random = Random(seed | 1);
    while !stop_file(directory).exists() {
        let key = random.below(COUNTERS as u64) as usize;
        let pair = loop {
            let previous = cask.get(counter(key)).optional().unwrap();
            let next = previous.as_ref().map_or(0, value_of) + 1;
            match cask.atomic_put(counter(key), next.to_le_bytes(), previous.as_ref()) {
                Ok(pair) => break pair,
                Err(Error::KeyModified | Error::KeyExists) => {}
                Err(error) => panic!("{error}"),
            }
        };
        // One write each, so that a kill leaves all of it or nothing.
        let value = value_of(&pair);
        acknowledgements.write_all(&[(key as u64).to_le_bytes(), value.to_le_bytes()].concat()).unwrap();
        board.raise(key, value, pair.last_index);
        if random.below(200) == 0 {
            compact(&cask);
        }
    }
    cask.close().unwrap();
}

/// Compacts, and says whether it did: another process may be at it.
fn compact(cask: &Cask) -> bool {
    match cask.compact() {
        Ok(_) => true,
        Err(Error::CompactionOvertaken { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Looks at all counters again and again: none may ever be lower than what any process was known to have seen before the
/// look began.
fn watch(directory: &Path, how: &str) {
    let config = match how {
        "a map" => patient().read_only(true),
        "pread" => patient().read_only(true).read_mode(ReadMode::Pread),
        _ => patient(),
    };
    let board = Board::open(directory);
    let open = || loop {
        match Cask::open_with(store(directory), &config) {
            Ok(cask) => return cask,
            // The very first writer is still about to create it.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let mut cask = open();
    let mut looks = 0u64;
    while !stop_file(directory).exists() {
        looks += 1;
        let seen: Vec<(u64, u64)> = (0..COUNTERS).map(|key| board.seen(key)).collect();
        let pairs = match looks % 8 {
            0 => cask.list("counter").unwrap(),
            _ => (0..COUNTERS).filter_map(|key| cask.get(counter(key)).optional().unwrap()).collect(),
        };
        for (key, seen) in seen.into_iter().enumerate() {
            let pair = pairs.iter().find(|pair| pair.key == counter(key).as_bytes());
            let now = pair.map_or((0, 0), |pair| (value_of(pair), pair.last_index));
            assert!(
                now.0 >= seen.0 && now.1 >= seen.1,
                "counter {key} went back from {seen:?} to {now:?}, read by {how}"
            );
            board.raise(key, now.0, now.1);
        }
        if looks % 500 == 0 {
            cask.close().unwrap();
            cask = open();
        }
    }
    say(looks.to_string());
}

fn keep_compacting(directory: &Path) {
    let cask = Cask::open_with(store(directory), &patient().durability(Durability::Os)).unwrap();
    let mut compactions = 0u64;
    while !stop_file(directory).exists() {
        compactions += u64::from(compact(&cask));
        thread::sleep(Duration::from_millis(10));
    }
    cask.close().unwrap();
    say(compactions.to_string());
}

/// What the counting processes have written down: for each counter, all values that were acknowledged.
fn acknowledged(directory: &Path) -> Vec<Vec<u64>> {
    let mut values = vec![Vec::new(); COUNTERS];
    for slot in 0..WRITERS {
        let bytes = fs::read(directory.join(format!("acknowledged-{slot}"))).unwrap();
        assert_eq!(bytes.len() % ACKNOWLEDGEMENT_LEN, 0);
        for acknowledgement in bytes.chunks_exact(ACKNOWLEDGEMENT_LEN) {
            let (key, value) = acknowledgement.split_at(8);
            values[number(key) as usize].push(number(value));
        }
    }
    values
}

/// For each counter, the highest value and index that any process has seen or got acknowledged: memory that all share.
///
/// A process raises what stands here after it has seen more, and reads it before it looks at the store. So a process that
/// then sees less has looked into the past.
struct Board(MmapRaw);

impl Board {
    fn make(directory: &Path) {
        File::create(directory.join("board")).unwrap().set_len(COUNTERS as u64 * 16).unwrap();
    }

    fn open(directory: &Path) -> Board {
        let file = OpenOptions::new().read(true).write(true).open(directory.join("board")).unwrap();
        Board(MmapOptions::new().map_raw(&file).unwrap())
    }

    fn cell(&self, number: usize) -> &AtomicU64 {
        assert!(number < 2 * COUNTERS);
        // SAFETY: the map is a page's beginning, and covers as many cells as the file that `make` has made, which
        // no process cuts. All processes use them as atomics only.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU64>().add(number) }
    }

    fn seen(&self, key: usize) -> (u64, u64) {
        (self.cell(2 * key).load(Ordering::SeqCst), self.cell(2 * key + 1).load(Ordering::SeqCst))
    }

    fn raise(&self, key: usize, value: u64, last_index: u64) {
        self.cell(2 * key).fetch_max(value, Ordering::SeqCst);
        self.cell(2 * key + 1).fetch_max(last_index, Ordering::SeqCst);
    }
}

fn store(directory: &Path) -> PathBuf {
    directory.join("store")
}

fn stop_file(directory: &Path) -> PathBuf {
    directory.join("stop")
}

fn counter(key: usize) -> String {
    format!("counter/{key}")
}

fn value_of(pair: &KvPair) -> u64 {
    number(&pair.value)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number has 8 bytes"))
}

/// The number that a process says last.
fn last_words(mut process: Process) -> u64 {
    let said = process.hear().expect("it must tell how far it got");
    process.succeed();
    said.parse().unwrap()
}

/// xorshift64*: enough to vary times and choices.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        Random(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
