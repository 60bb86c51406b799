//! Any sequence of operations, through several handles, agrees with a model: indexes, compaction, reopening, killed
//! processes, failing calls, power cuts and keys that expire included.
//!
//! Every handle is a process of its own on one simulated disk. The model is what the store holds now, and what it may
//! hold after a power cut: the state of the last write that was acknowledged as durable, and any later one.

#![no_main]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::Clock;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, LockMode, OptionalExt, PutOptions, ReadMode, Result};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| {
    let mut bench = Bench::new(&program);
    for step in program.steps {
        bench.step(step);
    }
    bench.end();
});

#[derive(Debug, Arbitrary)]
struct Program {
    small_sectors: bool,
    garbage: bool,
    no_holes: bool,
    no_maps: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
struct Step {
    handle: u8,
    bucket: u8,
    what: What,
    trouble: Trouble,
}

#[derive(Debug, Arbitrary)]
enum What {
    Put(Key, Value),
    Delete(Key),
    AtomicPut(Key, Value, Previous),
    AtomicDelete(Key, Previous),
    Update(Key, Value),
    Write(Vec<Op>),
    DeletePrefix(Key),
    Sync,
    Compact,
    Reopen(Opening),
    Get(Key),
    List(Key),
    Range(Key, Key),
    ReadAll,
    Verify,
    PowerCut(u16),
    /// The power goes out, and again during the recovery from that: after this number of calls, each time.
    PowerCuts(u16, Vec<(u8, u16)>),
    /// A put of a pair that lives for a number of seconds.
    PutWith(Key, u8),
    /// A number of seconds passes.
    Pass(u8),
}

#[derive(Debug, Arbitrary)]
enum Op {
    Put(Key, Value),
    Delete(Key),
    ExpectSeq(Key, Previous),
    ExpectAbsent(Key),
    Bucket(u8),
    PutWith(Key, u8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Previous {
    None,
    Current,
    Stale,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Opening {
    durability: bool,
    exclusive: bool,
    pread: bool,
    close_first: bool,
}

/// What happens in the middle of a step.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Trouble {
    None1,
    None2,
    None3,
    None4,
    Kill(u8, u8),
    PowerCut(u8, u16),
    FullDisk(u8),
    FailedSync(u8),
    Short(u8, u8),
    /// A call fails: which verb, which of its calls, how, and whether all later ones do too.
    Any(u8, u8, u8, bool),
}

impl Trouble {
    fn is_none(self) -> bool {
        matches!(self, Trouble::None1 | Trouble::None2 | Trouble::None3 | Trouble::None4)
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Key(u8);

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Value(u8);

impl Key {
    fn bytes(self) -> Vec<u8> {
        const SHORT: [&[u8]; 8] = [b"a", b"ab", b"abc", b"abd", b"b", b"\x00", b"\xff", b"\xff\xff"];
        match self.0 % 16 {
            n @ 0..8 => SHORT[usize::from(n)].to_vec(),
            // Longer than what a look-up keeps on the stack, and alike over more bytes than the sorted index holds.
            8 => [b'l'; 200].to_vec(),
            n @ 9..12 => [&b"a-long-prefix-that-keys-share/"[..], &[n]].concat(),
            n => format!("key/{}", u16::from(n) * u16::from(self.0)).into_bytes(),
        }
    }

    /// A prefix of keys, the empty one included.
    fn prefix(self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(usize::from(self.0 / 16));
        bytes
    }
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        let len = match self.0 {
            n @ 0..0x80 => usize::from(n) % 20,
            n @ 0x80..0xf0 => usize::from(n),
            // Over several sectors, and for the last over what a file is first extended by.
            n => usize::from(n - 0xef) * 700 + usize::from(n == 0xff) * 70_000,
        };
        vec![self.0; len]
    }
}

/// The value of a pair that expires says when, so that the model knows it from what the store holds.
const UNTIL: &[u8] = b"until ";

/// The value of a pair that is put now, by a clock in milliseconds, and that lives for some seconds.
fn value_until(now: u64, seconds: u8) -> (Vec<u8>, PutOptions) {
    let ttl = Duration::from_secs(1 + u64::from(seconds % 8));
    let deadline = now + ttl.as_millis() as u64;
    ([UNTIL, &deadline.to_le_bytes()].concat(), PutOptions::new().ttl(ttl))
}

/// Whether a pair with this value has not expired.
fn lives(value: &[u8], now: u64) -> bool {
    let deadline = value.strip_prefix(UNTIL).and_then(|rest| rest.try_into().ok()).map(u64::from_le_bytes);
    deadline.is_none_or(|deadline| now < deadline)
}

const HANDLES: usize = 3;
const BUCKETS: [&str; 3] = ["", "b", "bucket"];
const STORE: &str = "/store";

/// Bucket (by its number) and key.
type FullKey = (usize, Vec<u8>);
/// What each key has.
type State = BTreeMap<FullKey, (Vec<u8>, u64)>;
/// What one write did; the index of a put is not known if its call failed.
type Delta = Vec<(FullKey, Option<(Vec<u8>, Option<u64>)>)>;

struct Handle {
    cask: Cask,
    process: SimDisk,
    opening: Opening,
    /// The number of deltas after its last write, of all there ever were.
    written: usize,
}

struct Bench {
    disk: SimDisk,
    /// Stands still between steps.
    clock: Clock,
    handles: Vec<Option<Handle>>,
    now: State,
    /// The state that a power cut cannot take back, and what was done since.
    durable: State,
    since: Vec<Delta>,
    /// How many deltas the durable state has.
    settled: usize,
    /// No later write may have this index or a lower one.
    highest_seen: u64,
    /// A pair that every key once had, to be stale with.
    stale: BTreeMap<FullKey, KvPair>,
}

/// What a call that should have written did.
enum Outcome {
    /// Acknowledged.
    Done(Delta),
    /// Refused, as the model expects: nothing was written.
    Refused,
    /// Failed on the way.
    Failed(Error, Delta),
}

impl Bench {
    fn new(program: &Program) -> Bench {
        let disk = SimDisk::new();
        disk.set_sector(if program.small_sectors { 8 } else { 512 });
        disk.set_garbage(program.garbage);
        disk.set_holes(!program.no_holes);
        disk.set_maps(!program.no_maps);
        let clock = disk.stop_clock();
        Bench {
            disk,
            clock,
            handles: (0..HANDLES).map(|_| None).collect(),
            now: State::new(),
            durable: State::new(),
            since: Vec::new(),
            settled: 0,
            highest_seen: 0,
            stale: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let (number, bucket) = (usize::from(step.handle) % HANDLES, usize::from(step.bucket) % BUCKETS.len());
        match step.what {
            What::PowerCut(seed) => return self.power_cut(seed, &[], Outcome::Refused, false),
            What::PowerCuts(seed, again) => return self.power_cut(seed, &again, Outcome::Refused, false),
            What::Reopen(opening) => return self.reopen(number, opening, step.trouble),
            What::Pass(seconds) => return self.pass(seconds),
            _ => {}
        }
        if self.handles[number].is_none() && !self.open(number, Opening::USUAL) {
            return;
        }
        if self.read(number, bucket, &step.what) {
            return;
        }
        self.plan(&self.handles[number].as_ref().expect("opened before").process, step.trouble);
        let outcome = self.write(number, bucket, &step.what);
        self.disk.clear_faults();
        let opening = self.handles[number].as_ref().expect("opened before").opening;
        let durable = opening.durability || matches!(step.what, What::Sync | What::Compact);
        match step.trouble {
            Trouble::PowerCut(_, seed) if !self.disk.power_is_on() => self.power_cut(seed, &[], outcome, durable),
            Trouble::Kill(..) => self.killed(number, outcome),
            _ => self.judge(number, outcome, durable),
        }
    }

    /// Closes what is open, and opens once more.
    fn end(mut self) {
        for number in 0..HANDLES {
            self.close(number);
        }
        assert!(self.open(0, Opening::USUAL));
        self.check_everything(0);
        self.close(0);
        let names = self.disk.paths();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains(".tmp-")), "left over: {names:?}");
    }

    // Time.

    fn wall(&self) -> u64 {
        self.clock.wall().as_millis() as u64
    }

    fn pass(&mut self, seconds: u8) {
        self.clock.advance(Duration::from_secs((seconds % 8).into()));
        let wall = self.wall();
        self.now.retain(|_, (value, _)| lives(value, wall));
    }

    // Opening and closing.

    fn exclusive(&self) -> Option<usize> {
        self.handles.iter().position(|handle| handle.as_ref().is_some_and(|handle| handle.opening.exclusive))
    }

    /// Whether this handle, open or not, can get the lock.
    fn may_lock(&self, number: usize) -> bool {
        self.exclusive().is_none_or(|holder| holder == number)
    }

    fn open(&mut self, number: usize, opening: Opening) -> bool {
        let process = self.disk.process();
        match Cask::open_on(Arc::new(process.clone()), STORE, &opening.config()) {
            Ok(cask) => {
                assert!(self.may_lock(number), "opened beside an exclusive handle");
                self.handles[number] = Some(Handle { cask, process, opening, written: 0 });
                self.check_everything(number);
                true
            }
            Err(Error::LockTimeout { .. }) if !self.may_lock(number) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn close(&mut self, number: usize) {
        let may_lock = self.may_lock(number);
        let Some(handle) = self.handles[number].take() else { return };
        match handle.cask.close() {
            Ok(()) if may_lock && handle.written > self.settled => self.settle(handle.written),
            Ok(()) | Err(Error::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(matches!(handle.cask.get("a"), Err(Error::Closed)));
    }

    fn reopen(&mut self, number: usize, opening: Opening, trouble: Trouble) {
        if opening.close_first {
            self.close(number);
        } else if let Some(handle) = self.handles[number].take() {
            handle.process.kill();
        }
        if !trouble.is_none() {
            // A process opens it and fails on the way: the outcome must not depend on it.
            let process = self.disk.process();
            self.plan(&process, trouble);
            let result = Cask::open_on(Arc::new(process.clone()), STORE, &opening.config()).map(drop);
            self.disk.clear_faults();
            match trouble {
                Trouble::PowerCut(_, seed) if !self.disk.power_is_on() => {
                    return self.power_cut(seed, &[], Outcome::Refused, false);
                }
                _ => process.kill(),
            }
            match result {
                Ok(()) | Err(Error::Io { .. } | Error::Poisoned { .. }) => {}
                Err(Error::LockTimeout { .. }) => assert!(!self.may_lock(number)),
                Err(error) => panic!("{error}"),
            }
        }
        self.open(number, opening);
    }

    // Reading.

    fn cask(&self, number: usize) -> &Cask {
        &self.handles[number].as_ref().expect("opened before").cask
    }

    fn bucket(&self, number: usize, bucket: usize) -> Cask {
        self.cask(number).bucket(BUCKETS[bucket]).unwrap()
    }

    fn expected(&self, bucket: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<KvPair> {
        let pairs = self.now.iter().filter(|((b, key), _)| *b == bucket && wanted(key));
        pairs.map(|((_, key), (value, index))| KvPair::new(&key[..], &value[..], *index)).collect()
    }

    /// Carries out a step that only reads; `false` if it is none.
    fn read(&self, number: usize, bucket: usize, what: &What) -> bool {
        let cask = self.bucket(number, bucket);
        match what {
            What::Get(key) => {
                let found = cask.get(key.bytes()).optional().unwrap();
                assert_eq!(found, self.current(bucket, *key));
                assert_eq!(cask.exists(key.bytes()).unwrap(), found.is_some());
            }
            What::List(prefix) => {
                let prefix = prefix.prefix();
                assert_eq!(cask.list(&prefix).unwrap(), self.expected(bucket, |key| key.starts_with(&prefix)));
            }
            What::Range(from, to) => {
                let (from, to) = (from.bytes(), to.prefix());
                let range = (Bound::Excluded(&from[..]), Bound::Included(&to[..]));
                let mut found: Vec<_> = cask.range::<&[u8]>(range).unwrap().rev().map(Result::unwrap).collect();
                found.reverse();
                assert_eq!(found, self.expected(bucket, |key| key > &from[..] && key <= &to[..]));
            }
            What::ReadAll => self.check_everything(number),
            What::Verify => {
                assert_eq!(cask.verify().unwrap().keys, self.now.len() as u64 + cask.stats().unwrap().hidden);
            }
            _ => return false,
        }
        true
    }

    fn check_everything(&self, number: usize) {
        assert_eq!(read_all(self.cask(number)), self.now);
    }

    fn current(&self, bucket: usize, key: Key) -> Option<KvPair> {
        let (value, index) = self.now.get(&(bucket, key.bytes()))?;
        Some(KvPair::new(key.bytes(), &value[..], *index))
    }

    fn previous(&self, bucket: usize, key: Key, previous: Previous) -> Option<KvPair> {
        match previous {
            Previous::None => None,
            Previous::Current => self.current(bucket, key),
            Previous::Stale => self.stale.get(&(bucket, key.bytes())).cloned(),
        }
    }

    /// What a compare-and-swap finds.
    fn verdict(&self, bucket: usize, key: Key, previous: Option<&KvPair>) -> Result<()> {
        match (self.current(bucket, key), previous) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(Error::KeyExists),
            (None, Some(_)) => Err(Error::KeyNotFound),
            (Some(now), Some(then)) if now.last_index != then.last_index => Err(Error::KeyModified),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    // Writing.

    /// Carries out a step that may write.
    fn write(&self, number: usize, bucket: usize, what: &What) -> Outcome {
        let cask = self.bucket(number, bucket);
        let put = |key: &Key, value: &Value, index| ((bucket, key.bytes()), Some((value.bytes(), index)));
        match what {
            What::Put(key, value) => {
                let result = cask.put(key.bytes(), value.bytes());
                outcome(result.map(|index| vec![index]), vec![put(key, value, None)])
            }
            What::PutWith(key, seconds) => {
                let (value, options) = value_until(self.wall(), *seconds);
                let result = cask.put_with(key.bytes(), &value, &options);
                outcome(result.map(|pair| vec![pair.last_index]), vec![((bucket, key.bytes()), Some((value, None)))])
            }
            What::Delete(key) => {
                let delta = self.deletions(bucket, |k| k == key.bytes());
                outcome(cask.delete(key.bytes()).map(|()| Vec::new()), delta)
            }
            What::AtomicPut(key, value, previous) => {
                let previous = self.previous(bucket, *key, *previous);
                let result = cask.atomic_put(key.bytes(), value.bytes(), previous.as_ref());
                if let Ok(pair) = &result {
                    assert_eq!((&pair.key, &pair.value), (&key.bytes(), &value.bytes()));
                }
                let verdict = self.verdict(bucket, *key, previous.as_ref());
                let delta = vec![put(key, value, None)];
                expect(verdict, result.map(|pair| vec![pair.last_index]), delta)
            }
            What::AtomicDelete(key, previous) => {
                let previous = self.previous(bucket, *key, *previous);
                let verdict = match &previous {
                    None => Err(Error::PreviousNotSpecified),
                    Some(pair) => self.verdict(bucket, *key, Some(pair)),
                };
                let result = cask.atomic_delete(key.bytes(), previous.as_ref());
                expect(verdict, result.map(|()| Vec::new()), self.deletions(bucket, |k| k == key.bytes()))
            }
            What::Update(key, value) => {
                let before = self.current(bucket, *key);
                let result = cask.update(key.bytes(), |pair| {
                    assert_eq!(pair, before.as_ref());
                    value.bytes()
                });
                outcome(result.map(|pair| vec![pair.last_index]), vec![put(key, value, None)])
            }
            What::Write(ops) => self.write_batch(number, bucket, ops),
            What::DeletePrefix(prefix) => {
                let prefix = prefix.prefix();
                let delta = self.deletions(bucket, |key| key.starts_with(&prefix));
                let result = cask.delete_prefix(&prefix);
                if let Ok(deleted) = result {
                    assert_eq!(deleted, delta.len() as u64);
                }
                outcome(result.map(|_| Vec::new()), delta)
            }
            What::Sync => outcome(cask.sync().map(|()| Vec::new()), Vec::new()),
            What::Compact => {
                let (shown, stats) = (self.now.len() as u64, cask.stats());
                let result = cask.compact();
                if let (Ok(compaction), Ok(stats)) = (&result, stats) {
                    // It looks at no clock, and its turns sweep nothing.
                    assert_eq!(compaction.keys, shown + stats.hidden);
                }
                outcome(result.map(|_| Vec::new()), Vec::new())
            }
            _ => unreachable!("reads were carried out before"),
        }
    }

    fn deletions(&self, bucket: usize, of: impl Fn(&[u8]) -> bool) -> Delta {
        let keys = self.now.keys().filter(|(b, key)| *b == bucket && of(key));
        keys.map(|key| (key.clone(), None)).collect()
    }

    fn write_batch(&self, number: usize, first_bucket: usize, ops: &[Op]) -> Outcome {
        let mut batch = Batch::new();
        let mut bucket = first_bucket;
        let mut changes: BTreeMap<FullKey, Option<(Vec<u8>, Option<u64>)>> = BTreeMap::new();
        let mut verdict: Result<()> = Ok(());
        for (n, op) in ops.iter().enumerate() {
            match op {
                Op::Bucket(other) => {
                    bucket = usize::from(*other) % BUCKETS.len();
                    batch.bucket(BUCKETS[bucket]);
                }
                Op::Put(key, value) => {
                    batch.put(key.bytes(), value.bytes());
                    changes.insert((bucket, key.bytes()), Some((value.bytes(), None)));
                }
                Op::PutWith(key, seconds) => {
                    let (value, options) = value_until(self.wall(), *seconds);
                    batch.put_with(key.bytes(), &value, &options);
                    changes.insert((bucket, key.bytes()), Some((value, None)));
                }
                Op::Delete(key) => {
                    batch.delete(key.bytes());
                    changes.insert((bucket, key.bytes()), None);
                }
                Op::ExpectAbsent(key) => {
                    batch.expect_absent(key.bytes());
                    let found = self.verdict(bucket, *key, None);
                    verdict = verdict.and_then(|()| found.map_err(|cause| conflict(&batch, cause)));
                }
                Op::ExpectSeq(key, previous) => {
                    let pair = self.previous(bucket, *key, *previous).unwrap_or_else(|| KvPair::new("", "", n as u64));
                    batch.expect_last_index(key.bytes(), pair.last_index);
                    let found = self.verdict(bucket, *key, Some(&pair));
                    verdict = verdict.and_then(|()| found.map_err(|cause| conflict(&batch, cause)));
                }
            }
        }
        let delta: Delta = changes.into_iter().filter(|(key, to)| to.is_some() || self.now.contains_key(key)).collect();
        let result = self.bucket(number, first_bucket).write(&batch);
        expect(verdict, result.map(|_| Vec::new()), delta)
    }

    // What came of it.

    fn plan(&self, process: &SimDisk, trouble: Trouble) {
        let nth = |nth: u8| When::nth(1 + u64::from(nth % 4));
        let (when, fault) = match trouble {
            Trouble::None1 | Trouble::None2 | Trouble::None3 | Trouble::None4 => return,
            Trouble::Kill(nth, len) => (When::nth(1 + u64::from(nth)), Fault::Kill(usize::from(len) * 3)),
            Trouble::PowerCut(nth, _) => (When::nth(1 + u64::from(nth)), Fault::PowerCut),
            Trouble::FullDisk(n) => (nth(n).of(Verb::WriteAt), Fault::Os(ENOSPC)),
            Trouble::Short(n, len) => (nth(n).of(Verb::WriteAt), Fault::Short(len.into())),
            Trouble::FailedSync(n) => {
                let verbs = [Verb::SyncData, Verb::SyncAll, Verb::SyncDir];
                (nth(n).of(verbs[usize::from(n / 4) % verbs.len()]), Fault::Os(EIO))
            }
            Trouble::Any(verb, n, how, _) => {
                let errors = [EIO, ENOSPC, EINTR];
                let verb = VERBS[usize::from(verb) % VERBS.len()];
                (When::nth(1 + u64::from(n % 16)).of(verb), Fault::Os(errors[usize::from(how) % errors.len()]))
            }
        };
        let repeat = if let Trouble::Any(.., true) = trouble { Repeat::Forever } else { Repeat::Once };
        self.disk.fail(when.by(process), fault, repeat);
    }

    /// A call has returned to a process that lives on.
    fn judge(&mut self, number: usize, outcome: Outcome, durable: bool) {
        match outcome {
            Outcome::Refused => {}
            Outcome::Done(delta) => {
                assert!(self.may_lock(number), "written beside an exclusive handle");
                self.done(number, delta, durable);
            }
            Outcome::Failed(Error::LockTimeout { .. }, _) => assert!(!self.may_lock(number)),
            Outcome::Failed(error @ (Error::Io { .. } | Error::Poisoned { .. }), delta) => {
                // The next look says whether the write has happened. Nothing that was acknowledged may be missing.
                self.resolve(read_all(self.cask(number)), delta);
                if let Error::Poisoned { .. } = error {
                    let refused = self.cask(number).put("a", "");
                    assert!(matches!(refused, Err(Error::Poisoned { .. })));
                    self.close(number);
                    self.open(number, Opening::USUAL);
                }
            }
            Outcome::Failed(error, _) => panic!("{error}"),
        }
    }

    /// The process was killed in a call, or right after it.
    fn killed(&mut self, number: usize, outcome: Outcome) {
        if let Some(handle) = self.handles[number].take() {
            handle.process.kill();
        }
        let config = Opening::USUAL.config().read_only(true);
        let found = read_all(&Cask::open_on(Arc::new(self.disk.process()), STORE, &config).unwrap());
        match outcome {
            Outcome::Refused => assert_eq!(found, self.now),
            Outcome::Failed(_, delta) => self.resolve(found, delta),
            Outcome::Done(delta) => {
                self.apply(with_indexes(&delta, &found));
                assert_eq!(found, self.now, "a write that was acknowledged is missing");
            }
        }
    }

    /// A call was acknowledged.
    fn done(&mut self, number: usize, delta: Delta, durable: bool) {
        let wrote = !delta.is_empty();
        let found = read_all(self.cask(number));
        self.apply(with_indexes(&delta, &found));
        assert_eq!(found, self.now);
        let upto = self.settled + self.since.len();
        if wrote {
            self.handles[number].as_mut().expect("it has just written").written = upto;
        }
        if durable {
            self.settle(upto);
        }
    }

    /// Takes a write into the model.
    fn apply(&mut self, delta: Delta) {
        let floor = self.highest_seen;
        for (key, to) in &delta {
            match to {
                Some((value, index)) => {
                    let index = index.expect("known by now");
                    assert!(index > floor, "index {index} was given out before: {floor} was seen");
                    self.highest_seen = self.highest_seen.max(index);
                    let old = self.now.insert(key.clone(), (value.clone(), index));
                    let (value, index) = old.unwrap_or((Vec::new(), 0));
                    self.stale.insert(key.clone(), KvPair::new(&key.1[..], value, index));
                }
                None => drop(self.now.remove(key)),
            }
        }
        if !delta.is_empty() {
            self.since.push(delta);
        }
    }

    /// A power cut cannot take back what was done up to here, counted over all times.
    fn settle(&mut self, upto: usize) {
        let count = upto.saturating_sub(self.settled).min(self.since.len());
        for delta in self.since.drain(..count) {
            change(&mut self.durable, &delta);
        }
        self.settled += count;
    }

    /// Decides whether a write that failed has happened.
    fn resolve(&mut self, found: State, delta: Delta) {
        if found != self.now {
            self.apply(with_indexes(&delta, &found));
            assert_eq!(found, self.now, "neither before nor after the write that failed");
        }
    }

    fn reboot(&mut self, seed: u16) {
        self.disk = self.disk.reboot(&mut Choices::from_seed(seed.into()));
        self.disk.set_clock(&self.clock);
    }

    /// The power goes out now, or went out in a call or right after it.
    fn power_cut(&mut self, seed: u16, again: &[(u8, u16)], outcome: Outcome, durable: bool) {
        self.disk.cut();
        self.handles.iter_mut().for_each(|handle| drop(handle.take()));
        self.reboot(seed);
        for &(calls, seed) in again.iter().take(3) {
            self.disk.cut_at(1 + u64::from(calls % 64));
            let opened = Cask::open_on(Arc::new(self.disk.process()), STORE, &Opening::USUAL.config());
            assert!(opened.is_ok() || !self.disk.power_is_on(), "{:?}", opened.err());
            self.disk.cut();
            drop(opened);
            self.reboot(seed);
        }
        let cask = Cask::open_on(Arc::new(self.disk.process()), STORE, &Opening::USUAL.config()).unwrap();
        let found = read_all(&cask);
        drop(cask);
        let (last, acknowledged) = match outcome {
            Outcome::Done(delta) => (delta, true),
            Outcome::Failed(_, delta) => (delta, false),
            Outcome::Refused => (Delta::new(), false),
        };
        let last = with_indexes(&last, &found);
        let wall = self.wall();
        let shown = |state: &State| -> State {
            let pairs = state.iter().filter(|(_, (value, _))| lives(value, wall));
            pairs.map(|(key, pair)| (key.clone(), pair.clone())).collect()
        };
        let mut state = self.durable.clone();
        let mut later = self.since.drain(..).chain([last]).peekable();
        while shown(&state) != found || (acknowledged && durable && later.peek().is_some()) {
            match later.next() {
                Some(delta) => change(&mut state, &delta),
                None => panic!("after a power cut, {found:?} is none of the states since {:?}", self.durable),
            }
        }
        drop(later);
        self.highest_seen = found.values().map(|(_, index)| *index).max().unwrap_or(0).max(self.highest_seen);
        self.durable = found.clone();
        self.now = found;
        self.settled = 0;
    }
}

impl Opening {
    const USUAL: Opening = Opening { durability: true, exclusive: false, pread: false, close_first: true };

    fn config(self) -> Config {
        Config::new()
            .connection_timeout(Duration::ZERO)
            .durability(if self.durability { Durability::Sync } else { Durability::Os })
            .lock_mode(if self.exclusive { LockMode::Exclusive } else { LockMode::PerWrite })
            .read_mode(if self.pread { ReadMode::Pread } else { ReadMode::Map })
    }
}

/// What can fail. Not giving up a lock, which has no way to: a lock that is kept would keep the others out.
const VERBS: [Verb; 23] = [
    Verb::Resolve,
    Verb::Open,
    Verb::CreateNew,
    Verb::Link,
    Verb::Rename,
    Verb::Remove,
    Verb::SyncDir,
    Verb::Stat,
    Verb::List,
    Verb::FillRandom,
    Verb::ReadAt,
    Verb::WriteAt,
    Verb::Len,
    Verb::SetLen,
    Verb::SyncData,
    Verb::SyncAll,
    Verb::NextData,
    Verb::DataEnd,
    Verb::TryLock,
    Verb::FileStat,
    Verb::Map,
    Verb::BeginWriteBack,
    Verb::WriteBack,
];

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Everything in the store.
fn read_all(cask: &Cask) -> State {
    let mut state = State::new();
    for (number, name) in BUCKETS.iter().enumerate() {
        for pair in cask.bucket(name).unwrap().list("").unwrap() {
            state.insert((number, pair.key), (pair.value, pair.last_index));
        }
    }
    let names: Vec<Vec<u8>> = cask.buckets().unwrap();
    let expected = BUCKETS.iter().enumerate().filter(|(number, _)| state.keys().any(|(bucket, _)| bucket == number));
    assert!(names.iter().map(|name| &name[..]).eq(expected.map(|(_, name)| name.as_bytes())));
    state
}

fn change(state: &mut State, delta: &Delta) {
    for (key, to) in delta {
        match to {
            Some((value, index)) => {
                drop(state.insert(key.clone(), (value.clone(), index.expect("known by now"))));
            }
            None => drop(state.remove(key)),
        }
    }
}

/// A write with its indexes: as its call has said, or else as they are found.
fn with_indexes(delta: &Delta, found: &State) -> Delta {
    let known = delta.iter().map(|(key, to)| {
        let to = to.as_ref().map(|(value, index)| {
            let index = index.or_else(|| found.get(key).map(|(_, index)| *index));
            // Not there: an index that no state has.
            (value.clone(), Some(index.unwrap_or(u64::MAX)))
        });
        (key.clone(), to)
    });
    known.collect()
}

/// The error of a batch whose last operation so far is a condition that does not hold.
fn conflict(batch: &Batch, cause: Error) -> Error {
    Error::BatchConflict { op: batch.len() - 1, cause: Box::new(cause) }
}

/// The outcome of a call that nothing but the disk can refuse. `indexes` are those of the puts, if the call says them.
fn outcome(result: Result<Vec<u64>>, delta: Delta) -> Outcome {
    expect(Ok(()), result, delta)
}

/// The outcome of a call of which the model says what it should find.
fn expect(verdict: Result<()>, result: Result<Vec<u64>>, mut delta: Delta) -> Outcome {
    match (verdict, result) {
        (Ok(()), Ok(indexes)) => {
            for ((_, to), index) in delta.iter_mut().zip(indexes) {
                if let Some((_, unknown)) = to {
                    *unknown = Some(index);
                }
            }
            Outcome::Done(delta)
        }
        (Err(expected), Err(error)) if expected.to_string() == error.to_string() => Outcome::Refused,
        (Err(expected), Ok(_)) => panic!("accepted, but should be refused: {expected}"),
        (Err(_), Err(error)) => Outcome::Failed(error, Delta::new()),
        (Ok(()), Err(error)) => Outcome::Failed(error, delta),
    }
}
