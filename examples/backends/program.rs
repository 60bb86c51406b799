//! The program: see `main.rs`. It opens a store by a name and an address, and knows nothing else of the backend.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use caskfile::{Change, Config, Error, Feed, LockOptions, OptionalExt, Store, TreeEvent, new_store};

type Result<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

const ROUNDS: usize = 100;
const THREADS: usize = 2;
const CANDIDATES: [&str; 2] = ["anna", "ben"];
/// No call takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let own = OwnFile::new();
    let result = match &arguments[..] {
        [] => run("caskfile", &own.0.to_string_lossy()),
        [backend, address] => run(backend, address),
        _ => Err("usage: backends [BACKEND ADDRESS]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("backends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(backend: &str, address: &str) -> Result<()> {
    let store = new_store(backend, address, &Config::new())?;
    println!("{backend} at {address}\n");
    let mut costs = Costs::default();
    // Keys of this run alone: the store may be one that others use.
    let root = format!("example-{}/", std::process::id());
    let result = settings(&*store, &root, &mut costs)
        .and_then(|()| counter(&*store, &root, &mut costs))
        .and_then(|()| leader(&*store, &root, &mut costs));
    let deleted = store.delete_tree(root.as_bytes())?;
    result?;
    println!("{deleted} keys removed\n\n{costs}");
    Ok(store.close()?)
}

/// Settings, which another thread follows.
fn settings(store: &dyn Store, root: &str, costs: &mut Costs) -> Result<()> {
    let prefix = format!("{root}settings/");
    let mut feed = store.watch_tree(prefix.as_bytes())?;
    let stopper = feed.stopper();
    let (sender, receiver) = channel();
    let seen = thread::scope(|scope| -> Result<usize> {
        let following = scope.spawn(move || follow(&mut *feed, &sender));
        let written = write_settings(store, &prefix, &receiver, costs);
        stopper.stop();
        let followed = following.join().map_err(|_| "the thread that follows has panicked")?;
        written?;
        followed
    })?;
    println!("{ROUNDS} settings were put, read and listed; a watch has seen {seen} changes");
    if seen == ROUNDS { Ok(()) } else { Err("a change was lost".into()) }
}

fn write_settings(store: &dyn Store, prefix: &str, seen: &Receiver<Instant>, costs: &mut Costs) -> Result<()> {
    // The first item of the feed, which is the list.
    seen.recv_timeout(PATIENCE)?;
    for round in 0..ROUNDS {
        let (key, value) = (format!("{prefix}{round:03}"), format!("value {round}"));
        let began = Instant::now();
        costs.time("put", || store.put(key.as_bytes(), value.as_bytes()))?;
        costs.add("a put, until a watch has it", seen.recv_timeout(PATIENCE)? - began);
        let pair = costs.time("get", || store.get(key.as_bytes()))?;
        if pair.value != value.as_bytes() {
            return Err("a get returns another value than was put".into());
        }
    }
    for _ in 0..ROUNDS {
        let listed = costs.time("list of 100", || store.list(prefix.as_bytes()))?;
        if listed.len() != ROUNDS {
            return Err("a list lacks keys".into());
        }
    }
    Ok(())
}

/// Says when each item came, until the feed is stopped. Returns how many changes there were.
fn follow(feed: &mut dyn Feed<TreeEvent>, news: &Sender<Instant>) -> Result<usize> {
    let mut changes = 0;
    loop {
        match feed.next_timeout(None) {
            Ok(Some(event)) => {
                if let TreeEvent::Changes(of_one_write) = event {
                    changes += of_one_write.iter().filter(|change| matches!(change, Change::Put(_))).count();
                }
                news.send(Instant::now())?;
            }
            Ok(None) => {}
            Err(Error::Stopped) => return Ok(changes),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Threads that count with compare-and-swap.
fn counter(store: &dyn Store, root: &str, costs: &mut Costs) -> Result<()> {
    let key = format!("{root}counter");
    store.put(key.as_bytes(), b"0")?;
    let lost = thread::scope(|scope| -> Result<usize> {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| count(store, key.as_bytes()))).collect();
        let mut lost = 0;
        for thread in threads {
            let (timed, of_thread) = thread.join().map_err(|_| "a thread that counts has panicked")??;
            timed.into_iter().for_each(|time| costs.add("atomic_put, beside another thread", time));
            lost += of_thread;
        }
        Ok(lost)
    })?;
    let counted = number(&store.get(key.as_bytes())?.value)?;
    println!("{THREADS} threads have counted to {counted}; {lost} swaps were refused and tried again");
    if counted == THREADS * ROUNDS { Ok(()) } else { Err("an increment was lost".into()) }
}

/// Counts some steps. Returns what each try took, and how many were lost to others.
fn count(store: &dyn Store, key: &[u8]) -> Result<(Vec<Duration>, usize)> {
    let (mut times, mut lost) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        loop {
            let pair = store.get(key)?;
            let next = number(&pair.value)? + 1;
            let began = Instant::now();
            let swapped = store.atomic_put(key, next.to_string().as_bytes(), Some(&pair));
            times.push(began.elapsed());
            match swapped {
                Ok(_) => break,
                Err(error) if error.is_conflict() => lost += 1,
                // With `is_indeterminate`, the step may have happened: a program that must not count twice keeps more than a number.
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((times, lost))
}

fn number(value: &[u8]) -> Result<usize> {
    Ok(std::str::from_utf8(value)?.parse()?)
}

/// Candidates that lead one after another.
fn leader(store: &dyn Store, root: &str, costs: &mut Costs) -> Result<()> {
    let key = format!("{root}leader");
    let lock_of = |name: &str| store.new_lock(key.as_bytes(), &LockOptions::new().value(name));
    let locks = [lock_of(CANDIDATES[0])?, lock_of(CANDIDATES[1])?];
    let mut highest = 0;
    for _ in 0..ROUNDS / 2 {
        let held = costs.time("lock that is free", || locks[0].lock(Some(PATIENCE)))?;
        let of_leader = store.get(key.as_bytes())?.value;
        if of_leader != CANDIDATES[0].as_bytes() || !held.is_held() || held.token() <= highest {
            return Err("the leader does not lead".into());
        }
        let next = thread::scope(|scope| -> Result<_> {
            let waiting = scope.spawn(|| locks[1].lock(Some(PATIENCE)).map(|held| (held, Instant::now())));
            // Long enough for the other one to wait.
            thread::sleep(Duration::from_millis(10));
            let began = Instant::now();
            costs.time("unlock", || locks[0].unlock())?;
            let (next, at) = waiting.join().map_err(|_| "the thread that waits has panicked")??;
            costs.add("an unlock, until the next one leads", at - began);
            Ok(next)
        })?;
        if next.token() <= held.token() {
            return Err("a later leader has a lower token".into());
        }
        highest = next.token();
        locks[1].unlock()?;
        if !held.loss().wait(Some(PATIENCE)) || store.get(key.as_bytes()).optional()?.is_some() {
            return Err("a leader that has left is there".into());
        }
    }
    println!("{} have led {} times each, each time with a higher token", CANDIDATES.join(" and "), ROUNDS / 2);
    Ok(())
}

/// How long calls took.
#[derive(Default)]
struct Costs(Vec<(&'static str, Vec<Duration>)>);

impl Costs {
    fn time<T>(&mut self, call: &'static str, work: impl FnOnce() -> caskfile::Result<T>) -> caskfile::Result<T> {
        let began = Instant::now();
        let result = work();
        self.add(call, began.elapsed());
        result
    }

    fn add(&mut self, call: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == call) {
            Some((_, times)) => times.push(time),
            None => self.0.push((call, vec![time])),
        }
    }
}

/// A table of medians.
impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:36} {:>8} {:>12}", "call", "times", "median")?;
        for (call, times) in &self.0 {
            let mut times = times.clone();
            times.sort();
            let median = times[times.len() / 2].as_secs_f64() * 1e6;
            write!(f, "\n{call:36} {:>8} {median:>9.1} us", times.len())?;
        }
        Ok(())
    }
}

/// A file for the program's run, which is removed at its end.
struct OwnFile(PathBuf);

impl OwnFile {
    fn new() -> OwnFile {
        OwnFile(std::env::temp_dir().join(format!("caskfile-backends-{}.cask", std::process::id())))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
