//! How the files in tests/golden were made. Files that are there stay as they are: a change here affects new files only.

use std::sync::Arc;

use caskfile::disk::sim::{Fault, Repeat, SimDisk, Verb, When};
use caskfile::{Batch, Cask, Config, Durability, Limits, MAX_BUCKET_LEN, max_key_len};

use super::golden;
use crate::common::files::bytes::{Fields, FileBytes, record};
use crate::common::files::layout::{
    DELETE, FILE_HEADER_LEN, MARK, MAX_SEQ, MAX_SEQ_STEP, MAX_VALUE_LEN, MORE, MOVED, NOW, PUT, PUT_OWNED, PUT_WITH,
    ROOTS_END, SESSION, SESSION_VALUE, SYNCED, SYNCED_TO, session, set, with_deadline, with_owner,
};
use crate::common::files::library::{PATH, SameEveryTime};
use crate::common::files::page;
use crate::common::files::snapshot;

/// A file, its name and its story.
pub struct Golden {
    pub name: &'static str,
    pub story: &'static str,
    pub bytes: Vec<u8>,
}

fn file(name: &'static str, story: &'static str, bytes: Vec<u8>) -> Golden {
    Golden { name, story, bytes }
}

pub fn all() -> Vec<Golden> {
    let all = [by_the_library(), sound(), deadlines(), sessions(), torn(), damaged(), batches(), roots(), snapshots()];
    all.into_iter().chain([others(), older()]).flatten().collect()
}

/// The first sequence number that a writer hands out in a new store.
const BLOCK: u64 = 1 << 20;

/// `a` = `1` and `b` = `2`, each synced, as one handle leaves them that was killed.
fn two() -> FileBytes {
    FileBytes::new(0)
        .push(record(0, MARK, BLOCK, b"", b""))
        .push(record(SYNCED, PUT, BLOCK + 1, b"\0a", b"1"))
        .push(record(SYNCED, PUT, BLOCK + 2, b"\0b", b"2"))
}

const THIRD: Fields<'static> = record(0, PUT, BLOCK + 3, b"\0c", b"3");
const BROKEN: Fields<'static> = Fields { body_crc_xor: 1, ..THIRD };
const FOURTH: Fields<'static> = record(0, PUT, BLOCK + 4, b"\0d", b"4");
const PROOF: Fields<'static> = record(SYNCED, MARK, BLOCK + 9, b"", b"");

fn written(act: impl FnOnce(&SimDisk, &Cask)) -> Vec<u8> {
    let disk = SimDisk::new();
    let cask = Cask::open_on(Arc::new(SameEveryTime(disk.clone())), PATH, &Config::new()).expect("a new store");
    act(&disk, &cask);
    drop(cask);
    disk.contents(PATH).expect("it was created")
}

