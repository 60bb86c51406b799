//! A queue of jobs, in which a job comes back when the worker that has taken it dies.
//!
//! ```text
//! cargo run --release --example jobs
//! ```
//!
//! This program starts itself again as three workers. A worker takes a job by a lock of its own: while it works, the key
//! `taken/NUMBER` says so, and ends with the worker. The result is written in a batch that expects the lock, so each job is done
//! once, also if its worker was thought dead and goes on. The first process kills workers that are at work, and checks that
//! the jobs that they had taken are done by others.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, Error, Held, LockOptions};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

const JOBS: usize = 60;
const WORKERS: usize = 3;
const KILLED: usize = 3;
/// How long a job takes.
const WORK: Duration = Duration::from_millis(5);
/// No step takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => run(),
        [role, store] if role == "worker" => work(Path::new(store)),
        _ => Err("usage: jobs".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// A worker.

/// Does jobs until none is left.
fn work(store: &Path) -> Result<()> {
    let store = Cask::open(store)?;
    loop {
        let waiting = store.keys("waiting/")?.collect::<caskfile::Result<Vec<_>>>()?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut has_worked = false;
        for key in waiting {
            has_worked |= try_job(&store, &key["waiting/".len()..])?;
        }
        if !has_worked {
            // All jobs that are left are taken. One of them comes back if its worker dies.
            std::thread::sleep(WORK);
        }
    }
}

/// Does a job, unless another worker has it. Returns whether it was done.
fn try_job(store: &Cask, number: &[u8]) -> Result<bool> {
    let key = |prefix: &[u8]| [prefix, number].concat();
    // The value names the worker. A worker that finds a job taken takes another one, and does not wait.
    let lock = store.lock(key(b"taken/"), &LockOptions::new().value(std::process::id().to_string()))?;
    let Some(held) = lock.try_lock()? else { return Ok(false) };
    // Another worker may have done it between the list and the lock.
    if !store.exists(key(b"waiting/"))? {
        lock.unlock()?;
        return Ok(false);
    }
    std::thread::sleep(WORK);
    let done = finish(store, &held, &key(b"waiting/"), &key(b"done/"))?;
    match lock.unlock() {
        Ok(()) | Err(Error::NotHeld) => Ok(done),
        Err(error) => Err(error.into()),
    }
}

/// Writes the result, if this worker still has the job.
fn finish(store: &Cask, held: &Held, waiting: &[u8], done: &[u8]) -> Result<bool> {
    let mut batch = Batch::new();
    batch.expect_held(held).delete(waiting).put_new(done, std::process::id().to_string());
    match store.write(&batch) {
        Ok(_) => Ok(true),
        Err(Error::BatchConflict { .. } | Error::SessionOver) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

// The first process.

fn run() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("caskfile-jobs-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let checked = check(&directory.join("jobs.cask"));
    std::fs::remove_dir_all(&directory)?;
    checked
}

fn check(path: &Path) -> Result<()> {
    let store = Cask::open(path)?;
    let mut jobs = Batch::new();
    for number in 0..JOBS {
        jobs.put(format!("waiting/{number:04}"), "what is to be done");
    }
    store.write(&jobs)?;
    let mut workers = Workers(BTreeMap::new());
    for _ in 0..WORKERS {
        workers.start(path)?;
    }
    // What each killed worker had taken.
    let mut lost = Vec::new();
    while lost.len() < KILLED && !store.list("waiting/")?.is_empty() {
        let Some((job, worker)) = taken(&store)?.pop() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        if workers.kill(worker)? {
            // The job may have been done right before that.
            let is_back = store.exists(format!("waiting/{job}"))?;
            println!(
                "killed the worker {worker}, {}",
                if is_back { format!("which had taken {job}") } else { "too late".into() }
            );
            if is_back {
                lost.push((job, worker));
            }
            workers.start(path)?;
        }
    }
    workers.wait()?;
    // A worker that was killed between its last write and its release still has its job here, until its time to live is over.
    let ended = Instant::now();
    while !taken(&store)?.is_empty() {
        if ended.elapsed() > PATIENCE {
            return Err("a dead worker's job is still taken".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }

    let done = store.list("done/")?;
    for (job, worker) in &lost {
        let by = String::from_utf8(store.get(format!("done/{job}"))?.value)?;
        println!("{job} was taken by {worker}, and done by {by}");
        if by == worker.to_string() {
            return Err("a dead worker has done a job".into());
        }
    }
    println!("{} jobs are done", done.len());
    if done.len() != JOBS || lost.is_empty() || !store.list("waiting/")?.is_empty() {
        return Err("a job is missing, or no worker was killed at work".into());
    }
    Ok(())
}

/// The jobs that are taken, and the process ids of their workers.
fn taken(store: &Cask) -> Result<Vec<(String, u32)>> {
    let mut taken = Vec::new();
    for pair in store.list("taken/")? {
        let job = String::from_utf8(pair.key)?.trim_start_matches("taken/").to_owned();
        taken.push((job, String::from_utf8(pair.value)?.parse()?));
    }
    Ok(taken)
}

/// The workers that run, by their process ids. All are killed if something fails.
struct Workers(BTreeMap<u32, Child>);

impl Workers {
    fn start(&mut self, store: &Path) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.args(["worker".as_ref(), store.as_os_str()]).spawn()?;
        self.0.insert(child.id(), child);
        Ok(())
    }

    /// Returns whether it ran.
    fn kill(&mut self, worker: u32) -> Result<bool> {
        let Some(mut child) = self.0.remove(&worker) else { return Ok(false) };
        child.kill()?;
        child.wait()?;
        Ok(true)
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        while let Some(mut worker) = self.0.first_entry() {
            match worker.get_mut().try_wait()? {
                Some(status) if status.success() => drop(worker.remove()),
                Some(status) => return Err(format!("a worker ended with {status}").into()),
                None if started.elapsed() > PATIENCE => return Err("a worker does not end".into()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in self.0.values_mut() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
