//! `dump`.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caskfile::inspect::{CatchUp, Class, Inspection, Piece, Record};
use caskfile::{Cask, Config, Error, ErrorKind, Watch, WatchFrom, WatchOptions};

use crate::escape::escaped;
use crate::exit::Exit;
use crate::failure::Result;
use crate::interrupt::Interrupt;
use crate::json_line::Line;
use crate::look::{Look, finish, flags, is_broken, kind, parse_offset, style};
use crate::moment::utc;
use crate::numbers::grouped;
use crate::session::{Output, Session, stdout_failure};
use crate::waiting::Waiting;

/// Show the log record by record, with what is damaged in its place
///
/// Each record has a row: its offset, sequence number, kind and flags, where its batch starts, and its class: live, dead
/// (replaced or deleted), tombstone, statement (about the log or a session, not a key), snapshot (of the index), torn, corrupt, or unread
/// (of a later version).
/// A pair with a deadline has it after the value: from then on the store hides the pair. One that belongs to a session has that
/// session's number, and the token of the lock that it is.
/// A line with !! says what does not hold. After the last row, damage ends with exit code 5, a later version with 6.
#[derive(clap::Args)]
pub struct Dump {
    #[command(flatten)]
    look: Look,
    /// Only records that end after this offset, in bytes (0x for hexadecimal)
    #[arg(long, value_name = "N", value_parser = parse_offset, default_value_t = 0, hide_default_value = true)]
    from_offset: u64,
    /// Only from the first record whose sequence number is this or higher
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    from_seq: u64,
    /// Go on with new records as they are appended, also after a compaction; Ctrl-C ends it
    #[arg(short, long)]
    follow: bool,
    /// How values are shown: as text (with escapes; in JSON as base64 if they are not text), hex, base64, or redacted
    #[arg(long, value_name = "FORM", value_enum, default_value = "text")]
    values: Form,
    /// At most this many bytes of each value [default: 64; with --json: all]
    #[arg(long, value_name = "N")]
    value_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Text,
    Hex,
    Base64,
    Redacted,
}

/// How many bytes of a value a row shows by default.
const SHORT_VALUE: u64 = 64;

impl Dump {
    pub fn run(self, session: &Session) -> Result<Exit> {
        // Before the first line, since its reader may send the signal at once.
        let interrupt = if self.follow { Some(Interrupt::watch()?) } else { None };
        // Before the file is shown, so that both are of the same file. If it cannot be opened, what is shown tells why.
        let followed = self.follow.then(|| {
            let cask = Cask::open_with(&self.look.store, &Config::new().read_only(true))?;
            watch_all(&cask).map(|watch| (cask, watch))
        });
        let inspection = self.look.open(session)?;
        let mut printer = Printer {
            output: session.output()?,
            line: Vec::new(),
            json: session.json,
            colored: session.is_colored(),
            form: self.values,
            value_bytes: self.value_bytes.unwrap_or(if session.json { u64::MAX } else { SHORT_VALUE }),
        };
        printer.head()?;
        let mut shown = Shown { from_offset: self.from_offset, begun: self.from_seq == 0, last_seq: 0 };
        self.show(&inspection, 0, &mut shown, &mut printer)?;
        let exit = finish(&self.look.store, &inspection)?;
        match (followed, interrupt) {
            (Some(followed), Some(interrupt)) => {
                self.go_on(followed?, inspection, shown, &mut printer, session, &interrupt)
            }
            _ => Ok(exit),
        }
    }

    /// Shows the pieces from `start` on.
    fn show(&self, inspection: &Inspection, start: u64, shown: &mut Shown, printer: &mut Printer) -> Result<()> {
        for piece in inspection.pieces_from(start) {
            let piece = piece?;
            let broken = is_broken(piece.class) || piece.damage.is_some();
            // A torn piece may be a write under way. It comes again when it is whole.
            if piece.end <= shown.from_offset || (self.follow && piece.class == Class::Torn) {
                continue;
            }
            if let Some(record) = piece.record.as_ref().filter(|_| !broken) {
                if record.seq <= shown.last_seq {
                    // Shown before the compaction.
                    continue;
                }
                // The number of `ROOTS` is no place in the log: its first record may have the same.
                if piece.class != Class::Roots {
                    shown.last_seq = record.seq;
                }
                shown.begun |= record.seq >= self.from_seq;
            }
            if shown.begun && (broken || piece.record.is_some()) {
                printer.piece(inspection, &piece)?;
            }
        }
        printer.output.flush().map_err(stdout_failure)
    }

