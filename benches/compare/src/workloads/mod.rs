//! The measurements, one file a family. A family runs in a process of its own for each engine.

mod durable;
mod grow;
mod large;
mod list;
mod long_keys;
mod open;
mod read;
mod space;
mod write;
mod ycsb;

pub use open::prepare;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::data::{Keys, check, shuffled, value_into};
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};
use crate::process;

pub struct Family {
    pub name: &'static str,
    pub run: fn(&Setting) -> Result<()>,
    /// The engines that have figures here.
    pub wants: fn(&Kind) -> bool,
}

pub const ALL: &[Family] = &[
    Family {
        name: "write",
        run: write::run,
        wants: |kind| is_usual(kind) || ["floor-hash", "floor-log"].contains(&kind.name),
    },
    Family { name: "load", run: write::load, wants: |kind| is_usual(kind) || kind.name == "floor-log" },
    Family { name: "durable", run: durable::run, wants: |kind| is_usual(kind) || kind.name.starts_with("floor-l") },
    Family { name: "read", run: read::run, wants: |kind| is_shared(kind) || kind.name == "floor-hash" },
    Family { name: "list", run: list::run, wants: |kind| is_shared(kind) || kind.name == "floor-tree" },
    Family { name: "ycsb", run: ycsb::run, wants: |kind| is_usual(kind) || kind.name == "floor-hash" },
    Family {
        name: "large",
        run: large::run,
        wants: |kind| {
            is_usual(kind) || ["caskfile-mapped", "caskfile-unverified", "floor-hash", "floor-log"].contains(&kind.name)
        },
    },
    Family { name: "open", run: open::run, wants: |kind| is_shared(kind) || kind.name == "floor-log" },
    Family {
        name: "space",
        run: space::run,
        wants: |kind| is_shared(kind) || ["caskfile-automatic", "floor-log"].contains(&kind.name),
    },
    Family { name: "grow", run: grow::run, wants: |kind| is_usual(kind) || kind.name == "floor-log" },
    Family { name: "long-keys", run: long_keys::run, wants: |kind| is_shared(kind) || kind.name == "floor-tree" },
];

/// All but the floors and the special ways to open caskfile.
fn is_usual(kind: &Kind) -> bool {
    kind.role == Role::Peer || ["caskfile", "caskfile-exclusive"].contains(&kind.name)
}

/// The same without caskfile's exclusive mode, where that makes no difference.
fn is_shared(kind: &Kind) -> bool {
    is_usual(kind) && kind.name != "caskfile-exclusive"
}

/// Length of a value, unless a row says otherwise.
const VALUE: usize = 100;
const BATCH: usize = 1000;

pub struct Setting {
    pub kind: &'static Kind,
    /// Empty at the beginning.
    pub directory: PathBuf,
    pub keys: usize,
    /// How long a row takes that is measured by time.
    pub time: Duration,
    pub seed: u64,
}

impl Setting {
    fn open(&self, mode: Mode) -> Result<Box<dyn Engine>> {
        (self.kind.open)(&self.directory, mode)
    }

    /// One line on the output for the parent to read: a figure, or why there is none.
    fn row(&self, row: &str, figure: Result<f64>) {
        let line = match figure {
            Ok(figure) => serde_json::json!({ "row": row, "value": figure }),
            Err(error) => serde_json::json!({ "row": row, "missing": format!("{error:#}") }),
        };
        println!("{line}");
    }

    /// The number of draws for a row of single calls: enough to measure, few enough for slow engines.
    fn draws(&self) -> usize {
        self.keys.clamp(100_000, 500_000)
    }

    /// Returns the bytes that were written to the disk for each of `calls` calls since an earlier reading.
    fn written_since(&self, before: Result<u64>, calls: usize) -> Result<f64> {
        Ok((process::written_bytes(&self.directory)? - before?) as f64 / calls as f64)
    }

    /// Bytes that the directory's files occupy on the disk, holes left out.
    fn bytes_on_disk(&self) -> Result<u64> {
        Ok(self.files()?.iter().map(|(_, metadata)| metadata.blocks() * 512).sum())
    }

