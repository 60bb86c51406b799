//! Sessions and locks, beside everything else that happens to a store, with clocks that are set at any call.
//!
//! Random lives of three processes on one store, one monotonic clock and one wall clock. Before some call of a process to the disk, its
//! process stands still: the clock goes on, and others read, write and take locks meanwhile. Processes are killed, the power is cut,
//! the store is compacted under its holders, handles are reopened. The test knows nothing of the log. It knows which process has got which lock
//! with which token, and asks after each call:
//!
//! - when a lock is taken, no other process holds it by its own clock;
//! - tokens rise, also over a power cut;
//! - a write that expects a past holder is refused, and one of the present holder is not;
//! - what was seen to be over does not show again;
//! - what a process holds is there, and a lock without a holder can be taken after one time to live at most.

use std::collections::BTreeSet;
use std::mem::forget;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::disk::Clock;
use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, CaskLock, CompactionPolicy, Config, Durability, Error, Held, Limits, LockOptions, ReadMode, Session,
};

use crate::common::dice::Dice;
use crate::counts::{add, counts};
use crate::storm::{Story, setting};

const STORE: &str = "/store";
const KEYS: [&str; 2] = ["lock one", "lock two"];
const PROCESSES: usize = 3;
const TTL: u64 = 1000;

counts!(
    taken,
    taken_from_the_dead,
    taken_after_a_deadline,
    busy,
    fenced,
    fenced_off,
    stalled,
    over_in_a_stall,
    renewed,
    lost,
    released,
    compacted,
    reopened,
    killed,
    cuts,
    ended
);

/// A process, with what it has in its hands.
struct Process {
    disk: SimDisk,
    cask: Cask,
    locks: Vec<CaskLock>,
    held: Mutex<Vec<Option<Held>>>,
    session: Mutex<Option<(Session, String)>>,
}

/// What all have seen, whatever became of the disk.
#[derive(Default)]
struct Seen {
    /// The last token of each lock.
    tokens: [u64; KEYS.len()],
    /// The pairs that were seen to be over: key, and the index of the record.
    over: Vec<(String, u64)>,
    /// The process that took each lock last is dead.
    is_dead: [bool; KEYS.len()],
    /// Tokens whose locks were taken away by a plain write. Their holders find that out later.
    taken_away: BTreeSet<u64>,
    sessions: u64,
}

struct World {
    disk: SimDisk,
    clock: Clock,
    processes: Mutex<Vec<Arc<Process>>>,
    seen: Arc<Mutex<Seen>>,
    counts: Arc<Counts>,
}

fn config(dice: &mut Dice) -> Config {
    Config::new()
        .read_mode(dice.choose(&[ReadMode::Map, ReadMode::Pread]))
        .durability(dice.choose(&[Durability::Sync, Durability::Os]))
        .connection_timeout(Duration::ZERO)
        .compaction(CompactionPolicy::Manual)
}

fn options() -> LockOptions {
    LockOptions::new().ttl(Duration::from_millis(TTL))
}

/// An error that says that another process is at work, or that this one cannot write now.
fn is_in_the_way(error: &Error) -> bool {
    matches!(error, Error::LockTimeout { .. } | Error::CompactionOvertaken { .. } | Error::Io { .. })
}

impl World {
    fn start(&self, dice: &mut Dice) -> Arc<Process> {
        let disk = self.disk.process();
        let cask = Cask::open_on(Arc::new(disk.clone()), STORE, &config(dice)).unwrap();
        let locks = KEYS.iter().map(|key| cask.lock(key, &options()).unwrap()).collect();
        let held = Mutex::new(vec![None; KEYS.len()]);
        Arc::new(Process { disk, cask, locks, held, session: Mutex::new(None) })
    }

    fn process(&self, n: usize) -> Arc<Process> {
        Arc::clone(&self.processes.lock().unwrap()[n])
    }