    /// Looks at the whole file, and shows what was not shown yet, with damage in its place.
    fn show_again(&self, shown: &mut Shown, printer: &mut Printer, session: &Session) -> Result<Inspection> {
        let inspection = self.look.open(session)?;
        self.show(&inspection, 0, shown, printer)?;
        finish(&self.look.store, &inspection)?;
        Ok(inspection)
    }

    /// Shows what is appended. A watch says when to look; it has puts and deletes alone, so the records come from the file.
    fn go_on(
        &self,
        (cask, mut watch): (Cask, Watch),
        mut inspection: Inspection,
        mut shown: Shown,
        printer: &mut Printer,
        session: &Session,
        interrupt: &Interrupt,
    ) -> Result<Exit> {
        let mut waiting = Waiting::new(interrupt, &mut watch);
        loop {
            let end = inspection.log_end();
            // Before the file is read, so that what comes later ends the wait.
            let mut watched = pass_all(&mut watch);
            if matches!(watched, Err(Error::Compacted { .. } | Error::Undone { .. })) {
                // What is missing was written between two looks, and cannot be shown.
                watched = watch_all(&cask).and_then(|again| {
                    watch = again;
                    waiting = Waiting::new(interrupt, &mut watch);
                    pass_all(&mut watch)
                });
            }
            if watched.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
                inspection = self.show_again(&mut shown, printer, session)?;
            }
            let from = match inspection.catch_up()? {
                CatchUp::Grown => end,
                CatchUp::NewLog => {
                    inspection = self.look.open(session)?;
                    session.note("the store was compacted; going on in the new file");
                    shown.from_offset = 0;
                    0
                }
                _ => {
                    watched?;
                    match waiting.wait(Some(printer.output.get_ref()))? {
                        Some(exit) => return Ok(exit),
                        None => continue,
                    }
                }
            };
            self.show(&inspection, from, &mut shown, printer)?;
            // After damage, the log ends before the place that its root states.
            if finish(&self.look.store, &inspection).is_err() {
                inspection = self.show_again(&mut shown, printer, session)?;
            }
            if let Some(exit) = interrupt.received() {
                return Ok(exit);
            }
        }
    }
}

fn watch_all(cask: &Cask) -> caskfile::Result<Watch> {
    cask.changes_with("", WatchFrom::Now, &WatchOptions::new().all_buckets(true))
}

/// Passes everything that the watch has, so that its descriptor waits for the next change.
fn pass_all(watch: &mut Watch) -> caskfile::Result<()> {
    while watch.try_next()?.is_some() {}
    Ok(())
}

/// What was shown so far, and where to begin.
struct Shown {
    /// Pieces that end before this offset are left out.
    from_offset: u64,
    /// Whether the first record with the wanted `seq` has come.
    begun: bool,
    last_seq: u64,
}

struct Printer {
    output: Output,
    line: Vec<u8>,
    json: bool,
    colored: bool,
    form: Form,
    value_bytes: u64,
}

impl Printer {
    fn head(&mut self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let head = row(["offset", "seq", "kind", "flags", "batch", "class", "bucket", "key", "value"]);
        writeln!(self.output, "{head}").map_err(stdout_failure)
    }

    fn piece(&mut self, inspection: &Inspection, piece: &Piece) -> Result<()> {
        let value = match &piece.record {
            Some(record) => self.value(inspection, piece, record)?,
            None => Vec::new(),
        };
        self.line.clear();
        let stated = Stated::by(inspection, piece)?;
        if self.json {
            self.object(piece, &value, &stated)
        } else {
            self.rows(piece, &value, &stated)
        }
        self.output.write_all(&self.line).map_err(stdout_failure)
    }

