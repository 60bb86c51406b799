//! What a malformed file may cost: memory that its size justifies, and reads in proportion to it. Files that were made
//! to cost more, with right checksums where that makes it worse: headers that look true by the thousand, batches that
//! never end, damage upon damage.
//!
//! Bytes and calls are counted, no clock is looked at, so a search that is quadratic is found on every machine.

use std::path::Path;
use std::sync::Arc;

use crate::common::counted_memory::peak_during;
use crate::common::files::bytes::{Fields, FileBytes, record};
use crate::common::files::layout::{ALIGNMENT, DELETE, MARK, MORE, PUT, RECORD_HEADER_LEN, SYNCED, SYNCED_TO};
use caskfile::disk::sim::SimDisk;
use caskfile::inspect::Inspection;
use caskfile::{Cask, Config, Durability, ReadMode, salvage_on, verify_on};

const STORE: &str = "/store";

/// How long the files are, about.
const LEN: usize = 512 << 10;

/// Opening may keep this many bytes for each byte of the file: a batch of the shortest records that there are takes the
/// most, until it is known whether it ends.
const MEMORY_PER_BYTE: usize = 8;
/// And this much besides: what is read at once, a few times over.
const MEMORY: usize = 3 << 20;

/// What an act may read of a file.
#[derive(Clone, Copy)]
struct Budget {
    bytes_per_byte: u64,
    bytes_per_call: u64,
}

/// How often each byte may be read, by the walk, by the search after it, and again by those that look twice because
/// another process could be writing. Small bodies are read one by one.
const OPENING: Budget = Budget { bytes_per_byte: 16, bytes_per_call: 4 };

/// After each damage the walk starts again, and reads a few times four kilobytes for it, though damage may be as small as
/// a record's header.
const SURVEY: Budget = Budget {
    bytes_per_byte: 16 + (16 << 10) / RECORD_HEADER_LEN as u64,
    bytes_per_call: RECORD_HEADER_LEN as u64 / 16,
};

impl Budget {
    fn admits(self, read: u64, calls: u64, len: u64) -> bool {
        read <= self.bytes_per_byte * len + (4 << 20) && calls <= len / self.bytes_per_call + 1000
    }
}

/// A file in the making, each record with the index after the one before.
struct Log {
    file: FileBytes,
    index: u64,
}

impl Log {
    fn new() -> Log {
        Log { file: FileBytes::new(0), index: 0 }
    }

    fn push(mut self, flags: u64, kind: u64, key: &[u8], value: &[u8]) -> Log {
        self.index += 1;
        self.file = self.file.push(record(flags, kind, self.index, key, value));
        self
    }

    /// A record whose header is true and whose body is not what its checksum says.
    fn push_damaged(mut self, flags: u64, kind: u64, key: &[u8], value: &[u8], value_len: u32) -> Log {
        self.index += 1;
        let value_len = Some(value_len);
        let fields = Fields { value_len, body_crc_xor: 1, ..record(flags, kind, self.index, key, value) };
        self.file = self.file.push(fields);
        self
    }

    /// As many rounds as fit into [`LEN`].
    fn fill(mut self, round: impl Fn(Log, usize) -> Log) -> Log {
        for n in 0.. {
            if self.file.len() >= LEN {
                break;
            }
            self = round(self, n);
        }
        self
    }

    fn end(self) -> Vec<u8> {
        self.file.end()
    }

    /// With a mark that proves everything before it.
    fn proven(self) -> Vec<u8> {
        self.push(SYNCED, MARK, b"", b"").end()
    }

    fn left(&self) -> u32 {
        (LEN - 2 * RECORD_HEADER_LEN).saturating_sub(self.file.len()) as u32
    }
}

