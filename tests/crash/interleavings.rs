//! Two processes, of which one does something whole between two calls of the other to the disk: every pair of actions,
//! at every place. Then the first goes on, or is killed there, or the power goes out. Except for the last, the same is
//! played on real files.

mod seat;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::disk::sim::{Fault, SimDisk, Verb};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, salvage_on};

use seat::{Lingering, RealSeat, Seat};

const KEYS: [&str; 2] = ["one", "two"];

/// What a process does as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Put,
    PutLarge,
    PutWithoutSpace,
    BatchOfBoth,
    CompareAndSwap,
    DeleteAbsent,
    Read,
    Sync,
    Compact,
    CompactAndPut,
    CompactInVain,
    CompactUntilCancelled,
    /// The handle opens its file again, instead of being closed.
    Renew,
    Reopen,
    ReopenToRead,
    Verify,
    Backup,
    CompactTo,
    Salvage,
    ReadByIndex,
    ReadByBucket,
    /// A process that opens the store, puts something without syncing it, and is killed in the middle of a second put.
    ComeAndDie,
}

use Action::*;

const ACTIONS: [Action; 22] = [
    Put,
    PutLarge,
    PutWithoutSpace,
    BatchOfBoth,
    CompareAndSwap,
    DeleteAbsent,
    Read,
    Sync,
    Compact,
    CompactAndPut,
    CompactInVain,
    CompactUntilCancelled,
    Renew,
    Reopen,
    ReopenToRead,
    Verify,
    Backup,
    CompactTo,
    Salvage,
    ReadByIndex,
    ReadByBucket,
    ComeAndDie,
];

/// What became of the process that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    GoesOn,
    /// Before it goes on with a call for a lock, another of its threads reads, and so knows what the writer does not know yet.
    GoesOnAfterAReader,
    IsKilled,
    PowerCut,
}

/// What all handles must agree about: values are numbers that only grow, so none may ever be seen to go back.
#[derive(Default)]
struct Knowledge {
    next: AtomicU64,
    /// For each key, the highest value that was acknowledged or seen.
    seen: Mutex<BTreeMap<String, u64>>,
    /// The same for what was acknowledged as durable.
    durable: Mutex<BTreeMap<String, u64>>,
    /// The pair of every index that was seen.
    indexes: Mutex<BTreeMap<u64, (String, u64)>>,
}

impl Knowledge {
    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn floor(&self) -> BTreeMap<String, u64> {
        self.seen.lock().unwrap().clone()
    }

    fn saw(&self, pair: &KvPair) {
        let (key, value) = (String::from_utf8(pair.key.clone()).unwrap(), number(&pair.value));
        let mut indexes = self.indexes.lock().unwrap();
        let known = indexes.entry(pair.last_index).or_insert_with(|| (key.clone(), value));
        assert_eq!(*known, (key.clone(), value), "index {} was handed out twice", pair.last_index);
        let mut seen = self.seen.lock().unwrap();
        let highest = seen.entry(key).or_default();
        *highest = value.max(*highest);
    }

    /// A write was acknowledged by a handle with this durability.
    fn wrote(&self, pair: &KvPair, durability: Durability) {
        self.saw(pair);
        if durability == Durability::Sync {
            let mut durable = self.durable.lock().unwrap();
            let highest = durable.entry(String::from_utf8(pair.key.clone()).unwrap()).or_default();
            *highest = number(&pair.value).max(*highest);
        }
    }

    /// Reads everything, and compares it with what was known before the reading began.
    fn look(&self, cask: &Cask) -> Result<(), Error> {
        let floor = self.floor();
        for (key, least) in &floor {
            let pair = cask.get(key)?;
            assert!(number(&pair.value) >= *least, "{key} went back from {least} to {}", number(&pair.value));
            self.saw(&pair);
        }
        self.look_at_all(|| cask.list(""))
    }