fn by_the_library() -> Vec<Golden> {
    let longest = vec![b'k'; max_key_len(0)];
    let (bucket, key) = (vec![b'b'; MAX_BUCKET_LEN], b"key");
    vec![
        file("empty", "A store that was created and closed.", written(|_, _| {})),
        file(
            "buckets",
            "The same key in three buckets, one of them without a name.",
            written(|_, cask| {
                for bucket in ["", "b", "aa"] {
                    cask.bucket(bucket).and_then(|cask| cask.put("key", format!("in {bucket:?}"))).expect("it is open");
                }
            }),
        ),
        file(
            "batch",
            "A batch over two buckets that sets a key twice and deletes another.",
            written(|_, cask| {
                cask.put("old", "1").expect("it is open");
                let mut batch = Batch::new();
                batch.put("new", "2").delete("old").bucket("log").put("0001", "moved").bucket("").put("new", "3");
                cask.write(&batch).expect("it is open");
            }),
        ),
        file(
            "compacted",
            "A store with replaced and deleted keys after compaction, closed.",
            written(|_, cask| {
                for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
                    cask.put(key, value).expect("it is open");
                }
                cask.delete("c").and_then(|()| cask.compact().map(drop)).expect("it is open");
            }),
        ),
        file("copy-cut-off", "A file that compaction made, cut in front of its closing mark.", {
            let mut file = written(|_, cask| {
                cask.put("a", "1").and_then(|_| cask.put("b", "2")).expect("it is open");
                cask.compact().expect("it is open");
            });
            file.truncate(FILE_HEADER_LEN + 2 * 32);
            file
        }),
        file(
            "compacted-and-written",
            "The same with a later write, not closed.",
            written(|disk, cask| {
                cask.put("a", "1").and_then(|_| cask.put("a", "2")).expect("it is open");
                cask.compact().and_then(|_| cask.put("b", "3")).expect("it is open");
                let mut file = disk.contents(PATH).expect("it is there");
                file.truncate(cask.stats().expect("it is open").log_end as usize + 64);
                // What closing would add or take away is not part of the story.
                disk.fail(When::next().of_any(&[Verb::WriteAt, Verb::SetLen]), Fault::Os(libc::EIO), Repeat::Forever);
                disk.set_contents(PATH, file);
            }),
        ),
        file(
            "alternating",
            "Two writers in turn: each states in SYNCED_TO how far it has synced the log.",
            written(|disk, one| {
                let other = Cask::open_on(Arc::new(disk.process()), PATH, &Config::new().durability(Durability::Os))
                    .expect("it is a store");
                for n in 0..3 {
                    one.put("one", n.to_string())
                        .and_then(|_| other.put("other", n.to_string()))
                        .expect("both are open");
                }
            }),
        ),
        file(
            "longest-key",
            "A key of 65,534 bytes.",
            written(|_, cask| cask.put(&longest, "value").map(drop).expect("as long as it may be")),
        ),
        file(
            "longest-bucket",
            "A bucket whose name has 255 bytes.",
            written(|_, cask| {
                cask.bucket(&bucket).and_then(|cask| cask.put(key, "value")).map(drop).expect("it may be so long")
            }),
        ),
    ]
}

fn sound() -> Vec<Golden> {
    let log_in_log = two().push(record(0, PUT, BLOCK + 3, b"\0copy", &two().push(PROOF).end())).end();
    vec![
        file("extended", "Space ahead of the log, as a killed writer leaves it.", two().raw(&[0; 200]).0),
        file("no-end-mark", "Cut right after the last record.", two().0),
        file("part-of-an-end-mark", "Cut inside the end mark.", two().raw(&[0; 5]).0),
        file("no-padding", "Cut right after the last value.", two().0[..two().len() - 5].to_vec()),
        file("any-bytes", "Keys and values that are not text, and an empty value.", {
            let log = two().push(record(0, PUT, BLOCK + 3, b"\0\xff\0\x80", b"\0\xff\xfe"));
            log.push(record(0, PUT, BLOCK + 4, b"\0empty", b"")).end()
        }),
        file("log-in-value", "A log stored as a value inside a log.", log_in_log),
        file(
            "future-ancillary",
            "An ancillary kind of a later version, with a key and a value.",
            two().push(record(0, 0x83, BLOCK + 3, b"what", b"ever")).push(FOURTH).end(),
        ),
        file(
            "future-minor",
            "A later minor version that uses the reserved bytes.",
            FileBytes::with_header(|header| (header[10], header[13], header[50]) = (7, 1, 2)).push(PUT_FIRST).end(),
        ),
        file(
            "mark-with-a-body",
            "Marks and MOVED have no body, but a reader takes any.",
            two().push(record(0, MARK, BLOCK + 3, b"key", b"value")).push(FOURTH).end(),
        ),
        file(
            "moved",
            "The last record is a MOVED, and the path names this file: the compaction was killed.",
            two().push(record(0, MOVED, BLOCK + 3, b"", b"")).end(),
        ),
        file(
            "highest-seq",
            "The highest sequence number, and the farthest step to it.",
            FileBytes::new(MAX_SEQ - MAX_SEQ_STEP).push(record(0, PUT, MAX_SEQ, b"\0k", b"last")).end(),
        ),
        file("checksum-of-zero", "A header whose checksum is 0, which is stored as 1.", {
            let log = FileBytes::new(0).push(PUT_FIRST).push(record(0, PUT, 2_031_696_485, b"\0l", b"2"));
            assert_eq!(log.0[96..100], [1, 0, 0, 0]);
            log.end()
        }),
        file(
            "synced-to-with-synced",
            "A SYNCED_TO with the flag, which proves its own offset. No writer makes one.",
            two().push(record(SYNCED, SYNCED_TO, BLOCK + 3, b"", &64u64.to_le_bytes())).push(FOURTH).end(),
        ),
    ]
}

