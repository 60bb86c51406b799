//! Walks over whole, torn, damaged and changing logs.

use super::super::run::RUN_LEN;
use super::super::testing::{Draft, MARK, MORE, PATH, PLAIN, SYNCED, open, open_on};
use super::super::window::{LARGEST_WINDOW, USUAL_WINDOW};
use super::*;
use crate::disk::sim::{Repeat, SimDisk, Verb, When};
use crate::format::MAX_OWNER;

/// The offsets of all units' records, and the walk's stop.
fn walk(log: &LogFile) -> (Vec<Vec<u64>>, Stop) {
    let (mut units, mut unit) = (Vec::new(), Run::default());
    let mut scanner = Scanner::from_start(log).unwrap();
    loop {
        match scanner.step(&mut unit).unwrap() {
            Step::Unit => units.push(unit.entries.iter().map(|entry| entry.offset).collect()),
            Step::Stopped(stop) => return (units, stop),
        }
    }
}

#[test]
fn an_empty_log_ends_behind_its_header() {
    let (units, stop) = walk(&Draft::new().finish());
    assert!(units.is_empty());
    assert_eq!(stop, Stop { unit: 64, at: 64, previous_seq: 0, reason: Reason::EndMark });
}

#[test]
fn a_batch_counts_with_its_last_record_only() {
    let mut draft = Draft::new();
    let single = draft.put(PLAIN, "single");
    let batch = [draft.put(MORE, "a"), draft.put(MORE, "b"), draft.put(PLAIN, "c")];
    let torn = draft.put(MORE, "d");
    let end = draft.end();
    let (units, stop) = walk(&draft.finish());
    assert_eq!(units, [vec![single], batch.to_vec()]);
    let reason = Reason::Damaged(Damage::BrokenBatch);
    assert_eq!(stop, Stop { unit: torn, at: end, previous_seq: 4, reason });
}

#[test]
fn a_walk_passes_on_all_whole_units_before_it_stops() {
    for whole in [0, 1, RUN_LEN - 1, RUN_LEN, RUN_LEN + 1, 3 * RUN_LEN + 5] {
        for (torn, unsupported) in [(0, false), (1, false), (RUN_LEN + 3, false), (2, true)] {
            let mut draft = Draft::new();
            let expected: Vec<u64> = (0..whole).map(|nth| draft.put(PLAIN, &format!("key-{nth}"))).collect();
            for nth in 0..torn {
                draft.put(MORE, &format!("torn-{nth}"));
            }
            if unsupported {
                // An unknown kind below 0x80 must not be skipped.
                draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(3)), b"", b"");
            }
            let log = draft.finish();
            let mut handed = Vec::new();
            let walked = Scanner::from_start(&log).unwrap().walk(|run| {
                assert!(run.entries.len() <= RUN_LEN);
                for entry in &run.entries {
                    assert_eq!(run.key(entry), format!("\0key-{}", handed.len()).as_bytes());
                    handed.push(entry.offset);
                }
                Ok(())
            });
            assert_eq!(handed, expected, "{whole} {torn}");
            assert_eq!(walked.is_err(), unsupported);
        }
    }
}

#[test]
fn a_batch_that_meets_a_new_group_is_broken() {
    let mut draft = Draft::new();
    let torn = draft.put(MORE, "a");
    let next = draft.put(SYNCED, "b");
    let (units, stop) = walk(&draft.finish());
    assert!(units.is_empty());
    assert_eq!((stop.unit, stop.at, stop.reason), (torn, next, Reason::Damaged(Damage::BrokenBatch)));
}

#[test]
fn bodies_longer_than_the_window_are_checked_to_their_last_byte() {
    let value = vec![7; 3 * LARGEST_WINDOW + 5];
    let mut draft = Draft::new();
    let long = draft.push(PLAIN, Kind::Put, b"\0long", &value);
    let after = draft.put(PLAIN, "after");
    let bytes = draft.bytes.clone();
    assert_eq!(walk(&draft.finish()).0, [vec![long], vec![after]]);
    for changed in [long as usize + 24 + 5, long as usize + 24 + 5 + value.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[changed] ^= 1;
        let (units, stop) = walk(&open(bytes));
        assert!(units.is_empty());
        assert!(matches!(stop, Stop { at, reason: Reason::Damaged(Damage::Body { .. }), .. } if at == long));
    }
    let (_, stop) = walk(&open(bytes[..bytes.len() - 100_000].to_vec()));
    assert!(matches!(stop, Stop { at, reason: Reason::Damaged(Damage::BeyondFile { .. }), .. } if at == long));
    let mut draft = Draft::new();
    let without_a_key = draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(0x9e)), b"", &value);
    assert_eq!(walk(&draft.finish()).0, [vec![without_a_key]]);
}

