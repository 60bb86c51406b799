//! Watches on real files: the system reports each change, whatever other processes do to the store.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::disk::{Access, Disk, DiskFile, FileStat, RealDisk, Sleeper};
use caskfile::{Batch, Cask, ChangeRef, Config, Durability, Error, Limits, PutOptions, Watch, WatchFrom};

use crate::common::TempDir;
use crate::common::hooked::HookedDisk;
use crate::common::patience::with_a_deadline;
use crate::common::process::{Process, arguments, in_own_process, listen, say, this_test, was_killed};

/// Far longer than any report takes, and shorter than a test's deadline.
const LONG: Option<Duration> = Some(Duration::from_secs(30));

fn open(path: impl AsRef<Path>) -> Cask {
    Cask::open_with(path, &Config::new().durability(Durability::Os).connection_timeout(None)).unwrap()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// The values of one key in a unit, which are numbers.
fn numbers(watch: &mut Watch, timeout: Option<Duration>) -> Vec<u64> {
    let mut unit = watch.next_timeout(timeout).unwrap().expect("a change is reported long before this");
    let mut numbers = Vec::new();
    while let Some(change) = unit.next_ref() {
        if let ChangeRef::Put(pair) = change.unwrap() {
            numbers.push(number(pair.value));
        }
    }
    numbers
}

/// The writer counts on from what it finds. Another process compacts, once between two looks of the watch.
#[test]
fn a_killed_writer_and_compactions_lose_and_double_nothing() {
    if let Some(arguments) = arguments() {
        let cask = open(&arguments[1]);
        if arguments[0] == "compact" {
            say("ready");
            while listen().is_some() {
                cask.compact().unwrap();
                say("compacted");
            }
            return;
        }
        let mut count = cask.get("count").map_or(0, |pair| number(&pair.value));
        say("ready");
        loop {
            count += 1;
            let value = [&count.to_le_bytes()[..], &vec![7; count as usize % 300]].concat();
            match count % 3 {
                0 => drop(cask.write(Batch::new().put("other", &value).put("count", &value).delete("gone")).unwrap()),
                _ => drop(cask.put("count", &value).unwrap()),
            }
            if count % 5 == 0 {
                cask.put("gone", "").unwrap();
                // The watch keeps up.
                thread::sleep(Duration::from_micros(500));
            }
        }
    }
    let Some(()) = with_a_deadline(a_killed_writer_and_compactions_lose_and_double_nothing) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let path = path.to_str().unwrap();
    let cask = open(path);
    let mut watch = cask.changes("count", WatchFrom::Now).unwrap();
    let mut compactor = Process::start(this_test!(), &["compact", path]);
    compactor.hear_it_say("ready");
    let (mut seen, mut compacted, mut compactions) = (0, 0, 0);
    for _ in 0..8 {
        let mut writer = Process::start(this_test!(), &["write", path]);
        writer.hear_it_say("ready");
        let upto = seen + 300;
        while seen < upto {
            for number in numbers(&mut watch, LONG) {
                assert_eq!(number, seen + 1);
                seen = number;
            }
            // It has read an event of the new file, so it lags by no more than one compaction.
            if seen > compacted + 20 {
                assert_eq!(compactor.ask("compact"), "compacted");
                compacted = number(&cask.get("count").unwrap().value);
                compactions += 1;
            }
        }
        assert!(was_killed(writer.kill()));
    }
    compactor.succeed();
    while let Some(unit) = watch.try_next().unwrap() {
        seen += unit.into_changes().unwrap().len() as u64;
    }
    assert_eq!(number(&cask.get("count").unwrap().value), seen);
    let stats = cask.stats().unwrap();
    println!("{seen} puts, {compactions} compactions");
    assert!(compactions > 10, "{compactions}");
    assert_eq!((stats.watches, stats.polling_watches, stats.unreported_changes), (1, 0, 0));
}

/// Each put waits for the event of the one before, so the watch sleeps each time. A report that does not come would let the wait
/// last until the watch looks by itself, which it counts.
#[test]
fn every_put_of_another_process_is_reported_to_a_sleeping_watch() {
    if let Some(arguments) = arguments() {
        let cask = open(&arguments[0]);
        say("ready");
        let mut count = 0_u64;
        while let Some(action) = listen() {
            count += 1;
            if action == "compact" {
                cask.compact().unwrap();
            }
            cask.put("count", count.to_le_bytes()).unwrap();
        }
        return;
    }
    let Some(()) = with_a_deadline(every_put_of_another_process_is_reported_to_a_sleeping_watch) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = open(&path);
    let mut watch = cask.changes("count", WatchFrom::Now).unwrap();
    let mut writer = Process::start(this_test!(), &[path.to_str().unwrap()]);
    writer.hear_it_say("ready");
    for count in 1..=200 {
        let teller = thread::scope(|scope| {
            let told = scope.spawn(|| {
                // Mostly after the watch has fallen asleep.
                thread::sleep(Duration::from_micros(count * 37 % 900));
                writer.tell(if count % 3 == 0 { "compact" } else { "put" });
            });
            let numbers = numbers(&mut watch, LONG);
            told.join().unwrap();
            numbers
        });
        assert_eq!(teller, [count]);
    }
    writer.succeed();
    assert_eq!(cask.stats().unwrap().unreported_changes, 0);
}

#[test]
fn a_store_that_is_taken_away_ends_a_watch_that_waits() {
    let Some(()) = with_a_deadline(a_store_that_is_taken_away_ends_a_watch_that_waits) else { return };
    type Taken = fn(&Path, &TempDir);
    let ways: [(&str, Taken); 4] = [
        ("renamed", |path, directory| std::fs::rename(path, directory.join("elsewhere")).unwrap()),
        ("removed", |path, _| std::fs::remove_file(path).unwrap()),
        ("replaced", |path, directory| std::fs::rename(directory.join("backup"), path).unwrap()),
        ("removed and created again", |path, _| {
            std::fs::remove_file(path).unwrap();
            drop(open(path));
        }),
    ];
    for (way, take_away) in ways {
        // A compaction comes before the watch waits, or right before the store is taken away.
        for compacted in ["never", "before", "at once"] {
            let directory = TempDir::new();
            let path = directory.join("store");
            let (cask, other) = (open(&path), open(&path));
            cask.put("key", "value").unwrap();
            cask.backup(directory.join("backup")).unwrap();
            let mut watch = cask.changes("", WatchFrom::Now).unwrap();
            if compacted == "before" {
                other.compact().unwrap();
            }
            let waiting = thread::spawn(move || watch.next_timeout(LONG).map(|unit| unit.is_some()));
            thread::sleep(Duration::from_millis(20));
            if compacted == "at once" {
                other.compact().unwrap();
            }
            take_away(&path, &directory);
            let ended = waiting.join().unwrap();
            // A backup may pass for what the compaction has made.
            let is_successor =
                way == "replaced" && compacted == "at once" && matches!(ended, Err(Error::Compacted { .. }));
            assert!(
                is_successor || matches!(ended, Err(Error::Replaced { .. })),
                "{way}, compacted {compacted}: {ended:?}"
            );
        }
    }
}

struct Epoll(RawFd);

impl Epoll {
    fn new() -> Epoll {
        // SAFETY: takes no pointer.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert_ne!(epoll, -1);
        Epoll(epoll)
    }

    fn add(&self, watch: &mut Watch, number: u64, edge: bool) {
        let events = libc::EPOLLIN | if edge { libc::EPOLLET } else { 0 };
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        let descriptor = watch.descriptor().unwrap().as_raw_fd();
        // SAFETY: both descriptors are open, and `event` lives until the call returns.
        assert_eq!(unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, descriptor, &mut event) }, 0);
    }

    /// The numbers of what is readable within this time.
    fn wait(&self, milliseconds: i32) -> Vec<u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
        // SAFETY: there is room for as many events as the call is given.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), 4, milliseconds) };
        assert!(count >= 0, "{}", io::Error::last_os_error());
        events[..count as usize].iter().map(|event| event.u64).collect()
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // SAFETY: it is open, and not used any more.
        unsafe { libc::close(self.0) };
    }
}

