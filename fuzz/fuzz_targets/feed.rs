//! Any sequence of writes, compactions, reopenings, kills, failing calls, restores and power cuts, with watches of any age: what a
//! client has folded from its watches is what the store holds, or an error says that it must begin again.
//!
//! Every handle is a process of its own on one simulated disk. A client outlives its watch, its handle and the power: it keeps its
//! position and its state, as a program does that stores both.

#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, ChangeRef, CompactionPolicy, Config, Durability, Error, Limits, ReadMode, Result, SnapshotPolicy,
    Watch, WatchFrom, WatchOptions,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: Program| {
    let mut bench = Bench::new(&program);
    for step in program.steps {
        bench.step(step);
    }
    (0..CLIENTS).for_each(|client| bench.follow(client, client));
});

#[derive(Debug, Arbitrary)]
struct Program {
    small_sectors: bool,
    no_maps: bool,
    limits: Option<u8>,
    clients: [Asked; CLIENTS],
    steps: Vec<Step>,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Asked {
    bucket: u8,
    prefix: u8,
    lag: u8,
    durable: bool,
}

#[derive(Debug, Arbitrary)]
struct Step {
    handle: u8,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum What {
    Put(u8, u8),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    DeletePrefix(u8),
    Compact,
    WriteSnapshot,
    Sync,
    List,
    Reopen,
    Close,
    /// The process is killed, or it is in one of its next calls.
    Kill,
    KillAt(u8, u8),
    /// One of its next calls fails: which verb, which of its calls, and how.
    Fail(u8, u8, u8),
    /// The client takes all that there is.
    Follow(u8),
    /// It takes one unit, or a part of one.
    Take(u8, u8),
    /// Its watch is gone, and it goes on with another one.
    Leave(u8),
    BeginAgain(u8),
    Backup,
    /// The backup takes the place of the store.
    Restore,
    PowerCut(u16),
}

const HANDLES: usize = 3;
const CLIENTS: usize = 4;
const BUCKETS: [&str; 2] = ["", "b"];
/// Linux's numbers.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const STORE: &str = "/store";
const COPY: &str = "/copy";

fn key(number: u8) -> Vec<u8> {
    match number % 12 {
        11 => vec![b'l'; 200],
        n => format!("{}{n}", if n < 6 { "a" } else { "ab" }).into_bytes(),
    }
}

/// Bucket and key.
type Name = (usize, Vec<u8>);

struct Client {
    asked: Asked,
    /// With the number of its handle.
    watch: Option<(usize, Watch)>,
    /// `None` if it must begin with a listing.
    position: Option<u64>,
    state: BTreeMap<Name, Vec<u8>>,
}

impl Client {
    /// The bucket that it wants; `None` for all.
    fn bucket(&self) -> Option<usize> {
        Some(usize::from(self.asked.bucket) % 3).filter(|bucket| *bucket < BUCKETS.len())
    }

    fn prefix(&self) -> &'static str {
        ["", "a", "ab", "none"][usize::from(self.asked.prefix) % 4]
    }

    fn admits(&self, (bucket, key): &Name) -> bool {
        self.bucket().is_none_or(|own| own == *bucket) && key.starts_with(self.prefix().as_bytes())
    }

    fn watch(&self, cask: &Cask, from: WatchFrom) -> Result<Watch> {
        let lag = [u64::MAX, 256 << 20, 200, 0][usize::from(self.asked.lag) % 4];
        let bucket = self.bucket();
        let options = WatchOptions::new().lag(lag).durable(self.asked.durable).all_buckets(bucket.is_none());
        cask.bucket(BUCKETS[bucket.unwrap_or(0)])?.changes_with(self.prefix(), from, &options)
    }

