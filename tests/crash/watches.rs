//! Watches beside everything that can happen to a store: the changes that they deliver are those of the log, each once, in order and
//! in whole units, or they end with the error that says why they cannot go on.
//!
//! Random lives of three processes on one store. After every step, the log is read from the file's bytes, without the library: what is
//! in it is the history. Each client keeps what it has learned from its watch, and its position, also when its process is killed
//! or the power is cut. Then it goes on with another watch, after its position. The history and the file's floor say whether it must
//! be let.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, ChangeRef, CompactionPolicy, Config, Durability, Error, Limits, ReadMode, SnapshotPolicy, Unit, Watch,
    WatchFrom, WatchOptions, salvage_on,
};

use crate::common::dice::Dice;
use crate::common::files::layout::{DELETE, FILE_HEADER, MORE, PUT, log_start, number};
use crate::common::files::reader::{Reader, Verdict, read};
use crate::counts::{add, counts};
use crate::storm::{Story, setting};

const STORE: &str = "/store";
const COPY: &str = "/copy";
const BUCKETS: [&str; 2] = ["", "bucket"];
const PROCESSES: usize = 3;

/// Bucket and key.
type Name = (Vec<u8>, Vec<u8>);
type State = BTreeMap<Name, Vec<u8>>;

/// A put or a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: Name,
    value: Option<Vec<u8>>,
    index: u64,
}

/// What a file says without the library.
struct Contents {
    floor: u64,
    units: Vec<Vec<Event>>,
    pairs: State,
}

impl Contents {
    fn of(disk: &SimDisk) -> Contents {
        let file = disk.contents(STORE).expect("the store has its name");
        let Verdict::Store(store) = read(&file) else { panic!("the file is damaged") };
        let field = |name| number(FILE_HEADER, name, &file);
        let floor = field("complete_after").checked_sub(1).filter(|&floor| floor <= field("base_seq"));
        let (reader, mut at, mut previous) = (Reader::new(&file), log_start(&file), 0);
        let (mut units, mut unit) = (Vec::new(), Vec::new());
        while at < store.end as usize {
            let Ok(record) = reader.record(at, previous) else { panic!("no record at {at}") };
            if record.kind == PUT || record.kind == DELETE {
                let (bucket, key) = record.split().unwrap();
                let value = (record.kind == PUT).then(|| record.value.to_vec());
                unit.push(Event { name: (bucket.to_vec(), key.to_vec()), value, index: record.seq });
            }
            (at, previous) = (record.next, record.seq);
            if record.flags & MORE == 0 && !unit.is_empty() {
                units.push(std::mem::take(&mut unit));
            }
        }
        let pairs = store.pairs.into_iter().map(|(name, (value, _))| (name, value)).collect();
        Contents { floor: floor.unwrap_or(field("base_seq")), units, pairs }
    }

    /// The position of a client that knows all of it.
    fn last(&self) -> u64 {
        self.units.last().map_or(self.floor, |unit| last_of(unit).max(self.floor))
    }
}

fn last_of(unit: &[Event]) -> u64 {
    unit.last().expect("units have events").index
}

/// All units that are not lost, compacted away or not.
#[derive(Clone, Default)]
struct History(Vec<Vec<Event>>);

impl History {
    /// Takes in what was written, and forgets what was lost.
    fn follow(&mut self, now: &Contents) {
        while self.0.last().is_some_and(|unit| last_of(unit) > now.last()) {
            self.0.pop();
        }
        let known = self.0.last().map_or(0, |unit| last_of(unit));
        let above_floor = |unit: &&Vec<Event>| last_of(unit) > now.floor;
        let (in_file, mine) = (now.units.iter().filter(above_floor), self.0.iter().filter(above_floor));
        let of_before: Vec<_> = in_file.clone().filter(|unit| last_of(unit) <= known).collect();
        assert_eq!(of_before, mine.collect::<Vec<_>>(), "an event above the floor {} is missing", now.floor);
        self.0.extend(in_file.filter(|unit| last_of(unit) > known).cloned());
    }

    fn has(&self, index: u64) -> bool {
        self.0.iter().flatten().any(|event| event.index == index)
    }

    /// The next events that a client must get.
    fn after(&self, position: u64, filter: &Filter) -> Option<(u64, Vec<Event>)> {
        let later = self.0.iter().filter(|unit| last_of(unit) > position);
        later.map(|unit| (last_of(unit), filter.of(unit))).find(|(_, events)| !events.is_empty())
    }
}

#[derive(Debug, Clone)]
struct Filter {
    /// `None` for all.
    bucket: Option<&'static str>,
    prefix: &'static str,
}

impl Filter {
    fn admits(&self, (bucket, key): &Name) -> bool {
        self.bucket.is_none_or(|own| own.as_bytes() == bucket) && key.starts_with(self.prefix.as_bytes())
    }

    fn of(&self, unit: &[Event]) -> Vec<Event> {
        unit.iter().filter(|event| self.admits(&event.name)).cloned().collect()
    }