/// Takes all that there is.
fn drain(watch: &mut Watch, seen: &mut Vec<u64>) {
    while let Some(mut unit) = watch.try_next().unwrap() {
        while let Some(change) = unit.next_ref() {
            seen.push(number(change.unwrap().value().unwrap()));
        }
    }
}

/// No other call is made meanwhile.
#[test]
fn descriptors_alone_wake_two_watches_in_any_event_loop() {
    let Some(()) = with_a_deadline(descriptors_alone_wake_two_watches_in_any_event_loop) else { return };
    const EACH: u64 = 300;
    for (edge, shared) in [(false, false), (false, true), (true, false), (true, true)] {
        let directory = TempDir::new();
        let path = directory.join("store");
        let (cask, writer) = (open(&path), open(&path));
        let mut watches = ["a", "b"].map(|prefix| cask.changes(prefix, WatchFrom::Now).unwrap());
        let epolls = [Epoll::new(), Epoll::new()];
        let mut seen = [Vec::new(), Vec::new()];
        for (n, watch) in watches.iter_mut().enumerate() {
            epolls[if shared { 0 } else { n }].add(watch, n as u64, edge);
            drain(watch, &mut seen[n]);
        }
        let writing = thread::spawn(move || {
            for n in 0..EACH {
                for prefix in ["a", "b", "unwanted"] {
                    writer.put(prefix, n.to_le_bytes()).unwrap();
                    if n % 7 == 0 {
                        thread::sleep(Duration::from_micros(n * 13 % 2000));
                    }
                }
                if n % 50 == 0 {
                    writer.compact().unwrap();
                }
            }
        });
        let began = Instant::now();
        while seen.iter().any(|seen| seen.len() < EACH as usize) {
            assert!(began.elapsed() < LONG.unwrap(), "edge {edge}, shared {shared}: {seen:?}");
            for (at, epoll) in epolls.iter().enumerate().take(if shared { 1 } else { 2 }) {
                let own_is_done = !shared && seen[at].len() == EACH as usize;
                for n in epoll.wait(if own_is_done { 0 } else { 1000 }) {
                    drain(&mut watches[n as usize], &mut seen[n as usize]);
                }
            }
        }
        writing.join().unwrap();
        for seen in seen {
            assert_eq!(seen, (0..EACH).collect::<Vec<_>>());
        }
        assert_eq!(cask.stats().unwrap().unreported_changes, 0);
        // Closing is readable too.
        watches.iter_mut().zip(0..).for_each(|(watch, n)| drain(watch, &mut vec![n]));
        cask.close().unwrap();
        assert!(!epolls[0].wait(10_000).is_empty(), "closing wakes nobody");
        assert!(matches!(watches[0].try_next(), Err(Error::Closed)));
    }
}

