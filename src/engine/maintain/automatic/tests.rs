//! When compactions in the background begin, on a clock that stands still.

use std::path::Path;

use super::*;
use crate::Config;
use crate::config::{Durability, SnapshotPolicy};
use crate::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use crate::disk::{Access, Disk, DiskFile};
use crate::engine::Engine;
use crate::engine::write::request::{Action, Request};
use crate::limits::Limits;

const PATH: &str = "/store";

fn put(key: &[u8]) -> Request<'static> {
    let mut request = Request::default();
    request.push(key, Action::Put(&[7; 1000]));
    request
}

/// A store that is due after two writes, and the clock by which it waits.
struct Due {
    disk: SimDisk,
    clock: Clock,
    engine: Engine,
    /// Has a second name of the store, or a file in the making, while that is to stop a compaction.
    obstacle: Option<Arc<dyn DiskFile>>,
}

/// The names of what another process has made.
const SECOND_NAME: &str = "/second";
const IN_THE_MAKING: &str = "/store.tmp-1111111111111111";

/// How the next compaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    Overtaken,
    Refused,
    /// A call of the user pauses compactions.
    Cancelled,
}

impl Due {
    fn new() -> Due {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        let policy = CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 1 };
        let config = Config::new().compaction(policy).durability(Durability::Os);
        let engine = Engine::open(Arc::new(disk.process()), Path::new(PATH), &config).unwrap();
        Due { disk, clock, engine, obstacle: None }
    }

    fn prepare(&mut self, end: End) {
        self.disk.clear_faults();
        for name in [SECOND_NAME, IN_THE_MAKING] {
            let _ = self.disk.process().remove(Path::new(name));
        }
        self.obstacle = None;
        match end {
            End::Success => {}
            End::Failure => self.disk.fail(When::next().of(Verb::CreateNew), Fault::Os(libc::ENOSPC), Repeat::Forever),
            End::Overtaken => {
                let file = self.disk.process().create_new(Path::new(IN_THE_MAKING), 0o600).unwrap();
                assert!(file.try_lock().unwrap());
                self.obstacle = Some(file);
            }
            End::Refused => self.disk.process().link(Path::new(PATH), Path::new(SECOND_NAME)).unwrap(),
            End::Cancelled => {
                // The file in the making says that a compaction has begun.
                let engine = Arc::clone(&self.engine.maintenance);
                self.disk.before(When::next().of(Verb::CreateNew), Repeat::Once, move |_| {
                    engine.automatic.stop.store(true, Ordering::Relaxed);
                });
            }
        }
    }

    /// Writes until the store is due, and once more. Returns whether a compaction began, and waits for its end.
    fn tries(&self) -> bool {
        for _ in 0..20 {
            // Without maintenance.
            self.engine.writing.commit(put(b"\0key")).0.unwrap();
        }
        self.engine.commit(put(b"\0key")).unwrap();
        let thread = lock(&self.engine.maintenance.automatic.state).thread.take();
        let began = thread.is_some();
        if let Some(thread) = thread {
            thread.join();
        }
        self.engine.maintenance.automatic.stop.store(false, Ordering::Relaxed);
        began
    }

    fn counts(&self) -> [u64; 2] {
        let counters = &self.engine.context.counters;
        [&counters.compactions, &counters.failed_compactions].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The rule, once more: how long after such ends the next compaction may begin.
#[derive(Default)]
struct Rule {
    failures: u32,
}

impl Rule {
    fn delay(&mut self, end: End) -> Duration {
        let seconds = match end {
            End::Success => {
                self.failures = 0;
                0
            }
            End::Cancelled => 0,
            End::Overtaken => 1,
            End::Refused => 3600,
            End::Failure => {
                self.failures += 1;
                3600.min(10 << (self.failures - 1).min(20))
            }
        };
        Duration::from_secs(seconds)
    }
}

const NANOSECOND: Duration = Duration::from_nanos(1);

/// Compactions end in these ways, one after the other, and each begins as soon as it may, and no earlier.
fn expect_delays(ends: &[End]) {
    let (mut store, mut rule) = (Due::new(), Rule::default());
    for (n, &end) in ends.iter().enumerate() {
        store.prepare(end);
        let before = store.counts();
        assert!(store.tries(), "{ends:?}: no {n} may begin now");
        let after = store.counts();
        let expected = [u64::from(end == End::Success), u64::from([End::Failure, End::Refused].contains(&end))];
        assert_eq!([after[0] - before[0], after[1] - before[1]], expected, "{ends:?}: {n}");
        let delay = rule.delay(end);
        if !delay.is_zero() {
            assert!(!store.tries(), "{ends:?}: the one after {n} began at once");
            store.clock.advance(delay - NANOSECOND);
            assert!(!store.tries(), "{ends:?}: the one after {n} began before {delay:?} were over");
            store.clock.advance(NANOSECOND);
        }
    }
}

#[test]
fn failed_compactions_are_repeated_after_delays_that_double() {
    expect_delays(&[End::Failure; 12]);
}

#[test]
fn a_success_ends_the_delays_of_failed_compactions() {
    use End::{Failure, Success};
    expect_delays(&[Failure, Failure, Failure, Success, Success, Failure, Failure, Success]);
}

/// Delays are about failures of this handle: another process that compacts makes them neither longer nor shorter.
#[test]
fn compactions_begin_after_the_delay_of_the_last_end() {
    use End::{Cancelled, Failure, Overtaken, Refused, Success};
    let all = [Success, Failure, Overtaken, Refused, Cancelled];
    for first in all {
        for second in all {
            for third in all {
                expect_delays(&[Failure, first, second, third, Failure, Failure]);
            }
        }
    }
}

/// It looks for its turn for a minute, and then says that it has failed.
#[test]
fn a_compaction_waits_a_minute_for_its_turn_and_fails() {
    for (held, succeeds) in [(0, true), (59, true), (62, false)] {
        let store = Due::new();
        let file = store.disk.open(Path::new(PATH), Access::ReadWrite).unwrap();
        let (holder, clock, until) = (Arc::clone(&file), store.clock.clone(), Arc::new(Mutex::new(None)));
        let of_the_thread = || std::thread::current().name() == Some("caskfile-compact");
        let is_set = Arc::clone(&until);
        store.disk.before(When::next().of(Verb::TryLock), Repeat::Forever, move |_| {
            let mut until = lock(&is_set);
            if of_the_thread() && until.is_none() {
                *until = Some(clock.now() + Duration::from_secs(held));
                drop(until);
                assert!(holder.try_lock().unwrap());
            }
        });
        let (clock, holder) = (store.clock.clone(), Arc::clone(&file));
        store.disk.before(When::next().of(Verb::Pause), Repeat::Forever, move |_| {
            if lock(&until).is_some_and(|until| clock.now() >= until) {
                holder.unlock().unwrap();
            }
        });
        let began = store.clock.now();
        assert!(store.tries());
        let waited = store.clock.since(began).as_secs();
        assert_eq!(store.counts(), [u64::from(succeeds), u64::from(!succeeds)], "held for {held} s, waited {waited} s");
        assert!((held.min(60)..=held.min(60) + 1).contains(&waited), "held for {held} s, waited {waited} s");
        store.disk.clear_hooks();
        let _ = file.unlock();
    }
}

/// The compaction would fail for the same reason, and would count as a failure of its own.
#[test]
fn a_write_that_gets_no_turn_starts_no_compaction() {
    let store = Due::new();
    for _ in 0..10 {
        // Without maintenance.
        store.engine.writing.commit(put(b"\0key")).0.unwrap();
    }
    assert!(store.engine.maintenance.due().is_some());
    store.disk.remove(Path::new(PATH)).unwrap();
    // The path is looked at once a second.
    store.clock.advance(Duration::from_secs(1));
    let error = store.engine.commit(put(b"\0key")).unwrap_err().error();
    assert!(matches!(error, Error::Replaced { .. }), "{error}");
    drop(store.engine.maintenance.automatic.pause());
    assert_eq!(store.engine.context.counters.failed_compactions.load(Ordering::Relaxed), 0);
}

/// As [`Due::new`], with snapshots that are due after some ten kilobytes.
fn with_snapshots(policy: CompactionPolicy) -> Due {
    let disk = SimDisk::new();
    disk.set_limits(Limits { least_running_cost: 1, ..Limits::REAL });
    let clock = disk.stop_clock();
    let config = Config::new().compaction(policy).durability(Durability::Os);
    let engine = Engine::open(Arc::new(disk.process()), Path::new(PATH), &config).unwrap();
    Due { disk, clock, engine, obstacle: None }
}

/// A compaction that is due and may not begin came before a snapshot, so there was none for an hour, and then for another.
#[test]
fn a_store_that_cannot_be_compacted_gets_snapshots() {
    let mut store = with_snapshots(CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 1 });
    store.prepare(End::Refused);
    assert!(store.tries(), "a compaction begins");
    assert_eq!(store.counts(), [0, 1]);
    (0..5).for_each(|_| _ = store.tries());
    assert_eq!(store.counts(), [0, 1]);
    assert!(store.engine.context.counters.snapshots.load(Ordering::Relaxed) > 0);
}

