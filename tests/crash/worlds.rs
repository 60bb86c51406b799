//! All small worlds: up to four operations by one or two processes with mixed durabilities, and a power cut at every
//! call to the disk, in every way that the disk may be found then.
//!
//! A small part of the worlds is tried unless `CASKFILE_WORLDS` says which: `all`, or `from..to` by their numbers. They
//! are tried in the order of their numbers, and how far the run has come is printed, so that a long one can be
//! interrupted and gone on with; after `CASKFILE_WORLDS_SECONDS` it ends by itself. `CASKFILE_THREADS` says how many
//! threads share the work.

mod lab;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lab::{Seen, explore};

/// Which worlds are tried: every `step`-th of a range of numbers.
struct Chosen {
    from: u64,
    to: u64,
    step: u64,
}

impl Chosen {
    fn from_environment() -> Chosen {
        let all = Chosen { from: 0, to: world::count(), step: 1 };
        let Ok(text) = std::env::var("CASKFILE_WORLDS") else { return Chosen { step: DEFAULT_STEP, ..all } };
        let number =
            |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("CASKFILE_WORLDS: {text:?} is no number"));
        match (text.split_once(".."), text.strip_prefix("1/")) {
            _ if text == "all" => all,
            (Some((from, to)), _) => {
                let to = if to.is_empty() { all.to } else { number(to).min(all.to) };
                Chosen { from: number(from), to, step: 1 }
            }
            (None, Some(step)) => Chosen { step: number(step), ..all },
            (None, None) => panic!("CASKFILE_WORLDS is all, from..to, or 1/n for every n-th: not {text:?}"),
        }
    }
}

/// So that the default takes seconds.
const DEFAULT_STEP: u64 = 8009;

fn threads() -> usize {
    std::env::var("CASKFILE_THREADS").map_or(1, |text| text.parse().expect("CASKFILE_THREADS is a number"))
}

/// Runs a world, whatever happens.
fn outcome(number: u64, seen: &Arc<Seen>) -> Result<(), String> {
    let world = world::world(number);
    if world.is_another() {
        return Ok(());
    }
    let run = || explore(&world, seen);
    let returned = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default())
    });
    returned.map_err(|error| {
        format!(
            "world {number}: {world}\n{error}\nCASKFILE_WORLDS={number}..{} cargo test --test crash worlds::",
            number + 1
        )
    })
}

#[test]
fn every_small_world_survives_every_power_cut() {
    keep_memory();
    let Chosen { from, to, step } = Chosen::from_environment();
    let (seen, started) = (Arc::<Seen>::default(), Instant::now());
    let seconds: Option<u64> =
        std::env::var("CASKFILE_WORLDS_SECONDS").ok().map(|text| text.parse().expect("CASKFILE_WORLDS_SECONDS"));
    let next = AtomicU64::new(from);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    if seconds.is_some_and(|seconds| started.elapsed().as_secs() >= seconds) {
                        return;
                    }
                    let number = next.fetch_add(step, Ordering::Relaxed);
                    if number >= to || failure.lock().is_ok_and(|failure| failure.is_some()) {
                        return;
                    }
                    if let Err(error) = outcome(number, &seen) {
                        failure.lock().unwrap().get_or_insert(error);
                    }
                    if (number - from) / step % 5_000 == 4_999 {
                        println!("world {number} of {to}: {} cuts, {:?}", seen.cuts(), started.elapsed());
                    }
                }
            });
        }
    });
    // Each world before this one was tried to its end.
    let to = next.load(Ordering::Relaxed).min(to);
    let load = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    println!(
        "small worlds {from}..{to} by {step}: {} simulated power cuts tried ({:?} by how many came before), at {:?} \
         moments that differ ({} of them sampled); {} more found what was tried before; {:?}",
        seen.cuts(),
        load(&seen.cuts),
        load(&seen.moments),
        seen.sampled.load(Ordering::Relaxed),
        seen.outcomes.load(Ordering::Relaxed) - seen.cuts(),
        started.elapsed()
    );
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
}

/// One in three. `CASKFILE_WORLDS=0..6528` tries them all, and more.
#[test]
fn worlds_with_one_operation_survive_with_every_prelude() {
    let seen = Arc::<Seen>::default();
    for number in (0..world::count_of_shortest()).step_by(3) {
        outcome(number, &seen).unwrap();
    }
}

/// Lets the allocator keep what a store gives back when it is closed: the next is opened at once.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: two settings of the allocator, which other threads may be using meanwhile.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 20);
    }
}