    fn state(&self, pairs: &State) -> State {
        pairs.iter().filter(|(name, _)| self.admits(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// What a program keeps of what a watch has delivered.
#[derive(Debug, Clone)]
struct Client {
    filter: Filter,
    durable: bool,
    lag: u64,
    position: u64,
    /// The position after the last unit that it has got. What it does not want may be lost after that.
    delivered: u64,
    state: State,
}

counts!(units, batches, listings, refolded, resumed, compacted, undone, replaced, live_compacted, cuts, again);

fn events_of(unit: &mut Unit<'_>) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    while let Some(next) = unit.next_with_bucket() {
        let (bucket, change) = next?;
        let value = match change {
            ChangeRef::Put(pair) => Some(pair.value.to_vec()),
            ChangeRef::Delete { .. } => None,
        };
        events.push(Event { name: (bucket.to_vec(), change.key().to_vec()), value, index: change.last_index() });
    }
    Ok(events)
}

impl Client {
    fn new(dice: &mut Dice) -> Client {
        let filter = Filter {
            bucket: dice.choose(&[None, Some(BUCKETS[0]), Some(BUCKETS[1])]),
            prefix: dice.choose(&["", "", "key", "key 1", "none"]),
        };
        let lag = dice.choose(&[u64::MAX, 256 << 20, 100, 0]);
        Client { filter, durable: dice.one_in(4), lag, position: 0, delivered: 0, state: State::new() }
    }

    fn watch(&self, cask: &Cask, from: WatchFrom) -> Result<Watch, Error> {
        let Filter { bucket, prefix } = self.filter;
        let options = WatchOptions::new().durable(self.durable).lag(self.lag).all_buckets(bucket.is_none());
        cask.bucket(bucket.unwrap_or(""))?.changes_with(prefix, from, &options)
    }

    /// Begins with a listing, or goes on. `None` if the disk has failed.
    fn connect(
        &mut self,
        cask: &Cask,
        history: &History,
        now: &Contents,
        anew: bool,
        counts: &Counts,
    ) -> Option<Watch> {
        if anew {
            let watch = self.watch(cask, WatchFrom::Snapshot).ok()?;
            // The listing is the first unit.
            (self.position, self.delivered, self.state) = (now.last(), 0, self.filter.state(&now.pairs));
            return Some(watch);
        }
        let is_served = self.position == now.floor || (self.position > now.floor && history.has(self.position));
        match self.watch(cask, WatchFrom::After(self.position)) {
            Ok(watch) => {
                assert!(is_served, "{self:?} goes on after an event that is gone; the floor is {}", now.floor);
                add(&counts.resumed);
                return Some(watch);
            }
            Err(Error::Compacted { oldest, .. }) => {
                assert_eq!(oldest, now.floor);
                assert!(self.position < now.floor && self.position != now.last(), "refused as compacted: {self:?}");
                add(&counts.compacted);
            }
            Err(Error::Undone { last, .. }) => {
                assert!(self.position > now.floor && !is_served, "refused as undone: {self:?}, floor {}", now.floor);
                assert!(last < self.position, "{last}");
                add(&counts.undone);
            }
            Err(_) => return None,
        }
        self.connect(cask, history, now, true, counts)
    }

    /// What a durable watch has delivered outlasts the power.
    fn expect_nothing_lost(&self, history: &History, now: &Contents) {
        let is_there = self.delivered <= now.floor || history.has(self.delivered);
        assert!(is_there, "a power cut takes an event that a durable watch has delivered: {self:?}");
    }

    /// Takes all that there is. An error ends the watch.
    fn drain(&mut self, watch: &mut Watch, history: &History, now: &Contents, counts: &Counts) -> Result<(), Error> {
        let mut failed = 0;
        loop {
            let mut unit = match watch.try_next() {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                // The disk fails once.
                Err(Error::Io { .. }) if failed < 2 => {
                    failed += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (is_listing, position) = (unit.is_listing(), unit.position());
            let events = match events_of(&mut unit) {
                Ok(events) => events,
                Err(Error::Io { .. }) => {
                    // The unit must come again.
                    assert!(unit.next_ref().is_none());
                    add(&counts.again);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if is_listing {
                let listed: State = events.into_iter().map(|event| (event.name, event.value.unwrap())).collect();
                // A listing that has failed is made again, of a later moment.
                if position == self.position {
                    assert_eq!(listed, self.state, "a listing of another moment than its position");
                }
                (self.position, self.delivered, self.state) = (position, position, listed);
                add(&counts.listings);
                continue;
            }
            let expected = history.after(self.position, &self.filter);
            assert_eq!(Some((position, &events)), expected.as_ref().map(|(at, all)| (*at, all)), "after {self:?}");
            counts.batches.fetch_add(u64::from(events.len() > 1), Relaxed);
            for Event { name, value, .. } in events {
                match value {
                    Some(value) => drop(self.state.insert(name, value)),
                    None => drop(self.state.remove(&name)),
                }
            }
            (self.position, self.delivered) = (position, position);
            add(&counts.units);
        }
        self.position = watch.position();
        assert_eq!(self.position, now.last(), "the position of a client that knows everything");
        assert_eq!(self.state, self.filter.state(&now.pairs), "what was folded");
        add(&counts.refolded);
        Ok(())
    }
}

struct Seat {
    client: Client,
    /// With the number of its process.
    watch: Option<(usize, Watch)>,
    /// Reads only now and then.
    lazy: bool,
    /// How many compactions there were since it has read.
    compactions: u32,
    /// Its watch has ended.
    anew: bool,
}

struct Life {
    disk: SimDisk,
    processes: Vec<SimDisk>,
    casks: Vec<Option<Cask>>,
    seats: Vec<Seat>,
    history: History,
    values: u64,
    counts: Arc<Counts>,
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        least_cost: dice.choose(&[1, 100, 500]),
        image_bytes: dice.choose(&[1, 64, 40_000]),
        sync_cost: dice.choose(&[0, 16]),
        // Each step is to be one call, whatever its batch has.
        ..Limits::mixed(dice.roll())
    }
}

fn config(dice: &mut Dice) -> Config {
    Config::new()
        .durability(dice.choose(&[Durability::Sync, Durability::Os, Durability::Os]))
        .read_mode(dice.choose(&[ReadMode::Map, ReadMode::Pread]))
        .connection_timeout(Duration::ZERO)
        .compaction(CompactionPolicy::Manual)
        .snapshots(dice.choose(&[SnapshotPolicy::AtClose, SnapshotPolicy::Never]))
}

impl Life {
    fn new(dice: &mut Dice, counts: &Arc<Counts>) -> Life {
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_sector(dice.choose(&[8, 64, 512]));
        disk.set_limits(limits(dice));
        // It has its name for good.
        let config = Config::new().snapshots(SnapshotPolicy::Never);
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap();
        cask.sync().unwrap();
        cask.close().unwrap();
        let processes = (0..PROCESSES).map(|_| disk.process()).collect();
        let mut life = Life {
            disk,
            processes,
            casks: vec![None; PROCESSES],
            seats: Vec::new(),
            history: History::default(),
            values: 0,
            counts: Arc::clone(counts),
        };
        for _ in 0..5 {
            let (client, lazy) = (Client::new(dice), dice.one_in(2));
            life.seats.push(Seat { client, watch: None, lazy, compactions: 0, anew: false });
        }
        life
    }

    fn open(&mut self, n: usize, dice: &mut Dice) -> Option<Cask> {
        if self.casks[n].is_none() {
            self.casks[n] = Cask::open_on(Arc::new(self.processes[n].clone()), STORE, &config(dice)).ok();
        }
        self.casks[n].clone()
    }

    fn value(&mut self, dice: &mut Dice) -> Vec<u8> {
        self.values += 1;
        let mut value = self.values.to_le_bytes().to_vec();
        value.resize(8 + dice.below(60) as usize, 7);
        value
    }

    /// One call of a process. Failures are a part of this life.
    fn act(&mut self, n: usize, dice: &mut Dice) {
        let Some(cask) = self.open(n, dice) else { return };
        let (bucket, key) = (dice.choose(&BUCKETS), format!("key {}", dice.below(14)));
        let Ok(bucket) = cask.bucket(bucket) else { return self.end(n) };
        let value = self.value(dice);
        let done = match dice.below(24) {
            0..=8 => bucket.put(&key, value).map(drop),
            9..=11 => {
                let mut batch = Batch::new();
                for _ in 0..1 + dice.below(5) {
                    let key = format!("key {}", dice.below(14));
                    if dice.one_in(3) {
                        batch.delete(key)
                    } else {
                        batch.put(key, self.value(dice))
                    };
                }
                bucket.write(&batch).map(drop)
            }
            12..=14 => bucket.delete(&key),
            15 => bucket.delete_prefix("key 1").map(drop),
            16 | 17 => {
                let compacted = cask.compact().map(drop);
                self.seats.iter_mut().for_each(|seat| seat.compactions += 1);
                // Another one, with nothing or something between them.
                if dice.one_in(3) {
                    self.check(&[]);
                    let between = if dice.one_in(2) { bucket.put(&key, value).map(drop) } else { Ok(()) };
                    self.check(&[]);
                    self.seats.iter_mut().for_each(|seat| seat.compactions += 1);
                    between.and_then(|()| cask.compact().map(drop))
                } else {
                    compacted
                }
            }
            18 => cask.reopen(),
            19 => cask.sync(),
            20 => cask.list("").map(drop),
            21 => cask.write_snapshot().map(drop),
            22 => {
                drop(cask.close());
                return self.end(n);
            }
            _ => bucket.get(&key).map(drop),
        };
        if matches!(done, Err(Error::Poisoned { .. } | Error::Closed)) {
            self.end(n);
        }
    }

    /// A handle is no longer used. Its watches end with it.
    fn end(&mut self, n: usize) {
        self.casks[n] = None;
        self.seats.iter_mut().for_each(|seat| drop(seat.watch.take_if(|(process, _)| *process == n)));
    }

    fn kill(&mut self, n: usize) {
        self.processes[n].kill();
        self.end(n);
        self.processes[n] = self.disk.process();
    }

    /// Others take the places of processes that a fault has killed.
    fn bury(&mut self) {
        for n in 0..PROCESSES {
            if !self.processes[n].is_alive() {
                self.kill(n);
            }
        }
    }

    /// Puts a copy in the place of the store.
    fn restore(&mut self, dice: &mut Dice) {
        let outsider = self.disk.process();
        let _ = outsider.remove(Path::new(COPY));
        let source = self.casks.iter().flatten().next().filter(|_| dice.one_in(2));
        let copied = match source {
            Some(cask) => cask.backup(COPY).map(drop),
            None => salvage_on(&outsider, STORE.as_ref(), COPY.as_ref()).map(drop),
        };
        if copied.is_err() {
            return;
        }
        // What was written after the copy is gone.
        for _ in 0..dice.below(3) {
            self.act(dice.below(PROCESSES as u64) as usize, dice);
        }
        self.disk.clear_faults();
        self.bury();
        let outsider = self.disk.process();
        outsider.rename(COPY.as_ref(), STORE.as_ref()).unwrap();
        outsider.sync_dir(Path::new("/")).unwrap();
        if dice.one_in(2) {
            self.casks.iter().flatten().for_each(|cask| drop(cask.reopen()));
        }
        for seat in &mut self.seats {
            let Some((_, watch)) = &mut seat.watch else { continue };
            let mut rested = 0;
            let ended = loop {
                match watch.next_timeout(Some(Duration::from_millis(1))) {
                    Ok(Some(unit)) => drop(unit),
                    // It rests after what it does not want.
                    Ok(None) => rested += 1,
                    Err(error) => break error,
                }
                assert!(rested < 5, "a watch of a store that was replaced does not end");
            };
            match ended {
                Error::Replaced { .. } => add(&self.counts.replaced),
                // It has followed a compaction, or would have.
                Error::Compacted { .. } => add(&self.counts.live_compacted),
                // Of the syncs of a durable watch.
                Error::Poisoned { .. } if seat.client.durable => {}
                error => panic!("{error}"),
            }
            seat.anew = true;
        }
        (0..PROCESSES).for_each(|n| self.end(n));
        self.history = History::default();
        // A client whose process had ended knows nothing of it.
        let now = Contents::of(&self.disk);
        assert!(now.units.iter().all(|unit| last_of(unit) < now.floor), "a copy's floor is above all that it has");
    }

    /// Cuts the power, and goes on with what is left.
    fn cut(&mut self, choices: &mut Choices, dice: &mut Dice) {
        let after = self.disk.reboot(choices);
        self.disk.cut();
        (0..PROCESSES).for_each(|n| self.end(n));
        self.disk = after;
        self.processes = (0..PROCESSES).map(|_| self.disk.process()).collect();
        let now = Contents::of(&self.disk);
        self.history.follow(&now);
        assert!(self.open(0, dice).is_some(), "no store after a power cut");
        for seat in self.seats.iter().filter(|seat| seat.client.durable && !seat.anew) {
            seat.client.expect_nothing_lost(&self.history, &now);
        }
    }

    /// Compares the clients with the file: all, or these.
    fn check(&mut self, which: &[usize]) {
        let now = Contents::of(&self.disk);
        self.history.follow(&now);
        for &at in which {
            let seat = &mut self.seats[at];
            if seat.watch.is_none() {
                let mut open =
                    self.casks.iter().enumerate().filter_map(|(n, cask)| cask.as_ref().map(|cask| (n, cask)));
                let Some((n, cask)) = open.nth(at % PROCESSES).or_else(|| open.next()) else { continue };
                let watch = seat.client.connect(cask, &self.history, &now, seat.anew, &self.counts);
                seat.watch = watch.map(|watch| (n, watch));
                (seat.anew, seat.compactions) = (false, 0);
            }
            let Some((n, watch)) = &mut seat.watch else { continue };
            let n = *n;
            let Err(error) = seat.client.drain(watch, &self.history, &now, &self.counts) else {
                seat.compactions = 0;
                continue;
            };
            let position = watch.position();
            match error {
                Error::Compacted { oldest, .. } => {
                    assert_eq!(oldest, now.floor);
                    assert!(position < now.floor && position != now.last(), "refused as compacted: {:?}", seat.client);
                    let lags = seat.compactions > 1 || seat.client.lag < 256 << 20;
                    assert!(lags, "one compaction is no reason: {:?}", seat.client);
                    add(&self.counts.live_compacted);
                    seat.anew = true;
                }
                Error::Undone { .. } => {
                    assert!(
                        position > now.floor && !self.history.has(position),
                        "refused as undone: {:?}",
                        seat.client
                    );
                    add(&self.counts.undone);
                    seat.anew = true;
                }
                Error::Poisoned { .. } | Error::Io { .. } | Error::Closed => self.end(n),
                error => panic!("{error}: {:?}", seat.client),
            }
            self.seats[at].watch = None;
        }
    }

    fn clients(&self) -> Vec<Client> {
        self.seats.iter().filter(|seat| !seat.anew).map(|seat| seat.client.clone()).collect()
    }

    /// Tries power cuts before the next calls: what is left must serve each client, or refuse it for a reason.
    fn cut_between(&self, seed: u64) {
        let (history, clients, counts) = (self.history.clone(), self.clients(), Arc::clone(&self.counts));
        let (dice, seen) = (Mutex::new(Dice::new(seed)), Mutex::new(HashSet::new()));
        self.disk.before(When::next().of_any(&Verb::CHANGING), Repeat::Forever, move |disk| {
            let mut dice = dice.lock().unwrap();
            let mut choices = match dice.below(3) {
                0 => Choices::keep_nothing(),
                1 => Choices::keep_all(),
                _ => Choices::from_seed(dice.roll()),
            };
            let after = disk.reboot(&mut choices);
            if seen.lock().unwrap().insert(after.fingerprint()) {
                expect_served(&after, &history, &clients, &mut dice, &counts);
            }
        });
    }
}

/// All clients go on, or begin again, on a disk that a power cut has left.
fn expect_served(disk: &SimDisk, history: &History, clients: &[Client], dice: &mut Dice, counts: &Counts) {
    add(&counts.cuts);
    let mut history = history.clone();
    history.follow(&Contents::of(disk));
    let cask = Cask::open_on(Arc::new(disk.process()), STORE, &config(dice)).unwrap();
    cask.put("after", "a power cut").unwrap();
    let mut now = Contents::of(disk);
    history.follow(&now);
    let mut watches = Vec::new();
    for client in clients {
        let mut client = client.clone();
        if client.durable {
            client.expect_nothing_lost(&history, &now);
        }
        let mut watch = client.connect(&cask, &history, &now, false, counts).expect("the disk does not fail");
        client.drain(&mut watch, &history, &now, counts).unwrap();
        watches.push((client, watch));
    }
    if dice.one_in(3) {
        cask.put("key 1", "again").unwrap();
        history.follow(&Contents::of(disk));
        cask.compact().unwrap();
        now = Contents::of(disk);
        for (client, watch) in &mut watches {
            match client.drain(watch, &history, &now, counts) {
                Err(Error::Compacted { .. }) if client.lag < 1000 => {}
                outcome => outcome.unwrap(),
            }
        }
    }
}

/// `CASKFILE_WATCHES` is the number of lives (120).
#[test]
fn what_is_folded_from_a_watch_is_the_store_or_an_error_says_why_not() {
    let lives = setting("CASKFILE_WATCHES").unwrap_or(120);
    let first = setting("CASKFILE_CRASH_SEED").unwrap_or(0);
    let counts = Arc::new(Counts::default());
    for seed in first..first + lives {
        let mut dice = Dice::new(seed ^ 0x3a7c4);
        let mut life = Life::new(&mut dice, &counts);
        let story = Story(seed, 0.into());
        for step in 0..50 {
            story.1.set(step);
            let n = dice.below(PROCESSES as u64) as usize;
            if dice.one_in(10) {
                let verb = dice.choose(&[
                    Verb::WriteAt,
                    Verb::SyncData,
                    Verb::SetLen,
                    Verb::SyncDir,
                    Verb::ReadAt,
                    Verb::Rename,
                ]);
                let fault =
                    dice.choose(&[Fault::Os(libc::EIO), Fault::Os(libc::ENOSPC), Fault::Short(5), Fault::Kill(20)]);
                life.processes[n].fail(
                    When::nth(1 + dice.below(6)).of(verb).by(&life.processes[n]),
                    fault,
                    Repeat::Once,
                );
            }
            let cuts = dice.one_in(8);
            if cuts {
                life.cut_between(dice.roll());
            }
            match dice.below(60) {
                0 if step > 5 => life.restore(&mut dice),
                1 | 2 => {
                    life.disk.clear_hooks();
                    let mut choices = match dice.below(3) {
                        0 => Choices::keep_nothing(),
                        1 => Choices::keep_all(),
                        _ => Choices::from_seed(dice.roll()),
                    };
                    life.cut(&mut choices, &mut dice);
                }
                3 => life.kill(n),
                4 => {
                    life.disk.set_failed_syncs(Choices::keep_nothing());
                    life.disk.fail_writeback(STORE);
                }
                _ => life.act(n, &mut dice),
            }
            life.disk.clear_hooks();
            life.disk.clear_faults();
            life.bury();
            let reads: Vec<usize> =
                (0..life.seats.len()).filter(|&at| !life.seats[at].lazy || dice.one_in(8)).collect();
            if dice.one_in(6) {
                // A read fails in the middle of what is delivered.
                let when = When::nth(1 + dice.below(12)).of(Verb::ReadAt).by(&life.processes[n]);
                life.disk.fail(when, Fault::Os(libc::EIO), Repeat::Once);
            }
            life.check(&reads);
            life.disk.clear_faults();
        }
        let all: Vec<usize> = (0..life.seats.len()).collect();
        life.check(&all);
        std::mem::forget(story);
    }
    println!("{lives} lives: {counts:?}");
    if lives >= 120 {
        counts.expect_all(5);
    }
}

/// All units as text, each in brackets.
fn drained(watch: &mut Watch) -> Result<String, Error> {
    let mut text = String::new();
    while let Some(mut unit) = watch.try_next()? {
        let events = events_of(&mut unit)?.into_iter().map(|Event { name, value, .. }| {
            let key = String::from_utf8_lossy(&name.1).into_owned();
            value.map_or(format!("-{key}"), |value| format!("{key}={}", String::from_utf8_lossy(&value)))
        });
        text += &format!("[{}]", events.collect::<Vec<_>>().join(" "));
    }
    Ok(text)
}

fn unsynced(disk: &SimDisk) -> Cask {
    let config = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::Never);
    Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap()
}

#[test]
fn the_floor_of_a_store_never_falls() {
    let disk = SimDisk::new();
    let cask = unsynced(&disk);
    cask.put("a", "1").unwrap();
    cask.delete("a").unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let known = watch.position();
    // No file has that event from now on.
    for _ in 0..3 {
        // By a handle that knows only what the file says.
        unsynced(&disk).compact().unwrap();
        assert_eq!(Contents::of(&disk).floor, known);
        assert_eq!(drained(&mut watch).unwrap(), "");
        assert!(cask.changes("", WatchFrom::After(known)).is_ok());
        assert!(matches!(cask.changes("", WatchFrom::After(known - 1)), Err(Error::Compacted { .. })));
    }
}

#[test]
fn a_client_that_knows_the_last_write_is_served_after_any_compaction() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    for n in 0..5 {
        // Marks and reserved numbers come after the last write.
        other.put("a", n.to_string()).unwrap();
        other.sync().unwrap();
        assert_eq!(drained(&mut watch).unwrap(), format!("[a={n}]"));
        let known = watch.position();
        other.compact().unwrap();
        if n % 2 == 0 {
            other.compact().unwrap();
        }
        let mut later = unsynced(&disk).changes("", WatchFrom::After(known)).unwrap();
        assert_eq!((drained(&mut watch).unwrap(), drained(&mut later).unwrap()), (String::new(), String::new()));
    }
}

#[test]
fn what_a_compaction_has_carried_over_is_not_delivered_again() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    for key in ["a", "b", "c"] {
        cask.put(key, "1").unwrap();
    }
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let known = watch.position();
    other.compact().unwrap();
    other.put("d", "1").unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[d=1]");
    assert_eq!(drained(&mut unsynced(&disk).changes("", WatchFrom::After(known)).unwrap()).unwrap(), "[d=1]");
}

/// The events that follow a lost one say nothing about what it did.
#[test]
fn a_client_whose_last_event_was_lost_is_not_let_go_on() {
    let disk = SimDisk::new();
    let cask = unsynced(&disk);
    cask.put("a", "1").unwrap();
    cask.sync().unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    cask.put("b", "lost").unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[b=lost]");
    let after = disk.reboot(&mut Choices::keep_nothing());
    let cask = unsynced(&after);
    cask.put("c", "3").unwrap();
    let outcome = cask.changes("", WatchFrom::After(watch.position()));
    assert!(matches!(outcome, Err(Error::Undone { .. })), "{outcome:?}");
}

/// Otherwise it is refused after the next compaction, although it knows everything that it wants to know.
#[test]
fn a_watch_that_wants_nothing_knows_how_far_it_has_come() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    let mut watch = cask.changes("wanted", WatchFrom::Now).unwrap();
    for _ in 0..3 {
        let last_index = other.put("unwanted", "").unwrap();
        assert_eq!(drained(&mut watch).unwrap(), "");
        assert_eq!(watch.position(), last_index);
        other.compact().unwrap();
        assert!(other.changes("wanted", WatchFrom::After(watch.position())).is_ok());
        assert_eq!(drained(&mut watch).unwrap(), "");
    }
}

/// A process is killed in a write that others have seen nothing of, and the log is cut and goes on otherwise. Or what was seen is
/// lost: then the place of the watch holds another record, or none.
#[test]
fn a_watch_whose_place_was_cut_off_does_not_go_on_there() {
    for seen in [false, true] {
        let disk = SimDisk::new();
        let cask = unsynced(&disk);
        cask.put("a", "1").unwrap();
        cask.sync().unwrap();
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let before = disk.contents(STORE).unwrap();
        cask.put("b", "2").unwrap();
        if seen {
            assert_eq!(drained(&mut watch).unwrap(), "[b=2]");
        }
        drop(cask);
        // As a failed write-back leaves it, once the pages are dropped.
        let mut cut = disk.contents(STORE).unwrap();
        let end = before.len().min(cut.len());
        cut[..end].copy_from_slice(&before[..end]);
        cut[end..].fill(0);
        disk.set_contents(STORE, cut);
        let other = unsynced(&disk);
        other.put("c", "3 and longer than what was there").unwrap();
        match seen {
            false => assert_eq!(drained(&mut watch).unwrap(), "[c=3 and longer than what was there]"),
            true => assert!(matches!(drained(&mut watch), Err(Error::Undone { .. }))),
        }
    }
}

/// At any call of the one that begins the watch, another process writes.
#[test]
fn a_listing_and_its_position_are_of_one_moment() {
    for all_buckets in [false, true] {
        for nth in 1.. {
            let disk = SimDisk::new();
            let process = disk.process();
            let cask = Cask::open_on(Arc::new(process.clone()), STORE, &Config::new()).unwrap();
            let other = unsynced(&disk);
            cask.put("a", "1").unwrap();
            let (writer, written) = (other.clone(), Arc::new(AtomicU64::new(0)));
            let has_written = Arc::clone(&written);
            process.before(When::nth(nth).and_map_reads().by(&process), Repeat::Once, move |_| {
                writer.delete("a").unwrap();
                writer.put("b", "2").unwrap();
                has_written.store(1, Relaxed);
            });
            let options = WatchOptions::new().all_buckets(all_buckets);
            let mut watch = cask.changes_with("", WatchFrom::Snapshot, &options).unwrap();
            let is_within = written.load(Relaxed) == 1;
            let told = drained(&mut watch).unwrap();
            assert!(["[a=1][-a][b=2]", "[b=2]", "[a=1]"].contains(&&*told), "call {nth}: {told}");
            if !is_within {
                break;
            }
            assert_ne!(told, "[a=1]", "call {nth}");
        }
    }
}

#[test]
fn a_unit_that_could_not_be_read_comes_again() {
    let disk = SimDisk::new();
    disk.set_maps(false);
    let process = disk.process();
    let (cask, other) = (Cask::open_on(Arc::new(process.clone()), STORE, &Config::new()).unwrap(), unsynced(&disk));
    let known = cask.changes("", WatchFrom::Now).unwrap().position();
    let mut batch = Batch::new();
    (0..4).for_each(|n| _ = batch.put(format!("key {n}"), vec![7; 3000]));
    other.write(&batch).unwrap();
    let (mut failed, mut failed_within) = (0, 0);
    for nth in 1..60 {
        let mut watch = cask.changes("", WatchFrom::After(known)).unwrap();
        process.fail(When::nth(nth).of(Verb::ReadAt).by(&process), Fault::Os(libc::EIO), Repeat::Once);
        let events = loop {
            let mut unit = match watch.try_next() {
                Ok(Some(unit)) => unit,
                Ok(None) => panic!("the unit is gone after read {nth} has failed"),
                Err(_) => {
                    failed += 1;
                    continue;
                }
            };
            match events_of(&mut unit) {
                Ok(events) => break events,
                Err(_) => failed_within += 1,
            }
            assert!(unit.next_ref().is_none());
            drop(unit);
            assert_eq!(watch.position(), known, "a unit that has failed counts as passed");
        };
        assert_eq!(events.len(), 4);
        process.clear_faults();
    }
    assert!(failed > 1 && failed_within > 1, "{failed} {failed_within}");
}

/// The number of syncs of one process.
fn syncs(disk: &SimDisk) -> u64 {
    [Verb::SyncData, Verb::SyncAll].into_iter().map(|verb| disk.calls_of(verb)).sum()
}

#[test]
fn a_durable_watch_syncs_once_for_all_that_has_gathered() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    let synced = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
    let mut watch = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().durable(true)).unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "");
    // One synced put, and then silence.
    synced.put("a", "1").unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[a=1]");
    for n in 0..5 {
        other.put("b", n.to_string()).unwrap();
    }
    let before = syncs(&disk);
    let first = watch.try_next().unwrap().unwrap();
    assert_eq!(first.into_changes().unwrap().len(), 1);
    let needed = syncs(&disk) - before;
    assert!((1..=2).contains(&needed), "{needed} syncs for five puts");
    assert_eq!(drained(&mut watch).unwrap(), "[b=1][b=2][b=3][b=4]");
    assert_eq!(syncs(&disk), before + needed, "each event has its sync");
    // What was delivered is there after a power cut.
    let mut after =
        unsynced(&disk.reboot(&mut Choices::keep_nothing())).changes("", WatchFrom::After(watch.position())).unwrap();
    assert_eq!(drained(&mut after).unwrap(), "");
}

