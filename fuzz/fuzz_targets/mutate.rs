//! Arbitrary edits of a real store: other lengths, kinds, flags and indexes, records dropped, doubled and moved, with
//! all checksums right again unless an edit says otherwise. So nearly every input passes the checksums.
//!
//! The library's verdict must be that of the reader that was made from docs/FORMAT.md, which knows nothing of it, to
//! the byte; then a store that opens is written and closed, and the reader must find what was written, and one that
//! does not is salvaged.

#![no_main]

#[path = "../../tests/common/files/anatomy.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod anatomy;
#[path = "../../tests/common/files/bytes.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod bytes;
#[path = "../../tests/common/files/layout.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod layout;
#[path = "../../tests/common/files/library.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod library;
#[path = "../../tests/common/files/life.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod life;
#[path = "../../tests/common/files/reader.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod reader;
mod rescue;
#[path = "../../tests/common/files/seal.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod seal;

use std::sync::LazyLock;

use caskfile::disk::sim::SimDisk;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

use life::live_on;
use reader::Verdict;
use rescue::STORE;

fuzz_target!(|program: Program| {
    let file = program.file();
    let verdict = reader::read(&file);
    assert_eq!(verdict, library::verdict(&file), "the page's reader (left) and the library (right)");
    match verdict {
        Verdict::Store(contents) => live_on(&file, *contents),
        _ => {
            let disk = SimDisk::new();
            disk.set_contents(STORE, file.clone());
            rescue::salvage(&disk, &file);
        }
    }
});

#[derive(Debug, Arbitrary)]
struct Program<'a> {
    specimen: u8,
    /// What the slots state: a generation, and an offset divided by 8. Without, they are empty.
    roots: Option<[(u8, u16); 2]>,
    edits: Vec<Edit<'a>>,
    /// What is done to the bytes after the checksums were made right.
    damages: Vec<Damage>,
}

#[derive(Debug, Arbitrary)]
enum Edit<'a> {
    Set {
        record: u8,
        field: Field,
        to: Number,
    },
    /// Puts other bytes in the place of a record's value; its length follows.
    Value {
        record: u8,
        value: &'a [u8],
    },
    KeyByte {
        record: u8,
        at: u8,
        to: u8,
    },
    Drop {
        record: u8,
    },
    Double {
        record: u8,
        to: u8,
    },
    Move {
        record: u8,
        to: u8,
    },
    /// Sets MORE on this many records in a row.
    Batch {
        from: u8,
        count: u8,
    },
    /// This number of times eight zeros.
    Gap {
        before: u8,
        words: u8,
    },
    /// All records from this one on get new sequence numbers, each one above the previous.
    Renumber {
        from: u8,
        start: Number,
    },
    WrongHeaderCrc {
        record: u8,
    },
    WrongBodyCrc {
        record: u8,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Field {
    Flags,
    Kind,
    KeyLen,
    ValueLen,
    Seq,
    BucketLen,
    /// What a `SYNCED_TO` states; the record becomes one.
    Stated,
    /// The deadline of a put-with; the record becomes one, with a short value.
    Deadline,
    /// The session of a put-owned; the record becomes one, a lock that it has taken.
    Owner,
    /// The session of a record about one; the record becomes one, which has lived for some time.
    Session,
    /// The same; the record becomes its END.
    End,
    BaseSeq,
    Major,
    Minor,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Exactly(u64),
    Small(u8),
    /// A power of two, and a little more or less.
    Power(u8, i8),
    /// What is there, and a little more or less.
    Near(i8),
    /// Where a record starts in the undamaged file, and a little more or less.
    Start(u8, i8),
    /// What is left of the undamaged file from the record on, and a little more or less.
    Rest(i8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Damage {
    Flip { at: u16, bit: u8 },
    Fill { at: u16, len: u8, with: u8 },
    Copy { from: u16, to: u16, len: u8 },
    Cut { at: u16 },
    Extend { by: u16 },
}

/// A record in the making.
#[derive(Clone)]
struct Piece {
    /// Zeros before it.
    gap: usize,
    header: [u8; layout::RECORD_HEADER_LEN],
    key: Vec<u8>,
    value: Vec<u8>,
    wrong_header_crc: bool,
    wrong_body_crc: bool,
}

static SPECIMENS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let (crashed, closed) = anatomy::specimens_of(2048);
    [crashed, closed]
});

impl Program<'_> {
    fn file(&self) -> Vec<u8> {
        let original = &SPECIMENS[usize::from(self.specimen) % 2];
        let mut header = original[..layout::log_start(original)].to_vec();
        for (at, (generation, synced_to)) in layout::SLOTS.into_iter().zip(self.roots.unwrap_or_default()) {
            header[at..at + 8].copy_from_slice(&u64::from(generation).to_le_bytes());
            header[at + 8..at + 16].copy_from_slice(&(u64::from(synced_to) * 8).to_le_bytes());
        }
        let mut pieces: Vec<Piece> =
            anatomy::records(original).iter().map(|record| Piece::of(original, record)).collect();
        let starts: Vec<usize> = anatomy::records(original).iter().map(|record| record.at).collect();
        for edit in &self.edits {
            edit.apply(&mut header, &mut pieces, &starts, original.len());
        }
        let mut file = lay_out(header, &pieces);
        for damage in &self.damages {
            damage.apply(&mut file);
        }
        file
    }
}

