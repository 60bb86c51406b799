//! From the call to open to the first value, with the files in the page cache: of a store that was closed, and of one
//! whose process was killed. The store is made by another process.

use std::process::Command;
use std::time::Instant;

use super::{Setting, VALUE, load, verify};
use crate::data::{Keys, check, shuffled};
use crate::engine::{Engine, Mode, Result, Role};

const OPENINGS: usize = 5;

/// What the process is told that makes the store.
const PREPARE: &str = "--prepare";

pub fn run(setting: &Setting) -> Result<()> {
    setting.row("open-closed", prepared(setting, false).and_then(|()| closed(setting)));
    std::fs::remove_dir_all(&setting.directory)?;
    std::fs::create_dir(&setting.directory)?;
    if setting.kind.role != Role::Floor {
        setting.row("open-killed", prepared(setting, true).and_then(|()| Ok(once(setting)?.0)));
    }
    Ok(())
}

/// Runs this program again, with the same arguments and one more.
fn prepared(setting: &Setting, killed: bool) -> Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg(format!("{PREPARE}={}", if killed { "killed" } else { "closed" }))
        .output()?;
    use std::os::unix::process::ExitStatusExt;
    if killed && output.status.signal() == Some(libc::SIGKILL) || !killed && output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{} could not be prepared: {} {reason}", setting.kind.name, output.status).into())
}

/// What the other process does. What is to survive the kill was written durably.
pub fn prepare(setting: &Setting, killed: bool) -> Result<()> {
    let engine = setting.open(if killed { Mode::Durable } else { Mode::Unsynced })?;
    load(&*engine, &mut Keys::short(), setting.keys, 1, setting.seed)?;
    if killed {
        // SAFETY: a signal to this process itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    engine.close()
}

/// The median of several openings, each of which closes again.
fn closed(setting: &Setting) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..OPENINGS {
        let (took, engine) = once(setting)?;
        engine.close()?;
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[OPENINGS / 2])
}

/// Milliseconds, and what was opened.
fn once(setting: &Setting) -> Result<(f64, Box<dyn Engine>)> {
    let mut keys = Keys::short();
    let mut buffer = Vec::new();
    let started = Instant::now();
    let engine = setting.open(Mode::Unsynced)?;
    let found = engine.get(keys.key(0), &mut buffer, &mut |value| check(0, 1..=1, VALUE, value));
    let took = started.elapsed().as_secs_f64() * 1e3;
    if setting.kind.role != Role::Floor && !found? {
        return Err("key 0 is lost".into());
    }
    verify(&*engine, &shuffled(setting.keys, setting.seed), 1)?;
    Ok((took, engine))
}
