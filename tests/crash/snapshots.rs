//! A store holds the same with and without its snapshots, whenever they are written, whatever happens beside them, and whatever
//! a power cut leaves of them.
//!
//! Random lives of three processes on one store, with limits so small that a handle writes a snapshot after a few puts. At random
//! moments, and after power cuts before every call of some lives, the store is opened twice: through its snapshot, if the root
//! leads to one, and by reading the whole log. Everything that both show is compared, in different orders of first touch.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, CompactionPolicy, Config, Durability, Error, KvPair, Limits, PutOptions, SnapshotPolicy, verify_on,
};

use crate::common::dice::Dice;
use crate::common::files::layout::ROOTS_END;
use crate::common::files::reader::Reader;
use crate::common::files::snapshot;

const STORE: &str = "/store";
/// Keys of the second one are alike in what the sorted index has of them.
const BUCKETS: [&str; 2] = ["", "a bucket with a long name"];

/// Small enough for snapshots of a few keys in several pieces and parts.
fn limits(dice: &mut Dice) -> Limits {
    Limits {
        least_cost: dice.choose(&[1, 100, 500]),
        least_part: dice.choose(&[8, 40, 4096]),
        image_bytes: dice.choose(&[1, 64, 40_000]),
        sync_cost: dice.choose(&[0, 16]),
        leaf_entries: dice.choose(&[1, 2, 3, 1360]),
        ..Limits::mixed(dice.roll())
    }
}

/// Whether the file's root leads to a snapshot.
fn has_snapshot(file: &[u8]) -> bool {
    Reader::new(file).root().is_some_and(|(_, _, snapshot)| snapshot > 0)
}

/// Whether that snapshot has the order of the keys.
fn has_order(file: &[u8]) -> bool {
    snapshot::order(file).is_some()
}

/// Whether that snapshot leads to records with a lifetime.
fn has_lifetimes(file: &[u8]) -> bool {
    has_snapshot(file) && snapshot::stored(file).is_some_and(|image| image.lifetimes.is_some_and(|all| !all.is_empty()))
}

