//! Runs a world, and cuts the power at its calls.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Error, KvPair, OptionalExt};

use super::world::{Op, PROCESSES, Prelude, World};
use crate::common::small_history::{Change, History, KEYS, State, read_all};

pub const STORE: &str = "/store";

/// What survives a power cut whole or not at all, in bytes: what real disks have, besides what is tried always.
const SECTORS: [u64; 7] = [8, 16, 32, 64, 128, 256, 512];

/// A cut is tried in every way there is, with sectors as small as they can be for no more ways than this.
const MOST_OUTCOMES: u64 = 256;

/// How many power cuts may follow each other.
pub const GENERATIONS: usize = 3;

/// One in this number of lives after a power cut has its power cut again at every call.
const NESTED_ONE_IN: u64 = 16;

/// What was done up to now, and what need not be done again.
///
/// A verdict on a disk that was found after a power cut depends on the names and contents on it, on what the history
/// allows, and on nothing else: the processes that were there are dead, and all that is chosen for the life that
/// follows (random bytes, how the store is opened, what is written) follows from a number for these two. In the same way,
/// the disks that a power cut can leave depend on what is durable and what is pending before it. A case whose number (64
/// bits) was seen before is skipped.
#[derive(Default)]
pub struct Seen {
    disks: Mutex<HashSet<u64>>,
    /// Moments at which the power was cut in every way, by how many cuts came before.
    pub moments: [AtomicU64; GENERATIONS],
    /// Of these, moments at which there were too many ways to be found, and some were drawn.
    pub sampled: AtomicU64,
    /// Disks that were found after that, and tried.
    pub cuts: [AtomicU64; GENERATIONS],
    /// Disks that were found, tried before or not.
    pub outcomes: AtomicU64,
}

impl Seen {
    fn is_new(&self, number: u64) -> bool {
        lock(&self.disks).insert(number)
    }