/// At each call of a compaction, its process is killed, or the power is cut, under watches that have read everything, something or
/// nothing.
#[test]
fn a_compaction_that_dies_at_any_call_takes_no_event_from_a_watch() {
    let (mut calls, mut cuts) = (0, 0);
    for nth in 1.. {
        let disk = SimDisk::new();
        let victim = disk.process();
        let (cask, other) = (unsynced(&disk), unsynced(&disk));
        other.put("a", "0").unwrap();
        let compacting = Cask::open_on(Arc::new(victim.clone()), STORE, &Config::new()).unwrap();
        let mut eager = cask.changes("", WatchFrom::Now).unwrap();
        let mut lazy = cask.changes("", WatchFrom::Now).unwrap();
        let begin = lazy.position();
        other.put("a", "1").unwrap();
        other.write(Batch::new().put("b", "2").delete("a")).unwrap();
        assert_eq!(drained(&mut eager).unwrap(), "[a=1][b=2 -a]");
        other.sync().unwrap();
        let known = eager.position();
        // A look at each moment before that.
        let looks: Arc<Mutex<Vec<SimDisk>>> = Arc::default();
        if nth == 1 {
            let found = Arc::clone(&looks);
            disk.before(When::next().by(&victim), Repeat::Forever, move |disk| {
                for mut choices in [Choices::keep_nothing(), Choices::keep_all()] {
                    found.lock().unwrap().push(disk.reboot(&mut choices));
                }
            });
            compacting.compact().unwrap();
            disk.clear_hooks();
            for after in looks.lock().unwrap().drain(..) {
                cuts += 1;
                let cask = unsynced(&after);
                let mut up_to_date = cask.changes("", WatchFrom::After(known)).expect("it knows everything");
                match cask.changes("", WatchFrom::After(begin)) {
                    Ok(mut behind) => assert_eq!(drained(&mut behind).unwrap(), "[a=1][b=2 -a]"),
                    Err(error) => assert!(matches!(error, Error::Compacted { .. }), "{error}"),
                }
                cask.put("c", "3").unwrap();
                assert_eq!(drained(&mut up_to_date).unwrap(), "[c=3]");
            }
        } else {
            victim.fail(When::nth(nth).by(&victim), Fault::Kill(3), Repeat::Once);
            let done = compacting.compact().is_ok();
            calls += 1;
            disk.clear_faults();
            victim.kill();
            if done {
                break;
            }
        }
        assert_eq!(drained(&mut eager).unwrap(), "");
        other.put("c", "3").unwrap();
        assert_eq!(drained(&mut eager).unwrap(), "[c=3]");
        other.compact().unwrap();
        other.put("d", "4").unwrap();
        assert_eq!(drained(&mut eager).unwrap(), "[d=4]", "killed at call {nth}");
        // One compaction or two: the one that was killed may have come to its end.
        match drained(&mut lazy) {
            Ok(text) => assert_eq!(text, "[a=1][b=2 -a][c=3][d=4]", "killed at call {nth}"),
            Err(error) => assert!(matches!(error, Error::Compacted { .. }), "killed at call {nth}: {error}"),
        }
    }
    println!("{calls} kills, {cuts} power cuts");
    assert!(calls > 30 && cuts > 60, "{calls} {cuts}");
}

