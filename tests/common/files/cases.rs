//! One small file for each sentence of docs/FORMAT.md that a reader could get wrong, with the page's verdict.

use super::bytes::{Fields, FileBytes, record};
use super::layout::{
    DELETE, FILE_HEADER_LEN, MARK, MAX_FILE_LEN, MAX_SEQ, MAX_SEQ_STEP, MAX_VALUE_LEN, MORE, MOVED, NOW, PUT,
    PUT_OWNED, PUT_WITH, RECORD_HEADER_LEN, ROOTS, ROOTS_END, SESSION, SESSION_VALUE, SYNCED, SYNCED_TO, session, set,
    with_deadline, with_owner,
};
use super::seal::seal_roots;
use super::snapshot::{self, Fault, HOLDS, Snapshotted};

/// A file, its story, and the verdict in the words of `summary`.
pub struct Case {
    pub name: &'static str,
    pub file: Vec<u8>,
    pub verdict: String,
}

fn case(name: &'static str, file: Vec<u8>, verdict: impl Into<String>) -> Case {
    Case { name, file, verdict: verdict.into() }
}

/// A log of one record, `k` = `1` with the sequence number 1, which ends at `AT`.
fn log() -> FileBytes {
    FileBytes::new(0).push(record(0, PUT, 1, b"\0k", b"1"))
}

const AT: usize = FILE_HEADER_LEN + 32;

/// What `log` holds.
const K: &str = "k=1@1";

fn torn(bytes: usize) -> String {
    format!("{K}, torn {bytes}")
}

fn kept(bytes: usize) -> String {
    format!("{K}, torn {bytes} kept")
}

fn corrupt(offset: usize) -> String {
    format!("corrupt at {offset}")
}

fn truncated(log_end: usize, stated: usize) -> String {
    format!("truncated at {log_end}, {stated} stated")
}

fn unsupported(offset: usize) -> String {
    format!("unsupported record at {offset}")
}

/// A record that proves that everything before it had been on stable storage.
const PROOF: Fields<'static> = record(SYNCED, MARK, 99, b"", b"");

const PUT_2: Fields<'static> = record(0, PUT, 2, b"\0l", b"2");

/// It has a true header, and a body that does not hold.
const BROKEN: Fields<'static> = Fields { body_crc_xor: 1, ..PUT_2 };

pub fn all() -> Vec<Case> {
    let all = [
        file_headers(),
        log_ends(),
        records(),
        deadlines(),
        sessions(),
        damage(),
        batches(),
        proofs(),
        loose(),
        roots(),
        snapshots(),
        copies(),
    ];
    all.into_iter().flatten().collect()
}

fn file_headers() -> Vec<Case> {
    let patched = |at: usize, bytes: &'static [u8]| {
        FileBytes::with_header(|header| header[at..at + bytes.len()].copy_from_slice(bytes)).end()
    };
    let mut wrong_crc = FileBytes::new(0).end();
    wrong_crc[60] ^= 1;
    let mut other_version_and_wrong_crc = patched(8, &[2, 0]);
    other_version_and_wrong_crc[60] ^= 1;
    vec![
        case("an empty file", Vec::new(), "not a caskfile"),
        case("63 bytes of a file header", FileBytes::new(0).end()[..63].to_vec(), "not a caskfile"),
        case("another magic", patched(0, b"\xcaSKF\n"), "not a caskfile"),
        case("a wrong checksum", wrong_crc, corrupt(0)),
        case("a wrong checksum comes before a version", other_version_and_wrong_crc, corrupt(0)),
        case("a newer major version", patched(8, &[2, 0]), "unsupported version"),
        case("no major version", patched(8, &[0, 0]), "unsupported version"),
        case("a newer minor version", patched(10, &[9, 0]), "empty"),
        case("features of a later version", patched(12, &[2, 2, 3, 4]), "empty"),
        case("reserved bytes that are not zero", patched(48, &[1; 12]), "empty"),
        case("the highest base_seq", FileBytes::new(MAX_SEQ).end(), truncated(64, 0)),
        case("a base_seq beyond the limit", FileBytes::new(MAX_SEQ + 1).end(), corrupt(0)),
    ]
}

fn log_ends() -> Vec<Case> {
    let unpadded = |log: FileBytes| log.0[..AT - 5].to_vec();
    vec![
        case("nothing but a file header", FileBytes::new(0).0, "empty"),
        case("an end mark and nothing else", FileBytes::new(0).end(), "empty"),
        case("no end mark", log().0, K),
        case("7 bytes of an end mark", log().raw(&[0; 7]).0, K),
        case("space ahead of the log", log().raw(&[0; 5000]).0, K),
        case("the last record's padding is missing", unpadded(log()), K),
        case("a few bytes that are not zero", log().raw(&[0, 0, 7]).0, torn(3)),
        case("a byte after the end mark", log().raw(&[0; 20]).raw(&[7]).0, torn(21)),
        case("zeros after a torn record", log().raw(&[7; 9]).raw(&[0; 50]).0, torn(9)),
    ]
}