    /// What the store holds of what it wants.
    fn expected(&self, cask: &Cask) -> Result<BTreeMap<Name, Vec<u8>>> {
        let mut pairs = BTreeMap::new();
        for (number, name) in BUCKETS.into_iter().enumerate() {
            for pair in cask.bucket(name)?.list(self.prefix())? {
                pairs.insert((number, pair.key), pair.value);
            }
        }
        pairs.retain(|name, _| self.admits(name));
        Ok(pairs)
    }
}

struct Bench {
    disk: SimDisk,
    handles: Vec<Option<(Cask, SimDisk)>>,
    clients: Vec<Client>,
    /// What each write puts, by its number, which begins its values.
    writes: HashMap<u64, Vec<Name>>,
}

/// How a unit was read.
#[derive(PartialEq, Eq)]
enum Taken {
    Unit,
    None,
    /// The watch has ended.
    Ended,
}

impl Bench {
    fn new(program: &Program) -> Bench {
        let disk = SimDisk::new();
        disk.set_sector(if program.small_sectors { 8 } else { 512 });
        disk.set_maps(!program.no_maps);
        if let Some(choices) = program.limits {
            disk.set_limits(if choices % 4 == 0 {
                Limits::SMALL
            } else {
                Limits::mixed(u64::from(choices) * 0x9e37_79b9)
            });
        }
        // It has its name for good.
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
        cask.sync().unwrap();
        cask.close().unwrap();
        let client = |asked: &Asked| Client { asked: *asked, watch: None, position: None, state: BTreeMap::new() };
        Bench {
            disk,
            handles: (0..HANDLES).map(|_| None).collect(),
            clients: program.clients.iter().map(client).collect(),
            writes: HashMap::new(),
        }
    }

    /// `None` if a planned fault has kept it from opening.
    fn open(&mut self, number: usize) -> Option<Cask> {
        if let Some((cask, process)) = &self.handles[number] {
            if process.is_alive() {
                return Some(cask.clone());
            }
            self.end(number);
        }
        let process = self.disk.process();
        let config = Config::new()
            .durability(if number == 0 { Durability::Sync } else { Durability::Os })
            .read_mode(if number == 1 { ReadMode::Pread } else { ReadMode::Map })
            .snapshots(if number == 2 { SnapshotPolicy::Never } else { SnapshotPolicy::AtClose })
            .compaction(CompactionPolicy::Manual)
            .connection_timeout(Duration::ZERO);
        let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
        self.handles[number] = Some((cask.clone(), process));
        Some(cask)
    }

    /// A handle is no longer used, and neither are its watches.
    fn end(&mut self, number: usize) {
        self.handles[number] = None;
        for client in &mut self.clients {
            client.watch.take_if(|(handle, _)| *handle == number);
        }
    }