    /// The part of the value that is shown and that the piece has.
    fn value(&self, inspection: &Inspection, piece: &Piece, record: &Record) -> Result<Vec<u8>> {
        let place = record.value();
        let wanted = (place.end.min(piece.end).saturating_sub(place.start)).min(self.value_bytes);
        // The bytes of a snapshot are for `hex`.
        if self.form == Form::Redacted || piece.class == Class::Snapshot || wanted == 0 {
            return Ok(Vec::new());
        }
        let mut value = vec![0; wanted as usize];
        let got = inspection.read(place.start, &mut value)?;
        value.truncate(got);
        Ok(value)
    }

    fn object(&mut self, piece: &Piece, value: &[u8], stated: &Stated) {
        let mut line = Line::begin(&mut self.line);
        line = line.number("offset", piece.start).number("end", piece.end).text("class", piece.class.name());
        if let Some(record) = &piece.record {
            line = line.number("seq", record.seq).text("kind", &kind(record)).texts("flags", &flags(record));
            if let Some(batch) = record.batch {
                line = line.number("batch", batch);
            }
            line = match record.bucket_and_key() {
                Some((b"", key)) => line.bytes("key", key),
                Some((bucket, key)) => line.bytes("bucket", bucket).bytes("key", key),
                None if record.full_key.is_empty() => line,
                None => line.bytes("full_key", &record.full_key),
            };
            line = line.number("value_len", record.value_len.into());
            for (name, number) in
                [("deadline", record.deadline), ("session", record.session), ("acquired", record.acquired)]
            {
                if let Some(number) = number {
                    line = line.number(name, number);
                }
            }
            line = match self.form {
                _ if piece.class == Class::Snapshot => line,
                Form::Text => line.bytes("value", value),
                Form::Hex => line.text("value_hex", &hex(value)),
                Form::Base64 => line.text("value_base64", &STANDARD.encode(value)),
                Form::Redacted => line,
            };
            line = line.boolean("header_holds", Some(record.header_holds)).boolean("body_holds", record.body_holds);
        }
        for &(name, number) in &stated.numbers {
            line = line.number(name, number);
        }
        if let Some(damage) = piece.damage {
            line = line.text("damage", damage.name()).text("detail", &damage.to_string());
        }
        // Writing to memory does not fail.
        let _ = line.end();
    }

    fn rows(&mut self, piece: &Piece, value: &[u8], stated: &Stated) {
        let style = if self.colored { style(piece.class) } else { anstyle::Style::new() };
        let text = match &piece.record {
            Some(record) => {
                let (bucket, key) = record.bucket_and_key().unwrap_or((b"", &record.full_key));
                row([
                    &piece.start.to_string(),
                    &record.seq.to_string(),
                    &kind(record),
                    &flags(record).join(" "),
                    &record.batch.map_or(String::new(), |batch| batch.to_string()),
                    piece.class.name(),
                    &escaped_field(bucket),
                    &escaped_field(key),
                    &stated.text.clone().unwrap_or_else(|| self.shown_value(record, value)),
                ]) + &lifetime(record)
            }
            None => {
                let bytes = format!("({} bytes)", grouped(piece.end - piece.start));
                row([&piece.start.to_string(), "", "", "", "", piece.class.name(), "", "", &bytes])
            }
        };
        // Writing to memory does not fail.
        let _ = writeln!(self.line, "{style}{text}{style:#}");
        let trouble = piece.damage.map(|damage| damage.to_string());
        let trouble =
            trouble.or((piece.class == Class::Unread).then(|| "not read: see the error at the end".to_owned()));
        if let Some(trouble) = trouble {
            let _ = writeln!(self.line, "{style}{:>10}  {trouble}{style:#}", "!!");
        }
    }

    fn shown_value(&self, record: &Record, value: &[u8]) -> String {
        let len = record.value().end - record.value().start;
        let shown = match self.form {
            Form::Text => escaped_field(value),
            Form::Hex => hex(value),
            Form::Base64 => STANDARD.encode(value),
            Form::Redacted if len == 0 => String::new(),
            Form::Redacted => return format!("({} bytes)", grouped(len)),
        };
        if value.len() as u64 == len {
            return shown;
        }
        format!("{shown}… ({} bytes)", grouped(len))
    }
}

/// What ends the pair of a record.
fn lifetime(record: &Record) -> String {
    let mut text = record.deadline.map_or_else(String::new, |deadline| format!("  until {}", utc(deadline)));
    if let (Some(session), false) = (record.session, record.full_key.is_empty()) {
        text += &format!("  of session {session}");
    }
    if let Some(acquired) = record.acquired {
        text += &format!(", lock with the token {acquired}");
    }
    text
}

