//! The root at the head of a file states only what is on stable storage, and never less than before.
//!
//! Random lives of three processes on one store, with small limits, so that roots are written all the time. Before every
//! call the file is looked at with the page's reader: what its root states must be in what a power cut leaves that keeps
//! nothing but synced data. Then the power is cut there, in several ways, and the store must open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caskfile::disk::sim::{Choices, Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error, Limits};

use crate::common::dice::Dice;
use crate::common::files::layout::{FILE_HEADER, ROOTS_END, SLOTS, number};
use crate::common::files::reader::Reader;

const STORE: &str = "/store";

/// What the file said when it was last looked at: which file it is, and how much it states.
#[derive(Default)]
struct Witness {
    last: Mutex<Option<(Vec<u8>, u64)>>,
    statements: AtomicU64,
    cuts: AtomicU64,
}

impl Witness {
    /// Looks at the file between two calls.
    fn look(&self, disk: &SimDisk, seed: u64) {
        let Some(file) = disk.contents(STORE).filter(|file| file.len() > ROOTS_END) else { return };
        let (id, stated) = (file[16..32].to_vec(), Reader::new(&file).stated());
        let mut last = self.last.lock().unwrap();
        // Nothing that a process does may take what the file states now.
        assert!(file.len() as u64 >= stated + 8, "seed {seed}: {} bytes, {stated} stated", file.len());
        if last.as_ref().is_some_and(|(known, before)| *known == id && *before == stated) {
            return;
        }
        if let Some((known, before)) = &*last {
            assert!(*known != id || *before <= stated, "seed {seed}: it stated {before}, and states {stated}");
        }
        *last = Some((id.clone(), stated));
        let kept = disk.reboot(&mut Choices::keep_nothing()).contents(STORE);
        // A name that is not synced may lead to the file before.
        let Some(kept) = kept.filter(|kept| kept.get(16..32) == Some(&id[..])) else { return };
        self.statements.fetch_add(1, Ordering::Relaxed);
        assert!(kept.len() as u64 >= stated + 8, "seed {seed}: {} bytes are durable, {stated} stated", kept.len());
        let log = ROOTS_END..stated as usize;
        assert!(kept[log.clone()] == file[log], "seed {seed}: not all before {stated} is durable");
        assert!(number(FILE_HEADER, "base_seq", &kept) == number(FILE_HEADER, "base_seq", &file));
        for way in 0..6 {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            let after = disk.reboot(&mut Choices::from_seed(seed + way));
            // A root that is torn leaves the one before.
            let found = after.contents(STORE).filter(|found| found.get(16..32) == Some(&id[..]));
            let least = Reader::new(&kept).stated();
            assert!(found.is_none_or(|found| Reader::new(&found).stated() >= least), "seed {seed}: the root is lost");
            opens(&after, seed);
        }
    }
}