    /// Takes what a call returns for all there is, and compares it with what was known before it.
    fn look_at_all(&self, read: impl FnOnce() -> Result<Vec<KvPair>, Error>) -> Result<(), Error> {
        let floor = self.floor();
        let pairs = read()?;
        for (key, least) in &floor {
            let pair = pairs.iter().find(|pair| pair.key == key.as_bytes()).expect("a key is gone");
            assert!(number(&pair.value) >= *least, "{key} went back from {least} to {}", number(&pair.value));
        }
        pairs.iter().for_each(|pair| self.saw(pair));
        Ok(())
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// One process and its handle.
#[derive(Clone)]
struct Player<S> {
    seat: S,
    cask: Cask,
    config: Config,
}

fn open<S: Seat>(seat: &S, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(seat.disk(), seat.path(), config)
}

impl<S: Seat> Player<S> {
    fn new(seat: &S, config: Config) -> Player<S> {
        let seat = seat.another();
        let cask = open(&seat, &config).unwrap();
        Player { seat, cask, config }
    }

    fn put(&self, knowledge: &Knowledge, key: &str, len: usize) -> Result<(), Error> {
        // The number is drawn under no lock, so a put that comes in between may get a higher one and be overtaken:
        // compare and swap until what is there is lower.
        loop {
            let previous = match self.cask.get(key) {
                Ok(pair) => Some(pair),
                Err(Error::KeyNotFound) => None,
                Err(error) => return Err(error),
            };
            let mut value = knowledge.fresh().to_le_bytes().to_vec();
            value.resize(len, 0xab);
            match self.cask.atomic_put(key, &value, previous.as_ref()) {
                Err(Error::KeyModified | Error::KeyExists | Error::KeyNotFound) => {}
                other => return other.map(|pair| knowledge.wrote(&pair, self.config.get_durability())),
            }
        }
    }

    /// Makes a copy, whose pairs must be no older than what was known before, and removes it.
    fn copy(&self, knowledge: &Knowledge, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("copy-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let to = self.seat.path().with_file_name(name);
        knowledge.look_at_all(|| {
            make(&to)?;
            Cask::open_on(self.seat.disk(), &to, &Config::new().read_only(true))?.list("")
        })?;
        self.seat.disk().remove(&to).map_err(Error::other)
    }

    fn act(&self, action: Action, knowledge: &Knowledge) -> Result<(), Error> {
        match action {
            Put => self.put(knowledge, KEYS[0], 8),
            PutLarge => self.put(knowledge, KEYS[1], 9_000),
            PutWithoutSpace => {
                self.seat.fail(Verb::WriteAt, 1, Fault::Short(20));
                self.seat.fail(Verb::WriteAt, 2, Fault::Os(libc::ENOSPC));
                match self.put(knowledge, KEYS[0], 8) {
                    Err(Error::Io { .. }) => Ok(()),
                    other => other,
                }
            }
            BatchOfBoth => {
                let previous = [self.cask.get(KEYS[0])?, self.cask.get(KEYS[1])?];
                let value = knowledge.fresh().to_le_bytes();
                let mut batch = Batch::new();
                for (key, pair) in KEYS.into_iter().zip(previous) {
                    batch.expect_last_index(key, pair.last_index).put(key, value);
                }
                match self.cask.write(&batch) {
                    Err(Error::BatchConflict { .. }) => Ok(()),
                    Err(error) => Err(error),
                    Ok(last) => {
                        let last = last.last_index().unwrap();
                        for (key, last_index) in KEYS.into_iter().zip([last - 1, last]) {
                            knowledge.wrote(&KvPair::new(key, value, last_index), self.config.get_durability());
                        }
                        Ok(())
                    }
                }
            }
            CompareAndSwap => {
                let stale = self.cask.get(KEYS[0])?;
                self.put(knowledge, KEYS[0], 8)?;
                let swapped = self.cask.atomic_put(KEYS[0], 0u64.to_le_bytes(), Some(&stale));
                assert!(swapped.is_err(), "a stale pair was swapped");
                swapped.map(drop).or_else(|error| match error {
                    Error::KeyModified => Ok(()),
                    error => Err(error),
                })
            }
            DeleteAbsent => self.cask.delete("absent"),
            Read => knowledge.look(&self.cask),
            Sync => self.cask.sync(),
            Compact => self.cask.compact().map(drop),
            CompactAndPut => self.cask.compact().and_then(|_| self.put(knowledge, KEYS[0], 8)),
            CompactInVain => {
                self.seat.fail(Verb::Rename, 1, Fault::Os(libc::EIO));
                self.cask.compact().map(drop).or_else(|error| match error {
                    Error::Io { .. } => Ok(()),
                    error => Err(error),
                })
            }
            Reopen => {
                let cask = open(&self.seat, &self.config)?;
                knowledge.look(&cask)?;
                cask.close()
            }
            ReopenToRead => {
                let cask = open(&self.seat, &Config::new().read_only(true))?;
                knowledge.look(&cask)?;
                cask.close()
            }
            CompactUntilCancelled => match self.cask.compact_with(|_| ControlFlow::Break(())) {
                Err(Error::CompactionCancelled { .. }) => Ok(()),
                other => other.map(|compaction| panic!("nothing has cancelled it: {compaction:?}")),
            },
            Renew => self.cask.reopen(),
            Verify => self.cask.verify().map(drop),
            Backup => self.copy(knowledge, |to| self.cask.backup(to).map(drop)),
            CompactTo => self.copy(knowledge, |to| self.cask.compact_to(to).map(drop)),
            Salvage => self.copy(knowledge, |to| salvage_on(&*self.seat.disk(), &self.seat.path(), to).map(drop)),
            ReadByIndex => knowledge.look_at_all(|| self.cask.scan_by_index()?.map(|pair| Ok(pair?.1)).collect()),
            ReadByBucket => knowledge.look_at_all(|| {
                let pairs = self.cask.scan_buckets()?.map(|bucket| bucket?.1.collect::<Result<Vec<_>, _>>());
                Ok(pairs.collect::<Result<Vec<_>, _>>()?.concat())
            }),
            ComeAndDie => {
                let seat = self.seat.another();
                let config = Config::new().durability(Durability::Os).connection_timeout(Duration::ZERO);
                let other = Player { cask: open(&seat, &config)?, seat, config };
                other.put(knowledge, KEYS[1], 8)?;
                other.seat.fail(Verb::WriteAt, 1, Fault::Kill(30));
                assert!(other.put(knowledge, KEYS[1], 8).is_err());
                Ok(())
            }
        }
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(error, Error::LockTimeout { .. } | Error::CompactionOvertaken { .. })
}

/// Interrupts `first` at its `place`-th call for a whole `second`. Returns whether there was such a call.
fn play<S: Seat>(first: Action, second: Action, place: u64, end: End, durability: Durability) -> bool {
    let seat = S::first();
    let knowledge = Arc::new(Knowledge::default());
    let config = Config::new().durability(durability).connection_timeout(Duration::ZERO);
    let one = Player::new(&seat, config.clone());
    for key in KEYS {
        one.put(&knowledge, key, 8).unwrap();
    }
    let two = Player::new(&seat, config.clone());
    two.put(&knowledge, KEYS[0], 8).unwrap();
    let reader = Player::new(&seat, Config::new().read_only(true));
    reader.act(Read, &knowledge).unwrap();

    let reached = Arc::new(AtomicU64::new(0));
    {
        let (two, reader, knowledge, reached) =
            (two.clone(), reader.clone(), Arc::clone(&knowledge), Arc::clone(&reached));
        let victim = one.seat.clone();
        // Shares all but the writer with the handle that is interrupted.
        let thread = one.clone();
        let act = move || {
            reached.store(1, Ordering::SeqCst);
            if let Err(error) = two.act(second, &knowledge) {
                assert!(is_busy(&error), "{second:?}: {error}");
            }
            reader.act(Read, &knowledge).unwrap();
            match end {
                End::GoesOn => {}
                End::GoesOnAfterAReader => thread.act(Read, &knowledge).unwrap(),
                End::IsKilled => victim.kill(),
                End::PowerCut => drop(victim.after_power_cut(0)),
            }
        };
        match end {
            End::GoesOnAfterAReader => one.seat.before_lock(place, act),
            _ => one.seat.before(place, act),
        }
    }
    let outcome = one.act(first, &knowledge);
    one.seat.heal();
    two.seat.heal();
    let reached = reached.load(Ordering::SeqCst) != 0;
    if end == End::PowerCut {
        // Also after its last call.
        for seed in 0..4 {
            after_power_cut(&one.seat.after_power_cut(seed), &knowledge, durability);
        }
        return reached;
    }
    if !reached {
        return false;
    }
    match end {
        End::GoesOn | End::GoesOnAfterAReader => {
            if let Err(error) = outcome {
                assert!(is_busy(&error), "{first:?}: {error}");
            }
            one.act(Read, &knowledge).unwrap();
            one.act(Put, &knowledge).unwrap();
        }
        // Its files are closed, and its locks given up.
        End::IsKilled => drop(one),
        End::PowerCut => unreachable!("handled above"),
    }
    for player in [&two, &reader] {
        player.act(Read, &knowledge).unwrap();
    }
    for action in [Put, BatchOfBoth, Compact, Read] {
        two.act(action, &knowledge).unwrap();
        reader.act(Read, &knowledge).unwrap();
    }
    let last = Player::new(&seat, config);
    for action in [Read, Put, Verify] {
        last.act(action, &knowledge).unwrap();
    }
    reader.act(Read, &knowledge).unwrap();
    two.act(Read, &knowledge).unwrap();
    last.cask.close().unwrap();
    two.cask.close().unwrap();
    let goes_on = matches!(end, End::GoesOn | End::GoesOnAfterAReader);
    // A process killed while it makes a copy may leave the copy, or a part under another name, which the next copy removes.
    let left = seat.names().into_iter().filter(|name| goes_on || !name.to_string_lossy().contains("copy-"));
    assert_eq!(left.count(), 1, "{:?}", seat.names());
    true
}

/// What was acknowledged as durable is there, and no index that was seen is handed out again.
fn after_power_cut<S: Seat>(seat: &S, knowledge: &Knowledge, durability: Durability) {
    let left = Knowledge::default();
    left.next.store(knowledge.next.load(Ordering::SeqCst), Ordering::SeqCst);
    *left.indexes.lock().unwrap() = knowledge.indexes.lock().unwrap().clone();
    *left.seen.lock().unwrap() = knowledge.durable.lock().unwrap().clone();
    let player = Player::new(seat, Config::new().durability(durability));
    player.act(Read, &left).unwrap();
    KEYS.iter().for_each(|key| player.put(&left, key, 8).unwrap());
    for action in [BatchOfBoth, Verify, Compact, Read] {
        player.act(action, &left).unwrap();
    }
    player.cask.close().unwrap();
}

fn try_all<S: Seat>(end: End, durability: Durability, thinner: usize) {
    // All pairs at all places if asked for, or where it takes seconds only; else a part of both.
    let all = std::env::var_os("CASKFILE_CRASH_ROUNDS").is_some() || !cfg!(debug_assertions);
    let (every, step) = match end {
        _ if all => (1, 1),
        // An action asks for few locks.
        End::GoesOnAfterAReader => (2 * thinner, 1),
        _ => (5 * thinner, 3),
    };
    let (mut games, mut failures) = (0, Vec::new());
    for (at, first) in ACTIONS.into_iter().filter(|first| *first != ComeAndDie).enumerate() {
        for (offset, second) in ACTIONS.into_iter().enumerate() {
            let pair = at * ACTIONS.len() + offset;
            if pair % every != 0 {
                continue;
            }
            for place in (1 + pair as u64 % step..).step_by(step as usize) {
                let game = AssertUnwindSafe(|| play::<S>(first, second, place, end, durability));
                match std::panic::catch_unwind(game) {
                    Ok(true) => games += 1,
                    Ok(false) => break,
                    Err(panic) => {
                        let why = panic.downcast_ref::<String>().cloned();
                        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| why.to_string()));
                        failures.push(format!("{first:?}, at call {place} {second:?}: {}", why.unwrap_or_default()));
                        if place > 300 {
                            break;
                        }
                    }
                }
            }
        }
    }
    let where_to = std::any::type_name::<S>();
    println!("{where_to}, {end:?}, {durability:?}: {games} games");
    assert!(failures.is_empty(), "{} of {games} games failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn both_processes_agree_whatever_happens_between_two_calls() {
    try_all::<SimDisk>(End::GoesOn, Durability::Sync, 1);
    try_all::<SimDisk>(End::GoesOn, Durability::Os, 1);
}

/// A thread that calls for a lock holds nothing that readers of its handle need. They may follow a compaction while the writer
/// still waits for the old file's lock.
#[test]
fn a_writer_that_waited_goes_on_with_what_a_reader_found() {
    try_all::<SimDisk>(End::GoesOnAfterAReader, Durability::Sync, 1);
    try_all::<SimDisk>(End::GoesOnAfterAReader, Durability::Os, 1);
}

#[test]
fn a_kill_after_another_process_acted_loses_nothing() {
    try_all::<SimDisk>(End::IsKilled, Durability::Sync, 1);
    try_all::<SimDisk>(End::IsKilled, Durability::Os, 1);
}

#[test]
fn a_power_cut_after_another_process_acted_loses_nothing() {
    try_all::<SimDisk>(End::PowerCut, Durability::Sync, 1);
    try_all::<SimDisk>(End::PowerCut, Durability::Os, 1);
}

#[test]
fn the_same_while_locks_linger() {
    for end in [End::GoesOn, End::IsKilled, End::PowerCut] {
        try_all::<Lingering>(end, Durability::Os, 1);
    }
}

#[test]
fn the_same_on_real_files() {
    for end in [End::GoesOn, End::IsKilled] {
        try_all::<RealSeat>(end, Durability::Sync, 23);
        try_all::<RealSeat>(end, Durability::Os, 23);
    }
}
