//! Recorded histories of many processes, some of which are killed, are checked for linearizability.
//!
//! Each round has a store of its own, on which processes put, get, delete, compare and swap, write batches, list, copy,
//! compact (and break that off) and reopen, at random. They are killed at any moment, from outside, at a call to the disk or at a moment that has a
//! name, and others take their places. Each writes down its calls, with the times at which they began and ended, and
//! at the end of the round all of it is checked: see [`checker`].
//!
//! `CASKFILE_PROCESS_SECONDS` makes it run longer than three seconds. A history that no store can have had is left in
//! the directory for temporary files.

mod checker;
mod journal;

use crate::points;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, ReadMode};

use crate::common::dice::Dice;
use crate::common::process::{Process, arguments, this_test, was_killed};
use crate::common::{TempDir, names};
use crate::points::{Fate, LAST_WORD, deadly_disk};
use checker::{Call, Condition, Refusal, check_key, check_listings};
use journal::{Entry, Journal, Op, Outcome, Part};

const KEYS: usize = 6;
const PROCESSES: usize = 6;
const ROUND: Duration = Duration::from_millis(600);

#[test]
fn every_history_of_processes_that_are_killed_is_linearizable() {
    let name = this_test!();
    let seconds: u32 = std::env::var("CASKFILE_PROCESS_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    if let Some(arguments) = arguments() {
        return take_part(&arguments);
    }
    let mut dice = Dice::new(journal::now());
    let mut total = Totals::default();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds.into()) {
        play_round(name, &mut dice, &mut total);
    }
    let Totals { rounds, killed, calls, pending, listings, compactions, points } = &total;
    println!(
        "{seconds} s: {rounds} rounds, {killed} processes killed, {} histories checked, {calls} calls ({pending} never \
         returned), {listings} listings, {compactions} compactions",
        rounds * KEYS as u64
    );
    for (point, times) in points {
        println!("{times:6} died at: {}", if point.is_empty() { "a moment without a name" } else { point });
    }
    assert!(*killed > 0 && *calls > 100 && *listings > 0 && *pending > 0 && points.len() > 1, "nothing was tried");
}

#[derive(Default)]
struct Totals {
    rounds: u64,
    killed: u64,
    calls: u64,
    pending: u64,
    listings: u64,
    compactions: u64,
    /// How many died at each named moment.
    points: BTreeMap<String, u64>,
}