impl Piece {
    fn of(file: &[u8], record: &anatomy::Record) -> Piece {
        Piece {
            gap: 0,
            header: file[record.at..record.at + layout::RECORD_HEADER_LEN].try_into().unwrap(),
            key: record.key.clone(),
            value: record.value.clone(),
            wrong_header_crc: false,
            wrong_body_crc: false,
        }
    }

    fn field(&self, name: &str) -> u64 {
        layout::number(layout::RECORD_HEADER, name, &self.header)
    }

    fn set(&mut self, name: &str, to: u64) {
        set(&mut self.header, layout::RECORD_HEADER, name, to);
    }

    fn set_value(&mut self, value: &[u8]) {
        self.value = value.to_vec();
        self.set("value_len", value.len() as u64);
    }
}

fn set(bytes: &mut [u8], layout: &[layout::Field], name: &str, to: u64) {
    let &(_, at, len) = layout.iter().find(|field| field.0 == name).unwrap();
    bytes[at..at + len].copy_from_slice(&to.to_le_bytes()[..len]);
}

impl Number {
    fn of(self, now: u64, start: usize, starts: &[usize], file_len: usize) -> u64 {
        match self {
            Number::Exactly(number) => number,
            Number::Small(number) => number.into(),
            Number::Power(power, more) => (1u64 << (power % 64)).wrapping_add_signed(more.into()),
            Number::Near(more) => now.wrapping_add_signed(more.into()),
            Number::Start(record, more) => {
                (starts[usize::from(record) % starts.len()] as u64).wrapping_add_signed(more.into())
            }
            Number::Rest(more) => (file_len.saturating_sub(start) as u64).wrapping_add_signed(more.into()),
        }
    }
}

