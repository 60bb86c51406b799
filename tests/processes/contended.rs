//! One lock that three processes with two threads each want all the time, while the test kills and stops them, and what the log says of it
//! beside what they noted: see [`history`].
//!
//! Each round has one event. The holder is killed, or stopped beyond its deadline, or killed while a forked child lives on; or a
//! waiter is; or nothing happens. In some rounds another thing happens beside it: a compaction, a reopening, a failed sync, a full disk, or
//! an exclusive handle that comes and goes. A round ends when the next holder has the lock.
//!
//! `CASKFILE_CONTENDED_ROUNDS` is the number of rounds (24). `CASKFILE_CONTENDED_SEED` makes the same choices again;
//! what the processes make of them differs.

mod history;
mod meddling;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use caskfile::{Cask, Config, Durability, LockMode, OptionalExt, SessionState, WatchFrom};

use crate::common::TempDir;
use crate::common::dice::Dice;
use crate::common::process::{Process, arguments, this_test, was_killed};
use history::{Change, Note, check};
use meddling::{Meddling, Stopped, limit_files_of};

/// The keys: the lock, and what its holders write.
const LOCK: &str = "lock";
const COUNT: &str = "count";
const COPY: &str = "count's copy";

const TTL: Duration = Duration::from_millis(300);
const PROCESSES: usize = 3;

/// A store is used for as many rounds.
const ROUNDS_OF_A_GAME: usize = 60;

/// If no process gets the lock for so long, none will.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the test waits for the next holder beside a process that stands still, or beside the child of one that was killed: either may
/// have the file's lock.
const PATIENCE_IN_A_TURN: Duration = Duration::from_millis(1500);

fn store(directory: &Path) -> PathBuf {
    directory.join("store")
}

fn notes_file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("notes-{number}"))
}

/// The time on the clock that all processes of the machine share, in nanoseconds.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to be written to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn numbers(value: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(value).unwrap();
    text.split(' ').map(|number| number.parse().expect("a number")).collect()
}

/// The holder of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    token: u64,
    worker: u64,
}

/// What happens to a process in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    HolderIsKilled,
    HolderIsStopped,
    HolderIsKilledWithAChildAlive,
    WaiterIsKilled,
    WaiterIsStopped,
}

/// What happens beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Compaction,
    Reopening,
    FailedSync,
    FullDisk,
    ExclusiveHandle,
}

#[derive(Default)]
struct Totals {
    /// How often which event took place, and what beside it.
    rounds: Vec<(Event, Beside)>,
    takings: usize,
    writes: usize,
    refused: usize,
    in_a_turn: usize,
    after_kill: Vec<Duration>,
    after_kill_beside: Vec<Duration>,
    after_stop: Vec<Duration>,
    after_kill_with_a_child: Vec<Duration>,
}

#[test]
fn one_lock_of_processes_that_are_killed_and_stopped_has_one_holder_at_a_time() {
    if let Some(arguments) = arguments() {
        return worker::work(&arguments);
    }
    let set = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().expect("a number"));
    let rounds = set("CASKFILE_CONTENDED_ROUNDS").unwrap_or(24) as usize;
    let seed = set("CASKFILE_CONTENDED_SEED").unwrap_or_else(now);
    println!("CASKFILE_CONTENDED_SEED={seed}");
    let (mut dice, mut totals) = (Dice::new(seed), Totals::default());
    while totals.rounds.len() < rounds {
        let of_this_game = ROUNDS_OF_A_GAME.min(rounds - totals.rounds.len());
        play(this_test!(), of_this_game, &mut dice, &mut totals);
    }
    totals.print();
}

/// One store, from its creation to the verdict on what was done with it.
fn play(test: &str, rounds: usize, dice: &mut Dice, totals: &mut Totals) {
    let directory = TempDir::without_waits();
    let mut game = Game::new(test, directory.path(), dice.roll());
    for _ in 0..rounds {
        game.play_round(totals);
    }
    let (log, notes) = game.end();
    if let Err(refusal) = check(&log, &notes) {
        let history: String = log.iter().map(|change| format!("{change:?}\n")).collect();
        let noted: String = notes.iter().map(|note| note.to_line()).collect();
        let path = std::env::temp_dir().join(format!("caskfile-contended-{}", std::process::id()));
        fs::write(&path, format!("{history}\n{noted}")).unwrap();
        panic!("{refusal}; the history is in {}", path.display());
    }
    totals.takings += log.iter().filter(|change| matches!(change, Change::Taken { .. })).count();
    totals.writes += log.iter().filter(|change| matches!(change, Change::Written { .. })).count();
    totals.refused += notes.iter().filter(|note| matches!(note, Note::Refused { .. })).count();
}

