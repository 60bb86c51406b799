//! Sleepers: watches that sleep most of the time, beside writers, compactions and renames, for hours.
//!
//! ```text
//! cargo run --release --example soak -- sleepers 3600 [DIRECTORY]
//! ```
//!
//! Four processes watch a store, two by `Watch::next_timeout` and two by the descriptor. Two writers put a number each, one higher
//! each time, with pauses of up to a second and a half; now and then one is killed. A third process compacts. This program moves the
//! store away and back, and puts backups in its place.
//!
//! Each sleeper compares what it gets: the numbers of a writer come one after the other, none twice and none left out, also over
//! compactions and over a time in which the store was moved away. And it counts what only its own look has found, every quarter of
//! a second, although the system should have reported it (`Stats::unreported_changes`): that must be nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caskfile::{
    Cask, Change, CompactionPolicy, Config, Durability, Error, LockMode, OptionalExt, Stopper, Watch, WatchFrom,
};

use crate::dice::Dice;
use crate::tally::{Slot, Tally};
use crate::{Place, Result, start};

const WORKERS: [&str; 7] =
    ["sleeper-0", "sleeper-1", "sleeper-2", "sleeper-3", "counter-0", "counter-1", "compactor-0"];

/// Later than any report on a machine that is not very busy, and before a watch looks by itself.
const LATE: Duration = Duration::from_millis(200);

fn config() -> Config {
    Config::new()
        .durability(Durability::Os)
        .lock_mode(LockMode::PerWrite)
        .compaction(CompactionPolicy::Manual)
        .connection_timeout(Duration::from_secs(60))
}