/// All pairs of a bucket, from both ends as the dice say.
fn scanned(cask: &Cask, dice: &mut Dice) -> Result<Vec<KvPair>, Error> {
    let (mut scan, mut front, mut back) = (cask.scan("")?, Vec::new(), Vec::new());
    let backwards = dice.below(3);
    loop {
        let from_back = dice.below(2) < backwards;
        match if from_back { scan.next_back() } else { scan.next() } {
            Some(pair) if from_back => back.push(pair?),
            Some(pair) => front.push(pair?),
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    Ok(front)
}

/// What a handle shows of a store. The order in which keys are asked for is the dice's.
#[derive(Debug, PartialEq)]
struct Shown {
    pairs: Vec<(String, Vec<KvPair>)>,
    by_index: Vec<(Vec<u8>, KvPair)>,
    /// Keys, buckets, records, the log's end, live and dead bytes, the last index, what is proven, keys that expire, hidden keys.
    figures: [u64; 10],
}

fn shown(cask: &Cask, dice: &mut Dice) -> Result<Shown, Error> {
    let mut single = BTreeMap::new();
    for _ in 0..dice.below(8) {
        let (bucket, key) = (dice.choose(&BUCKETS), format!("key {}", dice.below(12)));
        let bucket_handle = cask.bucket(bucket)?;
        let found = match bucket_handle.get(&key) {
            Ok(pair) => Some(pair),
            Err(Error::KeyNotFound) => None,
            Err(error) => return Err(error),
        };
        assert_eq!(bucket_handle.exists(&key)?, found.is_some());
        single.insert((bucket, key), found);
    }
    // Both before and after the index is sorted and the figures are counted.
    let by_index_first = dice.one_in(2);
    let by_index = |cask: &Cask| cask.scan_by_index()?.collect::<Result<Vec<_>, _>>();
    let early = if by_index_first { Some(by_index(cask)?) } else { None };
    let mut pairs = Vec::new();
    if dice.one_in(3) {
        // A few keys of an order of which nothing else is loaded.
        let (from, to) = (format!("key {}", dice.below(12)), format!("key {}", dice.below(12)));
        let range = cask.range(from.as_str()..to.as_str())?.collect::<Result<Vec<_>, _>>()?;
        let expected =
            cask.list("")?.into_iter().filter(|pair| (from.as_bytes()..to.as_bytes()).contains(&&pair.key[..]));
        assert_eq!(range, expected.collect::<Vec<_>>(), "{from}..{to}");
    }
    if dice.one_in(3) {
        for bucket in cask.scan_buckets()? {
            let (name, scan) = bucket?;
            let name = String::from_utf8(name).unwrap();
            assert_eq!(scan.collect::<Result<Vec<_>, _>>()?, cask.bucket(&name)?.list("")?, "{name}");
        }
    }
    for bucket in BUCKETS {
        let handle = cask.bucket(bucket)?;
        let all = if dice.one_in(2) { handle.list("")? } else { scanned(&handle, dice)? };
        pairs.push((bucket.to_owned(), all));
    }
    for ((bucket, key), found) in single {
        let (_, pairs) = pairs.iter().find(|(name, _)| name == bucket).unwrap();
        assert_eq!(pairs.iter().find(|pair| pair.key == key.as_bytes()), found.as_ref(), "{bucket}/{key}");
    }
    let stats = cask.stats()?;
    let by_index = early.map_or_else(|| by_index(cask), Ok)?;
    Ok(Shown {
        pairs,
        by_index,
        figures: [
            stats.keys,
            stats.buckets,
            stats.records,
            stats.log_end,
            stats.live_bytes,
            stats.dead_bytes,
            stats.last_index,
            stats.proven,
            stats.expiring,
            stats.hidden,
        ],
    })
}

fn reader(check: bool) -> Config {
    Config::new().read_only(true).check_at_open(check)
}

/// Compares what the store shows through its snapshot and without it.
fn compare(disk: &SimDisk, dice: &mut Dice, what: &dyn Fn() -> String) -> Option<Shown> {
    let open = |check| Cask::open_on(Arc::new(disk.process()), STORE, &reader(check));
    let (through, whole) = match (open(false), open(true)) {
        (Ok(through), Ok(whole)) => (through, whole),
        // The name of a new store may be lost.
        (Err(Error::Io { .. }), Err(Error::Io { .. })) if disk.contents(STORE).is_none() => return None,
        (through, whole) => panic!("{}: through the snapshot {through:?}, without {whole:?}", what()),
    };
    if dice.one_in(3) {
        // What a handle counts that has begun with a snapshot is what the log has.
        open(false).unwrap().verify().unwrap_or_else(|error| panic!("{}: {error}", what()));
        let report = verify_on(&disk.process(), STORE.as_ref()).unwrap();
        assert!(report.wrong_snapshot.is_none(), "{}: {:?}", what(), report.wrong_snapshot);
    }
    let (mut through, whole) = (shown(&through, dice).unwrap(), shown(&whole, dice).unwrap());
    // The walk from a snapshot does not meet the images before it, and dead bytes leave out the last one.
    through.figures[5] = whole.figures[5];
    assert_eq!(through, whole, "{}", what());
    Some(whole)
}

/// A deadline that is over, or one that never is: no clock moves here.
fn lifetime(dice: &mut Dice) -> PutOptions {
    let deadline = if dice.one_in(2) { 1 } else { 1 << 50 };
    PutOptions::new().expires_at(Some(SystemTime::UNIX_EPOCH + Duration::from_millis(deadline)))
}

struct Life {
    seed: u64,
    disk: SimDisk,
    processes: Vec<SimDisk>,
    casks: Vec<Option<Cask>>,
    compared: u64,
    with_snapshot: u64,
    with_order: u64,
    with_lifetimes: u64,
}

impl Life {
    fn new(seed: u64, dice: &mut Dice) -> Life {
        let disk = SimDisk::from_seed(seed);
        disk.set_sector(dice.choose(&[8, 64, 512]));
        disk.set_limits(limits(dice));
        let processes = (0..3).map(|_| disk.process()).collect();
        let casks = vec![None, None, None];
        Life { seed, disk, processes, casks, compared: 0, with_snapshot: 0, with_order: 0, with_lifetimes: 0 }
    }

    fn open(&self, n: usize, dice: &mut Dice) -> Option<Cask> {
        let durability = dice.choose(&[Durability::Sync, Durability::Sync, Durability::Os]);
        let config = Config::new()
            .durability(durability)
            .connection_timeout(Duration::ZERO)
            .compaction(CompactionPolicy::Manual)
            .snapshots(dice.choose(&[SnapshotPolicy::AtClose, SnapshotPolicy::AtClose, SnapshotPolicy::Never]));
        Cask::open_on(Arc::new(self.processes[n].clone()), STORE, &config).ok()
    }

    fn step(&mut self, dice: &mut Dice) {
        let n = dice.below(3) as usize;
        let Some(cask) = &self.casks[n] else {
            self.casks[n] = self.open(n, dice);
            return;
        };
        let (bucket, key, len) = (dice.choose(&BUCKETS), format!("key {}", dice.below(12)), dice.below(90) as usize);
        let Ok(bucket) = cask.bucket(bucket) else {
            // It is closed.
            self.casks[n] = None;
            return;
        };
        let value = vec![dice.roll() as u8; len];
        // Failures are a part of this life.
        let _ = match dice.below(20) {
            0..=2 if self.seed % 2 == 0 => bucket.put_with(&key, value, &lifetime(dice)).map(drop),
            0..=7 => bucket.put(&key, value).map(drop),
            8 => cask.write(Batch::new().put(&key, value).delete("key 1").put("key 2", "")).map(drop),
            9 | 10 => bucket.delete(&key),
            11 => cask.compact().map(drop),
            12 => cask.reopen(),
            13 => cask.close(),
            14 if dice.one_in(2) => bucket.list("").map(drop),
            14 => bucket.get(&key).map(drop),
            15 => bucket.delete_prefix("key 1").map(drop),
            _ => cask.write_snapshot().map(drop),
        };
        if dice.one_in(8) {
            self.casks[n] = None;
        }
    }

    fn look(&mut self, dice: &mut Dice) {
        let (seed, disk) = (self.seed, &self.disk);
        let Some(file) = disk.contents(STORE) else { return };
        self.compared += 1;
        self.with_snapshot += u64::from(has_snapshot(&file));
        self.with_order += u64::from(has_order(&file));
        self.with_lifetimes += u64::from(has_lifetimes(&file));
        let shown = compare(disk, dice, &|| format!("seed {seed}"));
        // A handle that has seen everything shows the same.
        let own = self.casks.iter().flatten().find_map(|cask| self::shown(cask, &mut Dice::new(seed)).ok());
        if let (Some(shown), Some(own)) = (shown, own) {
            assert_eq!((shown.pairs, shown.by_index), (own.pairs, own.by_index), "seed {seed}");
        }
    }
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().expect("a number"))
}

/// `CASKFILE_SNAPSHOTS` is the number of lives (400).
#[test]
fn a_store_holds_the_same_with_and_without_its_snapshot() {
    let lives = number_of("CASKFILE_SNAPSHOTS", 400);
    let (mut compared, mut with_snapshot, mut with_order, mut with_lifetimes) = (0, 0, 0, 0);
    for seed in 0..lives {
        let mut dice = Dice::new(seed);
        let mut life = Life::new(seed, &mut dice);
        for _ in 0..60 {
            if dice.one_in(12) {
                let verb = dice.choose(&[Verb::WriteAt, Verb::SyncData, Verb::SetLen, Verb::SyncDir, Verb::ReadAt]);
                let fault = dice.choose(&[Fault::Os(libc::EIO), Fault::Os(libc::ENOSPC), Fault::Short(5)]);
                let n = dice.below(3) as usize;
                life.processes[n].fail(When::nth(1 + dice.below(12)).of(verb), fault, Repeat::Once);
            }
            life.step(&mut dice);
            life.disk.clear_faults();
            life.processes.iter().for_each(SimDisk::clear_faults);
            if dice.one_in(6) {
                life.look(&mut dice);
            }
        }
        (compared, with_snapshot) = (compared + life.compared, with_snapshot + life.with_snapshot);
        (with_order, with_lifetimes) = (with_order + life.with_order, with_lifetimes + life.with_lifetimes);
    }
    println!(
        "{compared} comparisons, {with_snapshot} with a snapshot, {with_order} with an order, {with_lifetimes} with deadlines"
    );
    assert!(with_lifetimes > lives / 2, "hardly ever tried: {with_lifetimes} with deadlines");
    assert!(with_snapshot > lives * 2 && with_order > lives, "hardly ever tried: {with_snapshot}, {with_order}");
}

/// `CASKFILE_SNAPSHOT_CUTS` is the number of lives (100).
#[test]
fn a_power_cut_at_any_call_leaves_the_same_with_and_without_a_snapshot() {
    let lives = number_of("CASKFILE_SNAPSHOT_CUTS", 100);
    let (compared, with_snapshot) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let with_order = Arc::new(AtomicU64::new(0));
    for seed in 0..lives {
        let mut dice = Dice::new(seed ^ 0xc0de);
        let mut life = Life::new(seed, &mut dice);
        let (all, some) = (Arc::clone(&compared), Arc::clone(&with_snapshot));
        let (calls, seen) = (AtomicU64::new(0), Mutex::new(HashSet::new()));
        let ordered = Arc::clone(&with_order);
        life.disk.before(When::next(), Repeat::Forever, move |disk| {
            let call = 1 + calls.fetch_add(1, Ordering::Relaxed);
            let ways = [Choices::keep_nothing(), Choices::keep_all(), Choices::from_seed(seed * 1_000 + call)];
            for (way, mut choices) in ways.into_iter().enumerate() {
                let after = disk.reboot(&mut choices);
                let Some(file) = after.contents(STORE).filter(|file| file.len() > ROOTS_END) else { continue };
                // Most calls change nothing that a power cut leaves.
                if !seen.lock().unwrap().insert(after.fingerprint()) {
                    continue;
                }
                all.fetch_add(1, Ordering::Relaxed);
                some.fetch_add(has_snapshot(&file).into(), Ordering::Relaxed);
                ordered.fetch_add(has_order(&file).into(), Ordering::Relaxed);
                let mut dice = Dice::new(seed + call);
                compare(&after, &mut dice, &|| format!("seed {seed}, call {call}, way {way}"));
                // A writer goes on from there, and its snapshot is right too.
                if call % 2 == 0 {
                    write_on(&after, &mut dice);
                    compare(&after, &mut dice, &|| format!("seed {seed}, call {call}, way {way}, later"));
                }
            }
        });
        for n in 0..14 {
            life.step(&mut dice);
            if seed % 3 > 0 && n % 6 == seed % 6 {
                life.casks.iter().flatten().for_each(|cask| drop(cask.list("")));
            }
        }
        life.disk.clear_hooks();
    }
    let (compared, with_snapshot) = (compared.load(Ordering::Relaxed), with_snapshot.load(Ordering::Relaxed));
    let with_order = with_order.load(Ordering::Relaxed);
    println!("{compared} comparisons, {with_snapshot} with a snapshot, {with_order} with an order");
    assert!(with_snapshot > lives * 5, "hardly ever tried: {with_snapshot} of {compared}");
    assert!(with_order > lives, "hardly ever tried: {with_order} of {compared}");
}

fn write_on(disk: &SimDisk, dice: &mut Dice) {
    let config = Config::new().create(false).compaction(CompactionPolicy::Manual);
    let Ok(cask) = Cask::open_on(Arc::new(disk.process()), STORE, &config) else { return };
    for _ in 0..dice.below(3) {
        cask.put(format!("key {}", dice.below(12)), "after the power cut").unwrap();
        if dice.one_in(3) {
            cask.list("").unwrap();
        }
    }
    cask.close().unwrap();
}

/// Before the calls of a process that writes a snapshot, another one writes, compacts, or has its own snapshot written.
#[test]
fn a_snapshot_beside_a_writer_is_of_one_moment() {
    let (mut compared, mut led) = (0, 0);
    for seed in 0..300 {
        let mut dice = Dice::new(seed ^ 0xbe51de);
        let mut life = Life::new(seed, &mut dice);
        while life.casks.iter().flatten().count() < 2 {
            life.step(&mut dice);
        }
        let mut casks = life.casks.iter_mut().enumerate().filter(|(_, cask)| cask.is_some());
        let (writer, beside) = (casks.next().unwrap(), casks.next().unwrap());
        let (n, cask, beside) = (writer.0, writer.1.take().unwrap(), beside.1.take().unwrap());
        let _ = (cask.reopen(), cask.put("key 0", "own"), beside.reopen(), beside.put("key 1", "other"));
        let (others, every) = (Mutex::new(Dice::new(seed)), 1 + dice.below(6));
        let snapshots = cask.stats().map_or(0, |stats| stats.snapshots);
        let _ = if dice.one_in(2) { cask.list("").map(drop) } else { Ok(()) };
        life.disk.before(When::next().by(&life.processes[n]), Repeat::Forever, move |_| {
            let mut dice = others.lock().unwrap();
            let key = format!("key {}", dice.below(12));
            // It does not get the lock during the other one's turns.
            let _ = match dice.below(every * 20) {
                0..=9 => beside.put(&key, vec![dice.roll() as u8; dice.below(60) as usize]).map(drop),
                10..=14 => beside.delete(&key),
                15 => beside.compact().map(drop),
                16 | 17 => beside.write_snapshot().map(drop),
                _ => Ok(()),
            };
        });
        let _ = if dice.one_in(2) { cask.close() } else { cask.write_snapshot().map(drop) };
        life.disk.clear_hooks();
        led += cask.stats().map_or(0, |stats| stats.snapshots - snapshots);
        let file = life.disk.contents(STORE).unwrap();
        compared += u64::from(has_snapshot(&file));
        for _ in 0..3 {
            compare(&life.disk, &mut dice, &|| format!("seed {seed}"));
        }
    }
    println!("{compared} stores with a snapshot, {led} written beside another process");
    assert!(compared > 100 && led > 30, "hardly ever tried: {compared}, {led}");
}
