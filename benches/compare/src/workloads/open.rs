//! From the call to open to the first value or the first list: of a store that was closed, with its files in the page cache and
//! without, and of one whose process was killed. The store is made by another process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use memmap2::MmapOptions;

use super::list::list;
use super::{Setting, VALUE, load, read, verify};
use crate::data::{Keys, NARROW, shuffled, value_into};
use crate::engine::{Engine, Mode, Result, Role};
use crate::process;

const OPENINGS: usize = 5;
const COLD_OPENINGS: usize = 3;

/// The argument for the process that makes the store.
const PREPARE: &str = "--prepare";

const CLOSED: &str = "closed";
/// Closed after a list.
const LISTED: &str = "listed";
const KILLED: &str = "killed";
const KILLED_UNSYNCED: &str = "killed-unsynced";

/// What an opening is timed with.
type First = fn(&dyn Engine, &Setting) -> Result<()>;

pub fn run(setting: &Setting) -> Result<()> {
    let made = prepared(setting, CLOSED);
    // In a process that has not opened anything yet.
    let memory = made.and_then(|()| if is_floor(setting) { Ok(Vec::new()) } else { memory(setting) });
    let warm = memory.and_then(|memory| {
        memory.into_iter().for_each(|(row, bytes)| setting.row(row, Ok(bytes)));
        median(setting, OPENINGS, |_| Ok(()), first_get)
    });
    // If there is no store to open, one reason is enough.
    let is_there = warm.is_ok();
    setting.row("open-closed", warm);
    if is_there {
        setting.row("open-cold", median(setting, COLD_OPENINGS, forget, first_get));
    }
    if is_floor(setting) {
        return Ok(());
    }
    if is_there {
        setting.row("open-rate", openings_a_second(setting));
    }
    for (row, how) in [("open-list", LISTED), ("open-killed", KILLED), ("open-unsynced", KILLED_UNSYNCED)] {
        std::fs::remove_dir_all(&setting.directory)?;
        std::fs::create_dir(&setting.directory)?;
        setting.row(
            row,
            prepared(setting, how).and_then(|()| match how {
                LISTED => median(setting, OPENINGS, |_| Ok(()), first_list),
                _ => of_copies(setting, first_get),
            }),
        );
    }
    Ok(())
}

fn is_floor(setting: &Setting) -> bool {
    setting.kind.role == Role::Floor
}

/// Runs this program again, with the same arguments and one more.
fn prepared(setting: &Setting, how: &str) -> Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg(format!("{PREPARE}={how}"))
        .output()?;
    use std::os::unix::process::ExitStatusExt;
    let is_killed = [KILLED, KILLED_UNSYNCED].contains(&how);
    if is_killed && output.status.signal() == Some(libc::SIGKILL) || !is_killed && output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{} could not be prepared: {} {reason}", setting.kind.name, output.status).into())
}

/// Runs in the other process. What a kill may take with it, since it was never synced, is looked for by the opening.
pub fn prepare(setting: &Setting, how: &str) -> Result<()> {
    let engine = setting.open(Mode::Unsynced)?;
    let mut keys = Keys::short();
    load(&*engine, &mut keys, setting.keys, 1, setting.seed)?;
    match how {
        LISTED => list(&*engine, &mut keys, 0, NARROW)?,
        KILLED_UNSYNCED => kill(),
        _ => {}
    }
    engine.close()?;
    if how == KILLED {
        let engine = setting.open(Mode::Durable)?;
        let mut value = Vec::new();
        let started = Instant::now();
        for number in shuffled(setting.keys, setting.seed).into_iter().cycle() {
            if started.elapsed() >= setting.time {
                kill();
            }
            value.clear();
            value_into(number as usize, 1, VALUE, &mut value);
            engine.put(keys.key(number as usize), &value)?;
        }
    }
    Ok(())
}

fn kill() {
    // SAFETY: a signal to this process itself.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// Bytes that the first opening in a process has allocated after some look-ups, and after more.
fn memory(setting: &Setting) -> Result<Vec<(&'static str, f64)>> {
    let (mut keys, mut buffer) = (Keys::short(), Vec::new());
    let numbers = shuffled(setting.keys, setting.seed);
    let before = process::memory()?.anonymous;
    let engine = setting.open(Mode::Unsynced)?;
    let mut figures = Vec::new();
    for (row, range) in [("open-memory-100", 0..100), ("open-memory-1000", 100..1000)] {
        for &number in numbers.get(range).ok_or("too few keys")? {
            read(&*engine, &mut keys, &mut buffer, number as usize, 1..=1)?;
        }
        figures.push((row, process::memory()?.anonymous.saturating_sub(before) as f64));
    }
    engine.close()?;
    Ok(figures)
}

/// How often a second the store is opened, asked for another key, and closed.
fn openings_a_second(setting: &Setting) -> Result<f64> {
    let (mut keys, mut buffer) = (Keys::short(), Vec::new());
    let numbers = shuffled(setting.keys, setting.seed);
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < setting.time {
        let engine = setting.open(Mode::Unsynced)?;
        read(&*engine, &mut keys, &mut buffer, numbers[done % numbers.len()] as usize, 1..=1)?;
        engine.close()?;
        done += 1;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// The median of several openings, each of which closes again.
fn median(
    setting: &Setting,
    openings: usize,
    mut before: impl FnMut(&Setting) -> Result<()>,
    first: First,
) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..openings {
        before(setting)?;
        let (took, engine) = once(setting, first)?;
        engine.close()?;
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[openings / 2])
}

/// The median of openings of copies: what a killed process has left can be opened once, since the first opening puts it in order. The
/// kernel is still busy with the end of that process then, so one opening alone says little.
fn of_copies(setting: &Setting, first: First) -> Result<f64> {
    let copy = Setting { directory: setting.directory.with_extension("copy"), ..*setting };
    let mut times = Vec::new();
    for _ in 0..OPENINGS {
        // It keeps holes, which `std::fs::copy` may fill.
        let copied = Command::new("cp").arg("-a").arg(&setting.directory).arg(&copy.directory).status()?;
        if !copied.success() {
            return Err(format!("cp: {copied}").into());
        }
        let (took, engine) = once(&copy, first)?;
        drop(engine);
        std::fs::remove_dir_all(&copy.directory)?;
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[OPENINGS / 2])
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

fn first_get(engine: &dyn Engine, setting: &Setting) -> Result<()> {
    if is_floor(setting) {
        return Ok(());
    }
    read(engine, &mut Keys::short(), &mut Vec::new(), 0, 1..=1)
}

fn first_list(engine: &dyn Engine, _: &Setting) -> Result<()> {
    list(engine, &mut Keys::short(), 0, NARROW)
}

/// Milliseconds, and what was opened.
fn once(setting: &Setting, first: First) -> Result<(f64, Box<dyn Engine>)> {
    let started = Instant::now();
    let engine = setting.open(Mode::Unsynced)?;
    first(&*engine, setting)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    verify(&*engine, &shuffled(setting.keys, setting.seed), 1)?;
    Ok((took, engine))
}