    pub fn cuts(&self) -> u64 {
        self.cuts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One number for two.
fn combine(one: u64, other: u64) -> u64 {
    let mixed = (one ^ other.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ other
}

type Outcome = Result<(), String>;

/// A disk, its processes, and what is known of them.
pub struct Lab {
    disk: SimDisk,
    players: [Player; PROCESSES],
    scene: Arc<Mutex<Scene>>,
}

struct Player {
    disk: SimDisk,
    waits: bool,
    cask: Option<Cask>,
    /// Where in the history its last write stands.
    wrote: Option<usize>,
}

/// What a power cut has to know.
struct Scene {
    history: History,
    generation: usize,
    seen: Arc<Seen>,
    failure: Option<String>,
}

impl Lab {
    fn new(disk: SimDisk, waits: [bool; PROCESSES], history: History, generation: usize, seen: &Arc<Seen>) -> Lab {
        let players = waits.map(|waits| Player { disk: disk.process(), waits, cask: None, wrote: None });
        let scene = Scene { history, generation, seen: Arc::clone(seen), failure: None };
        Lab { disk, players, scene: Arc::new(Mutex::new(scene)) }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        lock(&self.scene)
    }

    /// Cuts the power at every call that changes the disk, from here on.
    fn watch(&self) {
        // The disk belongs to the lab, so the lab must not belong to the disk.
        let scene = Arc::downgrade(&self.scene);
        self.disk.before(When::next().of_any(&Verb::CHANGING), Repeat::Forever, move |disk| {
            if let Some(scene) = scene.upgrade() {
                lock(&scene).cut(disk);
            }
        });
    }

    /// What went wrong in a power cut, if anything did.
    fn check(&self) -> Outcome {
        self.scene().failure.take().map_or(Ok(()), Err)
    }

    fn cask(&mut self, process: usize) -> Result<Cask, String> {
        if let Some(cask) = &self.players[process].cask {
            return Ok(cask.clone());
        }
        let player = &mut self.players[process];
        let durability = if player.waits { Durability::Sync } else { Durability::Os };
        let config = Config::new().durability(durability).connection_timeout(Duration::ZERO);
        let cask = Cask::open_on(Arc::new(player.disk.clone()), STORE, &config).map_err(|error| error.to_string())?;
        player.cask = Some(cask.clone());
        self.scene().history.created = true;
        Ok(cask)
    }

    fn close(&mut self, process: usize) -> Outcome {
        let player = &mut self.players[process];
        let (cask, wrote) = (player.cask.take(), player.wrote.take());
        if let Some(cask) = cask {
            cask.close().map_err(|error| format!("close: {error}"))?;
        }
        if let Some(wrote) = wrote {
            self.scene().history.acknowledge(wrote);
        }
        Ok(())
    }

    /// Does something and compares what is there then with the history.
    fn act(&mut self, process: usize, op: Op) -> Outcome {
        let outcome = self.attempt(process, op);
        // What went wrong in a power cut came first.
        self.check()?;
        outcome.map_err(|error| format!("{process}:{op:?}: {error}"))
    }

    fn attempt(&mut self, process: usize, op: Op) -> Outcome {
        let cask = self.cask(process)?;
        match op {
            Op::Put => {
                let value = self.scene().history.fresh();
                self.write(process, vec![(0, Some(value))], || cask.put(KEYS[0], value.to_le_bytes()).map(drop))
            }
            Op::Delete => {
                let there = self.scene().history.last()[0].is_some();
                self.write(process, there.then_some((0, None)).into_iter().collect(), || cask.delete(KEYS[0]))
            }
            Op::Batch => {
                let (change, batch) = {
                    let history = &mut self.scene().history;
                    let there = history.last()[0].is_some();
                    let (one, other) = (history.fresh(), history.fresh());
                    let mut batch = Batch::new();
                    batch.put(KEYS[1], one.to_le_bytes()).put(KEYS[2], other.to_le_bytes()).delete(KEYS[0]);
                    let mut change = vec![(1, Some(one)), (2, Some(other))];
                    change.extend(there.then_some((0, None)));
                    (change, batch)
                };
                self.write(process, change, || cask.write(&batch).map(drop))
            }
            Op::Swap => {
                let found = cask.get(KEYS[0]).optional().map_err(|error| error.to_string())?;
                if let Some(pair) = &found {
                    let stale = KvPair { last_index: pair.last_index - 1, ..pair.clone() };
                    match cask.atomic_put(KEYS[0], "nobody's", Some(&stale)) {
                        Err(Error::KeyModified) => {}
                        other => return Err(format!("swapped with a stale pair: {other:?}")),
                    }
                }
                let value = self.scene().history.fresh();
                let change = vec![(0, Some(value))];
                self.write(process, change, || cask.atomic_put(KEYS[0], value.to_le_bytes(), found.as_ref()).map(drop))
            }
            Op::Compact | Op::CompactMeanwhile | Op::Sync => {
                let mut meanwhile = Ok(());
                let mut others = if op == Op::CompactMeanwhile { 1 } else { 0 };
                let returned = match op {
                    Op::Sync => cask.sync(),
                    _ => cask
                        .compact_with(|_| {
                            if others > 0 {
                                others -= 1;
                                meanwhile = self.act(1 - process, Op::Batch);
                            }
                            ControlFlow::Continue(())
                        })
                        .map(drop),
                };
                meanwhile?;
                returned.map_err(|error| error.to_string())?;
                if others > 0 {
                    return Err(String::from("there was no moment in which another process could write"));
                }
                let mut scene = self.scene();
                let position = scene.history.position();
                scene.history.acknowledge(position);
                drop(scene);
                self.look(&cask)
            }
            Op::Reopen => {
                drop(cask);
                self.close(process)?;
                let cask = self.cask(process)?;
                self.look(&cask)
            }
        }
    }

    fn write(&mut self, process: usize, change: Change, write: impl FnOnce() -> Result<(), Error>) -> Outcome {
        let writes = !change.is_empty();
        self.scene().history.pending = Some(change);
        write().map_err(|error| error.to_string())?;
        let Some(cask) = self.players[process].cask.clone() else { return Ok(()) };
        let found = read_all(&cask)?;
        let mut scene = self.scene();
        scene.history.commit(&found)?;
        let position = scene.history.position();
        if self.players[process].waits {
            scene.history.acknowledge(position);
        }
        drop(scene);
        if writes {
            self.players[process].wrote = Some(position);
        }
        Ok(())
    }

    /// Whether a handle shows what it should.
    fn look(&self, cask: &Cask) -> Outcome {
        let (found, scene) = (read_all(cask)?, self.scene());
        let expected = scene.history.last();
        if found == *expected { Ok(()) } else { Err(format!("read {found:?}, expected {expected:?}")) }
    }

    /// A process that is not one of the players puts something.
    fn put_durably(&self, cask: &Cask) -> Outcome {
        let history = &mut self.scene().history;
        history.created = true;
        let value = history.fresh();
        cask.put(KEYS[0], value.to_le_bytes()).map_err(|error| error.to_string())?;
        history.pending = Some(vec![(0, Some(value))]);
        history.commit(&read_all(cask)?)?;
        history.acknowledge(history.position());
        Ok(())
    }

    fn prepare(&mut self, prelude: Prelude) -> Outcome {
        if !matches!(prelude, Prelude::Nothing | Prelude::LostPages) {
            for process in 0..PROCESSES {
                self.act(process, Op::Put)?;
            }
        }
        let other = self.disk.process();
        let open = || Cask::open_on(Arc::new(other.clone()), STORE, &Config::new()).map_err(|error| error.to_string());
        match prelude {
            Prelude::Nothing | Prelude::Running => {}
            Prelude::Torn | Prelude::HalfCut => {
                let cask = open()?;
                // After this, the next write is the batch's own. 120 bytes are two records and a half.
                self.put_durably(&cask)?;
                other.fail(When::next().of(Verb::WriteAt).by(&other), Fault::Kill(120), Repeat::Once);
                let mut batch = Batch::new();
                for key in KEYS {
                    batch.put(key, [0xff; 16]);
                }
                cask.write(&batch).err().ok_or("the batch was to be torn")?;
                if prelude == Prelude::HalfCut {
                    let cutter = self.disk.process();
                    cutter.fail(When::next().of(Verb::Punch).by(&cutter), Fault::Kill(0), Repeat::Once);
                    let returned = Cask::open_on(Arc::new(cutter), STORE, &Config::new());
                    returned.err().ok_or("the cut was to be interrupted")?;
                }
            }
            Prelude::MovedInVain => {
                let disk = &self.players[1].disk;
                disk.fail(When::next().of(Verb::Rename).by(disk), Fault::Os(libc::EIO), Repeat::Once);
                self.cask(1)?.compact().err().ok_or("the compaction was to fail")?;
            }
            Prelude::Renamed => {
                let cask = open()?;
                // The first one is that of a handle that has not written yet, the second follows the rename.
                other.fail(When::nth(2).of(Verb::SyncDir).by(&other), Fault::Kill(0), Repeat::Once);
                cask.compact().err().ok_or("the compactor was to be killed")?;
            }
            Prelude::LostPages => {
                let cask = open()?;
                self.put_durably(&cask)?;
                other.fail(When::next().of(Verb::SyncData).by(&other), Fault::Os(libc::EIO), Repeat::Once);
                let mut scene = self.scene();
                let history = &mut scene.history;
                let value = history.fresh();
                cask.put(KEYS[0], value.to_le_bytes()).err().ok_or("the sync was to fail")?;
                history.pending = Some(vec![(0, Some(value))]);
                history.commit(&read_all(&cask)?)?;
            }
        }
        other.kill();
        self.disk.clear_faults();
        Ok(())
    }

    /// Closes everything and looks at what is left.
    fn end(&mut self) -> Outcome {
        for process in 0..PROCESSES {
            if let Some(cask) = self.players[process].cask.clone() {
                self.look(&cask)?;
                self.close(process)?;
            }
            self.check()?;
        }
        let cask = open_reader(&self.disk)?;
        self.look(&cask)
    }
}

impl Scene {
    /// Cuts the power at this moment in every way there is.
    fn cut(&mut self, disk: &SimDisk) {
        if self.failure.is_some() {
            return;
        }
        let oracle = self.history.fingerprint();
        let moment = combine(combine(disk.fingerprint(), oracle), 1 + self.generation as u64);
        if !self.seen.is_new(moment) {
            return;
        }
        self.seen.moments[self.generation].fetch_add(1, Ordering::Relaxed);
        let most = if self.generation == 0 { MOST_OUTCOMES } else { MOST_OUTCOMES / 8 };
        let mut fits = |&&sector: &&u64| {
            disk.set_sector(sector);
            disk.outcomes() <= most
        };
        let coarsest = SECTORS[SECTORS.len() - 1];
        let Some(&finest) = SECTORS.iter().find(&mut fits) else {
            // Too many ways: some of them, drawn from a number for this moment.
            self.seen.sampled.fetch_add(1, Ordering::Relaxed);
            disk.set_sector(finest_of(moment));
            for tried in 0..most {
                let mut choices = match tried {
                    0 => Choices::keep_nothing(),
                    1 => Choices::keep_all(),
                    _ => Choices::from_seed(moment.wrapping_add(tried)),
                };
                self.find(&disk.reboot(&mut choices), oracle, || format!("drawn, {tried}"));
            }
            return;
        };
        for sector in if finest < coarsest { vec![finest, coarsest] } else { vec![coarsest] } {
            disk.set_sector(sector);
            let mut choices = Choices::exhaustive();
            for tried in 0.. {
                self.find(&disk.reboot(&mut choices), oracle, || format!("sectors of {sector}, outcome {tried}"));
                if self.failure.is_some() || !choices.advance() {
                    break;
                }
            }
        }
    }

    /// This disk is found after a power cut.
    fn find(&mut self, found: &SimDisk, oracle: u64, what: impl FnOnce() -> String) {
        self.seen.outcomes.fetch_add(1, Ordering::Relaxed);
        let number = combine(found.fingerprint(), oracle);
        if self.failure.is_some() || !self.seen.is_new(combine(number, 0)) {
            return;
        }
        self.seen.cuts[self.generation].fetch_add(1, Ordering::Relaxed);
        if let Err(error) = live_on(found.clone(), &self.history, number, self.generation + 1, &self.seen) {
            self.failure = Some(format!("power cut, {}: {error}", what()));
        }
    }
}

/// One of the sizes that a sector may have.
fn finest_of(number: u64) -> u64 {
    SECTORS[(number % SECTORS.len() as u64) as usize]
}

fn open_reader(disk: &SimDisk) -> Result<Cask, String> {
    let config = Config::new().read_only(true);
    Cask::open_on(Arc::new(disk.process()), STORE, &config).map_err(|error| format!("a reader got: {error}"))
}

/// What was found after a power cut must be what the history allows, and work. All that is chosen here follows from
/// `number`.
fn live_on(found: SimDisk, history: &History, number: u64, generation: usize, seen: &Arc<Seen>) -> Outcome {
    found.reseed(number);
    let mut reader = None;
    let mut state = State::default();
    if found.stat(Path::new(STORE)).is_ok() {
        let cask = open_reader(&found)?;
        state = read_all(&cask)?;
        history.allows(&state)?;
        reader = Some(cask);
    } else if history.created {
        return Err(String::from("the store is gone"));
    }
    let history = history.after(state, reader.is_some());
    let waits = number & 1 == 0;
    let mut lab = Lab::new(found, [waits, true], history, generation, seen);
    if generation < GENERATIONS && (number >> 8) % NESTED_ONE_IN == 0 {
        lab.watch();
    }
    let ops: &[Op] = match (number >> 1) % 16 {
        0 => &[Op::Compact, Op::Put],
        1 | 2 => &[Op::Batch],
        3 => &[Op::Sync, Op::Swap],
        4 => &[],
        5 => &[Op::Put, Op::Compact],
        6 => &[Op::Delete, Op::Put],
        _ => &[Op::Put],
    };
    let cask = lab.cask(0);
    lab.check()?;
    lab.look(&cask.map_err(|error| format!("a writer got: {error}"))?)?;
    for &op in ops {
        lab.act(0, op)?;
        if let Some(reader) = &reader {
            lab.look(reader).map_err(|error| format!("a reader beside {op:?}: {error}"))?;
        }
    }
    drop(reader);
    let closed = lab.close(0);
    lab.check()?;
    closed?;
    let disk = &lab.disk;
    disk.clear_hooks();
    let stray = |path: &&Path| *path != Path::new(STORE) && !path.to_string_lossy().contains(".torn-");
    if let Some(path) = disk.paths().iter().map(|path| path.as_path()).find(stray) {
        return Err(format!("{} was left over", path.display()));
    }
    // Closing has made everything durable, whatever was configured.
    let last = open_reader(&disk.reboot(&mut Choices::keep_nothing()))?;
    lab.look(&last).map_err(|error| format!("opened again: {error}"))?;
    if (number >> 5) % 8 == 0 {
        let verified = last.verify().map_err(|error| format!("verify: {error}"))?;
        if verified.torn_bytes > 0 {
            return Err(format!("at the end: {verified:?}"));
        }
    }
    Ok(())
}

/// Lives through a world, and cuts the power at every call of its last operation, and after it: the calls before that
/// are those of a shorter world.
pub fn explore(world: &World, seen: &Arc<Seen>) -> Outcome {
    let mut lab = Lab::new(SimDisk::new(), world.waits, History::new(), 0, seen);
    lab.prepare(world.prelude).map_err(|error| format!("before it: {error}"))?;
    for (at, &(process, op)) in world.steps.iter().enumerate() {
        if at + 1 == world.steps.len() {
            lab.watch();
        }
        lab.act(process, op)?;
    }
    lab.disk.clear_hooks();
    lab.scene().cut(&lab.disk);
    lab.check()?;
    lab.end().map_err(|error| format!("at the end: {error}"))
}