const PUT_FIRST: Fields<'static> = record(0, PUT, 1, b"\0k", b"1");

/// 2100-01-01 00:00 UTC in milliseconds since 1970.
const YEAR_2100: u64 = 4_102_444_800_000;

/// Pairs with deadlines. The clock shows [`NOW`].
fn deadlines() -> Vec<Golden> {
    let (until, over) = (with_deadline(YEAR_2100, b"5"), with_deadline(NOW, b"6"));
    vec![
        file(
            "put-with",
            "Put-withs: e has a deadline, f is over, g has none, h lost its deadline by a put, and i had one and is deleted.",
            two()
                .push(record(0, PUT_WITH, BLOCK + 3, b"\0e", &until))
                .push(record(0, PUT_WITH, BLOCK + 4, b"\0f", &over))
                .push(record(0, PUT_WITH, BLOCK + 5, b"\0g", &with_deadline(0, b"7")))
                .push(record(0, PUT_WITH, BLOCK + 6, b"\0h", &over))
                .push(record(0, PUT, BLOCK + 7, b"\0h", b"8"))
                .push(record(0, PUT_WITH, BLOCK + 8, b"\0i", &over))
                .push(record(0, DELETE, BLOCK + 9, b"\0i", b""))
                .end(),
        ),
        file(
            "put-with-in-a-batch",
            "A batch gives a key without a deadline one, and sets a key in a bucket whose deadline is a moment ahead.",
            two()
                .push(record(SYNCED | MORE, PUT_WITH, BLOCK + 3, b"\0a", &until))
                .push(record(0, PUT_WITH, BLOCK + 4, b"\x06bucketk", &with_deadline(NOW + 1, b"\0\xff")))
                .end(),
        ),
        file(
            "torn-put-with",
            "A put-with whose value is too short for an expiry.",
            two().push(record(0, PUT_WITH, BLOCK + 3, b"\0c", &until[..23])).end(),
        ),
        file(
            "damaged-before-a-put-with",
            "A put-with with SYNCED is a witness like a put, although its pair is over.",
            two().push(BROKEN).push(record(SYNCED, PUT_WITH, BLOCK + 4, b"\0d", &over)).end(),
        ),
    ]
}