/// A watch that is never read must not keep the space of old files.
#[test]
fn a_watch_that_lags_gives_the_space_of_old_files_back() {
    let disk = SimDisk::new();
    let (process, other) = (disk.process(), unsynced(&disk));
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &Config::new()).unwrap();
    let mut lagging = cask.changes_with("", WatchFrom::Now, &WatchOptions::new().lag(100)).unwrap();
    let mut waiting = cask.changes("", WatchFrom::Now).unwrap();
    for n in 0..4 {
        for _ in 0..10 {
            other.put("key", n.to_string()).unwrap();
        }
        other.compact().unwrap();
        // The handle follows.
        assert!(cask.exists("key").unwrap());
        assert!(drained(&mut waiting).unwrap().starts_with("[key="));
    }
    assert_eq!(process.open_files(), 1, "an old file is kept open");
    assert!(matches!(drained(&mut lagging), Err(Error::Compacted { .. })));
}

/// The handle has not followed the compaction, and now there is nothing to follow.
#[test]
fn a_store_that_is_removed_right_after_a_compaction_ends_a_watch() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    other.compact().unwrap();
    drop(other);
    disk.process().remove(STORE.as_ref()).unwrap();
    let outcome = watch.next_timeout(Some(Duration::from_millis(20))).map(|unit| unit.is_some());
    assert!(matches!(outcome, Err(Error::Replaced { .. })), "{outcome:?}");
}