/// One store, from its creation to its last verification.
fn play_round(test: &str, dice: &mut Dice, total: &mut Totals) {
    let directory = TempDir::new();
    let (mut started, mut dead) = (0, Vec::new());
    let mut start = |dice: &mut Dice| {
        started += 1;
        let fate = match dice.below(4) {
            0 => Fate::Never,
            1 => Fate::AtCall(dice.below(400)),
            // Most of the time at one that every process comes through.
            how => {
                let often = |name: &&str| how == 2 || !name.starts_with("a cut") && !name.starts_with("a torn tail");
                let names: Vec<&str> = points::names().filter(often).collect();
                Fate::AtPoint(dice.choose(&names).to_owned(), dice.below(8))
            }
        };
        let [what, number] = fate.to_words();
        let (directory, seed) = (directory.path().to_str().unwrap(), dice.roll().to_string());
        Process::start(test, &[directory, &started.to_string(), &seed, &what, &number])
    };
    let mut processes: Vec<Process> = (0..PROCESSES).map(|_| start(dice)).collect();
    let began = Instant::now();
    while began.elapsed() < ROUND {
        thread::sleep(Duration::from_micros(dice.below(3000)));
        let victim = dice.one_in(6).then(|| dice.below(PROCESSES as u64) as usize);
        for (slot, process) in processes.iter_mut().enumerate() {
            if process.has_ended() || victim == Some(slot) {
                process.kill_if_running();
                dead.push(std::mem::replace(process, start(dice)));
            }
        }
    }
    File::create(stop_file(directory.path())).unwrap();
    for mut process in dead {
        let point = said_last(&mut process);
        let status = process.end();
        assert!(was_killed(status), "a process must not end by itself: {status}");
        total.killed += 1;
        *total.points.entry(point).or_default() += 1;
    }
    for mut process in processes {
        let point = said_last(&mut process);
        let status = process.end();
        assert!(status.success() || was_killed(status), "{status}");
        if was_killed(status) {
            total.killed += 1;
            *total.points.entry(point).or_default() += 1;
        }
    }

    let last = directory.join("journal-last");
    let cask = Cask::open_with(store(directory.path()), &patient()).unwrap();
    let mut journal = Journal::create(&last);
    journal.record(&Op::List(0), |op| make(&cask, op));
    (0..KEYS).for_each(|key| drop(journal.record(&Op::Get(key), |op| make(&cask, op))));
    cask.verify().unwrap();
    cask.close().unwrap();
    assert!(!names(directory.path()).iter().any(|name| name.starts_with("store.")), "nothing is left beside the store");

    let mut entries: Vec<Entry> = journal::read(&last);
    for number in 1..=started {
        let path = directory.join(format!("journal-{number}"));
        // A process that was killed before it began has none.
        entries.extend(if path.exists() { journal::read(&path) } else { Vec::new() });
    }
    total.rounds += 1;
    total.calls += entries.len() as u64;
    total.pending += entries.iter().filter(|entry| entry.outcome.is_none()).count() as u64;
    total.compactions += fs::read(directory.join("compactions")).map_or(0, |bytes| bytes.len() as u64);
    check(&entries, total);
}

/// The moment at which a process died, if it has said so.
fn said_last(process: &mut Process) -> String {
    let mut point = String::new();
    while let Some(said) = process.hear() {
        point = said.strip_prefix(LAST_WORD).unwrap_or_default().to_owned();
    }
    point
}

fn check(entries: &[Entry], total: &mut Totals) {
    let mut calls: Vec<Vec<Call>> = vec![Vec::new(); KEYS];
    for entry in entries {
        for (key, call) in entry.calls(KEYS) {
            calls[key].push(call);
        }
    }
    let fail = |what: String| {
        let path = std::env::temp_dir().join(format!("caskfile-history-{}", std::process::id()));
        fs::write(&path, format!("{entries:#?}")).unwrap();
        panic!("{what}\nthe history is in {}", path.display());
    };
    for (key, calls) in calls.iter().enumerate() {
        if let Err(error) = check_key(calls) {
            fail(format!("key {key}: {error}"));
        }
    }
    let listings: Vec<_> = entries.iter().filter_map(Entry::listing).collect();
    total.listings += listings.len() as u64;
    if let Err(error) = check_listings(&journal::versions(entries), &listings) {
        fail(error);
    }
}

/// A busy disk was seen to take ten seconds for a sync, and one of the processes has the lock meanwhile. That is not
/// what is under test.
fn patient() -> Config {
    Config::new().connection_timeout(Duration::from_secs(60))
}

