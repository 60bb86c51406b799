//! A service that embeds the library: configuration, a queue of jobs and the election of a leader in one file.
//!
//! ```text
//! cargo run --release --example service
//! ```
//!
//! The first process is the operator. It writes the configuration and the jobs, starts two workers (this program,
//! started again), kills the one that leads half-way through, and checks that every result was recorded exactly once.
//!
//! A worker leads as long as it holds the lease: the key `leader`, won by compare-and-swap and renewed with every
//! batch of jobs. Each batch says in a condition that the lease is still the one this worker holds, so a worker that
//! was thought dead and wakes up again cannot record a result for the second time: its batch is refused as a whole.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, Config, Error, KvPair, OptionalExt};

const JOBS: usize = 400;
const JOBS_PER_BATCH: usize = 5;
const WORKERS: [&str; 2] = ["anna", "ben"];
/// No call waits for longer if another process hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => operate(),
        [role, store, name] if role == "worker" => work(Path::new(store), name),
        _ => Err("usage: service".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn config() -> Config {
    // Less than the 10 seconds that are the default: a service would rather say that it is waiting.
    Config::new().connection_timeout(Duration::from_secs(2))
}

// The operator.

fn operate() -> Result<(), Box<dyn StdError>> {
    let directory = Temporary::new()?;
    let path = directory.0.join("service.cask");
    let store = Cask::open_with(&path, &config())?;
    let jobs = store.bucket("jobs")?;

    store.put("config/lease-ms", "300")?;
    store.put("config/job-ms", "1")?;
    let mut batch = Batch::new();
    batch.bucket("jobs");
    for number in 0..JOBS {
        batch.put(format!("pending/{number:06}"), format!("job {number}"));
    }
    store.write(&batch)?;
    println!("operator: wrote {} settings and {JOBS} jobs", store.list("config/")?.len());

    let mut workers = Vec::new();
    for name in WORKERS {
        workers.push((name, Worker::start(&path, name)?));
    }

    wait_until("half of the jobs are done", || Ok(jobs.list("done/")?.len() >= JOBS / 2))?;
    let leader = String::from_utf8(store.get("leader")?.value)?;
    let (_, victim) = workers.iter_mut().find(|(name, _)| *name == leader).ok_or("somebody else leads")?;
    victim.kill();
    println!("operator: {} jobs are done; killed the leader {leader}", jobs.list("done/")?.len());

    wait_until("the rest is done", || Ok(jobs.list("pending/")?.is_empty()))?;
    store.put("config/stop", "")?;
    for (name, worker) in &mut workers {
        if *name != leader {
            worker.wait()?;
        }
    }

    let done = jobs.list("done/")?;
    let by_first = done.iter().filter(|job| job.value.ends_with(leader.as_bytes())).count();
    println!(
        "operator: {} jobs are done, {by_first} by {leader} and {} by the other",
        done.len(),
        done.len() - by_first
    );
    if done.len() != JOBS || by_first == 0 || by_first == done.len() {
        return Err("a job is missing, or one worker has done all of them".into());
    }
    if store.get("leader").optional()?.is_some() {
        return Err("the lease was not given back".into());
    }
    // Explicitly, to hear of errors; dropping the last handle closes as well.
    store.close()?;
    println!("operator: closed");
    Ok(())
}

fn wait_until(what: &str, holds: impl Fn() -> caskfile::Result<bool>) -> Result<(), Box<dyn StdError>> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("gave up waiting until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

// A worker.

fn work(path: &Path, name: &str) -> Result<(), Box<dyn StdError>> {
    loop {
        match serve(path, name) {
            // The file was exchanged under the handle, or the disk failed a sync. Nothing more can be written through
            // this handle; what is in the file can be had by opening it again.
            Err(error @ (Error::Replaced { .. } | Error::Poisoned { .. })) => {
                println!("{name}: {error:#}");
                std::thread::sleep(Duration::from_secs(1));
            }
            result => return Ok(result?),
        }
    }
}

/// Works until the operator says stop.
fn serve(path: &Path, name: &str) -> caskfile::Result<()> {
    let store = Cask::open_with(path, &config().create(false))?;
    let mut rival: Option<(KvPair, Instant)> = None;
    let started = Instant::now();
    while store.get("config/stop").optional()?.is_none() && started.elapsed() < PATIENCE {
        match store.get("leader").optional()? {
            None => match store.atomic_put("leader", name, None) {
                Ok(lease) => lead(&store, name, lease)?,
                Err(error) if is_passing(name, &error) => {}
                Err(error) => return Err(error),
            },
            // Every renewal has a new index. That it stands still is seen by one's own clock alone, so the workers'
            // clocks need not agree.
            Some(lease) => match &rival {
                Some((seen, since)) if *seen == lease => {
                    if since.elapsed() > setting(&store, "config/lease-ms", 1000)? {
                        println!("{name}: {} does not renew the lease", String::from_utf8_lossy(&lease.value));
                        match store.atomic_put("leader", name, Some(&lease)) {
                            Ok(lease) => lead(&store, name, lease)?,
                            Err(error) if is_passing(name, &error) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                _ => rival = Some((lease, Instant::now())),
            },
        }
        // A look at the store costs no system call, so it may be taken often.
        std::thread::sleep(Duration::from_millis(5));
    }
    store.close()
}

/// Does jobs until there are none and the operator says stop, or another worker has taken the lease.
fn lead(store: &Cask, name: &str, mut lease: KvPair) -> caskfile::Result<()> {
    println!("{name}: leads");
    let jobs = store.bucket("jobs")?;
    let job_time = setting(store, "config/job-ms", 1)?;
    loop {
        let pending: Vec<KvPair> = jobs.scan("pending/")?.take(JOBS_PER_BATCH).collect::<caskfile::Result<_>>()?;
        if pending.is_empty() && store.exists("config/stop")? {
            println!("{name}: gives the lease back");
            return match store.atomic_delete("leader", Some(&lease)) {
                Err(error) if is_passing(name, &error) => Ok(()),
                result => result,
            };
        }
        let mut batch = Batch::new();
        batch.expect_last_index("leader", lease.last_index).bucket("jobs");
        for job in &pending {
            std::thread::sleep(job_time);
            let number = job.key.strip_prefix(b"pending/").unwrap_or(&job.key);
            batch
                .delete(&job.key)
                .put([b"done/", number].concat(), [&job.value, &b" by "[..], name.as_bytes()].concat());
        }
        // The renewal comes last, because the call returns the index of the batch's last record.
        batch.bucket("").put("leader", name);
        match store.write(&batch) {
            Ok(applied) => lease.last_index = applied.last_index().unwrap_or(lease.last_index),
            Err(Error::BatchConflict { cause, .. }) => {
                println!("{name}: no longer leads ({cause:#})");
                return Ok(());
            }
            // The same batch can be tried again: it either was refused, or it changes the lease that it expects.
            Err(error) if is_passing(name, &error) => {}
            Err(error) => return Err(error),
        }
        if pending.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether an error says only that another process was faster, or is just writing: look again and decide again.
fn is_passing(name: &str, error: &Error) -> bool {
    match error {
        Error::KeyExists | Error::KeyModified | Error::KeyNotFound => true,
        Error::LockTimeout { .. } => {
            println!("{name}: {error:#}");
            true
        }
        _ => false,
    }
}

/// A setting in milliseconds; the default if it is absent or no number.
fn setting(store: &Cask, key: &str, default: u64) -> caskfile::Result<Duration> {
    let text = store.get(key).optional()?.and_then(|pair| String::from_utf8(pair.value).ok());
    Ok(Duration::from_millis(text.and_then(|text| text.parse().ok()).unwrap_or(default)))
}

// Processes and directories.

struct Worker(Child);

impl Worker {
    fn start(store: &Path, name: &str) -> std::io::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(store).arg(name).stdin(Stdio::null());
        command.spawn().map(Worker)
    }

    /// SIGKILL: the worker has no time to close anything.
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn wait(&mut self) -> Result<(), Box<dyn StdError>> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a worker failed: {status}").into()) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory of one's own, removed with all that is in it.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> std::io::Result<Temporary> {
        let nanoseconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let path = std::env::temp_dir().join(format!("caskfile-service-{}-{nanoseconds}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
