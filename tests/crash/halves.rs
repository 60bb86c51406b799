//! Readers between the halves of one write. A writer's calls were recorded; at each call of a reader, and at each look through
//! its map, the next part of them happens: a piece of a write, up to any byte, or several whole calls. Whatever the reader
//! meets, it shows whole writes and no half of one, each finished write at once, and no damage.
//!
//! `CASKFILE_HALVES` says how many times as many games are played; a failure prints the seed that `CASKFILE_HALVES_SEED`
//! plays again.

mod film;

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use caskfile::disk::Disk;
use caskfile::disk::sim::{Cue, Repeat, SimDisk, When};
use caskfile::inspect::{CatchUp, Inspection, verify_on};
use caskfile::{Cask, Error, ReadMode};

use crate::common::dice::Dice;
use crate::common::history::{Call, Pair, State};
use crate::common::ops::{Copying, Kept, Setup, Whole};
use crate::common::player::{answer, ask, copy, look_at_copy, read_all};
use crate::life::{Outcome, STORE};
use crate::storm::setting;
use film::{Film, films};

/// A film that is played to the processes of a disk.
struct Stage {
    film: Arc<Film>,
    disk: SimDisk,
    progress: Arc<Mutex<Progress>>,
}

struct Progress {
    at: Cue,
    dice: Dice,
    /// The film stands at this many calls of the reader, and goes on at the next one.
    patience: u64,
    /// After that, it goes on at one call in this number.
    one_in: u64,
    /// A process on the stage has a lock that the writer waits for. From then on it would do something else than was recorded.
    over: bool,
}

/// What the games of one test are played with.
struct Reader<'g> {
    stage: &'g Stage,
    process: SimDisk,
    setup: Setup,
    dice: &'g mut Dice,
}

impl Stage {
    fn new(film: &Arc<Film>, dice: &mut Dice) -> Stage {
        let (film, disk, one_in) = (Arc::clone(film), film.base.fork(), dice.choose(&[1, 2, 4, 10]));
        let patience = if dice.one_in(2) { 1 + dice.below(12) } else { 0 };
        let progress = Progress { at: Cue::default(), dice: Dice::new(dice.roll()), patience, one_in, over: false };
        Stage { film, disk, progress: Arc::new(Mutex::new(progress)) }
    }

    /// Goes on to a random place.
    fn begin(&self, dice: &mut Dice) {
        let mut at = self.at();
        for _ in 0..dice.choose(&[0, 0, 1, 2, 4, 8, 12]) {
            at = self.film.later(at, dice);
        }
        self.play_to(at);
    }

    fn at(&self) -> Cue {
        self.progress.lock().unwrap().at
    }

    fn play_to(&self, to: Cue) {
        let mut progress = self.progress.lock().unwrap();
        progress.at = self.disk.play(&self.film.recording, progress.at, to);
    }

    /// Acts in a process, while the film goes on at its calls. Returns between which numbers of operations the outcome must
    /// lie, too.
    fn during<T>(&self, process: &SimDisk, act: impl FnOnce() -> T) -> (T, RangeInclusive<usize>) {
        let returned = self.film.bounds(self.at()).0;
        let (film, disk, progress) = (Arc::clone(&self.film), self.disk.clone(), Arc::clone(&self.progress));
        process.before(When::nth(1).by(process).and_map_reads(), Repeat::Forever, move |_| {
            let progress = &mut *progress.lock().unwrap();
            progress.over |= is_locked_here(&disk);
            let is_due = match progress.patience.checked_sub(1) {
                Some(left) => std::mem::replace(&mut progress.patience, left) == 1,
                None => progress.dice.one_in(progress.one_in),
            };
            if progress.over || !is_due {
                return;
            }
            let to = film.later(progress.at, &mut progress.dice);
            progress.at = disk.play(&film.recording, progress.at, to);
            progress.over = progress.at < to;
        });
        let outcome = act();
        process.clear_hooks();
        (outcome, returned..=self.film.bounds(self.at()).1)
    }

    fn is_over(&self) -> bool {
        self.progress.lock().unwrap().over
    }

    fn states(&self, bounds: &RangeInclusive<usize>) -> &[State] {
        &self.film.states[bounds.clone()]
    }
}