/// Opens the store, once it is there.
fn open(place: &Place, done: &AtomicBool) -> Result<Option<Cask>> {
    while !done.load(Ordering::Relaxed) {
        match Cask::open_with(place.store(), &config().create(false)) {
            Ok(cask) => return Ok(Some(cask)),
            Err(error) if is_away(&error) => std::thread::sleep(Duration::from_millis(3)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Whether the store has no name at the moment, or its name is that of another file.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Replaced { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Starts the processes, kills writers, and moves the store.
pub fn run(place: &Place, how_long: Duration) -> Result<()> {
    Cask::open_with(place.store(), &config())?.close()?;
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut workers = WORKERS.iter().map(|worker| start(worker, place)).collect::<Result<Vec<_>>>()?;
    let (began, mut said) = (Instant::now(), Instant::now());
    let (mut kills, mut moves, mut restores) = (0, 0, 0);
    while began.elapsed() < how_long {
        std::thread::sleep(Duration::from_millis(1000 + dice.below(5000)));
        for (worker, name) in workers.iter_mut().zip(WORKERS) {
            if let Some(status) = worker.try_wait()? {
                return Err(format!("{name} has ended by itself: {status}").into());
            }
        }
        match dice.below(4) {
            0 => {
                let victim = WORKERS.iter().position(|worker| worker.starts_with("counter")).unwrap_or(0)
                    + dice.below(2) as usize;
                workers[victim].kill()?;
                workers[victim].wait()?;
                workers[victim] = start(WORKERS[victim], place)?;
                kills += 1;
            }
            1 => {
                let away = place.store().with_extension("away");
                std::fs::rename(place.store(), &away)?;
                std::thread::sleep(Duration::from_millis(dice.below(400)));
                // A compaction may have given the name to its file meanwhile, which a link does not replace.
                match std::fs::hard_link(&away, place.store()) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    linked => linked?,
                }
                std::fs::remove_file(&away)?;
                moves += 1;
            }
            2 if dice.below(4) == 0 => {
                let _ = std::fs::remove_file(place.backup());
                match Cask::open_with(place.store(), &config()).and_then(|cask| cask.backup(place.backup())) {
                    Ok(_) => std::fs::rename(place.backup(), place.store())?,
                    Err(error) if is_away(&error) => continue,
                    Err(error) => return Err(error.into()),
                }
                restores += 1;
            }
            _ => {}
        }
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            println!("{:6.0} s  {}", began.elapsed().as_secs_f64(), summary(place)?);
        }
    }
    for (worker, name) in workers.iter_mut().zip(WORKERS) {
        drop(worker.stdin.take());
        let status = worker.wait()?;
        if !status.success() {
            return Err(format!("{name} has failed: {status}").into());
        }
    }
    println!("{}", summary(place)?);
    println!(
        "{kills} writers were killed, the store was moved away {moves} times and restored {restores} times; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    match sum(place, "sleeper", Slot::Unreported)? {
        0 => Ok(()),
        unreported => Err(format!("{unreported} changes were not reported").into()),
    }
}

fn sum(place: &Place, role: &str, slot: Slot) -> Result<u64> {
    let workers = WORKERS.iter().filter(|worker| worker.starts_with(role));
    workers.map(|worker| Ok(place.tally(worker)?.get(slot)?)).sum()
}

fn summary(place: &Place) -> Result<String> {
    let of = |slot| sum(place, "sleeper", slot);
    Ok(format!(
        "{} puts, {} compactions; {} waits ended with a write, {} of them after more than {} ms, {} without a report; \
         {} watches ended and went on, {} began again",
        sum(place, "counter", Slot::Sequence)?,
        sum(place, "compactor", Slot::Looks)?,
        of(Slot::Woken)?,
        of(Slot::Late)?,
        LATE.as_millis(),
        of(Slot::Unreported)?,
        of(Slot::Resumed)?,
        of(Slot::BegunAgain)?,
    ))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Puts a number that is one higher each time, and when that was.
pub fn count(place: &Place, number: &str, tally: &Tally, done: &AtomicBool) -> Result<()> {
    let key = format!("count/{number}");
    let mut dice = Dice::new(std::process::id().into());
    let Some(mut cask) = open(place, done)? else { return Ok(()) };
    while !done.load(Ordering::Relaxed) {
        let put = cask.get(&key).optional().and_then(|pair| {
            let count = pair.map_or(0, |pair| number_in(&pair.value)) + 1;
            cask.put(&key, [count, since_epoch().as_micros() as u64].map(u64::to_le_bytes).concat())
        });
        match put {
            Ok(_) => tally.add(Slot::Sequence)?,
            Err(error) if is_away(&error) => match open(place, done)? {
                Some(other) => cask = other,
                None => break,
            },
            Err(error) => return Err(error.into()),
        }
        let pause = match dice.below(10) {
            0..6 => dice.below(30),
            6..9 => 30 + dice.below(270),
            _ => 300 + dice.below(1200),
        };
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

pub fn compact(place: &Place, tally: &Tally, done: &AtomicBool) -> Result<()> {
    let mut dice = Dice::new(std::process::id().into());
    let Some(mut cask) = open(place, done)? else { return Ok(()) };
    while !done.load(Ordering::Relaxed) {
        match cask.compact() {
            Ok(_) => tally.add(Slot::Looks)?,
            Err(Error::CompactionOvertaken { .. } | Error::CompactionRefused { .. }) => {}
            Err(error) if is_away(&error) => match open(place, done)? {
                Some(other) => cask = other,
                None => break,
            },
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(200 + dice.below(3000)));
    }
    Ok(())
}

fn number_in(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What a process has learned from its watches.
struct Sleeper<'p> {
    tally: &'p Tally,
    /// The last number of each writer.
    counts: BTreeMap<Vec<u8>, u64>,
    /// Where the next watch begins; `None` for a listing.
    position: Option<u64>,
}

/// Watches until standard input ends.
pub fn sleep(place: &Place, by_descriptor: bool, tally: &Tally, done: &AtomicBool, end: &End) -> Result<()> {
    let mut sleeper = Sleeper { tally, counts: BTreeMap::new(), position: None };
    while let Some(cask) = open(place, done)? {
        let from = sleeper.position.map_or(WatchFrom::Snapshot, WatchFrom::After);
        let ended = match cask.changes("count/", from) {
            Ok(mut watch) => {
                *end.lock().map_err(|_| "poisoned")? = Some(watch.stopper());
                if done.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if sleeper.position.is_some() {
                    tally.add(Slot::Resumed)?;
                }
                let ended = sleeper.follow(&cask, &mut watch, by_descriptor)?;
                sleeper.position = Some(watch.position());
                ended
            }
            Err(error) => error,
        };
        match ended {
            Error::Stopped => return Ok(()),
            Error::Compacted { .. } | Error::Undone { .. } => {
                sleeper.position = None;
                tally.add(Slot::BegunAgain)?;
            }
            error if is_away(&error) => {}
            error => return Err(error.into()),
        }
    }
    Ok(())
}

/// What ends the watch of this process.
pub type End = Mutex<Option<Stopper>>;

impl Sleeper<'_> {
    /// Returns what has ended the watch.
    fn follow(&mut self, cask: &Cask, watch: &mut Watch, by_descriptor: bool) -> Result<Error> {
        let descriptor = match by_descriptor {
            true => Some(watch.descriptor()?.try_clone_to_owned()?),
            false => None,
        };
        let (mut has_slept, mut unreported) = (false, 0);
        loop {
            let next = match &descriptor {
                Some(_) => watch.try_next(),
                None => match watch.try_next() {
                    Ok(None) => {
                        has_slept = true;
                        watch.next_timeout(None)
                    }
                    next => next,
                },
            };
            match next {
                Ok(Some(unit)) => {
                    let is_listing = unit.is_listing();
                    let changes = unit.into_changes()?;
                    // Now, since a handle without its file says nothing.
                    let all = cask.stats().map_or(unreported, |stats| stats.unreported_changes);
                    if all > unreported {
                        self.tally.set(Slot::Unreported, self.tally.get(Slot::Unreported)? + all - unreported)?;
                        unreported = all;
                    }
                    self.take(is_listing, changes, std::mem::take(&mut has_slept))?;
                }
                Ok(None) => {
                    has_slept = true;
                    wait_for(descriptor.as_ref().ok_or("no time was set")?)?;
                }
                Err(error) => return Ok(error),
            }
        }
    }

    fn take(&mut self, is_listing: bool, changes: Vec<Change>, has_slept: bool) -> Result<()> {
        if is_listing {
            self.counts.clear();
        }
        for change in changes {
            let value = change.value().ok_or("a number was deleted")?;
            let number = number_in(value);
            let before = self.counts.insert(change.key().to_vec(), number);
            if !is_listing && before.unwrap_or(0) + 1 != number {
                let key = String::from_utf8_lossy(change.key()).into_owned();
                return Err(format!("{number} of {key} comes after {before:?}").into());
            }
            if has_slept && !is_listing {
                let written = value.get(8..).map_or(0, number_in);
                let late = since_epoch().saturating_sub(Duration::from_micros(written)) > LATE;
                self.tally.add(Slot::Woken)?;
                if late {
                    self.tally.add(Slot::Late)?;
                }
            }
        }
        Ok(())
    }
}

fn wait_for(descriptor: &OwnedFd) -> Result<()> {
    let mut polled = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one element, as the call is given, which lives until it returns.
    match unsafe { libc::poll(&mut polled, 1, -1) } {
        -1 => Err(std::io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}