impl Edit<'_> {
    fn apply(&self, header: &mut [u8], pieces: &mut Vec<Piece>, starts: &[usize], file_len: usize) {
        if pieces.is_empty() {
            return;
        }
        let len = pieces.len();
        let place = |record: u8| usize::from(record) % len;
        match *self {
            Edit::Set { record, field, to } => {
                let (at, piece) = (place(record), &mut pieces[place(record)]);
                let number = |now| to.of(now, starts[at % starts.len()], starts, file_len);
                let (name, in_header) = match field {
                    Field::Flags => ("flags", false),
                    Field::Kind => ("kind", false),
                    Field::KeyLen => ("key_len", false),
                    Field::ValueLen => ("value_len", false),
                    Field::Seq => ("seq", false),
                    Field::BucketLen => {
                        if let Some(first) = piece.key.first_mut() {
                            *first = number((*first).into()) as u8;
                        }
                        return;
                    }
                    Field::Stated => {
                        let now = piece.value[..].try_into().map_or(0, u64::from_le_bytes);
                        piece.set("kind", layout::SYNCED_TO);
                        piece.set_value(&number(now).to_le_bytes());
                        return;
                    }
                    Field::Deadline => {
                        // Around the moment that the clock shows, where it decides.
                        let deadline = match to {
                            Number::Near(more) => layout::NOW.wrapping_add_signed(more.into()),
                            to => to.of(0, 0, starts, file_len),
                        };
                        piece.set("kind", layout::PUT_WITH);
                        piece.set_value(&layout::with_deadline(deadline, b"until then"));
                        return;
                    }
                    Field::Owner => {
                        let seq = piece.field("seq");
                        piece.set("kind", layout::PUT_OWNED);
                        piece.set_value(&layout::with_owner(0, to.of(seq, 0, starts, file_len), seq, b"its own"));
                        return;
                    }
                    Field::Session | Field::End => {
                        let deadline = if matches!(field, Field::End) { 0 } else { 1000 };
                        let session = to.of(piece.field("seq"), 0, starts, file_len);
                        piece.set("kind", layout::SESSION);
                        piece.key.clear();
                        piece.set("key_len", 0);
                        piece.set_value(&layout::session(session, deadline));
                        return;
                    }
                    Field::BaseSeq => ("base_seq", true),
                    Field::Major => ("major", true),
                    Field::Minor => ("minor", true),
                };
                if in_header {
                    let now = layout::number(layout::FILE_HEADER, name, header);
                    set(header, layout::FILE_HEADER, name, number(now));
                } else {
                    piece.set(name, number(piece.field(name)));
                }
            }
            Edit::Value { record, value } => pieces[place(record)].set_value(value),
            Edit::KeyByte { record, at, to } => {
                let key = &mut pieces[place(record)].key;
                if !key.is_empty() {
                    let at = usize::from(at) % key.len();
                    key[at] = to;
                }
            }
            Edit::Drop { record } => drop(pieces.remove(place(record))),
            Edit::Double { record, to } => pieces.insert(place(to), pieces[place(record)].clone()),
            Edit::Move { record, to } => {
                let piece = pieces.remove(place(record));
                pieces.insert(place(to).min(pieces.len()), piece);
            }
            Edit::Batch { from, count } => {
                for piece in pieces.iter_mut().skip(place(from)).take(count.into()) {
                    piece.set("flags", layout::MORE);
                }
            }
            Edit::Gap { before, words } => pieces[place(before)].gap = 8 * usize::from(words % 16),
            Edit::Renumber { from, start } => {
                let first = start.of(pieces[place(from)].field("seq"), 0, starts, file_len);
                for (n, piece) in pieces.iter_mut().skip(place(from)).enumerate() {
                    piece.set("seq", first.wrapping_add(n as u64));
                }
            }
            Edit::WrongHeaderCrc { record } => pieces[place(record)].wrong_header_crc = true,
            Edit::WrongBodyCrc { record } => pieces[place(record)].wrong_body_crc = true,
        }
    }
}

/// The pieces as a file, their checksums right but for those that are to be wrong.
fn lay_out(header: Vec<u8>, pieces: &[Piece]) -> Vec<u8> {
    let mut file = header;
    seal::seal_file_header(&mut file);
    seal::seal_roots(&mut file);
    let mut starts = Vec::new();
    for piece in pieces {
        file.resize(file.len() + piece.gap, 0);
        starts.push(file.len());
        file.extend_from_slice(&[&piece.header[..], &piece.key, &piece.value].concat());
        file.resize(file.len().next_multiple_of(layout::ALIGNMENT), 0);
    }
    file.extend_from_slice(&[0; layout::END_MARK_LEN]);
    // From the last to the first: where a length reaches over what follows, that is part of the body.
    for (&start, piece) in starts.iter().zip(pieces).rev() {
        let sealed = seal::seal_record(&mut file, start).is_some();
        if sealed && piece.wrong_body_crc {
            file[start + 4] ^= 1;
            seal::seal_header(&mut file, start);
        }
        if piece.wrong_header_crc {
            file[start] ^= 1;
        }
    }
    file
}

impl Damage {
    fn apply(self, file: &mut Vec<u8>) {
        let len = file.len();
        let place = |at: u16| usize::from(at) % len.max(1);
        let end = |at: usize, by: u8| (at + usize::from(by)).min(len);
        match self {
            Damage::Flip { at, bit } if len > 0 => file[place(at)] ^= 1 << (bit % 8),
            Damage::Fill { at, len, with } => file[place(at)..end(place(at), len)].fill(with),
            Damage::Copy { from, to, len } => {
                let piece = file[place(from)..end(place(from), len)].to_vec();
                let to = place(to) / layout::ALIGNMENT * layout::ALIGNMENT;
                file.iter_mut().skip(to).zip(piece).for_each(|(byte, new)| *byte = new);
            }
            Damage::Cut { at } => file.truncate(place(at)),
            Damage::Extend { by } => file.resize(len + usize::from(by % 4096), 0),
            Damage::Flip { .. } => {}
        }
    }
}
