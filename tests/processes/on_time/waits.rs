//! How long each call waits for the file's lock: as long as another process has it, within the connection timeout, and no
//! longer. A clock that stands still, except in pauses, shows every wait exactly.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::disk::{Access, Clock, Disk, DiskFile};
use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error, verify_on};

use crate::common::patience::with_a_deadline;

const STORE: &str = "/store";

/// The longest pause between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a process waits for the next one in line, which may be stopped.
const COURTESY: Duration = Duration::from_millis(20);

/// A process that keeps others waiting, and the clock by which they wait.
#[derive(Clone)]
struct Holder {
    clock: Clock,
    file: Arc<dyn DiskFile>,
    /// Held until then, if it is held.
    until: Arc<Mutex<Option<Instant>>>,
    time: Duration,
    /// The caller has just released the lock.
    is_free: Arc<AtomicBool>,
    began: Instant,
    /// No call may wait as long.
    for_ever: Duration,
    /// How often the lock was taken.
    holds: Arc<Mutex<u32>>,
    /// The caller's calls on the disk.
    calls: Arc<AtomicU32>,
    /// How often the caller has released it.
    turns: Arc<AtomicU32>,
}

impl Holder {
    fn hold(&self) {
        if self.file.try_lock().unwrap() {
            *self.until.lock().unwrap() = Some(self.clock.now() + self.time);
            *self.holds.lock().unwrap() += 1;
        }
    }

    fn release_in_time(&self) {
        // Far more than any call may make.
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(calls < 100_000 && self.clock.since(self.began) < self.for_ever, "the call waits for ever");
        let mut until = self.until.lock().unwrap();
        if until.is_some_and(|until| until <= self.clock.now()) {
            self.file.unlock().unwrap();
            *until = None;
        }
    }

    /// Has the lock for `time` from now on; `again` and again after each of the caller's turns.
    fn begin(disk: &SimDisk, clock: &Clock, time: Duration, again: bool) -> Holder {
        let file = disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
        let holder = Holder {
            clock: clock.clone(),
            file,
            until: Arc::default(),
            time,
            is_free: Arc::default(),
            began: clock.now(),
            for_ever: (time + Duration::from_secs(60)) * 10,
            holds: Arc::default(),
            turns: Arc::default(),
            calls: Arc::default(),
        };
        let (pausing, acting, unlocking) = (holder.clone(), holder.clone(), holder.clone());
        // A pause takes its time before the lock is looked at again.
        let all = When::next().by(disk);
        disk.before(all, Repeat::Forever, move |_| {
            pausing.release_in_time();
            if again && acting.is_free.swap(false, Ordering::SeqCst) {
                acting.hold();
            }
        });
        disk.before(When::next().of(Verb::Unlock).by(disk), Repeat::Forever, move |_| {
            unlocking.is_free.store(true, Ordering::SeqCst);
            unlocking.turns.fetch_add(1, Ordering::SeqCst);
        });
        holder.hold();
        holder
    }
}

/// What is done while the lock is held.
type Call = fn(&SimDisk, &Config, Option<Cask>) -> Result<(), Error>;

/// How the store is before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The caller has it open.
    Open,
    /// And has dead bytes enough for a compaction when it is closed.
    Overdue,
    /// And has not written yet, after a log without a proof.
    Unproven,
    Closed,
    /// There is an empty file.
    Empty,
}

