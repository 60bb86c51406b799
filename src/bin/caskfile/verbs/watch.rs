//! `watch`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use caskfile::{ChangeRef, Unit, WatchFrom, WatchOptions};

use crate::delimited::Delimited;
use crate::exit::Exit;
use crate::failure::{Failure, Result, io_failure, shell_word};
use crate::interrupt::Interrupt;
use crate::json_line::Line;
use crate::open::{Bucket, WaitAt};
use crate::session::{Output, Session, stdout_failure};
use crate::waiting::Waiting;

/// Show the puts and deletes of all processes as they come, until Ctrl-C
///
/// Each line is a change: the position after the write, put or delete, the key, and the value. The changes of one batch have
/// the same position. With --json, each change is an object, and {"op":"end","position":N} ends each write: whatever has
/// come before that line belongs together, and --after N goes on after it, also in another run. With --snapshot, the pairs
/// of now come first, as if one batch had put them, without a gap before what follows.
///
/// If the changes after N are no longer all in the store, because a compaction left some out, it ends with exit code 10.
/// Begin again with --snapshot then.
#[derive(clap::Args)]
pub struct Watch {
    #[command(flatten)]
    at: WaitAt,
    #[command(flatten)]
    bucket: Bucket,
    /// Only keys that start with this
    prefix: Option<OsString>,
    /// The keys of all buckets; each line names the bucket
    #[arg(long, conflicts_with = "bucket")]
    all_buckets: bool,
    /// Begin after this position, or after the pair with this last_index [default: with the next write]
    #[arg(short, long, value_name = "N", conflicts_with = "snapshot")]
    after: Option<u64>,
    /// Begin with all pairs as they are now
    #[arg(short, long)]
    snapshot: bool,
    /// Keys without their values
    #[arg(short, long)]
    keys: bool,
    /// Only what is on stable storage: sync the store before a change is shown, if that is needed
    #[arg(long)]
    durable: bool,
    /// End after this many writes; the pairs of --snapshot count as one
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Run this with `sh -c` for each write, instead of showing it: the lines of --json on its stdin, the position in
    /// CASKFILE_POSITION. The next write waits for it. If it fails, this ends with its exit code
    #[arg(short = 'x', long, value_name = "COMMAND")]
    exec: Option<OsString>,
}