/// Files and what they are.
fn adversaries() -> Vec<(&'static str, Vec<u8>)> {
    let full_of = |flags, kind, key: &'static [u8]| {
        // Each of these headers is true and says that the rest of the file is its body.
        let log = Log::new().fill(|log, _| {
            let left = log.left();
            log.push_damaged(flags, kind, key, b"", left)
        });
        log.end()
    };
    let key = |n: usize| format!("\0{n}").into_bytes();
    let sound = |log: Log, n: usize| log.push(0, PUT, &key(n), b"value");
    let damaged = |log: Log, n: usize| log.push_damaged(0, PUT, &key(n), b"value", 5);
    let without_header = |mut file: Vec<u8>| {
        file[..64].fill(0xee);
        file
    };
    let plausible = [[0xee; 8], [0, 1, 9, 0, 1, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0]].concat();
    vec![
        ("sound", Log::new().fill(sound).proven()),
        ("sound, one key", Log::new().fill(|log, _| log.push(0, PUT, b"\0k", b"")).proven()),
        ("sound, marks only", Log::new().fill(|log, _| log.push(0, MARK, b"", b"")).proven()),
        ("true headers of long puts", full_of(0, PUT, b"")),
        ("true headers of long puts with SYNCED", full_of(SYNCED, PUT, b"")),
        ("true headers of long puts with MORE", full_of(MORE, PUT, b"\0k")),
        ("true headers of long statements", full_of(0, SYNCED_TO, b"")),
        ("true headers of long unknown kinds", full_of(0, 0xb0, b"")),
        ("true headers of long loose kinds", full_of(0, 0xc1, b"")),
        ("a batch that never ends", Log::new().fill(|log, n| log.push(MORE, PUT, &key(n), b"")).end()),
        ("a batch of nothing that never ends", Log::new().fill(|log, _| log.push(MORE, MARK, b"", b"")).end()),
        ("a batch of nothing", Log::new().fill(|log, _| log.push(MORE, MARK, b"", b"")).push(0, MARK, b"", b"").end()),
        ("batches that never end", {
            Log::new().fill(|log, n| log.push(SYNCED | MORE, PUT, &key(n), b"").push(MORE, DELETE, &key(n), b"")).end()
        }),
        ("batches that never end, statements in them", {
            let statement = |log: Log| {
                let stated = log.file.len() as u64;
                log.push(MORE, SYNCED_TO, b"", &stated.to_le_bytes())
            };
            Log::new().fill(|log, n| statement(log.push(SYNCED | MORE, PUT, &key(n), b""))).end()
        }),
        ("damage upon damage", Log::new().fill(damaged).end()),
        ("damage upon damage, proven", Log::new().fill(damaged).proven()),
        ("every second one damaged", Log::new().fill(|log, n| sound(damaged(log, n), n)).end()),
        ("every second one damaged, proven", Log::new().fill(|log, n| sound(damaged(log, n), n)).proven()),
        ("every second one damaged, in batches", {
            let round = |log: Log, n: usize| damaged(log.push(SYNCED | MORE, PUT, &key(n), b""), n);
            Log::new().fill(round).proven()
        }),
        ("zeros between all", {
            let zeros = |mut log: Log| {
                log.file = log.file.raw(&[0; 2 * ALIGNMENT]);
                log
            };
            Log::new().fill(|log, n| zeros(sound(log, n))).proven()
        }),
        ("statements", Log::new().fill(|log, _| log.push(0, SYNCED_TO, b"", &64u64.to_le_bytes())).end()),
        ("damaged statements", {
            Log::new().fill(|log, _| log.push_damaged(0, SYNCED_TO, b"", &64u64.to_le_bytes(), 8)).end()
        }),
        ("false headers", FileBytes::new(0).raw(&plausible.repeat(LEN / plausible.len())).0),
        ("false headers, proven", {
            let file = FileBytes::new(0).raw(&plausible.repeat(LEN / plausible.len()));
            Log { file, index: 9 }.proven()
        }),
        ("zeros", FileBytes::new(0).raw(&[0; LEN]).0),
        ("ones", FileBytes::new(0).raw(&[0xff; LEN]).0),
        ("no header, sound", without_header(Log::new().fill(sound).proven())),
        ("no header, damage upon damage", without_header(Log::new().fill(damaged).end())),
        ("no header, true headers of long puts", without_header(full_of(0, PUT, b"\0k"))),
        ("no header, false headers", FileBytes(plausible.repeat(LEN / plausible.len())).0),
    ]
}

type Act = fn(&SimDisk);

/// What is done with a file, and what it may cost. Whether it succeeds is for other tests to say.
const ACTS: [(&str, Budget, Act); 6] = [
    ("opened for reading", OPENING, |disk| open(disk, &Config::new().read_only(true))),
    ("opened without a map", OPENING, |disk| open(disk, &Config::new().read_only(true).read_mode(ReadMode::Pread))),
    ("opened", OPENING, |disk| open(disk, &Config::new().durability(Durability::Os).create(false))),
    ("verified", SURVEY, |disk| drop(verify_on(disk, Path::new(STORE)))),
    ("salvaged", SURVEY, |disk| drop(salvage_on(disk, Path::new(STORE), Path::new("/rescued")))),
    ("inspected", SURVEY, |disk| {
        let inspection = Inspection::open_on(Arc::new(disk.process()), STORE);
        inspection.into_iter().for_each(|inspection| inspection.pieces().for_each(drop));
    }),
];

fn open(disk: &SimDisk, config: &Config) {
    drop(Cask::open_on(Arc::new(disk.process()), STORE, config));
}

fn disk_with(file: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.set_contents(STORE, file.to_vec());
    disk
}

#[test]
fn no_file_makes_the_library_read_too_much() {
    let mut wrong = String::new();
    for (what, file) in adversaries() {
        for (done, budget, act) in ACTS {
            let disk = disk_with(&file);
            act(&disk);
            let cost = format!("{what}, {done}: {} bytes in {} calls", disk.bytes_read(), disk.calls());
            println!("{cost}");
            if !budget.admits(disk.bytes_read(), disk.calls(), file.len() as u64) {
                wrong += &format!("{cost}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "too much for about {LEN} bytes:\n{wrong}");
}

#[test]
fn no_file_makes_the_library_allocate_too_much() {
    let mut wrong = String::new();
    for (what, file) in adversaries() {
        for (done, _, act) in ACTS {
            let disk = disk_with(&file);
            let peak = peak_during(|| act(&disk));
            println!("{what}, {done}: {peak} bytes of memory");
            if peak > MEMORY_PER_BYTE * file.len() + MEMORY {
                wrong += &format!("{what}, {done}: {peak}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "too many bytes for about {LEN}:\n{wrong}");
}
