//! The first call of an operation to the disk fails, then the second, and so on until the operation is over before its
//! turn comes: with each error, or short, once or from then on. Then everything goes on, or the power is cut.
//!
//! While the handle whose call has failed is still open, it has no lock and no file open but its own; in one half of the
//! rounds another process that had the store open, and a new one, write before it goes on. Neither waits for a lock: a
//! lock that a failed call has kept would make them fail.
//!
//! A part of the rounds is tried, and each loop's end is always found, unless `CASKFILE_FAULT_LOOPS=all` is set: all
//! rounds take twenty seconds on the simulated disk and thirty on real files, or minutes where syncs take their time.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, LockMode, OptionalExt, salvage_on, verify_on};

use crate::common::TempDir;
use crate::common::hooked::HookedDisk;
use crate::common::small_history::{Change, History, KEYS, State, read_all};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Opening, where nothing is.
    Create,
    /// Opening, where an empty file is.
    Fill,
    /// Opening what was closed.
    Open,
    /// Opening what a killed process has left in the middle of a batch.
    Recover,
    /// The same, with whole records after the damage.
    RecoverAndKeep,
    OpenToRead,
    Put,
    PutLarge,
    Batch,
    Swap,
    Update,
    Delete,
    DeletePrefix,
    Read,
    Sync,
    Compact,
    Reopen,
    Verify,
    VerifyFile,
    Salvage,
    Backup,
    CompactTo,
    CompactUntilCancelled,
    Close,
}

const OPS: [Op; 24] = [
    Op::Create,
    Op::Fill,
    Op::Open,
    Op::Recover,
    Op::RecoverAndKeep,
    Op::OpenToRead,
    Op::Put,
    Op::PutLarge,
    Op::Batch,
    Op::Swap,
    Op::Update,
    Op::Delete,
    Op::DeletePrefix,
    Op::Read,
    Op::Sync,
    Op::Compact,
    Op::Reopen,
    Op::Verify,
    Op::VerifyFile,
    Op::Salvage,
    Op::Backup,
    Op::CompactTo,
    Op::CompactUntilCancelled,
    Op::Close,
];

/// What the store is when the operation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Nothing,
    EmptyFile,
    Closed,
    Torn,
    TornAndMore,
    /// Two processes have it open and have written in turn.
    Busy,
}

impl Op {
    fn start(self) -> Start {
        match self {
            Op::Create => Start::Nothing,
            Op::Fill => Start::EmptyFile,
            Op::Open | Op::OpenToRead => Start::Closed,
            Op::Recover => Start::Torn,
            Op::RecoverAndKeep | Op::VerifyFile | Op::Salvage => Start::TornAndMore,
            _ => Start::Busy,
        }
    }
}

/// Where a store can be, and calls can fail.
trait Ground {
    fn new() -> Self;
    fn path(&self) -> PathBuf;
    fn lay_out(&self, bytes: &[u8]);
    fn process(&self) -> Process;
    /// The names of all files but the store and torn tails that were kept.
    fn strays(&self) -> Vec<PathBuf>;
    /// Disks as a power cut now may leave them, if this ground knows power cuts.
    fn cuts(&self, seed: u64) -> Vec<SimDisk>;
}

/// A process that the test can disturb.
struct Process {
    disk: Arc<dyn Disk>,
    /// Plans that this one of its calls from now on fails, and the later ones, too, if that is said.
    fail: Box<dyn Fn(u64, Fault, Repeat)>,
    heal: Box<dyn Fn()>,
    calls: Box<dyn Fn() -> u64>,
    /// Whether the call that gives up a lock has failed. Then the lock goes with the handle.
    unlock_failed: Box<dyn Fn() -> bool>,
    /// The files whose lock this process has, and how many files it has open, on a ground that knows it.
    holds: Box<dyn Fn() -> Option<(Vec<PathBuf>, usize)>>,
}

impl Ground for SimDisk {
    fn new() -> SimDisk {
        SimDisk::new()
    }

    fn path(&self) -> PathBuf {
        "/store".into()
    }

    fn lay_out(&self, bytes: &[u8]) {
        self.set_contents(Ground::path(self), bytes.to_vec());
    }

