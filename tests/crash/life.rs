//! A simulated disk's life: processes come and go, and at every call that changes the disk the power may be cut.
//!
//! [`Life::step`] makes moves and compares what comes of them with the history. Before each call that changes the
//! disk, and after each step, copies of the disk are taken as a power cut might leave them, and each begins a life
//! of its own ([`recover`]): it must open, hold a state that the history allows, and work. In those lives, too, the
//! power may be cut.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caskfile::disk::Disk;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Error};

use crate::common::dice::Dice;
use crate::common::held::{Held, Holdings};
use crate::common::history::{BatchPart, Call, History, Key, Refusal, State, difference, predict};
use crate::common::ops::{Copying, Filler, Kept, Op, Part, Place, Previous, Setup, Value};
use crate::common::player::{
    Answer, Receipt, answer, ask, check_receipt, copy, index_of, look_at_copy, read_all, refusal, tell, together,
};
use crate::groups::{Answered, explain};
use crate::numbers;
use crate::plan::{Act, Calls, Failure, HANDLES, Move, Step};

pub const STORE: &str = "/store";

/// How the names of copies begin.
const COPY: &str = "/copy-";

/// The shortest file that can be a store: its header and an end mark.
const SHORTEST: usize = 72;

/// How many power cuts were tried out: in first lives, in the lives after those, and so on.
pub static CUTS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// How often the power is cut.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How many ways to be found after a power cut are tried at a call.
    pub outcomes: u32,
    /// Only at one call in this number.
    pub one_in: u64,
    /// How many lives may follow this one, each after a power cut in the one before.
    pub lives: u32,
    /// How many followed each other up to now.
    pub generation: usize,
    /// All possible states, up to this number, in sectors of the first size, before any random ones.
    pub exhaustive: Option<u32>,
    /// What survives a power cut whole or not at all, in bytes: one of these.
    pub sectors: &'static [u64],
    /// As `one_in`, in the lives that follow.
    pub later_one_in: u64,
}

impl Weather {
    pub const CALM: Weather = Weather {
        outcomes: 0,
        one_in: 1,
        lives: 0,
        generation: 0,
        exhaustive: None,
        sectors: &[1, 8, 8, 64, 512, 512, 4096],
        later_one_in: 12,
    };

    /// The weather in a life after a power cut.
    fn after(self) -> Weather {
        let (lives, generation) = (self.lives - 1, self.generation + 1);
        Weather { outcomes: 1, one_in: self.later_one_in, lives, generation, exhaustive: None, ..self }
    }
}

pub type Outcome = Result<(), String>;

#[derive(Clone)]
pub struct Life(Arc<Mutex<World>>);

struct Handle {
    cask: Cask,
    setup: Setup,
    disk: SimDisk,
    /// The last change of its own that was acknowledged.
    wrote: usize,
    /// A sync of the file has failed, here or elsewhere, and this process may not have seen the error yet.
    troubled: bool,
    poisoned: bool,
    /// It may have failed to give the lock up, and then has it until it is closed.
    sticky: bool,
}

/// The copy that a handle has made last, under a name of its own.
#[derive(Debug, Clone, Default)]
struct Copied {
    /// What it holds, if it is there.
    state: Option<Arc<State>>,
    /// It is there, and a power cut does not take it away.
    certain: bool,
    /// One is being made, and this was the newest state when that began.
    under_way: Option<(Copying, usize)>,
}

/// A call that has begun and not returned.
#[derive(Clone)]
struct Pending {
    call: Call,
    /// Once a process has seen what it wrote: the length of the history before that, and with it.
    seen: Option<(usize, usize)>,
}

struct World {
    disk: SimDisk,
    history: History,
    /// The calls under way, the outer one first.
    pending: Vec<Pending>,
    handles: [Option<Handle>; HANDLES],
    copies: [Copied; HANDLES],
    /// Where the store is to be, an empty file was to begin with.
    began_empty: bool,
    /// That there is a store was acknowledged.
    created: bool,
    weather: Weather,
    dice: Dice,
    /// The first thing that went wrong in a power cut, or in between.
    failure: Option<String>,
    /// Another process is at work between two calls of the one that makes a move. The number is that of its pending calls.
    interrupted: Option<usize>,
    /// At how many moments of this step the power might have been cut.
    moments: u64,
    /// Something was planned to go wrong in this move.
    disturbed: bool,
    /// The kernel has failed to write back, and a process that opens the file may still get the error.
    troubled: bool,
    /// Something may be only in the cache, and no sync will ever write it.
    dropped: bool,
    /// What each process holds while all of them go on.
    holdings: Vec<(SimDisk, Holdings)>,
    /// Decide what is held. Not the ones of the world, so that they go on as they would without it.
    holding: Dice,
    /// A thing more after every step, and not now and then.
    holds_often: bool,
}

impl World {
    fn acknowledge(&mut self, upto: usize) {
        self.created = true;
        self.history.durable_up_to(upto);
    }

    /// Whether a copy is what it may be: what it was when it was made, or a moment of the time in which it is made.
    fn fits_copy(&self, at: usize, found: &State) -> Outcome {
        let Copied { state, under_way, .. } = &self.copies[at];
        let Some((copying, from)) = *under_way else {
            let expected = state.as_ref().ok_or_else(|| String::from("a copy that was never made"))?;
            return if found == &**expected { Ok(()) } else { Err(difference(found, expected)) };
        };
        // With the changes that no process has seen yet, if it has them.
        let mut history = self.history.clone();
        history.durable = from;
        let returned = history.find(found, self.unseen()).map(drop);
        let moments = (from..=self.history.len()).map(|moment| self.history.state(moment));
        match copying {
            Copying::Salvage => returned.or_else(|error| {
                if moments.into_iter().any(|moment| is_salvaged_from(moment, found)) { Ok(()) } else { Err(error) }
            }),
            Copying::Backup | Copying::CompactTo => returned,
        }
    }