#[test]
fn the_log_may_end_after_each_unit_only() {
    let mut unit = Run::default();
    let mut draft = Draft::new();
    let mut ends = Vec::new();
    for (flags, key) in [(MORE, "a"), (MORE, "bb"), (PLAIN, "ccc"), (PLAIN, "dddd"), (MORE, "e"), (PLAIN, "f")] {
        let offset = draft.put(flags, key);
        let header = Scanner::resume(&draft.copy(), offset, 0).unwrap().judge().unwrap().unwrap();
        unit.push(offset, header, None, key.as_bytes(), b"");
        if !flags.more {
            ends.push(draft.end());
        }
    }
    assert_eq!(unit.ends().map(|end| end.offset).collect::<Vec<_>>(), ends);
    assert_eq!(unit.entries.iter().map(|entry| unit.key(entry)).collect::<Vec<_>>().concat(), b"abbcccddddef");
}

#[test]
fn a_replaced_batch_is_read_as_one_or_the_other() {
    // Batches that lie in a window as a whole, and some whose records are read one by one.
    for (value_len, records) in [(5, 3), (9_000, 3), (9_000, 2)] {
        let value = vec![b'v'; value_len];
        let batch_of = |keys: [&str; 3]| {
            let mut draft = Draft::new();
            for (flags, key) in [MORE, MORE, PLAIN][3 - records..].iter().zip(&keys[..records]) {
                draft.push(*flags, Kind::Put, key.as_bytes(), &value);
            }
            [&draft.bytes[..], &[0; 8]].concat()
        };
        let (old, new) = (batch_of(["\0a", "\0b", "\0c"]), batch_of(["\0x", "\0y", "\0z"]));
        let mut seen = Vec::new();
        for nth in 1..20 {
            let disk = SimDisk::new();
            let log = open_on(&disk, old.clone());
            let new = new.clone();
            let replace = move |disk: &SimDisk| disk.set_contents(PATH, new.clone());
            disk.before(When::nth(nth).of(Verb::ReadAt), Repeat::Once, replace);
            let mut keys = Vec::new();
            let stop = Scanner::from_start(&log).unwrap().walk(|unit| {
                keys.extend(unit.entries.iter().flat_map(|entry| unit.key(entry).to_vec()));
                Ok(())
            });
            // A header of one batch and a body of the other are damage. A reader without the lock reads again.
            let damaged = matches!(stop.unwrap().reason, Reason::Damaged(Damage::Body { .. }));
            let whole = keys == b"\0a\0b\0c"[..2 * records] || keys == b"\0x\0y\0z"[..2 * records];
            assert!(if damaged { keys.is_empty() } else { whole }, "{}", keys.escape_ascii());
            seen.extend(keys.get(1));
        }
        assert!(seen.contains(&b'a') && seen.contains(&b'x'));
    }
}

#[test]
fn a_record_cut_off_while_it_is_read_is_damage() {
    // In the value, in the key, and in a value longer than the window.
    let one_and_a_half = LARGEST_WINDOW + LARGEST_WINDOW / 2;
    for (value_len, read, left) in [(9_000, 2, 5_000), (9_000, 2, 90), (3 * LARGEST_WINDOW, 3, one_and_a_half)] {
        let mut draft = Draft::new();
        let offset = draft.push(PLAIN, Kind::Put, b"\0key", &vec![7; value_len]);
        let disk = SimDisk::new();
        let log = open_on(&disk, draft.bytes.clone());
        let less = draft.bytes[..left].to_vec();
        let cut = move |disk: &SimDisk| disk.set_contents(PATH, less.clone());
        disk.before(When::nth(read).of(Verb::ReadAt), Repeat::Once, cut);
        let (units, stop) = walk(&log);
        assert!(units.is_empty());
        let end = offset + (RECORD_HEADER_LEN + 4 + value_len) as u64;
        assert_eq!(stop.reason, Reason::Damaged(Damage::BeyondFile { end, file_len: left as u64 }));
    }
}

#[test]
fn a_walk_reads_everything_once_in_pieces_that_grow() {
    let mut draft = Draft::new();
    draft.put(PLAIN, "a");
    // 32 bytes, without padding: the record ends at the window's end.
    draft.put(PLAIN, "bc");
    let disk = SimDisk::new();
    let log = open_on(&disk, draft.bytes.clone());
    let before = disk.bytes_read();
    walk(&log);
    assert_eq!(disk.bytes_read() - before, draft.end() - log.start());

    while draft.end() < 3 * USUAL_WINDOW as u64 {
        draft.push(PLAIN, Kind::Put, b"\0key", &[1; 1000]);
    }
    let log = open_on(&disk, draft.bytes.clone());
    let (bytes, calls) = (disk.bytes_read(), disk.calls_of(Verb::ReadAt));
    walk(&log);
    // Five windows of 4 KiB to 64 KiB, another one and a rest, and a look beyond the end. The first record of each is read again.
    assert!(disk.calls_of(Verb::ReadAt) - calls < 11);
    assert!(disk.bytes_read() - bytes < draft.end() + 11 * 1024);
}