    fn process(&self) -> Process {
        let disk = SimDisk::process(self);
        let (one, other, third, fourth, fifth) = (disk.clone(), disk.clone(), disk.clone(), disk.clone(), disk.clone());
        Process {
            disk: Arc::new(disk),
            fail: Box::new(move |nth, fault, repeat| one.fail(When::nth(nth).by(&one), fault, repeat)),
            heal: Box::new(move || other.clear_faults()),
            calls: Box::new(move || third.calls()),
            unlock_failed: Box::new(move || fourth.failed_calls_of(Verb::Unlock) > 0),
            holds: Box::new(move || Some((fifth.locks(), fifth.open_files()))),
        }
    }

    fn strays(&self) -> Vec<PathBuf> {
        self.paths().into_iter().filter(|path| is_stray(path, &Ground::path(self))).collect()
    }

    fn cuts(&self, seed: u64) -> Vec<SimDisk> {
        let mut cuts = vec![self.reboot(&mut Choices::keep_nothing()), self.reboot(&mut Choices::keep_all())];
        for sector in [8, 512] {
            self.set_sector(sector);
            cuts.push(self.reboot(&mut Choices::from_seed(seed)));
        }
        // The power was not cut, but what no sync has brought to the disk is no longer in the cache.
        cuts.push(self.fork());
        cuts[4].drop_caches();
        cuts
    }
}

impl Ground for TempDir {
    fn new() -> TempDir {
        TempDir::without_waits()
    }

    fn path(&self) -> PathBuf {
        self.join("store")
    }

    fn lay_out(&self, bytes: &[u8]) {
        std::fs::write(Ground::path(self), bytes).unwrap();
    }

    fn process(&self) -> Process {
        #[derive(Default)]
        struct Plan {
            calls: AtomicU64,
            /// The call that fails first, and the one after the last; 0 and 0 if none does.
            from: AtomicU64,
            to: AtomicU64,
            errno: AtomicU64,
            short: AtomicUsize,
            unlocks_failed: AtomicU64,
        }
        let plan = Arc::<Plan>::default();
        let most = Arc::new(AtomicUsize::new(usize::MAX));
        let (ours, limit) = (Arc::clone(&plan), Arc::clone(&most));
        let mut disk = HookedDisk::new(move |name| {
            let number = ours.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let fails = (ours.from.load(Ordering::SeqCst)..ours.to.load(Ordering::SeqCst)).contains(&number);
            let short = ours.short.load(Ordering::SeqCst);
            limit.store(if fails && short > 0 { short } else { usize::MAX }, Ordering::SeqCst);
            match ours.errno.load(Ordering::SeqCst) {
                errno if fails && errno > 0 => {
                    ours.unlocks_failed.fetch_add(u64::from(name == "unlock"), Ordering::SeqCst);
                    Err(std::io::Error::from_raw_os_error(errno as i32))
                }
                _ => Ok(()),
            }
        });
        disk.most = most;
        let (one, other, third) = (Arc::clone(&plan), Arc::clone(&plan), Arc::clone(&plan));
        Process {
            disk: Arc::new(disk),
            fail: Box::new(move |nth, fault, repeat| {
                let (errno, short) = match fault {
                    Fault::Os(errno) => (errno as u64, 0),
                    Fault::Short(bytes) => (0, bytes),
                    other => panic!("{other:?} cannot happen to a real file"),
                };
                one.errno.store(errno, Ordering::SeqCst);
                one.short.store(short, Ordering::SeqCst);
                let from = one.calls.load(Ordering::SeqCst) + nth;
                one.from.store(from, Ordering::SeqCst);
                one.to.store(if repeat == Repeat::Once { from + 1 } else { u64::MAX }, Ordering::SeqCst);
            }),
            heal: Box::new(move || other.to.store(0, Ordering::SeqCst)),
            calls: Box::new(move || plan.calls.load(Ordering::SeqCst)),
            unlock_failed: Box::new(move || third.unlocks_failed.load(Ordering::SeqCst) > 0),
            holds: Box::new(|| None),
        }
    }

