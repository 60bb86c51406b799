//! The main job on real input: the Unicode Character Database in one file that two processes share.
//!
//! ```text
//! cargo run --release --example unicode [UnicodeData.txt]
//! ```
//!
//! Every line of the table becomes a pair, with the code point as its key. While this process loads, lists, compares
//! and swaps, and compacts, a second one (this program, started again) writes to the same file all the time. At the
//! end the file is opened again and everything in it is compared with the table. The store lies in a temporary
//! directory, which is removed again.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use caskfile::{Batch, Cask};

const USUAL_INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/UnicodeData.txt");

/// Lines that are stored together: one write and one sync.
const LINES_PER_BATCH: usize = 1000;

/// What makes this program the second process.
const SECOND_PROCESS: &str = "--second-process";

/// How long the second process rests between its writes.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);

/// The second process gives up after this long, should the first have died.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match &arguments[..] {
        [flag, store] if flag.as_os_str() == SECOND_PROCESS => second_process(store),
        [] => main_job(Path::new(USUAL_INPUT)),
        [input] => main_job(input),
        _ => Err("usage: unicode [UnicodeData.txt]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the report has closed the pipe.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unicode: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn main_job(input: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut report = Report::begin();
    let table = read_table(input)?;
    report.step(format!("read {} lines of {}", table.len(), input.display()))?;

    let directory = Temporary::new()?;
    let path = directory.0.join("unicode.cask");
    let cask = Cask::open(&path)?;
    let journal = cask.bucket("journal")?;
    report.step("created the store; from here on every write is durable when its call returns")?;

    let mut second = SecondProcess::start(&path)?;
    second.wait_until_it_writes(&journal)?;
    report.step("started a second process, and waited for its first write to the same file")?;

    let batches = load(&cask, &table)?;
    report.step(format!("put {} pairs in {batches} batches", table.len()))?;

    load(&cask, &table)?;
    report.step("put all of them again, as an import that runs every night would")?;

    // The key that equals the prefix belongs to the list.
    let listed = cask.list("1F60")?;
    let expected = table.range("1F60".to_owned()..).take_while(|(key, _)| key.starts_with("1F60"));
    ensure(
        listed
            .iter()
            .map(|pair| (&pair.key[..], &pair.value[..]))
            .eq(expected.map(|(k, v)| (k.as_bytes(), v.as_bytes()))),
        "the list of the prefix 1F60 is not what the table has",
    )?;
    let (first, last) = (name_of(listed.first()), name_of(listed.last()));
    report.step(format!("listed the prefix 1F60: {} pairs, {first} to {last}", listed.len()))?;

    let key = table.keys().next().ok_or("the table is empty")?;
    let original = cask.get(key)?;
    let changed = cask.atomic_put(key, "changed", Some(&original))?;
    report
        .step(format!("compare-and-swap of {key} won: index {} became {}", original.last_index, changed.last_index))?;

    match cask.atomic_put(key, "changed by someone who was late", Some(&original)) {
        Err(caskfile::Error::KeyModified) => {}
        other => return Err(format!("a stale compare-and-swap gave {other:?}").into()),
    }
    ensure(cask.get(key)? == changed, "a refused compare-and-swap changed the value")?;
    cask.atomic_put(key, &original.value, Some(&changed))?;
    report.step("the same again with the old pair was refused (KeyModified), and the value put back")?;

    let compaction = cask.compact()?;
    report.step(format!(
        "compacted {} into {} while the second process went on",
        kibibytes(compaction.before),
        kibibytes(compaction.after)
    ))?;

    // One more of each side, in the file that compaction has made.
    second.wait_until_it_writes(&journal)?;
    count_one(&journal)?;
    journal.put(STOP, "")?;
    let theirs = second.finish()?;
    let counted = read_count(&journal)?;
    // Neither lost an increment to the other.
    let ours = batches as u64 * 2 + 1;
    ensure(counted == ours + theirs, &format!("{ours} and {theirs} increments made {counted}"))?;
    report.step(format!("stopped it: its {theirs} increments of a counter and our {ours} make {counted}"))?;

    cask.close()?;
    report.step(format!("closed; the file has {}", kibibytes(std::fs::metadata(&path)?.len())))?;

    let cask = Cask::open(&path)?;
    let stats = cask.stats()?;
    report.step(format!("opened again: {} keys, {} of index in memory", stats.keys, kibibytes(stats.index_bytes)))?;

    for (key, value) in &table {
        ensure(cask.get(key)?.value == value.as_bytes(), &format!("{key} reads back as something else"))?;
    }
    report.step(format!("got all {} keys: each value is the table's", table.len()))?;

    let listed = cask.list("")?;
    let same = listed.iter().map(|pair| (&pair.key[..], &pair.value[..]));
    ensure(same.eq(table.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes()))), "the list differs from the table")?;
    report.step("listed everything: the table again, in key order, with nothing missing and nothing more")?;

    let journal = cask.bucket("journal")?;
    ensure(journal.list("entry/")?.len() as u64 == theirs, "an entry of the second process is missing")?;
    let verified = cask.verify()?;
    cask.close()?;
    report.step(format!("found every write of the second process, and verified all {} records", verified.records))?;

    drop(directory);
    writeln!(io::stdout(), "Done in {:.3} s; the temporary store is removed.", started.elapsed().as_secs_f64())?;
    Ok(())
}

