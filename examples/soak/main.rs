//! A soak: many processes at one store, all at once, killed again and again, for as long as is asked for.
//!
//! ```text
//! cargo run --release --example soak -- 60 [DIRECTORY]
//! cargo run --release --example soak -- sleepers 3600 [DIRECTORY]
//! ```
//!
//! The second line is [`sleepers`], which is about watches.
//!
//! Four writers (two with `Durability::Sync`, one each with `Interval` and `Os`) mix puts, deletes, batches,
//! compare-and-swaps, prefix deletions, syncs, compactions and reopenings, while the store compacts itself. Two readers
//! compare whole listings with what must be there, and a third process makes backups, opens each and compares it in the
//! same way. This program starts them all, kills one with SIGKILL every few hundred milliseconds, and starts it again.
//!
//! What must be there is known, because each writer's operations follow from its number and a sequence number, which
//! every operation writes along ([`plan`]): a process that sees a sequence number knows all that the writer's keys must hold at
//! that moment. What was acknowledged stands in a small file of each process ([`tally`]), which survives the kill. So
//! each look at the store, live or in a backup, finds at least what was acknowledged when it began, no half batch, and
//! no index that went back ([`check`]).

mod check;
#[path = "../../tests/common/dice.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod dice;
mod plan;
mod sleepers;
mod tally;
mod work;

use std::collections::HashSet;
use std::error::Error as StdError;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, CompactionPolicy, Config};

use check::Checker;
use dice::Dice;
use plan::{ACCOUNTS, ENDOWMENT, WRITERS, account};
use tally::{Slot, Tally};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

const DEFAULT_SECONDS: u64 = 20;

/// The processes at the store, by name. A name begins with the role.
const WORKERS: [&str; 7] = ["writer-0", "writer-1", "writer-2", "writer-3", "reader-0", "reader-1", "backup-0"];

/// Everything lies in one directory.
struct Place(PathBuf);

impl Place {
    fn store(&self) -> PathBuf {
        self.0.join("data").join("store")
    }

    fn backup(&self) -> PathBuf {
        self.0.join("backups").join("copy")
    }

    fn tally(&self, worker: &str) -> Result<Tally> {
        Ok(Tally::open(&self.0.join("tallies").join(worker))?)
    }

    fn tallies(&self, role: &str) -> Result<Vec<Tally>> {
        WORKERS.iter().filter(|worker| worker.starts_with(role)).map(|worker| self.tally(worker)).collect()
    }
}

/// How everybody opens the store: it compacts itself as soon as half of it is dead, however small it is.
fn config() -> Config {
    let policy = CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 256 << 10 };
    Config::new().compaction(policy).connection_timeout(Duration::from_secs(60))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => soak(DEFAULT_SECONDS, None),
        ["sleepers", seconds, ref place @ ..] => {
            seconds.parse().map_err(Into::into).and_then(|seconds| sleep(seconds, place.first().map(Into::into)))
        }
        ["worker", name, place] => work::run(name, &Place(place.into())),
        [seconds] => seconds.parse().map_err(Into::into).and_then(|seconds| soak(seconds, None)),
        [seconds, place] => seconds.parse().map_err(Into::into).and_then(|seconds| soak(seconds, Some(place.into()))),
        _ => Err("usage: soak [[sleepers] SECONDS [DIRECTORY]]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {}: {error:#}", arguments.get(1).unwrap_or(&"main"));
            ExitCode::FAILURE
        }
    }
}

impl Place {
    fn make(directory: Option<PathBuf>) -> Result<Place> {
        let directory = directory.unwrap_or_else(std::env::temp_dir);
        let place = Place(directory.join(format!("caskfile-soak-{}", std::process::id())));
        for name in ["data", "backups", "tallies"] {
            std::fs::create_dir_all(place.0.join(name))?;
        }
        Ok(place)
    }
}

fn sleep(seconds: u64, directory: Option<PathBuf>) -> Result<()> {
    let place = Place::make(directory)?;
    println!("{seconds} seconds in {}", place.0.display());
    sleepers::run(&place, Duration::from_secs(seconds))?;
    std::fs::remove_dir_all(&place.0)?;
    Ok(())
}