/// The role of a process: random calls until it must stop, or dies.
fn take_part(arguments: &[String]) {
    let directory = Path::new(&arguments[0]);
    let number: u64 = arguments[1].parse().unwrap();
    let mut dice = Dice::new(arguments[2].parse().unwrap());
    let fate = Fate::from_words(&arguments[3], &arguments[4]);
    let durability = match dice.below(6) {
        0 | 1 => Durability::Os,
        2 => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::Sync,
    };
    let reads = if dice.one_in(3) { ReadMode::Pread } else { ReadMode::Map };
    let read_only = dice.one_in(6);
    let config = patient().durability(durability).read_mode(reads).read_only(read_only);
    let disk = Arc::new(deadly_disk(fate, |_| Ok(())));
    let cask = loop {
        match Cask::open_on(disk.clone(), store(directory), &config) {
            Ok(cask) => break cask,
            // The very first writer is still about to create it, or was killed before it had.
            Err(Error::Io { source, .. }) if read_only && source.kind() == std::io::ErrorKind::NotFound => {
                if stop_file(directory).exists() {
                    return;
                }
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    };
    let mut journal = Journal::create(&directory.join(format!("journal-{number}")));
    let mut player = Player { dice, number, values: 0, known: [None; KEYS] };
    while !stop_file(directory).exists() {
        if !read_only && player.dice.one_in(60) {
            match cask.compact() {
                Ok(_) => {
                    let journal = fs::OpenOptions::new().append(true).create(true).open(directory.join("compactions"));
                    journal.unwrap().write_all(b".").unwrap();
                }
                // Another process was compacting, or has cut the log; or there was nothing to be gained.
                Err(Error::CompactionOvertaken { .. } | Error::CompactionRefused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if player.dice.one_in(80) {
            cask.reopen().unwrap();
        }
        if !read_only && player.dice.one_in(80) {
            match cask.compact_with(|_| ControlFlow::Break(())) {
                Err(Error::CompactionCancelled { .. } | Error::CompactionOvertaken { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let op = player.draw(read_only);
        let outcome = journal.record(&op, |op| make(&cask, op));
        player.learn(&op, &outcome);
    }
    cask.close().unwrap();
}

struct Player {
    dice: Dice,
    number: u64,
    values: u64,
    /// The index that this process has last seen of each key.
    known: [Option<u64>; KEYS],
}

impl Player {
    fn value(&mut self) -> u64 {
        self.values += 1;
        self.number << 32 | self.values
    }

    fn condition(&mut self, key: usize) -> Condition {
        self.known[key].map_or(Condition::Absent, Condition::Index)
    }

    fn draw(&mut self, read_only: bool) -> Op {
        let key = self.dice.below(KEYS as u64) as usize;
        if read_only || self.dice.one_in(2) {
            return match self.dice.below(12) {
                0 | 1 => Op::Exists(key),
                2 => Op::List(self.dice.below(MEANS) as u8),
                _ => Op::Get(key),
            };
        }
        match (self.dice.below(12), self.known[key]) {
            (0..=2, _) => Op::Put(key, self.value()),
            (3, _) => Op::Delete(key),
            (4, Some(index)) => Op::Remove(key, index),
            (5..=7, _) => {
                let count = 2 + self.dice.below(2) as usize;
                let mut part = |at| {
                    let key = (key + at) % KEYS;
                    let value = (!self.dice.one_in(4)).then(|| self.value());
                    let only_if = if self.dice.one_in(6) { self.condition(key) } else { Condition::Always };
                    Part { key, value, only_if }
                };
                Op::Batch((0..count).map(&mut part).collect())
            }
            _ => Op::Swap(key, self.value(), self.condition(key)),
        }
    }

    fn learn(&mut self, op: &Op, outcome: &Outcome) {
        match (op, outcome) {
            (Op::Get(key), Outcome::Pair(pair)) => self.known[*key] = pair.map(|(_, index)| index),
            (Op::Swap(key, ..), Outcome::Index(index)) => self.known[*key] = *index,
            (Op::List(_), Outcome::Pairs(pairs)) => {
                self.known = [None; KEYS];
                pairs.iter().for_each(|(key, _, index)| self.known[*key] = Some(*index));
            }
            _ => {}
        }
    }
}

/// Makes a call.
fn make(cask: &Cask, op: &Op) -> Outcome {
    let previous = |key: usize, condition: Condition| match condition {
        Condition::Index(index) => Some(KvPair::new(name(key).into_bytes(), "not compared", index)),
        Condition::Always | Condition::Absent => None,
    };
    let seen = |pair: &KvPair| (number(&pair.value), pair.last_index);
    match op {
        Op::Get(key) => match cask.get(name(*key)) {
            Ok(pair) => Outcome::Pair(Some(seen(&pair))),
            Err(Error::KeyNotFound) => Outcome::Pair(None),
            Err(error) => panic!("{op:?}: {error}"),
        },
        Op::Exists(key) => Outcome::Presence(cask.exists(name(*key)).unwrap()),
        Op::List(how) => {
            let key = |pair: &KvPair| (0..KEYS).find(|key| name(*key).as_bytes() == pair.key).unwrap();
            let pairs = list(cask, *how);
            Outcome::Pairs(pairs.iter().map(|pair| (key(pair), seen(pair).0, pair.last_index)).collect())
        }
        Op::Put(key, value) => {
            cask.put(name(*key), bytes(*value)).unwrap();
            Outcome::Done
        }
        Op::Delete(key) => {
            cask.delete(name(*key)).unwrap();
            Outcome::Done
        }
        Op::Swap(key, value, condition) => {
            match cask.atomic_put(name(*key), bytes(*value), previous(*key, *condition).as_ref()) {
                Ok(pair) => Outcome::Index(Some(pair.last_index)),
                Err(error) => Outcome::Refused(refusal(&error)),
            }
        }
        Op::Remove(key, index) => {
            match cask.atomic_delete(name(*key), previous(*key, Condition::Index(*index)).as_ref()) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Refused(refusal(&error)),
            }
        }
        Op::Batch(parts) => {
            let mut batch = Batch::new();
            for part in parts {
                let key = name(part.key);
                match part.only_if {
                    Condition::Always => {}
                    Condition::Absent => drop(batch.expect_absent(&key)),
                    Condition::Index(index) => drop(batch.expect_last_index(&key, index)),
                }
                match part.value {
                    Some(value) => batch.put(&key, bytes(value)),
                    None => batch.delete(&key),
                };
            }
            match cask.write(&batch) {
                Ok(applied) => Outcome::Index(applied.last_index()),
                Err(Error::BatchConflict { op, cause }) => Outcome::Conflict(op, refusal(&cause)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// In how many ways everything is read.
const MEANS: u64 = 6;

/// All pairs of one moment; more often by a listing than by a copy.
fn list(cask: &Cask, how: u8) -> Vec<KvPair> {
    let copied = |copy: &dyn Fn(&Path)| {
        let directory = TempDir::new();
        let to = directory.join("copy");
        copy(&to);
        assert_eq!(names(directory.path()), ["copy"], "nothing is left beside a copy");
        Cask::open_with(&to, &Config::new().read_only(true)).unwrap().list("").unwrap()
    };
    match how {
        0 | 1 => cask.list("").unwrap(),
        2 => cask.scan_by_index().unwrap().map(|pair| pair.unwrap().1).collect(),
        3 => cask.scan_buckets().unwrap().flat_map(|bucket| bucket.unwrap().1).map(Result::unwrap).collect(),
        4 => copied(&|to| _ = cask.backup(to).unwrap()),
        _ => copied(&|to| _ = cask.compact_to(to).unwrap()),
    }
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::KeyExists => Refusal::Exists,
        Error::KeyNotFound => Refusal::NotFound,
        Error::KeyModified => Refusal::Modified,
        error => panic!("{error}"),
    }
}

fn name(key: usize) -> String {
    format!("key/{key}")
}

/// A number followed by something that depends on it: one byte, or some pages.
fn bytes(number: u64) -> Vec<u8> {
    let len = match number % 16 {
        0 => 20_000,
        1..=3 => 1_000,
        short => short as usize,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|at| (at as u64 * 31 + number * 7) as u8));
    bytes
}

fn number(value: &[u8]) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().expect("a number has 8 bytes"));
    assert!(bytes(number) == value, "the value of {number} is not what was put");
    number
}

fn store(directory: &Path) -> PathBuf {
    directory.join("store")
}

fn stop_file(directory: &Path) -> PathBuf {
    directory.join("stop")
}