    fn strays(&self) -> Vec<PathBuf> {
        let paths = TempDir::path(self).read_dir().unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| is_stray(path, &Ground::path(self))).collect()
    }

    fn cuts(&self, _: u64) -> Vec<SimDisk> {
        Vec::new()
    }
}

/// Files that stay: the next writer removes leftovers of the store, not of an unfinished copy.
fn is_stray(path: &Path, store: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path != store && !name.contains(".torn-") && !name.starts_with("rescued") && !name.starts_with("copy")
}

/// A handle of a process.
struct Player {
    process: Process,
    cask: Option<Cask>,
}

fn open(disk: &Arc<dyn Disk>, path: &Path, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(Arc::clone(disk), path, &config.clone().connection_timeout(Duration::ZERO))
}

/// The bytes that stores begin with, made once: closed, torn, and torn with more after it; and what they hold.
struct Specimens {
    closed: Vec<u8>,
    torn: Vec<u8>,
    torn_and_more: Vec<u8>,
    state: State,
}

impl Specimens {
    fn new() -> Specimens {
        let disk = SimDisk::new();
        let path = Ground::path(&disk);
        let process = || Arc::new(disk.process()) as Arc<dyn Disk>;
        let cask = open(&process(), &path, &Config::new()).unwrap();
        for (value, key) in KEYS.iter().enumerate() {
            cask.put(key, (value as u64 + 1).to_le_bytes()).unwrap();
        }
        let state = read_all(&cask).unwrap();
        cask.close().unwrap();
        let closed = disk.contents(&path).unwrap();
        // Two batches that nothing proves to have been on stable storage: the first with a damaged end.
        let cask = open(&process(), &path, &Config::new().durability(Durability::Os)).unwrap();
        let mut batch = Batch::new();
        batch.put(KEYS[0], [0xee; 8]).put("x", [0xee; 8]);
        cask.sync().unwrap();
        cask.write(&batch).unwrap();
        let first_end = cask.stats().unwrap().log_end as usize;
        cask.put("y", [0xee; 8]).unwrap();
        let mut torn_and_more = disk.contents(&path).unwrap();
        torn_and_more[first_end - 9] ^= 1;
        let mut torn = torn_and_more.clone();
        torn[first_end - 16..].fill(0);
        Specimens { closed, torn, torn_and_more, state }
    }
}

/// One store, with one process to be disturbed and another one.
struct Case<G> {
    ground: G,
    history: History,
    players: [Player; 2],
    /// That of the process to be disturbed.
    lock_mode: LockMode,
}

impl<G: Ground> Case<G> {
    fn new(start: Start, lock_mode: LockMode, specimens: &Specimens) -> Case<G> {
        let ground = G::new();
        let players = [0, 1].map(|_| Player { process: ground.process(), cask: None });
        let mut case = Case { ground, history: History::new(), players, lock_mode };
        match start {
            Start::Nothing | Start::Busy => {}
            Start::EmptyFile => case.ground.lay_out(b""),
            Start::Closed => case.ground.lay_out(&specimens.closed),
            Start::Torn => case.ground.lay_out(&specimens.torn),
            Start::TornAndMore => case.ground.lay_out(&specimens.torn_and_more),
        }
        match start {
            Start::Nothing | Start::EmptyFile => {}
            Start::Closed | Start::Torn | Start::TornAndMore => {
                case.history.serial = KEYS.len() as u64;
                case.history = case.history.after(specimens.state, true);
            }
            Start::Busy => {
                // Beside an exclusive handle, no other can be opened.
                let order = if lock_mode == LockMode::Exclusive { [1, 0, 0] } else { [0, 1, 0] };
                for player in order {
                    let durability = [Durability::Sync, Durability::Os][player];
                    case.open(player, &Config::new().durability(durability)).unwrap();
                    let value = case.history.fresh();
                    case.acknowledge(player, vec![(player, Some(value))], |cask| {
                        cask.put(KEYS[player], value.to_le_bytes()).map(drop)
                    })
                    .unwrap();
                }
                if lock_mode == LockMode::Exclusive {
                    return case;
                }
                // So that the first one does not know what the other one has written, and that is not synced.
                let value = case.history.fresh();
                case.acknowledge(1, vec![(2, Some(value))], |cask| cask.put(KEYS[2], value.to_le_bytes()).map(drop))
                    .unwrap();
            }
        }
        case
    }