/// The cost that was not to be tried again was that of the old file. A store that is compacted before it is twice as long would
/// get no snapshot any more.
#[test]
fn a_snapshot_that_was_given_up_may_be_tried_in_the_next_file() {
    let store = with_snapshots(CompactionPolicy::Manual);
    let snapshots = || store.engine.context.counters.snapshots.load(Ordering::Relaxed);
    let maintenance = Arc::clone(&store.engine.maintenance);
    let of_the_thread = || std::thread::current().name() == Some("caskfile-snapshot");
    // As when a compaction becomes due.
    store.disk.before(When::next().of(Verb::WriteAt), Repeat::Forever, move |_| {
        maintenance.automatic.give_up_snapshot.fetch_or(of_the_thread(), Ordering::Relaxed);
    });
    while !store.tries() {}
    store.disk.clear_hooks();
    assert_eq!(snapshots(), 0, "it was given up");
    store.engine.maintenance.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    (0..4).for_each(|_| assert!(!store.tries(), "the same ten seconds"));
    store.clock.advance(Duration::from_secs(10));
    assert!(store.tries());
    assert_eq!(snapshots(), 1);
}

/// The bound of what snapshots add to what is written, without the thread, whose time is its own.
#[test]
fn a_store_that_stays_open_writes_four_images_worth_between_snapshots() {
    let store = with_snapshots(CompactionPolicy::Manual);
    while !store.tries() {}
    let images = || store.engine.reading.shown().unwrap().tail.images;
    let is_due = || store.engine.maintenance.snapshot_is_due(&store.engine.reading.shown().unwrap());
    let (image, mut before) = (images().last, 0);
    while !is_due() && before < 8 * image {
        before = images().cost;
        store.engine.writing.commit(put(b"\0key")).0.unwrap();
    }
    let cost = images().cost;
    assert!(image > 16 << 10 && cost.abs_diff(4 * image) < cost - before, "{cost} bytes, image of {image}");
    assert_eq!(store.engine.context.counters.snapshots.load(Ordering::Relaxed), 1);
}

/// Closing waits for the thread, and so does a compaction.
#[test]
fn a_snapshot_that_is_given_up_loads_no_further_part() {
    let disk = SimDisk::new();
    disk.set_limits(Limits { least_cost: 1, least_part: 40, ..Limits::REAL });
    let config = Config::new().durability(Durability::Os).snapshots(SnapshotPolicy::AtClose);
    let open = |disk: &SimDisk| Engine::open(Arc::new(disk.clone()), Path::new(PATH), &config).unwrap();
    let first = open(&disk.process());
    (0..300).for_each(|n| _ = first.commit(put(format!("\0{n}").as_bytes())).unwrap());
    first.close().unwrap();
    let process = disk.process();
    let engine = open(&process);
    let (maintenance, before) = (Arc::clone(&engine.maintenance), disk.calls_of(Verb::ReadAt));
    process.before(When::next().of(Verb::ReadAt), Repeat::Once, move |_| {
        maintenance.automatic.give_up_snapshot.store(true, Ordering::Relaxed);
    });
    assert!(!engine.maintenance.write_snapshot_in_background().unwrap());
    assert_eq!(disk.calls_of(Verb::ReadAt) - before, 1, "one part");
    assert!(!engine.reading.shown().unwrap().index().is_loaded());
}