/// After `log`, the header of this record has the checksum 0, which is stored as 1.
const ZERO: Fields<'static> = record(0, PUT, 2_031_696_485, b"\0l", b"2");

fn records() -> Vec<Case> {
    let with = |fields| log().push(fields).end();
    assert_eq!(with(ZERO)[AT..AT + 4], [1, 0, 0, 0]);
    let mut padding = log().0;
    padding[AT - 1] = 0xff;
    let far = MAX_SEQ_STEP + 1;
    vec![
        case("a checksum of 0, stored as 1", with(ZERO), format!("{K} l=2@{}", ZERO.seq)),
        case("a value that replaces another", with(record(0, PUT, 2, b"\0k", b"")), "k=@2"),
        case("a key of another bucket", with(record(0, PUT, 2, b"\x02bbk", b"2")), format!("{K} bb/k=2@2")),
        case("a tombstone", with(record(0, DELETE, 2, b"\0k", b"")), "empty"),
        case("a tombstone of a key that is not there", with(record(0, DELETE, 2, b"\0l", b"")), K),
        case("padding that is not zero", FileBytes(padding).end(), K),
        case("a mark with a body", with(record(0, MARK, 2, b"key", b"value")), K),
        case(
            "a log that has moved, and goes on",
            log().push(record(0, MOVED, 2, b"", b"")).push(BROKEN).end(),
            torn(27),
        ),
        case("a later ancillary kind", with(record(SYNCED, 0xbf, 2, b"\x09", b"value")), K),
        case("a statement with the flag", with(record(SYNCED, SYNCED_TO, 2, b"", &[0; 8])), K),
        case("a statement of its own place", with(record(0, SYNCED_TO, 2, b"", &(AT as u64).to_le_bytes())), K),
        case(
            "the highest sequence number that may follow",
            with(record(0, PUT, far, b"\0k", b"")),
            format!("k=@{far}"),
        ),
        case(
            "records below base_seq, and one far above it",
            FileBytes::new(1 << 50).push(PUT_2).push(record(0, PUT, (1 << 50) + MAX_SEQ_STEP, b"\0k", b"1")).end(),
            format!("k=1@{} l=2@2", (1u64 << 50) + MAX_SEQ_STEP),
        ),
        case("kind 0", with(record(0, 0, 2, b"\0k", b"")), unsupported(AT)),
        case("kind 3", with(record(0, 3, 2, b"\0k", b"")), unsupported(AT)),
        case("kind 7", with(record(0, 7, 2, b"\0k", b"")), unsupported(AT)),
        case("kind 0x7f, whose body is damaged", with(Fields { kind: 0x7f, ..BROKEN }), unsupported(AT)),
        case("a later flag", with(record(4, PUT, 2, b"\0k", b"")), unsupported(AT)),
        case("a later flag on an ancillary kind", with(record(0x80, 0xf0, 2, b"", b"")), unsupported(AT)),
    ]
}