/// Pairs of sessions, whose owners are on another machine.
fn sessions() -> Vec<Golden> {
    let third = BLOCK + 3;
    let begun = || two().push(record(0, SESSION, third, b"", &session(third, 600_000)));
    let lock = with_owner(0, third, BLOCK + 4, b"7");
    let locked = || begun().push(record(0, PUT_OWNED, BLOCK + 4, b"\0l", &lock));
    vec![
        file(
            "session",
            "A session that was renewed: l is its lock, m belongs to it, n has a deadline too and o's is over.",
            locked()
                .push(record(0, PUT_OWNED, BLOCK + 5, b"\0m", &with_owner(0, third, 0, b"8")))
                .push(record(0, PUT_OWNED, BLOCK + 6, b"\0n", &with_owner(YEAR_2100, third, 0, b"9")))
                .push(record(0, PUT_OWNED, BLOCK + 7, b"\0o", &with_owner(NOW, third, 0, b"10")))
                .push(record(0, SESSION, BLOCK + 8, b"", &session(third, 620_000)))
                .push(record(0, PUT_OWNED, BLOCK + 9, b"\0l", &with_owner(0, third, BLOCK + 4, b"rewritten")))
                .end(),
        ),
        file(
            "session-ended",
            "A session has ended, so its pairs are hidden: all but a, which a put has taken away from it. Another one has taken its lock.",
            locked()
                .push(record(0, PUT_OWNED, BLOCK + 5, b"\0a", &with_owner(0, third, 0, b"8")))
                .push(record(0, PUT_OWNED, BLOCK + 6, b"\0b", &with_owner(0, third, 0, b"9")))
                .push(record(0, PUT, BLOCK + 7, b"\0a", b"11"))
                .push(record(0, SESSION, BLOCK + 8, b"", &session(third, 0)))
                .push(record(0, SESSION, BLOCK + 9, b"", &session(BLOCK + 9, 640_000)))
                .push(record(0, DELETE, BLOCK + 10, b"\0l", b""))
                .push(record(0, PUT_OWNED, BLOCK + 11, b"\0l", &with_owner(0, BLOCK + 9, BLOCK + 11, b"12")))
                .end(),
        ),
        file(
            "session-without-a-record",
            "A copy without ENDs: the session of l has no record, so it is over.",
            two().push(record(0, PUT_OWNED, BLOCK + 4, b"\0l", &lock)).end(),
        ),
        file("torn-session", "A session whose time to live is 0.", {
            let mut value = session(third, 600_000);
            set(SESSION_VALUE, "ttl", &mut value, 0);
            two().push(record(0, SESSION, third, b"", &value)).end()
        }),
        file(
            "torn-put-owned",
            "A put-owned of a session that begins with it.",
            two().push(record(0, PUT_OWNED, third, b"\0l", &with_owner(0, third, 0, b"7"))).end(),
        ),
        file(
            "damaged-before-a-session",
            "A session with SYNCED is a witness.",
            two().push(BROKEN).push(record(SYNCED, SESSION, BLOCK + 4, b"", &session(BLOCK + 4, 1))).end(),
        ),
    ]
}

fn torn() -> Vec<Golden> {
    let third = two().push(THIRD);
    let mut lost = third.clone().push(FOURTH).0;
    lost[two().len()..third.len()].fill(0);
    vec![
        file("torn-header", "The first bytes of a record.", third.0[..two().len() + 11].to_vec()),
        file(
            "torn-value",
            "A record whose value did not reach the file: zeros stand there.",
            two().raw(&third.0[two().len()..two().len() + 26]).raw(&[0; 40]).0,
        ),
        file(
            "torn-before-a-whole-record",
            "A record whose value did not reach the file, and a whole record after it: a writer keeps a copy of the tail.",
            two().push(BROKEN).push(FOURTH).end(),
        ),
        file("torn-hole", "A lost group reads as zeros, and a whole record follows.", FileBytes(lost).end()),
        file("cut-begun", "A cut that a killed process has left half done.", two().raw(&[0xff; 8]).0),
        file(
            "torn-before-an-unknown-kind",
            "SYNCED after the damage, on a kind of a later version: it is no proof.",
            two().push(BROKEN).push(Fields { kind: 0x83, ..PROOF }).end(),
        ),
        file(
            "torn-log-in-value",
            "Damage in front of a log that was stored as a value: its records are true at other offsets only.",
            two().push(BROKEN).push(record(0, PUT, BLOCK + 4, b"\0copy", &two().push(PROOF).end())).end(),
        ),
        file(
            "torn-unknown-ancillary",
            "A later ancillary kind whose body is wrong: damage like any other.",
            two().push(Fields { kind: 0x83, ..BROKEN }).end(),
        ),
        file(
            "torn-seq",
            "A record with the sequence number of the record before, and no other fault.",
            two().push(Fields { seq: BLOCK + 2, ..THIRD }).end(),
        ),
        file(
            "torn-value-len",
            "A record whose value_len is above the limit, and no other fault.",
            two().push(Fields { value_len: Some(MAX_VALUE_LEN as u32 + 1), ..THIRD }).end(),
        ),
        file(
            "torn-put-without-a-key",
            "A put whose full key has a bucket and no key.",
            two().push(record(0, PUT, BLOCK + 3, b"\x01b", b"3")).end(),
        ),
        file(
            "torn-delete-with-a-value",
            "A delete with a value.",
            two().push(record(0, DELETE, BLOCK + 3, b"\0a", b"3")).end(),
        ),
        file(
            "torn-synced-to",
            "A SYNCED_TO that states an offset above its own.",
            two().push(record(0, SYNCED_TO, BLOCK + 3, b"", &(two().len() as u64 + 8).to_le_bytes())).end(),
        ),
        file("torn-before-broken-synced-to", "A SYNCED_TO without the flag whose body is wrong proves nothing.", {
            let stated = (two().len() as u64 + 8).to_le_bytes();
            let broken = Fields { body_crc_xor: 1, ..record(0, SYNCED_TO, BLOCK + 4, b"", &stated) };
            two().push(BROKEN).push(broken).end()
        }),
        file(
            "synced-to-proves-less",
            "A SYNCED_TO that states the offset of the damage, and so proves nothing about it.",
            {
                let at = two().len() as u64;
                two().push(BROKEN).push(record(0, SYNCED_TO, BLOCK + 4, b"", &at.to_le_bytes())).end()
            },
        ),
    ]
}

