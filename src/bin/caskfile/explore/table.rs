//! [`Table`]: the pieces of a file as the page's scripts read them.

use std::collections::{BTreeMap, HashMap};

use caskfile::inspect::{Class, Inspection, Piece, Slot};

use super::sample::{HEX_ROW, Sample, Window};
use crate::look::is_broken;

/// Bits that `pieces.js` reads.
const IS_RECORD: u8 = 1;
const HEADER_HOLDS: u8 = 2;
const BODY_HOLDS: u8 = 4;
const BODY_UNKNOWN: u8 = 8;

/// The file's identity. With it, records can be forged inside values, so no tool shows it.
const FILE_ID: Window = 16..32;

const ROW_LEN: usize = 16;

/// How many broken places are listed.
const MOST_PLACES: usize = 200;

/// The pieces in the page, and the bytes that they need.
#[derive(Default)]
pub struct Table {
    /// 16 bytes for each piece: its offset (8 bytes), the number of its class, what holds, 2 bytes, and 4 bytes. The 2 bytes
    /// are what the slots of `ROOTS` are; elsewhere they are zeros.
    /// In the row that stands for omitted pieces, the 4 bytes are the number of their records. In the row of a put that
    /// an omitted record replaced or deleted, they are the number of the row that stands for that record. A piece ends
    /// where the next one starts.
    pub rows: Vec<u8>,
    pub windows: Vec<Window>,
    /// Bytes of each class, whether they are in the page or not.
    bytes: BTreeMap<Class, u64>,
    /// How many records count and are in the page, and how many count and are not.
    pub records: u64,
    pub records_omitted: u64,
    bytes_omitted: u64,
    pub places: Vec<Place>,
    pub unlisted_places: u64,
    /// The last record that counts is a `MOVED`.
    pub ends_moved: bool,
    /// Omitted pieces that have no row yet: where they start, and how many records they have.
    omitted: Option<(u64, u32)>,
    /// In a sample: the row of each key's put, if that is in the page.
    puts: HashMap<Vec<u8>, usize>,
    last_class: Option<Class>,
}

/// A broken place.
#[derive(serde::Serialize)]
pub struct Place {
    offset: u64,
    text: String,
}

impl Table {
    pub fn of(inspection: &Inspection, sample: &Sample) -> caskfile::Result<Table> {
        let mut sample = *sample;
        let mut table = Table::default();
        for piece in inspection.pieces() {
            let piece = piece?;
            *table.bytes.entry(piece.class).or_insert(0) += piece.end - piece.start;
            table.note(&piece);
            let is_taken = sample.takes(&piece);
            if piece.class == Class::Padding {
                // Part of its record in the page.
                table.pad(&piece);
            } else if is_taken {
                table.hold(&piece, &sample);
            } else {
                table.omit(piece);
            }
        }
        table.end_omission();
        Ok(table)
    }

    /// The names of the classes, in the order of their numbers in the table, and the bytes of each in the whole file. The
    /// last one is for the pieces that are left out.
    pub fn classes(&self) -> Vec<(&'static str, u64)> {
        let named = Class::ALL.iter().map(|class| (class.name(), self.bytes_of(*class)));
        named.chain([("omitted", self.bytes_omitted)]).collect()
    }

    fn number_of(class: Class) -> u8 {
        Class::ALL.iter().position(|other| *other == class).unwrap_or(Class::ALL.len()) as u8
    }

    /// The bytes of a class in the whole file.
    pub fn bytes_of(&self, class: Class) -> u64 {
        self.bytes.get(&class).copied().unwrap_or(0)
    }