/// Pairs with deadlines: those that are over are hidden.
fn deadlines() -> Vec<Case> {
    let at = |deadline| with_deadline(deadline, b"2");
    let over = at(NOW);
    let with = |key, value: &[u8]| log().push(record(0, PUT_WITH, 2, key, value)).end();
    let in_a_batch =
        |first: &[u8], second: Fields<'_>| log().push(record(MORE, PUT_WITH, 2, b"\0l", first)).push(second).end();
    vec![
        case("a pair with a deadline", with(b"\0l", &at(NOW + 1)), format!("{K} l=2@2")),
        case("the latest deadline", with(b"\0l", &at(u64::MAX)), format!("{K} l=2@2")),
        case("a put-with without a deadline", with(b"\0l", &at(0)), format!("{K} l=2@2")),
        case("a pair whose deadline is now", with(b"\0l", &over), K),
        case("a pair whose deadline was long ago", with(b"\0l", &at(1)), K),
        case("an empty value with a deadline", with(b"\0l", &with_deadline(NOW + 1, b"")), format!("{K} l=@2")),
        case("a pair with a deadline in place of one without", with(b"\0k", &at(NOW + 1)), "k=2@2"),
        case("a pair that is over in place of one without a deadline", with(b"\0k", &over), "empty"),
        case("a pair that is over in another bucket", with(b"\x01bk", &over), K),
        case(
            "a put takes a deadline away",
            log().push(record(0, PUT_WITH, 2, b"\0k", &over)).push(record(0, PUT, 3, b"\0k", b"3")).end(),
            "k=3@3",
        ),
        case(
            "a pair that is over and deleted",
            log().push(record(0, PUT_WITH, 2, b"\0k", &over)).push(record(0, DELETE, 3, b"\0k", b"")).end(),
            "empty",
        ),
        case(
            "a batch with deadlines",
            in_a_batch(&over, record(0, PUT_WITH, 3, b"\0m", &at(NOW + 1))),
            format!("{K} m=2@3"),
        ),
        case("an unfinished batch with a deadline", in_a_batch(&at(NOW + 1), BROKEN_THIRD), torn(56 + 27)),
        case(
            "a put-with with SYNCED after damage",
            log().push(BROKEN).push(record(SYNCED, PUT_WITH, 3, b"\0m", &over)).end(),
            corrupt(AT),
        ),
        case(
            "a put-with with SYNCED after damage, too short for a deadline",
            log().push(BROKEN).push(record(SYNCED, PUT_WITH, 3, b"\0m", b"")).end(),
            corrupt(AT),
        ),
        case(
            "a whole put-with after damage",
            log().push(BROKEN).push(record(0, PUT_WITH, 3, b"\0m", &at(NOW + 1))).end(),
            kept(32 + 51),
        ),
    ]
}

/// Pairs of sessions: those of an ended one are hidden. The session 2 begins at `AT`.
fn sessions() -> Vec<Case> {
    let (begin, end) = (session(2, 1000), session(2, 0));
    let begun = || log().push(record(0, SESSION, 2, b"", &begin));
    let lock = with_owner(0, 2, 3, b"x");
    let locked = || begun().push(record(0, PUT_OWNED, 3, b"\0l", &lock));
    let then = |kind, key, value: &[u8]| locked().push(record(0, kind, 4, key, value));
    let owned = |value: &[u8]| begun().push(record(0, PUT_OWNED, 3, b"\0l", value)).end();
    let mut last_owner = begin;
    set(SESSION_VALUE, "owner", &mut last_owner, (1 << 61) - 1);
    vec![
        case("a session and no pair", begun().end(), K),
        case("a lock of a session that lives", locked().end(), format!("{K} l=x@3")),
        case("the largest number of an owner", log().push(record(0, SESSION, 2, b"", &last_owner)).end(), K),
        case("a lock after the end of its session", then(SESSION, b"", &end).end(), K),
        case("a lock of a session that was renewed", then(SESSION, b"", &session(2, 2000)).end(), format!("{K} l=x@3")),
        case(
            "the last record of a session counts, also after its end",
            then(SESSION, b"", &end).push(record(0, SESSION, 5, b"", &begin)).end(),
            format!("{K} l=x@3"),
        ),
        case("the end of another session", then(SESSION, b"", &session(1, 0)).end(), format!("{K} l=x@3")),
        case(
            "a pair of a session without a record",
            log().push(record(0, PUT_OWNED, 2, b"\0l", &with_owner(0, 1, 2, b"x"))).end(),
            K,
        ),
        case(
            "a session whose first record is gone",
            log().push(record(0, SESSION, 3, b"", &begin)).push(record(0, PUT_OWNED, 4, b"\0l", &lock)).end(),
            format!("{K} l=x@4"),
        ),
        case("an owned pair that is no lock", owned(&with_owner(0, 2, 0, b"x")), format!("{K} l=x@3")),
        case("an owned pair with a deadline", owned(&with_owner(NOW + 1, 2, 3, b"")), format!("{K} l=@3")),
        case("an owned pair whose deadline is now", owned(&with_owner(NOW, 2, 3, b"x")), K),
        case(
            "a put takes an owner away",
            then(PUT, b"\0l", b"4").push(record(0, SESSION, 5, b"", &end)).end(),
            format!("{K} l=4@4"),
        ),
        case(
            "a put-with takes an owner away",
            then(PUT_WITH, b"\0l", &with_deadline(NOW + 1, b"4")).push(record(0, SESSION, 5, b"", &end)).end(),
            format!("{K} l=4@4"),
        ),
        case(
            "a lock in place of a pair without an owner",
            begun().push(record(0, PUT_OWNED, 3, b"\0k", &lock)).end(),
            "k=x@3",
        ),
        case(
            "an owned pair that is over, in place of another",
            then(PUT_OWNED, b"\0k", &with_owner(0, 1, 0, b"4")).end(),
            "l=x@3",
        ),
        case("an owned pair that is deleted", then(DELETE, b"\0l", b"").end(), K),
        case(
            "a lock that another session takes",
            then(SESSION, b"", &end)
                .push(record(0, SESSION, 5, b"", &session(5, 9)))
                .push(record(0, PUT_OWNED, 6, b"\0l", &with_owner(0, 5, 6, b"y")))
                .end(),
            format!("{K} l=y@6"),
        ),
        case(
            "a batch of a session and its lock",
            log().push(record(MORE, SESSION, 2, b"", &begin)).push(record(0, PUT_OWNED, 3, b"\0l", &lock)).end(),
            format!("{K} l=x@3"),
        ),
        case(
            "an unfinished batch with an end",
            locked().push(record(MORE, SESSION, 4, b"", &end)).end(),
            format!("{K} l=x@3, torn 80"),
        ),
        case(
            "a session with SYNCED after damage",
            log().push(BROKEN).push(record(SYNCED, SESSION, 3, b"", &begin)).end(),
            corrupt(AT),
        ),
        case(
            "a session of no form with SYNCED after damage",
            log().push(BROKEN).push(record(SYNCED, SESSION, 3, b"", b"")).end(),
            corrupt(AT),
        ),
        case(
            "a whole session after damage",
            log().push(BROKEN).push(record(0, SESSION, 3, b"", &begin)).end(),
            kept(32 + 80),
        ),
        case(
            "a put-owned with SYNCED after damage",
            log().push(BROKEN).push(record(SYNCED, PUT_OWNED, 3, b"\0l", &lock)).end(),
            corrupt(AT),
        ),
    ]
}