    fn step(&mut self, Step { handle, what }: Step) {
        let number = usize::from(handle) % HANDLES;
        let client = |number: u8| usize::from(number) % CLIENTS;
        match what {
            What::PowerCut(seed) => return self.cut(seed),
            What::Restore => return self.restore(),
            What::Follow(which) => return self.follow(client(which), number),
            What::Take(which, changes) => {
                self.clear(number);
                return drop(self.take(client(which), number, Some(changes)));
            }
            What::Leave(which) => {
                let client = &mut self.clients[client(which)];
                return drop(client.watch.take());
            }
            What::BeginAgain(which) => {
                let client = &mut self.clients[client(which)];
                (client.watch, client.position) = (None, None);
                return;
            }
            _ => {}
        }
        let Some(cask) = self.open(number) else { return };
        let process = self.handles[number].as_ref().expect("just opened").1.clone();
        let bucket_number = usize::from(handle / 16) % BUCKETS.len();
        let bucket = cask.bucket(BUCKETS[bucket_number]).unwrap();
        let id = self.writes.len() as u64;
        let value = |len: u8| [&id.to_le_bytes()[..], &vec![7; usize::from(len)]].concat();
        let done = match what {
            What::Put(at, len) => {
                self.writes.insert(id, vec![(bucket_number, key(at))]);
                bucket.put(key(at), value(len)).map(drop)
            }
            What::Delete(at) => bucket.delete(key(at)),
            What::Batch(ops) => {
                let mut batch = Batch::new();
                let mut puts = Vec::new();
                for (at, len) in ops.into_iter().take(20) {
                    match len {
                        Some(len) => {
                            batch.put(key(at), value(len));
                            puts.push((bucket_number, key(at)));
                        }
                        None => drop(batch.delete(key(at))),
                    }
                }
                self.writes.insert(id, puts);
                bucket.write(&batch).map(drop)
            }
            What::DeletePrefix(at) => bucket.delete_prefix(&key(at)[..1 + usize::from(at) % 2]).map(drop),
            What::Compact => cask.compact().map(drop),
            What::WriteSnapshot => cask.write_snapshot().map(drop),
            What::Sync => cask.sync(),
            What::List => cask.list("").map(drop),
            What::Reopen => cask.reopen(),
            What::Backup => {
                let _ = self.disk.process().remove(Path::new(COPY));
                cask.backup(COPY).map(drop)
            }
            What::Close => {
                let closed = cask.close();
                self.end(number);
                closed
            }
            What::Kill => {
                process.kill();
                return self.end(number);
            }
            What::KillAt(nth, bytes) => {
                let when = When::nth(1 + u64::from(nth % 40)).by(&process);
                return process.fail(when, Fault::Kill(bytes.into()), Repeat::Once);
            }
            What::Fail(verb, nth, how) => {
                let verbs = [Verb::WriteAt, Verb::SyncData, Verb::SetLen, Verb::SyncDir, Verb::ReadAt, Verb::Rename];
                let faults = [Fault::Os(EIO), Fault::Os(ENOSPC), Fault::Short(usize::from(how))];
                let when = When::nth(1 + u64::from(nth % 20)).of(verbs[usize::from(verb) % verbs.len()]).by(&process);
                return process.fail(when, faults[usize::from(how) % faults.len()], Repeat::Once);
            }
            What::PowerCut(_)
            | What::Restore
            | What::Follow(_)
            | What::Take(..)
            | What::Leave(_)
            | What::BeginAgain(_) => unreachable!("done above"),
        };
        if !process.is_alive() {
            return self.end(number);
        }
        match done {
            Ok(()) | Err(Error::CompactionOvertaken { .. } | Error::CompactionRefused { .. } | Error::Io { .. }) => {}
            Err(Error::Poisoned { .. } | Error::Closed) => self.end(number),
            // The limits may be those that a few records cross. Nothing is written then.
            Err(Error::BatchTooLarge { .. }) => {}
            // It is found by `reopen`.
            Err(Error::Replaced { .. }) => self.end(number),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Nothing that was planned happens any more.
    fn clear(&mut self, number: usize) {
        self.disk.clear_faults();
        if self.handles[number].as_ref().is_some_and(|(_, process)| !process.is_alive()) {
            self.end(number);
        }
    }

    /// The client takes all that there is.
    fn follow(&mut self, at: usize, number: usize) {
        let number = number % HANDLES;
        self.clear(number);
        // Its watch may end, its handle may be poisoned, its position may be refused: then it begins again.
        for _ in 0..5 {
            loop {
                match self.take(at, number, None) {
                    Taken::Unit => {}
                    Taken::Ended => break,
                    Taken::None => {
                        let client = &self.clients[at];
                        let (handle, watch) = client.watch.as_ref().expect("it has returned nothing");
                        let Some((cask, _)) = &self.handles[*handle] else { panic!("its handle is gone") };
                        let last = cask.changes("", WatchFrom::Now).unwrap().position();
                        assert_eq!(watch.position(), last, "the position of a client that knows everything");
                        assert_eq!(client.state, client.expected(cask).unwrap(), "what was folded");
                        return;
                    }
                }
            }
        }
        panic!("its watches end, one after the other");
    }

    /// The client takes the next unit; with a number, at most that many changes of it, and counts it as passed only if that is all.
    fn take(&mut self, at: usize, number: usize, changes: Option<u8>) -> Taken {
        if !self.connect(at, number) {
            return Taken::Ended;
        }
        let writes = &self.writes;
        let client = &mut self.clients[at];
        let (bucket, all) = (client.bucket(), client.bucket().is_none());
        let (handle, mut watch) = client.watch.take().expect("just connected");
        let before = client.position;
        let ended = |error: Error| match error {
            Error::Compacted { .. } | Error::Undone { .. } | Error::Replaced { .. } => true,
            // Of the syncs of a durable watch.
            Error::Poisoned { .. } | Error::Io { .. } | Error::LockTimeout { .. } => false,
            error => panic!("{error:?}"),
        };
        let mut unit = match watch.try_next() {
            Ok(Some(unit)) => unit,
            Ok(None) => {
                (client.position, client.watch) = (Some(watch.position()), Some((handle, watch)));
                return Taken::None;
            }
            Err(error) => {
                if ended(error) {
                    client.position = None;
                } else {
                    // Another handle goes on.
                    self.end(handle);
                }
                return Taken::Ended;
            }
        };
        let (is_listing, position) = (unit.is_listing(), unit.position());
        let mut state = if is_listing { BTreeMap::new() } else { client.state.clone() };
        let (mut puts, mut write, mut last) = (Vec::new(), None, before.unwrap_or(0));
        let mut left = changes.map_or(usize::MAX, usize::from);
        loop {
            if left == 0 {
                // Goes on with another watch, after what it has applied.
                return Taken::Ended;
            }
            left -= 1;
            let Some(next) = unit.next_with_bucket() else { break };
            let (name, change) = match next {
                Ok(next) => next,
                Err(error) => {
                    assert!(matches!(error, Error::Undone { .. }), "{error:?}");
                    client.position = None;
                    return Taken::Ended;
                }
            };
            let in_bucket = if all { BUCKETS.iter().position(|own| own.as_bytes() == name) } else { bucket };
            let name = (in_bucket.expect("a bucket that was written"), change.key().to_vec());
            assert!(client.admits(&name), "{name:?} was not asked for");
            if !is_listing {
                assert!(change.last_index() > last, "{} after {last}", change.last_index());
                last = change.last_index();
            }
            match change {
                ChangeRef::Put(pair) => {
                    let id = u64::from_le_bytes(*pair.value.first_chunk().expect("values begin with a number"));
                    assert!(is_listing || write.is_none_or(|write| write == id), "two writes in one unit");
                    write = Some(id);
                    puts.push(name.clone());
                    state.insert(name, pair.value.to_vec());
                }
                ChangeRef::Delete { .. } => drop(state.remove(&name)),
            }
        }
        drop(unit);
        if !is_listing {
            assert_eq!(last, position);
            if let Some(id) = write {
                let expected: Vec<_> = writes[&id].iter().filter(|name| client.admits(name)).cloned().collect();
                assert_eq!(puts, expected, "a part of a write");
            }
        }
        (client.state, client.position, client.watch) = (state, Some(position), Some((handle, watch)));
        Taken::Unit
    }

    /// Makes a watch for a client that has none. `false` if it must begin again.
    fn connect(&mut self, at: usize, number: usize) -> bool {
        if self.clients[at].watch.is_some() {
            return true;
        }
        let Some(cask) = self.open(number) else { return false };
        let client = &mut self.clients[at];
        let from = client.position.map_or(WatchFrom::Snapshot, WatchFrom::After);
        match client.watch(&cask, from) {
            Ok(watch) => {
                client.watch = Some((number, watch));
                true
            }
            Err(Error::Compacted { position, .. } | Error::Undone { position, .. }) => {
                assert_eq!(Some(position), client.position);
                let last = cask.changes("", WatchFrom::Now).unwrap().position();
                assert_ne!(position, last, "a client that knows everything is refused");
                client.position = None;
                false
            }
            // The handle has not found the file that was put in the place of its own.
            Err(Error::Replaced { .. }) => {
                self.end(number);
                false
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn restore(&mut self) {
        self.disk.clear_faults();
        let outsider = self.disk.process();
        if outsider.rename(Path::new(COPY), Path::new(STORE)).is_err() {
            return;
        }
        outsider.sync_dir(Path::new("/")).unwrap();
        // Their handles may not notice for a while, and would go on with the old file.
        for number in 0..HANDLES {
            let Some((cask, process)) = &self.handles[number] else { continue };
            if !process.is_alive() || cask.reopen().is_err() {
                self.end(number);
            }
        }
    }

    fn cut(&mut self, seed: u16) {
        let mut choices = match seed {
            0 => Choices::keep_nothing(),
            1 => Choices::keep_all(),
            seed => Choices::from_seed(seed.into()),
        };
        self.disk.clear_faults();
        let after = self.disk.reboot(&mut choices);
        self.disk.cut();
        (0..HANDLES).for_each(|number| self.end(number));
        self.disk = after;
    }
}