/// The real disk, on which a watch looks by itself once an hour only.
struct PatientDisk;

static PATIENT: Limits = Limits { backstop: 3_600_000, ..Limits::REAL };

impl Disk for PatientDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, access)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create_new(path, mode)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_dir(directory)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        RealDisk.stat(path)
    }

    fn sleeper(&self) -> Box<dyn Sleeper> {
        RealDisk.sleeper()
    }

    fn limits(&self) -> &'static Limits {
        &PATIENT
    }
}

#[test]
fn a_descriptor_is_readable_at_the_deadline_of_a_pair() {
    let Some(()) = with_a_deadline(a_descriptor_is_readable_at_the_deadline_of_a_pair) else { return };
    let directory = TempDir::new();
    let config = Config::new().durability(Durability::Os);
    let cask = Cask::open_on(Arc::new(PatientDisk), directory.join("store"), &config).unwrap();
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    for edge in [false, true] {
        let epoll = Epoll::new();
        epoll.add(&mut watch, 7, edge);
        cask.put_with("key", "", &PutOptions::new().ttl(Duration::from_millis(50))).unwrap();
        let (mut puts, mut deletes) = (0, 0);
        loop {
            while let Some(unit) = watch.try_next().unwrap() {
                for change in unit.into_changes().unwrap() {
                    *(if change.value().is_some() { &mut puts } else { &mut deletes }) += 1;
                }
            }
            if deletes > 0 {
                break;
            }
            assert_eq!(epoll.wait(30_000), [7], "edge {edge}: nothing is written meanwhile");
        }
        assert_eq!((puts, deletes), (1, 1));
    }
}

