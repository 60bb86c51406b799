//! One process puts and others watch: measures how long an event takes from the return of the put to the watching process, and what
//! watches cost the writer.
//!
//! ```text
//! cargo bench --bench watch                     # three seconds a row
//! ```
//!
//! Nothing is synced. *Idle*: a pause of a millisecond after each put, so the watch sleeps each time. *Paced*: a put each 20 µs, by a
//! writer that does not sleep; a watch keeps up with it. *Busy*: puts without a pause, so the watch lags. The floor is a process that sleeps on an inotify instance of its own and reads, with one `pread`, the number
//! that was written to a file. The files are in the system's temporary directory (`TMPDIR`).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Cask, ChangeRef, Config, Durability, WatchFrom};

mod common;

use common::{Directory, VALUE};

/// No more moments than this are kept.
const MOST: usize = 4 << 20;

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["watch", path, prefix, last] => watch(path, prefix, last.parse().unwrap()),
        ["floor", path, _, last] => sleep_on_inotify(path, last.parse().unwrap()),
        ["--seconds", seconds] => measure(seconds.parse().unwrap()),
        [] => measure(3.0),
        _ => {
            eprintln!("usage: watch [--seconds N]");
            std::process::exit(2);
        }
    }
}

/// Nanoseconds on the clock that all processes share.
fn now() -> u64 {
    // SAFETY: all fields are numbers, of which zero is one.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is there to be written to.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn open(path: impl AsRef<Path>) -> Cask {
    Cask::open_with(path, &Config::new().durability(Durability::Os)).unwrap()
}

/// Prints when each event came, by its number, until the one that says that it is the last.
fn watch(path: &str, prefix: &str, last: u64) {
    let cask = open(path);
    let mut watch = cask.changes(prefix, WatchFrom::Now).unwrap();
    println!("ready");
    let mut moments = vec![0; MOST];
    let mut number = 0;
    while number != last {
        let Some(mut unit) = watch.next_timeout(Some(Duration::from_secs(60))).unwrap() else { break };
        let moment = now();
        while let Some(Ok(change)) = unit.next_ref() {
            if let ChangeRef::Put(pair) = change {
                number = u64::from_le_bytes(pair.value[..8].try_into().unwrap());
                if let Some(kept) = moments.get_mut(number as usize) {
                    *kept = moment;
                }
            }
        }
    }
    let unreported = cask.stats().unwrap().unreported_changes;
    if unreported > 0 {
        eprintln!("{unreported} changes were not reported");
    }
    print_all(&moments);
}

fn sleep_on_inotify(path: &str, last: u64) {
    // SAFETY: takes no pointer.
    let inotify = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    let name = std::ffi::CString::new(path).unwrap();
    let file = File::open(path).unwrap();
    let (mut moments, mut number, mut events) = (vec![0; MOST], 0, [0_u8; 4096]);
    println!("ready");
    let mut armed = -1;
    while number != last {
        // As watches do: see `src/disk/os/sleeper.rs`.
        // SAFETY: takes no pointer.
        unsafe { libc::inotify_rm_watch(inotify, armed) };
        // SAFETY: the path ends with a zero byte and lives until the call returns.
        armed = unsafe { libc::inotify_add_watch(inotify, name.as_ptr(), libc::IN_MODIFY | libc::IN_ONESHOT) };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        if u64::from_le_bytes(bytes) == number {
            // SAFETY: there is room for as many bytes as the call is given.
            unsafe { libc::read(inotify, events.as_mut_ptr().cast(), events.len()) };
            file.read_exact_at(&mut bytes, 0).unwrap();
        }
        number = u64::from_le_bytes(bytes);
        if let Some(kept) = moments.get_mut(number as usize) {
            *kept = now();
        }
    }
    print_all(&moments);
}

fn print_all(moments: &[u64]) {
    let bytes: Vec<u8> = moments.iter().flat_map(|moment| moment.to_le_bytes()).collect();
    std::io::stdout().write_all(&bytes).unwrap();
}

/// The number that ends a watch.
const LAST: u64 = u64::MAX;

