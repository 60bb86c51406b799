//! `hex`.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use caskfile::Damage;
use caskfile::inspect::{Class, Field, Inspection, Piece, Record, Slot};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::look::{Look, finish, flags, is_broken, kind, parse_offset, refuse_json, style};
use crate::moment::utc;
use crate::numbers::grouped;
use crate::session::{Output, Session, stdout_failure};

/// Show the bytes of the file, each with its name
///
/// A row has up to 16 bytes of one field, with the field's name and its meaning. Before the rows of each record a line says
/// what it is, and whether its checksums hold; of ROOTS, whether each of its slots holds, and which one is the root. Repeated
/// rows are left out. The file_id is not shown: with it, values can be made that look like records. After the last row,
/// damage or a missing end ends with exit code 5, a later version with 6.
#[derive(clap::Args)]
pub struct Hex {
    #[command(flatten)]
    look: Look,
    /// From this offset on, in bytes (0x for hexadecimal)
    #[arg(long, value_name = "N", value_parser = parse_offset, default_value_t = 0, hide_default_value = true)]
    from_offset: u64,
    /// Up to this offset
    #[arg(long, value_name = "N", value_parser = parse_offset)]
    to_offset: Option<u64>,
    /// Show repeated rows, too
    #[arg(long)]
    all_rows: bool,
}

/// How many bytes a row has.
const ROW: u64 = 16;

impl Hex {
    pub fn run(self, session: &Session) -> Result<Exit> {
        refuse_json(session, "hex writes text only")?;
        let inspection = self.look.open(session)?;
        let to = self.to_offset.unwrap_or(u64::MAX).min(inspection.file_len());
        if self.from_offset > to {
            let (from, len) = (self.from_offset, inspection.file_len());
            return Err(Failure::usage(format!("from {from} to {to} is nothing; the file has {len} bytes")));
        }
        let mut rows = Rows {
            inspection: &inspection,
            ahead: Ahead::default(),
            shown: String::new(),
            output: session.output()?,
            colored: session.is_colored(),
            all: self.all_rows,
            width: format!("{to:x}").len().max(8),
            from: self.from_offset,
            to,
        };
        for piece in inspection.pieces() {
            let piece = piece?;
            if piece.start > to || (piece.start == to && piece.end > to) {
                break;
            }
            if piece.end > self.from_offset || (piece.start == piece.end && piece.end >= self.from_offset) {
                rows.piece(&piece)?;
            }
        }
        rows.output.flush().map_err(stdout_failure)?;
        finish(&self.look.store, &inspection)
    }
}

struct Rows<'i> {
    inspection: &'i Inspection,
    ahead: Ahead,
    /// The bytes of a row, as text.
    shown: String,
    output: Output,
    colored: bool,
    all: bool,
    /// Of the offsets.
    width: usize,
    from: u64,
    to: u64,
}

