//! The roles of `tests/power_cuts`, which cuts the power of a mounted file system under writing processes.
//!
//! ```text
//! power_cuts write STORE NOTES NUMBER CYCLE    writes until an error ends it, and notes what was acknowledged
//! power_cuts cut MOUNT NOTES FLAG              shuts the file system down: 2 drops its log too, 1 keeps it
//! power_cuts check STORE NOTES CYCLE           compares the store with the notes of the cycle; the first cycle is 0
//! ```
//!
//! NOTES is a directory on a file system that stays up. Each operation follows from the writer's number, the cycle and a
//! sequence number, so a note needs only that number: `i` before the operation, `a` after it, with the index that it got.
//! What is acknowledged after the power cut has begun does not count: on a machine without power no process hears it.
//! On Linux an `fdatasync` that is under way at that moment may return success, although the file system drops its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use caskfile::inspect::Inspection;
use caskfile::{Batch, Cask, CompactionPolicy, Config, Durability, Error, OptionalExt};

use dice::Dice;

#[path = "../tests/common/dice.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod dice;

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

/// Writers of one store. The next number makes new stores, and the one after it starts write-back here and there.
const WRITERS: u64 = 4;
/// This writer uses `Durability::Os`, and syncs now and then.
const LAZY: u64 = 3;
const FOUNDER: u64 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["write", store, notes, number, cycle] => write(store, notes, number, cycle),
        ["cut", mount, notes, flag] => cut(mount, Path::new(notes), flag),
        ["check", store, notes, cycle] => check(Path::new(store), Path::new(notes), cycle),
        _ => Err("power_cuts is started by tests/power_cuts".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("power_cuts {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn config() -> Config {
    let policy = CompactionPolicy::Automatic { dead_percent: 100, min_dead_bytes: 1 << 20 };
    Config::new().compaction(policy).connection_timeout(Duration::from_secs(20))
}

fn cut(mount: &str, notes: &Path, flag: &str) -> Result<()> {
    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, __u32)`.
    const GOING_DOWN: u32 = 0x8004_587D;
    let flag: u32 = flag.parse()?;
    let directory = File::open(mount)?;
    let begun = now();
    // SAFETY: the descriptor is open, and the request reads one `u32`, which outlives the call.
    if unsafe { libc::ioctl(directory.as_raw_fd(), GOING_DOWN as _, &raw const flag) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(fs::write(notes.join("notes.cut"), begun.to_string())?)
}

/// Nanoseconds of the clock that all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a writer does at one sequence number.
enum Operation {
    Put(String),
    Delete(String),
    /// Sets keys (`true`) and deletes some.
    Batch(Vec<(String, bool)>),
    DeletePrefix(String),
}

impl Operation {
    fn of(writer: u64, cycle: u64, sequence: u64) -> Operation {
        let mut dice = Dice::new(writer << 56 ^ cycle << 28 ^ sequence);
        let mut key = || format!("w{writer}/{}/{}", dice.below(4), dice.below(10));
        let first = key();
        match Dice::new(writer << 48 ^ cycle << 20 ^ sequence).below(16) {
            0..7 => Operation::Put(first),
            7..9 => Operation::Delete(first),
            9 => Operation::DeletePrefix(first[..5].to_owned()),
            more => {
                // A key once: the last change of a batch would decide.
                let keys: BTreeSet<String> = (0..more - 8).map(|_| key()).collect();
                Operation::Batch(keys.into_iter().enumerate().map(|(at, key)| (key, at % 3 < 2)).collect())
            }
        }
    }
}

/// Says where it comes from, and is as long as that says. Some are long, so that roots are written.
fn value(key: &str, cycle: u64, sequence: u64) -> Vec<u8> {
    let mut value = format!("{cycle} {sequence} {key} ").into_bytes();
    let mut dice = Dice::new(cycle << 32 ^ sequence);
    let longest = dice.choose(&[100, 100, 300, 300, 300, 3000, 3000, 20_000]);
    let longest = if dice.one_in(80) { 200_000 } else { longest };
    let len = value.len() + dice.below(longest) as usize;
    value.resize(len, b'a' + (sequence % 26) as u8);
    value
}

fn origin(pair_value: &[u8]) -> Option<(u64, u64)> {
    let mut words = pair_value.split(|byte| *byte == b' ').map(|word| std::str::from_utf8(word).ok()?.parse().ok());
    Some((words.next()??, words.next()??))
}

/// A writer's keys, each with the cycle and the sequence number of its value.
type Keys = BTreeMap<String, (u64, u64)>;

fn replay(keys: &mut Keys, writer: u64, cycle: u64, sequence: u64) {
    match Operation::of(writer, cycle, sequence) {
        Operation::Put(key) => drop(keys.insert(key, (cycle, sequence))),
        Operation::Delete(key) => drop(keys.remove(&key)),
        Operation::DeletePrefix(prefix) => keys.retain(|key, _| !key.starts_with(&prefix)),
        Operation::Batch(changes) => {
            for (key, is_set) in changes {
                match is_set {
                    true => drop(keys.insert(key, (cycle, sequence))),
                    false => drop(keys.remove(&key)),
                }
            }
        }
    }
}

fn write(store: &str, notes: &str, number: &str, cycle: &str) -> Result<()> {
    let (number, cycle): (u64, u64) = (number.parse()?, cycle.parse()?);
    // SAFETY: takes no pointer and has no precondition.
    unsafe { libc::alarm(30) };
    let notes = File::create(Path::new(notes).join(format!("notes.{number}")))?;
    let ended = match number {
        0..WRITERS => operate(store, &notes, number, cycle),
        FOUNDER => found(store, &notes, cycle),
        _ => stir(store, cycle),
    };
    // Only the power cut ends it.
    let error = ended.err().ok_or("it must not come to an end")?;
    Ok(note(&notes, &format!("e {error}"))?)
}

/// One write call for a line, so that a killed process leaves whole ones.
fn note(mut notes: &File, line: &str) -> std::io::Result<()> {
    notes.write_all(format!("{line}\n").as_bytes())
}

fn operate(store: &str, notes: &File, writer: u64, cycle: u64) -> Result<()> {
    let lies = std::env::var_os("POWER_CUTS_LIE").is_some();
    let durability = if writer == LAZY || lies { Durability::Os } else { Durability::Sync };
    let open = || Cask::open_with(store, &config().durability(durability));
    let mut cask = open()?;
    let mut dice = Dice::new(writer ^ cycle << 8);
    for sequence in 1.. {
        note(notes, &format!("i {sequence}"))?;
        let index = match Operation::of(writer, cycle, sequence) {
            Operation::Put(key) if sequence % 2 == 0 => {
                cask.put(&key, value(&key, cycle, sequence))?;
                cask.get(&key)?.last_index
            }
            Operation::Put(key) => {
                let previous = cask.get(&key).optional()?;
                cask.atomic_put(&key, value(&key, cycle, sequence), previous.as_ref())?.last_index
            }
            Operation::Delete(key) => match cask.delete(&key) {
                Ok(()) | Err(Error::KeyNotFound) => 0,
                Err(error) => return Err(error.into()),
            },
            Operation::DeletePrefix(prefix) => {
                cask.delete_prefix(&prefix)?;
                0
            }
            Operation::Batch(changes) => {
                let mut batch = Batch::new();
                for (key, is_set) in changes {
                    match is_set {
                        true => batch.put(&key, value(&key, cycle, sequence)),
                        false => batch.delete(&key),
                    };
                }
                cask.write(&batch)?.last_index().unwrap_or(0)
            }
        };
        note(notes, &format!("a {} {sequence} {index}", now()))?;
        match dice.below(120) {
            0..3 => {
                cask.close()?;
                note(notes, &format!("s {} {sequence} close", now()))?;
                cask = open()?;
            }
            3 => cask.reopen()?,
            4 | 5 if writer == 2 => match cask.compact() {
                Ok(_) => note(notes, &format!("s {} {sequence} compact", now()))?,
                Err(Error::CompactionOvertaken { .. } | Error::CompactionRefused { .. }) => {}
                Err(error) => return Err(error.into()),
            },
            6..12 if writer == LAZY => {
                cask.sync()?;
                note(notes, &format!("s {} {sequence} sync", now()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn new_store(store: &Path, cycle: u64, sequence: u64) -> PathBuf {
    store.with_file_name(format!("new-{cycle}-{sequence}"))
}

/// Makes stores, with one pair each.
fn found(store: &str, notes: &File, cycle: u64) -> Result<()> {
    for sequence in 1.. {
        note(notes, &format!("i {sequence}"))?;
        let cask = Cask::open_with(new_store(Path::new(store), cycle, sequence), &config())?;
        cask.put("w4/", value("w4/", cycle, sequence))?;
        note(notes, &format!("a {} {sequence} 0", now()))?;
        if sequence % 2 == 0 {
            cask.close()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Brings single pages of the store to the disk, in any order, as the system does when it needs memory.
fn stir(store: &str, cycle: u64) -> Result<()> {
    let mut dice = Dice::new(cycle);
    loop {
        let file = File::options().read(true).write(true).open(store)?;
        for _ in 0..20 {
            let pages = file.metadata()?.len().div_ceil(4096);
            // Mostly near the end, where the new ones are; sometimes the head with its roots.
            let page = if dice.one_in(8) { 0 } else { pages.saturating_sub(1 + dice.below(12)) };
            // SAFETY: the descriptor is open, and no memory is passed.
            if unsafe { libc::sync_file_range(file.as_raw_fd(), page as i64 * 4096, 4096, libc::SYNC_FILE_RANGE_WRITE) }
                != 0
            {
                return Err(std::io::Error::last_os_error().into());
            }
            std::thread::sleep(Duration::from_micros(dice.below(1500)));
        }
    }
}

/// What a writer has noted in a cycle.
#[derive(Default)]
struct Notes {
    begun: u64,
    acknowledged: u64,
    /// Acknowledged after the power cut had begun.
    late: u64,
    /// Up to here everything is durable.
    durable: u64,
    indexes: Vec<(u64, u64)>,
    closes: u64,
    compactions: u64,
    error: String,
}

impl Notes {
    fn read(directory: &Path, writer: u64) -> Result<Notes> {
        let cut: u64 = fs::read_to_string(directory.join("notes.cut"))?.parse()?;
        let mut notes = Notes::default();
        let text = fs::read_to_string(directory.join(format!("notes.{writer}"))).unwrap_or_default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').ok_or("a note is cut off")?;
            let mut words = rest.split(' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).ok_or("a note without a number");
            if matches!(kind, "a" | "s") && number()? >= cut {
                notes.late += u64::from(kind == "a");
                continue;
            }
            match kind {
                "i" => notes.begun = number()?,
                "a" => {
                    notes.acknowledged = number()?;
                    notes.indexes.push((notes.acknowledged, number()?));
                    if writer != LAZY {
                        notes.durable = notes.acknowledged;
                    }
                }
                "s" => {
                    notes.durable = number()?;
                    notes.closes += u64::from(rest.ends_with("close"));
                    notes.compactions += u64::from(rest.ends_with("compact"));
                }
                _ => notes.error = rest.to_owned(),
            }
        }
        Ok(notes)
    }
}

/// What the last check has left: a file of lines.
#[derive(Default)]
struct Known {
    /// The highest index that was ever acknowledged.
    highest: u64,
    /// The file's `file_id` and what its root states.
    root: Option<(String, u64)>,
    writers: [Keys; WRITERS as usize],
}

impl Known {
    fn read(path: &Path) -> Result<Known> {
        let mut known = Known::default();
        for line in fs::read_to_string(path)?.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["highest", index] => known.highest = index.parse()?,
                ["root", id, stated] => known.root = Some((id.to_owned(), stated.parse()?)),
                ["key", writer, key, cycle, sequence] => {
                    known.writers[writer.parse::<usize>()?].insert(key.to_owned(), (cycle.parse()?, sequence.parse()?));
                }
                _ => return Err(format!("{}: {line}", path.display()).into()),
            }
        }
        Ok(known)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("highest {}\n", self.highest);
        if let Some((id, stated)) = &self.root {
            writeln!(text, "root {id} {stated}")?;
        }
        for (writer, keys) in self.writers.iter().enumerate() {
            for (key, (cycle, sequence)) in keys {
                writeln!(text, "key {writer} {key} {cycle} {sequence}")?;
            }
        }
        Ok(fs::write(path, text)?)
    }
}

/// The `file_id` at the head of the file, and what the root states, which the file must have.
fn root(store: &Path) -> Result<(String, u64)> {
    let head = fs::read(store)?;
    let id = head.get(16..32).ok_or("the file has no header")?;
    let id = id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let inspection = Inspection::open(store)?;
    let stated = inspection.synced_to().unwrap_or(0);
    if stated > head.len() as u64 {
        return Err(format!("the root states {stated} bytes of {}", head.len()).into());
    }
    Ok((id, stated))
}

fn check(store: &Path, notes: &Path, cycle: &str) -> Result<()> {
    let cycle: u64 = cycle.parse()?;
    let state = notes.join("known");
    let mut known = if cycle == 0 { Known::default() } else { Known::read(&state)? };
    let mut tally = BTreeMap::from([("cycles", u64::from(cycle > 0))]);
    let mut count = |what, number| *tally.entry(what).or_insert(0) += number;

    if cycle > 0 {
        // Before anything opens the store.
        let (id, stated) = root(store)?;
        if let Some((_, before)) = known.root.take().filter(|(known, before)| *known == id && *before > stated) {
            return Err(format!("the root stated {before}, and states {stated}").into());
        }
        // As the mount has found it: the root that a close writes is on the disk only after the next sync.
        known.root = Some((id.clone(), stated));
        let read = Cask::open_with(store, &config().read_only(true))?.list("w")?;
        let cask = Cask::open_with(store, &config())?;
        let pairs = cask.list("w")?;
        if read != pairs {
            return Err("a reader and the recovering writer see different pairs".into());
        }
        let found_to = pairs.iter().map(|pair| pair.last_index).max().unwrap_or(0);
        for writer in 0..WRITERS {
            let noted = Notes::read(notes, writer)?;
            let mut keys = Keys::new();
            for pair in pairs.iter().filter(|pair| pair.key.starts_with(format!("w{writer}/").as_bytes())) {
                let key = String::from_utf8(pair.key.clone())?;
                let from = origin(&pair.value).ok_or("a value that was not written")?;
                if pair.value != value(&key, from.0, from.1) {
                    return Err(format!("the value of {key} is not what {from:?} has written").into());
                }
                keys.insert(key, from);
            }
            // The store is a prefix of its log, so what has a lower index than a pair that is there must be there too.
            let by_index = noted.indexes.iter().filter(|(_, index)| (1..=found_to).contains(index));
            let least = by_index.map(|(sequence, _)| *sequence).max().unwrap_or(0).max(noted.durable);
            let base = &mut known.writers[writer as usize];
            let mut matched = None;
            let mut replayed = base.clone();
            for sequence in 0..=noted.begun {
                if sequence > 0 {
                    replay(&mut replayed, writer, cycle, sequence);
                }
                if sequence >= least && replayed == keys {
                    // Of equal states the last one counts: it speaks for the fewest losses.
                    matched = Some(sequence);
                }
            }
            let Some(kept) = matched else {
                let (begun, durable, error) = (noted.begun, noted.durable, &noted.error);
                return Err(format!(
                    "writer {writer}: {begun} begun, {durable} durable, {least} due by indexes up to {found_to}: \
                     no such state; it ended with: {error}"
                )
                .into());
            };
            *base = keys;
            let highest = noted.indexes.iter().map(|(_, index)| *index).max().unwrap_or(0);
            known.highest = known.highest.max(highest);
            let acknowledged = if writer == LAZY { "acknowledged by Os" } else { "acknowledged by Sync" };
            count(acknowledged, noted.acknowledged);
            count("acknowledged too late", noted.late);
            count("closes", noted.closes);
            count("compactions", noted.compactions);
            count("not acknowledged and lost", noted.begun.saturating_sub(kept.max(noted.acknowledged)));
            count("not acknowledged and there", kept.saturating_sub(noted.acknowledged));
            count("acknowledged by Os and lost", noted.acknowledged.saturating_sub(kept));
            count("writers cut in an operation", u64::from(noted.begun > noted.acknowledged));
        }
        let report = cask.verify()?;
        drop(report);
        check_new_stores(store, notes, cycle, &mut count)?;
        // An index that was seen is not given again.
        let pair = cask.update("checked", |_| cycle.to_string().into_bytes())?;
        if pair.last_index <= known.highest {
            return Err(format!("index {} after {}", pair.last_index, known.highest).into());
        }
        known.highest = pair.last_index;
        cask.close()?;
        count("roots raised", u64::from(known_root_rises(store, &id, stated)?));
        for entry in fs::read_dir(store.parent().ok_or("a store is in a directory")?)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(".torn-") {
                count("copies of torn tails", 1);
                fs::remove_file(entry.path())?;
            }
        }
    } else {
        let cask = Cask::open_with(store, &config())?;
        known.highest = cask.update("checked", |_| b"0".to_vec())?.last_index;
        cask.close()?;
    }
    known.write(&state)?;
    let mut totals = File::options().append(true).create(true).open(notes.join("totals"))?;
    let lines = tally.iter().fold(String::new(), |text, (what, number)| format!("{text}{number} {what}\n"));
    Ok(totals.write_all(lines.as_bytes())?)
}

/// Whether the file is another one, or its root states more than before the recovery.
fn known_root_rises(store: &Path, id: &str, stated: u64) -> Result<bool> {
    let (now, states) = root(store)?;
    if now == id && states < stated {
        return Err(format!("the root stated {stated} before the recovery, and {states} after it").into());
    }
    Ok(now != id || states > stated)
}

fn check_new_stores(store: &Path, notes: &Path, cycle: u64, count: &mut impl FnMut(&'static str, u64)) -> Result<()> {
    let noted = Notes::read(notes, FOUNDER)?;
    for sequence in 1..=noted.begun {
        let path = new_store(store, cycle, sequence);
        let is_due = sequence <= noted.acknowledged;
        if !path.exists() && !is_due {
            continue;
        }
        let cask = Cask::open_with(&path, &config()).map_err(|error| format!("{}: {error}", path.display()))?;
        match cask.get("w4/").optional()? {
            Some(pair) if pair.value == value("w4/", cycle, sequence) => count("new stores there", 1),
            None if !is_due => count("new stores empty", 1),
            other => return Err(format!("{}: {other:?}", path.display()).into()),
        }
        cask.close()?;
        fs::remove_file(path)?;
    }
    count("new stores acknowledged", noted.acknowledged);
    Ok(())
}