/// Whether a process on the stage has the lock of the store's file.
fn is_locked_here(disk: &SimDisk) -> bool {
    let file = disk.process().stat(Path::new(STORE));
    file.is_ok_and(|stat| disk.system().lock_holder(&stat.identity).is_some())
}

impl Reader<'_> {
    fn try_open(&self) -> Result<Cask, Error> {
        Cask::open_on(Arc::new(self.process.clone()), STORE, &self.setup.config())
    }

    /// A handle, and the film at some place. A writer opens before the film begins, since it wants the lock.
    fn open(&mut self) -> Result<Cask, String> {
        self.setup.read_only |= !self.stage.film.tidy;
        if self.setup.read_only && self.dice.one_in(2) {
            self.stage.begin(self.dice);
        }
        let cask = self.try_open().map_err(|error| format!("opening: {error}"));
        self.stage.begin(self.dice);
        cask
    }

    /// Asks the same again and again: while the film goes on, when it stands, and when it has ended. Answers must be of a
    /// moment of the call, and never of an earlier moment than the answer before.
    fn poll(&mut self, cask: &Cask, call: &Call) -> Outcome {
        let mut seen = 0;
        let expect = |said: Result<_, Error>, bounds: RangeInclusive<usize>, seen: &mut usize| {
            let said = said.map_err(|error| format!("{call:?}: {error}"))?;
            let from = *bounds.start().max(seen);
            let fits = (from..=*bounds.end()).find(|&at| answer(call, &self.stage.film.states[at]) == said);
            let expected =
                || (from..=*bounds.end()).map(|at| answer(call, &self.stage.film.states[at])).collect::<Vec<_>>();
            *seen = fits.ok_or_else(|| format!("{call:?} said {said:?}, expected one of {:?}", expected()))?;
            Ok::<_, String>(())
        };
        for round in 0..3 {
            let (said, bounds) = self.stage.during(&self.process, || ask(cask, call));
            expect(said, bounds, &mut seen).map_err(|why| format!("call {round}: {why}"))?;
            // It stands for a while.
            let bounds = self.stage.film.bounds(self.stage.at());
            expect(ask(cask, call), bounds.0..=bounds.1, &mut seen)
                .map_err(|why| format!("after call {round}: {why}"))?;
        }
        self.stage.play_to(self.stage.film.recording.end());
        let last = self.stage.film.states.len() - 1;
        expect(ask(cask, call), last..=last, &mut seen).map_err(|why| format!("when all is written: {why}"))
    }

    /// Everything in the store, at the end.
    fn expect_all(&self, cask: &Cask) -> Outcome {
        self.stage.play_to(self.stage.film.recording.end());
        let found = read_all(cask).map_err(|error| format!("at the end: {error}"))?;
        expect_one_of(&found, &self.stage.film.states[self.stage.film.states.len() - 1..])
    }

    fn call(&mut self) -> Call {
        let place = || (0, b"a".to_vec());
        match self.dice.below(11) {
            0 => Call::Get(place(), 0),
            1 => Call::Get(place(), 1),
            2 => Call::Get(place(), 2),
            3 => Call::Get((0, b"b".to_vec()), 0),
            4 => Call::Get((0, b"k/1".to_vec()), 3),
            5 => Call::List(0, Vec::new(), 0),
            6 => Call::List(0, b"a".to_vec(), 2),
            7 if self.dice.one_in(2) => Call::Len(0),
            7 => Call::Stats,
            8 => Call::Buckets,
            9 => Call::Whole(Whole::ByIndex),
            _ => Call::Whole(Whole::ByBucket),
        }
    }
}

fn expect_one_of(found: &State, states: &[State]) -> Outcome {
    if states.contains(found) {
        return Ok(());
    }
    let of = |state: &State| state.iter().map(|(key, pair)| format!("{key:?} {}", pair.index)).collect::<Vec<_>>();
    Err(format!("found {:?}, expected one of {:?}", of(found), states.iter().map(of).collect::<Vec<_>>()))
}