    fn open(&mut self, player: usize, config: &Config) -> Result<(), Error> {
        if self.players[player].cask.is_none() {
            let lock_mode = if player == 0 { self.lock_mode } else { LockMode::PerWrite };
            let config = &config.clone().lock_mode(lock_mode);
            let cask = open(&self.players[player].process.disk, &self.ground.path(), config)?;
            self.players[player].cask = Some(cask);
            self.history.created = true;
        }
        Ok(())
    }

    /// Makes a call that writes. After an error that leaves its outcome open, it stays pending.
    fn acknowledge(
        &mut self,
        player: usize,
        change: Change,
        call: impl FnOnce(&Cask) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(cask) = self.players[player].cask.clone() else { return Ok(()) };
        self.history.pending = Some(change);
        match call(&cask) {
            Ok(()) => {
                self.settle();
                if player == 0 {
                    self.history.acknowledge(self.history.position());
                }
                Ok(())
            }
            Err(error) => {
                if !matches!(error, Error::Poisoned { .. }) {
                    self.history.pending = None;
                }
                Err(error)
            }
        }
    }

    /// What others read: takes it into the history.
    fn settle(&mut self) {
        let disk = self.ground.process().disk;
        if !self.history.created && disk.stat(&self.ground.path()).is_err() {
            return;
        }
        match open(&disk, &self.ground.path(), &Config::new().read_only(true)) {
            Ok(cask) => {
                let found = read_all(&cask).unwrap();
                if found == *self.history.last() {
                    self.history.pending = None;
                } else {
                    self.history.commit(&found).unwrap();
                }
            }
            // An empty file that was to become a store is not one yet.
            Err(error) => assert!(!self.history.created, "an observer got: {error}"),
        }
    }

    /// Does what is to be disturbed.
    fn act(&mut self, op: Op) -> Result<(), Error> {
        let path = self.ground.path();
        let value = self.history.fresh();
        let (bytes, last) = (value.to_le_bytes(), *self.history.last());
        match op {
            Op::Create | Op::Fill | Op::Open | Op::Recover | Op::RecoverAndKeep => self.open(0, &Config::new()),
            Op::OpenToRead => {
                let cask = open(&self.players[0].process.disk, &path, &Config::new().read_only(true))?;
                check_list(&cask, &last)
            }
            Op::Put => self.acknowledge(0, vec![(0, Some(value))], |cask| cask.put(KEYS[0], bytes).map(drop)),
            Op::PutLarge => {
                // Removed again, since the history knows short values only: what matters is what is written.
                self.acknowledge(0, vec![(0, None)], |cask| {
                    let mut batch = Batch::new();
                    batch.put(KEYS[0], vec![0xab; 70_000]).delete(KEYS[0]);
                    cask.write(&batch).map(drop)
                })
            }
            Op::Batch => {
                let other = self.history.fresh();
                let mut batch = Batch::new();
                batch.put(KEYS[1], bytes).put(KEYS[2], other.to_le_bytes()).delete(KEYS[0]);
                let change = vec![(1, Some(value)), (2, Some(other)), (0, None)];
                self.acknowledge(0, change, |cask| cask.write(&batch).map(drop))
            }
            Op::Swap => self.acknowledge(0, vec![(0, Some(value))], |cask| {
                let previous = cask.get(KEYS[0]).optional()?;
                cask.atomic_put(KEYS[0], bytes, previous.as_ref()).map(drop)
            }),
            Op::Update => {
                self.acknowledge(0, vec![(0, Some(value))], |cask| cask.update(KEYS[0], |_| bytes.to_vec()).map(drop))
            }
            Op::Delete => self.acknowledge(0, vec![(0, None)], |cask| cask.delete(KEYS[0])),
            Op::DeletePrefix => {
                let change = (0..KEYS.len()).map(|key| (key, None)).collect();
                self.acknowledge(0, change, |cask| cask.delete_prefix("").map(drop))
            }
            Op::Sync => self.acknowledge(0, Vec::new(), Cask::sync),
            Op::Compact => self.acknowledge(0, Vec::new(), |cask| cask.compact().map(drop)),
            Op::Reopen => self.players[0].cask.as_ref().map_or(Ok(()), Cask::reopen),
            Op::Read | Op::Verify => {
                let Some(cask) = self.players[0].cask.clone() else { return Ok(()) };
                if op == Op::Read { check_list(&cask, &last) } else { cask.verify().map(drop) }
            }
            Op::VerifyFile => verify_on(&*self.players[0].process.disk, &path).map(drop),
            Op::Salvage => {
                let to = path.with_file_name("rescued");
                let report = salvage_on(&*self.players[0].process.disk, &path, &to)?;
                assert!(report.keys >= KEYS.len() as u64 || !report.unreadable.is_empty(), "{report:?}");
                Ok(())
            }
            Op::Backup | Op::CompactTo => {
                let Some(cask) = self.players[0].cask.clone() else { return Ok(()) };
                let to = path.with_file_name("copy");
                let copied = if op == Op::Backup { cask.backup(&to) } else { cask.compact_to(&to) };
                // Another process looks, undisturbed.
                let observer = self.ground.process().disk;
                if copied.is_ok() || observer.stat(&to).is_ok() {
                    let copy = open(&observer, &to, &Config::new().read_only(true)).unwrap();
                    check_list(&copy, &last).unwrap();
                    assert!(!copy.verify().unwrap().cut_off);
                }
                copied.map(drop)
            }
            Op::CompactUntilCancelled => {
                let Some(cask) = self.players[0].cask.clone() else { return Ok(()) };
                match cask.compact_with(|_| ControlFlow::Break(())) {
                    Err(Error::CompactionCancelled { .. }) => Ok(()),
                    other => other.map(|compaction| panic!("nothing has cancelled it: {compaction:?}")),
                }
            }
            Op::Close => match self.players[0].cask.take() {
                Some(cask) => cask.close(),
                None => Ok(()),
            },
        }
    }
}

