//! Puts without syncs that follow each other closely, between which the file's lock lingers: measures what that gains, and what it
//! costs other processes.
//!
//! ```text
//! cargo bench --bench bursts                       # 1,000 stops
//! ```
//!
//! A process puts in bursts. Another one stops it (SIGSTOP) at random moments, and tries for the lock: where it cannot have it, the
//! stopped process keeps all others waiting. And a process without patience (`connection_timeout` of zero) puts beside it. The
//! files are in the system's temporary directory (`TMPDIR`).

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Cask, CompactionPolicy, Config, Durability, LockMode};

mod common;

use common::{Directory, VALUE, numbers, spread_key};

/// The puts of a burst that ends.
const BURST: u64 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, path] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        match what {
            "endless" => return write_without_end(path.as_ref()),
            after => {
                if let Ok(after) = after.parse() {
                    return stop_after_bursts(path.as_ref(), Duration::from_micros(after));
                }
            }
        }
    }
    let [stops] = numbers("bursts", [("--stops", 1000)]);
    let directory = Directory::new("bursts");
    println!("puts without syncs, keys of 16 bytes, values of 100; in {}\n", directory.path().display());
    for (name, mode) in [("shared", LockMode::PerWrite), ("exclusive", LockMode::Exclusive)] {
        let cask = open(&directory.path().join(name), mode, None);
        println!("{name:<10}{:>8.2} µs a put", put_for(&cask, Duration::from_secs(1)).as_nanos() as f64 / 1e3);
    }
    println!("\na stopped process keeps others waiting, of {stops} stops each:");
    let kept = stop(&directory.path().join("endless"), "endless", stops);
    println!("{:<44}{kept:>8.1} %", "in a burst");
    for after in [0, 20, 40, 60, 80, 100, 150, 200, 300, 1000] {
        let kept = stop(&directory.path().join(format!("after-{after}")), &after.to_string(), stops);
        println!("{:<44}{kept:>8.1} %", format!("{after} µs after its end"));
    }
    let (free, tries) = beside(&directory.path().join("beside"), stops);
    println!("\na put without patience beside a burst succeeds: {:.1} %", free as f64 * 100.0 / tries as f64);
}

fn open(path: &Path, mode: LockMode, timeout: Option<Duration>) -> Cask {
    let config = Config::new().durability(Durability::Os).lock_mode(mode).connection_timeout(timeout);
    Cask::open_with(path, &config.compaction(CompactionPolicy::Manual)).unwrap()
}

/// Returns how long a put has taken.
fn put_for(cask: &Cask, time: Duration) -> Duration {
    let (began, mut puts) = (Instant::now(), 0);
    while began.elapsed() < time {
        put_burst(cask, puts);
        puts += BURST;
    }
    began.elapsed() / puts as u32
}

fn put_burst(cask: &Cask, from: u64) {
    for n in from..from + BURST {
        cask.put(spread_key(n % 10_000), VALUE).unwrap();
    }
}

fn write_without_end(path: &Path) {
    let cask = open(path, LockMode::PerWrite, None);
    let mut out = std::io::stdout();
    for from in (0..).step_by(BURST as usize) {
        put_burst(&cask, from);
        if from == 0 {
            out.write_all(b"!").and_then(|()| out.flush()).unwrap();
        }
    }
}

/// Stops itself, so long after each burst.
fn stop_after_bursts(path: &Path, after: Duration) {
    let cask = open(path, LockMode::PerWrite, None);
    loop {
        put_burst(&cask, 0);
        let ended = Instant::now();
        while ended.elapsed() < after {
            std::hint::spin_loop();
        }
        // SAFETY: takes no pointer.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

fn start(what: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(what).arg(path).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Stops a process at random moments of a burst, or waits until it stops itself. Returns in how many of a hundred cases it had the
/// lock.
fn stop(path: &Path, what: &str, stops: u64) -> f64 {
    let mut child = start(what, path);
    let (id, stops_itself) = (child.id() as libc::pid_t, what != "endless");
    if !stops_itself {
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }
    let mut probe = None;
    let mut kept = 0;
    for n in 0..stops {
        if !stops_itself {
            // Spread over a time in which a put is made many times.
            let pause = Duration::from_nanos(300_000 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 50_000);
            let began = Instant::now();
            while began.elapsed() < pause {
                std::hint::spin_loop();
            }
            // SAFETY: takes no pointer.
            assert_eq!(unsafe { libc::kill(id, libc::SIGSTOP) }, 0);
        }
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        assert_eq!(unsafe { libc::waitpid(id, &mut status, libc::WUNTRACED) }, id);
        assert!(libc::WIFSTOPPED(status));
        let probe = probe.get_or_insert_with(|| OpenOptions::new().read(true).write(true).open(path).unwrap());
        // SAFETY: takes no pointer, and the descriptor is open.
        let lock = |operation| unsafe { libc::flock(probe.as_raw_fd(), operation) == 0 };
        if lock(libc::LOCK_EX | libc::LOCK_NB) {
            lock(libc::LOCK_UN);
        } else {
            kept += 1;
        }
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { libc::kill(id, libc::SIGCONT) }, 0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    kept as f64 * 100.0 / stops as f64
}

/// Puts without patience beside a process that puts without end. Returns how many puts succeeded, and of how many.
fn beside(path: &Path, tries: u64) -> (u64, u64) {
    let mut child = start("endless", path);
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let cask = open(path, LockMode::PerWrite, None);
    let impatient = {
        let config = Config::new().durability(Durability::Os).connection_timeout(Duration::ZERO);
        drop(cask);
        loop {
            match Cask::open_with(path, &config.clone().compaction(CompactionPolicy::Manual)) {
                Ok(cask) => break cask,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    };
    let done = (0..tries).filter(|n| {
        std::thread::sleep(Duration::from_micros(500 + n % 100));
        impatient.put("impatient", VALUE).is_ok()
    });
    let done = done.count() as u64;
    child.kill().unwrap();
    child.wait().unwrap();
    (done, tries)
}