const WRITES: &[(&str, Before, Call)] = &[
    ("put", Before::Open, |_, _, cask| cask.unwrap().put("key", "2").map(drop)),
    ("delete", Before::Open, |_, _, cask| cask.unwrap().delete("key")),
    ("delete of an absent key", Before::Open, |_, _, cask| cask.unwrap().delete("absent")),
    ("atomic_put", Before::Open, |_, _, cask| cask.unwrap().atomic_put("new", "1", None).map(drop)),
    ("atomic_delete", Before::Open, |_, _, cask| {
        let cask = cask.unwrap();
        let pair = cask.get("key").unwrap();
        cask.atomic_delete("key", Some(&pair))
    }),
    ("update", Before::Open, |_, _, cask| cask.unwrap().update("key", |_| b"2".to_vec()).map(drop)),
    ("write", Before::Open, |_, _, cask| {
        let mut batch = Batch::new();
        batch.put("one", "1").put("two", "2");
        cask.unwrap().write(&batch).map(drop)
    }),
    ("delete_prefix", Before::Open, |_, _, cask| cask.unwrap().delete_prefix("k").map(drop)),
    ("sync", Before::Open, |_, _, cask| cask.unwrap().sync()),
    ("compact", Before::Open, |_, _, cask| cask.unwrap().compact().map(drop)),
    ("reopen", Before::Open, |_, _, cask| cask.unwrap().reopen()),
    ("first put", Before::Unproven, |_, _, cask| cask.unwrap().put("key", "2").map(drop)),
    ("first sync", Before::Unproven, |_, _, cask| cask.unwrap().sync()),
    ("open", Before::Closed, |disk, config, _| open(disk, config).map(drop)),
    ("open of an empty file", Before::Empty, |disk, config, _| open(disk, config).map(drop)),
];

const CLOSES: &[(&str, Before, Call)] = &[
    ("close", Before::Open, |_, _, cask| cask.unwrap().close()),
    ("close of an overdue store", Before::Overdue, |_, _, cask| cask.unwrap().close()),
];

const READS: &[(&str, Before, Call)] = &[
    ("get", Before::Open, |_, _, cask| cask.unwrap().get("key").map(drop)),
    ("list", Before::Open, |_, _, cask| cask.unwrap().list("").map(drop)),
    ("stats", Before::Open, |_, _, cask| cask.unwrap().stats().map(drop)),
    ("verify", Before::Open, |_, _, cask| cask.unwrap().verify().map(drop)),
    ("backup", Before::Open, |_, _, cask| cask.unwrap().backup("/copy").map(drop)),
    ("compact_to", Before::Open, |_, _, cask| cask.unwrap().compact_to("/copy").map(drop)),
    ("open to read", Before::Closed, |disk, config, _| open(disk, &config.clone().read_only(true)).map(drop)),
    ("open to read an empty file", Before::Empty, |disk, config, _| {
        // It is no store, now or later.
        open(disk, &config.clone().read_only(true)).unwrap_err();
        Ok(())
    }),
];

fn open(disk: &SimDisk, config: &Config) -> Result<Cask, Error> {
    Cask::open_on(Arc::new(disk.clone()), STORE, config)
}

/// A store in this state, and the handle of the caller if it has one.
fn prepared(disk: &SimDisk, before: Before, config: &Config) -> Option<Cask> {
    if before == Before::Empty {
        disk.set_contents(STORE, Vec::new());
        return None;
    }
    let other = open(&disk.process(), &Config::new().durability(Durability::Os)).unwrap();
    other.put("key", "1").unwrap();
    if before == Before::Unproven {
        (0..5).for_each(|n| other.put(format!("unproven-{n}"), vec![n; 2 << 20]).map(drop).unwrap());
    }
    let cask = (before != Before::Closed).then(|| open(disk, config).unwrap());
    if let (Before::Open | Before::Overdue, Some(cask)) = (before, &cask) {
        cask.put("key", "own").unwrap();
        if before == Before::Overdue {
            // Not by the caller's own writes, after which a thread would compact.
            (0..10).for_each(|n| other.put("key", vec![n; 1000]).map(drop).unwrap());
            assert_eq!(cask.get("key").unwrap().value[0], 9);
        }
    }
    if before == Before::Unproven {
        // Closing it would sync the log and prove it.
        std::mem::forget(other);
    } else {
        other.close().unwrap();
    }
    cask
}

/// A game: what is done, how, and how long the lock is held.
struct Game {
    name: &'static str,
    before: Before,
    call: Call,
    config: Config,
    held: Duration,
    again: bool,
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The disk has none.
    None,
    Empty,
    /// A process that is stopped has the first place.
    Stopped,
}

struct Outcome {
    result: Result<(), Error>,
    waited: Duration,
    pauses: u64,
    holds: u32,
    turns: u32,
}

