//! Several processes that write all the time: each gets its turns, however they wait, and also beside one that is stopped.
//!
//! A scheduler runs one process at a time and moves the clock to the moment at which the next one wakes. So the order of all
//! calls is the same in every run, on any machine.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::disk::Clock;
use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config, Durability, Limits};

use crate::common::patience::in_finite_time;

const STORE: &str = "/store";

/// How long each write takes, and each sync.
const WRITE: Duration = Duration::from_micros(50);
const SYNC: Duration = Duration::from_micros(150);

/// How long a process is stopped.
const STOP: Duration = Duration::from_millis(500);

/// How long others wait for a process in line that is stopped, and the longest pause after that.
const COURTESY: Duration = Duration::from_millis(20 + 10);

#[derive(Default)]
struct Schedule {
    /// When each process wakes. The number keeps those of the same moment in their order.
    asleep: BTreeSet<(Instant, u64, usize)>,
    count: u64,
    running: Option<usize>,
}

struct Scheduler {
    clock: Clock,
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

impl Scheduler {
    fn sleep(&self, process: usize, time: Duration) {
        let mut schedule = self.schedule.lock().unwrap();
        schedule.count += 1;
        let place = (self.clock.now() + time, schedule.count, process);
        schedule.asleep.insert(place);
        if schedule.running == Some(process) {
            self.run_next(&mut schedule);
        }
        while schedule.running != Some(process) {
            schedule = self.changed.wait(schedule).unwrap();
        }
    }

    fn end(&self) {
        self.run_next(&mut self.schedule.lock().unwrap());
    }

    fn run_next(&self, schedule: &mut MutexGuard<'_, Schedule>) {
        let next = schedule.asleep.pop_first();
        schedule.running = next.map(|(_, _, process)| process);
        if let Some((moment, _, _)) = next {
            self.clock.advance(moment.saturating_duration_since(self.clock.now()));
        }
        self.changed.notify_all();
    }

    /// Starts the first process when all are there.
    fn begin(&self, processes: usize) {
        while self.schedule.lock().unwrap().asleep.len() < processes {
            thread::yield_now();
        }
        self.end();
    }
}

/// What a process has seen.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// How long each of its writes took.
    waits: Vec<Duration>,
    /// How many turns others had meanwhile.
    others: Vec<u64>,
}

struct Game {
    processes: usize,
    writes: usize,
    durability: Durability,
    /// Locks linger after each write, and are given up when another process has tried for them once.
    lingers: bool,
    /// The last process is stopped once, when it has waited this often.
    stops_after: Option<u64>,
}

struct Played {
    seen: Vec<Seen>,
    /// Until all had written.
    took: Duration,
    pauses: u64,
}

impl Game {
    fn turn(&self) -> Duration {
        if self.durability == Durability::Sync { WRITE + SYNC } else { WRITE }
    }

    fn turns(&self) -> usize {
        self.processes * self.writes
    }