    /// Looks whether a copy is there, which must then be complete, and what it may be. It is looked at on a disk of its
    /// own, so that this one stays as it is.
    fn take_stock_of_copy(&mut self, at: usize) -> Result<bool, String> {
        let (path, elsewhere) = (copy_path(at), self.disk.fork());
        let state = if elsewhere.contents(&path).is_some() {
            let found = look_at_copy(Arc::new(elsewhere), &path, self.history.highest_seen)?;
            self.fits_copy(at, &found).map_err(|error| format!("{}: {error}", path.display()))?;
            Some(Arc::new(found))
        } else if self.copies[at].certain {
            return Err(format!("{} is gone", path.display()));
        } else {
            None
        };
        let there = state.is_some();
        self.copies[at] = Copied { state, ..Copied::default() };
        Ok(there)
    }

    /// The power has been cut: what is there of copies is there to stay.
    fn take_stock_of_copies(&mut self) -> Outcome {
        for at in 0..HANDLES {
            self.copies[at].certain = self.take_stock_of_copy(at)?;
        }
        Ok(())
    }

    /// The call that may have written something that no process has seen.
    fn unseen(&self) -> Option<&Call> {
        self.pending.last().filter(|pending| pending.seen.is_none()).map(|pending| &pending.call)
    }
}

/// Whether it is a state with some of what was written later: whole records of writes that were not acknowledged.
fn is_salvaged_from(state: &State, found: &State) -> bool {
    let highest = state.values().map(|pair| pair.index).max().unwrap_or(0);
    found.iter().all(|(key, pair)| state.get(key) == Some(pair) || pair.index > highest)
}

/// Where a handle makes its copies.
fn copy_path(at: usize) -> PathBuf {
    format!("{COPY}{at}").into()
}

impl Life {
    /// A life in calm weather, on a disk that has no store.
    pub fn new(disk: SimDisk, dice: Dice) -> Life {
        let holding = Dice::new(dice.clone().roll());
        Life(Arc::new(Mutex::new(World {
            began_empty: disk.contents(STORE).is_some(),
            disk,
            history: History::default(),
            pending: Vec::new(),
            handles: [const { None }; HANDLES],
            copies: Default::default(),
            created: false,
            weather: Weather::CALM,
            dice,
            failure: None,
            interrupted: None,
            moments: 0,
            disturbed: false,
            troubled: false,
            dropped: false,
            holdings: Vec::new(),
            holding,
            holds_often: false,
        })))
    }