    /// Takes a lock, if that is possible. `is_calm`: the clock stands still meanwhile.
    fn try_lock(&self, process: &Process, lock: usize, is_calm: bool) {
        let deadline_passed = self.holders(lock).iter().all(|held| !held.is_held());
        let taken = match process.locks[lock].try_lock() {
            Ok(taken) => taken,
            Err(Error::SessionOver) => return add(&self.counts.over_in_a_stall),
            Err(Error::AlreadyHeld) => return,
            Err(error) if is_in_the_way(&error) => return,
            Err(error) => panic!("{error:#}"),
        };
        let Some(held) = taken else { return add(&self.counts.busy) };
        let mut seen = self.seen.lock().unwrap();
        assert!(held.token() > seen.tokens[lock], "token {} after {}", held.token(), seen.tokens[lock]);
        let is_free =
            self.holders(lock).iter().all(|other| !other.is_held() || seen.taken_away.contains(&other.token()));
        assert!(is_free, "two processes hold {}, one with token {}", KEYS[lock], held.token());
        if std::mem::take(&mut seen.is_dead[lock]) {
            add(&self.counts.taken_from_the_dead);
        } else if deadline_passed && !self.holders(lock).is_empty() {
            add(&self.counts.taken_after_a_deadline);
        }
        seen.tokens[lock] = held.token();
        drop(seen);
        add(&self.counts.taken);
        assert!(!is_calm || held.is_held() && !held.loss().is_lost());
        process.held.lock().unwrap()[lock] = Some(held);
    }

    /// What the processes that live have in their hands, whether they hold it still or not.
    fn holders(&self, lock: usize) -> Vec<Held> {
        let processes = self.processes.lock().unwrap();
        processes.iter().filter_map(|process| process.held.lock().unwrap()[lock].clone()).collect()
    }

    fn held(&self, process: &Process, lock: usize) -> Option<Held> {
        process.held.lock().unwrap()[lock].clone()
    }

    /// A write that only the holder may make.
    fn write_fenced(&self, process: &Process, lock: usize, is_calm: bool) {
        let Some(held) = self.held(process, lock) else { return };
        let (was_held, last) = (held.is_held(), self.seen.lock().unwrap().tokens[lock]);
        let mut batch = Batch::new();
        batch.expect_held(&held).put("fenced", held.token().to_string());
        match process.cask.write(&batch) {
            Ok(applied) => {
                let now = self.seen.lock().unwrap();
                let next = now.tokens[lock];
                assert!(last == held.token(), "a holder of before has written: {} after {last}", held.token());
                assert!(!now.taken_away.contains(&held.token()));
                assert!(next == last || next > applied.last_index().unwrap(), "behind its lock");
                add(&self.counts.fenced);
            }
            Err(Error::BatchConflict { op: 0, cause }) => {
                assert!(matches!(*cause, Error::NotHeld));
                let taken_away = self.seen.lock().unwrap().taken_away.contains(&held.token());
                assert!(!is_calm || !was_held || taken_away, "a holder is refused");
                add(&self.counts.fenced_off);
            }
            Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
        }
    }

    fn unlock(&self, process: &Process, lock: usize, is_calm: bool) {
        let held = self.held(process, lock);
        let was_held = held.as_ref().is_some_and(Held::is_held);
        match process.locks[lock].unlock() {
            Ok(()) => {
                let held = held.expect("only what is held is released");
                assert!(held.loss().is_lost() && !held.is_held());
                add(&self.counts.released);
            }
            Err(Error::NotHeld) => {
                let taken_away = held.is_some_and(|held| self.seen.lock().unwrap().taken_away.contains(&held.token()));
                assert!(!is_calm || !was_held || taken_away, "a holder cannot release its lock");
            }
            Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
        }
        process.held.lock().unwrap()[lock] = None;
    }

    fn renew(&self, process: &Process) {
        match process.cask.renew_sessions() {
            Ok(()) => add(&self.counts.renewed),
            Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
        }
        let held = process.held.lock().unwrap();
        let lost = held.iter().flatten().filter(|held| held.loss().is_lost()).count();
        self.counts.lost.fetch_add(lost as u64, Relaxed);
    }

    /// A session with a key of its own.
    fn session(&self, process: &Process) {
        let session = process.session.lock().unwrap().take();
        match session {
            Some((session, _)) => match session.end() {
                Ok(()) => add(&self.counts.ended),
                Err(error) => assert!(is_in_the_way(&error) || matches!(error, Error::SessionOver), "{error:#}"),
            },
            None => {
                let key = {
                    let mut seen = self.seen.lock().unwrap();
                    seen.sessions += 1;
                    format!("session {}", seen.sessions)
                };
                let begun = process.cask.session(Duration::from_millis(TTL)).and_then(|session| {
                    session.put(&process.cask, &key, "")?;
                    Ok((session, key))
                });
                match begun {
                    Ok(begun) => *process.session.lock().unwrap() = Some(begun),
                    Err(Error::SessionOver) => add(&self.counts.over_in_a_stall),
                    Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
                }
            }
        }
    }