fn damaged() -> Vec<Golden> {
    let third = two().push(THIRD);
    let (e, after) = (two().len(), third.len());
    let log = third.push(FOURTH).push(record(0, PUT, BLOCK + 5, b"\x05othere", b"5")).push(PROOF).end();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = log.clone();
        change(&mut file);
        file
    };
    let stated = ((e + 8) as u64).to_le_bytes();
    vec![
        file("damaged-value", "A bit of a value is flipped, and proof follows.", with(&|file| file[e + 26] ^= 1)),
        file("damaged-header", "A bit of a header is flipped, and proof follows.", with(&|file| file[e + 16] ^= 1)),
        file("damaged-hole", "Zeros in place of a record, and proof follows.", with(&|file| file[e..after].fill(0))),
        file(
            "damaged-8-bytes",
            "Proof at the first offset after e where it can stand.",
            two().raw(&[0; 8]).push(PROOF).end(),
        ),
        file(
            "damaged-beyond-the-first-proof",
            "The proof of the second damage counts only after the first: its sequence number is too far above the records before that.",
            two()
                .push(BROKEN)
                .push(Fields { flags: SYNCED, seq: BLOCK + 100, ..FOURTH })
                .push(Fields { seq: BLOCK + 101, ..BROKEN })
                .push(Fields { seq: BLOCK + 100 + MAX_SEQ_STEP, ..PROOF })
                .end(),
        ),
        file(
            "damaged-without-an-end-mark",
            "The list of damaged ranges ends at a missing end mark too.",
            two().push(BROKEN).push(PROOF).0,
        ),
        file(
            "damaged-before-a-later-kind",
            "A record of a later ancillary kind between the damage and the proof is part of the damaged range.",
            two().push(BROKEN).push(record(0, 0x83, BLOCK + 4, b"", b"")).push(PROOF).end(),
        ),
        file(
            "damaged-twice",
            "Two records are damaged; what stands between them is right.",
            with(&|file| (file[e + 26], file[after + 32 + 3]) = (b'!', b'!')),
        ),
        file("damaged-proof-cut-off", "The proof is cut off, so the damage counts as a torn tail.", {
            let mut file = with(&|file| file[e + 26] ^= 1);
            file.truncate(file.len() - 9);
            file
        }),
        file(
            "damaged-before-synced-to",
            "A SYNCED_TO states that the damaged record was on stable storage.",
            two().push(BROKEN).push(record(0, SYNCED_TO, BLOCK + 4, b"", &stated)).end(),
        ),
        file(
            "damaged-before-broken-synced-to",
            "A SYNCED_TO with SYNCED proves its own offset, although its body is wrong.",
            two().push(BROKEN).push(Fields { flags: SYNCED, seq: BLOCK + 4, kind: SYNCED_TO, ..BROKEN }).end(),
        ),
        file(
            "forged-value",
            "A value that holds true headers, made with the file_id: damage in front of it counts as proven.",
            two()
                .push(Fields {
                    body_crc_xor: 1,
                    ..record(0, PUT, BLOCK + 3, b"\x05bucketk", &two().raw(&[7; 32]).push(PROOF).0[e + 32..])
                })
                .end(),
        ),
    ]
}