impl Game {
    fn play(&self) -> Outcome {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        disk.set_waiting_line(self.line != Line::None);
        let cask = prepared(&disk, self.before, &self.config);
        let stopped = disk.process().open(STORE.as_ref(), Access::ReadWrite).unwrap();
        if self.line == Line::Stopped {
            assert!(stopped.waiting_line().unwrap().try_place(0).unwrap());
        }
        // Turns that were contended end with a rest.
        clock.advance(Duration::from_secs(1));
        let holder = Holder::begin(&disk, &clock, self.held, self.again);
        let (began, pauses) = (clock.now(), disk.calls_of(Verb::Pause));
        // The handle is dropped with the lock free, so that this is no part of the call.
        let kept = cask.clone();
        let result = (self.call)(&disk, &self.config, cask);
        let (waited, pauses) = (clock.since(began), disk.calls_of(Verb::Pause) - pauses);
        disk.clear_hooks();
        let turns = holder.turns.load(Ordering::SeqCst);
        let _ = holder.file.unlock();
        drop(stopped);
        drop(kept);
        let holds = *holder.holds.lock().unwrap();
        Outcome { result, waited, pauses, holds, turns }
    }

    fn describe(&self, outcome: &Outcome) -> String {
        let Outcome { result, waited, pauses, holds, turns } = outcome;
        let (name, held, line, timeout) = (self.name, self.held, self.line, self.config.get_connection_timeout());
        let durability = self.config.get_durability();
        format!(
            "{name}, {durability:?}, timeout {timeout:?}, lock held for {held:?}, again: {}, {line:?}: \
             {holds} times, {turns} turns; waited {waited:?} with {pauses} pauses: {result:?}",
            self.again
        )
    }

    /// The most that may be lost with each hold: the pause in which the lock becomes free, and the wait for a process that
    /// is stopped.
    fn slack(&self) -> Duration {
        PAUSE + if self.line == Line::Stopped { COURTESY + PAUSE } else { Duration::ZERO }
    }
}

/// Settings for calls of one sort: all of them with `CASKFILE_WAITS=all`, and otherwise one in eleven.
fn games(calls: &'static [(&str, Before, Call)], check: impl Fn(&Game, &Outcome)) {
    let policy = CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 1000 };
    let milliseconds = Duration::from_millis;
    let times = [
        (None, milliseconds(300)),
        (None, milliseconds(20_000)),
        (Some(milliseconds(0)), milliseconds(5)),
        (Some(milliseconds(1)), milliseconds(3_600_000)),
        (Some(milliseconds(50)), milliseconds(0)),
        (Some(milliseconds(70)), milliseconds(45)),
        (Some(milliseconds(70)), milliseconds(85)),
        (Some(milliseconds(10_000)), milliseconds(9_900)),
        (Some(milliseconds(10_000)), milliseconds(10_100)),
    ];
    let every = if std::env::var("CASKFILE_WAITS").is_ok_and(|all| all == "all") { 1 } else { 11 };
    let mut number = 0;
    for &(name, before, call) in calls {
        for durability in [Durability::Sync, Durability::Interval(milliseconds(3_600_000)), Durability::Os] {
            for (timeout, held) in times {
                for again in [false, true] {
                    for line in [Line::None, Line::Empty, Line::Stopped] {
                        number += 1;
                        // A call of several turns, each of which may wait for the whole timeout.
                        let is_close = (timeout, held) == (Some(milliseconds(70)), milliseconds(45));
                        let is_played = is_close && again && (durability, line) == (Durability::Sync, Line::None);
                        if number % every != 0 && !is_played {
                            continue;
                        }
                        let config = Config::new().durability(durability).connection_timeout(timeout);
                        let is_overdue = before == Before::Overdue;
                        let config = config.compaction(if is_overdue { policy } else { CompactionPolicy::Manual });
                        let game = Game { name, before, call, config, held, again, line };
                        check(&game, &game.play());
                    }
                }
            }
        }
    }
}

