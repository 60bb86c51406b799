//! `Durability::Interval` while load goes on: every acknowledged write is synced within the interval, whatever comes after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use caskfile::disk::Clock;
use caskfile::disk::sim::{Choices, SimDisk, Verb};
use caskfile::{Batch, Cask, Config, Durability, KvPair};

use crate::common::dice::Dice;

const STORE: &str = "/store";

/// A sync that is due is made by a thread, which may have to wait for a processor. This is not how long a sync may take.
const NEVER: Duration = Duration::from_secs(20);

fn open(disk: &SimDisk, durability: Durability) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, &Config::new().durability(durability)).unwrap()
}

/// What a power cut now would leave.
fn after_a_power_cut(disk: &SimDisk) -> Vec<KvPair> {
    let rebooted = disk.reboot(&mut Choices::keep_nothing());
    // Before the first sync there may be no file.
    let found = Cask::open_on(Arc::new(rebooted), STORE, &Config::new().read_only(true));
    found.and_then(|cask| cask.list("")).unwrap_or_default()
}

/// A store with an interval, on a clock of its own, and the writes that are not known to be synced.
struct Load {
    disk: SimDisk,
    clock: Clock,
    interval: Duration,
    cask: Cask,
    /// With the moment of the acknowledgement.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    written: u64,
}

impl Load {
    fn new(interval: Duration) -> Load {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        let cask = open(&disk, Durability::Interval(interval));
        Load { disk, clock, interval, cask, waiting: VecDeque::new(), written: 0 }
    }

    fn key(&mut self) -> Vec<u8> {
        self.written += 1;
        format!("{:06}", self.written).into_bytes()
    }

    fn put(&mut self) {
        let key = self.key();
        self.cask.put(&key, "value").unwrap();
        self.waiting.push_back((self.clock.now(), key));
    }

    fn put_batch(&mut self) {
        let keys = [self.key(), self.key()];
        let mut batch = Batch::new();
        for key in &keys {
            batch.put(key, "value");
        }
        self.cask.write(&batch).unwrap();
        self.waiting.extend(keys.map(|key| (self.clock.now(), key)));
    }

    /// Lets time pass, and waits until the writes that are old enough are on stable storage.
    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        let (now, interval) = (self.clock.now(), self.interval);
        let is_old = |written: Instant| now.duration_since(written) >= interval;
        let began = Instant::now();
        while self.waiting.front().is_some_and(|&(written, _)| is_old(written)) {
            let found = after_a_power_cut(&self.disk);
            while self.waiting.front().is_some_and(|(_, key)| found.iter().any(|pair| pair.key == *key)) {
                self.waiting.pop_front();
            }
            let oldest = self.waiting.front().filter(|&&(written, _)| is_old(written));
            if let Some((written, key)) = oldest {
                assert!(
                    began.elapsed() < NEVER,
                    "{} was written {:?} ago and would be lost, with an interval of {interval:?}",
                    String::from_utf8_lossy(key),
                    now.duration_since(*written),
                );
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// Each write came before the one before it was due, and put off what was due.
#[test]
fn steady_writes_do_not_put_off_the_interval_sync() {
    for gap in [100, 2, 1] {
        let interval = Duration::from_secs(100);
        let mut load = Load::new(interval);
        for _ in 0..3 * gap.min(40) {
            load.put();
            load.pass(interval / gap);
        }
    }
}

#[test]
fn one_write_is_synced_within_the_interval() {
    for interval in [Duration::ZERO, Duration::from_millis(10), Duration::from_secs(86_400)] {
        let mut load = Load::new(interval);
        for _ in 0..3 {
            load.put();
            load.pass(interval);
            load.pass(interval * 3);
        }
    }
}

/// One sync for each interval with a write, and none without.
#[test]
fn steady_writes_cost_few_interval_syncs() {
    let interval = Duration::from_secs(10);
    let mut load = Load::new(interval);
    load.put();
    load.pass(interval);
    let (syncs, began) = (load.disk.calls_of(Verb::SyncData), load.clock.now());
    for _ in 0..200 {
        load.put();
        load.pass(interval / 20);
    }
    let passed = load.clock.since(began).as_secs_f64() / interval.as_secs_f64();
    let syncs = load.disk.calls_of(Verb::SyncData) - syncs;
    // It may begin with a half of the interval left.
    assert!(syncs as f64 <= 2.0 * passed + 1.0, "{syncs} syncs in {passed} intervals");
    load.pass(interval);
    let syncs = load.disk.calls_of(Verb::SyncData);
    (0..10).for_each(|_| load.pass(interval));
    assert_eq!(load.disk.calls_of(Verb::SyncData), syncs, "nothing was written");
}

/// Whatever else happens between the writes: compactions, another process, a handle that is opened again.
#[test]
fn interval_writes_are_synced_whatever_comes_between() {
    let seeds = std::env::var("CASKFILE_INTERVALS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        let mut dice = Dice::new(seed);
        let interval = Duration::from_millis([1, 100, 60_000][dice.below(3) as usize]);
        let mut load = Load::new(interval);
        let other = open(&load.disk.process(), Durability::Os);
        let mut steps = Vec::new();
        for _ in 0..40 {
            let step = dice.below(12);
            steps.push(step);
            match step {
                0 => drop(load.cask.compact().unwrap()),
                1 => drop(other.compact().unwrap()),
                2 => load.cask.reopen().unwrap(),
                3 | 4 => other.put("other", "value").map(drop).unwrap(),
                5 => load.cask.sync().unwrap(),
                6 => drop(load.cask.list("").unwrap()),
                7 => load.put_batch(),
                _ => load.put(),
            }
            load.pass(interval * [0, 1, 5, 10, 20][dice.below(5) as usize] / 10);
        }
        load.pass(interval);
        assert!(load.waiting.is_empty(), "seed {seed}: {steps:?}");
    }
}