fn batches() -> Vec<Golden> {
    let first = Fields { flags: SYNCED | MORE, ..THIRD };
    let begun = || two().push(first);
    let e = two().len() as u64;
    vec![
        file("batch-unfinished", "A batch without its last record never happened.", {
            begun().push(Fields { flags: MORE, ..FOURTH }).end()
        }),
        file("batch-at-the-end-of-the-file", "The same, cut right after the record.", begun().0),
        file(
            "batch-of-marks",
            "Records of any kind may be part of a batch.",
            begun().push(record(MORE, 0x90, BLOCK + 4, b"", b"?")).push(record(0, MARK, BLOCK + 5, b"", b"")).end(),
        ),
        file(
            "batch-broken-off",
            "A damaged record in a batch, and proof after it: the records before it in the batch are not read either.",
            begun().push(Fields { flags: MORE, body_crc_xor: 1, ..FOURTH }).push(PROOF).end(),
        ),
        file(
            "batch-with-synced",
            "SYNCED inside a batch: that record is the proof that the batch had been whole.",
            begun().push(Fields { flags: SYNCED, ..FOURTH }).end(),
        ),
        file(
            "batch-with-synced-of-an-unknown-kind",
            "The same on a kind of a later version, which proves nothing.",
            begun().push(Fields { flags: SYNCED, kind: 0x83, ..FOURTH }).end(),
        ),
        file(
            "batch-with-synced-beyond-the-bound",
            "SYNCED inside a batch, with a sequence number too far above the record before the batch: it proves nothing.",
            two()
                .push(Fields { seq: BLOCK + 2 + MAX_SEQ_STEP, ..first })
                .push(Fields { flags: SYNCED, seq: BLOCK + 3 + MAX_SEQ_STEP, ..FOURTH })
                .end(),
        ),
        file(
            "batch-states-what-was-before",
            "A SYNCED_TO in an unfinished batch that states an offset before the batch.",
            begun().push(record(MORE, SYNCED_TO, BLOCK + 4, b"", &e.to_le_bytes())).end(),
        ),
        file(
            "batch-states-itself",
            "A SYNCED_TO in an unfinished batch that states the batch's own beginning: it counts like any other.",
            begun().push(record(MORE, SYNCED_TO, BLOCK + 4, b"", &(e + 8).to_le_bytes())).end(),
        ),
    ]
}