/// The value of a session that begins with record 2, with another number in one field.
fn session_with(field: &str, number: u64) -> [u8; 64] {
    let mut value = session(2, 1000);
    set(SESSION_VALUE, field, &mut value, number);
    value
}

const BROKEN_THIRD: Fields<'static> = Fields { seq: 3, ..BROKEN };

/// Each thing that can be wrong with a record, once at the log's end and once with proof after it.
fn damage() -> Vec<Case> {
    let beyond_place = (AT as u64 + 1).to_le_bytes();
    let mut zero_as_it_is = log().push(ZERO).0;
    zero_as_it_is[AT] = 0;
    let owned =
        |session, acquired| log().push(record(0, PUT_OWNED, 2, b"\0k", &with_owner(0, session, acquired, b"x")));
    let damages = [
        ("a header without a right checksum", log().raw(&[7; 24])),
        ("a checksum of 0, stored as it is", FileBytes(zero_as_it_is)),
        ("a right header in another place", log().raw(&log().push(PUT_2).push(PUT_2).0[AT + 32..])),
        ("a value beyond the limit", log().push(Fields { value_len: Some(MAX_VALUE_LEN as u32 + 1), ..PUT_2 })),
        ("a value beyond the file", log().push(Fields { value_len: Some(1000), ..PUT_2 })),
        ("sequence number 0", log().push(record(0, PUT, 0, b"\0l", b"2"))),
        ("the sequence number of the record before", log().push(record(0, PUT, 1, b"\0l", b"2"))),
        ("a sequence number too far above", log().push(record(0, PUT, MAX_SEQ_STEP + 2, b"\0l", b"2"))),
        ("a body without a right checksum", log().push(BROKEN)),
        ("an unknown ancillary body without a right checksum", log().push(Fields { kind: 0x90, ..BROKEN })),
        ("no full key", log().push(record(0, PUT, 2, b"", b"2"))),
        ("no key in a full key", log().push(record(0, PUT, 2, b"\x01b", b"2"))),
        ("a bucket longer than its full key", log().push(record(0, PUT, 2, b"\x03ab", b"2"))),
        ("a put-with without a key", log().push(record(0, PUT_WITH, 2, b"\0", &[1; 24]))),
        ("a put-with without an expiry", log().push(record(0, PUT_WITH, 2, b"\0k", b""))),
        ("a put-with that is too short for its expiry", log().push(record(0, PUT_WITH, 2, b"\0k", &[1; 23]))),
        ("a put-owned without a key", log().push(record(0, PUT_OWNED, 2, b"\0", &with_owner(0, 1, 0, b"x")))),
        ("a put-owned without an expiry", log().push(record(0, PUT_OWNED, 2, b"\0k", b""))),
        ("a put-owned that is too short for its expiry", log().push(record(0, PUT_OWNED, 2, b"\0k", &[1; 23]))),
        ("a put-owned without a session", owned(0, 0)),
        ("a put-owned of a session that begins with it", owned(2, 0)),
        ("a put-owned of a later session", owned(3, 0)),
        ("a lock that was taken later", owned(1, 3)),
        ("a lock that was taken by its session's first record", owned(1, 1)),
        ("a session with a key", log().push(record(0, SESSION, 2, b"\0k", &session(2, 1000)))),
        ("a session of 63 bytes", log().push(record(0, SESSION, 2, b"", &[&session(2, 1000)[..62], &[1]].concat()))),
        ("a session of 65 bytes", log().push(record(0, SESSION, 2, b"", &[&session(2, 1000)[..], &[1]].concat()))),
        ("a session without a number", log().push(record(0, SESSION, 2, b"", &session_with("session", 0)))),
        ("a session that is above its own record", log().push(record(0, SESSION, 2, b"", &session_with("session", 3)))),
        ("an owner beyond the limit", log().push(record(0, SESSION, 2, b"", &session_with("owner", 1 << 61)))),
        ("a session without a time to live", log().push(record(0, SESSION, 2, b"", &session_with("ttl", 0)))),
        (
            "a session of a file that cannot have its record",
            log().push(record(0, SESSION, 2, b"", &session_with("base_seq", 2))),
        ),
        ("a tombstone without a key", log().push(record(0, DELETE, 2, b"\0", b""))),
        ("a tombstone with a value", log().push(record(0, DELETE, 2, b"\0k", b"2"))),
        ("a statement of 7 bytes", log().push(record(0, SYNCED_TO, 2, b"", &[0; 7]))),
        ("a statement with a key", log().push(record(0, SYNCED_TO, 2, b"k", &[0; 8]))),
        ("a statement of a place above its own", log().push(record(0, SYNCED_TO, 2, b"", &beyond_place))),
    ];
    let both = damages.into_iter().flat_map(|(name, file)| {
        // Zeros at the end, of padding or of a statement's value, do not count as data.
        let data = file.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1) - AT;
        [case(name, file.clone().end(), torn(data)), case(name, file.push(PROOF).end(), corrupt(AT))]
    });
    let limit = FileBytes::new(MAX_SEQ - 1);
    let last = record(0, PUT, MAX_SEQ, b"\0k", b"1");
    let beyond = record(0, PUT, MAX_SEQ + 1, b"\0k", b"1");
    both.chain([
        case("the highest sequence number", limit.clone().push(last).end(), format!("k=1@{MAX_SEQ}")),
        case("a sequence number beyond the limit", limit.push(beyond).end(), truncated(64, 0)),
    ])
    .collect()
}

