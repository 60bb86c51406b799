//! Three processes elect a leader, and a counter that only the leader of the moment can advance.
//!
//! ```text
//! cargo run --release --example election
//! ```
//!
//! This program starts itself again as three candidates. Each waits for the lock `leader`. The one that has it counts: each step is a
//! batch that expects the lock, so a leader that was stopped, and has lost the lock meanwhile, cannot count any more. With each step
//! it writes its token. The first process kills leaders, and stops others for longer than their time to live; at the end it checks
//! that no number is missing and that no token comes after a higher one.

use std::error::Error as StdError;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask, Config, Error, Held, LockOptions, OptionalExt};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

const CANDIDATES: [&str; 3] = ["anna", "ben", "cleo"];
/// A leader that is stopped for longer than this leads no more.
const TTL: Duration = Duration::from_millis(500);
/// How many leaders are ended.
const ROUNDS: usize = 4;
/// No step takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => run(),
        [role, store, name] if role == "candidate" => stand(Path::new(store), name),
        _ => Err("usage: election".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("election: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// A candidate.

/// Leads whenever it is its turn, until the first process says stop.
fn stand(store: &Path, name: &str) -> Result<()> {
    let store = Cask::open(store)?;
    // Others read in the value which process leads. A process need not renew anything: a thread of the library does.
    let options = LockOptions::new().value(format!("{name} {}", std::process::id())).ttl(TTL);
    let lock = store.lock("leader", &options)?;
    while !store.exists("stop")? {
        let held = match lock.lock(Some(Duration::from_millis(100))) {
            Ok(held) => held,
            // Another one leads; or this process was stopped right in this call.
            Err(Error::TimedOut { .. } | Error::SessionOver) => continue,
            Err(error) => return Err(error.into()),
        };
        println!("{name}: leads with the token {}", held.token());
        let released = if lead(&store, &held)? { lock.unlock() } else { Err(Error::NotHeld) };
        match released {
            Ok(()) => {}
            // It may have been lost right before the release.
            Err(Error::NotHeld) => println!("{name}: has lost the lead"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Counts. Returns whether the lock is still held at the end.
fn lead(store: &Cask, held: &Held) -> Result<bool> {
    while !store.exists("stop")? {
        let number = number(store)? + 1;
        let mut step = Batch::new();
        step.expect_held(held).put("count", number.to_string()).put_new(step_key(number), held.token().to_string());
        match store.write(&step) {
            Ok(_) => {}
            // However late this process comes, the store knows that the lock is another one's.
            Err(Error::BatchConflict { .. } | Error::SessionOver) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // Work that is no write to the store can look at the loss, and must not rely on it.
        if held.loss().wait(Some(Duration::from_millis(2))) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn number(store: &Cask) -> Result<u64> {
    match store.get("count").optional()? {
        Some(pair) => Ok(String::from_utf8(pair.value)?.parse()?),
        None => Ok(0),
    }
}

fn step_key(number: u64) -> String {
    format!("step/{number:08}")
}

// The first process.

fn run() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("caskfile-election-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let checked = check(&directory.join("election.cask"));
    std::fs::remove_dir_all(&directory)?;
    checked
}

fn check(path: &Path) -> Result<()> {
    let store = Cask::open_with(path, &Config::new().connection_timeout(Duration::from_millis(200)))?;
    let mut candidates = Candidates(Vec::new(), Vec::new());
    for name in CANDIDATES {
        candidates.start(path, name)?;
    }
    for round in 0..ROUNDS {
        let before = number(&store)?;
        wait_until("the leader counts", || Ok(number(&store)? > before + 10))?;
        let mut leader = None;
        wait_until("a process leads", || {
            leader = store.get("leader").optional()?;
            Ok(leader.is_some())
        })?;
        let value = String::from_utf8(leader.ok_or("no process leads")?.value)?;
        let (name, process) = value.split_once(' ').ok_or("the leader has another value")?;
        if round % 2 == 0 {
            signal("KILL", process)?;
            candidates.1.push(process.parse()?);
            println!("killed the leader {name}");
            // It is replaced, as a service would be by its supervisor.
            candidates.start(path, name)?;
        } else {
            stop(&store, process)?;
            println!("stopped the leader {name}");
            let again = || Ok(store.get("leader").optional()?.is_some_and(|pair| pair.value != value.as_bytes()));
            wait_until("another one leads", again)?;
            signal("CONT", process)?;
        }
    }
    let before = number(&store)?;
    wait_until("the last leader counts", || Ok(number(&store)? > before + 10))?;
    store.put("stop", "")?;
    candidates.wait()?;

    let (mut leaders, mut highest) = (0, 0);
    let steps = store.list("step/")?;
    for (n, step) in steps.iter().enumerate() {
        let token: u64 = String::from_utf8(step.value.clone())?.parse()?;
        if step.key != step_key(n as u64 + 1).as_bytes() || token < highest {
            return Err(format!("step {} has the token {token}, after {highest}", step.key.escape_ascii()).into());
        }
        leaders += usize::from(token > highest);
        highest = token;
    }
    println!("{} steps under {leaders} leaders, each with a higher token than those before", steps.len());
    if steps.len() as u64 != number(&store)? || leaders <= ROUNDS {
        return Err("a step or a leader is missing".into());
    }
    Ok(())
}

/// Stops a process at a moment at which it does not write. One that is stopped in the middle of a write keeps all writers waiting.
fn stop(store: &Cask, process: &str) -> Result<()> {
    loop {
        signal("STOP", process)?;
        match store.put("is any process writing?", "") {
            Ok(_) => return Ok(()),
            Err(Error::LockTimeout { .. }) => signal("CONT", process)?,
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The candidates that were started, and the process ids of those that were killed since. All are killed if something fails.
struct Candidates(Vec<Child>, Vec<u32>);

impl Candidates {
    fn start(&mut self, store: &Path, name: &str) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        self.0.push(command.args(["candidate".as_ref(), store.as_os_str(), name.as_ref()]).spawn()?);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        for child in &mut self.0 {
            let mut status = None;
            wait_until("a candidate ends", || {
                status = child.try_wait()?;
                Ok(status.is_some())
            })?;
            let status = status.ok_or("a candidate does not end")?;
            if !status.success() && !self.1.contains(&child.id()) {
                return Err(format!("a candidate ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn signal(name: &str, process: &str) -> Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), process]).status()?;
    if sent.success() { Ok(()) } else { Err(format!("kill -{name} {process}: {sent}").into()) }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("gave up waiting until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