/// Files with `ROOTS`, whole and truncated ones, and loose records.
fn roots() -> Vec<Golden> {
    let example = page::dump().0;
    // Where the put in the bucket `x` begins, and where it ends: its root states that.
    let (last_put, stated) = (0x150, 0x170);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = example.clone();
        change(&mut file);
        file
    };
    let stream = {
        let mut stream = Vec::new();
        written(|_, cask| {
            cask.put("a", "1").and_then(|_| cask.put("b", "2")).expect("it is open");
            cask.backup_to(&mut stream).expect("a vector takes all");
        });
        stream
    };
    vec![
        file("worked-example", "The page's worked example, closed.", example.clone()),
        file("roots-empty", "A new store: ROOTS with empty slots, and no other record.", written(|_, _| {})),
        file(
            "roots-compacted",
            "A file that compaction made: its root states the offset of the closing mark.",
            written(|_, cask| {
                cask.put("a", "1").and_then(|_| cask.put("a", "2")).expect("it is open");
                cask.compact().expect("it is open");
            }),
        ),
        file("roots-stream", "The stream of a backup: its slots are empty.", stream.clone()),
        file("roots-twice", "A store that was closed twice: the root is in the second slot.", {
            let disk = SimDisk::new();
            for value in ["1", "2"] {
                let cask = Cask::open_on(Arc::new(SameEveryTime(disk.clone())), PATH, &Config::new());
                let cask = cask.expect("it is a store");
                cask.put("a", value).and_then(|_| cask.close()).expect("it is open");
            }
            disk.contents(PATH).expect("it was created")
        }),
        file("roots-torn-slot", "Half of the second slot is written, so the first one counts.", {
            with(&|file| file[152..184].fill(2))
        }),
        file("roots-damaged", "A flipped bit in the header of ROOTS.", with(&|file| file[70] ^= 1)),
        file("roots-cut-above", "Cut inside the trailing mark, above what the root states.", {
            with(&|file| file.truncate(stated + 8))
        }),
        file("roots-damaged-below", "A flipped bit in the last record that the root proves.", {
            with(&|file| (file[last_put + 28] ^= 1, file.truncate(stated + 8)).1)
        }),
        file("truncated-by-a-byte", "One byte less than the root states, with the end mark.", {
            with(&|file| file.truncate(stated + 7))
        }),
        file("truncated-after-a-unit", "Cut at the end of a record, below what the root states.", {
            with(&|file| file.truncate(0x130))
        }),
        file("truncated-head", "Cut inside the header of ROOTS.", with(&|file| file.truncate(80))),
        file("truncated-zeros", "The length is right, and zeros stand in place of the last records.", {
            with(&|file| file[0x130..].fill(0))
        }),
        file("truncated-stream", "The stream of a backup broke off after a record.", {
            let mut cut = stream.clone();
            cut.truncate(ROOTS_END + 32);
            cut
        }),
        file(
            "loose-record",
            "A loose record whose body is not what its checksum says, and a record after it.",
            two().push(Fields { kind: 0xc1, ..BROKEN }).push(FOURTH).end(),
        ),
        file(
            "torn-loose-record",
            "A loose record with SYNCED is damage, and proves nothing.",
            two().push(Fields { kind: 0xc1, ..PROOF }).end(),
        ),
        file(
            "torn-loose-record-in-a-batch",
            "A loose record inside a batch is damage.",
            two().push(Fields { flags: MORE, ..THIRD }).push(record(0, 0xc1, BLOCK + 4, b"", b"any")).end(),
        ),
    ]
}

/// Files whose root leads to a snapshot of the index.
fn snapshots() -> Vec<Golden> {
    let by_library = {
        let disk = SimDisk::new();
        // So that a small store has one.
        disk.set_limits(Limits { least_cost: 300, ..Limits::REAL });
        let cask = Cask::open_on(Arc::new(SameEveryTime(disk.clone())), PATH, &Config::new()).expect("a new store");
        cask.put("a", "1".repeat(20_000)).and_then(|_| cask.delete("a")).expect("it is open");
        cask.write(Batch::new().put("b", "22").bucket("x").put("c", "333")).expect("it is open");
        cask.close().expect("it is open");
        disk.contents(PATH).expect("it was created")
    };
    let fault = |story| {
        let mut faults = snapshot::faults().into_iter();
        faults.find(|fault| fault.0 == story).unwrap_or_else(|| panic!("{story}")).2.file
    };
    let flipped = |byte: usize| {
        let mut file = snapshot::small(6).file;
        file[byte] ^= 1;
        file
    };
    let of = snapshot::small(6);
    vec![
        file("snapshot", "A store that was closed with a snapshot of its index, in one part.", by_library),
        file(
            "snapshot-parts",
            "A snapshot with 64 parts, two of which have a key; records follow it.",
            of.file.clone(),
        ),
        file("snapshot-later-version", "A snapshot of a later version is not used.", fault("a later version")),
        file(
            "snapshot-contradicts-itself",
            "A snapshot that states more keys than its parts have: no reader uses it, and nothing is lost.",
            fault("more keys than words"),
        ),
        file(
            "snapshot-inside-a-record",
            "A snapshot that ends inside a record: the walk from there does not reach what the root states.",
            fault("an end inside a record"),
        ),
        file(
            "snapshot-damaged-part",
            "A flipped bit in a part of an image: no record is damaged.",
            flipped(of.image_at + 24),
        ),
        file(
            "snapshot-order",
            "A snapshot with the order of its two keys, in two leaves.",
            snapshot::small_ordered(6).file,
        ),
        file(
            "snapshot-lifetimes",
            "A snapshot of version 2, which leads to a session, its lock and a pair with a deadline.",
            snapshot::small_with_lifetimes().file,
        ),
        file(
            "snapshot-wrong-lifetime",
            "A snapshot that leads to a plain put as a record with a lifetime: no reader uses it, and nothing is lost.",
            fault("the lifetime of a plain put"),
        ),
        file(
            "snapshot-damaged-leaf",
            "A leaf of an order has another checksum: no record is damaged.",
            fault("another checksum of a leaf"),
        ),
        file(
            "snapshot-damaged",
            "A flipped bit in the body of a SNAPSHOT: no record is damaged.",
            flipped(of.snapshot_at + 200),
        ),
        file(
            "snapshot-damage-before",
            "A damaged record before the end of the snapshot: the file is damaged, although a reader that uses the snapshot does not see it.",
            flipped(ROOTS_END + 26),
        ),
        file("snapshot-torn", "A torn tail after a snapshot.", {
            let end = of.file.len() - 8;
            [&of.file[..end], &[7; 9][..]].concat()
        }),
    ]
}