    /// Lets a process hold a thing more after every step.
    pub fn hold_often(&self) {
        self.world().holds_often = true;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn disk(&self) -> SimDisk {
        self.world().disk.clone()
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(self.world().history.last())
    }

    /// Changes the weather from here on.
    pub fn weather(&self, weather: Weather) {
        self.world().weather = weather;
        self.disk().clear_hooks();
        self.watch();
    }

    /// Cuts the power at the disk's calls from here on.
    fn watch(&self) {
        let world = self.world();
        if world.weather.lives == 0 {
            return;
        }
        for verb in Verb::CHANGING {
            // The disk belongs to the life, so the life must not belong to the disk.
            let life = Arc::downgrade(&self.0);
            world.disk.before(When::next().of(verb), Repeat::Forever, move |_| {
                if let Some(world) = life.upgrade() {
                    Life(world).cut(&format!("before a call to {verb:?}"));
                }
            });
        }
    }

    /// Tries out power cuts at this moment.
    pub fn cut(&self, place: &str) {
        let mut world = self.world();
        let Weather { outcomes, one_in, lives, exhaustive, sectors, .. } = world.weather;
        // A long value that is written byte by byte would take hours: from some moment on, ever fewer are tried.
        world.moments += 1;
        let thinner = (world.moments / 200).max(1);
        if lives == 0 || world.failure.is_some() || !world.dice.one_in(one_in * thinner) {
            return;
        }
        if let Err(error) = numbers::check(&world.disk) {
            world.failure.get_or_insert(format!("{place}: {error}"));
            return;
        }
        if let Some(most) = exhaustive {
            let sector = sectors[0];
            let mut choices = Choices::exhaustive();
            for tried in 0..most {
                world.disk.set_sector(sector);
                let disk = world.disk.reboot(&mut choices);
                world = self.found(world, disk, || format!("{place}, sectors of {sector}, outcome {tried} of all"));
                if world.failure.is_some() {
                    return;
                }
                if !choices.advance() {
                    break;
                }
            }
        }
        for _ in 0..outcomes {
            let (sector, garbage) = (world.dice.choose(sectors), world.dice.one_in(4));
            world.disk.set_sector(sector);
            world.disk.set_garbage(garbage);
            let seed = world.dice.below(1 << 32);
            let (mut choices, kept) = match world.dice.below(6) {
                0 => (Choices::keep_nothing(), String::from("nothing kept")),
                1 => (Choices::keep_all(), String::from("all kept")),
                _ => (Choices::from_seed(seed), format!("some kept, by {seed}")),
            };
            let disk = world.disk.reboot(&mut choices);
            world = self.found(world, disk, || format!("{place}, sectors of {sector}, garbage {garbage}, {kept}"));
            if world.failure.is_some() {
                return;
            }
        }
    }

    /// Begins the life of a disk that was found after a power cut.
    fn found<'w>(
        &'w self,
        mut world: MutexGuard<'w, World>,
        disk: SimDisk,
        what: impl FnOnce() -> String,
    ) -> MutexGuard<'w, World> {
        CUTS[world.weather.generation].fetch_add(1, Ordering::Relaxed);
        let dice = Dice::new(world.dice.roll());
        let life = Life(Arc::new(Mutex::new(World {
            disk,
            history: world.history.clone(),
            pending: world.pending.last().filter(|pending| pending.seen.is_none()).cloned().into_iter().collect(),
            handles: [const { None }; HANDLES],
            copies: world.copies.clone(),
            weather: world.weather.after(),
            dice: dice.clone(),
            failure: None,
            interrupted: None,
            moments: 0,
            disturbed: false,
            troubled: false,
            dropped: false,
            holdings: Vec::new(),
            holding: dice.clone(),
            holds_often: false,
            ..*world
        })));
        drop(world);
        life.watch();
        let outcome = recover(&life, dice);
        world = self.world();
        if let Err(error) = outcome {
            world.failure.get_or_insert(format!("power cut {}:\n{error}", what()));
        }
        world
    }

    /// What went wrong in a power cut, if anything did.
    fn check(&self) -> Outcome {
        self.world().failure.take().map_or(Ok(()), Err)
    }

    pub fn step(&self, step: &Step) -> Outcome {
        self.world().moments = 0;
        let outcome = match step {
            Step::Calm(act) => self.act(act),
            Step::Kill { at, calls, written, during } => self.kill(*at, *calls, *written, during),
            Step::Fail { at, calls, failure, forever, during } => self.fail(*at, *calls, *failure, *forever, during),
            Step::Between { at, during, other } => self.between(*at, during, other),
            Step::PowerCut(seed) => self.power_cut(&mut Choices::from_seed(*seed)),
            Step::CachesDropped => self.drop_caches(),
            Step::WritebackFails => self.fail_writeback(),
        };
        // What went wrong in a power cut came first.
        self.check()?;
        outcome?;
        self.hold()?;
        self.go_on_holding()?;
        self.cut("after it");
        self.check()
    }

    /// Lets one of the open handles hold a scan or a value, now and then.
    fn hold(&self) -> Outcome {
        let mut world = self.world();
        let world = &mut *world;
        let handles = if world.holds_often { 1 } else { 2 } * HANDLES as u64;
        let at = world.holding.below(handles) as usize;
        // What a process has half written may be seen from now on or not.
        let Some(handle) = world.handles.get(at).and_then(Option::as_ref).filter(|_| world.pending.is_empty()) else {
            return Ok(());
        };
        let (cask, disk) = (handle.cask.clone(), handle.disk.clone());
        let now = Arc::clone(world.history.last());
        let held = match Held::begin(&cask, &mut world.holding, &[&now]) {
            Ok(Some(held)) => held,
            Ok(None) | Err(Error::Io { .. } | Error::Poisoned { .. }) => return Ok(()),
            Err(error) => return Err(format!("to be held: {error}")),
        };
        let known = world.holdings.iter().position(|(process, _)| process.is_same_process(&disk));
        let known = known.unwrap_or_else(|| {
            world.holdings.push((disk, Holdings::default()));
            world.holdings.len() - 1
        });
        world.holdings[known].1.add(held)
    }

    /// Looks at all that is held. What a process holds ends with it, and with the power.
    fn go_on_holding(&self) -> Outcome {
        let mut holdings = std::mem::take(&mut self.world().holdings);
        holdings.retain(|(process, _)| process.is_alive());
        let outcome = holdings.iter_mut().try_for_each(|(_, holdings)| holdings.go_on());
        self.world().holdings = holdings;
        outcome
    }

    /// Makes a move in which nothing is made to go wrong.
    pub fn act(&self, act: &Move) -> Outcome {
        let returned = self.play(act, |_| {})?;
        self.judge(act, returned)
    }

    /// What is to be said of a move that nothing was planned to disturb.
    fn judge(&self, act: &Move, returned: Result<(), Error>) -> Outcome {
        let at = act.handle;
        match returned {
            Ok(()) => Ok(()),
            Err(Error::LockTimeout { .. }) if self.is_locked(at) => {
                self.forget_pending();
                Ok(())
            }
            // Of a compaction that this one came in between.
            Err(Error::CompactionOvertaken { .. }) if self.world().interrupted.is_some() => {
                self.forget_pending();
                Ok(())
            }
            Err(error @ Error::Poisoned { .. }) if act.act == Act::Call(Op::Reopen) && !self.world().troubled => {
                Err(format!("it cannot be reopened: {error}"))
            }
            Err(Error::Poisoned { .. }) if self.may_be_poisoned(at) => self.observe(false),
            Err(Error::Io { source, .. }) if self.finds_nothing(act, &source) => Ok(()),
            Err(error) => Err(format!("{act:?}: {error}")),
        }
    }

    /// A reader cannot open a store that does not exist.
    fn finds_nothing(&self, act: &Move, source: &std::io::Error) -> bool {
        let reader = matches!(act.act, Act::Open(Setup { read_only: true, .. }));
        reader && source.kind() == std::io::ErrorKind::NotFound && !self.world().created
    }

    fn may_be_poisoned(&self, at: usize) -> bool {
        let mut world = self.world();
        let troubled = world.troubled;
        // The opening may have returned the error already.
        let Some(handle) = &mut world.handles[at] else { return troubled };
        handle.poisoned |= handle.troubled;
        handle.poisoned
    }

    fn forget_pending(&self) {
        let mut world = self.world();
        let outer = world.interrupted.unwrap_or(0);
        world.pending.truncate(outer);
    }

    /// Makes a move, after `disturb` was shown whose calls it will make. An error of the store's is for the caller
    /// to judge; then the call may still be pending.
    fn play(&self, act: &Move, disturb: impl FnOnce(&SimDisk)) -> Result<Result<(), Error>, String> {
        let at = act.handle;
        if matches!(act.act, Act::Open(_)) {
            self.close(at)?;
        }
        let existing = self.world().handles[at].as_ref().map(|handle| handle.disk.clone());
        let disk = existing.clone().unwrap_or_else(|| self.process());
        disturb(&disk);
        match &act.act {
            Act::Open(setup) => Ok(self.open(at, *setup, &disk)),
            Act::Close => {
                self.close(at)?;
                Ok(Ok(()))
            }
            Act::Call(op) => {
                if existing.is_none() {
                    if let Err(error) = self.open(at, Setup::DEFAULT, &disk) {
                        return Ok(Err(error));
                    }
                }
                self.call(at, op)
            }
        }
    }

    /// A process that is about to begin.
    fn process(&self) -> SimDisk {
        self.world().disk.process()
    }

    fn open(&self, at: usize, setup: Setup, disk: &SimDisk) -> Result<(), Error> {
        let there = disk.contents(STORE).is_some_and(|bytes| !bytes.is_empty());
        let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &setup.config())?;
        let mut world = self.world();
        // A process may find a store whose name a later power cut takes away.
        world.created |= !there;
        let disk = disk.clone();
        world.handles[at] =
            Some(Handle { cask, setup, disk, wrote: 0, troubled: world.troubled, poisoned: false, sticky: false });
        Ok(())
    }

    /// Whether another process may have the lock for longer than this thread can wait.
    fn is_locked(&self, at: usize) -> bool {
        let world = self.world();
        let mut others = world.handles.iter().enumerate().filter(|(other, _)| *other != at);
        let exclusive = |handle: &Handle| (handle.setup.exclusive || handle.sticky) && !handle.setup.read_only;
        world.interrupted.is_some() || others.any(|(_, handle)| handle.as_ref().is_some_and(exclusive))
    }

    /// Closes a handle; errors are the disk's, if there were any.
    fn close(&self, at: usize) -> Outcome {
        let locked = self.is_locked(at);
        let Some(handle) = self.take(at) else { return Ok(()) };
        if handle.sticky {
            // A scan keeps the file open, and with it a lock that could not be given up.
            self.world().holdings.retain(|(process, _)| !process.is_same_process(&handle.disk));
        }
        match handle.cask.close() {
            Ok(()) if locked || handle.poisoned || handle.troubled => {}
            Ok(()) if handle.wrote > 0 => self.world().acknowledge(handle.wrote),
            Ok(()) => {}
            Err(Error::Poisoned { .. }) if handle.troubled || handle.poisoned => {}
            Err(Error::Io { .. } | Error::Poisoned { .. }) if self.world().disturbed => {}
            Err(error) => return Err(format!("close: {error}")),
        }
        Ok(())
    }

    fn take(&self, at: usize) -> Option<Handle> {
        self.world().handles[at].take()
    }

    /// Makes a call and compares what it says with the history, unless it fails for reasons that lie in the disk.
    fn call(&self, at: usize, op: &Op) -> Result<Result<(), Error>, String> {
        let (cask, setup, poisoned, call, from);
        {
            let mut world = self.world();
            let world = &mut *world;
            let Some(handle) = &world.handles[at] else { return Ok(Ok(())) };
            (cask, setup, poisoned) = (handle.cask.clone(), handle.setup, handle.poisoned);
            call = world.history.call(op, || world.disk.contents(STORE).unwrap_or_default());
            from = world.history.len();
            if !call.is_read() {
                world.pending.push(Pending { call: call.clone(), seen: None });
            }
        }
        if let Call::Copy(copying) = call {
            return self.copy(at, &cask, copying, from);
        }
        if call.is_read() {
            return match ask(&cask, &call) {
                Ok(said) => self.check_answer(&call, &said, from).map(Ok),
                Err(error) => Ok(Err(error)),
            };
        }
        let (returned, group) = match &call {
            Call::Group(batches) => match together(&cask, batches) {
                Ok(answers) => (Ok(Receipt::default()), Some((batches, answers))),
                Err(error) => (Err(error), None),
            },
            _ => (tell(&cask, &call), None),
        };
        // What follows are this test's own questions: no process comes in between, and nothing fails.
        let disk = self.disk();
        disk.clear_faults();
        disk.clear_hooks();
        self.watch();
        if let Some((batches, answers)) = group.filter(|_| !poisoned) {
            return self.group(at, &cask, setup, batches, &answers, from);
        }
        let mut world = self.world();
        let world = &mut *world;
        let receipt = match returned {
            Ok(receipt) if poisoned && call != Call::Reopen => {
                return Err(format!("{receipt:?} from a poisoned handle"));
            }
            Ok(receipt) => receipt,
            Err(error) => {
                let Some(refused) = Refusal::of(&error) else { return Ok(Err(error)) };
                world.pending.pop();
                let possible = (from..=world.history.len())
                    .any(|at| refusal(&call, world.history.state(at), setup.read_only).as_ref() == Some(&refused));
                return if possible { Ok(Ok(())) } else { Err(format!("refused: {error}")) };
            }
        };
        let seen = world.pending.pop().and_then(|pending| pending.seen);
        let position = if let Some((_, position)) = seen {
            position
        } else {
            let changes = predict(&call, world.history.last());
            let changes = changes.map_err(|refused| format!("{receipt:?} instead of {refused:?}"))?;
            let look = |key: &Key| index_of(&cask, key).map_err(|error| error.to_string());
            let last_put = match changes.last() {
                Some((key, Some(_))) => match index_of(&cask, key) {
                    // It was killed at its last call, when it gave the lock up, so its write was not acknowledged.
                    Err(error) if world.disturbed => {
                        world.pending.push(Pending { call, seen: None });
                        return Ok(Err(error));
                    }
                    found => found.map_err(|error| error.to_string())?,
                },
                _ => None,
            };
            check_receipt(&receipt, changes.len(), last_put, world.history.highest_seen)?;
            if changes.is_empty() { from } else { world.history.commit(&changes, look)? }
        };
        world.history.highest_seen = world.history.highest_seen.max(receipt.index.unwrap_or(0));
        if let Some(handle) = world.handles[at].as_mut().filter(|_| position > from) {
            handle.wrote = position;
        }
        if call == Call::Reopen {
            let troubled = world.troubled;
            if let Some(handle) = &mut world.handles[at] {
                // What it wrote before it failed is no longer promised.
                let wrote = if handle.poisoned || handle.troubled { 0 } else { handle.wrote };
                *handle =
                    Handle { cask, setup, disk: handle.disk.clone(), wrote, troubled, poisoned: false, sticky: false };
            }
        }
        if receipt.cancelled && !world.disturbed {
            let leftover = |path: &PathBuf| path.to_string_lossy().starts_with("/store.tmp-");
            if let Some(path) = world.disk.paths().into_iter().find(leftover) {
                return Err(format!("{} was left by a compaction that was cancelled", path.display()));
            }
        }
        let acknowledges = setup.durability == Kept::Sync && call.commits();
        let compacted = matches!(call, Call::Compact | Call::CompactUntil(_)) && !receipt.cancelled;
        if acknowledges || compacted || call == Call::Sync {
            world.acknowledge(position);
        }
        Ok(Ok(()))
    }

    /// Compares what the batches of a group were answered, errors included, with what another process finds in the log.
    fn group(
        &self,
        at: usize,
        cask: &Cask,
        setup: Setup,
        batches: &[Vec<BatchPart>],
        answers: &[Result<Option<u64>, Error>],
        from: usize,
    ) -> Result<Result<(), Error>, String> {
        let found = self.look()?;
        let mut world = self.world();
        let world = &mut *world;
        let seen = world.pending.pop().and_then(|pending| pending.seen);
        let before = seen.map_or(world.history.len(), |(before, _)| before);
        let said: Vec<_> = answers.iter().map(Answered::of).collect();
        let states = explain(world.history.state(before), batches, &said, &found).ok_or_else(|| {
            format!("{said:?}, and the log went on with {}", difference(&found, world.history.state(before)))
        })?;
        let changed = !states.is_empty();
        // With small limits these are several groups, and the sync of a later one may have failed.
        let acknowledged = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
        let in_doubt_at_the_end = states.len().saturating_sub(acknowledged);
        let position = match seen {
            Some((_, position)) => position,
            None if changed => world.history.take_in(states, &found)?,
            None => from,
        };
        let highest = answers.iter().flatten().flatten().max().copied().unwrap_or(0);
        world.history.highest_seen = world.history.highest_seen.max(highest);
        match read_all(cask) {
            Ok(shown) if shown != found => return Err(format!("its own handle shows {}", difference(&shown, &found))),
            // It was killed.
            Err(error) if !world.disturbed => return Err(error.to_string()),
            _ => {}
        }
        if let Some(handle) = world.handles[at].as_mut().filter(|_| changed) {
            handle.wrote = position;
        }
        if setup.durability == Kept::Sync && answers.iter().any(Result::is_ok) {
            world.acknowledge(position - in_doubt_at_the_end);
        }
        let errors = || answers.iter().filter_map(|answer| answer.as_ref().err());
        let in_doubt = errors().find(|error| matches!(error, Error::Poisoned { .. }));
        match in_doubt.or_else(|| errors().find(|error| Refusal::of(error).is_none())) {
            Some(error) => Ok(Err(error.clone())),
            None => Ok(Ok(())),
        }
    }

    /// Makes a copy in place of the one that the handle has made before.
    fn copy(&self, at: usize, cask: &Cask, copying: Copying, from: usize) -> Result<Result<(), Error>, String> {
        let (to, process) = (copy_path(at), self.process());
        if process.contents(&to).is_some() {
            self.world().copies[at].certain = false;
            process.remove(&to).and_then(|()| process.sync_dir(Path::new("/"))).map_err(|error| error.to_string())?;
        }
        let disk = {
            let mut world = self.world();
            world.copies[at] = Copied { under_way: Some((copying, from)), ..Copied::default() };
            world.handles[at].as_ref().map_or_else(|| world.disk.process(), |handle| handle.disk.clone())
        };
        let returned = copy(cask, copying, &disk, Path::new(STORE), &to);
        if returned.as_ref().is_ok_and(|made| made.of_one_moment) {
            self.world().copies[at].under_way = Some((Copying::Backup, from));
        }
        if self.world().unseen().is_some() {
            self.observe(true)?;
        }
        self.world().take_stock_of_copy(at).map_err(|error| format!("{copying:?}: {error}"))?;
        let mut world = self.world();
        if let Ok(made) = &returned {
            let found = world.copies[at].state.as_ref().ok_or_else(|| format!("{copying:?}: there is no copy"))?;
            made.check(found).map_err(|error| format!("{copying:?}: {error}"))?;
        }
        world.copies[at].certain = returned.is_ok();
        let leftover = |path: &PathBuf| path.to_string_lossy().starts_with(&format!("{}.tmp-", to.display()));
        if let Some(path) = world.disk.paths().into_iter().find(leftover).filter(|_| !world.disturbed) {
            return Err(format!("{copying:?}: {} was left over", path.display()));
        }
        Ok(returned.map(drop))
    }

    /// A read may have seen any state that there was while it was under way.
    fn check_answer(&self, call: &Call, said: &Answer, from: usize) -> Outcome {
        let fits =
            |world: &World| (from..=world.history.len()).any(|at| answer(call, world.history.state(at)) == *said);
        if fits(&self.world()) {
            return Ok(());
        }
        // Or what another process is just writing, which it has then made known.
        if self.world().unseen().is_some() {
            self.observe(true)?;
        }
        let world = self.world();
        if fits(&world) {
            return Ok(());
        }
        Err(format!("{call:?} said {said:?}, expected {:?}", answer(call, world.history.last())))
    }

    /// Looks whether what is under way has come to be seen; `going_on` if its caller has not returned yet.
    fn observe(&self, going_on: bool) -> Outcome {
        let found = self.look()?;
        self.compare(&found, going_on).map_err(|error| format!("an observer found: {error}"))
    }

    /// What another process finds.
    fn look(&self) -> Result<State, String> {
        let disk = self.process();
        if disk.contents(STORE).is_none_or(|bytes| bytes.is_empty()) {
            return Ok(State::new());
        }
        let found = Cask::open_on(Arc::new(disk), STORE, &Setup::READER.config()).and_then(|cask| read_all(&cask));
        found.map_err(|error| format!("an observer got: {error}"))
    }

    fn compare(&self, found: &State, going_on: bool) -> Outcome {
        let mut world = self.world();
        let world = &mut *world;
        if *found != **world.history.last() {
            let Some(call) = world.unseen().cloned() else {
                return Err(difference(found, world.history.last()));
            };
            // There was no power cut, so an older state is not allowed: one that is equal to it came from the call.
            let before = world.history.len();
            let at = world
                .history
                .advance(found, &call)
                .map_err(|why| format!("{}\n{why}", difference(found, world.history.last())))?;
            if let Some(pending) = world.pending.last_mut() {
                pending.seen = Some((before, at));
            }
        }
        if !going_on {
            world.pending.truncate(world.interrupted.unwrap_or(0));
        }
        Ok(())
    }

    fn kill(&self, at: u8, calls: Calls, written: u16, during: &Move) -> Outcome {
        let mut victim = None;
        self.world().disturbed = true;
        let returned = self.play(during, |disk| {
            calls.plan(disk, at, Fault::Kill(usize::from(written)), Repeat::Once);
            victim = Some(disk.clone());
        });
        // At the latest now.
        if let Some(victim) = victim {
            victim.kill();
        }
        self.world().disk.clear_faults();
        self.world().disturbed = false;
        drop(self.take(during.handle));
        match returned? {
            Err(error @ (Error::Corrupt { .. } | Error::NotCaskfile { .. } | Error::Other(_))) => {
                Err(format!("{during:?}: {error}"))
            }
            _ => self.observe(false),
        }
    }

    fn fail(&self, at: u8, calls: Calls, failure: Failure, forever: bool, during: &Move) -> Outcome {
        let fault = match failure {
            Failure::InputOutput => Fault::Os(libc::EIO),
            Failure::NoSpace => Fault::Os(libc::ENOSPC),
            Failure::TooLarge => Fault::Os(libc::EFBIG),
            Failure::Short(bytes) | Failure::ShortAndFull(bytes) => Fault::Short(usize::from(bytes)),
        };
        let repeat = if forever { Repeat::Forever } else { Repeat::Once };
        let syncs_may_fail = matches!(calls, Calls::Any | Calls::Syncs) && !matches!(failure, Failure::Short(_));
        {
            let mut world = self.world();
            world.disturbed = true;
            let seed = world.dice.roll();
            world.disk.set_failed_syncs(match seed % 3 {
                0 => Choices::keep_nothing(),
                1 => Choices::keep_all(),
                _ => Choices::from_seed(seed),
            });
        }
        let returned = self.play(during, |disk| {
            if let Failure::ShortAndFull(_) = failure {
                calls.plan(disk, at, fault, Repeat::Once);
                return calls.plan(disk, at + 1, Fault::Os(libc::ENOSPC), repeat);
            }
            calls.plan(disk, at, fault, repeat);
        });
        {
            let mut world = self.world();
            world.disk.clear_faults();
            world.disturbed = false;
            // A failed sync of one process is reported to all that have the file open, once.
            world.handles.iter_mut().flatten().for_each(|handle| handle.troubled |= syncs_may_fail);
            world.dropped |= syncs_may_fail;
            if let Some(handle) = &mut world.handles[during.handle] {
                handle.sticky |= calls == Calls::Any;
            }
        }
        match returned? {
            Ok(()) => Ok(()),
            Err(Error::Poisoned { .. }) => {
                if let Some(handle) = &mut self.world().handles[during.handle] {
                    handle.poisoned = true;
                }
                self.observe(false)
            }
            Err(Error::Io { .. } | Error::CompactionRefused { .. }) => {
                // Nothing was written, or it was cut off again.
                self.forget_pending();
                self.observe(false)
            }
            returned => self.judge(during, returned),
        }
    }

    fn between(&self, at: u8, during: &Move, other: &Move) -> Outcome {
        if during.handle == other.handle {
            self.act(during)?;
            return self.act(other);
        }
        // The other one is there before, so that its opening is not what happens in between.
        if matches!(other.act, Act::Call(_)) && self.world().handles[other.handle].is_none() {
            let opening = Move { handle: other.handle, act: Act::Open(Setup::DEFAULT) };
            self.act(&opening)?;
        }
        let returned = self.play(during, |disk| {
            let life = Arc::downgrade(&self.0);
            let other = other.clone();
            disk.before(When::nth(u64::from(at)).by(disk), Repeat::Once, move |_| {
                let Some(world) = life.upgrade() else { return };
                let life = Life(world);
                if let Err(error) = life.interrupt(&other) {
                    life.world().failure.get_or_insert(format!("in between: {error}"));
                }
            });
        });
        self.disk().clear_hooks();
        self.watch();
        self.check()?;
        // The other one may have closed its handle, have had the lock by the time this one tried, or have cut or replaced
        // the log that this one was compacting.
        let returned = returned?;
        let had_the_lock = matches!(returned, Err(Error::LockTimeout { .. })) && self.is_locked(during.handle);
        let overtaken = matches!(returned, Err(Error::CompactionOvertaken { .. })) && !other.act.only_reads();
        if had_the_lock || overtaken {
            self.forget_pending();
            return Ok(());
        }
        self.judge(during, returned)
    }

    fn interrupt(&self, other: &Move) -> Outcome {
        // What the outer one has written may be seen already: then it comes before what this one does. If it is not
        // to be seen, it is not written, or its lock keeps this one from writing.
        self.observe(true)?;
        {
            let mut world = self.world();
            world.interrupted = Some(world.pending.len());
        }
        let outcome = self.act(other);
        self.world().interrupted = None;
        self.go_on_holding()?;
        outcome
    }

    /// Cuts the power for good, and goes on with what is found.
    fn power_cut(&self, choices: &mut Choices) -> Outcome {
        let disk = self.disk().reboot(choices);
        let at = self.start_over(disk)?;
        let mut world = self.world();
        world.history.durable_up_to(at);
        world.dropped = false;
        Ok(())
    }

    fn drop_caches(&self) -> Outcome {
        let handles = std::mem::take(&mut self.world().handles);
        for handle in handles.into_iter().flatten() {
            handle.disk.kill();
        }
        let disk = self.disk().fork();
        disk.drop_caches();
        // What was written and not synced is in the cache as before, unless the disk has failed to take it.
        let newest = self.world().history.len();
        let at = self.start_over(disk)?;
        if at < newest && !self.world().dropped {
            return Err(format!("of {newest} states, the {at}th is left, though nothing was dropped"));
        }
        Ok(())
    }

    fn fail_writeback(&self) -> Outcome {
        let mut world = self.world();
        world.disk.set_failed_syncs(Choices::keep_nothing());
        world.disk.fail_writeback(STORE);
        (world.troubled, world.dropped) = (true, true);
        world.handles.iter_mut().flatten().for_each(|handle| handle.troubled = true);
        Ok(())
    }

    /// Goes on with what is left, and says which state that is.
    fn start_over(&self, disk: SimDisk) -> Result<usize, String> {
        let (old, handles) = {
            let mut world = self.world();
            world.troubled = false;
            (std::mem::replace(&mut world.disk, disk), std::mem::take(&mut world.handles))
        };
        old.clear_hooks();
        old.cut();
        drop(handles);
        self.watch();
        self.world().take_stock_of_copies()?;
        self.take_stock(Setup::DEFAULT)
    }

    /// Opens what is left, and finds out which state it is.
    fn take_stock(&self, setup: Setup) -> Result<usize, String> {
        self.open(0, setup, &self.process()).map_err(|error| format!("after a power cut: {error}"))?;
        let cask = self.world().handles[0].as_ref().map(|handle| handle.cask.clone());
        let cask = cask.ok_or("it was just opened")?;
        let found = read_all(&cask).map_err(|error| format!("after a power cut: {error}"))?;
        self.settle(&found)
    }

    /// This was found when all processes had died.
    fn settle(&self, found: &State) -> Result<usize, String> {
        let mut world = self.world();
        let pending = world.unseen().cloned();
        let at = world.history.find(found, pending.as_ref())?;
        world.history.settle_at(at);
        world.pending.clear();
        Ok(at)
    }

    /// Closes everything and looks at the store once more.
    pub fn end(&self) -> Outcome {
        for at in 0..HANDLES {
            self.close(at)?;
        }
        self.check()?;
        self.observe(true)?;
        let holdings = std::mem::take(&mut self.world().holdings);
        let alive = holdings.into_iter().filter(|(process, _)| process.is_alive());
        alive.into_iter().try_for_each(|(_, mut holdings)| holdings.finish())?;
        self.disk().clear_hooks();
        Ok(())
    }
}