/// Puts the whole table into the store, and counts each batch. Returns how many batches that took.
fn load(cask: &Cask, table: &BTreeMap<String, String>) -> caskfile::Result<usize> {
    let lines: Vec<_> = table.iter().collect();
    let batches = lines.chunks(LINES_PER_BATCH);
    let count = batches.len();
    for lines in batches {
        let mut batch = Batch::new();
        for (key, value) in lines {
            batch.put(key, value);
        }
        cask.write(&batch)?;
        count_one(&cask.bucket("journal")?)?;
    }
    Ok(count)
}

// The second process.

const COUNT: &str = "count";
const STOP: &str = "stop";

/// Writes to the journal until the first process says stop.
fn second_process(store: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let journal = Cask::open(store)?.bucket("journal")?;
    let mut written = 0u64;
    while !journal.exists(STOP)? && started.elapsed() < PATIENCE {
        // The entry first: the first process takes the counter for a sign that an entry is there.
        journal.put(format!("entry/{written:08}"), "written by the second process")?;
        count_one(&journal)?;
        written += 1;
        std::thread::sleep(BETWEEN_WRITES);
    }
    journal.close()?;
    writeln!(io::stdout(), "{written}")?;
    Ok(())
}

/// Adds one to a counter that both processes count with.
fn count_one(journal: &Cask) -> caskfile::Result<()> {
    let plus_one = |pair: Option<&caskfile::KvPair>| {
        let count = pair.and_then(|pair| std::str::from_utf8(&pair.value).ok()?.parse::<u64>().ok());
        (count.unwrap_or(0) + 1).to_string().into_bytes()
    };
    journal.update(COUNT, plus_one).map(drop)
}

fn read_count(journal: &Cask) -> Result<u64, Box<dyn Error>> {
    Ok(String::from_utf8(journal.get(COUNT)?.value)?.parse()?)
}

struct SecondProcess(Child);

impl SecondProcess {
    fn start(store: &Path) -> io::Result<SecondProcess> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SECOND_PROCESS).arg(store).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map(SecondProcess)
    }

    /// Waits for one write that the other process has begun after this call.
    fn wait_until_it_writes(&mut self, journal: &Cask) -> Result<(), Box<dyn Error>> {
        let before = journal.list("entry/")?.len();
        let started = Instant::now();
        while journal.list("entry/")?.len() == before {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("the second process ended too early: {status}").into());
            }
            ensure(started.elapsed() < PATIENCE, "the second process does not write")?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for its end, and returns how often it has counted.
    fn finish(&mut self) -> Result<u64, Box<dyn Error>> {
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        let status = self.0.wait()?;
        ensure(status.success(), &format!("the second process failed: {status}"))?;
        Ok(said.trim().parse()?)
    }
}

impl Drop for SecondProcess {
    /// Ends the process when a step fails.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// The input.

/// Why the input is not the table.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("{}: {source}; give the path of a UnicodeData.txt, or none for the one that comes with the crate", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: not a regular file; give the path of a UnicodeData.txt", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}:{line}: {what}; a line of UnicodeData.txt looks like 0041;LATIN CAPITAL LETTER A;Lu;…", path.display())]
    NotTheTable { path: PathBuf, line: usize, what: &'static str },
}

/// No line of the table is nearly as long: a longer one is no line, and is not read to its end.
const LONGEST_LINE: u64 = 4096;

/// Code points and what the table says of them, by the order of their keys.
fn read_table(path: &Path) -> Result<BTreeMap<String, String>, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    // Asked before opening: opening a FIFO waits for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(InputError::NotAFile { path: path.to_owned() });
    }
    let mut input = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut table = BTreeMap::new();
    let mut line = 0;
    loop {
        line += 1;
        let wrong = |what| InputError::NotTheTable { path: path.to_owned(), line, what };
        let mut bytes = Vec::new();
        input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        match (bytes.is_empty(), table.is_empty()) {
            (true, true) => return Err(wrong("the file is empty")),
            (true, false) => return Ok(table),
            _ => {}
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("not text"))?.trim_end_matches(['\r', '\n']);
        let (key, value) = text.split_once(';').ok_or_else(|| wrong("no semicolon"))?;
        let digits = (4..=6).contains(&key.len()) && key.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !digits {
            return Err(wrong("does not start with a code point"));
        }
        if table.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong("a code point for the second time"));
        }
    }
}

// The rest.

/// Says what was done, and how long it took.
struct Report {
    since: Instant,
}

impl Report {
    fn begin() -> Report {
        Report { since: Instant::now() }
    }

    fn step(&mut self, what: impl AsRef<str>) -> io::Result<()> {
        writeln!(io::stdout(), "{:9.3} ms  {}", self.since.elapsed().as_secs_f64() * 1e3, what.as_ref())?;
        self.since = Instant::now();
        Ok(())
    }
}

/// A directory of one's own, removed with all that is in it.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> io::Result<Temporary> {
        let nanoseconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let path = std::env::temp_dir().join(format!("caskfile-unicode-{}-{nanoseconds}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn name_of(pair: Option<&caskfile::KvPair>) -> String {
    let value = pair.map_or_else(Default::default, |pair| String::from_utf8_lossy(&pair.value));
    value.split(';').next().unwrap_or_default().to_owned()
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
