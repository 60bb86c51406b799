//! `import`.
//!
//! One thread reads and parses lines into batches, another writes the batches. An input of any length takes bounded
//! memory, beside the index that every store has, and a batch is in the store as a whole or not at all.

mod boltdb;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use caskfile::boltdb::ImportOptions;
use caskfile::{Cask, Durability, Error};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result, io_failure};
use crate::format::{Filling, Format, FormatOptions, until};
use crate::input::LinesInto;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::moment::milliseconds;
use crate::numbers::plural;
use crate::open::Missing;
use crate::progress::{Progress, Unit};
use crate::session::Session;

/// Read pairs from a file or stdin into the store, as many as there are
///
/// Each line of the input becomes a pair; of two lines with one key the later one counts. A line that names a bucket goes
/// there, the others go to that of --bucket. A pair that has expired removes its key. The input is written in batches, and other writers take turns with them. If the
/// import is stopped, by Ctrl-C or by an error, it says how many lines are stored, and --skip goes on after them.
///
/// With --format boltdb, FILE is a BoltDB file. It is checked as a whole before anything is written. Each of its buckets becomes a
/// bucket of the store; a bucket `c` in a bucket `b` becomes `b/c`.
#[derive(clap::Args)]
pub struct Import {
    #[command(flatten)]
    into: LinesInto,
    /// Skip this many lines of the input, which an earlier run has stored
    #[arg(long, value_name = "LINES", default_value_t = 0, hide_default_value = true)]
    skip: u64,
    #[command(flatten)]
    format: FormatOptions,
    /// With tsv: which field is the key, counted from 1 (after the bucket); the value is the line without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Format")]
    key_field: Option<u16>,
    /// With boltdb: the file is one of libkv, which begins each value with a number of 8 bytes; leave those out
    #[arg(long, help_heading = "Format")]
    libkv: bool,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// Lines from the beginning of the input, skipped ones included.
    lines: u64,
    /// Pairs of this run.
    records: u64,
    /// Pairs of this run that had expired.
    expired: u64,
    bytes: u64,
}

/// A message from the reader to the writer.
struct Batch {
    batch: caskfile::Batch,
    /// How far the import is when this batch is written.
    reached: Reached,
}

/// How often an idle writer looks for a signal to stop.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Batches between the two threads, so that neither waits for a short delay of the other.
const IN_BETWEEN: usize = 2;

/// The bytes of lines in a batch. Larger batches are no faster.
const BATCH_BYTES: usize = 1 << 20;

impl Import {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let key_field = self.key_field.map(usize::from);
        if self.format.is_boltdb(key_field)? {
            if self.skip > 0 || self.into.bucket.chosen(session)?.is_some() {
                return Err(Failure::usage(
                    "--skip and --bucket are for lines, and a BoltDB file names its buckets itself",
                )
                .hint("leave them out"));
            }
            return boltdb::import(&self.into, &ImportOptions::new().libkv(self.libkv), session);
        }
        if self.libkv {
            return Err(Failure::usage("--libkv belongs to --format boltdb").hint("add --format boltdb"));
        }
        let (format, bucket) = (self.format.format(key_field)?, self.into.bucket.name(session)?);
        let (input, total) = self.into.open_input(session, "lines to import")?;
        // A new store is created for the first pair, so that an error in the first line leaves no file.
        let open = || self.into.to.open_durable(session, Missing::Create, Durability::Os);
        let mut cask = if self.into.to.is_there() { Some(open()?) } else { None };
        let interrupt = Interrupt::watch()?;
        let began = Instant::now();