/// Plays a game for each seed, with every film, in both ways to read.
fn play(seeds: u64, game: fn(&mut Reader<'_>) -> Outcome) {
    let (only, times) = (setting("CASKFILE_HALVES_SEED"), setting("CASKFILE_HALVES").unwrap_or(1));
    let mut failures = Vec::new();
    for reads in [ReadMode::Map, ReadMode::Pread] {
        for film in films(reads) {
            for seed in only.map_or(0..seeds * times, |seed| seed..seed + 1) {
                let mut dice = Dice::new(seed);
                let stage = Stage::new(&film, &mut dice);
                let setup = Setup {
                    durability: Kept::Os,
                    pread: reads == ReadMode::Pread,
                    read_only: dice.one_in(2),
                    exclusive: false,
                };
                let process = stage.disk.process();
                let mut reader = Reader { stage: &stage, process, setup, dice: &mut dice };
                let outcome = catch_unwind(AssertUnwindSafe(|| game(&mut reader)));
                let outcome = outcome.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default())
                });
                if let Err(why) = outcome {
                    failures.push(format!("{}, {setup:?}, CASKFILE_HALVES_SEED={seed}:\n{why}", film.name));
                    break;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_reader_sees_each_finished_write_and_no_half_of_one() {
    play(250, |reader| {
        let cask = reader.open()?;
        let call = reader.call();
        // Half of the readers have read before, and some have met a half that still stands.
        if reader.dice.one_in(2) {
            ask(&cask, &call).map_err(|error| format!("before: {error}"))?;
        }
        reader.poll(&cask, &call)?;
        reader.expect_all(&cask)
    });
}

#[test]
fn a_store_opened_beside_a_write_shows_whole_writes() {
    play(100, |reader| {
        reader.stage.begin(reader.dice);
        let call = Call::Whole(Whole::ByIndex);
        let (said, bounds) = reader.stage.during(&reader.process, || {
            let cask = reader.try_open()?;
            ask(&cask, &call).map(|said| (cask, said))
        });
        let cask = match said {
            Ok((cask, said)) => {
                let fits = reader.stage.states(&bounds).iter().any(|state| answer(&call, state) == said);
                if !fits {
                    return Err(format!("it showed {said:?}, expected one of {bounds:?}"));
                }
                cask
            }
            // A writer recovers what it finds. It cannot while another one has the lock.
            Err(Error::LockTimeout { .. }) if !reader.setup.read_only => {
                reader.stage.play_to(reader.stage.film.recording.end());
                reader.try_open().map_err(|error| format!("opening after the write: {error}"))?
            }
            Err(error) => return Err(format!("opening: {error}")),
        };
        if reader.setup.read_only {
            reader.poll(&cask, &call)?;
        }
        if reader.stage.is_over() { Ok(()) } else { reader.expect_all(&cask) }
    });
}

#[test]
fn verifying_beside_a_write_finds_no_damage() {
    play(60, |reader| {
        let handle = reader.open()?;
        let by_handle = reader.dice.one_in(2).then_some(handle);
        let (report, bounds) = reader.stage.during(&reader.process, || match &by_handle {
            Some(cask) => cask.verify(),
            None => verify_on(&reader.process, Path::new(STORE)),
        });
        let report = report.map_err(|error| format!("verify: {error}"))?;
        let states = reader.stage.states(&bounds);
        let fits = states.iter().any(|state| state.len() as u64 == report.keys);
        if fits { Ok(()) } else { Err(format!("{report:?}, expected one of {bounds:?}")) }
    });
}

#[test]
fn a_copy_made_beside_a_write_is_of_one_moment() {
    play(40, |reader| {
        let (cask, to) = (reader.open()?, Path::new("/copy"));
        let copying = reader.dice.choose(&[Copying::Backup, Copying::CompactTo, Copying::CompactTo]);
        if reader.dice.one_in(3) {
            let call = Call::Whole(Whole::Stream);
            return reader.poll(&cask, &call);
        }
        let (made, bounds) =
            reader.stage.during(&reader.process, || copy(&cask, copying, &reader.process, Path::new(STORE), to));
        made.map_err(|error| format!("{copying:?}: {error}"))?;
        let found = look_at_copy(Arc::new(reader.process.clone()), to, 0)?;
        expect_one_of(&found, reader.stage.states(&bounds))?;
        reader.expect_all(&cask)
    });
}

#[test]
fn a_follower_comes_to_the_end_of_each_write() {
    play(60, |reader| {
        reader.stage.begin(reader.dice);
        let open = || Inspection::open_on(Arc::new(reader.process.clone()), STORE).map_err(|error| error.to_string());
        let mut inspection = reader.stage.during(&reader.process, open).0?;
        let follow = |inspection: &mut Inspection| {
            if inspection.catch_up().map_err(|error| error.to_string())? == CatchUp::NewLog {
                *inspection = open()?;
            }
            inspection.check().map(drop).map_err(|error| error.to_string())
        };
        for _ in 0..3 {
            reader.stage.during(&reader.process, || follow(&mut inspection)).0?;
        }
        reader.stage.play_to(reader.stage.film.recording.end());
        for _ in 0..5 {
            follow(&mut inspection)?;
        }
        let (found, expected) = (inspection.log_end(), open()?.log_end());
        if found == expected { Ok(()) } else { Err(format!("it stays at {found}, and the log ends at {expected}")) }
    });
}

#[test]
fn a_writer_that_comes_beside_a_write_keeps_both() {
    play(80, |reader| {
        if !reader.stage.film.tidy {
            return Ok(());
        }
        reader.setup.read_only = false;
        let cask = reader.open()?;
        let (own, value) = ((0, b"own".to_vec()), b"of another writer");
        let put = || cask.put(&own.1, value);
        let (outcome, bounds) = reader.stage.during(&reader.process, put);
        let states = match outcome {
            Ok(_) => reader.stage.states(&bounds),
            Err(Error::LockTimeout { .. }) => {
                reader.stage.play_to(reader.stage.film.recording.end());
                put().map_err(|error| format!("after the other one: {error}"))?;
                &reader.stage.film.states[reader.stage.film.states.len() - 1..]
            }
            Err(error) => return Err(format!("put: {error}")),
        };
        let open = Cask::open_on(Arc::new(reader.stage.disk.process()), STORE, &Setup::READER.config());
        for cask in [&cask, &open.map_err(|error| format!("opened again: {error}"))?] {
            let mut found = read_all(cask).map_err(|error| error.to_string())?;
            let Some(Pair { value: found_value, .. }) = found.remove(&own) else {
                return Err(String::from("its own pair is not there"));
            };
            assert_eq!(&*found_value, value);
            expect_one_of(&found, states)?;
        }
        Ok(())
    });
}

/// A batch that was torn is cut off, and the later records of another one lie where those of the first one were: all between two
/// reads of a reader that has the first record of the torn one in its memory.
#[test]
fn operations_at_any_call_of_a_reader_make_no_mixture_of_two_batches() {
    for reads in [ReadMode::Map, ReadMode::Pread] {
        for film in films(reads).iter().filter(|film| film.name.contains("torn batch")) {
            let cues = film.cues_between_operations();
            for (from, to) in (0..cues.len()).flat_map(|from| (from + 1..cues.len()).map(move |to| (from, to))) {
                let calls = [Call::Stats, Call::Len(0), Call::List(0, Vec::new(), 0)];
                for (nth, call) in (1..).flat_map(|nth| calls.clone().map(|call| (nth, call))) {
                    let (disk, setup) = (film.base.fork(), Setup { pread: reads == ReadMode::Pread, ..Setup::READER });
                    let process = disk.process();
                    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &setup.config()).unwrap();
                    disk.play(&film.recording, cues[0], cues[from]);
                    let (playing, disk, cues) = (Arc::clone(film), disk.clone(), cues.clone());
                    let came = Arc::new(AtomicBool::new(false));
                    let comes = Arc::clone(&came);
                    process.before(When::nth(nth).by(&process).and_map_reads(), Repeat::Once, move |_| {
                        comes.store(true, Ordering::Relaxed);
                        disk.play(&playing.recording, cues[from], cues[to]);
                    });
                    let story = format!("{}, {reads:?}, {call:?}: {from} to {to} at call {nth}", film.name);
                    let said = ask(&cask, &call).unwrap_or_else(|error| panic!("{story}: {error}"));
                    let fits = film.states[from..=to].iter().any(|state| answer(&call, state) == said);
                    assert!(fits, "{story}: {said:?}");
                    process.clear_hooks();
                    if !came.load(Ordering::Relaxed) {
                        break;
                    }
                    let said = ask(&cask, &call).unwrap_or_else(|error| panic!("{story}, again: {error}"));
                    assert!(said == answer(&call, &film.states[to]), "{story}, again: {said:?}");
                }
            }
        }
    }
}