struct Watcher {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Watcher {
    fn start(what: &str, path: &Path, prefix: &str) -> Watcher {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(what).arg(path).arg(prefix).arg(LAST.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // Until it sleeps.
        std::thread::sleep(Duration::from_millis(50));
        Watcher { child, output }
    }

    fn moments(mut self) -> Vec<u64> {
        let mut bytes = Vec::new();
        self.output.read_to_end(&mut bytes).unwrap();
        assert!(self.child.wait().unwrap().success());
        bytes.chunks_exact(8).map(|moment| u64::from_le_bytes(moment.try_into().unwrap())).collect()
    }
}

/// The pause of a writer that goes on working.
const SHORT: Duration = Duration::from_micros(20);

/// Writes numbers until the time is over. Returns when each write had returned.
fn write(seconds: f64, pause: Duration, mut put: impl FnMut(u64)) -> Vec<u64> {
    let (began, mut moments) = (Instant::now(), vec![0]);
    while began.elapsed().as_secs_f64() < seconds && moments.len() < MOST {
        put(moments.len() as u64);
        moments.push(now());
        match pause {
            Duration::ZERO => {}
            // A sleep would take longer.
            SHORT => {
                let began = Instant::now();
                while began.elapsed() < SHORT {
                    std::hint::spin_loop();
                }
            }
            pause => std::thread::sleep(pause),
        }
    }
    put(LAST);
    moments
}

fn value(number: u64) -> [u8; VALUE.len()] {
    let mut value = VALUE;
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn measure(seconds: f64) {
    let directory = Directory::new("watch");
    println!("puts that are not synced, values of 100 bytes; {seconds} s a row; in {}\n", directory.path().display());
    println!("from the return of a put to the event in another process, in microseconds");
    println!(
        "{:<8}{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "", "events", "p50", "p99", "max", "p50/floor", "p99/floor"
    );
    // That of the idle rows: a busy floor sees a number before its write has returned.
    let mut floor = [0.0; 2];
    for (load, pause) in [("idle", Duration::from_millis(1)), ("paced", SHORT), ("busy", Duration::ZERO)] {
        for what in ["floor", "watch"] {
            let path = directory.path().join(format!("{what}-{load}"));
            let (written, seen) = if what == "floor" {
                let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
                file.set_len(8).unwrap();
                let watcher = Watcher::start(what, &path, "");
                (write(seconds, pause, |n| file.write_all_at(&n.to_le_bytes(), 0).unwrap()), watcher.moments())
            } else {
                let cask = open(&path);
                let watcher = Watcher::start(what, &path, "key");
                (write(seconds, pause, |n| _ = cask.put("key", value(n)).unwrap()), watcher.moments())
            };
            // The floor sees only the last of several numbers.
            let pairs = written.iter().zip(&seen).filter(|(written, seen)| **written > 0 && **seen > 0);
            let mut waits: Vec<u64> = pairs.map(|(written, seen)| seen.saturating_sub(*written)).collect();
            waits.sort_unstable();
            let at = |part: f64| waits[(part * (waits.len() - 1) as f64) as usize] as f64 / 1000.0;
            let figures = [at(0.5), at(0.99)];
            if what == "floor" && load == "idle" {
                floor = figures;
            }
            let ratio = |n: usize| figures[n] / f64::max(floor[n], 0.001);
            println!(
                "{load:<8}{what:<8}{:>10}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                waits.len(),
                figures[0],
                figures[1],
                at(1.0),
                ratio(0),
                ratio(1)
            );
        }
    }
    println!("\nputs a second, as a part of those that nothing watches");
    let mut unwatched = 0.0;
    let rows = [("none", 0, ""), ("one that wants other keys", 1, "other"), ("one", 1, "key"), ("ten", 10, "key")];
    for (name, watchers, prefix) in rows {
        let path = directory.path().join(format!("cost-{}", name.replace(' ', "-")));
        let cask = open(&path);
        let watchers: Vec<_> = (0..watchers).map(|_| Watcher::start("watch", &path, prefix)).collect();
        let puts = write(seconds, Duration::ZERO, |n| _ = cask.put("key", value(n)).unwrap()).len() as f64 / seconds;
        cask.put("other", value(LAST)).unwrap();
        watchers.into_iter().for_each(|watcher| drop(watcher.moments()));
        if unwatched == 0.0 {
            unwatched = puts;
        }
        println!("{name:<28}{puts:>12.0}{:>8.2}", puts / unwatched);
    }
}