        let (sender, receiver) = sync_channel(IN_BETWEEN);
        let reader = Reader { format, bucket, skip: self.skip, reached: Reached::default() };
        // Not joined: when the import is stopped, the reader may still wait for input.
        std::thread::spawn(move || reader.run(input, &sender));
        let written_lines = Arc::new(AtomicU64::new(self.skip));
        let of_line = Arc::clone(&written_lines);
        end_if_stuck(&interrupt, session.json, move |failure| {
            stopped(failure, Reached { lines: of_line.load(Ordering::Relaxed), ..Reached::default() }, false)
        });
        let mut progress = Progress::new(session, "importing", Unit::Bytes, total, false);
        let mut reached = Reached { lines: self.skip, ..Reached::default() };
        let mut lines_read = 0;
        let written = write(&mut cask, open, &receiver, &interrupt, &mut progress, |now| {
            lines_read = now.lines;
            // An earlier run has stored the skipped lines.
            reached = Reached { lines: now.lines.max(reached.lines), ..now };
            written_lines.store(reached.lines, Ordering::Relaxed);
        });
        drop(progress);
        let is_made = cask.is_some();
        let sync_and_close = |cask: Cask| cask.sync().map_err(Failure::from).and_then(|()| self.into.to.close(&cask));
        let closed = cask.map_or(Ok(()), sync_and_close);
        written.map_err(|failure| match is_made {
            true => stopped(failure, reached, closed.is_ok()),
            false => not_begun(failure),
        })?;
        closed.map_err(|failure| failure.and("; run the same import again"))?;
        if lines_read < self.skip {
            // Probably another file than that of the first run.
            let (there, skip) = (plural(lines_read, "line"), self.skip);
            return Err(Failure::input(format!("the input has only {there}, and --skip passes over {skip}"))
                .hint("nothing was imported: give the input of the import that was stopped"));
        }
        if !is_made {
            // An input without a pair creates an empty store.
            sync_and_close(open()?)?;
        }

        let seconds = began.elapsed().as_secs_f64();
        session.note(format!(
            "imported {} in {seconds:.2} s ({:.1} MB/s)",
            plural(reached.records, "pair"),
            reached.bytes as f64 / 1e6 / seconds
        ));
        if reached.expired > 0 {
            let pairs = plural(reached.expired, "more pair");
            session.note(format!("{pairs} had expired: the store does not have those keys now"));
        }
        if session.json {
            session.write_json(&json!({
                "lines": reached.lines, "records": reached.records, "expired": reached.expired, "bytes": reached.bytes,
            }))?;
        }
        Ok(Exit::Done)
    }
}