/// Whether the descriptor becomes readable at once.
fn is_readable(descriptor: RawFd) -> bool {
    let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one element, as the call is given.
    unsafe { libc::poll(&mut polled, 1, 0) > 0 }
}

/// Its copy of the stopper shares the descriptor that wakes the parent, which would never sleep again.
#[test]
fn a_forked_child_does_nothing_to_its_parents_watch() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let (cask, writer) = (open(&path), open(&path));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let descriptor = watch.descriptor().unwrap().as_raw_fd();
    assert!(watch.try_next().unwrap().is_none());
    // SAFETY: there is no other thread that holds a lock, and the child leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // A panic would not be noticed here.
        let is_forked = |error| matches!(error, Some(Error::Forked { .. }));
        let mut refused = is_forked(watch.try_next().err());
        refused &= is_forked(watch.next_timeout(LONG).err());
        refused &= is_forked(watch.descriptor().err());
        refused &= is_forked(cask.changes("", WatchFrom::Now).err());
        watch.stopper().stop();
        drop(watch);
        drop(cask);
        // SAFETY: takes no pointer.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child was not refused");
    assert!(watch.try_next().unwrap().is_none());
    assert!(!is_readable(descriptor), "the child has woken its parent's watch, for ever");
    writer.put("key", 1_u64.to_le_bytes()).unwrap();
    assert!(is_readable(descriptor));
    assert_eq!(numbers(&mut watch, LONG), [1]);
}

#[test]
fn closing_and_stopping_end_a_watch_at_any_moment_of_its_wait() {
    let Some(()) = with_a_deadline(closing_and_stopping_end_a_watch_at_any_moment_of_its_wait) else { return };
    let directory = TempDir::new();
    for round in 0..300_u64 {
        let cask = open(directory.join("store"));
        let mut watch = cask.changes("", WatchFrom::Now).unwrap();
        let stopper = watch.stopper();
        let begun = AtomicBool::new(false);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                begun.store(true, SeqCst);
                watch.next_timeout(None).map(|unit| unit.is_some())
            });
            while !begun.load(SeqCst) {
                std::hint::spin_loop();
            }
            thread::sleep(Duration::from_micros(round * 7 % 500));
            match round % 3 {
                0 => {
                    stopper.stop();
                    assert!(matches!(waiting.join().unwrap(), Err(Error::Stopped)));
                }
                1 => {
                    cask.close().unwrap();
                    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
                }
                _ => {
                    // Others of the same handle come and go.
                    drop(cask.changes("", WatchFrom::Now).unwrap());
                    drop(cask.clone());
                    stopper.clone().stop();
                    assert!(matches!(waiting.join().unwrap(), Err(Error::Stopped)));
                }
            }
        });
    }
}

/// The user that this process becomes has no inotify instance left.
#[test]
fn a_watch_without_inotify_looks_by_itself_and_stats_say_so() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let (cask, writer) = (open(&path), open(&path));
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    // SAFETY: takes no pointer.
    if unsafe { libc::setuid(54_321) } != 0 {
        println!("skipped: only the superuser can become another user");
        return;
    }
    // Otherwise `/proc/self/fd` and the file are closed to a process that has become another user, and it polls for that reason
    // alone.
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    let mut instances = Vec::new();
    loop {
        // SAFETY: takes no pointer.
        let instance = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
        if instance == -1 {
            break;
        }
        // SAFETY: it was just made, and nothing else has it.
        instances.push(unsafe { OwnedFd::from_raw_fd(instance) });
    }
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    assert!(watch.next_timeout(Some(Duration::from_millis(1))).unwrap().is_none());
    let stats = cask.stats().unwrap();
    assert_eq!((stats.watches, stats.polling_watches), (1, 1));
    let descriptor = watch.descriptor().unwrap().as_raw_fd();
    for n in 1..20_u64 {
        assert!(watch.try_next().unwrap().is_none());
        writer.put("key", n.to_le_bytes()).unwrap();
        if n % 2 == 0 {
            let mut polled = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
            // SAFETY: one element, as the call is given.
            assert_eq!(unsafe { libc::poll(&mut polled, 1, 30_000) }, 1);
        }
        assert_eq!(numbers(&mut watch, LONG), [n]);
    }
    assert_eq!(cask.stats().unwrap().polling_watches, 1);

    // The next time that it falls asleep there are some.
    drop(instances);
    for n in 20..30_u64 {
        assert!(watch.try_next().unwrap().is_none());
        assert_eq!(cask.stats().unwrap().polling_watches, 0);
        assert!(!is_readable(descriptor));
        writer.put("key", n.to_le_bytes()).unwrap();
        assert!(is_readable(descriptor), "its descriptor has no report");
        assert_eq!(numbers(&mut watch, LONG), [n]);
    }
    assert_eq!(cask.stats().unwrap().unreported_changes, 0);
}