    /// The files in the directory, and in those below it.
    fn files(&self) -> Result<Vec<(PathBuf, Metadata)>> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                match entry.metadata()? {
                    metadata if metadata.is_dir() => directories.push(entry.path()),
                    metadata => files.push((entry.path(), metadata)),
                }
            }
        }
        Ok(files)
    }

    /// The same of the store alone: caskfile's without the file that a compaction is writing beside it.
    fn bytes_of_store(&self) -> Result<u64> {
        match self.kind.role {
            Role::Ours => Ok(std::fs::metadata(self.directory.join("store"))?.blocks() * 512),
            Role::Peer | Role::Floor => self.bytes_on_disk(),
        }
    }
}

/// Writes all keys with one version, in batches and in no order, and returns how long the engine took for it.
fn load(engine: &dyn Engine, keys: &mut Keys, count: usize, version: u64, seed: u64) -> Result<Duration> {
    load_watched(engine, keys, count, version, seed, &mut |_| Ok(()))
}

/// The same, and passes to a closure before each batch how many there were.
fn load_watched(
    engine: &dyn Engine,
    keys: &mut Keys,
    count: usize,
    version: u64,
    seed: u64,
    watch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Duration> {
    let mut pairs = Pairs::default();
    let mut took = Duration::ZERO;
    for (batch, numbers) in shuffled(count, seed).chunks(BATCH).enumerate() {
        watch(batch)?;
        pairs.clear();
        for &number in numbers {
            let number = number as usize;
            pairs.push(keys.key(number), |out| value_into(number, version, VALUE, out));
        }
        let started = Instant::now();
        engine.load(&pairs)?;
        took += started.elapsed();
    }
    Ok(took)
}

/// Makes a loaded store as it is found by a program that opens it. What is in memory only stays as it is.
fn loaded(setting: &Setting, keys: &mut Keys) -> Result<Box<dyn Engine>> {
    let engine = setting.open(Mode::Unsynced)?;
    load(&*engine, keys, setting.keys, 1, setting.seed)?;
    if setting.kind.role == Role::Floor {
        return Ok(engine);
    }
    engine.close()?;
    setting.open(Mode::Unsynced)
}

/// Reads a key that is there, and checks what it gets.
fn read(
    engine: &dyn Engine,
    keys: &mut Keys,
    buffer: &mut Vec<u8>,
    number: usize,
    versions: std::ops::RangeInclusive<u64>,
) -> Result<()> {
    let is_there = engine.get(keys.key(number), buffer, &mut |value| check(number, versions.clone(), VALUE, value))?;
    is_there.then_some(()).ok_or_else(|| format!("key {number} is lost").into())
}

/// Not timed: are the keys there, and at that version? An engine without a `get` passes.
fn verify(engine: &dyn Engine, numbers: &[u32], version: u64) -> Result<()> {
    let mut keys = Keys::short();
    let mut buffer = Vec::new();
    for &number in numbers.iter().take(10_000) {
        match read(engine, &mut keys, &mut buffer, number as usize, version..=version) {
            Err(error) if error.to_string() == "no get" => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}

/// Calls for each number, and returns calls a second.
fn rate(numbers: &[u32], mut call: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for &number in numbers {
        call(number as usize)?;
    }
    Ok(numbers.len() as f64 / started.elapsed().as_secs_f64())
}

/// What threads did together.
struct Together {
    calls: usize,
    took: Duration,
}

impl Together {
    fn rate(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }
}

/// Runs that many threads at once, each of which returns how many calls it made. Their time runs from
/// the start of the first one to the end of the last one, because the waiting thread may be scheduled much later than both.
fn together(threads: usize, run: impl Fn(usize) -> Result<usize> + Sync) -> Result<Together> {
    let barrier = Barrier::new(threads);
    let timed = &|thread| {
        barrier.wait();
        let began = Instant::now();
        run(thread).map(|calls| (calls, began, Instant::now()))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
        let done =
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let done = done.collect::<Result<Vec<_>>>()?;
        let began = done.iter().map(|&(_, began, _)| began).min().ok_or("no threads")?;
        let ended = done.iter().map(|&(_, _, ended)| ended).max().ok_or("no threads")?;
        Ok(Together { calls: done.iter().map(|&(calls, ..)| calls).sum(), took: ended - began })
    })
}