/// A store after a power cut is no truncated one, for a reader and for a writer.
fn opens(disk: &SimDisk, seed: u64) {
    for config in [Config::new().read_only(true), Config::new().create(false)] {
        match Cask::open_on(Arc::new(disk.process()), STORE, &config) {
            Ok(_) => {}
            // The first name may be lost.
            Err(Error::Io { .. }) if disk.contents(STORE).is_none() => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

fn open(disk: &SimDisk, dice: &mut Dice) -> Option<Cask> {
    let durability = dice.choose(&[Durability::Sync, Durability::Sync, Durability::Os]);
    let config =
        Config::new().durability(durability).connection_timeout(Duration::ZERO).compaction(CompactionPolicy::Manual);
    Cask::open_on(Arc::new(disk.clone()), STORE, &config).ok()
}

fn step(dice: &mut Dice, disk: &SimDisk, cask: &mut Option<Cask>) {
    let Some(open_one) = cask.as_ref() else {
        *cask = open(disk, dice);
        return;
    };
    let (key, len) = (format!("key {}", dice.below(5)), dice.below(120) as usize);
    // Failures are a part of this life.
    let _ = match dice.below(12) {
        0..=4 => open_one.put(&key, vec![dice.roll() as u8; len]).map(drop),
        5 => open_one.write(Batch::new().put(&key, vec![7; len]).delete("key 1").put("key 2", "")).map(drop),
        6 => open_one.delete(&key),
        7 => open_one.sync(),
        8 => open_one.compact().map(drop),
        9 => open_one.reopen(),
        10 => open_one.close(),
        _ => open_one.list("").map(drop),
    };
    if dice.one_in(8) {
        *cask = None;
    }
}

fn live(seed: u64, witness: &Arc<Witness>) {
    let disk = SimDisk::from_seed(seed);
    let mut dice = Dice::new(seed);
    disk.set_sector(dice.choose(&[8, 8, 64, 512]));
    disk.set_limits(Limits { root_step: 96, ..Limits::mixed(dice.roll()) });
    let processes: Vec<SimDisk> = (0..3).map(|_| disk.process()).collect();
    let mut casks: Vec<Option<Cask>> = vec![None, None, None];
    let eyes = Arc::clone(witness);
    disk.before(When::next(), Repeat::Forever, move |disk| eyes.look(disk, seed));
    for _ in 0..40 {
        let n = dice.below(3) as usize;
        if dice.one_in(9) {
            let verb = dice.choose(&[Verb::WriteAt, Verb::SyncData, Verb::SetLen, Verb::SyncDir]);
            let fault = dice.choose(&[Fault::Os(libc::EIO), Fault::Os(libc::ENOSPC), Fault::Short(5)]);
            disk.fail(When::nth(1 + dice.below(3)).of(verb), fault, Repeat::Once);
        }
        step(&mut dice, &processes[n], &mut casks[n]);
        disk.clear_faults();
    }
    drop(casks);
    disk.clear_hooks();
    *witness.last.lock().unwrap() = None;
}

/// `CASKFILE_ROOTS` is the number of lives (600).
#[test]
fn the_root_states_only_what_is_on_stable_storage() {
    let lives = std::env::var("CASKFILE_ROOTS").map_or(600, |lives| lives.parse().expect("a number"));
    let witness = Arc::new(Witness::default());
    for seed in 0..lives {
        live(seed, &witness);
    }
    let (statements, cuts) = (witness.statements.load(Ordering::Relaxed), witness.cuts.load(Ordering::Relaxed));
    println!("{statements} statements, {cuts} power cuts");
    assert!(statements > lives * 5, "hardly ever tried: {statements}");
}

/// One handle's root was not synced, since its write failed after that. Another handle then wrote the other slot: a power cut
/// could take the first root and tear the second one, and the file stated less than before.
#[test]
fn a_power_cut_never_takes_two_roots_at_once() {
    let disk = SimDisk::new();
    disk.set_sector(8);
    disk.set_limits(Limits { root_step: 96, ..Limits::REAL });
    let (one, other) = (disk.process(), disk.process());
    let config = Config::new().compaction(CompactionPolicy::Manual);
    let open = |process: &SimDisk| Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
    let (first, second) = (open(&one), open(&other));
    second.put("second", "").unwrap();
    for n in 0..4 {
        first.put("first", vec![n; 200]).unwrap();
    }
    // The second handle has synced more than the first one.
    second.put("second", vec![5; 400]).unwrap();
    let stated = |disk: &SimDisk| Reader::new(&disk.contents(STORE).unwrap()).stated();
    let before = stated(&disk);
    let file = disk.contents(STORE).unwrap();
    assert!(SLOTS.iter().all(|&slot| file[slot] > 0), "a slot is empty");
    disk.fail(When::nth(2).of(Verb::WriteAt).by(&one), Fault::Os(libc::EIO), Repeat::Once);
    first.put("first", "no more").unwrap_err();
    let unsynced = stated(&disk);
    let durable = move |disk: &SimDisk| stated(&disk.reboot(&mut Choices::keep_nothing()));
    assert!(before < unsynced && durable(&disk) < unsynced, "no root that is not synced");
    let cuts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&cuts);
    disk.before(When::next().by(&other), Repeat::Forever, move |disk| {
        let least = durable(disk);
        for seed in 0..64 {
            let found = stated(&disk.reboot(&mut Choices::from_seed(seed)));
            assert!(found >= least, "a power cut leaves a root of {found}, and {least} was durable");
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    second.put("second", "again").unwrap();
    disk.clear_hooks();
    assert!(stated(&disk) > unsynced && cuts.load(Ordering::Relaxed) > 200, "the second root was not written");
}

/// The root rises and the file gets shorter while a process opens it.
#[test]
fn an_opening_beside_a_closing_writer_is_never_refused() {
    for read_only in [true, false] {
        for nth in 1.. {
            let disk = SimDisk::new();
            let put = |disk: &SimDisk, value: &[u8]| {
                let config = Config::new().connection_timeout(Duration::ZERO);
                let cask = Cask::open_on(Arc::new(disk.process()), STORE, &config)?;
                cask.put("key", value).and_then(|_| cask.close())
            };
            put(&disk, b"before").unwrap();
            let opener = disk.process();
            let came = Arc::new(AtomicU64::new(0));
            let coming = Arc::clone(&came);
            disk.before(When::nth(nth).by(&opener), Repeat::Once, move |disk| {
                coming.fetch_add(1, Ordering::Relaxed);
                // It does not get the lock while the opening process has it.
                let _ = put(disk, &[7; 5000]);
            });
            let config = Config::new().read_only(read_only);
            match Cask::open_on(Arc::new(opener), STORE, &config) {
                Ok(cask) => assert_eq!(cask.list("").unwrap().len(), 1),
                Err(error) => panic!("before call {nth}, read only: {read_only}: {error}"),
            }
            if came.load(Ordering::Relaxed) == 0 {
                assert!(nth > 8, "only {nth} calls");
                break;
            }
        }
    }
}

/// Lives on after a power cut: before each call of a new handle the power is cut again, and some of what is left lives on.
fn cut_again(disk: &SimDisk, seed: u64, depth: u64) {
    let Some(file) = disk.contents(STORE).filter(|file| file.len() > ROOTS_END) else { return };
    let (id, process) = (file[16..32].to_vec(), disk.process());
    let stated = move |disk: &SimDisk| {
        let file = disk.contents(STORE).filter(|file| file.get(16..32) == Some(&id[..]));
        file.map(|file| Reader::new(&file).stated())
    };
    let left = Arc::new(Mutex::new(Vec::new()));
    let (kept, calls) = (Arc::clone(&left), AtomicU64::new(0));
    disk.before(When::next(), Repeat::Forever, move |disk| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let least = stated(&disk.reboot(&mut Choices::keep_nothing()));
        for way in 0..2 {
            let after = disk.reboot(&mut Choices::from_seed(seed * 1000 + call * 7 + way));
            assert!(stated(&after).is_none_or(|found| Some(found) >= least), "seed {seed}, call {call}: the root fell");
            opens(&after, seed);
            if way == 0 && (call + seed) % 5 == 0 {
                kept.lock().unwrap().push(after);
            }
        }
    });
    let interval = Durability::Interval(Duration::from_millis(1));
    let durability = [Durability::Sync, Durability::Os, interval][(seed % 3) as usize];
    let config = Config::new().durability(durability).compaction(CompactionPolicy::Manual);
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
    for n in 0..3 {
        cask.put(format!("again {n}"), vec![5; 40 * n]).unwrap();
    }
    match seed % 4 {
        1 => process.kill(),
        _ => cask.close().unwrap(),
    }
    disk.clear_hooks();
    let left = std::mem::take(&mut *left.lock().unwrap());
    for (n, next) in left.into_iter().take(3).enumerate().filter(|_| depth > 0) {
        next.set_limits(Limits { root_step: 96, ..Limits::mixed(seed) });
        cut_again(&next, seed * 3 + n as u64, depth - 1);
    }
}

#[test]
fn the_root_never_falls_through_several_power_cuts() {
    for seed in 0..9 {
        let disk = SimDisk::from_seed(seed);
        disk.set_sector([8, 64, 512][(seed % 3) as usize]);
        disk.set_limits(Limits { root_step: 96, ..Limits::mixed(seed) });
        let process = disk.process();
        let config = Config::new().compaction(CompactionPolicy::Manual);
        let cask = Cask::open_on(Arc::new(process.clone()), STORE, &config).unwrap();
        for n in 0..4 {
            cask.put(format!("key {n}"), vec![1; 30 * n]).unwrap();
        }
        if seed % 2 == 0 {
            cask.close().unwrap();
        } else {
            process.kill();
        }
        drop(cask);
        cut_again(&disk, seed, 2);
    }
}

/// A root that is due is covered by the syncs that are made anyway: by the next put, or by the thread of the interval.
#[test]
fn a_root_that_is_due_costs_no_sync() {
    const STEP: u64 = 4096;
    let interval = Durability::Interval(Duration::from_millis(1));
    for (durability, handles) in [(Durability::Sync, 1), (Durability::Os, 1), (interval, 1), (Durability::Sync, 4)] {
        let disk = SimDisk::new();
        disk.set_limits(Limits { root_step: STEP, ..Limits::REAL });
        let config = Config::new().durability(durability).compaction(CompactionPolicy::Manual);
        let open = || Cask::open_on(Arc::new(disk.process()), STORE, &config).unwrap();
        let casks: Vec<Cask> = (0..handles).map(|_| open()).collect();
        for cask in &casks {
            cask.put("first", "").unwrap();
        }
        let (here, ours) = (std::thread::current().id(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&ours);
        disk.before(When::next().of(Verb::SyncData), Repeat::Forever, move |_| {
            counted.fetch_add(u64::from(std::thread::current().id() == here), Ordering::Relaxed);
        });
        let (puts, before) = (400, casks[0].stats().unwrap().log_end);
        for n in 0..puts {
            casks[n % handles].put(format!("key {}", n % 9), vec![7; 1000]).unwrap();
            if durability == interval && n % 20 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        let steps = (casks[0].stats().unwrap().log_end - before) / STEP;
        let needed = if durability == Durability::Sync { puts as u64 } else { 0 };
        // To follow the root of another handle costs a sync, once for each step of the log.
        let allowed = if handles > 1 { steps + 1 } else { 0 };
        let extra = ours.load(Ordering::Relaxed) - needed;
        assert!(extra <= allowed, "{durability:?}, {handles} handles: {extra} syncs more in {steps} steps");
        let file = disk.contents(STORE).unwrap();
        let lag = casks[0].stats().unwrap().log_end - Reader::new(&file).stated();
        assert!(durability == Durability::Os || lag < 60 * 1000, "{durability:?}: the root lags {lag} bytes");
    }
}

/// What one process does as a whole between two calls of the other.
#[derive(Debug, Clone, Copy)]
enum Whole {
    Put,
    PutUnsynced,
    Batch,
    Sync,
    Compact,
    Reopen,
    /// The handle is closed, which writes a root, and shortens the file.
    Close,
    /// A new handle writes. It cuts off what a killed process has left.
    Come,
    /// A new handle writes and is killed in a second write, so that the next writer must cut.
    ComeAndDie,
}

const WHOLES: [Whole; 9] = [
    Whole::Put,
    Whole::PutUnsynced,
    Whole::Batch,
    Whole::Sync,
    Whole::Compact,
    Whole::Reopen,
    Whole::Close,
    Whole::Come,
    Whole::ComeAndDie,
];

fn configured(durability: Durability) -> Config {
    Config::new().durability(durability).connection_timeout(Duration::ZERO).compaction(CompactionPolicy::Manual)
}

/// A process with one handle.
struct Seat {
    process: SimDisk,
    cask: Mutex<Option<Cask>>,
}

impl Seat {
    fn new(disk: &SimDisk, durability: Durability) -> Seat {
        let process = disk.process();
        let cask = Cask::open_on(Arc::new(process.clone()), STORE, &configured(durability)).ok();
        Seat { process, cask: Mutex::new(cask) }
    }

    /// Does it. Many actions fail, since the other process has the lock.
    fn act(&self, whole: Whole, disk: &SimDisk) {
        let held = self.cask.lock().unwrap();
        let Some(cask) = &*held else { return };
        let _ = match whole {
            Whole::Put | Whole::PutUnsynced => cask.put("key", vec![1; 120]).map(drop),
            Whole::Batch => cask.write(Batch::new().put("one", vec![2; 80]).delete("key").put("two", "")).map(drop),
            Whole::Sync => cask.sync(),
            Whole::Compact => cask.compact().map(drop),
            Whole::Reopen => cask.reopen(),
            Whole::Close => cask.close(),
            Whole::Come => Cask::open_on(Arc::new(disk.process()), STORE, &configured(Durability::Sync))
                .and_then(|cask| cask.put("come", vec![3; 100]).and_then(|_| cask.close())),
            Whole::ComeAndDie => come_and_die(disk),
        };
    }
}

fn come_and_die(disk: &SimDisk) -> Result<(), Error> {
    let process = disk.process();
    let cask = Cask::open_on(Arc::new(process.clone()), STORE, &configured(Durability::Os))?;
    cask.put("last", "")?;
    let its_last = process.clone();
    disk.fail(When::next().of(Verb::WriteAt).by(&process), Fault::Short(40), Repeat::Once);
    disk.before(When::nth(2).of(Verb::WriteAt).by(&process), Repeat::Once, move |_| its_last.kill());
    let _ = cask.put("torn", vec![9; 100]);
    process.kill();
    Ok(())
}

/// Two processes, one of which does something whole before one call of the other: every pair, at every call. Roots are
/// written all the time. Before each call of either, what the file states is looked at, and the power is cut.
///
/// `CASKFILE_ROOTS_GAMES=1` plays all of them, and N one in N (7).
#[test]
fn roots_of_two_processes_interleaved_at_every_call_are_true() {
    let one_in = std::env::var("CASKFILE_ROOTS_GAMES").map_or(7, |one| one.parse().expect("a number"));
    let witness = Arc::new(Witness::default());
    let (mut games, mut number) = (0_u64, 0_u64);
    for durability in [Durability::Sync, Durability::Os] {
        for torn in [false, true] {
            for (first, second) in WHOLES.iter().flat_map(|&first| WHOLES.map(|second| (first, second))) {
                for nth in 1.. {
                    number += 1;
                    // The number of calls is found out in each case.
                    if number % one_in != 0 {
                        continue;
                    }
                    games += 1;
                    if !interleaved(&witness, [first, second], durability, torn, nth, number) {
                        break;
                    }
                }
            }
        }
    }
    let (statements, cuts) = (witness.statements.load(Ordering::Relaxed), witness.cuts.load(Ordering::Relaxed));
    println!("{games} games, {statements} statements, {cuts} power cuts");
    assert!(statements > games, "hardly ever tried: {statements} in {games} games");
}

/// Plays one game. Returns whether the first process made as many calls.
fn interleaved(
    witness: &Arc<Witness>,
    [first, second]: [Whole; 2],
    durability: Durability,
    torn: bool,
    nth: u64,
    number: u64,
) -> bool {
    let disk = SimDisk::from_seed(number);
    disk.set_sector([8, 64, 512][(number % 3) as usize]);
    disk.set_limits(Limits { root_step: 96, ..Limits::REAL });
    let (one, other) = (Seat::new(&disk, durability), Arc::new(Seat::new(&disk, Durability::Sync)));
    for _ in 0..2 {
        one.act(Whole::Put, &disk);
        other.act(Whole::Batch, &disk);
    }
    if torn {
        come_and_die(&disk).unwrap();
    }
    *witness.last.lock().unwrap() = None;
    let eyes = Arc::clone(witness);
    disk.before(When::next(), Repeat::Forever, move |disk| eyes.look(disk, number));
    let came = Arc::new(AtomicU64::new(0));
    let (coming, comer, its_disk) = (Arc::clone(&came), Arc::clone(&other), disk.clone());
    disk.before(When::nth(nth).by(&one.process), Repeat::Once, move |_| {
        coming.fetch_add(1, Ordering::Relaxed);
        comer.act(second, &its_disk);
    });
    one.act(first, &disk);
    let came = came.load(Ordering::Relaxed) > 0;
    // Both go on, and the first one may be killed before.
    if number % 2 == 0 {
        one.process.kill();
    }
    other.act(Whole::Put, &disk);
    one.act(Whole::Put, &disk);
    other.act(Whole::Close, &disk);
    one.act(Whole::Close, &disk);
    disk.clear_hooks();
    witness.look(&disk, number);
    opens(&disk.reboot(&mut Choices::keep_nothing()), number);
    opens(&disk, number);
    came
}