    /// Reads all keys, as this process sees them. `is_calm`: no call of another is under way, which may end in the same turn what it
    /// has renewed too late.
    fn read(&self, process: &Process, is_calm: bool) {
        let pairs = match process.cask.list("") {
            Ok(pairs) => pairs,
            Err(error) => return assert!(is_in_the_way(&error), "{error:#}"),
        };
        assert_eq!(pairs.len() as u64, process.cask.len().unwrap());
        let shown: Vec<(String, u64)> =
            pairs.into_iter().map(|pair| (String::from_utf8(pair.key).unwrap(), pair.last_index)).collect();
        let mut seen = self.seen.lock().unwrap();
        if is_calm {
            let again = shown.iter().find(|pair| seen.over.contains(pair));
            assert_eq!(again, None, "shows again");
        }
        for other in self.processes.lock().unwrap().iter() {
            for (lock, held) in other.held.lock().unwrap().iter().enumerate() {
                let Some(held) = held else { continue };
                let pair = (KEYS[lock].to_owned(), held.token());
                match shown.contains(&pair) {
                    true => {}
                    false if is_calm && held.is_held() => {
                        assert!(seen.taken_away.contains(&held.token()), "a held lock is not there");
                    }
                    false => seen.over.push(pair),
                }
            }
            if let Some((session, key)) = &*other.session.lock().unwrap() {
                let is_shown = shown.iter().any(|(shown, _)| shown == key);
                assert!(
                    !is_calm || is_shown == session.is_live(),
                    "{key}: shown: {is_shown}, live: {}",
                    session.is_live()
                );
            }
        }
    }

    /// Before one of the next calls of a process to the disk, it stands still.
    fn stall(self: &Arc<World>, n: usize, dice: &mut Dice) -> bool {
        if !dice.one_in(3) {
            return false;
        }
        add(&self.counts.stalled);
        let process = self.process(n);
        let verb = dice.choose(&[Verb::WriteAt, Verb::WriteAt, Verb::TryLock, Verb::Unlock, Verb::SyncData]);
        let by = dice.choose(&[1, TTL / 3, TTL - 1, TTL, 2 * TTL]);
        let (wall, other, lock) = (dice.choose(&[0, 1000, -100_000]), dice.below(3) as usize, dice.below(2) as usize);
        let (world, what) = (Arc::downgrade(self), dice.below(4));
        let when = When::nth(1 + dice.below(3)).of(verb).by(&process.disk);
        process.disk.before(when, Repeat::Once, move |_| {
            let Some(world) = world.upgrade() else { return };
            world.clock.advance(Duration::from_millis(by));
            world.clock.set_wall(wall);
            if other == n {
                return;
            }
            let other = world.process(other);
            match what {
                0 => world.read(&other, false),
                1 => world.try_lock(&other, lock, true),
                2 => world.write_fenced(&other, lock, false),
                _ => world.renew(&other),
            }
        });
        true
    }

    fn kill(&self, n: usize, dice: &mut Dice) {
        let process = self.process(n);
        process.disk.kill();
        for lock in 0..KEYS.len() {
            if process.held.lock().unwrap()[lock].take().is_some_and(|held| held.is_held()) {
                self.seen.lock().unwrap().is_dead[lock] = true;
            }
        }
        // Its calls do nothing any more.
        drop(process.session.lock().unwrap().take());
        let next = self.start(dice);
        let dead = std::mem::replace(&mut self.processes.lock().unwrap()[n], next);
        drop((process, dead));
        add(&self.counts.killed);
    }

    fn act(self: &Arc<World>, n: usize, dice: &mut Dice) {
        let (process, lock) = (self.process(n), dice.below(KEYS.len() as u64) as usize);
        let is_calm = !self.stall(n, dice);
        if dice.one_in(25) {
            process.disk.fail(When::next().of(Verb::WriteAt).by(&process.disk), Fault::Os(libc::ENOSPC), Repeat::Once);
        }
        match dice.below(40) {
            0..=9 => self.try_lock(&process, lock, is_calm),
            10..=15 => self.write_fenced(&process, lock, is_calm),
            16..=20 => self.renew(&process),
            21..=24 => self.unlock(&process, lock, is_calm),
            25..=28 => self.session(&process),
            29..=31 => drop(process.cask.put("plain", "value").map_err(|error| assert!(is_in_the_way(&error)))),
            32 => {
                // By an operator, say.
                let done = match dice.one_in(2) {
                    true => process.cask.put(KEYS[lock], "").map(drop),
                    false => process.cask.delete(KEYS[lock]),
                };
                match done {
                    Ok(()) => {
                        let mut seen = self.seen.lock().unwrap();
                        let token = seen.tokens[lock];
                        seen.taken_away.insert(token);
                    }
                    Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
                }
            }
            33 | 34 => match process.cask.compact() {
                Ok(_) => add(&self.counts.compacted),
                Err(Error::CompactionRefused { .. }) => {}
                Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
            },
            35 => match process.cask.reopen() {
                Ok(()) => add(&self.counts.reopened),
                Err(error) => assert!(is_in_the_way(&error), "{error:#}"),
            },
            36 => {
                drop(process);
                self.disk.clear_hooks();
                self.disk.clear_faults();
                self.kill(n, dice);
            }
            _ => self.read(&process, is_calm),
        }
        self.disk.clear_hooks();
        self.disk.clear_faults();
        let reader = self.process(dice.below(PROCESSES as u64) as usize);
        self.read(&reader, true);
    }

