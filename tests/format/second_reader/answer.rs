//! The library's verdict on a file, in the words of docs/reader/caskfile_reader.py.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::inspect::{Class, Inspection};
use caskfile::{Cask, Config, Damage, Error, verify_on};
use serde_json::{Value, json};

use crate::common::files::layout::{
    DELETE, END_MARK_LEN, IMAGE, MARK, MORE, MOVED, NOW, PUT, PUT_OWNED, PUT_WITH, SESSION, SNAPSHOT, SYNCED,
    SYNCED_TO, log_start,
};
use crate::common::files::library::{self, PATH};
use crate::common::files::reader::{Contents, Name, Reader, Record, Setting, Verdict};

/// The answer for a file.
pub fn answer(file: &[u8]) -> Value {
    match library::verdict(file) {
        Verdict::NotCaskfile => json!({"verdict": "NotCaskfile", "readable": false}),
        Verdict::UnsupportedVersion => json!({"verdict": "UnsupportedVersion", "readable": false}),
        Verdict::UnsupportedRecord { offset } => {
            json!({"verdict": "UnsupportedRecord", "readable": false, "at": offset, "fails": ["W7"]})
        }
        Verdict::Corrupt { offset } => corrupt(file, offset),
        Verdict::Truncated { log_end, stated } => {
            let fails = match (log_end, stated) {
                (0, _) => &["H7", "H8"][..],
                (_, 0) => &["W11"],
                _ => &["S5"],
            };
            json!({"verdict": "Truncated", "readable": false, "at": log_end, "fails": fails})
        }
        Verdict::Store(contents) => store(file, &contents),
    }
}

fn store(file: &[u8], contents: &Contents) -> Value {
    let verdict = match contents.torn {
        0 if file.len() < contents.end as usize + END_MARK_LEN => "whole, but for its end mark",
        0 => "whole",
        _ => "torn",
    };
    let mut pairs: Vec<_> = contents.pairs.iter().collect();
    // In the order of the full keys, which start with the length of the bucket's name.
    pairs.sort_by_key(|((bucket, key), _)| (bucket.len(), bucket, key));
    let mut answer = json!({
        "verdict": verdict,
        "readable": true,
        "end": contents.end,
        "highest_seq": contents.last_index,
        "pairs": pairs.into_iter().map(pair).collect::<Vec<_>>(),
    });
    let (lifetimes, sessions) = lifetimes(file);
    if !lifetimes.is_empty() {
        // These are the pairs of this moment. Of the others the library shows nothing.
        answer["now"] = NOW.into();
        for pair in answer["pairs"].as_array_mut().into_iter().flatten() {
            let lifetime = pair["last_index"].as_u64().and_then(|seq| lifetimes.get(&seq));
            lifetime.into_iter().flatten().for_each(|&(name, number)| pair[name] = number.into());
        }
    }
    if !sessions.is_empty() {
        answer["sessions"] = sessions.into_values().collect();
    }
    if contents.torn > 0 {
        (answer["torn_bytes"], answer["kept"]) = (contents.torn.into(), contents.kept.into());
    }
    if let Some((at, differs)) = snapshot(file) {
        answer["snapshot"] = json!({"at": at, "differs": differs});
    }
    answer
}

/// What ends a pair, by name: its deadline, its session.
type Lifetime = Vec<(&'static str, u64)>;

/// What ends the pairs that the log has, by their `last_index`; and the sessions that have not ended.
fn lifetimes(file: &[u8]) -> (BTreeMap<u64, Lifetime>, BTreeMap<u64, Value>) {
    let disk = SimDisk::new();
    disk.set_contents(PATH, file.to_vec());
    let inspection = Inspection::open_on(Arc::new(disk), PATH).expect("it opens");
    let (mut lifetimes, mut sessions) = (BTreeMap::new(), BTreeMap::new());
    for piece in inspection.pieces().map(|piece| piece.expect("it lies still")) {
        let (Class::Live | Class::Statement, Some(record)) = (piece.class, &piece.record) else { continue };
        let field = |name: &str| {
            let field = piece.fields().into_iter().find(|field| field.name == name).expect("the kind has it");
            let mut bytes = vec![0; (field.end - field.start) as usize];
            inspection.read(field.start, &mut bytes).expect("it lies still");
            bytes
        };
        let number = |name: &str| u64::from_le_bytes(field(name).try_into().expect("8 bytes"));
        let names: &[&'static str] = match record.kind_name() {
            Some("session") => {
                let mut session = json!({"seq": record.seq});
                for name in ["session", "owner", "nonce", "ttl", "deadline", "base_seq"] {
                    session[name] = number(name).into();
                }
                session["boot"] = field("boot").iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
                match number("deadline") {
                    0 => sessions.remove(&number("session")),
                    _ => sessions.insert(number("session"), session),
                };
                continue;
            }
            Some("put-owned") => &["deadline", "session", "acquired"],
            Some("put-with") => &["deadline"],
            _ => continue,
        };
        let lifetime: Lifetime = names.iter().map(|&name| (name, number(name))).filter(|lasts| lasts.1 > 0).collect();
        if !lifetime.is_empty() {
            assert_eq!(record.deadline, lifetime.iter().find(|lasts| lasts.0 == "deadline").map(|lasts| lasts.1));
            lifetimes.insert(record.seq, lifetime);
        }
    }
    (lifetimes, sessions)
}

/// The snapshot to which the root leads, and whether the library says that it is wrong. `None` if there is none, or if the
/// library does not say.
fn snapshot(file: &[u8]) -> Option<(u64, bool)> {
    let (_, _, at) = Reader::new(file).root().filter(|root| root.2 > 0)?;
    let disk = SimDisk::new();
    disk.set_contents(PATH, file.to_vec());
    match verify_on(&disk, Path::new(PATH)) {
        Ok(_) => Some((at, false)),
        Err(Error::Damaged { report, .. }) => {
            let wrong = report.wrong_snapshot.as_ref().expect("nothing else is wrong with a file that opens");
            assert_eq!(wrong.offset, at);
            Some((at, true))
        }
        // What follows a torn tail is of a later version.
        Err(Error::UnsupportedRecord { .. }) => None,
        Err(other) => panic!("it opens: {other}"),
    }
}

fn pair(((bucket, key), (value, last_index)): (&Name, &Setting)) -> Value {
    let mut pair = json!({"last_index": last_index});
    for (name, bytes) in [("bucket", bucket), ("key", key), ("value", value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => pair[name] = text.into(),
            Err(_) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                pair[format!("{name}_hex")] = digits.into();
            }
        }
    }
    pair
}

