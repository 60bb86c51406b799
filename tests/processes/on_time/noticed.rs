//! What a handle notices within some time, while it is used all the time: a look that every use puts off never comes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caskfile::disk::Disk;
use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{Cask, Config, Durability, Error, LockMode};

const STORE: &str = "/store";

/// A handle that does not sync each write looks at its path once a second.
const LOOK: Duration = Duration::from_secs(1);

fn open(disk: &SimDisk, config: &Config) -> Cask {
    Cask::open_on(Arc::new(disk.clone()), STORE, config).unwrap()
}

fn configs() -> impl Iterator<Item = Config> {
    [Durability::Os, Durability::Interval(Duration::from_secs(3600))].into_iter().flat_map(|durability| {
        let config = Config::new().durability(durability);
        [LockMode::PerWrite, LockMode::Exclusive].map(|mode| config.clone().lock_mode(mode))
    })
}

#[test]
fn steady_writes_do_not_put_off_the_look_at_the_path() {
    for config in configs() {
        for gap in [10, 300, 990, 1000].map(Duration::from_millis) {
            let disk = SimDisk::new();
            let clock = disk.stop_clock();
            let cask = open(&disk, &config);
            cask.put("key", "value").unwrap();
            disk.process().remove(Path::new(STORE)).unwrap();
            let removed = clock.now();
            loop {
                match cask.put("key", "lost or not") {
                    Err(Error::Replaced { .. }) => break,
                    Ok(_) => assert!(clock.since(removed) < LOOK, "{config:?}: written to a file without a name"),
                    other => panic!("{other:?}"),
                }
                clock.advance(gap);
            }
        }
    }
}

/// Each look is a system call.
#[test]
fn steady_writes_look_at_the_path_once_a_second() {
    for config in configs() {
        let disk = SimDisk::new();
        let clock = disk.stop_clock();
        let cask = open(&disk, &config);
        cask.put("key", "value").unwrap();
        let before = disk.calls_of(Verb::Stat);
        for _ in 0..1000 {
            clock.advance(Duration::from_millis(10));
            cask.put("key", "value").unwrap();
        }
        assert!(disk.calls_of(Verb::Stat) - before <= 10, "{config:?}");
    }
}

/// What it has not read when it gets the lock, all others wait for.
#[test]
fn a_handle_that_waits_long_reads_on_all_the_time() {
    let disk = SimDisk::new();
    let clock = disk.stop_clock();
    let ours = open(&disk, &Config::new().connection_timeout(None));
    ours.put("ours", "1").unwrap();
    let exclusive = Config::new().durability(Durability::Os).lock_mode(LockMode::Exclusive);
    let theirs = open(&disk.process(), &exclusive);
    let (began, written) = (clock.now(), AtomicU64::new(0));
    disk.before(When::next().of(Verb::Pause).by(&disk), Repeat::Forever, move |_| {
        let round = clock.since(began).as_millis() as u64 / 100;
        match written.fetch_max(round, Ordering::SeqCst) {
            last if last < round && round <= 10 => {
                (0..64).for_each(|n| theirs.put(n.to_string(), [7; 4096]).map(drop).unwrap())
            }
            _ if round > 10 => theirs.close().unwrap(),
            _ => {}
        }
    });
    let before = disk.bytes_read_under_lock();
    ours.put("ours", "2").unwrap();
    let under_lock = disk.bytes_read_under_lock() - before;
    assert!(under_lock <= 64 << 10, "{under_lock} of {} bytes", 10 * 64 * 4096);
    assert_eq!(ours.get("63").unwrap().value, [7; 4096]);
}

/// The handle's own figures, by the same clock.
#[test]
fn stats_count_the_time_by_the_clock() {
    let disk = SimDisk::new();
    let clock = disk.stop_clock();
    let cask = open(&disk, &Config::new().connection_timeout(Duration::from_secs(7)));
    clock.advance(Duration::from_secs(5));
    let holder = disk.process().open(Path::new(STORE), caskfile::disk::Access::ReadWrite).unwrap();
    assert!(holder.try_lock().unwrap());
    cask.put("key", "value").unwrap_err();
    let stats = cask.stats().unwrap();
    assert_eq!((stats.lock_waits, stats.open_for), (1, Duration::from_secs(12)));
    assert_eq!((stats.lock_waited, stats.opening), (Duration::from_secs(7), Duration::ZERO));
}