impl Rows<'_> {
    fn piece(&mut self, piece: &Piece) -> Result<()> {
        let title = title(piece);
        let head = if is_broken(piece.class) || piece.damage.is_some() { AnsiColor::Red } else { AnsiColor::Green };
        let head = self.style(Style::new().bold().fg_color(Some(head.into())));
        if !title.is_empty() {
            let gap = if piece.start > self.from { "\n" } else { "" };
            self.write(format_args!("{gap}{head}; {title}{head:#}\n"))?;
        }
        if let Some(damage) = piece.damage {
            self.write(format_args!("{head}; {damage}{head:#}\n"))?;
        }
        for field in piece.fields() {
            if field.end > self.from && field.start < self.to {
                self.field(piece, &field)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, piece: &Piece, field: &Field) -> Result<()> {
        let style = self.style(field_style(piece, field));
        // A range that begins elsewhere has the same rows.
        let mut at = field.start + self.from.saturating_sub(field.start) / ROW * ROW;
        let end = field.end.min(self.to);
        let (mut row, mut before, mut left_out) = (Vec::new(), Vec::new(), 0);
        while at < end {
            row.clear();
            row.extend_from_slice(self.ahead.get(self.inspection, at, ROW.min(field.end - at))?);
            if row.is_empty() {
                break;
            }
            let next = at + row.len() as u64;
            if !self.all && next < end && row == before {
                left_out += row.len() as u64;
            } else {
                self.left_out(std::mem::take(&mut left_out))?;
                let says = if at == field.start { says(piece, field, &row) } else { String::new() };
                self.row(at, &row, field, &says, style)?;
                before.clone_from(&row);
            }
            at = next;
        }
        Ok(())
    }

    fn left_out(&mut self, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.write(format_args!("; {} bytes more of the same\n", grouped(bytes)))
    }

    fn row(&mut self, at: u64, row: &[u8], field: &Field, says: &str, style: Style) -> Result<()> {
        self.shown.clear();
        for byte in row {
            if field.name == "file_id" {
                self.shown.push_str(".. ");
            } else {
                let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
                self.shown.extend([digit(byte >> 4), digit(byte & 15), ' ']);
            }
        }
        let (width, name, hex_width, shown) = (self.width, field.name, 3 * ROW as usize, &self.shown);
        self.output
            .write_fmt(format_args!("{at:0width$x}  {style}{shown:<hex_width$}{style:#} ; {name}"))
            .map_err(stdout_failure)?;
        let is_text = matches!(name, "bucket" | "key" | "full_key" | "value" | "torn" | "corrupt" | "unread");
        match (is_text, says) {
            (true, "") => self.write(format_args!(": |{}|\n", printable(row))),
            (true, says) => self.write(format_args!(": |{}| {says}\n", printable(row))),
            (false, "") => self.write(format_args!("\n")),
            (false, says) => self.write(format_args!(": {says}\n")),
        }
    }

    fn style(&self, style: Style) -> Style {
        if self.colored { style } else { Style::new() }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> Result<()> {
        self.output.write_fmt(text).map_err(stdout_failure)
    }
}

/// The bytes that were read last. Fields are short, and one read for each would be slow.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    start: u64,
}

impl Ahead {
    /// How many bytes are read at once.
    const CHUNK: usize = 1 << 16;

    /// Up to `len` bytes; fewer only where the file ends.
    fn get(&mut self, inspection: &Inspection, at: u64, len: u64) -> Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + len > end {
            self.bytes.resize(Ahead::CHUNK, 0);
            let got = inspection.read(at, &mut self.bytes)?;
            self.bytes.truncate(got);
            self.start = at;
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + len as usize)])
    }
}

/// The line before a piece: what it is, and whether its checksums hold. Empty for padding.
fn title(piece: &Piece) -> String {
    let start = piece.start;
    match (&piece.record, piece.class) {
        (Some(record), class) => {
            let flags = flags(record);
            let flags = if flags.is_empty() { String::new() } else { format!(" {}", flags.join(" ")) };
            let batch = match record.batch {
                Some(batch) if batch == start => ", first of a batch".to_owned(),
                Some(batch) => format!(", of the batch that starts at {batch}"),
                None => String::new(),
            };
            let (header, body) = (verdict(Some(record.header_holds)), verdict(record.body_holds));
            let (class, kind, seq) = (class.name(), kind(record), record.seq);
            let slots = piece.slots.map_or_else(String::new, |[first, second]| {
                format!("; first slot {}; second slot {}", slot_verdict(first), slot_verdict(second))
            });
            format!(
                "{start}: {class} {kind}{flags}, seq {seq}{batch}; header checksum {header}, body checksum {body}{slots}"
            )
        }
        (None, Class::FileHeader) => {
            format!("{start}: file header; checksum {}", header_checksum(piece))
        }
        (None, Class::Padding) => String::new(),
        (None, Class::EndMark) => format!("{start}: end mark"),
        (None, class) => format!("{start}: {}, {} bytes", class.name(), grouped(piece.end - start)),
    }
}