/// The check that failed, and the damaged ranges if the head of the file is right.
fn corrupt(file: &[u8], offset: u64) -> Value {
    let disk = Arc::new(SimDisk::new());
    disk.set_contents(PATH, file.to_vec());
    let opened = Cask::open_on(disk.clone(), PATH, &Config::new().read_only(true).check_at_open(true));
    let Err(Error::Corrupt { damage, .. }) = opened else { panic!("it is corrupt: {:?}", opened.err()) };
    let mut answer =
        json!({"verdict": "Corrupt", "readable": false, "at": offset, "fails": failed(file, offset, damage)});
    if (offset as usize) < log_start(file) {
        return answer;
    }
    match verify_on(&*disk, Path::new(PATH)) {
        Err(Error::Damaged { report, .. }) => {
            let lost = report.losses.iter().filter(|loss| !loss.torn);
            answer["damage"] = lost.map(|loss| json!([loss.start, loss.end])).collect();
        }
        // What follows the damage is of a later version.
        Err(Error::UnsupportedRecord { .. }) => {}
        other => panic!("it is corrupt: {other:?}"),
    }
    answer
}

/// The page's checks that this damage may have failed.
fn failed(file: &[u8], offset: u64, damage: Damage) -> &'static [&'static str] {
    match damage {
        Damage::FileHeader { .. } => &["H4"],
        Damage::Sequence { .. } if offset == 0 => &["H6"],
        Damage::Header { .. } if (offset as usize) < log_start(file) => &["H7"],
        Damage::Zeros => &["W1"],
        Damage::Header { .. } => &["W2", "W3"],
        Damage::Lengths { .. } => &["W4"],
        Damage::BeyondFile { .. } => &["W5"],
        Damage::Sequence { .. } => &["W6"],
        Damage::BrokenBatch => &["W1", "W8"],
        Damage::Body { .. } => &["W9"],
        Damage::Form => &["W10"],
        other => panic!("the page knows no such damage: {other}"),
    }
}

/// The records before `end`, which the library has read.
pub fn records(file: &[u8], end: u64) -> Vec<Value> {
    let (reader, mut records, mut at, mut previous) = (Reader::new(file), Vec::new(), log_start(file), 0);
    while (at as u64) < end {
        let Ok(record) = reader.record(at, previous) else { panic!("the library has read it") };
        (at, previous) = (record.next, record.seq);
        records.push(described(&record));
    }
    records
}

fn described(record: &Record<'_>) -> Value {
    let kind = match record.kind {
        PUT => "put".to_owned(),
        PUT_WITH => "put-with".to_owned(),
        SESSION => "session".to_owned(),
        PUT_OWNED => "put-owned".to_owned(),
        DELETE => "delete".to_owned(),
        MARK => "mark".to_owned(),
        SYNCED_TO => "SYNCED_TO".to_owned(),
        MOVED => "MOVED".to_owned(),
        IMAGE => "IMAGE".to_owned(),
        SNAPSHOT => "SNAPSHOT".to_owned(),
        other => format!("{other:#04x}"),
    };
    let flags = [(SYNCED, "SYNCED"), (MORE, "MORE")].into_iter().filter(|(flag, _)| record.flags & flag != 0);
    json!({
        "offset": record.offset,
        "seq": record.seq,
        "kind": kind,
        "flags": flags.map(|(_, name)| name).collect::<Vec<_>>(),
        "key_len": record.key.len(),
        "value_len": record.value.len(),
    })
}