#[test]
fn a_write_waits_for_the_lock_as_long_as_configured() {
    let Some(()) = with_a_deadline(a_write_waits_for_the_lock_as_long_as_configured) else { return };
    games(WRITES, |game, outcome| {
        let (waited, seen) = (outcome.waited, game.describe(outcome));
        let turns = outcome.turns;
        match game.config.get_connection_timeout() {
            Some(timeout) if timeout < game.held => {
                let Err(Error::LockTimeout { waited: said, .. }) = &outcome.result else { panic!("{seen}") };
                assert!(*said >= timeout && *said <= waited, "{seen}");
                // The last pause ends with the time.
                assert!(waited == timeout, "{seen}");
                assert!(timeout > Duration::ZERO || outcome.pauses == 0, "{seen}");
            }
            _ => {
                assert!(outcome.result.is_ok(), "{seen}");
                // It may be free again after the last turn.
                assert!(waited >= game.held && waited <= (game.held + game.slack()) * (turns + 1), "{seen}");
            }
        }
        looks_seldom(outcome, &seen);
    });
}

/// A process that waits long must not use the processor for it.
fn looks_seldom(outcome: &Outcome, seen: &str) {
    let each = 400 * u64::from(outcome.turns + 1);
    assert!(outcome.pauses <= each + 120 * outcome.waited.as_secs(), "{seen}");
}

/// All turns of a close wait for the timeout together, and then the file stays as it is.
#[test]
fn a_close_waits_for_the_lock_as_configured_and_succeeds() {
    let Some(()) = with_a_deadline(a_close_waits_for_the_lock_as_configured_and_succeeds) else { return };
    games(CLOSES, |game, outcome| {
        let (waited, seen) = (outcome.waited, game.describe(outcome));
        assert!(outcome.result.is_ok(), "{seen}");
        if let Some(timeout) = game.config.get_connection_timeout() {
            assert!(waited <= timeout, "{seen}");
        }
        looks_seldom(outcome, &seen);
    });
}

#[test]
fn no_read_waits_for_the_lock() {
    let Some(()) = with_a_deadline(no_read_waits_for_the_lock) else { return };
    games(READS, |game, outcome| {
        let seen = game.describe(outcome);
        assert!(outcome.result.is_ok() && outcome.pauses == 0 && outcome.waited.is_zero(), "{seen}");
    });
}

/// The system breaks a lease after 45 seconds. A call without a handle has no timeout of its own.
#[test]
fn checking_a_file_outwaits_a_lease_and_no_longer() {
    for (held, succeeds) in [(0, true), (45, true), (120, false)] {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        drop(prepared(&disk, Before::Closed, &Config::new()));
        let began = clock.now();
        let until = began + Duration::from_secs(held);
        disk.fail(When::next().of(Verb::Open), Fault::Os(libc::EAGAIN), Repeat::Forever);
        let now = clock.clone();
        disk.before(When::next().of(Verb::Open), Repeat::Forever, move |disk| {
            if now.now() >= until {
                disk.clear_faults();
            }
        });
        let checked = verify_on(&disk, STORE.as_ref());
        assert_eq!(checked.is_ok(), succeeds, "a lease for {held} s: {checked:?}");
        let waited = clock.since(began).as_secs();
        assert!(waited >= held.min(45) && waited <= 60, "a lease for {held} s: waited {waited} s");
    }
}

/// Another process has a lease on the file, as a file server may, for longer than all tries of a bounded number.
#[test]
fn an_opening_waits_for_a_lease_as_configured() {
    for read_only in [false, true] {
        for (timeout, held) in [(10_000, 9_900), (10_000, 10_100), (100_000, 60_000), (0, 1)] {
            let [timeout, held] = [timeout, held].map(Duration::from_millis);
            let disk = SimDisk::new();
            let clock = disk.stop_clock();
            drop(prepared(&disk, Before::Closed, &Config::new()));
            let config = Config::new().connection_timeout(timeout).read_only(read_only);
            disk.fail(When::next().of(Verb::Open), Fault::Os(libc::EAGAIN), Repeat::Forever);
            let began = clock.now();
            let (until, now) = (began + held, clock.clone());
            disk.before(When::next().of(Verb::Open), Repeat::Forever, move |disk| {
                if now.now() >= until {
                    disk.clear_faults();
                }
            });
            let opened = open(&disk, &config);
            let waited = clock.since(began);
            let seen = format!("timeout {timeout:?}, lease for {held:?}: waited {waited:?}: {opened:?}");
            if timeout < held {
                assert!(opened.is_err() && waited == timeout, "{seen}");
            } else {
                assert!(opened.is_ok() && waited >= held && waited <= held + PAUSE, "{seen}");
            }
        }
    }
}