fn check_list(cask: &Cask, expected: &State) -> Result<(), Error> {
    for pair in cask.list("")? {
        let key = KEYS.iter().position(|key| key.as_bytes() == pair.key).expect("a key that was written");
        let value = u64::from_le_bytes(pair.value[..8].try_into().unwrap());
        assert_eq!(Some((value, pair.last_index)), expected[key], "a read that succeeds is right");
    }
    Ok(())
}

/// The number of a call that no operation comes to.
const NEVER: u64 = 1 << 40;

/// What happens first, after the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The handle whose call has failed goes on.
    Itself,
    /// The others write.
    Others,
    /// The others find the store locked, as it was, if the handle is still open: it is an exclusive one.
    Excluded,
}

const AFTERS: [After; 3] = [After::Itself, After::Others, After::Excluded];

/// One run: this call of the operation fails. Returns how many calls it has made.
fn run<G: Ground>(op: Op, nth: u64, fault: Fault, repeat: Repeat, after: After, specimens: &Specimens) -> u64 {
    let lock_mode = if after == After::Excluded { LockMode::Exclusive } else { LockMode::PerWrite };
    let mut case = Case::<G>::new(op.start(), lock_mode, specimens);
    let before = (case.players[0].process.calls)();
    (case.players[0].process.fail)(nth, fault, repeat);
    let returned = case.act(op);
    let made = (case.players[0].process.calls)() - before;
    (case.players[0].process.heal)();
    let may_fail = made >= nth;
    if let Err(error) = &returned {
        assert!(may_fail, "nothing was disturbed: {error}");
        let fits = match error {
            Error::Io { .. } | Error::Poisoned { .. } => true,
            Error::CompactionRefused { .. } => matches!(op, Op::Compact | Op::CompactUntilCancelled),
            // What cannot be read may be taken for what it is not, but never for something that may be cut off.
            Error::Corrupt { .. } | Error::NotCaskfile { .. } => matches!(fault, Fault::Short(_)),
            Error::Damaged { report, .. } => !report.unreadable.is_empty(),
            Error::Other(_) => true,
            _ => false,
        };
        assert!(fits, "{error}");
    }
    // As it is at this moment, and then as it is when everything has gone on.
    let found = case.ground.cuts(nth);
    for disk in found {
        after_cut(&disk, &case.history);
    }
    case.settle();
    if !(case.players[0].process.unlock_failed)() {
        expect_no_more_than_its_own(&case);
        if after != After::Itself {
            others_write(&mut case);
        }
    }
    go_on(&mut case);
    made
}