/// Writes batches until the input ends, or until a signal or an error. Calls `reached` after each batch. `open` creates the
/// store if it is not there yet.
fn write(
    cask: &mut Option<Cask>,
    open: impl Fn() -> Result<Cask>,
    batches: &Receiver<Result<Batch>>,
    interrupt: &Interrupt,
    progress: &mut Progress,
    mut reached: impl FnMut(Reached),
) -> Result<()> {
    let mut bytes = 0;
    loop {
        if let Some(exit) = interrupt.received() {
            return Err(Failure::new(exit, format!("stopped by {}", exit.cause())));
        }
        match batches.recv_timeout(LOOK_UP) {
            Ok(Ok(batch)) => {
                if !batch.batch.is_empty() {
                    let cask = match cask {
                        Some(cask) => cask,
                        None => cask.insert(open()?),
                    };
                    cask.write(&batch.batch).map_err(refused)?;
                }
                reached(batch.reached);
                bytes = batch.reached.bytes;
                progress.set(bytes);
            }
            Ok(Err(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => progress.set(bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// The library says that nothing was written, which holds for one batch, not for the import.
fn refused(error: Error) -> Failure {
    match &error {
        Error::LockTimeout { path, waited, holder } => {
            let by = holder.map_or_else(String::new, |process| format!(" (process {process})"));
            let message = format!("{}: still locked by another writer{by} after {waited:?}", path.display());
            Failure::from(error).say(message)
        }
        _ => error.into(),
    }
}

/// Ends the process after a signal if a write still waits for another writer or a slow disk. For the store this is a kill,
/// which does no harm.
///
/// `stopped` adds to the failure how far the import came.
fn end_if_stuck(interrupt: &Interrupt, json: bool, stopped: impl FnOnce(Failure) -> Failure + Send + 'static) {
    let interrupt = interrupt.clone();
    std::thread::spawn(move || {
        let exit = loop {
            std::thread::sleep(LOOK_UP);
            if let Some(exit) = interrupt.received() {
                break exit;
            }
        };
        std::thread::sleep(PATIENCE);
        let message = format!("stopped by {} while the store was busy", exit.cause());
        stopped(Failure::new(exit, message)).print(json);
        std::process::exit(exit.code().into());
    });
}

/// How long a stopped import may take to finish and sync its last write.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the pairs are that an import has written before it failed.
fn place(synced: bool) -> &'static str {
    if synced { "on stable storage" } else { "in the store, though perhaps not on stable storage" }
}

/// Adds to the failure of an import how far it came.
fn stopped(failure: Failure, reached: Reached, synced: bool) -> Failure {
    let (lines, place) = (reached.lines, place(synced));
    let go_on = match failure.exit() {
        Exit::Input => "correct that line, and run the same import with",
        Exit::Locked => "to go on after them, run the same import with a longer --timeout and",
        _ => "to go on after them, run the same import with",
    };
    failure
        .and(&format!("; {place}: {} of the input", plural(lines, "line")))
        .fact("lines", lines)
        .hint(format!("{go_on} --skip {lines}"))
}

/// Adds that the import was stopped before its first pair, and has created no store.
fn not_begun(failure: Failure) -> Failure {
    let again = match failure.exit() {
        Exit::Input => "correct that line, and run the import again, with --skip 0",
        _ => "run the import again, with --skip 0",
    };
    failure.and("; nothing was written, and no store was made").fact("lines", 0).hint(again)
}

/// The thread that reads and parses.
struct Reader {
    format: Format,
    bucket: Vec<u8>,
    skip: u64,
    reached: Reached,
}

impl Reader {
    fn run(mut self, input: File, to: &SyncSender<Result<Batch>>) {
        let mut lines = Lines::new(input);
        loop {
            let sent = match lines.next_piece() {
                Ok(Some(piece)) => self.piece(piece, to),
                Ok(None) => return,
                Err(error) => Err(io_failure("reading the input", error)),
            };
            if let Err(failure) = sent {
                // The writer may be stopped already.
                let _ = to.send(Err(failure));
                return;
            }
        }
    }

    /// Sends the lines of a piece as batches, up to the first error.
    fn piece(&mut self, piece: &[u8], to: &SyncSender<Result<Batch>>) -> Result<()> {
        let mut filling = Filling::new(&self.bucket);
        let mut size = 0;
        let text = if self.reached.bytes == 0 { self.format.without_mark(piece) } else { piece };
        self.reached.bytes += (piece.len() - text.len()) as u64;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if size > 0 && size + line.len() > BATCH_BYTES {
                self.send(&mut filling, to)?;
                size = 0;
            }
            if self.reached.lines >= self.skip {
                if let Err(problem) = self.line(line, &mut filling) {
                    let number = self.reached.lines + 1;
                    self.send(&mut filling, to)?;
                    return Err(Failure::input(format!("line {number}: {problem}")));
                }
            }
            size += line.len();
            self.reached.lines += 1;
            self.reached.bytes += line.len() as u64;
        }
        self.send(&mut filling, to)
    }

    fn line(&mut self, line: &[u8], filling: &mut Filling) -> std::result::Result<(), String> {
        let Some(record) = self.format.parse(line.strip_suffix(b"\n").unwrap_or(line))? else { return Ok(()) };
        filling.go_to(record.bucket.as_deref(), &record.key)?;
        match record.expires_at {
            // As if it had been put in time, and were over now: the value of a line before must not come back.
            Some(expires_at) if expires_at <= milliseconds(SystemTime::now()) => {
                filling.batch.delete(&record.key);
                self.reached.expired += 1;
            }
            expires_at => {
                filling.put(&record.key, &record.value, expires_at.map(until).as_ref())?;
                self.reached.records += 1;
            }
        }
        Ok(())
    }

    fn send(&self, filling: &mut Filling, to: &SyncSender<Result<Batch>>) -> Result<()> {
        let filled = std::mem::replace(filling, Filling::new(&self.bucket));
        to.send(Ok(Batch { batch: filled.batch, reached: self.reached })).map_err(|_| Failure::ClosedPipe)
    }
}