impl Calls {
    /// Plans a fault at the `at`-th of these calls of a process: of each kind, if there are several.
    fn plan(self, disk: &SimDisk, at: u8, fault: Fault, repeat: Repeat) {
        let verbs: &[Verb] = match self {
            Calls::Any => return disk.fail(When::nth(u64::from(at)).by(disk), fault, repeat),
            Calls::Writes => &[Verb::WriteAt],
            Calls::Lengths => &[Verb::SetLen, Verb::Punch],
            Calls::Syncs => &[Verb::SyncData, Verb::SyncAll, Verb::SyncDir],
            Calls::Reads => &[Verb::ReadAt, Verb::NextData, Verb::DataEnd, Verb::Len],
            Calls::Names => &[Verb::Rename, Verb::Link, Verb::Remove, Verb::Stat, Verb::CreateNew],
        };
        for &verb in verbs {
            disk.fail(When::nth(u64::from(at)).of(verb).by(disk), fault, repeat);
        }
    }
}

/// A disk that was found after a power cut must hold what the history says, and work.
fn recover(life: &Life, mut dice: Dice) -> Outcome {
    let disk = life.disk();
    let before = disk.contents(STORE);
    let there = before.as_ref().is_some_and(|bytes| !bytes.is_empty());
    match &before {
        Some(bytes) if there && bytes.len() < SHORTEST => {
            return Err(format!("a file of {} bytes was left", bytes.len()));
        }
        Some(_) if !there && !life.world().began_empty => return Err(String::from("an empty file was left")),
        _ if !there && life.world().created => return Err(String::from("the store is gone")),
        _ => {}
    }
    life.world().take_stock_of_copies()?;
    // A reader sees what a writer will find, and changes nothing.
    let mut reader = None;
    if there && dice.one_in(3) {
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &Setup::READER.config());
        let cask = cask.map_err(|error| format!("a reader got: {error}"))?;
        let found = read_all(&cask).map_err(|error| format!("a reader got: {error}"))?;
        let at = life.settle(&found).map_err(|error| format!("a reader found: {error}"))?;
        life.world().history.durable_up_to(at);
        if disk.contents(STORE) != before {
            return Err(String::from("a reader has changed the file"));
        }
        reader = Some(cask);
    }
    let durability = dice.choose(&[Kept::Sync, Kept::Sync, Kept::Os]);
    let setup = Setup { durability, exclusive: dice.one_in(8), pread: dice.one_in(4), read_only: false };
    let outcome = life.take_stock(setup).and_then(|at| {
        life.world().history.durable_up_to(at);
        use_it(life, &reader, &mut dice)
    });
    life.check()?;
    outcome.map_err(|error| format!("{setup:?}: {error}"))?;
    // With any durability, closing has made it durable, and left no other file.
    let expected = |name: &str| name == STORE || name.contains(".torn-") || name.starts_with(COPY);
    let stray = |path: &&Path| !expected(&path.to_string_lossy());
    if let Some(path) = disk.paths().iter().map(|path| path.as_path()).find(stray) {
        return Err(format!("{} was left over", path.display()));
    }
    let last = if dice.one_in(3) { disk.reboot(&mut Choices::keep_nothing()) } else { disk.process() };
    let expected = life.state();
    let cask = Cask::open_on(Arc::new(last), STORE, &Setup::READER.config());
    let cask = cask.map_err(|error| format!("opened again: {error}"))?;
    let found = read_all(&cask).map_err(|error| format!("opened again: {error}"))?;
    if found != *expected {
        return Err(format!("opened again: {}", difference(&found, &expected)));
    }
    let verified = cask.verify().map_err(|error| format!("verify at the end: {error}"))?;
    if verified.torn_bytes > 0 || verified.keys != expected.len() as u64 {
        return Err(format!("at the end: {verified:?}"));
    }
    disk.clear_hooks();
    Ok(())
}