/// The meaning of a field; empty if its bytes show it. `row` is its beginning.
fn says(piece: &Piece, field: &Field, row: &[u8]) -> String {
    let number =
        || row.iter().take((field.end - field.start) as usize).rev().fold(0_u64, |n, &b| n << 8 | u64::from(b));
    match (field.name, &piece.record) {
        ("header_crc", Some(record)) => verdict(Some(record.header_holds)).to_owned(),
        ("body_crc", Some(record)) => verdict(record.body_holds).to_owned(),
        ("flags", Some(record)) => match flags(record) {
            none if none.is_empty() => "none".to_owned(),
            flags => flags.join(" "),
        },
        ("kind", Some(record)) => kind(record),
        ("crc", None) => header_checksum(piece).to_owned(),
        ("crc", Some(_)) => {
            slot_of(piece, field).map_or_else(String::new, |slot| format!("the slot {}", slot_verdict(slot)))
        }
        ("created", _) => format!("{} seconds since 1970", number()),
        ("deadline", Some(record)) if is_session(record) => match number() {
            0 => "END: the session is over".to_owned(),
            deadline => format!("{deadline} ms of the clock of its owner's machine"),
        },
        ("deadline" | "session" | "acquired", _) if number() == 0 => "none".to_owned(),
        ("deadline", _) => utc(number()),
        ("session" | "acquired" | "owner" | "nonce", _) => number().to_string(),
        ("ttl", _) => format!("{} ms", number()),
        ("file_id", _) => "not shown".to_owned(),
        ("major" | "minor" | "base_seq" | "complete_after" | "key_len" | "value_len" | "seq" | "bucket_len", _) => {
            number().to_string()
        }
        ("features" | "generation" | "synced_to" | "snapshot", _) => number().to_string(),
        ("version" | "hash" | "covered_to" | "covered_seq" | "records" | "keys", _) => number().to_string(),
        ("live_bytes" | "part_bits" | "leaves" | "directory" | "since_event" | "offset" | "count", _) => {
            number().to_string()
        }
        ("value", Some(record)) => stated(record.kind_name(), row, field),
        _ => String::new(),
    }
}

fn is_session(record: &Record) -> bool {
    record.kind_name() == Some("session")
}

/// Whether a checksum holds; `None` if it was not checked.
fn verdict(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "holds",
        Some(false) => "DOES NOT HOLD",
        None => "not checked",
    }
}

/// The slot of `ROOTS` that a field belongs to.
fn slot_of(piece: &Piece, field: &Field) -> Option<Slot> {
    let [first, second] = piece.slots?;
    let is_first = piece.fields().iter().find(|other| other.name == field.name) == Some(field);
    Some(if is_first { first } else { second })
}

/// Whether a slot of `ROOTS` holds, and whether it is the root.
fn slot_verdict(slot: Slot) -> &'static str {
    match slot {
        Slot::Root => "holds and is the root",
        Slot::Earlier => "holds",
        Slot::Empty => "is empty",
        _ => "DOES NOT HOLD",
    }
}

/// Whether the checksum of the file header holds.
fn header_checksum(piece: &Piece) -> &'static str {
    verdict(match piece.damage {
        None | Some(Damage::Sequence { .. }) => Some(true),
        Some(Damage::FileHeader { .. }) => Some(false),
        Some(_) => None,
    })
}

/// The offset that a `SYNCED_TO` states.
fn stated(kind: Option<&str>, row: &[u8], field: &Field) -> String {
    match <[u8; 8]>::try_from(row) {
        Ok(bytes) if kind == Some("SYNCED_TO") && field.end - field.start == 8 => {
            format!("offset {}", u64::from_le_bytes(bytes))
        }
        _ => String::new(),
    }
}

/// The printable characters of a row.
fn printable(row: &[u8]) -> String {
    let seen = |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
    row.iter().map(seen).collect()
}

fn field_style(piece: &Piece, field: &Field) -> Style {
    if piece.damage.is_some() && piece.record.is_none() {
        return style(Class::Corrupt);
    }
    let record = piece.record.as_ref();
    let color = match field.name {
        "header_crc" if record.is_some_and(|record| !record.header_holds) => AnsiColor::Red,
        "body_crc" if record.is_some_and(|record| record.body_holds == Some(false)) => AnsiColor::Red,
        "crc" if record.is_some() && slot_of(piece, field) == Some(Slot::Broken) => AnsiColor::Red,
        "header_crc" | "body_crc" | "crc" | "directory_crc" | "magic" | "check" => AnsiColor::Cyan,
        "flags" | "kind" | "major" | "minor" | "features" | "synced_to" | "snapshot" => AnsiColor::Yellow,
        "version" | "hash" | "part_bits" | "covered_to" | "directory" | "offset" => AnsiColor::Yellow,
        "key_len" | "value_len" | "bucket_len" | "records" | "keys" | "live_bytes" | "leaves" | "count" => {
            AnsiColor::Magenta
        }
        "seq" | "base_seq" | "complete_after" | "created" | "generation" | "covered_seq" => AnsiColor::Green,
        "deadline" | "session" | "acquired" | "owner" | "nonce" | "ttl" | "boot" => AnsiColor::Yellow,
        "bucket" | "key" | "full_key" => AnsiColor::Blue,
        "padding" | "reserved" | "file_id" => return Style::new().dimmed(),
        "value" => return Style::new(),
        _ => return style(piece.class),
    };
    Style::new().fg_color(Some(color.into()))
}