/// The handle has its own file open, and no lock but that of an exclusive handle.
fn expect_no_more_than_its_own<G: Ground>(case: &Case<G>) {
    let Some((locks, open_files)) = (case.players[0].process.holds)() else { return };
    let is_open = case.players[0].cask.is_some();
    let locked = is_open && case.lock_mode == LockMode::Exclusive;
    let expected = if locked { vec![case.ground.path()] } else { Vec::new() };
    assert_eq!(locks, expected, "a call that has failed keeps the lock of a file, or gives up one that it should keep");
    // Of a reopened exclusive handle, the older description keeps the lock.
    let expected = if locked { 1..=2 } else { usize::from(is_open)..=usize::from(is_open) };
    assert!(expected.contains(&open_files), "a call that has failed leaves files open: {open_files} in all");
}

/// The others write without any patience: one that had the store open, and one that opens it now. Or they cannot, if the handle
/// whose call has failed has the store for itself.
fn others_write<G: Ground>(case: &mut Case<G>) {
    let (disk, path) = (case.ground.process().disk, case.ground.path());
    if case.lock_mode == LockMode::Exclusive && case.players[0].cask.is_some() {
        let excluded = |result: Result<(), Error>| match result {
            Err(Error::LockTimeout { .. }) => {}
            other => panic!("after a failed call of an exclusive handle, another process gets: {other:?}"),
        };
        case.players[1].cask.iter().for_each(|cask| excluded(cask.put(KEYS[1], "not written").map(drop)));
        return excluded(open(&disk, &path, &Config::new()).map(drop));
    }
    write_on(case, 1);
    use_it(&disk, &path, &mut case.history, false);
    case.history.created = true;
}

/// A process writes, and opens the store again if that is what it must do.
fn write_on<G: Ground>(case: &mut Case<G>, player: usize) {
    let value = case.history.fresh();
    let put = |cask: &Cask| cask.put(KEYS[player], value.to_le_bytes()).map(drop);
    match case.acknowledge(player, vec![(player, Some(value))], put) {
        Ok(()) => {}
        // A failed sync is reported once to each process that has the file open.
        Err(Error::Poisoned { .. }) => {
            case.settle();
            if let Some(cask) = case.players[player].cask.clone() {
                cask.reopen().unwrap_or_else(|error| panic!("{player} opens again: {error}"));
                let returned = case.acknowledge(player, vec![(player, Some(value))], put);
                returned.unwrap_or_else(|error| panic!("{player} goes on after opening again: {error}"));
            }
        }
        Err(error) => panic!("{player} goes on: {error}"),
    }
}

/// Everybody goes on: the one whose call has failed, the other one, and then a third.
fn go_on<G: Ground>(case: &mut Case<G>) {
    for player in [0, 1] {
        write_on(case, player);
        if let Some(cask) = case.players[player].cask.take() {
            assert_eq!(read_all(&cask).unwrap(), *case.history.last());
            // A lock that could not be released ends with the handle. A handle that does not sync sees only now that
            // another sync has failed.
            match cask.close() {
                Err(Error::Poisoned { .. }) if player == 1 => {}
                returned => returned.unwrap_or_else(|error| panic!("{player} closes: {error}")),
            }
        }
    }
    for disk in case.ground.cuts(7) {
        after_cut(&disk, &case.history);
    }
    let disk = case.ground.process().disk;
    use_it(&disk, &case.ground.path(), &mut case.history, false);
    assert_eq!(case.ground.strays(), Vec::<PathBuf>::new());
}

fn after_cut(disk: &SimDisk, history: &History) {
    // The verdict depends on these two, and many failures leave the same.
    static SEEN: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());
    let case = (disk.fingerprint(), history.fingerprint());
    if !SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(case) {
        return;
    }
    let (mut history, path) = (history.clone(), Ground::path(disk));
    if disk.contents(&path).is_none() {
        assert!(!history.created, "the store is gone");
    }
    use_it(&(Arc::new(disk.process()) as Arc<dyn Disk>), &path, &mut history, true);
}