#[test]
fn of_a_batch_only_the_first_header_is_read_twice() {
    let mut draft = Draft::new();
    for _ in 0..200 {
        for flags in [MORE, MORE, PLAIN] {
            draft.push(flags, Kind::Put, b"\0key", &[1; 1000]);
        }
    }
    let disk = SimDisk::new();
    let log = open_on(&disk, draft.bytes.clone());
    let before = disk.bytes_read();
    assert_eq!(walk(&log).0.len(), 200);
    let again = disk.bytes_read() - before - (draft.end() - log.start());
    // And the parts of records at the ends of windows.
    assert!(again < 200 * RECORD_HEADER_LEN as u64 + 16 * 1024, "{again} bytes");
}

#[test]
fn a_file_without_room_for_the_end_mark_lacks_it() {
    let mut draft = Draft::new();
    draft.put(PLAIN, "a");
    let end = draft.end();
    for count in 0..8 {
        for byte in [0, 0xff] {
            let mut bytes = draft.bytes.clone();
            bytes.resize(bytes.len() + count, byte);
            let (_, stop) = walk(&open(bytes));
            assert_eq!((stop.unit, stop.reason), (end, Reason::EndOfFile), "{count} times {byte}");
        }
    }
}

#[test]
fn a_body_must_have_the_form_that_its_kind_demands() {
    // The largest numbers that the first record may have, but for the session of a pair.
    let session =
        SessionRecord { session: 1, owner: MAX_OWNER, nonce: 7, ttl: 1, deadline: 7, boot: [7; 16], base_seq: 0 };
    let without_ttl = SessionRecord { ttl: 0, ..session }.encode();
    let forms: [(Kind, &[u8], &[u8]); 14] = [
        (Kind::Put, b"", b"value"),
        (Kind::Put, b"\0", b"value"),
        (Kind::Put, b"\x05abc", b"value"),
        (Kind::Delete, b"\0key", b"value"),
        (Kind::PutWith, b"\0key", b""),
        (Kind::PutWith, b"\0key", &[7; 23]),
        (Kind::PutWith, b"\0", &[7; 24]),
        (Kind::Session, b"\0key", &session.encode()),
        (Kind::Session, b"", &session.encode()[..63]),
        (Kind::Session, b"", &without_ttl),
        (Kind::PutOwned, b"\0key", b""),
        (Kind::PutOwned, b"\0key", &[0; 24]),
        (Kind::Ancillary(Ancillary::SyncedTo), b"", b"short"),
        (Kind::Ancillary(Ancillary::SyncedTo), b"", &u64::MAX.to_le_bytes()),
    ];
    for (kind, key, value) in forms {
        let mut draft = Draft::new();
        draft.push(PLAIN, kind, key, value);
        let (units, stop) = walk(&draft.finish());
        assert!(units.is_empty());
        assert_eq!((stop.at, stop.reason), (64, Reason::Damaged(Damage::Form)), "{kind:?} {key:?} {value:?}");
    }
    let mut draft = Draft::new();
    draft.push(PLAIN, Kind::PutWith, b"\0key", &[7; 24]);
    assert_eq!(walk(&draft.finish()).0.len(), 1, "an expiry and no value");
    let mut draft = Draft::new();
    draft.push(PLAIN, Kind::Session, b"", &session.encode());
    draft.push(PLAIN, Kind::PutOwned, b"\0key", &[[0; 8], 1u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
    assert_eq!(walk(&draft.finish()).0.len(), 2, "a session and its lock");
}

#[test]
fn proofs_are_what_flags_and_statements_say() {
    let mut draft = Draft::new();
    draft.put(PLAIN, "a");
    let flagged = draft.push(SYNCED, MARK, b"", b"");
    let stated = draft.synced_to(64);
    let log = draft.finish();
    let mut proofs = Vec::new();
    let mut scanner = Scanner::from_start(&log).unwrap();
    let taken = scanner.walk(|unit| {
        proofs.extend(unit.entries.iter().map(|entry| (entry.offset, entry.proof)));
        Ok(())
    });
    assert!(taken.is_ok());
    assert_eq!(proofs, [(64, None), (flagged, Some(flagged)), (stated, Some(64))]);
}

#[test]
fn a_statement_with_the_flag_proves_its_own_place() {
    // The search took both for proof, the walk only the statement.
    let mut draft = Draft::new();
    let statement = draft.push(SYNCED, Kind::Ancillary(Ancillary::SyncedTo), b"", &0u64.to_le_bytes());
    let log = draft.finish();
    let mut proof = None;
    let mut scanner = Scanner::from_start(&log).unwrap();
    let walked = scanner.walk(|unit| {
        proof = unit.entries[0].proof;
        Ok(())
    });
    assert!(walked.is_ok());
    assert_eq!(proof, Some(statement));
}

#[test]
fn unknown_ancillary_kinds_are_passed_over() {
    let mut draft = Draft::new();
    let unknown = draft.push(PLAIN, Kind::Ancillary(Ancillary::Unknown(0x9e)), b"any", b"thing");
    let known = draft.put(PLAIN, "a");
    assert_eq!(walk(&draft.finish()).0, [vec![unknown], vec![known]]);
}