fn batches() -> Vec<Case> {
    let first = record(MORE, PUT, 2, b"\0l", b"2");
    let second = record(0, PUT, 3, b"\0m", b"3");
    let begun = || log().push(first);
    let whole = format!("{K} l=2@2 m=3@3");
    vec![
        case("a batch", begun().push(second).end(), &whole[..]),
        case(
            "a batch that begins with a flag",
            log().push(Fields { flags: SYNCED | MORE, ..first }).push(second).end(),
            &whole[..],
        ),
        case("a batch that ends with a mark", begun().push(record(0, MARK, 3, b"", b"")).end(), format!("{K} l=2@2")),
        case("a batch that ends with the log", begun().end(), torn(27)),
        case("a batch that ends with the file", begun().0, kept(27)),
        case("a batch that ends with the file, unpadded", begun().0[..AT + 27].to_vec(), kept(27)),
        case("a batch that breaks off", begun().push(Fields { body_crc_xor: 1, ..second }).end(), torn(59)),
        case(
            "a batch that breaks off before a whole record",
            begun().push(Fields { body_crc_xor: 1, ..second }).push(record(0, PUT, 4, b"\0n", b"4")).end(),
            kept(91),
        ),
        case(
            "a batch that breaks off before proof",
            begun().push(Fields { body_crc_xor: 1, ..second }).push(PROOF).end(),
            corrupt(AT + 32),
        ),
        case(
            "a batch with another group in it",
            begun().push(Fields { flags: SYNCED, ..second }).end(),
            corrupt(AT + 32),
        ),
        case(
            "a batch with another group in it, of a later kind",
            begun().push(record(SYNCED, 0x90, 3, b"", b"")).end(),
            torn(32 + 17),
        ),
        case(
            "a batch with another group in it, above the bound of the search",
            log()
                .push(Fields { seq: MAX_SEQ_STEP + 1, ..first })
                .push(record(SYNCED, PUT, MAX_SEQ_STEP + 2, b"\0m", b"3"))
                .end(),
            torn(59),
        ),
        case("a batch with zeros in it", begun().raw(&[0; 8]).push(PROOF).end(), corrupt(AT + 32)),
        case("a batch with an unknown kind in it", begun().push(record(0, 3, 3, b"", b"")).end(), unsupported(AT + 32)),
        case(
            "a batch that has begun proves nothing of itself",
            log().push(Fields { flags: SYNCED | MORE, ..first }).end(),
            torn(27),
        ),
        case(
            "an unfinished batch that states what was synced before it began",
            begun().push(record(MORE, SYNCED_TO, 3, b"", &(AT as u64).to_le_bytes())).end(),
            torn(57),
        ),
        case(
            "an unfinished batch that states that its own beginning was synced",
            begun().push(record(MORE, SYNCED_TO, 3, b"", &(AT as u64 + 8).to_le_bytes())).end(),
            corrupt(AT + 64),
        ),
    ]
}

