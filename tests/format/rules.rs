//! docs/FORMAT.md against the library: the page's tables, its byte examples and its rules. The reader in tests/common/files
//! was made from the page and uses nothing of the crate.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::writing;
use crate::common::files::bytes::{Fields, FileBytes, record};
use crate::common::files::cases;
use crate::common::files::layout::{
    self, DELETE, END_MARK_LEN, EXPIRY, EXPIRY_LEN, FILE_HEADER, FILE_HEADER_LEN, IMAGE, LOOSE, MARK, MAX_FILE_LEN,
    MAX_SEQ, MAX_SEQ_STEP, MORE, MOVED, NOW, PUT, PUT_OWNED, PUT_WITH, RECORD_HEADER, RECORD_HEADER_LEN, ROOTS,
    ROOTS_END, SESSION, SESSION_LEN, SESSION_VALUE, SLOT, SLOT_LEN, SLOTS, SNAPSHOT, SYNCED, SYNCED_TO, log_start,
    session, with_deadline, with_owner,
};
use crate::common::files::library::{self, PATH};
use crate::common::files::page::{self, summary};
use crate::common::files::reader::{Reader, Record, Verdict, read};
use crate::common::files::snapshot;
use caskfile::disk::sim::{Repeat, SimDisk, Verb, When};
use caskfile::{
    Batch, Cask, Config, Damage, Durability, Error, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_BUCKET_LEN,
    MAX_EXPIRING_VALUE_LEN, MAX_VALUE_LEN, verify_on,
};

/// How many sequence numbers a block has.
const BLOCK: u64 = 1 << 20;