/// A process that was not there before opens the store, writes and closes it.
fn use_it(disk: &Arc<dyn Disk>, path: &Path, history: &mut History, after_cut: bool) {
    let cask = open(disk, path, &Config::new()).unwrap();
    let found = read_all(&cask).unwrap();
    if after_cut {
        history.allows(&found).unwrap();
        *history = history.after(found, true);
    }
    assert_eq!(found, *history.last());
    let value = history.fresh();
    cask.put(KEYS[2], value.to_le_bytes()).unwrap();
    history.pending = Some(vec![(2, Some(value))]);
    history.commit(&read_all(&cask).unwrap()).unwrap();
    assert_eq!(cask.verify().unwrap().torn_bytes, 0);
    cask.close().unwrap();
    let cask = open(disk, path, &Config::new().read_only(true)).unwrap();
    assert_eq!(read_all(&cask).unwrap(), *history.last());
}

const FAULTS: [Fault; 6] = [
    Fault::Os(libc::EIO),
    Fault::Os(libc::ENOSPC),
    Fault::Os(libc::EINTR),
    Fault::Short(1),
    Fault::Short(24),
    Fault::Short(60),
];

/// Runs all loops, or one in `one_in` of their rounds, and all in which one call fails with the first error, if `each_call` says so.
fn run_all<G: Ground>(name: &str, one_in: u64, each_call: bool) {
    let specimens = Specimens::new();
    let (mut runs, mut number) = (0, 0);
    for op in OPS {
        let undisturbed = run::<G>(op, NEVER, FAULTS[0], Repeat::Once, After::Itself, &specimens);
        let mut most = undisturbed;
        for fault in FAULTS {
            for repeat in [Repeat::Once, Repeat::Forever] {
                for (nth, after) in (1..).flat_map(|nth| AFTERS.map(|after| (nth, after))) {
                    number += 1;
                    // The last round of a loop finds its end, so it has to be found without.
                    let finds_end = nth > most && after == After::Itself;
                    // So that no call of an operation is left out. What comes after the failure changes from call to call.
                    let its_turn = AFTERS[nth as usize % AFTERS.len()] == after;
                    let is_each_call = each_call && its_turn && (fault, repeat) == (FAULTS[0], Repeat::Once);
                    if number % one_in != 0 && !finds_end && !is_each_call {
                        continue;
                    }
                    let what = format!("{op:?}, call {nth}, {fault:?} {repeat:?}, then {after:?}");
                    let round = || run::<G>(op, nth, fault, repeat, after, &specimens);
                    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(round));
                    let made = made.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        panic!("{what}: {}", text.unwrap_or_default());
                    });
                    runs += 1;
                    // An exclusive handle makes fewer calls.
                    if made < nth && after == After::Itself {
                        break;
                    }
                    most = made.min(nth).max(most);
                }
            }
        }
        assert!(undisturbed > 0, "{op:?} makes no call");
    }
    println!("{name}: {runs} runs in which a call fails");
}

/// One round in `some`, or all if the environment asks for it.
fn one_in(some: u64) -> u64 {
    if std::env::var_os("CASKFILE_FAULT_LOOPS").is_some_and(|text| text == "all") { 1 } else { some }
}

#[test]
fn after_any_failing_call_nothing_acknowledged_is_lost() {
    run_all::<SimDisk>("simulated disk", one_in(7), true);
}

#[test]
fn the_same_on_real_files() {
    run_all::<TempDir>("real files", one_in(61), false);
}

/// So that the list of calls above means something.
#[test]
fn an_operation_that_nothing_disturbs_succeeds() {
    let specimens = Specimens::new();
    for (op, after) in OPS.into_iter().flat_map(|op| AFTERS.map(|after| (op, after))) {
        let made = run::<SimDisk>(op, NEVER, Fault::Os(libc::EIO), Repeat::Once, after, &specimens);
        // A read of an exclusive handle makes no call.
        assert!(made > 0 || after == After::Excluded, "{op:?}, then {after:?}");
    }
}