    fn play(&self) -> Played {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        disk.set_waiting_line(true);
        if self.lingers {
            disk.set_lingering(Some(1));
            disk.set_limits(Limits { burst_turns: 0, burst_gap: u64::MAX, renewal_look: u64::MAX, ..Limits::REAL });
        }
        let config = Config::new().durability(self.durability).connection_timeout(Duration::from_secs(60));
        let handles: Vec<(SimDisk, Cask)> = (0..self.processes)
            .map(|n| {
                let process = disk.process();
                let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
                cask.put(format!("{n}"), "first").unwrap();
                (process, cask)
            })
            .collect();
        let scheduler =
            Arc::new(Scheduler { clock: clock.clone(), schedule: Mutex::default(), changed: Condvar::new() });
        let (turns, pauses) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (sleeper, paused) = (Arc::clone(&scheduler), Arc::clone(&pauses));
        let numbers: Vec<SimDisk> = handles.iter().map(|(process, _)| process.clone()).collect();
        let (last, stops_after, waited) = (self.processes - 1, self.stops_after, AtomicU64::new(0));
        disk.on_pause(move |process, time| {
            let number = numbers.iter().position(|other| other.is_same_process(process)).unwrap();
            paused.fetch_add(1, Ordering::SeqCst);
            let is_stopped = number == last && Some(waited.fetch_add(1, Ordering::SeqCst)) == stops_after;
            sleeper.sleep(number, if is_stopped { STOP } else { time });
        });
        for (number, (process, _)) in handles.iter().enumerate() {
            for (verb, time) in [(Verb::WriteAt, WRITE), (Verb::SyncData, SYNC)] {
                let (scheduler, turns) = (Arc::clone(&scheduler), Arc::clone(&turns));
                disk.before(When::next().of(verb).by(process), Repeat::Forever, move |_| {
                    turns.fetch_add(u64::from(verb == Verb::WriteAt), Ordering::SeqCst);
                    scheduler.sleep(number, time);
                });
            }
        }
        let began = clock.now();
        let writes = self.writes;
        let threads: Vec<_> = handles
            .into_iter()
            .enumerate()
            .map(|(number, (_, cask))| {
                let (scheduler, turns, clock) = (Arc::clone(&scheduler), Arc::clone(&turns), clock.clone());
                thread::spawn(move || {
                    scheduler.sleep(number, Duration::from_nanos(number as u64));
                    let mut seen = Seen::default();
                    for n in 0..writes {
                        let (began, before) = (clock.now(), turns.load(Ordering::SeqCst));
                        cask.put(format!("{number}"), format!("{n}")).unwrap();
                        seen.waits.push(clock.since(began));
                        seen.others.push(turns.load(Ordering::SeqCst) - before - 1);
                    }
                    // Closed by the test, when all are at their end.
                    scheduler.end();
                    (seen, clock.now(), cask)
                })
            })
            .collect();
        scheduler.begin(self.processes);
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        disk.clear_hooks();
        disk.on_pause(|_, _| ());
        let took = ended.iter().map(|&(_, end, _)| end.duration_since(began)).max().unwrap();
        Played {
            seen: ended.into_iter().map(|(seen, _, _)| seen).collect(),
            took,
            pauses: pauses.load(Ordering::SeqCst),
        }
    }
}

const NUMBERS: [(usize, usize); 3] = [(2, 40), (5, 12), (16, 4)];

fn games(stops_after: Option<u64>, check: impl Fn(&Game, &Played) + Send + Copy + 'static) {
    in_finite_time(move || {
        for (processes, writes) in NUMBERS {
            for (durability, lingers) in [(Durability::Sync, false), (Durability::Os, false), (Durability::Os, true)] {
                let game = Game { processes, writes, durability, lingers, stops_after };
                check(&game, &game.play());
            }
        }
    });
}

/// The last word of a message.
fn say(game: &Game, played: &Played) -> String {
    let Game { processes, writes, durability, lingers, .. } = game;
    let Played { seen, took, pauses } = played;
    let longest = seen.iter().flat_map(|seen| &seen.waits).max().unwrap();
    let most = seen.iter().flat_map(|seen| &seen.others).max().unwrap();
    format!(
        "{processes} processes, {writes} writes each, {durability:?}, lingering {lingers}: all took {took:?} with {pauses} pauses; \
         the longest write {longest:?}, and others had {most} turns meanwhile"
    )
}

#[test]
fn waiting_processes_get_their_turns_one_after_the_other() {
    games(None, |game, played| {
        let most = played.seen.iter().flat_map(|seen| &seen.others).max().unwrap();
        assert!(*most <= game.processes as u64 + 2, "{}", say(game, played));
    });
}

#[test]
fn the_lock_is_rarely_idle_while_processes_wait() {
    games(None, |game, played| {
        let work = game.turn() * game.turns() as u32;
        assert!(played.took <= work * 3, "{}", say(game, played));
    });
}

#[test]
fn waiting_in_line_takes_few_looks() {
    games(None, |game, played| {
        // The next in line looks ten times in a turn with a sync.
        let each = 8.0 * (game.processes as f64).ln() + 12.0;
        assert!((played.pauses as f64) < each * game.turns() as f64, "{}", say(game, played));
    });
}

/// It stands in line, comes to its head, and does nothing.
#[test]
fn a_stopped_process_in_line_delays_others_by_a_courtesy() {
    games(Some(2), |game, played| {
        let (last, others) = played.seen.split_last().unwrap();
        let longest = others.iter().flat_map(|seen| &seen.waits).max().unwrap();
        assert!(last.waits.iter().max().unwrap() >= &STOP, "it was stopped: {}", say(game, played));
        let most = (COURTESY + game.turn()) * game.processes as u32;
        assert!(*longest <= most, "{longest:?}: {}", say(game, played));
    });
}