/// Writes to the store that was recovered in handle 0, beside a reader that had it open before, and closes it.
fn use_it(life: &Life, reader: &Option<Cask>, dice: &mut Dice) -> Outcome {
    life.check()?;
    let cask = life.world().handles[0].as_ref().map(|handle| handle.cask.clone()).ok_or("it is open")?;
    let verified = cask.verify().map_err(|error| format!("verify: {error}"))?;
    if verified.torn_bytes > 0 {
        return Err(format!("after recovery: {verified:?}"));
    }
    drop(cask);
    let value = Value { len: 8 + dice.below(40) as u32, filler: dice.choose(&[Filler::Noise, Filler::Zeros]) };
    let place = Place { bucket: 0, key: dice.below(4) as usize };
    let ops = match dice.below(10) {
        0 => vec![Op::Compact, Op::Put(place, value)],
        1 => vec![Op::Write(vec![Part::Put(place, value), Part::Delete(Place { bucket: 0, key: 1 })])],
        2 => vec![Op::AtomicPut(place, value, Previous::Current)],
        3 => vec![Op::Put(place, value), Op::Sync],
        4 => vec![],
        5 => {
            vec![Op::Put(place, value), Op::Copy(dice.choose(&[Copying::Backup, Copying::CompactTo, Copying::Salvage]))]
        }
        6 => vec![Op::CompactUntil(0), Op::Reopen, Op::Put(place, value)],
        _ => vec![Op::Put(place, value)],
    };
    for op in ops {
        let what = format!("beside it, {op:?}");
        let act = Move { handle: 0, act: Act::Call(op) };
        life.act(&act)?;
        life.check()?;
        if let Some(reader) = reader {
            let found = read_all(reader).map_err(|error| format!("{what}: {error}"))?;
            life.compare(&found, true).map_err(|error| format!("{what}: {error}"))?;
        }
    }
    life.close(0)
}