/// What counts as proof, and what is kept, after a broken record.
fn proofs() -> Vec<Case> {
    fn broken() -> FileBytes {
        log().push(BROKEN)
    }
    fn then(fields: Fields<'_>) -> Vec<u8> {
        broken().push(fields).end()
    }
    let states = |to: usize| then(record(0, SYNCED_TO, 3, b"", &(to as u64).to_le_bytes()));
    let after = |fields: Fields<'_>| broken().push(fields).0[AT + 32..].to_vec();
    let header = 32 + RECORD_HEADER_LEN;
    // A true header, at the place that it has inside the value of another record.
    let inner = log().raw(&[7; 32]).push(PROOF).0[AT + 32..].to_vec();
    let carrier = record(0, PUT, 2, b"\x05bucketk", &inner);
    vec![
        case("a whole record", then(record(0, PUT, 3, b"\0m", b"3")), kept(59)),
        case("a broken record", then(Fields { seq: 3, ..BROKEN }), torn(59)),
        case("a record of a wrong form", then(record(0, PUT, 3, b"", b"3")), kept(57)),
        case("a synced record", then(record(SYNCED, PUT, 3, b"\0m", b"3")), corrupt(AT)),
        case("a synced record that is broken", then(Fields { flags: SYNCED, seq: 3, ..BROKEN }), corrupt(AT)),
        case("a synced record far away", broken().raw(&[0; 4096]).push(PROOF).end(), corrupt(AT)),
        case("a synced record after zeros", log().raw(&[0; 8]).push(PROOF).end(), corrupt(AT)),
        case("a whole record after zeros", log().raw(&[0; 8]).push(PUT_2).end(), kept(35)),
        case("a synced record off the alignment", broken().raw(&[7; 4]).raw(&after(PROOF)).end(), torn(36 + 17)),
        case("a synced record made for another place", broken().raw(&[7; 8]).raw(&after(PROOF)).end(), torn(40 + 17)),
        case("a synced record with an old sequence number", then(Fields { seq: 1, ..PROOF }), torn(header - 7)),
        case("a synced record beyond the file", then(Fields { value_len: Some(9), ..PROOF }), torn(header - 7)),
        case("a synced record of an unknown kind", then(Fields { kind: 0x90, ..PROOF }), torn(header - 7)),
        case("a synced record of a kind that must not be skipped", then(Fields { kind: 3, ..PROOF }), torn(header - 7)),
        case("a synced record with an unknown flag", then(Fields { flags: 5, ..PROOF }), torn(header - 7)),
        case("a synced record whose header is cut short", broken().raw(&after(PROOF)[..23]).0, torn(header - 7)),
        case("a statement of the place", states(AT), kept(header + 1)),
        case("a statement of a place above the damage", states(AT + 1), corrupt(AT)),
        case("a statement of its own place", states(AT + 32), corrupt(AT)),
        case("a statement of a place above itself", states(AT + 33), kept(header + 1)),
        case(
            "a statement that is broken",
            then(Fields { body_crc_xor: 1, ..record(0, SYNCED_TO, 3, b"", &(AT as u64 + 8).to_le_bytes()) }),
            torn(header + 1),
        ),
        case(
            "a statement with the flag that states nothing",
            then(record(SYNCED, SYNCED_TO, 3, b"", &[0; 8])),
            corrupt(AT),
        ),
        case(
            "a statement with the flag that is broken",
            then(Fields { body_crc_xor: 1, ..record(SYNCED, SYNCED_TO, 3, b"", &[0; 8]) }),
            corrupt(AT),
        ),
        case(
            "a statement with a key in its value's place",
            then(record(0, SYNCED_TO, 3, &(AT as u64 + 8).to_le_bytes(), b"")),
            kept(header + 1),
        ),
        case(
            "a value that was made with the file_id",
            log().push(Fields { body_crc_xor: 1, ..carrier }).end(),
            corrupt(AT),
        ),
    ]
}