/// The read that compared the key failed, and the one that lent the pair did not.
#[test]
fn a_listing_of_all_buckets_lists_no_other_keys_after_a_failed_read() {
    let disk = SimDisk::new();
    disk.set_maps(false);
    let process = disk.process();
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &Config::new()).unwrap();
    for key in ["other 1", "wanted 1", "other 2", "wanted 2", "other 3"] {
        // Too long for one read of several.
        cask.put(key, vec![7; 9000]).unwrap();
    }
    let options = WatchOptions::new().all_buckets(true);
    let mut failed = 0;
    for nth in 1..20 {
        let mut watch = cask.changes_with("wanted", WatchFrom::Snapshot, &options).unwrap();
        process.fail(When::nth(nth).of(Verb::ReadAt).by(&process), Fault::Os(libc::EIO), Repeat::Once);
        let events = loop {
            let unit = watch.try_next();
            match unit.map(|unit| events_of(&mut unit.expect("a listing"))) {
                Ok(Ok(events)) => break events,
                Ok(Err(_)) => failed += 1,
                Err(_) => {}
            }
        };
        process.clear_faults();
        let keys: Vec<_> = events.into_iter().map(|event| String::from_utf8(event.name.1).unwrap()).collect();
        assert_eq!(keys, ["wanted 1", "wanted 2"], "read {nth} has failed");
    }
    assert!(failed > 3, "{failed}");
}

