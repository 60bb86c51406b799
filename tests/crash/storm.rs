//! Lives in bad weather, and how a sequence of steps that fails is made shorter.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use caskfile::Limits;
use caskfile::disk::sim::SimDisk;
use quickcheck::Arbitrary;

use crate::common::dice::Dice;
use crate::life::{CUTS, Life, Outcome, Weather};
use crate::plan::{Kind, Step, plan};

pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Says where a test has failed: at which seed and step.
pub struct Story(pub u64, pub Cell<u32>);

impl Drop for Story {
    fn drop(&mut self) {
        println!("seed {}, step {}", self.0, self.1.get());
    }
}

/// The seeds to try: `seeds` of them by default, `CASKFILE_CRASH_SEEDS` if that says how many, from
/// `CASKFILE_CRASH_SEED` on if that says which, and else that one alone.
pub fn chosen(seeds: u64) -> Range<u64> {
    let (first, count) = (setting("CASKFILE_CRASH_SEED"), setting("CASKFILE_CRASH_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { seeds });
    first.unwrap_or(0)..first.unwrap_or(0) + count
}

/// Limits that a sequence crosses all the time. Bytes are passed on in pieces of some kilobytes: each piece is a call, at which
/// the power may be cut, and values have up to seventy of them.
const SMALL: Limits = Limits {
    rewritten_at_once: 8 << 10,
    zeros_ahead: 4 << 10,
    smallest_step: 2 << 10,
    largest_step: 16 << 10,
    step_unit: 1 << 10,
    cleared_at_once: 4 << 10,
    chunk: 8 << 10,
    largest_chunk: 8 << 10,
    smallest_chunk: 512,
    largest_window: 8 << 10,
    usual_window: 8 << 10,
    smallest_window: 512,
    copied_at_once: 2 << 10,
    verified_at_once: 2 << 10,
    ..Limits::SMALL
};

/// Lives through the steps, of which the last `stormy` have this weather; if none has, the power is cut after them.
pub fn run(prepare: fn(&SimDisk), steps: &[Step], stormy: usize, seed: u64, weather: Weather) -> Outcome {
    let run = || {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::from_seed(dice.roll());
        disk.set_holes(!dice.one_in(8));
        disk.set_maps(!dice.one_in(8));
        disk.set_limits(if dice.one_in(2) { SMALL } else { Limits::REAL });
        prepare(&disk);
        let life = Life::new(disk, dice);
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
fn shrink(
    prepare: fn(&SimDisk),
    mut steps: Vec<Step>,
    mut seed: u64,
    mut error: String,
    weather: Weather,
) -> (Vec<Step>, u64, String) {
    let eager = Weather { outcomes: weather.outcomes * 4, one_in: 1, ..weather };
    let started = Instant::now();
    'shorter: while started.elapsed().as_secs() < 120 {
        for candidate in steps.shrink() {
            for attempt in 0..8 {
                let other = if attempt == 0 { seed } else { seed.wrapping_add(attempt << 32) };
                let weather = if attempt % 2 == 0 { weather } else { eager };
                if let Err(found) = run(prepare, &candidate, candidate.len(), other, weather) {
                    (steps, seed, error) = (candidate, other, found);
                    continue 'shorter;
                }
            }
        }
        break;
    }
    (steps, seed, error)
}

/// What plays a failure of the running test again.
pub fn command(seed: u64) -> String {
    let thread = std::thread::current();
    format!("CASKFILE_CRASH_SEED={seed} cargo test --test crash {} -- --exact", thread.name().unwrap_or_default())
}

/// One step a line.
pub fn listing(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("    {step:?},\n")).collect()
}

/// How many power cuts there were up to now, by generation.
fn cuts() -> [u64; 8] {
    CUTS.each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Tries as many random sequences as the seeds say, each in storms all the time.
pub fn sweep(name: &str, kind: Kind, seeds: u64, most: usize, weather: Weather) {
    sweep_on(|_| {}, name, kind, seeds, most, weather);
}

/// The same on disks that are prepared for it.
pub fn sweep_on(prepare: fn(&SimDisk), name: &str, kind: Kind, seeds: u64, most: usize, weather: Weather) {
    let (started, before) = (Instant::now(), cuts());
    let seconds = setting("CASKFILE_CRASH_SECONDS");
    let mut tried = 0;
    for seed in if seconds.is_some() { chosen(0).start..u64::MAX } else { chosen(seeds) } {
        if seconds.is_some_and(|seconds| started.elapsed().as_secs() >= seconds) {
            break;
        }
        tried += 1;
        if seed % 500 == 499 {
            println!("{name}: seed {seed}, {:?} power cuts in {:?}", cuts(), started.elapsed());
        }
        let steps = plan(seed, most, kind);
        if let Err(error) = run(prepare, &steps, steps.len(), seed, weather) {
            println!("seed {seed}, {} steps: {error}", steps.len());
            let (steps, again, error) = shrink(prepare, steps, seed, error, weather);
            let shrunk = listing(&steps);
            panic!("{}, here made shorter, with dice {again}:\n{shrunk}{error}", command(seed));
        }
    }
    let after = cuts();
    let cuts: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    println!(
        "{name}: {tried} seeds, {} simulated power cuts tried ({cuts:?} by how many came before); {:?}",
        cuts.iter().sum::<u64>(),
        started.elapsed()
    );
}

/// Lives through the steps as often as the seeds say, in storms during the last ones.
pub fn check(prepare: fn(&SimDisk), steps: &[Step], stormy: usize, seeds: u64, weather: Weather) {
    for seed in chosen(seeds) {
        if let Err(error) = run(prepare, steps, stormy, seed, weather) {
            panic!("{}:\n{}{error}", command(seed), listing(steps));
        }
    }
}