/// The calls that failed are made again once there are some: the failure was kept for as long as the watch lived.
#[test]
fn a_watch_that_found_no_descriptors_left_gets_them_later() {
    let Some(directory) = in_own_process(this_test!()) else { return };
    let path = directory.join("store");
    let (cask, writer) = (open(&path), open(&path));
    let mut watch = cask.changes("", WatchFrom::Now).unwrap();
    let stopper = watch.stopper();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is there to be written to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let set_limit = |rlim_cur| {
        // SAFETY: the limit lives until the call returns.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur, ..limit }) }, 0);
    };
    // All below this one are in use or were never opened.
    let next = std::fs::File::open(&path).unwrap().as_raw_fd();
    for more in 1..=2 {
        set_limit(next as u64);
        let refused = watch.descriptor().map(drop);
        assert!(
            matches!(&refused, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EMFILE)),
            "{refused:?}"
        );
        assert!(watch.next_timeout(Some(Duration::from_millis(1))).unwrap().is_none());
        assert_eq!(cask.stats().unwrap().polling_watches, 1);
        writer.put("key", 0_u64.to_le_bytes()).unwrap();
        assert_eq!(numbers(&mut watch, LONG), [0]);
        set_limit(next as u64 + more);
        assert!(watch.descriptor().is_err(), "it needs three");
    }
    // Three are enough for a descriptor that has no reports.
    set_limit(next as u64 + 3);
    let descriptor = watch.descriptor().unwrap().as_raw_fd();
    assert!(watch.try_next().unwrap().is_none());
    assert_eq!(cask.stats().unwrap().polling_watches, 1);
    writer.put("key", 0_u64.to_le_bytes()).unwrap();
    assert_eq!(numbers(&mut watch, LONG), [0]);
    set_limit(limit.rlim_cur);
    assert!(watch.try_next().unwrap().is_none());
    assert_eq!(cask.stats().unwrap().polling_watches, 0);
    assert!(!is_readable(descriptor));
    writer.put("key", 1_u64.to_le_bytes()).unwrap();
    assert!(is_readable(descriptor));
    assert_eq!(numbers(&mut watch, LONG), [1]);
    assert!(watch.try_next().unwrap().is_none());
    stopper.stop();
    assert!(is_readable(descriptor), "a watch that was stopped is not readable");
    assert_eq!(cask.stats().unwrap().unreported_changes, 0);
}

/// The compaction pauses before it renames its file. So the watch has seen the end of the old file, has found that nothing has taken
/// its place yet, and sleeps on the old file again. That it loses its name is the only report then.
#[test]
fn the_loss_of_its_name_wakes_a_watch_that_sleeps_on_an_old_file() {
    let Some(()) = with_a_deadline(the_loss_of_its_name_wakes_a_watch_that_sleeps_on_an_old_file) else { return };
    let directory = TempDir::new();
    let path = directory.join("store");
    let cask = open(&path);
    let slow = HookedDisk::new(|name| {
        if name == "rename" {
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let other = Cask::open_on(Arc::new(slow), &path, &Config::new()).unwrap();
    for count in 1..=5_u64 {
        let mut watch = cask.changes("count", WatchFrom::Now).unwrap();
        let watched = thread::scope(|scope| {
            let waiting = scope.spawn(|| numbers(&mut watch, LONG));
            other.compact().unwrap();
            other.put("count", count.to_le_bytes()).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(watched, [count]);
    }
    assert_eq!(cask.stats().unwrap().unreported_changes, 0);
}