fn others() -> Vec<Golden> {
    let patched = |at: usize, byte: u8| {
        let mut file = two().end();
        file[at] ^= byte;
        file
    };
    vec![
        file(
            "future-kind",
            "A kind below 0x80 of a later version.",
            two().push(record(0, 3, BLOCK + 3, b"", b"")).end(),
        ),
        file("future-flag", "A flag of a later version.", two().push(Fields { flags: 4, ..THIRD }).end()),
        file(
            "future-kind-in-a-batch",
            "A kind below 0x80 of a later version, with a wrong body, in an unfinished batch.",
            two().push(Fields { flags: MORE, ..THIRD }).push(Fields { kind: 3, body_crc_xor: 1, ..FOURTH }).end(),
        ),
        file(
            "future-major",
            "A later major version.",
            FileBytes::with_header(|header| header[8] = 2).push(PUT_FIRST).end(),
        ),
        file("header-damaged", "A flipped bit in the version: the checksum is checked first.", patched(8, 2)),
        file("base-seq-beyond", "A base_seq above the limit.", FileBytes::new(MAX_SEQ + 1).end()),
        file("foreign", "Another program's file.", b"SQLite format 3\0".repeat(8)),
        file("short", "63 bytes of a file header.", two().0[..63].to_vec()),
        file("nothing", "An empty file.", Vec::new()),
        file(
            "deleted",
            "Every key is deleted.",
            two().push(record(0, DELETE, BLOCK + 3, b"\0a", b"")).push(record(0, DELETE, BLOCK + 4, b"\0b", b"")).end(),
        ),
    ]
}

/// Made by hand before the others.
fn older() -> Vec<Golden> {
    let there = |name, story| {
        let path = golden::directory().join(name).with_extension("cask");
        file(name, story, std::fs::read(path).expect("it is part of the sources"))
    };
    vec![
        there("example", "The page's worked example, closed."),
        there(
            "every-kind",
            "Every kind of record, in a file that compaction made and that a later minor version has used: its reserved \
             bytes are not zero, and one record has a kind that version 1.0 does not know. The first two records are \
             older than the file. A later compaction was killed: the MOVED is not the last record.",
        ),
        there(
            "damaged",
            "A bit of the third put is damaged, and the fourth proves that the third had been on stable storage.",
        ),
        there(
            "torn",
            "As a crash leaves it: two synced puts, a batch without its last record, and space ahead of the log. Nothing \
             after the batch proves that it was ever whole, so it never happened.",
        ),
    ]
}