/// Loose records: their bodies do not matter, and they prove nothing.
fn loose() -> Vec<Case> {
    let any = |kind| Fields { body_crc_xor: 1, ..record(0, kind, 2, b"\x09", b"value") };
    let begun = || log().push(record(MORE, PUT, 2, b"\0l", b"2"));
    vec![
        case(
            "a loose record with a wrong body",
            log().push(any(0xc1)).push(record(0, PUT, 3, b"\0k", b"")).end(),
            "k=@3",
        ),
        case("the last loose kind", log().push(any(0xff)).end(), K),
        case("the kind before the first loose one", log().push(any(0xbf)).end(), torn(30)),
        case("ROOTS in the log", log().push(any(ROOTS)).end(), K),
        case("a loose record that reaches beyond the file", log().push(any(0xc1)).0[..AT + 29].to_vec(), torn(29)),
        case("a loose record with SYNCED", log().push(Fields { flags: SYNCED, ..any(0xc1) }).end(), torn(30)),
        case("a loose record with MORE", log().push(Fields { flags: MORE, ..any(0xc1) }).end(), torn(30)),
        case("a loose record with a later flag", log().push(Fields { flags: 4, ..any(0xc1) }).end(), unsupported(AT)),
        case("a loose record in a batch", begun().push(Fields { seq: 3, ..any(0xc1) }).end(), torn(62)),
        case(
            "a loose record with SYNCED after damage",
            log().push(BROKEN).push(Fields { flags: SYNCED, ..record(0, 0xc1, 3, b"", b"x") }).end(),
            torn(57),
        ),
        case(
            "a whole loose record after damage",
            log().push(BROKEN).push(record(0, 0xc1, 3, b"", b"x")).end(),
            torn(57),
        ),
    ]
}

/// What a file says of its own length.
fn roots() -> Vec<Case> {
    const START: usize = ROOTS_END;
    const END: usize = START + 32;
    let log = |slots| FileBytes::with_roots(0, slots).push(record(0, PUT, 1, b"\0k", b"1"));
    let root = |synced_to: usize| log([(1, synced_to as u64), (0, 0)]);
    let empty = || FileBytes::with_roots(0, [(0, 0); 2]);
    let damaged = |file: FileBytes, at: usize| {
        let mut file = file.end();
        file[at] ^= 1;
        file
    };
    let zeroed = |file: FileBytes, from: usize| {
        let mut file = file.end();
        file[from..].fill(0);
        file
    };
    let nothing = truncated(0, START + 8);
    vec![
        case("an empty log after ROOTS", empty().end(), "empty"),
        case("a file that ends with its header", empty().0[..64].to_vec(), &nothing[..]),
        case("a file that ends in the header of ROOTS", empty().0[..87].to_vec(), &nothing[..]),
        case("a file that ends after the header of ROOTS", empty().0[..88].to_vec(), &nothing[..]),
        case("a file that ends in the first end mark", empty().end()[..START + 7].to_vec(), &nothing[..]),
        case("a damaged header of ROOTS", damaged(root(END), 68), corrupt(64)),
        case("empty slots", log([(0, 0); 2]).end(), K),
        case("a root that states the log's end", root(END).end(), K),
        case("a root that states more than the file has", root(END).0, truncated(0, END + 8)),
        case("a root in the second slot", log([(0, 0), (1, END as u64)]).0, truncated(0, END + 8)),
        case("the higher generation, first", log([(2, END as u64), (1, START as u64)]).0, truncated(0, END + 8)),
        case("the higher generation, second", log([(1, START as u64), (2, END as u64)]).0, truncated(0, END + 8)),
        case("a lower generation that states more", log([(2, START as u64), (1, END as u64)]).0, K),
        case("a slot with a wrong checksum", damaged(root(END + 800), 150), K),
        case("a slot without a generation", log([(u64::MAX, END as u64 + 800), (0, 0)]).end(), K),
        case(
            "a slot that states less than any log",
            log([(1, END as u64), (2, START as u64 - 8)]).0,
            truncated(0, END + 8),
        ),
        case("a slot that states more than any log", log([(1, MAX_FILE_LEN + 8), (0, 0)]).end(), K),
        case("a log that is zeros before its root", zeroed(root(END), START), truncated(START, END)),
        case(
            "a log that is zeros in a batch before its root",
            {
                let begun = |slots| FileBytes::with_roots(0, slots).push(record(MORE, PUT, 1, b"\0k", b"1"));
                let whole = |slots| begun(slots).push(record(0, PUT, 2, b"\0l", b"2"));
                zeroed(whole([(1, END as u64 + 32), (0, 0)]), END)
            },
            corrupt(END),
        ),
        case("damage before the root", damaged(root(END), START + 20), corrupt(START)),
        case("damage after the root", damaged(root(START), START + 20), "empty, torn 27"),
        case("a torn tail after the root", root(END).raw(&[7; 9]).end(), torn(9)),
        case(
            "a later kind comes before the root",
            FileBytes::with_roots(0, [(1, END as u64), (0, 0)]).push(record(0, 3, 1, b"\0k", b"1")).end(),
            unsupported(START),
        ),
    ]
}