#[test]
fn the_tables_of_the_page_are_what_the_reader_goes_by() {
    for (heading, layout, len) in [
        ("The file header", FILE_HEADER, FILE_HEADER_LEN),
        ("Records", RECORD_HEADER, RECORD_HEADER_LEN),
        ("Deadlines", EXPIRY, EXPIRY_LEN),
        ("Sessions", SESSION_VALUE, SESSION_LEN),
        ("Roots", SLOT, SLOT_LEN),
        ("Snapshots", snapshot::HEAD, snapshot::HEAD_LEN),
        ("Snapshots", snapshot::ENTRY, snapshot::ENTRY_LEN),
        ("Snapshots", snapshot::ORDER_ENTRY, snapshot::ORDER_ENTRY_LEN),
        ("Snapshots", snapshot::LEAF, snapshot::LEAF_LEN),
    ] {
        let head = match layout {
            EXPIRY => "| at, in an expiry |",
            SESSION_VALUE => "| at, in a session |",
            snapshot::ENTRY => "| at, in an entry |",
            snapshot::ORDER_ENTRY => "| at, in an entry of the order |",
            snapshot::LEAF => "| at, in a leaf's entry |",
            _ => "| at | size |",
        };
        let rows = page::table(heading, head);
        let fields = layout.iter().map(|&(name, at, size)| vec![at.to_string(), size.to_string(), name.to_owned()]);
        let stated = rows.into_iter().map(|row| row[..3].to_vec());
        assert_eq!(stated.collect::<Vec<_>>(), fields.collect::<Vec<_>>(), "{heading}");
        let ends = layout.iter().fold(0, |end, &(name, at, size)| {
            assert_eq!(at, end, "a gap before {name}");
            at + size
        });
        assert_eq!(ends, len, "{heading}");
    }
    let named =
        |head: &str| page::table("Records", head).into_iter().map(|row| (page::number(&row[0]), row[1].clone()));
    let flags = [(SYNCED, "SYNCED"), (MORE, "MORE")].map(|(flag, name)| (flag, name.to_owned()));
    assert_eq!(named("| flag |").collect::<Vec<_>>(), flags);
    let kinds = [
        (PUT, "put"),
        (DELETE, "delete"),
        (PUT_WITH, "put-with"),
        (SESSION, "session"),
        (PUT_OWNED, "put-owned"),
        (MARK, "mark"),
        (SYNCED_TO, "SYNCED_TO"),
        (MOVED, "MOVED"),
        (ROOTS, "ROOTS"),
        (IMAGE, "IMAGE"),
        (SNAPSHOT, "SNAPSHOT"),
    ];
    assert_eq!(named("| kind |").collect::<Vec<_>>(), kinds.map(|(kind, name)| (kind, name.to_owned())));
    assert_eq!(layout::crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn the_limits_of_the_page_are_those_of_reader_and_library() {
    let stated: Vec<u64> = page::table("Limits", "| limit |").into_iter().map(|row| page::number(&row[1])).collect();
    let limits = [
        MAX_BUCKET_LEN as u64,
        u64::from(u16::MAX),
        caskfile::max_key_len(0) as u64,
        MAX_VALUE_LEN as u64,
        MAX_EXPIRING_VALUE_LEN as u64,
        1,
        MAX_SEQ,
        MAX_SEQ_STEP,
        MAX_FILE_LEN,
        BLOCK,
        MAX_BATCH_OPS as u64,
        MAX_BATCH_BYTES,
    ];
    assert_eq!(stated, limits);
    assert_eq!(layout::MAX_VALUE_LEN, MAX_VALUE_LEN as u64);
    assert_eq!((layout::MAJOR, 0), (u64::from(caskfile::MAJOR_VERSION), caskfile::MINOR_VERSION));
}

#[test]
fn the_checks_of_the_page_have_the_numbers_of_its_other_tables() {
    let limits = page::table("Limits", "| limit |");
    let limit = |name| limits.iter().find(|row| row[0] == name).map(|row| row[1].as_str()).expect("a row of the table");
    let (value, end) = (limit("value"), limit("end of a record, at most at"));
    let (step, highest) = (limit("sequence number above what it follows, at most"), limit("sequence number, highest"));
    let heading = "What a reader checks, in this order";
    let checks = [page::table(heading, "| | check |"), page::table(heading, "| | check, in this order |")].concat();
    for (check, number) in [
        ("H2", FILE_HEADER_LEN.to_string().as_str()),
        ("H5", caskfile::MAJOR_VERSION.to_string().as_str()),
        ("H6", highest),
        ("W2", RECORD_HEADER_LEN.to_string().as_str()),
        ("W4", value),
        ("W5", end),
        ("W5", format!("*o* + {RECORD_HEADER_LEN}").as_str()),
        ("W6", step),
        ("W6", highest),
        ("W7", format!("{PUT}, {DELETE}, {PUT_WITH}, {SESSION}, {PUT_OWNED}, or {MARK:#x} and up").as_str()),
    ] {
        let row = checks.iter().find(|row| row[0] == check).unwrap_or_else(|| panic!("the page has no {check}"));
        assert!(row[1].contains(number), "{check} does not say {number}: {}", row[1]);
    }
    assert!(page::says(&format!("({:#x} is the next; {:#x} if", MOVED + 1, SNAPSHOT + 1)));
    assert!(page::says(&format!("offset {ROOTS_END} in a file with `ROOTS`, {FILE_HEADER_LEN} in any other")));
    assert!(page::says(&format!("at the offsets {} and {}", SLOTS[0], SLOTS[1])));
    assert!(page::says(&format!("kinds from {LOOSE:#x} to 0xff are **loose**")));
    assert!(page::says(&format!("The log ends where {END_MARK_LEN} zero bytes stand")));
}

#[test]
fn the_worked_example_holds_what_the_page_says() {
    let (file, lines) = page::dump();
    assert!(page::says(&format!("These {} bytes are", file.len())));
    let ours = read(&file);
    assert_eq!(ours, library::verdict(&file));
    let Verdict::Store(contents) = ours else { panic!("{ours:?}") };
    assert_eq!(contents.pairs.into_iter().collect::<Vec<_>>(), page::dump_holds());
    assert_eq!((contents.end as usize + END_MARK_LEN, contents.torn), (file.len(), 0));
    // Where a comment begins with the name of a field, this field stands there.
    let mut named = 0;
    for (at, comment) in lines {
        let name = comment.split([' ', ',']).next().unwrap_or_default().trim_end_matches(':');
        let headers = [
            (FILE_HEADER, 0),
            (RECORD_HEADER, FILE_HEADER_LEN),
            (SLOT, SLOTS[0]),
            (SLOT, SLOTS[1]),
            (RECORD_HEADER, ROOTS_END),
        ];
        let (layout, base) = headers.into_iter().rfind(|header| header.1 <= at).expect("the first is at 0");
        let places = layout.iter().filter(|field| field.0 == name).map(|field| field.1);
        let places: Vec<usize> = places.collect();
        if at < ROOTS_END + RECORD_HEADER_LEN && !places.is_empty() {
            assert!(places.contains(&(at - base)), "{at:#x} {comment}");
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} fields are named");
}

#[test]
fn the_worked_example_follows_from_the_numbers_of_the_page() {
    let first = record(0, MARK, BLOCK, b"", b"");
    let file = FileBytes::with_roots(0, [(1, 0x170), (0, 0)])
        .push(first)
        .push(record(SYNCED, PUT, BLOCK + 1, b"\0a", b"1"))
        .push(record(SYNCED, DELETE, BLOCK + 2, b"\0a", b""))
        .push(record(SYNCED | MORE, PUT, BLOCK + 3, b"\0b", b"22"))
        .push(record(0, PUT, BLOCK + 4, b"\x01xc", b"333"))
        .push(record(SYNCED, MARK, BLOCK + 5, b"", b""))
        .end();
    assert_eq!(file, page::dump().0);
}

#[test]
fn the_library_writes_the_worked_example_byte_for_byte() {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(library::SameEveryTime(disk.clone())), PATH, &Config::new()).unwrap();
    cask.put("a", "1").unwrap();
    cask.delete("a").unwrap();
    cask.write(Batch::new().put("b", "22").bucket("x").put("c", "333")).unwrap();
    cask.close().unwrap();
    assert_eq!(disk.contents(PATH).unwrap(), page::dump().0);
}

#[test]
fn the_page_shows_a_deadline_as_a_file_has_it() {
    let (start, bytes) = page::dump_of("PUT-WITH");
    let file = std::fs::read("tests/golden/put-with.cask").unwrap();
    assert_eq!(file[start..start + bytes.len()], bytes);
    let records = records(&file);
    let record = records.iter().find(|record| record.offset == start).expect("a record begins there");
    assert_eq!(record.next, start + bytes.len(), "the dump is that of the whole record");
    assert_eq!((record.kind, record.key), (PUT_WITH, &b"\0e"[..]));
    assert_eq!(record.split_value(), Some((YEAR_2100, &b"5"[..])));
}

#[test]
fn the_page_shows_a_session_and_its_lock_as_a_file_has_them() {
    let (start, bytes) = page::dump_of("SESSION");
    let file = std::fs::read("tests/golden/session.cask").unwrap();
    assert_eq!(file[start..start + bytes.len()], bytes);
    let records = records(&file);
    let first = records.iter().position(|record| record.offset == start).expect("a record begins there");
    let (begins, lock) = (&records[first], &records[first + 1]);
    assert_eq!(lock.next, start + bytes.len(), "the dump is that of both records");
    assert_eq!((begins.kind, begins.value.len()), (SESSION, SESSION_LEN));
    assert_eq!(layout::number(SESSION_VALUE, "session", begins.value), begins.seq);
    assert_eq!(layout::number(SESSION_VALUE, "ttl", begins.value), 20_000);
    assert_eq!((lock.kind, lock.key), (PUT_OWNED, &b"\0l"[..]));
    assert_eq!(lock.value, with_owner(0, begins.seq, lock.seq, b"7"));
}

/// 2100-01-01 00:00 UTC in milliseconds since 1970: 130 years, 32 of them leap years.
const YEAR_2100: u64 = (130 * 365 + 32) * 24 * 60 * 60 * 1000;

#[test]
fn every_rule_of_the_page_has_an_example_on_which_reader_and_library_agree() {
    let mut wrong = String::new();
    for case in cases::all() {
        let (ours, theirs) = (read(&case.file), library::verdict(&case.file));
        if summary(&ours) != case.verdict || ours != theirs {
            wrong += &format!("{}:\n  page {}\n  reader {ours:?}\n  library {theirs:?}\n", case.name, case.verdict);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Small files with every kind of record: as a close leaves one, and as a crash does.
fn specimens() -> [Vec<u8>; 2] {
    let log = FileBytes::new(4)
        .push(record(0, PUT, 2, b"\0older", b"than the file"))
        .push(record(SYNCED, MARK, 5, b"", b""))
        .push(record(SYNCED | MORE, PUT, 6, b"\x01bk", b"1"))
        .push(record(MORE, 0x95, 7, b"later", b"kind"))
        .push(record(0, DELETE, 8, b"\0older", b""))
        .push(record(SYNCED, PUT, 9, b"\0k", b"22"))
        .push(record(0, PUT_WITH, 10, b"\0w", &with_deadline(NOW + 1, b"4")))
        .push(record(0, SESSION, 11, b"", &session(11, 5)))
        .push(record(0, PUT_OWNED, 12, b"\0x", &with_owner(0, 11, 12, b"5")))
        .push(record(0, MOVED, 13, b"", b""));
    let stated = log.len() as u64 - 8;
    let log = log.push(record(0, SYNCED_TO, 14, b"", &stated.to_le_bytes())).push(record(0, PUT, 15, b"\0l", b""));
    let torn = log.clone().push(record(MORE, PUT, 16, b"\0m", b"3")).push(record(0, PUT, 17, b"\0n", b"4"));
    [log.push(record(SYNCED, MARK, 16, b"", b"")).end(), torn.raw(&[0; 30]).0]
}

fn agree(file: &[u8], story: impl FnOnce() -> String) -> Verdict {
    let ours = read(file);
    let theirs = library::verdict(file);
    assert_eq!(ours, theirs, "{}: the page's reader (left) and the library (right)", story());
    ours
}

#[test]
fn reader_and_library_agree_on_every_truncation() {
    let closing_mark_end = records(&specimens()[0])[1].next;
    for (n, file) in specimens().iter().enumerate() {
        for len in 0..=file.len() {
            let verdict = agree(&file[..len], || format!("specimen {n} cut to {len} bytes"));
            let opens = len >= closing_mark_end;
            assert_eq!(matches!(verdict, Verdict::Store(_)), opens, "specimen {n} cut to {len} bytes: {verdict:?}");
            assert_eq!(matches!(verdict, Verdict::Truncated { .. }), !opens && len >= FILE_HEADER_LEN, "{len} bytes");
        }
    }
}

#[test]
fn reader_and_library_agree_on_every_flipped_bit() {
    for (n, file) in specimens().iter().enumerate() {
        let Verdict::Store(whole) = read(file) else { panic!("specimen {n} is sound") };
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let verdict = agree(&damaged, || format!("specimen {n}, bit {} of byte {}", bit % 8, bit / 8));
            if let Verdict::Store(contents) = verdict {
                assert!(contents.end >= whole.proven, "bit {bit}: damage to what was proven was taken for a torn tail");
            }
        }
    }
}

/// The records of a sound file.
pub fn records(file: &[u8]) -> Vec<Record<'_>> {
    let Verdict::Store(contents) = read(file) else { panic!("the file is sound") };
    let (reader, mut records, mut at, mut previous) = (Reader::new(file), Vec::new(), log_start(file), 0);
    while (at as u64) < contents.end {
        let Ok(record) = reader.record(at, previous) else { panic!("the reader has read it before") };
        (at, previous) = (record.next, record.seq);
        records.push(record);
    }
    records
}

/// What the page says of files that writers leave, beyond what a reader checks.
fn expect_orderly(file: &[u8]) {
    let base_seq = layout::number(FILE_HEADER, "base_seq", file);
    let (mut block, mut batch) = (base_seq / BLOCK, false);
    let records = records(file);
    for record in &records {
        let end = record.offset + RECORD_HEADER_LEN + record.key.len() + record.value.len();
        assert!(file[end..record.next].iter().all(|&byte| byte == 0), "padding at {end}");
        assert!(!(batch && record.flags & SYNCED != 0), "SYNCED in a batch at {}", record.offset);
        batch = record.flags & MORE != 0;
        if record.kind >= MARK {
            assert!(record.key.is_empty(), "ancillary records have no key");
            assert!(record.value.len() == if record.kind == SYNCED_TO { 8 } else { 0 }, "at {}", record.offset);
        }
        if record.kind == SYNCED_TO {
            assert_eq!(record.flags, 0);
            let stated = u64::from_le_bytes(record.value.try_into().unwrap()) as usize;
            let boundary = records.iter().any(|other| other.offset == stated || other.next == stated);
            assert!(boundary && stated <= record.offset, "a place that no sync can have ended at: {stated}");
        }
        if record.seq / BLOCK > block {
            assert_eq!(record.kind, MARK, "a block begins with a mark that was synced");
            block = record.seq / BLOCK;
        }
    }
    assert!(file[records.last().map_or(log_start(file), |last| last.next)..].iter().all(|&byte| byte == 0));
    assert!(!batch);
}

fn open(disk: &SimDisk, durability: Durability) -> Cask {
    Cask::open_on(Arc::new(disk.process()), PATH, &Config::new().durability(durability)).unwrap()
}

#[test]
fn what_alternating_writers_leave_is_read_alike_at_every_moment() {
    let disk = SimDisk::new();
    let writers = [Durability::Sync, Durability::Sync, Durability::Os].map(|durability| open(&disk, durability));
    for n in 0..60usize {
        let cask = writers[n * 7 % 3].bucket(["", "bucket"][n % 2]).unwrap();
        let (key, value) = (format!("key {}", n % 13), vec![n as u8; n * 5 % 70]);
        match n % 5 {
            3 => cask.delete(&key).unwrap(),
            4 => {
                let mut batch = Batch::new();
                batch.put(&key, &value).bucket("other").put(&key, "x").delete("key 1");
                assert!(cask.write(&batch).unwrap().last_index().is_some());
            }
            _ => cask.put(&key, &value).map(drop).unwrap(),
        }
        let file = disk.contents(PATH).unwrap();
        let Verdict::Store(ours) = read(&file) else { panic!("{:?}", read(&file)) };
        assert_eq!(*ours, library::contents(&cask), "after step {n}");
        assert!(file.len() > ours.end as usize + END_MARK_LEN, "the file reaches ahead of its log");
        expect_orderly(&file);
    }
    let file = disk.contents(PATH).unwrap();
    agree(&file, || "the file as it lies".to_owned());
    assert!(records(&file).iter().any(|record| record.kind == SYNCED_TO), "alternating writers state what they synced");
    assert!(writers.iter().all(|cask| cask.close().is_ok()));
    let file = disk.contents(PATH).unwrap();
    agree(&file, || "the file when all have closed it".to_owned());
    expect_orderly(&file);
    let records = records(&file);
    let last = records.last().unwrap();
    assert_eq!((last.kind, last.flags, last.next + END_MARK_LEN), (MARK, SYNCED, file.len()));
}

#[test]
fn compaction_goes_the_steps_of_the_page_and_leaves_the_file_of_the_page() {
    let disk = SimDisk::new();
    let cask = open(&disk, Durability::Sync);
    for n in 0..20 {
        cask.put(format!("key {}", n % 7), format!("value {n}")).unwrap();
    }
    cask.bucket("b").unwrap().put("key", "in a bucket").unwrap();
    cask.delete("key 3").unwrap();

    // At each call that matters to the page: its name, and what the path names then.
    let steps = Arc::new(Mutex::new(Vec::new()));
    for (verb, name) in [
        (Verb::CreateNew, "create"),
        (Verb::SyncAll, "fsync"),
        (Verb::WriteAt, "write"),
        (Verb::Rename, "rename"),
        (Verb::SyncDir, "sync the directory"),
        (Verb::Unlock, "unlock"),
    ] {
        let steps = Arc::clone(&steps);
        disk.before(When::nth(1).of(verb), Repeat::Forever, move |disk| {
            steps.lock().unwrap().push((name, disk.contents(PATH).unwrap()));
        });
    }
    let before = disk.contents(PATH).unwrap();
    cask.compact().unwrap();
    disk.clear_hooks();
    let mut steps = std::mem::take(&mut *steps.lock().unwrap());
    let after = disk.contents(PATH).unwrap();
    steps.dedup_by_key(|(name, _)| *name);
    let names: Vec<_> = steps.iter().map(|(name, _)| *name).collect();
    let beside = ["create", "write", "unlock", "write", "fsync"];
    let in_its_place = ["write", "fsync", "write", "rename", "sync the directory", "unlock"];
    assert_eq!(names, [&beside[..], &in_its_place[..]].concat());

    let old = &steps.iter().find(|(name, _)| *name == "rename").unwrap().1;
    let old_records = records(old);
    let moved = old_records.last().unwrap();
    assert_eq!((moved.kind, moved.body_holds), (MOVED, true));
    assert_eq!(old[..moved.offset], before[..moved.offset], "the old file's records are as they were");

    agree(&after, || "the compacted file".to_owned());
    expect_orderly(&after);
    let base_seq = layout::number(FILE_HEADER, "base_seq", &after);
    assert!(base_seq >= moved.seq);
    let new_records = records(&after);
    let (mark, carried) = new_records.split_last().unwrap();
    assert_eq!((mark.kind, mark.flags, mark.seq), (MARK, SYNCED, base_seq + 1));
    assert_eq!(carried.len(), 7);
    let meaning = |file: &[u8], record: &Record<'_>| {
        let end = record.offset + RECORD_HEADER_LEN + record.key.len() + record.value.len();
        (file[record.offset + 4..record.offset + 8].to_vec(), file[record.offset + 9..end].to_vec())
    };
    for record in carried {
        assert_eq!((record.kind, record.flags), (PUT, 0));
        let origin = old_records.iter().find(|old| old.seq == record.seq).expect("carried over from the old file");
        assert_eq!(meaning(&after, record), meaning(old, origin), "all but flags and place is unchanged");
    }
    let (Verdict::Store(then), Verdict::Store(now)) = (read(old), read(&after)) else { panic!("both are sound") };
    assert_eq!(then.pairs, now.pairs);

    cask.put("key 3", "again").unwrap();
    let file = disk.contents(PATH).unwrap();
    assert!(records(&file).last().unwrap().seq > base_seq + 1);
    expect_orderly(&file);
}

#[test]
fn the_library_plays_the_scenes_for_writers_byte_for_byte() {
    let mut fragments = page::fragments().into_iter();
    for scene in writing::scenes() {
        if scene.start == ROOTS_END {
            // Handle A begins as the worked example does.
            assert_eq!(scene.bytes, page::dump().0[ROOTS_END..0x110]);
            continue;
        }
        let (start, bytes) = fragments.next().expect("a dump for each scene");
        assert_eq!((start, bytes.len()), (scene.start, scene.bytes.len()));
        assert_eq!(bytes, scene.bytes, "the scene at {start:#x}");
    }
    assert_eq!(fragments.next(), None, "a dump that no scene plays");
}

/// The list of damaged ranges of a file.
fn damaged_ranges(file: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    let disk = SimDisk::new();
    disk.set_contents(PATH, file.to_vec());
    match verify_on(&disk, Path::new(PATH)) {
        Err(Error::Damaged { report, .. }) => {
            Ok(report.losses.iter().filter(|loss| !loss.torn).map(|loss| (loss.start, loss.end)).collect())
        }
        Ok(_) => Ok(Vec::new()),
        Err(other) => Err(other),
    }
}

#[test]
fn the_damaged_file_of_the_page_goes_through_its_steps() {
    let file = std::fs::read("tests/golden/damaged-twice.cask").unwrap();
    assert!(page::says(&format!("`tests/golden/damaged-twice.cask` has {} bytes", file.len())));
    let rows = page::table("One damaged file, step by step", "| offset |");
    let mut walked = records(&file[..152]).into_iter();
    for row in rows.iter().take_while(|row| page::number(&row[0]) < 152) {
        let record = walked.next().expect("a record for each row");
        assert_eq!((page::number(&row[0]), page::number(&row[3])), (record.offset as u64, record.seq));
    }
    assert!(walked.next().is_none());
    assert_eq!(read(&file), Verdict::Corrupt { offset: 152 });
    let Verdict::Store(before) = read(&file[..152]) else { panic!("the walk reads that far") };
    let data_end = file.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    assert!(page::says(&format!("*data end* = {data_end}, *proven* = {}", before.proven)));
    assert_eq!(before.last_index, BLOCK + 2);
    assert_eq!(damaged_ranges(&file).unwrap(), [(152, 184), (216, 248)]);
    let Verdict::Store(torn) = library::verdict(&file[..file.len() - 32]) else { panic!("nothing proves the damage") };
    assert_eq!((torn.end, torn.pairs.len(), torn.kept), (152, 2, true));
}

/// Two synced puts, then a third that is damaged.
fn two_and_a_broken_one() -> FileBytes {
    FileBytes::new(0)
        .push(record(0, MARK, BLOCK, b"", b""))
        .push(record(SYNCED, PUT, BLOCK + 1, b"\0a", b"1"))
        .push(record(SYNCED, PUT, BLOCK + 2, b"\0b", b"2"))
        .push(Fields { body_crc_xor: 1, ..record(0, PUT, BLOCK + 3, b"\0c", b"3") })
}

/// What the page says of the list of damaged ranges where two readers could differ.
#[test]
fn the_list_of_damaged_ranges_is_that_of_the_page() {
    let proof = record(SYNCED, MARK, BLOCK + 9, b"", b"");
    let (e, end) = (152, 184);
    // A missing end mark ends the list as an end mark does.
    assert_eq!(damaged_ranges(&two_and_a_broken_one().push(proof).0).unwrap(), [(e, end)]);
    // A later ancillary kind is no witness, so it is part of the range.
    let later = record(0, 0x90, BLOCK + 4, b"", b"");
    assert_eq!(damaged_ranges(&two_and_a_broken_one().push(later).push(proof).end()).unwrap(), [(e, end + 24)]);
    // A kind that must not be skipped is passed over by the search, and ends the walk.
    let refused = record(0, 3, BLOCK + 4, b"", b"");
    assert_eq!(damaged_ranges(&two_and_a_broken_one().push(refused).push(proof).end()).unwrap(), [(e, end + 24)]);
    let refused = record(0, 3, BLOCK + 10, b"", b"");
    let file = two_and_a_broken_one().push(proof).push(refused).end();
    assert_eq!(read(&file), Verdict::Corrupt { offset: e });
    assert!(matches!(damaged_ranges(&file), Err(Error::UnsupportedRecord { offset: 208, .. })));
}

#[test]
fn a_damaged_file_header_is_a_range_of_its_own() {
    let mut file = two_and_a_broken_one().push(record(SYNCED, MARK, BLOCK + 9, b"", b"")).end();
    file[20] ^= 1;
    assert_eq!(read(&file), Verdict::Corrupt { offset: 0 });
    assert_eq!(damaged_ranges(&file).unwrap(), [(0, 64), (152, 184)]);
    // One record alone does not tell which file this is.
    let mut file = FileBytes::new(0).push(record(0, MARK, BLOCK, b"", b"")).end();
    file[20] ^= 1;
    assert!(matches!(damaged_ranges(&file), Err(Error::Corrupt { offset: 0, .. })));
}

#[test]
fn an_end_mark_with_data_after_it_fails_the_first_check_of_the_walk() {
    let file = FileBytes::new(0).raw(&[0; 8]).push(record(SYNCED, MARK, BLOCK, b"", b"")).end();
    let disk = SimDisk::new();
    disk.set_contents(PATH, file);
    let opened = Cask::open_on(Arc::new(disk), PATH, &Config::new().read_only(true));
    assert!(matches!(opened, Err(Error::Corrupt { offset: 64, damage: Damage::Zeros, .. })));
}

/// The closing mark of a copy counts only before the log's end: a record after a torn place does not replace it.
#[test]
fn a_closing_mark_that_is_torn_is_missing() {
    let base = BLOCK * 7;
    let put = record(0, PUT, 3, b"\0k", b"v");
    let whole = FileBytes::new(base).push(put).push(record(SYNCED, MARK, base + 1, b"", b""));
    let unfinished = FileBytes::new(base).push(put).push(record(MORE, MARK, base + 1, b"", b"")).end();
    // The next writer was killed after its mark, and a bit of the closing mark flips.
    let mut flipped = whole.clone().push(record(0, MARK, base + BLOCK, b"", b"")).end();
    let closing_mark = FileBytes::new(base).push(put).len();
    flipped[closing_mark + 5] ^= 1;
    for (name, file, cut_off) in
        [("whole", whole.end(), false), ("unfinished", unfinished, true), ("flipped", flipped, true)]
    {
        let disk = SimDisk::new();
        disk.set_contents(PATH, file);
        let report = match verify_on(&disk, Path::new(PATH)) {
            Ok(report) => report,
            Err(Error::Damaged { report, .. }) => (*report).clone(),
            Err(other) => panic!("{name}: {other}"),
        };
        assert_eq!((report.cut_off, report.is_sound()), (cut_off, !cut_off), "{name}: {report}");
    }
}