/// What a record about the log or a session says, in the place of its value.
#[derive(Default)]
struct Stated {
    /// `None` for records whose value is shown as it is.
    text: Option<String>,
    /// The same for programs.
    numbers: Vec<(&'static str, u64)>,
}

impl Stated {
    fn by(inspection: &Inspection, piece: &Piece) -> Result<Stated> {
        match (piece.class, &piece.record) {
            (Class::Roots, _) => Ok(Stated::by_root(inspection)),
            (Class::Snapshot, Some(record)) if record.kind_name() == Some("SNAPSHOT") => {
                Stated::by_snapshot(inspection, piece)
            }
            (_, Some(record)) if record.kind_name() == Some("session") => Stated::by_session(inspection, piece),
            _ => Ok(Stated::default()),
        }
    }

    /// The numbers of a session, without the one that stands in every row.
    fn by_session(inspection: &Inspection, piece: &Piece) -> Result<Stated> {
        let numbers = numbers_of(inspection, piece, &["owner", "nonce", "ttl", "deadline", "base_seq"])?;
        let session = piece.record.as_ref().and_then(|record| record.session);
        let (Some(numbers), Some(session)) = (numbers, session) else { return Ok(Stated::default()) };
        let text = match (numbers[2].1, numbers[3].1) {
            (_, 0) => format!("session {session} ends"),
            (ttl, deadline) => format!("session {session}, ttl {ttl} ms, until {deadline} ms of its clock"),
        };
        Ok(Stated { text: Some(text), numbers })
    }

    fn by_root(inspection: &Inspection) -> Stated {
        let (synced_to, snapshot) = (inspection.synced_to(), inspection.snapshot());
        let text = match (synced_to, snapshot) {
            (Some(synced_to), Some(snapshot)) => format!("synced to {synced_to}, snapshot at {snapshot}"),
            (Some(synced_to), None) => format!("synced to {synced_to}"),
            (None, _) => "no root".to_owned(),
        };
        let numbers = [("synced_to", synced_to), ("snapshot", snapshot)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
        Stated { text: Some(text), numbers: numbers.collect() }
    }

    /// The numbers at the head of a `SNAPSHOT`, as they stand there.
    fn by_snapshot(inspection: &Inspection, piece: &Piece) -> Result<Stated> {
        let names = ["covered_to", "covered_seq", "records", "keys", "live_bytes", "part_bits", "leaves"];
        let Some(numbers) = numbers_of(inspection, piece, &names)? else { return Ok(Stated::default()) };
        let order = if numbers[6].1 > 0 { " and their order" } else { "" };
        let text = format!("{} keys{order}, of the log up to {}", grouped(numbers[3].1), numbers[0].1);
        Ok(Stated { text: Some(text), numbers })
    }
}

/// The numbers in fields of up to 8 bytes. `None` if a value of another length has no such fields.
fn numbers_of(
    inspection: &Inspection,
    piece: &Piece,
    names: &[&'static str],
) -> Result<Option<Vec<(&'static str, u64)>>> {
    let (fields, mut numbers) = (piece.fields(), Vec::new());
    for &name in names {
        let Some(field) = fields.iter().find(|field| field.name == name) else { return Ok(None) };
        let mut bytes = [0; 8];
        inspection.read(field.start, &mut bytes[..(field.end - field.start) as usize])?;
        numbers.push((name, u64::from_le_bytes(bytes)));
    }
    Ok(Some(numbers))
}

/// The fields in columns. Those before the bucket are wide enough for most files.
fn row(fields: [&str; 9]) -> String {
    let [offset, seq, kind, flags, batch, class, bucket, key, value] = fields;
    let text = format!(
        "{offset:>10}  {seq:>10}  {kind:<9}  {flags:<11}  {batch:>10}  {class:<9}  {bucket:<8}  {key:<16}  {value}"
    );
    text.trim_end().to_owned()
}

/// Escapes a blank at the end, which would be lost in a table.
fn escaped_field(bytes: &[u8]) -> String {
    let mut text = escaped(bytes);
    if text.ends_with(' ') {
        text.truncate(text.len() - 1);
        text.push_str(r"\x20");
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