/// The old file ends within a write, and a handle that has opened the new one does not know whether it was whole once.
#[test]
fn a_store_that_ends_torn_and_was_replaced_is_replaced_for_its_watch() {
    let disk = SimDisk::new();
    let cask = unsynced(&disk);
    cask.put("a", "1").unwrap();
    cask.backup(COPY).unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let victim = disk.process();
    let other = Cask::open_on(Arc::new(victim.clone()), STORE, &Config::new()).unwrap();
    other.put("b", "2").unwrap();
    victim.fail(When::next().of(Verb::WriteAt).by(&victim), Fault::Kill(60), Repeat::Once);
    assert!(other.put("c", vec![7; 500]).is_err());
    let outsider = disk.process();
    outsider.rename(COPY.as_ref(), STORE.as_ref()).unwrap();
    cask.reopen().unwrap();
    let outcome = drained(&mut watch);
    assert!(matches!(outcome, Err(Error::Replaced { .. })), "{outcome:?}");
}

/// The handle has not read the old file to its end when it opens another one. What is there, and whole, belongs to the feed: the
/// compaction's `MOVED` too.
#[test]
fn a_handle_that_reopens_after_a_compaction_takes_nothing_from_its_watch() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    other.put("a", "1").unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[a=1]");
    other.write(Batch::new().put("b", "2").put("c", "3")).unwrap();
    other.compact().unwrap();
    other.put("d", "4").unwrap();
    cask.reopen().unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[b=2 c=3][d=4]");
}