fn soak(seconds: u64, directory: Option<PathBuf>) -> Result<()> {
    let place = Place::make(directory)?;
    endow(&place)?;
    println!("{seconds} seconds in {}", place.0.display());

    let began = Instant::now();
    let (kills, compactions) = run_and_kill(&place, Duration::from_secs(seconds))?;
    let took = began.elapsed().as_secs_f64();

    let summary = look_once_more(&place)?;
    println!("{summary}");
    println!("{kills} processes were killed; {compactions} times another file had the store's name; {took:.1} s");
    std::fs::remove_dir_all(&place.0)?;
    Ok(())
}

/// The sum over all accounts stays what it is here.
fn endow(place: &Place) -> Result<()> {
    let cask = Cask::open_with(place.store(), &config())?;
    let mut batch = Batch::new();
    for number in 0..ACCOUNTS {
        batch.put(account(number), ENDOWMENT.to_string());
    }
    cask.write(&batch)?;
    Ok(cask.close()?)
}

/// A worker ends by itself when its standard input does: so it does not outlive this process either.
fn start(worker: &str, place: &Place) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(["worker", worker]).arg(&place.0).stdin(Stdio::piped()).spawn()?)
}

/// Returns how many were killed, and how often the store's name was seen to mean another file.
fn run_and_kill(place: &Place, how_long: Duration) -> Result<(u64, usize)> {
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut workers = WORKERS.iter().map(|worker| start(worker, place)).collect::<Result<Vec<_>>>()?;
    let (began, mut kills, mut files) = (Instant::now(), 0, HashSet::new());
    let mut next_kill = Duration::ZERO;
    while began.elapsed() < how_long {
        std::thread::sleep(Duration::from_millis(10));
        files.insert(std::fs::metadata(place.store())?.ino());
        for (worker, name) in workers.iter_mut().zip(WORKERS) {
            if let Some(status) = worker.try_wait()? {
                return Err(format!("{name} has ended by itself: {status}").into());
            }
        }
        if began.elapsed() >= next_kill {
            let victim = dice.below(WORKERS.len() as u64) as usize;
            workers[victim].kill()?;
            workers[victim].wait()?;
            workers[victim] = start(WORKERS[victim], place)?;
            kills += 1;
            next_kill = began.elapsed() + Duration::from_millis(50 + dice.below(500));
        }
    }
    for (worker, name) in workers.iter_mut().zip(WORKERS) {
        drop(worker.stdin.take());
        let status = worker.wait()?;
        if !status.success() {
            return Err(format!("{name} has failed: {status}").into());
        }
    }
    Ok((kills, files.len() - 1))
}

/// When all is quiet: everything that was acknowledged is there, and nothing else is.
fn look_once_more(place: &Place) -> Result<String> {
    let mut checker = Checker::new(place)?;
    let cask = Cask::open_with(place.store(), &config())?;
    let report = cask.verify()?;
    let floor = checker.floor()?;
    checker.check(&cask, &floor)?;
    // What a killed one has left is removed by the next one to this name.
    let _ = std::fs::remove_file(place.backup());
    cask.backup(place.backup())?;
    let copy = Cask::open(place.backup())?;
    checker.check(&copy, &floor)?;
    copy.close()?;
    cask.close()?;
    expect_only(&place.0.join("data"), "store")?;
    expect_only(&place.0.join("backups"), "copy")?;

    let sum = |role: &str, slot| -> Result<u64> {
        place.tallies(role)?.iter().try_fold(0, |sum, tally| Ok(sum + tally.get(slot)?))
    };
    Ok(format!(
        "{} operations of {WRITERS} writers, {} increments by compare-and-swap, {} transfers, {} listings compared, \
         {} backups opened and compared\nin the end: {} keys, {} bytes, highest index {}",
        sum("writer", Slot::Sequence)?,
        sum("writer", Slot::Incremented)?,
        sum("writer", Slot::Transfers)?,
        sum("reader", Slot::Looks)?,
        sum("backup", Slot::Looks)?,
        report.keys,
        report.file_len,
        floor.last_index,
    ))
}

fn expect_only(directory: &Path, name: &str) -> Result<()> {
    let found: Vec<_> =
        directory.read_dir()?.map(|entry| entry.map(|entry| entry.file_name())).collect::<std::io::Result<_>>()?;
    if found != [name] {
        return Err(format!("{} has files left over: {found:?}", directory.display()).into());
    }
    Ok(())
}