/// Whatever is wrong with a snapshot, the store holds the same. (One that lies is no matter for a reader's rules.)
fn snapshots() -> Vec<Case> {
    let at = |part_bits| snapshot::small(part_bits);
    let moved = |mut of: Snapshotted, synced_to: usize| {
        of.file[96..104].copy_from_slice(&(synced_to as u64).to_le_bytes());
        seal_roots(&mut of.file);
        of.file
    };
    let flipped = |mut of: Snapshotted, byte: usize| {
        of.file[byte] ^= 1;
        of.file
    };
    let (of, ordered) = (at(6), snapshot::small_ordered(6));
    let (image_at, snapshot_at, end) = (of.image_at, of.snapshot_at, of.file.len() - 32);
    let honest = snapshot::faults().into_iter().filter(|(_, fault, _)| *fault != Fault::Lie);
    let mut cases: Vec<_> = honest.map(|(story, _, of)| case(story, of.file, of.holds)).collect();
    cases.extend([
        case("a snapshot with one part", at(0).file, HOLDS),
        case("a damaged directory of an order", flipped(ordered.clone(), ordered.snapshot_at - 8), HOLDS),
        case("a snapshot with as many parts as sub-tables", at(12).file, HOLDS),
        case("a root that states less than the end of its snapshot", moved(at(6), snapshot_at + 24), HOLDS),
        case("a root that states less than the header of its snapshot", moved(at(6), snapshot_at), HOLDS),
        case("a damaged header of an image", flipped(at(6), image_at + 12), corrupt(image_at)),
        case("a damaged header of a snapshot", flipped(at(6), snapshot_at + 12), corrupt(snapshot_at)),
        case("a damaged body of a snapshot", flipped(at(6), snapshot_at + 24 + 80), HOLDS),
        case("a damaged part", flipped(at(6), image_at + 24), HOLDS),
        case("damage before a snapshot", flipped(at(6), ROOTS_END + 24 + 2), corrupt(ROOTS_END)),
        case("damage after a snapshot", flipped(at(6), end - 64 + 26), corrupt(end - 64)),
        case(
            "a torn tail after a snapshot",
            [&at(6).file[..end + 24], &[7; 9][..]].concat(),
            format!("{HOLDS}, torn 9"),
        ),
        case("a file cut inside a snapshot", at(6).file[..snapshot_at + 30].to_vec(), truncated(0, end + 8)),
    ]);
    cases
}

/// Copies, which end with a closing mark.
fn copies() -> Vec<Case> {
    let copy = |base_seq| FileBytes::new(base_seq).push(record(0, PUT, 1, b"\0k", b"1"));
    let mark = record(SYNCED, MARK, 8, b"", b"");
    vec![
        case("a copy with its closing mark", copy(7).push(mark).end(), K),
        case("a copy that goes on after its closing mark", copy(7).push(mark).push(BROKEN_NINTH).end(), torn(24 + 3)),
        case("a copy without its closing mark", copy(7).end(), truncated(AT, 0)),
        case("a copy without its closing mark and end mark", copy(7).0, truncated(AT, 0)),
        case("a copy without anything", FileBytes::new(7).end(), truncated(64, 0)),
        case("a copy whose closing mark is torn", copy(7).push(mark).0[..AT + 20].to_vec(), truncated(AT, 0)),
        case(
            "a copy that is damaged before it is cut off",
            {
                let file =
                    FileBytes::new(7).push(Fields { seq: 1, ..BROKEN }).push(record(SYNCED, PUT, 2, b"\0l", b"2"));
                file.end()
            },
            corrupt(64),
        ),
        case("a copy with a number of its own", copy(1).end(), truncated(AT, 0)),
        case("a store that is no copy", copy(0).end(), K),
    ]
}

const BROKEN_NINTH: Fields<'static> = Fields { seq: 9, ..BROKEN };
