//! A queue of jobs. Workers are separate processes, and may be killed at any moment: each job is done, and noted as done once.
//!
//! ```text
//! queue STORE add COUNT       adds jobs
//! queue STORE work            works until nothing is left
//! ```
//!
//! A job is in one of three buckets. A worker moves it from `waiting` to `running`, with a deadline, and from there to `done`;
//! each move is one batch with a condition on the job's `last_index`. What is past its deadline goes back to `waiting`. Its
//! worker may still be alive, but cannot note the job as done any more: the index is another one.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caskfile::{Batch, Cask, Config};
use caskfile_programs::typed::{Result, Typed};
use serde::{Deserialize, Serialize};

const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Serialize, Deserialize)]
struct Job {
    number: u64,
    /// Until when its worker has it, in milliseconds since 1970.
    deadline: u64,
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

struct Queue {
    cask: Cask,
    waiting: Typed<Job>,
    running: Typed<Job>,
}

impl Queue {
    fn open(path: &str) -> Result<Queue> {
        let cask = Cask::open_with(path, &Config::new().connection_timeout(Duration::from_secs(5)))?;
        let bucket = |name| cask.bucket(name).map(Typed::new);
        Ok(Queue { waiting: bucket("waiting")?, running: bucket("running")?, cask: cask.clone() })
    }

    fn add(&self, count: u64) -> Result<()> {
        let jobs = (0..count).map(|number| Ok((key(number), serde_json::to_vec(&Job { number, deadline: 0 })?)));
        let mut batch = Batch::new();
        batch.bucket("waiting").extend(jobs.collect::<Result<Vec<_>>>()?);
        self.cask.write(&batch)?;
        Ok(())
    }

    /// Moves a job from one bucket to another, if it is still as it was. Returns its index there.
    fn go(&self, job: &Job, from: &str, index: u64, to: &str) -> Result<Option<u64>> {
        let key = key(job.number);
        let mut batch = Batch::new();
        batch.bucket(from).delete_if(&key, index).bucket(to).put_new(&key, serde_json::to_vec(job)?);
        match self.cask.write(&batch) {
            Ok(applied) => Ok(applied.last_index()),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the first job that no other worker is faster to take.
    fn take(&self) -> Result<Option<(Job, u64)>> {
        for waiting in self.waiting.scan("")? {
            let (_, mut job, index) = waiting?;
            job.deadline = now()? + PATIENCE.as_millis() as u64;
            if let Some(index) = self.go(&job, "waiting", index, "running")? {
                return Ok(Some((job, index)));
            }
        }
        Ok(None)
    }

    fn put_back_what_is_late(&self) -> Result<()> {
        for running in self.running.scan("")? {
            let (_, job, index) = running?;
            if job.deadline < now()? {
                self.go(&job, "running", index, "waiting")?;
            }
        }
        Ok(())
    }

    /// Whether no job waits or runs, at one moment: a bucket exists while it has a key.
    fn is_done(&self) -> Result<bool> {
        Ok(self.cask.buckets()?.iter().all(|name| name == b"done"))
    }

    fn work(&self) -> Result<()> {
        loop {
            match self.take()? {
                Some((job, index)) => {
                    sleep(Duration::from_millis(1)); // the work
                    if self.go(&job, "running", index, "done")?.is_none() {
                        eprintln!("job {} took too long: another worker has it", job.number);
                    }
                }
                None if self.is_done()? => return Ok(()),
                None => {
                    sleep(PATIENCE / 10);
                    self.put_back_what_is_late()?;
                }
            }
        }
    }
}

fn key(number: u64) -> String {
    format!("{number:08}")
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [store, verb, count] if verb == "add" => Queue::open(store)?.add(count.parse()?),
        [store, verb] if verb == "work" => Queue::open(store)?.work(),
        _ => Err("usage: queue STORE add COUNT | queue STORE work".into()),
    }
}
