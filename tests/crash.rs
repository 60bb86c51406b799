//! Power cuts on the simulated disk.

mod common;
#[path = "common/dice.rs"]
mod dice;
#[path = "common/history.rs"]
mod history;
#[path = "crash/life.rs"]
mod life;
#[path = "common/ops.rs"]
mod ops;
#[path = "crash/plan.rs"]
mod plan;
#[path = "common/player.rs"]
mod player;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config, Durability};
use quickcheck::Arbitrary;

use dice::Dice;
use life::{CUTS, Life, Outcome, Weather};
use ops::{Filler, Kept, Op, Part, Place, Setup, Value};
use plan::{Act, Calls, Move, Step, plan};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Lives through the steps, of which the last `stormy` have this weather; if none has, the power is cut after them.
fn run(steps: &[Step], stormy: usize, seed: u64, weather: Weather) -> Outcome {
    let run = || {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_holes(!dice.one_in(8));
        disk.set_maps(!dice.one_in(8));
        let life = Life::new(disk, Weather::CALM, dice);
        for (at, step) in steps.iter().enumerate() {
            if at + stormy >= steps.len() {
                life.weather(weather);
            }
            life.step(step).map_err(|error| format!("step {at}, {step:?}:\n{error}"))?;
        }
        if stormy == 0 {
            life.weather(weather);
            life.cut("after all steps");
        }
        life.end().map_err(|error| format!("at the end:\n{error}"))
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default())
        }
    }
}

/// Makes a failing plan shorter as long as it fails, with this seed or one of a few others.
fn shrink(mut steps: Vec<Step>, mut seed: u64, mut error: String, weather: Weather) -> (Vec<Step>, u64, String) {
    let eager = Weather { outcomes: weather.outcomes * 4, one_in: 1, ..weather };
    let started = Instant::now();
    'shorter: while started.elapsed().as_secs() < 120 {
        for candidate in steps.shrink() {
            for attempt in 0..8 {
                let other = if attempt == 0 { seed } else { seed.wrapping_add(attempt << 32) };
                let weather = if attempt % 2 == 0 { weather } else { eager };
                if let Err(found) = run(&candidate, candidate.len(), other, weather) {
                    (steps, seed, error) = (candidate, other, found);
                    continue 'shorter;
                }
            }
        }
        break;
    }
    (steps, seed, error)
}

/// One step a line.
fn listing(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("    {step:?},\n")).collect()
}

/// How many power cuts there were up to now, by generation.
fn cuts() -> [u64; 8] {
    CUTS.each_ref().map(|count| count.load(Ordering::Relaxed))
}

fn sweep(name: &str, seeds: u64, most: usize, weather: Weather) {
    let (started, before) = (Instant::now(), cuts());
    let one = setting("CASKFILE_CRASH_SEED");
    let seeds = setting("CASKFILE_CRASH_SEEDS").unwrap_or(seeds);
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        if seed % 500 == 499 {
            println!("{name}: seed {seed}, {:?} power cuts in {:?}", cuts(), started.elapsed());
        }
        let steps = plan(seed, most);
        if let Err(error) = run(&steps, steps.len(), seed, weather) {
            println!("seed {seed}, {} steps: {error}", steps.len());
            let (steps, again, error) = shrink(steps, seed, error, weather);
            panic!("CASKFILE_CRASH_SEED={seed} (shrunk: dice {again}):\n{}{error}", listing(&steps));
        }
    }
    let after = cuts();
    let tried: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    println!("{name}: {tried:?} power cuts by generation in {:?}", started.elapsed());
}

/// A power cut had left the first eight bytes of a mark and the file's old length. A reader remembered them as
/// unfinished, as far as the file went; recovery then wrote the very same mark in their place, and made the file
/// longer, and the reader went on to compare the eight bytes with themselves.
#[test]
fn a_reader_notices_a_record_that_is_finished_where_the_file_ended() {
    let disk = SimDisk::new();
    let config = Config::new().durability(Durability::Os).connection_timeout(Duration::ZERO);
    let open = |config: &Config| Cask::open_on(Arc::new(disk.process()), "/store", config).unwrap();
    open(&config).close().unwrap();
    let empty = disk.contents("/store").unwrap();
    let writer = open(&config);
    writer.put("key", "value").unwrap();
    let full = disk.contents("/store").unwrap();
    let log_end = writer.stats().unwrap().log_end as usize;
    drop(writer);
    for kept in empty.len() - 7..log_end + 8 {
        disk.set_contents("/store", full[..kept].to_vec());
        let reader = open(&config.clone().read_only(true));
        let at_first = reader.list("").unwrap();
        disk.set_contents("/store", full.clone());
        assert_eq!(reader.list("").unwrap().len(), 1, "{kept} bytes were there at first, with {at_first:?}");
        reader.verify().unwrap();
    }
}

#[test]
fn after_a_power_cut_at_any_call_the_store_is_a_prefix_of_its_history() {
    let weather = Weather { outcomes: 3, one_in: 1, lives: 3, ..Weather::CALM };
    sweep("any call", 8, 10, weather);
}

/// A batch of three puts of this length, on the same keys each time.
fn batch(handle: usize, len: u32) -> Move {
    let put = |key| Part::Put(Place { bucket: 0, key }, Value { len, filler: Filler::Noise });
    Move { handle, act: Act::Call(Op::Write((0..3).map(put).collect())) }
}

fn put(handle: usize, len: u32) -> Move {
    let value = Value { len, filler: Filler::Noise };
    Move { handle, act: Act::Call(Op::Put(Place { bucket: 0, key: 3 }, value)) }
}

fn open(handle: usize, durability: Kept) -> Move {
    Move { handle, act: Act::Open(Setup { durability, ..Setup::DEFAULT }) }
}

/// Lives through the steps as often as the seeds say, in storms during the last ones.
fn check(steps: &[Step], stormy: usize, seeds: u64, weather: Weather) {
    let one = setting("CASKFILE_CRASH_SEED");
    let seeds = setting("CASKFILE_CRASH_SEEDS").unwrap_or(seeds);
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        if let Err(error) = run(steps, stormy, seed, weather) {
            panic!("CASKFILE_CRASH_SEED={seed}:\n{}{error}", listing(steps));
        }
    }
}

/// A process dies in the middle of a batch, and the one that is to cut off what it left dies in the middle of that,
/// at any call. A third, which has looked at the log's end long ago, writes a batch of the same shape; then the power
/// goes. What was cut off must not come back as a part of the new batch.
#[test]
fn what_a_dead_process_was_cutting_off_does_not_come_back_in_a_living_ones_batch() {
    // With this first length, each record of the batches fills a sector of its own.
    let (sectors, first, len, written) = (&[64], 64, 38, 150);
    let weather = Weather { outcomes: 0, lives: 1, exhaustive: Some(500), sectors, ..Weather::CALM };
    for (at, calls) in [(1, Calls::Writes), (1, Calls::Lengths), (1, Calls::Syncs), (2, Calls::Writes)] {
        let steps = [
            Step::Calm(open(0, Kept::Os)),
            Step::Calm(put(0, first)),
            Step::Calm(open(1, Kept::Os)),
            Step::Calm(put(1, 24)),
            Step::Calm(put(0, 24)),
            Step::Calm(Move { handle: 0, act: Act::Call(Op::Sync) }),
            Step::Kill { at: 1, calls: Calls::Writes, written, during: batch(1, len) },
            Step::Kill { at, calls, written: 8, during: open(2, Kept::Os) },
            Step::Calm(batch(0, len)),
        ];
        check(&steps, 0, 1, weather);
    }
}