impl Watch {
    pub fn run(self, session: &Session) -> Result<Exit> {
        // Before the first line, since its reader may send the signal at once.
        let interrupt = Interrupt::watch()?;
        let prefix = self.prefix.as_deref().map(|prefix| session.bytes(prefix)).transpose()?.unwrap_or_default();
        let from = match self.after {
            Some(position) => WatchFrom::After(position),
            None if self.snapshot => WatchFrom::Snapshot,
            None => WatchFrom::Now,
        };
        let options = WatchOptions::new().all_buckets(self.all_buckets).durable(self.durable);
        let cask = self.at.open(session, self.durable)?.bucket(self.bucket.name(session)?)?;
        let mut watch = cask.changes_with(prefix, from, &options)?;
        let waiting = Waiting::new(&interrupt, &mut watch);
        let mut output = session.output()?;
        if !self.snapshot {
            self.begin(watch.position(), session, &mut output)?;
        }
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let before = watch.position();
            let Some(mut unit) = watch.try_next()? else {
                // A command decides by itself what it writes.
                let reader = self.exec.is_none().then_some(output.get_ref());
                match waiting.wait(reader)? {
                    Some(exit) => return Ok(exit),
                    None => continue,
                }
            };
            match &self.exec {
                Some(command) => self.execute(command, &mut unit, before, &interrupt)?,
                None if session.json => {
                    self.write_lines(&mut unit, &mut output, Some(&interrupt))?;
                    output.flush().map_err(stdout_failure)?;
                }
                None => {
                    self.write_rows(&mut unit, &mut output, &interrupt)?;
                    output.flush().map_err(stdout_failure)?;
                }
            }
            if let Some(exit) = interrupt.received() {
                return Ok(exit);
            }
            left -= 1;
        }
        Ok(Exit::Done)
    }

    /// Says that the watch has begun: every write from now on is shown.
    fn begin(&self, position: u64, session: &Session, output: &mut Output) -> Result<()> {
        if self.exec.is_some() || !session.json {
            session.note(format!("watching {} after {position}", self.at.store.display()));
            return Ok(());
        }
        end(Line::begin(output), position, 0, false).and_then(|()| output.flush()).map_err(stdout_failure)
    }

    fn write_rows(&self, unit: &mut Unit<'_>, out: &mut Output, interrupt: &Interrupt) -> Result<()> {
        let position = unit.position().to_string();
        while let Some(next) = unit.next_with_bucket() {
            let (bucket, change) = next?;
            let mut fields = vec![position.as_bytes(), op(&change).as_bytes()];
            if self.all_buckets {
                fields.push(bucket);
            }
            fields.push(change.key());
            fields.extend(change.value().filter(|_| !self.keys));
            Delimited::PLAIN.write(&fields, out).map_err(stdout_failure)?;
            if interrupt.received().is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Writes the changes as NDJSON, one a line, and a line that ends them. That one is left out if a signal comes before it.
    fn write_lines(&self, unit: &mut Unit<'_>, out: &mut impl Write, interrupt: Option<&Interrupt>) -> Result<()> {
        let (position, is_listing) = (unit.position(), unit.is_listing());
        let mut changes = 0;
        while let Some(next) = unit.next_with_bucket() {
            let (bucket, change) = next?;
            let mut line = Line::begin(out).text("op", op(&change));
            // The same as in the lines of `export`.
            if self.all_buckets && !bucket.is_empty() {
                line = line.bytes("bucket", bucket);
            }
            line = line.bytes("key", change.key());
            if let Some(value) = change.value().filter(|_| !self.keys) {
                line = line.bytes("value", value);
            }
            line = line.number("last_index", change.last_index());
            if let ChangeRef::Put(pair) = change {
                line = line.expiry(pair.expires_at);
            }
            if is_listing {
                line = line.boolean("listing", Some(true));
            }
            line.end().map_err(stdout_failure)?;
            changes += 1;
            if interrupt.is_some_and(|interrupt| interrupt.received().is_some()) {
                return Ok(());
            }
        }
        end(Line::begin(out), position, changes, is_listing).map_err(stdout_failure)
    }

    /// Runs the command with the unit on its stdin, and waits for it.
    fn execute(&self, command: &OsStr, unit: &mut Unit<'_>, before: u64, interrupt: &Interrupt) -> Result<()> {
        let (position, is_listing) = (unit.position(), unit.is_listing());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).env("CASKFILE_POSITION", position.to_string()).stdin(Stdio::piped());
        let mut child = shell.spawn().map_err(|e| io_failure("sh", e))?;
        let mut input = child.stdin.take().map(BufWriter::new);
        let fed = match &mut input {
            // A signal does not cut the unit off: the command could take a part for the whole.
            Some(input) => self.write_lines(unit, input, None).and_then(|()| input.flush().map_err(stdout_failure)),
            None => Ok(()),
        };
        // The pipe ends here. What could not be written stays unwritten.
        drop(input.map(BufWriter::into_parts));
        let status = child.wait().map_err(|e| io_failure("sh", e))?;
        match fed {
            // The command need not read its input.
            Ok(()) | Err(Failure::ClosedPipe) => {}
            Err(failure) => return Err(failure),
        }
        // Ctrl-C reaches the command as well.
        if status.success() || interrupt.received().is_some() {
            return Ok(());
        }
        Err(failed(command, status, position).hint(match is_listing {
            true => "run it again with --snapshot".to_owned(),
            false => format!("--after {before} begins with this write again, and --after {position} after it"),
        }))
    }
}

/// What a change does, as in the lines of `batch`.
fn op(change: &ChangeRef<'_>) -> &'static str {
    match change {
        ChangeRef::Put(_) => "put",
        ChangeRef::Delete { .. } => "delete",
    }
}

/// The line after the changes of a unit.
fn end<W: Write>(line: Line<'_, W>, position: u64, changes: u64, is_listing: bool) -> io::Result<()> {
    let line = line.text("op", "end").number("position", position).number("changes", changes);
    if is_listing { line.boolean("listing", Some(true)).end() } else { line.end() }
}

/// The failure of a command, with the code that a shell would show.
fn failed(command: &OsStr, status: ExitStatus, position: u64) -> Failure {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).and_then(|code| u8::try_from(code).ok());
    let message = format!("{} failed ({status}) with the write at position {position}", shell_word(command));
    Failure::of_command(code.unwrap_or(1), message)
}
