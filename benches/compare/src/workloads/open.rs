//! From the call to open to the first value: of a store that was closed, with its files in the page cache and without, and of
//! one whose process was killed. The store is made by another process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use memmap2::MmapOptions;

use super::{Setting, VALUE, load, verify};
use crate::data::{Keys, check, shuffled};
use crate::engine::{Engine, Mode, Result, Role};

const OPENINGS: usize = 5;
const COLD_OPENINGS: usize = 3;

/// The argument for the process that makes the store.
const PREPARE: &str = "--prepare";

pub fn run(setting: &Setting) -> Result<()> {
    let warm = prepared(setting, false).and_then(|()| median(setting, OPENINGS, |_| Ok(())));
    // If there is no store to open, one reason is enough.
    let cold = warm.is_ok().then(|| median(setting, COLD_OPENINGS, forget));
    setting.row("open-closed", warm);
    if let Some(cold) = cold {
        setting.row("open-cold", cold);
    }
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

/// Runs in the other process. Everything that must survive the kill is written durably.
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
fn median(setting: &Setting, openings: usize, mut before: impl FnMut(&Setting) -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..openings {
        before(setting)?;
        let (took, engine) = once(setting)?;
        engine.close()?;
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[openings / 2])
}

/// Takes the files out of the page cache.
fn forget(setting: &Setting) -> Result<()> {
    for (path, metadata) in setting.files()? {
        let file = File::open(&path)?;
        file.sync_all()?;
        // SAFETY: it takes no pointer, and the descriptor is open.
        match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error).into()),
        }
        let left = cached_pages(&file, metadata.len())?;
        if left != 0 {
            return Err(format!("{} pages of {} stay in the page cache", left, path.display()).into());
        }
    }
    Ok(())
}

/// How many pages of a file are in the page cache.
fn cached_pages(file: &File, len: u64) -> Result<usize> {
    if len == 0 {
        return Ok(0);
    }
    let map = MmapOptions::new().len(len as usize).map_raw_read_only(file)?;
    let mut pages = vec![0u8; map.len().div_ceil(4096)];
    // SAFETY: the range is mapped while `map` lives, and there is a byte for each of its pages.
    match unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), pages.as_mut_ptr()) } {
        0 => Ok(pages.iter().filter(|&&page| page & 1 == 1).count()),
        _ => Err(io::Error::last_os_error().into()),
    }
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
