//! Several processes write to one store, durably and without syncs: measures how long each put waits and how many puts are made.
//!
//! ```text
//! cargo bench --bench fairness                     # three seconds a row
//! ```
//!
//! Each process puts as fast as it can. The unit of waits is the median put of a process that
//! writes alone. The floor is the same number of processes that take turns by a blocking `flock`, append one record each
//! time, and sync. The files are in the system's temporary directory (`TMPDIR`).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Cask, Config, Durability};

mod common;

use common::{Directory, RECORD_LEN, VALUE};

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [what @ ("store" | "unsynced"), path, number, seconds] => {
            let durability = if what == "store" { Durability::Sync } else { Durability::Os };
            let config = Config::new().connection_timeout(None).durability(durability);
            let cask = Cask::open_with(path, &config).unwrap();
            write(seconds, |n| cask.put(format!("{number}/{n:014}"), VALUE).map(drop).unwrap());
        }
        ["floor", path, _, seconds] => {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            // SAFETY: takes no pointer, and the descriptor is open.
            let lock = |operation| assert_eq!(unsafe { libc::flock(file.as_raw_fd(), operation) }, 0);
            write(seconds, |n| {
                lock(libc::LOCK_EX);
                file.write_all_at(&[1; RECORD_LEN], n * RECORD_LEN as u64).unwrap();
                file.sync_data().unwrap();
                lock(libc::LOCK_UN);
            });
        }
        ["--seconds", seconds] => measure(seconds),
        [] => measure("3"),
        _ => {
            eprintln!("usage: fairness [--seconds N]");
            std::process::exit(2);
        }
    }
}

/// Writes until the time is over, and prints how long each write took, in nanoseconds.
fn write(seconds: &str, mut put: impl FnMut(u64)) {
    let seconds: f64 = seconds.parse().unwrap();
    // Waits while the other processes start.
    std::thread::sleep(Duration::from_millis(300));
    let (began, mut waits) = (Instant::now(), Vec::new());
    while began.elapsed().as_secs_f64() < seconds {
        let put_began = Instant::now();
        put(waits.len() as u64 / 8);
        waits.extend((put_began.elapsed().as_nanos() as u64).to_le_bytes());
    }
    std::io::stdout().write_all(&waits).unwrap();
}

fn measure(seconds: &str) {
    let directory = Directory::new("fairness");
    println!("puts, keys of 16 bytes, values of 100; {seconds} s a row; in {}\n", directory.path().display());
    println!("waits in group times of the row with one process");
    println!(
        "{:<10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>10}",
        "", "processes", "puts/s", "p50", "p99", "p99.9", "max", "poorest"
    );
    for what in ["floor", "store", "unsynced"] {
        let mut group = Duration::ZERO;
        for processes in [1, 2, 8] {
            let path = directory.path().join(format!("{what}-{processes}"));
            let file = File::create(&path).unwrap();
            if what == "floor" {
                file.set_len(64 << 20).unwrap();
                file.sync_all().unwrap();
            }
            let waits = run(what, &path, processes, seconds);
            let mut all = waits.concat();
            all.sort_unstable();
            if processes == 1 {
                group = all[all.len() / 2];
            }
            let poorest = waits.iter().map(Vec::len).min().unwrap_or(0) as f64;
            let at = |part: f64| {
                let wait = all[(part * (all.len() - 1) as f64) as usize];
                format!("{:.1}", wait.as_secs_f64() / group.as_secs_f64())
            };
            println!(
                "{what:<10}{processes:>10}{:>10.0}{:>9}{:>9}{:>9}{:>9}{:>9.0}%",
                all.len() as f64 / seconds.parse::<f64>().unwrap(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
                poorest * 100.0 * processes as f64 / all.len() as f64
            );
        }
        println!("{what:<10}one group time is {group:.1?}\n");
    }
}

fn run(what: &str, path: &Path, processes: usize, seconds: &str) -> Vec<Vec<Duration>> {
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..processes)
        .map(|number| {
            let mut command = Command::new(&program);
            command.arg(what).arg(path).arg(number.to_string()).arg(seconds);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // Each process prints only at its end, so their outputs can be read in turn.
    let readers: Vec<_> = children
        .into_iter()
        .map(|mut child| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
                assert!(child.wait().unwrap().success());
                let waits = bytes.chunks_exact(8).map(|wait| u64::from_le_bytes(wait.try_into().unwrap()));
                waits.map(Duration::from_nanos).collect()
            })
        })
        .collect();
    readers.into_iter().map(|reader| reader.join().unwrap()).collect()
}
