//! Files that say something else than they did, and have right checksums for it.

use super::anatomy::Record;
use super::layout::{
    self, EXPIRY_LEN, MAX_SEQ, MAX_SEQ_STEP, MAX_VALUE_LEN, NOW, RECORD_HEADER, RECORD_HEADER_LEN, SESSION_LEN,
};
use super::oracle::Original;
use super::seal::{seal_header, seal_record};
use crate::common::dice::Dice;

/// Which checksums are made right after an edit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seal {
    Nothing,
    Header,
    /// And the body's, if it fits into the file.
    Record,
}

impl Seal {
    pub const ALL: [Seal; 3] = [Seal::Nothing, Seal::Header, Seal::Record];

    fn apply(self, file: &mut [u8], at: usize) {
        match self {
            Seal::Nothing => {}
            Seal::Header => seal_header(file, at),
            Seal::Record => drop(seal_record(file, at)),
        }
    }
}

/// A number in a file: where it is and how many bytes it has.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    at: usize,
    len: usize,
}

/// The fields of a record that lead to other places or decide about what is accepted.
pub fn fields(record: &Record) -> Vec<Field> {
    let in_header = |name| {
        let &(name, at, len) = RECORD_HEADER.iter().find(|field| field.0 == name).expect("a field of the page's table");
        Field { name, at: record.at + at, len }
    };
    let mut fields = ["body_crc", "flags", "kind", "key_len", "value_len", "seq"].map(in_header).to_vec();
    let body = record.at + RECORD_HEADER_LEN;
    if !record.key.is_empty() {
        fields.push(Field { name: "bucket length", at: body, len: 1 });
    }
    if u64::from(record.kind) == layout::SYNCED_TO {
        fields.push(Field { name: "stated offset", at: body, len: 8 });
    }
    if matches!(u64::from(record.kind), layout::PUT_WITH | layout::PUT_OWNED) {
        fields.push(Field { name: "deadline", at: body + record.key.len(), len: 8 });
    }
    if u64::from(record.kind) == layout::PUT_OWNED {
        let at = body + record.key.len() + 8;
        fields.extend([("session", at), ("acquired", at + 8)].map(|(name, at)| Field { name, at, len: 8 }));
    }
    if u64::from(record.kind) == layout::SESSION {
        let numbers = layout::SESSION_VALUE.iter().filter(|field| field.2 == 8);
        fields.extend(numbers.map(|&(name, at, len)| Field { name, at: body + at, len }));
    }
    fields
}

/// The values at which something changes for a field of this record, sorted.
pub fn boundaries(original: &Original, record: &Record, field: Field) -> Vec<u64> {
    let now = field.read(&original.bytes);
    let rest = (original.bytes.len() - record.at - RECORD_HEADER_LEN) as u64;
    let (key_len, value_len) = (record.key.len() as u64, record.value.len() as u64);
    let previous = original.records.iter().take_while(|other| other.at < record.at).last().map_or(0, |last| last.index);
    let places = match field.name {
        "body_crc" => vec![],
        "flags" => (0..8).map(|bit| 1 << bit).chain([3]).collect(),
        "kind" => vec![4, 6, 0x7f, 0x80, 0x81, 0x82, 0x83],
        "key_len" => vec![rest, rest.saturating_sub(value_len), key_len + value_len],
        "value_len" => vec![rest, rest - key_len, EXPIRY_LEN as u64, SESSION_LEN as u64, MAX_VALUE_LEN, 1 << 31],
        "seq" => vec![previous, previous + MAX_SEQ_STEP, MAX_SEQ, 1 << 63],
        "bucket length" => vec![key_len],
        "deadline" => vec![NOW],
        "session" | "acquired" | "base_seq" => vec![record.index],
        "owner" => vec![1 << 61],
        "nonce" | "ttl" => vec![],
        _ => vec![record.at as u64, record.end as u64, original.bytes.len() as u64, 64, 1 << 63],
    };
    let around = places.into_iter().chain([0, 8, now]).flat_map(|place| {
        [place.saturating_sub(8), place.saturating_sub(1), place, place.saturating_add(1), place.saturating_add(8)]
    });
    let most = u64::MAX >> (64 - 8 * field.len);
    let mut values: Vec<u64> = around.chain([most, most - 1]).filter(|&value| value <= most && value != now).collect();
    values.sort_unstable();
    values.dedup();
    values
}

impl Field {
    fn read(self, file: &[u8]) -> u64 {
        file[self.at..self.at + self.len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// The file with another number here, and the checksums of the record that it belongs to.
    pub fn set(self, file: &mut [u8], record: &Record, value: u64, seal: Seal) {
        file[self.at..self.at + self.len].copy_from_slice(&value.to_le_bytes()[..self.len]);
        seal.apply(file, record.at);
    }
}

/// Changes a field of one of the records to a boundary value, or a small or an arbitrary one.
pub fn at_random(dice: &mut Dice, original: &Original, file: &mut [u8]) {
    let record = &original.records[dice.below(original.records.len() as u64) as usize];
    if record.end > file.len() {
        return;
    }
    let field = dice.choose(&fields(record));
    let value = match dice.below(4) {
        0 => dice.roll(),
        1 => dice.below(16),
        _ => dice.choose(&boundaries(original, record, field)),
    };
    field.set(file, record, value, dice.choose(&[Seal::Header, Seal::Record, Seal::Record]));
}