/// An error that the damage of a unit gives is `Corrupt`, as often as it is asked for, and not a reason to begin again.
#[test]
fn a_unit_that_is_damaged_is_damage_and_one_that_was_cut_off_is_undone() {
    for cut in [false, true] {
        let disk = SimDisk::new();
        let cask = unsynced(&disk);
        cask.put("a", "1").unwrap();
        let before = disk.contents(STORE).unwrap();
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let (known, last) = (watch.position(), cask.put("b", vec![b'!'; 9000]).unwrap());
        let mut unit = watch.try_next().unwrap().unwrap();
        let mut bytes = disk.contents(STORE).unwrap();
        if cut {
            // As a failed write-back leaves it, once the pages are dropped.
            let end = before.len().min(bytes.len());
            bytes[..end].copy_from_slice(&before[..end]);
            bytes[end..].fill(0);
        } else {
            *bytes.iter_mut().rfind(|byte| **byte == b'!').unwrap() = b'?';
        }
        disk.set_contents(STORE, bytes);
        let error = unit.next_ref().unwrap().expect_err("it was changed");
        assert!(unit.next_ref().is_none());
        drop(unit);
        if cut {
            let is_it = |error| matches!(error, Error::Undone { position, last: before, .. } if (position, before) == (last, known));
            assert!(is_it(error), "of a unit that was cut off");
            // It had not been passed, so the watch goes on.
            unsynced(&disk).put("c", "3").unwrap();
            assert_eq!(drained(&mut watch).unwrap(), "[c=3]");
        } else {
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
            let again = drained(&mut watch);
            assert!(matches!(again, Err(Error::Corrupt { .. })), "{again:?}");
        }
        assert_eq!(watch.position(), if cut { cask.get("c").unwrap().last_index } else { known });
    }
}