    fn hold(&mut self, piece: &Piece, sample: &Sample) {
        self.end_omission();
        let mut bits = 0;
        if let Some(record) = &piece.record {
            match piece.class {
                _ if sample.is_everything() => {}
                Class::Live | Class::Dead => drop(self.puts.insert(record.full_key.clone(), self.rows.len())),
                Class::Tombstone => drop(self.puts.remove(&record.full_key)),
                _ => {}
            }
            bits |= IS_RECORD | if record.header_holds { HEADER_HOLDS } else { 0 };
            bits |= record.body_holds.map_or(BODY_UNKNOWN, |holds| if holds { BODY_HOLDS } else { 0 });
        } else if piece.damage.is_none() {
            bits |= HEADER_HOLDS;
        }
        self.records += u64::from(counts(piece));
        let slots = piece.slots.map_or([0; 2], |slots| slots.map(number_of_slot));
        self.push_row(piece.start, Table::number_of(piece.class), bits, slots, 0);
        self.open_window(piece.start, piece.start + sample.bytes_of(piece));
    }

    /// Holds padding if the piece before it is held.
    fn pad(&mut self, piece: &Piece) {
        if self.windows.last().is_some_and(|window| window.end == piece.start) {
            self.open_window(piece.start, piece.end);
        }
    }

    fn omit(&mut self, piece: Piece) {
        let records = u32::from(counts(&piece));
        self.records_omitted += u64::from(records);
        self.bytes_omitted += piece.end - piece.start;
        let (_, omitted) = self.omitted.get_or_insert((piece.start, 0));
        *omitted = omitted.saturating_add(records);
        let about_key =
            piece.record.filter(|_| records > 0 && !matches!(piece.class, Class::Statement | Class::Snapshot));
        if let Some(row) = about_key.and_then(|record| self.puts.remove(&record.full_key)) {
            let number = (self.rows.len() / ROW_LEN) as u32;
            self.rows[row + 12..row + ROW_LEN].copy_from_slice(&number.to_le_bytes());
        }
    }

    fn end_omission(&mut self) {
        if let Some((start, records)) = self.omitted.take() {
            self.push_row(start, Class::ALL.len() as u8, 0, [0; 2], records);
        }
    }

    fn push_row(&mut self, start: u64, class: u8, bits: u8, slots: [u8; 2], records: u32) {
        self.rows.extend_from_slice(&start.to_le_bytes());
        self.rows.extend_from_slice(&[class, bits, slots[0], slots[1]]);
        self.rows.extend_from_slice(&records.to_le_bytes());
    }

    /// Adds a range to the bytes that are held.
    fn open_window(&mut self, start: u64, end: u64) {
        if start < FILE_ID.start {
            self.windows.push(start..FILE_ID.start);
            self.windows.push(FILE_ID.end..end);
            return;
        }
        match self.windows.last_mut() {
            Some(last) if start / HEX_ROW * HEX_ROW <= last.end => last.end = last.end.max(end),
            _ => self.windows.push(start / HEX_ROW * HEX_ROW..end),
        }
    }

    /// Lists the piece if something is wrong with it.
    fn note(&mut self, piece: &Piece) {
        if let Some(record) = piece.record.as_ref().filter(|_| counts(piece)) {
            self.ends_moved = record.kind_name() == Some("MOVED");
        }
        let begins = is_broken(piece.class) && self.last_class != Some(piece.class);
        self.last_class = Some(piece.class);
        if !begins && piece.damage.is_none() {
            return;
        }
        if self.places.len() == MOST_PLACES {
            self.unlisted_places += 1;
            return;
        }
        let why = match (piece.damage, &piece.record) {
            (Some(damage), _) => format!(": {damage}"),
            (None, Some(record)) if record.batch.is_some() => ": a batch without its end".to_owned(),
            _ => String::new(),
        };
        let text = format!("{:#x} {}{why}", piece.start, piece.class.name().replace('_', " "));
        self.places.push(Place { offset: piece.start, text });
    }
}

/// The number that `pieces.js` knows for what a slot is.
fn number_of_slot(slot: Slot) -> u8 {
    match slot {
        Slot::Empty => 0,
        Slot::Root => 1,
        Slot::Earlier => 2,
        _ => 3,
    }
}

/// Whether a piece is a record that readers of the store count.
fn counts(piece: &Piece) -> bool {
    matches!(piece.class, Class::Live | Class::Dead | Class::Tombstone | Class::Statement | Class::Snapshot)
}