struct Game<'t> {
    test: &'t str,
    directory: &'t Path,
    dice: Dice,
    cask: Cask,
    /// Follows the log from the beginning.
    follower: JoinHandle<Vec<Change>>,
    is_over: Arc<AtomicBool>,
    /// Those that run, each with its number.
    workers: Vec<(u64, Process)>,
    /// How many have been started.
    started: u64,
    /// When the last compaction began.
    compacted: Option<Instant>,
}

impl<'t> Game<'t> {
    fn new(test: &'t str, directory: &'t Path, seed: u64) -> Game<'t> {
        let mut dice = Dice::new(seed);
        let config = Config::new().durability(Durability::Os);
        let cask = Cask::open_with(store(directory), &config).unwrap();
        // No file of notes gets as long as the store, so that a limit to the length of files concerns the store alone.
        cask.put("filler", vec![7; 3 << 20]).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        // A watch that can write ends sessions at their deadlines, and one that cannot leaves that to the waiters.
        let config = config.read_only(dice.one_in(2));
        let follower = {
            let (path, is_over) = (store(directory), Arc::clone(&is_over));
            let cask = Cask::open_with(path, &config).unwrap();
            let watch = cask.changes("", WatchFrom::Now).unwrap();
            thread::spawn(move || follow(watch, &is_over))
        };
        let mut game =
            Game { test, directory, dice, cask, follower, is_over, workers: Vec::new(), started: 0, compacted: None };
        (0..PROCESSES).for_each(|_| game.start());
        game
    }

    fn start(&mut self) {
        let (directory, number, seed) = (self.directory.to_str().unwrap(), self.started, self.dice.roll());
        self.started += 1;
        let process = Process::start(self.test, &[directory, &number.to_string(), &seed.to_string()]);
        self.workers.push((number, process));
    }

    /// The holder, as the store shows it.
    fn holder(&self) -> Option<Holder> {
        let pair = self.cask.get(LOCK).optional().unwrap()?;
        let numbers = numbers(&pair.value);
        let token = if numbers[1] == 0 { pair.last_index } else { numbers[1] };
        Some(Holder { token, worker: numbers[0] })
    }

    /// Waits for a holder with a higher token than this, if it comes in this time.
    fn next_holder(&self, after: u64, patience: Duration) -> Option<Holder> {
        let began = Instant::now();
        loop {
            if let Some(next) = self.holder().filter(|next| next.token > after) {
                return Some(next);
            }
            if began.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    #[track_caller]
    fn expect_next_holder(&self, after: u64) -> Holder {
        let next = self.next_holder(after, PATIENCE);
        next.unwrap_or_else(|| panic!("no process gets the lock after {after}: {:?}", self.cask.sessions()))
    }

    fn position(&self, worker: u64) -> Option<usize> {
        self.workers.iter().position(|(number, _)| *number == worker)
    }

    /// Waits until one that runs has the lock. Returns it with its place among the workers.
    fn holder_that_runs(&self) -> (Holder, usize) {
        let mut after = 0;
        loop {
            let holder = self.expect_next_holder(after);
            match self.position(holder.worker) {
                Some(at) => return (holder, at),
                None => after = holder.token,
            }
        }
    }

    fn play_round(&mut self, totals: &mut Totals) {
        use Event::*;
        let event = self.dice.choose(&[
            Nothing,
            Nothing,
            HolderIsKilled,
            HolderIsKilled,
            HolderIsKilled,
            HolderIsKilled,
            HolderIsStopped,
            HolderIsKilledWithAChildAlive,
            WaiterIsKilled,
            WaiterIsStopped,
        ]);
        let beside = match self.dice.below(10) {
            0 | 1 => Beside::Compaction,
            2 => Beside::Reopening,
            3 => Beside::FailedSync,
            4 => Beside::FullDisk,
            5 => Beside::ExclusiveHandle,
            _ => Beside::Nothing,
        };
        thread::sleep(Duration::from_micros(self.dice.below(10_000)));
        let meddling = self.begin(beside);
        let before = self.take_place(event, beside, meddling, totals);
        totals.rounds.push((event, beside));
        self.expect_next_holder(before);
        while self.workers.len() < PROCESSES {
            self.start();
        }
    }

    /// Begins what happens beside the event. Some of it ends by itself, the rest when the result is dropped.
    fn begin(&mut self, beside: Beside) -> Option<Meddling> {
        let at = self.dice.below(self.workers.len() as u64) as usize;
        let all = self.dice.one_in(2);
        let pause = Duration::from_micros(self.dice.below(TTL.as_micros() as u64 / 2));
        let meddling = match beside {
            Beside::Nothing => return None,
            Beside::Compaction => {
                self.workers[at].1.tell("compact");
                self.compacted = Some(Instant::now());
                None
            }
            Beside::Reopening => {
                self.workers[at].1.tell("reopen");
                None
            }
            Beside::FailedSync => {
                self.workers[at].1.tell("fail a sync");
                None
            }
            Beside::FullDisk => {
                let mut limited: Vec<u32> = self.workers.iter().map(|(_, process)| process.id()).collect();
                if !all {
                    limited.drain(1..);
                }
                let len = fs::metadata(store(self.directory)).unwrap().len() + self.dice.below(2000);
                limited.iter().for_each(|process| limit_files_of(*process, len));
                Some(Meddling::Limit(limited))
            }
            Beside::ExclusiveHandle => {
                let config = Config::new()
                    .durability(Durability::Os)
                    .lock_mode(LockMode::Exclusive)
                    .connection_timeout(PATIENCE);
                let cask = Cask::open_with(store(self.directory), &config).unwrap();
                cask.put("exclusive", "").unwrap();
                Some(Meddling::Exclusive(cask))
            }
        };
        if meddling.is_some() {
            thread::sleep(pause);
        }
        meddling
    }

    /// Returns the token after which the next holder is waited for.
    fn take_place(&mut self, event: Event, beside: Beside, meddling: Option<Meddling>, totals: &mut Totals) -> u64 {
        // With a full disk, or an exclusive handle, there may be no holder now.
        let found = self.holder().and_then(|holder| Some((holder, self.position(holder.worker)?)));
        let Some((holder, at)) = found.or_else(|| meddling.is_none().then(|| self.holder_that_runs())) else {
            return self.holder().map_or(0, |holder| holder.token);
        };
        let waiter = (at + 1 + self.dice.below(PROCESSES as u64 - 1) as usize) % self.workers.len();
        match event {
            Event::Nothing => {}
            Event::WaiterIsKilled => {
                assert!(was_killed(self.workers.remove(waiter).1.kill()));
            }
            Event::WaiterIsStopped => {
                let stopped = Stopped::new(&self.workers[waiter].1);
                drop(meddling);
                if self.next_holder(holder.token, PATIENCE_IN_A_TURN).is_none() {
                    totals.in_a_turn += 1;
                }
                drop(stopped);
            }
            Event::HolderIsKilled => {
                let (number, process) = self.workers.remove(at);
                let began = Instant::now();
                assert!(was_killed(process.kill()));
                drop(meddling);
                self.expect_next_holder(holder.token);
                let passed = began.elapsed();
                if self.was_holding(number, holder.token) {
                    // Until the holder has renewed its lock after a compaction, only the deadline ends it.
                    let is_moving = self.compacted.is_some_and(|began| began.elapsed() < passed + 2 * TTL);
                    match beside {
                        Beside::Nothing if !is_moving => totals.after_kill.push(passed),
                        _ => totals.after_kill_beside.push(passed),
                    }
                }
            }
            Event::HolderIsKilledWithAChildAlive => {
                let (_, mut process) = self.workers.remove(at);
                drop(meddling);
                let child: libc::pid_t = process.ask("fork").parse().unwrap();
                // It may have lost the lock, or released it, before it got to that.
                let holder = self.holder().filter(|now| now.worker == holder.worker);
                assert!(was_killed(process.kill()));
                if let Some(holder) = holder {
                    let began = Instant::now();
                    match self.expect_it_to_be_free_at_its_deadline(holder, PATIENCE_IN_A_TURN) {
                        true => totals.after_kill_with_a_child.push(began.elapsed()),
                        false => totals.in_a_turn += 1,
                    }
                }
                // SAFETY: takes no pointer. The child is the dead process's, and no other waits for it.
                assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
            }
            Event::HolderIsStopped => {
                drop(meddling);
                let stopped = Stopped::new(&self.workers[at].1);
                let began = Instant::now();
                match self.expect_it_to_be_free_at_its_deadline(holder, PATIENCE_IN_A_TURN) {
                    true => totals.after_stop.push(began.elapsed()),
                    false => totals.in_a_turn += 1,
                }
                drop(stopped);
            }
        }
        holder.token
    }

    /// Whether a process that is dead now had not begun to release the lock.
    fn was_holding(&self, worker: u64, token: u64) -> bool {
        !notes_of(self.directory, worker).contains(&Note::Ends { token })
    }

    /// Waits for the next holder after one that cannot release the lock any more, and whose owner's byte is held. If the lock was
    /// still the holder's, the next one must not come before the deadline. Returns whether there is a next one.
    fn expect_it_to_be_free_at_its_deadline(&self, holder: Holder, patience: Duration) -> bool {
        let asked = Instant::now();
        let sessions = self.cask.sessions().unwrap();
        let session = sessions.iter().find(|of| of.keys.iter().any(|key| key.token == Some(holder.token)));
        let left = session.map_or(Duration::ZERO, |session| match session.state {
            SessionState::Live(left) => left,
            _ => Duration::ZERO,
        });
        let next = self.next_holder(holder.token, patience);
        let is_early = next.is_some() && asked.elapsed() + Duration::from_millis(1) < left;
        assert!(!is_early, "{next:?} has the lock of {holder:?} after {:?}, {left:?} before its end", asked.elapsed());
        next.is_some()
    }

    /// Ends all processes. Returns the log, and what all of them noted.
    fn end(self) -> (Vec<Change>, Vec<Note>) {
        for (number, process) in self.workers {
            let status = process.end();
            assert!(status.success(), "worker {number}: {status}");
        }
        self.is_over.store(true, SeqCst);
        let log = self.follower.join().unwrap();
        self.cask.verify().unwrap();
        let last = self.cask.get(COUNT).optional().unwrap().map_or(0, |pair| numbers(&pair.value)[0]);
        let written = log.iter().filter(|change| matches!(change, Change::Written { .. })).count();
        assert_eq!(last, written as u64, "the count, and the writes in the log");
        (log, (0..self.started).flat_map(|number| notes_of(self.directory, number)).collect())
    }
}

fn notes_of(directory: &Path, worker: u64) -> Vec<Note> {
    let notes = fs::read_to_string(notes_file(directory, worker)).unwrap_or_default();
    notes.lines().map(Note::from_line).collect()
}

/// All changes that the log has, in its order.
fn follow(mut watch: caskfile::Watch, is_over: &AtomicBool) -> Vec<Change> {
    let mut log = Vec::new();
    loop {
        let no_more = is_over.load(SeqCst);
        let Some(unit) = watch.next_timeout(Some(Duration::from_millis(20))).unwrap() else {
            if no_more {
                return log;
            }
            continue;
        };
        let changes = unit.into_changes().unwrap();
        for change in &changes {
            match change {
                caskfile::Change::Put(pair) if pair.key == LOCK.as_bytes() => {
                    let token = numbers(&pair.value)[1];
                    log.push(match token {
                        0 => Change::Taken { token: pair.last_index },
                        token => Change::Rewritten { token },
                    });
                }
                caskfile::Change::Delete { key, .. } if key == LOCK.as_bytes() => log.push(Change::Gone),
                caskfile::Change::Put(pair) if pair.key == COUNT.as_bytes() => {
                    let of = numbers(&pair.value);
                    let is_whole = matches!(&changes[..], [_, caskfile::Change::Put(copy)] if copy.value == pair.value);
                    assert!(is_whole, "half of a batch: {changes:?}");
                    let caskfile::Change::Put(copy) = &changes[1] else { unreachable!() };
                    log.push(Change::Written { token: of[1], count: of[0], seq: copy.last_index });
                }
                _ => {}
            }
        }
    }
}

impl Totals {
    fn print(&mut self) {
        println!(
            "{} rounds: the lock was taken {} times; {} writes of holders, {} of past holders refused; {} times a process \
             that stood still, or a child, had the file's lock",
            self.rounds.len(),
            self.takings,
            self.writes,
            self.refused,
            self.in_a_turn
        );
        let mut kinds: Vec<String> = self.rounds.iter().map(|round| format!("{round:?}")).collect();
        kinds.sort();
        for of_a_kind in kinds.chunk_by(|one, other| one == other) {
            println!("{:6} {}", of_a_kind.len(), of_a_kind[0]);
        }
        println!("until the next holder has the lock, with a time to live of {TTL:?}:");
        for (what, times) in [
            ("a kill", &mut self.after_kill),
            ("a kill beside something else, or soon after a compaction", &mut self.after_kill_beside),
            ("a kill with a child alive", &mut self.after_kill_with_a_child),
            ("a stop", &mut self.after_stop),
        ] {
            times.sort_unstable();
            if let Some(last) = times.last() {
                let part = |of: usize| times[times.len() * of / 100];
                println!("  {what}: {} times, p50 {:?}, p99 {:?}, max {last:?}", times.len(), part(50), part(99));
            }
        }
    }
}