/// To list is dear, and the caller may be done with its watch.
#[test]
fn a_listing_that_has_failed_is_made_again_by_the_next_call() {
    let disk = SimDisk::new();
    disk.set_maps(false);
    let process = disk.process();
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &Config::new()).unwrap();
    cask.put("a", vec![7; 9000]).unwrap();
    let mut watch = cask.changes("", WatchFrom::Snapshot).unwrap();
    let mut unit = watch.try_next().unwrap().unwrap();
    process.fail(When::next().of(Verb::ReadAt).by(&process), Fault::Os(libc::EIO), Repeat::Once);
    let before = process.calls();
    assert!(unit.next_ref().unwrap().is_err());
    let after = process.calls();
    assert_eq!(after - before, 1, "the failed read is the only call");
    drop(unit);
    // Of the moment of the call.
    cask.put("b", "2").unwrap();
    let unit = watch.try_next().unwrap().unwrap();
    assert!(unit.is_listing());
    assert_eq!(unit.into_changes().unwrap().len(), 2);
    assert_eq!(drained(&mut watch).unwrap(), "");
}

/// A process that cuts a torn tail off keeps the file's length: a watch that is armed looks through its map, also at what was there
/// when it fell asleep.
#[test]
fn a_cut_takes_nothing_away_under_a_watch_that_looks_at_any_of_its_calls() {
    let mut looks = 0;
    for seen in [false, true] {
        let disk = SimDisk::new();
        let cask = unsynced(&disk);
        cask.put("a", "1").unwrap();
        cask.sync().unwrap();
        let before = disk.contents(STORE).unwrap();
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let torn = disk.process();
        let dying = Cask::open_on(Arc::new(torn.clone()), STORE, &Config::new().durability(Durability::Os)).unwrap();
        dying.put("b", vec![b'b'; 100_000]).unwrap();
        // Pages further on: what the watch looks at first is beyond the end of a file that was shortened.
        dying.put("d", "4").unwrap();
        if seen {
            assert!(drained(&mut watch).unwrap().starts_with("[b=bbb"));
        }
        torn.kill();
        // As a failed write-back leaves it, once the pages are dropped: the record has its header, and lacks a part of its value.
        let Verdict::Store(store) = read(&before) else { panic!("the file is damaged") };
        let mut file = disk.contents(STORE).unwrap();
        file[store.end as usize + 4096..][..40_000].fill(0);
        disk.set_contents(STORE, file);
        let watch = Arc::new(Mutex::new(watch));
        let (looking, counted) = (Arc::clone(&watch), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&counted);
        let recovering = disk.process();
        let cutting = recovering.clone();
        recovering.before(When::next().by(&cutting), Repeat::Forever, move |_| {
            add(&count);
            drop(looking.lock().unwrap().try_next().map(drop));
        });
        let other = Cask::open_on(Arc::new(recovering.clone()), STORE, &Config::new()).unwrap();
        other.put("c", "3").unwrap();
        recovering.clear_hooks();
        looks += counted.load(Relaxed);
        let outcome = drained(&mut watch.lock().unwrap());
        match seen {
            true => assert!(matches!(outcome, Err(Error::Undone { .. })), "{outcome:?}"),
            false => assert!(outcome.as_deref().is_ok_and(|text| text.is_empty() || text == "[c=3]"), "{outcome:?}"),
        }
    }
    assert!(looks > 20, "{looks}");
}

/// The store is moved away and another one has its place for a while. The handle has seen it, and its watch has read its old file to
/// the end.
#[test]
fn a_watch_goes_on_when_its_file_comes_back() {
    let disk = SimDisk::new();
    let (cask, other) = (unsynced(&disk), unsynced(&disk));
    cask.put("a", "1").unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let outsider = disk.process();
    for n in 0..3 {
        outsider.rename(STORE.as_ref(), "/away".as_ref()).unwrap();
        drop(unsynced(&disk));
        cask.reopen().unwrap();
        assert!(matches!(drained(&mut watch), Err(Error::Replaced { .. })));
        outsider.remove(STORE.as_ref()).unwrap();
        outsider.rename("/away".as_ref(), STORE.as_ref()).unwrap();
        cask.reopen().unwrap();
        other.reopen().unwrap();
        other.put("b", n.to_string()).unwrap();
        assert_eq!(drained(&mut watch).unwrap(), format!("[b={n}]"));
    }
    other.put("c", "2").unwrap();
    other.compact().unwrap();
    other.put("d", "3").unwrap();
    cask.reopen().unwrap();
    assert_eq!(drained(&mut watch).unwrap(), "[c=2][d=3]");
}