    /// Cuts the power: all processes are dead, and no session lives.
    fn cut(&self, dice: &mut Dice) -> Arc<World> {
        add(&self.counts.cuts);
        let mut choices = match dice.below(3) {
            0 => Choices::keep_nothing(),
            1 => Choices::keep_all(),
            _ => Choices::from_seed(dice.roll()),
        };
        let disk = self.disk.reboot(&mut choices);
        self.disk.cut();
        for process in std::mem::take(&mut *self.processes.lock().unwrap()) {
            process.held.lock().unwrap().fill(None);
            drop(process.session.lock().unwrap().take());
        }
        disk.set_clock(&self.clock);
        let seen = Arc::clone(&self.seen);
        // What was over and not synced may be back in the log; no session lives there.
        let mut all = seen.lock().unwrap();
        all.is_dead = Default::default();
        all.over.clear();
        drop(all);
        World::begin(disk, self.clock.clone(), seen, Arc::clone(&self.counts), dice)
    }

    fn begin(disk: SimDisk, clock: Clock, seen: Arc<Mutex<Seen>>, counts: Arc<Counts>, dice: &mut Dice) -> Arc<World> {
        let world = World { disk, clock, processes: Mutex::default(), seen, counts };
        let processes = (0..PROCESSES).map(|_| world.start(dice)).collect();
        *world.processes.lock().unwrap() = processes;
        Arc::new(world)
    }
}

/// `CASKFILE_LOCKS` is the number of lives (300).
#[test]
fn a_lock_never_has_two_holders_and_none_of_before_writes_behind_it() {
    let lives = setting("CASKFILE_LOCKS").unwrap_or(300);
    let first = setting("CASKFILE_CRASH_SEED").unwrap_or(0);
    let counts = Arc::new(Counts::default());
    for seed in first..first + lives {
        let mut dice = Dice::new(seed ^ 0x10c4);
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_limits(Limits { renewal_look: u64::MAX, ..Limits::mixed(dice.roll()) });
        disk.set_waiting_line(dice.one_in(2));
        let clock = disk.stop_clock();
        let cask = Cask::open_on(Arc::new(disk.process()), STORE, &Config::new()).unwrap();
        cask.put("plain", "").unwrap();
        cask.sync().unwrap();
        cask.close().unwrap();
        let mut world = World::begin(disk, clock, Arc::default(), Arc::clone(&counts), &mut dice);
        let story = Story(seed, 0.into());
        for step in 0..60 {
            story.1.set(step);
            world.clock.advance(Duration::from_millis(dice.choose(&[0, 0, 1, 100, 300, TTL - 1, TTL])));
            if dice.one_in(30) {
                world = world.cut(&mut dice);
            } else {
                world.act(dice.below(PROCESSES as u64) as usize, &mut dice);
            }
        }
        // Whatever has happened: no lock is lost for ever.
        for n in 0..PROCESSES {
            world.process(n).cask.verify().unwrap();
            world.kill(n, &mut dice);
        }
        world.clock.advance(Duration::from_millis(TTL));
        for lock in 0..KEYS.len() {
            world.try_lock(&world.process(0), lock, true);
            if world.held(&world.process(0), lock).is_none() {
                // Its session was of an earlier boot, and a compaction has taken it to another file: it can only be watched.
                world.clock.advance(Duration::from_millis(TTL));
                world.try_lock(&world.process(0), lock, true);
            }
            assert!(world.held(&world.process(0), lock).is_some(), "a lock of the dead cannot be taken");
        }
        forget(story);
    }
    println!("{lives} lives: {counts:?}");
    if lives >= 300 {
        counts.expect_all(20);
    }
}
